package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// serveClients is what this program does when it is started with "client -serve": it
// hosts clients of ours and does what it is asked for, until its input ends.
func serveClients(ctx context.Context, cpu, heap string) error {
	if cpu != "" {
		file, err := os.Create(cpu)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, cancel := context.WithCancel(ctx)
	h := &host{clients: map[string]*xmtp.Client{}, streams: map[string]*delivered{}}
	var working sync.WaitGroup
	out := json.NewEncoder(os.Stdout)
	var writing sync.Mutex
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			cancel()
			return err
		}
		working.Go(func() {
			a, err := h.do(ctx, r)
			if err != nil {
				a.Error = err.Error()
			}
			a.Request = r.Request
			writing.Lock()
			defer writing.Unlock()
			_ = out.Encode(a) // if nobody reads it, the input ends, too
		})
	}
	cancel()
	working.Wait()
	err := h.close()
	if heap != "" {
		err = errors.Join(err, writeAllocations(heap))
	}
	return err
}

// writeAllocations writes what was allocated since the start of the process.
func writeAllocations(name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(file, 0), file.Close())
}

// A host has the clients of a process, by name.
type host struct {
	mu      sync.Mutex
	clients map[string]*xmtp.Client
	streams map[string]*delivered
	readers sync.WaitGroup
}

func (h *host) close() (err error) {
	for _, c := range h.clients {
		err = errors.Join(err, c.Close())
	}
	h.readers.Wait()
	return err
}

func (h *host) client(name string) (*xmtp.Client, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.clients[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("no client is called %q", name)
}

// timed is the time that work takes.
func timed(work func() error) (time.Duration, error) {
	begin := time.Now()
	err := work()
	return time.Since(begin), err
}

// do does what a request asks for. js/client.mjs does the same.
func (h *host) do(ctx context.Context, r request) (answer, error) {
	switch r.Op {
	case "hello":
		return answer{}, nil
	case "open":
		return h.open(ctx, r)
	case "others":
		return registerOthers(ctx, r)
	}
	c, err := h.client(r.Client)
	if err != nil {
		return answer{}, err
	}
	switch r.Op {
	case "stream":
		return answer{}, h.stream(ctx, r.Client, c)
	case "streamed":
		return h.streamed(ctx, r)
	case "dm", "group":
		return create(ctx, c, r)
	case "join", "syncAll":
		took, err := timed(func() error { return c.Sync(ctx) })
		if err != nil {
			return answer{}, err
		}
		list, err := c.Conversations(xmtp.ConversationOptions{})
		return answer{Took: []time.Duration{took}, Count: len(list)}, err
	case "list":
		begin := time.Now()
		list, err := c.Conversations(xmtp.ConversationOptions{})
		return answer{Took: []time.Duration{time.Since(begin)}, Count: len(list)}, err
	case "count":
		return count(c, r)
	}
	var all []*xmtp.Conversation
	for _, id := range r.Conversations {
		v, err := c.Conversation(id)
		if err != nil {
			return answer{}, err
		}
		all = append(all, v)
	}
	return inConversations(ctx, all, r)
}

// inConversations does what is done in one or several.
func inConversations(ctx context.Context, all []*xmtp.Conversation, r request) (answer, error) {
	one := all[0]
	change := func(change func(context.Context, ...string) error) (answer, error) {
		took, err := timed(func() error { return change(ctx, r.Users...) })
		if err != nil {
			return answer{}, err
		}
		members, err := one.Members(ctx)
		return answer{Took: []time.Duration{took}, Count: len(members)}, err
	}
	switch r.Op {
	case "add":
		return change(one.AddMembers)
	case "remove":
		return change(one.RemoveMembers)
	case "members":
		members, err := one.Members(ctx)
		return answer{Count: len(members)}, err
	case "sync":
		took, err := timed(func() error { return one.Sync(ctx) })
		return answer{Took: []time.Duration{took}}, err
	case "send":
		return send(ctx, all, r)
	case "receipt":
		took, err := timed(func() error {
			_, err := one.Send(ctx, &content.Encoded{Type: content.Type{Authority: "xmtp.org", Name: "readReceipt", Major: 1}})
			return err
		})
		return answer{Took: []time.Duration{took}}, err
	case "publish":
		took, err := timed(func() error {
			for i := range r.Count {
				if _, err := one.SendOptimistic(content.Text(textOf(r, i))); err != nil {
					return err
				}
			}
			return one.PublishMessages(ctx)
		})
		return answer{All: took}, err
	}
	return answer{}, fmt.Errorf("what is %q?", r.Op)
}

func (h *host) open(ctx context.Context, r request) (answer, error) {
	signer, err := xmtp.NewPrivateKeySigner(r.Key)
	if err != nil {
		return answer{}, err
	}
	key, err := hex.DecodeString(r.Key)
	if err != nil {
		return answer{}, err
	}
	options := []xmtp.Option{xmtp.WithNode(r.URL)}
	if r.Database == "" {
		options = append(options, xmtp.InMemory())
	} else {
		options = append(options, xmtp.WithDatabase(r.Database), xmtp.WithKey(key))
	}
	if r.Unpadded {
		options = append(options, xmtp.WithoutPadding())
	}
	begin := time.Now()
	c, err := xmtp.NewClient(ctx, signer, options...)
	if err != nil {
		return answer{}, err
	}
	took := time.Since(begin)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients[r.Client] = c
	return answer{Took: []time.Duration{took}, Inbox: c.InboxID()}, nil
}

// registerOthers registers people whom conversations can be had with and who never
// answer.
func registerOthers(ctx context.Context, r request) (answer, error) {
	a := answer{IDs: make([]string, r.Count)}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range a.IDs {
		group.Go(func() error {
			signer, err := xmtp.GeneratePrivateKeySigner()
			if err != nil {
				return err
			}
			c, err := xmtp.NewClient(ctx, signer, xmtp.WithNode(r.URL), xmtp.InMemory(), xmtp.WithoutWorkers())
			if err != nil {
				return err
			}
			a.IDs[i] = c.InboxID()
			return c.Close()
		})
	}
	return a, group.Wait()
}

func create(ctx context.Context, c *xmtp.Client, r request) (answer, error) {
	begin := time.Now()
	var v *xmtp.Conversation
	var err error
	if r.Op == "dm" {
		v, err = c.DM(ctx, r.Users[0])
	} else {
		v, err = c.NewGroup(ctx, xmtp.GroupOptions{}, r.Users...)
	}
	if err != nil {
		return answer{}, err
	}
	took := time.Since(begin)
	members, err := v.Members(ctx)
	return answer{Took: []time.Duration{took}, ID: v.ID(), Count: len(members)}, err
}

func count(c *xmtp.Client, r request) (a answer, err error) {
	var list []*xmtp.Conversation
	for _, id := range r.Conversations {
		v, err := c.Conversation(id)
		if err != nil {
			return answer{}, err
		}
		list = append(list, v)
	}
	if len(list) == 0 {
		if list, err = c.Conversations(xmtp.ConversationOptions{}); err != nil {
			return answer{}, err
		}
	}
	for _, v := range list {
		n, err := v.CountMessages(xmtp.MessageOptions{Types: []content.Type{content.TypeText}})
		if err != nil {
			return answer{}, err
		}
		a.Count += n
	}
	return a, nil
}

// textOf is a text that no other is like, so that a lost or doubled one shows.
func textOf(r request, i int) string {
	text := fmt.Sprintf("%s %d ", r.Tag, i)
	return text + strings.Repeat(".", max(0, r.Size-len(text)))
}

// send sends texts, awaited, by workers of which each has a conversation.
func send(ctx context.Context, all []*xmtp.Conversation, r request) (answer, error) {
	var pace <-chan time.Time
	if r.Every > 0 {
		ticker := time.NewTicker(r.Every)
		defer ticker.Stop()
		pace = ticker.C
	}
	a := answer{Took: make([]time.Duration, r.Count)}
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for w := range max(r.Workers, 1) {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= r.Count {
					return nil
				}
				if pace != nil {
					<-pace
				}
				took, err := timed(func() error {
					_, err := all[w%len(all)].SendText(ctx, textOf(r, i))
					return err
				})
				if err != nil {
					return err
				}
				a.Took[i] = took
			}
		})
	}
	err := group.Wait()
	a.All = time.Since(begin)
	return a, err
}

