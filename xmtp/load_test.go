package xmtp

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
)

// Many senders on one device share the outbox: each text arrives once, and those
// of one sender in their order.
func TestManySendersInOneGroup(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	alice := openClient(t, signer, WithNode(url), WithDatabase(filepath.Join(t.TempDir(), "client.db")))
	bob := newClient(t, url)
	a := must(alice.DM(ctx, bob.Address()))(t)
	const senders, each = 64, 15
	var group sync.WaitGroup
	for s := range senders {
		group.Go(func() {
			for i := range each {
				if _, err := a.SendText(ctx, fmt.Sprintf("%02d-%03d", s, i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b := inConversation(t, bob, a.ID())
	next := map[string]int{}
	got := texts(t, b)
	for _, text := range got {
		var s, i int
		if _, err := fmt.Sscanf(text, "%d-%d", &s, &i); err != nil {
			t.Fatal(err)
		}
		key := text[:2]
		if i != next[key] {
			t.Errorf("%s comes after %d of its sender", text, next[key])
		}
		next[key] = i + 1
	}
	if len(got) != senders*each {
		t.Errorf("%d of %d arrive", len(got), senders*each)
	}
}
