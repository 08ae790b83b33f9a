package mls

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files of stored states that are missing")

// aboutGolden is in each golden file: a state that was stored once must load for ever,
// so that a new version adds files and changes none.
const aboutGolden = "Stored by this package, for its tests. Every later version has to load it; never write it anew."

// scene is a group as all its members have stored it, and what they still have to read.
type scene struct {
	About   string        `json:"about"`
	Suite   CipherSuite   `json:"cipher_suite"`
	Members []sceneMember `json:"members"`

	// Messages that were sent before, by name.
	Messages map[string][]byte `json:"messages"`
}

type sceneMember struct {
	Name    string   `json:"name"`
	Signer  []byte   `json:"signature_private_key"`
	Records []Record `json:"records"`
}

// storedScene is the scene in a golden file, which is written first if it is missing
// and to be updated, and its members, loaded.
func storedScene(t *testing.T, name string, play func(t *testing.T) *scene) (*scene, []*member) {
	t.Helper()
	if _, err := os.Stat("testdata/" + name); errors.Is(err, fs.ErrNotExist) && *update {
		b, err := json.MarshalIndent(play(t), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/"+name, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := readTestdata[*scene](t, name)
	var team []*member
	for _, stored := range s.Members {
		if stored.Signer == nil {
			continue // a follower
		}
		m := newSceneMember(t, s.Suite, stored.Name, stored.Signer)
		m.store.apply(stored.Records)
		m.reload()
		m.check()
		team = append(team, m)
	}
	return s, team
}

func newSceneMember(t *testing.T, id CipherSuite, name string, private []byte) *member {
	t.Helper()
	m := newMemberOf(t, id, name, Config{})
	var err error
	if m.client.Signer, err = NewSigner(id, private, moreSuites...); err != nil {
		t.Fatal(err)
	}
	return m
}

// newSceneTeam makes members whose signature keys can be stored, and a group of the
// first of them with some others.
func newSceneTeam(t *testing.T, id CipherSuite, names []string, inGroup int) (team []*member, s *scene) {
	t.Helper()
	s = &scene{About: aboutGolden, Suite: id, Messages: map[string][]byte{}}
	var opts CommitOptions
	var packages []*PrivateKeyPackage
	for i, name := range names {
		private, err := GenerateSignatureKey(id, moreSuites...)
		if err != nil {
			t.Fatal(err)
		}
		m := newSceneMember(t, id, name, private)
		team = append(team, m)
		s.Members = append(s.Members, sceneMember{Name: name, Signer: private})
		if i > 0 && i < inGroup {
			packages = append(packages, newKeyPackage(t, m.client))
			opts.Proposals = append(opts.Proposals, Add{packages[i-1].KeyPackage()})
		}
	}
	team[0].create()
	out := team[0].commit(opts)
	for i, kp := range packages {
		team[i+1].join(out, kp)
	}
	return team, s
}

// keep puts what the members have stored into the scene.
func (s *scene) keep(team []*member) {
	for i, m := range team {
		records := m.store.records()
		slices.SortFunc(records, func(a, b Record) int {
			return bytes.Compare(append([]byte{byte(a.Kind)}, a.Key...), append([]byte{byte(b.Kind)}, b.Key...))
		})
		s.Members[i].Records = records
	}
}

// playGroup is a group in which everything waits that can: proposals, an Update, a
// commit, messages that were skipped. Carol came by an external commit, dave is removed.
func playGroup(t *testing.T) *scene {
	team, s := newSceneTeam(t, testSuite, []string{"alice", "bob", "dave", "carol"}, 3)
	alice, bob, dave, carol := team[0], team[1], team[2], team[3]
	s.Messages["late"] = bob.encrypt("late")
	out := alice.commit(CommitOptions{Proposals: []Proposal{Remove{dave.group.OwnLeaf()}, GroupContextExtensions{[]Extension{{0xff00, []byte("golden")}}}}})
	bob.process(out.Message)
	dave.process(out.Message)
	message := carol.joinExternal(alice.groupInfo(GroupInfoOptions{}), ExternalJoinOptions{})
	alice.process(message)
	bob.process(message)
	members := []*member{alice, bob, carol}

	s.Messages["skipped"] = alice.encrypt("skipped")
	bob.reads(alice.encrypt("read"), "read")
	s.Messages["next"] = alice.encrypt("next")
	p, err := carol.group.SafeExport(5)
	s.Messages["exported"] = done(carol, p, err)
	proposal := carol.propose(CustomProposal{0xf001, []byte("custom")})
	alice.process(proposal)
	bob.process(proposal)
	u, err := bob.group.ProposeUpdate(nil, nil)
	proposal = done(bob, u, err)
	alice.process(proposal)
	carol.process(proposal)
	c, err := alice.group.Commit(CommitOptions{})
	s.Messages["commit"] = done(alice, c, err).Message
	for _, m := range members {
		m.check()
	}
	s.keep(team)
	return s
}

// TestGoldenGroup goes on with a group that was stored in version 1, after the package
// had external commits and the forward-secure exporter.
func TestGoldenGroup(t *testing.T) {
	s, team := storedScene(t, "state_v1_group.json", playGroup)
	alice, bob, dave, carol := team[0], team[1], team[2], team[3]
	if dave.group.Active() || !carol.group.Active() {
		t.Error("who is a member")
	}
	for _, m := range []*member{alice, carol} {
		if data, _ := m.group.Extension(0xff00); string(data) != "golden" || m.group.Epoch() != 3 {
			t.Errorf("%s: extension %q in epoch %d", m.name(), data, m.group.Epoch())
		}
	}
	alice.reads(s.Messages["late"], "late")
	bob.reads(s.Messages["skipped"], "skipped")
	bob.reads(s.Messages["next"], "next")
	carol.reads(s.Messages["next"], "next")
	if _, err := carol.group.SafeExport(5); !errors.Is(err, ErrSecretReused) {
		t.Errorf("exported twice: %v", err)
	}
	p, err := bob.group.SafeExport(5)
	equal(t, "exported secret", done(bob, p, err), s.Messages["exported"])
	if own, ok := alice.process(s.Messages["commit"]).(*StagedCommit); !ok || !own.Own || len(own.Proposals) != 2 {
		t.Fatalf("own commit: %+v", own)
	}
	for _, m := range []*member{bob, carol} {
		m.process(s.Messages["commit"])
	}
	team = []*member{alice, bob, carol}
	goOn(t, team)
}

// playClosed is a group that goes on in another one.
func playClosed(t *testing.T) *scene {
	team, s := newSceneTeam(t, P256AES128SHA256P256, []string{"alice", "bob"}, 2)
	out := team[0].commit(CommitOptions{Proposals: []Proposal{ReInit{[]byte("next"), MLS10, testSuite, []Extension{{0xff00, []byte("x")}}}}})
	team[1].process(out.Message)
	s.keep(team)
	return s
}

// TestGoldenClosedGroup goes on after the end of a group that was stored in version 1.
func TestGoldenClosedGroup(t *testing.T) {
	_, team := storedScene(t, "state_v1_closed.json", playClosed)
	for _, m := range team {
		if r, closed := m.group.ReInit(); !closed || string(r.GroupID) != "next" {
			t.Errorf("%s: %v, %v", m.name(), r, closed)
		}
	}
	next, packages := successors(t, testSuite, team)
	p, err := team[0].group.Reinitialize(SuccessorOptions{Client: next[0].client, Members: []*KeyPackage{packages[1].KeyPackage()}}, next[0].config)
	made := done(next[0], p, err)
	next[0].group = made.Group
	next[1].joinSuccessor(team[1].group, made, packages[1])
	goOn(t, next)
}

// playFollowed is a group that is followed, with a proposal that waits.
func playFollowed(t *testing.T) *scene {
	team, s := newSceneTeam(t, testSuite, []string{"alice", "bob"}, 2)
	p, err := NewFollower(team[0].groupInfo(GroupInfoOptions{}), nil, Config{})
	if err != nil {
		t.Fatal(err)
	}
	followed := store{}
	followed.apply(p.Changes())
	f := p.Done()
	team[0].group.config.PublicHandshakes = true
	proposal := team[0].propose(GroupContextExtensions{[]Extension{{0xff00, []byte("golden")}}})
	team[1].process(proposal)
	seen, err := f.Process(proposal)
	if err != nil {
		t.Fatal(err)
	}
	followed.apply(seen.Changes())
	seen.Done()
	s.Members = append(s.Members, sceneMember{Name: "follower"})
	s.keep(append(team, &member{store: followed}))
	return s
}

// TestGoldenFollower goes on to follow a group that was stored in version 1.
func TestGoldenFollower(t *testing.T) {
	s, team := storedScene(t, "state_v1_follower.json", playFollowed)
	f, err := LoadFollower(s.Members[2].Records, Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range team {
		m.config.PublicHandshakes, m.group.config.PublicHandshakes = true, true
	}
	for _, m := range team {
		out := m.commit(CommitOptions{})
		tell(team, m, out)
		p, err := f.Process(out.Message)
		if err != nil {
			t.Fatal(err)
		}
		p.Done()
		equal(t, "tree hash", f.TreeHash(), m.group.TreeHash())
		equal(t, "context", f.Context(), m.group.Context())
	}
	if data, _ := f.Extension(0xff00); string(data) != "golden" {
		t.Errorf("extension %q", data)
	}
	goOn(t, team)
}

// goOn is a conversation and a commit of each.
func goOn(t *testing.T, team []*member) {
	t.Helper()
	agree(t, team)
	chat(t, team)
	for _, m := range team {
		tell(team, m, m.commit(CommitOptions{}))
		m.reload()
	}
	agree(t, team)
	chat(t, team)
}

// Together the golden files have each kind of record and each field that there is.
func TestGoldenFilesAreWhole(t *testing.T) {
	var records []Record
	for _, r := range readTestdata[golden](t, "state_v1.json").Records {
		records = append(records, Record{r.Kind, r.Key, r.Value})
	}
	for _, name := range []string{"state_v1_group.json", "state_v1_closed.json", "state_v1_follower.json"} {
		for _, m := range readTestdata[scene](t, name).Members {
			records = append(records, m.Records...)
		}
	}
	kinds, numbers := map[RecordKind]bool{}, map[byte]bool{}
	for _, r := range records {
		kinds[r.Kind] = true
		if slices.Contains([]RecordKind{kindEpoch, kindPast, kindOwnCommit}, r.Kind) {
			for number := range readFields(r.Value).values {
				numbers[number] = true
			}
		}
	}
	for kind := kindEpoch; kind <= kindOwnCommit; kind++ {
		if !kinds[kind] {
			t.Errorf("no record of kind %d", kind)
		}
	}
	for _, of := range [][2]byte{{fieldEpoch, fieldExport}, {fieldHash, fieldRatchets}, {fieldSenderData, fieldResumption}} {
		for number := of[0]; number <= of[1]; number++ {
			if !numbers[number] {
				t.Errorf("no field %d", number)
			}
		}
	}
}
