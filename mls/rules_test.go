package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

const testSuite = X25519ChaChaSHA256Ed25519

// forge signs and protects content as a member would who doesn't keep to the rules.
// The tag of a commit is made up unless given.
func (m *member) forge(content *framedContent, tag []byte) []byte {
	m.t.Helper()
	e := m.group.current
	content.groupID, content.epoch = e.context.groupID, e.context.epoch
	if content.sender.Type == 0 {
		content.sender = memberAt(e.own)
	}
	content.raw = content.append(nil)
	auth := contentAuth{confirmationTag: tag}
	if tag == nil {
		auth.confirmationTag = make([]byte, e.suite.HashSize())
	}
	var err error
	if auth.signature, err = signContent(m.client.Signer, WireFormatPublicMessage, content.raw, nil, e.context.raw); err != nil {
		m.t.Fatal(err)
	}
	return e.protectPublic(content, auth)
}

func (m *member) forgeCommit(c *commit) []byte {
	m.t.Helper()
	return m.forge(&framedContent{contentType: ContentTypeCommit, commit: c}, nil)
}

func (m *member) forgeProposal(p Proposal) []byte {
	m.t.Helper()
	return m.forge(&framedContent{contentType: ContentTypeProposal, proposal: p}, nil)
}

func byValue(proposals ...Proposal) *commit {
	c := new(commit)
	for _, p := range proposals {
		c.proposals = append(c.proposals, proposalOrRef{proposal: p})
	}
	return c
}

