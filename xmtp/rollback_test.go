package xmtp

import (
	"errors"
	"testing"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// restore puts an earlier copy of the database in place of the present one.
func (d *device) restore(t *testing.T, image crashtest.Image) {
	t.Helper()
	d.crash(crashtest.LoseNothing())
	d.fs.Load(image)
	check(t, d.open(t.Context(), t))
}

// A database that is older than what was sent from it is noticed before it sends
// anything, in every way to send; other conversations are not affected; and a
// member who removes and adds the device again heals it.
func TestRolledBackDatabaseSendsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	dave := newClient(t, w.url, WithoutWorkers())
	view := func(id string) *Conversation { return must(w.alice.client.Conversation(id))(t) }
	sendings := map[string]func(id string) error{
		"a message":    func(id string) error { return w.say(ctx, w.alice.client, id) },
		"renewed keys": func(id string) error { return view(id).UpdateKeys(ctx) },
		"a new member": func(id string) error { return view(id).AddMembers(ctx, dave.InboxID()) },
	}
	betweens := map[string]func(id string){
		"many messages": func(id string) {
			for range 10 {
				check(t, w.say(ctx, w.alice.client, id))
			}
		},
		"two messages": func(id string) {
			check(t, w.say(ctx, w.alice.client, id))
			check(t, w.say(ctx, w.alice.client, id))
		},
		"a message in a later epoch": func(id string) {
			check(t, must(w.bob.Conversation(id))(t).UpdateKeys(ctx))
			check(t, w.alice.client.Sync(ctx))
			check(t, w.say(ctx, w.alice.client, id))
		},
		"messages that many epochs follow": func(id string) {
			check(t, w.say(ctx, w.alice.client, id))
			check(t, w.say(ctx, w.alice.client, id))
			check(t, w.bob.Sync(ctx))
			for range 5 {
				check(t, must(w.bob.Conversation(id))(t).UpdateKeys(ctx))
			}
		},
	}
	for name, send := range sendings {
		betweens[name] = func(id string) { check(t, send(id)) }
	}
	delete(betweens, "a message") // see TestOldCopyThatHasSentAll
	for between, do := range betweens {
		for name, send := range sendings {
			if !proof && between != "two messages" && name != "a message" {
				continue
			}
			t.Run(between+", then "+name, func(t *testing.T) {
				w.sent = map[string]bool{}
				id, other := w.joined(t), w.joined(t)
				image := w.fs.Image()
				do(id)
				w.converge(t)
				w.alice.restore(t, image)
				sent := len(w.ledger.seen)
				if err := send(id); !errors.Is(err, ErrStateRolledBack) {
					t.Errorf("got %v", err)
				}
				if err := w.say(ctx, w.alice.client, id); !errors.Is(err, ErrStateRolledBack) {
					t.Errorf("the next time: %v", err)
				}
				check(t, w.alice.client.Close())
				check(t, w.alice.open(ctx, t))
				if err := w.say(ctx, w.alice.client, id); !errors.Is(err, ErrStateRolledBack) {
					t.Errorf("reopened: %v", err)
				}
				if n := len(w.ledger.seen); n != sent {
					t.Errorf("%d messages have left", n-sent)
				}
				for _, m := range must(view(id).Messages(MessageOptions{}))(t) {
					if m.Delivery == Unpublished {
						t.Errorf("%q waits", m.Text())
					}
				}
				check(t, w.say(ctx, w.alice.client, other))
				check(t, w.bob.Sync(ctx))
				w.told(t, w.bob, id, other)
				heal(t, w, id, w.bob)
			})
		}
	}
}

// joined makes a group that alice is let into by bob, who can remove her, and in
// which she has sent.
func (w *world) joined(t *testing.T) string {
	t.Helper()
	v := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.InboxID(), w.carol.InboxID()))(t)
	check(t, w.alice.client.Sync(t.Context()))
	check(t, w.say(t.Context(), w.alice.client, v.ID()))
	w.converge(t)
	return v.ID()
}

