package xmtp

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/content"
)

// consentOf reads what a client's user decided about a conversation.
func consentOf(t *testing.T, c *Client, id string) ConsentState {
	t.Helper()
	return must(c.Consent(ConversationConsent, id))(t)
}

func TestConsentByItself(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	group := must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t)
	dm := must(alice.DM(ctx, bob.InboxID()))(t)
	for _, v := range []*Conversation{group, dm} {
		if got := must(v.Consent())(t); got != ConsentAllowed {
			t.Errorf("who creates: %v", got)
		}
		must(v.SendText(ctx, "hello"))(t)
		theirs := inConversation(t, bob, v.ID())
		if got := must(theirs.Consent())(t); got != ConsentUnknown {
			t.Errorf("who is let in and receives: %v", got)
		}
		must(theirs.SendText(ctx, "hello yourself"))(t)
		if got := must(theirs.Consent())(t); got != ConsentAllowed {
			t.Errorf("who sends: %v", got)
		}
		check(t, theirs.SetConsent(ConsentDenied))
		must(v.SendText(ctx, "are you there?"))(t)
		check(t, theirs.Sync(ctx))
		if got := must(theirs.Consent())(t); got != ConsentDenied {
			t.Errorf("who denies and receives: %v", got)
		}
	}
	if all := must(bob.Consents(InboxConsent))(t); len(all) != 0 {
		t.Errorf("decisions about inboxes: %v", all)
	}
}

// What another device of the user has created is wanted on this one, too.
func TestConsentOfOurOtherDevice(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	phone := openClient(t, signer, WithNode(url), InMemory())
	laptop := openClient(t, signer, WithNode(url), InMemory())
	bob := newClient(t, url)
	own := must(phone.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t)
	bobs := must(bob.NewGroup(ctx, GroupOptions{}, phone.InboxID()))(t)
	check(t, laptop.Sync(ctx))
	if got := consentOf(t, laptop, own.ID()); got != ConsentAllowed {
		t.Errorf("created by the phone: %v", got)
	}
	if got := consentOf(t, laptop, bobs.ID()); got != ConsentUnknown {
		t.Errorf("created by bob: %v", got)
	}
}

func TestConsentSetAndRead(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	var now clock
	alice, bob := newClient(t, url, WithClock(now.now)), newClient(t, url)
	v := must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t)
	inbox, unheardOf := bob.InboxID(), "00112233445566778899aabbccddeeff"
	at := time.Unix(1, 2)
	check(t, alice.SetConsent(
		Consent{Kind: ConversationConsent, Entity: "00112233445566778899AABBCCDDEEFF", State: ConsentDenied, At: at},
		Consent{Kind: InboxConsent, Entity: inbox, State: ConsentDenied},
	))
	if got := consentOf(t, alice, unheardOf); got != ConsentDenied {
		t.Errorf("before the conversation is known: %v", got)
	}
	if got := must(alice.Consents(ConversationConsent, ConsentDenied))(t); !cmp.Equal(got, []Consent{{ConversationConsent, unheardOf, ConsentDenied, at}}) {
		t.Errorf("denied conversations: %v", got)
	}
	if got := must(alice.Consents(ConversationConsent))(t); len(got) != 2 {
		t.Errorf("decisions about conversations: %v", got)
	}
	for _, m := range must(v.Members(ctx))(t) {
		if want := map[string]ConsentState{inbox: ConsentDenied}[m.InboxID]; m.Consent != want {
			t.Errorf("a member is %v, want %v", m.Consent, want)
		}
	}
	// To deny a user is not to deny the conversations with him.
	if got := must(v.Consent())(t); got != ConsentAllowed {
		t.Errorf("the conversation with him: %v", got)
	}

	// What is said again was said the first time.
	before := must(alice.Consents(InboxConsent))(t)
	now.advance(time.Hour)
	check(t, alice.SetConsent(Consent{Kind: InboxConsent, Entity: inbox, State: ConsentDenied}))
	if diff := cmp.Diff(before, must(alice.Consents(InboxConsent))(t)); diff != "" {
		t.Error(diff)
	}

	for name, d := range map[string]Consent{
		"no kind":           {Entity: inbox, State: ConsentAllowed},
		"an unknown state":  {Kind: InboxConsent, Entity: inbox, State: 3},
		"a negative state":  {Kind: InboxConsent, Entity: inbox, State: -1},
		"an address":        {Kind: InboxConsent, Entity: bob.Address(), State: ConsentAllowed},
		"no conversation":   {Kind: ConversationConsent, Entity: inbox, State: ConsentAllowed},
		"no hex":            {Kind: ConversationConsent, Entity: "not a conversation's identifier!", State: ConsentAllowed},
		"a half of a digit": {Kind: ConversationConsent, Entity: unheardOf[1:], State: ConsentAllowed},
	} {
		good := Consent{Kind: InboxConsent, Entity: inbox, State: ConsentAllowed}
		if err := alice.SetConsent(good, d); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := must(alice.Consent(InboxConsent, inbox))(t); got != ConsentDenied {
		t.Errorf("one of several was stored although another one is wrong: %v", got)
	}
}

