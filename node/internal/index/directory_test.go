package index

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// helperDir names, in another process, the directory to open and hold.
const helperDir = "GO_XMTP_INDEX_HELPER"

// helper is what the test binary does when a test has started it again.
func helper() bool {
	dir := os.Getenv(helperDir)
	if dir == "" {
		return false
	}
	x, err := Open(Options{FS: vfs.Default, Dir: dir, Logger: slog.New(slog.DiscardHandler), OnFailure: func(error) {}})
	fmt.Println(err)
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err == nil {
		_ = x.Close()
	}
	return true
}

func openDir(dir string) (*Index, error) {
	return Open(Options{FS: vfs.Default, Dir: dir, Logger: slog.New(slog.DiscardHandler), OnFailure: func(error) {}})
}

// listing names all files below dir with their hashes. It leaves locks alone:
// to close a file is to give up this process's locks on it.
func listing(t *testing.T, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	info, err := fs.Stat(dir)
	if isNotExist(err) {
		return found
	}
	if err != nil {
		t.Fatal(err)
	}
	if info.IsDir() {
		names, err := fs.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		found[dir] = "directory"
		for _, name := range names {
			for path, hash := range listing(t, fs, fs.PathJoin(dir, name)) {
				found[path] = hash
			}
		}
		return found
	}
	if fs.PathBase(dir) == lockName {
		found[dir] = fmt.Sprintf("%d bytes", info.Size())
		return found
	}
	content := read(t, fs, dir)
	found[dir] = fmt.Sprintf("%d bytes %x", len(content), sha256.Sum256(content))
	return found
}

func read(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return content
}

func write(t *testing.T, fs vfs.FS, path string, content []byte) {
	t.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err == nil && len(content) > 0 {
		_, err = f.Write(slices.Clone(content))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNewDirectory: one that is not there yet, with parents, and one that is
// there and empty, or holds what a start that was cut short has left.
func TestNewDirectory(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"missing":         func(dir string) error { return nil },
		"missing parents": func(dir string) error { return os.Remove(filepath.Dir(dir)) },
		"empty":           func(dir string) error { return os.Mkdir(dir, 0o700) },
		"lock left": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, lockName), nil, 0o600))
		},
		"begun": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, formatTemp), nil, 0o600))
		},
		"store begun": func(dir string) error {
			return errors.Join(os.MkdirAll(filepath.Join(dir, storeName), 0o700),
				os.WriteFile(filepath.Join(dir, formatTemp), []byte("go-xmtp"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "parent", "data")
			if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			for round := range 2 {
				x, err := openDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				w := newWriter(t, x)
				if w.number != uint64(round) {
					t.Errorf("the newest record is %d, want %d", w.number, round)
				}
				w.publish(message("g", fmt.Sprint(round)))
				mustClose(t, x)
			}
			if content, err := os.ReadFile(filepath.Join(dir, formatName)); string(content) != "go-xmtp node store, format 1\n" {
				t.Errorf("%s says %q, %v", formatName, content, err)
			}
			if info, err := os.Stat(dir); runtime.GOOS != "windows" && err == nil && name != "empty" && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("others may read the directory: %v", info.Mode())
			}
		})
	}
}

