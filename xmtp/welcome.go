package xmtp

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

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
const pointeePatience = 3 * 24 * 3600 * 1e9

// syncWelcomes joins the groups that we were let into since the last time. A
// welcome that can't be used is noted and skipped.
func (c *Client) syncWelcomes(ctx context.Context) (joined []*group, err error) {
	select {
	case c.welcoming <- struct{}{}:
		defer func() { <-c.welcoming }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if joined, err = c.retryWelcomes(ctx); err != nil {
		return joined, err
	}
	for {
		var cursor int64
		err := c.db.View(func(tx *store.Tx) (err error) {
			cursor, err = tx.Number(numberWelcome)
			return err
		})
		if err != nil {
			return joined, err
		}
		response, err := c.node.MLS.QueryWelcomeMessages(ctx, &mlsapi.QueryWelcomeMessagesRequest{
			InstallationKey: c.installation.Bytes(),
			PagingInfo: &mlsapi.PagingInfo{
				Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING,
				Limit:     pageSize,
				IdCursor:  uint64(cursor),
			},
		})
		if err != nil {
			return joined, fmt.Errorf("reading welcomes: %w", err)
		}
		for _, m := range response.Messages {
			number, _ := welcomeNumber(m)
			if number <= uint64(cursor) || number >= 1<<63 {
				return joined, fmt.Errorf("%w: welcome %d after %d", ErrNodeOrder, number, cursor)
			}
			cursor = int64(number)
			g, err := c.joinOne(ctx, m, func(tx *store.Tx) error {
				return errors.Join(tx.SetNumber(numberWelcome, int64(number)), c.rotateSoon(tx))
			})
			if errors.Is(err, errPointee) {
				// The others are not to wait for it.
				err = c.deferWelcome(m, number)
			}
			if err != nil {
				return joined, err
			}
			if g != nil {
				joined = append(joined, g)
			}
		}
		if len(response.Messages) < pageSize {
			return joined, nil
		}
	}
}

// welcomeNumber returns the number and time of a welcome.
func welcomeNumber(m *mlsapi.WelcomeMessage) (number, created uint64) {
	if p := m.GetWelcomePointer(); p != nil {
		return p.Id, p.CreatedNs
	}
	return m.GetV1().GetId(), m.GetV1().GetCreatedNs()
}

// deferWelcome keeps a pointer for later.
func (c *Client) deferWelcome(m *mlsapi.WelcomeMessage, number uint64) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return c.db.Update(func(tx *store.Tx) error {
		return errors.Join(tx.Defer(number, b), tx.SetNumber(numberWelcome, int64(number)), c.rotateSoon(tx))
	})
}

// retryWelcomes tries pointers again whose shared welcome was not there.
func (c *Client) retryWelcomes(ctx context.Context) (joined []*group, err error) {
	var welcomes [][]byte
	err = c.db.View(func(tx *store.Tx) (err error) {
		welcomes, err = tx.Deferred()
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, b := range welcomes {
		m := &mlsapi.WelcomeMessage{}
		if err := proto.Unmarshal(b, m); err != nil {
			return joined, fmt.Errorf("stored welcome: %w", err)
		}
		number, _ := welcomeNumber(m)
		g, err := c.joinOne(ctx, m, func(tx *store.Tx) error { return tx.Undefer(number) })
		if err != nil && !errors.Is(err, errPointee) {
			return joined, err
		}
		if g != nil {
			joined = append(joined, g)
		}
	}
	return joined, nil
}

// joinOne joins the group of one welcome. It returns nil, after noting the reason,
// if there is nothing to join. Finish is part of the transaction either way. The
// error means that it has to be tried again; errPointee, that only this one has to.
func (c *Client) joinOne(ctx context.Context, m *mlsapi.WelcomeMessage, finish func(*store.Tx) error) (*group, error) {
	number, created := welcomeNumber(m)
	skip := func(reason error) (*group, error) {
		c.options.logger.Info("welcome skipped", "number", number, "reason", reason)
		return nil, c.db.Update(func(tx *store.Tx) error {
			return errors.Join(tx.AddSkip(c.skip(nil, number, reason)), finish(tx))
		})
	}
	kp, err := c.keyPackageFor(m)
	if err != nil {
		return nil, err
	}
	if kp == nil {
		return skip(protocol.ErrWelcomeKey)
	}
	welcome, pointer, err := kp.Unwrap(m)
	if err != nil {
		return skip(err)
	}
	if pointer != nil {
		welcome, err = c.follow(ctx, pointer)
		switch {
		case errors.Is(err, errPointee) && c.now()-int64(created) > pointeePatience:
			return skip(err)
		case errors.Is(err, protocol.ErrWelcome) || errors.Is(err, protocol.ErrWelcomeKey):
			return skip(err)
		case err != nil:
			return nil, err
		}
	}
	pending, err := mls.Join(welcome.Message, kp.Private(), c.signer, nil, c.mlsConfig())
	if err != nil {
		return skip(err)
	}
	defer pending.Discard()
	joined := pending.Result()
	if len(joined.Group.ID()) != protocol.GroupIDSize {
		return skip(fmt.Errorf("a group id of %d bytes", len(joined.Group.ID())))
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
		if err := c.storeJoined(tx, g, state, adder, welcome.CommitID, number, created); err != nil {
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
	err = errors.Join(tx.PutGroup(row), tx.AddArrival(g.id), tx.ForgetMembers(g.id))
	if visible(row) {
		err = errors.Join(err, c.consentOnJoining(tx, row, back))
	} else {
		err = errors.Join(err, c.bringIn(tx))
	}
	if err != nil {
		return err
	}
	envelope := protocol.WelcomeTranscript(adder.InboxID, c.inboxID, created)
	id := envelope.MessageID(g.id)
	_, err = tx.AddMessage(store.Message{
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
