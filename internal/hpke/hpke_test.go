package hpke

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	oracle "crypto/hpke"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var (
	kems  = []KEM{X25519(), P256(), P384(), P521(), XWing(0x647a)}
	kdfs  = []KDF{HKDFSHA256, HKDFSHA384, HKDFSHA512}
	aeads = []AEAD{AES128GCM, AES256GCM, ChaCha20Poly1305}
)

func drawBytes(t *rapid.T, label string, most int) []byte {
	return rapid.SliceOfN(rapid.Byte(), 0, most).Draw(t, label)
}

func TestKDFAgainstStandardLibrary(t *testing.T) {
	hashes := map[KDF]func() hash.Hash{HKDFSHA256: sha256.New, HKDFSHA384: sha512.New384, HKDFSHA512: sha512.New}
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.SampledFrom(kdfs).Draw(t, "kdf")
		h := hashes[k]
		key := drawBytes(t, "key", 200)
		parts := [][]byte{drawBytes(t, "a", 400), drawBytes(t, "b", 400), drawBytes(t, "c", 400)}
		parts = parts[:rapid.IntRange(0, 3).Draw(t, "parts")]
		before := slices.Concat(parts...)

		d := h()
		d.Write(before)
		if got, want := k.Hash([]byte("x"), parts...), d.Sum([]byte("x")); !bytes.Equal(got, want) {
			t.Fatalf("hash %x, want %x", got, want)
		}
		m := hmac.New(h, key)
		m.Write(before)
		if got, want := k.MAC(nil, key, parts...), m.Sum(nil); !bytes.Equal(got, want) {
			t.Fatalf("MAC %x, want %x", got, want)
		}
		want, err := hkdf.Extract(h, before, key)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Extract(nil, key, parts...); !bytes.Equal(got, want) {
			t.Fatalf("extract %x, want %x", got, want)
		}
		out := make([]byte, rapid.IntRange(0, 300).Draw(t, "length"))
		want, err = hkdf.Expand(h, key, string(before), len(out))
		if err != nil {
			t.Fatal(err)
		}
		if k.Expand(out, key, parts...); !bytes.Equal(out, want) {
			t.Fatalf("expand %x, want %x", out, want)
		}
		if !bytes.Equal(before, slices.Concat(parts...)) {
			t.Fatal("input was changed")
		}
	})
}

// Input changes from the stack to the heap at some length, and passes through a
// buffer there.
func TestKDFLongInput(t *testing.T) {
	hashes := map[KDF]func() hash.Hash{HKDFSHA256: sha256.New, HKDFSHA384: sha512.New384, HKDFSHA512: sha512.New}
	for k, h := range hashes {
		for _, n := range []int{0, 1, 63, 64, 65, 127, 128, 129, shortInput - 1, shortInput, shortInput + 1, 4095, 4096, 4097, 10_000} {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(i * 7)
			}
			parts := [][]byte{b[:n/3], b[n/3:]}
			d := h()
			d.Write(b)
			if got, want := k.Hash(nil, parts...), d.Sum(nil); !bytes.Equal(got, want) {
				t.Errorf("KDF %d hashes %d bytes to %x, want %x", k, n, got, want)
			}
			m := hmac.New(h, b)
			m.Write(b)
			if got, want := k.MAC(nil, b, parts...), m.Sum(nil); !bytes.Equal(got, want) {
				t.Errorf("KDF %d, %d bytes: MAC %x, want %x", k, n, got, want)
			}
			want, err := hkdf.Expand(h, []byte("key"), string(b), 100)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 100)
			if k.Expand(got, []byte("key"), parts...); !bytes.Equal(got, want) {
				t.Errorf("KDF %d, %d bytes: expands to %x, want %x", k, n, got, want)
			}
		}
	}
}

