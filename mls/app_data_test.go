package mls

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newDataTeam is a team whose members know updates of application data.
func newDataTeam(t *testing.T, n int, config Config, extensions ...Extension) []*member {
	t.Helper()
	newOne := func(name string) *member {
		m := newMemberOf(t, testSuite, name, config)
		m.client.Capabilities.Proposals = append(m.client.Capabilities.Proposals, ProposalAppDataUpdate, ProposalAppEphemeral)
		m.client.Capabilities.Extensions = append(m.client.Capabilities.Extensions, ExtensionAppDataDictionary)
		return m
	}
	team := []*member{newOne("member 0")}
	team[0].create(extensions...)
	var opts CommitOptions
	var packages []*PrivateKeyPackage
	for range n - 1 {
		m := newOne("member")
		packages = append(packages, newKeyPackage(t, m.client))
		opts.Proposals = append(opts.Proposals, Add{packages[len(packages)-1].KeyPackage()})
		team = append(team, m)
	}
	out := team[0].commit(opts)
	for i, m := range team[1:] {
		m.join(out, packages[i])
	}
	return team
}

// appData is what the group has.
func (m *member) appData() map[ComponentID]string {
	m.t.Helper()
	body, ok := m.group.Extension(ExtensionAppDataDictionary)
	if !ok {
		return nil
	}
	list, err := ParseAppDataDictionary(body)
	if err != nil {
		m.t.Fatal(err)
	}
	data := map[ComponentID]string{}
	for _, c := range list {
		data[c.Component] = string(c.Data)
	}
	return data
}

// appendUpdates is the logic of the components of these tests: updates are appended.
func appendUpdates(changes []AppDataChange) map[ComponentID][]byte {
	data := map[ComponentID][]byte{}
	for _, c := range changes {
		if !c.Remove {
			data[c.Component] = bytes.Join(append([][]byte{c.Current}, c.Updates...), nil)
		}
	}
	return data
}

// Updates of application data are applied by the application, in a second step
// (draft-ietf-mls-extensions).
func TestAppData(t *testing.T) {
	for _, public := range []bool{false, true} {
		team := newDataTeam(t, 3, Config{PublicHandshakes: public}, AppDataDictionary(ComponentData{7, []byte("a")}, ComponentData{3, []byte("z")}))
		alice, bob, carol := team[0], team[1], team[2]
		proposal := bob.propose(AppDataUpdate{Component: 7, Update: []byte("b")})
		for _, m := range []*member{alice, carol} {
			m.process(proposal)
		}
		opts := CommitOptions{
			Proposals: []Proposal{AppDataUpdate{Component: 9, Update: []byte("new")}, AppDataUpdate{Component: 3, Remove: true}, AppEphemeral{9, []byte("once")}},
			OmitPath:  true,
		}
		_, err := alice.group.Commit(opts)
		asked, ok := errors.AsType[*AppDataError](err)
		if !ok {
			t.Fatalf("committed without the new data: %v", err)
		}
		want := []AppDataChange{
			{Component: 9, Updates: [][]byte{[]byte("new")}},
			{Component: 3, Remove: true, Current: []byte("z"), Present: true},
			{Component: 7, Updates: [][]byte{[]byte("b")}, Current: []byte("a"), Present: true},
		}
		if diff := cmp.Diff(want, asked.Changes); diff != "" {
			t.Error(diff)
		}
		opts.AppData = appendUpdates(asked.Changes)
		out := alice.commit(opts)
		if out.Staged.HasPath {
			t.Error("an update of application data has a path")
		}
		for _, m := range []*member{bob, carol} {
			before := store{}
			before.apply(m.group.dump())
			p, err := m.group.Process(out.Message)
			u, ok := done(m, p, err).(*UnresolvedCommit)
			if !ok || !u.Committer.is(0) || len(u.Proposals) != 4 {
				t.Fatalf("%+v", u)
			}
			if diff := cmp.Diff(want, u.Changes); diff != "" {
				t.Error(diff)
			}
			after := store{}
			after.apply(m.group.dump())
			if diff := cmp.Diff(before, after); diff != "" {
				t.Error("an unresolved commit changes the state")
			}
			if m == carol {
				if _, err := u.Resolve(nil); !errors.Is(err, ErrInvalidProposals) {
					t.Errorf("resolved by nothing: %v", err)
				}
				if _, err := u.Resolve(map[ComponentID][]byte{7: []byte("other"), 9: nil}); !errors.Is(err, ErrConfirmationTag) {
					t.Errorf("resolved otherwise: %v", err)
				}
				m.check()
			}
			resolved, err := u.Resolve(appendUpdates(u.Changes))
			if s, ok := done(m, resolved, err).(*StagedCommit); !ok || len(s.Proposals) != 4 {
				t.Errorf("%+v", s)
			}
		}
		agree(t, team)
		chat(t, team)
		for _, m := range team {
			if diff := cmp.Diff(map[ComponentID]string{7: "ab", 9: "new"}, m.appData()); diff != "" {
				t.Error(diff)
			}
			m.reload()
		}
		// Nothing has to be known to remove data, or to join.
		out = bob.commit(CommitOptions{Proposals: []Proposal{AppDataUpdate{Component: 9, Remove: true}}})
		tell(team, bob, out)
		agree(t, team)
		if diff := cmp.Diff(map[ComponentID]string{7: "ab"}, carol.appData()); diff != "" {
			t.Error(diff)
		}
	}
}

