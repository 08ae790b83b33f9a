package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// A listener is a stream, and what has come on it.
type listener struct {
	stream grpc.ClientStream
	seen   map[uint64]uint64 // messages by publisher and group
	last   map[string]uint64 // numbers by group
	total  *atomic.Int64     // of all listeners
	mu     *sync.Mutex       // of times
	times  *[]time.Duration  // from being sent until here, nil if they don't matter
}

// listen reads the stream until it ends. It fails if something comes twice, or
// out of order.
func (l *listener) listen(ctx context.Context) error {
	var message raw
	for {
		if err := l.stream.RecvMsg(&message); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if err == io.EOF {
				err = errors.New("the stream has ended")
			}
			return err
		}
		now := time.Now()
		if err := readMessage(message.bytes, func(id uint64, data []byte) error {
			group := string(data[5:21])
			if id <= l.last[group] {
				return fmt.Errorf("message %d after %d", id, l.last[group])
			}
			l.last[group] = id
			if l.times != nil {
				l.mu.Lock()
				*l.times = append(*l.times, time.Duration(now.UnixNano()-sentAt(data)))
				l.mu.Unlock()
			}
			return inOrder(l.seen, markOf(data))
		}); err != nil {
			return err
		}
		l.total.Add(1)
	}
}

// An audience is many listeners.
type audience struct {
	listeners []*listener
	total     atomic.Int64
	mu        sync.Mutex
	times     []time.Duration
	cancel    context.CancelFunc
	group     *errgroup.Group
	ctx       context.Context
}

// gather opens streams: the i-th on connection i, modulo the number of
// connections, of the groups that groupsOf names.
func gather(ctx context.Context, conns connections, streams int, timed bool, groupsOf func(i int) [][]byte) (*audience, error) {
	a := &audience{listeners: make([]*listener, streams)}
	ctx, a.cancel = context.WithCancel(ctx)
	a.group, a.ctx = errgroup.WithContext(ctx)
	var opening errgroup.Group
	opening.SetLimit(128)
	for i := range streams {
		opening.Go(func() error {
			stream, err := subscribe(a.ctx, conns[i%len(conns)], groupsOf(i)...)
			if err != nil {
				return fmt.Errorf("stream %d: %w", i, err)
			}
			l := &listener{stream: stream, seen: map[uint64]uint64{}, last: map[string]uint64{}, total: &a.total}
			if timed {
				l.mu, l.times = &a.mu, &a.times
			}
			a.listeners[i] = l
			return nil
		})
	}
	if err := opening.Wait(); err != nil {
		a.cancel()
		return nil, err
	}
	for _, l := range a.listeners {
		a.group.Go(func() error { return l.listen(a.ctx) })
	}
	return a, nil
}

// patience is how long nothing may come while something is missing.
const patience = 30 * time.Second

// await returns when as many messages have come.
func (a *audience) await(want int64) error {
	came, since := a.total.Load(), time.Now()
	for a.total.Load() < want {
		select {
		case <-a.ctx.Done():
			a.cancel()
			return errors.Join(a.group.Wait(), a.ctx.Err())
		case <-time.After(time.Millisecond):
		}
		if now := a.total.Load(); now != came {
			came, since = now, time.Now()
		} else if time.Since(since) > patience {
			return fmt.Errorf("lost: of %d messages %d have come", want, came)
		}
	}
	return nil
}

// take returns the times since the last call.
func (a *audience) take() []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	times := a.times
	a.times = nil
	return times
}

// close ends the streams, and returns what was wrong with one.
func (a *audience) close() error {
	a.cancel()
	return a.group.Wait()
}

// steadily lets publishers send at a rate together, for a time, whatever each
// call takes, and returns how long they took.
func steadily(ctx context.Context, all []*publisher, rate float64, d time.Duration) ([]time.Duration, error) {
	interval := time.Duration(float64(len(all)) / rate * float64(time.Second))
	times := make([][]time.Duration, len(all))
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for i, p := range all {
		group.Go(func() error {
			next := begin.Add(interval * time.Duration(i) / time.Duration(len(all)))
			for ; next.Sub(begin) < d; next = next.Add(interval) {
				select {
				case <-time.After(time.Until(next)):
				case <-ctx.Done():
					return ctx.Err()
				}
				at := time.Now()
				if err := p.sendAt(ctx, at); err != nil {
					return err
				}
				times[i] = append(times[i], time.Since(at))
			}
			return nil
		})
	}
	err := group.Wait()
	return slices.Concat(times...), err
}

