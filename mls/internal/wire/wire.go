// Package wire is the presentation language of MLS (RFC 9420 §2.1): big-endian
// integers, vectors with a length prefix of one, two or four bytes, and optional
// values.
//
// Encoding is a matter of append-style functions. Decoding goes through a
// [Reader], which hands out sub-slices of its input and remembers the first
// error, so that a structure is read without a check after each field.
package wire

import (
	"encoding/binary"
	"errors"
)

// MaxVector is the greatest length in bytes of a variable-size vector (§2.1.2).
const MaxVector = 1<<30 - 1

// Errors of a [Reader].
var (
	ErrShort      = errors.New("input ends early")
	ErrTrailing   = errors.New("bytes after the end")
	ErrVarint     = errors.New("malformed vector length")
	ErrPresence   = errors.New("malformed presence byte of an optional value")
	ErrNoProgress = errors.New("vector element without bytes")
)

// AppendVarint appends the length prefix for n bytes (§2.1.2). A length above
// [MaxVector] has no encoding: callers bound what they encode, so it panics.
func AppendVarint(b []byte, n int) []byte {
	switch {
	case n < 0 || n > MaxVector:
		panic("wire: vector of more than 2^30-1 bytes")
	case n < 1<<6:
		return append(b, byte(n))
	case n < 1<<14:
		return append(b, 0x40|byte(n>>8), byte(n))
	default:
		return binary.BigEndian.AppendUint32(b, 1<<31|uint32(n))
	}
}

// VarintSize is the number of bytes of the length prefix for n bytes.
func VarintSize(n int) int {
	switch {
	case n < 1<<6:
		return 1
	case n < 1<<14:
		return 2
	default:
		return 4
	}
}

// AppendOpaque appends v as opaque<V>: length prefix, then bytes.
func AppendOpaque[T ~[]byte | ~string](b []byte, v T) []byte {
	return append(AppendVarint(b, len(v)), v...)
}

// OpaqueSize is the encoded size of an opaque<V> of n bytes.
func OpaqueSize(n int) int { return VarintSize(n) + n }

// AppendUint16 appends a big-endian uint16.
func AppendUint16(b []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(b, v) }

// AppendUint32 appends a big-endian uint32.
func AppendUint32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }

// AppendUint64 appends a big-endian uint64.
func AppendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// AppendPresence appends the presence byte of an optional value (§2.1.1).
func AppendPresence(b []byte, present bool) []byte {
	if present {
		return append(b, 1)
	}
	return append(b, 0)
}

// AppendVector appends a vector whose elements fill appends. The prefix is put
// before the elements afterwards, because its size depends on theirs.
func AppendVector(b []byte, fill func([]byte) []byte) []byte {
	start := len(b)
	b = fill(append(b, 0))
	n := len(b) - start - 1
	if size := VarintSize(n); size > 1 {
		b = append(b, 0, 0, 0)[:len(b)+size-1]
		copy(b[start+size:], b[start+1:start+1+n])
	}
	AppendVarint(b[:start], n)
	return b
}

// Reader decodes one input. After the first failure every method returns a zero
// value and the failure is kept: see [Reader.Err].
type Reader struct {
	b   []byte
	off int
	end int
	err error
}

// NewReader returns a Reader of b. What it hands out aliases b.
func NewReader(b []byte) *Reader { return &Reader{b: b, end: len(b)} }

// Err is the first failure.
func (r *Reader) Err() error { return r.err }

// Fail records err unless an earlier failure is known.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Done returns the first failure, or [ErrTrailing] if input is left.
func (r *Reader) Done() error {
	if r.err == nil && r.off != r.end {
		r.err = ErrTrailing
	}
	return r.err
}

// Offset is the number of bytes read so far; see [Reader.Since].
func (r *Reader) Offset() int { return r.off }

// Left is the number of bytes left in the input, or in the vector being read.
func (r *Reader) Left() int {
	if r.err != nil {
		return 0
	}
	return r.end - r.off
}

// Since returns the bytes read since offset, which [Reader.Offset] returned.
func (r *Reader) Since(offset int) []byte {
	if r.err != nil {
		return nil
	}
	return r.b[offset:r.off:r.off]
}

// Bytes reads n bytes.
func (r *Reader) Bytes(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > r.end-r.off {
		r.err = ErrShort
		return nil
	}
	v := r.b[r.off : r.off+n : r.off+n]
	r.off += n
	return v
}

// Uint8 reads one byte.
func (r *Reader) Uint8() uint8 {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Uint16 reads a big-endian uint16.
func (r *Reader) Uint16() uint16 {
	if b := r.Bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// Uint32 reads a big-endian uint32.
func (r *Reader) Uint32() uint32 {
	if b := r.Bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Uint64 reads a big-endian uint64.
func (r *Reader) Uint64() uint64 {
	if b := r.Bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Varint reads a length prefix. A prefix with the reserved top bits, or one that
// is longer than its value needs, is an error (§2.1.2). So is, for a vector, a
// length beyond the input, which [Reader.Opaque] and [Reader.Vector] check.
func (r *Reader) Varint() int {
	first := r.Uint8()
	if r.err != nil {
		return 0
	}
	n, more := int(first&0x3f), 1<<(first>>6)-1
	if more > 3 {
		r.err = ErrVarint
		return 0
	}
	for _, c := range r.Bytes(more) {
		n = n<<8 | int(c)
	}
	if r.err == nil && VarintSize(n) != more+1 {
		r.err = ErrVarint
	}
	if r.err != nil {
		return 0
	}
	return n
}

// Opaque reads an opaque<V>. The result is non-nil unless the read failed.
func (r *Reader) Opaque() []byte { return r.Bytes(r.Varint()) }

// Optional reads a presence byte (§2.1.1).
func (r *Reader) Optional() bool {
	switch r.Uint8() {
	case 0:
		return false
	case 1:
		return r.err == nil
	default:
		r.Fail(ErrPresence)
		return false
	}
}

// Vector reads a vector: element is called until the vector is used up, and must
// read one element from r each time. Reads within it can't pass its end.
func (r *Reader) Vector(element func(r *Reader)) {
	n := r.Varint()
	if r.err == nil && n > r.end-r.off {
		r.err = ErrShort
	}
	if r.err != nil {
		return
	}
	outer := r.end
	r.end = r.off + n
	for r.err == nil && r.off < r.end {
		before := r.off
		element(r)
		if r.err == nil && r.off == before {
			r.err = ErrNoProgress
		}
	}
	r.end = outer
}

// Uint16s is the body of a vector of uint16 values (versions, suites, types), as
// encoded: without prefix, two bytes each.
type Uint16s []byte

// Uint16s reads a vector of uint16 values.
func (r *Reader) Uint16s() Uint16s {
	b := r.Opaque()
	if len(b)%2 != 0 {
		r.Fail(ErrShort)
		return nil
	}
	return b
}

// Len is the number of values.
func (u Uint16s) Len() int { return len(u) / 2 }

// At is the i-th value.
func (u Uint16s) At(i int) uint16 { return binary.BigEndian.Uint16(u[2*i:]) }

// Contains tells whether v is one of the values.
func (u Uint16s) Contains(v uint16) bool {
	for i := range u.Len() {
		if u.At(i) == v {
			return true
		}
	}
	return false
}

// AppendUint16s appends values as a vector.
func AppendUint16s[T ~uint16](b []byte, values []T) []byte {
	b = AppendVarint(b, 2*len(values))
	for _, v := range values {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	return b
}
