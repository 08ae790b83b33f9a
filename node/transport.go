package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/go-xmtp/go-xmtp/node/internal/api"
	"github.com/go-xmtp/go-xmtp/node/internal/descriptors"
	"github.com/go-xmtp/go-xmtp/node/internal/front"
	"github.com/go-xmtp/go-xmtp/node/internal/observe"
	"github.com/go-xmtp/go-xmtp/node/internal/web"
)

// Bounds of connections, alike for gRPC and HTTP.
const (
	// firstBytesTimeout bounds how long a connection may take to say what it is,
	// and then how long the headers of its requests may take.
	firstBytesTimeout = 10 * time.Second
	// bodyTimeout is how long official clients wait for an answer.
	bodyTimeout = 2 * time.Minute
	// idleTimeout is longer than browsers keep idle connections, so that it is
	// they who close them.
	idleTimeout = 10 * time.Minute
	// A connection on which nothing happens for so long is asked whether anybody is there.
	pingAfter   = 5 * time.Minute
	pingTimeout = 20 * time.Second
	// maxStreams is how many calls a connection has at once. A client has two
	// streams, but a server may share one connection for very many users.
	maxStreams = 10_000
	// maxWebStreams is for browsers, which share a connection between few tabs.
	maxWebStreams  = 250
	maxHeaderBytes = 64 << 10
	// streamWorkers is how many goroutines serve one call after the other: a new one
	// would have to make its stack bigger each time. Calls beyond that get their own.
	streamWorkers = 256
	// windowBytes is how much of what is sent to the node may be under way, on a call
	// and on a connection. Where it isn't fixed, gRPC measures what the network can
	// take with a ping for nearly every call.
	windowBytes = 1 << 20
)

// A ListenError is about an address that could not be listened on.
type ListenError struct {
	Option string // the name of the field of [Options]
	Addr   string // its value
	Err    error
}

func (e *ListenError) Error() string { return "listening on " + e.Addr + ": " + e.Err.Error() }

// Unwrap returns the cause, which is [ErrAddressInUse] if something else listens there.
func (e *ListenError) Unwrap() error { return e.Err }

// windowsAddressInUse is WSAEADDRINUSE, which is not what syscall has there.
const windowsAddressInUse = syscall.Errno(10048)

// listen opens the port of an option. Its connections leave the store the
// descriptors that it needs.
func listen(ctx context.Context, logger *slog.Logger, option, addr string) (net.Listener, error) {
	// Of dead peers pings tell, which gRPC and HTTP/2 send. TCP's own probes are sent once:
	// with the timeout that gRPC gives sockets (pingTimeout), one that gets lost would end a
	// connection that only had nothing to say.
	config := net.ListenConfig{KeepAlive: -1}
	port, err := config.Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) || (runtime.GOOS == "windows" && errors.Is(err, windowsAddressInUse)) {
		err = ErrAddressInUse
	}
	if err != nil {
		return nil, fmt.Errorf("node: %w", &ListenError{option, addr, err})
	}
	return descriptors.Leave(port, sync.OnceFunc(func() {
		logger.Warn("connections are refused: the limit of open files leaves no more to them; raise it (LimitNOFILE, ulimit -n)")
	})), nil
}

// uncompressed refuses requests that are compressed, which no client of XMTP
// sends: what is encrypted gets no smaller, so that a small request which becomes
// a big one is nobody's who means well. The exporter of traces brings gzip along.
type uncompressed struct{}

func (uncompressed) Do(io.Reader) ([]byte, error) {
	return nil, errors.New("compressed requests are not taken")
}

func (uncompressed) Type() string { return "gzip" }

// transport is everything between the ports and the services.
type transport struct {
	ports  []net.Listener
	certs  certificates
	front  *front.Front
	grpc   *grpc.Server
	web    *web.Handler
	http   *http.Server
	calls  *observe.Calls
	around interceptors
	failed chan error // receives the first failure
	ended  sync.WaitGroup
}

