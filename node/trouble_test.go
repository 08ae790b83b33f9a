package node_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/node"
)

// TestSlowSync: while the disk takes its time, nothing is acknowledged and nobody
// sees what isn't durable, but all that was before is read as ever. When it is
// done, all is acknowledged.
func TestSlowSync(t *testing.T) {
	t.Parallel()
	var mu sync.RWMutex // write-locked while the disk is slow
	var waiting atomic.Int64
	fs := &hookFS{vfs.NewMem(), func(op, name string) error {
		if op == "sync" && strings.HasSuffix(name, ".log") {
			waiting.Add(1)
			mu.RLock()
			defer mu.RUnlock()
			waiting.Add(-1)
		}
		return nil
	}}
	n := start(t, node.Options{Data: "/data"}.On(fs))
	c, ctx := dial(t, n), short(t)
	in, group := newInbox(t), newGroupID()
	must(c.publish(ctx, in.register(t)))(t)
	if err := groupLog.send(ctx, c, group, application(group, "before")); err != nil {
		t.Fatal(err)
	}
	live := must(groupLog.open(ctx, c, filter{topic: group}))(t)
	must(live.next())(t)

	mu.Lock()
	const writes = 20
	var acknowledged atomic.Int64
	var writing sync.WaitGroup
	errs := make(chan error, 2*writes)
	for i := range writes {
		writing.Go(func() {
			err := groupLog.send(ctx, c, group, application(group, fmt.Sprint("message ", i)))
			acknowledged.Add(1)
			errs <- err
		})
		writing.Go(func() {
			err := welcomeLog.send(ctx, c, publicKey(in.installation), fmt.Append(nil, "welcome ", i))
			acknowledged.Add(1)
			errs <- err
		})
	}
	eventually(t, "the disk is asked", func() bool { return waiting.Load() > 0 })
	for range scaled(50, 1000) {
		if all, err := groupLog.all(ctx, c, group, 0); err != nil || len(all) != 1 {
			t.Fatalf("%d messages are shown, %v", len(all), err)
		}
		if all, err := welcomeLog.all(ctx, c, publicKey(in.installation), 0); err != nil || len(all) != 0 {
			t.Fatalf("%d welcomes are shown, %v", len(all), err)
		}
		c.wantInboxOf(ctx, t, in.owner.Identifier(), in.id)
	}
	if n := acknowledged.Load(); n != 0 {
		t.Errorf("%d writes have an answer that the disk knows nothing of", n)
	}
	mu.Unlock()
	writing.Wait()
	for range 2 * writes {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for range writes {
		must(live.next())(t)
	}
	if all, err := welcomeLog.all(ctx, c, publicKey(in.installation), 0); err != nil || len(all) != writes {
		t.Errorf("%d welcomes of %d, %v", len(all), writes, err)
	}
}

// TestDiskFull_Archives: as the disk fills up, archives are refused first, then
// messages; what is there can be had all the time.
func TestDiskFull_Archives(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem()
	var free atomic.Uint64
	room := func(bytes uint64) {
		free.Store(bytes)
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: bytes, TotalBytes: 1 << 40})
	}
	const reserve = 1 << 20
	room(1 << 30)
	n := start(t, node.Options{Data: "/data", Reserve: reserve, HistoryListen: anyPort}.On(mem))
	c, ctx, group := dial(t, n), short(t), newGroupID()
	code, id := visit(t, n, "POST", "/upload", "archive")
	if code != http.StatusOK {
		t.Fatal(code, id)
	}
	for _, step := range []struct {
		room               uint64
		archives, messages bool
	}{
		{1 << 30, true, true}, {2*reserve - 1, false, true}, {reserve - 1, false, false}, {1 << 30, true, true},
	} {
		room(step.room)
		eventually(t, fmt.Sprint("messages are taken: ", step.messages), func() bool {
			err := groupLog.send(ctx, c, group, application(group, "message"))
			if err != nil && status.Code(err) != codes.Unavailable {
				t.Error(err)
			}
			return (err == nil) == step.messages
		})
		if code, text := visit(t, n, "POST", "/upload", "another"); (code == http.StatusOK) != step.archives {
			t.Errorf("%d bytes are free: an upload gives %d %s", step.room, code, text)
		}
		if code, text := visit(t, n, "GET", "/files/"+id, ""); code != http.StatusOK || text != "archive" {
			t.Errorf("%d bytes are free: a download gives %d %q", step.room, code, text)
		}
		if all, err := groupLog.all(ctx, c, group, 0); err != nil || len(all) != 1 {
			t.Errorf("%d bytes are free: %d messages, %v", step.room, len(all), err)
		}
	}
}