func TestExpandLimit(t *testing.T) {
	for _, k := range kdfs {
		out := make([]byte, 255*k.Size())
		k.Expand(out, []byte("key"))
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("KDF %d expands beyond its limit", k)
				}
			}()
			k.Expand(make([]byte, 255*k.Size()+1), []byte("key"))
		}()
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The vectors of RFC 7748 §5.2: one call and a thousand iterations.
func TestX25519Vectors(t *testing.T) {
	for _, v := range []struct{ scalar, point, want string }{
		{"a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4", "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c", "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"},
		{"4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d", "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493", "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"},
	} {
		var out [32]byte
		if !x25519Shared(&out, unhex(t, v.scalar), unhex(t, v.point)) || !bytes.Equal(out[:], unhex(t, v.want)) {
			t.Errorf("X25519 gives %x, want %s", out, v.want)
		}
	}
	var k, u [32]byte
	k[0], u[0] = 9, 9
	for range 1000 {
		var r [32]byte
		if !x25519Shared(&r, k[:], u[:]) {
			t.Fatal("refused")
		}
		u, k = k, r
	}
	if want := "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"; hex.EncodeToString(k[:]) != want {
		t.Errorf("after 1000 rounds %x, want %s", k, want)
	}
}

func TestX25519AgainstStandardLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scalar := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "scalar")
		point := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "point")
		key, err := ecdh.X25519().NewPrivateKey(scalar)
		if err != nil {
			t.Fatal(err)
		}
		if got := x25519Public(scalar); !bytes.Equal(got, key.PublicKey().Bytes()) {
			t.Fatalf("public key %x, want %x", got, key.PublicKey().Bytes())
		}
		peer, err := ecdh.X25519().NewPublicKey(point)
		if err != nil {
			t.Fatal(err)
		}
		want, err := key.ECDH(peer)
		var got [32]byte
		if ok := x25519Shared(&got, scalar, point); ok != (err == nil) || ok && !bytes.Equal(got[:], want) {
			t.Fatalf("shared secret %x %v, want %x %v", got, ok, want, err)
		}
		public, ok := x25519Encap(&got, scalar, point)
		if ok != (err == nil) || ok && (!bytes.Equal(got[:], want) || !bytes.Equal(public, key.PublicKey().Bytes())) {
			t.Fatalf("both at once: %x, %x %v, want %x, %x %v", public, got, ok, key.PublicKey().Bytes(), want, err)
		}
	})
}

func TestX25519RefusesLowOrder(t *testing.T) {
	for _, p := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		point := unhex(t, p)
		if _, _, err := X25519().Encap(point); !errors.Is(err, ErrInvalidKey) {
			t.Errorf("encapsulated to %s: %v", p, err)
		}
		key, err := X25519().GenerateKeyPair()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := X25519().Decap(key, point); !errors.Is(err, ErrInvalidKey) {
			t.Errorf("decapsulated from %s: %v", p, err)
		}
	}
}

