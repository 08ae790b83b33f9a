package order

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestOrder checks against any mix of callers, clocks and syncs: numbers and
// times grow, only what was stored takes a number, callers are answered once
// their records are durable and visible, and delivery is in order, after that.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := newFakeStore()
		store.number = rapid.Uint64Range(0, 1<<40).Draw(t, "start")
		store.time = rapid.Uint64Range(0, 1<<61).Draw(t, "start time")
		store.durable, store.advanced = store.number, store.number
		start, startTime := store.number, store.time

		// Times are drawn in advance: the clock is read by another goroutine.
		times := rapid.SliceOfN(rapid.Int64Range(-1<<61, 1<<61), 1, 50).Draw(t, "clock")
		tick := 0
		clock := func() time.Time {
			tick++
			return time.Unix(0, times[tick%len(times)])
		}
		gaps := rapid.SliceOfN(rapid.IntRange(0, 3), 1, 10).Draw(t, "sync gaps")
		syncs := 0
		store.sync = func(*fakeBatch) error {
			syncs++
			for range gaps[syncs%len(gaps)] {
				runtime.Gosched()
			}
			return nil
		}
		var delivered []*Record // by the syncing goroutine alone
		e := NewEmbedded(store, clock, func(records []*Record) {
			if last := records[len(records)-1].Number; store.visible() < last {
				t.Errorf("record %d delivered, visible up to %d", last, store.visible())
			}
			delivered = append(delivered, records...)
		})

		payloads := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(-3, 40), 0, 5), 1, 60).Draw(t, "requests")
		callers := rapid.IntRange(1, 8).Draw(t, "callers")
		var wg sync.WaitGroup
		var mu sync.Mutex
		numbers := map[string]uint64{}
		for caller := range callers {
			wg.Go(func() {
				for i := caller; i < len(payloads); i += callers {
					var records []*Record
					for _, p := range payloads[i] {
						text := fmt.Sprintf("payload %d", p)
						if p < 0 {
							text = "!" + text
						}
						records = append(records, record(text))
					}
					outcomes, err := e.Append(context.Background(), records...)
					if err != nil || len(outcomes) != len(records) {
						t.Errorf("Append: %d outcomes of %d records, %v", len(outcomes), len(records), err)
						return
					}
					for j, outcome := range outcomes {
						refused := records[j].Payload[0] == '!'
						if refused != (outcome.Err != nil) || refused != (outcome.Number == 0) {
							t.Errorf("%s: outcome %+v", records[j].Payload, outcome)
						}
						if outcome.Number > store.visible() {
							t.Errorf("answered with %d, visible up to %d", outcome.Number, store.visible())
						}
						if !refused {
							mu.Lock()
							if earlier, ok := numbers[string(records[j].Payload)]; ok && earlier != outcome.Number {
								t.Errorf("%s has the numbers %d and %d", records[j].Payload, earlier, outcome.Number)
							}
							numbers[string(records[j].Payload)] = outcome.Number
							mu.Unlock()
						}
					}
				}
			})
		}
		wg.Wait()
		if err := e.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		if len(store.committed) != len(numbers) {
			t.Fatalf("%d records stored, %d were answered", len(store.committed), len(numbers))
		}
		number, at := start, startTime
		for _, r := range store.committed {
			if r.Number != number+1 {
				t.Fatalf("record %d after %d", r.Number, number)
			}
			if r.Time <= at {
				t.Fatalf("record %d has time %d, the one before %d", r.Number, r.Time, at)
			}
			if numbers[string(r.Payload)] != r.Number {
				t.Fatalf("record %d was answered as %d", r.Number, numbers[string(r.Payload)])
			}
			number, at = r.Number, r.Time
		}
		if !slices.Equal(delivered, store.committed) {
			t.Fatal("delivered other records, or in another order, than were stored")
		}
		if !slices.IsSorted(store.advances) {
			t.Fatalf("the watermark went back: %v", store.advances)
		}
	})
}

