package xmtp

import (
	"slices"
	"testing"
)

// How often operations on groups ask the node: what is asked twice makes them slow.
func TestCallsOfGroupOperations(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	p := newProxy(t, url)
	ctx := t.Context()
	alice := newClient(t, p.url, WithoutWorkers())
	var ids []string
	for range 5 {
		ids = append(ids, newClient(t, url, WithoutWorkers()).InboxID())
	}
	calls := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.calls
	}
	var v *Conversation
	for _, step := range []struct {
		what string
		want int
		do   func() error
	}{
		// Inboxes, key packages, the commit, the log, the welcome.
		{"a direct message", 5, func() error { _, err := alice.DM(ctx, ids[0]); return err }},
		{"a group of strangers", 5, func() (err error) {
			v, err = alice.NewGroup(ctx, GroupOptions{}, ids[:4]...)
			return err
		}},
		{"a group of people it knows", 5, func() error { _, err := alice.NewGroup(ctx, GroupOptions{}, ids[:4]...); return err }},
		{"adding", 5, func() error { return v.AddMembers(ctx, ids[4]) }},
		// Inboxes, the commit, the log.
		{"removing", 3, func() error { return v.RemoveMembers(ctx, ids[4]) }},
		// A look at the inboxes, the text, the log.
		{"the first text", 3, func() error { _, err := v.SendText(ctx, "hello"); return err }},
		{"another text", 2, func() error { _, err := v.SendText(ctx, "hello"); return err }},
	} {
		before := calls()
		check(t, step.do())
		if n := calls() - before; n != step.want {
			t.Errorf("%s: %d calls, want %d", step.what, n, step.want)
		}
	}
	if members := memberIDs(t, v); len(members) != 5 || slices.Contains(members, ids[4]) {
		t.Errorf("members: %v", members)
	}
}
