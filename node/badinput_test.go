package node_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// What follows is bad input. After each, the node still serves and has stored
// nothing.

// rawCodec sends and takes messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

// invoke sends bytes as the request of a method that is not a stream.
func (c *client) invoke(ctx context.Context, method string, request []byte) error {
	var response []byte
	return c.conn.Invoke(ctx, method, request, &response, grpc.ForceCodecV2(rawCodec{}))
}

// A method of the API, with a request that it accepts.
type method struct {
	path   string
	good   proto.Message
	writes bool
}

// methods are all that the node serves, but for streams.
func methods(t testing.TB) []method {
	in := newInbox(t)
	group, installation := newGroupID(), newInstallation(t)
	return []method{
		{mlsapi.MlsApi_SendGroupMessages_FullMethodName, groupRequest(application(group, "message")), true},
		{mlsapi.MlsApi_SendWelcomeMessages_FullMethodName, welcomeRequest(welcomeInput(random(32), random(50))), true},
		{mlsapi.MlsApi_UploadKeyPackage_FullMethodName, &mlsapi.UploadKeyPackageRequest{
			KeyPackage: &mlsapi.KeyPackageUpload{KeyPackageTlsSerialized: newKeyPackage(t, installation, keyPackageOptions{})}}, true},
		{mlsapi.MlsApi_RegisterInstallation_FullMethodName, &mlsapi.RegisterInstallationRequest{
			KeyPackage: &mlsapi.KeyPackageUpload{KeyPackageTlsSerialized: newKeyPackage(t, installation, keyPackageOptions{})}}, true},
		{mlsapi.MlsApi_BatchPublishCommitLog_FullMethodName, logRequest(logEntry(group, "entry")), true},
		{identityapi.IdentityApi_PublishIdentityUpdate_FullMethodName, &identityapi.PublishIdentityUpdateRequest{IdentityUpdate: in.register(t)}, true},
		{mlsapi.MlsApi_FetchKeyPackages_FullMethodName, &mlsapi.FetchKeyPackagesRequest{InstallationKeys: [][]byte{random(32)}}, false},
		{mlsapi.MlsApi_QueryGroupMessages_FullMethodName, &mlsapi.QueryGroupMessagesRequest{GroupId: group}, false},
		{mlsapi.MlsApi_QueryWelcomeMessages_FullMethodName, &mlsapi.QueryWelcomeMessagesRequest{InstallationKey: random(32)}, false},
		{mlsapi.MlsApi_GetNewestGroupMessage_FullMethodName, &mlsapi.GetNewestGroupMessageRequest{GroupIds: [][]byte{group}}, false},
		{mlsapi.MlsApi_BatchQueryCommitLog_FullMethodName, &mlsapi.BatchQueryCommitLogRequest{Requests: []*mlsapi.QueryCommitLogRequest{{GroupId: group}}}, false},
		{identityapi.IdentityApi_GetIdentityUpdates_FullMethodName, &identityapi.GetIdentityUpdatesRequest{
			Requests: []*identityapi.GetIdentityUpdatesRequest_Request{{InboxId: in.id}}}, false},
		{identityapi.IdentityApi_GetInboxIds_FullMethodName, &identityapi.GetInboxIdsRequest{
			Requests: []*identityapi.GetInboxIdsRequest_Request{{Identifier: "0x12"}}}, false},
		{identityapi.IdentityApi_VerifySmartContractWalletSignatures_FullMethodName, &identityapi.VerifySmartContractWalletSignaturesRequest{
			Signatures: []*identityapi.VerifySmartContractWalletSignatureRequestSignature{{AccountId: "eip155:1:0x12"}}}, false},
	}
}

// streams are the paths of the streaming methods.
var streams = []string{mlsapi.MlsApi_SubscribeGroupMessages_FullMethodName, mlsapi.MlsApi_SubscribeWelcomeMessages_FullMethodName}

