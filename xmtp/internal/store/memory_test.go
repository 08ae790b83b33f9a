package store

import (
	"errors"
	"testing"
)

// What a database in memory holds is there when it is opened again; one has it at a time.
func TestMemory(t *testing.T) {
	memory := new(Memory)
	open := func() (*DB, error) { return Open(t.Context(), Options{Memory: memory}) }
	for i := range 3 {
		db, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(); !errors.Is(err, ErrInUse) {
			t.Errorf("opened twice: %v", err)
		}
		err = db.Update(func(tx *Tx) error {
			n, err := tx.Number("times")
			if n != int64(i) {
				t.Errorf("opened %d times, it says %d", i, n)
			}
			return errors.Join(err, tx.SetNumber("times", n+1))
		})
		// Closing again does nothing, whoever has it then.
		if err := errors.Join(err, db.Close(), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
