package protocol

import (
	"fmt"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// The three messages for policies have the same shape, and the numbers of the third
// are its own.

var membershipRules = map[PolicyRule]mlscontents.MembershipPolicy_BasePolicy{
	Allow:            mlscontents.MembershipPolicy_BASE_POLICY_ALLOW,
	Deny:             mlscontents.MembershipPolicy_BASE_POLICY_DENY,
	AllowAdmins:      mlscontents.MembershipPolicy_BASE_POLICY_ALLOW_IF_ADMIN_OR_SUPER_ADMIN,
	AllowSuperAdmins: mlscontents.MembershipPolicy_BASE_POLICY_ALLOW_IF_SUPER_ADMIN,
}

var metadataRules = map[PolicyRule]mlscontents.MetadataPolicy_MetadataBasePolicy{
	Allow:            mlscontents.MetadataPolicy_METADATA_BASE_POLICY_ALLOW,
	Deny:             mlscontents.MetadataPolicy_METADATA_BASE_POLICY_DENY,
	AllowAdmins:      mlscontents.MetadataPolicy_METADATA_BASE_POLICY_ALLOW_IF_ADMIN,
	AllowSuperAdmins: mlscontents.MetadataPolicy_METADATA_BASE_POLICY_ALLOW_IF_SUPER_ADMIN,
}

var permissionsRules = map[PolicyRule]mlscontents.PermissionsUpdatePolicy_PermissionsBasePolicy{
	Deny:             mlscontents.PermissionsUpdatePolicy_PERMISSIONS_BASE_POLICY_DENY,
	AllowAdmins:      mlscontents.PermissionsUpdatePolicy_PERMISSIONS_BASE_POLICY_ALLOW_IF_ADMIN,
	AllowSuperAdmins: mlscontents.PermissionsUpdatePolicy_PERMISSIONS_BASE_POLICY_ALLOW_IF_SUPER_ADMIN,
}

// policyEncoder keeps the first error.
type policyEncoder struct{ err error }

// numberOf finds the number of a rule in one of the tables above.
func numberOf[N any](e *policyEncoder, rules map[PolicyRule]N, r PolicyRule) N {
	n, ok := rules[r]
	if !ok && e.err == nil {
		e.err = fmt.Errorf("protocol: %w: %v", errPolicy, r)
	}
	return n
}

// list encodes the parts of a combination.
func list[M any](e *policyEncoder, of []Policy, encode func(Policy) M) []M {
	if len(of) == 0 && e.err == nil {
		e.err = fmt.Errorf("protocol: %w: a combination of none", errPolicy)
	}
	out := make([]M, 0, len(of))
	for _, p := range of {
		out = append(out, encode(p))
	}
	return out
}

func (e *policyEncoder) membership(p Policy) *mlscontents.MembershipPolicy {
	switch p.Rule {
	case AllOf:
		return &mlscontents.MembershipPolicy{Kind: &mlscontents.MembershipPolicy_AndCondition_{
			AndCondition: &mlscontents.MembershipPolicy_AndCondition{Policies: list(e, p.Of, e.membership)}}}
	case AnyOf:
		return &mlscontents.MembershipPolicy{Kind: &mlscontents.MembershipPolicy_AnyCondition_{
			AnyCondition: &mlscontents.MembershipPolicy_AnyCondition{Policies: list(e, p.Of, e.membership)}}}
	}
	return &mlscontents.MembershipPolicy{Kind: &mlscontents.MembershipPolicy_Base{Base: numberOf(e, membershipRules, p.Rule)}}
}

func (e *policyEncoder) metadata(p Policy) *mlscontents.MetadataPolicy {
	switch p.Rule {
	case AllOf:
		return &mlscontents.MetadataPolicy{Kind: &mlscontents.MetadataPolicy_AndCondition_{
			AndCondition: &mlscontents.MetadataPolicy_AndCondition{Policies: list(e, p.Of, e.metadata)}}}
	case AnyOf:
		return &mlscontents.MetadataPolicy{Kind: &mlscontents.MetadataPolicy_AnyCondition_{
			AnyCondition: &mlscontents.MetadataPolicy_AnyCondition{Policies: list(e, p.Of, e.metadata)}}}
	}
	return &mlscontents.MetadataPolicy{Kind: &mlscontents.MetadataPolicy_Base{Base: numberOf(e, metadataRules, p.Rule)}}
}

func (e *policyEncoder) permissions(p Policy) *mlscontents.PermissionsUpdatePolicy {
	switch p.Rule {
	case AllOf:
		return &mlscontents.PermissionsUpdatePolicy{Kind: &mlscontents.PermissionsUpdatePolicy_AndCondition_{
			AndCondition: &mlscontents.PermissionsUpdatePolicy_AndCondition{Policies: list(e, p.Of, e.permissions)}}}
	case AnyOf:
		return &mlscontents.PermissionsUpdatePolicy{Kind: &mlscontents.PermissionsUpdatePolicy_AnyCondition_{
			AnyCondition: &mlscontents.PermissionsUpdatePolicy_AnyCondition{Policies: list(e, p.Of, e.permissions)}}}
	}
	return &mlscontents.PermissionsUpdatePolicy{Kind: &mlscontents.PermissionsUpdatePolicy_Base{Base: numberOf(e, permissionsRules, p.Rule)}}
}

// policyDecoder notes whether a policy had no meaning: no kind, an unknown number,
// a combination of none.
type policyDecoder struct{ failed bool }

func (d *policyDecoder) rule(r PolicyRule, known bool) Policy {
	d.failed = d.failed || !known
	return Policy{Rule: r}
}

func ruleOf[N comparable](rules map[PolicyRule]N, n N) (PolicyRule, bool) {
	for r, m := range rules {
		if m == n {
			return r, true
		}
	}
	return 0, false
}

func combination[M any](d *policyDecoder, r PolicyRule, policies []M, decode func(M) Policy) Policy {
	d.failed = d.failed || len(policies) == 0
	p := Policy{Rule: r}
	for _, m := range policies {
		p.Of = append(p.Of, decode(m))
	}
	return p
}

func (d *policyDecoder) membership(p *mlscontents.MembershipPolicy) Policy {
	switch k := p.GetKind().(type) {
	case *mlscontents.MembershipPolicy_Base:
		return d.rule(ruleOf(membershipRules, k.Base))
	case *mlscontents.MembershipPolicy_AndCondition_:
		return combination(d, AllOf, k.AndCondition.GetPolicies(), d.membership)
	case *mlscontents.MembershipPolicy_AnyCondition_:
		return combination(d, AnyOf, k.AnyCondition.GetPolicies(), d.membership)
	}
	return d.rule(0, false)
}

func (d *policyDecoder) metadata(p *mlscontents.MetadataPolicy) Policy {
	switch k := p.GetKind().(type) {
	case *mlscontents.MetadataPolicy_Base:
		return d.rule(ruleOf(metadataRules, k.Base))
	case *mlscontents.MetadataPolicy_AndCondition_:
		return combination(d, AllOf, k.AndCondition.GetPolicies(), d.metadata)
	case *mlscontents.MetadataPolicy_AnyCondition_:
		return combination(d, AnyOf, k.AnyCondition.GetPolicies(), d.metadata)
	}
	return d.rule(0, false)
}

func (d *policyDecoder) permissions(p *mlscontents.PermissionsUpdatePolicy) Policy {
	switch k := p.GetKind().(type) {
	case *mlscontents.PermissionsUpdatePolicy_Base:
		return d.rule(ruleOf(permissionsRules, k.Base))
	case *mlscontents.PermissionsUpdatePolicy_AndCondition_:
		return combination(d, AllOf, k.AndCondition.GetPolicies(), d.permissions)
	case *mlscontents.PermissionsUpdatePolicy_AnyCondition_:
		return combination(d, AnyOf, k.AnyCondition.GetPolicies(), d.permissions)
	}
	return d.rule(0, false)
}
