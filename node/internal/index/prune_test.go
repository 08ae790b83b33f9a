package index

import (
	"errors"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// sweepAll removes what is older than a time, and returns what and the number reached.
func sweepAll(t tester, x *Index, kind order.Kind, after, before uint64) (Removed, uint64) {
	t.Helper()
	s, err := x.Sweep(kind, after, before)
	if err != nil {
		t.Fatalf("Sweep: %v", err)
	}
	var sum Removed
	for done := false; !done; {
		var removed Removed
		if removed, done, err = s.Next(); err != nil {
			t.Fatalf("Next: %v", err)
		}
		sum.Records += removed.Records
		sum.Bytes += removed.Bytes
	}
	return sum, s.Reached()
}

// pruneModel is what a store that is swept should hold.
type pruneModel struct {
	stored map[order.Topic][]*order.Record // what is there, by number
	ever   map[uint64]*order.Record        // what was ever stored
	after  map[order.Kind]uint64
}

func (m *pruneModel) keeps(r *order.Record) bool {
	if r.Kind == order.CommitLog {
		return true
	}
	facts, err := order.ParseGroupFacts(r.Facts)
	return r.Kind == order.GroupMessage && err == nil && facts.Commit
}

// TestSweep compares a store with a model while batches are written, sweeps are
// under way, and the power is cut. Records that a sweep has removed may come back
// by that, but whole, and go with the next.
func TestSweep(t *testing.T) {
	if os.Getenv("XMTP_PROOF") == "" {
		// Not beside others, whose number of checks this would be.
		checks := flag.Lookup("rapid.checks").Value
		defer checks.Set(checks.String())
		checks.Set("40")
	}
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewCrashableMem()
		x := open(t, fs)
		w := newWriter(t, x)
		m := &pruneModel{stored: map[order.Topic][]*order.Record{}, ever: map[uint64]*order.Record{}, after: map[order.Kind]uint64{}}
		var underWay []*Sweep
		// A reader of all topics, where it began, and what it has read.
		var reader *Merge
		var from, delivered uint64
		removing := func(t *rapid.T, s *Sweep) bool {
			_, done, err := s.Next()
			if err != nil {
				t.Fatalf("Next: %v", err)
			}
			// Steps are as big as they like: what is gone must have been old enough.
			for topic, list := range m.stored {
				if topic.Kind != s.kind {
					continue
				}
				there := numbers(records(t, x, topic, all()))
				m.stored[topic] = slices.DeleteFunc(list, func(r *order.Record) bool {
					return !slices.Contains(there, r.Number) && r.Time < s.before && !m.keeps(r)
				})
			}
			if done {
				for topic, list := range m.stored {
					for _, r := range list {
						if topic.Kind == s.kind && r.Number <= s.through && r.Time < s.before && !m.keeps(r) {
							t.Fatalf("%v: %d is still there", topic, r.Number)
						}
					}
				}
				m.after[s.kind] = max(m.after[s.kind], s.Reached())
			}
			return done
		}
		kinds := rapid.SampledFrom([]order.Kind{order.GroupMessage, order.Welcome})
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				// Often enough to get over the bounds of a step and of a run.
				repeat := rapid.SampledFrom([]int{1, 1, 1, 1, 1, 1, sweepRun + 4, sweepRecords / 4}).Draw(t, "repeat")
				var batch []*order.Record
				for range rapid.IntRange(1, 6).Draw(t, "records") {
					topic := order.Topic{
						Kind: rapid.SampledFrom([]order.Kind{order.GroupMessage, order.GroupMessage, order.Welcome, order.CommitLog}).Draw(t, "kind"),
						ID:   rapid.SampledFrom([]string{"a", "ab", "", "\xff\xff", "a\x00"}).Draw(t, "topic"),
					}
					payload := rapid.IntRange(0, 20).Draw(t, "payload")
					commit := rapid.IntRange(0, 4).Draw(t, "commit") == 0
					for i := range repeat {
						batch = append(batch, &order.Record{
							Topic:   topic,
							Facts:   order.GroupFacts{Commit: commit}.Append(nil),
							Payload: fmt.Append(nil, payload, i),
						})
					}
				}
				for i, outcome := range w.publish(batch...) {
					r := batch[i]
					list := m.stored[r.Topic]
					earlier := slices.IndexFunc(list, func(other *order.Record) bool { return string(other.Payload) == string(r.Payload) })
					if earlier >= 0 && r.Kind != order.CommitLog {
						if outcome.Number != list[earlier].Number {
							t.Fatalf("%v: %q got %d, is %d already", r.Topic, r.Payload, outcome.Number, list[earlier].Number)
						}
						continue
					}
					if outcome.Err != nil || outcome.Number != r.Number || m.ever[r.Number] != nil {
						t.Fatalf("%v: %q got %+v; that number was used: %t", r.Topic, r.Payload, outcome, m.ever[r.Number] != nil)
					}
					m.ever[r.Number] = r
					m.stored[r.Topic] = append(list, r)
				}
			},
			"sweep": func(t *rapid.T) {
				kind := kinds.Draw(t, "kind")
				s, err := x.Sweep(kind, m.after[kind], rapid.Uint64Range(0, w.time+2).Draw(t, "before"))
				if err != nil {
					t.Fatalf("Sweep: %v", err)
				}
				underWay = append(underWay, s)
			},
			"step": func(t *rapid.T) {
				if len(underWay) > 0 && removing(t, underWay[0]) {
					underWay = underWay[1:]
				}
			},
			"finish": func(t *rapid.T) {
				for _, s := range underWay {
					for !removing(t, s) {
					}
				}
				underWay = nil
			},
			"read on": func(t *rapid.T) {
				if reader == nil {
					from = rapid.Uint64Range(0, w.number).Draw(t, "from")
					var cursors []Cursor
					for topic := range m.stored {
						cursors = append(cursors, Cursor{topic, from})
					}
					reader, delivered = x.Merge(cursors, x.Durable()), from
				}
				got, done, err := reader.Next(func(order.Topic) bool { return true }, rapid.IntRange(1, 40).Draw(t, "limit"), math.MaxInt)
				if err != nil {
					t.Fatalf("Merge: %v", err)
				}
				skipped := func(after, before uint64) {
					for topic, list := range m.stored {
						for _, r := range list {
							if r.Number > after && r.Number < before && r.Number <= reader.through {
								t.Fatalf("%v: %d was not delivered", topic, r.Number)
							}
						}
					}
				}
				for _, r := range got {
					if was := m.ever[r.Number]; was == nil || !sameRecord(r, was) || r.Number <= delivered {
						t.Fatalf("delivered %d after %d", r.Number, delivered)
					}
					skipped(delivered, r.Number)
					delivered = r.Number
				}
				if done {
					skipped(delivered, math.MaxUint64)
					reader = nil
				}
			},
			"compact": func(t *rapid.T) {
				if err := x.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
					t.Fatalf("Compact: %v", err)
				}
			},
			"power cut": func(t *rapid.T) {
				number := w.number
				survives := rapid.IntRange(0, 100).Draw(t, "unsynced data that survives, in %")
				cut := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: survives, RNG: rand.New(rand.NewPCG(1, uint64(survives)))})
				mustClose(t, x)
				fs, x = cut, open(t, cut)
				if w = newWriter(t, x); w.number != number {
					t.Fatalf("the newest number is %d, was %d", w.number, number)
				}
				underWay, reader, m.after = nil, nil, map[order.Kind]uint64{}
				for topic, list := range m.stored {
					want := numbers(list)
					m.stored[topic] = nil
					for _, r := range records(t, x, topic, all()) {
						was := m.ever[r.Number]
						if was == nil || was.Topic != topic {
							t.Fatalf("%v: %d was never there", topic, r.Number)
						}
						m.stored[topic] = append(m.stored[topic], was)
						want = slices.DeleteFunc(want, func(n uint64) bool { return n == r.Number })
					}
					if len(want) > 0 {
						t.Fatalf("%v: lost %d", topic, want)
					}
				}
			},
			"": func(t *rapid.T) {
				for topic, list := range m.stored {
					if diff := cmp.Diff(list, records(t, x, topic, all()), cmp.Comparer(sameRecord)); len(list) > 0 && diff != "" {
						t.Fatalf("%v: %s", topic, diff)
					}
					newest, err := x.Newest(topic)
					if err != nil {
						t.Fatal(err)
					}
					if len(list) == 0 {
						if newest != nil {
							t.Fatalf("%v is empty, its newest is %d", topic, newest.Number)
						}
						continue
					}
					if newest.Number != list[len(list)-1].Number {
						t.Fatalf("%v: newest is %d, want %d", topic, newest.Number, list[len(list)-1].Number)
					}
					// Pages from cursors that may be gone.
					cursor := rapid.Uint64Range(0, w.number+1).Draw(t, "cursor")
					descending := rapid.Bool().Draw(t, "descending")
					var want []uint64
					for _, r := range list {
						if !descending && r.Number > cursor || descending && (cursor == 0 || r.Number < cursor) {
							want = append(want, r.Number)
						}
					}
					if descending {
						slices.Reverse(want)
					}
					want = want[:min(len(want), 3)]
					got := numbers(records(t, x, topic, Page{Cursor: cursor, Descending: descending, Limit: 3, MaxBytes: math.MaxInt}))
					if !slices.Equal(got, want) {
						t.Fatalf("%v: page at %d, descending %t: %d, want %d", topic, cursor, descending, got, want)
					}
				}
			},
		})
		mustClose(t, x)
	})
}

