package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// member is a client of either side in a group; what fails ends the test.
type member interface {
	inboxID() string
	join(id string) // sync, and find the group
	sync()          // read what is new of it
	try(op operation, whom, value string) error
	say(text string) error
	queue(text string) // for later, if that is possible
	dm(peer, text string) (id string, err error)
	besideTexts(dm string) []string // of a DM, after a sync
	leave() error
	leaving() bool
	seen() seen // what the client shows of it
	transcript() []*content.GroupUpdated
	texts() []string
	epoch() string
}

// seen is what a client shows of a group.
type seen struct {
	Name, Description, ImageURL, AppData string
	Disappearing                         [2]int64 // from, in; ns
	Admins, SuperAdmins                  []string
	Members                              map[string]seenMember
	Preset                               int // 0 all members, 1 admin only, 2 custom
	Policies                             map[string]int
	Creator                              string
}

type seenMember struct {
	Level         int
	Installations int
}

// operation is something that members do to groups; whom is a third member's inbox,
// value differs from time to time.
type operation struct {
	name   string
	ours   func(v ours, whom, value string) error
	theirs func(c *official.Conversation, whom, value string) error
	want   func(s seen, whom, value string) bool
}

const (
	allow, deny, onlyAdmins, onlySuperAdmins, otherPolicy = 0, 1, 2, 3, 5 // the SDKs' policies
	updateAddMember, updateMetadata                       = 0, 4
	fieldDescription                                      = 1
)