// TestRequestStaysTogether: records of one call follow each other, in a batch too.
func TestRequestStaysTogether(t *testing.T) {
	store := newFakeStore()
	e := NewEmbedded(store, time.Now, func([]*Record) {})
	var wg sync.WaitGroup
	for caller := range 8 {
		wg.Go(func() {
			for i := range 50 {
				var records []*Record
				for j := range 5 {
					records = append(records, record(fmt.Sprintf("%d %d %d", caller, i, j)))
				}
				outcomes, err := e.Append(context.Background(), records...)
				if err != nil {
					t.Error(err)
					return
				}
				for j := range outcomes {
					if outcomes[j].Number != outcomes[0].Number+uint64(j) {
						t.Errorf("numbers of one call: %+v", outcomes)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestClock: times grow by one nanosecond at least, whatever the clock says.
func TestClock(t *testing.T) {
	store := newFakeStore()
	var now time.Time
	e := NewEmbedded(store, func() time.Time { return now }, func([]*Record) {})
	defer e.Close()
	for i, step := range []struct {
		now  time.Time
		want uint64
	}{
		{time.Unix(0, 1000), 1000},
		{time.Unix(0, 1000), 1001},
		{time.Unix(0, 10), 1002},
		{time.Unix(-5, 0), 1003}, // before 1970
		{time.Unix(0, 1003), 1004},
		{time.Unix(0, 5000), 5000},
		{time.Time{}, 5001},
	} {
		now = step.now
		r := record(fmt.Sprint(i))
		if _, err := e.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if r.Time != step.want {
			t.Errorf("at %d: time %d, want %d", step.now.UnixNano(), r.Time, step.want)
		}
	}
}

// TestRefusedTakesNoNumber: neither a number nor an instant.
func TestRefusedTakesNoNumber(t *testing.T) {
	store := newFakeStore()
	e := NewEmbedded(store, func() time.Time { return time.Unix(0, 7) }, func([]*Record) {})
	defer e.Close()
	a, b := record("a"), record("b")
	outcomes, err := e.Append(t.Context(), record("!"), a, record("a"), record("!"), b)
	if err != nil {
		t.Fatal(err)
	}
	want := []Outcome{{Err: errRefused}, {Number: 1}, {Number: 1}, {Err: errRefused}, {Number: 2}}
	if !slices.Equal(outcomes, want) {
		t.Errorf("outcomes %+v, want %+v", outcomes, want)
	}
	if a.Time != 7 || b.Time != 8 {
		t.Errorf("times %d, %d; want 7, 8", a.Time, b.Time)
	}
}

// TestPipeline: while one batch is being synced, the next one is built of all that
// comes, and nobody is answered before his batch is durable.
func TestPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		release := make(chan struct{})
		store.sync = func(*fakeBatch) error { <-release; return nil }
		applied := 0
		store.apply = func(*Record) error { applied++; return nil }
		var delivered []uint64
		e := NewEmbedded(store, time.Now, func(records []*Record) {
			for _, r := range records {
				delivered = append(delivered, r.Number)
			}
		})
		answered := make([]bool, 6)
		call := func(i int) {
			go func() {
				if _, err := e.Append(context.Background(), record(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
				answered[i] = true
			}()
			synctest.Wait()
		}
		call(0)
		if len(store.committed) != 1 || answered[0] || store.visible() != 0 {
			t.Fatalf("%d committed, visible up to %d, answered %v", len(store.committed), store.visible(), answered)
		}
		for i := 1; i < 5; i++ {
			call(i)
		}
		if n := applied; n != 5 {
			t.Fatalf("the second batch waited for the first: %d records applied", n)
		}
		if n := len(store.committed); n != 1 {
			t.Fatalf("%d batches were committed while the disk was busy with the first", n-1)
		}
		release <- struct{}{}
		synctest.Wait()
		if !answered[0] || answered[1] || store.visible() != 1 || !slices.Equal(delivered, []uint64{1}) {
			t.Fatalf("after one sync: answered %v, visible up to %d, delivered %v", answered, store.visible(), delivered)
		}
		// What came meanwhile shares one sync.
		release <- struct{}{}
		synctest.Wait()
		for i := range 5 {
			if !answered[i] {
				t.Errorf("caller %d was not answered", i)
			}
		}
		if !slices.Equal(delivered, []uint64{1, 2, 3, 4, 5}) {
			t.Errorf("delivered %v", delivered)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestRepetitionWaits: the answer to a repetition, which is not stored, comes
// when the record that it repeats is durable.
func TestRepetitionWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		release := make(chan struct{})
		store.sync = func(b *fakeBatch) error {
			if len(b.records) > 0 {
				<-release
			}
			return nil
		}
		e := NewEmbedded(store, time.Now, func([]*Record) {})
		var answers atomic.Int32
		for range 2 {
			go func() {
				outcomes, err := e.Append(context.Background(), record("same"))
				if err != nil || outcomes[0].Number != 1 {
					t.Errorf("%+v, %v", outcomes, err)
				}
				answers.Add(1)
			}()
			synctest.Wait()
		}
		if answers.Load() != 0 {
			t.Fatal("answered before the record was durable")
		}
		close(release)
		synctest.Wait()
		if n := answers.Load(); n != 2 {
			t.Fatalf("%d of 2 callers answered", n)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestBatchLimits: a batch doesn't grow without end.
func TestBatchLimits(t *testing.T) {
	for name, c := range map[string]struct {
		size, limit int
	}{
		"records": {1, maxBatchRecords},
		"bytes":   {1 << 20, maxBatchBytes >> 20},
	} {
		t.Run(name, func(t *testing.T) {
			store := newFakeStore()
			var first, release sync.Once
			building, waiting := make(chan struct{}), make(chan struct{})
			biggest := 0
			store.apply = func(*Record) error {
				first.Do(func() { close(building); <-waiting })
				return nil
			}
			store.commit = func(b *fakeBatch) error {
				biggest = max(biggest, b.applied)
				return nil
			}
			e := NewEmbedded(store, time.Now, func([]*Record) {})
			var wg sync.WaitGroup
			callers := c.limit*2 + 3
			for i := range callers {
				wg.Go(func() {
					payload := make([]byte, c.size+8)
					copy(payload, fmt.Sprintf("%7d", i))
					if _, err := e.Append(context.Background(), &Record{Payload: payload}); err != nil {
						t.Error(err)
					}
				})
			}
			<-building
			for len(e.requests) < min(cap(e.requests), callers-1) {
				runtime.Gosched()
			}
			release.Do(func() { close(waiting) })
			wg.Wait()
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			if biggest > c.limit {
				t.Errorf("a batch of %d records of %d bytes", biggest, c.size)
			}
			if len(store.committed) != callers {
				t.Errorf("%d of %d stored", len(store.committed), callers)
			}
		})
	}
}

// TestFailure: however the store fails, all who wait get an error, later calls
// fail at once, and the store is not asked again.
func TestFailure(t *testing.T) {
	broken := errors.New("the disk is broken")
	var hang chan struct{}
	for name, c := range map[string]struct {
		breakIt func(*fakeStore)
		want    error // nil: any
	}{
		"Apply fails":      {func(s *fakeStore) { s.apply = func(*Record) error { return broken } }, broken},
		"Commit fails":     {func(s *fakeStore) { s.commit = func(*fakeBatch) error { return broken } }, broken},
		"Commit gives up":  {func(s *fakeStore) { s.commit = func(*fakeBatch) error { runtime.Goexit(); return nil } }, nil},
		"Wait fails":       {func(s *fakeStore) { s.sync = func(*fakeBatch) error { return broken } }, broken},
		"Wait gives up":    {func(s *fakeStore) { s.sync = func(*fakeBatch) error { runtime.Goexit(); return nil } }, nil},
		"Commit hangs":     {func(s *fakeStore) { s.commit = func(*fakeBatch) error { <-hang; return broken } }, broken},
		"Wait hangs":       {func(s *fakeStore) { s.sync = func(*fakeBatch) error { <-hang; return broken } }, broken},
		"failed elsewhere": {func(s *fakeStore) {}, broken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hang = make(chan struct{})
				store := newFakeStore()
				e := NewEmbedded(store, time.Now, func([]*Record) {})
				if _, err := e.Append(t.Context(), record("good")); err != nil {
					t.Fatal(err)
				}
				c.breakIt(store)
				results := make(chan error, 20)
				for i := range 20 {
					go func() {
						_, err := e.Append(context.Background(), record(fmt.Sprint(i)))
						results <- err
					}()
				}
				synctest.Wait()
				select {
				case <-e.Done():
				default:
					// Somebody else has noticed that the store doesn't answer.
					e.Fail(broken)
					synctest.Wait()
				}
				if name != "failed elsewhere" {
					if len(results) != 20 {
						t.Fatalf("%d of 20 callers were answered", len(results))
					}
					for range 20 {
						err := <-results
						if err == nil || errors.Is(err, ErrStopped) || c.want != nil && !errors.Is(err, c.want) {
							t.Errorf("Append: %v", err)
						}
					}
				}
				store.mu.Lock()
				committed := len(store.committed)
				store.mu.Unlock()
				for range 3 {
					if _, err := e.Append(t.Context(), record("late")); err == nil || errors.Is(err, ErrStopped) {
						t.Errorf("Append after the failure: %v", err)
					}
				}
				if err := e.Err(); err == nil || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("Err: %v", err)
				}
				if err := e.Close(); err == nil || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("Close: %v", err)
				}
				e.Fail(errors.New("another"))
				if err := e.Err(); c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("Err after a second failure: %v", err)
				}
				if store.visible() > 21 || name != "failed elsewhere" && store.visible() != 1 {
					t.Errorf("visible up to %d", store.visible())
				}
				store.mu.Lock()
				if len(store.committed) != committed {
					t.Error("records were committed after the failure")
				}
				store.mu.Unlock()
				close(hang)
				synctest.Wait()
			})
		})
	}
}

// TestFailureKeepsWhatWasDurable: who was answered before stays so, and batches
// behind the failed one are not let through.
func TestFailureKeepsWhatWasDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		results := make(chan error) // of syncs
		store.sync = func(*fakeBatch) error { return <-results }
		e := NewEmbedded(store, time.Now, func([]*Record) {})
		errs := make([]error, 3)
		for i := range 3 {
			go func() { _, errs[i] = e.Append(context.Background(), record(fmt.Sprint(i))) }()
			synctest.Wait()
		}
		broken := errors.New("broken")
		results <- nil
		results <- broken
		synctest.Wait()
		if errs[0] != nil || !errors.Is(errs[1], broken) || !errors.Is(errs[2], broken) {
			t.Errorf("callers got %v", errs)
		}
		if store.visible() != 1 {
			t.Errorf("visible up to %d", store.visible())
		}
		if err := e.Close(); !errors.Is(err, broken) {
			t.Errorf("Close: %v", err)
		}
	})
}

// TestCloseDrains: what was taken is made durable, what comes later is refused.
func TestCloseDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		release := make(chan struct{})
		store.sync = func(*fakeBatch) error { <-release; return nil }
		e := NewEmbedded(store, time.Now, func([]*Record) {})
		errs := make([]error, 10)
		for i := range errs {
			go func() { _, errs[i] = e.Append(context.Background(), record(fmt.Sprint(i))) }()
		}
		synctest.Wait()
		closed := make(chan error, 2)
		go func() { closed <- e.Close() }()
		go func() { closed <- e.Close() }()
		synctest.Wait()
		if len(closed) != 0 {
			t.Fatal("Close did not wait for the disk")
		}
		if _, err := e.Append(context.Background(), record("late")); !errors.Is(err, ErrStopped) {
			t.Errorf("Append after Close: %v", err)
		}
		close(release)
		for range 2 {
			if err := <-closed; err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		synctest.Wait()
		for i, err := range errs {
			if err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		}
		if store.visible() != 10 || e.Err() != nil {
			t.Errorf("visible up to %d, Err %v", store.visible(), e.Err())
		}
	})
}