// delivered is what a stream has brought since it was last asked.
type delivered struct {
	mu    sync.Mutex
	at    []int64
	late  []time.Duration // after the node's time
	seen  map[string]bool
	more  chan struct{} // holds a token when something has come
	ended error
}

func (h *host) stream(ctx context.Context, name string, c *xmtp.Client) error {
	d := &delivered{seen: map[string]bool{}, more: make(chan struct{}, 1)}
	h.mu.Lock()
	h.streams[name] = d
	h.mu.Unlock()
	h.readers.Go(func() {
		for m, err := range c.StreamAllMessages(ctx) {
			d.mu.Lock()
			if err != nil {
				d.ended = err
			} else if m.Text() != "" && m.SenderInboxID != c.InboxID() {
				at := time.Now()
				d.at = append(d.at, at.UnixNano())
				d.late = append(d.late, at.Sub(m.SentAt))
				d.seen[m.ID] = true
			}
			d.mu.Unlock()
			select {
			case d.more <- struct{}{}:
			default:
			}
		}
	})
	return nil
}

// streamed waits for so many texts on the stream, but no longer, and hands them over.
func (h *host) streamed(ctx context.Context, r request) (answer, error) {
	h.mu.Lock()
	d := h.streams[r.Client]
	h.mu.Unlock()
	if d == nil {
		return answer{}, fmt.Errorf("client %q has no stream", r.Client)
	}
	timer := time.NewTimer(r.Wait)
	defer timer.Stop()
	for waiting := true; waiting; {
		d.mu.Lock()
		enough := len(d.seen) >= r.Count
		err := d.ended
		d.mu.Unlock()
		if err != nil {
			return answer{}, err
		}
		if enough {
			break
		}
		select {
		case <-d.more:
		case <-timer.C:
			waiting = false
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a := answer{At: d.at, Took: d.late, Count: len(d.seen)}
	d.at, d.late, d.seen = nil, nil, map[string]bool{}
	return a, nil
}
