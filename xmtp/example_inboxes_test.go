package xmtp_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// account opens a client of a new wallet, on a node of its own.
func account(ctx context.Context) (client *xmtp.Client, wallet xmtp.Signer, url string, done func()) {
	n, err := node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	url = "http://" + n.Addr()
	wallet = newWallet()
	client, err = xmtp.NewClient(ctx, wallet, xmtp.WithNode(url), xmtp.InMemory())
	if err != nil {
		log.Fatal(err)
	}
	return client, wallet, url, func() {
		client.Close()
		n.Close()
	}
}

func newWallet() xmtp.Signer {
	wallet, err := xmtp.GeneratePrivateKeySigner()
	if err != nil {
		log.Fatal(err)
	}
	return wallet
}

// From now on people find Alice by either wallet.
func ExampleClient_AddIdentifier() {
	ctx := context.Background()
	alice, _, _, done := account(ctx)
	defer done()
	second := newWallet()

	if err := alice.AddIdentifier(ctx, second); err != nil {
		log.Fatal(err)
	}
	inboxID, err := alice.InboxIDOf(ctx, second.Address())
	fmt.Println(inboxID == alice.InboxID(), err)
	// Output: true <nil>
}

// A wallet that has an inbox comes to another one, after a warning.
func ExampleClient_ReassignIdentifier() {
	ctx := context.Background()
	alice, _, url, done := account(ctx)
	defer done()
	second := newWallet()
	phone, err := xmtp.NewClient(ctx, second, xmtp.WithNode(url), xmtp.InMemory())
	if err != nil {
		log.Fatal(err)
	}
	defer phone.Close()

	err = alice.AddIdentifier(ctx, second)
	if taken, ok := errors.AsType[*xmtp.AlreadyAssociatedError](err); ok {
		fmt.Println("It will not open this inbox any more:", taken.InboxID == phone.InboxID())
		err = alice.ReassignIdentifier(ctx, second)
	}
	fmt.Println(err)
	// Output:
	// It will not open this inbox any more: true
	// <nil>
}

func ExampleClient_RemoveIdentifier() {
	ctx := context.Background()
	alice, wallet, _, done := account(ctx)
	defer done()
	second := newWallet()
	if err := alice.AddIdentifier(ctx, second); err != nil {
		log.Fatal(err)
	}

	fmt.Println(errors.Is(alice.RemoveIdentifier(ctx, second, wallet.Address()), xmtp.ErrNotRecovery))
	fmt.Println(alice.RemoveIdentifier(ctx, wallet, second.Address()))
	// Output:
	// true
	// <nil>
}

// A wallet that lies in a safe is to recover the inbox; it need not belong to it.
func ExampleClient_ChangeRecovery() {
	ctx := context.Background()
	alice, wallet, _, done := account(ctx)
	defer done()
	safe := newWallet()

	if err := alice.ChangeRecovery(ctx, wallet, safe.Address()); err != nil {
		log.Fatal(err)
	}
	states, err := alice.InboxStates(ctx, alice.InboxID())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(states[0].Recovery.String() == safe.Address(), len(states[0].Identifiers))
	// Output: true 1
}

// A user who has a passkey and no wallet.
func ExampleNewPasskeySigner() {
	ctx := context.Background()
	_, _, url, done := account(ctx)
	defer done()

	// In an app this is done by the device: navigator.credentials.get in a browser.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	publicKey, err := key.PublicKey.Bytes()
	if err != nil {
		log.Fatal(err)
	}
	passkey, err := xmtp.NewPasskeySigner(publicKey, func(ctx context.Context, challenge []byte) (*xmtp.PasskeyAssertion, error) {
		a := &xmtp.PasskeyAssertion{
			AuthenticatorData: make([]byte, 37),
			ClientDataJSON: fmt.Appendf(nil, `{"type":"webauthn.get","challenge":%q,"origin":"https://example.org"}`,
				base64.RawURLEncoding.EncodeToString(challenge)),
		}
		hash := sha256.Sum256(a.ClientDataJSON)
		digest := sha256.Sum256(append(a.AuthenticatorData, hash[:]...))
		var err error
		a.Signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:])
		return a, err
	})
	if err != nil {
		log.Fatal(err)
	}
	client, err := xmtp.NewClient(ctx, passkey, xmtp.WithNode(url), xmtp.InMemory())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	inboxID, err := client.InboxIDOf(ctx, passkey.Address())
	fmt.Println(inboxID == client.InboxID(), err)
	// Output: true <nil>
}

func ExampleClient_InboxStates() {
	ctx := context.Background()
	alice, wallet, _, done := account(ctx)
	defer done()

	states, err := alice.InboxStates(ctx, alice.InboxID())
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range states {
		fmt.Println(s.Updates, "of", xmtp.MaxInboxUpdates, "updates")
		for _, m := range s.Identifiers {
			fmt.Println(m.Identifier.Kind(), m.Identifier.String() == wallet.Address())
		}
		for _, i := range s.Installations {
			fmt.Println(i.ID == alice.InstallationID(), i.AddedBy == s.Identifiers[0].Identifier)
		}
	}
	// Output:
	// 1 of 256 updates
	// ethereum true
	// true true
}

func ExampleClient_StoredInboxStates() {
	ctx := context.Background()
	alice, _, _, done := account(ctx)
	defer done()

	states, err := alice.StoredInboxStates(alice.InboxID()) // also without a network
	fmt.Println(len(states), err)
	// Output: 1 <nil>
}

