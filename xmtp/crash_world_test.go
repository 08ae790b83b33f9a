package xmtp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// device is a client whose power and connection can be cut.
type device struct {
	signer Signer
	key    []byte
	fs     *crashtest.FS
	proxy  *proxy
	client *Client
	// options are given besides those that it takes to be a device.
	options []Option
	// spent is how many points of each kind what was armed had, at most.
	spent map[string]int
}

func newDevice(t *testing.T, fs *crashtest.FS, p *proxy) *device {
	t.Helper()
	d := &device{signer: must(GeneratePrivateKeySigner())(t), key: make([]byte, store.KeySize), fs: fs, proxy: p, spent: map[string]int{}}
	rand.Read(d.key)
	t.Cleanup(func() {
		if d.client != nil {
			check(t, d.client.Close())
		}
	})
	return d
}

func (d *device) open(ctx context.Context, t *testing.T) (err error) {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	file := func(o *options) error { o.path, o.vfs = "/client.db", d.fs.Name(); return nil }
	list := append([]Option{file, WithNode(d.proxy.url), WithKey(d.key), WithoutWorkers(), WithLogger(logger)}, d.options...)
	d.client, err = NewClient(ctx, d.signer, list...)
	return err
}

// crash is what remains to be done after, or instead of, a cut: nothing of the
// program goes on, and what the disk has not got is lost.
func (d *device) crash(loss crashtest.Loss) {
	d.fs.Cut()
	d.proxy.kill()
	if d.client != nil {
		_ = d.client.Close() // it can't write any more
		d.client = nil
	}
	d.fs.Restart(loss)
	d.proxy.revive()
}

// cut is a point at which a client is stopped, or at which its disk fails and the
// client goes on.
type cut struct {
	kind string
	n    int // which operation or call, counted from 1
}

const (
	atWrite     = "write"  // an operation of the file system
	atRead      = "read"   // of the file system
	beforeCall  = "before" // a call does not reach the node
	beforeReply = "after"  // the node has done it, but the answer is lost
)

// diskFaults are the kinds of points from which the client goes on.
var diskFaults = map[string]crashtest.Fault{
	"one failure": crashtest.FailOnce, "one failed read": crashtest.FailRead, "full disk": crashtest.Full, "read-only disk": crashtest.ReadOnly,
}

func (at cut) fault() crashtest.Fault { return diskFaults[at.kind] }

// faults are what the errors of a disk are told as.
var faults = map[crashtest.Fault]error{
	crashtest.FailOnce: ErrDiskFault, crashtest.FailRead: ErrDiskFault, crashtest.Full: ErrDiskFull, crashtest.ReadOnly: ErrReadOnly,
}

// armed returns a context that ends with the cut, and what ends what was to be cut.
func (d *device) armed(t *testing.T, at cut) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	before := d.count()
	switch {
	case at.fault() != 0:
		d.fs.FaultAt(at.n, at.fault())
	case at.kind == atWrite:
		d.fs.CutAt(at.n, func() { d.proxy.kill(); cancel() })
	default:
		d.proxy.arm(at.n, at.kind == beforeReply, func() { d.fs.Cut(); cancel() })
	}
	return ctx, func() {
		cancel()
		for kind, n := range d.count() {
			d.spent[kind] = max(d.spent[kind], n-before[kind])
		}
	}
}

// count returns how many points of each kind there have been.
func (d *device) count() map[string]int {
	calls := d.proxy.count()
	return map[string]int{atWrite: d.fs.Ops(), atRead: d.fs.Reads(), beforeCall: calls, beforeReply: calls}
}

