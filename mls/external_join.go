package mls

import (
	"bytes"
	"crypto/rand"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/schedule"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// ExternalJoinOptions tell how to join by an external commit (§12.4.3.2).
type ExternalJoinOptions struct {
	// RatchetTree is used if the GroupInfo has no tree inside.
	RatchetTree []byte

	// Replaces tells which member is we ourselves, from an earlier time: the commit
	// removes that leaf (a resync). Nil if there is none. The other members refuse the
	// commit unless they take the new credential for that of the same client.
	Replaces func(Member) bool

	// PreSharedKeys are mixed in (§8.4); [Config].PreSharedKey has to know them.
	PreSharedKeys []PreSharedKeyID

	// AuthenticatedData goes along unencrypted.
	AuthenticatedData []byte
}

// ExternalCommit is a commit by which we join, to be sent (§12.4.3.2).
type ExternalCommit struct {
	// Message is the commit, an encoded MLSMessage.
	Message []byte

	// Group is the group as it is once the members have the commit. If another commit
	// is taken before ours, it is of no use.
	Group *Group

	// Extensions are those of the GroupInfo, without the ratchet tree and the key for
	// external commits.
	Extensions []Extension
}

// JoinExternal joins a group without a Welcome, by a commit of our own (§12.4.3.2), from
// a GroupInfo that a member made by [Group.GroupInfo], an encoded MLSMessage. c is who we
// are in the group. The whole group is checked as by [Join].
//
// It returns [ErrNoRatchetTree], [ErrNoExternalPub], [ErrPreSharedKey], or what is wrong
// with the GroupInfo, the group or c.
func JoinExternal(groupInfo []byte, c Client, opts ExternalJoinOptions, config Config) (*Pending[*ExternalCommit], error) {
	x, err := joinExternal(groupInfo, c, opts, config)
	if err != nil {
		return nil, fmt.Errorf("mls: external join: %w", err)
	}
	return newPending(&x.Group.publicState, x, x.Group.records, nil, nil), nil
}

func readPublicInfo(message []byte) (*groupInfo, error) {
	m, err := UnmarshalMessage(message)
	if err != nil {
		return nil, err
	}
	if m.groupInfo == nil {
		return nil, fmt.Errorf("%w: %d", ErrWireFormat, m.format)
	}
	return m.groupInfo, nil
}

func joinExternal(message []byte, c Client, opts ExternalJoinOptions, config Config) (*ExternalCommit, error) {
	info, err := readPublicInfo(message)
	if err != nil {
		return nil, err
	}
	s, err := lookupSuite(info.context.suite, config.Suites)
	if err != nil {
		return nil, err
	}
	if c.CipherSuite != info.context.suite {
		return nil, fmt.Errorf("%w: the group has %d", ErrUnsupportedCipherSuite, info.context.suite)
	}
	e, err := info.check(s, opts.RatchetTree)
	if err != nil {
		return nil, err
	}
	e.setTag(info.confirmationTag)
	list, initSecret, err := e.entryProposals(info, opts)
	if err != nil {
		return nil, err
	}
	defer initSecret.Wipe()
	from := Sender{Type: SenderNewMemberCommit}
	o, err := e.apply(list, from, &config)
	if err != nil {
		return nil, err
	}
	path, err := e.entryPath(o, c)
	if err != nil {
		return nil, err
	}
	defer path.wipeSecrets()
	if err := config.authenticate(everybody(o.tree)); err != nil {
		return nil, err
	}
	provisional := e.context.next(o.tree.rootHash(), e.context.confirmedTranscriptHash, o.extensions)
	if err := path.encrypt(o.tree, nil, provisional.raw); err != nil {
		return nil, err
	}
	content := &framedContent{
		groupID: e.context.groupID, epoch: e.context.epoch, sender: from,
		authenticatedData: bytes.Clone(opts.AuthenticatedData), contentType: ContentTypeCommit, commit: &commit{path: path.path},
	}
	for _, p := range list {
		content.commit.proposals = append(content.commit.proposals, proposalOrRef{proposal: p.proposal})
	}
	content.raw = content.append(nil)
	m := &authenticatedContent{format: WireFormatPublicMessage, content: content}
	if m.auth.signature, err = signContent(c.Signer, m.format, content.raw, nil, e.context.raw); err != nil {
		return nil, err
	}
	pskSecret, err := foldPSKs(s, o.psks, config.preSharedKey)
	if err != nil {
		return nil, err
	}
	defer pskSecret.Wipe()
	e.own = o.committer
	next, joiner, member := e.begin(o, m.confirmedHash(e), path.keys, initSecret, path.commitSecret, pskSecret, config.ratchetWindow())
	joiner.Wipe()
	member.Wipe()
	m.auth.confirmationTag = next.confirm()
	next.tree.settle()
	out := &publicMessage{content: content, auth: m.auth}
	x := &ExternalCommit{
		Message:    out.append(appendMessageHead(nil, WireFormatPublicMessage)),
		Group:      newGroup(next, config, c.Signer),
		Extensions: info.others(),
	}
	next.entry = s.Hash(nil, x.Message)
	return x, nil
}

// externalPub is the key for external commits (§12.4.3.2).
func (info *groupInfo) externalPub() ([]byte, error) {
	data, ok := extensionData(info.extensions, ExtensionExternalPub)
	if !ok {
		return nil, ErrNoExternalPub
	}
	r := wire.NewReader(data)
	public := r.Opaque()
	if err := r.Done(); err != nil {
		return nil, malformed("external public key", err)
	}
	return public, nil
}

// entryProposals are what one who joins commits, and the init secret that the members
// get by it (§8.3, §12.4.3.2).
func (e *epoch) entryProposals(info *groupInfo, opts ExternalJoinOptions) ([]listedProposal, suite.Secret, error) {
	public, err := info.externalPub()
	if err != nil {
		return nil, nil, err
	}
	from := Sender{Type: SenderNewMemberCommit}
	var list []listedProposal
	if opts.Replaces != nil {
		for i, leaf := range e.tree.leaves() {
			if opts.Replaces(Member{i, leaf}) {
				list = append(list, listedProposal{proposal: Remove{i}, sender: from})
			}
		}
	}
	for _, id := range opts.PreSharedKeys {
		if len(id.Nonce) == 0 {
			id.Nonce = make([]byte, e.suite.HashSize())
			rand.Read(id.Nonce)
		}
		list = append(list, listedProposal{proposal: PreSharedKey{id}, sender: from})
	}
	kemOutput, secret, err := schedule.SendExternalInit(e.suite, public)
	if err != nil {
		return nil, nil, fmt.Errorf("external public key: %w", err)
	}
	return append(list, listedProposal{proposal: ExternalInit{kemOutput}, sender: from}), secret, nil
}

// entryPath makes the leaf of one who joins, and the path above it.
func (e *epoch) entryPath(o *outcome, c Client) (*ownPath, error) {
	f := c.leaf()
	if err := o.requires.checkProtocol(&f); err != nil {
		return nil, err
	}
	if x, ok := o.tree.findKey(signatureKeys, f.signatureKey); ok {
		return nil, fmt.Errorf("%w: our signature key is that of leaf %d", ErrDuplicateKey, x.Leaf())
	}
	o.changing(o.committer)
	path, err := o.tree.createPath(o.committer, f, c.Signer, e.context.groupID)
	if err != nil {
		return nil, err
	}
	return path, o.checkPathLeaf(e, path.path.leaf, o.committer)
}
