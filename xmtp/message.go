package xmtp

import (
	"encoding/hex"
	"time"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// Kind tells what members said from what happened to the conversation.
type Kind int

// Kinds of message.
const (
	// KindApplication is what a member sent.
	KindApplication Kind = store.KindApplication
	// KindMembershipChange tells of a change of members, admins or settings. It
	// is made by each client itself.
	KindMembershipChange Kind = store.KindMembershipChange
)

// Delivery tells how far an own message has come. Those of others are published. A
// message that is to be published stays Unpublished, over failures of the network and
// runs of the program, until the node has taken it or it can't be published any more.
// Then it is Failed, and [Conversation.Publish] can try it again.
type Delivery int

// Stages of delivery.
const (
	Unpublished Delivery = store.Unpublished // in the outbox, or prepared
	Published   Delivery = store.Published   // in the conversation's log
	Failed      Delivery = store.Failed      // will not be published
)

// Message is a message of a conversation. It doesn't change; read it again to see
// how far it has come.
type Message struct {
	// ID is the same for all members: 64 hex digits.
	ID string
	// ConversationID is that of the group it was sent in: 32 hex digits.
	ConversationID string
	// SenderInboxID is the user who sent it.
	SenderInboxID string
	// SenderInstallationID is the device: 64 hex digits.
	SenderInstallationID string
	// SentAt is the node's time, and our own until the message is published.
	SentAt time.Time
	// InsertedAt is when this client stored it; no two messages have the same.
	InsertedAt time.Time
	// ExpiresAt is when it disappears; zero for never. It is set for published
	// messages of conversations in which messages disappear.
	ExpiresAt time.Time
	Kind      Kind
	Delivery  Delivery
	// Content is nil if what was sent is no encoded content.
	Content *content.Encoded
}

// Text returns the text of a plain text message, empty for other content.
func (m *Message) Text() string {
	if m.Content == nil {
		return ""
	}
	text, err := m.Content.Text()
	if err != nil {
		return ""
	}
	return text
}

func newMessage(row store.Message) *Message {
	m := &Message{
		ID:                   hex.EncodeToString(row.ID),
		ConversationID:       hex.EncodeToString(row.Group),
		SenderInboxID:        row.Sender,
		SenderInstallationID: hex.EncodeToString(row.Installation),
		SentAt:               time.Unix(0, row.Sent),
		InsertedAt:           time.Unix(0, row.Inserted),
		Kind:                 Kind(row.Kind),
		Delivery:             Delivery(row.Delivery),
	}
	if row.Expires != 0 {
		m.ExpiresAt = time.Unix(0, row.Expires)
	}
	if encoded, err := content.Unmarshal(row.Content); err == nil {
		m.Content = encoded
	}
	return m
}
