package mls

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// walk is a group of simulated members that a random walk drives.
type walk struct {
	*rapid.T
	t      testing.TB
	team   []*member
	config Config
	made   int
	shadow *shadow // follows the group; nil if nobody does
}

func (w *walk) pick(what string) *member { return rapid.SampledFrom(w.team).Draw(w.T, what) }

func (w *walk) newcomer() (*member, *PrivateKeyPackage) {
	w.made++
	m := newMemberOf(w.t, X25519ChaChaSHA256Ed25519, fmt.Sprint("walker ", w.made), w.config)
	return m, newKeyPackage(w.t, m.client)
}

// deliver hands a handshake to everybody but its sender.
func (w *walk) deliver(from *member, message []byte) {
	if w.shadow != nil {
		w.follow(message)
	}
	for _, m := range w.team {
		if m != from {
			m.process(message)
		}
	}
}

// others picks members that are not among those given.
func (w *walk) other(than ...*member) *member {
	var rest []*member
	for _, m := range w.team {
		if !slices.Contains(than, m) {
			rest = append(rest, m)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return rapid.SampledFrom(rest).Draw(w.T, "other")
}

// commit makes a commit of proposals by value and of all that wait, brings it to
// all, and lets new members in.
func (w *walk) commit(by *member, opts CommitOptions, joining []*member, packages []*PrivateKeyPackage) {
	p, err := by.group.Commit(opts)
	out := done(by, p, err)
	echo := rapid.Bool().Draw(w.T, "echo")
	if rapid.Bool().Draw(w.T, "reload committer") {
		by.reload()
	}
	if echo {
		if s, ok := by.process(out.Message).(*StagedCommit); !ok || !s.Own {
			w.Fatalf("own commit came back as %+v", s)
		}
	} else {
		merged, err := by.group.MergeOwnCommit()
		done(by, merged, err)
	}
	w.deliver(by, out.Message)
	if event, ok := by.process(out.Message).(*OwnMessage); !ok || event.ContentType != ContentTypeCommit {
		w.Fatalf("own commit came back a second time as %+v", event)
	}
	w.team = slices.DeleteFunc(w.team, func(m *member) bool { return !m.group.Active() })
	for i, m := range joining {
		m.join(out, packages[i])
		w.team = append(w.team, m)
	}
}

// check checks that all members agree, and lets an outsider join from this state
// by a commit that is discarded.
func (w *walk) check() {
	agree(w.t, w.team)
	host := w.pick("host")
	guest, kp := w.newcomer()
	before := store{}
	before.apply(host.group.dump())
	p, err := host.group.Commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}, ExternalTree: rapid.Bool().Draw(w.T, "external tree")})
	if err != nil {
		w.Fatalf("invitation: %v", err)
	}
	out := p.Result()
	guest.join(out, kp)
	if got, want := guest.group.Epoch(), host.group.Epoch()+1; got != want {
		w.Fatalf("guest is in epoch %d, want %d", got, want)
	}
	p.Discard()
	host.check()
	after := store{}
	after.apply(host.group.dump())
	if len(before) != len(after) {
		w.Fatalf("a discarded commit changed the state")
	}
	if err := host.group.tree().validate(host.group.ID(), host.group.current.requires); err != nil {
		w.Fatalf("tree of epoch %d: %v", host.group.Epoch(), err)
	}
}

