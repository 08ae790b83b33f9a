package protocol

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
)

// TestKeyPackageLikeOfficial compares what is in our key packages with what is in
// the official client's.
func TestKeyPackageLikeOfficial(t *testing.T) {
	_, ours := newTestKeyPackage(t, alix)
	official, err := mls.UnmarshalKeyPackage(groupsFile().KeyPackages["a"])
	if err != nil {
		t.Fatal(err)
	}
	a, b := ours.Package.LeafNode(), official.LeafNode()
	if diff := cmp.Diff(b.Capabilities(), a.Capabilities()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(types(official.Extensions()), types(ours.Package.Extensions())); diff != "" {
		t.Error(diff)
	}
	for _, e := range official.Extensions() {
		got, _ := ours.Package.Extension(e.Type)
		if e.Type == identity.ExtensionWelcomeWrapper {
			if len(got) != len(e.Data) {
				t.Errorf("wrapper extension of %d bytes, want %d", len(got), len(e.Data))
			}
		} else if !bytes.Equal(got, e.Data) {
			t.Errorf("extension %#x is %x, want %x", e.Type, got, e.Data)
		}
	}
	id := groupsFile().Identities["a"].InboxID
	want := []mls.Extension{{Type: mls.ExtensionApplicationID, Data: append([]byte{0x40, 0x40}, id...)}}
	if diff := cmp.Diff(want, b.Extensions()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]mls.Extension{{Type: mls.ExtensionApplicationID, Data: append([]byte{0x40, 0x40}, alix...)}}, a.Extensions()); diff != "" {
		t.Error(diff)
	}
	x, _ := a.Lifetime()
	y, _ := b.Lifetime()
	if x.NotAfter-x.NotBefore != 7_261_200 || y.NotAfter-y.NotBefore != 7_261_200 {
		t.Errorf("lifetimes of %d and %d s", x.NotAfter-x.NotBefore, y.NotAfter-y.NotBefore)
	}
	if n := len(groupsFile().KeyPackages["a"]); len(mustMarshal(ours.Package)) != n {
		t.Errorf("%d bytes, official %d", len(mustMarshal(ours.Package)), n)
	}
}

func mustMarshal(kp *mls.KeyPackage) []byte {
	b, _ := kp.MarshalBinary()
	return b
}

func TestKeyPackageStored(t *testing.T) {
	kp, info := newTestKeyPackage(t, alix)
	b, err := kp.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	got, err := UnmarshalKeyPackage(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Public(), kp.Public()) {
		t.Error("another key package")
	}
	if diff := cmp.Diff(kp.WelcomeKeys(), got.WelcomeKeys()); diff != "" {
		t.Error(diff)
	}
	for _, wrapper := range []identity.WelcomeWrapper{{Algorithm: xwing, PublicKey: kp.WelcomeKeys()[1]}, {Algorithm: curve25519, PublicKey: kp.WelcomeKeys()[0]}} {
		in, err := WrapWelcome([]byte("welcome"), 7, identity.Installation(info.InstallationKey[:]), wrapper)
		if err != nil {
			t.Fatal(err)
		}
		if w, _, err := got.Unwrap(received(t, in)); err != nil || w.CommitID != 7 {
			t.Errorf("%v: %v", wrapper.Algorithm, err)
		}
	}
	for n := range b {
		if _, err := UnmarshalKeyPackage(b[:n]); !errors.Is(err, errKeyPackageEncoding) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	if _, err := UnmarshalKeyPackage(append(b, 0)); !errors.Is(err, errKeyPackageEncoding) {
		t.Errorf("a byte too much: %v", err)
	}
}

func TestCheckKeyPackage(t *testing.T) {
	now := time.Now()
	signer := newSigner(t)
	own := Actor{alix, identity.Installation(signer.Public())}
	kp, err := NewKeyPackage(alix, signer, now)
	if err != nil {
		t.Fatal(err)
	}
	poor := func(change func(*mls.Client)) []byte {
		c := NewClient(alix, signer)
		change(&c)
		kp, err := mls.NewKeyPackage(c, mls.KeyPackageOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return mustMarshal(kp.KeyPackage())
	}
	badWrapper, err := mls.NewKeyPackage(NewClient(alix, signer), mls.KeyPackageOptions{
		Extensions: []mls.Extension{{Type: identity.ExtensionWelcomeWrapper, Data: []byte{0x0a, 1, 'k', 0x10, 2}}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		of   Actor
		at   time.Time
		want error
	}{
		"good":                 {kp.Public(), own, now, nil},
		"another installation": {kp.Public(), Actor{alix, identity.Installation(make([]byte, 32))}, now, ErrForeignKeyPackage},
		"another inbox":        {kp.Public(), Actor{bo, own.Installation}, now, ErrForeignKeyPackage},
		"expired":              {kp.Public(), own, now.Add(85 * 24 * time.Hour), mls.ErrLifetime},
		"too early":            {kp.Public(), own, now.Add(-2 * time.Hour), mls.ErrLifetime},
		"empty":                {nil, own, now, identity.ErrKeyPackageEncoding},
		"bare of extensions":   {poor(func(c *mls.Client) { c.Capabilities.Extensions = nil }), own, now, ErrCapabilities},
		"bare of suites":       {poor(func(c *mls.Client) { c.Capabilities.CipherSuites = []mls.CipherSuite{1} }), own, now, ErrCapabilities},
		"bad wrapper":          {mustMarshal(badWrapper.KeyPackage()), own, now, identity.ErrWelcomeExtension},
	} {
		if _, err := CheckKeyPackage(c.data, c.of, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestCapturedKeyPackages: all that the scene's clients uploaded are usable, those of
// the old client and of a newer one too.
func TestCapturedKeyPackages(t *testing.T) {
	owners := map[string]string{}
	for _, c := range clientsFile() {
		owners[string(c.InstallationID)] = c.InboxID
	}
	pointers := 0
	for _, row := range packagesFile() {
		of := Actor{owners[string(row.InstallationID)], identity.Installation(row.InstallationID)}
		info, err := CheckKeyPackage(row.KeyPackage, of, time.Unix(0, int64(row.CreatedNS)))
		if err != nil {
			t.Fatalf("key package %d: %v", row.SequenceID, err)
		}
		if TakesPointers(info) {
			pointers++
		}
	}
	if want := len(packagesFile()) - 2; pointers != want {
		t.Errorf("%d take pointers, want %d", pointers, want)
	}
	newer, err := mls.UnmarshalKeyPackage(groupsFile().KeyPackage1_11.KeyPackage)
	if err != nil {
		t.Fatal(err)
	}
	inboxID, err := identity.ParseCredential(newer.Credential())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(int64(newer.Lifetime().NotBefore)+4000, 0)
	if _, err := CheckKeyPackage(mustMarshal(newer), Actor{inboxID, identity.Installation(newer.SignatureKey())}, at); err != nil {
		t.Error(err)
	}
}
