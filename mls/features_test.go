package mls

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/go-xmtp/go-xmtp/mls/internal/schedule"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// judge is an Authenticator that a test drives.
type judge struct {
	asked  [][]Candidate
	refuse string // the basic credential that is refused
}

var errStranger = errors.New("stranger")

func (j *judge) Authenticate(members []Candidate) []error {
	j.asked = append(j.asked, members)
	errs := make([]error, len(members))
	for i, m := range members {
		if string(m.LeafNode.Credential().Data) == j.refuse {
			errs[i] = errStranger
		}
	}
	return errs
}

// The application judges credentials in batches: everybody when it joins, new ones
// and those that change when it commits or processes (§5.3.1).
func TestAuthenticator(t *testing.T) {
	j := &judge{refuse: "mallory"}
	team := newTeam(t, testSuite, 3, Config{Authenticator: j})
	alice, bob := team[0], team[1]
	j.asked = nil
	team = addMembers(team, 2)
	if len(j.asked) != 5 || len(j.asked[0]) != 2 || len(j.asked[1]) != 2 || len(j.asked[4]) != 5 {
		t.Errorf("asked about %d, %v", len(j.asked), j.asked)
	}
	if c := j.asked[0][1]; c.Index != 4 || c.Replaces != nil {
		t.Errorf("asked about %+v", c)
	}

	// A path that changes nothing about who one is asks nothing.
	j.asked = nil
	tell(team, bob, bob.commit(CommitOptions{}))
	if len(j.asked) != 0 {
		t.Errorf("asked about %v", j.asked)
	}

	// A new credential and a new signature key, by a commit of one's own.
	renamed := bob.client
	renamed.Credential = BasicCredential([]byte("bob renamed"))
	renamed.Signer = newClient(t, testSuite, "").Signer
	out := bob.commit(CommitOptions{Leaf: &renamed})
	tell(team, bob, out)
	if len(j.asked) != len(team) {
		t.Fatalf("asked %d times", len(j.asked))
	}
	for _, asked := range j.asked {
		if len(asked) != 1 || asked[0].Index != 1 || asked[0].Replaces == nil || string(asked[0].Replaces.Credential().Data) != "member 1" {
			t.Errorf("asked about %+v", asked)
		}
	}
	bob.client = renamed
	chat(t, team)
	bob.reload()
	agree(t, team)

	// A stranger is let in by nobody.
	stranger := newMemberOf(t, testSuite, "mallory", Config{})
	kp := newKeyPackage(t, stranger.client)
	if _, err := alice.group.Commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}}); !errors.Is(err, ErrCredential) || !errors.Is(err, errStranger) {
		t.Errorf("commit that adds a stranger: %v", err)
	}
	alice.check()
	alice.config.Authenticator, alice.group.config.Authenticator = nil, nil
	out = alice.commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}})
	bob.processFails(out.Message, ErrCredential)
	bob.check()
	if _, err := Join(out.Welcome, kp, stranger.client.Signer, nil, Config{Authenticator: j}); !errors.Is(err, ErrCredential) {
		t.Errorf("joining a group with a stranger: %v", err)
	}
}

// A new signature key by Update counts once somebody commits it, also after a
// restart, and the Welcome of a commit with a new key is signed with the new one.
func TestNewSigner(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{})
	bob := team[1]
	old := bob.client.Signer
	next := bob.client
	next.Signer = newClient(t, testSuite, "").Signer
	p, err := bob.group.ProposeUpdate(&next, nil)
	proposal := done(bob, p, err)
	for _, m := range []*member{team[0], team[2]} {
		m.process(proposal)
	}
	g, err := Load(bob.store.records(), bob.config, old, next.Signer)
	if err != nil {
		t.Fatal(err)
	}
	bob.group = g
	tell(team, team[0], team[0].commit(CommitOptions{}))
	bob.client = next
	chat(t, team)

	joining := newMemberOf(t, testSuite, "new", Config{})
	kp := newKeyPackage(t, joining.client)
	again := team[0].client
	again.Signer = newClient(t, testSuite, "").Signer
	out := team[0].commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}, Leaf: &again})
	team[0].client = again
	tell(team, team[0], out)
	joining.join(out, kp)
	team = append(team, joining)
	agree(t, team)
	chat(t, team)
}

