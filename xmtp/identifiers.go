package xmtp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
)

// MaxInboxUpdates is how many updates the log of an inbox can have. After that
// nothing about the inbox can be changed any more.
const MaxInboxUpdates = 256

var (
	// ErrInboxLogFull: the inbox has had [MaxInboxUpdates] updates.
	ErrInboxLogFull = errors.New("the inbox's log is full")
	// ErrNotRecovery: the signer is not the inbox's recovery identifier, which
	// alone may remove members and hand over to another recovery identifier.
	ErrNotRecovery = errors.New("not the inbox's recovery identifier")
)

// AlreadyAssociatedError is returned if a wallet or passkey that is to be added to
// an inbox belongs to one, maybe to that very inbox. Nothing was signed.
type AlreadyAssociatedError struct {
	Identifier identity.Identifier
	InboxID    string
}

func (e *AlreadyAssociatedError) Error() string {
	return fmt.Sprintf("%s belongs to inbox %s", e.Identifier, e.InboxID)
}

// AddIdentifier adds a wallet or passkey to our inbox, which it signs for. From
// then on people find us by it, and it can register further installations.
//
// The error is an [AlreadyAssociatedError] if it belongs to an inbox; see
// [Client.ReassignIdentifier]. Others: [ErrInboxLogFull].
func (c *Client) AddIdentifier(ctx context.Context, signer Signer) error {
	return c.addIdentifier(ctx, signer, false)
}

// ReassignIdentifier is AddIdentifier for a wallet or passkey that may belong to
// an inbox. That inbox is not changed, but can't be found by it any more: who has
// nothing else to sign in with loses access to it. If it is our own inbox, the
// entry is replaced, for instance by one of a contract on another chain.
func (c *Client) ReassignIdentifier(ctx context.Context, signer Signer) error {
	return c.addIdentifier(ctx, signer, true)
}

func (c *Client) addIdentifier(ctx context.Context, signer Signer, reassign bool) error {
	id, err := identifierOf(signer)
	if err == nil && !reassign {
		var found map[identity.Identifier]string
		found, err = c.inboxes.lookUp(ctx, id)
		if inbox := found[id]; inbox != "" {
			err = &AlreadyAssociatedError{id, inbox}
		}
	}
	if err == nil {
		defer c.noteUpdates()
		err = c.inboxes.update(ctx, c.inboxID, c.options.now(), inboxUpdate{
			actions: func(*identity.State) ([]identity.Action, error) {
				return []identity.Action{identity.AddMember(c.installation, id)}, nil
			},
			sign: func(ctx context.Context, request *identity.SignatureRequest) error {
				if err := request.AddSignature(ctx, identity.SignInstallation(c.key, request.Text()), c.node); err != nil {
					return err
				}
				return signWith(ctx, signer, request, c.node)
			},
		})
	}
	if err != nil {
		return fmt.Errorf("xmtp: adding an identifier: %w", err)
	}
	return nil
}

// RemoveIdentifier removes a wallet or passkey, given by its address or public key
// in hex, from our inbox, and with it the installations that it added
// ([Installation].AddedBy), which may include this one. Who is not in is passed
// over. The recovery identifier signs; if it is removed itself, it remains the
// recovery identifier. Errors: [ErrNotRecovery], [ErrInboxLogFull].
func (c *Client) RemoveIdentifier(ctx context.Context, recovery Signer, identifier string) error {
	id, err := parseIdentifier(identifier)
	if err == nil {
		err = c.updateAsRecovery(ctx, recovery, func(state *identity.State) []identity.Action {
			_, is := state.Member(id)
			// A recovery identifier that is no member may have added installations.
			has := slices.ContainsFunc(state.Members(), func(m identity.Member) bool {
				return m.AddedBy == id && m.Identifier.Kind() == identity.KindInstallation
			})
			if !is && !has {
				return nil
			}
			return []identity.Action{identity.RevokeMember(state.Recovery(), id)}
		})
	}
	if err != nil {
		return fmt.Errorf("xmtp: removing an identifier: %w", err)
	}
	return nil
}

