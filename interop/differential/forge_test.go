package differential

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls"
)

// epoch is what a malicious member knows of an epoch: all of its secrets.
type epoch struct {
	scheme
	context groupContext
	raw     []byte // the encoded context
	tree    tree
	signers map[string]mls.Signer // by public key: everybody's, of members past and future too
	pending map[string]listed     // proposals by reference
	psks    map[string][]byte     // external PSKs

	ratchets map[uint32]ratchet // by leaf

	initSecret, senderDataSecret, membershipKey, externalSecret, resumption, confirmationTag []byte
}

// tag makes the membership tag of a message (§6.2).
func (e *epoch) tag(m *publicMessage) {
	if m.Content.SenderType != senderMember {
		return
	}
	b := append(contentTBS(formatPublic, &m.Content, e.raw), marshal(m.Signature)...)
	if m.Content.ContentType == contentCommit {
		b = append(b, marshal(m.ConfirmationTag)...)
	}
	m.MembershipTag = e.mac(e.membershipKey, b)
}

// proposalRef is the reference of a proposal (§5.2).
func (e *epoch) proposalRef(format uint16, c framedContent, signature []byte) []byte {
	b := append([]byte{0, byte(format)}, marshal(c)...)
	return e.reference("Proposal Reference", append(b, marshal(signature)...))
}

func (e *epoch) content(by uint32) framedContent {
	return framedContent{GroupID: e.context.GroupID, Epoch: e.context.Epoch, SenderType: senderMember, SenderIndex: by}
}

// propose makes a member's proposal.
func (e *epoch) propose(by uint32, p proposal, private bool) message {
	c := e.content(by)
	c.ContentType, c.Proposal = contentProposal, p
	m := publicMessage{Content: c}
	m.Signature = sign(e.signerOf(by), "FramedContentTBS", contentTBS(wireFormat(private), &c, e.raw))
	e.tag(&m)
	return e.message(m, by, private)
}

func wireFormat(private bool) uint16 {
	if private {
		return formatPrivate
	}
	return formatPublic
}

// message is m as it is sent.
func (e *epoch) message(m publicMessage, by uint32, private bool) message {
	if private {
		return e.private(m, by)
	}
	return message{Version: 1, Format: formatPublic, Public: m}
}

func (e *epoch) signerOf(leaf uint32) mls.Signer {
	return e.signers[string(e.tree[nodeOf(int(leaf))].Leaf.SignatureKey)]
}

// signerAt is the signer of a leaf; false if there is no such member.
func (e *epoch) signerAt(leaf uint32) (mls.Signer, bool) {
	x := nodeOf(int(leaf))
	if x >= len(e.tree) || e.tree[x] == nil {
		return nil, false
	}
	by, ok := e.signers[string(e.tree[x].Leaf.SignatureKey)]
	return by, ok
}

// A plan is a commit to be forged. The functions change what they get before it is signed
// or sealed, so that the rest of the commit fits to the change.
type plan struct {
	by        uint32 // the committer's leaf, unless it joins
	joining   *leafNode
	proposals []proposalOrRef
	noPath    bool
	private   bool // it is sent as a PrivateMessage

	leaf     func(*leafNode)      // before it is signed
	nodes    func([]pathNode)     // keys of the path, before parent hashes
	path     func(*updatePath)    // the sealed path
	content  func(*framedContent) // before it is signed
	sent     func(*publicMessage) // at the end
	contexts func(*groupContext)  // the new epoch's context, before its secrets
	secrets  func(*[]byte)        // the commit secret
}

// forged is a commit with its path, if it has one.
type forged struct {
	message   []byte
	path      *updatePath
	belowRoot bool // the path ends below the root
}

var errForge = errors.New("differential: can't be forged")

// commit forges a commit whose keys, hashes and tags are all right.
func (e *epoch) commit(p plan) (*forged, error) {
	var list []listed
	for _, q := range p.proposals {
		if q.Type == 1 {
			list = append(list, listed{q.Proposal, p.by})
		} else if known, ok := e.pending[string(q.Ref)]; ok {
			list = append(list, known)
		}
	}
	t, added, extensions, replaced := e.tree.apply(list)
	next := duplicate(e.context)
	next.Epoch++
	if replaced {
		next.Extensions = extensions
	}
	content := e.content(p.by)
	content.ContentType, content.Commit.Proposals = contentCommit, p.proposals
	at := nodeOf(int(p.by))
	initSecret := e.initSecret
	if p.joining != nil {
		content.SenderType = senderJoining
		t, at = t.place()
		t[at] = &treeNode{Type: 1, Leaf: duplicate(*p.joining)}
		if i := slices.IndexFunc(p.proposals, func(q proposalOrRef) bool { return q.Proposal.Type == typeExternalInit }); i >= 0 {
			kem, secret, err := e.externalInit()
			if err != nil {
				return nil, err
			}
			p.proposals[i].Proposal.ExternalInit, initSecret = kem, secret
		}
	}
	if at >= len(t) || t[at] == nil || t[at].Type != 1 {
		return nil, fmt.Errorf("%w: no committer after the proposals", errForge)
	}
	signer := e.signerOr(t[at].Leaf.SignatureKey, e.anybody())
	commitSecret := make([]byte, e.size())
	if !p.noPath {
		var path *updatePath
		var err error
		if path, commitSecret, err = e.path(t, at, added, next, p); err != nil {
			return nil, err
		}
		content.Commit.Path = path
	}
	if p.secrets != nil {
		p.secrets(&commitSecret)
	}
	if p.content != nil {
		p.content(&content)
	}
	next.TreeHash = t.hash(e.scheme, t.root())
	m := publicMessage{Content: content}
	m.Signature = sign(signer, "FramedContentTBS", contentTBS(wireFormat(p.private), &content, e.raw))
	interim := e.hash(e.context.ConfirmedTranscriptHash, marshal(e.confirmationTag))
	input := append([]byte{0, byte(wireFormat(p.private))}, marshal(content)...)
	next.ConfirmedTranscriptHash = e.hash(interim, input, marshal(m.Signature))
	if p.contexts != nil {
		p.contexts(&next)
	}
	context := marshal(next)
	pskSecret, err := e.pskSecret(list)
	if err != nil {
		return nil, err
	}
	joiner := e.expand(e.extract(initSecret, commitSecret), "joiner", context, e.size())
	secret := e.expand(e.extract(joiner, pskSecret), "epoch", context, e.size())
	m.ConfirmationTag = e.mac(e.derive(secret, "confirm"), next.ConfirmedTranscriptHash)
	e.tag(&m)
	if p.sent != nil {
		p.sent(&m)
	}
	return &forged{marshal(e.message(m, p.by, p.private)), content.Commit.Path, !p.noPath && t.belowRoot(at)}, nil
}

