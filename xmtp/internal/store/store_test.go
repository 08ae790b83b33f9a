package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
)

func testKey() *[KeySize]byte {
	var key [KeySize]byte
	rand.Read(key[:])
	return &key
}

func open(t *testing.T, o Options) *DB {
	t.Helper()
	db, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func put(t *testing.T, db *DB, name string, value []byte) {
	t.Helper()
	err := db.Update(func(tx *Tx) error {
		return tx.Exec("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", name, value)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func value(t *testing.T, db *DB, name string) (value []byte, found bool) {
	t.Helper()
	err := db.View(func(tx *Tx) (err error) {
		found, err = tx.One("SELECT value FROM meta WHERE name = ?", []any{name}, func(r Row) { value = r.Bytes(0) })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value, found
}

func TestWhatWasStoredIsThereAfterReopening(t *testing.T) {
	for name, key := range map[string]*[KeySize]byte{"encrypted": testKey(), "plain": nil} {
		t.Run(name, func(t *testing.T) {
			o := Options{Path: filepath.Join(t.TempDir(), "folder", "client.db"), Key: key}
			db := open(t, o)
			put(t, db, "a", []byte("value of a"))
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			got, found := value(t, open(t, o), "a")
			if !found || string(got) != "value of a" {
				t.Errorf("got %q, %v", got, found)
			}
		})
	}
}

func TestASecondOpenIsRefused(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "client.db"), Key: testKey()}
	open(t, o)
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
}

// snapshot reads all files of a folder.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(e.Name()) != ".lock" {
			files[e.Name()] = string(b)
		}
	}
	return files
}

// crashed copies a database that is open, log and all, as a crash would leave it.
func crashed(t *testing.T, o Options) Options {
	t.Helper()
	dir := t.TempDir()
	for name, content := range snapshot(t, filepath.Dir(o.Path)) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Options{Path: filepath.Join(dir, filepath.Base(o.Path)), Key: o.Key}
}

func TestRefusedOpenTouchesNothing(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "client.db"), Key: testKey()}
	db := open(t, o)
	put(t, db, "a", []byte("only in the log so far"))
	o = crashed(t, o)

	foreign := func(content string) Options {
		path := filepath.Join(t.TempDir(), "client.db")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return Options{Path: path, Key: testKey()}
	}
	plain := Options{Path: filepath.Join(t.TempDir(), "client.db")}
	open(t, plain).Close()
	newer := Options{Path: filepath.Join(t.TempDir(), "client.db")}
	db = open(t, newer)
	if err := db.run("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	db.Close()

	for name, c := range map[string]struct {
		options Options
		want    error
	}{
		"wrong key":                  {Options{Path: o.Path, Key: testKey()}, ErrWrongKey},
		"no key for an encrypted":    {Options{Path: o.Path}, ErrWrongKey},
		"key for a plain one":        {Options{Path: plain.Path, Key: testKey()}, ErrForeign},
		"some other file":            {foreign("a text that somebody wrote and wants to keep, long enough for a header"), ErrWrongKey},
		"a newer version's database": {newer, ErrNewer},
	} {
		t.Run(name, func(t *testing.T) {
			before := snapshot(t, filepath.Dir(c.options.Path))
			if _, err := Open(t.Context(), c.options); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			after := snapshot(t, filepath.Dir(c.options.Path))
			if len(after) != len(before) {
				t.Errorf("files before %d, after %d", len(before), len(after))
			}
			for name, content := range before {
				if after[name] != content {
					t.Errorf("%s has changed", name)
				}
			}
		})
	}
	if got, _ := value(t, open(t, o), "a"); string(got) != "only in the log so far" {
		t.Errorf("with the right key: got %q", got)
	}
}

func TestFailedUpdateIsUndone(t *testing.T) {
	db := open(t, Options{})
	put(t, db, "a", []byte("old"))
	failure := errors.New("failure")
	err := db.Update(func(tx *Tx) error {
		if err := tx.Exec("UPDATE meta SET value = ? WHERE name = 'a'", []byte("new")); err != nil {
			return err
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Fatalf("got %v", err)
	}
	if got, _ := value(t, db, "a"); string(got) != "old" {
		t.Errorf("got %q", got)
	}
}

func TestSavepointUndoesItsPartOnly(t *testing.T) {
	db := open(t, Options{})
	err := db.Update(func(tx *Tx) error {
		if err := tx.Exec("INSERT INTO meta VALUES ('kept', x'01')"); err != nil {
			return err
		}
		_ = tx.Savepoint(func() error {
			if err := tx.Exec("INSERT INTO meta VALUES ('undone', x'02')"); err != nil {
				t.Error(err)
			}
			return errors.New("failure")
		})
		return tx.Savepoint(func() error { return tx.Exec("INSERT INTO meta VALUES ('also kept', x'03')") })
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"kept": true, "undone": false, "also kept": true} {
		if _, found := value(t, db, name); found != want {
			t.Errorf("%s: found %v", name, found)
		}
	}
}

func TestDeletedSecretsAreGoneFromTheFiles(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "client.db")} // plain, to be able to search it
	db := open(t, o)
	secret := []byte("a spent secret that must not stay behind anywhere")
	for range 50 {
		put(t, db, "secret", secret)
		put(t, db, "other", bytes.Repeat([]byte{1}, 5000))
		err := db.Update(func(tx *Tx) error { return tx.Exec("DELETE FROM meta WHERE name = 'secret'") })
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Scrub(); err != nil {
		t.Fatal(err)
	}
	for name, content := range snapshot(t, filepath.Dir(o.Path)) {
		if bytes.Contains([]byte(content), secret) {
			t.Errorf("%s holds it", name)
		}
	}
}

func TestEncryptedFilesShowNothing(t *testing.T) {
	o := Options{Path: filepath.Join(t.TempDir(), "client.db"), Key: testKey()}
	db := open(t, o)
	put(t, db, "a", []byte("something that is nobody's business"))
	check := func() {
		for name, content := range snapshot(t, filepath.Dir(o.Path)) {
			for _, text := range []string{"nobody's business", "CREATE TABLE", "SQLite format"} {
				if bytes.Contains([]byte(content), []byte(text)) {
					t.Errorf("%s shows %q", name, text)
				}
			}
		}
	}
	check()
	if err := db.Scrub(); err != nil {
		t.Fatal(err)
	}
	check()
}

// Compiling a statement takes longer than carrying it out.
func TestStatementsAreCompiledOnce(t *testing.T) {
	db := open(t, Options{})
	for limit := range 3 {
		err := db.View(func(tx *Tx) error {
			_, err := tx.Messages([][]byte{{1}}, MessageQuery{Limit: 1 + limit})
			_, intentsErr := tx.Intents([]byte{1}, 1+limit)
			_, hashesErr := tx.IntentHashes([]byte{1}, 1, 1+limit)
			return errors.Join(err, intentsErr, hashesErr)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(db.statements) == 0 {
		t.Error("no statements")
	}
	for sql, s := range db.statements {
		if n := s.Status(sqlite3.STMTSTATUS_REPREPARE, false); n > 0 {
			t.Errorf("%d times anew: %s", n, sql)
		}
	}
}
