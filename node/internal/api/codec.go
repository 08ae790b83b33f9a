package api

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that is wrapped
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
)

// An element of a list can be 2 bytes in a request and some hundred in memory,
// so that the size of a request alone does not bound what it costs.
const (
	// maxFields is how many fields a request has at most, the elements of its
	// lists included: ten times what anybody has reason to send.
	maxFields = 100_000
	// maxUpdateRequestBytes bounds the one request that has lists in lists.
	maxUpdateRequestBytes = maxUpdateBytes + 1<<10
)

// codec is gRPC's for protobuf, but for requests that would cost too much to decode.
type codec struct{ encoding.CodecV2 }

// NewCodec returns the codec that a server must use. What it refuses has the
// status INTERNAL, like all that gRPC can't decode.
func NewCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2("proto")} }

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	message, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", v)
	}
	if _, ok := v.(*identityapi.PublishIdentityUpdateRequest); ok && data.Len() > maxUpdateRequestBytes {
		return fmt.Errorf("identity update of %d bytes: at most %d are taken", data.Len(), maxUpdateBytes)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	request := buffer.ReadOnlyData()
	fields := 0
	for rest := request; len(rest) > 0; fields++ {
		_, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if fields == maxFields {
			return fmt.Errorf("more than %d elements in one request", maxFields)
		}
		rest = rest[n:]
	}
	return proto.Unmarshal(request, message)
}
