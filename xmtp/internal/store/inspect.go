package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// state is what is found of a database.
type state int

const (
	stateNew    state = iota // nothing was stored yet
	stateClosed              // it was closed and has no log
	stateOpen                // it may have a log that a crash has left
)

var inspections atomic.Int64

// inspect looks at the database, as a crash may have left it, without changing
// a file: SQLite, opening one with the wrong key, would throw its log away.
func inspect(ctx context.Context, o Options) (s state, err error) {
	if o.VFS == "" {
		if s, ok := glance(o); ok {
			return s, nil
		}
	}
	scratch := &unwritten{VFS: onDisk(o.VFS), files: map[string]*unwrittenContent{}}
	defer func() { err = errors.Join(err, scratch.close()) }()
	name := "inspect-" + strconv.FormatInt(inspections.Add(1), 10)
	if o.Key != nil {
		vfs.Register(name, encrypt(scratch))
	} else {
		vfs.Register(name, scratch)
	}
	defer vfs.Unregister(name)
	conn, err := connect(ctx, o, name)
	if o.Key != nil && scratch.plain {
		err = fmt.Errorf("%w: it is not encrypted", ErrForeign)
	}
	if conn == nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err != nil {
		return 0, err
	}
	if _, err := conn.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true); err != nil {
		return 0, fmt.Errorf("opening the database: %w", translate(err))
	}
	return judge(conn)
}

// judge says whose database it is.
func judge(conn *sqlite3.Conn) (state, error) {
	var facts [3]int64
	var err error
	for i, name := range []string{"application_id", "user_version", "schema_version"} {
		if err == nil {
			facts[i], err = pragma(conn, name)
		}
	}
	id, version := facts[0], facts[1]
	switch {
	case IsDisk(translate(err)):
		return 0, fmt.Errorf("opening the database: %w", translate(err))
	case errors.Is(err, sqlite3.NOTADB):
		return 0, ErrWrongKey
	case err != nil:
		return 0, fmt.Errorf("%w: %w", ErrDamaged, err)
	case facts == [3]int64{}, facts == [3]int64{applicationID}:
		return stateNew, nil // a crash came before the tables
	case id != applicationID:
		return 0, ErrForeign
	case version > int64(len(migrations)):
		return 0, fmt.Errorf("%w: its version is %d, this one knows %d", ErrNewer, version, len(migrations))
	}
	return stateOpen, nil
}

// glance is enough for a database of ours that was closed, or is not there: opening
// it twice takes much longer. It says whether it was.
func glance(o Options) (s state, ok bool) {
	for _, log := range []string{o.Path + "-wal", o.Path + "-journal"} {
		if _, err := os.Lstat(log); !errors.Is(err, fs.ErrNotExist) {
			return 0, false
		}
	}
	// The log of a file that is linked to is elsewhere.
	info, err := os.Lstat(o.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return stateNew, true
	case err != nil || !info.Mode().IsRegular():
		return 0, false
	case info.Size() == 0:
		return stateNew, true
	}
	f, err := os.Open(o.Path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	head := make(vfsutil.SliceFile, cipherBlock)
	if _, err := io.ReadFull(f, head); err != nil {
		return 0, false
	}
	if o.Key != nil {
		if err := decrypt(head, o.Key); err != nil {
			return 0, false
		}
	}
	// See "The Database Header" of SQLite's file format.
	id, version := binary.BigEndian.Uint32(head[68:]), binary.BigEndian.Uint32(head[60:])
	return stateClosed, string(head[:16]) == sqliteMagic && id == applicationID && 0 < version && version <= uint32(len(migrations))
}

// sqliteMagic is what SQLite's files begin with.
const sqliteMagic = "SQLite format 3\x00"

// unwritten is a file system over another one that keeps all changes to itself.
type unwritten struct {
	vfs.VFS
	files map[string]*unwrittenContent
	plain bool // the database is an SQLite file that is not encrypted
}

// unwrittenContent is a file's content: blocks that were changed, over those of
// the base up to a limit.
type unwrittenContent struct {
	base    vfs.File // nil if there is none
	limit   int64
	size    int64
	changed map[int64]*[unwrittenBlock]byte
	deleted bool
}

const unwrittenBlock = 4096

func (u *unwritten) close() (err error) {
	for _, c := range u.files {
		if c.base != nil {
			err = errors.Join(err, c.base.Close())
		}
	}
	return err
}

func (u *unwritten) Open(string, vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return nil, 0, sqlite3.CANTOPEN // SQLite calls OpenFilename
}

func (u *unwritten) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	c := u.files[name.String()]
	if c == nil {
		c = &unwrittenContent{changed: map[int64]*[unwrittenBlock]byte{}}
		if err := u.attach(c, name, flags); err != nil {
			return nil, flags, err
		}
		u.files[name.String()] = c
	}
	if flags&vfs.OPEN_MAIN_DB != 0 {
		head := make([]byte, 16)
		if _, err := c.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
			return nil, flags, err
		}
		u.plain = string(head) == sqliteMagic
	}
	c.deleted = false
	return c, flags, nil
}

