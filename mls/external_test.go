package mls

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"
)

// groupInfo is what others need to join.
func (m *member) groupInfo(opts GroupInfoOptions) []byte {
	m.t.Helper()
	info, err := m.group.GroupInfo(opts)
	if err != nil {
		m.t.Fatal(err)
	}
	return info
}

// joinExternal joins by a commit, which it returns.
func (m *member) joinExternal(info []byte, opts ExternalJoinOptions) []byte {
	m.t.Helper()
	m.group, m.store = nil, store{}
	p, err := JoinExternal(info, m.client, opts, m.config)
	x := done(m, p, err)
	m.group = x.Group
	m.check()
	return x.Message
}

// Who has a GroupInfo joins by a commit of its own, in any suite, into blank places
// and new ones, with the tree inside or beside (§12.4.3.2).
func TestExternalJoin(t *testing.T) {
	for _, id := range allSuites {
		t.Run(fmt.Sprint("suite ", id), func(t *testing.T) {
			team := newTeam(t, id, 3, Config{})
			for i := range 4 {
				from := team[i%len(team)]
				if i == 1 { // a blank place in the middle
					tell(team, team[0], team[0].commit(CommitOptions{Proposals: []Proposal{Remove{1}}}))
					team = append(team[:1], team[2:]...)
					from = team[0]
				}
				joining := newMemberOf(t, id, fmt.Sprint("joined ", i), Config{})
				opts := ExternalJoinOptions{AuthenticatedData: []byte("hello")}
				if i == 2 {
					opts.RatchetTree = from.group.RatchetTree()
				}
				message := joining.joinExternal(from.groupInfo(GroupInfoOptions{ExternalTree: i == 2}), opts)
				for _, m := range team {
					m.reload()
					s, ok := m.process(message).(*StagedCommit)
					if !ok || !s.External || s.Own || s.Committer != joining.group.OwnLeaf() || string(s.AuthenticatedData) != "hello" ||
						len(s.Added) != 1 || len(s.Updated) != 0 || len(s.Removed) != 0 || !bytes.Equal(s.EpochAuthenticator(), joining.group.EpochAuthenticator()) {
						t.Fatalf("%+v", s)
					}
				}
				if own, ok := joining.process(message).(*OwnMessage); !ok || own.Epoch != joining.group.Epoch()-1 {
					t.Errorf("own commit is %v", own)
				}
				joining.reload()
				if _, ok := joining.process(message).(*OwnMessage); !ok {
					t.Error("own commit isn't known after a restart")
				}
				team = append(team, joining)
				agree(t, team)
				chat(t, team)
			}
			// All of them can commit, and let others in by Welcome.
			for _, m := range team {
				tell(team, m, m.commit(CommitOptions{}))
			}
			team = addMembers(team, 2)
			agree(t, team)
			chat(t, team)
		})
	}
}

// Nothing leads out of the last epoch: neither a commit of a member nor that of who joins
// begin the numbers again.
func TestLastEpoch(t *testing.T) {
	team := newTeam(t, testSuite, 2, Config{PublicHandshakes: true})
	for _, m := range team {
		c := *m.group.current.context
		c.epoch = math.MaxUint64 - 1
		c.raw = c.append(nil)
		m.group.current.context = &c
		m.store = store{}
		m.store.apply(m.group.dump())
	}
	tell(team, team[0], team[0].commit(CommitOptions{}))
	agree(t, team)
	if n := team[1].group.Epoch(); n != math.MaxUint64 {
		t.Fatalf("epoch %d", n)
	}
	if _, err := team[0].group.Commit(CommitOptions{}); !errors.Is(err, ErrWrongEpoch) {
		t.Errorf("commit: %v", err)
	}
	joining := newMemberOf(t, testSuite, "joining", Config{})
	if _, err := JoinExternal(team[0].groupInfo(GroupInfoOptions{}), joining.client, ExternalJoinOptions{}, joining.config); !errors.Is(err, ErrWrongEpoch) {
		t.Errorf("external join: %v", err)
	}
	chat(t, team)
}

