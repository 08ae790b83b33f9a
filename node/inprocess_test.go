package node_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// startWithin starts a node that listens within the process.
func startWithin(t *testing.T, options node.Options) (*node.Node, *bufconn.Listener) {
	t.Helper()
	pipes := bufconn.Listen(64 << 10)
	options.Listener, options.Ephemeral = pipes, true
	return must(node.Start(t.Context(), options))(t), pipes
}

func dialWithin(t *testing.T, pipes *bufconn.Listener) *client {
	t.Helper()
	return dial(t, nil, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipes.DialContext(ctx) }))
}

// A node without ports serves gRPC and HTTP, and another one has what it has stored: all
// of it, whether it was closed or its power was cut.
func TestMemory(t *testing.T) {
	t.Parallel()
	ctx, memory := short(t), new(node.Memory)
	first, pipes := startWithin(t, node.Options{Memory: memory})
	group := newGroupID()
	must(dialWithin(t, pipes).mls.SendGroupMessages(ctx, &mlsapi.SendGroupMessagesRequest{
		Messages: []*mlsapi.GroupMessageInput{groupInput(application(group, "kept"))},
	}))(t)
	web := &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return pipes.DialContext(ctx) },
		DisableKeepAlives: true,
	}}
	if code, answer := connectPost(ctx, t, web, "http://node.test"+mlsapi.MlsApi_QueryGroupMessages_FullMethodName, "application/json", []byte("{}")); code != http.StatusBadRequest {
		t.Errorf("over HTTP: %d %s", code, answer)
	}
	if _, err := node.Start(ctx, node.Options{Listener: bufconn.Listen(1), Ephemeral: true, Memory: memory}); !errors.Is(err, node.ErrInUse) {
		t.Errorf("a second node with the same memory: %v", err)
	}
	cut := memory.PowerCut()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for name, memory := range map[string]*node.Memory{"closed": memory, "power cut": cut} {
		n, pipes := startWithin(t, node.Options{Memory: memory})
		answer := must(dialWithin(t, pipes).mls.QueryGroupMessages(ctx, &mlsapi.QueryGroupMessagesRequest{GroupId: group}))(t)
		if len(answer.Messages) != 1 {
			t.Errorf("%s: %d messages", name, len(answer.Messages))
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	for name, o := range map[string]node.Options{
		"address and listener": {Listen: "127.0.0.1:0", Listener: pipes, Ephemeral: true},
		"memory and directory": {Listener: pipes, Data: t.TempDir(), Memory: memory},
	} {
		if n, err := node.Start(ctx, o); err == nil {
			n.Close()
			t.Errorf("%s: it starts", name)
		}
	}
}

// Interceptors are around calls of all transports, and decide what becomes of them.
func TestInterceptors(t *testing.T) {
	t.Parallel()
	ctx := short(t)
	var unary, streams atomic.Int64
	refuse := status.Error(codes.Aborted, "by the interceptor")
	n := start(t, node.Options{
		WebListen: "127.0.0.1:0",
		UnaryInterceptor: func(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			unary.Add(1)
			if _, ok := request.(*mlsapi.GetNewestGroupMessageRequest); ok {
				return nil, refuse
			}
			if _, err := next(ctx, request); err != nil {
				return nil, err
			}
			return next(ctx, request) // as often as it likes
		},
		StreamInterceptor: func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			streams.Add(1)
			if info.FullMethod != mlsapi.MlsApi_SubscribeGroupMessages_FullMethodName || !info.IsServerStream || info.IsClientStream {
				t.Errorf("a stream of %+v", info)
			}
			return refuse
		},
	})
	c, group := dial(t, n), newGroupID()
	must(c.mls.SendGroupMessages(ctx, &mlsapi.SendGroupMessagesRequest{
		Messages: []*mlsapi.GroupMessageInput{groupInput(application(group, "twice"))},
	}))(t)
	if got := must(c.mls.QueryGroupMessages(ctx, &mlsapi.QueryGroupMessagesRequest{GroupId: group}))(t).Messages; len(got) != 1 {
		t.Errorf("what was sent twice is there %d times", len(got))
	}
	_, err := c.mls.GetNewestGroupMessage(ctx, &mlsapi.GetNewestGroupMessageRequest{GroupIds: [][]byte{group}})
	wantStatus(t, err, codes.Aborted, "by the interceptor")
	stream := must(c.mls.SubscribeGroupMessages(ctx, &mlsapi.SubscribeGroupMessagesRequest{}))(t)
	_, err = stream.Recv()
	wantStatus(t, err, codes.Aborted, "by the interceptor")
	if code, answer := connectPost(ctx, t, http.DefaultClient, "http://"+n.WebAddr()+mlsapi.MlsApi_GetNewestGroupMessage_FullMethodName, "application/json", []byte("{}")); code != http.StatusConflict {
		t.Errorf("over HTTP: %d %s", code, answer)
	}
	if unary.Load() != 4 || streams.Load() != 1 {
		t.Errorf("%d calls and %d streams", unary.Load(), streams.Load())
	}
}
