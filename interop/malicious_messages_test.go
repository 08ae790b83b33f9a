package interop

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// say encrypts application data, whatever it is.
func (m *mallory) say(data []byte) {
	m.t.Helper()
	pending, err := m.group.Encrypt(data, nil)
	m.send(check(m.t, pending, err).Done())
}

// What a member sends that no client makes is stored, or passed over, by both sides
// alike, and stops nobody.
func TestGoMaliciousMessages(t *testing.T) {
	scenario(t, "Go: messages that no client makes are taken alike by Go and by them", everyVersion, func(t *testing.T, w *world) {
		bob, alice, m := goClient(t, w.url), w.Client("alice"), newMallory(t, w.url)
		our, their := &goMember{client: bob, t: t}, &officialMember{client: alice, t: t}
		their.view = alice.Group([]*official.Client{{InboxID: bob.InboxID()}, {InboxID: m.inboxID}}, map[string]any{"permissions": 1})
		our.join(their.view.ID)
		m.join()
		our.view.say("hello")
		their.sync()
		their.view.Send("hello yourself")
		our.sync()
		m.follow()
		all, err := our.view.Messages(xmtp.MessageOptions{Kind: xmtp.KindApplication})
		target := check(t, all, err)[len(all)-1].ID

		count := func() (ours, theirs int) {
			t.Helper()
			ours, err := our.view.CountMessages(xmtp.MessageOptions{Kind: xmtp.KindApplication, Hidden: true})
			check(t, ours, err)
			their.view.Call(&theirs, "countMessages", map[string]any{"kind": 0})
			return ours, theirs
		}
		envelope := func(b []byte, key string) []byte {
			data, err := protocol.Envelope{Content: b, IdempotencyKey: key}.Marshal()
			return check(t, data, err)
		}
		of := func(name string, major uint32, body []byte) []byte {
			e := content.Encoded{Type: content.Type{Authority: "xmtp.org", Name: name, Major: major}, Parameters: map[string]string{"reference": target}, Content: body}
			b, err := e.Marshal()
			return envelope(check(t, b, err), name+time.Now().String())
		}
		field := func(n protowire.Number, s string) []byte {
			return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), s)
		}
		ours, theirs := count()
		base := theirs - ours // each has its own way of counting how it came in
		for _, g := range []struct {
			name string
			data []byte
		}{
			{"nothing", nil},
			{"no protobuf", []byte{0xff, 0xff, 0xff}},
			{"groups without end", bytes.Repeat([]byte{0x0b}, 20_000)},
			{"an envelope of tomorrow", protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), []byte("x"))},
			{"an envelope of yesterday", protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), field(1, "key"))},
			{"a key that is no text", protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte{0x12, 0x01, 0xff})},
			{"no encoded content", envelope([]byte{0xff}, "a")},
			{"a text that is none", of("text", 1, []byte{0xff, 0xfe})},
			{"a reply to nothing", of("reply", 1, nil)},
			{"a reaction that is none", of("reaction", 2, []byte{0xff})},
			{"a deletion of another's message", of("deleteMessage", 1, field(1, target))},
			{"a change of the group that is none", of("group_updated", 1, field(1, "nobody"))},
			{"a receipt with content", of("readReceipt", 1, []byte("read"))},
		} {
			m.say(g.data)
			agree(t, our, their)
			ours, theirs := count()
			if theirs-ours != base {
				t.Errorf("%s: we have %d messages, they have %d", g.name, ours, theirs)
			}
			base = theirs - ours
		}
		// Keys as far ahead as they look, and further.
		for _, skip := range []int{999, 1001} {
			for range skip {
				pending, err := m.group.Encrypt(nil, nil)
				check(t, pending, err).Done()
			}
			m.say(of("readReceipt", 1, nil))
			agree(t, our, their)
			if ours, theirs := count(); theirs-ours != base {
				t.Errorf("after a gap of %d: we have %d messages, they have %d", skip, ours, theirs)
			}
		}
		// A proposal that stands alone.
		pending, err := m.group.Propose(mls.Remove{Leaf: m.leaf(bob.InboxID())}, nil)
		m.send(check(t, pending, err).Done())
		agree(t, our, their)
		// Official lists throw from now on, as what is no encoded content has no type for
		// them; their counts, and all else, go on.
		their.view.Send("still here?")
		our.sync()
		if all := our.texts(); all[len(all)-1] != "still here?" {
			t.Errorf("we read %q", all)
		}
		our.view.say("still here")
		agree(t, our, their)
		if ours, theirs := count(); theirs-ours != base {
			t.Errorf("in the end we have %d messages, they have %d", ours, theirs)
		}
	})
}
