package xmtp_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/xmtp"
	"github.com/go-xmtp/go-xmtp/xmtptest"
)

// These tests see the client as its users do, in a network with a clock of its own.

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

// textsOf returns what a client reads in a conversation after a sync, oldest first.
func textsOf(t *testing.T, c *xmtp.Client, id string) (list []string) {
	t.Helper()
	check(t, c.Sync(t.Context()))
	for _, m := range must(must(c.Conversation(id))(t).Messages(xmtp.MessageOptions{}))(t) {
		if m.Kind == xmtp.KindApplication && m.Text() != "" {
			list = append(list, m.Text())
		}
	}
	return list
}

// listen streams what a client gets until the test ends.
func listen(t *testing.T, c *xmtp.Client) <-chan *xmtp.Message {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	messages, ended := make(chan *xmtp.Message, 1000), make(chan struct{})
	go func() {
		defer close(ended)
		for m, err := range c.StreamAllMessages(ctx) {
			if err != nil {
				return
			}
			messages <- m
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	synctest.Wait()
	return messages
}

// What can't be sent waits, and goes first when the node is back.
func TestMessageWaitsForTheNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := xmtptest.New(t)
		alice, bob := n.Client("alice", xmtp.WithoutWorkers()), n.Client("bob")
		chat := must(alice.DM(t.Context(), bob.Address()))(t)
		must(chat.SendText(t.Context(), "with the node"))(t)
		n.Cut()
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		m, err := chat.SendText(short, "without the node")
		if !errors.Is(err, xmtp.ErrNotPublished) || m == nil || m.Delivery != xmtp.Unpublished {
			t.Fatalf("got %v, %+v", err, m)
		}
		n.Restart()
		n.Restore()
		time.Sleep(time.Minute)
		must(chat.SendText(t.Context(), "with the node again"))(t)
		want := []string{"with the node", "without the node", "with the node again"}
		for name, c := range map[string]*xmtp.Client{"alice": alice, "bob": bob} {
			if got := textsOf(t, c, chat.ID()); !cmp.Equal(got, want) {
				t.Errorf("%s reads %q", name, got)
			}
		}
	})
}

// Whoever can removes who has left, by itself.
func TestGroupLeaveInTheBackground(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := xmtptest.New(t)
		alice, bob := n.Client("alice"), n.Client("bob")
		listen(t, alice)
		group := must(alice.NewGroup(t.Context(), xmtp.GroupOptions{}, bob.InboxID()))(t)
		check(t, bob.Sync(t.Context()))
		bobs := must(bob.Conversation(group.ID()))(t)
		check(t, bobs.Leave(t.Context()))
		time.Sleep(time.Minute)
		check(t, bobs.Sync(t.Context()))
		if must(bobs.IsActive())(t) {
			t.Error("he is a member still")
		}
	})
}
