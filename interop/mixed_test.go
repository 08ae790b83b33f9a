package interop

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// The walks: how many, and of how many steps.
func walks() (seeds, steps int) {
	if os.Getenv("XMTP_PROOF") == "1" {
		return 30, 500
	}
	return 3, 100
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
			w.open("http://" + serve(t, node.Options{}).Addr())
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
	said := map[string]bool{} // true if the sender was told that it is done
	refused := 0
	for step := range steps {
		actor := members[random.IntN(len(members))]
		whom := members[1+random.IntN(len(members)-1)].inboxID()
		if random.IntN(3) == 0 {
			text := fmt.Sprintf("text %d", step)
			said[text] = actor.say(text) == nil
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

	// The creator, whom nobody has touched, lets everybody in.
	creator := members[0]
	creator.sync()
	perform(t, creator, operationNamed("permissions of everybody"), "", "")
	for _, m := range members[1:] {
		if _, in := creator.seen().Members[m.inboxID()]; !in {
			perform(t, creator, operationNamed("add a member"), m.inboxID(), "")
		}
	}
	perform(t, creator, operationNamed("name"), "", "the end")
	// What waits in outboxes, because others were faster, is sent and read.
	for before, after, rounds := []string{""}, []string(nil), 0; !slices.Equal(before, after); rounds++ {
		before, after = after, nil
		for _, m := range members {
			m.join(id)
			m.sync()
			after = append(after, m.epoch())
		}
		if rounds > 20 {
			t.Fatalf("no end of it: epochs %v, then %v", before, after)
		}
	}
	agree(t, members...)
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
	for text, confirmed := range said {
		if confirmed && !slices.Contains(texts, text) {
			t.Errorf("%q was confirmed and the creator has not got it", text)
		}
	}
	sameAuthenticators(t, members)
	t.Logf("%d steps, %d not done, %d changes", steps, refused, len(whole))
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
