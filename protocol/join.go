package protocol

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls"
)

// joinedGroup is what is judged of a group that a welcome leads to.
type joinedGroup struct {
	extensions []mls.Extension
	members    iter.Seq[mls.Member]
	adder      mls.LeafNode // who signed the GroupInfo
	own        string       // inbox id
}

// check judges a group before it is joined, and returns its state and who added us.
func (g *joinedGroup) check(ctx context.Context, d Directory) (*GroupState, Actor, error) {
	adder, err := actorOf(g.adder)
	if err != nil {
		return nil, Actor{}, err
	}
	membership, err := parseMembership(g.extensions)
	if err != nil {
		return nil, Actor{}, err
	}
	if err := g.checkTree(ctx, d, membership); err != nil {
		return nil, Actor{}, err
	}
	state, err := ParseGroupState(g.extensions)
	if err != nil {
		return nil, Actor{}, ErrUnreadable.because(err)
	}
	switch state.Metadata.Type {
	case DM:
		err = state.checkDM(g.own, adder.InboxID)
	case Sync:
		if adder.InboxID != g.own || state.Metadata.CreatorInboxID != g.own {
			err = ErrForeignSync
		}
	}
	if err != nil {
		return nil, Actor{}, err
	}
	return state, adder, nil
}

// checkTree compares the leaves with the installations that the inboxes had at the
// positions of the membership.
func (g *joinedGroup) checkTree(ctx context.Context, d Directory, m *Membership) error {
	inboxes := slices.Sorted(maps.Keys(m.Members))
	var l lookup
	for _, inboxID := range inboxes {
		l.want(inboxID, m.Members[inboxID])
	}
	if err := l.ask(ctx, d); err != nil {
		return err
	}
	expected := make(map[Actor]struct{})
	for _, inboxID := range inboxes {
		state, err := l.exact(inboxID, m.Members[inboxID])
		if err != nil {
			return err
		}
		for _, id := range state.Installations() {
			expected[Actor{inboxID, id}] = struct{}{}
		}
	}
	for member := range g.members {
		a, err := actorOf(member.LeafNode)
		if err != nil {
			return err
		}
		if _, ok := expected[a]; !ok {
			return ErrTreeMembership.detail("%v of inbox %s is in the tree", a.Installation, a.InboxID)
		}
		delete(expected, a)
	}
	failed := installations{}
	failed.add(m.Failed...)
	for a := range expected {
		if !failed.has(a.Installation) {
			return ErrTreeMembership.detail("%v of inbox %s is not in the tree", a.Installation, a.InboxID)
		}
	}
	return nil
}

// checkDM is asked of DMs only. Unlike the official client it refuses a DM whose
// permissions differ from the preset in any way that concerns members, not only one
// that differs in all: refusing to join forks nobody, and every client sends the
// preset.
func (s *GroupState) checkDM(own, adder string) error {
	members := s.Metadata.DMMembers
	if members == nil {
		return ErrDM.detail("no members")
	}
	if !slices.Contains(members[:], own) {
		return ErrDM.detail("not ours")
	}
	if adder == own {
		return nil
	}
	if !slices.Contains(members[:], adder) {
		return ErrDM.detail("added by somebody else")
	}
	if len(s.Mutable.Admins)+len(s.Mutable.SuperAdmins) > 0 {
		return ErrDM.detail("has admins")
	}
	if !s.Permissions.sameMembers(DMPermissions()) {
		return ErrDM.detail("permissions")
	}
	return nil
}

// Paused returns nil if this version may take part in the group, else a
// [VersionError]. A required version that can't be read pauses nobody.
func (s *GroupState) Paused() *VersionError {
	required, ok := s.Mutable.Attributes[AttributeMinimumVersion]
	if !ok || s.Metadata.Type != Group {
		return nil
	}
	if err, ok := CheckVersion(required).(*VersionError); ok {
		return err
	}
	return nil
}
