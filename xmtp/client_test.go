package xmtp

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/node"
)

// startNode starts a node in memory.
func startNode(t *testing.T) string {
	t.Helper()
	n, err := node.Start(t.Context(), node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return "http://" + n.Addr()
}

// newClient makes a client of a new wallet.
func newClient(t *testing.T, url string, list ...Option) *Client {
	t.Helper()
	signer, err := GeneratePrivateKeySigner()
	if err != nil {
		t.Fatal(err)
	}
	return openClient(t, signer, append([]Option{WithNode(url), InMemory()}, list...)...)
}

func openClient(t *testing.T, signer Signer, list ...Option) *Client {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	c, err := NewClient(t.Context(), signer, append([]Option{WithLogger(logger)}, list...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// texts returns the texts of a conversation, oldest first.
func texts(t *testing.T, v *Conversation) []string {
	t.Helper()
	messages, err := v.Messages(MessageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range messages {
		if m.Kind == KindApplication && m.Text() != "" {
			list = append(list, m.Text())
		}
	}
	return list
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}

// inConversation returns the client's view of a conversation, after a sync.
func inConversation(t *testing.T, c *Client, id string) *Conversation {
	t.Helper()
	check(t, c.Sync(t.Context()))
	return must(c.Conversation(id))(t)
}

func sameEpoch(t *testing.T, views ...*Conversation) {
	t.Helper()
	for _, v := range views[1:] {
		n1, a1, err := views[0].Epoch(t.Context())
		check(t, err)
		n2, a2, err := v.Epoch(t.Context())
		check(t, err)
		if n1 != n2 || !slices.Equal(a1, a2) {
			t.Errorf("epochs %d and %d, authenticators %x and %x", n1, n2, a1, a2)
		}
	}
}

func TestDirectMessageBothWays(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	alice, bob := newClient(t, url), newClient(t, url)
	ctx := t.Context()
	toBob := must(alice.DM(ctx, bob.Address()))(t)
	must(toBob.SendText(ctx, "hello"))(t)
	toAlice := inConversation(t, bob, toBob.ID())
	if got := texts(t, toAlice); !cmp.Equal(got, []string{"hello"}) {
		t.Errorf("bob reads %q", got)
	}
	must(toAlice.SendText(ctx, "hello yourself"))(t)
	check(t, toBob.Sync(ctx))
	if got := texts(t, toBob); !cmp.Equal(got, []string{"hello", "hello yourself"}) {
		t.Errorf("alice reads %q", got)
	}
	if !toAlice.IsDM() || toAlice.PeerInboxID() != alice.InboxID() {
		t.Errorf("bob's view: dm %v with %s", toAlice.IsDM(), toAlice.PeerInboxID())
	}
	sameEpoch(t, toBob, toAlice)
	again := must(bob.DM(ctx, alice.InboxID()))(t)
	if again.ID() != toBob.ID() {
		t.Errorf("bob opens another direct message")
	}
}

func TestGroupMembersComeAndGo(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	alice, bob, carol := newClient(t, url), newClient(t, url), newClient(t, url)
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	must(a.SendText(ctx, "one"))(t)
	b := inConversation(t, bob, a.ID())
	check(t, a.AddMembers(ctx, carol.InboxID()))
	must(a.SendText(ctx, "two"))(t)
	c := inConversation(t, carol, a.ID())
	check(t, b.Sync(ctx))
	sameEpoch(t, a, b, c)
	if got := texts(t, c); !cmp.Equal(got, []string{"two"}) {
		t.Errorf("carol reads %q", got)
	}
	check(t, a.RemoveMembers(ctx, carol.Address()))
	must(a.SendText(ctx, "three"))(t)
	check(t, c.Sync(ctx))
	check(t, b.Sync(ctx))
	sameEpoch(t, a, b)
	if got := texts(t, c); !cmp.Equal(got, []string{"two"}) {
		t.Errorf("carol, removed, reads %q", got)
	}
	if active, err := c.IsActive(); active || err != nil {
		t.Errorf("carol is active: %v, %v", active, err)
	}
	if got := texts(t, b); !cmp.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("bob reads %q", got)
	}
	check(t, a.AddMembers(ctx, carol.Address()))
	must(a.SendText(ctx, "four"))(t)
	c = inConversation(t, carol, a.ID())
	if got := texts(t, c); !cmp.Equal(got, []string{"two", "four"}) {
		t.Errorf("carol, back, reads %q", got)
	}
	must(c.SendText(ctx, "five"))(t)
	check(t, a.Sync(ctx))
	if got := texts(t, a); !cmp.Equal(got, []string{"one", "two", "three", "four", "five"}) {
		t.Errorf("alice reads %q", got)
	}
}

func TestStreamDeliversWhatComes(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	alice, bob := newClient(t, url), newClient(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	received := make(chan string, 100)
	done := make(chan struct{})
	streaming, stop := context.WithCancel(ctx)
	go func() {
		defer close(done)
		for m, err := range bob.StreamAllMessages(streaming) {
			if err != nil {
				if streaming.Err() == nil {
					t.Error(err)
				}
				return
			}
			if m.Kind == KindApplication {
				received <- m.Text()
			}
		}
	}()
	toBob := must(alice.DM(ctx, bob.Address()))(t)
	group := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	for i, v := range []*Conversation{toBob, group, toBob, group} {
		want := []string{"a", "b", "c", "d"}[i]
		must(v.SendText(ctx, want))(t)
		select {
		case got := <-received:
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("%q does not arrive", want)
		}
	}
	stop()
	<-done
}
