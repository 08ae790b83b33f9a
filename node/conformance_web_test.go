package node_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// browser is a client that has nothing but HTTP/1.1.
func browser(t testing.TB) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	transport := &http.Transport{Protocols: &protocols, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// webPost is a call as the official SDK for browsers makes it.
func webPost(ctx context.Context, t testing.TB, base, method string, message proto.Message) *http.Request {
	t.Helper()
	req := must(http.NewRequestWithContext(ctx, http.MethodPost, base+method, bytes.NewReader(frame(must(proto.Marshal(message))(t)))))(t)
	req.Header = http.Header{
		"Content-Type":      {"application/grpc-web+proto"},
		"Accept":            {"application/grpc-web+proto"},
		"X-Grpc-Web":        {"1"},
		"X-Libxmtp-Version": {"1.10.0"},
		"X-App-Version":     {""},
		"Origin":            {"https://app.example"},
	}
	return req
}

// webFrame reads the next frame of a response: a message, or the trailers.
func webFrame(t testing.TB, r io.Reader) (message []byte, trailers http.Header) {
	t.Helper()
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		t.Fatal("no frame:", err)
	}
	payload := make([]byte, binary.BigEndian.Uint32(head[1:]))
	if _, err := io.ReadFull(r, payload); err != nil {
		t.Fatal("half a frame:", err)
	}
	switch head[0] {
	case 0:
		return payload, nil
	case 0x80:
		trailers = http.Header{}
		for line := range strings.SplitSeq(strings.TrimSuffix(string(payload), "\r\n"), "\r\n") {
			name, value, _ := strings.Cut(line, ":")
			trailers.Add(textproto.CanonicalMIMEHeaderKey(name), strings.TrimSpace(value))
		}
		return nil, trailers
	}
	t.Fatalf("a frame with the flag %#x", head[0])
	return nil, nil
}

// webStatus reads the status of a call without message, wherever it is.
func webStatus(t testing.TB, res *http.Response) (code, text string) {
	t.Helper()
	header := res.Header
	if header.Get("Grpc-Status") == "" {
		_, header = webFrame(t, res.Body)
	}
	return header.Get("Grpc-Status"), must(url.PathUnescape(header.Get("Grpc-Message")))(t)
}

func wantWebStatus(t testing.TB, res *http.Response, code codes.Code, text string) {
	t.Helper()
	gotCode, gotText := webStatus(t, res)
	if res.StatusCode != http.StatusOK || gotCode != fmt.Sprint(uint32(code)) || gotText != text {
		t.Errorf("got %s, status %s %q, want %v %q", res.Status, gotCode, gotText, code, text)
	}
}

// bases are the addresses of a node that serve browsers.
func bases(n *node.Node) map[string]string {
	return map[string]string{"listen": "http://" + n.Addr(), "web-listen": "http://" + n.WebAddr()}
}

func startWeb(t testing.TB) *node.Node { return start(t, node.Options{WebListen: "127.0.0.1:0"}) }

// T9: a gRPC-Web call over HTTP/1.1 is answered by a message and trailers.
func TestT9(t *testing.T) {
	t.Parallel()
	n, ctx, client := startWeb(t), short(t), browser(t)
	for name, base := range bases(n) {
		t.Run(name, func(t *testing.T) {
			res := must(client.Do(webPost(ctx, t, base, identityapi.IdentityApi_GetInboxIds_FullMethodName, &identityapi.GetInboxIdsRequest{
				Requests: []*identityapi.GetInboxIdsRequest_Request{{Identifier: "0x12"}},
			})))(t)
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK || res.ProtoMajor != 1 || res.Header.Get("Content-Type") != "application/grpc-web+proto" {
				t.Errorf("got %s %s, content type %q", res.Proto, res.Status, res.Header.Get("Content-Type"))
			}
			message, _ := webFrame(t, res.Body)
			answer := &identityapi.GetInboxIdsResponse{}
			if err := proto.Unmarshal(message, answer); err != nil || len(answer.Responses) != 1 || answer.Responses[0].Identifier != "0x12" {
				t.Errorf("got %v, %v", answer, err)
			}
			if _, trailers := webFrame(t, res.Body); trailers.Get("Grpc-Status") != "0" {
				t.Errorf("trailers %v", trailers)
			}
			if rest := must(io.ReadAll(res.Body))(t); len(rest) > 0 {
				t.Errorf("%d bytes follow the trailers", len(rest))
			}
		})
	}
}

