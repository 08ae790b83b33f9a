package mls

import (
	"errors"
	"fmt"
	"testing"
)

// joinSuccessor lets a member of old into its successor.
func (m *member) joinSuccessor(old *Group, s *Successor, kp *PrivateKeyPackage) {
	m.t.Helper()
	m.group, m.store = nil, store{}
	p, err := old.JoinSuccessor(s.Welcome, kp, m.client.Signer, s.RatchetTree, m.config)
	m.group = done(m, p, err).Group
	m.check()
}

// successors makes what the members of a team are in another group.
func successors(t *testing.T, id CipherSuite, team []*member) (list []*member, packages []*PrivateKeyPackage) {
	t.Helper()
	for _, m := range team {
		next := newMemberOf(t, id, m.name(), m.config)
		list = append(list, next)
		packages = append(packages, newKeyPackage(t, next.client))
	}
	return list, packages
}

// A ReInit closes a group, which goes on with another suite and other extensions (§11.2).
func TestReInit(t *testing.T) {
	for _, byReference := range []bool{false, true} {
		t.Run(fmt.Sprint("by reference ", byReference), func(t *testing.T) {
			team := newTeam(t, testSuite, 3, Config{})
			r := ReInit{[]byte("next"), MLS10, P256AES128SHA256P256, []Extension{{0xff00, []byte("x")}}}
			var opts CommitOptions
			if byReference {
				message := team[1].propose(r)
				for _, m := range []*member{team[0], team[2]} {
					m.process(message)
				}
			} else {
				opts.Proposals = []Proposal{r}
			}
			late := team[2].group
			out := team[0].commit(opts)
			if out.Staged.ReInit == nil || out.Staged.ReInit.CipherSuite != 2 {
				t.Errorf("%+v", out.Staged)
			}
			tell(team, team[0], out)
			for _, m := range team {
				m.reload()
				if got, closed := m.group.ReInit(); !closed || string(got.GroupID) != "next" || got.CipherSuite != 2 {
					t.Errorf("%v, %v", got, closed)
				}
				if _, err := m.group.Encrypt(nil, nil); !errors.Is(err, ErrReInit) {
					t.Errorf("sent in a closed group: %v", err)
				}
				if _, err := m.group.Commit(CommitOptions{}); !errors.Is(err, ErrReInit) {
					t.Errorf("committed in a closed group: %v", err)
				}
				if _, err := m.group.GroupInfo(GroupInfoOptions{}); !errors.Is(err, ErrReInit) {
					t.Errorf("GroupInfo of a closed group: %v", err)
				}
			}
			next, packages := successors(t, 2, team)
			made, err := team[1].group.Reinitialize(SuccessorOptions{
				Client: next[1].client, Members: []*KeyPackage{packages[0].KeyPackage(), packages[2].KeyPackage()}, ExternalTree: byReference,
			}, Config{})
			s := done(next[1], made, err)
			next[1].group = s.Group
			next[1].check()
			next[1].reload()
			next[0].joinSuccessor(team[0].group, s, packages[0])
			next[2].joinSuccessor(late, s, packages[2])
			agree(t, next)
			chat(t, next)
			next = addMembers([]*member{next[1], next[0], next[2]}, 1)
			agree(t, next)

			// The Welcome is of no use to others.
			if _, err := Join(s.Welcome, packages[0], next[1].client.Signer, s.RatchetTree, Config{}); err == nil {
				t.Error("joined without the old group")
			}
			other := newTeam(t, testSuite, 1, Config{})[0]
			if _, err := other.group.JoinSuccessor(s.Welcome, packages[0], next[1].client.Signer, s.RatchetTree, Config{}); err == nil {
				t.Error("joined as the successor of another group")
			}
			if _, err := other.group.Reinitialize(SuccessorOptions{}, Config{}); !errors.Is(err, ErrSuccessor) {
				t.Errorf("reinitialized an open group: %v", err)
			}
		})
	}
}

