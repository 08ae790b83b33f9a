package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// message is the row as the API would return it.
func (w *capturedWelcome) message() *mlsapi.WelcomeMessage {
	if w.Type == 1 {
		return &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_WelcomePointer_{WelcomePointer: &mlsapi.WelcomeMessage_WelcomePointer{
			Id: uint64(w.ID), CreatedNs: uint64(w.CreatedNS), InstallationKey: w.InstallationKey, WelcomePointer: w.Data, HpkePublicKey: w.PublicKey,
			WrapperAlgorithm: mlscontents.WelcomePointerWrapperAlgorithm(w.Algorithm + 1),
		}}}
	}
	return &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_V1_{V1: &mlsapi.WelcomeMessage_V1{
		Id: uint64(w.ID), CreatedNs: uint64(w.CreatedNS), InstallationKey: w.InstallationKey, Data: w.Data, HpkePublicKey: w.PublicKey,
		WrapperAlgorithm: mlscontents.WelcomeWrapperAlgorithm(w.Algorithm + 1), WelcomeMetadata: w.Metadata,
	}}}
}

// restore makes a key package of recorded keys.
func restore(t testing.TB, public, initKey, leafKey, seed []byte) *KeyPackage {
	t.Helper()
	b := []byte{keyPackageVersion}
	for _, part := range [][]byte{public, initKey, leafKey, seed} {
		b = appendOpaque(b, part)
	}
	kp, err := UnmarshalKeyPackage(b)
	if err != nil {
		t.Fatal(err)
	}
	return kp
}

// keyPackages are those of a captured client.
func (c *capturedClient) keyPackages(t testing.TB) []*KeyPackage {
	t.Helper()
	var out []*KeyPackage
	for _, k := range c.KeyPackages {
		for _, row := range packagesFile() {
			if row.SequenceID != k.Row {
				continue
			}
			out = append(out, restore(t, row.KeyPackage, k.Init, k.Leaf, k.XWing))
		}
	}
	return out
}

// find returns the key package that a welcome names.
func findKeyPackage(packages []*KeyPackage, m *mlsapi.WelcomeMessage) *KeyPackage {
	for _, kp := range packages {
		for _, key := range kp.WelcomeKeys() {
			if bytes.Equal(key, WelcomeKey(m)) {
				return kp
			}
		}
	}
	return nil
}

// shared finds the welcome that a pointer leads to.
func shared(t testing.TB, p *WelcomePointer) *mlsapi.WelcomeMessage {
	t.Helper()
	for _, w := range welcomesFile() {
		if bytes.Equal(w.InstallationKey, p.Destination) {
			return w.message()
		}
	}
	t.Fatalf("nothing at %x", p.Destination)
	return nil
}

// TestCapturedWelcomes opens all welcomes of the scene, wrapped in all ways.
func TestCapturedWelcomes(t *testing.T) {
	opened := map[string]int{}
	for _, c := range clientsFile() {
		if c.WalletOnly {
			continue
		}
		packages := c.keyPackages(t)
		for _, w := range welcomesFile() {
			if !bytes.Equal(w.InstallationKey, c.InstallationID) {
				continue
			}
			m := w.message()
			kp := findKeyPackage(packages, m)
			if kp == nil {
				t.Fatalf("welcome %d: key package not found", w.ID)
			}
			welcome, pointer, err := kp.Unwrap(m)
			if err != nil {
				t.Fatalf("welcome %d: %v", w.ID, err)
			}
			kind := fmt.Sprint("algorithm ", w.Algorithm+1)
			if pointer != nil {
				kind = "pointer"
				if welcome, err = pointer.Open(shared(t, pointer)); err != nil {
					t.Fatalf("welcome %d: %v", w.ID, err)
				}
			}
			opened[kind]++
			message, err := mls.UnmarshalMessage(welcome.Message)
			if err != nil || message.WireFormat() != mls.WireFormatWelcome {
				t.Errorf("welcome %d holds no Welcome: %v", w.ID, err)
			}
			if commit := rowsFile()[welcome.CommitID-1]; !commit.IsCommit || uint64(commit.ID) != welcome.CommitID {
				t.Errorf("welcome %d names row %d, which is no commit", w.ID, welcome.CommitID)
			}
		}
	}
	if diff := cmp.Diff(map[string]int{"algorithm 1": 1, "algorithm 2": 22, "pointer": 15}, opened); diff != "" {
		t.Errorf("welcomes opened: %s", diff)
	}
}

