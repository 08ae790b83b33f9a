package scw

import (
	"context"
	"sync"
)

// flights lets callers that ask the same share the one answer that is under way.
type flights[K comparable, V any] struct {
	mu      sync.Mutex
	byKey   map[K]*flight[V]
	running sync.WaitGroup
}

type flight[V any] struct {
	waiting int // guarded by flights.mu
	cancel  context.CancelFunc
	done    chan struct{} // closed when value and err are there
	value   V
	err     error
}

// do returns what ask returns, which is run once for all who wait for the key.
// Its context ends when nobody waits any more.
func (f *flights[K, V]) do(ctx context.Context, key K, ask func(context.Context) (V, error)) (value V, err error) {
	c := f.join(ctx, key, ask)
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		f.leave(key, c)
		return value, ctx.Err()
	}
}

func (f *flights[K, V]) join(ctx context.Context, key K, ask func(context.Context) (V, error)) *flight[V] {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.byKey[key]
	if c == nil {
		shared, cancel := context.WithCancel(context.WithoutCancel(ctx))
		c = &flight[V]{cancel: cancel, done: make(chan struct{})}
		if f.byKey == nil {
			f.byKey = map[K]*flight[V]{}
		}
		f.byKey[key] = c
		f.running.Go(func() {
			defer cancel()
			c.value, c.err = ask(shared)
			f.mu.Lock()
			f.forget(key, c)
			f.mu.Unlock()
			close(c.done)
		})
	}
	c.waiting++
	return c
}

func (f *flights[K, V]) leave(key K, c *flight[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.waiting--; c.waiting == 0 {
		c.cancel()
		f.forget(key, c) // the next one asks anew
	}
}

func (f *flights[K, V]) forget(key K, c *flight[V]) {
	if f.byKey[key] == c {
		delete(f.byKey, key)
	}
}