func sameRecord(a, b *order.Record) bool {
	return a.Topic == b.Topic && a.Number == b.Number && a.Time == b.Time && string(a.Facts) == string(b.Facts) && string(a.Payload) == string(b.Payload)
}

// What other kinds hold is never removed.
func TestSweepKinds(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	for _, kind := range []order.Kind{0, order.KeyPackage, order.IdentityUpdate, order.CommitLog} {
		if _, err := x.Sweep(kind, 0, math.MaxUint64); err == nil {
			t.Errorf("records of kind %d can be removed", kind)
		}
	}
}

// What readers can't see yet isn't removed, however old it is, and by a later sweep.
func TestSweepDurable(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	w := newWriter(t, x)
	w.publish(message("a", "1"))
	w.write(message("b", "2"))
	removed, reached := sweepAll(t, x, order.GroupMessage, 0, math.MaxUint64)
	if removed.Records != 1 || reached != 1 {
		t.Errorf("removed %+v up to %d", removed, reached)
	}
	x.Advance(w.number)
	if got := numbers(records(t, x, message("b", "").Topic, all())); !slices.Equal(got, []uint64{2}) {
		t.Errorf("got %d", got)
	}
	if removed, reached = sweepAll(t, x, order.GroupMessage, reached, math.MaxUint64); removed.Records != 1 || reached != 2 {
		t.Errorf("removed %+v up to %d", removed, reached)
	}
}