// noProtobuf are bytes that no message encodes to.
var noProtobuf = map[string][]byte{
	"a field without length":       {0x0a},
	"a length without field":       {0x0a, 5, 1},
	"a length of 2^63":             append([]byte{0x0a}, protowire.AppendVarint(nil, 1<<63)...),
	"field 0":                      {0x00, 0x00},
	"wire type 7":                  {0x0f, 1},
	"a group that only ends":       {0x0c},
	"a group that only begins":     {0x0b},
	"a number of 11 bytes":         bytes.Repeat([]byte{0xff}, 11),
	"a number without end":         {0xff, 0xff},
	"groups in groups":             bytes.Repeat([]byte{0x0b}, 20000),
	"text":                         []byte("{\"messages\": []}"),
	"a truncated fixed64":          {0x09, 1, 2, 3},
	"a field number out of bounds": append(protowire.AppendVarint(nil, 1<<35), 0),
}

// Bytes that are no protobuf are an error of every method.
func TestBadProtobuf(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), long(t)
	for name, request := range noProtobuf {
		t.Run(name, func(t *testing.T) {
			c.unchanged(ctx, t, func() {
				for _, m := range methods(t) {
					if err := c.invoke(ctx, m.path, request); err == nil {
						t.Errorf("%s took it", m.path)
					} else {
						wantCode(t, err, codes.Internal, codes.InvalidArgument)
					}
				}
				for _, path := range streams {
					desc := &grpc.StreamDesc{ServerStreams: true}
					s := must(c.conn.NewStream(ctx, desc, path, grpc.ForceCodecV2(rawCodec{})))(t)
					if err := errors.Join(s.SendMsg(request), s.CloseSend()); err != nil {
						t.Fatal(err)
					}
					var response []byte
					wantCode(t, s.RecvMsg(&response), codes.Internal, codes.InvalidArgument)
				}
			})
		})
	}
}

// A request that is cut short anywhere, or whose bytes are others, is never
// taken for one that it is not.
func TestTruncatedProtobuf(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), long(t)
	for _, m := range methods(t) {
		t.Run(m.path, func(t *testing.T) {
			good := must(proto.Marshal(m.good))(t)
			c.unchanged(ctx, t, func() {
				step := max(1, len(good)/scaled(150, 3000))
				for n := 0; n < len(good); n += step {
					if err := c.invoke(ctx, m.path, good[:n]); err == nil && m.writes {
						t.Fatalf("%d bytes of %d were taken", n, len(good))
					}
				}
			})
			if err := c.invoke(ctx, m.path, good); err != nil {
				t.Error("the whole request:", err)
			}
		})
	}
}

// Damaged messages of MLS are refused, or else others can decode them.
func TestDamagedMLS(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), long(t)
	group := newGroupID()
	for name, good := range map[string][]byte{
		"application": application(group, "message"),
		"commit":      privateMessage(group, mls.ContentTypeCommit, random(40)),
		"proposal":    publicProposal(group),
		"in public":   publicCommit(group),
	} {
		t.Run(name, func(t *testing.T) {
			must(mls.UnmarshalMessage(good))(t)
			// As far as clients read it: they don't mind bytes that follow.
			decodable := func(b []byte) error {
				_, n, err := mls.ParseHeader(b)
				if err != nil {
					return err
				}
				_, err = mls.UnmarshalMessage(b[:n])
				return err
			}
			c.unchanged(ctx, t, func() {
				for n := range good {
					_, err := c.mls.SendGroupMessages(ctx, groupRequest(good[:n]))
					if wantCode(t, err, codes.InvalidArgument); t.Failed() {
						t.Fatalf("%d bytes of %d were taken", n, len(good))
					}
				}
			})
			for i := range good {
				for _, flip := range []byte{1, 0x40, 0x80, 0xff} {
					bad := bytes.Clone(good)
					bad[i] ^= flip
					if _, err := c.mls.SendGroupMessages(ctx, groupRequest(bad)); err != nil {
						wantCode(t, err, codes.InvalidArgument)
					} else if err := decodable(bad); err != nil {
						t.Errorf("byte %d changed by %#x was taken, but can't be decoded: %v", i, flip, err)
					}
				}
			}
		})
	}
}

