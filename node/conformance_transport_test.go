package node_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// h2c is an HTTP client that begins with HTTP/2 on cleartext connections.
func h2c(t testing.TB) *http.Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// frame is a message as gRPC sends it: a flag, a length, the bytes.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// grpcPost is a request as official clients send it.
func grpcPost(ctx context.Context, t testing.TB, n *node.Node, method string, body io.Reader) *http.Request {
	t.Helper()
	req := must(http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.Addr()+method, body))(t)
	req.Header = http.Header{
		"Content-Type":      {"application/grpc"},
		"Te":                {"trailers"},
		"User-Agent":        {"tonic/0.14.2"},
		"X-Libxmtp-Version": {"1.10.0"},
		"X-App-Version":     {""},
	}
	return req
}

// T1: gRPC over cleartext HTTP/2, without upgrade.
func TestT1(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{}), short(t)
	message := must(proto.Marshal(&identityapi.GetInboxIdsRequest{
		Requests: []*identityapi.GetInboxIdsRequest_Request{{Identifier: "0x12"}},
	}))(t)
	req := grpcPost(ctx, t, n, identityapi.IdentityApi_GetInboxIds_FullMethodName, bytes.NewReader(frame(message)))
	res := must(h2c(t).Do(req))(t)
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 || res.Header.Get("Content-Type") != "application/grpc" {
		t.Errorf("got %s %s, content type %q", res.Proto, res.Status, res.Header.Get("Content-Type"))
	}
	body := must(io.ReadAll(res.Body))(t)
	if len(body) < 5 || body[0] != 0 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
		t.Fatalf("got the frame %x", body)
	}
	answer := &identityapi.GetInboxIdsResponse{}
	if err := proto.Unmarshal(body[5:], answer); err != nil || len(answer.Responses) != 1 || answer.Responses[0].Identifier != "0x12" {
		t.Errorf("got %v, %v", answer, err)
	}
	if status := res.Trailer.Get("Grpc-Status"); status != "0" {
		t.Errorf("status %q", status)
	}
}

// rawConn is an HTTP/2 connection whose frames a test sees.
type rawConn struct {
	t      *testing.T
	conn   net.Conn
	framer *http2.Framer
	events chan rawEvent // closed at the end
	failed chan error    // why the connection ended
	next   uint32        // number of the next stream
	addr   string
}

// rawEvent is the answer to a ping, the headers of a stream, or data in one.
type rawEvent struct {
	pong    [8]byte
	headers *http2.MetaHeadersFrame
	stream  uint32
	data    []byte
}

// dialRaw opens a connection that ends with the test. It answers settings and
// pings, and takes data without end.
func dialRaw(t *testing.T, n *node.Node) *rawConn {
	t.Helper()
	conn := must(net.Dial("tcp", n.Addr()))(t)
	r := &rawConn{
		t: t, conn: conn, framer: http2.NewFramer(conn, conn), next: 1, addr: n.Addr(),
		events: make(chan rawEvent, 100), failed: make(chan error, 1),
	}
	t.Cleanup(func() {
		conn.Close()
		for range r.events {
		}
	})
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	must(conn.Write([]byte(http2.ClientPreface)))(t)
	if err := r.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	settings := make(chan struct{})
	go r.read(settings)
	select {
	case <-settings:
	case err := <-r.failed:
		t.Fatal("no settings:", err)
	}
	if err := r.framer.WriteSettingsAck(); err != nil {
		t.Fatal(err)
	}
	return r
}

// read passes on the frames that tests wait for.
func (r *rawConn) read(settings chan<- struct{}) {
	defer close(r.events)
	for {
		f, err := r.framer.ReadFrame()
		if err != nil {
			r.failed <- err
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				close(settings)
			}
		case *http2.GoAwayFrame:
			r.failed <- fmt.Errorf("GOAWAY %v %q", f.ErrCode, f.DebugData())
			return
		case *http2.PingFrame:
			if f.IsAck() {
				r.events <- rawEvent{pong: f.Data}
			} // else it is the server's probe of the bandwidth; it does not insist
		case *http2.MetaHeadersFrame:
			r.events <- rawEvent{headers: f, stream: f.StreamID}
		case *http2.DataFrame:
			r.events <- rawEvent{data: bytes.Clone(f.Data()), stream: f.StreamID}
		}
	}
}

// event waits for the next event.
func (r *rawConn) event() rawEvent {
	r.t.Helper()
	select {
	case e, ok := <-r.events:
		if ok {
			return e
		}
		r.t.Fatal("the connection ended:", <-r.failed)
	case <-time.After(30 * time.Second):
		r.t.Fatal("no answer")
	}
	return rawEvent{}
}

