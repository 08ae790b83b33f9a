package node_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// authority gives out certificates that its pool trusts.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t), pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key))(t)))(t)
	a.pool.AddCert(a.cert)
	return a
}

// sign returns a certificate for names and a key.
func (a *authority) sign(public any, serial int64, names ...string) ([]byte, error) {
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 90),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, public, a.key)
}

// write puts a certificate and its key into files.
func (a *authority) write(t testing.TB, files node.TLS, serial int64) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	cert := must(a.sign(key.Public(), serial, "localhost"))(t)
	for path, block := range map[string]*pem.Block{
		files.CertFile: {Type: "CERTIFICATE", Bytes: cert},
		files.KeyFile:  {Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))(t)},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// client is what an authority's clients begin TLS with.
func (a *authority) client(protocols ...string) *tls.Config {
	return &tls.Config{RootCAs: a.pool, ServerName: "localhost", NextProtos: protocols}
}

// startTLS runs a node with a certificate of a new authority, with serial number 1.
func startTLS(t testing.TB, o node.Options) (*node.Node, *authority) {
	t.Helper()
	a, dir := newAuthority(t), t.TempDir()
	o.TLS = node.TLS{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	a.write(t, o.TLS, 1)
	o.WebListen = "127.0.0.1:0"
	return start(t, o), a
}

// By what clients offer, the node sees what they speak: the two servers tell
// their limits at once.
func TestTLSSplit(t *testing.T) {
	t.Parallel()
	n, a := startTLS(t, node.Options{})
	for name, tc := range map[string]struct {
		offer   []string
		got     string
		streams uint32 // at once, in a connection
	}{
		"native client":          {offer: []string{"h2"}, got: "h2", streams: 10_000},
		"browser":                {offer: []string{"h2", "http/1.1"}, got: "h2", streams: 250},
		"the other way around":   {offer: []string{"http/1.1", "h2"}, got: "h2", streams: 250},
		"with something unknown": {offer: []string{"h3", "h2"}, got: "h2", streams: 10_000},
	} {
		for _, addr := range []string{n.Addr(), n.WebAddr()} {
			conn := must(tls.Dial("tcp", addr, a.client(tc.offer...)))(t)
			if got := conn.ConnectionState().NegotiatedProtocol; got != tc.got {
				t.Errorf("%s: %q was agreed on", name, got)
			}
			framer := http2.NewFramer(conn, conn)
			must(io.WriteString(conn, http2.ClientPreface))(t)
			if err := framer.WriteSettings(); err != nil {
				t.Fatal(err)
			}
			settings, ok := must(framer.ReadFrame())(t).(*http2.SettingsFrame)
			if !ok {
				t.Fatal(name, "no settings first")
			}
			if streams, _ := settings.Value(http2.SettingMaxConcurrentStreams); streams != tc.streams {
				t.Errorf("%s: %d streams, want %d", name, streams, tc.streams)
			}
			if headers, ok := settings.Value(http2.SettingMaxHeaderListSize); !ok || headers > 70_000 {
				t.Errorf("%s: %d bytes of headers", name, headers)
			}
			conn.Close()
		}
	}
	if conn, err := tls.Dial("tcp", n.Addr(), a.client("h3")); err == nil {
		conn.Close()
		t.Error("a client that speaks nothing that is served was taken")
	}
}

// All clients are served over TLS: those of gRPC, browsers with HTTP/2 and
// HTTP/1.1, tools that know nothing of ALPN, and gRPC of a client that could
// speak HTTP/1.1, too.
func TestTLSClients(t *testing.T) {
	t.Parallel()
	n, a := startTLS(t, node.Options{})
	ctx, group := short(t), newGroupID()
	c := dial(t, n, grpc.WithTransportCredentials(credentials.NewTLS(a.client())))
	if err := groupLog.send(ctx, c, group, application(group, "message")); err != nil {
		t.Fatal(err)
	}
	must(groupLog.open(ctx, c, filter{topic: group}))(t)
	for name, tc := range map[string]struct {
		protocols []string
		major     int
	}{
		"HTTP/2":   {[]string{"h2", "http/1.1"}, 2},
		"HTTP/1.1": {[]string{"http/1.1"}, 1},
		"no ALPN":  {nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for _, addr := range []string{n.Addr(), n.WebAddr()} {
				client := webTLS(t, a, tc.protocols...)
				res := must(client.Do(webPost(ctx, t, "https://"+addr, mlsapi.MlsApi_QueryGroupMessages_FullMethodName, &mlsapi.QueryGroupMessagesRequest{GroupId: group})))(t)
				message, _ := webFrame(t, res.Body)
				wantCORS(t, res)
				res.Body.Close()
				if res.ProtoMajor != tc.major || !bytes.Contains(message, application(group, "message")) {
					t.Errorf("got %s, %x", res.Proto, message)
				}
				res = must(client.Do(webPost(ctx, t, "https://"+addr, streams[0], &mlsapi.SubscribeGroupMessagesRequest{
					Filters: []*mlsapi.SubscribeGroupMessagesRequest_Filter{{GroupId: group}},
				})))(t)
				if message, _ := webFrame(t, res.Body); !bytes.Contains(message, application(group, "message")) {
					t.Errorf("streamed %x", message)
				}
				res.Body.Close()
			}
		})
	}
	t.Run("gRPC", func(t *testing.T) {
		message := must(proto.Marshal(&identityapi.GetInboxIdsRequest{Requests: make([]*identityapi.GetInboxIdsRequest_Request, 1)}))(t)
		req := grpcPost(ctx, t, n, identityapi.IdentityApi_GetInboxIds_FullMethodName, bytes.NewReader(frame(message)))
		req.URL.Scheme = "https"
		res := must(webTLS(t, a, "h2", "http/1.1").Do(req))(t)
		defer res.Body.Close()
		must(io.ReadAll(res.Body))(t)
		if res.Header.Get("Content-Type") != "application/grpc" || res.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("got %v, trailers %v", res.Header, res.Trailer)
		}
	})
}

