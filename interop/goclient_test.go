package interop

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// goClient makes a client of ours on the scenario's node.
func goClient(t *testing.T, url string) *xmtp.Client {
	t.Helper()
	signer, err := xmtp.GeneratePrivateKeySigner()
	if err != nil {
		t.Fatal(err)
	}
	client, err := xmtp.NewClient(t.Context(), signer, xmtp.WithNode(url), xmtp.InMemory())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("closing a Go client: %v", err)
		}
	})
	return client
}

// ours is a conversation as a client of ours sees it; what fails ends the test.
type ours struct {
	*xmtp.Conversation
	t *testing.T
}

func check[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (v ours) sync() {
	v.t.Helper()
	if err := v.Sync(v.t.Context()); err != nil {
		v.t.Fatal(err)
	}
}

func (v ours) say(text string) *xmtp.Message {
	v.t.Helper()
	m, err := v.SendText(v.t.Context(), text)
	return check(v.t, m, err)
}

func (v ours) messages() []*xmtp.Message {
	v.t.Helper()
	messages, err := v.Messages(xmtp.MessageOptions{})
	return check(v.t, messages, err)
}

func (v ours) texts() []string {
	v.t.Helper()
	var texts []string
	for _, m := range v.messages() {
		if text := m.Text(); text != "" {
			texts = append(texts, text)
		}
	}
	return texts
}

// find syncs a client of ours and returns its view of a conversation.
func find(t *testing.T, c *xmtp.Client, id string) ours {
	t.Helper()
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, err := c.Conversation(id)
	return ours{check(t, v, err), t}
}

// sameState compares epochs, what the official client thinks of forks, and every message.
func sameState(t *testing.T, ours ours, theirs *official.Conversation) {
	t.Helper()
	theirs.Sync()
	ours.sync()
	var info struct {
		Epoch          json.Number `json:"epoch"`
		MaybeForked    bool        `json:"maybeForked"`
		ForkDetails    string      `json:"forkDetails"`
		LocalCommitLog string      `json:"localCommitLog"`
	}
	theirs.Call(&info, "debugInfo")
	number, authenticator, err := ours.Epoch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Epoch.String() != fmt.Sprint(number) {
		t.Errorf("epoch: theirs %s, ours %d", info.Epoch, number)
	}
	if info.MaybeForked {
		t.Errorf("they suspect a fork: %s", info.ForkDetails)
	}
	// The SDK shows the first three bytes of an authenticator only.
	_, last, _ := cutLast(info.LocalCommitLog, "applied_epoch_authenticator: ")
	if want := fmt.Sprintf("%q", hex.EncodeToString(authenticator)[:6]+".."); !strings.HasPrefix(last, want) {
		t.Errorf("epoch authenticator: ours %x, theirs %.12s in\n%s", authenticator, last, info.LocalCommitLog)
	}
	type said struct{ ID, Sender, Text, SentAt string }
	var a, b []said
	for _, m := range ours.messages() {
		if m.Text() != "" {
			a = append(a, said{m.ID, m.SenderInboxID, m.Text(), fmt.Sprint(m.SentAt.UnixNano())})
		}
	}
	for _, m := range theirs.Messages() {
		if m.Text() != "" {
			b = append(b, said{m.ID, m.SenderInboxID, m.Text(), fmt.Sprint(m.SentAtNs)})
		}
	}
	equal(t, "ids, senders, texts and times", a, b)
}

// cutLast cuts around the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}

func TestGoDM(t *testing.T) {
	scenario(t, "Go: DM that the official client creates", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), goClient(t, w.url)
		theirs := alice.DM(&official.Client{InboxID: bob.InboxID()})
		theirs.Send("hello")
		v := find(t, bob, theirs.ID)
		equal(t, "Go reads", v.texts(), []string{"hello"})
		equal(t, "peer", v.PeerInboxID(), alice.InboxID)
		v.say("hello from Go")
		sameState(t, v, theirs)
		equal(t, "they read", theirs.Texts(), []string{"hello", "hello from Go"})
		for i := range 5 {
			theirs.Send(fmt.Sprintf("official %d", i))
			v.say(fmt.Sprintf("Go %d", i))
		}
		sameState(t, v, theirs)
	})
}

func TestGoDMCreatedByGo(t *testing.T) {
	scenario(t, "Go: DM that the Go client creates", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), goClient(t, w.url)
		dm, err := bob.DM(t.Context(), alice.InboxID)
		v := ours{check(t, dm, err), t}
		v.say("hello from Go")
		alice.SyncAll()
		theirs := alice.Find(&official.Conversation{ID: v.ID()})
		equal(t, "they read", theirs.Texts(), []string{"hello from Go"})
		equal(t, "peer", theirs.PeerInboxID, bob.InboxID())
		theirs.Send("hello")
		sameState(t, v, theirs)
		equal(t, "they find the same", alice.DM(&official.Client{InboxID: bob.InboxID()}).ID, v.ID())
	})
}

