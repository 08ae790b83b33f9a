package api

import (
	"context"
	"encoding/hex"
	"strings"
)

// inboxIDLength is that of inbox ids as text.
const inboxIDLength = 64

// inboxName is the one form of an inbox's id; "" of what can't be one, which key
// packages may name nonetheless.
func inboxName(id string) string {
	if _, err := hex.DecodeString(id); err != nil || len(id) != inboxIDLength {
		return ""
	}
	return strings.ToLower(id)
}

// inboxKey names who uses an inbox's quota: the inbox itself, or strangers who
// name it.
type inboxKey struct {
	inbox    string
	stranger bool
}

// quota is one of an inbox, and what a write uses of it.
type quota struct {
	what string
	cost float64
	*bucket
}

// quotas is called with the lock held.
func (l *Limiter) quotas(r *rules, key inboxKey, size int) []quota {
	now := l.now()
	var all []quota
	if n := float64(r.InboxWrites); n > 0 {
		all = append(all, quota{"writes", 1, l.inboxWrites.of(key, perDay(n), now)})
	}
	if n := float64(r.InboxBytes); n > 0 {
		all = append(all, quota{"bytes", float64(size), l.inboxBytes.of(key, perDay(n), now)})
	}
	return all
}

// inbox refuses a write that names an inbox if the inbox isn't served or has had
// its share. It takes nothing: anybody can name an inbox. A stranger is an
// installation that the inbox doesn't list, perhaps not yet.
func (l *Limiter) inbox(ctx context.Context, inbox string, stranger bool, size int) error {
	if l == nil {
		return nil
	}
	r := l.rules.Load()
	inbox = inboxName(inbox)
	_, allowed := r.allowInboxes[inbox]
	if _, denied := r.denyInboxes[inbox]; denied || len(r.allowInboxes) > 0 && !allowed {
		return l.refuse(limitInbox, errBlocked)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.quotas(r, inboxKey{inbox, stranger}, size) {
		if q.cost > q.tokens {
			wait, never := q.wait(q.cost)
			return l.exhausted(ctx, limitInboxQuota, wait, never, "%.0f %s exceed what is left of the inbox's quota of %.0f a day", q.cost, q.what, q.burst)
		}
	}
	return nil
}

// inboxWrote takes what a write has used, once it was accepted.
func (l *Limiter) inboxWrote(inbox string, stranger bool, size int) {
	if l == nil {
		return
	}
	r := l.rules.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.quotas(r, inboxKey{inboxName(inbox), stranger}, size) {
		q.owe(q.cost)
	}
}
