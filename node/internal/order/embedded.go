package order

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Outcome is what became of one record.
type Outcome struct {
	// Number is the record's, or that of the equal record that was there before.
	Number uint64
	// Err says why the record was refused; it then has no number.
	Err error
}

// Store keeps ordered records and the state that is folded from them.
type Store interface {
	// Last returns the number and time of the newest record.
	Last() (number, time uint64)
	// NewBatch starts a group of records that become durable together. It sees
	// everything that was committed before, durable or not.
	NewBatch() Batch
	// Advance lets readers see everything up to the number, which is durable.
	Advance(number uint64)
	// HasRoom returns an error while records can't be taken, for want of disk space.
	HasRoom() error
}

// Batch is used by one goroutine at a time.
type Batch interface {
	// Apply folds the record into the state if it fits. Stored tells whether
	// it, and so its number and time, was taken.
	Apply(*Record) (outcome Outcome, stored bool, err error)
	// Commit hands the batch to the log without waiting for the disk.
	Commit() error
	// Wait returns when the batch is durable. It ends the batch.
	Wait() error
}

// ErrStopped is returned for records that were not taken because the order has ended.
var ErrStopped = errors.New("the node is shutting down")

// Limits of one batch: enough to share a sync among many, small enough to
// start the next one soon.
const (
	maxBatchRecords = 1024
	maxBatchBytes   = 8 << 20
)

// Embedded is the order of a single node. One goroutine numbers what is
// waiting and commits it as a batch; while that batch is being synced, the
// next one is built. It grows until the disk is free: what a batch and a sync
// cost is shared by as many records as can be.
type Embedded struct {
	store   Store
	now     func() time.Time
	deliver func([]*Record)

	requests chan *request
	free     chan struct{} // holds a token while nothing is being synced
	stop     chan struct{} // closed by Close
	ended    chan struct{} // closed when nobody is answered any more

	mu     sync.Mutex
	failed error // set once, before ended is closed
}

// request is a caller's records, which stay together.
type request struct {
	records  []*Record
	outcomes []Outcome
	done     chan struct{}
}

// flight is a batch on its way to the disk.
type flight struct {
	batch    Batch
	requests []*request
	records  []*Record
	last     uint64
	err      error // why the batch could not be committed
}

// NewEmbedded starts an order over the store. Deliver is called with the
// records of each batch once they are durable and visible, in order, and must
// not block. Close it to end its goroutines.
func NewEmbedded(store Store, now func() time.Time, deliver func([]*Record)) *Embedded {
	e := &Embedded{
		store:    store,
		now:      now,
		deliver:  deliver,
		requests: make(chan *request, maxBatchRecords),
		free:     make(chan struct{}, 1),
		stop:     make(chan struct{}),
		ended:    make(chan struct{}),
	}
	e.free <- struct{}{}
	flights := make(chan *flight, 1)
	go e.write(flights)
	go e.sync(flights)
	return e
}

