package xmtp

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
)

// Every rule, tried by one of each role. Who may, does it; who may not is told so
// and nothing is sent; and if his client sends it all the same, nobody applies it.
func TestGroupPermissions(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	member, admin, superAdmin := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	const nobody = LevelSuperAdmin + 1
	other := newClient(t, url, WithoutWorkers()) // a super admin, too
	inside, outside := newStranger(t, member).reachable(t, member).inboxID, newStranger(t, member).reachable(t, member).inboxID
	attribute := func(name string) func(string) settingsIntent {
		return func(value string) settingsIntent { return settingsIntent{Attributes: map[string]string{name: value}} }
	}
	disappearing := func(value string) settingsIntent {
		return settingsIntent{Attributes: map[string]string{protocol.AttributeDisappearFrom: value, protocol.AttributeDisappearIn: value}}
	}
	everything := func(p Policy) Permissions {
		all := Permissions{}
		for permission := range AllMembersPermissions() {
			all[permission] = p
		}
		return all
	}
	denied := everything(PolicyDeny)
	free := everything(PolicyAllow)
	free[PermissionAddAdmin], free[PermissionRemoveAdmin] = PolicyAdmins, PolicyAdmins
	strict := everything(PolicySuperAdmins)
	sets := map[string]Permissions{"all members": nil, "admin only": AdminOnlyPermissions(), "denied": denied, "free": free, "super admins": strict}
	for i, rule := range []struct {
		name string
		// least is the lowest role that may, for each set of permissions.
		least map[string]PermissionLevel
		// do does it by our means; want or add and remove are the same without rules.
		do          func(*Conversation) error
		want        settingsIntent
		add, remove []string
	}{
		{"add a member", map[string]PermissionLevel{"all members": 0, "admin only": 1, "denied": nobody, "free": 0, "super admins": 2},
			func(v *Conversation) error { return v.AddMembers(ctx, outside) }, settingsIntent{}, []string{outside}, nil},
		{"remove a member", map[string]PermissionLevel{"all members": 1, "admin only": 1, "denied": nobody, "free": 0, "super admins": 2},
			func(v *Conversation) error { return v.RemoveMembers(ctx, inside) }, settingsIntent{}, nil, []string{inside}},
		{"remove a super admin", map[string]PermissionLevel{"all members": nobody, "admin only": nobody, "denied": nobody, "free": nobody, "super admins": nobody},
			func(v *Conversation) error { return v.RemoveMembers(ctx, other.InboxID()) }, settingsIntent{}, nil, []string{other.InboxID()}},
		{"name", map[string]PermissionLevel{"all members": 0, "admin only": 1, "denied": nobody, "free": 0, "super admins": 2},
			func(v *Conversation) error { return v.SetName(ctx, "x") }, attribute(protocol.AttributeName)("x"), nil, nil},
		{"description", map[string]PermissionLevel{"all members": 0, "admin only": 1, "denied": nobody, "free": 0, "super admins": 2},
			func(v *Conversation) error { return v.SetDescription(ctx, "x") }, attribute(protocol.AttributeDescription)("x"), nil, nil},
		{"image", map[string]PermissionLevel{"all members": 0, "admin only": 1, "denied": nobody, "free": 0, "super admins": 2},
			func(v *Conversation) error { return v.SetImageURL(ctx, "x") }, attribute(protocol.AttributeImageURL)("x"), nil, nil},
		{"app data", map[string]PermissionLevel{"all members": 0, "admin only": 1, "denied": nobody, "free": 0, "super admins": 2},
			func(v *Conversation) error { return v.SetAppData(ctx, "x") }, attribute(protocol.AttributeAppData)("x"), nil, nil},
		{"disappearing", map[string]PermissionLevel{"all members": 1, "admin only": 1, "denied": nobody, "free": 0, "super admins": 2},
			func(v *Conversation) error { return v.SetDisappearing(ctx, Disappearing{In: 5}) }, disappearing("5"), nil, nil},
		{"minimum version", map[string]PermissionLevel{"all members": 2, "admin only": 2, "denied": 2, "free": 2, "super admins": 2},
			func(v *Conversation) error { return v.SetMinimumVersion(ctx, "1.0.0") }, attribute(protocol.AttributeMinimumVersion)("1.0.0"), nil, nil},
		{"add an admin", map[string]PermissionLevel{"all members": 2, "admin only": 2, "denied": nobody, "free": 1, "super admins": 2},
			func(v *Conversation) error { return v.AddAdmin(ctx, inside) }, settingsIntent{AddAdmins: []string{inside}}, nil, nil},
		{"remove an admin", map[string]PermissionLevel{"all members": 2, "admin only": 2, "denied": nobody, "free": 1, "super admins": 2},
			func(v *Conversation) error { return v.RemoveAdmin(ctx, admin.InboxID()) }, settingsIntent{RemoveAdmins: []string{admin.InboxID()}}, nil, nil},
		{"add a super admin", map[string]PermissionLevel{"all members": 2, "admin only": 2, "denied": 2, "free": 2, "super admins": 2},
			func(v *Conversation) error { return v.AddSuperAdmin(ctx, inside) }, settingsIntent{AddSuperAdmins: []string{inside}}, nil, nil},
		{"remove a super admin's role", map[string]PermissionLevel{"all members": 2, "admin only": 2, "denied": 2, "free": 2, "super admins": 2},
			func(v *Conversation) error { return v.RemoveSuperAdmin(ctx, other.InboxID()) }, settingsIntent{RemoveSuperAdmins: []string{other.InboxID()}}, nil, nil},
		{"all super admins' roles", map[string]PermissionLevel{"all members": nobody, "admin only": nobody, "denied": nobody, "free": nobody, "super admins": nobody},
			nil, settingsIntent{RemoveSuperAdmins: []string{superAdmin.InboxID(), other.InboxID()}}, nil, nil},
		{"permissions", map[string]PermissionLevel{"all members": 2, "admin only": 2, "denied": 2, "free": 2, "super admins": 2},
			func(v *Conversation) error {
				return v.SetPermissions(ctx, Permissions{PermissionName: PolicySuperAdmins, PermissionAppData: PolicyAdmins})
			},
			settingsIntent{Permissions: Permissions{PermissionName: PolicySuperAdmins, PermissionAppData: PolicyAdmins}}, nil, nil},
		{"what nobody has heard of", map[string]PermissionLevel{"all members": 1, "admin only": 1, "denied": 1, "free": 1, "super admins": 1},
			nil, attribute("mood")("x"), nil, nil},
		{"what is for super admins by its name", map[string]PermissionLevel{"all members": 2, "admin only": 2, "denied": 2, "free": 2, "super admins": 2},
			nil, attribute("_mood")("x"), nil, nil},
	} {
		for j, set := range slices.Sorted(maps.Keys(sets)) {
			if !proof && (i+j)%len(sets) > 0 {
				continue // one of them
			}
			permissions := sets[set]
			t.Run(rule.name+", "+set, func(t *testing.T) {
				s := must(superAdmin.NewGroup(ctx, GroupOptions{Permissions: permissions}))(t)
				// Added while it could be.
				if set == "denied" {
					s = must(superAdmin.NewGroup(ctx, GroupOptions{}))(t)
				}
				check(t, s.AddMembers(ctx, member.InboxID(), admin.InboxID(), other.InboxID(), inside))
				check(t, errors.Join(s.AddAdmin(ctx, admin.InboxID()), s.AddSuperAdmin(ctx, other.InboxID())))
				if set == "denied" {
					check(t, s.SetPermissions(ctx, denied))
				}
				m, a := inConversation(t, member, s.ID()), inConversation(t, admin, s.ID())
				least := rule.least[set]
				for level, v := range map[PermissionLevel]*Conversation{LevelMember: m, LevelAdmin: a, LevelSuperAdmin: s} {
					if level >= least {
						continue
					}
					check(t, v.Sync(ctx))
					info, epoch, sent := must(v.Info(ctx))(t), epochOf(t, v), newest(t, v)
					if rule.do != nil {
						if err := rule.do(v); !errors.Is(err, ErrNotPermitted) || !errors.Is(err, ErrRefused) {
							t.Errorf("%v: %v", level, err)
						}
					}
					if newest(t, v) != sent {
						t.Errorf("%v: it was sent", level)
					}
					forceEither(t, v, rule.want, rule.add, rule.remove)
					if newest(t, v) == sent {
						t.Errorf("%v: not even by force", level)
					}
					for _, at := range []*Conversation{m, a, s} {
						check(t, at.Sync(ctx))
						if epochOf(t, at) != epoch || !cmp.Equal(info, must(at.Info(ctx))(t)) {
							t.Errorf("%v: applied", level)
						}
						if last := lastSkip(t, at); last.ConversationID != s.ID() || last.Reason != SkipReason(protocol.ErrNotPermitted.Code) {
							t.Errorf("%v: skipped %+v", level, last)
						}
					}
				}
				if least > LevelSuperAdmin {
					return
				}
				// The last one is who just may.
				v := map[PermissionLevel]*Conversation{LevelMember: m, LevelAdmin: a, LevelSuperAdmin: s}[least]
				check(t, v.Sync(ctx))
				epoch := epochOf(t, v)
				if rule.do != nil {
					check(t, rule.do(v))
				} else {
					force(t, v, rule.want)
				}
				for _, at := range []*Conversation{m, a, s} {
					check(t, at.Sync(ctx))
					if epochOf(t, at) != epoch+1 {
						t.Errorf("%v: not applied", least)
					}
				}
			})
		}
	}
}

