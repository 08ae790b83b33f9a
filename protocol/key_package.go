package protocol

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// The lifetime of our key packages. The hour before allows for clocks that are slow.
const (
	keyPackageBackdate = time.Hour
	keyPackageLifetime = 84 * 24 * time.Hour
)

// KeyPackage is a key package of our own with all private keys that belong to it:
// those of MLS, and the one to which welcomes are wrapped. It is a last resort, to be
// used for any number of groups, and is deleted a day after another has replaced it.
// It prints redacted.
type KeyPackage struct {
	private *mls.PrivateKeyPackage
	wrapper hpke.KeyPair // X-Wing; empty for a package that doesn't offer it
}

// NewKeyPackage makes a key package of an installation. The errors are the signer's.
func NewKeyPackage(inboxID string, signer mls.Signer, now time.Time) (*KeyPackage, error) {
	wrapper, err := hpke.XWing(xwingKEM).GenerateKeyPair()
	if err != nil {
		return nil, fmt.Errorf("protocol: new key package: %w", err)
	}
	encryption, err := marshal(&mlscontents.WelcomeWrapperEncryption{PubKey: wrapper.Public, Algorithm: xwing})
	if err != nil {
		return nil, fmt.Errorf("protocol: new key package: %w", err)
	}
	pointers, err := marshal(&mlscontents.WelcomePointeeEncryptionAeadTypesExtension{
		SupportedAeadTypes: []mlscontents.WelcomePointeeEncryptionAeadType{pointeeAEAD},
	})
	if err != nil {
		return nil, fmt.Errorf("protocol: new key package: %w", err)
	}
	private, err := mls.NewKeyPackage(NewClient(inboxID, signer), mls.KeyPackageOptions{
		Lifetime: mls.Lifetime{
			NotBefore: uint64(now.Add(-keyPackageBackdate).Unix()),
			NotAfter:  uint64(now.Add(keyPackageLifetime).Unix()),
		},
		Extensions: []mls.Extension{
			{Type: mls.ExtensionLastResort},
			{Type: identity.ExtensionWelcomePointee, Data: pointers},
			{Type: identity.ExtensionWelcomeWrapper, Data: encryption},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("protocol: new key package: %w", err)
	}
	return &KeyPackage{private, wrapper}, nil
}

// Public returns the encoded key package, to be uploaded.
func (k *KeyPackage) Public() []byte {
	b, _ := k.private.KeyPackage().MarshalBinary() // never fails
	return b
}

// Private returns the part for [mls.Join].
func (k *KeyPackage) Private() *mls.PrivateKeyPackage { return k.private }

// WelcomeKeys returns the public keys that welcomes may name ([WelcomeKey]).
func (k *KeyPackage) WelcomeKeys() [][]byte {
	keys := [][]byte{k.private.KeyPackage().InitKey()}
	if k.wrapper.Public != nil {
		keys = append(keys, slices.Clone(k.wrapper.Public))
	}
	return keys
}

// Format implements [fmt.Formatter] and shows no key.
func (k *KeyPackage) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "[key package with private keys]")
}

// Unwrap opens a welcome that names one of our [KeyPackage.WelcomeKeys]. It returns
// either the welcome or a pointer to one. The errors are [ErrWelcome] and
// [ErrWelcomeKey]: a welcome with one of them will never open.
func (k *KeyPackage) Unwrap(m *mlsapi.WelcomeMessage) (*Welcome, *WelcomePointer, error) {
	switch v := m.GetVersion().(type) {
	case *mlsapi.WelcomeMessage_V1_:
		message, metadata, err := k.open(v.V1.GetWrapperAlgorithm(), v.V1.GetData(), v.V1.GetWelcomeMetadata())
		if err != nil {
			return nil, nil, err
		}
		// Metadata that can't be read is as good as none.
		var w mlsapi.WelcomeMetadata
		if err := unmarshal(metadata, &w); err != nil {
			return &Welcome{Message: message}, nil, nil
		}
		return &Welcome{message, w.GetMessageCursor()}, nil, nil
	case *mlsapi.WelcomeMessage_WelcomePointer_:
		if a := v.WelcomePointer.GetWrapperAlgorithm(); a != pointerXWing {
			return nil, nil, fmt.Errorf("protocol: %w: pointer wrapped by algorithm %d", ErrWelcome, a)
		}
		plain, _, err := k.open(xwing, v.WelcomePointer.GetWelcomePointer(), nil)
		if err != nil {
			return nil, nil, err
		}
		pointer, err := ParseWelcomePointer(plain)
		return nil, pointer, err
	}
	return nil, nil, fmt.Errorf("protocol: %w: unknown version", ErrWelcome)
}