// call opens a stream with one message and waits for the headers.
func (r *rawConn) call(method string, message proto.Message) (stream uint32) {
	r.t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":path", Value: method}, {Name: ":authority", Value: r.addr},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	} {
		if err := encoder.WriteField(field); err != nil {
			r.t.Fatal(err)
		}
	}
	stream = r.next
	r.next += 2
	if err := r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		r.t.Fatal(err)
	}
	if err := r.framer.WriteData(stream, true, frame(must(proto.Marshal(message))(r.t))); err != nil {
		r.t.Fatal(err)
	}
	e := r.event()
	if e.headers == nil || e.headers.StreamEnded() || e.headers.PseudoValue("status") != "200" {
		r.t.Fatalf("got %v", e)
	}
	return stream
}

// subscribe opens a stream of a topic.
func (r *rawConn) subscribe(l *log, topic []byte) (stream uint32) {
	r.t.Helper()
	if l == &welcomeLog {
		return r.call(mlsapi.MlsApi_SubscribeWelcomeMessages_FullMethodName, &mlsapi.SubscribeWelcomeMessagesRequest{
			Filters: []*mlsapi.SubscribeWelcomeMessagesRequest_Filter{{InstallationKey: topic}},
		})
	}
	return r.call(mlsapi.MlsApi_SubscribeGroupMessages_FullMethodName, &mlsapi.SubscribeGroupMessagesRequest{
		Filters: []*mlsapi.SubscribeGroupMessagesRequest_Filter{{GroupId: topic}},
	})
}

// pings sends pings on the connections and waits for each answer. It fails if
// anything else comes.
func pings(n int, every time.Duration, connections ...*rawConn) {
	pace := time.NewTicker(every)
	defer pace.Stop()
	for i := range n {
		if i > 0 {
			<-pace.C
		}
		payload := [8]byte{1, 7: byte(i)}
		for _, r := range connections {
			if err := r.framer.WritePing(false, payload); err != nil {
				r.t.Fatal(err)
			}
			if e := r.event(); e.pong != payload {
				r.t.Fatalf("ping %d was answered by %v", i, e)
			}
		}
	}
}

// wantMessage reads the stream's next message, which is in one data frame, and
// looks for its payload.
func (r *rawConn) wantMessage(stream uint32, payload []byte) {
	r.t.Helper()
	if e := r.event(); e.stream != stream || !bytes.Contains(e.data, payload) {
		r.t.Errorf("got %v", e)
	}
}

// T2: pings every few seconds, with and without streams, never close a
// connection. In the long tier that lasts 3 minutes.
func TestT2(t *testing.T) {
	t.Parallel()
	n := start(t, node.Options{})
	without, with := dialRaw(t, n), dialRaw(t, n)
	with.subscribe(&groupLog, newGroupID())
	with.subscribe(&welcomeLog, newInstallationKey())
	// With grpc-go's default policy the fifth would find no connection.
	pings(scaled(5, 37), scaled(2050*time.Millisecond, 5*time.Second), without, with)
}

// T3: a stream with nothing to deliver has its headers within 100 ms. The median
// counts, so that a busy machine does not.
func TestT3(t *testing.T) {
	c, ctx := connect(t), short(t)
	for name, open := range map[string]func() (stream, error){
		"group, no filters": func() (stream, error) { return groupLog.open(ctx, c) },
		"group":             func() (stream, error) { return groupLog.open(ctx, c, filter{topic: newGroupID()}) },
		"welcome":           func() (stream, error) { return welcomeLog.open(ctx, c, filter{topic: newInstallationKey()}) },
	} {
		t.Run(name, func(t *testing.T) {
			times := make([]time.Duration, 21)
			for i := range times {
				begin := time.Now()
				must(open())(t)
				times[i] = time.Since(begin)
			}
			slices.Sort(times)
			median := times[len(times)/2]
			t.Logf("CHECK stream: median until headers, %s: %v", name, median)
			if median > 100*time.Millisecond {
				t.Errorf("the median stream opened after %v", median)
			}
		})
	}
}

// T4: a request of 20 MiB is taken, and can be read.
func TestT4(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	installation, req := newInstallationKey(), welcomeRequest()
	for _, size := range []int{15 << 20, 5 << 20} {
		req.Messages = append(req.Messages, welcomeInput(installation, append(random(16), make([]byte, size-16)...)))
	}
	must(c.mls.SendWelcomeMessages(ctx, req))(t)
	all := must(welcomeLog.all(ctx, c, installation, 0))(t)
	if len(all) != len(req.Messages) {
		t.Fatalf("%d welcomes, want %d", len(all), len(req.Messages))
	}
	for i, e := range all {
		if e.data != string(req.Messages[i].GetV1().Data) {
			t.Errorf("welcome %d is another one", i)
		}
	}
}

