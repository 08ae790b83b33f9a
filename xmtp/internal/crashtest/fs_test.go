package crashtest

import (
	"bytes"
	"errors"
	"slices"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

const readWrite = vfs.OPEN_READWRITE | vfs.OPEN_CREATE

func create(t *testing.T, fs *FS, name string, flags vfs.OpenFlag) vfs.File {
	t.Helper()
	f, _, err := fs.Open(name, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, f vfs.File, content string, offset int64) {
	t.Helper()
	_, err := f.WriteAt([]byte(content), offset)
	must(t, err)
}

func TestUnsyncedContentIsLost(t *testing.T) {
	fs := New(t)
	f := create(t, fs, "a", readWrite|vfs.OPEN_WAL)
	put(t, f, "synced", 0)
	must(t, f.Sync(0))
	put(t, f, "SYN", 0)
	put(t, f, "more", 6)
	must(t, f.Truncate(8))
	if got := string(fs.Image()["a"]); got != "SYNcedmo" {
		t.Errorf("before the cut: %q", got)
	}
	before := fs.Image()
	fs.Cut()
	fs.Restart(LoseUnsynced())
	if got := string(fs.Image()["a"]); got != "synced" {
		t.Errorf("after the cut: %q", got)
	}
	fs.Load(before)
	fs.Cut()
	fs.Restart(LoseUnsynced())
	if got := string(fs.Image()["a"]); got != "SYNcedmo" {
		t.Errorf("an image that was loaded: %q", got)
	}
}

func TestAProcessThatWasKilledLosesNothing(t *testing.T) {
	fs := New(t)
	f := create(t, fs, "a", readWrite|vfs.OPEN_WAL)
	put(t, f, "never synced", 0)
	must(t, f.Truncate(5))
	fs.Cut()
	fs.Restart(LoseNothing())
	if got := string(fs.Image()["a"]); got != "never" {
		t.Errorf("got %q", got)
	}
}

// Each sector of an unsynced write is there or not, and all combinations occur.
func TestTornWrites(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(200) {
		fs := New(t)
		f := create(t, fs, "a", readWrite|vfs.OPEN_WAL)
		put(t, f, string(bytes.Repeat([]byte{'0'}, 3*SectorSize)), 0)
		must(t, f.Sync(0))
		// From the middle of the first sector to the middle of the third.
		put(t, f, string(bytes.Repeat([]byte{'1'}, 2*SectorSize)), SectorSize/2)
		fs.Cut()
		fs.Restart(LoseSome(seed))
		content := fs.Image()["a"]
		if len(content) != 3*SectorSize {
			t.Fatalf("%d bytes", len(content))
		}
		pieces := [][]byte{
			content[:SectorSize/2],
			content[SectorSize/2 : SectorSize],
			content[SectorSize : 2*SectorSize],
			content[2*SectorSize : 5*SectorSize/2],
			content[5*SectorSize/2:],
		}
		var shape []byte
		for _, p := range pieces {
			if bytes.Count(p, p[:1]) != len(p) {
				t.Fatalf("a sector is half written")
			}
			shape = append(shape, p[0])
		}
		if shape[0] != '0' || shape[4] != '0' {
			t.Fatalf("beside the write: %s", shape)
		}
		seen[string(shape[1:4])] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d of 8 outcomes", len(seen))
	}
}

func TestNames(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*testing.T, *FS)
		loss Loss
		want []string
	}{
		"a new name without a sync of the folder": {func(t *testing.T, fs *FS) {
			must(t, create(t, fs, "db", readWrite|vfs.OPEN_MAIN_DB).Sync(0))
		}, LoseUnsynced(), nil},
		"by the sync of a journal": {func(t *testing.T, fs *FS) {
			create(t, fs, "db", readWrite|vfs.OPEN_MAIN_DB)
			must(t, create(t, fs, "db-journal", readWrite|vfs.OPEN_MAIN_JOURNAL).Sync(0))
		}, LoseUnsynced(), []string{"db", "db-journal"}},
		"deleted without a sync": {func(t *testing.T, fs *FS) {
			must(t, create(t, fs, "wal", readWrite|vfs.OPEN_WAL).Sync(0))
			must(t, fs.Delete("wal", false))
		}, LoseUnsynced(), []string{"wal"}},
		"deleted without a sync, process killed": {func(t *testing.T, fs *FS) {
			must(t, create(t, fs, "wal", readWrite|vfs.OPEN_WAL).Sync(0))
			must(t, fs.Delete("wal", false))
		}, LoseNothing(), nil},
		"deleted with a sync": {func(t *testing.T, fs *FS) {
			must(t, create(t, fs, "wal", readWrite|vfs.OPEN_WAL).Sync(0))
			must(t, fs.Delete("wal", true))
		}, LoseUnsynced(), nil},
	} {
		t.Run(name, func(t *testing.T) {
			fs := New(t)
			c.do(t, fs)
			fs.Cut()
			fs.Restart(c.loss)
			var got []string
			for name := range fs.Image() {
				got = append(got, name)
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestNothingWorksAfterTheCut(t *testing.T) {
	fs := New(t)
	f := create(t, fs, "a", readWrite)
	put(t, f, "before", 0)
	told := 0
	fs.CutAt(2, func() { told++ })
	put(t, f, "b", 0)
	if fs.WasCut() {
		t.Error("cut too early")
	}
	if err := f.Sync(0); !errors.Is(err, ErrPowerCut) {
		t.Errorf("sync: %v", err)
	}
	if !fs.WasCut() || told != 1 || fs.Ops() != 4 {
		t.Errorf("cut %v, told %d times, %d operations", fs.WasCut(), told, fs.Ops())
	}
	dead := func(when string) {
		_, read := f.ReadAt(make([]byte, 1), 0)
		_, written := f.WriteAt([]byte{1}, 0)
		_, size := f.Size()
		for what, err := range map[string]error{
			"read": read, "write": written, "size": size,
			"sync": f.Sync(0), "truncate": f.Truncate(0), "lock": f.Lock(vfs.LOCK_SHARED),
		} {
			if !errors.Is(err, ErrPowerCut) {
				t.Errorf("%s %s: %v", what, when, err)
			}
		}
	}
	dead("after the cut")
	if _, _, err := fs.Open("a", readWrite); !errors.Is(err, ErrPowerCut) {
		t.Errorf("open: %v", err)
	}
	if err := fs.Delete("a", false); !errors.Is(err, ErrPowerCut) {
		t.Errorf("delete: %v", err)
	}
	fs.Restart(LoseNothing())
	dead("after the restart")
	if got := string(fs.Image()["a"]); got != "before" {
		t.Errorf("got %q", got)
	}
	put(t, create(t, fs, "a", readWrite), "works again", 0)
}

// The operation at which the power goes may have come through, in part.
func TestTheLastWrite(t *testing.T) {
	outcomes := map[string]bool{}
	for seed := range uint64(20) {
		fs := New(t)
		f := create(t, fs, "wal", readWrite|vfs.OPEN_WAL)
		put(t, f, "old", 0)
		must(t, f.Sync(0))
		fs.CutAt(1, nil)
		if _, err := f.WriteAt([]byte("new"), 0); !errors.Is(err, ErrPowerCut) {
			t.Fatal(err)
		}
		fs.Restart(LoseSome(seed))
		outcomes[string(fs.Image()["wal"])] = true
	}
	if len(outcomes) != 2 || !outcomes["old"] || !outcomes["new"] {
		t.Errorf("got %v", outcomes)
	}
}

func TestDiskFullAndReadOnly(t *testing.T) {
	fs := New(t)
	f := create(t, fs, "a", readWrite)
	put(t, f, "content", 0)
	fs.FaultAt(1, Full)
	put(t, f, "C", 0)
	if _, err := f.WriteAt([]byte("tents"), 3); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("longer: %v", err)
	}
	if err := f.Truncate(100); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("grown: %v", err)
	}
	if _, _, err := fs.Open("b", readWrite); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a new file: %v", err)
	}
	must(t, f.Truncate(4))
	fs.Repair()
	fs.FaultAt(1, ReadOnly)
	if _, err := f.WriteAt([]byte("c"), 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write: %v", err)
	}
	if _, _, err := fs.Open("a", readWrite); !errors.Is(err, syscall.EROFS) {
		t.Errorf("open: %v", err)
	}
	if err := fs.Delete("a", true); !errors.Is(err, syscall.EROFS) {
		t.Errorf("delete: %v", err)
	}
	fs.Repair()
	put(t, f, "c", 0)
	if got := string(fs.Image()["a"]); got != "cont" {
		t.Errorf("got %q", got)
	}
}

func TestLocks(t *testing.T) {
	fs := New(t)
	a, b := create(t, fs, "db", readWrite), create(t, fs, "db", readWrite)
	must(t, a.Lock(vfs.LOCK_SHARED))
	must(t, b.Lock(vfs.LOCK_SHARED))
	must(t, a.Lock(vfs.LOCK_RESERVED))
	if err := b.Lock(vfs.LOCK_RESERVED); !errors.Is(err, sqlite3.BUSY) {
		t.Errorf("two reserve: %v", err)
	}
	if reserved, err := b.CheckReservedLock(); err != nil || !reserved {
		t.Errorf("reserved: %v, %v", reserved, err)
	}
	if err := a.Lock(vfs.LOCK_EXCLUSIVE); !errors.Is(err, sqlite3.BUSY) {
		t.Errorf("exclusive beside a reader: %v", err)
	}
	must(t, b.Unlock(vfs.LOCK_NONE))
	must(t, a.Lock(vfs.LOCK_EXCLUSIVE))
	if err := b.Lock(vfs.LOCK_SHARED); !errors.Is(err, sqlite3.BUSY) {
		t.Errorf("a reader beside a writer: %v", err)
	}
	must(t, a.Close())
	must(t, b.Lock(vfs.LOCK_SHARED))
}

func TestOneFailure(t *testing.T) {
	fs := New(t)
	f := create(t, fs, "a", readWrite)
	fs.FaultAt(2, FailOnce)
	put(t, f, "one", 0)
	if fs.Faulted() {
		t.Error("failed too early")
	}
	if _, err := f.WriteAt([]byte("two"), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	if !fs.Faulted() {
		t.Error("has not failed")
	}
	must(t, f.Sync(0))
	if got := string(fs.Image()["a"]); got != "one" {
		t.Errorf("got %q", got)
	}
	fs.FaultAt(1, FailRead)
	got := make([]byte, 3)
	if _, err := f.ReadAt(got, 0); !errors.Is(err, syscall.EIO) || !fs.Faulted() {
		t.Errorf("read: %v", err)
	}
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "one" {
		t.Errorf("once more: %q, %v", got, err)
	}
}

// What a failed sync has not brought to the disk no later one does.
func TestFailedSync(t *testing.T) {
	outcomes := map[string]bool{}
	for range 20 {
		fs := New(t)
		f := create(t, fs, "wal", readWrite|vfs.OPEN_WAL)
		put(t, f, "old", 0)
		must(t, f.Sync(0))
		for range len(outcomes) * 3 { // lots differ by the number of operations
			must(t, f.Sync(0))
		}
		put(t, f, "new", 0)
		fs.FaultAt(1, FailOnce)
		if err := f.Sync(0); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		must(t, f.Sync(0))
		if got := string(fs.Image()["wal"]); got != "new" {
			t.Errorf("programs see %q", got)
		}
		fs.Restart(LoseUnsynced())
		outcomes[string(fs.Image()["wal"])] = true
	}
	if len(outcomes) != 2 || !outcomes["old"] || !outcomes["new"] {
		t.Errorf("got %v", outcomes)
	}
}
