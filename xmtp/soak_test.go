package xmtp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// relay passes connections on to a node until they are cut.
type relay struct {
	url  string
	port net.Listener
	to   string

	mu     sync.Mutex
	cut    bool
	conns  map[net.Conn]bool
	closed sync.WaitGroup
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	port := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	r := &relay{url: "http://" + port.Addr().String(), port: port, to: to, conns: map[net.Conn]bool{}}
	r.closed.Go(func() {
		for {
			conn, err := port.Accept()
			if err != nil {
				return
			}
			r.closed.Go(func() { r.pass(conn) })
		}
	})
	t.Cleanup(func() {
		port.Close()
		r.set(true)
		r.closed.Wait()
	})
	return r
}

// set cuts what is there and lets nothing through, or ends that.
func (r *relay) set(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	for conn := range r.conns {
		if cut {
			conn.Close()
		}
	}
}

// hold notes connections that a cut closes, and is false during one.
func (r *relay) hold(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range conns {
		r.conns[conn] = !r.cut
	}
	return !r.cut
}

func (r *relay) pass(conn net.Conn) {
	defer conn.Close()
	node, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer node.Close()
	if r.hold(conn, node) {
		var back sync.WaitGroup
		back.Go(func() {
			io.Copy(conn, node)
			conn.Close()
		})
		io.Copy(node, conn)
		node.Close()
		back.Wait()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
	delete(r.conns, node)
}

// soak is many clients in few groups. Some are members for good; others come and go.
type soak struct {
	t        *testing.T
	clients  []*soaked
	byInbox  map[string]*soaked
	relays   []*relay
	groups   []*soakGroup
	byGroup  map[string]*soakGroup
	acting   sync.RWMutex // read-locked by whoever does something
	stop     chan struct{}
	received atomic.Int64
	sent     atomic.Int64
	changes  atomic.Int64
	cuts     atomic.Int64
}

type soakGroup struct {
	id      string
	members []*soaked // for good; the first is the super admin
	visits  map[*soaked]*atomic.Int64
}

func (g *soakGroup) forGood(c *soaked) bool {
	for _, m := range g.members {
		if m == c {
			return true
		}
	}
	return false
}

// soaked is a client, how much it has sent in each group, and the last number
// that it has seen of each sender there.
type soaked struct {
	*Client
	number int
	mu     sync.Mutex
	sent   map[string]int
	seen   map[string]sight
}

type sight struct {
	number int
	visit  int64
}

func soakLength(t *testing.T) time.Duration {
	if text := os.Getenv("XMTP_SOAK"); text != "" {
		return must(time.ParseDuration(text))(t)
	}
	if proof {
		return time.Hour
	}
	return 6 * time.Second
}

// TestSoak lets clients join, leave, send, renew keys and lose their connections at
// random. Nobody misses anything while he is a member, or sees it twice, or out of
// order; after the first sixth of the time neither memory nor goroutines grow.
func TestSoak(t *testing.T) {
	length, clients, groups, samples := soakLength(t), 24, 4, 6
	if proof {
		clients, groups, samples = 200, 25, 12
	}
	s := newSoak(t, clients, groups)
	var running sync.WaitGroup
	for _, c := range s.clients {
		running.Go(func() { s.listen(c) })
	}
	var busy sync.WaitGroup
	for _, c := range s.clients {
		busy.Go(func() { s.repeat(time.Duration(clients)*time.Second/40, func() { s.send(c) }) })
	}
	for _, g := range s.groups {
		busy.Go(func() { s.repeat(time.Duration(groups)*time.Second/4, func() { s.change(g) }) })
	}
	for _, r := range s.relays {
		busy.Go(func() {
			s.interrupt(r) // at least once, however short it is
			s.repeat(5*time.Second, func() { s.interrupt(r) })
		})
	}
	heaps, goroutines := make([]uint64, samples), make([]int, samples)
	begin := time.Now()
	for i := range samples {
		<-time.After(time.Until(begin.Add(length * time.Duration(i+1) / time.Duration(samples))))
		heaps[i], goroutines[i] = s.sample()
	}
	close(s.stop)
	busy.Wait()
	s.settle()
	for _, c := range s.clients {
		check(t, c.Close())
	}
	running.Wait()

	// The second sixth against the last one.
	sixth := samples / 6
	heap, more := slices.Max(heaps[sixth:2*sixth]), slices.Min(heaps[5*sixth:])
	if more > heap+heap/10+8<<20 {
		t.Errorf("memory grows: %v", heaps)
	}
	if before, after := slices.Max(goroutines[sixth:2*sixth]), slices.Min(goroutines[5*sixth:]); after > before+before/10+20 {
		t.Errorf("goroutines grow: %v", goroutines)
	}
	if s.sent.Load() == 0 || s.changes.Load() == 0 || s.cuts.Load() == 0 {
		t.Error("something that was to happen did not")
	}
	t.Logf("CHECK soak: %v, %d clients, %d groups: %d messages sent, %d received, %d joins and leaves, %d cuts: none lost, doubled or out of order; heap %.1f MiB, then %.1f; goroutines %d, then %d",
		length, clients, groups, s.sent.Load(), s.received.Load(), s.changes.Load(), s.cuts.Load(),
		float64(heap)/(1<<20), float64(more)/(1<<20), goroutines[sixth], goroutines[samples-1])
}

func newSoak(t *testing.T, clients, groups int) *soak {
	dir := t.TempDir()
	n := must(node.Start(t.Context(), node.Options{Listen: "127.0.0.1:0", Data: filepath.Join(dir, "node")}))(t)
	t.Cleanup(func() { check(t, n.Close()) })
	s := &soak{t: t, byInbox: map[string]*soaked{}, byGroup: map[string]*soakGroup{}, stop: make(chan struct{})}
	for range clients / 8 {
		s.relays = append(s.relays, newRelay(t, n.Addr()))
	}
	key := make([]byte, store.KeySize)
	rand.Read(key)
	for i := range clients {
		// Its connection is lost so often that this says nothing.
		c := openClient(t, must(GeneratePrivateKeySigner())(t), WithNode(s.relays[i%len(s.relays)].url), WithKey(key),
			WithDatabase(filepath.Join(dir, fmt.Sprint(i, ".db"))), WithLogger(slog.New(slog.DiscardHandler)))
		one := &soaked{Client: c, number: i, sent: map[string]int{}, seen: map[string]sight{}}
		s.clients = append(s.clients, one)
		s.byInbox[c.InboxID()] = one
	}
	for i := range groups {
		g := &soakGroup{members: s.clients[3*i : 3*i+3], visits: map[*soaked]*atomic.Int64{}}
		for _, c := range s.clients {
			g.visits[c] = new(atomic.Int64)
		}
		v := must(g.members[0].NewGroup(t.Context(), GroupOptions{}, g.members[1].InboxID(), g.members[2].InboxID()))(t)
		g.id = v.ID()
		s.groups = append(s.groups, g)
		s.byGroup[g.id] = g
		for _, m := range g.members {
			check(t, m.Sync(t.Context()))
		}
	}
	return s
}

// repeat does something until the end, with pauses of about a length.
func (s *soak) repeat(pause time.Duration, do func()) {
	for {
		select {
		case <-time.After(mathrand.N(2 * pause)):
			s.acting.RLock()
			do()
			s.acting.RUnlock()
		case <-s.stop:
			return
		}
	}
}

// unpublished tells of errors that cuts cause.
func unpublished(err error) bool { return err == nil || errors.Is(err, ErrNotPublished) }

// send sends the next number of a client in one of its groups.
func (s *soak) send(c *soaked) {
	list, err := c.Conversations(ConversationOptions{})
	if err != nil {
		s.t.Error(err)
		return
	}
	mathrand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	for _, v := range list {
		g := s.byGroup[v.ID()]
		if active, err := v.IsActive(); err != nil || !active || g == nil {
			continue
		}
		s.say(c, g, v)
		return
	}
}

func (s *soak) say(c *soaked, g *soakGroup, v *Conversation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := v.SendText(s.t.Context(), fmt.Sprintf("%d %d", c.number, c.sent[g.id]))
	if !unpublished(err) {
		if g.forGood(c) {
			s.t.Errorf("client %d: %v", c.number, err)
		}
		return
	}
	c.sent[g.id]++
	s.sent.Add(1)
}

// change lets somebody in or out, or renews keys.
func (s *soak) change(g *soakGroup) {
	admin := g.members[0]
	v, err := admin.Conversation(g.id)
	if err != nil {
		s.t.Error(err)
		return
	}
	if mathrand.N(5) == 0 {
		other, err := g.members[1].Conversation(g.id)
		if err == nil {
			err = other.UpdateKeys(s.t.Context())
		}
		if !unpublished(err) && !isNetwork(err) {
			s.t.Error("keys: ", err)
		}
		return
	}
	who := s.clients[mathrand.N(len(s.clients))]
	if g.forGood(who) {
		return
	}
	members, err := v.Members(s.t.Context())
	if err != nil {
		if !isNetwork(err) {
			s.t.Error("members: ", err)
		}
		return
	}
	in := len(members) > 10
	for _, m := range members {
		in = in || m.InboxID == who.InboxID()
	}
	g.visits[who].Add(1)
	if in {
		err = v.RemoveMembers(s.t.Context(), who.InboxID())
	} else {
		err = v.AddMembers(s.t.Context(), who.InboxID())
	}
	var notAdded *NotAddedError
	if !unpublished(err) && !isNetwork(err) && !errors.As(err, &notAdded) {
		s.t.Error("members: ", err)
	}
	s.changes.Add(1)
}

// isNetwork tells of errors of calls whose connection was cut.
func isNetwork(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "Unavailable") || strings.Contains(err.Error(), "connection") || strings.Contains(err.Error(), "reached"))
}

