package xmtp

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// stranger is an inbox with an installation that nobody runs. It has no key package
// until it gets one.
type stranger struct {
	inboxID string
	key     ed25519.PrivateKey
}

// newStranger registers one; c only lends its connection.
func newStranger(t *testing.T, c *Client) stranger {
	t.Helper()
	wallet := must(identity.GenerateWalletKey())(t)
	public, private, err := ed25519.GenerateKey(nil)
	check(t, err)
	s := stranger{must(identity.DeriveInboxID(wallet.Identifier(), identity.DefaultNonce))(t), private}
	request := must(identity.NewSignatureRequest(s.inboxID, time.Now(),
		identity.CreateInbox(wallet.Identifier(), identity.DefaultNonce),
		identity.AddMember(wallet.Identifier(), identity.Installation(public))))(t)
	check(t, request.AddSignature(t.Context(), wallet.SignText(request.Text()), nil))
	check(t, request.AddSignature(t.Context(), identity.SignInstallation(private, request.Text()), nil))
	update := must(request.Update())(t)
	_, err = c.node.Identity.PublishIdentityUpdate(t.Context(), &identityapi.PublishIdentityUpdateRequest{IdentityUpdate: update})
	check(t, err)
	return s
}

// reachable uploads a key package.
func (s stranger) reachable(t *testing.T, c *Client) stranger {
	t.Helper()
	signer := must(mls.NewSigner(identity.CipherSuite, s.key.Seed()))(t)
	kp := must(protocol.NewKeyPackage(s.inboxID, signer, time.Now()))(t)
	_, err := c.node.MLS.UploadKeyPackage(t.Context(), &mlsapi.UploadKeyPackageRequest{
		KeyPackage: &mlsapi.KeyPackageUpload{KeyPackageTlsSerialized: kp.Public()}, IsInboxIdCredential: true,
	})
	check(t, err)
	return s
}

func memberIDs(t *testing.T, v *Conversation) (ids []string) {
	t.Helper()
	for _, m := range must(v.Members(t.Context()))(t) {
		ids = append(ids, m.InboxID)
	}
	return ids
}

// changes returns what a conversation's transcript tells, oldest first.
func changes(t *testing.T, v *Conversation) (list []*content.GroupUpdated) {
	t.Helper()
	for _, m := range must(v.Messages(MessageOptions{}))(t) {
		if m.Kind == KindMembershipChange {
			list = append(list, must(m.Content.GroupUpdated())(t))
		}
	}
	return list
}

