package xmtp

import (
	"slices"
	"testing"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// Several decisions are stored, or none of them.
func TestCrashWhileDeciding(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	n := 0
	eachCut(t, 7, func(at cut, loss crashtest.Loss) bool {
		n++
		state := []ConsentState{ConsentDenied, ConsentAllowed}[n%2]
		_, cancel := w.alice.armed(t, at)
		err := w.alice.client.SetConsent(
			Consent{Kind: ConversationConsent, Entity: id, State: state},
			Consent{Kind: InboxConsent, Entity: w.bob.InboxID(), State: state},
		)
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		group := consentOf(t, w.alice.client, id)
		inbox := must(w.alice.client.Consent(InboxConsent, w.bob.InboxID()))(t)
		if err == nil && group != state {
			t.Errorf("decision %d was confirmed and is lost", n)
		}
		if n > 1 && group != inbox {
			t.Errorf("half of decision %d is there: %v, %v", n, group, inbox)
		}
		// What comes of it doesn't depend on the crash.
		check(t, w.alice.client.SetConsent(
			Consent{Kind: ConversationConsent, Entity: id, State: state},
			Consent{Kind: InboxConsent, Entity: w.bob.InboxID(), State: state},
		))
		return came
	})
}

// Dave, who was denied, makes another direct message; alice then answers in it.
func TestCrashWhileADuplicateComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eachCut(t, 43, func(at cut, loss crashtest.Loss) bool {
		dave := newClient(t, w.url, WithoutWorkers())
		first := anotherDM(t, dave, w.alice.client.InboxID())
		check(t, w.alice.client.Sync(t.Context()))
		check(t, must(w.alice.client.Conversation(first.ID()))(t).SetConsent(ConsentDenied))
		second := anotherDM(t, dave, w.alice.client.InboxID())
		both := []string{first.ID(), second.ID()}

		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.Sync(ctx)
		if err == nil {
			var v *Conversation
			if v, err = w.alice.client.Conversation(second.ID()); err == nil {
				_, err = v.SendText(ctx, "all right")
			}
		}
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		check(t, w.alice.client.Sync(t.Context()))
		v := must(w.alice.client.Conversation(first.ID()))(t)
		answered, want := slices.Contains(texts(t, v), "all right"), ConsentDenied
		if answered {
			want = ConsentAllowed
		}
		if err == nil && !answered {
			t.Error("the answer was confirmed and is lost")
		}
		for _, id := range both {
			if got := consentOf(t, w.alice.client, id); got != want {
				t.Errorf("%v, want %v (answered: %v)", got, want, answered)
			}
		}
		// Each has come, and once.
		check(t, w.alice.client.db.View(func(tx *store.Tx) error {
			rows, err := tx.ArrivalsFrom(0, store.Filter{DM: v.row.DM}, true, 10)
			var come []string
			for _, row := range rows {
				come = append(come, w.alice.client.conversation(row.Group).ID())
			}
			if !slices.Equal(come, both) {
				t.Errorf("what has come: %v", come)
			}
			return err
		}))
		check(t, v.group.settleAll(t.Context()))
		if _, err := v.SendText(t.Context(), "all right then"); err != nil {
			t.Error(err)
		}
		check(t, dave.Sync(t.Context()))
		if theirs := texts(t, must(dave.Conversation(first.ID()))(t)); !slices.Equal(theirs, texts(t, v)) {
			t.Errorf("dave reads %v", theirs)
		}
		return came
	})
}
