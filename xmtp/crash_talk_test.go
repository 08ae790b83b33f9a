package xmtp

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
)

func whileRegistering(t *testing.T, w *world) attempt {
	return func(at cut, loss crashtest.Loss) bool {
		check(t, w.alice.client.Close())
		w.fs.Load(nil)
		w.alice = newDevice(t, w.fs, w.proxy)
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.open(ctx, t)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		// Others find the inbox, with one installation, and can let it in.
		v := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.Address()))(t)
		log := must(w.bob.inboxes.known(w.alice.client.InboxID()))(t)
		state, _ := log.latest()
		if n := len(state.Installations()); n != 1 {
			t.Errorf("%d installations", n)
		}
		w.sent = map[string]bool{}
		check(t, w.say(t.Context(), w.bob, v.ID()))
		w.converge(t)
		w.compare(t, v.ID(), w.bob, w.alice.client)
		w.told(t, w.alice.client, v.ID())
		return came
	}
}

func whileCreatingAGroup(t *testing.T, w *world) attempt {
	checked := map[string]bool{}
	return func(at cut, loss crashtest.Loss) bool {
		ctx, cancel := w.alice.armed(t, at)
		v, err := w.alice.client.NewGroup(ctx, GroupOptions{}, w.bob.InboxID(), w.carol.Address())
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		w.converge(t)
		if err == nil {
			must(w.alice.client.Conversation(v.ID()))(t)
		}
		// What is there is there for all.
		lists := map[*Client]int{}
		for _, c := range []*Client{w.alice.client, w.bob, w.carol} {
			lists[c] = len(must(c.Conversations(ConversationOptions{}))(t))
		}
		if lists[w.bob] != lists[w.alice.client] || lists[w.carol] != lists[w.alice.client] {
			t.Errorf("conversations: %v", lists)
		}
		for _, v := range must(w.alice.client.Conversations(ConversationOptions{}))(t) {
			if checked[v.ID()] {
				continue
			}
			checked[v.ID()] = true
			w.sent = map[string]bool{}
			check(t, w.say(t.Context(), w.alice.client, v.ID()))
			check(t, w.say(t.Context(), w.bob, v.ID()))
			w.converge(t)
			w.compare(t, v.ID(), w.alice.client, w.bob, w.carol)
			w.told(t, w.carol, v.ID())
		}
		return came
	}
}

func whileCreatingADirectMessage(t *testing.T, w *world) attempt {
	return func(at cut, loss crashtest.Loss) bool {
		dave := newClient(t, w.url, WithoutWorkers())
		ctx, cancel := w.alice.armed(t, at)
		_, err := w.alice.client.DM(ctx, dave.Address())
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		// The user tries again: there is one, and it works.
		v := must(w.alice.client.DM(t.Context(), dave.Address()))(t)
		w.sent = map[string]bool{}
		check(t, w.say(t.Context(), w.alice.client, v.ID()))
		check(t, dave.Sync(t.Context()))
		w.converge(t)
		w.compare(t, v.ID(), w.alice.client, dave)
		w.told(t, dave, v.ID())
		if n := len(must(dave.Conversations(ConversationOptions{}))(t)); n != 1 {
			t.Errorf("%d conversations", n)
		}
		if rows := must(w.alice.client.siblings(v.row.DM))(t); len(rows) != 1 {
			t.Errorf("%d groups for one direct message", len(rows))
		}
		return came
	}
}

func whileSending(t *testing.T, w *world) attempt {
	id := w.group(t)
	return func(at cut, loss crashtest.Loss) bool {
		ctx, cancel := w.alice.armed(t, at)
		err := errors.Join(w.say(ctx, w.alice.client, id), w.say(ctx, w.alice.client, id))
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		check(t, w.say(t.Context(), w.alice.client, id))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.bob, id)
		return came
	}
}

// The first message in a group that somebody else made: our own commit, what is
// new of members, and the message.
func whileSendingForTheFirstTime(t *testing.T, w *world) attempt {
	return func(at cut, loss crashtest.Loss) bool {
		w.sent = map[string]bool{}
		v := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.InboxID(), w.carol.InboxID()))(t)
		check(t, w.say(t.Context(), w.bob, v.ID()))
		w.converge(t)
		ctx, cancel := w.alice.armed(t, at)
		err := w.say(ctx, w.alice.client, v.ID())
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		check(t, w.say(t.Context(), w.alice.client, v.ID()))
		w.converge(t)
		w.compare(t, v.ID(), w.alice.client, w.bob, w.carol)
		w.told(t, w.bob, v.ID())
		return came
	}
}

