package node_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	iofs "io/fs"
	"iter"
	"log/slog"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// told is a log that tells when a message was logged.
type told struct {
	message string
	once    sync.Once
	seen    chan struct{}
}

func newTold(message string) *told { return &told{message: message, seen: make(chan struct{})} }

func (l *told) Write(line []byte) (int, error) {
	if strings.Contains(string(line), l.message) {
		l.once.Do(func() { close(l.seen) })
	}
	return len(line), nil
}

func (l *told) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *told) wait(ctx context.Context, t testing.TB) {
	t.Helper()
	select {
	case <-l.seen:
	case <-ctx.Done():
		t.Fatalf("%q was not logged", l.message)
	}
}

// With retention, old messages go and all else behaves as if they had never
// been: queries, pages, streams from cursors of that time, newest messages. Commits
// stay, numbers don't come back, and the same bytes are new.
func TestRetention(t *testing.T) {
	t.Parallel()
	clk, ctx := newClock(), short(t)
	options := node.Options{Data: t.TempDir(), Now: clk.now}
	n := must(launch(options))(t)
	c := dial(t, n)
	mixed, plain, installation, in := newGroupID(), newGroupID(), newInstallationKey(), newInbox(t)
	commit := func(name string) []byte { return privateMessage(mixed, mls.ContentTypeCommit, []byte(name)) }
	kp := newKeyPackage(t, in.installation, keyPackageOptions{inbox: in.id})
	update := in.register(t)

	must(c.publish(ctx, update))(t)
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(kp)))(t)
	for i := range 300 {
		if i%100 == 50 {
			must(c.mls.SendGroupMessages(ctx, groupRequest(commit(fmt.Sprint("commit ", i)))))(t)
		}
		must(c.mls.SendGroupMessages(ctx, groupRequest(application(mixed, fmt.Sprint("old ", i)))))(t)
	}
	if err := groupLog.fill(ctx, c, plain, 0, 120); err != nil {
		t.Fatal(err)
	}
	must(c.mls.SendWelcomeMessages(ctx, welcomeRequest(welcomeInput(installation, []byte("old welcome")))))(t)
	before := must(groupLog.all(ctx, c, mixed, 0))(t)
	last := c.number(ctx, t)

	// Sixty days later there is something new, and retention is turned on.
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	clk.advance(60 * 24 * time.Hour)
	log := newTold("old records removed")
	options.Retention, options.Logger = node.Retention{Messages: 30 * 24 * time.Hour}, log.logger()
	n = must(launch(options))(t)
	c = dial(t, n)
	if err := groupLog.fill(ctx, c, mixed, 0, 130); err != nil {
		t.Fatal(err)
	}
	log.wait(ctx, t)

	kept := must(groupLog.all(ctx, c, mixed, 0))(t)
	if len(kept) != 3+130 {
		t.Fatalf("%d messages are left, want 133", len(kept))
	}
	for i, e := range kept[:3] {
		if want := string(commit(fmt.Sprint("commit ", 100*i+50))); e.data != want {
			t.Errorf("message %d is not the commit that it was", i)
		}
	}
	if kept[3].id <= last {
		t.Errorf("number %d was given out before %d", kept[3].id, last)
	}
	// From any cursor of old there is what comes after it.
	for _, i := range []int{0, 49, 50, 51, 150, 299, len(before) - 1} {
		cursor := before[i].id
		want := kept[slices.IndexFunc(kept, func(e entry) bool { return e.id > cursor }):]
		wantEntries(t, fmt.Sprint("from ", cursor), must(groupLog.all(ctx, c, mixed, cursor))(t), want)
		s := must(groupLog.open(ctx, c, filter{mixed, cursor}))(t)
		got := make([]entry, len(want))
		for j := range got {
			got[j] = must(s.next())(t)
		}
		wantEntries(t, fmt.Sprint("stream from ", cursor), got, want)
	}
	page, paging, err := groupLog.page(ctx, c, mixed, &mlsapi.PagingInfo{IdCursor: before[len(before)-1].id, Limit: 2})
	if err != nil || len(page) != 2 || page[0] != kept[2] || page[1] != kept[1] || paging.IdCursor != kept[1].id {
		t.Errorf("downwards from an old cursor: %d messages, cursor %d, %v", len(page), paging.GetIdCursor(), err)
	}
	empty, paging, err := groupLog.page(ctx, c, plain, nil)
	if err != nil || len(empty) != 0 || paging.IdCursor != 0 {
		t.Errorf("a group of which nothing is left: %d messages, cursor %d, %v", len(empty), paging.GetIdCursor(), err)
	}
	newest := must(c.mls.GetNewestGroupMessage(ctx, &mlsapi.GetNewestGroupMessageRequest{GroupIds: [][]byte{mixed, plain}}))(t)
	if got := newest.Responses[0].GroupMessage.GetV1().GetId(); got != kept[len(kept)-1].id || newest.Responses[1].GroupMessage != nil {
		t.Errorf("newest: %v", newest)
	}
	// Welcomes stay for ninety days, and the rest for ever.
	if welcomes := must(welcomeLog.all(ctx, c, installation, 0))(t); len(welcomes) != 1 {
		t.Errorf("%d welcomes, want 1", len(welcomes))
	}
	c.wantUpdates(ctx, t, in.id, update)
	c.wantFetched(t, [][]byte{publicKey(in.installation)}, kp)

	// The same bytes again: a commit is the one it was, a message that was removed is new.
	must(c.mls.SendGroupMessages(ctx, groupRequest([]byte(before[50].data), []byte(before[0].data))))(t)
	after := must(groupLog.all(ctx, c, mixed, 0))(t)
	if len(after) != len(kept)+1 || after[len(kept)].data != before[0].data || after[len(kept)].id <= kept[len(kept)-1].id {
		t.Errorf("sent again: %d messages instead of %d", len(after), len(kept)+1)
	}

	// Another forty days later the group has commits and the welcome is gone.
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	clk.advance(40 * 24 * time.Hour)
	log = newTold("kind=welcomes")
	options.Logger = log.logger()
	c = dial(t, start(t, options))
	log.wait(ctx, t)
	wantEntries(t, "at last", must(groupLog.all(ctx, c, mixed, 0))(t), kept[:3])
	newest = must(c.mls.GetNewestGroupMessage(ctx, &mlsapi.GetNewestGroupMessageRequest{GroupIds: [][]byte{mixed}}))(t)
	if got := newest.Responses[0].GroupMessage.GetV1(); got.GetId() != kept[2].id || !got.GetIsCommit() {
		t.Errorf("the newest of commits is %v", got)
	}
	if welcomes := must(welcomeLog.all(ctx, c, installation, 0))(t); len(welcomes) != 0 {
		t.Errorf("%d welcomes, want none", len(welcomes))
	}
	if next := c.number(ctx, t); next <= after[len(after)-1].id {
		t.Errorf("number %d was given out before %d", next, after[len(after)-1].id)
	}
}

