package xmtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// proxy stands between a client and its node. It sees every call, and can be cut
// at any of them.
type proxy struct {
	url  string
	node *grpc.ClientConn

	// delay, if set, is how long a call takes longer.
	delay func() time.Duration
	// sometimes, if set, tells whether a call fails, before or after.
	sometimes func() bool
	// published, if set, gets every group message that leaves the client, whether
	// it reaches the node or not.
	published func(data []byte)

	mu     sync.Mutex
	calls  int
	cutAt  int  // of calls; 0 for never
	after  bool // the node has done the call, its answer is lost
	then   func()
	cut    bool
	fault  bool // only one call fails, then all is well
	faults int
	stream chan struct{}  // closed when the next stream is open
	doing  chan struct{}  // closed when the node has done the next call
	lies   map[string]lie // by the name of the call
	asked  []string       // names of calls in their order
	opens  map[string]int // how many streams were opened, by the name of the call
}

// errCut is what a client sees of a cut.
var errCut = status.Error(codes.Unavailable, "connection cut")

func newProxy(t *testing.T, nodeURL string) *proxy {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(nodeURL, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)))
	check(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p := &proxy{url: "http://" + listener.Addr().String(), node: conn, opens: map[string]int{}}
	server := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.MaxRecvMsgSize(64<<20), grpc.MaxSendMsgSize(64<<20), grpc.UnknownServiceHandler(p.handle))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		check(t, errors.Join(<-ended, conn.Close()))
	})
	return p
}

// arm lets the n-th call from now, counted from 1, be the last: it does not reach
// the node, or its answer doesn't come back. then is called at that moment.
func (p *proxy) arm(n int, after bool, then func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutAt, p.after, p.then = p.calls+n, after, then
}

// count returns how many calls there have been.
func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// failOnce lets one call fail and the next ones succeed.
func (p *proxy) failOnce(n int, after bool) {
	p.arm(n, after, nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = true
}

// streams returns a channel that is closed when the next stream of messages is open.
func (p *proxy) streams() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stream = make(chan struct{})
	return p.stream
}

// done returns a channel that is closed when the node has done the next call.
func (p *proxy) done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doing = make(chan struct{})
	return p.doing
}

func (p *proxy) opened(method string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opens[method[strings.LastIndex(method, "/")+1:]]++
	if p.stream != nil && (strings.HasSuffix(method, "/SubscribeGroupMessages") || strings.HasSuffix(method, "/Subscribe")) {
		close(p.stream)
		p.stream = nil
	}
}

// kill cuts the connection now.
func (p *proxy) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
}

// revive ends a cut, and disarms.
func (p *proxy) revive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.fault, p.cutAt, p.then = false, false, 0, nil
}

// enter counts a call and tells which it is.
func (p *proxy) enter() (number int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return 0, errCut
	}
	p.calls++
	if p.calls == p.cutAt && !p.after {
		return 0, p.fail()
	}
	if p.sometimes != nil && p.sometimes() {
		p.faults++
		return 0, errCut
	}
	return p.calls, nil
}

// leave tells whether the answer of a call comes through.
func (p *proxy) leave(number int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.doing != nil {
		close(p.doing)
		p.doing = nil
	}
	if p.cut {
		return errCut
	}
	if number == p.cutAt && p.after {
		return p.fail()
	}
	if p.sometimes != nil && p.sometimes() {
		p.faults++
		return errCut
	}
	return nil
}

// fail is the point that the proxy was armed for. The lock is held.
func (p *proxy) fail() error {
	p.faults++
	if p.fault {
		return errCut
	}
	p.cut = true
	p.then()
	return errCut
}

// handle forwards a call: one request, and one answer or a stream of them.
func (p *proxy) handle(_ any, client grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(client)
	var request []byte
	if err := client.RecvMsg(&request); err != nil {
		return err
	}
	if strings.HasPrefix(method, "/grpc.health.") {
		// That is asked now and then; it is no call of the client.
		return client.SendMsg(&[]byte{8, 1})
	}
	if err := p.note(method, request); err != nil {
		return err
	}
	p.mu.Lock()
	p.asked = append(p.asked, method[strings.LastIndex(method, "/")+1:])
	p.mu.Unlock()
	number, err := p.enter()
	if err != nil {
		return err
	}
	if p.delay != nil {
		select {
		case <-time.After(p.delay()):
		case <-client.Context().Done():
			return client.Context().Err()
		}
	}
	// What was sent is done, even if the client has gone in the meantime.
	headers, _ := metadata.FromIncomingContext(client.Context())
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(context.WithoutCancel(client.Context()), headers))
	defer cancel()
	streaming := strings.Contains(method, "Subscribe")
	if streaming {
		defer context.AfterFunc(client.Context(), cancel)()
	}
	changing := strings.HasSuffix(method, "/Subscribe")
	stream, err := p.node.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: changing}, method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&request); err != nil {
		return err
	}
	if changing {
		go func() {
			for {
				var request []byte
				if client.RecvMsg(&request) != nil || stream.SendMsg(&request) != nil {
					return
				}
			}
		}()
	} else if err := stream.CloseSend(); err != nil {
		return err
	}
	if streaming {
		headers, err := stream.Header()
		if err != nil {
			return err
		}
		if err := client.SendHeader(headers); err != nil {
			return err
		}
		p.opened(method)
	}
	for {
		var answer []byte
		err := stream.RecvMsg(&answer)
		if lost := p.leave(number); lost != nil {
			return lost
		}
		if err == nil {
			if answer, err = p.answer(method, request, answer); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := client.SendMsg(&answer); err != nil {
			return err
		}
	}
}

func (p *proxy) note(method string, request []byte) error {
	if p.published == nil || !strings.HasSuffix(method, "/SendGroupMessages") {
		return nil
	}
	var messages mlsapi.SendGroupMessagesRequest
	if err := proto.Unmarshal(request, &messages); err != nil {
		return err
	}
	for _, m := range messages.Messages {
		p.published(m.GetV1().GetData())
	}
	return nil
}

// rawCodec leaves messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("a %T", v)
	}
	return *b, nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a %T", v)
	}
	*b = append([]byte(nil), data...)
	return nil
}
