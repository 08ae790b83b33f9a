package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha512"

	"filippo.io/edwards25519"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// An installation key signs in two domains, told apart by the context of
// Ed25519ph (RFC 8032 §5.1). MLS signs with the same key in a third, plain
// Ed25519.
const (
	updateContext = "IDENTITY UPDATE SIGNATURE"
	publicContext = "PUBLIC SIGNATURE CONTEXT"
)

// SignInstallation signs the text of an identity update with an installation
// key.
func SignInstallation(key ed25519.PrivateKey, text string) *associations.Signature {
	return &associations.Signature{Signature: &associations.Signature_InstallationKey{
		InstallationKey: &associations.RecoverableEd25519Signature{
			Bytes:     signPrehashed(key, text, updateContext),
			PublicKey: []byte(key.Public().(ed25519.PublicKey)),
		},
	}}
}

// SignPublic signs anything of an application's with an installation key. Such
// a signature, 64 bytes, is of no use in an identity update.
func SignPublic(key ed25519.PrivateKey, text string) []byte {
	return signPrehashed(key, text, publicContext)
}

// VerifyPublic verifies a signature of [SignPublic]. The errors are
// [ErrEd25519] and [ErrSignatureLength].
func VerifyPublic(key ed25519.PublicKey, text string, signature []byte) error {
	if checkInstallationKey(key) != nil {
		return ErrEd25519
	}
	return verifyPrehashed(key, sha512.Sum512([]byte(text)), signature, publicContext)
}

func signPrehashed(key ed25519.PrivateKey, text, context string) []byte {
	digest := sha512.Sum512([]byte(text))
	sig, err := key.Sign(nil, digest[:], &ed25519.Options{Hash: crypto.SHA512, Context: context})
	if err != nil {
		// Sign fails for digests and contexts of wrong length only.
		panic("identity: " + err.Error())
	}
	return sig
}

// verifyPrehashed requires a key that passed checkInstallationKey.
func verifyPrehashed(key ed25519.PublicKey, digest [64]byte, signature []byte, context string) error {
	if len(signature) != ed25519.SignatureSize {
		return ErrSignatureLength
	}
	err := ed25519.VerifyWithOptions(key, digest[:], signature, &ed25519.Options{Hash: crypto.SHA512, Context: context})
	if err == nil {
		return nil
	}
	if _, err := edwards25519.NewScalar().SetCanonicalBytes(signature[32:]); err != nil {
		return detailed(ErrEd25519, "%v: Cannot use scalar with high-bit set", ErrEd25519)
	}
	return detailed(ErrEd25519, "%v: Verification equation was not satisfied", ErrEd25519)
}

// checkInstallationKey reports whether key is the encoding of a point. That
// comes before any verification: an update with another key can't be decoded.
func checkInstallationKey(key []byte) error {
	if len(key) != ed25519.PublicKeySize {
		return detailed(ErrInvalidInstallationKey, "%v: VerifyingKey must be 32 bytes in length", ErrInvalidInstallationKey)
	}
	if _, err := new(edwards25519.Point).SetBytes(key); err != nil {
		return detailed(ErrInvalidInstallationKey, "%v: Cannot decompress Edwards point", ErrInvalidInstallationKey)
	}
	return nil
}
