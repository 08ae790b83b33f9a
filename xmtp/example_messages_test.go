package xmtp_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// read syncs a conversation and prints the texts in it.
func read(ctx context.Context, v *xmtp.Conversation) {
	if err := v.Sync(ctx); err != nil {
		log.Fatal(err)
	}
	messages, err := v.Messages(xmtp.MessageOptions{Types: []content.Type{content.TypeText}})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range messages {
		fmt.Println(m.Text())
	}
}

// Nobody waits for the node: the messages are there at once.
func ExampleConversation_SendOptimistic() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, bobs := group(ctx, alice, bob)

	for _, text := range []string{"one", "two"} {
		m, err := alices.SendOptimistic(content.Text(text))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Text(), m.Delivery == xmtp.Unpublished)
	}
	// They are published in the background; who wants to be sure says so.
	if err := alices.PublishMessages(ctx); err != nil {
		log.Fatal(err)
	}
	read(ctx, bobs)
	// Output:
	// one true
	// two true
	// one
	// two
}

func ExampleConversation_PublishMessages() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, bobs := group(ctx, alice, bob)

	if _, err := alices.SendOptimistic(content.Text("hello")); err != nil {
		log.Fatal(err)
	}
	if err := alices.PublishMessages(ctx); xmtp.IsRetryable(err) {
		fmt.Println("the background goes on with it")
	} else if errors.Is(err, xmtp.ErrRefused) {
		fmt.Println("some are not published, see their Delivery")
	} else if err != nil {
		log.Fatal(err)
	}
	read(ctx, bobs)
	// Output: hello
}

// A message is kept until it is to be published, and by the same way one that has
// failed is tried again.
func ExampleConversation_Prepare() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, bobs := group(ctx, alice, bob)

	draft, err := alices.Prepare(content.Text("happy new year"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := alices.SendText(ctx, "good evening"); err != nil {
		log.Fatal(err)
	}
	// Later:
	if _, err := alices.Publish(ctx, draft.ID); err != nil {
		log.Fatal(err)
	}
	read(ctx, bobs)
	// Output:
	// good evening
	// happy new year
}

func ExampleConversation_Publish() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, bobs := group(ctx, alice, bob)

	if _, err := alices.Prepare(content.Text("hello")); err != nil {
		log.Fatal(err)
	}
	waiting, err := alices.Messages(xmtp.MessageOptions{Delivery: xmtp.Unpublished})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range waiting {
		if _, err := alices.Publish(ctx, m.ID); err != nil {
			log.Fatal(err)
		}
	}
	read(ctx, bobs)
	// Output: hello
}

// Who doesn't know whether he has sent something sends it again, with the same key.
func ExampleWithIdempotencyKey() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, bobs := group(ctx, alice, bob)

	for range 3 {
		if _, err := alices.SendText(ctx, "your parcel is there", xmtp.WithIdempotencyKey("parcel 17")); err != nil {
			log.Fatal(err)
		}
	}
	read(ctx, bobs)
	// Output: your parcel is there
}

// Pages of a conversation, from the newest message backwards.
func ExampleConversation_Messages() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, _ := group(ctx, alice, bob)
	for i := range 5 {
		if _, err := alices.SendText(ctx, fmt.Sprint("message ", i)); err != nil {
			log.Fatal(err)
		}
	}

	page := xmtp.MessageOptions{Kind: xmtp.KindApplication, ByInserted: true, Descending: true, Limit: 2}
	for {
		messages, err := alices.Messages(page)
		if err != nil {
			log.Fatal(err)
		}
		if len(messages) == 0 {
			break
		}
		fmt.Println(len(messages), "from", messages[0].Text())
		page.InsertedBefore = messages[len(messages)-1].InsertedAt
	}
	// Output:
	// 2 from message 4
	// 2 from message 2
	// 1 from message 0
}

func ExampleConversation_CountMessages() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, bobs := group(ctx, alice, bob)
	for range 3 {
		if _, err := alices.SendText(ctx, "hello"); err != nil {
			log.Fatal(err)
		}
	}
	if err := bobs.Sync(ctx); err != nil {
		log.Fatal(err)
	}

	n, err := bobs.CountMessages(xmtp.MessageOptions{Kind: xmtp.KindApplication, ExcludeSenders: []string{bob.InboxID()}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n)
	// Output: 3
}

