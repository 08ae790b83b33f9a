package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// from is a call that comes from an address.
func from(address string) context.Context {
	return peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(address), Port: 4000}})
}

// limited is a limiter with the reference node's rates.
func limited(now func() time.Time) *Limiter {
	return NewLimiter(now, slog.New(slog.DiscardHandler), Limits{Rates: true})
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
	l := limited(func() time.Time { return now })
	a, b, c := from("10.0.0.1"), from("10.0.0.2"), from("2001:db8::1")

	wantRefused(t, l.publish(a, 3001), "3001 exceeds rate limit R10.0.0.1PUB")
	wantAllowed(t, l.publish(a, 3000))
	wantRefused(t, l.publish(a, 1), "1 exceeds rate limit R10.0.0.1PUB")
	wantAllowed(t, l.publish(a, 0))
	wantAllowed(t, l.read(a, 0))
	wantAllowed(t, l.publish(b, 2999))
	wantRefused(t, l.publish(b, 2), "2 exceeds rate limit R10.0.0.2PUB")
	wantAllowed(t, l.publish(b, 1))
	wantAllowed(t, l.publish(c, 3000))
	wantRefused(t, l.publish(c, 7), "7 exceeds rate limit R2001:db8::/64PUB")
	// An address is the same however the connection says it.
	wantRefused(t, l.publish(from("::ffff:10.0.0.1"), 1), "1 exceeds rate limit R10.0.0.1PUB")

	for range 20000 - 1 {
		wantAllowed(t, l.read(a, 0))
	}
	wantRefused(t, l.read(a, 0), "1 exceeds rate limit R10.0.0.1DEF")
	wantAllowed(t, l.read(b, 0))
}

// Tokens come back evenly, up to a full bucket, also for one who never rests.
func TestLimiterRefill(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := limited(func() time.Time { return now })
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
		l := limited(func() time.Time { return now })
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
		l := limited(time.Now)
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
	l := limited(func() time.Time { return now })
	busy := from("10.1.0.0")
	for round := range 3 {
		for i := range maxBuckets {
			wantAllowed(t, l.read(from(fmt.Sprintf("10.%d.%d.%d", 2+round, i>>8&255, i&255)), 0))
		}
		now = now.Add(5 * time.Minute)
		wantAllowed(t, l.publish(busy, 3000))
		wantRefused(t, l.publish(busy, 3000), "3000 exceeds rate limit R10.1.0.0PUB")
		now = now.Add(time.Minute)
	}
	wantRefused(t, l.publish(busy, 601), "601 exceeds rate limit R10.1.0.0PUB")
	if n := len(l.callers.all); n > 2*maxBuckets {
		t.Errorf("%d buckets are kept", n)
	}
}