// Ages that make no sense are refused.
func TestRetention_Options(t *testing.T) {
	t.Parallel()
	for _, r := range []node.Retention{{Messages: -2}, {Welcomes: -time.Hour}} {
		if n, err := launch(node.Options{Retention: r}); err == nil {
			n.Close()
			t.Errorf("%+v was taken", r)
		}
	}
	n := start(t, node.Options{Retention: node.Retention{Messages: node.Forever, Welcomes: node.Forever}})
	_, err := dial(t, n).mls.QueryGroupMessages(short(t), &mlsapi.QueryGroupMessagesRequest{})
	wantCode(t, err, codes.InvalidArgument)
}

// oldMessages are those of groups that wrote in turn, long ago, in the order of
// the store's keys; every fiftieth is a commit.
func oldMessages(groups, each, size int, from, until time.Time) iter.Seq[*order.Record] {
	step := uint64(until.Sub(from)) / uint64(groups*each+1)
	return func(yield func(*order.Record) bool) {
		for g := range groups {
			var id [16]byte
			binary.BigEndian.PutUint64(id[:], uint64(g)*(math.MaxUint64/uint64(groups))) // among the others
			for i := range each {
				number := uint64(1 + i*groups + g)
				payload := make([]byte, size)
				binary.BigEndian.PutUint64(payload, number)
				r := &order.Record{
					Topic:   order.Topic{Kind: order.GroupMessage, ID: string(id[:])},
					Number:  number,
					Time:    uint64(from.UnixNano()) + number*step,
					Facts:   order.GroupFacts{Commit: i%50 == 49, SenderHMAC: make([]byte, 32)}.Append(nil),
					Payload: payload,
				}
				if !yield(r) {
					return
				}
			}
		}
	}
}

