package xmtp_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// people opens clients of Alice, Bob and Carol, on a node of their own.
func people(ctx context.Context) (alice, bob, carol *xmtp.Client, done func()) {
	n, err := node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	var clients [3]*xmtp.Client
	for i := range clients {
		signer, err := xmtp.GeneratePrivateKeySigner()
		if err != nil {
			log.Fatal(err)
		}
		if clients[i], err = xmtp.NewClient(ctx, signer, xmtp.WithNode("http://"+n.Addr()), xmtp.InMemory()); err != nil {
			log.Fatal(err)
		}
	}
	return clients[0], clients[1], clients[2], func() {
		for _, c := range clients {
			c.Close()
		}
		n.Close()
	}
}

// group makes a group of Alice, who is its super admin, and Bob.
func group(ctx context.Context, alice, bob *xmtp.Client) (alices, bobs *xmtp.Conversation) {
	alices, err := alice.NewGroup(ctx, xmtp.GroupOptions{}, bob.Address())
	if err != nil {
		log.Fatal(err)
	}
	if err := bob.Sync(ctx); err != nil {
		log.Fatal(err)
	}
	if bobs, err = bob.Conversation(alices.ID()); err != nil {
		log.Fatal(err)
	}
	return alices, bobs
}

func info(ctx context.Context, v *xmtp.Conversation) xmtp.Info {
	if err := v.Sync(ctx); err != nil {
		log.Fatal(err)
	}
	info, err := v.Info(ctx)
	if err != nil {
		log.Fatal(err)
	}
	return info
}

func ExampleClient_NewGroup() {
	ctx := context.Background()
	alice, bob, carol, done := people(ctx)
	defer done()

	trip, err := alice.NewGroup(ctx, xmtp.GroupOptions{
		Name:         "Trip",
		Description:  "Where to go in May",
		Disappearing: xmtp.Disappearing{In: 24 * time.Hour},
		Permissions:  xmtp.Permissions{xmtp.PermissionAddMember: xmtp.PolicyAdmins},
	}, bob.Address(), carol.InboxID())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, trip).Name)
	// Output: Trip
}

// Those who can't be reached are named, the others are in.
func ExampleConversation_AddMembers() {
	ctx := context.Background()
	alice, bob, carol, done := people(ctx)
	defer done()
	v, _ := group(ctx, alice, bob)

	err := v.AddMembers(ctx, carol.Address())
	if failed, ok := errors.AsType[*xmtp.NotAddedError](err); ok {
		for _, user := range failed.Users {
			fmt.Println(user.InboxID, "comes in later:", user.Reason)
		}
	} else if err != nil {
		log.Fatal(err)
	}
	members, err := v.Members(ctx)
	fmt.Println(len(members), err)
	// Output: 3 <nil>
}

func ExampleConversation_Awaited() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, _ := group(ctx, alice, bob)

	inboxIDs, err := v.Awaited()
	fmt.Println(len(inboxIDs), "could not be added yet", err)
	// Output: 0 could not be added yet <nil>
}

func ExampleConversation_RemoveMembers() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	// Only admins may, here.
	err := bobs.RemoveMembers(ctx, alice.InboxID())
	fmt.Println(errors.Is(err, xmtp.ErrNotPermitted))
	if err := v.RemoveMembers(ctx, bob.Address()); err != nil {
		log.Fatal(err)
	}
	bobs.Sync(ctx)
	fmt.Println(bobs.IsActive())
	// Output:
	// true
	// false <nil>
}

func ExampleConversation_Members() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, _ := group(ctx, alice, bob)

	members, err := v.Members(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range members {
		if m.InboxID == alice.InboxID() {
			fmt.Println(m.Level, len(m.InstallationIDs), m.Identifiers[0].String() == alice.Address())
		}
	}
	// Output: super admin 1 true
}

func ExampleConversation_Info() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	_, bobs := group(ctx, alice, bob)

	info, err := bobs.Info(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Preset, info.Permissions[xmtp.PermissionRemoveMember], slices.Equal(info.SuperAdmins, []string{bobs.CreatorInboxID()}))
	// Output: all members admins true
}

