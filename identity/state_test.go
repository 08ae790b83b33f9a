package identity

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// model is the association state written down naively, rule by rule.
type model struct {
	inboxID  string
	recovery Identifier
	members  map[Identifier]Member
	seen     map[string]bool
}

func (m *model) clone() *model {
	if m == nil {
		return nil
	}
	return &model{m.inboxID, m.recovery, maps.Clone(m.members), maps.Clone(m.seen)}
}

var allowedSignatures = map[Kind][]signatureKind{
	KindEthereum:     {signatureERC191, signatureERC1271, signatureLegacy},
	KindInstallation: {signatureInstallation},
	KindPasskey:      {signatureP256},
}

func (m *model) apply(u *VerifiedUpdate) (*model, *Error) {
	m = m.clone()
	for i := range u.actions {
		a := &u.actions[i]
		by := &u.signatures[a.signatures[0]]
		if a.op == opAdd {
			by = &u.signatures[a.signatures[1]]
		}
		if a.op == opCreate {
			if m != nil {
				return nil, ErrMultipleCreate
			}
			if by.signer != a.target {
				return nil, ErrMissingExistingMember
			}
			if by.kind == signatureLegacy && a.nonce != 0 {
				return nil, ErrLegacySignatureReuse
			}
			id, err := DeriveInboxID(a.target, a.nonce)
			if err != nil {
				return nil, err.(*Error)
			}
			m = &model{id, a.target, map[Identifier]Member{
				a.target: {Identifier: a.target, Contract: by.contract, ChainID: by.chainID, RelyingParty: a.relyingParty},
			}, map[string]bool{}}
			continue
		}
		if m == nil {
			return nil, ErrNotCreated
		}
		if m.seen[by.raw] {
			return nil, ErrReplay
		}
		member, isMember := m.members[by.signer]
		wrongChain := isMember && (member.Contract != by.contract || member.ChainID != by.chainID)
		if a.op != opAdd {
			switch {
			case wrongChain:
				return nil, ErrChainIDMismatch
			case by.kind == signatureLegacy:
				return nil, ErrSignatureNotAllowed
			case by.signer != m.recovery:
				return nil, ErrMissingExistingMember
			case a.op == opChangeRecovery:
				m.recovery = a.target
			default:
				delete(m.members, a.target)
				for id, child := range m.members {
					if child.AddedBy == a.target && id.Kind() == KindInstallation {
						delete(m.members, id)
					}
				}
			}
			continue
		}
		added := &u.signatures[a.signatures[0]]
		var legacy error
		if by.signer.Kind() != KindInstallation && (added.kind == signatureLegacy || by.kind == signatureLegacy) {
			var id string
			if id, legacy = DeriveInboxID(by.signer, 0); legacy == nil && id != m.inboxID {
				legacy = ErrLegacySignatureReuse
			}
		}
		switch {
		case m.seen[added.raw]:
			return nil, ErrReplay
		case added.signer != a.target:
			return nil, ErrNewMemberIDSignatureMismatch
		case added.signer == by.signer:
			return nil, ErrGeneric
		case legacy != nil:
			return nil, legacy.(*Error)
		case !slices.Contains(allowedSignatures[a.target.Kind()], added.kind):
			return nil, ErrSignatureNotAllowed
		case wrongChain:
			return nil, ErrChainIDMismatch
		case !isMember && by.signer != m.recovery:
			return nil, ErrMissingExistingMember
		case !isMember && by.kind == signatureLegacy:
			return nil, ErrLegacySignatureReuse
		case !slices.Contains(allowedSignatures[by.signer.Kind()], by.kind):
			return nil, ErrSignatureNotAllowed
		case by.signer.Kind() == KindInstallation && a.target.Kind() == KindInstallation:
			return nil, ErrMemberNotAllowed
		}
		m.members[a.target] = Member{
			Identifier: a.target, AddedBy: by.signer, TimestampNS: u.timestampNS,
			Contract: added.contract, ChainID: added.chainID, RelyingParty: added.relyingParty,
		}
	}
	if m == nil {
		return nil, ErrNotCreated
	}
	if m.inboxID != u.inboxID {
		return nil, ErrWrongInboxID
	}
	for i := range u.signatures {
		m.seen[u.signatures[i].raw] = true
	}
	return m, nil
}

