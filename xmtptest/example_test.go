package xmtptest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-xmtp/go-xmtp/xmtp"
	"github.com/go-xmtp/go-xmtp/xmtptest"
)

// echo is a bot.
func echo(ctx context.Context, bot *xmtp.Client) error {
	for m, err := range bot.StreamAllMessages(ctx) {
		if err != nil {
			return err
		}
		if m.SenderInboxID == bot.InboxID() || m.Text() == "" {
			continue
		}
		chat, err := bot.Conversation(m.ConversationID)
		if err != nil {
			return err
		}
		if _, err := chat.SendText(ctx, "You said: "+m.Text()); err != nil {
			return err
		}
	}
	return nil
}

// A bot is asked something, and answers.
func Example() {
	testEcho := func(t *testing.T) {
		n := xmtptest.New(t)
		alice, bot := n.Client("alice"), n.Client("bot")
		go echo(t.Context(), bot)

		chat, err := alice.DM(t.Context(), bot.Address())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chat.SendText(t.Context(), "hello"); err != nil {
			t.Fatal(err)
		}
		for m, err := range chat.StreamMessages(t.Context(), xmtp.FromStart()) {
			if err != nil {
				t.Fatal(err)
			}
			if m.SenderInboxID == bot.InboxID() && m.Text() == "You said: hello" {
				break
			}
		}
	}
	isTest(testEcho)
}

// The bot's answer is lost on its way, all is cut off for a while, and yet everybody gets
// everything. The test takes no longer for it.
func ExampleNetwork_Fault() {
	testBadMinutes := func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := xmtptest.New(t)
			alice, bot := n.Client("alice"), n.Client("bot")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go echo(ctx, bot)

			chat, err := alice.DM(ctx, bot.Address())
			if err != nil {
				t.Fatal(err)
			}
			fault := n.Fault(xmtptest.Calls{Client: "bot", Method: "SendGroupMessages", Count: 1}, xmtptest.DropResponse())
			if _, err := chat.SendText(ctx, "hello"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			n.Cut()
			time.Sleep(2 * time.Minute)
			n.Restore()
			time.Sleep(time.Second) // they try twice a second
			if _, err := chat.SendText(ctx, "are you there?"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)

			if err := chat.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			messages, err := chat.Messages(xmtp.MessageOptions{})
			if err != nil {
				t.Fatal(err)
			}
			answers := 0
			for _, m := range messages {
				if m.SenderInboxID == bot.InboxID() {
					answers++
				}
			}
			if answers != 2 || fault.Hits() != 1 {
				t.Errorf("%d answers, of which %d were lost at first", answers, fault.Hits())
			}
		})
	}
	isTest(testBadMinutes)
}

// exampleTests are the tests in examples, which have to hold.
var exampleTests []func(*testing.T)

func isTest(test func(*testing.T)) { exampleTests = append(exampleTests, test) }

func TestExamples(t *testing.T) {
	exampleTests = nil
	Example()
	ExampleNetwork_Fault()
	for _, test := range exampleTests {
		t.Run("", test)
	}
}
