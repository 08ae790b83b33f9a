// Package chain is an Ethereum chain of a test: go-ethereum's simulated one
// behind its own JSON-RPC server, and contracts that are wallets, good and bad.
package chain

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/ethclient/simulated"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/rpc"
)

// ID is the chain's, which go-ethereum fixes.
const ID = 1337

// CAIP2 is the chain's id as account ids have it.
const CAIP2 = "eip155:1337"

// Chain is a running chain. A block is made for each transaction.
type Chain struct {
	URL string // of its JSON-RPC server
	t   testing.TB

	mu      sync.Mutex
	backend *simulated.Backend
	client  *ethclient.Client
	payer   *ecdsa.PrivateKey
	nonce   uint64
	salt    uint64
	factory common.Address
}

// Start runs a chain with a [Factory] until the test ends.
func Start(t testing.TB) *Chain {
	t.Helper()
	// A port that was free a moment ago: the server does not tell which it took.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	c := &Chain{t: t, URL: fmt.Sprintf("http://127.0.0.1:%d", port), payer: newKey(t)}
	rich := new(big.Int).Lsh(big.NewInt(1), 100)
	c.backend = simulated.NewBackend(
		types.GenesisAlloc{crypto.PubkeyToAddress(c.payer.PublicKey): {Balance: rich}},
		func(n *node.Config, _ *ethconfig.Config) {
			n.HTTPHost, n.HTTPPort, n.HTTPModules = "127.0.0.1", port, []string{"eth"}
		})
	t.Cleanup(func() {
		c.client.Close()
		if err := c.backend.Close(); err != nil {
			t.Errorf("closing the chain: %v", err)
		}
	})
	if c.client, err = ethclient.Dial(c.URL); err != nil {
		t.Fatal(err)
	}
	c.factory = c.Create(Creation(Factory, [32]byte{}))
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Create makes a contract of creation code.
func (c *Chain) Create(creation []byte) common.Address {
	c.t.Helper()
	return c.transact(nil, creation).ContractAddress
}

// Call calls a contract in a transaction, and fails the test if the contract does.
func (c *Chain) Call(to common.Address, data []byte) {
	c.t.Helper()
	c.transact(&to, data)
}

func (c *Chain) transact(to *common.Address, data []byte) *types.Receipt {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx := context.Background() // also used when the test is ending
	tx, err := types.SignNewTx(c.payer, types.LatestSignerForChainID(big.NewInt(ID)), &types.DynamicFeeTx{
		ChainID: big.NewInt(ID), Nonce: c.nonce, To: to, Data: data, Gas: 3_000_000,
		GasFeeCap: big.NewInt(1e11), GasTipCap: big.NewInt(1e9),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.nonce++
	if err := c.client.SendTransaction(ctx, tx); err != nil {
		c.t.Fatal(err)
	}
	receipts, err := c.client.BlockReceipts(ctx, rpc.BlockNumberOrHashWithHash(c.backend.Commit(), false))
	if err != nil || len(receipts) != 1 || receipts[0].Status != types.ReceiptStatusSuccessful {
		c.t.Fatalf("a transaction failed: %v, %v", receipts, err)
	}
	return receipts[0]
}

// Block is the number of the newest block.
func (c *Chain) Block() uint64 {
	c.t.Helper()
	n, err := c.client.BlockNumber(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// Plan says where a wallet with an owner, or any other contract, will be when it
// is created through the chain's factory. Each is another one.
func (c *Chain) Plan(runtime []byte, owner common.Address) Counterfactual {
	c.mu.Lock()
	c.salt++
	salt := common.BigToHash(new(big.Int).SetUint64(c.salt))
	c.mu.Unlock()
	return Plan(c.factory, Creation(runtime, common.BytesToHash(owner[:])), salt)
}

// Deploy creates what was planned.
func (c *Chain) Deploy(wallet Counterfactual) {
	c.t.Helper()
	c.Call(wallet.Factory, wallet.Order)
}

// AccountID is the CAIP-10 name of an account of the chain, as clients write it.
func AccountID(a common.Address) string { return fmt.Sprintf("%s:%#x", CAIP2, a[:]) }

// Key is one that owns wallets.
type Key struct {
	Address common.Address
	key     *ecdsa.PrivateKey
}

// NewKey makes a key.
func NewKey(t testing.TB) Key {
	t.Helper()
	key := newKey(t)
	return Key{crypto.PubkeyToAddress(key.PublicKey), key}
}

// Hex is the private key as 0x and 64 hex digits.
func (k Key) Hex() string { return fmt.Sprintf("%#x", crypto.FromECDSA(k.key)) }

// Sign signs a hash: r, s and v, which is 27 or 28.
func (k Key) Sign(t testing.TB, hash [32]byte) []byte {
	t.Helper()
	signature, err := crypto.Sign(hash[:], k.key)
	if err != nil {
		t.Fatal(err)
	}
	signature[64] += 27
	return signature
}
