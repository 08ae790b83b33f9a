package identity

import (
	"context"
	"crypto/sha512"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// signatureKind is how a signature was made.
type signatureKind uint8

const (
	signatureERC191 signatureKind = 1 + iota
	signatureERC1271
	signatureInstallation
	signatureLegacy
	signatureP256
)

func (k signatureKind) String() string {
	switch k {
	case signatureERC191:
		return "erc-191"
	case signatureERC1271:
		return "erc-1271"
	case signatureInstallation:
		return "installation-key"
	case signatureLegacy:
		return "legacy-delegated"
	case signatureP256:
		return "p256"
	}
	return "invalid"
}

// signer returns the kind of member that signs in this way; 0 if there is no
// such way. Since a signature of one kind can't come from a signer of another,
// comparing the signer with the expected member also compares the kinds.
func (k signatureKind) signer() Kind {
	switch k {
	case signatureERC191, signatureERC1271, signatureLegacy:
		return KindEthereum
	case signatureInstallation:
		return KindInstallation
	case signatureP256:
		return KindPasskey
	}
	return 0
}

// verifiedSignature is what is left of a signature once it has been verified.
type verifiedSignature struct {
	kind   signatureKind
	signer Identifier
	// relyingParty is the origin that a passkey reported.
	relyingParty string
	// raw is remembered against replay.
	raw string
	// contract tells that the signer is a smart contract wallet on chainID.
	contract bool
	chainID  uint64
}

// signingText is a text under verification. Its hashes are computed once, so
// that an update of many actions costs no more than its length for each form.
type signingText struct {
	text      string
	digest    func() [32]byte // ERC-191
	prehash   func() [64]byte // SHA-512
	challenge func() string   // WebAuthn
}

func newSigningText(text string) *signingText {
	return &signingText{
		text:      text,
		digest:    sync.OnceValue(func() [32]byte { return TextDigest(text) }),
		prehash:   sync.OnceValue(func() [64]byte { return sha512.Sum512([]byte(text)) }),
		challenge: sync.OnceValue(func() string { return encodeChallenge(text) }),
	}
}

// checkSignature reports what makes a signature impossible to decode, as
// opposed to wrong.
func checkSignature(sig *associations.Signature) error {
	if sig == nil {
		return errMissingField("signature", "identity::associations::Signature")
	}
	switch s := sig.GetSignature().(type) {
	case nil:
		return errMissingField("signature", "identity::associations::signature::Signature")
	case *associations.Signature_InstallationKey:
		return checkInstallationKey(s.InstallationKey.GetPublicKey())
	case *associations.Signature_Erc_6492:
		_, _, err := splitAccountID(s.Erc_6492.GetAccountId())
		return err
	case *associations.Signature_DelegatedErc_191:
		if s.DelegatedErc_191.GetSignature() == nil {
			return errMissingField("signature", "identity::associations::RecoverableEcdsaSignature")
		}
		if s.DelegatedErc_191.GetDelegatedKey() == nil {
			return errMissingField("delegated_key", "message_contents::SignedPublicKey")
		}
	}
	return nil
}

// verify requires a signature that passed checkSignature.
func (t *signingText) verify(ctx context.Context, sig *associations.Signature, cv ContractVerifier) (verifiedSignature, error) {
	switch s := sig.GetSignature().(type) {
	case *associations.Signature_Erc_191:
		signer, raw, err := recoverECDSA(t.digest(), s.Erc_191.GetBytes())
		if err != nil {
			return verifiedSignature{}, err
		}
		return verifiedSignature{kind: signatureERC191, signer: signer, raw: string(raw)}, nil
	case *associations.Signature_InstallationKey:
		key, raw := s.InstallationKey.GetPublicKey(), s.InstallationKey.GetBytes()
		if err := verifyPrehashed(key, t.prehash(), raw, updateContext); err != nil {
			return verifiedSignature{}, err
		}
		return verifiedSignature{kind: signatureInstallation, signer: Installation(key), raw: string(raw)}, nil
	case *associations.Signature_Passkey:
		return verifyPasskey(t, s.Passkey)
	case *associations.Signature_Erc_6492:
		// There is no telling an absent block number from 0: it is always given.
		block := s.Erc_6492.GetBlockNumber()
		v, _, err := verifyContract(ctx, t, s.Erc_6492.GetAccountId(), s.Erc_6492.GetSignature(), &block, cv)
		return v, err
	case *associations.Signature_DelegatedErc_191:
		return verifyLegacy(t, s.DelegatedErc_191)
	}
	return verifiedSignature{}, ErrSignatureInvalid
}

// signatureKey is equal for equal signatures.
func signatureKey(sig *associations.Signature) (string, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(sig)
	return string(b), err
}
