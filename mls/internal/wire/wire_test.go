package wire

import (
	"bytes"
	"errors"
	"testing"
)

// The boundaries of the three prefix sizes (RFC 9420 §2.1.2).
func TestVarintBoundaries(t *testing.T) {
	for _, tc := range []struct {
		n    int
		want []byte
	}{
		{0, []byte{0}}, {63, []byte{0x3f}},
		{64, []byte{0x40, 0x40}}, {16383, []byte{0x7f, 0xff}},
		{16384, []byte{0x80, 0, 0x40, 0}}, {MaxVector, []byte{0xbf, 0xff, 0xff, 0xff}},
	} {
		got := AppendVarint(nil, tc.n)
		if !bytes.Equal(got, tc.want) || VarintSize(tc.n) != len(tc.want) {
			t.Errorf("%d: got %x, size %d, want %x", tc.n, got, VarintSize(tc.n), tc.want)
		}
		r := NewReader(tc.want)
		if n := r.Varint(); n != tc.n || r.Done() != nil {
			t.Errorf("%x: got %d, %v, want %d", tc.want, n, r.Err(), tc.n)
		}
	}
}

func TestVarintRefused(t *testing.T) {
	for _, tc := range []struct {
		in   []byte
		want error
	}{
		{[]byte{0xc0}, ErrVarint}, {[]byte{0xff, 0, 0, 0, 0, 0, 0, 0}, ErrVarint},
		{[]byte{0x40, 0x00}, ErrVarint}, {[]byte{0x40, 0x3f}, ErrVarint},
		{[]byte{0x80, 0, 0, 0}, ErrVarint}, {[]byte{0x80, 0, 0x3f, 0xff}, ErrVarint},
		{[]byte{0x40}, ErrShort}, {[]byte{0x80, 0, 0x40}, ErrShort}, {nil, ErrShort},
	} {
		r := NewReader(tc.in)
		if n := r.Varint(); n != 0 || !errors.Is(r.Err(), tc.want) {
			t.Errorf("%x: got %d, %v, want %v", tc.in, n, r.Err(), tc.want)
		}
	}
}

// AppendVector, which learns the length afterwards, agrees with AppendOpaque on
// both sides of each boundary.
func TestVectorBoundaries(t *testing.T) {
	for _, n := range []int{0, 1, 62, 63, 64, 65, 16382, 16383, 16384, 16385, 100000} {
		body := bytes.Repeat([]byte{7}, n)
		want := AppendOpaque([]byte("head"), body)
		got := AppendVector([]byte("head"), func(b []byte) []byte { return append(b, body...) })
		if !bytes.Equal(got, want) {
			t.Errorf("length %d: AppendVector differs from AppendOpaque", n)
		}
		if len(want) != 4+OpaqueSize(n) {
			t.Errorf("length %d: OpaqueSize is %d, want %d", n, OpaqueSize(n), len(want)-4)
		}
		r := NewReader(want[4:])
		if got := r.Opaque(); !bytes.Equal(got, body) || r.Done() != nil {
			t.Errorf("length %d: read back %d bytes, %v", n, len(got), r.Err())
		}
	}
}

func TestReaderKeepsWithinVector(t *testing.T) {
	r := NewReader([]byte{2, 1, 2, 9})
	r.Vector(func(r *Reader) { r.Uint32() })
	if !errors.Is(r.Err(), ErrShort) {
		t.Errorf("element past the vector's end: %v, want ErrShort", r.Err())
	}
	r = NewReader([]byte{1, 1})
	r.Vector(func(*Reader) {})
	if !errors.Is(r.Err(), ErrNoProgress) {
		t.Errorf("empty element: %v, want ErrNoProgress", r.Err())
	}
	r = NewReader([]byte{5, 1})
	r.Vector(func(r *Reader) { t.Error("element of a vector longer than the input") })
	if !errors.Is(r.Err(), ErrShort) {
		t.Errorf("long vector: %v, want ErrShort", r.Err())
	}
	r = NewReader([]byte{3, 0, 1, 0})
	if r.Uint16s(); r.Err() == nil {
		t.Error("odd vector of uint16 read")
	}
	r = NewReader([]byte{2})
	if r.Optional(); !errors.Is(r.Err(), ErrPresence) {
		t.Errorf("presence byte 2: %v, want ErrPresence", r.Err())
	}
	r = NewReader([]byte{1, 2})
	r.Uint8()
	if !errors.Is(r.Done(), ErrTrailing) {
		t.Errorf("byte left: %v, want ErrTrailing", r.Err())
	}
}

// FuzzReader: what a read accepts is the only encoding of the value.
func FuzzReader(f *testing.F) {
	f.Add([]byte{4, 0x40, 0x40, 1, 2})
	f.Add([]byte{0x80, 0, 0x40, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(in)
		var items [][]byte
		r.Vector(func(r *Reader) { items = append(items, r.Opaque()) })
		if r.Err() != nil {
			return
		}
		out := AppendVector(nil, func(b []byte) []byte {
			for _, item := range items {
				b = AppendOpaque(b, item)
			}
			return b
		})
		if !bytes.Equal(out, in[:r.Offset()]) {
			t.Errorf("%x read, %x written", in[:r.Offset()], out)
		}
	})
}
