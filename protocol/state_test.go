package protocol

import (
	"bytes"
	"encoding/hex"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

var compareIdentifiers = cmp.Comparer(func(a, b identity.Identifier) bool { return a == b })

const (
	alix = "1111111111111111111111111111111111111111111111111111111111111111"
	bo   = "2222222222222222222222222222222222222222222222222222222222222222"
	caro = "3333333333333333333333333333333333333333333333333333333333333333"
)

// contextExtensions cuts the extensions out of an encoded GroupContext (RFC 9420
// §8.1).
func contextExtensions(t testing.TB, context []byte) []mls.Extension {
	t.Helper()
	cut := func(b []byte) ([]byte, []byte) {
		data, rest, err := readOpaque(b)
		if err != nil {
			t.Fatal(err)
		}
		return data, rest
	}
	_, rest := cut(context[4:]) // group id
	_, rest = cut(rest[8:])     // tree hash
	_, rest = cut(rest)         // transcript hash
	list, rest := cut(rest)
	if len(rest) != 0 {
		t.Fatal("bytes after the extensions")
	}
	var exts []mls.Extension
	for len(list) > 0 {
		e := mls.Extension{Type: mls.ExtensionType(uint16(list[0])<<8 | uint16(list[1]))}
		e.Data, list = cut(list[2:])
		exts = append(exts, e)
	}
	return exts
}

func types(exts []mls.Extension) []mls.ExtensionType {
	var out []mls.ExtensionType
	for _, e := range exts {
		out = append(out, e.Type)
	}
	return out
}

// TestOfficialState reads the DM and the group that the official client made.
func TestOfficialState(t *testing.T) {
	ids := groupsFile().Identities
	a, b := ids["a"].InboxID, ids["b"].InboxID

	dm, err := ParseGroupState(contextExtensions(t, groupsFile().Welcomes[0].Context))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Metadata{Type: DM, CreatorInboxID: a, DMMembers: &[2]string{a, b}}, dm.Metadata); diff != "" {
		t.Error(diff)
	}
	if !dm.Permissions.Equal(DMPermissions()) || !dm.Permissions.Like(DMPermissions()) {
		t.Errorf("permissions of the DM: %+v", dm.Permissions)
	}
	want := NewDM(a, b)
	if diff := cmp.Diff(keys(want.Mutable.Attributes), keys(dm.Mutable.Attributes)); diff != "" {
		t.Error(diff)
	}
	if len(dm.Mutable.CommitLogSeed()) != 32 {
		t.Error("no commit log signer")
	}

	exts := contextExtensions(t, groupsFile().Welcomes[1].Context)
	group, err := ParseGroupState(exts)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Metadata{Type: Group, CreatorInboxID: a}, group.Metadata); diff != "" {
		t.Error(diff)
	}
	if !group.Permissions.Equal(DefaultPermissions()) || group.Permissions.Like(AdminOnlyPermissions()) {
		t.Errorf("permissions of the group: %+v", group.Permissions)
	}
	if diff := cmp.Diff(keys(NewGroup(a).Mutable.Attributes), keys(group.Mutable.Attributes)); diff != "" {
		t.Error(diff)
	}
	if !group.Mutable.IsSuperAdmin(a) || group.Mutable.IsAdmin(a) {
		t.Error("the creator is not super admin only")
	}
	if len(group.Membership.Members) != 3 || group.Membership.Members[b] == 0 {
		t.Errorf("membership %v", group.Membership.Members)
	}
	// What is required is equal byte for byte.
	if data, _ := find(exts, mls.ExtensionRequiredCapabilities); !bytes.Equal(data, requiredCapabilities.Extension().Data) {
		t.Errorf("required capabilities %x", data)
	}
	if got := requiredCapabilities.Extension().Data; hex.EncodeToString(got) != "0cff01ff00ff02f000000a0001"+"020007"+"020001" {
		t.Errorf("required capabilities %x", got)
	}
}

func keys(m map[string]string) map[string]bool {
	out := map[string]bool{}
	for k := range m {
		out[k] = true
	}
	return out
}