// TestRefusedDirectory: what is not ours, or not ours to read, is left alone.
func TestRefusedDirectory(t *testing.T) {
	valid := func(t *testing.T, dir string) {
		x, err := openDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		newWriter(t, x).publish(message("g", "m"))
		mustClose(t, x)
	}
	put := func(name, content string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	after := func(first, then func(*testing.T, string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) { first(t, dir); then(t, dir) }
	}
	for name, c := range map[string]struct {
		prepare func(*testing.T, string)
		want    error
	}{
		"somebody's home":      {put("letter.txt", "dear"), ErrForeign},
		"hidden file":          {put(".profile", ""), ErrForeign},
		"store of another":     {put("store/CURRENT", "MANIFEST-000001"), ErrForeign},
		"store begun, and all": {after(put("FORMAT.new", ""), put("letter.txt", "dear")), ErrForeign},
		"foreign FORMAT":       {put("FORMAT", "ext4"), ErrForeign},
		"empty FORMAT":         {put("FORMAT", ""), ErrForeign},
		"newer":                {after(valid, put("FORMAT", "go-xmtp node store, format 2\n")), ErrNewer},
		"much newer":           {after(valid, put("FORMAT", "go-xmtp node store, format 4294967295")), ErrNewer},
		"format 0":             {after(valid, put("FORMAT", "go-xmtp node store, format 0\n")), ErrDamaged},
		"format -1":            {after(valid, put("FORMAT", "go-xmtp node store, format -1\n")), ErrDamaged},
		"format too big":       {after(valid, put("FORMAT", "go-xmtp node store, format 4294967296\n")), ErrDamaged},
		"format cut":           {after(valid, put("FORMAT", "go-xmtp node store, format ")), ErrDamaged},
		"store missing": {after(valid, func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, storeName)); err != nil {
				t.Fatal(err)
			}
		}), ErrDamaged},
		"store empty": {after(valid, func(t *testing.T, dir string) {
			if err := errors.Join(os.RemoveAll(filepath.Join(dir, storeName)), os.Mkdir(filepath.Join(dir, storeName), 0o700)); err != nil {
				t.Fatal(err)
			}
		}), ErrDamaged},
		"store is a file": {after(put("FORMAT", "go-xmtp node store, format 1\n"), put("store", "x")), nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			c.prepare(t, dir)
			before := listing(t, vfs.Default, dir)
			x, err := openDir(dir)
			if err == nil {
				_ = x.Close()
			}
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("Open: %v, want %v", err, c.want)
			}
			delete(before, filepath.Join(dir, lockName))
			afterwards := listing(t, vfs.Default, dir)
			delete(afterwards, filepath.Join(dir, lockName))
			if diff := cmp.Diff(before, afterwards); diff != "" {
				t.Errorf("the directory was changed:\n%s", diff)
			}
			// The lock has been given back.
			if _, again := openDir(dir); errors.Is(again, ErrInUse) {
				t.Errorf("Open again: %v", again)
			}
		})
	}
	t.Run("a file", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		if err := os.WriteFile(dir, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openDir(dir); err == nil {
			t.Error("a file was opened as data directory")
		}
		if content, _ := os.ReadFile(dir); string(content) != "x" {
			t.Errorf("the file holds %q now", content)
		}
	})
	t.Run("no permission", func(t *testing.T) {
		mem := vfs.NewMem()
		mustClose(t, open(t, mem))
		for _, name := range []string{"/data", "/data/FORMAT", "/data/LOCK", "/data/store", "/data/store/MANIFEST-000001"} {
			before := listing(t, mem, "/data")
			_, err := Open(Options{FS: forbidden{mem, name}, Dir: "/data", Logger: slog.New(slog.DiscardHandler), OnFailure: func(error) {}})
			if !errors.Is(err, iofs.ErrPermission) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrInUse) || errors.Is(err, ErrForeign) {
				t.Errorf("without permission for %s: %v", name, err)
			}
			if diff := cmp.Diff(before, listing(t, mem, "/data")); diff != "" {
				t.Errorf("the directory was changed:\n%s", diff)
			}
		}
	})
}

// forbidden is a file system with one file or directory that may not be read.
type forbidden struct {
	vfs.FS
	name string
}

func (f forbidden) check(name string) error {
	if name != f.name {
		return nil
	}
	return &iofs.PathError{Op: "open", Path: name, Err: iofs.ErrPermission}
}

func (f forbidden) Open(name string, options ...vfs.OpenOption) (vfs.File, error) {
	if err := f.check(name); err != nil {
		return nil, err
	}
	return f.FS.Open(name, options...)
}

func (f forbidden) List(name string) ([]string, error) {
	if err := f.check(name); err != nil {
		return nil, err
	}
	return f.FS.List(name)
}

func (f forbidden) Lock(name string) (io.Closer, error) {
	if err := f.check(name); err != nil {
		return nil, err
	}
	return f.FS.Lock(name)
}

// TestInUse: only one may have the directory open, in this process or another.
func TestInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	x, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	newWriter(t, x).publish(message("g", "m"))
	before := listing(t, vfs.Default, dir)
	if _, err := openDir(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("Open twice: %v", err)
	}
	if got := start(t, dir, func() {}); !strings.Contains(got, ErrInUse.Error()) {
		t.Errorf("Open in another process: %s", got)
	}
	if diff := cmp.Diff(before, listing(t, vfs.Default, dir)); diff != "" {
		t.Errorf("the directory was changed:\n%s", diff)
	}
	mustClose(t, x)
	if got := start(t, dir, func() {
		if _, err := openDir(dir); !errors.Is(err, ErrInUse) {
			t.Errorf("Open what another process has open: %v", err)
		}
	}); got != "<nil>" {
		t.Errorf("Open in another process: %s", got)
	}
	if x, err = openDir(dir); err != nil {
		t.Fatal(err)
	}
	if w := newWriter(t, x); w.number != 1 {
		t.Errorf("the newest record is %d", w.number)
	}
	mustClose(t, x)
}

