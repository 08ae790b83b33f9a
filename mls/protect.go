package mls

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Content is signed and verified as FramedContentTBS (§6.1): version, wire format,
// FramedContent, GroupContext. FramedContent comes in two pieces, header and body,
// because a decrypted body lies elsewhere than the header.

func signContent(signer Signer, format WireFormat, header, body, context []byte) ([]byte, error) {
	var head [4]byte
	sig, err := suite.SignWithLabel(signer, "FramedContentTBS", appendMessageHead(head[:0], format), header, body, context)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return sig, nil
}

func verifyContent(s *suite.Suite, key, sig []byte, format WireFormat, header, body, context []byte) error {
	var head [4]byte
	if !s.VerifyWithLabel(key, "FramedContentTBS", sig, appendMessageHead(head[:0], format), header, body, context) {
		return ErrSignature
	}
	return nil
}

// appendHeader encodes FramedContent up to the body.
func (c *framedContent) appendHeader(b []byte) []byte {
	b = wire.AppendOpaque(b, c.groupID)
	b = wire.AppendUint64(b, c.epoch)
	b = c.sender.append(b)
	b = wire.AppendOpaque(b, c.authenticatedData)
	return append(b, byte(c.contentType))
}

// membershipTag is the tag of a member's PublicMessage (§6.2).
func (e *epoch) membershipTag(m *publicMessage) []byte {
	return e.suite.MAC(e.secrets.Membership, e.tagInput(m)...)
}

func (e *epoch) verifyMembershipTag(m *publicMessage) error {
	if !e.suite.VerifyMAC(e.secrets.Membership, m.membershipTag, e.tagInput(m)...) {
		return ErrMembershipTag
	}
	return nil
}

func (e *epoch) tagInput(m *publicMessage) [][]byte {
	return [][]byte{
		appendMessageHead(nil, WireFormatPublicMessage), m.content.raw, e.context.raw,
		m.auth.append(nil, m.content.contentType),
	}
}

// protectPublic makes a PublicMessage of signed content (§6.2).
func (e *epoch) protectPublic(content *framedContent, auth contentAuth) []byte {
	m := &publicMessage{content: content, auth: auth}
	m.membershipTag = e.membershipTag(m)
	return m.append(appendMessageHead(nil, WireFormatPublicMessage))
}

const (
	senderDataSize = 4 + 4 + 4 // leaf index, generation, reuse guard
	aeadOverhead   = 16        // the tag of every suite's AEAD
)

// senderDataKey is the key of the sender data, which depends on the ciphertext of
// the content (§6.3.2).
func senderDataKey(s *suite.Suite, secret suite.Secret, ciphertext []byte) suite.Key {
	return s.ExpandKey(secret, ciphertext[:min(len(ciphertext), s.HashSize())])
}

// protectPrivate makes a PrivateMessage under a key of our ratchet (§6.3). What is
// encrypted is body, the encoded content, then auth and padding zeros.
func (e *epoch) protectPrivate(use *secrettree.Use, t ContentType, authenticatedData, body []byte, auth contentAuth, padding int) ([]byte, error) {
	authSize := wire.OpaqueSize(len(auth.signature))
	if t == ContentTypeCommit {
		authSize += wire.OpaqueSize(len(auth.confirmationTag))
	}
	plain := len(body) + authSize + padding
	if plain+aeadOverhead > wire.MaxVector {
		return nil, fmt.Errorf("content of %d bytes is too long", len(body))
	}
	id := e.context.groupID
	size := 4 + wire.OpaqueSize(len(id)) + 8 + 1 + wire.OpaqueSize(len(authenticatedData)) +
		wire.OpaqueSize(senderDataSize+aeadOverhead) + wire.OpaqueSize(plain+aeadOverhead)

	b := appendMessageHead(make([]byte, 0, size), WireFormatPrivateMessage)
	b = wire.AppendUint64(wire.AppendOpaque(b, id), e.context.epoch)
	b = append(b, byte(t))
	senderAAD := b[4:]
	b = wire.AppendOpaque(b, authenticatedData)
	contentAAD := b[4:]
	b = wire.AppendVarint(b, senderDataSize+aeadOverhead)
	senderData := b[len(b) : len(b) : len(b)+senderDataSize+aeadOverhead]
	b = b[:len(b)+senderDataSize+aeadOverhead]
	b = wire.AppendVarint(b, plain+aeadOverhead)
	start := len(b)
	b = append(b, body...)
	b = auth.append(b, t)
	clear(b[len(b) : start+plain])

	senderData = wire.AppendUint32(senderData, uint32(e.own))
	senderData = wire.AppendUint32(senderData, use.Generation())
	senderData = senderData[:senderDataSize]
	rand.Read(senderData[8:])
	guard := [4]byte(senderData[8:])
	key := use.Key()
	key.Guard(guard)
	ciphertext, err := e.suite.Seal(key, b[start:start], contentAAD, b[start:start+plain])
	if err != nil {
		return nil, err
	}
	key.Guard(guard)

	senderKey := senderDataKey(e.suite, e.secrets.SenderData, ciphertext)
	defer senderKey.Wipe()
	if _, err := e.suite.Seal(&senderKey, senderData[:0], senderAAD, senderData); err != nil {
		return nil, err
	}
	return b[:size], nil
}

