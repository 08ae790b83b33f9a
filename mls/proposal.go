package mls

import (
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Proposal is a change to a group that a member proposes or commits (§12.1): one
// of [Add], [Update], [Remove], [PreSharedKey], [ReInit], [ExternalInit],
// [GroupContextExtensions], [AppDataUpdate], [AppEphemeral], [SelfRemove] and
// [CustomProposal].
type Proposal interface {
	// ProposalType is the number of the proposal's type.
	ProposalType() ProposalType

	appendBody(b []byte) []byte
}

// Add proposes a new member (§12.1.1).
type Add struct{ KeyPackage *KeyPackage }

// Update proposes a new leaf for its sender (§12.1.2).
type Update struct{ LeafNode LeafNode }

// Remove proposes that a member be removed (§12.1.3).
type Remove struct{ Leaf LeafIndex }

// PreSharedKey proposes that a key known from elsewhere be mixed in (§12.1.4).
type PreSharedKey struct{ ID PreSharedKeyID }

// ReInit proposes to close the group and go on in a new one (§12.1.5).
type ReInit struct {
	GroupID     []byte
	Version     ProtocolVersion
	CipherSuite CipherSuite
	Extensions  []Extension
}

// ExternalInit is the init secret of one who joins by an external commit (§12.1.6).
type ExternalInit struct{ KEMOutput []byte }

// GroupContextExtensions proposes a new extension list for the group, which
// replaces the old one whole (§12.1.7).
type GroupContextExtensions struct{ Extensions []Extension }

// AppDataUpdate proposes to change a component of the group's application data
// (draft-ietf-mls-extensions). Update is unused if Remove is set.
type AppDataUpdate struct {
	Component ComponentID
	Remove    bool
	Update    []byte
}

// AppEphemeral carries application data that belongs to a commit
// (draft-ietf-mls-extensions).
type AppEphemeral struct {
	Component ComponentID
	Data      []byte
}

// SelfRemove proposes that its sender be removed (draft-ietf-mls-extensions).
type SelfRemove struct{}

// CustomProposal is a proposal whose type the package doesn't know (§13.4); its
// body is one vector, Data.
type CustomProposal struct {
	Type ProposalType
	Data []byte
}

// ProposalType is [ProposalAdd] (§17.4).
func (Add) ProposalType() ProposalType { return ProposalAdd }

// ProposalType is [ProposalUpdate] (§17.4).
func (Update) ProposalType() ProposalType { return ProposalUpdate }

// ProposalType is [ProposalRemove] (§17.4).
func (Remove) ProposalType() ProposalType { return ProposalRemove }

// ProposalType is [ProposalPreSharedKey] (§17.4).
func (PreSharedKey) ProposalType() ProposalType { return ProposalPreSharedKey }

// ProposalType is [ProposalReInit] (§17.4).
func (ReInit) ProposalType() ProposalType { return ProposalReInit }

// ProposalType is [ProposalExternalInit] (§17.4).
func (ExternalInit) ProposalType() ProposalType { return ProposalExternalInit }

// ProposalType is [ProposalGroupContextExtensions] (§17.4).
func (GroupContextExtensions) ProposalType() ProposalType { return ProposalGroupContextExtensions }

// ProposalType is [ProposalAppDataUpdate] (§17.4).
func (AppDataUpdate) ProposalType() ProposalType { return ProposalAppDataUpdate }

// ProposalType is [ProposalAppEphemeral] (§17.4).
func (AppEphemeral) ProposalType() ProposalType { return ProposalAppEphemeral }

// ProposalType is [ProposalSelfRemove] (§17.4).
func (SelfRemove) ProposalType() ProposalType { return ProposalSelfRemove }

// ProposalType is the number of the type, Type (§17.4).
func (p CustomProposal) ProposalType() ProposalType { return p.Type }

func (p Add) appendBody(b []byte) []byte          { return append(b, p.KeyPackage.raw...) }
func (p Update) appendBody(b []byte) []byte       { return append(b, p.LeafNode.raw...) }
func (p Remove) appendBody(b []byte) []byte       { return wire.AppendUint32(b, uint32(p.Leaf)) }
func (p PreSharedKey) appendBody(b []byte) []byte { return p.ID.append(b) }
func (p ExternalInit) appendBody(b []byte) []byte { return wire.AppendOpaque(b, p.KEMOutput) }
func (p SelfRemove) appendBody(b []byte) []byte   { return b }

func (p CustomProposal) appendBody(b []byte) []byte { return wire.AppendOpaque(b, p.Data) }

func (p GroupContextExtensions) appendBody(b []byte) []byte {
	return appendExtensions(b, p.Extensions)
}

func (p ReInit) appendBody(b []byte) []byte {
	b = wire.AppendOpaque(b, p.GroupID)
	b = wire.AppendUint16(b, uint16(p.Version))
	b = wire.AppendUint16(b, uint16(p.CipherSuite))
	return appendExtensions(b, p.Extensions)
}

// The operations of AppDataUpdate.
const (
	appDataUpdate = 1
	appDataRemove = 2
)

func (p AppDataUpdate) appendBody(b []byte) []byte {
	b = wire.AppendUint16(b, uint16(p.Component))
	if p.Remove {
		return append(b, appDataRemove)
	}
	return wire.AppendOpaque(append(b, appDataUpdate), p.Update)
}

func (p AppEphemeral) appendBody(b []byte) []byte {
	return wire.AppendOpaque(wire.AppendUint16(b, uint16(p.Component)), p.Data)
}

func appendProposal(b []byte, p Proposal) []byte {
	return p.appendBody(wire.AppendUint16(b, uint16(p.ProposalType())))
}

func readProposal(r *wire.Reader) Proposal {
	return readProposalBody(r, ProposalType(r.Uint16()))
}

func readProposalBody(r *wire.Reader, t ProposalType) Proposal {
	switch t {
	case ProposalAdd:
		return Add{readKeyPackage(r)}
	case ProposalUpdate:
		leaf, _ := readLeafNode(r)
		return Update{leaf}
	case ProposalRemove:
		return Remove{LeafIndex(r.Uint32())}
	case ProposalPreSharedKey:
		return PreSharedKey{readPreSharedKeyID(r)}
	case ProposalReInit:
		return ReInit{r.Opaque(), ProtocolVersion(r.Uint16()), CipherSuite(r.Uint16()), readExtensions(r)}
	case ProposalExternalInit:
		return ExternalInit{r.Opaque()}
	case ProposalGroupContextExtensions:
		return GroupContextExtensions{readExtensions(r)}
	case ProposalAppDataUpdate:
		p := AppDataUpdate{Component: ComponentID(r.Uint16())}
		switch op := r.Uint8(); op {
		case appDataUpdate:
			p.Update = r.Opaque()
		case appDataRemove:
			p.Remove = true
		default:
			r.Fail(fmt.Errorf("app data operation %d", op))
		}
		return p
	case ProposalAppEphemeral:
		return AppEphemeral{ComponentID(r.Uint16()), r.Opaque()}
	case ProposalSelfRemove:
		return SelfRemove{}
	default:
		return CustomProposal{t, r.Opaque()}
	}
}

// PSKType tells where a pre-shared key is from (§8.4).
type PSKType uint8

// The types of pre-shared keys (§8.4; application: draft-ietf-mls-extensions).
const (
	PSKExternal    PSKType = 1
	PSKResumption  PSKType = 2
	PSKApplication PSKType = 3
)

// ResumptionPSKUsage tells what a resumption PSK is used for (§8.4).
type ResumptionPSKUsage uint8

// The usages of a resumption PSK (§8.4).
const (
	ResumptionApplication ResumptionPSKUsage = 1
	ResumptionReInit      ResumptionPSKUsage = 2
	ResumptionBranch      ResumptionPSKUsage = 3
)

// PreSharedKeyID names a pre-shared key (§8.4): an external one by ID, one of an
// application component by Component and ID, one that resumes a group by Usage,
// GroupID and Epoch. A proposal that is made without Nonce gets a fresh one.
type PreSharedKeyID struct {
	Type      PSKType
	Component ComponentID
	ID        []byte
	Usage     ResumptionPSKUsage
	GroupID   []byte
	Epoch     uint64
	Nonce     []byte
}

func (id PreSharedKeyID) append(b []byte) []byte {
	b = append(b, byte(id.Type))
	switch id.Type {
	case PSKExternal:
		b = wire.AppendOpaque(b, id.ID)
	case PSKApplication:
		b = wire.AppendOpaque(wire.AppendUint16(b, uint16(id.Component)), id.ID)
	default:
		b = append(b, byte(id.Usage))
		b = wire.AppendOpaque(b, id.GroupID)
		b = wire.AppendUint64(b, id.Epoch)
	}
	return wire.AppendOpaque(b, id.Nonce)
}

func readPreSharedKeyID(r *wire.Reader) PreSharedKeyID {
	id := PreSharedKeyID{Type: PSKType(r.Uint8())}
	switch id.Type {
	case PSKExternal:
		id.ID = r.Opaque()
	case PSKApplication:
		id.Component = ComponentID(r.Uint16())
		id.ID = r.Opaque()
	case PSKResumption:
		id.Usage = ResumptionPSKUsage(r.Uint8())
		if id.Usage < ResumptionApplication || id.Usage > ResumptionBranch {
			r.Fail(fmt.Errorf("resumption PSK usage %d", id.Usage))
		}
		id.GroupID = r.Opaque()
		id.Epoch = r.Uint64()
	default:
		r.Fail(fmt.Errorf("PSK type %d", id.Type))
	}
	id.Nonce = r.Opaque()
	return id
}
