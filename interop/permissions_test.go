package interop

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// role is what somebody is in a group.
type role int

const (
	plainMember role = iota
	admin
	superAdmin
)

func (r role) String() string { return [...]string{"a member", "an admin", "a super admin"}[r] }

// may tells what a policy says of a role, by the words of its rules.
func may(p protocol.Policy, r role) bool {
	is := func(p protocol.Policy) bool { return may(p, r) }
	switch p.Rule {
	case protocol.Allow:
		return true
	case protocol.AllowAdmins:
		return r >= admin
	case protocol.AllowSuperAdmins:
		return r == superAdmin
	case protocol.AnyOf:
		return slices.ContainsFunc(p.Of, is)
	case protocol.AllOf:
		return !slices.ContainsFunc(p.Of, func(p protocol.Policy) bool { return !is(p) })
	}
	return false
}

// court is a group in which all roles try what is permitted to some, with a client of
// each side that judges their commits.
type court struct {
	t *testing.T
	// The judges: ours is a plain member, theirs the creator and a super admin.
	our   *goMember
	their *officialMember
	// Who tries it, by role: clients, and members who keep to no rule.
	ours      []*goMember
	theirs    []*officialMember
	outlaws   []*mallory
	outside   []*mallory        // are in no group
	inside    []*mallory        // are members, and do nothing
	appointed map[role][]string // admins and super admins among them
	turn      int               // of attempts, for values that differ
	policies  *protocol.PolicySet
}

// deed is something that takes a permission. Where one undoes another, it follows it.
type deed struct {
	name   string
	policy func(s *protocol.PolicySet) protocol.Policy
	// How members do it who keep to no rule; value is another one each time.
	change func(c *court, s *protocol.GroupState, value string)
	more   func(c *court) []mls.Proposal
	// How clients do it; nil where they have no call for it.
	ours   func(c *court, v ours, value string) error
	theirs func(c *court, v *official.Conversation, value string) error
	done   func(c *court) // keeps count of it
}

var onlySuper = func(*protocol.PolicySet) protocol.Policy {
	return protocol.Policy{Rule: protocol.AllowSuperAdmins}
}

func metadataPolicy(name string) func(s *protocol.PolicySet) protocol.Policy {
	return func(s *protocol.PolicySet) protocol.Policy { return s.Metadata[name] }
}

// textDeed changes an attribute that clients have a call for.
func textDeed(name string, our func(v ours, value string) error, their string) deed {
	d := deed{
		name: name, policy: metadataPolicy(name),
		change: func(_ *court, s *protocol.GroupState, value string) { s.Mutable.Attributes[name] = value },
		ours:   func(_ *court, v ours, value string) error { return our(v, value) },
	}
	if their != "" {
		d.theirs = func(_ *court, v *official.Conversation, value string) error { return v.TryCall(nil, their, value) }
	}
	return d
}

// attributeDeed changes an attribute that clients have no call for.
func attributeDeed(name string, r protocol.PolicyRule) deed {
	return deed{
		name: name, policy: func(*protocol.PolicySet) protocol.Policy { return protocol.Policy{Rule: r} },
		change: func(_ *court, s *protocol.GroupState, value string) { s.Mutable.Attributes[name] = value },
	}
}

// listDeed changes a list of admins. Nobody is added who is in it, or removed who is not:
// that would be no change, which everybody may make.
func listDeed(name string, policy func(*protocol.PolicySet) protocol.Policy, level role, add bool,
	our func(v ours, whom string) error, their string) deed {
	whom := func(c *court) string { return c.appointed[level][len(c.appointed[level])-1] }
	if add {
		whom = func(c *court) string {
			i := slices.IndexFunc(c.inside, func(m *mallory) bool { return !slices.Contains(c.appointed[level], m.inboxID) })
			return c.inside[i].inboxID
		}
	}
	return deed{
		name: name, policy: policy,
		change: func(c *court, s *protocol.GroupState, _ string) {
			list := &s.Mutable.Admins
			if level == superAdmin {
				list = &s.Mutable.SuperAdmins
			}
			if add {
				*list = append(*list, whom(c))
			} else {
				*list = slices.DeleteFunc(*list, func(id string) bool { return id == whom(c) })
			}
		},
		ours:   func(c *court, v ours, _ string) error { return our(v, whom(c)) },
		theirs: func(c *court, v *official.Conversation, _ string) error { return v.TryCall(nil, their, whom(c)) },
		done: func(c *court) {
			if add {
				c.appointed[level] = append(c.appointed[level], whom(c))
			} else {
				c.appointed[level] = c.appointed[level][:len(c.appointed[level])-1]
			}
		},
	}
}

