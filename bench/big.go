package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// manyConnections measures what connections cost while nothing comes, and what
// they cost the others.
func (b *bench) manyConnections(ctx context.Context) error {
	const many, few, rate = 10_000, 100, 500
	// Each connection is a file here and one of the node's.
	if b.files < many+1000 {
		return fmt.Errorf("%d connections need a limit of %d open files, and the system's hard limit is %d: raise it (ulimit -Hn)", many, many+1000, b.files)
	}
	var crowds [2]*crowd
	for i, n := range []int{many, few} {
		data := b.folder(fmt.Sprint("connections-", n))
		defer os.RemoveAll(data)
		node, err := startNode(ctx, b.xmtp, data)
		if err != nil {
			return err
		}
		defer node.stop()
		begin := time.Now()
		if crowds[i], err = b.crowd(ctx, node, n); err != nil {
			return err
		}
		defer crowds[i].close()
		fmt.Printf("(%d connections with %d streams of %d groups each: open after %v)\n", n, crowdStreams, crowdTopics, time.Since(begin).Round(time.Millisecond))
	}
	const limit = 1.5 * (1 << 30)
	opened, err := resident(crowds[0].node.pid())
	if err != nil {
		return err
	}
	most := opened
	result := &pairs{}
	var latest [2]float64
	measured := 0
	if err := b.alternate(ctx, func(ctx context.Context, which int, warming bool) error {
		p99, err := crowds[which].p99(ctx, rate, b.turn)
		if err != nil || warming {
			return err
		}
		used, err := resident(crowds[0].node.pid())
		most = max(most, used)
		latest[which] = float64(p99)
		if measured++; measured%2 == 0 {
			result.add(latest[0], latest[1])
		}
		return err
	}, 2); err != nil {
		return err
	}
	for _, c := range crowds {
		if err := c.close(); err != nil {
			return err
		}
	}
	b.report(float64(most) < limit, "10,000 connections with 2 streams of 100 topics", "under 1.5 GiB resident",
		"%s when open, %s at most", mib(opened), mib(most))
	ours, base := result.medians()
	b.report(result.ratio() <= 5, fmt.Sprintf("publish to delivery among them at %d/s, p99", rate), "at most 5 x that of 100 connections",
		"%s, of 100 connections %s, ratio %.2f", micros(ours), micros(base), result.ratio())
	return nil
}

func mib(bytes uint64) string { return fmt.Sprintf("%d MiB", bytes>>20) }

