// Command twopeople is the first listing of docs/mls.md.
package main

import (
	"fmt"
	"log"

	"github.com/go-xmtp/go-xmtp/mls"
)

func main() {
	alice, bob := newClient("alice"), newClient("bob")
	keys, err := mls.NewKeyPackage(bob, mls.KeyPackageOptions{}) // Bob publishes keys.KeyPackage()
	check(err)

	created, err := mls.New([]byte("our group"), alice, nil, mls.Config{})
	check(err)
	hers := created.Done()
	add := mls.Add{KeyPackage: keys.KeyPackage()}
	commit, err := hers.Commit(mls.CommitOptions{Proposals: []mls.Proposal{add}})
	check(err)
	sent := commit.Done()
	merged, err := hers.MergeOwnCommit()
	check(err)
	merged.Done()
	joined, err := mls.Join(sent.Welcome, keys, bob.Signer, nil, mls.Config{})
	check(err)
	his := joined.Done().Group

	encrypted, err := hers.Encrypt([]byte("Hello Bob"), nil)
	check(err)
	received, err := his.Process(encrypted.Done())
	check(err)
	fmt.Printf("%s\n", received.Done().(*mls.ApplicationMessage).Data)
}

// newClient is who somebody is: a cipher suite, a signature key, a name.
func newClient(name string) mls.Client {
	const suite = mls.X25519ChaChaSHA256Ed25519
	private, err := mls.GenerateSignatureKey(suite)
	check(err)
	signer, err := mls.NewSigner(suite, private)
	check(err)
	return mls.Client{CipherSuite: suite, Signer: signer, Credential: mls.BasicCredential([]byte(name))}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
