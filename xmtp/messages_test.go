package xmtp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// pair is a group of two who run nothing in the background.
func pair(t *testing.T, list ...Option) (a, b *Conversation) {
	t.Helper()
	url := startNode(t)
	list = append(list, WithoutWorkers())
	alice, bob := newClient(t, url, list...), newClient(t, url, list...)
	a = must(alice.NewGroup(t.Context(), GroupOptions{}, bob.InboxID()))(t)
	check(t, bob.Sync(t.Context()))
	return a, must(bob.Conversation(a.ID()))(t)
}

// stages are the texts of a conversation and how far they are.
func stages(t *testing.T, v *Conversation) (list []string) {
	t.Helper()
	names := map[Delivery]string{Unpublished: "unpublished", Published: "published", Failed: "failed"}
	for _, m := range must(v.Messages(MessageOptions{Kind: KindApplication}))(t) {
		list = append(list, m.Text()+": "+names[m.Delivery])
	}
	return list
}

func TestOptimisticSend(t *testing.T) {
	a, b := pair(t)
	ctx := t.Context()
	for i := range 3 {
		m := must(a.SendOptimistic(content.Text(fmt.Sprint(i))))(t)
		if m.Delivery != Unpublished || m.Text() != fmt.Sprint(i) || m.SentAt.IsZero() {
			t.Errorf("sent: %+v", m)
		}
	}
	want := []string{"0: unpublished", "1: unpublished", "2: unpublished"}
	if got := stages(t, a); !slices.Equal(got, want) {
		t.Errorf("listed: %q", got)
	}
	check(t, b.Sync(ctx))
	if got := texts(t, b); len(got) != 0 {
		t.Errorf("published early: %q", got)
	}
	// One that is waited for comes after them.
	must(a.SendText(ctx, "3"))(t)
	must(a.SendOptimistic(content.Text("4")))(t)
	check(t, a.PublishMessages(ctx))
	check(t, b.Sync(ctx))
	if got := texts(t, b); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
		t.Errorf("bob reads %q", got)
	}
	if got := stages(t, a); !slices.Equal(got, []string{"0: published", "1: published", "2: published", "3: published", "4: published"}) {
		t.Errorf("alice: %q", got)
	}
	if state := must(a.Consent())(t); state != ConsentAllowed {
		t.Errorf("consent: %v", state)
	}
	check(t, a.PublishMessages(ctx)) // nothing is left
}

// With workers it needs no other call.
func TestOptimisticSendIsPublishedInTheBackground(t *testing.T) {
	url := startNode(t)
	alice, bob := newClient(t, url), newClient(t, url, WithoutWorkers())
	a := must(alice.NewGroup(t.Context(), GroupOptions{}, bob.InboxID()))(t)
	check(t, bob.Sync(t.Context()))
	received := listen(t, bob)
	for i := range 120 { // more than a batch
		must(a.SendOptimistic(content.Text(fmt.Sprint(i))))(t)
	}
	for i := range 120 {
		wantText(t.Context(), t, received, fmt.Sprint(i))
	}
}

