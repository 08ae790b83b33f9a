package node_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
)

type walletQuestion = identityapi.VerifySmartContractWalletSignatureRequestSignature

// chain is a verifier of a test: it answers, fails or hangs.
type chain struct {
	mu    sync.Mutex
	valid bool
	err   error
	hang  chan struct{} // told of each question that hangs, unless nil
	asked int
}

func (c *chain) set(valid bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.valid, c.err = valid, err
}

func (c *chain) questions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

func (c *chain) VerifyContractSignature(ctx context.Context, _ string, _ [32]byte, _ []byte, block *uint64) (bool, uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.hang != nil {
		c.mu.Unlock()
		c.hang <- struct{}{}
		<-ctx.Done()
		c.mu.Lock()
		return false, 0, ctx.Err()
	}
	if c.err != nil {
		return false, 0, c.err
	}
	if block == nil {
		return c.valid, 99, nil
	}
	return c.valid, *block, nil
}

// contractWallet signs as a contract at a block, so that the chain has to say
// whether it does.
type contractWallet struct {
	address identity.Identifier
	block   uint64
}

func newContractWallet(t testing.TB) contractWallet {
	return contractWallet{newWallet(t).Identifier(), 7}
}

func (w contractWallet) accountID() string { return identity.AccountID(8453, w.address) }

func (w contractWallet) sign(text string) *associations.Signature {
	digest := identity.TextDigest(text)
	return identity.ContractSignature(w.accountID(), w.block, append(digest[:], "signed"...))
}

// register is the first update of the wallet's inbox.
func (w contractWallet) register(t testing.TB) (update *associations.IdentityUpdate, installation signer) {
	t.Helper()
	id := must(identity.DeriveInboxID(w.address, identity.DefaultNonce))(t)
	key := newInstallation(t)
	return newDraft(id, time.Now()).
		create(w.address, identity.DefaultNonce, w.sign).
		add(installationMember(key), w.sign, byInstallation(key)).
		signed(t), byInstallation(key)
}

// asks is the question about the wallet's signature of an update.
func (w contractWallet) asks(t testing.TB, update *associations.IdentityUpdate) *walletQuestion {
	t.Helper()
	digest := identity.TextDigest(must(identity.SignatureText(update))(t))
	return &walletQuestion{
		AccountId: w.accountID(), BlockNumber: proto.Uint64(w.block), Hash: digest[:],
		Signature: append(digest[:], "signed"...),
	}
}

func (c *client) verifyWallets(ctx context.Context, questions ...*walletQuestion) ([]*identityapi.VerifySmartContractWalletSignaturesResponse_ValidationResponse, error) {
	res, err := c.identity.VerifySmartContractWalletSignatures(ctx, &identityapi.VerifySmartContractWalletSignaturesRequest{Signatures: questions})
	return res.GetResponses(), err
}

func randomQuestion(t testing.TB) *walletQuestion {
	return &walletQuestion{
		AccountId: newContractWallet(t).accountID(), Hash: random(32), Signature: random(65), BlockNumber: proto.Uint64(1),
	}
}

var errChainDown = errors.New("the chain is down")

// While a chain can't be asked, nothing is judged: neither an update nor a
// signature. The first could be published later, the second would be lost.
func TestContractChainDown(t *testing.T) {
	t.Parallel()
	verifier := &chain{err: errChainDown}
	c, ctx := dial(t, start(t, node.Options{ContractVerifier: verifier})), short(t)
	wallet := newContractWallet(t)
	update, _ := wallet.register(t)
	_, err := c.publish(ctx, update)
	wantCode(t, err, codes.Unavailable)
	c.wantUpdates(ctx, t, update.InboxId)
	c.wantInboxOf(ctx, t, wallet.address, "")
	_, err = c.verifyWallets(ctx, wallet.asks(t, update))
	wantCode(t, err, codes.Unavailable)
	// Nor are the others of a call.
	_, err = c.verifyWallets(ctx, &walletQuestion{}, wallet.asks(t, update))
	wantCode(t, err, codes.Unavailable)

	verifier.set(false, nil)
	_, err = c.publish(ctx, update)
	wantStatus(t, err, codes.InvalidArgument, "Signature validation failed")
	verifier.set(true, nil)
	must(c.publish(ctx, update))(t)
	c.wantUpdates(ctx, t, update.InboxId, update)
	c.wantInboxOf(ctx, t, wallet.address, update.InboxId)
}

