package hpke

import (
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha3"
	"encoding/binary"
	"fmt"
	"slices"
)

const (
	xwingSeedSize   = 32
	xwingPublicSize = mlkem.EncapsulationKeySize768 + x25519Size
	xwingEncSize    = mlkem.CiphertextSize768 + x25519Size
	xwingLabel      = `\.//^\`
)

type xwingKEM struct{ id uint16 }

// XWing returns X-Wing, the hybrid of ML-KEM-768 and X25519 of
// draft-connolly-cfrg-xwing-kem, under a KEM number: 0x647a is the registered
// one, 0x004d that of XMTP. Public keys have 1216 bytes, encapsulated keys
// 1120; a private key is a seed of 32.
func XWing(id uint16) KEM { return xwingKEM{id} }

func (k xwingKEM) ID() uint16 { return k.id }

func (k xwingKEM) EncSize() int { return xwingEncSize }

func (k xwingKEM) GenerateKeyPair() (KeyPair, error) {
	seed := make([]byte, xwingSeedSize)
	rand.Read(seed)
	return k.keyPair(seed)
}

// DeriveKeyPair expands ikm as draft-ietf-hpke-pq does.
func (k xwingKEM) DeriveKeyPair(ikm []byte) (KeyPair, error) {
	h := sha3.NewSHAKE256()
	h.Write(ikm)
	h.Write(binary.BigEndian.AppendUint16([]byte(version+"KEM"), k.id))
	const label = "DeriveKeyPair"
	h.Write([]byte{0, byte(len(label))})
	h.Write([]byte(label))
	h.Write([]byte{0, xwingSeedSize})
	seed := make([]byte, xwingSeedSize)
	h.Read(seed)
	h.Reset()
	return k.keyPair(seed)
}

func (k xwingKEM) keyPair(seed []byte) (KeyPair, error) {
	public, err := k.PublicKey(seed)
	if err != nil {
		return KeyPair{}, err
	}
	return KeyPair{Private: seed, Public: public}, nil
}

// expand makes the two private keys of a seed; the caller wipes the second.
func (k xwingKEM) expand(seed []byte) (*mlkem.DecapsulationKey768, []byte, error) {
	if len(seed) != xwingSeedSize {
		return nil, nil, ErrInvalidKey
	}
	h := sha3.NewSHAKE256()
	h.Write(seed)
	b := make([]byte, mlkem.SeedSize+x25519Size)
	h.Read(b)
	h.Reset()
	pq, err := mlkem.NewDecapsulationKey768(b[:mlkem.SeedSize])
	if err != nil {
		return nil, nil, fmt.Errorf("hpke: %w", err)
	}
	clear(b[:mlkem.SeedSize])
	return pq, b[mlkem.SeedSize:], nil
}

func (k xwingKEM) PublicKey(private []byte) ([]byte, error) {
	pq, t, err := k.expand(private)
	if err != nil {
		return nil, err
	}
	defer clear(t)
	return append(pq.EncapsulationKey().Bytes(), x25519Public(t)...), nil
}

// CheckPublicKey checks the modulus of an ML-KEM key (FIPS 203 §7.2): each of its 12-bit
// coefficients is below q. crypto/mlkem would work out the matrix of the key as well,
// which takes eighty times as long and is of use only to who encapsulates.
func (k xwingKEM) CheckPublicKey(public []byte) error {
	if len(public) != xwingPublicSize {
		return ErrInvalidKey
	}
	const q, seed = 3329, 32
	for c := range slices.Chunk(public[:mlkem.EncapsulationKeySize768-seed], 3) {
		low, high := uint16(c[0])|uint16(c[1]&15)<<8, uint16(c[1]>>4)|uint16(c[2])<<4
		if low >= q || high >= q {
			return ErrInvalidKey
		}
	}
	return nil
}

func (k xwingKEM) parse(public []byte) (pq *mlkem.EncapsulationKey768, t []byte, err error) {
	if len(public) != xwingPublicSize {
		return nil, nil, ErrInvalidKey
	}
	pq, err = mlkem.NewEncapsulationKey768(public[:mlkem.EncapsulationKeySize768])
	if err != nil {
		return nil, nil, ErrInvalidKey
	}
	return pq, public[mlkem.EncapsulationKeySize768:], nil
}

func (k xwingKEM) Encap(public []byte) (shared, enc []byte, err error) {
	pq, t, err := k.parse(public)
	if err != nil {
		return nil, nil, err
	}
	var ephemeral [x25519Size]byte
	rand.Read(ephemeral[:])
	defer clear(ephemeral[:])
	ssPQ, ctPQ := pq.Encapsulate()
	return k.encap(ssPQ, ctPQ, t, ephemeral[:])
}

func (k xwingKEM) encap(ssPQ, ctPQ, public, ephemeral []byte) (shared, enc []byte, err error) {
	var ssT [x25519Size]byte
	if !x25519Shared(&ssT, ephemeral, public) {
		return nil, nil, ErrInvalidKey
	}
	ctT := x25519Public(ephemeral)
	return combine(ssPQ, ssT[:], ctT, public), append(ctPQ, ctT...), nil
}

func (k xwingKEM) Decap(key KeyPair, enc []byte) ([]byte, error) {
	pq, t, err := k.expand(key.Private)
	if err != nil {
		return nil, err
	}
	defer clear(t)
	if len(enc) != xwingEncSize {
		return nil, ErrInvalidKey
	}
	ctT := enc[mlkem.CiphertextSize768:]
	var ssT [x25519Size]byte
	if !x25519Shared(&ssT, t, ctT) {
		return nil, ErrInvalidKey
	}
	ssPQ, err := pq.Decapsulate(enc[:mlkem.CiphertextSize768])
	if err != nil {
		return nil, ErrInvalidKey
	}
	return combine(ssPQ, ssT[:], ctT, x25519Public(t)), nil
}

// combine hashes both secrets into one and overwrites them.
func combine(ssPQ, ssT, ctT, pkT []byte) []byte {
	var stack [4*x25519Size + len(xwingLabel)]byte
	b := append(append(append(append(append(stack[:0], ssPQ...), ssT...), ctT...), pkT...), xwingLabel...)
	shared := sha3.Sum256(b)
	clear(b)
	clear(ssPQ)
	clear(ssT)
	return shared[:]
}