// The rules of lists with updates of application data.
func TestAppDataRules(t *testing.T) {
	requires := RequiredCapabilities{Proposals: []ProposalType{ProposalAppDataUpdate}}.Extension()
	dictionary := AppDataDictionary(ComponentData{7, []byte("a")})
	team := newDataTeam(t, 2, Config{}, requires, dictionary)
	update, remove := AppDataUpdate{Component: 7, Update: []byte("b")}, AppDataUpdate{Component: 7, Remove: true}
	for _, tc := range []struct {
		name string
		list []Proposal
	}{
		{"removed twice", []Proposal{remove, remove}},
		{"removed and updated", []Proposal{update, remove}},
		{"updated after removal", []Proposal{remove, update}},
		{"nothing to remove", []Proposal{AppDataUpdate{Component: 8, Remove: true}}},
		{"extensions after it", []Proposal{update, GroupContextExtensions{[]Extension{requires, dictionary}}}},
		{"changed by extensions", []Proposal{GroupContextExtensions{[]Extension{requires, AppDataDictionary()}}}},
		{"dropped by extensions", []Proposal{GroupContextExtensions{[]Extension{requires}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			opts := CommitOptions{Proposals: tc.list, AppData: map[ComponentID][]byte{7: nil}}
			if _, err := team[0].group.Commit(opts); !errors.Is(err, ErrInvalidProposals) {
				t.Error(err)
			}
		})
	}
	out := team[0].commit(CommitOptions{
		Proposals: []Proposal{GroupContextExtensions{[]Extension{dictionary, requires, {0xff00, []byte("x")}}}, update},
		AppData:   map[ComponentID][]byte{7: []byte("c")},
	})
	p, err := team[1].group.Process(out.Message)
	u := done(team[1], p, err).(*UnresolvedCommit)
	resolved, err := u.Resolve(map[ComponentID][]byte{7: []byte("c")})
	done(team[1], resolved, err)
	agree(t, team)
	if exts := team[1].group.Extensions(); len(exts) != 3 || exts[0].Type != ExtensionAppDataDictionary {
		t.Errorf("extensions %v", exts)
	}
	if _, err := team[0].group.Propose(AppDataUpdate{Component: 8, Remove: true}, nil); !errors.Is(err, ErrInvalidProposals) {
		t.Errorf("proposed to remove nothing: %v", err)
	}
	// Members who don't know of it keep it out of the group.
	plain := newTeam(t, testSuite, 2, Config{})
	if _, err := plain[0].group.Commit(CommitOptions{Proposals: []Proposal{update}, AppData: map[ComponentID][]byte{7: nil}}); !errors.Is(err, ErrUnsupportedProposal) {
		t.Errorf("committed to members who don't know it: %v", err)
	}
	for _, body := range [][]byte{{1}, {8, 0, 7, 1, 1, 0, 7, 1, 1}, {8, 0, 7, 1, 1, 0, 3, 1, 1}, {4, 0, 7, 1, 1, 0}} {
		if _, err := ParseAppDataDictionary(body); !errors.Is(err, ErrMalformed) {
			t.Errorf("%x: %v", body, err)
		}
	}
}

// All members take the same secret of a component, once in each epoch.
func TestSafeExport(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{})
	take := func(m *member, c ComponentID) []byte {
		t.Helper()
		p, err := m.group.SafeExport(c)
		return done(m, p, err)
	}
	first := take(team[0], 5)
	for _, m := range team[1:] {
		p, err := m.group.SafeExport(5)
		if err != nil {
			t.Fatal(err)
		}
		p.Discard()
		m.check()
		if !bytes.Equal(take(m, 5), first) {
			t.Error("members take different secrets")
		}
		m.reload()
		if _, err := m.group.SafeExport(5); !errors.Is(err, ErrSecretReused) {
			t.Errorf("taken twice: %v", err)
		}
		if bytes.Equal(take(m, 4), first) {
			t.Error("components share a secret")
		}
	}
	tell(team, team[1], team[1].commit(CommitOptions{}))
	if next := take(team[0], 5); bytes.Equal(next, first) || !bytes.Equal(take(team[2], 5), next) {
		t.Error("the secret of the next epoch")
	}
	tell(team, team[0], team[0].commit(CommitOptions{Proposals: []Proposal{Remove{2}}}))
	if _, err := team[2].group.SafeExport(6); !errors.Is(err, ErrInactive) {
		t.Errorf("taken by who is removed: %v", err)
	}
}

// Components have pre-shared keys of their own (draft-ietf-mls-extensions).
func TestApplicationPSK(t *testing.T) {
	config := Config{PreSharedKey: func(id PreSharedKeyID) ([]byte, error) {
		if id.Type == PSKApplication && id.Component == 7 && string(id.ID) == "file" {
			return []byte("what the file says"), nil
		}
		return nil, errors.New("unknown")
	}}
	team := newTeam(t, testSuite, 2, config)
	tell(team, team[0], team[0].commit(CommitOptions{Proposals: []Proposal{PreSharedKey{PreSharedKeyID{Type: PSKApplication, Component: 7, ID: []byte("file")}}}}))
	agree(t, team)
	if _, err := team[0].group.Commit(CommitOptions{Proposals: []Proposal{PreSharedKey{PreSharedKeyID{Type: PSKExternal, ID: []byte("file")}}}}); !errors.Is(err, ErrPreSharedKey) {
		t.Errorf("an external key: %v", err)
	}
}
