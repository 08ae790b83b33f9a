package hpke

import "crypto/rand"

// DiffieHellman is a function like those of RFC 7748: all strings of Size bytes are
// private keys.
type DiffieHellman interface {
	// Size is the length of private and public keys and of shared secrets in bytes.
	Size() int

	// Public multiplies the base point by a private key.
	Public(private []byte) []byte

	// Shared multiplies a public key by a private key; false for a result that is
	// zero (RFC 7748 §6).
	Shared(private, public []byte) (shared []byte, ok bool)
}

// NewDHKEM makes a KEM of RFC 9180 §4.1 from a function that comes from elsewhere.
func NewDHKEM(id uint16, kdf KDF, f DiffieHellman) KEM { return &dhKEM{newDHKEM(id, kdf), f} }

type dhKEM struct {
	dhkem
	f DiffieHellman
}

func (k *dhKEM) EncSize() int { return k.f.Size() }

func (k *dhKEM) GenerateKeyPair() (KeyPair, error) {
	private := make([]byte, k.f.Size())
	rand.Read(private)
	return KeyPair{Private: private, Public: k.f.Public(private)}, nil
}

func (k *dhKEM) DeriveKeyPair(ikm []byte) (KeyPair, error) {
	var prk [MaxKDFSize]byte
	private := make([]byte, k.f.Size())
	k.expand(private, k.extract(prk[:0], nil, "dkp_prk", ikm), "sk", nil)
	clear(prk[:])
	return KeyPair{Private: private, Public: k.f.Public(private)}, nil
}

func (k *dhKEM) PublicKey(private []byte) ([]byte, error) {
	if len(private) != k.f.Size() {
		return nil, ErrInvalidKey
	}
	return k.f.Public(private), nil
}

func (k *dhKEM) CheckPublicKey(public []byte) error {
	if len(public) != k.f.Size() {
		return ErrInvalidKey
	}
	return nil
}

func (k *dhKEM) Encap(public []byte) (shared, enc []byte, err error) {
	if err := k.CheckPublicKey(public); err != nil {
		return nil, nil, err
	}
	ephemeral, err := k.GenerateKeyPair()
	if err != nil {
		return nil, nil, err
	}
	defer ephemeral.Wipe()
	dh, ok := k.f.Shared(ephemeral.Private, public)
	if !ok {
		return nil, nil, ErrInvalidKey
	}
	return k.derive(dh, ephemeral.Public, public), ephemeral.Public, nil
}

func (k *dhKEM) Decap(key KeyPair, enc []byte) ([]byte, error) {
	if len(key.Private) != k.f.Size() || len(enc) != k.f.Size() {
		return nil, ErrInvalidKey
	}
	dh, ok := k.f.Shared(key.Private, enc)
	if !ok {
		return nil, ErrInvalidKey
	}
	public := key.Public
	if public == nil {
		public = k.f.Public(key.Private)
	}
	return k.derive(dh, enc, public), nil
}