func TestGroupInfo(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	from := time.Unix(1_700_000_000, 5)
	permissions := AllMembersPermissions()
	permissions[PermissionAppData] = PolicyAdmins
	a := must(alice.NewGroup(ctx, GroupOptions{
		Name: "name 1", Description: "description 1", ImageURL: "https://example.org/1", AppData: "data 1",
		Disappearing: Disappearing{from, time.Hour}, Permissions: Permissions{PermissionAppData: PolicyAdmins},
	}, bob.Address()))(t)
	b := inConversation(t, bob, a.ID())
	want := Info{
		Name: "name 1", Description: "description 1", ImageURL: "https://example.org/1", AppData: "data 1",
		Disappearing: Disappearing{from, time.Hour}, SuperAdmins: []string{alice.InboxID()}, Permissions: permissions, Preset: PresetCustom,
	}
	compare := func() {
		t.Helper()
		check(t, b.Sync(ctx))
		for _, v := range []*Conversation{a, b} {
			if diff := cmp.Diff(want, must(v.Info(ctx))(t)); diff != "" {
				t.Error(diff)
			}
		}
	}
	compare()
	check(t, errors.Join(
		a.SetName(ctx, "name 2"),
		a.SetDescription(ctx, "description 2"),
		a.SetImageURL(ctx, "https://example.org/2"),
		a.SetAppData(ctx, "data 2"),
		a.SetDisappearing(ctx, Disappearing{}),
		a.SetMinimumVersion(ctx, ProtocolVersion),
		a.AddAdmin(ctx, bob.Address()),
		a.SetPermissions(ctx, AdminOnlyPermissions()),
	))
	want = Info{
		Name: "name 2", Description: "description 2", ImageURL: "https://example.org/2", AppData: "data 2", MinimumVersion: ProtocolVersion,
		Admins: []string{bob.InboxID()}, SuperAdmins: []string{alice.InboxID()}, Permissions: AdminOnlyPermissions(), Preset: PresetAdminOnly,
	}
	compare()

	// What is so already takes no commit.
	epoch, _, err := a.Epoch(ctx)
	check(t, err)
	check(t, errors.Join(a.SetName(ctx, "name 2"), a.AddAdmin(ctx, bob.InboxID()), a.RemoveSuperAdmin(ctx, bob.InboxID()), a.SetPermissions(ctx, AdminOnlyPermissions())))
	if now, _, err := a.Epoch(ctx); err != nil || now != epoch {
		t.Errorf("epoch %d, then %d, %v", epoch, now, err)
	}

	check(t, errors.Join(
		a.SetDisappearing(ctx, Disappearing{In: time.Minute}),
		a.AddSuperAdmin(ctx, bob.InboxID()),
		a.RemoveAdmin(ctx, bob.InboxID()),
		a.SetPermissions(ctx, AllMembersPermissions()),
	))
	check(t, b.Sync(ctx))
	check(t, b.RemoveSuperAdmin(ctx, alice.InboxID()))
	check(t, a.Sync(ctx))
	info := must(a.Info(ctx))(t)
	if d := info.Disappearing; !d.On() || d.In != time.Minute || time.Since(d.From) > time.Minute {
		t.Errorf("disappearing: %+v", d)
	}
	want.Disappearing, want.Admins, want.SuperAdmins = info.Disappearing, nil, []string{bob.InboxID()}
	want.Permissions, want.Preset = AllMembersPermissions(), PresetAllMembers
	compare()

	// The transcript tells all of it, to both the same but for how it began.
	told := changes(t, a)[1:]
	if diff := cmp.Diff(told, changes(t, b)[1:]); diff != "" {
		t.Error(diff)
	}
	name1, name2 := "name 1", "name 2"
	if diff := cmp.Diff(&content.GroupUpdated{
		InitiatedBy: alice.InboxID(), Fields: []content.FieldChange{{Name: "group_name", Old: &name1, New: &name2}},
	}, told[0]); diff != "" {
		t.Error(diff)
	}
	last := told[len(told)-1]
	if !slices.Equal(last.RemovedSuperAdmins, []string{alice.InboxID()}) || last.InitiatedBy != bob.InboxID() {
		t.Errorf("last: %+v", last)
	}
	if a.CreatorInboxID() != alice.InboxID() || b.CreatorInboxID() != alice.InboxID() || b.AddedByInboxID() != alice.InboxID() {
		t.Error("creator and inviter")
	}
}

func TestGroupMembers(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	alice := openClient(t, signer, WithNode(url), InMemory())
	second := openClient(t, signer, WithNode(url), InMemory())
	bob := newClient(t, url)
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address(), bob.InboxID()))(t)
	check(t, a.AddAdmin(ctx, bob.InboxID()))
	members := must(a.Members(ctx))(t)
	byID := map[string]Member{}
	for _, m := range members {
		byID[m.InboxID] = m
	}
	if len(members) != 2 || !slices.IsSortedFunc(members, func(a, b Member) int { return strings.Compare(a.InboxID, b.InboxID) }) {
		t.Errorf("%d members: %+v", len(members), members)
	}
	alices := byID[alice.InboxID()]
	ids := []string{alice.InstallationID(), second.InstallationID()}
	slices.Sort(ids)
	slices.Sort(alices.InstallationIDs)
	if !slices.Equal(alices.InstallationIDs, ids) || alices.Level != LevelSuperAdmin || len(alices.Identifiers) != 1 || alices.Identifiers[0].String() != alice.Address() {
		t.Errorf("alice: %+v", alices)
	}
	bobs := byID[bob.InboxID()]
	if !slices.Equal(bobs.InstallationIDs, []string{bob.InstallationID()}) || bobs.Level != LevelAdmin {
		t.Errorf("bob: %+v", bobs)
	}
	// A group of one that no commit has touched.
	if alone := must(must(alice.NewGroup(ctx, GroupOptions{}))(t).Members(ctx))(t); len(alone) != 1 || len(alone[0].InstallationIDs) != 2 {
		t.Errorf("alone: %+v", alone)
	}
	check(t, a.AddMembers(ctx, bob.Address()))
	if err := a.RemoveMembers(ctx, alice.InboxID()); err == nil {
		t.Error("removed herself")
	}
}

