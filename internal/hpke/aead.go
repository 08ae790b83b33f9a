package hpke

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// AEAD is an authenticated cipher by its number of RFC 9180 §7.3.
type AEAD uint16

// The ciphers of RFC 9180 §7.3.
const (
	AES128GCM        AEAD = 0x0001
	AES256GCM        AEAD = 0x0002
	ChaCha20Poly1305 AEAD = 0x0003
)

// NonceSize is the nonce size Nn in bytes of every [AEAD].
const NonceSize = 12

// TagSize is the number of bytes by which every [AEAD] lengthens its input.
const TagSize = 16

// Valid reports whether a is one of the constants of this package.
func (a AEAD) Valid() bool { return a >= AES128GCM && a <= ChaCha20Poly1305 }

// KeySize is the key size Nk in bytes.
func (a AEAD) KeySize() int {
	if a == AES128GCM {
		return 16
	}
	return 32
}

// New returns the cipher under key, which must have [AEAD.KeySize] bytes.
func (a AEAD) New(key []byte) (cipher.AEAD, error) {
	if len(key) != a.KeySize() {
		return nil, fmt.Errorf("hpke: AEAD key of %d bytes, want %d", len(key), a.KeySize())
	}
	if a == ChaCha20Poly1305 {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("hpke: %w", err)
	}
	return cipher.NewGCM(block)
}
