package differential

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"

	"github.com/go-xmtp/go-xmtp/mls"
)

// person is somebody whose keys the test knows, in whatever implementation.
type person struct {
	name       string
	private    []byte // signature key
	signer     mls.Signer
	client     mls.Client
	keyPackage []byte
	init, leaf []byte // private keys of the key package
}

// member is a person in the group: in our implementation, in ts-mls, or as a twin in both,
// one that only receives, since both halves have the same keys.
type member struct {
	*person
	group  *mls.Group
	store  map[string]mls.Record
	ours   bool
	theirs string // name of the state in ts-mls
	index  uint32
}

func (m *member) twin() bool { return m.ours && m.theirs != "" }

// scene is a group of both implementations.
type scene struct {
	t       testing.TB
	rng     *rand.Rand
	agent   *agent
	suite   uint16
	public  bool // handshakes as PublicMessage
	config  mls.Config
	members []*member
	gone    []*member // who were members
	signers map[string]mls.Signer
	psks    map[string][]byte
	count   int               // of persons
	pending map[string]listed // the proposals that wait, by reference
	refs    []string          // of pending, in their order
	leaving map[uint32]bool   // leaves whose members the commit under way removes
	joining int               // how many it adds
	judged  uint32            // leaf of the twin that judges what is forged
	judge   *judge
}

// known is an extension type that all members list, and a proposal type.
const (
	knownExtension = 0xff00
	knownProposal  = 0xf001
)

func newScene(t testing.TB, a *agent, j *judge, suite uint16, seed uint64, public bool) *scene {
	s := &scene{
		t: t, agent: a, suite: suite, public: public, judge: j,
		rng: rand.New(rand.NewPCG(seed, uint64(suite))), signers: map[string]mls.Signer{}, pending: map[string]listed{},
		psks: preSharedKeys,
	}
	s.config = mls.Config{PublicHandshakes: public, PreSharedKey: s.preSharedKey}
	founder := &member{person: s.person(false), ours: true, store: map[string]mls.Record{}}
	p, err := mls.New(random(16), founder.client, nil, s.config)
	if err != nil {
		t.Fatal(err)
	}
	founder.keep(p.Changes())
	founder.group = p.Done()
	s.members = []*member{founder}
	return s
}

// preSharedKeys are the external ones that everybody knows.
var preSharedKeys = map[string][]byte{"first": bytes.Repeat([]byte{1}, 32), "second": bytes.Repeat([]byte{2}, 32)}

func (s *scene) preSharedKey(id mls.PreSharedKeyID) ([]byte, error) {
	if key, ok := s.psks[string(id.ID)]; ok && id.Type == mls.PSKExternal {
		return key, nil
	}
	return nil, mls.ErrPreSharedKey
}

func (m *member) keep(changes []mls.Record) {
	for _, r := range changes {
		key := fmt.Sprintf("%d/%x", r.Kind, r.Key)
		if r.Value == nil {
			delete(m.store, key)
		} else {
			m.store[key] = mls.Record{Kind: r.Kind, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value)}
		}
	}
}

func done[T any](t testing.TB, m *member, p *mls.Pending[T], err error) T {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", m.name, err)
	}
	m.keep(p.Changes())
	return p.Done()
}

// person makes keys and a key package, by ts-mls or by us.
func (s *scene) person(byTheirs bool) *person {
	s.count++
	p := &person{name: fmt.Sprintf("person %d", s.count)}
	var err error
	if p.private, err = mls.GenerateSignatureKey(mls.CipherSuite(s.suite)); err != nil {
		s.t.Fatal(err)
	}
	if p.signer, err = mls.NewSigner(mls.CipherSuite(s.suite), p.private); err != nil {
		s.t.Fatal(err)
	}
	s.signers[string(p.signer.Public())] = p.signer
	p.client = mls.Client{
		CipherSuite: mls.CipherSuite(s.suite), Signer: p.signer, Credential: mls.BasicCredential([]byte(p.name)),
		Capabilities: mls.Capabilities{Extensions: []mls.ExtensionType{knownExtension}, Proposals: []mls.ProposalType{knownProposal}},
	}
	s.freshKeyPackage(p, byTheirs)
	return p
}

