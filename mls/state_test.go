package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// golden is a stored group, and what it has to do when it is loaded.
type golden struct {
	About   string         `json:"about"`
	Signer  hexBytes       `json:"signature_private_key"`
	Records []goldenRecord `json:"records"`

	// Late and Next are messages of the epoch before and of the current one;
	// Echo is the own commit that waits, which leads to Authenticator.
	Late          hexBytes `json:"late_message"`
	Next          hexBytes `json:"next_message"`
	Echo          hexBytes `json:"own_commit"`
	After         hexBytes `json:"message_after_commit"`
	Authenticator hexBytes `json:"epoch_authenticator"`
}

type goldenRecord struct {
	Kind  RecordKind `json:"kind"`
	Key   hexBytes   `json:"key"`
	Value hexBytes   `json:"value"`
}

// makeGolden plays a group until each kind of record is in a member's store.
func makeGolden(t *testing.T) *golden {
	t.Helper()
	private, err := GenerateSignatureKey(testSuite)
	if err != nil {
		t.Fatal(err)
	}
	team := newTeam(t, testSuite, 4, Config{})
	bob := newMemberOf(t, testSuite, "bob", Config{})
	if bob.client.Signer, err = NewSigner(testSuite, private); err != nil {
		t.Fatal(err)
	}
	kp := newKeyPackage(t, bob.client)
	out := team[0].commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}})
	for _, m := range team[1:] {
		m.process(out.Message)
	}
	bob.join(out, kp)
	team = append(team, bob)
	everybody := func(by *member, message []byte) {
		for _, m := range team {
			if m != by {
				m.process(message)
			}
		}
	}
	team[1].encrypt("a generation that is skipped")
	bob.reads(team[1].encrypt("read"), "read")
	g := &golden{
		Signer: private, Late: team[1].encrypt("late"),
	}
	out = team[2].commit(CommitOptions{Proposals: []Proposal{Remove{3}, GroupContextExtensions{[]Extension{{0xff00, []byte("golden")}}}}})
	everybody(team[2], out.Message)
	team = slices.Delete(team, 3, 4)
	bob.encrypt("own")
	g.Next = team[2].encrypt("next")
	everybody(team[0], team[0].propose(CustomProposal{0xf001, []byte("custom")}))
	p, err := bob.group.ProposeUpdate(nil, nil)
	everybody(bob, done(bob, p, err))
	commit, err := bob.group.Commit(CommitOptions{})
	own := done(bob, commit, err)
	g.Echo = own.Message
	for key := range bob.store {
		r := bob.store[key]
		g.Records = append(g.Records, goldenRecord{r.Kind, r.Key, r.Value})
	}
	slices.SortFunc(g.Records, func(a, b goldenRecord) int {
		if a.Kind != b.Kind {
			return int(a.Kind) - int(b.Kind)
		}
		return bytes.Compare(a.Key, b.Key)
	})
	team[0].process(own.Message)
	g.After = team[0].encrypt("after")
	g.Authenticator = team[0].group.EpochAuthenticator()
	return g
}

// TestGoldenState loads the first state that was ever stored in version 1: before there
// were forward-secure exporters, and with whole paths in own commits.
func TestGoldenState(t *testing.T) {
	g := readTestdata[golden](t, "state_v1.json")
	signer, err := NewSigner(testSuite, g.Signer)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, client: Client{Signer: signer}, store: store{}}
	kinds := map[RecordKind]bool{}
	for _, r := range g.Records {
		m.store.apply([]Record{{r.Kind, r.Key, r.Value}})
		kinds[r.Kind] = true
	}
	for kind := kindEpoch; kind <= kindOwnCommit; kind++ {
		if !kinds[kind] {
			t.Errorf("no record of kind %d", kind)
		}
	}
	m.reload()
	m.check()
	if data, _ := m.group.Extension(0xff00); string(data) != "golden" || m.group.Epoch() != 3 {
		t.Errorf("extension %q in epoch %d", data, m.group.Epoch())
	}
	m.reads(g.Late, "late")
	m.reads(g.Next, "next")
	s, ok := m.process(g.Echo).(*StagedCommit)
	if !ok || !s.Own || len(s.Proposals) != 1 {
		t.Fatalf("own commit: %+v", s)
	}
	equal(t, "epoch authenticator", m.group.EpochAuthenticator(), g.Authenticator)
	m.reads(g.After, "after")
}

