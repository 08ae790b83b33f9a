package xmtp_test

import (
	"context"
	"fmt"
	"log"

	"github.com/go-xmtp/go-xmtp/xmtp"
)

// A bot that misses nothing: what came while it was away is there when it is back.
func ExampleDurable() {
	ctx := context.Background()
	alice, bot, _, done := people(ctx)
	defer done()
	dm, err := alice.DM(ctx, bot.Address())
	if err != nil {
		log.Fatal(err)
	}
	handle := func(upTo string) {
		for m, err := range bot.StreamAllMessages(ctx, xmtp.Durable("answers")) {
			if err != nil {
				log.Fatal(err)
			}
			if m.Text() == "" {
				continue
			}
			fmt.Println("handled:", m.Text())
			if m.Text() == upTo {
				break
			}
		}
	}
	// The name is used for the first time: the stream begins here.
	bot.StreamAllMessages(ctx, xmtp.Durable("answers"))
	for _, text := range []string{"one", "two", "three"} {
		if _, err := dm.SendText(ctx, text); err != nil {
			log.Fatal(err)
		}
	}

	handle("two")
	fmt.Println("a pause")
	handle("three")
	// Output:
	// handled: one
	// handled: two
	// a pause
	// handled: three
}

// What is stored, and then what comes.
func ExampleFromStart() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	_, v := group(ctx, alice, bob)
	if _, err := v.SendText(ctx, "stored"); err != nil {
		log.Fatal(err)
	}

	for m, err := range v.StreamMessages(ctx, xmtp.FromStart()) {
		if err != nil {
			log.Fatal(err)
		}
		if m.Text() != "" {
			fmt.Println(m.Text())
			break
		}
	}
	// Output: stored
}

func ExampleClient_DurableStreams() {
	ctx := context.Background()
	_, bot, _, done := people(ctx)
	defer done()

	bot.StreamAllMessages(ctx, xmtp.Durable("answers"))
	fmt.Println(bot.DurableStreams())
	// Output: [answers] <nil>
}

func ExampleClient_ForgetDurable() {
	ctx := context.Background()
	_, bot, _, done := people(ctx)
	defer done()

	bot.StreamAllMessages(ctx, xmtp.Durable("answers"))
	if err := bot.ForgetDurable("answers"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(bot.DurableStreams())
	// Output: [] <nil>
}
