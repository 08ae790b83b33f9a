// The tests of this package drive a node from outside, as clients do. TestT1,
// TestI3 and so on are the rows of the node's conformance checklist.
package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// proof is true in the long tier: the same tests, longer and bigger.
var proof = os.Getenv("XMTP_PROOF") != ""

// scaled is a size for the fast tier and one for the long tier.
func scaled[T any](fast, long T) T {
	if proof {
		return long
	}
	return fast
}

// maxMessage is the biggest response that official clients take.
const maxMessage = 25 << 20

// start runs a node until the test ends, in memory unless the options name a directory.
func start(t testing.TB, options node.Options) *node.Node {
	t.Helper()
	n, err := launch(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error("closing the node:", err)
		}
	})
	return n
}

func launch(options node.Options) (*node.Node, error) {
	options.Listen = "127.0.0.1:0"
	options.Ephemeral = options.Data == ""
	return node.Start(context.Background(), options)
}

// client is one connection to a node.
type client struct {
	mls      mlsapi.MlsApiClient
	identity identityapi.IdentityApiClient
	conn     *grpc.ClientConn
}

// dial connects to the node until the test ends. There is no node if the options tell
// how to reach it.
func dial(t testing.TB, n *node.Node, options ...grpc.DialOption) *client {
	t.Helper()
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(4*maxMessage)),
	}, options...)
	addr := "within the process"
	if n != nil {
		addr = n.Addr()
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{mlsapi.NewMlsApiClient(conn), identityapi.NewIdentityApiClient(conn), conn}
}

// connect is a connection to a node of the test's own.
func connect(t testing.TB) *client {
	t.Helper()
	return dial(t, start(t, node.Options{}))
}

// within bounds a test, so that what never comes fails instead of hanging.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// short bounds a test of a few calls. It is generous, for slow machines.
func short(t testing.TB) context.Context { return within(t, time.Minute) }

// long bounds a test of many calls.
func long(t testing.TB) context.Context { return within(t, scaled(2*time.Minute, 30*time.Minute)) }

// must is for calls that have to succeed.
func must[T any](result T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
}

// wantCode fails unless the error has one of the codes.
func wantCode(t testing.TB, err error, want ...codes.Code) {
	t.Helper()
	got := status.Code(err)
	for _, code := range want {
		if got == code {
			return
		}
	}
	t.Errorf("got %v, want %v", err, want)
}

// wantStatus fails unless the error has the code and the text.
func wantStatus(t testing.TB, err error, code codes.Code, text string) {
	t.Helper()
	if s, _ := status.FromError(err); s.Code() != code || s.Message() != text {
		t.Errorf("got %v, want %v %q", err, code, text)
	}
}

// eventually waits for what can only be seen by looking again and again.
func eventually(t testing.TB, what string, seen func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !seen() {
		if time.Now().After(deadline) {
			t.Fatal("still not so:", what)
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
}

// warnings is a logger of the node that keeps what is worse than information.
type warnings struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *warnings) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *warnings) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func (w *warnings) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// random returns n bytes that nobody else has.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func newGroupID() []byte         { return random(16) }
func newInstallationKey() []byte { return random(32) }

// appendVector appends bytes with their length, as in RFC 9420 §2.1.2.
func appendVector(b, v []byte) []byte {
	switch n := len(v); {
	case n < 1<<6:
		b = append(b, byte(n))
	case n < 1<<14:
		b = binary.BigEndian.AppendUint16(b, uint16(n)|1<<14)
	default:
		b = binary.BigEndian.AppendUint32(b, uint32(n)|1<<31)
	}
	return append(b, v...)
}

// privateMessage is an MLSMessage with a PrivateMessage (RFC 9420 §6.3), whose
// ciphertext nobody can open.
func privateMessage(group []byte, content mls.ContentType, ciphertext []byte) []byte {
	b := []byte{0, 1, 0, 2}
	b = appendVector(b, group)
	b = binary.BigEndian.AppendUint64(b, 7) // epoch
	b = append(b, byte(content))
	b = appendVector(b, nil)              // authenticated data
	b = appendVector(b, make([]byte, 28)) // encrypted sender data
	return appendVector(b, ciphertext)
}

// application is a group message that says who it is.
func application(group []byte, name string) []byte {
	return privateMessage(group, mls.ContentTypeApplication, []byte(name))
}

// groupInput is what is sent for a group message.
func groupInput(data []byte) *mlsapi.GroupMessageInput {
	return &mlsapi.GroupMessageInput{Version: &mlsapi.GroupMessageInput_V1_{V1: &mlsapi.GroupMessageInput_V1{Data: data}}}
}

