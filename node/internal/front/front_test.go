package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const timeout = 10 * time.Second

// port is a listener whose connections are pipes.
type port struct {
	accepts chan func() (net.Conn, error)
	close   func()
	done    chan struct{}
}

func newPort() *port {
	done := make(chan struct{})
	return &port{make(chan func() (net.Conn, error)), sync.OnceFunc(func() { close(done) }), done}
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case next := <-p.accepts:
		return next()
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error {
	p.close()
	return nil
}

func (p *port) Addr() net.Addr { return &net.TCPAddr{} }

// dial returns the client's side of a connection that was accepted.
func (p *port) dial() net.Conn {
	client, server := net.Pipe()
	p.accepts <- func() (net.Conn, error) { return server, nil }
	return client
}

// run serves a port until the test ends.
func run(t testing.TB, c Config) (*Front, *port) {
	t.Helper()
	f, p := New(c), newPort()
	served := make(chan error, 1)
	go func() { served <- f.Serve(p) }()
	t.Cleanup(func() {
		if !f.closed() {
			f.Close()
		}
		if err := <-served; err != nil {
			t.Error("serving:", err)
		}
	})
	return f, p
}

// Whatever comes first, and in whatever pieces, the right server reads all of it.
func TestSniff(t *testing.T) {
	f, p := run(t, Config{Timeout: timeout})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(tcp) }()
	t.Cleanup(func() {
		f.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	kinds := map[string]func() net.Conn{"pipe": p.dial, "TCP": func() net.Conn {
		conn, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}}
	for _, tc := range []struct {
		sent string
		to   *Listener
	}{
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and more", f.GRPC()},
		{"PRI ", f.GRPC()},
		{"POST / HTTP/1.1\r\n\r\n", f.Web()},
		{"PRINT / HTTP/1.1\r\n\r\n", f.Web()},
		{"PUT / HTTP/1.1\r\n\r\n", f.Web()},
		{"GET / HTTP/1.1\r\n\r\n", f.Web()},
		{"pri * HTTP/2.0\r\n\r\n", f.Web()},
		{"\x16\x03\x01\x02\x00\x01", f.Web()},
		{"\x00", f.Web()},
	} {
		for kind, dial := range kinds {
			for pieces, split := range map[string]func(io.Reader) io.Reader{
				"whole":        func(r io.Reader) io.Reader { return r },
				"halves":       iotest.HalfReader,
				"single bytes": iotest.OneByteReader,
			} {
				client := dial()
				go func() {
					_, _ = io.CopyBuffer(struct{ io.Writer }{client}, split(strings.NewReader(tc.sent)), make([]byte, 64))
					client.Close()
				}()
				conn, err := tc.to.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(conn); err != nil || string(got) != tc.sent {
					t.Errorf("%s: %q in %s came as %q, %v", kind, tc.sent, pieces, got, err)
				}
				conn.Close()
			}
		}
	}
	// Those who leave without saying anything are no trouble.
	for _, dial := range kinds {
		dial().Close()
	}
}

// Nobody stays undecided longer than the timeout, however he keeps himself busy.
func TestUndecided(t *testing.T) {
	for name, tc := range map[string]struct {
		config Config
		pieces []string // sent with 4 s between them
	}{
		"silent":           {config: Config{}},
		"half the preface": {config: Config{}, pieces: []string{"PR"}},
		"slow":             {config: Config{}, pieces: []string{"P", "R", "I"}},
		"silent for TLS":   {config: Config{TLS: &tls.Config{}}},
		"slow with TLS":    {config: Config{TLS: &tls.Config{}}, pieces: []string{"\x16", "\x03", "\x01"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.config.Timeout = timeout
				_, p := run(t, tc.config)
				begin, client := time.Now(), p.dial()
				for _, piece := range tc.pieces {
					if _, err := io.WriteString(client, piece); err != nil {
						t.Fatal(err)
					}
					time.Sleep(4 * time.Second) // of the test's own clock
				}
				if _, err := io.ReadAll(client); err != nil {
					t.Fatal(err)
				}
				if after := time.Since(begin); after < timeout || after > timeout+4*time.Second {
					t.Errorf("closed after %v", after)
				}
			})
		})
	}
}

// A connection that was decided has no deadline left.
func TestNoDeadlineLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p := run(t, Config{Timeout: timeout})
		client := p.dial()
		go io.WriteString(client, "PRI ")
		conn, err := f.GRPC().Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		time.Sleep(time.Hour) // of the test's own clock
		go io.WriteString(client, "*")
		if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
			t.Error(err)
		}
	})
}

