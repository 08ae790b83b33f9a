package hpke

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"hash"
)

// KDF is HKDF (RFC 5869) over one of the SHA-2 hashes, numbered as in RFC 9180
// §7.2. Its methods also give the bare hash and HMAC, which MLS uses beside it.
//
// They work on contiguous copies of short input on the stack, which they
// overwrite before they return, so nothing secret outlives a call but its result.
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

func (k KDF) new() hash.Hash {
	switch k {
	case HKDFSHA256:
		return sha256.New()
	case HKDFSHA384:
		return sha512.New384()
	default:
		return sha512.New()
	}
}

// shortInput is the input up to which a call works on the stack.
const shortInput = 512

// sumParts hashes the concatenation of pad, head, parts and tail. stack is room
// for all if they are short.
func (k KDF) sumParts(out *[MaxKDFSize]byte, stack, pad, head []byte, parts [][]byte, tail []byte) {
	n := len(pad) + len(head) + len(tail)
	for _, p := range parts {
		n += len(p)
	}
	if n > cap(stack) {
		k.sumLong(out, pad, head, parts, tail)
		return
	}
	b := append(append(stack[:0], pad...), head...)
	for _, p := range parts {
		b = append(b, p...)
	}
	b = append(b, tail...)
	k.sum(out, b)
	clear(b)
}

// sumLong hashes through a buffer because input handed to the interface would
// have to live on the heap for short input, too.
func (k KDF) sumLong(out *[MaxKDFSize]byte, pad, head []byte, parts [][]byte, tail []byte) {
	h := k.new()
	buf := make([]byte, 4096)
	write := func(p []byte) {
		for len(p) > 0 {
			n := copy(buf, p)
			h.Write(buf[:n])
			p = p[n:]
		}
	}
	write(pad)
	write(head)
	for _, p := range parts {
		write(p)
	}
	write(tail)
	copy(out[:], h.Sum(buf[:0]))
	clear(buf)
	h.Reset()
}

// Hash appends the hash of the concatenation of parts to dst.
func (k KDF) Hash(dst []byte, parts ...[]byte) []byte {
	var out [MaxKDFSize]byte
	if len(parts) == 1 {
		k.sum(&out, parts[0])
	} else {
		var stack [shortInput]byte
		k.sumParts(&out, stack[:], nil, nil, parts, nil)
	}
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
	var hashed [MaxKDFSize]byte
	if len(key) > k.blockSize() {
		k.sum(&hashed, key)
		key = hashed[:k.Size()]
	}
	var stack [sha512.BlockSize + shortInput]byte
	pad := innerPad
	subtle.XORBytes(pad[:], pad[:], key)
	k.sumParts(out, stack[:], pad[:k.blockSize()], head, parts, tail)
	pad = outerPad
	subtle.XORBytes(pad[:], pad[:], key)
	k.sumParts(out, stack[:], pad[:k.blockSize()], out[:k.Size()], nil, nil)
	clear(pad[:])
	clear(hashed[:])
}

// innerPad and outerPad are ipad and opad of RFC 2104.
var innerPad, outerPad = repeat(0x36), repeat(0x5c)

func repeat(b byte) (p [sha512.BlockSize]byte) {
	for i := range p {
		p[i] = b
	}
	return p
}