func groupRequest(data ...[]byte) *mlsapi.SendGroupMessagesRequest {
	req := &mlsapi.SendGroupMessagesRequest{}
	for _, d := range data {
		req.Messages = append(req.Messages, groupInput(d))
	}
	return req
}

const (
	curve25519   = mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_CURVE25519
	xwing        = mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_XWING_MLKEM_768_DRAFT_6
	symmetricKey = mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_SYMMETRIC_KEY
	pointerXWing = mlscontents.WelcomePointerWrapperAlgorithm_WELCOME_POINTER_WRAPPER_ALGORITHM_XWING_MLKEM_768_DRAFT_6

	ascending  = mlsapi.SortDirection_SORT_DIRECTION_ASCENDING
	descending = mlsapi.SortDirection_SORT_DIRECTION_DESCENDING
)

// welcomeInput is a welcome as an official client sends it.
func welcomeInput(installation, data []byte) *mlsapi.WelcomeMessageInput {
	return &mlsapi.WelcomeMessageInput{Version: &mlsapi.WelcomeMessageInput_V1_{V1: &mlsapi.WelcomeMessageInput_V1{
		InstallationKey:  installation,
		Data:             data,
		HpkePublicKey:    bytes.Repeat([]byte{5}, 1216),
		WrapperAlgorithm: xwing,
		WelcomeMetadata:  []byte("metadata"),
	}}}
}

func welcomeRequest(messages ...*mlsapi.WelcomeMessageInput) *mlsapi.SendWelcomeMessagesRequest {
	return &mlsapi.SendWelcomeMessagesRequest{Messages: messages}
}

// entry is what group messages and welcomes have in common.
type entry struct {
	id, created uint64
	topic, data string
}

// A log is a kind of topic with paging and streams: group messages or welcomes.
type log struct {
	name  string
	topic func() []byte
	// payload is what is stored under a name; it is unique to topic and name.
	payload func(topic []byte, name string) []byte
	send    func(ctx context.Context, c *client, topic []byte, payloads ...[]byte) error
	page    func(ctx context.Context, c *client, topic []byte, ask *mlsapi.PagingInfo) ([]entry, *mlsapi.PagingInfo, error)
	// subscribe opens a stream from the cursors and returns how to read it.
	subscribe func(ctx context.Context, c *client, filters ...filter) (stream, error)
}

type filter struct {
	topic  []byte
	cursor uint64
}

// stream is an open subscription.
type stream struct {
	grpc.ClientStream
	next func() (entry, error)
}

var groupLog = log{
	name:    "group",
	topic:   newGroupID,
	payload: application,
	send: func(ctx context.Context, c *client, _ []byte, payloads ...[]byte) error {
		_, err := c.mls.SendGroupMessages(ctx, groupRequest(payloads...))
		return err
	},
	page: func(ctx context.Context, c *client, topic []byte, ask *mlsapi.PagingInfo) ([]entry, *mlsapi.PagingInfo, error) {
		res, err := c.mls.QueryGroupMessages(ctx, &mlsapi.QueryGroupMessagesRequest{GroupId: topic, PagingInfo: ask})
		if err != nil {
			return nil, nil, err
		}
		entries := make([]entry, len(res.Messages))
		for i, m := range res.Messages {
			entries[i] = groupEntry(m)
		}
		return entries, res.PagingInfo, nil
	},
	subscribe: func(ctx context.Context, c *client, filters ...filter) (stream, error) {
		req := &mlsapi.SubscribeGroupMessagesRequest{}
		for _, f := range filters {
			req.Filters = append(req.Filters, &mlsapi.SubscribeGroupMessagesRequest_Filter{GroupId: f.topic, IdCursor: f.cursor})
		}
		s, err := c.mls.SubscribeGroupMessages(ctx, req)
		if err != nil {
			return stream{}, err
		}
		return stream{s, func() (entry, error) {
			m, err := s.Recv()
			return groupEntry(m), err
		}}, nil
	},
}

