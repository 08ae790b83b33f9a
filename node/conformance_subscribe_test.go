package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// subscription is a Subscribe stream as its client sees it.
type subscription struct {
	mlsapi.MlsApi_SubscribeClient
	t testing.TB
}

// openSubscribe opens a stream and reads its first frame.
func openSubscribe(ctx context.Context, t testing.TB, c *client) *subscription {
	t.Helper()
	s := &subscription{must(c.mls.Subscribe(ctx))(t), t}
	if started := s.next().GetStarted(); started.GetKeepaliveIntervalMs() != 30_000 || len(started.Capabilities) != 0 {
		t.Fatalf("the first frame is %v", started)
	}
	return s
}

func (s *subscription) next() *mlsapi.SubscribeResponse_V1 {
	s.t.Helper()
	return must(s.Recv())(s.t).GetV1()
}

func (s *subscription) request(v1 *mlsapi.SubscribeRequest_V1) {
	s.t.Helper()
	// What is wrong with the stream is learnt from what it answers.
	_ = s.Send(&mlsapi.SubscribeRequest{Version: &mlsapi.SubscribeRequest_V1_{V1: v1}})
}

func (s *subscription) mutate(m *mlsapi.SubscribeRequest_V1_Mutate) {
	s.t.Helper()
	s.request(&mlsapi.SubscribeRequest_V1{Request: &mlsapi.SubscribeRequest_V1_Mutate_{Mutate: m}})
}

// wave reads what answers a Mutate to its end: all of its messages and the
// topics that are live then. Nothing else may come.
func (s *subscription) wave(id uint64) (entries []entry, live [][]byte) {
	s.t.Helper()
	for {
		switch v := s.next().Response.(type) {
		case *mlsapi.SubscribeResponse_V1_Messages_:
			if v.Messages.MutateId != id {
				s.t.Fatalf("messages of %d within wave %d", v.Messages.MutateId, id)
			}
			if live != nil {
				s.t.Fatal("messages after TopicsLive")
			}
			entries = append(entries, entriesOf(v.Messages)...)
		case *mlsapi.SubscribeResponse_V1_TopicsLive_:
			if live != nil {
				s.t.Fatal("TopicsLive twice")
			}
			live = v.TopicsLive.Topics
		case *mlsapi.SubscribeResponse_V1_CatchupComplete_:
			if v.CatchupComplete.MutateId != id {
				s.t.Fatalf("wave %d is complete, not %d", v.CatchupComplete.MutateId, id)
			}
			return entries, live
		default:
			s.t.Fatalf("%T within wave %d", v, id)
		}
	}
}

// live reads messages that belong to no wave.
func (s *subscription) live(n int) (entries []entry) {
	s.t.Helper()
	for len(entries) < n {
		messages := s.next().GetMessages()
		if messages == nil || messages.MutateId != 0 {
			s.t.Fatalf("wave %d, not live messages", messages.GetMutateId())
		}
		entries = append(entries, entriesOf(messages)...)
	}
	return entries
}

// fails reads until the stream ends, which must be with the code.
func (s *subscription) fails(code codes.Code) error {
	s.t.Helper()
	for {
		if _, err := s.Recv(); err != nil {
			wantCode(s.t, err, code)
			return err
		}
	}
}

// done reads to the end, which must be an orderly one, and counts messages.
func (s *subscription) done() (messages int) {
	s.t.Helper()
	for {
		res, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return messages
		}
		messages += len(entriesOf(must(res, err)(s.t).GetV1().GetMessages()))
	}
}

func entriesOf(m *mlsapi.SubscribeResponse_V1_Messages) (entries []entry) {
	for _, g := range m.GetGroupMessages() {
		entries = append(entries, groupEntry(g))
	}
	for _, w := range m.GetWelcomeMessages() {
		entries = append(entries, welcomeEntry(w))
	}
	return entries
}

// wire is a topic of the log as Subscribe names it.
func (l *log) wire(topic []byte) []byte {
	kind := byte(0)
	if l == &welcomeLog {
		kind = 1
	}
	return append([]byte{kind}, topic...)
}

