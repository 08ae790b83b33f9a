package interop

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// opened opens an official client again: its worker for commit logs does its rounds
// when the client is opened, and then every five minutes.
func opened(c *official.Client) *official.Client { return c.Reopen(c.Process) }

// theirLog is what an official client shows of a conversation's commits.
type theirLog struct {
	MaybeForked       bool   `json:"maybeForked"`
	IsCommitLogForked *bool  `json:"isCommitLogForked"`
	LocalCommitLog    string `json:"localCommitLog"`
	RemoteCommitLog   string `json:"remoteCommitLog"`
}

func logOf(c *official.Conversation) (log theirLog) {
	c.Call(&log, "debugInfo")
	return log
}

func (l theirLog) verdict() string {
	if l.IsCommitLogForked == nil {
		return "unknown"
	}
	return fmt.Sprint("forked: ", *l.IsCommitLogForked)
}

// column returns the values of a field in what the SDK prints of a log.
func column(log, name string) (values []string) {
	for _, part := range strings.Split(log, name+": ")[1:] {
		value, _, _ := strings.Cut(part, ",")
		values = append(values, strings.Trim(strings.TrimSuffix(value, " }]"), `"`))
	}
	return values
}

// wantStatus checks for forks until the status is there: theirs is published in
// their own time.
func wantStatus(t *testing.T, c *xmtp.Client, v ours, want xmtp.ForkStatus) xmtp.Fork {
	t.Helper()
	var fork xmtp.Fork
	eventually(t, "Go finds "+want.String(), func() bool {
		if err := c.CheckForks(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := v.Fork()
		fork = check(t, got, err)
		return fork.Status == want
	})
	return fork
}

// wantVerdict opens an official client again until it says so.
func wantVerdict(t *testing.T, c *official.Client, conversation *official.Conversation, want string) theirLog {
	t.Helper()
	var log theirLog
	again := opened(c)
	eventually(t, "they find "+want, func() bool {
		log = logOf(again.Find(conversation))
		return log.verdict() == want
	})
	return log
}

// sameLogs compares what both sides have noted of each commit since both were in.
func sameLogs(t *testing.T, v ours, theirs theirLog) {
	t.Helper()
	info, err := v.DebugInfo(t.Context())
	check(t, info, err)
	type entry struct{ number, epoch, result, kind string }
	var a, b []entry
	// The SDK prints "Success" for applied, and of an enum the name alone.
	results := map[protocol.CommitResult]string{
		protocol.CommitApplied: "Success", protocol.CommitWrongEpoch: "WrongEpoch",
		protocol.CommitUndecryptable: "Undecryptable", protocol.CommitInvalid: "Invalid",
	}
	for _, c := range info.CommitLog {
		kind := "None"
		if c.Kind != "" {
			kind = fmt.Sprintf("Some(\"%s\")", c.Kind)
		}
		a = append(a, entry{fmt.Sprint(c.Number), fmt.Sprint(c.Epoch), results[c.Result], kind})
	}
	numbers, epochs := column(theirs.LocalCommitLog, "commit_sequence_id"), column(theirs.LocalCommitLog, "applied_epoch_number")
	outcomes, kinds := column(theirs.LocalCommitLog, "commit_result"), column(theirs.LocalCommitLog, "commit_type")
	for i := range numbers {
		b = append(b, entry{numbers[i], epochs[i], outcomes[i], strings.TrimSuffix(strings.TrimSuffix(kinds[i], " }"), "]")})
	}
	// Each begins with how it came in.
	a, b = a[1:], b[1:]
	for i := range b {
		b[i].kind = strings.TrimSuffix(b[i].kind, " }")
	}
	if n := min(len(a), len(b)); n == 0 || !slices.Equal(a[len(a)-n:], b[len(b)-n:]) {
		t.Errorf("logs of commits:\nours   %v\ntheirs %v\n%s", a, b, theirs.LocalCommitLog)
	}
}

func TestGoCommitLog(t *testing.T) {
	scenario(t, "Go: commit log of a group, published by the official client", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), goClient(t, w.url)
		theirs := alice.Group(nil, nil)
		theirs.Call(nil, "addMembers", []string{bob.InboxID()})
		v := find(t, bob, theirs.ID)
		v.say("hello from Go")
		theirs.Sync()
		theirs.Call(nil, "updateName", "a name")
		theirs.Call(nil, "addAdmin", bob.InboxID())
		v.sync()
		before, err := v.Fork()
		equal(t, "before anybody has published", check(t, before, err).Status, xmtp.ForkUnknown)
		opened(alice) // publishes
		fork := wantStatus(t, bob, v, xmtp.Healthy)
		number, authenticator, err := v.Epoch(t.Context())
		equal(t, "epoch", fork.TheirEpoch, check(t, number, err))
		equal(t, "authenticator", fork.TheirEpochAuthenticator, authenticator)
		sameLogs(t, v, wantVerdict(t, alice, theirs, "forked: false"))
	})
}

