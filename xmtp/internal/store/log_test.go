package store

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
)

// A log that is written in any order, and opened again now and then, holds what was
// written, in memory and in the file.
func TestLogFileHoldsWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := &vfsutil.SliceFile{}
		f := &logFile{File: disk, empty: true}
		var want []byte
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				p := rapid.SliceOfN(rapid.Byte(), 1, 9000).Draw(t, "data")
				if _, err := f.WriteAt(p, int64(len(want))); err != nil {
					t.Fatal(err)
				}
				want = append(want, p...)
			},
			"overwrite": func(t *rapid.T) {
				at := rapid.IntRange(0, len(want)).Draw(t, "at")
				p := rapid.SliceOfN(rapid.Byte(), 0, min(9000, len(want)-at)).Draw(t, "data")
				if _, err := f.WriteAt(p, int64(at)); err != nil {
					t.Fatal(err)
				}
				copy(want[at:], p)
			},
			"sync": func(t *rapid.T) {
				if err := f.Sync(vfs.SYNC_NORMAL); err != nil {
					t.Fatal(err)
				}
				if !bytes.HasPrefix(*disk, want) {
					t.Fatal("the file lacks something")
				}
			},
			"empty": func(t *rapid.T) {
				if err := f.Truncate(0); err != nil {
					t.Fatal(err)
				}
				want = want[:0]
			},
			"reopen": func(t *rapid.T) {
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				size, _ := disk.Size()
				f = &logFile{File: disk, high: size, size: size, empty: size == 0}
				// What room was made for is taken for content.
				want = append(want, (*disk)[len(want):]...)
			},
			"": func(t *rapid.T) {
				at := rapid.IntRange(0, len(want)).Draw(t, "from")
				got := make([]byte, len(want)-at)
				if _, err := f.ReadAt(got, int64(at)); err != nil && !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want[at:]) {
					t.Fatalf("differs from %d on", at)
				}
			},
		})
	})
}

// Who waits for the disk doesn't hold up others, and many share a sync.
func TestOneSyncForAllWhoWait(t *testing.T) {
	fs := crashtest.New(t)
	db := open(t, Options{Path: "/client.db", Key: testKey(), VFS: fs.Name()})
	put(t, db, "before", nil)
	db.syncing.Lock() // the disk is busy
	var writers sync.WaitGroup
	names := []string{"a", "b", "c", "d"}
	for _, name := range names {
		writers.Go(func() { put(t, db, name, []byte(name)) })
	}
	for _, name := range names {
		for found := false; !found; _, found = value(t, db, name) {
		}
	}
	ops := fs.Ops()
	db.syncing.Unlock()
	writers.Wait()
	if n := fs.Ops() - ops; n != 1 {
		t.Errorf("%d operations for %d who wait, want one sync", n, len(names))
	}
	fs.Cut()
	fs.Restart(crashtest.LoseUnsynced())
	db.Close()
}

// What a sync has failed to bring to the disk gets there in another way.
func TestFailedSync(t *testing.T) {
	fs := crashtest.New(t)
	o := Options{Path: "/client.db", Key: testKey(), VFS: fs.Name()}
	db := open(t, o)
	put(t, db, "before", nil)
	lazily := func(name string) {
		if err := db.UpdateLazily(func(tx *Tx) error { return tx.SetMeta(name, []byte(name)) }); err != nil {
			t.Fatal(err)
		}
	}
	lazily("a")
	fs.FaultAt(1, crashtest.FailOnce)
	if err := db.Sync(); err != nil || !fs.Faulted() {
		t.Fatal(err)
	}
	fs.Repair()
	lazily("b")
	fs.Cut()
	db.Close()
	fs.Restart(crashtest.LoseUnsynced())
	db = open(t, o)
	var there []string
	for _, name := range []string{"a", "b"} {
		if _, found := value(t, db, name); found {
			there = append(there, name)
		}
	}
	if !slices.Equal(there, []string{"a"}) {
		t.Errorf("after a power cut: %q", there)
	}
}
