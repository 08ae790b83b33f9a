package xmtp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node"
)

// installationsOf returns the ids of an inbox's installations, in the order in which
// they were added, as the node tells them to somebody without a client.
func installationsOf(t *testing.T, url, inboxID string) (ids []string) {
	t.Helper()
	states := must(InboxStates(t.Context(), []string{inboxID}, WithNode(url)))(t)
	for _, i := range states[0].Installations {
		ids = append(ids, i.ID)
	}
	return ids
}

func updatesOf(t *testing.T, url, inboxID string) int {
	t.Helper()
	return must(InboxStates(t.Context(), []string{inboxID}, WithNode(url)))(t)[0].Updates
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	var devices []*Client
	var ids []string
	for range 6 {
		c := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
		devices, ids = append(devices, c), append(ids, c.InstallationID())
	}
	first, inbox := devices[0], devices[0].InboxID()
	left := func(what string, updates int, want ...string) {
		t.Helper()
		if got := installationsOf(t, url, inbox); !slices.Equal(got, want) {
			t.Errorf("%s: left are %v, not %v", what, got, want)
		}
		if n := updatesOf(t, url, inbox); n != updates {
			t.Errorf("%s: %d updates, not %d", what, n, updates)
		}
	}
	unknown := strings.Repeat("ab", 32)
	check(t, first.RevokeInstallations(ctx, signer, strings.ToUpper(ids[1])))
	left("one", 7, ids[0], ids[2], ids[3], ids[4], ids[5])
	check(t, first.RevokeInstallations(ctx, signer, ids[2], unknown, ids[1], ids[3], ids[2]))
	left("several", 8, ids[0], ids[4], ids[5])
	check(t, first.RevokeInstallations(ctx, refusing{signer}, unknown, ids[1]))
	check(t, first.RevokeInstallations(ctx, refusing{signer}))
	left("none", 8, ids[0], ids[4], ids[5])
	check(t, RevokeInstallations(ctx, signer, inbox, []string{ids[4]}, WithNode(url)))
	left("without a client", 9, ids[0], ids[5])
	check(t, devices[5].RevokeInstallations(ctx, signer, ids[5]))
	left("oneself", 10, ids[0])
	check(t, first.RevokeOtherInstallations(ctx, refusing{signer}))
	openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	check(t, first.RevokeOtherInstallations(ctx, signer))
	left("all others", 13, ids[0])

	stranger := must(GeneratePrivateKeySigner())(t)
	last := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	for name, c := range map[string]struct{ err, want error }{
		"somebody else's":            {first.RevokeInstallations(ctx, stranger, last.InstallationID()), ErrNotRecovery},
		"somebody else's others":     {first.RevokeOtherInstallations(ctx, stranger), ErrNotRecovery},
		"somebody else's, no client": {RevokeInstallations(ctx, stranger, inbox, []string{ids[0]}, WithNode(url)), ErrNotRecovery},
		"no inbox":                   {RevokeInstallations(ctx, signer, unknown, []string{ids[0]}, WithNode(url)), ErrNoInbox},
		"by one that was revoked":    {devices[5].RevokeOtherInstallations(ctx, signer), ErrRevoked},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	for _, id := range []string{"", "xyz", ids[0][2:], "0x" + ids[0]} {
		if first.RevokeInstallations(ctx, signer, id) == nil || RevokeInstallations(ctx, signer, inbox, []string{id}, WithNode(url)) == nil {
			t.Errorf("%q was revoked", id)
		}
	}
	if RevokeInstallations(ctx, signer, "alice", []string{ids[0]}, WithNode(url)) == nil {
		t.Error("no inbox id")
	}
	left("what is refused", 14, ids[0], last.InstallationID())
}

// From the error at the limit one can go on.
func TestInstallationLimit(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	began := time.Now()
	var ids []string
	for range identity.MaxInstallations {
		ids = append(ids, openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers()).InstallationID())
	}
	_, err := NewClient(ctx, refusing{signer}, WithNode(url), InMemory())
	limit := new(InstallationLimitError)
	if !errors.As(err, &limit) || !errors.Is(err, ErrTooManyInstallations) || !errors.Is(err, identity.ErrInstallationLimit) {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), "has already registered 10/10 installations. Please revoke existing installations first.") {
		t.Errorf("text: %v", err)
	}
	var named []string
	for _, i := range limit.Installations {
		named = append(named, i.ID)
		if i.AddedAt.Before(began.Add(-time.Second)) || i.AddedAt.After(time.Now()) || i.AddedBy.String() != signer.Address() {
			t.Errorf("installation %+v", i)
		}
	}
	if !slices.Equal(named, ids) {
		t.Errorf("named are %v, not %v", named, ids)
	}
	if err := limit.Revoke(ctx, must(GeneratePrivateKeySigner())(t), named[0]); !errors.Is(err, ErrNotRecovery) {
		t.Errorf("somebody else's: %v", err)
	}
	check(t, limit.Revoke(ctx, signer, named[0], named[4]))
	next := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	if next.InboxID() != limit.InboxID {
		t.Error("another inbox")
	}
	want := append(slices.Delete(slices.Clone(ids[1:]), 3, 4), next.InstallationID())
	if got := installationsOf(t, url, limit.InboxID); !slices.Equal(got, want) {
		t.Errorf("left are %v, not %v", got, want)
	}
	// One more, and the next one takes a place.
	openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	never := WithReplacing(func(Installation) bool { return false })
	if _, err := NewClient(ctx, signer, WithNode(url), InMemory(), never); !errors.As(err, &limit) {
		t.Errorf("replacing nothing: %v", err)
	}
	before := updatesOf(t, url, limit.InboxID)
	oldest := WithReplacing(func(i Installation) bool { return i.ID == ids[1] })
	replacing := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers(), oldest)
	got := installationsOf(t, url, limit.InboxID)
	if len(got) != identity.MaxInstallations || slices.Contains(got, ids[1]) || !slices.Contains(got, replacing.InstallationID()) || updatesOf(t, url, limit.InboxID) != before+1 {
		t.Errorf("after replacing one: %v", got)
	}
}

