package xmtp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// calls returns which calls were made since n, and how many there are.
func (p *proxy) since(n int) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked[n:])
}

func countOf(list []string, name string) (n int) {
	for _, s := range list {
		if s == name {
			n++
		}
	}
	return n
}

func sendWelcomes(t *testing.T, c *Client, list []*mlsapi.WelcomeMessageInput) {
	t.Helper()
	for chunk := range slices.Chunk(list, maxWelcomes) {
		_, err := c.node.MLS.SendWelcomeMessages(t.Context(), &mlsapi.SendWelcomeMessagesRequest{Messages: chunk})
		check(t, err)
	}
}

// junkWelcomes are welcomes that nobody can use.
func junkWelcomes(t *testing.T, to *Client, n int) []*mlsapi.WelcomeMessageInput {
	t.Helper()
	key := wrapperOf(t, to).PublicKey
	junk := make([]*mlsapi.WelcomeMessageInput, n)
	for i := range junk {
		data := make([]byte, 300)
		rand.Read(data)
		v1 := &mlsapi.WelcomeMessageInput_V1{InstallationKey: to.installation.Bytes(), Data: data, HpkePublicKey: key, WrapperAlgorithm: 2}
		if i%3 == 0 {
			v1.HpkePublicKey = data[:32]
		}
		junk[i] = &mlsapi.WelcomeMessageInput{Version: &mlsapi.WelcomeMessageInput_V1_{V1: v1}}
	}
	return junk
}

// wrapperOf returns what welcomes for a client are wrapped to.
func wrapperOf(t *testing.T, of *Client) identity.WelcomeWrapper {
	t.Helper()
	response, err := of.node.MLS.FetchKeyPackages(t.Context(), &mlsapi.FetchKeyPackagesRequest{InstallationKeys: [][]byte{of.installation.Bytes()}})
	check(t, err)
	info := must(identity.VerifyKeyPackage(response.KeyPackages[0].KeyPackageTlsSerialized, time.Now()))(t)
	return must(info.WelcomeWrapper())(t)
}

// Thousands of welcomes that nobody can use: what is said in conversations is read
// after the first page, what is kept of them is bounded, and who is let in by one of
// them comes in.
func TestWelcomeFlood(t *testing.T) {
	t.Parallel()
	const rounds = 12
	h := newHostile(t, startNode(t), func(o *options) error { o.welcomeRounds = rounds; return nil })
	ctx := t.Context()
	junk := junkWelcomes(t, h.alice, (rounds+1)*pageSize)
	sendWelcomes(t, h.bob, junk)
	must(h.bobs.SendText(ctx, "can you hear me?"))(t)
	late := must(h.bob.NewGroup(ctx, GroupOptions{}, h.alice.InboxID()))(t)

	from := len(h.proxy.since(0))
	check(t, h.alice.Sync(ctx))
	calls := h.proxy.since(from)
	if pages := countOf(calls[:slices.Index(calls, "QueryGroupMessages")], "QueryWelcomeMessages"); pages != 1 {
		t.Errorf("messages were read after %d pages of welcomes", pages)
	}
	if pages := countOf(calls, "QueryWelcomeMessages"); pages != rounds {
		t.Errorf("%d pages of welcomes in one sync", pages)
	}
	if n := len(calls); n > 3*rounds+10 {
		t.Errorf("%d calls", n)
	}
	if got := texts(t, h.group); got[len(got)-1] != "can you hear me?" {
		t.Errorf("%q", got)
	}
	find[WelcomeFlood](t, h.alice)
	if _, err := h.alice.Conversation(late.ID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("it comes after the flood: %v", err)
	}
	check(t, h.alice.Sync(ctx))
	must(h.alice.Conversation(late.ID()))(t)
	if n := len(must(h.alice.Skipped())(t)); n > 1100 {
		t.Errorf("%d are remembered", n)
	}

	// Who streams reads messages between pages, too, and all welcomes in the end.
	sendWelcomes(t, h.bob, junkWelcomes(t, h.alice, 2*pageSize))
	last := must(h.bob.NewGroup(ctx, GroupOptions{}, h.alice.InboxID()))(t)
	for v, err := range h.alice.StreamConversations(ctx) {
		check(t, err)
		if v.ID() == last.ID() {
			break
		}
	}
}

