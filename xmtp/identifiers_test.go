package xmtp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/identity"
)

func newSigner(t *testing.T) *PrivateKeySigner {
	t.Helper()
	return must(GeneratePrivateKeySigner())(t)
}

// newPasskey makes a passkey, as an authenticator does, of a compressed or
// uncompressed public key.
func newPasskey(t *testing.T, compressed bool) *PasskeySigner {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	public := must(key.PublicKey.Bytes())(t)
	if compressed {
		public = elliptic.MarshalCompressed(elliptic.P256(), key.X, key.Y)
	}
	return must(NewPasskeySigner(public, func(_ context.Context, challenge []byte) (*PasskeyAssertion, error) {
		data := make([]byte, 37)
		client := fmt.Appendf(nil, `{"type":"webauthn.get","challenge":%q,"origin":"https://example.org"}`, base64.RawURLEncoding.EncodeToString(challenge))
		hash := sha256.Sum256(client)
		digest := sha256.Sum256(append(data, hash[:]...))
		signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		return &PasskeyAssertion{Signature: signature, AuthenticatorData: data, ClientDataJSON: client}, err
	}))(t)
}

// identifiers returns those of an inbox as another client reads them.
func identifiers(t *testing.T, reader *Client, inbox string) map[string]bool {
	t.Helper()
	check(t, reader.inboxes.refresh(t.Context(), inbox))
	state, _ := must(reader.inboxes.known(inbox))(t).latest()
	ids := map[string]bool{}
	for _, m := range state.Members() {
		if m.Identifier.Kind() != identity.KindInstallation {
			ids[m.Identifier.String()] = true
		}
	}
	return ids
}

func set(list ...string) map[string]bool {
	m := map[string]bool{}
	for _, s := range list {
		m[s] = true
	}
	return m
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}

func TestIdentifiersComeAndGo(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	signer, second := newSigner(t), newSigner(t)
	alice := openClient(t, signer, WithNode(url), InMemory())
	bob := newClient(t, url)
	passkey, other := newPasskey(t, true), newPasskey(t, false)
	for _, s := range []Signer{second, passkey, other} {
		check(t, alice.AddIdentifier(ctx, s))
		same(t, "inbox of "+s.Address(), must(bob.InboxIDOf(ctx, s.Address()))(t), alice.InboxID())
	}
	same(t, "identifiers", identifiers(t, bob, alice.InboxID()), set(signer.Address(), second.Address(), passkey.Address(), other.Address()))

	// Each of them signs in: further installations, whose fate is theirs.
	phone := openClient(t, second, WithNode(url), InMemory())
	tablet := openClient(t, passkey, WithNode(url), InMemory())
	same(t, "inbox of the phone", phone.InboxID(), alice.InboxID())
	same(t, "inbox of the tablet", tablet.InboxID(), alice.InboxID())
	chat := must(bob.DM(ctx, passkey.Address()))(t)
	must(chat.SendText(ctx, "to a passkey"))(t)
	same(t, "the tablet reads", texts(t, inConversation(t, tablet, chat.ID())), []string{"to a passkey"})

	var nobody *AlreadyAssociatedError
	if err := alice.RemoveIdentifier(ctx, second, second.Address()); !errors.Is(err, ErrNotRecovery) || errors.As(err, &nobody) {
		t.Errorf("another wallet removes: %v", err)
	}
	check(t, alice.RemoveIdentifier(ctx, signer, second.Address()))
	check(t, alice.RemoveIdentifier(ctx, signer, passkey.Address()))
	same(t, "identifiers", identifiers(t, bob, alice.InboxID()), set(signer.Address(), other.Address()))
	state, _ := must(bob.inboxes.known(alice.InboxID()))(t).latest()
	same(t, "installations", installationIDs(state.Installations()), []string{alice.InstallationID()})
	if _, err := bob.InboxIDOf(ctx, second.Address()); !errors.Is(err, ErrNoInbox) {
		t.Errorf("inbox of who was removed: %v", err)
	}
	// Nobody is asked for a signature that isn't needed.
	before := len(must(alice.inboxes.known(alice.InboxID()))(t).numbers)
	check(t, alice.RemoveIdentifier(ctx, nil, second.Address()))
	same(t, "updates", len(must(alice.inboxes.known(alice.InboxID()))(t).numbers), before)
	// What was signed before is not signed again, even in the same second.
	check(t, alice.AddIdentifier(ctx, second))
	check(t, alice.RemoveIdentifier(ctx, signer, second.Address()))
	check(t, alice.AddIdentifier(ctx, second))
}

