package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if helped() {
		return
	}
	goleak.VerifyTestMain(m)
}

const dir = "/data/history"

func options(fs vfs.FS) Options {
	return Options{
		FS: fs, Dir: dir, MaxFile: 1 << 20, Total: 4 << 20, Keep: 24 * time.Hour,
		Visitor: visitor, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	}
}

func visitor(r *http.Request) (netip.Prefix, error) {
	connected, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}, nil
	}
	if connected.Addr().IsMulticast() {
		return netip.Prefix{}, errors.New("not served")
	}
	return connected.Addr().Prefix(24)
}

func open(t testing.TB, o Options) *Service {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// empty returns a file system with the directory that the service's is made in.
func empty(t testing.TB) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/data", 0o700); err != nil {
		t.Fatal(err)
	}
	return fs
}

// do sends a request from an address without a network.
func do(s *Service, method, target, from string, body io.Reader, headers ...string) *http.Response {
	r := httptest.NewRequest("GET", "http://history", body)
	r.Method = method
	r.URL.Path = target
	r.RemoteAddr = from
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

const somebody = "192.0.2.1:4000"

func upload(t testing.TB, s *Service, from string, content []byte) (id string) {
	t.Helper()
	response := do(s, "POST", "/upload", from, bytes.NewReader(content))
	id = text(t, response)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("upload: %s: %s", response.Status, id)
	}
	return id
}

func text(t testing.TB, response *http.Response) string {
	t.Helper()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// holds checks what is on disk and what is charged for it.
func holds(t testing.TB, s *Service, files int, bytes int64) {
	t.Helper()
	names, err := s.options.FS.List(s.options.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, ok := parseName(name); !ok {
			t.Errorf("left over: %s", name)
		}
	}
	if len(names) != files {
		t.Errorf("%d files, want %d", len(names), files)
	}
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	if s.ledger.bytes != bytes || s.ledger.transfers != 0 {
		t.Errorf("charged: %d bytes and %d transfers, want %d and 0", s.ledger.bytes, s.ledger.transfers, bytes)
	}
	if files == 0 && len(s.ledger.peers) != 0 {
		t.Errorf("%d peers are remembered for nothing", len(s.ledger.peers))
	}
}

func TestUploadAndDownload(t *testing.T) {
	o := options(empty(t))
	o.Total = 64 << 20
	s := open(t, o)
	ids := map[string]bool{}
	for _, content := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("archive"), 50_000), make([]byte, chunk), make([]byte, 1<<20)} {
		response := do(s, "POST", "/upload", somebody, io.MultiReader(bytes.NewReader(content))) // of unknown length
		id := text(t, response)
		if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Fatalf("upload: %s, %v", response.Status, response.Header)
		}
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) || ids[id] {
			t.Fatalf("id %q", id)
		}
		ids[id] = true

		response = do(s, "GET", "/files/"+id, "[2001:db8::1]:1", nil)
		if got := text(t, response); response.StatusCode != http.StatusOK || got != string(content) {
			t.Errorf("%s: %d of %d bytes", response.Status, len(got), len(content))
		}
		for name, want := range map[string]string{
			"Content-Type": "application/octet-stream", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
			"Content-Length": fmt.Sprint(len(content)), "Accept-Ranges": "bytes", "Last-Modified": "",
		} {
			if got := response.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		response = do(s, "HEAD", "/files/"+id, somebody, nil)
		if got := text(t, response); response.StatusCode != http.StatusOK || got != "" || response.Header.Get("Content-Length") != fmt.Sprint(len(content)) {
			t.Errorf("HEAD: %s, %v, %q", response.Status, response.Header, got)
		}
	}
}

