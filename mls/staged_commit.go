package mls

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/schedule"
	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// StagedCommit is a commit that was checked and worked out, but not merged: what
// the group will be (§12.4.2). It is the [Event] of a received commit, whose
// [Pending] merges it by Done and refuses it by Discard.
type StagedCommit struct {
	Committer         LeafIndex
	External          bool   // the committer joins by the commit (§12.4.3.2)
	Own               bool   // we made the commit
	Epoch             uint64 // the epoch that it begins
	AuthenticatedData []byte
	Proposals         []CommittedProposal
	HasPath           bool

	// Added are the new members, Updated those with a new leaf (a committer with
	// a path among them), Removed those that leave, with their last leaf.
	Added, Updated, Removed []Member

	// SelfRemoved tells that we are among Removed.
	SelfRemoved bool

	// Extensions are those of the group context from now on.
	Extensions []Extension

	// ReInit is set if the commit closes the group, which goes on in a new one
	// (§11.2): see [Group.Reinitialize].
	ReInit *ReInit

	next *epoch // nil if we are removed, or a follower
}

// EpochAuthenticator is that of the epoch that the commit begins (§8.7), as
// [Group.EpochAuthenticator] returns it once the commit is merged; nil if we are
// removed by it, and for a [Follower]. It is gone when the result that the commit came with is discarded.
func (s *StagedCommit) EpochAuthenticator() []byte {
	if s.next == nil {
		return nil
	}
	return bytes.Clone(s.next.secrets.Authenticator)
}

// CommittedProposal is a proposal in a commit (§12.4).
type CommittedProposal struct {
	Proposal    Proposal
	Sender      Sender
	ByReference bool
}

func (*StagedCommit) isEvent() {}

// transition is a commit worked out, ready to be merged.
type transition struct {
	staged *StagedCommit
	next   *epoch                 // nil if we are removed
	before map[LeafIndex]LeafNode // the leaves that changed, as they were

	// For our own commits: the hash of the message, and the FramedContent, but for
	// the nodes of the path, which describes the commit when the state is loaded.
	hash    []byte
	content []byte
}

// describe makes the public view of a commit.
func (e *epoch) describe(o *outcome, content *framedContent, list []listedProposal) *StagedCommit {
	s := &StagedCommit{
		Committer:         o.committer,
		External:          o.external,
		ReInit:            o.reinit,
		Epoch:             content.epoch + 1,
		AuthenticatedData: bytes.Clone(content.authenticatedData),
		HasPath:           content.commit.path != nil,
		SelfRemoved:       o.removed,
		Extensions:        cloneExtensions(o.extensions),
	}
	s.Own = content.sender.is(e.own)
	for _, p := range list {
		s.Proposals = append(s.Proposals, CommittedProposal{p.proposal, p.sender, p.ref != nil})
	}
	for _, i := range slices.Sorted(maps.Keys(o.before)) {
		before := o.before[i]
		after, present := o.tree.leaf(i)
		joined := o.external && i == o.committer
		if present && !joined && after.Source() != LeafNodeFromKeyPackage {
			s.Updated = append(s.Updated, Member{i, after})
			continue
		}
		if before.raw != nil {
			s.Removed = append(s.Removed, Member{i, before})
		}
		if present {
			s.Added = append(s.Added, Member{i, after})
		}
	}
	return s
}

// stage works out a commit of another member whose signature was checked (§12.4.2).
func (g *Group) stage(m *authenticatedContent) (*transition, error) {
	o, list, err := g.workOut(m)
	if err != nil {
		return nil, err
	}
	e, c := g.current, m.content.commit
	tr := &transition{staged: e.describe(o, m.content, list), before: o.before}
	if o.removed {
		return tr, nil
	}

	keys, err := g.keysAfter(o)
	if err != nil {
		return nil, err
	}
	drop := func() { keys.wipeExcept(e.keys) }
	commitSecret := make(suite.Secret, e.suite.HashSize())
	if c.path != nil {
		provisional := e.context.next(o.tree.rootHash(), e.context.confirmedTranscriptHash, o.extensions)
		if commitSecret, err = o.tree.decryptPath(e.own, keys, o.path, c.path, o.newcomers(), provisional.raw); err != nil {
			drop()
			return nil, err
		}
	}
	defer commitSecret.Wipe()
	pskSecret, err := g.pskSecret(o.psks)
	if err != nil {
		drop()
		return nil, err
	}
	defer pskSecret.Wipe()
	initSecret := e.secrets.Init
	if o.external {
		if initSecret, err = e.receiveExternalInit(o.kemOutput); err != nil {
			drop()
			return nil, err
		}
		defer initSecret.Wipe()
	}
	next, joiner, member := e.begin(o, m.confirmedHash(e), keys, initSecret, commitSecret, pskSecret, g.config.ratchetWindow())
	joiner.Wipe()
	member.Wipe()
	if err := next.verifyTag(m.auth.confirmationTag); err != nil {
		next.wipe(e.keys)
		return nil, err
	}
	tr.next, tr.staged.next = next, next
	return tr, nil
}

