package xmtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// When members' installations are looked at again.
const (
	checkBeforeSend = 5 * time.Second
	checkOnSync     = 30 * time.Minute
)

// A SendOption changes how one message is sent.
type SendOption func(*sendOptions)

type sendOptions struct {
	push *bool
	key  string
}

// WithPush says whether the message wakes the devices of its recipients. By default
// that is as the codec of its content type says; messages of types that the client
// has no codec for don't. Whether a message does is not hidden from the node.
func WithPush(push bool) SendOption {
	return func(o *sendOptions) { o.push = &push }
}

// WithIdempotencyKey lets the message's id follow from the key and the content, so
// that who doesn't know whether he has sent something can do it again: it is one
// message for everybody. By default the key is the time of sending in nanoseconds.
func WithIdempotencyKey(key string) SendOption {
	return func(o *sendOptions) { o.key = key }
}

// SendText sends a plain text and returns its message once it is published.
//
// If ctx ends before, or the node can't be reached, the error is
// [ErrNotPublished], and the message stays in the outbox, to be published later;
// the returned message tells which. Other errors: [ErrRefused], [ErrRemoved],
// [ErrPaused], [ErrStateRolledBack].
func (v *Conversation) SendText(ctx context.Context, text string, options ...SendOption) (*Message, error) {
	return v.Send(ctx, content.Text(text), options...)
}

// Send sends content of any type; see [content.Encode] for how to make it. See
// [Conversation.SendText] for the errors; another one is [content.ErrNoType].
func (v *Conversation) Send(ctx context.Context, c *content.Encoded, options ...SendOption) (*Message, error) {
	m, err := v.send(ctx, c, options)
	if err != nil {
		return m, fmt.Errorf("xmtp: sending: %w", err)
	}
	return m, nil
}

// SendOptimistic stores a message and returns it at once. It is published in the
// background, or by [Conversation.PublishMessages], after everything that was sent
// in the conversation before; it can be listed, and its Delivery tells how far it
// is. It is tried until the node has taken or refused it, also by the next run of
// the program; only the disk isn't waited for, so that a power cut in the moment before
// it is published can undo it. The errors are [ErrRemoved], [ErrStateRolledBack], and
// [content.ErrNoType].
func (v *Conversation) SendOptimistic(c *content.Encoded, options ...SendOption) (*Message, error) {
	d, err := v.group.draft(c, options)
	var m store.Message
	if err == nil {
		m, _, err = v.group.queueNew(d, false)
	}
	if err != nil {
		return nil, fmt.Errorf("xmtp: sending: %w", err)
	}
	v.client.publishSoon()
	return newMessage(m), nil
}