func TestGoCommitLogByGo(t *testing.T) {
	scenario(t, "Go: commit log of a group, published by the Go client", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), goClient(t, w.url)
		group, err := bob.NewGroup(t.Context(), xmtp.GroupOptions{}, alice.InboxID)
		v := ours{check(t, group, err), t}
		alice.SyncAll()
		theirs := alice.Find(&official.Conversation{ID: v.ID()})
		theirs.Send("hello")
		v.sync()
		if err := v.SetDescription(t.Context(), "a description"); err != nil {
			t.Fatal(err)
		}
		if err := v.SetPermissions(t.Context(), xmtp.Permissions{xmtp.PermissionName: xmtp.PolicySuperAdmins}); err != nil {
			t.Fatal(err)
		}
		// They may not: both note that it was invalid.
		if err := theirs.TryCall(nil, "updateName", "forbidden"); err == nil {
			t.Error("their change of the name succeeds")
		}
		theirs.Sync()
		v.sync()
		wantStatus(t, bob, v, xmtp.Healthy)
		log := wantVerdict(t, alice, theirs, "forked: false")
		sameLogs(t, v, log)
		info, err := v.DebugInfo(t.Context())
		check(t, info, err)
		var published []string
		for _, c := range info.SharedCommitLog {
			published = append(published, fmt.Sprint(c.Number))
		}
		equal(t, "what they have taken", column(log.RemoteCommitLog, "commit_sequence_id"), published)
	})
}

func TestGoCommitLogOfADM(t *testing.T) {
	scenario(t, "Go: commit log of a DM, published by both", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), goClient(t, w.url)
		theirs := alice.DM(&official.Client{InboxID: bob.InboxID()})
		v := find(t, bob, theirs.ID)
		v.say("hello from Go")
		theirs.Sync()
		opened(alice)
		wantStatus(t, bob, v, xmtp.Healthy)
		if err := v.UpdateKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
		theirs.Sync()
		wantStatus(t, bob, v, xmtp.Healthy) // it has published the last one
		sameLogs(t, v, wantVerdict(t, alice, theirs, "forked: false"))
	})
}

// commitOf is the number of the newest commit that a client of ours has applied.
func commitOf(t *testing.T, v ours) uint64 {
	t.Helper()
	info, err := v.DebugInfo(t.Context())
	return check(t, info, err).CommitLog[len(info.CommitLog)-1].Number
}

