package protocol

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
)

// Errors of changes of membership that we want to make.
var (
	// ErrUnknownInbox is an inbox id without identity updates.
	ErrUnknownInbox = errors.New("protocol: unknown inbox")

	// ErrNobodyReachable: none of the installations that were to be added has a
	// usable key package.
	ErrNobodyReachable = errors.New("protocol: no installation to be added has a usable key package")
)

// MembershipUpdate is a change of a group's membership in the making: inboxes to add
// and to remove, and installations that members have added and revoked meanwhile.
type MembershipUpdate struct {
	after  *Membership
	diff   installationDiff
	adding bool // inboxes were asked to be added
	moved  bool // a sequence id changed
}

// PlanMembership finds out what it takes to bring a group's membership up to date,
// add some inboxes and remove others. Inboxes that are in already, or out, are
// neither added nor removed. The error is [ErrUnknownInbox], a [CommitError] if the
// log of an inbox can't be used, or the directory's.
func PlanMembership(ctx context.Context, d Directory, before *Membership, add, remove []string) (*MembershipUpdate, error) {
	after := before.Clone()
	for _, inboxID := range remove {
		delete(after.Members, inboxID)
	}
	for _, inboxID := range add {
		if _, ok := after.Members[inboxID]; !ok {
			after.Members[inboxID] = 0
		}
	}
	var newest lookup
	for inboxID := range after.Members {
		newest.want(inboxID, Latest)
	}
	if err := newest.ask(ctx, d); err != nil {
		return nil, err
	}
	for inboxID, sequenceID := range after.Members {
		s := newest.state(inboxID, Latest)
		if s.Err != nil {
			return nil, ErrInboxLog.because(s.Err)
		}
		if s.SequenceID == 0 {
			return nil, fmt.Errorf("%w: %s", ErrUnknownInbox, inboxID)
		}
		after.Members[inboxID] = max(sequenceID, s.SequenceID)
	}
	changes := diffMembership(before, after)
	var l lookup
	l.wantDiff(before, after, changes)
	if err := l.ask(ctx, d); err != nil {
		return nil, err
	}
	diff, err := l.diffInstallations(before, after, changes)
	if err != nil {
		return nil, err
	}
	return &MembershipUpdate{after, diff, len(add) > 0, len(changes.added)+len(changes.updated) > 0}, nil
}

// Invited lists the installations whose key packages are needed, each with the inbox
// that it belongs to, sorted; own is ours, which needs none.
func (u *MembershipUpdate) Invited(own identity.Identifier) []Actor {
	var invited []Actor
	for _, id := range u.diff.added.sorted() {
		if id != own {
			invited = append(invited, Actor{u.diff.owners[id][0], id})
		}
	}
	return invited
}

// Proposals returns the proposals of the commit, all to be sent in it by value; none
// if nothing is to be done, or if our own leaf would have to go. exts are the
// extensions and members the members of the group, own is our installation, and
// packages has the key packages of those invited, as far as they are usable: see
// [CheckKeyPackage]. The errors are [ErrNobodyReachable] and those of
// [WithMembership].
func (u *MembershipUpdate) Proposals(exts []mls.Extension, members iter.Seq[mls.Member], own identity.Identifier,
	packages map[identity.Identifier]*identity.KeyPackageInfo) ([]mls.Proposal, error) {
	failed := installations{}
	failed.add(u.after.Failed...)
	present := make(map[identity.Identifier]mls.LeafIndex)
	for m := range members {
		present[identity.Installation(m.LeafNode.SignatureKey())] = m.Index
	}
	var proposals []mls.Proposal
	unreachable := 0
	for _, id := range u.diff.added.sorted() {
		if _, ok := present[id]; ok {
			continue // the creator, when the first commit touches the group
		}
		if info, ok := packages[id]; ok {
			proposals = append(proposals, mls.Add{KeyPackage: info.Package})
			delete(failed, id)
		} else {
			failed.add(id)
			unreachable++
		}
	}
	added := len(proposals)
	if u.adding && added == 0 && unreachable > 0 {
		return nil, ErrNobodyReachable
	}
	var removes []mls.Proposal
	for _, id := range u.diff.removed.sorted() {
		leaf, ok := present[id]
		switch {
		case !ok:
			// Receivers expect a removal unless this says that there can't be one.
			failed.add(id)
		case id == own:
			return nil, nil
		default:
			delete(failed, id)
			removes = append(removes, mls.Remove{Leaf: leaf})
		}
	}
	if added+len(removes) == 0 && !u.moved {
		return nil, nil
	}
	exts, err := WithMembership(exts, &Membership{maps.Clone(u.after.Members), failed.sorted()})
	if err != nil {
		return nil, err
	}
	proposals = append(proposals, mls.GroupContextExtensions{Extensions: exts})
	return slices.Concat(proposals, removes), nil
}
