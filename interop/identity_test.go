package interop

import (
	"encoding/base64"
	"encoding/hex"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/interop/official"
)

// inboxState is what the SDKs tell about an inbox.
type inboxState struct {
	InboxID            string       `json:"inboxId"`
	RecoveryIdentifier identifier   `json:"recoveryIdentifier"`
	Identifiers        []identifier `json:"identifiers"`
	Installations      []struct {
		ID string `json:"id"`
	} `json:"installations"`
}

type identifier struct {
	Identifier string `json:"identifier"`
}

func (s inboxState) installations() []string {
	var ids []string
	for _, installation := range s.Installations {
		ids = append(ids, installation.ID)
	}
	return ids
}

func (s inboxState) addresses() []string {
	var addresses []string
	for _, identifier := range s.Identifiers {
		addresses = append(addresses, identifier.Identifier)
	}
	return addresses
}

// stateOf asks the node for an inbox through the eyes of a client.
func stateOf(client *official.Client, inboxID string) inboxState {
	var states []inboxState
	client.Call(&states, "preferences.fetchInboxStates", []string{inboxID})
	return states[0]
}

func TestRegister(t *testing.T) {
	scenario(t, "register", everyVersion, func(t *testing.T, w *world) {
		alice := w.Client("alice")
		if !alice.IsRegistered || alice.InboxID == "" || alice.InstallationID == "" {
			t.Fatalf("not registered: %+v", alice)
		}
		bob := w.Client("bob")
		state := stateOf(bob, alice.InboxID)
		equal(t, "addresses", state.addresses(), []string{alice.Wallet.Address})
		equal(t, "installations", state.installations(), []string{alice.InstallationID})
		equal(t, "recovery address", state.RecoveryIdentifier.Identifier, alice.Wallet.Address)

		var statuses map[string]struct {
			Lifetime        *struct{ NotBefore, NotAfter string } `json:"lifetime"`
			ValidationError string                                `json:"validationError"`
		}
		bob.Call(&statuses, "fetchKeyPackageStatuses", []string{alice.InstallationID})
		if status := statuses[alice.InstallationID]; status.Lifetime == nil || status.ValidationError != "" {
			t.Errorf("key package of alice: %+v", status)
		}

		// The second start of an app: known already, nothing to sign.
		again := alice.Reopen(w.Process)
		equal(t, "inbox after reopening", again.InboxID, alice.InboxID)
		equal(t, "installation after reopening", again.InstallationID, alice.InstallationID)
	})
}

func TestLookUp(t *testing.T) {
	scenario(t, "inbox look-up, canMessage", everyVersion, func(t *testing.T, w *world) {
		alice, bob, nobody := w.Client("alice"), w.Client("bob"), w.Wallet()
		var inboxID *string
		alice.Call(&inboxID, "fetchInboxIdByIdentifier", bob.Wallet.Identifier())
		if inboxID == nil || *inboxID != bob.InboxID {
			t.Errorf("inbox of bob's address: %v, want %s", inboxID, bob.InboxID)
		}
		inboxID = nil
		alice.Call(&inboxID, "fetchInboxIdByIdentifier", nobody.Identifier())
		if inboxID != nil {
			t.Errorf("inbox of an address without one: %s", *inboxID)
		}
		var can map[string]bool
		alice.Call(&can, "canMessage", []any{bob.Wallet.Identifier(), nobody.Identifier(), alice.Wallet.Identifier()})
		equal(t, "canMessage", can, map[string]bool{
			bob.Wallet.Address: true, nobody.Address: false, alice.Wallet.Address: true,
		})
	})
}

