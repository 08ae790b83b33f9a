package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// unary makes a handler of a method with one request and one response.
func (h *Handler) unary(path string, serve grpc.MethodHandler, implementation any) http.Handler {
	return connect.NewUnaryHandlerSimple(path, func(ctx context.Context, req *request) (*response, error) {
		if info, ok := connect.CallInfoForHandlerContext(ctx); ok {
			ctx = grpc.NewContextWithServerTransportStream(ctx, &headers{path, info.ResponseHeader(), info.ResponseTrailer()})
		}
		message, err := serve(implementation, ctx, req.into, nil)
		if err != nil {
			return nil, toConnect(err)
		}
		res, err := h.newResponse(message)
		if err == nil {
			err = h.hold(ctx, res)
		}
		if err != nil {
			return nil, toConnect(err)
		}
		return res, nil
	}, h.options...)
}

// stream makes a handler of a method with many responses.
func (h *Handler) stream(path string, desc grpc.StreamDesc, implementation any) http.Handler {
	if !desc.ClientStreams {
		return connect.NewServerStreamHandlerSimple(path, func(ctx context.Context, req *request, s *connect.ServerStream[response]) error {
			pending := req
			return h.run(desc, implementation, &stream{h: h, ctx: ctx, path: path, conn: s.Conn(), receive: func() (*request, error) {
				if pending == nil {
					return nil, io.EOF
				}
				next := pending
				pending = nil
				return next, nil
			}})
		}, h.options...)
	}
	return connect.NewBidiStreamHandler(path, func(ctx context.Context, s *connect.BidiStream[request, response]) error {
		return h.run(desc, implementation, &stream{h: h, ctx: ctx, path: path, conn: s.Conn(), receive: s.Receive})
	}, h.options...)
}

// run serves a stream. A service may leave a goroutine behind that sends to a
// client that doesn't read; it must not touch the connection after the call.
func (h *Handler) run(desc grpc.StreamDesc, implementation any, s *stream) error {
	defer s.end()
	s.ctx = grpc.NewContextWithServerTransportStream(s.ctx, &headers{s.path, s.conn.ResponseHeader(), s.conn.ResponseTrailer()})
	if err := desc.Handler(implementation, s); err != nil {
		return toConnect(err)
	}
	return nil
}

// stream is a call as services see it: a [grpc.ServerStream].
type stream struct {
	h       *Handler
	ctx     context.Context
	path    string
	conn    connect.StreamingHandlerConn
	receive func() (*request, error)

	sending sync.Mutex
	over    bool
}

// end returns when nothing is being sent, and nothing will be.
func (s *stream) end() {
	if !s.sending.TryLock() {
		if c, ok := s.ctx.Value(controllerKey{}).(*http.ResponseController); ok {
			_ = c.SetWriteDeadline(time.Unix(1, 0)) // all HTTP/2 streams have deadlines
		}
		s.sending.Lock()
	}
	s.over = true
	s.sending.Unlock()
}

func (s *stream) Context() context.Context { return s.ctx }

// SetHeader adds to the headers, which go out with the first message.
func (s *stream) SetHeader(md metadata.MD) error {
	add(s.conn.ResponseHeader(), md)
	return nil
}

// SendHeader sends the headers at once.
func (s *stream) SendHeader(md metadata.MD) error {
	add(s.conn.ResponseHeader(), md)
	return s.send(nil)
}

func (s *stream) SetTrailer(md metadata.MD) { add(s.conn.ResponseTrailer(), md) }

func (s *stream) SendMsg(message any) error {
	res, err := s.h.newResponse(message)
	if err != nil {
		return err
	}
	return s.send(res)
}

// send fails if the caller is gone.
func (s *stream) send(message any) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	if s.over {
		return status.Error(codes.Canceled, "the call has ended")
	}
	err := s.conn.Send(message)
	switch {
	case err == nil:
		return nil
	case s.ctx.Err() != nil:
		return status.FromContextError(s.ctx.Err()).Err()
	default:
		return status.Error(codes.Unavailable, err.Error())
	}
}

func (s *stream) RecvMsg(message any) error {
	req, err := s.receive()
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if e, ok := errors.AsType[*connect.Error](err); ok {
		return status.Error(codes.Code(e.Code()), e.Message())
	}
	if err != nil {
		return err
	}
	return req.into(message)
}

// headers are those of a call: a [grpc.ServerTransportStream], through which
// services set them.
type headers struct {
	path            string
	header, trailer http.Header
}

func (h *headers) Method() string { return h.path }

func (h *headers) SetHeader(md metadata.MD) error {
	add(h.header, md)
	return nil
}

// SendHeader of a call with one response has nothing to hurry for.
func (h *headers) SendHeader(md metadata.MD) error { return h.SetHeader(md) }

func (h *headers) SetTrailer(md metadata.MD) error {
	add(h.trailer, md)
	return nil
}

// incoming are the headers of a request as gRPC has them.
func incoming(header http.Header) metadata.MD {
	md := make(metadata.MD, len(header))
	for name, values := range header {
		name = strings.ToLower(name)
		if strings.HasSuffix(name, "-bin") {
			values = decoded(values)
		}
		md[name] = values
	}
	return md
}

func decoded(values []string) []string {
	all := make([]string, 0, len(values))
	for _, value := range values {
		if raw, err := connect.DecodeBinaryHeader(value); err == nil {
			all = append(all, string(raw))
		}
	}
	return all
}

func add(header http.Header, md metadata.MD) {
	for name, values := range md {
		for _, value := range values {
			if strings.HasSuffix(name, "-bin") {
				value = connect.EncodeBinaryHeader([]byte(value))
			}
			header.Add(name, value)
		}
	}
}
