package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The waits grow to what nobody notices, and only after long to what costs nothing.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Backoff
		begin := time.Now()
		for i := 0; time.Since(begin) < 10*time.Minute; i++ {
			longest := min(100*time.Millisecond<<min(i, 10), 600*time.Millisecond)
			d := b.Next()
			if d < longest/2 || d > longest {
				t.Fatalf("wait %d: %v, want %v to %v", i, d, longest/2, longest)
			}
			time.Sleep(d)
		}
		longest := 600 * time.Millisecond
		for range 10 {
			time.Sleep(time.Second)
			longest = min(2*longest, 30*time.Second)
			if d := b.Next(); d < longest/2 || d > longest {
				t.Fatalf("after %v: %v, want up to %v", time.Since(begin), d, longest)
			}
		}
		b.Reset()
		if d := b.Next(); d > 100*time.Millisecond {
			t.Errorf("after a success: %v", d)
		}
	})
}

// port is a listener in memory.
type port chan net.Conn

func (p port) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p port) Close() error { return nil }

func (p port) Addr() net.Addr { return &net.UnixAddr{Name: "port", Net: "memory"} }

func (p port) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve runs a server on what is not a port, and returns a wire to it.
func serve(t *testing.T, options ...grpc.ServerOption) *wiretest.Wire {
	t.Helper()
	p := make(port)
	server := grpc.NewServer(options...)
	healthgrpc.RegisterHealthServer(server, health.NewServer())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(p) }()
	w := wiretest.New(p.dial)
	t.Cleanup(func() {
		w.Close()
		close(p)
		server.Stop()
		if err := <-ended; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return w
}

// connected opens a link over a wire and begins to wait for something to come over it.
func connected(t *testing.T, w *wiretest.Wire) *link {
	t.Helper()
	l, err := newLink(Options{URL: "http://node", Dial: persistent(w.Dial)})
	check(t, err)
	t.Cleanup(func() { check(t, l.close()) })
	l.begin()
	t.Cleanup(l.end)
	check(t, watch(t.Context(), l).Recv())
	return l
}

// caller makes calls as clients do.
type caller struct{ *link }

func (c caller) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	c.begin()
	defer c.end()
	return c.link.Invoke(ctx, method, args, reply, opts...)
}

// stream is a stream that says at once that it is there.
type stream struct {
	healthgrpc.Health_WatchClient
	err error
}

func (s stream) Recv() error {
	if s.err != nil {
		return s.err
	}
	_, err := s.Health_WatchClient.Recv()
	return err
}

func watch(ctx context.Context, l *link) stream {
	c, err := healthgrpc.NewHealthClient(l).Watch(ctx, &healthgrpc.HealthCheckRequest{}, grpc.WaitForReady(true))
	return stream{c, err}
}

// Whatever happens to the network, and however long, a stream is back within a second
// of it, or of when it could be noticed that it was away.
func TestBackWithinASecond(t *testing.T) {
	for state, name := range map[wiretest.State]string{wiretest.Cut: "cut", wiretest.Stalled: "stalled", wiretest.Hole: "hole"} {
		for _, length := range []time.Duration{10 * time.Millisecond, 300 * time.Millisecond, 900 * time.Millisecond, 2 * time.Second, 7 * time.Second, 45 * time.Second, 5 * time.Minute} {
			t.Run(fmt.Sprint(name, " ", length), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := serve(t)
					l := connected(t, w)
					// The feed: open, and opened again when it has ended.
					ctx, stop := context.WithCancel(t.Context())
					opened, ended := make(chan time.Time, 100), make(chan struct{})
					go func() {
						defer close(ended)
						var again Backoff
						for ctx.Err() == nil {
							s := watch(ctx, l)
							if s.Recv() == nil {
								opened <- time.Now()
								again.Reset()
								_ = s.Recv() // until it ends
							}
							time.Sleep(again.Next())
						}
					}()
					defer func() { stop(); <-ended }()
					<-opened
					w.Set(state)
					cut := time.Now()
					time.Sleep(length)
					w.Set(wiretest.Up)
					up := time.Now()
					if state == wiretest.Stalled && length < time.Second {
						return // nothing has to happen
					}
					if state == wiretest.Hole {
						// It takes some time to notice.
						up = time.Unix(0, max(up.UnixNano(), cut.Add(time.Second).UnixNano()))
					}
					var back time.Time
					select {
					case back = <-opened:
					case <-time.After(time.Minute):
						if state == wiretest.Stalled && l.GetState() == connectivity.Ready {
							return // the connection has survived it
						}
						t.Fatal("it is not back after a minute")
					}
					if late := back.Sub(up); late > time.Second {
						t.Errorf("back %v after the network", late)
					}
				})
			})
		}
	}
}