func TestGroupChangesThatAreNone(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	group := must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t)
	dm := must(alice.DM(ctx, bob.InboxID()))(t)
	unknown := strings.Repeat("ab", 32)
	many := make([]string, protocol.MaxMembers+1)
	for i := range many {
		many[i] = fmt.Sprintf("%064x", i)
	}
	newGroup := func(o GroupOptions, users ...string) error {
		_, err := alice.NewGroup(ctx, o, users...)
		return err
	}
	version := new(protocol.VersionError)
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"a long name":                      {group.SetName(ctx, strings.Repeat("x", 101)), ErrTooLong},
		"a long name to begin with":        {newGroup(GroupOptions{Name: strings.Repeat("x", 101)}), ErrTooLong},
		"much app data":                    {group.SetAppData(ctx, strings.Repeat("x", 8193)), ErrTooLong},
		"everybody may make admins":        {group.SetPermissions(ctx, Permissions{PermissionAddAdmin: PolicyAllow}), ErrInvalidPolicy},
		"a policy that is only read":       {group.SetPermissions(ctx, Permissions{PermissionName: PolicyOther}), ErrInvalidPolicy},
		"a permission that is none":        {newGroup(GroupOptions{Permissions: Permissions{"fly": PolicyAllow}}), ErrInvalidPolicy},
		"a version that is none":           {group.SetMinimumVersion(ctx, "soon"), protocol.ErrMinimumVersion},
		"many members":                     {newGroup(GroupOptions{}, many...), ErrTooManyMembers},
		"many more members":                {group.AddMembers(ctx, many[:249]...), ErrTooManyMembers},
		"a member whom nobody knows":       {group.AddMembers(ctx, unknown), ErrNoInbox},
		"an unknown one to begin with":     {newGroup(GroupOptions{}, unknown), ErrNoInbox},
		"a direct message's name":          {dm.SetName(ctx, "x"), ErrDirectMessage},
		"a direct message's admin":         {dm.AddAdmin(ctx, bob.InboxID()), ErrDirectMessage},
		"a direct message's permissions":   {dm.SetPermissions(ctx, AdminOnlyPermissions()), ErrDirectMessage},
		"a direct message's version":       {dm.SetMinimumVersion(ctx, "1.0.0"), ErrDirectMessage},
		"leaving a direct message":         {dm.Leave(ctx), ErrDirectMessage},
		"a third one in a direct message":  {dm.AddMembers(ctx, newStranger(t, alice).reachable(t, alice).inboxID), ErrNotPermitted},
		"removing from a direct message":   {dm.RemoveMembers(ctx, bob.InboxID()), ErrNotPermitted},
		"leaving as super admin":           {group.Leave(ctx), ErrSuperAdmin},
		"demoting the last super admin":    {group.RemoveSuperAdmin(ctx, alice.InboxID()), ErrNotPermitted},
		"a third one out of reach in a dm": {dm.AddMembers(ctx, newStranger(t, alice).inboxID), ErrNotPermitted},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if group.SetName(ctx, "\xff") == nil || group.SetDisappearing(ctx, Disappearing{In: -1}) == nil {
		t.Error("text that is no UTF-8, or a negative time")
	}
	if err := group.SetMinimumVersion(ctx, "99.0.0"); !errors.As(err, &version) || version.Required != "99.0.0" {
		t.Errorf("a newer version than ours: %v", err)
	}
	if must(group.Info(ctx))(t).Name != "" {
		t.Error("a name was set")
	}
	if list := must(alice.Conversations(ConversationOptions{}))(t); len(list) != 2 {
		t.Errorf("%d conversations have come of it", len(list))
	}
	if alone := must(alice.NewGroup(ctx, GroupOptions{}))(t); !errors.Is(alone.Leave(ctx), ErrOnlyMember) {
		t.Error("the only member leaves")
	}
	from := must(must(alice.NewGroup(ctx, GroupOptions{Disappearing: Disappearing{In: time.Hour}}))(t).Info(ctx))(t).Disappearing.From
	if newGroup(GroupOptions{Disappearing: Disappearing{In: -1}}) == nil || time.Since(from) > time.Minute {
		t.Errorf("disappearing from %v, or before time", from)
	}
	// In a direct message both let messages disappear.
	check(t, dm.SetDisappearing(ctx, Disappearing{In: time.Hour}))
	check(t, inConversation(t, bob, dm.ID()).SetDisappearing(ctx, Disappearing{}))
}

