package node_test

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
)

// A failing write is one that the store can't go on after.
var failingWrites = map[string]struct {
	op, name string // of the operations that fail from some moment on
	err      error
	fast     bool // not in the long tier only
}{
	"log-sync":        {"sync", ".log", syscall.EIO, true},
	"log-write":       {"write", ".log", syscall.EIO, false},
	"log-full":        {"write", ".log", syscall.ENOSPC, true},
	"new-log-full":    {"create", ".log", syscall.ENOSPC, false},
	"directory-sync":  {"sync", "/store", syscall.EIO, true},
	"manifest-write":  {"write", "MANIFEST-", syscall.EIO, false},
	"manifest-full":   {"write", "MANIFEST-", syscall.ENOSPC, false},
	"manifest-sync":   {"sync", "MANIFEST-", syscall.EIO, false},
	"table-sync":      {"sync", ".sst", syscall.EIO, false},
	"read-only-disk":  {"", "", syscall.EROFS, true},
	"disk-torn-off":   {"", "", syscall.ENODEV, false},
	"everything-full": {"", "", syscall.ENOSPC, false},
}

// TestFailedWrite: whatever it is that can't be written, all who wait get
// UNAVAILABLE, the node ends with the reason, nothing is tried again, and what
// was acknowledged is there. Each runs in a process of its own, because a store
// that has failed is left as it is.
func TestFailedWrite(t *testing.T) {
	t.Parallel()
	ways := 0
	for name, failing := range failingWrites {
		if !failing.fast && !proof {
			continue
		}
		ways++
		t.Run(name, func(t *testing.T) {
			out, err := helper(within(t, 2*time.Minute), "failing-write", name).Output()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	if !t.Failed() {
		t.Logf("CHECK failed writes: ways to fail: %d of %d end the node cleanly, 0 acknowledged records lost", ways, ways)
	}
}

func endsCleanly(name string) error {
	t := &lone{}
	failing := failingWrites[name]
	l := newLoad(t, 3, 3, 1)
	l.pad = 500_000 // the log is full soon
	mem := vfs.NewCrashableMem()
	var armed atomic.Bool
	var failed atomic.Int64
	var again sync.Map // failed operations by what they were
	fs := &hookFS{mem, func(op, path string) error {
		matches := failing.op == "" || op == failing.op && (strings.HasSuffix(path, failing.name) || strings.HasPrefix(filepath.Base(path), failing.name))
		if !armed.Load() || !matches {
			return nil
		}
		failed.Add(1)
		if _, twice := again.LoadOrStore(op+" "+path, true); twice {
			t.Errorf("%s %s was tried again", op, path)
		}
		return &iofs.PathError{Op: op, Path: path, Err: failing.err}
	}}
	n, err := launch(node.Options{Data: "/data"}.On(fs))
	if err != nil {
		return err
	}
	c, err := connectTo(n.Addr())
	if err != nil {
		return err
	}
	defer c.conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.run(ctx, 10, func() *client { return c }); err != nil {
		return err
	}
	armed.Store(true)
	err = l.run(ctx, 1<<30, func() *client { return c })
	var all interface{ Unwrap() []error }
	if !errors.As(err, &all) || len(all.Unwrap()) < len(l.people) {
		return fmt.Errorf("callers got %v", err)
	}
	for _, err := range all.Unwrap() {
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a caller got %v", err)
		}
	}
	select {
	case <-n.Done():
	case <-ctx.Done():
		return errors.New("the node did not end")
	}
	if err := n.Err(); !errors.Is(err, failing.err) {
		t.Errorf("the node ended with %v", err)
	}
	if err := n.Close(); !errors.Is(err, failing.err) {
		t.Errorf("Close: %v", err)
	}
	if failed.Load() == 0 {
		t.Errorf("nothing failed")
	}
	// Whether or not the disk kept what it didn't confirm.
	acknowledged, shown := l.mark()
	for _, percent := range []int{0, 100} {
		clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: l.people[0].rng})
		x, err := index.Open(index.Options{FS: clone, Dir: "/data", Logger: discard, OnFailure: func(error) {}})
		if err != nil {
			t.Errorf("opening what is left, with %d%% of what was not synced: %v", percent, err)
			continue
		}
		if err := errors.Join(l.verify(x, acknowledged, shown), x.Close()); err != nil {
			t.Errorf("what is left, with %d%% of what was not synced: %v", percent, err)
		}
	}
	return t.err()
}

