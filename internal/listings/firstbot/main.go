// Command firstbot is the listing of docs/first-bot.md.
package main

import (
	"context"
	"log"
	"os"

	"github.com/go-xmtp/go-xmtp/xmtp"
)

func main() {
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
	log.Println("the bot is", bot.Address())
	for m, err := range bot.StreamAllMessages(ctx, xmtp.Durable("answers")) {
		if err != nil {
			log.Fatal(err)
		}
		if m.SenderInboxID == bot.InboxID() || m.Text() == "" {
			continue
		}
		if chat, err := bot.Conversation(m.ConversationID); err == nil {
			once := xmtp.WithIdempotencyKey("answer to " + m.ID)
			if _, err := chat.SendText(ctx, "You said: "+m.Text(), once); err != nil {
				log.Println(err)
			}
		}
	}
}