func epochOf(t *testing.T, v *Conversation) uint64 {
	t.Helper()
	number, _, err := v.Epoch(t.Context())
	check(t, err)
	return number
}

// newest is the number of the last message in the conversation's log.
func newest(t *testing.T, v *Conversation) uint64 {
	t.Helper()
	response, err := v.client.node.MLS.GetNewestGroupMessage(t.Context(), &mlsapi.GetNewestGroupMessageRequest{GroupIds: [][]byte{v.group.id}})
	check(t, err)
	return response.Responses[0].GetGroupMessage().GetV1().GetId()
}

func lastSkip(t *testing.T, v *Conversation) (last Skipped) {
	t.Helper()
	for _, s := range must(v.client.Skipped())(t) {
		last = s
	}
	return last
}

func forceEither(t *testing.T, v *Conversation, want settingsIntent, add, remove []string) {
	t.Helper()
	if len(add)+len(remove) > 0 {
		forceMembers(t, v, add, remove)
	} else {
		force(t, v, want)
	}
}

// What somebody may do, and whether anything is to be done, is judged by the newest state.
func TestJudgesByNews(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	owner, c := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	other := newStranger(t, owner).reachable(t, owner).inboxID
	theirs, err := owner.NewGroup(ctx, GroupOptions{Permissions: AdminOnlyPermissions()}, c.InboxID())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	v, err := c.Conversation(theirs.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := v.SetName(ctx, "no"); !errors.Is(err, ErrNotPermitted) {
		t.Errorf("a member sets the name: %v", err)
	}
	if err := errors.Join(theirs.AddAdmin(ctx, c.InboxID()), theirs.AddMembers(ctx, other)); err != nil {
		t.Fatal(err)
	}
	// He has not heard of either.
	if err := errors.Join(v.SetName(ctx, "by an admin"), theirs.RemoveAdmin(ctx, c.InboxID()), theirs.AddAdmin(ctx, c.InboxID())); err != nil {
		t.Error(err)
	}
	if err := errors.Join(theirs.RemoveMembers(ctx, other), v.AddMembers(ctx, other)); err != nil {
		t.Error(err)
	}
	if err := theirs.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	members, err := theirs.Members(ctx)
	if err != nil || !slices.ContainsFunc(members, func(m Member) bool { return m.InboxID == other }) {
		t.Errorf("who was removed meanwhile was not added again: %v, %v", members, err)
	}
}
