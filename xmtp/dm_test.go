package xmtp

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// anotherDM creates a direct message although there may be one, as somebody does who
// doesn't know yet.
func anotherDM(t *testing.T, c *Client, peer string) *Conversation {
	t.Helper()
	return must(c.create(t.Context(), protocol.NewDM(c.InboxID(), peer), []string{peer}))(t)
}

func syncAll(t *testing.T, clients ...*Client) {
	t.Helper()
	for _, c := range clients {
		check(t, c.Sync(t.Context()))
	}
}

// twoDMs are the duplicates that alice and bob make at once.
func twoDMs(t *testing.T, alice, bob *Client) (alices, bobs *Conversation) {
	t.Helper()
	alices, bobs = anotherDM(t, alice, bob.InboxID()), anotherDM(t, bob, alice.InboxID())
	syncAll(t, alice, bob)
	return alices, bobs
}

func TestDuplicateDMsAreOne(t *testing.T) {
	t.Parallel()
	url, ctx := startNode(t), t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	streams := map[*Client]func() *Message{}
	for _, c := range []*Client{alice, bob} {
		streams[c] = puller(t, c.StreamAllMessages(ctx))
	}
	alices, bobs := twoDMs(t, alice, bob)
	ofOne := puller(t, alices.StreamMessages(ctx))
	var want []string
	for i := range 6 {
		// Each sends with what it has created: what it holds stays what it is.
		v := []*Conversation{alices, bobs}[i%2]
		want = append(want, fmt.Sprint("text ", i))
		if m := must(v.SendText(ctx, want[i]))(t); m.ConversationID != v.ID() {
			t.Errorf("sent in %s, not in %s", m.ConversationID, v.ID())
		}
		check(t, alices.Sync(ctx)) // brings in what is in the other
		check(t, bobs.Sync(ctx))
		for _, c := range []*Client{alice, bob} {
			for _, id := range []string{alices.ID(), bobs.ID()} {
				found := must(c.Conversation(id))(t)
				if found.ID() != v.ID() {
					t.Errorf("text %d: the direct message is %s, not that with the newest message", i, found.ID())
				}
				if got := texts(t, found); !cmp.Equal(got, want) {
					t.Errorf("text %d: %v", i, got)
				}
				if m := must(found.LastMessage())(t); m.Text() != want[i] {
					t.Errorf("text %d: the last message is %q", i, m.Text())
				}
				others := must(found.Duplicates())(t)
				if len(others) != 1 || !slices.Contains([]string{alices.ID(), bobs.ID()}, others[0].ID()) || others[0].ID() == found.ID() {
					t.Errorf("text %d: duplicates %v", i, others)
				}
			}
			if list := must(c.Conversations(ConversationOptions{}))(t); len(list) != 1 || list[0].ID() != v.ID() {
				t.Errorf("text %d: listed %v", i, list)
			}
			if list := must(c.Conversations(ConversationOptions{Duplicates: true}))(t); len(list) != 2 || list[0].ID() != v.ID() {
				t.Errorf("text %d: with duplicates %v", i, list)
			}
		}
		peer := map[*Conversation]string{alices: bob.InboxID(), bobs: alice.InboxID()}[v]
		if found := must(v.client.DM(ctx, peer))(t); found.ID() != v.ID() {
			t.Errorf("text %d: DM finds %s", i, found.ID())
		}
	}
	for c, next := range streams {
		var got []string
		for len(got) < len(want) {
			if m := next(); m.Text() != "" {
				got = append(got, m.Text())
			}
		}
		if !cmp.Equal(got, want) {
			t.Errorf("client of %.8s streams %v", c.InboxID(), got)
		}
	}
	for _, text := range want {
		if got := ofOne().Text(); got != text {
			t.Errorf("the stream of the conversation brings %q, want %q", got, text)
		}
	}
}

// Two devices of alice and one of bob, three conversations.
func TestThreeDMsOfTwoDevices(t *testing.T) {
	t.Parallel()
	url, ctx := startNode(t), t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	phone := openClient(t, signer, WithNode(url), InMemory())
	laptop := openClient(t, signer, WithNode(url), InMemory())
	bob := newClient(t, url)
	made := []*Conversation{anotherDM(t, phone, bob.InboxID()), anotherDM(t, laptop, bob.InboxID()), anotherDM(t, bob, phone.InboxID())}
	clients := []*Client{phone, laptop, bob}
	syncAll(t, clients...)
	var want []string
	for i, v := range slices.Concat(made, made) {
		want = append(want, fmt.Sprint("text ", i))
		must(v.SendText(ctx, want[i]))(t)
	}
	syncAll(t, clients...)
	for i, c := range clients {
		found := must(c.Conversation(made[0].ID()))(t)
		if found.ID() != made[2].ID() {
			t.Errorf("client %d: the direct message is %s", i, found.ID())
		}
		if got := texts(t, found); !cmp.Equal(got, want) {
			t.Errorf("client %d: %v", i, got)
		}
		if others := must(found.Duplicates())(t); len(others) != 2 {
			t.Errorf("client %d: %d duplicates", i, len(others))
		}
		if i < 2 && must(found.Consent())(t) != ConsentAllowed {
			t.Errorf("client %d: not allowed", i)
		}
	}
}

