package history

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

var errDisk = errors.New("bad block")

// hookFS asks before each operation that changes something.
type hookFS struct {
	vfs.FS
	mu   sync.Mutex
	hook func(op string) error
}

func (f *hookFS) fail(op string, err error) {
	f.set(func(at string) error {
		if at == op {
			return &iofs.PathError{Op: op, Path: "file", Err: err}
		}
		return nil
	})
}

func (f *hookFS) set(hook func(op string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

func (f *hookFS) ask(op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hook == nil {
		return nil
	}
	return f.hook(op)
}

func (f *hookFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.ask("create"); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, c)
	return &hookFile{file, f, ""}, err
}

func (f *hookFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return &hookFile{file, f, "directory "}, err
}

func (f *hookFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if err := f.ask("open"); err != nil {
		return nil, err
	}
	return f.FS.Open(name, o...)
}

func (f *hookFS) Rename(old, name string) error {
	if err := f.ask("rename"); err != nil {
		return err
	}
	return f.FS.Rename(old, name)
}

func (f *hookFS) Remove(name string) error {
	if err := f.ask("remove"); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

type hookFile struct {
	vfs.File
	fs   *hookFS
	what string
}

func (f *hookFile) Write(b []byte) (int, error) {
	if err := f.fs.ask("write"); err != nil {
		// Some of it is there.
		n, _ := f.File.Write(b[:len(b)/2])
		return n, err
	}
	return f.File.Write(b)
}

func (f *hookFile) Sync() error {
	if err := f.fs.ask(f.what + "sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *hookFile) SyncData() error { return f.Sync() }

func (f *hookFile) Close() error {
	return errors.Join(f.File.Close(), f.fs.ask(f.what+"close"))
}

// TestDiskFails: whatever fails, it is answered, nothing is left behind, and it
// goes on afterwards.
func TestDiskFails(t *testing.T) {
	for _, op := range []string{"create", "write", "sync", "close", "rename", "directory sync"} {
		for _, failure := range []struct {
			err    error
			status int
		}{{syscall.ENOSPC, http.StatusInsufficientStorage}, {errDisk, http.StatusInternalServerError}} {
			t.Run(fmt.Sprintf("%s: %v", op, failure.err), func(t *testing.T) {
				fs := &hookFS{FS: empty(t)}
				s := open(t, options(fs))
				id := upload(t, s, somebody, []byte("before"))
				fs.fail(op, failure.err)
				for range 3 {
					response := do(s, "POST", "/upload", somebody, bytes.NewReader(make([]byte, 300_000)))
					if response.StatusCode != failure.status {
						t.Errorf("%s, want %d", response.Status, failure.status)
					}
					holds(t, s, 1, minCharge)
				}
				if got := text(t, do(s, "GET", "/files/"+id, somebody, nil)); got != "before" {
					t.Errorf("reading meanwhile: %q", got)
				}
				fs.set(nil)
				upload(t, s, somebody, []byte("after"))
			})
		}
	}
}

// TestReadFails: a file that can't be read is an error that says nothing.
func TestReadFails(t *testing.T) {
	fs := &hookFS{FS: empty(t)}
	s := open(t, options(fs))
	id := upload(t, s, somebody, []byte("x"))
	fs.fail("open", errDisk)
	response := do(s, "GET", "/files/"+id, somebody, nil)
	if got := text(t, response); response.StatusCode != http.StatusInternalServerError || strings.Contains(got, "block") {
		t.Errorf("%s: %q", response.Status, got)
	}
}

// TestRemoveFails: what can't be removed stays charged, is not served, and goes
// later.
func TestRemoveFails(t *testing.T) {
	fs := &hookFS{FS: empty(t)}
	o := options(fs)
	now := time.Now()
	o.Now = func() time.Time { return now }
	s := open(t, o)
	id := upload(t, s, somebody, []byte("x"))
	now = now.Add(o.Keep)
	fs.fail("remove", errDisk)
	s.clean()
	holds(t, s, 1, minCharge)
	if response := do(s, "GET", "/files/"+id, somebody, nil); response.StatusCode != http.StatusNotFound {
		t.Error(response.Status)
	}
	fs.set(nil)
	s.clean()
	holds(t, s, 0, 0)
}

// TestRoom: what others need of the disk is left to them.
func TestRoom(t *testing.T) {
	fs := empty(t)
	o := options(fs)
	o.Room = 10 << 20
	s := open(t, o)
	for _, test := range []struct {
		free   uint64
		status int
	}{{11 << 20, 200}, {10<<20 + chunk - 1, 507}, {0, 507}, {10<<20 + chunk, 200}} {
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: test.free, TotalBytes: 1 << 40})
		response := do(s, "POST", "/upload", somebody, bytes.NewReader(make([]byte, 100_000)))
		if response.StatusCode != test.status {
			t.Errorf("with %d bytes free: %s", test.free, response.Status)
		}
	}
	holds(t, s, 2, 200_000)
}

// content is a file that shows whether all of it is there.
func content(rng *rand.Rand) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(rng.IntN(200_000)))
	b = binary.BigEndian.AppendUint64(b, rng.Uint64())
	return append(b, filler(b)...)
}