func whileChangingMembers(t *testing.T, w *world) attempt {
	return changeMembers(t, w, func(string) {})
}

// Another commit comes first, so that ours is made twice.
func whileLosingARace(t *testing.T, w *world) attempt {
	return changeMembers(t, w, func(id string) {
		check(t, must(w.bob.Conversation(id))(t).UpdateKeys(t.Context()))
		check(t, w.say(t.Context(), w.bob, id))
	})
}

func changeMembers(t *testing.T, w *world, before func(id string)) attempt {
	dave := newClient(t, w.url, WithoutWorkers())
	id := w.group(t)
	in := false
	return func(at cut, loss crashtest.Loss) bool {
		v := must(w.alice.client.Conversation(id))(t)
		before(id)
		ctx, cancel := w.alice.armed(t, at)
		var err error
		if in {
			err = v.RemoveMembers(ctx, dave.InboxID())
		} else {
			err = v.AddMembers(ctx, dave.InboxID())
		}
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		w.converge(t)
		members := must(must(w.alice.client.Conversation(id))(t).Members(t.Context()))(t)
		if now := slices.ContainsFunc(members, func(m Member) bool { return m.InboxID == dave.InboxID() }); err == nil && now == in {
			t.Error("the change was confirmed and is lost")
		} else {
			in = now
		}
		check(t, w.say(t.Context(), w.alice.client, id))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		check(t, dave.Sync(t.Context()))
		daves, err := dave.Conversation(id)
		if in {
			check(t, err)
			sameEpoch(t, daves, must(w.bob.Conversation(id))(t))
		} else if err == nil {
			if active := must(daves.IsActive())(t); active {
				t.Error("dave was removed and does not know")
			}
		}
		return came
	}
}

func whileReceiving(t *testing.T, w *world) attempt {
	id := w.group(t)
	n := 0
	return func(at cut, loss crashtest.Loss) bool {
		// Messages, commits, and messages of the next epochs.
		check(t, w.say(t.Context(), w.bob, id))
		check(t, must(w.bob.Conversation(id))(t).UpdateKeys(t.Context()))
		check(t, w.say(t.Context(), w.bob, id))
		check(t, w.say(t.Context(), w.carol, id))
		ctx, cancel := w.alice.armed(t, at)
		sync := w.alice.client.Sync
		if n++; n%2 == 0 {
			sync = must(w.alice.client.Conversation(id))(t).Sync
		}
		err := sync(ctx)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.alice.client, id)
		forgotten(t, w.alice.client, id)
		check(t, w.say(t.Context(), w.alice.client, id))
		return came
	}
}

func whileStreaming(t *testing.T, w *world) attempt {
	id := w.group(t)
	return func(at cut, loss crashtest.Loss) bool {
		ctx, cancel := w.alice.armed(t, at)
		connected := w.proxy.streams()
		streamed := make(chan error, 1)
		last := w.next + 3
		go func() {
			for m, err := range w.alice.client.StreamAllMessages(ctx) {
				if err != nil {
					streamed <- err
					return
				}
				if m.Text() == textOf(last) {
					break
				}
			}
			streamed <- nil
		}()
		select { // what comes after this comes on the stream
		case <-connected:
		case err := <-streamed: // the disk has failed before that
			streamed <- err
		case <-ctx.Done():
		}
		check(t, w.say(t.Context(), w.bob, id))
		check(t, must(w.bob.Conversation(id))(t).UpdateKeys(t.Context()))
		check(t, w.say(t.Context(), w.carol, id))
		check(t, w.say(t.Context(), w.bob, id))
		err := <-streamed
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.alice.client, id)
		forgotten(t, w.alice.client, id)
		return came
	}
}

func whileJoining(t *testing.T, w *world) attempt {
	return func(at cut, loss crashtest.Loss) bool {
		w.sent = map[string]bool{}
		v := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.InboxID()))(t)
		check(t, w.say(t.Context(), w.bob, v.ID()))
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.Sync(ctx)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		w.converge(t)
		check(t, w.say(t.Context(), w.alice.client, v.ID()))
		w.converge(t)
		w.compare(t, v.ID(), w.alice.client, w.bob)
		w.told(t, w.alice.client, v.ID())
		w.told(t, w.bob, v.ID())
		return came
	}
}