// lone is a test in a process without the test runner.
type lone struct {
	testing.TB
	mu   sync.Mutex
	errs []error
}

func (l *lone) Helper() {}

func (l *lone) Errorf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, fmt.Errorf(format, args...))
}

func (l *lone) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (l *lone) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}

// TestDiskFull: while there is less room than is reserved, writes are refused,
// reads and streams go on, and nothing else happens. With room writes go on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem()
	room := func(bytes uint64) { mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: bytes, TotalBytes: 1 << 40}) }
	room(1 << 30)
	n := start(t, node.Options{Data: "/data", Reserve: 1 << 20}.On(mem))
	c, ctx := dial(t, n), short(t)
	group := newGroupID()
	stream, err := groupLog.open(ctx, c, filter{topic: group})
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	send := func() error {
		err := groupLog.send(ctx, c, group, application(group, fmt.Sprint(sent)))
		if err == nil {
			sent++
			must(stream.next())(t)
		}
		return err
	}
	inbox := newInbox(t)
	for range 3 {
		room(1 << 30)
		eventually(t, "there is room", func() bool { return send() == nil })
		room(1<<20 - 1)
		eventually(t, "there is none", func() bool { return send() != nil })
		for name, write := range map[string]func() error{
			"message": send,
			"welcome": func() error {
				return welcomeLog.send(ctx, c, publicKey(inbox.installation), []byte("welcome"))
			},
			"key package": func() error {
				_, err := c.mls.UploadKeyPackage(ctx, uploadRequest(newKeyPackage(t, inbox.installation, keyPackageOptions{inbox: inbox.id})))
				return err
			},
			"identity update": func() error {
				_, err := c.publish(ctx, inbox.register(t))
				return err
			},
			"commit log": func() error {
				_, err := c.mls.BatchPublishCommitLog(ctx, logRequest(logEntry(group, "entry")))
				return err
			},
		} {
			err := write()
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "disk is full") {
				t.Errorf("%s to a full disk: %v", name, err)
			}
		}
		entries, err := groupLog.all(ctx, c, group, 0)
		if err != nil || len(entries) != sent {
			t.Errorf("reading from a full disk: %d of %d messages, %v", len(entries), sent, err)
		}
	}
	room(1 << 30)
	eventually(t, "there is room", func() bool { return send() == nil })
	if err := n.Err(); err != nil {
		t.Error(err)
	}
}