// delivery compares when a message is acknowledged with when its reader has it.
func (b *bench) delivery(ctx context.Context) error {
	const rate, count = 500, 16
	return b.withNode(ctx, "delivery", 4, func(_ *process, ours, _ connections) error {
		a, err := gather(ctx, ours[:1], count, true, func(i int) [][]byte { return [][]byte{groupID(i)} })
		if err != nil {
			return err
		}
		all := publishers(ours[1:], count, count, 0)
		result, sent := &pairs{}, int64(0)
		begin := time.Now()
		for range b.rounds {
			published, err := steadily(ctx, all, rate, b.turn)
			if err != nil {
				return err
			}
			sent += int64(len(published))
			if err := a.await(sent); err != nil {
				return err
			}
			result.add(float64(median(a.take())), float64(median(published)))
		}
		reached := float64(sent) / time.Since(begin).Seconds()
		if err := a.close(); err != nil {
			return err
		}
		delivered, published := result.medians()
		b.report(result.ratio() <= 2 && reached > 0.9*rate, fmt.Sprintf("publish to delivery at %d/s, p50", rate), "at most 2 x the publish's p50",
			"%s, publish %s, at %.0f/s, ratio %.2f", micros(delivered), micros(published), reached, result.ratio())
		return nil
	})
}

// streams looks for what is lost between many publishers and many readers.
func (b *bench) streams(ctx context.Context) error {
	const streams, writers = 4000, 16
	each := 100
	if b.all {
		each = 400
	}
	return b.withNode(ctx, "streams", 80, func(_ *process, ours, _ connections) error {
		a, err := gather(ctx, ours, streams, false, func(i int) [][]byte { return [][]byte{groupID(i % writers)} })
		if err != nil {
			return err
		}
		all := publishers(ours, writers, writers, 0)
		begin := time.Now()
		group, publishing := errgroup.WithContext(ctx)
		for _, p := range all {
			group.Go(func() error {
				for range each {
					if err := p.send(publishing); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		want := int64(streams * each)
		lost := a.await(want)
		took := time.Since(begin)
		came := a.total.Load()
		if err := a.close(); err != nil {
			return err
		}
		if err := verifySent(ctx, ours[0], all, writers, 0); err != nil {
			return err
		}
		b.report(lost == nil && came == want, "4,000 streams, 16 publishers", "nothing lost, doubled or out of order",
			"%d of %d delivered, %.0f/s", came, want, float64(came)/took.Seconds())
		return nil
	})
}

// A crowd is very many connections to one node with two streams each, of 100
// groups that nobody else reads.
type crowd struct {
	*audience
	node       *process
	conns      connections
	writers    connections
	publishers []*publisher
	groups     int
	sent       int64
}

const (
	crowdStreams = 2   // of a connection
	crowdTopics  = 100 // of a stream
	crowdWriters = 16
)

func (b *bench) crowd(ctx context.Context, node *process, n int) (*crowd, error) {
	c := &crowd{node: node, groups: n * crowdStreams * crowdTopics}
	var err error
	// The generator has as many connections as the node; they shall be small here.
	if c.conns, err = dial(node.address, n, grpc.WithReadBufferSize(0), grpc.WithWriteBufferSize(4<<10)); err != nil {
		return nil, err
	}
	if c.writers, err = dial(node.address, 2); err != nil {
		return nil, errors.Join(err, c.conns.Close())
	}
	c.audience, err = gather(ctx, c.conns, n*crowdStreams, true, func(i int) [][]byte {
		groups := make([][]byte, crowdTopics)
		for j := range groups {
			groups[j] = groupID(i*crowdTopics + j)
		}
		return groups
	})
	if err != nil {
		return nil, errors.Join(err, c.conns.Close(), c.writers.Close())
	}
	c.publishers = publishers(c.writers, crowdWriters, 1, 0)
	return c, nil
}

func (c *crowd) close() error {
	return errors.Join(c.audience.close(), c.conns.Close(), c.writers.Close())
}

// p99 is that of the time from publishing until the reader has it, over a turn.
func (c *crowd) p99(ctx context.Context, rate float64, d time.Duration) (time.Duration, error) {
	// Each turn other groups, as random as their readers' connections then are.
	for i, p := range c.publishers {
		p.next = newPublication(groupID(random(c.groups/crowdWriters)*crowdWriters+i), 1)
		// Readers count what each publisher has sent; here they are others each turn.
		p.id, p.sent = p.id+crowdWriters, 0
	}
	times, err := steadily(ctx, c.publishers, rate, d)
	if err != nil {
		return 0, err
	}
	c.sent += int64(len(times))
	if err := c.await(c.sent); err != nil {
		return 0, err
	}
	return percentile(c.take(), 0.99), nil
}
