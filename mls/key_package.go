package mls

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// KeyPackage is what a client publishes so that others can add it to groups
// (§10). It is immutable, and the slices that its methods return belong to the
// caller.
type KeyPackage struct {
	raw        []byte
	version    ProtocolVersion
	suite      CipherSuite
	initKey    []byte
	leaf       LeafNode
	extensions []Extension
	signature  []byte
	unsigned   []byte // the encoding up to the signature: KeyPackageTBS
	suites     []*Suite

	// verified saves the second check of the signatures when a package that the
	// caller has verified is added to a group.
	verified atomic.Bool
}

// UnmarshalKeyPackage decodes a KeyPackage that isn't wrapped in an MLSMessage
// and copies what it keeps. It checks nothing but the encoding: see
// [KeyPackage.Verify]. more are suites beyond those of this package, for what is done
// with the package. The error is [ErrMalformed], with [ErrTrailingData] or
// [ErrUnexpectedEnd] where they apply.
func UnmarshalKeyPackage(data []byte, more ...*Suite) (*KeyPackage, error) {
	r := wire.NewReader(bytes.Clone(data))
	kp := readKeyPackage(r)
	if err := r.Done(); err != nil {
		return nil, malformed("KeyPackage", err)
	}
	kp.suites = more
	return kp, nil
}

func readKeyPackage(r *wire.Reader) *KeyPackage {
	start := r.Offset()
	kp := &KeyPackage{
		version: ProtocolVersion(r.Uint16()),
		suite:   CipherSuite(r.Uint16()),
		initKey: r.Opaque(),
	}
	kp.leaf, _ = readLeafNode(r)
	kp.extensions = readExtensions(r)
	kp.unsigned = r.Since(start)
	kp.signature = r.Opaque()
	kp.raw = r.Since(start)
	return kp
}

// appendUnsigned encodes KeyPackageTBS from the fields (§10).
func (kp *KeyPackage) appendUnsigned(b []byte) []byte {
	b = wire.AppendUint16(b, uint16(kp.version))
	b = wire.AppendUint16(b, uint16(kp.suite))
	b = wire.AppendOpaque(b, kp.initKey)
	b = append(b, kp.leaf.raw...)
	return appendExtensions(b, kp.extensions)
}

// MarshalBinary encodes the package as in the RFC, without MLSMessage around it.
// The error is always nil.
func (kp *KeyPackage) MarshalBinary() ([]byte, error) { return bytes.Clone(kp.raw), nil }

// KeyPackageOptions are the parts of a key package that have defaults.
type KeyPackageOptions struct {
	// Lifetime defaults to an hour ago until 84 days from now.
	Lifetime Lifetime

	// Extensions of the package, not of its leaf.
	Extensions []Extension

	// Suites are cipher suites beyond those of this package.
	Suites []*Suite
}

// PrivateKeyPackage is a key package of our own with its private keys. It prints
// redacted.
type PrivateKeyPackage struct {
	public  *KeyPackage
	initKey suite.Secret
	leafKey suite.Secret
}

// NewKeyPackage makes a key package for c (§10). It returns
// [ErrUnsupportedCipherSuite], [ErrDuplicateExtension], [ErrExtensionNotListed],
// or the signer's error.
func NewKeyPackage(c Client, opts KeyPackageOptions) (*PrivateKeyPackage, error) {
	s, err := lookupSuite(c.CipherSuite, opts.Suites)
	if err != nil {
		return nil, fmt.Errorf("mls: new key package: %w", err)
	}
	if opts.Lifetime == (Lifetime{}) {
		now := time.Now()
		opts.Lifetime = Lifetime{uint64(now.Add(-time.Hour).Unix()), uint64(now.Add(84 * 24 * time.Hour).Unix())}
	}
	initKey, err := s.GenerateKeyPair()
	if err != nil {
		return nil, fmt.Errorf("mls: new key package: %w", err)
	}
	leafKey, err := s.GenerateKeyPair()
	if err != nil {
		return nil, fmt.Errorf("mls: new key package: %w", err)
	}
	f := c.leaf()
	f.encryptionKey = leafKey.Public
	f.source = LeafNodeFromKeyPackage
	f.lifetime = opts.Lifetime
	leaf, err := f.sign(c.Signer, nil, 0)
	if err != nil {
		return nil, fmt.Errorf("mls: new key package: %w", err)
	}
	if c.GREASE {
		opts.Extensions = append(slices.Clip(opts.Extensions), greaseExtension(leaf.Capabilities(), 1))
	}
	kp := &KeyPackage{version: MLS10, suite: c.CipherSuite, initKey: initKey.Public, leaf: leaf, extensions: opts.Extensions}
	unsigned := kp.appendUnsigned(nil)
	sig, err := suite.SignWithLabel(c.Signer, "KeyPackageTBS", unsigned)
	if err != nil {
		return nil, fmt.Errorf("mls: new key package: %w", err)
	}
	kp, err = UnmarshalKeyPackage(wire.AppendOpaque(unsigned, sig), opts.Suites...)
	if err != nil {
		return nil, err
	}
	if err := kp.verify(s); err != nil {
		return nil, fmt.Errorf("mls: new key package: %w", err)
	}
	return &PrivateKeyPackage{kp, initKey.Private, leafKey.Private}, nil
}

// KeyPackage is the public part, to be published.
func (p *PrivateKeyPackage) KeyPackage() *KeyPackage { return p.public }

// Format implements [fmt.Formatter] and shows no key.
func (p *PrivateKeyPackage) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "[private key package]")
}

// InitKey is the private key of [KeyPackage.InitKey].
func (p *PrivateKeyPackage) InitKey() []byte { return bytes.Clone(p.initKey) }

