package xmtp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// proof tells whether to try every point, which takes long, or a sample.
var proof = os.Getenv("XMTP_PROOF") != ""

// device is a client whose power and connection can be cut.
type device struct {
	signer Signer
	key    []byte
	fs     *crashtest.FS
	proxy  *proxy
	client *Client
	// options are given besides those that it takes to be a device.
	options []Option
}

func newDevice(t *testing.T, fs *crashtest.FS, p *proxy) *device {
	t.Helper()
	d := &device{signer: must(GeneratePrivateKeySigner())(t), key: make([]byte, store.KeySize), fs: fs, proxy: p}
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

// cut is a point at which a client is stopped.
type cut struct {
	kind string
	n    int // which operation or call, counted from 1
}

const (
	atWrite     = "write"  // an operation of the file system
	beforeCall  = "before" // a call does not reach the node
	beforeReply = "after"  // the node has done it, but the answer is lost
)

// armed returns a context that ends with the cut.
func (d *device) armed(t *testing.T, at cut) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	switch at.kind {
	case atWrite:
		d.fs.CutAt(at.n, func() { d.proxy.kill(); cancel() })
	default:
		d.proxy.arm(at.n, at.kind == beforeReply, func() { d.fs.Cut(); cancel() })
	}
	return ctx, cancel
}

// losses are what a cut may do to what was not synced.
func losses(seed int) []crashtest.Loss {
	return []crashtest.Loss{crashtest.LoseUnsynced(), crashtest.LoseNothing(), crashtest.LoseSome(uint64(seed))}
}

// eachCut runs a test with a cut at every point of what it does, until what it
// does comes to its end before the cut, or with a sample of the points. run does
// it all: it arms the cut, and tells whether it came.
func eachCut(t *testing.T, sample int, run func(at cut, loss crashtest.Loss) (came bool)) {
	points := 0
	for k, kind := range []string{atWrite, beforeCall, beforeReply} {
		variants := 1
		if proof {
			variants = 3
		}
		for v := range variants {
			step := 1
			if !proof && kind == atWrite {
				step = sample
			}
			for n := 1; ; n += step {
				i := (n/step + k + v) % 3
				if t.Failed() {
					return
				}
				points++
				if !run(cut{kind, n}, losses(n)[i]) {
					break
				}
				if t.Failed() {
					t.Logf("%s %d, loss %d", kind, n, i)
				}
			}
		}
	}
	t.Logf("%d points", points)
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

// recover opens the client after a crash. Now and then it crashes again meanwhile.
func (w *world) recover(t *testing.T, at cut, loss crashtest.Loss) {
	t.Helper()
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

func TestCrashWhileRegistering(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eachCut(t, 19, func(at cut, loss crashtest.Loss) bool {
		check(t, w.alice.client.Close())
		w.fs.Load(nil)
		w.alice = newDevice(t, w.fs, w.proxy)
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.open(ctx, t)
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		// Others find the inbox, with one installation, and can let it in.
		v := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.Address()))(t)
		log := must(w.bob.inboxes.known(w.alice.client.InboxID()))(t)
		state, _ := log.latest()
		if n := len(state.Installations()); n != 1 {
			t.Errorf("%d installations", n)
		}
		w.sent = map[string]bool{}
		check(t, w.say(t.Context(), w.bob, v.ID()))
		w.converge(t)
		w.compare(t, v.ID(), w.bob, w.alice.client)
		w.told(t, w.alice.client, v.ID())
		return came
	})
}

func TestCrashWhileCreatingAGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	checked := map[string]bool{}
	eachCut(t, 29, func(at cut, loss crashtest.Loss) bool {
		ctx, cancel := w.alice.armed(t, at)
		v, err := w.alice.client.NewGroup(ctx, GroupOptions{}, w.bob.InboxID(), w.carol.Address())
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		w.converge(t)
		if err == nil {
			must(w.alice.client.Conversation(v.ID()))(t)
		}
		// What is there is there for all.
		lists := map[*Client]int{}
		for _, c := range []*Client{w.alice.client, w.bob, w.carol} {
			lists[c] = len(must(c.Conversations(ConversationOptions{}))(t))
		}
		if lists[w.bob] != lists[w.alice.client] || lists[w.carol] != lists[w.alice.client] {
			t.Errorf("conversations: %v", lists)
		}
		for _, v := range must(w.alice.client.Conversations(ConversationOptions{}))(t) {
			if checked[v.ID()] {
				continue
			}
			checked[v.ID()] = true
			w.sent = map[string]bool{}
			check(t, w.say(t.Context(), w.alice.client, v.ID()))
			check(t, w.say(t.Context(), w.bob, v.ID()))
			w.converge(t)
			w.compare(t, v.ID(), w.alice.client, w.bob, w.carol)
			w.told(t, w.carol, v.ID())
		}
		return came
	})
}

func TestCrashWhileCreatingADirectMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eachCut(t, 47, func(at cut, loss crashtest.Loss) bool {
		dave := newClient(t, w.url, WithoutWorkers())
		ctx, cancel := w.alice.armed(t, at)
		_, err := w.alice.client.DM(ctx, dave.Address())
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		// The user tries again: there is one, and it works.
		v := must(w.alice.client.DM(t.Context(), dave.Address()))(t)
		w.sent = map[string]bool{}
		check(t, w.say(t.Context(), w.alice.client, v.ID()))
		check(t, dave.Sync(t.Context()))
		w.converge(t)
		w.compare(t, v.ID(), w.alice.client, dave)
		w.told(t, dave, v.ID())
		if n := len(must(dave.Conversations(ConversationOptions{}))(t)); n != 1 {
			t.Errorf("%d conversations", n)
		}
		if rows := must(w.alice.client.siblings(v.row.DM))(t); len(rows) != 1 {
			t.Errorf("%d groups for one direct message", len(rows))
		}
		return came
	})
}

// group makes a group of all three in which alice has sent already.
func (w *world) group(t *testing.T) string {
	t.Helper()
	v := must(w.alice.client.NewGroup(t.Context(), GroupOptions{}, w.bob.InboxID(), w.carol.InboxID()))(t)
	check(t, w.say(t.Context(), w.alice.client, v.ID()))
	w.converge(t)
	return v.ID()
}

func TestCrashWhileSending(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	eachCut(t, 9, func(at cut, loss crashtest.Loss) bool {
		ctx, cancel := w.alice.armed(t, at)
		err := errors.Join(w.say(ctx, w.alice.client, id), w.say(ctx, w.alice.client, id))
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		check(t, w.say(t.Context(), w.alice.client, id))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.bob, id)
		return came
	})
}

// The first message in a group that somebody else made: our own commit, what is
// new of members, and the message.
func TestCrashWhileSendingForTheFirstTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eachCut(t, 29, func(at cut, loss crashtest.Loss) bool {
		w.sent = map[string]bool{}
		v := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.InboxID(), w.carol.InboxID()))(t)
		check(t, w.say(t.Context(), w.bob, v.ID()))
		w.converge(t)
		ctx, cancel := w.alice.armed(t, at)
		err := w.say(ctx, w.alice.client, v.ID())
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		check(t, w.say(t.Context(), w.alice.client, v.ID()))
		w.converge(t)
		w.compare(t, v.ID(), w.alice.client, w.bob, w.carol)
		w.told(t, w.bob, v.ID())
		return came
	})
}

func TestCrashWhileChangingMembers(t *testing.T) {
	t.Parallel()
	changeMembers(t, func(*world, string) {})
}

// Another commit comes first, so that ours is made twice.
func TestCrashWhileLosingARace(t *testing.T) {
	t.Parallel()
	changeMembers(t, func(w *world, id string) {
		check(t, must(w.bob.Conversation(id))(t).UpdateKeys(t.Context()))
		check(t, w.say(t.Context(), w.bob, id))
	})
}