// deeds are all that groups.md §2.5 and §3.4 rule 13 have a policy or a fixed rule for.
var deeds = []deed{
	{
		name: "add a member", policy: func(s *protocol.PolicySet) protocol.Policy { return s.AddMember },
		change: func(c *court, s *protocol.GroupState, _ string) {
			s.Membership.Members[c.outside[0].inboxID] = c.outside[0].latest(c.outside[0].inboxID)
		},
		more: func(c *court) []mls.Proposal { return []mls.Proposal{c.outside[0].add()} },
		ours: func(c *court, v ours, _ string) error { return v.AddMembers(c.t.Context(), c.outside[0].inboxID) },
		theirs: func(c *court, v *official.Conversation, _ string) error {
			return v.TryCall(nil, "addMembers", []string{c.outside[0].inboxID})
		},
		done: func(c *court) { c.inside, c.outside = append(c.inside, c.outside[0]), c.outside[1:] },
	},
	{
		name: "remove a member", policy: func(s *protocol.PolicySet) protocol.Policy { return s.RemoveMember },
		change: func(c *court, s *protocol.GroupState, _ string) { delete(s.Membership.Members, c.last().inboxID) },
		more: func(c *court) (removals []mls.Proposal) {
			for _, leaf := range c.outlaws[0].leaves(c.last().inboxID) {
				removals = append(removals, mls.Remove{Leaf: leaf})
			}
			return removals
		},
		ours: func(c *court, v ours, _ string) error { return v.RemoveMembers(c.t.Context(), c.last().inboxID) },
		theirs: func(c *court, v *official.Conversation, _ string) error {
			return v.TryCall(nil, "removeMembers", []string{c.last().inboxID})
		},
		done: func(c *court) { c.outside, c.inside = append(c.outside, c.last()), c.inside[:len(c.inside)-1] },
	},
	listDeed("add an admin", func(s *protocol.PolicySet) protocol.Policy { return s.AddAdmin }, admin, true,
		func(v ours, whom string) error { return v.AddAdmin(v.t.Context(), whom) }, "addAdmin"),
	listDeed("remove an admin", func(s *protocol.PolicySet) protocol.Policy { return s.RemoveAdmin }, admin, false,
		func(v ours, whom string) error { return v.RemoveAdmin(v.t.Context(), whom) }, "removeAdmin"),
	listDeed("add a super admin", onlySuper, superAdmin, true,
		func(v ours, whom string) error { return v.AddSuperAdmin(v.t.Context(), whom) }, "addSuperAdmin"),
	listDeed("remove a super admin", onlySuper, superAdmin, false,
		func(v ours, whom string) error { return v.RemoveSuperAdmin(v.t.Context(), whom) }, "removeSuperAdmin"),
	textDeed(protocol.AttributeName, func(v ours, value string) error { return v.SetName(v.t.Context(), value) }, "updateName"),
	textDeed(protocol.AttributeDescription, func(v ours, value string) error { return v.SetDescription(v.t.Context(), value) }, "updateDescription"),
	textDeed(protocol.AttributeImageURL, func(v ours, value string) error { return v.SetImageURL(v.t.Context(), value) }, "updateImageUrl"),
	textDeed(protocol.AttributeAppData, func(v ours, value string) error { return v.SetAppData(v.t.Context(), value) }, "updateAppData"),
	textDeed(protocol.AttributeMinimumVersion, func(v ours, value string) error { return v.SetMinimumVersion(v.t.Context(), value) }, ""),
	{
		name: "disappearing", policy: metadataPolicy(protocol.AttributeDisappearIn),
		change: func(c *court, s *protocol.GroupState, _ string) {
			s.Mutable.SetDisappearing(protocol.Disappearing{From: int64(c.turn), In: int64(c.turn)})
		},
		ours: func(c *court, v ours, _ string) error {
			return v.SetDisappearing(c.t.Context(), xmtp.Disappearing{From: time.Unix(0, int64(c.turn)), In: time.Duration(c.turn)})
		},
		theirs: func(c *court, v *official.Conversation, _ string) error {
			return v.TryCall(nil, "updateMessageDisappearingSettings", bigint(int64(c.turn)), bigint(int64(c.turn)))
		},
	},
	attributeDeed("mood", protocol.AllowAdmins),
	attributeDeed("_mood", protocol.AllowSuperAdmins),
	{
		name: "permissions", policy: onlySuper,
		// A policy that no deed asks for.
		change: func(c *court, s *protocol.GroupState, _ string) {
			s.Permissions.Metadata["weather"] = protocol.Policy{Rule: []protocol.PolicyRule{protocol.Allow, protocol.Deny}[c.turn%2]}
		},
	},
}

