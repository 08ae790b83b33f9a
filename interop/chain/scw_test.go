package chain

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/go-xmtp/go-xmtp/identity/scw"
	"github.com/go-xmtp/go-xmtp/internal/evm"
)

var hash = sha256.Sum256([]byte("something to sign"))

func verifier(t testing.TB, c *Chain) *scw.Verifier {
	t.Helper()
	v, err := scw.New(scw.Options{Endpoints: map[string]string{CAIP2: c.URL}, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func garbage(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// question is a signature with what the chain is to think of it.
type question struct {
	name      string
	account   common.Address
	signature []byte
	want      bool
}

// questions are about wallets of all sorts, whose owner is the key.
func questions(t testing.TB, c *Chain, owner Key) []question {
	t.Helper()
	deployed := func(runtime []byte) common.Address {
		p := c.Plan(runtime, owner.Address)
		c.Deploy(p)
		return p.Address
	}
	good, bad := owner.Sign(t, hash), NewKey(t).Sign(t, hash)
	old, next := c.Plan(Owned, owner.Address), c.Plan(Owned, owner.Address)
	c.Deploy(old)
	oldKey := NewKey(t)
	rotated := c.Plan(Owned, oldKey.Address)
	c.Deploy(rotated)
	c.Call(rotated.Address, append(make([]byte, 16), owner.Address[:]...)) // a word after four bytes of selector

	// What ERC-6492 calls a preparation, which the reference doesn't make.
	prepared := c.Plan(Owned, oldKey.Address)
	c.Deploy(prepared)
	prepared.Factory, prepared.Order = prepared.Address, append(make([]byte, 16), owner.Address[:]...)

	broken := func(runtime []byte, order []byte) question {
		factory := c.Create(Creation(runtime, [32]byte{}))
		p := Counterfactual{Address: c.Plan(Owned, owner.Address).Address, Factory: factory, Order: order}
		return question{account: p.Address, signature: p.Wrap(good)}
	}
	list := []question{
		{"deployed, its owner", old.Address, good, true},
		{"deployed, a stranger", old.Address, bad, false},
		{"deployed, garbage", old.Address, garbage(t, 65), false},
		{"deployed, a short signature", old.Address, good[:31], false},
		{"deployed, another owner than at first", rotated.Address, good, true},
		{"deployed, its first owner", rotated.Address, oldKey.Sign(t, hash), false},
		{"deployed, wrapped", old.Address, old.Wrap(good), true},
		{"deployed, wrapped, a stranger", old.Address, old.Wrap(bad), false},
		{"to be created, its owner", next.Address, next.Wrap(good), true},
		{"to be created, a stranger", next.Address, next.Wrap(bad), false},
		{"to be created, not wrapped", next.Address, good, false},
		{"to be created, another address", owner.Address, next.Wrap(good), false},
		{"to be created, the order cut short", next.Address, Counterfactual{next.Address, next.Factory, next.Order[:40]}.Wrap(good), false},
		{"wrapped twice", next.Address, next.Wrap(next.Wrap(good)), false},
		{"deployed, its order would make the owner the one who signed", prepared.Address, prepared.Wrap(good), false},
		{"nobody's address", common.Address{}, append(garbage(t, 64), 27), false},
		{"the mark and nothing before it", old.Address, mark(), false},
		{"the mark after garbage", old.Address, append(garbage(t, 128), mark()...), false},
		{"no contract, its key", owner.Address, good, true},
		{"no contract, another key", owner.Address, bad, false},
		{"no contract, not 65 bytes", owner.Address, append(bytes.Clone(good), 0), false},
		{"no contract, v of 0 or 1", owner.Address, append(bytes.Clone(good[:64]), good[64]-27), false},
		{"accepts everything", deployed(Trusting), garbage(t, 200), true},
		{"accepts everything, not nothing", deployed(Trusting), nil, false},
		{"accepts everything, 32 bytes", deployed(Trusting), garbage(t, 32), true},
		{"accepts everything, 40,000 bytes", deployed(Trusting), garbage(t, 40_000), true},
		{"accepts everything, 60,000 bytes", deployed(Trusting), garbage(t, 60_000), false},
		{"a long answer", deployed(Long), good, true},
		{"refuses", deployed(Refusing), good, false},
		{"a short answer", deployed(Short), good, false},
		{"a dirty answer", deployed(Dirty), good, false},
		{"no answer", deployed(Silent), good, false},
		{"a huge answer of zeros", deployed(Huge), good, false},
		{"reverts", deployed(Reverting), good, false},
		{"fails", deployed(Failing), good, false},
		{"burns all gas", deployed(Burning), good, false},
		{"writes", deployed(Writing), good, false},
	}
	for _, f := range []struct {
		name    string
		runtime []byte
	}{
		{"silent", Silent}, {"reverting", Reverting}, {"failing", Failing}, {"burning", Burning}, {"huge", Huge},
	} {
		q := broken(f.runtime, []byte("make it"))
		q.name = f.name + " factory"
		list = append(list, q)
		// Everything that can burn gas does.
		p := c.Plan(Burning, owner.Address)
		c.Deploy(p)
		p.Factory = c.Create(Creation(f.runtime, [32]byte{}))
		list = append(list, question{"burning wallet, " + q.name, p.Address, p.Wrap(good), false})
	}
	// A factory that makes the wallet, but one that burns all gas.
	burning := c.Plan(Burning, owner.Address)
	list = append(list, question{"to be created, burns all gas", burning.Address, burning.Wrap(good), false})
	return list
}

func mark() []byte { w := Counterfactual{}.Wrap(nil); return w[len(w)-32:] }

// Every wallet is judged by what it says, whatever it and its factory do.
func TestVerdicts(t *testing.T) {
	c, owner := Start(t), NewKey(t)
	list := questions(t, c, owner)
	block := c.Block()
	for _, q := range list {
		t.Run(q.name, func(t *testing.T) {
			v := verifier(t, c)
			for _, at := range []*uint64{nil, &block} {
				valid, asked, err := v.VerifyContractSignature(t.Context(), AccountID(q.account), hash, q.signature, at)
				if err != nil || valid != q.want {
					t.Errorf("valid: %v, %v, want %v", valid, err, q.want)
				}
				if valid && asked != block {
					t.Errorf("block %d, want %d", asked, block)
				}
			}
		})
	}
}

// A verdict is that of the block that was asked about; block 0 is one, too.
func TestBlocks(t *testing.T) {
	c, first, second := Start(t), NewKey(t), NewKey(t)
	wallet := c.Plan(Owned, first.Address)
	before := c.Block()
	c.Deploy(wallet)
	deployed := c.Block()
	c.Call(wallet.Address, append(make([]byte, 16), second.Address[:]...))
	rotated := c.Block()
	v := verifier(t, c)
	ask := func(key Key, block uint64, wrapped, want bool) {
		t.Helper()
		signature := key.Sign(t, hash)
		if wrapped {
			signature = wallet.Wrap(signature)
		}
		valid, asked, err := v.VerifyContractSignature(t.Context(), AccountID(wallet.Address), hash, signature, &block)
		if err != nil || valid != want || asked != block {
			t.Errorf("block %d: %v at %d, %v, want %v", block, valid, asked, err, want)
		}
	}
	for range 2 { // the second time from memory
		ask(first, 0, false, false)
		ask(first, 0, true, false) // there is no factory yet
		ask(first, before, false, false)
		ask(first, before, true, true)
		ask(first, deployed, false, true)
		ask(second, deployed, false, false)
		ask(first, rotated, false, false)
		ask(first, rotated, true, false)
		ask(second, rotated, false, true)
	}
	if _, _, err := v.VerifyContractSignature(t.Context(), AccountID(wallet.Address), hash, first.Sign(t, hash), new(rotated+1000)); err == nil {
		t.Error("a block that isn't there yet has a verdict")
	}
}

// Asking changes nothing on the chain.
func TestNothingIsLeft(t *testing.T) {
	c, owner := Start(t), NewKey(t)
	wallet := c.Plan(Owned, owner.Address)
	v := verifier(t, c)
	for range 2 {
		valid, _, err := v.VerifyContractSignature(t.Context(), AccountID(wallet.Address), hash, wallet.Wrap(owner.Sign(t, hash)), nil)
		if err != nil || !valid {
			t.Fatal(valid, err)
		}
		code, err := c.client.CodeAt(context.Background(), wallet.Address, nil)
		if err != nil || len(code) != 0 {
			t.Fatalf("there is a wallet of %d bytes, %v", len(code), err)
		}
		c.Create(evm.MustAssemble("0 0 RETURN")) // another block
	}
}

// As many askers as there may be at once.
func TestManyAskers(t *testing.T) {
	c, owner := Start(t), NewKey(t)
	wallet := c.Plan(Owned, owner.Address)
	c.Deploy(wallet)
	v := verifier(t, c)
	results := make(chan error, 60)
	for i := range cap(results) {
		go func() {
			h := sha256.Sum256(fmt.Append(nil, i/2))
			valid, _, err := v.VerifyContractSignature(t.Context(), AccountID(wallet.Address), h, owner.Sign(t, h), nil)
			if err == nil && !valid {
				err = fmt.Errorf("question %d: not valid", i)
			}
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
