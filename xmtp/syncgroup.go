package xmtp

import (
	"context"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// The installations of an inbox have hidden groups of their own. A new one makes one
// and lets the others in. That is how they learn of it, and each lets it into the
// conversations that it is in, so that it need not wait until somebody writes.

// bringInActive is how long ago a conversation's last activity may be for a new
// installation to be let in at once.
const bringInActive = 90 * 24 * time.Hour

// introduce makes a group of the inbox's installations if this one knows of none,
// and there are others.
func (c *Client) introduce(ctx context.Context) (time.Duration, error) {
	log, err := c.inboxes.known(c.inboxID)
	if err != nil {
		return 0, err
	}
	state, _ := log.latest()
	if state == nil || len(others(state, c.installation)) == 0 {
		return forever, nil
	}
	var known []store.Listed
	err = c.db.View(func(tx *store.Tx) (err error) {
		known, err = tx.List(store.Filter{Kinds: []int{int(protocol.Sync)}}, c.now())
		return err
	})
	if err != nil || len(known) > 0 {
		return forever, err
	}
	if _, err := c.create(ctx, protocol.NewSync(c.inboxID), nil); err != nil {
		return 0, fmt.Errorf("a group of the inbox's installations: %w", err)
	}
	return forever, nil
}

// bringIn lets a new installation of our inbox into conversations, or the outbox
// see to that. It is called when the new one has let us into its group.
func (c *Client) bringIn(tx *store.Tx) error {
	wanted := store.Filter{Kinds: AnyConversation.kinds(), Consent: numbers([]ConsentState{ConsentUnknown, ConsentAllowed})}
	groups, err := tx.List(wanted, c.now())
	if err != nil {
		return err
	}
	for _, row := range groups {
		if row.Problem != "" || max(row.LastMessage, row.Created) <= c.now()-int64(bringInActive) {
			continue
		}
		if _, err := c.groups.get(row.ID).put(tx, intentMembership, membershipIntent{}, nil); err != nil {
			return err
		}
	}
	return nil
}