// signedKeyPackage makes a key package with whatever change.
func signedKeyPackage(t *testing.T, c Client, change func(kp *KeyPackage, leaf *leafFields)) *KeyPackage {
	t.Helper()
	s, err := lookupSuite(testSuite, nil)
	if err != nil {
		t.Fatal(err)
	}
	initKey, err := s.GenerateKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := s.GenerateKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	f := c.leaf()
	f.encryptionKey, f.source, f.lifetime = leafKey.Public, LeafNodeFromKeyPackage, Lifetime{0, 1 << 62}
	kp := &KeyPackage{version: MLS10, suite: testSuite, initKey: initKey.Public}
	if change != nil {
		change(kp, &f)
	}
	if kp.leaf, err = f.sign(c.Signer, nil, 0); err != nil {
		t.Fatal(err)
	}
	b := kp.appendUnsigned(nil)
	sig, err := suite.SignWithLabel(c.Signer, "KeyPackageTBS", b)
	if err != nil {
		t.Fatal(err)
	}
	made, err := UnmarshalKeyPackage(wire.AppendOpaque(b, sig))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// Each rule about what a commit may hold (§12.2, §12.1, §7.3): a commit that breaks
// it is refused by its own error.
func TestProposalRules(t *testing.T) {
	team := newTeam(t, testSuite, 5, Config{PublicHandshakes: true})
	evil, bob := team[4], team[1]
	bob.shadow = newShadow(bob, GroupInfoOptions{})
	newClientOf := func() Client { return newMemberOf(t, testSuite, "new", Config{}).client }
	add := func(change func(kp *KeyPackage, leaf *leafFields)) Proposal {
		return Add{signedKeyPackage(t, newClientOf(), change)}
	}
	twice := signedKeyPackage(t, newClientOf(), nil)
	present, _ := team[2].group.Member(2)
	psk := PreSharedKey{PreSharedKeyID{Type: PSKExternal, ID: []byte("psk"), Nonce: make([]byte, 32)}}
	resume := PreSharedKey{PreSharedKeyID{Type: PSKResumption, Usage: ResumptionReInit, Nonce: make([]byte, 32)}}
	short := PreSharedKey{PreSharedKeyID{Type: PSKExternal, ID: []byte("psk"), Nonce: make([]byte, 31)}}
	required := func(c RequiredCapabilities) Proposal {
		return GroupContextExtensions{[]Extension{c.Extension()}}
	}
	for _, tc := range []struct {
		name      string
		proposals []Proposal
		want      error
	}{
		{"remove of the committer", []Proposal{Remove{4}}, ErrInvalidProposals},
		{"remove twice", []Proposal{Remove{2}, Remove{2}}, ErrInvalidProposals},
		{"remove of a blank leaf", []Proposal{Remove{5}}, ErrInvalidProposals},
		{"remove beyond the tree", []Proposal{Remove{1 << 30}}, ErrInvalidProposals},
		{"update by value", []Proposal{Update{present.LeafNode}}, ErrInvalidProposals},
		{"self remove by value", []Proposal{SelfRemove{}}, ErrInvalidProposals},
		{"external init", []Proposal{ExternalInit{[]byte("kem")}}, ErrInvalidProposals},
		{"reinit with another", []Proposal{ReInit{GroupID: []byte("g"), Version: MLS10, CipherSuite: testSuite}, Remove{2}}, ErrInvalidProposals},
		{"app data update", []Proposal{AppDataUpdate{Component: 1}}, ErrUnsupportedProposal},
		{"app ephemeral that nobody lists", []Proposal{AppEphemeral{Component: 1}}, ErrUnsupportedProposal},
		{"custom proposal that nobody lists", []Proposal{CustomProposal{0xf002, nil}}, ErrUnsupportedProposal},
		{"no path with remove", []Proposal{Remove{2}}, ErrMissingPath},
		{"no path with extensions", []Proposal{GroupContextExtensions{}}, ErrMissingPath},
		{"no path and nothing else", nil, ErrMissingPath},

		{"extensions twice", []Proposal{GroupContextExtensions{}, GroupContextExtensions{}}, ErrInvalidProposals},
		{"extension type twice", []Proposal{GroupContextExtensions{[]Extension{{0xff00, nil}, {0xff00, nil}}}}, ErrDuplicateExtension},
		{"extension that nobody lists", []Proposal{GroupContextExtensions{[]Extension{{0xff02, nil}}}}, ErrCapabilities},
		{"requirements malformed", []Proposal{GroupContextExtensions{[]Extension{{ExtensionRequiredCapabilities, []byte{1}}}}}, ErrMalformed},
		{"required extension", []Proposal{required(RequiredCapabilities{Extensions: []ExtensionType{0xff02}})}, ErrCapabilities},
		{"required proposal", []Proposal{required(RequiredCapabilities{Proposals: []ProposalType{0xf002}})}, ErrCapabilities},
		{"required credential", []Proposal{required(RequiredCapabilities{Credentials: []CredentialType{CredentialX509}})}, ErrCapabilities},

		{"PSK twice", []Proposal{psk, psk}, ErrInvalidProposals},
		{"PSK of a reinit", []Proposal{resume}, ErrInvalidProposals},
		{"PSK nonce of 31 bytes", []Proposal{short}, ErrInvalidProposals},
		{"PSK unknown", []Proposal{psk}, ErrPreSharedKey},

		{"same client twice", []Proposal{Add{twice}, Add{twice}}, ErrDuplicateKey},
		{"client that is here", []Proposal{Add{signedKeyPackage(t, team[2].client, nil)}}, ErrDuplicateKey},
		{"encryption key that is here", []Proposal{add(func(_ *KeyPackage, f *leafFields) { f.encryptionKey = present.LeafNode.EncryptionKey() })}, ErrDuplicateKey},
		{"encryption key of 31 bytes", []Proposal{add(func(_ *KeyPackage, f *leafFields) { f.encryptionKey = make([]byte, 31) })}, ErrInvalidProposals},
		{"key package of another suite", []Proposal{add(func(kp *KeyPackage, _ *leafFields) { kp.suite = 1 })}, ErrUnsupportedCipherSuite},
		{"key package of another version", []Proposal{add(func(kp *KeyPackage, _ *leafFields) { kp.version = 2 })}, ErrUnsupportedVersion},
		{"key package source", []Proposal{add(func(_ *KeyPackage, f *leafFields) { f.source = LeafNodeFromUpdate })}, ErrLeafNodeSource},
		{"key package signature", []Proposal{add(func(kp *KeyPackage, f *leafFields) {
			f.signatureKey = bytes.Clone(present.LeafNode.SignatureKey())
			f.signatureKey[31] ^= 1
		})}, ErrLeafNodeSignature},
		{"init key", []Proposal{add(func(kp *KeyPackage, f *leafFields) { kp.initKey = f.encryptionKey })}, ErrInitKey},
		{"credential type that the leaf doesn't list", []Proposal{add(func(_ *KeyPackage, f *leafFields) { f.credentials = nil })}, ErrCapabilities},
		{"credential type that the others don't list", []Proposal{add(func(_ *KeyPackage, f *leafFields) {
			f.credential = Credential{CredentialX509, nil}
			f.credentials = wire.Uint16s{0, 1, 0, 2}
		})}, ErrCapabilities},
		{"leaf extension not listed", []Proposal{add(func(_ *KeyPackage, f *leafFields) { f.extensions = appendExtensions(nil, []Extension{{0xff02, nil}}) })}, ErrExtensionNotListed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bob.processFails(evil.forgeCommit(byValue(tc.proposals...)), tc.want)
			bob.check()
		})
	}
	bob.processFails(evil.forgeCommit(&commit{proposals: []proposalOrRef{{ref: []byte("unknown")}}}), ErrUnknownProposal)
}

