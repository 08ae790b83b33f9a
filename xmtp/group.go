package xmtp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// group is what a client has in memory of a conversation. Whoever works with
// its MLS state or its outbox holds its lock; the order of locks is welcoming,
// group, database.
type group struct {
	client *Client
	id     []byte
	lock   chan struct{}

	// The rest belongs to who holds the lock.

	mls *mls.Group // nil until it is needed
	// caughtUp tells that the log has been read since the client was opened.
	// Before that nothing is sent, so that a database that was rolled back is
	// noticed while it still matters.
	caughtUp bool
	// current tells that the log has been read since the lock was taken.
	current bool
	// ahead is the state, and its epoch, of which a message was encrypted and stored for
	// good: the next one may leave while it is stored.
	ahead struct {
		mls   *mls.Group
		epoch uint64
	}
	// heard is how far each sender has come in this epoch.
	heard heard
	// streamed is the number up to which a live stream has brought everything, or unstreamed.
	streamed uint64

	outcomes outcomes // belongs to all
}

// unstreamed is what a group has streamed that has begun anew, until a stream
// begins there too: what one brings meanwhile may not be what follows.
const unstreamed = math.MaxUint64

// groupCache finds the one group for an id.
type groupCache struct {
	client *Client
	mu     sync.Mutex
	groups map[string]*group
}

func (c *groupCache) init(client *Client) {
	c.client, c.groups = client, map[string]*group{}
}

func (c *groupCache) get(id []byte) *group {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.groups[string(id)]
	if g == nil {
		g = &group{client: c.client, id: append([]byte(nil), id...), lock: make(chan struct{}, 1)}
		c.groups[string(id)] = g
	}
	return g
}

// close waits until nobody works with a group any more.
func (c *groupCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.groups {
		g.lock <- struct{}{}
		_ = g.unreserve() // else others see a gap
		g.mls = nil
		<-g.lock
	}
}

// unreserve takes back what groups have reserved that nobody works with.
func (c *groupCache) unreserve() error {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.groups))
	c.mu.Unlock()
	var errs []error
	for _, g := range all {
		if g.tryAcquire() {
			errs = append(errs, g.unreserve())
			g.release()
		}
	}
	return errors.Join(errs...)
}

// reserved tells whether the next message may leave while it is stored.
func (g *group) reserved(state *mls.Group) bool {
	return g.ahead.mls == state && g.ahead.epoch == state.Epoch()
}

// reserve notes that a message of an epoch is stored for good, and with it what the next
// one needs.
func (g *group) reserve(state *mls.Group, epoch uint64) {
	g.ahead.mls, g.ahead.epoch = state, epoch
}

// unreserve takes back what was reserved for the next message, so that others see no gap
// if it is sent by another run of the program.
func (g *group) unreserve() error {
	state := g.mls
	if state == nil || !g.reserved(state) {
		return nil
	}
	g.ahead.mls = nil
	return g.updateLazily(func(tx *store.Tx) error { return saveState(tx, g.id, state.Unreserve()) })
}

// stateChanges are the changes of several steps, the last of each record.
type stateChanges struct {
	records []mls.Record
	places  map[string]int // in records, by kind and key
}

func (c *stateChanges) add(records []mls.Record) {
	if c.places == nil {
		c.places = map[string]int{}
	}
	for _, r := range records {
		name := string(append([]byte{byte(r.Kind)}, r.Key...))
		if at, ok := c.places[name]; ok {
			clear(c.records[at].Value) // a spent secret
			c.records[at] = r
			continue
		}
		c.places[name] = len(c.records)
		c.records = append(c.records, r)
	}
}

func (c *stateChanges) save(tx *store.Tx, id []byte) error { return saveState(tx, id, c.records) }

// clear overwrites what was to be saved.
func (c *stateChanges) clear() {
	for _, r := range c.records {
		clear(r.Value)
	}
}

// tryAcquire locks the group if nobody has.
func (g *group) tryAcquire() bool {
	select {
	case g.lock <- struct{}{}:
		g.current = false
		return true
	default:
		return false
	}
}

// acquire locks the group.
func (g *group) acquire(ctx context.Context) error {
	select {
	case g.lock <- struct{}{}:
		g.current = false
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *group) release() { <-g.lock }

func (g *group) String() string { return hex.EncodeToString(g.id) }

// mlsConfig is how all groups are followed.
func (c *Client) mlsConfig() mls.Config {
	config := protocol.GroupConfig(c.options.padding)
	config.Now = c.options.now
	return config
}

// state returns the MLS state, and reads it from the database the first time.
func (g *group) state() (*mls.Group, error) {
	if g.mls != nil {
		return g.mls, nil
	}
	var records []mls.Record
	err := g.client.db.View(func(tx *store.Tx) error {
		return tx.State(g.id, func(key, value []byte) error {
			records = append(records, mls.Record{Kind: mls.RecordKind(key[0]), Key: key[1:], Value: value})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("conversation %s: %w", g, err)
	}
	state, err := mls.Load(records, g.client.mlsConfig(), g.client.signer)
	for _, r := range records {
		clear(r.Value)
	}
	if err != nil {
		return nil, fmt.Errorf("conversation %s: %w", g, err)
	}
	g.mls = state
	return state, nil
}

// saveState stores changes of a group's MLS state.
func saveState(tx *store.Tx, id []byte, changes []mls.Record) error {
	for _, r := range changes {
		key := append([]byte{byte(r.Kind)}, r.Key...)
		if err := tx.SetState(id, key, r.Value); err != nil {
			return err
		}
	}
	return nil
}

// update runs f in a transaction. What f has done to the MLS state counts only
// if the transaction does: otherwise it is read from the database again.
func (g *group) update(f func(*store.Tx) error) error { return g.reread(g.client.db.Update(f)) }

// updateLazily is update for what the node tells again if a power cut undoes it.
func (g *group) updateLazily(f func(*store.Tx) error) error {
	return g.reread(g.client.db.UpdateLazily(f))
}

// reread lets the MLS state be read from the database again after a failed transaction.
func (g *group) reread(err error) error {
	if err != nil {
		g.mls = nil
	}
	return err
}

// row returns what is stored of the conversation.
func (g *group) row() (row store.Group, err error) {
	err = g.client.db.View(func(tx *store.Tx) error {
		var found bool
		row, found, err = tx.Group(g.id)
		if err == nil && !found {
			err = fmt.Errorf("conversation %s: %w", g, ErrNotFound)
		}
		return err
	})
	return row, err
}

// Problems that end the use of a conversation, as they are stored.
const (
	problemRemoved    = "removed"
	problemRevoked    = "revoked" // removed because the installation was
	problemRolledBack = "rolled back"
)

// usable returns why the conversation can't be sent to.
func usable(row store.Group) error {
	switch {
	case row.Problem == problemRemoved:
		return ErrRemoved
	case row.Problem == problemRevoked:
		return fmt.Errorf("%w: %w", ErrRemoved, ErrRevoked)
	case row.Problem == problemRolledBack:
		return ErrStateRolledBack
	case row.Paused != "" && protocol.CheckVersion(row.Paused) != nil:
		return paused(&protocol.VersionError{Required: row.Paused})
	}
	return nil
}

func paused(by *protocol.VersionError) error { return fmt.Errorf("%w: %w", ErrPaused, by) }
