package xmtp

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// ConsentState is what the user decided about a conversation or an inbox.
type ConsentState int

// The states; the numbers are stored, and are those of official SDKs.
const (
	// ConsentUnknown: nothing was decided.
	ConsentUnknown ConsentState = iota
	// ConsentAllowed: wanted.
	ConsentAllowed
	// ConsentDenied: not wanted.
	ConsentDenied
)

func (s ConsentState) String() string {
	switch s {
	case ConsentUnknown:
		return "unknown"
	case ConsentAllowed:
		return "allowed"
	case ConsentDenied:
		return "denied"
	}
	return fmt.Sprintf("consent %d", int(s))
}

// ConsentKind tells what a decision is about.
type ConsentKind int

// What decisions are about; the numbers are stored.
const (
	ConversationConsent ConsentKind = store.ConsentConversation
	InboxConsent        ConsentKind = store.ConsentInbox
)

// Consent is a decision of the user. Other people don't learn of it.
//
// One about an inbox says nothing about the conversations with it: what is listed
// and streamed depends on the decisions about conversations alone.
type Consent struct {
	Kind ConsentKind
	// Entity is what it is about: a conversation's id, 32 hex digits, or an inbox id.
	Entity string
	State  ConsentState
	// At is when it was made.
	At time.Time
}

func newConsent(row store.Consent) Consent {
	return Consent{ConsentKind(row.Kind), row.Entity, ConsentState(row.State), time.Unix(0, row.At)}
}

// check returns the decision with the entity as it is stored.
func (d Consent) check() (Consent, error) {
	d.Entity = strings.ToLower(d.Entity)
	switch raw, err := hex.DecodeString(d.Entity); {
	case d.State < ConsentUnknown || d.State > ConsentDenied:
		return d, fmt.Errorf("there is no %v", d.State)
	case d.Kind == ConversationConsent && (err != nil || len(raw) != protocol.GroupIDSize):
		return d, fmt.Errorf("%.70q is no conversation's id", d.Entity)
	case d.Kind == InboxConsent && identity.CheckInboxID(d.Entity) != nil:
		return d, fmt.Errorf("%.70q is no inbox id", d.Entity)
	case d.Kind != ConversationConsent && d.Kind != InboxConsent:
		return d, fmt.Errorf("a decision of kind %d", d.Kind)
	}
	return d, nil
}