// open opens what was wrapped by an algorithm. Numbers that are not known mean the
// first one.
func (k *KeyPackage) open(a mlscontents.WelcomeWrapperAlgorithm, data, metadata []byte) (first, second []byte, err error) {
	switch a {
	case symmetric:
		return nil, nil, fmt.Errorf("protocol: %w: shared, and to be opened by its pointer", ErrWelcome)
	case xwing:
		if k.wrapper.Private == nil {
			return nil, nil, fmt.Errorf("protocol: %w: no X-Wing key", ErrWelcomeKey)
		}
		return xwingWrapper().open(k.wrapper, data, metadata)
	}
	key := hpke.KeyPair{Private: k.private.InitKey(), Public: k.private.KeyPackage().InitKey()}
	defer key.Wipe()
	return curve25519Wrapper().open(key, data, metadata)
}

// keyPackageVersion is the first byte of a stored KeyPackage.
const keyPackageVersion = 1

// errKeyPackageEncoding is stored data that isn't a KeyPackage's.
var errKeyPackageEncoding = errors.New("protocol: malformed stored key package")

// MarshalBinary encodes the package with its private keys, to be stored: a version,
// then as vectors the key package, its init key, its leaf key and the X-Wing seed.
// It never fails.
func (k *KeyPackage) MarshalBinary() ([]byte, error) {
	b := []byte{keyPackageVersion}
	for _, part := range [][]byte{k.Public(), k.private.InitKey(), k.private.LeafKey(), slices.Clone(k.wrapper.Private)} {
		b = appendOpaque(b, part)
		clear(part)
	}
	return b, nil
}

// UnmarshalKeyPackage reads what [KeyPackage.MarshalBinary] wrote.
func UnmarshalKeyPackage(b []byte) (*KeyPackage, error) {
	if len(b) == 0 || b[0] != keyPackageVersion {
		return nil, errKeyPackageEncoding
	}
	var parts [4][]byte // as they were written
	rest := b[1:]
	for i := range parts {
		var err error
		if parts[i], rest, err = readOpaque(rest); err != nil {
			return nil, errKeyPackageEncoding
		}
	}
	if len(rest) != 0 {
		return nil, errKeyPackageEncoding
	}
	public, err := mls.UnmarshalKeyPackage(parts[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errKeyPackageEncoding, err)
	}
	k := new(KeyPackage)
	if k.private, err = mls.RestoreKeyPackage(public, parts[1], parts[2]); err != nil {
		return nil, fmt.Errorf("%w: %w", errKeyPackageEncoding, err)
	}
	if seed := parts[3]; len(seed) > 0 {
		k.wrapper.Private = slices.Clone(seed)
		if k.wrapper.Public, err = hpke.XWing(xwingKEM).PublicKey(seed); err != nil {
			return nil, fmt.Errorf("%w: %w", errKeyPackageEncoding, err)
		}
	}
	return k, nil
}

// Errors of key packages of others, beside those of [identity.VerifyKeyPackage].
var (
	// ErrForeignKeyPackage is a key package of another installation, or one that
	// claims to be of another inbox, than the one asked for.
	ErrForeignKeyPackage = errors.New("protocol: key package of another installation or inbox")

	// ErrCapabilities is a key package whose owner can't take part in XMTP groups.
	ErrCapabilities = errors.New("protocol: key package lacks what groups require")
)

// CheckKeyPackage decides whether a fetched key package can be used to add an
// installation. Beyond what the official client checks, it has to be of that very
// installation and inbox, and fit for groups and their welcomes.
func CheckKeyPackage(data []byte, of Actor, now time.Time) (*identity.KeyPackageInfo, error) {
	info, err := identity.VerifyKeyPackage(data, now)
	if err != nil {
		return nil, err
	}
	if info.InboxID != of.InboxID || identity.Installation(info.InstallationKey[:]) != of.Installation {
		return nil, ErrForeignKeyPackage
	}
	if _, err := info.WelcomeWrapper(); err != nil {
		return nil, err
	}
	listed := info.Package.LeafNode().Capabilities()
	if !slices.Contains(listed.Versions, mls.MLS10) || !slices.Contains(listed.CipherSuites, identity.CipherSuite) ||
		!slices.Contains(listed.Credentials, mls.CredentialBasic) {
		return nil, fmt.Errorf("%w: version, cipher suite or credential", ErrCapabilities)
	}
	for _, t := range requiredCapabilities.Extensions {
		if !isDefaultExtension(t) && !slices.Contains(listed.Extensions, t) {
			return nil, fmt.Errorf("%w: extension %#04x", ErrCapabilities, uint16(t))
		}
	}
	return info, nil
}

// TakesPointers reports whether an installation takes a welcome pointer, so that it
// can share a welcome with others ([ShareWelcome]).
func TakesPointers(info *identity.KeyPackageInfo) bool {
	wrapper, err := info.WelcomeWrapper()
	if err != nil || wrapper.Algorithm != xwing {
		return false
	}
	aeads, err := info.PointeeAEADs()
	return err == nil && slices.Contains(aeads, pointeeAEAD)
}
