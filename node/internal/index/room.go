package index

import (
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A log that runs into the end of the disk can't be continued, so records are
// refused while there is still room to end in order.

const roomInterval = 100 * time.Millisecond

// room watches the free space of a disk, asking at most every roomInterval.
type room struct {
	fs      vfs.FS
	dir     string
	reserve uint64
	asked   atomic.Int64 // monotonic, in nanoseconds since start
	start   time.Time
	full    atomic.Bool
}

func newRoom(fs vfs.FS, dir string, reserve uint64) *room {
	r := &room{fs: fs, dir: dir, reserve: reserve, start: time.Now()}
	r.asked.Store(-int64(roomInterval))
	return r
}

func (r *room) check() error {
	if r.reserve > 0 {
		now, asked := int64(time.Since(r.start)), r.asked.Load()
		if now-asked >= int64(roomInterval) && r.asked.CompareAndSwap(asked, now) {
			// Where the question has no answer (some file systems), the disk's own error has to do.
			if usage, err := r.fs.GetDiskUsage(r.dir); err == nil {
				r.full.Store(usage.AvailBytes < r.reserve)
			}
		}
	}
	if r.full.Load() {
		return ErrDiskFull
	}
	return nil
}

// spare tells whether there is room to remove something, which takes a little at
// first. It asks each time.
func (r *room) spare() bool {
	if r.reserve == 0 {
		return true
	}
	usage, err := r.fs.GetDiskUsage(r.dir)
	return err != nil || usage.AvailBytes >= r.reserve/2
}
