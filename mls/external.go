package mls

import (
	"bytes"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/schedule"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// ExternalSender is somebody who is no member but may make proposals to a group: Add,
// Remove, PreSharedKey, ReInit and GroupContextExtensions (§12.1.8.1).
type ExternalSender struct {
	SignatureKey []byte
	Credential   Credential
}

// ExternalSenders makes the group context's extension that lists external senders
// (§12.1.8.1). A sender is named by its position.
func ExternalSenders(list ...ExternalSender) Extension {
	data := wire.AppendVector(nil, func(b []byte) []byte {
		for _, s := range list {
			b = wire.AppendOpaque(b, s.SignatureKey)
			b = s.Credential.append(b)
		}
		return b
	})
	return Extension{ExtensionExternalSenders, data}
}

func readExternalSenders(exts []Extension) ([]ExternalSender, error) {
	data, ok := extensionData(exts, ExtensionExternalSenders)
	if !ok {
		return nil, nil
	}
	var list []ExternalSender
	r := wire.NewReader(data)
	r.Vector(func(r *wire.Reader) { list = append(list, ExternalSender{r.Opaque(), readCredential(r)}) })
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("external senders: %w: %w", ErrMalformed, err)
	}
	return list, nil
}

// mayPropose tells whether somebody who is no member may make a proposal (§12.1.8).
func (s Sender) mayPropose(p Proposal) bool {
	switch p.(type) {
	case Add:
		return true
	case Remove, PreSharedKey, ReInit, GroupContextExtensions:
		return s.Type == SenderExternal
	}
	return false
}

// outsider is the key that verifies content of somebody who is no member, and the
// context that was signed with it: only who joins knows that (§6.1).
func (e *epoch) outsider(c *framedContent) (key, context []byte, err error) {
	if (c.contentType == ContentTypeCommit) != (c.sender.Type == SenderNewMemberCommit) {
		return nil, nil, fmt.Errorf("%w: %v sends content type %d", ErrSender, c.sender, c.contentType)
	}
	if c.sender.Type == SenderNewMemberCommit {
		if c.commit.path == nil {
			return nil, nil, ErrMissingPath
		}
		return c.commit.path.leaf.signatureKey(), e.context.raw, nil
	}
	if !c.sender.mayPropose(c.proposal) {
		return nil, nil, fmt.Errorf("%w: %v proposes type %d", ErrSender, c.sender, c.proposal.ProposalType())
	}
	if c.sender.Type == SenderNewMemberProposal {
		return c.proposal.(Add).KeyPackage.leaf.signatureKey(), nil, nil
	}
	list, err := readExternalSenders(e.context.extensions)
	if err != nil {
		return nil, nil, err
	}
	if uint64(c.sender.Index) >= uint64(len(list)) {
		return nil, nil, fmt.Errorf("%w: %v of %d", ErrSender, c.sender, len(list))
	}
	return list[c.sender.Index].SignatureKey, nil, nil
}

// OutsideProposal is a proposal to a group by somebody who is no member (§12.1.8). A
// group takes it only in the epoch that it is for.
type OutsideProposal struct {
	GroupID           []byte
	Epoch             uint64
	Proposal          Proposal
	AuthenticatedData []byte
}

// SignExternal makes the proposal that of an external sender (§12.1.8.1), who is at
// position index of the group's list: an encoded MLSMessage. A [PreSharedKey] needs its
// nonce, which has the length of the suite's hash. It returns [ErrSender] if external
// senders may not make such a proposal.
func (p OutsideProposal) SignExternal(index uint32, signer Signer) ([]byte, error) {
	return p.sign(Sender{SenderExternal, index}, signer)
}

// SignNewMember makes an [Add] the proposal of the one who is to be added, whose
// key signs it (§12.1.8): an encoded MLSMessage. It returns [ErrSender] if it is
// another kind of proposal, [ErrSigner] if the key package is another's.
func (p OutsideProposal) SignNewMember(signer Signer) ([]byte, error) {
	if add, ok := p.Proposal.(Add); ok && !bytes.Equal(add.KeyPackage.leaf.signatureKey(), signer.Public()) {
		return nil, fmt.Errorf("mls: outside proposal: %w", ErrSigner)
	}
	return p.sign(Sender{Type: SenderNewMemberProposal}, signer)
}

func (p OutsideProposal) sign(from Sender, signer Signer) ([]byte, error) {
	if !from.mayPropose(p.Proposal) {
		return nil, fmt.Errorf("mls: outside proposal: %w: type %d", ErrSender, p.Proposal.ProposalType())
	}
	content := &framedContent{
		groupID: p.GroupID, epoch: p.Epoch, sender: from,
		authenticatedData: p.AuthenticatedData, contentType: ContentTypeProposal, proposal: p.Proposal,
	}
	content.raw = content.append(nil)
	sig, err := signContent(signer, WireFormatPublicMessage, content.raw, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("mls: outside proposal: %w", err)
	}
	m := &publicMessage{content: content, auth: contentAuth{signature: sig}}
	return m.append(appendMessageHead(nil, WireFormatPublicMessage)), nil
}