// webTLS is a client for HTTP over TLS that offers the protocols.
func webTLS(t testing.TB, a *authority, protocols ...string) *http.Client {
	transport := &http.Transport{DisableCompression: true, DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return (&tls.Dialer{Config: a.client(protocols...)}).DialContext(ctx, network, addr)
	}}
	if len(protocols) > 1 {
		transport.DialTLSContext, transport.TLSClientConfig, transport.ForceAttemptHTTP2 = nil, a.client(), true
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// Who doesn't speak TLS is told so, if he can be told.
func TestTLSRefusesCleartext(t *testing.T) {
	t.Parallel()
	n, _ := startTLS(t, node.Options{})
	ctx := short(t)
	res := must(browser(t).Do(webPost(ctx, t, "http://"+n.Addr(), streams[0], &mlsapi.SubscribeGroupMessagesRequest{})))(t)
	defer res.Body.Close()
	if body := must(io.ReadAll(res.Body))(t); res.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "https") {
		t.Errorf("got %s %q", res.Status, body)
	}
	_, err := dial(t, n, grpc.WithTransportCredentials(insecure.NewCredentials())).identity.GetInboxIds(ctx, &identityapi.GetInboxIdsRequest{})
	wantCode(t, err, codes.Unavailable)
}

// A certificate that is replaced is used from then on, one that can't be used is
// not, and connections that are open stay so.
func TestTLSReload(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	files := node.TLS{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	a.write(t, files, 1)
	var logged warnings
	n := start(t, node.Options{TLS: files, Logger: logged.logger()})
	ctx, group := short(t), newGroupID()
	c := dial(t, n, grpc.WithTransportCredentials(credentials.NewTLS(a.client())))
	open := must(groupLog.open(ctx, c, filter{topic: group}))(t)
	presented := func() int64 {
		t.Helper()
		conn := must(tls.Dial("tcp", n.Addr(), a.client("h2")))(t)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := presented(); got != 1 {
		t.Fatalf("certificate %d at first", got)
	}
	a.write(t, files, 2)
	if got := presented(); got != 2 || logged.String() != "" {
		t.Errorf("certificate %d after a new one was written, logged %q", got, logged.String())
	}
	good := must(os.ReadFile(files.CertFile))(t)
	for name, spoil := range map[string]func(){
		"garbage":     func() { must(0, os.WriteFile(files.CertFile, []byte("garbage"), 0o600))(t) },
		"another key": func() { other := files; other.CertFile += ".other"; a.write(t, other, 9) },
		"missing":     func() { must(0, os.Remove(files.KeyFile))(t) },
	} {
		before := strings.Count(logged.String(), "level=ERROR")
		spoil()
		for range 3 {
			if got := presented(); got != 2 {
				t.Errorf("%s: certificate %d", name, got)
			}
		}
		if got := strings.Count(logged.String(), "level=ERROR") - before; got != 1 {
			t.Errorf("%s: %d errors logged:\n%s", name, got, logged.String())
		}
		must(0, os.WriteFile(files.CertFile, good, 0o600))(t)
	}
	if strings.Contains(logged.String(), "PRIVATE") {
		t.Error("a key was logged")
	}
	a.write(t, files, 3)
	if got := presented(); got != 3 {
		t.Errorf("certificate %d after the last was written", got)
	}
	if err := groupLog.send(ctx, c, group, application(group, "message")); err != nil {
		t.Fatal(err)
	}
	if e := must(open.next())(t); e.data != string(application(group, "message")) {
		t.Error("the stream that was open has another message")
	}
}

// What can't be used is an error at the start, and nothing is touched.
func TestTLSBadOptions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, options := range map[string]node.TLS{
		"no such files":     {CertFile: filepath.Join(dir, "no"), KeyFile: filepath.Join(dir, "no")},
		"no key":            {CertFile: filepath.Join(dir, "no")},
		"no certificate":    {KeyFile: filepath.Join(dir, "no")},
		"no cache":          {Domains: []string{"node.example"}},
		"an empty domain":   {Domains: []string{""}, Cache: dir},
		"files and domains": {CertFile: "a", KeyFile: "b", Domains: []string{"node.example"}, Cache: dir},
	} {
		data := filepath.Join(dir, "data")
		if n, err := node.Start(t.Context(), node.Options{Listen: "127.0.0.1:0", Data: data, TLS: options}); err == nil {
			n.Close()
			t.Errorf("%s: it started", name)
		}
		if _, err := os.Stat(data); err == nil {
			t.Errorf("%s: the data directory was made", name)
		}
	}
}