// The group asks something of new members that the old ones have.
func TestRequiredCapabilities(t *testing.T) {
	needs := RequiredCapabilities{Extensions: []ExtensionType{0xff00}, Proposals: []ProposalType{0xf001}, Credentials: []CredentialType{CredentialBasic}}
	alice := newMemberOf(t, testSuite, "alice", Config{})
	alice.create(needs.Extension(), Extension{0xff01, []byte("data")})
	for _, tc := range []struct {
		name string
		caps Capabilities
		want error
	}{
		{"all", Capabilities{Extensions: []ExtensionType{0xff00, 0xff01}, Proposals: []ProposalType{0xf001}}, nil},
		{"no required extension", Capabilities{Extensions: []ExtensionType{0xff01}, Proposals: []ProposalType{0xf001}}, ErrCapabilities},
		{"no required proposal", Capabilities{Extensions: []ExtensionType{0xff00, 0xff01}}, ErrCapabilities},
		{"no group extension", Capabilities{Extensions: []ExtensionType{0xff00}, Proposals: []ProposalType{0xf001}}, ErrCapabilities},
		{"another suite", Capabilities{CipherSuites: []CipherSuite{1}, Extensions: []ExtensionType{0xff00, 0xff01}, Proposals: []ProposalType{0xf001}}, ErrCapabilities},
		{"another version", Capabilities{Versions: []ProtocolVersion{2}, Extensions: []ExtensionType{0xff00, 0xff01}, Proposals: []ProposalType{0xf001}}, ErrCapabilities},
	} {
		c := newClient(t, testSuite, "bob")
		c.Capabilities = tc.caps
		p, err := alice.group.Commit(CommitOptions{Proposals: []Proposal{Add{newKeyPackage(t, c).KeyPackage()}}})
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if p != nil {
			p.Discard()
		}
		alice.check()
	}
	c := newClient(t, testSuite, "mallory")
	if _, err := New([]byte("g"), c, []Extension{needs.Extension()}, Config{}); !errors.Is(err, ErrCapabilities) {
		t.Errorf("creator without the required capabilities: %v", err)
	}
	if _, err := New([]byte("g"), c, []Extension{{0xff00, nil}, {0xff00, nil}}, Config{}); !errors.Is(err, ErrDuplicateExtension) {
		t.Errorf("group with an extension twice: %v", err)
	}
}

