package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func topic(i int) order.Topic {
	return order.Topic{Kind: order.GroupMessage, ID: fmt.Sprint("topic ", i)}
}

// zeros is what payloads are parts of: only their length matters.
var zeros = make([]byte, maxQueuedBytes+1)

// log is what an index would hold: what is published is there first.
type log struct {
	mu      sync.Mutex
	number  uint64
	records map[order.Topic][]*order.Record
}

func newLog() *log { return &log{records: map[order.Topic][]*order.Record{}} }

func (l *log) add(t order.Topic, payload []byte) *order.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	r := &order.Record{Topic: t, Number: l.number, Payload: payload}
	l.records[t] = append(l.records[t], r)
	return r
}

// after returns up to limit records of the topic with a number above the cursor.
func (l *log) after(t order.Topic, cursor uint64, limit int) []*order.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []*order.Record
	for _, r := range l.records[t] {
		if r.Number > cursor && len(found) < limit {
			found = append(found, r)
		}
	}
	return found
}

// reader delivers as the node's streams do.
type reader struct {
	log       *log
	cursors   map[order.Topic]uint64
	delivered map[order.Topic][]uint64
	bySize    int    // how many came from the queue
	last      uint64 // the newest of the news
}

func newReader(l *log) *reader {
	return &reader{log: l, cursors: map[order.Topic]uint64{}, delivered: map[order.Topic][]uint64{}}
}

func (r *reader) deliver(record *order.Record) bool {
	if record.Number <= r.cursors[record.Topic] {
		return false
	}
	r.cursors[record.Topic] = record.Number
	r.delivered[record.Topic] = append(r.delivered[record.Topic], record.Number)
	return true
}

// add watches a topic from a cursor on and delivers what is stored.
func (r *reader) add(s *Subscription, t order.Topic, cursor uint64) {
	r.cursors[t] = cursor
	s.Add(t)
	for _, record := range r.log.after(t, cursor, 1<<30) {
		r.deliver(record)
	}
}

// missed is what the lagging topics have up to Through, in the order of numbers.
func (r *reader) missed(news News) []*order.Record {
	var records []*order.Record
	queued := uint64(0)
	if n := len(news.Records); n > 0 {
		queued = news.Records[n-1].Number
	}
	for _, t := range news.Lagging {
		for _, record := range r.log.after(t, max(r.cursors[t], queued), 1<<30) {
			if record.Number <= news.Through {
				records = append(records, record)
			}
		}
	}
	slices.SortFunc(records, func(a, b *order.Record) int { return cmp.Compare(a.Number, b.Number) })
	return records
}

// news delivers one of the news, which must come in the order of numbers over all topics.
func (r *reader) news(t fatal, record *order.Record) {
	if record.Number <= r.last {
		t.Fatalf("record %d after %d", record.Number, r.last)
	}
	r.last = record.Number
	r.deliver(record)
}

func (r *reader) take(t fatal, news News) {
	for _, record := range news.Records {
		r.news(t, record)
		r.bySize++
	}
	for _, record := range r.missed(news) {
		r.news(t, record)
	}
}

type fatal interface{ Fatalf(string, ...any) }

// check fails unless everything in the topics, above the cursors at which they
// were added, was delivered once and in order.
func (r *reader) check(t fatal, from map[order.Topic]uint64) {
	for topic, start := range from {
		var want []uint64
		for _, record := range r.log.after(topic, start, 1<<30) {
			want = append(want, record.Number)
		}
		if fmt.Sprint(r.delivered[topic]) != fmt.Sprint(want) {
			t.Fatalf("%s: delivered %v, want %v", topic.ID, r.delivered[topic], want)
		}
	}
}

var errNone = errors.New("no news")

