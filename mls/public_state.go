package mls

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
)

// publicState is what a [Group] and a [Follower] have in common: the state of a group
// as far as it isn't secret, and how public messages change it.
type publicState struct {
	config    Config
	current   *epoch            // a follower's is without secrets
	proposals []*storedProposal // that wait for a commit
	inactive  bool              // we were removed
	pending   bool              // a Pending is open
	parked    *parkedTree       // then current has no tree
}

// ID is the group's identifier (§8.1).
func (g *publicState) ID() []byte { return bytes.Clone(g.current.context.groupID) }

// Epoch counts the commits of the group (§8.1). It stays after the removal of the
// member whose state this is.
func (g *publicState) Epoch() uint64 { return g.current.context.epoch }

// CipherSuite is the group's suite (§8.1).
func (g *publicState) CipherSuite() CipherSuite { return g.current.context.suite }

// Extensions are the extensions of the group context, in order (§8.1).
func (g *publicState) Extensions() []Extension { return cloneExtensions(g.current.context.extensions) }

// Extension is the body of the group context's extension of type t, if it is there
// (§8.1).
func (g *publicState) Extension(t ExtensionType) ([]byte, bool) {
	data, ok := extensionData(g.current.context.extensions, t)
	return bytes.Clone(data), ok
}

// Context is the encoded GroupContext (§8.1).
func (g *publicState) Context() []byte { return bytes.Clone(g.current.context.raw) }

// ReInit is the proposal that has closed the group; false if it is open (§11.2).
func (g *publicState) ReInit() (ReInit, bool) {
	r := g.current.reinit
	if r == nil {
		return ReInit{}, false
	}
	return ReInit{bytes.Clone(r.GroupID), r.Version, r.CipherSuite, cloneExtensions(r.Extensions)}, true
}

// ExternalSenders lists the external senders of the group (§12.1.8.1).
func (g *publicState) ExternalSenders() []ExternalSender {
	// Both are checked whenever a context comes about.
	list, _ := readExternalSenders(g.current.context.extensions)
	for i := range list {
		list[i].SignatureKey = bytes.Clone(list[i].SignatureKey)
		list[i].Credential.Data = bytes.Clone(list[i].Credential.Data)
	}
	return list
}

// Members yields the members in the order of their leaves (§4).
func (g *publicState) Members() iter.Seq[Member] {
	t := g.tree()
	return func(yield func(Member) bool) {
		for i, leaf := range t.leaves() {
			if !yield(Member{i, leaf}) {
				return
			}
		}
	}
}

// Member is the member at leaf i (§4); false if there is none.
func (g *publicState) Member(i LeafIndex) (Member, bool) {
	leaf, ok := g.leaf(i)
	return Member{i, leaf}, ok
}

// RatchetTree is the encoded tree, for those who join with a Welcome or a GroupInfo
// that doesn't have it inside (§12.4.3.3).
func (g *publicState) RatchetTree() []byte { return g.tree().append(nil) }

// TreeHash is the hash of the tree (§7.8).
func (g *publicState) TreeHash() []byte { return bytes.Clone(g.current.context.treeHash) }

// acceptHandshake checks that proposals and commits may come in this format now.
func (g *publicState) acceptHandshake(f WireFormat, groupID []byte, epoch uint64) error {
	switch {
	case !bytes.Equal(groupID, g.current.context.groupID):
		return ErrWrongGroup
	case g.config.OneFormat && f != g.config.handshakeFormat():
		return fmt.Errorf("%w: %d", ErrWireFormat, f)
	case epoch != g.Epoch():
		return &EpochError{epoch, g.Epoch()}
	case g.inactive:
		return ErrInactive
	case g.current.reinit != nil:
		return ErrReInit
	}
	return nil
}

