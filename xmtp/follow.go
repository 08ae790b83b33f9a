package xmtp

import (
	"context"
	"fmt"
	"iter"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// A StreamOption says what a stream yields.
type StreamOption func(*streamOptions)

type streamOptions struct {
	kind       ConversationType
	consent    []ConsentState
	duplicates bool
}

func newStreamOptions(list []StreamOption) streamOptions {
	var o streamOptions
	for _, option := range list {
		option(&o)
	}
	return o
}

// OfType restricts a stream to groups or to direct messages.
func OfType(t ConversationType) StreamOption {
	return func(o *streamOptions) { o.kind = t }
}

// WithConsent restricts a stream to conversations in one of these states at the time
// when something is yielded.
func WithConsent(states ...ConsentState) StreamOption {
	return func(o *streamOptions) { o.consent = states }
}

// WithDuplicates makes [Client.StreamConversations] yield further conversations of a
// direct message, too.
func WithDuplicates() StreamOption {
	return func(o *streamOptions) { o.duplicates = true }
}

func (o streamOptions) filter() store.Filter {
	return store.Filter{Kinds: o.kind.kinds(), Consent: numbers(o.consent)}
}

// StreamAllMessages yields every message that arrives after the call, of all
// conversations and those that are still to come, until ctx ends or the loop is
// left: what others send, what this installation has published, and changes of
// members. What came while the client was closed arrives now, and so is yielded,
// too. Within a conversation the order is that of its log.
//
// Conversations that were denied are left out, as with official clients, unless
// [WithConsent] says otherwise; [OfType] restricts it to groups or direct messages. A
// direct message is one conversation: see [Client.DM].
//
// Each stored message is yielded once. The connection is taken up again, from
// where it was, as often as it is lost, without a word. The error, with which the
// iteration ends, is ctx's, [ErrClosed], or the database's.
func (c *Client) StreamAllMessages(ctx context.Context, options ...StreamOption) iter.Seq2[*Message, error] {
	o := newStreamOptions(options)
	if len(o.consent) == 0 {
		o.consent = wanted
	}
	return follow(ctx, c, messageSource(o.filter()))
}

// StreamMessages is [Client.StreamAllMessages] for one conversation, whatever was
// decided about it. A direct message brings those of all conversations that were, or
// will be, made for it.
func (v *Conversation) StreamMessages(ctx context.Context, options ...StreamOption) iter.Seq2[*Message, error] {
	f := newStreamOptions(options).filter()
	if f.DM = v.row.DM; f.DM == "" {
		f.Groups = [][]byte{v.row.ID}
	}
	return follow(ctx, v.client, messageSource(f))
}

func messageSource(f store.Filter) source[*Message] {
	return source[*Message]{
		fed:  true,
		last: (*store.Tx).LastRow,
		from: func(tx *store.Tx, position int64, limit int) ([]item[*Message], error) {
			rows, err := tx.MessagesFrom(position, f, limit)
			var list []item[*Message]
			for _, row := range rows {
				list = append(list, item[*Message]{row.Row, newMessage(row)})
			}
			return list, err
		},
	}
}

// StreamConversations yields every conversation that comes after the call, until ctx
// ends or the loop is left: those that others let us into, also for another time, and
// those that this client creates. Of a direct message it is the first conversation
// only, unless [WithDuplicates] is given. Consent doesn't matter unless
// [WithConsent] is given. For connections and errors see [Client.StreamAllMessages].
func (c *Client) StreamConversations(ctx context.Context, options ...StreamOption) iter.Seq2[*Conversation, error] {
	o := newStreamOptions(options)
	return follow(ctx, c, source[*Conversation]{
		fed:  true,
		last: (*store.Tx).LastArrival,
		from: func(tx *store.Tx, position int64, limit int) ([]item[*Conversation], error) {
			rows, err := tx.ArrivalsFrom(position, o.filter(), o.duplicates, limit)
			var list []item[*Conversation]
			for _, row := range rows {
				list = append(list, item[*Conversation]{row.Row, c.conversation(row.Group)})
			}
			return list, err
		},
	})
}

// source is something in the database that grows.
type source[T any] struct {
	// fed tells that it takes streams of the node to grow.
	fed bool
	// last returns the position of what came last.
	last func(tx *store.Tx) (int64, error)
	// from returns up to limit items after a position, in order.
	from func(tx *store.Tx, position int64, limit int) ([]item[T], error)
}

type item[T any] struct {
	at    int64
	value T
}

// follow yields what comes after what is there when it is called. Nothing waits for
// who reads: what he has not read yet is in the database.
func follow[T any](ctx context.Context, c *Client, s source[T]) iter.Seq2[T, error] {
	var position int64
	started := c.db.View(func(tx *store.Tx) (err error) {
		position, err = s.last(tx)
		return err
	})
	return func(yield func(T, error) bool) {
		var zero T
		if started != nil {
			yield(zero, fmt.Errorf("xmtp: stream: %w", started))
			return
		}
		if s.fed {
			defer c.live.use()()
		}
		for position := position; ; {
			news := c.news.wait()
			var list []item[T]
			var last int64
			err := c.db.View(func(tx *store.Tx) (err error) {
				if last, err = s.last(tx); err != nil {
					return err
				}
				list, err = s.from(tx, position, pageSize)
				return err
			})
			if err != nil {
				yield(zero, fmt.Errorf("xmtp: stream: %w", err))
				return
			}
			for _, i := range list {
				position = i.at
				if !yield(i.value, nil) {
					return
				}
			}
			if len(list) == pageSize {
				continue
			}
			// What is filtered out is not to be looked at again.
			position = max(position, last)
			select {
			case <-news:
			case <-ctx.Done():
				yield(zero, ctx.Err())
				return
			case <-c.closing.Done():
				yield(zero, fmt.Errorf("xmtp: stream: %w", ErrClosed))
				return
			}
		}
	}
}