// interrupt cuts the connections of some clients for a while.
func (s *soak) interrupt(r *relay) {
	r.set(true)
	s.cuts.Add(1)
	<-time.After(mathrand.N(time.Second))
	r.set(false)
}

// listen compares what comes with what came before.
func (s *soak) listen(c *soaked) {
	for m, err := range c.StreamAllMessages(s.t.Context()) {
		if errors.Is(err, ErrClosed) {
			return
		}
		if err != nil {
			s.t.Errorf("client %d: %v", c.number, err)
			return
		}
		if m.Kind != KindApplication {
			continue
		}
		var from, number int
		if _, err := fmt.Sscanf(m.Text(), "%d %d", &from, &number); err != nil {
			s.t.Errorf("client %d got %q", c.number, m.Text())
			continue
		}
		s.received.Add(1)
		g, sender := s.byGroup[m.ConversationID], s.clients[from]
		c.see(s.t, g, sender, number)
	}
}

func (c *soaked) see(t *testing.T, g *soakGroup, sender *soaked, number int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := fmt.Sprint(g.id, sender.number)
	last, before := c.seen[key]
	visit := g.visits[c].Load()
	switch {
	case before && number <= last.number:
		t.Errorf("client %d got %d of client %d after %d", c.number, number, sender.number, last.number)
	case !g.forGood(sender): // what it had not published when it was removed is gone
	case before && number > last.number+1 && visit == last.visit, !before && g.forGood(c) && number > 0:
		t.Errorf("client %d missed something of client %d before %d; there was %d", c.number, sender.number, number, last.number)
	}
	c.seen[key] = sight{number, visit}
}

