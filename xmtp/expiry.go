package xmtp

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// Deletion tells of a message that is not there any more.
type Deletion struct {
	ConversationID string // 32 hex digits
	MessageID      string // 64 hex digits
}

// StreamDeletions yields the messages that are deleted after the call because they
// were to disappear (see [Disappearing]), until ctx ends or the loop is left. What is
// not taken yet is kept in memory. The error, with which the iteration ends, is ctx's
// or [ErrClosed].
func (c *Client) StreamDeletions(ctx context.Context) iter.Seq2[Deletion, error] {
	return func(yield func(Deletion, error) bool) {
		q := c.deletions.subscribe()
		defer c.deletions.unsubscribe(q)
		for {
			for _, d := range q.take() {
				if !yield(d, nil) {
					return
				}
			}
			select {
			case <-q.more:
			case <-ctx.Done():
				yield(Deletion{}, ctx.Err())
				return
			case <-c.closing.Done():
				yield(Deletion{}, fmt.Errorf("xmtp: stream: %w", ErrClosed))
				return
			}
		}
	}
}

// deletions hands deletions to those who stream them.
type deletions struct {
	mu     sync.Mutex
	queues map[*deletionQueue]bool
}

type deletionQueue struct {
	mu   sync.Mutex
	list []Deletion
	more chan struct{} // holds a token if there is something
}

func (d *deletions) subscribe() *deletionQueue {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.queues == nil {
		d.queues = map[*deletionQueue]bool{}
	}
	q := &deletionQueue{more: make(chan struct{}, 1)}
	d.queues[q] = true
	return q
}

func (d *deletions) unsubscribe(q *deletionQueue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.queues, q)
}

func (d *deletions) publish(list []Deletion) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for q := range d.queues {
		q.put(list)
	}
}

func (q *deletionQueue) put(list []Deletion) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, list...)
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *deletionQueue) take() []Deletion {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list = nil
	return list
}

// expiryBatch is how many messages are deleted by one transaction, so that nobody
// has to wait long for the database.
const expiryBatch = 500

// deleteExpired deletes the messages whose time has come.
func (c *Client) deleteExpired(ctx context.Context) (time.Duration, error) {
	deleted := false
	for ctx.Err() == nil {
		var list []Deletion
		var next int64
		err := c.db.Update(func(tx *store.Tx) (err error) {
			err = tx.DeleteExpired(c.now(), expiryBatch, func(group, id []byte) {
				list = append(list, Deletion{hex.EncodeToString(group), hex.EncodeToString(id)})
			})
			if err != nil {
				return err
			}
			next, err = tx.NextExpiry()
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("deleting expired messages: %w", err)
		}
		c.deletions.publish(list)
		deleted = deleted || len(list) > 0
		if len(list) == expiryBatch {
			continue
		}
		if deleted {
			c.news.publish() // the log of the database has them still
		}
		if next == 0 {
			return forever, nil
		}
		return max(time.Duration(next-c.now()), 0), nil
	}
	return 0, ctx.Err()
}
