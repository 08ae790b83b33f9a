package node

import (
	"context"

	"google.golang.org/grpc"
)

// interceptors are those of [Options], for calls of all transports alike.
type interceptors struct {
	unary  grpc.UnaryServerInterceptor
	stream grpc.StreamServerInterceptor
}

// service returns the description of a service whose calls are intercepted.
func (i interceptors) service(service *grpc.ServiceDesc) *grpc.ServiceDesc {
	around := *service
	if i.unary != nil {
		around.Methods = make([]grpc.MethodDesc, len(service.Methods))
		for j, m := range service.Methods {
			around.Methods[j] = i.method(m)
		}
	}
	if i.stream != nil {
		around.Streams = make([]grpc.StreamDesc, len(service.Streams))
		for j, s := range service.Streams {
			around.Streams[j] = i.streaming(service.ServiceName, s)
		}
	}
	return &around
}

func (i interceptors) method(m grpc.MethodDesc) grpc.MethodDesc {
	handler := m.Handler
	m.Handler = func(srv any, ctx context.Context, decode func(any) error, outer grpc.UnaryServerInterceptor) (any, error) {
		return handler(srv, ctx, decode, func(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if outer == nil {
				return i.unary(ctx, request, info, next)
			}
			return outer(ctx, request, info, func(ctx context.Context, request any) (any, error) {
				return i.unary(ctx, request, info, next)
			})
		})
	}
	return m
}

func (i interceptors) streaming(service string, s grpc.StreamDesc) grpc.StreamDesc {
	handler := s.Handler
	info := &grpc.StreamServerInfo{
		FullMethod:     "/" + service + "/" + s.StreamName,
		IsClientStream: s.ClientStreams,
		IsServerStream: s.ServerStreams,
	}
	s.Handler = func(srv any, stream grpc.ServerStream) error { return i.stream(srv, stream, info, handler) }
	return s
}
