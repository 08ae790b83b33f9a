package differential

import (
	"encoding/binary"
	"fmt"
)

// ratchet is where the handshake ratchet of a leaf stands (§9.1): at the next generation
// that its member sends.
type ratchet struct {
	Leaf, Generation uint32
	Secret           []byte
}

// private encrypts an authenticated content as the next handshake of by, or of the member
// whom it says it is from, if there is one (§6.3).
func (e *epoch) private(m publicMessage, by uint32) message {
	c := m.Content
	at, ok := e.ratchets[c.SenderIndex]
	if !ok {
		at = e.ratchets[by]
	}
	plain := privateContent{
		ContentType: c.ContentType, Proposal: c.Proposal, Commit: c.Commit,
		Signature: m.Signature, ConfirmationTag: m.ConfirmationTag,
	}
	from := senderData{c.SenderIndex, at.Generation, binary.BigEndian.Uint32(random(4))}
	generation := binary.BigEndian.AppendUint32(nil, at.Generation)
	key := e.expand(at.Secret, "key", generation, e.hpke.AEAD().KeySize())
	nonce := e.expand(at.Secret, "nonce", generation, 12)
	for i, b := range binary.BigEndian.AppendUint32(nil, from.Guard) {
		nonce[i] ^= b
	}
	p := privateMessage{GroupID: c.GroupID, Epoch: c.Epoch, ContentType: c.ContentType, AuthenticatedData: c.AuthenticatedData}
	about := append(binary.BigEndian.AppendUint64(marshal(c.GroupID), c.Epoch), c.ContentType)
	p.Ciphertext = e.encrypt(key, nonce, append(about[:len(about):len(about)], marshal(c.AuthenticatedData)...), marshal(plain))
	sample := p.Ciphertext[:min(e.size(), len(p.Ciphertext))]
	key = e.expand(e.senderDataSecret, "key", sample, e.hpke.AEAD().KeySize())
	p.EncryptedSenderData = e.encrypt(key, e.expand(e.senderDataSecret, "nonce", sample, 12), about, marshal(from))
	return message{Version: 1, Format: formatPrivate, Private: p}
}

func (s scheme) encrypt(key, nonce, about, plain []byte) []byte {
	aead, err := s.hpke.AEAD().New(key)
	if err != nil {
		panic(fmt.Errorf("differential: encrypt: %w", err))
	}
	return aead.Seal(nil, nonce, plain, about)
}

// opened is what a PrivateMessage encrypts.
type opened struct {
	from  sender
	text  []byte         // with its padding
	plain privateContent // without
}

// open decrypts a PrivateMessage that a twin hasn't taken yet.
func (s *scene) open(m *member, data []byte, p *privateMessage) (o opened) {
	var out struct {
		Leaf, Generation uint32
		Text             []byte
	}
	s.agent.do(s.ask(request{Op: "open", On: m.theirs, Message: data}), &out)
	o.from, o.text = sender{out.Leaf, out.Generation}, out.Text
	for n := len(o.text); n > 0; n-- {
		o.plain = privateContent{ContentType: p.ContentType}
		if unmarshal(o.text[:n], &o.plain) == nil {
			break
		}
	}
	return o
}

// contentOf is the FramedContent of what a PrivateMessage of this epoch encrypts.
func (e *epoch) contentOf(p *privateMessage, by uint32, plain *privateContent) framedContent {
	c := e.content(by)
	c.AuthenticatedData, c.ContentType = p.AuthenticatedData, plain.ContentType
	c.Application, c.Proposal, c.Commit = plain.Application, plain.Proposal, plain.Commit
	return c
}
