package suite

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
)

// MaxKeySize is the largest key of an AEAD in bytes.
const MaxKeySize = 32

// Key is a content key with its nonce, for one use. It prints redacted.
type Key struct {
	Key   [MaxKeySize]byte // the first [Suite.KeySize] bytes
	Nonce [hpke.NonceSize]byte
}

// Format implements [fmt.Formatter] by writing a fixed text.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer] by a fixed text.
func (k Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// Wipe overwrites k with zeros.
func (k *Key) Wipe() { *k = Key{} }

// Guard changes the nonce by the reuse guard of a PrivateMessage (RFC 9420
// §6.3.1); a second call with the same guard undoes the first.
func (k *Key) Guard(guard [4]byte) {
	for i, b := range guard {
		k.Nonce[i] ^= b
	}
}

// ExpandKey expands secret with the labels "key" and "nonce" and a context, as
// Welcomes (§12.4.3.1) and sender data (§6.3.2) have it.
func (s *Suite) ExpandKey(secret, context []byte) (k Key) {
	s.ExpandWithLabel(k.Key[:s.KeySize()], secret, "key", context)
	s.ExpandWithLabel(k.Nonce[:], secret, "nonce", context)
	return k
}

// DeriveTreeKey is the key of a generation of a ratchet (§9.1).
func (s *Suite) DeriveTreeKey(secret []byte, generation uint32) (k Key) {
	s.DeriveTreeSecret(k.Key[:s.KeySize()], secret, "key", generation)
	s.DeriveTreeSecret(k.Nonce[:], secret, "nonce", generation)
	return k
}

// Seal encrypts plaintext under k and appends the ciphertext to dst.
func (s *Suite) Seal(k *Key, dst, aad, plaintext []byte) ([]byte, error) {
	a, err := s.AEAD(k.Key[:s.KeySize()])
	if err != nil {
		return nil, err
	}
	return a.Seal(dst, k.Nonce[:], plaintext, aad), nil
}

// Open decrypts ciphertext under k and appends the plaintext to dst. The error
// is [hpke.ErrOpen].
func (s *Suite) Open(k *Key, dst, aad, ciphertext []byte) ([]byte, error) {
	a, err := s.AEAD(k.Key[:s.KeySize()])
	if err != nil {
		return nil, err
	}
	out, err := a.Open(dst, k.Nonce[:], ciphertext, aad)
	if err != nil {
		return nil, hpke.ErrOpen
	}
	return out, nil
}