// race lets two clients of ours make a commit of the same epoch, and returns the
// number of that which counts. Who doesn't get to see it takes the other one.
func race(t *testing.T, first, second ours) (winner uint64) {
	t.Helper()
	if err := first.SetName(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	winner = commitOf(t, first)
	if err := second.SetDescription(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	first.sync()
	return winner
}

func TestGoForked(t *testing.T) {
	scenario(t, "Go: a Go client that is led astray knows it by the official client's commit log", everyVersion, func(t *testing.T, w *world) {
		node := startLiar(t, w.url)
		alice, bob, carol, dave := w.Client("alice"), goClient(t, node.url), goClient(t, w.url), goClient(t, w.url)
		theirs := alice.Group(nil, nil)
		theirs.Call(nil, "addMembers", []string{bob.InboxID(), carol.InboxID(), dave.InboxID()})
		v, c, d := find(t, bob, theirs.ID), find(t, carol, theirs.ID), find(t, dave, theirs.ID)
		v.say("consent")
		c.sync()
		d.sync()
		node.hide(race(t, c, d))
		v.sync()
		theirs.Sync()
		opened(alice) // publishes
		fork := wantStatus(t, bob, v, xmtp.Forked)
		if slices.Equal(fork.EpochAuthenticator, fork.TheirEpochAuthenticator) {
			t.Errorf("%+v", fork)
		}
		wantVerdict(t, alice, theirs, "forked: false")
	})
}

func TestGoForkedOfficial(t *testing.T) {
	scenario(t, "Go: an official client that is led astray knows it by the Go client's commit log", everyVersion, func(t *testing.T, w *world) {
		node := startLiar(t, w.url)
		process := official.StartProcess(t, w.tools, w.sdk, node.url)
		alice, bob, carol := process.Client("alice"), goClient(t, w.url), goClient(t, w.url)
		group, err := bob.NewGroup(t.Context(), xmtp.GroupOptions{}, alice.InboxID, carol.InboxID())
		v := ours{check(t, group, err), t}
		alice.SyncAll()
		theirs := alice.Find(&official.Conversation{ID: v.ID()})
		theirs.Send("consent")
		v.sync()
		c := find(t, carol, v.ID())
		node.hide(race(t, v, c))
		_ = theirs.TryCall(nil, "sync") // what it can't read is an error of the call
		wantStatus(t, bob, v, xmtp.Healthy)
		wantVerdict(t, alice, theirs, "forked: true")
	})
}

func TestGoKeyPackageRotation(t *testing.T) {
	scenario(t, "Go: key packages are good after each rotation", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), goClient(t, w.url)
		type status struct {
			Lifetime        *struct{ NotBefore, NotAfter string } `json:"lifetime"`
			ValidationError string                                `json:"validationError"`
		}
		fetch := func() status {
			t.Helper()
			var statuses map[string]status
			alice.Call(&statuses, "fetchKeyPackageStatuses", []string{bob.InstallationID()})
			s := statuses[bob.InstallationID()]
			if s.ValidationError != "" || s.Lifetime == nil {
				t.Fatalf("key package: %+v", s)
			}
			return s
		}
		first := fetch()
		theirs := alice.Group(nil, nil)
		theirs.Call(nil, "addMembers", []string{bob.InboxID()})
		find(t, bob, theirs.ID) // five seconds later there is another package
		eventually(t, "the key package is replaced", func() bool { return *fetch().Lifetime != *first.Lifetime })
		// By the new one, he can be let in, too.
		second := alice.Group(nil, nil)
		second.Call(nil, "addMembers", []string{bob.InboxID()})
		second.Send("by the new package")
		equal(t, "Go reads", find(t, bob, second.ID).texts(), []string{"by the new package"})
	})
}

// Messages disappear on both sides, and the clients tell of it.
func TestGoDisappearing(t *testing.T) {
	scenario(t, "Go: messages disappear on both sides", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), goClient(t, w.url)
		group, err := bob.NewGroup(t.Context(), xmtp.GroupOptions{}, alice.InboxID)
		v := ours{check(t, group, err), t}
		alice.SyncAll()
		theirs := alice.Find(&official.Conversation{ID: v.ID()})
		v.say("stays")
		theirs.Send("stays, too")
		v.sync()
		if err := v.SetDisappearing(t.Context(), xmtp.Disappearing{In: 3 * time.Second}); err != nil {
			t.Fatal(err)
		}
		theirs.Sync()
		deleted := make(chan xmtp.Deletion, 10)
		ended := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() {
			defer close(ended)
			for d, err := range bob.StreamDeletions(ctx) {
				if err != nil {
					return
				}
				deleted <- d
			}
		}()
		mine := v.say("goes").ID
		yours := theirs.Send("goes, too")
		v.sync()
		theirs.Sync()
		stays := []string{"stays", "stays, too"}
		eventually(t, "they are gone on their side", func() bool { return slices.Equal(theirs.Texts(), stays) })
		eventually(t, "they are gone on our side", func() bool { return slices.Equal(v.texts(), stays) })
		var ids []string
		for range 2 {
			ids = append(ids, (<-deleted).MessageID)
		}
		sameSet(t, "told to be deleted", ids, []string{mine, yours})
		stop()
		<-ended
	})
}
