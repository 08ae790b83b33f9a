package store

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Nobody can tell that a change was not made at once: whoever reads or changes something
// finds it made, and so does who opens the database again.
func TestBehind(t *testing.T) {
	insert := func(i int) func(*Tx) error {
		return func(tx *Tx) error {
			return tx.Exec("INSERT INTO meta (name, value) VALUES (?, ?)", named(i), []byte("value"))
		}
	}
	for name, path := range map[string]string{"on disk": filepath.Join(t.TempDir(), "client.db"), "in memory": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := Options{Path: path, Key: testKey()}
				db := open(t, o)
				var told atomic.Int64
				behind := func(i int, want error) {
					db.UpdateBehind(insert(i), func(err error) {
						if told.Add(1); (err != nil) != (want != nil) {
							t.Errorf("%d: %v", i, err)
						}
					})
				}
				there := func(i int) {
					t.Helper()
					if _, found := value(t, db, named(i)); !found {
						t.Errorf("%d is not there", i)
					}
				}
				behind(0, nil)
				there(0)

				// Two commits become one, in their order.
				before := db.committed.Load()
				behind(1, nil)
				if err := db.Update(func(tx *Tx) error {
					return tx.Exec("UPDATE meta SET value = ? WHERE name = ?", []byte("changed"), named(1))
				}); err != nil {
					t.Fatal(err)
				}
				if got, _ := value(t, db, named(1)); string(got) != "changed" {
					t.Errorf("%q", got)
				}
				if n := db.committed.Load() - before; path != "" && n != 1 {
					t.Errorf("%d commits", n)
				}

				// What fails undoes nothing else.
				behind(1, errors.New("it is there"))
				behind(2, nil)
				there(2)

				behind(3, nil)
				if n := told.Load(); n != 4 {
					t.Errorf("%d are told", n)
				}
				time.Sleep(mostBehind)
				synctest.Wait()
				if told.Load() != 5 {
					t.Error("it is not made by itself")
				}

				behind(4, nil)
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				if told.Load() != 6 {
					t.Error("it is not made before the database is closed")
				}
				time.Sleep(mostBehind)
				synctest.Wait()
				var closed atomic.Bool
				db.UpdateBehind(insert(5), func(err error) { closed.Store(errors.Is(err, ErrClosed)) })
				time.Sleep(mostBehind)
				synctest.Wait()
				if !closed.Load() {
					t.Error("a closed database takes it")
				}
				if path == "" {
					return
				}
				db = open(t, o)
				there(4)
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
