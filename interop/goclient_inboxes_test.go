package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/interop/chain"
	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// goInstallation makes a client of ours that signs in with a wallet or passkey.
func goInstallation(t *testing.T, url string, signer xmtp.Signer, list ...xmtp.Option) *xmtp.Client {
	t.Helper()
	client, err := xmtp.NewClient(t.Context(), signer, append([]xmtp.Option{xmtp.WithNode(url), xmtp.InMemory()}, list...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("closing a Go client: %v", err)
		}
	})
	return client
}

// signerOf is an official client's wallet as Go clients use it.
func signerOf(t *testing.T, w official.Wallet) *xmtp.PrivateKeySigner {
	t.Helper()
	s, err := xmtp.NewPrivateKeySigner(w.Key)
	return check(t, s, err)
}

// walletOf is a Go client's wallet as official clients use it.
func walletOf(s *xmtp.PrivateKeySigner) official.Wallet {
	return official.Wallet{Key: "0x" + s.PrivateKey(), Address: s.Address()}
}

func newGoSigner(t *testing.T) *xmtp.PrivateKeySigner {
	t.Helper()
	s, err := xmtp.GeneratePrivateKeySigner()
	return check(t, s, err)
}

// ourState asks the node for an inbox through the eyes of a client of ours.
func ourState(t *testing.T, c *xmtp.Client, inboxID string) xmtp.InboxState {
	t.Helper()
	states, err := c.InboxStates(t.Context(), inboxID)
	return check(t, states, err)[0]
}

func addressesOf(s xmtp.InboxState) (list []string) {
	for _, m := range s.Identifiers {
		list = append(list, m.Identifier.String())
	}
	return list
}

func installationsOf(s xmtp.InboxState) (list []string) {
	for _, i := range s.Installations {
		list = append(list, i.ID)
	}
	return list
}

// inboxOf asks an official client whose an identifier is; empty for nobody's.
func inboxOf(c *official.Client, identifier map[string]any) string {
	var id *string
	c.Call(&id, "fetchInboxIdByIdentifier", identifier)
	if id == nil {
		return ""
	}
	return *id
}

// sameInbox compares how both sides see an inbox: everything, in its order.
func sameInbox(t *testing.T, ours *xmtp.Client, theirs *official.Client, inboxID string) xmtp.InboxState {
	t.Helper()
	a := ourState(t, ours, inboxID)
	var states []struct {
		inboxState
		Installations []struct{ ID, ClientTimestampNs string } `json:"installations"`
	}
	theirs.Call(&states, "preferences.fetchInboxStates", []string{inboxID})
	b := states[0]
	equal(t, "recovery", a.Recovery.String(), b.RecoveryIdentifier.Identifier)
	equal(t, "identifiers", addressesOf(a), b.addresses())
	var list [2][]string
	built := xmtp.InboxState{InboxID: inboxID}
	for _, i := range a.Installations {
		list[0] = append(list[0], fmt.Sprint(i.ID, " ", i.AddedAt.UnixNano()))
	}
	for _, i := range b.Installations {
		list[1] = append(list[1], i.ID+" "+i.ClientTimestampNs)
		built.Installations = append(built.Installations, xmtp.Installation{ID: i.ID})
	}
	equal(t, "installations", list[0], list[1])
	equal(t, "fingerprint made of what they tell", built.Fingerprint(), a.Fingerprint())
	return a
}