// A key of another suite, a Welcome for others, no tree, a Welcome twice.
func TestJoinRules(t *testing.T) {
	alice := newMemberOf(t, testSuite, "alice", Config{})
	alice.create()
	bob := newMemberOf(t, testSuite, "bob", Config{})
	kp := newKeyPackage(t, bob.client)
	out := alice.commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}, ExternalTree: true,
		GroupInfoExtensions: []Extension{{0xff00, []byte("info")}}})
	other := newKeyPackage(t, bob.client)
	for _, tc := range []struct {
		name   string
		kp     *PrivateKeyPackage
		signer Signer
		tree   []byte
		want   error
	}{
		{"for others", other, bob.client.Signer, out.RatchetTree, ErrNotForUs},
		{"another signer", kp, alice.client.Signer, out.RatchetTree, ErrSigner},
		{"no tree", kp, bob.client.Signer, nil, ErrNoRatchetTree},
		{"another group's tree", kp, bob.client.Signer, newTeam(t, testSuite, 1, Config{})[0].group.RatchetTree(), ErrSignature},
		{"a tree with a byte changed", kp, bob.client.Signer, append(out.RatchetTree[:len(out.RatchetTree)-1:len(out.RatchetTree)-1], out.RatchetTree[len(out.RatchetTree)-1]^1), ErrInvalidTree},
		{"half a tree", kp, bob.client.Signer, out.RatchetTree[:20], ErrMalformed},
	} {
		if _, err := Join(out.Welcome, tc.kp, tc.signer, tc.tree, Config{}); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	if _, err := Join(out.Message, kp, bob.client.Signer, nil, Config{}); !errors.Is(err, ErrWireFormat) {
		t.Errorf("a commit for a Welcome: %v", err)
	}
	p, err := Join(out.Welcome, kp, bob.client.Signer, out.RatchetTree, Config{})
	if err != nil {
		t.Fatal(err)
	}
	j := p.Result()
	if j.Sender != 0 || len(j.Extensions) != 1 || j.Extensions[0].Type != 0xff00 || string(j.Extensions[0].Data) != "info" {
		t.Errorf("%+v", j)
	}
	if _, err := j.Group.Encrypt(nil, nil); !errors.Is(err, ErrPending) {
		t.Errorf("sent before Done: %v", err)
	}
	p.Discard()
	// A last-resort key package is good for more than one Welcome.
	bob.join(out, kp)
	agree(t, []*member{alice, bob})
	if text := fmt.Sprintf("%v %+v %x %v", bob.group, j.Group, bob.group, p); bytes.Contains([]byte(text), []byte(fmt.Sprintf("%x", bob.group.EpochAuthenticator()))) {
		t.Error("a group prints its secrets")
	}
}

// External PSKs go into an epoch by commit and by Welcome; a Welcome with one that
// isn't known is refused (§8.4).
func TestPreSharedKeys(t *testing.T) {
	keys := func(id PreSharedKeyID) ([]byte, error) {
		if id.Type == PSKExternal && string(id.ID) == "shared" {
			return []byte("a key from elsewhere"), nil
		}
		return nil, errors.New("never heard of it")
	}
	psk := PreSharedKey{PreSharedKeyID{Type: PSKExternal, ID: []byte("shared")}}
	team := newTeam(t, testSuite, 2, Config{PreSharedKey: keys})
	tell(team, team[0], team[0].commit(CommitOptions{Proposals: []Proposal{psk}, OmitPath: true}))
	agree(t, team)
	team[1].process(team[0].propose(psk))
	tell(team, team[1], team[1].commit(CommitOptions{}))
	// Resumption of an epoch that is kept needs nobody's help.
	resume := PreSharedKey{PreSharedKeyID{Type: PSKResumption, Usage: ResumptionApplication, GroupID: []byte("group"), Epoch: 2}}
	tell(team, team[0], team[0].commit(CommitOptions{Proposals: []Proposal{resume}}))
	agree(t, team)

	joining := newMemberOf(t, testSuite, "new", Config{})
	kp := newKeyPackage(t, joining.client)
	out := team[0].commit(CommitOptions{Proposals: []Proposal{psk, Add{kp.KeyPackage()}}})
	tell(team, team[0], out)
	if _, err := Join(out.Welcome, kp, joining.client.Signer, nil, Config{}); !errors.Is(err, ErrPreSharedKey) {
		t.Errorf("joined without the PSK: %v", err)
	}
	joining.config.PreSharedKey = keys
	joining.join(out, kp)
	agree(t, append(team, joining))
	unknown := PreSharedKey{PreSharedKeyID{Type: PSKExternal, ID: []byte("unknown")}}
	if _, err := team[0].group.Commit(CommitOptions{Proposals: []Proposal{unknown}}); !errors.Is(err, ErrPreSharedKey) {
		t.Errorf("commit with an unknown PSK: %v", err)
	}
}