func TestGoGroup(t *testing.T) {
	scenario(t, "Go: group of three, official creator, history, removed and added again", everyVersion, func(t *testing.T, w *world) {
		alice, carol, bob := w.Client("alice"), w.Client("carol"), goClient(t, w.url)
		theirs := alice.Group([]*official.Client{carol}, nil)
		theirs.Send("before Go")
		theirs.Call(nil, "addMembers", []string{bob.InboxID()})
		theirs.Send("with Go")
		v := find(t, bob, theirs.ID)
		equal(t, "Go reads", v.texts(), []string{"with Go"})
		v.say("Go is here")
		carol.SyncAll()
		atCarol := carol.Find(theirs)
		contains(t, "carol reads", atCarol.Texts(), "before Go", "with Go", "Go is here")
		atCarol.Send("carol, too")
		theirs.Sync()
		theirs.Call(nil, "updateName", "a name")
		theirs.Call(nil, "addAdmin", carol.InboxID)
		theirs.Send("after some commits")
		v.sync()
		contains(t, "Go reads", v.texts(), "with Go", "Go is here", "carol, too", "after some commits")
		theirs.Call(nil, "removeMembers", []string{bob.InboxID()})
		theirs.Send("without Go")
		v.sync()
		if active, err := v.IsActive(); err != nil || active {
			t.Errorf("Go was removed, but is active: %v, %v", active, err)
		}
		if slices.Contains(v.texts(), "without Go") {
			t.Error("Go reads on after its removal")
		}
		if _, err := v.SendText(t.Context(), "still here?"); err == nil {
			t.Error("Go sends after its removal")
		}
		theirs.Call(nil, "addMembers", []string{bob.InboxID()})
		theirs.Send("Go is back")
		v = find(t, bob, theirs.ID)
		contains(t, "Go reads", v.texts(), "Go is back")
		v.say("thank you")
		theirs.Sync()
		contains(t, "alice reads", theirs.Texts(), "thank you")
		atCarol.Sync()
		contains(t, "carol reads", atCarol.Texts(), "thank you")
		sameEpochAs(t, v, theirs, atCarol)
	})
}

// sameEpochAs compares the epochs, and asks the others whether they suspect a fork.
func sameEpochAs(t *testing.T, v ours, theirs ...*official.Conversation) {
	t.Helper()
	v.sync()
	number, _, err := v.Epoch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range theirs {
		var info struct {
			Epoch       json.Number `json:"epoch"`
			MaybeForked bool        `json:"maybeForked"`
		}
		c.Call(&info, "debugInfo")
		if info.MaybeForked || info.Epoch.String() != fmt.Sprint(number) {
			t.Errorf("epoch: theirs %s (forked: %v), ours %d", info.Epoch, info.MaybeForked, number)
		}
	}
}

func TestGoCreatesGroup(t *testing.T) {
	scenario(t, "Go: group of three, Go creator, members come and go", everyVersion, func(t *testing.T, w *world) {
		alice, carol, bob := w.Client("alice"), w.Client("carol"), goClient(t, w.url)
		group, err := bob.NewGroup(t.Context(), xmtp.GroupOptions{}, alice.InboxID)
		v := ours{check(t, group, err), t}
		v.say("two of us")
		alice.SyncAll()
		atAlice := alice.Find(&official.Conversation{ID: v.ID()})
		atAlice.Send("hello")
		if err := v.AddMembers(t.Context(), carol.InboxID); err != nil {
			t.Fatal(err)
		}
		v.say("three of us")
		carol.SyncAll()
		atCarol := carol.Find(&official.Conversation{ID: v.ID()})
		contains(t, "carol reads", atCarol.Texts(), "three of us")
		atCarol.Send("carol here")
		atAlice.Sync()
		contains(t, "alice reads", atAlice.Texts(), "two of us", "hello", "three of us", "carol here")
		sameEpochAs(t, v, atAlice, atCarol)
		if err := v.RemoveMembers(t.Context(), carol.InboxID); err != nil {
			t.Fatal(err)
		}
		v.say("two again")
		atCarol.Sync()
		if slices.Contains(atCarol.Texts(), "two again") {
			t.Error("carol reads on after her removal")
		}
		sameState(t, v, atAlice)
	})
}

func TestGoStream(t *testing.T) {
	scenario(t, "Go: streams both ways, away and back", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), goClient(t, w.url)
		theirs := alice.DM(&official.Client{InboxID: bob.InboxID()})
		stream := theirs.Stream(nil)
		defer stream.Close()
		received := make(chan string, 1000)
		go func() {
			defer close(received)
			for m, err := range bob.StreamAllMessages(t.Context()) {
				if err != nil {
					return
				}
				if m.SenderInboxID == alice.InboxID && m.Text() != "" {
					received <- m.Text()
				}
			}
		}()
		want := numbered("burst", 100)
		theirs.SendAll(want)
		var got []string
		timeout := time.After(60 * time.Second)
		for len(got) < len(want) {
			select {
			case text := <-received:
				got = append(got, text)
			case <-timeout:
				t.Fatalf("%d of %d arrive", len(got), len(want))
			}
		}
		sameSet(t, "Go streams", got, want)
		v := find(t, bob, theirs.ID)
		v.say("answer")
		stream.WaitTexts("answer")
	})
}
