package node_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/go-xmtp/go-xmtp/node"
)

// siege is a node that somebody does something bad to, and a client that goes on
// using it as clients do.
type siege struct {
	n          *node.Node
	ctx        context.Context
	c          *client
	dial       func() *client // another connection
	group      []byte
	stream     stream
	sent       int
	slowest    time.Duration
	stop       func() error // ends the client, and tells what it had to suffer
	heap       uint64
	goroutines int
}

// patience is how long the client waits for an answer. The machine may be busy
// with the test itself.
const patience = 20 * time.Second

// fillGoroutines lets as many goroutines be as connections of a long siege have streams.
// Go keeps half a KiB of each one that there was at a time: that is no leak.
func fillGoroutines() {
	if !proof {
		return
	}
	end := make(chan struct{})
	var all sync.WaitGroup
	for range 100_000 {
		all.Go(func() { <-end })
	}
	close(end)
	all.Wait()
}

// besiege lets a client use the node until [siege.over]. The test must not be
// parallel: what the process uses is compared with what it used before.
func besiege(t *testing.T, n *node.Node, options ...grpc.DialOption) *siege {
	t.Helper()
	s := &siege{n: n, ctx: long(t), group: newGroupID(), dial: func() *client { return dial(t, n, options...) }}
	s.c = s.dial()
	streaming, leave := context.WithCancel(s.ctx)
	t.Cleanup(leave)
	s.stream = must(groupLog.open(streaming, s.c, filter{topic: s.group}))(t)
	if err := s.visit(); err != nil {
		t.Fatal(err)
	}
	fillGoroutines()
	s.heap, s.goroutines = settledHeap(), runtime.NumGoroutine()
	stopped, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for {
			if err := s.visit(); err != nil {
				ended <- err
				return
			}
			select {
			case <-pace.C:
			case <-stopped:
				ended <- nil
				return
			}
		}
	}()
	s.stop = sync.OnceValue(func() error {
		close(stopped)
		return <-ended
	})
	t.Cleanup(func() { _ = s.stop() })
	return s
}

func (s *siege) message(i int) []byte { return application(s.group, fmt.Sprint("message ", i)) }

// visit sends a message, and finds it in the log, in the stream, and over a new
// connection.
func (s *siege) visit() error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := groupLog.send(ctx, s.c, s.group, s.message(s.sent)); err != nil {
		return fmt.Errorf("sending message %d: %w", s.sent, err)
	}
	s.sent++
	if e, err := s.stream.next(); err != nil || e.data != string(s.message(s.sent-1)) {
		return fmt.Errorf("the stream did not bring message %d: %w", s.sent-1, err)
	}
	fresh := s.dial()
	defer fresh.conn.Close()
	for _, c := range []*client{s.c, fresh} {
		if page, _, err := groupLog.page(ctx, c, s.group, nil); err != nil || len(page) != min(s.sent, 100) {
			return fmt.Errorf("reading gave %d of %d messages: %w", len(page), s.sent, err)
		}
	}
	s.slowest = max(s.slowest, time.Since(begin))
	return nil
}

// over checks what must hold after a siege: the client was served throughout and
// has lost nothing, and memory and goroutines are as before, but for some bytes.
func (s *siege) over(t *testing.T, what string, allowed int64) {
	t.Helper()
	if err := s.stop(); err != nil {
		t.Fatal("the other client: ", err)
	}
	meanwhile := s.sent
	if err := s.visit(); err != nil {
		t.Error("the other client, afterwards: ", err)
	}
	all, err := groupLog.all(s.ctx, s.c, s.group, 0)
	if err != nil || len(all) != s.sent {
		t.Fatalf("%d messages were acknowledged, %d are there: %v", s.sent, len(all), err)
	}
	for i, e := range all {
		if e.data != string(s.message(i)) {
			t.Fatalf("message %d is another one", i)
		}
	}
	if err := s.n.Err(); err != nil {
		t.Error("the node ended: ", err)
	}
	var more int64
	var goroutines int
	deadline := time.Now().Add(patience)
	for {
		more, goroutines = int64(settledHeap())-int64(s.heap), runtime.NumGoroutine()-s.goroutines
		if more <= allowed && goroutines <= 20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%.1f MiB and %d goroutines more than before", float64(more)/(1<<20), goroutines)
		}
	}
	t.Logf("CHECK siege: %s: %d rounds of another client meanwhile, the slowest %v; afterwards %+.1f MiB, of %d allowed",
		what, meanwhile, s.slowest.Round(time.Millisecond), float64(more)/(1<<20), allowed>>20)
}