// grpcStatus is the gRPC status of a response: of its trailers, or of its
// headers if it has nothing else. The body is read.
func grpcStatus(res *http.Response) string {
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if s := res.Header.Get("Grpc-Status"); s != "" {
		return s
	}
	return res.Trailer.Get("Grpc-Status")
}

// Frames of gRPC with wrong lengths and flags, and requests that are none of
// gRPC, have an error for an answer.
func TestBadFrames(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{}), long(t)
	c, web := dial(t, n), h2c(t)
	message := must(proto.Marshal(groupRequest(application(newGroupID(), "message"))))(t)
	good := frame(message)
	with := func(change func(b []byte)) []byte {
		b := bytes.Clone(good)
		change(b)
		return b
	}
	length := func(b []byte, n uint32) { binary.BigEndian.PutUint32(b[1:], n) }
	size := uint32(len(message))
	for _, tc := range []struct {
		name    string
		body    []byte
		headers map[string]string
	}{
		{"nothing", nil, nil},
		{"half a prefix", good[:3], nil},
		{"only a prefix", good[:5], nil},
		{"a byte less", good[:len(good)-1], nil},
		{"a length too long", with(func(b []byte) { length(b, size+1) }), nil},
		{"a length too short", with(func(b []byte) { length(b, size-1) }), nil},
		{"a length of 0", with(func(b []byte) { length(b, 0) }), nil},
		{"a length of 25 MiB and 1", with(func(b []byte) { length(b, maxMessage+1) }), nil},
		{"a length of 2^31", with(func(b []byte) { length(b, 1<<31) }), nil},
		{"a length of 2^32-1", with(func(b []byte) { length(b, 1<<32-1) }), nil},
		{"compressed, it says", with(func(b []byte) { b[0] = 1 }), nil},
		{"compressed as identity", with(func(b []byte) { b[0] = 1 }), map[string]string{"Grpc-Encoding": "identity"}},
		{"compressed with gzip, it says", with(func(b []byte) { b[0] = 1 }), map[string]string{"Grpc-Encoding": "gzip"}},
		{"compressed with nothing known", with(func(b []byte) { b[0] = 1 }), map[string]string{"Grpc-Encoding": "unknown"}},
		{"flag 2", with(func(b []byte) { b[0] = 2 }), nil},
		{"flag 255", with(func(b []byte) { b[0] = 255 }), nil},
		{"no gRPC", good, map[string]string{"Content-Type": "application/json"}},
		{"no content type", good, map[string]string{"Content-Type": ""}},
		{"a bad timeout", good, map[string]string{"Grpc-Timeout": "soon"}},
		{"no time", good, map[string]string{"Grpc-Timeout": "0n"}},
		{"bad binary metadata", good, map[string]string{"X-Bin": "%%%"}},
		{"text", []byte("hello, is this the node?"), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.unchanged(ctx, t, func() {
				req := grpcPost(ctx, t, n, mlsapi.MlsApi_SendGroupMessages_FullMethodName, bytes.NewReader(tc.body))
				for name, value := range tc.headers {
					req.Header.Set(name, value)
				}
				res, err := web.Do(req)
				if err != nil {
					return // the node wants no more of it
				}
				if s := grpcStatus(res); res.StatusCode == http.StatusOK && (s == "0" || s == "") {
					t.Errorf("status %d, gRPC status %q", res.StatusCode, s)
				}
			})
		})
	}
	for _, verb := range []string{http.MethodGet, http.MethodPut, http.MethodOptions, http.MethodDelete} {
		t.Run(verb, func(t *testing.T) {
			c.unchanged(ctx, t, func() {
				req := grpcPost(ctx, t, n, mlsapi.MlsApi_SendGroupMessages_FullMethodName, bytes.NewReader(good))
				req.Method = verb
				if res, err := web.Do(req); err == nil {
					if s := grpcStatus(res); res.StatusCode == http.StatusOK && s == "0" {
						t.Error("it was taken")
					}
				}
			})
		})
	}
}

