package interop

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// The walks: how many, and of how many steps.
func walks() (seeds, steps int) {
	return often(30, 3), often(500, 250)
}

// Ten members of all kinds do at random what they may and what they may not. Whatever
// came of it, in the end all have the same group.
func TestGoMixedGroup(t *testing.T) {
	t.Parallel()
	seeds, _ := walks()
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fmt.Sprintf("Go: five Go and five official clients at random, seed %d", seed), official.Baseline)
			w.openShared()
			k := &walk{t: t, world: w, random: rand.New(rand.NewPCG(uint64(seed), 1)), said: map[string]member{}}
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("steps:\n%s", strings.Join(k.log, "\n"))
				}
			})
			oldest, newest := w.start(official.Oldest), w.start(official.Newest)
			for _, c := range []*official.Client{
				oldest.Client("oldest"), w.Client("one"), w.Client("two"), newest.Client("three"), newest.Client("newest"),
			} {
				k.members = append(k.members, k.goMember(), &officialMember{client: c, t: t})
			}
			k.begin()
			k.wander()
			k.gather()
			k.compare()
		})
	}
}

// walk is a group whose members do things at random.
type walk struct {
	t       *testing.T
	world   *world
	random  *rand.Rand
	members []member // the creator first, who stays, and stays a super admin
	id      string
	signers map[member]xmtp.Signer // of our clients
	paths   map[member]string      // of their databases

	said   map[string]member // whose sender, one of ours, was told that it is done
	beside []aside
	log    []string // of the steps
	steps, refused,
	restarts, leaves int
}

// aside is a text in a DM of two members.
type aside struct {
	to       member
	id, text string
}

// goMember makes a client of ours that can be started again.
func (k *walk) goMember() member {
	signer, err := xmtp.GeneratePrivateKeySigner()
	m := &goMember{t: k.t}
	if k.signers == nil {
		k.signers, k.paths = map[member]xmtp.Signer{}, map[member]string{}
	}
	k.signers[m], k.paths[m] = check(k.t, signer, err), filepath.Join(k.t.TempDir(), "go.db")
	k.open(m)
	k.t.Cleanup(func() {
		if err := m.client.Close(); err != nil {
			k.t.Errorf("closing a Go client: %v", err)
		}
	})
	return m
}

func (k *walk) open(m *goMember) {
	client, err := xmtp.NewClient(k.t.Context(), k.signers[m], xmtp.WithNode(k.world.url), xmtp.WithDatabase(k.paths[m]))
	m.client = check(k.t, client, err)
}

// begin has either side create the group.
func (k *walk) begin() {
	t, members := k.t, k.members
	if k.random.IntN(2) == 0 {
		members[0], members[1] = members[1], members[0]
	}
	var ids []string
	for _, m := range members[1:] {
		ids = append(ids, m.inboxID())
	}
	switch m := members[0].(type) {
	case *goMember:
		v, err := m.client.NewGroup(t.Context(), xmtp.GroupOptions{}, ids...)
		m.view, k.id = ours{check(t, v, err), t}, v.ID()
	case *officialMember:
		m.view = m.client.Group(nil, nil)
		m.view.Call(nil, "addMembers", ids)
		k.id = m.view.ID
	}
	for _, m := range members[1:] {
		m.join(k.id)
	}
}

// wander does what members do, step by step.
func (k *walk) wander() {
	_, k.steps = walks()
	for step := range k.steps {
		actor := k.members[k.random.IntN(len(k.members))]
		other := k.members[1+k.random.IntN(len(k.members)-1)]
		text := fmt.Sprintf("text %d", step)
		switch what := k.random.IntN(60); {
		case what < 18:
			err := actor.say(text)
			k.tell(step, actor, "says something", nil, err)
			if err == nil && k.heard(actor) {
				k.said[text] = actor
			}
		case what < 21:
			k.tell(step, actor, "says something later", nil, nil)
			actor.queue(text)
		case what < 24:
			if other != actor {
				k.aside(actor, other, text)
			}
		case what < 26:
			if actor == k.members[0] {
				continue
			}
			err := actor.leave()
			k.tell(step, actor, "asks to leave", nil, err)
			if err == nil {
				k.leaves++
			}
		case what < 27:
			k.tell(step, actor, "starts again", nil, nil)
			k.restart(actor)
		default:
			op := operations[k.random.IntN(len(operations))]
			if op.name == "remove a member" && other == actor {
				continue // leaving is something else
			}
			if o, theirs := other.(*officialMember); theirs && op.name == "add a member" {
				// Let in again before it has noticed its removal, an official client
				// up to 1.11 that sends a commit loses its way: it has read past the
				// commit that the welcome belongs to, and doesn't go back.
				_ = o.view.TryCall(nil, "sync")
			}
			err := actor.try(op, other.inboxID(), fmt.Sprintf("%s %d", op.name, step))
			k.tell(step, actor, op.name, other, err)
			if err != nil {
				k.refused++ // not permitted, removed, or too old a state
			}
			if k.random.IntN(4) == 0 {
				k.members[k.random.IntN(len(k.members))].join(k.id)
			}
		}
	}
}

