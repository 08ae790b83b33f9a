package xmtp

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
)

// Streams tell once that nothing can be stored, and when it can they bring what came
// meanwhile: each message once.
func TestStreamsOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, fault := range []crashtest.Fault{crashtest.Full, crashtest.ReadOnly} {
		w := newWorld(t)
		id := w.group(t)
		ctx, cancel := context.WithCancel(t.Context())
		connected := w.proxy.streams()
		next, stop := iter.Pull2(w.alice.client.StreamAllMessages(ctx))
		read := make(chan error)
		go func() {
			_, err, _ := next()
			read <- err
		}()
		<-connected
		w.fs.FaultAt(1, fault)
		for range 40 { // what is allocated is used up first
			check(t, w.say(t.Context(), w.bob, id))
		}
		err := <-read
		first := w.next - 40
		for err == nil {
			first++
			_, err, _ = next()
		}
		if !errors.Is(err, faults[fault]) {
			t.Errorf("got %v", err)
		}
		v := must(w.alice.client.Conversation(id))(t)
		if _, err := v.SendOptimistic(content.Text("no room")); !errors.Is(err, faults[fault]) && err != nil {
			t.Errorf("sending: %v", err)
		}
		w.fs.Repair()
		for first < w.next {
			m, err, _ := next()
			check(t, err)
			if m.Text() == "no room" {
				continue
			}
			first++
			if m.Text() != textOf(first) {
				t.Fatalf("%q, want %q", m.Text(), textOf(first))
			}
		}
		cancel()
		stop()
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.alice.client, id)
	}
}

// A full disk lets nothing be sent whose state can't be stored; with room again
// everything goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	ctx := t.Context()
	w.fs.FaultAt(1, crashtest.Full)
	var err error
	for err == nil { // what was allocated is used up first
		err = w.say(ctx, w.alice.client, id)
	}
	if !errors.Is(err, ErrDiskFull) {
		t.Errorf("sending: %v", err)
	}
	check(t, w.say(ctx, w.bob, id))
	if err := w.alice.client.Sync(ctx); !errors.Is(err, ErrDiskFull) {
		t.Errorf("receiving: %v", err)
	}
	if n := len(texts(t, must(w.alice.client.Conversation(id))(t))); n == 0 {
		t.Error("nothing to read")
	}
	w.fs.Repair()
	check(t, w.say(ctx, w.alice.client, id))
	w.converge(t)
	w.compare(t, id, w.alice.client, w.bob, w.carol)
	w.told(t, w.bob, id)
}

// A call that fails while the client lives on: it repeats the same bytes.
func TestLostCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			faults := w.proxy.faults
			w.proxy.failOnce(n, after)
			check(t, w.say(t.Context(), w.alice.client, id))
			check(t, must(w.alice.client.Conversation(id))(t).UpdateKeys(t.Context()))
			w.proxy.revive()
			w.converge(t)
			w.compare(t, id, w.alice.client, w.bob, w.carol)
			w.told(t, w.bob, id)
			if w.proxy.faults == faults {
				break
			}
		}
	}
}
