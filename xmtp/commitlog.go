package xmtp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// What official clients call the kinds of commits, and how one comes into a group.
const (
	commitCreation    = "GroupCreation"
	commitWelcome     = "Welcome"
	commitRemoved     = "RemovedFromGroup" // it is never published
	commitKeyUpdate   = "KeyUpdate"
	commitMetadata    = "MetadataUpdate"
	commitMembership  = "UpdateGroupMembership"
	commitAdmins      = "UpdateAdminList"
	commitPermissions = "UpdatePermission"
)

func commitKind(c *protocol.Change) string {
	switch {
	case len(c.Added)+len(c.Removed) > 0 || c.InstallationsChanged:
		return commitMembership
	case c.PermissionsChanged:
		return commitPermissions
	case len(c.AdminsAdded)+len(c.AdminsRemoved)+len(c.SuperAdminsAdded)+len(c.SuperAdminsRemoved) > 0:
		return commitAdmins
	case len(c.Attributes) > 0:
		return commitMetadata
	}
	return commitKeyUpdate
}

// logBeginning notes how we came into the group. What was found out before, if we
// were in it before, does not hold any more.
func (g *group) logBeginning(tx *store.Tx, kind string, epoch uint64, authenticator []byte, by protocol.Actor) error {
	return errors.Join(tx.ForgetComparison(g.id), tx.AddCommit(store.Commit{
		Group: g.id, Result: int(protocol.CommitApplied), Epoch: epoch, Authenticator: authenticator,
		Kind: kind, Sender: by.InboxID, Installation: by.Installation.Bytes(),
	}))
}

// logApplied notes a commit that is applied. before is the epoch authenticator until then.
func (g *group) logApplied(tx *store.Tx, number uint64, before []byte, staged *mls.StagedCommit, change *protocol.Change) error {
	c := store.Commit{
		Group: g.id, Number: number, Result: int(protocol.CommitApplied), Before: before,
		Epoch: staged.Epoch, Authenticator: staged.EpochAuthenticator(),
		Kind: commitKind(change), Sender: change.Actor.InboxID, Installation: change.Actor.Installation.Bytes(),
	}
	if staged.SelfRemoved {
		c.Kind, c.Epoch, c.Authenticator = commitRemoved, staged.Epoch-1, before
	}
	return tx.AddCommit(c)
}

// logFailed notes a handshake message that is not applied, if it is a commit. The
// reason may be nil.
func (g *group) logFailed(tx *store.Tx, state *mls.Group, number uint64, data []byte, reason error) error {
	header, _, err := mls.ParseHeader(data)
	if err != nil || header.ContentType != mls.ContentTypeCommit {
		return nil
	}
	last, found, err := tx.LastCommit(g.id)
	if err != nil {
		return err
	}
	if header.Epoch <= state.Epoch() && (!found || last.Kind == commitWelcome) {
		return nil // from before we were let in
	}
	c := store.Commit{
		Group: g.id, Number: number, Result: int(protocol.CommitUndecryptable),
		Before: state.EpochAuthenticator(), Epoch: state.Epoch(), Authenticator: state.EpochAuthenticator(),
	}
	switch {
	case reason == nil || header.Epoch != state.Epoch():
		c.Result = int(protocol.CommitWrongEpoch)
		reason = &mls.EpochError{Message: header.Epoch, Group: state.Epoch()}
	case protocol.IsVerdict(reason):
		c.Result = int(protocol.CommitInvalid)
	}
	c.Detail = reason.Error()
	return tx.AddCommit(c)
}

// suspect notes a message of an epoch that we have not come to.
func (g *group) suspect(tx *store.Tx, number uint64, reason error) error {
	e, ok := errors.AsType[*mls.EpochError](reason)
	if !ok || e.Message <= e.Group || e.Message >= 1<<63 {
		return nil
	}
	f, err := tx.Fork(g.id)
	if err != nil {
		return err
	}
	f.AheadNumber, f.AheadEpoch, f.AheadOf = number, e.Message, e.Group
	return tx.SetFork(f)
}

// How often commit logs are published and compared, as by official clients, and the
// most entries of a request to a node.
const (
	commitLogPeriod   = 5 * time.Minute
	commitLogsPublish = 10
	commitLogsQuery   = 20
)

// CheckForks publishes what commits have led to for us, where that is ours to do,
// reads what others have published, and compares: see [Conversation.Fork].
func (c *Client) CheckForks(ctx context.Context) error {
	if _, err := c.compareCommitLogs(ctx); err != nil {
		return fmt.Errorf("xmtp: checking for forks: %w", err)
	}
	return nil
}

