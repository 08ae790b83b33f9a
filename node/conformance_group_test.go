package node_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// G1: a request to send nothing, or an element without version, is refused.
func TestG1(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	good := groupInput(application(newGroupID(), "good"))
	c.unchanged(ctx, t, func() {
		_, err := c.mls.SendGroupMessages(ctx, &mlsapi.SendGroupMessagesRequest{})
		wantStatus(t, err, codes.InvalidArgument, "no group messages to send")
		_, err = c.mls.SendGroupMessages(ctx, &mlsapi.SendGroupMessagesRequest{
			Messages: []*mlsapi.GroupMessageInput{good, {}},
		})
		wantStatus(t, err, codes.InvalidArgument, "invalid group message")
	})
}

// publicProposal is an MLSMessage with a PublicMessage that proposes a removal.
func publicProposal(group []byte) []byte {
	b := []byte{0, 1, 0, 1}
	b = appendVector(b, group)
	b = binary.BigEndian.AppendUint64(b, 7) // epoch
	b = append(b, 1, 0, 0, 0, 2)            // sender: member 2
	b = appendVector(b, nil)                // authenticated data
	b = append(b, byte(mls.ContentTypeProposal), 0, 3, 0, 0, 0, 1)
	b = appendVector(b, make([]byte, 64))    // signature
	return appendVector(b, make([]byte, 32)) // membership tag
}

// publicCommit is an MLSMessage with a PublicMessage that commits to nothing.
func publicCommit(group []byte) []byte {
	b := []byte{0, 1, 0, 1}
	b = appendVector(b, group)
	b = binary.BigEndian.AppendUint64(b, 7)
	b = append(b, 1, 0, 0, 0, 2)
	b = appendVector(b, nil)
	b = append(b, byte(mls.ContentTypeCommit))
	b = appendVector(b, nil) // proposals
	b = append(b, 0)         // no path
	b = appendVector(b, make([]byte, 64))
	b = appendVector(b, make([]byte, 32))    // confirmation tag
	return appendVector(b, make([]byte, 32)) // membership tag
}

// otherMessages are MLSMessages that are of no group, and bytes that are none.
func otherMessages(t testing.TB) map[string][]byte {
	keyPackage := newKeyPackage(t, newInstallation(t), keyPackageOptions{})
	welcome := appendVector(appendVector([]byte{0, 1, 0, 3, 0, 3}, nil), []byte("group info"))
	group := newGroupID()
	groupInfo := append([]byte{0, 1, 0, 4, 0, 1, 0, 3}, appendVector(nil, group)...)
	groupInfo = append(groupInfo, make([]byte, 8)...)                              // epoch
	groupInfo = appendVector(appendVector(appendVector(groupInfo, nil), nil), nil) // hashes, extensions
	groupInfo = appendVector(appendVector(groupInfo, nil), make([]byte, 32))       // extensions, tag
	groupInfo = appendVector(append(groupInfo, 0, 0, 0, 0), make([]byte, 64))      // signer, signature
	return map[string][]byte{
		"garbage":           []byte("no message of MLS"),
		"random":            random(300),
		"empty":             {},
		"a welcome":         welcome,
		"a group info":      groupInfo,
		"a key package":     append([]byte{0, 1, 0, 5}, keyPackage...),
		"cut short":         application(group, "cut short")[:30],
		"of version 2":      append([]byte{0, 2}, application(group, "v2")[2:]...),
		"of format 6":       append([]byte{0, 1, 0, 6}, application(group, "f6")[4:]...),
		"of content type 0": privateMessage(group, 0, []byte("x")),
		"of content type 4": privateMessage(group, 4, []byte("x")),
	}
}

// G2: one message that is no group message refuses the request; nothing of it is stored.
func TestG2(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	for name, bad := range otherMessages(t) {
		t.Run(name, func(t *testing.T) {
			c.unchanged(ctx, t, func() {
				_, err := c.mls.SendGroupMessages(ctx, groupRequest(application(newGroupID(), "good"), bad))
				wantCode(t, err, codes.InvalidArgument)
			})
		})
	}
}