// TestCloseUnderLoad: each call is either answered, and stored, or refused.
func TestCloseUnderLoad(t *testing.T) {
	for range 50 {
		store := newFakeStore()
		e := NewEmbedded(store, time.Now, func([]*Record) {})
		var wg sync.WaitGroup
		var mu sync.Mutex
		acknowledged := map[string]bool{}
		started := make(chan struct{}, 8)
		for caller := range 8 {
			wg.Go(func() {
				for i := 0; ; i++ {
					text := fmt.Sprint(caller, i)
					if i == 3 {
						started <- struct{}{}
					}
					_, err := e.Append(context.Background(), record(text))
					if errors.Is(err, ErrStopped) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					acknowledged[text] = true
					mu.Unlock()
				}
			})
		}
		<-started
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		for text := range acknowledged {
			if n := store.seen[text]; n == 0 || n > store.durable {
				t.Fatalf("%s was acknowledged, its number is %d, durable up to %d", text, n, store.durable)
			}
		}
	}
}

// TestCancel: a caller who doesn't wait any longer returns at once; what he
// sent may be stored or not, and others are not disturbed.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		release := make(chan struct{})
		store.sync = func(*fakeBatch) error { <-release; return nil }
		e := NewEmbedded(store, time.Now, func([]*Record) {})
		ctx, cancel := context.WithCancel(context.Background())
		var impatient, patient error
		go func() { _, impatient = e.Append(ctx, record("impatient")) }()
		synctest.Wait()
		go func() { _, patient = e.Append(context.Background(), record("patient")) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !errors.Is(impatient, context.Canceled) {
			t.Errorf("Append: %v", impatient)
		}
		close(release)
		synctest.Wait()
		if patient != nil || store.visible() != 2 {
			t.Errorf("the other caller: %v, visible up to %d", patient, store.visible())
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestCancelWhenFull: a caller can leave while there is no place in the queue.
func TestCancelWhenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		release := make(chan struct{})
		store.commit = func(*fakeBatch) error { <-release; return nil }
		e := NewEmbedded(store, time.Now, func([]*Record) {})
		var wg sync.WaitGroup
		callers := maxBatchRecords + cap(e.requests) + 1
		for i := range callers {
			wg.Go(func() {
				if _, err := e.Append(context.Background(), record(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := e.Append(ctx, record("one too many")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Append: %v", err)
		}
		close(release)
		wg.Wait()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if len(store.committed) != callers {
			t.Errorf("%d stored of %d", len(store.committed), callers)
		}
	})
}

// TestNoRoom: without room records are refused, with it they are taken again.
func TestNoRoom(t *testing.T) {
	store := newFakeStore()
	e := NewEmbedded(store, time.Now, func([]*Record) {})
	defer e.Close()
	full := errors.New("full")
	for _, room := range []error{nil, full, full, nil} {
		store.room = room
		if _, err := e.Append(t.Context(), record("")); !errors.Is(err, room) {
			t.Errorf("Append: %v, want %v", err, room)
		}
	}
}

// TestBigNumbers: numbers of a store that has seen much.
func TestBigNumbers(t *testing.T) {
	store := newFakeStore()
	store.number, store.time = math.MaxInt64-10, math.MaxInt64-10
	e := NewEmbedded(store, time.Now, func([]*Record) {})
	defer e.Close()
	r := record("a")
	if _, err := e.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if r.Number != math.MaxInt64-9 || r.Time != math.MaxInt64-9 {
		t.Errorf("number %d, time %d", r.Number, r.Time)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			store := newFakeStore()
			store.apply = func(r *Record) error {
				store.mu.Lock()
				defer store.mu.Unlock()
				clear(store.seen)
				store.committed = store.committed[:0]
				return nil
			}
			e := NewEmbedded(store, time.Now, func([]*Record) {})
			defer e.Close()
			b.SetParallelism(callers)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := e.Append(context.Background(), record("x")); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
