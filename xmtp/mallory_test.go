package xmtp

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// mallory is a member of alice's group who keeps to no rule but those of MLS, and not
// to all of them.
type mallory struct {
	stranger
	t      *testing.T
	node   mlsapi.MlsApiClient
	keys   *protocol.KeyPackage
	signer mls.Signer
	group  *mls.Group
	cursor uint64
}

// newMallory registers him; c only lends its connection.
func newMallory(t *testing.T, c *Client) *mallory {
	t.Helper()
	m := &mallory{stranger: newStranger(t, c), t: t, node: c.node.MLS}
	m.signer = must(mls.NewSigner(identity.CipherSuite, m.key.Seed()))(t)
	m.keys = must(protocol.NewKeyPackage(m.inboxID, m.signer, time.Now()))(t)
	_, err := m.node.UploadKeyPackage(t.Context(), &mlsapi.UploadKeyPackageRequest{
		KeyPackage: &mlsapi.KeyPackageUpload{KeyPackageTlsSerialized: m.keys.Public()}, IsInboxIdCredential: true,
	})
	check(t, err)
	return m
}

func (m *mallory) installation() identity.Identifier { return identity.Installation(m.signer.Public()) }

// join joins the group of the newest welcome.
func (m *mallory) join(config mls.Config) {
	m.t.Helper()
	response, err := m.node.QueryWelcomeMessages(m.t.Context(), &mlsapi.QueryWelcomeMessagesRequest{InstallationKey: m.installation().Bytes()})
	check(m.t, err)
	welcome, _, err := m.keys.Unwrap(response.Messages[0])
	check(m.t, err)
	m.group = must(mls.Join(welcome.Message, m.keys.Private(), m.signer, nil, config))(m.t).Done().Group
	m.cursor = welcome.CommitID
}

// follow applies what honest members have sent. What he has sent himself nobody applies.
func (m *mallory) follow() {
	m.t.Helper()
	response, err := m.node.QueryGroupMessages(m.t.Context(), &mlsapi.QueryGroupMessagesRequest{
		GroupId:    m.group.ID(),
		PagingInfo: &mlsapi.PagingInfo{Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING, IdCursor: m.cursor, Limit: 1000},
	})
	check(m.t, err)
	for _, message := range response.Messages {
		m.cursor = message.GetV1().Id
		if pending, err := m.group.Process(message.GetV1().Data); err == nil {
			if _, own := pending.Result().(*mls.OwnMessage); own {
				pending.Discard()
			} else {
				pending.Done()
			}
		}
	}
}

// publish sends bytes to the group, if the node takes them.
func (m *mallory) publish(data []byte) (taken bool) {
	m.t.Helper()
	_, err := m.node.SendGroupMessages(m.t.Context(), &mlsapi.SendGroupMessagesRequest{Messages: []*mlsapi.GroupMessageInput{{
		Version: &mlsapi.GroupMessageInput_V1_{V1: &mlsapi.GroupMessageInput_V1{Data: data, SenderHmac: make([]byte, 32)}},
	}}})
	if err != nil && !permanent(err) {
		m.t.Fatal(err)
	}
	return err == nil
}

// say encrypts application data, whatever it is.
func (m *mallory) say(data []byte) {
	m.t.Helper()
	m.publish(must(m.group.Encrypt(data, nil))(m.t).Done())
}

// commit publishes a commit, and takes it up if alice does.
func (m *mallory) commit(h *hostile, proposals ...mls.Proposal) {
	m.t.Helper()
	m.follow()
	pending, err := m.group.Commit(mls.CommitOptions{Proposals: proposals, ByValueOnly: true})
	if err != nil {
		return // he can't even make it
	}
	m.publish(pending.Done().Message)
	check(m.t, h.group.Sync(m.t.Context()))
	settle := m.group.DropOwnCommit
	if epoch, _, err := h.group.Epoch(m.t.Context()); err == nil && epoch > m.group.Epoch() {
		settle = m.group.MergeOwnCommit
	}
	must(settle())(m.t).Done()
}