// G3: applications, proposals and commits are stored with the group id of their
// framing; commits and proposals are marked.
func TestG3(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	group := newGroupID()
	sent := []struct {
		data   []byte
		commit bool
	}{
		{privateMessage(group, mls.ContentTypeApplication, []byte("application")), false},
		{privateMessage(group, mls.ContentTypeProposal, []byte("proposal")), true},
		{privateMessage(group, mls.ContentTypeCommit, []byte("commit")), true},
		{publicProposal(group), true},
		{publicCommit(group), true},
	}
	before := time.Now().Add(-time.Second)
	for _, s := range sent {
		must(c.mls.SendGroupMessages(ctx, groupRequest(s.data)))(t)
	}
	res := must(c.mls.QueryGroupMessages(ctx, &mlsapi.QueryGroupMessagesRequest{
		GroupId: group, PagingInfo: &mlsapi.PagingInfo{Direction: ascending},
	}))(t)
	if len(res.Messages) != len(sent) {
		t.Fatalf("%d messages, want %d", len(res.Messages), len(sent))
	}
	var last uint64
	for i, m := range res.Messages {
		v1 := m.GetV1()
		if !bytes.Equal(v1.Data, sent[i].data) || v1.IsCommit != sent[i].commit || !bytes.Equal(v1.GroupId, group) {
			t.Errorf("message %d: got %v", i, v1)
		}
		if v1.Id == 0 || v1.CreatedNs <= last || v1.CreatedNs < uint64(before.UnixNano()) || v1.CreatedNs > uint64(time.Now().Add(time.Second).UnixNano()) {
			t.Errorf("message %d: id %d, created %d after %d", i, v1.Id, v1.CreatedNs, last)
		}
		last = v1.CreatedNs
	}
}

// Who asks for it learns with the answer what a query would tell; nobody else does.
func TestReadAfter(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	group := newGroupID()
	send := func(after *uint64, data ...[]byte) []byte {
		request := groupRequest(data...)
		request.ReadAfter = after
		return must(c.mls.SendGroupMessages(ctx, request))(t).ProtoReflect().GetUnknown()
	}
	want := func(page []byte, cursor uint64, messages int) (last uint64) {
		t.Helper()
		var got mlsapi.QueryGroupMessagesResponse
		if err := proto.Unmarshal(page, &got); err != nil {
			t.Fatal(err)
		}
		asked := must(c.mls.QueryGroupMessages(ctx, &mlsapi.QueryGroupMessagesRequest{
			GroupId: group, PagingInfo: &mlsapi.PagingInfo{Direction: ascending, IdCursor: cursor},
		}))(t)
		if diff := cmp.Diff(asked, &got, protocmp.Transform()); diff != "" || len(got.Messages) != messages {
			t.Errorf("%d messages, want %d: %s", len(got.Messages), messages, diff)
		}
		return got.Messages[len(got.Messages)-1].GetV1().Id
	}
	text := func(i int) []byte {
		return privateMessage(group, mls.ContentTypeApplication, fmt.Append(nil, "text ", i))
	}
	if page := send(nil, text(0)); len(page) > 0 {
		t.Errorf("%x for one who hasn't asked", page)
	}
	last := want(send(new(uint64(0)), text(1)), 0, 2)
	last = want(send(&last, text(2), privateMessage(newGroupID(), mls.ContentTypeApplication, []byte("of another group"))), last, 1)
	last = want(send(&last, text(3), text(4)), last, 2)
	want(send(new(uint64(0)), text(1)), 0, 5) // which is there already
	for i := 5; i < 120; i++ {
		send(nil, text(i))
	}
	want(send(&last, text(120)), last, 100) // the first page
}

