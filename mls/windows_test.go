package mls

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
)

// A late message is read if it is one of the 5 generations before the one that is
// expected, a message from ahead if it skips up to 1,000 (§9.2, §15.3).
func TestGenerationWindow(t *testing.T) {
	for _, tc := range []struct {
		name    string
		windows *Windows
	}{{"default", nil}, {"own", &Windows{Backward: 2, Forward: 7, PastEpochs: 1}}} {
		t.Run(tc.name, func(t *testing.T) {
			config := Config{Windows: tc.windows}
			w := config.windows()
			team := newTeam(t, testSuite, 2, config)
			alice, bob := team[0], team[1]
			var sent [][]byte
			for i := range int(w.Forward) + 12 {
				sent = append(sent, alice.encrypt(fmt.Sprint(i)))
			}
			bob.processFails(sent[w.Forward+1], ErrTooDistantInFuture)
			bob.reads(sent[w.Forward], fmt.Sprint(w.Forward))
			bob.reload()
			next := int(w.Forward) + 1 // the generation that is expected now
			bob.processFails(sent[0], ErrTooDistantInPast)
			bob.processFails(sent[next-int(w.Backward)-1], ErrTooDistantInPast)
			if w.Backward > 1 {
				i := next - int(w.Backward)
				bob.reads(sent[i], fmt.Sprint(i))
				bob.processFails(sent[i], ErrSecretReused)
			}
			bob.processFails(sent[next-1], ErrSecretReused)
			bob.reads(sent[next], fmt.Sprint(next))
			bob.processFails(sent[next], ErrSecretReused)
			bob.check()
		})
	}
}

// Messages are read in any order within the window, each once.
func TestOutOfOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		team := newTeam(t, testSuite, 2, Config{})
		var sent [][]byte
		for i := range 5 {
			sent = append(sent, team[0].encrypt(fmt.Sprint(i)))
		}
		for _, i := range rapid.Permutation([]int{0, 1, 2, 3, 4}).Draw(rt, "order") {
			if rapid.Bool().Draw(rt, "reload") {
				team[1].reload()
			}
			team[1].reads(sent[i], fmt.Sprint(i))
			team[1].processFails(sent[i], ErrSecretReused)
		}
	})
}

// A sender who claims a generation far ahead costs nothing (§9.2).
func TestFarGeneration(t *testing.T) {
	team := newTeam(t, testSuite, 2, Config{})
	e := team[0].group.current
	use, err := e.messages.Next(e.own, secrettree.Application)
	if err != nil {
		t.Fatal(err)
	}
	message, err := e.protectPrivate(use, ContentTypeApplication, nil, []byte{0}, contentAuth{signature: make([]byte, 64)}, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := UnmarshalMessage(message)
	if err != nil {
		t.Fatal(err)
	}
	aad := m.raw[4 : 4+1+len(m.private.groupID)+8+1]
	for _, generation := range []byte{0, 1} {
		plain := []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe + generation, 1, 2, 3, 4}
		key := senderDataKey(e.suite, e.secrets.SenderData, m.private.ciphertext)
		if m.private.encryptedSenderData, err = e.suite.Seal(&key, nil, aad, plain); err != nil {
			t.Fatal(err)
		}
		far := m.append(nil)
		if n := allocated(func() { team[1].processFails(far, ErrTooDistantInFuture) }); n > 32<<10 {
			t.Errorf("%d bytes allocated", n)
		}
	}
	team[1].check()
}

