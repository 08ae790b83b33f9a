package protocol

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// PolicyRule says whom a [Policy] allows something.
type PolicyRule uint8

// The rules. AllOf and AnyOf combine other policies.
const (
	Allow PolicyRule = 1 + iota
	Deny
	AllowAdmins // and super admins
	AllowSuperAdmins
	AllOf
	AnyOf
)

func (r PolicyRule) String() string {
	names := []string{"invalid", "allow", "deny", "admins", "super admins", "all of", "any of"}
	if int(r) >= len(names) {
		r = 0
	}
	return names[r]
}

// Policy says who may do something.
type Policy struct {
	Rule PolicyRule
	// Of are the policies that AllOf and AnyOf combine, at least one.
	Of []Policy
}

// Equal reports whether p and q are written alike.
func (p Policy) Equal(q Policy) bool {
	return p.Rule == q.Rule && slices.EqualFunc(p.Of, q.Of, Policy.Equal)
}

// permits evaluates the policy for somebody with the given roles.
func (p Policy) permits(admin, superAdmin bool) bool {
	permits := func(q Policy) bool { return q.permits(admin, superAdmin) }
	switch p.Rule {
	case Allow:
		return true
	case AllowAdmins:
		return admin || superAdmin
	case AllowSuperAdmins:
		return superAdmin
	case AllOf:
		return !slices.ContainsFunc(p.Of, func(q Policy) bool { return !permits(q) })
	case AnyOf:
		return slices.ContainsFunc(p.Of, permits)
	}
	return false
}

// PolicySet is who may change what in a group. Only super admins change the super
// admins and the permissions, whatever a set says.
type PolicySet struct {
	AddMember    Policy
	RemoveMember Policy

	// Metadata has a policy for each attribute. An attribute without one may be
	// changed by admins; by super admins if its name starts with "_".
	Metadata map[string]Policy

	// AddAdmin and RemoveAdmin can't be Allow.
	AddAdmin    Policy
	RemoveAdmin Policy

	// UpdatePermissions is written and never asked; it can't be Allow.
	UpdatePermissions Policy
}

// policiesFor has a rule for everyday attributes, one for the time after which
// messages disappear, and one for the required version.
func policiesFor(everyday, disappearing, version PolicyRule) map[string]Policy {
	return map[string]Policy{
		AttributeName:           {Rule: everyday},
		AttributeDescription:    {Rule: everyday},
		AttributeImageURL:       {Rule: everyday},
		AttributeAppData:        {Rule: everyday},
		AttributeDisappearFrom:  {Rule: disappearing},
		AttributeDisappearIn:    {Rule: disappearing},
		AttributeMinimumVersion: {Rule: version},
	}
}

// DefaultPermissions lets all members add others and change attributes, and admins
// remove members.
func DefaultPermissions() *PolicySet {
	return &PolicySet{
		AddMember:         Policy{Rule: Allow},
		RemoveMember:      Policy{Rule: AllowAdmins},
		Metadata:          policiesFor(Allow, AllowAdmins, AllowSuperAdmins),
		AddAdmin:          Policy{Rule: AllowSuperAdmins},
		RemoveAdmin:       Policy{Rule: AllowSuperAdmins},
		UpdatePermissions: Policy{Rule: AllowSuperAdmins},
	}
}

// AdminOnlyPermissions leaves changes of members and attributes to admins.
func AdminOnlyPermissions() *PolicySet {
	s := DefaultPermissions()
	s.AddMember = Policy{Rule: AllowAdmins}
	s.Metadata = policiesFor(AllowAdmins, AllowAdmins, AllowSuperAdmins)
	return s
}

// DMPermissions are those of every DM. The peer is added although they deny it.
func DMPermissions() *PolicySet {
	return &PolicySet{
		AddMember:         Policy{Rule: Deny},
		RemoveMember:      Policy{Rule: Deny},
		Metadata:          policiesFor(Allow, Allow, Allow),
		AddAdmin:          Policy{Rule: Deny},
		RemoveAdmin:       Policy{Rule: Deny},
		UpdatePermissions: Policy{Rule: Deny},
	}
}