// sortExternal checks the list of one who joins (§12.2, §12.4.3.2): an ExternalInit, at
// most the removal of an own earlier leaf, pre-shared keys; and of others' proposals
// those that they remove themselves.
func (o *outcome) sortExternal(e *epoch, list []listedProposal, _ *Config) error {
	o.needsPath = true
	leaving := map[LeafIndex]bool{}
	leave := func(i LeafIndex) error {
		if _, ok := e.tree.leaf(i); !ok {
			return invalidProposal("leaf %d is blank", i)
		}
		if leaving[i] {
			return invalidProposal("leaf %d is removed twice", i)
		}
		leaving[i] = true
		return nil
	}
	var special []ProposalType
	for _, p := range list {
		var err error
		switch v := p.proposal.(type) {
		case SelfRemove:
			special = append(special, ProposalSelfRemove)
			if err = leave(p.leaf()); err == nil && p.ref == nil {
				err = invalidProposal("SelfRemove by value")
			}
		case ExternalInit:
			if o.kemOutput != nil {
				err = invalidProposal("two ExternalInit")
			}
			o.kemOutput = v.KEMOutput
		case Remove:
			if o.replaced != noLeaf {
				err = invalidProposal("an external commit removes two leaves")
			} else if err = leave(v.Leaf); err == nil {
				o.replaced = v.Leaf
			}
		case PreSharedKey:
		default:
			err = invalidProposal("type %#04x in an external commit", uint16(v.ProposalType()))
		}
		if err == nil && p.ref != nil && p.proposal.ProposalType() != ProposalSelfRemove {
			err = invalidProposal("an external commit refers to a proposal")
		}
		if err != nil {
			return err
		}
	}
	if o.kemOutput == nil {
		return invalidProposal("an external commit without ExternalInit")
	}
	return e.supported(special, leaving)
}

// receiveExternalInit recovers the init secret of an external commit (§8.3).
func (e *epoch) receiveExternalInit(kemOutput []byte) (suite.Secret, error) {
	pair, err := e.suite.DeriveKeyPair(e.secrets.External)
	if err != nil {
		return nil, err
	}
	defer clear(pair.Private)
	secret, err := schedule.ReceiveExternalInit(e.suite, pair, kemOutput)
	if err != nil {
		return nil, fmt.Errorf("%w: external init: %w", ErrDecrypt, err)
	}
	return secret, nil
}

// GroupInfoOptions tell what goes into a GroupInfo (§12.4.3).
type GroupInfoOptions struct {
	// ExternalTree leaves the ratchet tree out: who joins then needs
	// [Group.RatchetTree] by other means.
	ExternalTree bool

	// Extensions are added.
	Extensions []Extension
}

// GroupInfo makes what others need to join by [JoinExternal] in this epoch, an encoded
// MLSMessage (§12.4.3.2). Whoever has it can join; it shows the members.
func (g *Group) GroupInfo(opts GroupInfoOptions) ([]byte, error) {
	b, err := g.publicInfo(opts)
	if err != nil {
		return nil, fmt.Errorf("mls: group info: %w", err)
	}
	return b, nil
}

func (g *Group) publicInfo(opts GroupInfoOptions) ([]byte, error) {
	if g.inactive {
		return nil, ErrInactive
	}
	e := g.current
	if e.reinit != nil {
		return nil, ErrReInit
	}
	pair, err := e.suite.DeriveKeyPair(e.secrets.External)
	if err != nil {
		return nil, err
	}
	clear(pair.Private)
	signer, err := g.signer()
	if err != nil {
		return nil, err
	}
	tag := e.suite.MAC(e.secrets.Confirmation, e.context.confirmedTranscriptHash)
	info := &groupInfo{context: e.context, confirmationTag: tag, signer: e.own}
	info.extensions = []Extension{{ExtensionExternalPub, wire.AppendOpaque(nil, pair.Public)}}
	if !opts.ExternalTree {
		info.extensions = append(info.extensions, Extension{ExtensionRatchetTree, g.RatchetTree()})
	}
	info.extensions = append(info.extensions, opts.Extensions...)
	info.grease(&g.config)
	if err := info.sign(signer); err != nil {
		return nil, err
	}
	return wire.AppendOpaque(append(appendMessageHead(nil, WireFormatGroupInfo), info.unsigned...), info.signature), nil
}

// sign completes a GroupInfo (§12.4.3).
func (g *groupInfo) sign(signer Signer) error {
	if err := checkExtensionsUnique(g.extensions); err != nil {
		return err
	}
	g.unsigned = g.appendUnsigned(nil)
	var err error
	if g.signature, err = suite.SignWithLabel(signer, "GroupInfoTBS", g.unsigned); err != nil {
		return fmt.Errorf("signing the GroupInfo: %w", err)
	}
	return nil
}
