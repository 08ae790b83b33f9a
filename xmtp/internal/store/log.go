package store

import (
	"errors"
	"io"
	"sync"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// loggedVFS is a file system whose write-ahead logs are [logFile]s.
type loggedVFS struct{ vfs.VFS }

func (l loggedVFS) Open(string, vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return nil, 0, sqlite3.CANTOPEN // SQLite calls OpenFilename
}

func (l loggedVFS) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	log := flags&vfs.OPEN_WAL != 0
	f, flags, err := vfsutil.WrapOpenFilename(l.VFS, name, flags)
	if err != nil || !log {
		return f, flags, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, flags, errors.Join(err, f.Close())
	}
	return &logFile{File: f, high: size, size: size, empty: size == 0}, flags, nil
}

// logFile is a write-ahead log. SQLite writes it in pieces of 24 and 4,096 bytes,
// which share blocks; written one by one each block would be decrypted, encrypted and
// written three times. So what follows each other is collected and written in whole
// blocks.
//
// It also lets SQLite go on without waiting for the disk: while deferring is set,
// Sync only writes, and who wants to know what was committed on the disk calls persist.
type logFile struct {
	vfs.File

	persisting sync.Mutex

	deferring bool
	// empty tells that there was nothing in the file when it was begun anew. If there
	// was, its beginning has to reach the disk before what follows, lest the two be
	// taken for one log.
	empty bool

	// What was written last: from a block's border on. The part from dirty on is not
	// in the file yet.
	start   int64
	tail    []byte
	dirty   int
	written int // how often it was written
	// size is the file's, or less. It grows by zeros in larger steps: a sync of a file
	// that has grown writes down how long it is, which takes as long again.
	size int64
	// high is up to where the file has something that may count.
	high int64
}

// maxTail is how much is collected.
const maxTail = 1 << 20

func (f *logFile) end() int64 { return f.start + int64(len(f.tail)) }

func (f *logFile) WriteAt(p []byte, offset int64) (n int, err error) {
	if offset < f.start || offset > f.end() || len(f.tail) > maxTail {
		if err := f.move(offset); err != nil {
			return 0, err
		}
	}
	at := int(offset - f.start)
	f.dirty = min(f.dirty, at)
	n = copy(f.tail[at:], p)
	f.tail = append(f.tail, p[n:]...)
	f.high = max(f.high, f.end())
	f.written++
	return len(p), nil
}

// move begins to collect at another place.
func (f *logFile) move(offset int64) error {
	if err := f.flush(); err != nil {
		return err
	}
	if offset >= f.start && offset <= f.end() {
		return nil
	}
	start := offset &^ (cipherBlock - 1)
	head := make([]byte, offset-start)
	if _, err := f.File.ReadAt(head, start); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	f.start, f.tail, f.dirty = start, append(f.tail[:0], head...), len(head)
	return nil
}

// flush writes what is not in the file yet, and forgets all but the last block, which
// goes on.
func (f *logFile) flush() error {
	if f.dirty == len(f.tail) {
		return nil
	}
	from := f.dirty &^ (cipherBlock - 1)
	data := f.tail
	if f.end() == f.high {
		// Nothing that counts stands behind it.
		data = append(data, make([]byte, -len(data)&(cipherBlock-1))...)
	}
	f.allocate(f.start + int64(len(data)))
	if err := f.write(data[from:], f.start+int64(from)); err != nil {
		return err
	}
	whole := len(f.tail) &^ (cipherBlock - 1)
	f.tail = append(f.tail[:0], f.tail[whole:]...)
	f.start, f.dirty = f.start+int64(whole), len(f.tail)
	return nil
}

// write writes blocks at once, though they are encrypted one by one.
func (f *logFile) write(data []byte, offset int64) error {
	below, gathers := f.below().(*wholeBlocksFile)
	if gathers {
		below.gathering = true
		defer func() { below.gathering = false }()
	}
	_, err := f.File.WriteAt(data, offset)
	if gathers {
		if writeErr := below.write(); err == nil {
			err = writeErr
		}
	}
	return err
}

// below is the file without the encryption, if there is one.
func (f *logFile) below() vfs.File {
	if w, ok := f.File.(vfs.FileUnwrap); ok {
		return w.Unwrap()
	}
	return f.File
}

var zeros [64 << 10]byte

// maxRoom is how much room is made at once.
const maxRoom = 1 << 20

// allocate makes as much room again behind what is to be written, if that makes the file
// grow. What stands there then is no entry of a log, decrypted or not.
func (f *logFile) allocate(end int64) {
	if end <= f.size {
		return
	}
	f.size = end
	below := f.below()
	for room := min(end, maxRoom); room > 0; room -= int64(len(zeros)) {
		n, err := below.WriteAt(zeros[:min(room, int64(len(zeros)))], f.size)
		f.size += int64(n)
		if err != nil {
			return // there is none; what is written says so itself
		}
	}
}

func (f *logFile) ReadAt(p []byte, offset int64) (n int, err error) {
	if offset >= f.end() || offset+int64(len(p)) <= f.start {
		return f.File.ReadAt(p, offset)
	}
	if offset < f.start {
		n, err = f.File.ReadAt(p[:f.start-offset], offset)
		if err != nil {
			return n, err
		}
	}
	n += copy(p[n:], f.tail[offset+int64(n)-f.start:])
	if n == len(p) {
		return n, nil
	}
	more, err := f.File.ReadAt(p[n:], offset+int64(n))
	return n + more, err
}

func (f *logFile) Size() (int64, error) {
	size, err := f.File.Size()
	return max(size, f.end()), err
}

func (f *logFile) Truncate(size int64) error {
	f.empty = false
	if err := f.flush(); err != nil && size > 0 {
		return err
	}
	clear(f.tail) // secrets
	f.start, f.tail, f.dirty, f.high, f.size = 0, nil, 0, size, size
	if below, ok := f.below().(*wholeBlocksFile); ok {
		below.blocks = nil // a client that rests needs no room
	}
	if err := f.File.Truncate(size); err != nil {
		return err
	}
	f.empty = size == 0
	return nil
}

func (f *logFile) Sync(flags vfs.SyncFlag) error {
	if err := f.flush(); err != nil {
		return err
	}
	if f.deferring && f.empty {
		return nil
	}
	return f.persist(flags)
}

// persist brings what was flushed to the disk. It may be called at any time.
func (f *logFile) persist(flags vfs.SyncFlag) error {
	f.persisting.Lock()
	defer f.persisting.Unlock()
	return f.File.Sync(flags)
}

func (f *logFile) Close() error {
	return errors.Join(f.flush(), f.File.Close())
}

var (
	_ vfs.VFSFilename = loggedVFS{}
	_ vfs.File        = (*logFile)(nil)
)