// TestTableOnFullDisk: what is in the log may stay there until there is room
// for the table that it is going to be in; the node goes on meanwhile.
func TestTableOnFullDisk(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	var refused, written atomic.Int64
	fs := &hookFS{vfs.NewMem(), func(op, name string) error {
		if op != "create" || !strings.HasSuffix(name, ".sst") {
			return nil
		}
		if full.Load() {
			refused.Add(1)
			return &iofs.PathError{Op: op, Path: name, Err: syscall.ENOSPC}
		}
		written.Add(1)
		return nil
	}}
	n := start(t, node.Options{Data: "/data"}.On(fs))
	c, ctx := dial(t, n), short(t)
	full.Store(true)
	group := newGroupID()
	sent := 0
	send := func() {
		if err := groupLog.send(ctx, c, group, application(group, fmt.Sprint(sent)+string(make([]byte, 10000)))); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	for refused.Load() == 0 {
		send()
	}
	for range 50 {
		send()
	}
	full.Store(false)
	eventually(t, "a table has been written", func() bool { return written.Load() > 0 })
	entries, err := groupLog.all(ctx, c, group, 0)
	if err != nil || len(entries) != sent {
		t.Errorf("%d of %d messages, %v", len(entries), sent, err)
	}
	if n := refused.Load(); n > 30 {
		t.Errorf("the disk was asked %d times while it was full", n)
	}
}

// TestFullFromTheStart: a node that can't make its store, or can't open the one
// that is there, for want of room, says so and leaves nothing that keeps the
// next process from starting.
func TestFullFromTheStart(t *testing.T) {
	t.Parallel()
	if out, err := helper(short(t), "full-from-the-start", "").Output(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func opensWithRoom(string) error {
	t := &lone{}
	mem := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(1, 1))
	for _, calls := range []int{0, 100} {
		l := newLoad(t, 2, 3, 1)
		if calls > 0 {
			// What is in the log has to be brought into tables at the next start.
			n, err := launch(node.Options{Data: "/data"}.On(mem))
			if err != nil {
				return err
			}
			c, err := connectTo(n.Addr())
			if err != nil {
				return err
			}
			if err := l.run(context.Background(), calls, func() *client { return c }); err != nil {
				return err
			}
		}
		acknowledged, shown := l.mark()
		for at := 0; ; at += 3 + calls/20 {
			// As another process finds it: locks are gone.
			mem = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
			op, failed, opened := 0, false, false
			var mu sync.Mutex
			fs := &hookFS{mem, func(string, string) error {
				mu.Lock()
				defer mu.Unlock()
				if op++; op <= at || opened {
					return nil
				}
				failed = true
				return &iofs.PathError{Op: "write", Path: "a file", Err: syscall.ENOSPC}
			}}
			x, err := index.Open(index.Options{FS: fs, Dir: "/data", Logger: discard, OnFailure: func(error) {}})
			mu.Lock()
			opened = !failed
			mu.Unlock()
			if opened {
				if err := errors.Join(err, l.verify(x, acknowledged, shown), x.Close()); err != nil {
					return fmt.Errorf("with room: %w", err)
				}
				break
			}
			if err == nil {
				// Something that nobody waited for has failed just after, and Close may
				// tell of it.
				if err := x.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) {
					return err
				}
				continue
			}
			if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, index.ErrDamaged) || errors.Is(err, index.ErrForeign) {
				return fmt.Errorf("a disk that is full from operation %d on: %w", at, err)
			}
		}
	}
	return t.err()
}

// TestCloseWhileReading: readers get an error, not a crash, whenever the node ends.
func TestCloseWhileReading(t *testing.T) {
	t.Parallel()
	for round := range scaled(6, 100) {
		l := newLoad(t, 3, 1, uint64(round))
		n := start(t, node.Options{})
		ended := make(chan error, 1)
		go func() { ended <- l.run(long(t), 1<<30, func() *client { return dial(t, n) }) }()
		eventually(t, "there is something", func() bool { a, s := l.mark(); return a > 20 && s > 0 })
		var err error
		if round%2 == 0 {
			err = n.Close()
		} else {
			err = n.Shutdown(context.Background())
		}
		if err != nil {
			t.Error(err)
		}
		if err := <-ended; status.Code(errors.Unwrap(err)) == codes.Internal || errors.Is(err, errDisorder) {
			t.Error(err)
		}
	}
}

