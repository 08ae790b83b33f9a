package xmtp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// clock is a time that a test moves.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// refusing is a wallet that must not be asked.
type refusing struct{ Signer }

func (refusing) SignText(context.Context, string) ([]byte, error) {
	return nil, errors.New("the wallet is locked")
}

func TestReopenedClientGoesOn(t *testing.T) {
	t.Parallel()
	url, path := startNode(t), filepath.Join(t.TempDir(), "alice.db")
	ctx := t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	bob := newClient(t, url)
	first := must(NewClient(ctx, signer, WithNode(url), WithDatabase(path)))(t)
	chat := must(first.DM(ctx, bob.Address()))(t)
	must(chat.SendText(ctx, "before"))(t)
	inbox, installation := first.InboxID(), first.InstallationID()
	check(t, first.Close())

	second := openClient(t, refusing{signer}, WithNode(url), WithDatabase(path))
	if second.InboxID() != inbox || second.InstallationID() != installation {
		t.Error("it is somebody else after reopening")
	}
	again := must(second.Conversation(chat.ID()))(t)
	must(again.SendText(ctx, "after"))(t)
	if got := texts(t, inConversation(t, bob, chat.ID())); !cmp.Equal(got, []string{"before", "after"}) {
		t.Errorf("bob reads %q", got)
	}
	if _, err := NewClient(ctx, signer, WithNode(url), WithDatabase(path)); !errors.Is(err, ErrInUse) {
		t.Errorf("a second client on the same database: %v", err)
	}
}

func TestDatabaseOfAnotherWallet(t *testing.T) {
	url, path := startNode(t), filepath.Join(t.TempDir(), "alice.db")
	first := must(NewClient(t.Context(), must(GeneratePrivateKeySigner())(t), WithNode(url), WithDatabase(path)))(t)
	check(t, first.Close())
	_, err := NewClient(t.Context(), must(GeneratePrivateKeySigner())(t), WithNode(url), WithDatabase(path))
	if !errors.Is(err, ErrOtherWallet) {
		t.Errorf("got %v", err)
	}
}

func TestAddressWithoutInbox(t *testing.T) {
	alice := newClient(t, startNode(t))
	nobody := must(GeneratePrivateKeySigner())(t).Address()
	if _, err := alice.DM(t.Context(), nobody); !errors.Is(err, ErrNoInbox) {
		t.Errorf("got %v", err)
	}
	if list := must(alice.Conversations(ConversationOptions{}))(t); len(list) != 0 {
		t.Errorf("%d conversations have come of it", len(list))
	}
}

func TestSecondInstallationIsLetIn(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	var time clock
	bob := newClient(t, url, WithClock(time.now))
	signer := must(GeneratePrivateKeySigner())(t)
	alice := openClient(t, signer, WithNode(url), InMemory())
	chat := must(bob.DM(ctx, alice.Address()))(t)
	must(chat.SendText(ctx, "to one device"))(t)
	second := openClient(t, signer, WithNode(url), InMemory())
	if second.InboxID() != alice.InboxID() || second.InstallationID() == alice.InstallationID() {
		t.Fatal("the second device is not one of the same inbox")
	}
	time.advance(checkBeforeSend + 1)
	must(chat.SendText(ctx, "to two devices"))(t)
	if got := texts(t, inConversation(t, second, chat.ID())); !cmp.Equal(got, []string{"to two devices"}) {
		t.Errorf("the second device reads %q", got)
	}
	if got := texts(t, inConversation(t, alice, chat.ID())); !cmp.Equal(got, []string{"to one device", "to two devices"}) {
		t.Errorf("the first device reads %q", got)
	}
}

