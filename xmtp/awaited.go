package xmtp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// Why a user could not be added.
var (
	// ErrNoKeyPackage: the device has left nothing by which it could be added.
	ErrNoKeyPackage = errors.New("no key package")
	// ErrNoInstallation: the user has no device any more.
	ErrNoInstallation = errors.New("no installation")
)

// NotAddedError names the users who could not be added, by inbox id. All others
// were. It is tried again by itself.
type NotAddedError struct{ Users []NotAdded }

// NotAdded is a user who could not be added.
type NotAdded struct {
	InboxID string
	// Reason is [ErrNoInstallation], [ErrInvalidInbox], or what is wrong with the key
	// packages of the devices: [ErrNoKeyPackage], an error of package identity
	// or one of package protocol.
	Reason error
}

func (e *NotAddedError) Error() string {
	const most = 3
	var parts []string
	for _, u := range e.Users[:min(len(e.Users), most)] {
		parts = append(parts, fmt.Sprintf("%s: %v", u.InboxID, strings.ReplaceAll(u.Reason.Error(), "\n", ", ")))
	}
	if more := len(e.Users) - most; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return "not added yet: " + strings.Join(parts, "; ")
}

// Unwrap returns the reasons.
func (e *NotAddedError) Unwrap() []error {
	reasons := make([]error, len(e.Users))
	for i, u := range e.Users {
		reasons[i] = u.Reason
	}
	return reasons
}

// notAdded finds the reason why an inbox was left out.
func notAdded(l protocol.LeftOut, reasons map[identity.Identifier]error) NotAdded {
	if l.Err != nil {
		return NotAdded{l.InboxID, fmt.Errorf("%w: %w", ErrInvalidInbox, l.Err)}
	}
	if len(l.Installations) == 0 {
		return NotAdded{l.InboxID, ErrNoInstallation}
	}
	var all []error
	for _, id := range l.Installations {
		all = append(all, fmt.Errorf("installation %x: %w", id.Bytes(), reasons[id]))
	}
	return NotAdded{l.InboxID, errors.Join(all...)}
}

// membershipChange is a change of members that has been worked out.
type membershipChange struct {
	proposals []mls.Proposal
	check     bool // nobody asked for more than to look at the members' inboxes
	notAdded  []NotAdded
	cancelled []string // need not be added any more
}

// note stores who is still to be added.
func (m *membershipChange) note(tx *store.Tx, g *group) error {
	var errs []error
	for _, u := range m.notAdded {
		errs = append(errs, tx.AddAwaited(g.id, u.InboxID, g.client.now()))
	}
	for _, id := range m.cancelled {
		errs = append(errs, tx.DeleteAwaited(g.id, id))
	}
	return errors.Join(errs...)
}

// outcome is what the caller is told who asked for the change.
func (m *membershipChange) outcome(want membershipIntent) error {
	asked := map[string]bool{}
	for _, id := range want.Add {
		asked[id] = true
	}
	e := &NotAddedError{}
	for _, u := range m.notAdded {
		if asked[u.InboxID] {
			e.Users = append(e.Users, u)
		}
	}
	if len(e.Users) == 0 {
		return nil
	}
	return e
}

// awaitedBy returns the inboxes that are to be added as soon as they can be, as far
// as we may, and there is room.
func (g *group) awaitedBy(state *protocol.GroupState, want membershipIntent) (add []string, err error) {
	var awaited []string
	err = g.client.db.View(func(tx *store.Tx) (err error) {
		awaited, err = tx.Awaited(g.id)
		return err
	})
	if err != nil || state.CheckAdd(g.client.inboxID, awaited) != nil {
		return nil, err
	}
	removed := map[string]bool{}
	for _, id := range want.Remove {
		removed[id] = true
	}
	for _, id := range awaited {
		all := append(append([]string(nil), want.Add...), append(add, id)...)
		if !removed[id] && checkSize(state.Membership, all) == nil {
			add = append(add, id)
		}
	}
	return add, nil
}

// Awaited returns the inbox ids of those who were to be added and could not be yet.
func (v *Conversation) Awaited() (inboxIDs []string, err error) {
	err = v.client.db.View(func(tx *store.Tx) error {
		inboxIDs, err = tx.Awaited(v.row.ID)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("xmtp: %w", err)
	}
	return inboxIDs, nil
}

// addAwaited tries now to add those who could not be added.
func (v *Conversation) addAwaited(ctx context.Context) error {
	var awaited []string
	err := v.client.db.View(func(tx *store.Tx) (err error) {
		awaited, err = tx.Awaited(v.row.ID)
		return err
	})
	if err != nil || len(awaited) == 0 {
		return err
	}
	return v.change(ctx, intentMembership, membershipIntent{Add: awaited})
}

// How often to try to add those who could not be added: less and less.
const (
	awaitMin  = 30 * time.Second
	awaitMax  = time.Hour
	awaitPart = 8 // of the time since
)

// retryAwaited tries to add those for whom it is time.
func (c *Client) retryAwaited(ctx context.Context) (time.Duration, error) {
	next := forever
	var due []*group
	err := c.db.View(func(tx *store.Tx) error {
		groups, err := tx.AwaitingGroups()
		if err != nil {
			return err
		}
		for _, a := range groups {
			row, found, err := tx.Group(a.ID)
			if err != nil {
				return err
			}
			if !found || usable(row) != nil {
				continue
			}
			wait := min(max(time.Duration(c.now()-a.Since)/awaitPart, awaitMin), awaitMax)
			left := wait - time.Duration(c.now()-max(row.Checked, a.Since))
			if left <= 0 {
				due = append(due, c.groups.get(a.ID))
				left = wait
			}
			next = sooner(next, left)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, g := range due {
		errs = append(errs, g.refresh(ctx))
	}
	return next, errors.Join(errs...)
}

// sooner returns the shorter of two waits.
func sooner(a, b time.Duration) time.Duration {
	if a == forever {
		return b
	}
	return min(a, b)
}

// refresh looks at members' inboxes now.
func (g *group) refresh(ctx context.Context) error {
	var row int64
	err := g.client.db.UpdateLazily(func(tx *store.Tx) error {
		stored, found, err := tx.Group(g.id)
		if err != nil || !found {
			return errors.Join(err, ErrNotFound)
		}
		if row, err = g.putCheck(tx, stored); err == nil {
			g.outcomes.expect(row)
		}
		return err
	})
	if err != nil {
		return err
	}
	return g.settle(ctx, row)
}
