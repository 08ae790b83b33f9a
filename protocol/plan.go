package protocol

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
)

// ErrUnknownInbox is an inbox id without identity updates.
var ErrUnknownInbox = errors.New("protocol: unknown inbox")

// MaxMembers is how many inboxes a group may have for another one to be added. It
// is a rule for who adds; receivers don't ask.
const MaxMembers = 250

// MembershipUpdate is a change of a group's membership in the making: inboxes to add
// and to remove, and installations that members have added and revoked meanwhile.
type MembershipUpdate struct {
	before, after *Membership
	diff          installationDiff
	newcomers     map[string]installations // by inbox
	leftOut       []LeftOut
}

// LeftOut is an inbox that was to be added and can't be: because of its log, or
// because none of its installations, of which it may have none, is within reach.
type LeftOut struct {
	InboxID       string
	Installations []identity.Identifier
	Err           error // about the log; nil otherwise
}

// PlanMembership finds out what it takes to bring a group's membership up to date,
// add some inboxes and remove others. Inboxes that are in already, or out, are
// neither added nor removed. A member whose log has come to be invalid stays at the
// place where it was valid. The error is [ErrUnknownInbox], which names all of
// them, or the directory's.
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
	u := &MembershipUpdate{before: before, after: after, newcomers: map[string]installations{}}
	var unknown []string
	for inboxID, sequenceID := range after.Members {
		_, member := before.Members[inboxID]
		s := newest.state(inboxID, Latest)
		switch {
		case s.Err != nil && !member:
			u.leftOut = append(u.leftOut, LeftOut{InboxID: inboxID, Err: ErrInboxLog.because(s.Err)})
			delete(after.Members, inboxID)
		case s.SequenceID == 0 && s.Err == nil:
			unknown = append(unknown, inboxID)
		default:
			after.Members[inboxID] = max(sequenceID, s.SequenceID)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, fmt.Errorf("%w: %s", ErrUnknownInbox, strings.Join(unknown, ", "))
	}
	changes := diffMembership(before, after)
	var l lookup
	l.wantDiff(before, after, changes)
	if err := l.ask(ctx, d); err != nil {
		return nil, err
	}
	var err error
	if u.diff, err = l.diffInstallations(before, after, changes); err != nil {
		return nil, err
	}
	for _, inboxID := range changes.added {
		u.newcomers[inboxID] = installations{}
	}
	for id, owners := range u.diff.owners {
		for _, inboxID := range owners {
			if ids, ok := u.newcomers[inboxID]; ok {
				ids.add(id)
			}
		}
	}
	return u, nil
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
// [CheckKeyPackage]. An inbox that is to be added with no installation at all is
// left out, where the official client would make it a member that can't read; of
// another one, installations without a key package are noted as failed. The errors
// are those of [WithMembership].
func (u *MembershipUpdate) Proposals(exts []mls.Extension, members iter.Seq[mls.Member], own identity.Identifier,
	packages map[identity.Identifier]*identity.KeyPackageInfo) ([]mls.Proposal, []LeftOut, error) {
	present := make(map[identity.Identifier]mls.LeafIndex)
	for m := range members {
		present[identity.Installation(m.LeafNode.SignatureKey())] = m.Index
	}
	reachable := func(id identity.Identifier) bool {
		_, in := present[id]
		return in || packages[id] != nil
	}
	after, wanted := u.after.Clone(), installations{}
	wanted.add(u.diff.added.sorted()...)
	leftOut := slices.Clone(u.leftOut)
	for inboxID, ids := range u.newcomers {
		list := ids.sorted()
		if slices.ContainsFunc(list, reachable) {
			continue
		}
		leftOut = append(leftOut, LeftOut{InboxID: inboxID, Installations: list})
		delete(after.Members, inboxID)
		for _, id := range list {
			if len(u.diff.owners[id]) == 1 {
				delete(wanted, id)
			}
		}
	}
	slices.SortFunc(leftOut, func(a, b LeftOut) int { return strings.Compare(a.InboxID, b.InboxID) })
	failed := installations{}
	failed.add(after.Failed...)
	var proposals []mls.Proposal
	for _, id := range wanted.sorted() {
		if _, ok := present[id]; ok {
			continue // the creator, when the first commit touches the group
		}
		if info, ok := packages[id]; ok {
			proposals = append(proposals, mls.Add{KeyPackage: info.Package})
			delete(failed, id)
		} else {
			failed.add(id)
		}
	}
	added := len(proposals)
	var removes []mls.Proposal
	for _, id := range u.diff.removed.sorted() {
		leaf, ok := present[id]
		switch {
		case !ok:
			// Receivers expect a removal unless this says that there can't be one.
			failed.add(id)
		case id == own:
			return nil, leftOut, nil
		default:
			delete(failed, id)
			removes = append(removes, mls.Remove{Leaf: leaf})
		}
	}
	if added+len(removes) == 0 && maps.Equal(u.before.Members, after.Members) {
		return nil, leftOut, nil
	}
	exts, err := WithMembership(exts, &Membership{after.Members, failed.sorted()})
	if err != nil {
		return nil, nil, err
	}
	proposals = append(proposals, mls.GroupContextExtensions{Extensions: exts})
	return slices.Concat(proposals, removes), leftOut, nil
}