// Groups that strangers make are what they are, and nobody's who has not allowed them.
func TestFloodOfGroups(t *testing.T) {
	t.Parallel()
	h := newHostile(t, startNode(t))
	ctx := t.Context()
	for range 6 {
		must(h.bob.NewGroup(ctx, GroupOptions{}, h.alice.InboxID()))(t)
	}
	check(t, h.alice.Sync(ctx))
	if n := len(must(h.alice.Conversations(ConversationOptions{Consent: []ConsentState{ConsentAllowed}}))(t)); n != 2 {
		t.Errorf("%d are allowed", n)
	}
	list := must(h.alice.Conversations(ConversationOptions{Consent: []ConsentState{ConsentUnknown}}))(t)
	if len(list) != 6 {
		t.Errorf("%d are unknown", len(list))
	}
	for _, v := range list {
		check(t, v.SetConsent(ConsentDenied))
	}
	if n := len(must(h.alice.Conversations(ConversationOptions{}))(t)); n != 2 {
		t.Errorf("%d are shown", n)
	}
}

// Key packages that are used up by welcomes, one after the other, are not made without
// end.
func TestWelcomesRotateWithinBounds(t *testing.T) {
	t.Parallel()
	h := newHostile(t, startNode(t))
	ctx := t.Context()
	for range 2 * manyKeyPackages {
		sendWelcomes(t, h.bob, junkWelcomes(t, h.alice, 1))
		_, _, err := h.alice.syncWelcomes(ctx)
		check(t, err)
		h.later.Add(int64(rotationDelay) + 1)
		_, err = h.alice.maintainKeyPackages(ctx)
		check(t, err)
	}
	var n int64
	check(t, h.alice.db.View(func(tx *store.Tx) (err error) {
		_, err = tx.One("SELECT count(*) FROM key_packages", nil, func(r store.Row) { n = r.Int(0) })
		return err
	}))
	if n > manyKeyPackages+2 {
		t.Errorf("%d key packages after %d welcomes", n, 2*manyKeyPackages)
	}
}

// Pointers to welcomes that never come cost a few look-ups per sync, and less and
// less often.
func TestFloodOfPointers(t *testing.T) {
	t.Parallel()
	h := newHostile(t, startNode(t))
	ctx := t.Context()
	wrapper := wrapperOf(t, h.alice)
	var pointers []*mlsapi.WelcomeMessageInput
	for range 25 {
		_, pointer, err := protocol.ShareWelcome([]byte("nothing"), 1)
		check(t, err)
		pointers = append(pointers, must(pointer.Wrap(h.alice.installation, wrapper))(t))
	}
	sendWelcomes(t, h.bob, pointers)
	check(t, h.alice.Sync(ctx)) // each is followed once
	for i := 0; ; i++ {
		from := len(h.proxy.since(0))
		check(t, h.alice.Sync(ctx))
		n := countOf(h.proxy.since(from), "QueryWelcomeMessages")
		if n == 1 {
			break // a pause
		}
		if n > 1+deferredPerRound || i > 200 {
			t.Fatalf("%d look-ups in sync %d", n, i)
		}
	}
	check(t, h.alice.db.Update(func(tx *store.Tx) error {
		return tx.Exec("UPDATE deferred SET attempts = ?", deferredAttempts-2)
	}))
	for range 2 {
		h.later.Add(int64(deferredRetryMax))
		for range 3 {
			check(t, h.alice.Sync(ctx))
		}
	}
	var left []store.Deferred
	check(t, h.alice.db.View(func(tx *store.Tx) (err error) {
		left, err = tx.Deferred(1<<62, 1000)
		return err
	}))
	if len(left) > 0 {
		t.Errorf("%d are still tried", len(left))
	}
	if last := must(h.alice.Skipped())(t); len(last) < 25 {
		t.Errorf("%d are noted", len(last))
	}
}

func TestDeferredBounds(t *testing.T) {
	c := newClient(t, startNode(t), WithoutWorkers())
	m := &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_V1_{V1: &mlsapi.WelcomeMessage_V1{}}}
	check(t, c.db.Update(func(tx *store.Tx) error {
		for n := range uint64(maxDeferred) {
			if err := tx.Defer(store.Deferred{Number: n + 1, Attempts: int(n % 7)}); err != nil {
				return err
			}
		}
		return nil
	}))
	check(t, c.deferWelcome(m, maxDeferred+1, errPointee))
	var left []store.Deferred
	check(t, c.db.View(func(tx *store.Tx) (err error) {
		left, err = tx.Deferred(1<<62, 2*maxDeferred)
		return err
	}))
	if len(left) != maxDeferred || slices.ContainsFunc(left, func(d store.Deferred) bool { return d.Number == 7 }) {
		t.Errorf("%d are kept", len(left))
	}
	for attempts, want := range map[int]time.Duration{1: 0, 3: 0, 4: time.Second, 5: 2 * time.Second, 10: 64 * time.Second, 99: 2 * time.Hour} {
		if got := deferredDelay(attempts); got != want {
			t.Errorf("after %d attempts: %v", attempts, got)
		}
	}
}