// ChangeRecovery makes a wallet or passkey, given by its address or public key in
// hex, the recovery identifier of our inbox. The present one signs. The new one
// does not, and need not be a member: make sure that it exists, for nobody else
// can undo this. Errors: [ErrNotRecovery], [ErrInboxLogFull], those of
// [identity.CheckPublishable].
func (c *Client) ChangeRecovery(ctx context.Context, recovery Signer, next string) error {
	id, err := parseIdentifier(next)
	if err == nil {
		err = c.updateAsRecovery(ctx, recovery, func(state *identity.State) []identity.Action {
			if state.Recovery() == id {
				return nil
			}
			return []identity.Action{identity.ChangeRecovery(state.Recovery(), id)}
		})
	}
	if err != nil {
		return fmt.Errorf("xmtp: changing the recovery identifier: %w", err)
	}
	return nil
}

// updateAsRecovery makes an update of our inbox that its recovery identifier signs.
func (c *Client) updateAsRecovery(ctx context.Context, recovery Signer, actions func(*identity.State) []identity.Action) error {
	defer c.noteUpdates()
	return c.inboxes.update(ctx, c.inboxID, c.options.now(), asRecovery(recovery, c.inboxes, actions))
}

// asRecovery is an update that the recovery identifier signs alone.
func asRecovery(recovery Signer, x *inboxes, actions func(*identity.State) []identity.Action) inboxUpdate {
	return inboxUpdate{
		actions: func(state *identity.State) ([]identity.Action, error) {
			list := actions(state)
			if len(list) == 0 {
				return nil, nil
			}
			by, err := identifierOf(recovery)
			if err == nil && by != state.Recovery() {
				err = fmt.Errorf("%w: that is %s, not %s", ErrNotRecovery, state.Recovery(), by)
			}
			return list, err
		},
		sign: func(ctx context.Context, request *identity.SignatureRequest) error {
			return signWith(ctx, recovery, request, x.node)
		},
	}
}

// inboxUpdate is how an inbox is to be changed.
type inboxUpdate struct {
	// actions says what is to be done to an inbox in a state; maybe nothing.
	actions func(*identity.State) ([]identity.Action, error)
	// sign adds all signatures.
	sign func(context.Context, *identity.SignatureRequest) error
}

// update changes an inbox and returns when the change is in its log. It can be cut
// short at any point, and done again.
func (x *inboxes) update(ctx context.Context, inbox string, now time.Time, u inboxUpdate) error {
	if err := x.refresh(ctx, inbox); err != nil {
		return err
	}
	log, err := x.known(inbox)
	if err != nil {
		return err
	}
	state, last := log.latest()
	if state == nil {
		return fmt.Errorf("%w: %s", ErrNoInbox, inbox)
	}
	actions, err := u.actions(state)
	if err != nil || len(actions) == 0 {
		return err
	}
	if len(log.numbers) >= MaxInboxUpdates {
		return fmt.Errorf("%w: %s", ErrInboxLogFull, inbox)
	}
	at := log.unused(now)
	request, err := identity.NewSignatureRequest(inbox, at, actions...)
	if err != nil {
		return err
	}
	if err := u.sign(ctx, request); err != nil {
		return err
	}
	update, err := request.Update()
	if err != nil {
		return err
	}
	if err := identity.CheckPublishable(update); err != nil {
		return err
	}
	_, err = x.node.Identity.PublishIdentityUpdate(ctx, &identityapi.PublishIdentityUpdateRequest{IdentityUpdate: update})
	if err != nil {
		err = fmt.Errorf("publishing the identity update: %w", err)
	}
	if unread := x.refresh(ctx, inbox); unread != nil {
		return errors.Join(err, unread)
	}
	if log, unread := x.known(inbox); unread != nil {
		return errors.Join(err, unread)
	} else if log.has(uint64(at.UnixNano()), last) {
		return nil // whatever the answer was
	}
	if err == nil {
		err = errors.New("the node took the identity update but does not show it")
	}
	return err
}

// unused returns the first time from now on in whose second no update was made: the
// time is signed in whole seconds, and a text that was signed before is refused as
// a replay.
func (l *inboxLog) unused(now time.Time) time.Time {
	used := map[int64]bool{}
	for _, t := range l.times {
		used[time.Unix(0, int64(t)).Unix()] = true
	}
	for used[now.Unix()] {
		now = now.Truncate(time.Second).Add(time.Second)
	}
	return now
}

// has reports whether there is an update of that time after another one.
func (l *inboxLog) has(timestampNS, after uint64) bool {
	for i, n := range l.numbers {
		if n > after && l.times[i] == timestampNS {
			return true
		}
	}
	return false
}
