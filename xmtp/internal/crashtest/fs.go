// Package crashtest is a file system for SQLite in memory whose power can be
// cut at every operation, for tests of what a crash leaves behind.
//
// It remembers what was synced. What was not may be there after a cut, or not,
// or a sector of it, as on a disk with a cache that writes in any order.
package crashtest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// SectorSize is what a cut leaves whole: a sector is written or it is not.
const SectorSize = 512

// ErrPowerCut is the reason of everything that fails after a cut.
var ErrPowerCut = errors.New("power cut")

// A Fault is what goes wrong with a disk while the power stays. Errors are those of
// the operating system.
type Fault int

const (
	// FailOnce lets one operation fail: EIO. If that is a sync, what it was to bring to
	// the disk may be there or not, and no later sync tries again, as with Linux.
	FailOnce Fault = iota + 1
	// FailRead lets one read fail: EIO.
	FailRead
	// Full lets from then on everything fail that needs more room: ENOSPC.
	Full
	// ReadOnly lets from then on every change fail: EROFS.
	ReadOnly
)

// FS is a file system. It is safe for use by several goroutines.
type FS struct {
	name string

	mu sync.Mutex
	// What programs see, and what a cut can't take away.
	files, durable map[string]*inode
	ops, reads     int
	cutAt          int // ops at which the power goes; 0 for never
	cut            bool
	onCut          func()
	full, readOnly bool
	hold           func() // before the next sync
	fault          Fault
	faultAt        int // ops, or reads, at which it comes; 0 for never
	boot           int // files opened before the last restart are dead
}

// inode is a file's content.
type inode struct {
	content []byte // as programs see it
	synced  []byte
	pending []change // between the two, in order
	holders map[*file]vfs.LockLevel
}

// change is a write, or a new size.
type change struct {
	offset int64
	data   []byte // nil for a new size, which offset is
}

var created atomic.Int64

// New makes an empty file system and registers it with SQLite until the test ends.
func New(tb testing.TB) *FS {
	fs := &FS{
		name:    "crashtest" + strconv.FormatInt(created.Add(1), 10),
		files:   map[string]*inode{},
		durable: map[string]*inode{},
	}
	vfs.Register(fs.name, fs)
	tb.Cleanup(func() { vfs.Unregister(fs.name) })
	return fs
}

// Name is the one to give to SQLite.
func (fs *FS) Name() string { return fs.name }

// Ops returns how many operations have changed, or synced, something so far.
func (fs *FS) Ops() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.ops
}

// Reads returns how many reads there have been so far.
func (fs *FS) Reads() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.reads
}

// CutAt lets the n-th operation from now, counted from 1, be the first that does
// not succeed because the power is gone. then, which may be nil, is called at
// that moment and must not use the file system.
func (fs *FS) CutAt(n int, then func()) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.cutAt, fs.onCut = fs.ops+n, then
}

// FaultAt lets a fault come with the n-th operation from now, or for FailRead with
// the n-th read, counted from 1.
func (fs *FS) FaultAt(n int, f Fault) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.fault, fs.faultAt = f, n+*fs.counter(f)
}

// counter counts what a fault comes with.
func (fs *FS) counter(f Fault) *int {
	if f == FailRead {
		return &fs.reads
	}
	return &fs.ops
}

// Faulted tells whether the fault of FaultAt has come.
func (fs *FS) Faulted() bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.faultAt > 0 && *fs.counter(fs.fault) >= fs.faultAt
}

// Repair ends all faults.
func (fs *FS) Repair() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.repair()
}

func (fs *FS) repair() { fs.full, fs.readOnly, fs.fault, fs.faultAt = false, false, 0, 0 }

// HoldSync lets the next sync begin only when wait has returned.
func (fs *FS) HoldSync(wait func()) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.hold = wait
}

// held waits as HoldSync says.
func (fs *FS) held() {
	fs.mu.Lock()
	wait := fs.hold
	fs.hold = nil
	fs.mu.Unlock()
	if wait != nil {
		wait()
	}
}

// Cut cuts the power now.
func (fs *FS) Cut() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.cut = true
}

// WasCut tells whether the power is gone.
func (fs *FS) WasCut() bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.cut
}

// Loss says what becomes of a change that was not synced when the power went.
type Loss func() (kept bool)

// LoseNothing is a process that was killed while the system went on.
func LoseNothing() Loss { return func() bool { return true } }

// LoseUnsynced drops all that was not synced.
func LoseUnsynced() Loss { return func() bool { return false } }

// LoseSome keeps or drops each sector and name by lot.
func LoseSome(seed uint64) Loss {
	lots := rand.New(rand.NewPCG(seed, 0))
	return func() bool { return lots.Uint64()&1 == 1 }
}