// records keeps what is logged at a level.
func records(level slog.Level) (*slog.Logger, func() string) {
	var mu sync.Mutex
	var buffer bytes.Buffer
	write := writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return buffer.Write(b)
	})
	return slog.New(slog.NewTextHandler(write, &slog.HandlerOptions{Level: level})), func() string {
		mu.Lock()
		defer mu.Unlock()
		return buffer.String()
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// A bot that loses its database a hundred times, or a sample of that, has one
// installation in the end, and each time no more than one, and is read and reads.
func TestDatabaseLostAHundredTimes(t *testing.T) {
	t.Parallel()
	losses := 10
	if proof {
		losses = 100
	}
	url := startNode(t)
	ctx := t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	bob := newClient(t, url, WithoutWorkers())
	logger, warned := records(slog.LevelWarn)
	all := WithReplacing(func(Installation) bool { return true })
	open := func() *Client {
		t.Helper()
		return must(NewClient(ctx, signer, WithNode(url), InMemory(), WithoutWorkers(), WithLogger(logger), all))(t)
	}
	bot := open()
	inbox := bot.InboxID()
	chat := must(bob.DM(ctx, inbox))(t)
	for n := range losses {
		check(t, bot.Close())
		bot = open()
		if bot.InboxID() != inbox {
			t.Fatal("another inbox")
		}
		if got := installationsOf(t, url, inbox); !slices.Equal(got, []string{bot.InstallationID()}) {
			t.Fatalf("after %d losses: %v", n+1, got)
		}
		if n%10 != 9 {
			continue
		}
		check(t, chat.group.refresh(ctx)) // as before a message after 5 s
		must(chat.SendText(ctx, "to the bot"))(t)
		there := inConversation(t, bot, chat.ID())
		must(there.SendText(ctx, "from the bot"))(t)
		if got := texts(t, there); !cmp.Equal(got, []string{"to the bot", "from the bot"}) {
			t.Errorf("the bot reads %q", got)
		}
		check(t, chat.Sync(ctx))
		if got := texts(t, chat); got[len(got)-1] != "from the bot" {
			t.Errorf("bob reads %q", got)
		}
	}
	state := must(bot.InboxStates(ctx, inbox))(t)[0]
	if state.Updates != 1+losses || state.UpdatesLeft() != MaxInboxUpdates-1-losses || state.NearlyFull() || warned() != "" {
		t.Errorf("%d updates, %d left, nearly full: %v, logged: %q", state.Updates, state.UpdatesLeft(), state.NearlyFull(), warned())
	}
	if !proof {
		check(t, bot.Close())
		return
	}
	for range 98 {
		check(t, bot.AddIdentifier(ctx, must(GeneratePrivateKeySigner())(t)))
	}
	if warned() != "" {
		t.Errorf("logged after 199 updates: %q", warned())
	}
	check(t, bot.AddIdentifier(ctx, must(GeneratePrivateKeySigner())(t)))
	if text := warned(); strings.Count(text, "updates=200 left=56") != 1 {
		t.Errorf("logged after 200 updates: %q", text)
	}
	if state = must(bot.InboxStates(ctx, inbox))(t)[0]; !state.NearlyFull() || state.UpdatesLeft() != 56 || len(state.Installations) != 1 {
		t.Errorf("%d updates, %d left, nearly full: %v", state.Updates, state.UpdatesLeft(), state.NearlyFull())
	}
	for range 55 {
		check(t, bot.AddIdentifier(ctx, must(GeneratePrivateKeySigner())(t)))
	}
	check(t, bot.Close())
	bot = open()
	check(t, bot.Close())
	if _, err := NewClient(ctx, refusing{signer}, WithNode(url), InMemory(), all); !errors.Is(err, ErrInboxLogFull) {
		t.Errorf("after 256 updates: %v", err)
	}
	if got := installationsOf(t, url, inbox); !slices.Equal(got, []string{bot.InstallationID()}) {
		t.Errorf("in the end: %v", got)
	}
}

// From 200 updates on there is a warning, once.
func TestInboxNearlyFull(t *testing.T) {
	url := startNode(t)
	logger, warned := records(slog.LevelWarn)
	c := must(NewClient(t.Context(), must(GeneratePrivateKeySigner())(t), WithNode(url), InMemory(), WithoutWorkers(), WithLogger(logger)))(t)
	defer c.Close()
	log := must(c.inboxes.known(c.InboxID()))(t)
	for len(log.numbers) < MaxInboxUpdates {
		last := len(log.numbers) - 1
		log = &inboxLog{
			numbers: append(log.numbers, log.numbers[last]+1),
			times:   append(log.times, log.times[last]),
			states:  append(log.states, log.states[last]),
		}
		c.inboxes.keep(c.InboxID(), log)
		c.noteUpdates()
		n := len(log.numbers)
		state := newInboxState(log)
		if state.UpdatesLeft() != 256-n || state.NearlyFull() != (n >= 200) || strings.Contains(warned(), "updates=200 left=56") != (n >= 200) {
			t.Fatalf("%d updates: %d left, nearly full: %v, logged: %q", n, state.UpdatesLeft(), state.NearlyFull(), warned())
		}
	}
	if lines := strings.Count(warned(), "\n"); lines != 1 {
		t.Errorf("%d warnings", lines)
	}
}

// Which ones are lost says the program.
func TestReplacing(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	var clock clock
	phone := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	clock.advance(time.Hour)
	deployed := clock.now()
	lost := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers(), WithClock(clock.now))
	inbox := phone.InboxID()

	newer := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers(), WithReplacing(func(i Installation) bool { return !i.AddedAt.Before(deployed) }))
	if got := installationsOf(t, url, inbox); !slices.Equal(got, []string{phone.InstallationID(), newer.InstallationID()}) {
		t.Errorf("those since an hour were replaced: %v", got)
	}
	if !must(lost.IsRevoked(ctx))(t) || must(phone.IsRevoked(ctx))(t) {
		t.Error("another one was revoked")
	}
	if history := must(phone.InboxHistory(ctx, inbox))(t); len(history) != 3 || len(history[2].Added) != 1 || len(history[2].Removed) != 1 {
		t.Errorf("it was not one update: %+v", history[2:])
	}
	// A wallet that isn't the recovery identifier can't.
	second := must(GeneratePrivateKeySigner())(t)
	check(t, phone.AddIdentifier(ctx, second))
	all := WithReplacing(func(Installation) bool { return true })
	if _, err := NewClient(ctx, refusing{second}, WithNode(url), InMemory(), all); !errors.Is(err, ErrNotRecovery) {
		t.Errorf("got %v", err)
	}
	// It isn't asked if there is nothing to replace, or no need.
	ask := WithReplacing(func(Installation) bool { t.Error("asked"); return true })
	openClient(t, must(GeneratePrivateKeySigner())(t), WithNode(url), InMemory(), WithoutWorkers(), ask)
	path := WithDatabase(t.TempDir() + "/client.db")
	c := must(NewClient(ctx, signer, WithNode(url), path, WithoutWorkers()))(t)
	check(t, c.Close())
	check(t, openClient(t, refusing{signer}, WithNode(url), path, WithoutWorkers(), ask).Sync(ctx))
	if _, err := NewClient(ctx, signer, WithReplacing(nil)); err == nil {
		t.Error("nobody says which")
	}
}