// puller reads a stream item by item.
func puller[T any](t *testing.T, stream iter.Seq2[T, error]) (next func() T) {
	pull, stop := iter.Pull2(stream)
	t.Cleanup(stop)
	return func() T {
		t.Helper()
		v, err, ok := pull()
		if err != nil || !ok {
			t.Fatalf("the stream ends: %v", err)
		}
		return v
	}
}

func TestStreamConsent(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	check(t, alice.SetConsent(Consent{Kind: InboxConsent, Entity: alice.InboxID(), State: ConsentAllowed})) // before
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := alice.StreamConsent(ctx)
	next := puller(t, stream)
	v := must(alice.NewGroup(t.Context(), GroupOptions{}, bob.InboxID()))(t)
	if got := next(); got.Entity != v.ID() || got.State != ConsentAllowed || got.Kind != ConversationConsent {
		t.Errorf("creating: %+v", got)
	}
	// Others' conversations, and what is decided already, are no decisions.
	must(must(bob.NewGroup(t.Context(), GroupOptions{}, alice.InboxID()))(t).SendText(t.Context(), "hello"))(t)
	check(t, alice.Sync(t.Context()))
	must(v.SendText(t.Context(), "hello"))(t)
	check(t, alice.SetConsent(Consent{Kind: InboxConsent, Entity: bob.InboxID(), State: ConsentAllowed}))
	check(t, alice.SetConsent(Consent{Kind: InboxConsent, Entity: bob.InboxID(), State: ConsentDenied}))
	check(t, v.SetConsent(ConsentDenied))
	if got := next(); got.Entity != bob.InboxID() || got.State != ConsentDenied || got.Kind != InboxConsent {
		t.Errorf("the last decision about bob: %+v", got)
	}
	if got := next(); got.Entity != v.ID() || got.State != ConsentDenied {
		t.Errorf("denying: %+v", got)
	}
	cancel()
	for _, err := range stream {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			break
		}
	}
}

// names are the ids of conversations as a test calls them.
type names map[string]string

func (n names) of(list []*Conversation) (called []string) {
	for _, v := range list {
		called = append(called, n[v.ID()])
	}
	return called
}

