package interop

import (
	"fmt"
	"math/rand/v2"
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
	return often(30, 3), 500
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
			oldest, newest := w.start(official.Oldest), w.start(official.Newest)
			clients := []*official.Client{
				oldest.Client("oldest"), w.Client("one"), w.Client("two"), newest.Client("three"), newest.Client("newest"),
			}
			var members []member
			for _, c := range clients {
				members = append(members, &goMember{client: goClient(t, w.url), t: t}, &officialMember{client: c, t: t})
			}
			walk(t, rand.New(rand.NewPCG(uint64(seed), 1)), members)
		})
	}
}

func walk(t *testing.T, random *rand.Rand, members []member) {
	// Either side creates it; the creator stays, and stays a super admin.
	if random.IntN(2) == 0 {
		members[0], members[1] = members[1], members[0]
	}
	var ids []string
	for _, m := range members[1:] {
		ids = append(ids, m.inboxID())
	}
	var id string
	switch m := members[0].(type) {
	case *goMember:
		v, err := m.client.NewGroup(t.Context(), xmtp.GroupOptions{}, ids...)
		m.view, id = ours{check(t, v, err), t}, v.ID()
	case *officialMember:
		m.view = m.client.Group(nil, nil)
		m.view.Call(nil, "addMembers", ids)
		id = m.view.ID
	}
	for _, m := range members[1:] {
		m.join(id)
	}
	_, steps := walks()
	said := map[string]member{} // whose sender was told that it is done
	refused := 0
	for step := range steps {
		actor := members[random.IntN(len(members))]
		whom := members[1+random.IntN(len(members)-1)].inboxID()
		if random.IntN(3) == 0 {
			text := fmt.Sprintf("text %d", step)
			if actor.say(text) == nil {
				said[text] = actor
			}
			continue
		}
		op := operations[random.IntN(len(operations))]
		if op.name == "remove a member" && whom == actor.inboxID() {
			continue // leaving is something else
		}
		if actor.try(op, whom, fmt.Sprintf("%s %d", op.name, step)) != nil {
			refused++ // not permitted, removed, or too old a state
		}
		if random.IntN(4) == 0 {
			members[random.IntN(len(members))].join(id)
		}
	}

	// The creator, whom nobody has touched, lets everybody in, until it lasts: who is
	// back may first remove others, as he was told to before he was removed.
	creator := members[0]
	for out := 1; out > 0; {
		quiesce(t, id, members)
		perform(t, creator, operationNamed("permissions of everybody"), "", "")
		out = 0
		in := creator.seen().Members
		for _, m := range members[1:] {
			if _, ok := in[m.inboxID()]; !ok {
				perform(t, creator, operationNamed("add a member"), m.inboxID(), "")
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
	alike(t, members...)
	whole := creator.transcript()
	texts := creator.texts()
	for i, m := range members {
		tail := sinceJoined(m.transcript(), m.inboxID())
		sorted := cmpopts.SortSlices(func(a, b content.FieldChange) bool { return a.Name < b.Name })
		if n := min(len(tail), len(whole)-1); n < 1 {
			t.Errorf("member %d tells of %d changes", i, len(tail))
		} else if diff := cmp.Diff(whole[len(whole)-n:], tail[len(tail)-n:], cmpopts.EquateEmpty(), sorted); diff != "" {
			t.Errorf("transcripts of the creator and member %d (-, +):\n%s", i, diff)
		}
	}
	// Official clients up to 1.10 can't read messages of the epoch before once a leaf of
	// the tree is blank (OpenMLS 0.7 takes the wrong leaf to verify them), so that a text
	// counts as arrived if anybody but its sender has it. And they take what they send
	// after their removal for published, so that only our word counts.
	for text, sender := range said {
		if _, our := sender.(*goMember); !our || slices.Contains(texts, text) {
			continue
		}
		if !slices.ContainsFunc(members, func(m member) bool { return m != sender && slices.Contains(m.texts(), text) }) {
			t.Errorf("%q of member %d was confirmed and nobody has got it", text, slices.Index(members, sender))
		}
	}
	sameAuthenticators(t, members)
	t.Logf("%d steps, %d not done, %d changes", steps, refused, len(whole))
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
