package mls

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// shadow is a follower of a group in a test, with its store.
type shadow struct {
	t        testing.TB
	follower *Follower
	store    store
	config   Config
}

// newShadow follows a member's group from its GroupInfo on. It has no pre-shared keys.
func newShadow(m *member, opts GroupInfoOptions) *shadow {
	m.t.Helper()
	s := &shadow{t: m.t, store: store{}, config: m.config}
	s.config.PreSharedKey = nil
	p, err := NewFollower(m.groupInfo(opts), m.group.RatchetTree(), s.config)
	if err != nil {
		m.t.Fatal(err)
	}
	s.store.apply(p.Changes())
	s.follower = p.Done()
	s.agrees(m)
	return s
}

// dump is the whole state of a follower.
func (f *Follower) dump() []Record {
	f.tree()
	records := f.records()
	for i, p := range f.proposals {
		records = append(records, p.record(i))
	}
	return records
}

// check checks that the store has all of the follower's state and nothing else.
func (s *shadow) check() {
	s.t.Helper()
	whole := store{}
	whole.apply(s.follower.dump())
	same := maps.EqualFunc(s.store, whole, func(a, b Record) bool { return bytes.Equal(a.Value, b.Value) })
	if !same {
		s.t.Fatalf("the changes do not add up to the state (-stored +state):\n%s", cmp.Diff(s.store, whole))
	}
}

