package xmtp

import (
	"fmt"
	"testing"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// Crashes at any point of publishing and comparing leave nothing out.
func whileComparingCommitLogs(t *testing.T, w *world) attempt {
	id := w.group(t)
	bobs := must(w.bob.Conversation(id))(t)
	must(bobs.SendText(t.Context(), "consent"))(t)
	n := 0
	return func(at cut, loss crashtest.Loss) bool {
		n++
		v := must(w.alice.client.Conversation(id))(t)
		check(t, v.SetName(t.Context(), fmt.Sprint("name ", n)))
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.CheckForks(ctx)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		w.converge(t)
		wantFork(t, must(w.alice.client.Conversation(id))(t), Healthy)
		wantFork(t, bobs, Healthy)
		// What was published twice is passed over.
		numbers := map[uint64]bool{}
		for _, c := range must(bobs.DebugInfo(t.Context()))(t).SharedCommitLog {
			if numbers[c.Number] {
				t.Errorf("commit %d is there twice", c.Number)
			}
			numbers[c.Number] = true
		}
		if len(numbers) < n {
			t.Errorf("%d of %d commits are in the log", len(numbers), n)
		}
		return came
	}
}

// Crashes at any point of deleting leave nothing for good.
func whileDeletingExpired(t *testing.T, w *world) attempt {
	id := w.group(t)
	check(t, must(w.alice.client.Conversation(id))(t).SetDisappearing(t.Context(), Disappearing{In: 1}))
	check(t, w.bob.Sync(t.Context()))
	return func(at cut, loss crashtest.Loss) bool {
		w.sent = map[string]bool{}
		for range 3 {
			check(t, w.say(t.Context(), w.alice.client, id))
			check(t, w.say(t.Context(), w.bob, id))
		}
		check(t, w.alice.client.Sync(t.Context()))
		ctx, cancel := w.alice.armed(t, at)
		_, err := w.alice.client.deleteExpired(ctx)
		if err == nil {
			err = w.alice.client.db.Scrub()
		}
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		w.converge(t)
		check(t, w.alice.client.Upkeep(t.Context()))
		v := must(w.alice.client.Conversation(id))(t)
		var left int64
		check(t, w.alice.client.db.View(func(tx *store.Tx) error {
			_, err := tx.One("SELECT count(*) FROM messages WHERE expires IS NOT NULL", nil, func(r store.Row) { left = r.Int(0) })
			return err
		}))
		if left != 0 {
			t.Errorf("%d messages are left of %d", left, stored(t, w.alice.client, v))
		}
		return came
	}
}

// Everything that workers do, at once: what waits is published, keys are renewed, the
// database is tidied.
func whileDoingUpkeep(t *testing.T, w *world) attempt {
	check(t, w.alice.client.Close())
	w.alice.client = nil
	w.alice.options = []Option{WithSelfUpdate(SelfUpdatePolicy{Background: 1})}
	check(t, w.alice.open(t.Context(), t))
	id := w.group(t)
	return func(at cut, loss crashtest.Loss) bool {
		v := must(w.alice.client.Conversation(id))(t)
		for range 2 {
			text := w.text()
			must(v.SendOptimistic(content.Text(text)))(t)
			w.sent[text] = false
		}
		check(t, w.alice.client.db.Sync()) // it was not waited for
		check(t, w.say(t.Context(), w.bob, id))
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.Upkeep(ctx)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		check(t, w.alice.client.Upkeep(t.Context()))
		for text := range w.sent {
			w.sent[text] = true
		}
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.bob, id)
		return came
	}
}
