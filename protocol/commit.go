package protocol

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
)

// Change is what a valid commit changes.
type Change struct {
	// Actor is who made the commit.
	Actor Actor

	// Added and Removed are the inboxes that the commit adds and removes, sorted.
	Added, Removed []string

	// Readded are installations of members that a super admin removed and added, or
	// tried to add, again, because they had lost track of the group.
	Readded []identity.Identifier

	// Attributes are the changed attributes, sorted by name.
	Attributes []AttributeChange

	AdminsAdded, AdminsRemoved           []string
	SuperAdminsAdded, SuperAdminsRemoved []string

	// PermissionsChanged tells that the permissions did, InstallationsChanged that
	// leaves were added or removed.
	PermissionsChanged, InstallationsChanged bool

	// Warnings are what would have been worth refusing.
	Warnings []Warning
}

// Actor is the installation that does something, and its inbox.
type Actor struct {
	InboxID      string
	Installation identity.Identifier
}

// AttributeChange is the old and the new value of an attribute, nil where there is
// none.
type AttributeChange struct {
	Name     string
	Old, New *string
}

// stagedCommit is what is judged: a commit that is valid MLS and not yet merged.
type stagedCommit struct {
	// before and after are the extensions of the group context.
	before, after []mls.Extension

	// members are those before the commit.
	members iter.Seq[mls.Member]
	member  func(mls.LeafIndex) (mls.Member, bool)

	// path is the committer's new leaf; nil if the commit has no path.
	path      *mls.LeafNode
	proposals []stagedProposal
}

// stagedProposal is a proposal of a commit. member is false if its sender is none.
type stagedProposal struct {
	sender   mls.LeafIndex
	member   bool
	proposal mls.Proposal
}

// check judges the commit. The order is that of the official client.
func (c *stagedCommit) check(ctx context.Context, d Directory) (*Change, error) {
	if err := c.checkExtensions(); err != nil {
		return nil, err
	}
	metadata, err := parseMetadata(c.before)
	if err != nil {
		return nil, ErrMetadata.because(err)
	}
	old, err := parseMutableMetadata(c.before)
	if err != nil {
		return nil, ErrMutableMetadata.because(err)
	}
	policies, err := parsePermissions(c.before)
	if err != nil {
		return nil, ErrPermissions.because(err)
	}
	if _, ok := find(c.after, extensionMutableMetadata); !ok {
		return nil, ErrNoMutableMetadata
	}
	mutable, err := reparse(c, extensionMutableMetadata, old, parseMutableMetadata)
	if err != nil {
		return nil, ErrMutableMetadata.because(err)
	}
	change := &Change{
		Attributes:         diffAttributes(old.Attributes, mutable.Attributes),
		AdminsAdded:        missing(mutable.Admins, old.Admins),
		AdminsRemoved:      missing(old.Admins, mutable.Admins),
		SuperAdminsAdded:   missing(mutable.SuperAdmins, old.SuperAdmins),
		SuperAdminsRemoved: missing(old.SuperAdmins, mutable.SuperAdmins),
	}
	for _, a := range change.Attributes {
		if a.New != nil {
			if err := CheckAttribute(a.Name, *a.New); err != nil {
				return nil, err
			}
		}
	}
	newPolicies, err := reparse(c, extensionPermissions, policies, parsePermissions)
	if err != nil {
		return nil, ErrPermissions.because(err)
	}
	change.PermissionsChanged = !policies.Equal(newPolicies)
	if change.Actor, err = c.actor(); err != nil {
		return nil, err
	}
	leaves, err := c.leafChanges()
	if err != nil {
		return nil, err
	}
	if err := c.checkMembership(ctx, d, change, leaves, old.IsSuperAdmin(change.Actor.InboxID)); err != nil {
		return nil, err
	}
	if err := change.checkPermissions(&GroupState{Metadata: metadata, Mutable: old, Permissions: policies}, mutable); err != nil {
		return nil, err
	}
	if required, ok := mutable.Attributes[AttributeMinimumVersion]; ok {
		if err := CheckVersion(required); err != nil {
			return nil, err
		}
	}
	if !sameExtension(c.before, c.after, extensionMetadata) {
		change.Warnings = append(change.Warnings, WarnMetadataChanged)
	}
	if !sameExtension(c.before, c.after, mls.ExtensionRequiredCapabilities) {
		change.Warnings = append(change.Warnings, WarnRequirementsChanged)
	}
	return change, nil
}