// Custom proposals need a path if the application says so.
func TestCustomProposals(t *testing.T) {
	team := newTeam(t, testSuite, 2, Config{})
	custom := CustomProposal{0xf001, []byte("data")}
	out := team[0].commit(CommitOptions{Proposals: []Proposal{custom}, OmitPath: true})
	event := team[1].process(out.Message).(*StagedCommit)
	if event.HasPath || len(event.Proposals) != 1 {
		t.Fatalf("%+v", event)
	}
	if p, ok := event.Proposals[0].Proposal.(CustomProposal); !ok || p.Type != 0xf001 || string(p.Data) != "data" {
		t.Errorf("%+v", event.Proposals[0])
	}
	needs := Config{PathProposals: []ProposalType{0xf001}}
	team[1].config, team[1].group.config = needs, needs
	p, err := team[0].group.Commit(CommitOptions{Proposals: []Proposal{custom}, OmitPath: true})
	team[1].processFails(done(team[0], p, err).Message, ErrMissingPath)
	out = team[1].commit(CommitOptions{Proposals: []Proposal{custom}, OmitPath: true})
	if !out.Staged.HasPath {
		t.Error("no path")
	}
	team[0].process(out.Message)
	agree(t, team)
}

// Contents of the lengths at which prefixes grow, in all places (§2.1.2).
func TestLengthBoundaries(t *testing.T) {
	for _, config := range []Config{{}, {PublicHandshakes: true}} {
		team := newTeam(t, testSuite, 2, config)
		for _, n := range []int{0, 1, 62, 63, 64, 65, 16382, 16383, 16384, 16385} {
			data := bytes.Repeat([]byte{'x'}, n)
			p, err := team[0].group.Encrypt(data, data)
			event, ok := team[1].process(done(team[0], p, err)).(*ApplicationMessage)
			if !ok || !bytes.Equal(event.Data, data) || !bytes.Equal(event.AuthenticatedData, data) {
				t.Fatalf("length %d: %d and %d bytes", n, len(event.Data), len(event.AuthenticatedData))
			}
			out := team[0].commit(CommitOptions{
				Proposals:         []Proposal{GroupContextExtensions{[]Extension{{0xff00, data}}}, CustomProposal{0xf001, data}},
				AuthenticatedData: data,
			})
			staged, ok := team[1].process(out.Message).(*StagedCommit)
			if !ok || !bytes.Equal(staged.AuthenticatedData, data) || !bytes.Equal(staged.Extensions[0].Data, data) {
				t.Fatalf("length %d: %+v", n, staged)
			}
			agree(t, team)
			joining := newMemberOf(t, testSuite, string(data)+"!", config)
			kp := newKeyPackage(t, joining.client)
			add := team[0].commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}})
			tell(team, team[0], add)
			joining.join(add, kp)
			agree(t, append(team, joining))
			tell(team, team[0], team[0].commit(CommitOptions{Proposals: []Proposal{Remove{joining.group.OwnLeaf()}}}))
		}
	}
}

