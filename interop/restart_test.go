package interop

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/interop/official"
)

func TestRestart(t *testing.T) {
	scenarioOnDisk(t, "node stopped and started", everyVersion, func(t *testing.T, w *world, n *nodeProcess) {
		alice, bob := w.Client("alice"), w.Client("bob")
		group := alice.Group([]*official.Client{bob}, nil)
		live := bob.Stream("conversations.streamAllMessages", nil)
		group.Send("before")
		live.WaitTexts("before")
		n.stop()
		live.WaitKind("fail", 1)
		if err := group.TryCall(nil, "sendText", "while it is down"); err == nil {
			t.Error("a message is sent without a node")
		}
		n.start()

		// Everything that was is there, for clients that go on and for a new one.
		group.Send("after")
		// What came in between is fetched by the SDK's own sync, and not streamed.
		live.WaitKind("restart", 1)
		group.Send("later")
		live.WaitTexts("before", "later")
		carol := w.Client("carol")
		group.Call(nil, "addMembers", []string{carol.InboxID})
		dm := carol.DM(bob)
		dm.Send("from carol")
		live.WaitTexts("from carol")
		carol.SyncAll()
		sameSet(t, "members", members(carol.Find(group)), []string{alice.InboxID, bob.InboxID, carol.InboxID})
		// What could not be sent has failed for good in the SDK.
		want := []string{"before", "after", "later"}
		equal(t, "bob's group", bob.Find(group).Texts(), want)

		late := bob.Reopen(w.start(w.sdk))
		late.SyncAll()
		equal(t, "bob's other process", late.Find(group).Texts(), want)
	})
}

func TestKillDuringBurst(t *testing.T) {
	scenarioOnDisk(t, "node killed in a burst and a stream", everyVersion, func(t *testing.T, w *world, n *nodeProcess) {
		killDuringBurst(t, w, n, 3)
	})
}

func TestKillManyTimes(t *testing.T) {
	long(t)
	scenarioOnDisk(t, "node killed 25 times in a burst and a stream", baseline, func(t *testing.T, w *world, n *nodeProcess) {
		killDuringBurst(t, w, n, 25)
	})
}

// withoutSync has the SDK continue a failed stream from the last message that came on it.
// Otherwise it syncs first, and what that fetches does not come on the stream.
var withoutSync = map[string]any{"disableSync": true}

// killDuringBurst kills and restarts the node while clients write and read. What the
// node acknowledged must be there afterwards, once, and in the writer's order, on the
// stream and in the history.
func killDuringBurst(t *testing.T, w *world, n *nodeProcess, kills int) {
	reader := w.Client("reader")
	writers := []*official.Client{w.Client("a"), w.Client("b"), w.Client("c")}
	group := reader.Group(writers, nil)
	live := reader.Stream("conversations.streamAllMessages", withoutSync)
	for _, writer := range writers {
		writer.SyncAll()
		// With its first message comes a commit, which is better made one at a time.
		writer.Find(group).Send("hello from " + writer.Name)
	}

	done := make(chan struct{})
	acknowledged := make([][]string, len(writers))
	errs := make([]error, len(writers))
	var burst sync.WaitGroup
	for i, writer := range writers {
		theirs := writer.Find(group)
		burst.Go(func() {
			for _, text := range numbered(writer.Name, 100_000) {
				select {
				case <-done:
					return
				default:
				}
				err := theirs.TryCall(nil, "sendText", text)
				var refused *official.CallError
				switch {
				case err == nil:
					acknowledged[i] = append(acknowledged[i], text)
				case !errors.As(err, &refused): // the SDK itself is lost
					errs[i] = err
					return
				}
			}
		})
	}
	for kill := range kills {
		// While messages flow, at a point of time that differs from kill to kill.
		before := len(live.Texts())
		eventually(t, "messages flow", func() bool { return len(live.Texts()) >= before+20+7*kill%13 })
		n.kill()
		time.Sleep(100 * time.Millisecond) // so that the clients see it gone
		n.start()
	}
	before := len(live.Texts())
	eventually(t, "messages flow again", func() bool { return len(live.Texts()) > before })
	close(done)
	burst.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}

	want := slices.Concat(acknowledged...)
	streamed := live.WaitTexts(want...)
	reader.SyncAll()
	held := reader.Find(group).Texts()
	for i, texts := range acknowledged {
		once(t, "streamed from "+writers[i].Name, streamed, texts)
		once(t, "history of "+writers[i].Name, held, texts)
	}
	// Every other member holds the same history.
	for _, writer := range writers {
		writer.SyncAll()
		sameSet(t, "history at "+writer.Name, writer.Find(group).Texts(), held)
	}
	t.Logf("%d kills, %d messages acknowledged, %d in the history", kills, len(want), len(held))
}

// once checks that each of the texts is there exactly once.
func once(t *testing.T, what string, got, want []string) {
	t.Helper()
	counts := make(map[string]int, len(got))
	for _, text := range got {
		counts[text]++
	}
	for _, text := range want {
		if counts[text] != 1 {
			t.Errorf("%s: %q is there %d times", what, text, counts[text])
		}
	}
}

// With the SDK's own minute between retries, which is what apps have.
func TestRestartWithDefaultRetry(t *testing.T) {
	long(t)
	scenarioOnDisk(t, "node restarted, default stream retry", everyVersion, func(t *testing.T, w *world, n *nodeProcess) {
		alice, bob := w.Client("alice"), w.Client("bob")
		dm := alice.DM(bob)
		live := bob.Stream("conversations.streamAllMessages", map[string]any{"retryDelay": 60_000})
		dm.Send("before")
		live.WaitTexts("before")
		n.stop()
		n.start()
		dm.Send("meanwhile")
		live.WaitKind("restart", 1)
		dm.Send("after")
		live.WaitTexts("before", "after")
		equal(t, "failures", live.Count("fail"), 1)
		equal(t, "bob reads", bob.Find(dm).Texts(), []string{"before", "meanwhile", "after"})
	})
}