// A message over 25 MiB is refused at its first bytes, not when it has come.
func TestOversized(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{}), short(t)
	c := dial(t, n)
	c.unchanged(ctx, t, func() {
		_, err := c.mls.SendWelcomeMessages(ctx, welcomeRequest(welcomeInput(random(32), make([]byte, maxMessage))))
		wantCode(t, err, codes.ResourceExhausted)
		_, err = c.mls.SendGroupMessages(ctx, groupRequest(application(newGroupID(), string(make([]byte, maxMessage)))))
		wantCode(t, err, codes.ResourceExhausted)
		_, err = groupLog.open(ctx, c, filter{topic: make([]byte, maxMessage)})
		wantCode(t, err, codes.ResourceExhausted)
	})
	c.unchanged(ctx, t, func() {
		body, send := io.Pipe()
		defer send.Close()
		go send.Write(binary.BigEndian.AppendUint32([]byte{0}, 1<<32-1)) // and no more
		res := must(h2c(t).Do(grpcPost(ctx, t, n, mlsapi.MlsApi_SendGroupMessages_FullMethodName, body)))(t)
		if s := grpcStatus(res); s != fmt.Sprint(int(codes.ResourceExhausted)) {
			t.Errorf("gRPC status %q", s)
		}
	})
}

// Connections that don't speak HTTP/2, or not well, end without harm.
func TestBadConnections(t *testing.T) {
	t.Parallel()
	var complaints warnings
	n, ctx := start(t, node.Options{Logger: complaints.logger()}), short(t)
	c := dial(t, n)
	preface := []byte(http2.ClientPreface)
	frames := func(write func(f *http2.Framer)) []byte {
		b := bytes.NewBuffer(bytes.Clone(preface))
		f := http2.NewFramer(b, nil)
		f.AllowIllegalWrites = true
		f.WriteSettings()
		write(f)
		return b.Bytes()
	}
	headers := func(fields ...hpack.HeaderField) []byte {
		var b bytes.Buffer
		e := hpack.NewEncoder(&b)
		for _, f := range fields {
			e.WriteField(f)
		}
		return b.Bytes()
	}
	request := headers(
		hpack.HeaderField{Name: ":method", Value: "POST"}, hpack.HeaderField{Name: ":scheme", Value: "http"},
		hpack.HeaderField{Name: ":path", Value: mlsapi.MlsApi_SendGroupMessages_FullMethodName},
		hpack.HeaderField{Name: ":authority", Value: "node"}, hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
	whole := frame(must(proto.Marshal(groupRequest(application(newGroupID(), "message"))))(t))
	for name, junk := range map[string][]byte{
		"nothing":              nil,
		"garbage":              random(1000),
		"zeros":                make([]byte, 10000),
		"HTTP/1.1":             []byte("GET / HTTP/1.1\r\nHost: node\r\n\r\n"),
		"half a preface":       preface[:10],
		"preface, garbage":     append(bytes.Clone(preface), random(1000)...),
		"no settings":          append(bytes.Clone(preface), 0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8),
		"a frame of 16 MiB":    append(frames(func(*http2.Framer) {}), 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1),
		"settings of 5 bytes":  frames(func(f *http2.Framer) { f.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) }),
		"a ping of 7 bytes":    frames(func(f *http2.Framer) { f.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) }),
		"a ping in a stream":   frames(func(f *http2.Framer) { f.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8)) }),
		"data without headers": frames(func(f *http2.Framer) { f.WriteData(1, true, whole) }),
		"an even stream":       frames(func(f *http2.Framer) { f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2, request) }),
		"headers that don't decode": frames(func(f *http2.Framer) {
			f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0xff, 0xff, 0xff, 0xff})
		}),
		"headers without end":     frames(func(f *http2.Framer) { f.WriteRawFrame(http2.FrameHeaders, 0, 1, request) }),
		"continuation of nothing": frames(func(f *http2.Framer) { f.WriteContinuation(1, true, request) }),
		"a reset stream": frames(func(f *http2.Framer) {
			f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, request)
			f.WriteData(1, false, whole[:len(whole)/2])
			f.WriteRSTStream(1, http2.ErrCodeCancel)
		}),
		"cut off in a message": frames(func(f *http2.Framer) {
			f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, request)
			f.WriteData(1, false, whole[:len(whole)-1])
		}),
		"padding longer than data": frames(func(f *http2.Framer) {
			f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, request)
			f.WriteRawFrame(http2.FrameData, http2.FlagDataPadded|http2.FlagDataEndStream, 1, []byte{200, 1})
		}),
		"a window of 2^31": frames(func(f *http2.Framer) { f.WriteWindowUpdate(0, 1<<31-1) }),
		"many resets": frames(func(f *http2.Framer) {
			for id := uint32(1); id < 2000; id += 2 {
				f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, id, request)
				f.WriteRSTStream(id, http2.ErrCodeCancel)
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			c.unchanged(ctx, t, func() {
				conn := must(net.Dial("tcp", n.Addr()))(t)
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
					t.Fatal(err)
				}
				// What the node answers, and whether it hangs up at once, is its own affair.
				conn.Write(junk)
				io.Copy(io.Discard, conn)
			})
		})
	}
	t.Run("TLS", func(t *testing.T) {
		conn := must(net.Dial("tcp", n.Addr()))(t)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx); err == nil {
			t.Error("it is answered")
		}
	})
	if text := complaints.String(); text != "" {
		t.Errorf("the node complains of its callers:\n%s", text)
	}
}

