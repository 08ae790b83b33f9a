package xmtptest_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/xmtp"
	"github.com/go-xmtp/go-xmtp/xmtptest"
)

// pair is two who have a conversation, in a bubble.
type pair struct {
	*xmtptest.Network
	alice, bob *xmtp.Client
	id         string
	chat       *xmtp.Conversation // as alice sees it
}

// inBubble runs a test of two with a clock of its own. Nothing happens that the test
// doesn't ask for.
func inBubble(t *testing.T, test func(*testing.T, pair)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := xmtptest.New(t)
		alice, bob := n.Client("alice", xmtp.WithoutWorkers()), n.Client("bob", xmtp.WithoutWorkers())
		id := converse(t, alice, bob)
		test(t, pair{n, alice, bob, id, must(alice.Conversation(id))(t)})
	})
}

const sends = "SendGroupMessages"

// wantLast fails unless the last messages that bob reads are these.
func (p pair) wantLast(t *testing.T, want ...string) {
	t.Helper()
	got := texts(t, p.bob, p.id)
	if len(got) < len(want) || !cmp.Equal(got[len(got)-len(want):], want) {
		t.Errorf("bob reads %q, want %q in the end", got, want)
	}
}

func TestFaults(t *testing.T) {
	inBubble(t, func(t *testing.T, p pair) {
		p.lost(t)
		p.lostOnce(t)
		p.duplicate(t)
		p.delay(t)
		p.hold(t)
	})
}

// A lost request never reaches the node, a lost answer does; to the client both are the
// same. When the fault is lifted, what waits is sent, once.
func (p pair) lost(t *testing.T) {
	last := "hello yourself"
	for _, tc := range []struct {
		name   string
		action xmtptest.Action
		code   codes.Code
		stored bool
	}{
		{"lost request", xmtptest.DropRequest(), codes.Unavailable, false},
		{"lost answer", xmtptest.DropResponse(), codes.Unavailable, true},
		{"refused", xmtptest.Fail(codes.ResourceExhausted, "too much"), codes.ResourceExhausted, false},
	} {
		fault := p.Fault(xmtptest.Calls{Client: "alice", Method: sends}, tc.action)
		m, err := p.chat.SendText(t.Context(), tc.name)
		if !errors.Is(err, xmtp.ErrNotPublished) || status.Code(err) != tc.code || m == nil {
			t.Errorf("%s: sending: %v", tc.name, err)
		}
		if got := slices.Contains(texts(t, p.bob, p.id), tc.name); got != tc.stored {
			t.Errorf("%s: bob has it: %v", tc.name, got)
		}
		if fault.Hits() == 0 {
			t.Errorf("%s: no call was hit", tc.name)
		}
		fault.Lift()
		check(t, p.alice.Upkeep(t.Context()))
		p.wantLast(t, last, tc.name)
		last = tc.name
	}
}

// One failure is not seen by anybody: the client tries again.
func (p pair) lostOnce(t *testing.T) {
	fault := p.Fault(xmtptest.Calls{Method: sends, Count: 1}, xmtptest.DropResponse())
	defer fault.Lift()
	must(p.chat.SendText(t.Context(), "once"))(t)
	p.wantLast(t, "refused", "once")
	if fault.Hits() != 1 {
		t.Errorf("%d calls were hit", fault.Hits())
	}
}

// What arrives twice is there once.
func (p pair) duplicate(t *testing.T) {
	fault := p.Fault(xmtptest.Calls{}, xmtptest.Duplicate())
	defer fault.Lift()
	must(p.chat.SendText(t.Context(), "twice"))(t)
	p.wantLast(t, "once", "twice")
	if fault.Hits() < 2 {
		t.Errorf("%d calls were hit", fault.Hits())
	}
}

// Delays add up, of others nothing is seen; what is skipped and what comes after Count
// is as fast as ever.
func (p pair) delay(t *testing.T) {
	for _, fault := range []*xmtptest.Fault{
		p.Fault(xmtptest.Calls{Client: "alice", Method: sends, Skip: 1, Count: 2}, xmtptest.Delay(3*time.Second)),
		p.Fault(xmtptest.Calls{Client: "alice", Method: sends, Count: 2}, xmtptest.Delay(time.Second)),
		p.Fault(xmtptest.Calls{Client: "bob", Method: sends}, xmtptest.Delay(time.Hour)),
	} {
		defer fault.Lift()
	}
	for i, want := range []time.Duration{1, 4, 3, 0} {
		begin := time.Now()
		must(p.chat.SendText(t.Context(), "later"))(t)
		if took := time.Since(begin).Truncate(time.Second); took != want*time.Second {
			t.Errorf("message %d took %v, want %d s", i, took, want)
		}
	}
}

// A call that is held waits until it may go on, or its client gives up.
func (p pair) hold(t *testing.T) {
	fault := p.Fault(xmtptest.Calls{Client: "alice", Method: sends}, xmtptest.Hold())
	sent := make(chan error)
	go func() {
		_, err := p.chat.SendText(t.Context(), "held")
		sent <- err
	}()
	<-fault.Hit()
	synctest.Wait()
	p.wantLast(t, "later")
	fault.Lift()
	check(t, <-sent)

	fault = p.Fault(xmtptest.Calls{Client: "alice", Method: sends}, xmtptest.Hold())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := p.chat.SendText(ctx, "given up"); status.Code(err) != codes.DeadlineExceeded && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after a minute: %v", err)
	}
	synctest.Wait() // the node has heard of it
	fault.Lift()
	p.wantLast(t, "later", "held")
}

