// Package hub tells subscribers what is new. It hands over records while a
// subscriber keeps up; one that doesn't is told which topics to read from the
// index instead. So nothing is lost, and a slow reader costs a bounded amount
// of memory and disturbs nobody.
package hub

import (
	"context"
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
	topics map[order.Topic]map[*Subscription]struct{}
}

// New returns a hub without subscribers.
func New() *Hub {
	return &Hub{topics: map[order.Topic]map[*Subscription]struct{}{}}
}

// Publish offers records, which are durable and visible, to the subscribers of
// their topics. It is called in the order of the records and doesn't block.
func (h *Hub) Publish(records []*order.Record) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, r := range records {
		for s := range h.topics[r.Topic] {
			s.offer(r)
		}
	}
}

// Subscribe returns a subscription without topics. Close it.
func (h *Hub) Subscribe() *Subscription {
	return &Subscription{
		hub:     h,
		topics:  map[order.Topic]struct{}{},
		lagging: map[order.Topic]struct{}{},
		wake:    make(chan struct{}, 1),
	}
}

// Subscription collects what is new in some topics for one reader.
type Subscription struct {
	hub  *Hub
	wake chan struct{} // holds a token while there may be something to take

	topics map[order.Topic]struct{} // guarded by the hub's lock

	mu      sync.Mutex
	queue   []*order.Record
	bytes   int
	lagging map[order.Topic]struct{}
}

// Add begins to watch topics. They are lagging at first: the reader takes what
// is stored from the index, which misses nothing since the topic is already watched.
func (s *Subscription) Add(topics ...order.Topic) {
	s.hub.mu.Lock()
	for _, topic := range topics {
		subscribers := s.hub.topics[topic]
		if subscribers == nil {
			subscribers = map[*Subscription]struct{}{}
			s.hub.topics[topic] = subscribers
		}
		subscribers[s] = struct{}{}
		s.topics[topic] = struct{}{}
	}
	s.hub.mu.Unlock()
	s.mu.Lock()
	for _, topic := range topics {
		s.lagging[topic] = struct{}{}
	}
	s.mu.Unlock()
	s.signal()
}

// Close ends the subscription. Next must not be called any more.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	for topic := range s.topics {
		subscribers := s.hub.topics[topic]
		delete(subscribers, s)
		if len(subscribers) == 0 {
			delete(s.hub.topics, topic)
		}
	}
}

func (s *Subscription) offer(r *order.Record) {
	s.mu.Lock()
	size := len(r.Payload) + len(r.Facts)
	_, behind := s.lagging[r.Topic]
	switch {
	case behind:
	case len(s.queue) >= maxQueued || s.bytes+size > maxQueuedBytes:
		s.lagging[r.Topic] = struct{}{}
	default:
		s.queue = append(s.queue, r)
		s.bytes += size
	}
	s.mu.Unlock()
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// News is what a subscriber has to deliver: first everything in the lagging
// topics, read from the index, then the records. Records that were delivered
// with a lagging topic may come once more; the reader knows by their numbers.
type News struct {
	Lagging []order.Topic
	Records []*order.Record
}

// Next waits for news. The error is the cause of ctx's end.
func (s *Subscription) Next(ctx context.Context) (News, error) {
	for {
		s.mu.Lock()
		news := News{Records: s.queue}
		for topic := range s.lagging {
			news.Lagging = append(news.Lagging, topic)
		}
		s.queue, s.bytes = nil, 0
		clear(s.lagging)
		s.mu.Unlock()
		if len(news.Records) > 0 || len(news.Lagging) > 0 {
			return news, nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return News{}, context.Cause(ctx)
		}
	}
}
