package xmtp

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// fuzzed are alice and bob in a group, for the whole of a fuzzing run.
func fuzzed(f *testing.F) (alice, bob *Client, v *Conversation) {
	f.Helper()
	ok := func(err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
	}
	n, err := node.Start(f.Context(), node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	ok(err)
	var clients [2]*Client
	for i := range clients {
		signer, err := GeneratePrivateKeySigner()
		ok(err)
		clients[i], err = NewClient(f.Context(), signer, WithNode("http://"+n.Addr()), InMemory(), WithoutWorkers())
		ok(err)
	}
	f.Cleanup(func() {
		for _, c := range clients {
			ok(c.Close())
		}
		ok(n.Close())
	})
	v, err = clients[0].NewGroup(f.Context(), GroupOptions{}, clients[1].InboxID())
	ok(err)
	return clients[0], clients[1], v
}

// Whatever stands in a log, it is skipped, and leaves the conversation in its epoch.
func FuzzReceivedMessage(f *testing.F) {
	alice, bob, v := fuzzed(f)
	response, err := bob.node.MLS.QueryGroupMessages(f.Context(), &mlsapi.QueryGroupMessagesRequest{GroupId: v.row.ID})
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range response.Messages {
		f.Add(m.GetV1().Data)
		f.Add(m.GetV1().Data[:30])
	}
	f.Add([]byte{0, 1, 0, 2, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		before, _, err := v.Epoch(t.Context())
		check(t, err)
		g := alice.groups.get(v.row.ID)
		check(t, g.acquire(t.Context()))
		row := must(g.row())(t)
		_, err = g.apply(t.Context(), row, []*mlsapi.GroupMessage_V1{{Id: row.Cursor + 1, GroupId: g.id, Data: data}})
		g.release()
		check(t, err)
		if after, _, _ := v.Epoch(t.Context()); after != before {
			t.Errorf("epoch %d, then %d", before, after)
		}
		if now := must(g.row())(t); now.Cursor != row.Cursor+1 {
			t.Errorf("read up to %d, then %d", row.Cursor, now.Cursor)
		}
	})
}

// Whatever a stranger sends as a welcome, it leads nowhere.
func FuzzReceivedWelcome(f *testing.F) {
	alice, bob, _ := fuzzed(f)
	response, err := alice.node.MLS.QueryWelcomeMessages(f.Context(), &mlsapi.QueryWelcomeMessagesRequest{InstallationKey: bob.installation.Bytes()})
	if err != nil {
		f.Fatal(err)
	}
	welcome := response.Messages[0]
	if b, err := proto.Marshal(welcome); err == nil {
		f.Add(b)
	}
	welcome.GetV1().Data = welcome.GetV1().Data[:100]
	if b, err := proto.Marshal(welcome); err == nil {
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &mlsapi.WelcomeMessage{}
		if proto.Unmarshal(data, m) != nil {
			return
		}
		if number, _ := welcomeNumber(m); number > maxNumber {
			return // that is found before
		}
		opened, reason, err := bob.unwrap(m)
		check(t, err)
		if reason != nil {
			return
		}
		if _, err := bob.joinOne(t.Context(), opened, func(*store.Tx) error { return nil }); err != nil && !deferrable(err) {
			t.Error(err)
		}
	})
}