// Very many that say nothing keep nobody away: the oldest of them goes.
func TestManyUndecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p := run(t, Config{Timeout: timeout})
		const more = 10
		var silent []net.Conn
		for range maxPending + more {
			silent = append(silent, p.dial())
		}
		synctest.Wait()
		begin := time.Now()
		for _, client := range silent[:more] {
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Fatal("one of the oldest is open still:", err)
			}
		}
		client := p.dial()
		go io.WriteString(client, "GET ")
		conn, err := f.Web().Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if time.Since(begin) > 0 {
			t.Error("somebody had to wait")
		}
		if n := f.pending.Len(); n > maxPending {
			t.Errorf("%d are undecided", n)
		}
	})
}

// Close closes what is undecided and what nobody has taken yet.
func TestClose(t *testing.T) {
	f, p := run(t, Config{Timeout: timeout})
	silent, waiting := p.dial(), p.dial()
	if _, err := io.WriteString(waiting, "GET "); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for name, client := range map[string]net.Conn{"silent": silent, "waiting": waiting} {
		if _, err := io.ReadAll(client); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, l := range []*Listener{f.GRPC(), f.Web()} {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accepting: %v", err)
		}
	}
	if err := f.Serve(newPort()); err != nil {
		t.Errorf("serving once more: %v", err)
	}
}

type temporary struct{ error }

func (temporary) Temporary() bool { return true }

// Having too many open files passes; a port that fails is an error.
func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p := New(Config{Timeout: timeout}), newPort()
		served := make(chan error, 1)
		go func() { served <- f.Serve(p) }()
		for range 20 {
			p.accepts <- func() (net.Conn, error) { return nil, temporary{errors.New("too many open files")} }
		}
		client := p.dial()
		go io.WriteString(client, "GET ")
		conn, err := f.Web().Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		failure := errors.New("no such port any more")
		p.accepts <- func() (net.Conn, error) { return nil, failure }
		if err := <-served; !errors.Is(err, failure) {
			t.Errorf("got %v", err)
		}
		f.Close()
	})
}

// What is read for the decision comes back, whatever it was.
func FuzzSniff(f *testing.F) {
	for _, seed := range []string{"", "P", "PRI", "PRI ", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST / HTTP/1.1\r\n\r\n", "PRIOR", "\x16\x03\x01"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		front := New(Config{Timeout: timeout})
		defer front.Close()
		client, server := net.Pipe()
		go func() {
			_, _ = client.Write(sent)
			client.Close()
		}()
		to, conn := front.decide(server)
		defer server.Close()
		want := front.Web()
		switch {
		case bytes.HasPrefix(sent, []byte(preface)):
			want = front.GRPC()
		case bytes.HasPrefix([]byte(preface), sent):
			want = nil // too little to say
		}
		if to != want {
			t.Fatalf("%q went to the wrong one", sent)
		}
		if to == nil {
			return
		}
		if got, err := io.ReadAll(conn); err != nil || !slices.Equal(got, sent) {
			t.Errorf("%q came as %q, %v", sent, got, err)
		}
	})
}

// serveHealth is a gRPC server that does nearly nothing, behind a front or not.
func serveHealth(b *testing.B, fronted bool) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	healthgrpc.RegisterHealthServer(server, health.NewServer())
	var running sync.WaitGroup
	if fronted {
		f := New(Config{Timeout: timeout})
		running.Go(func() { _ = f.Serve(listener) })
		running.Go(func() { _ = server.Serve(f.GRPC()) })
		b.Cleanup(func() { f.Close(); server.Stop(); running.Wait() })
	} else {
		running.Go(func() { _ = server.Serve(listener) })
		b.Cleanup(func() { server.Stop(); running.Wait() })
	}
	return listener.Addr().String()
}

// What the front costs gRPC: nothing that can be measured per call, and some
// microseconds per connection.
func BenchmarkGRPC(b *testing.B) {
	for name, fronted := range map[string]bool{"direct": false, "front": true} {
		check := func(b *testing.B, conn *grpc.ClientConn) {
			if _, err := healthgrpc.NewHealthClient(conn).Check(context.Background(), &healthgrpc.HealthCheckRequest{}); err != nil {
				b.Fatal(err)
			}
		}
		dial := func(b *testing.B, addr string) *grpc.ClientConn {
			conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			return conn
		}
		b.Run("call/"+name, func(b *testing.B) {
			conn := dial(b, serveHealth(b, fronted))
			defer conn.Close()
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					check(b, conn)
				}
			})
		})
		b.Run("connection/"+name, func(b *testing.B) {
			addr := serveHealth(b, fronted)
			b.ReportAllocs()
			for b.Loop() {
				conn := dial(b, addr)
				check(b, conn)
				conn.Close()
			}
		})
	}
}
