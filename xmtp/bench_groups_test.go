package xmtp

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"

	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// The benchmarks of operations on groups. Beside the time they tell what doesn't depend
// on the machine.

// town is a node and users who can be added to groups, but do nothing.
type town struct {
	b       *testing.B
	url     string
	meter   meter
	strange []string // inbox ids that nobody has been given yet
}

func newTown(b *testing.B) *town {
	b.Helper()
	t := &town{b: b, url: benchURL(b)}
	t.meter.name = "metered" + strings.TrimPrefix(t.url, "http://")
	vfs.Register(t.meter.name, &t.meter)
	b.Cleanup(func() { vfs.Unregister(t.meter.name) })
	return t
}

func (t *town) check(err error) {
	t.b.Helper()
	benchCheck(t.b, err)
}

// users returns the inbox ids of users whom no client has met.
func (t *town) users(n int) []string {
	t.b.Helper()
	if missing := n - len(t.strange); missing > 0 {
		t.strange = append(t.strange, benchInboxes(t.b, t.url, max(missing, 50))...)
	}
	ids := t.strange[:n:n]
	t.strange = t.strange[n:]
	return ids
}

// client makes a client. What it does is metered.
func (t *town) client() *Client {
	t.b.Helper()
	c := benchClient(t.b, t.url, func(o *options) error { o.vfs = t.meter.name; return nil })
	conn, err := grpc.NewClient(benchTarget(t.url), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)), grpc.WithStatsHandler(&t.meter))
	t.check(err)
	t.b.Cleanup(func() { conn.Close() })
	c.node.MLS, c.node.Identity = mlsapi.NewMlsApiClient(conn), identityapi.NewIdentityApiClient(conn)
	return c
}

// group makes a group of a client and others.
func (t *town) group(c *Client, others ...string) *Conversation {
	t.b.Helper()
	v, err := c.NewGroup(t.b.Context(), GroupOptions{}, others...)
	t.check(err)
	return v
}

// time repeats an operation. before, which may be nil, isn't timed or metered.
func (t *town) time(before func(), operation func() error) {
	t.b.Helper()
	t.b.ReportAllocs()
	var total [meters]int64
	n := 0
	for t.b.Loop() {
		if before != nil {
			t.b.StopTimer()
			before()
			t.b.StartTimer()
		}
		start := t.meter.read()
		t.check(operation())
		for i, now := range t.meter.read() {
			total[i] += now - start[i]
		}
		n++
	}
	for i, unit := range meterUnits {
		t.b.ReportMetric(float64(total[i])/float64(n), unit+"/op")
	}
}

const (
	meterCalls = iota
	meterUp
	meterDown
	meterSyncs
	meterWritten
	meters
)

var meterUnits = [meters]string{"calls", "B-up", "B-down", "syncs", "B-written"}

// meter counts what clients ask of the network and of the disk.
type meter struct {
	name   string
	counts [meters]atomic.Int64
}

func (m *meter) read() (now [meters]int64) {
	for i := range now {
		now[i] = m.counts[i].Load()
	}
	return now
}

func (m *meter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (m *meter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (m *meter) HandleConn(context.Context, stats.ConnStats)                       {}

func (m *meter) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s := s.(type) {
	case *stats.Begin:
		m.counts[meterCalls].Add(1)
	case *stats.OutPayload:
		m.counts[meterUp].Add(int64(s.Length))
	case *stats.InPayload:
		m.counts[meterDown].Add(int64(s.Length))
	}
}

func (m *meter) Open(string, vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return nil, 0, sqlite3.CANTOPEN // SQLite calls OpenFilename
}

func (m *meter) Delete(name string, dir bool) error { return vfs.Find("").Delete(name, dir) }
func (m *meter) Access(name string, f vfs.AccessFlag) (bool, error) {
	return vfs.Find("").Access(name, f)
}
func (m *meter) FullPathname(name string) (string, error) { return vfs.Find("").FullPathname(name) }

func (m *meter) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, flags, err := vfsutil.WrapOpenFilename(vfs.Find(""), name, flags)
	if err != nil {
		return nil, flags, err
	}
	return &meteredFile{f, m}, flags, nil
}