// The members refuse a successor that is not what was agreed on (§11.2).
func TestReInitOtherwise(t *testing.T) {
	team := newTeam(t, testSuite, 2, Config{})
	agreed := ReInit{[]byte("next"), MLS10, testSuite, nil}
	tell(team, team[0], team[0].commit(CommitOptions{Proposals: []Proposal{agreed}}))
	for name, other := range map[string]ReInit{
		"group id":   {[]byte("other"), MLS10, testSuite, nil},
		"suite":      {[]byte("next"), MLS10, 1, nil},
		"extensions": {[]byte("next"), MLS10, testSuite, []Extension{{0xff00, nil}}},
	} {
		t.Run(name, func(t *testing.T) {
			next, packages := successors(t, other.CipherSuite, team)
			team[0].group.current.reinit = &other
			p, err := team[0].group.Reinitialize(SuccessorOptions{Client: next[0].client, Members: []*KeyPackage{packages[1].KeyPackage()}}, Config{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := team[1].group.JoinSuccessor(p.Done().Welcome, packages[1], next[1].client.Signer, nil, Config{}); !errors.Is(err, ErrSuccessor) {
				t.Error(err)
			}
		})
	}
}

// A ReInit goes alone, after all else (§12.2).
func TestReInitRules(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{})
	r := ReInit{[]byte("next"), MLS10, testSuite, nil}
	if _, err := team[0].group.Commit(CommitOptions{Proposals: []Proposal{r, Remove{2}}}); !errors.Is(err, ErrInvalidProposals) {
		t.Errorf("with another: %v", err)
	}
	r.Version = 0
	if _, err := team[0].group.Propose(r, nil); !errors.Is(err, ErrInvalidProposals) {
		t.Errorf("to an older version: %v", err)
	}
	r.Version = MLS10
	for _, p := range []Proposal{r, Remove{2}} {
		message := team[0].propose(p)
		for _, m := range team[1:] {
			m.process(message)
		}
	}
	out := team[1].commit(CommitOptions{})
	if out.Staged.ReInit != nil || len(out.Staged.Removed) != 1 {
		t.Errorf("%+v", out.Staged)
	}
	tell(team, team[1], out)
	agree(t, team[:2])
}

// Members can go on as if ReInit were nothing.
func TestIgnoreReInit(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{IgnoreReInit: true})
	tell(team, team[0], team[0].commit(CommitOptions{Proposals: []Proposal{ReInit{Version: MLS10}, Remove{2}}}))
	team = team[:2]
	agree(t, team)
	chat(t, team)
	if _, closed := team[1].group.ReInit(); closed {
		t.Error("the group is closed")
	}
}

// Some members branch off, at an epoch that others have left behind (§11.3).
func TestBranch(t *testing.T) {
	team := newTeam(t, testSuite, 4, Config{})
	next, packages := successors(t, testSuite, team[:3])
	opts := SuccessorOptions{
		Client: next[0].client, GroupID: []byte("branch"), Extensions: []Extension{{0xff01, []byte("y")}},
		Members: []*KeyPackage{packages[1].KeyPackage(), packages[2].KeyPackage()},
	}
	p, err := team[0].group.Branch(opts, Config{})
	s := done(next[0], p, err)
	next[0].group = s.Group
	next[0].check()
	next[1].joinSuccessor(team[1].group, s, packages[1])
	tell(team, team[3], team[3].commit(CommitOptions{}))
	next[2].joinSuccessor(team[2].group, s, packages[2])
	agree(t, next)
	chat(t, next)
	chat(t, team)

	// Strangers can't be in it.
	stranger := newMemberOf(t, testSuite, "stranger", Config{})
	kp := newKeyPackage(t, stranger.client)
	opts.Members = []*KeyPackage{packages[1].KeyPackage(), kp.KeyPackage()}
	if _, err := team[0].group.Branch(opts, Config{}); !errors.Is(err, ErrSuccessor) {
		t.Errorf("branched with a stranger: %v", err)
	}
	team[0].group.config.SameIdentity = func(a, b Credential) bool { return true }
	p, err = team[0].group.Branch(opts, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := team[1].group.JoinSuccessor(p.Done().Welcome, packages[1], next[1].client.Signer, nil, Config{}); !errors.Is(err, ErrSuccessor) {
		t.Errorf("joined a branch with a stranger: %v", err)
	}
	// A Welcome that is bound to nothing is no branch's.
	out := team[0].commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}})
	if _, err := team[1].group.JoinSuccessor(out.Welcome, kp, stranger.client.Signer, nil, Config{}); !errors.Is(err, ErrSuccessor) {
		t.Errorf("joined a group that is no branch: %v", err)
	}
	if _, err := Join(s.Welcome, packages[1], next[1].client.Signer, nil, Config{}); !errors.Is(err, ErrInvalidProposals) {
		t.Errorf("joined a branch as any group: %v", err)
	}
}
