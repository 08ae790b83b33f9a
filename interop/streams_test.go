package interop

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/interop/official"
)

func TestStreams(t *testing.T) {
	scenario(t, "streams, from zero groups", everyVersion, func(t *testing.T, w *world) {
		// Bob and carol have no conversation at all yet, and one stream each: see
		// TestStreamFilters.
		alice, bob, carol := w.Client("alice"), w.Client("bob"), w.Client("carol")
		conversations := carol.Stream("conversations.stream", nil)
		messages := bob.Stream("conversations.streamAllMessages", nil)

		dm, hers := alice.DM(bob), alice.DM(carol)
		dm.Send("in the DM")
		group := alice.Group([]*official.Client{bob, carol}, nil)
		group.Send("in the group")
		conversations.WaitConversations(hers, group)
		messages.WaitTexts("in the DM", "in the group")
		for i := range 5 {
			want := numbered("round", i+1)[i]
			dm.Send(want + " DM")
			group.Send(want + " group")
		}
		got := messages.WaitTexts("round 0004 DM", "round 0004 group")
		equal(t, "texts streamed", len(got), 12)

		// One conversation's stream, both ways.
		theirs := bob.Find(dm)
		live := theirs.Stream(nil)
		mine := dm.Stream(nil)
		dm.Send("ping")
		live.WaitTexts("ping")
		theirs.Send("pong")
		mine.WaitTexts("ping", "pong")

		// A closed stream stays silent, the others go on.
		live.Close()
		dm.Send("after closing")
		messages.WaitTexts("after closing")
		if slices.Contains(live.Texts(), "after closing") {
			t.Error("a closed stream delivers")
		}
		for name, stream := range map[string]*official.LiveStream{"conversations": conversations, "messages": messages, "mine": mine} {
			if n := stream.Count("fail") + stream.Count("error"); n != 0 {
				t.Errorf("stream %s failed %d times", name, n)
			}
		}
	})
}

func TestStreamFilters(t *testing.T) {
	scenario(t, "streams of groups, DMs and consent", baseline, func(t *testing.T, w *world) {
		// One stream for each client: of several, the SDK lets one take a welcome, and what
		// the others are sent of the new group may be lost (docs/interop.md).
		names := []string{"groups", "dms", "texts of groups", "texts of DMs"}
		alice, readers := w.Client("alice"), make([]*official.Client, len(names))
		for i, name := range names {
			readers[i] = w.Client(name)
		}
		groups := readers[0].Stream("conversations.streamGroups", nil)
		dms := readers[1].Stream("conversations.streamDms", nil)
		inGroups := readers[2].Stream("conversations.streamAllGroupMessages", nil)
		inDMs := readers[3].Stream("conversations.streamAllDmMessages", nil)
		var theirs []*official.Conversation
		for _, reader := range readers {
			theirs = append(theirs, alice.DM(reader))
		}
		group := alice.Group(readers, nil)
		groups.WaitConversations(group)
		dms.WaitConversations(theirs[1])
		for _, dm := range theirs {
			dm.Send("in the DM")
		}
		group.Send("in the group")
		inDMs.WaitTexts("in the DM")
		inGroups.WaitTexts("in the group")
		equal(t, "texts of groups", inGroups.Texts(), []string{"in the group"})
		equal(t, "texts of DMs", inDMs.Texts(), []string{"in the DM"})
		equal(t, "groups streamed", groups.Count("value"), 1)
		equal(t, "DMs streamed", dms.Count("value"), 1)
		consent := readers[0].Stream("preferences.streamConsent", nil)
		readers[0].Find(group).Call(nil, "updateConsentState", official.ConsentDenied)
		consent.WaitKind("value", 1)
	})
}

