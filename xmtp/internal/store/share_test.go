package store

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
)

// together runs updates that all wait while somebody else has the database, and calls
// first before it is theirs.
func together(db *DB, first func(), changes ...func(*Tx) error) []error {
	errs := make([]error, len(changes))
	var group sync.WaitGroup
	db.mu.Lock()
	for i, f := range changes {
		group.Go(func() { errs[i] = db.Update(f) })
	}
	queued := func() int {
		db.waiting.mu.Lock()
		defer db.waiting.mu.Unlock()
		return len(db.waiting.list)
	}
	for queued() < len(changes) {
		runtime.Gosched()
	}
	first()
	db.mu.Unlock()
	group.Wait()
	return errs
}

func named(i int) string { return fmt.Sprint("name ", i) }

func putting(i int, err error) func(*Tx) error {
	return func(tx *Tx) error {
		return errors.Join(tx.Exec("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", named(i), bytes.Repeat([]byte("value"), 10_000)), err)
	}
}

// Who waits at the same time shares a commit; one that fails is undone alone.
func TestSharedTransaction(t *testing.T) {
	for name, path := range map[string]string{"on disk": filepath.Join(t.TempDir(), "client.db"), "in memory": ""} {
		t.Run(name, func(t *testing.T) {
			db := open(t, Options{Path: path, Key: testKey()})
			wrong := errors.New("wrong")
			var changes []func(*Tx) error
			reasons := make([]error, maxShared+maxShared/2)
			for i := range reasons {
				if i%3 == 1 {
					reasons[i] = wrong
				}
				changes = append(changes, putting(i, reasons[i]))
			}
			before := db.committed.Load()
			for i, err := range together(db, func() {}, changes...) {
				if !errors.Is(err, reasons[i]) || (err == nil) != (reasons[i] == nil) {
					t.Errorf("%d: %v, want %v", i, err, reasons[i])
				}
				if _, found := value(t, db, named(i)); found != (reasons[i] == nil) {
					t.Errorf("%d: stored is %v", i, found)
				}
			}
			if n := db.committed.Load() - before; path != "" && n != 2 {
				t.Errorf("%d commits", n)
			}
		})
	}
}

// A disk that fails, or is full, at any operation of a shared transaction: who is told
// that his change is stored has it after a power cut, and who is told that it isn't can
// try again.
func TestSharedTransactionWhenTheDiskFails(t *testing.T) {
	for fault, reason := range map[crashtest.Fault]error{crashtest.FailOnce: ErrDiskFault, crashtest.Full: ErrDiskFull} {
		t.Run(reason.Error(), func(t *testing.T) {
			t.Parallel()
			fs := crashtest.New(t)
			o := Options{Path: "/client.db", Key: testKey(), VFS: fs.Name()}
			points, failures := 0, 0
			for n, came := 1, true; came; n++ {
				fs.Load(nil)
				db := open(t, o)
				put(t, db, "before", []byte("value"))
				errs := together(db, func() { fs.FaultAt(n, fault) }, putting(0, nil), putting(1, nil), putting(2, nil), putting(3, nil))
				came = fs.Faulted()
				fs.Repair()
				for i, err := range errs {
					if err == nil {
						continue
					}
					failures++
					if !errors.Is(err, reason) || !came {
						t.Fatalf("operation %d: %v", n, err)
					}
					if err := db.Update(putting(i, nil)); err != nil {
						t.Fatalf("operation %d, once more: %v", n, err)
					}
				}
				fs.Cut()
				fs.Restart(crashtest.LoseSome(uint64(n)))
				again := open(t, o)
				for i := range errs {
					if _, found := value(t, again, named(i)); !found {
						t.Fatalf("operation %d: %d is gone", n, i)
					}
				}
				if err := again.Close(); err != nil {
					t.Fatal(err)
				}
				points++
			}
			t.Logf("%d points, %d failures", points, failures)
			if failures == 0 {
				t.Error("nothing has failed")
			}
		})
	}
}

// An error of the disk can make SQLite undo the whole transaction. What comes after that in
// the same function is not stored, neither if the function goes on nor if it says that all
// is well.
func TestNothingAfterTheEndOfATransaction(t *testing.T) {
	t.Parallel()
	fs := crashtest.New(t)
	o := Options{Path: "/client.db", Key: testKey(), VFS: fs.Name()}
	const before = 200
	points, failures, step := 0, 0, 41
	if proof {
		step = 1
	}
	db := open(t, o)
	for i := range before {
		put(t, db, named(i), bytes.Repeat([]byte("value"), 1000)) // more than is kept in memory
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	image := fs.Image()
	for n, came := 1, true; came; n += step {
		points++
		fs.Load(image)
		db := open(t, o)
		fs.FaultAt(n, crashtest.FailRead)
		err := db.Update(func(tx *Tx) error {
			if err := putting(before, nil)(tx); err != nil {
				return err
			}
			for i := range before {
				// The error is let pass.
				_ = tx.Exec("UPDATE meta SET value = x'00' WHERE name = ?", named(i))
			}
			_ = tx.Savepoint(func() error { return putting(before+1, nil)(tx) })
			return nil
		})
		came = fs.Faulted()
		fs.Repair()
		if err != nil {
			failures++
			if !errors.Is(err, ErrDiskFault) {
				t.Fatal(err)
			}
		}
		for _, i := range []int{before, before + 1} {
			if _, found := value(t, db, named(i)); found != (err == nil) {
				t.Fatalf("read %d, error %v: %d is there: %v", n, err, i, found)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d points, %d failures", points, failures)
	if failures == 0 {
		t.Error("nothing has failed")
	}
}

// Who waits when the database is closed is told so.
func TestSharedTransactionOfAClosedDatabase(t *testing.T) {
	db := open(t, Options{Path: filepath.Join(t.TempDir(), "client.db"), Key: testKey()})
	closing := func() {
		db.closed = true
		if err := db.disconnect(); err != nil {
			t.Error(err)
		}
	}
	for i, err := range together(db, closing, putting(0, nil), putting(1, nil)) {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%d: %v", i, err)
		}
	}
}