// The operations: those that undo others follow them.
var operations = []operation{
	{"name", func(v ours, _, value string) error { return v.SetName(v.t.Context(), value) },
		func(c *official.Conversation, _, value string) error { return c.TryCall(nil, "updateName", value) },
		func(s seen, _, value string) bool { return s.Name == value }},
	{"description", func(v ours, _, value string) error { return v.SetDescription(v.t.Context(), value) },
		func(c *official.Conversation, _, value string) error {
			return c.TryCall(nil, "updateDescription", value)
		},
		func(s seen, _, value string) bool { return s.Description == value }},
	{"image", func(v ours, _, value string) error { return v.SetImageURL(v.t.Context(), "https://example.org/"+value) },
		func(c *official.Conversation, _, value string) error {
			return c.TryCall(nil, "updateImageUrl", "https://example.org/"+value)
		},
		func(s seen, _, value string) bool { return s.ImageURL == "https://example.org/"+value }},
	{"app data", func(v ours, _, value string) error { return v.SetAppData(v.t.Context(), value) },
		func(c *official.Conversation, _, value string) error { return c.TryCall(nil, "updateAppData", value) },
		func(s seen, _, value string) bool { return s.AppData == value }},
	{"disappearing on", func(v ours, _, value string) error {
		return v.SetDisappearing(v.t.Context(), xmtp.Disappearing{From: time.Unix(0, 5), In: time.Hour})
	}, func(c *official.Conversation, _, value string) error {
		return c.TryCall(nil, "updateMessageDisappearingSettings", bigint(5), bigint(int64(time.Hour)))
	}, func(s seen, _, _ string) bool { return s.Disappearing == [2]int64{5, int64(time.Hour)} }},
	{"disappearing off", func(v ours, _, _ string) error { return v.SetDisappearing(v.t.Context(), xmtp.Disappearing{}) },
		func(c *official.Conversation, _, _ string) error {
			return c.TryCall(nil, "removeMessageDisappearingSettings")
		},
		func(s seen, _, _ string) bool { return s.Disappearing == [2]int64{} }},
	{"add a member", func(v ours, whom, _ string) error { return v.AddMembers(v.t.Context(), whom) },
		func(c *official.Conversation, whom, _ string) error {
			return c.TryCall(nil, "addMembers", []string{whom})
		},
		func(s seen, whom, _ string) bool { return s.Members[whom].Installations == 1 }},
	{"add an admin", func(v ours, whom, _ string) error { return v.AddAdmin(v.t.Context(), whom) },
		func(c *official.Conversation, whom, _ string) error { return c.TryCall(nil, "addAdmin", whom) },
		func(s seen, whom, _ string) bool {
			return slices.Contains(s.Admins, whom) && s.Members[whom].Level == 1
		}},
	{"remove an admin", func(v ours, whom, _ string) error { return v.RemoveAdmin(v.t.Context(), whom) },
		func(c *official.Conversation, whom, _ string) error { return c.TryCall(nil, "removeAdmin", whom) },
		func(s seen, whom, _ string) bool {
			return !slices.Contains(s.Admins, whom) && s.Members[whom].Level == 0
		}},
	{"add a super admin", func(v ours, whom, _ string) error { return v.AddSuperAdmin(v.t.Context(), whom) },
		func(c *official.Conversation, whom, _ string) error { return c.TryCall(nil, "addSuperAdmin", whom) },
		func(s seen, whom, _ string) bool {
			return slices.Contains(s.SuperAdmins, whom) && s.Members[whom].Level == 2
		}},
	{"remove a super admin", func(v ours, whom, _ string) error { return v.RemoveSuperAdmin(v.t.Context(), whom) },
		func(c *official.Conversation, whom, _ string) error { return c.TryCall(nil, "removeSuperAdmin", whom) },
		func(s seen, whom, _ string) bool { return !slices.Contains(s.SuperAdmins, whom) }},
	{"remove a member", func(v ours, whom, _ string) error { return v.RemoveMembers(v.t.Context(), whom) },
		func(c *official.Conversation, whom, _ string) error {
			return c.TryCall(nil, "removeMembers", []string{whom})
		},
		func(s seen, whom, _ string) bool { _, in := s.Members[whom]; return !in }},
	{"permissions", func(v ours, _, _ string) error {
		return v.SetPermissions(v.t.Context(), xmtp.Permissions{xmtp.PermissionAddMember: xmtp.PolicyDeny, xmtp.PermissionDescription: xmtp.PolicySuperAdmins})
	}, func(c *official.Conversation, _, _ string) error {
		return errors.Join(c.TryCall(nil, "updatePermission", updateAddMember, deny), c.TryCall(nil, "updatePermission", updateMetadata, onlySuperAdmins, fieldDescription))
	}, func(s seen, _, _ string) bool {
		return s.Preset == 2 && s.Policies["addMemberPolicy"] == deny && s.Policies["updateGroupDescriptionPolicy"] == onlySuperAdmins
	}},
	{"permissions of everybody", func(v ours, _, _ string) error {
		return v.SetPermissions(v.t.Context(), xmtp.AllMembersPermissions())
	}, func(c *official.Conversation, _, _ string) error {
		return errors.Join(c.TryCall(nil, "updatePermission", updateAddMember, allow), c.TryCall(nil, "updatePermission", updateMetadata, allow, fieldDescription))
	}, func(s seen, _, _ string) bool { return s.Preset == 0 && s.Policies["addMemberPolicy"] == allow }},
}

func bigint(n int64) map[string]any { return map[string]any{"$bigint": strconv.FormatInt(n, 10)} }

// goMember is a client of ours.
type goMember struct {
	client *xmtp.Client
	view   ours
	t      *testing.T
}

func (m *goMember) inboxID() string { return m.client.InboxID() }
func (m *goMember) join(id string)  { m.view = find(m.t, m.client, id) }
func (m *goMember) sync()           { m.t.Helper(); m.view.sync() }

func (m *goMember) try(op operation, whom, value string) error { return op.ours(m.view, whom, value) }

func (m *goMember) texts() []string { m.t.Helper(); return m.view.texts() }

func (m *goMember) say(text string) error {
	_, err := m.view.SendText(m.t.Context(), text)
	return err
}

func (m *goMember) queue(text string) { _, _ = m.view.SendOptimistic(content.Text(text)) }

func (m *goMember) dm(peer, text string) (string, error) {
	v, err := m.client.DM(m.t.Context(), peer)
	if err != nil {
		return "", err
	}
	_, err = v.SendText(m.t.Context(), text)
	return v.ID(), err
}

func (m *goMember) besideTexts(dm string) []string {
	m.t.Helper()
	return find(m.t, m.client, dm).texts()
}

