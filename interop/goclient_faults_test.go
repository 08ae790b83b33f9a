package interop

import (
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

func TestGoRestart(t *testing.T) {
	scenarioOnDisk(t, "Go: node stopped, killed and started, both clients away and back", everyVersion, func(t *testing.T, w *world, n *nodeProcess) {
		signer, err := xmtp.GeneratePrivateKeySigner()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "go.db")
		open := func() *xmtp.Client {
			c, err := xmtp.NewClient(t.Context(), signer, xmtp.WithNode("http://"+n.address), xmtp.WithDatabase(path))
			return check(t, c, err)
		}
		bob, alice := open(), w.Client("alice")
		theirs := alice.Group(nil, nil)
		theirs.Call(nil, "addMembers", []string{bob.InboxID()})
		v := find(t, bob, theirs.ID)
		v.say("before")
		n.stop()
		n.start()
		v.say("after a stop")
		n.kill()
		n.start()
		v.say("after a kill")
		theirs.Sync()
		theirs.Send("their answer")

		// The Go client is away while its group goes on.
		if err := bob.Close(); err != nil {
			t.Fatal(err)
		}
		theirs.SendAll(numbered("while Go is away", 130))
		theirs.Call(nil, "updateName", "another name")
		bob = open()
		defer bob.Close()
		v = find(t, bob, theirs.ID)
		contains(t, "Go reads", v.texts(), append(numbered("while Go is away", 130), "before", "after a stop", "after a kill", "their answer")...)

		// The official client is away while the Go client writes.
		for i := range 20 {
			v.say(fmt.Sprintf("while they are away %d", i))
		}
		late := alice.Reopen(w.start(w.sdk))
		late.SyncAll()
		sameState(t, v, late.Find(theirs))
	})
}

// delay stands between clients and a node and holds every piece of data back for
// a random time, in order.
func delay(t *testing.T, upstream string, most time.Duration) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	pipe := func(to, from net.Conn) {
		defer to.Close()
		buffer := make([]byte, 32<<10)
		for {
			read, err := from.Read(buffer)
			time.Sleep(rand.N(most)) // it is what this is for
			if _, writeErr := to.Write(buffer[:read]); err != nil || writeErr != nil {
				return
			}
		}
	}
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", upstream)
			if err != nil {
				client.Close()
				continue
			}
			running.Go(func() { pipe(server, client) })
			running.Go(func() { pipe(client, server) })
			t.Cleanup(func() { client.Close(); server.Close() })
		}
	})
	t.Cleanup(running.Wait)
	t.Cleanup(func() { listener.Close() })
	return "http://" + listener.Addr().String()
}

func TestGoManySenders(t *testing.T) {
	const senders = 64
	each := often(1000, 16)
	scenario(t, fmt.Sprintf("Go: %d goroutines send %d messages in one group through delays", senders, senders*each), baseline, func(t *testing.T, w *world) {
		alice := w.Client("alice")
		bob := goClient(t, delay(t, strings.TrimPrefix(w.url, "http://"), 5*time.Millisecond))
		group, err := bob.NewGroup(t.Context(), xmtp.GroupOptions{}, alice.InboxID)
		v := ours{check(t, group, err), t}
		official.Parallel(t, senders, func(s int) error {
			for i := range each {
				if _, err := v.SendText(t.Context(), fmt.Sprintf("%02d %04d", s, i)); err != nil {
					return fmt.Errorf("sender %d, message %d: %w", s, i, err)
				}
			}
			return nil
		})
		// Of so many, one sync can take longer than a call may.
		for limit := time.Now().Add(15 * time.Minute); ; {
			err := alice.TryCall(nil, "conversations.syncAll", []int{official.ConsentUnknown, official.ConsentAllowed})
			if err == nil {
				break
			}
			if time.Now().After(limit) {
				t.Fatal(err)
			}
		}
		theirs := alice.Find(&official.Conversation{ID: v.ID()})
		theirs.Sync()
		got := theirs.Texts()
		if len(got) != senders*each {
			t.Errorf("%d of %d arrive", len(got), senders*each)
		}
		next := make([]int, senders)
		for _, text := range got {
			var s, i int
			if _, err := fmt.Sscanf(text, "%d %d", &s, &i); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if i != next[s] {
				t.Fatalf("message %d of sender %d comes when %d is next", i, s, next[s])
			}
			next[s]++
		}
	})
}
