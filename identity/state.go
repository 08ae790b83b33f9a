package identity

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Member is one entry of an inbox.
type Member struct {
	Identifier Identifier
	// AddedBy is zero for the identifier that created the inbox.
	AddedBy Identifier
	// TimestampNS is the client's clock when the member was added, in
	// nanoseconds since the Unix epoch; 0 for the creator.
	TimestampNS uint64
	// Contract tells that the member is a smart contract wallet, which signs
	// on ChainID and nowhere else.
	Contract bool
	ChainID  uint64
	// RelyingParty is what a passkey said of itself, if anything.
	RelyingParty string
}

// State is the association state of an inbox: what follows from its log. It is
// immutable, so that it can be kept, shared and extended in several ways; all
// states of a log share what they have in common. The nil *State is that of an
// inbox that doesn't exist yet: it can be applied to, compared, and has no
// members; the other methods need an inbox.
type State struct {
	inboxID              string
	recovery             Identifier
	recoveryRelyingParty string
	members              tree[Member]
	// installations has a key for every installation, below that of the member
	// who added it: who is revoked takes his installations along.
	installations tree[struct{}]
	// seen has the raw bytes of all signatures.
	seen tree[struct{}]
}

// Apply returns the state after u. It never changes s; s may be nil. The
// errors are those of the association rules, and an error makes every log that
// continues with u invalid.
func (s *State) Apply(u *VerifiedUpdate) (*State, error) {
	var next *State
	if s != nil {
		c := *s
		next = &c
	}
	for i := range u.actions {
		a := &u.actions[i]
		var err error
		switch a.op {
		case opCreate:
			next, err = create(next, u, a)
		case opAdd:
			err = next.applyAdd(u, a)
		case opRevoke:
			err = next.applyRevoke(u, a)
		case opChangeRecovery:
			err = next.applyChangeRecovery(u, a)
		}
		if err != nil {
			return nil, err
		}
	}
	if next == nil {
		return nil, ErrNotCreated
	}
	if next.inboxID != u.inboxID {
		return nil, ErrWrongInboxID
	}
	// Only now, so that a signature can serve several actions of one update.
	for i := range u.signatures {
		next.seen = next.seen.put(u.signatures[i].raw, struct{}{})
	}
	return next, nil
}

// The methods below change s, which is Apply's own copy. Their checks come in
// an order that shows in the errors.

func create(s *State, u *VerifiedUpdate, a *verifiedAction) (*State, error) {
	sig := u.authority(a)
	switch {
	case s != nil:
		return nil, ErrMultipleCreate
	case sig.signer != a.target:
		return nil, ErrMissingExistingMember
	case sig.kind == signatureLegacy && a.nonce != 0:
		return nil, ErrLegacySignatureReuse
	}
	inboxID, err := DeriveInboxID(a.target, a.nonce)
	if err != nil {
		return nil, err
	}
	s = &State{inboxID: inboxID, recovery: a.target, recoveryRelyingParty: a.relyingParty}
	s.put(Member{Identifier: a.target, Contract: sig.contract, ChainID: sig.chainID, RelyingParty: a.relyingParty})
	return s, nil
}

func (s *State) applyAdd(u *VerifiedUpdate, a *verifiedAction) error {
	if s == nil {
		return ErrNotCreated
	}
	existing, added := u.authority(a), u.newcomer(a)
	if s.hasSeen(existing) || s.hasSeen(added) {
		return ErrReplay
	}
	if added.signer != a.target {
		return ErrNewMemberIDSignatureMismatch
	}
	if added.signer == existing.signer {
		return detailed(ErrGeneric, "%v tried to add self", ErrGeneric)
	}
	legacy := existing.kind == signatureLegacy || added.kind == signatureLegacy
	if legacy && existing.signer.kind != KindInstallation {
		inboxID, err := DeriveInboxID(existing.signer, 0)
		if err != nil {
			return err
		}
		if inboxID != s.inboxID {
			return ErrLegacySignatureReuse
		}
	}
	if member, ok := s.Member(existing.signer); ok {
		if err := member.checkChain(existing); err != nil {
			return err
		}
	} else if existing.signer != s.recovery {
		return ErrMissingExistingMember
	} else if existing.kind == signatureLegacy {
		return ErrLegacySignatureReuse
	}
	if existing.signer.kind == KindInstallation && added.signer.kind == KindInstallation {
		return errMemberNotAllowed(existing.signer.kind, added.signer.kind)
	}
	s.put(Member{
		Identifier:   added.signer,
		AddedBy:      existing.signer,
		TimestampNS:  u.timestampNS,
		Contract:     added.contract,
		ChainID:      added.chainID,
		RelyingParty: added.relyingParty,
	})
	return nil
}

func (s *State) applyRevoke(u *VerifiedUpdate, a *verifiedAction) error {
	if err := s.checkRecovery(u.authority(a)); err != nil {
		return err
	}
	children := childKey(a.target, Identifier{})
	var orphans []Identifier
	for key := range s.installations.from(children) {
		child, ok := strings.CutPrefix(key, children)
		if !ok {
			break
		}
		orphans = append(orphans, Identifier{KindInstallation, child})
	}
	s.remove(a.target)
	for _, orphan := range orphans {
		s.remove(orphan)
	}
	return nil
}

