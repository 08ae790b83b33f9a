package index

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

func openReadOnly(t *testing.T, fs vfs.FS, dir string) *Index {
	t.Helper()
	x, err := OpenReadOnly(Options{FS: fs, Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, x) })
	return x
}

// A snapshot of an index that is in use holds what was durable, and a node that
// is started from a backup of it never gives out a number twice.
func TestBackup(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		t.Run(name, func(t *testing.T) {
			base := "/"
			if name == "disk" {
				base = t.TempDir()
			}
			options := Options{FS: fs, Dir: filepath.Join(base, "data"), Logger: slog.New(slog.DiscardHandler), OnFailure: func(err error) { t.Error(err) }}
			x, err := Open(options)
			if err != nil {
				t.Fatal(err)
			}
			newWriter(t, x).publish(message("g", "one"), message("g", "two"))
			snapshot, err := x.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			newWriter(t, x).publish(message("g", "three"))

			to := filepath.Join(base, "backups", "monday")
			reader := openReadOnly(t, fs, snapshot)
			now := time.Unix(1_800_000_000, 0)
			if err := reader.Backup(t.Context(), to, now); err != nil {
				t.Fatal(err)
			}
			if err := reader.Backup(t.Context(), to, now); err == nil || !strings.Contains(err.Error(), "holds something already") {
				t.Errorf("a second backup to the same place: %v", err)
			}
			mustClose(t, x)

			// Twice from the same backup, as after a second accident.
			copyOf := filepath.Join(base, "backups", "copy")
			whole, err := OpenReadOnly(Options{FS: fs, Dir: to, Logger: options.Logger})
			if err != nil {
				t.Fatal(err)
			}
			if err := whole.Backup(t.Context(), copyOf, now); err != nil {
				t.Fatal(err)
			}
			mustClose(t, whole)
			seen := uint64(3) // what clients have been given
			for i, dir := range []string{to, copyOf} {
				var log strings.Builder
				options.Dir = dir
				options.Logger = slog.New(slog.NewTextHandler(&log, nil))
				options.Now = func() time.Time { return now.Add(time.Duration(i+1) * time.Hour) }
				restored, err := Open(options)
				if err != nil {
					t.Fatal(err)
				}
				if log := log.String(); !strings.Contains(log, "started from a backup: numbers jump ahead") || !strings.Contains(log, "through number 2") {
					t.Errorf("the log says %q", log)
				}
				old, _, err := restored.Records(message("g", "").Topic, Page{Limit: 10, MaxBytes: 1000})
				if err != nil || len(old) != 2 {
					t.Errorf("%d old records, %v", len(old), err)
				}
				newWriter(t, restored).publish(message("g", "new"))
				newest, err := restored.Newest(message("g", "").Topic)
				if err != nil || newest.Number <= seen || newest.Number >= 1<<53 {
					t.Errorf("number %d after %d was seen, %v", newest.Number, seen, err)
				}
				seen = newest.Number
				mustClose(t, restored)

				// It is no backup any more.
				log.Reset()
				restored, err = Open(options)
				if err != nil {
					t.Fatal(err)
				}
				newWriter(t, restored).publish(message("g", "newer"))
				newest, err = restored.Newest(message("g", "").Topic)
				if err != nil || newest.Number != seen+1 || log.Len() > 0 {
					t.Errorf("number %d after %d, %v, log %q", newest.Number, seen, err, log.String())
				}
				seen = newest.Number
				mustClose(t, restored)
			}
		})
	}
}

func TestNumbersAfterBackup(t *testing.T) {
	for _, c := range []struct {
		newest uint64
		now    time.Time
		want   uint64
	}{
		{0, time.UnixMicro(1_800_000_000_000_000), 1_800_000_000_000_000},
		{0, time.Time{}, jump},
		{2_000_000_000_000_000, time.UnixMicro(1_800_000_000_000_000), 2_000_000_000_000_000 + jump},
	} {
		if got := afterBackup(c.newest, c.now); got != c.want {
			t.Errorf("after %d at %v: %d, want %d", c.newest, c.now, got, c.want)
		}
	}
}

// What is no whole backup is not taken for one.
func TestUnfinishedBackup(t *testing.T) {
	fs := vfs.NewMem()
	x := open(t, fs)
	newWriter(t, x).publish(message("g", "one"))
	mustClose(t, x)
	reader := openReadOnly(t, fs, "/data")
	if err := reader.Backup(t.Context(), "/backup", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := fs.Remove("/backup/" + formatName); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{FS: fs, Dir: "/backup", Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "a backup that was not finished") {
		t.Errorf("an unfinished backup: %v", err)
	}
	if _, err := OpenReadOnly(Options{FS: fs, Dir: "/nothing", Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrForeign) {
		t.Errorf("opening nothing: %v", err)
	}
	if _, err := fs.Stat("/nothing"); !isNotExist(err) {
		t.Error("it was made")
	}
}

// A backup that has lost its newest records is refused, and left as it is.
func TestShortenedBackup(t *testing.T) {
	fs := vfs.NewMem()
	x := open(t, fs)
	newWriter(t, x).publish(message("g", "one"))
	mustClose(t, x)
	if err := openReadOnly(t, fs, "/data").Backup(t.Context(), "/backup", time.Now()); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("/backup/store")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			write(t, fs, "/backup/store/"+name, nil)
		}
	}
	before := listing(t, fs, "/backup")
	options := Options{FS: fs, Dir: "/backup", Logger: slog.New(slog.DiscardHandler), OnFailure: func(err error) { t.Error(err) }}
	if _, err := OpenReadOnly(options); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "through number 1, but now it ends with 0") {
		t.Errorf("for reading: %v", err)
	}
	if _, err := Open(options); !errors.Is(err, ErrDamaged) {
		t.Errorf("for writing: %v", err)
	}
	after := listing(t, fs, "/backup")
	delete(after, "/backup/LOCK")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
}

// A snapshot that can't be written is no end of the store; what one has left is
// removed.
func TestFailedSnapshot(t *testing.T) {
	dir := t.TempDir()
	full := &fullFor{FS: vfs.Default, below: filepath.Join(dir, snapshotsName)}
	options := Options{FS: full, Dir: dir, Logger: slog.New(slog.DiscardHandler), OnFailure: func(err error) { t.Error(err) }}
	x, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	newWriter(t, x).publish(message("g", "one"))
	if _, err := x.Snapshot(); err != nil {
		t.Fatal(err)
	}
	full.full = true
	if _, err := x.Snapshot(); !errors.Is(err, errNoRoom) {
		t.Errorf("a snapshot on a full disk: %v", err)
	}
	newWriter(t, x).publish(message("g", "two"))
	mustClose(t, x)
	full.full = false
	x, err = Open(options)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, x)
	if _, err := os.Stat(full.below); !isNotExist(err) {
		t.Errorf("what was left of snapshots: %v", err)
	}
}

var errNoRoom = errors.New("no room")

// fullFor is a file system that has no room below a directory.
type fullFor struct {
	vfs.FS
	below string
	full  bool
}

func (f *fullFor) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if f.full && strings.HasPrefix(name, f.below) {
		return nil, errNoRoom
	}
	return f.FS.Create(name, category)
}