// What a revoked installation can do is what those of official clients can.
func TestRevokedInstallation(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	var clock clock
	logger, warned := records(slog.LevelWarn)
	phone := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers(), WithClock(clock.now))
	laptop := must(NewClient(ctx, signer, WithNode(url), InMemory(), WithoutWorkers(), WithClock(clock.now), WithLogger(logger)))(t)
	defer laptop.Close()
	bob := newClient(t, url, WithoutWorkers(), WithClock(clock.now))
	b := must(bob.NewGroup(ctx, GroupOptions{}, phone.InboxID()))(t)
	must(b.SendText(ctx, "to both"))(t)
	p, l := inConversation(t, phone, b.ID()), inConversation(t, laptop, b.ID())
	must(l.SendText(ctx, "from the laptop"))(t)
	if must(laptop.IsRevoked(ctx))(t) {
		t.Error("revoked before it is")
	}

	check(t, phone.RevokeInstallations(ctx, signer, laptop.InstallationID()))
	// It goes on until somebody acts, although it knows.
	clock.advance(checkBeforeSend + 1)
	must(l.SendText(ctx, "not noticed"))(t)
	if !must(laptop.IsRevoked(ctx))(t) || strings.Count(warned(), "revoked") != 1 {
		t.Errorf("not noticed; logged: %q", warned())
	}
	if _, err := laptop.NewGroup(ctx, GroupOptions{}, bob.InboxID()); !errors.Is(err, ErrRefused) || !errors.Is(err, ErrRevoked) {
		t.Errorf("a new group: %v", err)
	}
	check(t, l.SetName(ctx, "not noticed either"))
	must(b.SendText(ctx, "without the laptop"))(t)
	check(t, l.Sync(ctx))
	if _, err := l.SendText(ctx, "still here?"); !errors.Is(err, ErrRemoved) || !errors.Is(err, ErrRevoked) {
		t.Errorf("sending: %v", err)
	}
	if must(l.IsActive())(t) {
		t.Error("active")
	}
	want := []string{"to both", "from the laptop", "not noticed"}
	if got := texts(t, l); !cmp.Equal(got, want) {
		t.Errorf("the laptop reads %q", got)
	}
	check(t, p.Sync(ctx))
	if got := texts(t, p); !cmp.Equal(got, append(want, "without the laptop")) {
		t.Errorf("the phone reads %q", got)
	}
	sameEpoch(t, p, b)
	if members := must(b.Members(ctx))(t); len(members) != 2 {
		t.Errorf("members: %+v", members)
	}
	// Whose inbox is removed is not revoked.
	check(t, b.RemoveMembers(ctx, phone.InboxID()))
	check(t, p.Sync(ctx))
	if _, err := p.SendText(ctx, "still here?"); !errors.Is(err, ErrRemoved) || errors.Is(err, ErrRevoked) {
		t.Errorf("sending after a removal: %v", err)
	}
}

