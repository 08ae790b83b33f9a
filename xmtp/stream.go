package xmtp

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/network"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

func newGroupID() []byte {
	id := make([]byte, protocol.GroupIDSize)
	rand.Read(id)
	return id
}

// notifier tells who waits that there is something new in the database.
type notifier struct {
	mu   sync.Mutex
	next chan struct{} // closed and replaced by publish
}

func (n *notifier) init() { n.next = make(chan struct{}) }

// wait returns a channel that is closed by the next publish.
func (n *notifier) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.next
}

func (n *notifier) publish() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.next)
	n.next = make(chan struct{})
}

// liveStreams keeps streams of the node open while anybody uses them.
type liveStreams struct {
	client *Client

	mu    sync.Mutex
	users int
	stop  context.CancelFunc
	// more holds a token when a group was added that is not streamed yet.
	more chan struct{}

	trouble trouble
}

// trouble is why nothing of what the node's streams bring can be stored at present.
type trouble struct {
	mu    sync.Mutex
	err   error
	count int // which trouble it is; the same until it is over
}

// note takes the reason why streams have ended, and tells whether it is a new trouble.
func (t *trouble) note(err error) (anew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	anew = t.err == nil && store.IsDisk(err)
	if anew {
		t.err = err
		t.count++
	}
	return anew
}

// over says that things can be stored again.
func (t *trouble) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = nil
}

// since returns the trouble if it is another than the one that was told; nil if not.
func (t *trouble) since(told int) (count int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == told {
		return told, nil
	}
	return t.count, t.err
}

func (l *liveStreams) init(c *Client) {
	l.client, l.more = c, make(chan struct{}, 1)
}

// use opens the streams if they are not, and returns what ends their use.
func (l *liveStreams) use() (done func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users++
	if l.users == 1 && l.client.closing.Err() == nil {
		ctx, stop := context.WithCancel(l.client.closing)
		l.stop = stop
		l.trouble.over() // it was that of others
		l.client.workers.Go(func() { l.run(ctx) })
	}
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.users--
		if l.users == 0 && l.stop != nil {
			l.stop()
			l.stop = nil
		}
	})
}

// changed says that there is a group that may not be streamed yet.
func (l *liveStreams) changed() {
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// steady is for how long a feed has to stand so that it counts as open.
const steady = 5 * time.Second

// run keeps a feed open until ctx ends. A feed waits for the connection; so what is
// waited for here is a node that can be reached and doesn't let it stand.
func (l *liveStreams) run(ctx context.Context) {
	var again network.Backoff
	fixed := false // the node knows no others
	for ctx.Err() == nil {
		opened := time.Now()
		err := l.once(ctx, fixed)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errFixed) {
			fixed = true
			continue
		}
		if errors.Is(err, errReopen) || time.Since(opened) > steady {
			again.Reset()
		}
		if errors.Is(err, errReopen) {
			continue
		}
		if l.trouble.note(err) {
			l.client.news.publish() // to tell those who read
		}
		delay := again.Next()
		if limit, ok := errors.AsType[*RateLimitError](err); ok {
			delay = max(delay, limit.RetryAfter)
		}
		l.client.options.logger.Info("stream lost", "error", err, "again in", delay)
		if sleep(ctx, delay) != nil {
			return
		}
	}
}

// errReopen ends a round because there are groups that its feed can't bring.
var errReopen = errors.New("there are more groups to stream")

