package xmtp_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/xmtp"
	"github.com/go-xmtp/go-xmtp/xmtptest"
)

// contracts is a chain whose wallets accept signatures that are their text.
type contracts struct {
	text string
	err  error
}

func (c *contracts) VerifyContractSignature(_ context.Context, accountID string, hash [32]byte, signature []byte, block *uint64) (bool, uint64, error) {
	asked := uint64(1234)
	if block != nil {
		asked = *block
	}
	valid := string(signature) == c.text && hash == identity.TextDigest(c.text) && accountID == "eip155:8453:0x1234567890abcdef1234567890abcdef12345678"
	return valid, asked, c.err
}

// A wallet that is a contract registers when its chain has said yes, and others
// talk to it.
func TestContractWallet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		chain := &contracts{}
		n := xmtptest.New(t, xmtptest.WithNodeOptions(func(o *node.Options) { o.ContractVerifier = chain }))
		open := func(device, change string) (*xmtp.Client, error) {
			wallet := xmtp.ContractWalletSigner("0x1234567890ABCDEF1234567890abcdef12345678", 8453, func(_ context.Context, text string) ([]byte, error) {
				chain.text = text
				return []byte(text + change), nil
			})
			c, err := xmtp.NewClient(t.Context(), wallet, n.Options(device)...)
			if err == nil {
				t.Cleanup(func() { check(t, c.Close()) })
			}
			return c, err
		}
		if _, err := open("bad", " and more"); !errors.Is(err, identity.ErrSignatureInvalid) {
			t.Errorf("a bad signature: %v", err)
		}
		chain.err = errors.New("away")
		if _, err := open("away", ""); !errors.Is(err, identity.ErrVerifierUnavailable) || status.Code(err) != codes.Unavailable {
			t.Errorf("a chain that is away: %v", err)
		}
		chain.err = nil
		first, second := must(open("first", ""))(t), must(open("second", ""))(t)
		if first.InboxID() != second.InboxID() || first.InstallationID() == second.InstallationID() {
			t.Errorf("inboxes %s and %s", first.InboxID(), second.InboxID())
		}
		// Everybody reads the log, though its chain is away again.
		chain.err = errors.New("away")
		dm := must(n.Client("other").DM(t.Context(), first.Address()))(t)
		must(dm.SendText(t.Context(), "hello"))(t)
		for _, c := range []*xmtp.Client{first, second} {
			if got := textsOf(t, c, dm.ID()); len(got) != 1 {
				t.Errorf("the contract's client reads %q", got)
			}
		}
	})
}
