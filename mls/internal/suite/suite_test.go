package suite

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/vectortest"
)

var ids = []ID{1, 2, 3, 5, 7}

func mustSuite(t testing.TB, id ID) *Suite {
	t.Helper()
	s, ok := ByID(id)
	if !ok {
		t.Fatalf("no suite %d", id)
	}
	return s
}

func TestVectors(t *testing.T) {
	type vector struct {
		Suite   ID `json:"cipher_suite"`
		RefHash struct {
			Label string
			Value vectortest.Hex
			Out   vectortest.Hex
		} `json:"ref_hash"`
		ExpandWithLabel struct {
			Secret  vectortest.Hex
			Label   string
			Context vectortest.Hex
			Length  int
			Out     vectortest.Hex
		} `json:"expand_with_label"`
		DeriveSecret struct {
			Secret vectortest.Hex
			Label  string
			Out    vectortest.Hex
		} `json:"derive_secret"`
		DeriveTreeSecret struct {
			Secret     vectortest.Hex
			Label      string
			Generation uint32
			Length     int
			Out        vectortest.Hex
		} `json:"derive_tree_secret"`
		SignWithLabel struct {
			Priv, Pub vectortest.Hex
			Content   vectortest.Hex
			Label     string
			Signature vectortest.Hex
		} `json:"sign_with_label"`
		EncryptWithLabel struct {
			Priv, Pub  vectortest.Hex
			Label      string
			Context    vectortest.Hex
			Plaintext  vectortest.Hex
			KEMOutput  vectortest.Hex `json:"kem_output"`
			Ciphertext vectortest.Hex
		} `json:"encrypt_with_label"`
	}
	var run []ID
	for _, v := range vectortest.Load[vector](t, "crypto-basics.json") {
		s, ok := ByID(v.Suite)
		if !ok {
			t.Logf("suite %d is not available (X448, Ed448)", v.Suite)
			continue
		}
		run = append(run, v.Suite)
		t.Run(fmt.Sprint(v.Suite), func(t *testing.T) {
			check := func(what string, got, want []byte) {
				t.Helper()
				if !bytes.Equal(got, want) {
					t.Errorf("%s: %x, want %x", what, got, want)
				}
			}
			check("RefHash", s.RefHash(v.RefHash.Label, v.RefHash.Value), v.RefHash.Out)
			e := v.ExpandWithLabel
			out := make([]byte, e.Length)
			s.ExpandWithLabel(out, e.Secret, e.Label, e.Context)
			check("ExpandWithLabel", out, e.Out)
			check("DeriveSecret", s.DeriveSecret(v.DeriveSecret.Secret, v.DeriveSecret.Label), v.DeriveSecret.Out)
			d := v.DeriveTreeSecret
			out = make([]byte, d.Length)
			s.DeriveTreeSecret(out, d.Secret, d.Label, d.Generation)
			check("DeriveTreeSecret", out, d.Out)

			g := v.SignWithLabel
			if !s.VerifyWithLabel(g.Pub, g.Label, g.Signature, g.Content) {
				t.Error("signature does not verify")
			}
			key, err := s.Signature().NewSigner(g.Priv)
			if err != nil {
				t.Fatal(err)
			}
			check("public signature key", key.Public(), g.Pub)
			sig, err := SignWithLabel(key, g.Label, g.Content[:5], g.Content[5:])
			if err != nil {
				t.Fatal(err)
			}
			if !s.VerifyWithLabel(g.Pub, g.Label, sig, g.Content) {
				t.Error("own signature does not verify")
			}

			c := v.EncryptWithLabel
			for _, public := range [][]byte{c.Pub, nil} {
				got, err := s.DecryptWithLabel(hpke.KeyPair{Private: c.Priv, Public: public}, c.Label, c.Context, c.KEMOutput, c.Ciphertext)
				if err != nil {
					t.Fatal(err)
				}
				check("DecryptWithLabel", got, c.Plaintext)
			}
			kem, ct, err := s.Encryptor(c.Label, c.Context).Encrypt(nil, c.Pub, c.Plaintext)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.DecryptWithLabel(hpke.KeyPair{Private: c.Priv}, c.Label, c.Context, kem, ct)
			if err != nil {
				t.Fatal(err)
			}
			check("own ciphertext", got, c.Plaintext)
		})
	}
	if !slices.Equal(run, ids) {
		t.Errorf("ran suites %d, want %d", run, ids)
	}
}