func (s *scene) freshKeyPackage(p *person, byTheirs bool) {
	if byTheirs {
		var made struct{ KeyPackage, Init, Leaf []byte }
		s.agent.do(request{
			Op: "keyPackage", Suite: s.suite, Name: []byte(p.name), Signature: p.private, Public: p.signer.Public(),
			Extensions: []uint16{knownExtension}, Proposals: []uint16{knownProposal},
		}, &made)
		p.keyPackage, p.init, p.leaf = made.KeyPackage, made.Init, made.Leaf
		return
	}
	made, err := mls.NewKeyPackage(p.client, mls.KeyPackageOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	p.keyPackage, _ = made.KeyPackage().MarshalBinary()
	p.init, p.leaf = made.InitKey(), made.LeafKey()
}

func (s *scene) parsed(p *person) *mls.KeyPackage {
	kp, err := mls.UnmarshalKeyPackage(p.keyPackage)
	if err != nil {
		s.t.Fatal(err)
	}
	return kp
}

// ask completes a request to ts-mls.
func (s *scene) ask(r request) request {
	r.Suite = s.suite
	for name, secret := range s.psks {
		r.PSKs = append(r.PSKs, psk{base64.StdEncoding.EncodeToString([]byte(name)), secret})
	}
	return r
}

// joinRequest asks ts-mls to join as p.
func (s *scene) joinRequest(op string, p *person) request {
	return s.ask(request{Op: op, KeyPackage: p.keyPackage, Init: p.init, Leaf: p.leaf, Signature: p.private})
}

func (s *scene) joinOurs(p *person, message, tree []byte) (*mls.Pending[*mls.Joined], error) {
	private, err := mls.RestoreKeyPackage(s.parsed(p), p.init, p.leaf)
	if err != nil {
		s.t.Fatal(err)
	}
	return mls.Join(message, private, p.signer, tree, s.config)
}

// admit lets newcomers in by a Welcome, which both implementations have to take.
func (s *scene) admit(welcome, tree []byte, newcomers []*member) {
	s.t.Helper()
	for _, m := range newcomers {
		p, err := s.joinOurs(m.person, welcome, tree)
		if err != nil {
			s.t.Fatalf("we can't join as %s: %v", m.name, err)
		}
		joined := done(s.t, m, p, err)
		m.index = uint32(joined.Group.OwnLeaf())
		r := s.joinRequest("join", m.person)
		r.As, r.Message, r.Tree = m.name, welcome, tree
		switch out := s.agent.one(r); {
		case !out.OK && unmergedDiffers.MatchString(out.Error):
			s.judge.meet(unmergedLeaves)
			m.ours, m.theirs = true, ""
		case !out.OK:
			s.t.Fatalf("%s can't join in ts-mls: %s", m.name, out.Error)
		case !bytes.Equal(out.Authenticator, joined.Group.EpochAuthenticator()) || out.LeafIndex != m.index:
			s.t.Fatalf("%s joins another group in ts-mls", m.name)
		case m.theirs == "":
			s.agent.one(request{Op: "drop", Suite: s.suite, On: m.name})
		}
		if m.ours {
			m.group = joined.Group
		}
		s.members = append(s.members, m)
	}
}

// newcomer is a person who may become a member: kind 0 in ours, 1 in ts-mls, 2 in both.
func (s *scene) newcomer(kind int) *member {
	m := &member{person: s.person(kind == 1 || kind == 2 && s.rng.IntN(2) == 0), store: map[string]mls.Record{}}
	m.ours = kind != 1
	if kind != 0 {
		m.theirs = m.name
	}
	return m
}

// deliver brings a message to all but its sender, and expects that all take it and agree.
func (s *scene) deliver(from *member, data []byte) {
	s.t.Helper()
	var authenticators [][]byte
	var left []*member
	for _, m := range s.members {
		if m == from {
			left = append(left, m)
			continue
		}
		removed := false
		if m.ours {
			p, err := m.group.Process(data)
			if err != nil {
				s.t.Fatalf("%s in ours: %v (seed of the scene in the test's name)\n%x", m.name, err, data)
			}
			event := done(s.t, m, p, err)
			if staged, ok := event.(*mls.StagedCommit); ok {
				if removed = staged.SelfRemoved; !removed {
					authenticators = append(authenticators, m.group.EpochAuthenticator())
				}
			}
		}
		if m.theirs != "" {
			out := s.agent.one(s.ask(request{Op: "take", On: m.theirs, Message: data}))
			if !out.OK && s.reused(m) {
				s.judge.meet(leafReused)
				out = result{OK: true, Kind: "commit", Removed: true}
			}
			if !out.OK {
				s.t.Fatalf("%s in ts-mls: %s\n%x", m.name, out.Error, data)
			}
			removed = out.Removed
			if out.Kind == "commit" && !removed {
				authenticators = append(authenticators, out.Authenticator)
			}
		}
		if removed {
			s.gone = append(s.gone, m)
			continue
		}
		left = append(left, m)
	}
	for _, a := range authenticators {
		if !bytes.Equal(a, authenticators[0]) {
			s.t.Fatal("members disagree about the epoch")
		}
	}
	s.members = left
}

// leafReused is a known difference: a member in ts-mls doesn't see that a commit removes
// it if somebody who is added by the same commit gets its leaf.
const leafReused = "leaf reused"

// endsBelowRoot marks commits whose path ends below the root. The last path secret is then
// that of a lower node, from which ts-mls goes up to the root nevertheless before it derives
// the commit secret (§12.4.2).
const endsBelowRoot = " whose path ends below the root"

// unmergedLeaves is another: ts-mls wants all ancestors of an unmerged leaf to have the same
// list of unmerged leaves, where each only has to have that one.
const unmergedLeaves = "unmerged leaves"

var unmergedDiffers = regexp.MustCompile("non-blank intermediate node must list leaf node in its unmerged_leaves")

// reused tells whether the commit under way does that to m.
func (s *scene) reused(m *member) bool { return s.leaving[m.index] && s.joining > 0 }

// some member that f likes, nil if there is none.
func (s *scene) some(f func(*member) bool) *member {
	for _, i := range s.rng.Perm(len(s.members)) {
		if f(s.members[i]) {
			return s.members[i]
		}
	}
	return nil
}

func (s *scene) twin() *member             { return s.some((*member).twin) }
func isOurs(m *member) bool                { return m.group != nil && m.theirs == "" }
func isTheirs(m *member) bool              { return m.group == nil }
func mayAct(m *member) bool                { return !m.twin() }
func (m *member) leafIndex() mls.LeafIndex { return mls.LeafIndex(m.index) }

// epoch is what the forger knows, by a twin.
func (s *scene) epoch(m *member) *epoch {
	e := &epoch{scheme: schemes[s.suite], raw: m.group.Context(), signers: s.signers, pending: s.pending, psks: s.psks, ratchets: map[uint32]ratchet{}}
	if err := unmarshal(e.raw, &e.context); err != nil {
		s.t.Fatal(err)
	}
	var err error
	if e.tree, err = fullTree(m.group.RatchetTree()); err != nil {
		s.t.Fatal(err)
	}
	var secrets struct {
		Init, SenderData, Membership, External, Resumption, ConfirmationTag []byte
		Handshakes                                                          []ratchet
	}
	s.agent.do(request{Op: "secrets", Suite: s.suite, On: m.theirs}, &secrets)
	e.initSecret, e.membershipKey, e.externalSecret = secrets.Init, secrets.Membership, secrets.External
	e.resumption, e.confirmationTag, e.senderDataSecret = secrets.Resumption, secrets.ConfirmationTag, secrets.SenderData
	for _, r := range secrets.Handshakes {
		e.ratchets[r.Leaf] = r
	}
	if hash := e.tree.hash(e.scheme, e.tree.root()); !bytes.Equal(hash, e.context.TreeHash) {
		s.t.Fatal("the forger has another tree hash than the group")
	}
	return e
}
