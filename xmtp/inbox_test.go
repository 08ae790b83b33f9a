package xmtp

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
)

func TestInboxStates(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	signer, second, passkey := newSigner(t), newSigner(t), newPasskey(t, true)
	first := time.Now().Truncate(time.Second)
	file := WithDatabase(filepath.Join(t.TempDir(), "alice.db"))
	alice, err := NewClient(ctx, signer, WithNode(url), file)
	check(t, err)
	t.Cleanup(func() { alice.Close() })
	bob := newClient(t, url)
	if _, err := bob.StoredInboxStates(alice.InboxID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("an inbox that bob has not heard of: %v", err)
	}
	was := must(bob.InboxStates(ctx, alice.InboxID()))(t)[0]
	check(t, alice.AddIdentifier(ctx, second))
	check(t, alice.AddIdentifier(ctx, passkey))
	phone := openClient(t, second, WithNode(url), InMemory())
	check(t, alice.ChangeRecovery(ctx, signer, passkey.Address()))

	states := must(bob.InboxStates(ctx, bob.InboxID(), alice.InboxID(), bob.InboxID()))(t)
	if len(states) != 3 || states[0].InboxID != bob.InboxID() || states[2].InboxID != bob.InboxID() {
		t.Fatalf("states: %+v", states)
	}
	s := states[1]
	same(t, "inbox", s.InboxID, alice.InboxID())
	same(t, "recovery", s.Recovery.String(), passkey.Address())
	same(t, "updates", s.Updates, 5)
	var order []string
	for _, m := range s.Identifiers {
		order = append(order, m.Identifier.String())
	}
	same(t, "identifiers", order, []string{second.Address(), passkey.Address(), signer.Address()})
	same(t, "kind of the passkey", s.Identifiers[1].Identifier.Kind(), identity.KindPasskey)
	same(t, "who added the wallet", s.Identifiers[0].AddedBy.String(), alice.InstallationID())
	same(t, "relying party", s.Identifiers[1].RelyingParty, "https://example.org")
	same(t, "number of installations", len(s.Installations), 2)
	for i, want := range []struct{ id, by string }{{alice.InstallationID(), signer.Address()}, {phone.InstallationID(), second.Address()}} {
		got := s.Installations[i]
		same(t, "installation", got.ID, want.id)
		same(t, "added by", got.AddedBy.String(), want.by)
		if got.AddedAt.Before(first) || got.AddedAt.After(first.Add(time.Hour)) {
			t.Errorf("added at %v", got.AddedAt)
		}
	}
	same(t, "alice of herself", must(alice.InboxStates(ctx, alice.InboxID()))(t)[0].Fingerprint(), s.Fingerprint())
	if s.Fingerprint() == was.Fingerprint() {
		t.Error("a new installation does not show")
	}

	// What was heard is there without the node, also later.
	check(t, alice.Close())
	alice, err = NewClient(ctx, signer, WithNode("http://127.0.0.1:1"), file)
	check(t, err)
	check(t, alice.inboxes.node.Close())
	same(t, "as stored", must(alice.StoredInboxStates(s.InboxID))(t)[0].Fingerprint(), s.Fingerprint())

	history := must(bob.InboxHistory(ctx, s.InboxID))(t)
	type entry struct {
		added    []string
		recovery string
	}
	var got []entry
	for _, u := range history {
		e := entry{recovery: u.Recovery.String()}
		for _, m := range u.Added {
			e.added = append(e.added, m.Identifier.String())
		}
		got = append(got, e)
		if len(u.Removed) != 0 || u.At.Before(first) {
			t.Errorf("removed %v at %v", u.Removed, u.At)
		}
	}
	want := []entry{
		{[]string{s.Installations[0].ID, signer.Address()}, signer.Address()},
		{[]string{second.Address()}, signer.Address()},
		{[]string{passkey.Address()}, signer.Address()},
		{[]string{phone.InstallationID()}, signer.Address()},
		{nil, passkey.Address()},
	}
	same(t, "history", fmt.Sprint(got), fmt.Sprint(want))
	same(t, "newest", history[4].SequenceID, s.SequenceID)
	check(t, phone.RemoveIdentifier(ctx, passkey, second.Address()))
	history = must(bob.InboxHistory(ctx, s.InboxID))(t)
	same(t, "removed", fmt.Sprint(history[5].Removed), fmt.Sprint([]string{second.Address(), phone.InstallationID()}))
}