// Lifetimes bind the one who adds, not those who process it (§7.3).
func TestLifetimeOfAdd(t *testing.T) {
	now := time.Unix(1e9, 0)
	team := newTeam(t, testSuite, 2, Config{PublicHandshakes: true})
	c := newMemberOf(t, testSuite, "new", Config{}).client
	kp := signedKeyPackage(t, c, func(_ *KeyPackage, f *leafFields) { f.lifetime = Lifetime{1e9, 1e9 + 10} })
	for _, seconds := range []time.Duration{-1, 0, 9, 10} {
		team[0].config.Now = func() time.Time { return now.Add(seconds * time.Second) }
		team[0].group.config = team[0].config
		p, err := team[0].group.Commit(CommitOptions{Proposals: []Proposal{Add{kp}}})
		if inside := seconds >= 0 && seconds < 10; inside != (err == nil) || !inside && !errors.Is(err, ErrLifetime) {
			t.Errorf("%d s: %v", seconds, err)
		}
		if p != nil {
			team[1].process(p.Result().Message) // by the real clock it is long over
			p.Discard()
			team[1] = nil
		}
		if team[1] == nil {
			break
		}
	}
	if _, err := team[0].group.Propose(Add{signedKeyPackage(t, c, func(_ *KeyPackage, f *leafFields) { f.lifetime = Lifetime{1, 2} })}, nil); !errors.Is(err, ErrLifetime) {
		t.Errorf("expired key package proposed: %v", err)
	}
}

// Proposals by reference: what one member may say about itself, and what clashes
// when it is committed (§12.1.2, §12.2).
func TestProposalsByReference(t *testing.T) {
	team := newTeam(t, testSuite, 4, Config{PublicHandshakes: true})
	evil, bob, committer := team[3], team[1], team[0]
	bob.shadow = newShadow(bob, GroupInfoOptions{})
	leaf := func(change func(f *leafFields)) Proposal {
		m, _ := evil.group.Member(3)
		f := m.LeafNode.fields()
		pair, err := evil.group.current.suite.GenerateKeyPair()
		if err != nil {
			t.Fatal(err)
		}
		f.source, f.encryptionKey = LeafNodeFromUpdate, pair.Public
		change(&f)
		node, err := f.sign(evil.client.Signer, evil.group.ID(), 3)
		if err != nil {
			t.Fatal(err)
		}
		return Update{node}
	}
	for _, tc := range []struct {
		name string
		p    Proposal
		want error
	}{
		{"source", leaf(func(f *leafFields) { f.source = LeafNodeFromCommit }), ErrLeafNodeSource},
		{"signature", leaf(func(f *leafFields) { f.signatureKey = make([]byte, 32) }), ErrLeafNodeSignature},
		{"remove of nobody", Remove{9}, ErrInvalidProposals},
		{"reinit to no version", ReInit{}, ErrInvalidProposals},
	} {
		bob.processFails(evil.forgeProposal(tc.p), tc.want)
	}

	// A leaf signed for another place is no good here.
	m, _ := evil.group.Member(3)
	f := m.LeafNode.fields()
	f.source, f.encryptionKey = LeafNodeFromUpdate, bytes.Repeat([]byte{7}, 32)
	elsewhere, err := f.sign(evil.client.Signer, []byte("another group"), 3)
	if err != nil {
		t.Fatal(err)
	}
	bob.processFails(evil.forgeProposal(Update{elsewhere}), ErrLeafNodeSignature)

	// Two updates and a remove of one leaf: a committer picks what goes together, and
	// others refuse it all at once.
	p1, err := evil.group.ProposeUpdate(nil, nil)
	first := done(evil, p1, err)
	p2, err := evil.group.ProposeUpdate(nil, nil)
	second := done(evil, p2, err)
	remove := team[2].propose(Remove{1})
	extensions := team[2].propose(GroupContextExtensions{[]Extension{{0xff00, []byte("old")}}})
	newer := team[2].propose(GroupContextExtensions{[]Extension{{0xff00, []byte("new")}}})
	again := team[2].propose(Remove{1})
	for _, message := range [][]byte{first, second, remove, extensions, newer, again} {
		for _, m := range team {
			m.process(message)
		}
	}
	all := new(commit)
	for _, p := range bob.group.proposals {
		all.proposals = append(all.proposals, proposalOrRef{ref: p.ref})
	}
	team[2].processFails(committer.forgeCommit(all), ErrInvalidProposals)
	update := &commit{proposals: []proposalOrRef{{ref: bob.group.proposals[0].ref}}}
	team[2].processFails(evil.forgeCommit(update), ErrInvalidProposals) // its own update

	out := committer.commit(CommitOptions{})
	var kinds []string
	for _, p := range out.Staged.Proposals {
		kinds = append(kinds, fmt.Sprintf("%T", p.Proposal))
	}
	if want := []string{"mls.Update", "mls.Remove", "mls.GroupContextExtensions"}; !slices.Equal(kinds, want) {
		t.Errorf("committed %v, want %v", kinds, want)
	}
	for _, m := range team[1:] {
		m.process(out.Message)
	}
	if bob.group.Active() {
		t.Error("the removed member is active")
	}
	rest := []*member{team[0], team[2], team[3]}
	agree(t, rest)
	chat(t, rest)
	if data, _ := evil.group.Extension(0xff00); string(data) != "new" {
		t.Errorf("extension is %q", data)
	}
}

