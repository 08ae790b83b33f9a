package mls

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// store keeps the records of one group as an application would.
type store map[string]Record

func (s store) apply(changes []Record) {
	for _, r := range changes {
		key := fmt.Sprintf("%d/%x", r.Kind, r.Key)
		if r.Value == nil {
			delete(s, key)
		} else {
			s[key] = Record{r.Kind, bytes.Clone(r.Key), bytes.Clone(r.Value)}
		}
	}
}

func (s store) records() []Record { return slices.Collect(maps.Values(s)) }

// member is one participant of a test, with its store.
type member struct {
	t      testing.TB
	client Client
	group  *Group
	store  store
	config Config
	shadow *shadow // follows the group by what the member gets; nil if nobody does
}

func (m *member) name() string { return string(m.client.Credential.Data) }

// done stores the changes of a pending result and completes it.
func done[T any](m *member, p *Pending[T], err error) T {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%s: %v", m.name(), err)
	}
	m.store.apply(p.Changes())
	result := p.Done()
	if m.group != nil {
		m.check()
	}
	return result
}

// check checks that the store has all of the group's state and nothing else.
func (m *member) check() {
	m.t.Helper()
	whole := store{}
	whole.apply(m.group.dump())
	same := maps.EqualFunc(m.store, whole, func(a, b Record) bool { return bytes.Equal(a.Value, b.Value) })
	if !same {
		m.t.Fatalf("%s: the changes do not add up to the state (-stored +state):\n%s", m.name(), cmp.Diff(m.store, whole))
	}
}

// dump is the whole state of a group.
func (g *Group) dump() []Record {
	e := g.current
	records := []Record{g.epochRecord(e, g.inactive), contextRecord(e)}
	t := e.tree
	if g.parked != nil {
		t = readRatchetTree(wire.NewReader(wire.AppendOpaque(nil, g.parked.bytes)), e.suite)
	}
	for x := range t.width() {
		if raw := t.node(x); raw != nil {
			records = append(records, nodeRecord(x, raw))
		}
	}
	records = appendTreeRecords(records, e)
	for _, p := range g.past {
		records = append(records, p.record(), Record{kindContext, epochKey(p.number), append(recordValue(), p.context...)})
		for _, r := range p.messages.Records() {
			records = append(records, keyRecord(p.number, r))
		}
	}
	for i, p := range g.proposals {
		records = append(records, p.record(i))
	}
	for public, private := range g.updates {
		records = append(records, updateRecord([]byte(public), private))
	}
	if g.ownCommit != nil {
		records = append(records, g.ownCommitRecord(g.ownCommit))
	}
	return records
}

// reload replaces the group by what the store has of it.
func (m *member) reload() {
	m.t.Helper()
	g, err := Load(m.store.records(), m.config, m.client.Signer)
	if err != nil {
		m.t.Fatalf("%s: %v", m.name(), err)
	}
	m.group = g
}

func (m *member) process(message []byte) Event {
	m.t.Helper()
	p, err := m.group.Process(message)
	event := done(m, p, err)
	if m.shadow != nil {
		m.shadow.process(message)
		if m.group.Active() {
			m.shadow.agrees(m)
		}
	}
	return event
}

// processFails checks that a message is refused with an error.
func (m *member) processFails(message []byte, want error) {
	m.t.Helper()
	p, err := m.group.Process(message)
	if !errors.Is(err, want) || err == nil {
		m.t.Fatalf("%s: got %v, %v, want %v", m.name(), p, err, want)
	}
	if m.shadow != nil {
		m.shadow.refuses(message, err, want)
	}
}

func (m *member) encrypt(text string) []byte {
	m.t.Helper()
	p, err := m.group.Encrypt([]byte(text), nil)
	return done(m, p, err)
}

func (m *member) propose(p Proposal) []byte {
	m.t.Helper()
	out, err := m.group.Propose(p, nil)
	return done(m, out, err)
}

// commit makes a commit and merges it.
func (m *member) commit(opts CommitOptions) *OutgoingCommit {
	m.t.Helper()
	p, err := m.group.Commit(opts)
	out := done(m, p, err)
	merged, err := m.group.MergeOwnCommit()
	done(m, merged, err)
	return out
}

// reads checks that a message has a text.
func (m *member) reads(message []byte, text string) {
	m.t.Helper()
	event := m.process(message)
	if a, ok := event.(*ApplicationMessage); !ok || string(a.Data) != text {
		m.t.Fatalf("%s: read %v, want %q", m.name(), event, text)
	}
}

func newMemberOf(t testing.TB, id CipherSuite, name string, config Config) *member {
	c := newClient(t, id, name)
	c.Capabilities.Proposals = []ProposalType{ProposalSelfRemove, 0xf001}
	c.Capabilities.Extensions = []ExtensionType{0xff00, 0xff01, ExtensionLastResort}
	config.Suites = moreSuites
	return &member{t: t, client: c, store: store{}, config: config}
}

