package xmtp

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// roles are what the test program does instead of testing when it is started as a
// process of its own: see startProcess.
var roles = map[string]func(ctx context.Context, p *process) error{}

// roleVariable names the role, and is set only for such processes.
const roleVariable = "XMTP_TEST_ROLE"

func TestMain(m *testing.M) {
	if name := os.Getenv(roleVariable); name != "" {
		p := &process{in: json.NewDecoder(os.Stdin), out: json.NewEncoder(os.Stdout)}
		if err := roles[name](context.Background(), p); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// process is either end of what a test and a process that it has started tell
// each other, in JSON.
type process struct {
	in  *json.Decoder
	out *json.Encoder
	cmd *exec.Cmd // nil in the process itself
}

// startProcess starts the test program in a role. It is killed when the test ends.
func startProcess(t *testing.T, role string) *process {
	t.Helper()
	cmd := exec.Command(must(os.Executable())(t))
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = t.Output()
	stdin, stdout := must(cmd.StdinPipe())(t), must(cmd.StdoutPipe())(t)
	check(t, cmd.Start())
	p := &process{in: json.NewDecoder(stdout), out: json.NewEncoder(stdin), cmd: cmd}
	t.Cleanup(p.kill)
	return p
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// tell sends a value to the other end.
func (p *process) tell(value any) error { return p.out.Encode(value) }

// hear returns the next value of the other end; io.EOF after the last.
func hear[T any](p *process) (value T, err error) {
	if err = p.in.Decode(&value); err == io.ErrUnexpectedEOF {
		err = io.EOF // the process was killed while it wrote
	}
	return value, err
}
