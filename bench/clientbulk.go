package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// backlog makes conversations with a new client of each party for each turn, and sends
// so many texts in each, after all have joined if they are to know it before.
func (b *clientBench) backlog(ctx context.Context, groups, texts int, joined bool) (clients [2][]account, ids []string, err error) {
	var inboxes []string
	for range b.rounds {
		for _, p := range b.parties {
			a, err := b.newClient(ctx, p)
			if err != nil {
				return clients, nil, err
			}
			clients[p] = append(clients[p], a)
			inboxes = append(inboxes, a.inbox)
		}
	}
	for range groups {
		made, err := b.author.do(ctx, request{Op: "group", Users: inboxes})
		if err != nil {
			return clients, nil, err
		}
		ids = append(ids, made.ID)
	}
	if joined {
		for _, a := range slices.Concat(clients[:]...) {
			got, err := a.do(ctx, request{Op: "join"})
			if err != nil {
				return clients, nil, err
			}
			if err := expect("conversations", got.Count, groups); err != nil {
				return clients, nil, err
			}
		}
	}
	for _, id := range ids {
		if _, err := b.author.do(ctx, request{Op: "publish", Conversations: []string{id}, Tag: "pending", Count: texts, Size: 100}); err != nil {
			return clients, nil, err
		}
	}
	return clients, ids, nil
}

func (b *clientBench) syncOne(ctx context.Context) error {
	row := b.compare("sync 10,000 messages in one group", rate, bound{atLeast: 5})
	const texts = 10_000
	clients, ids, err := b.backlog(ctx, 1, texts, true)
	if err != nil {
		return err
	}
	return b.alternate("sync one group", func(round int, p party) error {
		a := clients[p][round]
		got, err := a.do(ctx, request{Op: "sync", Conversations: ids})
		if err != nil {
			return err
		}
		row.addRate(p, texts, got.Took[0])
		found, err := a.texts(ctx, ids...)
		if err != nil {
			return err
		}
		return expect("texts", found, texts)
	})
}

func (b *clientBench) syncHundred(ctx context.Context) error {
	const groups, each = 100, 100
	rows := b.syncRows(groups * each)
	if err := b.manyGroups(ctx, rows, groups, each); err != nil || !b.all {
		return err
	}
	// Ours once more with ten times the history.
	long := *b
	long.rounds, long.parties = 1, []party{ours}
	more := long.syncRows(10 * groups * each)
	more.sync.bound, more.database.bound = bound{}, bound{}
	more.list.bound = bound{growth: 1.5, first: rows.list}
	more.empty.bound = bound{growth: 1.5, first: rows.empty}
	if err := long.manyGroups(ctx, more, groups, 10*each); err != nil {
		return err
	}
	for _, row := range []*comparison{more.list, more.empty} {
		growth, _ := row.growth(ours)
		row.note = fmt.Sprintf("%.2f x that with a tenth of the history", growth)
	}
	b.rows = long.rows
	b.clients = long.clients
	return nil
}

type syncRows struct{ sync, list, empty, database *comparison }

func (b *clientBench) syncRows(messages int) syncRows {
	with := fmt.Sprintf("100 groups and %d,000 messages", messages/1000)
	return syncRows{
		b.compare("sync "+with, rate, bound{atLeast: 5}),
		b.compare("list "+with, milliseconds, bound{atMost: 1. / 10}),
		b.compare("empty sync-all, "+with, milliseconds, bound{atMost: 1. / 10}),
		b.compare("database, "+with, bytesUnit, bound{atMost: 1 / 1.5}),
	}
}

