package interop

import (
	"path/filepath"
	"testing"

	"github.com/go-xmtp/go-xmtp/interop/official"
)

// browserScenario is a scenario that leaves pictures of its pages, for whoever looks for
// what went wrong.
func browserScenario(t *testing.T, name string, run func(t *testing.T, w *world)) {
	t.Helper()
	scenario(t, name, browsers, func(t *testing.T, w *world) {
		takePictures(t, w)
		run(t, w)
	})
}

func takePictures(t *testing.T, w *world) {
	t.Helper()
	folder, err := filepath.Abs(filepath.Join("..", ".cache", "interop", "screenshots", t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	w.KeepPictures(folder)
}

// TestE6 has browsers talk with each other, with Node.js and with Go.
func TestE6(t *testing.T) {
	browserScenario(t, "browser: register, DM, group, streams, reload", func(t *testing.T, w *world) {
		alice, bob, carol := w.Client("alice"), w.start(official.Baseline).Client("bob"), goClient(t, w.url)
		if !alice.IsRegistered {
			t.Error("alice is not registered")
		}
		conversations := alice.Stream("conversations.stream", nil)
		messages := alice.Stream("conversations.streamAllMessages", nil)

		fromBob := bob.DM(alice)
		fromBob.Send("hello from Node.js")
		messages.WaitTexts("hello from Node.js")
		alice.Find(fromBob).Send("hello from a browser")
		fromBob.Sync()
		equal(t, "bob reads", fromBob.Texts(), []string{"hello from Node.js", "hello from a browser"})

		toCarol := alice.DM(&official.Client{InboxID: carol.InboxID()})
		toCarol.Send("hello Go")
		v := find(t, carol, toCarol.ID)
		v.say("hello browser")
		messages.WaitTexts("hello browser")
		sameState(t, v, toCarol)

		// A second client in the same profile of the browser.
		dave := w.Client("dave")
		group := alice.Group([]*official.Client{bob, dave, {InboxID: carol.InboxID()}}, nil)
		group.Send("from alice")
		fromDave := dave.DM(alice)
		fromDave.Send("hello from the next tab")
		conversations.WaitConversations(fromBob, fromDave)
		bob.SyncAll()
		bob.Find(group).Send("from bob")
		dave.SyncAll()
		dave.Find(group).Send("from dave")
		find(t, carol, group.ID).say("from carol")
		messages.WaitTexts("hello from the next tab", "from bob", "from dave", "from carol")
		all := []string{"from alice", "from bob", "from dave", "from carol"}
		atDave := dave.Find(group)
		atDave.Sync()
		equal(t, "dave reads", atDave.Texts(), all)
		for name, stream := range map[string]*official.LiveStream{"conversations": conversations, "messages": messages} {
			if n := stream.Count("fail") + stream.Count("error"); n != 0 {
				t.Errorf("stream %s failed %d times", name, n)
			}
		}

		again := alice.Reload()
		equal(t, "installation after the reload", again.InstallationID, alice.InstallationID)
		group = again.Find(group)
		equal(t, "texts after the reload, before any sync", group.Texts(), all)
		bob.Find(group).Send("while alice reloads")
		messages = again.Stream("conversations.streamAllMessages", nil)
		group.Sync()
		group.Send("alice is back")
		bob.Find(group).Send("welcome back")
		messages.WaitTexts("welcome back")
		all = append(all, "while alice reloads", "alice is back", "welcome back")
		equal(t, "texts at last", group.Texts(), all)
		atDave.Sync()
		equal(t, "dave reads at last", atDave.Texts(), all)
	})
}

func TestBrowserRestart(t *testing.T) {
	long(t)
	scenarioOnDisk(t, "browser: node stopped and started under streams", browsers, func(t *testing.T, w *world, n *nodeProcess) {
		takePictures(t, w)
		alice, bob := w.Client("alice"), w.start(official.Baseline).Client("bob")
		group := bob.Group([]*official.Client{alice}, nil)
		conversations := alice.Stream("conversations.stream", nil)
		messages := alice.Stream("conversations.streamAllMessages", nil)
		group.Send("before")
		messages.WaitTexts("before")
		for i := range 3 {
			n.stop()
			messages.WaitKind("fail", i+1)
			conversations.WaitKind("fail", i+1)
			if err := alice.Find(group).TryCall(nil, "sync"); err == nil {
				t.Error("a sync succeeds without a node")
			}
			n.start()
			messages.WaitKind("restart", i+1)
			conversations.WaitKind("restart", i+1)
			text := numbered("after restart", i+1)[i]
			group.Send(text)
			dm := w.start(official.Baseline).Client("carol").DM(alice)
			dm.Send("new " + text)
			messages.WaitTexts(text, "new "+text)
			conversations.WaitConversations(dm)
			alice.Find(group).Send("answer " + text)
		}
		// Killed, which breaks connections off instead of ending streams.
		n.kill()
		messages.WaitKind("fail", 4)
		n.start()
		messages.WaitKind("restart", 4)
		group.Send("at last")
		messages.WaitTexts("at last")
		group.Sync()
		atAlice := alice.Find(group)
		atAlice.Sync()
		equal(t, "both hold the same", atAlice.Texts(), group.Texts())
		again := alice.Reload()
		equal(t, "installation after the reload", again.InstallationID, alice.InstallationID)
		equal(t, "texts after the reload", again.Find(group).Texts(), group.Texts())
	})
}