func TestNoSuchInbox(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	c := newClient(t, url)
	nobody := strings.Repeat("0", 64)
	for name, ask := range map[string]func() error{
		"states":     func() error { _, err := c.InboxStates(ctx, c.InboxID(), nobody); return err },
		"history":    func() error { _, err := c.InboxHistory(ctx, nobody); return err },
		"authorized": func() error { _, err := c.IsAuthorized(ctx, nobody, c.Address()); return err },
		"static":     func() error { _, err := InboxStates(ctx, []string{nobody}, WithNode(url)); return err },
	} {
		if err := ask(); !errors.Is(err, ErrNoInbox) || !strings.Contains(err.Error(), nobody) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.InboxStates(ctx, strings.ToUpper(c.InboxID())); !errors.Is(err, identity.ErrInvalidInboxID) {
		t.Errorf("no inbox id: %v", err)
	}
	if _, err := c.InboxIDs(ctx, c.Address(), "0x12"); !errors.Is(err, identity.ErrInvalidAddress) {
		t.Errorf("no address: %v", err)
	}
	if _, err := InboxIDs(ctx, nil, WithNode("nowhere")); err == nil {
		t.Error("a node that is none")
	}
	if _, err := NewestMessages(ctx, []string{"12"}, WithNode(url)); err == nil {
		t.Error("an id that is none")
	}
}

func TestLookUps(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	signer, passkey := newSigner(t), newPasskey(t, false)
	alice := openClient(t, signer, WithNode(url), InMemory())
	check(t, alice.AddIdentifier(ctx, passkey))
	bob, nobody := newClient(t, url), newSigner(t).Address()
	upper := "0x" + strings.ToUpper(signer.Address()[2:])
	ask := []string{upper, nobody, "0x" + passkey.Address(), bob.Address()}
	ids := map[string]string{signer.Address(): alice.InboxID(), passkey.Address(): alice.InboxID(), bob.Address(): bob.InboxID()}
	can := map[string]bool{signer.Address(): true, passkey.Address(): true, bob.Address(): true, nobody: false}
	node := WithNode(url)
	same(t, "inbox ids", must(bob.InboxIDs(ctx, ask...))(t), ids)
	same(t, "inbox ids without a client", must(InboxIDs(ctx, ask, node))(t), ids)
	same(t, "can message", must(bob.CanMessage(ctx, ask...))(t), can)
	same(t, "can message without a client", must(CanMessage(ctx, ask, node))(t), can)
	same(t, "state without a client", must(InboxStates(ctx, []string{alice.InboxID()}, node))(t)[0].Fingerprint(),
		must(alice.StoredInboxStates(alice.InboxID()))(t)[0].Fingerprint())
	same(t, "history without a client", len(must(InboxHistory(ctx, alice.InboxID(), node))(t)), 2)
	for _, c := range []struct {
		member string
		want   bool
	}{
		{upper, true}, {passkey.Address(), true}, {alice.InstallationID(), true}, {strings.ToUpper(alice.InstallationID()), true},
		{nobody, false}, {bob.InstallationID(), false}, {"", false}, {"nonsense", false}, {alice.InboxID(), false},
	} {
		same(t, "authorized "+c.member, must(bob.IsAuthorized(ctx, alice.InboxID(), c.member))(t), c.want)
		same(t, "authorized "+c.member, must(IsAuthorized(ctx, alice.InboxID(), c.member, node))(t), c.want)
	}
	many := make([]string, 1001) // more than in one call
	for i := range many {
		many[i] = fmt.Sprintf("0x%040x", i)
	}
	same(t, "many", must(bob.InboxIDs(ctx, append(many, bob.Address())...))(t), map[string]string{bob.Address(): bob.InboxID()})

	chat := must(alice.DM(ctx, bob.Address()))(t)
	sent := must(chat.SendText(ctx, "hello"))(t)
	newest := must(NewestMessages(ctx, []string{strings.Repeat("00", 16), chat.ID()}, node))(t)
	if len(newest) != 1 || !newest[chat.ID()].At.Equal(sent.SentAt) || newest[chat.ID()].SequenceID == 0 {
		t.Errorf("newest: %v, sent at %v", newest, sent.SentAt)
	}
}

// A node that tells the log of another inbox, or one that breaks the rules, is not believed.
func TestInvalidInbox(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	alice, bob := newClient(t, url), newClient(t, url)
	x := newInboxes(nil, alice.node)
	lying := *alice.node
	lying.Identity = liar{alice.node.Identity, bob.InboxID()}
	x.node = &lying
	if _, err := x.current(ctx, []string{alice.InboxID()}); !errors.Is(err, ErrInvalidInbox) || !errors.Is(err, identity.ErrForeignLog) {
		t.Errorf("got %v", err)
	}
}

// liar tells of one inbox whatever is asked.
type liar struct {
	identityapi.IdentityApiClient
	inbox string
}

func (l liar) GetIdentityUpdates(ctx context.Context, r *identityapi.GetIdentityUpdatesRequest, o ...grpc.CallOption) (*identityapi.GetIdentityUpdatesResponse, error) {
	asked := r.Requests[0].InboxId
	r.Requests[0].InboxId = l.inbox
	answer, err := l.IdentityApiClient.GetIdentityUpdates(ctx, r, o...)
	if err == nil {
		answer.Responses[0].InboxId = asked
	}
	return answer, err
}

// deaf takes updates and forgets them.
type deaf struct {
	identityapi.IdentityApiClient
	published int
}

func (d *deaf) GetIdentityUpdates(_ context.Context, r *identityapi.GetIdentityUpdatesRequest, _ ...grpc.CallOption) (*identityapi.GetIdentityUpdatesResponse, error) {
	answer := &identityapi.GetIdentityUpdatesResponse{}
	for _, q := range r.Requests {
		answer.Responses = append(answer.Responses, &identityapi.GetIdentityUpdatesResponse_Response{InboxId: q.InboxId})
	}
	return answer, nil
}

func (d *deaf) PublishIdentityUpdate(context.Context, *identityapi.PublishIdentityUpdateRequest, ...grpc.CallOption) (*identityapi.PublishIdentityUpdateResponse, error) {
	d.published++
	return &identityapi.PublishIdentityUpdateResponse{}, nil
}

// An update that nobody can see was not made, and one too many is not signed.
func TestInboxUpdateLimits(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	signer := newSigner(t)
	c := openClient(t, signer, WithNode(url), InMemory(), WithoutWorkers())
	lost := &deaf{IdentityApiClient: c.node.Identity}
	c.node.Identity = lost
	err := c.ChangeRecovery(ctx, signer, newSigner(t).Address())
	if err == nil || lost.published != 1 {
		t.Errorf("an update that the node doesn't show: %v, published: %d", err, lost.published)
	}
	log := must(c.inboxes.known(c.InboxID()))(t)
	full := &inboxLog{}
	for i := range MaxInboxUpdates {
		full.numbers = append(full.numbers, uint64(1000+i))
		full.times = append(full.times, log.times[0]+uint64(i))
		full.states = append(full.states, log.states[0])
	}
	c.inboxes.keep(c.InboxID(), full)
	asked := WalletSigner(signer.Address(), func(context.Context, string) ([]byte, error) {
		t.Error("the wallet was asked")
		return nil, errors.New("no")
	})
	if err := c.ChangeRecovery(ctx, asked, newSigner(t).Address()); !errors.Is(err, ErrInboxLogFull) {
		t.Errorf("one too many: %v", err)
	}
	same(t, "published", lost.published, 1)
}

// Addresses and passkeys are told apart, and have one form.
func FuzzIdentifier(f *testing.F) {
	for _, s := range []string{
		"", "0x", "0x1234567890ABCDEF1234567890abcdef12345678", "1234567890ABCDEF1234567890abcdef12345678",
		strings.Repeat("a", 64), "02" + strings.Repeat("Ab", 32), "0x04" + strings.Repeat("ab", 64), "0x" + strings.Repeat("z", 66),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := parseIdentifier(s)
		if err != nil {
			return
		}
		if again, err := parseIdentifier(id.String()); err != nil || again != id {
			t.Errorf("%q, %q: %v, %v", s, id, again, err)
		}
		if identity.CheckInboxID(s) == nil {
			t.Errorf("%q is an inbox id", s)
		}
	})
}

