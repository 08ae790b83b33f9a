package protocol

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// A world has people with inboxes whose logs a directory knows.
type world struct {
	t    testing.TB
	logs logs
	next uint64 // sequence id
	time time.Time
}

// person is an inbox with its installations.
type person struct {
	wallet  *identity.WalletKey
	inboxID string
	keys    []ed25519.PrivateKey
	leaves  []mls.LeafNode
	infos   []*identity.KeyPackageInfo
	at      uint64 // sequence id of the last update
}

func newWorld(t testing.TB) *world {
	return &world{t: t, logs: logs{}, next: 10, time: time.Unix(1_700_000_000, 0)}
}

// publish signs and appends an update; the wallet always signs, and the
// installations that are given.
func (w *world) publish(p *person, keys []ed25519.PrivateKey, actions ...identity.Action) {
	w.t.Helper()
	w.time = w.time.Add(time.Second)
	r, err := identity.NewSignatureRequest(p.inboxID, w.time, actions...)
	if err != nil {
		w.t.Fatal(err)
	}
	sigs := []*associations.Signature{p.wallet.SignText(r.Text())}
	for _, k := range keys {
		sigs = append(sigs, identity.SignInstallation(k, r.Text()))
	}
	for _, s := range sigs {
		if err := r.AddSignature(w.t.Context(), s, nil); err != nil {
			w.t.Fatal(err)
		}
	}
	u, err := r.Update()
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := proto.Marshal(u)
	if err != nil {
		w.t.Fatal(err)
	}
	w.next += 10
	p.at = w.next
	w.logs.add(w.t, p.inboxID, p.at, b)
}

// person registers an inbox with n installations.
func (w *world) person(n int) *person {
	w.t.Helper()
	wallet, err := identity.GenerateWalletKey()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &person{wallet: wallet}
	if p.inboxID, err = identity.DeriveInboxID(wallet.Identifier(), identity.DefaultNonce); err != nil {
		w.t.Fatal(err)
	}
	w.publish(p, nil, identity.CreateInbox(wallet.Identifier(), identity.DefaultNonce))
	for range n {
		w.install(p)
	}
	return p
}

// install adds an installation.
func (w *world) install(p *person) int {
	w.t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.publish(p, []ed25519.PrivateKey{private}, identity.AddMember(p.wallet.Identifier(), identity.Installation(public)))
	p.keys = append(p.keys, private)
	info := w.keyPackage(p.inboxID, private)
	p.infos = append(p.infos, info)
	p.leaves = append(p.leaves, info.Package.LeafNode())
	return len(p.keys) - 1
}

