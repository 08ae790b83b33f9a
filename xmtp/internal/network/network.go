// Package network is a client's connection to its node. Clients of one process
// that use the same node share one connection.
package network

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// MaxMessageBytes bounds a request or response, as on the other side.
const MaxMessageBytes = 25 << 20

// Dialer opens a connection to an address; nil is TCP.
type Dialer func(ctx context.Context, address string) (net.Conn, error)

// Options say which node to use and what to tell it.
type Options struct {
	// URL is http://host:port for cleartext HTTP/2, https://host[:port] for TLS.
	URL string
	// Dial is for tests. Connections with it are not shared.
	Dial Dialer
	// AppVersion names the application; may be empty.
	AppVersion string
	// ProtocolVersion is the version of the reference client whose behaviour is implemented.
	ProtocolVersion string
	// Around, if not nil, makes each call: by calling call, any number of times, with
	// further options. The method is its full name. For a stream, which is only opened
	// by it, the request is nil and options have no effect.
	Around func(ctx context.Context, method string, request any, call func(...grpc.CallOption) error) error
}

// Node is one client's view of the connection. It is safe for use by several goroutines.
type Node struct {
	MLS      mlsapi.MlsApiClient
	Identity identityapi.IdentityApiClient
	conn     *shared
	url      string
}

// shared is a connection that is closed when nobody uses it any more.
type shared struct {
	*grpc.ClientConn
	url   string // empty if it isn't shared
	users int    // guarded by pool
}

var pool = struct {
	sync.Mutex
	byURL map[string]*shared
}{byURL: map[string]*shared{}}

// Open prepares a connection. It does not wait for the node to answer.
func Open(o Options) (*Node, error) {
	conn, err := acquire(o)
	if err != nil {
		return nil, err
	}
	// Always both, also if empty: that is what nodes are used to.
	headers := metadata.Pairs("x-app-version", o.AppVersion, "x-libxmtp-version", o.ProtocolVersion)
	c := view{conn, headers, o.Around}
	if c.around == nil {
		c.around = func(_ context.Context, _ string, _ any, call func(...grpc.CallOption) error) error { return call() }
	}
	return &Node{mlsapi.NewMlsApiClient(c), identityapi.NewIdentityApiClient(c), conn, o.URL}, nil
}

// URL is that of the node.
func (n *Node) URL() string { return n.url }

// Close gives the connection back.
func (n *Node) Close() error {
	pool.Lock()
	defer pool.Unlock()
	n.conn.users--
	if n.conn.users > 0 {
		return nil
	}
	if n.conn.url != "" {
		delete(pool.byURL, n.conn.url)
	}
	return n.conn.ClientConn.Close()
}

func acquire(o Options) (*shared, error) {
	pool.Lock()
	defer pool.Unlock()
	if s := pool.byURL[o.URL]; s != nil && o.Dial == nil {
		s.users++
		return s, nil
	}
	conn, err := dial(o)
	if err != nil {
		return nil, err
	}
	s := &shared{ClientConn: conn, users: 1}
	if o.Dial == nil {
		s.url = o.URL
		pool.byURL[o.URL] = s
	}
	return s, nil
}

// Every error that a moment later may be gone is retried by gRPC: a publish
// that is repeated is stored once.
const serviceConfig = `{"methodConfig": [{
	"name": [{}],
	"retryPolicy": {
		"maxAttempts": 5,
		"initialBackoff": "0.05s",
		"maxBackoff": "2s",
		"backoffMultiplier": 3,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

func dial(o Options) (*grpc.ClientConn, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || (u.Path != "" && u.Path != "/") {
		return nil, fmt.Errorf("node URL %q: want http://host:port or https://host", o.URL)
	}
	address := u.Host
	var security credentials.TransportCredentials
	switch u.Scheme {
	case "http":
		security = insecure.NewCredentials()
		if u.Port() == "" {
			address = net.JoinHostPort(u.Hostname(), "80")
		}
	case "https":
		security = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
		if u.Port() == "" {
			address = net.JoinHostPort(u.Hostname(), "443")
		}
	default:
		return nil, fmt.Errorf("node URL %q: scheme %q, want http or https", o.URL, u.Scheme)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                16 * time.Second,
			Timeout:             10 * time.Second,
			PermitWithoutStream: true,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 30 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
		grpc.WithIdleTimeout(0),
	}
	target := "dns:///" + address
	if o.Dial != nil {
		options = append(options, grpc.WithContextDialer(o.Dial))
		target = "passthrough:///" + address
	}
	return grpc.NewClient(target, options...)
}

// A view is a client's of a shared connection: it adds the client's headers to every
// call, and lets it be made by around.
type view struct {
	grpc.ClientConnInterface
	headers metadata.MD
	around  func(ctx context.Context, method string, request any, call func(...grpc.CallOption) error) error
}

func (v view) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	ctx = metadata.NewOutgoingContext(ctx, v.headers)
	return v.around(ctx, method, args, func(more ...grpc.CallOption) error {
		return v.ClientConnInterface.Invoke(ctx, method, args, reply, slices.Concat(opts, more)...)
	})
}

func (v view) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (stream grpc.ClientStream, err error) {
	ctx = metadata.NewOutgoingContext(ctx, v.headers)
	err = v.around(ctx, method, nil, func(...grpc.CallOption) (err error) {
		stream, err = v.ClientConnInterface.NewStream(ctx, desc, method, opts...)
		return err
	})
	return stream, err
}

// VerifyContractSignature asks the node, which asks the chain, as
// [identity.ContractVerifier] wants it.
func (n *Node) VerifyContractSignature(ctx context.Context, accountID string, hash [32]byte, signature []byte, block *uint64) (valid bool, asked uint64, err error) {
	response, err := n.Identity.VerifySmartContractWalletSignatures(ctx, &identityapi.VerifySmartContractWalletSignaturesRequest{
		Signatures: []*identityapi.VerifySmartContractWalletSignatureRequestSignature{{
			AccountId:   accountID,
			BlockNumber: block,
			Signature:   signature,
			Hash:        hash[:],
		}},
	})
	if err != nil {
		return false, 0, err
	}
	if len(response.Responses) != 1 {
		return false, 0, fmt.Errorf("the node answered %d times about one signature", len(response.Responses))
	}
	answer := response.Responses[0]
	if answer.Error != nil {
		return false, 0, errors.New("the node could not check a contract signature: " + answer.GetError())
	}
	return answer.IsValid, answer.GetBlockNumber(), nil
}

var _ identity.ContractVerifier = (*Node)(nil)