// Two devices revoke each other at once: that leaves none, and a new one can come.
func TestDevicesRevokeEachOther(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	phone := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	laptop := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	// Both have looked at the inbox before either of them signs.
	var both sync.WaitGroup
	both.Add(2)
	meeting := WalletSigner(signer.Address(), func(ctx context.Context, text string) ([]byte, error) {
		both.Done()
		both.Wait()
		return signer.SignText(ctx, text)
	})
	var calls sync.WaitGroup
	for _, c := range []*Client{phone, laptop} {
		calls.Go(func() {
			if err := c.RevokeOtherInstallations(ctx, meeting); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if !must(phone.IsRevoked(ctx))(t) || !must(laptop.IsRevoked(ctx))(t) {
		t.Error("one is left")
	}
	tablet := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	if got := installationsOf(t, url, phone.InboxID()); !slices.Equal(got, []string{tablet.InstallationID()}) {
		t.Errorf("there are %v", got)
	}
	// Both the same third one: once is enough.
	phone = openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	laptop = openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	for _, c := range []*Client{phone, laptop} {
		calls.Go(func() {
			if err := c.RevokeInstallations(ctx, signer, tablet.InstallationID()); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if got := installationsOf(t, url, phone.InboxID()); !slices.Equal(got, []string{phone.InstallationID(), laptop.InstallationID()}) {
		t.Errorf("there are %v", got)
	}
}

// An installation whose key package can't be used when its inbox is added stays out
// until the inbox is removed and added again, as with official clients.
func TestInstallationOutOfReach(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var clock clock
	n := must(node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true, Now: clock.now}))(t)
	t.Cleanup(func() { n.Close() })
	url := "http://" + n.Addr()
	signer := must(GeneratePrivateKeySigner())(t)
	phone := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers(), WithClock(clock.now))
	clock.advance(100 * 24 * time.Hour) // the phone was off
	laptop := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers(), WithClock(clock.now))
	alice := newClient(t, url, WithoutWorkers(), WithClock(clock.now))
	a := must(alice.NewGroup(ctx, GroupOptions{}, laptop.InboxID()))(t)
	unreachable := func(want ...string) {
		t.Helper()
		members := must(a.Members(ctx))(t)
		m := members[slices.IndexFunc(members, func(m Member) bool { return m.InboxID == laptop.InboxID() })]
		if !slices.Equal(m.Unreachable, want) || len(m.InstallationIDs) < 2 {
			t.Errorf("%+v", m)
		}
	}
	unreachable(phone.InstallationID())
	must(phone.maintainKeyPackages(ctx))(t) // it is on again
	clock.advance(checkOnSync + 1)
	check(t, a.Sync(ctx))
	must(a.SendText(ctx, "to the laptop"))(t)
	unreachable(phone.InstallationID())
	check(t, phone.Sync(ctx))
	if list := must(phone.Conversations(ConversationOptions{}))(t); len(list) != 0 {
		t.Errorf("the phone has %d conversations", len(list))
	}
	// A further installation comes in; the phone doesn't.
	tablet := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers(), WithClock(clock.now))
	clock.advance(checkBeforeSend + 1)
	must(a.SendText(ctx, "to the tablet"))(t)
	unreachable(phone.InstallationID())
	check(t, a.RemoveMembers(ctx, laptop.InboxID()))
	check(t, a.AddMembers(ctx, laptop.InboxID()))
	must(a.SendText(ctx, "to all"))(t)
	unreachable()
	for name, c := range map[string]*Client{"phone": phone, "laptop": laptop, "tablet": tablet} {
		v := inConversation(t, c, a.ID())
		if got := texts(t, v); got[len(got)-1] != "to all" {
			t.Errorf("the %s reads %q", name, got)
		}
		sameEpoch(t, a, v)
	}
	// And it can be removed like all others.
	check(t, laptop.RevokeInstallations(ctx, signer, phone.InstallationID()))
	clock.advance(checkBeforeSend + 1)
	must(a.SendText(ctx, "without the phone"))(t)
	p := must(phone.Conversation(a.ID()))(t)
	check(t, p.Sync(ctx))
	if got := texts(t, p); got[len(got)-1] != "to all" || must(p.IsActive())(t) {
		t.Errorf("the phone reads %q", got)
	}
	sameEpoch(t, a, inConversation(t, laptop, a.ID()), inConversation(t, tablet, a.ID()))
}

// Members' installations are looked at when official clients do: before a message if
// that is more than 5 s ago, on syncing a conversation if more than 30 minutes.
func TestWhenInstallationsAreLookedAt(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	var clock clock
	bob, alice := newClient(t, url, WithoutWorkers(), WithClock(clock.now)), newClient(t, url, WithoutWorkers())
	v := must(bob.NewGroup(ctx, GroupOptions{}, alice.InboxID()))(t)
	// looked tells whether something has made the group know the newest update of
	// alice's inbox, and lets another one follow.
	looked := func(what string, want bool) {
		t.Helper()
		state := must(v.groupState(ctx))(t)
		if got := state.Membership.Members[alice.InboxID()] == must(alice.InboxStates(ctx, alice.InboxID()))(t)[0].SequenceID; got != want {
			t.Errorf("%s: looked: %v", what, got)
		}
		check(t, alice.AddIdentifier(ctx, must(GeneratePrivateKeySigner())(t)))
	}
	looked("creating", true)
	must(v.SendText(ctx, "at once"))(t)
	looked("the first message", true)
	must(v.SendText(ctx, "at once again"))(t)
	looked("another message", false)
	clock.advance(checkBeforeSend - time.Second)
	must(v.SendText(ctx, "4 s later"))(t)
	looked("a message after 4 s", false)
	clock.advance(2 * time.Second)
	must(v.SendText(ctx, "6 s later"))(t)
	looked("a message after 6 s", true)
	clock.advance(checkOnSync - time.Minute)
	check(t, v.Sync(ctx))
	looked("a sync after 29 minutes", false)
	clock.advance(2 * time.Minute)
	check(t, bob.Sync(ctx))
	looked("a sync of all without news", false)
	check(t, v.Sync(ctx))
	looked("a sync after 31 minutes", true)
	check(t, v.SetName(ctx, "name"))
	looked("a new name", false)
	check(t, v.AddMembers(ctx, newClient(t, url, WithoutWorkers()).InboxID()))
	looked("adding somebody", true)
	clock.advance(checkOnSync + time.Second)
	must(inConversation(t, alice, v.ID()).SendText(ctx, "news"))(t)
	check(t, alice.AddIdentifier(ctx, must(GeneratePrivateKeySigner())(t)))
	check(t, bob.Sync(ctx))
	looked("a sync of all with news", true)
}