// A member who has lost its state takes its own place again, and the Authenticator is
// asked whether it is the same (§12.2).
func TestResync(t *testing.T) {
	j := &judge{refuse: "mallory"}
	team := newTeam(t, testSuite, 4, Config{Authenticator: j})
	bob := team[1]
	before := bob.group.OwnLeaf()
	j.asked = nil
	message := bob.joinExternal(team[0].groupInfo(GroupInfoOptions{}), ExternalJoinOptions{
		Replaces: func(m Member) bool { return bytes.Equal(m.LeafNode.SignatureKey(), bob.client.Signer.Public()) },
	})
	for _, m := range []*member{team[0], team[2], team[3]} {
		s, ok := m.process(message).(*StagedCommit)
		if !ok || !s.External || s.Committer != before || len(s.Added) != 1 || len(s.Removed) != 1 || s.Removed[0].Index != before {
			t.Fatalf("%+v", s)
		}
	}
	if len(j.asked) != 4 {
		t.Fatalf("asked %d times", len(j.asked))
	}
	for _, asked := range j.asked[1:] {
		if len(asked) != 1 || asked[0].Index != before || asked[0].Replaces == nil {
			t.Errorf("asked about %+v", asked)
		}
	}
	agree(t, team)
	chat(t, team)

	// Removed by somebody who takes the place of another, one is out.
	mallory := newMemberOf(t, testSuite, "mallory", Config{})
	message = mallory.joinExternal(team[0].groupInfo(GroupInfoOptions{}), ExternalJoinOptions{
		Replaces: func(m Member) bool { return m.Index == 2 },
	})
	for _, m := range team {
		if m != team[2] {
			m.processFails(message, ErrCredential)
		}
	}
	mallory.client.Credential = BasicCredential([]byte("another"))
	message = mallory.joinExternal(team[0].groupInfo(GroupInfoOptions{}), ExternalJoinOptions{
		Replaces: func(m Member) bool { return m.Index == 2 },
	})
	for _, m := range team {
		if s := m.process(message).(*StagedCommit); s.SelfRemoved != (m == team[2]) || m.group.Active() == s.SelfRemoved {
			t.Errorf("%s: %+v", m.name(), s)
		}
	}
	team[2] = mallory
	agree(t, team)
	chat(t, team)
}

// Who joins can prove with a pre-shared key that it was let in (§8.4).
func TestExternalJoinWithPSK(t *testing.T) {
	config := Config{PreSharedKey: func(id PreSharedKeyID) ([]byte, error) {
		if string(id.ID) == "ticket" {
			return []byte("secret"), nil
		}
		return nil, errors.New("unknown")
	}}
	team := newTeam(t, testSuite, 2, config)
	joining := newMemberOf(t, testSuite, "new", config)
	message := joining.joinExternal(team[0].groupInfo(GroupInfoOptions{}), ExternalJoinOptions{
		PreSharedKeys: []PreSharedKeyID{{Type: PSKExternal, ID: []byte("ticket")}},
	})
	for _, m := range team {
		m.process(message)
	}
	team = append(team, joining)
	agree(t, team)

	other := newMemberOf(t, testSuite, "other", Config{PreSharedKey: func(PreSharedKeyID) ([]byte, error) { return []byte("wrong"), nil }})
	message = other.joinExternal(team[0].groupInfo(GroupInfoOptions{}), ExternalJoinOptions{
		PreSharedKeys: []PreSharedKeyID{{Type: PSKExternal, ID: []byte("ticket")}},
	})
	team[0].processFails(message, ErrConfirmationTag)
	if _, err := JoinExternal(team[0].groupInfo(GroupInfoOptions{}), other.client, ExternalJoinOptions{
		PreSharedKeys: []PreSharedKeyID{{Type: PSKExternal, ID: []byte("ticket")}},
	}, Config{}); !errors.Is(err, ErrPreSharedKey) {
		t.Errorf("joined without the key: %v", err)
	}
}

// Members who leave by themselves may go with the commit of one who joins
// (draft-ietf-mls-extensions).
func TestExternalJoinAndSelfRemove(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{PublicHandshakes: true})
	leaving := team[2].propose(SelfRemove{})
	for _, m := range team[:2] {
		m.process(leaving)
	}
	ref := team[0].group.proposals[0].ref
	joining := newMemberOf(t, testSuite, "new", Config{})
	info := team[0].groupInfo(GroupInfoOptions{})
	// Our own never commits what others propose; another implementation's might.
	list := []listedProposal{{proposal: SelfRemove{}, sender: memberAt(2), ref: ref}}
	e := team[0].group.current
	o, err := e.apply(append(list, listedProposal{proposal: ExternalInit{[]byte("x")}}), Sender{Type: SenderNewMemberCommit}, &Config{})
	if err != nil || o.committer != 2 || !o.needsPath {
		t.Errorf("%+v, %v", o, err)
	}
	message := joining.joinExternal(info, ExternalJoinOptions{})
	for _, m := range team {
		m.process(message)
	}
	team = append(team, joining)
	agree(t, team)
}

