package xmtp

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// refusals is a node that refuses calls, each as the next one says, and then takes all.
// "" is without a time.
func refusals(text string, retryAfter ...string) (call func(...grpc.CallOption) error, made *int) {
	made = new(int)
	return func(options ...grpc.CallOption) error {
		*made++
		if *made > len(retryAfter) {
			return nil
		}
		for _, option := range options {
			if to, ok := option.(grpc.TrailerCallOption); ok && retryAfter[*made-1] != "" {
				*to.TrailerAddr = metadata.Pairs("retry-after", retryAfter[*made-1])
			}
		}
		return status.Error(codes.ResourceExhausted, text)
	}, made
}

func TestRefusedForTheRate(t *testing.T) {
	const rate = "1 exceeds rate limit R192.0.2.1PUB"
	for _, c := range []struct {
		name   string
		text   string
		after  []string
		ctx    time.Duration // 0: no deadline
		calls  int
		took   time.Duration
		limit  bool
		retry  time.Duration
		failed bool
	}{
		{name: "taken", calls: 1},
		{name: "refused twice", text: rate, after: []string{"2", "3"}, calls: 3, took: 5 * time.Second},
		{name: "at once", text: rate, after: []string{"0"}, calls: 2, took: time.Second / 2},
		{name: "later than it waits", text: rate, after: []string{"11"}, calls: 1, limit: true, retry: 11 * time.Second},
		{name: "again and again", text: rate, after: []string{"4", "4", "4", "4"}, calls: 3, took: 8 * time.Second, limit: true, retry: 4 * time.Second},
		{name: "later than the context", text: rate, after: []string{"5"}, ctx: 4 * time.Second, calls: 1, limit: true, retry: 5 * time.Second},
		{name: "within the context", text: rate, after: []string{"3"}, ctx: 4 * time.Second, calls: 2, took: 3 * time.Second},
		{name: "no time told", text: rate, after: []string{""}, calls: 1, limit: true},
		{name: "nonsense told", text: rate, after: []string{"soon"}, calls: 1, limit: true},
		{name: "no rate", text: "100001 topics: a stream may have 100000", after: []string{""}, calls: 1, failed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRequests(&options{logger: slog.New(slog.DiscardHandler)})
				ctx := t.Context()
				if c.ctx > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.ctx)
					defer cancel()
				}
				call, made := refusals(c.text, c.after...)
				begin := time.Now()
				err := r.around(ctx, "/xmtp.mls.api.v1.MlsApi/SendGroupMessages", &mlsapi.SendGroupMessagesRequest{Messages: make([]*mlsapi.GroupMessageInput, 3)}, call)
				limit, limited := errors.AsType[*RateLimitError](err)
				if *made != c.calls || time.Since(begin) != c.took || limited != c.limit || (err != nil) != (c.limit || c.failed) {
					t.Fatalf("%d calls in %v, error %v", *made, time.Since(begin), err)
				}
				if limited && (limit.RetryAfter != c.retry || limit.Own || !IsRetryable(err) || ErrorCode(err) != "ApiError::Api" || status.Code(err) != codes.ResourceExhausted) {
					t.Errorf("%+v", limit)
				}
				if got := r.sum; got.Writes != 3*c.calls || got.Reads != 0 || got.Calls["SendGroupMessages"] != c.calls || got.Waiting != 0 {
					t.Errorf("counted %+v", got)
				}
			})
		})
	}
}

func TestRefusedWhileClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRequests(&options{logger: slog.New(slog.DiscardHandler)})
		ended := make(chan error, 1)
		call, _ := refusals("rate limit", "9")
		go func() { ended <- r.around(t.Context(), "/a/B", nil, call) }()
		synctest.Wait()
		if r.sum.Waiting != 1 || r.sum.Refused != 1 {
			t.Errorf("counted %+v", r.sum)
		}
		close(r.done)
		if _, limited := errors.AsType[*RateLimitError](<-ended); !limited {
			t.Error("no RateLimitError")
		}
	})
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(10, 2, 10*time.Second)
		left := func(reads, writes int) {
			t.Helper()
			if r, w := b.Left(); r != reads || w != writes {
				t.Errorf("left %d reads and %d writes, want %d and %d", r, w, reads, writes)
			}
		}
		write := price{writes: 1}
		left(10, 2)
		begin := time.Now()
		for i, want := range []time.Duration{0, 0, 5 * time.Second, 10 * time.Second} {
			if err := b.spend(t.Context(), nil, write); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took.Round(time.Millisecond) != want {
				t.Errorf("write %d after %v, want %v", i, took, want)
			}
		}
		left(10, 0)

		// Too late for the context: nothing is waited for, nothing taken.
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		begin = time.Now()
		err := b.spend(ctx, nil, write)
		limit, ok := errors.AsType[*RateLimitError](err)
		if !ok || !limit.Own || limit.RetryAfter.Round(time.Millisecond) != 5*time.Second || time.Since(begin) != 0 || !errors.Is(err, context.DeadlineExceeded) || !IsRetryable(err) {
			t.Errorf("%v after %v", err, time.Since(begin))
		}

		// Who gives up gives back.
		ctx, cancel = context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.spend(ctx, nil, price{reads: 15}) }()
		synctest.Wait()
		left(0, 0)
		time.Sleep(time.Second)
		cancel()
		err = <-ended
		if limit, ok := errors.AsType[*RateLimitError](err); !ok || limit.RetryAfter.Round(time.Millisecond) != 4*time.Second || !errors.Is(err, context.Canceled) {
			t.Errorf("given up with %v", err)
		}
		left(10, 0)
		time.Sleep(time.Hour)
		left(10, 2)
	})
	for _, b := range []*Budget{nil, NewBudget(0, 1, time.Second), NewBudget(1, 0, time.Second), NewBudget(1, 1, 0), NewBudget(1, 1, -1)} {
		if _, err := newOptions([]Option{WithBudget(b)}); err == nil {
			t.Errorf("the budget %+v was taken", b)
		}
	}
}