// TestDelivery checks any interleaving of publishing, adding topics and of the
// steps of a reader, who may be slow, against the log: each record of a watched
// topic comes once and in order, and what is held is bounded at all times.
func TestDelivery(t *testing.T) {
	none, cancel := context.WithCancelCause(context.Background())
	cancel(errNone)
	rapid.Check(t, func(t *rapid.T) {
		h, l := New(), newLog()
		s := h.Subscribe()
		r := newReader(l)
		from := map[order.Topic]uint64{}
		defer s.Close(maps.Keys(from))
		var pending []*order.Record
		publish := func(t *rapid.T, n, size int) {
			var records []*order.Record
			for range n {
				records = append(records, l.add(topic(rapid.IntRange(0, 3).Draw(t, "topic")), zeros[:size]))
			}
			h.Publish(records)
		}
		step := func(t *rapid.T) bool {
			if len(pending) == 0 {
				news, err := s.Next(none)
				if errors.Is(err, errNone) {
					return false
				}
				if err != nil {
					t.Fatalf("Next: %v", err)
				}
				pending = append(news.Records, r.missed(news)...)
			}
			if len(pending) > 0 {
				r.news(t, pending[0])
				pending = pending[1:]
			}
			return true
		}
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				publish(t, rapid.IntRange(1, 5).Draw(t, "records"), 10)
			},
			"publish many": func(t *rapid.T) {
				publish(t, maxQueued, 1)
			},
			"publish big": func(t *rapid.T) {
				publish(t, 3, rapid.SampledFrom([]int{maxQueuedBytes / 2, maxQueuedBytes, maxQueuedBytes + 1}).Draw(t, "size"))
			},
			"add": func(t *rapid.T) {
				tp := topic(rapid.IntRange(0, 3).Draw(t, "topic"))
				if _, ok := from[tp]; ok {
					s.Add(tp) // does no harm
					return
				}
				from[tp] = rapid.Uint64Range(0, l.number).Draw(t, "cursor")
				r.add(s, tp, from[tp])
			},
			"remove": func(t *rapid.T) {
				tp := topic(rapid.IntRange(0, 3).Draw(t, "topic"))
				for step(t) {
				}
				s.Remove(tp)
				delete(from, tp)
				delete(r.delivered, tp)
				h.Publish([]*order.Record{l.add(tp, nil)})
				if news, ok := s.Take(); ok {
					t.Fatalf("news of a topic that was removed: %+v", news)
				}
			},
			"read": func(t *rapid.T) { step(t) },
			"": func(t *rapid.T) {
				if len(s.queue) > maxQueued || s.bytes > maxQueuedBytes {
					t.Fatalf("%d records of %d bytes are held", len(s.queue), s.bytes)
				}
				size := 0
				for _, record := range s.queue {
					size += len(record.Payload)
				}
				if size != s.bytes {
					t.Fatalf("%d bytes are held, counted %d", size, s.bytes)
				}
			},
		})
		for step(t) {
		}
		r.check(t, from)
	})
}

// TestConcurrent: publishers (one at a time, as the order calls), many readers
// that come, add topics and go.
func TestConcurrent(t *testing.T) {
	const topics, readers, records = 5, 12, 3000
	h, l := New(), newLog()
	ctx, cancel := context.WithCancelCause(t.Context())
	var publishing, reading sync.WaitGroup
	for i := range readers {
		reading.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for round := 0; ; round++ {
				s := h.Subscribe()
				r := newReader(l)
				from := map[order.Topic]uint64{}
				add := func() {
					tp := topic(rng.IntN(topics))
					if _, ok := from[tp]; !ok {
						l.mu.Lock()
						from[tp] = rng.Uint64N(l.number + 1)
						l.mu.Unlock()
						r.add(s, tp, from[tp])
					}
				}
				add()
				stay := rng.IntN(200)
				if i == 0 {
					stay = 1 << 30 // to the end
				}
				for turn := 0; turn < stay; turn++ {
					news, err := s.Next(ctx)
					if err != nil {
						if !errors.Is(err, errNone) {
							t.Errorf("Next: %v", err)
						}
						// All has been published: nothing more may be waiting.
						r.check(fataler{t}, from)
						s.Close(maps.Keys(from))
						return
					}
					r.take(fataler{t}, news)
					if rng.IntN(10) == 0 {
						add()
					}
					if rng.IntN(50) == 0 {
						for range 100 {
							runtime.Gosched()
						}
					}
				}
				s.Close(maps.Keys(from))
			}
		})
	}
	publishing.Go(func() {
		rng := rand.New(rand.NewPCG(2, 2))
		for n := 0; n < records; {
			var batch []*order.Record
			for range 1 + rng.IntN(20) {
				size := 10
				if rng.IntN(100) == 0 {
					size = maxQueuedBytes / 3
				}
				batch = append(batch, l.add(topic(rng.IntN(topics)), zeros[:size]))
				n++
			}
			h.Publish(batch)
		}
	})
	publishing.Wait()
	cancel(errNone)
	reading.Wait()
	if len(h.topics) != 0 {
		t.Errorf("%d topics are still watched by nobody", len(h.topics))
	}
}

