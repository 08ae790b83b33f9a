package node_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	reflectiongrpc "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/migrationapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// connectPost makes a call by Connect and returns its answer.
func connectPost(ctx context.Context, t testing.TB, client *http.Client, url, kind string, body []byte) (code int, answer []byte) {
	t.Helper()
	req := must(http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body)))(t)
	req.Header.Set("Content-Type", kind)
	res := must(client.Do(req))(t)
	defer res.Body.Close()
	wantCORS(t, res)
	return res.StatusCode, must(io.ReadAll(res.Body))(t)
}

// All methods can be called with JSON and nothing but HTTP, and with protobuf.
func TestConnect(t *testing.T) {
	t.Parallel()
	n, ctx, client := startWeb(t), short(t), browser(t)
	for _, m := range methods(t) {
		code, answer := connectPost(ctx, t, client, "http://"+n.WebAddr()+m.path, "application/json", must(protojson.Marshal(m.good))(t))
		if code != http.StatusOK || !json.Valid(answer) {
			t.Errorf("%s: %d %s", m.path, code, answer)
		}
	}
	for _, m := range methods(t) {
		code, answer := connectPost(ctx, t, client, "http://"+n.Addr()+m.path, "application/proto", must(proto.Marshal(m.good))(t))
		if code != http.StatusOK {
			t.Errorf("%s: %d %s", m.path, code, answer)
		}
	}
}

// What a person may type, and what he is told.
func TestConnectJSON(t *testing.T) {
	t.Parallel()
	n, ctx, client := startWeb(t), short(t), browser(t)
	group := newGroupID()
	data := base64.StdEncoding.EncodeToString(application(group, "typed"))
	id := base64.StdEncoding.EncodeToString(group)
	for _, tc := range []struct {
		method, body string
		code         int
		answer       string // a part of it, without white space
	}{
		{mlsapi.MlsApi_SendGroupMessages_FullMethodName, `{"messages":[{"v1":{"data":"` + data + `"}}]}`, 200, `{}`},
		{mlsapi.MlsApi_QueryGroupMessages_FullMethodName, `{"group_id":"` + id + `","from":"a later version"}`, 200, `"data":"` + data + `"`},
		{mlsapi.MlsApi_QueryGroupMessages_FullMethodName, `{"groupId":"` + id + `","pagingInfo":{"idCursor":"0","direction":"SORT_DIRECTION_ASCENDING"}}`, 200, `"groupId":"` + id + `"`},
		{mlsapi.MlsApi_QueryGroupMessages_FullMethodName, `{}`, 400, `{"code":"invalid_argument","message":"groupisrequired"}`},
		{mlsapi.MlsApi_QueryGroupMessages_FullMethodName, `{"groupId":`, 400, `"invalid_argument"`},
		{mlsapi.MlsApi_QueryGroupMessages_FullMethodName, ``, 400, `"invalid_argument"`},
		{mlsapi.MlsApi_QueryGroupMessages_FullMethodName, `{"groupId":5}`, 400, `"invalid_argument"`},
		{mlsapi.MlsApi_FetchKeyPackages_FullMethodName, `{"installationKeys":[` + strings.Repeat(`"",`, 100_001) + `""]}`, 400, `morethan100000elements`},
		{mlsapi.MlsApi_QueryGroupMessages_FullMethodName, `{"x":` + strings.Repeat(`[`, 90_000), 400, `"invalid_argument"`},
		{identityapi.IdentityApi_PublishIdentityUpdate_FullMethodName, `{"identityUpdate":{"inboxId":"` + strings.Repeat("0", 1<<20) + `"}}`, 400, `identityupdateof`},
		{mlsapi.MlsApi_RevokeInstallation_FullMethodName, `{}`, 501, `"unimplemented"`},
		{"/xmtp.mls.api.v1.MlsApi/Nothing", `{}`, 501, `unknownmethodNothing`},
		{healthgrpc.Health_Check_FullMethodName, `{}`, 200, `{"status":"SERVING"}`},
		{migrationapi.D14NMigrationApi_FetchD14NCutover_FullMethodName, `{}`, 200, `{"timestampNs":"7258118400000000000"}`},
	} {
		code, answer := connectPost(ctx, t, client, "http://"+n.WebAddr()+tc.method, "application/json", []byte(tc.body))
		if code != tc.code || !strings.Contains(strings.ReplaceAll(string(answer), " ", ""), tc.answer) {
			t.Errorf("%s %.80s: %d %s, want %d %s", tc.method, tc.body, code, answer, tc.code, tc.answer)
		}
	}
	// A stream: each message in a frame, a last one for the status.
	body := frame([]byte(`{"filters":[{"groupId":"` + id + `"}]}`))
	req := must(http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.WebAddr()+streams[0], bytes.NewReader(body)))(t)
	req.Header.Set("Content-Type", "application/connect+json")
	res := must(client.Do(req))(t)
	defer res.Body.Close()
	if message, _ := webFrame(t, res.Body); !bytes.Contains(message, []byte(data)) {
		t.Errorf("streamed %s", message)
	}
}

