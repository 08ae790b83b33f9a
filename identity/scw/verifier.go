// Package scw checks signatures of smart-contract wallets (ERC-1271), also of
// wallets that are yet to be created (ERC-6492), by asking their chains over
// JSON-RPC.
//
// A question is one eth_call, of a small program that is in validator.evm; and
// one eth_blockNumber before it if no block was named. Any endpoint of a chain
// that runs EVM code will do; but blocks of long ago are known to archive nodes
// only.
package scw

import (
	"container/list"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
)

const (
	defaultTimeout     = 10 * time.Second
	defaultConcurrency = 16
	defaultVerdicts    = 10_000
	// waitingPerCall is how many questions may wait for each call that may be
	// under way.
	waitingPerCall = 4
)

// Options configure a [Verifier].
type Options struct {
	// Endpoints are the JSON-RPC URLs, http or https, by the chains' CAIP-2 ids
	// ("eip155:8453").
	Endpoints map[string]string
	// Timeout bounds each call, with its wait for other calls; 10 s if zero.
	Timeout time.Duration
	// Concurrency bounds how many calls to one chain are under way; 16 if zero.
	// Four times as many may wait.
	Concurrency int
	// Verdicts is how many are remembered; 10,000 if zero.
	Verdicts int
	// Logger is told of endpoints that fail, without their URLs; nil is silent.
	Logger *slog.Logger
}

// Verifier asks chains about signatures. It is safe for use by several
// goroutines. Those who ask the same at the same time share one call.
type Verifier struct {
	endpoints map[string]*endpoint
	newest    flights[string, uint64]
	questions flights[[32]byte, bool]
	accepted  verdicts
}

var _ identity.ContractVerifier = (*Verifier)(nil)

// New returns a verifier. It calls nobody yet. The error does not repeat URLs.
func New(o Options) (*Verifier, error) {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Concurrency == 0 {
		o.Concurrency = defaultConcurrency
	}
	if o.Verdicts == 0 {
		o.Verdicts = defaultVerdicts
	}
	if o.Timeout < 0 || o.Concurrency < 0 || o.Verdicts < 0 {
		return nil, fmt.Errorf("scw: a negative limit")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	v := &Verifier{
		endpoints: make(map[string]*endpoint, len(o.Endpoints)),
		accepted:  verdicts{limit: o.Verdicts, byKey: map[[32]byte]*list.Element{}},
	}
	for chain, url := range o.Endpoints {
		e, err := newEndpoint(chain, url, o)
		if err != nil {
			return nil, err
		}
		v.endpoints[chain] = e
	}
	return v, nil
}

// Close waits until no call is under way, of which there are none once those
// who asked have left, and closes connections.
func (v *Verifier) Close() {
	v.newest.running.Wait()
	v.questions.running.Wait()
	for _, e := range v.endpoints {
		e.client.CloseIdleConnections()
	}
}

// VerifyContractSignature asks as [identity.ContractVerifier] says. Block 0 is
// a block like any other. The chain must be written as in the options.
//
// A wallet that fails, runs out of gas, answers anything but the magic word or
// is created by a factory that fails does not accept the signature. Errors are
// [*Error], or the context's.
func (v *Verifier) VerifyContractSignature(ctx context.Context, accountID string, hash [32]byte, signature []byte, block *uint64) (valid bool, asked uint64, err error) {
	i := strings.LastIndexByte(accountID, ':')
	chain := accountID[:max(i, 0)]
	e := v.endpoints[chain]
	if e == nil {
		return false, 0, &Error{Chain: fmt.Sprintf("%.50q", chain), Err: ErrUnknownChain}
	}
	if block != nil {
		asked = *block
	}
	account, ok := parseAddress(accountID[i+1:])
	if !ok {
		return false, asked, nil
	}
	code := question(account, hash, signature)
	if code == nil {
		return false, asked, nil
	}
	if block == nil {
		if asked, err = v.newest.do(ctx, chain, e.newest); err != nil {
			return false, 0, err
		}
	}
	key := identity.ContractQuestion{AccountID: accountID, Hash: hash, Signature: signature, Block: asked}.Key()
	if v.accepted.has(key) {
		return true, asked, nil
	}
	valid, err = v.questions.do(ctx, key, func(ctx context.Context) (bool, error) { return e.create(ctx, code, asked) })
	if valid {
		v.accepted.add(key)
	}
	return valid, asked, err
}

// verdicts remembers which questions were answered with yes, of the last ones
// that were asked. A no is never remembered: the chain may come to another view
// of its newest blocks.
type verdicts struct {
	limit int

	mu    sync.Mutex
	byKey map[[32]byte]*list.Element
	order list.List // of keys, the last used first
}

func (v *verdicts) has(key [32]byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.byKey[key]
	if e != nil {
		v.order.MoveToFront(e)
	}
	return e != nil
}

func (v *verdicts) add(key [32]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.byKey[key] != nil {
		return
	}
	v.byKey[key] = v.order.PushFront(key)
	if v.order.Len() > v.limit {
		delete(v.byKey, v.order.Remove(v.order.Back()).([32]byte))
	}
}
