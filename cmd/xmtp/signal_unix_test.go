//go:build unix

package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

func startForTest(t *testing.T, args ...string) (*process, *grpc.ClientConn) {
	t.Helper()
	p, err := start(exec.Command("xmtp", append([]string{"node", "--ephemeral", "--listen", "127.0.0.1:0", "--web-listen", "off", "--history-listen", "off"}, args...)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return p, conn
}

func TestSignalEndsStreamsWithUnavailable(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			p, conn := startForTest(t)
			stream, err := mlsapi.NewMlsApiClient(conn).SubscribeGroupMessages(t.Context(), &mlsapi.SubscribeGroupMessagesRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Header(); err != nil {
				t.Fatal(err)
			}
			if err := p.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
				t.Errorf("the stream ended with %v, want UNAVAILABLE", err)
			}
			if err := p.wait(); err != nil {
				t.Errorf("the node ended with %v:\n%s", err, p.log.String())
			}
		})
	}
}

// A call whose request never comes would hold the node up for the whole grace.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	p, conn := startForTest(t, "--shutdown-grace", "1h")
	stalled, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, mlsapi.MlsApi_SendGroupMessages_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	// The stalled call is on its way before an answered one of the same connection.
	idle, err := mlsapi.NewMlsApiClient(conn).SubscribeGroupMessages(t.Context(), &mlsapi.SubscribeGroupMessagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Header(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v, want UNAVAILABLE", err)
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := stalled.RecvMsg(new(mlsapi.QueryGroupMessagesResponse)); err == nil {
		t.Error("a call was answered that was never made")
	}
	if err := p.wait(); err != nil {
		t.Errorf("the node ended with %v", err)
	}
	if log := p.log.String(); !strings.Contains(log, "stopping at once") {
		t.Errorf("the log does not tell of the second signal:\n%s", log)
	}
}