// TestOracle seals here and opens in crypto/hpke, and the other way round.
func TestOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kem := rapid.SampledFrom(kems).Draw(t, "kem")
		okem, err := oracle.NewKEM(kem.ID())
		if err != nil {
			t.Fatal(err)
		}
		kdf := rapid.SampledFrom(kdfs).Draw(t, "kdf")
		aead := rapid.SampledFrom(aeads).Draw(t, "aead")
		okdf, err := oracle.NewKDF(uint16(kdf))
		if err != nil {
			t.Fatal(err)
		}
		oaead, err := oracle.NewAEAD(uint16(aead))
		if err != nil {
			t.Fatal(err)
		}
		s := New(kem, kdf, aead)
		ikm := rapid.SliceOfN(rapid.Byte(), 32, 80).Draw(t, "ikm")
		info, aad, pt := drawBytes(t, "info", 700), drawBytes(t, "aad", 40), drawBytes(t, "plaintext", 200)

		key, err := kem.DeriveKeyPair(ikm)
		if err != nil {
			t.Fatal(err)
		}
		okey, err := okem.DeriveKeyPair(ikm)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(key.Public, okey.PublicKey().Bytes()) {
			t.Fatalf("derived %x, want %x", key.Public, okey.PublicKey().Bytes())
		}
		if err := kem.CheckPublicKey(key.Public); err != nil {
			t.Fatal(err)
		}
		okey, err = okem.NewPrivateKey(key.Private)
		if err != nil {
			t.Fatal(err)
		}

		enc, sender, err := s.NewSender(key.Public, s.Info(info))
		if err != nil {
			t.Fatal(err)
		}
		or, err := oracle.NewRecipient(enc, okey, okdf, oaead, info)
		if err != nil {
			t.Fatal(err)
		}
		oenc, os, err := oracle.NewSender(okey.PublicKey(), okdf, oaead, info)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "public key not given") {
			key.Public = nil
		}
		recipient, err := s.NewRecipient(key, oenc, s.Info(info[:len(info)/3], info[len(info)/3:]))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got, err := or.Open(aad, sender.Seal(nil, aad, pt)); err != nil || !bytes.Equal(got, pt) {
				t.Fatalf("oracle opens %x, %v", got, err)
			}
			ct, err := os.Seal(aad, pt)
			if err != nil {
				t.Fatal(err)
			}
			flipped := slices.Clone(ct)
			flipped[rapid.IntRange(0, len(ct)-1).Draw(t, "flipped byte")] ^= 1
			if _, err := recipient.Open(nil, aad, flipped); !errors.Is(err, ErrOpen) {
				t.Fatalf("opened a changed ciphertext: %v", err)
			}
			if got, err := recipient.Open([]byte("head"), aad, ct); err != nil || !bytes.Equal(got, append([]byte("head"), pt...)) {
				t.Fatalf("opened %x, %v", got, err)
			}
		}
		length := rapid.IntRange(0, 200).Draw(t, "export")
		want, err := or.Export(string(aad), length)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := sender.Export(aad, length); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("exported %x, %v, want %x", got, err, want)
		}

		ct, err := oracle.Seal(okey.PublicKey(), okdf, oaead, info, pt)
		if err != nil {
			t.Fatal(err)
		}
		n := kem.EncSize()
		if got, err := s.Open(nil, key, ct[:n], s.Info(info), nil, ct[n:]); err != nil || !bytes.Equal(got, pt) {
			t.Fatalf("opened %x, %v", got, err)
		}
		enc, out, err := s.Seal([]byte("head"), okey.PublicKey().Bytes(), s.Info(info), nil, pt)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(out, []byte("head")) || len(enc) != n || len(out) != 4+len(pt)+TagSize {
			t.Fatalf("sealed %d bytes, %d bytes", len(enc), len(out))
		}
		if got, err := oracle.Open(okey, okdf, oaead, info, append(enc, out[4:]...)); err != nil || !bytes.Equal(got, pt) {
			t.Fatalf("oracle opens %x, %v", got, err)
		}
	})
}

