package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

func anyRecord(*order.Record) error { return nil }

func verify(t *testing.T, x *Index) Report {
	t.Helper()
	report, err := x.Verify(t.Context(), anyRecord)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// fill stores some of everything.
func fill(t *testing.T, x *Index) {
	t.Helper()
	alice, bob := wallet(1), wallet(2)
	welcome := message("installation", "welcome")
	welcome.Kind, welcome.Facts = order.Welcome, order.WelcomeFacts{Algorithm: 1}.Append(nil)
	entry := message("group", "entry")
	entry.Kind, entry.Facts = order.CommitLog, nil
	newWriter(t, x).publish(
		create(t, alice), create(t, bob), add(t, 2, alice, bob), message("group", "one"), message("other group", "two"),
		welcome, entry, keyPackage("installation", "old", 1), keyPackage("installation", "new", 2),
		revoke(t, 3, alice, bob), add(t, 4, alice, bob), message("group", "three"),
	)
}

func TestVerify(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	fill(t, x)
	report := verify(t, x)
	want := map[order.Kind]uint64{order.GroupMessage: 3, order.Welcome: 1, order.KeyPackage: 1, order.IdentityUpdate: 5, order.CommitLog: 1}
	if diff := cmp.Diff(want, report.Records); diff != "" {
		t.Error(diff)
	}
	if report.Count != 0 || report.Inboxes != 2 || report.Newest != 12 {
		t.Errorf("%+v", report)
	}
	refusal := errors.New("no good")
	report, err := x.Verify(t.Context(), func(r *order.Record) error {
		if r.Kind == order.Welcome {
			return refusal
		}
		return nil
	})
	if err != nil || report.Count != 1 || !strings.Contains(report.Problems[0], "no good") {
		t.Errorf("%+v, %v", report, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x.Verify(ctx, anyRecord); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Whatever one entry is changed to, it is noticed.
func TestVerifyFindsChanges(t *testing.T) {
	alice := wallet(1)
	group := message("group", "").Topic
	note := seenKey(group, []byte("one"))
	eight := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	for name, c := range map[string]struct {
		change func(*testing.T, *Index, *pebble.Batch)
		want   string
	}{
		"a lost message": {func(t *testing.T, x *Index, b *pebble.Batch) {
			b.Delete(recordKey(group, 4), nil)
		}, "4 notes of publications, but 3 follow"},
		"a lost note": {func(t *testing.T, x *Index, b *pebble.Batch) {
			b.Delete(note[:], nil)
		}, "group message 4 of 67726f7570 is not noted"},
		"another payload": {func(t *testing.T, x *Index, b *pebble.Batch) {
			r := message("group", "won")
			r.Time = 4
			b.Set(recordKey(group, 4), r.AppendValue(nil), nil)
		}, "is not noted"},
		"a number twice": {func(t *testing.T, x *Index, b *pebble.Batch) {
			r := message("group", "three")
			r.Time = 12
			b.Set(recordKey(group, 6), r.AppendValue(nil), nil)
		}, "number 6, and so has another"},
		"time that goes back": {func(t *testing.T, x *Index, b *pebble.Batch) {
			r := message("group", "one")
			r.Time = 99
			b.Set(recordKey(group, 4), r.AppendValue(nil), nil)
		}, "the newest of 12"},
		"a cut record": {func(t *testing.T, x *Index, b *pebble.Batch) {
			b.Set(recordKey(group, 4), []byte{1, 2, 3}, nil)
		}, "malformed record"},
		"a newer number": {func(t *testing.T, x *Index, b *pebble.Batch) {
			b.Set(metaKey, meta{5, 99, x.batches}.marshal(), nil)
		}, "but the newest is 5"},
		"a lost batch": {func(t *testing.T, x *Index, b *pebble.Batch) {
			b.Delete(batchKey(x.batches), nil)
		}, "batches of records"},
		"a lost update": {func(t *testing.T, x *Index, b *pebble.Batch) {
			b.Delete(recordKey(add(t, 2, alice, wallet(2)).Topic, 3), nil)
		}, "its state is not what follows"},
		"another state": {func(t *testing.T, x *Index, b *pebble.Batch) {
			value, _ := get(x.db, stateKey(create(t, alice).ID))
			value[9]++
			b.Set(stateKey(create(t, alice).ID), value, nil)
		}, "its state is not what follows"},
		"a lost inbox": {func(t *testing.T, x *Index, b *pebble.Batch) {
			b.Delete(stateKey(create(t, alice).ID), nil)
		}, "its state is not what follows"},
		"an invented inbox": {func(t *testing.T, x *Index, b *pebble.Batch) {
			value, _ := get(x.db, stateKey(create(t, alice).ID))
			b.Set(stateKey(strings.Repeat("x", 32)), value, nil)
		}, "there are 3 inboxes, but 2 follow"},
		"identifiers lost": {func(t *testing.T, x *Index, b *pebble.Batch) {
			b.DeleteRange([]byte{prefixAddress}, []byte{prefixAddress + 1}, nil)
		}, "an identifier is not found"},
		"an invented identifier": {func(t *testing.T, x *Index, b *pebble.Batch) {
			key, value := membershipEntry(addressPrefix(1, "mallory"), membership{1, create(t, alice).ID, 0})
			b.Set(key, value, nil)
		}, "identifiers, but"},
		"a cut key package": {func(t *testing.T, x *Index, b *pebble.Batch) {
			b.Set(keyPackageKey("installation"), eight(9), nil)
		}, "key package of installation"},
		"a contract's signature of nothing": {func(t *testing.T, x *Index, b *pebble.Batch) {
			b.Set(append([]byte{prefixContract}, make([]byte, 32)...), eight(999), nil)
		}, "it is of no update"},
		"something unknown": {func(t *testing.T, x *Index, b *pebble.Batch) {
			b.Set([]byte("zebra"), nil, nil)
		}, "an entry of an unknown kind"},
	} {
		t.Run(name, func(t *testing.T) {
			x := open(t, vfs.NewMem())
			defer mustClose(t, x)
			fill(t, x)
			b := x.db.NewBatch()
			c.change(t, x, b)
			if err := b.Commit(pebble.Sync); err != nil {
				t.Fatal(err)
			}
			report := verify(t, x)
			if all := strings.Join(report.Problems, "\n"); !strings.Contains(all, c.want) {
				t.Errorf("want %q among:\n%s", c.want, all)
			}
		})
	}
}

// A flipped bit in a table is found, named by the part that it is in, and the
// rest is still read.
func TestVerifyChecksums(t *testing.T) {
	fs := vfs.NewMem()
	x := open(t, fs)
	fill(t, x)
	// In a block of its own.
	newWriter(t, x).publish(message("horse", strings.Repeat("brown", 10_000)), message("zebra", strings.Repeat("stripes", 10_000)))
	if err := x.db.Flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, x)
	names, err := fs.List("/data/store")
	if err != nil {
		t.Fatal(err)
	}
	damaged := false
	for _, name := range names {
		path := "/data/store/" + name
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		content := read(t, fs, path)
		if i := bytes.Index(content, []byte("stripesstripes")); i >= 0 {
			content[i] ^= 1
			write(t, fs, path, content)
			damaged = true
		}
	}
	if !damaged {
		t.Fatal("the message is in no table")
	}
	x, err = OpenReadOnly(Options{FS: fs, Dir: "/data", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, x)
	report := verify(t, x)
	first := recordPrefix(message("horse", "").Topic)
	for _, want := range []string{"records can't be read after", ".sst, with the keys", fmt.Sprintf("%x", first)} {
		if !strings.Contains(strings.Join(report.Problems, "\n"), want) {
			t.Errorf("%q is not in %+v", want, report)
		}
	}
}

// Who comes upon a damaged table is told where it is, by kinds and numbers but not
// by topics, and what to do.
func TestDamagedTableIsNamed(t *testing.T) {
	fs := vfs.NewMem()
	x := open(t, fs)
	newWriter(t, x).publish(message("horse", strings.Repeat("brown", 10_000)), message("zebra", strings.Repeat("stripes", 10_000)))
	if err := x.db.Flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, x)
	names, err := fs.List("/data/store")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if content := read(t, fs, "/data/store/"+name); strings.HasSuffix(name, ".sst") {
			for i := bytes.Index(content, []byte("stripes")); i >= 0 && i < len(content)/2; i++ {
				content[i] ^= 1
			}
			write(t, fs, "/data/store/"+name, content)
		}
	}
	failure := make(chan error, 1)
	x, err = Open(Options{FS: fs, Dir: "/data", Logger: slog.New(slog.DiscardHandler), OnFailure: func(err error) { failure <- err }})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, x)
	if records, _, err := x.Records(message("zebra", "").Topic, Page{Limit: 10, MaxBytes: 1 << 20}); err == nil {
		t.Fatalf("%d records were read", len(records))
	}
	err = <-failure
	if !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	for _, want := range []string{".sst", "numbers of batches to group message 2", "xmtp node verify", "backup"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	if strings.Contains(err.Error(), "zebra") || strings.Contains(err.Error(), fmt.Sprintf("%x", "zebra")) {
		t.Errorf("%q names a topic", err)
	}
}

func TestWalk(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	fill(t, x)
	var got []uint64
	if err := x.Walk(t.Context(), func(r *order.Record) error {
		got = append(got, r.Number)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 11 {
		t.Errorf("numbers %v", got)
	}
	stop := errors.New("enough")
	if err := x.Walk(t.Context(), func(*order.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped with %v", err)
	}
	stats, err := x.Stats()
	if err != nil || stats.Newest != 12 || stats.LogBytes == 0 {
		t.Errorf("%+v, %v", stats, err)
	}
}