func (s *shadow) reload() {
	s.t.Helper()
	f, err := LoadFollower(s.store.records(), s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.follower = f
	s.check()
}

// process takes in a message: first it is dropped, then it counts.
func (s *shadow) process(message []byte) Event {
	s.t.Helper()
	p, err := s.follower.Process(message)
	if err != nil {
		s.t.Fatalf("follower: %v", err)
	}
	if _, err := s.follower.Process(message); !errors.Is(err, ErrPending) {
		s.t.Fatalf("two at once: %v", err)
	}
	p.Changes()
	p.Discard()
	s.check()
	if p, err = s.follower.Process(message); err != nil {
		s.t.Fatalf("follower, the second time: %v", err)
	}
	s.store.apply(p.Changes())
	event := p.Done()
	s.check()
	return event
}

// refuses checks that a message that a member refuses by err is refused by want, unless
// it takes the group's secrets to see what is wrong.
func (s *shadow) refuses(message []byte, err, want error) {
	s.t.Helper()
	p, got := s.follower.Process(message)
	if got == nil {
		p.Discard()
	}
	if got == nil && !needsSecrets(err) || got != nil && !errors.Is(got, want) {
		s.t.Fatalf("follower: %v, but a member: %v, want %v", got, err, want)
	}
	s.check()
}

func needsSecrets(err error) bool {
	return errors.Is(err, ErrMembershipTag) || errors.Is(err, ErrConfirmationTag) || errors.Is(err, ErrPreSharedKey) ||
		strings.Contains(err.Error(), "path secret does not open") || strings.Contains(err.Error(), "key of node")
}

// agrees checks that a follower sees what a member sees.
func (s *shadow) agrees(m *member) {
	s.t.Helper()
	f, g := s.follower, m.group
	if !bytes.Equal(f.Context(), g.Context()) || !bytes.Equal(f.RatchetTree(), g.RatchetTree()) ||
		!bytes.Equal(f.TreeHash(), g.TreeHash()) || !bytes.Equal(f.tree().rootHash(), g.TreeHash()) ||
		!bytes.Equal(f.current.interim, g.current.interim) || f.Epoch() != g.Epoch() {
		s.t.Fatalf("follower and %s differ in epochs %d and %d", m.name(), f.Epoch(), g.Epoch())
	}
	members, others := slices.Collect(f.Members()), slices.Collect(g.Members())
	if !slices.EqualFunc(members, others, func(a, b Member) bool { return a.Index == b.Index && bytes.Equal(a.LeafNode.raw, b.LeafNode.raw) }) {
		s.t.Fatalf("members %v, want %v", members, others)
	}
	if len(f.proposals) != len(g.proposals) {
		s.t.Fatalf("%d proposals wait, want %d", len(f.proposals), len(g.proposals))
	}
	if _, closed := f.ReInit(); closed {
		return
	}
	for _, opts := range []GroupInfoOptions{{}, {ExternalTree: true}} {
		if err := f.CheckGroupInfo(m.groupInfo(opts)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.check()
}

// outsideTags tells whether byte i of a PublicMessage of suite 3 is none of its tags.
func outsideTags(message []byte, i int) bool {
	m, _ := UnmarshalMessage(message)
	end := len(message)
	if m.public.content.sender.Type == SenderMember {
		if i >= end-32 {
			return false
		}
		end -= 33
	}
	return m.public.content.contentType != ContentTypeCommit || i < end-32 || i >= end
}

// A follower sees each kind of change as the members do: by value and by reference, of
// members, external senders and who joins.
func TestFollower(t *testing.T) {
	for _, id := range []CipherSuite{X25519ChaChaSHA256Ed25519, 0xf001} {
		t.Run(fmt.Sprint("suite ", id), func(t *testing.T) {
			config := Config{PublicHandshakes: true, PreSharedKey: func(PreSharedKeyID) ([]byte, error) { return []byte("secret"), nil }}
			service := newClient(t, id, "service")
			alice := newMemberOf(t, id, "member 0", config)
			alice.create(ExternalSenders(ExternalSender{service.Signer.Public(), service.Credential}))
			s := newShadow(alice, GroupInfoOptions{})
			team := []*member{alice}
			// all hands a message to the follower and to the members but its sender.
			all := func(from *member, message []byte) Event {
				event := s.process(message)
				s.reload()
				for _, m := range team {
					if m != from {
						m.process(message)
					}
				}
				return event
			}
			commit := func(by *member, opts CommitOptions) (*OutgoingCommit, *StagedCommit) {
				out := by.commit(opts)
				staged, ok := all(by, out.Message).(*StagedCommit)
				if !ok || staged.Own || staged.SelfRemoved || staged.EpochAuthenticator() != nil || staged.Epoch != by.group.Epoch() {
					t.Fatalf("%+v", staged)
				}
				s.agrees(by)
				return out, staged
			}
			add := func(by *member, name string) {
				joining := newMemberOf(t, id, name, config)
				kp := newKeyPackage(t, joining.client)
				out, staged := commit(by, CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}})
				if len(staged.Added) != 1 || !staged.HasPath {
					t.Errorf("%+v", staged)
				}
				joining.join(out, kp)
				team = append(team, joining)
			}
			add(alice, "member 1")
			add(team[1], "member 2")
			add(team[2], "member 3")

			p, err := team[2].group.ProposeUpdate(nil, nil)
			if r, ok := all(team[2], done(team[2], p, err)).(*ReceivedProposal); !ok || !r.Sender.is(2) {
				t.Fatalf("%+v", r)
			}
			all(team[1], team[1].propose(PreSharedKey{PreSharedKeyID{Type: PSKExternal, ID: []byte("psk")}}))
			message, err := OutsideProposal{GroupID: alice.group.ID(), Epoch: alice.group.Epoch(), Proposal: Remove{3}}.SignExternal(0, service.Signer)
			if err != nil {
				t.Fatal(err)
			}
			all(nil, message)
			s.agrees(alice)
			_, staged := commit(alice, CommitOptions{})
			if len(staged.Proposals) != 3 || len(staged.Updated) != 2 || len(staged.Removed) != 1 {
				t.Errorf("%+v", staged)
			}
			team = team[:3]

			all(team[1], team[1].propose(SelfRemove{}))
			commit(alice, CommitOptions{})
			team = []*member{alice, team[2]}
			commit(team[1], CommitOptions{Proposals: []Proposal{GroupContextExtensions{append(alice.group.Extensions(), Extension{0xff00, []byte("x")})}}})
			if data, ok := s.follower.Extension(0xff00); !ok || string(data) != "x" || len(s.follower.ExternalSenders()) != 1 {
				t.Errorf("extension is %q", data)
			}

			// One joins with the tree of the follower, and later takes its own place again.
			joining := newMemberOf(t, id, "joined", config)
			for _, replaces := range []func(Member) bool{nil, func(m Member) bool { return string(m.LeafNode.Credential().Data) == "joined" }} {
				message = joining.joinExternal(alice.groupInfo(GroupInfoOptions{ExternalTree: true}), ExternalJoinOptions{RatchetTree: s.follower.RatchetTree(), Replaces: replaces})
				staged, ok := all(joining, message).(*StagedCommit)
				if !ok || !staged.External || len(staged.Added) != 1 || (len(staged.Removed) == 1) != (replaces != nil) {
					t.Errorf("%+v", staged)
				}
				s.agrees(alice)
				s.agrees(joining)
				if replaces == nil {
					team = append(team, joining)
				}
			}
			agree(t, team)

			out, staged := commit(alice, CommitOptions{Proposals: []Proposal{ReInit{GroupID: []byte("next"), Version: MLS10, CipherSuite: id}}})
			if r, closed := s.follower.ReInit(); !closed || string(r.GroupID) != "next" || staged.ReInit == nil {
				t.Errorf("%+v", staged)
			}
			if _, err := s.follower.Process(out.Message); !errors.Is(err, ErrWrongEpoch) {
				t.Errorf("a commit twice: %v", err)
			}
			late := OutsideProposal{GroupID: alice.group.ID(), Epoch: alice.group.Epoch(), Proposal: Remove{0}}
			if message, err = late.SignExternal(0, service.Signer); err != nil {
				t.Fatal(err)
			}
			if _, err := s.follower.Process(message); !errors.Is(err, ErrReInit) {
				t.Errorf("a proposal to a closed group: %v", err)
			}
			s.check()
		})
	}
}

// What a follower can't follow, or is told by its caller not to.
func TestFollowerRefuses(t *testing.T) {
	j := &judge{}
	team := newTeam(t, testSuite, 3, Config{PublicHandshakes: true})
	alice, bob := team[0], team[1]
	alice.config.Authenticator = j
	s := newShadow(alice, GroupInfoOptions{})
	if len(j.asked) != 1 || len(j.asked[0]) != 3 {
		t.Errorf("asked about %v", j.asked)
	}
	alice.config.Authenticator = nil

	// Who writes in private is lost for it.
	private := newMemberOf(t, testSuite, "private", Config{})
	private.group, private.store = bob.group, bob.store
	private.group.config.PublicHandshakes = false
	p, err := private.group.Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	commit := p.Result().Message
	p.Discard()
	proposal := private.propose(Remove{2})
	private.group.proposals = nil
	private.group.config.PublicHandshakes = true
	other := newMemberOf(t, testSuite, "other", Config{PublicHandshakes: true})
	create, err := New([]byte("another group"), other.client, nil, other.config)
	other.group = done(other, create, err)
	for _, tc := range []struct {
		name    string
		message []byte
		want    error
	}{
		{"a PrivateMessage with a commit", commit, ErrEncrypted},
		{"a PrivateMessage with a proposal", proposal, ErrEncrypted},
		{"a PrivateMessage with application data", team[2].encrypt("hello"), ErrEncrypted},
		{"a PrivateMessage of another group", other.encrypt("hello"), ErrWrongGroup},
		{"a PublicMessage of another group", other.forgeCommit(byValue(Remove{0})), ErrWrongGroup},
		{"a GroupInfo", alice.groupInfo(GroupInfoOptions{}), ErrWireFormat},
		{"nothing", nil, ErrUnexpectedEnd},
		{"a confirmation tag of 31 bytes", alice.forge(&framedContent{contentType: ContentTypeCommit, commit: byValue(Remove{2})}, make([]byte, 31)), ErrConfirmationTag},
	} {
		if _, err := s.follower.Process(tc.message); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	s.check()

	// Members whom the application refuses: in a commit, by themselves, from the start.
	j.refuse = "mallory"
	mallory := newMemberOf(t, testSuite, "mallory", Config{})
	kp := newKeyPackage(t, mallory.client)
	p, err = alice.group.Commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}})
	if err != nil {
		t.Fatal(err)
	}
	message := p.Result().Message
	p.Discard()
	if _, err := s.follower.Process(message); !errors.Is(err, ErrCredential) || !errors.Is(err, errStranger) {
		t.Errorf("a stranger was added: %v", err)
	}
	joining := mallory.joinExternal(alice.groupInfo(GroupInfoOptions{}), ExternalJoinOptions{})
	if _, err := s.follower.Process(joining); !errors.Is(err, ErrCredential) {
		t.Errorf("a stranger has joined: %v", err)
	}
	if _, err := NewFollower(mallory.groupInfo(GroupInfoOptions{}), nil, s.config); !errors.Is(err, ErrCredential) {
		t.Errorf("a group with a stranger: %v", err)
	}
	s.check()

	// An ExternalInit that is no encapsulated key, signed and put into the tree all right.
	m, err := UnmarshalMessage(joining)
	if err != nil {
		t.Fatal(err)
	}
	c := m.public.content
	c.commit.proposals = []proposalOrRef{{proposal: ExternalInit{make([]byte, 31)}}}
	j.refuse = ""
	if _, err := s.follower.Process(mallory.signOutside(c, alice.group.Context())); !errors.Is(err, ErrInvalidProposals) {
		t.Errorf("an ExternalInit of 31 bytes: %v", err)
	}
	s.check()
	s.agrees(alice)
}

