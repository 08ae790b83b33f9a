package xmtp

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-xmtp/go-xmtp/identity"
)

// warnUpdates is how many updates of an inbox make it time to think about the next
// ones.
const warnUpdates = 200

// UpdatesLeft is how many more times anything about the inbox can be changed. See
// [MaxInboxUpdates].
func (s InboxState) UpdatesLeft() int { return max(MaxInboxUpdates-s.Updates, 0) }

// NearlyFull tells that the inbox has had 200 updates of [MaxInboxUpdates], or more.
// Clients log a warning from then on, when they are opened and when they change
// their inbox.
func (s InboxState) NearlyFull() bool { return s.Updates >= warnUpdates }

// RevokeInstallations takes installations, given by their ids, out of our inbox in
// one update. They can't add themselves again; members of conversations remove them
// when they next act there, and what is said after that they can't read. Those that
// are not in the inbox (any more) are passed over; the own one may be among them.
// The inbox's recovery identifier signs. Errors: [ErrNotRecovery], [ErrInboxLogFull].
func (c *Client) RevokeInstallations(ctx context.Context, recovery Signer, ids ...string) error {
	err := revoke(ctx, c.inboxes, c.options, recovery, c.inboxID, ids)
	c.noteUpdates()
	if err != nil {
		return fmt.Errorf("xmtp: revoking installations: %w", err)
	}
	return nil
}

// RevokeOtherInstallations takes all installations but this one out of our inbox. If
// there are no others, nothing is signed. The error is [ErrRevoked] if this one is not
// in the inbox, which then would have none; others are those of RevokeInstallations.
func (c *Client) RevokeOtherInstallations(ctx context.Context, recovery Signer) error {
	update := asRecovery(recovery, c.inboxes, func(state *identity.State) []identity.Action {
		return revocations(state, others(state, c.installation))
	})
	actions := update.actions
	update.actions = func(state *identity.State) ([]identity.Action, error) {
		if _, in := state.Member(c.installation); !in {
			return nil, ErrRevoked
		}
		return actions(state)
	}
	err := c.inboxes.update(ctx, c.inboxID, c.options.now(), update)
	c.noteUpdates()
	if err != nil {
		return fmt.Errorf("xmtp: revoking other installations: %w", err)
	}
	return nil
}

// RevokeInstallations is [Client.RevokeInstallations] without a client and its
// database, for an inbox of the signer's. Of the options those of the network count,
// [WithNode] first of all. The error is [ErrNoInbox] if there is no such inbox.
func RevokeInstallations(ctx context.Context, recovery Signer, inboxID string, ids []string, list ...Option) error {
	_, err := without(list, func(x *inboxes, o *options) (struct{}, error) {
		return struct{}{}, revoke(ctx, x, o, recovery, inboxID, ids)
	})
	if err != nil {
		return fmt.Errorf("xmtp: revoking installations: %w", err)
	}
	return nil
}

func revoke(ctx context.Context, x *inboxes, o *options, recovery Signer, inboxID string, ids []string) error {
	wanted := map[string]bool{}
	for _, id := range ids {
		if key, err := hex.DecodeString(id); err != nil || len(key) != ed25519.PublicKeySize {
			return fmt.Errorf("%.70q is no installation id", id)
		}
		wanted[strings.ToLower(id)] = true
	}
	if err := identity.CheckInboxID(inboxID); err != nil {
		return fmt.Errorf("inbox id %.70q: %w", inboxID, err)
	}
	return x.update(ctx, inboxID, o.now(), asRecovery(recovery, x, func(state *identity.State) []identity.Action {
		return revocations(state, slices.DeleteFunc(state.Installations(), func(id identity.Identifier) bool { return !wanted[id.String()] }))
	}))
}

func revocations(state *identity.State, installations []identity.Identifier) (actions []identity.Action) {
	for _, id := range installations {
		actions = append(actions, identity.RevokeMember(state.Recovery(), id))
	}
	return actions
}

// others returns the installations of an inbox but for one.
func others(state *identity.State, but identity.Identifier) []identity.Identifier {
	return slices.DeleteFunc(state.Installations(), func(id identity.Identifier) bool { return id == but })
}

