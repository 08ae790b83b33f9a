package interop

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// together is a conversation of an official client and one of ours that has no workers.
func together(t *testing.T, w *world, list ...xmtp.Option) (theirs *official.Conversation, v ours, client *xmtp.Client) {
	t.Helper()
	alice := w.Client("alice")
	client = goInstallation(t, w.url, newGoSigner(t), append(list, xmtp.WithoutWorkers())...)
	theirs = alice.Group([]*official.Client{{InboxID: client.InboxID()}}, nil)
	v = find(t, client, theirs.ID)
	v.say("begin") // with our first commit behind us
	theirs.Sync()
	return theirs, v, client
}

func TestGoOptimisticSends(t *testing.T) {
	scenario(t, "Go: sent without waiting, prepared, published later: once, in order, both ways", everyVersion, func(t *testing.T, w *world) {
		theirs, v, _ := together(t, w)
		ctx := t.Context()
		var want []string
		for i := range 20 {
			m, err := v.SendOptimistic(content.Text(fmt.Sprint("optimistic ", i)))
			want = append(want, check(t, m, err).Text())
		}
		prepared, err := v.Prepare(content.Text("prepared"))
		check(t, prepared, err)
		want = append(want, v.say("awaited").Text())
		last, err := v.SendOptimistic(content.Text("last"))
		want = append(want, check(t, last, err).Text())
		if err := v.PublishMessages(ctx); err != nil {
			t.Fatal(err)
		}
		theirs.Sync()
		equal(t, "they read", theirs.Texts()[1:], want)
		published, err := v.Publish(ctx, prepared.ID)
		equal(t, "its id", check(t, published, err).ID, prepared.ID)
		// Theirs, in one batch.
		batch := numbered("batch", 20)
		theirs.SendAll(batch)
		v.sync()
		equal(t, "Go reads", v.texts()[1:], slices.Concat(want, []string{"prepared"}, batch))
		sameState(t, v, theirs)
	})
}

func TestGoIdempotencyKeys(t *testing.T) {
	scenario(t, "Go: what is sent twice with one key is there once", everyVersion, func(t *testing.T, w *world) {
		theirs, v, client := together(t, w)
		for range 2 {
			m, err := v.SendText(t.Context(), "ours", xmtp.WithIdempotencyKey("our key"))
			check(t, m, err)
		}
		sameState(t, v, theirs)
		if w.sdk != official.Newest { // only there apps can choose it
			return
		}
		encoded := map[string]any{
			"type":       map[string]any{"authorityId": "xmtp.org", "typeId": "text", "versionMajor": 1, "versionMinor": 0},
			"parameters": map[string]any{"encoding": "UTF-8"}, "content": official.Bytes([]byte("theirs")),
		}
		var id string
		theirs.Call(&id, "send", encoded, map[string]any{"shouldPush": true, "idempotencyKey": "their key"})
		sameState(t, v, theirs)
		m, err := client.Message(id)
		equal(t, "by their id", check(t, m, err).Text(), "theirs")
		// Ours by that key would be the same message.
		if _, err := v.Prepare(content.Text("theirs"), xmtp.WithIdempotencyKey("their key")); err == nil {
			t.Error("our id for the key and content is another one")
		}
	})
}

// note is content of a type that official clients don't know.
type note struct{ Title, Body string }

var noteCodec = content.Codec[note]{
	Type: content.Type{Authority: "example.com", Name: "note", Major: 1},
	Encode: func(n note) (*content.Encoded, error) {
		return &content.Encoded{Parameters: map[string]string{"title": n.Title}, Content: []byte(n.Body)}, nil
	},
	Decode: func(e *content.Encoded) (note, error) {
		return note{e.Parameters["title"], string(e.Content)}, nil
	},
	Fallback: func(n note) string { return "a note: " + n.Title },
}

// The official SDK's numbers of content types.
const (
	theirCustom       = 2
	theirGroupUpdated = 4
	theirReaction     = 9
	theirText         = 13
)