// start opens the directory in another process, calls meanwhile and ends the
// process. It returns what Open said there.
func start(t *testing.T, dir string, meanwhile func()) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Error(err)
	}
	meanwhile()
	_ = stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(said)
}

// stuckTables is a file system on which no table can be begun once stuck, so
// that what is written stays in the log.
type stuckTables struct {
	vfs.FS
	mu    sync.Mutex
	stuck bool
	free  chan struct{}
}

func (f *stuckTables) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f.mu.Lock()
	stuck := f.stuck
	f.mu.Unlock()
	if stuck && strings.HasSuffix(name, ".sst") {
		<-f.free
	}
	return f.FS.Create(name, category)
}

// bigStore returns a store, as a power cut could leave it, with several tables,
// several logs that are still needed, and the payloads of its records.
func bigStore(t *testing.T) (fs *vfs.MemFS, payloads map[uint64][]byte) {
	t.Helper()
	payloads = map[uint64][]byte{}
	mem := vfs.NewCrashableMem()
	fill := func(x *Index, batches int) {
		w := newWriter(t, x)
		for range batches {
			r := message("g", "")
			r.Payload = bytes.Repeat(fmt.Append(nil, "payload ", w.number), 2000)
			w.publish(r)
			payloads[r.Number] = r.Payload
		}
	}
	for range 3 {
		x := open(t, mem)
		fill(x, 5)
		mustClose(t, x)
	}
	stuck := &stuckTables{FS: mem, free: make(chan struct{})}
	x := open(t, stuck)
	stuck.mu.Lock()
	stuck.stuck = true
	stuck.mu.Unlock()
	fill(x, 170)
	fs = mem.CrashClone(vfs.CrashCloneCfg{})
	close(stuck.free)
	mustClose(t, x)

	names, err := fs.List("/data/store")
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, name := range names {
		count[filepath.Ext(name)]++
	}
	if count[".sst"] < 2 || count[".log"] < 3 {
		t.Fatalf("not the store that was wanted: %v", names)
	}
	return fs, payloads
}

