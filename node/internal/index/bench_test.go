package index

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// BenchmarkOpen is a part of how long a node takes to start.
func BenchmarkOpen(b *testing.B) {
	b.Run("memory", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			mustClose(b, open(b, vfs.NewMem()))
		}
	})
	b.Run("new directory", func(b *testing.B) {
		dir, n := b.TempDir(), 0
		b.ReportAllocs()
		for b.Loop() {
			n++
			x, err := openDir(filepath.Join(dir, fmt.Sprint(n)))
			if err != nil {
				b.Fatal(err)
			}
			mustClose(b, x)
		}
	})
	b.Run("directory of 100,000 batches", func(b *testing.B) {
		dir := filepath.Join(b.TempDir(), "data")
		x, err := openDir(dir)
		if err != nil {
			b.Fatal(err)
		}
		w := newWriter(b, x)
		var last order.Batch
		for i := range 100_000 {
			r := message("g", fmt.Sprint(i, string(make([]byte, 300))))
			r.Number, r.Time = w.number+1, w.time+1
			w.number, w.time = r.Number, r.Time
			last = x.NewBatch()
			if _, _, err := last.Apply(r); err != nil {
				b.Fatal(err)
			}
			if err := last.Commit(); err != nil {
				b.Fatal(err)
			}
		}
		if err := last.Wait(); err != nil {
			b.Fatal(err)
		}
		mustClose(b, x)
		b.ReportAllocs()
		for b.Loop() {
			if x, err = openDir(dir); err != nil {
				b.Fatal(err)
			}
			mustClose(b, x)
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	for _, size := range []int{1, 64} {
		b.Run(fmt.Sprintf("records=%d", size), func(b *testing.B) {
			x := open(b, vfs.NewMem())
			defer mustClose(b, x)
			w := newWriter(b, x)
			payload := string(make([]byte, 300))
			b.ReportAllocs()
			for b.Loop() {
				batch := make([]*order.Record, size)
				for i := range batch {
					batch[i] = message("g", fmt.Sprint(w.number, i, payload))
				}
				w.publish(batch...)
			}
		})
	}
}

func BenchmarkRecords(b *testing.B) {
	x := open(b, vfs.NewMem())
	defer mustClose(b, x)
	w := newWriter(b, x)
	for i := range 10_000 {
		w.write(message(fmt.Sprint(i%10), fmt.Sprint(i, string(make([]byte, 300)))))
	}
	x.Advance(w.number)
	topic := message("5", "").Topic
	b.ReportAllocs()
	for b.Loop() {
		if found := records(b, x, topic, Page{Cursor: 5000, Limit: 100, MaxBytes: 1 << 20}); len(found) != 100 {
			b.Fatal(len(found))
		}
	}
}

// BenchmarkSweep is what it costs to remove a message, in a store of groups that
// have some hundred each.
func BenchmarkSweep(b *testing.B) {
	const groups, each = 200, 500
	for b.Loop() {
		b.StopTimer()
		x, err := openDir(filepath.Join(b.TempDir(), "data"))
		if err != nil {
			b.Fatal(err)
		}
		if err := x.Load(oldMessages(groups, each, 1<<10)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if removed, _ := sweepAll(b, x, order.GroupMessage, 0, math.MaxUint64); removed.Records != groups*each {
			b.Fatal(removed)
		}
		b.StopTimer()
		mustClose(b, x)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*groups*each), "ns/record")
	b.ReportAllocs()
}