// checkExtensions holds a new extension list to what the MLS library of the official
// client asks of it, beyond RFC 9420: that all of it be required of the members, and
// that all members support what becomes required.
func (c *stagedCommit) checkExtensions() error {
	for _, p := range c.proposals {
		gce, ok := p.proposal.(mls.GroupContextExtensions)
		if !ok {
			continue
		}
		var required []mls.ExtensionType
		data, _ := find(gce.Extensions, mls.ExtensionRequiredCapabilities)
		if types, _, err := readOpaque(data); err == nil {
			for ; len(types) >= 2; types = types[2:] {
				required = append(required, mls.ExtensionType(binary.BigEndian.Uint16(types)))
			}
		}
		if !sameExtension(c.before, gce.Extensions, mls.ExtensionRequiredCapabilities) {
			for m := range c.members {
				listed := m.LeafNode.Capabilities().Extensions
				for _, t := range required {
					if !isDefaultExtension(t) && !slices.Contains(listed, t) {
						return ErrExtensionNotSupported.detail("%#04x by leaf %d", uint16(t), m.Index)
					}
				}
			}
		}
		for _, e := range gce.Extensions {
			if !isDefaultExtension(e.Type) && !slices.Contains(required, e.Type) {
				return ErrExtensionNotRequired.detail("%#04x", uint16(e.Type))
			}
		}
		if data, ok := find(gce.Extensions, extensionMetadata); ok {
			if _, rest, err := readOpaque(data); err != nil || len(rest) != 0 {
				return ErrMetadata.detail("not one vector")
			}
		}
	}
	return nil
}

// reparse reads an extension after the commit, of which old is what it was before.
// Most commits leave most of them alone.
func reparse[T any](c *stagedCommit, t mls.ExtensionType, old T, parse func([]mls.Extension) (T, error)) (T, error) {
	if sameExtension(c.before, c.after, t) {
		return old, nil
	}
	return parse(c.after)
}

// isDefaultExtension tells the extension types of RFC 9420.
func isDefaultExtension(t mls.ExtensionType) bool {
	return t >= mls.ExtensionApplicationID && t <= mls.ExtensionExternalSenders
}

// actor finds the one who made the commit and all of its proposals.
func (c *stagedCommit) actor() (Actor, error) {
	var author *mls.LeafIndex
	for _, p := range c.proposals {
		switch {
		case !p.member:
			return Actor{}, ErrActorNotMember
		case author != nil && *author != p.sender:
			return Actor{}, ErrMultipleActors
		}
		author = &p.sender
	}
	var leaf mls.LeafNode
	switch {
	case author == nil && c.path == nil:
		return Actor{}, ErrActorUnknown
	case author != nil:
		m, ok := c.member(*author)
		if !ok {
			return Actor{}, ErrActorUnknown
		}
		if c.path != nil && string(c.path.SignatureKey()) != string(m.LeafNode.SignatureKey()) {
			return Actor{}, ErrMultipleActors
		}
		leaf = m.LeafNode
	}
	if c.path != nil {
		leaf = *c.path
	}
	return actorOf(leaf)
}

// actorOf reads who a leaf claims to be.
func actorOf(leaf mls.LeafNode) (Actor, error) {
	inboxID, err := identity.ParseCredential(leaf.Credential())
	if err != nil {
		return Actor{}, ErrCredential.because(err)
	}
	return Actor{inboxID, identity.Installation(leaf.SignatureKey())}, nil
}

// leafChanges are the leaves that a commit adds, removes and updates.
type leafChanges struct {
	added, removed installations

	// claims are the credentials of the added leaves; one that can't be read is
	// left out.
	claims  []Actor
	updated []Actor
}

