package hpke

import (
	"crypto/rand"
	"crypto/subtle"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
)

const x25519Size = 32

type x25519KEM struct{ dhkem }

// X25519 returns DHKEM(X25519, HKDF-SHA256), KEM 0x0020 of RFC 9180.
// Public, private and encapsulated keys have 32 bytes.
func X25519() KEM { return x25519 }

var x25519 = &x25519KEM{newDHKEM(0x0020, HKDFSHA256)}

func (k *x25519KEM) EncSize() int { return x25519Size }

func (k *x25519KEM) GenerateKeyPair() (KeyPair, error) {
	private := make([]byte, x25519Size)
	rand.Read(private)
	return x25519KeyPair(private), nil
}

func (k *x25519KEM) DeriveKeyPair(ikm []byte) (KeyPair, error) {
	var prk [MaxKDFSize]byte
	private := make([]byte, x25519Size)
	k.expand(private, k.extract(prk[:0], nil, "dkp_prk", ikm), "sk", nil)
	clear(prk[:])
	return x25519KeyPair(private), nil
}

func (k *x25519KEM) PublicKey(private []byte) ([]byte, error) {
	if len(private) != x25519Size {
		return nil, ErrInvalidKey
	}
	return x25519Public(private), nil
}

func (k *x25519KEM) CheckPublicKey(public []byte) error {
	if len(public) != x25519Size {
		return ErrInvalidKey
	}
	return nil
}

func (k *x25519KEM) Encap(public []byte) (shared, enc []byte, err error) {
	var private [x25519Size]byte
	rand.Read(private[:])
	defer clear(private[:])
	return k.encap(public, private[:])
}

func (k *x25519KEM) encap(public, ephemeral []byte) (shared, enc []byte, err error) {
	var dh [x25519Size]byte
	enc, ok := x25519Encap(&dh, ephemeral, public)
	if !ok {
		return nil, nil, ErrInvalidKey
	}
	return k.derive(dh[:], enc, public), enc, nil
}

func (k *x25519KEM) Decap(key KeyPair, enc []byte) ([]byte, error) {
	var dh [x25519Size]byte
	if !x25519Shared(&dh, key.Private, enc) {
		return nil, ErrInvalidKey
	}
	public := key.Public
	if public == nil {
		public = x25519Public(key.Private)
	}
	return k.derive(dh[:], enc, public), nil
}

func x25519KeyPair(private []byte) KeyPair {
	return KeyPair{Private: private, Public: x25519Public(private)}
}

// x25519Public multiplies the base point by a private key of 32 bytes.
func x25519Public(private []byte) []byte {
	var u fraction
	u.setPublic(private)
	u.divide()
	return u.num.Bytes()
}

// x25519Shared is the function X25519 of RFC 7748 §5. It reports false for keys
// of wrong length and for an all-zero result (RFC 9180 §7.1.4).
func x25519Shared(out *[x25519Size]byte, scalar, point []byte) bool {
	var u fraction
	if !u.setShared(scalar, point) {
		return false
	}
	u.divide()
	return u.result(out)
}

// x25519Encap is x25519Shared with the public key of scalar, for one division
// instead of two.
func x25519Encap(out *[x25519Size]byte, scalar, point []byte) (public []byte, ok bool) {
	var u, v fraction
	if !u.setShared(scalar, point) {
		return nil, false
	}
	v.setPublic(scalar)
	u.num.Multiply(&u.num, &v.den)
	v.num.Multiply(&v.num, &u.den)
	u.den.Multiply(&u.den, &v.den)
	u.divide()
	v.num.Multiply(&v.num, &u.den)
	return v.num.Bytes(), u.result(out)
}

// fraction is the u-coordinate of a point before the division.
type fraction struct{ num, den field.Element }

func (u *fraction) divide() {
	u.den.Invert(&u.den)
	u.num.Multiply(&u.num, &u.den)
}

func (u *fraction) result(out *[x25519Size]byte) bool {
	copy(out[:], u.num.Bytes())
	var zero [x25519Size]byte
	return subtle.ConstantTimeCompare(out[:], zero[:]) == 0
}

// setPublic multiplies the base point. That is done on the Edwards curve, where
// the tables for its base point make it more than twice as fast as crypto/ecdh,
// and as constant in time; u = (1+y)/(1-y) there (RFC 7748 §4.1).
func (u *fraction) setPublic(private []byte) {
	var s edwards25519.Scalar
	if _, err := s.SetBytesWithClamping(private); err != nil {
		panic("hpke: X25519 private key of wrong length") // callers have checked
	}
	_, y, z, _ := new(edwards25519.Point).ScalarBaseMult(&s).ExtendedCoordinates()
	u.num.Add(z, y)
	u.den.Subtract(z, y)
	s = edwards25519.Scalar{}
}

// setShared is the ladder of RFC 7748 §5, for which crypto/ecdh would compute
// the public key of scalar first, doubling the time.
func (u *fraction) setShared(scalar, point []byte) bool {
	if len(scalar) != x25519Size || len(point) != x25519Size {
		return false
	}
	var k [x25519Size]byte
	copy(k[:], scalar)
	k[0] &= 248
	k[31] = k[31]&127 | 64

	var x1, x3, z3, a, b, c, d field.Element
	if _, err := x1.SetBytes(point); err != nil {
		return false
	}
	x2, z2 := &u.num, &u.den
	x2.One()
	z2.Zero()
	x3.Set(&x1)
	z3.One()
	swap := 0
	for t := 254; t >= 0; t-- {
		bit := int(k[t/8]>>(t%8)) & 1
		x2.Swap(&x3, swap^bit)
		z2.Swap(&z3, swap^bit)
		swap = bit

		a.Add(x2, z2)
		b.Subtract(x2, z2)
		c.Add(&x3, &z3)
		d.Subtract(&x3, &z3)
		d.Multiply(&d, &a) // DA
		c.Multiply(&c, &b) // CB
		a.Square(&a)       // AA
		b.Square(&b)       // BB

		x3.Add(&d, &c)
		x3.Square(&x3)
		z3.Subtract(&d, &c)
		z3.Square(&z3)
		z3.Multiply(&z3, &x1)
		x2.Multiply(&a, &b)
		a.Subtract(&a, &b) // E
		z2.Mult32(&a, 121666)
		z2.Add(z2, &b) // BB + 121666 E = AA + 121665 E
		z2.Multiply(z2, &a)
	}
	x2.Swap(&x3, swap)
	z2.Swap(&z3, swap)
	clear(k[:])
	return true
}