func (w *walk) step() {
	by := w.pick("member")
	switch action := rapid.SampledFrom([]string{
		"add", "add", "add many", "remove", "commit", "commit", "update", "extensions", "custom", "self remove",
		"chat", "race", "reload", "park", "add and remove",
	}).Draw(w.T, "action"); action {
	case "add", "add many", "add and remove":
		n := 1
		if action == "add many" {
			n = rapid.IntRange(2, 5).Draw(w.T, "n")
		}
		if len(w.team)+n > 12 {
			return
		}
		var opts CommitOptions
		var joining []*member
		var packages []*PrivateKeyPackage
		for range n {
			m, kp := w.newcomer()
			joining, packages = append(joining, m), append(packages, kp)
			opts.Proposals = append(opts.Proposals, Add{kp.KeyPackage()})
		}
		if action == "add and remove" {
			if gone := w.other(by); gone != nil {
				opts.Proposals = append(opts.Proposals, Remove{gone.group.OwnLeaf()})
			}
		}
		opts.OmitPath = rapid.Bool().Draw(w.T, "omit path")
		opts.ExternalTree = rapid.Bool().Draw(w.T, "external tree")
		w.commit(by, opts, joining, packages)
	case "remove":
		gone := w.other(by)
		if gone == nil {
			return
		}
		if rapid.Bool().Draw(w.T, "by reference") {
			from := w.other(gone)
			w.deliver(from, from.propose(Remove{gone.group.OwnLeaf()}))
			w.commit(by, CommitOptions{}, nil, nil)
			return
		}
		w.commit(by, CommitOptions{Proposals: []Proposal{Remove{gone.group.OwnLeaf()}}}, nil, nil)
	case "commit":
		w.commit(by, CommitOptions{}, nil, nil)
	case "update":
		for range rapid.IntRange(1, 3).Draw(w.T, "updates") {
			if from := w.other(by); from != nil {
				p, err := from.group.ProposeUpdate(nil, nil)
				w.deliver(from, done(from, p, err))
			}
		}
		w.commit(by, CommitOptions{}, nil, nil)
	case "extensions":
		data := rapid.SliceOfN(rapid.Byte(), 0, 70).Draw(w.T, "data")
		w.commit(by, CommitOptions{Proposals: []Proposal{GroupContextExtensions{[]Extension{{0xff01, data}}}}}, nil, nil)
	case "custom":
		w.deliver(by, by.propose(CustomProposal{0xf001, []byte("custom")}))
		w.commit(w.pick("committer"), CommitOptions{OmitPath: true}, nil, nil)
	case "self remove":
		if leaver := w.other(by); leaver != nil {
			w.deliver(leaver, leaver.propose(SelfRemove{}))
			w.commit(by, CommitOptions{}, nil, nil)
		}
	case "chat":
		chat(w.t, w.team)
	case "race":
		loser := w.other(by)
		if loser == nil {
			return
		}
		p, err := loser.group.Commit(CommitOptions{})
		lost := done(loser, p, err)
		w.commit(by, CommitOptions{}, nil, nil)
		for _, m := range w.team {
			if m != loser {
				m.processFails(lost.Message, ErrWrongEpoch)
			}
		}
	case "reload":
		by.reload()
	case "park":
		by.group.Park()
	}
}

// TestRandomWalk: members that walk the same way agree on everything, and a new
// member can join from every state.
func TestRandomWalk(t *testing.T) {
	if os.Getenv("XMTP_PROOF") == "" {
		// Not beside others, whose number of checks this would be.
		checks := flag.Lookup("rapid.checks").Value
		defer checks.Set(checks.String())
		checks.Set("40")
	}
	rapid.Check(t, func(rt *rapid.T) {
		w := &walk{T: rt, t: t, config: Config{PublicHandshakes: rapid.Bool().Draw(rt, "public")}}
		founder, _ := w.newcomer()
		founder.create()
		w.team = []*member{founder}
		for range rapid.IntRange(4, 16).Draw(rt, "steps") {
			w.step()
			w.check()
		}
		chat(t, w.team)
	})
}

// Any bit of a message that is flipped makes it refused, and nothing changes.
func TestFlippedBits(t *testing.T) {
	for _, config := range []Config{{}, {PublicHandshakes: true}} {
		team := newTeam(t, X25519ChaChaSHA256Ed25519, 3, config)
		bob := team[1]
		p, err := team[0].group.Commit(CommitOptions{Proposals: []Proposal{Remove{2}}})
		messages := []struct {
			name  string
			bytes []byte
		}{
			{"application", team[2].encrypt("hello")},
			{"proposal", team[2].propose(Remove{0})},
			{"commit", done(team[0], p, err).Message},
		}
		for _, m := range messages {
			for bit := range 8 * len(m.bytes) {
				flipped := bytes.Clone(m.bytes)
				flipped[bit/8] ^= 1 << (bit % 8)
				if p, err := bob.group.Process(flipped); err == nil {
					t.Fatalf("public %v: %s with bit %d flipped passes as %T", config.PublicHandshakes, m.name, bit, p.Result())
				}
			}
			bob.check()
		}
		for _, m := range messages {
			bob.process(m.bytes)
		}
		merged, err := team[0].group.MergeOwnCommit()
		done(team[0], merged, err)
		agree(t, team[:2])
	}
}

// The same for a Welcome.
func TestFlippedBitsOfWelcome(t *testing.T) {
	alice := newMemberOf(t, X25519ChaChaSHA256Ed25519, "alice", Config{})
	alice.create()
	bob := newMemberOf(t, X25519ChaChaSHA256Ed25519, "bob", Config{})
	kp := newKeyPackage(t, bob.client)
	out := alice.commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}})
	for bit := range 8 * len(out.Welcome) {
		flipped := bytes.Clone(out.Welcome)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := Join(flipped, kp, bob.client.Signer, nil, Config{}); err == nil {
			t.Fatalf("Welcome with bit %d flipped passes", bit)
		}
	}
	bob.join(out, kp)
	agree(t, []*member{alice, bob})
}
