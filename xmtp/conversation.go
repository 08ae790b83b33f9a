package xmtp

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// Conversation is a group or a direct message. Its methods are safe for use by
// several goroutines.
type Conversation struct {
	client *Client
	group  *group
	row    store.Group
}

func (c *Client) conversation(row store.Group) *Conversation {
	return &Conversation{client: c, group: c.groups.get(row.ID), row: row}
}

// ID is the conversation's id: 32 hex digits.
func (v *Conversation) ID() string { return hex.EncodeToString(v.row.ID) }

// IsDM tells a direct message from a group.
func (v *Conversation) IsDM() bool { return v.row.DM != "" }

// PeerInboxID is the other side of a direct message; empty for a group.
func (v *Conversation) PeerInboxID() string {
	for _, id := range strings.Split(strings.TrimPrefix(v.row.DM, "dm:"), ":") {
		if id != v.client.inboxID {
			return id
		}
	}
	return ""
}

// CreatorInboxID is who created the conversation.
func (v *Conversation) CreatorInboxID() string { return v.row.Creator }

// AddedByInboxID is who let us in.
func (v *Conversation) AddedByInboxID() string { return v.row.Adder }

// CreatedAt is when the conversation came to be, for this client.
func (v *Conversation) CreatedAt() time.Time { return time.Unix(0, v.row.Created) }