func (b *clientBench) manyGroups(ctx context.Context, rows syncRows, groups, each int) error {
	clients, _, err := b.backlog(ctx, groups, each, false)
	if err != nil {
		return err
	}
	return b.alternate("sync 100 groups", func(round int, p party) error {
		a := clients[p][round]
		got, err := a.do(ctx, request{Op: "syncAll"})
		if err != nil {
			return err
		}
		rows.sync.addRate(p, groups*each, got.Took[0])
		found, err := a.texts(ctx)
		if err != nil {
			return err
		}
		if err := expect("texts", found, groups*each); err != nil {
			return err
		}
		var lists, syncs []time.Duration
		for range 5 {
			list, err := a.do(ctx, request{Op: "list"})
			if err != nil {
				return err
			}
			if err := expect("conversations", list.Count, groups); err != nil {
				return err
			}
			empty, err := a.do(ctx, request{Op: "syncAll"})
			if err != nil {
				return err
			}
			lists, syncs = append(lists, list.Took[0]), append(syncs, empty.Took[0])
		}
		rows.list.addTimes(p, lists...)
		rows.empty.addTimes(p, syncs...)
		size, log, err := databaseSize(a.database)
		rows.database.add(p, float64(size+log))
		rows.database.note += fmt.Sprintf("%v %s + %s; ", p, bytesUnit.format(float64(size)), bytesUnit.format(float64(log)))
		return err
	})
}

// databaseSize is that of a SQLite database and of its write-ahead log.
func databaseSize(path string) (size, log int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	size = info.Size()
	if info, err = os.Stat(path + "-wal"); err == nil {
		log = info.Size()
	} else if os.IsNotExist(err) {
		err = nil
	}
	return size, log, err
}

// stream measures how long after the node has numbered a message a stream delivers it.
// The author publishes it for both. The node keeps all in memory: else most of the time
// is that of its disk, the same for both, and with it their differences are hidden.
func (b *clientBench) stream(ctx context.Context) (err error) {
	p50 := b.compare("publish to delivery on a stream, p50", milliseconds, bound{atMost: 1. / 2})
	p99 := b.compare("publish to delivery on a stream, p99", milliseconds, bound{atMost: 1. / 2})
	on := *b
	if on.node, err = startNode(ctx, b.xmtp, ""); err != nil {
		return err
	}
	defer on.node.stop()
	if on.author, err = on.newPeer(ctx); err != nil {
		return err
	}
	defer func() { b.clients = on.clients }() // whose names are theirs alone
	return on.deliveries(ctx, p50, p99)
}

func (b *clientBench) deliveries(ctx context.Context, p50, p99 *comparison) error {
	clients, err := b.newClients(ctx)
	if err != nil {
		return err
	}
	var groups [2][]string
	for _, p := range b.parties {
		if groups[p], err = b.streaming(ctx, clients[p]); err != nil {
			return err
		}
	}
	const texts = 200
	var bare []time.Duration
	err = b.alternate("stream", func(_ int, p party) error {
		subscriber, err := b.bareSubscriber(ctx, groups[p][0])
		if err != nil {
			return err
		}
		defer subscriber.stop()
		if _, err := b.author.do(ctx, request{Op: "send", Conversations: groups[p], Tag: "stream", Count: texts, Size: 100, Every: 8 * time.Millisecond}); err != nil {
			return err
		}
		got, err := clients[p].do(ctx, request{Op: "streamed", Count: texts, Wait: 10 * time.Second})
		if err != nil {
			return err
		}
		if err := errors.Join(expect("texts on the stream", got.Count, texts), expect("deliveries", len(got.At), texts)); err != nil {
			return err
		}
		p50.addTimes(p, percentile(slices.Clone(got.Took), 0.5))
		p99.addTimes(p, percentile(slices.Clone(got.Took), 0.99))
		late, err := subscriber.take(texts)
		bare = append(bare, late...)
		return err
	})
	p50.note = fmt.Sprintf("a subscriber that is no client: %s", milliseconds.format(float64(percentile(bare, 0.5))))
	p99.note = fmt.Sprintf("a subscriber that is no client: %s", milliseconds.format(float64(percentile(bare, 0.99))))
	return err
}

// A subscriber takes what comes of a group without looking into it: no client can be
// faster.
type subscriber struct {
	stop func()
	late chan time.Duration
}

