// Package order gives the node's records their place in one total order.
//
// A record carries what was verified before it was appended; applying it is a
// pure fold over the node's state, so that it comes out the same wherever and
// whenever it is done.
package order

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// Kind says what a record holds. The numbers are stored.
type Kind uint8

const (
	// GroupMessage: the topic is a group id, the payload an MLSMessage, the facts a GroupFacts.
	GroupMessage Kind = 1
	// Welcome: the topic is an installation key or the destination of a welcome
	// pointer, the payload an encrypted welcome or pointer, the facts a WelcomeFacts.
	Welcome Kind = 2
	// KeyPackage: the topic is an installation key, the payload a KeyPackage,
	// the facts a KeyPackageFacts.
	KeyPackage Kind = 3
	// IdentityUpdate: the topic is an inbox id (32 bytes), the payload a
	// serialized IdentityUpdate, the facts an identity.VerifiedUpdate.
	IdentityUpdate Kind = 4
	// CommitLog: the topic is a group id, the payload a serialized
	// CommitLogEntry without number, the facts are empty.
	CommitLog Kind = 5
)

// Topic is what readers ask for: a kind and an identifier of up to 255 bytes.
type Topic struct {
	Kind Kind
	ID   string
}

// Record is one entry of the order. Its slices belong to it from the moment it
// is appended.
type Record struct {
	Topic
	// Number is its place, counted from 1 over all kinds, and becomes the id or
	// sequence id that clients see. Zero until it has been ordered.
	Number uint64
	// Time is when it was ordered, in nanoseconds since the Unix epoch. It
	// grows with Number.
	Time uint64
	// Facts are what was verified before appending, encoded by kind.
	Facts   []byte
	Payload []byte
}

// ErrMalformed is returned for stored bytes that are no record.
var ErrMalformed = errors.New("malformed record")

const recordVersion = 1

// AppendValue appends all of the record but its topic and number, which are in
// the key that it is stored under:
//
//	version 1 byte | time 8 bytes | length of facts, uvarint | facts | payload
func (r *Record) AppendValue(b []byte) []byte {
	b = append(b, recordVersion)
	b = binary.BigEndian.AppendUint64(b, r.Time)
	b = binary.AppendUvarint(b, uint64(len(r.Facts)))
	b = append(b, r.Facts...)
	return append(b, r.Payload...)
}

// ValueSize is the length of what AppendValue appends.
func (r *Record) ValueSize() int {
	uvarint := (bits.Len(uint(len(r.Facts))|1) + 6) / 7
	return 1 + 8 + uvarint + len(r.Facts) + len(r.Payload)
}

// ParseValue is the reverse of [Record.AppendValue]. The record's slices are parts of value.
func ParseValue(topic Topic, number uint64, value []byte) (*Record, error) {
	if len(value) < 9 {
		return nil, fmt.Errorf("%w %d: %d bytes", ErrMalformed, number, len(value))
	}
	if value[0] != recordVersion {
		return nil, fmt.Errorf("%w %d: version %d", ErrMalformed, number, value[0])
	}
	r := &Record{Topic: topic, Number: number, Time: binary.BigEndian.Uint64(value[1:])}
	rest := value[9:]
	n, size := binary.Uvarint(rest)
	if size <= 0 || n > uint64(len(rest)-size) {
		return nil, fmt.Errorf("%w %d: length of facts", ErrMalformed, number)
	}
	rest = rest[size:]
	r.Facts, r.Payload = rest[:n:n], rest[n:]
	return r, nil
}

// GroupFacts are what is known of a group message besides its payload.
type GroupFacts struct {
	// Commit is true for commits and for proposals.
	Commit     bool
	ShouldPush bool
	SenderHMAC []byte
}

// Append appends one byte of flags and the HMAC.
func (f GroupFacts) Append(b []byte) []byte {
	var flags byte
	if f.Commit {
		flags |= 1
	}
	if f.ShouldPush {
		flags |= 2
	}
	return append(append(b, flags), f.SenderHMAC...)
}

// ParseGroupFacts is the reverse of [GroupFacts.Append].
func ParseGroupFacts(b []byte) (GroupFacts, error) {
	if len(b) == 0 || b[0] > 3 {
		return GroupFacts{}, fmt.Errorf("%w: facts of a group message", ErrMalformed)
	}
	return GroupFacts{Commit: b[0]&1 != 0, ShouldPush: b[0]&2 != 0, SenderHMAC: b[1:]}, nil
}

// WelcomeFacts are what is known of a welcome besides its payload.
type WelcomeFacts struct {
	// Pointer tells a welcome pointer from a welcome.
	Pointer bool
	// Algorithm is the wire's number of how the payload is wrapped.
	Algorithm byte
	HPKEKey   []byte
	// Metadata is empty for a pointer.
	Metadata []byte
}

// Append appends a byte for Pointer, the algorithm, the key with its length
// as uvarint, and the metadata.
func (f WelcomeFacts) Append(b []byte) []byte {
	var pointer byte
	if f.Pointer {
		pointer = 1
	}
	b = append(b, pointer, f.Algorithm)
	b = binary.AppendUvarint(b, uint64(len(f.HPKEKey)))
	return append(append(b, f.HPKEKey...), f.Metadata...)
}

// ParseWelcomeFacts is the reverse of [WelcomeFacts.Append].
func ParseWelcomeFacts(b []byte) (WelcomeFacts, error) {
	if len(b) < 3 || b[0] > 1 {
		return WelcomeFacts{}, fmt.Errorf("%w: facts of a welcome", ErrMalformed)
	}
	n, size := binary.Uvarint(b[2:])
	if size <= 0 || n > uint64(len(b)-2-size) {
		return WelcomeFacts{}, fmt.Errorf("%w: facts of a welcome", ErrMalformed)
	}
	rest := b[2+size:]
	return WelcomeFacts{Pointer: b[0] == 1, Algorithm: b[1], HPKEKey: rest[:n:n], Metadata: rest[n:]}, nil
}

// KeyPackageFacts are what is known of a key package besides its payload.
type KeyPackageFacts struct {
	// NotBefore is the start of its lifetime, in seconds since the Unix epoch.
	NotBefore uint64
}

// Append appends 8 bytes.
func (f KeyPackageFacts) Append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(b, f.NotBefore)
}

// ParseKeyPackageFacts is the reverse of [KeyPackageFacts.Append].
func ParseKeyPackageFacts(b []byte) (KeyPackageFacts, error) {
	if len(b) != 8 {
		return KeyPackageFacts{}, fmt.Errorf("%w: facts of a key package", ErrMalformed)
	}
	return KeyPackageFacts{NotBefore: binary.BigEndian.Uint64(b)}, nil
}