// path makes the path of node at in t, which has the proposals applied, and merges it
// into t (§7.5).
func (e *epoch) path(t tree, at int, added []int, next groupContext, p plan) (*updatePath, []byte, error) {
	filtered := t.filteredPath(at)
	resolutions := make([][]int, len(filtered))
	for i, x := range filtered {
		resolutions[i] = slices.DeleteFunc(t.resolution(away(x, at)), func(y int) bool { return slices.Contains(added, y) })
	}
	secret := random(e.size())
	secrets := make([][]byte, len(filtered))
	path := &updatePath{Nodes: make([]pathNode, len(filtered))}
	for i := range filtered {
		pair, err := e.hpke.KEM().DeriveKeyPair(e.derive(secret, "node"))
		if err != nil {
			return nil, nil, err
		}
		path.Nodes[i].EncryptionKey, secrets[i] = pair.Public, secret
		secret = e.derive(secret, "path")
	}
	if p.nodes != nil {
		p.nodes(path.Nodes)
	}
	t.blankAbove(at)
	for i, x := range filtered {
		t[x] = &treeNode{Type: 2, Parent: parentNode{EncryptionKey: path.Nodes[i].EncryptionKey}}
	}
	var above []byte
	for i, x := range slices.Backward(filtered) {
		t[x].Parent.ParentHash = above
		b := append(marshal(path.Nodes[i].EncryptionKey), marshal(above)...)
		above = e.hash(append(b, marshal(t.hash(e.scheme, away(x, at)))...))
	}
	pair, err := e.hpke.KEM().GenerateKeyPair()
	if err != nil {
		return nil, nil, err
	}
	leaf := &t[at].Leaf
	leaf.EncryptionKey, leaf.Source, leaf.ParentHash = pair.Public, fromCommit, above
	by := e.signerOr(leaf.SignatureKey, e.anybody())
	if p.leaf != nil {
		p.leaf(leaf)
	}
	by = e.signerOr(leaf.SignatureKey, by)
	signLeaf(leaf, by, e.context.GroupID, uint32(at/2))
	path.Leaf = duplicate(*leaf)
	next.TreeHash = t.hash(e.scheme, t.root())
	context := marshal(next)
	for i, targets := range resolutions {
		for _, x := range targets {
			key := e.keyBefore(t, x, filtered)
			sealed, err := e.seal(key, "UpdatePathNode", context, secrets[i])
			if err != nil {
				sealed = ciphertext{random(32), random(48)} // to a key that is none
			}
			path.Nodes[i].Secrets = append(path.Nodes[i].Secrets, sealed)
		}
	}
	if p.path != nil {
		p.path(path)
	}
	return path, secret, nil
}

// keyBefore is the key of a node of a copath, which the path leaves alone.
func (e *epoch) keyBefore(t tree, x int, filtered []int) []byte {
	if slices.Contains(filtered, x) {
		return nil
	}
	return t.key(x)
}

func (e *epoch) externalInit() (kem, secret []byte, err error) {
	pair, err := e.hpke.KEM().DeriveKeyPair(e.externalSecret)
	if err != nil {
		return nil, nil, err
	}
	kem, context, err := e.hpke.NewSender(pair.Public, e.hpke.Info())
	if err != nil {
		return nil, nil, err
	}
	secret, err = context.Export([]byte("MLS 1.0 external init secret"), e.size())
	return kem, secret, err
}

// pskSecret mixes the pre-shared keys (§8.4).
func (e *epoch) pskSecret(list []listed) ([]byte, error) {
	var ids []pskID
	for _, p := range list {
		if p.proposal.Type == typePSK {
			ids = append(ids, p.proposal.PSK)
		}
	}
	zero := make([]byte, e.size())
	secret := zero
	for i, id := range ids {
		key := e.psks[string(id.ID)]
		if id.Type == 2 {
			key = e.resumption
		}
		label := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(marshal(id), uint16(i)), uint16(len(ids)))
		input := e.expand(e.extract(zero, key), "derived psk", label, e.size())
		secret = e.extract(input, secret)
	}
	return secret, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func byValue(list ...proposal) []proposalOrRef {
	var out []proposalOrRef
	for _, p := range list {
		out = append(out, proposalOrRef{Type: 1, Proposal: p})
	}
	return out
}