// senderData is SenderData (§6.3.2).
type senderData struct {
	leaf       LeafIndex
	generation uint32
	guard      [4]byte
}

// openSenderData decrypts the sender data of m under the secret of its epoch.
func (m *privateMessage) openSenderData(s *suite.Suite, secret suite.Secret) (senderData, error) {
	var stack [64]byte
	key := senderDataKey(s, secret, m.ciphertext)
	defer key.Wipe()
	aad := wire.AppendUint64(wire.AppendOpaque(stack[:0], m.groupID), m.epoch)
	aad = append(aad, byte(m.contentType))
	var plain [senderDataSize]byte
	b, err := s.Open(&key, plain[:0], aad, m.encryptedSenderData)
	if err != nil || len(b) != senderDataSize {
		return senderData{}, fmt.Errorf("%w: sender data", ErrDecrypt)
	}
	d := senderData{leaf: LeafIndex(binary.BigEndian.Uint32(b)), generation: binary.BigEndian.Uint32(b[4:])}
	copy(d.guard[:], b[8:])
	return d, nil
}

// open decrypts the content of m and checks its signature (§6.3.1). The result
// has raw only for handshakes.
func (m *privateMessage) open(s *suite.Suite, use *secrettree.Use, from senderData, signatureKey, context []byte) (*authenticatedContent, error) {
	var stack [64]byte
	aad := wire.AppendUint64(wire.AppendOpaque(stack[:0], m.groupID), m.epoch)
	aad = wire.AppendOpaque(append(aad, byte(m.contentType)), m.authenticatedData)
	key := use.Key()
	key.Guard(from.guard)
	plain, err := s.Open(key, nil, aad, m.ciphertext)
	key.Guard(from.guard)
	if err != nil {
		return nil, fmt.Errorf("%w: content", ErrDecrypt)
	}
	content := &framedContent{
		groupID: m.groupID, epoch: m.epoch, sender: memberAt(from.leaf),
		authenticatedData: m.authenticatedData, contentType: m.contentType,
	}
	r := wire.NewReader(plain)
	content.readBody(r)
	body := r.Since(0)
	a := &authenticatedContent{format: WireFormatPrivateMessage, content: content}
	a.auth = readContentAuth(r, m.contentType)
	padding := r.Bytes(r.Left())
	if err := r.Done(); err != nil {
		return nil, malformed("PrivateMessage content", err)
	}
	for _, b := range padding {
		if b != 0 {
			return nil, ErrPadding
		}
	}
	var header []byte
	if m.contentType == ContentTypeApplication {
		var stack [128]byte
		header = content.appendHeader(stack[:0])
	} else {
		content.raw = append(content.appendHeader(nil), body...)
		header, body = content.raw, nil
	}
	if err := verifyContent(s, signatureKey, a.auth.signature, a.format, header, body, context); err != nil {
		return nil, err
	}
	return a, nil
}