// Prepare stores a message, which can be listed, and doesn't publish it before
// [Conversation.Publish] is called for it. The error is [content.ErrNoType].
func (v *Conversation) Prepare(c *content.Encoded, options ...SendOption) (*Message, error) {
	d, err := v.group.draft(c, options)
	var m store.Message
	if err == nil {
		err = v.client.db.Update(func(tx *store.Tx) error {
			m, err = d.store(tx)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("xmtp: preparing: %w", err)
	}
	return newMessage(m), nil
}

// Publish publishes a message that was prepared, or has failed, after everything
// that was sent in the conversation before, and returns it once it is published. It
// returns a message that is published already as it is. The error is [ErrNotFound]
// for an id that is not of the conversation, else as for [Conversation.SendText].
func (v *Conversation) Publish(ctx context.Context, messageID string) (*Message, error) {
	m, err := v.publish(ctx, messageID)
	if err != nil {
		return m, fmt.Errorf("xmtp: publishing: %w", err)
	}
	return m, nil
}

func (v *Conversation) publish(ctx context.Context, messageID string) (*Message, error) {
	m, err := v.message(messageID)
	if err != nil {
		return nil, err
	}
	g := v.client.groups.get(m.Group)
	var intent int64
	err = v.client.db.UpdateLazily(func(tx *store.Tx) error {
		row, err := g.sendable(tx)
		if err != nil {
			return err
		}
		var found bool
		if m, found, err = tx.MessageByID(g.id, m.ID); err != nil || !found {
			return errors.Join(err, errNoMessage)
		}
		intent, err = g.queue(tx, row, m, true)
		return err
	})
	if err != nil {
		return nil, err
	}
	return g.settleMessage(ctx, intent, m)
}

// PublishMessages publishes what [Conversation.SendOptimistic] has left, and
// everything else that waits in the conversation, and returns when that is done. The
// error is [ErrRefused] if any of it was refused; the Delivery of such messages is
// Failed. Other errors are as for [Conversation.SendText].
func (v *Conversation) PublishMessages(ctx context.Context) error {
	if err := v.group.publishQueued(ctx); err != nil {
		return fmt.Errorf("xmtp: publishing: %w", err)
	}
	return nil
}

func (g *group) publishQueued(ctx context.Context) error {
	var rows []int64
	err := g.client.db.Update(func(tx *store.Tx) error {
		row, err := g.sendable(tx)
		if err != nil {
			return err
		}
		if err := errors.Join(g.renew(tx, row), g.client.allow(tx, g.id)); err != nil {
			return err
		}
		rows, err = tx.IntentRows(g.id)
		g.outcomes.expect(rows...)
		return err
	})
	if err != nil {
		return err
	}
	outcome, err := g.settleRows(ctx, rows)
	if errors.Is(outcome, ErrRefused) {
		return outcome
	}
	return err
}

// send stores and publishes a message.
func (v *Conversation) send(ctx context.Context, c *content.Encoded, options []SendOption) (*Message, error) {
	d, err := v.group.draft(c, options)
	if err != nil {
		return nil, err
	}
	m, intent, err := v.group.sendAtOnce(ctx, d)
	if errors.Is(err, errNotNow) {
		m, intent, err = v.group.queueNew(d, true)
	}
	if err != nil {
		return nil, err
	}
	return v.group.settleMessage(ctx, intent, m)
}

// errNotNow is why a message has to go through the outbox with others.
var errNotNow = errors.New("not now")

// sendAtOnce stores, encrypts and publishes a message with one transaction before it
// leaves, if nobody works with the group and nothing has to be published before. What
// has not succeeded then is left to settle. The error is errNotNow, and nothing was
// done, if others are at it: they publish together.
//
// If its key was reserved, the disk is waited for while the message is on its way. A power
// cut in between is as if it had never been sent, or it is read again from the log.
func (g *group) sendAtOnce(ctx context.Context, d draft) (m store.Message, intent int64, err error) {
	if !g.tryAcquire() {
		return m, 0, errNotNow
	}
	defer g.release()
	if !g.caughtUp || g.mls == nil {
		return m, 0, errNotNow
	}
	var made store.Intent
	var changes stateChanges
	defer changes.clear()
	var row store.Group
	state := g.mls
	err = g.client.db.UpdateLazily(func(tx *store.Tx) error {
		if row, err = g.sendable(tx); err != nil {
			return err
		}
		waits, err := tx.HasIntents(g.id)
		if err != nil || waits || g.outdated(row) {
			return errors.Join(errNotNow, err)
		}
		if m, err = d.store(tx); err != nil {
			return err
		}
		if m.Row != 0 {
			return errNotNow // it was stored before
		}
		envelope, err := envelopeOf(m).Marshal()
		if err != nil {
			return err
		}
		if made, err = newIntent(g.id, intentMessage, messageIntent{Envelope: envelope, Push: m.Push}, m.ID); err != nil {
			return err
		}
		if err := g.encrypt(state, &made, envelope, &changes); err != nil {
			return err
		}
		made.Row, err = tx.AddIntent(made)
		return errors.Join(err, g.client.allow(tx, g.id), changes.save(tx, g.id))
	})
	var synced <-chan error
	if err == nil {
		synced = g.client.db.SyncSoon()
		if !g.reserved(state) {
			err = <-synced
		}
	}
	if err != nil {
		if len(changes.records) > 0 {
			g.mls = nil // it has gone on without the database
		}
		return m, 0, err
	}
	page, err := g.send(ctx, row.Cursor, []*mlsapi.GroupMessageInput{groupInput(&made, m.Push)})
	settled := err == nil && g.settleSoon(state, row, made, page, &m)
	if !settled {
		g.outcomes.expect(made.Row)
		if err == nil {
			// What goes wrong now, or has before, settle meets again.
			_ = g.receiveAfter(ctx, row, page, map[string]bool{string(made.Hash): true})
		}
	}
	if err := <-synced; err != nil {
		if !settled {
			g.outcomes.take(made.Row)
		}
		g.mls = nil
		return m, 0, err
	}
	g.reserve(state, made.Epoch)
	if settled {
		return m, 0, nil
	}
	return m, made.Row, nil
}

// settleSoon notes that a message is published if it is all that is new in the log. Nobody
// waits for the database then: what it says in the end is known.
func (g *group) settleSoon(state *mls.Group, row store.Group, made store.Intent, page *logPage, m *store.Message) bool {
	life := lifetime(state)
	if life != 0 || page == nil || page.err != nil || page.more || page.after != row.Cursor || len(page.messages) != 1 {
		return false
	}
	own := page.messages[0]
	if !bytes.Equal(own.Data, made.Payload) || !bytes.Equal(own.GroupId, g.id) || own.Id <= row.Cursor || own.Id > maxNumber {
		return false
	}
	received := &receivedPage{group: g, epoch: state.Epoch(), messages: []received{{GroupMessage_V1: own, own: true}}}
	g.client.db.UpdateBehind(received.storeMessages, func(err error) {
		if err != nil {
			g.client.publishSoon() // it is read once more
		}
	})
	g.client.news.publish()
	g.caughtUp, g.current = true, true
	m.Delivery, m.Number, m.Sent, m.Expires = store.Published, own.Id, int64(own.CreatedNs), 0
	return true
}

// settleMessage works until a message is published, and returns it as it is then. It is if
// there is no intent.
func (g *group) settleMessage(ctx context.Context, intent int64, m store.Message) (*Message, error) {
	if intent == 0 {
		return newMessage(m), nil
	}
	waits := false
	look := func(tx *store.Tx) error {
		stored, found, err := tx.MessageByID(g.id, m.ID)
		if found {
			m = stored
		}
		if err == nil {
			_, waits, err = tx.Intent(intent)
		}
		return err
	}
	err := g.client.db.View(look)
	var settled error
	if waits || err != nil {
		settled = g.settle(ctx, intent)
		err = g.client.db.View(look)
	} else {
		settled = g.outcomes.take(intent)
	}
	return newMessage(m), errors.Join(settled, err)
}

// A draft is a message that is not stored yet.
type draft struct {
	group   *group
	message store.Message
}

func (g *group) draft(c *content.Encoded, options []SendOption) (draft, error) {
	if c == nil || c.Type == (content.Type{}) {
		return draft{}, content.ErrNoType
	}
	encoded, err := c.Marshal()
	if err != nil {
		return draft{}, err
	}
	var o sendOptions
	for _, option := range options {
		option(&o)
	}
	push := g.client.options.codecs.Push(c.Type)
	if o.push != nil {
		push = *o.push
	}
	// A key that can't be sent is found out now.
	if _, err := (protocol.Envelope{Content: encoded, IdempotencyKey: o.key}).Marshal(); err != nil {
		return draft{}, err
	}
	return draft{g, store.Message{
		Group: g.id, Sender: g.client.inboxID, Installation: g.client.installation.Bytes(), Kind: store.KindApplication,
		Delivery: store.Unpublished, ContentType: c.Type.String(), Content: encoded, Key: o.key, Push: push,
	}}, nil
}

// errKeyTaken is why an idempotency key of the caller can't be used.
var errKeyTaken = errors.New("another member has used the idempotency key for this content")

// store stores a draft, or returns the message that it was stored as before.
func (d draft) store(tx *store.Tx) (store.Message, error) {
	m := d.message
	m.Sent = d.group.client.now()
	m.Inserted = m.Sent
	for ; ; m.Sent++ {
		if d.message.Key == "" {
			m.Key = strconv.FormatInt(m.Sent, 10)
		}
		id := envelopeOf(m).MessageID(m.Group)
		m.ID = id[:]
		if added, err := tx.AddMessage(&m); added || err != nil {
			return m, err
		}
		existing, _, err := tx.MessageByID(m.Group, m.ID)
		switch {
		case err != nil:
			return m, err
		case d.message.Key == "":
			// The same at the same time is not meant to be one message.
		case existing.Sender != m.Sender:
			return m, errKeyTaken
		default:
			return existing, nil
		}
	}
}

func envelopeOf(m store.Message) protocol.Envelope {
	return protocol.Envelope{Content: m.Content, IdempotencyKey: m.Key}
}

// sendable returns the group's row, or the reason why nothing can be sent in it.
func (g *group) sendable(tx *store.Tx) (store.Group, error) {
	row, found, err := tx.Group(g.id)
	if err != nil || !found {
		return row, errors.Join(err, ErrNotFound)
	}
	return row, usable(row)
}

// queueNew stores a message and puts it into the outbox. Whoever doesn't wait for it
// can also do so while the group is paused.
//
// The disk is not waited for: no byte leaves before it is for the sake of its
// encryption, and nobody is told before that it will be published.
func (g *group) queueNew(d draft, wait bool) (m store.Message, intent int64, err error) {
	err = g.client.db.UpdateLazily(func(tx *store.Tx) error {
		row, err := g.sendable(tx)
		if err != nil && (wait || !errors.Is(err, ErrPaused)) {
			return err
		}
		if m, err = d.store(tx); err != nil {
			return err
		}
		intent, err = g.queue(tx, row, m, wait)
		return err
	})
	return m, intent, err
}

// queue puts a stored message into the outbox unless it is there, or published: then
// there is no intent, 0. The outcome is expected if somebody waits.
func (g *group) queue(tx *store.Tx, row store.Group, m store.Message, wait bool) (intent int64, err error) {
	if m.Delivery == store.Published {
		return 0, nil
	}
	if m.Row != 0 { // it was stored before
		waiting, _, err := tx.IntentByMessage(g.id, m.ID)
		if err := errors.Join(err, tx.MarkUnpublished(g.id, m.ID)); err != nil {
			return 0, err
		}
		intent = waiting.Row
	}
	if intent == 0 {
		envelope, err := envelopeOf(m).Marshal()
		if err != nil {
			return 0, err
		}
		if err := errors.Join(g.renew(tx, row), g.client.allow(tx, g.id)); err != nil {
			return 0, err
		}
		if intent, err = g.put(tx, intentMessage, messageIntent{Envelope: envelope, Push: m.Push}, m.ID); err != nil {
			return 0, err
		}
	}
	if wait {
		g.outcomes.expect(intent)
	}
	return intent, nil
}

// renew puts in front of a message what has to be in the log before it: our own
// first commit in a group that we were let into, and members' new installations.
func (g *group) renew(tx *store.Tx, row store.Group) error {
	if g.keysOutdated(row) {
		if err := g.enqueueKeyUpdate(tx); err != nil {
			return err
		}
	}
	if g.membersOutdated(row) {
		_, err := g.putCheck(tx, row)
		return err
	}
	return nil
}

// outdated tells whether there is something to renew.
func (g *group) outdated(row store.Group) bool { return g.keysOutdated(row) || g.membersOutdated(row) }

func (g *group) keysOutdated(row store.Group) bool {
	return g.client.options.selfUpdate.beforeMessage(row, g.client.now())
}

func (g *group) membersOutdated(row store.Group) bool {
	return g.client.now()-row.Checked > int64(checkBeforeSend)
}

// settleAll works until everything that is in the outbox is done with. What has been
// refused is; who asked for it is not here.
func (g *group) settleAll(ctx context.Context) error {
	var rows []int64
	err := g.client.db.View(func(tx *store.Tx) (err error) {
		rows, err = tx.IntentRows(g.id)
		g.outcomes.expect(rows...)
		return err
	})
	if err != nil {
		return err
	}
	_, err = g.settleRows(ctx, rows)
	return err
}

// settleRows works until all of some intents, in their order, are done with, and
// returns their outcomes.
func (g *group) settleRows(ctx context.Context, rows []int64) (outcome, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	done, err := g.work(ctx, rows[len(rows)-1])
	var all []error
	for _, row := range rows {
		all = append(all, g.outcomes.take(row))
	}
	if done {
		return errors.Join(all...), nil
	}
	return nil, err
}

// publishSoon wakes the worker that publishes what is in outboxes.
func (c *Client) publishSoon() {
	select {
	case c.unsent <- struct{}{}:
	default: // it will
	}
}
