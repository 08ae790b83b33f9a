package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
)

// progress is how far a workload has come: what is durable, and what was begun.
type progress struct{ confirmed, begun int }

func (p progress) max(q progress) progress {
	return progress{max(p.confirmed, q.confirmed), max(p.begun, q.begun)}
}

// workload stores steps until one fails, each third lazily. A step changes two
// tables, so that half of one would show; the values are longer than a page, and
// the log is emptied now and then.
func workload(t *testing.T, o Options, steps int) (p progress) {
	t.Helper()
	db, err := Open(t.Context(), o)
	if err != nil {
		return p
	}
	defer db.Close()
	first, err := lastStep(db)
	if err != nil {
		return p
	}
	for i := first + 1; i <= int64(steps); i++ {
		p.begun = int(i)
		if err := storeStep(db, i); err != nil {
			return p
		}
		if !isLazy(i) {
			p.confirmed = int(i)
		}
		if i%4 == 0 {
			if err := db.Scrub(); err != nil {
				return p
			}
			p.confirmed = int(i)
		}
	}
	return p
}

// isLazy tells the steps that a power cut may undo.
func isLazy(step int64) bool { return step%3 == 2 }

func storeStep(db *DB, i int64) error {
	update := db.Update
	if isLazy(i) {
		update = db.UpdateLazily
	}
	return update(func(tx *Tx) error {
		return errors.Join(
			tx.SetNumber("step", i),
			tx.SetMeta("copy", fmt.Append(nil, i)),
			tx.SetMeta(fmt.Sprint("value ", i%5), valueOf(i)),
			tx.Exec("DELETE FROM meta WHERE name = ?", fmt.Sprint("value ", (i+2)%5)),
		)
	})
}

func valueOf(step int64) []byte {
	value := make([]byte, 3000+500*(step%9))
	for i := range value {
		value[i] = byte(step + int64(i))
	}
	return value
}

func lastStep(db *DB) (step int64, err error) {
	err = db.View(func(tx *Tx) error {
		step, err = tx.Number("step")
		return err
	})
	return step, err
}

// check opens what a crash has left and compares it with what was confirmed:
// steps that were under way may be there, whole and in their order.
func check(t *testing.T, o Options, p progress) (ok bool) {
	t.Helper()
	db, err := Open(t.Context(), o)
	if err != nil {
		t.Errorf("opening: %v", err)
		return false
	}
	defer db.Close()
	step, err := lastStep(db)
	if err != nil {
		t.Errorf("reading: %v", err)
		return false
	}
	if step < int64(p.confirmed) || step > int64(p.begun) {
		t.Errorf("%d was confirmed, %d begun, %d is there", p.confirmed, p.begun, step)
		return false
	}
	err = db.View(func(tx *Tx) error {
		if step > 0 {
			for i := max(1, step-2); i <= step; i++ {
				value, err := tx.Meta(fmt.Sprint("value ", i%5))
				if err != nil {
					return err
				}
				if string(value) != string(valueOf(i)) {
					return fmt.Errorf("value of step %d: %d bytes", i, len(value))
				}
			}
			text, err := tx.Meta("copy")
			if err != nil || string(text) != fmt.Sprint(step) {
				return fmt.Errorf("step %d, copy %q: %w", step, text, err)
			}
			if gone, err := tx.Meta(fmt.Sprint("value ", (step+2)%5)); err != nil || gone != nil {
				return fmt.Errorf("a value that step %d has deleted is there: %w", step, err)
			}
		}
		return tx.Query("PRAGMA integrity_check", nil, func(r Row) error {
			if r.Text(0) != "ok" {
				return errors.New(r.Text(0))
			}
			return nil
		})
	})
	if err != nil {
		t.Errorf("after step %d: %v", step, err)
		return false
	}
	return true
}

// losses are what may be gone after a crash at an operation.
func losses(op int) []crashtest.Loss {
	all := []crashtest.Loss{crashtest.LoseNothing(), crashtest.LoseUnsynced()}
	for seed := range uint64(3) {
		all = append(all, crashtest.LoseSome(uint64(op)<<8|seed))
	}
	return all
}

// proof tells whether to try everything, which takes minutes, or a sample.
var proof = os.Getenv("XMTP_PROOF") != ""

// A cut at every operation, from before the file exists: what Update confirmed
// is there, nothing is there in part, and the database can be used.
func TestPowerCutAtEveryOperation(t *testing.T) {
	const steps, making = 12, 45 // operations until the tables are there
	for name, key := range map[string]*[KeySize]byte{"encrypted": testKey(), "plain": nil} {
		t.Run(name, func(t *testing.T) {
			fs := crashtest.New(t)
			o := Options{Path: "/client.db", Key: key, VFS: fs.Name()}
			if got := workload(t, o, steps); got != (progress{steps, steps}) {
				t.Fatalf("without a cut: %v", got)
			}
			points := 0
			for op, all := 1, fs.Ops(); op <= all; op++ {
				for i, loss := range losses(op) {
					if !proof && (i != op%5 || op > making && op/5%10 != 0) {
						continue
					}
					points++
					fs.Load(nil)
					fs.CutAt(op, nil)
					done := workload(t, o, steps)
					if !fs.WasCut() {
						t.Fatalf("no cut at operation %d", op)
					}
					fs.Restart(loss)
					if !check(t, o, done) {
						t.Fatalf("operation %d, loss %d", op, i)
					}
				}
			}
			t.Logf("%d points", points)
		})
	}
}