// keyPackage makes a key package that claims an inbox.
func (w *world) keyPackage(inboxID string, key ed25519.PrivateKey) *identity.KeyPackageInfo {
	w.t.Helper()
	signer, err := mls.NewSigner(identity.CipherSuite, key.Seed())
	if err != nil {
		w.t.Fatal(err)
	}
	kp, err := NewKeyPackage(inboxID, signer, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	info, err := identity.VerifyKeyPackage(kp.Public(), time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

// revoke revokes the i-th installation.
func (w *world) revoke(p *person, i int) {
	w.t.Helper()
	w.publish(p, nil, identity.RevokeMember(p.wallet.Identifier(), p.installation(i)))
}

func (p *person) installation(i int) identity.Identifier {
	return identity.Installation(p.leaves[i].SignatureKey())
}

// room is a group of alix (super admin, two installations), bo (admin) and caro;
// dana is not in it.
type room struct {
	*world
	alix, bo, caro, dana *person
	members              []mls.Member
	before, after        *GroupState
	exts                 func([]mls.Extension) []mls.Extension // changes the new list

	actor     mls.LeafIndex
	path      *mls.LeafNode
	proposals []stagedProposal
	gce       bool // a new list although nothing of it changed
}

const (
	alixLeaf mls.LeafIndex = iota
	alixSecondLeaf
	boLeaf
	caroLeaf
)

// people makes the inboxes once, because that takes time.
var people = sync.OnceValue(func() *room {
	var t panicking
	w := newWorld(&t)
	return &room{world: w, alix: w.person(2), bo: w.person(1), caro: w.person(1), dana: w.person(2)}
})

// panicking is a test that can't go on after an error.
type panicking struct{ testing.TB }

func (*panicking) Helper()                  {}
func (*panicking) Context() context.Context { return context.Background() }
func (*panicking) Fatal(args ...any)        { panic(fmt.Sprint(args...)) }

// newRoom copies what a test may change.
func newRoom(t testing.TB) *room {
	copied := func(p *person) *person {
		return &person{p.wallet, p.inboxID, slices.Clip(p.keys), slices.Clip(p.leaves), slices.Clip(p.infos), p.at}
	}
	base := people()
	w := &world{t: t, logs: logs{}, next: base.next, time: base.time}
	for inboxID, states := range base.logs {
		w.logs[inboxID] = slices.Clip(states)
	}
	r := &room{world: w, alix: copied(base.alix), bo: copied(base.bo), caro: copied(base.caro), dana: copied(base.dana)}
	for i, leaf := range slices.Concat(r.alix.leaves, r.bo.leaves, r.caro.leaves) {
		r.members = append(r.members, mls.Member{Index: mls.LeafIndex(i), LeafNode: leaf})
	}
	r.before = NewGroup(r.alix.inboxID)
	r.before.Mutable.Admins = []string{r.bo.inboxID}
	r.before.Membership.Members = map[string]uint64{r.alix.inboxID: r.alix.at, r.bo.inboxID: r.bo.at, r.caro.inboxID: r.caro.at}
	r.reset()
	return r
}

// reset makes the commit an empty one again, by caro.
func (r *room) reset() {
	r.after = &GroupState{
		Metadata: r.before.Metadata, Mutable: r.before.Mutable.Clone(), Membership: r.before.Membership.Clone(), Permissions: r.before.Permissions,
	}
	r.by(caroLeaf)
	r.proposals, r.exts, r.gce = nil, nil, false
}

func (r *room) by(leaf mls.LeafIndex) {
	r.actor = leaf
	r.path = &r.members[leaf].LeafNode
}

func (r *room) propose(p mls.Proposal) {
	r.proposals = append(r.proposals, stagedProposal{r.actor, true, p})
}

func (r *room) add(info *identity.KeyPackageInfo) { r.propose(mls.Add{KeyPackage: info.Package}) }

func (r *room) remove(leaf mls.LeafIndex) { r.propose(mls.Remove{Leaf: leaf}) }

// check judges the commit as it stands.
func (r *room) check() (*Change, error) {
	r.t.Helper()
	before, err := r.before.Extensions()
	if err != nil {
		r.t.Fatal(err)
	}
	after, err := r.after.Extensions()
	if err != nil {
		r.t.Fatal(err)
	}
	if r.exts != nil {
		after = r.exts(after)
	}
	c := stagedCommit{
		before: before, after: after, path: r.path, members: slices.Values(r.members),
		member: func(i mls.LeafIndex) (mls.Member, bool) {
			if int(i) >= len(r.members) {
				return mls.Member{}, false
			}
			return r.members[i], true
		},
		proposals: r.proposals,
	}
	same := func(a, b mls.Extension) bool { return a.Type == b.Type && string(a.Data) == string(b.Data) }
	if r.gce || !slices.EqualFunc(before, after, same) {
		c.proposals = append(c.proposals, stagedProposal{r.actor, true, mls.GroupContextExtensions{Extensions: after}})
	}
	return c.check(r.t.Context(), r.logs)
}

// TestCommitRules has a case for each rule; what is accepted shows in the change.
func TestCommitRules(t *testing.T) {
	setMember := func(r *room, p *person) { r.after.Membership.Members[p.inboxID] = p.at }
	addDana := func(r *room) {
		setMember(r, r.dana)
		r.add(r.dana.infos[0])
		r.add(r.dana.infos[1])
	}
	removeBo := func(r *room) {
		delete(r.after.Membership.Members, r.bo.inboxID)
		r.remove(boLeaf)
	}
	attribute := func(name, value string) func(*room) {
		return func(r *room) { r.after.Mutable.Attributes[name] = value }
	}
	as := func(leaf mls.LeafIndex, change func(*room)) func(*room) {
		return func(r *room) {
			r.by(leaf)
			change(r)
		}
	}
	drop := func(typ mls.ExtensionType) func(*room) {
		return func(r *room) {
			r.exts = func(exts []mls.Extension) []mls.Extension {
				return slices.DeleteFunc(exts, func(e mls.Extension) bool { return e.Type == typ })
			}
		}
	}
	set := func(typ mls.ExtensionType, data []byte) func(*room) {
		return func(r *room) {
			r.exts = func(exts []mls.Extension) []mls.Extension { return replace(exts, mls.Extension{Type: typ, Data: data}) }
		}
	}
	for _, c := range []struct {
		name   string
		change func(*room)
		want   error
		check  func(*room, *Change) bool
	}{
		{"key update", func(*room) {}, nil, func(r *room, c *Change) bool {
			return c.Actor == Actor{r.caro.inboxID, r.caro.installation(0)} && !c.InstallationsChanged && len(c.Attributes) == 0
		}},
		{"same extensions once more", func(r *room) { r.gce = true }, nil, nil},

		// The library's rules for extensions.
		{"unknown extension", set(0xff77, nil), ErrExtensionNotRequired, nil},
		{"unknown extension, required", func(r *room) {
			q := requiredCapabilities
			q.Extensions = append(slices.Clone(q.Extensions), 0xff04)
			r.exts = func(exts []mls.Extension) []mls.Extension {
				return append(replace(exts, q.Extension()), mls.Extension{Type: 0xff04})
			}
		}, nil, func(r *room, c *Change) bool { return slices.Contains(c.Warnings, WarnRequirementsChanged) }},
		{"extension that members don't know, required", func(r *room) {
			q := requiredCapabilities
			q.Extensions = append(slices.Clone(q.Extensions), 0xff77)
			r.exts = func(exts []mls.Extension) []mls.Extension { return replace(exts, q.Extension()) }
		}, ErrExtensionNotSupported, nil},
		{"extension of the RFC", set(mls.ExtensionExternalSenders, []byte{0}), nil, nil},
		{"no required capabilities", drop(mls.ExtensionRequiredCapabilities), ErrExtensionNotRequired, nil},
		{"metadata that is no vector", set(extensionMetadata, []byte{5}), ErrMetadata, nil},

		// Rule 3: extensions that must be there.
		{"no mutable metadata", drop(extensionMutableMetadata), ErrNoMutableMetadata, nil},
		{"mutable metadata of none", set(extensionMutableMetadata, []byte{0xff}), ErrMutableMetadata, nil},
		{"mutable metadata without admins", set(extensionMutableMetadata, []byte{0x12, 0}), ErrMutableMetadata, nil},
		{"no membership", drop(extensionMembership), ErrNoMembership, nil},
		{"membership of none", set(extensionMembership, []byte{0xff}), ErrMembershipEncoding, nil},
		{"no permissions", drop(extensionPermissions), ErrPermissions, nil},
		{"permissions of none", set(extensionPermissions, nil), ErrPermissions, nil},
		{"other metadata", as(alixLeaf, func(r *room) {
			e, _ := (&Metadata{Type: Group, CreatorInboxID: r.bo.inboxID}).extension()
			set(e.Type, e.Data)(r)
		}), nil, func(r *room, c *Change) bool { return slices.Equal(c.Warnings, []Warning{WarnMetadataChanged}) }},
		{"metadata that can't be read later", set(extensionMetadata, []byte{0}), nil, func(r *room, c *Change) bool { return len(c.Warnings) == 1 }},

		// Rule 4: lengths.
		{"long name", attribute(AttributeName, strings.Repeat("x", 101)), ErrAttributeTooLong, nil},
		{"name of the greatest length", attribute(AttributeName, strings.Repeat("x", 100)), nil, nil},

		// Rule 5: one actor.
		{"proposal of another", func(r *room) {
			r.proposals = append(r.proposals, stagedProposal{boLeaf, true, mls.Remove{Leaf: alixLeaf}})
			r.gce = true
		}, ErrMultipleActors, nil},
		{"path of another", func(r *room) {
			r.gce = true
			r.path = &r.members[boLeaf].LeafNode
		}, ErrMultipleActors, nil},
		{"proposal of nobody", func(r *room) {
			r.proposals = append(r.proposals, stagedProposal{proposal: mls.Remove{Leaf: boLeaf}})
		}, ErrActorNotMember, nil},
		{"neither path nor proposals", func(r *room) { r.path = nil }, ErrActorUnknown, nil},
		{"proposal of a blank leaf", func(r *room) {
			r.path, r.actor, r.gce = nil, 17, true
		}, ErrActorUnknown, nil},
		{"no path", func(r *room) {
			r.path = nil
			r.by(alixLeaf)
			r.path = nil
			r.gce = true
		}, nil, func(r *room, c *Change) bool { return c.Actor.InboxID == r.alix.inboxID }},

		// Rule 6.
		{"PSK", func(r *room) { r.propose(mls.PreSharedKey{}) }, ErrPSK, nil},

		// Rules 7 to 11: membership.
		{"sequence id decreased", func(r *room) { r.after.Membership.Members[r.alix.inboxID]-- }, ErrSequenceIDDecreased, nil},
		{"sequence id to 0", func(r *room) { r.after.Membership.Members[r.alix.inboxID] = 0 }, ErrSequenceIDDecreased, nil},
		{"add member", addDana, nil, func(r *room, c *Change) bool {
			return slices.Equal(c.Added, []string{r.dana.inboxID}) && c.InstallationsChanged && len(c.Warnings) == 0
		}},
		{"add member with one installation of two", func(r *room) {
			setMember(r, r.dana)
			r.add(r.dana.infos[1])
		}, nil, nil},
		{"add member without any", func(r *room) { setMember(r, r.dana) }, nil, nil},
		{"add member at an earlier place of the log", func(r *room) {
			r.after.Membership.Members[r.dana.inboxID] = r.dana.at - 10
			r.add(r.dana.infos[0])
		}, nil, nil},
		{"add installation that wasn't there yet", func(r *room) {
			r.after.Membership.Members[r.dana.inboxID] = r.dana.at - 10
			r.add(r.dana.infos[1])
		}, ErrInstallationAdded, nil},
		{"add at no update", func(r *room) {
			r.after.Membership.Members[r.dana.inboxID] = r.dana.at + 1
			r.add(r.dana.infos[0])
		}, ErrInboxLog, nil},
		{"add at 0", func(r *room) { r.after.Membership.Members[r.dana.inboxID] = 0 }, ErrInboxLog, nil},
		{"add beyond all", func(r *room) { r.after.Membership.Members[r.dana.inboxID] = 1 << 63 }, ErrInboxLog, nil},
		{"add unknown inbox", func(r *room) { r.after.Membership.Members[alix] = 10 }, ErrInboxLog, nil},
		{"add leaf without membership", func(r *room) { r.add(r.dana.infos[0]) }, ErrInstallationAdded, nil},
		{"add a leaf that is there", func(r *room) { r.add(r.bo.infos[0]) }, nil, nil},
		{"add by a claim of another inbox", func(r *room) {
			setMember(r, r.dana)
			r.add(r.keyPackage(r.bo.inboxID, r.dana.keys[0]))
		}, nil, func(r *room, c *Change) bool { return slices.Equal(c.Warnings, []Warning{WarnForeignInstallation}) }},
		{"sequence id to no update, nothing between", func(r *room) { r.after.Membership.Members[r.bo.inboxID] += 3 }, nil, nil},
		{"sequence id to no update, something between", func(r *room) {
			r.install(r.bo)
			r.after.Membership.Members[r.bo.inboxID] = r.bo.at + 3
		}, ErrInboxLog, nil},
		{"sequence id beyond all", func(r *room) { r.after.Membership.Members[r.bo.inboxID] = 1 << 63 }, nil, nil},
		{"new installation of a member", func(r *room) {
			i := r.install(r.bo)
			setMember(r, r.bo)
			r.add(r.bo.infos[i])
		}, nil, func(r *room, c *Change) bool { return len(c.Added) == 0 && c.InstallationsChanged }},
		{"revoked installation", func(r *room) {
			r.revoke(r.alix, 1)
			setMember(r, r.alix)
			r.remove(alixSecondLeaf)
		}, nil, nil},
		{"revoked installation stays", func(r *room) {
			r.revoke(r.alix, 1)
			setMember(r, r.alix)
		}, ErrInstallationRemoved, nil},
		{"revoked installation that never was there", func(r *room) {
			r.revoke(r.alix, 1)
			setMember(r, r.alix)
			r.after.Membership.Failed = []identity.Identifier{r.alix.installation(1)}
		}, nil, nil},
		{"revoked and failed installation is removed", func(r *room) {
			r.revoke(r.alix, 1)
			setMember(r, r.alix)
			r.remove(alixSecondLeaf)
			r.after.Membership.Failed = []identity.Identifier{r.alix.installation(1)}
		}, ErrInstallationRemoved, nil},
		{"remove a leaf only", as(alixLeaf, func(r *room) { r.remove(boLeaf) }), ErrInstallationRemoved, nil},
		{"remove a leaf that isn't there", func(r *room) { r.remove(17) }, ErrSubjectUnknown, nil},
		{"remove a member without the leaf", as(alixLeaf, func(r *room) { delete(r.after.Membership.Members, r.bo.inboxID) }), ErrInstallationRemoved, nil},
		{"remove a member", as(alixLeaf, removeBo), nil, func(r *room, c *Change) bool { return slices.Equal(c.Removed, []string{r.bo.inboxID}) }},

		// Rule 9: super admins add installations again.
		{"readd by a super admin", as(alixLeaf, func(r *room) {
			r.remove(boLeaf)
			r.add(r.bo.infos[0])
		}), nil, func(r *room, c *Change) bool {
			return slices.Equal(c.Readded, []identity.Identifier{r.bo.installation(0)}) && c.InstallationsChanged
		}},
		{"readd that failed", as(alixLeaf, func(r *room) {
			r.remove(boLeaf)
			r.after.Membership.Failed = []identity.Identifier{r.bo.installation(0)}
		}), nil, func(r *room, c *Change) bool { return len(c.Readded) == 1 }},
		{"readd by an admin", as(boLeaf, func(r *room) {
			r.remove(caroLeaf)
			r.add(r.caro.infos[0])
		}), ErrInstallationRemoved, nil},

		// Rule 12: the actor belongs to his inbox.
		{"actor removes his inbox", as(boLeaf, func(r *room) { delete(r.after.Membership.Members, r.bo.inboxID) }), ErrInstallationRemoved, nil},
		{"actor without inbox in the membership", func(r *room) {
			foreign := r.keyPackage(alix, r.caro.keys[0]).Package.LeafNode()
			r.path = &foreign
		}, ErrSubjectUnknown, nil},
		{"actor under a foreign inbox", func(r *room) {
			foreign := r.keyPackage(r.alix.inboxID, r.caro.keys[0]).Package.LeafNode()
			r.path = &foreign
		}, ErrInboxValidation, nil},
		{"revoked actor brings his inbox up to date", func(r *room) {
			r.revoke(r.caro, 0)
			setMember(r, r.caro)
			r.after.Membership.Failed = []identity.Identifier{r.caro.installation(0)}
		}, ErrInboxValidation, nil},
		{"Update of a foreign inbox", func(r *room) {
			r.propose(mls.Update{LeafNode: r.keyPackage(r.alix.inboxID, r.bo.keys[0]).Package.LeafNode()})
		}, ErrInboxValidation, nil},
		{"Update", func(r *room) { r.propose(mls.Update{LeafNode: r.bo.leaves[0]}) }, nil, nil},

		// Rule 13: permissions.
		{"member removes a member", removeBo, ErrNotPermitted, nil},
		{"admin removes a member", as(boLeaf, func(r *room) {
			delete(r.after.Membership.Members, r.caro.inboxID)
			r.remove(caroLeaf)
		}), nil, nil},
		{"admin removes a super admin", as(boLeaf, func(r *room) {
			delete(r.after.Membership.Members, r.alix.inboxID)
			r.remove(alixLeaf)
			r.remove(alixSecondLeaf)
		}), ErrNotPermitted, nil},
		{"member adds where only admins may", func(r *room) {
			r.before.Permissions = AdminOnlyPermissions()
			r.after.Permissions = r.before.Permissions
			addDana(r)
		}, ErrNotPermitted, nil},
		{"admin adds where only admins may", as(boLeaf, func(r *room) {
			r.before.Permissions = AdminOnlyPermissions()
			r.after.Permissions = r.before.Permissions
			addDana(r)
		}), nil, nil},
		{"rename", attribute(AttributeName, "new"), nil, func(r *room, c *Change) bool {
			a := c.Attributes
			return len(a) == 1 && a[0].Name == AttributeName && *a[0].Old == "" && *a[0].New == "new"
		}},
		{"member sets the time to disappear", attribute(AttributeDisappearIn, "5"), ErrNotPermitted, nil},
		{"admin sets the time to disappear", as(boLeaf, attribute(AttributeDisappearIn, "5")), nil, func(r *room, c *Change) bool {
			return c.Attributes[0].Old == nil
		}},
		{"admin sets the required version", as(boLeaf, attribute(AttributeMinimumVersion, "1.0.0")), ErrNotPermitted, nil},
		{"member sets an attribute without policy", attribute("mood", "good"), ErrNotPermitted, nil},
		{"admin sets an attribute without policy", as(boLeaf, attribute("mood", "good")), nil, nil},
		{"admin sets a secret attribute", as(boLeaf, attribute("_mood", "good")), ErrNotPermitted, nil},
		{"super admin sets a secret attribute", as(alixLeaf, attribute("_mood", "good")), nil, nil},
		{"member drops an attribute", func(r *room) { delete(r.after.Mutable.Attributes, AttributeAppData) }, nil, func(r *room, c *Change) bool {
			return c.Attributes[0].New == nil
		}},
		{"admin adds an admin", as(boLeaf, func(r *room) { r.after.Mutable.Admins = append(r.after.Mutable.Admins, r.caro.inboxID) }), ErrNotPermitted, nil},
		{"super admin adds an admin", as(alixLeaf, func(r *room) { r.after.Mutable.Admins = append(r.after.Mutable.Admins, r.caro.inboxID) }), nil, func(r *room, c *Change) bool {
			return slices.Equal(c.AdminsAdded, []string{r.caro.inboxID})
		}},
		{"admin removes himself from the admins", as(boLeaf, func(r *room) { r.after.Mutable.Admins = nil }), ErrNotPermitted, nil},
		{"super admin removes an admin", as(alixLeaf, func(r *room) { r.after.Mutable.Admins = nil }), nil, func(r *room, c *Change) bool {
			return slices.Equal(c.AdminsRemoved, []string{r.bo.inboxID})
		}},
		{"admins may add admins", as(boLeaf, func(r *room) {
			r.before.Permissions = DefaultPermissions()
			r.before.Permissions.AddAdmin = Policy{Rule: AllowAdmins}
			r.after.Permissions = r.before.Permissions
			r.after.Mutable.Admins = append(r.after.Mutable.Admins, r.caro.inboxID)
		}), nil, nil},
		{"admin adds a super admin", as(boLeaf, func(r *room) { r.after.Mutable.SuperAdmins = append(r.after.Mutable.SuperAdmins, r.bo.inboxID) }), ErrNotPermitted, nil},
		{"super admin adds a super admin", as(alixLeaf, func(r *room) { r.after.Mutable.SuperAdmins = append(r.after.Mutable.SuperAdmins, r.bo.inboxID) }), nil, func(r *room, c *Change) bool {
			return slices.Equal(c.SuperAdminsAdded, []string{r.bo.inboxID})
		}},
		{"the last super admin steps down", as(alixLeaf, func(r *room) { r.after.Mutable.SuperAdmins = nil }), ErrNotPermitted, nil},
		{"a super admin hands over", as(alixLeaf, func(r *room) { r.after.Mutable.SuperAdmins = []string{r.bo.inboxID} }), nil, func(r *room, c *Change) bool {
			return slices.Equal(c.SuperAdminsRemoved, []string{r.alix.inboxID})
		}},
		{"admin hands over", as(boLeaf, func(r *room) { r.after.Mutable.SuperAdmins = []string{r.bo.inboxID} }), ErrNotPermitted, nil},
		{"admin changes the permissions", as(boLeaf, func(r *room) { r.after.Permissions = AdminOnlyPermissions() }), ErrNotPermitted, nil},
		{"admin changes the permissions as those allow", as(boLeaf, func(r *room) {
			r.before.Permissions = DefaultPermissions()
			r.before.Permissions.UpdatePermissions = Policy{Rule: AllowAdmins}
			r.after.Permissions = AdminOnlyPermissions()
		}), ErrNotPermitted, nil},
		{"super admin changes the permissions", as(alixLeaf, func(r *room) { r.after.Permissions = AdminOnlyPermissions() }), nil, func(r *room, c *Change) bool {
			return c.PermissionsChanged
		}},
		{"new permissions are not in force yet", as(boLeaf, func(r *room) {
			r.before.Permissions = AdminOnlyPermissions()
			r.before.Permissions.Metadata[AttributeName] = Policy{Rule: Deny}
			r.after.Permissions = r.before.Permissions
			attribute(AttributeName, "new")(r)
		}), ErrNotPermitted, nil},
		{"new roles are not in force yet", func(r *room) {
			r.after.Mutable.SuperAdmins = append(r.after.Mutable.SuperAdmins, r.caro.inboxID)
			attribute("_mood", "good")(r)
		}, ErrNotPermitted, nil},

		// Rule 14.
		{"required version of now", as(alixLeaf, attribute(AttributeMinimumVersion, Version)), nil, nil},
		{"required version of later", as(alixLeaf, attribute(AttributeMinimumVersion, "1.11.0-dev")), &VersionError{"1.11.0-dev"}, nil},
		{"required version that is none", as(alixLeaf, attribute(AttributeMinimumVersion, "soon")), ErrMinimumVersion, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRoom(t)
			c.change(r)
			change, err := r.check()
			if want, ok := c.want.(*VersionError); ok {
				got, ok := errors.AsType[*VersionError](err)
				if !ok || *got != *want || IsVerdict(err) {
					t.Errorf("%v, want %v", err, want)
				}
				return
			}
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err != nil && !IsVerdict(err) {
				t.Errorf("%v is no verdict", err)
			}
			if err == nil && c.check != nil && !c.check(r, change) {
				t.Errorf("change %+v", change)
			}
		})
	}
}

// TestCommitOldState: a state that can't be read can't be left.
func TestCommitOldState(t *testing.T) {
	r := newRoom(t)
	exts, err := r.before.Extensions()
	if err != nil {
		t.Fatal(err)
	}
	for typ, want := range map[mls.ExtensionType]error{
		extensionMetadata: ErrMetadata, extensionMutableMetadata: ErrMutableMetadata,
		extensionPermissions: ErrPermissions, extensionMembership: ErrMembershipEncoding,
	} {
		c := stagedCommit{
			before: replace(exts, mls.Extension{Type: typ, Data: []byte{1, 0xff}}), after: exts,
			path: r.path, members: slices.Values(r.members),
		}
		if _, err := c.check(t.Context(), r.logs); !errors.Is(err, want) {
			t.Errorf("%#x: %v, want %v", typ, err, want)
		}
	}
}

// TestFirstCommit: the creator's placeholder becomes a real sequence id, and his other
// installations and the peer of a DM come in.
func TestFirstCommit(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.person(2), w.person(1), w.person(1)
	creator := mls.Member{Index: 0, LeafNode: a.leaves[0]}
	check := func(s *GroupState, members map[string]uint64, adds ...*identity.KeyPackageInfo) error {
		before, err := s.Extensions()
		if err != nil {
			t.Fatal(err)
		}
		after, err := WithMembership(before, &Membership{Members: members})
		if err != nil {
			t.Fatal(err)
		}
		commit := stagedCommit{
			before: before, after: after, path: &a.leaves[0], members: slices.Values([]mls.Member{creator}),
			member: func(i mls.LeafIndex) (mls.Member, bool) { return creator, i == 0 },
		}
		for _, info := range adds {
			commit.proposals = append(commit.proposals, stagedProposal{0, true, mls.Add{KeyPackage: info.Package}})
		}
		commit.proposals = append(commit.proposals, stagedProposal{0, true, mls.GroupContextExtensions{Extensions: after}})
		_, err = commit.check(t.Context(), w.logs)
		return err
	}
	both := map[string]uint64{a.inboxID: a.at, b.inboxID: b.at}
	if err := check(NewDM(a.inboxID, b.inboxID), both, b.infos[0], a.infos[1]); err != nil {
		t.Error(err)
	}
	if err := check(NewGroup(a.inboxID), both, b.infos[0], a.infos[1]); err != nil {
		t.Error(err)
	}
	// Somebody else can't be added to a DM, nor the peer and somebody else.
	if err := check(NewDM(a.inboxID, b.inboxID), map[string]uint64{a.inboxID: a.at, c.inboxID: c.at}, c.infos[0]); !errors.Is(err, ErrNotPermitted) {
		t.Errorf("a third one in a DM: %v", err)
	}
	three := maps.Clone(both)
	three[c.inboxID] = c.at
	if err := check(NewDM(a.inboxID, b.inboxID), three, b.infos[0], c.infos[0]); !errors.Is(err, ErrNotPermitted) {
		t.Errorf("two in a DM: %v", err)
	}
	// As long as nobody has touched it, the placeholder stands for all of the log.
	if err := check(NewGroup(a.inboxID), map[string]uint64{a.inboxID: 0}); err != nil {
		t.Errorf("placeholder kept: %v", err)
	}
	s := NewGroup(a.inboxID)
	s.Membership.Members[a.inboxID] = a.at - 10
	if err := check(s, map[string]uint64{a.inboxID: 0}); !errors.Is(err, ErrSequenceIDDecreased) {
		t.Errorf("placeholder put back: %v", err)
	}
	// His second installation comes later in the log than the place says.
	if err := check(NewGroup(a.inboxID), map[string]uint64{a.inboxID: a.at - 10}, a.infos[1]); !errors.Is(err, ErrInstallationAdded) {
		t.Errorf("installation of later: %v", err)
	}
}

// failing is a directory that can't answer, or answers nonsense.
type failing struct {
	states []InboxState
	err    error
}

func (f failing) InboxStates(context.Context, []Position) ([]InboxState, error) {
	return f.states, f.err
}

// TestDirectoryFails: without an answer there is no verdict.
func TestDirectoryFails(t *testing.T) {
	r := newRoom(t)
	exts, err := r.before.Extensions()
	if err != nil {
		t.Fatal(err)
	}
	c := stagedCommit{before: exts, after: exts, path: r.path, members: slices.Values(r.members)}
	unreachable := errors.New("unreachable")
	if _, err := c.check(t.Context(), failing{err: unreachable}); !errors.Is(err, unreachable) || IsVerdict(err) {
		t.Errorf("unreachable: %v", err)
	}
	if _, err := c.check(t.Context(), failing{}); err == nil || IsVerdict(err) {
		t.Errorf("too few answers: %v", err)
	}
	bad := errors.New("bad log")
	if _, err := c.check(t.Context(), failing{states: []InboxState{{Err: bad}}}); !errors.Is(err, bad) || !errors.Is(err, ErrInboxLog) || !IsVerdict(err) {
		t.Errorf("invalid log: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.check(cancelled, r.logs); !errors.Is(err, context.Canceled) || IsVerdict(err) {
		t.Errorf("cancelled: %v", err)
	}
}

// asked counts calls of a directory.
type asked struct {
	Directory
	calls int
}

func (a *asked) InboxStates(ctx context.Context, at []Position) ([]InboxState, error) {
	a.calls++
	for _, p := range at {
		if p.SequenceID == 0 || p.SequenceID > Latest {
			return nil, errors.New("asked for a position that there isn't")
		}
	}
	return a.Directory.InboxStates(ctx, at)
}

func TestOneLookUp(t *testing.T) {
	r := newRoom(t)
	r.install(r.bo)
	before, err := r.before.Extensions()
	if err != nil {
		t.Fatal(err)
	}
	after, err := WithMembership(before, &Membership{Members: map[string]uint64{
		r.alix.inboxID: r.alix.at, r.bo.inboxID: r.bo.at, r.dana.inboxID: r.dana.at, r.caro.inboxID: r.caro.at}})
	if err != nil {
		t.Fatal(err)
	}
	c := stagedCommit{before: before, after: after, path: r.path, members: slices.Values(r.members)}
	d := &asked{Directory: r.logs}
	if _, err := c.check(t.Context(), d); err != nil || d.calls != 1 {
		t.Errorf("%d calls, %v", d.calls, err)
	}
}

func TestDiffAttributes(t *testing.T) {
	s := func(v string) *string { return &v }
	got := diffAttributes(map[string]string{"a": "1", "b": "2", "c": "3"}, map[string]string{"b": "2", "c": "4", "d": ""})
	want := []AttributeChange{{"a", s("1"), nil}, {"c", s("3"), s("4")}, {"d", nil, s("")}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