// TestDamagedStore: however a file of the store is damaged, either the store is
// not opened, which says so and changes nothing, or what is read is right.
func TestDamagedStore(t *testing.T) {
	original, payloads := bigStore(t)
	names, err := original.List("/data/store")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	logs := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !strings.HasSuffix(name, ".log") })
	newest := logs[len(logs)-1]
	type damage struct {
		name string
		fast bool // not in the long tier only
		do   func(content []byte) []byte
	}
	damages := []damage{
		{"missing", true, nil},
		{"empty", false, func(content []byte) []byte { return nil }},
		{"cut", true, func(content []byte) []byte { return content[:len(content)/2] }},
		{"one byte less", false, func(content []byte) []byte { return content[:max(0, len(content)-1)] }},
		{"flipped", true, func(content []byte) []byte { content[len(content)/3] ^= 0x10; return content }},
		{"zeroed", false, func(content []byte) []byte { clear(content[len(content)/3 : len(content)/2]); return content }},
		{"overwritten", false, func(content []byte) []byte { return bytes.Repeat([]byte{0xa5}, len(content)) }},
	}
	if os.Getenv("XMTP_PROOF") == "" {
		damages = slices.DeleteFunc(damages, func(d damage) bool { return !d.fast })
	}
	refused, opened := 0, 0
	for _, name := range append(names, "all logs", "all tables", "all markers", "the manifest's marker") {
		for _, damage := range damages {
			affected := []string{name}
			switch name {
			case "all logs":
				affected = logs
			case "all tables":
				affected = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasSuffix(n, ".sst") })
			case "all markers":
				affected = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, "marker.") })
			case "the manifest's marker":
				affected = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, "marker.manifest") })
			}
			if len(read(t, original, "/data/store/"+affected[0])) == 0 && damage.do != nil {
				continue // markers say what they say by their names
			}
			t.Run(name+" "+damage.name, func(t *testing.T) {
				fs := original.CrashClone(vfs.CrashCloneCfg{})
				for _, name := range affected {
					path := "/data/store/" + name
					if damage.do == nil {
						if err := fs.Remove(path); err != nil {
							t.Fatal(err)
						}
						continue
					}
					write(t, fs, path, damage.do(read(t, fs, path)))
				}
				before := listing(t, fs, "/data")
				failure := make(chan error, 1)
				x, err := Open(Options{FS: fs, Dir: "/data", Logger: slog.New(slog.DiscardHandler), OnFailure: func(err error) { failure <- err }})
				if err != nil {
					refused++
					if !errors.Is(err, ErrDamaged) {
						t.Errorf("Open: %v", err)
					}
					// What is inside a table is not looked at before it is needed, which can be at once.
					inTable := damage.do != nil && strings.HasSuffix(affected[0], ".sst")
					if diff := cmp.Diff(before, listing(t, fs, "/data")); diff != "" && !inTable {
						t.Errorf("%v\nbut the directory was changed:\n%s", err, diff)
					}
					return
				}
				opened++
				var found []*order.Record
				for cursor := uint64(0); ; {
					page, _, err := x.Records(message("g", "").Topic, Page{Cursor: cursor, Limit: 10, MaxBytes: 1 << 30})
					if err != nil {
						if got := <-failure; !errors.Is(got, ErrDamaged) {
							t.Errorf("reading gave %v, the failure is %v", err, got)
						}
						mustClose(t, x)
						return
					}
					if len(page) == 0 {
						break
					}
					found = append(found, page...)
					cursor = page[len(page)-1].Number
				}
				for i, r := range found {
					// Nothing is missing before something that is there.
					if r.Number != uint64(i+1) || !bytes.Equal(r.Payload, payloads[r.Number]) {
						t.Fatalf("record %d came at place %d, with %d bytes", r.Number, i, len(r.Payload))
					}
				}
				// The end of the newest log can't be told from what a power cut leaves.
				if len(found) != len(payloads) && name != newest && name != "all logs" {
					t.Errorf("%d of %d records are left, and the store was opened", len(found), len(payloads))
				}
				mustClose(t, x)
			})
		}
	}
	t.Logf("CHECK damaged store: files damaged in turn: %d, of which %d refused untouched and %d opened with all records", refused+opened, refused, opened)
}

var updateGolden = flag.Bool("update", false, "write testdata/format1 anew")

// TestFormat1 opens a store that was written when its format was fixed.
func TestFormat1(t *testing.T) {
	golden := filepath.Join("testdata", "format1")
	alice, bob := wallet(1), wallet(2)
	if *updateGolden {
		if err := os.RemoveAll(golden); err != nil {
			t.Fatal(err)
		}
		for _, batch := range [][]*order.Record{
			{create(t, alice), keyPackage("installation", "old", 1), message("group", "one")},
			{add(t, 2, alice, bob), keyPackage("installation", "new", 2), message("group", "two")},
		} {
			x, err := openDir(golden) // each opening makes a table
			if err != nil {
				t.Fatal(err)
			}
			newWriter(t, x).publish(batch...)
			mustClose(t, x)
		}
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(golden)); err != nil {
		t.Fatal(err)
	}
	x, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, x)
	if number, at := x.Last(); number != 6 || at != 6 {
		t.Errorf("the newest record is %d of time %d", number, at)
	}
	got := records(t, x, message("group", "").Topic, all())
	one, two := message("group", "one"), message("group", "two")
	one.Number, one.Time, two.Number, two.Time = 3, 3, 6, 6
	if diff := cmp.Diff([]*order.Record{one, two}, got); diff != "" {
		t.Error(diff)
	}
	if r, err := x.KeyPackage(t.Context(), "installation"); err != nil || r.Number != 5 || string(r.Payload) != "new" {
		t.Errorf("key package: %+v, %v", r, err)
	}
	checkInbox(t, x, alice, alice)
	checkInbox(t, x, bob, alice)
	again := add(t, 2, alice, bob)
	again.Payload = []byte("add 2") // as it was stored
	outcomes := newWriter(t, x).publish(message("group", "one"), create(t, alice), again, keyPackage("installation", "old", 1), revoke(t, 3, alice, bob))
	if outcomes[0].Number != 3 || outcomes[1].Err == nil || outcomes[2].Number != 4 || outcomes[3].Err == nil || outcomes[4].Number != 7 {
		t.Errorf("outcomes %+v", outcomes)
	}
	checkInbox(t, x, bob, nil)
}
