package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// What one step of a sweep does at most, so that neither writers nor the end of
// the node wait for it.
const (
	sweepRecords = 128
	sweepBytes   = 1 << 20
	sweepSeeks   = 256
	// sweepRun is how many neighbours are removed as one range: to readers a range
	// is one thing to skip, but each of them costs a little.
	sweepRun = 16
)

// Removed is what a sweep has removed.
type Removed struct {
	Records uint64
	Bytes   uint64 // of payloads and facts
}

// Sweep removes old messages of one kind. Commits and proposals stay: who was away
// needs them to follow his groups. With a message goes the note that it was
// published, so that the same bytes are a new message if they come again.
//
// A step is one batch. It is not synced: a crash brings back whole messages, which
// the next sweep removes again.
//
// Numbers don't come back, since the newest is stored apart from the records.
type Sweep struct {
	index   *Index
	kind    order.Kind
	after   uint64
	through uint64 // what was durable at the beginning
	before  uint64
	next    []byte // the first key that wasn't looked at
	reached uint64
}

// Sweep starts to remove the records of a kind that have a number above after and
// a time before before (in nanoseconds since the Unix epoch). The kind is
// [order.GroupMessage] or [order.Welcome].
func (x *Index) Sweep(kind order.Kind, after, before uint64) (*Sweep, error) {
	if kind != order.GroupMessage && kind != order.Welcome {
		return nil, fmt.Errorf("records of kind %d are kept for ever", kind)
	}
	return &Sweep{
		index:   x,
		kind:    kind,
		after:   after,
		through: x.Durable(),
		before:  before,
		next:    []byte{prefixRecord, byte(kind)},
		reached: after,
	}, nil
}

// Reached returns a number up to which nothing is left to remove once the sweep is
// done: the next one may start after it.
func (s *Sweep) Reached() uint64 { return s.reached }

// Next does a step, and tells whether it was the last. The error is
// [ErrDiskFull] if there is too little room even for removing.
func (s *Sweep) Next() (removed Removed, done bool, err error) {
	if !s.index.room.spare() {
		return Removed{}, false, ErrDiskFull
	}
	if err := s.index.read(); err != nil {
		return Removed{}, false, err
	}
	defer s.index.closing.RUnlock()
	b := s.index.db.NewBatch()
	removed, next, err := s.collect(b)
	if err == nil && removed.Records > 0 {
		// Not even a write that fails keeps the caller: see [failStop].
		err = s.index.await(func() error { return s.index.db.Apply(b, pebble.NoSync) })
	}
	if err != nil {
		return Removed{}, false, fmt.Errorf("removing records: %w", err)
	}
	s.next = next
	return removed, next == nil, b.Close()
}

// collect puts what a step removes into a batch, and returns where the next one
// starts; nil if it has come to the end.
func (s *Sweep) collect(b *pebble.Batch) (removed Removed, next []byte, err error) {
	it, err := s.index.db.NewIter(&pebble.IterOptions{
		LowerBound: s.next,
		UpperBound: []byte{prefixRecord, byte(s.kind) + 1},
	})
	if err != nil {
		return Removed{}, nil, err
	}
	defer func() {
		if closeErr := it.Close(); closeErr != nil && err == nil {
			err = closeErr
		}
	}()
	run := run{b: b}
	records, size, seeks := 0, 0, 0
	for ok := it.First(); ok; {
		topic, number, err := parseRecordKey(it.Key())
		if err != nil {
			return Removed{}, nil, err
		}
		if records == sweepRecords || size >= sweepBytes || seeks == sweepSeeks {
			next = append([]byte(nil), it.Key()...)
			break
		}
		if number <= s.after {
			seeks++
			ok = it.SeekGE(recordKey(topic, s.after+1))
			continue
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return Removed{}, nil, err
		}
		r, err := order.ParseValue(topic, number, value)
		if err != nil {
			return Removed{}, nil, err
		}
		if r.Time >= s.before || number > s.through {
			// All that follow in the topic are younger.
			seeks++
			ok = it.SeekGE(prefixEnd(recordPrefix(topic)))
			continue
		}
		s.reached = max(s.reached, number)
		records++
		size += len(value)
		kept, err := lasting(r)
		if err != nil {
			return Removed{}, nil, err
		}
		if kept {
			err = run.end()
		} else {
			removed.Records++
			removed.Bytes += uint64(len(r.Payload) + len(r.Facts))
			seen := seenKey(topic, r.Payload)
			if err = b.Delete(seen[:], nil); err == nil {
				err = run.add(topic, number)
			}
		}
		if err != nil {
			return Removed{}, nil, err
		}
		ok = it.Next()
	}
	return removed, next, run.end()
}