// InstallationLimitError is returned by [NewClient] if the inbox has as many
// installations as it may have, 10. To go on, revoke some and call NewClient again.
// It is an [ErrTooManyInstallations].
type InstallationLimitError struct {
	InboxID string
	// Installations are those that there are, in the order in which they were added.
	Installations []Installation

	options []Option
	limit   error
}

func (e *InstallationLimitError) Error() string { return e.limit.Error() }

// Unwrap returns what it is.
func (e *InstallationLimitError) Unwrap() []error { return []error{ErrTooManyInstallations, e.limit} }

// Revoke takes installations, given by their ids, out of the inbox, on the node that
// the client was to use. See [Client.RevokeInstallations].
func (e *InstallationLimitError) Revoke(ctx context.Context, recovery Signer, ids ...string) error {
	return RevokeInstallations(ctx, recovery, e.InboxID, ids, e.options...)
}

// WithReplacing is for programs whose database may get lost. When a client with a new
// database registers its installation, those installations of the inbox for which
// replaces is true are revoked in the same identity update, so that what was lost
// leaves nothing behind. It is not called when the database has an installation.
//
// The node can't tell which installations are lost, but the program may: all of
// them, if it is the only one that uses the inbox; those added by an earlier
// version, before a certain time; the one whose id it has noted elsewhere. A device
// that is in use after all and gets revoked has to register anew.
//
// The signer must be the inbox's recovery identifier if anything is to be revoked;
// else the error of NewClient is [ErrNotRecovery]. Each time costs one of the
// updates that an inbox can have: see [InboxState.UpdatesLeft].
func WithReplacing(replaces func(Installation) bool) Option {
	return func(o *options) error {
		if replaces == nil {
			return errors.New("WithReplacing: nobody says which installations")
		}
		o.replaces = replaces
		return nil
	}
}

// makeRoom returns what has to be done to an inbox before an installation is added to
// it, or why it can't be.
func (c *Client) makeRoom(log *inboxLog, owner identity.Identifier) ([]identity.Action, error) {
	state, _ := log.latest()
	inbox := newInboxState(log)
	if inbox.UpdatesLeft() == 0 {
		return nil, fmt.Errorf("%w: %s", ErrInboxLogFull, c.inboxID)
	}
	var actions []identity.Action
	if c.options.replaces != nil {
		actions = revocations(state, slices.DeleteFunc(state.Installations(), func(id identity.Identifier) bool {
			i := slices.IndexFunc(inbox.Installations, func(i Installation) bool { return i.ID == id.String() })
			return !c.options.replaces(inbox.Installations[i])
		}))
	}
	if len(actions) > 0 && state.Recovery() != owner {
		return nil, fmt.Errorf("%w: that is %s, not %s", ErrNotRecovery, state.Recovery(), owner)
	}
	if len(inbox.Installations)-len(actions) < identity.MaxInstallations {
		return actions, nil
	}
	return nil, &InstallationLimitError{c.inboxID, inbox.Installations, c.options.given, state.CheckInstallationLimit()}
}

// IsRevoked asks the node whether this installation was revoked. One that was can
// read what it has, and go on in conversations until another member acts there; it
// can't create any. See [ErrRevoked].
func (c *Client) IsRevoked(ctx context.Context) (bool, error) {
	if err := c.inboxes.refresh(ctx, c.inboxID); err != nil {
		return false, fmt.Errorf("xmtp: %w", err)
	}
	return c.revoked(), nil
}

// notices are what is logged once.
type notices struct{ revoked, updates sync.Once }

// revoked tells whether the inbox, as far as it is known, had this installation and
// has it no more.
func (c *Client) revoked() bool {
	log, err := c.inboxes.known(c.inboxID)
	if err != nil {
		return false
	}
	had := false
	for i, state := range log.states {
		_, has := state.Member(c.installation)
		if i == len(log.states)-1 && had && !has {
			c.notices.revoked.Do(func() { c.options.logger.Warn("this installation was revoked") })
			return true
		}
		had = had || has
	}
	return false
}

// noteUpdates warns if our inbox can't be changed many more times.
func (c *Client) noteUpdates() {
	log, err := c.inboxes.known(c.inboxID)
	if err != nil || len(log.states) == 0 {
		return
	}
	if inbox := newInboxState(log); inbox.NearlyFull() {
		c.notices.updates.Do(func() {
			c.options.logger.Warn("the inbox can't be changed many more times", "updates", inbox.Updates, "left", inbox.UpdatesLeft())
		})
	}
}