// Restart brings the power back. All files that were open are dead.
func (fs *FS) Restart(loss Loss) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	after := map[string]*inode{}
	names := maps.Clone(fs.files)
	maps.Copy(names, fs.durable)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		node := fs.files[name]
		if durable := fs.durable[name]; durable != node && !loss() {
			node = durable
		}
		if node != nil {
			content := node.afterCut(loss)
			after[name] = &inode{content: content, synced: slices.Clone(content)}
		}
	}
	fs.load(after)
}

// afterCut returns what the disk holds of a file.
func (n *inode) afterCut(loss Loss) []byte {
	content := slices.Clone(n.synced)
	for _, c := range n.pending {
		if c.data == nil {
			if loss() {
				content = resize(content, c.offset)
			}
			continue
		}
		for start := int64(0); start < int64(len(c.data)); {
			// Up to the next border of sectors on the disk.
			end := min(int64(len(c.data)), start+SectorSize-(c.offset+start)%SectorSize)
			if loss() {
				content = write(content, c.data[start:end], c.offset+start)
			}
			start = end
		}
	}
	return content
}

// resize changes the length in place; what comes anew is zero.
func resize(content []byte, size int64) []byte {
	if size <= int64(len(content)) {
		return content[:size]
	}
	return append(content, make([]byte, size-int64(len(content)))...)
}

func write(content, data []byte, offset int64) []byte {
	if end := offset + int64(len(data)); end > int64(len(content)) {
		content = resize(content, end)
	}
	copy(content[offset:], data)
	return content
}

// An Image is the content of all files at some time.
type Image map[string][]byte

// Image returns what programs see.
func (fs *FS) Image() Image {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	image := Image{}
	for name, n := range fs.files {
		image[name] = slices.Clone(n.content)
	}
	return image
}

// Load replaces everything by an image. All files that were open are dead, the
// power is back and nothing is out of order.
func (fs *FS) Load(image Image) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	files := map[string]*inode{}
	for name, content := range image {
		files[name] = &inode{content: slices.Clone(content), synced: slices.Clone(content)}
	}
	fs.load(files)
}

func (fs *FS) load(files map[string]*inode) {
	fs.files, fs.durable = files, maps.Clone(files)
	fs.cut, fs.cutAt, fs.onCut = false, 0, nil
	fs.repair()
	fs.boot++
}

// available fails if the power is gone.
func (fs *FS) available() error {
	if fs.cut {
		return ErrPowerCut
	}
	return nil
}

// errLast is an ErrPowerCut for the operation during which the power went, which
// may have come through to the disk in part.
var errLast = fmt.Errorf("%w during this", ErrPowerCut)

// operation counts a change.
func (fs *FS) operation() error {
	if err := fs.available(); err != nil {
		return err
	}
	fs.ops++
	if fs.ops == fs.cutAt {
		fs.cut = true
		if fs.onCut != nil {
			fs.onCut()
		}
		return errLast
	}
	if fs.ops == fs.faultAt && fs.fault != FailRead {
		switch fs.fault {
		case FailOnce:
			return errIO
		case Full:
			fs.full = true
		case ReadOnly:
			fs.readOnly = true
		}
	}
	if fs.readOnly {
		return errReadOnly
	}
	return nil
}

// What the operating system says of faults.
var (
	errIO       = &fs.PathError{Op: "operation", Path: "file", Err: syscall.EIO}
	errFull     = &fs.PathError{Op: "write", Path: "file", Err: syscall.ENOSPC}
	errReadOnly = &fs.PathError{Op: "change", Path: "file", Err: syscall.EROFS}
)

// Open is for SQLite.
func (fs *FS) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if err := fs.available(); err != nil {
		return nil, flags, err
	}
	node := fs.files[name]
	switch {
	case node != nil && flags&vfs.OPEN_EXCLUSIVE != 0, node == nil && flags&vfs.OPEN_CREATE == 0:
		return nil, flags, sqlite3.CANTOPEN
	case fs.readOnly && flags&vfs.OPEN_READWRITE != 0:
		return nil, flags, errReadOnly
	case node == nil:
		if err := fs.operation(); err != nil {
			return nil, flags, err
		}
		if fs.full {
			return nil, flags, errFull
		}
		node = &inode{}
		fs.files[name] = node
	}
	f := &file{fs: fs, boot: fs.boot, name: name, node: node, flags: flags}
	return f, flags, nil
}

// Delete is for SQLite.
func (fs *FS) Delete(name string, syncDir bool) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if err := fs.available(); err != nil {
		return err
	}
	if fs.files[name] == nil {
		return sqlite3.IOERR_DELETE_NOENT
	}
	if err := fs.operation(); err != nil {
		if errors.Is(err, errLast) {
			delete(fs.files, name) // or not, see Restart
		}
		return err
	}
	delete(fs.files, name)
	if syncDir {
		fs.durable = maps.Clone(fs.files)
	}
	return nil
}