// keysAfter are our private keys after a list of proposals: without those of nodes
// that were blanked, and with the new leaf key if our Update is in the list.
func (g *Group) keysAfter(o *outcome) (privateKeys, error) {
	keys := maps.Clone(g.current.keys)
	keys.prune(o.tree)
	if o.ownUpdate != nil {
		key, ok := g.updates[string(o.ownUpdate.LeafNode.encryptionKey())]
		if !ok {
			return nil, invalidProposal("an Update of ours that we don't know")
		}
		keys[g.current.own.Node()] = slices.Clone(key)
	}
	return keys, nil
}

// confirmedHash hashes a commit onto the transcript (§8.2).
func (m *authenticatedContent) confirmedHash(e *epoch) []byte {
	return schedule.ConfirmedTranscriptHash(e.suite, e.interim,
		wire.AppendUint16(nil, uint16(m.format)), m.content.raw, wire.AppendOpaque(nil, m.auth.signature))
}

// pskSecret folds the pre-shared keys of a commit (§8.4).
func (g *Group) pskSecret(ids []PreSharedKeyID) (suite.Secret, error) {
	return foldPSKs(g.current.suite, ids, func(id PreSharedKeyID) ([]byte, error) {
		if secret := g.resumption(id); secret != nil {
			return secret, nil
		}
		return g.config.preSharedKey(id)
	})
}

// resumption is the resumption PSK of an epoch of this group that is kept; nil if
// there is none (§8.6).
func (g *Group) resumption(id PreSharedKeyID) []byte {
	if id.Type != PSKResumption || !bytes.Equal(id.GroupID, g.current.context.groupID) {
		return nil
	}
	if id.Epoch == g.Epoch() {
		return g.current.secrets.Resumption
	}
	for _, p := range g.past {
		if p.number == id.Epoch {
			return p.resumption
		}
	}
	return nil
}

func (c *Config) preSharedKey(id PreSharedKeyID) ([]byte, error) {
	if secret := c.predecessor.secret(id); secret != nil {
		return secret, nil
	}
	if c.PreSharedKey == nil {
		return nil, ErrPreSharedKey
	}
	key, err := c.PreSharedKey(id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPreSharedKey, err)
	}
	return key, nil
}

func foldPSKs(s *suite.Suite, ids []PreSharedKeyID, find func(PreSharedKeyID) ([]byte, error)) (suite.Secret, error) {
	psks := make([]schedule.PSK, 0, len(ids))
	defer func() {
		for _, p := range psks {
			p.Secret.Wipe()
		}
	}()
	for _, id := range ids {
		key, err := find(id)
		if err != nil {
			return nil, err
		}
		psks = append(psks, schedule.PSK{ID: id.append(nil), Secret: slices.Clone(key)})
	}
	return schedule.PSKSecret(s, psks)
}

// wipe overwrites the secrets of a transition that doesn't come about.
func (tr *transition) wipe(current *epoch) {
	if tr.next != nil {
		tr.next.wipe(current.keys)
	}
}

// merge prepares that tr takes effect. use is the handshake key of the message that
// brought it, nil if it had none.
func (g *Group) merge(tr *transition, use *secrettree.Use) (changes func() []Record, done func()) {
	changes = func() []Record { return g.mergeRecords(tr, use) }
	done = func() {
		old := g.current
		g.proposals = nil
		for _, key := range g.updates {
			key.Wipe()
		}
		clear(g.updates)
		if g.ownCommit != nil && g.ownCommit != tr {
			g.ownCommit.wipe(old)
		}
		g.ownCommit = nil
		if tr.next == nil {
			g.leave()
			return
		}
		g.past = append([]*pastEpoch{g.pastEpoch(tr)}, g.past...)
		g.current = tr.next
		g.current.tree.settle()
		old.keys.wipeExcept(g.current.keys)
		old.secrets.SenderData, old.secrets.Resumption = nil, nil // the past epoch has them now
		old.secrets.Wipe()
		old.export.Wipe()
		for len(g.past) > g.config.windows().PastEpochs {
			last := len(g.past) - 1
			g.past[last].wipe()
			g.past = g.past[:last]
		}
	}
	return changes, done
}

// pastEpoch is what stays of the current epoch after tr.
func (g *Group) pastEpoch(tr *transition) *pastEpoch {
	e := g.current
	p := &pastEpoch{
		number: e.context.epoch, context: e.context.raw, own: e.own, size: e.tree.size,
		senderData: e.secrets.SenderData, resumption: e.secrets.Resumption, messages: e.messages,
		leaves: make(map[LeafIndex]*pastLeaf), ownCommit: tr.hash,
	}
	for i, before := range tr.before {
		after, _ := tr.next.tree.leaf(i)
		if was := newPastLeaf(before); !was.equal(newPastLeaf(after)) {
			p.leaves[i] = was
		}
	}
	return p
}

// leave drops what a removed member has no more use for: late messages of the
// epochs that it was in stay readable.
func (g *Group) leave() {
	e := g.current
	g.inactive = true
	e.keys.wipeExcept(nil)
	e.keys = nil
	e.export.Wipe()
	e.export = nil
	for _, secret := range []*suite.Secret{
		&e.secrets.Exporter, &e.secrets.External, &e.secrets.Confirmation,
		&e.secrets.Membership, &e.secrets.Resumption, &e.secrets.Init,
	} {
		secret.Wipe()
		*secret = nil
	}
}
