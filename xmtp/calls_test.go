package xmtp

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// How often operations on groups ask the node: what is asked twice makes them slow. A
// node that doesn't say what is in the log when it is sent something is asked for that.
func TestCallsOfGroupOperations(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	var ids []string
	for range 5 {
		ids = append(ids, newClient(t, url, WithoutWorkers()).InboxID())
	}
	for name, extra := range map[string]int{"our node": 0, "another node": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, url)
			if extra > 0 {
				p.setLie("SendGroupMessages", func(_, _ []byte) ([]byte, error) { return nil, nil })
			}
			alice := newClient(t, p.url, WithoutWorkers())
			var v *Conversation
			for _, step := range []struct {
				what string
				want int
				do   func() error
			}{
				// Inboxes, key packages, the commit, the welcome.
				{"a direct message", 4, func() error { _, err := alice.DM(ctx, ids[0]); return err }},
				{"a group of strangers", 4, func() (err error) {
					v, err = alice.NewGroup(ctx, GroupOptions{}, ids[:4]...)
					return err
				}},
				{"a group of people it knows", 4, func() error { _, err := alice.NewGroup(ctx, GroupOptions{}, ids[:4]...); return err }},
				{"adding", 4, func() error { return v.AddMembers(ctx, ids[4]) }},
				// Inboxes, the commit.
				{"removing", 2, func() error { return v.RemoveMembers(ctx, ids[4]) }},
				// A look at the inboxes, the text.
				{"the first text", 2, func() error { _, err := v.SendText(ctx, "hello"); return err }},
				{"another text", 1, func() error { _, err := v.SendText(ctx, "hello"); return err }},
			} {
				before := p.count()
				check(t, step.do())
				if n := p.count() - before; n != step.want+extra {
					t.Errorf("%s: %d calls, want %d", step.what, n, step.want+extra)
				}
			}
			if members := memberIDs(t, v); len(members) != 5 || slices.Contains(members, ids[4]) {
				t.Errorf("members: %v", members)
			}
		})
	}
}

// What sending returns is what is stored, though the database learns of it later.
func TestSentMessageIsTheStoredOne(t *testing.T) {
	t.Parallel()
	v, w := pair(t)
	for i := range 5 {
		sent := must(v.SendText(t.Context(), fmt.Sprint("text ", i)))(t)
		if sent.Delivery != Published {
			t.Errorf("%d: %v", i, sent.Delivery)
		}
		if diff := cmp.Diff(must(v.client.Message(sent.ID))(t), sent); diff != "" {
			t.Errorf("%d, stored and returned (-, +):\n%s", i, diff)
		}
	}
	check(t, w.Sync(t.Context()))
	if diff := cmp.Diff(texts(t, v), texts(t, w)); diff != "" {
		t.Error(diff)
	}
}
