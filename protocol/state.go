package protocol

import (
	"bytes"
	"slices"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
)

// XMTP's extensions of the GroupContext.
const (
	extensionMetadata        mls.ExtensionType = 0xf000
	extensionMutableMetadata mls.ExtensionType = 0xff00
	extensionMembership      mls.ExtensionType = 0xff01
	extensionPermissions     mls.ExtensionType = 0xff02
)

// requiredCapabilities is what every member of a group has to list, numbers in the
// order in which the official client writes them.
var requiredCapabilities = mls.RequiredCapabilities{
	Extensions: []mls.ExtensionType{
		extensionMembership, extensionMutableMetadata, extensionPermissions, extensionMetadata,
		mls.ExtensionLastResort, mls.ExtensionApplicationID,
	},
	Proposals:   []mls.ProposalType{mls.ProposalGroupContextExtensions},
	Credentials: []mls.CredentialType{mls.CredentialBasic},
}

// NewClient returns what the leaves of an installation look like: those of its key
// packages and those of the groups that it creates.
func NewClient(inboxID string, signer mls.Signer) mls.Client {
	return mls.Client{
		CipherSuite: identity.CipherSuite,
		Signer:      signer,
		Credential:  identity.Credential(inboxID),
		Capabilities: mls.Capabilities{
			Versions:     []mls.ProtocolVersion{mls.MLS10},
			CipherSuites: []mls.CipherSuite{identity.CipherSuite},
			Extensions: []mls.ExtensionType{
				mls.ExtensionLastResort, mls.ExtensionApplicationID,
				extensionPermissions, extensionMutableMetadata, extensionMembership,
				identity.ExtensionWelcomeWrapper, identity.ExtensionWelcomePointee,
				extensionMetadata,
			},
			Proposals:   []mls.ProposalType{mls.ProposalGroupContextExtensions},
			Credentials: []mls.CredentialType{mls.CredentialBasic},
		},
		Extensions: []mls.Extension{{Type: mls.ExtensionApplicationID, Data: appendOpaque(nil, []byte(inboxID))}},
	}
}

// GroupState is what a group is beside its ratchet tree.
type GroupState struct {
	Metadata    *Metadata
	Mutable     *MutableMetadata
	Membership  *Membership
	Permissions *PolicySet
}

// NewGroup returns the state of a new group whose creator is its super admin. Its
// attributes are empty; they and the permissions, the default ones, may be changed
// before the group is created.
func NewGroup(creatorInboxID string) *GroupState {
	s := newState(&Metadata{Type: Group, CreatorInboxID: creatorInboxID})
	s.Mutable.Attributes[AttributeAppData] = ""
	s.Mutable.SuperAdmins = []string{creatorInboxID}
	s.Permissions = DefaultPermissions()
	return s
}

// NewSync returns the state of a new group for the installations of one inbox, by
// which they learn of each other.
func NewSync(inboxID string) *GroupState {
	s := NewGroup(inboxID)
	s.Metadata.Type = Sync
	return s
}

// NewDM returns the state of a new DM of two inboxes. It has no admins, and its
// permissions must not be changed.
func NewDM(creatorInboxID, peerInboxID string) *GroupState {
	s := newState(&Metadata{Type: DM, CreatorInboxID: creatorInboxID, DMMembers: &[2]string{creatorInboxID, peerInboxID}})
	s.Permissions = DMPermissions()
	return s
}

func newState(m *Metadata) *GroupState {
	return &GroupState{
		Metadata:   m,
		Mutable:    newMutableMetadata(),
		Membership: &Membership{Members: map[string]uint64{m.CreatorInboxID: 0}},
	}
}

// ParseGroupState reads the extensions of a GroupContext. The error wraps
// [ErrGroupState] or is a [CommitError] about the membership.
func ParseGroupState(exts []mls.Extension) (*GroupState, error) {
	metadata, err := parseMetadata(exts)
	if err != nil {
		return nil, err
	}
	mutable, err := parseMutableMetadata(exts)
	if err != nil {
		return nil, err
	}
	membership, err := parseMembership(exts)
	if err != nil {
		return nil, err
	}
	permissions, err := parsePermissions(exts)
	if err != nil {
		return nil, err
	}
	return &GroupState{metadata, mutable, membership, permissions}, nil
}

// Extensions encodes the state as the extensions with which a group is created.
// The error is a text that is no UTF-8, or a policy that has no encoding.
func (s *GroupState) Extensions() ([]mls.Extension, error) {
	var exts []mls.Extension
	for _, part := range []interface {
		extension() (mls.Extension, error)
	}{s.Metadata, s.Mutable, s.Membership, s.Permissions} {
		e, err := part.extension()
		if err != nil {
			return nil, err
		}
		exts = append(exts, e)
	}
	return append(exts, requiredCapabilities.Extension()), nil
}

// The functions below return the extension list for a GroupContextExtensions
// proposal: exts with one replaced, which moves to the end. All others stay as
// they are, byte for byte. The errors are those of [GroupState.Extensions].

// WithMutableMetadata replaces attributes and admins.
func WithMutableMetadata(exts []mls.Extension, m *MutableMetadata) ([]mls.Extension, error) {
	e, err := m.extension()
	return replace(exts, e), err
}

// WithMembership replaces the membership.
func WithMembership(exts []mls.Extension, m *Membership) ([]mls.Extension, error) {
	e, err := m.extension()
	return replace(exts, e), err
}

// WithPermissions replaces the permissions.
func WithPermissions(exts []mls.Extension, p *PolicySet) ([]mls.Extension, error) {
	e, err := p.extension()
	return replace(exts, e), err
}

func replace(exts []mls.Extension, e mls.Extension) []mls.Extension {
	out := slices.DeleteFunc(slices.Clone(exts), func(old mls.Extension) bool { return old.Type == e.Type })
	return append(out, e)
}

// find returns the body of the extension of type t.
func find(exts []mls.Extension, t mls.ExtensionType) ([]byte, bool) {
	for _, e := range exts {
		if e.Type == t {
			return e.Data, true
		}
	}
	return nil, false
}

// sameExtension reports whether both lists have the same extension of type t, or
// neither has one.
func sameExtension(a, b []mls.Extension, t mls.ExtensionType) bool {
	x, inA := find(a, t)
	y, inB := find(b, t)
	return inA == inB && bytes.Equal(x, y)
}