// LeafKey is the private key of the leaf's encryption key.
func (p *PrivateKeyPackage) LeafKey() []byte { return bytes.Clone(p.leafKey) }

// RestoreKeyPackage puts a key package of our own together again from what was
// stored of it. It returns [ErrUnsupportedCipherSuite], or [ErrState] if the
// private keys don't belong to the package.
func RestoreKeyPackage(kp *KeyPackage, initKey, leafKey []byte) (*PrivateKeyPackage, error) {
	p := &PrivateKeyPackage{kp, bytes.Clone(initKey), bytes.Clone(leafKey)}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("mls: restore key package: %w", err)
	}
	return p, nil
}

// check tells whether the private keys belong to the package.
func (p *PrivateKeyPackage) check() error {
	s, err := lookupSuite(p.public.suite, p.public.suites)
	if err != nil {
		return err
	}
	for _, pair := range []hpke.KeyPair{
		{Private: p.initKey, Public: p.public.initKey},
		{Private: p.leafKey, Public: p.public.leaf.encryptionKey()},
	} {
		public, err := s.HPKE().KEM().PublicKey(pair.Private)
		if err != nil || !bytes.Equal(public, pair.Public) {
			return fmt.Errorf("%w: private key of another public key", ErrState)
		}
	}
	return nil
}

// Version is the protocol version.
func (kp *KeyPackage) Version() ProtocolVersion { return kp.version }

// CipherSuite is the suite of the groups that the package is for.
func (kp *KeyPackage) CipherSuite() CipherSuite { return kp.suite }

// InitKey is the HPKE public key that Welcomes are encrypted to.
func (kp *KeyPackage) InitKey() []byte { return bytes.Clone(kp.initKey) }

// LeafNode is the leaf that the client gets in the groups it is added to.
func (kp *KeyPackage) LeafNode() LeafNode { return kp.leaf }

// SignatureKey is the signature key of the leaf.
func (kp *KeyPackage) SignatureKey() []byte { return kp.leaf.SignatureKey() }

// Credential is the credential of the leaf.
func (kp *KeyPackage) Credential() Credential { return kp.leaf.Credential() }

// Lifetime is the lifetime of the leaf; the zero Lifetime, which contains no
// time, if the leaf is not from a key package.
func (kp *KeyPackage) Lifetime() Lifetime {
	l, _ := kp.leaf.Lifetime()
	return l
}

// Extensions are the extensions of the package (not those of its leaf), in order.
func (kp *KeyPackage) Extensions() []Extension { return cloneExtensions(kp.extensions) }

// Extension is the body of the package's extension of type t, if it has one.
func (kp *KeyPackage) Extension(t ExtensionType) ([]byte, bool) {
	data, ok := extensionData(kp.extensions, t)
	return bytes.Clone(data), ok
}

// Ref is the KeyPackageRef (§5.2): the hash by which a Welcome names the package.
// It returns [ErrUnsupportedCipherSuite] if the suite is not implemented.
func (kp *KeyPackage) Ref() ([]byte, error) {
	s, err := lookupSuite(kp.suite, kp.suites)
	if err != nil {
		return nil, err
	}
	return s.RefHash("MLS 1.0 KeyPackage Reference", kp.raw), nil
}

// Verify checks the package as one does before adding its owner to a group
// (§10.1, §7.3), in this order: cipher suite ([ErrUnsupportedCipherSuite]), leaf
// source ([ErrLeafNodeSource]), leaf signature ([ErrLeafNodeSignature]), version
// ([ErrUnsupportedVersion]), init key ([ErrInitKey]), package signature
// ([ErrKeyPackageSignature]), extensions ([ErrDuplicateExtension],
// [ErrExtensionNotListed]) and lifetime at the given time ([ErrLifetime]). It
// doesn't judge the credential.
func (kp *KeyPackage) Verify(at time.Time) error {
	s, err := lookupSuite(kp.suite, kp.suites)
	if err == nil {
		err = kp.verify(s)
	}
	if err != nil {
		return fmt.Errorf("mls: key package: %w", err)
	}
	if l := kp.Lifetime(); !l.Contains(at) {
		return fmt.Errorf("mls: key package: %w: %d not in [%d, %d)", ErrLifetime, at.Unix(), l.NotBefore, l.NotAfter)
	}
	return nil
}

// verify is Verify without the lifetime, which members don't hold against each
// other (§7.3).
func (kp *KeyPackage) verify(s *suite.Suite) error {
	if kp.verified.Load() {
		return nil
	}
	leaf := kp.leaf.fields()
	if leaf.source != LeafNodeFromKeyPackage {
		return fmt.Errorf("%w: %d", ErrLeafNodeSource, leaf.source)
	}
	if !s.VerifyWithLabel(leaf.signatureKey, "LeafNodeTBS", leaf.signature, leaf.unsigned) {
		return ErrLeafNodeSignature
	}
	if kp.version != MLS10 {
		return fmt.Errorf("%w: %d", ErrUnsupportedVersion, kp.version)
	}
	if bytes.Equal(kp.initKey, leaf.encryptionKey) {
		return ErrInitKey
	}
	if !s.VerifyWithLabel(leaf.signatureKey, "KeyPackageTBS", kp.signature, kp.unsigned) {
		return ErrKeyPackageSignature
	}
	if err := leaf.checkExtensions(); err != nil {
		return err
	}
	if err := checkExtensionsUnique(kp.extensions); err != nil {
		return err
	}
	for _, e := range kp.extensions {
		if !leaf.supportsExtension(e.Type) {
			return fmt.Errorf("%w: %#04x", ErrExtensionNotListed, uint16(e.Type))
		}
	}
	kp.verified.Store(true)
	return nil
}
