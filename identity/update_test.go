package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// TestVerifyDecodingErrors damages a good update in the ways that make it
// undecodable. The texts are those of the reference.
func TestVerifyDecodingErrors(t *testing.T) {
	good, _ := registration(t, testWallet(t, 1))
	const missing = "missing field %s of type xmtp_proto::generated::xmtp::%s during conversion from protobuf"
	for _, c := range []struct {
		name   string
		damage func(*associations.IdentityUpdate)
		text   string
		code   string
	}{
		{"nil action", func(u *associations.IdentityUpdate) { u.Actions[0] = nil },
			fmt.Sprintf(missing, "action", "identity::associations::identity_action::Kind"), "ConversionError::Missing"},
		{"no target of revocation", func(u *associations.IdentityUpdate) {
			u.Actions[0].Kind = &associations.IdentityAction_Revoke{Revoke: &associations.RevokeAssociation{}}
		}, fmt.Sprintf(missing, "member_to_revoke", "identity::associations::MemberIdentifier"), "ConversionError::Missing"},
		{"empty action", func(u *associations.IdentityUpdate) {
			u.Actions[0].Kind = &associations.IdentityAction_CreateInbox{}
		}, fmt.Sprintf(missing, "signature", "identity::associations::Signature"), "ConversionError::Missing"},
		{"recovery passkey not in hex", func(u *associations.IdentityUpdate) {
			u.Actions[0].Kind = &associations.IdentityAction_ChangeRecoveryAddress{ChangeRecoveryAddress: &associations.ChangeRecoveryAddress{
				NewRecoveryIdentifier: "0x0", NewRecoveryIdentifierKind: 2,
			}}
		}, "passkey is invalid: None", "ConversionError::InvalidPublicKey"},
		{"unfinished signature", func(u *associations.IdentityUpdate) {
			u.Actions[0].GetCreateInbox().InitialIdentifierSignature.Signature = &associations.Signature_DelegatedErc_191{}
		}, fmt.Sprintf(missing, "signature", "identity::associations::RecoverableEcdsaSignature"), "ConversionError::Missing"},
		{"no delegated key", func(u *associations.IdentityUpdate) {
			u.Actions[0].GetCreateInbox().InitialIdentifierSignature.Signature = &associations.Signature_DelegatedErc_191{
				DelegatedErc_191: &associations.LegacyDelegatedSignature{Signature: &associations.RecoverableEcdsaSignature{}},
			}
		}, fmt.Sprintf(missing, "delegated_key", "message_contents::SignedPublicKey"), "ConversionError::Missing"},
		{"empty installation key", func(u *associations.IdentityUpdate) {
			u.Actions[1].GetAdd().NewMemberSignature.Signature = &associations.Signature_InstallationKey{}
		}, "signature error: VerifyingKey must be 32 bytes in length", "ConversionError::EdSignature"},
	} {
		u := proto.Clone(good).(*associations.IdentityUpdate)
		c.damage(u)
		_, err := Verify(t.Context(), u, nil)
		if err == nil || err.Error() != c.text || ErrorCode(err) != c.code {
			t.Errorf("%s: got %v (%s), want %s (%s)", c.name, err, ErrorCode(err), c.text, c.code)
		}
	}
	if _, err := SignatureText(&associations.IdentityUpdate{Actions: []*associations.IdentityAction{{}}}); !errors.Is(err, ErrMissingField) {
		t.Errorf("text: %v", err)
	}
	// Nothing at all is an update without actions.
	v, err := Verify(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (*State)(nil).Apply(v); !errors.Is(err, ErrNotCreated) {
		t.Errorf("nil update: %v", err)
	}
}

func TestVerifyCancelled(t *testing.T) {
	u, _ := registration(t, testWallet(t, 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Verify(ctx, u, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestVerifyOnce: equal signatures are verified once, whatever the number of
// actions they serve.
func TestVerifyOnce(t *testing.T) {
	address, err := ParseAddress("0x" + strings.Repeat("cd", 20))
	if err != nil {
		t.Fatal(err)
	}
	sig := ContractSignature(AccountID(1, address), 5, []byte("sig"))
	u := &associations.IdentityUpdate{InboxId: "x"}
	for range 100 {
		u.Actions = append(u.Actions, &associations.IdentityAction{Kind: &associations.IdentityAction_Revoke{
			Revoke: &associations.RevokeAssociation{MemberToRevoke: address.Proto(), RecoveryIdentifierSignature: proto.Clone(sig).(*associations.Signature)},
		}})
	}
	u.Actions[99].GetRevoke().RecoveryIdentifierSignature.GetErc_6492().BlockNumber = 6
	cv := &chain{valid: true}
	v, err := Verify(t.Context(), u, cv)
	if err != nil || len(cv.asked) != 2 {
		t.Errorf("asked %d times, %v", len(cv.asked), err)
	}
	if v.InboxID() != "x" || v.TimestampNS() != 0 {
		t.Errorf("%q at %d", v.InboxID(), v.TimestampNS())
	}
}

func TestReplayEmpty(t *testing.T) {
	if _, err := Replay(t.Context(), nil, nil); !errors.Is(err, ErrMissingIdentityUpdate) || err.Error() != "Missing identity update" {
		t.Errorf("got %v", err)
	}
	if _, err := ReplayInbox(t.Context(), "x", nil, nil); !errors.Is(err, ErrMissingIdentityUpdate) {
		t.Errorf("got %v", err)
	}
}

func TestCheckPublishable(t *testing.T) {
	wallet := testWallet(t, 1).Identifier()
	inboxID := strings.Repeat("ab", 32)
	recovery := func(kind associations.IdentifierKind, s string) *associations.IdentityAction {
		return &associations.IdentityAction{Kind: &associations.IdentityAction_ChangeRecoveryAddress{
			ChangeRecoveryAddress: &associations.ChangeRecoveryAddress{NewRecoveryIdentifier: s, NewRecoveryIdentifierKind: kind},
		}}
	}
	revoke := func(id Identifier) *associations.IdentityAction {
		return &associations.IdentityAction{Kind: &associations.IdentityAction_Revoke{Revoke: &associations.RevokeAssociation{MemberToRevoke: id.Proto()}}}
	}
	for _, c := range []struct {
		name    string
		inboxID string
		action  *associations.IdentityAction
		want    error
	}{
		{"address", inboxID, recovery(1, wallet.String()), nil},
		{"address of unspecified kind", inboxID, recovery(0, wallet.String()), nil},
		{"mixed case", inboxID, recovery(1, "0x"+strings.Repeat("aB", 20)), ErrInvalidAccountAddress},
		{"no address", inboxID, recovery(1, "me"), ErrInvalidAccountAddress},
		{"no passkey", inboxID, recovery(2, "00"), ErrInvalidPublicKey},
		{"inbox id", inboxID[2:], recovery(1, wallet.String()), ErrInvalidInboxID},
		{"inbox id in upper case", strings.ToUpper(inboxID), recovery(1, wallet.String()), ErrInvalidInboxID},
		{"any 32 bytes", inboxID, revoke(Installation(make([]byte, 32))), nil},
		{"short key", inboxID, revoke(Installation(make([]byte, 31))), ErrInvalidInstallationKey},
		{"mixed case revoked", inboxID, revoke(Identifier{KindEthereum, "0xAB"}), nil},
		{"undecodable", inboxID, &associations.IdentityAction{}, ErrMissingField},
	} {
		u := &associations.IdentityUpdate{InboxId: c.inboxID, Actions: []*associations.IdentityAction{c.action}}
		if err := CheckPublishable(u); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestErrorTexts holds the texts against the specification, so that none
// changes by accident: clients and nodes match on them.
func TestErrorTexts(t *testing.T) {
	for _, c := range []struct {
		err        error
		code, text string
	}{
		{detailed(ErrGeneric, "%v tried to add self", ErrGeneric), "AssociationError::Generic", "Error creating association tried to add self"},
		{ErrMultipleCreate, "AssociationError::MultipleCreate", "Multiple create operations detected"},
		{ErrNotCreated, "AssociationError::NotCreated", "XID not yet created"},
		{errMemberNotAllowed(KindInstallation, KindInstallation), "AssociationError::MemberNotAllowed", "Member of kind installation not allowed to add installation"},
		{ErrMissingExistingMember, "AssociationError::MissingExistingMember", "Missing existing member"},
		{ErrLegacySignatureReuse, "AssociationError::LegacySignatureReuse", "Legacy key is only allowed to be associated using a legacy signature with nonce 0"},
		{ErrNewMemberIDSignatureMismatch, "AssociationError::NewMemberIdSignatureMismatch", "The new member identifier does not match the signer"},
		{ErrWrongInboxID, "AssociationError::WrongInboxId", "Wrong inbox_id specified on association"},
		{errSignatureNotAllowed(KindEthereum, signatureLegacy), "AssociationError::SignatureNotAllowed", `Signature not allowed for role "ethereum" "legacy-delegated"`},
		{ErrReplay, "AssociationError::Replay", "Replay detected"},
		{ErrMissingIdentityUpdate, "AssociationError::MissingIdentityUpdate", "Missing identity update"},
		{errChainIDMismatch(1, 8453), "AssociationError::ChainIdMismatch", "Wrong chain id. Initially added with 1 but now signing from 8453"},
		{ErrInvalidAccountAddress, "AssociationError::InvalidAccountAddress", "Invalid account address: Must be 42 hex characters, starting with '0x'."},
		{ErrNotIdentifier, "AssociationError::NotIdentifier", "Installation Keys are not a public identifier"},
		{ErrSignatureInvalid, "SignatureError::Invalid", "Signature validation failed"},
		{ErrInvalidClientData, "SignatureError::InvalidClientData", "client_data is invalid"},
		{ErrInvalidPublicKey, "SignatureError::InvalidPublicKey", "Invalid public key"},
		{ErrSignatureLength, "SignatureError::TryFromSliceError", "could not convert slice to array"},
		{ErrInvalidChainID, "AccountIdError::InvalidChainId", "Chain ID is not a valid u64"},
		{ErrNotEIP155, "AccountIdError::MissingEip155Prefix", "Chain ID is not prefixed with eip155:"},
	} {
		if c.err.Error() != c.text || ErrorCode(c.err) != c.code || ErrorCode(fmt.Errorf("wrapped: %w", c.err)) != c.code {
			t.Errorf("got %q (%s), want %q (%s)", c.err, ErrorCode(c.err), c.text, c.code)
		}
	}
	if ErrorCode(nil) != "" || ErrorCode(errors.New("other")) != "" {
		t.Error("codes of other errors")
	}
	for k, want := range map[signatureKind]string{
		signatureERC191: "erc-191", signatureERC1271: "erc-1271", signatureInstallation: "installation-key",
		signatureLegacy: "legacy-delegated", signatureP256: "p256", 0: "invalid",
	} {
		if k.String() != want {
			t.Errorf("kind %d is %s, want %s", k, k, want)
		}
	}
}