// cast are the identifiers that random updates are about.
var cast = func() []Identifier {
	ids := []Identifier{Passkey([]byte{2, 1}), Passkey([]byte{3, 1})}
	for i := range 3 {
		ids = append(ids,
			Identifier{KindEthereum, "0x" + strings.Repeat(fmt.Sprint(i), 40)},
			Installation([]byte(strings.Repeat(fmt.Sprint(i), 32))))
	}
	return append(ids, Identifier{KindEthereum, strings.Repeat("9", 40)})
}()

// drawUpdate draws the facts of an update, mostly one of good prospects. Few
// raw bytes make replays likely.
func drawUpdate(t *rapid.T, s *State, inboxID string) *VerifiedUpdate {
	insiders := cast
	if s != nil {
		insiders = []Identifier{s.recovery}
		for _, m := range s.Members() {
			insiders = append(insiders, m.Identifier)
		}
	}
	u := &VerifiedUpdate{inboxID: inboxID, timestampNS: rapid.Uint64Range(0, 9).Draw(t, "timestamp")}
	if rapid.IntRange(0, 19).Draw(t, "astray") == 0 {
		u.inboxID = "astray"
	}
	sign := func(signers []Identifier) int {
		if rapid.IntRange(0, 3).Draw(t, "anybody") == 0 {
			signers = cast
		}
		signer := rapid.SampledFrom(signers).Draw(t, "signer")
		s := verifiedSignature{
			kind:   rapid.SampledFrom(allowedSignatures[signer.kind]).Draw(t, "kind"),
			signer: signer,
			raw:    fmt.Sprint(rapid.IntRange(0, 200).Draw(t, "raw")),
		}
		switch s.kind {
		case signatureERC1271:
			s.contract, s.chainID = true, rapid.Uint64Range(0, 1).Draw(t, "chain")
		case signatureP256:
			s.relyingParty = rapid.SampledFrom([]string{"", "https://example.org"}).Draw(t, "origin")
		}
		for i := range u.signatures {
			if u.signatures[i] == s {
				return i
			}
		}
		u.signatures = append(u.signatures, s)
		return len(u.signatures) - 1
	}
	for range rapid.IntRange(0, 3).Draw(t, "actions") {
		op := rapid.SampledFrom([]op{opAdd, opAdd, opAdd, opAdd, opCreate, opRevoke, opChangeRecovery}).Draw(t, "op")
		var targets []Identifier
		for _, id := range cast {
			if (&action{op: op, target: id}).valid() {
				targets = append(targets, id)
			}
		}
		a := verifiedAction{action: action{op: op, target: rapid.SampledFrom(targets).Draw(t, "target")}}
		if op == opCreate {
			a.nonce = rapid.Uint64Range(0, 1).Draw(t, "nonce")
		}
		if a.hasRelyingParty() {
			a.relyingParty = rapid.SampledFrom([]string{"", "example.org"}).Draw(t, "relying party")
		}
		outsiders, insiders := cast, insiders
		if rapid.IntRange(0, 5).Draw(t, "devices") == 0 {
			outsiders, insiders = devices(outsiders), devices(insiders)
		}
		if op == opAdd {
			a.signatures[0] = sign(outsiders)
		}
		a.signatures[a.signatureCount()-1] = sign(insiders)
		// Most new members sign for themselves.
		if op == opAdd && rapid.IntRange(0, 9).Draw(t, "honest") > 0 {
			a.target = u.signatures[a.signatures[0]].signer
		}
		u.actions = append(u.actions, a)
	}
	return u
}

// devices returns the installations among ids, or ids if there are none.
func devices(ids []Identifier) []Identifier {
	var found []Identifier
	for _, id := range ids {
		if id.kind == KindInstallation {
			found = append(found, id)
		}
	}
	if found == nil {
		return ids
	}
	return found
}