func (c *stagedCommit) leafChanges() (leafChanges, error) {
	l := leafChanges{added: installations{}, removed: installations{}}
	for _, p := range c.proposals {
		if _, ok := p.proposal.(mls.PreSharedKey); ok {
			return l, ErrPSK
		}
	}
	for _, p := range c.proposals {
		switch p := p.proposal.(type) {
		case mls.Update:
			a, err := actorOf(p.LeafNode)
			if err != nil {
				return l, err
			}
			l.updated = append(l.updated, a)
		case mls.Add:
			leaf := p.KeyPackage.LeafNode()
			l.added.add(identity.Installation(leaf.SignatureKey()))
			if a, err := actorOf(leaf); err == nil {
				l.claims = append(l.claims, a)
			}
		case mls.Remove:
			m, ok := c.member(p.Leaf)
			if !ok {
				return l, ErrSubjectUnknown
			}
			l.removed.add(identity.Installation(m.LeafNode.SignatureKey()))
		}
	}
	return l, nil
}

// checkMembership holds the added and removed leaves against what the membership
// says should be added and removed, and the actor against his inbox.
func (c *stagedCommit) checkMembership(ctx context.Context, d Directory, change *Change, leaves leafChanges, superAdmin bool) error {
	before, err := parseMembership(c.before)
	if err != nil {
		return err
	}
	after, err := reparse(c, extensionMembership, before, parseMembership)
	if err != nil {
		return err
	}
	diff := diffMembership(before, after)
	for _, inboxID := range diff.updated {
		if after.Members[inboxID] < before.Members[inboxID] {
			return ErrSequenceIDDecreased.detail("of inbox %s", inboxID)
		}
	}
	change.Added, change.Removed = diff.added, diff.removed
	change.InstallationsChanged = len(leaves.added)+len(leaves.removed) > 0

	// The creator's placeholder stands for all of the log, but only as long as no
	// commit has replaced it.
	credentialAt := func(a Actor) uint64 {
		if n := after.Members[a.InboxID]; n != 0 {
			return n
		}
		if n, ok := before.Members[a.InboxID]; ok && n == 0 {
			return Latest
		}
		return 0
	}
	actors := append(leaves.updated, change.Actor)
	var l lookup
	l.wantDiff(before, after, diff)
	for _, a := range actors {
		l.want(a.InboxID, credentialAt(a))
	}
	if err := l.ask(ctx, d); err != nil {
		return err
	}
	expected, err := l.diffInstallations(before, after, diff)
	if err != nil {
		return err
	}

	failed := installations{}
	failed.add(after.Failed...)
	if superAdmin {
		change.Readded = takeReadded(leaves.added, leaves.removed, failed)
	}
	var members installations
	for _, id := range leaves.added.sorted() {
		if expected.added.has(id) {
			continue
		}
		if members == nil {
			members = installations{}
			for m := range c.members {
				members.add(identity.Installation(m.LeafNode.SignatureKey()))
			}
		}
		if !members.has(id) {
			return ErrInstallationAdded.detail("%v", id)
		}
	}
	for id := range failed {
		delete(expected.removed, id)
	}
	if !maps.Equal(leaves.removed, expected.removed) {
		return ErrInstallationRemoved.detail("%v, expected %v", leaves.removed, expected.removed)
	}
	for _, claim := range leaves.claims {
		if expected.added.has(claim.Installation) && !slices.Contains(expected.owners[claim.Installation], claim.InboxID) {
			change.Warnings = append(change.Warnings, WarnForeignInstallation)
		}
	}

	for _, a := range actors {
		if _, ok := after.Members[a.InboxID]; !ok {
			return ErrSubjectUnknown.detail("inbox %s", a.InboxID)
		}
		state, err := l.exact(a.InboxID, credentialAt(a))
		if err != nil {
			return err
		}
		if _, ok := state.Member(a.Installation); !ok {
			return ErrInboxValidation.detail("%v of inbox %s", a.Installation, a.InboxID)
		}
	}
	return nil
}

