package identity

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// Action is one change that a [SignatureRequest] asks for. It is made by
// [CreateInbox], [AddMember], [RevokeMember] and [ChangeRecovery].
type Action struct {
	action
	// authority signs to permit the action.
	authority Identifier
}

// CreateInbox makes a new inbox whose first member and recovery identifier is
// owner. Its id is [DeriveInboxID] of owner and nonce.
func CreateInbox(owner Identifier, nonce uint64) Action {
	return Action{action{op: opCreate, target: owner, nonce: nonce}, owner}
}

// AddMember adds member on behalf of existing, who is a member or the recovery
// identifier. Both sign.
func AddMember(existing, member Identifier) Action {
	return Action{action{op: opAdd, target: member}, existing}
}

// RevokeMember removes member and the installations that it added. The
// recovery identifier signs.
func RevokeMember(recovery, member Identifier) Action {
	return Action{action{op: opRevoke, target: member}, recovery}
}

// ChangeRecovery replaces the recovery identifier, who signs. The new one does
// not sign: whoever calls this makes sure that it exists.
func ChangeRecovery(recovery, next Identifier) Action {
	return Action{action{op: opChangeRecovery, target: next}, recovery}
}

// SignatureRequest is an identity update in the making: its text is fixed, its
// signatures come in one by one. It must not be used by several goroutines at
// once.
type SignatureRequest struct {
	inboxID     string
	timestampNS uint64
	actions     []Action
	text        *signingText
	// signatures has the signatures that there are, by signer. One signature
	// serves its signer in every action.
	signatures map[Identifier]*associations.Signature
}

// NewSignatureRequest starts an update of the inbox inboxID. The time at is part
// of the text to the second, and a log takes no text twice: requests with equal
// actions must be a second apart.
//
// Identifiers must be in canonical form, because an update with others is
// either refused later or, worse, has no effect or locks the owner out.
func NewSignatureRequest(inboxID string, at time.Time, actions ...Action) (*SignatureRequest, error) {
	if err := CheckInboxID(inboxID); err != nil {
		return nil, err
	}
	plain := make([]action, 0, len(actions))
	for i, a := range actions {
		if !a.valid() {
			return nil, fmt.Errorf("identity: action %d: %w", i, ErrNotIdentifier)
		}
		for _, id := range []Identifier{a.target, a.authority} {
			if err := id.validate(); err != nil {
				return nil, fmt.Errorf("identity: action %d: %q: %w", i, id, err)
			}
		}
		plain = append(plain, a.action)
	}
	timestampNS := uint64(at.UnixNano())
	return &SignatureRequest{
		inboxID:     inboxID,
		timestampNS: timestampNS,
		actions:     slices.Clone(actions),
		text:        newSigningText(signatureText(inboxID, timestampNS, plain)),
		signatures:  make(map[Identifier]*associations.Signature),
	}, nil
}

// Text returns the text that every signer signs.
func (r *SignatureRequest) Text() string { return r.text.text }

// Outstanding returns the signers who have not signed yet, in the order of the
// actions that need them, the existing member before the new one.
func (r *SignatureRequest) Outstanding() []Identifier {
	var ids []Identifier
	for _, a := range r.actions {
		for _, id := range a.signers() {
			if r.signatures[id] == nil && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func (a *Action) signers() []Identifier {
	if a.op == opAdd {
		return []Identifier{a.authority, a.target}
	}
	return []Identifier{a.authority}
}

// AddSignature verifies sig and adds it. It returns [ErrUnknownSigner] if the
// request does not wait for the one who made it, which includes that another
// text was signed. cv is needed for contract wallets only.
func (r *SignatureRequest) AddSignature(ctx context.Context, sig *associations.Signature, cv ContractVerifier) error {
	if err := checkSignature(sig); err != nil {
		return err
	}
	v, err := r.text.verify(ctx, sig, cv)
	if err != nil {
		return err
	}
	return r.add(v.signer, sig)
}

// AddContractSignature asks cv about the signature of a contract wallet at the
// newest block, and adds it with the number of that block.
func (r *SignatureRequest) AddContractSignature(ctx context.Context, accountID string, signature []byte, cv ContractVerifier) error {
	v, block, err := verifyContract(ctx, r.text, accountID, signature, nil, cv)
	if err != nil {
		return err
	}
	return r.add(v.signer, ContractSignature(accountID, block, signature))
}

func (r *SignatureRequest) add(signer Identifier, sig *associations.Signature) error {
	if !slices.Contains(r.Outstanding(), signer) {
		return ErrUnknownSigner
	}
	r.signatures[signer] = sig
	return nil
}

// Update returns the finished update, or [ErrSignaturesOutstanding]. It shares
// the signatures with r.
func (r *SignatureRequest) Update() (*associations.IdentityUpdate, error) {
	if n := len(r.Outstanding()); n > 0 {
		return nil, fmt.Errorf("%w: %d", ErrSignaturesOutstanding, n)
	}
	u := &associations.IdentityUpdate{InboxId: r.inboxID, ClientTimestampNs: r.timestampNS}
	for _, a := range r.actions {
		authority, target := r.signatures[a.authority], r.signatures[a.target]
		pa := &associations.IdentityAction{}
		switch a.op {
		case opCreate:
			pa.Kind = &associations.IdentityAction_CreateInbox{CreateInbox: &associations.CreateInbox{
				InitialIdentifier:          a.target.String(),
				InitialIdentifierKind:      a.target.ProtoKind(),
				Nonce:                      a.nonce,
				InitialIdentifierSignature: authority,
			}}
		case opAdd:
			pa.Kind = &associations.IdentityAction_Add{Add: &associations.AddAssociation{
				NewMemberIdentifier:     a.target.Proto(),
				ExistingMemberSignature: authority,
				NewMemberSignature:      target,
			}}
		case opRevoke:
			pa.Kind = &associations.IdentityAction_Revoke{Revoke: &associations.RevokeAssociation{
				MemberToRevoke:              a.target.Proto(),
				RecoveryIdentifierSignature: authority,
			}}
		case opChangeRecovery:
			pa.Kind = &associations.IdentityAction_ChangeRecoveryAddress{ChangeRecoveryAddress: &associations.ChangeRecoveryAddress{
				NewRecoveryIdentifier:               a.target.String(),
				NewRecoveryIdentifierKind:           a.target.ProtoKind(),
				ExistingRecoveryIdentifierSignature: authority,
			}}
		}
		u.Actions = append(u.Actions, pa)
	}
	return u, nil
}
