package hpke

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrInvalidKey tells that bytes are no key of the KEM in question.
var ErrInvalidKey = errors.New("hpke: invalid key")

// KEM is a key encapsulation mechanism (RFC 9180 §4). Keys are the bytes of
// SerializePublicKey and SerializePrivateKey (§7.1.1, §7.1.2).
type KEM interface {
	// ID is the number in the registry of RFC 9180 §7.1.
	ID() uint16

	// EncSize is the length Nenc of an encapsulated key in bytes.
	EncSize() int

	// GenerateKeyPair makes a fresh key pair.
	GenerateKeyPair() (KeyPair, error)

	// DeriveKeyPair makes the key pair that belongs to ikm (§7.1.3).
	DeriveKeyPair(ikm []byte) (KeyPair, error)

	// PublicKey computes the public half of a private key. The error is
	// [ErrInvalidKey].
	PublicKey(private []byte) ([]byte, error)

	// CheckPublicKey tells by [ErrInvalidKey] that public is no public key.
	CheckPublicKey(public []byte) error

	// Encap makes a shared secret and its encapsulation for public.
	Encap(public []byte) (shared, enc []byte, err error)

	// Decap recovers the shared secret. When key.Public is nil it is
	// computed first, which takes time.
	Decap(key KeyPair, enc []byte) (shared []byte, err error)
}

// KeyPair is a private key with its public key. It prints as the latter only.
type KeyPair struct {
	Private []byte
	Public  []byte
}

// Format implements [fmt.Formatter] without showing the private key.
func (k KeyPair) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, k.String())
}

// String returns the public key in hexadecimal.
func (k KeyPair) String() string { return fmt.Sprintf("hpke.KeyPair(%x)", k.Public) }

// Wipe overwrites the private key.
func (k KeyPair) Wipe() { clear(k.Private) }

// labels builds the strings of LabeledExtract and LabeledExpand (§4).
type labels struct {
	kdf     KDF
	suiteID []byte
}

const version = "HPKE-v1"

func (l labels) extract(dst, salt []byte, label string, ikm ...[]byte) []byte {
	var stack [64]byte
	prefix := append(append(append(stack[:0], version...), l.suiteID...), label...)
	var out [MaxKDFSize]byte
	l.kdf.hmac(&out, salt, prefix, ikm, nil)
	dst = append(dst, out[:l.kdf.Size()]...)
	clear(out[:])
	return dst
}

func (l labels) expand(out, prk []byte, label string, info []byte) {
	var stack [64]byte
	prefix := binary.BigEndian.AppendUint16(stack[:0], uint16(len(out)))
	prefix = append(append(append(prefix, version...), l.suiteID...), label...)
	l.kdf.Expand(out, prk, prefix, info)
}

// dhkem is what the Diffie-Hellman KEMs of §4.1 share.
type dhkem struct {
	id     uint16
	secret int // Nsecret
	labels
}

func newDHKEM(id uint16, kdf KDF) dhkem {
	suiteID := binary.BigEndian.AppendUint16([]byte("KEM"), id)
	return dhkem{id: id, secret: kdf.Size(), labels: labels{kdf, suiteID}}
}

func (k *dhkem) ID() uint16 { return k.id }

// derive is ExtractAndExpand; it overwrites dh.
func (k *dhkem) derive(dh, enc, public []byte) []byte {
	var prk [MaxKDFSize]byte
	var stack [2 * 133]byte
	shared := make([]byte, k.secret)
	p := k.extract(prk[:0], nil, "eae_prk", dh)
	k.expand(shared, p, "shared_secret", append(append(stack[:0], enc...), public...))
	clear(prk[:])
	clear(dh)
	return shared
}