func changeMembers(t *testing.T, before func(w *world, id string)) {
	w := newWorld(t)
	dave := newClient(t, w.url, WithoutWorkers())
	id := w.group(t)
	in := false
	eachCut(t, 29, func(at cut, loss crashtest.Loss) bool {
		v := must(w.alice.client.Conversation(id))(t)
		before(w, id)
		ctx, cancel := w.alice.armed(t, at)
		var err error
		if in {
			err = v.RemoveMembers(ctx, dave.InboxID())
		} else {
			err = v.AddMembers(ctx, dave.InboxID())
		}
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		w.converge(t)
		members := must(must(w.alice.client.Conversation(id))(t).Members(t.Context()))(t)
		if now := slices.ContainsFunc(members, func(m Member) bool { return m.InboxID == dave.InboxID() }); err == nil && now == in {
			t.Error("the change was confirmed and is lost")
		} else {
			in = now
		}
		check(t, w.say(t.Context(), w.alice.client, id))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		check(t, dave.Sync(t.Context()))
		daves, err := dave.Conversation(id)
		if in {
			check(t, err)
			sameEpoch(t, daves, must(w.bob.Conversation(id))(t))
		} else if err == nil {
			if active := must(daves.IsActive())(t); active {
				t.Error("dave was removed and does not know")
			}
		}
		return came
	})
}

func TestCrashWhileReceiving(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	eachCut(t, 9, func(at cut, loss crashtest.Loss) bool {
		// Messages, commits, and messages of the next epochs.
		check(t, w.say(t.Context(), w.bob, id))
		check(t, must(w.bob.Conversation(id))(t).UpdateKeys(t.Context()))
		check(t, w.say(t.Context(), w.bob, id))
		check(t, w.say(t.Context(), w.carol, id))
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.Sync(ctx)
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.alice.client, id)
		forgotten(t, w.alice.client, id)
		check(t, w.say(t.Context(), w.alice.client, id))
		return came
	})
}

func TestCrashWhileStreaming(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	eachCut(t, 9, func(at cut, loss crashtest.Loss) bool {
		ctx, cancel := w.alice.armed(t, at)
		connected := w.proxy.streams()
		streamed := make(chan error, 1)
		last := w.next + 3
		go func() {
			for m, err := range w.alice.client.StreamAllMessages(ctx) {
				if err != nil {
					streamed <- err
					return
				}
				if m.Text() == textOf(last) {
					break
				}
			}
			streamed <- nil
		}()
		select { // what comes after this comes on the stream
		case <-connected:
		case <-ctx.Done():
		}
		check(t, w.say(t.Context(), w.bob, id))
		check(t, must(w.bob.Conversation(id))(t).UpdateKeys(t.Context()))
		check(t, w.say(t.Context(), w.carol, id))
		check(t, w.say(t.Context(), w.bob, id))
		err := <-streamed
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		w.told(t, w.alice.client, id)
		forgotten(t, w.alice.client, id)
		return came
	})
}

func TestCrashWhileJoining(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eachCut(t, 9, func(at cut, loss crashtest.Loss) bool {
		w.sent = map[string]bool{}
		v := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.InboxID()))(t)
		check(t, w.say(t.Context(), w.bob, v.ID()))
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.Sync(ctx)
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		w.converge(t)
		check(t, w.say(t.Context(), w.alice.client, v.ID()))
		w.converge(t)
		w.compare(t, v.ID(), w.alice.client, w.bob)
		w.told(t, w.alice.client, v.ID())
		w.told(t, w.bob, v.ID())
		return came
	})
}

