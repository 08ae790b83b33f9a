package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/contents"
)

func testWallet(tb testing.TB, seed byte) *WalletKey {
	tb.Helper()
	key, err := ParseWalletKey(bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func testInstallation(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
}

func installationID(key ed25519.PrivateKey) Identifier {
	return Installation(key.Public().(ed25519.PublicKey))
}

func verifyText(text string, sig *associations.Signature) (verifiedSignature, error) {
	if err := checkSignature(sig); err != nil {
		return verifiedSignature{}, err
	}
	return newSigningText(text).verify(context.Background(), sig, nil)
}

func TestWalletKeySigns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")
		text := rapid.String().Draw(t, "text")
		key, err := ParseWalletKey(b)
		if err != nil {
			t.Skip("no key")
		}
		sig := key.SignText(text)
		raw := sig.GetErc_191().GetBytes()
		if len(raw) != 65 || raw[64] != 27 && raw[64] != 28 {
			t.Fatalf("signature %x", raw)
		}
		v, err := verifyText(text, sig)
		if err != nil || v.signer != key.Identifier() || v.kind != signatureERC191 || v.raw != string(raw) {
			t.Fatalf("got %+v, %v", v, err)
		}
		if other, err := verifyText(text+".", sig); err == nil && other.signer == key.Identifier() {
			t.Fatal("verifies for another text")
		}
		if !bytes.Equal(key.Bytes(), b) {
			t.Fatal("another key")
		}
	})
}

// TestECDSATwins: the network normalises S, but not V.
func TestECDSATwins(t *testing.T) {
	key := testWallet(t, 1)
	raw := key.SignText("text").GetErc_191().GetBytes()
	var s secp256k1.ModNScalar
	s.SetByteSlice(raw[32:64])
	s.Negate()
	high := bytes.Clone(raw)
	s.PutBytesUnchecked(high[32:64])

	v, err := verifyText("text", EOASignature(high))
	if err != nil || v.signer != key.Identifier() || v.raw != string(raw) {
		t.Errorf("same V: got %+v, %v", v, err)
	}
	high[64] ^= 27 ^ 28
	v, err = verifyText("text", EOASignature(high))
	if err == nil && v.signer == key.Identifier() {
		t.Error("other V recovers the same address")
	}

	// 27 and 0 say the same, and are remembered as different.
	other := bytes.Clone(raw)
	other[64] -= 27
	v, err = verifyText("text", EOASignature(other))
	if err != nil || v.signer != key.Identifier() || v.raw != string(other) {
		t.Errorf("V from 0: got %+v, %v", v, err)
	}
}

func TestECDSARefused(t *testing.T) {
	raw := testWallet(t, 1).SignText("text").GetErc_191().GetBytes()
	edit := func(f func(b []byte)) []byte {
		b := bytes.Clone(raw)
		f(b)
		return b
	}
	order := groupOrder(t)
	for _, c := range []struct {
		name string
		sig  []byte
		want *Error
		text string
	}{
		{"empty", nil, ErrSignatureInvalid, "Signature validation failed"},
		{"66 bytes", append(bytes.Clone(raw), 0), ErrSignatureInvalid, "Signature validation failed"},
		{"no V", raw[:64], ErrECDSA, "expected exactly 65 bytes"},
		{"no V, r = 0", make([]byte, 64), ErrEd25519, "ed25519 Signature failed signature error"},
		{"r = n", edit(func(b []byte) { copy(b, order) }), ErrEd25519, "ed25519 Signature failed signature error"},
		{"s = n", edit(func(b []byte) { copy(b[32:], order) }), ErrEd25519, "ed25519 Signature failed signature error"},
		{"s = 0", edit(func(b []byte) { clear(b[32:64]) }), ErrEd25519, "ed25519 Signature failed signature error"},
		{"V = 2", edit(func(b []byte) { b[64] = 2 }), ErrECDSA, "invalid parity: 2"},
		{"V = 26", edit(func(b []byte) { b[64] = 26 }), ErrECDSA, "invalid parity: 26"},
		{"V = 29", edit(func(b []byte) { b[64] = 29 }), ErrECDSA, "invalid parity: 29"},
		{"V = 34", edit(func(b []byte) { b[64] = 34 }), ErrECDSA, "invalid parity: 34"},
		// 5 is no X coordinate of the curve.
		{"no point", edit(func(b []byte) { clear(b[:31]); b[31] = 5 }), ErrECDSA, "signature error"},
	} {
		if _, err := verifyText("text", EOASignature(c.sig)); !errors.Is(err, c.want) || err.Error() != c.text {
			t.Errorf("%s: got %v, want %s", c.name, err, c.text)
		}
	}
}