// tell notes a step, for whoever has to find out why a walk ended badly.
func (k *walk) tell(step int, actor member, what string, whom member, err error) {
	k.t.Helper()
	result := "ok"
	if err != nil {
		result, _, _ = strings.Cut(err.Error(), "\n")
	}
	k.log = append(k.log, fmt.Sprintf("%d: member %d (%T, epoch %s) %s, %d: %s", step, slices.Index(k.members, actor), actor, actor.epoch(), what, slices.Index(k.members, whom), result))
}

// heard tells whether what the member just said must have arrived somewhere. Official
// clients up to 1.10 can't read messages of the epoch before once a leaf of the tree is
// blank (OpenMLS 0.7 takes the wrong leaf to verify them), so that another one of ours
// must be in the group. And they take what they send after their removal for published,
// so that only our word counts.
func (k *walk) heard(sender member) bool {
	k.t.Helper()
	if _, our := sender.(*goMember); !our {
		return false
	}
	in := sender.seen().Members
	return slices.ContainsFunc(k.members, func(m member) bool {
		_, our := m.(*goMember)
		_, there := in[m.inboxID()]
		return our && there && m != sender
	})
}

// aside has a member write to another one beside the group.
func (k *walk) aside(from, to member, text string) {
	k.t.Helper()
	id, err := from.dm(to.inboxID(), text)
	if err != nil {
		k.t.Fatalf("a text beside the group: %v", err)
	}
	k.beside = append(k.beside, aside{to, id, text})
}

// restart ends a member's program, ours in order and theirs by a kill, with all clients
// in it, and starts it again.
func (k *walk) restart(m member) {
	k.t.Helper()
	k.restarts++
	switch m := m.(type) {
	case *goMember:
		if err := m.client.Close(); err != nil {
			k.t.Fatal(err)
		}
		k.open(m)
		v, err := m.client.Conversation(k.id)
		m.view = ours{check(k.t, v, err), k.t}
	case *officialMember:
		before := m.client.Process
		before.Close()
		after := k.world.start(before.SDK)
		for _, other := range k.members {
			if o, ok := other.(*officialMember); ok && o.client.Process == before {
				o.client = o.client.Reopen(after)
				o.view = o.client.Find(&official.Conversation{ID: k.id})
			}
		}
	}
}

// gather lets everybody in.
func (k *walk) gather() {
	t, id, members := k.t, k.id, k.members
	// The creator, whom nobody has touched, lets everybody in, until it lasts: who is
	// back may first remove others, as he was told to before he was removed.
	creator := members[0]
	for out := 1; out > 0; {
		quiesce(t, id, members)
		perform(t, creator, operationNamed("permissions of everybody"), "", "")
		out = 0
		in := creator.seen().Members
		for _, m := range members[1:] {
			who, ok := in[m.inboxID()]
			switch {
			case !ok:
				perform(t, creator, operationNamed("add a member"), m.inboxID(), "")
				out++
			case m.leaving() && who.Level < 2:
				// Who has asked to leave, but of an epoch that no super admin could read.
				perform(t, creator, operationNamed("remove a member"), m.inboxID(), "")
				out++
			}
		}
	}
	perform(t, creator, operationNamed("name"), "", "the end")
	// What official clients show of this they keep beside the group, where it gets old
	// while they are away.
	perform(t, creator, operationNamed("disappearing off"), "", "")
	perform(t, creator, operationNamed("disappearing on"), "", "")
	quiesce(t, id, members)
}

