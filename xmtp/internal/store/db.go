// Package store is a client's database: one encrypted SQLite file that one
// process has open.
//
// Everything goes through one connection and one lock. A transaction is short
// and waits neither for the network nor for the disk: who wants to know it there
// waits after it.
package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/ncruces/go-sqlite3"
)

// What can stand in the way of opening a database. The file is then untouched.
var (
	ErrInUse    = errors.New("the database is in use by another process")
	ErrWrongKey = errors.New("wrong key, or not a database of this program")
	ErrForeign  = errors.New("a database of another program")
	ErrNewer    = errors.New("the database was written by a newer version")
	ErrDamaged  = errors.New("the database is damaged")
)

// ErrClosed is returned after [DB.Close].
var ErrClosed = errors.New("the database is closed")

// KeySize is the length of a database key in bytes.
const KeySize = 32

// applicationID marks the file as ours ("xmtg").
const applicationID = 0x786d7467

// scrubPages is how many pages the log may hold before it is emptied.
const scrubPages = 1000

// tidyPages is how many pages [DB.Tidy] leaves in the log.
const tidyPages = 100

// standbyRetry is how often who waits for a database looks whether it is free.
const standbyRetry = 250 * time.Millisecond

// Options say which database to open.
type Options struct {
	// Path is the file's; empty for a database in memory.
	Path string
	// Memory is where a database in memory comes from and stays when it is closed.
	// Without it, it is empty at first and gone in the end.
	Memory *Memory
	// Key encrypts the file; nil leaves it plain.
	Key *[KeySize]byte
	// VFS is the SQLite file system below the encryption; empty for that of
	// the operating system. Tests cut its power.
	VFS string
	// Standby, if not nil, is called if the database is in use, which is then waited
	// for instead of returning ErrInUse.
	Standby func()
}

// DB is safe for use by several goroutines.
type DB struct {
	options Options
	lock    *flock.Flock
	memory  *Memory // nil if there is none

	waiting queue       // for mu
	behind  atomic.Bool // somebody will see to those who wait

	mu         sync.Mutex
	conn       *sqlite3.Conn // nil while the database rests, and once it is closed
	closed     bool
	used       bool        // since the last Rest
	left       os.FileInfo // the file when it was let rest
	statements map[string]*sqlite3.Stmt
	logPages   int
	oldLog     bool  // the log may be one that a crash has left
	inserted   int64 // the latest time of insertion, 0 until it is asked for, see [Tx.AddMessage]
	skips      int   // how many were noted, see [Tx.AddSkip]

	decisions atomic.Int64 // see [DB.Decisions]

	log       *logFile      // nil for a database in memory
	committed atomic.Uint64 // the number of transactions; grows under mu
	durable   atomic.Uint64 // how many of them the disk has
	syncing   sync.Mutex    // held while the disk is waited for; comes before mu
}

// Open opens the database or makes a new one.
func Open(ctx context.Context, o Options) (db *DB, err error) {
	db = &DB{statements: map[string]*sqlite3.Stmt{}}
	if o.Path != "" {
		// It may be opened again from another working directory.
		if o.Path, err = filepath.Abs(o.Path); err != nil {
			return nil, fmt.Errorf("opening the database: %w", err)
		}
	}
	db.options = o
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
			db = nil
		}
	}()
	if o.Path != "" {
		// Another file system's own locks have to do.
		if o.VFS == "" {
			if err := db.acquire(ctx, o); err != nil {
				return db, err
			}
		}
		state, err := inspect(ctx, o)
		if err != nil {
			return db, err
		}
		if state == stateNew {
			if err := create(ctx, o); err != nil {
				return db, err
			}
		}
		db.oldLog = state == stateOpen
	}
	if db.conn, err = connect(ctx, o, o.fileSystem()); err != nil {
		return db, err
	}
	if o.Memory != nil {
		if err := o.Memory.take(db.conn); err != nil {
			return db, err
		}
		db.memory = o.Memory
	}
	return db, db.configure(o)
}

// acquire makes sure that nobody else has the database open. The system gives the
// lock back when the process ends, in whatever way.
func (db *DB) acquire(ctx context.Context, o Options) error {
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		return fmt.Errorf("opening the database: %w", Explain(err))
	}
	db.lock = flock.New(o.Path+".lock", flock.SetPermissions(0o600))
	locked, err := db.lock.TryLock()
	if err == nil && !locked && o.Standby != nil {
		o.Standby()
		// Asking now and then works on every system, and can be ended.
		locked, err = db.lock.TryLockContext(ctx, standbyRetry)
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ErrInUse, context.Cause(ctx))
		}
	}
	if err != nil {
		return fmt.Errorf("opening the database: %w", Explain(err))
	}
	if !locked {
		return ErrInUse
	}
	return nil
}

// uri names the file and the file system to reach it by, never the key.
func (o Options) uri(fileSystem string) string {
	if o.Path == "" {
		return ":memory:"
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(o.Path)}
	if fileSystem != "" {
		u.RawQuery = url.Values{"vfs": {fileSystem}}.Encode()
	}
	if !filepath.IsAbs(o.Path) {
		u.Opaque, u.Path = (&url.URL{Path: filepath.ToSlash(o.Path)}).EscapedPath(), ""
	}
	return u.String()
}

// fileSystem is the one that the database is opened with.
func (o Options) fileSystem() string {
	if o.Key == nil {
		return plainVFS(o.VFS)
	}
	return encryptedVFS(o.VFS)
}

