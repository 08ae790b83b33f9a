package identity

import (
	"context"
	"fmt"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

type op uint8

const (
	opCreate op = 1 + iota
	opAdd
	opRevoke
	opChangeRecovery
)

// action is one action of an update, without its signatures.
type action struct {
	op op
	// target is whom the action is about: the initial identifier, the new or
	// revoked member, the new recovery identifier.
	target Identifier
	// relyingParty belongs to a target that becomes member or recovery
	// identifier without a signature that shows it.
	relyingParty string
	nonce        uint64 // opCreate only
}

// decodeActions reads the actions of u. Strings are taken verbatim.
func decodeActions(u *associations.IdentityUpdate) ([]action, error) {
	for _, a := range u.GetActions() {
		if a.GetKind() == nil {
			return nil, errMissingField("action", "identity::associations::identity_action::Kind")
		}
	}
	actions := make([]action, 0, len(u.GetActions()))
	for _, a := range u.GetActions() {
		var act action
		var err error
		switch k := a.GetKind().(type) {
		case *associations.IdentityAction_CreateInbox:
			c := k.CreateInbox
			act = action{op: opCreate, relyingParty: c.GetRelyingParty(), nonce: c.GetNonce()}
			act.target, err = ParseIdentifier(c.GetInitialIdentifierKind(), c.GetInitialIdentifier())
		case *associations.IdentityAction_Add:
			act.op = opAdd
			act.target, err = IdentifierFromProto(k.Add.GetNewMemberIdentifier())
		case *associations.IdentityAction_Revoke:
			act.op = opRevoke
			if k.Revoke.GetMemberToRevoke() == nil {
				err = errMissingField("member_to_revoke", "identity::associations::MemberIdentifier")
			} else {
				act.target, err = IdentifierFromProto(k.Revoke.GetMemberToRevoke())
			}
		case *associations.IdentityAction_ChangeRecoveryAddress:
			c := k.ChangeRecoveryAddress
			act = action{op: opChangeRecovery, relyingParty: c.GetRelyingParty()}
			act.target, err = ParseIdentifier(c.GetNewRecoveryIdentifierKind(), c.GetNewRecoveryIdentifier())
		}
		if err != nil {
			return nil, err
		}
		if !act.hasRelyingParty() {
			act.relyingParty = ""
		}
		actions = append(actions, act)
	}
	return actions, nil
}

// signaturesOf returns the signatures of an action in the order in which they
// are verified: for an added member the new one's, then the existing one's.
func signaturesOf(a *associations.IdentityAction) []*associations.Signature {
	switch k := a.GetKind().(type) {
	case *associations.IdentityAction_CreateInbox:
		return []*associations.Signature{k.CreateInbox.GetInitialIdentifierSignature()}
	case *associations.IdentityAction_Add:
		return []*associations.Signature{k.Add.GetNewMemberSignature(), k.Add.GetExistingMemberSignature()}
	case *associations.IdentityAction_Revoke:
		return []*associations.Signature{k.Revoke.GetRecoveryIdentifierSignature()}
	case *associations.IdentityAction_ChangeRecoveryAddress:
		return []*associations.Signature{k.ChangeRecoveryAddress.GetExistingRecoveryIdentifierSignature()}
	}
	return nil
}

// Verify decodes u and verifies every signature in it. Rules that depend on the
// state of the inbox are [State.Apply]'s; a bad signature therefore hides a
// broken rule.
//
// Signatures of contract wallets are judged by cv, which may be nil if there is
// no access to a chain. An error that is [ErrVerifierUnavailable] says nothing
// about u; all others, but for those of ctx, are verdicts for good.
func Verify(ctx context.Context, u *associations.IdentityUpdate, cv ContractVerifier) (*VerifiedUpdate, error) {
	actions, err := decodeActions(u)
	if err != nil {
		return nil, err
	}
	for _, a := range u.GetActions() {
		for _, sig := range signaturesOf(a) {
			if err := checkSignature(sig); err != nil {
				return nil, err
			}
		}
	}
	v := &VerifiedUpdate{
		inboxID:     u.GetInboxId(),
		timestampNS: u.GetClientTimestampNs(),
		actions:     make([]verifiedAction, 0, len(actions)),
	}
	text := newSigningText(signatureText(v.inboxID, v.timestampNS, actions))
	// One signature may serve several actions: registration uses the wallet's
	// twice.
	indices := make(map[string]int)
	for i, a := range u.GetActions() {
		va := verifiedAction{action: actions[i]}
		for slot, sig := range signaturesOf(a) {
			key, err := signatureKey(sig)
			if err != nil {
				return nil, fmt.Errorf("identity: signature of action %d: %w", i, err)
			}
			index, ok := indices[key]
			if !ok {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				verified, err := text.verify(ctx, sig, cv)
				if err != nil {
					return nil, err
				}
				index = len(v.signatures)
				indices[key] = index
				v.signatures = append(v.signatures, verified)
			}
			va.signatures[slot] = index
		}
		v.actions = append(v.actions, va)
	}
	return v, nil
}

// CheckPublishable refuses what no client of good will publishes although the
// rules allow it: an inbox id that is none, installation keys of other than 32
// bytes, and a recovery identifier that could never sign. A node asks this of
// new updates only; logs from elsewhere may hold such things. The errors are
// [ErrInvalidInboxID], [ErrInvalidInstallationKey], [ErrInvalidAccountAddress]
// and [ErrInvalidPublicKey].
func CheckPublishable(u *associations.IdentityUpdate) error {
	if err := CheckInboxID(u.GetInboxId()); err != nil {
		return err
	}
	actions, err := decodeActions(u)
	if err != nil {
		return err
	}
	for _, a := range actions {
		if a.op == opChangeRecovery || a.target.kind == KindInstallation {
			if err := a.target.validate(); err != nil {
				return err
			}
		}
	}
	return nil
}