func (l *log) add(topic []byte, cursor uint64) *mlsapi.SubscribeRequest_V1_Mutate_Subscription {
	return &mlsapi.SubscribeRequest_V1_Mutate_Subscription{Topic: l.wire(topic), IdCursor: cursor}
}

func adds(id uint64, list ...*mlsapi.SubscribeRequest_V1_Mutate_Subscription) *mlsapi.SubscribeRequest_V1_Mutate {
	return &mlsapi.SubscribeRequest_V1_Mutate{MutateId: id, Adds: list}
}

func removes(id uint64, list ...[]byte) *mlsapi.SubscribeRequest_V1_Mutate {
	return &mlsapi.SubscribeRequest_V1_Mutate{MutateId: id, Removes: list}
}

func historyOnly(m *mlsapi.SubscribeRequest_V1_Mutate) *mlsapi.SubscribeRequest_V1_Mutate {
	m.HistoryOnly = true
	return m
}

func wantTopics(t testing.TB, got [][]byte, want ...[]byte) {
	t.Helper()
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("TopicsLive %x, want %x", got, want)
	}
}

// quiet proves with a Ping that nothing else is on the way.
func (s *subscription) quiet() {
	s.t.Helper()
	const nonce = 4711
	s.request(&mlsapi.SubscribeRequest_V1{Request: &mlsapi.SubscribeRequest_V1_Ping{Ping: &mlsapi.Ping{Nonce: nonce}}})
	if v := s.next(); v.GetPong().GetNonce() != nonce {
		s.t.Fatalf("got %T, want the Pong", v.Response)
	}
}

// X1: a stream says Started, with the interval of its pings, before anything is asked.
func TestX1(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	s := openSubscribe(ctx, t, c)
	if header, err := s.Header(); err != nil || header == nil {
		t.Error("no headers:", err)
	}
	s.quiet()
	// Requests that say nothing are passed over.
	s.request(&mlsapi.SubscribeRequest_V1{})
	s.quiet()
}

// X2: what is stored comes as the wave's, then TopicsLive, CatchupComplete, and
// what is sent from then on, as live.
func TestX2(t *testing.T) {
	t.Parallel()
	bothLogs(t, func(t *testing.T, l *log) {
		c, ctx := connect(t), short(t)
		a, b := l.topic(), l.topic()
		for i := range 5 {
			for _, topic := range [][]byte{a, b} {
				if err := l.fill(ctx, c, topic, 50*i, 50); err != nil {
					t.Fatal(err)
				}
			}
		}
		inA, inB := must(l.all(ctx, c, a, 0))(t), must(l.all(ctx, c, b, 0))(t)
		s := openSubscribe(ctx, t, c)
		s.mutate(adds(1, l.add(a, 0), l.add(b, inB[99].id)))
		got, live := s.wave(1)
		wantTopics(t, live, l.wire(a), l.wire(b))
		want := append(slices.Clone(inA), inB[100:]...)
		slices.SortFunc(want, func(x, y entry) int { return int(x.id) - int(y.id) })
		wantEntries(t, "the wave", got, want)
		for i := range 10 {
			if err := l.send(ctx, c, [][]byte{a, b}[i%2], l.payload([][]byte{a, b}[i%2], fmt.Sprint("live ", i))); err != nil {
				t.Fatal(err)
			}
		}
		want = append(must(l.all(ctx, c, a, inA[249].id))(t), must(l.all(ctx, c, b, inB[249].id))(t)...)
		slices.SortFunc(want, func(x, y entry) int { return int(x.id) - int(y.id) })
		wantEntries(t, "live", s.live(10), want)
		s.quiet()
	})
}