// Two change a group at the same time: both changes are made.
func TestGroupChangesAtOnce(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t)
	b := inConversation(t, bob, a.ID())
	for i := range 5 {
		name, description := fmt.Sprint("name ", i), fmt.Sprint("description ", i)
		errs := make(chan error, 2)
		go func() { errs <- a.SetName(ctx, name) }()
		go func() { errs <- b.SetDescription(ctx, description) }()
		check(t, errors.Join(<-errs, <-errs))
		check(t, errors.Join(a.Sync(ctx), b.Sync(ctx)))
		sameEpoch(t, a, b)
		if info := must(a.Info(ctx))(t); info.Name != name || info.Description != description {
			t.Errorf("%q, %q", info.Name, info.Description)
		}
	}
}

func TestGroupLeave(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	var clients [4]*Client
	for i := range clients {
		clients[i] = newClient(t, url, WithoutWorkers())
	}
	alice, bob, carol, dave := clients[0], clients[1], clients[2], clients[3]
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID(), carol.InboxID(), dave.InboxID()))(t)
	check(t, a.AddAdmin(ctx, bob.InboxID()))
	b, c, d := inConversation(t, bob, a.ID()), inConversation(t, carol, a.ID()), inConversation(t, dave, a.ID())
	state := func(v *Conversation, want MembershipState) {
		t.Helper()
		if got := must(v.MembershipState())(t); got != want {
			t.Errorf("state %d, want %d", got, want)
		}
	}
	state(a, MembershipAllowed)
	state(c, MembershipPending)
	check(t, c.Leave(ctx))
	state(c, MembershipPendingRemove)
	check(t, c.Leave(ctx)) // once more is the same

	// A member can't do it; an admin does.
	check(t, d.Sync(ctx))
	if !slices.Contains(memberIDs(t, d), carol.InboxID()) {
		t.Error("a member removed her")
	}
	check(t, b.Sync(ctx))
	if slices.Contains(memberIDs(t, b), carol.InboxID()) {
		t.Error("the admin did not remove her")
	}
	check(t, errors.Join(a.Sync(ctx), c.Sync(ctx), d.Sync(ctx)))
	if must(c.IsActive())(t) {
		t.Error("carol has left and is active")
	}
	for _, v := range []*Conversation{a, b, d} {
		last := changes(t, v)
		if u := last[len(last)-1]; !slices.Equal(u.Left, []string{carol.InboxID()}) || u.Removed != nil || u.InitiatedBy != bob.InboxID() {
			t.Errorf("transcript: %+v", u)
		}
	}
	requests := 0
	for _, m := range must(a.Messages(MessageOptions{}))(t) {
		if m.Content != nil && m.Content.Type.Name == "leave_request" {
			requests++
		}
	}
	if requests != 1 {
		t.Errorf("%d requests", requests)
	}

	// Back again, by somebody else's decision.
	check(t, a.AddMembers(ctx, carol.InboxID()))
	c = inConversation(t, carol, a.ID())
	state(c, MembershipAllowed)
	if consent := must(c.Consent())(t); consent != ConsentUnknown {
		t.Errorf("consent %v", consent)
	}
	check(t, carol.db.View(func(tx *store.Tx) error {
		leaving, err := tx.Leaving(c.row.ID)
		if len(leaving) != 0 {
			t.Errorf("still leaving: %v", leaving)
		}
		return err
	}))
	check(t, errors.Join(b.Sync(ctx), d.Sync(ctx)))
	if !slices.Contains(memberIDs(t, b), carol.InboxID()) {
		t.Error("she was removed once more")
	}

	// Who becomes an admin takes care of what was asked before.
	check(t, a.RemoveAdmin(ctx, bob.InboxID()))
	check(t, c.UpdateKeys(ctx))
	check(t, a.Sync(ctx))
	check(t, c.Leave(ctx))
	check(t, errors.Join(b.Sync(ctx), d.Sync(ctx)))
	if !slices.Contains(memberIDs(t, d), carol.InboxID()) {
		t.Error("a member removed her")
	}
	check(t, a.AddSuperAdmin(ctx, dave.InboxID())) // without having read of it
	check(t, d.Sync(ctx))
	if ids := memberIDs(t, d); slices.Contains(ids, carol.InboxID()) {
		t.Errorf("members: %v", ids)
	}
	told := changes(t, d)
	if u := told[len(told)-1]; u.InitiatedBy != dave.InboxID() || !slices.Equal(u.Left, []string{carol.InboxID()}) {
		t.Errorf("transcript: %+v", u)
	}
}