func TestFingerprint(t *testing.T) {
	// Made in Python.
	known := InboxState{
		InboxID:       strings.Repeat("a", 64),
		Installations: []Installation{{ID: strings.Repeat("2", 64)}, {ID: strings.Repeat("1", 64)}},
	}
	same(t, "fingerprint", known.Fingerprint(), "33609 12067 38768 98036 33107 59183")
	form := regexp.MustCompile(`^\d{5}( \d{5}){5}$`)
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringMatching("[0-9a-f]{64}")
		s := InboxState{InboxID: id.Draw(t, "inbox")}
		for _, installation := range rapid.SliceOfNDistinct(id, 0, 12, rapid.ID).Draw(t, "installations") {
			s.Installations = append(s.Installations, Installation{ID: installation, AddedAt: time.Unix(rand.Int64(), 0)})
		}
		print := s.Fingerprint()
		if !form.MatchString(print) {
			t.Fatalf("%q", print)
		}
		other := InboxState{InboxID: s.InboxID, Updates: 7}
		for _, i := range rand.Perm(len(s.Installations)) {
			other.Installations = append(other.Installations, Installation{ID: s.Installations[i].ID})
		}
		if other.Fingerprint() != print {
			t.Fatal("the order shows")
		}
		if n := len(other.Installations); n > 0 {
			other.Installations = other.Installations[:n-1]
			if other.Fingerprint() == print {
				t.Fatal("a missing installation does not show")
			}
		}
		other = s
		other.InboxID = id.Filter(func(id string) bool { return id != s.InboxID }).Draw(t, "another inbox")
		if other.Fingerprint() == print {
			t.Fatal("the inbox id does not show")
		}
	})
}

