package xmtp

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// Junk on a stream: other conversations, nothing, what came before, the wrong order.
// What was said arrives, once, in order, in all conversations.
func TestHostileStream(t *testing.T) {
	t.Parallel()
	h := newHostile(t, startNode(t))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var before *mlsapi.GroupMessage
	lying(h.proxy, "Subscribe", func(_ *mlsapi.SubscribeRequest, a *mlsapi.SubscribeResponse) {
		batch := a.GetV1().GetMessages()
		if batch == nil || len(batch.GroupMessages) == 0 {
			return
		}
		last := batch.GroupMessages[len(batch.GroupMessages)-1]
		slices.Reverse(batch.GroupMessages)
		for range 20 {
			foreign := proto.Clone(last).(*mlsapi.GroupMessage)
			foreign.GetV1().GroupId = newGroupID()
			batch.GroupMessages = append(batch.GroupMessages, foreign, &mlsapi.GroupMessage{})
		}
		if before != nil {
			batch.GroupMessages = append(batch.GroupMessages, before)
		}
		before = proto.Clone(last).(*mlsapi.GroupMessage)
	})
	opened := h.proxy.streams()
	received := make(chan *Message, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m, err := range h.alice.StreamAllMessages(ctx) {
			if err != nil {
				return
			}
			if m.Text() != "" {
				received <- m
			}
		}
	}()
	<-opened
	others := inConversation(t, h.carol, h.other.ID())
	want := map[string][]string{}
	for i := range 20 {
		v := []*Conversation{h.bobs, others}[i%2]
		text := fmt.Sprint("text ", i)
		must(v.SendText(ctx, text))(t)
		want[v.ID()] = append(want[v.ID()], text)
	}
	got := map[string][]string{}
	for range 20 {
		select {
		case m := <-received:
			got[m.ConversationID] = append(got[m.ConversationID], m.Text())
		case <-ctx.Done():
			t.Fatalf("only %v came", got)
		}
	}
	for id := range want {
		if !slices.Equal(got[id], want[id]) {
			t.Errorf("got %q, want %q", got[id], want[id])
		}
	}
	cancel()
	<-done
	if f, _ := find[InvalidAnswer](t, h.alice); f.Call == "" {
		t.Errorf("%+v", f)
	}
	h.alice.groups.mu.Lock()
	defer h.alice.groups.mu.Unlock()
	if n := len(h.alice.groups.groups); n > 2 {
		t.Errorf("%d conversations in memory", n)
	}
}

// spoil changes something somewhere in a message.
func spoil(rt *rapid.T, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	f := fields.Get(rapid.IntRange(0, fields.Len()-1).Draw(rt, "field"))
	switch {
	case f.IsMap() || !m.Has(f):
	case f.IsList():
		list := m.Mutable(f).List()
		i := rapid.IntRange(0, list.Len()-1).Draw(rt, "item")
		switch rapid.IntRange(0, 4).Draw(rt, "change") {
		case 0:
			list.Truncate(i)
		case 1:
			list.Append(list.Get(i))
		case 2:
			j := rapid.IntRange(0, list.Len()-1).Draw(rt, "other")
			a, b := list.Get(i), list.Get(j)
			list.Set(i, b)
			list.Set(j, a)
		default:
			if f.Message() != nil {
				spoil(rt, list.Get(i).Message())
			}
		}
	case f.Message() != nil:
		if rapid.IntRange(0, 9).Draw(rt, "clear") == 0 {
			m.Clear(f)
		} else {
			spoil(rt, m.Mutable(f).Message())
		}
	case f.Kind() == protoreflect.BytesKind:
		b := bytes.Clone(m.Get(f).Bytes())
		if len(b) > 0 {
			b[rapid.IntRange(0, len(b)-1).Draw(rt, "at")] ^= byte(rapid.IntRange(1, 255).Draw(rt, "by"))
		}
		m.Set(f, protoreflect.ValueOfBytes(b))
	case f.Kind() == protoreflect.Uint64Kind:
		m.Set(f, protoreflect.ValueOfUint64(rapid.Uint64().Draw(rt, "number")))
	case f.Kind() == protoreflect.StringKind:
		m.Set(f, protoreflect.ValueOfString(rapid.StringN(0, 70, 70).Draw(rt, "text")))
	}
}