// Append orders the records, next to each other, and returns when they are
// durable and visible, with one outcome each. If ctx ends first they may or
// may not have been stored. The error is [ErrStopped], ctx's, or why the
// records could not be made durable.
func (e *Embedded) Append(ctx context.Context, records ...*Record) ([]Outcome, error) {
	if err := e.store.HasRoom(); err != nil {
		return nil, err
	}
	r := &request{records: records, done: make(chan struct{})}
	select {
	case <-e.stop:
		return nil, e.stopped()
	default:
	}
	select {
	case e.requests <- r:
	case <-e.stop:
		return nil, e.stopped()
	case <-e.ended:
		return nil, e.stopped()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-r.done:
		return r.outcomes, nil
	case <-e.ended:
		// It may have been answered just before the end.
		select {
		case <-r.done:
			return r.outcomes, nil
		default:
			return nil, e.stopped()
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Waiting returns how many requests wait to be ordered.
func (e *Embedded) Waiting() int { return len(e.requests) }

// Close refuses new records, makes those that were taken durable and returns
// when the goroutines have ended, or at once if the order has failed: the store
// may hold them then. It returns the error that ended the order, if any.
func (e *Embedded) Close() error {
	e.mu.Lock()
	select {
	case <-e.stop:
	default:
		close(e.stop)
	}
	e.mu.Unlock()
	<-e.ended
	return e.Err()
}

// Done is closed when the order has ended, by Close or by a failure.
func (e *Embedded) Done() <-chan struct{} { return e.ended }

// Err returns the failure that ended the order.
func (e *Embedded) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failed
}

// Fail ends the order with an error, without waiting for the store, which may
// never return. Records that are under way may or may not have been stored.
func (e *Embedded) Fail(err error) { e.end(err) }

// end lets nobody wait any longer. The first call says why.
func (e *Embedded) end(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.ended:
		return
	default:
	}
	if err != nil {
		e.failed = fmt.Errorf("records could not be made durable: %w", err)
	}
	close(e.ended)
}

// errGaveUp is why the order ends when the store ends the goroutine that called it.
var errGaveUp = errors.New("the store gave up")

func (e *Embedded) stopped() error {
	if err := e.Err(); err != nil {
		return err
	}
	return ErrStopped
}

// write numbers and commits what is waiting until Close, then what is left.
func (e *Embedded) write(flights chan<- *flight) {
	finished := false
	defer func() {
		if !finished {
			e.end(errGaveUp)
		}
		close(flights)
	}()
	number, clock := e.store.Last()
	for {
		first := e.next()
		if first == nil {
			break
		}
		f := e.build(first, &number, &clock)
		if f == nil {
			break
		}
		flights <- f // there is room: the one before has been synced
		if f.err != nil {
			break
		}
	}
	finished = true
}

// next waits for a request; nil means that there won't be any more.
func (e *Embedded) next() *request {
	select {
	case <-e.ended:
		return nil
	default:
	}
	select {
	case r := <-e.requests:
		return r
	case <-e.ended:
		return nil
	case <-e.stop:
		select {
		case r := <-e.requests:
			return r
		default:
			return nil
		}
	}
}

// build puts waiting requests into one batch, until nothing is being synced any
// more or the batch is full, and commits it. It returns nil if the order has ended.
func (e *Embedded) build(next *request, number, clock *uint64) *flight {
	f := &flight{batch: e.store.NewBatch()}
	count, size := 0, 0
	for next != nil {
		f.requests = append(f.requests, next)
		next.outcomes = make([]Outcome, len(next.records))
		for i, r := range next.records {
			r.Number = *number + 1
			r.Time = max(*clock+1, uint64(max(e.now().UnixNano(), 0)))
			outcome, stored, err := f.batch.Apply(r)
			if err != nil {
				f.err = fmt.Errorf("applying record %d: %w", r.Number, err)
				break
			}
			next.outcomes[i] = outcome
			if stored {
				*number, *clock = r.Number, r.Time
				f.records = append(f.records, r)
			}
			count++
			size += len(r.Payload) + len(r.Facts)
		}
		var ended bool
		if next, ended = e.another(f.err == nil && count < maxBatchRecords && size < maxBatchBytes); ended {
			return nil
		}
	}
	f.last = *number
	if f.err == nil {
		f.err = f.batch.Commit()
	}
	return f
}

// another waits for one more request while there is room for it, or for the
// disk. Then there is none; the disk is the caller's.
func (e *Embedded) another(room bool) (next *request, ended bool) {
	var requests <-chan *request
	if room {
		requests = e.requests
	}
	select {
	case next = <-requests:
		return next, false
	default:
	}
	select {
	case next = <-requests:
		return next, false
	case <-e.free:
		return nil, false
	case <-e.ended:
		return nil, true
	}
}

// sync waits for each batch to be durable, lets readers see it and answers its
// callers. The first failure ends the order: what the disk holds then is not
// known, and trying again could make it look as if it were.
func (e *Embedded) sync(flights <-chan *flight) {
	defer e.end(errGaveUp)
	for f := range flights {
		err := f.err
		if err == nil {
			err = f.batch.Wait()
		}
		if err != nil {
			e.end(err)
			return
		}
		e.free <- struct{}{}
		e.store.Advance(f.last)
		for _, r := range f.requests {
			close(r.done)
		}
		if len(f.records) > 0 {
			e.deliver(f.records)
		}
	}
	e.end(nil)
}
