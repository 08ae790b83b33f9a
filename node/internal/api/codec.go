package api

import (
	"fmt"
	"math/bits"
	"sync"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that is wrapped
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// An element of a list can be 2 bytes in a request and some hundred in memory,
// so that the size of a request alone does not bound what it costs.
const (
	// maxFields is how many fields a request has at most, the elements of its
	// lists included: ten times what anybody has reason to send.
	maxFields = 100_000
	// maxUpdateRequestBytes bounds the one request that has lists in lists.
	maxUpdateRequestBytes = maxUpdateBytes + 1<<10
	// maxSubscribeFields leaves room for a Mutate that is refused for its adds
	// with a status that says so.
	maxSubscribeFields = 2 * maxAdds
)

// answers are the buffers of answers. gRPC's own are overwritten with zeros each
// time, a whole MiB for a page of 100 KiB; an answer fills its buffer anyway.
var answers = &bufferPool{}

// bufferPool is a [mem.BufferPool] with buffers of powers of two.
type bufferPool [bits.UintSize]sync.Pool

// maxPooled is the size of the biggest buffer that is kept.
const maxPooled = 4 << 20

// Get returns a buffer that holds anything.
func (p *bufferPool) Get(length int) *[]byte {
	if length > maxPooled {
		b := make([]byte, length)
		return &b
	}
	class := bits.Len(uint(max(length, 1) - 1))
	b, ok := p[class].Get().(*[]byte)
	if !ok {
		b = new(make([]byte, 1<<class))
	}
	*b = (*b)[:length]
	return b
}

// Put takes a buffer back.
func (p *bufferPool) Put(b *[]byte) {
	if size := cap(*b); size <= maxPooled {
		p[bits.Len(uint(size)-1)].Put(b)
	}
}

func tooManyFields(most int) error {
	return fmt.Errorf("more than %d elements in one request", most)
}

// codec is gRPC's for protobuf, but for requests that would cost too much to decode,
// and for the buffers that answers are encoded into.
type codec struct{ encoding.CodecV2 }

// NewCodec returns the codec that a server must use. What it refuses has the
// status INTERNAL, like all that gRPC can't decode.
func NewCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2("proto")} }

// Marshal encodes an answer.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message", v)
	}
	held, isHeld := v.(*heldAnswer)
	size := 0
	if isHeld {
		message, size = held.Message, held.size
	} else {
		size = proto.Size(message)
	}
	options := proto.MarshalOptions{UseCachedSize: true}
	if mem.IsBelowBufferPoolingThreshold(size) {
		data, err := options.Marshal(message)
		return mem.BufferSlice{mem.SliceBuffer(data)}, err
	}
	buffer := answers.Get(size)
	data, err := options.MarshalAppend((*buffer)[:0], message)
	if err == nil && len(data) != size {
		// Somebody else's bytes would be sent with it.
		err = fmt.Errorf("a message of %d bytes became %d", size, len(data))
	}
	var pool mem.BufferPool = answers
	if isHeld {
		pool = held.pool(buffer)
	}
	if err != nil {
		pool.Put(buffer)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(buffer, pool)}, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	message, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", v)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return Unmarshal(buffer.ReadOnlyData(), message)
}

// Unmarshal decodes a request, but one that would cost too much to decode.
func Unmarshal(data []byte, message proto.Message) error {
	if err := checkUpdateSize(message, len(data), maxUpdateRequestBytes); err != nil {
		return err
	}
	depth, most := 0, maxFields
	if _, ok := message.(*mlsapi.SubscribeRequest); ok {
		depth, most = 2, maxSubscribeFields
	}
	fields, err := countFields(data, depth, most)
	if err != nil {
		return err
	}
	if fields > most {
		return tooManyFields(most)
	}
	return proto.Unmarshal(data, message)
}

// countFields counts the fields of a message, and those of the messages in it
// down to a depth, until there are too many.
func countFields(message []byte, depth, most int) (count int, err error) {
	for ; len(message) > 0 && count <= most; count++ {
		_, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return 0, protowire.ParseError(tag)
		}
		_, _, n := protowire.ConsumeField(message)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		if depth > 0 && kind == protowire.BytesType {
			inner, _ := protowire.ConsumeBytes(message[tag:n])
			within, err := countFields(inner, depth-1, most-count)
			if err != nil {
				return 0, err
			}
			count += within
		}
		message = message[n:]
	}
	return count, nil
}

// UnmarshalJSON decodes a request in JSON, but one that would cost too much to
// decode. Fields that aren't known are passed over, as in the binary form.
func UnmarshalJSON(data []byte, message proto.Message) error {
	// Base64 makes it longer; how long it really is is checked again.
	if err := checkUpdateSize(message, len(data), 2*maxUpdateRequestBytes); err != nil {
		return err
	}
	fields := 0
	for _, b := range data {
		// There are none of them in base64, and few in what texts there are.
		if b == ',' || b == '[' || b == '{' {
			fields++
		}
	}
	if fields > maxFields {
		return tooManyFields(maxFields)
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, message)
}

func checkUpdateSize(message proto.Message, size, limit int) error {
	if _, ok := message.(*identityapi.PublishIdentityUpdateRequest); ok && size > limit {
		return fmt.Errorf("identity update of %d bytes: at most %d are taken", size, maxUpdateBytes)
	}
	return nil
}
