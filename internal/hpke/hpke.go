// Package hpke is Hybrid Public Key Encryption (RFC 9180) in base mode, as MLS
// and the wrapping of XMTP's welcomes use it.
//
// It exists beside crypto/hpke because XMTP numbers its X-Wing KEM otherwise,
// and because it makes X25519 keys by a fixed-base multiplication and with few
// allocations.
package hpke

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrOpen tells that a ciphertext could not be opened, whatever the reason.
var ErrOpen = errors.New("hpke: cannot open ciphertext")

// Suite is a combination of a KEM, a KDF and an AEAD. It is immutable.
type Suite struct {
	kem     KEM
	aead    AEAD
	pskHash []byte // psk_id_hash of the empty PSK id
	labels
}

// New combines the parts of a suite. It panics on a KDF or AEAD that is not
// one of this package's constants.
func New(kem KEM, kdf KDF, aead AEAD) *Suite {
	if !kdf.Valid() || !aead.Valid() {
		panic("hpke: unknown KDF or AEAD")
	}
	id := []byte("HPKE")
	id = binary.BigEndian.AppendUint16(id, kem.ID())
	id = binary.BigEndian.AppendUint16(id, uint16(kdf))
	id = binary.BigEndian.AppendUint16(id, uint16(aead))
	s := &Suite{kem: kem, aead: aead, labels: labels{kdf, id}}
	s.pskHash = s.extract(nil, nil, "psk_id_hash")
	return s
}

// KEM returns the suite's KEM.
func (s *Suite) KEM() KEM { return s.kem }

// KDF returns the suite's KDF.
func (s *Suite) KDF() KDF { return s.kdf }

// AEAD returns the suite's AEAD.
func (s *Suite) AEAD() AEAD { return s.aead }

// Info is application information (§5.1), digested for one suite. It costs one
// pass over the information, however many messages it is used for.
type Info struct {
	hash [MaxKDFSize]byte
}

// Info digests the concatenation of parts.
func (s *Suite) Info(parts ...[]byte) (i Info) {
	s.extract(i.hash[:0], nil, "info_hash", parts...)
	return i
}

// Context is one direction of messages under one encapsulated key (§5.2). The
// n-th Seal is opened by the n-th Open. It is not safe for concurrent use.
type Context struct {
	suite    *Suite
	aead     cipher.AEAD
	nonce    [NonceSize]byte
	seq      uint64
	exporter [MaxKDFSize]byte
}

// NewSender encapsulates a fresh secret to public; enc is for the recipient.
// The error is [ErrInvalidKey] or one of the system's.
func (s *Suite) NewSender(public []byte, info Info) (enc []byte, c *Context, err error) {
	shared, enc, err := s.kem.Encap(public)
	if err != nil {
		return nil, nil, err
	}
	c = new(Context)
	if err := s.schedule(c, shared, &info, true); err != nil {
		return nil, nil, err
	}
	return enc, c, nil
}

// NewRecipient recovers the secret that enc encapsulates. key.Public may be
// nil. The error is [ErrInvalidKey].
func (s *Suite) NewRecipient(key KeyPair, enc []byte, info Info) (*Context, error) {
	shared, err := s.kem.Decap(key, enc)
	if err != nil {
		return nil, err
	}
	c := new(Context)
	if err := s.schedule(c, shared, &info, true); err != nil {
		return nil, err
	}
	return c, nil
}

// schedule is KeySchedule of §5.1 for base mode; it overwrites shared. The
// exporter secret is left out for contexts that nobody exports from.
func (s *Suite) schedule(c *Context, shared []byte, info *Info, export bool) error {
	var contextStack [1 + 2*MaxKDFSize]byte // mode_base is 0
	var secretStack, keyStack [MaxKDFSize]byte
	context := append(contextStack[:1], s.pskHash...)
	context = append(context, info.hash[:s.kdf.Size()]...)
	secret := s.extract(secretStack[:0], shared, "secret")
	clear(shared)
	key := keyStack[:s.aead.KeySize()]
	s.expand(key, secret, "key", context)
	s.expand(c.nonce[:], secret, "base_nonce", context)
	if export {
		s.expand(c.exporter[:s.kdf.Size()], secret, "exp", context)
	}
	var err error
	c.suite = s
	c.aead, err = s.aead.New(key)
	clear(secret)
	clear(key)
	return err
}

func (c *Context) next() (nonce [NonceSize]byte) {
	nonce = c.nonce
	var seq [8]byte
	binary.BigEndian.PutUint64(seq[:], c.seq)
	for i, b := range seq {
		nonce[NonceSize-8+i] ^= b
	}
	return nonce
}

// Seal encrypts the next plaintext and appends the ciphertext to dst.
func (c *Context) Seal(dst, aad, plaintext []byte) []byte {
	nonce := c.next()
	c.seq++
	return c.aead.Seal(dst, nonce[:], plaintext, aad)
}

// Open decrypts the next ciphertext and appends the plaintext to dst. After
// [ErrOpen] the same place in the sequence can be tried again.
func (c *Context) Open(dst, aad, ciphertext []byte) ([]byte, error) {
	nonce := c.next()
	out, err := c.aead.Open(dst, nonce[:], ciphertext, aad)
	if err != nil {
		return nil, ErrOpen
	}
	c.seq++
	return out, nil
}

// Export derives a secret of length bytes that both sides share (§5.3). length
// must be at most 255 times [KDF.Size].
func (c *Context) Export(exporterContext []byte, length int) ([]byte, error) {
	n := c.suite.kdf.Size()
	if length < 0 || length > 255*n {
		return nil, fmt.Errorf("hpke: export of %d bytes", length)
	}
	out := make([]byte, length)
	c.suite.expand(out, c.exporter[:n], "sec", exporterContext)
	return out, nil
}

// Wipe overwrites what the context can of its secrets; it is of no use after.
func (c *Context) Wipe() { *c = Context{} }

// Seal encrypts one plaintext to public (§6.1): it returns the encapsulated key
// and dst with the ciphertext appended. The error is [ErrInvalidKey] or one of
// the system's.
func (s *Suite) Seal(dst, public []byte, info Info, aad, plaintext []byte) (enc, ciphertext []byte, err error) {
	shared, enc, err := s.kem.Encap(public)
	if err != nil {
		return nil, nil, err
	}
	var c Context
	if err := s.schedule(&c, shared, &info, false); err != nil {
		return nil, nil, err
	}
	return enc, c.Seal(dst, aad, plaintext), nil
}

// Open decrypts the ciphertext of one [Suite.Seal] and appends the plaintext to
// dst. key.Public may be nil. The error is [ErrOpen].
func (s *Suite) Open(dst []byte, key KeyPair, enc []byte, info Info, aad, ciphertext []byte) ([]byte, error) {
	shared, err := s.kem.Decap(key, enc)
	if err != nil {
		return nil, ErrOpen
	}
	var c Context
	if err := s.schedule(&c, shared, &info, false); err != nil {
		return nil, ErrOpen
	}
	return c.Open(dst, aad, ciphertext)
}