// Proposals are judged together (§12.2): one that isn't valid by itself waits for what may
// be committed with it. A commit of it alone is refused, and our own leaves it out.
func TestProposalsTogether(t *testing.T) {
	leaf := func(evil *member, change func(f *leafFields)) Proposal {
		m, _ := evil.group.Member(3)
		f := m.LeafNode.fields()
		pair, err := evil.group.current.suite.GenerateKeyPair()
		if err != nil {
			t.Fatal(err)
		}
		f.source, f.encryptionKey = LeafNodeFromUpdate, pair.Public
		change(&f)
		node, err := f.sign(evil.client.Signer, evil.group.ID(), 3)
		if err != nil {
			t.Fatal(err)
		}
		return Update{node}
	}
	add := func(c Client, change func(kp *KeyPackage, f *leafFields)) Proposal {
		return Add{signedKeyPackage(t, c, change)}
	}
	nobodys := RequiredCapabilities{Extensions: []ExtensionType{0xff02}}
	for _, tc := range []struct {
		name string
		p    func(team []*member) Proposal
		want error // nil if only we must not commit it
	}{
		{"update with the old encryption key", func(team []*member) Proposal {
			own, _ := team[3].group.Member(3)
			return leaf(team[3], func(f *leafFields) { f.encryptionKey = own.LeafNode.EncryptionKey() })
		}, ErrDuplicateKey},
		{"update with another's signature key", func(team []*member) Proposal {
			other, _ := team[3].group.Member(1)
			return leaf(team[3], func(f *leafFields) { f.signatureKey = other.LeafNode.SignatureKey() })
		}, ErrDuplicateKey},
		{"update without its credential type", func(team []*member) Proposal {
			return leaf(team[3], func(f *leafFields) { f.credentials = nil })
		}, ErrCapabilities},
		{"add of a member", func(team []*member) Proposal { return add(team[2].client, nil) }, ErrDuplicateKey},
		{"requirement that nobody meets", func([]*member) Proposal {
			return GroupContextExtensions{[]Extension{nobodys.Extension()}}
		}, ErrCapabilities},
		{"add of an expired key package", func([]*member) Proposal {
			return add(newMemberOf(t, testSuite, "late", Config{}).client, func(_ *KeyPackage, f *leafFields) { f.lifetime = Lifetime{1, 2} })
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			team := newTeam(t, testSuite, 4, Config{PublicHandshakes: true})
			alice, bob, carol := team[0], team[1], team[2]
			bad := team[3].forgeProposal(tc.p(team))
			good := carol.propose(GroupContextExtensions{[]Extension{{0xff00, []byte("new")}}})
			if tc.want == ErrCapabilities {
				good = carol.propose(Remove{1})
			}
			for _, m := range team[:3] {
				m.process(bad)
				m.process(good)
			}
			if tc.want != nil {
				bob.processFails(alice.forgeCommit(&commit{proposals: []proposalOrRef{{ref: bob.group.proposals[0].ref}}}), tc.want)
			}
			out := alice.commit(CommitOptions{})
			if n := len(out.Staged.Proposals); n != 1 {
				t.Fatalf("%d proposals are committed: %+v", n, out.Staged.Proposals)
			}
			bob.process(out.Message)
			carol.process(out.Message)
		})
	}

	// A member who comes back with the same signature key: its Add arrives before its Remove.
	team := newTeam(t, testSuite, 4, Config{PublicHandshakes: true})
	alice, bob, carol, dave := team[0], team[1], team[2], team[3]
	back := newKeyPackage(t, carol.client)
	forged := dave.forgeProposal(Add{back.KeyPackage()})
	removal := bob.propose(Remove{2})
	for _, m := range []*member{alice, bob, carol} {
		m.process(forged)
		m.process(removal)
	}
	out := alice.commit(CommitOptions{})
	if n := len(out.Staged.Proposals); n != 2 {
		t.Fatalf("%d proposals are committed, want the Add and the Remove", n)
	}
	bob.process(out.Message)
	carol.process(out.Message)
	if carol.group.Active() {
		t.Error("carol is still a member")
	}
	again := &member{t: t, client: carol.client, store: store{}, config: carol.config}
	again.join(out, back)
	alice.process(out.Message)
	agree(t, []*member{alice, bob, again})
}