// A group that asks for a newer version waits, and goes on after an update.
func TestGroupPaused(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t)
	b := inConversation(t, bob, a.ID())
	force(t, a, settingsIntent{Attributes: map[string]string{protocol.AttributeMinimumVersion: "99.0.0"}})
	check(t, bob.Sync(ctx))
	if version := must(b.PausedForVersion())(t); version != "99.0.0" {
		t.Errorf("paused for %q", version)
	}
	_, sending := b.SendText(ctx, "hello")
	for name, err := range map[string]error{
		"sending": sending, "renaming": b.SetName(ctx, "x"), "adding": b.AddMembers(ctx, alice.InboxID()), "leaving": b.Leave(ctx), "keys": b.UpdateKeys(ctx),
	} {
		version := new(protocol.VersionError)
		if !errors.Is(err, ErrPaused) || !errors.As(err, &version) || version.Required != "99.0.0" {
			t.Errorf("%s: %v", name, err)
		}
	}
	check(t, bob.db.View(func(tx *store.Tx) error {
		if intents, err := tx.Intents(b.row.ID, 10); err != nil || len(intents) != 0 {
			t.Errorf("%d intents wait, %v", len(intents), err)
		}
		return nil
	}))

	// Another group, of which bob's program was too old, until today.
	a = must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t)
	b = inConversation(t, bob, a.ID())
	check(t, a.SetMinimumVersion(ctx, ProtocolVersion))
	must(a.SendText(ctx, "for the new"))(t)
	check(t, b.group.pausedFor(&protocol.VersionError{Required: ProtocolVersion}))
	if version := must(b.PausedForVersion())(t); version != "" {
		t.Errorf("paused for %q", version)
	}
	check(t, bob.Sync(ctx))
	if got := texts(t, b); !cmp.Equal(got, []string{"for the new"}) {
		t.Errorf("bob reads %q", got)
	}
	must(b.SendText(ctx, "here I am"))(t)
}

// pausedFor stores what an older version has stored.
func (g *group) pausedFor(version *protocol.VersionError) error {
	return g.update(func(tx *store.Tx) error {
		row, _, err := tx.Group(g.id)
		row.Paused = version.Required
		return errors.Join(err, tx.PutGroup(row))
	})
}

// force publishes a change that is not checked, as by a client that has its rules
// switched off, and reads the log.
func force(t *testing.T, v *Conversation, intent settingsIntent) {
	t.Helper()
	check(t, v.group.acquire(t.Context()))
	state := must(v.group.state())(t)
	proposals := must(intent.proposals(state.Extensions()))(t)
	v.group.release()
	forceProposals(t, v, proposals)
}