func filler(head []byte) []byte {
	seed := [32]byte{}
	copy(seed[:], head[:16])
	b := make([]byte, binary.BigEndian.Uint64(head))
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

func whole(b []byte) bool { return len(b) >= 16 && bytes.Equal(b[16:], filler(b)) }

// verify opens what is left after a crash: each file is whole, and the
// acknowledged ones are there.
func verify(fs vfs.FS, dir string, acknowledged map[string][]byte) error {
	o := options(fs)
	o.Dir, o.Total = dir, 1<<40
	s, err := Open(o)
	if err != nil {
		return err
	}
	defer s.Shutdown(context.Background())
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	read := func(f vfs.File, err error) ([]byte, error) {
		if err != nil || f == nil {
			return nil, fmt.Errorf("missing: %w", err)
		}
		b, err := io.ReadAll(f)
		return b, errors.Join(err, f.Close())
	}
	for _, name := range names {
		if b, err := read(fs.Open(fs.PathJoin(dir, name))); err != nil || !whole(b) {
			return fmt.Errorf("%s is not whole: %w", name, err)
		}
	}
	for id, want := range acknowledged {
		if got, err := read(s.get(id)); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%d of %d bytes of an acknowledged file: %w", len(got), len(want), err)
		}
	}
	return nil
}

// TestPowerCut cuts the power before each operation of some uploads, with none,
// some or all of what was not synced kept: no half file is there afterwards, and
// no acknowledged one is missing.
func TestPowerCut(t *testing.T) {
	mem := vfs.NewCrashableMem()
	if err := errors.Join(mem.MkdirAll("/data", 0o700), syncDirectory(mem, "/")); err != nil {
		t.Fatal(err)
	}
	fs := &hookFS{FS: mem}
	s := open(t, options(fs))
	rng := rand.New(rand.NewPCG(1, 2))
	acknowledged := map[string][]byte{}
	cuts := 0
	fs.set(func(op string) error {
		for _, percent := range []int{0, 50, 100} {
			cuts++
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
			if err := verify(clone, dir, acknowledged); err != nil {
				t.Errorf("cut %d, before %s, %d%%: %v", cuts, op, percent, err)
			}
		}
		return nil
	})
	for range 5 {
		b := content(rng)
		acknowledged[upload(t, s, somebody, b)] = b
	}
	fs.set(nil)
	if cuts < 5*6*3 {
		t.Errorf("only %d cuts", cuts)
	}
}

const helperName = "GO_XMTP_HISTORY_HELPER"

// helped serves, in a process of its own, until it is killed.
func helped() bool {
	dir := os.Getenv(helperName)
	if dir == "" {
		return false
	}
	o := options(vfs.Default)
	o.Dir, o.Total = dir, 1<<40
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		var s *Service
		if s, err = Open(o); err == nil {
			fmt.Println(listener.Addr())
			go func() {
				_, _ = io.Copy(io.Discard, os.Stdin) // ends with its parent
				os.Exit(1)
			}()
			err = s.Serve(listener)
		}
	}
	fmt.Println("error:", err)
	os.Exit(1)
	return true
}