// A call wants the connection at once, however long the network has been away.
func TestCallTriesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := serve(t)
		l := connected(t, w)
		w.Set(wiretest.Cut)
		// It is tried again by who needs it, after such a time only now and then.
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = watch(ctx, l)
		}()
		defer func() { cancel(); <-ended }()
		time.Sleep(30 * time.Minute)
		w.Set(wiretest.Up)
		begun := time.Now()
		_, err := healthgrpc.NewHealthClient(caller{l}).Check(t.Context(), &healthgrpc.HealthCheckRequest{})
		if took := time.Since(begun); err != nil || took > time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// A network that is slow, or idle, is not given up; and who has nothing to say isn't
// asked all the time.
func TestSlowNetwork(t *testing.T) {
	for _, delay := range []time.Duration{0, 200 * time.Millisecond, 2 * time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int64
				count := func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
					asked.Add(1)
					return h(ctx, r)
				}
				w := serve(t, grpc.UnaryInterceptor(count))
				l := connected(t, w)
				s := watch(t.Context(), l)
				check(t, s.Recv())
				w.SetDelay(delay)
				ended := make(chan error, 1)
				go func() { ended <- s.Recv() }()
				time.Sleep(10 * time.Minute)
				select {
				case err := <-ended:
					t.Fatal("the stream has ended: ", err)
				default:
				}
				// Every ten seconds; while it is slow, others look too.
				if n, most := asked.Load(), int64(10*6+20); n > 4*most || delay == 0 && n > most {
					t.Errorf("asked %d times in ten minutes", n)
				}
				w.Set(wiretest.Cut)
				<-ended
			})
		})
	}
}

// Nobody is asked while nobody waits.
func TestIdleLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := serve(t)
		l, err := newLink(Options{URL: "http://node", Dial: w.Dial})
		check(t, err)
		defer l.close()
		time.Sleep(time.Hour)
		if n := w.Opened(); n != 0 {
			t.Errorf("%d connections before there is a call", n)
		}
		_, err = healthgrpc.NewHealthClient(caller{l}).Check(t.Context(), &healthgrpc.HealthCheckRequest{})
		check(t, err)
		w.Set(wiretest.Cut)
		w.Set(wiretest.Up)
		time.Sleep(time.Hour)
		if n := w.Opened(); n != 1 {
			t.Errorf("%d connections for one call", n)
		}
	})
}

// One connection carries what servers take; what is more gets another one, which is
// closed when it isn't needed any more.
func TestStreamsOfOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := serve(t, grpc.MaxConcurrentStreams(maxStreams+1))
		n, err := Open(Options{URL: "http://node", Dial: w.Dial})
		check(t, err)
		defer n.Close()
		var releases []func()
		var links []*link
		for range maxStreams + 1 {
			_, release, err := n.Streams(1)
			check(t, err)
			releases = append(releases, release)
			l := n.links.list[len(n.links.list)-1]
			links = append(links, l)
			check(t, watch(t.Context(), l).Recv())
		}
		if got := w.Opened(); got != 2 || len(n.links.list) != 2 || links[maxStreams-1] != n.links.list[0] {
			t.Errorf("%d connections, %d links", got, len(n.links.list))
		}
		_, err = healthgrpc.NewHealthClient(view{n.links.list[0], n}).Check(t.Context(), &healthgrpc.HealthCheckRequest{})
		check(t, err)
		for _, release := range releases {
			release()
		}
		if len(n.links.list) != 1 {
			t.Errorf("%d links are left", len(n.links.list))
		}
	})
}

// A proxy is asked for the connection, and what it says is believed.
func TestConnectByProxy(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 200 OK\r\n\r\nhello":                       "hello",
		"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n": "",
		"hello": "",
	} {
		client, proxy := net.Pipe()
		asked := make(chan *http.Request, 1)
		go func() {
			request, err := http.ReadRequest(bufio.NewReader(proxy))
			if err == nil {
				_, _ = proxy.Write([]byte(answer))
			}
			asked <- request
			proxy.Close()
		}()
		tunnel, err := connect(t.Context(), client, "node.example:443", url.UserPassword("me", "secret"))
		request := <-asked
		if request.Method != http.MethodConnect || request.Host != "node.example:443" || request.Header.Get("Proxy-Authorization") != "Basic bWU6c2VjcmV0" {
			t.Errorf("asked: %+v", request)
		}
		if (err == nil) != (want != "") {
			t.Errorf("%q: %v", answer, err)
		}
		if err == nil {
			b := make([]byte, len(want))
			if _, err := tunnel.Read(b); err != nil || string(b) != want {
				t.Errorf("%q, %v", b, err)
			}
		}
		client.Close()
	}
}