// With the network given as a backend, which 5.5 does not have: look-ups without a client.
func TestLookUpWithoutClient(t *testing.T) {
	scenario(t, "look-ups without a client", []official.SDK{official.Baseline, official.Newest}, func(t *testing.T, w *world) {
		alice, nobody := w.Client("alice"), w.Wallet()
		w.Must(official.Request{Op: "call", Path: "createBackend", As: "backend",
			Args: []any{map[string]any{"env": "local", "apiUrl": w.url}}}, nil)
		static := func(out any, path string, args ...any) {
			t.Helper()
			w.Must(official.Request{Op: "call", Path: path, Args: args}, out)
		}
		backend := official.Ref("backend")

		var inboxID *string
		static(&inboxID, "getInboxIdForIdentifier", backend, alice.Wallet.Identifier())
		if inboxID == nil || *inboxID != alice.InboxID {
			t.Errorf("inbox of alice's address: %v", inboxID)
		}
		var can map[string]bool
		static(&can, "Client.canMessage", []any{alice.Wallet.Identifier(), nobody.Identifier()}, backend)
		equal(t, "canMessage", can, map[string]bool{alice.Wallet.Address: true, nobody.Address: false})
		var states []inboxState
		static(&states, "Client.fetchInboxStates", []string{alice.InboxID}, backend)
		equal(t, "installations", states[0].installations(), []string{alice.InstallationID})
		var authorized bool
		static(&authorized, "Client.isAddressAuthorized", alice.InboxID, alice.Wallet.Address, backend)
		equal(t, "alice's address authorized", authorized, true)
		static(&authorized, "Client.isAddressAuthorized", alice.InboxID, nobody.Address, backend)
		equal(t, "another address authorized", authorized, false)
		static(&authorized, "Client.isInstallationAuthorized", alice.InboxID, official.Bytes(idBytes(t, alice)), backend)
		equal(t, "alice's installation authorized", authorized, true)

		// How an account gets back in that has too many installations.
		second := w.Installation("alice2", alice.Wallet)
		static(nil, "Client.revokeInstallations", alice.Wallet.Signer(), alice.InboxID,
			[]any{official.Bytes(idBytes(t, second))}, backend)
		equal(t, "installations after revoking", stateOf(alice, alice.InboxID).installations(), []string{alice.InstallationID})
	})
}

func idBytes(t *testing.T, client *official.Client) []byte {
	t.Helper()
	id, err := hex.DecodeString(client.InstallationID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSecondInstallation(t *testing.T) {
	scenario(t, "second installation, revoke", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), w.Client("bob")
		group := bob.Group([]*official.Client{alice}, nil)
		group.Send("before")

		alice2 := w.Installation("alice2", alice.Wallet)
		equal(t, "inbox of the second installation", alice2.InboxID, alice.InboxID)
		if alice2.InstallationID == alice.InstallationID {
			t.Fatal("the second installation has the first one's key")
		}
		equal(t, "number of installations", len(stateOf(bob, alice.InboxID).Installations), 2)

		// Bob's client adds the new installation to the group before it sends on. It looks
		// for one at most every few seconds, so the look is asked for.
		bob.Call(nil, "preferences.fetchInboxStates", []string{alice.InboxID})
		eventually(t, "the second installation gets the group", func() bool {
			group.Send("after")
			alice2.SyncAll()
			_, err := alice2.TryFind(group)
			return err == nil
		})
		group.Send("for both")
		alice.SyncAll()
		alice2.SyncAll()
		contains(t, "first installation", alice.Find(group).Texts(), "before", "after", "for both")
		contains(t, "second installation", alice2.Find(group).Texts(), "for both")
		alice2.Find(group).Send("from the second")
		group.Sync()
		contains(t, "bob", group.Texts(), "from the second")

		alice.Call(nil, "revokeInstallations", []any{official.Bytes(idBytes(t, alice2))})
		equal(t, "installations after revoking", stateOf(bob, alice.InboxID).installations(), []string{alice.InstallationID})
		eventually(t, "bob's group without the revoked installation", func() bool {
			group.Send("revoked")
			return len(group.Members()[alice.InboxID].InstallationIDs) == 1
		})
		group.Send("not for the revoked")
		alice.SyncAll()
		contains(t, "first installation", alice.Find(group).Texts(), "not for the revoked")
		alice2.TryCall(nil, "conversations.syncAll") // may or may not be an error for the SDK
		if left, err := alice2.TryFind(group); err == nil {
			for _, text := range left.Texts() {
				if text == "not for the revoked" {
					t.Error("the revoked installation reads on")
				}
			}
		}

		w.Installation("alice3", alice.Wallet)
		equal(t, "number of installations", len(stateOf(bob, alice.InboxID).Installations), 2)
		alice.Call(nil, "revokeAllOtherInstallations")
		equal(t, "installations after revoking all others", stateOf(bob, alice.InboxID).installations(), []string{alice.InstallationID})
	})
}

