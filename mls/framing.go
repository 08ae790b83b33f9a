package mls

import (
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// SenderType tells what a sender is to the group (§6).
type SenderType uint8

// The types of senders (§6).
const (
	SenderMember            SenderType = 1
	SenderExternal          SenderType = 2 // one of the group's [ExternalSender] list
	SenderNewMemberProposal SenderType = 3 // who proposes to be added
	SenderNewMemberCommit   SenderType = 4 // who joins by an external commit
)

// Sender is who sent a handshake message (§6). Index is the leaf of a member, the
// position of an external sender in the group's list, else 0.
type Sender struct {
	Type  SenderType
	Index uint32
}

func memberAt(i LeafIndex) Sender { return Sender{SenderMember, uint32(i)} }

// Leaf is the sender's leaf; false if it is no member.
func (s Sender) Leaf() (LeafIndex, bool) { return LeafIndex(s.Index), s.Type == SenderMember }

func (s Sender) String() string {
	switch s.Type {
	case SenderMember:
		return fmt.Sprintf("leaf %d", s.Index)
	case SenderExternal:
		return fmt.Sprintf("external sender %d", s.Index)
	}
	return "a new member"
}

// is tells whether the sender is the member at leaf i.
func (s Sender) is(i LeafIndex) bool { return s == memberAt(i) }

func (s Sender) append(b []byte) []byte {
	b = append(b, byte(s.Type))
	if s.Type == SenderMember || s.Type == SenderExternal {
		b = wire.AppendUint32(b, s.Index)
	}
	return b
}

func readSender(r *wire.Reader) Sender {
	s := Sender{Type: SenderType(r.Uint8())}
	switch s.Type {
	case SenderMember, SenderExternal:
		s.Index = r.Uint32()
	case SenderNewMemberProposal, SenderNewMemberCommit:
	default:
		r.Fail(fmt.Errorf("sender type %d", s.Type))
	}
	return s
}

// framedContent is FramedContent (§6), the part of a message that is signed.
type framedContent struct {
	groupID           []byte
	epoch             uint64
	sender            Sender
	authenticatedData []byte
	contentType       ContentType

	applicationData []byte
	proposal        Proposal
	commit          *commit

	raw []byte
}

// append encodes the content from its fields.
func (c *framedContent) append(b []byte) []byte {
	b = wire.AppendOpaque(b, c.groupID)
	b = wire.AppendUint64(b, c.epoch)
	b = c.sender.append(b)
	b = wire.AppendOpaque(b, c.authenticatedData)
	b = append(b, byte(c.contentType))
	return c.appendBody(b)
}

func (c *framedContent) appendBody(b []byte) []byte {
	switch c.contentType {
	case ContentTypeApplication:
		return wire.AppendOpaque(b, c.applicationData)
	case ContentTypeProposal:
		return appendProposal(b, c.proposal)
	default:
		return c.commit.append(b)
	}
}

func readFramedContent(r *wire.Reader) *framedContent {
	start := r.Offset()
	c := &framedContent{
		groupID:           r.Opaque(),
		epoch:             r.Uint64(),
		sender:            readSender(r),
		authenticatedData: r.Opaque(),
		contentType:       ContentType(r.Uint8()),
	}
	c.readBody(r)
	c.raw = r.Since(start)
	return c
}

func (c *framedContent) readBody(r *wire.Reader) {
	switch c.contentType {
	case ContentTypeApplication:
		c.applicationData = r.Opaque()
	case ContentTypeProposal:
		c.proposal = readProposal(r)
	case ContentTypeCommit:
		c.commit = readCommit(r)
	default:
		r.Fail(fmt.Errorf("content type %d", c.contentType))
	}
}

// contentAuth is FramedContentAuthData (§6.1).
type contentAuth struct {
	signature       []byte
	confirmationTag []byte // of a commit
}

func (a contentAuth) append(b []byte, t ContentType) []byte {
	b = wire.AppendOpaque(b, a.signature)
	if t == ContentTypeCommit {
		b = wire.AppendOpaque(b, a.confirmationTag)
	}
	return b
}

func readContentAuth(r *wire.Reader, t ContentType) contentAuth {
	a := contentAuth{signature: r.Opaque()}
	if t == ContentTypeCommit {
		a.confirmationTag = r.Opaque()
	}
	return a
}

// authenticatedContent is AuthenticatedContent (§6): content as it was sent and
// what authenticates it.
type authenticatedContent struct {
	format  WireFormat
	content *framedContent
	auth    contentAuth
}

// append encodes the message for a proposal's hash (§5.2).
func (m *authenticatedContent) append(b []byte) []byte {
	b = wire.AppendUint16(b, uint16(m.format))
	b = append(b, m.content.raw...)
	return m.auth.append(b, m.content.contentType)
}

func readAuthenticatedContent(r *wire.Reader) *authenticatedContent {
	m := &authenticatedContent{format: WireFormat(r.Uint16()), content: readFramedContent(r)}
	if m.format != WireFormatPublicMessage && m.format != WireFormatPrivateMessage {
		r.Fail(fmt.Errorf("wire format %d of a group message", m.format))
	}
	m.auth = readContentAuth(r, m.content.contentType)
	return m
}

// publicMessage is PublicMessage (§6.2).
type publicMessage struct {
	content       *framedContent
	auth          contentAuth
	membershipTag []byte // of a member
}

func (m *publicMessage) append(b []byte) []byte {
	b = m.content.append(b)
	b = m.auth.append(b, m.content.contentType)
	if m.content.sender.Type == SenderMember {
		b = wire.AppendOpaque(b, m.membershipTag)
	}
	return b
}

func readPublicMessage(r *wire.Reader) *publicMessage {
	m := &publicMessage{content: readFramedContent(r)}
	m.auth = readContentAuth(r, m.content.contentType)
	if m.content.sender.Type == SenderMember {
		m.membershipTag = r.Opaque()
	}
	return m
}

// privateMessage is PrivateMessage (§6.3).
type privateMessage struct {
	groupID             []byte
	epoch               uint64
	contentType         ContentType
	authenticatedData   []byte
	encryptedSenderData []byte
	ciphertext          []byte
}

func (m *privateMessage) append(b []byte) []byte {
	b = wire.AppendOpaque(b, m.groupID)
	b = wire.AppendUint64(b, m.epoch)
	b = append(b, byte(m.contentType))
	b = wire.AppendOpaque(b, m.authenticatedData)
	b = wire.AppendOpaque(b, m.encryptedSenderData)
	return wire.AppendOpaque(b, m.ciphertext)
}

func readPrivateMessage(r *wire.Reader) *privateMessage {
	m := &privateMessage{groupID: r.Opaque(), epoch: r.Uint64(), contentType: ContentType(r.Uint8())}
	if m.contentType < ContentTypeApplication || m.contentType > ContentTypeCommit {
		r.Fail(fmt.Errorf("content type %d", m.contentType))
	}
	m.authenticatedData = r.Opaque()
	m.encryptedSenderData = r.Opaque()
	m.ciphertext = r.Opaque()
	return m
}