// FuzzProcess: nothing that arrives makes a group panic, or changes it unless it is
// taken in.
func FuzzProcess(f *testing.F) {
	for _, config := range []Config{{}, {PublicHandshakes: true}} {
		team := newTeam(f, testSuite, 3, config)
		f.Add(team[0].encrypt("hello"))
		f.Add(team[0].propose(Remove{2}))
		p, err := team[0].group.Commit(CommitOptions{})
		f.Add(done(team[0], p, err).Message)
		p, err = team[2].group.Commit(CommitOptions{Proposals: []Proposal{CustomProposal{0xf001, []byte("x")}}, OmitPath: true})
		f.Add(done(team[2], p, err).Message)
	}
	public := newTeam(f, testSuite, 3, Config{PublicHandshakes: true})
	alice, bob := public[0], public[1]
	bob.process(alice.propose(Remove{2}))
	before := store{}
	before.apply(bob.group.dump())
	f.Fuzz(func(t *testing.T, in []byte) {
		// As it is, and then as one would send it who has the group's keys.
		messages := [][]byte{in}
		if m, err := UnmarshalMessage(in); err == nil && m.public != nil {
			c := m.public.content
			c.sender = Sender{}
			alice.t = t
			messages = append(messages, alice.forge(c, m.public.auth.confirmationTag))
		}
		for _, message := range messages {
			n := allocated(func() {
				if p, err := bob.group.Process(message); err == nil {
					p.Changes()
					p.Discard()
				}
			})
			if limit := uint64(256<<10 + 200*len(message)); n > limit {
				t.Errorf("%d bytes allocated for a message of %d", n, len(message))
			}
		}
		after := store{}
		after.apply(bob.group.dump())
		if len(before) != len(after) {
			t.Fatalf("%d records, before %d", len(after), len(before))
		}
		for key, r := range before {
			if !bytes.Equal(after[key].Value, r.Value) {
				t.Fatalf("record %s has changed", key)
			}
		}
	})
}

// FuzzJoin: no Welcome makes Join panic. What the members of a group could put inside
// is put inside: GroupInfo and tree are what is fuzzed.
func FuzzJoin(f *testing.F) {
	alice := newMemberOf(f, testSuite, "alice", Config{})
	alice.create(Extension{0xff00, []byte("x")})
	bob := newMemberOf(f, testSuite, "bob", Config{})
	kp := newKeyPackage(f, bob.client)
	out := alice.commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}, ExternalTree: true})
	e := alice.group.current
	f.Add(out.Welcome, out.RatchetTree, e.context.raw)
	f.Add(out.Welcome[:100], out.RatchetTree, e.context.raw)
	f.Fuzz(func(t *testing.T, welcome, tree, context []byte) {
		n := allocated(func() {
			if p, err := Join(welcome, kp, bob.client.Signer, tree, Config{}); err == nil {
				p.Discard()
			}
		})
		if limit := uint64(256<<10 + 200*(len(welcome)+len(tree))); n > limit {
			t.Errorf("%d bytes allocated for %d", n, len(welcome)+len(tree))
		}
		c, err := loadContext(context)
		if err != nil {
			return
		}
		if p, err := Join(sealWelcome(t, alice, kp, c, tree), kp, bob.client.Signer, nil, Config{}); err == nil {
			p.Discard()
		}
	})
}

// sealWelcome makes a Welcome of whatever context and tree as a member would.
func sealWelcome(t *testing.T, m *member, kp *PrivateKeyPackage, c *groupContext, tree []byte) []byte {
	t.Helper()
	e := m.group.current
	if decoded := readRatchetTree(wire.NewReader(tree), e.suite); len(tree) > 0 && decoded.width() > 0 {
		c.treeHash = decoded.rootHash()
	}
	var err error
	info := &groupInfo{context: c, extensions: []Extension{{ExtensionRatchetTree, tree}}, confirmationTag: []byte("tag")}
	info.unsigned = info.appendUnsigned(nil)
	if info.signature, err = suite.SignWithLabel(m.client.Signer, "GroupInfoTBS", info.unsigned); err != nil {
		t.Fatal(err)
	}
	zero := make([]byte, e.suite.HashSize())
	member := schedule.MemberSecret(e.suite, zero, zero)
	key := schedule.WelcomeKey(e.suite, member)
	w := &welcome{suite: testSuite}
	if w.encryptedGroupInfo, err = e.suite.Seal(&key, nil, nil, wire.AppendOpaque(info.unsigned, info.signature)); err != nil {
		t.Fatal(err)
	}
	secrets := groupSecrets{joinerSecret: zero, pathSecret: zero}
	kem, ciphertext, err := e.suite.Encryptor("Welcome", w.encryptedGroupInfo).Encrypt(nil, kp.public.initKey, secrets.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := kp.public.Ref()
	if err != nil {
		t.Fatal(err)
	}
	w.secrets = []encryptedGroupSecrets{{ref, kem, ciphertext}}
	return w.append(appendMessageHead(nil, WireFormatWelcome))
}
