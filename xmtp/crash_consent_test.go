package xmtp

import (
	"slices"
	"testing"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// Several decisions are stored, or none of them.
func whileDeciding(t *testing.T, w *world) attempt {
	id := w.group(t)
	n := 0
	return func(at cut, loss crashtest.Loss) bool {
		n++
		state := []ConsentState{ConsentDenied, ConsentAllowed}[n%2]
		_, cancel := w.alice.armed(t, at)
		err := w.alice.client.SetConsent(
			Consent{Kind: ConversationConsent, Entity: id, State: state},
			Consent{Kind: InboxConsent, Entity: w.bob.InboxID(), State: state},
		)
		cancel()
		came := w.came(t, at, err)
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
	}
}

// Dave, who was denied, makes another direct message; alice then answers in it.
func whileADuplicateComes(t *testing.T, w *world) attempt {
	var dave *Client
	var first *Conversation
	var made []string
	return func(at cut, loss crashtest.Loss) bool {
		if !proof && at.kind != atWrite && at.n%3 != 1 {
			return true // of the calls, too, a sample
		}
		if len(made)%20 == 0 { // not too many of one direct message
			dave = newClient(t, w.url, WithoutWorkers())
			first = anotherDM(t, dave, w.alice.client.InboxID())
			made = []string{first.ID()}
			check(t, w.alice.client.Sync(t.Context()))
		}
		check(t, must(w.alice.client.Conversation(first.ID()))(t).SetConsent(ConsentDenied))
		second := anotherDM(t, dave, w.alice.client.InboxID())
		made = append(made, second.ID())
		answer := w.text()

		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.Sync(ctx)
		if err == nil {
			var v *Conversation
			if v, err = w.alice.client.Conversation(second.ID()); err == nil {
				_, err = v.SendText(ctx, answer)
			}
		}
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		check(t, w.alice.client.Sync(t.Context()))
		v := must(w.alice.client.Conversation(first.ID()))(t)
		answered, want := slices.Contains(texts(t, v), answer), ConsentDenied
		if answered {
			want = ConsentAllowed
		}
		if err == nil && !answered {
			t.Error("the answer was confirmed and is lost")
		}
		for _, id := range made {
			if got := consentOf(t, w.alice.client, id); got != want {
				t.Errorf("%v, want %v (answered: %v)", got, want, answered)
			}
		}
		// Each has come, and once.
		check(t, w.alice.client.db.View(func(tx *store.Tx) error {
			rows, err := tx.ArrivalsFrom(0, store.Filter{DM: v.row.DM}, true, len(made)+1)
			var come []string
			for _, row := range rows {
				come = append(come, w.alice.client.conversation(row.Group).ID())
			}
			if !slices.Equal(come, made) {
				t.Errorf("what has come: %v", come)
			}
			return err
		}))
		check(t, v.group.settleAll(t.Context()))
		check(t, dave.Sync(t.Context()))
		if theirs := texts(t, must(dave.Conversation(first.ID()))(t)); !slices.Equal(theirs, texts(t, v)) {
			t.Errorf("dave reads %v", theirs)
		}
		return came
	}
}

// A decision about one conversation is stored or not.
func whileDecidingAboutAConversation(t *testing.T, w *world) attempt {
	id := w.group(t)
	n := 0
	return func(at cut, loss crashtest.Loss) bool {
		n++
		state := []ConsentState{ConsentDenied, ConsentAllowed}[n%2]
		_, cancel := w.alice.armed(t, at)
		err := must(w.alice.client.Conversation(id))(t).SetConsent(state)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		if got := consentOf(t, w.alice.client, id); err == nil && got != state {
			t.Errorf("decision %d was confirmed and is lost", n)
		}
		check(t, must(w.alice.client.Conversation(id))(t).SetConsent(state))
		return came
	}
}
