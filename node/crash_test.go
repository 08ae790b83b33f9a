package node_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
)

// hookFS asks before everything that changes the file system. What the hook
// returns is the operation's error.
type hookFS struct {
	vfs.FS
	hook func(op, name string) error
}

func (f *hookFS) file(op, name string, open func() (vfs.File, error)) (vfs.File, error) {
	if err := f.hook(op, name); err != nil {
		return nil, err
	}
	file, err := open()
	if err != nil {
		return nil, err
	}
	return &hookFile{file, f, name}, nil
}

func (f *hookFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file("create", name, func() (vfs.File, error) { return f.FS.Create(name, c) })
}

func (f *hookFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file("create", name, func() (vfs.File, error) { return f.FS.ReuseForWrite(old, name, c) })
}

func (f *hookFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return &hookFile{file, f, name}, err
}

func (f *hookFS) Remove(name string) error {
	return errors.Join(f.hook("remove", name), f.FS.Remove(name))
}

func (f *hookFS) Rename(old, name string) error {
	if err := f.hook("rename", name); err != nil {
		return err
	}
	return f.FS.Rename(old, name)
}

func (f *hookFS) MkdirAll(name string, mode os.FileMode) error {
	if err := f.hook("mkdir", name); err != nil {
		return err
	}
	return f.FS.MkdirAll(name, mode)
}

func (f *hookFS) Lock(name string) (io.Closer, error) {
	if err := f.hook("lock", name); err != nil {
		return nil, err
	}
	return f.FS.Lock(name)
}

type hookFile struct {
	vfs.File
	fs   *hookFS
	name string
}

func (f *hookFile) Write(b []byte) (int, error) {
	if err := f.fs.hook("write", f.name); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f *hookFile) Sync() error {
	if err := f.fs.hook("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *hookFile) SyncData() error {
	if err := f.fs.hook("sync", f.name); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *hookFile) SyncTo(length int64) (bool, error) {
	if err := f.fs.hook("sync", f.name); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}

// powerCuts takes copies of a file system as power cuts would leave it and
// looks at each for what was known before.
type powerCuts struct {
	t    *testing.T
	load *load
	mem  *vfs.MemFS
	// chosen tells how often to cut before an operation.
	chosen func(n int, op, name string) int

	operations atomic.Int64
	mu         sync.Mutex // one look at a time
	rng        *rand.Rand
	cuts       int
	again      int // cuts while the store was being opened after one
}

func (p *powerCuts) hook(op, name string) error {
	n := int(p.operations.Add(1)) - 1
	p.mu.Lock()
	defer p.mu.Unlock()
	for cut := range p.chosen(n, op, name) {
		percent := 0
		if cut > 0 {
			percent = 1 + p.rng.IntN(99)
		}
		// What was known before the cut has to outlast it.
		acknowledged, shown := p.load.mark()
		clone := p.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: p.rng})
		p.cuts++
		if err := p.look(clone, acknowledged, shown, proof || p.rng.IntN(3) == 0); err != nil {
			p.t.Errorf("power cut before operation %d, %s %s, with %d%% of what was not synced: %v", n, op, name, percent, err)
		}
	}
	return nil
}

// look opens what is left. If again, the power is cut once more in between.
func (p *powerCuts) look(left *vfs.MemFS, acknowledged, shown int, again bool) error {
	var fs vfs.FS = left
	var second *vfs.MemFS
	if again {
		at, n := p.rng.IntN(60), 0
		var mu sync.Mutex
		fs = &hookFS{left, func(string, string) error {
			mu.Lock()
			defer mu.Unlock()
			if n == at {
				second = left.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: p.rng})
			}
			n++
			return nil
		}}
	}
	var failure atomic.Pointer[error]
	x, err := index.Open(index.Options{
		FS: fs, Dir: "/srv/xmtp/data", Logger: discard,
		OnFailure: func(err error) { failure.Store(&err) },
	})
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	if err := errors.Join(p.load.verify(x, acknowledged, shown), x.Close()); err != nil {
		return err
	}
	if err := failure.Load(); err != nil {
		return *err
	}
	if second != nil {
		p.again++
		if err := p.look(second, acknowledged, shown, false); err != nil {
			return fmt.Errorf("and one while opening after it: %w", err)
		}
	}
	return nil
}

// TestPowerCut cuts the power while clients publish and read: what was
// acknowledged is there once, what was shown is there with its number, and new
// numbers are new, wherever it happens. In the long tier it happens at every
// operation on the file system.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	const people = 4
	l := newLoad(t, people, 5, 1)
	mem := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(7, 7))
	sample := map[int]bool{}
	for len(sample) < 15 {
		sample[rng.IntN(60)] = true // while the directory is made
	}
	for len(sample) < 35 {
		sample[60+rng.IntN(400)] = true
	}
	cuts := &powerCuts{t: t, load: l, mem: mem, rng: rand.New(rand.NewPCG(8, 8)), chosen: func(n int, op, name string) int {
		switch {
		case op == "rename", op == "sync" && !strings.Contains(path.Base(name), "."):
			return 3 // where names become durable, or not
		case proof, sample[n]:
			return 2
		}
		return 0
	}}
	options := node.Options{Data: "/srv/xmtp/data"}.On(&hookFS{mem, cuts.hook})
	// What is in the log goes into tables at each start.
	for range 3 {
		n := start(t, options)
		if err := l.run(within(t, scaled(5*time.Minute, time.Hour)), scaled(14, 20), func() *client { return dial(t, n) }); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	acknowledged, shown := l.mark()
	if err := cuts.look(mem.CrashClone(vfs.CrashCloneCfg{}), acknowledged, shown, false); err != nil {
		t.Errorf("after the end: %v", err)
	}
	if cuts.cuts < 60 || cuts.again < 15 {
		t.Errorf("%d cuts, %d while opening: not what was wanted", cuts.cuts, cuts.again)
	}
	lost := "0 lost, none twice, none renumbered"
	if t.Failed() {
		lost = "records lost"
	}
	t.Logf("CHECK power cut: cuts: %d at %d operations and %d more while opening, %d acknowledged and %d shown records, %s",
		cuts.cuts, cuts.operations.Load(), cuts.again, acknowledged, shown, lost)
}