func TestCrashWhileRotatingTheKeyPackage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eachCut(t, 5, func(at cut, loss crashtest.Loss) bool {
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.rotateKeyPackage(ctx)
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		// Whatever others get, alice has the keys for it.
		w.sent = map[string]bool{}
		v := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.InboxID()))(t)
		check(t, w.say(t.Context(), w.bob, v.ID()))
		w.converge(t)
		w.compare(t, v.ID(), w.alice.client, w.bob)
		w.told(t, w.alice.client, v.ID())
		return came
	})
}

// A call that fails while the client lives on: it repeats the same bytes.
func TestLostCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			faults := w.proxy.faults
			w.proxy.failOnce(n, after)
			check(t, w.say(t.Context(), w.alice.client, id))
			check(t, must(w.alice.client.Conversation(id))(t).UpdateKeys(t.Context()))
			w.proxy.revive()
			w.converge(t)
			w.compare(t, id, w.alice.client, w.bob, w.carol)
			w.told(t, w.bob, id)
			if w.proxy.faults == faults {
				break
			}
		}
	}
}

// A write that fails while the client lives on, wherever it is: what is in memory
// and what is on the disk stay the same.
func TestFailedWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	ctx := t.Context()
	step := 23
	if proof {
		step = 1
	}
	for name, do := range map[string]func() error{
		"sending":  func() error { return w.say(ctx, w.alice.client, id) },
		"a commit": func() error { return must(w.alice.client.Conversation(id))(t).UpdateKeys(ctx) },
		"receiving": func() error {
			check(t, w.say(ctx, w.bob, id))
			check(t, must(w.bob.Conversation(id))(t).UpdateKeys(ctx))
			check(t, w.say(ctx, w.bob, id))
			return w.alice.client.Sync(ctx)
		},
		"creating": func() error {
			_, err := w.alice.client.NewGroup(ctx, GroupOptions{}, w.bob.InboxID(), w.carol.InboxID())
			return err
		},
		"joining": func() error {
			v := must(w.bob.NewGroup(ctx, GroupOptions{}, w.alice.client.InboxID(), w.carol.InboxID()))(t)
			check(t, w.say(ctx, w.bob, v.ID()))
			return w.alice.client.Sync(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 1; !t.Failed(); n += step {
				w.sent = map[string]bool{}
				w.alice.fs.FaultAt(n, crashtest.FailOnce)
				err := do()
				failed := w.alice.fs.Faulted()
				w.alice.fs.Repair()
				if err != nil && !failed {
					t.Fatal(err)
				}
				w.converge(t)
				check(t, w.say(ctx, w.alice.client, id))
				check(t, w.say(ctx, w.bob, id))
				w.converge(t)
				ids := []string{id}
				latest := must(w.alice.client.Conversations(ConversationOptions{}))(t)
				for _, v := range latest[:min(len(latest), 3)] {
					ids = append(ids, v.ID())
					w.compare(t, v.ID(), w.alice.client, w.bob, w.carol)
				}
				w.told(t, w.bob, ids...)
				if !failed {
					break
				}
			}
		})
	}
}

// A full disk lets nothing be sent whose state can't be stored; with room again
// everything goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.group(t)
	ctx := t.Context()
	w.fs.FaultAt(1, crashtest.Full)
	var err error
	for err == nil { // what was allocated is used up first
		err = w.say(ctx, w.alice.client, id)
	}
	if !errors.Is(err, ErrDiskFull) {
		t.Errorf("sending: %v", err)
	}
	check(t, w.say(ctx, w.bob, id))
	if err := w.alice.client.Sync(ctx); !errors.Is(err, ErrDiskFull) {
		t.Errorf("receiving: %v", err)
	}
	if n := len(texts(t, must(w.alice.client.Conversation(id))(t))); n == 0 {
		t.Error("nothing to read")
	}
	w.fs.Repair()
	check(t, w.say(ctx, w.alice.client, id))
	w.converge(t)
	w.compare(t, id, w.alice.client, w.bob, w.carol)
	w.told(t, w.bob, id)
}
