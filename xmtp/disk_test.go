package xmtp

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
)

// faults are what the errors of a disk are told as.
var faults = map[crashtest.Fault]error{
	crashtest.FailOnce: ErrDiskFault, crashtest.FailRead: ErrDiskFault, crashtest.Full: ErrDiskFull, crashtest.ReadOnly: ErrReadOnly,
}

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
