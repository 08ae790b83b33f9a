package xmtp_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/go-xmtp/go-xmtp/xmtp"
)

// device opens one more installation of a wallet's inbox.
func device(ctx context.Context, wallet xmtp.Signer, url string, options ...xmtp.Option) *xmtp.Client {
	c, err := xmtp.NewClient(ctx, wallet, append([]xmtp.Option{xmtp.WithNode(url), xmtp.InMemory()}, options...)...)
	if err != nil {
		log.Fatal(err)
	}
	return c
}

// installations are the ids of an inbox's installations.
func installations(ctx context.Context, c *xmtp.Client) (ids []string) {
	states, err := c.InboxStates(ctx, c.InboxID())
	if err != nil {
		log.Fatal(err)
	}
	for _, i := range states[0].Installations {
		ids = append(ids, i.ID)
	}
	return ids
}

// Alice has lost her phone.
func ExampleClient_RevokeInstallations() {
	ctx := context.Background()
	laptop, wallet, url, done := account(ctx)
	defer done()
	phone := device(ctx, wallet, url)
	defer phone.Close()

	if err := laptop.RevokeInstallations(ctx, wallet, phone.InstallationID()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(slices.Equal(installations(ctx, laptop), []string{laptop.InstallationID()}))
	// Output: true
}

func ExampleClient_RevokeOtherInstallations() {
	ctx := context.Background()
	laptop, wallet, url, done := account(ctx)
	defer done()
	phone, tablet := device(ctx, wallet, url), device(ctx, wallet, url)
	defer phone.Close()
	defer tablet.Close()

	if err := laptop.RevokeOtherInstallations(ctx, wallet); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(installations(ctx, laptop)))
	// Output: 1
}

// The wallet is enough.
func ExampleRevokeInstallations() {
	ctx := context.Background()
	laptop, wallet, url, done := account(ctx)
	defer done()

	err := xmtp.RevokeInstallations(ctx, wallet, laptop.InboxID(), []string{laptop.InstallationID()}, xmtp.WithNode(url))
	fmt.Println(len(installations(ctx, laptop)), err)
	// Output: 0 <nil>
}

// At the limit the two oldest have to go.
func ExampleInstallationLimitError() {
	ctx := context.Background()
	_, wallet, url, done := account(ctx)
	defer done()
	for range 9 {
		defer device(ctx, wallet, url).Close()
	}

	open := func() (*xmtp.Client, error) {
		return xmtp.NewClient(ctx, wallet, xmtp.WithNode(url), xmtp.InMemory())
	}
	client, err := open()
	if full, ok := errors.AsType[*xmtp.InstallationLimitError](err); ok {
		fmt.Println("there are", len(full.Installations))
		if err := full.Revoke(ctx, wallet, full.Installations[0].ID, full.Installations[1].ID); err != nil {
			log.Fatal(err)
		}
		client, err = open()
	}
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	fmt.Println("now there are", len(installations(ctx, client)))
	// Output:
	// there are 10
	// now there are 9
}

// A bot that alone uses its inbox leaves nothing behind when its disk is lost.
func ExampleWithReplacing() {
	ctx := context.Background()
	lost, wallet, url, done := account(ctx)
	defer done()

	bot := device(ctx, wallet, url, xmtp.WithReplacing(func(xmtp.Installation) bool { return true }))
	defer bot.Close()
	fmt.Println(slices.Equal(installations(ctx, bot), []string{bot.InstallationID()}))
	revoked, err := lost.IsRevoked(ctx)
	fmt.Println(revoked, err)
	// Output:
	// true
	// true <nil>
}

// If people use the inbox, too, only what the program itself had is replaced: here
// the installations since it was first deployed.
func ExampleWithReplacing_since() {
	ctx := context.Background()
	phone, wallet, url, done := account(ctx)
	defer done()
	deployed := time.Now()
	lost := device(ctx, wallet, url)
	defer lost.Close()

	bot := device(ctx, wallet, url, xmtp.WithReplacing(func(i xmtp.Installation) bool { return i.AddedAt.After(deployed) }))
	defer bot.Close()
	fmt.Println(slices.Equal(installations(ctx, bot), []string{phone.InstallationID(), bot.InstallationID()}))
	// Output: true
}

func ExampleClient_IsRevoked() {
	ctx := context.Background()
	client, _, _, done := account(ctx)
	defer done()

	revoked, err := client.IsRevoked(ctx)
	fmt.Println(revoked, err)
	// Output: false <nil>
}

func ExampleInboxState_UpdatesLeft() {
	ctx := context.Background()
	client, _, _, done := account(ctx)
	defer done()

	states, err := client.InboxStates(ctx, client.InboxID())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(states[0].UpdatesLeft(), states[0].NearlyFull())
	// Output: 255 false
}
