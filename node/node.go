// Package node is an XMTP node: one process that official clients use
// unmodified. It keeps key packages, welcomes, encrypted group messages and the
// public log of inboxes, in an order that never changes, and delivers them.
//
// A node never sees content, names or member lists. It does see group ids,
// epochs, whether a message is a commit, which installation a welcome is for,
// and all of the identity log.
package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node/internal/api"
	"github.com/go-xmtp/go-xmtp/node/internal/hub"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/node/internal/retention"
)

// What can keep a node from starting; compare with [errors.Is].
var (
	// ErrAddressInUse: something else listens on the address.
	ErrAddressInUse = errors.New("address already in use")
	// ErrForeignDirectory: the data directory holds something that is not a node's.
	ErrForeignDirectory = index.ErrForeign
	// ErrNewerFormat: a newer version of this program wrote the data directory.
	ErrNewerFormat = index.ErrNewer
	// ErrInUse: another process has the data directory open.
	ErrInUse = index.ErrInUse
	// ErrDamaged: the data directory can't be read.
	ErrDamaged = index.ErrDamaged
)

// Where official clients look for a local node.
const (
	// DefaultListen is where those that are not in a browser look.
	DefaultListen = "127.0.0.1:5556"
	// DefaultWebListen is where those in a browser look.
	DefaultWebListen = "127.0.0.1:5557"
)

// Options configure a node.
type Options struct {
	// Listen is the address for all clients: gRPC over cleartext HTTP/2, and
	// gRPC-Web and Connect over HTTP/1.1; [DefaultListen] if empty. Port 0 takes a
	// free one, see [Node.Addr].
	Listen string
	// Listener is listened on in place of Listen: a port that was opened already, or
	// something within the process. The node closes it.
	Listener net.Listener
	// WebListen is a second address, which serves the same. There is none if it is
	// empty; browsers look for a local node at [DefaultWebListen]. See [Node.WebAddr].
	WebListen string
	// HistoryListen is the address of the history service, over HTTP/1.1: with it a
	// new device of an inbox gets messages and consent from before it existed. There
	// is none if it is empty; clients look for a local one at
	// [DefaultHistoryListen]. See [Node.HistoryAddr].
	HistoryListen string
	// History is what the history service keeps.
	History History
	// MetricsListen is an address for whoever runs the node, in cleartext: /metrics
	// (Prometheus), /healthz and /readyz. There is none if it is empty. It tells
	// nothing of anybody, but how much is going on: it is not for strangers.
	MetricsListen string
	// TracerProvider takes a span of OpenTelemetry for each call, without payloads,
	// topics or addresses. There is none if it is nil.
	TracerProvider trace.TracerProvider
	// TLS is for all addresses but MetricsListen. The zero value is cleartext.
	TLS TLS
	// Reflection tells anybody which services there are, by gRPC's reflection.
	Reflection bool
	// Data is the directory that everything is kept in. It is made if it isn't there.
	Data string
	// Ephemeral keeps everything in memory instead. Data must be empty then.
	Ephemeral bool
	// Memory is where an ephemeral node keeps everything, so that another one can be
	// started with it when this one has ended; a new one if nil.
	Memory *Memory
	// Reserve is the free disk space, in bytes, below which writes are refused
	// until there is room again; 256 MiB if zero. It has no meaning in memory.
	Reserve uint64
	// Limits are what callers and inboxes may do.
	Limits Limits
	// Retention is how long messages are kept.
	Retention Retention
	// ReadOnly refuses all writes with the text by which clients know that
	// publishing has been switched off.
	ReadOnly bool
	// NoSubscribe switches the bidirectional Subscribe off, as if it were not there.
	// Clients that would use it fall back to streams with fixed topics.
	NoSubscribe bool
	// ShutdownGrace bounds how long [Node.Shutdown] waits for calls under way;
	// 5 s if zero.
	ShutdownGrace time.Duration
	// UnaryInterceptor is around each call with one answer, behind the limits. It may
	// call the handler as often as it likes, or not at all. For tests of what happens
	// if the network loses something, and for measuring.
	UnaryInterceptor grpc.UnaryServerInterceptor
	// StreamInterceptor is the same for streams.
	StreamInterceptor grpc.StreamServerInterceptor
	// ContractVerifier asks chains about smart-contract wallets. Without one,
	// their signatures are refused.
	ContractVerifier identity.ContractVerifier
	// Logger takes what happens; nil is silent. No payloads, topics or addresses
	// are logged at level info or above.
	Logger *slog.Logger
	// Now is the clock; [time.Now] if nil.
	Now func() time.Time

	fs vfs.FS // tests: the file system that Data is on
}

const (
	defaultReserve       = 256 << 20
	defaultShutdownGrace = 5 * time.Second
)

