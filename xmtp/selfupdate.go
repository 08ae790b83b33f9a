package xmtp

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// SelfUpdatePolicy says when our keys in a conversation are renewed. That takes a
// commit, which all members process; who had got hold of our old keys, and of
// nothing else, can't read what comes after it (RFC 9420 §16.6). The zero value is
// what official clients do.
//
// Each commit of ours renews the keys, whatever it is for. When it was done last is
// told by [Conversation.KeysUpdatedAt], and at any time it is done by
// [Conversation.UpdateKeys].
type SelfUpdatePolicy struct {
	// BeforeMessage is how old our keys may be when we send a message: older ones,
	// and those that we were let in with, are renewed before it. 0 is 30 days;
	// negative is never.
	BeforeMessage time.Duration
	// Background is how old they may become in conversations where we don't send, if
	// we have consented to them. Members who came at the same time are spread over an eighth of
	// it. 0 is for ever: others don't learn from it when we are there. It is done by
	// [WorkerSelfUpdate].
	Background time.Duration
}

// renewLeaf is how old the keys of official clients may be when they send.
const renewLeaf = 30 * 24 * time.Hour

// WithSelfUpdate sets when our keys in conversations are renewed.
func WithSelfUpdate(p SelfUpdatePolicy) Option {
	return func(o *options) error {
		if p.Background < 0 {
			return fmt.Errorf("keys can't be renewed every %v", p.Background)
		}
		o.selfUpdate = p
		return nil
	}
}

// beforeMessage tells whether our keys are too old to send.
func (p SelfUpdatePolicy) beforeMessage(row store.Group, now int64) bool {
	age := p.BeforeMessage
	if age == 0 {
		age = renewLeaf
	}
	return age > 0 && now-row.Rotated > int64(age)
}

// background is how long the keys in a conversation are still good without a message.
func (p SelfUpdatePolicy) background(row store.Group, installation []byte, now int64) time.Duration {
	hash := sha256.Sum256(append(append([]byte(nil), row.ID...), installation...))
	spread := binary.BigEndian.Uint64(hash[:]) % uint64(p.Background/8+1)
	return p.Background + time.Duration(spread) - time.Duration(now-max(row.Rotated, row.Created))
}

// KeysUpdatedAt returns when our keys in the conversation were last renewed, by a
// commit that is in its log; the zero time if we have not made one since we were let
// in. See [SelfUpdatePolicy].
func (v *Conversation) KeysUpdatedAt() (time.Time, error) {
	row, err := v.group.row()
	if err != nil {
		return time.Time{}, fmt.Errorf("xmtp: %w", err)
	}
	if row.Rotated == 0 {
		return time.Time{}, nil
	}
	return time.Unix(0, row.Rotated), nil
}

// enqueueKeyUpdate puts a renewal of our keys into the outbox unless one is there.
func (g *group) enqueueKeyUpdate(tx *store.Tx) error {
	waits, err := tx.HasIntent(g.id, intentKeyUpdate)
	if err != nil || waits {
		return err
	}
	_, err = g.put(tx, intentKeyUpdate, struct{}{}, nil)
	return err
}

// updateKeys renews our keys where they have become too old.
func (c *Client) updateKeys(ctx context.Context) (time.Duration, error) {
	policy := c.options.selfUpdate
	if policy.Background == 0 {
		return forever, nil
	}
	next := forever
	var due []*group
	err := c.db.View(func(tx *store.Tx) error {
		rows, err := tx.Groups()
		if err != nil {
			return err
		}
		for _, row := range rows {
			consent, _, err := tx.Consent(store.ConsentConversation, hex.EncodeToString(row.ID))
			if err != nil {
				return err
			}
			if !visible(row) || usable(row) != nil || ConsentState(consent.State) != ConsentAllowed {
				continue
			}
			left := policy.background(row, c.installation.Bytes(), c.now())
			if left <= 0 {
				due = append(due, c.groups.get(row.ID))
				left = policy.Background
			}
			next = sooner(next, left)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, g := range due {
		err := c.db.Update(g.enqueueKeyUpdate)
		if err == nil {
			err = g.push(ctx)
		}
		if err != nil && !errors.Is(err, ErrPaused) {
			errs = append(errs, err)
		}
	}
	return next, errors.Join(errs...)
}
