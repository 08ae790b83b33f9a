//go:build unix

package xmtp

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"
)

// Nobody takes over from a process that is stopped: it may go on at any time. The wait
// ends with the context.
func TestStandbyForAStoppedProcess(t *testing.T) {
	t.Parallel()
	e := newErrand(t, startNode(t))
	holder, first := startSender(t, e)
	check(t, holder.cmd.Process.Signal(syscall.SIGSTOP))
	signer := must(NewPrivateKeySigner(e.Wallet))(t)
	options := []Option{WithNode(e.Node), WithDatabase(e.Database), WithStandby()}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second/5)
	defer cancel()
	if _, err := NewClient(ctx, signer, options...); !errors.Is(err, ErrInUse) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	holder.kill()
	if c := openClient(t, signer, options...); c.InstallationID() != first.Installation {
		t.Error("it is another installation")
	}
}