// forceMembers is the same for members.
func forceMembers(t *testing.T, v *Conversation, add, remove []string) {
	t.Helper()
	c := v.client
	check(t, v.group.acquire(t.Context()))
	state := must(v.group.state())(t)
	parsed := must(v.group.parsed())(t)
	plan := must(protocol.PlanMembership(t.Context(), c.inboxes, parsed.Membership, add, remove))(t)
	packages, _, err := c.fetchKeyPackages(t.Context(), plan.Invited(c.installation))
	check(t, err)
	proposals, _, err := plan.Proposals(state.Extensions(), state.Members(), c.installation, packages)
	check(t, err)
	v.group.release()
	forceProposals(t, v, proposals)
}

func forceProposals(t *testing.T, v *Conversation, proposals []mls.Proposal) {
	t.Helper()
	check(t, v.group.acquire(t.Context()))
	check(t, v.group.dropCommit())
	state := must(v.group.state())(t)
	pending := must(state.Commit(mls.CommitOptions{Proposals: proposals, ByValueOnly: true}))(t)
	check(t, v.group.update(func(tx *store.Tx) error { return saveState(tx, v.group.id, pending.Changes()) }))
	message := pending.Done().Message
	post(t, v.group, message)
	v.group.release()
	if err := v.Sync(t.Context()); err != nil && !errors.Is(err, ErrPaused) {
		t.Fatal(err)
	}
}

// Of 200 who are added 20 can't be reached: 180 are in, the others are named, and
// come in once they can be reached.
func TestGroupMembersOutOfReach(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	var time clock
	alice, bob := newClient(t, url, WithClock(time.now), WithoutWorkers()), newClient(t, url)
	const all, broken = 200, 20
	strangers := make([]stranger, all-1)
	users := []string{bob.InboxID()}
	for i := range strangers {
		strangers[i] = newStranger(t, alice)
		if i >= broken {
			strangers[i].reachable(t, alice)
		}
		users = append(users, strangers[i].inboxID)
	}
	a := must(alice.NewGroup(ctx, GroupOptions{}))(t)
	err := a.AddMembers(ctx, users...)
	failed := new(NotAddedError)
	if !errors.As(err, &failed) || !errors.Is(err, ErrNoKeyPackage) || errors.Is(err, ErrRefused) || errors.Is(err, ErrNotPublished) {
		t.Fatalf("adding: %v", err)
	}
	var named, want []string
	for _, u := range failed.Users {
		named = append(named, u.InboxID)
		if !errors.Is(u.Reason, ErrNoKeyPackage) || !strings.Contains(u.Reason.Error(), "installation") {
			t.Errorf("%s: %v", u.InboxID, u.Reason)
		}
	}
	for _, s := range strangers[:broken] {
		want = append(want, s.inboxID)
	}
	slices.Sort(named)
	slices.Sort(want)
	if !slices.Equal(named, want) {
		t.Errorf("%d are named", len(named))
	}
	if got := must(a.Awaited())(t); !slices.Equal(got, want) {
		t.Errorf("%d are awaited", len(got))
	}
	if n := len(memberIDs(t, a)); n != 1+all-broken {
		t.Errorf("%d members", n)
	}
	b := inConversation(t, bob, a.ID())
	must(a.SendText(ctx, "180 of you"))(t)
	must(b.SendText(ctx, "one of them"))(t)
	check(t, a.Sync(ctx))
	sameEpoch(t, a, b)

	// They are tried again, in the background, less often as time goes by.
	tries := 0
	for _, s := range strangers[:5] {
		s.reachable(t, alice)
	}
	for range 10 {
		before := must(a.group.row())(t).Checked
		must(alice.retryAwaited(ctx))(t)
		if must(a.group.row())(t).Checked != before {
			tries++
		}
		time.advance(awaitMin / 2)
	}
	if n := len(memberIDs(t, a)); n != 1+all-broken+5 {
		t.Errorf("%d members after some could be reached", n)
	}
	if tries < 2 || tries > 6 {
		t.Errorf("%d tries in %v", tries, 5*awaitMin)
	}

	// And before messages are sent.
	strangers[5].reachable(t, alice)
	time.advance(checkBeforeSend + 1)
	must(a.SendText(ctx, "one more"))(t)
	if !slices.Contains(memberIDs(t, a), strangers[5].inboxID) {
		t.Error("not added before a message")
	}
	// Who is not wanted any more is not.
	check(t, a.RemoveMembers(ctx, strangers[6].inboxID))
	strangers[6].reachable(t, alice)
	time.advance(awaitMax)
	must(alice.retryAwaited(ctx))(t)
	if slices.Contains(memberIDs(t, a), strangers[6].inboxID) {
		t.Error("added although cancelled")
	}
	// Somebody else may be faster.
	strangers[7].reachable(t, alice)
	check(t, b.AddMembers(ctx, strangers[7].inboxID))
	check(t, a.Sync(ctx))
	if got := must(a.Awaited())(t); len(got) != broken-8 || slices.Contains(got, strangers[7].inboxID) {
		t.Errorf("%d are awaited", len(got))
	}
	check(t, b.Sync(ctx))
	sameEpoch(t, a, b)
}

