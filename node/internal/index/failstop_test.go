package index

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
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
