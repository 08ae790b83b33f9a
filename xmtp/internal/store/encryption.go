package store

import (
	"sync"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/ncruces/go-sqlite3/vfs/adiantum"
)

// cipherBlock is the unit that files are encrypted in.
const cipherBlock = 4096

var encrypted sync.Map // names of wrapped file systems

// encryptedVFS registers the encryption over another file system.
func encryptedVFS(base string) string {
	name := "encrypted-" + base
	if _, done := encrypted.LoadOrStore(name, true); !done {
		vfs.Register(name, encrypt(vfs.Find(base)))
	}
	return name
}

// encrypt wraps a file system.
func encrypt(base vfs.VFS) vfs.VFS { return adiantum.Wrap(wholeBlocks{base}, nil) }

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
		f = wholeBlocksFile{f}
	}
	return f, flags, err
}

type wholeBlocksFile struct{ vfs.File }

func (f wholeBlocksFile) Size() (int64, error) {
	size, err := f.File.Size()
	return size - size%cipherBlock, err
}