func TestKeys(t *testing.T) {
	sizes := map[uint16][3]int{0x20: {32, 32, 32}, 0x10: {32, 65, 65}, 0x11: {48, 97, 97}, 0x12: {66, 133, 133}, 0x647a: {32, 1216, 1120}}
	for _, kem := range kems {
		t.Run(fmt.Sprintf("%04x", kem.ID()), func(t *testing.T) {
			key, err := kem.GenerateKeyPair()
			if err != nil {
				t.Fatal(err)
			}
			want := sizes[kem.ID()]
			if len(key.Private) != want[0] || len(key.Public) != want[1] || kem.EncSize() != want[2] {
				t.Errorf("sizes %d, %d, %d, want %v", len(key.Private), len(key.Public), kem.EncSize(), want)
			}
			if pk, err := kem.PublicKey(key.Private); err != nil || !bytes.Equal(pk, key.Public) {
				t.Errorf("public key %x, %v", pk, err)
			}
			for _, text := range []string{fmt.Sprintf("%v", key), fmt.Sprintf("%+v %#v %x %s", key, key, key, key), fmt.Sprint(&key)} {
				if strings.Contains(text, hex.EncodeToString(key.Private)) || strings.Contains(text, fmt.Sprint(key.Private)) {
					t.Errorf("%q shows the private key", text)
				}
			}
			s := New(kem, HKDFSHA256, AES128GCM)
			for _, bad := range [][]byte{nil, {4}, key.Public[1:], append(slices.Clone(key.Public), 0)} {
				if err := kem.CheckPublicKey(bad); !errors.Is(err, ErrInvalidKey) {
					t.Errorf("public key of %d bytes: %v", len(bad), err)
				}
				if _, _, err := s.Seal(nil, bad, s.Info(), nil, nil); !errors.Is(err, ErrInvalidKey) {
					t.Errorf("sealed to a public key of %d bytes: %v", len(bad), err)
				}
			}
			enc, ct, err := s.Seal(nil, key.Public, s.Info(), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, bad := range [][]byte{nil, enc[1:], append(slices.Clone(enc), 0)} {
				if _, err := s.Open(nil, key, bad, s.Info(), nil, ct); !errors.Is(err, ErrOpen) {
					t.Errorf("opened with an encapsulated key of %d bytes: %v", len(bad), err)
				}
				if _, err := s.NewRecipient(key, bad, s.Info()); !errors.Is(err, ErrInvalidKey) {
					t.Errorf("recipient with an encapsulated key of %d bytes: %v", len(bad), err)
				}
			}
			for _, bad := range [][]byte{nil, append(slices.Clone(key.Private), 0)} {
				if _, err := kem.PublicKey(bad); !errors.Is(err, ErrInvalidKey) {
					t.Errorf("private key of %d bytes: %v", len(bad), err)
				}
				if _, err := s.Open(nil, KeyPair{bad, key.Public}, enc, s.Info(), nil, ct); !errors.Is(err, ErrOpen) {
					t.Errorf("opened with a private key of %d bytes: %v", len(bad), err)
				}
			}
			key.Wipe()
			if !bytes.Equal(key.Private, make([]byte, len(key.Private))) {
				t.Error("private key left after Wipe")
			}
		})
	}
}

// The check of X-Wing keys is that of crypto/mlkem, at each coefficient.
func TestXWingPublicKeyCheck(t *testing.T) {
	kem := XWing(0x647a)
	key, err := kem.GenerateKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 768 {
		for _, value := range []uint16{0, 3328, 3329, 4095} {
			public := slices.Clone(key.Public)
			if c := public[i/2*3:]; i%2 == 0 {
				c[0], c[1] = byte(value), c[1]&0xf0|byte(value>>8)
			} else {
				c[1], c[2] = c[1]&15|byte(value<<4), byte(value>>4)
			}
			_, want := mlkem.NewEncapsulationKey768(public[:mlkem.EncapsulationKeySize768])
			if got := kem.CheckPublicKey(public); (got == nil) != (want == nil) || (want == nil) != (value < 3329) {
				t.Fatalf("coefficient %d is %d: %v, crypto/mlkem: %v", i, value, got, want)
			}
		}
	}
	for range 1000 {
		public := slices.Clone(key.Public)
		rand.Read(public[mrand.IntN(1184):])
		_, want := mlkem.NewEncapsulationKey768(public[:mlkem.EncapsulationKeySize768])
		if got := kem.CheckPublicKey(public); (got == nil) != (want == nil) {
			t.Fatalf("%v, crypto/mlkem: %v", got, want)
		}
	}
}

// Writers of P-521 scalars drop leading zero bytes.
func TestShortScalar(t *testing.T) {
	for range 2000 {
		key, err := P521().GenerateKeyPair()
		if err != nil {
			t.Fatal(err)
		}
		if key.Private[0] != 0 {
			continue
		}
		if pk, err := P521().PublicKey(key.Private[1:]); err != nil || !bytes.Equal(pk, key.Public) {
			t.Errorf("public key %x, %v", pk, err)
		}
		return
	}
	t.Error("no scalar with a leading zero")
}

func TestContextLimits(t *testing.T) {
	key, err := X25519().GenerateKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	s := New(X25519(), HKDFSHA256, AES128GCM)
	if s.KEM() != X25519() || s.KDF() != HKDFSHA256 || s.AEAD() != AES128GCM {
		t.Error("suite does not name its parts")
	}
	_, c, err := s.NewSender(key.Public, s.Info())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{-1, 255*32 + 1} {
		if _, err := c.Export(nil, n); err == nil {
			t.Errorf("exported %d bytes", n)
		}
	}
	c.Wipe()
	if *c != (Context{}) {
		t.Error("secrets left after Wipe")
	}
	if _, err := AES128GCM.New(make([]byte, 15)); err == nil {
		t.Error("short AEAD key")
	}
}

func TestAllocations(t *testing.T) {
	key, err := X25519().GenerateKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	var secret, out [32]byte
	info := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() { HKDFSHA256.Expand(out[:], secret[:], info, info) }); n != 0 {
		t.Errorf("Expand allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { HKDFSHA256.Extract(out[:0], secret[:], info) }); n != 0 {
		t.Errorf("Extract allocates %v times", n)
	}
	s := New(X25519(), HKDFSHA256, ChaCha20Poly1305)
	pt := make([]byte, 32)
	digested := s.Info(info)
	if n := testing.AllocsPerRun(100, func() { _, _, _ = s.Seal(nil, key.Public, digested, nil, pt) }); n > 6 {
		t.Errorf("Seal allocates %v times", n)
	}
}

func FuzzOpen(f *testing.F) {
	keys := map[uint16]KeyPair{}
	for _, kem := range kems {
		key, err := kem.DeriveKeyPair(make([]byte, 32))
		if err != nil {
			f.Fatal(err)
		}
		keys[kem.ID()] = key
		s := New(kem, HKDFSHA256, ChaCha20Poly1305)
		enc, ct, err := s.Seal(nil, key.Public, s.Info(), nil, []byte("text"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(enc, ct[1:], key.Public, key.Private)
	}
	f.Add([]byte{}, []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, enc, ct, public, private []byte) {
		for _, kem := range kems {
			s := New(kem, HKDFSHA256, ChaCha20Poly1305)
			if _, err := s.Open(nil, keys[kem.ID()], enc, s.Info(), nil, ct); !errors.Is(err, ErrOpen) {
				t.Errorf("KEM %04x opens: %v", kem.ID(), err)
			}
			_, _, err := s.Seal(nil, public, s.Info(), nil, ct)
			if check := kem.CheckPublicKey(public); check != nil && err == nil {
				t.Errorf("KEM %04x seals to a key that it finds invalid", kem.ID())
			}
			if err != nil && !errors.Is(err, ErrInvalidKey) {
				t.Errorf("KEM %04x: %v", kem.ID(), err)
			}
			if pk, err := kem.PublicKey(private); err == nil {
				if err := kem.CheckPublicKey(pk); err != nil {
					t.Errorf("KEM %04x makes an invalid public key", kem.ID())
				}
			} else if !errors.Is(err, ErrInvalidKey) {
				t.Errorf("KEM %04x: %v", kem.ID(), err)
			}
		}
	})
}

func BenchmarkExpand(b *testing.B) {
	var secret, out [32]byte
	info := make([]byte, 30)
	b.ReportAllocs()
	for b.Loop() {
		HKDFSHA256.Expand(out[:], secret[:], info)
	}
}

func BenchmarkX25519(b *testing.B) {
	key, err := X25519().GenerateKeyPair()
	if err != nil {
		b.Fatal(err)
	}
	var out [32]byte
	b.Run("public", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			x25519Public(key.Private)
		}
	})
	b.Run("shared", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			x25519Shared(&out, key.Private, key.Public)
		}
	})
	b.Run("standard", func(b *testing.B) {
		k, err := ecdh.X25519().NewPrivateKey(key.Private)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			_, _ = k.ECDH(k.PublicKey())
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	pt := make([]byte, 32)
	for _, kem := range kems {
		s := New(kem, HKDFSHA256, ChaCha20Poly1305)
		info := s.Info(make([]byte, 200))
		key, err := kem.GenerateKeyPair()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%04x", kem.ID()), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = s.Seal(nil, key.Public, info, nil, pt)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	pt := make([]byte, 32)
	for _, kem := range kems {
		s := New(kem, HKDFSHA256, ChaCha20Poly1305)
		info := s.Info(make([]byte, 200))
		key, err := kem.GenerateKeyPair()
		if err != nil {
			b.Fatal(err)
		}
		enc, ct, err := s.Seal(nil, key.Public, info, nil, pt)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%04x", kem.ID()), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Open(nil, key, enc, info, nil, ct)
			}
		})
	}
}

func BenchmarkDeriveKeyPair(b *testing.B) {
	ikm := make([]byte, 32)
	for _, kem := range kems {
		b.Run(fmt.Sprintf("%04x", kem.ID()), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = kem.DeriveKeyPair(ikm)
			}
		})
	}
}

func BenchmarkCheckPublicKey(b *testing.B) {
	for _, kem := range kems {
		key, err := kem.GenerateKeyPair()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%04x", kem.ID()), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := kem.CheckPublicKey(key.Public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("crypto mlkem", func(b *testing.B) {
		key, err := XWing(0x647a).GenerateKeyPair()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := mlkem.NewEncapsulationKey768(key.Public[:mlkem.EncapsulationKeySize768]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