// drawCreation draws an update that creates an inbox for cast[i].
func drawCreation(t *rapid.T) *VerifiedUpdate {
	owner := rapid.SampledFrom(cast[:3]).Draw(t, "owner")
	if owner.kind == KindInstallation {
		owner = cast[2]
	}
	s := verifiedSignature{kind: rapid.SampledFrom(allowedSignatures[owner.kind]).Draw(t, "kind"), signer: owner, raw: "creation"}
	a := verifiedAction{action: action{op: opCreate, target: owner}}
	if s.kind == signatureERC1271 {
		s.contract = true
	}
	if s.kind != signatureLegacy {
		a.nonce = rapid.Uint64Range(0, 1).Draw(t, "nonce")
	}
	inboxID, err := DeriveInboxID(owner, a.nonce)
	if err != nil {
		t.Fatal(err)
	}
	return &VerifiedUpdate{inboxID: inboxID, timestampNS: 1, signatures: []verifiedSignature{s}, actions: []verifiedAction{a}}
}

// TestApplyModel runs random logs against the model and, at every step, checks
// what must hold of every state.
func TestApplyModel(t *testing.T) {
	outcomes := make(map[string]int)
	rapid.Check(t, func(t *rapid.T) {
		var state *State
		var m *model
		inboxID := "none"
		if rapid.IntRange(0, 9).Draw(t, "created") > 0 {
			u := drawCreation(t)
			inboxID = u.inboxID
			state, m = step(t, state, m, u, outcomes)
		}
		for range rapid.IntRange(1, 60).Draw(t, "updates") {
			state, m = step(t, state, m, drawUpdate(t, state, inboxID), outcomes)
		}
	})
	// A walk that never gets anywhere proves nothing. The vectors make sure
	// that every rule is met.
	if outcomes[""] == 0 || len(outcomes) < 6 {
		t.Errorf("outcomes %v", outcomes)
	}
}

