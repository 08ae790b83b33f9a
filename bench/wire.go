package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// messageSize is the size of all messages.
const messageSize = 1 << 10

// groupID is 16 bytes, as the stores that are filled have them.
func groupID(i int) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i))
}

// mlsHead is the length of an MLSMessage with a PrivateMessage up to its ciphertext.
const mlsHead = 4 + 1 + 16 + 8 + 1 + 1 + 1 + 28 + 2

// mlsMessage is one that a node takes and no member could read. It is random, so
// that nothing is smaller on the disk than it would be.
func mlsMessage(group []byte, size int) []byte {
	b := make([]byte, size)
	rand.Read(b)
	head := append([]byte{0, 1, 0, 2, byte(len(group))}, group...)
	head = binary.BigEndian.AppendUint64(head, 1) // epoch
	head = append(head, 1, 0, 28)                 // an application's, without authenticated data
	copy(b, head)
	binary.BigEndian.PutUint16(b[mlsHead-2:], 1<<14|uint16(size-mlsHead))
	return b
}

// A message's ciphertext begins with what its sender numbers it by, and what
// he likes to tell its readers.
func markOf(message []byte) uint64 { return binary.BigEndian.Uint64(message[mlsHead:]) }

func sentAt(message []byte) int64 { return int64(binary.BigEndian.Uint64(message[mlsHead+8:])) }

// publication is a request that publishes new messages each time.
type publication struct {
	encoded  []byte
	messages [][]byte // parts of encoded
}

func newPublication(group []byte, messages int) *publication {
	req := &mlsapi.SendGroupMessagesRequest{}
	for range messages {
		req.Messages = append(req.Messages, &mlsapi.GroupMessageInput{Version: &mlsapi.GroupMessageInput_V1_{
			V1: &mlsapi.GroupMessageInput_V1{Data: mlsMessage(group, messageSize)},
		}})
	}
	p := &publication{encoded: encode(req)}
	for rest := p.encoded; len(rest) > 0; {
		_, _, tag := protowire.ConsumeTag(rest)
		input, n := protowire.ConsumeBytes(rest[tag:])
		p.messages = append(p.messages, input[len(input)-messageSize:])
		rest = rest[tag+n:]
	}
	return p
}

// request marks the messages with consecutive numbers from mark on.
func (p *publication) request(mark uint64) []byte {
	for i, m := range p.messages {
		binary.BigEndian.PutUint64(m[mlsHead:], mark+uint64(i))
	}
	return p.encoded
}

// requestAt says also when it was sent.
func (p *publication) requestAt(mark uint64, nanoseconds int64) []byte {
	for _, m := range p.messages {
		binary.BigEndian.PutUint64(m[mlsHead+8:], uint64(nanoseconds))
	}
	return p.request(mark)
}

// random is a number from 0 to below n.
func random(n int) int {
	var b [8]byte
	rand.Read(b[:])
	return int(binary.BigEndian.Uint64(b[:]) % uint64(n))
}

// encode is for messages that can't be wrong.
func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// raw is an encoded message. The generator neither encodes nor decodes what it
// measures: the node shares the processors with it.
type raw struct{ bytes []byte }

type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(*raw).bytes)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	r := v.(*raw)
	if n := data.Len(); cap(r.bytes) < n {
		r.bytes = make([]byte, n)
	} else {
		r.bytes = r.bytes[:n]
	}
	data.CopyTo(r.bytes)
	return nil
}

// dial returns n connections to an address.
func dial(address string, n int, options ...grpc.DialOption) (connections, error) {
	options = append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(32<<20)))
	all := make(connections, n)
	for i := range all {
		conn, err := grpc.NewClient("passthrough:///"+address, options...)
		if err != nil {
			return nil, errors.Join(err, all[:i].Close())
		}
		all[i] = conn
	}
	return all, nil
}

type connections []*grpc.ClientConn

func (c connections) Close() (err error) {
	for _, conn := range c {
		err = errors.Join(err, conn.Close())
	}
	return err
}