// world is a node, a client that crashes, and two who have to get along with that.
type world struct {
	url        string
	fs         *crashtest.FS
	proxy      *proxy
	alice      *device
	bob, carol *Client
	ledger     *ledger

	// sent is the texts that were sent, true if the sender was told that it is done.
	sent map[string]bool
	next int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	url := startNode(t)
	w := &world{url: url, fs: crashtest.New(t), proxy: newProxy(t, url), ledger: newLedger(), sent: map[string]bool{}}
	w.proxy.published = w.ledger.add
	w.alice = newDevice(t, w.fs, w.proxy)
	check(t, w.alice.open(t.Context(), t))
	w.bob = newClient(t, url, WithoutWorkers())
	w.carol = newClient(t, url, WithoutWorkers())
	return w
}

// text makes a text that has not been sent before.
func (w *world) text() string {
	w.next++
	return textOf(w.next)
}

func textOf(number int) string { return fmt.Sprintf("text %04d", number) }

// say sends a text and notes what the sender was told.
func (w *world) say(ctx context.Context, c *Client, id string) error {
	v, err := c.Conversation(id)
	if err != nil {
		return err
	}
	text := w.text()
	w.sent[text] = false
	_, err = v.SendText(ctx, text)
	w.sent[text] = err == nil
	return err
}

// came tells whether a cut or a fault has come to what has ended with err. If not, it
// should not have failed; if so, a fault must be told as what it is.
func (w *world) came(t *testing.T, at cut, err error) bool {
	t.Helper()
	came := w.fs.WasCut() || w.fs.Faulted()
	if err != nil && !came {
		t.Fatal(err)
	}
	if err != nil && at.fault() != 0 && !errors.Is(err, faults[at.fault()]) {
		t.Errorf("%s at %d is told as %v", at.kind, at.n, err)
	}
	return came
}

// recover opens the client after a crash. Now and then it crashes again meanwhile.
// After a fault of the disk, which has ended, the client goes on as it is.
func (w *world) recover(t *testing.T, at cut, loss crashtest.Loss) {
	t.Helper()
	if at.fault() != 0 {
		w.fs.Repair()
		if w.alice.client == nil {
			check(t, w.alice.open(t.Context(), t))
		}
		return
	}
	w.alice.crash(loss)
	if at.n%3 == 0 {
		ctx, cancel := w.alice.armed(t, cut{atWrite, 1 + at.n%17})
		if err := w.alice.open(ctx, t); err == nil {
			_ = w.alice.client.Sync(ctx)
		}
		cancel()
		w.alice.crash(crashtest.LoseSome(uint64(at.n)))
	}
	if err := w.alice.open(t.Context(), t); err != nil {
		t.Fatalf("reopening: %v", err)
	}
}

// converge lets everybody sync and compares what they have: the same epoch, the
// same messages in the same order, each once, and all that were confirmed.
func (w *world) converge(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	alice := w.alice.client
	check(t, alice.Sync(ctx))
	var pending [][]byte
	check(t, alice.db.View(func(tx *store.Tx) (err error) {
		pending, err = tx.PendingGroups()
		return err
	}))
	for _, id := range pending {
		check(t, alice.groups.get(id).settleAll(ctx))
	}
	check(t, w.bob.Sync(ctx))
	check(t, w.carol.Sync(ctx))
	check(t, alice.Sync(ctx))
	w.ledger.observe(t, alice)
	w.ledger.observe(t, w.bob)
	w.ledger.observe(t, w.carol)
	w.ledger.check(t)
	wellLogged(t, alice)
}

// verify checks what must hold whatever was done: everybody goes on, no key was used
// twice, nothing is there twice, nobody has forked.
func (w *world) verify(t *testing.T) {
	t.Helper()
	w.converge(t)
	list := must(w.alice.client.Conversations(ConversationOptions{Limit: 3}))(t)
	for _, v := range list {
		said := texts(t, v)
		slices.Sort(said)
		if doubled := len(said) - len(slices.Compact(said)); doubled > 0 {
			t.Errorf("%d messages are there twice", doubled)
		}
		views := []*Conversation{v}
		for _, c := range []*Client{w.bob, w.carol} {
			if theirs, err := c.Conversation(v.ID()); err == nil && must(theirs.IsActive())(t) {
				views = append(views, theirs)
			}
		}
		if must(v.IsActive())(t) {
			sameEpoch(t, views...)
		}
	}
}

