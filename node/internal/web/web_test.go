package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	maxBytes    = 1 << 20
	bodyTimeout = time.Minute
)

// newHandler is a handler without services, which logs to the buffer.
func newHandler(log io.Writer) *Handler {
	return New(Config{
		Unmarshal:     proto.Unmarshal,
		UnmarshalJSON: protojson.Unmarshal,
		MaxBytes:      maxBytes,
		BodyTimeout:   bodyTimeout,
		ErrStopped:    status.Error(codes.Unavailable, "over"),
		Logger:        slog.New(slog.NewTextHandler(log, nil)),
	})
}

// unaryMethod is a service Test with a method Call that takes and returns bytes.
func unaryMethod(call func(ctx context.Context, in []byte) ([]byte, error)) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: "Test", Methods: []grpc.MethodDesc{{
		MethodName: "Call",
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := &wrapperspb.BytesValue{}
			if err := decode(in); err != nil {
				return nil, err
			}
			out, err := call(ctx, in.Value)
			if err != nil {
				return nil, err
			}
			return wrapperspb.Bytes(out), nil
		},
	}}}
}

// post makes a Connect call in JSON.
func post(h http.Handler, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// What services see of a call, and what they say, is as with gRPC.
func TestCall(t *testing.T) {
	h := newHandler(io.Discard)
	h.RegisterService(unaryMethod(func(ctx context.Context, in []byte) ([]byte, error) {
		if got := metadata.ValueFromIncomingContext(ctx, "x-app-version"); len(got) != 2 || got[0] != "1" || got[1] != "" {
			t.Errorf("versions %q", got)
		}
		if got := metadata.ValueFromIncomingContext(ctx, "some-bin"); len(got) != 1 || got[0] != "\x00\xff" {
			t.Errorf("binary header %q", got)
		}
		if p, ok := peer.FromContext(ctx); !ok || p.Addr.String() != "192.0.2.7:1234" {
			t.Errorf("peer %v", p)
		}
		if method, ok := grpc.Method(ctx); !ok || method != "/Test/Call" {
			t.Errorf("method %q", method)
		}
		err := errors.Join(grpc.SetHeader(ctx, metadata.Pairs("early", "1")), grpc.SendHeader(ctx, metadata.Pairs("sent", "2")),
			grpc.SetTrailer(ctx, metadata.Pairs("late-bin", "\x00\xff")))
		if len(in) == 0 {
			return nil, status.Error(codes.NotFound, "nothing")
		}
		return append(in, '!'), err
	}), nil)
	base := connContext(context.Background(), addressed{})
	h2 := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r.WithContext(base)) })
	headers := []string{"X-App-Version", "1", "X-App-Version", "", "Some-Bin", "AP8", "Some-Bin", "?"}
	w := post(h2, "/Test/Call", `"YQ=="`, headers...)
	if w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != `"YSE="` || w.Header().Get("Early") != "1" || w.Header().Get("Sent") != "2" || w.Header().Get("Trailer-Late-Bin") != "AP8" {
		t.Errorf("got %d %s %v", w.Code, w.Body, w.Header())
	}
	w = post(h2, "/Test/Call", `""`, headers...)
	if w.Code != http.StatusNotFound || w.Body.String() != `{"code":"not_found","message":"nothing"}` || w.Header().Get("Trailer-Late-Bin") != "AP8" {
		t.Errorf("got %d %s %v", w.Code, w.Body, w.Header())
	}
}

// addressed is a connection that is nothing but an address.
type addressed struct{ net.Conn }

func (addressed) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1234}
}
func (addressed) LocalAddr() net.Addr { return &net.TCPAddr{} }