func (c *Client) compareCommitLogs(ctx context.Context) (time.Duration, error) {
	// Who publishes must know what others have.
	groups, err := c.uncompared()
	if err == nil {
		err = c.downloadCommits(ctx, groups)
	}
	var published bool
	if err == nil {
		published, err = c.publishCommits(ctx, groups)
	}
	if err == nil && published {
		err = c.downloadCommits(ctx, groups)
	}
	for _, g := range groups {
		err = errors.Join(err, g.compareCommits(ctx))
	}
	return commitLogPeriod, err
}

// uncompared returns the groups with commits that have not been compared, or looked
// at whether to publish them.
func (c *Client) uncompared() (list []*group, err error) {
	err = c.db.View(func(tx *store.Tx) error {
		rows, err := tx.Groups()
		if err != nil {
			return err
		}
		for _, row := range rows {
			if !visible(row) || row.Problem != "" {
				continue
			}
			consent, _, err := tx.Consent(store.ConsentConversation, hex.EncodeToString(row.ID))
			if err != nil {
				return err
			}
			f, err := tx.Fork(row.ID)
			if err != nil {
				return err
			}
			newest, err := tx.NewestComparable(row.ID)
			if err != nil {
				return err
			}
			if ConsentState(consent.State) == ConsentAllowed && ForkStatus(f.Status) != Forked && newest > min(f.Compared, f.Considered) {
				list = append(list, c.groups.get(row.ID))
			}
		}
		return nil
	})
	return list, err
}

// downloadCommits reads what others have published of groups.
func (c *Client) downloadCommits(ctx context.Context, groups []*group) error {
	for chunk := range slices.Chunk(groups, commitLogsQuery) {
		for len(chunk) > 0 {
			request := &mlsapi.BatchQueryCommitLogRequest{}
			err := c.db.View(func(tx *store.Tx) error {
				for _, g := range chunk {
					f, err := tx.Fork(g.id)
					if err != nil {
						return err
					}
					request.Requests = append(request.Requests, &mlsapi.QueryCommitLogRequest{GroupId: g.id, PagingInfo: &mlsapi.PagingInfo{
						Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING, Limit: pageSize, IdCursor: f.Downloaded,
					}})
				}
				return nil
			})
			if err != nil {
				return err
			}
			response, err := c.node.MLS.BatchQueryCommitLog(ctx, request)
			if err != nil {
				return fmt.Errorf("reading commit logs: %w", err)
			}
			if len(response.Responses) != len(chunk) {
				return c.wrongAnswer(callCommits, "%d answers about %d commit logs", len(response.Responses), len(chunk))
			}
			var more []*group
			for i, g := range chunk {
				entries := response.Responses[i].GetCommitLogEntries()
				if detail, err := c.takeCommits(g, entries); err != nil {
					return err
				} else if detail != "" {
					return c.wrongOrder(callCommits, "%s", detail)
				}
				if len(entries) >= pageSize {
					more = append(more, g)
				}
			}
			chunk = more
		}
	}
	return nil
}

// takeCommits keeps those of the published entries that count, or says why they are
// in no order.
func (c *Client) takeCommits(g *group, entries []*mlscontents.CommitLogEntry) (detail string, err error) {
	err = c.db.Update(func(tx *store.Tx) error {
		f, err := tx.Fork(g.id)
		if err != nil {
			return err
		}
		last := f.Downloaded
		for _, e := range entries {
			if e.SequenceId <= last || e.SequenceId > maxNumber {
				detail = fmt.Sprintf("commit log entry %d after %d", e.SequenceId, last)
				return nil
			}
			last = e.SequenceId
		}
		return g.takeCommits(tx, entries)
	})
	return detail, err
}

// takeCommits keeps those of entries in order that count. Who has signed the first
// valid one signs the log for good.
func (g *group) takeCommits(tx *store.Tx, entries []*mlscontents.CommitLogEntry) error {
	if len(entries) == 0 {
		return nil
	}
	f, err := tx.Fork(g.id)
	if err != nil {
		return err
	}
	var last *protocol.CommitLogEntry
	if s, found, err := tx.LastShared(g.id); err != nil {
		return err
	} else if found {
		last = &protocol.CommitLogEntry{Number: s.Number, Epoch: s.Epoch, Authenticator: s.Authenticator}
	}
	for _, signed := range entries {
		f.Downloaded = signed.SequenceId
		signer := protocol.CommitLogSigner(signed)
		if len(f.Signer) == 0 {
			f.Signer = signer
		}
		if signer == nil || !bytes.Equal(signer, f.Signer) {
			continue
		}
		e, err := protocol.ParseCommitLogEntry(signed.SerializedCommitLogEntry)
		if err != nil || !bytes.Equal(e.GroupID, g.id) || !e.Follows(last) {
			continue
		}
		last = e
		err = tx.AddShared(store.SharedCommit{
			Group: g.id, Log: signed.SequenceId, Number: e.Number, Result: int(e.Result), Epoch: e.Epoch, Authenticator: e.Authenticator,
		})
		if err != nil {
			return err
		}
	}
	return tx.SetFork(f)
}

