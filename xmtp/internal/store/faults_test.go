package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
)

// persist does what workload does, but lives through one failure: after it the step that
// failed is there whole or not at all, and it succeeds once the disk is in order. repair
// is called between. It returns how far it has come, and the error.
func persist(t *testing.T, o Options, steps int, want error, repair func()) (p progress, failed error) {
	t.Helper()
	again := func(err error) {
		if failed != nil {
			t.Fatalf("a second failure: %v", err)
		}
		if failed = err; !errors.Is(err, want) {
			t.Fatalf("step %d: %v", p.begun, err)
		}
		repair()
	}
	db, err := Open(t.Context(), o)
	if err != nil {
		again(err)
		if db, err = Open(t.Context(), o); err != nil {
			t.Fatalf("opening once more: %v", err)
		}
	}
	defer db.Close()
	for i := 1; i <= steps; i++ {
		p.begun = i
		step := func() error { return storeStep(db, int64(i)) }
		if err := step(); err != nil {
			again(err)
			// What has failed counts as failed, unless it is the disk that was waited for.
			if last, err := lastStep(db); err != nil || last != int64(i-1) && last != int64(i) {
				t.Fatalf("%d has failed, %d is to be seen: %v", i, last, err)
			}
			if err := step(); err != nil {
				t.Fatalf("once more: %v", err)
			}
		}
		if !isLazy(int64(i)) {
			p.confirmed = i
		}
		if i%4 == 0 {
			if err := db.Scrub(); err != nil {
				again(err)
				if err := db.Scrub(); err != nil {
					t.Fatalf("once more: %v", err)
				}
			}
			p.confirmed = i
		}
	}
	return p, failed
}

// A disk that fails once, at any operation, is full or read-only from any on, or can't
// be read at one place: the error says so, what fails counts as failed, the open
// database goes on, and what was confirmed is there after a power cut that follows.
func TestFaultsAtEveryOperation(t *testing.T) {
	const steps = 12
	reasons := map[crashtest.Fault]error{
		crashtest.FailOnce: ErrDiskFault, crashtest.FailRead: ErrDiskFault, crashtest.Full: ErrDiskFull, crashtest.ReadOnly: ErrReadOnly,
	}
	for name, key := range map[string]*[KeySize]byte{"encrypted": testKey(), "plain": nil} {
		for fault, want := range reasons {
			t.Run(fmt.Sprintf("%s, %v", name, want), func(t *testing.T) {
				t.Parallel()
				fs := crashtest.New(t)
				o := Options{Path: "/client.db", Key: key, VFS: fs.Name()}
				step := 47
				if proof {
					step = 1
				}
				points, failures := 0, 0
				for n := 1; ; n += step {
					fs.Load(nil)
					fs.FaultAt(n, fault)
					came := false
					done, failed := persist(t, o, steps, want, func() { came = fs.Faulted(); fs.Repair() })
					if failed != nil {
						failures++
						if !came {
							t.Fatalf("without a fault: %v", failed)
						}
					} else if !fs.Faulted() {
						break
					}
					points++
					fs.Cut()
					fs.Restart(crashtest.LoseSome(uint64(n)))
					if !check(t, o, done) {
						t.Fatalf("operation %d", n)
					}
				}
				t.Logf("%d points, %d failures", points, failures)
				if failures == 0 {
					t.Error("nothing has failed")
				}
			})
		}
	}
}

