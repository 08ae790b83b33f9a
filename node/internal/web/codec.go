package web

import (
	"bytes"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// A request is a message whose type is only known to the method that it is for.
type request struct {
	data   []byte
	decode func([]byte, any) error
}

// into decodes the request. What gRPC sends without bytes is an empty message.
func (r *request) into(message any) error {
	if r.decode == nil {
		proto.Reset(message.(proto.Message))
		return nil
	}
	return r.decode(r.data, message)
}

// A response is a message of any type.
type response struct{ proto.Message }

// newResponse checks the size of a message, which all services bound themselves.
func (h *Handler) newResponse(message any) (*response, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, status.Errorf(codes.Internal, "%T is no message", message)
	}
	if n := proto.Size(m); n > h.MaxBytes {
		return nil, tooLarge("trying to send", n, h.MaxBytes)
	}
	return &response{m}, nil
}

// A codec takes requests as they are, so that they are decoded by the method and
// its errors are those of gRPC.
type codec struct {
	name      string
	marshal   func([]byte, proto.Message) ([]byte, error)
	unmarshal func([]byte, any) error
}

func (c codec) Name() string { return c.name }

func (c codec) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

// MarshalAppend lets connect use buffers again.
func (c codec) MarshalAppend(b []byte, message any) ([]byte, error) {
	switch m := message.(type) {
	case *response:
		return c.marshal(b, m.Message)
	case proto.Message: // the details of an error
		return c.marshal(b, m)
	default:
		return nil, fmt.Errorf("%T is no message", message)
	}
}

// Unmarshal keeps a copy, since the bytes are connect's.
func (c codec) Unmarshal(data []byte, message any) error {
	r, ok := message.(*request)
	if !ok {
		return fmt.Errorf("%T is no request", message)
	}
	r.data, r.decode = bytes.Clone(data), c.unmarshal
	return nil
}

func marshal(b []byte, m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend(b, m)
}

func marshalJSON(b []byte, m proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{}.MarshalAppend(b, m)
}

// unmarshalProto refuses what gRPC would refuse, with its words.
func (h *Handler) unmarshalProto(data []byte, message any) error {
	if len(data) > h.MaxBytes {
		return tooLarge("received", len(data), h.MaxBytes)
	}
	if err := h.Unmarshal(data, message.(proto.Message)); err != nil {
		return status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err)
	}
	return nil
}

// unmarshalJSON tells people that they have made a mistake, not that the node has.
func (h *Handler) unmarshalJSON(data []byte, message any) error {
	if err := h.UnmarshalJSON(data, message.(proto.Message)); err != nil {
		return status.Errorf(codes.InvalidArgument, "%v", err)
	}
	return nil
}
