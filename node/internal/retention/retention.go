// Package retention removes messages that are older than a node is to keep them,
// a little at a time, beside everything else.
package retention

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

const (
	// Between sweeps there is a twentieth of the least age, within these bounds: so
	// messages are kept hardly longer than asked, and a sweep, which looks at all
	// topics, is rare.
	minPause, maxPause = time.Second, time.Hour
	// sweepRest and reclaimRest are how many times as long as a step the pruner
	// rests after it, so that most of the time belongs to others.
	sweepRest   = 5
	reclaimRest = 3
	minRest     = time.Millisecond
	// reclaimBytes and reclaimShare of the store are what has to be removed before
	// its space is given back, which means to write what is beside it anew: so that
	// is at most so many times as much.
	reclaimBytes = 64 << 20
	reclaimShare = 10
)

// Config is what a pruner works with.
type Config struct {
	Index *index.Index
	// Messages and Welcomes are the ages to which application messages and
	// welcomes are kept. What has none is kept for ever.
	Messages, Welcomes time.Duration
	Now                func() time.Time
	Logger             *slog.Logger
}

// Removed is what was removed since the start.
type Removed struct {
	Messages, Welcomes uint64
	Bytes              uint64 // of both, without what the store adds
}

// A Pruner removes what is too old until it is stopped.
type Pruner struct {
	config Config
	clock  *clock
	cancel context.CancelFunc
	done   chan struct{}

	kinds                     []*kind
	unclaimed                 uint64 // bytes that were removed, and whose space wasn't given back
	messages, welcomes, bytes atomic.Uint64
}

// kind is one of records that have an age.
type kind struct {
	order.Kind
	name    string
	age     time.Duration
	removed *atomic.Uint64
	after   uint64 // earlier sweeps have removed what there was to here
}

// Start starts a pruner, which does nothing if nothing has an age.
func Start(c Config) *Pruner {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pruner{config: c, clock: newClock(c.Now), cancel: cancel, done: make(chan struct{})}
	for _, k := range []*kind{
		{Kind: order.GroupMessage, name: "messages", age: c.Messages, removed: &p.messages},
		{Kind: order.Welcome, name: "welcomes", age: c.Welcomes, removed: &p.welcomes},
	} {
		if k.age > 0 {
			p.kinds = append(p.kinds, k)
		}
	}
	go p.run(ctx)
	return p
}

// Stop ends the pruner soon; see [Pruner.Done].
func (p *Pruner) Stop() { p.cancel() }

// Done is closed when the pruner has ended.
func (p *Pruner) Done() <-chan struct{} { return p.done }

// Removed returns what was removed up to now.
func (p *Pruner) Removed() Removed {
	return Removed{Messages: p.messages.Load(), Welcomes: p.welcomes.Load(), Bytes: p.bytes.Load()}
}

func (p *Pruner) run(ctx context.Context) {
	defer close(p.done)
	defer p.cancel()
	pause := maxPause
	for _, k := range p.kinds {
		pause = max(minPause, min(pause, k.age/20))
	}
	for len(p.kinds) > 0 {
		for _, k := range p.kinds {
			p.sweep(ctx, k)
		}
		if p.unclaimed >= max(reclaimBytes, p.config.Index.Size()/reclaimShare) {
			p.reclaim(ctx)
		}
		if !wait(ctx, pause) {
			return
		}
	}
}

// sweep removes what is too old of one kind. What goes wrong is tried again by
// the next sweep: nothing else depends on it.
func (p *Pruner) sweep(ctx context.Context, k *kind) {
	before := p.clock.now().Add(-k.age).UnixNano()
	if before <= 0 {
		return
	}
	sweep, err := p.config.Index.Sweep(k.Kind, k.after, uint64(before))
	records, started := uint64(0), time.Now()
	for err == nil {
		step := time.Now()
		removed, done, failure := sweep.Next()
		if err = failure; err != nil {
			break
		}
		records += removed.Records
		k.removed.Add(removed.Records)
		p.bytes.Add(removed.Bytes)
		p.unclaimed += removed.Bytes
		if done {
			k.after = sweep.Reached()
			break
		}
		if !wait(ctx, max(minRest, sweepRest*time.Since(step))) {
			return
		}
	}
	if records > 0 && err == nil {
		p.config.Logger.Info("old records removed", "kind", k.name, "records", records, "took", time.Since(started))
	}
	p.failed(ctx, err)
}

// reclaim gives back the space of what was removed.
func (p *Pruner) reclaim(ctx context.Context) {
	started, before := time.Now(), p.config.Index.Size()
	reclaim, err := p.config.Index.Reclaim()
	for err == nil {
		step := time.Now()
		done, failure := reclaim.Next(ctx)
		if err = failure; err != nil {
			break
		}
		if done {
			p.unclaimed = 0
			p.config.Logger.Info("space of old records given back", "before", before, "after", p.config.Index.Size(), "took", time.Since(started))
			break
		}
		if !wait(ctx, max(minRest, reclaimRest*time.Since(step))) {
			return
		}
	}
	p.failed(ctx, err)
}

// failed tells what went wrong, unless that is the end.
func (p *Pruner) failed(ctx context.Context, err error) {
	switch {
	case err == nil || ctx.Err() != nil || errors.Is(err, index.ErrClosed):
	case errors.Is(err, index.ErrDiskFull):
		p.config.Logger.Warn("old records can't be removed: the disk has too little room even for that")
	default:
		p.config.Logger.Error("old records can't be removed", "error", err)
	}
}

// wait is false if ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// clock is a wall clock that can't be put forward while it is used: that would
// remove what is young. Put back, or slow because the whole machine has paused, it
// keeps things longer, until the node is started again.
type clock struct {
	read  func() time.Time
	start time.Time
}

func newClock(read func() time.Time) *clock { return &clock{read, read()} }

func (c *clock) now() time.Time {
	now := c.read()
	// Times of the system tell how much time has passed, whatever was done to the
	// wall clock; those of other clocks just differ.
	return unjumped(c.start.Round(0), now.Round(0), now.Sub(c.start))
}

// unjumped is what a wall clock shows, but no more than where it started and what
// has passed.
func unjumped(start, now time.Time, passed time.Duration) time.Time {
	if latest := start.Add(passed); latest.Before(now) {
		return latest
	}
	return now
}
