package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/node"
)

// TestTLS has official clients that are not in a browser use a node by https, with an
// authority that their system trusts. The node's certificate is replaced on the way.
func TestTLS(t *testing.T) {
	t.Parallel()
	for _, sdk := range everyVersion {
		t.Run(string(sdk), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "DM over TLS, certificate replaced", sdk)
			roots, issue := newAuthority(t)
			files := issue()
			n := serve(t, node.Options{TLS: files})
			w.url = "https://" + n.Addr()
			join := func() *official.Process {
				return official.StartProcess(t, w.tools, sdk, w.url, "SSL_CERT_FILE="+roots)
			}
			w.Process = join()
			alice, bob := w.Client("alice"), w.Client("bob")
			messages := bob.Stream("conversations.streamAllMessages", nil)
			dm := alice.DM(bob)
			dm.Send("hello")
			messages.WaitTexts("hello")
			replaceBy := issue()
			for from, to := range map[string]string{replaceBy.CertFile: files.CertFile, replaceBy.KeyFile: files.KeyFile} {
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
			dm.Send("the connection is still there")
			messages.WaitTexts("the connection is still there")
			carol := join().Client("carol")
			later := carol.DM(bob)
			later.Send("by the new certificate")
			messages.WaitTexts("by the new certificate")
		})
	}
}

// newAuthority returns the file with the certificate of an authority, and what issues
// certificates for 127.0.0.1 in files.
func newAuthority(t *testing.T) (roots string, issue func() node.TLS) {
	t.Helper()
	folder := t.TempDir()
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sign := func(certificate, parent *x509.Certificate, public any, by *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, certificate, parent, public, by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	authority, key := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, newKey()
	roots = write("roots.pem", "CERTIFICATE", sign(authority, authority, key.Public(), key))
	serial := int64(1)
	return roots, func() node.TLS {
		serial++
		number, own := big.NewInt(serial), newKey()
		certificate := sign(&x509.Certificate{
			SerialNumber: number, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}, authority, own.Public(), key)
		secret, err := x509.MarshalPKCS8PrivateKey(own)
		if err != nil {
			t.Fatal(err)
		}
		return node.TLS{
			CertFile: write(number.String()+".cert.pem", "CERTIFICATE", certificate),
			KeyFile:  write(number.String()+".key.pem", "PRIVATE KEY", secret),
		}
	}
}