func (s *State) applyChangeRecovery(u *VerifiedUpdate, a *verifiedAction) error {
	if err := s.checkRecovery(u.authority(a)); err != nil {
		return err
	}
	// Not even an address is required to be one; see CheckPublishable.
	s.recovery, s.recoveryRelyingParty = a.target, a.relyingParty
	return nil
}

// checkRecovery is what revoking members and changing the recovery identifier
// require of their signature.
func (s *State) checkRecovery(sig *verifiedSignature) error {
	if s == nil {
		return ErrNotCreated
	}
	if s.hasSeen(sig) {
		return ErrReplay
	}
	if member, ok := s.Member(sig.signer); ok {
		if err := member.checkChain(sig); err != nil {
			return err
		}
	}
	if sig.kind == signatureLegacy {
		return errSignatureNotAllowed(KindEthereum, signatureLegacy)
	}
	if sig.signer != s.recovery {
		return ErrMissingExistingMember
	}
	return nil
}

// checkChain keeps a contract wallet to the chain on which it was added. Other
// members are on no chain, which is a chain of its own.
func (m *Member) checkChain(sig *verifiedSignature) error {
	if m.Contract != sig.contract || m.ChainID != sig.chainID {
		return errChainIDMismatch(m.ChainID, sig.chainID)
	}
	return nil
}

func (s *State) hasSeen(sig *verifiedSignature) bool {
	_, ok := s.seen.get(sig.raw)
	return ok
}

// put adds m or replaces the member of the same identifier.
func (s *State) put(m Member) {
	s.remove(m.Identifier)
	s.members = s.members.put(m.Identifier.key(), m)
	if m.Identifier.kind == KindInstallation {
		s.installations = s.installations.put(childKey(m.AddedBy, m.Identifier), struct{}{})
	}
}

// remove removes id alone, if it is there.
func (s *State) remove(id Identifier) {
	m, ok := s.Member(id)
	if !ok {
		return
	}
	s.members = s.members.delete(id.key())
	if id.kind == KindInstallation {
		s.installations = s.installations.delete(childKey(m.AddedBy, id))
	}
}

// childKey is unambiguous, and has the key of no child as prefix.
func childKey(parent, child Identifier) string {
	key := parent.key()
	b := binary.AppendUvarint(make([]byte, 0, 10+len(key)+len(child.value)), uint64(len(key)))
	return string(append(append(b, key...), child.value...))
}

// InboxID returns the id of the inbox: 64 lower-case hex digits.
func (s *State) InboxID() string { return s.inboxID }

// Recovery returns the recovery identifier. It need not be a member.
func (s *State) Recovery() Identifier { return s.recovery }

// Member returns the member with identifier id.
func (s *State) Member(id Identifier) (Member, bool) { return s.members.get(id.key()) }

// Members returns all members in the order in which SDKs list them: by
// timestamp, the creator last. Members of one timestamp come in an order that
// is the same everywhere.
func (s *State) Members() []Member {
	var members []Member
	if s == nil {
		return nil
	}
	for _, m := range s.members.from("") {
		members = append(members, m)
	}
	slices.SortStableFunc(members, func(a, b Member) int {
		if a.AddedBy.IsZero() != b.AddedBy.IsZero() {
			if a.AddedBy.IsZero() {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.TimestampNS, b.TimestampNS)
	})
	return members
}

// Installations returns the installations in the order of [State.Members].
func (s *State) Installations() []Identifier {
	var ids []Identifier
	for _, m := range s.Members() {
		if m.Identifier.kind == KindInstallation {
			ids = append(ids, m.Identifier)
		}
	}
	return ids
}

// MaxInstallations is how many installations an inbox has at most if its
// clients are polite. Nothing enforces it in the log.
const MaxInstallations = 10

// CheckInstallationLimit returns [ErrInstallationLimit], with a text for
// people, if a client should not add another installation.
func (s *State) CheckInstallationLimit() error {
	if n := len(s.Installations()); n >= MaxInstallations {
		return limitError(fmt.Sprintf("Cannot register a new installation because the InboxID %s has already registered %d/%d installations. "+
			"Please revoke existing installations first.", s.inboxID, n, MaxInstallations))
	}
	return nil
}

type limitError string

func (e limitError) Error() string        { return string(e) }
func (e limitError) Is(target error) bool { return target == ErrInstallationLimit }

// Diff returns the identifiers that only after has, and those that only before
// has, each in an order that is the same everywhere. Either state may be nil.
// A member whose entry was replaced appears in neither.
func Diff(before, after *State) (added, removed []Identifier) {
	return missing(after, before), missing(before, after)
}

// missing returns the members of a that are not in b.
func missing(a, b *State) []Identifier {
	if a == nil {
		return nil
	}
	var ids []Identifier
	for _, m := range a.members.from("") {
		if b != nil {
			if _, ok := b.Member(m.Identifier); ok {
				continue
			}
		}
		ids = append(ids, m.Identifier)
	}
	return ids
}
