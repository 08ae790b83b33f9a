package mls

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// parallel calls f for 0 to n-1, on all processors once n is worth it, and returns
// the first error it meets; then calls are left out. It returns when all calls
// that were begun have ended.
func parallel(n int, f func(i int) error) error {
	const worth = 4 // public-key operations a processor
	workers := min(runtime.GOMAXPROCS(0), n/worth)
	if workers < 2 {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	var (
		next   atomic.Int64
		once   sync.Once
		failed error
		wg     sync.WaitGroup
	)
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			if err := f(i); err != nil {
				once.Do(func() { failed = err })
				next.Store(int64(n))
				return
			}
		}
	}
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	return failed
}