func TestStateRoundTrip(t *testing.T) {
	group := NewGroup(alix)
	group.Mutable.Attributes[AttributeName] = "Büro"
	group.Mutable.Admins = []string{bo}
	group.Mutable.SetDisappearing(Disappearing{1, 2})
	group.Membership.Failed = []identity.Identifier{identity.Installation([]byte("gone"))}
	group.Permissions.AddMember = Policy{AnyOf, []Policy{{Rule: AllowAdmins}, {AllOf, []Policy{{Rule: Allow}, {Rule: Deny}}}}}
	group.Permissions.Metadata["mood"] = Policy{AllOf, []Policy{{AnyOf, []Policy{{Rule: AllowSuperAdmins}}}}}
	group.Permissions.AddAdmin = Policy{AllOf, []Policy{{AnyOf, []Policy{{Rule: AllowAdmins}}}, {Rule: Deny}}}
	oneshot := newState(&Metadata{Type: Oneshot, CreatorInboxID: bo, OneshotMessage: &mlscontents.OneshotMessage{}})
	oneshot.Permissions = AdminOnlyPermissions()
	for _, s := range []*GroupState{group, NewDM(alix, bo), oneshot} {
		exts, err := s.Extensions()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]mls.ExtensionType{0xf000, 0xff00, 0xff01, 0xff02, 3}, types(exts)); diff != "" {
			t.Error(diff)
		}
		got, err := ParseGroupState(exts)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got, compareIdentifiers, cmp.Comparer(proto.Equal)); diff != "" {
			t.Error(diff)
		}
	}
	// An empty list is written, or official clients can't read it.
	exts, _ := NewDM(alix, bo).Extensions()
	if data, _ := find(exts, extensionMutableMetadata); !bytes.HasSuffix(data, []byte{0x12, 0, 0x1a, 0}) {
		t.Errorf("lists of admins end in %x", data[len(data)-4:])
	}
}

func TestReplaceMovesToEnd(t *testing.T) {
	s := NewGroup(alix)
	exts, err := s.Extensions()
	if err != nil {
		t.Fatal(err)
	}
	exts = append(exts, mls.Extension{Type: 0xff77, Data: []byte("unknown")})
	after, err := WithMembership(exts, s.Membership)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]mls.ExtensionType{0xf000, 0xff00, 0xff02, 3, 0xff77, 0xff01}, types(after)); diff != "" {
		t.Error(diff)
	}
	after, err = WithMutableMetadata(after, s.Mutable)
	if err != nil {
		t.Fatal(err)
	}
	if after, err = WithPermissions(after, s.Permissions); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]mls.ExtensionType{0xf000, 3, 0xff77, 0xff01, 0xff00, 0xff02}, types(after)); diff != "" {
		t.Error(diff)
	}
	for _, e := range exts {
		if !sameExtension(exts, after, e.Type) {
			t.Errorf("%#x changed", e.Type)
		}
	}
}

func TestExtensionsRefuse(t *testing.T) {
	for name, change := range map[string]func(*GroupState){
		"attribute that is no text":   func(s *GroupState) { s.Mutable.Attributes["x"] = "\xff" },
		"creator that is no text":     func(s *GroupState) { s.Metadata.CreatorInboxID = "\xff" },
		"allow as policy for admins":  func(s *GroupState) { s.Permissions.AddAdmin = Policy{Rule: Allow} },
		"no policy":                   func(s *GroupState) { s.Permissions.AddMember = Policy{} },
		"combination of none":         func(s *GroupState) { s.Permissions.RemoveMember = Policy{Rule: AllOf} },
		"invalid policy in a policy":  func(s *GroupState) { s.Permissions.Metadata["x"] = Policy{AnyOf, []Policy{{}}} },
		"invalid permissions in list": func(s *GroupState) { s.Permissions.RemoveAdmin = Policy{AnyOf, []Policy{{Rule: Allow}}} },
	} {
		s := NewGroup(alix)
		change(s)
		if _, err := s.Extensions(); err == nil {
			t.Errorf("%s was encoded", name)
		}
	}
}