func TestGoListing(t *testing.T) {
	scenario(t, "Go: lists and counts with every filter as the official client has them; custom content", everyVersion, func(t *testing.T, w *world) {
		theirs, v, client := together(t, w, xmtp.WithCodec(noteCodec))
		ctx := t.Context()
		sent, err := content.Encode(noteCodec, note{"go", "from Go"})
		check(t, sent, err)
		var all []*xmtp.Message
		all = append(all, v.say("one"))
		if _, err := v.Send(ctx, sent); err != nil {
			t.Fatal(err)
		}
		theirs.Sync()
		id := theirs.Send("two")
		theirs.Call(nil, "updateName", "a name")
		theirs.Call(nil, "sendReaction", map[string]any{"reference": id, "referenceInboxId": "", "action": 1, "content": "👍", "schema": 1})
		theirs.Call(nil, "sendReadReceipt")
		theirs.Call(nil, "send", map[string]any{
			"type":       map[string]any{"authorityId": "example.com", "typeId": "note", "versionMajor": 1, "versionMinor": 7},
			"parameters": map[string]any{"title": "js"}, "fallback": "a note: js", "content": official.Bytes([]byte("from JS")),
		}, map[string]any{"shouldPush": false})
		v.sync()
		all = append(all, v.say("three"))
		theirs.Sync()

		// From when both were there: before it each has been told in its own way.
		begin, err := v.Messages(xmtp.MessageOptions{Types: []content.Type{content.TypeText}, Limit: 1})
		after := check(t, begin, err)[0].SentAt.UnixNano()
		type option = func(theirs map[string]any, ours *xmtp.MessageOptions)
		text, noteType, updated := content.TypeText, noteCodec.Type, content.TypeGroupUpdated
		reaction := content.Type{Authority: "xmtp.org", Name: "reaction", Major: 2}
		for name, set := range map[string]option{
			"all":        func(map[string]any, *xmtp.MessageOptions) {},
			"descending": func(a map[string]any, b *xmtp.MessageOptions) { a["direction"], b.Descending = 1, true },
			"limit":      func(a map[string]any, b *xmtp.MessageOptions) { a["limit"], b.Limit = 3, 3 },
			"the newest": func(a map[string]any, b *xmtp.MessageOptions) {
				a["limit"], a["direction"], b.Limit, b.Descending = 2, 1, 2, true
			},
			"said":        func(a map[string]any, b *xmtp.MessageOptions) { a["kind"], b.Kind = 0, xmtp.KindApplication },
			"happened":    func(a map[string]any, b *xmtp.MessageOptions) { a["kind"], b.Kind = 1, xmtp.KindMembershipChange },
			"published":   func(a map[string]any, b *xmtp.MessageOptions) { a["deliveryStatus"], b.Delivery = 1, xmtp.Published },
			"unpublished": func(a map[string]any, b *xmtp.MessageOptions) { a["deliveryStatus"], b.Delivery = 0, xmtp.Unpublished },
			"failed":      func(a map[string]any, b *xmtp.MessageOptions) { a["deliveryStatus"], b.Delivery = 2, xmtp.Failed },
			"texts": func(a map[string]any, b *xmtp.MessageOptions) {
				a["contentTypes"], b.Types = []int{theirText}, []content.Type{text}
			},
			"no texts": func(a map[string]any, b *xmtp.MessageOptions) {
				a["excludeContentTypes"], b.ExcludeTypes = []int{theirText}, []content.Type{text}
			},
			"two types": func(a map[string]any, b *xmtp.MessageOptions) {
				a["contentTypes"], b.Types = []int{theirCustom, theirGroupUpdated}, []content.Type{noteType, updated}
			},
			"reactions": func(a map[string]any, b *xmtp.MessageOptions) {
				a["contentTypes"], b.Types = []int{theirReaction}, []content.Type{reaction}
			},
			"not by us": func(a map[string]any, b *xmtp.MessageOptions) {
				a["excludeSenderInboxIds"], b.ExcludeSenders = []string{client.InboxID()}, []string{client.InboxID()}
			},
			"sent before": func(a map[string]any, b *xmtp.MessageOptions) {
				a["sentBeforeNs"], b.SentBefore = bigint(all[1].SentAt.UnixNano()), all[1].SentAt
			},
			"sent after": func(a map[string]any, b *xmtp.MessageOptions) {
				a["sentAfterNs"], b.SentAfter = bigint(all[0].SentAt.UnixNano()), all[0].SentAt
			},
		} {
			theirOptions := map[string]any{"sentAfterNs": bigint(after)}
			options := xmtp.MessageOptions{SentAfter: time.Unix(0, after)}
			set(theirOptions, &options)
			type row struct {
				ID, Sender, Type string
				Kind, Delivery   int
				SentAt           int64
			}
			var page []official.Message
			theirs.Call(&page, "messages", theirOptions)
			var want, got []row
			for _, m := range page {
				c := m.ContentType
				want = append(want, row{m.ID, m.SenderInboxID, fmt.Sprintf("%s/%s:%d.%d", c.AuthorityID, c.TypeID, c.VersionMajor, c.VersionMinor), m.Kind, m.DeliveryStatus, m.SentAtNs})
			}
			messages, err := v.Messages(options)
			for _, m := range check(t, messages, err) {
				got = append(got, row{m.ID, m.SenderInboxID, m.Content.Type.String(), int(m.Kind) - 1, int(m.Delivery) - 1, m.SentAt.UnixNano()})
			}
			equal(t, name, got, want)
			delete(theirOptions, "limit")
			delete(theirOptions, "direction")
			var count json.Number // a bigint in some versions
			theirs.Call(&count, "countMessages", theirOptions)
			options.Hidden = true // they count what they don't list
			n, err := v.CountMessages(options)
			equal(t, name+": count", fmt.Sprint(check(t, n, err)), strings.Trim(count.String(), `"`))
		}

		// Each shows the other's custom content as far as it knows it.
		var fallbacks []struct {
			Fallback    string               `json:"fallback"`
			ContentType official.ContentType `json:"contentType"`
		}
		theirs.Call(&fallbacks, "messages", map[string]any{"contentTypes": []int{theirCustom}, "sentAfterNs": bigint(after)})
		var shown []string
		for _, f := range fallbacks {
			shown = append(shown, f.Fallback)
		}
		equal(t, "they show", shown, []string{"a note: go", "a note: js"})
		messages, err := v.Messages(xmtp.MessageOptions{Types: []content.Type{noteType}})
		var notes []any
		for _, m := range check(t, messages, err) {
			value, err := client.Decode(m)
			notes = append(notes, check(t, value, err))
		}
		equal(t, "Go decodes", notes, []any{note{"go", "from Go"}, note{"js", "from JS"}})
	})
}