// Equal reports whether both sets are written alike.
func (s *PolicySet) Equal(o *PolicySet) bool {
	return s.sameMembers(o) && maps.EqualFunc(s.Metadata, o.Metadata, Policy.Equal)
}

func (s *PolicySet) sameMembers(o *PolicySet) bool {
	return s.AddMember.Equal(o.AddMember) && s.RemoveMember.Equal(o.RemoveMember) &&
		s.AddAdmin.Equal(o.AddAdmin) && s.RemoveAdmin.Equal(o.RemoveAdmin) &&
		s.UpdatePermissions.Equal(o.UpdatePermissions)
}

// Like reports whether s is what a preset says. Attributes that s has no policy for
// don't matter; those that only s knows count as everyday ones, like the name.
func (s *PolicySet) Like(preset *PolicySet) bool {
	if !s.sameMembers(preset) {
		return false
	}
	for name, policy := range s.Metadata {
		want, ok := preset.Metadata[name]
		if !ok {
			want = preset.Metadata[AttributeName]
		}
		if !policy.Equal(want) {
			return false
		}
	}
	return true
}

// attribute returns the policy for an attribute.
func (s *PolicySet) attribute(name string) Policy {
	if p, ok := s.Metadata[name]; ok {
		return p
	}
	if strings.HasPrefix(name, superAdminPrefix) {
		return Policy{Rule: AllowSuperAdmins}
	}
	return Policy{Rule: AllowAdmins}
}

// errPolicy is a policy without encoding, or an encoding without meaning.
var errPolicy = errors.New("invalid policy")

func (s *PolicySet) extension() (mls.Extension, error) {
	e := policyEncoder{}
	p := &mlscontents.PolicySet{
		AddMemberPolicy:         e.membership(s.AddMember),
		RemoveMemberPolicy:      e.membership(s.RemoveMember),
		UpdateMetadataPolicy:    map[string]*mlscontents.MetadataPolicy{},
		AddAdminPolicy:          e.permissions(s.AddAdmin),
		RemoveAdminPolicy:       e.permissions(s.RemoveAdmin),
		UpdatePermissionsPolicy: e.permissions(s.UpdatePermissions),
	}
	for name, policy := range s.Metadata {
		p.UpdateMetadataPolicy[name] = e.metadata(policy)
	}
	if e.err != nil {
		return mls.Extension{}, e.err
	}
	data, err := marshal(&mlscontents.GroupMutablePermissionsV1{Policies: p})
	return mls.Extension{Type: extensionPermissions, Data: data}, err
}

func parsePermissions(exts []mls.Extension) (*PolicySet, error) {
	data, ok := find(exts, extensionPermissions)
	if !ok {
		return nil, fmt.Errorf("%w: no permissions", ErrGroupState)
	}
	var m mlscontents.GroupMutablePermissionsV1
	if err := unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%w: permissions: %w", ErrGroupState, err)
	}
	p := m.GetPolicies()
	var d policyDecoder
	s := &PolicySet{
		AddMember:         d.membership(p.GetAddMemberPolicy()),
		RemoveMember:      d.membership(p.GetRemoveMemberPolicy()),
		Metadata:          make(map[string]Policy, len(p.GetUpdateMetadataPolicy())),
		AddAdmin:          d.permissions(p.GetAddAdminPolicy()),
		RemoveAdmin:       d.permissions(p.GetRemoveAdminPolicy()),
		UpdatePermissions: d.permissions(p.GetUpdatePermissionsPolicy()),
	}
	for name, policy := range p.GetUpdateMetadataPolicy() {
		s.Metadata[name] = d.metadata(policy)
	}
	if d.failed {
		return nil, fmt.Errorf("%w: permissions: %w", ErrGroupState, errPolicy)
	}
	return s, nil
}