// Errors are those that gRPC would send, their details and those of contexts too.
func TestErrors(t *testing.T) {
	detailed, err := status.New(codes.Aborted, "with more").WithDetails(wrapperspb.String("more"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		err  error
		code connect.Code
		text string
	}{
		{status.Error(codes.ResourceExhausted, "too much"), connect.CodeResourceExhausted, "too much"},
		{fmt.Errorf("wrapped: %w", status.Error(codes.NotFound, "nothing")), connect.CodeNotFound, "wrapped: rpc error: code = NotFound desc = nothing"},
		{context.DeadlineExceeded, connect.CodeDeadlineExceeded, "context deadline exceeded"},
		{context.Canceled, connect.CodeCanceled, "context canceled"},
		{errors.New("anything"), connect.CodeUnknown, "anything"},
		{detailed.Err(), connect.CodeAborted, "with more"},
	} {
		got := toConnect(tc.err)
		if got.Code() != tc.code || got.Message() != tc.text {
			t.Errorf("%v became %v", tc.err, got)
		}
		if want := len(status.Convert(tc.err).Details()); len(got.Details()) != want {
			t.Errorf("%v: %d details, want %d", tc.err, len(got.Details()), want)
		}
	}
}

// Requests and responses are bounded; as JSON they may be longer by base64.
func TestSizes(t *testing.T) {
	h := newHandler(io.Discard)
	h.RegisterService(unaryMethod(func(_ context.Context, in []byte) ([]byte, error) {
		if len(in) == 1 {
			return make([]byte, maxBytes), nil
		}
		return in[:1], nil
	}), nil)
	for _, tc := range []struct {
		size, code int
		text       string
	}{
		{maxBytes, http.StatusOK, ""},
		{1, http.StatusTooManyRequests, "grpc: trying to send message larger than max"},
		{3 * maxBytes, http.StatusTooManyRequests, "is larger than configured max"},
	} {
		w := post(h, "/Test/Call", `"`+base64.StdEncoding.EncodeToString(make([]byte, tc.size))+`"`)
		if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.text) {
			t.Errorf("%d bytes: %d %.200s", tc.size, w.Code, w.Body)
		}
	}
	raw, err := proto.Marshal(wrapperspb.Bytes(make([]byte, maxBytes)))
	if err != nil {
		t.Fatal(err)
	}
	w := post(h, "/Test/Call", string(raw), "Content-Type", "application/proto")
	if w.Code == http.StatusOK {
		t.Error("the first content type does not count")
	}
	r := httptest.NewRequest(http.MethodPost, "/Test/Call", bytes.NewReader(raw))
	r.Header.Set("Content-Type", "application/proto")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if want := fmt.Sprintf("grpc: received message larger than max (%d vs. %d)", len(raw), maxBytes); !strings.Contains(rec.Body.String(), want) {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
	for name, encoding := range map[string]string{"gzip": "gzip", "unknown": "x"} {
		if w := post(h, "/Test/Call", `"YQ=="`, "Content-Encoding", encoding); w.Code != http.StatusNotImplemented {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// A service that panics fails its call and is logged.
func TestPanic(t *testing.T) {
	var log bytes.Buffer
	h := newHandler(&log)
	h.RegisterService(unaryMethod(func(context.Context, []byte) ([]byte, error) { panic("oh") }), nil)
	if w := post(h, "/Test/Call", `""`); w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "oh") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "panic=oh") || !strings.Contains(log.String(), "TestPanic") {
		t.Errorf("logged %s", &log)
	}
}

// Drain waits for the calls under way and lets in no more.
func TestDrain(t *testing.T) {
	h := newHandler(io.Discard)
	entered, goOn := make(chan struct{}), make(chan struct{})
	h.RegisterService(unaryMethod(func(context.Context, []byte) ([]byte, error) {
		close(entered)
		<-goOn
		return nil, nil
	}), nil)
	var calls sync.WaitGroup
	calls.Go(func() {
		if w := post(h, "/Test/Call", `""`); w.Code != http.StatusOK {
			t.Errorf("the call under way: %d %s", w.Code, w.Body)
		}
	})
	<-entered
	drained := make(chan struct{})
	go func() {
		h.Drain()
		close(drained)
	}()
	page := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		return w.Code
	}
	for page() != http.StatusServiceUnavailable {
		runtime.Gosched() // it is not waiting yet
	}
	late := func() {
		t.Helper()
		if w := post(h, "/Test/Call", `""`); w.Code != http.StatusServiceUnavailable || w.Body.String() != `{"code":"unavailable","message":"over"}` {
			t.Errorf("a late call: %d %s", w.Code, w.Body)
		}
	}
	late()
	select {
	case <-drained:
		t.Error("it did not wait")
	default:
	}
	close(goOn)
	<-drained
	late()
	calls.Wait()
}

// onePipe is a listener with one connection.
type onePipe struct {
	conn chan net.Conn
	done chan struct{}
}

func (l onePipe) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conn:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l onePipe) Close() error   { close(l.done); return nil }
func (l onePipe) Addr() net.Addr { return &net.TCPAddr{} }

// newServer is a server of both versions of HTTP.
func newServer(h *Handler) *http.Server {
	s := &http.Server{Protocols: new(http.Protocols), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	h.Attach(s)
	return s
}

// servePipe serves one connection and returns the client's side.
func servePipe(t *testing.T, s *http.Server) net.Conn {
	client, server := net.Pipe()
	l := onePipe{make(chan net.Conn, 1), make(chan struct{})}
	l.conn <- server
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		client.Close()
		_ = s.Close()
		<-served
		time.Sleep(bodyTimeout) // of the test's own clock: what waits for it ends
	})
	return client
}

// A request that comes slowly, or not at all, is given up in time.
func TestSlowBody(t *testing.T) {
	for name, service := range map[string]string{"unary": "Check", "stream": "Watch"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(io.Discard)
				healthgrpc.RegisterHealthServer(h, health.NewServer())
				client, begin := servePipe(t, newServer(h)), time.Now()
				go func() {
					fmt.Fprintf(client, "POST /grpc.health.v1.Health/%s HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 1000000\r\n\r\n", service)
					for {
						time.Sleep(bodyTimeout / 4) // of the test's own clock
						if _, err := client.Write([]byte{0}); err != nil {
							return
						}
					}
				}()
				res, err := http.ReadResponse(bufio.NewReader(client), nil)
				if err != nil {
					t.Fatal(err)
				}
				if after := time.Since(begin); after != bodyTimeout || res.Header.Get("Grpc-Status") == "0" {
					t.Errorf("after %v: %s %v", after, res.Status, res.Header)
				}
			})
		})
	}
}

