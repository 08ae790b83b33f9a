package index

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// Page says which records of a topic to read.
type Page struct {
	// Cursor is exclusive. Ascending from 0 begins with the oldest record,
	// descending from 0 with the newest.
	Cursor     uint64
	Descending bool
	// Limit bounds how many records are returned, and MaxBytes their payloads;
	// but one record is returned in any case, however big.
	Limit    int
	MaxBytes int
}

// Records returns a page of a topic's records, and whether it was cut short by
// MaxBytes. An unknown topic has none.
func (x *Index) Records(topic order.Topic, page Page) (records []*order.Record, cut bool, err error) {
	if len(topic.ID) > maxTopicLength {
		return nil, false, nil
	}
	lower, upper := uint64(1), x.Durable()
	if page.Descending {
		if page.Cursor > 0 {
			upper = min(upper, page.Cursor-1)
		}
	} else if page.Cursor == math.MaxUint64 {
		return nil, false, nil
	} else {
		lower = page.Cursor + 1
	}
	if lower > upper {
		return nil, false, nil
	}
	if err := x.read(); err != nil {
		return nil, false, err
	}
	defer x.closing.RUnlock()
	prefix := recordPrefix(topic)
	it, err := x.db.NewIter(&pebble.IterOptions{
		LowerBound: recordKey(topic, lower),
		UpperBound: recordKey(topic, upper+1),
	})
	if err != nil {
		return nil, false, fmt.Errorf("reading the store: %w", err)
	}
	defer func() {
		if closeErr := it.Close(); closeErr != nil && err == nil {
			records, err = nil, fmt.Errorf("reading the store: %w", closeErr)
		}
	}()
	size := 0
	var copies slab
	first, next := it.First, it.Next
	if page.Descending {
		first, next = it.Last, it.Prev
	}
	for ok := first(); ok && len(records) < page.Limit; ok = next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, false, fmt.Errorf("reading the store: %w", err)
		}
		size += len(value)
		if size > page.MaxBytes && len(records) > 0 {
			return records, true, nil
		}
		value = copies.copy(value)
		number := binary.BigEndian.Uint64(it.Key()[len(prefix):])
		r, err := order.ParseValue(topic, number, value)
		if err != nil {
			return nil, false, err
		}
		records = append(records, r)
	}
	return records, false, nil
}

// maxSlab is the most that a slab allocates at once for more than one value.
const maxSlab = 128 << 10

// A slab copies values that are used together, into few allocations.
type slab struct {
	rest []byte
	size int // of the latest allocation
}

func (s *slab) copy(value []byte) []byte {
	if len(value) > len(s.rest) {
		s.size = max(len(value), min(2*s.size, maxSlab))
		s.rest = make([]byte, s.size)
	}
	n := copy(s.rest, value)
	value, s.rest = s.rest[:n:n], s.rest[n:]
	return value
}

// Newest returns the newest record of a topic, nil if there is none.
func (x *Index) Newest(topic order.Topic) (*order.Record, error) {
	records, _, err := x.Records(topic, Page{Descending: true, Limit: 1})
	if err != nil || len(records) == 0 {
		return nil, err
	}
	return records[0], nil
}

// KeyPackage returns an installation's newest key package, nil if there is none.
func (x *Index) KeyPackage(ctx context.Context, installation string) (*order.Record, error) {
	if len(installation) > maxTopicLength {
		return nil, nil
	}
	value, err := x.get(keyPackageKey(installation))
	if err != nil || value == nil {
		return nil, err
	}
	r, err := parseKeyPackage(order.Topic{Kind: order.KeyPackage, ID: installation}, value)
	if err != nil {
		return nil, err
	}
	// It replaced the one before, so that there is nothing to show until it is durable.
	return r, x.awaitDurable(ctx, r.Number)
}