func TestPreparedMessages(t *testing.T) {
	a, b := pair(t)
	ctx := t.Context()
	first, second := must(a.Prepare(content.Text("first")))(t), must(a.Prepare(content.Text("second"), WithPush(false)))(t)
	if state := must(b.Consent())(t); state != ConsentUnknown {
		t.Errorf("consent before: %v", state)
	}
	check(t, a.PublishMessages(ctx))
	check(t, a.Sync(ctx))
	if got := stages(t, a); !slices.Equal(got, []string{"first: unpublished", "second: unpublished"}) {
		t.Errorf("prepared: %q", got)
	}
	must(a.SendText(ctx, "third"))(t)
	// In the order of publication, not of preparation.
	for _, m := range []*Message{second, first, first} {
		published := must(a.Publish(ctx, m.ID))(t)
		if published.ID != m.ID || published.Delivery != Published || published.SentAt.Equal(m.SentAt) || !published.InsertedAt.Equal(m.InsertedAt) {
			t.Errorf("published: %+v, was %+v", published, m)
		}
	}
	check(t, b.Sync(ctx))
	if got := texts(t, b); !slices.Equal(got, []string{"third", "second", "first"}) {
		t.Errorf("bob reads %q", got)
	}
	if got := ids(must(b.Messages(MessageOptions{Kind: KindApplication}))(t)); !slices.Equal(got[1:], []string{second.ID, first.ID}) {
		t.Errorf("other ids: %v", got)
	}
	if got := pushes(t, a); !slices.Equal(got, []bool{true, false, true}) {
		t.Errorf("pushed: %v", got)
	}
	for _, id := range []string{"no hex", "", "00", a.ID()} {
		if _, err := a.Publish(ctx, id); !errors.Is(err, ErrNotFound) || ErrorCode(err) != "NotFound::MessageById" {
			t.Errorf("publishing %q: %v", id, err)
		}
	}
	// What others sent is published.
	must(b.SendText(ctx, "bob"))(t)
	check(t, a.Sync(ctx))
	theirs := must(a.Messages(MessageOptions{Descending: true, Limit: 1}))(t)[0]
	if m := must(a.Publish(ctx, theirs.ID))(t); m.Text() != "bob" {
		t.Errorf("published %+v", m)
	}
}

func ids(messages []*Message) (list []string) {
	for _, m := range messages {
		list = append(list, m.ID)
	}
	return list
}

// pushes tells which of the application messages of a log wake devices.
func pushes(t *testing.T, v *Conversation) (list []bool) {
	t.Helper()
	response, err := v.client.node.MLS.QueryGroupMessages(t.Context(), &mlsapi.QueryGroupMessagesRequest{GroupId: v.group.id, PagingInfo: &mlsapi.PagingInfo{
		Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING, Limit: 100}})
	check(t, err)
	for _, m := range response.Messages {
		if isApplication(m.GetV1()) {
			list = append(list, m.GetV1().ShouldPush)
		}
	}
	return list
}