func (m *goMember) leave() error { return m.view.Leave(m.t.Context()) }

func (m *goMember) leaving() bool {
	m.t.Helper()
	state, err := m.view.MembershipState()
	return check(m.t, state, err) == xmtp.MembershipPendingRemove
}

func (m *goMember) epoch() string {
	m.t.Helper()
	number, _, err := m.view.Epoch(m.t.Context())
	return fmt.Sprint(check(m.t, number, err))
}

var (
	presets  = map[xmtp.Preset]int{xmtp.PresetAllMembers: 0, xmtp.PresetAdminOnly: 1, xmtp.PresetCustom: 2}
	policies = map[xmtp.Policy]int{xmtp.PolicyAllow: allow, xmtp.PolicyDeny: deny, xmtp.PolicyAdmins: onlyAdmins, xmtp.PolicySuperAdmins: onlySuperAdmins, xmtp.PolicyOther: otherPolicy}
	// As the SDKs call them.
	permissions = map[xmtp.Permission]string{
		xmtp.PermissionAddMember: "addMemberPolicy", xmtp.PermissionRemoveMember: "removeMemberPolicy",
		xmtp.PermissionAddAdmin: "addAdminPolicy", xmtp.PermissionRemoveAdmin: "removeAdminPolicy",
		xmtp.PermissionName: "updateGroupNamePolicy", xmtp.PermissionDescription: "updateGroupDescriptionPolicy",
		xmtp.PermissionImageURL: "updateGroupImageUrlSquarePolicy", xmtp.PermissionAppData: "updateAppDataPolicy",
		xmtp.PermissionDisappearing: "updateMessageDisappearingPolicy",
	}
)

func (m *goMember) seen() seen {
	m.t.Helper()
	info, err := m.view.Info(m.t.Context())
	check(m.t, info, err)
	s := seen{
		Name: info.Name, Description: info.Description, ImageURL: info.ImageURL, AppData: info.AppData,
		Admins: info.Admins, SuperAdmins: info.SuperAdmins, Preset: presets[info.Preset],
		Members: map[string]seenMember{}, Policies: map[string]int{}, Creator: m.view.CreatorInboxID(),
	}
	if info.Disappearing.On() {
		s.Disappearing = [2]int64{info.Disappearing.From.UnixNano(), int64(info.Disappearing.In)}
	}
	for permission, policy := range info.Permissions {
		s.Policies[permissions[permission]] = policies[policy]
	}
	members, err := m.view.Members(m.t.Context())
	for _, member := range check(m.t, members, err) {
		s.Members[member.InboxID] = seenMember{int(member.Level), len(member.InstallationIDs)}
	}
	return s
}

func (m *goMember) transcript() (list []*content.GroupUpdated) {
	m.t.Helper()
	for _, message := range m.view.messages() {
		if message.Kind == xmtp.KindMembershipChange {
			updated, err := message.Content.GroupUpdated()
			list = append(list, check(m.t, updated, err))
		}
	}
	return list
}

// officialMember is a client of an SDK.
type officialMember struct {
	client *official.Client
	view   *official.Conversation
	t      *testing.T
}

func (m *officialMember) inboxID() string { return m.client.InboxID }
func (m *officialMember) sync()           { m.t.Helper(); m.view.Sync() }

func (m *officialMember) join(id string) {
	m.t.Helper()
	m.client.SyncAll()
	m.view = m.client.Find(&official.Conversation{ID: id})
}

func (m *officialMember) try(op operation, whom, value string) error {
	return op.theirs(m.view, whom, value)
}

func (m *officialMember) texts() []string { m.t.Helper(); return m.view.Texts() }

func (m *officialMember) say(text string) error { return m.view.TryCall(nil, "sendText", text) }

func (m *officialMember) queue(text string) {
	var how any = true
	if m.client.SDK == official.Newest {
		how = map[string]any{"optimistic": true}
	}
	_ = m.view.TryCall(nil, "sendText", text, how)
}