func envelope(content []byte, key string) []byte {
	b, err := protocol.Envelope{Content: content, IdempotencyKey: key}.Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

func encoded(e content.Encoded) []byte {
	b, err := e.Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

func zipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// garbage is application data that no honest client sends. Its reason is why it is
// skipped, or empty if it is stored: then it is shown as what it is.
type garbage struct {
	name   string
	data   func(target string) []byte // target is the id of a message of alice's
	reason SkipReason
}

func plainly(b []byte) func(string) []byte { return func(string) []byte { return b } }

// garbages are all kinds.
func garbages() []garbage {
	xmtpType := func(name string, major uint32) content.Type {
		return content.Type{Authority: "xmtp.org", Name: name, Major: major}
	}
	text := xmtpType("text", 1)
	nested := []byte("x")
	for range 200 {
		nested = encoded(content.Encoded{Type: xmtpType("reply", 1), Parameters: map[string]string{"reference": "00"}, Content: nested})
	}
	bomb := bytes.Repeat(zipped(make([]byte, 1<<20)), 30)
	about := func(name string, major uint32, body func(target string) []byte) func(string) []byte {
		return func(target string) []byte {
			return envelope(encoded(content.Encoded{Type: xmtpType(name, major), Parameters: map[string]string{"reference": target}, Content: body(target)}), name+target)
		}
	}
	field := func(n protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), s)
	}
	spoof := must2(proto.Marshal(&mlscontents.GroupUpdated{InitiatedByInboxId: "nobody", RemovedInboxes: []*mlscontents.GroupUpdated_Inbox{{InboxId: "alice"}}}))
	return []garbage{
		{"nothing", plainly(nil), SkippedMalformed},
		{"no protobuf", plainly([]byte{0xff, 0xff, 0xff}), SkippedMalformed},
		{"groups without end", plainly(bytes.Repeat([]byte{0x0b}, 20_000)), SkippedMalformed},
		{"an envelope of tomorrow", plainly(protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), []byte("x"))), SkippedMalformed},
		{"an envelope of yesterday", plainly(protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), field(1, "key"))), SkippedMalformed},
		{"a key that is no text", plainly(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte{0x12, 0x01, 0xff})), SkippedMalformed},
		{"an empty envelope", plainly(envelope(nil, "")), ""},
		{"no encoded content", plainly(envelope([]byte{0xff}, "a")), ""},
		{"content without a type", plainly(envelope(encoded(content.Encoded{Content: []byte("x")}), "b")), ""},
		{"a type of tomorrow", plainly(envelope(encoded(content.Encoded{Type: xmtpType("text", 4_000_000_000), Content: []byte("x")}), "c")), ""},
		{"a text that is none", plainly(envelope(encoded(content.Encoded{Type: text, Content: []byte{0xff, 0xfe}}), "d")), ""},
		{"a text in another encoding", plainly(envelope(encoded(content.Encoded{Type: text, Parameters: map[string]string{"encoding": "EBCDIC"}, Content: []byte("x")}), "e")), ""},
		{"a bomb", plainly(envelope(encoded(content.Encoded{Type: text, Compression: content.GZIP, Content: bomb}), "f")), ""},
		{"a bomb in a bomb", plainly(envelope(encoded(content.Encoded{Type: text, Compression: content.GZIP, Content: zipped(bomb)}), "g")), ""},
		{"compressed by nothing known", plainly(envelope(encoded(content.Encoded{Type: text, Compression: 77, Content: []byte("x")}), "h")), ""},
		{"a reply in a reply, 200 times", plainly(envelope(nested, "i")), ""},
		{"a huge text", plainly(envelope(encoded(content.Encoded{Type: text, Content: bytes.Repeat([]byte("x"), 900_000)}), "j")), ""},
		{"a reply to nothing", about("reply", 1, func(string) []byte { return nil }), ""},
		{"a reaction that is none", about("reaction", 2, func(string) []byte { return []byte{0xff} }), ""},
		{"a deletion of alice's message", about("deleteMessage", 1, func(target string) []byte { return field(1, target) }), ""},
		{"a deletion of everything", about("deleteMessage", 1, func(string) []byte { return field(1, "*") }), ""},
		{"an edit of alice's message", about("editMessage", 1, func(target string) []byte {
			return append(field(1, target), field(2, string(encoded(content.Encoded{Type: text, Content: []byte("edited")})))...)
		}), ""},
		{"a change of the group that is none", about("group_updated", 1, func(string) []byte { return spoof }), ""},
		{"a receipt with content", about("readReceipt", 1, func(string) []byte { return []byte("read") }), ""},
		{"devices' own messages", func(string) []byte {
			return envelope(encoded(content.Encoded{Type: content.Type{Authority: "xmtp.org", Name: "application/x-protobuf", Major: 1}, Content: []byte{1, 2, 3}}), "k")
		}, ""},
		{"names that are none", plainly(envelope(encoded(content.Encoded{Type: content.Type{Authority: "a\x00'\"/:", Name: strings.Repeat("/", 5000), Major: 1}}), "l\x00\t")), ""},
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// withMallory lets him into alice's group.
func withMallory(t *testing.T, h *hostile) *mallory {
	t.Helper()
	m := newMallory(t, h.bob)
	check(t, h.group.AddMembers(t.Context(), m.inboxID))
	check(t, h.bobs.Sync(t.Context()))
	m.join(protocol.GroupConfig(true))
	m.follow()
	return m
}