// A welcome that can't be judged, because nobody can say who is in the group, does not
// keep others from being judged.
func TestWelcomeThatCantBeJudged(t *testing.T) {
	t.Parallel()
	h := newHostile(t, startNode(t))
	ctx := t.Context()
	dave := newClient(t, h.url, WithoutWorkers())
	first := must(dave.NewGroup(ctx, GroupOptions{}, h.alice.InboxID()))(t)
	second := must(h.bob.NewGroup(ctx, GroupOptions{}, h.alice.InboxID()))(t)
	h.updates(dave.InboxID(), func(_ *identityapi.GetIdentityUpdatesRequest_Request, a *identityapi.GetIdentityUpdatesResponse_Response) {
		a.InboxId = h.carol.InboxID()
	})
	check(t, h.alice.Sync(ctx))
	must(h.alice.Conversation(second.ID()))(t)
	if _, err := h.alice.Conversation(first.ID()); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	h.proxy.honest()
	check(t, h.alice.Sync(ctx))
	must(h.alice.Conversation(first.ID()))(t)
}

// invite lets mallory make a group with alice and send her a welcome that says that
// the commit has some number.
func (m *mallory) invite(t *testing.T, alice *Client, state *protocol.GroupState, commit uint64) {
	t.Helper()
	ctx := t.Context()
	exts := must(state.Extensions())(t)
	m.group = must(mls.New(newGroupID(), protocol.NewClient(m.inboxID, m.signer), exts, protocol.GroupConfig(true)))(t).Done()
	plan := must(protocol.PlanMembership(ctx, alice.inboxes, must(protocol.ParseGroupState(exts))(t).Membership, []string{alice.inboxID}, nil))(t)
	packages, _, err := alice.fetchKeyPackages(ctx, plan.Invited(m.installation()))
	check(t, err)
	response, err := m.node.FetchKeyPackages(ctx, &mlsapi.FetchKeyPackagesRequest{InstallationKeys: [][]byte{alice.installation.Bytes()}})
	check(t, err)
	actor := protocol.Actor{InboxID: alice.inboxID, Installation: alice.installation}
	packages[alice.installation] = must(protocol.CheckKeyPackage(response.KeyPackages[0].KeyPackageTlsSerialized, actor, time.Now()))(t)
	proposals, _, err := plan.Proposals(m.group.Extensions(), m.group.Members(), m.installation(), packages)
	check(t, err)
	made := must(m.group.Commit(mls.CommitOptions{Proposals: proposals, ByValueOnly: true}))(t).Done()
	m.publish(made.Message)
	must(m.group.MergeOwnCommit())(t).Done()
	welcome := must(protocol.WrapWelcome(made.Welcome, commit, alice.installation, must(packages[alice.installation].WelcomeWrapper())(t)))(t)
	sendWelcomes(t, alice, []*mlsapi.WelcomeMessageInput{welcome})
}

// Who lets somebody in can say of the log what he likes: it is read all the same.
func TestHostileWelcomes(t *testing.T) {
	t.Parallel()
	h := newHostile(t, startNode(t))
	ctx := t.Context()
	for name, commit := range map[string]uint64{"not told": 0, "far ahead": 1 << 60, "no number at all": 1<<64 - 1} {
		t.Run("the commit is "+name, func(t *testing.T) {
			m := newMallory(t, h.bob)
			m.invite(t, h.alice, protocol.NewGroup(m.inboxID), commit)
			m.say(envelope(encoded(*content.Text(name)), name))
			for range 2 {
				check(t, h.alice.Sync(ctx))
			}
			v := must(h.alice.Conversation(fmt.Sprintf("%x", m.group.ID())))(t)
			if got := texts(t, v); !slices.Equal(got, []string{name}) {
				t.Errorf("%q", got)
			}
			if commit == 1<<60 {
				if f, _ := find[JoinPointWrong](t, h.alice); f.AdderInboxID != m.inboxID || f.Claimed != commit {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}
