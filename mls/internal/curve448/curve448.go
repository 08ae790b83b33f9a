// Package curve448 implements the cipher suites on Curve448. It is below mls so that
// the tests of mls can use it, and not in it because of what it imports.
package curve448

import (
	"crypto/rand"
	"fmt"
	"io"

	"github.com/cloudflare/circl/dh/x448"
	"github.com/cloudflare/circl/sign/ed448"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
)

// Suites are cipher suites 4 and 6.
func Suites() []*suite.Suite { return []*suite.Suite{aes256, chacha} }

var (
	kem    = hpke.NewDHKEM(0x0021, hpke.HKDFSHA512, curve{})
	aes256 = suite.New(4, hpke.New(kem, hpke.HKDFSHA512, hpke.AES256GCM), scheme{})
	chacha = suite.New(6, hpke.New(kem, hpke.HKDFSHA512, hpke.ChaCha20Poly1305), scheme{})
)

// curve is X448 (RFC 7748).
type curve struct{}

func (curve) Size() int { return x448.Size }

func (curve) Public(private []byte) []byte {
	var public, secret x448.Key
	copy(secret[:], private)
	defer clear(secret[:])
	x448.KeyGen(&public, &secret)
	return public[:]
}

func (curve) Shared(private, public []byte) ([]byte, bool) {
	var shared, secret, point x448.Key
	copy(secret[:], private)
	defer clear(secret[:])
	copy(point[:], public)
	ok := x448.Shared(&shared, &secret, &point)
	return shared[:], ok
}

// scheme is Ed448 without context (RFC 8032), with seeds for private keys.
type scheme struct{}

func (scheme) Generate() (suite.Secret, error) {
	seed := make(suite.Secret, ed448.SeedSize)
	rand.Read(seed)
	return seed, nil
}

func (scheme) NewSigner(private []byte) (suite.Signer, error) {
	if len(private) != ed448.SeedSize {
		return nil, suite.ErrInvalidSignatureKey
	}
	return &signer{ed448.NewKeyFromSeed(private)}, nil
}

func (scheme) Verify(public, message, sig []byte) bool {
	return len(public) == ed448.PublicKeySize && ed448.Verify(public, message, sig, "")
}

type signer struct{ key ed448.PrivateKey }

// Format implements [fmt.Formatter] and shows no key.
func (k *signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[signature key]") }

func (k *signer) Public() []byte { return k.key[ed448.SeedSize:] }

func (k *signer) Sign(message []byte) ([]byte, error) { return ed448.Sign(k.key, message, ""), nil }
