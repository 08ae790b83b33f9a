package xmtp

import (
	"errors"
	"fmt"

	"github.com/go-xmtp/go-xmtp/protocol"
)

// Permission is what members of a group may be allowed to do. Two things are not
// for choice: only super admins make and unmake super admins, and change
// permissions.
type Permission string

// What may be allowed.
const (
	PermissionAddMember    Permission = "add member"
	PermissionRemoveMember Permission = "remove member"
	PermissionAddAdmin     Permission = "add admin"
	PermissionRemoveAdmin  Permission = "remove admin"
	PermissionName         Permission = "change name"
	PermissionDescription  Permission = "change description"
	PermissionImageURL     Permission = "change image"
	PermissionAppData      Permission = "change app data"
	PermissionDisappearing Permission = "change disappearing"
)

// Policy says whom something is allowed to.
type Policy string

// The policies. Adding and removing admins can't be allowed to everybody.
const (
	PolicyAllow       Policy = "allow"        // all members
	PolicyDeny        Policy = "deny"         // nobody
	PolicyAdmins      Policy = "admins"       // and super admins
	PolicySuperAdmins Policy = "super admins" // only

	// PolicyOther is a combination that somebody has made of others. It is read
	// and can't be set.
	PolicyOther Policy = "other"
)

// Permissions say who may do what in a group. A permission that is missing in those
// of a group is the admins'.
type Permissions map[Permission]Policy

// AllMembersPermissions let all members add others and change the group's name,
// description, image and app data, and admins remove members and let messages
// disappear. Super admins appoint the admins. Groups have them unless others
// are chosen.
func AllMembersPermissions() Permissions { return permissionsOf(protocol.DefaultPermissions()) }

// AdminOnlyPermissions leave everything to admins, and the admins to super admins.
func AdminOnlyPermissions() Permissions { return permissionsOf(protocol.AdminOnlyPermissions()) }

// Preset names a well-known set of permissions.
type Preset string

// The presets.
const (
	PresetAllMembers Preset = "all members" // AllMembersPermissions
	PresetAdminOnly  Preset = "admin only"  // AdminOnlyPermissions
	PresetCustom     Preset = "custom"      // none of them
)

// ErrInvalidPolicy: a policy can't be set, or not for that permission.
var ErrInvalidPolicy = errors.New("invalid policy")

// rules are the policies that can be set.
var rules = map[Policy]protocol.PolicyRule{
	PolicyAllow:       protocol.Allow,
	PolicyDeny:        protocol.Deny,
	PolicyAdmins:      protocol.AllowAdmins,
	PolicySuperAdmins: protocol.AllowSuperAdmins,
}

func policyOf(p protocol.Policy) Policy {
	for policy, rule := range rules {
		if rule == p.Rule {
			return policy
		}
	}
	return PolicyOther
}

// attributesOf are the attributes that a permission is for. What is said of the
// last one counts.
var attributesOf = map[Permission][]string{
	PermissionName:         {protocol.AttributeName},
	PermissionDescription:  {protocol.AttributeDescription},
	PermissionImageURL:     {protocol.AttributeImageURL},
	PermissionAppData:      {protocol.AttributeAppData},
	PermissionDisappearing: {protocol.AttributeDisappearFrom, protocol.AttributeDisappearIn},
}

// place is where a set keeps the policy for what is no attribute; nil for what is.
func place(s *protocol.PolicySet, p Permission) *protocol.Policy {
	switch p {
	case PermissionAddMember:
		return &s.AddMember
	case PermissionRemoveMember:
		return &s.RemoveMember
	case PermissionAddAdmin:
		return &s.AddAdmin
	case PermissionRemoveAdmin:
		return &s.RemoveAdmin
	}
	return nil
}

// change changes a set; what p doesn't name stays.
func (p Permissions) change(s *protocol.PolicySet) error {
	for permission, policy := range p {
		rule, ok := rules[policy]
		at, names := place(s, permission), attributesOf[permission]
		switch {
		case !ok:
			return fmt.Errorf("%w: %q", ErrInvalidPolicy, policy)
		case at == nil && names == nil:
			return fmt.Errorf("%w: there is no permission %q", ErrInvalidPolicy, permission)
		case policy == PolicyAllow && (permission == PermissionAddAdmin || permission == PermissionRemoveAdmin):
			return fmt.Errorf("%w: %q can't be allowed to everybody", ErrInvalidPolicy, permission)
		}
		if at != nil {
			*at = protocol.Policy{Rule: rule}
		}
		for _, name := range names {
			s.Metadata[name] = protocol.Policy{Rule: rule}
		}
	}
	return nil
}

// permissionsOf reads a set.
func permissionsOf(s *protocol.PolicySet) Permissions {
	p := Permissions{
		PermissionAddMember:    policyOf(s.AddMember),
		PermissionRemoveMember: policyOf(s.RemoveMember),
		PermissionAddAdmin:     policyOf(s.AddAdmin),
		PermissionRemoveAdmin:  policyOf(s.RemoveAdmin),
	}
	for permission, names := range attributesOf {
		if policy, ok := s.Metadata[names[len(names)-1]]; ok {
			p[permission] = policyOf(policy)
		}
	}
	return p
}

func presetOf(s *protocol.PolicySet) Preset {
	switch {
	case s.Like(protocol.DefaultPermissions()):
		return PresetAllMembers
	case s.Like(protocol.AdminOnlyPermissions()):
		return PresetAdminOnly
	}
	return PresetCustom
}