// TestRefusedStart: what keeps a node from starting, by its error; nothing is
// made or changed then.
func TestRefusedStart(t *testing.T) {
	running := filepath.Join(t.TempDir(), "data")
	n := start(t, node.Options{Data: running})
	foreign, newer := t.TempDir(), filepath.Join(t.TempDir(), "data")
	write := func(path, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(foreign, "letter.txt"), "dear")
	if err := start(t, node.Options{Data: newer}).Close(); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(newer, "FORMAT"), "go-xmtp node store, format 7\n")
	damaged := filepath.Join(t.TempDir(), "data")
	if err := start(t, node.Options{Data: damaged}).Close(); err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Glob(filepath.Join(damaged, "store", "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatal(err)
	}
	for _, manifest := range manifests {
		write(manifest, "nonsense")
	}
	working, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(working, running)
	if err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "not", "there")
	for name, c := range map[string]struct {
		options node.Options
		want    error
	}{
		"in use":                   {node.Options{Listen: "127.0.0.1:0", Data: running}, node.ErrInUse},
		"in use, by another name":  {node.Options{Listen: "127.0.0.1:0", Data: relative}, node.ErrInUse},
		"foreign":                  {node.Options{Listen: "127.0.0.1:0", Data: foreign}, node.ErrForeignDirectory},
		"newer":                    {node.Options{Listen: "127.0.0.1:0", Data: newer}, node.ErrNewerFormat},
		"damaged":                  {node.Options{Listen: "127.0.0.1:0", Data: damaged}, node.ErrDamaged},
		"port in use":              {node.Options{Listen: n.Addr(), Data: missing}, node.ErrAddressInUse},
		"port in use, and foreign": {node.Options{Listen: n.Addr(), Data: foreign}, node.ErrAddressInUse},
		"no such address":          {node.Options{Listen: "256.0.0.1:0", Data: missing}, nil},
		"no data":                  {node.Options{Listen: "127.0.0.1:0"}, nil},
		"data, and ephemeral":      {node.Options{Listen: "127.0.0.1:0", Data: missing, Ephemeral: true}, nil},
	} {
		got, err := node.Start(t.Context(), c.options)
		if err == nil {
			err = got.Close()
			t.Errorf("%s: started, closing gave %v", name, err)
		} else if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := os.Stat(filepath.Dir(missing)); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("%s was made: %v", missing, err)
	}
	entries, err := os.ReadDir(foreign)
	if err != nil || len(entries) != 1 {
		t.Errorf("the foreign directory holds %v, %v", entries, err)
	}
	// A refused start gives its port back.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Start(t.Context(), node.Options{Listen: address, Data: foreign}); err == nil {
		t.Error("a foreign directory was taken")
	}
	if listener, err = net.Listen("tcp", address); err != nil {
		t.Errorf("the port is still taken: %v", err)
	} else if err := listener.Close(); err != nil {
		t.Error(err)
	}
}

// TestDamagedTable: a table that turns out to be damaged ends the node, which
// says so, instead of answers that leave something out.
func TestDamagedTable(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	group := []byte("a group of bytes")
	for range 2 { // what is in the log goes into a table when it is opened again
		n := start(t, node.Options{Data: dir})
		if err := groupLog.fill(short(t), dial(t, n), group, 0, 500); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	tables, err := filepath.Glob(filepath.Join(dir, "store", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	for _, table := range tables {
		content, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(content) / 2 {
			content[i] ^= 0x55
		}
		if err := os.WriteFile(table, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := helper(short(t), "damaged-table", dir).Output()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func endsDamaged(dir string) error {
	n, err := launch(node.Options{Data: dir})
	if err != nil {
		if !errors.Is(err, node.ErrDamaged) {
			return err
		}
		return nil // it was noticed at once
	}
	c, err := connectTo(n.Addr())
	if err != nil {
		return err
	}
	defer c.conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if entries, err := groupLog.all(ctx, c, []byte("a group of bytes"), 0); err == nil {
		return fmt.Errorf("reading gave %d messages and no error", len(entries))
	}
	select {
	case <-n.Done():
	case <-ctx.Done():
		return errors.New("the node did not end")
	}
	if err := n.Err(); !errors.Is(err, node.ErrDamaged) {
		return fmt.Errorf("the node ended with %w", err)
	}
	return nil
}

// TestStartAfterKillDuringClose: closing may be cut short anywhere, too.
func TestStartAfterKillDuringClose(t *testing.T) {
	t.Parallel()
	mem := vfs.NewCrashableMem()
	l := newLoad(t, 2, 3, 5)
	var clones []*vfs.MemFS
	var mu sync.Mutex
	closing := false
	fs := &hookFS{mem, func(op, name string) error {
		mu.Lock()
		defer mu.Unlock()
		if closing {
			clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 30, RNG: l.people[0].rng}))
		}
		return nil
	}}
	n := start(t, node.Options{Data: "/data"}.On(fs))
	if err := l.run(short(t), 30, func() *client { return dial(t, n) }); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	closing = true
	mu.Unlock()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if len(clones) == 0 {
		t.Fatal("closing wrote nothing")
	}
	acknowledged, shown := l.mark()
	for i, clone := range slices.Backward(clones) {
		x, err := index.Open(index.Options{FS: clone, Dir: "/data", Logger: discard, OnFailure: func(error) {}})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.verify(x, acknowledged, shown), x.Close()); err != nil {
			t.Errorf("power cut %d while closing: %v", i, err)
		}
	}
}