// sample measures while nobody does anything.
func (s *soak) sample() (heap uint64, goroutines int) {
	s.acting.Lock()
	defer s.acting.Unlock()
	heap, goroutines = 1<<63, 1<<31-1
	for range 10 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		heap, goroutines = min(heap, stats.HeapAlloc), min(goroutines, runtime.NumGoroutine())
		<-time.After(20 * time.Millisecond)
	}
	return heap, goroutines
}

// settle lets everything be published and waits until all who are members have all
// that those have sent who are members for good.
func (s *soak) settle() {
	ctx := s.t.Context()
	for _, g := range s.groups {
		for _, c := range g.members {
			check(s.t, c.Sync(ctx))
			s.say(c, g, must(c.Conversation(g.id))(s.t))
		}
	}
	deadline := time.Now().Add(2 * time.Minute)
	for _, g := range s.groups {
		v := must(g.members[0].Conversation(g.id))(s.t)
		check(s.t, v.Sync(ctx))
		for _, m := range must(v.Members(ctx))(s.t) {
			for _, sender := range g.members {
				for !s.complete(g, s.byInbox[m.InboxID], sender) {
					if time.Now().After(deadline) {
						s.t.Errorf("client %d does not have all of client %d", s.byInbox[m.InboxID].number, sender.number)
						break
					}
					<-time.After(20 * time.Millisecond)
				}
			}
		}
	}
}

func (s *soak) complete(g *soakGroup, c, sender *soaked) bool {
	sender.mu.Lock()
	sent := sender.sent[g.id]
	sender.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[fmt.Sprint(g.id, sender.number)].number == sent-1
}