// What an external commit may not do (§12.2).
func TestExternalCommitRules(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{})
	e := team[0].group.current
	kp := newKeyPackage(t, newMemberOf(t, testSuite, "new", Config{}).client)
	init := ExternalInit{[]byte("x")}
	for _, tc := range []struct {
		name string
		list []Proposal
	}{
		{"nothing", nil},
		{"no ExternalInit", []Proposal{Remove{1}}},
		{"two ExternalInit", []Proposal{init, init}},
		{"Add", []Proposal{init, Add{kp.KeyPackage()}}},
		{"two Removes", []Proposal{init, Remove{1}, Remove{2}}},
		{"Remove of nobody", []Proposal{init, Remove{3}}},
		{"extensions", []Proposal{init, GroupContextExtensions{}}},
		{"ReInit", []Proposal{init, ReInit{Version: MLS10}}},
		{"SelfRemove by value", []Proposal{init, SelfRemove{}}},
		{"custom", []Proposal{init, CustomProposal{Type: 0xf001}}},
		{"resumption of a branch", []Proposal{init, PreSharedKey{PreSharedKeyID{Type: PSKResumption, Usage: ResumptionBranch, Nonce: make([]byte, 32)}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var list []listedProposal
			for _, p := range tc.list {
				from := Sender{Type: SenderNewMemberCommit}
				if _, ok := p.(SelfRemove); ok {
					from = memberAt(1)
				}
				list = append(list, listedProposal{proposal: p, sender: from})
			}
			if _, err := e.apply(list, Sender{Type: SenderNewMemberCommit}, &Config{}); !errors.Is(err, ErrInvalidProposals) {
				t.Error(err)
			}
		})
	}
	list := []listedProposal{{proposal: init}, {proposal: Remove{1}, sender: memberAt(2), ref: []byte("ref")}}
	if _, err := e.apply(list, Sender{Type: SenderNewMemberCommit}, &Config{}); !errors.Is(err, ErrInvalidProposals) {
		t.Errorf("by reference: %v", err)
	}

	// A signature key can't be there twice, and the suite and tree have to fit.
	info := team[0].groupInfo(GroupInfoOptions{})
	if _, err := JoinExternal(info, team[1].client, ExternalJoinOptions{}, Config{}); !errors.Is(err, ErrDuplicateKey) {
		t.Errorf("joined twice: %v", err)
	}
	joining := newMemberOf(t, testSuite, "new", Config{})
	if _, err := JoinExternal(team[0].groupInfo(GroupInfoOptions{ExternalTree: true}), joining.client, ExternalJoinOptions{}, Config{}); !errors.Is(err, ErrNoRatchetTree) {
		t.Errorf("joined without tree: %v", err)
	}
	other := newMemberOf(t, 2, "new", Config{})
	if _, err := JoinExternal(info, other.client, ExternalJoinOptions{}, Config{}); !errors.Is(err, ErrUnsupportedCipherSuite) {
		t.Errorf("joined with another suite: %v", err)
	}
	incapable := joining.client
	incapable.Capabilities = Capabilities{Credentials: []CredentialType{CredentialX509}}
	if _, err := JoinExternal(info, incapable, ExternalJoinOptions{}, Config{}); !errors.Is(err, ErrCapabilities) {
		t.Errorf("joined without capabilities: %v", err)
	}
	for i := range info {
		bad := bytes.Clone(info)
		bad[i] ^= 1
		if _, err := JoinExternal(bad, joining.client, ExternalJoinOptions{}, Config{}); err == nil {
			t.Fatalf("joined although byte %d was changed", i)
		}
	}
}