// Nobody can be reached, at first.
func TestGroupWithNobodyInReach(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice := newClient(t, url, WithoutWorkers())
	s := newStranger(t, alice)
	a, err := alice.NewGroup(ctx, GroupOptions{Name: "empty"}, s.inboxID)
	failed := new(NotAddedError)
	if !errors.As(err, &failed) || a == nil || len(memberIDs(t, a)) != 1 {
		t.Fatalf("%v, %v", a, err)
	}
	dm, err := alice.DM(ctx, s.inboxID)
	if !errors.As(err, &failed) {
		t.Fatalf("%v, %v", dm, err)
	}
	if _, err := alice.DM(ctx, s.inboxID); !errors.As(err, &failed) {
		t.Errorf("once more: %v", err)
	}
	s.reachable(t, alice)
	dm = must(alice.DM(ctx, s.inboxID))(t)
	check(t, a.AddMembers(ctx, s.inboxID))
	for _, v := range []*Conversation{dm, a} {
		if len(memberIDs(t, v)) != 2 || len(must(v.Awaited())(t)) != 0 {
			t.Errorf("members: %v", memberIDs(t, v))
		}
	}
}

// Three installations or more share a welcome, if they can.
func TestGroupWelcomePointers(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	alice := newClient(t, url)
	for n := range 5 {
		var users []string
		var joining []*Client
		for range n {
			c := newClient(t, url, WithoutWorkers())
			users, joining = append(users, c.InboxID()), append(joining, c)
		}
		v := must(alice.NewGroup(ctx, GroupOptions{}, users...))(t)
		for _, c := range joining {
			response, err := c.node.MLS.QueryWelcomeMessages(ctx, &mlsapi.QueryWelcomeMessagesRequest{InstallationKey: c.installation.Bytes()})
			check(t, err)
			if len(response.Messages) != 1 || (response.Messages[0].GetWelcomePointer() != nil) != (n >= pointersFrom) {
				t.Errorf("%d installations: %v", n, response.Messages)
			}
			sameEpoch(t, v, inConversation(t, c, v.ID()))
		}
	}
}

func TestWelcomesInRequests(t *testing.T) {
	message := func(size int) *mlsapi.WelcomeMessageInput {
		return &mlsapi.WelcomeMessageInput{Version: &mlsapi.WelcomeMessageInput_V1_{V1: &mlsapi.WelcomeMessageInput_V1{Data: make([]byte, size)}}}
	}
	for _, c := range []struct {
		n, size int
		want    []int
	}{
		{0, 0, nil},
		{1, maxBatchBytes + 1, []int{1}},
		{3, maxBatchBytes/2 + 1, []int{1, 1, 1}},
		{5, maxBatchBytes/2 - 100, []int{2, 2, 1}},
		{101, 10, []int{50, 50, 1}},
	} {
		var all []*mlsapi.WelcomeMessageInput
		for range c.n {
			all = append(all, message(c.size))
		}
		var got []int
		for _, request := range inRequests(all) {
			got = append(got, len(request))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%d of %d bytes: %v", c.n, c.size, got)
		}
	}
}
