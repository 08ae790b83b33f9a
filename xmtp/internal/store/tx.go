package store

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// Tx is a transaction, or a read of one consistent state. It must not be used
// after the function that got it has returned.
type Tx struct {
	db   *DB
	open bool // a transaction
	// ended is the error of the disk with which the database has undone all of it, or half a
	// statement. What follows must not be done: it would be for good, by itself or with that.
	ended error
}

// Update runs f in a transaction that is durable when Update returns nil, and
// undone if f or the commit fails.
//
// It waits for the disk without holding up others, and with all who wait: one sync is
// enough for what was committed before it.
func (db *DB) Update(f func(*Tx) error) error {
	number, err := db.update(f)
	if err != nil {
		return err
	}
	return db.await(number)
}

// UpdateLazily is Update for what can be had again, as from the node: it outlives
// the process, but a power cut may undo it, with all that was done lazily since the
// last Update. The next Update, Sync or Scrub makes it durable.
func (db *DB) UpdateLazily(f func(*Tx) error) error {
	_, err := db.update(f)
	return err
}

// UpdateBehind is UpdateLazily for who doesn't wait for that either: f runs soon, and before
// anybody reads or changes anything else. Then is told the error by whoever has the
// database at that time, and must not use it.
func (db *DB) UpdateBehind(f func(*Tx) error, then func(error)) {
	db.waiting.add(&change{f: f, then: then})
	if db.behind.CompareAndSwap(false, true) {
		time.AfterFunc(mostBehind, func() {
			db.behind.Store(false)
			db.mu.Lock()
			defer db.mu.Unlock()
			db.catchUp()
		})
	}
}

// mostBehind is how long [DB.UpdateBehind] waits for somebody with whom to share a commit.
const mostBehind = 2 * time.Millisecond

// catchUp runs what waits.
func (db *DB) catchUp() {
	for {
		changes := db.waiting.take(maxShared)
		if len(changes) == 0 {
			return
		}
		db.share(changes)
	}
}

// change is a function that waits for its turn.
type change struct {
	f      func(*Tx) error
	then   func(error) // may be nil
	done   bool        // guarded by DB.mu
	number uint64
	err    error
}

// maxShared is how many changes share a commit. Who reads waits for all of them.
const maxShared = 32

// update runs f in a transaction, and returns its number.
//
// Who comes while another one is at it waits with all who do, and whoever's turn it is
// then runs what they want in one transaction: a commit costs more than most of them.
func (db *DB) update(f func(*Tx) error) (number uint64, err error) {
	c := &change{f: f}
	db.waiting.add(c)
	db.mu.Lock()
	defer db.mu.Unlock()
	for !c.done {
		db.share(db.waiting.take(maxShared))
	}
	return c.number, c.err
}

// queue are changes that wait.
type queue struct {
	mu   sync.Mutex
	list []*change
}

func (q *queue) add(c *change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, c)
}

// take takes those that came first.
func (q *queue) take(most int) []*change {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.list), most)
	taken := q.list[:n:n]
	if q.list = q.list[n:]; len(q.list) == 0 {
		q.list = nil
	}
	return taken
}

// errCutShort is the error of who shares a transaction with a function that doesn't return.
var errCutShort = errors.New("the transaction has not ended")

// share runs changes in one transaction. One that fails is undone alone, unless it was
// the disk, which ends the transaction: then all fail.
func (db *DB) share(changes []*change) {
	for _, c := range changes {
		c.done, c.err = true, errCutShort
	}
	number, err := db.transact(func(tx *Tx) error {
		for _, c := range changes {
			if len(changes) == 1 {
				c.err = nil
				return c.f(tx)
			}
			if c.err = tx.Savepoint(func() error { return c.f(tx) }); tx.ended != nil {
				return tx.ended
			}
		}
		return nil
	})
	for _, c := range changes {
		if err != nil && (c.err == nil || errors.Is(c.err, errCutShort)) {
			c.err = err
		}
		c.number = number
		if c.then != nil {
			c.then(c.err)
		}
	}
}

// transact runs f in a transaction, and returns its number.
func (db *DB) transact(f func(*Tx) error) (number uint64, err error) {
	if err := db.wake(); err != nil {
		return 0, err
	}
	if err := db.settle(); err != nil {
		return 0, err
	}
	if err := db.run("BEGIN IMMEDIATE"); err != nil {
		return 0, err
	}
	committed := false
	defer func() {
		if !committed && !db.conn.GetAutocommit() {
			// If this fails, too, the next BEGIN says so.
			_ = db.run("ROLLBACK")
		}
	}()
	tx := &Tx{db: db, open: true}
	if err := f(tx); err != nil {
		return 0, err
	}
	if tx.ended != nil {
		return 0, tx.ended
	}
	if err := db.commit(); err != nil {
		return 0, err
	}
	committed = true
	if db.logPages >= scrubPages {
		// A log that could not be emptied is tried again with the next transaction.
		_ = db.scrub()
	}
	return db.committed.Load(), nil
}

// commit commits what is then in the hands of the system, if not on the disk.
func (db *DB) commit() error {
	if db.log == nil {
		return db.run("COMMIT")
	}
	written := db.log.written
	db.log.deferring = true
	err := db.run("COMMIT")
	db.log.deferring = false
	if err != nil {
		return err
	}
	if db.log.written == written {
		return nil // nothing was changed
	}
	db.committed.Add(1)
	// What is left is padding. If it can't be written now, it is with what follows.
	_ = db.log.flush()
	return nil
}

