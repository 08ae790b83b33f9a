package identity

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

const (
	algorithmCurve25519 = mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_CURVE25519
	algorithmXWing      = mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_XWING_MLKEM_768_DRAFT_6
	algorithmSymmetric  = mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_SYMMETRIC_KEY
)

// officialKeyPackage returns a key package of the official client and a time
// at which it is valid.
func officialKeyPackage(tb testing.TB) ([]byte, time.Time) {
	tb.Helper()
	return fromHex(tb, testVectors(tb).KeyPackages.Uploaded[0].KeyPackage), time.Unix(1795364758, 0)
}

func TestKeyPackageVectors(t *testing.T) {
	uploaded := testVectors(t).KeyPackages.Uploaded
	if len(uploaded) != 2 {
		t.Fatalf("%d key packages, want 2", len(uploaded))
	}
	for _, u := range uploaded {
		d := u.Decoded
		notBefore, notAfter := int64(d["not_before"].(float64)), int64(d["not_after"].(float64))
		info, err := VerifyKeyPackage(fromHex(t, u.KeyPackage), time.Unix(notBefore, 0))
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(info.InstallationKey[:]); got != d["signature_key"] {
			t.Errorf("installation key %s, want %s", got, d["signature_key"])
		}
		identity := fromHex(t, d["credential_identity"].(string))
		if want := string(identity[2:]); info.InboxID != want || CheckInboxID(info.InboxID) != nil {
			t.Errorf("inbox id %q, want %q", info.InboxID, want)
		}
		if got := Credential(info.InboxID); got.Type != mls.CredentialBasic || !bytes.Equal(got.Data, identity) {
			t.Errorf("credential %x, want %x", got.Data, identity)
		}
		if want := (mls.Lifetime{NotBefore: uint64(notBefore), NotAfter: uint64(notAfter)}); info.Lifetime != want {
			t.Errorf("lifetime %v, want %v", info.Lifetime, want)
		}
		if got := hex.EncodeToString(info.Package.InitKey()); got != d["init_key"] {
			t.Errorf("init key %s, want %s", got, d["init_key"])
		}
		ff03 := d["extensions"].([]any)[2].(map[string]any)["data_hex"].(string)
		w, err := info.WelcomeWrapper()
		if err != nil || w.Algorithm != algorithmXWing || "0ac009"+hex.EncodeToString(w.PublicKey)+"1002" != ff03 {
			t.Errorf("welcome wrapper %v %x, %v, want that of %s", w.Algorithm, w.PublicKey, err, ff03)
		}
		aeads, err := info.PointeeAEADs()
		if err != nil || len(aeads) != 1 || aeads[0] != 3 {
			t.Errorf("pointee AEADs %v, %v, want [3]", aeads, err)
		}
		for _, c := range []struct {
			at   int64
			want error
		}{{notBefore - 1, mls.ErrLifetime}, {notAfter - 1, nil}, {notAfter, mls.ErrLifetime}} {
			_, err := VerifyKeyPackage(fromHex(t, u.KeyPackage), time.Unix(c.at, 0))
			if !errors.Is(err, c.want) {
				t.Errorf("at %d: %v, want %v", c.at, err, c.want)
			}
		}
	}
}

