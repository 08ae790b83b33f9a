package mls

import (
	"bytes"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Message is a decoded MLSMessage (§6). Nothing about it is verified.
type Message struct {
	raw    []byte
	format WireFormat

	public     *publicMessage
	private    *privateMessage
	welcome    *welcome
	groupInfo  *groupInfo
	keyPackage *KeyPackage
}

// UnmarshalMessage decodes a whole MLSMessage and copies what it keeps. It checks
// nothing but the encoding. The error is [ErrMalformed], with [ErrTrailingData],
// [ErrUnexpectedEnd] or [ErrUnsupportedVersion] where they apply. more are suites
// beyond those of this package, for what is done with a key package.
func UnmarshalMessage(data []byte, more ...*Suite) (*Message, error) {
	r := wire.NewReader(bytes.Clone(data))
	m := readMessage(r)
	if err := r.Done(); err != nil {
		return nil, malformed("MLSMessage", err)
	}
	if m.keyPackage != nil {
		m.keyPackage.suites = more
	}
	return m, nil
}

func readMessage(r *wire.Reader) *Message {
	start := r.Offset()
	if v := ProtocolVersion(r.Uint16()); v != MLS10 {
		r.Fail(fmt.Errorf("%w: %d", ErrUnsupportedVersion, v))
	}
	m := &Message{format: WireFormat(r.Uint16())}
	switch m.format {
	case WireFormatPublicMessage:
		m.public = readPublicMessage(r)
	case WireFormatPrivateMessage:
		m.private = readPrivateMessage(r)
	case WireFormatWelcome:
		m.welcome = readWelcome(r)
	case WireFormatGroupInfo:
		m.groupInfo = readGroupInfo(r)
	case WireFormatKeyPackage:
		m.keyPackage = readKeyPackage(r)
	default:
		r.Fail(fmt.Errorf("wire format %d", m.format))
	}
	m.raw = r.Since(start)
	return m
}

// append encodes the message from its fields.
func (m *Message) append(b []byte) []byte {
	b = appendMessageHead(b, m.format)
	switch m.format {
	case WireFormatPublicMessage:
		return m.public.append(b)
	case WireFormatPrivateMessage:
		return m.private.append(b)
	case WireFormatWelcome:
		return m.welcome.append(b)
	case WireFormatGroupInfo:
		return m.groupInfo.append(b)
	default:
		return append(b, m.keyPackage.raw...)
	}
}

func appendMessageHead(b []byte, f WireFormat) []byte {
	return wire.AppendUint16(wire.AppendUint16(b, uint16(MLS10)), uint16(f))
}

// WireFormat tells what the message carries.
func (m *Message) WireFormat() WireFormat { return m.format }

// MarshalBinary encodes the message as in the RFC. The error is always nil.
func (m *Message) MarshalBinary() ([]byte, error) { return bytes.Clone(m.raw), nil }

// KeyPackage is the key package that the message carries, or nil.
func (m *Message) KeyPackage() *KeyPackage { return m.keyPackage }

// Header is what a PublicMessage or PrivateMessage shows to everybody (§6), and
// all that a delivery service can know of it.
type Header struct {
	WireFormat  WireFormat
	GroupID     []byte
	Epoch       uint64
	ContentType ContentType
}

// Header returns the header of a group message; false if the message is of
// another wire format.
func (m *Message) Header() (Header, bool) {
	switch m.format {
	case WireFormatPublicMessage:
		c := m.public.content
		return Header{m.format, bytes.Clone(c.groupID), c.epoch, c.contentType}, true
	case WireFormatPrivateMessage:
		p := m.private
		return Header{m.format, bytes.Clone(p.groupID), p.epoch, p.contentType}, true
	}
	return Header{}, false
}

// ParseHeader decodes the group message at the start of data and returns its
// header and its length. The message has to be complete, but bytes may follow
// it, and nothing is kept of data. It is the cheap way for one who stores or
// forwards messages. The error is [ErrMalformed], also for other wire formats.
func ParseHeader(data []byte) (h Header, n int, err error) {
	r := wire.NewReader(data)
	m := readMessage(r)
	if err := r.Err(); err != nil {
		return Header{}, 0, malformed("MLSMessage", err)
	}
	h, ok := m.Header()
	if !ok {
		return Header{}, 0, malformed("MLSMessage", fmt.Errorf("wire format %d is not a group message", m.format))
	}
	return h, r.Offset(), nil
}
