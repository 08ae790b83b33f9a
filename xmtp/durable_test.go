package xmtp

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// takeTexts takes n texts from a stream and leaves it.
func takeTexts(t *testing.T, n int, stream func(func(*Message, error) bool)) (list []string) {
	t.Helper()
	for m, err := range stream {
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind != KindApplication {
			continue
		}
		if list = append(list, m.Text()); len(list) == n {
			break
		}
	}
	return list
}

// leftTexts returns what a stream yields of what is stored.
func leftTexts(t *testing.T, c *Client, options ...StreamOption) (list []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it ends when there is nothing left
	for m, err := range c.StreamAllMessages(ctx, options...) {
		if errors.Is(err, context.Canceled) {
			return list
		}
		check(t, err)
		if m.Kind == KindApplication {
			list = append(list, m.Text())
		}
	}
	return list
}

func wantTexts(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("streamed (-want, +got):\n%s", diff)
	}
}

// A durable stream goes on where its loop was left, over restarts, whatever came
// while nobody listened, and in the order in which it came.
func TestDurableStream(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	alice := newClient(t, url)
	signer := must(GeneratePrivateKeySigner())(t)
	path := filepath.Join(t.TempDir(), "bob.db")
	open := func() *Client { return openClient(t, signer, WithNode(url), WithDatabase(path)) }
	bob := open()
	say := func(v *Conversation, text string) { t.Helper(); must(v.SendText(ctx, text))(t) }

	dm := must(alice.DM(ctx, bob.Address()))(t)
	say(dm, "before")
	check(t, bob.Sync(ctx))
	bot := bob.StreamAllMessages(ctx, Durable("bot")) // from here on
	all := bob.StreamAllMessages(ctx, Durable("all"), FromStart())
	say(dm, "one")
	say(dm, "two")
	check(t, bob.Sync(ctx))
	wantTexts(t, takeTexts(t, 1, bot), "one")
	wantTexts(t, takeTexts(t, 2, all), "before", "one")
	check(t, bob.Close())

	// A group whose first messages are older than what comes after it in the DM.
	group := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	say(group, "group one")
	say(dm, "three")
	say(group, "group two")
	bob = open()
	check(t, must(bob.Conversation(dm.ID()))(t).Sync(ctx))
	check(t, bob.Sync(ctx))
	wantTexts(t, takeTexts(t, 2, bob.StreamAllMessages(ctx, Durable("bot"))), "two", "three")
	check(t, bob.Close())

	bob = open()
	wantTexts(t, leftTexts(t, bob, Durable("bot")), "group one", "group two")
	wantTexts(t, leftTexts(t, bob, Durable("bot")))
	wantTexts(t, leftTexts(t, bob, Durable("all"), OfType(GroupConversation)), "group one", "group two")
	wantTexts(t, leftTexts(t, bob, Durable("all")))

	// Nothing of it is in the way of others.
	inGroup := must(bob.Conversation(group.ID()))(t)
	wantTexts(t, takeTexts(t, 1, inGroup.StreamMessages(ctx, Durable("bot"), FromStart())), "group one")
	wantTexts(t, takeTexts(t, 1, inGroup.StreamMessages(ctx, Durable("bot"))), "group two")
	wantTexts(t, leftTexts(t, bob, FromStart()), "before", "one", "two", "three", "group one", "group two")
	var conversations []string
	for v, err := range bob.StreamConversations(ctx, Durable("bot"), FromStart()) {
		check(t, err)
		if conversations = append(conversations, v.ID()); len(conversations) == 2 {
			break
		}
	}
	if want := []string{dm.ID(), group.ID()}; !slices.Equal(conversations, want) {
		t.Errorf("conversations %q, want %q", conversations, want)
	}

	if names := must(bob.DurableStreams())(t); !slices.Equal(names, []string{"all", "bot"}) {
		t.Errorf("names: %q", names)
	}
	check(t, bob.ForgetDurable("bot"))
	check(t, bob.ForgetDurable("nobody's"))
	if names := must(bob.DurableStreams())(t); !slices.Equal(names, []string{"all"}) {
		t.Errorf("names: %q", names)
	}
	wantTexts(t, leftTexts(t, bob, Durable("bot")))
	say(dm, "last")
	wantTexts(t, takeTexts(t, 1, bob.StreamAllMessages(ctx, Durable("bot"))), "last")
}

// A body that doesn't come to its end gets its message again, and no other.
func TestDurableStreamBody(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	alice, bob := newClient(t, url), newClient(t, url)
	dm := must(alice.DM(ctx, bob.Address()))(t)
	check(t, bob.Sync(ctx))
	stream := bob.StreamAllMessages(ctx, Durable("bot"))
	for i := range 6 {
		must(dm.SendText(ctx, fmt.Sprint(i)))(t)
	}
	check(t, bob.Sync(ctx))

	var got []string
	take := func(end func()) {
		defer func() { _ = recover() }()
		for m, err := range stream {
			check(t, err)
			if m.Kind != KindApplication {
				continue
			}
			got = append(got, m.Text())
			if len(got)%2 == 0 {
				end()
				return
			}
		}
	}
	take(func() { panic("for a test") })
	take(func() {}) // and returns
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		take(runtime.Goexit)
	}()
	<-ended
	take(func() {})
	wantTexts(t, got, "0", "1", "1", "2", "3", "4", "4", "5")
	wantTexts(t, leftTexts(t, bob, Durable("bot")))
}

