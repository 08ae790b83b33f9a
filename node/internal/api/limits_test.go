package api

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"
)

// from is a call that comes from an address.
func from(address string) context.Context {
	return peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(address), Port: 4000}})
}

func wantRefused(t *testing.T, err error, text string) {
	t.Helper()
	if s, _ := status.FromError(err); s.Code() != codes.ResourceExhausted || s.Message() != text {
		t.Errorf("got %v, want %q", err, text)
	}
}

func wantAllowed(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("got %v, want none", err)
	}
}

// Publishing and reading have a bucket each for every address. What does not fit
// into it is refused whole and costs nothing.
func TestLimiterBuckets(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := NewLimiter(func() time.Time { return now })
	a, b, c := from("10.0.0.1"), from("10.0.0.2"), from("2001:db8::1")

	wantRefused(t, l.publish(a, 3001), "3001 exceeds rate limit R10.0.0.1PUB")
	wantAllowed(t, l.publish(a, 3000))
	wantRefused(t, l.publish(a, 1), "1 exceeds rate limit R10.0.0.1PUB")
	wantAllowed(t, l.publish(a, 0))
	wantAllowed(t, l.read(a))
	wantAllowed(t, l.publish(b, 2999))
	wantRefused(t, l.publish(b, 2), "2 exceeds rate limit R10.0.0.2PUB")
	wantAllowed(t, l.publish(b, 1))
	wantAllowed(t, l.publish(c, 3000))
	wantRefused(t, l.publish(c, 7), "7 exceeds rate limit R2001:db8::1PUB")
	// An address is the same however the connection says it.
	wantRefused(t, l.publish(from("::ffff:10.0.0.1"), 1), "1 exceeds rate limit R10.0.0.1PUB")

	for range 20000 - 1 {
		wantAllowed(t, l.read(a))
	}
	wantRefused(t, l.read(a), "1 exceeds rate limit R10.0.0.1DEF")
	wantAllowed(t, l.read(b))
}

// Tokens come back evenly, up to a full bucket, also for one who never rests.
func TestLimiterRefill(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := NewLimiter(func() time.Time { return now })
	a := from("10.0.0.1")
	wantAllowed(t, l.publish(a, 3000))
	for range 600 { // 600 a minute
		wantRefused(t, l.publish(a, 1), "1 exceeds rate limit R10.0.0.1PUB")
		now = now.Add(100 * time.Millisecond)
		wantAllowed(t, l.publish(a, 1))
	}
	now = now.Add(time.Minute)
	wantRefused(t, l.publish(a, 601), "601 exceeds rate limit R10.0.0.1PUB")
	wantAllowed(t, l.publish(a, 600))
	now = now.Add(24 * time.Hour)
	wantRefused(t, l.publish(a, 3001), "3001 exceeds rate limit R10.0.0.1PUB")
	wantAllowed(t, l.publish(a, 3000))
	// A clock that was set back takes nothing away, and gives nothing.
	now = now.Add(-time.Hour)
	wantRefused(t, l.publish(a, 1), "1 exceeds rate limit R10.0.0.1PUB")
	now = now.Add(time.Second)
	wantAllowed(t, l.publish(a, 10))
}

// Whatever is asked for and when: never more than the burst and what came back
// since is given, and a request is refused only if that is so.
func TestLimiterNeverGivesMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_700_000_000, 0)
		l := NewLimiter(func() time.Time { return now })
		tokens := classPublish.burst
		for range rapid.IntRange(1, 100).Draw(t, "calls") {
			// Whole seconds give whole tokens, so that the sums are exact.
			seconds := rapid.IntRange(0, 400).Draw(t, "seconds")
			now = now.Add(time.Duration(seconds) * time.Second)
			tokens = min(classPublish.burst, tokens+float64(10*seconds))
			cost := rapid.OneOf(rapid.IntRange(0, 50), rapid.IntRange(0, 3500)).Draw(t, "cost")
			err := l.publish(from("10.0.0.1"), cost)
			if err == nil {
				tokens -= float64(cost)
			}
			// Sums of floating-point numbers may be off by a hair.
			const hair = 1e-6
			if tokens < -hair || err != nil && tokens >= float64(cost)+hair {
				t.Fatalf("cost %d: %v, with %v left", cost, err, tokens)
			}
		}
	})
}

// Many callers at once get as much as one after the other.
func TestLimiterConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(time.Now)
		var given atomic.Int64
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for range 1000 {
					if l.publish(from("10.0.0.1"), 1) == nil {
						given.Add(1)
					}
				}
			})
		}
		group.Wait()
		if n := given.Load(); n != 3000 {
			t.Errorf("%d were given, want 3000", n)
		}
	})
}

// Callers that have rested are forgotten; those who have used something are not.
func TestLimiterForgets(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := NewLimiter(func() time.Time { return now })
	busy := from("10.1.0.0")
	for round := range 3 {
		for i := range maxBuckets {
			wantAllowed(t, l.read(from(fmt.Sprintf("10.%d.%d.%d", 2+round, i>>8&255, i&255))))
		}
		now = now.Add(5 * time.Minute)
		wantAllowed(t, l.publish(busy, 3000))
		wantRefused(t, l.publish(busy, 3000), "3000 exceeds rate limit R10.1.0.0PUB")
		now = now.Add(time.Minute)
	}
	wantRefused(t, l.publish(busy, 601), "601 exceeds rate limit R10.1.0.0PUB")
	if n := len(l.buckets); n > 2*maxBuckets {
		t.Errorf("%d buckets are kept", n)
	}
}

// No limiter limits nothing. Connections inside a process have no address and
// share a bucket.
func TestLimiterWithout(t *testing.T) {
	var none *Limiter
	wantAllowed(t, none.publish(from("10.0.0.1"), 1<<30))
	wantAllowed(t, none.read(context.Background()))
	l := NewLimiter(time.Now)
	wantAllowed(t, l.publish(context.Background(), 2000))
	pipe := peer.NewContext(context.Background(), &peer.Peer{Addr: &net.UnixAddr{Name: "bufconn"}})
	if err := l.publish(pipe, 1100); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}