// Groups and welcomes share a stream, and an identifier of both is two topics.
func TestX2_Kinds(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	group, key := newGroupID(), newInstallationKey()
	if err := errors.Join(groupLog.fill(ctx, c, group, 0, 3), welcomeLog.fill(ctx, c, key, 0, 2), groupLog.fill(ctx, c, group, 3, 3)); err != nil {
		t.Fatal(err)
	}
	s := openSubscribe(ctx, t, c)
	s.mutate(adds(7, groupLog.add(group, 0), welcomeLog.add(key, 0), groupLog.add(key, 0), welcomeLog.add(group, 0)))
	got, live := s.wave(7)
	if len(got) != 8 || len(live) != 4 || !slices.IsSortedFunc(got, func(x, y entry) int { return int(x.id) - int(y.id) }) {
		t.Errorf("%d messages, %d topics", len(got), len(live))
	}
}

// X3: what is wrong ends the stream, and nothing of it was done.
func TestX3(t *testing.T) {
	t.Parallel()
	c, ctx, group := connect(t), short(t), newGroupID()
	good := groupLog.add(group, 0)
	for name, m := range map[string]*mlsapi.SubscribeRequest_V1_Mutate{
		"adds with id 0":      adds(0, good),
		"unknown kind":        adds(1, good, &mlsapi.SubscribeRequest_V1_Mutate_Subscription{Topic: append([]byte{2}, group...)}),
		"no kind":             adds(1, good, &mlsapi.SubscribeRequest_V1_Mutate_Subscription{}),
		"no identifier":       adds(1, good, &mlsapi.SubscribeRequest_V1_Mutate_Subscription{Topic: []byte{0}}),
		"impossible topic":    adds(1, good, groupLog.add(random(256), 0)),
		"removes an odd kind": removes(1, groupLog.wire(group), append([]byte{9}, group...)),
		"removes nothing":     removes(1, []byte{}),
	} {
		t.Run(name, func(t *testing.T) {
			s := openSubscribe(ctx, t, c)
			s.mutate(m)
			_, err := s.Recv()
			wantCode(t, err, codes.InvalidArgument)
		})
	}
	t.Run("id of a wave that is complete", func(t *testing.T) {
		s := openSubscribe(ctx, t, c)
		for range 3 {
			s.mutate(adds(1, groupLog.add(newGroupID(), 0)))
			s.wave(1)
		}
	})
	t.Run("no version", func(t *testing.T) {
		s := openSubscribe(ctx, t, c)
		if err := s.Send(&mlsapi.SubscribeRequest{}); err != nil {
			t.Fatal(err)
		}
		s.fails(codes.InvalidArgument)
	})
}

// X4: a Mutate that starts no wave is answered at once, with its id.
func TestX4(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	s := openSubscribe(ctx, t, c)
	group := newGroupID()
	s.mutate(adds(1, groupLog.add(group, 5)))
	s.wave(1)
	for id, m := range map[uint64]*mlsapi.SubscribeRequest_V1_Mutate{
		0: removes(0, groupLog.wire(newGroupID())),
		2: removes(2, groupLog.wire(newGroupID()), groupLog.wire(newGroupID())),
		3: adds(3),
		4: adds(4, groupLog.add(group, 5), groupLog.add(group, 6)),
		5: historyOnly(adds(5)),
	} {
		s.mutate(m)
		if got, live := s.wave(id); got != nil || live != nil {
			t.Errorf("Mutate %d: %d messages, live %x", id, len(got), live)
		}
	}
	// What was removed is silent.
	s.mutate(removes(9, groupLog.wire(group)))
	s.wave(9)
	if err := groupLog.fill(ctx, c, group, 0, 3); err != nil {
		t.Fatal(err)
	}
	s.quiet()
}

// X5: to add a topic again from where it is, or later, changes nothing.
func TestX5(t *testing.T) {
	t.Parallel()
	bothLogs(t, func(t *testing.T, l *log) {
		c, ctx, topic := connect(t), short(t), l.topic()
		if err := l.fill(ctx, c, topic, 0, 20); err != nil {
			t.Fatal(err)
		}
		s := openSubscribe(ctx, t, c)
		s.mutate(adds(1, l.add(topic, 0)))
		all, _ := s.wave(1)
		for i, cursor := range []uint64{all[19].id, all[19].id + 100, 1<<64 - 1} {
			id := uint64(i + 2)
			s.mutate(adds(id, l.add(topic, cursor)))
			if got, live := s.wave(id); got != nil || live != nil {
				t.Errorf("from %d: %d messages, live %x", cursor, len(got), live)
			}
		}
		if err := l.fill(ctx, c, topic, 20, 1); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, "live", s.live(1), must(l.all(ctx, c, topic, all[19].id))(t))
	})
}

