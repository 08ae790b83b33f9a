package index

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

func anyTopic(order.Topic) bool { return true }

// merged takes everything from a merge, with a bound on what comes at once.
func merged(t tester, m *Merge, wanted func(order.Topic) bool, limit, maxBytes int) (all []*order.Record) {
	t.Helper()
	for {
		records, done, err := m.Next(wanted, limit, maxBytes)
		if err != nil {
			t.Fatalf("Next: %v", err)
		}
		size := 0
		for _, r := range records {
			size += r.ValueSize()
		}
		if len(records) > limit || len(records) > 1 && size > maxBytes+len(records)*64 {
			t.Fatalf("%d records of %d bytes at once", len(records), size)
		}
		if all = append(all, records...); done {
			return all
		}
	}
}

// Whatever topics are read from wherever, a merge has what the topics have, in
// the order of numbers, up to the ceiling and no further, however much comes at once.
func TestMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := open(t, vfs.NewMem())
		defer mustClose(t, x)
		w := newWriter(t, x)
		topics := []string{"a", "b", "aa", "ab", "\x00", "\xff\xff"}
		for i := range rapid.IntRange(0, 60).Draw(t, "records") {
			topic := rapid.SampledFrom(topics).Draw(t, "topic")
			w.publish(message(topic, fmt.Sprint(i, string(make([]byte, rapid.IntRange(0, 40).Draw(t, "size"))))))
		}
		hidden := message("a", "not visible yet")
		w.write(hidden)
		var cursors []Cursor
		var want []uint64
		through := rapid.Uint64Range(0, w.number+2).Draw(t, "through")
		for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom(append(topics, "none", string(make([]byte, 300)))), 0, 8, rapid.ID).Draw(t, "topics") {
			c := Cursor{order.Topic{Kind: order.GroupMessage, ID: id}, rapid.Uint64Range(0, w.number+1).Draw(t, "cursor")}
			if rapid.IntRange(0, 20).Draw(t, "far") == 0 {
				c.After = math.MaxUint64
			}
			cursors = append(cursors, c)
			page := all()
			page.Cursor = c.After
			for _, r := range records(t, x, c.Topic, page) {
				if r.Number <= through {
					want = append(want, r.Number)
				}
			}
		}
		slices.Sort(want)
		m := x.Merge(cursors, through)
		w.publish(message("b", "too late"))
		limit, maxBytes := rapid.IntRange(1, 100).Draw(t, "limit"), rapid.IntRange(1, 1000).Draw(t, "bytes")
		var got []uint64
		for _, r := range merged(t, m, anyTopic, limit, maxBytes) {
			got = append(got, r.Number)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if records, done, err := m.Next(anyTopic, 1, 1); len(records) > 0 || !done || err != nil {
			t.Fatalf("after the end: %d records, %t, %v", len(records), done, err)
		}
	})
}

// A topic that is no longer wanted is read no further; the others are.
func TestMerge_Wanted(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	w := newWriter(t, x)
	for i := range 30 {
		w.publish(message([]string{"a", "b", "c"}[i%3], fmt.Sprint(i)))
	}
	var cursors []Cursor
	for _, id := range []string{"a", "b", "c"} {
		cursors = append(cursors, Cursor{Topic: order.Topic{Kind: order.GroupMessage, ID: id}})
	}
	m := x.Merge(cursors, x.Durable())
	counts := map[string]int{}
	wanted := func(topic order.Topic) bool { return topic.ID != "b" || counts["b"] < 4 }
	for {
		found, done, err := m.Next(wanted, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range found {
			counts[r.ID]++
		}
		if done {
			break
		}
	}
	if counts["a"] != 10 || counts["b"] != 4 || counts["c"] != 10 {
		t.Errorf("got %v", counts)
	}
}

// Many topics are looked up a part at a time.
func TestMerge_Many(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	w := newWriter(t, x)
	var cursors []Cursor
	for i := range 3 * mergeSeeks {
		cursors = append(cursors, Cursor{Topic: order.Topic{Kind: order.GroupMessage, ID: fmt.Sprint(i)}})
	}
	w.publish(message("17", "one"), message(fmt.Sprint(3*mergeSeeks-1), "another"), message("18", "a third"))
	got := merged(t, x.Merge(cursors, x.Durable()), anyTopic, 10, 1<<20)
	if len(got) != 3 || !slices.IsSortedFunc(got, func(a, b *order.Record) int { return cmp.Compare(a.Number, b.Number) }) {
		t.Errorf("%d records", len(got))
	}
}

// Reading topics in the order of their records, which come from each in turn,
// and looking up topics that have nothing.
func BenchmarkMerge(b *testing.B) {
	for _, topics := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(topics, " topics"), func(b *testing.B) {
			x := open(b, vfs.NewMem())
			defer mustClose(b, x)
			w := newWriter(b, x)
			const records = 20_000
			var cursors []Cursor
			for i := range topics {
				cursors = append(cursors, Cursor{Topic: order.Topic{Kind: order.GroupMessage, ID: fmt.Sprint(i)}})
			}
			for i := 0; i < records; {
				var batch []*order.Record
				for range 1000 {
					batch = append(batch, message(fmt.Sprint(i%topics), fmt.Sprint(i, string(make([]byte, 300)))))
					i++
				}
				w.publish(batch...)
			}
			b.ReportAllocs()
			for b.Loop() {
				if got := merged(b, x.Merge(cursors, x.Durable()), anyTopic, 1024, 1<<20); len(got) != records {
					b.Fatal(len(got))
				}
			}
			b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
	b.Run("100,000 topics without records", func(b *testing.B) {
		x := open(b, vfs.NewMem())
		defer mustClose(b, x)
		newWriter(b, x).publish(message("g", "one"))
		var cursors []Cursor
		for i := range 100_000 {
			cursors = append(cursors, Cursor{Topic: order.Topic{Kind: order.GroupMessage, ID: fmt.Sprint(i)}})
		}
		b.ReportAllocs()
		for b.Loop() {
			merged(b, x.Merge(cursors, x.Durable()), anyTopic, 1024, 1<<20)
		}
	})
}
