package official

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

func start(t *testing.T, sdk SDK) *Process {
	t.Helper()
	tools, err := Install()
	if errors.Is(err, ErrUnavailable) && os.Getenv("CI") != "true" {
		t.Skipf("not proven: that official SDKs can be driven from here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return StartProcess(t, tools, sdk, "http://127.0.0.1:1") // where nothing listens
}

func TestEveryVersionLoads(t *testing.T) {
	t.Parallel()
	for _, sdk := range []SDK{Oldest, Baseline, Newest} {
		t.Run(string(sdk), func(t *testing.T) {
			t.Parallel()
			process := start(t, sdk)
			var encoded struct {
				Type    ContentType `json:"type"`
				Content []byte      `json:"content"`
			}
			process.Must(Request{Op: "call", Path: "encodeText", Args: []any{"grüezi"}}, &encoded)
			if encoded.Type.TypeID != "text" || string(encoded.Content) != "grüezi" {
				t.Errorf("encoded: %+v", encoded)
			}
		})
	}
}

func TestErrorsOfTheSDK(t *testing.T) {
	t.Parallel()
	process := start(t, Baseline)
	var refused *CallError
	if _, err := process.TryInstallation("alice", process.Wallet()); !errors.As(err, &refused) {
		t.Errorf("a client without a node: %v", err)
	}
	for name, request := range map[string]Request{
		"operation": {Op: "dance"},
		"object":    {Op: "call", On: "nobody", Path: "inboxId"},
		"argument":  {Op: "call", Path: "encodeText", Args: []any{Ref("nothing")}},
		"stream":    {Op: "end", Stream: 7},
	} {
		if err := process.Try(request, nil); !errors.As(err, &refused) {
			t.Errorf("unknown %s: %v", name, err)
		}
	}
	var wallet Wallet
	if err := process.Try(Request{Op: "wallet"}, &wallet); err != nil || len(wallet.Address) != 42 {
		t.Errorf("after errors: %+v, %v", wallet, err)
	}
}

func TestLargeArgumentsBothWays(t *testing.T) {
	t.Parallel()
	process := start(t, Baseline)
	content := make([]byte, 1<<20)
	Parallel(t, 4, func(i int) error {
		var encoded struct {
			Content []byte `json:"content"`
		}
		err := process.Try(Request{Op: "call", Path: "encodeAttachment", Args: []any{
			map[string]any{"mimeType": "a/b", "content": Bytes(content)},
		}}, &encoded)
		if err == nil && len(encoded.Content) != len(content) {
			return errors.New("content of another length")
		}
		return err
	})
}

func TestProcessGone(t *testing.T) {
	t.Parallel()
	process := start(t, Baseline)
	process.process.Process.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := process.Do(ctx, Request{Op: "hello"}, nil); err == nil || ctx.Err() != nil {
		t.Errorf("asking a process that is gone: %v", err)
	}
}

func TestNoAnswerInTime(t *testing.T) {
	t.Parallel()
	process := start(t, Baseline)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := process.Do(ctx, Request{Op: "create", Client: "a", Key: process.Wallet().Key}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("asking with an ended context: %v", err)
	}
}

func TestGlibcAtLeast(t *testing.T) {
	for version, want := range map[string]bool{"2.36": false, "2.38": true, "2.41": true, "3.0": true, "1.99": false, "": false, "x.y": false} {
		if got := glibcAtLeast(version, minGlibc); got != want {
			t.Errorf("glibc %q new enough: %v", version, got)
		}
	}
}
