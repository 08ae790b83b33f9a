package api

import (
	"math"
	"time"
)

// rate is how much may be used: a burst at once, which comes back evenly.
type rate struct {
	burst     float64
	perMinute float64
}

func perDay(n float64) rate { return rate{burst: n, perMinute: n / (24 * 60)} }

// A bucket holds the tokens that are left. With less than none there is a debt.
type bucket struct {
	rate
	tokens float64
	at     time.Time
}

func (b *bucket) refill(now time.Time) {
	// A clock that was set back takes nothing away.
	b.tokens = min(b.burst, b.tokens+max(0, now.Sub(b.at).Minutes())*b.perMinute)
	b.at = now
}

// wait is how long it takes until there are as many tokens; never says that
// there won't ever be.
func (b *bucket) wait(cost float64) (wait time.Duration, never bool) {
	if cost > b.burst {
		return 0, true
	}
	seconds := math.Ceil((cost - b.tokens) / b.perMinute * 60)
	return time.Duration(max(1, seconds)) * time.Second, false
}

// owe takes tokens for what was used already. A debt is no bigger than a burst,
// so that it is paid in the time that fills a bucket.
func (b *bucket) owe(cost float64) { b.tokens = max(b.tokens-cost, -b.burst) }

// maxBuckets is how many buckets are kept before full ones, which say nothing,
// are thrown away.
const maxBuckets = 1 << 16

// buckets are those of all users of something. The zero value has none.
type buckets[K comparable] struct {
	all   map[K]*bucket
	swept int // how many the last sweep left
}

// of returns a user's bucket as it is now. One that isn't there is full.
func (s *buckets[K]) of(user K, r rate, now time.Time) *bucket {
	b := s.all[user]
	if b == nil {
		s.sweep(now)
		if s.all == nil {
			s.all = map[K]*bucket{}
		}
		b = &bucket{tokens: r.burst, at: now}
		s.all[user] = b
	}
	b.rate = r // it may have been changed
	b.refill(now)
	return b
}

// sweep forgets full buckets when there have come to be many, at most once for
// each doubling, so that its cost is spread over what made it necessary.
func (s *buckets[K]) sweep(now time.Time) {
	if len(s.all) < max(maxBuckets, 2*s.swept) {
		return
	}
	for user, b := range s.all {
		if b.refill(now); b.tokens >= b.burst {
			delete(s.all, user)
		}
	}
	s.swept = len(s.all)
}