func whileRotatingTheKeyPackage(t *testing.T, w *world) attempt {
	return func(at cut, loss crashtest.Loss) bool {
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.rotateKeyPackage(ctx)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		// Whatever others get, alice has the keys for it.
		w.sent = map[string]bool{}
		v := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.InboxID()))(t)
		check(t, w.say(t.Context(), w.bob, v.ID()))
		w.converge(t)
		w.compare(t, v.ID(), w.alice.client, w.bob)
		w.told(t, w.alice.client, v.ID())
		return came
	}
}

// Bob puts alice out of a group, and in again.
func whileBeingLetInAgain(t *testing.T, w *world) attempt {
	first := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.InboxID(), w.carol.InboxID()))(t)
	return func(at cut, loss crashtest.Loss) bool {
		w.sent = map[string]bool{} // what was said while she was out she doesn't get
		check(t, first.RemoveMembers(t.Context(), w.alice.client.InboxID()))
		must(first.SendText(t.Context(), w.text()))(t)
		check(t, first.AddMembers(t.Context(), w.alice.client.InboxID()))
		check(t, w.say(t.Context(), w.bob, first.ID()))
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.Sync(ctx)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		w.converge(t)
		check(t, w.say(t.Context(), w.alice.client, first.ID()))
		w.converge(t)
		w.told(t, w.alice.client, first.ID())
		w.told(t, w.carol, first.ID())
		w.compare(t, first.ID(), w.bob, w.carol)
		return came
	}
}

// Conversations and the messages of one are streamed while another one begins.
func whileStreamingConversations(t *testing.T, w *world) attempt {
	id := w.group(t)
	return func(at cut, loss crashtest.Loss) bool {
		ctx, cancel := w.alice.armed(t, at)
		connected := w.proxy.streams()
		streamed := make(chan error, 2)
		last := w.next + 3
		v := must(w.alice.client.Conversation(id))(t)
		go func() {
			for m, err := range v.StreamMessages(ctx) {
				if err != nil || m.Text() == textOf(last) {
					streamed <- err
					return
				}
			}
		}()
		go func() {
			for _, err := range w.alice.client.StreamConversations(ctx) {
				streamed <- err
				return
			}
		}()
		select {
		case <-connected:
		case <-ctx.Done():
		case <-time.After(time.Second): // a disk that fails lets them end before that
		}
		check(t, w.say(t.Context(), w.bob, id))
		other := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.InboxID(), w.carol.InboxID()))(t)
		check(t, w.say(t.Context(), w.bob, other.ID()))
		check(t, w.say(t.Context(), w.bob, id))
		err := errors.Join(<-streamed, <-streamed)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		check(t, w.say(t.Context(), w.alice.client, other.ID()))
		w.converge(t)
		w.compare(t, other.ID(), w.alice.client, w.bob, w.carol)
		return came
	}
}

func whileClosing(t *testing.T, w *world) attempt {
	id := w.group(t)
	return func(at cut, loss crashtest.Loss) bool {
		check(t, w.say(t.Context(), w.alice.client, id))
		check(t, w.say(t.Context(), w.bob, id))
		check(t, w.alice.client.Sync(t.Context()))
		_, cancel := w.alice.armed(t, at)
		err := w.alice.client.Close()
		cancel()
		w.alice.client = nil
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		check(t, w.say(t.Context(), w.alice.client, id))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.bob, id)
		return came
	}
}

// The place of a durable stream: no message is passed over, and only the one that was
// being handled comes again.
func whileStreamingDurably(t *testing.T, w *world) attempt {
	id := w.group(t)
	w.alice.client.StreamAllMessages(t.Context(), Durable("place")) // from here on
	return func(at cut, loss crashtest.Loss) bool {
		var got []string
		stream := func(ctx context.Context) error {
			last := textOf(w.next)
			for m, err := range w.alice.client.StreamAllMessages(ctx, Durable("place")) {
				if err != nil {
					return err
				}
				if m.Text() != "" {
					got = append(got, m.Text())
				}
				if m.Text() == last {
					break
				}
			}
			return nil
		}
		first := w.next + 1
		for range 3 {
			check(t, w.say(t.Context(), w.bob, id))
		}
		ctx, cancel := w.alice.armed(t, at)
		w.alice.client.StreamAllMessages(ctx, Durable("another"))
		err := w.alice.client.ForgetDurable("another")
		if err == nil {
			err = stream(ctx)
		}
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		check(t, w.say(t.Context(), w.bob, id))
		check(t, stream(t.Context()))
		var want []string
		for n := first; n <= w.next; n++ {
			want = append(want, textOf(n))
		}
		once := slices.Compact(slices.Clone(got))
		if !slices.Equal(once, want) || len(got) > len(want)+1 {
			t.Errorf("got %q, want %q", got, want)
		}
		return came
	}
}
