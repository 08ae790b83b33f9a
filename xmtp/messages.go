package xmtp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// MessageOptions restrict which messages are read, and say in which order. The zero
// value is all that are to be shown, oldest first.
type MessageOptions struct {
	// SentAfter and SentBefore exclude messages outside, and at, these times.
	SentAfter, SentBefore time.Time
	// InsertedAfter and InsertedBefore do so by the time at which this client stored
	// them. No two messages of a client have the same, it never changes, and what
	// comes later has a later one: so pages by it neither skip nor repeat any.
	InsertedAfter, InsertedBefore time.Time
	// Kind is the only kind; 0 for all.
	Kind Kind
	// Delivery is the only stage of delivery; 0 for all.
	Delivery Delivery
	// Types are the only types, if any is named, and ExcludeTypes are left out,
	// whatever their versions.
	Types, ExcludeTypes []content.Type
	// ExcludeSenders are inbox ids whose messages are left out.
	ExcludeSenders []string
	// Hidden reads also what is not shown as a message of its own: reactions, read
	// receipts, and deletions. They are left out even if Types names them.
	Hidden bool
	// ByInserted orders by the time of insertion rather than of sending.
	ByInserted bool
	// Newest first.
	Descending bool
	// Limit is the most messages to return; 0 for all.
	Limit int
}

// hiddenTypes say something about other messages.
var hiddenTypes = []content.Type{
	{Authority: "xmtp.org", Name: "reaction"},
	{Authority: "xmtp.org", Name: "readReceipt"},
	{Authority: "xmtp.org", Name: "deleteMessage"},
}

func (o MessageOptions) query(now int64) store.MessageQuery {
	exclude := o.ExcludeTypes
	if !o.Hidden {
		exclude = append(exclude[:len(exclude):len(exclude)], hiddenTypes...)
	}
	return store.MessageQuery{
		SentAfter: nanoseconds(o.SentAfter), SentBefore: nanoseconds(o.SentBefore),
		InsertedAfter: nanoseconds(o.InsertedAfter), InsertedBefore: nanoseconds(o.InsertedBefore),
		Kind: int(o.Kind), Delivery: int(o.Delivery), Types: typeNames(o.Types), ExcludeTypes: typeNames(exclude),
		ExcludeSenders: o.ExcludeSenders, Now: now, ByInserted: o.ByInserted, Descending: o.Descending, Limit: o.Limit,
	}
}

// nanoseconds is 0 for the zero time.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// typeNames are types without versions, as the database looks for them.
func typeNames(types []content.Type) []string {
	var names []string
	for _, t := range types {
		names = append(names, t.Authority+"/"+t.Name+":")
	}
	return names
}

// Messages returns messages that this client has, by the time of sending; those of
// the same time in the order of arrival. Sync brings in what is new. Messages that
// have disappeared are left out, see [Conversation.SetDisappearing].
func (v *Conversation) Messages(o MessageOptions) ([]*Message, error) {
	var messages []*Message
	err := v.read(o, func(tx *store.Tx, groups [][]byte, q store.MessageQuery) error {
		rows, err := tx.Messages(groups, q)
		for _, row := range rows {
			messages = append(messages, newMessage(row))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("xmtp: messages: %w", err)
	}
	return messages, nil
}

// CountMessages returns how many messages [Conversation.Messages] has for the same
// options without a limit.
func (v *Conversation) CountMessages(o MessageOptions) (int, error) {
	var n int64
	err := v.read(o, func(tx *store.Tx, groups [][]byte, q store.MessageQuery) (err error) {
		n, err = tx.CountMessages(groups, q)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("xmtp: counting messages: %w", err)
	}
	return int(n), nil
}

// read runs f with a query of the groups that the conversation consists of.
func (v *Conversation) read(o MessageOptions, f func(tx *store.Tx, groups [][]byte, q store.MessageQuery) error) error {
	if o.Limit < 0 {
		return errors.New("a negative limit")
	}
	groups, err := v.groups()
	if err != nil {
		return err
	}
	return v.client.db.View(func(tx *store.Tx) error { return f(tx, groups, o.query(v.client.now())) })
}

// message finds a message of the conversation.
func (v *Conversation) message(id string) (m store.Message, err error) {
	groups, err := v.groups()
	if err != nil {
		return m, err
	}
	raw, err := hex.DecodeString(id)
	if err != nil {
		return m, fmt.Errorf("message %.70q: %w", id, errNoMessage)
	}
	err = v.client.db.View(func(tx *store.Tx) error {
		for _, g := range groups {
			var found bool
			if m, found, err = tx.MessageByID(g, raw); found || err != nil {
				return err
			}
		}
		return fmt.Errorf("message %s: %w", id, errNoMessage)
	})
	return m, err
}

// Decode returns what a message holds as a value of the type of its codec: a string
// for text, a [*content.GroupUpdated] for changes of a group, and whatever
// [WithCodec] has brought. The error is [content.ErrUnknownType] if there is no
// codec, and [content.ErrMalformed] if the content is not what its type says: in both
// cases show the fallback of the message's content, or nothing if there is none.
func (c *Client) Decode(m *Message) (any, error) {
	if m.Content == nil {
		return nil, fmt.Errorf("xmtp: message %s: %w", m.ID, content.ErrMalformed)
	}
	value, err := c.options.codecs.Decode(m.Content)
	if err != nil {
		return nil, fmt.Errorf("xmtp: message %s: %w", m.ID, err)
	}
	return value, nil
}

// ownCodecs are the content types that every client knows.
func ownCodecs() content.Codecs {
	var all content.Codecs
	content.Add(&all, content.TextCodec)
	content.Add(&all, content.GroupUpdatedCodec)
	return all
}

// lifetime is how long a message lives that is applied in a state of its group; 0 for
// ever. It counts from then by our own clock, whenever the message was sent: so do
// official clients, and so a device that was off keeps it longer. Changes of the
// group don't disappear.
func lifetime(state *mls.Group) time.Duration {
	if d := protocol.ParseDisappearing(state.Extensions()); d.On() {
		return time.Duration(d.In)
	}
	return 0
}

// expiry is when a message expires that is applied now; 0 for never.
func (c *Client) expiry(life time.Duration) int64 {
	if life == 0 {
		return 0
	}
	now := c.now()
	if int64(life) > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + int64(life)
}