func TestIdentifierOfAnotherInbox(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	signer := newSigner(t)
	bob := openClient(t, signer, WithNode(url), InMemory())
	alice := newClient(t, url)
	asked := 0
	wallet := WalletSigner(signer.Address(), func(ctx context.Context, text string) ([]byte, error) {
		asked++
		return signer.SignText(ctx, text)
	})
	err := alice.AddIdentifier(ctx, wallet)
	if taken, ok := errors.AsType[*AlreadyAssociatedError](err); !ok || taken.InboxID != bob.InboxID() || taken.Identifier.String() != signer.Address() {
		t.Errorf("somebody else's wallet: %v", err)
	}
	same(t, "signatures asked for", asked, 0)
	check(t, alice.ReassignIdentifier(ctx, wallet))
	same(t, "inbox of the wallet", must(alice.InboxIDOf(ctx, signer.Address()))(t), alice.InboxID())
	same(t, "identifiers", identifiers(t, alice, bob.InboxID()), set(signer.Address()))
	// Bob's installation is one of his inbox still; and to Alice's the wallet belongs.
	must(must(alice.DM(ctx, bob.InboxID()))(t).SendText(ctx, "are you there?"))(t)
	check(t, bob.Sync(ctx))
	err = alice.AddIdentifier(ctx, wallet)
	if taken, ok := errors.AsType[*AlreadyAssociatedError](err); !ok || taken.InboxID != alice.InboxID() {
		t.Errorf("our own wallet: %v", err)
	}
	phone := openClient(t, signer, WithNode(url), InMemory())
	same(t, "inbox of a new installation", phone.InboxID(), alice.InboxID())
	// What comes back is found again.
	check(t, alice.ReassignIdentifier(ctx, wallet))
}

func TestRecoveryChanges(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	first, passkey := newSigner(t), newPasskey(t, true)
	c := openClient(t, first, WithNode(url), InMemory())
	check(t, c.ChangeRecovery(ctx, first, passkey.Address())) // no member
	if err := c.ChangeRecovery(ctx, first, first.Address()); !errors.Is(err, ErrNotRecovery) {
		t.Errorf("the first wallet takes it back: %v", err)
	}
	check(t, c.ChangeRecovery(ctx, nil, passkey.Address())) // is so already
	second := newSigner(t)
	check(t, c.AddIdentifier(ctx, second))
	check(t, c.RemoveIdentifier(ctx, passkey, second.Address()))
	for name, bad := range map[string]string{
		"no address":            "0x1234",
		"an address without 0x": first.Address()[2:],
		"no point":              "02" + strings.Repeat("ff", 32),
	} {
		if err := c.ChangeRecovery(ctx, passkey, bad); err == nil {
			t.Errorf("%s becomes the recovery identifier", name)
		}
	}
	check(t, c.ChangeRecovery(ctx, passkey, first.Address()))
	check(t, c.ChangeRecovery(ctx, first, second.Address()))
	same(t, "identifiers", identifiers(t, newClient(t, url), c.InboxID()), set(first.Address()))
}

