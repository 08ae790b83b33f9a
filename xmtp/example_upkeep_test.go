package xmtp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

func ExampleConversation_Fork() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, bobs := group(ctx, alice, bob)
	if _, err := bobs.SendText(ctx, "Hello"); err != nil {
		log.Fatal(err)
	}
	if err := alices.Sync(ctx); err != nil {
		log.Fatal(err)
	}

	// The workers do this every five minutes: Alice, who is a super admin, tells what
	// the commits have led to for her, and Bob compares.
	for _, c := range []*xmtp.Client{alice, bob} {
		if err := c.CheckForks(ctx); err != nil {
			log.Fatal(err)
		}
	}
	fork, err := bobs.Fork()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(fork.Status, "in epoch", fork.Epoch, bytes.Equal(fork.EpochAuthenticator, fork.TheirEpochAuthenticator))
	// Output:
	// healthy in epoch 2 true
}

func ExampleConversation_DebugInfo() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, _ := group(ctx, alice, bob)
	if err := alices.SetName(ctx, "Trip"); err != nil {
		log.Fatal(err)
	}
	info, err := alices.DebugInfo(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range info.CommitLog {
		fmt.Println("epoch", c.Epoch, c.Kind)
	}
	// Output:
	// epoch 0 GroupCreation
	// epoch 1 UpdateGroupMembership
	// epoch 2 MetadataUpdate
}

func ExampleClient_Upkeep() {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	signer, err := xmtp.GeneratePrivateKeySigner()
	if err != nil {
		log.Fatal(err)
	}
	// A program that is run once a day has no use for workers.
	c, err := xmtp.NewClient(ctx, signer, xmtp.WithNode("http://"+n.Addr()), xmtp.InMemory(),
		xmtp.WithoutWorkers(), xmtp.WithRegistrationWait(30*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.Upkeep(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("done")
	// Output: done
}

func ExampleWithSelfUpdate() {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	signer, err := xmtp.GeneratePrivateKeySigner()
	if err != nil {
		log.Fatal(err)
	}
	policy := xmtp.SelfUpdatePolicy{
		BeforeMessage: 7 * 24 * time.Hour,  // the keys we send with are a week old at most,
		Background:    14 * 24 * time.Hour, // and nowhere are they older than about two
	}
	c, err := xmtp.NewClient(ctx, signer, xmtp.WithNode("http://"+n.Addr()), xmtp.InMemory(), xmtp.WithSelfUpdate(policy))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	v, err := c.NewGroup(ctx, xmtp.GroupOptions{})
	if err != nil {
		log.Fatal(err)
	}
	at, err := v.KeysUpdatedAt()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(time.Since(at) < time.Hour)
	// Output: true
}

func ExampleClient_StreamDeletions() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, _ := group(ctx, alice, bob)
	if err := alices.SetDisappearing(ctx, xmtp.Disappearing{In: 2 * time.Second}); err != nil {
		log.Fatal(err)
	}
	m, err := alices.SendText(ctx, "This message will self-destruct.")
	if err != nil {
		log.Fatal(err)
	}
	for d, err := range alice.StreamDeletions(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("take it off the screen:", d.MessageID == m.ID)
		break
	}
	// Output: take it off the screen: true
}

func ExampleClient_WaitRegistered() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	alice, _, _, done := people(ctx)
	defer done()
	// From now on others find Alice, whichever process of the node they ask.
	if err := alice.WaitRegistered(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("visible")
	// Output: visible
}

func ExampleWithBudget() {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	// What the public network allows from one address, for all clients of this program.
	budget := xmtp.NewBudget(20_000, 3_000, 5*time.Minute)
	signer, err := xmtp.GeneratePrivateKeySigner()
	if err != nil {
		log.Fatal(err)
	}
	bot, err := xmtp.NewClient(ctx, signer, xmtp.WithNode("http://"+n.Addr()), xmtp.InMemory(), xmtp.WithBudget(budget))
	if err != nil {
		log.Fatal(err)
	}
	defer bot.Close()

	_, writes := budget.Left()
	fmt.Println(writes > 2000, "and no call waits:", bot.Requests().Waiting == 0)
	fmt.Println(bot.Requests().Calls["PublishIdentityUpdate"], "identity update was published")
	// Output:
	// true and no call waits: true
	// 1 identity update was published
}

func ExampleRateLimitError() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	chat, err := alice.DM(ctx, bob.Address())
	if err != nil {
		log.Fatal(err)
	}
	_, err = chat.SendText(ctx, "Hello")
	if limit, ok := errors.AsType[*xmtp.RateLimitError](err); ok {
		// The message is in the outbox and goes out later, by itself. Whoever has more
		// to send had better wait.
		time.Sleep(limit.RetryAfter)
	} else if err != nil {
		log.Fatal(err)
	}
	fmt.Println("sent or stored")
	// Output:
	// sent or stored
}
