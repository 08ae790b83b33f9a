package history

import (
	"net/netip"
	"sync"
)

// share is the part of everything that one peer may have: a quarter. The zero
// peer is nobody in particular and has no share of its own to exceed.
const share = 4

// maxTransfers is how many uploads and downloads may be under way.
const maxTransfers = 128

// charge is what something stored counts for, and for whom.
type charge struct {
	peer  netip.Prefix
	bytes int64
}

// ledger knows how much is stored and under way, by peer. Whose the files of an
// earlier run were is forgotten: they count in the total.
type ledger struct {
	maxFile, total, quota int64

	mu        sync.Mutex
	bytes     int64
	transfers int
	peers     map[netip.Prefix]usage
}

type usage struct {
	bytes     int64
	transfers int
}

func newLedger(o Options) *ledger {
	return &ledger{
		maxFile: o.MaxFile,
		total:   o.Total,
		quota:   max(o.Total/share, o.MaxFile), // one file fits in any case
		peers:   map[netip.Prefix]usage{},
	}
}

// found charges what was there at the start, whatever the limits are now.
func (l *ledger) found(size int64) charge {
	c := charge{bytes: max(size, minCharge)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change(c, 0)
	return c
}

// change adds to what a peer and all together have.
func (l *ledger) change(c charge, transfers int) {
	l.bytes += c.bytes
	l.transfers += transfers
	u := l.peers[c.peer]
	u.bytes += c.bytes
	u.transfers += transfers
	if u == (usage{}) {
		delete(l.peers, c.peer)
		return
	}
	l.peers[c.peer] = u
}

func (l *ledger) release(c charge) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change(charge{c.peer, -c.bytes}, 0)
}

// begin takes a place for a transfer, which end gives back.
func (l *ledger) begin(from netip.Prefix) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.transfers == maxTransfers || from != (netip.Prefix{}) && l.peers[from].transfers == maxTransfers/share {
		return errBusy
	}
	l.change(charge{peer: from}, 1)
	return nil
}

func (l *ledger) end(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change(charge{peer: from}, -1)
}

// bill is the charge of a file while it grows.
type bill struct {
	charge
	ledger *ledger
	size   int64
}

func (l *ledger) open(from netip.Prefix) *bill { return &bill{charge: charge{peer: from}, ledger: l} }

// add charges n more bytes of the file, or refuses them and charges nothing.
func (b *bill) add(n int64) error {
	l := b.ledger
	if b.size+n > l.maxFile {
		return errTooLarge
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	more := charge{b.peer, max(b.size+n, minCharge) - b.bytes}
	switch {
	case l.bytes+more.bytes > l.total:
		return errFull
	case b.peer != (netip.Prefix{}) && l.peers[b.peer].bytes+more.bytes > l.quota:
		return errQuota
	}
	l.change(more, 0)
	b.bytes += more.bytes
	b.size += n
	return nil
}

func (b *bill) cancel() { b.ledger.release(b.charge) }
