package xmtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// What official clients call it when we are in a group of our own accord, of
// somebody else's, or want to leave it.
const (
	membershipAllowed       = 1
	membershipPending       = 3
	membershipPendingRemove = 5
)

// errPointee is returned while the welcome that a pointer leads to is not there.
var errPointee = errors.New("the shared welcome is not there yet")

// pointeePatience is for how long after a pointer the shared welcome may come.
const pointeePatience = int64(3 * 24 * time.Hour)

// Limits of how much strangers' welcomes can cost.
const (
	maxDeferred      = 1000 // are kept
	deferredPerRound = 10   // are tried again
	deferredAttempts = 100
	deferredRetryMin = time.Second // after the first few
	deferredRetryMax = 2 * time.Hour
	maxEpoch         = 1 << 62 // so that no later one is too high for the database
)

// syncWelcomes joins the groups that we were let into since the last time, those of
// one page of welcomes, and tells whether there may be more. A welcome that can't be
// used is noted and skipped.
func (c *Client) syncWelcomes(ctx context.Context) (joined []*group, more bool, err error) {
	select {
	case c.welcoming <- struct{}{}:
		defer func() { <-c.welcoming }()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	if joined, err = c.retryWelcomes(ctx); err != nil {
		return joined, false, err
	}
	var cursor uint64
	err = c.db.View(func(tx *store.Tx) error {
		n, err := tx.Number(numberWelcome)
		cursor = uint64(n)
		return err
	})
	if err != nil {
		return joined, false, err
	}
	response, err := c.node.MLS.QueryWelcomeMessages(ctx, &mlsapi.QueryWelcomeMessagesRequest{
		InstallationKey: c.installation.Bytes(),
		PagingInfo: &mlsapi.PagingInfo{
			Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING,
			Limit:     pageSize,
			IdCursor:  cursor,
		},
	})
	if err != nil {
		return joined, false, fmt.Errorf("reading welcomes: %w", err)
	}
	// What can't be used costs one transaction for all that follow each other.
	var refused []store.Skip
	flush := func() error {
		if len(refused) == 0 {
			return nil
		}
		err := c.db.Update(func(tx *store.Tx) error {
			for _, skip := range refused {
				if err := tx.AddSkip(skip); err != nil {
					return err
				}
			}
			return c.welcomesRead(tx, refused[len(refused)-1].Number)
		})
		refused = nil
		return err
	}
	for _, m := range response.Messages {
		number, _ := welcomeNumber(m)
		if number <= cursor || number > maxNumber {
			return joined, false, errors.Join(flush(), c.wrongOrder(callWelcomes, "welcome %d after %d", number, cursor))
		}
		cursor = number
		if to := welcomeTo(m); len(to) > 0 && !bytes.Equal(to, c.installation.Bytes()) {
			return joined, false, errors.Join(flush(), c.wrongAnswer(callWelcomes, "welcome %d is for another installation", number))
		}
		opened, reason, err := c.unwrap(m)
		if err != nil {
			return joined, false, errors.Join(flush(), err)
		}
		if reason != nil {
			refused = append(refused, c.skipWelcome(number, reason))
			continue
		}
		if err := flush(); err != nil {
			return joined, false, err
		}
		g, err := c.joinOne(ctx, opened, func(tx *store.Tx) error { return c.welcomesRead(tx, number) })
		if deferrable(err) {
			// The others are not to wait for it.
			err = c.deferWelcome(m, number, err)
		}
		if err != nil {
			return joined, false, err
		}
		if g != nil {
			joined = append(joined, g)
		}
	}
	return joined, len(response.Messages) >= pageSize, flush()
}

// welcomesRead notes up to where welcomes were read.
func (c *Client) welcomesRead(tx *store.Tx, number uint64) error {
	return errors.Join(tx.SetNumber(numberWelcome, int64(number)), c.rotateSoon(tx))
}

// skipWelcome describes a welcome that is skipped.
func (c *Client) skipWelcome(number uint64, reason error) store.Skip {
	c.options.logger.Info("welcome skipped", "number", number, "reason", reason)
	return c.skip(nil, number, reason)
}

// welcomeNumber returns the number and time of a welcome.
func welcomeNumber(m *mlsapi.WelcomeMessage) (number, created uint64) {
	if p := m.GetWelcomePointer(); p != nil {
		return p.Id, p.CreatedNs
	}
	return m.GetV1().GetId(), m.GetV1().GetCreatedNs()
}

// welcomeTo returns the installation that the node says a welcome is for.
func welcomeTo(m *mlsapi.WelcomeMessage) []byte {
	if p := m.GetWelcomePointer(); p != nil {
		return p.InstallationKey
	}
	return m.GetV1().GetInstallationKey()
}

// deferrable tells whether a welcome can't be judged yet though the node answers: what
// it leads to is not there, or what is to be known of members can't be found out.
func deferrable(err error) bool {
	return errors.Is(err, errPointee) || errors.Is(err, identity.ErrVerifierUnavailable) || lies(err)
}

// deferWelcome keeps a welcome for later. Of too many, the one that was tried most
// often is given up.
func (c *Client) deferWelcome(m *mlsapi.WelcomeMessage, number uint64, reason error) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return c.db.Update(func(tx *store.Tx) error {
		if err := errors.Join(tx.Defer(store.Deferred{Number: number, Welcome: b}), c.welcomesRead(tx, number)); err != nil {
			return err
		}
		over, err := tx.OverDeferred(maxDeferred)
		if err != nil || over == 0 {
			return err
		}
		return errors.Join(tx.Undefer(over), tx.AddSkip(c.skipWelcome(over, reason)))
	})
}