// create makes the group of one member.
func (m *member) create(extensions ...Extension) {
	m.t.Helper()
	m.group = nil
	p, err := New([]byte("group"), m.client, extensions, m.config)
	m.group = done(m, p, err)
	m.check()
}

// join lets a member in by a Welcome.
func (m *member) join(out *OutgoingCommit, kp *PrivateKeyPackage) {
	m.t.Helper()
	m.group, m.store = nil, store{}
	p, err := Join(out.Welcome, kp, m.client.Signer, out.RatchetTree, m.config)
	m.group = done(m, p, err).Group
	m.check()
}

// newTeam makes a group of n members by one commit of the first.
func newTeam(t testing.TB, id CipherSuite, n int, config Config) []*member {
	t.Helper()
	team := []*member{newMemberOf(t, id, "member 0", config)}
	team[0].create()
	if n > 1 {
		team = addMembers(team, n-1)
	}
	return team
}

// addMembers lets the first of a team add n members.
func addMembers(team []*member, n int) []*member {
	m := team[0]
	m.t.Helper()
	var opts CommitOptions
	var packages []*PrivateKeyPackage
	var joining []*member
	for i := range n {
		j := newMemberOf(m.t, m.client.CipherSuite, fmt.Sprint("member ", len(team)+i), m.config)
		kp := newKeyPackage(m.t, j.client)
		packages = append(packages, kp)
		joining = append(joining, j)
		opts.Proposals = append(opts.Proposals, Add{kp.KeyPackage()})
	}
	out := m.commit(opts)
	for _, other := range team[1:] {
		other.process(out.Message)
	}
	for i, j := range joining {
		j.join(out, packages[i])
	}
	return append(team, joining...)
}

// agree checks that all members are in the same state.
func agree(t testing.TB, team []*member) {
	t.Helper()
	a := team[0].group
	want, err := a.Export("test", []byte("context"), 40)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range team[1:] {
		b := m.group
		got, err := b.Export("test", []byte("context"), 40)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Context(), b.Context()) || !bytes.Equal(a.TreeHash(), b.TreeHash()) ||
			!bytes.Equal(a.EpochAuthenticator(), b.EpochAuthenticator()) || !bytes.Equal(got, want) ||
			!bytes.Equal(a.RatchetTree(), b.RatchetTree()) {
			t.Fatalf("%s and %s differ in epochs %d and %d", team[0].name(), m.name(), a.Epoch(), b.Epoch())
		}
	}
}

// chat lets everybody write and everybody read.
func chat(t testing.TB, team []*member) {
	t.Helper()
	for _, from := range team {
		text := fmt.Sprint("from ", from.name(), " in ", from.group.Epoch())
		message := from.encrypt(text)
		for _, to := range team {
			if to != from {
				to.reads(message, text)
			}
		}
	}
}

func TestConversation(t *testing.T) {
	for _, id := range allSuites {
		for _, config := range []Config{{}, {PublicHandshakes: true}} {
			t.Run(fmt.Sprint("suite ", id, " public ", config.PublicHandshakes), func(t *testing.T) {
				team := newTeam(t, id, 4, config)
				agree(t, team)
				chat(t, team)

				// Everybody commits once, the others process it.
				for _, m := range team {
					out := m.commit(CommitOptions{})
					for _, other := range team {
						if other != m {
							if s, ok := other.process(out.Message).(*StagedCommit); !ok || s.Committer != m.group.OwnLeaf() || s.Own || !s.HasPath {
								t.Fatalf("%+v", s)
							}
						}
					}
					agree(t, team)
				}
				chat(t, team)

				// Proposals by reference.
				update, err := team[1].group.ProposeUpdate(nil, nil)
				messages := [][]byte{done(team[1], update, err), team[2].propose(Remove{3}), team[0].propose(GroupContextExtensions{[]Extension{{0xff00, []byte("x")}}})}
				for _, message := range messages {
					for _, m := range team {
						m.process(message)
					}
				}
				if _, err := team[1].group.Encrypt(nil, nil); !errors.Is(err, ErrPendingProposals) {
					t.Errorf("sent while proposals wait: %v", err)
				}
				for _, m := range team {
					m.reload()
				}
				out := team[0].commit(CommitOptions{})
				for _, m := range team[1:] {
					m.process(out.Message)
				}
				if team[3].group.Active() {
					t.Error("a removed member is active")
				}
				team = team[:3]
				agree(t, team)
				chat(t, team)
				if data, ok := team[2].group.Extension(0xff00); !ok || string(data) != "x" {
					t.Errorf("extension is %q", data)
				}
				team = addMembers(team, 3)
				agree(t, team)
				for _, m := range team {
					m.reload()
					m.group.Park()
				}
				chat(t, team)
				agree(t, team)
			})
		}
	}
}
