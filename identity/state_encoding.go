package identity

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// Proto returns s as the network's message for it. Lists are sorted, so that
// equal states give equal messages.
func (s *State) Proto() *associations.AssociationState {
	p := &associations.AssociationState{
		InboxId:                s.inboxID,
		RecoveryIdentifier:     s.recovery.String(),
		RecoveryIdentifierKind: s.recovery.ProtoKind(),
		RelyingParty:           optional(s.recoveryRelyingParty),
	}
	for _, m := range s.members.from("") {
		id := m.Identifier.proto(m.RelyingParty)
		pm := &associations.Member{Identifier: id}
		if !m.AddedBy.IsZero() {
			pm.AddedByEntity = m.AddedBy.Proto()
			pm.ClientTimestampNs = proto.Uint64(m.TimestampNS)
		}
		if m.Contract {
			pm.AddedOnChainId = proto.Uint64(m.ChainID)
		}
		p.Members = append(p.Members, &associations.MemberMap{Key: id, Value: pm})
	}
	for raw := range s.seen.from("") {
		p.SeenSignatures = append(p.SeenSignatures, []byte(raw))
	}
	return p
}

// StateFromProto reads a state. It verifies nothing: what p says is believed.
// The error is [ErrEncoding].
func StateFromProto(p *associations.AssociationState) (*State, error) {
	recovery, err := ParseIdentifier(p.GetRecoveryIdentifierKind(), p.GetRecoveryIdentifier())
	if err != nil {
		return nil, fmt.Errorf("%w: recovery identifier: %w", ErrEncoding, err)
	}
	s := &State{inboxID: p.GetInboxId(), recovery: recovery}
	if recovery.kind == KindPasskey {
		s.recoveryRelyingParty = p.GetRelyingParty()
	}
	for i, entry := range p.GetMembers() {
		m, err := memberFromProto(entry)
		if err != nil {
			return nil, fmt.Errorf("%w: member %d: %w", ErrEncoding, i, err)
		}
		if _, ok := s.Member(m.Identifier); ok {
			return nil, fmt.Errorf("%w: member %d: there twice", ErrEncoding, i)
		}
		s.put(m)
	}
	for _, raw := range p.GetSeenSignatures() {
		s.seen = s.seen.put(string(raw), struct{}{})
	}
	return s, nil
}

func memberFromProto(entry *associations.MemberMap) (m Member, err error) {
	value := entry.GetValue()
	if m.Identifier, err = IdentifierFromProto(value.GetIdentifier()); err != nil {
		return m, err
	}
	if key, err := IdentifierFromProto(entry.GetKey()); err != nil {
		return m, err
	} else if key != m.Identifier {
		return m, fmt.Errorf("key and value differ")
	}
	if value.AddedByEntity != nil {
		if m.AddedBy, err = IdentifierFromProto(value.GetAddedByEntity()); err != nil {
			return m, err
		}
	}
	if (value.AddedByEntity != nil) != (value.ClientTimestampNs != nil) {
		return m, fmt.Errorf("timestamp without adder, or the other way round")
	}
	m.TimestampNS = value.GetClientTimestampNs()
	m.Contract, m.ChainID = value.AddedOnChainId != nil, value.GetAddedOnChainId()
	m.RelyingParty = value.GetIdentifier().GetPasskey().GetRelyingParty()
	return m, nil
}

// MarshalBinary encodes s as a serialized AssociationState. It never fails for
// a state that came from a log. Equal states have equal encodings.
func (s *State) MarshalBinary() ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.Proto())
	if err != nil {
		return nil, fmt.Errorf("identity: encoding state: %w", err)
	}
	return b, nil
}

// UnmarshalState reads what [State.MarshalBinary] wrote. It verifies nothing.
// The error is [ErrEncoding].
func UnmarshalState(b []byte) (*State, error) {
	var p associations.AssociationState
	if err := proto.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("%w: state: %w", ErrEncoding, err)
	}
	return StateFromProto(&p)
}

// DiffProto returns the result of [Diff] as the network's message for it.
func DiffProto(before, after *State) *associations.AssociationStateDiff {
	added, removed := Diff(before, after)
	var p associations.AssociationStateDiff
	for _, id := range added {
		p.NewMembers = append(p.NewMembers, id.Proto())
	}
	for _, id := range removed {
		p.RemovedMembers = append(p.RemovedMembers, id.Proto())
	}
	return &p
}