// No limiter limits nothing. Connections inside a process have no address and
// share a bucket.
func TestLimiterWithout(t *testing.T) {
	var none *Limiter
	wantAllowed(t, none.publish(from("10.0.0.1"), 1<<30))
	wantAllowed(t, none.read(context.Background(), 0))
	l := limited(time.Now)
	wantAllowed(t, l.publish(context.Background(), 2000))
	pipe := peer.NewContext(context.Background(), &peer.Peer{Addr: &net.UnixAddr{Name: "bufconn"}})
	if err := l.publish(pipe, 1100); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

func wantBlocked(t *testing.T, err error) {
	t.Helper()
	if s, _ := status.FromError(err); s.Code() != codes.PermissionDenied || s.Message() != "request blocked" {
		t.Errorf("got %v, want PERMISSION_DENIED", err)
	}
}

// trailers collects what a call is told at its end.
type trailers struct{ metadata.MD }

func (t *trailers) Method() string               { return "" }
func (t *trailers) SetHeader(metadata.MD) error  { return nil }
func (t *trailers) SendHeader(metadata.MD) error { return nil }
func (t *trailers) SetTrailer(md metadata.MD) error {
	t.MD = metadata.Join(t.MD, md)
	return nil
}

// Who is refused is told when to come back; but not if that would never help.
func TestRetryAfter(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := limited(func() time.Time { return now })
	retryAfter := func(cost int) string {
		t.Helper()
		told := &trailers{}
		if err := l.publish(grpc.NewContextWithServerTransportStream(from("10.0.0.1"), told), cost); err == nil {
			t.Errorf("%d were allowed", cost)
		}
		return strings.Join(told.Get("retry-after"), " ")
	}
	wantAllowed(t, l.publish(from("10.0.0.1"), 2990))
	for cost, want := range map[int]string{11: "1", 20: "1", 21: "2", 610: "60", 3000: "299", 3001: ""} {
		if got := retryAfter(cost); got != want {
			t.Errorf("retry-after for %d is %q, want %q", cost, got, want)
		}
	}
	if retryAfter(610) != "60" {
		t.Error("a refusal cost something")
	}
	now = now.Add(time.Minute)
	wantAllowed(t, l.publish(from("10.0.0.1"), 610))
}

// Work costs: bytes, signatures, things looked up at once; bytes of answers are
// paid afterwards, by who asks next.
func TestCosts(t *testing.T) {
	if cost := messagesCost([]*mlsapi.GroupMessageInput{{}, {Version: &mlsapi.GroupMessageInput_V1_{
		V1: &mlsapi.GroupMessageInput_V1{Data: make([]byte, 130<<10)},
	}}}); cost != 4 {
		t.Errorf("an empty message and one of 130 KiB cost %d, want 4", cost)
	}
	update := &associations.IdentityUpdate{Actions: []*associations.IdentityAction{
		{Kind: &associations.IdentityAction_CreateInbox{CreateInbox: &associations.CreateInbox{}}},
		{Kind: &associations.IdentityAction_Add{Add: &associations.AddAssociation{}}},
	}}
	if n := signatures(update); n != 3 {
		t.Errorf("registration has %d signatures, want 3", n)
	}

	now := time.Unix(1_700_000_000, 0)
	l, ctx := limited(func() time.Time { return now }), from("10.0.0.1")
	wantAllowed(t, l.read(ctx, 19980*lookupsPerToken))
	wantAllowed(t, l.read(ctx, 19))
	wantRefused(t, l.read(ctx, 400), "21 exceeds rate limit R10.0.0.1DEF")
	l.answered(ctx, bytesPerToken-1)
	wantAllowed(t, l.read(ctx, 17*lookupsPerToken))
	l.answered(ctx, 3998*bytesPerToken) // nearly a minute of debt
	now = now.Add(59 * time.Second)
	wantRefused(t, l.read(ctx, 0), "1 exceeds rate limit R10.0.0.1DEF")
	now = now.Add(time.Second)
	wantAllowed(t, l.read(ctx, 0))
	// However much it was, it is paid in the time that fills a bucket.
	for range 100 {
		l.answered(ctx, 100_000*bytesPerToken)
	}
	now = now.Add(5*time.Minute + time.Second)
	wantAllowed(t, l.read(ctx, 0))
}

func TestStreamLimits(t *testing.T) {
	l := NewLimiter(time.Now, slog.New(slog.DiscardHandler), Limits{Rates: true, StreamsPerAddress: 2})
	ctx := from("2001:db8::1")
	neighbour := from("2001:db8::2")
	one, err := l.stream(ctx, 0)
	wantAllowed(t, err)
	two, err := l.stream(neighbour, 100)
	wantAllowed(t, err)
	_, err = l.stream(ctx, 0)
	wantRefused(t, err, "2 streams are open from 2001:db8::/64: no more are served")
	elsewhere, err := l.stream(from("2001:db8:0:1::1"), 0)
	wantAllowed(t, err)
	two.close()
	two, err = l.stream(ctx, 0)
	wantAllowed(t, err)
	for _, open := range []*openStream{one, two, elsewhere} {
		open.close()
	}
	if len(l.streams) != 0 {
		t.Errorf("closed streams are counted: %v", l.streams)
	}

	// Filters are bounded for all.
	l.Set(Limits{})
	_, err = l.stream(ctx, maxFilters+1)
	wantRefused(t, err, "50001 filters: a stream may have 50000")
	open, err := l.stream(ctx, maxFilters)
	wantAllowed(t, err)
	open.close()
	if got := l.Refused(); got[limitStreams] != 1 || got[limitFilters] != 1 {
		t.Errorf("counted: %v", got)
	}
}

// As many signatures are checked at once as there are processors; the size of
// what waits is bounded, and who gives up waiting takes nothing with him.
func TestValidations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limited(time.Now)
		running := cap(l.validating)
		var done []func()
		for range running {
			end, err := l.validate(t.Context(), 100)
			wantAllowed(t, err)
			done = append(done, end)
		}
		waiting, giveUp := context.WithCancel(t.Context())
		entered := make(chan error, 2)
		enter := func(ctx context.Context) {
			end, err := l.validate(ctx, 1000)
			if err == nil {
				end()
			}
			entered <- err
		}
		go enter(waiting)
		go enter(t.Context())
		synctest.Wait()
		if len(entered) > 0 {
			t.Fatal("more at once than processors")
		}
		_, err := l.validate(t.Context(), maxValidatingBytes-100*running-2000+1)
		wantRefused(t, err, "too many signatures wait to be checked")
		giveUp()
		if err := <-entered; status.Code(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
		for _, end := range done {
			end()
		}
		wantAllowed(t, <-entered)
		if n := l.validatingBytes.Load(); n != 0 || len(l.validating) != 0 {
			t.Errorf("%d bytes and %d tokens stay behind", n, len(l.validating))
		}
	})
}

