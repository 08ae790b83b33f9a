package protocol

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// Envelope is the application data of an MLS message.
type Envelope struct {
	// Content is an encoded EncodedContent; whether it really is, readers find out.
	// The bytes are kept as they came, because they go into the message's id.
	Content []byte

	// IdempotencyKey tells messages of the same content apart.
	IdempotencyKey string
}

// NewEnvelope returns an envelope with the key that official clients use, the time
// in nanoseconds.
func NewEnvelope(content []byte, now time.Time) Envelope {
	return Envelope{content, strconv.FormatInt(now.UnixNano(), 10)}
}

// Marshal encodes the envelope. The error is a key that is no UTF-8.
func (e Envelope) Marshal() ([]byte, error) {
	b, err := marshal(&mlscontents.PlaintextEnvelope{Content: &mlscontents.PlaintextEnvelope_V1_{
		V1: &mlscontents.PlaintextEnvelope_V1{Content: e.Content, IdempotencyKey: e.IdempotencyKey},
	}})
	if err != nil {
		return nil, fmt.Errorf("protocol: envelope: %w", err)
	}
	return b, nil
}

// ParseEnvelope decodes an envelope. The errors are [ErrEnvelope], and
// [ErrNoContent] if there is nothing in it for clients of today.
func ParseEnvelope(data []byte) (Envelope, error) {
	var p mlscontents.PlaintextEnvelope
	if err := unmarshal(data, &p); err != nil {
		return Envelope{}, fmt.Errorf("protocol: %w: %w", ErrEnvelope, err)
	}
	switch c := p.GetContent().(type) {
	case *mlscontents.PlaintextEnvelope_V1_:
		return Envelope{c.V1.GetContent(), c.V1.GetIdempotencyKey()}, nil
	case *mlscontents.PlaintextEnvelope_V2_:
		return Envelope{}, fmt.Errorf("protocol: %w", ErrNoContent)
	}
	return Envelope{}, fmt.Errorf("protocol: %w: no version", ErrEnvelope)
}

// MessageID is the id of the message in a group, the same for all its members, 32
// bytes. The same envelope sent twice is one message.
func (e Envelope) MessageID(groupID []byte) [32]byte {
	h := sha256.New()
	h.Write(groupID)
	h.Write([]byte{'\t'})
	h.Write([]byte(e.IdempotencyKey))
	h.Write([]byte{'\t'})
	h.Write(e.Content)
	return [32]byte(h.Sum(nil))
}

// The lengths to which messages are padded.
const (
	smallestClass = 256
	largestDouble = 64 << 10
)

// Padding returns how many zero bytes to add to an encrypted MLS content of n bytes,
// so that its length tells only its class: 256 bytes and doubles of that up to 64
// KiB, then multiples of 64 KiB (RFC 9420 §15.1).
func Padding(n int) int {
	class := smallestClass
	for class < n && class < largestDouble {
		class *= 2
	}
	if n > class {
		class = (n + largestDouble - 1) / largestDouble * largestDouble
	}
	return class - n
}