// What can't be decoded, or is too big, is refused as by gRPC.
func TestWebBadRequests(t *testing.T) {
	t.Parallel()
	n, ctx, client := startWeb(t), short(t), browser(t)
	for name, tc := range map[string]struct {
		message []byte
		code    codes.Code
		text    string
	}{
		"a field without length": {[]byte{0x0a}, codes.Internal, "grpc: failed to unmarshal the received message: unexpected EOF"},
		"one byte too many":      {make([]byte, maxMessage+1), codes.ResourceExhausted, fmt.Sprintf("grpc: received message larger than max (%d vs. %d)", maxMessage+1, maxMessage)},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range append(slices.Clone(streams), mlsapi.MlsApi_SendGroupMessages_FullMethodName) {
				req := webPost(ctx, t, "http://"+n.WebAddr(), path, nil)
				body := frame(tc.message)
				req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				res := must(client.Do(req))(t)
				wantWebStatus(t, res, tc.code, tc.text)
				res.Body.Close()
				// The same by gRPC.
				res = must(h2c(t).Do(grpcPost(ctx, t, n, path, bytes.NewReader(body))))(t)
				must(io.ReadAll(res.Body))(t)
				res.Body.Close()
				code, text := res.Trailer.Get("Grpc-Status"), res.Trailer.Get("Grpc-Message")
				if code == "" {
					code, text = res.Header.Get("Grpc-Status"), res.Header.Get("Grpc-Message")
				}
				if code != fmt.Sprint(uint32(tc.code)) || text != tc.text {
					t.Errorf("%s: gRPC says %s %q", path, code, text)
				}
			}
		})
	}
	t.Run("not HTTP", func(t *testing.T) {
		for _, garbage := range []string{"\x00\x01\x02\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\ngarbage!", "PRINT\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nx: " + strings.Repeat("x", 128<<10) + "\r\n\r\n"} {
			conn := must(net.Dial("tcp", n.WebAddr()))(t)
			if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			go io.WriteString(conn, garbage)
			answer, err := io.ReadAll(conn)
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Errorf("%.20q: the connection stays open", garbage)
			}
			if bytes.Contains(answer, []byte(" 200 ")) {
				t.Errorf("%.20q was answered by %s", garbage, answer)
			}
			conn.Close()
		}
	})
}

// Many connections that say nothing are in nobody's way.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	n, ctx, client := startWeb(t), short(t), browser(t)
	for i := range 200 {
		conn := must(net.Dial("tcp", []string{n.Addr(), n.WebAddr()}[i%2]))(t)
		defer conn.Close()
		must(io.WriteString(conn, []string{"", "P", "PRI", "GET / HT"}[i/2%4]))(t)
	}
	for _, base := range bases(n) {
		res := must(client.Do(webPost(ctx, t, base, mlsapi.MlsApi_QueryGroupMessages_FullMethodName, &mlsapi.QueryGroupMessagesRequest{GroupId: newGroupID()})))(t)
		wantWebStatusOK(t, res)
		res.Body.Close()
	}
	must(groupLog.open(ctx, dial(t, n)))(t)
}

