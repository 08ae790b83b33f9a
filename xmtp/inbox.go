package xmtp

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/network"
)

// InboxState is what an inbox is made of.
type InboxState struct {
	InboxID string
	// SequenceID is the node's number of the newest update, Updates how many there
	// have been, of at most [MaxInboxUpdates].
	SequenceID uint64
	Updates    int
	// Recovery alone removes members. It need not be one.
	Recovery identity.Identifier
	// Identifiers are the wallets and passkeys, in the order in which they were
	// added, but for the one that created the inbox, which is the last.
	Identifiers []identity.Member
	// Installations are the devices, in the order in which they were added.
	Installations []Installation
}

// Installation is a device of an inbox.
type Installation struct {
	// ID is its Ed25519 public key: 64 lower-case hex digits.
	ID string
	// AddedAt is by the clock of the device.
	AddedAt time.Time
	// AddedBy is the wallet or passkey that it signed in with. If that is removed,
	// the installation is, too.
	AddedBy identity.Identifier
}

func newInboxState(log *inboxLog) InboxState {
	state, last := log.latest()
	s := InboxState{InboxID: state.InboxID(), SequenceID: last, Updates: len(log.numbers), Recovery: state.Recovery()}
	for _, m := range state.Members() {
		if m.Identifier.Kind() == identity.KindInstallation {
			s.Installations = append(s.Installations, Installation{m.Identifier.String(), time.Unix(0, int64(m.TimestampNS)), m.AddedBy})
		} else {
			s.Identifiers = append(s.Identifiers, m)
		}
	}
	return s
}

// Has tells whether an Ethereum address, a passkey (its public key in hex) or an
// installation (its id) may act for the inbox.
func (s InboxState) Has(member string) bool {
	if slices.ContainsFunc(s.Installations, func(i Installation) bool { return i.ID == strings.ToLower(member) }) {
		return true
	}
	id, err := parseIdentifier(member)
	return err == nil && slices.ContainsFunc(s.Identifiers, func(m identity.Member) bool { return m.Identifier == id })
}

// Fingerprint is 30 digits in groups of five, which two people compare, by voice
// for instance: if they see the same for an inbox, they have the same inbox id and
// the same installations before them, and the node has told neither of them of a
// device that the other doesn't know. It changes when an installation is added or
// removed; wallets, passkeys and the order of events play no part.
func (s InboxState) Fingerprint() string {
	ids := make([]string, len(s.Installations))
	for i, installation := range s.Installations {
		ids[i] = installation.ID
	}
	slices.Sort(ids)
	digest := sha256.Sum256([]byte("XMTP inbox fingerprint 1\n" + s.InboxID + "\n" + strings.Join(ids, "\n")))
	groups := make([]string, 6)
	for i := range groups {
		// Five bytes each; the remainder is as good as even.
		var n [8]byte
		copy(n[3:], digest[5*i:])
		groups[i] = fmt.Sprintf("%05d", binary.BigEndian.Uint64(n[:])%100000)
	}
	return strings.Join(groups, " ")
}

// InboxUpdate is an entry of an inbox's log.
type InboxUpdate struct {
	// SequenceID is the node's number of the update.
	SequenceID uint64
	// At is by the clock of who made the update. Only whole seconds are signed.
	At time.Time
	// Added are the members who are new, or whose entry was replaced.
	Added   []identity.Member
	Removed []identity.Identifier
	// Recovery is who it is afterwards.
	Recovery identity.Identifier
}

func newHistory(log *inboxLog) []InboxUpdate {
	history := make([]InboxUpdate, len(log.numbers))
	var before *identity.State
	for i, state := range log.states {
		u := InboxUpdate{SequenceID: log.numbers[i], At: time.Unix(0, int64(log.times[i])), Recovery: state.Recovery()}
		for _, m := range state.Members() {
			if before != nil {
				if was, _ := before.Member(m.Identifier); was == m {
					continue
				}
			}
			u.Added = append(u.Added, m)
		}
		_, u.Removed = identity.Diff(before, state)
		history[i], before = u, state
	}
	return history
}

// current returns the logs of inboxes, after asking the node.
func (x *inboxes) current(ctx context.Context, ids []string) ([]*inboxLog, error) {
	for _, id := range ids {
		if err := identity.CheckInboxID(id); err != nil {
			return nil, fmt.Errorf("%.70q: %w", id, err)
		}
	}
	if err := x.refresh(ctx, ids...); err != nil {
		return nil, err
	}
	return x.stored(ids, ErrNoInbox)
}

// stored returns logs as they are known; missing is the error about those that aren't.
func (x *inboxes) stored(ids []string, missing error) ([]*inboxLog, error) {
	logs := make([]*inboxLog, len(ids))
	for i, id := range ids {
		log, err := x.known(id)
		if err != nil {
			return nil, err
		}
		if state, _ := log.latest(); state == nil {
			return nil, fmt.Errorf("%w: %.70q", missing, id)
		}
		logs[i] = log
	}
	return logs, nil
}

func inboxStates(logs []*inboxLog, err error) ([]InboxState, error) {
	if err != nil {
		return nil, fmt.Errorf("xmtp: inbox states: %w", err)
	}
	states := make([]InboxState, len(logs))
	for i, log := range logs {
		states[i] = newInboxState(log)
	}
	return states, nil
}

func inboxHistory(logs []*inboxLog, err error) ([]InboxUpdate, error) {
	if err != nil {
		return nil, fmt.Errorf("xmtp: inbox history: %w", err)
	}
	return newHistory(logs[0]), nil
}