func TestWelcomeVectors(t *testing.T) {
	v := groupsFile()
	kp := restore(t, v.KeyPackages["b"], v.PrivateB.Init, v.PrivateB.Leaf, v.PrivateB.XWing)
	for _, w := range v.Welcomes {
		m := &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_V1_{V1: &mlsapi.WelcomeMessage_V1{
			Data: w.Data, HpkePublicKey: w.PublicKey, WrapperAlgorithm: mlscontents.WelcomeWrapperAlgorithm(w.Algorithm), WelcomeMetadata: w.Metadata,
		}}}
		if !bytes.Equal(WelcomeKey(m), kp.WelcomeKeys()[1]) {
			t.Error("another wrapper key")
		}
		got, _, err := kp.Unwrap(m)
		if err != nil {
			t.Fatal(err)
		}
		var metadata mlsapi.WelcomeMetadata
		if err := proto.Unmarshal(w.MetadataPlaintext, &metadata); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Message, w.Message) || got.CommitID != metadata.GetMessageCursor() {
			t.Errorf("commit %d, message %x", got.CommitID, got.Message)
		}
	}

	p := v.Pointer
	public, err := hpke.XWing(xwingKEM).PublicKey(p.XWing)
	if err != nil || !bytes.Equal(public, p.PublicKey) {
		t.Fatalf("X-Wing public key: %v", err)
	}
	owner := &KeyPackage{private: kp.private, wrapper: hpke.KeyPair{Private: p.XWing, Public: public}}
	m := &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_WelcomePointer_{WelcomePointer: &mlsapi.WelcomeMessage_WelcomePointer{
		WelcomePointer: p.Pointer, HpkePublicKey: p.PublicKey, WrapperAlgorithm: pointerXWing,
	}}}
	_, pointer, err := owner.Unwrap(m)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pointer.Marshal(), p.Plaintext) || !bytes.Equal(pointer.Destination, p.Destination) {
		t.Errorf("pointer %x", pointer.Marshal())
	}
	got, err := pointer.Open(&mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_V1_{V1: &mlsapi.WelcomeMessage_V1{
		Data: p.PointeeData, WelcomeMetadata: p.PointeeMetadata,
	}}})
	if err != nil || got.CommitID != 7 {
		t.Errorf("%+v, %v", got, err)
	}
}

// received turns what is sent into what the API returns.
func received(t testing.TB, in *mlsapi.WelcomeMessageInput) *mlsapi.WelcomeMessage {
	t.Helper()
	switch v := in.GetVersion().(type) {
	case *mlsapi.WelcomeMessageInput_V1_:
		return &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_V1_{V1: &mlsapi.WelcomeMessage_V1{
			InstallationKey: v.V1.InstallationKey, Data: v.V1.Data, HpkePublicKey: v.V1.HpkePublicKey,
			WrapperAlgorithm: v.V1.WrapperAlgorithm, WelcomeMetadata: v.V1.WelcomeMetadata,
		}}}
	case *mlsapi.WelcomeMessageInput_WelcomePointer_:
		return &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_WelcomePointer_{WelcomePointer: &mlsapi.WelcomeMessage_WelcomePointer{
			InstallationKey: v.WelcomePointer.InstallationKey, WelcomePointer: v.WelcomePointer.WelcomePointer,
			HpkePublicKey: v.WelcomePointer.HpkePublicKey, WrapperAlgorithm: v.WelcomePointer.WrapperAlgorithm,
		}}}
	}
	t.Fatal("no version")
	return nil
}