func (m *officialMember) dm(peer, text string) (string, error) {
	c, err := m.client.TryDM(&official.Client{InboxID: peer})
	if err != nil {
		return "", err
	}
	return c.ID, c.TryCall(nil, "sendText", text)
}

func (m *officialMember) besideTexts(dm string) []string {
	m.t.Helper()
	m.client.SyncAll()
	return m.client.Find(&official.Conversation{ID: dm}).Texts()
}

func (m *officialMember) leave() error { return m.view.TryCall(nil, "requestRemoval") }

func (m *officialMember) leaving() (leaving bool) {
	m.t.Helper()
	m.view.Call(&leaving, "isPendingRemoval")
	return leaving
}

func (m *officialMember) epoch() string {
	m.t.Helper()
	var info struct {
		Epoch       json.Number `json:"epoch"`
		MaybeForked bool        `json:"maybeForked"`
		ForkDetails string      `json:"forkDetails"`
	}
	m.view.Call(&info, "debugInfo")
	if info.MaybeForked {
		m.t.Errorf("%s suspects a fork: %s", m.client.Process.SDK, info.ForkDetails)
	}
	return info.Epoch.String()
}

func (m *officialMember) seen() (s seen) {
	m.t.Helper()
	view := m.client.Find(m.view)
	s.Name, s.Description, s.ImageURL = view.Name, view.Description, view.ImageURL
	m.view.Call(&s.AppData, "appData")
	m.view.Call(&s.Admins, "listAdmins")
	m.view.Call(&s.SuperAdmins, "listSuperAdmins")
	var disappearing *struct {
		FromNs int64 `json:"fromNs,string"`
		InNs   int64 `json:"inNs,string"`
	}
	m.view.Call(&disappearing, "messageDisappearingSettings")
	if disappearing != nil && disappearing.FromNs > 0 && disappearing.InNs > 0 {
		s.Disappearing = [2]int64{disappearing.FromNs, disappearing.InNs}
	}
	var permissions struct {
		PolicyType int            `json:"policyType"`
		PolicySet  map[string]int `json:"policySet"`
	}
	m.view.Call(&permissions, "permissions")
	s.Preset, s.Policies = permissions.PolicyType, permissions.PolicySet
	var metadata struct {
		CreatorInboxID string `json:"creatorInboxId"`
	}
	m.view.Call(&metadata, "metadata")
	s.Creator, s.Members = metadata.CreatorInboxID, map[string]seenMember{}
	for id, member := range m.view.Members() {
		s.Members[id] = seenMember{member.PermissionLevel, len(member.InstallationIDs)}
	}
	return s
}

// theirUpdate is content of type group_updated as the SDKs show it.
type theirUpdate struct {
	InitiatedByInboxID string
	AddedInboxes, RemovedInboxes, LeftInboxes, AddedAdminInboxes, RemovedAdminInboxes,
	AddedSuperAdminInboxes, RemovedSuperAdminInboxes []struct{ InboxID string }
	MetadataFieldChanges []struct {
		FieldName          string
		OldValue, NewValue *string
	}
}

func (m *officialMember) transcript() (list []*content.GroupUpdated) {
	m.t.Helper()
	for _, message := range m.view.Messages() {
		if message.ContentType.TypeID != "group_updated" {
			continue
		}
		var u theirUpdate
		decode(m.t, message.Content, &u)
		ids := func(inboxes []struct{ InboxID string }) (ids []string) {
			for _, inbox := range inboxes {
				ids = append(ids, inbox.InboxID)
			}
			return ids
		}
		updated := &content.GroupUpdated{
			InitiatedBy: u.InitiatedByInboxID, Added: ids(u.AddedInboxes), Removed: ids(u.RemovedInboxes), Left: ids(u.LeftInboxes),
			AddedAdmins: ids(u.AddedAdminInboxes), RemovedAdmins: ids(u.RemovedAdminInboxes),
			AddedSuperAdmins: ids(u.AddedSuperAdminInboxes), RemovedSuperAdmins: ids(u.RemovedSuperAdminInboxes),
		}
		for _, f := range u.MetadataFieldChanges {
			updated.Fields = append(updated.Fields, content.FieldChange{Name: f.FieldName, Old: f.OldValue, New: f.NewValue})
		}
		list = append(list, updated)
	}
	return list
}