// wellLogged checks that the log of commits ends where the groups are.
func wellLogged(t *testing.T, c *Client) {
	t.Helper()
	for _, v := range must(c.Conversations(ConversationOptions{}))(t) {
		if !must(v.IsActive())(t) {
			continue
		}
		info := must(v.DebugInfo(t.Context()))(t)
		last := info.CommitLog[len(info.CommitLog)-1]
		if last.Epoch != info.Epoch || !bytes.Equal(last.EpochAuthenticator, info.EpochAuthenticator) {
			t.Errorf("epoch %d, the log of commits ends with %d", info.Epoch, last.Epoch)
		}
	}
}

// compare checks that clients have the same of a conversation.
func (w *world) compare(t *testing.T, id string, clients ...*Client) {
	t.Helper()
	var views []*Conversation
	for _, c := range clients {
		views = append(views, must(c.Conversation(id))(t))
	}
	sameEpoch(t, views...)
	first := texts(t, views[0])
	for i, v := range views[1:] {
		if diff := cmp.Diff(first, texts(t, v)); diff != "" {
			t.Errorf("client 0 and %d read (-, +):\n%s", i+1, diff)
		}
	}
	all := must(views[0].Messages(MessageOptions{}))(t)
	for _, m := range all {
		if m.Delivery != Published {
			t.Errorf("%q is %v", m.Text(), m.Delivery)
		}
	}
	slices.Sort(first)
	if doubled := len(first) - len(slices.Compact(first)); doubled > 0 {
		t.Errorf("%d messages are there twice", doubled)
	}
	for _, c := range clients {
		for _, s := range must(c.Skipped())(t) {
			// A commit that another one came before is made again by its author.
			if s.ConversationID == id && s.Reason != SkippedEpoch {
				t.Errorf("skipped: %+v", s)
			}
		}
	}
}

// forgotten checks that the keys of the newest messages that a client has read are
// gone from its database.
func forgotten(t *testing.T, c *Client, id string) {
	t.Helper()
	g := must(c.Conversation(id))(t).group
	response, err := c.node.MLS.QueryGroupMessages(t.Context(), &mlsapi.QueryGroupMessagesRequest{
		GroupId:    g.id,
		PagingInfo: &mlsapi.PagingInfo{Direction: mlsapi.SortDirection_SORT_DIRECTION_DESCENDING, Limit: 5},
	})
	check(t, err)
	check(t, g.acquire(t.Context()))
	defer g.release()
	g.mls = nil // it is read from the database again
	state, err := g.state()
	check(t, err)
	for _, m := range response.Messages {
		pending, err := state.Process(m.GetV1().Data)
		if err != nil {
			continue
		}
		if _, own := pending.Result().(*mls.OwnMessage); !own {
			t.Errorf("message %d can be decrypted again", m.GetV1().Id)
		}
		pending.Discard()
	}
}

// told checks that what the sender was told to be sent is there.
func (w *world) told(t *testing.T, c *Client, ids ...string) {
	t.Helper()
	there := map[string]bool{}
	for _, id := range ids {
		for _, text := range texts(t, must(c.Conversation(id))(t)) {
			there[text] = true
		}
	}
	for text, confirmed := range w.sent {
		if confirmed && !there[text] {
			t.Errorf("%q was confirmed and is lost", text)
		}
	}
}

// group makes a group of all three in which alice has sent already.
func (w *world) group(t *testing.T) string {
	t.Helper()
	v := must(w.alice.client.NewGroup(t.Context(), GroupOptions{}, w.bob.InboxID(), w.carol.InboxID()))(t)
	check(t, w.say(t.Context(), w.alice.client, v.ID()))
	w.converge(t)
	return v.ID()
}