// outgoingCommit is an entry that is to be published, and its row.
type outgoingCommit struct {
	group   *group
	row     int64
	request *mlsapi.PublishCommitLogRequest
}

// publishCommits publishes what commits have led to for us, in the groups where that
// is ours to do: direct messages, and groups of which we are a super admin.
func (c *Client) publishCommits(ctx context.Context, groups []*group) (published bool, err error) {
	var batch []outgoingCommit
	flush := func(atLeast int) error {
		for len(batch) > 0 && len(batch) >= atLeast {
			n := min(len(batch), commitLogsPublish)
			if err := c.sendCommits(ctx, batch[:n]); err != nil {
				return err
			}
			batch, published = batch[n:], true
		}
		return nil
	}
	for _, g := range groups {
		if considered, err := g.considered(); err != nil || considered {
			if err != nil {
				return published, err
			}
			continue
		}
		seed, err := g.commitLogSeed(ctx)
		if err != nil {
			return published, err
		}
		for after := int64(-1); seed != nil; {
			rows, err := g.unpublished(after)
			if err != nil {
				return published, err
			}
			if len(rows) == 0 {
				break
			}
			after = rows[len(rows)-1].Row
			for _, row := range rows {
				request, err := entryOf(row).Sign(seed)
				if err != nil {
					return published, err
				}
				batch = append(batch, outgoingCommit{g, row.Row, request})
			}
			if err := flush(commitLogsPublish); err != nil {
				return published, err
			}
		}
		clear(seed)
	}
	if err := flush(1); err != nil {
		return published, err
	}
	// A commit that makes us a super admin is looked at again by the next one.
	return published, c.db.Update(func(tx *store.Tx) error {
		for _, g := range groups {
			f, err := tx.Fork(g.id)
			if err != nil {
				return err
			}
			if f.Considered, err = tx.NewestComparable(g.id); err != nil {
				return err
			}
			if err := tx.SetFork(f); err != nil {
				return err
			}
		}
		return nil
	})
}

// considered tells whether there is no commit since it was looked at what to publish.
func (g *group) considered() (yes bool, err error) {
	err = g.client.db.View(func(tx *store.Tx) error {
		f, err := tx.Fork(g.id)
		if err != nil {
			return err
		}
		newest, err := tx.NewestComparable(g.id)
		yes = newest <= f.Considered
		return err
	})
	return yes, err
}

func entryOf(c store.Commit) *protocol.CommitLogEntry {
	return &protocol.CommitLogEntry{
		GroupID: c.Group, Number: c.Number, Before: c.Before, Result: protocol.CommitResult(c.Result), Epoch: c.Epoch, Authenticator: c.Authenticator,
	}
}

// unpublished returns entries after a row, or the last that was published, which
// readers could take: those of commits that the shared log doesn't have yet.
func (g *group) unpublished(after int64) (rows []store.Commit, err error) {
	err = g.client.db.View(func(tx *store.Tx) error {
		f, err := tx.Fork(g.id)
		if err != nil {
			return err
		}
		last, _, err := tx.LastShared(g.id)
		if err != nil {
			return err
		}
		for after = max(after, f.Published); len(rows) == 0; {
			page, err := tx.Commits(g.id, after, pageSize)
			if err != nil || len(page) == 0 {
				return err
			}
			after = page[len(page)-1].Row
			rows = slices.DeleteFunc(page, func(c store.Commit) bool { return c.Number <= last.Number || c.Kind == commitRemoved })
		}
		return nil
	})
	return rows, err
}

// sendCommits publishes entries, and notes it. If it can't note it they are
// published again, which readers pass over.
func (c *Client) sendCommits(ctx context.Context, batch []outgoingCommit) error {
	request := &mlsapi.BatchPublishCommitLogRequest{}
	for _, e := range batch {
		request.Requests = append(request.Requests, e.request)
	}
	if _, err := c.node.MLS.BatchPublishCommitLog(ctx, request); err != nil {
		return fmt.Errorf("publishing commit logs: %w", err)
	}
	return c.db.Update(func(tx *store.Tx) error {
		for _, e := range batch {
			f, err := tx.Fork(e.group.id)
			if err != nil {
				return err
			}
			f.Published = max(f.Published, e.row)
			if err := tx.SetFork(f); err != nil {
				return err
			}
		}
		return nil
	})
}