// signOutside signs the content of one who joins, whatever it is.
func (m *member) signOutside(c *framedContent, context []byte) []byte {
	m.t.Helper()
	c.raw = c.append(nil)
	sig, err := signContent(m.client.Signer, WireFormatPublicMessage, c.raw, nil, context)
	if err != nil {
		m.t.Fatal(err)
	}
	out := &publicMessage{content: c, auth: contentAuth{signature: sig, confirmationTag: make([]byte, 32)}}
	return out.append(appendMessageHead(nil, WireFormatPublicMessage))
}

// What a GroupInfo has to be for others to join by it.
func TestFollowerGroupInfo(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{PublicHandshakes: true})
	alice := team[0]
	s := newShadow(alice, GroupInfoOptions{ExternalTree: true})
	e := alice.group.current
	// signed is a GroupInfo that a member signs, whatever it says.
	signed := func(change func(info *groupInfo)) []byte {
		t.Helper()
		m, err := UnmarshalMessage(alice.groupInfo(GroupInfoOptions{}))
		if err != nil {
			t.Fatal(err)
		}
		change(m.groupInfo)
		if err := m.groupInfo.sign(alice.client.Signer); err != nil && !errors.Is(err, ErrDuplicateExtension) {
			t.Fatal(err)
		}
		return m.groupInfo.append(appendMessageHead(nil, WireFormatGroupInfo))
	}
	context := func(change func(c *groupContext)) []byte {
		return signed(func(info *groupInfo) { change(info.context) })
	}
	smaller := newTeam(t, testSuite, 2, Config{})
	for _, tc := range []struct {
		name string
		info []byte
		want error
	}{
		{"as it is", signed(func(*groupInfo) {}), nil},
		{"another group", context(func(c *groupContext) { c.groupID = []byte("other") }), ErrWrongGroup},
		{"the next epoch", context(func(c *groupContext) { c.epoch++ }), ErrWrongEpoch},
		{"another tree", context(func(c *groupContext) { c.treeHash = make([]byte, 32) }), ErrFork},
		{"another transcript", context(func(c *groupContext) { c.confirmedTranscriptHash = make([]byte, 32) }), ErrFork},
		{"other extensions", context(func(c *groupContext) { c.extensions = []Extension{{0xff00, nil}} }), ErrFork},
		{"another confirmation tag", signed(func(info *groupInfo) { info.confirmationTag = make([]byte, 32) }), ErrFork},
		{"a tree that isn't the group's", signed(func(info *groupInfo) { info.extensions[1].Data = smaller[0].group.RatchetTree() }), ErrFork},
		{"a blank signer", signed(func(info *groupInfo) { info.signer = 3 }), ErrSender},
		{"another's signature", signed(func(info *groupInfo) { info.signer = 1 }), ErrSignature},
		{"no external key", signed(func(info *groupInfo) { info.extensions = info.extensions[1:] }), ErrNoExternalPub},
		{"an external key of 31 bytes", signed(func(info *groupInfo) { info.extensions[0].Data = append([]byte{31}, make([]byte, 31)...) }), ErrMalformed},
		{"half an external key", signed(func(info *groupInfo) { info.extensions[0].Data = info.extensions[0].Data[:20] }), ErrMalformed},
		{"trailing byte", append(signed(func(*groupInfo) {}), 0), ErrTrailingData},
		{"a key package", func() []byte {
			b, _ := newKeyPackage(t, alice.client).KeyPackage().MarshalBinary()
			return append(appendMessageHead(nil, WireFormatKeyPackage), b...)
		}(), ErrWireFormat},
	} {
		if err := s.follower.CheckGroupInfo(tc.info); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}

	// A commit with a confirmation tag that nobody can verify is good for a follower.
	// The GroupInfo of a member shows it, also when the members have gone on.
	forged := alice.forgeCommit(byValue(CustomProposal{0xf001, nil}))
	team[1].processFails(forged, ErrConfirmationTag)
	s.process(forged)
	if err := s.follower.CheckGroupInfo(alice.groupInfo(GroupInfoOptions{})); !errors.Is(err, ErrWrongEpoch) {
		t.Errorf("a GroupInfo of the epoch before: %v", err)
	}
	tell(team, team[1], team[1].commit(CommitOptions{}))
	if err := s.follower.CheckGroupInfo(alice.groupInfo(GroupInfoOptions{})); !errors.Is(err, ErrFork) {
		t.Errorf("a GroupInfo of another history: %v", err)
	}
	newShadow(alice, GroupInfoOptions{})

	// What a follower doesn't begin with.
	for name, tc := range map[string]struct {
		info, tree []byte
		want       error
	}{
		"no tree":             {alice.groupInfo(GroupInfoOptions{ExternalTree: true}), nil, ErrNoRatchetTree},
		"another tree":        {alice.groupInfo(GroupInfoOptions{ExternalTree: true}), smaller[0].group.RatchetTree(), ErrSignature},
		"unknown suite":       {context(func(c *groupContext) { c.suite = 0xfff0 }), nil, ErrUnsupportedCipherSuite},
		"a short tag":         {signed(func(info *groupInfo) { info.confirmationTag = make([]byte, 31) }), nil, ErrConfirmationTag},
		"another tree's hash": {context(func(c *groupContext) { c.treeHash = e.context.treeHash }), nil, ErrInvalidTree},
	} {
		if _, err := NewFollower(tc.info, tc.tree, Config{}); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// Updates of application data are applied by the follower's application, too.
func TestFollowerAppData(t *testing.T) {
	team := newDataTeam(t, 2, Config{PublicHandshakes: true}, AppDataDictionary(ComponentData{7, []byte("a")}))
	alice, bob := team[0], team[1]
	s := newShadow(alice, GroupInfoOptions{})
	proposal := bob.propose(AppDataUpdate{Component: 7, Update: []byte("b")})
	alice.process(proposal)
	s.process(proposal)
	s.reload()
	_, err := alice.group.Commit(CommitOptions{})
	asked, ok := errors.AsType[*AppDataError](err)
	if !ok {
		t.Fatal(err)
	}
	out := alice.commit(CommitOptions{AppData: appendUpdates(asked.Changes)})
	p, err := s.follower.Process(out.Message)
	if err != nil {
		t.Fatal(err)
	}
	u, ok := p.Result().(*UnresolvedCommit)
	if !ok || !u.Committer.is(0) || len(u.Proposals) != 1 {
		t.Fatalf("%+v", u)
	}
	if _, err := u.Resolve(appendUpdates(u.Changes)); !errors.Is(err, ErrPending) {
		t.Errorf("resolved while the result is open: %v", err)
	}
	if changes := p.Changes(); len(changes) != 0 {
		t.Errorf("changes %v", changes)
	}
	p.Done()
	s.check()
	if _, err := u.Resolve(nil); !errors.Is(err, ErrInvalidProposals) {
		t.Errorf("resolved by nothing: %v", err)
	}
	if diff := cmp.Diff(asked.Changes, u.Changes); diff != "" {
		t.Error(diff)
	}
	resolved, err := u.Resolve(appendUpdates(u.Changes))
	if err != nil {
		t.Fatal(err)
	}
	s.store.apply(resolved.Changes())
	if staged, ok := resolved.Done().(*StagedCommit); !ok || staged.Epoch != alice.group.Epoch() {
		t.Errorf("%+v", staged)
	}
	s.agrees(alice)
	if data, _ := s.follower.Extension(ExtensionAppDataDictionary); !bytes.Contains(data, []byte("ab")) {
		t.Errorf("application data %q", data)
	}
}

// Any bit of a handshake that is flipped makes a follower refuse it, and nothing
// changes: but for the bits of tags, which only members can verify.
func TestFollowerFlippedBits(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{PublicHandshakes: true})
	s := newShadow(team[0], GroupInfoOptions{})
	joining := newMemberOf(t, testSuite, "new", Config{})
	stride := 9 // one bit of almost each byte
	if os.Getenv("XMTP_PROOF") != "" {
		stride = 1
	}
	p, err := team[0].group.Commit(CommitOptions{})
	messages := [][]byte{
		team[2].propose(Remove{0}),
		done(team[0], p, err).Message,
		joining.joinExternal(team[0].groupInfo(GroupInfoOptions{}), ExternalJoinOptions{}),
	}
	for k, message := range messages {
		for bit := 0; bit < 8*len(message); bit += stride {
			flipped := bytes.Clone(message)
			flipped[bit/8] ^= 1 << (bit % 8)
			p, err := s.follower.Process(flipped)
			if err == nil {
				p.Discard()
			}
			if outsideTags(message, bit/8) != (err != nil) {
				t.Fatalf("message %d with bit %d of %d flipped: %v", k, bit, 8*len(message), err)
			}
		}
		s.check()
	}
	s.agrees(team[0])
}