// Answers that are wrong in any way: the client neither falls over nor takes anything
// for said that wasn't, and a conversation that the node doesn't lie about goes on.
func TestNodeLiesAtRandom(t *testing.T) {
	t.Parallel()
	h := newHostile(t, startNode(t))
	ctx := t.Context()
	carols := inConversation(t, h.carol, h.other.ID())
	must(carols.SendText(ctx, "before"))(t)
	said := map[string]string{"hello": h.bob.InboxID(), "hello yourself": h.alice.InboxID(), "before": h.carol.InboxID()}
	answers := map[string]func() proto.Message{
		"QueryGroupMessages":    func() proto.Message { return new(mlsapi.QueryGroupMessagesResponse) },
		"QueryWelcomeMessages":  func() proto.Message { return new(mlsapi.QueryWelcomeMessagesResponse) },
		"GetNewestGroupMessage": func() proto.Message { return new(mlsapi.GetNewestGroupMessageResponse) },
		"FetchKeyPackages":      func() proto.Message { return new(mlsapi.FetchKeyPackagesResponse) },
		"GetIdentityUpdates":    func() proto.Message { return new(identityapi.GetIdentityUpdatesResponse) },
		"GetInboxIds":           func() proto.Message { return new(identityapi.GetInboxIdsResponse) },
		"BatchQueryCommitLog":   func() proto.Message { return new(mlsapi.BatchQueryCommitLogResponse) },
	}
	i := 0
	rapid.Check(t, func(rt *rapid.T) {
		if i++; i > 30 && !proof {
			return
		}
		text := fmt.Sprint("text ", i)
		said[text] = h.bob.InboxID()
		must(h.bobs.SendText(ctx, text))(t)
		seed := rapid.Uint64().Draw(rt, "seed")
		for call, empty := range answers {
			h.proxy.setLie(call, func(request, answer []byte) ([]byte, error) {
				if bytes.Contains(request, h.other.row.ID) && call == "QueryGroupMessages" {
					return answer, nil
				}
				a := empty()
				if err := proto.Unmarshal(answer, a); err != nil {
					return nil, err
				}
				spoiled := rapid.Custom(func(rt *rapid.T) bool { spoil(rt, a.ProtoReflect()); return true })
				spoiled.Example(int(seed))
				return proto.Marshal(a)
			})
		}
		for _, do := range []func() error{
			func() error { return h.alice.Sync(ctx) },
			func() error { return h.group.Sync(ctx) },
			func() error { _, err := h.alice.Reach(ctx, h.bob.Address(), h.carol.InboxID()); return err },
			func() error { return h.alice.CheckForks(ctx) },
		} {
			if err := do(); err != nil {
				t.Log(strings.TrimSpace(err.Error()))
			}
		}
		h.proxy.honest()
		for _, v := range must(h.alice.Conversations(ConversationOptions{}))(t) {
			for _, m := range must(v.Messages(MessageOptions{Hidden: true, Kind: KindApplication}))(t) {
				if said[m.Text()] != m.SenderInboxID || (v.ID() == h.other.ID()) != (m.Text() == "before" || strings.HasPrefix(m.Text(), "other ")) {
					t.Errorf("%q by %s in %s", m.Text(), m.SenderInboxID, v.ID())
				}
			}
		}
		text = fmt.Sprint("other ", i)
		said[text] = h.carol.InboxID()
		must(carols.SendText(ctx, text))(t)
		_ = h.alice.Sync(ctx) // what it has not got over yet is not said here
		check(t, h.other.Sync(ctx))
		if got := texts(t, h.other); got[len(got)-1] != text {
			t.Errorf("the other conversation ends with %q", got[len(got)-1])
		}
	})
	if n := len(must(h.alice.Alerts())(t)); n == 0 || n > 1000 {
		t.Errorf("%d alerts", n)
	}
}