func (b *clientBench) bareSubscriber(ctx context.Context, id string) (*subscriber, error) {
	group, err := hex.DecodeString(id)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+b.node.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	newest, err := mlsapi.NewMlsApiClient(conn).GetNewestGroupMessage(ctx, &mlsapi.GetNewestGroupMessageRequest{GroupIds: [][]byte{group}})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := mlsapi.NewMlsApiClient(conn).SubscribeGroupMessages(ctx, &mlsapi.SubscribeGroupMessagesRequest{
		Filters: []*mlsapi.SubscribeGroupMessagesRequest_Filter{{GroupId: group, IdCursor: newest.Responses[0].GetGroupMessage().GetV1().GetId()}},
	})
	if err == nil {
		_, err = stream.Header() // it is open then
	}
	if err != nil {
		cancel()
		return nil, errors.Join(err, conn.Close())
	}
	s := &subscriber{late: make(chan time.Duration, 10_000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(s.late)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case s.late <- time.Since(time.Unix(0, int64(m.GetV1().GetCreatedNs()))):
			case <-ctx.Done():
				return
			}
		}
	}()
	s.stop = func() {
		cancel()
		<-done
		_ = conn.Close()
	}
	return s, nil
}

// take returns how late so many messages were.
func (s *subscriber) take(n int) (all []time.Duration, err error) {
	for range n {
		late, ok := <-s.late
		if !ok {
			return nil, errors.New("the bare subscriber's stream has ended")
		}
		all = append(all, late)
	}
	return all, nil
}

// streaming opens a stream of a client that is in a group with the author, and waits
// until it delivers.
func (b *clientBench) streaming(ctx context.Context, a account) (group []string, err error) {
	made, err := b.author.do(ctx, request{Op: "group", Users: []string{a.inbox}})
	if err != nil {
		return nil, err
	}
	group = []string{made.ID}
	if _, err := a.do(ctx, request{Op: "join"}); err != nil {
		return nil, err
	}
	if _, err := a.do(ctx, request{Op: "stream"}); err != nil {
		return nil, err
	}
	for range 50 {
		if _, err := b.author.do(ctx, request{Op: "send", Conversations: group, Tag: "first", Count: 1}); err != nil {
			return nil, err
		}
		got, err := a.do(ctx, request{Op: "streamed", Count: 1, Wait: 200 * time.Millisecond})
		if err != nil {
			return nil, err
		}
		if got.Count > 0 {
			return group, nil
		}
	}
	return nil, fmt.Errorf("%w: the stream delivers nothing", errWrong)
}

// cut cuts the connection while texts come at a steady pace, and sees when they come
// again and whether all do.
func (b *clientBench) cut(ctx context.Context) error {
	back := b.compare("2 s cut in a stream of 500 messages: back after", milliseconds, bound{absolute: 1e9})
	missing := b.compare("2 s cut in a stream of 500 messages: not delivered live", plainUnit, bound{})
	parties := []party{ours}
	if b.all {
		parties = b.parties
	}
	const texts = 500
	for _, p := range parties {
		proxy, err := startProxy(b.node.address)
		if err != nil {
			return err
		}
		defer proxy.stop()
		a := b.newAccount(b.drivers[p])
		a.url = proxy.url()
		if err := a.open(ctx); err != nil {
			return err
		}
		group, err := b.streaming(ctx, a)
		if err != nil {
			return err
		}
		progress("cut, %v", p)
		sent := make(chan error, 1)
		go func() {
			_, err := b.author.do(ctx, request{Op: "send", Conversations: group, Tag: "cut", Count: texts, Size: 100, Every: 10 * time.Millisecond})
			sent <- err
		}()
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		proxy.cut()
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
		proxy.mend()
		mended := time.Now().UnixNano()
		if err := <-sent; err != nil {
			return err
		}
		got, err := a.do(ctx, request{Op: "streamed", Count: texts, Wait: 5 * time.Second})
		if err != nil {
			return err
		}
		missing.add(p, float64(texts-got.Count))
		// Who isn't back by then is waited for.
		for len(got.At) > 0 && got.At[len(got.At)-1] < mended && time.Since(time.Unix(0, mended)) < 80*time.Second {
			if _, err := b.author.do(ctx, request{Op: "send", Conversations: group, Tag: "later", Count: 1}); err != nil {
				return err
			}
			more, err := a.do(ctx, request{Op: "streamed", Count: 1, Wait: 500 * time.Millisecond})
			if err != nil {
				return err
			}
			got.At = append(got.At, more.At...)
		}
		for _, at := range got.At {
			if at > mended {
				back.add(p, float64(at-mended))
				break
			}
		}
		if p == ours {
			if err := errors.Join(expect("texts on the stream", got.Count, texts), expect("deliveries", len(got.At), texts)); err != nil {
				return err
			}
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
