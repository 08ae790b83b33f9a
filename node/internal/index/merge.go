package index

import (
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// Cursor is where to begin in a topic: with its first record above a number.
type Cursor struct {
	order.Topic
	After uint64
}

// Merge reads several topics as one: their records up to a number, in the order
// of numbers. It keeps a few bytes for each topic and no records. It is for one
// goroutine at a time and needs no closing.
type Merge struct {
	index   *Index
	through uint64
	unread  []Cursor // their first number isn't known yet
	heads   heads    // the others that have records left, by their next number
}

type head struct {
	topic  order.Topic
	number uint64
}

// mergeSeeks is how many topics one call of [Merge.Next] looks up, so that many
// topics without news don't keep the caller waiting.
const mergeSeeks = 4096

// Merge starts to read topics, each of which is named once.
func (x *Index) Merge(topics []Cursor, through uint64) *Merge {
	m := &Merge{index: x, through: min(through, x.Durable()), unread: make([]Cursor, 0, len(topics))}
	for _, c := range topics {
		if c.After < m.through && len(c.ID) <= maxTopicLength {
			m.unread = append(m.unread, c)
		}
	}
	// As the keys are: to seek forward costs less.
	slices.SortFunc(m.unread, func(a, b Cursor) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(len(a.ID), len(b.ID)), cmp.Compare(a.ID, b.ID))
	})
	return m
}

// Next returns further records, at most limit and maxBytes of payloads, but one
// in any case if there is one; and whether those were the last. There may be none
// although they were not: a call does no more than a bounded amount of work. Topics
// that are no longer wanted are left out from now on.
func (m *Merge) Next(wanted func(order.Topic) bool, limit, maxBytes int) (records []*order.Record, done bool, err error) {
	if len(m.unread) == 0 && len(m.heads) == 0 {
		return nil, true, nil
	}
	if err := m.index.read(); err != nil {
		return nil, false, err
	}
	defer m.index.closing.RUnlock()
	it, err := m.index.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte{prefixRecord},
		UpperBound: []byte{prefixRecord + 1},
	})
	if err != nil {
		return nil, false, fmt.Errorf("reading the store: %w", err)
	}
	defer func() {
		if closeErr := it.Close(); closeErr != nil && err == nil {
			records, done, err = nil, false, fmt.Errorf("reading the store: %w", closeErr)
		}
	}()
	if len(m.unread) > 0 {
		m.lookUp(it)
		if len(m.unread) > 0 {
			return nil, false, nil
		}
		heap.Init(&m.heads)
	}
	for size := 0; len(m.heads) > 0; {
		topic := m.heads[0].topic
		if !wanted(topic) {
			heap.Pop(&m.heads)
			continue
		}
		// This topic's records, until another topic has an earlier one.
		prefix, next, full := recordPrefix(topic), uint64(0), false
		for ok := it.SeekGE(recordKey(topic, m.heads[0].number)); ok && bytes.HasPrefix(it.Key(), prefix); ok = it.Next() {
			number := binary.BigEndian.Uint64(it.Key()[len(prefix):])
			if number > m.through {
				break
			}
			value, err := it.ValueAndErr()
			if err != nil {
				return nil, false, fmt.Errorf("reading the store: %w", err)
			}
			full = len(records) > 0 && (len(records) == limit || size+len(value) > maxBytes)
			if full || number > m.heads.second() {
				next = number
				break
			}
			size += len(value)
			r, err := order.ParseValue(topic, number, append(make([]byte, 0, len(value)), value...))
			if err != nil {
				return nil, false, err
			}
			records = append(records, r)
		}
		if next == 0 {
			heap.Pop(&m.heads)
		} else {
			m.heads[0].number = next
			heap.Fix(&m.heads, 0)
		}
		if full {
			return records, false, nil
		}
	}
	return records, true, nil
}

// lookUp finds the first number of some of the topics.
func (m *Merge) lookUp(it *pebble.Iterator) {
	n := min(len(m.unread), mergeSeeks)
	for _, c := range m.unread[:n] {
		prefix := recordPrefix(c.Topic)
		if it.SeekGE(recordKey(c.Topic, c.After+1)) && bytes.HasPrefix(it.Key(), prefix) {
			if number := binary.BigEndian.Uint64(it.Key()[len(prefix):]); number <= m.through {
				m.heads = append(m.heads, head{c.Topic, number})
			}
		}
	}
	if m.unread = m.unread[n:]; len(m.unread) == 0 {
		m.unread = nil
	}
}

// heads is a heap by number.
type heads []head

func (h heads) Len() int           { return len(h) }
func (h heads) Less(i, j int) bool { return h[i].number < h[j].number }
func (h heads) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *heads) Push(x any)        { *h = append(*h, x.(head)) }

func (h *heads) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// second is the least number but for that of the first.
func (h heads) second() uint64 {
	second := ^uint64(0)
	for _, other := range h[1:min(len(h), 3)] {
		second = min(second, other.number)
	}
	return second
}