// X6: to add a topic again from an earlier place replays it from there.
func TestX6(t *testing.T) {
	t.Parallel()
	bothLogs(t, func(t *testing.T, l *log) {
		c, ctx, topic := connect(t), short(t), l.topic()
		if err := l.fill(ctx, c, topic, 0, 30); err != nil {
			t.Fatal(err)
		}
		s := openSubscribe(ctx, t, c)
		all := must(l.all(ctx, c, topic, 0))(t)
		s.mutate(adds(1, l.add(topic, all[19].id)))
		got, _ := s.wave(1)
		wantEntries(t, "first", got, all[20:])
		// Of several cursors the lowest.
		s.mutate(adds(2, l.add(topic, all[25].id), l.add(topic, all[9].id), l.add(topic, all[20].id)))
		got, live := s.wave(2)
		wantEntries(t, "again", got, all[10:])
		wantTopics(t, live, l.wire(topic))
		if err := l.fill(ctx, c, topic, 30, 2); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, "live", s.live(2), must(l.all(ctx, c, topic, all[29].id))(t))
		s.quiet()
	})
}

// X7: a topic that is removed and added by one Mutate begins anew.
func TestX7(t *testing.T) {
	t.Parallel()
	bothLogs(t, func(t *testing.T, l *log) {
		c, ctx, topic := connect(t), short(t), l.topic()
		if err := l.fill(ctx, c, topic, 0, 30); err != nil {
			t.Fatal(err)
		}
		all := must(l.all(ctx, c, topic, 0))(t)
		s := openSubscribe(ctx, t, c)
		s.mutate(adds(1, l.add(topic, all[14].id)))
		s.wave(1)
		for i, from := range []int{0, 20, 29} {
			m := adds(uint64(i+2), l.add(topic, all[from].id))
			m.Removes = [][]byte{l.wire(topic)}
			s.mutate(m)
			got, live := s.wave(m.MutateId)
			wantEntries(t, fmt.Sprint("from ", from), got, all[from+1:])
			wantTopics(t, live, l.wire(topic))
		}
		if err := l.fill(ctx, c, topic, 30, 1); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, "live", s.live(1), must(l.all(ctx, c, topic, all[29].id))(t))
	})
}

