package mls_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/go-xmtp/go-xmtp/mls"
)

// company accepts who has a certificate of its root.
type company struct{ roots *x509.CertPool }

func (c company) Authenticate(members []mls.Candidate) []error {
	errs := make([]error, len(members))
	for i, m := range members {
		errs[i] = c.verify(m.LeafNode)
	}
	return errs
}

func (c company) verify(leaf mls.LeafNode) error {
	chain, err := leaf.Credential().Certificates()
	if err != nil {
		return err
	}
	var certs []*x509.Certificate
	opts := x509.VerifyOptions{Roots: c.roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		certs = append(certs, cert)
		opts.Intermediates.AddCert(cert)
	}
	if len(certs) == 0 {
		return errors.New("no certificate")
	}
	if _, err := certs[0].Verify(opts); err != nil {
		return err
	}
	// The certificate has to be for the key that the member signs with.
	if key, ok := certs[0].PublicKey.(ed25519.PublicKey); !ok || !bytes.Equal(key, leaf.SignatureKey()) {
		return errors.New("the certificate is for another key")
	}
	return nil
}

// newRoot makes a certificate that signs others.
func newRoot(name string) (*x509.Certificate, ed25519.PrivateKey) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	check(err)
	root, err := x509.ParseCertificate(der)
	check(err)
	return root, private
}

// certified gives a client a certificate for its signature key.
func certified(c mls.Client, name string, root *x509.Certificate, rootKey ed25519.PrivateKey) mls.Client {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root, ed25519.PublicKey(c.Signer.Public()), rootKey)
	check(err)
	c.Credential = mls.X509Credential(der)
	return c
}

// Members have certificates; the application knows which roots to trust.
func ExampleX509Credential() {
	root, rootKey := newRoot("company")
	roots := x509.NewCertPool()
	roots.AddCert(root)
	config := mls.Config{Authenticator: company{roots}}

	alice := certified(newClient("alice"), "alice", root, rootKey)
	created, err := mls.New([]byte("group"), alice, nil, config)
	check(err)
	group := created.Done()

	otherRoot, otherKey := newRoot("company")
	for _, c := range []mls.Client{
		certified(newClient("bob"), "bob", otherRoot, otherKey),
		certified(newClient("bob"), "bob", root, rootKey),
	} {
		keys, err := mls.NewKeyPackage(c, mls.KeyPackageOptions{})
		check(err)
		p, err := group.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.Add{KeyPackage: keys.KeyPackage()}}})
		if errors.Is(err, mls.ErrCredential) {
			fmt.Println("refused")
			continue
		}
		check(err)
		chain, err := p.Done().Staged.Added[0].LeafNode.Credential().Certificates()
		check(err)
		cert, err := x509.ParseCertificate(chain[0])
		check(err)
		fmt.Println("added", cert.Subject)
	}
	// Output:
	// refused
	// added CN=bob
}