func ExampleConversation_SetName() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	if err := bobs.SetName(ctx, "The two of us"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, v).Name)
	// What happened stands among the messages.
	messages, err := v.Messages(xmtp.MessageOptions{Descending: true, Limit: 1})
	if err != nil {
		log.Fatal(err)
	}
	updated, err := messages[0].Content.GroupUpdated()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(updated.InitiatedBy == bob.InboxID(), updated.Fields[0].Name, *updated.Fields[0].New)
	// Output:
	// The two of us
	// true group_name The two of us
}

func ExampleConversation_SetDescription() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	if err := v.SetDescription(ctx, "All about us"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, bobs).Description)
	// Output: All about us
}

func ExampleConversation_SetImageURL() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	if err := v.SetImageURL(ctx, "https://example.org/us.png"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, bobs).ImageURL)
	// Output: https://example.org/us.png
}

func ExampleConversation_SetAppData() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	if err := v.SetAppData(ctx, `{"colour":"blue"}`); err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, bobs).AppData)
	// Output: {"colour":"blue"}
}

func ExampleConversation_SetDisappearing() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	if err := v.SetDisappearing(ctx, xmtp.Disappearing{In: time.Hour}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, bobs).Disappearing.In)
	if err := v.SetDisappearing(ctx, xmtp.Disappearing{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, bobs).Disappearing.On())
	// Output:
	// 1h0m0s
	// false
}

func ExampleConversation_SetMinimumVersion() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	if err := v.SetMinimumVersion(ctx, "1.9.0"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, bobs).MinimumVersion)
	// A version that we are not like ourselves would lock us out.
	err := v.SetMinimumVersion(ctx, "99.0.0")
	fmt.Println(errors.As(err, new(*protocol.VersionError)))
	// Output:
	// 1.9.0
	// true
}

func ExampleConversation_PausedForVersion() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, _ := group(ctx, alice, bob)

	if version, err := v.PausedForVersion(); err != nil {
		log.Fatal(err)
	} else if version != "" {
		fmt.Println("update this program to one like version", version)
	} else {
		fmt.Println("up to date")
	}
	// Output: up to date
}

func ExampleConversation_SetPermissions() {
	ctx := context.Background()
	alice, bob, carol, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	err := v.SetPermissions(ctx, xmtp.Permissions{
		xmtp.PermissionAddMember: xmtp.PolicyDeny,
		xmtp.PermissionName:      xmtp.PolicyAdmins,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, bobs).Preset)
	fmt.Println(errors.Is(v.AddMembers(ctx, carol.Address()), xmtp.ErrNotPermitted))

	// A preset, whole.
	if err := v.SetPermissions(ctx, xmtp.AdminOnlyPermissions()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, bobs).Preset)
	// Output:
	// custom
	// true
	// admin only
}

func ExampleConversation_AddAdmin() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	if err := v.AddAdmin(ctx, bob.Address()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, bobs).Admins[0] == bob.InboxID())
	// Output: true
}

func ExampleConversation_RemoveAdmin() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	if err := errors.Join(v.AddAdmin(ctx, bob.Address()), v.RemoveAdmin(ctx, bob.Address())); err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, bobs).Admins)
	// Output: []
}

func ExampleConversation_AddSuperAdmin() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	if err := v.AddSuperAdmin(ctx, bob.Address()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(info(ctx, bobs).SuperAdmins))
	// Output: 2
}

// A super admin who wants to leave hands over first.
func ExampleConversation_RemoveSuperAdmin() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	if err := errors.Join(v.AddSuperAdmin(ctx, bob.Address()), v.RemoveSuperAdmin(ctx, alice.Address())); err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, bobs).SuperAdmins[0] == bob.InboxID())
	// Output: true
}

func ExampleConversation_Leave() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	if err := bobs.Leave(ctx); err != nil {
		log.Fatal(err)
	}
	state, err := bobs.MembershipState()
	fmt.Println(state == xmtp.MembershipPendingRemove, err)
	// Alice's client lets him go when it reads of it.
	if err := errors.Join(v.Sync(ctx), bobs.Sync(ctx)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(bobs.IsActive())
	// Output:
	// true <nil>
	// false <nil>
}

func ExampleConversation_MembershipState() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	_, bobs := group(ctx, alice, bob)

	state, err := bobs.MembershipState()
	fmt.Println(state == xmtp.MembershipPending, err)
	// Output: true <nil>
}
