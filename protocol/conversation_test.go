package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
)

// A talk is a group whose members are played by real MLS groups, each with its own
// state. Messages reach everybody at once, in one order.
type talk struct {
	*world
	members map[identity.Identifier]*participant
	commits uint64
}

type participant struct {
	person *person
	index  int // of the installation
	group  *mls.Group
}

func (p *participant) id() identity.Identifier { return p.person.installation(p.index) }

func (p *participant) signer(t testing.TB) mls.Signer {
	t.Helper()
	s, err := mls.NewSigner(identity.CipherSuite, p.person.keys[p.index].Seed())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// found creates a group; its creator is alone in it.
func (w *world) found(creator *person, s *GroupState) *talk {
	w.t.Helper()
	exts, err := s.Extensions()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &participant{person: creator}
	signer := p.signer(w.t)
	pending, err := mls.New(bytes.Repeat([]byte{7}, GroupIDSize), NewClient(creator.inboxID, signer), exts, GroupConfig(true))
	if err != nil {
		w.t.Fatal(err)
	}
	p.group = pending.Done()
	return &talk{w, map[identity.Identifier]*participant{p.id(): p}, 0}
}

// keyPackages has one of every installation of the people, with its private part.
type keyPackages map[identity.Identifier]struct {
	private *KeyPackage
	info    *identity.KeyPackageInfo
	of      *participant
}

func (w *world) keyPackages(people ...*person) keyPackages {
	w.t.Helper()
	out := keyPackages{}
	for _, person := range people {
		for i := range person.keys {
			p := &participant{person: person, index: i}
			kp, err := NewKeyPackage(person.inboxID, p.signer(w.t), time.Now())
			if err != nil {
				w.t.Fatal(err)
			}
			info, err := CheckKeyPackage(kp.Public(), Actor{person.inboxID, p.id()}, time.Now())
			if err != nil {
				w.t.Fatal(err)
			}
			e := out[p.id()]
			e.private, e.info, e.of = kp, info, p
			out[p.id()] = e
		}
	}
	return out
}

// commit lets a member commit proposals. If the check refuses it, nobody gets it and
// the refusal is returned; that the others refuse it as well is checked.
func (k *talk) commit(from *participant, proposals []mls.Proposal, packages keyPackages) (*Change, error) {
	k.t.Helper()
	pending, err := from.group.Commit(mls.CommitOptions{Proposals: proposals, ByValueOnly: true})
	if err != nil {
		k.t.Fatal(err)
	}
	own, refusal := CheckCommit(k.t.Context(), from.group, pending.Result().Staged, k.logs)
	out := pending.Result()
	if refusal != nil {
		pending.Discard()
	} else {
		pending.Done()
	}
	k.commits++
	var transcript []byte
	for id, p := range k.members {
		event, err := p.group.Process(out.Message)
		if p == from && refusal != nil {
			continue // it never was sent
		}
		if err != nil {
			k.t.Fatalf("%v: %v", id, err)
		}
		staged := event.Result().(*mls.StagedCommit)
		change, err := CheckCommit(k.t.Context(), p.group, staged, k.logs)
		if fmt.Sprint(err) != fmt.Sprint(refusal) {
			k.t.Fatalf("%v: %v, the committer has %v", id, err, refusal)
		}
		if err != nil {
			event.Discard()
			continue
		}
		event.Done()
		e, _ := change.Transcript(nil, k.commits)
		if transcript == nil {
			transcript = e.Content
		}
		if change.Actor != own.Actor || !bytes.Equal(transcript, e.Content) {
			k.t.Fatalf("%v sees %+v, another one %+v", id, change, own)
		}
		if !p.group.Active() {
			delete(k.members, id)
		}
	}
	if refusal == nil && out.Welcome != nil {
		k.welcome(out.Welcome, own, packages)
	}
	k.agree()
	return own, refusal
}

// welcome lets everybody in whom the welcome is for.
func (k *talk) welcome(welcome []byte, change *Change, packages keyPackages) {
	k.t.Helper()
	m, err := mls.UnmarshalMessage(welcome)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, e := range packages {
		ref, err := e.info.Package.Ref()
		if err != nil {
			k.t.Fatal(err)
		}
		if !slices.ContainsFunc(m.NewMembers(), func(r []byte) bool { return bytes.Equal(r, ref) }) {
			continue
		}
		wrapper, err := e.info.WelcomeWrapper()
		if err != nil {
			k.t.Fatal(err)
		}
		in, err := WrapWelcome(welcome, k.commits, e.of.id(), wrapper)
		if err != nil {
			k.t.Fatal(err)
		}
		w, _, err := e.private.Unwrap(received(k.t, in))
		if err != nil || w.CommitID != k.commits {
			k.t.Fatalf("%+v, %v", w, err)
		}
		pending, err := mls.Join(w.Message, e.private.Private(), e.of.signer(k.t), nil, GroupConfig(true))
		if err != nil {
			k.t.Fatal(err)
		}
		_, adder, err := CheckJoined(k.t.Context(), pending.Result(), e.of.person.inboxID, k.logs)
		if err != nil || adder != change.Actor {
			k.t.Fatalf("added by %v: %v", adder, err)
		}
		joined := *e.of
		joined.group = pending.Done().Group
		k.members[joined.id()] = &joined
	}
}

// agree checks that all are in the same epoch of the same group.
func (k *talk) agree() {
	k.t.Helper()
	var secret []byte
	for id, p := range k.members {
		if secret == nil {
			secret = p.group.EpochAuthenticator()
		}
		if !bytes.Equal(secret, p.group.EpochAuthenticator()) {
			k.t.Fatalf("%v is in another epoch", id)
		}
	}
}

// send lets a member send a text, which all others have to read.
func (k *talk) send(from *participant, text string) {
	k.t.Helper()
	data, err := NewEnvelope([]byte(text), time.Now()).Marshal()
	if err != nil {
		k.t.Fatal(err)
	}
	pending, err := from.group.Encrypt(data, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	message := pending.Done()
	for id, p := range k.members {
		event, err := p.group.Process(message)
		if err != nil {
			k.t.Fatalf("%v: %v", id, err)
		}
		switch m := event.Done().(type) {
		case *mls.ApplicationMessage:
			sender, err := SenderOf(p.group, m)
			if err != nil || sender != (Actor{from.person.inboxID, from.id()}) {
				k.t.Fatalf("%v: from %v, %v", id, sender, err)
			}
			e, err := ParseEnvelope(m.Data)
			if err != nil || string(e.Content) != text {
				k.t.Fatalf("%v: %q, %v", id, e.Content, err)
			}
		case *mls.OwnMessage:
			if p != from {
				k.t.Fatalf("%v takes it for his own", id)
			}
		default:
			k.t.Fatalf("%v: %T", id, m)
		}
	}
}

// membership makes the proposals of a change of membership.
func (k *talk) membership(from *participant, add, remove []string, packages keyPackages) ([]mls.Proposal, error) {
	k.t.Helper()
	state, err := ParseGroupState(from.group.Extensions())
	if err != nil {
		k.t.Fatal(err)
	}
	u, err := PlanMembership(k.t.Context(), k.logs, state.Membership, add, remove)
	if err != nil {
		k.t.Fatal(err)
	}
	infos := map[identity.Identifier]*identity.KeyPackageInfo{}
	for _, a := range u.Invited(from.id()) {
		if e, ok := packages[a.Installation]; ok {
			infos[a.Installation] = e.info
		}
	}
	proposals, _, err := u.Proposals(from.group.Extensions(), from.group.Members(), from.id(), infos)
	return proposals, err
}

// TestDM: a DM is created, its peer joins, both write, and nobody else gets in.
func TestDM(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.person(2), w.person(1), w.person(1)
	k := w.found(a, NewDM(a.inboxID, b.inboxID))
	creator := k.members[a.installation(0)]
	packages := w.keyPackages(a, b, c)
	proposals, err := k.membership(creator, []string{b.inboxID}, nil, packages)
	if err != nil {
		t.Fatal(err)
	}
	change, err := k.commit(creator, proposals, packages)
	if err != nil {
		t.Fatal(err)
	}
	if len(k.members) != 3 || !slices.Equal(change.Added, []string{b.inboxID}) {
		t.Errorf("%d members, %+v", len(k.members), change)
	}
	// The peer's first message comes after an empty commit.
	peer := k.members[b.installation(0)]
	if _, err := k.commit(peer, nil, nil); err != nil {
		t.Fatal(err)
	}
	k.send(peer, "hello")
	k.send(creator, "hello, too")
	proposals, err = k.membership(peer, []string{c.inboxID}, nil, packages)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.commit(peer, proposals, packages); !errors.Is(err, ErrNotPermitted) {
		t.Errorf("a third one: %v", err)
	}
	k.send(creator, "still here")
}

// TestLateMessages: a message of an earlier epoch is read if its sender still is in
// his place.
func TestLateMessages(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.person(1), w.person(1), w.person(1)
	k := w.found(a, NewGroup(a.inboxID))
	creator := k.members[a.installation(0)]
	packages := w.keyPackages(b, c)
	proposals, err := k.membership(creator, []string{b.inboxID, c.inboxID}, nil, packages)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.commit(creator, proposals, packages); err != nil {
		t.Fatal(err)
	}
	late := map[*participant][]byte{}
	for _, p := range []*person{b, c} {
		from := k.members[p.installation(0)]
		pending, err := from.group.Encrypt([]byte("late"), nil)
		if err != nil {
			t.Fatal(err)
		}
		late[from] = pending.Done()
	}
	proposals, err = k.membership(creator, nil, []string{b.inboxID}, packages)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.commit(creator, proposals, packages); err != nil {
		t.Fatal(err)
	}
	for from, message := range late {
		event, err := creator.group.Process(message)
		if err != nil {
			t.Fatal(err)
		}
		_, err = SenderOf(creator.group, event.Done().(*mls.ApplicationMessage))
		if from.person == c && err != nil {
			t.Errorf("of a member: %v", err)
		}
		if from.person == b && (!errors.Is(err, ErrInvalidSender) || !IsVerdict(err)) {
			t.Errorf("of one who was removed: %v", err)
		}
	}
}

// TestProposalsDropped: proposals on their own are nothing to this network.
func TestProposalsDropped(t *testing.T) {
	w := newWorld(t)
	a, b := w.person(1), w.person(1)
	k := w.found(a, NewGroup(a.inboxID))
	creator := k.members[a.installation(0)]
	packages := w.keyPackages(b)
	proposals, err := k.membership(creator, []string{b.inboxID}, nil, packages)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.commit(creator, proposals, packages); err != nil {
		t.Fatal(err)
	}
	other := k.members[b.installation(0)]
	proposed, err := other.group.Propose(mls.Remove{Leaf: creator.group.OwnLeaf()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	message := proposed.Done()
	event, err := creator.group.Process(message)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := event.Result().(*mls.ReceivedProposal); !ok {
		t.Fatalf("%T", event.Result())
	}
	event.Discard()
	// A commit that refers to it finds nothing.
	commit, err := other.group.Commit(mls.CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = creator.group.Process(commit.Result().Message); !errors.Is(err, mls.ErrUnknownProposal) {
		t.Errorf("commit by reference: %v", err)
	}
	commit.Discard()
	k.send(creator, "nothing happened")
}

// TestRandomTalk: whatever members do, all agree on whether it counts, and on what
// the group is then.
func TestRandomTalk(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRoom(t)
		crowd := []*person{r.alix, r.bo, r.caro, r.dana}
		k := r.found(r.alix, NewGroup(r.alix.inboxID))
		packages := r.keyPackages(crowd...)
		creator := k.members[r.alix.installation(0)]
		proposals, err := k.membership(creator, []string{r.bo.inboxID, r.caro.inboxID}, nil, packages)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.commit(creator, proposals, packages); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			if len(k.members) == 0 {
				return
			}
			ids := make(installations)
			for id := range k.members {
				ids.add(id)
			}
			from := k.members[rapid.SampledFrom(ids.sorted()).Draw(rt, "from")]
			whom := rapid.SampledFrom(crowd).Draw(rt, "whom")
			proposals, err := k.randomCommit(rt, from, whom, packages)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.commit(from, proposals, packages); err != nil && !IsVerdict(err) {
				t.Fatal(err)
			}
			if k.members[from.id()] != nil {
				k.send(from, "after it")
			}
		}
	})
}

func (k *talk) randomCommit(rt *rapid.T, from *participant, whom *person, packages keyPackages) ([]mls.Proposal, error) {
	exts := from.group.Extensions()
	state, err := ParseGroupState(exts)
	if err != nil {
		return nil, err
	}
	m := state.Mutable.Clone()
	switch rapid.IntRange(0, 8).Draw(rt, "step") {
	case 0:
		return k.membership(from, []string{whom.inboxID}, nil, packages)
	case 1:
		return k.membership(from, nil, []string{whom.inboxID}, packages)
	case 2:
		k.install(whom)
		return k.membership(from, nil, nil, packages)
	case 3:
		if whom.at == k.next && len(whom.keys) > 1 { // installed a moment ago
			k.revoke(whom, len(whom.keys)-1)
		}
		return k.membership(from, nil, nil, packages)
	case 4:
		m.Attributes[AttributeName] = rapid.StringN(0, 40, 120).Draw(rt, "name")
		exts, err = WithMutableMetadata(exts, m)
	case 5:
		m.Admins = append(m.Admins, whom.inboxID)
		exts, err = WithMutableMetadata(exts, m)
	case 6:
		m.SuperAdmins = []string{whom.inboxID}
		exts, err = WithMutableMetadata(exts, m)
	case 7:
		exts, err = WithPermissions(exts, AdminOnlyPermissions())
	default:
		return nil, nil
	}
	return []mls.Proposal{mls.GroupContextExtensions{Extensions: exts}}, err
}
