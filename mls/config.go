package mls

import (
	"time"

	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
)

// Config is how a member takes part in a group. It is not stored: give the same
// one to [Load]. The zero Config is one that many groups can use.
type Config struct {
	// Authenticator judges credentials; nil accepts them all, for applications
	// that judge staged commits and joined groups themselves.
	Authenticator Authenticator

	// PublicHandshakes sends proposals and commits as PublicMessage, which
	// everybody can read; without it they are PrivateMessages (§6).
	PublicHandshakes bool

	// OneFormat refuses handshakes that come in the format we don't send.
	OneFormat bool

	// Padding tells how many zero bytes to add to a content of n bytes before it
	// is encrypted, to hide its length (§15.1); nil adds none.
	Padding func(t ContentType, n int) int

	// Windows bounds what is accepted late or out of order; nil is
	// [DefaultWindows].
	Windows *Windows

	// Ahead is how many of our own application messages of an epoch may leave before
	// their changes are durable, after one whose changes are, and since the group was
	// loaded. What is stored of our ratchet is so many generations ahead of what was used:
	// [Load] begins behind them, so that no key is used twice, others have to bear with a
	// gap, and what was sent and forgotten is read like anybody's message if Windows reach
	// so far back. It is for those who don't want to wait for the disk; with 0 nothing
	// leaves before it is durable. See [Group.Unreserve].
	Ahead uint32

	// PathProposals are the custom proposal types whose commits need a path
	// (§17.4).
	PathProposals []ProposalType

	// PreSharedKey finds pre-shared keys (§8.4) other than those that resume an
	// epoch of the group that is kept; nil knows none. The package copies what it
	// returns.
	PreSharedKey func(PreSharedKeyID) ([]byte, error)

	// GREASE puts an extension that means nothing into GroupInfos (§13.5); see
	// [Client].GREASE.
	GREASE bool

	// IgnoreReInit lets ReInit proposals change nothing, also beside others: for groups
	// with members who go on as if there were none, as those of OpenMLS do.
	IgnoreReInit bool

	// Suites are cipher suites beyond those of this package.
	Suites []*Suite

	// Now is the clock for the lifetimes of key packages that we add; nil is
	// [time.Now].
	Now func() time.Time

	// SameIdentity tells whether two credentials are the same client's, to see that
	// the members of a branch are members of the group (§11.3); nil compares them
	// byte for byte.
	SameIdentity func(a, b Credential) bool

	predecessor *predecessor           // of a group in the making
	appData     map[ComponentID][]byte // of a commit in the making
}

// Windows bounds what is accepted late or out of order (§9.2, §15.3). Wider ones
// cost forward secrecy.
type Windows struct {
	// Backward is how many generations before the one that is expected next of a
	// sender can still be read.
	Backward uint32

	// Forward is how many generations of a sender may be skipped at once.
	Forward uint32

	// PastEpochs is how many epochs before the current one can still be read.
	PastEpochs int
}

// DefaultWindows returns 5 generations back, 1,000 forward and 3 past epochs.
func DefaultWindows() Windows { return Windows{Backward: 5, Forward: 1000, PastEpochs: 3} }

func (c *Config) windows() Windows {
	if c.Windows == nil {
		return DefaultWindows()
	}
	return *c.Windows
}

func (c *Config) ratchetWindow() secrettree.Window {
	w := c.windows()
	return secrettree.Window{Backward: w.Backward, Forward: w.Forward}
}

func (c *Config) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

func (c *Config) handshakeFormat() WireFormat {
	if c.PublicHandshakes {
		return WireFormatPublicMessage
	}
	return WireFormatPrivateMessage
}

// Authenticator judges whether credentials go with signature keys (§5.3.1): the
// Authentication Service of the RFC.
type Authenticator interface {
	// Authenticate returns an error for the members that are refused, nil for
	// the others, in their order; a nil slice accepts all. What brought the
	// members is then refused with these errors.
	Authenticate(members []Candidate) []error
}

// Candidate is a member to be authenticated (§5.3.1).
type Candidate struct {
	Member

	// Replaces is the leaf that the member had until now; nil for a new one.
	Replaces *LeafNode
}

// Member is a leaf of the group that isn't blank (§4).
type Member struct {
	Index    LeafIndex
	LeafNode LeafNode
}
