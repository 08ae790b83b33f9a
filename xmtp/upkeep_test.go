package xmtp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// A worker sleeps while there is nothing to do, wakes for news and for what is due,
// and has patience with a node that is away.
func TestWorkerRhythm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{options: &options{logger: slog.New(slog.DiscardHandler)}}
		c.news.init()
		var mu sync.Mutex // guards the next three
		var wait time.Duration
		var err error
		var runs []time.Duration
		set := func(w time.Duration, e error) {
			mu.Lock()
			defer mu.Unlock()
			wait, err = w, e
		}
		began := time.Now()
		ran := func(advance time.Duration) []time.Duration {
			time.Sleep(advance)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			list := runs
			runs = nil
			return list
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		set(forever, nil)
		go func() {
			defer close(ended)
			c.attend(ctx, chore{name: "a test", calm: 2 * time.Second, do: func(context.Context) (time.Duration, error) {
				mu.Lock()
				defer mu.Unlock()
				runs = append(runs, time.Since(began))
				return wait, err
			}})
		}()
		if got := ran(0); len(got) != 1 {
			t.Errorf("runs at the start: %v", got)
		}
		if got := ran(1000 * time.Hour); got != nil {
			t.Errorf("it wakes without need: %v", got)
		}
		set(10*time.Minute, nil)
		c.news.publish()
		c.news.publish()
		if got := ran(9 * time.Minute); len(got) != 1 {
			t.Errorf("runs after news: %v", got)
		}
		set(5*time.Hour, nil)
		if got := ran(2 * time.Minute); len(got) != 1 {
			t.Errorf("runs when due: %v", got)
		}
		if got := ran(5*time.Hour + time.Minute); len(got) != 5 {
			t.Errorf("looks at the clock: %v", got) // each hour: clocks are set, computers sleep
		}
		set(0, errors.New("the node is away"))
		c.news.publish()
		failures := ran(30 * time.Minute)
		if len(failures) < 30 || len(failures) > 80 {
			t.Errorf("%d tries in half an hour", len(failures))
		}
		for i := 1; i < len(failures); i++ {
			if gap := failures[i] - failures[i-1]; gap < min(choreRetryMin<<(i-1), choreRetryMax)/2 || gap > choreRetryMax {
				t.Errorf("gap %d: %v", i, gap)
			}
		}
		set(forever, nil)
		ran(choreRetryMax)
		if got := ran(100 * time.Hour); got != nil {
			t.Errorf("it does not recover: %v", got)
		}
		cancel()
		<-ended
	})
}

func TestWorkersSwitchedOff(t *testing.T) {
	all := [workerCount]bool{}
	for i := range all {
		all[i] = true
	}
	for name, test := range map[string]struct {
		list []Option
		want [workerCount]bool
	}{
		"none":        {nil, [workerCount]bool{}},
		"all":         {[]Option{WithoutWorkers()}, all},
		"two":         {[]Option{WithoutWorkers(WorkerCommitLog), WithoutWorkers(WorkerExpiry)}, [workerCount]bool{WorkerCommitLog: true, WorkerExpiry: true}},
		"one and all": {[]Option{WithoutWorkers(WorkerOutbox), WithoutWorkers()}, all},
	} {
		o, err := newOptions(test.list)
		if err != nil || o.off != test.want {
			t.Errorf("%s: %v, %v", name, o.off, err)
		}
	}
	for _, list := range [][]Option{{WithoutWorkers(workerCount)}, {WithoutWorkers(-1)}, {WithSelfUpdate(SelfUpdatePolicy{Background: -1})}, {WithRegistrationWait(0)}} {
		if _, err := newOptions(list); err == nil {
			t.Error("an option that makes no sense is accepted")
		}
	}
	// What is switched off is not done, and the rest is.
	url := startNode(t)
	alice, bob := newClient(t, url, WithoutWorkers(WorkerKeyPackages, WorkerExpiry)), newClient(t, url)
	a := must(alice.NewGroup(t.Context(), GroupOptions{Disappearing: Disappearing{In: 1}}, bob.Address()))(t)
	gone := deletionsOf(t, bob)
	must(a.SendText(t.Context(), "at once"))(t)
	check(t, bob.Sync(t.Context()))
	<-gone
	if n := stored(t, alice, a); n == 0 {
		t.Error("deleted by nobody")
	}
	check(t, alice.Upkeep(t.Context()))
	if n := stored(t, alice, a); n != 0 {
		t.Errorf("%d messages are left by Upkeep", n)
	}
}

