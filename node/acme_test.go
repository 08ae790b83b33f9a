package node_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/node"
)

// acmeAuthority gives out certificates by RFC 8555 to who proves by tls-alpn-01
// (RFC 8737) that he has the name. It does not check who signs the requests.
type acmeAuthority struct {
	*authority
	url  string
	node chan string // the address behind all names

	orders atomic.Int64

	mu         sync.Mutex
	thumbprint string
	domain     string
	status     string // of the order
	leaf       []byte
}

func newACMEAuthority(t *testing.T) *acmeAuthority {
	a := &acmeAuthority{authority: newAuthority(t), node: make(chan string, 1)}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

// token is that of all challenges.
const token = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"

func (a *acmeAuthority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Replay-Nonce", "a-nonce")
	w.Header().Set("Content-Type", "application/json")
	if err := a.answer(w, r); err != nil {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"type":"urn:ietf:params:acme:error:malformed","detail":%q}`, err)
	}
}

func (a *acmeAuthority) answer(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		if r.URL.Path == "/directory" {
			return json.NewEncoder(w).Encode(map[string]string{"newNonce": a.url + "/nonce", "newAccount": a.url + "/account", "newOrder": a.url + "/order"})
		}
		return nil // a nonce
	}
	var signed struct{ Protected, Payload string }
	var protected struct {
		JWK struct{ CRV, KTY, X, Y string }
	}
	var payload struct {
		Identifiers []struct{ Value string }
		CSR         string
	}
	err := json.NewDecoder(r.Body).Decode(&signed)
	for text, into := range map[string]any{signed.Protected: &protected, signed.Payload: &payload} {
		if text != "" {
			raw, decodeErr := base64.RawURLEncoding.DecodeString(text)
			err = errors.Join(err, decodeErr, json.Unmarshal(raw, into))
		}
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch r.URL.Path {
	case "/account":
		k := protected.JWK
		sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":%q,"kty":%q,"x":%q,"y":%q}`, k.CRV, k.KTY, k.X, k.Y))
		a.thumbprint = base64.RawURLEncoding.EncodeToString(sum[:])
		w.Header().Set("Location", a.url+"/account/1")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"status":"valid"}`)
		return nil
	case "/order":
		a.orders.Add(1)
		a.domain, a.status = payload.Identifiers[0].Value, "pending"
		w.Header().Set("Location", a.url+"/order/1")
		w.WriteHeader(http.StatusCreated)
	case "/challenge/1":
		if err := a.validate(r.Context()); err != nil {
			return err
		}
		a.status = "ready"
		fmt.Fprint(w, a.challenge())
		return nil
	case "/authz/1":
		fmt.Fprintf(w, `{"status":%q,"identifier":{"type":"dns","value":%q},"challenges":[%s]}`, a.proven(), a.domain, a.challenge())
		return nil
	case "/finalize/1":
		raw, err := base64.RawURLEncoding.DecodeString(payload.CSR)
		if err != nil {
			return err
		}
		csr, err := x509.ParseCertificateRequest(raw)
		if err != nil {
			return err
		}
		if a.status != "ready" || !slices.Equal(csr.DNSNames, []string{a.domain}) {
			return fmt.Errorf("%v was not proven", csr.DNSNames)
		}
		if a.leaf, err = a.sign(csr.PublicKey, a.orders.Load(), a.domain); err != nil {
			return err
		}
		a.status = "valid"
	case "/cert/1":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		return errors.Join(pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: a.leaf}),
			pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	}
	_, err = fmt.Fprintf(w, `{"status":%q,"identifiers":[{"type":"dns","value":%q}],"authorizations":[%q],"finalize":%q,"certificate":%q}`,
		a.status, a.domain, a.url+"/authz/1", a.url+"/finalize/1", a.url+"/cert/1")
	return err
}

func (a *acmeAuthority) proven() string {
	if a.status == "pending" {
		return "pending"
	}
	return "valid"
}

func (a *acmeAuthority) challenge() string {
	return fmt.Sprintf(`{"type":"tls-alpn-01","url":%q,"token":%q,"status":%q}`, a.url+"/challenge/1", token, a.proven())
}

// validate asks the node for the proof.
func (a *acmeAuthority) validate(ctx context.Context) error {
	var addr string
	select {
	case addr = <-a.node:
	case <-ctx.Done():
		return ctx.Err()
	}
	a.node <- addr
	dialer := tls.Dialer{Config: &tls.Config{ServerName: a.domain, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	sum := sha256.Sum256([]byte(token + "." + a.thumbprint))
	want, err := asn1.Marshal(sum[:])
	if err != nil {
		return err
	}
	for _, extension := range conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Extensions {
		if extension.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}) && extension.Critical && bytes.Equal(extension.Value, want) {
			return nil
		}
	}
	return errors.New("no proof")
}

// A certificate is got from the authority at the start, kept, and used again
// by the next node. Names that nobody told of are refused without asking.
func TestACME(t *testing.T) {
	t.Parallel()
	a := newACMEAuthority(t)
	options := node.Options{TLS: node.TLS{Domains: []string{"node.example"}, Cache: t.TempDir(), Directory: a.url + "/directory"}}
	for range 2 {
		n := start(t, options)
		select {
		case <-a.node:
		default:
		}
		a.node <- n.Addr()
		conn := must(tls.Dial("tcp", n.Addr(), &tls.Config{RootCAs: a.pool, ServerName: "node.example", NextProtos: []string{"h2"}}))(t)
		state := conn.ConnectionState()
		conn.Close()
		if state.NegotiatedProtocol != "h2" || state.PeerCertificates[0].SerialNumber.Int64() != 1 {
			t.Errorf("agreed on %q, certificate %d", state.NegotiatedProtocol, state.PeerCertificates[0].SerialNumber)
		}
		for _, name := range []string{"other.example", ""} {
			conn, err := tls.Dial("tcp", n.Addr(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
			if err == nil {
				conn.Close()
				t.Errorf("%q was taken for a name of the node", name)
			}
		}
		if orders := a.orders.Load(); orders != 1 {
			t.Errorf("%d certificates were asked for", orders)
		}
	}
}

// An authority that doesn't answer neither keeps the node from starting nor from
// ending, and one that refuses is logged.
func TestACMEUnreachable(t *testing.T) {
	t.Parallel()
	asked, over := make(chan struct{}, 10), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-over
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(over) })
	options := node.Options{TLS: node.TLS{Domains: []string{"node.example"}, Cache: t.TempDir(), Directory: server.URL}}
	n := must(launch(options))(t)
	<-asked
	ended := make(chan error, 1)
	go func() { ended <- n.Close() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the node waits for the authority")
	}

	refusing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refusing.Close)
	var logged warnings
	options.TLS.Directory, options.Logger = refusing.URL, logged.logger()
	start(t, options)
	eventually(t, "the refusal was logged", func() bool { return bytes.Contains([]byte(logged.String()), []byte("no TLS certificate")) })
}