// A program sends content of its own, and shows the content of others as far as it
// knows it.
func ExampleWithCodec() {
	type poll struct{ Question string }
	codec := content.Codec[poll]{
		Type:     content.Type{Authority: "example.com", Name: "poll", Major: 1},
		Push:     true,
		Encode:   func(p poll) (*content.Encoded, error) { return &content.Encoded{Content: []byte(p.Question)}, nil },
		Decode:   func(e *content.Encoded) (poll, error) { return poll{string(e.Content)}, nil },
		Fallback: func(p poll) string { return "A poll: " + p.Question },
	}
	ctx := context.Background()
	alice, _, url, done := account(ctx) // knows nothing of polls
	defer done()
	bob, err := xmtp.NewClient(ctx, newWallet(), xmtp.WithNode(url), xmtp.InMemory(), xmtp.WithCodec(codec))
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Close()

	chat, err := bob.DM(ctx, alice.InboxID())
	if err != nil {
		log.Fatal(err)
	}
	encoded, err := content.Encode(codec, poll{"Lunch?"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := chat.Send(ctx, encoded); err != nil {
		log.Fatal(err)
	}
	for _, c := range []*xmtp.Client{alice, bob} {
		if err := c.Sync(ctx); err != nil {
			log.Fatal(err)
		}
		v, err := c.Conversation(chat.ID())
		if err != nil {
			log.Fatal(err)
		}
		m, err := v.LastMessage()
		if err != nil {
			log.Fatal(err)
		}
		switch value, err := c.Decode(m); {
		case err == nil:
			fmt.Printf("%T %v\n", value, value)
		case m.Content != nil && m.Content.Fallback != nil:
			fmt.Println(*m.Content.Fallback)
		}
	}
	// Output:
	// A poll: Lunch?
	// xmtp_test.poll {Lunch?}
}

// What members said and what happened, by one way.
func ExampleClient_Decode() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, _ := group(ctx, alice, bob)
	if _, err := alices.SendText(ctx, "hello"); err != nil {
		log.Fatal(err)
	}

	messages, err := alices.Messages(xmtp.MessageOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range messages {
		value, err := alice.Decode(m)
		if err != nil {
			log.Fatal(err)
		}
		switch v := value.(type) {
		case string:
			fmt.Println("said:", v)
		case *content.GroupUpdated:
			fmt.Println("Bob was added:", slices.Equal(v.Added, []string{bob.InboxID()}))
		}
	}
	// Output:
	// Bob was added: true
	// said: hello
}

// When messages disappear, for Alice and for Bob.
func ExampleMessage_expiresAt() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, bobs := group(ctx, alice, bob)
	if err := alices.SetDisappearing(ctx, xmtp.Disappearing{In: time.Hour}); err != nil {
		log.Fatal(err)
	}
	if _, err := alices.SendText(ctx, "forget it"); err != nil {
		log.Fatal(err)
	}
	if err := bobs.Sync(ctx); err != nil {
		log.Fatal(err)
	}
	for _, v := range []*xmtp.Conversation{alices, bobs} {
		m, err := v.LastMessage()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Text(), "in", time.Until(m.ExpiresAt).Round(time.Minute))
	}
	// Output:
	// forget it in 1h0m0s
	// forget it in 1h0m0s
}

// The names that official clients have for errors, for logs and dashboards that know them.
func ExampleErrorCode() {
	ctx := context.Background()
	alice, bob, _, done := people(ctx)
	defer done()
	alices, bobs := group(ctx, alice, bob)
	if err := alices.RemoveMembers(ctx, bob.InboxID()); err != nil {
		log.Fatal(err)
	}
	_, err := bobs.SendText(ctx, "still here?")
	fmt.Println(xmtp.ErrorCode(err), xmtp.IsRetryable(err), errors.Is(err, xmtp.ErrRemoved))
	// Output: GroupError::GroupInactive false true
}