// agree syncs all members and compares what they have of the group.
func agree(t *testing.T, members ...member) seen {
	t.Helper()
	for _, m := range members {
		m.sync()
	}
	return alike(t, members...)
}

// alike compares what members have of the group.
func alike(t *testing.T, members ...member) seen {
	t.Helper()
	first := members[0].seen()
	for _, m := range members[1:] {
		if diff := cmp.Diff(first, m.seen(), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("members see (-first +other):\n%s", diff)
		}
		equal(t, "epochs", m.epoch(), members[0].epoch())
	}
	return first
}

// sameTranscript compares what clients tell of a group's changes since both were in.
func sameTranscript(t *testing.T, members ...member) {
	t.Helper()
	first := members[0].transcript()
	for _, m := range members[1:] {
		other := m.transcript()
		n := min(len(first), len(other)) - 1 // the beginning is each one's own
		if n < 1 {
			t.Errorf("%d and %d changes", len(first), len(other))
			continue
		}
		sorted := cmpopts.SortSlices(func(a, b content.FieldChange) bool { return a.Name < b.Name })
		if diff := cmp.Diff(first[len(first)-n:], other[len(other)-n:], cmpopts.EquateEmpty(), sorted); diff != "" {
			t.Errorf("transcripts (-first +other):\n%s", diff)
		}
	}
}

// Every operation by either side, in groups that either side created.
func TestGoGroupOperations(t *testing.T) {
	scenario(t, "Go: every operation on groups, by either side, in groups of either", everyVersion, func(t *testing.T, w *world) {
		our := &goMember{client: goClient(t, w.url), t: t}
		their := &officialMember{client: w.Client("alice"), t: t}
		third := w.Client("carol").InboxID
		for _, creator := range []member{our, their} {
			createFor(t, creator, map[member]member{our: their, their: our}[creator])
			for i, op := range operations {
				for j, actor := range []member{our, their} {
					whom, value := third, fmt.Sprintf("%s %d", op.name, 2*i+j)
					perform(t, actor, op, whom, value)
					if s := agree(t, our, their); !op.want(s, whom, value) {
						t.Errorf("%s by member %d: they see %+v", op.name, j, s)
					}
				}
			}
			sameTranscript(t, our, their)
		}
	})
}

// createFor lets a member create a group in which others may do everything, too.
func createFor(t *testing.T, creator member, others ...member) {
	t.Helper()
	var ids []string
	for _, m := range others {
		ids = append(ids, m.inboxID())
	}
	var id string
	switch m := creator.(type) {
	case *goMember:
		v, err := m.client.NewGroup(t.Context(), xmtp.GroupOptions{Name: "by Go", AppData: "{}"}, ids...)
		m.view = ours{check(t, v, err), t}
		for _, other := range ids {
			if err := v.AddSuperAdmin(t.Context(), other); err != nil {
				t.Fatal(err)
			}
		}
		id = v.ID()
	case *officialMember:
		m.view = m.client.Group(nil, map[string]any{"groupName": "by them", "appData": "{}"})
		m.view.Call(nil, "addMembers", ids)
		for _, other := range ids {
			m.view.Call(nil, "addSuperAdmin", other)
		}
		id = m.view.ID
	}
	for _, m := range others {
		m.join(id)
	}
	agree(t, append([]member{creator}, others...)...)
}

// perform lets a member do something.
func perform(t *testing.T, actor member, op operation, whom, value string) {
	t.Helper()
	if err := actor.try(op, whom, value); err != nil {
		t.Fatalf("%s: %v", op.name, err)
	}
}