// last is the newest of those inside.
func (c *court) last() *mallory { return c.inside[len(c.inside)-1] }

// add proposes m as a member.
func (m *mallory) add() mls.Proposal {
	m.t.Helper()
	info, err := identity.VerifyKeyPackage(m.keys.Public(), time.Now())
	return mls.Add{KeyPackage: check(m.t, info, err).Package}
}

// newCourt makes a group of theirs with members of all kinds.
func newCourt(t *testing.T, w *world) *court {
	t.Helper()
	c := &court{t: t}
	var ids []string
	for i, level := range []role{plainMember, admin, superAdmin} {
		c.ours = append(c.ours, &goMember{client: goClient(t, w.url), t: t})
		c.theirs = append(c.theirs, &officialMember{client: w.Client(fmt.Sprint("their ", level)), t: t})
		c.outlaws = append(c.outlaws, newMallory(t, w.url))
		ids = append(ids, c.ours[i].inboxID(), c.theirs[i].inboxID())
		c.outside = append(c.outside, newMallory(t, w.url))
	}
	for range 5 {
		c.inside = append(c.inside, newMallory(t, w.url))
		ids = append(ids, c.last().inboxID)
	}
	c.our, c.their = c.ours[plainMember], c.theirs[superAdmin]
	c.their.view = c.their.client.Group(nil, nil)
	c.their.view.Call(nil, "addMembers", slices.DeleteFunc(ids, func(id string) bool { return id == c.their.inboxID() }))
	for _, m := range c.outlaws { // one by one, for they don't read pointers to welcomes
		c.their.view.Call(nil, "addMembers", []string{m.inboxID})
	}
	c.appointed = map[role][]string{}
	for level, call := range map[role]string{admin: "addAdmin", superAdmin: "addSuperAdmin"} {
		c.appointed[level] = []string{c.inside[0].inboxID}
		for _, id := range append(c.appointed[level], c.ours[level].inboxID(), c.theirs[level].inboxID(), c.outlaws[level].inboxID) {
			if id != c.their.inboxID() {
				c.their.view.Call(nil, call, id)
			}
		}
	}
	for i := range c.ours {
		c.ours[i].join(c.their.view.ID)
		if c.theirs[i] != c.their {
			c.theirs[i].join(c.their.view.ID)
		}
		c.outlaws[i].join()
	}
	return c
}

// judge compares what both judges have made of an attempt and tells whether it was
// applied; outlaw is who committed it, if it was one.
func (c *court) judge(before string, outlaw *mallory) (applied bool) {
	c.t.Helper()
	c.our.sync()
	c.their.sync()
	after := c.our.epoch()
	equal(c.t, "epoch, they say", c.their.epoch(), after)
	applied = after != before
	for _, m := range c.outlaws {
		if m == outlaw {
			m.settle(applied)
		}
		m.read(applied)
	}
	return applied
}

// outlaw has a member commit something whatever the rules are.
func (c *court) outlaw(m *mallory, d deed, value string) (applied bool) {
	c.t.Helper()
	a := attack{}
	if d.change != nil {
		a.change = func(_ *mallory, s *protocol.GroupState) { d.change(c, s, value) }
	}
	if d.more != nil {
		a.more = func(*mallory) []mls.Proposal { return d.more(c) }
	}
	before := c.our.epoch()
	m.publish(a.proposals(m))
	applied = c.judge(before, m)
	if !applied {
		skipped, err := c.our.client.Skipped()
		last := check(c.t, skipped, err)[len(skipped)-1]
		equal(c.t, d.name+" refused because", last.Reason, xmtp.SkipReason(protocol.ErrNotPermitted.Code))
	}
	return applied
}

// govern sets the group's policies.
func (c *court) govern(s *protocol.PolicySet) {
	c.t.Helper()
	c.policies = s
	applied := c.outlaw(c.outlaws[superAdmin], deed{name: "policies", change: func(_ *court, state *protocol.GroupState, _ string) {
		state.Permissions = s
	}}, "")
	equal(c.t, "policies are set", applied, true)
}