// Power that goes again and again while a database recovers.
func TestPowerCutDuringRecovery(t *testing.T) {
	const steps = 10
	fs := crashtest.New(t)
	o := Options{Path: "/client.db", Key: testKey(), VFS: fs.Name()}
	rounds := uint64(6)
	if proof {
		rounds = 1000
	}
	for round := range rounds {
		lots := rand.New(rand.NewPCG(round, 1))
		fs.Load(nil)
		var done progress
		for cut := range 12 {
			fs.CutAt(1+lots.IntN(60+20*cut), nil)
			done = done.max(workload(t, o, steps))
			fs.Cut()
			fs.Restart(crashtest.LoseSome(lots.Uint64()))
			image := fs.Image()
			if !check(t, o, done) {
				t.Fatalf("round %d, cut %d", round, cut)
			}
			fs.Load(image)
		}
	}
}

// A full disk fails what needs room and nothing else; what was there is there,
// also after a crash, and with room again it goes on.
func TestDiskFull(t *testing.T) {
	for name, key := range map[string]*[KeySize]byte{"encrypted": testKey(), "plain": nil} {
		t.Run(name, func(t *testing.T) {
			fs := crashtest.New(t)
			o := Options{Path: "/client.db", Key: key, VFS: fs.Name()}
			db := open(t, o)
			put(t, db, "a", []byte("before"))
			fs.FaultAt(1, crashtest.Full)
			large := make([]byte, 400_000) // more than a log keeps free
			err := db.Update(func(tx *Tx) error { return tx.SetMeta("a", large) })
			if !errors.Is(err, ErrDiskFull) {
				t.Fatalf("got %v", err)
			}
			if got, _ := value(t, db, "a"); string(got) != "before" {
				t.Errorf("got %q", got)
			}
			image := fs.Image()
			fs.Repair()
			put(t, db, "a", large)
			if got, _ := value(t, db, "a"); len(got) != len(large) {
				t.Errorf("got %d bytes", len(got))
			}
			fs.Load(image)
			if got, _ := value(t, open(t, o), "a"); string(got) != "before" {
				t.Errorf("after a crash: %q", got)
			}
		})
	}
}

// A disk that takes no changes: reading goes on.
func TestReadOnlyDisk(t *testing.T) {
	fs := crashtest.New(t)
	o := Options{Path: "/client.db", Key: testKey(), VFS: fs.Name()}
	db := open(t, o)
	put(t, db, "a", []byte("before"))
	fs.FaultAt(1, crashtest.ReadOnly)
	err := db.Update(func(tx *Tx) error { return tx.SetMeta("a", []byte("after")) })
	if !errors.Is(err, ErrReadOnly) {
		t.Errorf("got %v", err)
	}
	if got, _ := value(t, db, "a"); string(got) != "before" {
		t.Errorf("got %q", got)
	}
	if _, err := Open(t.Context(), Options{Path: "/other.db", Key: o.Key, VFS: fs.Name()}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a new database: %v", err)
	}
	fs.Repair()
	put(t, db, "a", []byte("after"))
}

// A log whose last block a full disk has cut off.
func TestPartOfABlock(t *testing.T) {
	fs := crashtest.New(t)
	o := Options{Path: "/client.db", Key: testKey(), VFS: fs.Name()}
	put(t, open(t, o), "a", []byte("kept"))
	image := fs.Image()
	for _, more := range []int{1, 512, 4095} {
		image["/client.db-wal"] = append(image["/client.db-wal"][:len(image["/client.db-wal"])/4096*4096], make([]byte, more)...)
		fs.Load(image)
		if got, _ := value(t, open(t, o), "a"); string(got) != "kept" {
			t.Errorf("%d bytes more: %q", more, got)
		}
	}
	for _, size := range []int{1, 512, 4095} {
		db := "/new.db"
		fs.Load(crashtest.Image{db: nil, db + "-journal": make([]byte, size)})
		put(t, open(t, Options{Path: db, Key: o.Key, VFS: fs.Name()}), "a", nil)
	}
}

func TestASecondConnectionIsRefused(t *testing.T) {
	o := Options{Path: "/client.db", Key: testKey(), VFS: crashtest.New(t).Name()}
	put(t, open(t, o), "a", nil)
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
}
