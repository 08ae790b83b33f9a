package interop

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/identity/scw"
	"github.com/go-xmtp/go-xmtp/interop/chain"
	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// contracts are a chain, its endpoint, which can be made to fail, and what a test has
// on it.
type contracts struct {
	*chain.Chain
	t *testing.T
	// broken is how the endpoint fails: 0 not, -1 by hanging, else by that HTTP status.
	broken atomic.Int64
}

// scenarioOnChain runs a test with clients of each SDK on a node that has access to a chain.
func scenarioOnChain(t *testing.T, name string, sdks []official.SDK, run func(t *testing.T, w *world, c *contracts)) {
	t.Helper()
	t.Parallel()
	for _, sdk := range sdks {
		t.Run(string(sdk), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, name, sdk)
			c := &contracts{Chain: chain.Start(t), t: t}
			target, err := url.Parse(c.URL)
			if err != nil {
				t.Fatal(err)
			}
			proxy := httputil.NewSingleHostReverseProxy(target)
			endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch broken := c.broken.Load(); broken {
				case 0:
					proxy.ServeHTTP(w, r)
				case -1:
					io.Copy(io.Discard, r.Body) // only then it shows that the asker has left
					<-r.Context().Done()
				default:
					w.WriteHeader(int(broken))
				}
			}))
			t.Cleanup(endpoint.Close)
			verifier, err := scw.New(scw.Options{Endpoints: map[string]string{chain.CAIP2: endpoint.URL}, Timeout: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(verifier.Close)
			w.open("http://" + serve(t, node.Options{ContractVerifier: verifier}).Addr())
			run(t, w, c)
		})
	}
}

// contractWallet is a wallet that is a contract, with the key that owns it.
type contractWallet struct {
	chain.Counterfactual
	owner    chain.Key
	deployed bool
}

// wallet plans a wallet, and creates it if it is to be there.
func (c *contracts) wallet(deployed bool) *contractWallet {
	c.t.Helper()
	owner := chain.NewKey(c.t)
	w := &contractWallet{c.Plan(chain.Owned, owner.Address), owner, deployed}
	if deployed {
		c.Deploy(w.Counterfactual)
	}
	return w
}

// rotate gives a wallet another owner.
func (c *contracts) rotate(w *contractWallet) {
	c.t.Helper()
	w.owner = chain.NewKey(c.t)
	c.Call(w.Address, append(make([]byte, 4), common.LeftPadBytes(w.owner.Address[:], 32)...))
}

// official is the wallet as official clients use it.
func (w *contractWallet) official() official.Wallet {
	contract := &official.Contract{Address: hexOf(w.Address[:]), ChainID: chain.ID}
	if !w.deployed {
		contract.Factory, contract.Order = hexOf(w.Factory[:]), hexOf(w.Order)
	}
	return official.Wallet{Key: w.owner.Hex(), Address: contract.Address, Contract: contract}
}

// signer is the wallet as Go clients use it.
func (w *contractWallet) signer(t *testing.T) xmtp.Signer {
	return xmtp.ContractWalletSigner(hexOf(w.Address[:]), chain.ID, func(_ context.Context, text string) ([]byte, error) {
		signature := w.owner.Sign(t, identity.TextDigest(text))
		if !w.deployed {
			signature = w.Wrap(signature)
		}
		return signature, nil
	})
}

func hexOf(b []byte) string { return "0x" + hex.EncodeToString(b) }

