package xmtp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// What was sent without waiting is published once, in order, with what was waited for;
// and is there after a crash if something was waited for since.
func whileSendingOptimistically(t *testing.T, w *world) attempt {
	id := w.group(t)
	return func(at cut, loss crashtest.Loss) bool {
		v := must(w.alice.client.Conversation(id))(t)
		ctx, cancel := w.alice.armed(t, at)
		var said []string
		waited := func(err error) error {
			for _, text := range said {
				w.sent[text] = w.sent[text] || err == nil
			}
			return err
		}
		var err error
		for i := range 3 {
			text := w.text()
			w.sent[text] = false
			said = append(said, text)
			if i == 1 {
				_, err = v.Send(ctx, content.Text(text))
				err = waited(err)
			} else {
				_, err = v.SendOptimistic(content.Text(text))
			}
			if err != nil {
				break
			}
		}
		if err == nil {
			err = waited(v.PublishMessages(ctx))
		}
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		v = must(w.alice.client.Conversation(id))(t)
		check(t, v.PublishMessages(t.Context()))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.bob, id)
		var order []string
		for _, text := range texts(t, must(w.bob.Conversation(id))(t)) {
			if slices.Contains(said, text) {
				order = append(order, text)
			}
		}
		if !slices.IsSorted(order) { // texts are numbered
			t.Errorf("bob reads %q", order)
		}
		return came
	}
}

// A text is on its way while the disk is waited for.
func whileSendingOnASlowDisk(t *testing.T, w *world) attempt {
	id := w.group(t)
	return func(at cut, loss crashtest.Loss) bool {
		check(t, w.say(t.Context(), w.alice.client, id)) // by which the next key is reserved
		ctx, cancel := w.alice.armed(t, at)
		done := w.proxy.done()
		w.fs.HoldSync(func() {
			select {
			case <-done:
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond): // what has to be on the disk first
			}
		})
		err := w.say(ctx, w.alice.client, id)
		w.fs.HoldSync(nil)
		err = errors.Join(err, w.say(ctx, w.alice.client, id))
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

// A text that the node has got and the disk has not, when the power goes, comes back from
// the log, once, whether it is sent again or not.
func TestCrashBetweenNodeAndDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	for _, again := range []bool{false, true} {
		check(t, w.say(t.Context(), w.alice.client, id))
		text := w.text()
		w.sent[text] = true
		send := func(ctx context.Context) error {
			v := must(w.alice.client.Conversation(id))(t)
			_, err := v.SendText(ctx, text, WithIdempotencyKey("key"))
			return err
		}
		ctx, cancel := w.alice.armed(t, cut{beforeReply, 1})
		w.fs.HoldSync(func() { <-ctx.Done() })
		if send(ctx) == nil {
			t.Fatal("stopped by nothing")
		}
		cancel()
		w.alice.crash(crashtest.LoseUnsynced())
		check(t, w.alice.open(t.Context(), t))
		if slices.Contains(texts(t, must(w.alice.client.Conversation(id))(t)), text) {
			t.Error("the disk has got it")
		}
		if again {
			check(t, send(t.Context()))
		}
		check(t, w.say(t.Context(), w.alice.client, id))
		w.verify(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.alice.client, id)
		forgotten(t, w.alice.client, id)
	}
}

// What the node has of a program that is killed while it sends, on a system that goes on,
// the program finds when it is started again, before it asks the node: else who looks what
// was sent, and goes on from there, sends it twice.
func TestKilledWhileSending(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	there := inConversation(t, w.bob, id)
	for n, cut := 1, true; cut; n++ {
		check(t, w.say(t.Context(), w.alice.client, id)) // by which the next key is reserved
		text, v := w.text(), must(w.alice.client.Conversation(id))(t)
		w.fs.CutAt(n, nil)
		_, err := v.SendText(t.Context(), text)
		cut = w.fs.WasCut()
		w.sent[text] = err == nil
		w.alice.crash(crashtest.LoseNothing())
		check(t, w.alice.open(t.Context(), t))
		check(t, there.Sync(t.Context()))
		known := slices.Contains(texts(t, must(w.alice.client.Conversation(id))(t)), text)
		if !known && slices.Contains(texts(t, there), text) {
			t.Errorf("killed at write %d: the node has a text that its sender doesn't know", n)
		}
	}
	w.converge(t)
	w.compare(t, id, w.alice.client, w.bob, w.carol)
}

// A program that is killed, on a system that goes on, loses nothing that it was told to
// be stored, waited for or not.
func TestCrashAfterSendingOptimistically(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	for range 3 {
		text := w.text()
		must(must(w.alice.client.Conversation(id))(t).SendOptimistic(content.Text(text)))(t)
		w.sent[text] = true
		w.alice.crash(crashtest.LoseNothing())
		check(t, w.alice.open(t.Context(), t))
	}
	check(t, must(w.alice.client.Conversation(id))(t).PublishMessages(t.Context()))
	w.converge(t)
	w.told(t, w.bob, id)
}

// A prepared message is published once, by its id, however often that is tried; one
// with a key is the same however often it is prepared.
func whilePublishingWhatWasPrepared(t *testing.T, w *world) attempt {
	id := w.group(t)
	n := 0
	return func(at cut, loss crashtest.Loss) bool {
		n++
		text, key := w.text(), WithIdempotencyKey(fmt.Sprint("key ", n))
		v := must(w.alice.client.Conversation(id))(t)
		ctx, cancel := w.alice.armed(t, at)
		first, err := v.Prepare(content.Text(text), key)
		if err == nil {
			_, err = v.Publish(ctx, first.ID)
		}
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		v = must(w.alice.client.Conversation(id))(t)
		check(t, v.PublishMessages(t.Context()))
		second := must(v.Prepare(content.Text(text), key))(t)
		if first != nil && first.ID != second.ID {
			t.Error("another message by the same key")
		}
		w.sent[text] = true
		must(v.Publish(t.Context(), second.ID))(t)
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.bob, id)
		return came
	}
}

// A message that failed and is tried again is Failed, or Unpublished and in the
// outbox, wherever the crash comes.
func whileTryingAgain(t *testing.T, w *world) attempt {
	id := w.group(t)
	return func(at cut, loss crashtest.Loss) bool {
		v := must(w.alice.client.Conversation(id))(t)
		text := w.text()
		m := must(v.Prepare(content.Text(text)))(t)
		check(t, w.alice.client.db.Update(func(tx *store.Tx) error {
			row, _, err := tx.FindMessage(must(hex.DecodeString(m.ID))(t))
			if err != nil {
				return err
			}
			return tx.MarkFailed(row.Group, row.ID)
		}))
		ctx, cancel := w.alice.armed(t, at)
		_, err := v.Publish(ctx, m.ID)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		v = must(w.alice.client.Conversation(id))(t)
		stored := must(w.alice.client.Message(m.ID))(t)
		check(t, v.PublishMessages(t.Context()))
		now := must(w.alice.client.Message(m.ID))(t)
		if err == nil && now.Delivery != Published {
			t.Errorf("the caller was told that it is published, it is %v", now.Delivery)
		}
		if stored.Delivery == Unpublished && now.Delivery != Published {
			t.Error("it waits for nothing")
		}
		w.sent[text] = true
		must(v.Publish(t.Context(), m.ID))(t)
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.bob, id)
		return came
	}
}