// eachMessage goes through an encoded list of GroupMessages: a page, or what was
// read from a stream if it is put in a field 1.
func eachMessage(page []byte, each func(id uint64, data []byte) error) error {
	return eachField(page, func(number protowire.Number, value []byte, _ uint64) error {
		if number != 1 {
			return nil
		}
		return readMessage(value, each)
	})
}

// readMessage reads one GroupMessage.
func readMessage(message []byte, use func(id uint64, data []byte) error) error {
	return eachField(message, func(number protowire.Number, v1 []byte, _ uint64) error {
		if number != 1 {
			return fmt.Errorf("a message of version %d", number)
		}
		var id uint64
		var data []byte
		if err := eachField(v1, func(number protowire.Number, value []byte, n uint64) error {
			switch number {
			case 1:
				id = n
			case 4:
				data = value
			}
			return nil
		}); err != nil {
			return err
		}
		if id == 0 || len(data) != messageSize {
			return fmt.Errorf("message %d has %d bytes", id, len(data))
		}
		return use(id, data)
	})
}

func eachField(message []byte, each func(number protowire.Number, value []byte, n uint64) error) error {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return protowire.ParseError(tag)
		}
		message = message[tag:]
		var value []byte
		var v uint64
		var n int
		switch kind {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(message)
		default:
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := each(number, value, v); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

// subscribe opens a stream of groups' messages from the beginning, and returns
// when the node has taken it.
func subscribe(ctx context.Context, conn *grpc.ClientConn, groups ...[]byte) (grpc.ClientStream, error) {
	req := &mlsapi.SubscribeGroupMessagesRequest{}
	for _, group := range groups {
		req.Filters = append(req.Filters, &mlsapi.SubscribeGroupMessagesRequest_Filter{GroupId: group})
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, mlsapi.MlsApi_SubscribeGroupMessages_FullMethodName)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&raw{encode(req)}); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	header, err := stream.Header()
	if err == nil && len(header.Get("subscribed")) == 0 {
		err = stream.RecvMsg(&raw{})
		if err == nil || err == io.EOF {
			err = errors.New("the stream was not opened")
		}
	}
	return stream, err
}

// pageRequest asks for up to 100 messages of a group after a number.
func pageRequest(group []byte, after uint64) []byte {
	return encode(&mlsapi.QueryGroupMessagesRequest{GroupId: group, PagingInfo: &mlsapi.PagingInfo{
		Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING, Limit: pageLimit, IdCursor: after,
	}})
}

const pageLimit = 100

// readGroup goes through all messages of a group. It fails if their numbers don't grow.
func readGroup(ctx context.Context, conn *grpc.ClientConn, group []byte, each func(id uint64, data []byte) error) error {
	last := uint64(0)
	for {
		var page raw
		if err := conn.Invoke(ctx, mlsapi.MlsApi_QueryGroupMessages_FullMethodName, &raw{pageRequest(group, last)}, &page); err != nil {
			return err
		}
		count := 0
		if err := eachMessage(page.bytes, func(id uint64, data []byte) error {
			if id <= last {
				return fmt.Errorf("message %d after %d", id, last)
			}
			last = id
			count++
			return each(id, data)
		}); err != nil {
			return err
		}
		if count < pageLimit {
			return nil
		}
	}
}

// echoMethod answers a BytesValue with one of as many bytes as the first four of
// it say.
const echoMethod = "/bench.Echo/Call"

// echoRequest is of a size, and asks for an answer of a size, of the whole messages.
func echoRequest(size, answer int) []byte {
	value := make([]byte, max(4, size-overhead(size)))
	binary.BigEndian.PutUint32(value, uint32(max(0, answer-overhead(answer))))
	return encode(wrapperspb.Bytes(value))
}

// overhead is what a BytesValue of that size has around its bytes.
func overhead(size int) int { return 1 + protowire.SizeVarint(uint64(size)) }