// TestBudgetIsKept checks that in no span more is spent than there was and has come.
func TestBudgetIsKept(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		most, span := rapid.IntRange(1, 50).Draw(rt, "most"), time.Duration(rapid.IntRange(1, 100).Draw(rt, "span"))*time.Second
		costs := rapid.SliceOfN(rapid.IntRange(1, 80), 1, 20).Draw(rt, "costs")
		pauses := rapid.SliceOfN(rapid.IntRange(0, 20), len(costs), len(costs)).Draw(rt, "pauses")
		synctest.Test(t, func(t *testing.T) {
			b := NewBudget(1, most, span)
			begin, spent := time.Now(), 0
			for i, cost := range costs {
				time.Sleep(time.Duration(pauses[i]) * time.Second)
				if err := b.spend(t.Context(), nil, price{writes: cost}); err != nil {
					t.Fatal(err)
				}
				spent += cost
				if came := float64(most) * (1 + time.Since(begin).Seconds()/span.Seconds()); float64(spent) > came+1e-6 {
					t.Fatalf("%d were spent, of %v", spent, came)
				}
			}
		})
	})
}

func TestBudgetOfClients(t *testing.T) {
	url := startNode(t)
	budget := NewBudget(100_000, 10, 1000*time.Hour)
	alice := newClient(t, url, WithBudget(budget), WithoutWorkers())
	bob := newClient(t, url, WithBudget(budget), WithoutWorkers())
	// A key package and an identity update each; a commit, a welcome and a text.
	chat, err := alice.DM(t.Context(), bob.Address())
	check(t, err)
	must(chat.SendText(t.Context(), "hello"))(t)
	if _, writes := budget.Left(); writes != 3 {
		t.Errorf("%d writes are left, want 3", writes)
	}
	asked := alice.Requests()
	if asked.Writes != 5 || asked.Reads == 0 || asked.Refused != 0 || asked.Calls["SendGroupMessages"] != 2 || asked.Calls["UploadKeyPackage"] != 1 {
		t.Errorf("asked %+v", asked)
	}
	for range 3 {
		must(chat.SendText(t.Context(), "more"))(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := chat.SendText(ctx, "too much")
	limit, ok := errors.AsType[*RateLimitError](err)
	if !ok || !limit.Own || limit.RetryAfter < time.Hour || !errors.Is(err, ErrNotPublished) || m == nil || m.Delivery != Unpublished {
		t.Fatalf("the error is %v, the message %+v", err, m)
	}
	if _, err := alice.InboxIDOf(t.Context(), bob.Address()); err != nil {
		t.Errorf("reading without writes left: %v", err)
	}
}

// TestInboxQuota meets a node that refuses for hours.
func TestInboxQuota(t *testing.T) {
	n, err := node.Start(t.Context(), node.Options{Listen: "127.0.0.1:0", Ephemeral: true, Limits: node.Limits{InboxWrites: 1}})
	check(t, err)
	t.Cleanup(func() { n.Close() })
	alice := newClient(t, "http://"+n.Addr(), WithoutWorkers())
	second, err := GeneratePrivateKeySigner()
	check(t, err)
	err = alice.AddIdentifier(t.Context(), second)
	limit, ok := errors.AsType[*RateLimitError](err)
	if !ok || limit.Own || limit.RetryAfter < time.Hour || !IsRetryable(err) {
		t.Errorf("the error is %v", err)
	}
	if got := alice.Requests(); got.Refused != 1 {
		t.Errorf("asked %+v", got)
	}
}