var welcomeLog = log{
	name:    "welcome",
	topic:   newInstallationKey,
	payload: func(_ []byte, name string) []byte { return []byte(name) },
	send: func(ctx context.Context, c *client, topic []byte, payloads ...[]byte) error {
		req := &mlsapi.SendWelcomeMessagesRequest{}
		for _, p := range payloads {
			req.Messages = append(req.Messages, welcomeInput(topic, p))
		}
		_, err := c.mls.SendWelcomeMessages(ctx, req)
		return err
	},
	page: func(ctx context.Context, c *client, topic []byte, ask *mlsapi.PagingInfo) ([]entry, *mlsapi.PagingInfo, error) {
		res, err := c.mls.QueryWelcomeMessages(ctx, &mlsapi.QueryWelcomeMessagesRequest{InstallationKey: topic, PagingInfo: ask})
		if err != nil {
			return nil, nil, err
		}
		entries := make([]entry, len(res.Messages))
		for i, m := range res.Messages {
			entries[i] = welcomeEntry(m)
		}
		return entries, res.PagingInfo, nil
	},
	subscribe: func(ctx context.Context, c *client, filters ...filter) (stream, error) {
		req := &mlsapi.SubscribeWelcomeMessagesRequest{}
		for _, f := range filters {
			req.Filters = append(req.Filters, &mlsapi.SubscribeWelcomeMessagesRequest_Filter{InstallationKey: f.topic, IdCursor: f.cursor})
		}
		s, err := c.mls.SubscribeWelcomeMessages(ctx, req)
		if err != nil {
			return stream{}, err
		}
		return stream{s, func() (entry, error) {
			m, err := s.Recv()
			return welcomeEntry(m), err
		}}, nil
	},
}

func groupEntry(m *mlsapi.GroupMessage) entry {
	v1 := m.GetV1()
	return entry{v1.GetId(), v1.GetCreatedNs(), string(v1.GetGroupId()), string(v1.GetData())}
}

func welcomeEntry(m *mlsapi.WelcomeMessage) entry {
	if p := m.GetWelcomePointer(); p != nil {
		return entry{p.Id, p.CreatedNs, string(p.InstallationKey), string(p.WelcomePointer)}
	}
	v1 := m.GetV1()
	return entry{v1.GetId(), v1.GetCreatedNs(), string(v1.GetInstallationKey()), string(v1.GetData())}
}

// fill sends n messages to a topic, which say their number, from a number on.
func (l *log) fill(ctx context.Context, c *client, topic []byte, from, n int) error {
	const batch = 50
	for n > 0 {
		var payloads [][]byte
		for range min(n, batch) {
			payloads = append(payloads, l.payload(topic, fmt.Sprintf("message %d", from)))
			from++
		}
		if err := l.send(ctx, c, topic, payloads...); err != nil {
			return err
		}
		n -= len(payloads)
	}
	return nil
}

// all reads a topic from a cursor to its end, as clients do.
func (l *log) all(ctx context.Context, c *client, topic []byte, cursor uint64) ([]entry, error) {
	var all []entry
	for {
		page, paging, err := l.page(ctx, c, topic, &mlsapi.PagingInfo{Direction: ascending, Limit: 100, IdCursor: cursor})
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if paging.GetIdCursor() == 0 {
			return all, nil
		}
		cursor = paging.IdCursor
	}
}

// bothLogs runs a test for group messages and for welcomes.
func bothLogs(t *testing.T, test func(t *testing.T, l *log)) {
	for _, l := range []*log{&groupLog, &welcomeLog} {
		t.Run(l.name, func(t *testing.T) { test(t, l) })
	}
}

// open subscribes and waits until the stream is open.
func (l *log) open(ctx context.Context, c *client, filters ...filter) (stream, error) {
	s, err := l.subscribe(ctx, c, filters...)
	if err != nil {
		return s, err
	}
	header, err := s.Header()
	if err == nil && header == nil { // it has ended without
		_, err = s.next()
	}
	return s, err
}

// until reads the stream up to, and without, a message with the payload.
func (s stream) until(payload []byte) ([]entry, error) {
	var entries []entry
	for {
		e, err := s.next()
		if err != nil {
			return entries, fmt.Errorf("after %d messages: %w", len(entries), err)
		}
		if e.data == string(payload) {
			return entries, nil
		}
		entries = append(entries, e)
	}
}

// wantEntries compares long lists and shows where they part.
func wantEntries(t testing.TB, what string, got, want []entry) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("%s: message %d has id %d, want %d", what, i, got[i].id, want[i].id)
			return
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d messages, want %d", what, len(got), len(want))
	}
}

// number is the number that the node gives next: it tells whether anything has
// been stored in between.
func (c *client) number(ctx context.Context, t testing.TB) uint64 {
	t.Helper()
	group := newGroupID()
	must(c.mls.SendGroupMessages(ctx, groupRequest(application(group, "a probe"))))(t)
	entries, _, err := groupLog.page(ctx, c, group, nil)
	if err != nil || len(entries) != 1 {
		t.Fatalf("the node does not serve any more: %d messages, %v", len(entries), err)
	}
	return entries[0].id
}

// unchanged fails if do stored anything, or if the node doesn't serve after it.
func (c *client) unchanged(ctx context.Context, t testing.TB, do func()) {
	t.Helper()
	before := c.number(ctx, t)
	do()
	if after := c.number(ctx, t); after != before+1 {
		t.Errorf("%d records were stored", after-before-1)
	}
}