func TestSizes(t *testing.T) {
	for id, want := range map[ID][2]int{1: {32, 16}, 2: {32, 16}, 3: {32, 32}, 5: {64, 32}, 7: {48, 32}} {
		s := mustSuite(t, id)
		if s.ID() != id || s.HashSize() != want[0] || s.KeySize() != want[1] || s.NonceSize() != 12 {
			t.Errorf("suite %d: id %d, hash %d, key %d, nonce %d", id, s.ID(), s.HashSize(), s.KeySize(), s.NonceSize())
		}
		a, err := s.AEAD(make([]byte, s.KeySize()))
		if err != nil {
			t.Fatal(err)
		}
		if a.NonceSize() != s.NonceSize() {
			t.Errorf("suite %d: nonces of %d", id, a.NonceSize())
		}
		if got := s.Extract(nil, nil); len(got) != want[0] {
			t.Errorf("suite %d: extracts %d bytes", id, len(got))
		}
	}
	for _, id := range []ID{0, 4, 6, 8, 0x4d} {
		if _, ok := ByID(id); ok {
			t.Errorf("suite %d", id)
		}
	}
}

func TestSuiteFromParts(t *testing.T) {
	s := New(0xf000, hpke.New(hpke.P256(), hpke.HKDFSHA512, hpke.AES256GCM), Ed25519())
	if s.ID() != 0xf000 || s.HashSize() != 64 || s.KeySize() != 32 {
		t.Errorf("suite %d with hash of %d, key of %d", s.ID(), s.HashSize(), s.KeySize())
	}
	if got, want := s.Hash([]byte("head"), []byte("a"), []byte("b")), hpke.HKDFSHA512.Hash([]byte("head"), []byte("ab")); !bytes.Equal(got, want) {
		t.Errorf("hash %x, want %x", got, want)
	}
	key, err := s.GenerateKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	derived, err := s.DeriveKeyPair(key.Private)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := s.HPKE().KEM().DeriveKeyPair(key.Private); err != nil || !bytes.Equal(derived.Public, want.Public) {
		t.Errorf("derived %v, want %v, %v", derived, want, err)
	}
	if err := s.CheckPublicKey(key.Public); err != nil || len(key.Public) != 65 {
		t.Errorf("public key of %d bytes: %v", len(key.Public), err)
	}
}

