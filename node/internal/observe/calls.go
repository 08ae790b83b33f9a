// Package observe measures what a node does: calls, by method, and everything
// below them. Nothing that it tells names a caller, a topic or a record.
package observe

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Transports by which calls come.
const (
	GRPC = "grpc"
	Web  = "web"
)

// seconds are the buckets of durations, from a tenth of a millisecond to a minute.
var seconds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// Calls measures the calls of services. A nil Calls measures nothing.
type Calls struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	open     *prometheus.GaugeVec
	messages *prometheus.CounterVec
	tracer   trace.Tracer
}

// NewCalls counts in the registry if there is one, and traces if there is a tracer.
func NewCalls(registry *prometheus.Registry, tracer trace.Tracer) *Calls {
	c := &Calls{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "xmtp_calls_total",
			Help: "Calls that have ended, streams included, by the status they ended with.",
		}, []string{"method", "transport", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "xmtp_call_seconds",
			Help:    "How long calls with one answer took.",
			Buckets: seconds,
		}, []string{"method"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "xmtp_calls_open",
			Help: "Calls under way; those of streams are subscribers.",
		}, []string{"method", "transport"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "xmtp_stream_messages_total",
			Help: "Messages sent on streams.",
		}, []string{"method"}),
		tracer: tracer,
	}
	if registry != nil {
		registry.MustRegister(c.total, c.duration, c.open, c.messages)
	}
	return c
}

// Service returns the description of a service whose calls are measured.
func (c *Calls) Service(service *grpc.ServiceDesc, transport string) *grpc.ServiceDesc {
	if c == nil {
		return service
	}
	measured := *service
	measured.Methods = make([]grpc.MethodDesc, len(service.Methods))
	for i, m := range service.Methods {
		measured.Methods[i] = c.method(service.ServiceName, m, transport)
	}
	measured.Streams = make([]grpc.StreamDesc, len(service.Streams))
	for i, s := range service.Streams {
		measured.Streams[i] = c.stream(service.ServiceName, s, transport)
	}
	return &measured
}

func (c *Calls) method(service string, m grpc.MethodDesc, transport string) grpc.MethodDesc {
	name := service + "/" + m.MethodName
	duration, open := c.duration.WithLabelValues(name), c.open.WithLabelValues(name, transport)
	handler := m.Handler
	m.Handler = func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		begin := time.Now()
		open.Inc()
		ctx, span := c.begin(ctx, service, m.MethodName, transport)
		result, err := handler(srv, ctx, decode, interceptor)
		duration.Observe(time.Since(begin).Seconds())
		open.Dec()
		c.end(span, name, transport, err)
		return result, err
	}
	return m
}

func (c *Calls) stream(service string, s grpc.StreamDesc, transport string) grpc.StreamDesc {
	name := service + "/" + s.StreamName
	open, messages := c.open.WithLabelValues(name, transport), c.messages.WithLabelValues(name)
	handler := s.Handler
	s.Handler = func(srv any, stream grpc.ServerStream) error {
		open.Inc()
		ctx, span := c.begin(stream.Context(), service, s.StreamName, transport)
		counted := &countedStream{ServerStream: stream, ctx: ctx, messages: messages}
		err := handler(srv, counted)
		open.Dec()
		span.SetAttributes(attribute.Int64("messages", counted.sent.Load()))
		c.end(span, name, transport, err)
		return err
	}
	return s
}

type countedStream struct {
	grpc.ServerStream
	ctx      context.Context
	messages prometheus.Counter
	sent     atomic.Int64
}

func (s *countedStream) Context() context.Context { return s.ctx }

func (s *countedStream) SendMsg(message any) error {
	err := s.ServerStream.SendMsg(message)
	if err == nil {
		s.messages.Inc()
		s.sent.Add(1)
	}
	return err
}

// begin starts a span of its own: strangers don't decide what a node traces.
func (c *Calls) begin(ctx context.Context, service, method, transport string) (context.Context, trace.Span) {
	if c.tracer == nil {
		return ctx, trace.SpanFromContext(ctx)
	}
	return c.tracer.Start(ctx, service+"/"+method, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("rpc.system", "grpc"),
		attribute.String("rpc.service", service),
		attribute.String("rpc.method", method),
		attribute.String("network.transport", transport),
	))
}

// end doesn't tell the text of an error, which can name callers and inboxes.
func (c *Calls) end(span trace.Span, name, transport string, err error) {
	code := Code(err)
	c.total.WithLabelValues(name, transport, code.String()).Inc()
	span.SetAttributes(attribute.Int64("rpc.grpc.status_code", int64(code)))
	switch code {
	case codes.Internal, codes.Unavailable, codes.Unknown, codes.DataLoss, codes.Unimplemented:
		span.SetStatus(otelcodes.Error, code.String())
	}
	if c.tracer != nil {
		span.End()
	}
}

// Code is the status that a caller gets for an error.
func Code(err error) codes.Code {
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	return s.Code()
}