// stored counts what members have said in a conversation, expired or not.
func stored(t *testing.T, c *Client, v *Conversation) (n int64) {
	t.Helper()
	check(t, c.db.View(func(tx *store.Tx) error {
		_, err := tx.One("SELECT count(*) FROM messages WHERE group_id = ? AND kind = ?", []any{v.row.ID, store.KindApplication}, func(r store.Row) { n = r.Int(0) })
		return err
	}))
	return n
}

// deletionsOf streams a client's deletions.
func deletionsOf(t *testing.T, c *Client) <-chan Deletion {
	t.Helper()
	list, ended := make(chan Deletion, 1000), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(ended)
		for d, err := range c.StreamDeletions(ctx) {
			if err != nil {
				return
			}
			list <- d
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	// It streams once it has subscribed.
	for {
		c.deletions.mu.Lock()
		n := len(c.deletions.queues)
		c.deletions.mu.Unlock()
		if n > 0 {
			return list
		}
		time.Sleep(time.Millisecond) // there is nothing to wait for
	}
}

func TestExpiredMessagesAreDeleted(t *testing.T) {
	url, path := startNode(t), filepath.Join(t.TempDir(), "alice.db")
	ctx := t.Context()
	var time clock
	bob := newClient(t, url, WithClock(time.now), WithoutWorkers())
	alice, err := NewClient(ctx, must(GeneratePrivateKeySigner())(t), WithNode(url), WithDatabase(path), WithoutEncryption(), WithClock(time.now), WithoutWorkers())
	check(t, err)
	a := must(alice.DM(ctx, bob.Address()))(t)
	must(a.SendText(ctx, "that stays for ever"))(t)
	check(t, a.SetDisappearing(ctx, Disappearing{In: hour}))
	must(a.SendText(ctx, "that goes after an hour"))(t)
	b := inConversation(t, bob, a.ID())
	time.advance(hour / 2)
	later := must(b.SendText(ctx, "that goes half an hour later"))(t)
	check(t, a.Sync(ctx))
	gone := deletionsOf(t, alice)
	next, err := alice.deleteExpired(ctx)
	if err != nil || next > hour/2 || next < hour/3 {
		t.Errorf("the next one goes in %v, %v", next, err)
	}
	if n := stored(t, alice, a); n != 3 {
		t.Errorf("%d messages", n)
	}
	time.advance(hour / 2)
	check(t, errors.Join(alice.Upkeep(ctx), bob.Upkeep(ctx)))
	for c, v := range map[*Client]*Conversation{alice: a, bob: b} {
		if n := stored(t, c, v); n != 2 {
			t.Errorf("%d messages", n)
		}
	}
	if d := <-gone; d.ConversationID != a.ID() || len(d.MessageID) != 64 || d.MessageID == later.ID {
		t.Errorf("%+v", d)
	}
	time.advance(hour)
	check(t, alice.Upkeep(ctx))
	if d := <-gone; d.MessageID != later.ID {
		t.Errorf("%+v", d)
	}
	if next, err := alice.deleteExpired(ctx); err != nil || next != forever {
		t.Errorf("the next one goes in %v, %v", next, err)
	}
	// It is gone from the disk, too.
	read := func() (content []byte) {
		for _, name := range must(filepath.Glob(path + "*"))(t) {
			content = append(content, must(os.ReadFile(name))(t)...)
		}
		return content
	}
	check(t, alice.Upkeep(ctx))
	content := read()
	if !bytes.Contains(content, []byte("that stays")) || bytes.Contains(content, []byte("that goes")) {
		t.Error("expired messages stand in the database, or none at all")
	}
	check(t, alice.Close())
	if bytes.Contains(read(), []byte("that goes")) {
		t.Error("expired messages stand in the closed database")
	}
}

const hour = time.Hour

// Deleted messages make no room for others to be overlooked.
func TestStreamWhileMessagesAreDeleted(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url, WithoutWorkers()), newClient(t, url)
	a := must(alice.DM(ctx, bob.Address()))(t)
	check(t, a.SetDisappearing(ctx, Disappearing{In: 1}))
	got := make(chan string, 100)
	streaming, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for m, err := range alice.StreamAllMessages(streaming) {
			if err != nil {
				return
			}
			if m.Kind == KindApplication {
				got <- m.Text()
			}
		}
	}()
	for i := range 20 {
		text := textOf(i)
		must(a.SendText(ctx, text))(t)
		if next := <-got; next != text {
			t.Errorf("got %q, want %q", next, text)
		}
		must(alice.deleteExpired(ctx))(t)
		if n := stored(t, alice, a); n != 0 {
			t.Errorf("%d are left", n)
		}
	}
	stop()
	<-ended
}

