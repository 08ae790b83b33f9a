//go:build unix

package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

func query(ctx context.Context, conn *grpc.ClientConn) codes.Code {
	_, err := mlsapi.NewMlsApiClient(conn).QueryGroupMessages(ctx, &mlsapi.QueryGroupMessagesRequest{GroupId: make([]byte, 16)})
	return status.Code(err)
}

// hangUp makes the node read its settings again, and returns when it answers a
// call as it should then.
func hangUp(t *testing.T, p *process, conn *grpc.ClientConn, want codes.Code) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for got := codes.Code(99); got != want; got = query(t.Context(), conn) {
		if time.Now().After(deadline) {
			t.Fatalf("a call ends with %v, want %v", got, want)
		}
	}
}

// SIGHUP changes what can be changed, tells what can't, and changes nothing if
// anything is wrong.
func TestReload(t *testing.T) {
	config := filepath.Join(t.TempDir(), "node.toml")
	set := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set(`log-level = "info"`)
	p, conn := startForTest(t, "--config", config)
	if got := query(t.Context(), conn); got != codes.OK {
		t.Fatalf("a call ends with %v", got)
	}
	set("deny-addresses = [\"127.0.0.1\"]\nlog-level = \"warn\"\nread-only = true")
	hangUp(t, p, conn, codes.PermissionDenied)
	set(`log-level = "info"`)
	hangUp(t, p, conn, codes.OK)
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(); err != nil {
		t.Fatal(err)
	}
	log := p.log.String()
	for _, want := range []string{
		`level=INFO msg="settings were read again" changed="deny-addresses, log-level"`,
		`level=WARN msg="these settings have changed, but need a restart" settings=read-only`,
		`msg="node ended"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no line %s in the log:\n%s", want, log)
		}
	}
}

// A setting that is wrong is named, and nothing else is changed.
func TestReloadRefused(t *testing.T) {
	config := filepath.Join(t.TempDir(), "node.toml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, conn := startForTest(t, "--config", config)
	if err := os.WriteFile(config, []byte("deny-addresses = [\"127.0.0.1\"]\nlisten = 5"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := p.tells("nothing was changed")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-refused:
	case <-p.read:
	case <-time.After(30 * time.Second):
	}
	if got := query(t.Context(), conn); got != codes.OK {
		t.Errorf("after a refused change a call ends with %v", got)
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(); err != nil {
		t.Fatal(err)
	}
	if log := p.log.String(); !strings.Contains(log, "nothing was changed") || !strings.Contains(log, "node.toml:2: listen must be text in quotes") {
		t.Errorf("the log does not say what is wrong:\n%s", log)
	}
}

// spans is a collector of traces.
type spans struct {
	collector.UnimplementedTraceServiceServer
	mu    sync.Mutex
	names []string
}

func (s *spans) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range req.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				s.names = append(s.names, span.Name)
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestTracesAreSent(t *testing.T) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := &spans{}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, got)
	go server.Serve(port)
	t.Cleanup(server.Stop)

	p, conn := startForTest(t, "--traces", "http://"+port.Addr().String())
	if got := query(t.Context(), conn); got != codes.OK {
		t.Fatalf("a call ends with %v", got)
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(); err != nil {
		t.Fatal(err)
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	if !slices.Contains(got.names, "xmtp.mls.api.v1.MlsApi/QueryGroupMessages") {
		t.Errorf("spans %v; the log:\n%s", got.names, p.log.String())
	}
}