// connect opens the file, which has no owner but us, by a file system.
func connect(ctx context.Context, o Options, fileSystem string) (*sqlite3.Conn, error) {
	conn, err := sqlite3.OpenContext(ctx, o.uri(fileSystem))
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", translate(err))
	}
	if o.Path != "" && o.Key != nil {
		if err := conn.Exec("PRAGMA hexkey='" + hex.EncodeToString(o.Key[:]) + "'"); err != nil {
			// SQLite's text would hold the statement, and so the key.
			return nil, errors.Join(errors.New("opening the database: setting the key failed"), conn.Close())
		}
	}
	// Else each statement with a LIMIT is compiled anew whenever it is used.
	_, err = conn.Config(sqlite3.DBCONFIG_ENABLE_QPSG, true)
	if err == nil {
		err = conn.Exec("PRAGMA locking_mode = EXCLUSIVE")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the database: %w", translate(err)), conn.Close())
	}
	return conn, nil
}

// logged switches to a log, of which nothing gets lost.
const logged = `
	PRAGMA journal_mode = WAL;
	PRAGMA synchronous = FULL;
	PRAGMA wal_autocheckpoint = 0;
`

func (db *DB) configure(o Options) error {
	if o.Path == "" && o.Memory == nil {
		if err := fill(db.conn); err != nil {
			return err
		}
	}
	// What is deleted has to be gone from the file, too: it may be a spent key.
	err := db.conn.Exec(`
		PRAGMA temp_store = MEMORY;
		PRAGMA secure_delete = ON;
		PRAGMA cache_size = -512;
		PRAGMA foreign_keys = ON;
	` + logged)
	if err != nil {
		return fmt.Errorf("opening the database: %w", translate(err))
	}
	db.conn.WALHook(func(_ *sqlite3.Conn, _ string, pages int) error {
		db.logPages = pages
		return nil
	})
	if err := db.migrate(); err != nil || o.Path == "" {
		return err
	}
	file, err := db.conn.FileControl("main", sqlite3.FCNTL_JOURNAL_POINTER)
	if err != nil {
		return fmt.Errorf("opening the database: %w", translate(err))
	}
	db.log, _ = file.(*logFile)
	if db.log == nil {
		return fmt.Errorf("opening the database: its log is a %T", file)
	}
	return nil
}

// Close closes the database. It may be called again.
func (db *DB) Close() error {
	db.syncing.Lock()
	defer db.syncing.Unlock()
	db.mu.Lock()
	defer db.mu.Unlock()
	if !db.closed {
		db.catchUp()
	}
	var err error
	if db.conn != nil {
		err = db.disconnect()
	}
	db.closed = true
	if db.lock != nil {
		// The lock file stays: removing it would race with another's locking.
		err = errors.Join(err, db.lock.Unlock())
	}
	return err
}

func (db *DB) disconnect() (err error) {
	for _, s := range db.statements {
		err = errors.Join(err, s.Close())
	}
	clear(db.statements)
	if db.memory != nil {
		err = errors.Join(err, db.memory.giveBack(db.conn))
	}
	err = errors.Join(err, db.conn.Close())
	if err == nil {
		db.durable.Store(db.committed.Load())
	}
	db.conn = nil
	return err
}

// Rest gives back the memory and the descriptors that an open file takes, if the
// database was not used since the last call. It is opened when it is used again, which
// takes a millisecond; the lock stays.
func (db *DB) Rest() error {
	db.syncing.Lock()
	defer db.syncing.Unlock()
	db.mu.Lock()
	defer db.mu.Unlock()
	db.catchUp()
	used := db.used
	db.used = false
	if used || db.conn == nil || db.options.Path == "" || db.options.VFS != "" {
		return nil
	}
	if err := db.scrub(); err != nil {
		return err
	}
	if err := db.disconnect(); err != nil {
		return fmt.Errorf("letting the database rest: %w", translate(err))
	}
	var err error
	if db.left, err = os.Stat(db.options.Path); err != nil {
		return fmt.Errorf("letting the database rest: %w", err)
	}
	return nil
}

// wake makes sure that there is a connection.
func (db *DB) wake() error {
	db.used = true
	if db.closed {
		return ErrClosed
	}
	if db.conn != nil {
		return nil
	}
	o := db.options
	// What was put in its place would not fit what is in memory.
	info, err := os.Stat(o.Path)
	if err != nil {
		return fmt.Errorf("opening the database again: %w", err)
	}
	if db.left == nil || !os.SameFile(info, db.left) || info.Size() != db.left.Size() || !info.ModTime().Equal(db.left.ModTime()) {
		return fmt.Errorf("%w: somebody else has changed the file", ErrDamaged)
	}
	if db.conn, err = connect(context.Background(), o, o.fileSystem()); err != nil {
		return err
	}
	if err := db.configure(o); err != nil {
		return errors.Join(err, db.disconnect())
	}
	return nil
}

// Tidy is Scrub if the log is large.
func (db *DB) Tidy() error {
	db.mu.Lock()
	large := db.logPages >= tidyPages
	db.mu.Unlock()
	if !large {
		return nil
	}
	return db.Scrub()
}

// Scrub moves everything from the log into the file and empties the log, in
// which older versions of pages, and so spent keys, stand.
func (db *DB) Scrub() error {
	// Most of what the disk has to get it gets before others have to wait.
	if err := db.Sync(); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.catchUp()
	return db.scrub()
}

func (db *DB) scrub() error {
	if db.closed {
		return ErrClosed
	}
	if db.conn == nil {
		return nil // there is no log
	}
	if _, _, err := db.conn.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE); err != nil {
		return fmt.Errorf("emptying the database's log: %w", translate(err))
	}
	db.logPages, db.oldLog = 0, false
	db.durable.Store(db.committed.Load())
	return nil
}

// settle makes sure that nothing is appended to a log that a crash has left. In
// an encrypted one the last entry can share a block with what is appended: a
// second crash while that is written would take both.
func (db *DB) settle() error {
	if !db.oldLog {
		return nil
	}
	return db.scrub()
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