func TestStreamManyWriters(t *testing.T) {
	scenario(t, "stream under many writers", baseline, func(t *testing.T, w *world) {
		const writers, each = 6, 20
		reader := w.Client("reader")
		live := reader.Stream("conversations.streamAllMessages", nil)
		clients := make([]*official.Client, writers)
		for i := range clients {
			clients[i] = w.Client(string(rune('a' + i)))
		}
		group := reader.Group(clients, nil)
		var want []string
		for _, client := range clients {
			client.SyncAll()
			want = append(want, numbered(client.Name, each)...)
			// A new member's first message comes with a commit, and members who commit at
			// the same time make each other's messages fail in the SDK.
			client.Find(group).Send("hello from " + client.Name)
		}
		for _, client := range clients {
			client.SyncAll()
		}
		official.Parallel(t, writers, func(i int) error {
			theirs, err := clients[i].TryFind(group)
			if err != nil {
				return err
			}
			for _, text := range numbered(clients[i].Name, each) {
				if err := theirs.TryCall(nil, "sendText", text); err != nil {
					return err
				}
			}
			return nil
		})
		got := live.WaitTexts(want...)
		equal(t, "texts streamed", len(got), writers+len(want))
		for _, client := range clients {
			inOrder(t, got, numbered(client.Name, each))
		}
	})
}

// For each new conversation the SDK opens a stream with one more group and drops the one
// before, while messages come in: what falls between two streams has to come all the same.
func TestStrangers(t *testing.T) {
	n := often(30, 10)
	scenario(t, fmt.Sprint(n, " strangers write to a streaming client"), everyVersion, func(t *testing.T, w *world) {
		bob := w.Client("bob")
		live := bob.Stream("conversations.streamAllMessages", nil)
		wallets := make([]official.Wallet, n)
		for i := range wallets {
			wallets[i] = w.Wallet()
		}
		var want []string
		for i := range n {
			want = append(want, numbered(fmt.Sprintf("stranger%02d", i), 3)...)
		}
		official.Parallel(t, n, func(i int) error {
			name := fmt.Sprintf("stranger%02d", i)
			stranger, err := w.TryInstallation(name, wallets[i])
			if err != nil {
				return err
			}
			dm, err := stranger.TryDM(bob)
			if err != nil {
				return err
			}
			for _, text := range numbered(name, 3) {
				if err := dm.TryCall(nil, "sendText", text); err != nil {
					return err
				}
			}
			return nil
		})
		got := live.WaitTexts(want...)
		equal(t, "texts streamed", len(got), len(want))
		equal(t, "failures", live.Count("fail"), 0)
	})
}

// inOrder checks that some of the texts are there in their order, each once.
func inOrder(t *testing.T, got, want []string) {
	t.Helper()
	var have []string
	for _, text := range got {
		if slices.Contains(want, text) {
			have = append(have, text)
		}
	}
	equal(t, "order", have, want)
}

func TestOneSync(t *testing.T) {
	scenario(t, "130 messages, one sync", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), w.Client("bob")
		group := alice.Group([]*official.Client{bob}, nil)
		bob.SyncAll()
		theirs := bob.Find(group)
		want := numbered("message", 130)
		group.SendAll(want)
		theirs.Sync()
		equal(t, "bob reads", theirs.Texts(), want)
	})
}

func TestAway(t *testing.T) {
	scenario(t, "away while 1,000 messages arrive, or 230", everyVersion, func(t *testing.T, w *world) {
		before := 900
		if w.sdk != official.Baseline {
			before = often(900, 130)
		}
		alice := w.Client("alice")
		home := w.start(w.sdk)
		bob := home.Client("bob")
		group := alice.Group([]*official.Client{bob}, nil)
		dm := alice.DM(bob)
		bob.SyncAll()
		home.Close()

		want := numbered("message", before)
		for chunk := range slices.Chunk(want, 100) {
			group.SendAll(chunk)
		}
		group.Call(nil, "updateName", "a commit among them")
		late := numbered("late", 50)
		group.SendAll(late)
		dm.SendAll(numbered("DM", 50))

		bob = bob.Reopen(w.start(w.sdk))
		bob.SyncAll()
		equal(t, "bob's group", bob.Find(group).Texts(), append(want, late...))
		equal(t, "bob's DM", bob.Find(dm).Texts(), numbered("DM", 50))
		equal(t, "name", bob.Find(group).Name, "a commit among them")
	})
}

// Idle for longer than four of the client's pings: a node that takes the pings for abuse
// ends the connection after 65 seconds.
func TestIdleStream(t *testing.T) {
	long(t)
	scenario(t, "stream idle for 90 s", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), w.Client("bob")
		dm := alice.DM(bob)
		bob.SyncAll()
		live := bob.Stream("conversations.streamAllMessages", nil)
		time.Sleep(90 * time.Second)
		dm.Send("still there?")
		live.WaitTextsFor(5*time.Second, "still there?")
		equal(t, "failures", live.Count("fail"), 0)
	})
}
