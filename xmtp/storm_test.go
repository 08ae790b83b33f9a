package xmtp

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/wiretest"
)

// storm is what a stream goes through: a wire that is cut, stalled or a hole every
// second, and a node that is restarted, while messages flow.
type storm struct {
	t        *testing.T
	rand     *mathrand.Rand
	messages int
	wire     *wiretest.Wire

	mu sync.Mutex
	// since is when the network was back and could be known to have been away, until
	// something comes; late is how long that took at most.
	since time.Time
	late  time.Duration
	backs int
}

// stormNode is a node that can be restarted at its address.
type stormNode struct {
	options node.Options
	node    *node.Node
}

func (n *stormNode) restart(t *testing.T) {
	t.Helper()
	check(t, n.node.Close())
	n.options.Listen = n.node.Addr()
	n.node = must(node.Start(t.Context(), n.options))(t)
}

func stormSeed(t *testing.T) uint64 {
	if text := os.Getenv("XMTP_STORM"); text != "" {
		return must(strconv.ParseUint(text, 10, 64))(t)
	}
	return mathrand.Uint64()
}

// TestStorm lets two clients stream while the network does its worst: every message
// comes once, in order, on a plain stream, and on a durable one whose client is closed
// and opened again all the time.
func TestStorm(t *testing.T) {
	conversations, messages := 100, 20_000
	ctx := t.Context()
	dir := t.TempDir()
	carols := []Option{WithDatabase(filepath.Join(dir, "carol.db"))}
	if proof {
		messages = 100_000
	} else {
		// A durable stream syncs the disk for each message, which on some takes long.
		memory := crashtest.New(t)
		carols = []Option{WithKey(make([]byte, store.KeySize)), func(o *options) error { o.path, o.vfs = "/carol.db", memory.Name(); return nil }}
	}
	seed := stormSeed(t)
	t.Logf("XMTP_STORM=%d", seed)
	s := &storm{t: t, rand: mathrand.New(mathrand.NewPCG(seed, 0)), messages: messages}
	n := &stormNode{options: node.Options{Listen: "127.0.0.1:0", Data: filepath.Join(dir, "node")}}
	n.node = must(node.Start(ctx, n.options))(t)
	t.Cleanup(func() { check(t, n.node.Close()) })
	s.wire = must(wiretest.Listen(n.node.Addr()))(t)
	t.Cleanup(s.wire.Close)

	alice := newClient(t, "http://"+n.node.Addr())
	bob := newClient(t, "http://"+s.wire.Addr())
	carols = append(carols, WithNode("http://"+s.wire.Addr()))
	wallet := must(GeneratePrivateKeySigner())(t)
	open := func() *Client { return openClient(t, wallet, carols...) }
	carol := open()
	var groups []*Conversation
	for range conversations {
		groups = append(groups, must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID(), carol.InboxID()))(t))
	}

	var running sync.WaitGroup
	plain, durable := newTally(t, "plain", groups), newTally(t, "durable", groups)
	stream := bob.StreamAllMessages(ctx)
	running.Go(func() {
		for m, err := range stream {
			check(t, err)
			if m.Kind == KindApplication {
				s.arrived()
				if plain.add(m); plain.count == messages {
					return
				}
			}
		}
	})
	carol.StreamAllMessages(ctx, Durable("all")) // it begins here
	reopened := 0
	running.Go(func() {
		for durable.count < messages {
			until := durable.count + messages/10
			for m, err := range carol.StreamAllMessages(ctx, Durable("all")) {
				check(t, err)
				if m.Kind == KindApplication {
					if durable.add(m); durable.count == messages || durable.count == until {
						break
					}
				}
			}
			check(t, carol.Close())
			carol = open()
			reopened++
		}
	})

	weather, fair := context.WithCancel(ctx)
	var blowing sync.WaitGroup
	blowing.Go(func() { s.blow(weather) })
	begin := time.Now()
	const batch = 20
	for i := range messages / batch {
		if i == messages/batch/3 || i == messages/batch*2/3 {
			n.restart(t)
		}
		v := groups[i%conversations]
		for range batch {
			must(v.SendOptimistic(content.Text(plain.next(v))))(t)
		}
		for err := v.PublishMessages(ctx); err != nil; err = v.PublishMessages(ctx) {
			if !errors.Is(err, ErrNotPublished) {
				t.Fatal(err)
			}
		}
	}
	sent := time.Since(begin)
	fair()
	blowing.Wait()
	running.Wait()
	if s.backs == 0 || reopened < 5 {
		t.Errorf("back %d times, reopened %d times", s.backs, reopened)
	}
	t.Logf("CHECK storm: %d messages over %d conversations in %.1f s (sent in %.1f s), %d breaks of the network, node restarted twice, client reopened %d times: each once, in order; back after at most: %.2f s",
		messages, conversations, time.Since(begin).Seconds(), sent.Seconds(), s.backs, reopened, s.late.Seconds())
	if s.late > 5*time.Second { // it is measured on machines that have more to do
		t.Errorf("back %v after the network", s.late)
	}
}

