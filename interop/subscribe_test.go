package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/node"
)

const (
	pathSubscribe         = "/xmtp.mls.api.v1.MlsApi/Subscribe"
	pathSubscribeMessages = "/xmtp.mls.api.v1.MlsApi/SubscribeGroupMessages"
	pathSubscribeWelcomes = "/xmtp.mls.api.v1.MlsApi/SubscribeWelcomeMessages"
)

// counter stands between clients and a node and counts calls by their paths.
type counter struct {
	url  string
	node *grpc.ClientConn

	mu    sync.Mutex
	calls map[string]int
}

func startCounter(t *testing.T, address string) *counter {
	t.Helper()
	upstream, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(frames{}), grpc.MaxCallRecvMsgSize(26<<20)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, MaxDelay: 100 * time.Millisecond, Multiplier: 1.5}}))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{url: "http://" + listener.Addr().String(), node: upstream, calls: map[string]int{}}
	server := grpc.NewServer(
		grpc.ForceServerCodecV2(frames{}),
		grpc.UnknownServiceHandler(c.forward),
		grpc.MaxRecvMsgSize(26<<20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := errors.Join(<-ended, upstream.Close()); err != nil {
			t.Errorf("the counter: %v", err)
		}
	})
	return c
}

// forward passes a call on, of whatever kind.
func (c *counter) forward(_ any, down grpc.ServerStream) error {
	path, _ := grpc.MethodFromServerStream(down)
	c.mu.Lock()
	c.calls[path]++
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(down.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	up, err := c.node.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, path)
	if err != nil {
		return err
	}
	go func() {
		for {
			var frame []byte
			if err := down.RecvMsg(&frame); err != nil {
				_ = up.CloseSend() // the other direction tells what became of the call
				return
			}
			if up.SendMsg(&frame) != nil {
				return
			}
		}
	}()
	if header, err := up.Header(); err == nil && header != nil {
		if err := down.SendHeader(header); err != nil {
			return err
		}
	}
	for {
		var frame []byte
		err := up.RecvMsg(&frame)
		if err == nil {
			err = down.SendMsg(&frame)
		}
		if err != nil {
			down.SetTrailer(up.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// frames is a codec that leaves messages as they are.
type frames struct{}

func (frames) Name() string { return "proto" }

func (frames) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (frames) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (c *counter) count(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[path]
}

// openBidi starts clients that use Subscribe if they can, through a counter.
func (w *world) openBidi(address string) *counter {
	w.t.Helper()
	c := startCounter(w.t, address)
	w.url = c.url
	w.Process = official.StartProcess(w.t, w.tools, w.sdk, w.url, "XMTP_BIDI_STREAMS_ENABLED=1")
	return c
}

// wantBidi fails unless the streams were Subscribe's, and no others.
func (c *counter) wantBidi(t *testing.T) {
	t.Helper()
	if n := c.count(pathSubscribe); n == 0 {
		t.Error("Subscribe was never called")
	}
	for _, path := range []string{pathSubscribeMessages, pathSubscribeWelcomes} {
		if n := c.count(path); n != 0 {
			t.Errorf("%s was called %d times", path, n)
		}
	}
}

// The newest SDK with Subscribe switched on: streams from zero groups on, many
// conversations on one stream, and the node restarted under it.
func TestSubscribe(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "Subscribe: many conversations, node restarted", official.Newest)
	n := newNodeProcess(t)
	n.start()
	c := w.openBidi(n.address)
	alice, bob := w.Client("alice"), w.Client("bob")
	conversations := bob.Stream("conversations.stream", nil)
	messages := bob.Stream("conversations.streamAllMessages", nil)

	const groups = 12
	all := []*official.Conversation{alice.DM(bob)}
	for range groups {
		all = append(all, alice.Group([]*official.Client{bob}, nil))
	}
	var want []string
	for i, conversation := range all {
		want = append(want, fmt.Sprint("hello ", i))
		conversation.Send(want[i])
	}
	conversations.WaitConversations(all...)
	equal(t, "texts streamed", len(messages.WaitTexts(want...)), len(want))
	opened := c.count(pathSubscribe)
	if opened > 3 {
		t.Errorf("Subscribe was called %d times for %d conversations", opened, len(all))
	}

	n.stop()
	n.start()
	for i, conversation := range all {
		text := fmt.Sprint("again ", i)
		want = append(want, text)
		conversation.Send(text)
	}
	late := alice.Group([]*official.Client{bob}, nil)
	late.Send("late")
	want = append(want, "late")
	got := messages.WaitTexts(want...)
	equal(t, "texts streamed", len(got), len(want))
	for _, text := range want {
		once(t, "stream", got, []string{text})
	}
	// The SDK takes up a stream that has ended by itself.
	for name, stream := range map[string]*official.LiveStream{"conversations": conversations, "messages": messages} {
		equal(t, name+" failed", stream.Count("fail"), 0)
	}
	if now := c.count(pathSubscribe); now <= opened {
		t.Errorf("Subscribe was called %d times, and no more after the restart", now)
	}
	c.wantBidi(t)
}

// Where Subscribe is switched off, the SDK goes over to the other streams.
func TestSubscribeFallback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "Subscribe switched off", official.Newest)
	c := w.openBidi(serve(t, node.Options{NoSubscribe: true}).Addr())
	alice, bob := w.Client("alice"), w.Client("bob")
	messages := bob.Stream("conversations.streamAllMessages", nil)
	alice.DM(bob).Send("in the DM")
	alice.Group([]*official.Client{bob}, nil).Send("in the group")
	messages.WaitTexts("in the DM", "in the group")
	for _, path := range []string{pathSubscribe, pathSubscribeMessages, pathSubscribeWelcomes} {
		if c.count(path) == 0 {
			t.Errorf("%s was never called", path)
		}
	}
	equal(t, "failures", messages.Count("fail"), 0)
}

// Idle for three of the node's pings, which the SDK has to answer.
func TestSubscribeIdle(t *testing.T) {
	long(t)
	t.Parallel()
	w := newWorld(t, "Subscribe idle for 100 s", official.Newest)
	c := w.openBidi(serve(t, node.Options{}).Addr())
	alice, bob := w.Client("alice"), w.Client("bob")
	dm := alice.DM(bob)
	bob.SyncAll()
	live := bob.Stream("conversations.streamAllMessages", nil)
	dm.Send("before")
	live.WaitTexts("before")
	opened := c.count(pathSubscribe)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	<-ctx.Done()
	dm.Send("still there?")
	live.WaitTextsFor(5*time.Second, "still there?")
	equal(t, "failures", live.Count("fail"), 0)
	equal(t, "streams opened while idle", c.count(pathSubscribe)-opened, 0)
	c.wantBidi(t)
}