// commitLogSeed returns the key to sign the group's commit log with; nil if it is
// not ours to publish, or others sign it with a key that we don't have.
func (g *group) commitLogSeed(ctx context.Context) (seed []byte, err error) {
	if err := g.acquire(ctx); err != nil {
		return nil, err
	}
	state, err := g.parsed()
	g.release()
	if err != nil {
		return nil, err
	}
	isDM := state.Metadata.Type == protocol.DM
	if !isDM && !state.Mutable.IsSuperAdmin(g.client.inboxID) {
		return nil, nil
	}
	var f store.Fork
	var fits func([]byte) bool
	shared := state.Mutable.CommitLogSeed()
	defer clear(shared)
	err = g.client.db.Update(func(tx *store.Tx) error {
		if f, err = tx.Fork(g.id); err != nil {
			return err
		}
		fits = func(seed []byte) bool {
			return len(seed) == 32 && (len(f.Signer) == 0 || bytes.Equal(protocol.CommitLogKey(seed), f.Signer))
		}
		switch {
		case fits(f.Seed):
			return nil
		case fits(shared):
			f.Seed = bytes.Clone(shared)
		case len(f.Signer) == 0: // a group from before there were commit logs
			f.Seed = make([]byte, 32)
			rand.Read(f.Seed)
		default:
			return nil
		}
		return tx.SetFork(f)
	})
	if err != nil || !fits(f.Seed) {
		return nil, err
	}
	if len(f.Signer) > 0 && !isDM && !fits(shared) {
		// The other super admins need it.
		v := &Conversation{client: g.client, group: g, row: store.Group{ID: g.id}}
		return f.Seed, v.setAttributes(ctx, map[string]string{protocol.AttributeCommitLogSigner: hex.EncodeToString(f.Seed)})
	}
	return f.Seed, nil
}

// compareCommits compares what the newest commit that others tell of has led to.
func (g *group) compareCommits(ctx context.Context) error {
	var own store.Commit
	var theirs store.SharedCommit
	var found bool
	err := g.client.db.View(func(tx *store.Tx) (err error) {
		own, theirs, found, err = tx.NewestMatch(g.id)
		return err
	})
	if err != nil {
		return err
	}
	proven := false
	if found && !bytes.Equal(own.Authenticator, theirs.Authenticator) {
		if proven, err = g.signedByMember(ctx); err != nil {
			return err
		}
	}
	before, after := ForkUnknown, ForkUnknown
	err = g.client.db.Update(func(tx *store.Tx) error {
		f, err := tx.Fork(g.id)
		if err != nil {
			return err
		}
		newest, err := tx.NewestComparable(g.id)
		if err != nil || newest == 0 || ForkStatus(f.Status) == Forked {
			return err
		}
		before = ForkStatus(f.Status)
		if found {
			f.Compared, f.Commit, f.At = own.Row, own.Number, g.client.now()
			f.Epoch, f.Authenticator, f.TheirEpoch, f.Theirs = own.Epoch, own.Authenticator, theirs.Epoch, theirs.Authenticator
		}
		switch {
		case !found:
			after = ForkUnknown
		case !bytes.Equal(own.Authenticator, theirs.Authenticator) && proven:
			after = Forked
		case !bytes.Equal(own.Authenticator, theirs.Authenticator):
			after = Suspected
		default:
			if own.Row == newest {
				after = Healthy
			}
			if f.AheadNumber < own.Number {
				f.AheadNumber, f.AheadEpoch, f.AheadOf = 0, 0, 0 // it was somebody else who has forked
			}
		}
		f.Status = int(after)
		if after > Healthy && after != before {
			if err := g.client.raise(tx, ConversationForked{g.String(), own.Number}, after == Forked, evidence{}); err != nil {
				return err
			}
		}
		return tx.SetFork(f)
	})
	return err
}

// signedByMember tells whether the shared log is signed with the key that only
// members know. The first one who publishes anything at all decides by which key it
// is signed, and the node asks nobody who he is.
func (g *group) signedByMember(ctx context.Context) (bool, error) {
	if err := g.acquire(ctx); err != nil {
		return false, err
	}
	state, err := g.parsed()
	g.release()
	if err != nil {
		return false, err
	}
	seed := state.Mutable.CommitLogSeed()
	defer clear(seed)
	var f store.Fork
	err = g.client.db.View(func(tx *store.Tx) (err error) {
		f, err = tx.Fork(g.id)
		return err
	})
	return seed != nil && bytes.Equal(protocol.CommitLogKey(seed), f.Signer), err
}