func newSigner(t testing.TB) mls.Signer {
	t.Helper()
	key, err := mls.GenerateSignatureKey(identity.CipherSuite)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := mls.NewSigner(identity.CipherSuite, key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func newTestKeyPackage(t testing.TB, inboxID string) (*KeyPackage, *identity.KeyPackageInfo) {
	t.Helper()
	signer := newSigner(t)
	now := time.Now()
	kp, err := NewKeyPackage(inboxID, signer, now)
	if err != nil {
		t.Fatal(err)
	}
	info, err := CheckKeyPackage(kp.Public(), Actor{inboxID, identity.Installation(signer.Public())}, now)
	if err != nil {
		t.Fatal(err)
	}
	return kp, info
}

func TestWelcomeRoundTrip(t *testing.T) {
	kp, info := newTestKeyPackage(t, alix)
	installation := identity.Installation(info.InstallationKey[:])
	message := bytes.Repeat([]byte("welcome"), 1000)
	post, err := info.WelcomeWrapper()
	if err != nil {
		t.Fatal(err)
	}
	classic := identity.WelcomeWrapper{Algorithm: curve25519, PublicKey: info.Package.InitKey()}
	unspecified := identity.WelcomeWrapper{PublicKey: info.Package.InitKey()}
	for _, wrapper := range []identity.WelcomeWrapper{post, classic, unspecified} {
		in, err := WrapWelcome(message, 1<<40, installation, wrapper)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(in.GetV1().GetInstallationKey(), installation.Bytes()) || in.GetV1().GetWrapperAlgorithm() != wrapper.Algorithm {
			t.Error("addressed wrongly")
		}
		m := received(t, in)
		got, _, err := kp.Unwrap(m)
		if err != nil || got.CommitID != 1<<40 || !bytes.Equal(got.Message, message) {
			t.Errorf("%v: %+v, %v", wrapper.Algorithm, got, err)
		}
		// Without metadata nothing is known of the commit.
		m.GetV1().WelcomeMetadata = nil
		if got, _, err = kp.Unwrap(m); err != nil || got.CommitID != 0 {
			t.Errorf("without metadata: %+v, %v", got, err)
		}
	}

	if !TakesPointers(info) {
		t.Error("our key packages don't take pointers")
	}
	pointee, pointer, err := ShareWelcome(message, 42)
	if err != nil {
		t.Fatal(err)
	}
	if pointee.GetV1().GetWrapperAlgorithm() != symmetric || len(pointee.GetV1().GetHpkePublicKey()) != 0 {
		t.Errorf("shared welcome: %v", pointee.GetV1().GetWrapperAlgorithm())
	}
	if bytes.Equal(pointer.dataNonce, pointer.metadataNonce) {
		t.Error("one nonce for both")
	}
	in, err := pointer.Wrap(installation, post)
	if err != nil {
		t.Fatal(err)
	}
	_, unwrapped, err := kp.Unwrap(received(t, in))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := ParseWelcomePointer(unwrapped.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(stored.Destination, pointee.GetV1().GetInstallationKey()) {
		t.Error("pointer to elsewhere")
	}
	got, err := stored.Open(received(t, pointee))
	if err != nil || got.CommitID != 42 || !bytes.Equal(got.Message, message) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := pointer.Wrap(installation, classic); !errors.Is(err, ErrWelcome) {
		t.Errorf("pointer wrapped without X-Wing: %v", err)
	}
	if s := fmt.Sprintf("%v %x %+v", pointer, pointer, kp); strings.Contains(s, fmt.Sprintf("%x", pointer.key)) || strings.Contains(s, fmt.Sprintf("%x", kp.wrapper.Private)) {
		t.Error("a secret was printed")
	}
}

func TestUnwrapRefuses(t *testing.T) {
	kp, info := newTestKeyPackage(t, alix)
	other, _ := newTestKeyPackage(t, alix)
	installation := identity.Installation(info.InstallationKey[:])
	wrapper, err := info.WelcomeWrapper()
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() *mlsapi.WelcomeMessage {
		in, err := WrapWelcome([]byte("welcome"), 1, installation, wrapper)
		if err != nil {
			t.Fatal(err)
		}
		return received(t, in)
	}
	if _, _, err := other.Unwrap(fresh()); !errors.Is(err, ErrWelcomeKey) {
		t.Errorf("another key opens it: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*mlsapi.WelcomeMessage)
		want   error
	}{
		"no version":         {func(m *mlsapi.WelcomeMessage) { m.Version = nil }, ErrWelcome},
		"no data":            {func(m *mlsapi.WelcomeMessage) { m.GetV1().Data = nil }, ErrWelcome},
		"short data":         {func(m *mlsapi.WelcomeMessage) { m.GetV1().Data = m.GetV1().Data[:1000] }, ErrWelcome},
		"bytes after it":     {func(m *mlsapi.WelcomeMessage) { m.GetV1().Data = append(m.GetV1().Data, 0) }, ErrWelcome},
		"flipped bit":        {func(m *mlsapi.WelcomeMessage) { m.GetV1().Data[len(m.GetV1().Data)-1] ^= 1 }, ErrWelcomeKey},
		"flipped metadata":   {func(m *mlsapi.WelcomeMessage) { m.GetV1().WelcomeMetadata[0] ^= 1 }, ErrWelcomeKey},
		"symmetric":          {func(m *mlsapi.WelcomeMessage) { m.GetV1().WrapperAlgorithm = symmetric }, ErrWelcome},
		"wrong algorithm":    {func(m *mlsapi.WelcomeMessage) { m.GetV1().WrapperAlgorithm = curve25519 }, ErrWelcomeKey},
		"unknown algorithm":  {func(m *mlsapi.WelcomeMessage) { m.GetV1().WrapperAlgorithm = 17 }, ErrWelcomeKey},
		"short encapsulated": {func(m *mlsapi.WelcomeMessage) { m.GetV1().Data = append(appendOpaque(nil, make([]byte, 31)), 0) }, ErrWelcomeKey},
	} {
		m := fresh()
		c.change(m)
		if _, _, err := kp.Unwrap(m); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}

	_, pointer, err := ShareWelcome([]byte("welcome"), 1)
	if err != nil {
		t.Fatal(err)
	}
	in, err := pointer.Wrap(installation, wrapper)
	if err != nil {
		t.Fatal(err)
	}
	m := received(t, in)
	m.GetWelcomePointer().WrapperAlgorithm = 0
	if _, _, err := kp.Unwrap(m); !errors.Is(err, ErrWelcome) {
		t.Errorf("pointer of unspecified algorithm: %v", err)
	}
	if _, err := pointer.Open(m); !errors.Is(err, ErrWelcome) {
		t.Errorf("pointer to a pointer: %v", err)
	}
	if _, err := pointer.Open(fresh()); !errors.Is(err, ErrWelcomeKey) {
		t.Errorf("pointer to another welcome: %v", err)
	}
	v1 := func() *mlscontents.WelcomePointer_WelcomeV1Pointer {
		return &mlscontents.WelcomePointer_WelcomeV1Pointer{Destination: make([]byte, 32), AeadType: pointeeAEAD, EncryptionKey: make([]byte, 32),
			DataNonce: make([]byte, 12), WelcomeMetadataNonce: make([]byte, 12)}
	}
	for name, change := range map[string]func(*mlscontents.WelcomePointer_WelcomeV1Pointer){
		"destination": func(p *mlscontents.WelcomePointer_WelcomeV1Pointer) { p.Destination = nil },
		"AEAD":        func(p *mlscontents.WelcomePointer_WelcomeV1Pointer) { p.AeadType = 0 },
		"key":         func(p *mlscontents.WelcomePointer_WelcomeV1Pointer) { p.EncryptionKey = p.EncryptionKey[:16] },
		"nonce":       func(p *mlscontents.WelcomePointer_WelcomeV1Pointer) { p.DataNonce = nil },
		"other nonce": func(p *mlscontents.WelcomePointer_WelcomeV1Pointer) { p.WelcomeMetadataNonce = make([]byte, 13) },
	} {
		p := v1()
		change(p)
		b, err := marshal(&mlscontents.WelcomePointer{Version: &mlscontents.WelcomePointer_WelcomeV1Pointer_{WelcomeV1Pointer: p}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseWelcomePointer(b); !errors.Is(err, ErrWelcome) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseWelcomePointer(nil); !errors.Is(err, ErrWelcome) {
		t.Errorf("empty pointer: %v", err)
	}
}

// TestWrongKEM: the number of the KEM goes into the keys.
func TestWrongKEM(t *testing.T) {
	kp, info := newTestKeyPackage(t, alix)
	w := newWrapper(hpke.XWing(0x647a))
	wrapper, err := info.WelcomeWrapper()
	if err != nil {
		t.Fatal(err)
	}
	enc, ciphertext, err := w.suite.Seal(nil, wrapper.PublicKey, w.info, nil, []byte("welcome"))
	if err != nil {
		t.Fatal(err)
	}
	m := &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_V1_{V1: &mlsapi.WelcomeMessage_V1{
		Data: appendOpaque(appendOpaque(nil, enc), ciphertext), WrapperAlgorithm: xwing,
	}}}
	if _, _, err := kp.Unwrap(m); !errors.Is(err, ErrWelcomeKey) {
		t.Errorf("opened: %v", err)
	}
}
