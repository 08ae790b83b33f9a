// Package web serves gRPC services to what can't speak gRPC: browsers, with
// gRPC-Web, and everything that speaks HTTP and JSON, with Connect. The services
// are the same objects, with the same limits and errors.
package web

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Config is what a handler works with.
type Config struct {
	// Unmarshal and UnmarshalJSON decode requests, and refuse what would cost too
	// much to decode.
	Unmarshal, UnmarshalJSON func([]byte, proto.Message) error
	// MaxBytes bounds requests and responses; as JSON they may be longer.
	MaxBytes int
	// BodyTimeout bounds how long a request may take to arrive, at a server that
	// [Handler.Attach] was called with.
	BodyTimeout time.Duration
	// ErrStopped is what calls are told that come after [Handler.Drain].
	ErrStopped error
	// Hold, if set, counts the bytes of an answer until release is called. The error
	// is for callers who take too little.
	Hold   func(ctx context.Context, bytes int) (release func(), err error)
	Logger *slog.Logger
}

// A Handler serves all services that were registered, which must be done
// before it is used. It is a [grpc.ServiceRegistrar].
type Handler struct {
	Config
	options  []connect.HandlerOption
	methods  map[string]method // by path
	services map[string]bool
	errors   *connect.ErrorWriter
	// open is read-locked by each call, and locked for good at the end.
	open sync.RWMutex
}

type method struct {
	http.Handler
	// bidi: the request ends when the client wants it to.
	bidi bool
}

// New returns a handler without services.
func New(c Config) *Handler {
	h := &Handler{Config: c, methods: map[string]method{}, services: map[string]bool{}}
	h.options = []connect.HandlerOption{
		connect.WithCodec(codec{name: "proto", marshal: marshal, unmarshal: h.unmarshalProto}),
		connect.WithCodec(codec{name: "json", marshal: marshalJSON, unmarshal: h.unmarshalJSON}),
		connect.WithCodec(codec{name: "json; charset=utf-8", marshal: marshalJSON, unmarshal: h.unmarshalJSON}),
		connect.WithReadMaxBytes(c.maxJSONBytes()),
		// What is encrypted can't be compressed.
		connect.WithCompression("gzip", nil, nil),
		connect.WithRecover(h.panicked),
	}
	h.errors = connect.NewErrorWriter(h.options...)
	return h
}

// maxJSONBytes is how long a request gets at most by base64.
func (c *Config) maxJSONBytes() int { return c.MaxBytes/3*4 + 1<<20 }

// Attach makes a server serve with the handler, and bound how long requests may
// take. The server must not be running.
//
// It is the server that sets the deadline of a request: HTTP/2 does so for streams
// that exist. One that a handler sets comes too late if the stream was reset
// before, and its timer would hold the stream until then.
func (h *Handler) Attach(s *http.Server) {
	s.Handler = h
	s.ConnContext = connContext
	s.ReadTimeout = h.BodyTimeout
}

// connContext notes in the context of a connection where it comes from, as gRPC
// does for its own.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	return peer.NewContext(ctx, &peer.Peer{Addr: conn.RemoteAddr(), LocalAddr: conn.LocalAddr()})
}

// RegisterService adds a service.
func (h *Handler) RegisterService(service *grpc.ServiceDesc, implementation any) {
	h.services[service.ServiceName] = true
	for _, m := range service.Methods {
		path := "/" + service.ServiceName + "/" + m.MethodName
		h.methods[path] = method{Handler: h.unary(path, m.Handler, implementation)}
	}
	for _, s := range service.Streams {
		path := "/" + service.ServiceName + "/" + s.StreamName
		h.methods[path] = method{Handler: h.stream(path, s, implementation), bidi: s.ClientStreams}
	}
}

// ServeHTTP serves one call, or the question whether it is allowed.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !allowOrigins(w, r) {
		return
	}
	if !h.open.TryRLock() {
		h.refuse(w, r, toConnect(h.ErrStopped))
		return
	}
	defer h.open.RUnlock()
	m, found := h.methods[r.URL.Path]
	if !found {
		h.unknown(w, r)
		return
	}
	controller := http.NewResponseController(w)
	ctx := metadata.NewIncomingContext(r.Context(), incoming(r.Header))
	r = r.WithContext(context.WithValue(ctx, controllerKey{}, controller))
	switch {
	case !m.bidi:
		r.Body = &body{r.Body, controller}
	case r.ProtoMajor == 2: // others have no such calls
		// Not all writers have deadlines, those of servers do.
		_ = controller.SetReadDeadline(time.Time{})
	}
	m.ServeHTTP(w, r)
}

// hold lets an answer count until the call is over.
func (h *Handler) hold(ctx context.Context, answer *response) error {
	if h.Hold == nil {
		return nil
	}
	release, err := h.Hold(ctx, proto.Size(answer))
	if err == nil {
		context.AfterFunc(ctx, release) // a request's context ends when it was served
	}
	return err
}

// controllerKey is where contexts of calls have their [http.ResponseController].
type controllerKey struct{}

// body is a request that has to arrive in time. Once it is there, a connection
// may be silent as long as it likes: the answer can be a stream.
type body struct {
	io.ReadCloser
	controller *http.ResponseController
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.controller.SetReadDeadline(time.Time{})
	}
	return n, err
}

// Drain refuses calls from now on and returns when those under way have ended.
// It must be called once.
func (h *Handler) Drain() { h.open.Lock() }

func (h *Handler) unknown(w http.ResponseWriter, r *http.Request) {
	service, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	text := "unknown service " + service
	if h.services[service] {
		text = "unknown method " + name + " for service " + service
	}
	h.refuse(w, r, connect.NewError(connect.CodeUnimplemented, errors.New(text)))
}

// refuse answers in the protocol of the call, and in HTTP's way what is none.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err *connect.Error) {
	switch {
	case r.Method == http.MethodPost && h.errors.IsSupported(r):
		_ = h.errors.Write(w, r, err) // lost only if the caller is gone
	case err.Code() == connect.CodeUnimplemented:
		http.NotFound(w, r)
	default:
		http.Error(w, err.Message(), http.StatusServiceUnavailable)
	}
}

func (h *Handler) panicked(_ context.Context, spec connect.Spec, _ http.Header, value any) error {
	h.Logger.Error("panic while serving", "method", spec.Procedure, "panic", value, "stack", string(debug.Stack()))
	return connect.NewError(connect.CodeInternal, errors.New("internal error"))
}

// toConnect translates an error as gRPC would send it.
func toConnect(err error) *connect.Error {
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	e := connect.NewError(connect.Code(s.Code()), errors.New(s.Message()))
	for _, any := range s.Proto().GetDetails() {
		if detail, err := connect.NewErrorDetail(any); err == nil {
			e.AddDetail(detail)
		}
	}
	return e
}

// tooLarge is worded as gRPC's.
func tooLarge(what string, size, limit int) error {
	return status.Errorf(codes.ResourceExhausted, "grpc: %s message larger than max (%d vs. %d)", what, size, limit)
}