// lasting tells whether a record is kept however old it is.
func lasting(r *order.Record) (bool, error) {
	if r.Kind != order.GroupMessage {
		return false, nil
	}
	facts, err := order.ParseGroupFacts(r.Facts)
	return facts.Commit, err
}

// run are records of one topic that follow each other and are to be removed.
// Nothing gets in between any more, since numbers only grow.
type run struct {
	b       *pebble.Batch
	topic   order.Topic
	numbers []uint64
}

func (r *run) add(topic order.Topic, number uint64) error {
	if topic != r.topic {
		if err := r.end(); err != nil {
			return err
		}
	}
	r.topic = topic
	r.numbers = append(r.numbers, number)
	return nil
}

func (r *run) end() error {
	numbers := r.numbers
	r.numbers = r.numbers[:0]
	if len(numbers) >= sweepRun {
		return r.b.DeleteRange(recordKey(r.topic, numbers[0]), recordKey(r.topic, numbers[len(numbers)-1]+1), nil)
	}
	for _, number := range numbers {
		if err := r.b.Delete(recordKey(r.topic, number), nil); err != nil {
			return err
		}
	}
	return nil
}

// parseRecordKey is the reverse of [recordKey].
func parseRecordKey(key []byte) (order.Topic, uint64, error) {
	if len(key) < 3 || len(key) != 3+int(key[2])+8 {
		return order.Topic{}, 0, fmt.Errorf("%w: a record's key of %d bytes", ErrDamaged, len(key))
	}
	id := key[3 : 3+int(key[2])]
	return order.Topic{Kind: order.Kind(key[1]), ID: string(id)}, binary.BigEndian.Uint64(key[3+len(id):]), nil
}

// reclaimBytes is about how much of the store one step of Reclaim works on, so
// that it is over soon.
const reclaimBytes = 128 << 20

// Size returns how many bytes of the disk the store uses. Files that are about to
// be deleted don't count.
func (x *Index) Size() uint64 {
	if x.read() != nil {
		return 0
	}
	defer x.closing.RUnlock()
	m := x.db.Metrics()
	return uint64(m.Total().TablesSize) + m.WAL.Size
}

// Reclaim gives back the space of what sweeps have removed. The store does so by
// itself, too, but not before it has been written to for long. It writes anew what
// has stayed beside that, and is worth it when much has gone.
type Reclaim struct {
	index *Index
	steps [][2][]byte // ranges of keys
}

// Reclaim starts to give back space.
func (x *Index) Reclaim() (*Reclaim, error) {
	if err := x.read(); err != nil {
		return nil, err
	}
	defer x.closing.RUnlock()
	levels, err := x.db.SSTables()
	if err != nil {
		return nil, fmt.Errorf("reclaiming space: %w", err)
	}
	// Most of the store is in the last level, whose tables don't overlap.
	r := &Reclaim{index: x}
	for _, prefix := range []byte{prefixRecord, prefixSeen} {
		start, size := []byte{prefix}, uint64(0)
		for _, table := range levels[len(levels)-1] {
			key := table.Largest.UserKey
			if size += table.Size; size >= reclaimBytes && len(key) > 0 && key[0] == prefix && bytes.Compare(start, key) < 0 {
				r.steps = append(r.steps, [2][]byte{start, key})
				start, size = key, 0
			}
		}
		r.steps = append(r.steps, [2][]byte{start, {prefix + 1}})
	}
	return r, nil
}

// Next does a step, and tells whether it was the last.
func (r *Reclaim) Next(ctx context.Context) (done bool, err error) {
	if len(r.steps) == 0 {
		return true, nil
	}
	if err := r.index.read(); err != nil {
		return false, err
	}
	defer r.index.closing.RUnlock()
	step := r.steps[0]
	if err := r.index.await(func() error { return r.index.db.Compact(ctx, step[0], step[1], false) }); err != nil {
		return false, fmt.Errorf("reclaiming space: %w", err)
	}
	r.steps = r.steps[1:]
	return len(r.steps) == 0, nil
}