// SetConsent stores decisions, all or none of them. Their time, where they have
// none, is now. What is decided about one conversation of a direct message is decided
// about all that were made for it.
//
// By itself consent becomes [ConsentAllowed] when the user creates a conversation, on
// any device, or sends in it. Nothing that others do changes it, but for two things: a
// further conversation of a direct message takes over what was decided about the first,
// and who comes back to a group that he has left decides again.
func (c *Client) SetConsent(decisions ...Consent) error {
	err := c.db.Update(func(tx *store.Tx) error {
		for _, d := range decisions {
			d, err := d.check()
			if err != nil {
				return err
			}
			at := c.now()
			if !d.At.IsZero() {
				at = d.At.UnixNano()
			}
			if err := decide(tx, d, at, true); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("xmtp: consent: %w", err)
	}
	c.news.publish()
	return nil
}

// decide stores a decision, for a direct message with all its groups.
func decide(tx *store.Tx, d Consent, at int64, announce bool) error {
	entities := []string{d.Entity}
	if d.Kind == ConversationConsent {
		id, err := hex.DecodeString(d.Entity)
		if err != nil {
			return err
		}
		groups, err := stitched(tx, id)
		if err != nil {
			return err
		}
		for _, row := range groups {
			if entity := hex.EncodeToString(row.ID); entity != d.Entity {
				entities = append(entities, entity)
			}
		}
	}
	for _, entity := range entities {
		if err := tx.SetConsent(store.Consent{Kind: int(d.Kind), Entity: entity, State: int(d.State), At: at}, announce); err != nil {
			return err
		}
	}
	return nil
}

// allow notes that the user takes part in a conversation.
func (c *Client) allow(tx *store.Tx, id []byte) error {
	return decide(tx, Consent{Kind: ConversationConsent, Entity: hex.EncodeToString(id), State: ConsentAllowed}, c.now(), true)
}

// inherit gives the groups of a direct message, one of which is new, the newest of the
// decisions about them.
func inherit(tx *store.Tx, id []byte) error {
	groups, err := stitched(tx, id)
	if err != nil {
		return err
	}
	var newest store.Consent
	for _, row := range groups {
		decided, found, err := tx.Consent(store.ConsentConversation, hex.EncodeToString(row.ID))
		if err != nil {
			return err
		}
		if found && decided.At > newest.At {
			newest = decided
		}
	}
	if newest.Entity == "" {
		return nil
	}
	d := newConsent(newest)
	return decide(tx, d, newest.At, false)
}

// consentOnJoining is what a welcome decides: our other devices' conversations are
// wanted, and who comes back decides again.
func (c *Client) consentOnJoining(tx *store.Tx, row store.Group, back bool) error {
	if err := inherit(tx, row.ID); err != nil {
		return err
	}
	d := Consent{Kind: ConversationConsent, Entity: hex.EncodeToString(row.ID), State: ConsentAllowed}
	switch {
	case row.Creator == c.inboxID:
		return decide(tx, d, c.now(), false)
	case back:
		d.State = ConsentUnknown
		return decide(tx, d, c.now(), false)
	}
	return nil
}

// Consent returns what was decided about a conversation or an inbox.
func (c *Client) Consent(kind ConsentKind, entity string) (ConsentState, error) {
	d, err := Consent{Kind: kind, Entity: entity}.check()
	if err != nil {
		return ConsentUnknown, fmt.Errorf("xmtp: consent: %w", err)
	}
	err = c.db.View(func(tx *store.Tx) error {
		row, _, err := tx.Consent(int(d.Kind), d.Entity)
		d.State = ConsentState(row.State)
		return err
	})
	if err != nil {
		return ConsentUnknown, fmt.Errorf("xmtp: consent: %w", err)
	}
	return d.State, nil
}

// Consents returns all decisions of a kind, by entity. If any states are given, only
// those in one of them.
func (c *Client) Consents(kind ConsentKind, states ...ConsentState) ([]Consent, error) {
	var all []Consent
	err := c.db.View(func(tx *store.Tx) error {
		rows, err := tx.Consents(int(kind), numbers(states))
		for _, row := range rows {
			all = append(all, newConsent(row))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("xmtp: consent: %w", err)
	}
	return all, nil
}

func numbers(states []ConsentState) []int {
	var list []int
	for _, s := range states {
		list = append(list, int(s))
	}
	return list
}

// Consent returns what the user decided about the conversation.
func (v *Conversation) Consent() (ConsentState, error) {
	return v.client.Consent(ConversationConsent, v.ID())
}

// SetConsent stores what the user decides about the conversation. See
// [Client.SetConsent].
func (v *Conversation) SetConsent(state ConsentState) error {
	return v.client.SetConsent(Consent{Kind: ConversationConsent, Entity: v.ID(), State: state})
}

// StreamConsent yields what the user decides after the call, also by creating a
// conversation or sending in it, until ctx ends or the loop is left. If he decides
// again about the same before the loop comes to it, it gets the last decision only.
// The error, with which the iteration ends, is ctx's, [ErrClosed], or the database's.
func (c *Client) StreamConsent(ctx context.Context) iter.Seq2[Consent, error] {
	return follow(ctx, c, source[Consent]{
		last: (*store.Tx).LastConsent,
		from: func(tx *store.Tx, position int64) (list []item[Consent], more bool, err error) {
			rows, err := tx.ConsentsFrom(position, pageSize)
			for _, row := range rows {
				list = append(list, item[Consent]{row.Change, newConsent(row)})
			}
			return list, len(rows) == pageSize, err
		},
	}, streamOptions{})
}