func TestInstallationSignatures(t *testing.T) {
	url := startNode(t)
	alice, bob := newClient(t, url), newClient(t, url)
	signature := alice.SignWithInstallationKey("a text")
	check(t, VerifyInstallationSignature(alice.InstallationID(), "a text", signature))
	for name, err := range map[string]error{
		"another text":         VerifyInstallationSignature(alice.InstallationID(), "another text", signature),
		"another installation": VerifyInstallationSignature(bob.InstallationID(), "a text", signature),
	} {
		if !errors.Is(err, identity.ErrEd25519) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := VerifyInstallationSignature(alice.InstallationID(), "a text", signature[1:]); !errors.Is(err, identity.ErrSignatureLength) {
		t.Errorf("cut off: %v", err)
	}
	for _, id := range []string{"", "12", alice.InstallationID() + "00", "xyz"} {
		if VerifyInstallationSignature(id, "a text", signature) == nil {
			t.Errorf("installation %q", id)
		}
	}
	// It is of no use in an identity update.
	if err := identity.VerifyPublic(alice.installation.Bytes(), "a text", identity.SignInstallation(alice.key, "a text").GetInstallationKey().GetBytes()); err == nil {
		t.Error("a signature for an update serves for a text")
	}
}

func TestReach(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	signer, alice := newSigner(t), newClient(t, url)
	bob := openClient(t, signer, WithNode(url), InMemory())
	silent := newStranger(t, alice)
	found := newStranger(t, alice).reachable(t, alice)
	empty := newSigner(t)
	gone := openClient(t, empty, WithNode(url), InMemory())
	check(t, gone.RemoveIdentifier(ctx, empty, empty.Address()))
	nobody := newSigner(t).Address()
	users := []string{nobody, bob.Address(), silent.inboxID, found.inboxID, gone.InboxID(), strings.Repeat("0", 64), bob.InboxID(), alice.InboxID()}
	reaches := must(alice.Reach(ctx, users...))(t)
	for i, want := range []error{ErrNoInbox, nil, ErrNoKeyPackage, nil, ErrNoInstallation, ErrNoInbox, nil, nil} {
		r := reaches[i]
		if r.User != users[i] || !errors.Is(r.Err, want) {
			t.Errorf("%s: %+v, want %v", users[i], r, want)
		}
		if want == nil && (len(r.Installations) != 1 || r.Installations[0].Err != nil || !r.Installations[0].NotAfter.After(time.Now())) {
			t.Errorf("%s: %+v", users[i], r.Installations)
		}
	}
	same(t, "inbox of an address", reaches[1].InboxID, bob.InboxID())
	if s := reaches[2].Installations; len(s) != 1 || !errors.Is(s[0].Err, ErrNoKeyPackage) {
		t.Errorf("installations of the silent one: %+v", s)
	}
	// One of two devices will do.
	second := newSigner(t)
	check(t, bob.AddIdentifier(ctx, second))
	addInstallation(t, bob, second)
	r := must(alice.Reach(ctx, bob.InboxID()))(t)[0]
	if r.Err != nil || len(r.Installations) != 2 {
		t.Errorf("with a silent device: %+v", r)
	}
	if _, err := alice.Reach(ctx, "nonsense"); err == nil {
		t.Error("nonsense is somebody")
	}

	// Out of date: for an official client, too.
	var ahead time.Duration
	later := newClient(t, url, WithClock(func() time.Time { return time.Now().Add(ahead) }), WithoutWorkers())
	ahead = 100 * 24 * time.Hour
	r = must(later.Reach(ctx, found.inboxID))(t)[0]
	if !errors.Is(r.Err, identity.ErrKeyPackageInvalid) || !errors.Is(r.Err, mls.ErrLifetime) || r.Installations[0].NotAfter.IsZero() {
		t.Errorf("out of date: %+v", r)
	}
	id := r.Installations[0].InstallationID
	status := must(later.KeyPackageStatuses(ctx, id, gone.InstallationID(), strings.Repeat("00", 32)))(t)
	if !errors.Is(status[0].Err, mls.ErrLifetime) || status[1].Err == nil || !errors.Is(status[2].Err, ErrNoKeyPackage) {
		t.Errorf("statuses: %+v", status)
	}
	status = must(KeyPackageStatuses(ctx, []string{id}, WithNode(url)))(t)
	if status[0].Err != nil || status[0].InstallationID != id || status[0].NotAfter.Sub(status[0].NotBefore) != 7261200*time.Second {
		t.Errorf("status without a client: %+v", status)
	}
	same(t, "none", len(must(alice.KeyPackageStatuses(ctx))(t)), 0)
	if _, err := alice.KeyPackageStatuses(ctx, "12"); err == nil {
		t.Error("an id that is none")
	}
}

// addInstallation adds an installation without a key package, signed by a wallet.
func addInstallation(t *testing.T, c *Client, wallet *PrivateKeySigner) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	check(t, err)
	id := identity.Installation(public)
	check(t, c.inboxes.update(t.Context(), c.inboxID, time.Now(), inboxUpdate{
		actions: func(*identity.State) ([]identity.Action, error) {
			return []identity.Action{identity.AddMember(wallet.key.Identifier(), id)}, nil
		},
		sign: func(ctx context.Context, request *identity.SignatureRequest) error {
			return errors.Join(
				request.AddSignature(ctx, wallet.key.SignText(request.Text()), nil),
				request.AddSignature(ctx, identity.SignInstallation(key, request.Text()), nil),
			)
		},
	}))
}
