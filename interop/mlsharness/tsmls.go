package mlsharness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/go-xmtp/go-xmtp/interop/official"
)

// TSMLS is a running server around ts-mls.
type TSMLS struct {
	Address string

	stdin io.Closer
	cmd   *exec.Cmd
}

// StartTSMLS starts a server around ts-mls on Node.js. End it by Close; if ctx ends
// before, the process is killed.
func StartTSMLS(ctx context.Context, tools *official.Toolchain) (*TSMLS, error) {
	cmd := exec.CommandContext(ctx, tools.Node, filepath.Join(tools.Scripts, "ts-mls-harness.mjs"), "127.0.0.1:0")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("mlsharness: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("mlsharness: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("mlsharness: %w", err)
	}
	ts := &TSMLS{stdin: stdin, cmd: cmd}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("mlsharness: the server around ts-mls didn't start: %w", errors.Join(err, ts.Close()))
	}
	ts.Address = strings.TrimSpace(line)
	return ts, nil
}

// Close ends the process and waits for it.
func (ts *TSMLS) Close() error {
	ts.stdin.Close()
	return ts.cmd.Wait()
}