// A message of one of the last 3 epochs is read with the members of its epoch, an
// older one is not (§15.3).
func TestPastEpochs(t *testing.T) {
	for _, windows := range []*Windows{nil, {Backward: 5, Forward: 10, PastEpochs: 1}, {Backward: 5, Forward: 10, PastEpochs: 0}} {
		config := Config{Windows: windows}
		keep := config.windows().PastEpochs
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			team := newTeam(t, testSuite, 4, config)
			bob := team[1]
			const rounds = 6
			sent := map[int][][]byte{}
			for i := range rounds {
				for _, m := range team[2:] {
					sent[i] = append(sent[i], m.encrypt(fmt.Sprint(i)))
				}
				var opts CommitOptions
				if i == 4 { // one of the two leaves, and another takes its place
					joining := newMemberOf(t, testSuite, "late", config)
					kp := newKeyPackage(t, joining.client)
					opts.Proposals = []Proposal{Remove{2}, Add{kp.KeyPackage()}}
				}
				out := team[0].commit(opts)
				for _, m := range team[1:] {
					if m.group.Active() {
						m.process(out.Message)
					}
				}
				if i == 4 {
					team = append(team[:2:2], team[3])
				}
				if i%2 == 1 {
					bob.reload()
				}
			}
			for i := range rounds {
				for k, message := range sent[i] {
					if i < rounds-keep {
						bob.processFails(message, ErrWrongEpoch)
						var e *EpochError
						if _, err := bob.group.Process(message); !errors.As(err, &e) || e.Message != uint64(i+1) || e.Group != rounds+1 {
							t.Errorf("%v", err)
						}
						continue
					}
					event, ok := bob.process(message).(*ApplicationMessage)
					want := "member 2"
					if k == 1 || i == 5 {
						want = "member 3"
					}
					if !ok || string(event.Credential.Data) != want || event.Epoch != uint64(i+1) {
						t.Errorf("round %d: %+v, want a message of %s", i, event, want)
					}
				}
			}
			bob.check()
		})
	}
}

// A handshake of another epoch is refused whatever the window (§12.4.2).
func TestLateHandshake(t *testing.T) {
	for _, config := range []Config{{}, {PublicHandshakes: true}} {
		team := newTeam(t, testSuite, 3, config)
		late := team[2].propose(Remove{0})
		p, err := team[2].group.Commit(CommitOptions{ByValueOnly: true})
		lateCommit := done(team[2], p, err)
		out := team[0].commit(CommitOptions{})
		team[1].process(out.Message)
		team[2].process(out.Message)
		team[1].processFails(late, ErrWrongEpoch)
		team[1].processFails(lateCommit.Message, ErrWrongEpoch)
		if _, err := team[2].group.MergeOwnCommit(); !errors.Is(err, ErrNoOwnCommit) {
			t.Errorf("a commit that lost is still there: %v", err)
		}
		agree(t, team)
		ahead := team[0].commit(CommitOptions{})
		early := team[0].commit(CommitOptions{})
		team[1].processFails(early.Message, ErrWrongEpoch)
		team[1].process(ahead.Message)
		team[1].process(early.Message)
		agree(t, team[:2])
	}
}

// Own messages that come back are told apart, also after a restart and in a later
// epoch.
func TestOwnMessages(t *testing.T) {
	for _, config := range []Config{{}, {PublicHandshakes: true}} {
		team := newTeam(t, testSuite, 2, config)
		alice, bob := team[0], team[1]
		own := func(message []byte, want ContentType) {
			t.Helper()
			if event, ok := alice.process(message).(*OwnMessage); !ok || event.ContentType != want {
				t.Fatalf("got %+v, want an own %v", event, want)
			}
			alice.check()
		}
		application := alice.encrypt("hello")
		own(application, ContentTypeApplication)
		alice.reload()
		own(application, ContentTypeApplication)
		bob.reads(application, "hello")
		proposal := alice.propose(GroupContextExtensions{[]Extension{{0xff00, nil}}})
		own(proposal, ContentTypeProposal)
		alice.reload()
		own(proposal, ContentTypeProposal)
		bob.process(proposal)

		p, err := alice.group.Commit(CommitOptions{})
		out := done(alice, p, err)
		alice.reload()
		if _, err := alice.group.Commit(CommitOptions{}); !errors.Is(err, ErrOwnCommitPending) {
			t.Errorf("a second commit: %v", err)
		}
		event, ok := alice.process(out.Message).(*StagedCommit)
		if !ok || !event.Own || len(event.Proposals) != 1 || !event.Proposals[0].ByReference || len(event.Extensions) != 1 {
			t.Fatalf("%+v", event)
		}
		bob.process(out.Message)
		agree(t, team)
		own(out.Message, ContentTypeCommit)
		alice.reload()
		own(out.Message, ContentTypeCommit)
		own(application, ContentTypeApplication)
		chat(t, team)

		// Dropped, the commit is nobody's.
		p, err = alice.group.Commit(CommitOptions{})
		dropped := done(alice, p, err)
		alice.reload()
		d, err := alice.group.DropOwnCommit()
		done(alice, d, err)
		if config.PublicHandshakes {
			own(dropped.Message, ContentTypeCommit)
		}
		chat(t, team)
	}
}