func TestSelfUpdatePolicies(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	const day = 24 * time.Hour
	var time clock
	type joined struct {
		*Conversation
		c *Client
	}
	alice := newClient(t, url, WithoutWorkers())
	a := must(alice.NewGroup(ctx, GroupOptions{}))(t)
	join := func(p SelfUpdatePolicy) joined {
		t.Helper()
		c := newClient(t, url, WithClock(time.now), WithoutWorkers(), WithSelfUpdate(p))
		check(t, a.AddMembers(ctx, c.Address()))
		v := inConversation(t, c, a.ID())
		if at := must(v.KeysUpdatedAt())(t); !at.IsZero() {
			t.Errorf("renewed at %v before anything was done", at)
		}
		return joined{v, c}
	}
	// updates counts the renewals that somebody has made.
	updates := func(v joined) (n int) {
		t.Helper()
		check(t, a.Sync(ctx))
		for _, c := range must(a.DebugInfo(ctx))(t).CommitLog {
			if c.SenderInstallationID == v.c.InstallationID() {
				n++
			}
		}
		return n
	}
	standard, never := join(SelfUpdatePolicy{}), join(SelfUpdatePolicy{BeforeMessage: -1})
	often, background := join(SelfUpdatePolicy{BeforeMessage: day}), join(SelfUpdatePolicy{Background: 10 * day})
	everybody := []joined{standard, never, often, background}
	step := func(what string, say bool, want ...int) {
		t.Helper()
		var got []int
		for _, v := range everybody {
			check(t, v.Sync(ctx))
			if say {
				must(v.SendText(ctx, what))(t)
			}
			must(v.c.updateKeys(ctx))(t)
			got = append(got, updates(v))
		}
		if !cmp.Equal(got, want) {
			t.Errorf("%s: renewals %v, want %v", what, got, want)
		}
	}
	time.advance(20 * day)
	step("nobody has consented", false, 0, 0, 0, 0)
	step("first message", true, 1, 0, 1, 1)
	step("second message", true, 1, 0, 1, 1)
	if at, now := must(standard.KeysUpdatedAt())(t), time.now(); now.Sub(at) > day || at.After(now) {
		t.Errorf("renewed at %v, it is %v", at, now)
	}
	time.advance(2 * day)
	step("two days later", true, 1, 0, 2, 1)
	time.advance(10 * day)
	step("twelve days later, in silence", false, 1, 0, 2, 2)
	time.advance(21 * day)
	step("a month later", true, 2, 0, 3, 3)
	for _, v := range everybody[1:] {
		check(t, v.Sync(ctx))
		sameEpoch(t, a, v.Conversation)
	}
	// What stands in the outbox already is not put there again.
	check(t, standard.c.db.Update(standard.group.enqueueKeyUpdate))
	check(t, standard.c.db.Update(standard.group.enqueueKeyUpdate))
	var n int
	check(t, standard.c.db.View(func(tx *store.Tx) error {
		intents, err := tx.Intents(standard.row.ID, maxBatchMessages)
		n = len(intents)
		return err
	}))
	if n != 1 {
		t.Errorf("%d renewals wait", n)
	}
}