// T9, further: what a browser sends is there for gRPC, and the other way around.
func TestT9_SameStore(t *testing.T) {
	t.Parallel()
	n, ctx, client := startWeb(t), short(t), browser(t)
	c, group := dial(t, n), newGroupID()
	res := must(client.Do(webPost(ctx, t, "http://"+n.WebAddr(), mlsapi.MlsApi_SendGroupMessages_FullMethodName, groupRequest(application(group, "from the web")))))(t)
	defer res.Body.Close()
	if message, _ := webFrame(t, res.Body); len(message) != 0 {
		t.Errorf("got %x, want an empty message", message)
	}
	if err := groupLog.send(ctx, c, group, application(group, "from elsewhere")); err != nil {
		t.Fatal(err)
	}
	res = must(client.Do(webPost(ctx, t, "http://"+n.WebAddr(), mlsapi.MlsApi_QueryGroupMessages_FullMethodName, &mlsapi.QueryGroupMessagesRequest{
		GroupId: group, PagingInfo: &mlsapi.PagingInfo{Direction: ascending},
	})))(t)
	defer res.Body.Close()
	message, _ := webFrame(t, res.Body)
	answer := &mlsapi.QueryGroupMessagesResponse{}
	if err := proto.Unmarshal(message, answer); err != nil {
		t.Fatal(err)
	}
	var got []entry
	for _, m := range answer.Messages {
		got = append(got, groupEntry(m))
	}
	wantEntries(t, "over the web", got, must(groupLog.all(ctx, c, group, 0))(t))
	if len(got) != 2 {
		t.Errorf("%d messages, want 2", len(got))
	}
}

// T10: errors have HTTP's status 200 and gRPC's status and text.
func TestT10(t *testing.T) {
	t.Parallel()
	n, ctx, client := startWeb(t), short(t), browser(t)
	c := dial(t, n)
	for name, tc := range map[string]struct {
		method  string
		message proto.Message
		code    codes.Code
		text    string
	}{
		"invalid":                  {mlsapi.MlsApi_QueryGroupMessages_FullMethodName, &mlsapi.QueryGroupMessagesRequest{}, codes.InvalidArgument, "group is required"},
		"text that can't be ASCII": {identityapi.IdentityApi_GetIdentityUpdates_FullMethodName, &identityapi.GetIdentityUpdatesRequest{Requests: []*identityapi.GetIdentityUpdatesRequest_Request{{InboxId: "ß%"}}}, codes.InvalidArgument, `inbox id "ß%" is not hex`},
		"stream":                   {mlsapi.MlsApi_SubscribeWelcomeMessages_FullMethodName, &mlsapi.SubscribeWelcomeMessagesRequest{}, codes.InvalidArgument, "no valid filters provided"},
		"no longer offered":        {mlsapi.MlsApi_RevokeInstallation_FullMethodName, &mlsapi.RevokeInstallationRequest{}, codes.Unimplemented, "method RevokeInstallation not implemented"},
		"unknown method":           {"/xmtp.mls.api.v1.MlsApi/Nothing", &mlsapi.QueryGroupMessagesRequest{}, codes.Unimplemented, "unknown method Nothing for service xmtp.mls.api.v1.MlsApi"},
		"unknown service":          {"/xmtp.nothing.v1.Nothing/Nothing", &mlsapi.QueryGroupMessagesRequest{}, codes.Unimplemented, "unknown service xmtp.nothing.v1.Nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			res := must(client.Do(webPost(ctx, t, "http://"+n.WebAddr(), tc.method, tc.message)))(t)
			defer res.Body.Close()
			wantWebStatus(t, res, tc.code, tc.text)
			if kind := res.Header.Get("Content-Type"); kind != "application/grpc-web+proto" {
				t.Errorf("content type %q", kind)
			}
			// It is what gRPC's clients are told.
			err := c.conn.Invoke(ctx, tc.method, tc.message, &mlsapi.QueryGroupMessagesResponse{})
			wantStatus(t, err, tc.code, tc.text)
		})
	}
}

// T11: a gRPC-Web stream has its headers at once and each message when it comes.
func TestT11(t *testing.T) {
	t.Parallel()
	n, ctx, client := startWeb(t), short(t), browser(t)
	c := dial(t, n)
	bothLogs(t, func(t *testing.T, l *log) {
		topic := l.topic()
		var req *http.Request
		if l == &groupLog {
			req = webPost(ctx, t, "http://"+n.WebAddr(), mlsapi.MlsApi_SubscribeGroupMessages_FullMethodName, &mlsapi.SubscribeGroupMessagesRequest{
				Filters: []*mlsapi.SubscribeGroupMessagesRequest_Filter{{GroupId: topic}},
			})
		} else {
			req = webPost(ctx, t, "http://"+n.WebAddr(), mlsapi.MlsApi_SubscribeWelcomeMessages_FullMethodName, &mlsapi.SubscribeWelcomeMessagesRequest{
				Filters: []*mlsapi.SubscribeWelcomeMessagesRequest_Filter{{InstallationKey: topic}},
			})
		}
		// Nothing was sent yet, so that only the headers can bring this about.
		res := must(client.Do(req))(t)
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK || len(res.TransferEncoding) != 1 || res.TransferEncoding[0] != "chunked" {
			t.Errorf("got %s, transfer encoding %v", res.Status, res.TransferEncoding)
		}
		for i := range 3 {
			payload := l.payload(topic, fmt.Sprint("message ", i))
			if err := l.send(ctx, c, topic, payload); err != nil {
				t.Fatal(err)
			}
			if message, _ := webFrame(t, res.Body); !bytes.Contains(message, payload) {
				t.Errorf("got %x", message)
			}
		}
	})
}