func TestConsentOfDuplicates(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	alices := anotherDM(t, alice, bob.InboxID())
	check(t, bob.Sync(ctx))
	if got := consentOf(t, bob, alices.ID()); got != ConsentUnknown {
		t.Errorf("the first: %v", got)
	}
	check(t, must(bob.Conversation(alices.ID()))(t).SetConsent(ConsentDenied))
	denied := must(bob.Consents(ConversationConsent))(t)
	second := anotherDM(t, alice, bob.InboxID())
	must(second.SendText(ctx, "let me in"))(t)
	check(t, bob.Sync(ctx))
	if got := consentOf(t, bob, second.ID()); got != ConsentDenied {
		t.Errorf("the second: %v", got)
	}
	// The decision is as old as it was.
	for _, d := range must(bob.Consents(ConversationConsent))(t) {
		if !d.At.Equal(denied[0].At) {
			t.Errorf("at %v, not %v", d.At, denied[0].At)
		}
	}
	if list := must(bob.Conversations(ConversationOptions{}))(t); len(list) != 0 {
		t.Errorf("listed: %v", list)
	}
	check(t, must(bob.Conversation(alices.ID()))(t).SetConsent(ConsentAllowed))
	for _, id := range []string{alices.ID(), second.ID()} {
		if got := consentOf(t, bob, id); got != ConsentAllowed {
			t.Errorf("both are one: %v", got)
		}
	}
	check(t, bob.SetConsent(Consent{Kind: ConversationConsent, Entity: second.ID(), State: ConsentDenied}))
	must(must(bob.Conversation(alices.ID()))(t).SendText(ctx, "after all"))(t)
	for _, id := range []string{alices.ID(), second.ID()} {
		if got := consentOf(t, bob, id); got != ConsentAllowed {
			t.Errorf("who sends allows both: %v", got)
		}
	}
	// What was decided about a conversation before it came counts, if it is newer.
	check(t, alice.SetConsent(Consent{Kind: ConversationConsent, Entity: alices.ID(), State: ConsentUnknown}))
	third := anotherDM(t, bob, alice.InboxID())
	check(t, alice.SetConsent(Consent{Kind: ConversationConsent, Entity: third.ID(), State: ConsentDenied}))
	check(t, alice.Sync(ctx))
	for _, id := range []string{alices.ID(), second.ID(), third.ID()} {
		if got := consentOf(t, alice, id); got != ConsentDenied {
			t.Errorf("decided before: %v", got)
		}
	}
}