func wantWebStatusOK(t testing.TB, res *http.Response) {
	t.Helper()
	webFrame(t, res.Body)
	if _, trailers := webFrame(t, res.Body); trailers.Get("Grpc-Status") != "0" {
		t.Errorf("got %s, %v", res.Status, trailers)
	}
}

// S9 for browsers: when the node shuts down, their streams end with UNAVAILABLE,
// and it doesn't wait for its grace.
func TestS9_Web(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"cleartext": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			ctx := short(t)
			options := node.Options{ShutdownGrace: time.Hour}
			var n *node.Node
			client, scheme, native := browser(t), "http://", []grpc.DialOption(nil)
			if secure {
				secured, a := startTLS(t, options)
				n, client, scheme = secured, webTLS(t, a, "h2", "http/1.1"), "https://"
				native = append(native, grpc.WithTransportCredentials(credentials.NewTLS(a.client())))
			} else {
				options.WebListen = "127.0.0.1:0"
				n = start(t, options)
			}
			var open []*http.Response
			for path, message := range map[string]proto.Message{
				streams[0]: &mlsapi.SubscribeGroupMessagesRequest{},
				streams[1]: &mlsapi.SubscribeWelcomeMessagesRequest{Filters: []*mlsapi.SubscribeWelcomeMessagesRequest_Filter{{InstallationKey: newInstallationKey()}}},
			} {
				open = append(open, must(client.Do(webPost(ctx, t, scheme+n.WebAddr(), path, message)))(t))
			}
			// Health is watched by clients that balance loads.
			watched := must(client.Do(webPost(ctx, t, scheme+n.WebAddr(), healthgrpc.Health_Watch_FullMethodName, &healthgrpc.HealthCheckRequest{})))(t)
			webFrame(t, watched.Body)
			watching := must(healthgrpc.NewHealthClient(dial(t, n, native...).conn).Watch(ctx, &healthgrpc.HealthCheckRequest{}))(t)
			must(watching.Recv())(t)

			if err := n.Shutdown(ctx); err != nil || ctx.Err() != nil {
				t.Fatal(err, ctx.Err())
			}
			for _, res := range open {
				wantWebStatus(t, res, codes.Unavailable, "service is shutting down")
				res.Body.Close()
			}
			for {
				message, trailers := webFrame(t, watched.Body)
				if message == nil {
					if trailers.Get("Grpc-Status") != "14" {
						t.Errorf("watching the health ended with %v", trailers)
					}
					break
				}
			}
			watched.Body.Close()
			var err error
			for err == nil {
				_, err = watching.Recv()
			}
			wantCode(t, err, codes.Unavailable)
		})
	}
}