// All versions and two clients of ours in one group: every operation by each of them.
func TestGoGroupMatrix(t *testing.T) {
	long(t)
	scenario(t, "Go: every operation by each of two Go clients and all SDK versions in one group", baseline, func(t *testing.T, w *world) {
		members := []member{
			&goMember{client: goClient(t, w.url), t: t}, &goMember{client: goClient(t, w.url), t: t},
			&officialMember{client: w.start(official.Oldest).Client("oldest"), t: t},
			&officialMember{client: w.Client("baseline"), t: t},
			&officialMember{client: w.start(official.Newest).Client("newest"), t: t},
		}
		third := w.Client("carol").InboxID
		for c, creator := range members {
			others := slices.Concat(members[:c], members[c+1:])
			createFor(t, creator, others...)
			for i, op := range operations {
				for j, actor := range members {
					value := fmt.Sprintf("%s %d", op.name, 5*i+j)
					perform(t, actor, op, third, value)
					if s := agree(t, members...); !op.want(s, third, value) {
						t.Errorf("%s by member %d in the group of %d: they see %+v", op.name, j, c, s)
					}
				}
			}
			sameTranscript(t, members...)
		}
	})
}

// Who may not, may not: neither side sends, or applies, what the permissions forbid.
func TestGoGroupPermissions(t *testing.T) {
	scenario(t, "Go: presets and custom permissions of either side bind the other", everyVersion, func(t *testing.T, w *world) {
		bob, alice := goClient(t, w.url), w.Client("alice")
		our, their := &goMember{client: bob, t: t}, &officialMember{client: alice, t: t}
		third := w.Client("carol").InboxID

		// Ours: admins only.
		group, err := bob.NewGroup(t.Context(), xmtp.GroupOptions{Permissions: xmtp.AdminOnlyPermissions()}, alice.InboxID)
		our.view = ours{check(t, group, err), t}
		their.join(group.ID())
		if s := agree(t, our, their); s.Preset != 1 {
			t.Errorf("preset %d", s.Preset)
		}
		for name, refused := range map[string]error{
			"name":        their.view.TryCall(nil, "updateName", "no"),
			"add":         their.view.TryCall(nil, "addMembers", []string{third}),
			"admin":       their.view.TryCall(nil, "addAdmin", alice.InboxID),
			"permissions": their.view.TryCall(nil, "updatePermission", updateAddMember, allow),
		} {
			if refused == nil {
				t.Errorf("%s: a member does what is the admins'", name)
			}
		}
		agree(t, our, their)
		// Their client sends first and looks then, so that all have to refuse it.
		skipped, err := bob.Skipped()
		refusals := 0
		for _, s := range check(t, skipped, err) {
			if s.ConversationID == group.ID() && s.Reason == xmtp.SkipReason(protocol.ErrNotPermitted.Code) {
				refusals++
			}
		}
		if refusals == 0 {
			t.Errorf("no commit of theirs was refused: %+v", skipped)
		}
		if err := our.view.AddAdmin(t.Context(), alice.InboxID); err != nil {
			t.Fatal(err)
		}
		their.sync()
		their.view.Call(nil, "updateName", "by an admin")
		their.view.Call(nil, "addMembers", []string{third})
		if s := agree(t, our, their); s.Name != "by an admin" || len(s.Members) != 3 {
			t.Errorf("as an admin: %+v", s)
		}

		// Theirs: a set of their own.
		custom := map[string]any{
			"addMemberPolicy": onlySuperAdmins, "removeMemberPolicy": deny, "addAdminPolicy": onlyAdmins, "removeAdminPolicy": onlyAdmins,
			"updateGroupNamePolicy": allow, "updateGroupDescriptionPolicy": onlyAdmins, "updateGroupImageUrlSquarePolicy": deny,
			"updateMessageDisappearingPolicy": onlyAdmins, "updateAppDataPolicy": allow,
		}
		their.view = alice.Group([]*official.Client{{InboxID: bob.InboxID()}}, map[string]any{"permissions": 2, "customPermissionPolicySet": custom})
		our.join(their.view.ID)
		s := agree(t, our, their)
		for name, policy := range custom {
			equal(t, name, s.Policies[name], policy.(int))
		}
		ctx, v := t.Context(), our.view
		if err := v.SetName(ctx, "anybody may"); err != nil {
			t.Error(err)
		}
		for name, err := range map[string]error{
			"add":          v.AddMembers(ctx, third),
			"description":  v.SetDescription(ctx, "no"),
			"image":        v.SetImageURL(ctx, "no"),
			"disappearing": v.SetDisappearing(ctx, xmtp.Disappearing{In: time.Hour}),
			"admin":        v.AddAdmin(ctx, bob.InboxID()),
			"super admin":  v.AddSuperAdmin(ctx, bob.InboxID()),
			"remove":       v.RemoveMembers(ctx, alice.InboxID),
			"permissions":  v.SetPermissions(ctx, xmtp.AllMembersPermissions()),
		} {
			if !errors.Is(err, xmtp.ErrNotPermitted) {
				t.Errorf("%s: %v", name, err)
			}
		}
		their.view.Sync()
		their.view.Call(nil, "addAdmin", bob.InboxID())
		v.sync()
		if err := errors.Join(v.SetDescription(ctx, "as an admin"), v.AddAdmin(ctx, alice.InboxID)); err != nil {
			t.Error(err)
		}
		if s := agree(t, our, their); s.Description != "as an admin" || len(s.Admins) != 2 {
			t.Errorf("as an admin: %+v", s)
		}
	})
}