// X8: what is published while a wave is under way comes once, in order, as the
// wave's or live after it. There are more readers than one, slow ones too.
func TestX8(t *testing.T) {
	t.Parallel()
	bothLogs(t, func(t *testing.T, l *log) {
		n, ctx := start(t, node.Options{}), long(t)
		topics := [][]byte{l.topic(), l.topic(), l.topic()}
		c := dial(t, n)
		for _, topic := range topics {
			if err := l.fill(ctx, c, topic, 0, 300); err != nil {
				t.Fatal(err)
			}
		}
		wait := publishMany(ctx, l, n, t, 4, scaled(300, 10000), topics...)
		results := make([]delivered, 6)
		var readers errgroup.Group
		for i := range results {
			reader := dial(t, n, grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
			s := openSubscribe(ctx, t, reader)
			for j, topic := range topics {
				s.mutate(adds(uint64(j+1), l.add(topic, 0)))
			}
			readers.Go(func() (err error) {
				results[i], err = s.untilEnds(l, topics...)
				return err
			})
		}
		if err := errors.Join(wait(), readers.Wait()); err != nil {
			t.Fatal(err)
		}
		for _, topic := range topics {
			all := must(l.all(ctx, c, topic, 0))(t)
			for i, got := range results {
				wantEntries(t, fmt.Sprint("reader ", i), got[string(topic)], all)
			}
		}
	})
}

// untilEnds reads until each of the topics, added by the waves 1 and up, has
// ended, and checks what belongs to which wave.
func (s *subscription) untilEnds(l *log, topics ...[]byte) (delivered, error) {
	got, ends, complete := delivered{}, 0, map[uint64]bool{}
	last := map[uint64]uint64{}
	for ends < len(topics) || len(complete) < len(topics) {
		res, err := s.Recv()
		if err != nil {
			return got, err
		}
		messages := res.GetV1().GetMessages()
		if done := res.GetV1().GetCatchupComplete(); done != nil {
			complete[done.MutateId] = true
		}
		for _, e := range entriesOf(messages) {
			wave := uint64(slices.IndexFunc(topics, func(t []byte) bool { return string(t) == e.topic }) + 1)
			if complete[wave] {
				wave = 0
			}
			if messages.MutateId != wave || e.id <= last[wave] {
				return got, fmt.Errorf("message %d of wave %d comes in wave %d after %d", e.id, wave, messages.MutateId, last[wave])
			}
			last[wave] = e.id
			got[e.topic] = append(got[e.topic], e)
			if e.data == string(l.payload([]byte(e.topic), theEnd)) {
				ends++
			}
		}
	}
	return got, nil
}

// X9: a wave without live, and a client that has nothing more to say: the stream
// ends in good order when the wave is complete.
func TestX9(t *testing.T) {
	t.Parallel()
	bothLogs(t, func(t *testing.T, l *log) {
		c, ctx := connect(t), short(t)
		a, b := l.topic(), l.topic()
		if err := errors.Join(l.fill(ctx, c, a, 0, 250), l.fill(ctx, c, b, 0, 30)); err != nil {
			t.Fatal(err)
		}
		all := append(must(l.all(ctx, c, a, 0))(t), must(l.all(ctx, c, b, 0))(t)...)
		s := openSubscribe(ctx, t, c)
		s.mutate(historyOnly(adds(1, l.add(a, 0), l.add(b, 0))))
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		got, live := s.wave(1)
		wantEntries(t, "the wave", got, all)
		wantTopics(t, live, l.wire(a), l.wire(b))
		if n := s.done(); n != 0 {
			t.Errorf("%d messages after the wave", n)
		}

		// Without the end, nothing live follows, and the topics are free again.
		s = openSubscribe(ctx, t, c)
		s.mutate(historyOnly(adds(1, l.add(a, 0))))
		s.wave(1)
		if err := l.fill(ctx, c, a, 250, 1); err != nil {
			t.Fatal(err)
		}
		s.quiet()
		s.mutate(adds(2, l.add(a, all[249].id)))
		if got, _ := s.wave(2); len(got) != 1 {
			t.Errorf("%d messages since", len(got))
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		s.done()
	})
}

// X10: a live topic can't be read once, unless it is removed by the same Mutate.
func TestX10(t *testing.T) {
	t.Parallel()
	c, ctx, group := connect(t), short(t), newGroupID()
	if err := groupLog.fill(ctx, c, group, 0, 10); err != nil {
		t.Fatal(err)
	}
	s := openSubscribe(ctx, t, c)
	s.mutate(adds(1, groupLog.add(group, 0)))
	s.wave(1)
	again := historyOnly(adds(2, groupLog.add(group, 0)))
	again.Removes = [][]byte{groupLog.wire(group)}
	s.mutate(again)
	if got, _ := s.wave(2); len(got) != 10 {
		t.Errorf("%d messages", len(got))
	}
	s.mutate(adds(3, groupLog.add(group, 0)))
	s.wave(3)
	s.mutate(historyOnly(adds(4, groupLog.add(newGroupID(), 0), groupLog.add(group, 0))))
	_, err := s.Recv()
	wantCode(t, err, codes.InvalidArgument)
}

// X11: a Ping is answered with its nonce.
func TestX11(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	s := openSubscribe(ctx, t, c)
	nonces := []uint64{0, 1, 1, 1<<64 - 1, 12345}
	for _, nonce := range nonces {
		s.request(&mlsapi.SubscribeRequest_V1{Request: &mlsapi.SubscribeRequest_V1_Ping{Ping: &mlsapi.Ping{Nonce: nonce}}})
	}
	for _, nonce := range nonces {
		pong, ok := s.next().Response.(*mlsapi.SubscribeResponse_V1_Pong)
		if !ok || pong.Pong.Nonce != nonce {
			t.Fatalf("got %v, want nonce %d", pong, nonce)
		}
	}
	// A Pong that nobody asked for is nothing.
	s.request(&mlsapi.SubscribeRequest_V1{Request: &mlsapi.SubscribeRequest_V1_Pong{Pong: &mlsapi.Pong{Nonce: 3}}})
	s.quiet()
}

// X13: frames hold at most 2 MiB, or one message that is bigger, and never the
// messages of two waves, or groups and welcomes.
func TestX13(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{}), short(t)
	c := dial(t, n)
	a, b, key := newGroupID(), newGroupID(), newInstallationKey()
	body := func(size int) string { return string(make([]byte, size)) }
	const big = 5 << 20
	for i := range 8 {
		size := 700 << 10
		if i == 3 {
			size = big
		}
		must(c.mls.SendGroupMessages(ctx, groupRequest(application(a, fmt.Sprint(i, body(size))), application(b, fmt.Sprint(i, body(300<<10))))))(t)
		must(c.mls.SendWelcomeMessages(ctx, welcomeRequest(welcomeInput(key, []byte(fmt.Sprint(i, body(300<<10)))))))(t)
	}
	s := openSubscribe(ctx, t, c)
	s.mutate(adds(1, groupLog.add(a, 0), welcomeLog.add(key, 0)))
	s.mutate(adds(2, groupLog.add(b, 0)))
	waves := map[string]uint64{string(a): 1, string(key): 1, string(b): 2}
	sum, complete := 0, 0
	for complete < 2 {
		v := s.next()
		if v.GetCatchupComplete() != nil {
			complete++
		}
		m := v.GetMessages()
		if m == nil {
			continue
		}
		if len(m.GroupMessages) > 0 && len(m.WelcomeMessages) > 0 {
			t.Error("groups and welcomes in one frame")
		}
		size, entries := 0, entriesOf(m)
		for _, e := range entries {
			size += len(e.data)
			if waves[e.topic] != m.MutateId {
				t.Errorf("a message of wave %d in a frame of wave %d", waves[e.topic], m.MutateId)
			}
		}
		if sum += len(entries); size > 2<<20 && len(entries) > 1 {
			t.Errorf("a frame of %d messages has %d bytes", len(entries), size)
		}
	}
	if sum != 24 {
		t.Errorf("%d messages", sum)
	}
	// Live, too.
	for i := range 8 {
		must(c.mls.SendGroupMessages(ctx, groupRequest(application(a, fmt.Sprint("live", i, body(700<<10))))))(t)
	}
	for sum = 0; sum < 8; {
		m := s.next().GetMessages()
		if m.GetMutateId() != 0 || len(m.GetGroupMessages()) > 2 {
			t.Errorf("a live frame of wave %d with %d messages", m.GetMutateId(), len(m.GetGroupMessages()))
		}
		sum += len(m.GetGroupMessages())
	}
}

// X14: a Mutate adds at most 100,000 topics. As many on one stream cost little.
func TestX14(t *testing.T) {
	n, ctx := start(t, node.Options{}), short(t)
	c := dial(t, n)
	many := func(n int) []*mlsapi.SubscribeRequest_V1_Mutate_Subscription {
		list := make([]*mlsapi.SubscribeRequest_V1_Mutate_Subscription, n)
		for i := range list {
			list[i] = groupLog.add(newGroupID(), 0)
		}
		return list
	}
	s := openSubscribe(ctx, t, c)
	s.mutate(adds(1, many(100_001)...))
	s.fails(codes.ResourceExhausted)
	// Also if they are all the same topic, or none at all.
	s = openSubscribe(ctx, t, c)
	s.mutate(adds(1, slices.Repeat([]*mlsapi.SubscribeRequest_V1_Mutate_Subscription{groupLog.add(newGroupID(), 0)}, 100_001)...))
	s.fails(codes.ResourceExhausted)
	// A request can't cost more to decode than that.
	s = openSubscribe(ctx, t, c)
	s.mutate(adds(1, slices.Repeat([]*mlsapi.SubscribeRequest_V1_Mutate_Subscription{{}}, 1_000_000)...))
	s.fails(codes.Internal)

	before := heap()
	list := many(100_000)
	s = openSubscribe(ctx, t, c)
	began := time.Now()
	s.mutate(adds(1, list...))
	_, live := s.wave(1)
	took := time.Since(began)
	if len(live) != len(list) {
		t.Errorf("%d topics are live", len(live))
	}
	last := list[len(list)-1].Topic[1:]
	list, live = nil, nil
	cost := max(heap(), before) - before
	t.Logf("CHECK subscribe: 100,000 topics in one Mutate: %v, %d MiB", took.Round(time.Millisecond), cost>>20)
	const allowed = 100 << 20
	if cost > allowed {
		t.Errorf("100,000 topics cost %d MiB", cost>>20)
	}
	if err := groupLog.fill(ctx, c, last, 0, 1); err != nil {
		t.Fatal(err)
	}
	s.live(1)
}

// X15: where the call is switched off it is unknown, and other streams are not.
func TestX15(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{NoSubscribe: true}), short(t)
	c := dial(t, n)
	s := must(c.mls.Subscribe(ctx))(t)
	_, err := s.Recv()
	wantCode(t, err, codes.Unimplemented)
	// With a first request at once, as clients do.
	s = must(c.mls.Subscribe(ctx))(t)
	sub := &subscription{s, t}
	sub.mutate(adds(1, groupLog.add(newGroupID(), 0)))
	sub.fails(codes.Unimplemented)
	must(groupLog.open(ctx, c))(t)
}