func TestGoIdentifiers(t *testing.T) {
	scenario(t, "Go: identifiers added and removed, recovery changed, by either side", everyVersion, func(t *testing.T, w *world) {
		ctx := t.Context()
		first, second, third := newGoSigner(t), newGoSigner(t), w.Wallet()
		alice, bob := w.Client("alice"), goInstallation(t, w.url, first)
		ok := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		// Ours adds; theirs sees it, writes to it, and signs in with it.
		ok(bob.AddIdentifier(ctx, second))
		equal(t, "inbox of the wallet that Go added", inboxOf(alice, walletOf(second).Identifier()), bob.InboxID())
		var dm official.Conversation
		alice.Call(&dm, "conversations.createDmWithIdentifier", walletOf(second).Identifier())
		equal(t, "peer of the DM", dm.PeerInboxID, bob.InboxID())
		theirs := alice.DM(&official.Client{InboxID: bob.InboxID()})
		theirs.Send("to your second wallet")
		equal(t, "Go reads", find(t, bob, dm.ID).texts(), []string{"to your second wallet"})
		phone := w.Installation("phone", walletOf(second))
		equal(t, "inbox of who signs in with it", phone.InboxID, bob.InboxID())
		sameInbox(t, bob, alice, bob.InboxID())

		// Ours removes; the installation that the wallet had added goes with it.
		ok(bob.RemoveIdentifier(ctx, first, second.Address()))
		equal(t, "inbox of the wallet that Go removed", inboxOf(alice, walletOf(second).Identifier()), "")
		s := sameInbox(t, bob, alice, bob.InboxID())
		equal(t, "installations", installationsOf(s), []string{bob.InstallationID()})
		equal(t, "identifiers", addressesOf(s), []string{first.Address()})

		// Theirs adds, to an inbox that ours made; ours sees it, and signs in with it.
		tablet := w.Installation("tablet", walletOf(first))
		equal(t, "inbox of the official installation", tablet.InboxID, bob.InboxID())
		tablet.Call(nil, "unsafe_addAccount", third.Signer(), true)
		if s := sameInbox(t, bob, alice, bob.InboxID()); !s.Has(third.Address) {
			t.Errorf("what they added: %v", addressesOf(s))
		}
		laptop := goInstallation(t, w.url, signerOf(t, third))
		equal(t, "inbox of ours that signs in with it", laptop.InboxID(), bob.InboxID())
		// Theirs changes the recovery identifier; ours sees it, and abides by it.
		tablet.Call(nil, "changeRecoveryIdentifier", third.Identifier())
		s = sameInbox(t, bob, alice, bob.InboxID())
		equal(t, "recovery", s.Recovery.String(), third.Address)
		if err := bob.RemoveIdentifier(ctx, first, third.Address); !errors.Is(err, xmtp.ErrNotRecovery) {
			t.Errorf("the old recovery identifier: %v", err)
		}
		// Ours changes it back, after which theirs may again.
		ok(bob.ChangeRecovery(ctx, signerOf(t, third), first.Address()))
		tablet.Call(nil, "preferences.fetchInboxState")
		tablet.Call(nil, "removeAccount", third.Identifier())
		s = sameInbox(t, bob, alice, bob.InboxID())
		equal(t, "identifiers", addressesOf(s), []string{first.Address()})
		if s.Has(laptop.InstallationID()) || !s.Has(tablet.InstallationID) {
			t.Errorf("installations: %v", installationsOf(s))
		}
		history, err := bob.InboxHistory(ctx, bob.InboxID())
		check(t, history, err)
		equal(t, "updates", len(history), s.Updates)
		if w.sdk == official.Newest {
			var counts map[string]int
			alice.Call(&counts, "fetchLatestInboxUpdatesCount", []string{bob.InboxID()})
			equal(t, "updates as they count", counts[bob.InboxID()], s.Updates)
		}
		if err := ourDM(t, bob, alice.InboxID).SetDisappearing(ctx, xmtp.Disappearing{}); err != nil {
			t.Errorf("the conversation goes on: %v", err)
		}
	})
}

func ourDM(t *testing.T, c *xmtp.Client, user string) *xmtp.Conversation {
	t.Helper()
	v, err := c.DM(t.Context(), user)
	return check(t, v, err)
}

