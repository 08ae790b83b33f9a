// Package store is a client's database: one encrypted SQLite file that one
// process has open.
//
// Everything goes through one connection and one lock. A transaction is short
// and never waits for the network.
package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/gofrs/flock"
	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/ncruces/go-sqlite3/vfs/adiantum"
)

// What can stand in the way of opening a database. The file is then untouched.
var (
	ErrInUse    = errors.New("the database is in use by another process")
	ErrWrongKey = errors.New("wrong key, or not a database of this program")
	ErrForeign  = errors.New("a database of another program")
	ErrNewer    = errors.New("the database was written by a newer version")
	ErrDamaged  = errors.New("the database is damaged")
)

// Problems of the disk while the database is open. Nothing of the transaction
// was stored; the next one may succeed.
var (
	ErrDiskFull = errors.New("the disk is full")
	ErrReadOnly = errors.New("the database can't be written")
)

// ErrClosed is returned after [DB.Close].
var ErrClosed = errors.New("the database is closed")

// KeySize is the length of a database key in bytes.
const KeySize = 32

// applicationID marks the file as ours ("xmtg").
const applicationID = 0x786d7467

// scrubPages is how many pages the log may hold before it is emptied.
const scrubPages = 1000

// Options say which database to open.
type Options struct {
	// Path is the file's; empty for a database in memory.
	Path string
	// Key encrypts the file; nil leaves it plain.
	Key *[KeySize]byte
	// VFS is the SQLite file system below the encryption; empty for that of
	// the operating system. Tests cut its power.
	VFS string
}

// DB is safe for use by several goroutines.
type DB struct {
	lock *flock.Flock

	mu         sync.Mutex
	conn       *sqlite3.Conn
	statements map[string]*sqlite3.Stmt
	logPages   int
}

// Open opens the database or makes a new one.
func Open(ctx context.Context, o Options) (db *DB, err error) {
	db = &DB{statements: map[string]*sqlite3.Stmt{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
			db = nil
		}
	}()
	fresh := true
	if o.Path != "" {
		if err := db.acquire(o.Path); err != nil {
			return db, err
		}
		if fresh, err = inspect(ctx, o); err != nil {
			return db, err
		}
	}
	if db.conn, err = sqlite3.OpenContext(ctx, o.uri(nil)); err != nil {
		return db, fmt.Errorf("opening the database: %w", translate(err))
	}
	if err := db.configure(o, fresh); err != nil {
		return db, err
	}
	return db, nil
}

// acquire makes sure that no other process has the database open.
func (db *DB) acquire(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	db.lock = flock.New(path+".lock", flock.SetPermissions(0o600))
	locked, err := db.lock.TryLock()
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	if !locked {
		return ErrInUse
	}
	return nil
}