// What a message writes doesn't depend on the size of the group, and what a commit
// in a warm tree writes grows with its logarithm only.
func TestRecordSizes(t *testing.T) {
	size := func(records []Record) (n int) {
		for _, r := range records {
			n += len(r.Key) + len(r.Value)
		}
		return n
	}
	type sizes struct{ sent, received, commit int }
	measure := func(n int) (s sizes) {
		team := newTeam(t, testSuite, n, Config{})
		for _, m := range team { // fill the tree, as far as alice and bob are concerned
			out := m.commit(CommitOptions{})
			for _, other := range team {
				if other != m {
					other.process(out.Message)
				}
			}
		}
		alice, bob := team[0], team[1]
		bob.reads(alice.encrypt("first"), "first")
		sent, err := alice.group.Encrypt(make([]byte, 1000), nil)
		if err != nil {
			t.Fatal(err)
		}
		s.sent = size(sent.Changes())
		received, err := bob.group.Process(done(alice, sent, nil))
		if err != nil {
			t.Fatal(err)
		}
		s.received = size(received.Changes())
		done(bob, received, nil)
		p, err := alice.group.Commit(CommitOptions{})
		out := done(alice, p, err)
		staged, err := bob.group.Process(out.Message)
		if err != nil {
			t.Fatal(err)
		}
		s.commit = size(staged.Changes())
		return s
	}
	small, middle, large := measure(4), measure(8), measure(16)
	if small.sent != large.sent || small.received != large.received || small.sent > 200 || small.received > 200 {
		t.Errorf("message records of %d and %d bytes at 4 members, %d and %d at 16", small.sent, small.received, large.sent, large.received)
	}
	perLevel := middle.commit - small.commit
	if d := large.commit - middle.commit; d > perLevel+50 || perLevel > 400 {
		t.Errorf("commit records of %d, %d, %d bytes at 4, 8, 16 members", small.commit, middle.commit, large.commit)
	}
	t.Logf("a message writes %d bytes when sent, %d when received; a commit %d, %d, %d at 4, 8, 16 members", small.sent, small.received, small.commit, middle.commit, large.commit)
}

// A state that is incomplete, damaged or of another version is refused.
func TestLoadErrors(t *testing.T) {
	g := makeGolden(t)
	signer, err := NewSigner(testSuite, g.Signer)
	if err != nil {
		t.Fatal(err)
	}
	var records []Record
	for _, r := range g.Records {
		records = append(records, Record{r.Kind, r.Key, r.Value})
	}
	load := func(records []Record) error {
		_, err := Load(records, Config{}, signer)
		return err
	}
	if err := load(records); err != nil {
		t.Fatal(err)
	}
	if err := load(nil); !errors.Is(err, ErrState) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := Load(records, Config{}); !errors.Is(err, ErrSigner) {
		t.Errorf("no signer: %v", err)
	}
	if err := load(append(slices.Clone(records), Record{99, nil, []byte{1}})); !errors.Is(err, ErrState) || !errors.Is(err, ErrNewerState) {
		t.Errorf("unknown kind: %v", err)
	}
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
			// The key of an Update has no structure, which its use will show.
			err := load(changed)
			if !errors.Is(err, ErrState) && r.Kind != kindUpdate {
				t.Errorf("kind %d, %s: %v", r.Kind, tc.name, err)
			}
			newer := tc.name == "version" || tc.name == "unknown field" && slices.Contains([]RecordKind{kindEpoch, kindPast, kindOwnCommit}, r.Kind)
			if errors.Is(err, ErrNewerState) != newer {
				t.Errorf("kind %d, %s: %v", r.Kind, tc.name, err)
			}
		}
		switch r.Kind {
		case kindEpoch, kindContext:
			if err := load(slices.Delete(slices.Clone(records), i, i+1)); !errors.Is(err, ErrState) {
				t.Errorf("record of kind %d missing: %v", r.Kind, err)
			}
		}
	}
}

// FuzzLoad: whatever one of the records is, loading and then using the group doesn't
// panic.
func FuzzLoad(f *testing.F) {
	team := newTeam(f, testSuite, 3, Config{})
	bob := team[1]
	bob.process(team[0].propose(GroupContextExtensions{[]Extension{{0xff00, nil}}}))
	p, err := bob.group.Commit(CommitOptions{})
	done(bob, p, err)
	stored := bob.store.records()
	slices.SortFunc(stored, func(a, b Record) int {
		return bytes.Compare(append([]byte{byte(a.Kind)}, a.Key...), append([]byte{byte(b.Kind)}, b.Key...))
	})
	for i, r := range stored {
		f.Add(uint(i), r.Value)
	}
	f.Fuzz(func(t *testing.T, i uint, value []byte) {
		records := slices.Clone(stored)
		records[i%uint(len(records))].Value = value
		g, err := Load(records, Config{}, bob.client.Signer)
		if err != nil {
			return
		}
		_ = fmt.Sprint(g, g.Epoch(), g.ID())
		for m := range g.Members() {
			_ = m.LeafNode.Capabilities()
		}
		if p, err := g.Encrypt([]byte("x"), nil); err == nil {
			p.Changes()
			p.Done()
		}
		if p, err := g.Commit(CommitOptions{}); err == nil {
			p.Changes()
			p.Done()
		}
		if p, err := g.MergeOwnCommit(); err == nil {
			p.Changes()
			p.Done()
		}
	})
}