// try has everybody of a role try a deed in every way there is, and compares what comes
// of it with what the policies say.
func (c *court) try(d deed, level role, clients bool) {
	c.t.Helper()
	want := may(d.policy(c.policies), level)
	ways := map[string]func(value string) bool{
		"without rules": func(value string) bool { return c.outlaw(c.outlaws[level], d, value) },
	}
	if clients && d.ours != nil {
		ways["a Go client"] = func(value string) bool {
			before := c.our.epoch()
			err := d.ours(c, c.ours[level].view, value)
			if (err == nil) != want || err != nil && !errors.Is(err, xmtp.ErrNotPermitted) {
				c.t.Errorf("%s by %v with a Go client, allowed %v: %v", d.name, level, want, err)
			}
			return c.judge(before, nil)
		}
	}
	if clients && d.theirs != nil {
		ways["an official client"] = func(value string) bool {
			before := c.our.epoch()
			if err := d.theirs(c, c.theirs[level].view, value); (err == nil) != want {
				c.t.Errorf("%s by %v with an official client, allowed %v: %v", d.name, level, want, err)
			}
			return c.judge(before, nil)
		}
	}
	for _, way := range []string{"without rules", "a Go client", "an official client"} {
		if ways[way] == nil {
			continue
		}
		c.turn++
		value := fmt.Sprint("1.0.", c.turn) // which is a version, too
		if got := ways[way](value); got != want {
			c.t.Errorf("%s by %v, %s: applied %v, allowed %v", d.name, level, way, got, want)
		}
		if want && d.done != nil {
			d.done(c)
		}
	}
}

// everywhere makes a set of one policy for all. Admins can't be allowed to everybody.
func everywhere(p protocol.Policy) *protocol.PolicySet {
	s := protocol.DefaultPermissions()
	s.AddMember, s.RemoveMember = p, p
	for name := range s.Metadata {
		s.Metadata[name] = p
	}
	s.AddAdmin, s.RemoveAdmin = p, p
	if p.Rule == protocol.Allow {
		s.AddAdmin.Rule, s.RemoveAdmin.Rule = protocol.AllowAdmins, protocol.AllowAdmins
	}
	return s
}

// Every permission, tried by those who have it and those who don't: by clients of either
// side, and by members whose commits keep to no rule. Both sides judge alike.
func TestGoPermissionRules(t *testing.T) {
	scenario(t, "Go: every permission tried by who may and who may not, judged alike by both sides", everyVersion, func(t *testing.T, w *world) {
		c := newCourt(t, w)
		rule := func(r protocol.PolicyRule, of ...protocol.PolicyRule) protocol.Policy {
			p := protocol.Policy{Rule: r}
			for _, r := range of {
				p.Of = append(p.Of, protocol.Policy{Rule: r})
			}
			return p
		}
		for i, p := range []protocol.Policy{
			rule(protocol.Allow), rule(protocol.Deny), rule(protocol.AllowAdmins), rule(protocol.AllowSuperAdmins),
			rule(protocol.AnyOf, protocol.Deny, protocol.AllowSuperAdmins, protocol.AllowAdmins),
			rule(protocol.AllOf, protocol.AllowAdmins, protocol.AllowSuperAdmins),
		} {
			all := w.sdk == official.Baseline || proof
			if !all && p.Rule != protocol.AllowAdmins {
				continue
			}
			c.govern(everywhere(p))
			// Clients show by the first four what they make of each policy.
			clients := i < 4 && all
			for level := range superAdmin + 1 {
				for _, d := range deeds {
					c.try(d, level, clients)
				}
			}
		}
		everybody := []member{}
		for i := range c.ours {
			everybody = append(everybody, c.ours[i], c.theirs[i])
		}
		agree(t, everybody...)
	})
}

// What is fixed in a DM, tried by a member who keeps to no rule. Two devices of the other
// one judge, one of each side.
func TestGoDMRules(t *testing.T) {
	scenario(t, "Go: the fixed permissions of DMs, judged alike by both sides", everyVersion, func(t *testing.T, w *world) {
		alice, m := w.Client("alice"), newMallory(t, w.url)
		signer, err := xmtp.NewPrivateKeySigner(alice.Wallet.Key)
		second, err := xmtp.NewClient(t.Context(), check(t, signer, err), xmtp.WithNode(w.url), xmtp.InMemory())
		check(t, second, err)
		t.Cleanup(func() { second.Close() })
		equal(t, "inbox of the second device", second.InboxID(), alice.InboxID)
		c := &court{
			t: t, our: &goMember{client: second, t: t}, their: &officialMember{client: alice, t: t}, outlaws: []*mallory{m},
			outside: []*mallory{newMallory(t, w.url)}, inside: []*mallory{{inboxID: alice.InboxID}}, policies: protocol.DMPermissions(),
		}
		c.their.view = alice.DM(&official.Client{InboxID: m.inboxID})
		c.our.join(c.their.view.ID)
		m.join()
		for _, d := range deeds {
			if d.name != "remove an admin" && d.name != "remove a super admin" { // there are none
				c.try(d, plainMember, false)
			}
		}
		// Neither minds.
		c.our.view.say("from Go")
		c.their.view.Send("from them")
		sameState(t, c.our.view, c.their.view)
	})
}
