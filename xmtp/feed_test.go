package xmtp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/node"
)

// listen hands over the texts that a client's stream brings until the test ends.
func listen(t *testing.T, c *Client) <-chan string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	texts, ended := make(chan string, 1000), make(chan error, 1)
	go func() {
		for m, err := range c.StreamAllMessages(ctx) {
			if err != nil {
				ended <- err
				return
			}
			if m.Kind == KindApplication {
				texts <- m.Text()
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error("the stream ended with", err)
		}
	})
	return texts
}

func wantText(ctx context.Context, t *testing.T, texts <-chan string, want string) {
	t.Helper()
	select {
	case got := <-texts:
		if got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	case <-ctx.Done():
		t.Fatalf("%q does not arrive", want)
	}
}

// Groups that come while a client streams are added to the stream that is open;
// where the node has none to which that could be done, others are opened.
func TestStreamAddsGroups(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		options node.Options
		want    func(opens map[string]int) bool
	}{
		"one stream": {node.Options{}, func(opens map[string]int) bool {
			return maps.Equal(opens, map[string]int{"Subscribe": 1})
		}},
		"streams that can't change": {node.Options{NoSubscribe: true}, func(opens map[string]int) bool {
			return opens["Subscribe"] == 1 && opens["SubscribeGroupMessages"] > 1 && opens["SubscribeWelcomeMessages"] > 1
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.options.Listen, tc.options.Ephemeral = "127.0.0.1:0", true
			n := must(node.Start(t.Context(), tc.options))(t)
			t.Cleanup(func() { check(t, n.Close()) })
			p := newProxy(t, "http://"+n.Addr())
			alice, bob := newClient(t, "http://"+n.Addr()), newClient(t, p.url)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			before := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
			check(t, bob.Sync(ctx))
			texts := listen(t, bob)
			must(before.SendText(ctx, "before"))(t)
			wantText(ctx, t, texts, "before")
			// Groups of others, and those that bob creates.
			for i := range 4 {
				theirs := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
				must(theirs.SendText(ctx, fmt.Sprint("theirs ", i)))(t)
				wantText(ctx, t, texts, fmt.Sprint("theirs ", i))
				own := must(bob.NewGroup(ctx, GroupOptions{}, alice.Address()))(t)
				check(t, alice.Sync(ctx))
				same := must(alice.Conversation(own.ID()))(t)
				must(same.SendText(ctx, fmt.Sprint("own ", i)))(t)
				wantText(ctx, t, texts, fmt.Sprint("own ", i))
				must(before.SendText(ctx, fmt.Sprint("before ", i)))(t)
				wantText(ctx, t, texts, fmt.Sprint("before ", i))
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if !tc.want(p.opens) {
				t.Errorf("streams that were opened: %v", p.opens)
			}
		})
	}
}

// Who is removed from a group and added again goes on with it, though its
// stream was there all the time.
func TestStreamAfterReturn(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	alice, bob := newClient(t, url), newClient(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	group := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	check(t, bob.Sync(ctx))
	texts := listen(t, bob)
	for i := range 3 {
		must(group.SendText(ctx, fmt.Sprint("in ", i)))(t)
		wantText(ctx, t, texts, fmt.Sprint("in ", i))
		check(t, group.RemoveMembers(ctx, bob.InboxID()))
		must(group.SendText(ctx, fmt.Sprint("without him ", i)))(t)
		check(t, group.AddMembers(ctx, bob.InboxID()))
		must(group.SendText(ctx, fmt.Sprint("back ", i)))(t)
		wantText(ctx, t, texts, fmt.Sprint("back ", i))
	}
}