// Access is for SQLite.
func (fs *FS) Access(name string, _ vfs.AccessFlag) (bool, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.files[name] != nil, fs.available()
}

// FullPathname is for SQLite.
func (fs *FS) FullPathname(name string) (string, error) { return name, nil }

// file is an open file.
type file struct {
	fs    *FS
	boot  int
	name  string
	node  *inode
	flags vfs.OpenFlag
}

// alive fails if the file was opened before a restart.
func (f *file) alive() error {
	if f.boot != f.fs.boot {
		return ErrPowerCut
	}
	return f.fs.available()
}

// operation counts a change of the file.
func (f *file) operation() error {
	if err := f.alive(); err != nil {
		return err
	}
	return f.fs.operation()
}

func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	delete(f.node.holders, f)
	if f.flags&vfs.OPEN_DELETEONCLOSE != 0 && f.alive() == nil {
		delete(f.fs.files, f.name)
	}
	return nil
}

func (f *file) ReadAt(p []byte, offset int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.alive(); err != nil {
		return 0, err
	}
	if f.fs.reads++; f.fs.fault == FailRead && f.fs.reads == f.fs.faultAt {
		return 0, errIO
	}
	if offset >= int64(len(f.node.content)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.content[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, offset int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	err := f.operation()
	if err == nil && f.fs.full && offset+int64(len(p)) > int64(len(f.node.content)) {
		err = errFull
	}
	if err == nil || errors.Is(err, errLast) {
		f.node.pending = append(f.node.pending, change{offset, slices.Clone(p)})
	}
	if err != nil {
		return 0, err
	}
	f.node.content = write(f.node.content, p, offset)
	return len(p), nil
}

func (f *file) Truncate(size int64) error { return f.resize(size) }

// SizeHint makes the file at least as large.
func (f *file) SizeHint(size int64) error {
	if now, err := f.Size(); err != nil || size <= now {
		return err
	}
	return f.resize(size)
}

func (f *file) resize(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	err := f.operation()
	if err == nil && f.fs.full && size > int64(len(f.node.content)) {
		err = errFull
	}
	if err == nil || errors.Is(err, errLast) {
		f.node.pending = append(f.node.pending, change{offset: size})
	}
	if err != nil {
		return err
	}
	f.node.content = resize(f.node.content, size)
	return nil
}

// Sync makes the content durable; the first one of a log or journal the names
// of all files, too, because SQLite's rules ask that of a file system.
func (f *file) Sync(vfs.SyncFlag) error {
	f.fs.held()
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.operation(); err != nil {
		if errors.Is(err, syscall.EIO) {
			f.node.synced, f.node.pending = f.node.afterCut(LoseSome(uint64(f.fs.ops))), nil
		}
		return err
	}
	// Only what has changed, because a log is long and synced often.
	for _, c := range f.node.pending {
		if c.data == nil {
			f.node.synced = resize(f.node.synced, c.offset)
		} else {
			f.node.synced = write(f.node.synced, c.data, c.offset)
		}
	}
	f.node.pending = nil
	const logs = vfs.OPEN_MAIN_JOURNAL | vfs.OPEN_SUPER_JOURNAL | vfs.OPEN_WAL
	if f.flags&logs != 0 && f.flags&vfs.OPEN_CREATE != 0 {
		f.flags &^= vfs.OPEN_CREATE
		f.fs.durable = maps.Clone(f.fs.files)
	}
	return nil
}

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.content)), f.alive()
}

func (f *file) Lock(level vfs.LockLevel) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.alive(); err != nil {
		return err
	}
	for other, held := range f.node.holders {
		if other != f && (held > vfs.LOCK_RESERVED || level > vfs.LOCK_RESERVED || held == vfs.LOCK_RESERVED && level == vfs.LOCK_RESERVED) {
			return sqlite3.BUSY
		}
	}
	if f.node.holders == nil {
		f.node.holders = map[*file]vfs.LockLevel{}
	}
	f.node.holders[f] = max(level, f.node.holders[f])
	return nil
}

func (f *file) Unlock(level vfs.LockLevel) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if level == vfs.LOCK_NONE {
		delete(f.node.holders, f)
	} else if f.node.holders[f] > level {
		f.node.holders[f] = level
	}
	return nil
}

func (f *file) CheckReservedLock() (bool, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	for _, held := range f.node.holders {
		if held >= vfs.LOCK_RESERVED {
			return true, nil
		}
	}
	return false, f.alive()
}

func (f *file) SectorSize() int { return SectorSize }

// DeviceCharacteristics are those that SQLite assumes of any disk: what is
// beside the bytes that are written is not touched.
func (f *file) DeviceCharacteristics() vfs.DeviceCharacteristic {
	return vfs.IOCAP_POWERSAFE_OVERWRITE
}

var (
	_ vfs.VFS          = (*FS)(nil)
	_ vfs.FileSizeHint = (*file)(nil)
)