// follow streams what bob gets into a channel, until the test ends.
func (p pair) follow(t *testing.T) <-chan string {
	received := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for m, err := range p.bob.StreamAllMessages(ctx) {
			if err != nil {
				return
			}
			if m.Kind == xmtp.KindApplication {
				received <- m.Text()
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	synctest.Wait()
	return received
}

// back restores who streams, and gets the next text within a second.
func (p pair) back(t *testing.T, who string, received <-chan string, want string) {
	t.Helper()
	p.Restore(who)
	restored := time.Now()
	if got := <-received; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if took := time.Since(restored); took > time.Second {
		t.Errorf("back after %v", took)
	}
}

// A stream that is cut comes back with all that it has missed; one that stalls brings
// nothing until it may.
func TestStreams(t *testing.T) {
	t.Run("cut", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p pair) {
			fault := p.Fault(xmtptest.Calls{Client: "bob", Method: "Subscribe", Count: 3}, xmtptest.CutAfter(4))
			received := p.follow(t)
			for _, text := range []string{"1", "2", "3", "4", "5", "6", "7", "8"} {
				must(p.chat.SendText(t.Context(), text))(t)
				if got := <-received; got != text {
					t.Errorf("got %q, want %q", got, text)
				}
			}
			if fault.Hits() < 2 {
				t.Errorf("the stream was opened %d times", fault.Hits())
			}
		})
	})
	t.Run("stall", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p pair) {
			fault := p.Fault(xmtptest.Calls{Client: "bob", Method: "Subscribe"}, xmtptest.StallAfter(0))
			fault.Lift() // as if there were none
			fault = p.Fault(xmtptest.Calls{Client: "bob", Method: "Subscribe", Count: 1}, xmtptest.StallAfter(3))
			received := p.follow(t)
			must(p.chat.SendText(t.Context(), "stalled"))(t)
			time.Sleep(time.Second)
			if len(received) > 0 {
				t.Errorf("%q came", <-received)
			}
			fault.Lift()
			if got := <-received; got != "stalled" {
				t.Errorf("got %q", got)
			}
		})
	})
}

// Who is cut off reaches nobody, and after that all; others don't notice. However long it
// was, streams are back within a second, and calls at once.
func TestCut(t *testing.T) {
	inBubble(t, func(t *testing.T, p pair) {
		received := p.follow(t)
		p.Cut("bob")
		must(p.chat.SendText(t.Context(), "missed"))(t)
		if err := p.bob.Sync(t.Context()); status.Code(err) != codes.Unavailable {
			t.Errorf("cut off: %v", err)
		}
		time.Sleep(2 * time.Minute)
		p.back(t, "bob", received, "missed")

		p.Cut()
		if err := p.alice.Sync(t.Context()); status.Code(err) != codes.Unavailable {
			t.Errorf("all cut off: %v", err)
		}
		if _, err := xmtp.NewClient(t.Context(), p.Signer("carol"), p.Options("carol")...); status.Code(err) != codes.Unavailable {
			t.Errorf("who comes while all are cut off: %v", err)
		}
		time.Sleep(time.Minute)
		p.Restore()
		if err := p.alice.Sync(t.Context()); err != nil {
			t.Errorf("all are back: %v", err)
		}
		p.Client("carol")
		p.Cut("alice")
		if _, err := xmtp.NewClient(t.Context(), p.Signer("alice"), p.Options("alice/phone")...); status.Code(err) != codes.Unavailable {
			t.Errorf("another device of who is cut off: %v", err)
		}
	})
}

// A connection that goes dead without a word is noticed, and replaced when there is one.
func TestStall(t *testing.T) {
	inBubble(t, func(t *testing.T, p pair) {
		received := p.follow(t)
		p.Stall("bob")
		must(p.chat.SendText(t.Context(), "into the void"))(t)
		time.Sleep(2 * time.Minute)
		if len(received) > 0 {
			t.Errorf("%q came", <-received)
		}
		p.back(t, "bob", received, "into the void")
	})
}

// A node that is restarted, or loses its power, has all that it has acknowledged.
func TestNodeEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, p pair) {
		received := p.follow(t)
		for i, end := range []func(){p.Restart, p.Crash, p.Crash, p.Restart} {
			text := strconv.Itoa(i)
			must(p.chat.SendText(t.Context(), text))(t)
			end()
			if got := <-received; got != text {
				t.Errorf("got %q, want %q", got, text)
			}
		}
	})
}

// The options of the node are those of the test, each time that it is started.
func TestNodeOptions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		starts := 0
		n := xmtptest.New(t, xmtptest.WithNodeOptions(func(o *node.Options) {
			starts++
			o.ReadOnly = starts > 1
		}))
		converse(t, n.Client("alice"), n.Client("bob"))
		n.Restart()
		if _, err := xmtp.NewClient(t.Context(), n.Signer("carol"), n.Options("carol")...); err == nil {
			t.Error("registered with a node that takes nothing")
		}
	})
}
