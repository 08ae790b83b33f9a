package xmtp

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// ConversationType tells groups from direct messages.
type ConversationType int

// The types.
const (
	// AnyConversation is both, where one asks for a type.
	AnyConversation ConversationType = iota
	// GroupConversation has any number of members.
	GroupConversation
	// DMConversation is a direct message, between two.
	DMConversation
)

// kinds are the numbers that groups of a type are stored with.
func (t ConversationType) kinds() []int {
	switch t {
	case AnyConversation:
		return []int{int(protocol.Group), int(protocol.DM)}
	case GroupConversation:
		return []int{int(protocol.Group)}
	}
	return []int{int(protocol.DM)}
}

// visible leaves out groups that are for devices only.
func visible(row store.Group) bool { return slices.Contains(AnyConversation.kinds(), row.Kind) }

// ConversationOrder is the order of a list.
type ConversationOrder int

// The orders.
const (
	// LastActivity begins with the conversation whose last message, as
	// [Conversation.LastMessage] returns it, is the newest. Where there is none, the
	// time of creation counts.
	LastActivity ConversationOrder = iota
	// CreationTime begins with the conversation that was created last.
	CreationTime
)

// wanted is the default of lists and streams, as with official clients.
var wanted = []ConsentState{ConsentAllowed, ConsentUnknown}

// ConversationOptions restrict which conversations are listed. The zero value is all
// but those denied, the one with the latest activity first.
type ConversationOptions struct {
	Type ConversationType

	// Consent is what was decided about them; nothing stands for ConsentAllowed and
	// ConsentUnknown.
	Consent []ConsentState

	// CreatedAfter and CreatedBefore exclude conversations outside, and at, these times.
	CreatedAfter, CreatedBefore time.Time
	// ActiveAfter and ActiveBefore do the same by the time of the last activity. With
	// ActiveBefore and Limit a list is read in pages.
	ActiveAfter, ActiveBefore time.Time

	// Duplicates lists all conversations that were made for a direct message, each
	// with the activity that is its own. Otherwise it is one: see [Client.DM].
	Duplicates bool

	Order ConversationOrder
	// Limit is the most to return; 0 for all.
	Limit int
}

// Conversations returns the conversations that this client has. Sync brings in what
// is new. Of those with the same time the one with the greater id comes first.
func (c *Client) Conversations(o ConversationOptions) ([]*Conversation, error) {
	if len(o.Consent) == 0 {
		o.Consent = wanted
	}
	var rows []store.Listed
	err := c.db.View(func(tx *store.Tx) (err error) {
		rows, err = tx.List(store.Filter{Kinds: o.Type.kinds()}, c.now())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("xmtp: conversations: %w", err)
	}
	if !o.Duplicates {
		rows = stitch(rows)
	}
	rows = slices.DeleteFunc(rows, func(row store.Listed) bool {
		return !slices.Contains(o.Consent, ConsentState(row.State)) ||
			!within(row.Created, o.CreatedAfter, o.CreatedBefore) || !within(activity(row), o.ActiveAfter, o.ActiveBefore)
	})
	by := activity
	if o.Order == CreationTime {
		by = func(row store.Listed) int64 { return row.Created }
	}
	slices.SortFunc(rows, func(a, b store.Listed) int {
		return cmp.Or(cmp.Compare(by(b), by(a)), bytes.Compare(b.ID, a.ID))
	})
	if o.Limit > 0 && len(rows) > o.Limit {
		rows = rows[:o.Limit]
	}
	conversations := make([]*Conversation, len(rows))
	for i, row := range rows {
		conversations[i] = c.conversation(row.Group)
	}
	return conversations, nil
}

// activity is when something was last said that is shown, or when it began.
func activity(row store.Listed) int64 { return cmp.Or(row.Shown, row.Created) }

func within(at int64, after, before time.Time) bool {
	return (after.IsZero() || at > after.UnixNano()) && (before.IsZero() || at < before.UnixNano())
}

// stitch makes one of the groups of each direct message.
func stitch(rows []store.Listed) []store.Listed {
	groups := map[string][]store.Group{} // by dm id
	shown := map[string]int64{}
	for _, row := range rows {
		groups[row.DM] = append(groups[row.DM], row.Group)
		shown[row.DM] = max(shown[row.DM], row.Shown)
	}
	chosen := map[string][]byte{}
	for dm, list := range groups {
		slices.SortFunc(list, func(a, b store.Group) int {
			return cmp.Or(cmp.Compare(b.LastMessage, a.LastMessage), bytes.Compare(b.ID, a.ID))
		})
		row, _ := current(list)
		chosen[dm] = row.ID
	}
	var one []store.Listed
	for _, row := range rows {
		if row.DM != "" {
			if !bytes.Equal(row.ID, chosen[row.DM]) {
				continue
			}
			row.Shown = shown[row.DM]
		}
		one = append(one, row)
	}
	return one
}

// Conversation returns the conversation of an id, 32 hex digits; for a direct message
// the one that stands for it: see [Client.DM]. The error is [ErrNotFound] if this client
// doesn't have it.
func (c *Client) Conversation(id string) (*Conversation, error) {
	raw, err := hex.DecodeString(id)
	if err != nil {
		return nil, fmt.Errorf("xmtp: conversation %.40q: %w", id, ErrNotFound)
	}
	var rows []store.Group
	err = c.db.View(func(tx *store.Tx) error {
		rows, err = stitched(tx, raw)
		return err
	})
	row, ok := current(rows)
	if err == nil && (!ok || !visible(row)) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("xmtp: conversation %s: %w", id, err)
	}
	return c.conversation(row), nil
}

// Message returns the message of an id, 64 hex digits, from any conversation. The error
// is [ErrNotFound] if this client doesn't have it, or not any more.
func (c *Client) Message(id string) (*Message, error) {
	raw, err := hex.DecodeString(id)
	if err != nil {
		return nil, fmt.Errorf("xmtp: message %.70q: %w", id, errNoMessage)
	}
	var row store.Message
	err = c.db.View(func(tx *store.Tx) error {
		var found bool
		row, found, err = tx.FindMessage(raw)
		if err == nil && (!found || row.Expires != 0 && row.Expires <= c.now()) {
			err = errNoMessage
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("xmtp: message %s: %w", id, err)
	}
	return newMessage(row), nil
}

// LastMessage returns the message with the latest time of what members said, nil if
// there is none. Receipts, deletions and changes of the conversation are passed over.
func (v *Conversation) LastMessage() (*Message, error) {
	groups, err := v.groups()
	if err != nil {
		return nil, fmt.Errorf("xmtp: last message: %w", err)
	}
	var m *Message
	err = v.client.db.View(func(tx *store.Tx) error {
		row, found, err := tx.LastShown(groups, v.client.now())
		if found {
			m = newMessage(row)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("xmtp: last message: %w", err)
	}
	return m, nil
}