// once opens a feed and applies what it brings until it ends.
func (l *liveStreams) once(ctx context.Context, fixed bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := l.client
	streamed := map[string]bool{}
	rows, err := l.unstreamed(ctx, streamed)
	if err != nil {
		return err
	}
	var cursor int64
	err = c.db.View(func(tx *store.Tx) (err error) {
		cursor, err = tx.Number(numberWelcome)
		return err
	})
	if err != nil {
		return err
	}
	f, err := c.openFeed(ctx, rows, uint64(cursor), fixed)
	defer f.wait()
	defer cancel()
	if err != nil {
		return err
	}
	c.publishSoon() // what waits in outboxes may have waited for the connection
	f.welcome()     // there may be some that came too early
	for {
		select {
		case m := <-f.messages:
			if err := c.applyStreamed(ctx, drain(f.messages, m)); err != nil {
				return err
			}
			l.trouble.over()
		case <-f.welcomed:
			joined, more, err := c.syncWelcomes(ctx)
			if err != nil && !lies(err) {
				return err
			}
			if len(joined) > 0 {
				l.trouble.over()
				c.news.publish()
				l.changed()
			}
			if more {
				f.welcome() // messages are not to wait for all of them
			}
		case <-l.more:
			rows, err := l.unstreamed(ctx, streamed)
			if err != nil {
				return err
			}
			if fixed && len(rows) > 0 {
				return errReopen
			}
			f.add(rows)
		case err := <-f.ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// unstreamed returns the groups that are not streamed yet, and are from now on.
// It returns errReopen if one that is streamed has begun anew, so that the feed
// is no longer where the group is.
func (l *liveStreams) unstreamed(ctx context.Context, streamed map[string]bool) ([]store.Group, error) {
	select {
	case <-l.more: // all groups that are there now are looked at
	default:
	}
	c := l.client
	var rows []store.Group
	err := c.db.View(func(tx *store.Tx) (err error) {
		rows, err = tx.Groups()
		return err
	})
	if err != nil {
		return nil, err
	}
	more := rows[:0]
	for _, row := range rows {
		if row.Problem != "" {
			continue
		}
		g := c.groups.get(row.ID)
		if err := g.acquire(ctx); err != nil {
			return nil, err
		}
		anew := g.streamed == unstreamed
		if !streamed[string(row.ID)] {
			g.streamed = row.Cursor
		}
		g.release()
		switch {
		case !streamed[string(row.ID)]:
			streamed[string(row.ID)] = true
			more = append(more, row)
		case anew:
			return nil, errReopen
		}
	}
	return more, nil
}

// drain takes what is there after the first message, up to a page.
func drain(messages <-chan *mlsapi.GroupMessage_V1, first *mlsapi.GroupMessage_V1) []*mlsapi.GroupMessage_V1 {
	list := []*mlsapi.GroupMessage_V1{first}
	for len(list) < pageSize {
		select {
		case m := <-messages:
			list = append(list, m)
		default:
			return list
		}
	}
	return list
}

// applyStreamed applies what a stream has brought, group by group.
func (c *Client) applyStreamed(ctx context.Context, messages []*mlsapi.GroupMessage_V1) error {
	var order []string
	byGroup := map[string][]*mlsapi.GroupMessage_V1{}
	for _, m := range messages {
		id := string(m.GroupId)
		if byGroup[id] == nil {
			order = append(order, id)
		}
		byGroup[id] = append(byGroup[id], m)
	}
	for _, id := range order {
		err := c.known([]byte(id))
		if err == nil {
			err = c.groups.get([]byte(id)).applyStreamed(ctx, byGroup[id])
		}
		if errors.Is(err, ErrPaused) || errors.Is(err, ErrStateRolledBack) || errors.Is(err, ErrNotFound) || lies(err) {
			c.options.logger.Warn("conversation not followed", "reason", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// known says whether there is a group of an id that a node has sent something for.
func (c *Client) known(id []byte) error {
	var found bool
	err := c.db.View(func(tx *store.Tx) (err error) {
		_, found, err = tx.Group(id)
		return err
	})
	if err == nil && !found {
		err = c.wrongAnswer(callStream, "a message of a conversation that was not asked for")
	}
	return err
}

// applyStreamed applies messages of a stream. They follow each other without a
// gap; so if everything before the first one was applied, they can be. Else the
// log is read.
func (g *group) applyStreamed(ctx context.Context, messages []*mlsapi.GroupMessage_V1) error {
	if err := g.acquire(ctx); err != nil {
		return err
	}
	defer g.release()
	row, err := g.row()
	if err != nil || row.Problem != "" {
		return err
	}
	if err := usable(row); err != nil {
		return err
	}
	gapless := row.Cursor >= g.streamed
	g.streamed = messages[len(messages)-1].Id
	for len(messages) > 0 && messages[0].Id <= row.Cursor {
		messages = messages[1:]
	}
	if len(messages) == 0 {
		return nil
	}
	if gapless {
		// What a stream gets wrong the log may tell.
		if _, err := g.apply(ctx, row, messages); !lies(err) {
			return err
		}
	}
	return g.receive(ctx)
}
