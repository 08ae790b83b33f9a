// Package suite holds the cipher suites of MLS (RFC 9420 §5.1, §17.1) and the
// labelled operations that the protocol builds on them (§5.1.2, §5.1.3, §5.2,
// §8, §9).
package suite

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// ID is the number of a cipher suite (RFC 9420 §17.1).
type ID uint16

// prefix comes before every label (§5.1.2, §8).
const prefix = "MLS 1.0 "

// Suite is one cipher suite. It is immutable and safe for concurrent use.
type Suite struct {
	id   ID
	hpke *hpke.Suite
	kdf  hpke.KDF
	sig  Signature
}

// New makes a suite from its parts; the KDF and the AEAD of the HPKE suite are
// those of MLS, too.
func New(id ID, h *hpke.Suite, sig Signature) *Suite {
	return &Suite{id: id, hpke: h, kdf: h.KDF(), sig: sig}
}

var known = map[ID]*Suite{
	1: New(1, hpke.New(hpke.X25519(), hpke.HKDFSHA256, hpke.AES128GCM), Ed25519()),
	2: New(2, hpke.New(hpke.P256(), hpke.HKDFSHA256, hpke.AES128GCM), ECDSAP256()),
	3: New(3, hpke.New(hpke.X25519(), hpke.HKDFSHA256, hpke.ChaCha20Poly1305), Ed25519()),
	5: New(5, hpke.New(hpke.P521(), hpke.HKDFSHA512, hpke.AES256GCM), ECDSAP521()),
	7: New(7, hpke.New(hpke.P384(), hpke.HKDFSHA384, hpke.AES256GCM), ECDSAP384()),
}

// ByID returns a suite that this package implements: 1, 2, 3, 5 and 7.
func ByID(id ID) (*Suite, bool) {
	s, ok := known[id]
	return s, ok
}

// ID is the suite's number.
func (s *Suite) ID() ID { return s.id }

// HPKE is the suite's HPKE, for the operations that MLS does without a label.
func (s *Suite) HPKE() *hpke.Suite { return s.hpke }

// Signature is the suite's signature scheme.
func (s *Suite) Signature() Signature { return s.sig }

// HashSize is the output size Nh of the hash in bytes, which is the length of
// every secret of the key schedule.
func (s *Suite) HashSize() int { return s.kdf.Size() }

// KeySize is the key size Nk of the AEAD in bytes.
func (s *Suite) KeySize() int { return s.hpke.AEAD().KeySize() }

// NonceSize is the nonce size Nn of the AEAD in bytes.
func (s *Suite) NonceSize() int { return hpke.NonceSize }

// AEAD returns the content cipher under key, which has [Suite.KeySize] bytes.
func (s *Suite) AEAD(key []byte) (cipher.AEAD, error) { return s.hpke.AEAD().New(key) }

// Hash appends the hash of the concatenation of parts to dst.
func (s *Suite) Hash(dst []byte, parts ...[]byte) []byte { return s.kdf.Hash(dst, parts...) }

// MAC returns the tag of the concatenation of parts under key.
func (s *Suite) MAC(key []byte, parts ...[]byte) []byte { return s.kdf.MAC(nil, key, parts...) }

// VerifyMAC compares tag with the one of parts in constant time; it is false
// for a tag of another length.
func (s *Suite) VerifyMAC(key, tag []byte, parts ...[]byte) bool {
	var stack [hpke.MaxKDFSize]byte
	return subtle.ConstantTimeCompare(s.kdf.MAC(stack[:0], key, parts...), tag) == 1
}

// Extract is KDF.Extract.
func (s *Suite) Extract(salt, ikm []byte) Secret {
	return s.kdf.Extract(make([]byte, 0, s.HashSize()), salt, ikm)
}

// ExpandWithLabel fills out (RFC 9420 §8). It panics when out is longer than
// 255 times [Suite.HashSize].
func (s *Suite) ExpandWithLabel(out, secret []byte, label string, context []byte) {
	var stack [64]byte
	b := wire.AppendUint16(stack[:0], uint16(len(out)))
	b = appendLabel(b, label)
	b = wire.AppendVarint(b, len(context))
	s.kdf.Expand(out, secret, b, context)
}

// DeriveSecret is ExpandWithLabel without a context to Nh bytes (§8).
func (s *Suite) DeriveSecret(secret []byte, label string) Secret {
	out := make([]byte, s.HashSize())
	s.ExpandWithLabel(out, secret, label, nil)
	return out
}

// DeriveTreeSecret fills out for a generation of a ratchet (§9).
func (s *Suite) DeriveTreeSecret(out, secret []byte, label string, generation uint32) {
	var context [4]byte
	binary.BigEndian.PutUint32(context[:], generation)
	s.ExpandWithLabel(out, secret, label, context[:])
}

// RefHash is the hash reference of value under one of the labels of §5.2,
// such as "MLS 1.0 KeyPackage Reference".
func (s *Suite) RefHash(label string, value []byte) []byte {
	var labelLen, valueLen [4]byte
	return s.kdf.Hash(nil,
		wire.AppendVarint(labelLen[:0], len(label)), []byte(label),
		wire.AppendVarint(valueLen[:0], len(value)), value)
}

// appendLabel appends the vector of the prefixed label.
func appendLabel(b []byte, label string) []byte {
	return append(append(wire.AppendVarint(b, len(prefix)+len(label)), prefix...), label...)
}

// Encryptor is EncryptWithLabel (§5.1.3) with its label and context fixed. It is
// safe for concurrent use.
type Encryptor struct {
	hpke *hpke.Suite
	info hpke.Info
}

// Encryptor takes in a label and a context, in one pass over the latter.
func (s *Suite) Encryptor(label string, context []byte) *Encryptor {
	return &Encryptor{s.hpke, s.encryptContext(label, context)}
}

// Encrypt encrypts plaintext to public and appends the ciphertext to dst. The
// error is [hpke.ErrInvalidKey] or one of the system's.
func (e *Encryptor) Encrypt(dst, public, plaintext []byte) (kemOutput, ciphertext []byte, err error) {
	return e.hpke.Seal(dst, public, e.info, nil, plaintext)
}

// DecryptWithLabel undoes [Encryptor.Encrypt]. key.Public may be nil, at the
// price of computing it. The error is [hpke.ErrOpen].
func (s *Suite) DecryptWithLabel(key hpke.KeyPair, label string, context, kemOutput, ciphertext []byte) (Secret, error) {
	return s.hpke.Open(nil, key, kemOutput, s.encryptContext(label, context), nil, ciphertext)
}

func (s *Suite) encryptContext(label string, context []byte) hpke.Info {
	var stack [64]byte
	return s.hpke.Info(wire.AppendVarint(appendLabel(stack[:0], label), len(context)), context)
}

// DeriveKeyPair makes the HPKE key pair that belongs to secret (§5.1.1).
func (s *Suite) DeriveKeyPair(secret []byte) (hpke.KeyPair, error) {
	return s.hpke.KEM().DeriveKeyPair(secret)
}

// GenerateKeyPair makes a fresh HPKE key pair.
func (s *Suite) GenerateKeyPair() (hpke.KeyPair, error) {
	return s.hpke.KEM().GenerateKeyPair()
}

// CheckPublicKey tells by [hpke.ErrInvalidKey] that public is no HPKE key.
func (s *Suite) CheckPublicKey(public []byte) error {
	return s.hpke.KEM().CheckPublicKey(public)
}