// follow hands a message to the follower of a walk, and before that one in which a bit
// is flipped.
func (w *walk) follow(message []byte) {
	flipped := bytes.Clone(message)
	bit := rapid.IntRange(0, 8*len(message)-1).Draw(w.T, "bit")
	flipped[bit/8] ^= 1 << (bit % 8)
	p, err := w.shadow.follower.Process(flipped)
	if err == nil {
		p.Discard()
	}
	if outsideTags(message, bit/8) != (err != nil) {
		w.Fatalf("bit %d flipped: %v", bit, err)
	}
	switch rapid.SampledFrom([]string{"", "", "reload", "park"}).Draw(w.T, "follower") {
	case "reload":
		w.shadow.reload()
	case "park":
		w.shadow.follower.Park()
	}
	w.shadow.process(message)
}

// publicStep is a step that not every walk has.
func (w *walk) publicStep() {
	by := w.pick("member")
	switch rapid.SampledFrom([]string{"join", "resync", "psk", "ask to be added"}).Draw(w.T, "public action") {
	case "join":
		if len(w.team) >= 12 {
			return
		}
		joining, _ := w.newcomer()
		info := by.groupInfo(GroupInfoOptions{ExternalTree: true})
		message := joining.joinExternal(info, ExternalJoinOptions{RatchetTree: w.shadow.follower.RatchetTree()})
		w.deliver(joining, message)
		w.team = append(w.team, joining)
	case "resync":
		host := w.other(by)
		if host == nil {
			return
		}
		key := by.client.Signer.Public()
		message := by.joinExternal(host.groupInfo(GroupInfoOptions{}), ExternalJoinOptions{
			Replaces:      func(m Member) bool { return bytes.Equal(m.LeafNode.SignatureKey(), key) },
			PreSharedKeys: []PreSharedKeyID{{Type: PSKExternal, ID: []byte("resync")}},
		})
		w.deliver(by, message)
	case "psk":
		psk := PreSharedKey{PreSharedKeyID{Type: PSKExternal, ID: []byte("psk")}}
		if rapid.Bool().Draw(w.T, "by reference") {
			w.deliver(by, by.propose(psk))
			w.commit(w.pick("committer"), CommitOptions{OmitPath: true}, nil, nil)
			return
		}
		w.commit(by, CommitOptions{Proposals: []Proposal{psk}}, nil, nil)
	case "ask to be added":
		if len(w.team) >= 12 {
			return
		}
		joining, kp := w.newcomer()
		asks := OutsideProposal{GroupID: by.group.ID(), Epoch: by.group.Epoch(), Proposal: Add{kp.KeyPackage()}}
		message, err := asks.SignNewMember(joining.client.Signer)
		if err != nil {
			w.Fatal(err)
		}
		w.deliver(nil, message)
		w.commit(by, CommitOptions{}, []*member{joining}, []*PrivateKeyPackage{kp})
	}
}