// groupOrder is n of secp256k1.
func groupOrder(t *testing.T) []byte {
	t.Helper()
	return fromHex(t, "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
}

func TestWalletKeyRedacted(t *testing.T) {
	key := testWallet(t, 0x11)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(verb, key); strings.Contains(got, "11") || strings.Contains(got, "17") {
			t.Errorf("%s prints %s", verb, got)
		}
	}
	var b bytes.Buffer
	slog.New(slog.NewJSONHandler(&b, nil)).Info("key", "key", key, "in", struct{ K *WalletKey }{key})
	if got := b.String(); strings.Contains(got, "1111") || strings.Count(got, "redacted") != 2 {
		t.Errorf("logs %s", got)
	}
	key.Wipe()
	if !bytes.Equal(key.Bytes(), make([]byte, 32)) {
		t.Error("not wiped")
	}
}

func TestParseWalletKeyRefuses(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 32), make([]byte, 31), groupOrder(t), bytes.Repeat([]byte{1}, 33)} {
		if _, err := ParseWalletKey(b); err == nil {
			t.Errorf("%x is a key", b)
		}
	}
	a, errA := GenerateWalletKey()
	b, errB := GenerateWalletKey()
	if errA != nil || errB != nil || a.Identifier() == b.Identifier() {
		t.Errorf("generated %v (%v) and %v (%v)", a.Identifier(), errA, b.Identifier(), errB)
	}
}

func TestInstallationSignature(t *testing.T) {
	key := testInstallation(1)
	sig := SignInstallation(key, "text")
	v, err := verifyText("text", sig)
	if err != nil || v.signer != installationID(key) || v.raw != string(sig.GetInstallationKey().GetBytes()) {
		t.Fatalf("got %+v, %v", v, err)
	}
	public := SignPublic(key, "text")
	if err := VerifyPublic(key.Public().(ed25519.PublicKey), "text", public); err != nil {
		t.Error(err)
	}
	// The two contexts don't mix.
	sig.GetInstallationKey().Bytes = public
	if _, err := verifyText("text", sig); !errors.Is(err, ErrEd25519) {
		t.Errorf("public signature in an update: %v", err)
	}
	if err := VerifyPublic(key.Public().(ed25519.PublicKey), "text", SignInstallation(key, "text").GetInstallationKey().GetBytes()); !errors.Is(err, ErrEd25519) {
		t.Errorf("update signature in public: %v", err)
	}
	if err := VerifyPublic(nil, "text", public); !errors.Is(err, ErrEd25519) {
		t.Errorf("no key: %v", err)
	}
	if err := VerifyPublic(key.Public().(ed25519.PublicKey), "text", public[1:]); !errors.Is(err, ErrSignatureLength) {
		t.Errorf("short signature: %v", err)
	}
	noPoint := make([]byte, 32)
	noPoint[0] = 2 // no X has this Y
	sig.GetInstallationKey().PublicKey = noPoint
	if _, err := verifyText("text", sig); !errors.Is(err, ErrInvalidInstallationKey) || err.Error() != "signature error: Cannot decompress Edwards point" {
		t.Errorf("no point: %v", err)
	}
}

// passkey is a software authenticator.
type passkey struct {
	key *ecdsa.PrivateKey
}

func newPasskey(tb testing.TB) passkey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return passkey{key}
}

// encodings returns the key in all forms that SEC1 knows.
func (p passkey) encodings(tb testing.TB) (compressed, uncompressed, compact []byte) {
	tb.Helper()
	uncompressed, err := p.key.PublicKey.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	compressed = append([]byte{2 + uncompressed[64]&1}, uncompressed[1:33]...)
	compact = append([]byte{5}, uncompressed[1:33]...)
	return compressed, uncompressed, compact
}

