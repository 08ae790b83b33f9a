package api

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// class is a kind of calls with a limit of its own.
type class struct {
	name      string
	burst     float64
	perMinute float64
}

// The reference node's defaults.
var (
	classPublish = class{name: "PUB", burst: 3000, perMinute: 600}
	classDefault = class{name: "DEF", burst: 20000, perMinute: 4000}
)

// maxBuckets is how many callers are remembered before full buckets, which say
// nothing, are thrown away.
const maxBuckets = 1 << 16

// Limiter limits calls by the caller's network address, with a token bucket for
// each class. Addresses are kept in memory only. A nil Limiter limits nothing.
type Limiter struct {
	now func() time.Time

	mu      sync.Mutex
	buckets map[bucketKey]*bucket
	swept   int // how many buckets the last sweep left
}

type bucketKey struct {
	addr  netip.Addr
	class string
}

type bucket struct {
	tokens float64
	at     time.Time
}

// NewLimiter returns a limiter whose buckets are all full.
func NewLimiter(now func() time.Time) *Limiter {
	return &Limiter{now: now, buckets: map[bucketKey]*bucket{}}
}

func (l *Limiter) publish(ctx context.Context, cost int) error {
	return l.take(ctx, classPublish, cost)
}

func (l *Limiter) read(ctx context.Context) error {
	return l.take(ctx, classDefault, 1)
}

func (l *Limiter) take(ctx context.Context, c class, cost int) error {
	if l == nil {
		return nil
	}
	addr := callerAddr(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	key := bucketKey{addr, c.name}
	b := l.buckets[key]
	if b == nil {
		l.sweep(now)
		b = &bucket{tokens: c.burst, at: now}
		l.buckets[key] = b
	}
	b.tokens = c.refilled(b, now)
	b.at = now
	if float64(cost) > b.tokens {
		return status.Errorf(codes.ResourceExhausted, "%d exceeds rate limit R%s%s", cost, addr, c.name)
	}
	b.tokens -= float64(cost)
	return nil
}

func (c class) refilled(b *bucket, now time.Time) float64 {
	return min(c.burst, b.tokens+max(0, now.Sub(b.at).Minutes())*c.perMinute)
}

// sweep forgets full buckets when there have come to be many, at most once for
// each doubling, so that its cost is spread over what made it necessary.
func (l *Limiter) sweep(now time.Time) {
	if len(l.buckets) < max(maxBuckets, 2*l.swept) {
		return
	}
	for key, b := range l.buckets {
		c := classDefault
		if key.class == classPublish.name {
			c = classPublish
		}
		if c.refilled(b, now) >= c.burst {
			delete(l.buckets, key)
		}
	}
	l.swept = len(l.buckets)
}

// callerAddr returns the address that the connection comes from; the zero one
// for connections without, such as those inside a process.
func callerAddr(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return addr.Addr().Unmap()
}
