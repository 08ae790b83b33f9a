package index

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// failStop is the file system of a store. After a write that
// failed nobody knows what the disk holds, so Pebble is never told of one: it
// would try again, panic or go on. The failure is reported and the writing
// goroutine stays where it is until the process ends.
//
// A snapshot is no part of the store: it may fail.
//
// Tables of an open store are an exception when the disk is full. They are made
// from what is in the log, under another name at each try.
type failStop struct {
	vfs.FS
	index *Index
}

// tableRetry is the least time between tries to write a table to a full disk.
const tableRetry = time.Second

func (f *failStop) check(name string, err error) error {
	if err == nil {
		return nil
	}
	if f.isSnapshot(name) {
		return err
	}
	if vfs.IsNoSpaceError(err) && strings.HasSuffix(name, ".sst") && f.index.serving.Load() {
		time.Sleep(tableRetry)
		return err
	}
	f.index.breakDown(fmt.Errorf("writing the store: %w", err))
	select {}
}

func (f *failStop) isSnapshot(name string) bool { return strings.HasPrefix(name, f.index.snapshots) }

func (f *failStop) file(name string, file vfs.File, err error) (vfs.File, error) {
	if err := f.check(name, err); err != nil {
		return nil, err
	}
	guarded := &failStopFile{file, f, name}
	if !strings.HasSuffix(name, ".log") || f.isSnapshot(name) || file.Fd() == vfs.InvalidFd {
		return guarded, nil
	}
	info, err := file.Stat()
	if err != nil {
		return nil, f.check(name, err)
	}
	return &logFile{failStopFile: guarded, length: info.Size()}, nil
}

func (f *failStop) Unwrap() vfs.FS { return f.FS }

func (f *failStop) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	// Pebble syncs the directory once for a manifest and for the marker that
	// names it. After a power cut there could be only the marker.
	if strings.HasPrefix(f.PathBase(name), "marker.manifest") {
		if err := syncDirectory(f, f.PathDir(name)); err != nil {
			return nil, err
		}
	}
	file, err := f.FS.Create(name, category)
	return f.file(name, file, err)
}

func (f *failStop) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(old, name, category)
	return f.file(name, file, err)
}

func (f *failStop) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return f.file(name, file, err)
}

func (f *failStop) Rename(old, name string) error {
	return f.check(name, f.FS.Rename(old, name))
}

// Remove leaves logs for later while Pebble opens the store.
func (f *failStop) Remove(name string) error {
	if strings.HasSuffix(name, ".log") && f.index.oldLogs.keep(name) {
		return nil
	}
	return f.FS.Remove(name)
}

// oldLogs are logs that are not needed any more. Pebble, opening a store, removes them
// when it may not have made its new one yet; without any log, which is how it would look
// if the process was killed then, a store is taken for damaged.
type oldLogs struct {
	mu     sync.Mutex
	opened bool
	names  []string
}

// keep tells whether a log is to be removed later.
func (l *oldLogs) keep(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.opened {
		l.names = append(l.names, name)
	}
	return !l.opened
}

// remove removes them when the store is open. One that can't be is found when it is
// opened next.
func (l *oldLogs) remove(fs vfs.FS) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range l.names {
		_ = fs.Remove(name)
	}
	l.opened, l.names = true, nil
}

type failStopFile struct {
	vfs.File
	fs   *failStop
	name string
}

func (f *failStopFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	return n, f.fs.check(f.name, err)
}

func (f *failStopFile) Sync() error { return f.fs.check(f.name, f.File.Sync()) }

func (f *failStopFile) SyncData() error { return f.fs.check(f.name, f.File.SyncData()) }

func (f *failStopFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.fs.check(f.name, err)
}

func (f *failStopFile) Close() error { return f.fs.check(f.name, f.File.Close()) }

// zeros are what a log is filled with at a time.
var zeros [1 << 20]byte

// A logFile on a disk is filled with zeros ahead of what is written to it: else each
// sync would have to write down, too, how long the file is now, which takes as long
// again. A log that is used again has its length.
type logFile struct {
	*failStopFile
	written, length int64
}

func (f *logFile) Write(b []byte) (int, error) {
	f.written += int64(len(b))
	if f.written > f.length {
		// A disk that is full has room for the rest of the log, or it fails below.
		if _, err := f.WriteAt(zeros[:], f.written); err != nil && !vfs.IsNoSpaceError(err) {
			return 0, f.fs.check(f.name, err)
		}
		f.length = f.written + int64(len(zeros))
	}
	return f.failStopFile.Write(b)
}

// readOnly is a file system on which nothing can be changed.
type readOnly struct{ vfs.FS }

var errReadOnly = errors.New("opened for reading only")

func (readOnly) Create(string, vfs.DiskWriteCategory) (vfs.File, error) { return nil, errReadOnly }
func (readOnly) Link(string, string) error                              { return errReadOnly }
func (readOnly) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, errReadOnly
}
func (readOnly) Remove(string) error         { return errReadOnly }
func (readOnly) RemoveAll(string) error      { return errReadOnly }
func (readOnly) Rename(string, string) error { return errReadOnly }
func (readOnly) ReuseForWrite(string, string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, errReadOnly
}
func (readOnly) MkdirAll(string, os.FileMode) error { return errReadOnly }

// Lock does nothing: whoever opens a store so holds the lock of its directory.
func (readOnly) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }
