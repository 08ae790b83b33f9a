package xmtp

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// RateLimitError is returned for what a node refused because it was asked too much,
// or what the client's own [Budget] had nothing left for. Nothing came of it, and
// the same can be asked later. A message that was to be sent stays in the outbox: the
// error comes beside [ErrNotPublished], and it is published in the background when
// the time has come.
//
// What a node wants to be asked again soon the client asks again by itself, for 10
// seconds at most and as long as the context allows. The error is for what is left.
type RateLimitError struct {
	// RetryAfter is when it may be worth to ask again; 0 if the node didn't tell.
	RetryAfter time.Duration
	// Own tells that the client's budget refused, not the node.
	Own bool

	reason error
}

func (e *RateLimitError) Error() string {
	text := "the node is asked too much"
	if e.Own {
		text = "the budget is used up"
	}
	if e.RetryAfter > 0 {
		text += ", again in " + e.RetryAfter.Round(time.Millisecond).String()
	}
	return fmt.Sprintf("%s: %v", text, e.reason)
}

// Unwrap returns what the node said, or why the budget was not waited for.
func (e *RateLimitError) Unwrap() error { return e.reason }

// Requests is what a client has asked of its node since it was opened. To see how much
// that is in a span of time, compare two.
type Requests struct {
	// Reads and Writes are what nodes that limit them count: see [NewBudget].
	Reads, Writes int
	// Calls are the calls and opened streams by name, such as "SendGroupMessages".
	Calls map[string]int
	// Refused is how many calls the node refused because it was asked too much.
	Refused int
	// Waiting is how many calls wait now, for the budget or because the node has
	// refused them.
	Waiting int
}

// Requests returns what the client has asked of its node.
func (c *Client) Requests() Requests {
	c.requests.mu.Lock()
	defer c.requests.mu.Unlock()
	sum := c.requests.sum
	sum.Calls = maps.Clone(sum.Calls)
	return sum
}

// requests makes the calls of a client, and counts them.
type requests struct {
	budget *Budget // may be nil
	logger *slog.Logger
	done   chan struct{} // closed when the client is

	mu  sync.Mutex
	sum Requests
}

func newRequests(o *options) *requests {
	return &requests{budget: o.budget, logger: o.logger, done: make(chan struct{}), sum: Requests{Calls: map[string]int{}}}
}

// mostPatience is how long a call waits, all in all, for a node that refuses it.
const mostPatience = 10 * time.Second

// around makes a call, as package network wants it.
func (r *requests) around(ctx context.Context, method string, request any, call func(...grpc.CallOption) error) error {
	cost := priceOf(request)
	if r.budget != nil {
		if err := r.wait(func() error { return r.budget.spend(ctx, r.done, cost) }); err != nil {
			return err
		}
	}
	for patience := mostPatience; ; {
		r.count(method, cost)
		var told metadata.MD
		refused := limited(call(grpc.Trailer(&told)), &told)
		limit, ok := refused.(*RateLimitError)
		if !ok {
			return refused
		}
		r.mu.Lock()
		r.sum.Refused++
		r.mu.Unlock()
		deadline, bounded := ctx.Deadline()
		late := bounded && time.Until(deadline) <= limit.RetryAfter
		if limit.RetryAfter == 0 || limit.RetryAfter > patience || late {
			return limit
		}
		patience -= limit.RetryAfter
		r.logger.Warn("the node is asked too much", "call", path.Base(method), "again in", limit.RetryAfter)
		if r.wait(func() error { return pauseFor(ctx, r.done, limit.RetryAfter) }) != nil {
			return limit
		}
	}
}

// wait counts who waits.
func (r *requests) wait(until func() error) error {
	add := func(n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sum.Waiting += n
	}
	add(1)
	defer add(-1)
	return until()
}

func (r *requests) count(method string, cost price) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Reads += cost.reads
	r.sum.Writes += cost.writes
	r.sum.Calls[path.Base(method)]++
}

// A price is what nodes count for a call.
type price struct{ reads, writes int }

func priceOf(request any) price {
	switch m := request.(type) {
	case *mlsapi.SendGroupMessagesRequest:
		return price{writes: len(m.Messages)}
	case *mlsapi.SendWelcomeMessagesRequest:
		return price{writes: len(m.Messages)}
	case *mlsapi.BatchPublishCommitLogRequest:
		return price{writes: len(m.Requests)}
	case *mlsapi.UploadKeyPackageRequest, *mlsapi.RegisterInstallationRequest, *identityapi.PublishIdentityUpdateRequest:
		return price{writes: 1}
	}
	return price{reads: 1}
}

// limited makes a RateLimitError of the error of a call, if that is what it is. There
// are others of the same code: for what is too big, and will be. Our node tells when to
// ask again; the reference node only says that it is a rate limit.
func limited(err error, trailer *metadata.MD) error {
	if status.Code(err) != codes.ResourceExhausted {
		return err
	}
	told := trailer.Get("retry-after")
	if len(told) == 0 && !strings.Contains(status.Convert(err).Message(), "rate limit") {
		return err
	}
	limit := &RateLimitError{reason: err}
	if len(told) > 0 {
		// Whole seconds, rounded; what can't be read was not told.
		if seconds, err := strconv.Atoi(told[0]); err == nil && seconds >= 0 && seconds < 1<<30 {
			limit.RetryAfter = max(time.Duration(seconds)*time.Second, time.Second/2)
		}
	}
	return limit
}