func (p passkey) sign(tb testing.TB, public []byte, clientData string) *associations.Signature {
	tb.Helper()
	authData := []byte("authenticator data")
	hash := sha256.Sum256([]byte(clientData))
	digest := sha256.Sum256(append(bytes.Clone(authData), hash[:]...))
	sig, err := ecdsa.SignASN1(rand.Reader, p.key, digest[:])
	if err != nil {
		tb.Fatal(err)
	}
	return PasskeySignature(public, sig, authData, []byte(clientData))
}

func clientDataFor(text string) string {
	return fmt.Sprintf(`{"type":"webauthn.get","challenge":%q,"origin":"https://example.org"}`, encodeChallenge(text))
}

func TestPasskeySignature(t *testing.T) {
	p := newPasskey(t)
	compressed, uncompressed, _ := p.encodings(t)
	for _, public := range [][]byte{compressed, uncompressed} {
		sig := p.sign(t, public, clientDataFor("text"))
		v, err := verifyText("text", sig)
		if err != nil || v.signer != Passkey(public) || v.relyingParty != "https://example.org" || len(v.raw) != 64 {
			t.Errorf("%x: got %+v, %v", public[:1], v, err)
		}
		if _, err := verifyText("other", sig); !errors.Is(err, ErrInvalidClientData) {
			t.Errorf("other text: %v", err)
		}
		sig.GetPasskey().AuthenticatorData = nil
		if _, err := verifyText("text", sig); !errors.Is(err, ErrEd25519) {
			t.Errorf("other authenticator data: %v", err)
		}
	}

	for name, public := range map[string][]byte{
		"empty":      nil,
		"infinity":   {0},
		"hybrid":     append([]byte{6 + uncompressed[64]&1}, uncompressed[1:]...),
		"tag 4, cut": uncompressed[:64],
		"tag 5, y":   append([]byte{5}, uncompressed[1:]...),
		"not on it":  append(bytes.Clone(uncompressed[:64]), uncompressed[64]^1),
		"x = p":      append([]byte{2}, elliptic.P256().Params().P.Bytes()...),
		"compact, p": append([]byte{5}, elliptic.P256().Params().P.Bytes()...),
	} {
		if _, err := verifyText("text", p.sign(t, public, clientDataFor("text"))); !errors.Is(err, ErrInvalidPublicKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPasskeyCompact: the compact form is the point with the lower Y, whoever's
// it is.
func TestPasskeyCompact(t *testing.T) {
	negated := 0
	for range 32 {
		compressed, _, compact := newPasskey(t).encodings(t)
		key, err := parsePasskeyPoint(compact)
		if err != nil {
			t.Fatal(err)
		}
		b, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		y := new(big.Int).SetBytes(b[33:])
		if !bytes.Equal(b[1:33], compressed[1:]) || new(big.Int).Lsh(y, 1).Cmp(elliptic.P256().Params().P) > 0 {
			t.Errorf("%x read as %x", compact, b)
		}
		if y.Bit(0) == 1 {
			negated++
		}
	}
	if negated == 0 || negated == 32 {
		t.Errorf("the lower Y was odd %d times of 32", negated)
	}
}

func TestPasskeyDER(t *testing.T) {
	p := newPasskey(t)
	_, public, _ := p.encodings(t)
	sig := p.sign(t, public, clientDataFor("text"))
	der := sig.GetPasskey().GetSignature()
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		t.Fatal(err)
	}
	encode := func(r, s *big.Int) []byte {
		b, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	n := elliptic.P256().Params().N
	raw := append(rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))...)
	for _, c := range []struct {
		name string
		der  []byte
		want error
	}{
		{"as made", der, nil},
		{"twin", encode(rs.R, new(big.Int).Sub(n, rs.S)), nil},
		{"fixed length", raw, ErrSignatureInvalid},
		{"empty", nil, ErrSignatureInvalid},
		{"trailing byte", append(bytes.Clone(der), 0), ErrSignatureInvalid},
		{"cut", der[:len(der)-1], ErrSignatureInvalid},
		{"long length", append([]byte{0x30, 0x81, der[1]}, der[2:]...), ErrSignatureInvalid},
		{"r = 0", encode(new(big.Int), rs.S), ErrSignatureInvalid},
		{"s = n", encode(rs.R, n), ErrSignatureInvalid},
		{"negative", encode(new(big.Int).Neg(rs.R), rs.S), ErrSignatureInvalid},
		{"r too long", encode(new(big.Int).Lsh(rs.R, 64), rs.S), ErrSignatureInvalid},
		{"wrong", encode(rs.S, rs.R), ErrEd25519},
	} {
		sig.GetPasskey().Signature = c.der
		if _, err := verifyText("text", sig); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestParseClientData(t *testing.T) {
	for _, c := range []struct {
		in                string
		origin, challenge string
		ok                bool
	}{
		{`{"origin":"o","challenge":"c"}`, "o", "c", true},
		{` { "challenge" : "c" , "origin" : "o" } `, "o", "c", true},
		{`{"origin":"","challenge":""}`, "", "", true},
		{`{"or\u0069gin":"\u006f\n","challenge":"\ud83d\ude00"}`, "o\n", "😀", true},
		{`{"x":[{"origin":1},"]}",-1.5e3,null],"y":{"z":{}},"origin":"o","t":true,"challenge":"c","t":false}`, "o", "c", true},
		{`{"x":"\ud800","origin":"o","challenge":"c"}`, "o", "c", true},
		{"{\"x\":\"\xff\",\"origin\":\"o\",\"challenge\":\"c\"}", "o", "c", true},
		{`["o","c"]`, "o", "c", true},
		{`[ "o" , "c" ]`, "o", "c", true},

		{``, "", "", false},
		{`null`, "", "", false},
		{`"o"`, "", "", false},
		{`{}`, "", "", false},
		{`[]`, "", "", false},
		{`["o"]`, "", "", false},
		{`["o","c","x"]`, "", "", false},
		{`[["o","c"]]`, "", "", false},
		{`[["o"],"c"]`, "", "", false},
		{`[null,"c"]`, "", "", false},
		{`{"origin":"o"}`, "", "", false},
		{`{"challenge":"c"}`, "", "", false},
		{`{"Origin":"o","challenge":"c"}`, "", "", false},
		{`{"origin":"o","challenge":"c","challenge":"c"}`, "", "", false},
		{`{"origin":"o","origin":"o","challenge":"c"}`, "", "", false},
		{`{"origin":null,"challenge":"c"}`, "", "", false},
		{`{"origin":1,"challenge":"c"}`, "", "", false},
		{`{"origin":{"origin":"o"},"challenge":"c"}`, "", "", false},
		{`{"origin":["o"],"challenge":"c"}`, "", "", false},
		{`{"origin":"o","challenge":"c"}x`, "", "", false},
		{`{"origin":"o","challenge":"c"}{}`, "", "", false},
		{`{"origin":"o","challenge":"c",}`, "", "", false},
		{`{"origin":"o" "challenge":"c"}`, "", "", false},
		{`{origin:"o","challenge":"c"}`, "", "", false},
		{"{\"origin\":\"\n\",\"challenge\":\"c\"}", "", "", false},
		{"{\"origin\":\"\xff\",\"challenge\":\"c\"}", "", "", false},
		{"\ufeff{\"origin\":\"o\",\"challenge\":\"c\"}", "", "", false},
		{`{"origin":"\ud800","challenge":"c"}`, "", "", false},
		{`{"origin":"\udc00","challenge":"c"}`, "", "", false},
		{`{"origin":"\ud800\u0041","challenge":"c"}`, "", "", false},
		{`{"origin":"\ud800\n","challenge":"c"}`, "", "", false},
		{`{"\ud800":1,"origin":"o","challenge":"c"}`, "", "", false},
	} {
		got, ok := parseClientData([]byte(c.in))
		if ok != c.ok || got != (clientData{c.origin, c.challenge}) {
			t.Errorf("%s: got %+v, %v", c.in, got, ok)
		}
	}
	// A backslash before the escape makes it none.
	if got, ok := parseClientData([]byte(`{"origin":"\\ud800","challenge":"c"}`)); !ok || got.origin != `\ud800` {
		t.Errorf("escaped backslash: got %+v, %v", got, ok)
	}
}

// legacySignature makes a signature by a key of version 2 that wallet vouches
// for.
func legacySignature(t *testing.T, wallet, delegate *WalletKey, text string) *associations.LegacyDelegatedSignature {
	t.Helper()
	keyBytes, err := proto.Marshal(&contents.UnsignedPublicKey{
		CreatedNs: 1,
		Union: &contents.UnsignedPublicKey_Secp256K1Uncompressed_{Secp256K1Uncompressed: &contents.UnsignedPublicKey_Secp256K1Uncompressed{
			Bytes: delegate.key.PubKey().SerializeUncompressed(),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return legacySignatureOf(wallet, delegate, keyBytes, text)
}

func legacySignatureOf(wallet, delegate *WalletKey, keyBytes []byte, text string) *associations.LegacyDelegatedSignature {
	voucher := wallet.SignText(legacyText(keyBytes)).GetErc_191().GetBytes()
	return &associations.LegacyDelegatedSignature{
		DelegatedKey: &contents.SignedPublicKey{
			KeyBytes: keyBytes,
			Signature: &contents.Signature{Union: &contents.Signature_WalletEcdsaCompact{WalletEcdsaCompact: &contents.Signature_WalletECDSACompact{
				Bytes: voucher[:64], Recovery: uint32(voucher[64]) - 27,
			}}},
		},
		Signature: delegate.SignText(text).GetErc_191(),
	}
}

func TestLegacySignature(t *testing.T) {
	wallet, delegate := testWallet(t, 1), testWallet(t, 2)
	verify := func(sig *associations.LegacyDelegatedSignature) (verifiedSignature, error) {
		return verifyText("text", &associations.Signature{Signature: &associations.Signature_DelegatedErc_191{DelegatedErc_191: sig}})
	}
	made := legacySignature(t, wallet, delegate, "text")
	v, err := verify(made)
	if err != nil || v.signer != wallet.Identifier() || v.kind != signatureLegacy {
		t.Fatalf("got %+v, %v", v, err)
	}
	// The voucher is what counts, not this signature.
	compact := made.GetDelegatedKey().GetSignature().GetWalletEcdsaCompact()
	if v.raw != string(append(bytes.Clone(compact.GetBytes()), byte(compact.GetRecovery()))) {
		t.Errorf("remembers %x", v.raw)
	}
	for _, c := range []struct {
		name   string
		damage func(*associations.LegacyDelegatedSignature)
		want   error
	}{
		{"no signature", func(s *associations.LegacyDelegatedSignature) { s.Signature = nil }, ErrMissingField},
		{"no key", func(s *associations.LegacyDelegatedSignature) { s.DelegatedKey = nil }, ErrMissingField},
		{"empty signature", func(s *associations.LegacyDelegatedSignature) { s.Signature.Bytes = nil }, ErrSignatureInvalid},
		{"no voucher", func(s *associations.LegacyDelegatedSignature) { s.DelegatedKey.Signature = nil }, ErrSignatureInvalid},
		{"voucher of no kind", func(s *associations.LegacyDelegatedSignature) { s.DelegatedKey.Signature.Union = nil }, ErrSignatureInvalid},
		{"short voucher", func(s *associations.LegacyDelegatedSignature) {
			s.DelegatedKey.Signature.GetWalletEcdsaCompact().Bytes = compact.GetBytes()[:63]
		}, ErrSignatureInvalid},
		{"recovery id 2", func(s *associations.LegacyDelegatedSignature) {
			s.DelegatedKey.Signature.GetWalletEcdsaCompact().Recovery = 2
		}, ErrECDSA},
		{"other text", func(s *associations.LegacyDelegatedSignature) {
			s.Signature = delegate.SignText("other").GetErc_191()
		}, ErrSignatureInvalid},
		{"other key", func(s *associations.LegacyDelegatedSignature) {
			s.Signature = testWallet(t, 3).SignText("text").GetErc_191()
		}, ErrSignatureInvalid},
		{"key is no proto", func(s *associations.LegacyDelegatedSignature) {
			s.DelegatedKey = legacySignatureOf(wallet, delegate, []byte{0xff}, "text").DelegatedKey
		}, ErrSignatureInvalid},
	} {
		sig := proto.Clone(made).(*associations.LegacyDelegatedSignature)
		c.damage(sig)
		if _, err := verify(sig); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	// The reference takes the low byte of the recovery id.
	sig := proto.Clone(made).(*associations.LegacyDelegatedSignature)
	sig.DelegatedKey.Signature.GetWalletEcdsaCompact().Recovery += 256
	if v, err := verify(sig); err != nil || v.signer != wallet.Identifier() {
		t.Errorf("recovery id with a high byte: %+v, %v", v, err)
	}
	// Keys in another form than the protocol's.
	for name, c := range map[string]struct {
		point []byte
		want  error
	}{
		"compressed": {delegate.key.PubKey().SerializeCompressed(), nil},
		"hybrid":     {hybrid(delegate.key.PubKey()), ErrEd25519},
		"empty":      {nil, ErrEd25519},
	} {
		keyBytes, err := proto.Marshal(&contents.UnsignedPublicKey{Union: &contents.UnsignedPublicKey_Secp256K1Uncompressed_{
			Secp256K1Uncompressed: &contents.UnsignedPublicKey_Secp256K1Uncompressed{Bytes: c.point},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verify(legacySignatureOf(wallet, delegate, keyBytes, "text")); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func hybrid(key *secp256k1.PublicKey) []byte {
	b := key.SerializeUncompressed()
	b[0] = 6 | b[64]&1
	return b
}

func TestAccountIDs(t *testing.T) {
	address := "0x" + strings.Repeat("aB", 20)
	for _, c := range []struct {
		in      string
		chainID uint64
		want    error
		text    string
	}{
		{"eip155:1:" + address, 1, nil, ""},
		{"eip155:0018446744073709551615:" + address, 1<<64 - 1, nil, ""},
		{"eip155:1:" + address[2:], 1, nil, ""},
		{"eip155:18446744073709551616:" + address, 0, ErrInvalidChainID, "Chain ID is not a valid u64"},
		{"eip155:-1:" + address, 0, ErrInvalidChainID, "Chain ID is not a valid u64"},
		{"eip155:1_0:" + address, 0, ErrInvalidChainID, "Chain ID is not a valid u64"},
		{"cosmos:1:" + address, 0, ErrNotEIP155, "Chain ID is not prefixed with eip155:"},
		{"eip155:1:abc", 0, ErrInvalidAddress, `invalid addresses: ["abc"]`},
		{"eip155:1", 0, ErrInvalidLength, "type account_id has invalid length. expected 3 got 2"},
		{"", 0, ErrInvalidLength, "type account_id has invalid length. expected 3 got 1"},
		{"eip155:1:a:b", 0, ErrInvalidLength, "type account_id has invalid length. expected 3 got 4"},
		{"EIP155:1:" + address, 0, ErrInvalidValue, "type eth account_id invalid. expected well-formed chain_id & address, got EIP155:1:" + address},
		{"eip155:+1:" + address, 0, ErrInvalidValue, ""},
		{"eip155:1:" + address + "\n", 0, ErrInvalidValue, ""},
		{"eip155:1:" + strings.Repeat("a", 129), 0, ErrInvalidValue, ""},
		{"eip155::" + address, 0, ErrInvalidValue, ""},
	} {
		chainID, id, err := ParseAccountID(c.in)
		if !errors.Is(err, c.want) || chainID != c.chainID || c.text != "" && err.Error() != c.text {
			t.Errorf("%q: got %d, %v", c.in, chainID, err)
		}
		if err == nil && id.String() != strings.ToLower(c.in[strings.LastIndex(c.in, ":")+1:]) {
			t.Errorf("%q: address %v", c.in, id)
		}
	}
	id, err := ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := AccountID(8453, id), "eip155:8453:"+strings.ToLower(address); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