func TestStreamsByConsentAndType(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	group := must(bob.NewGroup(ctx, GroupOptions{}, alice.InboxID()))(t)
	dm := must(bob.DM(ctx, alice.InboxID()))(t)
	check(t, alice.Sync(ctx))
	atAlice := must(alice.Conversation(group.ID()))(t)
	all := []ConsentState{ConsentUnknown, ConsentAllowed, ConsentDenied}
	streams := map[string]func() *Message{
		"the default":     puller(t, alice.StreamAllMessages(ctx)),
		"all":             puller(t, alice.StreamAllMessages(ctx, WithConsent(all...))),
		"allowed":         puller(t, alice.StreamAllMessages(ctx, WithConsent(ConsentAllowed))),
		"groups":          puller(t, alice.StreamAllMessages(ctx, OfType(GroupConversation))),
		"direct messages": puller(t, alice.StreamAllMessages(ctx, OfType(DMConversation))),
		"the group":       puller(t, atAlice.StreamMessages(ctx)),
	}
	// A message in the last group is seen by these streams, whatever happens; so
	// they have passed what was before it.
	last := must(alice.NewGroup(ctx, GroupOptions{}))(t)
	marked := []string{"the default", "all", "allowed", "groups"}
	until := func(name, text string) (got []string) {
		t.Helper()
		for {
			switch m := streams[name](); m.Text() {
			case "":
			case text:
				return got
			default:
				got = append(got, m.Text())
			}
		}
	}
	expect := func(v *Conversation, text string, by ...string) {
		t.Helper()
		must(v.SendText(ctx, text))(t)
		check(t, alice.Sync(ctx))
		must(last.SendText(ctx, "after "+text))(t)
		for _, name := range marked {
			var want []string
			if slices.Contains(by, name) {
				want = []string{text}
			}
			if got := until(name, "after "+text); !cmp.Equal(got, want) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		for _, name := range by {
			if !slices.Contains(marked, name) {
				if got := until(name, text); len(got) > 0 {
					t.Errorf("%s: %q before %q", name, got, text)
				}
			}
		}
	}
	expect(group, "unknown", "the default", "all", "groups", "the group")
	expect(dm, "direct", "the default", "all", "direct messages")
	check(t, atAlice.SetConsent(ConsentAllowed))
	expect(group, "allowed", "the default", "all", "allowed", "groups", "the group")
	check(t, atAlice.SetConsent(ConsentDenied))
	expect(group, "denied", "all", "the group")
	expect(dm, "direct again", "the default", "all", "direct messages")
	check(t, atAlice.SetConsent(ConsentAllowed))
	expect(group, "allowed again", "the default", "all", "allowed", "groups", "the group")
}

func TestStreamConversations(t *testing.T) {
	url := startNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	alice, bob, carol := newClient(t, url), newClient(t, url), newClient(t, url)
	before := must(bob.NewGroup(ctx, GroupOptions{}, alice.InboxID()))(t)
	check(t, alice.Sync(ctx))
	streams := map[string]func() *Conversation{
		"the default": puller(t, alice.StreamConversations(ctx)),
		"groups":      puller(t, alice.StreamConversations(ctx, OfType(GroupConversation))),
		"all":         puller(t, alice.StreamConversations(ctx, WithDuplicates())),
		"allowed":     puller(t, alice.StreamConversations(ctx, WithConsent(ConsentAllowed))),
	}
	expect := func(v *Conversation, by ...string) {
		t.Helper()
		for _, name := range by {
			if got := streams[name](); got.ID() != v.ID() {
				t.Errorf("%s: %s, want %s", name, got.ID(), v.ID())
			}
		}
	}
	// Welcomes come by the stream of the node, without a sync.
	expect(must(bob.NewGroup(ctx, GroupOptions{}, alice.InboxID()))(t), "the default", "groups", "all")
	expect(must(bob.DM(ctx, alice.InboxID()))(t), "the default", "all")
	expect(anotherDM(t, bob, alice.InboxID()), "all")
	expect(must(alice.NewGroup(ctx, GroupOptions{}))(t), "the default", "groups", "all", "allowed")
	expect(must(alice.DM(ctx, carol.InboxID()))(t), "the default", "all", "allowed")
	// Whoever is let in again is told again.
	check(t, before.RemoveMembers(ctx, alice.InboxID()))
	check(t, before.AddMembers(ctx, alice.InboxID()))
	expect(before, "the default", "groups", "all")
}

// A member who is added to a second group of a direct message as he was to the first.
func TestRepeatedChangesAreToldOnce(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	alice, bob, carol := newClient(t, url), newClient(t, url), newClient(t, url)
	told := func() (added int) {
		t.Helper()
		check(t, alice.db.View(func(tx *store.Tx) error {
			rows, err := tx.DMs(protocol.DMID(alice.InboxID(), bob.InboxID()))
			for _, row := range rows {
				err = tx.MembershipChanges([][]byte{row.ID}, func(b []byte) error {
					if change := groupUpdated(b); change != nil && slices.Contains(change.Added, bob.InboxID()) {
						added++
					}
					return nil
				})
			}
			return err
		}))
		return added
	}
	anotherDM(t, alice, bob.InboxID())
	anotherDM(t, alice, bob.InboxID())
	if n := told(); n != 1 {
		t.Errorf("alice is told %d times", n)
	}
	// Bob is let in twice, and is told so.
	check(t, bob.Sync(ctx))
	list := must(bob.Conversations(ConversationOptions{}))(t)
	if n := len(must(list[0].Messages(MessageOptions{}))(t)); n != 2 {
		t.Errorf("bob is told %d times", n)
	}
	// It is for direct messages only.
	for range 2 {
		v := must(alice.NewGroup(ctx, GroupOptions{}, carol.InboxID()))(t)
		if n := len(must(v.Messages(MessageOptions{}))(t)); n != 1 {
			t.Errorf("%d changes of a group", n)
		}
	}
}