type fataler struct{ *testing.T }

func (f fataler) Fatalf(format string, args ...any) { f.Errorf(format, args...) }

// TestSlowReader: a reader that never takes anything holds a bounded amount
// and makes no difference to others.
func TestSlowReader(t *testing.T) {
	h, l := New(), newLog()
	slow, quick := h.Subscribe(), h.Subscribe()
	slow.Add(topic(0), topic(1))
	quick.Add(topic(0), topic(1))
	r := newReader(l)
	from := map[order.Topic]uint64{topic(0): 0, topic(1): 0}
	defer slow.Close(maps.Keys(from))
	defer quick.Close(maps.Keys(from))
	for i := range 10 * maxQueued {
		h.Publish([]*order.Record{l.add(topic(i%2), zeros[:1000])})
		news, err := quick.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.take(t, news)
	}
	r.check(t, from)
	if r.bySize != 10*maxQueued {
		t.Errorf("the quick reader got %d records from the queue", r.bySize)
	}
	if len(slow.queue) != maxQueued || slow.bytes > maxQueuedBytes || len(slow.lagging) != 2 {
		t.Errorf("%d records, %d bytes, %d topics lagging", len(slow.queue), slow.bytes, len(slow.lagging))
	}
	late := newReader(l)
	news, err := slow.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	late.take(t, news)
	late.check(t, from)
}

// TestNextWaits: Next returns when there is something, and not before.
func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := New(), newLog()
		s := h.Subscribe()
		got := make(chan News, 1)
		next := func() {
			go func() {
				news, err := s.Next(context.Background())
				if err != nil {
					t.Error(err)
				}
				got <- news
			}()
			synctest.Wait()
		}
		next()
		if len(got) != 0 {
			t.Fatal("news without a topic")
		}
		s.Add(topic(1))
		h.Publish([]*order.Record{l.add(topic(2), nil)})
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("news of a topic that is not watched")
		}
		r := l.add(topic(1), nil)
		h.Publish([]*order.Record{r})
		if news := <-got; len(news.Lagging) != 0 || len(news.Records) != 1 || news.Records[0] != r {
			t.Fatalf("after Publish: %+v", news)
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		ended := make(chan error)
		go func() { _, err := s.Next(ctx); ended <- err }()
		synctest.Wait()
		cancel(errNone)
		if err := <-ended; !errors.Is(err, errNone) {
			t.Errorf("Next after its context: %v", err)
		}
		s.Close(slices.Values([]order.Topic{topic(1)}))
		h.Publish([]*order.Record{l.add(topic(1), nil)})
		if len(s.queue) != 0 || len(h.topics) != 0 {
			t.Error("a closed subscription is still served")
		}
	})
}

func BenchmarkPublish(b *testing.B) {
	for _, subscribers := range []int{1, 100} {
		b.Run(fmt.Sprintf("subscribers=%d", subscribers), func(b *testing.B) {
			h := New()
			for range subscribers {
				s := h.Subscribe()
				defer s.Close(slices.Values([]order.Topic{topic(0)}))
				s.Add(topic(0))
			}
			records := []*order.Record{{Topic: topic(0), Number: 1, Payload: make([]byte, 100)}}
			b.ReportAllocs()
			for b.Loop() {
				h.Publish(records)
			}
		})
	}
}
