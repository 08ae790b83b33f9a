package mls

import (
	"bytes"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/schedule"
	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/treemath"
)

// epoch is the state of a group in one epoch as a member has it, or as a follower does:
// then own is noLeaf, and there are no secrets. All but messages
// stays as it is until the epoch ends.
type epoch struct {
	suite    *suite.Suite
	context  *groupContext
	requires *requirements
	interim  []byte // interim_transcript_hash (§8.2)
	secrets  *schedule.Epoch
	tree     *ratchetTree
	own      LeafIndex
	keys     privateKeys
	messages *secrettree.Tree

	reinit *ReInit // the group is closed and goes on elsewhere (§11.2)
	entry  []byte  // the hash of the external commit by which we came in
	export *schedule.ExportTree
}

// after is the epoch that follows by the proposals of o, without its secrets and its
// interim transcript hash.
func (e *epoch) after(o *outcome, confirmedHash []byte) *epoch {
	return &epoch{
		suite: e.suite, requires: o.requires, tree: o.tree, own: e.own, reinit: o.reinit,
		context: e.context.next(o.tree.rootHash(), confirmedHash, cloneExtensions(o.extensions)),
	}
}

// begin derives the epoch that follows by the proposals of o (§8). initSecret is that
// of e, or of an external commit; pskSecret is that of PSKSecret. The member secret is
// for the Welcome, and the caller wipes it and the joiner secret.
func (e *epoch) begin(o *outcome, confirmedHash []byte, keys privateKeys,
	initSecret, commitSecret, pskSecret suite.Secret, window secrettree.Window) (next *epoch, joiner, member suite.Secret) {
	next = e.after(o, confirmedHash)
	next.keys = keys
	joiner = schedule.JoinerSecret(e.suite, initSecret, commitSecret, next.context.raw)
	member = schedule.MemberSecret(e.suite, joiner, pskSecret)
	epochSecret := schedule.EpochSecret(e.suite, member, next.context.raw)
	defer epochSecret.Wipe()
	next.derive(epochSecret, window)
	return next, joiner, member
}

// derive fills in what comes from the epoch secret.
func (e *epoch) derive(epochSecret suite.Secret, window secrettree.Window) {
	e.secrets = schedule.Derive(e.suite, epochSecret)
	e.export = schedule.NewExportTree(e.suite, epochSecret)
	e.messages = secrettree.New(e.suite, e.tree.size, e.secrets.Encryption, window)
	e.secrets.Encryption.Wipe()
	e.secrets.Encryption = nil
}

// confirm makes the confirmation tag and the interim transcript hash (§6.1, §8.2).
func (e *epoch) confirm() (tag []byte) {
	tag = e.suite.MAC(e.secrets.Confirmation, e.context.confirmedTranscriptHash)
	e.setTag(tag)
	return tag
}

// verifyTag checks a received confirmation tag.
func (e *epoch) verifyTag(tag []byte) error {
	if !e.suite.VerifyMAC(e.secrets.Confirmation, tag, e.context.confirmedTranscriptHash) {
		return fmt.Errorf("%w", ErrConfirmationTag)
	}
	e.setTag(tag)
	return nil
}

func (e *epoch) setTag(tag []byte) {
	e.interim = schedule.InterimTranscriptHash(e.suite, e.context.confirmedTranscriptHash, tag)
}

// wipe overwrites the secrets of an epoch that doesn't come about; keys that are
// also in keep stay.
func (e *epoch) wipe(keep privateKeys) {
	e.secrets.Wipe()
	e.export.Wipe()
	e.messages.Wipe()
	e.keys.wipeExcept(keep)
}

// next is the context of the following epoch.
func (c *groupContext) next(treeHash, confirmedHash []byte, extensions []Extension) *groupContext {
	n := &groupContext{
		version: c.version, suite: c.suite, groupID: c.groupID, epoch: c.epoch + 1,
		treeHash: append([]byte(nil), treeHash...), confirmedTranscriptHash: confirmedHash, extensions: extensions,
	}
	n.raw = n.append(nil)
	return n
}

// pastEpoch is what is kept of an epoch that has ended, to read late messages.
type pastEpoch struct {
	number     uint64
	context    []byte // encoded GroupContext
	own        LeafIndex
	size       treemath.LeafCount
	senderData suite.Secret
	resumption suite.Secret
	messages   *secrettree.Tree

	// leaves are the senders that changed when the epoch ended, as they were; nil
	// for a blank leaf.
	leaves map[LeafIndex]*pastLeaf

	// ownCommit is the hash of the commit that ended the epoch if it was ours.
	ownCommit []byte
}

// pastLeaf is what is kept of a leaf.
type pastLeaf struct {
	signatureKey []byte
	credential   Credential
}

// newPastLeaf keeps what is needed of a leaf; nil if it is blank.
func newPastLeaf(n LeafNode) *pastLeaf {
	if n.raw == nil {
		return nil
	}
	return &pastLeaf{n.SignatureKey(), n.Credential()}
}

func (l *pastLeaf) equal(o *pastLeaf) bool {
	if l == nil || o == nil {
		return l == o
	}
	return bytes.Equal(l.signatureKey, o.signatureKey) && l.credential.equal(o.credential)
}

func (p *pastEpoch) wipe() {
	p.senderData.Wipe()
	p.resumption.Wipe()
	p.messages.Wipe()
}