// resolve returns the inbox ids of users, who are given by it, by an Ethereum
// address or by a passkey.
func (c *Client) resolve(ctx context.Context, users []string) ([]string, error) {
	ids := make([]string, len(users))
	addresses := map[identity.Identifier][]int{}
	for i, user := range users {
		if identity.CheckInboxID(user) == nil {
			ids[i] = user
			continue
		}
		address, err := parseIdentifier(user)
		if err != nil {
			return nil, fmt.Errorf("%.140q is neither an inbox id nor an address or passkey", user)
		}
		addresses[address] = append(addresses[address], i)
	}
	if len(addresses) == 0 {
		return ids, nil
	}
	found, err := c.inboxes.lookUp(ctx, slices.Collect(maps.Keys(addresses))...)
	if err != nil {
		return nil, err
	}
	if err := c.inboxes.confirm(ctx, found); err != nil {
		return nil, err
	}
	var missing []string
	for address, at := range addresses {
		if found[address] == "" {
			missing = append(missing, address.String())
		}
		for _, i := range at {
			ids[i] = found[address]
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("%w: %s", ErrNoInbox, strings.Join(missing, ", "))
	}
	return ids, nil
}

// InboxIDOf returns the inbox id of an Ethereum address or passkey. The error is
// [ErrNoInbox] if it never used XMTP.
func (c *Client) InboxIDOf(ctx context.Context, address string) (string, error) {
	ids, err := c.resolve(ctx, []string{address})
	if err != nil {
		return "", fmt.Errorf("xmtp: %w", err)
	}
	return ids[0], nil
}

// UpdateKeys renews our keys in the conversation. Who had got hold of the old
// ones, and of nothing else, can't read what is sent after it (RFC 9420 §16.6).
// It happens by itself: see [SelfUpdatePolicy].
func (v *Conversation) UpdateKeys(ctx context.Context) error {
	if err := v.change(ctx, intentKeyUpdate, struct{}{}); err != nil {
		return fmt.Errorf("xmtp: updating keys: %w", err)
	}
	return nil
}

// Sync publishes what waits in the outbox and reads what is new in the
// conversation. A direct message with siblings is synced with them.
func (v *Conversation) Sync(ctx context.Context) error {
	groups, err := v.groups()
	if err != nil {
		return fmt.Errorf("xmtp: syncing: %w", err)
	}
	var errs []error
	for _, id := range groups {
		if err := v.client.groups.get(id).syncNow(ctx); err != nil && !errors.Is(err, ErrPaused) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("xmtp: syncing: %w", err)
	}
	return nil
}

// syncNow reads the log and sends what waits, and looks at members' installations
// from time to time.
func (g *group) syncNow(ctx context.Context) error {
	if err := g.acquire(ctx); err != nil {
		return err
	}
	defer g.release()
	g.caughtUp = false
	if err := g.sync(ctx); err != nil {
		return err
	}
	row, err := g.row()
	if err != nil || row.Problem != "" || !visible(row) || g.client.now()-row.Checked <= int64(checkOnSync) {
		return err
	}
	err = g.client.db.UpdateLazily(func(tx *store.Tx) error {
		row, _, err := tx.Group(g.id) // a sender may have come before
		if err == nil {
			_, err = g.putCheck(tx, row)
		}
		return err
	})
	if err != nil {
		return err
	}
	return g.sync(ctx)
}

// groups are those that the conversation consists of.
func (v *Conversation) groups() ([][]byte, error) {
	if v.row.DM == "" {
		return [][]byte{v.row.ID}, nil
	}
	rows, err := v.client.siblings(v.row.DM)
	ids := make([][]byte, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	return ids, err
}

// Epoch returns the number of the conversation's epoch and its authenticator, by
// which members can make sure that they follow the same conversation (RFC 9420 §8.7).
func (v *Conversation) Epoch(ctx context.Context) (number uint64, authenticator []byte, err error) {
	if err := v.group.acquire(ctx); err != nil {
		return 0, nil, fmt.Errorf("xmtp: epoch: %w", err)
	}
	defer v.group.release()
	state, err := v.group.state()
	if err != nil {
		return 0, nil, fmt.Errorf("xmtp: epoch: %w", err)
	}
	return state.Epoch(), state.EpochAuthenticator(), nil
}

// IsActive tells whether we are a member, and can send.
func (v *Conversation) IsActive() (bool, error) {
	row, err := v.group.row()
	if err != nil {
		return false, fmt.Errorf("xmtp: %w", err)
	}
	return usable(row) == nil, nil
}

// How many conversations are synced at a time, and how many are asked about at once.
const (
	syncParallel    = 8
	newestPerLookup = 1000
)

// Sync joins the conversations that we were let into and brings all of them up to
// date. One that can't be synced doesn't keep the others from it; the error tells
// of all that could not.
func (c *Client) Sync(ctx context.Context) error {
	err := c.sync(ctx)
	// After a backlog most of what the log holds are spent keys. If it can't be emptied
	// now, it is in a moment.
	_ = c.db.Tidy()
	if err != nil {
		return fmt.Errorf("xmtp: syncing: %w", err)
	}
	return nil
}

// maxWelcomeRounds is how many pages of welcomes one sync takes at most: strangers can
// send any number of them.
const maxWelcomeRounds = 20

// sync reads welcomes page by page, and conversations after each, so that a flood of
// welcomes doesn't keep what is said in conversations from its readers.
func (c *Client) sync(ctx context.Context) error {
	for round := 1; ; round++ {
		joined, more, welcomes := c.syncWelcomes(ctx)
		if len(joined) > 0 {
			c.live.changed()
		}
		if welcomes != nil && !lies(welcomes) {
			return welcomes
		}
		err := errors.Join(welcomes, c.syncGroups(ctx))
		if !more || ctx.Err() != nil {
			return err
		}
		if round >= c.options.welcomeRounds {
			return errors.Join(err, c.noteFlood())
		}
	}
}

// noteFlood notes that welcomes are left to the next sync.
func (c *Client) noteFlood() error {
	return c.db.Update(func(tx *store.Tx) error {
		cursor, err := tx.Number(numberWelcome)
		if err != nil {
			return err
		}
		return c.raise(tx, WelcomeFlood{uint64(cursor)}, false, evidence{})
	})
}

func (c *Client) syncGroups(ctx context.Context) error {
	stale, err := c.stale(ctx)
	if err != nil {
		return err
	}
	var workers errgroup.Group
	workers.SetLimit(syncParallel)
	errs := make([]error, len(stale))
	for i, g := range stale {
		workers.Go(func() error {
			if err := g.syncNow(ctx); err != nil && !errors.Is(err, ErrPaused) && !errors.Is(err, ErrRemoved) {
				errs[i] = err
			}
			return nil
		})
	}
	return errors.Join(workers.Wait(), errors.Join(errs...))
}

// stale returns the groups with news in the log, or something in the outbox.
func (c *Client) stale(ctx context.Context) ([]*group, error) {
	var rows []store.Group
	pending := map[string]bool{}
	err := c.db.View(func(tx *store.Tx) (err error) {
		if rows, err = tx.Groups(); err != nil {
			return err
		}
		ids, err := tx.PendingGroups()
		for _, id := range ids {
			pending[string(id)] = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(row store.Group) bool { return row.Problem != "" })
	var stale []*group
	for chunk := range slices.Chunk(rows, newestPerLookup) {
		request := &mlsapi.GetNewestGroupMessageRequest{}
		for _, row := range chunk {
			request.GroupIds = append(request.GroupIds, row.ID)
		}
		response, err := c.node.MLS.GetNewestGroupMessage(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("asking for news: %w", err)
		}
		if len(response.Responses) != len(chunk) {
			return nil, c.wrongAnswer(callNewest, "%d answers about %d conversations", len(response.Responses), len(chunk))
		}
		for i, row := range chunk {
			newest := response.Responses[i].GetGroupMessage().GetV1()
			if len(newest.GetGroupId()) > 0 && !bytes.Equal(newest.GroupId, row.ID) {
				return nil, c.wrongAnswer(callNewest, "about another conversation")
			}
			reread, err := c.checkEnd(ctx, row, newest)
			if err != nil {
				return nil, err
			}
			if newest.GetId() > row.Cursor || reread || pending[string(row.ID)] {
				stale = append(stale, c.groups.get(row.ID))
			}
		}
	}
	return stale, nil
}

// keepsLog is for how long nodes keep what is in the log of a conversation, at least.
const keepsLog = 30 * 24 * time.Hour

// checkEnd looks whether the log of a conversation ends before what was read of it. It
// tells to read on from the last that could be used, if what follows that was only
// said to be there: by a node in numbers of junk, or by who let us in.
func (c *Client) checkEnd(ctx context.Context, row store.Group, newest *mlsapi.GroupMessage_V1) (reread bool, err error) {
	served := newest.GetId()
	if served >= row.Cursor || c.now()-max(row.LastMessage, row.Created) > int64(keepsLog) {
		return false, nil
	}
	g := c.groups.get(row.ID)
	if err := g.acquire(ctx); err != nil {
		return false, err
	}
	defer g.release()
	err = c.db.Update(func(tx *store.Tx) error {
		now, found, err := tx.Group(row.ID)
		if err != nil || !found || now.Cursor != row.Cursor {
			return err // somebody else has read on
		}
		used, own, err := tx.LastApplied(row.ID, c.installation.Bytes())
		if err != nil {
			return err
		}
		if own <= served {
			own = 0
		}
		var f Finding = LogRolledBack{g.String(), row.Cursor, served, own}
		if row.Cursor == row.Joined {
			f = JoinPointWrong{g.String(), row.Adder, row.Cursor, served}
		}
		if now.Joined > served {
			now.Joined = 0
		}
		if from := max(used, now.Joined); from < row.Cursor {
			now.Cursor, reread = from, true
			if err := tx.PutGroup(now); err != nil {
				return err
			}
		}
		return c.raise(tx, f, false, evidence{})
	})
	if reread {
		g.caughtUp, g.streamed = false, unstreamed
		c.live.changed()
	}
	return reread, err
}