// publishFor lets callers publish 500 messages of 1 KiB a second between them until
// the end, and returns how long each took, the shortest first.
func publishFor(ctx context.Context, t testing.TB, n *node.Node, end <-chan struct{}) []time.Duration {
	t.Helper()
	const callers, interval = 16, 32 * time.Millisecond
	var mu sync.Mutex
	var all []time.Duration
	var group errgroup.Group
	body := string(make([]byte, benchSize))
	for i := range callers {
		c, topic := dial(t, n), newGroupID()
		group.Go(func() error {
			tick := time.NewTicker(interval)
			defer tick.Stop()
			var times []time.Duration
			for count := 0; ; count++ {
				select {
				case <-end:
					mu.Lock()
					all = append(all, times...)
					mu.Unlock()
					return nil
				case <-tick.C:
				}
				request := groupRequest(application(topic, fmt.Sprint(i, count, body)))
				begin := time.Now()
				if _, err := c.mls.SendGroupMessages(ctx, request); err != nil {
					return err
				}
				times = append(times, time.Since(begin))
			}
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

// Publishing goes on at its pace while a store's worth of old messages is removed
// and its space given back. Ten million of them.
func TestRetention_Publishing(t *testing.T) {
	if !proof {
		t.Skip("it measures, and needs minutes and 11 GB: part of the long tier (XMTP_PROOF=1)")
	}
	ctx := long(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))) // as xmtp node has it
	const groups, each = 10_000, 1021
	base := t.TempDir()
	options := node.Options{Data: filepath.Join(base, "data")}
	x, err := index.Open(index.Options{FS: vfs.Default, Dir: options.Data, Logger: slog.New(slog.DiscardHandler), OnFailure: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := x.Load(oldMessages(groups, each, benchSize, now.Add(-90*24*time.Hour), now.Add(-60*24*time.Hour))); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}

	without := func() []time.Duration {
		n := must(launch(options))(t)
		defer n.Close()
		end := make(chan struct{})
		time.AfterFunc(30*time.Second, func() { close(end) })
		return publishFor(ctx, t, n, end)
	}
	before := without()

	given := newTold("given back")
	pruned := options
	pruned.Retention, pruned.Logger = node.Retention{Messages: 30 * 24 * time.Hour}, given.logger()
	n := must(launch(pruned))(t)
	begin := time.Now()
	during := publishFor(ctx, t, n, given.seen)
	took := time.Since(begin)
	removed := n.Removed()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	commits := groups * (each / 50)
	if want := uint64(groups*each - commits); removed.Messages != want {
		t.Errorf("%d messages were removed, want %d", removed.Messages, want)
	}
	after := without()

	usual := append(slices.Clone(before), after...)
	slices.Sort(usual)
	ratio := float64(percentile(during, 99)) / float64(percentile(usual, 99))
	t.Logf("CHECK retention: publish p99 while %d messages are removed in %v: %v, p50 %v; without: %v, p50 %v (before %v, after %v); ratio of p99: %.2f, may be 1.5",
		removed.Messages, took.Round(time.Second), percentile(during, 99), percentile(during, 50), percentile(usual, 99), percentile(usual, 50),
		percentile(before, 99), percentile(after, 99), ratio)
	if ratio > 1.5 {
		t.Errorf("publishing takes %.2f times as long", ratio)
	}

	x, err = index.Open(index.Options{FS: vfs.Default, Dir: options.Data, Logger: slog.New(slog.DiscardHandler), OnFailure: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	payloads := uint64(groups * each * benchSize)
	left := uint64((commits + len(usual) + len(during)) * (benchSize + 200))
	if size := x.Size(); size > left+payloads/10 {
		t.Errorf("%d of %d MiB stay, of which %d MiB are used", size>>20, payloads>>20, left>>20)
	} else {
		t.Logf("CHECK retention: disk space of %d MiB of messages after they were removed: %d MiB, of which %d MiB were kept or are new", payloads>>20, size>>20, left>>20)
	}
}

// A write that fails while messages are removed ends the node, though nobody
// publishes anything, and whenever that is.
func TestFailedRetention(t *testing.T) {
	t.Parallel()
	if out, err := helper(within(t, 2*time.Minute), "failing-retention", "").Output(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func endsCleanlyRemoving(string) error {
	mem := vfs.NewMem()
	var armed atomic.Bool
	fs := &hookFS{mem, func(op, path string) error {
		if armed.Load() && op == "write" && strings.HasSuffix(path, ".log") {
			return &iofs.PathError{Op: op, Path: path, Err: syscall.EIO}
		}
		return nil
	}}
	x, err := index.Open(index.Options{FS: mem, Dir: "/data", Logger: discard, OnFailure: func(error) {}})
	if err != nil {
		return err
	}
	now := time.Now()
	if err := errors.Join(x.Load(oldMessages(100, 500, 100, now.Add(-time.Hour), now)), x.Close()); err != nil {
		return err
	}
	n, err := launch(node.Options{Data: "/data", Retention: node.Retention{Messages: time.Nanosecond}}.On(fs))
	if err != nil {
		return err
	}
	armed.Store(true)
	select {
	case <-n.Done():
	case <-time.After(time.Minute):
		return errors.New("the node did not end")
	}
	if err := n.Err(); !errors.Is(err, syscall.EIO) {
		return fmt.Errorf("the node ended with %w", err)
	}
	if err := n.Close(); !errors.Is(err, syscall.EIO) {
		return fmt.Errorf("Close: %w", err)
	}
	return nil
}