// Each rule about the path of a commit (§7.5, §12.4.2).
func TestPathRules(t *testing.T) {
	team := newTeam(t, testSuite, 5, Config{PublicHandshakes: true})
	for _, m := range team {
		out := m.commit(CommitOptions{})
		for _, other := range team {
			if other != m {
				other.process(out.Message)
			}
		}
	}
	evil, bob := team[4], team[1]
	bob.shadow = newShadow(bob, GroupInfoOptions{})
	p, err := evil.group.Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	honest := p.Result().Message
	old, _ := evil.group.Member(4)
	p.Discard()
	resign := func(path *updatePath, change func(f *leafFields)) {
		f := path.leaf.fields()
		change(&f)
		leaf, err := f.sign(evil.client.Signer, evil.group.ID(), 4)
		if err != nil {
			t.Fatal(err)
		}
		path.leaf = leaf
	}
	for _, tc := range []struct {
		name   string
		change func(path *updatePath)
		want   error
	}{
		{"nothing but the tag", func(*updatePath) {}, ErrConfirmationTag},
		{"a node less", func(p *updatePath) { p.nodes = p.nodes[1:] }, ErrInvalidPath},
		{"a node more", func(p *updatePath) { p.nodes = append(p.nodes, p.nodes[0]) }, ErrInvalidPath},
		{"a ciphertext more", func(p *updatePath) {
			p.nodes[0].ciphertexts = append(bytes.Clone(p.nodes[0].ciphertexts), p.nodes[0].ciphertexts...)
		}, ErrInvalidPath},
		{"no ciphertexts", func(p *updatePath) { p.nodes[0].ciphertexts = nil }, ErrInvalidPath},
		{"ciphertext", func(p *updatePath) {
			c := bytes.Clone(p.nodes[0].ciphertexts)
			c[len(c)-1] ^= 1
			p.nodes[0].ciphertexts = c
		}, ErrInvalidPath},
		{"key twice", func(p *updatePath) {
			p.nodes = append(p.nodes[:0:0], p.nodes...)
			p.nodes[0].encryptionKey = p.leaf.EncryptionKey()
		}, ErrDuplicateKey},
		{"key of a node", func(p *updatePath) {
			p.nodes = append(p.nodes[:0:0], p.nodes...)
			p.nodes[0].encryptionKey = bob.group.tree().encryptionKey(1)
		}, ErrDuplicateKey},
		{"key of 31 bytes", func(p *updatePath) {
			p.nodes = append(p.nodes[:0:0], p.nodes...)
			p.nodes[0].encryptionKey = make([]byte, 31)
		}, ErrInvalidPath},
		{"old leaf key", func(p *updatePath) { resign(p, func(f *leafFields) { f.encryptionKey = old.LeafNode.EncryptionKey() }) }, ErrDuplicateKey},
		{"another's signature key", func(p *updatePath) {
			resign(p, func(f *leafFields) { f.signatureKey = bob.client.Signer.Public() })
		}, ErrDuplicateKey},
		{"source", func(p *updatePath) { resign(p, func(f *leafFields) { f.source = LeafNodeFromUpdate }) }, ErrLeafNodeSource},
		{"parent hash", func(p *updatePath) { resign(p, func(f *leafFields) { f.parentHash = make([]byte, 32) }) }, ErrInvalidPath},
		{"no parent hash", func(p *updatePath) { resign(p, func(f *leafFields) { f.parentHash = nil }) }, ErrInvalidPath},
		{"capabilities", func(p *updatePath) { resign(p, func(f *leafFields) { f.credentials = nil }) }, ErrCapabilities},
		{"leaf signature", func(p *updatePath) {
			f := p.leaf.fields()
			f.signature = make([]byte, 64)
			p.leaf = LeafNode{f.append(nil)}
		}, ErrLeafNodeSignature},
		{"key that the secret doesn't give", func(p *updatePath) {
			// The leaf's parent hash is made to fit, so that only the secret tells.
			pair, err := bob.group.current.suite.GenerateKeyPair()
			if err != nil {
				t.Fatal(err)
			}
			p.nodes = append(p.nodes[:0:0], p.nodes...)
			p.nodes[0].encryptionKey = pair.Public
			tree := bob.group.tree().clone()
			hash := tree.mergePath(4, tree.filteredPath(4), p.nodes)
			resign(p, func(f *leafFields) { f.parentHash = hash })
		}, ErrInvalidPath},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := UnmarshalMessage(honest)
			if err != nil {
				t.Fatal(err)
			}
			c := m.public.content
			tc.change(c.commit.path)
			bob.processFails(evil.forge(&framedContent{contentType: ContentTypeCommit, commit: c.commit}, nil), tc.want)
			bob.check()
		})
	}
	bob.process(honest)
}