// TestFollowerWalk: a follower of a group that walks at random sees at each step what
// the members see, whatever of it is not secret.
func TestFollowerWalk(t *testing.T) {
	if os.Getenv("XMTP_PROOF") == "" {
		checks := flag.Lookup("rapid.checks").Value
		defer checks.Set(checks.String())
		checks.Set("8")
	}
	rapid.Check(t, func(rt *rapid.T) {
		config := Config{PublicHandshakes: true, PreSharedKey: func(PreSharedKeyID) ([]byte, error) { return []byte("secret"), nil }}
		w := &walk{T: rt, t: t, config: config}
		founder, _ := w.newcomer()
		founder.create()
		w.team = []*member{founder}
		w.shadow = newShadow(founder, GroupInfoOptions{})
		for range rapid.IntRange(4, 16).Draw(rt, "steps") {
			if rapid.Bool().Draw(rt, "public") {
				w.publicStep()
			} else {
				w.step()
			}
			agree(t, w.team)
			w.shadow.agrees(w.pick("witness"))
		}
		by := w.pick("last")
		w.commit(by, CommitOptions{Proposals: []Proposal{ReInit{GroupID: []byte("next"), Version: MLS10, CipherSuite: testSuite}}}, nil, nil)
		if _, closed := w.shadow.follower.ReInit(); !closed {
			w.Fatal("the group is not closed")
		}
		w.shadow.agrees(by)
	})
}