// unharmed checks that honest members have the same as before, and that nobody is
// taken for another.
func unharmed(t *testing.T, h *hostile, m *mallory, said map[string]string) {
	t.Helper()
	ctx := t.Context()
	for _, v := range []*Conversation{h.group, h.bobs} {
		check(t, v.Sync(ctx))
		for _, message := range must(v.Messages(MessageOptions{Hidden: true}))(t) {
			if message.SenderInboxID == m.inboxID && message.Kind != KindApplication {
				t.Errorf("mallory's message is of kind %v", message.Kind)
			}
			if text := message.Text(); text != "" && message.SenderInboxID != m.inboxID && said[text] != message.SenderInboxID {
				t.Errorf("%q by %s, it was said by %s", text, message.SenderInboxID, said[text])
			}
		}
	}
	sameEpoch(t, h.group, h.bobs)
	// Huge texts take cmp.Diff long.
	there := texts(t, h.group)
	if !slices.Equal(there, texts(t, h.bobs)) {
		t.Error("alice and bob have other texts")
	}
	for text := range said {
		if !slices.Contains(there, text) {
			t.Errorf("%q is gone", text)
		}
	}
	if a, b := memberIDs(t, h.group), memberIDs(t, h.bobs); !cmp.Equal(a, b) || !slices.Contains(a, h.alice.InboxID()) {
		t.Errorf("members %v and %v", a, b)
	}
}

// Whatever a member sends, the others read each other, and tell him from each other.
func TestHostileMembers(t *testing.T) {
	t.Parallel()
	h := newHostile(t, startNode(t))
	m := withMallory(t, h)
	ctx := t.Context()
	said := map[string]string{"hello": h.bob.InboxID(), "hello yourself": h.alice.InboxID()}
	target := must(h.group.Messages(MessageOptions{Kind: KindApplication, Limit: 1, Descending: true}))(t)[0].ID
	count := func() int { return must(h.group.CountMessages(MessageOptions{Hidden: true}))(t) }
	for i, g := range garbages() {
		before, skipped := count(), len(must(h.alice.Skipped())(t))
		info := must(h.group.Info(ctx))(t)
		m.say(g.data(target))
		if i%5 == 0 {
			text := fmt.Sprint("after ", g.name)
			must(h.bobs.SendText(ctx, text))(t)
			said[text] = h.bob.InboxID()
			before++
		}
		check(t, h.alice.Sync(ctx))
		all := must(h.alice.Skipped())(t)
		if stored := count() - before; stored != 1 && g.reason == "" || stored != 0 && g.reason != "" {
			t.Errorf("%s: %d messages are new", g.name, stored)
		}
		if g.reason != "" && (len(all) != skipped+1 || all[len(all)-1].Reason != g.reason) {
			t.Errorf("%s: %+v", g.name, all[skipped:])
		}
		if diff := cmp.Diff(info, must(h.group.Info(ctx))(t)); diff != "" {
			t.Errorf("%s has changed the group:\n%s", g.name, diff)
		}
	}
	for _, message := range must(h.group.Messages(MessageOptions{Hidden: true}))(t) {
		if _, err := h.alice.Decode(message); err == nil && message.SenderInboxID == m.inboxID && len(message.Text()) < 900_000 && message.Content.Type != content.TypeGroupUpdated {
			t.Errorf("%v can be decoded", message.Content.Type)
		}
	}
	unharmed(t, h, m, said)
	if f, a := find[MessageRefused](t, h.alice); f.Reason != SkippedMalformed || a.Count < 4 {
		t.Errorf("%+v, %d times", f, a.Count)
	}

	// Keys far ahead, which cost whoever looks for them.
	for _, test := range []struct {
		skip int
		read bool
	}{{1, true}, {999, true}, {1001, false}} {
		for range test.skip {
			must(m.group.Encrypt(nil, nil))(t).Done()
		}
		text := fmt.Sprint("after a gap of ", test.skip)
		m.say(envelope(encoded(*content.Text(text)), text))
		check(t, h.alice.Sync(ctx))
		if read := slices.Contains(texts(t, h.group), text); read != test.read {
			t.Errorf("%q was read: %v", text, read)
		}
	}
	if f, _ := find[MessagesMissing](t, h.alice); f.SenderInboxID != m.inboxID || f.Last-f.First+1 != 999 && f.Last != f.First {
		t.Errorf("%+v", f)
	}
	want(t, h.alice, MessageRefused{h.group.ID(), must(h.alice.Skipped())(t)[len(must(h.alice.Skipped())(t))-1].Number, SkippedKey}, false)

	// Proposals that stand alone leave nothing behind.
	rows := func() (n int64) {
		check(t, h.alice.db.View(func(tx *store.Tx) error {
			_, err := tx.One("SELECT sum(length(value)) FROM mls WHERE group_id = ?", []any{h.group.row.ID}, func(r store.Row) { n = r.Int(0) })
			return err
		}))
		return n
	}
	size := rows()
	bobsLeaf := mls.LeafIndex(0)
	for member := range m.group.Members() {
		if id, err := identity.ParseCredential(member.LeafNode.Credential()); err == nil && id == h.bob.InboxID() {
			bobsLeaf = member.Index
		}
	}
	for range 50 {
		pending, err := m.group.Propose(mls.Remove{Leaf: bobsLeaf}, nil)
		check(t, err)
		m.publish(pending.Done())
	}
	check(t, h.alice.Sync(ctx))
	if grown := rows() - size; grown > 1000 {
		t.Errorf("the state has grown by %d bytes", grown)
	}
	unharmed(t, h, m, said)

	// What he says in an epoch that nobody else has come to.
	check(t, h.group.SetName(ctx, "before he leaves"))
	m.follow()
	pending, err := m.group.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.Remove{Leaf: bobsLeaf}}, ByValueOnly: true})
	check(t, err)
	m.publish(pending.Done().Message)
	must(m.group.MergeOwnCommit())(t).Done()
	m.say(envelope(encoded(*content.Text("alone")), "alone"))
	check(t, h.alice.Sync(ctx))
	find[CommitMissing](t, h.alice)
	unharmed(t, h, m, said)
	if diff := cmp.Diff("before he leaves", must(h.group.Info(ctx))(t).Name); diff != "" {
		t.Error(diff)
	}
	must(h.group.SendText(ctx, "life goes on"))(t)
	said["life goes on"] = h.alice.InboxID()
	unharmed(t, h, m, said)
}