func TestKeyPackageVerdicts(t *testing.T) {
	kp, now := officialKeyPackage(t)
	initKey := testVectors(t).KeyPackages.Uploaded[0].Decoded["init_key"].(string)
	inboxID := testVectors(t).Lifecycle.Steps[0].StateAfter.InboxID
	damages := map[string]func() []byte{
		"kp_status_ok":        func() []byte { return kp },
		"kp_status_bad_sig":   func() []byte { return flip(kp, len(kp)-1) },
		"kp_status_trailing":  func() []byte { return append(bytes.Clone(kp), 0) },
		"kp_status_truncated": func() []byte { return kp[:len(kp)-1] },
		"kp_status_empty":     func() []byte { return nil },
		"kp_status_bad_initkey": func() []byte {
			return flip(kp, bytes.Index(kp, fromHex(t, initKey)))
		},
		"kp_status_bad_credential": func() []byte {
			return flip(kp, bytes.Index(kp, []byte(inboxID)))
		},
	}
	verdicts := testVectors(t).KeyPackages.Verdicts
	if len(verdicts) != len(damages) {
		t.Errorf("%d verdicts, want %d", len(verdicts), len(damages))
	}
	for name, want := range verdicts {
		_, err := VerifyKeyPackage(damages[name](), now)
		var got string
		if err != nil {
			got = err.Error()
			if ErrorCode(err) == "" {
				t.Errorf("%s: no code", name)
			}
		}
		if got != want.ValidationError {
			t.Errorf("%s: got %q, want %q", name, got, want.ValidationError)
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// makeKeyPackage makes one of our own.
func makeKeyPackage(t *testing.T, c mls.Client, extensions ...mls.Extension) []byte {
	t.Helper()
	if c.CipherSuite == 0 {
		c.CipherSuite = CipherSuite
	}
	signer, err := mls.NewSigner(c.CipherSuite, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	c.Signer = signer
	if c.Credential.Type == 0 {
		c.Credential = Credential(strings.Repeat("ab", 32))
	}
	c.Capabilities.Extensions = append(c.Capabilities.Extensions, ExtensionWelcomeWrapper, ExtensionWelcomePointee)
	p, err := mls.NewKeyPackage(c, mls.KeyPackageOptions{
		Lifetime:   mls.Lifetime{NotBefore: 1000, NotAfter: 2000},
		Extensions: extensions,
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.KeyPackage().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKeyPackageRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		client mls.Client
		want   error
		text   string
	}{
		{"other suite", mls.Client{CipherSuite: mls.X25519AES128SHA256Ed25519}, mls.ErrUnsupportedCipherSuite, "mls validation: The ciphersuite is not supported."},
		{"X.509", mls.Client{Credential: mls.Credential{Type: mls.CredentialX509}}, ErrCredentialType, "wrong credential type"},
		{"no MlsCredential", mls.Client{Credential: mls.BasicCredential([]byte{0x0a, 0x40})}, ErrCredentialEncoding, "decoding proto MlsCredential"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := VerifyKeyPackage(makeKeyPackage(t, c.client), time.Unix(1000, 0))
			if !errors.Is(err, c.want) || err.Error() != c.text {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
	// Any string is a claim, also none.
	info, err := VerifyKeyPackage(makeKeyPackage(t, mls.Client{Credential: mls.BasicCredential(nil)}), time.Unix(1000, 0))
	if err != nil || info.InboxID != "" {
		t.Errorf("empty credential: %+v, %v", info, err)
	}
}

func TestWelcomeWrapper(t *testing.T) {
	wrapper := func(algorithm mlscontents.WelcomeWrapperAlgorithm, size int) []mls.Extension {
		data, err := proto.Marshal(&mlscontents.WelcomeWrapperEncryption{PubKey: make([]byte, size), Algorithm: algorithm})
		if err != nil {
			t.Fatal(err)
		}
		return []mls.Extension{{Type: ExtensionWelcomeWrapper, Data: data}}
	}
	for _, c := range []struct {
		name       string
		extensions []mls.Extension
		want       mlscontents.WelcomeWrapperAlgorithm
		size       int // 0: refused
	}{
		{"absent", nil, algorithmCurve25519, 32},
		{"X-Wing", wrapper(algorithmXWing, 1216), algorithmXWing, 1216},
		{"X-Wing, short key", wrapper(algorithmXWing, 1215), 0, 0},
		{"Curve25519", wrapper(algorithmCurve25519, 32), algorithmCurve25519, 32},
		{"Curve25519, long key", wrapper(algorithmCurve25519, 33), 0, 0},
		{"unspecified", wrapper(0, 32), algorithmCurve25519, 32},
		{"unknown", wrapper(77, 32), algorithmCurve25519, 32},
		{"symmetric", wrapper(algorithmSymmetric, 32), 0, 0},
		{"empty", []mls.Extension{{Type: ExtensionWelcomeWrapper}}, 0, 0},
		{"garbage", []mls.Extension{{Type: ExtensionWelcomeWrapper, Data: []byte{0xff}}}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			info, err := VerifyKeyPackage(makeKeyPackage(t, mls.Client{}, c.extensions...), time.Unix(1000, 0))
			if err != nil {
				t.Fatal(err)
			}
			w, err := info.WelcomeWrapper()
			if c.size == 0 {
				if !errors.Is(err, ErrWelcomeExtension) {
					t.Errorf("got %v, %v, want ErrWelcomeExtension", w, err)
				}
				return
			}
			if err != nil || w.Algorithm != c.want || len(w.PublicKey) != c.size {
				t.Errorf("got %v with %d bytes, %v", w.Algorithm, len(w.PublicKey), err)
			}
			if c.extensions == nil && !bytes.Equal(w.PublicKey, info.Package.InitKey()) {
				t.Error("not the init key")
			}
		})
	}
}

func TestPointeeAEADs(t *testing.T) {
	for _, c := range []struct {
		name       string
		extensions []mls.Extension
		want       int // -1: refused
	}{
		{"absent", nil, 0},
		{"packed", []mls.Extension{{Type: ExtensionWelcomePointee, Data: []byte{0x0a, 1, 3}}}, 1},
		{"unpacked", []mls.Extension{{Type: ExtensionWelcomePointee, Data: []byte{8, 3, 8, 4}}}, 2},
		{"garbage", []mls.Extension{{Type: ExtensionWelcomePointee, Data: []byte{0x0a, 9}}}, -1},
	} {
		info, err := VerifyKeyPackage(makeKeyPackage(t, mls.Client{}, c.extensions...), time.Unix(1000, 0))
		if err != nil {
			t.Fatal(err)
		}
		got, err := info.PointeeAEADs()
		if c.want < 0 {
			if !errors.Is(err, ErrWelcomeExtension) {
				t.Errorf("%s: got %v, %v", c.name, got, err)
			}
		} else if err != nil || len(got) != c.want {
			t.Errorf("%s: got %v, %v", c.name, got, err)
		}
	}
}