// TestRange: a download that broke off can be resumed.
func TestRange(t *testing.T) {
	s := open(t, options(empty(t)))
	id := upload(t, s, somebody, []byte("0123456789"))
	etag := do(s, "GET", "/files/"+id, somebody, nil).Header.Get("ETag")
	for _, test := range []struct {
		headers []string
		status  int
		want    string
	}{
		{[]string{"Range", "bytes=4-"}, http.StatusPartialContent, "456789"},
		{[]string{"Range", "bytes=-2"}, http.StatusPartialContent, "89"},
		{[]string{"Range", "bytes=4-5", "If-Range", etag}, http.StatusPartialContent, "45"},
		{[]string{"Range", "bytes=4-5", "If-Range", `"another"`}, http.StatusOK, "0123456789"},
		{[]string{"If-None-Match", etag}, http.StatusNotModified, ""},
	} {
		response := do(s, "GET", "/files/"+id, somebody, nil, test.headers...)
		if got := text(t, response); response.StatusCode != test.status || got != test.want {
			t.Errorf("%q: %s, %q", test.headers, response.Status, got)
		}
	}
	if response := do(s, "GET", "/files/"+id, somebody, nil, "Range", "bytes=10-"); response.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("beyond the end: %s", response.Status)
	}
}

func TestPaths(t *testing.T) {
	fs := empty(t)
	s := open(t, options(fs))
	id := upload(t, s, somebody, []byte("secret"))
	n, _ := parseID(id)
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/", 200}, {"HEAD", "/", 200}, {"POST", "/", 405},
		{"GET", "/files/" + id, 200},
		{"GET", "//files/" + id, 200}, // "http://host/" + "/files/ID"
		{"POST", "/files/" + id, 405}, {"PUT", "/files/" + id, 405}, {"DELETE", "/files/" + id, 405},
		{"GET", "/upload", 405}, {"PUT", "/upload", 405},
		{"POST", "//upload", 200}, {"POST", "/upload/", 404}, {"POST", "/upload/" + id, 404},
		{"GET", "/files", 404}, {"GET", "/files/", 404}, {"GET", "/nothing", 404}, {"TRACE", "/", 405},
		{"GET", "/files/" + strings.ToUpper(id), 404},
		{"GET", "/files/" + id + "/", 404}, {"GET", "/files/" + id + tempSuffix, 404}, {"GET", "/files/ " + id, 404},
		{"GET", "/files/" + id[:31], 404}, {"GET", "/files/" + id + "0", 404}, {"GET", "/files/" + strings.Repeat("0", 32), 404},
		{"GET", "/files/" + n.String(), 404}, {"GET", "/" + n.String(), 404},
		{"GET", "/files/../history/" + n.String(), 404}, {"GET", "/files/./" + id, 404}, {"GET", "/../data/history", 404},
		{"GET", "/files/\x00", 404}, {"GET", "/files/..", 404}, {"GET", "/files/" + dir, 404},
	} {
		response := do(s, test.method, test.path, somebody, strings.NewReader("body"))
		if response.StatusCode != test.status {
			t.Errorf("%s %q: %s, want %d", test.method, test.path, response.Status, test.status)
		}
		if response.StatusCode == http.StatusMethodNotAllowed && response.Header.Get("Allow") == "" {
			t.Errorf("%s %q: no Allow", test.method, test.path)
		}
	}
}

func TestBrowsers(t *testing.T) {
	s := open(t, options(empty(t)))
	response := do(s, "OPTIONS", "/upload", somebody, nil,
		"Origin", "https://app.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type,x-hmac")
	if response.StatusCode != http.StatusNoContent {
		t.Errorf("preflight: %s", response.Status)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "POST, OPTIONS",
		"Access-Control-Allow-Headers": "content-type,x-hmac", "Access-Control-Max-Age": "86400",
	} {
		if got := response.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, response := range []*http.Response{
		do(s, "POST", "/upload", somebody, strings.NewReader("x"), "Origin", "https://app.example"),
		do(s, "GET", "/files/gone", somebody, nil, "Origin", "https://app.example"),
		do(s, "GET", "/nothing", somebody, nil, "Origin", "https://app.example"),
	} {
		if got := response.Header.Get("Access-Control-Allow-Origin"); got != "*" {
			t.Errorf("%s: a browser can't read it", response.Status)
		}
		if response.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: credentials are allowed", response.Status)
		}
	}
}

func TestTooLarge(t *testing.T) {
	s := open(t, options(empty(t)))
	large := make([]byte, s.options.MaxFile+1)
	for name, body := range map[string]io.Reader{
		"announced": bytes.NewReader(large), "not announced": io.MultiReader(bytes.NewReader(large)),
	} {
		response := do(s, "POST", "/upload", somebody, body)
		if response.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %s", name, response.Status)
		}
		holds(t, s, 0, 0)
	}
	upload(t, s, somebody, large[1:])
	holds(t, s, 1, s.options.MaxFile)
}

