package xmtp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// MembershipState is how we stand to a conversation.
type MembershipState int

// The states.
const (
	// MembershipAllowed: we created it, or came back after we had left.
	MembershipAllowed MembershipState = membershipAllowed
	// MembershipPending: somebody else let us in.
	MembershipPending MembershipState = membershipPending
	// MembershipPendingRemove: we have asked to be removed.
	MembershipPendingRemove MembershipState = membershipPendingRemove
)

// MembershipState tells how we stand to the conversation. Whether we are a member
// at all is told by IsActive.
func (v *Conversation) MembershipState() (MembershipState, error) {
	row, err := v.group.row()
	if err != nil {
		return 0, fmt.Errorf("xmtp: %w", err)
	}
	return MembershipState(row.Membership), nil
}

// Leave asks the admins to remove us from a group; their clients do it (XIP-75). Until
// then we are a member, in the state [MembershipPendingRemove]. To ask again is no
// error. The error is [ErrDirectMessage] for a direct message,
// [ErrSuperAdmin] if we are a super admin, and [ErrOnlyMember] if nobody else is
// there to remove us.
func (v *Conversation) Leave(ctx context.Context) error {
	if err := v.leave(ctx); err != nil {
		return fmt.Errorf("xmtp: leaving: %w", err)
	}
	return nil
}

func (v *Conversation) leave(ctx context.Context) error {
	if v.IsDM() {
		return errLeaveDM
	}
	// An earlier request may wait.
	if err := v.group.settleAll(ctx); err != nil {
		return err
	}
	row, err := v.group.row()
	if err != nil {
		return err
	}
	if err := usable(row); err != nil {
		return err
	}
	state, err := v.groupState(ctx)
	switch {
	case err != nil:
		return err
	case row.Membership == membershipPendingRemove:
		return nil
	case len(state.Membership.Members) == 1:
		return ErrOnlyMember
	case state.Mutable.IsSuperAdmin(v.client.inboxID):
		return ErrSuperAdmin
	}
	request, err := content.Unmarshal(protocol.LeaveRequest())
	if err != nil {
		return err
	}
	_, err = v.send(ctx, request, nil)
	return err
}

// noteLeave notes that a member wants to leave. It may be another device of ours
// that says so.
func (g *group) noteLeave(tx *store.Tx, inbox string) error {
	if err := tx.AddLeaving(g.id, inbox); err != nil || inbox != g.client.inboxID {
		return err
	}
	row, found, err := tx.Group(g.id)
	if err != nil || !found {
		return err
	}
	row.Membership = membershipPendingRemove
	return tx.PutGroup(row)
}

// removeLeaving puts the removal of those who want to leave into the outbox, if we
// are an admin and may. Official clients leave it to super admins; all accept it
// from admins. It tells whether there is something to be published. The caller
// holds the lock.
func (g *group) removeLeaving() (waiting bool, err error) {
	var leaving []string
	err = g.client.db.View(func(tx *store.Tx) (err error) {
		leaving, err = tx.Leaving(g.id)
		return err
	})
	own := g.client.inboxID
	if err != nil || len(leaving) == 0 || slices.Contains(leaving, own) {
		return false, err
	}
	state, err := g.parsed()
	if err != nil {
		return false, err
	}
	leaving = slices.DeleteFunc(leaving, func(id string) bool {
		_, member := state.Membership.Members[id]
		return !member || state.Mutable.IsSuperAdmin(id)
	})
	admin := state.Mutable.IsAdmin(own) || state.Mutable.IsSuperAdmin(own)
	if len(leaving) == 0 || !admin || state.CheckRemove(own, leaving) != nil {
		return false, nil
	}
	err = g.client.db.Update(func(tx *store.Tx) error {
		row, found, err := tx.Group(g.id)
		if err != nil || !found || usable(row) != nil {
			return err
		}
		intents, err := tx.Intents(g.id, maxBatchMessages)
		if err != nil {
			return err
		}
		waiting = true
		for _, i := range intents {
			var want membershipIntent
			if i.Kind == intentMembership && json.Unmarshal(i.Intent, &want) == nil && containsAll(want.Remove, leaving) {
				return nil
			}
		}
		_, err = g.put(tx, intentMembership, membershipIntent{Remove: leaving}, nil)
		return err
	})
	return waiting, err
}

func containsAll(list, all []string) bool {
	return !slices.ContainsFunc(all, func(s string) bool { return !slices.Contains(list, s) })
}

// letGo removes from all groups those who want to leave, where we may.
func (c *Client) letGo(ctx context.Context) (time.Duration, error) {
	var ids [][]byte
	err := c.db.View(func(tx *store.Tx) (err error) {
		ids, err = tx.LeavingGroups()
		return err
	})
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, c.groups.get(id).letGo(ctx))
	}
	return forever, errors.Join(errs...)
}

func (g *group) letGo(ctx context.Context) error {
	if err := g.acquire(ctx); err != nil {
		return err
	}
	waiting, err := g.removeLeaving()
	g.release()
	if err != nil || !waiting {
		return err
	}
	return g.settleAll(ctx)
}