// Members who came at the same time don't all commit at the same time.
func TestSelfUpdatesAreSpread(t *testing.T) {
	p := SelfUpdatePolicy{Background: 8 * hour}
	var waits []time.Duration
	for i := range 100 {
		waits = append(waits, p.background(store.Group{ID: make([]byte, 16), Created: 5}, []byte{byte(i)}, 5))
	}
	slices.Sort(waits)
	if waits[0] < 8*hour || waits[99] > 9*hour || waits[99]-waits[0] < hour/2 {
		t.Errorf("from %v to %v", waits[0], waits[99])
	}
}

// A key package that could not be uploaded is uploaded later, unless it has become
// too old meanwhile.
func TestKeyPackageUploadFails(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var time clock
	n := must(node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true, Now: time.now}))(t)
	t.Cleanup(func() { n.Close() })
	p := newProxy(t, "http://"+n.Addr())
	alice := newClient(t, p.url, WithClock(time.now), WithoutWorkers())
	newest := func() (k store.KeyPackage) {
		t.Helper()
		check(t, alice.db.View(func(tx *store.Tx) (err error) {
			k, _, err = tx.NewestKeyPackage()
			return err
		}))
		return k
	}
	served := func() []byte {
		t.Helper()
		response, err := alice.node.MLS.FetchKeyPackages(ctx, &mlsapi.FetchKeyPackagesRequest{InstallationKeys: [][]byte{alice.installation.Bytes()}})
		check(t, err)
		return response.KeyPackages[0].KeyPackageTlsSerialized
	}
	fail := func(after bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		p.arm(1, after, cancel) // nobody waits until it has tried often enough
		if _, err := alice.maintainKeyPackages(ctx); err == nil {
			t.Error("uploaded without a node")
		}
		p.revive()
	}
	first := served()
	time.advance(rotationPeriod)
	fail(false)
	made := newest()
	fail(true) // it is there, but we are not told
	if again := newest(); again.Row != made.Row || again.Uploaded {
		t.Errorf("another package is made: row %d, then %d", made.Row, again.Row)
	}
	second := served()
	if bytes.Equal(first, second) {
		t.Error("it did not reach the node")
	}
	time.advance(keepReplaced)
	must(alice.maintainKeyPackages(ctx))(t)
	if k := newest(); k.Row == made.Row || !k.Uploaded {
		t.Errorf("an old package is uploaded: %+v", k.Row)
	}
	if bytes.Equal(second, served()) {
		t.Error("the node has the old one")
	}
	// Welcomes to it are still on their way.
	var rows int64
	count := func() {
		t.Helper()
		check(t, alice.db.View(func(tx *store.Tx) error {
			_, err := tx.One("SELECT count(*) FROM key_packages", nil, func(r store.Row) { rows = r.Int(0) })
			return err
		}))
	}
	if count(); rows != 3 {
		t.Errorf("%d packages are kept", rows)
	}
	time.advance(keepReplaced)
	must(alice.maintainKeyPackages(ctx))(t)
	if count(); rows != 1 {
		t.Errorf("%d packages are kept a day later", rows)
	}
}

func TestWaitRegistered(t *testing.T) {
	url := startNode(t)
	alice := newClient(t, url, WithoutWorkers(), WithRegistrationWait(time.Minute))
	check(t, alice.WaitRegistered(t.Context()))
	for name, change := range map[string]func(c *Client){
		"an installation that is not in the inbox": func(c *Client) { c.installation = identity.Installation(make([]byte, 32)) },
		"an inbox that there is not":               func(c *Client) { c.inboxID = "00" + c.inboxID[2:] },
	} {
		c := newClient(t, url, WithoutWorkers())
		change(c)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := c.WaitRegistered(ctx); !errors.Is(err, ErrNotVisible) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// The workers of a client whose node is away end with it, at once.
func TestCloseWithoutANode(t *testing.T) {
	url := startNode(t)
	p := newProxy(t, url)
	signer := must(GeneratePrivateKeySigner())(t)
	c, err := NewClient(t.Context(), signer, WithNode(p.url), InMemory(), WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	check(t, err)
	a := must(c.NewGroup(t.Context(), GroupOptions{}))(t)
	p.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.SendText(ctx, "nobody gets it"); !errors.Is(err, ErrNotPublished) {
		t.Errorf("got %v", err)
	}
	check(t, c.Close())
	p.revive()
}
