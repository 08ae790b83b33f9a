package xmtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// crowd is what a process is asked to hold.
type crowd struct {
	Node, Folder string
	Clients      int
}

// usage is what a process takes.
type usage struct {
	Resident    int64 // bytes
	Descriptors int
	Threads     int
}

func init() {
	// Each client but the first, which makes what all share, sends one text to that.
	roles["crowd"] = func(ctx context.Context, p *process) error {
		o, err := hear[crowd](p)
		if err != nil {
			return err
		}
		first, err := o.open(ctx, 0)
		if err != nil {
			return err
		}
		defer first.Close()
		before, err := used()
		if err != nil {
			return err
		}
		var clients []*Client
		for n := 1; n < o.Clients; n++ {
			c, err := o.open(ctx, n)
			if err != nil {
				return err
			}
			defer c.Close()
			clients = append(clients, c)
			v, err := c.DM(ctx, first.Address())
			if err != nil {
				return err
			}
			if _, err := v.SendText(ctx, "hello"); err != nil {
				return err
			}
		}
		for _, c := range clients {
			// As WorkerScrub does when nothing happens for two minutes.
			if err := errors.Join(c.db.Rest(), c.db.Rest()); err != nil {
				return err
			}
		}
		after, err := used()
		return errors.Join(err, p.tell(usage{
			after.Resident - before.Resident, after.Descriptors - before.Descriptors, after.Threads - before.Threads,
		}))
	}
}

func (o crowd) path(n int) string { return filepath.Join(o.Folder, fmt.Sprint(n, ".db")) }

func (o crowd) open(ctx context.Context, n int) (*Client, error) {
	signer, err := GeneratePrivateKeySigner()
	if err != nil {
		return nil, err
	}
	return NewClient(ctx, signer, WithNode(o.Node), WithDatabase(o.path(n)))
}

// used is what this process takes when memory that nobody needs is given back.
func used() (u usage, err error) {
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		var kB int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kB); n == 1 {
			u.Resident = kB << 10
		}
		fmt.Sscanf(line, "Threads: %d", &u.Threads)
	}
	files, err := os.ReadDir("/proc/self/fd")
	u.Descriptors = len(files)
	return u, err
}

// What a client costs that has a conversation and nothing to do.
func TestIdleClients(t *testing.T) {
	clients := 6
	if proof {
		clients = 1001
	}
	url, folder := startNode(t), t.TempDir() // end after the process
	p := startProcess(t, "crowd")
	check(t, p.tell(crowd{url, folder, clients}))
	all := must(hear[usage](p))(t)
	n := clients - 1
	t.Logf("%d clients take %d KiB, %.1f descriptors, %.2f threads each", n, all.Resident/int64(n)>>10, float64(all.Descriptors)/float64(n), float64(all.Threads)/float64(n))
	if all.Descriptors > 4*n {
		t.Errorf("%d descriptors, want 4 for each", all.Descriptors)
	}
	if all.Threads > max(4, n/10) {
		t.Errorf("%d threads, want one for 10 clients", all.Threads)
	}
	// What the runtime takes once, such as arenas for the busiest moment, is little beside
	// that of many clients, not of few. The race detector has memory of its own for all that
	// is used.
	limit := int64(n) << 20
	if !proof {
		limit += 8 << 20
	}
	if !underRace && all.Resident > limit {
		t.Errorf("%d bytes resident, want %d at most", all.Resident, limit)
	}
}

// Nothing of a client is left when it was closed, or could not be opened.
func TestNothingLeft(t *testing.T) {
	clients := 1
	if proof {
		clients = 500
	}
	ctx, url, folder := t.Context(), startNode(t), t.TempDir()
	signer := must(GeneratePrivateKeySigner())(t)
	known := filepath.Join(folder, "known.db")
	check(t, openClient(t, signer, WithNode(url), WithDatabase(known)).Close())
	held := openClient(t, must(GeneratePrivateKeySigner())(t), WithNode(url), WithDatabase(filepath.Join(folder, "held.db")))
	foreign := filepath.Join(folder, "foreign.db")
	check(t, os.WriteFile(foreign, bytes.Repeat([]byte("foreign "), 2000), 0o600))
	key := bytes.Repeat([]byte{1}, 32)

	before, others := must(used())(t), goleak.IgnoreCurrent()
	for n := range clients {
		c, err := NewClient(ctx, must(GeneratePrivateKeySigner())(t), WithNode(url), WithDatabase(filepath.Join(folder, fmt.Sprint(n))))
		check(t, err)
		listening, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for range c.StreamAllMessages(listening) {
			}
		}()
		must(c.DM(ctx, held.Address()))(t)
		if n%2 == 0 {
			stop()
			<-ended
		}
		check(t, c.Close())
		stop()
		<-ended

		for _, failing := range []struct {
			want error
			list []Option
		}{
			{ErrInUse, []Option{WithDatabase(filepath.Join(folder, "held.db"))}},
			{ErrWrongKey, []Option{WithDatabase(known), WithKey(key)}},
			{ErrWrongKey, []Option{WithDatabase(foreign), WithKey(key)}},
			{ErrWrongKey, []Option{WithDatabase(foreign), WithoutEncryption()}},
			{ErrOtherWallet, []Option{WithDatabase(known)}},
			{nil, []Option{InMemory(), WithNode("http://no such host")}},
			{nil, []Option{WithDatabase(filepath.Join(foreign, "below a file"))}},
			{nil, []Option{InMemory(), WithNode("http://127.0.0.1:1")}},
		} {
			ctx, cancel := context.WithTimeout(ctx, time.Second/5)
			_, err := NewClient(ctx, must(GeneratePrivateKeySigner())(t), append([]Option{WithNode(url)}, failing.list...)...)
			cancel()
			if err == nil || failing.want != nil && !errors.Is(err, failing.want) {
				t.Fatalf("got %v, want %v", err, failing.want)
			}
		}
	}
	// The node, which is in this process, begins a new log when one is full.
	nodes := goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2/record.(*LogWriter).flushLoop")
	if err := goleak.Find(others, nodes); err != nil {
		t.Error(err)
	}
	if after := must(used())(t); after.Descriptors > before.Descriptors {
		t.Errorf("%d descriptors more than before", after.Descriptors-before.Descriptors)
	}
}