// Members leave groups of the other side, and come back.
func TestGoGroupLeave(t *testing.T) {
	scenario(t, "Go: leaving, done by the other side's client, and coming back", everyVersion, func(t *testing.T, w *world) {
		bob, alice, carol := goClient(t, w.url), w.Client("alice"), w.Client("carol")

		// A group of ours, which alice leaves. Carol looks on.
		group, err := bob.NewGroup(t.Context(), xmtp.GroupOptions{}, alice.InboxID, carol.InboxID)
		v := ours{check(t, group, err), t}
		their, looking := &officialMember{client: alice, t: t}, &officialMember{client: carol, t: t}
		their.join(v.ID())
		looking.join(v.ID())
		their.view.Call(nil, "requestRemoval")
		var pending bool
		their.view.Call(&pending, "isPendingRemoval")
		equal(t, "alice is leaving", pending, true)
		v.sync()
		left := func(m member) []string {
			t.Helper()
			m.sync()
			told := m.transcript()
			return told[len(told)-1].Left
		}
		our := &goMember{bob, v, t}
		equal(t, "left, Go says", left(our), []string{alice.InboxID})
		equal(t, "left, carol says", left(looking), []string{alice.InboxID})
		alice.SyncAll()
		equal(t, "alice's group active", alice.Find(their.view).IsActive, false)
		if err := v.AddMembers(t.Context(), alice.Wallet.Address); err != nil {
			t.Fatal(err)
		}
		their.join(v.ID())
		agree(t, our, their, looking)
		var consent int
		their.view.Call(&consent, "consentState")
		equal(t, "alice decides again", consent, official.ConsentUnknown)

		// A group of theirs, which we leave.
		their.view = alice.Group([]*official.Client{carol}, nil)
		their.view.Call(nil, "addMembersByIdentifiers", []any{official.Wallet{Address: bob.Address()}.Identifier()})
		our.join(their.view.ID)
		looking.join(their.view.ID)
		if err := our.view.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		state, err := our.view.MembershipState()
		equal(t, "we are leaving", check(t, state, err), xmtp.MembershipPendingRemove)
		eventually(t, "alice's client lets us go", func() bool {
			their.sync()
			return !slices.Contains(slices.Collect(maps.Keys(their.seen().Members)), bob.InboxID())
		})
		equal(t, "left, alice says", left(their), []string{bob.InboxID()})
		equal(t, "left, carol says", left(looking), []string{bob.InboxID()})
		our.sync()
		active, err := our.view.IsActive()
		equal(t, "our group active", check(t, active, err), false)
		their.view.Call(nil, "addMembers", []string{bob.InboxID()})
		our.join(their.view.ID)
		agree(t, our, their, looking)
		our.view.say("back again")
		their.sync()
		contains(t, "alice reads", their.view.Texts(), "back again")
	})
}