// inspect looks at the file without changing it or its log: SQLite, opening a
// file with the wrong key, would throw the log away. Fresh means that nothing
// was stored yet.
func inspect(ctx context.Context, o Options) (fresh bool, err error) {
	head, err := readHead(o)
	if err != nil || len(head) == 0 {
		return err == nil, err
	}
	if o.Key != nil && string(head) == "SQLite format 3\x00" {
		return false, fmt.Errorf("%w: it is not encrypted", ErrForeign)
	}
	conn, err := sqlite3.OpenContext(ctx, o.uri(url.Values{"immutable": {"1"}, "mode": {"ro"}}))
	if err != nil {
		return false, fmt.Errorf("opening the database: %w", translate(err))
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := setKey(conn, o.Key); err != nil {
		return false, err
	}
	id, err := pragma(conn, "application_id")
	switch {
	case errors.Is(err, sqlite3.NOTADB):
		return false, ErrWrongKey
	case err != nil:
		return false, fmt.Errorf("%w: %w", ErrDamaged, err)
	case id != applicationID:
		return false, ErrForeign
	}
	version, err := pragma(conn, "user_version")
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if version > int64(len(migrations)) {
		return false, fmt.Errorf("%w: its version is %d, this one knows %d", ErrNewer, version, len(migrations))
	}
	return false, nil
}

// readHead returns the file's first 16 bytes, none if there is no file or nothing in it.
func readHead(o Options) ([]byte, error) {
	if o.VFS != "" {
		return readHeadVFS(o)
	}
	f, err := os.Open(o.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	defer f.Close()
	head := make([]byte, 16)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	return head[:n], nil
}

func readHeadVFS(o Options) ([]byte, error) {
	fs := vfs.Find(o.VFS)
	if exists, err := fs.Access(o.Path, vfs.ACCESS_EXISTS); err != nil || !exists {
		return nil, err
	}
	f, _, err := fs.Open(o.Path, vfs.OPEN_READONLY|vfs.OPEN_MAIN_DB)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	defer f.Close()
	head := make([]byte, 16)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	return head[:n], nil
}

// uri names the file and the file systems to reach it by, never the key.
func (o Options) uri(parameters url.Values) string {
	if o.Path == "" {
		return ":memory:"
	}
	if parameters == nil {
		parameters = url.Values{}
	}
	switch {
	case o.VFS != "" && o.Key != nil:
		parameters.Set("vfs", encryptedVFS(o.VFS))
	case o.VFS != "":
		parameters.Set("vfs", o.VFS)
	case o.Key != nil:
		parameters.Set("vfs", "adiantum")
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(o.Path), RawQuery: parameters.Encode()}
	if !filepath.IsAbs(o.Path) {
		u.Opaque, u.Path = (&url.URL{Path: filepath.ToSlash(o.Path)}).EscapedPath(), ""
	}
	return u.String()
}

var encrypted sync.Map // names of wrapped file systems

// encryptedVFS registers the encryption over another file system.
func encryptedVFS(base string) string {
	name := "adiantum-" + base
	if _, done := encrypted.LoadOrStore(name, true); !done {
		vfs.Register(name, adiantum.Wrap(vfs.Find(base), nil))
	}
	return name
}

func setKey(conn *sqlite3.Conn, key *[KeySize]byte) error {
	if key == nil {
		return nil
	}
	err := conn.Exec("PRAGMA hexkey='" + hex.EncodeToString(key[:]) + "'")
	if err != nil {
		// SQLite's text would hold the statement, and so the key.
		return errors.New("opening the database: setting the key failed")
	}
	return nil
}

func (db *DB) configure(o Options, fresh bool) error {
	if o.Path != "" {
		if err := setKey(db.conn, o.Key); err != nil {
			return err
		}
	}
	// What is deleted has to be gone from the file, too: it may be a spent key.
	err := db.conn.Exec(`
		PRAGMA locking_mode = EXCLUSIVE;
		PRAGMA temp_store = MEMORY;
		PRAGMA secure_delete = ON;
		PRAGMA cache_size = -512;
		PRAGMA journal_mode = WAL;
		PRAGMA synchronous = FULL;
		PRAGMA wal_autocheckpoint = 0;
		PRAGMA foreign_keys = ON;
	`)
	if err != nil {
		return fmt.Errorf("opening the database: %w", translate(err))
	}
	db.conn.WALHook(func(_ *sqlite3.Conn, _ string, pages int) error {
		db.logPages = pages
		return nil
	})
	if fresh {
		if err := db.conn.Exec(fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
			return fmt.Errorf("making the database: %w", translate(err))
		}
	}
	if err := db.migrate(); err != nil {
		return err
	}
	if fresh {
		// From here on the file alone tells whose it is, see inspect.
		return db.Scrub()
	}
	return nil
}

// Close closes the database. It may be called again.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	var err error
	if db.conn != nil {
		for _, s := range db.statements {
			err = errors.Join(err, s.Close())
		}
		db.statements = nil
		err = errors.Join(err, db.conn.Close())
		db.conn = nil
	}
	if db.lock != nil {
		// The lock file stays: removing it would race with another's locking.
		err = errors.Join(err, db.lock.Unlock())
	}
	return err
}

// Scrub moves everything from the log into the file and empties the log, in
// which older versions of pages, and so spent keys, stand.
func (db *DB) Scrub() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.scrub()
}

func (db *DB) scrub() error {
	if db.conn == nil {
		return ErrClosed
	}
	if _, _, err := db.conn.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE); err != nil {
		return fmt.Errorf("emptying the database's log: %w", translate(err))
	}
	db.logPages = 0
	return nil
}

func pragma(conn *sqlite3.Conn, name string) (int64, error) {
	s, _, err := conn.Prepare("PRAGMA " + name)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if !s.Step() {
		return 0, errors.Join(s.Err(), fmt.Errorf("no %s", name))
	}
	return s.ColumnInt64(0), nil
}

// translate makes errors that a caller decides on comparable.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sqlite3.FULL):
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	case errors.Is(err, sqlite3.READONLY), errors.Is(err, sqlite3.CANTOPEN), errors.Is(err, sqlite3.PERM):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case errors.Is(err, sqlite3.NOTADB), errors.Is(err, sqlite3.CORRUPT):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case errors.Is(err, sqlite3.BUSY):
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return err
}
