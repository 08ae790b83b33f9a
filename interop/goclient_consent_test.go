package interop

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// party is a client of either side, as somebody has it who decides, lists and looks
// up; what fails ends the test. Conversations are named by their ids.
type party interface {
	inboxID() string
	sync()
	group(members ...string) string
	dm(peer string) string
	say(conversation, text string)
	consent(conversation string) int
	decide(conversation string, state int)
	decideInbox(inbox string, state int)
	inboxConsent(inbox string) int
	memberConsent(conversation, inbox string) int
	list(f listing) []string
	find(conversation string) string     // what stands for it
	findDM(peer string) string           // empty if there is none
	others(conversation string) []string // its duplicates
	said(conversation string) []said
	leave(conversation string)
}

// listing is how a list is asked for; the zero value is the default.
type listing struct {
	only       string // groups or dms
	consent    []int
	duplicates bool
	limit      int
	byCreation bool
	before     int64 // created before; ns
}

type said struct {
	Text, ID, Conversation, Sender string
	Sent                           int64
}

type goParty struct {
	*xmtp.Client
	t *testing.T
}

func (p goParty) inboxID() string { return p.InboxID() }

func (p goParty) sync() {
	p.t.Helper()
	if err := p.Sync(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

func (p goParty) conversation(id string) ours {
	p.t.Helper()
	v, err := p.Conversation(id)
	return ours{check(p.t, v, err), p.t}
}

func (p goParty) group(members ...string) string {
	p.t.Helper()
	v, err := p.NewGroup(p.t.Context(), xmtp.GroupOptions{}, members...)
	return check(p.t, v, err).ID()
}

func (p goParty) dm(peer string) string {
	p.t.Helper()
	v, err := p.DM(p.t.Context(), peer)
	return check(p.t, v, err).ID()
}

func (p goParty) say(id, text string) { p.t.Helper(); p.conversation(id).say(text) }

func (p goParty) consent(id string) int {
	p.t.Helper()
	state, err := p.conversation(id).Consent()
	return int(check(p.t, state, err))
}

func (p goParty) decide(id string, state int) {
	p.t.Helper()
	if err := p.conversation(id).SetConsent(xmtp.ConsentState(state)); err != nil {
		p.t.Fatal(err)
	}
}

func (p goParty) decideInbox(inbox string, state int) {
	p.t.Helper()
	if err := p.SetConsent(xmtp.Consent{Kind: xmtp.InboxConsent, Entity: inbox, State: xmtp.ConsentState(state)}); err != nil {
		p.t.Fatal(err)
	}
}

func (p goParty) inboxConsent(inbox string) int {
	p.t.Helper()
	state, err := p.Consent(xmtp.InboxConsent, inbox)
	return int(check(p.t, state, err))
}

func (p goParty) memberConsent(id, inbox string) int {
	p.t.Helper()
	members, err := p.conversation(id).Members(p.t.Context())
	i := slices.IndexFunc(check(p.t, members, err), func(m xmtp.Member) bool { return m.InboxID == inbox })
	return int(members[i].Consent)
}

func (p goParty) list(f listing) (ids []string) {
	p.t.Helper()
	o := xmtp.ConversationOptions{Duplicates: f.duplicates, Limit: f.limit}
	o.Type = map[string]xmtp.ConversationType{"groups": xmtp.GroupConversation, "dms": xmtp.DMConversation}[f.only]
	for _, state := range f.consent {
		o.Consent = append(o.Consent, xmtp.ConsentState(state))
	}
	if f.byCreation {
		o.Order = xmtp.CreationTime
	}
	if f.before != 0 {
		o.CreatedBefore = time.Unix(0, f.before)
	}
	list, err := p.Conversations(o)
	for _, v := range check(p.t, list, err) {
		ids = append(ids, v.ID())
	}
	return ids
}

func (p goParty) find(id string) string { p.t.Helper(); return p.conversation(id).ID() }

func (p goParty) findDM(peer string) string {
	p.t.Helper()
	v, err := p.FindDM(p.t.Context(), peer)
	if errors.Is(err, xmtp.ErrNotFound) {
		return ""
	}
	return check(p.t, v, err).ID()
}

func (p goParty) others(id string) (ids []string) {
	p.t.Helper()
	list, err := p.conversation(id).Duplicates()
	for _, v := range check(p.t, list, err) {
		ids = append(ids, v.ID())
	}
	slices.Sort(ids)
	return ids
}

func (p goParty) said(id string) (list []said) {
	p.t.Helper()
	for _, m := range p.conversation(id).messages() {
		if m.Text() != "" {
			list = append(list, said{m.Text(), m.ID, m.ConversationID, m.SenderInboxID, m.SentAt.UnixNano()})
		}
	}
	return list
}

func (p goParty) leave(id string) {
	p.t.Helper()
	if err := p.conversation(id).Leave(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

type officialParty struct {
	*official.Client
	t *testing.T
}

func (p officialParty) inboxID() string { return p.InboxID }
func (p officialParty) sync()           { p.t.Helper(); p.SyncAll() }

func (p officialParty) conversation(id string) *official.Conversation {
	p.t.Helper()
	return p.Find(&official.Conversation{ID: id})
}

func (p officialParty) group(members ...string) string {
	p.t.Helper()
	var v official.Conversation
	p.Call(&v, "conversations.createGroup", members)
	return v.ID
}

func (p officialParty) dm(peer string) string {
	p.t.Helper()
	return p.DM(&official.Client{InboxID: peer}).ID
}

func (p officialParty) say(id, text string) { p.t.Helper(); p.conversation(id).Send(text) }

func (p officialParty) consent(id string) (state int) {
	p.t.Helper()
	p.conversation(id).Call(&state, "consentState")
	return state
}

func (p officialParty) decide(id string, state int) {
	p.t.Helper()
	p.conversation(id).Call(nil, "updateConsentState", state)
}

const inboxEntity = 1

func (p officialParty) decideInbox(inbox string, state int) {
	p.t.Helper()
	p.Call(nil, "preferences.setConsentStates", []any{map[string]any{"entityType": inboxEntity, "entity": inbox, "state": state}})
}

func (p officialParty) inboxConsent(inbox string) (state int) {
	p.t.Helper()
	p.Call(&state, "preferences.getConsentState", inboxEntity, inbox)
	return state
}

func (p officialParty) memberConsent(id, inbox string) int {
	p.t.Helper()
	var members []struct {
		InboxID      string `json:"inboxId"`
		ConsentState int    `json:"consentState"`
	}
	p.conversation(id).Call(&members, "members")
	for _, m := range members {
		if m.InboxID == inbox {
			return m.ConsentState
		}
	}
	p.t.Fatalf("%s is no member", inbox)
	return 0
}

func (p officialParty) list(f listing) (ids []string) {
	p.t.Helper()
	path := map[string]string{"": "list", "groups": "listGroups", "dms": "listDms"}[f.only]
	options := map[string]any{"includeDuplicateDms": f.duplicates}
	if f.consent != nil {
		options["consentStates"] = f.consent
	}
	if f.limit != 0 {
		options["limit"] = f.limit
	}
	if f.byCreation {
		options["orderBy"] = 0
	}
	if f.before != 0 {
		options["createdBeforeNs"] = map[string]any{"$bigint": strconv.FormatInt(f.before, 10)}
	}
	for _, v := range p.Conversations(path, options) {
		ids = append(ids, v.ID)
	}
	return ids
}

func (p officialParty) find(id string) string { p.t.Helper(); return p.conversation(id).ID }

func (p officialParty) findDM(peer string) string {
	p.t.Helper()
	var v *official.Conversation
	p.Call(&v, "conversations.getDmByInboxId", peer)
	if v == nil {
		return ""
	}
	return v.ID
}

func (p officialParty) others(id string) (ids []string) {
	p.t.Helper()
	var list []official.Conversation
	p.conversation(id).Call(&list, "duplicateDms")
	for _, v := range list {
		ids = append(ids, v.ID)
	}
	slices.Sort(ids)
	return ids
}

func (p officialParty) said(id string) (list []said) {
	p.t.Helper()
	for _, m := range p.conversation(id).Messages() {
		if m.Text() != "" {
			list = append(list, said{m.Text(), m.ID, m.ConversationID, m.SenderInboxID, m.SentAtNs})
		}
	}
	return list
}

func (p officialParty) leave(id string) { p.t.Helper(); p.conversation(id).Call(nil, "requestRemoval") }

func goPartyOf(t *testing.T, url string, signer xmtp.Signer) goParty {
	t.Helper()
	return goParty{goInstallation(t, url, signer), t}
}

func syncAll(parties []party) {
	for _, p := range parties {
		p.sync()
	}
}

// Two devices of alice, who has the official client, and two of bob, who has ours,
// begin at once: four conversations that become one.
func TestGoDuplicateDMs(t *testing.T) {
	scenario(t, "Go: four duplicates of a DM, by two devices of either side, are one", everyVersion, func(t *testing.T, w *world) {
		phone := w.Client("phone")
		signer := newGoSigner(t)
		parties := []party{
			officialParty{phone, t}, officialParty{w.Installation("laptop", phone.Wallet), t},
			goPartyOf(t, w.url, signer), goPartyOf(t, w.url, signer),
		}
		alice, bob := parties[0].inboxID(), parties[2].inboxID()
		var ids []string
		for i, p := range parties {
			ids = append(ids, p.dm([]string{bob, bob, alice, alice}[i]))
		}
		if one := slices.Compact(slices.Sorted(slices.Values(ids))); len(one) != len(ids) {
			t.Fatalf("some have made the same: %v", ids)
		}
		syncAll(parties)
		same := func(what string, texts ...string) {
			t.Helper()
			syncAll(parties)
			syncAll(parties) // also what those added that came later
			first := parties[0].said(ids[0])
			var read []string
			for _, s := range first {
				read = append(read, s.Text)
			}
			equal(t, what+": texts", read, texts)
			stands := parties[0].find(ids[0])
			others := slices.DeleteFunc(slices.Sorted(slices.Values(ids)), func(id string) bool { return id == stands })
			for i, p := range parties {
				if diff := cmp.Diff(first, p.said(ids[i])); diff != "" {
					t.Errorf("%s: party %d reads (-the first, +it):\n%s", what, i, diff)
				}
				for _, id := range ids {
					equal(t, fmt.Sprintf("%s: party %d finds", what, i), p.find(id), stands)
				}
				equal(t, fmt.Sprintf("%s: party %d finds by the peer", what, i), p.findDM([]string{bob, bob, alice, alice}[i]), stands)
				equal(t, fmt.Sprintf("%s: party %d gets on creating", what, i), p.dm([]string{bob, bob, alice, alice}[i]), stands)
				equal(t, fmt.Sprintf("%s: party %d lists", what, i), p.list(listing{only: "dms"}), []string{stands})
				equal(t, fmt.Sprintf("%s: party %d lists with duplicates", what, i), len(p.list(listing{duplicates: true})), len(ids))
				equal(t, fmt.Sprintf("%s: the duplicates of party %d", what, i), p.others(ids[i]), others)
				equal(t, fmt.Sprintf("%s: consent of party %d", what, i), p.consent(ids[i]), official.ConsentAllowed)
			}
		}
		var texts []string
		for round := range 2 {
			for i, p := range parties {
				texts = append(texts, fmt.Sprintf("round %d, party %d", round, i))
				// Before all have read it, each sends where it found the newest message.
				p.say(ids[i], texts[len(texts)-1])
			}
			same(fmt.Sprint("round ", round), texts...)
		}
	})
}

// Carol has the official client, dave has ours; alice does the same with both.
func TestGoConsent(t *testing.T) {
	scenario(t, "Go: consent changes by itself as the official client's", everyVersion, func(t *testing.T, w *world) {
		alice := officialParty{w.Client("alice"), t}
		laptop := officialParty{w.Installation("laptop", alice.Wallet), t}
		carol := officialParty{w.Client("carol"), t}
		signer := newGoSigner(t)
		dave := goPartyOf(t, w.url, signer)
		carols := officialParty{w.Installation("carols", carol.Wallet), t}
		daves := goPartyOf(t, w.url, signer)
		for _, test := range []struct {
			party, other party
		}{{carol, carols}, {dave, daves}} {
			p := test.party
			state := func(what, id string, want int) {
				t.Helper()
				equal(t, fmt.Sprintf("%T: %s", p, what), p.consent(id), want)
			}
			group := alice.group(p.inboxID())
			p.sync()
			state("let in", group, official.ConsentUnknown)
			alice.say(group, "hello")
			p.sync()
			state("who receives", group, official.ConsentUnknown)
			p.say(group, "hello")
			state("who sends", group, official.ConsentAllowed)
			p.decide(group, official.ConsentDenied)
			alice.say(group, "hello?")
			p.sync()
			state("who denied and receives", group, official.ConsentDenied)
			p.decide(group, official.ConsentUnknown)
			state("who does not know", group, official.ConsentUnknown)

			dm := alice.dm(p.inboxID())
			p.sync()
			state("of a DM, let in", dm, official.ConsentUnknown)
			p.decide(dm, official.ConsentDenied)
			further := laptop.dm(p.inboxID())
			laptop.say(further, "hello again")
			p.sync()
			state("of its duplicate", further, official.ConsentDenied)
			equal(t, fmt.Sprintf("%T lists", p), p.list(listing{}), []string{group})
			p.say(further, "all right")
			state("who sends", further, official.ConsentAllowed)
			alice.sync()
			laptop.sync()

			state("of what he creates", p.group(alice.inboxID()), official.ConsentAllowed)
			third := test.other.group(alice.inboxID())
			p.sync()
			state("of what his other device creates", third, official.ConsentAllowed)
			byAlice := alice.group(p.inboxID())
			p.sync()
			test.other.sync()
			state("of what alice creates", byAlice, official.ConsentUnknown)

			equal(t, "an inbox", p.inboxConsent(alice.inboxID()), official.ConsentUnknown)
			p.decideInbox(alice.inboxID(), official.ConsentDenied)
			equal(t, "an inbox", p.inboxConsent(alice.inboxID()), official.ConsentDenied)
			equal(t, "a member", p.memberConsent(group, alice.inboxID()), official.ConsentDenied)
			state("of a group with who is denied", group, official.ConsentUnknown)

			// Who comes back decides again.
			p.say(group, "I leave")
			p.leave(group)
			alice.sync()
			eventually(t, "alice's client lets him go", func() bool {
				alice.sync()
				return len(alice.conversation(group).Members()) == 1
			})
			p.sync()
			alice.conversation(group).Call(nil, "addMembers", []string{p.inboxID()})
			p.sync()
			state("who comes back", group, official.ConsentUnknown)
		}
	})
}

// The same list, asked of both.
func TestGoLists(t *testing.T) {
	scenario(t, "Go: lists with filters as the official client's", everyVersion, func(t *testing.T, w *world) {
		alice, laptopOf := officialParty{w.Client("alice"), t}, func(p officialParty) officialParty {
			return officialParty{w.Installation("laptop", p.Wallet), t}
		}
		laptop := laptopOf(alice)
		carol := officialParty{w.Client("carol"), t}
		dave := goParty{goClient(t, w.url), t}
		pair := []party{carol, dave}
		// What each calls the conversations: those with both, and his own with alice.
		called := []map[string]string{{}, {}}
		ids := []map[string]string{{}, {}}
		name := func(i int, name, id string) { called[i][id], ids[i][name] = name, id }
		for _, n := range []string{"one", "two", "three", "four"} {
			id := alice.group(carol.inboxID(), dave.inboxID())
			name(0, n, id)
			name(1, n, id)
			syncAll(pair) // they come in this order
		}
		for i, p := range pair {
			name(i, "dm", alice.dm(p.inboxID()))
			p.sync()
			name(i, "duplicate", laptop.dm(p.inboxID()))
			p.sync()
			p.say(ids[i]["dm"], "in the DM")
			p.decide(ids[i]["two"], official.ConsentDenied)
			p.decide(ids[i]["three"], official.ConsentAllowed)
		}
		alice.say(ids[0]["two"], "in two")
		alice.say(ids[0]["one"], "in one")
		syncAll(pair)
		all := []int{official.ConsentUnknown, official.ConsentAllowed, official.ConsentDenied}
		for _, test := range []struct {
			what string
			f    listing
		}{
			{"the default", listing{}},
			{"groups", listing{only: "groups"}},
			{"direct messages", listing{only: "dms"}},
			{"unknown", listing{consent: all[:1]}},
			{"allowed", listing{consent: all[1:2]}},
			{"denied", listing{consent: all[2:]}},
			{"unknown and denied", listing{consent: []int{0, 2}}},
			{"all", listing{consent: all}},
			{"none", listing{consent: []int{}}},
			{"the first two", listing{limit: 2}},
			{"by creation", listing{byCreation: true}},
			{"denied groups by creation", listing{byCreation: true, consent: all, only: "groups"}},
			{"the first by creation", listing{byCreation: true, consent: all, limit: 1}},
			{"groups with duplicates", listing{only: "groups", duplicates: true}},
		} {
			var lists [2][]string
			for i, p := range pair {
				for _, id := range p.list(test.f) {
					n := called[i][id]
					if n == "duplicate" {
						n = "dm" // whichever of the two
					}
					lists[i] = append(lists[i], n)
				}
			}
			equal(t, test.what+": ours", lists[1], lists[0])
		}
		for i, p := range pair {
			equal(t, "created before the first", p.list(listing{before: 1}), nil)
			equal(t, "all are before now", len(p.list(listing{before: time.Now().UnixNano(), consent: all})), 5)
			equal(t, "duplicates are listed", len(p.list(listing{only: "dms", duplicates: true})), 2)
			equal(t, "no DM with nobody", p.findDM(pair[1-i].inboxID()), "")
			equal(t, "the DM with alice", p.findDM(alice.inboxID()), p.find(ids[i]["dm"]))
		}
	})
}

// collect reads a stream of ours into a list of what name says of the items.
func collect[T any](t *testing.T, stream func(context.Context) iter.Seq2[T, error], name func(T) string) (wait func(want ...string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	items, done := make(chan string, 1000), make(chan struct{})
	s := stream(ctx)
	go func() {
		defer close(done)
		for v, err := range s {
			if err != nil {
				return
			}
			if n := name(v); n != "" {
				items <- n
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	var got []string
	return func(want ...string) {
		t.Helper()
		timeout := time.After(60 * time.Second)
		for len(got) < len(want) {
			select {
			case n := <-items:
				got = append(got, n)
			case <-timeout:
				t.Fatalf("of %q there came %q", want, got)
			}
		}
		equal(t, "streamed", got, want)
	}
}

// What alice does comes to both, by streams with the same filters, in the same order.
func TestGoStreamFilters(t *testing.T) {
	scenario(t, "Go: streams by consent and type as the official client's", everyVersion, func(t *testing.T, w *world) {
		alice := officialParty{w.Client("alice"), t}
		laptop := officialParty{w.Installation("laptop", alice.Wallet), t}
		carol, dave := w.Client("carol"), goClient(t, w.url)
		denied := alice.group(carol.InboxID, dave.InboxID())
		pair := []party{officialParty{carol, t}, goParty{dave, t}}
		// The first words of a member come right after a commit, which is when an official
		// client with several streams can lose a message between two of its own syncs. So in
		// this group they are said before there are streams.
		old := alice.group(carol.InboxID, dave.InboxID())
		for _, p := range pair {
			p.sync()
			p.decide(denied, official.ConsentDenied)
			p.say(old, "before")
		}
		syncAll(pair)
		text := func(m *xmtp.Message) string { return m.Text() }
		messages := func(options ...xmtp.StreamOption) func(context.Context) iter.Seq2[*xmtp.Message, error] {
			return func(ctx context.Context) iter.Seq2[*xmtp.Message, error] {
				return dave.StreamAllMessages(ctx, options...)
			}
		}
		all := []int{official.ConsentUnknown, official.ConsentAllowed, official.ConsentDenied}
		theirs := map[string]*official.LiveStream{
			"messages":   carol.Stream("conversations.streamAllMessages", nil),
			"groups":     carol.Stream("conversations.streamAllGroupMessages", nil),
			"dms":        carol.Stream("conversations.streamAllDmMessages", nil),
			"whatever":   carol.Stream("conversations.streamAllMessages", map[string]any{"consentStates": all}),
			"of denied":  carol.Stream("conversations.streamAllMessages", map[string]any{"consentStates": all[2:]}),
			"new":        carol.Stream("conversations.stream", nil),
			"new groups": carol.Stream("conversations.streamGroups", nil),
		}
		oursOf := map[string]func(want ...string){
			"messages":  collect(t, messages(), text),
			"groups":    collect(t, messages(xmtp.OfType(xmtp.GroupConversation)), text),
			"dms":       collect(t, messages(xmtp.OfType(xmtp.DMConversation)), text),
			"whatever":  collect(t, messages(xmtp.WithConsent(0, 1, 2)), text),
			"of denied": collect(t, messages(xmtp.WithConsent(xmtp.ConsentDenied)), text),
		}
		id := func(v *xmtp.Conversation) string { return v.ID() }
		fresh := collect(t, func(ctx context.Context) iter.Seq2[*xmtp.Conversation, error] { return dave.StreamConversations(ctx) }, id)
		freshGroups := collect(t, func(ctx context.Context) iter.Seq2[*xmtp.Conversation, error] {
			return dave.StreamConversations(ctx, xmtp.OfType(xmtp.GroupConversation))
		}, id)

		want := map[string][]string{}
		come := func(text string, by ...string) {
			t.Helper()
			for _, name := range by {
				want[name] = append(want[name], text)
				equal(t, "theirs: "+name, theirs[name].WaitTexts(text), want[name])
				oursOf[name](want[name]...)
			}
		}
		alice.say(denied, "denied")
		come("denied", "whatever", "of denied")
		group := alice.group(carol.InboxID, dave.InboxID())
		theirs["new"].WaitConversations(&official.Conversation{ID: group})
		theirs["new groups"].WaitConversations(&official.Conversation{ID: group})
		fresh(group)
		freshGroups(group)
		alice.say(group, "in the group")
		come("in the group", "messages", "groups", "whatever")
		dms := []string{alice.dm(carol.InboxID), alice.dm(dave.InboxID())}
		theirs["new"].WaitConversations(&official.Conversation{ID: dms[0]})
		fresh(group, dms[1])
		for i := range pair {
			alice.say(dms[i], "in the DM")
		}
		come("in the DM", "messages", "dms", "whatever")
		// A duplicate is no new conversation, but what is said in it is new.
		for _, p := range pair {
			laptop.say(laptop.dm(p.inboxID()), "in another DM")
		}
		come("in another DM", "messages", "dms", "whatever")
		last := alice.group(carol.InboxID, dave.InboxID())
		theirs["new"].WaitConversations(&official.Conversation{ID: last})
		fresh(group, dms[1], last)
		freshGroups(group, last)
		// Own messages are among them. By carol's own her streams can leave out what her sync
		// was faster to read.
		pair[1].say(old, "by dave")
		come("by dave", "messages", "groups", "whatever")
		pair[0].say(old, "by carol")
		for _, name := range []string{"messages", "groups", "whatever"} {
			oursOf[name](append(want[name], "by carol")...)
		}
		equal(t, "they are not told of the duplicate", len(theirs["new"].Events()), 3)

		// Decisions are told.
		decisions := collect(t, dave.StreamConsent, func(d xmtp.Consent) string { return fmt.Sprint(d.Entity, d.State) })
		consent := carol.Stream("preferences.streamConsent", nil)
		for _, p := range pair {
			p.decide(last, official.ConsentAllowed)
			p.decide(last, official.ConsentAllowed) // again
			p.say(last, "said")                     // allows what is allowed
		}
		consent.WaitKind("value", 1)
		decisions(last + "allowed")
		for _, p := range pair {
			p.decideInbox(alice.inboxID(), official.ConsentDenied)
		}
		consent.WaitKind("value", 2)
		decisions(last+"allowed", alice.inboxID()+"denied")
		equal(t, "their decisions", len(consent.Events()), 2)
	})
}
