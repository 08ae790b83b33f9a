package hpke

import (
	"crypto/sha256"
	"crypto/sha512"
)

// KDF is HKDF (RFC 5869) over one of the SHA-2 hashes, numbered as in RFC 9180
// §7.2. Its methods also give the bare hash and HMAC, which MLS uses beside it.
//
// They work on contiguous copies of their input on the stack and overwrite
// them before they return, so nothing secret outlives a call but its result.
type KDF uint16

// The key derivation functions of RFC 9180 §7.2.
const (
	HKDFSHA256 KDF = 0x0001
	HKDFSHA384 KDF = 0x0002
	HKDFSHA512 KDF = 0x0003
)

// MaxKDFSize is the largest output of [KDF.Size].
const MaxKDFSize = 64

// Valid reports whether k is one of the constants of this package.
func (k KDF) Valid() bool { return k >= HKDFSHA256 && k <= HKDFSHA512 }

// Size is the output size Nh of the hash in bytes.
func (k KDF) Size() int {
	switch k {
	case HKDFSHA256:
		return sha256.Size
	case HKDFSHA384:
		return sha512.Size384
	default:
		return sha512.Size
	}
}

func (k KDF) blockSize() int {
	if k == HKDFSHA256 {
		return sha256.BlockSize
	}
	return sha512.BlockSize
}

func (k KDF) sum(out *[MaxKDFSize]byte, b []byte) {
	switch k {
	case HKDFSHA256:
		*(*[sha256.Size]byte)(out[:]) = sha256.Sum256(b)
	case HKDFSHA384:
		*(*[sha512.Size384]byte)(out[:]) = sha512.Sum384(b)
	default:
		*out = sha512.Sum512(b)
	}
}

// stackSize is the input up to which a call needs no heap.
const stackSize = 512

// Hash appends the hash of the concatenation of parts to dst.
func (k KDF) Hash(dst []byte, parts ...[]byte) []byte {
	var out [MaxKDFSize]byte
	if len(parts) == 1 {
		k.sum(&out, parts[0])
		return append(dst, out[:k.Size()]...)
	}
	var stack [stackSize]byte
	b := gather(stack[:0], nil, parts, nil)
	k.sum(&out, b)
	clear(b)
	return append(dst, out[:k.Size()]...)
}

// MAC appends the HMAC (RFC 2104) under key of the concatenation of parts to dst.
func (k KDF) MAC(dst, key []byte, parts ...[]byte) []byte {
	var out [MaxKDFSize]byte
	k.hmac(&out, key, nil, parts, nil)
	dst = append(dst, out[:k.Size()]...)
	clear(out[:])
	return dst
}

// Extract appends HKDF-Extract of salt and the concatenation of ikm to dst.
func (k KDF) Extract(dst, salt []byte, ikm ...[]byte) []byte {
	return k.MAC(dst, salt, ikm...)
}

// Expand fills out with HKDF-Expand of prk and the concatenation of info. It
// panics when out is longer than 255 times the hash.
func (k KDF) Expand(out, prk []byte, info ...[]byte) {
	n := k.Size()
	if len(out) > 255*n {
		panic("hpke: HKDF output too long")
	}
	var t [MaxKDFSize]byte
	var counter [1]byte
	for previous := 0; len(out) > 0; previous = n {
		counter[0]++
		k.hmac(&t, prk, t[:previous], info, counter[:])
		out = out[copy(out, t[:n]):]
	}
	clear(t[:])
}

// hmac is HMAC over head, parts and tail; head may lie in out.
func (k KDF) hmac(out *[MaxKDFSize]byte, key, head []byte, parts [][]byte, tail []byte) {
	var short [MaxKDFSize]byte
	block := k.blockSize()
	if len(key) > block {
		k.sum(&short, key)
		key = short[:k.Size()]
	}
	var stack [sha512.BlockSize + stackSize]byte
	b := gather(stack[:block], head, parts, tail)
	xorPad(b[:block], key, 0x36)
	k.sum(out, b)
	clear(b[block:])
	xorPad(b[:block], key, 0x5c)
	b = append(b[:block], out[:k.Size()]...)
	k.sum(out, b)
	clear(b)
	clear(short[:])
}

func xorPad(b, key []byte, pad byte) {
	for i := range b {
		b[i] = pad
	}
	for i, v := range key {
		b[i] = v ^ pad
	}
}

// gather appends all to b; if its capacity doesn't do, it moves to a buffer of
// the right size at once, so that no partial copy is left behind.
func gather(b, head []byte, parts [][]byte, tail []byte) []byte {
	n := len(b) + len(head) + len(tail)
	for _, p := range parts {
		n += len(p)
	}
	if n > cap(b) {
		// Room for a hash, which takes the place of the parts in hmac.
		b = append(make([]byte, 0, n+MaxKDFSize), b...)
	}
	b = append(b, head...)
	for _, p := range parts {
		b = append(b, p...)
	}
	return append(b, tail...)
}