// attach opens the base's file, if it has one.
func (u *unwritten) attach(c *unwrittenContent, name *vfs.Filename, flags vfs.OpenFlag) error {
	exists, err := u.VFS.Access(name.String(), vfs.ACCESS_EXISTS)
	if err != nil || !exists {
		return err
	}
	const access = vfs.OPEN_READWRITE | vfs.OPEN_CREATE | vfs.OPEN_EXCLUSIVE | vfs.OPEN_DELETEONCLOSE
	f, _, err := vfsutil.WrapOpenFilename(u.VFS, name, flags&^access|vfs.OPEN_READONLY)
	if err != nil {
		return err
	}
	if c.size, err = f.Size(); err != nil {
		return errors.Join(err, f.Close())
	}
	c.base, c.limit = f, c.size
	return nil
}

func (u *unwritten) Delete(name string, _ bool) error {
	c := u.files[name]
	if c == nil {
		c = &unwrittenContent{changed: map[int64]*[unwrittenBlock]byte{}}
		u.files[name] = c
	}
	c.deleted = true
	return c.Truncate(0)
}

func (u *unwritten) Access(name string, flags vfs.AccessFlag) (bool, error) {
	if c := u.files[name]; c != nil {
		return !c.deleted, nil
	}
	return u.VFS.Access(name, flags)
}

func (c *unwrittenContent) ReadAt(p []byte, offset int64) (n int, err error) {
	for n < len(p) && offset < c.size {
		number, within := offset/unwrittenBlock, offset%unwrittenBlock
		part := p[n:min(int64(len(p)), int64(n)+unwrittenBlock-within, int64(n)+c.size-offset)]
		if block := c.changed[number]; block != nil {
			copy(part, block[within:])
		} else if err := c.readBase(part, offset); err != nil {
			return n, err
		}
		n += len(part)
		offset += int64(len(part))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readBase reads what is below the limit, and zeros above it.
func (c *unwrittenContent) readBase(p []byte, offset int64) error {
	clear(p)
	if offset >= c.limit {
		return nil
	}
	_, err := c.base.ReadAt(p[:min(int64(len(p)), c.limit-offset)], offset)
	return err
}

func (c *unwrittenContent) WriteAt(p []byte, offset int64) (n int, err error) {
	for n < len(p) {
		number, within := offset/unwrittenBlock, offset%unwrittenBlock
		block := c.changed[number]
		if block == nil {
			block = new([unwrittenBlock]byte)
			if err := c.readBase(block[:], number*unwrittenBlock); err != nil {
				return n, err
			}
			c.changed[number] = block
		}
		written := copy(block[within:], p[n:])
		n += written
		offset += int64(written)
		c.size = max(c.size, offset)
	}
	return n, nil
}

func (c *unwrittenContent) Truncate(size int64) error {
	for number, block := range c.changed {
		if start := number * unwrittenBlock; start >= size {
			delete(c.changed, number)
		} else if size-start < unwrittenBlock {
			clear(block[size-start:])
		}
	}
	c.limit, c.size = min(c.limit, size), size
	return nil
}

func (c *unwrittenContent) Close() error                     { return nil } // see unwritten.close
func (c *unwrittenContent) Sync(vfs.SyncFlag) error          { return nil }
func (c *unwrittenContent) Size() (int64, error)             { return c.size, nil }
func (c *unwrittenContent) Lock(vfs.LockLevel) error         { return nil } // nobody else has it
func (c *unwrittenContent) Unlock(vfs.LockLevel) error       { return nil }
func (c *unwrittenContent) CheckReservedLock() (bool, error) { return false, nil }

// SectorSize is the base's: a journal is read as it was written.
func (c *unwrittenContent) SectorSize() int {
	if c.base == nil {
		return unwrittenBlock
	}
	return c.base.SectorSize()
}

// DeviceCharacteristics are the base's, for the same reason.
func (c *unwrittenContent) DeviceCharacteristics() vfs.DeviceCharacteristic {
	if c.base == nil {
		return 0
	}
	return c.base.DeviceCharacteristics()
}

var (
	_ vfs.VFSFilename = (*unwritten)(nil)
	_ vfs.File        = (*unwrittenContent)(nil)
)