func TestReadOnly(t *testing.T) {
	o := options(empty(t))
	s := open(t, o)
	id := upload(t, s, somebody, []byte("x"))
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.ReadOnly = true
	s = open(t, o)
	if response := do(s, "POST", "/upload", somebody, strings.NewReader("x")); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("upload: %s", response.Status)
	}
	if got := text(t, do(s, "GET", "/files/"+id, somebody, nil)); got != "x" {
		t.Errorf("download: %q", got)
	}
	holds(t, s, 1, minCharge)
}

// TestQuota: one peer can have a quarter, and nobody in particular all.
func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, options(empty(t)))
		const from, again, other, nobody = "192.0.2.1:1", "192.0.2.200:2", "198.51.100.1:1", "pipe"
		half := make([]byte, 1<<19)
		first := upload(t, s, from, half)
		time.Sleep(time.Hour)
		upload(t, s, again, half)
		for range 3 {
			response := do(s, "POST", "/upload", again, strings.NewReader("x"))
			if response.StatusCode != http.StatusTooManyRequests {
				t.Errorf("over the quota: %s", response.Status)
			}
		}
		upload(t, s, other, half)
		for range 5 {
			upload(t, s, nobody, half)
		}
		if response := do(s, "GET", "/files/"+first, from, nil); response.StatusCode != http.StatusOK {
			t.Errorf("download: %s", response.Status)
		}
		time.Sleep(s.options.Keep)
		synctest.Wait()
		upload(t, s, again, half)
	})
}

// TestRefused: who isn't served can neither put nor get.
func TestRefused(t *testing.T) {
	s := open(t, options(empty(t)))
	id := upload(t, s, somebody, []byte("x"))
	for _, response := range []*http.Response{
		do(s, "POST", "/upload", "224.0.0.1:1", strings.NewReader("x")), do(s, "GET", "/files/"+id, "224.0.0.1:1", nil),
	} {
		if response.StatusCode != http.StatusForbidden {
			t.Error(response.Status)
		}
	}
	holds(t, s, 1, minCharge)
}

func TestTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, options(empty(t)))
		for i := range 64 { // from different peers; each counts as 64 KiB
			upload(t, s, fmt.Sprintf("10.0.%d.1:1", i), []byte("small"))
		}
		holds(t, s, 64, s.options.Total)
		response := do(s, "POST", "/upload", "10.1.0.1:1", strings.NewReader("x"))
		if response.StatusCode != http.StatusInsufficientStorage {
			t.Errorf("over the total: %s", response.Status)
		}
		time.Sleep(s.options.Keep)
		synctest.Wait()
		holds(t, s, 0, 0)
		upload(t, s, "10.1.0.1:1", []byte("x"))
	})
}

// TestExpiry: a file can be had until its time is over, also after a restart.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := empty(t)
		s := open(t, options(fs))
		can := func(id string) bool { return do(s, "GET", "/files/"+id, somebody, nil).StatusCode == http.StatusOK }
		id := upload(t, s, somebody, []byte("old"))
		time.Sleep(s.options.Keep - time.Second)
		if !can(id) {
			t.Error("gone too soon")
		}
		young := upload(t, s, somebody, []byte("young"))
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		s = open(t, options(fs))
		if !can(id) {
			t.Error("gone by a restart")
		}
		time.Sleep(time.Second)
		if can(id) {
			t.Error("there for too long")
		}
		if !can(young) {
			t.Error("the young one is gone with the old")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		holds(t, s, 1, minCharge)

		// A clock that was wrong doesn't keep a file for ever.
		o := options(fs)
		o.Now = func() time.Time { return time.Now().Add(-1000 * time.Hour) }
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		s = open(t, o)
		time.Sleep(o.Keep)
		synctest.Wait()
		holds(t, s, 0, 0)
	})
}