func TestWallets(t *testing.T) {
	scenario(t, "link and unlink a wallet, change recovery", baseline, func(t *testing.T, w *world) {
		alice, bob, second := w.Client("alice"), w.Client("bob"), w.Wallet()
		alice.Call(nil, "unsafe_addAccount", second.Signer(), true)
		sameSet(t, "addresses", stateOf(bob, alice.InboxID).addresses(), []string{alice.Wallet.Address, second.Address})
		var inboxID *string
		bob.Call(&inboxID, "fetchInboxIdByIdentifier", second.Identifier())
		if inboxID == nil || *inboxID != alice.InboxID {
			t.Fatalf("inbox of the linked wallet: %v, want %s", inboxID, alice.InboxID)
		}
		// A client that signs in with the linked wallet is one more installation of the inbox.
		phone := w.Installation("phone", second)
		equal(t, "inbox of the linked wallet's client", phone.InboxID, alice.InboxID)

		var dm official.Conversation
		bob.Call(&dm, "conversations.createDmWithIdentifier", second.Identifier())
		equal(t, "peer of the DM", dm.PeerInboxID, alice.InboxID)

		alice.Call(nil, "removeAccount", second.Identifier())
		equal(t, "addresses after unlinking", stateOf(bob, alice.InboxID).addresses(), []string{alice.Wallet.Address})
		var can map[string]bool
		bob.Call(&can, "canMessage", []any{second.Identifier()})
		equal(t, "canMessage of the unlinked wallet", can, map[string]bool{second.Address: false})
		// What the unlinked wallet had added goes with it.
		equal(t, "installations after unlinking", stateOf(bob, alice.InboxID).installations(), []string{alice.InstallationID})

		// What a wallet signs tells the time in whole seconds, and the same signature again
		// is refused as a replay.
		time.Sleep(1100 * time.Millisecond)
		alice.Call(nil, "unsafe_addAccount", second.Signer(), true)
		alice.Call(nil, "changeRecoveryIdentifier", second.Identifier())
		equal(t, "recovery address", stateOf(bob, alice.InboxID).RecoveryIdentifier.Identifier, second.Address)
		if err := alice.TryCall(nil, "removeAccount", second.Identifier()); err == nil {
			t.Error("the old recovery wallet still removes accounts")
		}
		equal(t, "number of addresses", len(stateOf(bob, alice.InboxID).Identifiers), 2)

		// A wallet that was unlinked everywhere starts an inbox of its own.
		third := w.Wallet()
		alice.Call(nil, "unsafe_addAccount", third.Signer(), true)
		can = nil
		bob.Call(&can, "canMessage", []any{third.Identifier()})
		equal(t, "canMessage of the third wallet", can, map[string]bool{third.Address: true})
	})
}

func TestInstallationKey(t *testing.T) {
	scenario(t, "signing with the installation key", baseline, func(t *testing.T, w *world) {
		alice := w.Client("alice")
		var signature string
		alice.Call(&signature, "signWithInstallationKey", "a text")
		raw, err := base64.StdEncoding.DecodeString(signature)
		if err != nil || len(raw) != 64 {
			t.Fatalf("signature %q: %v", signature, err)
		}
		var valid bool
		alice.Call(&valid, "verifySignedWithInstallationKey", "a text", official.Bytes(raw))
		equal(t, "signature valid", valid, true)
		alice.Call(&valid, "verifySignedWithInstallationKey", "another text", official.Bytes(raw))
		equal(t, "signature of another text valid", valid, false)
	})
}