// Records that are no follower's, or were changed.
func TestLoadFollowerErrors(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{PublicHandshakes: true})
	s := newShadow(team[0], GroupInfoOptions{})
	s.process(team[1].propose(Remove{2}))
	s.reload()
	if _, err := LoadFollower(team[0].store.records(), Config{}); !errors.Is(err, ErrState) {
		t.Errorf("a member's records: %v", err)
	}
	if _, err := Load(s.store.records(), Config{}, team[0].client.Signer); !errors.Is(err, ErrState) {
		t.Errorf("a member by a follower's records: %v", err)
	}
	if _, err := LoadFollower(nil, Config{}); !errors.Is(err, ErrState) {
		t.Errorf("nothing: %v", err)
	}
	records := s.store.records()
	for i, r := range records {
		changed := slices.Clone(records)
		for _, tc := range []struct {
			name  string
			value []byte
		}{
			{"version", append([]byte{stateVersion + 1}, r.Value[1:]...)},
			{"truncated", r.Value[:len(r.Value)-1]},
			{"empty", []byte{}},
			{"trailing", append(bytes.Clone(r.Value), 200)},
			{"unknown field", append(bytes.Clone(r.Value), 200, 1, 0)},
		} {
			changed[i] = Record{r.Kind, r.Key, tc.value}
			if _, err := LoadFollower(changed, Config{}); !errors.Is(err, ErrState) {
				t.Errorf("kind %d, %s: %v", r.Kind, tc.name, err)
			}
		}
	}
	for _, r := range []Record{{kindKeys, make([]byte, 20), []byte{1}}, {kindUpdate, []byte("key"), []byte{stateVersion, 1}}, {kindOwnCommit, nil, []byte{stateVersion}}} {
		if _, err := LoadFollower(append(slices.Clone(records), r), Config{}); !errors.Is(err, ErrState) {
			t.Errorf("a record of kind %d: %v", r.Kind, err)
		}
	}
}