// expiring is a message with the time at which it disappears.
type expiring struct {
	official.Message
	ExpiresAtNs json.Number `json:"expiresAtNs"`
}

func TestGoExpiry(t *testing.T) {
	scenario(t, "Go: messages disappear when they do for the official client, and those that don't are the same", everyVersion, func(t *testing.T, w *world) {
		theirs, v, client := together(t, w)
		both := func() { theirs.Sync(); v.sync() }
		theirs.Send("before")
		const life = time.Hour
		theirs.Call(nil, "updateMessageDisappearingSettings", bigint(time.Now().UnixNano()), bigint(int64(life)))
		both()
		began := time.Now()
		theirs.Send("theirs")
		v.sync()
		v.say("ours")
		both()
		theirs.Call(nil, "updateName", "a change doesn't disappear")
		both()
		ended := time.Now()
		// Both run by the same clock, and have processed all of it in that time.
		when := func(ns int64) string {
			at := time.Unix(0, ns).Add(-life)
			switch {
			case ns == 0:
				return "never"
			case at.Before(began) || at.After(ended):
				return time.Unix(0, ns).Sub(began).String()
			}
			return "in time"
		}
		type row struct{ ID, Expires string }
		var list []expiring
		var a, b []row
		theirs.Call(&list, "messages", map[string]any{"kind": 0})
		for _, m := range list {
			ns, _ := m.ExpiresAtNs.Int64() // empty for never
			a = append(a, row{m.ID, when(ns)})
		}
		messages, err := v.Messages(xmtp.MessageOptions{Kind: xmtp.KindApplication})
		for _, m := range check(t, messages, err) {
			ns := int64(0)
			if !m.ExpiresAt.IsZero() {
				ns = m.ExpiresAt.UnixNano()
			}
			b = append(b, row{m.ID, when(ns)})
		}
		equal(t, "expiry", b, a)
		if expires := fmt.Sprint(b); strings.Count(expires, "in time") != 2 || strings.Count(expires, "never") != 2 {
			t.Errorf("expiry: %s", expires)
		}
		messages, err = v.Messages(xmtp.MessageOptions{Kind: xmtp.KindMembershipChange})
		for _, m := range check(t, messages, err) {
			if !m.ExpiresAt.IsZero() {
				t.Errorf("a change disappears at %v", m.ExpiresAt)
			}
		}

		// And they are gone, from lists and counts.
		theirs.Call(nil, "addAdmin", client.InboxID())
		v.sync()
		if err := v.SetDisappearing(t.Context(), xmtp.Disappearing{In: 2 * time.Second}); err != nil {
			t.Fatal(err)
		}
		both()
		theirs.Send("gone, of theirs")
		v.sync()
		v.say("gone, of ours")
		both()
		want := []string{"begin", "before", "theirs", "ours"}
		eventually(t, "messages disappear", func() bool {
			return slices.Equal(theirs.Texts(), want) && slices.Equal(v.texts(), want)
		})
		n, err := v.CountMessages(xmtp.MessageOptions{Types: []content.Type{content.TypeText}})
		equal(t, "texts", check(t, n, err), len(want))
		sameState(t, v, theirs)
	})
}
