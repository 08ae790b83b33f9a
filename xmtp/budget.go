package xmtp

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

// A Budget says how much may be asked of a node in a span of time. Nodes that limit
// it count by network address, so clients that share one should share a budget:
// see [WithBudget]. It is safe for use by several goroutines.
//
// It is full at first and refills evenly. Calls that it has nothing left for wait,
// in the order in which they came, as long as their context allows.
type Budget struct {
	mu            sync.Mutex
	reads, writes bucket
	at            time.Time // when the buckets were as they are
}

// A bucket may be overdrawn: then what was taken is for later.
type bucket struct {
	tokens, most float64
	rate         float64 // a second
}

// NewBudget returns a budget of so many reads and writes in a span of time. A write
// is each message that is published, welcomes to new members' devices among them,
// each key package and each identity update; a read is every other call, and the
// opening of a stream. The public network allows 20,000 reads and 3,000 writes in
// five minutes.
func NewBudget(reads, writes int, span time.Duration) *Budget {
	full := func(most int) bucket {
		return bucket{tokens: float64(most), most: float64(most), rate: float64(most) / span.Seconds()}
	}
	return &Budget{reads: full(reads), writes: full(writes), at: time.Now()}
}

// WithBudget bounds what the client asks of its node, in calls as in the background;
// the same budget can be given to any number of clients. Without it there is no bound
// but the node's. A call for which nothing is left waits; if its context ends before
// its turn, the error is a [RateLimitError].
func WithBudget(b *Budget) Option {
	return func(o *options) error {
		if b == nil || !b.usable() {
			return errors.New("a budget needs reads, writes, and a span of time")
		}
		o.budget = b
		return nil
	}
}

// usable tells whether it lets anything through, ever.
func (b *Budget) usable() bool {
	for _, k := range []bucket{b.reads, b.writes} {
		if k.most < 1 || !(k.rate > 0) || math.IsInf(k.rate, 0) {
			return false
		}
	}
	return true
}

// mostWait is far away, in seconds, and fits into a duration.
const mostWait = 1e9

// Left is how many reads and writes can be made now without waiting.
func (b *Budget) Left() (reads, writes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill()
	return int(max(b.reads.tokens, 0)), int(max(b.writes.tokens, 0))
}

// refill brings the buckets up to now.
func (b *Budget) refill() {
	now := time.Now()
	passed := now.Sub(b.at).Seconds()
	b.at = now
	for _, k := range []*bucket{&b.reads, &b.writes} {
		k.tokens = min(k.tokens+passed*k.rate, k.most)
	}
}

// take takes a price and returns how long to wait before it is there. With a
// deadline before that nothing is taken.
func (b *Budget) take(p price, deadline time.Time) (wait time.Duration, taken bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill()
	for _, k := range []struct {
		bucket
		cost int
	}{{b.reads, p.reads}, {b.writes, p.writes}} {
		if after := k.tokens - float64(k.cost); k.cost > 0 && after < 0 {
			wait = max(wait, time.Duration(min(-after/k.rate, mostWait)*float64(time.Second)))
		}
	}
	if !deadline.IsZero() && b.at.Add(wait).After(deadline) {
		return wait, false
	}
	b.reads.tokens -= float64(p.reads)
	b.writes.tokens -= float64(p.writes)
	return wait, true
}

// giveBack is for what was taken and not used.
func (b *Budget) giveBack(p price) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads.tokens += float64(p.reads)
	b.writes.tokens += float64(p.writes)
}

// spend waits until a price is there.
func (b *Budget) spend(ctx context.Context, done <-chan struct{}, p price) error {
	deadline, _ := ctx.Deadline()
	wait, taken := b.take(p, deadline)
	if !taken {
		return &RateLimitError{RetryAfter: wait, Own: true, reason: context.DeadlineExceeded}
	}
	begin := time.Now()
	if err := pauseFor(ctx, done, wait); err != nil {
		b.giveBack(p)
		return &RateLimitError{RetryAfter: wait - time.Since(begin), Own: true, reason: err}
	}
	return nil
}

// pauseFor waits, unless ctx ends before or done is closed.
func pauseFor(ctx context.Context, done <-chan struct{}, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return ErrClosed
	}
}
