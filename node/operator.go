package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/go-xmtp/go-xmtp/node/internal/observe"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// tracerName is what spans say that they are from.
const tracerName = "github.com/go-xmtp/go-xmtp/node"

// operator serves whoever runs the node: metrics, and whether it is well. A nil
// operator serves nothing.
type operator struct {
	registry *prometheus.Registry
	http     *http.Server
	port     net.Listener
	ended    sync.WaitGroup
}

// startOperator serves at once, so that a slow start can be watched.
func (n *Node) startOperator(port net.Listener) *operator {
	o := &operator{registry: observe.NewRegistry(), port: port}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := n.unready(); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	o.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: firstBytesTimeout,
		ReadTimeout:       firstBytesTimeout,
		WriteTimeout:      time.Minute,
		// It names addresses.
		ErrorLog: slog.NewLogLogger(n.options.Logger.Handler(), slog.LevelDebug),
	}
	o.ended.Go(func() {
		if err := o.http.Serve(port); !errors.Is(err, http.ErrServerClosed) {
			n.options.Logger.Error("metrics are not served any more", "error", err)
		}
	})
	return o
}

func (o *operator) stop() {
	if o == nil {
		return
	}
	_ = o.http.Close() // what can fail is closed anyway
	o.ended.Wait()
}

// unready tells why clients are not, or not fully, served.
func (n *Node) unready() error {
	switch {
	case !n.started.Load():
		return errors.New("it is starting")
	case n.running.Err() != nil:
		return errors.New("it is stopping")
	}
	if err := n.order.Err(); err != nil {
		return fmt.Errorf("it is stopping: %w", err)
	}
	return n.index.HasRoom()
}

// observe makes what measures calls and batches, as far as somebody looks.
func (n *Node) observe() (*observe.Calls, *observe.Records) {
	var tracer trace.Tracer
	if n.options.TracerProvider != nil {
		tracer = n.options.TracerProvider.Tracer(tracerName)
	}
	if n.operator == nil {
		if tracer == nil {
			return nil, nil
		}
		return observe.NewCalls(nil, tracer), nil
	}
	return observe.NewCalls(n.operator.registry, tracer), observe.NewRecords(n.operator.registry)
}

// measure adds what is asked for each time that somebody looks. All of it is there.
func (n *Node) measure(topics func() int) {
	if n.operator == nil {
		return
	}
	n.operator.registry.MustRegister(observe.NewCollector(observe.Source{
		Store:    n.index.Metrics,
		Room:     n.index.Room,
		Writable: n.unready,
		Newest:   n.index.Durable,
		Waiting:  n.order.Waiting,
		Topics:   topics,
		Refused:  n.limiter.Refused,
		Removed: func() (messages, welcomes, bytes uint64) {
			removed := n.pruner.Removed()
			return removed.Messages, removed.Welcomes, removed.Bytes
		},
	}))
}

// tracedOrder has a span for the time that records take to become durable.
type tracedOrder struct {
	*order.Embedded
	tracer trace.Tracer
}

func (o tracedOrder) Append(ctx context.Context, records ...*order.Record) ([]order.Outcome, error) {
	ctx, span := o.tracer.Start(ctx, "order")
	defer span.End()
	return o.Embedded.Append(ctx, records...)
}

// MetricsAddr returns the address that metrics are served on, as host:port; empty
// if they are not.
func (n *Node) MetricsAddr() string {
	if n.operator == nil {
		return ""
	}
	return n.operator.port.Addr().String()
}
