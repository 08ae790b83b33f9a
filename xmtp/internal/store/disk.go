package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// Problems of the disk. Nothing of the transaction was stored, and what is in memory
// is as it was before; the next one may succeed.
var (
	// ErrDiskFull: there is no room, or no more is granted.
	ErrDiskFull = errors.New("the disk is full")
	// ErrReadOnly: the file, its folder or the disk can't be written.
	ErrReadOnly = errors.New("the database can't be written")
	// ErrDiskFault: opening, reading, writing or syncing failed for another reason.
	ErrDiskFault = errors.New("the disk has failed")
)

// IsDisk tells whether an error is one of the disk.
func IsDisk(err error) bool {
	return errors.Is(err, ErrDiskFull) || errors.Is(err, ErrReadOnly) || errors.Is(err, ErrDiskFault)
}

// What operating systems say, beside the numbers of their own in fullErrors and
// readOnlyErrors.
var (
	full     = append([]error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}, fullErrors...)
	readOnly = append([]error{syscall.EROFS, fs.ErrPermission}, readOnlyErrors...)
)

func isAny(err error, reasons []error) bool {
	return slices.ContainsFunc(reasons, func(reason error) bool { return errors.Is(err, reason) })
}

// Explain makes errors of the operating system, about a file beside the database,
// comparable with those of the disk.
func Explain(err error) error {
	switch {
	case isAny(err, full):
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	case isAny(err, readOnly):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}

// translate makes errors of SQLite that a caller decides on comparable.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sqlite3.FULL):
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	case errors.Is(err, sqlite3.READONLY), errors.Is(err, sqlite3.PERM):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case errors.Is(err, sqlite3.IOERR), errors.Is(err, sqlite3.CANTOPEN):
		return fmt.Errorf("%w: %w", ErrDiskFault, err)
	case errors.Is(err, sqlite3.NOTADB), errors.Is(err, sqlite3.CORRUPT):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case errors.Is(err, sqlite3.BUSY):
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return err
}

// disk tells SQLite in its own terms why an operation has failed: it reports what
// it did last, which after a failure is the clearing up. It also does for logs what
// SQLite leaves to the file system: it makes their names durable, and after a failed
// sync what that was to bring to the disk.
type disk struct{ vfs.VFS }

// onDisk is the file system of a name as the database uses it.
func onDisk(name string) vfs.VFS { return disk{vfs.Find(name)} }

func inTerms(err error) error {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return err
	case isAny(err, full):
		return vfs.SystemError(err, sqlite3.FULL)
	case isAny(err, readOnly):
		return vfs.SystemError(err, sqlite3.READONLY)
	}
	return err
}

func (d disk) Open(string, vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return nil, 0, sqlite3.CANTOPEN // SQLite calls OpenFilename
}

func (d disk) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpenFilename(d.VFS, name, flags)
	if err != nil {
		return nil, out, inTerms(err)
	}
	const logs = vfs.OPEN_MAIN_JOURNAL | vfs.OPEN_SUPER_JOURNAL | vfs.OPEN_WAL
	if flags&logs == 0 {
		return &diskFile{File: f}, out, nil
	}
	type named interface {
		vfs.File
		Name() string // as an [os.File] has it
	}
	log := &syncedLog{diskFile: diskFile{f}}
	if file, ok := f.(named); ok && flags&vfs.OPEN_CREATE != 0 {
		log.newIn = filepath.Dir(file.Name())
	}
	return log, out, nil
}

func (d disk) Delete(name string, syncDir bool) error { return inTerms(d.VFS.Delete(name, syncDir)) }

type diskFile struct{ vfs.File }

func (f *diskFile) WriteAt(p []byte, offset int64) (int, error) {
	n, err := f.File.WriteAt(p, offset)
	return n, inTerms(err)
}

func (f *diskFile) Truncate(size int64) error { return inTerms(f.File.Truncate(size)) }

func (f *diskFile) Sync(flags vfs.SyncFlag) error { return inTerms(f.File.Sync(flags)) }

func (f *diskFile) SizeHint(size int64) error { return inTerms(vfsutil.WrapSizeHint(f.File, size)) }

func (f *diskFile) HasMoved() (bool, error) { return vfsutil.WrapHasMoved(f.File) }

func (f *diskFile) LockState() vfs.LockLevel { return vfsutil.WrapLockState(f.File) }

// syncedLog is a log on the disk. After a failed sync Linux takes what was written for
// written, and the next sync succeeds without it: what comes then would stand behind a
// hole, and be lost with all that follows. So what was written since the last good sync
// is written once more before anything else.
//
// Sync may be called while the others are.
type syncedLog struct {
	diskFile

	mu        sync.Mutex
	newIn     string // the folder in which its name may not be durable yet
	low, high int64  // what no sync was asked to bring to the disk lies between
	failed    bool   // the last sync, and nothing has been done about it yet
	lost      []byte // what lies between then; nil if it has not been read
}

// add notes that something from low to high is not on the disk.
func (f *syncedLog) add(low, high int64) {
	switch {
	case low == high:
	case f.low == f.high:
		f.low, f.high = low, high
	default:
		f.low, f.high = min(f.low, low), max(f.high, high)
	}
}

// save reads what a failed sync may have lost, while the system still has it.
func (f *syncedLog) save() error {
	lost := make([]byte, f.high-f.low)
	n, err := f.File.ReadAt(lost, f.low)
	if err == nil || errors.Is(err, io.EOF) {
		f.lost, err = lost[:n], nil
	}
	return err
}

// restore writes what a failed sync may have lost.
func (f *syncedLog) restore() error {
	if !f.failed {
		return nil
	}
	if f.lost == nil {
		if err := f.save(); err != nil {
			return err
		}
	}
	if _, err := f.File.WriteAt(f.lost, f.low); err != nil {
		return err
	}
	f.failed, f.lost = false, nil
	return nil
}

func (f *syncedLog) WriteAt(p []byte, offset int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.restore(); err != nil {
		return 0, inTerms(err)
	}
	f.add(offset, offset+int64(len(p)))
	return f.diskFile.WriteAt(p, offset)
}

func (f *syncedLog) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.restore(); err != nil {
		return inTerms(err)
	}
	f.low, f.high = min(f.low, size), min(f.high, size)
	return f.diskFile.Truncate(size)
}

func (f *syncedLog) Sync(flags vfs.SyncFlag) error {
	f.mu.Lock()
	if err := f.restore(); err != nil {
		f.mu.Unlock()
		return inTerms(err)
	}
	low, high, newIn := f.low, f.high, f.newIn
	f.low, f.high = 0, 0
	f.mu.Unlock()

	err := f.File.Sync(flags)
	if err == nil && newIn != "" {
		err = SyncDir(newIn)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.newIn = ""
		return nil
	}
	f.add(low, high)
	f.failed = true
	_ = f.save() // else it is tried again when it is needed
	return inTerms(err)
}

// SyncDir makes new names in a folder durable, where the system can.
func SyncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // it has no such thing
	}
	d, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil // one may write, but not read it
	}
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // not with this file system, whose names are as durable as it gets
	}
	return errors.Join(err, d.Close())
}

var (
	_ vfs.VFSFilename   = disk{}
	_ vfs.FileSizeHint  = (*diskFile)(nil)
	_ vfs.FileHasMoved  = (*diskFile)(nil)
	_ vfs.FileLockState = (*diskFile)(nil)
)
