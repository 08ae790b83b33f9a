package index

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// TestPublishedOnce publishes the same few things again and again, while what is
// stored goes from memory to tables and from table to table, and is removed, and the
// store is opened anew.
func TestPublishedOnce(t *testing.T) {
	if os.Getenv("XMTP_PROOF") == "" {
		// Not beside others, whose number of checks this would be.
		checks := flag.Lookup("rapid.checks").Value
		defer checks.Set(checks.String())
		checks.Set("30")
	}
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewMem()
		x := open(t, fs)
		defer func() { mustClose(t, x) }()
		w := newWriter(t, x)
		numbers := map[string]uint64{}
		publish := func(payloads []int) {
			var records []*order.Record
			for _, p := range payloads {
				records = append(records, message("g", fmt.Sprint("payload ", p)))
			}
			before := w.number
			for i, outcome := range w.publish(records...) {
				name := string(records[i].Payload)
				if want, known := numbers[name]; known && outcome.Number != want {
					t.Fatalf("%s has the number %d, and had %d", name, outcome.Number, want)
				} else if !known && outcome.Number <= before {
					t.Fatalf("%s is new, and has the number %d", name, outcome.Number)
				}
				numbers[name] = outcome.Number
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				publish(rapid.SliceOfN(rapid.IntRange(0, 40), 1, 5).Draw(t, "payloads"))
			},
			"flush": func(t *rapid.T) {
				if err := x.db.Flush(); err != nil {
					t.Fatal(err)
				}
			},
			"compact": func(t *rapid.T) {
				if err := x.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
					t.Fatal(err)
				}
			},
			"remove": func(t *rapid.T) {
				before := w.time - min(w.time, uint64(rapid.IntRange(0, 10).Draw(t, "kept")))
				sweepAll(t, x, order.GroupMessage, 0, before)
				for name, number := range numbers {
					if number < before { // times are numbers here
						delete(numbers, name)
					}
				}
			},
			"open": func(t *rapid.T) {
				mustClose(t, x)
				x = open(t, fs)
				w = newWriter(t, x)
			},
		})
	})
}

// TestPublishedIsDropped: what is kept of publications is bounded by what is not in
// tables.
func TestPublishedIsDropped(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	w := newWriter(t, x)
	const each = 100
	for i := range 10 * each {
		w.publish(message("g", fmt.Sprint("payload ", i)))
		if i%each == each-1 {
			if err := x.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if kept := len(x.published.older.keys) + len(x.published.newer.keys); kept > 2*each {
			t.Fatalf("%d publications are kept", kept)
		}
	}
}