// Headers without measure cost the caller only.
func TestBigHeaders(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	c.unchanged(ctx, t, func() {
		big := metadata.AppendToOutgoingContext(ctx, "x-app-version", strings.Repeat("v", 32<<20))
		_, err := c.mls.SendGroupMessages(big, groupRequest(application(newGroupID(), "message")))
		if err == nil {
			t.Error("a header of 32 MiB was taken")
		}
	})
}

// Lists without measure, and keys of any length, are answered or refused.
func TestLongLists(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), long(t)
	const many = 20_000
	c.unchanged(ctx, t, func() {
		t.Run("key packages", func(t *testing.T) {
			keys := make([][]byte, many)
			for i := range keys {
				keys[i] = random(32)
			}
			keys[1], keys[2] = make([]byte, 1<<20), nil
			if got := c.fetch(t, keys...); len(got) != many {
				t.Errorf("%d entries, want %d", len(got), many)
			}
		})
		t.Run("newest", func(t *testing.T) {
			req := &mlsapi.GetNewestGroupMessageRequest{}
			for range many {
				req.GroupIds = append(req.GroupIds, newGroupID())
			}
			req.GroupIds[1] = make([]byte, 1<<20)
			if res := must(c.mls.GetNewestGroupMessage(ctx, req))(t); len(res.Responses) != many {
				t.Errorf("%d entries, want %d", len(res.Responses), many)
			}
		})
		t.Run("inbox ids", func(t *testing.T) {
			req := &identityapi.GetInboxIdsRequest{}
			for i := range many {
				req.Requests = append(req.Requests, &identityapi.GetInboxIdsRequest_Request{Identifier: fmt.Sprint(i), IdentifierKind: associations.IdentifierKind(i % 4)})
			}
			req.Requests[1].Identifier = strings.Repeat("0", 1<<20)
			res := must(c.identity.GetInboxIds(ctx, req))(t)
			if len(res.Responses) != many {
				t.Errorf("%d entries, want %d", len(res.Responses), many)
			}
		})
		t.Run("identity updates", func(t *testing.T) {
			req := &identityapi.GetIdentityUpdatesRequest{}
			for range many {
				req.Requests = append(req.Requests, &identityapi.GetIdentityUpdatesRequest_Request{InboxId: fmt.Sprintf("%x", random(32))})
			}
			if res := must(c.identity.GetIdentityUpdates(ctx, req))(t); len(res.Responses) != many {
				t.Errorf("%d entries, want %d", len(res.Responses), many)
			}
			for _, id := range []string{"", "0", "zz", strings.Repeat("ab", 1<<20)} {
				_, err := c.identity.GetIdentityUpdates(ctx, &identityapi.GetIdentityUpdatesRequest{
					Requests: []*identityapi.GetIdentityUpdatesRequest_Request{{InboxId: id}},
				})
				if err != nil {
					wantCode(t, err, codes.InvalidArgument)
				}
			}
		})
		t.Run("filters", func(t *testing.T) {
			streamCtx, cancel := context.WithCancel(ctx)
			defer cancel()
			filters := make([]filter, many)
			for i := range filters {
				filters[i] = filter{topic: newGroupID(), cursor: uint64(i)}
			}
			must(groupLog.open(streamCtx, c, filters...))(t)
		})
		t.Run("contract signatures", func(t *testing.T) {
			req := &identityapi.VerifySmartContractWalletSignaturesRequest{}
			for range 1000 {
				req.Signatures = append(req.Signatures, &identityapi.VerifySmartContractWalletSignatureRequestSignature{
					AccountId: strings.Repeat("eip155:", 1000), Signature: random(1000), Hash: random(32)})
			}
			if res := must(c.identity.VerifySmartContractWalletSignatures(ctx, req))(t); len(res.Responses) != 1000 {
				t.Errorf("%d entries, want 1000", len(res.Responses))
			}
		})
		t.Run("unknown commit logs", func(t *testing.T) {
			for _, n := range []int{1, 255, 256, 1 << 20} {
				res := must(c.mls.BatchQueryCommitLog(ctx, &mlsapi.BatchQueryCommitLogRequest{
					Requests: []*mlsapi.QueryCommitLogRequest{{GroupId: make([]byte, n)}},
				}))(t)
				if len(res.Responses) != 1 || len(res.Responses[0].CommitLogEntries) != 0 {
					t.Errorf("got %v", res)
				}
			}
		})
	})
}

