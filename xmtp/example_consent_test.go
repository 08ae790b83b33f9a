package xmtp_test

import (
	"context"
	"fmt"
	"log"

	"github.com/go-xmtp/go-xmtp/xmtp"
)

// Bob doesn't want to hear of a group any more, nor of Alice.
func ExampleClient_SetConsent() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	_, v := group(ctx, alice, bob)

	err := bob.SetConsent(
		xmtp.Consent{Kind: xmtp.ConversationConsent, Entity: v.ID(), State: xmtp.ConsentDenied},
		xmtp.Consent{Kind: xmtp.InboxConsent, Entity: alice.InboxID(), State: xmtp.ConsentDenied},
	)
	if err != nil {
		log.Fatal(err)
	}
	wanted, err := bob.Conversations(xmtp.ConversationOptions{})
	fmt.Println(len(wanted), err)
	denied, err := bob.Conversations(xmtp.ConversationOptions{Consent: []xmtp.ConsentState{xmtp.ConsentDenied}})
	fmt.Println(len(denied), err)
	// Output:
	// 0 <nil>
	// 1 <nil>
}

func ExampleClient_Consent() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()

	state, err := bob.Consent(xmtp.InboxConsent, alice.InboxID())
	fmt.Println(state, err)
	// Output: unknown <nil>
}

func ExampleClient_Consents() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	group(ctx, alice, bob)

	allowed, err := alice.Consents(xmtp.ConversationConsent, xmtp.ConsentAllowed)
	fmt.Println(len(allowed), err)
	// Output: 1 <nil>
}

// Who answers wants the conversation.
func ExampleConversation_Consent() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	_, v := group(ctx, alice, bob)

	fmt.Println(v.Consent())
	if _, err := v.SendText(ctx, "hello"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(v.Consent())
	// Output:
	// unknown <nil>
	// allowed <nil>
}

func ExampleConversation_SetConsent() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	_, v := group(ctx, alice, bob)

	if err := v.SetConsent(xmtp.ConsentDenied); err != nil {
		log.Fatal(err)
	}
	fmt.Println(v.Consent())
	// Output: denied <nil>
}

func ExampleClient_StreamConsent() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()

	stream := bob.StreamConsent(ctx)
	if err := bob.SetConsent(xmtp.Consent{Kind: xmtp.InboxConsent, Entity: alice.InboxID(), State: xmtp.ConsentAllowed}); err != nil {
		log.Fatal(err)
	}
	for decided, err := range stream {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("an inbox is", decided.State)
		break
	}
	// Output: an inbox is allowed
}

// A page of a list, and the next.
func ExampleClient_Conversations() {
	ctx := context.Background()
	alice, bob, carol, done := people(ctx)
	defer done()
	for _, user := range []string{bob.Address(), carol.Address()} {
		v, err := alice.DM(ctx, user)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := v.SendText(ctx, "hello"); err != nil {
			log.Fatal(err)
		}
	}

	o := xmtp.ConversationOptions{Type: xmtp.DMConversation, Limit: 1}
	for {
		page, err := alice.Conversations(o)
		if err != nil {
			log.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		last, err := page[0].LastMessage()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("with carol:", page[0].PeerInboxID() == carol.InboxID(), last.Text())
		o.ActiveBefore = last.SentAt
	}
	// Output:
	// with carol: true hello
	// with carol: false hello
}

func ExampleClient_FindDM() {
	ctx := context.Background()
	alice, bob, carol, done := people(ctx)
	defer done()
	created, err := alice.DM(ctx, bob.Address(), xmtp.DMDisappearing(xmtp.Disappearing{In: 3600e9}))
	if err != nil {
		log.Fatal(err)
	}

	found, err := alice.FindDM(ctx, bob.Address())
	fmt.Println(found.ID() == created.ID(), err)
	if _, err := alice.FindDM(ctx, carol.InboxID()); err != nil {
		fmt.Println("none with carol")
	}
	// Output:
	// true <nil>
	// none with carol
}

func ExampleConversation_LastMessage() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, _ := group(ctx, alice, bob)
	if _, err := v.SendText(ctx, "where are you?"); err != nil {
		log.Fatal(err)
	}

	m, err := v.LastMessage()
	fmt.Println(m.Text(), err)
	// Output: where are you? <nil>
}

// If both had created it at once, the other one would be here.
func ExampleConversation_Duplicates() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, err := alice.DM(ctx, bob.Address())
	if err != nil {
		log.Fatal(err)
	}

	others, err := v.Duplicates()
	fmt.Println(len(others), err)
	// Output: 0 <nil>
}

func ExampleClient_Message() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, _ := group(ctx, alice, bob)
	sent, err := v.SendText(ctx, "hello")
	if err != nil {
		log.Fatal(err)
	}

	m, err := alice.Message(sent.ID)
	fmt.Println(m.Text(), err)
	// Output: hello <nil>
}

// A bot for direct messages that leaves strangers to somebody else.
func ExampleClient_StreamAllMessages() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	chat, err := bob.DM(ctx, alice.Address())
	if err != nil {
		log.Fatal(err)
	}

	stream := bob.StreamAllMessages(ctx, xmtp.OfType(xmtp.DMConversation), xmtp.WithConsent(xmtp.ConsentAllowed))
	if _, err := chat.SendText(ctx, "hello"); err != nil {
		log.Fatal(err)
	}
	for m, err := range stream {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Text())
		break
	}
	// Output: hello
}

func ExampleConversation_StreamMessages() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	v, bobs := group(ctx, alice, bob)

	stream := bobs.StreamMessages(ctx)
	if _, err := v.SendText(ctx, "hello"); err != nil {
		log.Fatal(err)
	}
	for m, err := range stream {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Text())
		break
	}
	// Output: hello
}

func ExampleClient_StreamConversations() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()

	stream := bob.StreamConversations(ctx, xmtp.OfType(xmtp.GroupConversation))
	created, err := alice.NewGroup(ctx, xmtp.GroupOptions{}, bob.Address())
	if err != nil {
		log.Fatal(err)
	}
	for v, err := range stream {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(v.ID() == created.ID())
		break
	}
	// Output: true
}
