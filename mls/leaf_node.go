package mls

import (
	"bytes"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/mls/internal/treemath"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// LeafIndex is the position of a member in the ratchet tree, from 0 (§4).
type LeafIndex = treemath.LeafIndex

// LeafNodeSource tells how a leaf node came into the tree (§7.2).
type LeafNodeSource uint8

// The leaf node sources (§7.2).
const (
	LeafNodeFromKeyPackage LeafNodeSource = 1
	LeafNodeFromUpdate     LeafNodeSource = 2
	LeafNodeFromCommit     LeafNodeSource = 3
)

// Lifetime is when a key package may be used (§7.2), in seconds since 1970.
type Lifetime struct {
	NotBefore, NotAfter uint64
}

// Contains tells whether NotBefore <= t < NotAfter.
func (l Lifetime) Contains(t time.Time) bool {
	sec := t.Unix()
	return sec >= 0 && l.NotBefore <= uint64(sec) && uint64(sec) < l.NotAfter
}

// Capabilities is what a client says it supports (§7.2). Unknown numbers are kept.
type Capabilities struct {
	Versions     []ProtocolVersion
	CipherSuites []CipherSuite
	Extensions   []ExtensionType
	Proposals    []ProposalType
	Credentials  []CredentialType
}

// LeafNode is one member's node of the ratchet tree (§7.2). It is immutable, and
// the slices that its methods return belong to the caller.
type LeafNode struct {
	raw []byte
}

// EncryptionKey is the HPKE public key of the leaf.
func (n LeafNode) EncryptionKey() []byte { return bytes.Clone(n.encryptionKey()) }

// SignatureKey is the public key that verifies what the member sends: 32 bytes
// for Ed25519, an uncompressed point for ECDSA.
func (n LeafNode) SignatureKey() []byte { return bytes.Clone(n.signatureKey()) }

// Credential is who the member claims to be.
func (n LeafNode) Credential() Credential {
	c := n.fields().credential
	return Credential{c.Type, bytes.Clone(c.Data)}
}

// Capabilities is what the member says it supports.
func (n LeafNode) Capabilities() Capabilities {
	f := n.fields()
	return Capabilities{
		Versions:     uint16s[ProtocolVersion](f.versions),
		CipherSuites: uint16s[CipherSuite](f.suites),
		Extensions:   uint16s[ExtensionType](f.extensionTypes),
		Proposals:    uint16s[ProposalType](f.proposals),
		Credentials:  uint16s[CredentialType](f.credentials),
	}
}

// Source tells how the leaf came into the tree.
func (n LeafNode) Source() LeafNodeSource { return n.fields().source }

// Lifetime is the lifetime of the key package that the leaf is from; false if it
// is from another source.
func (n LeafNode) Lifetime() (Lifetime, bool) {
	f := n.fields()
	return f.lifetime, f.source == LeafNodeFromKeyPackage
}

// Extensions are the leaf's extensions, in order.
func (n LeafNode) Extensions() []Extension {
	f := n.fields()
	return cloneExtensions(f.extensionList())
}

// MarshalBinary encodes the leaf as in the RFC. The error is always nil.
func (n LeafNode) MarshalBinary() ([]byte, error) { return bytes.Clone(n.raw), nil }

// leafFields is a decoded LeafNode; its slices alias the encoding.
type leafFields struct {
	encryptionKey []byte
	signatureKey  []byte
	credential    Credential

	versions, suites, extensionTypes, proposals, credentials wire.Uint16s

	source     LeafNodeSource
	lifetime   Lifetime // source key_package
	parentHash []byte   // source commit
	extensions []byte   // the vector with its prefix
	signature  []byte

	unsigned []byte // the encoding up to the signature
}

func readLeafNode(r *wire.Reader) (n LeafNode, f leafFields) {
	start := r.Offset()
	f.encryptionKey = r.Opaque()
	f.signatureKey = r.Opaque()
	f.credential = readCredential(r)
	f.versions = r.Uint16s()
	f.suites = r.Uint16s()
	f.extensionTypes = r.Uint16s()
	f.proposals = r.Uint16s()
	f.credentials = r.Uint16s()
	f.source = LeafNodeSource(r.Uint8())
	switch f.source {
	case LeafNodeFromKeyPackage:
		f.lifetime = Lifetime{r.Uint64(), r.Uint64()}
	case LeafNodeFromUpdate:
	case LeafNodeFromCommit:
		f.parentHash = r.Opaque()
	default:
		r.Fail(fmt.Errorf("leaf node source %d", f.source))
	}
	exts := r.Offset()
	r.Vector(func(r *wire.Reader) { readExtension(r) })
	f.extensions = r.Since(exts)
	f.unsigned = r.Since(start)
	f.signature = r.Opaque()
	return LeafNode{r.Since(start)}, f
}

// append encodes the leaf from its fields.
func (f *leafFields) append(b []byte) []byte {
	b = f.appendUnsigned(b)
	return wire.AppendOpaque(b, f.signature)
}

func (f *leafFields) appendUnsigned(b []byte) []byte {
	b = wire.AppendOpaque(b, f.encryptionKey)
	b = wire.AppendOpaque(b, f.signatureKey)
	b = f.credential.append(b)
	for _, list := range []wire.Uint16s{f.versions, f.suites, f.extensionTypes, f.proposals, f.credentials} {
		b = wire.AppendOpaque(b, list)
	}
	b = append(b, byte(f.source))
	switch f.source {
	case LeafNodeFromKeyPackage:
		b = wire.AppendUint64(b, f.lifetime.NotBefore)
		b = wire.AppendUint64(b, f.lifetime.NotAfter)
	case LeafNodeFromCommit:
		b = wire.AppendOpaque(b, f.parentHash)
	}
	return append(b, f.extensions...)
}

// context is what LeafNodeTBS (§7.2) has after the unsigned leaf: a leaf that is
// made for one place in one group is bound to it.
func (f *leafFields) context(groupID []byte, leaf LeafIndex) []byte {
	if f.source == LeafNodeFromKeyPackage {
		return nil
	}
	return wire.AppendUint32(wire.AppendOpaque(nil, groupID), uint32(leaf))
}

func (f *leafFields) extensionList() []Extension {
	return readExtensions(wire.NewReader(f.extensions))
}

// supportsExtension and its siblings tell what the capabilities cover; the types
// that every client has to support need not be listed (§7.2).
func (f *leafFields) supportsExtension(t ExtensionType) bool {
	return t.isDefault() || f.extensionTypes.Contains(uint16(t))
}

func (f *leafFields) supportsProposal(t ProposalType) bool {
	return t.isDefault() || f.proposals.Contains(uint16(t))
}

func (f *leafFields) supportsCredential(t CredentialType) bool {
	return f.credentials.Contains(uint16(t))
}

// fields decodes a leaf again, which readLeafNode has decoded once.
func (n LeafNode) fields() leafFields {
	_, f := readLeafNode(wire.NewReader(n.raw))
	return f
}

func (n LeafNode) encryptionKey() []byte { return wire.NewReader(n.raw).Opaque() }

func (n LeafNode) signatureKey() []byte {
	r := wire.NewReader(n.raw)
	r.Opaque()
	return r.Opaque()
}

func uint16s[T ~uint16](list wire.Uint16s) []T {
	out := make([]T, list.Len())
	for i := range out {
		out[i] = T(list.At(i))
	}
	return out
}