func TestParseGroupStateRefuses(t *testing.T) {
	good, err := NewDM(alix, bo).Extensions()
	if err != nil {
		t.Fatal(err)
	}
	with := func(t mls.ExtensionType, m proto.Message) []mls.Extension {
		data, err := marshal(m)
		if err != nil {
			panic(err)
		}
		if t == extensionMetadata {
			data = appendOpaque(nil, data)
		}
		return replace(good, mls.Extension{Type: t, Data: data})
	}
	without := func(t mls.ExtensionType) []mls.Extension {
		return replace(good, mls.Extension{Type: t})[:len(good)-1]
	}
	policies := func(change func(*mlscontents.PolicySet)) []mls.Extension {
		var m mlscontents.GroupMutablePermissionsV1
		data, _ := find(good, extensionPermissions)
		if err := proto.Unmarshal(data, &m); err != nil {
			panic(err)
		}
		change(m.Policies)
		return with(extensionPermissions, &m)
	}
	deep := &mlscontents.MembershipPolicy{Kind: &mlscontents.MembershipPolicy_Base{Base: 1}}
	for range 60 {
		deep = &mlscontents.MembershipPolicy{Kind: &mlscontents.MembershipPolicy_AnyCondition_{
			AnyCondition: &mlscontents.MembershipPolicy_AnyCondition{Policies: []*mlscontents.MembershipPolicy{deep}}}}
	}
	inbox := &mlscontents.Inbox{InboxId: alix}
	for name, exts := range map[string][]mls.Extension{
		"nothing":                   nil,
		"no metadata":               without(extensionMetadata),
		"no mutable metadata":       without(extensionMutableMetadata),
		"no membership":             without(extensionMembership),
		"no permissions":            without(extensionPermissions),
		"metadata without prefix":   replace(good, mls.Extension{Type: extensionMetadata, Data: []byte{8, 1}}),
		"bytes after the metadata":  replace(good, mls.Extension{Type: extensionMetadata, Data: []byte{2, 8, 1, 0}}),
		"metadata that is none":     replace(good, mls.Extension{Type: extensionMetadata, Data: []byte{1, 0xff}}),
		"unspecified type":          with(extensionMetadata, &mlscontents.GroupMetadataV1{}),
		"unknown type":              with(extensionMetadata, &mlscontents.GroupMetadataV1{ConversationType: 5}),
		"DM of one":                 with(extensionMetadata, &mlscontents.GroupMetadataV1{ConversationType: DM, DmMembers: &mlscontents.DmMembers{DmMemberOne: inbox}}),
		"mutable metadata of none":  replace(good, mls.Extension{Type: extensionMutableMetadata, Data: []byte{0xff}}),
		"no admins":                 with(extensionMutableMetadata, &mlscontents.GroupMutableMetadataV1{SuperAdminList: &mlscontents.Inboxes{}}),
		"no super admins":           with(extensionMutableMetadata, &mlscontents.GroupMutableMetadataV1{AdminList: &mlscontents.Inboxes{}}),
		"membership that is none":   replace(good, mls.Extension{Type: extensionMembership, Data: []byte{0xff}}),
		"permissions that are none": replace(good, mls.Extension{Type: extensionPermissions, Data: []byte{0xff}}),
		"empty permissions":         with(extensionPermissions, &mlscontents.GroupMutablePermissionsV1{}),
		"no policy to add members":  policies(func(p *mlscontents.PolicySet) { p.AddMemberPolicy = nil }),
		"no policy for permissions": policies(func(p *mlscontents.PolicySet) { p.UpdatePermissionsPolicy = nil }),
		"unspecified policy":        policies(func(p *mlscontents.PolicySet) { p.RemoveMemberPolicy.Kind = &mlscontents.MembershipPolicy_Base{} }),
		"unknown policy": policies(func(p *mlscontents.PolicySet) {
			p.AddAdminPolicy.Kind = &mlscontents.PermissionsUpdatePolicy_Base{Base: 4}
		}),
		"combination of none":         policies(func(p *mlscontents.PolicySet) { p.AddMemberPolicy.Kind = &mlscontents.MembershipPolicy_AndCondition_{} }),
		"attribute policy of no kind": policies(func(p *mlscontents.PolicySet) { p.UpdateMetadataPolicy["x"] = &mlscontents.MetadataPolicy{} }),
		"policies too deep":           policies(func(p *mlscontents.PolicySet) { p.AddMemberPolicy = deep }),
	} {
		_, err := ParseGroupState(exts)
		if !errors.Is(err, ErrGroupState) && !IsVerdict(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDMID(t *testing.T) {
	for _, v := range groupsFile().DMID {
		if a, b := DMID(v.One, v.Two), DMID(strings.ToUpper(v.Two), v.One); a != v.ID || b != v.ID {
			t.Errorf("%s and %s, want %s", a, b, v.ID)
		}
	}
}

func TestCheckAttribute(t *testing.T) {
	for name, limit := range attributeLimits {
		if err := CheckAttribute(name, strings.Repeat("ü", limit/2)); err != nil {
			t.Error(err)
		}
		if err := CheckAttribute(name, strings.Repeat("ü", limit/2)+"!"); !errors.Is(err, ErrAttributeTooLong) {
			t.Errorf("%s of %d bytes: %v", name, limit+1, err)
		}
	}
	if err := CheckAttribute("other", strings.Repeat("x", 1<<20)); err != nil {
		t.Error(err)
	}
}

func TestDisappearing(t *testing.T) {
	for _, c := range []struct {
		attributes map[string]string
		want       Disappearing
		on         bool
	}{
		{nil, Disappearing{}, false},
		{map[string]string{AttributeDisappearFrom: "5"}, Disappearing{}, false},
		{map[string]string{AttributeDisappearFrom: "5", AttributeDisappearIn: "x"}, Disappearing{}, false},
		{map[string]string{AttributeDisappearFrom: "5", AttributeDisappearIn: "0"}, Disappearing{5, 0}, false},
		{map[string]string{AttributeDisappearFrom: "5", AttributeDisappearIn: "-1"}, Disappearing{5, -1}, false},
		{map[string]string{AttributeDisappearFrom: "5", AttributeDisappearIn: "6"}, Disappearing{5, 6}, true},
	} {
		got := (&MutableMetadata{Attributes: c.attributes}).Disappearing()
		if got != c.want || got.On() != c.on {
			t.Errorf("%v: %v", c.attributes, got)
		}
	}
}

func TestClonesShareNothing(t *testing.T) {
	s := NewGroup(alix)
	m := s.Mutable.Clone()
	m.Attributes[AttributeName] = "other"
	m.SuperAdmins[0] = bo
	n := s.Membership.Clone()
	n.Members[bo] = 1
	if s.Mutable.Attributes[AttributeName] != "" || s.Mutable.SuperAdmins[0] != alix || len(s.Membership.Members) != 1 {
		t.Error("a clone's change shows in the original")
	}
}

func TestPolicies(t *testing.T) {
	type roles struct{ admin, superAdmin bool }
	member, admin, super := roles{}, roles{true, false}, roles{false, true}
	for _, c := range []struct {
		policy Policy
		yes    []roles
		no     []roles
	}{
		{Policy{Rule: Allow}, []roles{member, admin, super}, nil},
		{Policy{Rule: Deny}, nil, []roles{member, admin, super}},
		{Policy{Rule: AllowAdmins}, []roles{admin, super}, []roles{member}},
		{Policy{Rule: AllowSuperAdmins}, []roles{super}, []roles{member, admin}},
		{Policy{AllOf, []Policy{{Rule: AllowAdmins}, {Rule: AllowSuperAdmins}}}, []roles{super}, []roles{member, admin}},
		{Policy{AnyOf, []Policy{{Rule: Deny}, {Rule: AllowAdmins}}}, []roles{admin, super}, []roles{member}},
		{Policy{}, nil, []roles{member, admin, super}},
	} {
		for _, r := range c.yes {
			if !c.policy.permits(r.admin, r.superAdmin) {
				t.Errorf("%v denies %+v", c.policy, r)
			}
		}
		for _, r := range c.no {
			if c.policy.permits(r.admin, r.superAdmin) {
				t.Errorf("%v allows %+v", c.policy, r)
			}
		}
	}
}

func TestPresets(t *testing.T) {
	presets := map[string]*PolicySet{"default": DefaultPermissions(), "admin only": AdminOnlyPermissions(), "DM": DMPermissions()}
	for name, s := range presets {
		for other, preset := range presets {
			if s.Like(preset) != (name == other) || s.Equal(preset) != (name == other) {
				t.Errorf("%s is like %s: %v", name, other, s.Like(preset))
			}
		}
	}
	s := AdminOnlyPermissions()
	delete(s.Metadata, AttributeAppData)
	s.Metadata["mood"] = Policy{Rule: AllowAdmins}
	if !s.Like(AdminOnlyPermissions()) || s.Equal(AdminOnlyPermissions()) {
		t.Error("a policy less, and one for an attribute that the preset doesn't know, make another preset")
	}
	s.Metadata["mood"] = Policy{Rule: Allow}
	if s.Like(AdminOnlyPermissions()) {
		t.Error("an attribute that all may change doesn't matter")
	}
	for name, want := range map[string]PolicyRule{"_secret": AllowSuperAdmins, "mood": AllowAdmins, AttributeName: Allow} {
		if got := DefaultPermissions().attribute(name); got.Rule != want {
			t.Errorf("%s: %v, want %v", name, got.Rule, want)
		}
	}
	if !maps.EqualFunc(DefaultPermissions().Metadata, AdminOnlyPermissions().Metadata, func(a, b Policy) bool { return true }) {
		t.Error("presets have policies for different attributes")
	}
}