// FuzzFollower: nothing that arrives makes a follower panic, or changes it unless it is
// taken in; what it allocates is bounded by what arrives.
func FuzzFollower(f *testing.F) {
	team := newTeam(f, testSuite, 3, Config{PublicHandshakes: true})
	alice := team[0]
	s := newShadow(alice, GroupInfoOptions{})
	proposal := team[1].propose(Remove{2})
	s.process(proposal)
	p, err := alice.group.Commit(CommitOptions{})
	f.Add(done(alice, p, err).Message)
	p, err = team[2].group.Commit(CommitOptions{Proposals: []Proposal{CustomProposal{0xf001, []byte("x")}}, OmitPath: true})
	f.Add(done(team[2], p, err).Message)
	f.Add(proposal)
	f.Add(team[2].forgeProposal(GroupContextExtensions{}))
	f.Add(newMemberOf(f, testSuite, "new", Config{}).joinExternal(alice.groupInfo(GroupInfoOptions{}), ExternalJoinOptions{}))
	f.Add(alice.groupInfo(GroupInfoOptions{}))
	f.Fuzz(func(t *testing.T, in []byte) {
		s.t = t
		// As it is, and then as one would send it who is a member.
		messages := [][]byte{in}
		if m, err := UnmarshalMessage(in); err == nil && m.public != nil {
			c := m.public.content
			c.sender = Sender{}
			alice.t = t
			messages = append(messages, alice.forge(c, m.public.auth.confirmationTag))
		}
		for _, message := range messages {
			n := allocated(func() {
				if p, err := s.follower.Process(message); err == nil {
					p.Changes()
					p.Discard()
				}
				_ = s.follower.CheckGroupInfo(message)
				if p, err := NewFollower(message, nil, Config{}); err == nil {
					p.Discard()
				}
			})
			if limit := uint64(256<<10 + 400*len(message)); n > limit {
				t.Errorf("%d bytes allocated for a message of %d", n, len(message))
			}
		}
		s.check()
	})
}