// compare compares what all have of the group.
func (k *walk) compare() {
	t, members, creator := k.t, k.members, k.members[0]
	alike(t, members...)
	whole := gone(creator.transcript())
	texts := creator.texts()
	for i, m := range members {
		whole, tail := whole, gone(sinceJoined(m.transcript(), m.inboxID()))
		if forgetful(creator) || forgetful(m) {
			whole, tail = lasting(whole), lasting(tail)
		}
		sorted := cmpopts.SortSlices(func(a, b content.FieldChange) bool { return a.Name < b.Name })
		if n := min(len(tail), len(whole)-1); n < 1 {
			t.Errorf("member %d tells of %d changes", i, len(tail))
		} else if diff := cmp.Diff(whole[len(whole)-n:], tail[len(tail)-n:], cmpopts.EquateEmpty(), sorted); diff != "" {
			t.Errorf("transcripts of the creator and member %d (-, +):\n%s", i, diff)
		}
	}
	for text, sender := range k.said {
		if slices.Contains(texts, text) {
			continue
		}
		if !slices.ContainsFunc(members, func(m member) bool { return m != sender && slices.Contains(m.texts(), text) }) {
			t.Errorf("%q of member %d was confirmed and nobody has got it", text, slices.Index(members, sender))
		}
	}
	for _, a := range k.beside {
		if !slices.Contains(a.to.besideTexts(a.id), a.text) {
			t.Errorf("%q, beside the group, did not arrive", a.text)
		}
	}
	sameAuthenticators(t, members)
	t.Logf("%d steps, %d not done, %d changes, %d asked to leave, %d restarts, %d texts beside", k.steps, k.refused, len(whole), k.leaves, k.restarts, len(k.beside))
}

// quiesce lets members send and read what waits in their outboxes because others were
// faster, until nothing happens any more. Official clients send one commit at a time.
func quiesce(t *testing.T, id string, members []member) {
	t.Helper()
	before, after := []string{""}, []string(nil)
	for rounds := 0; !slices.Equal(before, after); rounds++ {
		before, after = after, nil
		for _, m := range members {
			m.join(id)
			if o, ok := m.(*officialMember); ok {
				_ = o.view.TryCall(nil, "sync") // fails where it was removed
			} else {
				m.sync()
			}
			after = append(after, m.epoch())
		}
		if rounds > 200 {
			t.Fatalf("no end of it: epochs %v, then %v", before, after)
		}
	}
}

func operationNamed(name string) operation {
	return operations[slices.IndexFunc(operations, func(o operation) bool { return o.name == name })]
}

// sinceJoined is what a client tells of after it was let in for the last time.
func sinceJoined(told []*content.GroupUpdated, own string) []*content.GroupUpdated {
	for i := len(told) - 1; i >= 0; i-- {
		if slices.Contains(told[i].Added, own) {
			return told[i+1:]
		}
	}
	return told
}

// forgetful tells of official clients up to 1.9: when they are started again, they no
// longer tell of what they themselves changed about disappearing messages.
func forgetful(m member) bool {
	o, theirs := m.(*officialMember)
	return theirs && o.client.Process.SDK == official.Oldest
}

// lasting leaves out changes of disappearing messages.
func lasting(told []*content.GroupUpdated) []*content.GroupUpdated {
	return slices.DeleteFunc(slices.Clone(told), func(u *content.GroupUpdated) bool {
		return len(u.Fields) > 0 && !slices.ContainsFunc(u.Fields, func(f content.FieldChange) bool {
			return !strings.HasPrefix(f.Name, "message_disappear_")
		})
	})
}

// gone counts who left as removed: that he has asked for it know those only who were
// there and could read it.
func gone(told []*content.GroupUpdated) []*content.GroupUpdated {
	for _, u := range told {
		u.Removed, u.Left = slices.Sorted(slices.Values(slices.Concat(u.Removed, u.Left))), nil
	}
	return told
}

// sameAuthenticators compares the epoch authenticators, of which the SDKs show the
// first three bytes.
func sameAuthenticators(t *testing.T, members []member) {
	t.Helper()
	var first string
	for i, m := range members {
		var authenticator string
		switch m := m.(type) {
		case *goMember:
			_, a, err := m.view.Epoch(t.Context())
			authenticator = fmt.Sprintf("%x", check(t, a, err))[:6]
		case *officialMember:
			var info struct {
				LocalCommitLog string `json:"localCommitLog"`
			}
			m.view.Call(&info, "debugInfo")
			_, last, _ := cutLast(info.LocalCommitLog, "applied_epoch_authenticator: \"")
			authenticator, _, _ = strings.Cut(last, "..")
		}
		if i == 0 {
			first = authenticator
		}
		equal(t, fmt.Sprintf("epoch authenticator of member %d", i), authenticator, first)
	}
}