// TestClockJumps: wherever the clock goes, times of records grow and are the
// clock's if they can, numbers and logs don't mind, limits come back in the time
// that passes, and streams go on.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	clk := newClock()
	n := start(t, node.Options{
		Data: t.TempDir(), Now: clk.now, HistoryListen: anyPort, Limits: node.Limits{Rates: true},
		Retention: node.Retention{Messages: 365 * 24 * time.Hour},
	})
	c, ctx, group := dial(t, n), short(t), newGroupID()
	live := must(groupLog.open(ctx, c, filter{topic: group}))(t)
	const year = 365 * 24 * time.Hour
	var last entry
	for i, jump := range []time.Duration{0, time.Hour, -time.Hour, -20 * year, 30 * year, -5 * year, 0, -60 * year, 55*year + time.Hour} {
		clk.advance(jump)
		in := newInbox(t)
		must(c.publish(ctx, in.register(t)))(t)
		if err := groupLog.send(ctx, c, group, application(group, fmt.Sprint("message ", i))); err != nil {
			t.Fatal(err)
		}
		e := must(live.next())(t)
		// Of the five minutes after the last one there is a welcome.
		now := uint64(max(0, clk.now().UnixNano()))
		if e.id <= last.id || e.created < max(last.created+1, now) || e.created > max(last.created+uint64(5*time.Minute), now)+1000 {
			t.Errorf("jump %d: record %d of %d after %d of %d", i, e.id, e.created, last.id, last.created)
		}
		last = e
		if code, text := visit(t, n, "POST", "/upload", "archive"); code != http.StatusOK {
			t.Errorf("jump %d: %d %s", i, code, text)
		} else if code, _ := visit(t, n, "GET", "/files/"+text, ""); code != http.StatusOK {
			t.Errorf("jump %d: an archive that was just taken: %d", i, code)
		}
		// What is used up comes back, and not more of it.
		many := make([][]byte, 2900)
		for j := range many {
			many[j] = []byte{0} // refused, but paid for
		}
		_, err := c.mls.SendGroupMessages(ctx, groupRequest(many...))
		wantCode(t, err, codes.InvalidArgument)
		_, err = c.mls.SendGroupMessages(ctx, groupRequest(many...))
		wantCode(t, err, codes.ResourceExhausted)
		clk.advance(5 * time.Minute)
		if err := welcomeLog.send(ctx, c, newInstallationKey(), []byte("welcome")); err != nil {
			t.Errorf("jump %d: %v", i, err)
		}
	}
	if all, err := groupLog.all(ctx, c, group, 0); err != nil || len(all) != 9 {
		t.Errorf("%d messages, %v", len(all), err)
	}
	if r := n.Removed(); r.Messages > 0 || r.Welcomes > 0 {
		t.Errorf("the pruner has removed %+v", r)
	}
}

// TestDescriptors: more connections than there can be are refused; the store keeps
// the descriptors that it needs to write and read, and who is connected is served.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if runtime.GOOS == "windows" || err != nil {
		t.Skip("a process's descriptors can't be limited here")
	}
	const limit, attackers = 128, 200
	ctx, dir := long(t), filepath.Join(t.TempDir(), "data")
	cmd := helper(ctx, "node", dir)
	cmd.Path, cmd.Args = sh, []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0"`, limit), os.Args[0]}
	stdin, stdout := must(cmd.StdinPipe())(t), must(cmd.StdoutPipe())(t)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		_ = cmd.Wait() // it ends with its standard input
	}()
	addr := strings.TrimSpace(must(bufio.NewReader(stdout).ReadString('\n'))(t))
	c := must(connectTo(addr))(t)
	defer c.conn.Close()
	group := newGroupID()
	sent := 0
	send := func() error {
		err := groupLog.send(ctx, c, group, application(group, fmt.Sprint(sent)+string(random(1<<20))))
		if err == nil {
			sent++
		}
		return err
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range attackers {
		conn := must(net.Dial("tcp", addr))(t)
		defer conn.Close()
		_, _ = conn.Write([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")) // it may be refused
		conns = append(conns, conn)
	}
	// They are taken one after the other, so that the last one's fate tells of all.
	_ = conns[attackers-1].SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, conns[attackers-1]); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the last of %d connections was taken: %v", attackers, err)
	}
	// Enough for new logs and tables.
	for range 20 {
		if err := send(); err != nil {
			t.Fatalf("message %d: %v\n%s", sent, err, complaints.String())
		}
	}
	if all, err := groupLog.all(ctx, c, group, 0); err != nil || len(all) != sent {
		t.Fatalf("%d of %d messages, %v", len(all), sent, err)
	}
	for _, conn := range conns {
		conn.Close()
	}
	eventually(t, "others are served again", func() bool {
		fresh, err := connectTo(addr)
		if err != nil {
			return false
		}
		defer fresh.conn.Close()
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, _, err = groupLog.page(ctx, fresh, newGroupID(), nil)
		return err == nil
	})
	t.Logf("CHECK descriptors: %d for the process, %d connections: the store wrote and read %d MiB meanwhile", limit, attackers, sent)
}