// A browser that never reads keeps nobody from anything, nor the node from
// ending.
func TestWebStalledReader(t *testing.T) {
	t.Parallel()
	n, ctx := startWeb(t), short(t)
	c, group := dial(t, n), newGroupID()
	stalled := must(browser(t).Do(webPost(ctx, t, "http://"+n.WebAddr(), streams[0], &mlsapi.SubscribeGroupMessagesRequest{
		Filters: []*mlsapi.SubscribeGroupMessagesRequest_Filter{{GroupId: group}},
	})))(t)
	defer stalled.Body.Close()
	rest := strings.Repeat("x", 1<<20)
	for i := range 16 {
		if err := groupLog.send(ctx, c, group, application(group, fmt.Sprint(i, rest))); err != nil {
			t.Fatal(err)
		}
	}
	if all := must(groupLog.all(ctx, c, group, 0))(t); len(all) != 16 {
		t.Errorf("%d messages", len(all))
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// L1 for browsers: one address has one limit, whatever it speaks.
func TestL1_Web(t *testing.T) {
	t.Parallel()
	n, ctx, client := start(t, node.Options{WebListen: "127.0.0.1:0", Limits: node.Limits{Rates: true}, Now: newClock().now}), short(t), browser(t)
	group := newGroupID()
	batch := make([][]byte, 2999)
	for i := range batch {
		batch[i] = application(group, fmt.Sprint("message ", i))
	}
	send := func(batch ...[]byte) *http.Response {
		return must(client.Do(webPost(ctx, t, "http://"+n.WebAddr(), mlsapi.MlsApi_SendGroupMessages_FullMethodName, groupRequest(batch...))))(t)
	}
	res := send(batch...)
	wantWebStatusOK(t, res)
	res.Body.Close()
	two := [][]byte{application(group, "one more"), application(group, "and one more")}
	_, err := dial(t, n).mls.SendGroupMessages(ctx, groupRequest(two...))
	wantCode(t, err, codes.ResourceExhausted)
	res = send(two...)
	wantWebStatus(t, res, codes.ResourceExhausted, status.Convert(err).Message())
	res.Body.Close()
}

// T8 for browsers: the health service says that the node serves.
func TestT8_Web(t *testing.T) {
	t.Parallel()
	n, ctx := startWeb(t), short(t)
	res := must(browser(t).Do(webPost(ctx, t, "http://"+n.WebAddr(), healthgrpc.Health_Check_FullMethodName, &healthgrpc.HealthCheckRequest{})))(t)
	defer res.Body.Close()
	message, _ := webFrame(t, res.Body)
	answer := &healthgrpc.HealthCheckResponse{}
	if err := proto.Unmarshal(message, answer); err != nil || answer.Status != healthgrpc.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v", answer, err)
	}
}

// D16: the cutover is far in the future, for clients that read the number as a
// signed one and reckon with it.
func TestD16(t *testing.T) {
	t.Parallel()
	n, ctx := startWeb(t), short(t)
	c := migrationapi.NewD14NMigrationApiClient(dial(t, n).conn)
	answer := must(c.FetchD14NCutover(ctx, &emptypb.Empty{}))(t)
	at := int64(answer.TimestampNs)
	if years := time.Unix(0, at).Year() - time.Now().Year(); at <= 0 || years < 100 || at+int64(50*365*24*time.Hour) < at {
		t.Errorf("the cutover is at %d", answer.TimestampNs)
	}
	res := must(browser(t).Do(webPost(ctx, t, "http://"+n.WebAddr(), migrationapi.D14NMigrationApi_FetchD14NCutover_FullMethodName, &emptypb.Empty{})))(t)
	defer res.Body.Close()
	if message, _ := webFrame(t, res.Body); !bytes.Equal(message, binary.AppendUvarint([]byte{0x08}, answer.TimestampNs)) {
		t.Errorf("browsers get %x", message)
	}
}

// Which services there are is told only where that was asked for.
func TestReflection(t *testing.T) {
	t.Parallel()
	ctx := short(t)
	ask := func(n *node.Node) (*reflectiongrpc.ServerReflectionResponse, error) {
		s := must(reflectiongrpc.NewServerReflectionClient(dial(t, n).conn).ServerReflectionInfo(ctx))(t)
		// A stream that has been refused already takes nothing, and Recv says why.
		err := s.Send(&reflectiongrpc.ServerReflectionRequest{MessageRequest: &reflectiongrpc.ServerReflectionRequest_ListServices{}})
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		answer, err := s.Recv()
		_ = s.CloseSend()
		return answer, err
	}
	_, err := ask(start(t, node.Options{}))
	wantCode(t, err, codes.Unimplemented)
	var names []string
	for _, service := range must(ask(start(t, node.Options{Reflection: true})))(t).GetListServicesResponse().GetService() {
		names = append(names, service.Name)
	}
	for _, name := range []string{"xmtp.mls.api.v1.MlsApi", "xmtp.identity.api.v1.IdentityApi", "xmtp.migration.api.v1.D14nMigrationApi", "grpc.health.v1.Health"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not among %v", name, names)
		}
	}
}