func TestInboxLimits(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	a, b, c := strings.Repeat("a1", 32), strings.Repeat("b2", 32), strings.Repeat("c3", 32)
	l := NewLimiter(func() time.Time { return now }, slog.New(slog.DiscardHandler), Limits{
		AllowInboxes: []string{strings.ToUpper(a), b}, DenyInboxes: []string{b}, InboxWrites: 24, InboxBytes: 1000,
	})
	ctx := context.Background()
	wantBlocked(t, l.inbox(ctx, b, false, 1))
	wantBlocked(t, l.inbox(ctx, strings.ToUpper(c), false, 1))
	wantAllowed(t, l.inbox(ctx, a, false, 1000))
	// Only what was taken is counted.
	for range 100 {
		wantAllowed(t, l.inbox(ctx, a, false, 1000))
	}
	wantRefused(t, l.inbox(ctx, a, false, 1001), "1001 bytes exceed what is left of the inbox's quota of 1000 a day")
	l.inboxWrote(a, false, 900)
	wantRefused(t, l.inbox(ctx, strings.ToUpper(a), false, 101), "101 bytes exceed what is left of the inbox's quota of 1000 a day")
	// What strangers do in its name leaves it what it has.
	for range 24 {
		wantAllowed(t, l.inbox(ctx, a, true, 1))
		l.inboxWrote(a, true, 1)
	}
	wantRefused(t, l.inbox(ctx, a, true, 1), "1 writes exceed what is left of the inbox's quota of 24 a day")
	wantAllowed(t, l.inbox(ctx, a, false, 1))
	now = now.Add(time.Hour)
	wantAllowed(t, l.inbox(ctx, a, true, 1))
	l.inboxWrote(a, true, 1)
	wantRefused(t, l.inbox(ctx, a, true, 1), "1 writes exceed what is left of the inbox's quota of 24 a day")
	if got := l.Refused(); got[limitInbox] != 2 || got[limitInboxQuota] != 4 {
		t.Errorf("counted: %v", got)
	}
}