// Who confirms may take a wallet from one inbox to another, in either direction.
func TestGoReassign(t *testing.T) {
	scenario(t, "Go: identifiers reassigned, by either side", everyVersion, func(t *testing.T, w *world) {
		ctx := t.Context()
		signer := newGoSigner(t)
		alice, carol, bob := w.Client("alice"), w.Client("carol"), goInstallation(t, w.url, signer)
		wallet := signerOf(t, alice.Wallet)
		err := bob.AddIdentifier(ctx, wallet)
		if taken, ok := errors.AsType[*xmtp.AlreadyAssociatedError](err); !ok || taken.InboxID != alice.InboxID {
			t.Errorf("without a confirmation: %v", err)
		}
		theirs := carol.TryCall(nil, "unsafe_addAccount", alice.Wallet.Signer(), false)
		if theirs == nil || !strings.Contains(theirs.Error(), "already associated with inbox "+alice.InboxID) {
			t.Errorf("without a confirmation, theirs: %v", theirs)
		}
		if err := bob.ReassignIdentifier(ctx, wallet); err != nil {
			t.Fatal(err)
		}
		equal(t, "inbox of alice's wallet, they say", inboxOf(carol, alice.Wallet.Identifier()), bob.InboxID())
		id, err := bob.InboxIDOf(ctx, alice.Wallet.Address)
		equal(t, "inbox of alice's wallet, we say", check(t, id, err), bob.InboxID())
		sameInbox(t, bob, carol, bob.InboxID())
		sameInbox(t, bob, carol, alice.InboxID)

		// Alice's client goes on with her inbox.
		dm := alice.DM(&official.Client{InboxID: bob.InboxID()})
		dm.Send("still here")
		equal(t, "Go reads", find(t, bob, dm.ID).texts(), []string{"still here"})

		// Theirs takes ours.
		carol.Call(nil, "unsafe_addAccount", walletOf(signer).Signer(), true)
		id, err = bob.InboxIDOf(ctx, signer.Address())
		equal(t, "inbox of our wallet", check(t, id, err), carol.InboxID)
		equal(t, "inbox of our next installation", goInstallation(t, w.url, signer).InboxID(), carol.InboxID)
		sameInbox(t, bob, carol, carol.InboxID)
	})
}

func TestGoInboxLookUps(t *testing.T) {
	scenario(t, "Go: inbox look-ups, key packages and signatures, as the official client answers", everyVersion, func(t *testing.T, w *world) {
		ctx := t.Context()
		var ahead time.Duration
		bob := goInstallation(t, w.url, newGoSigner(t), xmtp.WithoutWorkers(), xmtp.WithClock(func() time.Time { return time.Now().Add(ahead) }))
		alice, nobody := w.Client("alice"), w.Wallet()
		ask := []string{alice.Wallet.Address, bob.Address(), nobody.Address, strings.ToUpper(nobody.Address[2:])}
		ask[3] = "0x" + ask[3]
		can, err := bob.CanMessage(ctx, ask...)
		check(t, can, err)
		static, err := xmtp.CanMessage(ctx, ask, xmtp.WithNode(w.url))
		check(t, static, err)
		var theirs map[string]bool
		var identifiers []any
		for _, address := range ask {
			identifiers = append(identifiers, official.Wallet{Address: address}.Identifier())
		}
		alice.Call(&theirs, "canMessage", identifiers)
		equal(t, "canMessage", can, theirs)
		equal(t, "canMessage without a client", static, theirs)

		// A key package is theirs to judge as it is ours.
		ids := []string{alice.InstallationID, bob.InstallationID()}
		statuses, err := bob.KeyPackageStatuses(ctx, ids...)
		check(t, statuses, err)
		var status map[string]struct {
			Lifetime        *struct{ NotBefore, NotAfter string } `json:"lifetime"`
			ValidationError string                                `json:"validationError"`
		}
		alice.Call(&status, "fetchKeyPackageStatuses", ids)
		for i, id := range ids {
			s := status[id]
			if s.Lifetime == nil || statuses[i].Err != nil {
				t.Fatalf("%s: %+v, %+v", id, s, statuses[i])
			}
			equal(t, "lifetime", fmt.Sprint(statuses[i].NotBefore.Unix(), " ", statuses[i].NotAfter.Unix()), s.Lifetime.NotBefore+" "+s.Lifetime.NotAfter)
		}
		reach, err := bob.Reach(ctx, alice.Wallet.Address, nobody.Address)
		check(t, reach, err)
		if reach[0].Err != nil || len(reach[0].Installations) != 1 || !errors.Is(reach[1].Err, xmtp.ErrNoInbox) {
			t.Errorf("reach: %+v", reach)
		}

		// Texts signed by either side.
		signature := bob.SignWithInstallationKey("from Go")
		key, err := hex.DecodeString(bob.InstallationID())
		check(t, key, err)
		verify := func(text string) (valid bool) {
			w.Must(official.Request{Op: "call", Path: "Client.verifySignedWithPublicKey",
				Args: []any{text, official.Bytes(signature), official.Bytes(key)}}, &valid)
			return valid
		}
		equal(t, "ours, they say", verify("from Go"), true)
		equal(t, "ours of another text, they say", verify("from elsewhere"), false)
		var encoded string
		alice.Call(&encoded, "signWithInstallationKey", "from there")
		raw, err := base64.StdEncoding.DecodeString(encoded)
		check(t, raw, err)
		if err := xmtp.VerifyInstallationSignature(alice.InstallationID, "from there", raw); err != nil {
			t.Errorf("theirs, we say: %v", err)
		}
		if xmtp.VerifyInstallationSignature(alice.InstallationID, "from Go", raw) == nil {
			t.Error("theirs of another text is good")
		}
		for _, member := range []string{alice.Wallet.Address, alice.InstallationID, nobody.Address, bob.InstallationID()} {
			got, err := xmtp.IsAuthorized(ctx, alice.InboxID, member, xmtp.WithNode(w.url))
			equal(t, "authorized", check(t, got, err), member == alice.Wallet.Address || member == alice.InstallationID)
		}
		newest, err := xmtp.NewestMessages(ctx, []string{alice.DM(&official.Client{InboxID: bob.InboxID()}).ID}, xmtp.WithNode(w.url))
		if check(t, newest, err); len(newest) != 1 {
			t.Errorf("newest messages: %v", newest)
		}

		// When its key package is out of date, nobody can add an installation.
		ahead = 85 * 24 * time.Hour
		reach, err = bob.Reach(ctx, alice.InboxID)
		check(t, reach, err)
		if r := reach[0]; !errors.Is(r.Err, mls.ErrLifetime) || !r.Installations[0].NotAfter.Before(time.Now().Add(ahead)) {
			t.Errorf("reach of who has expired: %+v", r)
		}
	})
}