// TestKill kills a process at random moments of uploads: none that was
// acknowledged is missing, no half one is served, nothing is left over.
func TestKill(t *testing.T) {
	rounds := 8
	if os.Getenv("XMTP_PROOF") != "" {
		rounds = 200
	}
	folder := filepath.Join(t.TempDir(), "history")
	rng := rand.New(rand.NewPCG(3, 4))
	acknowledged := map[string][]byte{}
	for round := range rounds {
		command := exec.CommandContext(t.Context(), os.Args[0])
		command.Env = append(os.Environ(), helperName+"="+folder)
		stdin, err1 := command.StdinPipe()
		stdout, err2 := command.StdoutPipe()
		if err := errors.Join(err1, err2, command.Start()); err != nil {
			t.Fatal(err)
		}
		address, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		url := "http://" + strings.TrimSpace(address)
		transport := &http.Transport{}
		client := http.Client{Transport: transport}
		var mu sync.Mutex
		var senders sync.WaitGroup
		begun := make(chan struct{})
		begin := sync.OnceFunc(func() { close(begun) })
		for range 4 {
			rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
			senders.Go(func() {
				defer begin()
				for {
					b := content(rng)
					response, err := client.Post(url+"/upload", "", bytes.NewReader(b))
					if err != nil {
						return
					}
					id, err := io.ReadAll(response.Body)
					response.Body.Close()
					if err != nil {
						return
					}
					if response.StatusCode != http.StatusOK {
						t.Errorf("%s: %s", response.Status, id)
						return
					}
					mu.Lock()
					acknowledged[string(id)] = b
					mu.Unlock()
					begin()
				}
			})
		}
		<-begun
		timer := time.NewTimer(time.Duration(rng.IntN(30_000)) * time.Microsecond)
		<-timer.C
		if err := command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = command.Wait()
		stdin.Close()
		senders.Wait()
		transport.CloseIdleConnections()
		if err := verify(vfs.Default, folder, acknowledged); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	t.Logf("CHECK history, kill -9: rounds: %d, %d uploads acknowledged, 0 lost, no half file", rounds, len(acknowledged))
	if len(acknowledged) < rounds {
		t.Errorf("only %d uploads were acknowledged", len(acknowledged))
	}
}

// TestLedger: whatever comes, nothing is over its limit and nothing is charged
// at the end.
func TestLedger(t *testing.T) {
	peers := []netip.Prefix{{}, netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/64")}
	rapid.Check(t, func(t *rapid.T) {
		o := Options{Total: rapid.Int64Range(1, 1<<22).Draw(t, "Total")}
		o.MaxFile = rapid.Int64Range(1, min(1<<20, o.Total)).Draw(t, "MaxFile")
		l := newLedger(o)
		var bills []*bill
		check := func() {
			var sum int64
			of := map[netip.Prefix]int64{}
			for _, b := range bills {
				sum += b.bytes
				of[b.peer] += b.bytes
				if b.size > o.MaxFile || b.bytes < b.size {
					t.Fatalf("a file of %d bytes is charged %d", b.size, b.bytes)
				}
			}
			if sum != l.bytes || sum > o.Total {
				t.Fatalf("%d bytes charged, %d in all of %d", sum, l.bytes, o.Total)
			}
			for p, bytes := range of {
				if bytes != l.peers[p].bytes || p != (netip.Prefix{}) && bytes > l.quota {
					t.Fatalf("%v has %d, charged %d, may have %d", p, bytes, l.peers[p].bytes, l.quota)
				}
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch i := rapid.IntRange(-1, len(bills)-1).Draw(t, "bill"); {
			case i < 0:
				bills = append(bills, l.open(rapid.SampledFrom(peers).Draw(t, "peer")))
			case rapid.Bool().Draw(t, "grow"):
				_ = bills[i].add(rapid.Int64Range(0, 1<<18).Draw(t, "bytes"))
			default:
				bills[i].cancel()
				bills = append(bills[:i], bills[i+1:]...)
			}
			check()
		}
		for _, b := range bills {
			b.cancel()
		}
		if l.bytes != 0 || len(l.peers) != 0 {
			t.Fatalf("%d bytes and %d peers are left", l.bytes, len(l.peers))
		}
	})
}

// FuzzRequest: whatever the path, only /files/ID reaches a file.
func FuzzRequest(f *testing.F) {
	s := open(f, options(empty(f)))
	id := upload(f, s, somebody, []byte("secret"))
	n, _ := parseID(id)
	for _, path := range []string{"", "/", "/upload", "/files/" + id, "//files/" + id, "/files/../" + id, "/files/" + n.String(), "/files/%2e%2e/" + id, "/FILES/" + id, "/files/" + id + "\x00"} {
		f.Add("GET", path)
		f.Add("OPTIONS", path)
		f.Add("HEAD", path)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		if method == "POST" {
			return
		}
		response := do(s, method, path, somebody, nil)
		got := text(t, response)
		its := strings.TrimLeft(path, "/") == "files/"+id
		if strings.Contains(got, "secret") != (its && method == "GET") {
			t.Errorf("%s %q: %q", method, path, got)
		}
		if response.Header.Get("X-Content-Type-Options") != "nosniff" || response.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s %q: %v", method, path, response.Header)
		}
	})
}

func BenchmarkUpload(b *testing.B) {
	for _, size := range []int{64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%d KiB", size>>10), func(b *testing.B) {
			o := options(vfs.Default)
			o.Dir, o.Total, o.MaxFile = b.TempDir(), 1<<50, 1<<30
			s := open(b, o)
			file := make([]byte, size)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				id := upload(b, s, somebody, file)
				b.StopTimer()
				n, _ := parseID(id)
				if err := os.Remove(s.path(n)); err != nil {
					b.Fatal(err)
				}
				s.forget(n)
				b.StartTimer()
			}
		})
	}
}

func BenchmarkDownload(b *testing.B) {
	o := options(vfs.Default)
	o.Dir = b.TempDir()
	s := open(b, o)
	id := upload(b, s, somebody, make([]byte, 1<<20))
	b.ReportAllocs()
	b.SetBytes(1 << 20)
	for b.Loop() {
		f, err := s.get(id)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, f); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
