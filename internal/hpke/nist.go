package hpke

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
)

type nistKEM struct {
	dhkem
	curve   ecdh.Curve
	private int  // Nsk
	point   int  // Npk and Nenc
	mask    byte // for the first byte of a candidate
}

var (
	p256 = &nistKEM{newDHKEM(0x0010, HKDFSHA256), ecdh.P256(), 32, 65, 0xff}
	p384 = &nistKEM{newDHKEM(0x0011, HKDFSHA384), ecdh.P384(), 48, 97, 0xff}
	p521 = &nistKEM{newDHKEM(0x0012, HKDFSHA512), ecdh.P521(), 66, 133, 0x01}
)

// P256 returns DHKEM(P-256, HKDF-SHA256), KEM 0x0010 of RFC 9180: public and
// encapsulated keys are uncompressed points of 65 bytes, private keys
// big-endian scalars of 32.
func P256() KEM { return p256 }

// P384 returns DHKEM(P-384, HKDF-SHA384), KEM 0x0011 of RFC 9180: points of 97
// bytes, scalars of 48.
func P384() KEM { return p384 }

// P521 returns DHKEM(P-521, HKDF-SHA512), KEM 0x0012 of RFC 9180: points of 133
// bytes, scalars of 66. A private key may lack leading zero bytes.
func P521() KEM { return p521 }

func (k *nistKEM) EncSize() int { return k.point }

func (k *nistKEM) GenerateKeyPair() (KeyPair, error) {
	key, err := k.curve.GenerateKey(rand.Reader)
	if err != nil {
		return KeyPair{}, fmt.Errorf("hpke: %w", err)
	}
	return KeyPair{Private: key.Bytes(), Public: key.PublicKey().Bytes()}, nil
}

func (k *nistKEM) DeriveKeyPair(ikm []byte) (KeyPair, error) {
	var stack [MaxKDFSize]byte
	prk := k.extract(stack[:0], nil, "dkp_prk", ikm)
	defer clear(prk)
	private := make([]byte, k.private)
	for counter := range 256 {
		k.expand(private, prk, "candidate", []byte{byte(counter)})
		private[0] &= k.mask
		if key, err := k.curve.NewPrivateKey(private); err == nil {
			return KeyPair{Private: private, Public: key.PublicKey().Bytes()}, nil
		}
	}
	return KeyPair{}, errors.New("hpke: no key pair for this key material")
}

// parse reads a private key, restoring leading zero bytes.
func (k *nistKEM) parse(private []byte) (*ecdh.PrivateKey, error) {
	if len(private) > k.private {
		return nil, ErrInvalidKey
	}
	var stack [66]byte
	b := stack[:k.private]
	copy(b[k.private-len(private):], private)
	defer clear(b)
	key, err := k.curve.NewPrivateKey(b)
	if err != nil {
		return nil, ErrInvalidKey
	}
	return key, nil
}

func (k *nistKEM) PublicKey(private []byte) ([]byte, error) {
	key, err := k.parse(private)
	if err != nil {
		return nil, err
	}
	return key.PublicKey().Bytes(), nil
}

func (k *nistKEM) CheckPublicKey(public []byte) error {
	if _, err := k.curve.NewPublicKey(public); err != nil {
		return ErrInvalidKey
	}
	return nil
}

func (k *nistKEM) Encap(public []byte) (shared, enc []byte, err error) {
	ephemeral, err := k.curve.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("hpke: %w", err)
	}
	return k.encap(public, ephemeral)
}

func (k *nistKEM) encap(public []byte, ephemeral *ecdh.PrivateKey) (shared, enc []byte, err error) {
	dh, err := k.agree(ephemeral, public)
	if err != nil {
		return nil, nil, err
	}
	enc = ephemeral.PublicKey().Bytes()
	return k.derive(dh, enc, public), enc, nil
}

func (k *nistKEM) agree(key *ecdh.PrivateKey, public []byte) ([]byte, error) {
	peer, err := k.curve.NewPublicKey(public)
	if err != nil {
		return nil, ErrInvalidKey
	}
	dh, err := key.ECDH(peer)
	if err != nil {
		return nil, ErrInvalidKey
	}
	return dh, nil
}

func (k *nistKEM) Decap(key KeyPair, enc []byte) ([]byte, error) {
	private, err := k.parse(key.Private)
	if err != nil {
		return nil, err
	}
	dh, err := k.agree(private, enc)
	if err != nil {
		return nil, err
	}
	public := key.Public
	if public == nil {
		public = private.PublicKey().Bytes()
	}
	return k.derive(dh, enc, public), nil
}
