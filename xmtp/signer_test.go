package xmtp

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node"
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
	chain := &contracts{}
	n := must(node.Start(t.Context(), node.Options{Listen: "127.0.0.1:0", Ephemeral: true, ContractVerifier: chain}))(t)
	t.Cleanup(func() { n.Close() })
	url := "http://" + n.Addr()
	wallet := func(change string) Signer {
		return ContractWalletSigner("0x1234567890ABCDEF1234567890abcdef12345678", 8453, func(_ context.Context, text string) ([]byte, error) {
			chain.text = text
			return []byte(text + change), nil
		})
	}
	open := func(s Signer) error {
		c, err := NewClient(t.Context(), s, WithNode(url), InMemory())
		if err == nil {
			check(t, c.Close())
		}
		return err
	}
	if err := open(wallet(" and more")); !errors.Is(err, identity.ErrSignatureInvalid) {
		t.Errorf("a bad signature: %v", err)
	}
	chain.err = errors.New("away")
	if err := open(wallet("")); !errors.Is(err, identity.ErrVerifierUnavailable) || status.Code(err) != codes.Unavailable {
		t.Errorf("a chain that is away: %v", err)
	}
	chain.err = nil
	first := openClient(t, wallet(""), WithNode(url), InMemory())
	second := openClient(t, wallet(""), WithNode(url), InMemory())
	if first.InboxID() != second.InboxID() || first.InstallationID() == second.InstallationID() {
		t.Errorf("inboxes %s and %s", first.InboxID(), second.InboxID())
	}
	// Everybody reads the log, though its chain is away again.
	chain.err = errors.New("away")
	other := newClient(t, url)
	dm := must(other.DM(t.Context(), first.Address()))(t)
	must(dm.SendText(t.Context(), "hello"))(t)
	for _, c := range []*Client{first, second} {
		if got := texts(t, inConversation(t, c, dm.ID())); len(got) != 1 {
			t.Errorf("the contract's client reads %q", got)
		}
	}
}
