package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// A caller makes one call.
type caller func(ctx context.Context) error

// calls is what became of the calls of one turn.
type calls struct {
	rate  float64 // calls a second
	times []time.Duration
}

// makeCalls lets all callers call, one call after the other, for a time.
func makeCalls(ctx context.Context, callers []caller, d time.Duration) (calls, error) {
	times := make([][]time.Duration, len(callers))
	var over atomic.Bool
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	timer := time.AfterFunc(d, func() { over.Store(true) })
	defer timer.Stop()
	for i, call := range callers {
		group.Go(func() error {
			for !over.Load() {
				from := time.Now()
				if err := call(ctx); err != nil {
					return err
				}
				times[i] = append(times[i], time.Since(from))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return calls{}, err
	}
	all := slices.Concat(times...)
	return calls{float64(len(all)) / time.Since(begin).Seconds(), all}, nil
}

// alternate measures things in turns, each second time in the other order. The
// first turn of each, which is for warming up, is told so.
func (b *bench) alternate(ctx context.Context, measure func(ctx context.Context, which int, warming bool) error, things int) error {
	for round := range b.rounds + 1 {
		for i := range things {
			which := i
			if round%2 == 1 {
				which = things - 1 - i
			}
			if err := measure(ctx, which, round == 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// A side of a comparison is callers of a process.
type side struct {
	process *process
	callers []caller
}

// rates compares how many calls ours and bare ones manage, and prints what they
// cost their servers.
func (b *bench) rates(ctx context.Context, ours, bare side) (*pairs, error) {
	result := &pairs{}
	var latest, used, count [2]float64
	measured := 0
	err := b.alternate(ctx, func(ctx context.Context, which int, warming bool) error {
		s := [2]side{ours, bare}[which]
		before, err := processorTime(s.process.pid())
		if err != nil {
			return err
		}
		made, err := makeCalls(ctx, s.callers, b.turn)
		if err != nil || warming {
			return err
		}
		after, err := processorTime(s.process.pid())
		if err != nil {
			return err
		}
		latest[which] = made.rate
		used[which] += float64(after - before)
		count[which] += float64(len(made.times))
		if measured++; measured%2 == 0 {
			result.add(latest[0], latest[1])
		}
		return nil
	}, 2)
	fmt.Printf("(processor time of a call: %s, bare %s)\n", micros(used[0]/count[0]), micros(used[1]/count[1]))
	return result, err
}

// echoCallers are as many as there are to be, on the connections in turn.
func echoCallers(conns connections, callers, request, answer int) []caller {
	all := make([]caller, callers)
	for i := range all {
		conn, req, response := conns[i%len(conns)], &raw{echoRequest(request, answer)}, &raw{}
		all[i] = func(ctx context.Context) error { return conn.Invoke(ctx, echoMethod, req, response) }
	}
	return all
}