func TestWhatWakesDevices(t *testing.T) {
	type poll struct{ Question string }
	codec := content.Codec[poll]{
		Type:   content.Type{Authority: "example.com", Name: "poll", Major: 1},
		Push:   true,
		Encode: func(p poll) (*content.Encoded, error) { return &content.Encoded{Content: []byte(p.Question)}, nil },
		Decode: func(e *content.Encoded) (poll, error) { return poll{string(e.Content)}, nil },
	}
	a, b := pair(t, WithCodec(codec))
	unknown := &content.Encoded{Type: content.Type{Authority: "example.com", Name: "unknown", Major: 1}, Content: []byte("?")}
	known := must(content.Encode(codec, poll{"Lunch?"}))(t)
	for _, c := range []*content.Encoded{content.Text("a"), unknown, known} {
		must(a.Send(t.Context(), c))(t)
	}
	must(a.Send(t.Context(), unknown, WithPush(true)))(t)
	must(a.SendText(t.Context(), "b", WithPush(false)))(t)
	must(a.SendOptimistic(unknown))(t)
	check(t, a.PublishMessages(t.Context()))
	if got, want := pushes(t, a), []bool{true, false, true, true, false, false}; !slices.Equal(got, want) {
		t.Errorf("pushed: %v, want %v", got, want)
	}

	// And what becomes of them.
	check(t, b.Sync(t.Context()))
	messages := must(b.Messages(MessageOptions{}))(t)
	var got []any
	for _, m := range messages {
		value, err := b.client.Decode(m)
		switch {
		case errors.Is(err, content.ErrUnknownType):
			got = append(got, m.Content.Content)
		case err != nil:
			t.Error(err)
		default:
			if u, ok := value.(*content.GroupUpdated); ok {
				value = len(u.Added)
			}
			got = append(got, value)
		}
	}
	want := []any{1, "a", []byte("?"), poll{"Lunch?"}, []byte("?"), "b", []byte("?")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := b.client.Decode(&Message{}); !errors.Is(err, content.ErrMalformed) {
		t.Errorf("a message without content: %v", err)
	}
}

func TestBadCodec(t *testing.T) {
	_, err := NewClient(t.Context(), must(GeneratePrivateKeySigner())(t), WithNode(startNode(t)), InMemory(), WithCodec(content.Codec[string]{Type: content.TypeText}))
	if err == nil {
		t.Error("a codec without functions is accepted")
	}
}

func TestContentWithoutType(t *testing.T) {
	a, _ := pair(t)
	for _, c := range []*content.Encoded{nil, {}, {Content: []byte("x")}} {
		_, err := a.Send(t.Context(), c)
		_, err2 := a.SendOptimistic(c)
		_, err3 := a.Prepare(c)
		for _, err := range []error{err, err2, err3} {
			if !errors.Is(err, content.ErrNoType) || ErrorCode(err) != "MissingContentTypeError" {
				t.Errorf("%v: %v", c, err)
			}
		}
	}
	if n := must(a.CountMessages(MessageOptions{Kind: KindApplication}))(t); n != 0 {
		t.Errorf("%d messages have come of it", n)
	}
}

func TestIdempotencyKey(t *testing.T) {
	a, b := pair(t)
	ctx := t.Context()
	once := WithIdempotencyKey("order 17")
	prepared := must(a.Prepare(content.Text("x"), once))(t)
	again := must(a.Prepare(content.Text("x"), once))(t)
	optimistic := must(a.SendOptimistic(content.Text("x"), once))(t)
	sent := must(a.SendText(ctx, "x", once))(t)
	late := must(a.SendText(ctx, "x", once))(t)
	check(t, a.PublishMessages(ctx))
	for _, m := range []*Message{again, optimistic, sent, late} {
		if m.ID != prepared.ID {
			t.Errorf("another message: %+v", m)
		}
	}
	if late.Delivery != Published || !late.SentAt.Equal(sent.SentAt) {
		t.Errorf("sent again: %+v", late)
	}
	must(a.SendText(ctx, "y", once))(t) // another content is another message
	must(a.SendText(ctx, "x"))(t)       // and so is another key
	check(t, b.Sync(ctx))
	if got := texts(t, b); !slices.Equal(got, []string{"x", "y", "x"}) {
		t.Errorf("bob reads %q", got)
	}
	if n := len(pushes(t, a)); n != 3 {
		t.Errorf("%d messages in the log", n)
	}
	if _, err := b.SendText(ctx, "x", once); !errors.Is(err, errKeyTaken) {
		t.Errorf("bob with alice's key: %v", err)
	}
	if _, err := a.SendText(ctx, "x", WithIdempotencyKey("\xff")); err == nil {
		t.Error("a key that is no text is accepted")
	}
}

// With a clock that stands, the same text is as many messages as it was sent.
func TestSameTextAtTheSameTime(t *testing.T) {
	now := time.Now()
	a, b := pair(t, WithClock(func() time.Time { return now }))
	for range 3 {
		must(a.SendText(t.Context(), "x"))(t)
		must(a.SendOptimistic(content.Text("x")))(t)
	}
	check(t, a.PublishMessages(t.Context()))
	check(t, b.Sync(t.Context()))
	if got := texts(t, b); len(got) != 6 {
		t.Errorf("bob reads %q", got)
	}
}

// What the node refuses is Failed, what stands beside it is not, and both who wait
// for it learn that; it can be tried again.
func TestRefusedMessages(t *testing.T) {
	a, b := pair(t)
	ctx := t.Context()
	node := a.client.node.MLS
	a.client.node.MLS = censor{node, a.client}
	must(a.SendOptimistic(content.Text("good")))(t)
	bad := must(a.SendOptimistic(content.Text("censored")))(t)
	err := a.PublishMessages(ctx)
	if !errors.Is(err, ErrRefused) || IsRetryable(err) {
		t.Errorf("publishing: %v", err)
	}
	_, err = a.SendText(ctx, "also censored")
	if !errors.Is(err, ErrRefused) {
		t.Errorf("sending: %v", err)
	}
	must(a.SendText(ctx, "good, too"))(t)
	want := []string{"good: published", "censored: failed", "also censored: failed", "good, too: published"}
	slices.Sort(want)
	got := stages(t, a)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("alice: %q", got)
	}
	failed := must(a.Messages(MessageOptions{Delivery: Failed}))(t)
	if len(failed) != 2 || failed[0].ID != bad.ID {
		t.Errorf("failed: %v", failed)
	}
	if _, err := a.Publish(ctx, bad.ID); !errors.Is(err, ErrRefused) {
		t.Errorf("trying again: %v", err)
	}
	if waiting := len(a.group.outcomes.awaits); waiting != 0 {
		t.Errorf("%d outcomes are still kept", waiting)
	}

	a.client.node.MLS = node
	for _, m := range failed {
		if m := must(a.Publish(ctx, m.ID))(t); m.Delivery != Published {
			t.Errorf("tried again: %+v", m)
		}
	}
	check(t, b.Sync(ctx))
	if got := texts(t, b); !slices.Equal(got, []string{"good", "good, too", "censored", "also censored"}) {
		t.Errorf("bob reads %q", got)
	}
}

