package xmtp

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/go-xmtp/go-xmtp/identity"
)

// InstallationsChange tells that a user has other installations than before.
type InstallationsChange struct {
	InboxID string
	// Added and Removed are installation ids.
	Added, Removed []string
}

// StreamInstallations yields changes of the installations of users that this
// client knows, our own inbox included, from the call on, until ctx ends or the
// loop is left: somebody has a new device, or one less. What was there when the
// client came to know an inbox is no change.
//
// A change is told once this client has read of it. It does so before it sends to a
// user, when a conversation is synced after some time, when a member acts on it, and
// when it is asked about the inbox. Changes of an inbox that follow each other before
// the loop takes them are one. Nothing is told of what happened while nobody
// listened: to see that, compare what [InboxState.Fingerprint] was with what it is.
//
// The error, with which the iteration ends, is ctx's or [ErrClosed].
func (c *Client) StreamInstallations(ctx context.Context) iter.Seq2[InstallationsChange, error] {
	w := &installationWatch{before: map[string]*identity.State{}, news: make(chan struct{}, 1)}
	c.inboxes.watch(w)
	context.AfterFunc(ctx, func() { c.inboxes.unwatch(w) })
	return func(yield func(InstallationsChange, error) bool) {
		c.inboxes.watch(w) // again, if the loop is
		defer c.inboxes.unwatch(w)
		defer c.live.use()()
		for {
			for _, change := range c.inboxes.take(w) {
				if !yield(change, nil) {
					return
				}
			}
			select {
			case <-w.news:
			case <-ctx.Done():
				yield(InstallationsChange{}, ctx.Err())
				return
			case <-c.closing.Done():
				yield(InstallationsChange{}, fmt.Errorf("xmtp: stream: %w", ErrClosed))
				return
			}
		}
	}
}

// installationWatch is somebody who is to be told of changes.
type installationWatch struct {
	// before has, of inboxes with changes that he hasn't heard of, the states that
	// he knows. It can't grow beyond the inboxes that there are.
	before map[string]*identity.State
	news   chan struct{} // holds a token
}

func (x *inboxes) watch(w *installationWatch) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.watches[w] = struct{}{}
}

func (x *inboxes) unwatch(w *installationWatch) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.watches, w)
}

// changed tells that an inbox has come from one state to that of its log.
func (x *inboxes) changed(inbox string, before *identity.State, log *inboxLog) {
	after, _ := log.latest()
	if before == nil || before == after {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for w := range x.watches {
		if w.before[inbox] == nil {
			w.before[inbox] = before
		}
		select {
		case w.news <- struct{}{}:
		default: // a token is there already
		}
	}
}

// take returns what has changed since the last time.
func (x *inboxes) take(w *installationWatch) (changes []InstallationsChange) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, inbox := range slices.Sorted(maps.Keys(w.before)) {
		after, _ := x.logs[inbox].latest()
		added, removed := identity.Diff(w.before[inbox], after)
		change := InstallationsChange{inbox, installationIDs(added), installationIDs(removed)}
		if len(change.Added)+len(change.Removed) > 0 {
			changes = append(changes, change)
		}
	}
	clear(w.before)
	return changes
}

// installationIDs returns the installations among members.
func installationIDs(members []identity.Identifier) (ids []string) {
	for _, id := range members {
		if id.Kind() == identity.KindInstallation {
			ids = append(ids, id.String())
		}
	}
	return ids
}
