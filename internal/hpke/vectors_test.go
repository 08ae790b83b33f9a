package hpke

import (
	"bytes"
	"crypto/mlkem/mlkemtest"
	"crypto/sha3"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"go/build"
	"io"
	"os"
	"path/filepath"
	"testing"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

func loadJSON[T any](t *testing.T, path string) (v []T) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func kemByID(id uint16) KEM {
	for _, k := range []KEM{X25519(), P256(), P384(), P521(), XWing(0x647a), XWing(0x004d)} {
		if k.ID() == id {
			return k
		}
	}
	return nil
}

// encapFrom is Encap with the randomness of a vector.
func encapFrom(t *testing.T, kem KEM, public, random []byte) (shared, enc []byte) {
	t.Helper()
	var err error
	switch kem := kem.(type) {
	case *x25519KEM:
		e, derr := kem.DeriveKeyPair(random)
		if derr != nil {
			t.Fatal(derr)
		}
		shared, enc, err = kem.encap(public, e.Private)
	case *nistKEM:
		e, derr := kem.DeriveKeyPair(random)
		if derr != nil {
			t.Fatal(derr)
		}
		key, derr := kem.parse(e.Private)
		if derr != nil {
			t.Fatal(derr)
		}
		shared, enc, err = kem.encap(public, key)
	case xwingKEM:
		pq, x, perr := kem.parse(public)
		if perr != nil {
			t.Fatal(perr)
		}
		ss, ct, perr := mlkemtest.Encapsulate768(pq, random[:32])
		if perr != nil {
			t.Fatal(perr)
		}
		shared, enc, err = kem.encap(ss, ct, x, random[32:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return shared, enc
}

// TestVectors reads the vectors of RFC 9180 and of draft-ietf-hpke-pq where
// the Go distribution carries them.
func TestVectors(t *testing.T) {
	dir := filepath.Join(build.Default.GOROOT, "src", "crypto", "hpke", "testdata")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("HPKE test vectors: %v", err)
		}
		t.Skipf("NOT PROVEN: RFC 9180 vectors. They come with the source of Go's crypto/hpke: %v", err)
	}
	type vector struct {
		Mode        uint16   `json:"mode"`
		KEM         uint16   `json:"kem_id"`
		KDF         KDF      `json:"kdf_id"`
		AEAD        AEAD     `json:"aead_id"`
		Info        hexBytes `json:"info"`
		IkmE        hexBytes `json:"ikmE"`
		IkmR        hexBytes `json:"ikmR"`
		SkR         hexBytes `json:"skRm"`
		PkR         hexBytes `json:"pkRm"`
		Enc         hexBytes `json:"enc"`
		Encryptions []struct {
			AAD        hexBytes `json:"aad"`
			Ciphertext hexBytes `json:"ct"`
			Plaintext  hexBytes `json:"pt"`
		} `json:"encryptions"`
		Exports []struct {
			Context hexBytes `json:"exporter_context"`
			Length  int      `json:"L"`
			Value   hexBytes `json:"exported_value"`
		} `json:"exports"`
		// Hashes over a thousand encryptions and exports of inputs drawn
		// from a SHAKE128 stream, in the place of the lists above.
		AllEncryptions hexBytes `json:"encryptions_accumulated"`
		AllExports     hexBytes `json:"exports_accumulated"`
	}
	run := map[uint16]int{}
	for _, file := range []string{"rfc9180.json", "hpke-pq.json"} {
		for _, v := range loadJSON[vector](t, filepath.Join(dir, file)) {
			kem := kemByID(v.KEM)
			if v.Mode != 0 || kem == nil || !v.KDF.Valid() || !v.AEAD.Valid() {
				continue // not offered here
			}
			run[v.KEM]++
			t.Run(fmt.Sprintf("%s/%04x-%04x-%04x", file, v.KEM, v.KDF, v.AEAD), func(t *testing.T) {
				key, err := kem.DeriveKeyPair(v.IkmR)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(key.Private, v.SkR) || !bytes.Equal(key.Public, v.PkR) {
					t.Errorf("derived %x, %x", key.Private, key.Public)
				}
				if pk, err := kem.PublicKey(v.SkR); err != nil || !bytes.Equal(pk, v.PkR) {
					t.Errorf("public key %x, %v", pk, err)
				}
				s := New(kem, v.KDF, v.AEAD)
				shared, enc := encapFrom(t, kem, v.PkR, v.IkmE)
				if !bytes.Equal(enc, v.Enc) || len(enc) != kem.EncSize() {
					t.Errorf("encapsulated key %x", enc)
				}
				var sender Context
				info := s.Info(v.Info)
				if err := s.schedule(&sender, shared, &info, true); err != nil {
					t.Fatal(err)
				}
				recipient, err := s.NewRecipient(KeyPair{Private: v.SkR}, v.Enc, info)
				if err != nil {
					t.Fatal(err)
				}
				seal := func(aad, plaintext []byte) []byte {
					ct := sender.Seal(nil, aad, plaintext)
					if got, err := recipient.Open(nil, aad, ct); err != nil || !bytes.Equal(got, plaintext) {
						t.Fatalf("opened %x, %v", got, err)
					}
					return ct
				}
				export := func(context []byte, n int) []byte {
					a, aerr := sender.Export(context, n)
					b, berr := recipient.Export(context, n)
					if aerr != nil || berr != nil || !bytes.Equal(a, b) {
						t.Fatalf("exports %x, %v; %x, %v", a, aerr, b, berr)
					}
					return a
				}
				for _, e := range v.Encryptions {
					if ct := seal(e.AAD, e.Plaintext); !bytes.Equal(ct, e.Ciphertext) {
						t.Errorf("ciphertext %x, want %x", ct, e.Ciphertext)
					}
				}
				for _, e := range v.Exports {
					if x := export(e.Context, e.Length); !bytes.Equal(x, e.Value) {
						t.Errorf("export %x, want %x", x, e.Value)
					}
				}
				accumulate := func(want []byte, f func(i int, in io.Reader) []byte) {
					if want == nil {
						return
					}
					in, out := sha3.NewSHAKE128(), sha3.NewSHAKE128()
					for i := range 1000 {
						out.Write(f(i, in))
					}
					got := make([]byte, len(want))
					out.Read(got)
					if !bytes.Equal(got, want) {
						t.Errorf("accumulated %x, want %x", got, want)
					}
				}
				draw := func(in io.Reader) []byte {
					var n [1]byte
					io.ReadFull(in, n[:])
					b := make([]byte, n[0])
					io.ReadFull(in, b)
					return b
				}
				accumulate(v.AllEncryptions, func(_ int, in io.Reader) []byte {
					aad := draw(in)
					return seal(aad, draw(in))
				})
				accumulate(v.AllExports, func(i int, in io.Reader) []byte { return export(draw(in), i) })
				if len(v.Encryptions) == 0 && v.AllEncryptions == nil || len(v.Exports) == 0 && v.AllExports == nil {
					t.Error("vector proves nothing")
				}
			})
		}
	}
	for _, id := range []uint16{0x0010, 0x0012, 0x0020, 0x647a} {
		if run[id] == 0 {
			t.Errorf("no vector for KEM %04x", id)
		}
	}
}

// TestWelcomes opens welcomes that the official XMTP client sealed.
func TestWelcomes(t *testing.T) {
	type welcome struct {
		Source      string
		KEM         uint16
		Private     hexBytes
		Public      hexBytes
		Info        hexBytes
		Enc         hexBytes
		Ciphertexts []hexBytes
		Plaintexts  []hexBytes // nil if not recorded
	}
	for _, w := range loadJSON[welcome](t, "testdata/welcomes.json") {
		t.Run(w.Source, func(t *testing.T) {
			kem := kemByID(w.KEM)
			if pk, err := kem.PublicKey(w.Private); err != nil || !bytes.Equal(pk, w.Public) {
				t.Fatalf("public key %x, %v", pk, err)
			}
			s := New(kem, HKDFSHA256, ChaCha20Poly1305)
			for _, public := range [][]byte{w.Public, nil} {
				c, err := s.NewRecipient(KeyPair{w.Private, public}, w.Enc, s.Info(w.Info))
				if err != nil {
					t.Fatal(err)
				}
				for i, ct := range w.Ciphertexts {
					got, err := c.Open(nil, nil, ct)
					if err != nil {
						t.Fatalf("message %d: %v", i, err)
					}
					if w.Plaintexts != nil && !bytes.Equal(got, w.Plaintexts[i]) {
						t.Errorf("message %d is %x", i, got)
					}
				}
			}
			if w.KEM == 0x004d {
				standard := New(XWing(0x647a), HKDFSHA256, ChaCha20Poly1305)
				if _, err := standard.Open(nil, KeyPair{w.Private, w.Public}, w.Enc, standard.Info(w.Info), nil, w.Ciphertexts[0]); err != ErrOpen {
					t.Errorf("opens under the registered KEM number: %v", err)
				}
			}
		})
	}
}
