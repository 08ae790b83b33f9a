package network

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// How long to wait before something is tried again that failed for want of the
// network: so briefly at first that nobody notices when the network is back, and, when
// it has been away for long, so rarely that trying costs nothing.
const (
	backoffMin   = 100 * time.Millisecond
	backoffSoon  = 600 * time.Millisecond // the longest wait while it may be back any moment
	backoffMax   = 30 * time.Second
	backoffHopes = 10 * time.Minute // for how long that is
)

// Backoff tells how long to wait between attempts. The zero value is for the first.
type Backoff struct {
	delay time.Duration
	since time.Time
}

// Next returns how long to wait before the next attempt: each time twice as long, in
// part by chance, so that not all who lost the same node come back at once.
func (b *Backoff) Next() time.Duration {
	if b.delay == 0 {
		b.delay, b.since = backoffMin/2, time.Now()
	}
	limit := backoffSoon
	if time.Since(b.since) > backoffHopes {
		limit = backoffMax
	}
	b.delay = min(2*b.delay, limit)
	return Jitter(b.delay)
}

// Reset begins anew, after a success.
func (b *Backoff) Reset() { *b = Backoff{} }

// Jitter returns between half of d and all of it.
func Jitter(d time.Duration) time.Duration {
	var b [8]byte
	rand.Read(b[:])
	return d/2 + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(d/2+1))
}
