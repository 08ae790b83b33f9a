package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"xmtp": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("LocalAppData", home)
			env.Setenv("XDG_DATA_HOME", "")
			env.Setenv("XDG_CONFIG_HOME", "")
			env.Setenv("AppData", home)
			// With the race detector each program would wait a second at its end.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			// Scripts run at the same time.
			env.Setenv(envPrefix+"WEB_LISTEN", "off")
			env.Setenv(envPrefix+"HISTORY_LISTEN", "off")
			return os.Mkdir(home, 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve":   serve,
			"quit":    quit,
			"hold":    hold,
			"code":    code,
			"field":   field,
			"keypair": keypair,
		},
	})
}

// started finds the address in the line that a node logs when it serves.
var started = regexp.MustCompile(`node started"?[ ,]"?listen"?[=:]"?([\d.]+:\d+)`)

// A process is a running "xmtp node".
type process struct {
	cmd  *exec.Cmd
	addr string
	log  strings.Builder // readable after wait
	read chan struct{}   // closed when all of the log is there

	mu   sync.Mutex
	told map[string]chan struct{} // closed when a line has the text
}

// tells returns a channel that is closed when the node logs a line with the text.
func (p *process) tells(text string) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := make(chan struct{})
	p.told[text] = c
	return c
}

func (p *process) note(line string) {
	p.log.WriteString(line + "\n")
	p.mu.Lock()
	defer p.mu.Unlock()
	for text, c := range p.told {
		if strings.Contains(line, text) {
			close(c)
			delete(p.told, text)
		}
	}
}

// start runs "xmtp node" and returns when it serves. Its log up to that goes to
// the error if it ends before.
func start(cmd *exec.Cmd) (*process, error) {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, read: make(chan struct{}), told: map[string]chan struct{}{}}
	addr := make(chan string, 1)
	go func() {
		defer close(p.read)
		scanner := bufio.NewScanner(stderr)
		for scanner.Scan() {
			p.note(scanner.Text())
			if m := started.FindStringSubmatch(scanner.Text()); m != nil {
				addr <- m[1]
			}
		}
	}()
	select {
	case p.addr = <-addr:
		return p, nil
	case <-p.read:
		return nil, errors.Join(errors.New("it ended before it served:\n"+p.log.String()), cmd.Wait())
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.wait()
}

// wait returns how the process ended, once all of its log was read.
func (p *process) wait() error {
	<-p.read
	return p.cmd.Wait()
}

// running is the node that each script has started.
var running sync.Map // of *testscript.TestScript to *process

// serve starts "xmtp node" with its arguments and sets $ADDR to its address.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: serve args...; for a node that does not start use exec")
	}
	cmd := exec.Command("xmtp", append([]string{"node"}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"HOME", "LocalAppData", "XDG_DATA_HOME", "GORACE", "PATH", "SystemRoot", "TMPDIR", "TMP"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	for _, flag := range []string{"LISTEN", "WEB_LISTEN", "HISTORY_LISTEN", "DATA", "EPHEMERAL", "LOG_FORMAT"} {
		cmd.Env = append(cmd.Env, envPrefix+flag+"="+ts.Getenv(envPrefix+flag))
	}
	p, err := start(cmd)
	ts.Check(err)
	ts.Setenv("ADDR", p.addr)
	ts.Defer(p.kill)
	running.Store(ts, p)
}

// quit ends the node of "serve" with an interrupt and writes its log to the file log.
func quit(ts *testscript.TestScript, neg bool, args []string) {
	value, found := running.LoadAndDelete(ts)
	if !found {
		ts.Fatalf("no node is running")
	}
	p := value.(*process)
	ts.Check(p.cmd.Process.Signal(os.Interrupt))
	if err := p.wait(); err != nil {
		ts.Fatalf("the node ended with %v:\n%s", err, p.log.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs("log"), []byte(p.log.String()), 0o644))
}

// hold listens on a free port until the end of the script and sets $HELD to it.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { listener.Close() })
	ts.Setenv("HELD", listener.Addr().String())
}

// code runs a command that must end with an exit code: code 2 xmtp node --nonsense.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command args...")
	}
	err := ts.Exec(args[1], args[2:]...)
	exit, ended := errors.AsType[*exec.ExitError](err)
	if !ended || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("ended with %v, want exit code %s", err, args[0])
	}
}

// field sets a variable to a field of a JSON object in a file: field NAME field file.
func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: field NAME field file")
	}
	object := map[string]string{}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[2])), &object))
	ts.Setenv(args[0], object[args[1]])
}

// keypair writes a certificate and its key for localhost: keypair cert.pem key.pem.
func keypair(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keypair cert key")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: cert}, {Type: "PRIVATE KEY", Bytes: der}} {
		ts.Check(os.WriteFile(ts.MkAbs(args[i]), pem.EncodeToMemory(block), 0o600))
	}
}

func TestDocsTellOfEveryFlag(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "node.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range settingNames(newNode().Flags()) {
		if row := "| `--" + name + "` | `" + envName(name) + "` |"; !strings.Contains(string(text), row) {
			t.Errorf("docs/node.md has no row that begins with %s", row)
		}
	}
}