func ExampleClient_InboxHistory() {
	ctx := context.Background()
	alice, wallet, _, done := account(ctx)
	defer done()
	second := newWallet()
	if err := errors.Join(alice.AddIdentifier(ctx, second), alice.RemoveIdentifier(ctx, wallet, second.Address())); err != nil {
		log.Fatal(err)
	}

	history, err := alice.InboxHistory(ctx, alice.InboxID())
	if err != nil {
		log.Fatal(err)
	}
	for _, u := range history {
		fmt.Println("added", len(u.Added), "removed", len(u.Removed))
	}
	// Output:
	// added 2 removed 0
	// added 1 removed 0
	// added 0 removed 1
}

// Alice and Bob read Bob's fingerprint to each other: if both see the same, nobody
// has slipped a device in.
func ExampleInboxState_Fingerprint() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()

	bobs, err := bob.InboxStates(ctx, bob.InboxID())
	if err != nil {
		log.Fatal(err)
	}
	alices, err := alice.InboxStates(ctx, bob.InboxID())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(alices[0].Fingerprint() == bobs[0].Fingerprint(), len(bobs[0].Fingerprint()))
	// Output: true 35
}

// The app tells its user when somebody has a new device.
func ExampleClient_StreamInstallations() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	bob, wallet, url, done := account(ctx)
	defer done()
	alice, err := xmtp.NewClient(ctx, newWallet(), xmtp.WithNode(url), xmtp.InMemory())
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()
	if _, err := alice.DM(ctx, bob.InboxID()); err != nil {
		log.Fatal(err)
	}

	changes := alice.StreamInstallations(ctx)
	tablet, err := xmtp.NewClient(ctx, wallet, xmtp.WithNode(url), xmtp.InMemory())
	if err != nil {
		log.Fatal(err)
	}
	defer tablet.Close()
	if _, err := alice.InboxStates(ctx, bob.InboxID()); err != nil { // or whatever makes her look
		log.Fatal(err)
	}
	for change, err := range changes {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(change.InboxID == bob.InboxID(), change.Added[0] == tablet.InstallationID())
		break
	}
	// Output: true true
}

func ExampleClient_InboxIDs() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()

	nobody := newWallet().Address()
	ids, err := alice.InboxIDs(ctx, bob.Address(), nobody)
	fmt.Println(ids[bob.Address()] == bob.InboxID(), len(ids), err)
	// Output: true 1 <nil>
}

func ExampleClient_CanMessage() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()

	nobody := newWallet().Address()
	can, err := alice.CanMessage(ctx, bob.Address(), nobody)
	fmt.Println(can[bob.Address()], can[nobody], err)
	// Output: true false <nil>
}

// Whether anything would arrive, and why not.
func ExampleClient_Reach() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()

	reaches, err := alice.Reach(ctx, bob.Address(), newWallet().Address())
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range reaches {
		fmt.Println(len(r.Installations), r.Err)
	}
	// Output:
	// 1 <nil>
	// 0 no inbox
}

func ExampleClient_KeyPackageStatuses() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()

	statuses, err := alice.KeyPackageStatuses(ctx, bob.InstallationID())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(statuses[0].Err, statuses[0].NotAfter.After(time.Now()))
	// Output: <nil> true
}

// A server lets in whoever proves to be a device of an inbox.
func ExampleVerifyInstallationSignature() {
	ctx := context.Background()
	alice, _, url, done := account(ctx)
	defer done()
	challenge := "let me in, 2026-08-01 12:00:00"
	signature := alice.SignWithInstallationKey(challenge)

	if err := xmtp.VerifyInstallationSignature(alice.InstallationID(), challenge, signature); err != nil {
		log.Fatal(err)
	}
	authorized, err := xmtp.IsAuthorized(ctx, alice.InboxID(), alice.InstallationID(), xmtp.WithNode(url))
	fmt.Println(authorized, err)
	// Output: true <nil>
}

func ExampleClient_IsAuthorized() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()

	fmt.Println(alice.IsAuthorized(ctx, bob.InboxID(), bob.Address()))
	fmt.Println(alice.IsAuthorized(ctx, bob.InboxID(), alice.InstallationID()))
	// Output:
	// true <nil>
	// false <nil>
}

// Without a client: nothing is registered, nothing is stored.
func ExampleInboxStates() {
	ctx := context.Background()
	alice, _, url, done := account(ctx)
	defer done()
	network := xmtp.WithNode(url)

	can, err := xmtp.CanMessage(ctx, []string{alice.Address()}, network)
	if err != nil {
		log.Fatal(err)
	}
	ids, err := xmtp.InboxIDs(ctx, []string{alice.Address()}, network)
	if err != nil {
		log.Fatal(err)
	}
	states, err := xmtp.InboxStates(ctx, []string{ids[alice.Address()]}, network)
	if err != nil {
		log.Fatal(err)
	}
	statuses, err := xmtp.KeyPackageStatuses(ctx, []string{states[0].Installations[0].ID}, network)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(can[alice.Address()], statuses[0].Err)
	// Output: true <nil>
}

func ExampleNewestMessages() {
	ctx := context.Background()
	alice, _, url, done := account(ctx)
	defer done()
	notes, err := alice.NewGroup(ctx, xmtp.GroupOptions{})
	if err != nil {
		log.Fatal(err)
	}
	sent, err := notes.SendText(ctx, "milk")
	if err != nil {
		log.Fatal(err)
	}

	newest, err := xmtp.NewestMessages(ctx, []string{notes.ID()}, xmtp.WithNode(url))
	fmt.Println(newest[notes.ID()].At.Equal(sent.SentAt), err)
	// Output: true <nil>
}

// The inbox that a wallet will create can be told beforehand.
func Example_inboxID() {
	wallet, err := identity.ParseAddress("0x1234567890ABCDEF1234567890abcdef12345678")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(identity.DeriveInboxID(wallet, 0))
	// Output: fcd18d86276d7a99fe522dba9660c420f03c8648785ada7c5daae232a3df77a9 <nil>
}