func TestMAC(t *testing.T) {
	for _, id := range ids {
		s := mustSuite(t, id)
		rapid.Check(t, func(t *rapid.T) {
			key := rapid.SliceOf(rapid.Byte()).Draw(t, "key")
			a, b := rapid.SliceOf(rapid.Byte()).Draw(t, "a"), rapid.SliceOf(rapid.Byte()).Draw(t, "b")
			tag := s.MAC(key, a, b)
			if len(tag) != s.HashSize() || !s.VerifyMAC(key, tag, slices.Concat(a, b)) {
				t.Fatal("tag does not verify")
			}
			if s.VerifyMAC(key, tag[:len(tag)-1], a, b) || s.VerifyMAC(key, append(tag, 0), a, b) || s.VerifyMAC(key, nil, a, b) {
				t.Fatal("tag of another length verifies")
			}
			tag[rapid.IntRange(0, len(tag)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			if s.VerifyMAC(key, tag, a, b) {
				t.Fatal("changed tag verifies")
			}
		})
	}
}

func TestSignature(t *testing.T) {
	for _, id := range ids {
		t.Run(fmt.Sprint(id), func(t *testing.T) {
			s := mustSuite(t, id)
			private, err := s.Signature().Generate()
			if err != nil {
				t.Fatal(err)
			}
			key, err := s.Signature().NewSigner(private)
			if err != nil {
				t.Fatal(err)
			}
			sig, err := SignWithLabel(key, "A", []byte("content"))
			if err != nil {
				t.Fatal(err)
			}
			if !s.VerifyWithLabel(key.Public(), "A", sig, []byte("con"), []byte("tent")) {
				t.Error("signature does not verify")
			}
			pub := slices.Clone(key.Public())
			for what, ok := range map[string]bool{
				"other label":          s.VerifyWithLabel(pub, "B", sig, []byte("content")),
				"other content":        s.VerifyWithLabel(pub, "A", sig, []byte("contents")),
				"short signature":      s.VerifyWithLabel(pub, "A", sig[1:], []byte("content")),
				"no signature":         s.VerifyWithLabel(pub, "A", nil, []byte("content")),
				"short key":            s.VerifyWithLabel(pub[1:], "A", sig, []byte("content")),
				"no key":               s.VerifyWithLabel(nil, "A", sig, []byte("content")),
				"signature and a byte": s.VerifyWithLabel(pub, "A", append(slices.Clone(sig), 0), []byte("content")),
			} {
				if ok {
					t.Errorf("verifies with %s", what)
				}
			}
			for _, bad := range [][]byte{nil, append(slices.Clone(private), 1), make([]byte, len(private)+1)} {
				if _, err := s.Signature().NewSigner(bad); !errors.Is(err, ErrInvalidSignatureKey) {
					t.Errorf("private key of %d bytes: %v", len(bad), err)
				}
			}
			if text := fmt.Sprintf("%v %+v %#v %x", key, key, key, key); strings.Contains(text, hex.EncodeToString(private)[:16]) {
				t.Errorf("%q shows the private key", text)
			}
		})
	}
}

// Writers of P-521 scalars drop leading zero bytes.
func TestShortSignatureScalar(t *testing.T) {
	s := mustSuite(t, 5)
	for range 2000 {
		private, err := s.Signature().Generate()
		if err != nil {
			t.Fatal(err)
		}
		if private[0] != 0 {
			continue
		}
		long, err := s.Signature().NewSigner(private)
		if err != nil {
			t.Fatal(err)
		}
		short, err := s.Signature().NewSigner(private[1:])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(long.Public(), short.Public()) {
			t.Error("another public key")
		}
		return
	}
	t.Error("no scalar with a leading zero")
}

func TestSecretIsRedacted(t *testing.T) {
	secret := Secret("swordfish")
	in := struct {
		Name   string
		Secret Secret
		List   []Secret
	}{"n", secret, []Secret{secret}}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", secret, "in", in, "key", Key{Key: [MaxKeySize]byte([]byte("swordfishswordfishswordfish....."))})
	js, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		secret.String(), fmt.Sprint(secret), fmt.Sprintf("%v %+v %#v %s %x %q", in, in, in, in, in, in),
		log.String(), string(js), fmt.Errorf("with %v", in).Error(),
	} {
		low := strings.ToLower(text)
		for _, leak := range []string{"swordfish", hex.EncodeToString(secret), "115 119 111", "0x73, 0x77", "c3dvcmrmaxno"} {
			if strings.Contains(low, leak) {
				t.Errorf("%q shows the secret", text)
			}
		}
	}
	secret.Wipe()
	if !bytes.Equal(secret, make([]byte, 9)) {
		t.Error("secret left after Wipe")
	}
}

func TestKey(t *testing.T) {
	for _, id := range ids {
		s := mustSuite(t, id)
		secret := s.Extract(nil, []byte("secret"))
		k := s.ExpandKey(secret, []byte("context"))
		if k.Key == s.DeriveTreeKey(secret, 0).Key {
			t.Errorf("suite %d: key does not depend on labels", id)
		}
		ct, err := s.Seal(&k, []byte("head"), []byte("aad"), []byte("text"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Open(&k, []byte("tail"), []byte("aad"), ct[4:]); err != nil || string(got) != "tailtext" {
			t.Errorf("suite %d: opened %q, %v", id, got, err)
		}
		guard, plain := [4]byte{1, 2, 3, 4}, k
		k.Guard(guard)
		if _, err := s.Open(&k, nil, []byte("aad"), ct[4:]); !errors.Is(err, hpke.ErrOpen) {
			t.Errorf("suite %d: guard does not change the nonce: %v", id, err)
		}
		k.Guard(guard)
		if k != plain {
			t.Errorf("suite %d: guard is not undone", id)
		}
		if text := fmt.Sprintf("%v %+v %#v %x", k, &k, k, k); strings.Contains(text, hex.EncodeToString(k.Key[:4])) {
			t.Errorf("%q shows the key", text)
		}
		k.Wipe()
		if k != (Key{}) {
			t.Errorf("suite %d: key left after Wipe", id)
		}
	}
}

func TestAllocations(t *testing.T) {
	s := mustSuite(t, 3)
	var secret, out [32]byte
	context := make([]byte, 200)
	if n := testing.AllocsPerRun(100, func() { s.ExpandWithLabel(out[:], secret[:], "label", context) }); n != 0 {
		t.Errorf("ExpandWithLabel allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { s.DeriveTreeSecret(out[:], secret[:], "secret", 1) }); n != 0 {
		t.Errorf("DeriveTreeSecret allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { s.DeriveSecret(secret[:], "label") }); n != 1 {
		t.Errorf("DeriveSecret allocates %v times", n)
	}
	key, err := s.Signature().NewSigner(secret[:])
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = SignWithLabel(key, "label", context, context) }); n != 1 {
		t.Errorf("SignWithLabel allocates %v times", n)
	}
	tag := s.MAC(secret[:], context)
	if n := testing.AllocsPerRun(100, func() { s.VerifyMAC(secret[:], tag, context) }); n != 0 {
		t.Errorf("VerifyMAC allocates %v times", n)
	}
}

func BenchmarkExpandWithLabel(b *testing.B) {
	s := mustSuite(b, 3)
	var secret, out [32]byte
	b.ReportAllocs()
	for b.Loop() {
		s.ExpandWithLabel(out[:], secret[:], "application", nil)
	}
}

func BenchmarkSignature(b *testing.B) {
	for _, id := range []ID{3, 2} {
		s := mustSuite(b, id)
		private, err := s.Signature().Generate()
		if err != nil {
			b.Fatal(err)
		}
		key, err := s.Signature().NewSigner(private)
		if err != nil {
			b.Fatal(err)
		}
		content := make([]byte, 1200)
		sig, err := SignWithLabel(key, "FramedContentTBS", content)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%d/sign", id), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = SignWithLabel(key, "FramedContentTBS", content)
			}
		})
		b.Run(fmt.Sprintf("%d/verify", id), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.VerifyWithLabel(key.Public(), "FramedContentTBS", sig, content)
			}
		})
	}
}