// TestForeignFiles: what isn't the service's is neither served nor touched.
func TestForeignFiles(t *testing.T) {
	fs := empty(t)
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	names := []string{"note.txt", "note.part", strings.Repeat("g", 64)}
	for _, name := range names {
		f, err := fs.Create(fs.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, options(fs))
	for _, name := range names {
		if response := do(s, "GET", "/files/"+name, somebody, nil); response.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", name, response.Status)
		}
		if _, err := fs.Stat(fs.PathJoin(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestTakenAway: a file that somebody has removed is no longer charged.
func TestTakenAway(t *testing.T) {
	s := open(t, options(empty(t)))
	id := upload(t, s, somebody, []byte("x"))
	n, _ := parseID(id)
	if err := s.options.FS.Remove(s.path(n)); err != nil {
		t.Fatal(err)
	}
	if response := do(s, "GET", "/files/"+id, somebody, nil); response.StatusCode != http.StatusNotFound {
		t.Error(response.Status)
	}
	holds(t, s, 0, 0)
}

// TestSilence: nothing about content and peers is logged at info, whatever happens.
func TestSilence(t *testing.T) {
	var log bytes.Buffer
	fs := &hookFS{FS: empty(t)}
	o := options(fs)
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s := open(t, o)
	id := upload(t, s, somebody, []byte("content"))
	do(s, "GET", "/files/"+id, somebody, nil)
	do(s, "GET", "/files/nothing", somebody, nil)
	do(s, "POST", "/upload", somebody, bytes.NewReader(make([]byte, 2<<20)))
	do(s, "POST", "/upload", somebody, &brokenReader{})
	if log.Len() != 0 {
		t.Errorf("logged: %s", &log)
	}
	fs.fail("create", errDisk)
	do(s, "POST", "/upload", somebody, strings.NewReader("content"))
	if got := log.String(); !strings.Contains(got, errDisk.Error()) || strings.Contains(got, "192.0.2.1") || strings.Contains(got, "content") {
		t.Errorf("logged: %s", got)
	}
}

type brokenReader struct{ sent bool }

func (r *brokenReader) Read(b []byte) (int, error) {
	if r.sent {
		return 0, io.ErrUnexpectedEOF
	}
	r.sent = true
	return copy(b, "some"), nil
}

// TestCutShort: an upload that breaks off leaves nothing.
func TestCutShort(t *testing.T) {
	s := open(t, options(empty(t)))
	if response := do(s, "POST", "/upload", somebody, &brokenReader{}); response.StatusCode != http.StatusBadRequest {
		t.Error(response.Status)
	}
	holds(t, s, 0, 0)
}

// network serves on a network in memory, which has the clock of the bubble.
type network struct {
	accept chan net.Conn
	closed chan struct{}
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.accept:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error   { close(n.closed); return nil }
func (n *network) Addr() net.Addr { return &net.TCPAddr{} }

func (n *network) dial() net.Conn {
	client, server := net.Pipe()
	n.accept <- server
	return client
}

func serve(t *testing.T, s *Service) *network {
	n := &network{make(chan net.Conn), make(chan struct{})}
	served := make(chan error, 1)
	go func() { served <- s.Serve(n) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return n
}

// TestSlow: who stands still, or nearly, is cut off, whatever he does.
func TestSlow(t *testing.T) {
	const post = "POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"
	for name, test := range map[string]struct {
		send    string
		trickle time.Duration // a byte each
		want    string        // of the answer
		atLeast time.Duration
		atMost  time.Duration
	}{
		"nothing":        {"", 0, "", headerTimeout, headerTimeout},
		"half a header":  {"POST /upload HT", 0, "400", headerTimeout, headerTimeout},
		"header trickle": {"POST /upload HTTP/1.1\r\nX: ", time.Second, "", headerTimeout, headerTimeout},
		"no body":        {post, 0, "408", transferGrace, transferGrace + time.Second},
		"body trickle":   {post, time.Second, "408", transferGrace, transferGrace + time.Second},
		// The server reads on after an answer, for a while.
		"no body, not asked for": {"POST /nothing HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n", 0, "404", transferGrace, transferGrace + time.Second},
		"no next request":        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 0, "200", idleTimeout, idleTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, options(empty(t)))
				c := serve(t, s).dial()
				began := time.Now()
				var sending sync.WaitGroup
				sending.Go(func() {
					_, err := io.WriteString(c, test.send)
					for err == nil && test.trickle > 0 {
						time.Sleep(test.trickle)
						_, err = c.Write([]byte("x"))
					}
				})
				answer, err := io.ReadAll(c)
				if err != nil {
					t.Fatal(err)
				}
				took := time.Since(began)
				c.Close()
				sending.Wait()
				if took < test.atLeast || took > test.atMost {
					t.Errorf("cut off after %v, want %v to %v", took, test.atLeast, test.atMost)
				}
				if status, _, _ := strings.Cut(strings.TrimPrefix(string(answer), "HTTP/1.1 "), " "); status != test.want {
					t.Errorf("answer %q, want %q", answer, test.want)
				}
				synctest.Wait()
				holds(t, s, 0, 0)
			})
		})
	}
}

// TestSlowButSteady: who keeps going is served, in both directions, for as long
// as it takes; who downloads and stands still is cut off.
func TestSlowButSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, options(empty(t)))
		n := serve(t, s)
		c := n.dial()
		const size = 1 << 20
		go func() {
			fmt.Fprintf(c, "POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size)
			for range size / minRate {
				c.Write(make([]byte, minRate))
				time.Sleep(time.Second)
			}
		}()
		answer := make([]byte, 4096)
		read, err := c.Read(answer)
		if err != nil {
			t.Fatal(err)
		}
		id := string(answer[read-32 : read])
		// The same connection goes on, long after the deadline of the upload.
		time.Sleep(time.Minute)
		go fmt.Fprintf(c, "GET /files/%s HTTP/1.1\r\nHost: h\r\n\r\n", id)
		received := 0
		for received < size {
			time.Sleep(time.Second)
			read, err := c.Read(answer[:minRate+16])
			if received += read; err != nil {
				t.Fatalf("after %d bytes: %v", received, err)
			}
		}
		c.Close()

		c = n.dial()
		defer c.Close()
		go fmt.Fprintf(c, "GET /files/%s HTTP/1.1\r\nHost: h\r\n\r\n", id)
		if _, err := c.Read(answer); err != nil {
			t.Fatal(err)
		}
		time.Sleep(transferGrace + 2*time.Minute)
		if rest, err := io.Copy(io.Discard, c); rest >= size/2 || err != nil {
			t.Errorf("%d bytes for one who stood still, %v", rest, err)
		}
	})
}

