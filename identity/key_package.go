package identity

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/credential"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// The cipher suite of all groups on the network, and XMTP's key package
// extensions.
const (
	CipherSuite                               = mls.X25519ChaChaSHA256Ed25519
	ExtensionWelcomeWrapper mls.ExtensionType = 0xff03
	ExtensionWelcomePointee mls.ExtensionType = 0xff04
)

// Credential returns the MLS credential by which an installation claims to
// belong to an inbox. It is a claim: whether the inbox has the installation is
// in its [State].
func Credential(inboxID string) mls.Credential {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendString(b, inboxID)
	return mls.BasicCredential(b)
}

// ParseCredential returns the inbox id that c claims, which is any string. The
// errors are [ErrCredentialType] and [ErrCredentialEncoding].
func ParseCredential(c mls.Credential) (inboxID string, err error) {
	if c.Type != mls.CredentialBasic {
		return "", ErrCredentialType
	}
	var m credential.MlsCredential
	if err := proto.Unmarshal(c.Data, &m); err != nil {
		return "", ErrCredentialEncoding
	}
	return m.GetInboxId(), nil
}

// KeyPackageInfo is a verified key package of an installation.
type KeyPackageInfo struct {
	// Package is the key package itself.
	Package *mls.KeyPackage
	// InboxID is what the credential claims. Nobody has checked it.
	InboxID string
	// InstallationKey is the Ed25519 public key of the leaf. The package
	// proves that its owner made it.
	InstallationKey [32]byte
	// Lifetime contains the time of verification.
	Lifetime mls.Lifetime
}

// VerifyKeyPackage decodes a bare key package and checks everything that can be
// known without the inbox: encoding, signatures, capabilities, and that now is
// in its lifetime. The errors are [ErrKeyPackageEncoding],
// [ErrKeyPackageInvalid], [ErrCredentialType] and [ErrCredentialEncoding].
func VerifyKeyPackage(tls []byte, now time.Time) (*KeyPackageInfo, error) {
	kp, err := mls.UnmarshalKeyPackage(tls)
	if err != nil {
		return nil, keyPackageError(ErrKeyPackageEncoding, err)
	}
	// The network has one suite; with others, keys are of other lengths.
	if s := kp.CipherSuite(); s != CipherSuite {
		return nil, keyPackageError(ErrKeyPackageInvalid, fmt.Errorf("%w: %d", mls.ErrUnsupportedCipherSuite, s))
	}
	if err := kp.Verify(now); err != nil {
		return nil, keyPackageError(ErrKeyPackageInvalid, err)
	}
	inboxID, err := ParseCredential(kp.Credential())
	if err != nil {
		return nil, err
	}
	info := &KeyPackageInfo{Package: kp, InboxID: inboxID, Lifetime: kp.Lifetime()}
	copy(info.InstallationKey[:], kp.SignatureKey())
	return info, nil
}

// keyPackageTexts are the reference's words for errors of package mls.
var keyPackageTexts = []struct {
	err  error
	text string
}{
	{mls.ErrTrailingData, "TrailingData"},
	{mls.ErrUnexpectedEnd, "EndOfStream"},
	{mls.ErrMalformed, "InvalidInput"},
	{mls.ErrUnsupportedCipherSuite, "The ciphersuite is not supported."},
	{mls.ErrLeafNodeSource, "Invalid LeafNode source type"},
	{mls.ErrLeafNodeSignature, "The leaf node signature is not valid."},
	{mls.ErrUnsupportedVersion, "The protocol version is not valid."},
	{mls.ErrInitKey, "The init key and the encryption key are equal."},
	{mls.ErrKeyPackageSignature, "The key package signature is not valid."},
	{mls.ErrDuplicateExtension, "A key package extension occurs twice."},
	{mls.ErrExtensionNotListed, "A key package extension is not supported in the leaf's capabilities."},
	{mls.ErrLifetime, "The lifetime of the leaf node is not valid."},
}

func keyPackageError(base *Error, cause error) error {
	text := cause.Error()
	for _, t := range keyPackageTexts {
		if errors.Is(cause, t.err) {
			text = t.text
			break
		}
	}
	e := detailed(base, "%v: %s", base, text)
	e.cause = cause
	return e
}

// WelcomeWrapper says how Welcome messages to an installation are encrypted
// once more, so that the node can't tell what they are.
type WelcomeWrapper struct {
	// Algorithm is CURVE25519 or XWING_MLKEM_768_DRAFT_6.
	Algorithm mlscontents.WelcomeWrapperAlgorithm
	// PublicKey has 32 or 1216 bytes.
	PublicKey []byte
}

// WelcomeWrapper returns what the package asks for: X25519 to its init key if it
// asks for nothing. The error is [ErrWelcomeExtension].
func (i *KeyPackageInfo) WelcomeWrapper() (WelcomeWrapper, error) {
	w := WelcomeWrapper{mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_CURVE25519, i.Package.InitKey()}
	if data, ok := i.Package.Extension(ExtensionWelcomeWrapper); ok {
		var m mlscontents.WelcomeWrapperEncryption
		if err := proto.Unmarshal(data, &m); err != nil {
			return WelcomeWrapper{}, fmt.Errorf("%w: %#04x: %w", ErrWelcomeExtension, ExtensionWelcomeWrapper, err)
		}
		w.PublicKey = m.GetPubKey()
		switch a := m.GetAlgorithm(); a {
		case mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_XWING_MLKEM_768_DRAFT_6:
			w.Algorithm = a
		case mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_SYMMETRIC_KEY:
			return WelcomeWrapper{}, fmt.Errorf("%w: %#04x: algorithm %v", ErrWelcomeExtension, ExtensionWelcomeWrapper, a)
		}
	}
	size := 32
	if w.Algorithm == mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_XWING_MLKEM_768_DRAFT_6 {
		size = 1216
	}
	if len(w.PublicKey) != size {
		return WelcomeWrapper{}, fmt.Errorf("%w: %#04x: public key of %d bytes, want %d", ErrWelcomeExtension, ExtensionWelcomeWrapper, len(w.PublicKey), size)
	}
	return w, nil
}

// PointeeAEADs returns the AEADs with which the installation understands
// welcome pointers; none if it doesn't. The error is [ErrWelcomeExtension].
func (i *KeyPackageInfo) PointeeAEADs() ([]mlscontents.WelcomePointeeEncryptionAeadType, error) {
	data, _ := i.Package.Extension(ExtensionWelcomePointee)
	var m mlscontents.WelcomePointeeEncryptionAeadTypesExtension
	if err := proto.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%w: %#04x: %w", ErrWelcomeExtension, ExtensionWelcomePointee, err)
	}
	return m.GetSupportedAeadTypes(), nil
}