// T12: every path may be asked by scripts of any page, with the headers of
// official clients.
func TestT12(t *testing.T) {
	t.Parallel()
	n, ctx, client := startWeb(t), short(t), browser(t)
	paths := append([]string{"/", "/grpc.health.v1.Health/Check", "/xmtp.nothing.v1.Nothing/Nothing"}, streams...)
	for _, m := range methods(t) {
		paths = append(paths, m.path)
	}
	for name, base := range bases(n) {
		for _, path := range paths {
			req := must(http.NewRequestWithContext(ctx, http.MethodOptions, base+path, nil))(t)
			req.Header.Set("Origin", "https://app.example")
			req.Header.Set("Access-Control-Request-Method", http.MethodPost)
			req.Header.Set("Access-Control-Request-Headers", "content-type,x-grpc-web,x-app-version,x-libxmtp-version,authorization")
			res := must(client.Do(req))(t)
			res.Body.Close()
			if res.StatusCode != http.StatusNoContent || res.Header.Get("Access-Control-Max-Age") != "86400" {
				t.Errorf("%s %s: %s, to be kept %q s", name, path, res.Status, res.Header.Get("Access-Control-Max-Age"))
			}
			wantCORS(t, res)
			allowed := strings.Split(res.Header.Get("Access-Control-Allow-Headers"), ", ")
			for _, header := range strings.Split("keep-alive,user-agent,cache-control,content-type,content-transfer-encoding,accept,authorization,"+
				"x-accept-content-transfer-encoding,x-accept-response-streaming,x-user-agent,x-grpc-web,grpc-timeout,x-client-version,"+
				"x-app-version,x-libxmtp-version,baggage,dnt,sec-ch-ua,sec-ch-ua-mobile,sec-ch-ua-platform,sentry-trace", ",") {
				if !slices.Contains(allowed, header) {
					t.Errorf("%s %s: the header %s is not allowed", name, path, header)
				}
			}
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
				if !slices.Contains(strings.Split(res.Header.Get("Access-Control-Allow-Methods"), ", "), method) {
					t.Errorf("%s %s: %s is not allowed", name, path, method)
				}
			}
		}
	}
}

func wantCORS(t testing.TB, res *http.Response) {
	t.Helper()
	if origin := res.Header["Access-Control-Allow-Origin"]; len(origin) != 1 || origin[0] != "*" {
		t.Errorf("%s: allowed origins %q", res.Request.URL, origin)
	}
	const exposed = "grpc-status,grpc-message,grpc-status-details-bin"
	if got := res.Header["Access-Control-Expose-Headers"]; len(got) != 1 || got[0] != exposed {
		t.Errorf("%s: exposed headers %q", res.Request.URL, got)
	}
}

// T13: scripts may see every response, whatever it says.
func TestT13(t *testing.T) {
	t.Parallel()
	n, ctx, client := startWeb(t), short(t), browser(t)
	base := "http://" + n.WebAddr()
	call := func(method string, message proto.Message, change func(*http.Request)) *http.Request {
		req := webPost(ctx, t, base, method, message)
		change(req)
		return req
	}
	unchanged := func(*http.Request) {}
	query := mlsapi.MlsApi_QueryGroupMessages_FullMethodName
	for name, req := range map[string]*http.Request{
		"success":             call(query, &mlsapi.QueryGroupMessagesRequest{GroupId: newGroupID()}, unchanged),
		"error":               call(query, &mlsapi.QueryGroupMessagesRequest{}, unchanged),
		"stream":              call(streams[0], &mlsapi.SubscribeGroupMessagesRequest{}, unchanged),
		"error of a stream":   call(streams[1], &mlsapi.SubscribeWelcomeMessagesRequest{}, unchanged),
		"unknown method":      call("/xmtp.mls.api.v1.MlsApi/Nothing", &mlsapi.QueryGroupMessagesRequest{}, unchanged),
		"unknown protocol":    call(query, &mlsapi.QueryGroupMessagesRequest{}, func(r *http.Request) { r.Header.Set("Content-Type", "text/html") }),
		"garbage":             call(query, &mlsapi.QueryGroupMessagesRequest{}, func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("garbage")), 7 }),
		"GET":                 must(http.NewRequestWithContext(ctx, http.MethodGet, base+query, nil))(t),
		"page":                must(http.NewRequestWithContext(ctx, http.MethodGet, base+"/", nil))(t),
		"OPTIONS for oneself": must(http.NewRequestWithContext(ctx, http.MethodOptions, base+query, nil))(t),
	} {
		t.Run(name, func(t *testing.T) {
			res := must(client.Do(req))(t)
			wantCORS(t, res)
			res.Body.Close()
		})
	}
}