// A request that would take many times its size to decode is refused before that.
func TestInflated(t *testing.T) {
	c, ctx := connect(t), short(t)
	const size = 8 << 20
	// An element is two bytes in the request, and a structure when it is decoded.
	list := bytes.Repeat([]byte{0x0a, 0}, size/2)
	update := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), list)
	commit := []byte{0, 1, 0, 1}
	commit = appendVector(commit, newGroupID())
	commit = append(commit, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0, 2, 0, byte(mls.ContentTypeCommit))
	commit = appendVector(commit, bytes.Repeat([]byte{2, 0}, size/2)) // proposals, by reference
	commit = append(append(commit, 0, 1, 0, 1, 0), 1, 0)
	extensions := bytes.Repeat([]byte{0, 10, 0}, size/3)
	keyPackage := appendVector(newKeyPackage(t, newInstallation(t), keyPackageOptions{})[:36], extensions)

	type request struct {
		path string
		body []byte
	}
	requests := []request{{identityapi.IdentityApi_PublishIdentityUpdate_FullMethodName, update}}
	for _, m := range methods(t) {
		requests = append(requests, request{m.path, list})
	}
	for path, message := range map[string]proto.Message{
		mlsapi.MlsApi_SendGroupMessages_FullMethodName: groupRequest(commit),
		mlsapi.MlsApi_UploadKeyPackage_FullMethodName:  uploadRequest(keyPackage),
	} {
		requests = append(requests, request{path, must(proto.Marshal(message))(t)})
	}
	for _, path := range streams {
		requests = append(requests, request{path, list})
	}
	for _, r := range requests {
		t.Run(r.path, func(t *testing.T) {
			c.unchanged(ctx, t, func() {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := c.invoke(ctx, r.path, r.body)
				runtime.ReadMemStats(&after)
				wantCode(t, err, codes.Internal, codes.InvalidArgument)
				// Both ends of the connection hold the request a few times.
				if n := after.TotalAlloc - before.TotalAlloc; n > 8*size {
					t.Errorf("%d MiB were allocated for a request of %d MiB", n>>20, len(r.body)>>20)
				}
			})
		})
	}
}