// An address in use is told of by the name of its option, and the other
// addresses are free again.
func TestWebListenInUse(t *testing.T) {
	t.Parallel()
	held := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer held.Close()
	free := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	addr := free.Addr().String()
	free.Close()
	for _, tc := range []struct{ option, listen, web string }{{"Listen", held.Addr().String(), addr}, {"WebListen", addr, held.Addr().String()}} {
		_, err := node.Start(t.Context(), node.Options{Listen: tc.listen, WebListen: tc.web, Ephemeral: true})
		l, ok := err.(interface{ Unwrap() error })
		if !ok {
			t.Fatal(tc.option, err)
		}
		if e, ok := l.Unwrap().(*node.ListenError); !ok || e.Option != tc.option || e.Addr != held.Addr().String() || e.Err != node.ErrAddressInUse {
			t.Errorf("%s: got %v", tc.option, err)
		}
	}
	again := must(net.Listen("tcp", addr))(t)
	again.Close()
}

// The history service has the same certificate as the rest.
func TestTLSHistory(t *testing.T) {
	t.Parallel()
	n, a := startTLS(t, node.Options{HistoryListen: "127.0.0.1:0"})
	ctx := short(t)
	for _, protocols := range [][]string{{"h2", "http/1.1"}, {"http/1.1"}} {
		client := webTLS(t, a, protocols...)
		req := must(http.NewRequestWithContext(ctx, http.MethodPost, "https://"+n.HistoryAddr()+"/upload", strings.NewReader("an archive")))(t)
		res := must(client.Do(req))(t)
		id := must(io.ReadAll(res.Body))(t)
		res.Body.Close()
		req = must(http.NewRequestWithContext(ctx, http.MethodGet, "https://"+n.HistoryAddr()+"/files/"+string(id), nil))(t)
		res = must(client.Do(req))(t)
		if got := must(io.ReadAll(res.Body))(t); string(got) != "an archive" {
			t.Errorf("got %s %q", res.Status, got)
		}
		res.Body.Close()
	}
	if conn, err := tls.Dial("tcp", n.HistoryAddr(), &tls.Config{ServerName: "localhost"}); err == nil {
		conn.Close()
		t.Error("its certificate is one that everybody trusts")
	}
}

// What web calls cost, beside those of gRPC in BenchmarkQuery and others.
func BenchmarkWeb(b *testing.B) {
	n, ctx, client := startWeb(b), context.Background(), browser(b)
	c, group := dial(b, n), newGroupID()
	if err := groupLog.send(ctx, c, group, application(group, "message")); err != nil {
		b.Fatal(err)
	}
	ask := &mlsapi.QueryGroupMessagesRequest{GroupId: group}
	path := mlsapi.MlsApi_QueryGroupMessages_FullMethodName
	b.Run("gRPC", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			must(c.mls.QueryGroupMessages(ctx, ask))(b)
		}
	})
	b.Run("gRPC-Web", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			res := must(client.Do(webPost(ctx, b, "http://"+n.WebAddr(), path, ask)))(b)
			must(io.Copy(io.Discard, res.Body))(b)
			res.Body.Close()
		}
	})
	b.Run("Connect JSON", func(b *testing.B) {
		body := must(protojson.Marshal(ask))(b)
		b.ReportAllocs()
		for b.Loop() {
			if code, _ := connectPost(ctx, b, client, "http://"+n.WebAddr()+path, "application/json", body); code != http.StatusOK {
				b.Fatal(code)
			}
		}
	})
}