// An external sender proposes what it may, members commit it (§12.1.8.1).
func TestExternalSender(t *testing.T) {
	service := newClient(t, testSuite, "service")
	alice := newMemberOf(t, testSuite, "member 0", Config{})
	alice.create(ExternalSenders(
		ExternalSender{newClient(t, testSuite, "other").Signer.Public(), BasicCredential([]byte("other"))},
		ExternalSender{service.Signer.Public(), service.Credential},
	))
	team := addMembers([]*member{alice}, 3)
	if list := team[1].group.ExternalSenders(); len(list) != 2 || !bytes.Equal(list[1].SignatureKey, service.Signer.Public()) || string(list[1].Credential.Data) != "service" {
		t.Errorf("external senders %v", list)
	}
	joining := newMemberOf(t, testSuite, "new", Config{})
	kp := newKeyPackage(t, joining.client)
	sign := func(p Proposal) []byte {
		t.Helper()
		message, err := OutsideProposal{GroupID: team[0].group.ID(), Epoch: team[0].group.Epoch(), Proposal: p}.SignExternal(1, service.Signer)
		if err != nil {
			t.Fatal(err)
		}
		return message
	}
	for _, p := range []Proposal{Remove{2}, Add{kp.KeyPackage()}, GroupContextExtensions{append(team[0].group.Extensions(), Extension{0xff00, []byte("x")})}} {
		message := sign(p)
		for _, m := range team {
			r, ok := m.process(message).(*ReceivedProposal)
			if !ok || r.Sender != (Sender{SenderExternal, 1}) || r.Proposal.ProposalType() != p.ProposalType() {
				t.Fatalf("%+v", r)
			}
		}
	}
	for _, m := range team {
		m.reload()
	}
	out := team[1].commit(CommitOptions{})
	tell(team, team[1], out)
	if len(out.Staged.Proposals) != 3 || out.Staged.Proposals[0].Sender != (Sender{SenderExternal, 1}) {
		t.Errorf("%+v", out.Staged.Proposals)
	}
	joining.join(out, kp)
	team = []*member{team[0], team[1], team[3], joining}
	agree(t, team)
	chat(t, team)

	// Not in the list; another's key; what external senders may not propose.
	at := OutsideProposal{GroupID: team[0].group.ID(), Epoch: team[0].group.Epoch(), Proposal: Remove{1}}
	message, _ := at.SignExternal(2, service.Signer)
	team[0].processFails(message, ErrSender)
	message, _ = at.SignExternal(0, service.Signer)
	team[0].processFails(message, ErrSignature)
	at.Epoch--
	message, _ = at.SignExternal(1, service.Signer)
	team[0].processFails(message, ErrWrongEpoch)
	for _, p := range []Proposal{SelfRemove{}, ExternalInit{}, Update{}, CustomProposal{Type: 0xf001}, AppEphemeral{}} {
		if _, err := (OutsideProposal{Proposal: p}).SignExternal(1, service.Signer); !errors.Is(err, ErrSender) {
			t.Errorf("%T: %v", p, err)
		}
	}
	if _, err := New([]byte("g"), service, []Extension{{ExtensionExternalSenders, []byte{5}}}, Config{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("a malformed list: %v", err)
	}
}

// One can ask to be added (§12.1.8).
func TestNewMemberProposal(t *testing.T) {
	team := newTeam(t, testSuite, 2, Config{})
	joining := newMemberOf(t, testSuite, "new", Config{})
	kp := newKeyPackage(t, joining.client)
	at := OutsideProposal{GroupID: team[0].group.ID(), Epoch: team[0].group.Epoch(), Proposal: Add{kp.KeyPackage()}, AuthenticatedData: []byte("please")}
	message, err := at.SignNewMember(joining.client.Signer)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range team {
		r, ok := m.process(message).(*ReceivedProposal)
		if !ok || r.Sender != (Sender{Type: SenderNewMemberProposal}) || string(r.AuthenticatedData) != "please" {
			t.Fatalf("%+v", r)
		}
		m.reload()
	}
	out := team[0].commit(CommitOptions{})
	tell(team, team[0], out)
	joining.join(out, kp)
	team = append(team, joining)
	agree(t, team)
	chat(t, team)

	if _, err := at.SignNewMember(team[0].client.Signer); !errors.Is(err, ErrSigner) {
		t.Errorf("asked for another: %v", err)
	}
	if _, err := (OutsideProposal{Proposal: Remove{1}}).SignNewMember(joining.client.Signer); !errors.Is(err, ErrSender) {
		t.Errorf("a stranger removes: %v", err)
	}
}