func TestWhatCantBeUsedIsSkipped(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	garbage := make([]byte, 200)
	rand.Read(garbage)
	_, err := alice.node.MLS.SendWelcomeMessages(ctx, &mlsapi.SendWelcomeMessagesRequest{Messages: []*mlsapi.WelcomeMessageInput{{
		Version: &mlsapi.WelcomeMessageInput_V1_{V1: &mlsapi.WelcomeMessageInput_V1{
			InstallationKey:  bob.installation.Bytes(),
			Data:             garbage,
			HpkePublicKey:    garbage[:32],
			WrapperAlgorithm: mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_CURVE25519,
		}},
	}}})
	check(t, err)
	chat := must(alice.DM(ctx, bob.Address()))(t)
	must(chat.SendText(ctx, "one"))(t)

	// A PrivateMessage of the group in form, and nothing in content.
	state := must(chat.group.state())(t)
	message := []byte{0, 1, 0, 2, 16}
	message = append(message, state.ID()...)
	message = append(message, 0, 0, 0, 0, 0, 0, 0, byte(state.Epoch()), 1, 0, 32)
	message = append(message, garbage[:32]...)
	message = append(append(message, 50), garbage[:50]...)
	post(t, chat.group, message)
	must(chat.SendText(ctx, "two"))(t)

	if got := texts(t, inConversation(t, bob, chat.ID())); !cmp.Equal(got, []string{"one", "two"}) {
		t.Errorf("bob reads %q", got)
	}
	skipped := must(bob.Skipped())(t)
	var reasons []SkipReason
	for _, s := range skipped {
		reasons = append(reasons, s.Reason)
		if s.Number == 0 || s.Detail == "" || s.At.IsZero() {
			t.Errorf("incomplete: %+v", s)
		}
	}
	if want := []SkipReason{SkippedKey, SkippedDecryption}; !cmp.Equal(reasons, want) {
		t.Errorf("got %q, want %q\n%+v", reasons, want, skipped)
	}
}

func TestKeyPackageIsReplacedAfterAWelcome(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var time clock
	n := must(node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true, Now: time.now}))(t)
	t.Cleanup(func() { n.Close() })
	url := "http://" + n.Addr()
	alice := newClient(t, url)
	bob := newClient(t, url, WithClock(time.now), WithoutWorkers())
	served := func() []byte {
		response, err := alice.node.MLS.FetchKeyPackages(ctx, &mlsapi.FetchKeyPackagesRequest{InstallationKeys: [][]byte{bob.installation.Bytes()}})
		check(t, err)
		return response.KeyPackages[0].KeyPackageTlsSerialized
	}
	maintain := func() {
		t.Helper()
		must(bob.maintainKeyPackages(ctx))(t)
	}
	first := served()
	maintain()
	if !bytes.Equal(served(), first) {
		t.Error("replaced without need")
	}
	chat := must(alice.DM(ctx, bob.Address()))(t)
	inConversation(t, bob, chat.ID())
	maintain()
	if !bytes.Equal(served(), first) {
		t.Error("replaced at once: welcomes that are on their way use it, too")
	}
	time.advance(rotationDelay)
	maintain()
	if bytes.Equal(served(), first) {
		t.Error("not replaced after a welcome")
	}
	stored := func() (n int64) {
		check(t, bob.db.View(func(tx *store.Tx) error {
			_, err := tx.One("SELECT count(*) FROM key_packages", nil, func(r store.Row) { n = r.Int(0) })
			return err
		}))
		return n
	}
	if stored() != 2 {
		t.Errorf("%d key packages are kept", stored())
	}
	time.advance(keepReplaced)
	maintain()
	if stored() != 1 {
		t.Errorf("%d key packages are kept a day later", stored())
	}
	second := served()
	time.advance(rotationPeriod)
	maintain()
	if bytes.Equal(served(), second) {
		t.Error("not replaced after 30 days")
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	signer := must(GeneratePrivateKeySigner())(t)
	for name, list := range map[string][]Option{
		"no URL":              {WithNode("nowhere")},
		"a URL with a path":   {WithNode("http://localhost:1/path"), InMemory()},
		"another scheme":      {WithNode("ftp://localhost:1"), InMemory()},
		"a short key":         {WithKey(make([]byte, 16))},
		"key and no key":      {WithKey(make([]byte, 32)), WithoutEncryption()},
		"an empty path":       {WithDatabase("")},
		"a path that is none": {WithDatabase(filepath.Join(t.TempDir(), "\x00"))},
	} {
		if c, err := NewClient(t.Context(), signer, list...); err == nil {
			t.Errorf("%s: accepted", name)
			c.Close()
		}
	}
}

func TestWrongKeysOfAPrivateKeySigner(t *testing.T) {
	for _, key := range []string{
		"", "0x", "12", "zz", "0x" + "00000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
	} {
		if _, err := NewPrivateKeySigner(key); !errors.Is(err, ErrInvalidPrivateKey) {
			t.Errorf("%q: %v", key, err)
		}
	}
	signer := must(NewPrivateKeySigner("0x0000000000000000000000000000000000000000000000000000000000000001"))(t)
	if got := signer.Address(); got != "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf" {
		t.Errorf("address %s", got)
	}
}

