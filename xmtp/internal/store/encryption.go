package store

import (
	"encoding/hex"
	"sync"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/ncruces/go-sqlite3/vfs/adiantum"
)

// cipherBlock is the unit that files are encrypted in.
const cipherBlock = 4096

var wrapping sync.Mutex // held while file systems are registered

// encryptedVFS registers the encryption over another file system.
func encryptedVFS(base string) string {
	return wrappedVFS("encrypted-"+base, func() vfs.VFS { return loggedVFS{encrypt(onDisk(base))} })
}

// plainVFS registers another file system without encryption.
func plainVFS(base string) string {
	return wrappedVFS("plain-"+base, func() vfs.VFS { return loggedVFS{onDisk(base)} })
}

func wrappedVFS(name string, wrap func() vfs.VFS) string {
	wrapping.Lock()
	defer wrapping.Unlock()
	if vfs.Find(name) == nil {
		vfs.Register(name, wrap())
	}
	return name
}

// encrypt wraps a file system.
func encrypt(base vfs.VFS) vfs.VFS { return adiantum.Wrap(wholeBlocks{base}, nil) }

// decrypt replaces the first block of a file by what it holds.
func decrypt(block vfsutil.SliceFile, key *[KeySize]byte) error {
	f, _, err := encrypt(oneFile{file: &block}).(vfs.VFSFilename).OpenFilename(nil, vfs.OPEN_MAIN_DB|vfs.OPEN_READONLY)
	if err != nil {
		return err
	}
	if _, err := f.(vfs.FilePragma).Pragma("hexkey", hex.EncodeToString(key[:])); err != nil {
		return err
	}
	plain := make([]byte, len(block))
	if _, err := f.ReadAt(plain, 0); err != nil {
		return err
	}
	copy(block, plain)
	return nil
}

// oneFile is a file system with one file, of whatever name.
type oneFile struct {
	vfs.VFS
	file vfs.File
}

func (o oneFile) OpenFilename(_ *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return o.file, flags, nil
}

// wholeBlocks shows logs without the part of a block that a full disk, or a
// crash, may have left at the end: it can't be decrypted, and SQLite would not
// open a database whose log it can't read to the end.
type wholeBlocks struct{ vfs.VFS }

func (w wholeBlocks) Open(string, vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return nil, 0, sqlite3.CANTOPEN // SQLite calls OpenFilename
}

func (w wholeBlocks) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	log := flags&(vfs.OPEN_WAL|vfs.OPEN_MAIN_JOURNAL) != 0
	f, flags, err := vfsutil.WrapOpenFilename(w.VFS, name, flags)
	if err == nil && log {
		f = &wholeBlocksFile{File: f}
	}
	return f, flags, err
}

type wholeBlocksFile struct {
	vfs.File
	// gathering collects what follows each other, which the encryption writes block by
	// block, to be written at once.
	gathering bool
	at        int64
	blocks    []byte
}

func (f *wholeBlocksFile) WriteAt(p []byte, offset int64) (int, error) {
	if !f.gathering {
		return f.File.WriteAt(p, offset)
	}
	if len(f.blocks) > 0 && offset != f.at+int64(len(f.blocks)) {
		if err := f.write(); err != nil {
			return 0, err
		}
	}
	if len(f.blocks) == 0 {
		f.at = offset
	}
	f.blocks = append(f.blocks, p...)
	return len(p), nil
}

// write writes what was collected. If that fails it is forgotten.
func (f *wholeBlocksFile) write() error {
	blocks := f.blocks
	f.blocks = f.blocks[:0]
	if len(blocks) == 0 {
		return nil
	}
	_, err := f.File.WriteAt(blocks, f.at)
	return err
}

func (f *wholeBlocksFile) Size() (int64, error) {
	size, err := f.File.Size()
	return size - size%cipherBlock, err
}