// storedOnce sends the same payload again and again, at last from many at once.
func storedOnce(t *testing.T, l *log) {
	c, ctx := connect(t), short(t)
	topic := l.topic()
	payload := l.payload(topic, "the same")
	for range 2 {
		if err := l.send(ctx, c, topic, payload); err != nil {
			t.Fatal(err)
		}
	}
	first := must(l.all(ctx, c, topic, 0))(t)
	if len(first) != 1 {
		t.Fatalf("%d messages, want 1", len(first))
	}
	fresh := l.payload(topic, "the same to be")
	var group errgroup.Group
	for range 16 {
		group.Go(func() error { return l.send(ctx, c, topic, payload, fresh, fresh) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	all := must(l.all(ctx, c, topic, 0))(t)
	if len(all) != 2 || all[0] != first[0] || all[1].data != string(fresh) {
		t.Errorf("got %d messages with first id %d, want 2 with %d", len(all), all[0].id, first[0].id)
	}
	// Another topic may hold the same.
	other := l.topic()
	if err := l.send(ctx, c, other, l.payload(other, "the same")); err != nil {
		t.Fatal(err)
	}
	if n := len(must(l.all(ctx, c, other, 0))(t)); n != 1 {
		t.Errorf("%d messages in the other topic, want 1", n)
	}
}

// G4: the same bytes sent twice, also at once, succeed and are stored once, with the first id.
func TestG4(t *testing.T) {
	t.Parallel()
	storedOnce(t, &groupLog)
}

// G5: the ids of a batch ascend in the order of the request.
func TestG5(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	groups := [][]byte{newGroupID(), newGroupID(), newGroupID()}
	var batch [][]byte
	for i := range 200 {
		batch = append(batch, application(groups[i%len(groups)], fmt.Sprint("message ", i)))
	}
	must(c.mls.SendGroupMessages(ctx, groupRequest(batch...)))(t)
	ids := map[string]uint64{}
	for _, g := range groups {
		for _, e := range must(groupLog.all(ctx, c, g, 0))(t) {
			ids[e.data] = e.id
		}
	}
	if len(ids) != len(batch) {
		t.Fatalf("%d messages, want %d", len(ids), len(batch))
	}
	var last uint64
	for i, data := range batch {
		if id := ids[string(data)]; id <= last {
			t.Fatalf("message %d has id %d after %d", i, id, last)
		} else {
			last = id
		}
	}
}

// G6: what was sent is in the next query, on the same and on another connection.
func TestG6(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{}), short(t)
	writer, reader := dial(t, n), dial(t, n)
	group := newGroupID()
	for i := range 200 {
		data := application(group, fmt.Sprint("message ", i))
		must(writer.mls.SendGroupMessages(ctx, groupRequest(data)))(t)
		for _, c := range []*client{writer, reader} {
			entries, _, err := groupLog.page(ctx, c, group, &mlsapi.PagingInfo{Limit: 1})
			if err != nil || len(entries) != 1 || entries[0].data != string(data) {
				t.Fatalf("message %d is not there: %d messages, %v", i, len(entries), err)
			}
		}
	}
}

// paged is a topic of a log with n messages, oldest first.
type paged struct {
	*log
	*client
	topic   []byte
	entries []entry
}

func newPaged(ctx context.Context, t testing.TB, l *log, n int) *paged {
	t.Helper()
	p := &paged{log: l, client: connect(t), topic: l.topic()}
	// Neighbours, which must not be seen.
	for _, i := range []int{0, len(p.topic) - 1} {
		neighbour := bytes.Clone(p.topic)
		neighbour[i] ^= 1
		if err := l.fill(ctx, p.client, neighbour, 0, 3); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.fill(ctx, p.client, p.topic, 0, n); err != nil {
		t.Fatal(err)
	}
	p.entries = must(l.all(ctx, p.client, p.topic, 0))(t)
	if len(p.entries) != n {
		t.Fatalf("%d messages, want %d", len(p.entries), n)
	}
	for i, e := range p.entries {
		if want := string(l.payload(p.topic, fmt.Sprint("message ", i))); e.data != want {
			t.Fatalf("message %d has another one's place", i)
		}
		if i > 0 && (e.id <= p.entries[i-1].id || e.created <= p.entries[i-1].created) {
			t.Fatalf("message %d has id %d after %d", i, e.id, p.entries[i-1].id)
		}
	}
	return p
}

// want asks for a page and compares everything in the answer.
func (p *paged) want(ctx context.Context, t testing.TB, ask *mlsapi.PagingInfo, want []entry, direction mlsapi.SortDirection, limit uint32, cursor uint64) {
	t.Helper()
	got, paging, err := p.page(ctx, p.client, p.topic, ask)
	if err != nil {
		t.Error(err)
		return
	}
	wantEntries(t, fmt.Sprint("page ", ask), got, want)
	if paging.GetDirection() != direction || paging.GetLimit() != limit || paging.GetIdCursor() != cursor {
		t.Errorf("page %v: got paging %v, want %v, limit %d, cursor %d", ask, paging, direction, limit, cursor)
	}
}

// reversed are the last n entries, newest first.
func reversed(entries []entry, n int) []entry {
	last := slices.Clone(entries[len(entries)-n:])
	slices.Reverse(last)
	return last
}

// Without paging info: newest first, at most 100.
func pagingDefault(t *testing.T, l *log) {
	ctx := short(t)
	p := newPaged(ctx, t, l, 130)
	p.want(ctx, t, nil, reversed(p.entries, 100), descending, 100, p.entries[30].id)
	p.want(ctx, t, &mlsapi.PagingInfo{}, reversed(p.entries, 100), descending, 100, p.entries[30].id)
	p.want(ctx, t, &mlsapi.PagingInfo{Direction: 7}, reversed(p.entries, 100), descending, 100, p.entries[30].id)
}

// Upwards with limit 100 on 250 messages: 100, 100, 50, and the cursor is the last id while a page is full.
func pagingUp(t *testing.T, l *log) {
	ctx := short(t)
	p := newPaged(ctx, t, l, 250)
	up := func(cursor uint64) *mlsapi.PagingInfo {
		return &mlsapi.PagingInfo{Direction: ascending, Limit: 100, IdCursor: cursor}
	}
	p.want(ctx, t, up(0), p.entries[:100], ascending, 100, p.entries[99].id)
	p.want(ctx, t, up(p.entries[99].id), p.entries[100:200], ascending, 100, p.entries[199].id)
	p.want(ctx, t, up(p.entries[199].id), p.entries[200:], ascending, 100, 0)
	p.want(ctx, t, up(p.entries[249].id), nil, ascending, 100, 0)
	p.want(ctx, t, up(1<<63), nil, ascending, 100, 0)
	p.want(ctx, t, up(1<<64-1), nil, ascending, 100, 0)
}

// Limits out of range behave as 100.
func pagingLimits(t *testing.T, l *log) {
	ctx := short(t)
	p := newPaged(ctx, t, l, 110)
	for _, limit := range []uint32{0, 100, 101, 1 << 31, 1<<32 - 1} {
		p.want(ctx, t, &mlsapi.PagingInfo{Direction: ascending, Limit: limit}, p.entries[:100], ascending, 100, p.entries[99].id)
	}
}

// A limit of 10 gives 10, a limit of 1 gives the newest.
func pagingSmall(t *testing.T, l *log) {
	ctx := short(t)
	p := newPaged(ctx, t, l, 25)
	p.want(ctx, t, &mlsapi.PagingInfo{Direction: ascending, Limit: 10}, p.entries[:10], ascending, 10, p.entries[9].id)
	p.want(ctx, t, &mlsapi.PagingInfo{Direction: descending, Limit: 10}, reversed(p.entries, 10), descending, 10, p.entries[15].id)
	p.want(ctx, t, &mlsapi.PagingInfo{Direction: descending, Limit: 1}, reversed(p.entries, 1), descending, 1, p.entries[24].id)
}

// With exactly 100 messages the cursor is set and the next page is empty.
func pagingFull(t *testing.T, l *log) {
	ctx := short(t)
	p := newPaged(ctx, t, l, 100)
	p.want(ctx, t, &mlsapi.PagingInfo{Direction: ascending}, p.entries, ascending, 100, p.entries[99].id)
	p.want(ctx, t, &mlsapi.PagingInfo{Direction: ascending, IdCursor: p.entries[99].id}, nil, ascending, 100, 0)
	p.want(ctx, t, &mlsapi.PagingInfo{Direction: descending, IdCursor: p.entries[0].id}, nil, descending, 100, 0)
}

// Downwards from a cursor: ids below it, descending.
func pagingDown(t *testing.T, l *log) {
	ctx := short(t)
	p := newPaged(ctx, t, l, 250)
	down := func(cursor uint64) *mlsapi.PagingInfo {
		return &mlsapi.PagingInfo{Direction: descending, Limit: 100, IdCursor: cursor}
	}
	p.want(ctx, t, down(p.entries[200].id), reversed(p.entries[:200], 100), descending, 100, p.entries[100].id)
	p.want(ctx, t, down(p.entries[100].id), reversed(p.entries[:100], 100), descending, 100, p.entries[0].id)
	p.want(ctx, t, down(p.entries[50].id), reversed(p.entries[:50], 50), descending, 100, 0)
	p.want(ctx, t, down(1), nil, descending, 100, 0)
	p.want(ctx, t, down(1<<64-1), reversed(p.entries, 100), descending, 100, p.entries[150].id)
}

// No topic is an error; an unknown one is empty, with paging info.
func pagingUnknown(t *testing.T, l *log) {
	ctx := short(t)
	p := newPaged(ctx, t, l, 1)
	if _, _, err := l.page(ctx, p.client, nil, nil); err == nil {
		t.Error("a query without topic was answered")
	} else {
		wantCode(t, err, codes.InvalidArgument, codes.Unknown)
	}
	for _, topic := range [][]byte{l.topic(), {1}, p.topic[:len(p.topic)-1], append(bytes.Clone(p.topic), 0), random(1000)} {
		unknown := paged{log: l, client: p.client, topic: topic}
		unknown.want(ctx, t, nil, nil, descending, 100, 0)
	}
}

// G7: a query without paging info gives the newest first, at most 100.
func TestG7(t *testing.T) {
	t.Parallel()
	pagingDefault(t, &groupLog)
}

// G8: upwards, 250 messages come as 100, 100 and 50, each page with its cursor.
func TestG8(t *testing.T) {
	t.Parallel()
	pagingUp(t, &groupLog)
}

// G9: limits 0 and 101 behave as 100.
func TestG9(t *testing.T) {
	t.Parallel()
	pagingLimits(t, &groupLog)
}

// G10: a limit of 10 gives 10 messages and a cursor.
func TestG10(t *testing.T) {
	t.Parallel()
	pagingSmall(t, &groupLog)
}

// G11: exactly 100 messages set the cursor; the next page is empty, without.
func TestG11(t *testing.T) {
	t.Parallel()
	pagingFull(t, &groupLog)
}

// G12: downwards from a cursor come the ids below it, descending.
func TestG12(t *testing.T) {
	t.Parallel()
	pagingDown(t, &groupLog)
}

// G13: an empty group id is an error, an unknown group is empty.
func TestG13(t *testing.T) {
	t.Parallel()
	pagingUnknown(t, &groupLog)
}

// G14: ids ascend per group in the order of visibility: with 50 concurrent
// senders, readers that poll with their cursor miss nothing.
func TestG14(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{}), long(t)
	const senders = 50
	each := scaled(40, 2000)
	group := newGroupID()
	total := senders * each

	readers, ctx := errgroup.WithContext(ctx)
	for range 2 {
		reader := dial(t, n)
		readers.Go(func() error {
			var cursor uint64
			seen := map[string]bool{}
			for len(seen) < total {
				page, _, err := groupLog.page(ctx, reader, group, &mlsapi.PagingInfo{Direction: ascending, Limit: 100, IdCursor: cursor})
				if err != nil {
					return fmt.Errorf("after %d of %d messages: %w", len(seen), total, err)
				}
				for _, e := range page {
					if e.id <= cursor || seen[e.data] {
						return fmt.Errorf("message %d after %d", e.id, cursor)
					}
					cursor = e.id
					seen[e.data] = true
				}
			}
			return nil
		})
	}
	writer := dial(t, n)
	for s := range senders {
		readers.Go(func() error {
			for i := range each {
				data := application(group, fmt.Sprintf("%d of sender %d", i, s))
				if _, err := writer.mls.SendGroupMessages(ctx, groupRequest(data)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	// A message that was missed leaves a reader waiting until the time is up.
	if err := readers.Wait(); err != nil {
		t.Fatal(err)
	}
	if all := must(groupLog.all(short(t), writer, group, 0))(t); len(all) != total {
		t.Errorf("%d messages, want %d", len(all), total)
	}
}

// G15: the sender's HMAC and the push flag come back unchanged.
func TestG15(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	group := newGroupID()
	var sent []*mlsapi.GroupMessageInput
	for i, hmac := range [][]byte{random(32), nil, random(1), random(64), make([]byte, 32)} {
		for _, push := range []bool{false, true} {
			input := groupInput(application(group, fmt.Sprint(i, push)))
			input.GetV1().SenderHmac, input.GetV1().ShouldPush = hmac, push
			sent = append(sent, input)
		}
	}
	s := must(groupLog.open(ctx, c, filter{topic: group}))(t)
	must(c.mls.SendGroupMessages(ctx, &mlsapi.SendGroupMessagesRequest{Messages: sent}))(t)
	res := must(c.mls.QueryGroupMessages(ctx, &mlsapi.QueryGroupMessagesRequest{
		GroupId: group, PagingInfo: &mlsapi.PagingInfo{Direction: ascending},
	}))(t)
	if len(res.Messages) != len(sent) {
		t.Fatalf("%d messages, want %d", len(res.Messages), len(sent))
	}
	for i, m := range res.Messages {
		want := sent[i].GetV1()
		streamed := &mlsapi.GroupMessage{}
		if err := s.RecvMsg(streamed); err != nil {
			t.Fatal(err)
		}
		for _, got := range []*mlsapi.GroupMessage_V1{m.GetV1(), streamed.GetV1()} {
			if !bytes.Equal(got.SenderHmac, want.SenderHmac) || got.ShouldPush != want.ShouldPush {
				t.Errorf("message %d: got %x, %v", i, got.SenderHmac, got.ShouldPush)
			}
		}
	}
}

// G16: a group id of other than 16 bytes is refused.
func TestG16(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	for _, n := range []int{0, 1, 15, 17, 32, 255, 256, 1 << 16} {
		c.unchanged(ctx, t, func() {
			_, err := c.mls.SendGroupMessages(ctx, groupRequest(application(random(n), "message")))
			wantCode(t, err, codes.InvalidArgument)
		})
	}
}

// N1: the newest message of each group in order, nothing for an unknown one, and
// without content unless it is asked for.
func TestN1(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{}), short(t)
	c, other := dial(t, n), dial(t, n)
	known, commits, unknown := newGroupID(), newGroupID(), newGroupID()
	input := groupInput(nil)
	for i := range 3 {
		input.GetV1().Data = application(known, fmt.Sprint("message ", i))
		input.GetV1().SenderHmac, input.GetV1().ShouldPush = random(32), true
		must(c.mls.SendGroupMessages(ctx, &mlsapi.SendGroupMessagesRequest{Messages: []*mlsapi.GroupMessageInput{input}}))(t)
	}
	must(c.mls.SendGroupMessages(ctx, groupRequest(privateMessage(commits, mls.ContentTypeCommit, []byte("commit")))))(t)

	ids := [][]byte{known, unknown, commits, known, {}, random(300)}
	for _, content := range []bool{false, true} {
		res := must(other.mls.GetNewestGroupMessage(ctx, &mlsapi.GetNewestGroupMessageRequest{GroupIds: ids, IncludeContent: content}))(t)
		if len(res.Responses) != len(ids) {
			t.Fatalf("%d responses, want %d", len(res.Responses), len(ids))
		}
		for i, r := range res.Responses {
			got := r.GetGroupMessage().GetV1()
			switch {
			case i == 1 || i >= 4:
				if r.GroupMessage != nil {
					t.Errorf("response %d of a group without messages: %v", i, got)
				}
				continue
			case got == nil:
				t.Errorf("response %d is empty", i)
				continue
			}
			want := must(groupLog.all(ctx, c, ids[i], 0))(t)
			newest := want[len(want)-1]
			if got.Id != newest.id || got.CreatedNs != newest.created || !bytes.Equal(got.GroupId, ids[i]) || got.IsCommit != (i == 2) {
				t.Errorf("response %d: %v, want id %d", i, got, newest.id)
			}
			switch {
			case !content && (len(got.Data) > 0 || len(got.SenderHmac) > 0 || got.ShouldPush):
				t.Errorf("response %d has content", i)
			case content && string(got.Data) != newest.data:
				t.Errorf("response %d: data %x", i, got.Data)
			case content && i == 0 && (!bytes.Equal(got.SenderHmac, input.GetV1().SenderHmac) || !got.ShouldPush):
				t.Errorf("response %d: %v", i, got)
			}
		}
	}
}

// N2: to ask for the newest message of no group is refused.
func TestN2(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	_, err := c.mls.GetNewestGroupMessage(ctx, &mlsapi.GetNewestGroupMessageRequest{})
	wantStatus(t, err, codes.InvalidArgument, "no group ids provided")
}