// What is left of a request that is not read has no more time than one that is.
func TestSlowRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, begin := servePipe(t, newServer(newHandler(io.Discard))), time.Now()
		go fmt.Fprint(client, "POST /Nothing/Call HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
		if _, err := io.Copy(io.Discard, client); err != nil {
			t.Error(err)
		}
		if after := time.Since(begin); after < bodyTimeout || after > bodyTimeout+time.Second {
			t.Errorf("the connection was closed after %v", after)
		}
	})
}

// A call whose stream was reset before it is served leaves nothing behind: no timer
// holds the stream until a request would have had to be there.
func TestResetBeforeServed(t *testing.T) {
	for name, path := range map[string]string{"unary": "/grpc.health.v1.Health/Check", "stream": "/grpc.health.v1.Health/Watch", "bidi": "/Test/Talk"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(io.Discard)
				healthgrpc.RegisterHealthServer(h, health.NewServer())
				h.RegisterService(&grpc.ServiceDesc{ServiceName: "Test", Streams: []grpc.StreamDesc{{
					StreamName: "Talk", ServerStreams: true, ClientStreams: true,
					Handler: func(_ any, s grpc.ServerStream) error { return s.RecvMsg(&emptypb.Empty{}) },
				}}}, nil)
				s := newServer(h)
				var held weak.Pointer[string]
				served := make(chan struct{})
				s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					<-r.Context().Done()
					// The stream has the same map.
					trailer := []string{"held"}
					r.Trailer["A"], held = trailer, weak.Make(&trailer[0])
					h.ServeHTTP(w, r)
					close(served)
				})
				client := servePipe(t, s)
				go io.Copy(io.Discard, client)
				var headers bytes.Buffer
				e := hpack.NewEncoder(&headers)
				for _, f := range []hpack.HeaderField{
					{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "a"}, {Name: ":path", Value: path},
					{Name: "content-type", Value: "application/grpc+proto"}, {Name: "trailer", Value: "A"},
				} {
					_ = e.WriteField(f) // a buffer takes everything
				}
				f := http2.NewFramer(client, nil)
				_, err := io.WriteString(client, http2.ClientPreface)
				if err := errors.Join(err, f.WriteSettings(),
					f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers.Bytes(), EndHeaders: true}),
					f.WriteRSTStream(1, http2.ErrCodeCancel)); err != nil {
					t.Fatal(err)
				}
				<-served
				client.Close()
				for range 3 {
					time.Sleep(time.Second) // of the test's own clock, which lets go of stopped timers when it gets another
					runtime.GC()            // which what is pooled outlives once
				}
				if held.Value() != nil {
					t.Error("the stream is still held")
				}
			})
		})
	}
}

// Once a request is there, its stream may be silent as long as it likes.
func TestSilentStream(t *testing.T) {
	for name, body := range map[string]string{
		"with a length": "Content-Length: 5\r\n\r\n\x00\x00\x00\x00\x00",
		"chunked":       "Transfer-Encoding: chunked\r\n\r\n5\r\n\x00\x00\x00\x00\x00\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				service := health.NewServer()
				h := newHandler(io.Discard)
				healthgrpc.RegisterHealthServer(h, service)
				client := servePipe(t, newServer(h))
				go io.WriteString(client, "POST /grpc.health.v1.Health/Watch HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web+proto\r\n"+body)
				res, err := http.ReadResponse(bufio.NewReader(client), nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range []string{"\x00\x00\x00\x00\x02\x08\x01", "\x00\x00\x00\x00\x02\x08\x02"} {
					got := make([]byte, len(want))
					if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
						t.Fatalf("got %x, %v", got, err)
					}
					time.Sleep(100 * bodyTimeout) // of the test's own clock
					service.Shutdown()
				}
			})
		})
	}
}

// A service may leave a goroutine behind that sends to a client that reads
// nothing: the call ends, and the goroutine learns of it.
func TestStalledSender(t *testing.T) {
	h := newHandler(io.Discard)
	left := make(chan error, 1)
	h.RegisterService(&grpc.ServiceDesc{ServiceName: "Test", Streams: []grpc.StreamDesc{{
		StreamName: "Talk", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, s grpc.ServerStream) error {
			if err := s.SendHeader(nil); err != nil {
				return err
			}
			go func() {
				for {
					if err := s.SendMsg(wrapperspb.Bytes(make([]byte, maxBytes/2))); err != nil {
						left <- err
						return
					}
				}
			}()
			if err := s.RecvMsg(&emptypb.Empty{}); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "send stalled")
		},
	}}}, nil)
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	read, write := io.Pipe()
	req := httptest.NewRequest(http.MethodPost, server.URL+"/Test/Talk", read)
	req.RequestURI = ""
	req.Header.Set("Content-Type", "application/grpc+proto")
	res, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := write.Write(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if err := <-left; status.Code(err) == codes.OK {
		t.Error(err)
	}
	write.Close()
}