// InboxStates returns what inboxes, our own or others', are made of now, in the
// order of the ids. Errors: [ErrNoInbox], [ErrInvalidInbox].
func (c *Client) InboxStates(ctx context.Context, inboxIDs ...string) ([]InboxState, error) {
	return inboxStates(c.inboxes.current(ctx, inboxIDs))
}

// StoredInboxStates is InboxStates without asking the node: as far as this client
// has heard. The error is [ErrNotFound] if it has not heard of one.
func (c *Client) StoredInboxStates(inboxIDs ...string) ([]InboxState, error) {
	return inboxStates(c.inboxes.stored(inboxIDs, ErrNotFound))
}

// InboxHistory returns all updates of an inbox, oldest first. Errors:
// [ErrNoInbox], [ErrInvalidInbox].
func (c *Client) InboxHistory(ctx context.Context, inboxID string) ([]InboxUpdate, error) {
	return inboxHistory(c.inboxes.current(ctx, []string{inboxID}))
}

// IsAuthorized tells whether an Ethereum address, a passkey (its public key in
// hex) or an installation (its id) belongs to an inbox now. Errors: [ErrNoInbox],
// [ErrInvalidInbox].
func (c *Client) IsAuthorized(ctx context.Context, inboxID, member string) (bool, error) {
	return isAuthorized(ctx, c.inboxes, inboxID, member)
}

func isAuthorized(ctx context.Context, x *inboxes, inboxID, member string) (bool, error) {
	states, err := inboxStates(x.current(ctx, []string{inboxID}))
	if err != nil {
		return false, err
	}
	return states[0].Has(member), nil
}

// InboxIDs returns the inbox ids of Ethereum addresses and passkeys (public keys in
// hex), by the canonical form of what was asked for: in lower case. Who has no
// inbox is left out.
func (c *Client) InboxIDs(ctx context.Context, identifiers ...string) (map[string]string, error) {
	return inboxIDs(ctx, c.inboxes, identifiers)
}

func inboxIDs(ctx context.Context, x *inboxes, identifiers []string) (map[string]string, error) {
	ids := make([]identity.Identifier, len(identifiers))
	for i, s := range identifiers {
		var err error
		if ids[i], err = parseIdentifier(s); err != nil {
			return nil, fmt.Errorf("xmtp: inbox ids: %w", err)
		}
	}
	found, err := x.lookUp(ctx, ids...)
	if err != nil {
		return nil, fmt.Errorf("xmtp: inbox ids: %w", err)
	}
	inboxes := make(map[string]string, len(found))
	for id, inbox := range found {
		inboxes[id.String()] = inbox
	}
	return inboxes, nil
}

// SignWithInstallationKey signs a text of the application's with the key of this
// installation, 64 bytes: Ed25519ph with a context of its own, so that it is of no
// use for anything else. See [VerifyInstallationSignature].
func (c *Client) SignWithInstallationKey(text string) []byte { return identity.SignPublic(c.key, text) }

// VerifyInstallationSignature verifies a signature of
// [Client.SignWithInstallationKey] by any installation, given by its id. Whose it
// is tells [IsAuthorized]. The error is one of [identity.VerifyPublic].
func VerifyInstallationSignature(installationID, text string, signature []byte) error {
	key, err := hex.DecodeString(installationID)
	if err == nil && len(key) != ed25519.PublicKeySize {
		err = fmt.Errorf("%d bytes", len(key))
	}
	if err != nil {
		return fmt.Errorf("xmtp: installation id %.70q: %w", installationID, err)
	}
	if err := identity.VerifyPublic(key, text, signature); err != nil {
		return fmt.Errorf("xmtp: signature of installation %s: %w", installationID, err)
	}
	return nil
}

// connect is for functions without a client: it keeps nothing.
func connect(list []Option) (*inboxes, *options, error) {
	o, err := newOptions(list)
	if err != nil {
		return nil, nil, err
	}
	n, err := network.Open(network.Options{URL: o.url, Dial: o.dial, AppVersion: o.appVersion, ProtocolVersion: ProtocolVersion, Around: newRequests(o).around})
	if err != nil {
		return nil, nil, fmt.Errorf("xmtp: %w", err)
	}
	return newInboxes(nil, n), o, nil
}

// without asks without a client.
func without[T any](list []Option, ask func(*inboxes, *options) (T, error)) (T, error) {
	x, o, err := connect(list)
	if err != nil {
		var none T
		return none, err
	}
	answer, err := ask(x, o)
	return answer, errors.Join(err, x.node.Close())
}

// InboxStates is [Client.InboxStates] without a client and its database. Of the
// options those of the network count, [WithNode] first of all.
func InboxStates(ctx context.Context, inboxIDs []string, list ...Option) ([]InboxState, error) {
	return without(list, func(x *inboxes, _ *options) ([]InboxState, error) {
		return inboxStates(x.current(ctx, inboxIDs))
	})
}

// InboxHistory is [Client.InboxHistory] without a client.
func InboxHistory(ctx context.Context, inboxID string, list ...Option) ([]InboxUpdate, error) {
	return without(list, func(x *inboxes, _ *options) ([]InboxUpdate, error) {
		return inboxHistory(x.current(ctx, []string{inboxID}))
	})
}

// InboxIDs is [Client.InboxIDs] without a client.
func InboxIDs(ctx context.Context, identifiers []string, list ...Option) (map[string]string, error) {
	return without(list, func(x *inboxes, _ *options) (map[string]string, error) {
		return inboxIDs(ctx, x, identifiers)
	})
}

// IsAuthorized is [Client.IsAuthorized] without a client.
func IsAuthorized(ctx context.Context, inboxID, member string, list ...Option) (bool, error) {
	return without(list, func(x *inboxes, _ *options) (bool, error) {
		return isAuthorized(ctx, x, inboxID, member)
	})
}
