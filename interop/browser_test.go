package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/node"
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

// TestBrowserTabs has four clients in one profile with all the streams that an app opens.
// Over cleartext a browser has six connections for all of them together, and each takes
// three: the third waits for ever then.
func TestBrowserTabs(t *testing.T) {
	long(t)
	t.Parallel()
	for _, sdk := range browsers {
		t.Run(string(sdk), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "browser: four clients in one profile over TLS", sdk)
			cert, key := certificate(t)
			w.open("https://" + serve(t, node.Options{TLS: node.TLS{CertFile: cert, KeyFile: key}}).Addr())
			takePictures(t, w)
			var tabs []*official.Client
			for _, name := range []string{"alice", "bob", "carol", "dave"} {
				tabs = append(tabs, w.Client(name))
			}
			var messages, conversations []*official.LiveStream
			for _, client := range tabs {
				messages = append(messages, client.Stream("conversations.streamAllMessages", nil))
				conversations = append(conversations, client.Stream("conversations.stream", nil))
			}
			group := tabs[0].Group(tabs[1:], nil)
			for i, client := range tabs[1:] {
				conversations[i+1].WaitConversations(group)
				// With its first message comes a commit, which is better made one at a time.
				client.SyncAll()
				client.Find(group).Send("hello from " + client.Name)
			}
			var want []string
			var burst sync.WaitGroup
			errs := make([]error, len(tabs))
			for i, client := range tabs {
				texts := numbered(client.Name, 25)
				want = append(want, texts...)
				theirs := client.Find(group)
				burst.Go(func() {
					for _, text := range texts {
						if errs[i] = theirs.TryCall(nil, "sendText", text); errs[i] != nil {
							return
						}
					}
				})
			}
			burst.Wait()
			for i, err := range errs {
				if err != nil {
					t.Errorf("%s: %v", tabs[i].Name, err)
				}
			}
			for i, client := range tabs {
				got := messages[i].WaitTexts(want...)
				for _, writer := range tabs {
					equal(t, client.Name+" streams "+writer.Name, from(writer.Name, got), numbered(writer.Name, 25))
				}
				if n := messages[i].Count("fail") + messages[i].Count("error"); n != 0 {
					t.Errorf("%s's stream failed %d times", client.Name, n)
				}
			}
		})
	}
}

// from picks the numbered texts of one writer.
func from(writer string, texts []string) []string {
	all := numbered(writer, 1000)
	return slices.DeleteFunc(slices.Clone(texts), func(text string) bool { return !slices.Contains(all, text) })
}

// certificate writes a certificate for this machine that nobody vouches for, and its key.
func certificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(folder, name)
		text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
}