// Random mischief of a member, between what honest members say and change.
func TestHostileMemberAtRandom(t *testing.T) {
	t.Parallel()
	kinds := slices.DeleteFunc(garbages(), func(g garbage) bool { return g.name == "a huge text" })
	h := newHostile(t, startNode(t))
	m := withMallory(t, h)
	ctx := t.Context()
	said := map[string]string{"hello": h.bob.InboxID(), "hello yourself": h.alice.InboxID()}
	target := must(h.group.Messages(MessageOptions{Kind: KindApplication, Limit: 1}))(t)[0].ID
	i := 0
	rapid.Check(t, func(rt *rapid.T) {
		if i >= 60 && !proof {
			return
		}
		for range 2 {
			i++
			switch rapid.IntRange(0, 8).Draw(rt, "step") {
			case 0, 1:
				m.say(rapid.SampledFrom(kinds).Draw(rt, "garbage").data(target))
			case 2: // bytes changed
				data := must(m.group.Encrypt([]byte("x"), nil))(t).Done()
				data[rapid.IntRange(0, len(data)-1).Draw(rt, "at")] ^= byte(rapid.IntRange(1, 255).Draw(rt, "by"))
				m.publish(data)
			case 3: // a handshake of any bytes
				data := append([]byte{0, 1, 0, byte(rapid.IntRange(1, 5).Draw(rt, "format")), 16}, m.group.ID()...)
				m.publish(append(data, rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(rt, "bytes")...))
			case 4: // extensions that nobody knows
				exts := append(slices.Clone(m.group.Extensions()), mls.Extension{Type: mls.ExtensionType(rapid.Uint16().Draw(rt, "type")), Data: []byte("x")})
				m.commit(h, mls.GroupContextExtensions{Extensions: exts})
			case 5: // an extension spoiled
				exts := slices.Clone(m.group.Extensions())
				e := &exts[rapid.IntRange(0, len(exts)-1).Draw(rt, "which")]
				e.Data = append(slices.Clone(e.Data), rapid.SliceOfN(rapid.Byte(), 1, 4).Draw(rt, "more")...)
				if e.Type == 0xf000 || e.Type == mls.ExtensionRequiredCapabilities {
					break // those are accepted by all, or not
				}
				m.commit(h, mls.GroupContextExtensions{Extensions: exts})
			case 6: // somebody out, in his own name
				m.commit(h, mls.Remove{Leaf: mls.LeafIndex(rapid.IntRange(0, 3).Draw(rt, "leaf"))})
			case 7:
				text := fmt.Sprint("text ", i)
				must(h.bobs.SendText(ctx, text))(t)
				said[text] = h.bob.InboxID()
				m.follow()
			case 8:
				check(t, h.group.SetName(ctx, fmt.Sprint("name ", i)))
				m.follow()
			}
		}
		if i%20 == 0 {
			unharmed(t, h, m, said)
		}
	})
	unharmed(t, h, m, said)
}