func TestConversationsFilters(t *testing.T) {
	t.Parallel()
	url, ctx := startNode(t), t.Context()
	alice, bob, carol := newClient(t, url), newClient(t, url), newClient(t, url)
	called := names{}
	created := map[string]time.Time{}
	add := func(name string, v *Conversation, err error) *Conversation {
		t.Helper()
		check(t, err)
		called[v.ID()], created[name] = name, v.CreatedAt()
		return v
	}
	v, err := alice.NewGroup(ctx, GroupOptions{}, bob.InboxID())
	first := add("first", v, err)
	v, err = alice.DM(ctx, bob.InboxID())
	dm := add("dm", v, err)
	v, err = alice.NewGroup(ctx, GroupOptions{})
	empty := add("empty", v, err)
	theirs := must(carol.NewGroup(ctx, GroupOptions{}, alice.InboxID()))(t)
	check(t, alice.Sync(ctx))
	v, err = alice.Conversation(theirs.ID())
	add("theirs", v, err)
	check(t, empty.SetConsent(ConsentDenied))
	said := must(dm.SendText(ctx, "hello"))(t)
	last := must(first.SendText(ctx, "hello"))(t)
	// Receipts and changes are no activity.
	receipt := content.Text("")
	receipt.Type = content.Type{Authority: "xmtp.org", Name: "readReceipt", Major: 1}
	must(dm.Send(ctx, receipt))(t)
	check(t, first.SetName(ctx, "first"))

	all := []ConsentState{ConsentUnknown, ConsentAllowed, ConsentDenied}
	for name, test := range map[string]struct {
		o    ConversationOptions
		want []string
	}{
		"the default":             {ConversationOptions{}, []string{"first", "dm", "theirs"}},
		"whatever was decided":    {ConversationOptions{Consent: all}, []string{"first", "dm", "theirs", "empty"}},
		"allowed":                 {ConversationOptions{Consent: all[1:2]}, []string{"first", "dm"}},
		"unknown":                 {ConversationOptions{Consent: all[:1]}, []string{"theirs"}},
		"denied":                  {ConversationOptions{Consent: all[2:]}, []string{"empty"}},
		"direct messages":         {ConversationOptions{Type: DMConversation}, []string{"dm"}},
		"groups":                  {ConversationOptions{Type: GroupConversation}, []string{"first", "theirs"}},
		"by creation":             {ConversationOptions{Order: CreationTime, Consent: all}, []string{"theirs", "empty", "dm", "first"}},
		"created after, excluded": {ConversationOptions{CreatedAfter: created["first"]}, []string{"dm", "theirs"}},
		"created before":          {ConversationOptions{CreatedBefore: created["empty"]}, []string{"first", "dm"}},
		"active before, excluded": {ConversationOptions{ActiveBefore: last.SentAt}, []string{"dm", "theirs"}},
		"active after":            {ConversationOptions{ActiveAfter: said.SentAt}, []string{"first"}},
		"a limit":                 {ConversationOptions{Limit: 2}, []string{"first", "dm"}},
		"a limit of what is left": {ConversationOptions{Limit: 1, Type: DMConversation}, []string{"dm"}},
		"nothing":                 {ConversationOptions{ActiveAfter: last.SentAt}, nil},
	} {
		if got := called.of(must(alice.Conversations(test.o))(t)); !cmp.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	if m := must(dm.LastMessage())(t); m == nil || m.ID != said.ID {
		t.Errorf("last message %+v", m)
	}
	if m := must(empty.LastMessage())(t); m != nil {
		t.Errorf("last message of nothing: %+v", m)
	}
}

func TestConversationLookUps(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	alice, bob, carol := newClient(t, url), newClient(t, url), newClient(t, url)
	if _, err := alice.FindDM(ctx, bob.Address()); !errors.Is(err, ErrNotFound) {
		t.Errorf("a direct message that isn't there: %v", err)
	}
	nobody := must(GeneratePrivateKeySigner())(t).Address()
	if _, err := alice.FindDM(ctx, nobody); !errors.Is(err, ErrNoInbox) {
		t.Errorf("with nobody: %v", err)
	}
	dm := must(alice.DM(ctx, bob.Address(), DMDisappearing(Disappearing{In: time.Hour})))(t)
	if info := must(dm.Info(ctx))(t); info.Disappearing.In != time.Hour || info.Disappearing.From.IsZero() {
		t.Errorf("disappearing: %+v", info.Disappearing)
	}
	for _, user := range []string{bob.Address(), bob.InboxID()} {
		if got := must(alice.FindDM(ctx, user))(t); got.ID() != dm.ID() {
			t.Errorf("found %s", got.ID())
		}
	}
	if again := must(alice.DM(ctx, bob.Address(), DMDisappearing(Disappearing{In: time.Minute})))(t); must(again.Info(ctx))(t).Disappearing.In != time.Hour {
		t.Error("the options change what is there")
	}
	if _, err := alice.DM(ctx, carol.Address(), DMDisappearing(Disappearing{In: -1})); err == nil {
		t.Error("messages disappear before they come")
	}
	if _, err := alice.FindDM(ctx, carol.Address()); !errors.Is(err, ErrNotFound) {
		t.Errorf("what was refused is there: %v", err)
	}

	m := must(dm.SendText(ctx, "hello"))(t)
	check(t, bob.Sync(ctx))
	if got := must(bob.Message(m.ID))(t); got.Text() != "hello" || got.ConversationID != dm.ID() {
		t.Errorf("message %+v", got)
	}
	for _, id := range []string{m.ID[2:], dm.ID(), "no hex", ""} {
		if _, err := bob.Message(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("message %q: %v", id, err)
		}
		if _, err := bob.Conversation(m.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("conversation: %v", err)
		}
	}
}
