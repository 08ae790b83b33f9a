package index

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The store's log is longer than what was written, so that syncs are cheap; and what
// was written is found among the zeros by whoever opens the store after a power
// cut, as a copy of the directory is.
func TestLogIsFilled(t *testing.T) {
	base := t.TempDir()
	x, err := openDir(filepath.Join(base, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, x)
	w := newWriter(t, x)
	const messages, size = 300, 4 << 10
	for i := range messages {
		w.publish(message("g", fmt.Sprint(i, string(make([]byte, size)))))
		length, err := logLength(filepath.Join(base, "data"))
		if err != nil {
			t.Fatal(err)
		}
		if length < int64(len(zeros)) {
			t.Fatalf("after %d messages the longest log has %d bytes", i+1, length)
		}
	}
	if err := os.CopyFS(filepath.Join(base, "copy"), os.DirFS(filepath.Join(base, "data"))); err != nil {
		t.Fatal(err)
	}
	after, err := openDir(filepath.Join(base, "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, after)
	if number, _ := after.Last(); number != messages {
		t.Errorf("the newest record is %d, want %d", number, messages)
	}
}

func logLength(dir string) (longest int64, err error) {
	logs, err := filepath.Glob(filepath.Join(dir, storeName, "*.log"))
	for _, name := range logs {
		info, err := os.Stat(name)
		if err != nil {
			return 0, err
		}
		longest = max(longest, info.Size())
	}
	return longest, err
}

// While a store is opened there is a log at every moment, also when the old ones are
// removed before the new one is made: a process that is killed then leaves no store that
// counts as damaged. When it is open the old ones are gone.
func TestKilledWhileOpening(t *testing.T) {
	fs := &slowLogs{FS: vfs.NewMem(), t: t, removed: make(chan struct{}, 1)}
	x := open(t, fs)
	fill(t, x)
	mustClose(t, x)
	before := fs.logs()
	fs.slow.Store(true)
	x = open(t, fs)
	defer mustClose(t, x)
	for _, name := range fs.logs() {
		if slices.Contains(before, name) {
			t.Errorf("%s is left", name)
		}
	}
	if report := verify(t, x); report.Count != 0 || report.Newest != 12 {
		t.Errorf("%+v", report)
	}
}

// slowLogs makes a log only when another one was removed, if it is at all.
type slowLogs struct {
	vfs.FS
	t       *testing.T
	slow    atomic.Bool
	removed chan struct{}
}

func (s *slowLogs) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if s.slow.Load() && strings.HasSuffix(name, ".log") {
		select {
		case <-s.removed:
		case <-time.After(200 * time.Millisecond):
		}
	}
	return s.FS.Create(name, category)
}

func (s *slowLogs) Remove(name string) error {
	err := s.FS.Remove(name)
	if strings.HasSuffix(name, ".log") {
		if len(s.logs()) == 0 {
			s.t.Error("there is no log")
		}
		select {
		case s.removed <- struct{}{}:
		default:
		}
	}
	return err
}

func (s *slowLogs) logs() (names []string) {
	all, err := s.List("/data/store")
	if err != nil {
		s.t.Error(err)
	}
	return slices.DeleteFunc(all, func(name string) bool { return !strings.HasSuffix(name, ".log") })
}