func TestGoInstallationsChange(t *testing.T) {
	scenario(t, "Go: told of official installations that come and go", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), goClient(t, w.url)
		ours{ourDM(t, bob, alice.InboxID), t}.say("hello")
		streaming, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		next := changesOf(t, bob, streaming)
		phone := w.Installation("phone", alice.Wallet)
		// It is read of when the peer is looked at.
		ourState(t, bob, alice.InboxID)
		equal(t, "added", next(), xmtp.InstallationsChange{InboxID: alice.InboxID, Added: []string{phone.InstallationID}})
		alice.Call(nil, "revokeInstallations", []any{official.Bytes(idBytes(t, phone))})
		ourState(t, bob, alice.InboxID)
		equal(t, "removed", next(), xmtp.InstallationsChange{InboxID: alice.InboxID, Removed: []string{phone.InstallationID}})

		// And when a member acts on it: here the official client adds it to a group.
		carol := w.Client("carol")
		group := carol.Group([]*official.Client{alice}, nil)
		group.Call(nil, "addMembers", []string{bob.InboxID()})
		v := find(t, bob, group.ID)
		v.say("hello")
		tablet := w.Installation("tablet", alice.Wallet)
		carol.Call(nil, "preferences.fetchInboxStates", []string{alice.InboxID})
		group.Call(nil, "sync")
		group.Call(nil, "updateName", "a new name")
		group.Send("to all")
		v.sync()
		equal(t, "added, in a group", next(), xmtp.InstallationsChange{InboxID: alice.InboxID, Added: []string{tablet.InstallationID}})
	})
}

// changesOf returns a function that waits for the next change.
func changesOf(t *testing.T, c *xmtp.Client, ctx context.Context) (next func() xmtp.InstallationsChange) {
	changes := make(chan xmtp.InstallationsChange)
	stream := c.StreamInstallations(ctx)
	go func() {
		defer close(changes)
		for change, err := range stream {
			if err != nil {
				return
			}
			select {
			case changes <- change:
			case <-ctx.Done():
			}
		}
	}()
	return func() xmtp.InstallationsChange {
		t.Helper()
		change, ok := <-changes
		if !ok {
			t.Fatal("the stream has ended")
		}
		return change
	}
}

