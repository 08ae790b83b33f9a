package x448_test

import (
	"fmt"
	"log"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/mls/x448"
)

// The package's suites are passed to whatever has to know them.
func Example() {
	suites := x448.Suites()
	key, err := mls.GenerateSignatureKey(x448.ChaChaSHA512Ed448, suites...)
	if err != nil {
		log.Fatal(err)
	}
	signer, err := mls.NewSigner(x448.ChaChaSHA512Ed448, key, suites...)
	if err != nil {
		log.Fatal(err)
	}
	alice := mls.Client{CipherSuite: x448.ChaChaSHA512Ed448, Signer: signer, Credential: mls.BasicCredential([]byte("alice"))}
	p, err := mls.New([]byte("group"), alice, nil, mls.Config{Suites: suites})
	if err != nil {
		log.Fatal(err)
	}
	group := p.Done()
	fmt.Println("suite", group.CipherSuite(), "with keys of", len(signer.Public()), "bytes")
	// Output: suite 6 with keys of 57 bytes
}