// A disk that fails in the middle of a transaction undoes all of it at once. What the rest
// of it would do, having not looked at the error or not yet, is not done either.
func TestFaultsWithinATransaction(t *testing.T) {
	big := make([]byte, 2<<20) // more than what is kept in memory
	read := func(tx *Tx) error {
		_, err := tx.Meta("big")
		return err
	}
	write := func(tx *Tx) error { return tx.SetMeta("another", big) }
	for name, c := range map[string]struct {
		fault crashtest.Fault
		want  error
		first func(*Tx) error
	}{
		"a failed read":    {crashtest.FailRead, ErrDiskFault, read},
		"a full disk":      {crashtest.Full, ErrDiskFull, write},
		"a read-only disk": {crashtest.ReadOnly, ErrReadOnly, write},
	} {
		for how, f := range map[string]func(*Tx) error{
			"looked at after the rest": func(tx *Tx) error { return errors.Join(c.first(tx), tx.SetMeta("after", []byte("x"))) },
			"not looked at": func(tx *Tx) error {
				_ = c.first(tx)
				return tx.SetMeta("after", []byte("x"))
			},
			"at the end": func(tx *Tx) error {
				_ = c.first(tx)
				return nil
			},
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				fs := crashtest.New(t)
				db := open(t, Options{Path: "/client.db", Key: testKey(), VFS: fs.Name()})
				put(t, db, "big", big)
				put(t, db, "after", []byte("as it was"))
				err := db.Update(func(tx *Tx) error {
					if err := tx.SetMeta("before", []byte("x")); err != nil {
						return err
					}
					fs.FaultAt(1, c.fault)
					err := f(tx)
					if !fs.Faulted() {
						t.Error("nothing has failed")
					}
					fs.Repair()
					return err
				})
				if !errors.Is(err, c.want) {
					t.Errorf("got %v", err)
				}
				if got, _ := value(t, db, "after"); string(got) != "as it was" {
					t.Errorf("the rest is stored: %q", got)
				}
				if _, found := value(t, db, "before"); found {
					t.Error("what came before is stored")
				}
				put(t, db, "after", []byte("in order"))
			})
		}
	}
}

// The power goes some time after a sync has failed: what was confirmed after it, or
// before, does not depend on what the failed one was to write.
func TestPowerCutAfterAFailedSync(t *testing.T) {
	fs := crashtest.New(t)
	o := Options{Path: "/client.db", Key: testKey(), VFS: fs.Name()}
	rounds := uint64(15)
	if proof {
		rounds = 5000
	}
	for round := range rounds {
		lots := rand.New(rand.NewPCG(round, 2))
		fs.Load(nil)
		db := open(t, o)
		at := 1 + lots.IntN(120)
		fs.FaultAt(at, crashtest.FailOnce)
		var done progress
		for i := int64(1); i <= 8; i++ {
			done.begun = int(i)
			if err := storeStep(db, i); err != nil {
				if err := storeStep(db, i); err != nil {
					t.Fatalf("round %d: once more: %v", round, err)
				}
			}
			if !isLazy(i) {
				done.confirmed = int(i)
			}
			if i == 3 {
				_ = db.Scrub() // a failed one is tried again, with the next or by a crash
			}
			if fs.Faulted() && lots.IntN(3) == 0 {
				break
			}
		}
		fs.Cut()
		_ = db.Close()
		fs.Restart(crashtest.LoseSome(lots.Uint64()))
		if !check(t, o, done) {
			t.Fatalf("round %d, operation %d", round, at)
		}
	}
}

// A disk that was full, or read-only, when the database was opened is no reason not to
// read what is there, as far as SQLite can.
func TestOpeningOnABadDisk(t *testing.T) {
	fs := crashtest.New(t)
	o := Options{Path: "/client.db", Key: testKey(), VFS: fs.Name()}
	put(t, open(t, o), "a", []byte("before"))
	image := fs.Image() // as a crash leaves it, log and all
	for _, fault := range []crashtest.Fault{crashtest.Full, crashtest.ReadOnly} {
		want := map[crashtest.Fault]error{crashtest.Full: ErrDiskFull, crashtest.ReadOnly: ErrReadOnly}[fault]
		fs.Load(image)
		fs.FaultAt(1, fault)
		if fault == crashtest.Full {
			db := open(t, o)
			if got, _ := value(t, db, "a"); string(got) != "before" {
				t.Errorf("got %q", got)
			}
			if err := db.Update(func(tx *Tx) error { return tx.SetMeta("b", make([]byte, 1<<20)) }); !errors.Is(err, want) {
				t.Errorf("writing: %v", err)
			}
			fs.Repair()
			put(t, db, "a", []byte("after"))
			continue
		}
		if _, err := Open(t.Context(), Options{Path: "/other.db", VFS: fs.Name()}); !errors.Is(err, want) {
			t.Errorf("a new database: %v", err)
		}
	}
}

// Errors of the system about files beside the database.
func TestFoldersThatCantBeWritten(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Path: file + "/client.db"}); err == nil {
		t.Error("a database in a file")
	}
	for _, err := range append(full, readOnly...) {
		if !IsDisk(Explain(&os.PathError{Op: "write", Path: "a", Err: err})) {
			t.Errorf("%v is not told", err)
		}
	}
}