// Each entry has its answer: the verdict with its block, or what is wrong with
// the question.
func TestContractAnswers(t *testing.T) {
	t.Parallel()
	verifier := &chain{valid: true}
	good, newest, short32 := randomQuestion(t), randomQuestion(t), randomQuestion(t)
	newest.BlockNumber, short32.Hash = nil, random(31)
	address := newWallet(t).Identifier().String()
	malformed := []string{"", address, "eip155:1", "eip155:1:0x12", "eip155:x:" + address, "solana:1:" + address, "eip155:1:" + address + ":2"}
	for name, options := range map[string]node.Options{
		"usual": {ContractVerifier: verifier}, "read only": {ContractVerifier: verifier, ReadOnly: true},
	} {
		c, ctx := dial(t, start(t, options)), short(t)
		asks := []*walletQuestion{good, newest, short32}
		for _, account := range malformed {
			asks = append(asks, &walletQuestion{AccountId: account, Hash: random(32), Signature: random(65)})
		}
		answers := must(c.verifyWallets(ctx, asks...))(t)
		if len(answers) != len(asks) {
			t.Fatalf("%s: %d answers to %d questions", name, len(answers), len(asks))
		}
		for i, a := range answers {
			want := uint64(0)
			if i < 2 {
				want = []uint64{1, 99}[i]
			}
			if a.IsValid != (i < 2) || (a.Error == nil) != (i < 2) || a.GetBlockNumber() != want {
				t.Errorf("%s: answer %d: %v", name, i, a)
			}
		}
		if answers := must(c.verifyWallets(ctx))(t); len(answers) != 0 {
			t.Errorf("%s: %d answers to nothing", name, len(answers))
		}
	}
}