// TestBusy: transfers have places, and one peer a quarter of them.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options(empty(t))
		o.Total = 1 << 30
		s := open(t, o)
		ctx, leave := context.WithCancel(t.Context())
		hold := func(from string) {
			go do(s, "POST", "/upload", from, &waiting{ctx})
			synctest.Wait()
		}
		for range maxTransfers / share {
			hold("192.0.2.1:1")
		}
		response := do(s, "POST", "/upload", "192.0.2.1:2", strings.NewReader("x"))
		if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
			t.Errorf("one peer: %s", response.Status)
		}
		for i := range maxTransfers * (share - 1) / share {
			hold(fmt.Sprintf("10.0.%d.1:1", i))
		}
		response = do(s, "POST", "/upload", "203.0.113.1:1", strings.NewReader("x"))
		if response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("all peers: %s", response.Status)
		}
		leave()
		synctest.Wait()
		holds(t, s, 0, 0)
		upload(t, s, "192.0.2.1:1", []byte("x"))
	})
}

// waiting is a body that doesn't come until it breaks off.
type waiting struct{ ctx context.Context }

func (w *waiting) Read([]byte) (int, error) {
	<-w.ctx.Done()
	return 0, w.ctx.Err()
}

// TestShutdown waits for transfers until its time is over, then cuts them off.
func TestShutdown(t *testing.T) {
	for name, finishes := range map[string]bool{"in time": true, "too late": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs := empty(t)
				s := open(t, options(fs))
				c := serve(t, s).dial()
				defer c.Close()
				if _, err := io.WriteString(c, "POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nhalf"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				ended := make(chan error, 1)
				go func() {
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					defer cancel()
					ended <- s.Shutdown(ctx)
				}()
				synctest.Wait()
				if finishes {
					if _, err := io.WriteString(c, "half"); err != nil {
						t.Fatal(err)
					}
				}
				answer, err := io.ReadAll(c)
				if finishes && (err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200")) || !finishes && len(answer) != 0 {
					t.Errorf("%q, %v", answer, err)
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if finishes {
					holds(t, s, 1, minCharge)
				} else {
					holds(t, s, 0, 0)
				}
				if response := do(s, "GET", "/", somebody, nil); response.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("afterwards: %s", response.Status)
				}
			})
		})
	}
}