// disk measures what a million published messages take.
func (b *bench) disk(ctx context.Context) error {
	const messages, writers, groups, atOnce = 1_000_000, 16, 1600, 50
	return b.withNode(ctx, "disk", 4, func(_ *process, ours, _ connections) error {
		var left atomic.Int64
		left.Store(messages / atOnce)
		group, publishing := errgroup.WithContext(ctx)
		begin := time.Now()
		for i := range writers {
			group.Go(func() error {
				// Each has a hundred groups, and goes from one to the next.
				var all []*publisher
				for j := range groups / writers {
					all = append(all, &publisher{conn: ours[i%len(ours)], next: newPublication(groupID(i*groups/writers+j), atOnce), id: 1})
				}
				for n := 0; left.Add(-1) >= 0; n++ {
					if err := all[n%len(all)].send(publishing); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		took := time.Since(begin)
		// The store is busy with itself for some seconds; then it doesn't change.
		size := int64(0)
		for before := int64(-1); before != size; {
			before = size
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
			var err error
			if size, err = allocated(b.folder("disk")); err != nil {
				return err
			}
		}
		stored := 0
		for i := range groups {
			if err := readGroup(ctx, ours[0], groupID(i), func(uint64, []byte) error { stored++; return nil }); err != nil {
				return err
			}
		}
		if stored != messages {
			return fmt.Errorf("of %d messages %d are stored", messages, stored)
		}
		ratio := float64(size) / (messages * messageSize)
		b.report(ratio <= 1.15, "bytes on disk of a million messages", "at most 1.15 x their payload",
			"%d bytes, ratio %.3f; published in %v", size, ratio, took.Round(time.Second))
		return nil
	})
}

// bigStore compares a store of 5 million messages with one of 50 thousand.
func (b *bench) bigStore(ctx context.Context) error {
	begin := time.Now()
	small, err := b.filled(ctx, "small", smallGroups)
	if err != nil {
		return err
	}
	defer os.RemoveAll(small)
	big, err := b.filled(ctx, "big", bigGroups)
	if err != nil {
		return err
	}
	defer os.RemoveAll(big)
	fmt.Printf("(made stores of %d and %d messages in %v)\n", smallGroups*groupMessages, bigGroups*groupMessages, time.Since(begin).Round(time.Second))
	stores := []store{{big, bigGroups}, {small, smallGroups}}
	if err := b.starts(ctx, big); err != nil {
		return err
	}
	if err := b.warm(ctx, stores); err != nil {
		return err
	}
	return b.cold(ctx, stores)
}

type store struct {
	data   string
	groups int
}

// starts measures starts after a kill with much in the log, after a clean end,
// and after one when nothing of the store is in memory.
func (b *bench) starts(ctx context.Context, data string) error {
	var worst time.Duration
	var used []int64
	for _, kind := range []string{"after a kill", "clean", "cold"} {
		switch kind {
		case "after a kill":
			node, err := startNode(ctx, b.xmtp, data)
			if err != nil {
				return err
			}
			if err := b.withConnections(node, 8, func(_ *process, ours, _ connections) error {
				_, err := makeCalls(ctx, senders(publishers(ours, 64, 64, bigGroups)), 3*time.Second)
				node.kill()
				return err
			}); err != nil {
				return err
			}
		case "cold":
			if err := dropCache(data); err != nil {
				return err
			}
		}
		node, err := startNode(ctx, b.xmtp, data)
		if err != nil {
			return err
		}
		select {
		case <-time.After(10 * time.Second):
		case <-ctx.Done():
		}
		bytes, err := resident(node.pid())
		node.stop()
		if err != nil {
			return err
		}
		fmt.Printf("(start %s: %v, then %s resident)\n", kind, node.took.Round(time.Millisecond), mib(bytes))
		worst = max(worst, node.took)
		used = append(used, int64(bytes))
	}
	b.report(worst <= 2*time.Second, "start with 5 million messages: after a kill, clean, cold", "ready in 2 s",
		"%v at worst", worst.Round(time.Millisecond))
	most := uint64(slices.Max(used))
	b.report(most <= 300<<20, "the same, idle", "at most 300 MiB resident", "%s at most", mib(most))
	return nil
}

// warm reads the same hundred groups again and again.
func (b *bench) warm(ctx context.Context, stores []store) error {
	sides := make([]side, len(stores))
	for i, s := range stores {
		node, err := startNode(ctx, b.xmtp, s.data)
		if err != nil {
			return err
		}
		defer node.stop()
		conns, err := dial(node.address, pageCallers/perConnection)
		if err != nil {
			return err
		}
		defer conns.Close()
		sides[i] = side{node, readers(conns, s.groups, smallGroups)}
	}
	rates, err := b.rates(ctx, sides[0], sides[1])
	if err != nil {
		return err
	}
	big, little := rates.medians()
	slower := 1 / rates.ratio()
	b.report(slower <= 1.5, "page of 100, 5 million against 50 thousand, warm", "at most 1.5 x the time",
		"%.0f/s against %.0f/s, ratio %.2f", big, little, slower)
	return nil
}

// cold reads each of a hundred groups once, after the system and the node have
// forgotten all that they have read.
func (b *bench) cold(ctx context.Context, stores []store) error {
	result := &pairs{}
	var latest [2]float64
	measured := 0
	if err := b.alternate(ctx, func(ctx context.Context, which int, warming bool) error {
		took, err := b.coldPages(ctx, stores[which])
		if err != nil || warming {
			return err
		}
		latest[which] = float64(took)
		if measured++; measured%2 == 0 {
			result.add(latest[0], latest[1])
		}
		return nil
	}, 2); err != nil {
		return err
	}
	big, little := result.medians()
	b.report(result.ratio() <= 1.5, "the same, cold", "at most 1.5 x the time",
		"%s against %s for a page, ratio %.2f", micros(big), micros(little), result.ratio())
	return nil
}

func (b *bench) coldPages(ctx context.Context, s store) (perPage time.Duration, err error) {
	node, err := startNode(ctx, b.xmtp, s.data)
	if err != nil {
		return 0, err
	}
	defer node.stop()
	conns, err := dial(node.address, pageCallers/perConnection)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conns.Close()) }()
	for _, conn := range conns {
		conn.Connect()
	}
	if err := dropCache(s.data); err != nil {
		return 0, err
	}
	var next atomic.Int64
	pick := func() int { return int(next.Add(1)-1) * (s.groups / smallGroups) }
	group, reading := errgroup.WithContext(ctx)
	begin := time.Now()
	for i := range pageCallers {
		call := pageCaller(conns[i%len(conns)], s.groups, pick)
		// A hundred groups among 64 callers.
		group.Go(func() error {
			for range (smallGroups - i + pageCallers - 1) / pageCallers {
				if err := call(reading); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = group.Wait()
	return time.Since(begin) / smallGroups, err
}
