package node_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// helperName names, in another process, what the test binary does there.
const helperName = "GO_XMTP_NODE_HELPER"

func init() {
	name, argument, found := strings.Cut(os.Getenv(helperName), " ")
	if !found {
		return
	}
	err := map[string]func(string) error{
		"node":                runNode,
		"failing-write":       endsCleanly,
		"failing-retention":   endsCleanlyRemoving,
		"full-from-the-start": opensWithRoom,
		"damaged-table":       endsDamaged,
		"half-open":           opensHalf,
	}[name](argument)
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// helper prepares to run a helper in a process of its own.
func helper(ctx context.Context, name, argument string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), helperName+"="+name+" "+argument)
	cmd.Stderr = os.Stderr
	return cmd
}

// runNode serves until it is killed, or its standard input ends.
func runNode(dir string) error {
	n, err := node.Start(context.Background(), node.Options{Listen: "127.0.0.1:0", Data: dir})
	if err != nil {
		return err
	}
	fmt.Println(n.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	<-n.Done()
	return n.Err()
}

// killed is a node in a process of its own.
type killed struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
}

func startProcess(ctx context.Context, dir string) (*killed, error) {
	cmd := helper(ctx, "node", dir)
	// It ends with this process, whatever happens.
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &killed{cmd, bufio.NewReader(stdout)}, cmd.Start()
}

// kill ends the process as kill -9 does, some time after start is closed.
func (k *killed) kill(start <-chan struct{}, after time.Duration) error {
	exited := make(chan error, 1)
	go func() { exited <- k.cmd.Wait() }()
	var err error
	select {
	case err = <-exited:
	case <-start:
		timer := time.AfterFunc(after, func() { _ = k.cmd.Process.Kill() })
		defer timer.Stop()
		err = <-exited
	}
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Exited() {
		return fmt.Errorf("the process ended by itself: %w", err)
	}
	return nil
}

// TestKill kills a node's process at random moments while clients publish, read
// and stream, and lets them go on with the next: what was acknowledged is there
// once, what was shown is there with its number, streams that are resumed from
// their cursors miss nothing and bring nothing twice.
func TestKill(t *testing.T) {
	t.Parallel()
	const people, perDirectory = 4, 25
	rounds := scaled(10, 500)
	ctx := within(t, scaled(5*time.Minute, 3*time.Hour))
	rng := rand.New(rand.NewPCG(1, 2))
	var l *load
	var dir string
	acknowledged, streamed, starting := 0, 0, 0
	now := make(chan struct{})
	close(now)
	for round := range rounds {
		if round%perDirectory == 0 {
			// Another store, before looking at all of it takes too long.
			l = newLoad(t, people, 20, uint64(round))
			dir = filepath.Join(t.TempDir(), "data")
		}
		process, err := startProcess(ctx, dir)
		if err != nil {
			t.Fatal(err)
		}
		if rng.IntN(5) == 0 {
			// While it starts, or just after that.
			starting++
			if err := process.kill(now, time.Duration(rng.IntN(100))*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		} else {
			address, err := process.stdout.ReadString('\n')
			if err != nil {
				t.Fatal(errors.Join(err, process.kill(now, 0)))
			}
			c, err := connectTo(strings.TrimSpace(address))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			busy := l.after(1 + rng.IntN(60))
			go func() { ended <- l.run(ctx, 1<<30, func() *client { return c }) }()
			if err := process.kill(busy, time.Duration(rng.IntN(5000))*time.Microsecond); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; ctx.Err() != nil || errors.Is(err, errDisorder) {
				t.Fatalf("round %d: %v, %v", round, err, ctx.Err())
			}
			c.conn.Close()
		}
		x, err := openIndex(dir)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		a, s := l.mark()
		if err := errors.Join(l.verify(x, a, s), x.Close()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if round%perDirectory == perDirectory-1 || round == rounds-1 {
			acknowledged += a
			streamed += checkStreams(ctx, t, l, dir)
		}
	}
	t.Logf("CHECK kill -9: rounds: %d of %d under load (%d of them while starting), %d records acknowledged, 0 lost, none twice; %d streamed, none missed",
		rounds, rounds, starting, acknowledged, streamed)
	if acknowledged < rounds*10 {
		t.Errorf("only %d records were acknowledged", acknowledged)
	}
}

func openIndex(dir string) (*index.Index, error) {
	return index.Open(index.Options{
		FS: vfs.Default, Dir: dir, Logger: discard, OnFailure: func(error) {},
	})
}

// checkStreams resumes all streams once more and compares what they have
// brought, over all nodes, with what is stored. It returns how much that is.
func checkStreams(ctx context.Context, t *testing.T, l *load, dir string) int {
	t.Helper()
	n := start(t, node.Options{Data: dir})
	c := dial(t, n)
	following, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 2)
	go func() { ended <- l.follow(following, c, &groupLog, order.GroupMessage) }()
	go func() { ended <- l.follow(following, c, &welcomeLog, order.Welcome) }()
	eventually(t, "all has been streamed", func() bool {
		for _, group := range l.groups {
			if !l.hasStreamed(ctx, t, c, &groupLog, order.GroupMessage, group) {
				return false
			}
		}
		for _, p := range l.people {
			if !l.hasStreamed(ctx, t, c, &welcomeLog, order.Welcome, p.welcomes()) {
				return false
			}
		}
		return true
	})
	stop()
	for range 2 {
		if err := <-ended; errors.Is(err, errDisorder) {
			t.Error(err)
		}
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	x, err := openIndex(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.verifyStreams(x), x.Close()); err != nil {
		t.Error(err)
	}
	streamed := 0
	for _, facts := range l.streamed {
		streamed += len(facts)
	}
	return streamed
}