func TestOptimisticSendWhereNothingCanBeSent(t *testing.T) {
	a, b := pair(t)
	ctx := t.Context()
	waiting := must(b.SendOptimistic(content.Text("waiting")))(t)
	check(t, a.RemoveMembers(ctx, b.client.InboxID()))
	if err := b.PublishMessages(ctx); !errors.Is(err, ErrRefused) || ErrorCode(err) != "GroupError::GroupInactive" {
		t.Errorf("publishing after our removal: %v", err)
	}
	if m := must(b.client.Message(waiting.ID))(t); m.Delivery != Failed {
		t.Errorf("what waited: %+v", m)
	}
	if _, err := b.SendOptimistic(content.Text("x")); !errors.Is(err, ErrRemoved) {
		t.Errorf("optimistic: %v", err)
	}
	prepared := must(b.Prepare(content.Text("prepared")))(t)
	if _, err := b.Publish(ctx, prepared.ID); !errors.Is(err, ErrRemoved) {
		t.Errorf("publishing what is prepared: %v", err)
	}
	if err := b.PublishMessages(ctx); !errors.Is(err, ErrRemoved) {
		t.Errorf("publishing: %v", err)
	}
	// Back again, what has failed goes on.
	check(t, a.AddMembers(ctx, b.client.InboxID()))
	check(t, b.client.Sync(ctx))
	for _, m := range []*Message{waiting, prepared} {
		must(b.Publish(ctx, m.ID))(t)
	}
	check(t, a.Sync(ctx))
	if got := texts(t, a); !slices.Equal(got, []string{"waiting", "prepared"}) {
		t.Errorf("alice reads %q", got)
	}
}

// A message waits while the group asks for a newer version.
func TestOptimisticSendWhilePaused(t *testing.T) {
	a, b := pair(t)
	ctx := t.Context()
	check(t, b.client.db.Update(func(tx *store.Tx) error {
		row, _, err := tx.Group(b.group.id)
		row.Paused = "999.0.0"
		return errors.Join(err, tx.PutGroup(row))
	}))
	must(b.SendOptimistic(content.Text("x")))(t)
	if err := b.PublishMessages(ctx); !errors.Is(err, ErrPaused) || ErrorCode(err) != "GroupError::GroupPausedUntilUpdate" {
		t.Errorf("publishing: %v", err)
	}
	if got := stages(t, b); !slices.Equal(got, []string{"x: unpublished"}) {
		t.Errorf("bob: %q", got)
	}
	check(t, b.client.db.Update(func(tx *store.Tx) error {
		row, _, err := tx.Group(b.group.id)
		row.Paused = ""
		return errors.Join(err, tx.PutGroup(row))
	}))
	check(t, b.PublishMessages(ctx))
	check(t, a.Sync(ctx))
	if got := texts(t, a); !slices.Equal(got, []string{"x"}) {
		t.Errorf("alice reads %q", got)
	}
}