func TestContractWallets(t *testing.T) {
	sdks := []official.SDK{official.Baseline, official.Newest}
	scenarioOnChain(t, "wallets that are contracts", sdks, func(t *testing.T, w *world, c *contracts) {
		ctx := t.Context()
		there, planned, goes := c.wallet(true), c.wallet(false), c.wallet(false)
		alice := w.Installation("alice", there.official())
		carol := w.Installation("carol", planned.official())
		bob, err := xmtp.NewClient(ctx, goes.signer(t), xmtp.WithNode(w.url), xmtp.InMemory())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { bob.Close() })
		equal(t, "addresses of alice", stateOf(carol, alice.InboxID).addresses(), []string{alice.Wallet.Address})
		equal(t, "addresses of Go", stateOf(alice, bob.InboxID()).addresses(), []string{hexOf(goes.Address[:])})

		// They talk, who is who being read from logs with contract signatures.
		theirs := alice.Group([]*official.Client{carol}, nil)
		theirs.Call(nil, "addMembers", []string{bob.InboxID()})
		theirs.Send("hello")
		v := find(t, bob, theirs.ID)
		v.say("hello from Go")
		carol.SyncAll()
		contains(t, "carol reads", carol.Find(theirs).Texts(), "hello from Go")
		sameState(t, v, theirs)
		dm, err := bob.DM(ctx, hexOf(there.Address[:]))
		ours := ours{check(t, dm, err), t}
		ours.say("to your contract")
		alice.SyncAll()
		equal(t, "alice reads", alice.Find(&official.Conversation{ID: ours.ID()}).Texts(), []string{"to your contract"})

		// The contract comes under a new owner, who signs from now on; what the first
		// signed stays valid.
		old := there.official()
		c.rotate(there)
		if _, err := w.TryInstallation("thief", old); err == nil {
			t.Error("the old owner still registers installations")
		}
		phone := w.Installation("phone", there.official())
		equal(t, "inbox of the new owner's installation", phone.InboxID, alice.InboxID)
		other := goClient(t, w.url)
		dm, err = other.DM(ctx, alice.InboxID)
		ours.Conversation = check(t, dm, err)
		ours.say("to both installations")
		phone.SyncAll()
		contains(t, "the new owner reads", phone.Find(&official.Conversation{ID: ours.ID()}).Texts(), "to both installations")

		// Contracts join the inbox of a plain wallet, and leave it.
		dave, second, third := w.Client("dave"), c.wallet(true), c.wallet(false)
		for _, wallet := range []*contractWallet{second, third} {
			dave.Call(nil, "unsafe_addAccount", wallet.official().Signer(), true)
		}
		sameSet(t, "addresses", stateOf(alice, dave.InboxID).addresses(),
			[]string{dave.Wallet.Address, hexOf(second.Address[:]), hexOf(third.Address[:])})
		dm, err = bob.DM(ctx, hexOf(third.Address[:]))
		equal(t, "inbox of the joined contract", check(t, dm, err).PeerInboxID(), dave.InboxID)
		tablet := w.Installation("tablet", second.official())
		equal(t, "inbox of the contract's installation", tablet.InboxID, dave.InboxID)
		dave.Call(nil, "removeAccount", second.official().Identifier())
		state := stateOf(alice, dave.InboxID)
		sameSet(t, "addresses after one left", state.addresses(), []string{dave.Wallet.Address, hexOf(third.Address[:])})
		equal(t, "installations after one left", state.installations(), []string{dave.InstallationID})
		own, err := xmtp.NewClient(ctx, second.signer(t), xmtp.WithNode(w.url), xmtp.InMemory())
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		if own.InboxID() == dave.InboxID {
			t.Error("the contract that left is still in the inbox")
		}

		// Nobody signs for somebody else's contract, or for a planned one of other keys.
		for name, wallet := range map[string]*contractWallet{"deployed": c.wallet(true), "planned": c.wallet(false)} {
			wallet.owner = chain.NewKey(t)
			if _, err := w.TryInstallation("mallory", wallet.official()); err == nil {
				t.Errorf("%s: a stranger registers with a contract", name)
			}
			if client, err := xmtp.NewClient(ctx, wallet.signer(t), xmtp.WithNode(w.url), xmtp.InMemory()); err == nil {
				t.Errorf("%s: a stranger registers with a contract in Go", name)
				client.Close()
			} else if !errors.Is(err, identity.ErrSignatureInvalid) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}

// While the chain is away nobody registers with a contract, and everybody is told that
// it may be different later; what is in the log is read all the same.
func TestContractChainAway(t *testing.T) {
	scenarioOnChain(t, "contracts while their chain is away", baseline, func(t *testing.T, w *world, c *contracts) {
		alice := w.Installation("alice", c.wallet(true).official())
		wallet, goes := c.wallet(true), c.wallet(true)
		for _, broken := range []int64{http.StatusServiceUnavailable, -1} {
			c.broken.Store(broken)
			if broken > 0 { // the official client tries for long while an endpoint hangs
				_, err := w.TryInstallation(fmt.Sprint("bob", broken), wallet.official())
				if err == nil || !strings.Contains(err.Error(), "verifier unavailable") && !strings.Contains(strings.ToLower(err.Error()), "unavailable") {
					t.Errorf("broken %d: got %v", broken, err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			client, err := xmtp.NewClient(ctx, goes.signer(t), xmtp.WithNode(w.url), xmtp.InMemory())
			if err == nil {
				client.Close()
			}
			if !errors.Is(err, identity.ErrVerifierUnavailable) {
				t.Errorf("broken %d: got %v", broken, err)
			}
		}
		// Fresh clients, who have to read the log of a contract.
		carol, dave := w.Client("carol"), goClient(t, w.url)
		dm := carol.DM(alice)
		dm.Send("is your chain there?")
		v, err := dave.DM(t.Context(), alice.InboxID)
		ours{check(t, v, err), t}.say("mine is not")
		alice.SyncAll()
		contains(t, "alice reads", alice.Find(dm).Texts(), "is your chain there?")
		contains(t, "alice reads", alice.Find(&official.Conversation{ID: v.ID()}).Texts(), "mine is not")

		c.broken.Store(0)
		w.Installation("bob", wallet.official())
		client, err := xmtp.NewClient(t.Context(), goes.signer(t), xmtp.WithNode(w.url), xmtp.InMemory())
		if err != nil {
			t.Fatal(err)
		}
		client.Close()
	})
}

// identifierPasskey is the kind of a passkey for the SDKs.
const identifierPasskey = 1

// The SDKs have no signer for passkeys, but what they sign can be signed by one.
func TestPasskeys(t *testing.T) {
	scenario(t, "passkeys are found", baseline, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), w.Client("bob")
		signer := newPasskey(t)
		passkey := map[string]any{"identifier": signer.Address(), "identifierKind": identifierPasskey}

		alice.Must(official.Request{Op: "call", On: "alice", Path: "unsafe_addAccountSignatureRequest",
			Args: []any{passkey, true}, As: "linking"}, nil)
		signByPasskey(t, alice.Process, "linking", signer)
		alice.Call(nil, "unsafe_applySignatureRequest", official.Ref("linking"))
		sameSet(t, "identifiers", stateOf(bob, alice.InboxID).addresses(), []string{alice.Wallet.Address, signer.Address()})

		var inboxID *string
		bob.Call(&inboxID, "fetchInboxIdByIdentifier", passkey)
		if inboxID == nil || *inboxID != alice.InboxID {
			t.Fatalf("inbox of the passkey: %v, want %s", inboxID, alice.InboxID)
		}
		var dm official.Conversation
		bob.Call(&dm, "conversations.createDmWithIdentifier", passkey)
		equal(t, "peer of the DM", dm.PeerInboxID, alice.InboxID)
		// So a device that has nothing but the passkey finds its inbox.
		var device struct{ InboxID string }
		w.Must(official.Request{Op: "build", Client: "device", Address: signer.Address(), Kind: identifierPasskey,
			Options: map[string]any{"env": "local", "apiUrl": w.url, "dbPath": t.TempDir() + "/device.db3", "disableDeviceSync": true}}, &device)
		equal(t, "inbox of the passkey's device", device.InboxID, alice.InboxID)

		alice.Call(nil, "removeAccount", passkey)
		inboxID = nil
		bob.Call(&inboxID, "fetchInboxIdByIdentifier", passkey)
		if inboxID != nil {
			t.Errorf("inbox of the removed passkey: %s", *inboxID)
		}
	})
}