// Two loops at one place would take from each other.
func TestDurableStreamTwice(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	alice, bob := newClient(t, url), newClient(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	failure := func(stream func(func(*Message, error) bool)) error {
		for _, err := range stream {
			return err
		}
		return nil
	}
	stream := bob.StreamAllMessages(ctx, Durable("bot"), FromStart())
	dm := must(alice.DM(ctx, bob.Address()))(t)
	must(dm.SendText(ctx, "one"))(t)
	for m, err := range stream {
		check(t, err)
		if m.Text() != "one" {
			continue
		}
		if err := failure(bob.StreamAllMessages(ctx, Durable("bot"))); !errors.Is(err, ErrStreamInUse) {
			t.Errorf("twice: %v", err)
		}
		if err := failure(stream); !errors.Is(err, ErrStreamInUse) {
			t.Errorf("in itself: %v", err)
		}
		if err := bob.ForgetDurable("bot"); !errors.Is(err, ErrStreamInUse) {
			t.Errorf("forgetting: %v", err)
		}
		b := must(bob.Conversation(dm.ID()))(t)
		if err := failure(b.StreamMessages(ctx, Durable("bot"), FromStart())); err != nil {
			t.Errorf("of the conversation: %v", err)
		}
		break
	}
	if err := failure(bob.StreamAllMessages(ctx, Durable(""))); !errors.Is(err, errNoStreamName) {
		t.Errorf("without a name: %v", err)
	}
	must(dm.SendText(ctx, "two"))(t)
	wantTexts(t, takeTexts(t, 1, bob.StreamAllMessages(ctx, Durable("bot"))), "two")
}

// Who denies a conversation in the loop hears no more of it, although what comes next
// was stored before.
func TestStreamConsentInTheLoop(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	alice, bob := newClient(t, url), newClient(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first, second := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t), must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	for _, v := range []*Conversation{first, second, first, second} {
		must(v.SendText(ctx, v.ID()))(t)
	}
	check(t, bob.Sync(ctx))
	var got []string
	for m, err := range bob.StreamAllMessages(ctx, FromStart()) {
		check(t, err)
		if m.Kind != KindApplication {
			continue
		}
		if got = append(got, m.Text()); m.ConversationID == first.ID() {
			check(t, must(bob.Conversation(first.ID()))(t).SetConsent(ConsentDenied))
		}
		if len(got) == 3 {
			break
		}
	}
	counts := map[string]int{}
	for _, id := range got {
		counts[id]++
	}
	if counts[first.ID()] != 1 || counts[second.ID()] != 2 {
		t.Errorf("%d of the first, %d of the second", counts[first.ID()], counts[second.ID()])
	}
}

// Wherever it is stopped, a durable stream yields each message, in order, and none
// twice but the one whose handling was cut off.
func TestCrashWhileStreamingDurably(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	var handled []string
	// take handles what is stored up to a text.
	take := func(ctx context.Context, until string) error {
		for m, err := range w.alice.client.StreamAllMessages(ctx, Durable("bot")) {
			if err != nil {
				return err
			}
			if m.Kind != KindApplication || m.SenderInboxID == w.alice.client.InboxID() {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err() // the program isn't there any more
			}
			handled = append(handled, m.Text())
			if m.Text() == until {
				return nil
			}
		}
		return nil
	}
	w.alice.client.StreamAllMessages(t.Context(), Durable("bot"))
	var want []string
	for n, step := 1, 7; ; n += step {
		if proof {
			step = 1
		}
		for range 3 {
			check(t, w.say(t.Context(), w.bob, id))
			want = append(want, textOf(w.next))
		}
		check(t, w.alice.client.Sync(t.Context()))
		ctx, cancel := w.alice.armed(t, cut{atWrite, n})
		err := take(ctx, textOf(w.next))
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.alice.crash(losses(n)[n%3])
		check(t, w.alice.open(t.Context(), t))
		if came {
			must(w.alice.client.Conversation(id))(t)
			check(t, w.say(t.Context(), w.bob, id))
			want = append(want, textOf(w.next))
			check(t, take(t.Context(), textOf(w.next)))
		}
		if !came {
			break
		}
	}
	doubled := 0
	for i, text := range handled {
		if i > 0 && text == handled[i-1] {
			doubled++
		}
	}
	if diff := cmp.Diff(want, slices.Compact(slices.Clone(handled))); diff != "" {
		t.Errorf("handled (-want, +got):\n%s", diff)
	}
	t.Logf("%d messages, %d of them again", len(want), doubled)
}