func TestListing(t *testing.T) {
	a, b := pair(t)
	ctx := t.Context()
	reaction := &content.Encoded{Type: content.Type{Authority: "xmtp.org", Name: "reaction", Major: 2}, Content: []byte{10, 0}}
	custom := &content.Encoded{Type: content.Type{Authority: "example.com", Name: "poll", Major: 3, Minor: 4}}
	must(a.SendText(ctx, "one"))(t)
	must(b.SendText(ctx, "two"))(t)
	check(t, a.Sync(ctx))
	must(a.Send(ctx, custom))(t)
	must(a.Send(ctx, reaction))(t)
	must(a.Prepare(content.Text("draft")))(t)
	all := must(a.Messages(MessageOptions{Hidden: true}))(t)
	names := func(messages []*Message) (list []string) {
		for _, m := range messages {
			if list = append(list, m.Text()); m.Text() == "" {
				list[len(list)-1] = m.Content.Type.Name
			}
		}
		return list
	}
	if got, want := names(all), []string{"group_updated", "one", "two", "poll", "reaction", "draft"}; !slices.Equal(got, want) {
		t.Fatalf("all: %q", got)
	}
	for name, c := range map[string]struct {
		o    MessageOptions
		want []string
	}{
		"what is shown":            {MessageOptions{}, []string{"group_updated", "one", "two", "poll", "draft"}},
		"newest first":             {MessageOptions{Descending: true}, []string{"draft", "poll", "two", "one", "group_updated"}},
		"said":                     {MessageOptions{Kind: KindApplication}, []string{"one", "two", "poll", "draft"}},
		"happened":                 {MessageOptions{Kind: KindMembershipChange}, []string{"group_updated"}},
		"published":                {MessageOptions{Delivery: Published, Kind: KindApplication}, []string{"one", "two", "poll"}},
		"unpublished":              {MessageOptions{Delivery: Unpublished}, []string{"draft"}},
		"failed":                   {MessageOptions{Delivery: Failed}, nil},
		"of others":                {MessageOptions{ExcludeSenders: []string{a.client.InboxID()}}, []string{"two"}},
		"a type":                   {MessageOptions{Types: []content.Type{{Authority: "example.com", Name: "poll"}}}, []string{"poll"}},
		"two types":                {MessageOptions{Types: []content.Type{content.TypeText, content.TypeGroupUpdated}}, []string{"group_updated", "one", "two", "draft"}},
		"not a type":               {MessageOptions{ExcludeTypes: []content.Type{content.TypeText}}, []string{"group_updated", "poll"}},
		"a hidden type":            {MessageOptions{Types: []content.Type{reaction.Type}}, nil},
		"a hidden type, asked for": {MessageOptions{Types: []content.Type{reaction.Type}, Hidden: true}, []string{"reaction"}},
		"sent between":             {MessageOptions{SentAfter: all[1].SentAt, SentBefore: all[3].SentAt}, []string{"two"}},
		"inserted between":         {MessageOptions{InsertedAfter: all[1].InsertedAt, InsertedBefore: all[4].InsertedAt}, []string{"two", "poll"}},
		"a page":                   {MessageOptions{ByInserted: true, InsertedAfter: all[1].InsertedAt, Limit: 2}, []string{"two", "poll"}},
		"a page from the end":      {MessageOptions{ByInserted: true, Descending: true, InsertedBefore: all[5].InsertedAt, Limit: 2}, []string{"poll", "two"}},
	} {
		messages := must(a.Messages(c.o))(t)
		if got := names(messages); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		c.o.Limit = 0
		if n := must(a.CountMessages(c.o))(t); n != len(must(a.Messages(c.o))(t)) {
			t.Errorf("%s: %d counted", name, n)
		}
	}
	if _, err := a.Messages(MessageOptions{Limit: -1}); err == nil {
		t.Error("a negative limit is accepted")
	}
	if m := must(a.client.Message(all[2].ID))(t); m.Text() != "two" || m.ConversationID != a.ID() {
		t.Errorf("by id: %+v", m)
	}
}

