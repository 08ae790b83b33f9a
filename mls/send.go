package mls

import (
	"bytes"
	"crypto/rand"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Encrypt makes an application message, an encoded MLSMessage (§6.3, §15).
// authenticatedData goes along unencrypted and may be nil. It returns
// [ErrPendingProposals] if proposals wait for a commit. See [Config] for when it may leave.
func (g *Group) Encrypt(data, authenticatedData []byte) (*Pending[[]byte], error) {
	p, err := g.encrypt(data, authenticatedData)
	if err != nil {
		return nil, fmt.Errorf("mls: encrypt: %w", err)
	}
	return p, nil
}

func (g *Group) encrypt(data, authenticatedData []byte) (*Pending[[]byte], error) {
	if err := g.begin(); err != nil {
		return nil, err
	}
	if len(g.proposals) > 0 {
		return nil, ErrPendingProposals
	}
	if len(data) > wire.MaxVector/2 || len(authenticatedData) > wire.MaxVector/2 {
		return nil, fmt.Errorf("message of %d and %d bytes is too long", len(data), len(authenticatedData))
	}
	e := g.current
	content := framedContent{
		groupID: e.context.groupID, epoch: e.context.epoch, sender: memberAt(e.own),
		authenticatedData: authenticatedData, contentType: ContentTypeApplication,
	}
	var stack [128]byte
	header := content.appendHeader(stack[:0])
	body := wire.AppendOpaque(make([]byte, 0, wire.OpaqueSize(len(data))), data)
	use, err := e.messages.Next(e.own, secrettree.Application)
	if err != nil {
		return nil, err
	}
	use.Reserve(g.config.Ahead)
	message, err := g.sealContent(use, ContentTypeApplication, authenticatedData, header, body)
	if err != nil {
		use.Drop()
		return nil, err
	}
	return newPending(&g.publicState, message, nil, nil, nil).consuming(e.context.epoch, use), nil
}

// Unreserve returns the change that takes back what [Config].Ahead has reserved; none if
// nothing was encrypted in the epoch. Once it is stored, a group that is loaded goes on
// where this one has stopped.
func (g *Group) Unreserve() []Record {
	e := g.current
	r, ok := e.messages.Ratchet(e.own, secrettree.Application)
	if !ok {
		return nil
	}
	return []Record{keyRecord(e.context.epoch, r)}
}

// sealContent signs and encrypts content without confirmation tag.
func (g *Group) sealContent(use *secrettree.Use, t ContentType, authenticatedData, header, body []byte) ([]byte, error) {
	signer, err := g.signer()
	if err != nil {
		return nil, err
	}
	e := g.current
	sig, err := signContent(signer, WireFormatPrivateMessage, header, body, e.context.raw)
	if err != nil {
		return nil, err
	}
	return e.protectPrivate(use, t, authenticatedData, body, contentAuth{signature: sig}, g.padding(t, len(body)))
}

func (g *Group) padding(t ContentType, n int) int {
	if g.config.Padding == nil {
		return 0
	}
	return max(0, g.config.Padding(t, n))
}

// Propose makes a proposal for others to commit (§12.1), an encoded MLSMessage;
// it can be committed by ourselves as well, but for [SelfRemove]. For an Update
// see [Group.ProposeUpdate].
func (g *Group) Propose(p Proposal, authenticatedData []byte) (*Pending[[]byte], error) {
	out, err := g.propose(p, authenticatedData, nil)
	if err != nil {
		return nil, fmt.Errorf("mls: propose: %w", err)
	}
	return out, nil
}

// ProposeUpdate proposes a new leaf of our own with a fresh encryption key
// (§12.1.2). leaf is what it says from then on; nil keeps what it says. A new Signer
// is used once the proposal is committed.
func (g *Group) ProposeUpdate(leaf *Client, authenticatedData []byte) (*Pending[[]byte], error) {
	out, err := g.proposeUpdate(leaf, authenticatedData)
	if err != nil {
		return nil, fmt.Errorf("mls: propose update: %w", err)
	}
	return out, nil
}

func (g *Group) proposeUpdate(leaf *Client, authenticatedData []byte) (*Pending[[]byte], error) {
	if err := g.begin(); err != nil {
		return nil, err
	}
	f, signer, err := g.newLeaf(leaf)
	if err != nil {
		return nil, err
	}
	e := g.current
	pair, err := e.suite.GenerateKeyPair()
	if err != nil {
		return nil, err
	}
	f.encryptionKey = pair.Public
	f.source = LeafNodeFromUpdate
	node, err := f.sign(signer, e.context.groupID, e.own)
	if err != nil {
		return nil, err
	}
	return g.propose(Update{node}, authenticatedData, &ownUpdate{pair.Public, pair.Private, signer})
}

// ownUpdate is what belongs to an Update of ours besides the proposal.
type ownUpdate struct {
	public  []byte
	private []byte
	signer  Signer
}

// newLeaf starts a new leaf of our own.
func (g *Group) newLeaf(c *Client) (leafFields, Signer, error) {
	if c != nil {
		if c.CipherSuite != g.CipherSuite() {
			return leafFields{}, nil, fmt.Errorf("%w: the group has %d", ErrUnsupportedCipherSuite, g.CipherSuite())
		}
		return c.leaf(), c.Signer, nil
	}
	signer, err := g.signer()
	if err != nil {
		return leafFields{}, nil, err
	}
	leaf, _ := g.leaf(g.current.own)
	return leaf.fields(), signer, nil
}

func (g *Group) propose(p Proposal, authenticatedData []byte, update *ownUpdate) (*Pending[[]byte], error) {
	if err := g.begin(); err != nil {
		return nil, err
	}
	g.tree()
	e := g.current
	p = g.withNonce(p)
	if _, ok := p.(Update); ok && update == nil {
		return nil, invalidProposal("an Update needs ProposeUpdate")
	}
	if add, ok := p.(Add); ok {
		if err := g.checkAdd(add); err != nil {
			return nil, err
		}
	}
	content := &framedContent{
		groupID: e.context.groupID, epoch: e.context.epoch, sender: memberAt(e.own),
		authenticatedData: bytes.Clone(authenticatedData), contentType: ContentTypeProposal, proposal: p,
	}
	content.raw = content.append(nil)
	stored, message, use, err := g.frameProposal(content)
	if err != nil {
		return nil, err
	}
	if _, err := e.apply([]listedProposal{stored.listedProposal}, Sender{}, &g.config); err != nil {
		if use != nil {
			use.Drop()
		}
		return nil, err
	}
	changes := func() []Record {
		var records []Record
		if update != nil {
			records = append(records, updateRecord(update.public, update.private))
		}
		return append(records, g.proposalRecord(stored)...)
	}
	done := func() {
		if update != nil {
			g.updates[string(update.public)] = update.private
			g.addSigner(update.signer)
		}
		g.addProposal(stored)
	}
	return newPending(&g.publicState, message, changes, done, nil).consuming(e.context.epoch, use), nil
}

// withNonce gives a PreSharedKey without nonce a fresh one (§8.4).
func (g *Group) withNonce(p Proposal) Proposal {
	if psk, ok := p.(PreSharedKey); ok && len(psk.ID.Nonce) == 0 {
		psk.ID.Nonce = make([]byte, g.current.suite.HashSize())
		rand.Read(psk.ID.Nonce)
		return psk
	}
	return p
}

// frameProposal signs and protects a proposal. use is nil for a PublicMessage.
func (g *Group) frameProposal(content *framedContent) (stored *storedProposal, message []byte, use *secrettree.Use, err error) {
	e := g.current
	signer, err := g.signer()
	if err != nil {
		return nil, nil, nil, err
	}
	m := &authenticatedContent{format: g.config.handshakeFormat(), content: content}
	if m.auth.signature, err = signContent(signer, m.format, content.raw, nil, e.context.raw); err != nil {
		return nil, nil, nil, err
	}
	// Decoding what goes out makes the stored proposal independent of the caller's.
	stored, err = readStoredProposal(e.suite, m.append(nil))
	if err != nil {
		return nil, nil, nil, err
	}
	if m.format == WireFormatPublicMessage {
		return stored, e.protectPublic(content, m.auth), nil, nil
	}
	if use, err = e.messages.Next(e.own, secrettree.Handshake); err != nil {
		return nil, nil, nil, err
	}
	body := content.appendBody(nil)
	message, err = e.protectPrivate(use, content.contentType, content.authenticatedData, body, m.auth, g.padding(ContentTypeProposal, len(body)))
	if err != nil {
		use.Drop()
		return nil, nil, nil, err
	}
	return stored, message, use, nil
}

// checkAdd checks what others don't hold against us when we add a member: the
// lifetime of its key package, and that it lists the group's protocol (§7.3).
func (g *Group) checkAdd(a Add) error {
	f := a.KeyPackage.leaf.fields()
	if err := g.current.requires.checkProtocol(&f); err != nil {
		return err
	}
	if at := g.config.now(); !a.KeyPackage.Lifetime().Contains(at) {
		return fmt.Errorf("%w: key package of %x", ErrLifetime, f.signatureKey)
	}
	return nil
}

func (g *Group) addSigner(s Signer) {
	for _, known := range g.signers {
		if bytes.Equal(known.Public(), s.Public()) {
			return
		}
	}
	g.signers = append(g.signers, s)
}