// Parts of messages that are too long to be kept are refused, and a request for
// more than fits in a response says so.
func TestLongParts(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), long(t)
	refused := func(t *testing.T, _ any, err error) {
		t.Helper()
		wantCode(t, err, codes.InvalidArgument)
	}
	c.unchanged(ctx, t, func() {
		// With what else there is, too much for a response, but not for a request.
		long := make([]byte, maxMessage-8<<10-500)
		input := groupInput(application(newGroupID(), string(make([]byte, 8<<10))))
		input.GetV1().SenderHmac = long
		res, err := c.mls.SendGroupMessages(ctx, &mlsapi.SendGroupMessagesRequest{Messages: []*mlsapi.GroupMessageInput{input}})
		refused(t, res, err)

		welcome := welcomeInput(random(32), make([]byte, 8<<10))
		welcome.GetV1().HpkePublicKey = long
		res, err = c.mls.SendWelcomeMessages(ctx, welcomeRequest(welcome))
		refused(t, res, err)

		for _, entry := range []*mlsapi.PublishCommitLogRequest{
			logEntry(make([]byte, 256), "entry"), logEntry(make([]byte, 1<<20), "entry"), logEntry(newGroupID(), string(make([]byte, 1<<20))),
		} {
			res, err = c.mls.BatchPublishCommitLog(ctx, logRequest(entry))
			refused(t, res, err)
		}

		in := newInbox(t)
		update := in.register(t)
		for len(update.Actions) < 10_000 {
			update.Actions = append(update.Actions, update.Actions[1])
		}
		for len(update.Actions) > 2 {
			_, err = c.publish(ctx, update)
			wantCode(t, err, codes.InvalidArgument, codes.Internal)
			update.Actions = update.Actions[:len(update.Actions)/2]
		}
		in.id = strings.Repeat("ab", 1<<20)
		_, err = c.publish(ctx, in.register(t))
		wantCode(t, err, codes.InvalidArgument, codes.Internal)
		c.wantInboxOf(ctx, t, in.owner.Identifier(), "")
	})

	// Many times what is big, in one request.
	in := newInbox(t)
	must(c.publish(ctx, in.register(t)))(t)
	for range 20 {
		must(c.publish(ctx, in.link(t, newWallet(t))))(t)
	}
	req := &identityapi.GetIdentityUpdatesRequest{}
	for range 5000 {
		req.Requests = append(req.Requests, &identityapi.GetIdentityUpdatesRequest_Request{InboxId: in.id})
	}
	_, err := c.identity.GetIdentityUpdates(ctx, req)
	wantCode(t, err, codes.InvalidArgument, codes.ResourceExhausted)

	group := newGroupID()
	must(c.mls.SendGroupMessages(ctx, groupRequest(application(group, string(make([]byte, 4<<20))))))(t)
	newest := &mlsapi.GetNewestGroupMessageRequest{IncludeContent: true}
	for range 100 {
		newest.GroupIds = append(newest.GroupIds, group)
	}
	_, err = c.mls.GetNewestGroupMessage(ctx, newest)
	wantCode(t, err, codes.InvalidArgument, codes.ResourceExhausted)
	newest.IncludeContent = false
	if res := must(c.mls.GetNewestGroupMessage(ctx, newest))(t); len(res.Responses) != 100 {
		t.Errorf("%d entries, want 100", len(res.Responses))
	}
}

// A call that its caller gave up ends, and what it wrote is there once or not.
func TestCancelled(t *testing.T) {
	t.Parallel()
	var complaints warnings
	n, ctx := start(t, node.Options{Logger: complaints.logger()}), short(t)
	c, group := dial(t, n), newGroupID()
	sent := map[string]bool{}
	for i := range 300 {
		callCtx, cancel := context.WithTimeout(ctx, time.Duration(i)*5*time.Microsecond)
		data := application(group, fmt.Sprint("message ", i))
		sent[string(data)] = true
		_, err := c.mls.SendGroupMessages(callCtx, groupRequest(data))
		cancel()
		if err != nil && status.Code(err) != codes.DeadlineExceeded {
			t.Fatal(err)
		}
	}
	for _, e := range must(groupLog.all(ctx, c, group, 0))(t) {
		if !sent[e.data] {
			t.Fatal("a message is there twice, or was not sent")
		}
		delete(sent, e.data)
	}
	if text := complaints.String(); text != "" {
		t.Errorf("the node complains of its callers:\n%s", text)
	}
}
