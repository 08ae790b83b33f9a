package node_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// logEntry is a commit log entry as a client publishes it. The node doesn't
// read it.
func logEntry(group []byte, text string) *mlsapi.PublishCommitLogRequest {
	return &mlsapi.PublishCommitLogRequest{
		GroupId:                  group,
		SerializedCommitLogEntry: []byte(text),
		Signature:                &associations.RecoverableEd25519Signature{Bytes: random(64), PublicKey: random(32)},
	}
}

func logRequest(entries ...*mlsapi.PublishCommitLogRequest) *mlsapi.BatchPublishCommitLogRequest {
	return &mlsapi.BatchPublishCommitLogRequest{Requests: entries}
}

// C1: at most ten entries are published at once, none is refused, and so is one
// with a field missing; nothing is stored.
func TestC1(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	group := newGroupID()
	many := make([]*mlsapi.PublishCommitLogRequest, 11)
	for i := range many {
		many[i] = logEntry(group, fmt.Sprint("entry ", i))
	}
	noGroup, noEntry, noSignature := logEntry(nil, "entry"), logEntry(group, ""), logEntry(group, "entry")
	noSignature.Signature = nil
	for _, tc := range []struct {
		req  *mlsapi.BatchPublishCommitLogRequest
		text string
	}{
		{logRequest(), "no log entries to publish"},
		{logRequest(many...), "cannot exceed 10 inserts in single batch"},
		{logRequest(many[0], noGroup), "invalid commit log entry"},
		{logRequest(many[0], noEntry), "invalid commit log entry"},
		{logRequest(many[0], noSignature), "invalid commit log entry"},
		{logRequest(many[0], &mlsapi.PublishCommitLogRequest{}), "invalid commit log entry"},
	} {
		c.unchanged(ctx, t, func() {
			_, err := c.mls.BatchPublishCommitLog(ctx, tc.req)
			wantStatus(t, err, codes.InvalidArgument, tc.text)
		})
	}
	must(c.mls.BatchPublishCommitLog(ctx, logRequest(many[:10]...)))(t)
}

// C2: at most twenty queries at once, and each names its group.
func TestC2(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	query := func(asks ...*mlsapi.QueryCommitLogRequest) (*mlsapi.BatchQueryCommitLogResponse, error) {
		return c.mls.BatchQueryCommitLog(ctx, &mlsapi.BatchQueryCommitLogRequest{Requests: asks})
	}
	ask := &mlsapi.QueryCommitLogRequest{GroupId: newGroupID()}
	_, err := query()
	wantStatus(t, err, codes.InvalidArgument, "no requests to query")
	_, err = query(slices.Repeat([]*mlsapi.QueryCommitLogRequest{ask}, 21)...)
	wantStatus(t, err, codes.InvalidArgument, "cannot exceed 20 queries in single batch")
	_, err = query(ask, &mlsapi.QueryCommitLogRequest{})
	wantStatus(t, err, codes.InvalidArgument, "invalid request")
	res := must(query(slices.Repeat([]*mlsapi.QueryCommitLogRequest{ask}, 20)...))(t)
	if len(res.Responses) != 20 {
		t.Errorf("%d responses, want 20", len(res.Responses))
	}
}