// FuzzLoadFollower: whatever one of the records is, loading and then using the follower
// doesn't panic.
func FuzzLoadFollower(f *testing.F) {
	team := newTeam(f, testSuite, 4, Config{PublicHandshakes: true})
	s := newShadow(team[0], GroupInfoOptions{})
	proposal := team[1].propose(Remove{2})
	team[0].process(proposal)
	s.process(proposal)
	commit, err := team[0].group.Commit(CommitOptions{})
	message := done(team[0], commit, err).Message
	stored := s.store.records()
	slices.SortFunc(stored, func(a, b Record) int {
		return bytes.Compare(append([]byte{byte(a.Kind)}, a.Key...), append([]byte{byte(b.Kind)}, b.Key...))
	})
	for i, r := range stored {
		f.Add(uint(i), r.Value)
	}
	f.Fuzz(func(t *testing.T, i uint, value []byte) {
		records := slices.Clone(stored)
		records[i%uint(len(records))].Value = value
		loaded, err := LoadFollower(records, Config{})
		if err != nil {
			return
		}
		_ = fmt.Sprint(loaded, loaded.Epoch(), loaded.ID(), loaded.ExternalSenders())
		for m := range loaded.Members() {
			_ = m.LeafNode.Capabilities()
		}
		loaded.RatchetTree()
		if p, err := loaded.Process(message); err == nil {
			p.Changes()
			p.Done()
		}
	})
}