func step(t *rapid.T, state *State, m *model, u *VerifiedUpdate, outcomes map[string]int) (*State, *model) {
	var before []byte
	if state != nil {
		before = mustMarshal(t, state)
	}
	// Through storage first, so that the encoding can lose nothing.
	b := mustMarshal(t, u)
	stored, err := UnmarshalVerifiedUpdate(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(u, stored, cmp.AllowUnexported(VerifiedUpdate{}, verifiedAction{}, action{}, verifiedSignature{}, Identifier{})); d != "" {
		t.Fatalf("stored update (-want +got):\n%s", d)
	}
	next, err := state.Apply(stored)
	wantNext, wantErr := m.apply(u)
	outcomes[ErrorCode(err)]++
	if state != nil && string(mustMarshal(t, state)) != string(before) {
		t.Fatal("Apply changed its receiver")
	}
	if wantErr != nil {
		if !errors.Is(err, wantErr) || next != nil {
			t.Fatalf("got %v, want %v", err, wantErr)
		}
		return state, m
	}
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	m = wantNext
	got := make(map[Identifier]Member)
	for _, member := range next.Members() {
		got[member.Identifier] = member
	}
	if d := cmp.Diff(m.members, got, cmp.AllowUnexported(Identifier{})); d != "" {
		t.Fatalf("members (-want +got):\n%s", d)
	}
	if next.InboxID() != m.inboxID || next.Recovery() != m.recovery {
		t.Fatalf("inbox %s, recovery %v, want %s, %v", next.InboxID(), next.Recovery(), m.inboxID, m.recovery)
	}
	checkDiff(t, state, next)

	// Equal states have equal bytes, and a state that was stored goes on alike.
	reread, err := UnmarshalState(mustMarshal(t, next))
	if err != nil {
		t.Fatal(err)
	}
	again, err := state.Apply(u)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []*State{reread, again} {
		if string(mustMarshal(t, other)) != string(mustMarshal(t, next)) {
			t.Fatalf("got %v, want %v", other.Proto(), next.Proto())
		}
	}
	// Nothing is applied twice, but for what changes nothing.
	if _, err := next.Apply(u); len(u.actions) > 0 && err == nil {
		t.Fatal("applied twice")
	}
	return reread, m
}

func checkDiff(t *rapid.T, before, after *State) {
	added, removed := Diff(before, after)
	left := make(map[Identifier]bool)
	for _, m := range before.Members() {
		left[m.Identifier] = true
	}
	for _, id := range removed {
		if !left[id] {
			t.Fatalf("%v removed, but was not there", id)
		}
		delete(left, id)
	}
	for _, id := range added {
		if left[id] {
			t.Fatalf("%v added, but was there", id)
		}
		left[id] = true
	}
	for _, m := range after.Members() {
		if !left[m.Identifier] {
			t.Fatalf("%v not in the diff", m.Identifier)
		}
		delete(left, m.Identifier)
	}
	if len(left) != 0 {
		t.Fatalf("%v not in the diff", left)
	}
	p := DiffProto(before, after)
	if len(p.GetNewMembers()) != len(added) || len(p.GetRemovedMembers()) != len(removed) {
		t.Fatalf("diff as proto: %v", p)
	}
}

func mustMarshal(t interface{ Fatal(...any) }, v interface{ MarshalBinary() ([]byte, error) }) []byte {
	b, err := v.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// stateOf makes a state with the given members, added in this order.
func stateOf(members ...Member) *State {
	s := &State{inboxID: strings.Repeat("ab", 32), recovery: cast[2]}
	for _, m := range members {
		s.put(m)
	}
	return s
}

func TestMembersOrder(t *testing.T) {
	creator := Member{Identifier: cast[2]}
	late := Member{Identifier: cast[3], AddedBy: cast[2], TimestampNS: 1 << 63}
	early := Member{Identifier: cast[4], AddedBy: cast[2], TimestampNS: 0}
	same := Member{Identifier: cast[5], AddedBy: cast[2], TimestampNS: 0}
	want := []Member{early, same, late, creator}
	for _, s := range []*State{stateOf(creator, late, early, same), stateOf(same, early, late, creator)} {
		if d := cmp.Diff(want, s.Members(), cmp.AllowUnexported(Identifier{})); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	if got := stateOf(creator, late, early, same).Installations(); !slices.Equal(got, []Identifier{same.Identifier, late.Identifier}) {
		t.Errorf("installations %v", got)
	}
	if got := (*State)(nil).Members(); got != nil {
		t.Errorf("members of no inbox: %v", got)
	}
}

func TestInstallationLimit(t *testing.T) {
	inboxID, want := "", testVectors(t).ClientErrors["installation_limit_10_existing"]
	_, want = stripCode(want)
	if _, rest, ok := strings.Cut(want, "InboxID "); ok {
		inboxID = rest[:64]
	}
	s := stateOf()
	s.inboxID = inboxID
	for i := range MaxInstallations {
		if err := s.CheckInstallationLimit(); err != nil {
			t.Fatalf("with %d: %v", i, err)
		}
		s.put(Member{Identifier: Installation([]byte{byte(i)}), AddedBy: cast[2]})
	}
	err := s.CheckInstallationLimit()
	if !errors.Is(err, ErrInstallationLimit) || err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestStateFromProtoRefuses(t *testing.T) {
	valid := stateOf(Member{Identifier: cast[2]}, Member{Identifier: cast[0], AddedBy: cast[2], RelyingParty: "example.org"})
	for name, damage := range map[string]func(*associations.AssociationState){
		"passkey not in hex": func(p *associations.AssociationState) {
			p.RecoveryIdentifier, p.RecoveryIdentifierKind = "x", associations.IdentifierKind_IDENTIFIER_KIND_PASSKEY
		},
		"member twice": func(p *associations.AssociationState) { p.Members = append(p.Members, p.Members[0]) },
		"no member":    func(p *associations.AssociationState) { p.Members[0].Value = nil },
		"no key":       func(p *associations.AssociationState) { p.Members[0].Key = nil },
		"other key":    func(p *associations.AssociationState) { p.Members[0].Key = p.Members[1].Key },
		"adder of no kind": func(p *associations.AssociationState) {
			p.Members[0].Value.AddedByEntity = &associations.MemberIdentifier{}
		},
		"timestamp, no adder": func(p *associations.AssociationState) { p.Members[0].Value.ClientTimestampNs = proto.Uint64(1) },
		"adder, no timestamp": func(p *associations.AssociationState) { p.Members[1].Value.ClientTimestampNs = nil },
	} {
		p := valid.Proto()
		damage(p)
		if _, err := StateFromProto(p); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := UnmarshalState([]byte{0xff}); !errors.Is(err, ErrEncoding) {
		t.Errorf("garbage: %v", err)
	}
	if got, err := StateFromProto(valid.Proto()); err != nil || !proto.Equal(got.Proto(), valid.Proto()) {
		t.Errorf("valid: %v, %v", got, err)
	}
}