// newTransport takes over the ports.
func newTransport(o Options, certs certificates, limiter *api.Limiter, ports ...net.Listener) *transport {
	t := &transport{
		ports:  ports,
		certs:  certs,
		around: interceptors{o.UnaryInterceptor, o.StreamInterceptor},
		front:  front.New(front.Config{Timeout: firstBytesTimeout, TLS: certs.config}),
		grpc: grpc.NewServer(
			grpc.MaxRecvMsgSize(api.MaxMessageBytes),
			grpc.MaxSendMsgSize(api.MaxMessageBytes),
			grpc.ForceServerCodecV2(api.NewCodec()),
			//lint:ignore SA1019 there is no other way to refuse what is compressed
			grpc.RPCDecompressor(uncompressed{}),
			// Clients ping every 16 s, with or without calls under way, and take a
			// refusal as the end of the connection.
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
				MinTime:             2 * time.Second,
				PermitWithoutStream: true,
			}),
			grpc.KeepaliveParams(keepalive.ServerParameters{
				MaxConnectionIdle: idleTimeout,
				Time:              pingAfter,
				Timeout:           pingTimeout,
			}),
			grpc.NumStreamWorkers(streamWorkers),
			grpc.StaticStreamWindowSize(windowBytes),
			grpc.StaticConnWindowSize(windowBytes),
			grpc.UnaryInterceptor(limiter.HoldAnswers),
			grpc.ConnectionTimeout(firstBytesTimeout),
			grpc.MaxConcurrentStreams(maxStreams),
			grpc.MaxHeaderListSize(maxHeaderBytes),
			// So that nobody reads the store when it is closed.
			grpc.WaitForHandlers(true),
		),
		web: web.New(web.Config{
			Unmarshal:     api.Unmarshal,
			UnmarshalJSON: api.UnmarshalJSON,
			MaxBytes:      api.MaxMessageBytes,
			BodyTimeout:   bodyTimeout,
			ErrStopped:    api.ErrShuttingDown,
			Hold:          limiter.Hold,
			Logger:        o.Logger,
		}),
		failed: make(chan error, 1),
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	t.http = &http.Server{
		Protocols:         &protocols,
		ReadHeaderTimeout: firstBytesTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxWebStreams,
			SendPingTimeout:      pingAfter,
			PingTimeout:          pingTimeout,
		},
		// It names addresses.
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	t.web.Attach(t.http)
	return t
}

// GetServiceInfo is what reflection tells.
func (t *transport) GetServiceInfo() map[string]grpc.ServiceInfo { return t.grpc.GetServiceInfo() }

// RegisterService adds a service for all clients; see [grpc.ServiceRegistrar].
func (t *transport) RegisterService(service *grpc.ServiceDesc, implementation any) {
	service = t.around.service(service)
	t.grpc.RegisterService(t.calls.Service(service, observe.GRPC), implementation)
	t.web.RegisterService(t.calls.Service(service, observe.Web), implementation)
}

// serve takes connections until stop, or until it sends why it can't.
func (t *transport) serve() {
	fail := func(err error) {
		if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			select {
			case t.failed <- fmt.Errorf("serving: %w", err):
			default:
			}
		}
	}
	t.ended.Go(func() { fail(t.grpc.Serve(t.front.GRPC())) })
	t.ended.Go(func() { fail(t.http.Serve(t.front.Web())) })
	for _, port := range t.ports {
		t.ended.Go(func() { fail(t.front.Serve(port)) })
	}
	t.ended.Go(t.certs.obtain)
}

// stop takes no new calls, lets those under way finish within the grace, and
// returns when nothing is served any more. It must be called once.
func (t *transport) stop(grace time.Duration) {
	t.front.Close()
	if grace > 0 {
		hard := time.AfterFunc(grace, t.halt)
		var finished sync.WaitGroup
		finished.Go(t.grpc.GracefulStop)
		finished.Go(func() {
			if t.http.Shutdown(context.Background()) != nil {
				t.halt()
			}
		})
		finished.Wait()
		hard.Stop()
	}
	t.halt()
	t.web.Drain()
	t.ended.Wait()
}

// halt ends calls under way. It may be called at any time.
func (t *transport) halt() {
	t.grpc.Stop()
	_ = t.http.Close() // the listener was closed, and what else can fail is closed anyway
}