// A pointer whose welcome is not there doesn't keep others waiting, and is
// followed when it is.
func TestPointerBeforeItsWelcome(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url), newClient(t, url, WithoutWorkers())
	// A commit of alice's whose welcome is not sent: it goes by a pointer instead.
	group := must(alice.NewGroup(ctx, GroupOptions{}))(t)
	check(t, group.group.acquire(ctx))
	state := must(group.group.state())(t)
	plan := must(protocol.PlanMembership(ctx, alice.inboxes, must(protocol.ParseGroupState(state.Extensions()))(t).Membership, []string{bob.InboxID()}, nil))(t)
	packages, _, err := alice.fetchKeyPackages(ctx, plan.Invited(alice.installation))
	check(t, err)
	proposals, _, err := plan.Proposals(state.Extensions(), state.Members(), alice.installation, packages)
	check(t, err)
	pending := must(state.Commit(mls.CommitOptions{Proposals: proposals, ByValueOnly: true}))(t)
	check(t, group.group.update(func(tx *store.Tx) error { return saveState(tx, group.group.id, pending.Changes()) }))
	commit := pending.Done()
	post(t, group.group, commit.Message)
	check(t, group.group.receive(ctx))
	group.group.release()
	row := must(group.group.row())(t)
	shared, pointer, err := protocol.ShareWelcome(commit.Welcome, row.Cursor)
	check(t, err)
	wrapper := must(packages[bob.installation].WelcomeWrapper())(t)
	send := func(m *mlsapi.WelcomeMessageInput) {
		_, err := alice.node.MLS.SendWelcomeMessages(ctx, &mlsapi.SendWelcomeMessagesRequest{Messages: []*mlsapi.WelcomeMessageInput{m}})
		check(t, err)
	}
	send(must(pointer.Wrap(bob.installation, wrapper))(t))
	chat := must(alice.DM(ctx, bob.Address()))(t)
	must(chat.SendText(ctx, "meanwhile"))(t)

	if got := texts(t, inConversation(t, bob, chat.ID())); !cmp.Equal(got, []string{"meanwhile"}) {
		t.Errorf("bob reads %q", got)
	}
	if _, err := bob.Conversation(group.ID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("the group: %v", err)
	}
	send(shared)
	must(group.SendText(ctx, "welcome"))(t)
	if got := texts(t, inConversation(t, bob, group.ID())); !cmp.Equal(got, []string{"welcome"}) {
		t.Errorf("bob reads %q", got)
	}
}

// Who sends before he has read of his removal is told that it came to nothing.
func TestMessageAfterTheSenderWasRemoved(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t)
	b := inConversation(t, bob, a.ID())
	must(b.SendText(ctx, "here"))(t)
	check(t, a.RemoveMembers(ctx, bob.InboxID()))
	m, err := b.SendText(ctx, "still here")
	if !errors.Is(err, ErrRefused) || !errors.Is(err, ErrRemoved) || m == nil || m.Delivery != Failed {
		t.Errorf("%v, %+v", err, m)
	}
	check(t, a.AddMembers(ctx, bob.InboxID()))
	b = inConversation(t, bob, a.ID())
	must(b.SendText(ctx, "back"))(t)
	check(t, a.Sync(ctx))
	if got := texts(t, a); !cmp.Equal(got, []string{"here", "back"}) {
		t.Errorf("alice reads %q", got)
	}
}

// Who sends without having read of three commits is understood: it is one message, of
// one time, for all. After four it is sent again.
func TestMessageOfAPastEpoch(t *testing.T) {
	t.Parallel()
	url, ctx := startNode(t), t.Context()
	for _, commits := range []int{3, 4} {
		alice := newClient(t, url, WithoutWorkers())
		var others []*Client
		var ids []string
		for range commits {
			others = append(others, newClient(t, url, WithoutWorkers()))
			ids = append(ids, others[len(others)-1].InboxID())
		}
		v := must(alice.NewGroup(ctx, GroupOptions{}, ids...))(t)
		for _, c := range others {
			check(t, inConversation(t, c, v.ID()).UpdateKeys(ctx))
		}
		sent := must(v.SendText(ctx, "what have I missed?"))(t)
		for i, c := range others {
			check(t, c.Sync(ctx))
			if got := must(c.Message(sent.ID))(t); !got.SentAt.Equal(sent.SentAt) {
				t.Errorf("%d commits: member %d has it of %v, the sender of %v", commits, i, got.SentAt, sent.SentAt)
			}
		}
	}
}

// post publishes what the client didn't make.
func post(t *testing.T, g *group, data []byte) {
	t.Helper()
	_, err := g.send(t.Context(), 0, []*mlsapi.GroupMessageInput{groupInput(&store.Intent{Payload: data}, false)})
	check(t, err)
}
