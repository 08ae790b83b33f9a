package xmtp

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/network"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// A StreamOption says what a stream yields.
type StreamOption func(*streamOptions)

type streamOptions struct {
	kind       ConversationType
	consent    []ConsentState
	duplicates bool
	fromStart  bool
	durable    bool
	name       string
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

// FromStart lets a stream begin with what the client has stored, oldest first by the
// time when it was stored, rather than with what comes. A durable stream does so when
// its name is used for the first time.
func FromStart() StreamOption {
	return func(o *streamOptions) { o.fromStart = true }
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
// direct message is one conversation: see [Client.DM]. With [FromStart] it begins
// with what is stored, with [Durable] where it was left.
//
// Each stored message is yielded once, whoever is slow: what the loop has not taken
// yet is in the database. The connection is taken up again, from where it was, as
// often as it is lost, without a word.
//
// If the disk is full or has failed, so that what comes, or a durable stream's place,
// can't be stored, [ErrDiskFull], [ErrReadOnly] or [ErrDiskFault] is yielded, and the loop
// may go on: it is tried again, less and less often, and everything comes when the disk
// is in order. Other errors end the iteration: ctx's, [ErrClosed], [ErrStreamInUse], or
// the database's.
func (c *Client) StreamAllMessages(ctx context.Context, options ...StreamOption) iter.Seq2[*Message, error] {
	o := newStreamOptions(options)
	if len(o.consent) == 0 {
		o.consent = wanted
	}
	return follow(ctx, c, messageSource("messages", o.filter()), o)
}

// StreamMessages is [Client.StreamAllMessages] for one conversation, whatever was
// decided about it. A direct message brings those of all conversations that were, or
// will be, made for it.
func (v *Conversation) StreamMessages(ctx context.Context, options ...StreamOption) iter.Seq2[*Message, error] {
	o := newStreamOptions(options)
	f := o.filter()
	scope := v.row.DM
	if f.DM = v.row.DM; f.DM == "" {
		f.Groups = [][]byte{v.row.ID}
		scope = v.ID()
	}
	return follow(ctx, v.client, messageSource("messages of "+scope, f), o)
}

func messageSource(scope string, f store.Filter) source[*Message] {
	return source[*Message]{
		scope: scope,
		fed:   true,
		last:  (*store.Tx).LastRow,
		from: func(tx *store.Tx, position int64) (list []item[*Message], more bool, err error) {
			rows, more, err := tx.MessagesFrom(position, f, pageSize)
			for _, row := range rows {
				list = append(list, item[*Message]{row.Row, newMessage(row)})
			}
			return list, more, err
		},
	}
}

// StreamConversations yields every conversation that comes after the call, until ctx
// ends or the loop is left: those that others let us into, also for another time, and
// those that this client creates. Of a direct message it is the first conversation
// only, unless [WithDuplicates] is given. Consent doesn't matter unless
// [WithConsent] is given. For [FromStart] and [Durable], connections and errors see
// [Client.StreamAllMessages].
func (c *Client) StreamConversations(ctx context.Context, options ...StreamOption) iter.Seq2[*Conversation, error] {
	o := newStreamOptions(options)
	return follow(ctx, c, source[*Conversation]{
		scope: "conversations",
		fed:   true,
		last:  (*store.Tx).LastArrival,
		from: func(tx *store.Tx, position int64) (list []item[*Conversation], more bool, err error) {
			rows, err := tx.ArrivalsFrom(position, o.filter(), o.duplicates, pageSize)
			for _, row := range rows {
				list = append(list, item[*Conversation]{row.Row, c.conversation(row.Group)})
			}
			return list, len(rows) == pageSize, err
		},
	}, o)
}

// source is something in the database that grows.
type source[T any] struct {
	// scope tells it from others whose streams may have the same name.
	scope string
	// fed tells that it takes streams of the node to grow.
	fed bool
	// last returns the position of what came last.
	last func(tx *store.Tx) (int64, error)
	// from returns some items after a position, in order, and whether there may be more.
	from func(tx *store.Tx, position int64) (list []item[T], more bool, err error)
}

type item[T any] struct {
	at    int64
	value T
}

// follow yields what comes after what is there when it is called, or what the options
// say. Nothing waits for who reads: what he has not read yet is in the database.
func follow[T any](ctx context.Context, c *Client, s source[T], o streamOptions) iter.Seq2[T, error] {
	begin, started := c.beginning(s.scope, s.last, o)
	return func(yield func(T, error) bool) {
		fail := func(err error) (goOn bool) {
			var zero T
			return yield(zero, fmt.Errorf("xmtp: stream: %w", err))
		}
		if started != nil {
			fail(started)
			return
		}
		p, err := begin.enter()
		if err != nil {
			fail(err)
			return
		}
		defer p.leave()
		if s.fed {
			defer c.live.use()()
		}
		told := 0       // which trouble with the disk
		behind := false // the place could not be stored
		var retry network.Backoff
		for {
			news, decisions := c.news.wait(), c.db.Decisions()
			if s.fed {
				var trouble error
				if told, trouble = c.live.trouble.since(told); trouble != nil && !fail(trouble) {
					return
				}
			}
			var list []item[T]
			var more bool
			var last int64
			var err error
			if behind {
				err = p.keep()
			}
			if err == nil {
				err = c.db.View(func(tx *store.Tx) (err error) {
					if last, err = s.last(tx); err != nil {
						return err
					}
					list, more, err = s.from(tx, p.at)
					return err
				})
			}
			var again <-chan time.Time
			if err == nil {
				behind = false
				retry.Reset()
			} else {
				if !fail(err) || !store.IsDisk(err) {
					return
				}
				// What is not possible now may be later.
				list, more, last, news, again = nil, false, p.at, nil, time.After(retry.Next())
			}
			for _, i := range list {
				if c.db.Decisions() != decisions {
					more = true // what the user has decided in the meantime counts
					break
				}
				goOn := yield(i.value, nil)
				behind = p.handled(i.at) != nil
				if !goOn {
					return
				}
				if behind {
					more = true // once it is stored
					break
				}
			}
			if more {
				continue
			}
			// What is filtered out is not to be looked at again.
			p.at = max(p.at, last)
			select {
			case <-news:
			case <-again:
			case <-ctx.Done():
				var zero T
				yield(zero, ctx.Err())
				return
			case <-c.closing.Done():
				fail(ErrClosed)
				return
			}
		}
	}
}