// blow breaks the network for a while, about every second, until ctx ends.
func (s *storm) blow(ctx context.Context) {
	for sleep(ctx, time.Duration(s.rand.Int64N(int64(time.Second)))) == nil {
		state := []wiretest.State{wiretest.Cut, wiretest.Stalled, wiretest.Hole}[s.rand.IntN(3)]
		length := time.Duration(s.rand.Int64N(int64(time.Second)))
		s.mu.Lock()
		s.since = time.Time{}
		s.mu.Unlock()
		s.wire.Set(state)
		down := time.Now()
		_ = sleep(ctx, length)
		s.wire.Set(wiretest.Up)
		s.mu.Lock()
		s.since = time.Now()
		if noticed := down.Add(time.Second); state == wiretest.Hole && s.since.Before(noticed) {
			s.since = noticed
		}
		s.backs++
		s.mu.Unlock()
	}
}

// arrived notes that the stream is back.
func (s *storm) arrived() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.since.IsZero() {
		s.late = max(s.late, time.Since(s.since))
		s.since = time.Time{}
	}
}

// tally counts what comes of each conversation.
type tally struct {
	t     *testing.T
	name  string
	count int
	sent  map[string]int
	got   map[string]int
}

func newTally(t *testing.T, name string, groups []*Conversation) *tally {
	y := &tally{t: t, name: name, sent: map[string]int{}, got: map[string]int{}}
	for _, v := range groups {
		y.got[v.ID()] = 0
	}
	return y
}

// next is the next text in a conversation.
func (y *tally) next(v *Conversation) string {
	y.sent[v.ID()]++
	return strconv.Itoa(y.sent[v.ID()])
}

func (y *tally) add(m *Message) {
	y.count++
	want := y.got[m.ConversationID] + 1
	if m.Text() != strconv.Itoa(want) {
		y.t.Errorf("%s: got %q, want %d", y.name, m.Text(), want)
	}
	y.got[m.ConversationID] = want
}

// A network that is away for two seconds in the midst of 500 messages, with nothing
// set: all come, and soon.
func TestCutInAStream(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	wire := must(wiretest.Listen(url[len("http://"):]))(t)
	t.Cleanup(wire.Close)
	alice, bob := newClient(t, url), newClient(t, "http://"+wire.Addr())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	v := must(alice.DM(ctx, bob.Address()))(t)
	var want []string
	send := func(n int) {
		t.Helper()
		for range n {
			want = append(want, fmt.Sprint(len(want)))
			must(v.SendOptimistic(content.Text(want[len(want)-1])))(t)
		}
		check(t, v.PublishMessages(ctx))
	}
	texts := listen(t, bob)
	var got []string
	take := func(n int) {
		t.Helper()
		for len(got) < n {
			select {
			case text := <-texts:
				got = append(got, text)
			case <-ctx.Done():
				t.Fatalf("%d of %d arrive", len(got), n)
			}
		}
	}
	send(100)
	take(100)
	wire.Set(wiretest.Cut)
	send(300)
	check(t, sleep(ctx, 2*time.Second))
	wire.Set(wiretest.Up)
	up := time.Now()
	take(101)
	back := time.Since(up)
	send(100)
	take(500)
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	t.Logf("CHECK streams: a cut of 2 s in 500 messages: back after %.2f s, %d of 500", back.Seconds(), len(got))
}

// All clients of a process share one connection, also for their streams.
func TestClientsShareAConnection(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	wire := must(wiretest.Listen(url[len("http://"):]))(t)
	t.Cleanup(wire.Close)
	alice := newClient(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var members []string
	var streams []<-chan string
	for range 12 {
		c := newClient(t, "http://"+wire.Addr())
		members, streams = append(members, c.InboxID()), append(streams, listen(t, c))
	}
	group := must(alice.NewGroup(ctx, GroupOptions{}, members...))(t)
	must(group.SendText(ctx, "hello"))(t)
	for _, texts := range streams {
		wantText(ctx, t, texts, "hello")
	}
	if n := wire.Opened(); n != 1 {
		t.Errorf("%d connections", n)
	}
}
