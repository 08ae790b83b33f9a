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
	links    *links
	headers  metadata.MD
	around   func(ctx context.Context, method string, request any, call func(...grpc.CallOption) error) error
	url      string
}

// maxStreams is how many streams a connection carries: every server of HTTP/2 is to
// take that many (RFC 9113 §5.1.2), and most take some more, so that there is room for
// calls. What is beyond waits without a word until another one ends.
const maxStreams = 100

// links are the connections to one node. There is one, and more only for more streams
// than one can carry.
type links struct {
	options Options
	users   int
	list    []*link // the first one is for calls, too
}

// pool guards all links; those that are shared are in it.
var pool = struct {
	sync.Mutex
	byURL map[string]*links
}{byURL: map[string]*links{}}

// Open prepares a connection. It does not wait for the node to answer.
func Open(o Options) (*Node, error) {
	s, l, err := acquire(o)
	if err != nil {
		return nil, err
	}
	// Always both, also if empty: that is what nodes are used to.
	headers := metadata.Pairs("x-app-version", o.AppVersion, "x-libxmtp-version", o.ProtocolVersion)
	n := &Node{links: s, headers: headers, around: o.Around, url: o.URL}
	if n.around == nil {
		n.around = func(_ context.Context, _ string, _ any, call func(...grpc.CallOption) error) error { return call() }
	}
	n.MLS, n.Identity = mlsapi.NewMlsApiClient(view{l, n}), identityapi.NewIdentityApiClient(view{l, n})
	return n, nil
}

// URL is that of the node.
func (n *Node) URL() string { return n.url }

// Close gives the connection back.
func (n *Node) Close() error {
	pool.Lock()
	defer pool.Unlock()
	n.links.users--
	if n.links.users > 0 {
		return nil
	}
	if n.links.options.Dial == nil {
		delete(pool.byURL, n.url)
	}
	return n.links.close()
}

func (s *links) close() error {
	var errs []error
	for _, l := range s.list {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// Streams returns how to open up to count streams, which wait for the connection as long as
// it takes, and what to call when they are done with. In the meantime the connection is
// watched.
func (n *Node) Streams(count int) (mlsapi.MlsApiClient, func(), error) {
	pool.Lock()
	defer pool.Unlock()
	i := slices.IndexFunc(n.links.list, func(l *link) bool { return l.streams+count <= maxStreams })
	if i < 0 {
		l, err := newLink(n.links.options)
		if err != nil {
			return nil, nil, err
		}
		n.links.list = append(n.links.list, l)
		i = len(n.links.list) - 1
	}
	l := n.links.list[i]
	l.streams += count
	l.begin()
	return mlsapi.NewMlsApiClient(view{l, n}), func() { n.links.release(l, count) }, nil
}

// release gives streams back, and closes the connection if it was for them alone.
func (s *links) release(l *link, count int) {
	l.end()
	pool.Lock()
	defer pool.Unlock()
	l.streams -= count
	if i := slices.Index(s.list, l); i > 0 && l.streams == 0 {
		s.list = slices.Delete(s.list, i, i+1)
		_ = l.close() // nobody uses it
	}
}

// acquire returns the connections to a node, and that for calls.
func acquire(o Options) (*links, *link, error) {
	pool.Lock()
	defer pool.Unlock()
	if s := pool.byURL[o.URL]; s != nil && o.Dial == nil {
		s.users++
		return s, s.list[0], nil
	}
	l, err := newLink(o)
	if err != nil {
		return nil, nil, err
	}
	s := &links{options: Options{URL: o.URL, Dial: o.Dial}, users: 1, list: []*link{l}}
	if o.Dial == nil {
		pool.byURL[o.URL] = s
	}
	return s, l, nil
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

// dial prepares a connection that is opened with open.
func dial(o Options, open Dialer) (*grpc.ClientConn, error) {
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
		// While anybody waits for the connection, link tries sooner.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 5 * time.Second, Multiplier: 2, Jitter: 0.2, MaxDelay: backoffMax},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithContextDialer(open),
	}
	// The name is looked up whenever a connection is opened: gRPC would do so rarely.
	return grpc.NewClient("passthrough:///"+address, options...)
}

// A view is a client's of a shared connection: it adds the client's headers to every
// call, and lets it be made by around. Streams wait for the connection as long as it
// takes.
type view struct {
	*link
	node *Node
}

func (v view) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	ctx = metadata.NewOutgoingContext(ctx, v.node.headers)
	return v.node.around(ctx, method, args, func(more ...grpc.CallOption) error {
		v.begin()
		defer v.end()
		return v.link.Invoke(ctx, method, args, reply, slices.Concat(opts, more)...)
	})
}

func (v view) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (stream grpc.ClientStream, err error) {
	ctx = metadata.NewOutgoingContext(ctx, v.node.headers)
	opts = append(opts, grpc.WaitForReady(true))
	err = v.node.around(ctx, method, nil, func(...grpc.CallOption) (err error) {
		stream, err = v.link.NewStream(ctx, desc, method, opts...)
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
