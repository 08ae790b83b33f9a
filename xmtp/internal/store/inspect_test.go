package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What is found of a database, in the short way where that is enough, is what is found
// by opening it.
func TestInspect(t *testing.T) {
	for name, key := range map[string]*[KeySize]byte{"encrypted": testKey(), "plain": nil} {
		t.Run(name, func(t *testing.T) {
			o := Options{Path: filepath.Join(t.TempDir(), "client.db"), Key: key}
			want := func(o Options, want state, short bool) {
				t.Helper()
				if got, err := inspect(t.Context(), o); got != want || err != nil {
					t.Errorf("found %d, %v; want %d", got, err, want)
				}
				if _, ok := glance(o); ok != short {
					t.Errorf("a glance was enough: %v", ok)
				}
			}
			want(o, stateNew, true)
			if err := os.WriteFile(o.Path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			want(o, stateNew, true)

			db := open(t, o)
			put(t, db, "a", []byte("in the log"))
			want(crashed(t, o), stateOpen, false)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			want(o, stateClosed, true)

			// Here it is only a link, the log of which would be beside what it leads to.
			link := o
			link.Path = filepath.Join(t.TempDir(), "link.db")
			if err := os.Symlink(o.Path, link.Path); err != nil {
				t.Fatal(err)
			}
			want(link, stateOpen, false)

			other := o
			other.Key = testKey()
			if _, ok := glance(other); ok {
				t.Error("a glance is enough with a wrong key")
			}
			if _, err := inspect(t.Context(), other); !errors.Is(err, ErrWrongKey) && !errors.Is(err, ErrForeign) {
				t.Errorf("with a wrong key: %v", err)
			}
		})
	}
}

// Someone who takes the lock file away can't make two processes use one database.
func TestLockFileRemoved(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "client.db"), Key: testKey()}
	db := open(t, o)
	put(t, db, "a", []byte("b"))
	if err := os.Remove(o.Path + ".lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	put(t, db, "a", []byte("c"))
}