// What is in the log was valid once and stays so without a chain, on this node
// and after a restart, even if it has no access to chains any more. Anything
// else that could be asked is another question.
func TestContractLogNeedsNoChain(t *testing.T) {
	t.Parallel()
	verifier := &chain{valid: true}
	options := node.Options{ContractVerifier: verifier, Data: t.TempDir()}
	n := start(t, options)
	c, ctx := dial(t, n), short(t)
	wallet, other := newContractWallet(t), newContractWallet(t)
	update, installation := wallet.register(t)
	must(c.publish(ctx, update))(t)
	// A good signature of an update that is refused for another reason.
	refused := newDraft(update.InboxId, time.Now().Add(time.Hour)).
		revoke(wallet.address.Proto(), other.sign).signed(t)
	_, err := c.publish(ctx, refused)
	wantCode(t, err, codes.InvalidArgument)
	// A wallet that joins, and one that is asked about at block 0.
	other.block = 0
	link := newDraft(update.InboxId, time.Now().Add(2*time.Hour)).
		add(other.address.Proto(), installation, other.sign).signed(t)
	must(c.publish(ctx, link))(t)

	verifier.set(false, errChainDown)
	known := wallet.asks(t, update)
	before := verifier.questions()
	for _, q := range []*walletQuestion{known, other.asks(t, link)} {
		answers := must(c.verifyWallets(ctx, q))(t)
		if !answers[0].IsValid || answers[0].GetBlockNumber() != q.GetBlockNumber() || answers[0].BlockNumber == nil {
			t.Errorf("got %v", answers[0])
		}
	}
	if n := verifier.questions() - before; n != 0 {
		t.Errorf("the chain was asked %d times", n)
	}
	for name, change := range map[string]func(q *walletQuestion){
		"chain":     func(q *walletQuestion) { q.AccountId = identity.AccountID(1, wallet.address) },
		"account":   func(q *walletQuestion) { q.AccountId = other.accountID() },
		"hash":      func(q *walletQuestion) { q.Hash = random(32) },
		"signature": func(q *walletQuestion) { q.Signature = append(q.Signature, 0) },
		"block":     func(q *walletQuestion) { q.BlockNumber = proto.Uint64(8) },
		"newest":    func(q *walletQuestion) { q.BlockNumber = nil },
		"refused":   func(q *walletQuestion) { proto.Merge(q, other.asks(t, refused)) },
	} {
		q := proto.CloneOf(known)
		change(q)
		if _, err := c.verifyWallets(ctx, q); err == nil {
			t.Errorf("another %s: answered", name)
		} else {
			wantCode(t, err, codes.Unavailable)
		}
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	options.ContractVerifier = nil
	c = dial(t, start(t, options))
	answers := must(c.verifyWallets(ctx, known, randomQuestion(t)))(t)
	if !answers[0].IsValid || answers[1].IsValid || answers[1].GetError() == "" {
		t.Errorf("after the restart: %v", answers)
	}
}

// Without any limits, one caller still can't use the node as his own access to
// a chain; nobody is disturbed who doesn't need a chain.
func TestContractLimit(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Now()
	verifier := &chain{valid: true}
	c, ctx := dial(t, start(t, node.Options{ContractVerifier: verifier, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}})), short(t)
	wallet := newContractWallet(t)
	update, _ := wallet.register(t) // one question: the signature is used twice
	must(c.publish(ctx, update))(t)
	asks := make([]*walletQuestion, 100)
	for i := range asks {
		asks[i] = randomQuestion(t)
	}
	for range 5 {
		must(c.verifyWallets(ctx, asks...))(t)
	}
	must(c.verifyWallets(ctx, asks[:99]...))(t)
	for range 3 {
		_, err := c.verifyWallets(ctx, asks[0])
		wantCode(t, err, codes.ResourceExhausted)
	}
	late, _ := newContractWallet(t).register(t)
	_, err := c.publish(ctx, late)
	wantCode(t, err, codes.ResourceExhausted)
	if n := verifier.questions(); n != 600 {
		t.Errorf("the chain was asked %d times, want 600", n)
	}
	// What needs no chain.
	must(c.publish(ctx, newInbox(t).register(t)))(t)
	must(c.verifyWallets(ctx, wallet.asks(t, update)))(t)

	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	must(c.publish(ctx, late))(t)
	must(c.verifyWallets(ctx, asks...))(t)
	must(c.verifyWallets(ctx, asks...))(t)
	_, err = c.verifyWallets(ctx, asks...)
	wantCode(t, err, codes.ResourceExhausted)
	if n := verifier.questions(); n != 900 {
		t.Errorf("the chain was asked %d times, want 900", n)
	}
}

// Questions that hang keep nobody else from publishing, there are only so many,
// and they end with their callers.
func TestContractChainHangs(t *testing.T) {
	t.Parallel()
	verifier := &chain{hang: make(chan struct{}, 1000)}
	c, ctx := dial(t, start(t, node.Options{ContractVerifier: verifier})), short(t)
	hanging, leave := context.WithCancel(ctx)
	defer leave()
	results := make(chan error, 256)
	for i := range cap(results) {
		update, _ := newContractWallet(t).register(t)
		question := randomQuestion(t)
		go func() {
			var err error
			if i%2 == 0 {
				_, err = c.publish(hanging, update)
			} else {
				_, err = c.verifyWallets(hanging, question)
			}
			results <- err
		}()
		<-verifier.hang
	}
	must(c.publish(ctx, newInbox(t).register(t)))(t)
	_, err := c.verifyWallets(ctx, randomQuestion(t))
	wantCode(t, err, codes.ResourceExhausted)
	leave()
	for range cap(results) {
		wantCode(t, <-results, codes.Canceled)
	}
}