// C3: entries come back ascending and whole, one response a query with its group
// id; the cursor is set while a page is full. Equal entries are all kept.
func TestC3(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	group, other, unknown := newGroupID(), newGroupID(), newGroupID()
	sent := []*mlsapi.PublishCommitLogRequest{logEntry(group, "one"), logEntry(group, "two"), logEntry(group, "three")}
	sent = append(sent, sent[0])
	must(c.mls.BatchPublishCommitLog(ctx, logRequest(append(sent, logEntry(other, "other"))...)))(t)

	query := func(id []byte, paging *mlsapi.PagingInfo) *mlsapi.QueryCommitLogResponse {
		t.Helper()
		res := must(c.mls.BatchQueryCommitLog(ctx, &mlsapi.BatchQueryCommitLogRequest{Requests: []*mlsapi.QueryCommitLogRequest{
			{GroupId: unknown}, {GroupId: id, PagingInfo: paging}, {GroupId: other},
		}}))(t)
		if len(res.Responses) != 3 || len(res.Responses[0].CommitLogEntries) != 0 || len(res.Responses[2].CommitLogEntries) != 1 ||
			!bytes.Equal(res.Responses[0].GroupId, unknown) || !bytes.Equal(res.Responses[1].GroupId, id) {
			t.Fatalf("got %v", res)
		}
		return res.Responses[1]
	}
	for _, paging := range []*mlsapi.PagingInfo{nil, {}, {Direction: ascending, Limit: 100}} {
		got := query(group, paging)
		if len(got.CommitLogEntries) != len(sent) {
			t.Fatalf("%d entries, want %d", len(got.CommitLogEntries), len(sent))
		}
		var last uint64
		for i, e := range got.CommitLogEntries {
			want := &mlscontents.CommitLogEntry{
				SequenceId:               e.SequenceId,
				SerializedCommitLogEntry: sent[i].SerializedCommitLogEntry,
				Signature:                sent[i].Signature,
			}
			if e.SequenceId <= last || !proto.Equal(e, want) {
				t.Errorf("entry %d after %d: got %v, want %v", i, last, e, want)
			}
			last = e.SequenceId
		}
		if p := got.PagingInfo; p.GetDirection() != ascending || p.GetLimit() != 100 || p.GetIdCursor() != 0 {
			t.Errorf("paging %v", p)
		}
	}
	first := query(group, &mlsapi.PagingInfo{Limit: 3})
	if p := first.PagingInfo; len(first.CommitLogEntries) != 3 || p.Limit != 3 || p.IdCursor != first.CommitLogEntries[2].SequenceId {
		t.Errorf("the first page: %d entries, paging %v", len(first.CommitLogEntries), p)
	}
	rest := query(group, &mlsapi.PagingInfo{Limit: 3, IdCursor: first.PagingInfo.IdCursor})
	if len(rest.CommitLogEntries) != 1 || rest.PagingInfo.IdCursor != 0 {
		t.Errorf("the second page: %d entries, paging %v", len(rest.CommitLogEntries), rest.PagingInfo)
	}
}

// C4: the commit log is not queried downwards.
func TestC4(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	_, err := c.mls.BatchQueryCommitLog(ctx, &mlsapi.BatchQueryCommitLogRequest{Requests: []*mlsapi.QueryCommitLogRequest{
		{GroupId: newGroupID(), PagingInfo: &mlsapi.PagingInfo{Direction: descending}},
	}})
	wantCode(t, err, codes.Internal, codes.InvalidArgument)
}

// clock is a node's clock that stands still until a test moves it.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ns.Store(time.Now().UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

// L1: with limits on, 3,001 messages from one address are too many; the text
// says so. Reading has a limit of its own, and tokens come back with time.
func TestL1(t *testing.T) {
	t.Parallel()
	clk := newClock()
	n, ctx := start(t, node.Options{Limits: node.Limits{Rates: true}, Now: clk.now}), short(t)
	c, other := dial(t, n), dial(t, n)
	group := newGroupID()
	batch := make([][]byte, 3001)
	for i := range batch {
		batch[i] = application(group, fmt.Sprint("message ", i))
	}
	_, err := c.mls.SendGroupMessages(ctx, groupRequest(batch...))
	wantStatus(t, err, codes.ResourceExhausted, "3001 exceeds rate limit R127.0.0.1PUB")
	must(c.mls.SendGroupMessages(ctx, groupRequest(batch[:2999]...)))(t)
	must(c.publish(ctx, newInbox(t).register(t)))(t)

	for _, c := range []*client{c, other} {
		_, err = c.mls.SendGroupMessages(ctx, groupRequest(batch[0], batch[1], batch[2]))
		wantCode(t, err, codes.ResourceExhausted)
		_, err = c.mls.SendWelcomeMessages(ctx, welcomeRequest(welcomeInput(random(32), random(9)), welcomeInput(random(32), random(9)), welcomeInput(random(32), random(9))))
		wantCode(t, err, codes.ResourceExhausted)
	}
	if all := must(groupLog.all(ctx, other, group, 0))(t); len(all) != 2999 {
		t.Errorf("%d messages, want 2999", len(all))
	}
	clk.advance(time.Minute)
	must(c.mls.SendGroupMessages(ctx, groupRequest(batch[:600]...)))(t)
	_, err = c.mls.SendGroupMessages(ctx, groupRequest(batch[:600]...))
	wantCode(t, err, codes.ResourceExhausted)
}