// T4, the other way: the biggest that is taken can be read by a client that takes
// 25 MiB, by query and by stream; what can't be read is refused.
func TestT4_Biggest(t *testing.T) {
	t.Parallel()
	// How much less than 25 MiB there can be in a message, for what is sent besides.
	besides := map[string]int{"group": 1089, "welcome": 2252}
	bothLogs(t, func(t *testing.T, l *log) {
		c, ctx, topic := connect(t), short(t), l.topic()
		payload := l.payload(topic, string(make([]byte, maxMessage-besides[l.name])))
		if err := l.send(ctx, c, topic, payload); err != nil {
			t.Fatal(err)
		}
		if l == &groupLog {
			page, _, err := l.page(ctx, c, topic, nil)
			if err != nil || len(page) != 1 || page[0].data != string(payload) {
				t.Fatalf("%d bytes were taken; reading them: %d messages, %v", len(payload), len(page), err)
			}
		} else {
			s := must(l.open(ctx, c, filter{topic: topic}))(t)
			if e := must(s.next())(t); e.data != string(payload) {
				t.Errorf("%d bytes came as others", len(payload))
			}
		}
		topic = l.topic()
		err := l.send(ctx, c, topic, l.payload(topic, string(make([]byte, maxMessage-besides[l.name]+1))))
		wantCode(t, err, codes.InvalidArgument)
	})
}

// T5: a page is cut below 25 MiB, with the last id as its cursor: of 100 messages
// of 1 MiB in the long tier, of fewer elsewhere, since the race detector makes
// copying slow.
func TestT5(t *testing.T) {
	t.Parallel()
	bothLogs(t, func(t *testing.T, l *log) {
		c, ctx, topic := connect(t), long(t), l.topic()
		const size = 1 << 20
		count := map[string]int{"group": scaled(40, 100), "welcome": scaled(30, 100)}[l.name]
		rest := string(make([]byte, size))
		for i := 0; i < count; i += 10 {
			var payloads [][]byte
			for j := range 10 {
				payloads = append(payloads, l.payload(topic, fmt.Sprintf("message %03d%s", i+j, rest)))
			}
			if err := l.send(ctx, c, topic, payloads...); err != nil {
				t.Fatal(err)
			}
		}
		for _, direction := range map[string][]mlsapi.SortDirection{"group": {ascending}, "welcome": {descending}}[l.name] {
			var cursor uint64
			seen, pages := 0, 0
			for {
				// The client does not take more than 25 MiB.
				page, paging, err := l.page(ctx, c, topic, &mlsapi.PagingInfo{Direction: direction, Limit: 100, IdCursor: cursor})
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range page {
					i := seen
					if direction == descending {
						i = count - 1 - seen
					}
					if !strings.Contains(e.data[:100], fmt.Sprintf("message %03d", i)) || len(e.data) < size {
						t.Fatalf("message %d is another one", i)
					}
					seen++
				}
				if paging.IdCursor == 0 {
					break
				}
				if len(page) == 0 || paging.IdCursor != page[len(page)-1].id || paging.Limit != 100 {
					t.Fatalf("%d messages, paging %v", len(page), paging)
				}
				if seen < count && len(page) < 10 {
					t.Errorf("a page of only %d messages", len(page))
				}
				cursor = paging.IdCursor
				pages++
			}
			if seen != count || pages < count*size/maxMessage {
				t.Errorf("%d messages on %d pages, want %d", seen, pages, count)
			}
		}
	})
}

// T6: version headers may be empty or missing, and unknown versions pass.
func TestT6(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	for _, headers := range [][]string{
		{}, {"x-app-version", ""}, {"x-app-version", "", "x-libxmtp-version", ""},
		{"x-libxmtp-version", "1.10.0"}, {"x-libxmtp-version", "0.0.1"}, {"x-libxmtp-version", "no version", "x-app-version", "an app/1"},
	} {
		ctx := metadata.AppendToOutgoingContext(ctx, headers...)
		must(c.mls.SendGroupMessages(ctx, groupRequest(application(newGroupID(), "message"))))(t)
		must(c.identity.GetInboxIds(ctx, &identityapi.GetInboxIdsRequest{}))(t)
		must(groupLog.open(ctx, c))(t)
	}
}

// T7: an unknown method or service is UNIMPLEMENTED.
func TestT7(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	for _, method := range []string{
		"/xmtp.mls.api.v1.MlsApi/Nothing",
		"/xmtp.identity.api.v1.IdentityApi/Nothing",
		"/xmtp.nothing.v1.Nothing/SendGroupMessages",
	} {
		err := c.conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
		wantCode(t, err, codes.Unimplemented)
	}
}

// T8: the health service says that the node serves.
func TestT8(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	res := must(healthgrpc.NewHealthClient(c.conn).Check(ctx, &healthgrpc.HealthCheckRequest{}))(t)
	if res.Status != healthgrpc.HealthCheckResponse_SERVING {
		t.Errorf("got %v", res.Status)
	}
}