// Each rule about who may send what, and how (§6).
func TestFramingRules(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{PublicHandshakes: true})
	alice, bob := team[0], team[1]
	bob.shadow = newShadow(bob, GroupInfoOptions{})
	proposal := alice.forgeProposal(Remove{2})
	change := func(message []byte, f func(m *Message)) []byte {
		m, err := UnmarshalMessage(message)
		if err != nil {
			t.Fatal(err)
		}
		f(m)
		return m.append(nil)
	}
	// tagged makes a good membership tag for a message that was changed.
	tagged := func(message []byte, f func(m *Message)) []byte {
		return change(message, func(m *Message) {
			f(m)
			m.public.content.raw = m.public.content.append(nil)
			m.public.membershipTag = bob.group.current.membershipTag(m.public)
		})
	}
	kp, _ := newKeyPackage(t, alice.client).KeyPackage().MarshalBinary()
	for _, tc := range []struct {
		name    string
		message []byte
		want    error
	}{
		{"application data", alice.forge(&framedContent{contentType: ContentTypeApplication}, nil), ErrWireFormat},
		{"key package", append(appendMessageHead(nil, WireFormatKeyPackage), kp...), ErrWireFormat},
		{"external sender", alice.forge(&framedContent{contentType: ContentTypeProposal, proposal: Remove{2}, sender: Sender{SenderExternal, 0}}, nil), ErrSender},
		{"new member's commit", alice.forge(&framedContent{contentType: ContentTypeCommit, commit: byValue(), sender: Sender{Type: SenderNewMemberCommit}}, nil), ErrMissingPath},
		{"blank leaf", alice.forge(&framedContent{contentType: ContentTypeProposal, proposal: Remove{2}, sender: Sender{SenderMember, 3}}, nil), ErrSender},
		{"leaf beyond the tree", alice.forge(&framedContent{contentType: ContentTypeProposal, proposal: Remove{2}, sender: Sender{SenderMember, 1 << 31}}, nil), ErrSender},
		{"another's leaf", alice.forge(&framedContent{contentType: ContentTypeProposal, proposal: Remove{1}, sender: Sender{SenderMember, 2}}, nil), ErrSignature},
		{"tag", change(proposal, func(m *Message) { m.public.membershipTag = make([]byte, 32) }), ErrMembershipTag},
		{"tag too short", change(proposal, func(m *Message) { m.public.membershipTag = m.public.membershipTag[:31] }), ErrMembershipTag},
		{"no tag", change(proposal, func(m *Message) { m.public.membershipTag = nil }), ErrMembershipTag},
		{"signature", tagged(proposal, func(m *Message) { m.public.auth.signature[5] ^= 1 }), ErrSignature},
		{"content", tagged(proposal, func(m *Message) { m.public.content.proposal = Remove{1} }), ErrSignature},
		{"another group", tagged(proposal, func(m *Message) { m.public.content.groupID = []byte("other") }), ErrWrongGroup},
		{"next epoch", tagged(proposal, func(m *Message) { m.public.content.epoch++ }), ErrWrongEpoch},
		{"last epoch", tagged(proposal, func(m *Message) { m.public.content.epoch-- }), ErrWrongEpoch},
		{"trailing byte", append(bytes.Clone(proposal), 0), ErrTrailingData},
	} {
		t.Run(tc.name, func(t *testing.T) { bob.processFails(tc.message, tc.want) })
	}
	bob.process(proposal)
	bob.process(proposal) // the same again is no harm
	if n := len(bob.group.proposals); n != 1 {
		t.Errorf("%d proposals wait", n)
	}

	// A commit can't be moved from one wire format to the other.
	private := newTeam(t, testSuite, 2, Config{OneFormat: true})
	private[1].processFails(private[0].forgeCommit(byValue(GroupContextExtensions{})), ErrWireFormat)

}