// verifyPublic checks that a PublicMessage may come now, and its sender (§6.1, §6.2).
// checkTag is how a member's membership tag is checked, which needs a secret.
func (g *publicState) verifyPublic(m *publicMessage, checkTag func(*publicMessage) error) (*authenticatedContent, error) {
	c := m.content
	if c.contentType == ContentTypeApplication {
		return nil, fmt.Errorf("%w: application data in a PublicMessage", ErrWireFormat)
	}
	if err := g.acceptHandshake(WireFormatPublicMessage, c.groupID, c.epoch); err != nil {
		return nil, err
	}
	e := g.current
	var key, context []byte
	if from, ok := c.sender.Leaf(); ok {
		leaf, ok := g.leaf(from)
		if !ok {
			return nil, fmt.Errorf("%w: leaf %d is blank", ErrSender, from)
		}
		if err := checkTag(m); err != nil {
			return nil, err
		}
		key, context = leaf.signatureKey(), e.context.raw
	} else {
		var err error
		if key, context, err = e.outsider(c); err != nil {
			return nil, err
		}
	}
	if err := verifyContent(e.suite, key, m.auth.signature, WireFormatPublicMessage, c.raw, nil, context); err != nil {
		return nil, err
	}
	return &authenticatedContent{WireFormatPublicMessage, c, m.auth}, nil
}

// receiveProposal takes in a proposal whose sender was checked (§12.1).
func (g *publicState) receiveProposal(m *authenticatedContent) (*Pending[Event], error) {
	p, err := readStoredProposal(g.current.suite, m.append(nil))
	if err != nil {
		return nil, err
	}
	_, err = g.current.apply([]listedProposal{p.listedProposal}, Sender{}, &g.config)
	if err != nil && !g.current.curable(p.proposal, err) {
		return nil, fmt.Errorf("proposal of %v: %w", p.sender, err)
	}
	event := &ReceivedProposal{p.sender, p.proposal, bytes.Clone(m.content.authenticatedData)}
	changes := func() []Record { return g.proposalRecord(p) }
	done := func() { g.addProposal(p) }
	return newPending[Event](g, event, changes, done, nil), nil
}

// findProposal is the place of a proposal among those that wait, -1 if it isn't.
func (g *publicState) findProposal(ref []byte) int {
	return slices.IndexFunc(g.proposals, func(s *storedProposal) bool { return bytes.Equal(s.ref, ref) })
}

// addProposal adds a proposal to those that wait, once.
func (g *publicState) addProposal(p *storedProposal) {
	if g.findProposal(p.ref) < 0 {
		g.proposals = append(g.proposals, p)
	}
}

// proposalRecord is the record that addProposal makes, if it makes one.
func (g *publicState) proposalRecord(p *storedProposal) []Record {
	if g.findProposal(p.ref) >= 0 {
		return nil
	}
	return []Record{p.record(len(g.proposals))}
}

// resolve finds the proposals of a commit.
func (g *publicState) resolve(c *commit, committer Sender) ([]listedProposal, error) {
	list := make([]listedProposal, len(c.proposals))
	for i, p := range c.proposals {
		if p.proposal != nil {
			list[i] = listedProposal{proposal: p.proposal, sender: committer}
			continue
		}
		k := g.findProposal(p.ref)
		if k < 0 {
			return nil, fmt.Errorf("%w: %x", ErrUnknownProposal, p.ref)
		}
		list[i] = g.proposals[k].listedProposal
	}
	return list, nil
}

// workOut checks the public part of a commit whose sender was checked, and what it
// makes of the group but for the secrets (§12.4.2).
func (g *publicState) workOut(m *authenticatedContent) (*outcome, []listedProposal, error) {
	e, c := g.current, m.content.commit
	list, err := g.resolve(c, m.content.sender)
	if err != nil {
		return nil, nil, err
	}
	o, err := e.apply(list, m.content.sender, &g.config)
	if asked, ok := errors.AsType[*AppDataError](err); ok {
		return nil, nil, &unresolvedError{asked, m.content.sender, list}
	}
	if err != nil {
		return nil, nil, err
	}
	if o.needsPath && c.path == nil {
		return nil, nil, ErrMissingPath
	}
	if c.path != nil {
		o.changing(o.committer)
		if o.path, err = o.tree.applyPath(o.committer, c.path, o.newcomers()); err != nil {
			return nil, nil, err
		}
		if err := o.checkPathLeaf(e, c.path.leaf, o.committer); err != nil {
			return nil, nil, err
		}
	}
	if err := g.config.authenticate(o.candidates()); err != nil {
		return nil, nil, err
	}
	return o, list, nil
}
