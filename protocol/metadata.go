package protocol

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// ConversationType is the kind of a conversation. It never changes.
type ConversationType = mlscontents.ConversationType

// The kinds of conversations. The last two are not shown to people.
const (
	Group   = mlscontents.ConversationType_CONVERSATION_TYPE_GROUP
	DM      = mlscontents.ConversationType_CONVERSATION_TYPE_DM
	Sync    = mlscontents.ConversationType_CONVERSATION_TYPE_SYNC
	Oneshot = mlscontents.ConversationType_CONVERSATION_TYPE_ONESHOT
)

// Metadata is what a group was created as.
type Metadata struct {
	Type           ConversationType
	CreatorInboxID string

	// DMMembers are the two inboxes of a DM, the creator's first; their order has
	// no meaning. Nil for other kinds.
	DMMembers *[2]string

	// OneshotMessage is all there is to a oneshot group; nil for other kinds.
	OneshotMessage *mlscontents.OneshotMessage
}

// isDMMember reports whether the group is a DM that inboxID takes part in.
func (m *Metadata) isDMMember(inboxID string) bool {
	return m.DMMembers != nil && slices.Contains(m.DMMembers[:], inboxID)
}

// DMID returns the id that all DMs of two inboxes share, by which they become one
// conversation. It is never sent.
func DMID(a, b string) string {
	a, b = strings.ToLower(a), strings.ToLower(b)
	return "dm:" + min(a, b) + ":" + max(a, b)
}

// extension encodes the metadata as a vector within the extension's body, where
// the other extensions have the bare message.
func (m *Metadata) extension() (mls.Extension, error) {
	p := &mlscontents.GroupMetadataV1{
		ConversationType: m.Type,
		CreatorInboxId:   m.CreatorInboxID,
		OneshotMessage:   m.OneshotMessage,
	}
	if m.DMMembers != nil {
		p.DmMembers = &mlscontents.DmMembers{
			DmMemberOne: &mlscontents.Inbox{InboxId: m.DMMembers[0]},
			DmMemberTwo: &mlscontents.Inbox{InboxId: m.DMMembers[1]},
		}
	}
	body, err := marshal(p)
	return mls.Extension{Type: extensionMetadata, Data: appendOpaque(nil, body)}, err
}

func parseMetadata(exts []mls.Extension) (*Metadata, error) {
	data, ok := find(exts, extensionMetadata)
	if !ok {
		return nil, fmt.Errorf("%w: no immutable metadata", ErrGroupState)
	}
	body, rest, err := readOpaque(data)
	if err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("%w: immutable metadata is not one vector", ErrGroupState)
	}
	var p mlscontents.GroupMetadataV1
	if err := unmarshal(body, &p); err != nil {
		return nil, fmt.Errorf("%w: immutable metadata: %w", ErrGroupState, err)
	}
	m := &Metadata{Type: p.GetConversationType(), CreatorInboxID: p.GetCreatorInboxId(), OneshotMessage: p.GetOneshotMessage()}
	if m.Type < Group || m.Type > Oneshot {
		return nil, fmt.Errorf("%w: conversation type %d", ErrGroupState, m.Type)
	}
	if d := p.GetDmMembers(); d != nil {
		if d.DmMemberOne == nil || d.DmMemberTwo == nil {
			return nil, fmt.Errorf("%w: DM of one", ErrGroupState)
		}
		m.DMMembers = &[2]string{d.DmMemberOne.GetInboxId(), d.DmMemberTwo.GetInboxId()}
	}
	return m, nil
}

// Names of attributes in [MutableMetadata]. Others may occur. An attribute whose
// name starts with "_" and that no policy names is for super admins.
const (
	AttributeName           = "group_name"
	AttributeDescription    = "description"
	AttributeImageURL       = "group_image_url_square"
	AttributeAppData        = "app_data"
	AttributeDisappearFrom  = "message_disappear_from_ns" // decimal
	AttributeDisappearIn    = "message_disappear_in_ns"   // decimal
	AttributeMinimumVersion = "minimum_supported_protocol_version"
	// AttributeCommitLogSigner is a seed in hex, see [MutableMetadata.CommitLogSeed].
	AttributeCommitLogSigner = "_commit_log_signer"

	superAdminPrefix = "_"
)

// attributeLimits are the most bytes that attributes may have.
var attributeLimits = map[string]int{
	AttributeName:        100,
	AttributeDescription: 1000,
	AttributeImageURL:    2048,
	AttributeAppData:     8192,
}

