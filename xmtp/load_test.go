package xmtp

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
)

// Many senders on one device share the outbox: each text arrives once, and those
// of one sender in their order.
func TestManySendersInOneGroup(t *testing.T) {
	t.Parallel()
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

// Many senders on one device, each in a conversation of his own, while two streams are
// open: the database never refuses, everything arrives once and in order, at the
// receiver as on both streams.
func TestManySendersInManyGroups(t *testing.T) {
	t.Parallel()
	senders, each := 8, 5
	if proof {
		senders, each = 64, 1000
	}
	url := startNode(t)
	ctx := t.Context()
	alice := openClient(t, must(GeneratePrivateKeySigner())(t), WithNode(url), WithDatabase(filepath.Join(t.TempDir(), "client.db")))
	bob := newClient(t, url)
	groups := make([]*Conversation, senders)
	for s := range groups {
		groups[s] = must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t)
	}
	// seen takes the text of a conversation, and tells whether all have come.
	type seen struct {
		next map[string]int
		left int
	}
	newSeen := func() *seen { return &seen{map[string]int{}, senders * each} }
	take := func(who string, s *seen, m *Message) (all bool) {
		if m.Kind == KindApplication {
			if want := fmt.Sprint(s.next[m.ConversationID]); m.Text() != want {
				t.Errorf("%s: %q arrives, want %s", who, m.Text(), want)
			}
			s.next[m.ConversationID]++
			s.left--
		}
		return s.left == 0
	}
	listening, stop := context.WithCancel(ctx)
	defer stop()
	var streams, running sync.WaitGroup
	for n := range 2 {
		stream := alice.StreamAllMessages(listening) // from here on
		streams.Go(func() {
			got := newSeen()
			for m, err := range stream {
				if err != nil {
					t.Errorf("stream %d: %d are missing: %v", n, got.left, err)
					return
				}
				if take(fmt.Sprint("stream ", n), got, m) {
					return
				}
			}
		})
	}
	for _, v := range groups {
		running.Go(func() {
			for i := range each {
				if _, err := v.SendText(ctx, fmt.Sprint(i)); err != nil {
					t.Error(err)
					stop()
					return
				}
			}
		})
	}
	running.Wait()
	streams.Wait()
	check(t, bob.Sync(ctx))
	got := newSeen()
	for _, v := range groups {
		for _, m := range must(must(bob.Conversation(v.ID()))(t).Messages(MessageOptions{}))(t) {
			take("receiver", got, m)
		}
	}
	if got.left != 0 {
		t.Errorf("%d don't arrive", got.left)
	}
}
