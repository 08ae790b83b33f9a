package protocol

import (
	"encoding/binary"
	"errors"

	"google.golang.org/protobuf/proto"
)

// marshal encodes m; map entries are sorted, so that equal states have equal
// bytes here, though not with others. The error is a string that is no UTF-8.
func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// unmarshal decodes what others sent. The depth is that of the official client:
// 100 messages within the outermost.
func unmarshal(b []byte, m proto.Message) error {
	return proto.UnmarshalOptions{RecursionLimit: 101}.Unmarshal(b, m)
}

var errVector = errors.New("malformed vector")

// appendOpaque appends data as the opaque<V> of RFC 9420 §2.1.2; data must be
// shorter than 2^30 bytes.
func appendOpaque(b, data []byte) []byte {
	switch n := len(data); {
	case n < 1<<6:
		b = append(b, byte(n))
	case n < 1<<14:
		b = binary.BigEndian.AppendUint16(b, 1<<14|uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(b, 2<<30|uint32(n))
	}
	return append(b, data...)
}

// readOpaque reads an opaque<V> at the start of b; data aliases b.
func readOpaque(b []byte) (data, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, errVector
	}
	size := 1 << (b[0] >> 6)
	if size > 4 || len(b) < size {
		return nil, nil, errVector
	}
	n := uint32(b[0] & 0x3f)
	for _, c := range b[1:size] {
		n = n<<8 | uint32(c)
	}
	if size == 2 && n < 1<<6 || size == 4 && n < 1<<14 || uint64(n) > uint64(len(b)-size) {
		return nil, nil, errVector
	}
	return b[size : size+int(n)], b[size+int(n):], nil
}