// takeReadded takes out of the sets the installations that were removed and added
// again, and then those that were removed and could not be added.
func takeReadded(added, removed, failed installations) []identity.Identifier {
	readded := installations{}
	for _, again := range []installations{added, failed} {
		for id := range removed {
			if again.has(id) {
				readded.add(id)
				delete(again, id)
				delete(removed, id)
			}
		}
	}
	return readded.sorted()
}

// CheckAdd says whether an inbox may add others to the group: the error is
// [ErrNotPermitted].
func (s *GroupState) CheckAdd(actor string, added []string) error {
	// In a DM each side may add the other one, though the policy denies it.
	addsPeer := len(added) == 1 && s.Metadata.isDMMember(added[0]) && added[0] != actor
	if len(added) > 0 && !addsPeer && !s.permits(actor, s.Permissions.AddMember) {
		return notPermitted(actor, "add a member")
	}
	return nil
}

// CheckRemove says whether an inbox may remove others from the group: the error is
// [ErrNotPermitted]. Nobody may remove a super admin.
func (s *GroupState) CheckRemove(actor string, removed []string) error {
	if len(removed) > 0 && !s.permits(actor, s.Permissions.RemoveMember) {
		return notPermitted(actor, "remove a member")
	}
	if slices.ContainsFunc(removed, s.Mutable.IsSuperAdmin) {
		return notPermitted(actor, "remove a super admin")
	}
	return nil
}

// permits evaluates a policy for the roles that an inbox has.
func (s *GroupState) permits(actor string, p Policy) bool {
	return p.permits(s.Mutable.IsAdmin(actor), s.Mutable.IsSuperAdmin(actor))
}

func notPermitted(actor, what string) error {
	return ErrNotPermitted.detail("%s may not %s", actor, what)
}

// checkPermissions asks the policies that were in force before the commit; mutable
// is what it leads to.
func (c *Change) checkPermissions(before *GroupState, mutable *MutableMetadata) error {
	actor, policies := c.Actor.InboxID, before.Permissions
	superAdmin := before.Mutable.IsSuperAdmin(actor)
	if err := before.CheckAdd(actor, c.Added); err != nil {
		return err
	}
	if err := before.CheckRemove(actor, c.Removed); err != nil {
		return err
	}
	for _, rule := range []struct {
		what    string
		applies bool
		permits bool
	}{
		{"add an admin", len(c.AdminsAdded) > 0, before.permits(actor, policies.AddAdmin)},
		{"remove an admin", len(c.AdminsRemoved) > 0, before.permits(actor, policies.RemoveAdmin)},
		{"add a super admin", len(c.SuperAdminsAdded) > 0, superAdmin},
		{"demote a super admin", len(c.SuperAdminsRemoved) > 0, superAdmin},
		{"demote the last super admin", len(c.SuperAdminsRemoved) > 0, len(mutable.SuperAdmins) > 0},
		{"change the permissions", c.PermissionsChanged, superAdmin},
	} {
		if rule.applies && !rule.permits {
			return notPermitted(actor, rule.what)
		}
	}
	for _, a := range c.Attributes {
		if !before.permits(actor, policies.attribute(a.Name)) {
			return notPermitted(actor, fmt.Sprintf("change attribute %q", a.Name))
		}
	}
	return nil
}

// diffAttributes lists what differs, by name.
func diffAttributes(before, after map[string]string) []AttributeChange {
	names := slices.Collect(maps.Keys(before))
	for name := range after {
		if _, ok := before[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var changes []AttributeChange
	for _, name := range names {
		change := AttributeChange{Name: name}
		if v, ok := before[name]; ok {
			change.Old = &v
		}
		if v, ok := after[name]; ok {
			change.New = &v
		}
		if change.Old == nil || change.New == nil || *change.Old != *change.New {
			changes = append(changes, change)
		}
	}
	return changes
}

// missing lists what is in a and not in b, in the order of a.
func missing(a, b []string) []string {
	var out []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}