// Padding has to be zero (§6.3.1), which only one with the message's key can break.
func TestPadding(t *testing.T) {
	const padding = 32
	config := Config{Padding: func(c ContentType, n int) int {
		if c == ContentTypeApplication {
			return padding - n%padding
		}
		return 0
	}}
	team := newTeam(t, testSuite, 2, config)
	bob := team[1]
	if a, b := team[0].encrypt("short"), team[0].encrypt("longer by some"); len(a) != len(b) {
		t.Errorf("padded messages of %d and %d bytes", len(a), len(b))
	}
	message := team[0].encrypt("hello")
	m, err := UnmarshalMessage(message)
	if err != nil {
		t.Fatal(err)
	}
	e := bob.group.current
	from, err := m.private.openSenderData(e.suite, e.secrets.SenderData)
	if err != nil {
		t.Fatal(err)
	}
	use, err := e.messages.Key(from.leaf, secrettree.Application, from.generation)
	if err != nil {
		t.Fatal(err)
	}
	defer use.Drop()
	aad := append(wire.AppendUint64(wire.AppendOpaque(nil, m.private.groupID), m.private.epoch), byte(m.private.contentType), 0)
	use.Key().Guard(from.guard)
	plain, err := e.suite.Open(use.Key(), nil, aad, m.private.ciphertext)
	if err != nil {
		t.Fatal(err)
	}
	plain[len(plain)-1] = 1
	if m.private.ciphertext, err = e.suite.Seal(use.Key(), nil, aad, plain); err != nil {
		t.Fatal(err)
	}
	bob.processFails(m.append(nil), ErrPadding)
	bob.reads(message, "hello")
}