// One who runs on an old copy of its state hears of it when its own later messages
// come back.
func TestRolledBackState(t *testing.T) {
	team := newTeam(t, testSuite, 2, Config{})
	alice := team[0]
	alice.encrypt("first")
	backup := maps.Clone(alice.store)
	later := alice.encrypt("later")
	team[1].reads(later, "later")

	alice.store = backup
	alice.reload()
	alice.processFails(later, ErrStateRolledBack)
	flipped := bytes.Clone(later)
	flipped[len(flipped)-1] ^= 1
	alice.processFails(flipped, ErrDecrypt)
	alice.check()
}

// With Ahead messages leave before they are stored for good. Whatever is lost by power
// cuts, no key is used twice, others read all, and the sender reads again what he has
// forgotten.
func TestAhead(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		config := Config{Ahead: rapid.Uint32Range(0, 4).Draw(rt, "ahead"), Windows: &Windows{Backward: 300, Forward: 1000, PastEpochs: 3}}
		team := newTeam(t, testSuite, 3, config)
		alice, bob := team[0], team[1]
		durable := maps.Clone(alice.store)
		covered := uint32(0)        // how many more may leave
		since := false              // whether anything was sent since the group was loaded
		var volatile []string       // what has left since durable was stored
		var forgotten []string      // what a power cut has undone, and was not read since
		sent := map[string][]byte{} // by text
		used := map[string]bool{}
		next, gap := uint32(0), false // what is sent next unless the group was not closed
		read := func(m *member, text string) *ApplicationMessage {
			p, err := m.group.Process(sent[text])
			if err != nil {
				rt.Fatalf("%s reads %q: %v", m.name(), text, err)
			}
			event, ok := p.Result().(*ApplicationMessage)
			if !ok || string(event.Data) != text || event.Sender != 0 {
				rt.Fatalf("%s reads %+v, want %q", m.name(), p.Result(), text)
			}
			m.store.apply(p.Changes())
			p.Done()
			return event
		}
		sync := func() {
			durable, volatile = maps.Clone(alice.store), nil
			if since && covered < config.Ahead {
				covered = config.Ahead
			}
		}
		load := func() {
			alice.reload()
			covered, since = 0, false
		}
		for i := range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"send", "send", "send", "sync", "kill", "cut", "cut", "read", "read", "close", "commit"}).Draw(rt, "step") {
			case "send":
				text := fmt.Sprint(i)
				p, err := alice.group.Encrypt([]byte(text), nil)
				if err != nil {
					rt.Fatal(err)
				}
				alice.store.apply(p.Changes())
				sent[text] = p.Done()
				if covered > 0 {
					covered--
					volatile = append(volatile, text)
				} else {
					durable, volatile, covered = maps.Clone(alice.store), nil, config.Ahead
				}
				since = true
				event := read(bob, text)
				name := fmt.Sprint(event.Epoch, event.Generation)
				if used[name] {
					rt.Fatalf("epoch and generation %s are used twice", name)
				}
				used[name] = true
				if !gap && event.Generation != next {
					rt.Fatalf("generation %d where no state was lost before %d", event.Generation, next)
				}
				next, gap = event.Generation+1, false
			case "sync":
				if len(volatile) > 0 {
					sync()
				}
			case "kill":
				load()
				gap = true
			case "cut":
				gap = true
				alice.store = maps.Clone(durable)
				load()
				forgotten = append(forgotten, volatile...)
				sync()
				covered = 0
			case "read":
				if len(forgotten) == 0 {
					break
				}
				i := rapid.IntRange(0, len(forgotten)-1).Draw(rt, "forgotten")
				text := forgotten[i]
				forgotten = slices.Delete(forgotten, i, i+1)
				read(alice, text)
				p, err := alice.group.Process(sent[text])
				if err != nil {
					rt.Fatal(err)
				}
				if own, ok := p.Result().(*OwnMessage); !ok {
					rt.Fatalf("read again as %+v", own)
				}
				p.Discard()
				sync()
			case "close":
				alice.store.apply(alice.group.Unreserve())
				sync()
				load()
			case "commit":
				out := team[2].commit(CommitOptions{})
				for _, m := range team[:2] {
					p, err := m.group.Process(out.Message)
					if err != nil {
						rt.Fatal(err)
					}
					m.store.apply(p.Changes())
					p.Done()
				}
				sync()
				covered, since, next, gap, forgotten = 0, false, 0, false, nil
			}
		}
	})
}

