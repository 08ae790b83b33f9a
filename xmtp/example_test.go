package xmtp_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// A bot that answers everybody who writes to it.
func Example() {
	signer, err := xmtp.NewPrivateKeySigner(os.Getenv("XMTP_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	bot, err := xmtp.NewClient(ctx, signer, xmtp.WithNode(xmtp.Local))
	if err != nil {
		log.Fatal(err)
	}
	defer bot.Close()
	for m, err := range bot.StreamAllMessages(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if m.SenderInboxID == bot.InboxID() || m.Text() == "" {
			continue
		}
		if chat, err := bot.Conversation(m.ConversationID); err == nil {
			chat.SendText(ctx, "You said: "+m.Text())
		}
	}
}

// Two users chat, on a node of their own.
func ExampleClient_DM() {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	open := func() *xmtp.Client {
		signer, err := xmtp.GeneratePrivateKeySigner()
		if err != nil {
			log.Fatal(err)
		}
		client, err := xmtp.NewClient(ctx, signer, xmtp.WithNode("http://"+n.Addr()), xmtp.InMemory())
		if err != nil {
			log.Fatal(err)
		}
		return client
	}
	alice, bob := open(), open()
	defer alice.Close()
	defer bob.Close()

	chat, err := alice.DM(ctx, bob.Address())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := chat.SendText(ctx, "hello"); err != nil {
		log.Fatal(err)
	}
	if err := bob.Sync(ctx); err != nil {
		log.Fatal(err)
	}
	received, err := bob.Conversation(chat.ID())
	if err != nil {
		log.Fatal(err)
	}
	messages, err := received.Messages(xmtp.MessageOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range messages {
		if m.Kind == xmtp.KindApplication {
			fmt.Println(m.Text())
		}
	}
	// Output: hello
}