// A sweep that started is of use to the one after it, and no step is long.
func TestSweepSteps(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	w := newWriter(t, x)
	for i := range 40 {
		var batch []*order.Record
		for j := range 100 {
			batch = append(batch, message(fmt.Sprint("group", i), fmt.Sprint(j)))
		}
		w.publish(batch...)
	}
	s, err := x.Sweep(order.GroupMessage, 0, math.MaxUint64)
	if err != nil {
		t.Fatal(err)
	}
	steps, sum := 0, uint64(0)
	for done := false; !done; steps++ {
		var removed Removed
		if removed, done, err = s.Next(); err != nil {
			t.Fatal(err)
		}
		if removed.Records > sweepRecords {
			t.Errorf("%d records in one step", removed.Records)
		}
		sum += removed.Records
	}
	if sum != 4000 || steps < 4000/sweepRecords {
		t.Errorf("%d records in %d steps", sum, steps)
	}
	if removed, _ := sweepAll(t, x, order.GroupMessage, s.Reached(), math.MaxUint64); removed.Records != 0 {
		t.Errorf("left: %+v", removed)
	}
}

// The space of what was removed comes back.
func TestSweepSpace(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	if err := x.Load(oldMessages(100, 300, 1000)); err != nil {
		t.Fatal(err)
	}
	if size := x.db.Metrics().DiskSpaceUsage(); size < 30<<20 {
		t.Fatalf("%d bytes before", size)
	}
	removed, _ := sweepAll(t, x, order.GroupMessage, 0, math.MaxUint64)
	if removed.Records != 30_000 {
		t.Fatalf("removed %+v", removed)
	}
	// Something that stays among it.
	newWriter(t, x).publish(message(fmt.Sprintf("%016d", 50), "stays"))
	reclaim, err := x.Reclaim()
	for done := false; !done && err == nil; {
		done, err = reclaim.Next(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if size := x.db.Metrics().Total().TablesSize; size > 100<<10 {
		t.Errorf("%d bytes of tables stay", size)
	}
	if got := numbers(records(t, x, message(fmt.Sprintf("%016d", 50), "").Topic, all())); !slices.Equal(got, []uint64{30_001}) {
		t.Errorf("got %d", got)
	}
}

// oldMessages are those of groups that write in turn, in the order of their keys.
func oldMessages(groups, each, size int) iter.Seq[*order.Record] {
	return func(yield func(*order.Record) bool) {
		for g := range groups {
			for i := range each {
				payload := make([]byte, size)
				copy(payload, fmt.Sprint(g, " ", i))
				number := uint64(1 + i*groups + g)
				r := &order.Record{
					Topic:   order.Topic{Kind: order.GroupMessage, ID: fmt.Sprintf("%016d", g)},
					Number:  number,
					Time:    number * 1000,
					Facts:   order.GroupFacts{SenderHMAC: make([]byte, 32)}.Append(nil),
					Payload: payload,
				}
				if !yield(r) {
					return
				}
			}
		}
	}
}

// A store that was loaded is one like others: it can be read, written to, opened again.
func TestLoad(t *testing.T) {
	fs := vfs.NewMem()
	x := open(t, fs)
	if err := x.Load(oldMessages(7, 100, 300)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w := newWriter(t, x)
		if w.number != 700 || w.time != 700_000 || x.Durable() != 700 {
			t.Fatalf("newest is %d, at %d; durable %d", w.number, w.time, x.Durable())
		}
		next := uint64(0)
		for r := range oldMessages(7, 100, 300) {
			got := records(t, x, r.Topic, Page{Cursor: r.Number - 1, Limit: 1})
			if len(got) != 1 || !sameRecord(got[0], r) {
				t.Fatalf("%d is %+v", r.Number, got)
			}
			if outcome := w.write(&order.Record{Topic: r.Topic, Facts: r.Facts, Payload: r.Payload})[0]; outcome.Number != r.Number {
				t.Fatalf("%d again is %+v", r.Number, outcome)
			}
			next++
		}
		if next != 700 {
			t.Fatal(next)
		}
		mustClose(t, x)
		x = open(t, fs)
	}
	w := newWriter(t, x)
	if got := w.publish(message("new", "one"))[0].Number; got != 701 {
		t.Errorf("the next is %d", got)
	}
	if err := x.Load(oldMessages(1, 1, 1)); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("loaded twice: %v", err)
	}
	mustClose(t, x)
}

// With too little room even for removing, nothing is removed.
func TestSweepFullDisk(t *testing.T) {
	fs := &smallDisk{FS: vfs.NewMem()}
	x, err := Open(Options{FS: fs, Dir: "/data", Logger: slog.New(slog.DiscardHandler), Reserve: 1000, OnFailure: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, x)
	fs.free = 1000
	newWriter(t, x).publish(message("a", "1"))
	s, err := x.Sweep(order.GroupMessage, 0, math.MaxUint64)
	if err != nil {
		t.Fatal(err)
	}
	fs.free = 499
	if _, _, err := s.Next(); !errors.Is(err, ErrDiskFull) {
		t.Errorf("got %v", err)
	}
	fs.free = 500
	if removed, done, err := s.Next(); removed.Records != 1 || !done || err != nil {
		t.Errorf("got %+v, %t, %v", removed, done, err)
	}
}

type smallDisk struct {
	vfs.FS
	free uint64
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free}, nil
}

func (d *smallDisk) Unwrap() vfs.FS { return d.FS }