// A group that asks for version 1.10 goes on without clients that are older.
func TestGoMinimumVersion(t *testing.T) {
	scenario(t, "Go: a group asks for its version", []official.SDK{official.Oldest, official.Newest}, func(t *testing.T, w *world) {
		bob, alice := goClient(t, w.url), w.Client("alice")
		group, err := bob.NewGroup(t.Context(), xmtp.GroupOptions{}, alice.InboxID)
		v := ours{check(t, group, err), t}
		their := &officialMember{client: alice, t: t}
		their.join(v.ID())
		if err := v.SetMinimumVersion(t.Context(), xmtp.ProtocolVersion); err != nil {
			t.Fatal(err)
		}
		v.say("for new clients")
		var paused *string
		if err := their.view.TryCall(nil, "sync"); err != nil {
			t.Log(err)
		}
		their.view.Call(&paused, "pausedForVersion")
		sent := their.view.TryCall(nil, "sendText", "here")
		if w.sdk == official.Oldest {
			if paused == nil || *paused != xmtp.ProtocolVersion || sent == nil {
				t.Errorf("the oldest is not paused: %v, %v", paused, sent)
			}
			return
		}
		if paused != nil || sent != nil {
			t.Errorf("the newest is paused: %v, %v", paused, sent)
		}
		sameState(t, v, their.view)
	})
}

// Several at once share a welcome, made by either side.
func TestGoWelcomePointers(t *testing.T) {
	scenario(t, "Go: welcomes by pointers, both ways", everyVersion, func(t *testing.T, w *world) {
		bob := goClient(t, w.url)
		their := []*official.Client{w.Client("one"), w.Client("two"), w.Client("three")}
		our := []*xmtp.Client{bob, goClient(t, w.url), goClient(t, w.url)}
		var theirIDs, ourIDs []string
		for i := range their {
			theirIDs, ourIDs = append(theirIDs, their[i].InboxID), append(ourIDs, our[i].InboxID())
		}
		group, err := bob.NewGroup(t.Context(), xmtp.GroupOptions{}, theirIDs...)
		v := ours{check(t, group, err), t}
		v.say("from Go")
		for _, c := range their {
			c.SyncAll()
			equal(t, c.Name+" reads", c.Find(&official.Conversation{ID: v.ID()}).Texts(), []string{"from Go"})
		}
		theirs := their[0].Group(nil, nil)
		theirs.Call(nil, "addMembers", ourIDs)
		theirs.Send("from them")
		for _, c := range our {
			v := find(t, c, theirs.ID)
			contains(t, "Go reads", v.texts(), "from them")
			v.say("thank you")
		}
		sameState(t, find(t, bob, theirs.ID), theirs)
	})
}

// Messages of a direct message disappear if either side says so.
func TestGoDMDisappearing(t *testing.T) {
	scenario(t, "Go: disappearing messages of a DM, set by either side", everyVersion, func(t *testing.T, w *world) {
		bob, alice := goClient(t, w.url), w.Client("alice")
		their := alice.DM(&official.Client{InboxID: bob.InboxID()})
		v := find(t, bob, their.ID)
		enabled := func() (on bool) {
			t.Helper()
			their.Sync()
			their.Call(&on, "isMessageDisappearingEnabled")
			return on
		}
		set := func(d xmtp.Disappearing) {
			t.Helper()
			if err := v.SetDisappearing(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
		info := func() xmtp.Info {
			t.Helper()
			v.sync()
			info, err := v.Info(t.Context())
			return check(t, info, err)
		}
		set(xmtp.Disappearing{In: time.Hour})
		equal(t, "on, they say", enabled(), true)
		their.Call(nil, "removeMessageDisappearingSettings")
		equal(t, "off, Go says", info().Disappearing.On(), false)
		their.Call(nil, "updateMessageDisappearingSettings", bigint(7), bigint(int64(time.Minute)))
		equal(t, "on, Go says", info().Disappearing, xmtp.Disappearing{From: time.Unix(0, 7), In: time.Minute})
		set(xmtp.Disappearing{})
		equal(t, "off, they say", enabled(), false)
		v.say("done")
		sameState(t, v, their)
	})
}