// await returns when a transaction is durable.
func (db *DB) await(number uint64) error {
	if db.durable.Load() >= number {
		return nil
	}
	db.syncing.Lock()
	defer db.syncing.Unlock()
	if db.durable.Load() >= number {
		return nil
	}
	all := db.committed.Load()
	if err := db.log.persist(vfs.SYNC_NORMAL); err == nil {
		db.durable.Store(all)
		return nil
	}
	// What of it is on the disk nobody knows, and another sync may not say. But it
	// can be written once more, into the file.
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.conn == nil {
		return ErrClosed
	}
	db.oldLog = true // nothing is done before that has succeeded
	return db.scrub()
}

// Sync makes durable what was committed before.
func (db *DB) Sync() error { return db.await(db.committed.Load()) }

// SyncSoon is Sync that goes on meanwhile. The channel brings its error, and is closed then.
func (db *DB) SyncSoon() <-chan error {
	number, done := db.committed.Load(), make(chan error, 1)
	go func() {
		done <- db.await(number)
		close(done)
	}()
	return done
}

// View runs f on a consistent state.
func (db *DB) View(f func(*Tx) error) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.catchUp()
	if err := db.wake(); err != nil {
		return err
	}
	return f(&Tx{db: db})
}

// Savepoint runs f and undoes what it has changed if it fails, without ending
// the transaction.
func (tx *Tx) Savepoint(f func() error) error {
	if err := tx.Exec("SAVEPOINT step"); err != nil {
		return err
	}
	err := f()
	if tx.ended != nil {
		return tx.ended
	}
	if err != nil {
		if undo := tx.Exec("ROLLBACK TO step"); undo != nil {
			return errors.Join(err, undo)
		}
	}
	if release := tx.Exec("RELEASE step"); release != nil {
		return errors.Join(err, release)
	}
	return err
}

func (db *DB) run(sql string) error {
	return (&Tx{db: db}).Exec(sql)
}

// Exec runs a statement that returns no rows. Arguments are nil, bool, int,
// int64, uint64 (below 2^63), string or []byte; a nil []byte is stored as an
// empty one.
func (tx *Tx) Exec(sql string, args ...any) error {
	return tx.Query(sql, args, func(Row) error { return nil })
}

// Changes returns how many rows the last Exec has changed.
func (tx *Tx) Changes() int64 { return tx.db.conn.Changes() }

// errStop ends a query early.
var errStop = errors.New("enough")

// Query calls f with each row.
func (tx *Tx) Query(sql string, args []any, f func(Row) error) error {
	if tx.ended != nil {
		return tx.ended
	}
	s, err := tx.db.prepare(sql)
	if err != nil {
		return fmt.Errorf("database: %w", translate(err))
	}
	defer func() {
		// The statement keeps arguments, which may be secret, until it is cleared.
		_ = s.ClearBindings()
	}()
	for i, arg := range args {
		if err := bind(s, i+1, arg); err != nil {
			return errors.Join(fmt.Errorf("database: %w", err), s.Reset())
		}
	}
	for s.Step() {
		if err := f(Row{s}); err != nil {
			resetErr := s.Reset()
			if errors.Is(err, errStop) {
				return resetErr
			}
			return errors.Join(err, resetErr)
		}
	}
	if err := errors.Join(s.Err(), s.Reset()); err != nil {
		err = fmt.Errorf("database: %w", translate(err))
		if tx.open && (IsDisk(err) || tx.db.conn.GetAutocommit()) {
			tx.ended = err
		}
		return err
	}
	return nil
}

// One calls f with the first row, if there is any.
func (tx *Tx) One(sql string, args []any, f func(Row)) (found bool, err error) {
	err = tx.Query(sql, args, func(r Row) error {
		found = true
		f(r)
		return errStop
	})
	return found, err
}

// prepare returns a statement, which is kept for the next time.
func (db *DB) prepare(sql string) (*sqlite3.Stmt, error) {
	if s := db.statements[sql]; s != nil {
		return s, nil
	}
	s, tail, err := db.conn.PrepareFlags(sql, sqlite3.PREPARE_PERSISTENT)
	if err != nil {
		return nil, err
	}
	if tail != "" {
		return nil, errors.Join(fmt.Errorf("more than one statement: %q", sql), s.Close())
	}
	db.statements[sql] = s
	return s, nil
}

func bind(s *sqlite3.Stmt, i int, arg any) error {
	switch v := arg.(type) {
	case nil:
		return s.BindNull(i)
	case bool:
		return s.BindBool(i, v)
	case int:
		return s.BindInt64(i, int64(v))
	case int64:
		return s.BindInt64(i, v)
	case uint64:
		if v > 1<<63-1 {
			return fmt.Errorf("a number of %d can't be stored", v)
		}
		return s.BindInt64(i, int64(v))
	case string:
		return s.BindText(i, v)
	case []byte:
		if len(v) == 0 {
			return s.BindZeroBlob(i, 0)
		}
		return s.BindBlob(i, v)
	}
	return fmt.Errorf("an argument of type %T", arg)
}

// Row is the current row of a query.
type Row struct {
	s *sqlite3.Stmt
}

// Int returns a column as a signed number; 0 for NULL.
func (r Row) Int(i int) int64 { return r.s.ColumnInt64(i) }

// Uint returns a column as a number.
func (r Row) Uint(i int) uint64 { return uint64(r.s.ColumnInt64(i)) }

// Bool returns a column as a truth value.
func (r Row) Bool(i int) bool { return r.s.ColumnBool(i) }

// Text returns a column as a string.
func (r Row) Text(i int) string { return r.s.ColumnText(i) }

// Bytes returns a copy of a column.
func (r Row) Bytes(i int) []byte { return r.s.ColumnBlob(i, nil) }

// Columns is how many columns there are.
func (r Row) Columns() int { return r.s.ColumnCount() }

// IsNull tells whether a column has no value.
func (r Row) IsNull(i int) bool { return r.s.ColumnType(i) == sqlite3.NULL }
