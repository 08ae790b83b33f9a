package interop

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/node"
)

var (
	everyVersion = []official.SDK{official.Oldest, official.Baseline, official.Newest}
	baseline     = []official.SDK{official.Baseline}
	browsers     = []official.SDK{official.BrowserBaseline, official.BrowserNewest}
)

// summary collects one line for each scenario and version.
var summary struct {
	sync.Mutex
	lines []string
}

func TestMain(m *testing.M) {
	// Scenarios mostly wait, for clients that wait: more of them than cores run at a time,
	// unless the command line says how many.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	code := m.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	summary.Lock()
	defer summary.Unlock()
	sort.Strings(summary.lines)
	for _, line := range summary.lines {
		fmt.Println(line)
	}
	if err := saveSummary(os.Getenv("XMTP_SUMMARY")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func saveSummary(path string) error {
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	for _, line := range summary.lines {
		if _, err := fmt.Fprintln(file, line); err != nil {
			file.Close()
			return err
		}
	}
	return file.Close()
}

func report(t *testing.T, what string, began time.Time) {
	verdict := "ok  "
	switch {
	case t.Failed():
		verdict = "FAIL"
	case t.Skipped():
		verdict = "skip"
	}
	summary.Lock()
	defer summary.Unlock()
	summary.lines = append(summary.lines, fmt.Sprintf("%s %s (%.1f s)", verdict, what, time.Since(began).Seconds()))
}

// tools installs the SDKs, or says what is not proven without them.
func tools(t *testing.T, needed ...official.SDK) *official.Toolchain {
	t.Helper()
	tools, err := official.Install()
	for _, sdk := range needed {
		if err == nil {
			err = tools.Supports(sdk)
		}
	}
	if errors.Is(err, official.ErrUnavailable) && os.Getenv("CI") != "true" {
		t.Skipf("not proven: that official clients work with this node: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tools
}

// proof tells whether the proof tier runs, whose tests may take long.
var proof = os.Getenv("XMTP_PROOF") == "1"

// long skips a test that takes minutes unless the proof tier runs.
func long(t *testing.T) {
	t.Helper()
	if !proof {
		t.Skip("takes minutes: runs with XMTP_PROOF=1")
	}
}

// often is how often something is done: fewer times than in the proof tier.
func often(inProof, otherwise int) int {
	if proof {
		return inProof
	}
	return otherwise
}

// shared is the node in memory on which most scenarios play, beside each other, and the
// processes that they borrow.
var shared commonNode

type commonNode struct {
	once sync.Once
	node *node.Node
	pool *official.Pool
	err  error
}

func (c *commonNode) open(tools *official.Toolchain) error {
	c.once.Do(func() {
		c.node, c.err = node.Start(context.Background(),
			node.Options{Listen: "127.0.0.1:0", Ephemeral: true, HistoryListen: "127.0.0.1:0"})
		if c.err == nil {
			c.pool, c.err = official.NewPool(tools, "http://"+c.node.Addr())
		}
	})
	return c.err
}

func (c *commonNode) close() (err error) {
	if c.pool != nil {
		err = c.pool.Close()
	}
	if c.node != nil {
		err = errors.Join(err, c.node.Close())
	}
	return err
}

// world is what a scenario plays in: a process with clients of one SDK, and their node.
type world struct {
	*official.Process
	t     *testing.T
	tools *official.Toolchain
	sdk   official.SDK
	url   string
	// history is the URL of the node's history service.
	history string
	// pool has further processes, if the node is the shared one.
	pool *official.Pool
}

// scenario runs a test with clients of each SDK on the shared node in memory.
func scenario(t *testing.T, name string, sdks []official.SDK, run func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for _, sdk := range sdks {
		t.Run(string(sdk), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, name, sdk)
			w.openShared()
			run(t, w)
		})
	}
}

// scenarioOnDisk runs a test with clients of each SDK on a node that is a process of its
// own, with its data on disk, and can be stopped and started.
func scenarioOnDisk(t *testing.T, name string, sdks []official.SDK, run func(t *testing.T, w *world, n *nodeProcess)) {
	t.Helper()
	t.Parallel()
	for _, sdk := range sdks {
		t.Run(string(sdk), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, name, sdk)
			n := newNodeProcess(t)
			n.start()
			w.open("http://" + n.address)
			run(t, w, n)
		})
	}
}

func newWorld(t *testing.T, name string, sdk official.SDK) *world {
	t.Helper()
	w := &world{t: t, tools: tools(t, sdk), sdk: sdk}
	version, err := w.tools.Version(sdk)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	t.Cleanup(func() { report(t, name+" × "+version, began) })
	return w
}

// open gives the scenario its node and its process.
func (w *world) open(url string) {
	w.t.Helper()
	w.url = url
	w.Process = w.start(w.sdk)
}

// openShared lets the scenario play on the shared node.
func (w *world) openShared() {
	w.t.Helper()
	if err := shared.open(w.tools); err != nil {
		w.t.Fatal(err)
	}
	w.pool, w.history = shared.pool, "http://"+shared.node.HistoryAddr()
	w.open("http://" + shared.node.Addr())
}

// start gives a further process, with clients of any version, on the scenario's node.
func (w *world) start(sdk official.SDK) *official.Process {
	w.t.Helper()
	if w.pool != nil {
		return w.pool.Process(w.t, sdk)
	}
	return official.StartProcess(w.t, w.tools, sdk, w.url)
}

// serve runs a node in memory.
func serve(t *testing.T, options node.Options) *node.Node {
	t.Helper()
	options.Listen, options.Ephemeral = "127.0.0.1:0", true
	n, err := node.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("closing the node: %v", err)
		}
	})
	return n
}

var binary = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "xmtp-interop-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, "xmtp")
	build := exec.Command("go", "build", "-o", path, "./cmd/xmtp")
	build.Dir = ".." // its module
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// nodeProcess is "xmtp node" with a data folder and an address that outlive it.
type nodeProcess struct {
	t       *testing.T
	path    string
	address string
	data    string
	command *exec.Cmd
	log     *os.File
}

func newNodeProcess(t *testing.T) *nodeProcess {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	// A port that was free a moment ago: the node has to come back on the same one.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	n := &nodeProcess{t: t, path: path, address: address, data: t.TempDir()}
	if n.log, err = os.Create(filepath.Join(t.TempDir(), "node.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n.command != nil {
			n.kill()
		}
		n.log.Close()
		if text, err := os.ReadFile(n.log.Name()); err == nil && t.Failed() {
			t.Logf("log of the node:\n%s", text)
		}
	})
	return n
}

// start runs the node and returns when it accepts connections.
func (n *nodeProcess) start() {
	n.t.Helper()
	n.command = exec.Command(n.path, "node", "--listen", n.address, "--web-listen", "off",
		"--history-listen", "off", "--data", n.data)
	n.command.Stdout, n.command.Stderr = n.log, n.log
	if err := n.command.Start(); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		connection, err := net.Dial("tcp", n.address)
		if err == nil {
			connection.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.t.Fatalf("the node does not listen on %s: %v", n.address, err)
		}
	}
}

// kill ends the node at once, as a power cut ends a process.
func (n *nodeProcess) kill() {
	n.t.Helper()
	n.command.Process.Kill()
	n.command.Wait()
	n.command = nil
}

// stop asks the node to end, as a service manager does, and waits until it has.
func (n *nodeProcess) stop() {
	n.t.Helper()
	if err := n.command.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	if err := n.command.Wait(); err != nil {
		n.t.Errorf("the node did not end well: %v", err)
	}
	n.command = nil
}
