package store

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// rest lets a database rest, whenever it was used.
func rest(t *testing.T, db *DB) {
	t.Helper()
	if err := errors.Join(db.Rest(), db.Rest()); err != nil {
		t.Fatal(err)
	}
	if db.conn != nil {
		t.Fatal("it doesn't rest")
	}
}

func TestRest(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "client.db"), Key: testKey()}
	db := open(t, o)
	put(t, db, "a", []byte("b"))
	if err := db.Rest(); err != nil || db.conn == nil {
		t.Errorf("it rests although it was used, or fails: %v", err)
	}
	rest(t, db)
	if err := errors.Join(db.Scrub(), db.Sync(), db.Rest()); err != nil || db.conn != nil {
		t.Errorf("what needs no connection makes one, or fails: %v", err)
	}
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrInUse) {
		t.Errorf("while it rests another gets %v", err)
	}
	if got, _ := value(t, db, "a"); string(got) != "b" {
		t.Errorf("awake it has %q", got)
	}
	rest(t, db)
	put(t, db, "a", []byte("c"))
	if got, _ := value(t, open(t, crashed(t, o)), "a"); string(got) != "c" {
		t.Errorf("what was stored after a rest is %q after a crash", got)
	}
	rest(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("once closed: %v", err)
	}
	if got, _ := value(t, open(t, o), "a"); string(got) != "c" {
		t.Errorf("opened again it has %q", got)
	}
}

// A file that was exchanged meanwhile is not taken for the one that was left.
func TestRestOfAnotherFile(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "client.db"), Key: testKey()}
	db := open(t, o)
	put(t, db, "a", []byte("old"))
	rest(t, db)
	old, err := os.ReadFile(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "a", []byte("new"))
	rest(t, db)
	if err := os.WriteFile(o.Path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := db.View(func(*Tx) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("with an old copy: %v", err)
	}
	if err := os.Remove(o.Path); err != nil {
		t.Fatal(err)
	}
	if err := db.View(func(*Tx) error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	if _, err := os.Stat(o.Path); !errors.Is(err, os.ErrNotExist) {
		t.Error("there is a new file")
	}
}

// Many use a database that is let rest all the time.
func TestRestWhileItIsUsed(t *testing.T) {
	db := open(t, Options{Path: filepath.Join(t.TempDir(), "client.db"), Key: testKey()})
	const users, each = 4, 25
	var running sync.WaitGroup
	for u := range users {
		running.Go(func() {
			for i := range each {
				name, want := strconv.Itoa(u), strconv.Itoa(i)
				var got []byte
				err := db.Update(func(tx *Tx) error { return tx.SetMeta(name, []byte(want)) })
				if err == nil {
					err = db.View(func(tx *Tx) (err error) {
						got, err = tx.Meta(name)
						return err
					})
				}
				if err != nil || string(got) != want {
					t.Errorf("user %d finds %q, not %s: %v", u, got, want, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return
		default:
			if err := db.Rest(); err != nil {
				t.Error(err)
			}
		}
	}
}

func BenchmarkWake(b *testing.B) {
	db, err := Open(b.Context(), Options{Path: filepath.Join(b.TempDir(), "client.db"), Key: testKey()})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := db.View(func(*Tx) error { return nil }); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := errors.Join(db.Rest(), db.Rest()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