type meteredFile struct {
	vfs.File
	meter *meter
}

func (f *meteredFile) WriteAt(b []byte, at int64) (int, error) {
	f.meter.counts[meterWritten].Add(int64(len(b)))
	return f.File.WriteAt(b, at)
}

func (f *meteredFile) Sync(flags vfs.SyncFlag) error {
	f.meter.counts[meterSyncs].Add(1)
	return f.File.Sync(flags)
}

// A direct message with somebody whom the client has not met.
func BenchmarkNewDM(b *testing.B) {
	t := newTown(b)
	c := t.client()
	var peer string
	t.time(func() { peer = t.users(1)[0] }, func() error {
		_, err := c.DM(b.Context(), peer)
		return err
	})
}

// Groups with others whom the client has met, or not.
func BenchmarkNewGroup(b *testing.B) {
	for _, met := range []bool{false, true} {
		for _, others := range []int{1, 10, 100, 249} {
			b.Run(fmt.Sprintf("met=%v/others=%d", met, others), func(b *testing.B) {
				t := newTown(b)
				c := t.client()
				users := t.users(others)
				before := func() { users = t.users(others) }
				if met {
					t.group(c, users...)
					before = nil
				}
				t.time(before, func() error {
					_, err := c.NewGroup(b.Context(), GroupOptions{}, users...)
					return err
				})
			})
		}
	}
}

var groupSizes = []int{2, 10, 50, 250}

// Adding a member whom the client has not met, by which the group has the size.
func BenchmarkAddMember(b *testing.B) {
	for _, size := range groupSizes {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			t := newTown(b)
			v := t.group(t.client(), t.users(size-2)...)
			var last string
			t.time(func() {
				if last != "" {
					t.check(v.RemoveMembers(b.Context(), last))
				}
				last = t.users(1)[0]
			}, func() error { return v.AddMembers(b.Context(), last) })
		})
	}
}

// Removing one of that many members.
func BenchmarkRemoveMember(b *testing.B) {
	for _, size := range groupSizes {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			t := newTown(b)
			last := t.users(1)[0]
			v := t.group(t.client(), t.users(size-2)...)
			t.time(func() { t.check(v.AddMembers(b.Context(), last)) }, func() error { return v.RemoveMembers(b.Context(), last) })
		})
	}
}

// What a member does about a commit: one of that many members was added.
func BenchmarkSyncCommit(b *testing.B) {
	for _, size := range groupSizes {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			t := newTown(b)
			alice, bob := t.client(), t.client()
			a := t.group(alice, append(t.users(max(size-3, 0)), bob.InboxID())...)
			t.check(bob.Sync(b.Context()))
			v, err := bob.Conversation(a.ID())
			t.check(err)
			t.check(v.Sync(b.Context()))
			var last string
			t.time(func() {
				if last != "" {
					t.check(a.RemoveMembers(b.Context(), last))
					t.check(v.Sync(b.Context()))
				}
				last = t.users(1)[0]
				t.check(a.AddMembers(b.Context(), last))
			}, func() error { return v.Sync(b.Context()) })
		})
	}
}

// Joining a group of members whom the client has not met, and sending there.
func BenchmarkJoin(b *testing.B) {
	for _, send := range []bool{false, true} {
		for _, size := range groupSizes {
			b.Run(fmt.Sprintf("send=%v/size=%d", send, size), func(b *testing.B) {
				t := newTown(b)
				alice := t.client()
				others := t.users(size - 2)
				var bob *Client
				var id string
				t.time(func() {
					bob = t.client()
					id = t.group(alice, append(others, bob.InboxID())...).ID()
				}, func() error {
					if err := bob.Sync(b.Context()); err != nil {
						return err
					}
					v, err := bob.Conversation(id)
					if err == nil && send {
						_, err = v.SendText(b.Context(), "hello")
					}
					return err
				})
			})
		}
	}
}