// newPasskey makes a passkey of ours.
func newPasskey(t *testing.T) *xmtp.PasskeySigner {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, key, err)
	passkey, err := xmtp.NewPasskeySigner(elliptic.MarshalCompressed(elliptic.P256(), key.X, key.Y),
		func(_ context.Context, challenge []byte) (*xmtp.PasskeyAssertion, error) {
			a := &xmtp.PasskeyAssertion{AuthenticatorData: make([]byte, 37)}
			a.ClientDataJSON = fmt.Appendf(nil, `{"type":"webauthn.get","challenge":%q,"origin":"https://example.org"}`,
				base64.RawURLEncoding.EncodeToString(challenge))
			clientHash := sha256.Sum256(a.ClientDataJSON)
			digest := sha256.Sum256(append(slices.Clone(a.AuthenticatorData), clientHash[:]...))
			var err error
			a.Signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:])
			return a, err
		})
	return check(t, passkey, err)
}

func TestGoPasskeys(t *testing.T) {
	scenario(t, "Go: passkeys register, are added by either side, and found", everyVersion, func(t *testing.T, w *world) {
		ctx := t.Context()
		named := func(s xmtp.Signer) map[string]any {
			return map[string]any{"identifier": s.Address(), "identifierKind": identifierPasskey}
		}
		// An inbox that a passkey has made.
		passkey := newPasskey(t)
		alice, bob := w.Client("alice"), goInstallation(t, w.url, passkey)
		equal(t, "inbox of the passkey", inboxOf(alice, named(passkey)), bob.InboxID())
		var derived string
		w.Must(official.Request{Op: "call", Path: "generateInboxId", Args: []any{named(passkey)}}, &derived)
		equal(t, "inbox as they derive it", derived, bob.InboxID())
		s := sameInbox(t, bob, alice, bob.InboxID())
		equal(t, "recovery", s.Recovery.String(), passkey.Address())
		var dm official.Conversation
		alice.Call(&dm, "conversations.createDmWithIdentifier", named(passkey))
		theirs := alice.DM(&official.Client{InboxID: bob.InboxID()})
		equal(t, "the DM", theirs.ID, dm.ID)
		theirs.Send("to a passkey")
		v := find(t, bob, dm.ID)
		v.say("from a passkey")
		sameState(t, v, theirs)

		// Its recovery identifier signs by WebAuthn, too.
		second := newPasskey(t)
		for _, err := range []error{
			bob.AddIdentifier(ctx, second), bob.AddIdentifier(ctx, signerOf(t, w.Wallet())),
			bob.RemoveIdentifier(ctx, passkey, second.Address()), bob.ChangeRecovery(ctx, passkey, second.Address()),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		sameInbox(t, bob, alice, bob.InboxID())

		// One that theirs has added signs in with ours.
		third := newPasskey(t)
		alice.Must(official.Request{Op: "call", On: "alice", Path: "unsafe_addAccountSignatureRequest",
			Args: []any{named(third), true}, As: "linking"}, nil)
		signByPasskey(t, alice.Process, "linking", third)
		alice.Call(nil, "unsafe_applySignatureRequest", official.Ref("linking"))
		phone := goInstallation(t, w.url, third)
		equal(t, "inbox of ours that signs in with it", phone.InboxID(), alice.InboxID)
		sameInbox(t, bob, alice, alice.InboxID)
		// And goes with it, when theirs removes it.
		alice.Call(nil, "removeAccount", named(third))
		if s := sameInbox(t, bob, alice, alice.InboxID); s.Has(third.Address()) || s.Has(phone.InstallationID()) {
			t.Errorf("after it was removed: %+v", s)
		}
		if _, err := bob.InboxIDOf(ctx, third.Address()); !errors.Is(err, xmtp.ErrNoInbox) {
			t.Errorf("inbox of the removed passkey: %v", err)
		}

		// An inbox that a passkey has made with theirs, as far as their SDK goes: the
		// installation is in the log, its key package is not uploaded.
		fourth := newPasskey(t)
		device := &official.Client{Process: w.Process, Name: "device"}
		w.Must(official.Request{Op: "build", Client: "device", Address: fourth.Address(), Kind: identifierPasskey,
			Options: map[string]any{"env": "local", "apiUrl": w.url, "dbPath": t.TempDir() + "/device.db3", "disableDeviceSync": true}}, device)
		w.Must(official.Request{Op: "call", On: "device", Path: "unsafe_createInboxSignatureRequest", As: "creating"}, nil)
		signByPasskey(t, w.Process, "creating", fourth)
		device.Call(nil, "unsafe_applySignatureRequest", official.Ref("creating"))
		reach, err := bob.Reach(ctx, fourth.Address())
		if r := check(t, reach, err)[0]; r.InboxID != device.InboxID || !errors.Is(r.Err, xmtp.ErrNoKeyPackage) {
			t.Errorf("reach of an inbox without a key package: %+v", r)
		}
		watch := goInstallation(t, w.url, fourth)
		equal(t, "inbox of ours that signs in with their passkey", watch.InboxID(), device.InboxID)
		s = sameInbox(t, bob, alice, device.InboxID)
		equal(t, "installations", installationsOf(s), []string{device.InstallationID, watch.InstallationID()})
	})
}

// signByPasskey signs a request of an official client, which is kept under a name.
func signByPasskey(t *testing.T, p *official.Process, request string, passkey *xmtp.PasskeySigner) {
	t.Helper()
	var text string
	p.Must(official.Request{Op: "call", On: request, Path: "signatureText"}, &text)
	signed, err := passkey.SignText(t.Context(), text)
	var signature associations.RecoverablePasskeySignature
	if err := proto.Unmarshal(check(t, signed, err), &signature); err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	for name, b := range map[string][]byte{
		"publicKey": signature.PublicKey, "signature": signature.Signature,
		"authenticatorData": signature.AuthenticatorData, "clientDataJson": signature.ClientDataJson,
	} {
		numbers := make([]int, len(b)) // the bindings ask for arrays
		for i := range b {
			numbers[i] = int(b[i])
		}
		fields[name] = numbers
	}
	p.Must(official.Request{Op: "call", On: request, Path: "addPasskeySignature", Args: []any{fields}}, nil)
}

func TestGoContractIdentifiers(t *testing.T) {
	scenarioOnChain(t, "Go: contract wallets added, removed, and as recovery", baseline, func(t *testing.T, w *world, c *contracts) {
		ctx := t.Context()
		first := newGoSigner(t)
		alice, bob := w.Client("alice"), goInstallation(t, w.url, first)
		there, planned := c.wallet(true), c.wallet(false)
		ok := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, wallet := range []*contractWallet{there, planned} {
			ok(bob.AddIdentifier(ctx, wallet.signer(t)))
			equal(t, "inbox of the contract", inboxOf(alice, wallet.official().Identifier()), bob.InboxID())
		}
		s := sameInbox(t, bob, alice, bob.InboxID())
		for _, m := range s.Identifiers {
			if contract := m.Identifier.String() != first.Address(); m.Contract != contract || contract && m.ChainID != chain.ID {
				t.Errorf("contract or not: %+v", m)
			}
		}
		phone := w.Installation("phone", planned.official())
		equal(t, "inbox of who signs in with a contract", phone.InboxID, bob.InboxID())

		// A contract is the recovery identifier, for both sides.
		ok(bob.ChangeRecovery(ctx, first, hexOf(there.Address[:])))
		ok(bob.RemoveIdentifier(ctx, there.signer(t), hexOf(planned.Address[:])))
		s = sameInbox(t, bob, alice, bob.InboxID())
		if s.Has(hexOf(planned.Address[:])) || s.Has(phone.InstallationID) {
			t.Errorf("after it was removed: %+v", s)
		}
		tablet := w.Installation("tablet", there.official())
		tablet.Call(nil, "removeAccount", walletOf(first).Identifier())
		s = sameInbox(t, goClient(t, w.url), alice, bob.InboxID())
		equal(t, "identifiers", addressesOf(s), []string{hexOf(there.Address[:])})
		equal(t, "installations", installationsOf(s), []string{tablet.InstallationID})
		// What the contract doesn't sign is not done.
		stranger := c.wallet(true)
		stranger.owner = chain.NewKey(t)
		if err := bob.AddIdentifier(ctx, stranger.signer(t)); !errors.Is(err, identity.ErrSignatureInvalid) {
			t.Errorf("a contract that refuses: %v", err)
		}
	})
}
