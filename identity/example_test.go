package identity_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// register makes the update with which a wallet creates its inbox and lets a
// first installation in.
func register(wallet *identity.WalletKey, device ed25519.PrivateKey, at time.Time) *associations.IdentityUpdate {
	ctx := context.Background()
	owner := wallet.Identifier()
	inboxID, err := identity.DeriveInboxID(owner, identity.DefaultNonce)
	if err != nil {
		panic(err)
	}
	request, err := identity.NewSignatureRequest(inboxID, at,
		identity.CreateInbox(owner, identity.DefaultNonce),
		identity.AddMember(owner, identity.Installation(device.Public().(ed25519.PublicKey))))
	if err != nil {
		panic(err)
	}
	// The installation signs by itself; the wallet shows the text to a person.
	for _, sig := range []*associations.Signature{
		identity.SignInstallation(device, request.Text()),
		wallet.SignText(request.Text()),
	} {
		if err := request.AddSignature(ctx, sig, nil); err != nil {
			panic(err)
		}
	}
	update, err := request.Update()
	if err != nil {
		panic(err)
	}
	return update
}

func Example() {
	wallet, err := identity.ParseWalletKey(bytes.Repeat([]byte{0x11}, 32))
	if err != nil {
		panic(err)
	}
	device := ed25519.NewKeyFromSeed(make([]byte, 32))
	update := register(wallet, device, time.Unix(1_700_000_000, 0))

	text, err := identity.SignatureText(update)
	if err != nil {
		panic(err)
	}
	fmt.Println(text)
	fmt.Println()

	// Everybody who reads the log checks it from the start.
	state, err := identity.ReplayInbox(context.Background(), update.GetInboxId(), []*associations.IdentityUpdate{update}, nil)
	if err != nil {
		panic(err)
	}
	for _, member := range state.Members() {
		fmt.Println(member.Identifier.Kind(), member.Identifier)
	}
	// Output:
	// XMTP : Authenticate to inbox
	//
	// Inbox ID: 45915bad9a857a62ceed43a7573d3eef87966c96961128c520dc1c5d6fa5d38b
	// Current time: 2023-11-14T22:13:20Z
	//
	// - Create inbox
	//   (Owner: 0x19e7e376e7c213b7e7e7e46cc70a5dd086daff2a)
	// - Grant messaging access to app
	//   (ID: 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29)
	//
	// For more info: https://xmtp.org/signatures
	//
	// installation 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29
	// ethereum 0x19e7e376e7c213b7e7e7e46cc70a5dd086daff2a
}

// A node verifies an update before it stores it, and every replica applies the
// stored facts.
func ExampleVerify() {
	wallet, err := identity.ParseWalletKey(bytes.Repeat([]byte{0x11}, 32))
	if err != nil {
		panic(err)
	}
	update := register(wallet, ed25519.NewKeyFromSeed(make([]byte, 32)), time.Unix(1_700_000_000, 0))

	facts, err := identity.Verify(context.Background(), update, nil)
	if err != nil {
		panic(err)
	}
	record, err := facts.MarshalBinary()
	if err != nil {
		panic(err)
	}

	stored, err := identity.UnmarshalVerifiedUpdate(record)
	if err != nil {
		panic(err)
	}
	var before *identity.State // the inbox doesn't exist yet
	after, err := before.Apply(stored)
	if err != nil {
		panic(err)
	}
	added, removed := identity.Diff(before, after)
	fmt.Println(len(added), "added,", len(removed), "removed")

	_, err = after.Apply(stored)
	fmt.Println(err, errors.Is(err, identity.ErrMultipleCreate), identity.ErrorCode(err))
	// Output:
	// 2 added, 0 removed
	// Multiple create operations detected true AssociationError::MultipleCreate
}