// Without limits nothing is refused.
func TestL1_Off(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	group := newGroupID()
	if err := groupLog.fill(ctx, c, group, 0, 3100); err != nil {
		t.Fatal(err)
	}
}

// L2: with publishing disabled, every write is UNAVAILABLE with the text that
// clients know; reads and streams work.
func TestL2(t *testing.T) {
	t.Parallel()
	ctx := short(t)
	options := node.Options{Data: t.TempDir()}
	n := must(launch(options))(t)
	c := dial(t, n)
	group, in, key := newGroupID(), newInbox(t), newInstallation(t)
	kp := newKeyPackage(t, key, keyPackageOptions{})
	registered := in.register(t)
	must(c.mls.SendGroupMessages(ctx, groupRequest(application(group, "before"))))(t)
	must(c.publish(ctx, registered))(t)
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(kp)))(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}

	options.ReadOnly = true
	c = dial(t, start(t, options))
	upload := uploadRequest(newKeyPackage(t, key, keyPackageOptions{}))
	for name, write := range map[string]func() error{
		"SendGroupMessages": func() error {
			_, err := c.mls.SendGroupMessages(ctx, groupRequest(application(group, "after")))
			return err
		},
		"SendWelcomeMessages": func() error {
			_, err := c.mls.SendWelcomeMessages(ctx, welcomeRequest(welcomeInput(random(32), random(9))))
			return err
		},
		"UploadKeyPackage": func() error {
			_, err := c.mls.UploadKeyPackage(ctx, upload)
			return err
		},
		"RegisterInstallation": func() error {
			_, err := c.mls.RegisterInstallation(ctx, &mlsapi.RegisterInstallationRequest{KeyPackage: upload.KeyPackage})
			return err
		},
		"PublishIdentityUpdate": func() error {
			_, err := c.publish(ctx, in.link(t, newWallet(t)))
			return err
		},
		"BatchPublishCommitLog": func() error {
			_, err := c.mls.BatchPublishCommitLog(ctx, logRequest(logEntry(group, "after")))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			wantStatus(t, write(), codes.Unavailable,
				"publishing to XMTP V3 is no longer available. Please upgrade your client to XMTP D14N.")
		})
	}
	if all := must(groupLog.all(ctx, c, group, 0))(t); len(all) != 1 {
		t.Errorf("%d messages, want 1", len(all))
	}
	c.wantUpdates(ctx, t, in.id, registered)
	c.wantInboxOf(ctx, t, in.owner.Identifier(), in.id)
	c.wantFetched(t, [][]byte{publicKey(key)}, kp)
	s := must(groupLog.open(ctx, c, filter{topic: group}))(t)
	if e := must(s.next())(t); e.data != string(application(group, "before")) {
		t.Errorf("the stream has %q", e.data)
	}
}

// R1: calls that are offered no more are UNIMPLEMENTED.
func TestR1(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	_, err := c.mls.RevokeInstallation(ctx, &mlsapi.RevokeInstallationRequest{InstallationKey: random(32)})
	wantCode(t, err, codes.Unimplemented)
	_, err = c.mls.GetIdentityUpdates(ctx, &mlsapi.GetIdentityUpdatesRequest{AccountAddresses: []string{"0x"}})
	wantCode(t, err, codes.Unimplemented)
}
