package mls

import (
	"fmt"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Signer holds a member's private signature key, here or in some hardware.
// [NewSigner] makes one from key bytes. It must be safe for concurrent use.
type Signer interface {
	// Public is the public key as in [LeafNode.SignatureKey]; it must not be
	// changed.
	Public() []byte

	// Sign signs message with the scheme of the cipher suite: Ed25519, or ECDSA
	// with the suite's hash over message and the signature in DER (§5.1.2).
	Sign(message []byte) ([]byte, error)
}

// NewSigner reads a private signature key: an Ed25519 seed of 32 bytes, or an
// ECDSA scalar, big-endian. more are suites beyond those of this package. It returns
// [ErrUnsupportedCipherSuite], or another error if private is no key.
func NewSigner(id CipherSuite, private []byte, more ...*Suite) (Signer, error) {
	s, err := lookupSuite(id, more)
	if err != nil {
		return nil, fmt.Errorf("mls: signer: %w", err)
	}
	key, err := s.Signature().NewSigner(private)
	if err != nil {
		return nil, fmt.Errorf("mls: signer: %w", err)
	}
	return key, nil
}

// GenerateSignatureKey makes a private signature key for [NewSigner]. It returns
// [ErrUnsupportedCipherSuite].
func GenerateSignatureKey(id CipherSuite, more ...*Suite) ([]byte, error) {
	s, err := lookupSuite(id, more)
	if err != nil {
		return nil, fmt.Errorf("mls: signature key: %w", err)
	}
	key, err := s.Signature().Generate()
	if err != nil {
		return nil, fmt.Errorf("mls: signature key: %w", err)
	}
	return key, nil
}

// Client is what others see of a member: what its leaf nodes say (§7.2).
type Client struct {
	CipherSuite CipherSuite
	Signer      Signer
	Credential  Credential

	// Capabilities defaults to MLS 1.0, the cipher suite and the credential's
	// type. The types of Extensions, and of a key package's, have to be listed
	// but for those of RFC 9420.
	Capabilities Capabilities

	// Extensions are the extensions of the leaf.
	Extensions []Extension

	// GREASE puts values that mean nothing into the capabilities, the extensions of the
	// leaf and those of key packages, so that peers that choke on what they don't know
	// are found early (§13.5).
	GREASE bool
}

// leaf makes the fields of a leaf that is still without source, encryption key and
// signature.
func (c Client) leaf() leafFields {
	caps := c.Capabilities
	if caps.Versions == nil {
		caps.Versions = []ProtocolVersion{MLS10}
	}
	if caps.CipherSuites == nil {
		caps.CipherSuites = []CipherSuite{c.CipherSuite}
	}
	if caps.Credentials == nil {
		caps.Credentials = []CredentialType{c.Credential.Type}
	}
	if c.GREASE {
		caps = grease(caps)
		c.Extensions = append(slices.Clip(c.Extensions), greaseExtension(caps, 0))
	}
	return leafFields{
		signatureKey:   c.Signer.Public(),
		credential:     c.Credential,
		versions:       encodeUint16s(caps.Versions),
		suites:         encodeUint16s(caps.CipherSuites),
		extensionTypes: encodeUint16s(caps.Extensions),
		proposals:      encodeUint16s(caps.Proposals),
		credentials:    encodeUint16s(caps.Credentials),
		extensions:     appendExtensions(nil, c.Extensions),
	}
}

func encodeUint16s[T ~uint16](values []T) wire.Uint16s {
	return wire.NewReader(wire.AppendUint16s(nil, values)).Uint16s()
}

// sign completes the leaf and encodes it. groupID and leaf matter unless the source
// is a key package.
func (f *leafFields) sign(signer Signer, groupID []byte, leaf LeafIndex) (LeafNode, error) {
	b := f.appendUnsigned(nil)
	f.unsigned = b[:len(b):len(b)]
	sig, err := suite.SignWithLabel(signer, "LeafNodeTBS", f.unsigned, f.context(groupID, leaf))
	if err != nil {
		return LeafNode{}, fmt.Errorf("signing a leaf node: %w", err)
	}
	f.signature = sig
	return LeafNode{wire.AppendOpaque(f.unsigned, sig)}, nil
}