func (o *Options) complete() error {
	switch {
	case o.Listener != nil && o.Listen != "":
		return errors.New("node: both an address and a listener were given: choose one")
	case o.Listener == nil && o.Listen == "":
		o.Listen = DefaultListen
	}
	switch {
	case o.Memory != nil && !o.Ephemeral:
		return errors.New("node: memory was given for a node that is not ephemeral")
	case o.Ephemeral && o.Data != "":
		return errors.New("node: both a data directory and ephemeral were asked for: choose one")
	case !o.Ephemeral && o.Data == "":
		return errors.New("node: no data directory: set Data, or Ephemeral to keep nothing")
	case o.Ephemeral:
		if o.Memory == nil {
			o.Memory = new(Memory)
		}
		o.fs, o.Data, o.Reserve = o.Memory.fs(), "data", 0
	case o.fs == nil:
		// The lock knows a directory by its name.
		absolute, err := filepath.Abs(o.Data)
		if err != nil {
			return fmt.Errorf("node: %w", err)
		}
		o.fs, o.Data = vfs.Default, absolute
	}
	if o.Reserve == 0 && !o.Ephemeral {
		o.Reserve = defaultReserve
	}
	if err := o.History.complete(o.Ephemeral); err != nil {
		return err
	}
	if o.ShutdownGrace == 0 {
		o.ShutdownGrace = defaultShutdownGrace
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return errors.Join(o.Limits.check(), o.Retention.complete())
}

// Node is a running node. Its methods are safe for use by several goroutines.
type Node struct {
	options   Options
	addr      string // of Listen
	webAddr   string // of WebListen
	history   *historyServer
	transport *transport
	index     *index.Index
	order     *order.Embedded
	limiter   *api.Limiter
	pruner    *retention.Pruner
	health    *health.Server
	operator  *operator
	control   *control
	started   atomic.Bool

	running    context.Context // its cause is what streams end with
	endStreams context.CancelCauseFunc

	stopping sync.Once
	done     chan struct{}
	failure  chan error // holds the first failure of the store
	err      error      // readable when done is closed
}

// Start opens the store and serves until [Node.Shutdown], [Node.Close] or a
// failure of the store. It changes nothing if it fails. The context bounds
// only the start.
func Start(ctx context.Context, o Options) (*Node, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	n := &Node{
		options: o,
		done:    make(chan struct{}),
		failure: make(chan error, 1),
	}
	n.running, n.endStreams = context.WithCancelCause(context.Background())
	var ports []net.Listener
	abandon := func(err error) error {
		n.endStreams(nil)
		n.operator.stop()
		for _, port := range ports {
			port.Close()
		}
		return err
	}
	certs, err := o.TLS.certificates(n.running, o.Logger)
	if err != nil {
		return nil, abandon(err)
	}
	port := o.Listener
	if port == nil {
		if port, err = listen(ctx, o.Logger, "Listen", o.Listen); err != nil {
			return nil, abandon(err)
		}
	}
	ports = append(ports, port)
	n.addr = port.Addr().String()
	if o.WebListen != "" {
		port, err := listen(ctx, o.Logger, "WebListen", o.WebListen)
		if err != nil {
			return nil, abandon(err)
		}
		ports = append(ports, port)
		n.webAddr = port.Addr().String()
	}
	var historyPort net.Listener
	if o.HistoryListen != "" {
		historyPort, err = listen(ctx, o.Logger, "HistoryListen", o.HistoryListen)
		if err != nil {
			return nil, abandon(err)
		}
		if certs.config != nil {
			historyPort = tls.NewListener(historyPort, historyTLS(certs.config))
		}
		ports = append(ports, historyPort)
	}
	if o.MetricsListen != "" {
		port, err := listen(ctx, o.Logger, "MetricsListen", o.MetricsListen)
		if err != nil {
			return nil, abandon(err)
		}
		n.operator = n.startOperator(port)
	}
	n.index, err = index.Open(index.Options{
		FS:        o.fs,
		Dir:       o.Data,
		Logger:    o.Logger,
		Reserve:   o.Reserve,
		Ephemeral: o.Ephemeral,
		OnFailure: n.fail,
		Now:       o.Now,
	})
	if err != nil {
		return nil, abandon(fmt.Errorf("node: data directory %s: %w", o.Data, err))
	}
	if historyPort != nil {
		n.history, err = n.openHistory(historyPort)
		if err != nil {
			return nil, abandon(errors.Join(err, n.index.Close()))
		}
		ports = ports[:len(ports)-1]
	}
	n.limiter = api.NewLimiter(o.Now, o.Logger, api.Limits(o.Limits))
	n.transport = newTransport(o, certs, n.limiter, ports...)
	n.start()
	return n, nil
}

// start sets everything going that has to be ended again.
func (n *Node) start() {
	h := hub.New()
	calls, records := n.observe()
	n.order = order.NewEmbedded(n.index, n.options.Now, func(batch []*order.Record) {
		h.Publish(batch)
		records.Count(batch)
	})
	config := api.Config{
		Order:       n.order,
		Index:       n.index,
		Hub:         h,
		Now:         n.options.Now,
		Logger:      n.options.Logger,
		Verifier:    n.options.ContractVerifier,
		ReadOnly:    n.options.ReadOnly,
		NoSubscribe: n.options.NoSubscribe,
		Limiter:     n.limiter,
		Running:     n.running,
	}
	if n.options.TracerProvider != nil {
		config.Order = tracedOrder{n.order, n.options.TracerProvider.Tracer(tracerName)}
	}
	n.transport.calls = calls
	api.Register(n.transport, config)
	n.health = health.NewServer()
	healthgrpc.RegisterHealthServer(n.transport, watched{n.health, n.running})
	if n.options.Reflection {
		reflection.Register(n.transport)
	}
	n.transport.serve()
	if n.history != nil {
		n.history.serve()
	}
	n.pruner = n.startPruner()
	n.control = n.startControl()
	n.measure(h.Topics)
	n.started.Store(true)
	go n.watch()
	n.options.Logger.Info("node started", "listen", n.Addr(), "web-listen", n.WebAddr(), "history-listen", n.HistoryAddr(), "metrics-listen", n.MetricsAddr(), "tls", n.transport.certs.config != nil, "data", n.options.Data, "ephemeral", n.options.Ephemeral)
}

// watched is the health service, whose streams end with the node, as all do.
type watched struct {
	*health.Server
	running context.Context
}

func (w watched) Watch(req *healthgrpc.HealthCheckRequest, stream grpc.ServerStreamingServer[healthgrpc.HealthCheckResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(w.running, cancel)()
	err := w.Server.Watch(req, bounded{stream, ctx})
	if w.running.Err() != nil {
		return context.Cause(w.running)
	}
	return err
}

// bounded is a stream with a context that ends earlier.
type bounded struct {
	grpc.ServerStreamingServer[healthgrpc.HealthCheckResponse]
	ctx context.Context
}

func (b bounded) Context() context.Context { return b.ctx }

// fail is called by the store when it can't go on.
func (n *Node) fail(err error) {
	select {
	case n.failure <- err:
	default:
	}
}

// watch ends the node when its store or a port fails.
func (n *Node) watch() {
	var historyFailed chan error
	if n.history != nil {
		historyFailed = n.history.failed
	}
	select {
	case <-n.done:
	case err := <-n.failure:
		// Who waits for the store may wait for ever.
		n.order.Fail(err)
		n.stop(err, 0)
	case <-n.order.Done():
		if err := n.order.Err(); err != nil {
			n.stop(err, 0)
		}
	case err := <-n.transport.failed:
		n.stop(err, 0)
	case err := <-historyFailed:
		n.stop(err, 0)
	}
}

// Addr returns the address that the node listens on, as host:port.
func (n *Node) Addr() string { return n.addr }

// WebAddr returns the address that the node listens on for browsers besides
// [Node.Addr], as host:port; empty if there is none.
func (n *Node) WebAddr() string { return n.webAddr }

// HistoryAddr returns the address that the history service listens on, as
// host:port; empty if there is none.
func (n *Node) HistoryAddr() string {
	if n.history == nil {
		return ""
	}
	return n.history.port.Addr().String()
}

// Done is closed when the node has ended.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err returns why the node has ended: nil after [Node.Shutdown] or
// [Node.Close], or while it is running.
func (n *Node) Err() error {
	select {
	case <-n.done:
		return n.err
	default:
		return nil
	}
}

// Shutdown ends streams with UNAVAILABLE, lets other calls finish until ctx
// ends or the grace is over, and closes the store. It returns why the node
// has ended if that was a failure.
func (n *Node) Shutdown(ctx context.Context) error {
	grace := n.options.ShutdownGrace
	if deadline, ok := ctx.Deadline(); ok {
		grace = min(grace, time.Until(deadline))
	}
	if ctx.Err() != nil {
		grace = 0
	}
	defer context.AfterFunc(ctx, n.halt)()
	n.stop(nil, grace)
	return n.err
}

// Close ends the node without waiting for calls under way. What was
// acknowledged is stored.
func (n *Node) Close() error {
	n.stop(nil, 0)
	return n.err
}

// halt ends calls and transfers under way.
func (n *Node) halt() {
	n.transport.halt()
	if n.history != nil {
		n.history.halt()
	}
}

// stop ends the node once and returns when it has ended.
func (n *Node) stop(cause error, grace time.Duration) {
	n.stopping.Do(func() {
		n.health.Shutdown()
		n.endStreams(api.ErrShuttingDown)
		n.pruner.Stop()
		n.stopServing(grace)
		n.control.stop()
		failure := n.order.Close()
		if cause == nil {
			cause = failure
		}
		if cause == nil {
			<-n.pruner.Done()
			cause = n.index.Close()
		}
		if cause != nil {
			// A store that has failed is left as it is: closing would write to it.
			n.err = fmt.Errorf("node: %w", cause)
			n.options.Logger.Error("node ended", "error", cause)
		} else {
			n.options.Logger.Info("node ended")
		}
		n.operator.stop()
		close(n.done)
	})
	<-n.done
}

// stopServing ends what serves on ports, all at the same time.
func (n *Node) stopServing(grace time.Duration) {
	var ended sync.WaitGroup
	if n.history != nil {
		ended.Go(func() {
			if err := n.history.stop(grace); err != nil {
				n.options.Logger.Warn("ending the history service", "error", err)
			}
		})
	}
	n.transport.stop(grace)
	ended.Wait()
}
