package node_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/node"
)

const anyPort = "127.0.0.1:0"

// visit sends a request to a node's history service and returns the answer's status and text.
func visit(t *testing.T, n *node.Node, method, path, body string, header ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(short(t), method, "http://"+n.HistoryAddr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	// So that what isn't wanted isn't sent: that would meet a closed connection.
	request.Header.Set("Expect", "100-continue")
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: time.Minute}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

func TestHistory(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"on disk": filepath.Join(t.TempDir(), "data"), "in memory": ""} {
		t.Run(name, func(t *testing.T) {
			options := node.Options{Data: dir, HistoryListen: anyPort, History: node.History{MaxFile: 100}}
			n := start(t, options)
			code, id := visit(t, n, "POST", "/upload", "archive")
			if code != http.StatusOK {
				t.Fatalf("%d: %s", code, id)
			}
			if code, text := visit(t, n, "POST", "/upload", strings.Repeat("x", 101)); code != http.StatusRequestEntityTooLarge {
				t.Errorf("too large: %d: %s", code, text)
			}
			if dir != "" {
				if err := n.Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				options.ReadOnly = true
				n = start(t, options)
				if code, text := visit(t, n, "POST", "/upload", "x"); code != http.StatusServiceUnavailable {
					t.Errorf("read-only: %d: %s", code, text)
				}
			}
			if code, text := visit(t, n, "GET", "/files/"+id, ""); code != http.StatusOK || text != "archive" {
				t.Errorf("%d: %q", code, text)
			}
		})
	}
}

// TestHistoryRefused: what can't start leaves no port and no directory.
func TestHistoryRefused(t *testing.T) {
	t.Parallel()
	if n := start(t, node.Options{}); n.HistoryAddr() != "" {
		t.Errorf("nobody asked for %s", n.HistoryAddr())
	}
	n := start(t, node.Options{HistoryListen: anyPort})
	dir := filepath.Join(t.TempDir(), "data")
	_, err := launch(node.Options{Data: dir, HistoryListen: n.HistoryAddr()})
	var which *node.ListenError
	if !errors.Is(err, node.ErrAddressInUse) || !errors.As(err, &which) || which.Option != "HistoryListen" {
		t.Errorf("port in use: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	if _, err := launch(node.Options{HistoryListen: anyPort, History: node.History{Keep: -1}}); err == nil {
		t.Error("a negative time was accepted")
	}
}

// TestHistoryLimits: who isn't served isn't here either, whoever speaks for him.
func TestHistoryLimits(t *testing.T) {
	t.Parallel()
	loopback, denied := netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("192.0.2.0/24")
	n := start(t, node.Options{HistoryListen: anyPort, History: node.History{MaxFile: 1 << 20, Total: 4 << 20}, Limits: node.Limits{
		TrustedProxies: []netip.Prefix{loopback}, DenyAddresses: []netip.Prefix{denied}, ExemptAddresses: []netip.Prefix{loopback},
	}})
	large := strings.Repeat("x", 1<<20)
	for _, test := range []struct {
		from string
		want int
	}{
		{"192.0.2.1", http.StatusForbidden},
		{"2001:db8::1", http.StatusOK}, {"2001:db8::2", http.StatusTooManyRequests}, {"2001:db8:1::1", http.StatusOK},
		{"", http.StatusOK}, {"", http.StatusOK}, {"", http.StatusInsufficientStorage},
	} {
		if code, text := visit(t, n, "POST", "/upload", large, "X-Forwarded-For", test.from); code != test.want {
			t.Errorf("from %q: %d: %s", test.from, code, text)
		}
	}
}

// TestHistoryTLS: the service has the node's certificate, for HTTP/1.1 only.
func TestHistoryTLS(t *testing.T) {
	t.Parallel()
	n, a := startTLS(t, node.Options{HistoryListen: anyPort})
	client := webTLS(t, a, "h2", "http/1.1")
	response, err := client.Post("https://"+n.HistoryAddr()+"/upload", "", strings.NewReader("archive"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	id, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || response.ProtoMajor != 1 {
		t.Fatalf("%s %s: %s, %v", response.Proto, response.Status, id, err)
	}
	response, err = client.Get("https://" + n.HistoryAddr() + "/files/" + string(id))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got, err := io.ReadAll(response.Body); string(got) != "archive" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if code, _ := visit(t, n, "GET", "/", ""); code != http.StatusBadRequest {
		t.Errorf("without TLS: %d", code)
	}
}

// TestHistoryShutdown: a transfer may finish within the grace, and is cut off when
// the caller can't wait any longer.
func TestHistoryShutdown(t *testing.T) {
	t.Parallel()
	for name, finishes := range map[string]bool{"finishes": true, "cut off": false} {
		t.Run(name, func(t *testing.T) {
			n := start(t, node.Options{HistoryListen: anyPort, ShutdownGrace: time.Minute})
			c, err := net.Dial("tcp", n.HistoryAddr())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// The answer to Expect shows that the upload is under way.
			if _, err := io.WriteString(c, "POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 4096)
			if _, err := c.Read(answer); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- n.Shutdown(ctx) }()
			if finishes {
				if _, err := io.WriteString(c, "done"); err != nil {
					t.Fatal(err)
				}
			} else {
				cancel()
			}
			rest, _ := io.ReadAll(c) // how a connection that is cut off ends differs between systems
			if got := strings.HasPrefix(string(rest), "HTTP/1.1 200"); got != finishes {
				t.Errorf("answer: %q", rest)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
