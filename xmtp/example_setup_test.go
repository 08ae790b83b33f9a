package xmtp_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc/test/bufconn"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// A client with a database of its own, encrypted with a key that the program keeps.
func ExampleNewClient() {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	folder, err := os.MkdirTemp("", "xmtp-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	key := make([]byte, 32)
	rand.Read(key)

	wallet := newWallet()
	open := func() *xmtp.Client {
		client, err := xmtp.NewClient(ctx, wallet,
			xmtp.WithNode("http://"+n.Addr()),
			xmtp.WithDatabase(filepath.Join(folder, "alice.db")),
			xmtp.WithKey(key),
			xmtp.WithAppVersion("example/1.0"),
			xmtp.WithLogger(slog.New(slog.DiscardHandler)),
		)
		if err != nil {
			log.Fatal(err)
		}
		return client
	}
	first := open()
	id := first.InstallationID()
	if err := first.Close(); err != nil {
		log.Fatal(err)
	}
	again := open() // nothing to sign this time
	defer again.Close()
	fmt.Println("the same installation:", again.InstallationID() == id)
	// Output: the same installation: true
}

// A second process would do the same: it waits until the first one is gone.
func ExampleWithStandby() {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	folder, err := os.MkdirTemp("", "xmtp-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)

	wallet := newWallet()
	open := func() *xmtp.Client {
		client, err := xmtp.NewClient(ctx, wallet,
			xmtp.WithNode("http://"+n.Addr()),
			xmtp.WithDatabase(filepath.Join(folder, "bot.db")),
			xmtp.WithStandby(),
		)
		if err != nil {
			log.Fatal(err)
		}
		return client
	}
	first := open()
	taken := make(chan *xmtp.Client)
	go func() { taken <- open() }()
	if err := first.Close(); err != nil { // or its process is killed
		log.Fatal(err)
	}
	second := <-taken
	defer second.Close()
	fmt.Println("the same installation:", second.InstallationID() == first.InstallationID())
	// Output: the same installation: true
}

// A client without network and disk: the node is in the same program, and the database
// in memory, where it is found again. For tests there is package xmtptest.
func ExampleWithDialer() {
	ctx := context.Background()
	pipes := bufconn.Listen(64 << 10)
	n, err := node.Start(ctx, node.Options{Listener: pipes, Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	wallet, database := newWallet(), new(xmtp.Memory)
	open := func() *xmtp.Client {
		client, err := xmtp.NewClient(ctx, wallet,
			xmtp.WithNode("http://node.internal"),
			xmtp.WithDialer(func(ctx context.Context, address string) (net.Conn, error) {
				fmt.Println("connecting to", address)
				return pipes.DialContext(ctx)
			}),
			xmtp.WithMemory(database),
		)
		if err != nil {
			log.Fatal(err)
		}
		return client
	}
	first := open()
	id := first.InstallationID()
	if err := first.Close(); err != nil {
		log.Fatal(err)
	}
	again := open() // which needs no network
	defer again.Close()
	fmt.Println("the same installation:", again.InstallationID() == id)
	// Unordered output:
	// connecting to node.internal:80
	// the same installation: true
}

// A database whose protection is the disk's.
func ExampleWithoutEncryption() {
	ctx := context.Background()
	_, _, url, done := account(ctx)
	defer done()
	folder, err := os.MkdirTemp("", "xmtp-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)

	client, err := xmtp.NewClient(ctx, newWallet(), xmtp.WithNode(url),
		xmtp.WithDatabase(filepath.Join(folder, "bob.db")), xmtp.WithoutEncryption())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.Close())
	// Output: <nil>
}

// A wallet can have several inboxes made for it; the number says which. Messages of this
// client show their exact lengths to who can read the network.
func ExampleWithNonce() {
	ctx := context.Background()
	alice, _, url, done := account(ctx)
	defer done()

	other, err := xmtp.NewClient(ctx, newWallet(), xmtp.WithNode(url), xmtp.InMemory(), xmtp.WithNonce(7), xmtp.WithoutPadding())
	if err != nil {
		log.Fatal(err)
	}
	defer other.Close()
	fmt.Println(other.InboxID() != alice.InboxID())
	// Output: true
}

// The key is somewhere else, which is asked to sign.
func ExampleWalletSigner() {
	ctx := context.Background()
	_, _, url, done := account(ctx)
	defer done()

	elsewhere := newWallet()
	signer := xmtp.WalletSigner(elsewhere.Address(), func(ctx context.Context, text string) ([]byte, error) {
		return elsewhere.SignText(ctx, text) // or ask a user, or a key server
	})
	client, err := xmtp.NewClient(ctx, signer, xmtp.WithNode(url), xmtp.InMemory())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	fmt.Println(client.Address() == elsewhere.Address())
	// Output: true
}

// A wallet that is a contract. The node asks the chain whether the contract accepts what
// its owner signs.
func ExampleContractWalletSigner() {
	owner := newWallet()
	signer := xmtp.ContractWalletSigner("0x4e59b44847b379578588920ca78fbf26c0b4956c", 8453,
		func(ctx context.Context, text string) ([]byte, error) {
			return owner.SignText(ctx, text) // as this contract expects it
		})
	fmt.Println(signer.Address(), "on chain", signer.ChainID())
	// Output: 0x4e59b44847b379578588920ca78fbf26c0b4956c on chain 8453
}

// What a client could not use it leaves out, and tells.
func ExampleClient_Skipped() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	group(ctx, alice, bob)

	skipped, err := bob.Skipped()
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range skipped {
		fmt.Println(s.ConversationID, s.Number, s.Reason, s.Detail)
	}
	fmt.Println(len(skipped), "skipped")
	// Output: 0 skipped
}

// Members who are in the same epoch, with the same authenticator, have the same group.
func ExampleConversation_Epoch() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, bobs := group(ctx, alice, bob)

	number, authenticator, err := alices.Epoch(ctx)
	if err != nil {
		log.Fatal(err)
	}
	theirs, theirAuthenticator, err := bobs.Epoch(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(number == theirs, string(authenticator) == string(theirAuthenticator))
	// Output: true true
}

// May this address speak for an inbox?
func ExampleInboxState_Has() {
	ctx := context.Background()
	alice, wallet, _, done := account(ctx)
	defer done()

	states, err := alice.InboxStates(ctx, alice.InboxID())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(states[0].Has(wallet.Address()), states[0].Has(newWallet().Address()))
	// Output: true false
}

// A group like others, but that only admins invite.
func ExampleAllMembersPermissions() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()

	permissions := xmtp.AllMembersPermissions()
	permissions[xmtp.PermissionAddMember] = xmtp.PolicyAdmins
	v, err := alice.NewGroup(ctx, xmtp.GroupOptions{Permissions: permissions}, bob.Address())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info(ctx, v).Preset)
	// Output: custom
}

// New keys, for instance after a device was out of its owner's hands.
func ExampleConversation_UpdateKeys() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, _ := group(ctx, alice, bob)

	if err := v.UpdateKeys(ctx); err != nil {
		log.Fatal(err)
	}
	at, err := v.KeysUpdatedAt()
	fmt.Println(!at.IsZero(), err)
	// Output: true <nil>
}

// A message for which no phone has to light up.
func ExampleWithPush() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, _ := group(ctx, alice, bob)

	m, err := v.SendText(ctx, "when you have time", xmtp.WithPush(false))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Text())
	// Output: when you have time
}

// Both have made a direct message at the same time. They are one conversation, but who
// counts groups wants to hear of each.
func ExampleWithDuplicates() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	for _, pair := range [][2]*xmtp.Client{{alice, bob}, {bob, alice}} {
		dm, err := pair[0].DM(ctx, pair[1].Address())
		if err != nil {
			log.Fatal(err)
		}
		if _, err := dm.SendText(ctx, "hello"); err != nil {
			log.Fatal(err)
		}
	}

	for v, err := range bob.StreamConversations(ctx, xmtp.WithDuplicates()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("with Alice:", v.PeerInboxID() == alice.InboxID())
		break
	}
	// Output: with Alice: true
}
