package interop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// liar stands between a client and its node and keeps messages from it when it
// queries.
type liar struct {
	url  string
	node *grpc.ClientConn

	mu     sync.Mutex
	hidden map[uint64]bool // numbers of group messages
}

func startLiar(t *testing.T, nodeURL string) *liar {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(nodeURL, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(opaque{})))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{url: "http://" + listener.Addr().String(), node: conn, hidden: map[uint64]bool{}}
	server := grpc.NewServer(grpc.ForceServerCodec(opaque{}), grpc.UnknownServiceHandler(l.forward))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := errors.Join(<-ended, conn.Close()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// hide keeps a message from the client.
func (l *liar) hide(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hidden[number] = true
}

func (l *liar) forward(_ any, client grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(client)
	headers, _ := metadata.FromIncomingContext(client.Context())
	ctx := metadata.NewOutgoingContext(client.Context(), headers)
	node, err := l.node.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	go func() {
		for {
			var request []byte
			err := client.RecvMsg(&request)
			if errors.Is(err, io.EOF) {
				err = node.CloseSend()
			}
			if err != nil || request == nil || node.SendMsg(&request) != nil {
				return // the other direction knows why
			}
		}
	}()
	if headers, err := node.Header(); err == nil {
		if err := client.SendHeader(headers); err != nil {
			return err
		}
	}
	for {
		var answer []byte
		err := node.RecvMsg(&answer)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if strings.HasSuffix(method, "/QueryGroupMessages") {
			if answer, err = l.lie(answer); err != nil {
				return err
			}
		}
		if err := client.SendMsg(&answer); err != nil {
			return err
		}
	}
}

func (l *liar) lie(answer []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var response mlsapi.QueryGroupMessagesResponse
	if err := proto.Unmarshal(answer, &response); err != nil {
		return nil, err
	}
	var kept []*mlsapi.GroupMessage
	for _, m := range response.Messages {
		if !l.hidden[m.GetV1().GetId()] {
			kept = append(kept, m)
		}
	}
	response.Messages = kept
	return proto.Marshal(&response)
}

// opaque leaves messages as they are.
type opaque struct{}

func (opaque) Name() string { return "proto" }

func (opaque) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("a %T", v)
	}
	return *b, nil
}

func (opaque) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a %T", v)
	}
	*b = append(make([]byte, 0, len(data)), data...)
	return nil
}
