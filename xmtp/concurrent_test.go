package xmtp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/mls"
)

// 64 goroutines send in one group, over a connection whose calls take at random
// longer and now and then fail: the receiver gets all of it, once, and what each
// of them has sent in its order; no key is used twice.
func TestManySendersThroughABadConnection(t *testing.T) {
	t.Parallel()
	const senders = 64
	each := 1600 / senders
	if proof {
		each = 1000
	}
	w := newWorld(t)
	ctx := t.Context()
	alice := w.alice.client
	a := must(alice.NewGroup(ctx, GroupOptions{}, w.bob.InboxID()))(t)
	received := make(chan string, senders)
	listening, stop := context.WithCancel(ctx)
	var listener sync.WaitGroup
	defer listener.Wait()
	defer stop()
	check(t, w.bob.Sync(ctx))
	listener.Go(func() {
		for m, err := range w.bob.StreamAllMessages(listening) {
			if err != nil {
				if listening.Err() == nil {
					t.Error(err)
				}
				return
			}
			if m.Kind == KindApplication {
				select {
				case received <- m.Text():
				case <-listening.Done():
				}
			}
		}
	})
	w.proxy.delay = func() time.Duration { return rand.N(20 * time.Millisecond) }
	w.proxy.sometimes = func() bool { return rand.N(50) == 0 }
	var group sync.WaitGroup
	for s := range senders {
		group.Go(func() {
			for i := range each {
				if _, err := a.SendText(ctx, fmt.Sprintf("%02d-%04d", s, i)); err != nil {
					t.Error(err)
					stop()
					return
				}
			}
		})
	}
	next := map[int]int{}
	var order []string
	for range senders * each {
		var text string
		select {
		case text = <-received:
		case <-listening.Done():
			group.Wait()
			t.FailNow()
		}
		var s, i int
		if _, err := fmt.Sscanf(text, "%d-%d", &s, &i); err != nil {
			t.Fatal(err)
		}
		if i != next[s] {
			t.Fatalf("%d of sender %d comes, want %d", i, s, next[s])
		}
		next[s]++
		order = append(order, text)
	}
	group.Wait()
	w.proxy.delay, w.proxy.sometimes = nil, nil
	w.converge(t)
	w.compare(t, a.ID(), alice, w.bob)
	if n := w.ledger.count[mls.ContentTypeApplication]; n != senders*each {
		t.Errorf("%d ciphertexts for %d messages", n, senders*each)
	}
	for i, text := range texts(t, a) {
		if order[i] != text {
			t.Fatalf("message %d is %q for the sender, %q for the receiver", i, text, order[i])
		}
	}
	t.Logf("%d calls, %d failed", w.proxy.calls, w.proxy.faults)
}
