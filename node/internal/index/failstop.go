package index

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
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
	if strings.HasPrefix(name, f.index.snapshots) {
		return err
	}
	if vfs.IsNoSpaceError(err) && strings.HasSuffix(name, ".sst") && f.index.serving.Load() {
		time.Sleep(tableRetry)
		return err
	}
	f.index.breakDown(fmt.Errorf("writing the store: %w", err))
	select {}
}

func (f *failStop) file(name string, file vfs.File, err error) (vfs.File, error) {
	if err := f.check(name, err); err != nil {
		return nil, err
	}
	return &failStopFile{file, f, name}, nil
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

// zeros are what a log is filled with.
var zeros [1 << 20]byte

// Preallocate reserves room in a file, and fills a log with zeros up to the size
// that it will have: else each sync of what is appended has to write down, too, how
// long the file is now, which takes as long again. A log that is used again is long
// enough.
func (f *failStopFile) Preallocate(offset, length int64) error {
	if err := f.File.Preallocate(offset, length); err != nil || !strings.HasSuffix(f.name, ".log") {
		return err // of a disk that is full, or can't reserve; nothing was written
	}
	return f.fs.check(f.name, f.fill(offset+length))
}

// fill makes the file as long as that, and syncs it.
func (f *failStopFile) fill(length int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= length {
		return err
	}
	for at := info.Size(); at < length; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(length-at, int64(len(zeros)))], at); err != nil {
			return err
		}
	}
	return f.File.Sync()
}

func (f *failStopFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.fs.check(f.name, err)
}

func (f *failStopFile) Close() error { return f.fs.check(f.name, f.File.Close()) }

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