// Pages by the time of insertion, which are read while messages come and are
// published, have each message once.
func TestPagesNeitherSkipNorRepeat(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	const each = 20
	var group sync.WaitGroup
	group.Go(func() {
		for i := range each {
			if _, err := a.SendOptimistic(content.Text(fmt.Sprint("a", i))); err != nil {
				t.Error(err)
			}
			if i%7 == 0 {
				if err := a.PublishMessages(ctx); err != nil {
					t.Error(err)
				}
			}
		}
	})
	group.Go(func() {
		for i := range each {
			if _, err := b.SendText(ctx, fmt.Sprint("b", i)); err != nil {
				t.Error(err)
			}
			if err := a.Sync(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	seen := map[string]bool{}
	var after time.Time
	for len(seen) < 2*each && !t.Failed() && ctx.Err() == nil {
		for _, m := range must(a.Messages(MessageOptions{ByInserted: true, InsertedAfter: after, Kind: KindApplication, Limit: 3}))(t) {
			if seen[m.ID] || !m.InsertedAt.After(after) {
				t.Errorf("%q again", m.Text())
			}
			seen[m.ID], after = true, m.InsertedAt
		}
	}
	group.Wait()
	if n := must(a.CountMessages(MessageOptions{Kind: KindApplication}))(t); n != len(seen) {
		t.Errorf("%d of %d messages in pages", len(seen), n)
	}
}

// Each client counts from when it applies a message, whenever that was sent.
func TestExpiry(t *testing.T) {
	clock := &clock{}
	a, b := pair(t, WithClock(clock.now))
	ctx := t.Context()
	const life = time.Hour
	must(a.SendText(ctx, "before"))(t)
	prepared := must(a.Prepare(content.Text("prepared")))(t)
	check(t, a.SetDisappearing(ctx, Disappearing{In: life}))
	began := clock.now()
	must(a.SendText(ctx, "disappears"))(t)
	waits := must(a.SendOptimistic(content.Text("waits")))(t)
	clock.advance(life / 2)
	check(t, b.Sync(ctx)) // bob reads it later, and so keeps it longer
	expiries := func(v *Conversation, from time.Time) (list []string) {
		for _, m := range must(v.Messages(MessageOptions{}))(t) {
			name := m.Text()
			if name == "" {
				name = "change"
			}
			if !m.ExpiresAt.IsZero() {
				name += " in " + m.ExpiresAt.Sub(from).Round(life/2).String()
			}
			list = append(list, name)
		}
		return list
	}
	want := []string{"change", "before", "change", "disappears in 1h0m0s", "waits"}
	got := expiries(a, began)
	if i := slices.Index(got, "prepared"); i < 0 || !slices.Equal(slices.Delete(got, i, i+1), want) {
		t.Errorf("alice: %q", got)
	}
	if got := expiries(b, began); !slices.Equal(got, []string{"change", "before", "change", "disappears in 1h30m0s"}) {
		t.Errorf("bob: %q", got)
	}

	// What has disappeared is not there, before it is deleted; what isn't published stays.
	clock.advance(life/2 + time.Minute)
	if got := texts(t, a); slices.Contains(got, "disappears") || !slices.Contains(got, "waits") || !slices.Contains(got, "prepared") {
		t.Errorf("alice reads %q", got)
	}
	if n := must(a.CountMessages(MessageOptions{Types: []content.Type{content.TypeText}}))(t); n != 3 {
		t.Errorf("alice has %d texts", n)
	}
	gone := must(b.Messages(MessageOptions{Types: []content.Type{content.TypeText}, Descending: true, Limit: 1}))(t)[0]
	if _, err := a.client.Message(gone.ID); gone.Text() != "disappears" || !errors.Is(err, ErrNotFound) {
		t.Errorf("%q by its id: %v", gone.Text(), err)
	}
	// They live from when they are published.
	check(t, a.PublishMessages(ctx))
	for _, m := range []*Message{must(a.client.Message(waits.ID))(t), must(a.Publish(ctx, prepared.ID))(t)} {
		if left := m.ExpiresAt.Sub(clock.now()).Round(time.Minute); left != life {
			t.Errorf("%q disappears in %v", m.Text(), left)
		}
	}
	// Switched off, what comes stays.
	check(t, a.SetDisappearing(ctx, Disappearing{}))
	if m := must(a.SendText(ctx, "stays"))(t); !m.ExpiresAt.IsZero() {
		t.Errorf("disappears at %v", m.ExpiresAt)
	}
	// A life that has no end in int64 doesn't end before it began.
	check(t, a.SetDisappearing(ctx, Disappearing{In: math.MaxInt64}))
	if m := must(a.SendText(ctx, "long"))(t); m.ExpiresAt.Before(clock.now()) {
		t.Errorf("disappeared at %v", m.ExpiresAt)
	}
}

// 64 goroutines send in all ways and publish, over a connection that now and then
// fails: each message is there once for both, and what one goroutine has sent without
// preparing it is in its order.
func TestAllKindsOfSendsAtOnce(t *testing.T) {
	t.Parallel()
	const senders = 64
	each := 6
	if proof {
		each = 200
	}
	w := newWorld(t)
	ctx := t.Context()
	a := must(w.alice.client.NewGroup(ctx, GroupOptions{}, w.bob.InboxID()))(t)
	check(t, w.bob.Sync(ctx))
	calls := 0
	w.proxy.sometimes = func() bool { calls++; return calls%40 == 0 }
	var group sync.WaitGroup
	for s := range senders {
		group.Go(func() {
			var prepared []string
			for i := range each {
				c := content.Text(fmt.Sprintf("%02d-%04d", s, i))
				var err error
				switch (s + i) % 4 {
				case 0:
					_, err = a.Send(ctx, c)
				case 1:
					_, err = a.SendOptimistic(c)
				case 2:
					_, err = a.SendOptimistic(c, WithIdempotencyKey(fmt.Sprint(s, i)))
					if err == nil {
						_, err = a.Send(ctx, c, WithIdempotencyKey(fmt.Sprint(s, i)))
					}
				case 3:
					m, failed := a.Prepare(content.Text(fmt.Sprintf("prepared %02d-%04d", s, i)))
					if err = failed; err == nil {
						prepared = append(prepared, m.ID)
					}
				}
				if err == nil && i%5 == s%5 {
					err = a.PublishMessages(ctx)
				}
				if err != nil {
					t.Errorf("%d of %d: %v", i, s, err)
				}
			}
			for _, id := range prepared {
				if _, err := a.Publish(ctx, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	w.proxy.sometimes = nil
	check(t, a.PublishMessages(ctx))
	w.converge(t)
	w.compare(t, a.ID(), w.alice.client, w.bob)
	got := texts(t, a)
	if len(got) != senders*each {
		t.Errorf("%d messages, want %d", len(got), senders*each)
	}
	last := map[int]int{}
	for _, text := range got {
		var s, i int
		if n, _ := fmt.Sscanf(text, "%d-%d", &s, &i); n == 2 {
			if before, ok := last[s]; ok && i <= before {
				t.Errorf("%d of sender %d after %d", i, s, before)
			}
			last[s] = i
		}
	}
	if waiting := len(a.group.outcomes.awaits); waiting != 0 {
		t.Errorf("%d outcomes are still kept", waiting)
	}
}

// censor refuses to publish some messages, by the texts of which it knows nothing:
// it is told their ciphertexts.
type censor struct {
	mlsapi.MlsApiClient
	client *Client
}

func (c censor) SendGroupMessages(ctx context.Context, r *mlsapi.SendGroupMessagesRequest, o ...grpc.CallOption) (*emptypb.Empty, error) {
	for _, m := range r.Messages {
		hash := sha256.Sum256(m.GetV1().Data)
		bad := false
		err := c.client.db.View(func(tx *store.Tx) error {
			return tx.Query("SELECT intent FROM outbox WHERE hash = ?", []any{hash[:]}, func(r store.Row) error {
				var want messageIntent
				err := json.Unmarshal(r.Bytes(0), &want)
				bad = bytes.Contains(want.Envelope, []byte("censored"))
				return err
			})
		})
		if err != nil {
			return nil, err
		}
		if bad {
			return nil, status.Error(codes.InvalidArgument, "censored")
		}
	}
	return c.MlsApiClient.SendGroupMessages(ctx, r, o...)
}
