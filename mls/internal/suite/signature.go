package suite

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// ErrInvalidSignatureKey tells that bytes are no private key of the suite's
// signature scheme.
var ErrInvalidSignatureKey = errors.New("invalid signature private key")

// Signature is a signature scheme. Public and private keys are the bytes that
// RFC 9420 §5.1.1 and its test vectors use.
type Signature interface {
	// Generate makes a fresh private key.
	Generate() (Secret, error)

	// NewSigner reads a private key. The error is [ErrInvalidSignatureKey].
	NewSigner(private []byte) (Signer, error)

	// Verify reports whether sig is a signature of message by public; keys
	// and signatures that do not parse are refused the same way.
	Verify(public, message, sig []byte) bool
}

// Signer holds a private signature key, ready for use. It is safe for
// concurrent use.
type Signer interface {
	// Public returns the public key, which must not be changed.
	Public() []byte

	// Sign returns the signature of message.
	Sign(message []byte) ([]byte, error)
}

// SignWithLabel signs the concatenation of content (RFC 9420 §5.1.2).
func SignWithLabel(key Signer, label string, content ...[]byte) ([]byte, error) {
	b := newSignContent(label, content)
	defer b.free()
	return key.Sign(*b)
}

// VerifyWithLabel verifies what [SignWithLabel] made.
func (s *Suite) VerifyWithLabel(public []byte, label string, sig []byte, content ...[]byte) bool {
	b := newSignContent(label, content)
	defer b.free()
	return s.sig.Verify(public, *b, sig)
}

// signContent is an encoded SignContent (§5.1.2) in a buffer of a pool.
type signContent []byte

var signContents = sync.Pool{New: func() any { return new(signContent) }}

func newSignContent(label string, content [][]byte) *signContent {
	n := 0
	for _, c := range content {
		n += len(c)
	}
	size := wire.OpaqueSize(len(prefix)+len(label)) + wire.OpaqueSize(n)
	p := signContents.Get().(*signContent)
	b := (*p)[:0]
	if size > cap(b) {
		b = make([]byte, 0, size)
	}
	b = wire.AppendVarint(appendLabel(b, label), n)
	for _, c := range content {
		b = append(b, c...)
	}
	*p = b
	return p
}

// free overwrites the content, which may be of an encrypted message, and gives
// the buffer back unless it is uncommonly long: the group context is in there,
// which can have tens of kilobytes.
func (p *signContent) free() {
	clear(*p)
	if cap(*p) <= 1<<18 {
		signContents.Put(p)
	}
}

type ed25519Scheme struct{}

// Ed25519 is Ed25519 with seeds of 32 bytes for private keys (RFC 8032).
func Ed25519() Signature { return ed25519Scheme{} }

func (ed25519Scheme) Generate() (Secret, error) {
	seed := make(Secret, ed25519.SeedSize)
	rand.Read(seed)
	return seed, nil
}

func (ed25519Scheme) NewSigner(private []byte) (Signer, error) {
	if len(private) != ed25519.SeedSize {
		return nil, ErrInvalidSignatureKey
	}
	return &ed25519Signer{ed25519.NewKeyFromSeed(private)}, nil
}

func (ed25519Scheme) Verify(public, message, sig []byte) bool {
	return len(public) == ed25519.PublicKeySize && ed25519.Verify(public, message, sig)
}

type ed25519Signer struct{ key ed25519.PrivateKey }

func (k *ed25519Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

func (k *ed25519Signer) Public() []byte { return k.key[ed25519.SeedSize:] }

func (k *ed25519Signer) Sign(message []byte) ([]byte, error) {
	return ed25519.Sign(k.key, message), nil
}

type ecdsaScheme struct {
	curve elliptic.Curve
	hash  func() hash.Hash
}

// ECDSAP256 is ECDSA on P-256 with SHA-256. Like the other two it has
// uncompressed points for public keys, big-endian scalars for private ones
// (leading zero bytes may be missing), and DER signatures.
func ECDSAP256() Signature { return ecdsaScheme{elliptic.P256(), sha256.New} }

// ECDSAP384 is ECDSA on P-384 with SHA-384.
func ECDSAP384() Signature { return ecdsaScheme{elliptic.P384(), sha512.New384} }

// ECDSAP521 is ECDSA on P-521 with SHA-512.
func ECDSAP521() Signature { return ecdsaScheme{elliptic.P521(), sha512.New} }

func (s ecdsaScheme) digest(message []byte) []byte {
	h := s.hash()
	h.Write(message)
	return h.Sum(nil)
}

func (s ecdsaScheme) Generate() (Secret, error) {
	key, err := ecdsa.GenerateKey(s.curve, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("signature key: %w", err)
	}
	b, err := key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("signature key: %w", err)
	}
	return b, nil
}

func (s ecdsaScheme) NewSigner(private []byte) (Signer, error) {
	size := (s.curve.Params().BitSize + 7) / 8
	if len(private) > size {
		return nil, ErrInvalidSignatureKey
	}
	b := slices.Concat(make([]byte, size-len(private)), private)
	defer clear(b)
	key, err := ecdsa.ParseRawPrivateKey(s.curve, b)
	if err != nil {
		return nil, ErrInvalidSignatureKey
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, ErrInvalidSignatureKey
	}
	return &ecdsaSigner{s, key, public}, nil
}

func (s ecdsaScheme) Verify(public, message, sig []byte) bool {
	key, err := ecdsa.ParseUncompressedPublicKey(s.curve, public)
	return err == nil && ecdsa.VerifyASN1(key, s.digest(message), sig)
}

type ecdsaSigner struct {
	scheme ecdsaScheme
	key    *ecdsa.PrivateKey
	public []byte
}

func (k *ecdsaSigner) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

func (k *ecdsaSigner) Public() []byte { return k.public }

func (k *ecdsaSigner) Sign(message []byte) ([]byte, error) {
	sig, err := ecdsa.SignASN1(rand.Reader, k.key, k.scheme.digest(message))
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return sig, nil
}
