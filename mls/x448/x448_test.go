package x448_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/mls/x448"
)

// A group of the package's suites works as any other, and is unknown without them.
// The working group's vectors of these suites are run by the tests of package mls.
func TestSuites(t *testing.T) {
	suites := x448.Suites()
	for _, id := range []mls.CipherSuite{x448.AES256SHA512Ed448, x448.ChaChaSHA512Ed448} {
		client := func(name string) mls.Client {
			key, err := mls.GenerateSignatureKey(id, suites...)
			if err != nil {
				t.Fatal(err)
			}
			signer, err := mls.NewSigner(id, key, suites...)
			if err != nil {
				t.Fatal(err)
			}
			return mls.Client{CipherSuite: id, Signer: signer, Credential: mls.BasicCredential([]byte(name))}
		}
		a, b := client("alice"), client("bob")
		if _, err := mls.NewKeyPackage(b, mls.KeyPackageOptions{}); !errors.Is(err, mls.ErrUnsupportedCipherSuite) {
			t.Errorf("key package without the suite: %v", err)
		}
		kp, err := mls.NewKeyPackage(b, mls.KeyPackageOptions{Suites: suites})
		if err != nil {
			t.Fatal(err)
		}
		config := mls.Config{Suites: suites}
		created, err := mls.New([]byte("group"), a, nil, config)
		if err != nil {
			t.Fatal(err)
		}
		records := created.Changes()
		alice := created.Done()
		commit, err := alice.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.Add{KeyPackage: kp.KeyPackage()}}})
		if err != nil {
			t.Fatal(err)
		}
		welcome := commit.Done().Welcome
		merged, err := alice.MergeOwnCommit()
		if err != nil {
			t.Fatal(err)
		}
		merged.Done()
		joined, err := mls.Join(welcome, kp, b.Signer, nil, config)
		if err != nil {
			t.Fatal(err)
		}
		bob := joined.Done().Group
		if !bytes.Equal(alice.EpochAuthenticator(), bob.EpochAuthenticator()) {
			t.Error("the members are in different states")
		}
		if _, err := mls.Load(records, mls.Config{}, a.Signer); !errors.Is(err, mls.ErrUnsupportedCipherSuite) {
			t.Errorf("loaded without the suite: %v", err)
		}
		if _, err := mls.NewSigner(id, make([]byte, 56), suites...); err == nil {
			t.Error("a signer of 56 bytes")
		}
	}
}
