package mls

import (
	"bytes"
	"fmt"
)

// A group can have successors, whose first secret is bound to its own (§8.6): the one
// that it goes on in after a ReInit (§11.2), and branches of some of its members (§11.3).

// SuccessorOptions tell how to make a group's successor.
type SuccessorOptions struct {
	// Client is who we are in the new group.
	Client Client

	// Members are the key packages of the others.
	Members []*KeyPackage

	// GroupID and Extensions are those of a branch. After a ReInit they are given.
	GroupID    []byte
	Extensions []Extension

	// ExternalTree leaves the ratchet tree out of the Welcome.
	ExternalTree bool

	// GroupInfoExtensions are added to the GroupInfo in the Welcome.
	GroupInfoExtensions []Extension
}

// Successor is a new group, and what lets the others in.
type Successor struct {
	Group *Group

	// Welcome is for [Group.JoinSuccessor], an encoded MLSMessage; nil if there are
	// no others.
	Welcome []byte

	// RatchetTree is set if the Welcome is without it.
	RatchetTree []byte
}

// Reinitialize makes the group that a closed one goes on in (§11.2). One member does
// it, the others join by [Group.JoinSuccessor]. It returns [ErrSuccessor] if no ReInit
// was committed, [ErrUnsupportedVersion], [ErrUnsupportedCipherSuite], or an error of
// [New] or [Group.Commit].
func (g *Group) Reinitialize(opts SuccessorOptions, config Config) (*Pending[*Successor], error) {
	p, err := g.reinitialize(opts, config)
	if err != nil {
		return nil, fmt.Errorf("mls: reinitialize: %w", err)
	}
	return p, nil
}

func (g *Group) reinitialize(opts SuccessorOptions, config Config) (*Pending[*Successor], error) {
	r := g.current.reinit
	switch {
	case g.inactive:
		return nil, ErrInactive
	case r == nil:
		return nil, fmt.Errorf("%w: the group is not closed", ErrSuccessor)
	case r.Version != MLS10:
		return nil, fmt.Errorf("%w: %d", ErrUnsupportedVersion, r.Version)
	case r.CipherSuite != opts.Client.CipherSuite:
		return nil, fmt.Errorf("%w: the new group has %d", ErrUnsupportedCipherSuite, r.CipherSuite)
	}
	opts.GroupID, opts.Extensions = r.GroupID, r.Extensions
	return g.succeed(ResumptionReInit, opts, config)
}

// Branch makes a group of some of the members (§11.3), who join by
// [Group.JoinSuccessor]. It returns [ErrSuccessor] if one of them is no member, or an
// error of [New] or [Group.Commit].
func (g *Group) Branch(opts SuccessorOptions, config Config) (*Pending[*Successor], error) {
	p, err := g.branch(opts, config)
	if err != nil {
		return nil, fmt.Errorf("mls: branch: %w", err)
	}
	return p, nil
}

func (g *Group) branch(opts SuccessorOptions, config Config) (*Pending[*Successor], error) {
	if err := g.begin(); err != nil {
		return nil, err
	}
	if opts.Client.CipherSuite != g.CipherSuite() {
		return nil, fmt.Errorf("%w: the group has %d", ErrUnsupportedCipherSuite, g.CipherSuite())
	}
	return g.succeed(ResumptionBranch, opts, config)
}

func (g *Group) succeed(usage ResumptionPSKUsage, opts SuccessorOptions, config Config) (*Pending[*Successor], error) {
	config.predecessor = &predecessor{g, usage}
	next, err := create(opts.GroupID, opts.Client, opts.Extensions, config)
	if err != nil {
		return nil, err
	}
	commit := CommitOptions{ExternalTree: opts.ExternalTree, GroupInfoExtensions: opts.GroupInfoExtensions}
	for _, kp := range opts.Members {
		commit.Proposals = append(commit.Proposals, Add{kp})
	}
	commit.Proposals = append(commit.Proposals, PreSharedKey{PreSharedKeyID{
		Type: PSKResumption, Usage: usage, GroupID: g.ID(), Epoch: g.Epoch(),
	}})
	made, err := next.commit(commit)
	if err != nil {
		return nil, err
	}
	out := made.Done()
	if err := config.predecessor.checkMembers(next.ownCommit.next); err != nil {
		return nil, err
	}
	merged, err := next.MergeOwnCommit()
	if err != nil {
		return nil, err
	}
	merged.Done()
	// Nobody else was in the first epoch.
	for _, p := range next.past {
		p.wipe()
	}
	next.past, next.config.predecessor = nil, nil
	s := &Successor{next, out.Welcome, out.RatchetTree}
	return newPending(&next.publicState, s, next.records, nil, nil), nil
}

// JoinSuccessor joins the group that a closed one goes on in, else a branch of an open
// one, by a Welcome (§11.2, §11.3), as [Join] does. It returns [ErrSuccessor] if the
// Welcome is not bound to the group or the new group is not as agreed; the other
// errors are those of [Join].
func (g *Group) JoinSuccessor(welcome []byte, keyPackage *PrivateKeyPackage, signer Signer, ratchetTree []byte, config Config) (*Pending[*Joined], error) {
	usage := ResumptionBranch
	if g.current.reinit != nil {
		usage = ResumptionReInit
	}
	config.predecessor = &predecessor{g, usage}
	j, err := join(welcome, keyPackage, signer, ratchetTree, config)
	if err != nil {
		return nil, fmt.Errorf("mls: join successor: %w", err)
	}
	j.Group.config.predecessor = nil
	return newPending(&j.Group.publicState, j, j.Group.records, nil, nil), nil
}

// predecessor is the group that one in the making is to succeed, and how.
type predecessor struct {
	group *Group
	usage ResumptionPSKUsage
}

// secret is the resumption PSK that binds a successor; nil if id names another.
func (p *predecessor) secret(id PreSharedKeyID) []byte {
	if p == nil || id.Type != PSKResumption || id.Usage != p.usage {
		return nil
	}
	return p.group.resumption(id)
}

// check checks that a group to be joined by a Welcome is the successor (§11.2, §11.3).
func (p *predecessor) check(psks []PreSharedKeyID, e *epoch) error {
	if p == nil {
		return nil
	}
	bound := 0
	for _, id := range psks {
		if p.secret(id) != nil {
			bound++
		}
	}
	old, c := p.group.current, e.context
	if bound != 1 || c.epoch != 1 {
		return fmt.Errorf("%w: bound by %d keys in epoch %d", ErrSuccessor, bound, c.epoch)
	}
	if p.usage == ResumptionBranch {
		if c.version != old.context.version || c.suite != old.context.suite {
			return fmt.Errorf("%w: version %d, cipher suite %d", ErrSuccessor, c.version, c.suite)
		}
		return p.checkMembers(e)
	}
	is := ReInit{c.groupID, c.version, c.suite, c.extensions}
	if !bytes.Equal(is.appendBody(nil), old.reinit.appendBody(nil)) {
		return fmt.Errorf("%w: not the group that was agreed on", ErrSuccessor)
	}
	return nil
}

// checkMembers checks that the members of a branch are members of the group (§11.3).
func (p *predecessor) checkMembers(e *epoch) error {
	if p.usage != ResumptionBranch {
		return nil
	}
	same := p.group.config.SameIdentity
	if same == nil {
		same = Credential.equal
	}
	for i, leaf := range e.tree.leaves() {
		found := false
		for _, was := range p.group.tree().leaves() {
			found = found || same(was.Credential(), leaf.Credential())
		}
		if !found {
			return fmt.Errorf("%w: leaf %d is no member of the group", ErrSuccessor, i)
		}
	}
	return nil
}