// A passkey begins an inbox, and is asked once.
func TestPasskeyRegisters(t *testing.T) {
	url, ctx := startNode(t), t.Context()
	for _, compressed := range []bool{true, false} {
		passkey := newPasskey(t, compressed)
		c := openClient(t, passkey, WithNode(url), InMemory())
		same(t, "address", c.Address(), passkey.Address())
		id := must(identity.ParsePasskey(passkey.Address()))(t)
		same(t, "inbox", c.InboxID(), must(identity.DeriveInboxID(id, identity.DefaultNonce))(t))
		bob := newClient(t, url)
		chat := must(bob.DM(ctx, passkey.Address()))(t)
		must(chat.SendText(ctx, "hello"))(t)
		same(t, "reads", texts(t, inConversation(t, c, chat.ID())), []string{"hello"})
		again := openClient(t, passkey, WithNode(url), InMemory())
		same(t, "inbox of the second installation", again.InboxID(), c.InboxID())
		signed := must(passkey.SignText(ctx, "text"))(t)
		if len(signed) == 0 {
			t.Error("no signature")
		}
	}
	for name, bad := range map[string][]byte{"nothing": nil, "no point": make([]byte, 33), "short": {4, 1, 2}} {
		if _, err := NewPasskeySigner(bad, nil); !errors.Is(err, ErrInvalidPasskey) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	refuses := must(NewPasskeySigner(newPasskey(t, true).publicKey, func(context.Context, []byte) (*PasskeyAssertion, error) {
		return nil, nil
	}))(t)
	if _, err := NewClient(ctx, refuses, WithNode(url), InMemory()); err == nil {
		t.Error("registered without an assertion")
	}
	other := newPasskey(t, true)
	forged := must(NewPasskeySigner(newPasskey(t, true).publicKey, other.assert))(t)
	if _, err := NewClient(ctx, forged, WithNode(url), InMemory()); identity.ErrorCode(err) == "" {
		t.Errorf("somebody else's passkey: %v", err)
	}
}

// The second of each update is its own, whatever clocks say.
func TestUnusedSecond(t *testing.T) {
	now := time.Unix(1000, 500)
	log := &inboxLog{times: []uint64{uint64(now.UnixNano()), 1001e9 + 7, 5000e9}}
	same(t, "time", log.unused(now).Equal(time.Unix(1002, 0)), true)
	same(t, "time", log.unused(time.Unix(999, 7)).Equal(time.Unix(999, 7)), true)
}

func TestInstallationsChange(t *testing.T) {
	t.Parallel()
	url, ctx := startNode(t), t.Context()
	signer, second := newSigner(t), newSigner(t)
	alice := openClient(t, signer, WithNode(url), InMemory())
	bob := newClient(t, url)
	must(bob.DM(ctx, alice.InboxID()))(t) // knows her from now on
	type event struct {
		change InstallationsChange
		err    error
	}
	events := make(chan event)
	streaming, stop := context.WithCancel(ctx)
	stream := bob.StreamInstallations(streaming)
	go func() {
		defer close(events)
		for change, err := range stream {
			events <- event{change, err}
		}
	}()
	next := func() event {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(time.Minute):
			t.Fatal("nothing was told")
			return event{}
		}
	}
	check(t, alice.AddIdentifier(ctx, second)) // no installation
	check(t, bob.inboxes.refresh(ctx, alice.InboxID()))
	phone := openClient(t, second, WithNode(url), InMemory())
	newClient(t, url) // somebody whom Bob doesn't know
	check(t, bob.inboxes.refresh(ctx, alice.InboxID()))
	same(t, "change", next().change, InstallationsChange{InboxID: alice.InboxID(), Added: []string{phone.InstallationID()}})
	check(t, alice.RemoveIdentifier(ctx, signer, second.Address()))
	check(t, bob.inboxes.refresh(ctx, alice.InboxID()))
	same(t, "change", next().change, InstallationsChange{InboxID: alice.InboxID(), Removed: []string{phone.InstallationID()}})
	stop()
	if e := next(); !errors.Is(e.err, context.Canceled) {
		t.Errorf("the end: %v", e.err)
	}
	if _, more := <-events; more {
		t.Error("more after the end")
	}

	// Nobody takes what was told: it stays one change, of what came of it.
	w := &installationWatch{before: map[string]*identity.State{}, news: make(chan struct{}, 1)}
	bob.inboxes.watch(w)
	defer bob.inboxes.unwatch(w)
	check(t, alice.AddIdentifier(ctx, second))
	phone = openClient(t, second, WithNode(url), InMemory())
	check(t, bob.inboxes.refresh(ctx, alice.InboxID()))
	tablet := openClient(t, second, WithNode(url), InMemory())
	check(t, bob.inboxes.refresh(ctx, alice.InboxID()))
	changes := bob.inboxes.take(w)
	if len(changes) != 1 || len(changes[0].Removed) != 0 || len(changes[0].Added) != 2 {
		t.Errorf("changes: %v", changes)
	}
	check(t, alice.RemoveIdentifier(ctx, signer, second.Address()))
	check(t, bob.inboxes.refresh(ctx, alice.InboxID()))
	check(t, alice.AddIdentifier(ctx, second))
	again := openClient(t, second, WithNode(url), InMemory())
	check(t, bob.inboxes.refresh(ctx, alice.InboxID()))
	changes = bob.inboxes.take(w)
	if len(changes) != 1 {
		t.Fatalf("changes: %v", changes)
	}
	same(t, "added", set(changes[0].Added...), set(again.InstallationID()))
	same(t, "removed", set(changes[0].Removed...), set(phone.InstallationID(), tablet.InstallationID()))

	closing := bob.StreamInstallations(ctx)
	check(t, bob.Close())
	for _, err := range closing {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	}
}