// retryWelcomes tries welcomes again that could not be judged: some of those that are
// due.
func (c *Client) retryWelcomes(ctx context.Context) (joined []*group, err error) {
	var welcomes []store.Deferred
	err = c.db.View(func(tx *store.Tx) (err error) {
		welcomes, err = tx.Deferred(c.now(), deferredPerRound)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, d := range welcomes {
		m := &mlsapi.WelcomeMessage{}
		if err := proto.Unmarshal(d.Welcome, m); err != nil {
			return joined, fmt.Errorf("stored welcome: %w", err)
		}
		finish := func(tx *store.Tx) error { return tx.Undefer(d.Number) }
		opened, reason, err := c.unwrap(m)
		var g *group
		if err == nil && reason == nil {
			g, err = c.joinOne(ctx, opened, finish)
		}
		if d.Attempts++; deferrable(err) && d.Attempts >= deferredAttempts {
			reason, err = err, nil
		}
		switch {
		case deferrable(err):
			d.Due = c.now() + int64(deferredDelay(d.Attempts))
			err = c.db.Update(func(tx *store.Tx) error { return tx.Defer(d) })
		case err == nil && reason != nil:
			err = c.db.Update(func(tx *store.Tx) error {
				return errors.Join(tx.AddSkip(c.skipWelcome(d.Number, reason)), finish(tx))
			})
		}
		if err != nil {
			return joined, err
		}
		if g != nil {
			joined = append(joined, g)
		}
	}
	return joined, nil
}

// deferredDelay is how long to wait after so many attempts.
func deferredDelay(attempts int) time.Duration {
	const eager = 3 // at once with the next sync
	if attempts <= eager {
		return 0
	}
	return min(deferredRetryMin<<min(attempts-eager-1, 20), deferredRetryMax)
}

// openedWelcome is a welcome that one of our key packages has opened.
type openedWelcome struct {
	number, created uint64
	keys            *protocol.KeyPackage
	// One of the two.
	welcome *protocol.Welcome
	pointer *protocol.WelcomePointer
}

// unwrap opens a welcome. A reason says why it never will be.
func (c *Client) unwrap(m *mlsapi.WelcomeMessage) (opened openedWelcome, reason, err error) {
	kp, err := c.keyPackageFor(m)
	if err != nil {
		return opened, nil, err
	}
	if kp == nil {
		return opened, protocol.ErrWelcomeKey, nil
	}
	opened.keys = kp
	opened.number, opened.created = welcomeNumber(m)
	opened.welcome, opened.pointer, reason = kp.Unwrap(m)
	return opened, reason, nil
}

// joinOne joins the group of one welcome. It returns nil, after noting the reason,
// if there is nothing to join. Finish is part of the transaction either way. The
// error means that it has to be tried again; a deferrable one, that only this one has
// to.
func (c *Client) joinOne(ctx context.Context, opened openedWelcome, finish func(*store.Tx) error) (*group, error) {
	number, created, welcome := opened.number, opened.created, opened.welcome
	skip := func(reason error) (*group, error) {
		return nil, c.db.Update(func(tx *store.Tx) error {
			return errors.Join(tx.AddSkip(c.skipWelcome(number, reason)), finish(tx))
		})
	}
	if opened.pointer != nil {
		var err error
		welcome, err = c.follow(ctx, opened.pointer)
		switch {
		case errors.Is(err, errPointee) && c.now()-int64(created) > pointeePatience:
			return skip(err)
		case errors.Is(err, protocol.ErrWelcome) || errors.Is(err, protocol.ErrWelcomeKey):
			return skip(err)
		case err != nil:
			return nil, err
		}
	}
	pending, err := mls.Join(welcome.Message, opened.keys.Private(), c.signer, nil, c.mlsConfig())
	if err != nil {
		return skip(err)
	}
	defer pending.Discard()
	joined := pending.Result()
	if len(joined.Group.ID()) != protocol.GroupIDSize {
		return skip(fmt.Errorf("a group id of %d bytes", len(joined.Group.ID())))
	}
	if joined.Group.Epoch() > maxEpoch {
		return skip(fmt.Errorf("epoch %d", joined.Group.Epoch()))
	}
	state, adder, err := protocol.CheckJoined(ctx, joined, c.inboxID, c.inboxes)
	if protocol.IsVerdict(err) {
		return skip(err)
	}
	if err != nil {
		return nil, err
	}
	if state.Metadata.Type == protocol.Oneshot {
		// It asks to let somebody in again, which is left to others; see docs/decisions.md.
		c.options.logger.Info("a member asks to be let in again")
		return nil, c.db.Update(finish)
	}
	g := c.groups.get(joined.Group.ID())
	if err := g.acquire(ctx); err != nil {
		return nil, err
	}
	defer g.release()
	known, err := g.supersedes(joined.Group.Epoch())
	if err != nil {
		return nil, err
	}
	if known {
		return skip(errMemberAlready)
	}
	err = g.update(func(tx *store.Tx) error {
		if err := tx.ClearState(g.id); err != nil {
			return err
		}
		if err := saveState(tx, g.id, pending.Changes()); err != nil {
			return err
		}
		commit := welcome.CommitID
		if commit > maxNumber {
			commit = 0 // not known
		}
		if err := c.storeJoined(tx, g, state, adder, commit, number, created); err != nil {
			return err
		}
		if err := g.logBeginning(tx, commitWelcome, joined.Group.Epoch(), joined.Group.EpochAuthenticator(), adder); err != nil {
			return err
		}
		return finish(tx)
	})
	if err != nil {
		return nil, err
	}
	g.mls, g.caughtUp, g.streamed = pending.Done().Group, false, unstreamed
	g.heard.begin(g.mls)
	c.news.publish()
	return g, nil
}

// keyPackageFor finds the key package that a welcome was made for; nil if we
// don't have it (any more).
func (c *Client) keyPackageFor(m *mlsapi.WelcomeMessage) (kp *protocol.KeyPackage, err error) {
	err = c.db.View(func(tx *store.Tx) error {
		row, found, err := tx.KeyPackageByKey(protocol.WelcomeKey(m))
		if err != nil || !found {
			return err
		}
		kp, err = protocol.UnmarshalKeyPackage(row.Package)
		clear(row.Package)
		return err
	})
	return kp, err
}

// follow gets the welcome that a pointer leads to.
func (c *Client) follow(ctx context.Context, pointer *protocol.WelcomePointer) (*protocol.Welcome, error) {
	response, err := c.node.MLS.QueryWelcomeMessages(ctx, &mlsapi.QueryWelcomeMessagesRequest{
		InstallationKey: pointer.Destination,
		PagingInfo:      &mlsapi.PagingInfo{Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING, Limit: 1},
	})
	if err != nil {
		return nil, fmt.Errorf("reading a shared welcome: %w", err)
	}
	if len(response.Messages) == 0 {
		return nil, errPointee
	}
	return pointer.Open(response.Messages[0])
}

// supersedes tells whether what we have, or had, of the group is as new as a
// welcome to that epoch. Also if we have been removed since: we may have used the
// keys of that epoch, and would use them again.
func (g *group) supersedes(epoch uint64) (bool, error) {
	_, err := g.row()
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	state, err := g.state()
	if err != nil {
		// What can't be read is better replaced.
		return false, nil
	}
	return epoch <= state.Epoch(), nil
}

// storeJoined stores what we know of a group that we have just joined.
func (c *Client) storeJoined(tx *store.Tx, g *group, state *protocol.GroupState, adder protocol.Actor, commit, number, created uint64) error {
	row, _, err := tx.Group(g.id)
	if err != nil {
		return err
	}
	if row.Created == 0 {
		row.Created = int64(created)
	}
	row.ID = g.id
	row.Kind = int(state.Metadata.Type)
	row.DM = dmID(state)
	row.Creator = state.Metadata.CreatorInboxID
	row.Adder = adder.InboxID
	// Who is let in again after he left decides again.
	back := row.Membership == membershipPendingRemove
	row.Membership = membershipPending
	if back {
		row.Membership = membershipAllowed
	}
	row.Welcome, row.Joined = number, commit
	row.Cursor = max(row.Cursor, commit)
	row.Rotated, row.Checked = 0, 0
	row.Problem, row.Paused = "", ""
	if version := state.Paused(); version != nil {
		row.Paused = version.Required
	}
	err = errors.Join(tx.PutGroup(row), tx.AddArrival(g.id), tx.ForgetMembers(g.id), g.requeueAll(tx))
	if visible(row) {
		err = errors.Join(err, c.consentOnJoining(tx, row, back))
	} else if state.Metadata.Type == protocol.Sync {
		err = errors.Join(err, c.bringIn(tx))
	}
	if err != nil {
		return err
	}
	envelope := protocol.WelcomeTranscript(adder.InboxID, c.inboxID, created)
	id := envelope.MessageID(g.id)
	_, err = tx.AddMessage(&store.Message{
		ID:           id[:],
		Group:        g.id,
		Number:       commit,
		Sent:         int64(created),
		Inserted:     c.now(),
		Sender:       adder.InboxID,
		Installation: adder.Installation.Bytes(),
		Kind:         store.KindMembershipChange,
		Delivery:     store.Published,
		ContentType:  contentType(envelope.Content),
		Content:      envelope.Content,
	})
	return err
}

// dmID is empty for groups.
func dmID(state *protocol.GroupState) string {
	if m := state.Metadata.DMMembers; m != nil && state.Metadata.Type == protocol.DM {
		return protocol.DMID(m[0], m[1])
	}
	return ""
}
