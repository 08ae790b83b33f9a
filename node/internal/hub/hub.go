// Package hub tells subscribers what is new. It hands over records while a
// subscriber keeps up; one that doesn't is told which topics to read from the
// index instead. So nothing is lost, and a slow reader costs a bounded amount
// of memory and disturbs nobody.
package hub

import (
	"context"
	"iter"
	"slices"
	"sync"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// Limits of what is held for one subscriber.
const (
	maxQueued      = 256
	maxQueuedBytes = 1 << 20
)

// Hub is safe for use by several goroutines.
type Hub struct {
	mu     sync.RWMutex
	topics map[order.Topic]watchers
}

// watchers of a topic. There can be millions of topics, and most have one watcher
// at a time.
type watchers struct {
	first *Subscription              // never nil
	more  map[*Subscription]struct{} // the others
}

// New returns a hub without subscribers.
func New() *Hub {
	return &Hub{topics: map[order.Topic]watchers{}}
}

// Publish offers records, which are durable and visible, to the subscribers of
// their topics. It is called in the order of the records and doesn't block.
func (h *Hub) Publish(records []*order.Record) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, r := range records {
		w, ok := h.topics[r.Topic]
		if !ok {
			continue
		}
		w.first.offer(r)
		for s := range w.more {
			s.offer(r)
		}
	}
}

// Topics returns how many topics somebody watches.
func (h *Hub) Topics() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.topics)
}

// Subscribe returns a subscription without topics. Close it.
func (h *Hub) Subscribe() *Subscription {
	return &Subscription{
		hub:     h,
		lagging: map[order.Topic]struct{}{},
		wake:    make(chan struct{}, 1),
	}
}

// Subscription collects what is new in some topics for one reader.
type Subscription struct {
	hub  *Hub
	wake chan struct{} // holds a token while there may be something to take

	mu      sync.Mutex
	queue   []*order.Record
	bytes   int
	lagging map[order.Topic]struct{} // not empty: nothing is queued any more
	through uint64
}

// addAtOnce is how many topics are added or removed under one lock, which
// keeps publishers waiting.
const addAtOnce = 1024

// Add begins to watch topics. What was stored before the reader takes from the
// index, after the call: so nothing falls in between.
func (s *Subscription) Add(topics ...order.Topic) { s.each(topics, s.hub.join) }

// Remove ends to watch topics. News of them that wait to be taken still come.
func (s *Subscription) Remove(topics ...order.Topic) { s.each(topics, s.hub.leave) }

func (s *Subscription) each(topics []order.Topic, do func(order.Topic, *Subscription)) {
	for chunk := range slices.Chunk(topics, addAtOnce) {
		s.hub.mu.Lock()
		for _, topic := range chunk {
			do(topic, s)
		}
		s.hub.mu.Unlock()
	}
}

// Close ends the subscription. It watches none but these topics, which its reader
// knows anyway. Nothing else must be called any more.
func (s *Subscription) Close(topics iter.Seq[order.Topic]) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	for topic := range topics {
		s.hub.leave(topic, s)
	}
}

// join is called with the lock held.
func (h *Hub) join(topic order.Topic, s *Subscription) {
	w := h.topics[topic]
	switch {
	case w.first == nil:
		h.topics[topic] = watchers{first: s}
	case w.first == s:
	case w.more == nil:
		h.topics[topic] = watchers{w.first, map[*Subscription]struct{}{s: {}}}
	default:
		w.more[s] = struct{}{}
	}
}

// leave is called with the lock held.
func (h *Hub) leave(topic order.Topic, s *Subscription) {
	w := h.topics[topic]
	if w.first != s {
		delete(w.more, s)
		return
	}
	for next := range w.more {
		delete(w.more, next)
		h.topics[topic] = watchers{next, w.more}
		return
	}
	delete(h.topics, topic)
}

func (s *Subscription) offer(r *order.Record) {
	s.mu.Lock()
	size := len(r.Payload) + len(r.Facts)
	if len(s.lagging) > 0 || len(s.queue) >= maxQueued || s.bytes+size > maxQueuedBytes {
		s.lagging[r.Topic] = struct{}{}
	} else {
		s.queue = append(s.queue, r)
		s.bytes += size
	}
	s.through = r.Number
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// News is what a subscriber has to deliver: first the records; then, up to the
// number Through, everything above those in the lagging topics, which is in the
// index. Read so, and the lagging topics in the order of their records, all
// news are in the order of numbers, over all topics.
type News struct {
	Records []*order.Record
	Lagging []order.Topic
	Through uint64
}

// Wake receives when there may be news to take.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

// Take returns the news since the last call, and whether there are any.
func (s *Subscription) Take() (News, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 && len(s.lagging) == 0 {
		return News{}, false
	}
	news := News{Records: s.queue, Through: s.through}
	for topic := range s.lagging {
		news.Lagging = append(news.Lagging, topic)
	}
	s.queue, s.bytes = nil, 0
	clear(s.lagging)
	return news, true
}

// Next waits for news. The error is the cause of ctx's end.
func (s *Subscription) Next(ctx context.Context) (News, error) {
	for {
		if news, ok := s.Take(); ok {
			return news, nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return News{}, context.Cause(ctx)
		}
	}
}