// A copy that is as old, but has sent everything that was sent, goes on; also if
// others have moved on, and if a message was on its way when it was taken. One that
// lacks a single message is as after a power cut, and reads it again.
func TestOldCopyThatHasSentAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	id := w.group(t)
	for name, between := range map[string]func(){
		"nothing happened": func() {},
		"others have sent": func() {
			check(t, w.say(ctx, w.bob, id))
			check(t, must(w.bob.Conversation(id))(t).UpdateKeys(ctx))
			check(t, w.say(ctx, w.carol, id))
		},
	} {
		t.Run(name, func(t *testing.T) {
			image := w.fs.Image()
			between()
			w.converge(t)
			w.alice.restore(t, image)
			check(t, w.say(ctx, w.alice.client, id))
			w.converge(t)
			w.compare(t, id, w.alice.client, w.bob, w.carol)
			w.told(t, w.alice.client, id)
		})
	}
	t.Run("a message is missing", func(t *testing.T) {
		image := w.fs.Image()
		check(t, w.say(ctx, w.alice.client, id))
		w.converge(t)
		w.alice.restore(t, image)
		check(t, w.say(ctx, w.alice.client, id))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.alice.client, id)
	})
	t.Run("a message was on its way", func(t *testing.T) {
		sending, cancel := w.alice.armed(t, cut{beforeCall, 1})
		if err := w.say(sending, w.alice.client, id); !errors.Is(err, ErrNotPublished) {
			t.Fatal(err)
		}
		cancel()
		w.alice.crash(crashtest.LoseNothing())
		image := w.fs.Image()
		check(t, w.alice.open(ctx, t))
		w.converge(t)
		w.alice.restore(t, image)
		check(t, w.say(ctx, w.alice.client, id))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
	})
}

// A device that was rolled back to before it joined joins again, and is noticed
// all the same.
func TestRolledBackToBeforeJoining(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	image := w.fs.Image()
	v := must(w.bob.NewGroup(ctx, GroupOptions{}, w.alice.client.InboxID()))(t)
	check(t, w.alice.client.Sync(ctx))
	check(t, w.say(ctx, w.alice.client, v.ID()))
	w.converge(t)
	w.alice.restore(t, image)
	sent := len(w.ledger.seen)
	if err := w.alice.client.Sync(ctx); err != nil && !errors.Is(err, ErrStateRolledBack) {
		t.Fatal(err)
	}
	if err := w.say(ctx, w.alice.client, v.ID()); !errors.Is(err, ErrStateRolledBack) {
		t.Errorf("got %v", err)
	}
	if n := len(w.ledger.seen); n != sent {
		t.Errorf("%d messages have left", n-sent)
	}
	heal(t, w, v.ID(), w.bob)
}

// heal lets another member remove and add alice's device, after which she sends again.
func heal(t *testing.T, w *world, id string, by *Client) {
	t.Helper()
	ctx := t.Context()
	v := must(by.Conversation(id))(t)
	check(t, v.Sync(ctx))
	check(t, v.RemoveMembers(ctx, w.alice.client.InboxID()))
	check(t, v.AddMembers(ctx, w.alice.client.InboxID()))
	w.converge(t)
	w.sent = map[string]bool{}
	check(t, w.say(ctx, w.alice.client, id))
	check(t, w.say(ctx, by, id))
	w.converge(t)
	sameEpoch(t, must(w.alice.client.Conversation(id))(t), v)
	w.told(t, w.alice.client, id)
	w.told(t, by, id)
	if len(w.ledger.count) == 0 || w.ledger.count[mls.ContentTypeApplication] == 0 {
		t.Error("nothing was looked at")
	}
}

// A welcome that comes once more, after the removal that followed it, must not
// bring back the keys of its epoch, which have been used.
func TestOldWelcomeIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	alice := w.alice.client
	v := must(w.bob.NewGroup(ctx, GroupOptions{}, alice.InboxID()))(t)
	response, err := w.bob.node.MLS.QueryWelcomeMessages(ctx, &mlsapi.QueryWelcomeMessagesRequest{InstallationKey: alice.installation.Bytes()})
	check(t, err)
	welcome := response.Messages[0]
	check(t, alice.Sync(ctx))
	check(t, w.say(ctx, alice, v.ID()))
	w.converge(t)
	check(t, v.RemoveMembers(ctx, alice.InboxID()))
	for _, removed := range []bool{false, true} {
		if removed {
			check(t, alice.Sync(ctx))
		}
		welcome.GetV1().Id += 1000
		opened, reason, err := alice.unwrap(welcome)
		if reason != nil || err != nil {
			t.Fatal(reason, err)
		}
		if g, err := alice.joinOne(ctx, opened, func(*store.Tx) error { return nil }); g != nil || err != nil {
			t.Errorf("knowing that she was removed %v: %v, %v", removed, g, err)
		}
	}
	if err := w.say(ctx, alice, v.ID()); !errors.Is(err, ErrRemoved) {
		t.Errorf("got %v", err)
	}
	w.ledger.observe(t, w.bob)
	w.ledger.check(t)
}