// A result that is pending keeps all others out, and Discard leaves no trace.
func TestPending(t *testing.T) {
	team := newTeam(t, testSuite, 2, Config{})
	alice, bob := team[0], team[1]
	message := bob.encrypt("hello")
	p, err := alice.group.Process(message)
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"Process":        func() error { _, err := alice.group.Process(message); return err },
		"Encrypt":        func() error { _, err := alice.group.Encrypt(nil, nil); return err },
		"Propose":        func() error { _, err := alice.group.Propose(Remove{1}, nil); return err },
		"ProposeUpdate":  func() error { _, err := alice.group.ProposeUpdate(nil, nil); return err },
		"Commit":         func() error { _, err := alice.group.Commit(CommitOptions{}); return err },
		"MergeOwnCommit": func() error { _, err := alice.group.MergeOwnCommit(); return err },
		"DropOwnCommit":  func() error { _, err := alice.group.DropOwnCommit(); return err },
	} {
		if err := call(); !errors.Is(err, ErrPending) {
			t.Errorf("%s while a result is pending: %v", name, err)
		}
	}
	p.Discard()
	p.Done()
	if p.Changes() != nil {
		t.Error("a discarded result has changes")
	}
	alice.check()
	alice.reads(message, "hello")

	for range 3 { // the same generation, until one is done
		p, err := alice.group.Encrypt([]byte("draft"), nil)
		if err != nil {
			t.Fatal(err)
		}
		p.Discard()
	}
	bob.reads(alice.encrypt("sent"), "sent")
	commit, err := bob.group.Commit(CommitOptions{})
	out := done(bob, commit, err)
	for range 3 {
		p, err := alice.group.Process(out.Message)
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := p.Result().(*StagedCommit); !ok || s.Committer != 1 || s.Epoch != alice.group.Epoch()+1 || len(s.Updated) != 1 {
			t.Fatalf("%+v", p.Result())
		}
		p.Discard()
		alice.check()
	}
	alice.process(out.Message)
	m, err := bob.group.MergeOwnCommit()
	done(bob, m, err)
	agree(t, team)
	if _, err := bob.group.MergeOwnCommit(); !errors.Is(err, ErrNoOwnCommit) {
		t.Errorf("merged twice: %v", err)
	}
	if _, err := bob.group.DropOwnCommit(); !errors.Is(err, ErrNoOwnCommit) {
		t.Errorf("dropped twice: %v", err)
	}
}

// After our removal nothing can be sent, and late messages are still read.
func TestRemoved(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{})
	alice, bob := team[0], team[1]
	late := team[2].encrypt("late")
	out := alice.commit(CommitOptions{Proposals: []Proposal{Remove{1}}})
	event, ok := bob.process(out.Message).(*StagedCommit)
	if !ok || !event.SelfRemoved || len(event.Removed) != 1 || event.Removed[0].Index != 1 {
		t.Fatalf("%+v", event)
	}
	bob.reload()
	if bob.group.Active() {
		t.Error("active after removal")
	}
	bob.reads(late, "late")
	team[2].process(out.Message)
	bob.processFails(team[2].encrypt("not for bob"), ErrWrongEpoch)
	if _, err := bob.group.Encrypt(nil, nil); !errors.Is(err, ErrInactive) {
		t.Errorf("encrypt: %v", err)
	}
	if _, err := bob.group.Commit(CommitOptions{}); !errors.Is(err, ErrInactive) {
		t.Errorf("commit: %v", err)
	}
	if _, err := bob.group.Export("x", nil, 32); !errors.Is(err, ErrInactive) {
		t.Errorf("export: %v", err)
	}
	bob.processFails(alice.propose(Remove{2}), ErrWrongEpoch)
}