// An official client's passkeys are found by their kind, by any writing of
// their hex, and by nothing else; until they are removed.
func TestPasskeyLookUp(t *testing.T) {
	t.Parallel()
	const ethereum, passkeys = associations.IdentifierKind_IDENTIFIER_KIND_ETHEREUM, associations.IdentifierKind_IDENTIFIER_KIND_PASSKEY
	c, ctx := dial(t, start(t, node.Options{ContractVerifier: &chain{valid: true}})), short(t)
	lookUp := func(kind associations.IdentifierKind, identifier string) string {
		t.Helper()
		res := must(c.identity.GetInboxIds(ctx, &identityapi.GetInboxIdsRequest{
			Requests: []*identityapi.GetInboxIdsRequest_Request{{Identifier: identifier, IdentifierKind: kind}},
		}))(t)
		if len(res.Responses) != 1 || res.Responses[0].Identifier != identifier || res.Responses[0].IdentifierKind != kind {
			t.Fatalf("got %v", res)
		}
		return res.Responses[0].GetInboxId()
	}
	var file struct {
		Logs struct {
			Cases []struct {
				Name    string `json:"name"`
				InboxID string `json:"inbox_id"`
				Updates []struct {
					Hex string `json:"identity_update_proto_hex"`
				} `json:"updates"`
			} `json:"cases"`
		} `json:"association_cases"`
	}
	readJSON(t, "../identity/testdata/identity.json", &file)
	tried := 0
	for _, tc := range file.Logs.Cases {
		switch tc.Name {
		case "passkey_create", "passkey_create_uncompressed", "passkey_create_and_install", "installation_adds_passkey":
		default:
			continue
		}
		tried++
		keys := map[string]bool{} // those that the log adds, in hex
		for _, u := range tc.Updates {
			update := &associations.IdentityUpdate{}
			if err := proto.Unmarshal(must(hex.DecodeString(u.Hex))(t), update); err != nil {
				t.Fatal(err)
			}
			must(c.publish(ctx, update))(t)
			for _, a := range update.Actions {
				if create := a.GetCreateInbox(); create.GetInitialIdentifierKind() == passkeys {
					keys[create.InitialIdentifier] = true
				}
				if passkey := a.GetAdd().GetNewMemberIdentifier().GetPasskey(); passkey != nil {
					keys[fmt.Sprintf("%x", passkey.Key)] = true
				}
			}
		}
		if len(keys) != 1 {
			t.Fatalf("%s has %d passkeys", tc.Name, len(keys))
		}
		for key := range keys {
			for _, text := range []string{key, fmt.Sprintf("%X", must(hex.DecodeString(key))(t)), "0x" + key} {
				if got := lookUp(passkeys, text); got != tc.InboxID {
					t.Errorf("%s: %s is in %q", tc.Name, text, got)
				}
			}
			for _, kind := range []associations.IdentifierKind{0, ethereum} {
				if got := lookUp(kind, key); got != "" {
					t.Errorf("%s: as kind %d it is in %q", tc.Name, kind, got)
				}
			}
			if got := lookUp(passkeys, key[:len(key)-2]); got != "" {
				t.Errorf("%s: cut short it is in %q", tc.Name, got)
			}
		}
	}
	if tried != 4 {
		t.Errorf("%d logs with passkeys were tried", tried)
	}
	in, key := newInbox(t), newPasskey(t)
	must(c.publish(ctx, in.register(t)))(t)
	must(c.publish(ctx, in.draft().add(key.identifier().Proto(), byInstallation(in.installation), key.sign).signed(t)))(t)
	c.wantInboxOf(ctx, t, key.identifier(), in.id)
	must(c.publish(ctx, in.draft().revoke(key.identifier().Proto(), in.owner.SignText).signed(t)))(t)
	c.wantInboxOf(ctx, t, key.identifier(), "")
	if got := lookUp(passkeys, "no hex"); got != "" {
		t.Errorf("what is no key is in %q", got)
	}
}