// When the node shuts down, streams end with UNAVAILABLE, those that nobody reads too.
func TestSubscribeShutdown(t *testing.T) {
	t.Parallel()
	n, ctx := must(launch(node.Options{ShutdownGrace: time.Second}))(t), short(t)
	c, group := dial(t, n), newGroupID()
	idle := openSubscribe(ctx, t, c)
	narrow := dial(t, n, grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	stalled := openSubscribe(ctx, t, narrow)
	stalled.mutate(adds(1, groupLog.add(group, 0)))
	stalled.wave(1)
	for i := range 64 {
		must(c.mls.SendGroupMessages(ctx, groupRequest(application(group, fmt.Sprint(i, string(make([]byte, 32<<10)))))))(t)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Shutdown(ctx) }()
	_, err := idle.Recv()
	wantStatus(t, err, codes.Unavailable, "service is shutting down")
	if err := <-ended; err != nil {
		t.Error("shutting down:", err)
	}
	stalled.fails(codes.Unavailable)
}

// A reader that never reads costs a bounded amount of memory, disturbs nobody,
// and has everything in order when it reads at last.
func TestSubscribeStalled(t *testing.T) {
	const size, batch, allowed = 64 << 10, 16, 20 << 20
	messages := scaled(640, 4096) // published before the node gives the reader up, on a busy machine too
	n, ctx := start(t, node.Options{Data: t.TempDir()}), long(t)
	c := dial(t, n)
	groups := [][]byte{newGroupID(), newGroupID(), newGroupID()}
	body := string(make([]byte, size))
	publish := func(topics ...[]byte) {
		for from := 0; from < messages; from += batch {
			var payloads [][]byte
			for i := range batch {
				payloads = append(payloads, application(topics[(from+i)%len(topics)], fmt.Sprint(from+i, body)))
			}
			must(c.mls.SendGroupMessages(ctx, groupRequest(payloads...)))(t)
		}
	}
	publish(newGroupID())
	before := settledHeap()
	narrow := dial(t, n, grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	s := openSubscribe(ctx, t, narrow)
	s.mutate(adds(1, groupLog.add(groups[0], 0), groupLog.add(groups[1], 0), groupLog.add(groups[2], 0)))
	s.wave(1)
	publish(groups...)
	cost := uint64(0)
	eventually(t, fmt.Sprintf("a stalled reader costs at most %d MiB", allowed>>20), func() bool {
		cost = max(heap(), before) - before
		return cost < allowed
	})
	t.Logf("CHECK stalled reader of Subscribe: after %d MiB: %d MiB", messages*size>>20, cost>>20)
	last := uint64(0)
	for got := 0; got < messages; {
		m := s.next().GetMessages()
		if m == nil || m.MutateId != 0 {
			t.Fatalf("after %d messages: %v", got, m.GetMutateId())
		}
		for _, e := range entriesOf(m) {
			if e.id <= last {
				t.Fatalf("message %d after %d", e.id, last)
			}
			last = e.id
			got++
		}
	}
	s.quiet()
}

// X2 over net/http, which has the connections of clients that offer HTTP/1.1 too.
func TestX2_Web(t *testing.T) {
	t.Parallel()
	n, a := startTLS(t, node.Options{})
	ctx, client := short(t), webTLS(t, a, "h2", "http/1.1")
	call := func() (*io.PipeWriter, *http.Response, func() *mlsapi.SubscribeResponse_V1) {
		body, requests := io.Pipe()
		req := must(http.NewRequestWithContext(ctx, http.MethodPost, "https://"+n.Addr()+mlsapi.MlsApi_Subscribe_FullMethodName, body))(t)
		req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
		res := must(client.Do(req))(t)
		t.Cleanup(func() { res.Body.Close() })
		next := func() *mlsapi.SubscribeResponse_V1 {
			t.Helper()
			message, _ := webFrame(t, res.Body)
			answer := &mlsapi.SubscribeResponse{}
			if err := proto.Unmarshal(message, answer); err != nil {
				t.Fatal(err)
			}
			return answer.GetV1()
		}
		if next().GetStarted() == nil {
			t.Fatal("no Started")
		}
		return requests, res, next
	}
	mutate := func(requests io.Writer, m *mlsapi.SubscribeRequest_V1_Mutate) {
		t.Helper()
		must(requests.Write(frame(must(proto.Marshal(&mlsapi.SubscribeRequest{Version: &mlsapi.SubscribeRequest_V1_{V1: &mlsapi.SubscribeRequest_V1{
			Request: &mlsapi.SubscribeRequest_V1_Mutate_{Mutate: m},
		}}}))(t))))(t)
	}
	group := newGroupID()
	send := func(data string) {
		req := webPost(ctx, t, "https://"+n.Addr(), mlsapi.MlsApi_SendGroupMessages_FullMethodName, groupRequest(application(group, data)))
		res := must(client.Do(req))(t)
		defer res.Body.Close()
		wantWebStatusOK(t, res)
	}
	send("stored")
	requests, res, next := call()
	mutate(requests, adds(1, groupLog.add(group, 0)))
	if m := next().GetMessages(); m.GetMutateId() != 1 || len(m.GetGroupMessages()) != 1 {
		t.Errorf("got %v, want one message", m)
	}
	if next().GetTopicsLive() == nil || next().GetCatchupComplete().GetMutateId() != 1 {
		t.Error("the wave does not end")
	}
	send("live")
	if m := next().GetMessages(); m.GetMutateId() != 0 || len(m.GetGroupMessages()) != 1 {
		t.Errorf("got %v, want one message", m)
	}
	requests.Close()
	if rest := must(io.ReadAll(res.Body))(t); len(rest) != 0 || res.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%d bytes more, trailers %v", len(rest), res.Trailer)
	}
	// A reader that doesn't read keeps the node from nothing.
	requests, _, _ = call()
	mutate(requests, adds(1, groupLog.add(group, 0)))
	for range 16 {
		send(string(make([]byte, 1<<20)) + fmt.Sprint(random(4)))
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	requests.Close()
}