// CheckAttribute refuses a value that other members would refuse: of more than 100
// bytes for the name, 1000 for the description, 2048 for the image URL, 8192 for
// the app data. The error is [ErrAttributeTooLong].
func CheckAttribute(name, value string) error {
	if limit, ok := attributeLimits[name]; ok && len(value) > limit {
		return ErrAttributeTooLong.detail("%s has %d bytes, at most %d are allowed", name, len(value), limit)
	}
	return nil
}

// MutableMetadata is what members may change of a group: its attributes and its
// admins. The two lists are independent of each other.
type MutableMetadata struct {
	Attributes  map[string]string
	Admins      []string
	SuperAdmins []string
}

// IsAdmin reports whether inboxID is an admin. A super admin need not be one.
func (m *MutableMetadata) IsAdmin(inboxID string) bool { return slices.Contains(m.Admins, inboxID) }

// IsSuperAdmin reports whether inboxID is a super admin.
func (m *MutableMetadata) IsSuperAdmin(inboxID string) bool {
	return slices.Contains(m.SuperAdmins, inboxID)
}

// Clone returns a copy that shares nothing with m.
func (m *MutableMetadata) Clone() *MutableMetadata {
	return &MutableMetadata{maps.Clone(m.Attributes), slices.Clone(m.Admins), slices.Clone(m.SuperAdmins)}
}

// Disappearing says for how long messages live: in nanoseconds, for those after
// From (nanoseconds since the Unix epoch). Zero values switch it off.
type Disappearing struct{ From, In int64 }

// On reports whether messages disappear.
func (d Disappearing) On() bool { return d.From > 0 && d.In > 0 }

// Disappearing reads the two attributes; they count only together.
func (m *MutableMetadata) Disappearing() Disappearing {
	from, err := strconv.ParseInt(m.Attributes[AttributeDisappearFrom], 10, 64)
	in, err2 := strconv.ParseInt(m.Attributes[AttributeDisappearIn], 10, 64)
	if err != nil || err2 != nil {
		return Disappearing{}
	}
	return Disappearing{from, in}
}

// ParseDisappearing reads them from the extensions of a GroupContext; they are off
// if they can't be read.
func ParseDisappearing(exts []mls.Extension) Disappearing {
	m, err := parseMutableMetadata(exts)
	if err != nil {
		return Disappearing{}
	}
	return m.Disappearing()
}

// SetDisappearing sets the two attributes. Switching off leaves them at "0".
func (m *MutableMetadata) SetDisappearing(d Disappearing) {
	m.Attributes[AttributeDisappearFrom] = strconv.FormatInt(d.From, 10)
	m.Attributes[AttributeDisappearIn] = strconv.FormatInt(d.In, 10)
}

// CommitLogSeed returns the seed of the Ed25519 key that signs the group's commit
// log, 32 bytes; nil if the group has none.
func (m *MutableMetadata) CommitLogSeed() []byte {
	seed, err := hex.DecodeString(m.Attributes[AttributeCommitLogSigner])
	if err != nil || len(seed) != 32 {
		return nil
	}
	return seed
}

// newMutableMetadata has what every new group has.
func newMutableMetadata() *MutableMetadata {
	seed := make([]byte, 32)
	rand.Read(seed)
	return &MutableMetadata{Attributes: map[string]string{
		AttributeName:            "",
		AttributeDescription:     "",
		AttributeImageURL:        "",
		AttributeCommitLogSigner: hex.EncodeToString(seed),
	}}
}

func (m *MutableMetadata) extension() (mls.Extension, error) {
	data, err := marshal(&mlscontents.GroupMutableMetadataV1{
		Attributes:     m.Attributes,
		AdminList:      &mlscontents.Inboxes{InboxIds: m.Admins},
		SuperAdminList: &mlscontents.Inboxes{InboxIds: m.SuperAdmins},
	})
	return mls.Extension{Type: extensionMutableMetadata, Data: data}, err
}

func parseMutableMetadata(exts []mls.Extension) (*MutableMetadata, error) {
	data, ok := find(exts, extensionMutableMetadata)
	if !ok {
		return nil, fmt.Errorf("%w: no mutable metadata", ErrGroupState)
	}
	var p mlscontents.GroupMutableMetadataV1
	if err := unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("%w: mutable metadata: %w", ErrGroupState, err)
	}
	if p.AdminList == nil || p.SuperAdminList == nil {
		return nil, fmt.Errorf("%w: mutable metadata without a list of admins", ErrGroupState)
	}
	m := &MutableMetadata{p.GetAttributes(), p.GetAdminList().GetInboxIds(), p.GetSuperAdminList().GetInboxIds()}
	if m.Attributes == nil {
		m.Attributes = map[string]string{}
	}
	return m, nil
}
