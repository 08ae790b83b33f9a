package xmtp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// pageSize is how many messages a node returns at once. Fewer are the last page.
const pageSize = 100

// ErrNodeOrder is returned if a node breaks the order of a log. Nothing of what
// it sent was applied. An [InvalidAnswer] tells of it.
var ErrNodeOrder = errors.New("the node breaks the order of the log")

// ErrNodeAnswer is returned if what a node answers is no answer to what it was asked:
// about something else, or too little or too much. Nothing of it was used. An
// [InvalidAnswer] tells of it.
var ErrNodeAnswer = errors.New("the node's answer is not one to the question")

// What findings call the node's calls.
const (
	callMessages = "messages of a conversation"
	callNewest   = "newest messages"
	callWelcomes = "welcomes"
	callPackages = "key packages"
	callUpdates  = "identity updates"
	callInboxes  = "inboxes of addresses"
	callCommits  = "commit logs"
	callStream   = "stream"
)

// maxNumber is the highest number of anything that a database can hold.
const maxNumber = 1<<63 - 1

// receive reads and applies what is new in the group's log; while a page is decrypted,
// the one before is stored, and the next one is on its way. The caller holds the lock.
func (g *group) receive(ctx context.Context) error {
	return g.receivePage(ctx, nil)
}

// receivePage is receive for one who may have the first page, from send.
func (g *group) receivePage(ctx context.Context, first *logPage) error {
	row, err := g.row()
	if err != nil {
		return err
	}
	return g.receiveAfter(ctx, row, first, nil)
}

// receiveAfter is receivePage for one who has just read the group's row, and knows the
// hashes of all messages that are on their way, if own isn't nil: who sends in many groups
// at once waits for his turn at the database each time.
func (g *group) receiveAfter(ctx context.Context, row store.Group, first *logPage, own map[string]bool) (err error) {
	if row.Problem != "" {
		g.caughtUp, g.current = true, true
		return nil
	}
	if err := usable(row); err != nil {
		return err // paused: what comes can't be judged by this version
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ahead <-chan logPage
	storing := storing{own: own}
	defer func() {
		if ahead != nil {
			cancel()
			<-ahead
		}
		if err = errors.Join(err, storing.finish(g)); err == nil {
			g.caughtUp, g.current = true, true
		}
	}()
	if first == nil || first.after != row.Cursor {
		page := g.query(ctx, row.Cursor)
		first = &page
	}
	for page := *first; ; page = <-ahead {
		ahead = nil
		if page.err != nil {
			return fmt.Errorf("reading conversation %s: %w", g, page.err)
		}
		if storing.last = !page.more; page.more {
			ahead = g.queryAhead(ctx, page.messages[len(page.messages)-1].Id)
		}
		if row, err = g.applyPage(ctx, row, page.messages, &storing); err != nil {
			return err
		}
		if !page.more || row.Problem != "" {
			return nil
		}
		if err := usable(row); err != nil {
			return err
		}
	}
}

// logPage is a part of a group's log.
type logPage struct {
	after    uint64 // the number where it begins
	messages []*mlsapi.GroupMessage_V1
	more     bool
	err      error
}

// query reads a page of the log.
func (g *group) query(ctx context.Context, cursor uint64) logPage {
	response, err := g.client.node.MLS.QueryGroupMessages(ctx, &mlsapi.QueryGroupMessagesRequest{
		GroupId: g.id,
		PagingInfo: &mlsapi.PagingInfo{
			Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING,
			Limit:     pageSize,
			IdCursor:  cursor,
		},
	})
	if err != nil {
		return logPage{err: err}
	}
	return g.page(cursor, response)
}

// page looks at what a node says about the log after a number.
func (g *group) page(cursor uint64, response *mlsapi.QueryGroupMessagesResponse) logPage {
	page := logPage{after: cursor}
	page.messages = make([]*mlsapi.GroupMessage_V1, 0, len(response.Messages))
	for _, m := range response.Messages {
		v1 := m.GetV1()
		if v1 == nil {
			return logPage{err: g.client.wrongAnswer(callMessages, "a message of no version")}
		}
		page.messages = append(page.messages, v1)
	}
	page.more = len(page.messages) >= pageSize || len(page.messages) > 0 && response.PagingInfo.GetIdCursor() != 0
	return page
}

// queryAhead reads a page in the background. It must be taken.
func (g *group) queryAhead(ctx context.Context, cursor uint64) <-chan logPage {
	page := make(chan logPage, 1)
	go func() { page <- g.query(ctx, cursor) }()
	return page
}

// apply applies messages of the log, which follow each other and what was
// applied before to the group, whose row it takes and returns as it is then.
func (g *group) apply(ctx context.Context, row store.Group, messages []*mlsapi.GroupMessage_V1) (store.Group, error) {
	var storing storing
	row, err := g.applyPage(ctx, row, messages, &storing)
	return row, errors.Join(err, storing.finish(g))
}

// applyPage is apply that may still go on storing. Application messages share a
// transaction, so that a backlog is fast; a commit has one of its own, after it was
// judged with the network.
func (g *group) applyPage(ctx context.Context, row store.Group, messages []*mlsapi.GroupMessage_V1, storing *storing) (store.Group, error) {
	cursor := row.Cursor
	for _, m := range messages {
		if len(m.GroupId) > 0 && !bytes.Equal(m.GroupId, g.id) {
			return row, g.client.wrongAnswer(callMessages, "message %d is of another conversation", m.Id)
		}
		if m.Id <= cursor || m.Id > maxNumber {
			return row, g.client.wrongOrder(callMessages, "message %d after %d", m.Id, cursor)
		}
		cursor = m.Id
	}
	for len(messages) > 0 {
		n := 0
		for n < len(messages) && isApplication(messages[n]) {
			n++
		}
		var err error
		if n > 0 {
			err = g.applyApplications(messages[:n], storing)
			row.Cursor = messages[n-1].Id
		} else {
			n = 1
			if err = storing.finish(g); err == nil {
				err = g.applyHandshake(ctx, messages[0])
			}
			if err == nil {
				row, err = g.row()
			}
		}
		if err != nil {
			return row, err
		}
		messages = messages[n:]
		if row.Problem != "" {
			// What comes after our removal is not for us, and what of it is ours nobody
			// could read.
			return row, nil
		}
	}
	return row, nil
}

func isApplication(m *mlsapi.GroupMessage_V1) bool {
	header, _, err := mls.ParseHeader(m.Data)
	// What can't be read is skipped with the same ease.
	return err != nil || header.ContentType == mls.ContentTypeApplication
}

// received is a message of the log that has been opened.
type received struct {
	*mlsapi.GroupMessage_V1
	own     bool             // it stands in the outbox
	message *store.Message   // nil if there is none to store
	lost    bool             // message is our own, which a power cut has made us forget
	missing *MessagesMissing // what should have come before it; nil if nothing
	reason  error            // why it can't be used
}

// storing is a transaction with received messages that goes on while others are
// decrypted.
type storing struct {
	last bool // nothing comes to be decrypted meanwhile
	done chan error
	own  map[string]bool // hashes of the messages that stand in the outbox; nil if they have to be read
}

// start stores messages.
func (s *storing) start(store func() error) {
	s.done = make(chan error, 1)
	if s.last {
		s.done <- store()
		return
	}
	go func() { s.done <- store() }()
}

// finish waits for what was started. If it has failed, the MLS state, which has gone on,
// is read from the database again.
func (s *storing) finish(g *group) error {
	if s.done == nil {
		return nil
	}
	err := <-s.done
	s.done = nil
	if !errors.Is(err, ErrStateRolledBack) {
		err = g.reread(err)
	}
	return err
}

// applyApplications applies messages without commits. A bad one is noted and skipped.
// They are decrypted before their transaction, in which others may wait for their turn.
func (g *group) applyApplications(messages []*mlsapi.GroupMessage_V1, storing *storing) error {
	state, err := g.state()
	if err != nil {
		return err
	}
	own := storing.own
	if own == nil {
		err = g.client.db.View(func(tx *store.Tx) (err error) {
			own, err = tx.IntentHashes(g.id, intentMessage, maxBatchMessages)
			return err
		})
		if err != nil {
			return err
		}
	}
	page := receivedPage{group: g, epoch: state.Epoch(), life: lifetime(state)}
	for _, m := range messages {
		r := received{GroupMessage_V1: m}
		if len(own) > 0 {
			hash := sha256.Sum256(m.Data)
			r.own = own[string(hash[:])]
		}
		if !r.own {
			r.message, r.missing, r.reason = g.open(state, m, page.life, &page.changes)
			r.lost = r.message != nil && bytes.Equal(r.message.Installation, g.client.installation.Bytes())
		}
		if page.rolledBack = errors.Is(r.reason, mls.ErrStateRolledBack); page.rolledBack {
			page.last = m
			break
		}
		page.messages = append(page.messages, r)
	}
	if err := storing.finish(g); err != nil {
		page.changes.clear()
		return err
	}
	storing.start(page.store)
	if page.rolledBack {
		return storing.finish(g)
	}
	return nil
}

// receivedPage are messages that were opened, and what comes of them.
type receivedPage struct {
	group      *group
	epoch      uint64
	life       time.Duration
	messages   []received
	changes    stateChanges
	rolledBack bool // by what follows, the last
	last       *mlsapi.GroupMessage_V1
}

// store stores it in a transaction. The error is the database's, or [ErrStateRolledBack].
func (p *receivedPage) store() error {
	defer p.changes.clear()
	update := p.group.client.db.UpdateLazily
	if p.rolledBack {
		update = p.group.client.db.Update
	}
	err := update(func(tx *store.Tx) error {
		if len(p.messages) > 0 {
			if err := errors.Join(p.storeMessages(tx), p.changes.save(tx, p.group.id)); err != nil {
				return err
			}
		}
		if p.rolledBack {
			return p.group.markRolledBack(tx, p.last)
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.group.client.news.publish()
	if p.rolledBack {
		return ErrStateRolledBack
	}
	return nil
}

// open decrypts a message of somebody else, or one of ours that was lost. A reason means that it can't be used; then
// nothing was changed.
func (g *group) open(state *mls.Group, m *mlsapi.GroupMessage_V1, life time.Duration, changes *stateChanges) (message *store.Message, missing *MessagesMissing, reason error) {
	pending, reason := state.Process(m.Data)
	if reason != nil {
		return nil, nil, reason
	}
	defer pending.Discard()
	decrypted, ok := pending.Result().(*mls.ApplicationMessage)
	if !ok {
		// Our own, from before: there is nothing left to do.
		return nil, nil, nil
	}
	sender, reason := protocol.SenderOf(state, decrypted)
	if reason != nil {
		return nil, nil, reason
	}
	if sender.Installation != g.client.installation {
		missing = g.listen(state, decrypted, sender)
	}
	envelope, reason := protocol.ParseEnvelope(decrypted.Data)
	if reason != nil {
		return nil, missing, reason
	}
	id := envelope.MessageID(g.id)
	changes.add(pending.Changes())
	pending.Done()
	return &store.Message{
		ID:           id[:],
		Group:        g.id,
		Number:       m.Id,
		Sent:         int64(m.CreatedNs),
		Inserted:     g.client.now(),
		Sender:       sender.InboxID,
		Installation: sender.Installation.Bytes(),
		Kind:         store.KindApplication,
		Delivery:     store.Published,
		ContentType:  contentType(envelope.Content),
		Expires:      g.client.expiry(life),
		Content:      envelope.Content,
	}, missing, nil
}

// storeMessages stores what follows from messages besides the MLS state.
func (p *receivedPage) storeMessages(tx *store.Tx) error {
	g, newest := p.group, int64(0)
	for _, r := range p.messages {
		if r.missing != nil {
			if err := g.client.raise(tx, *r.missing, false, evidence{}); err != nil {
				return err
			}
		}
		switch {
		case r.own:
			if err := p.applyOwn(tx, r.GroupMessage_V1); err != nil {
				return err
			}
		case r.reason != nil:
			if err := g.skip(tx, r.GroupMessage_V1, r.reason); err != nil {
				return err
			}
		case r.message != nil:
			if r.lost {
				if err := p.settleLost(tx, r.message); err != nil {
					return err
				}
			}
			added, err := tx.AddReceived(*r.message)
			if added {
				newest = max(newest, r.message.Sent)
			}
			if added && protocol.IsLeaveRequest(r.message.Content) {
				err = errors.Join(err, g.noteLeave(tx, r.message.Sender))
			}
			if err != nil {
				return err
			}
		}
	}
	return tx.SetCursor(g.id, p.messages[len(p.messages)-1].Id, newest)
}

// settleLost sees to it that a message of ours that was lost on its way, and is in the
// log, isn't sent again if it was stored before or since.
func (p *receivedPage) settleLost(tx *store.Tx, m *store.Message) error {
	intent, found, err := tx.IntentByMessage(m.Group, m.ID)
	if err != nil {
		return err
	}
	if found {
		if err := tx.DeleteIntent(intent.Row); err != nil {
			return err
		}
	}
	_, err = tx.MarkPublished(m.Group, m.ID, m.Number, m.Sent, m.Expires)
	return err
}

// applyOwn notes that a message that stands in the outbox is in the log.
func (p *receivedPage) applyOwn(tx *store.Tx, m *mlsapi.GroupMessage_V1) error {
	g := p.group
	hash := sha256.Sum256(m.Data)
	intent, found, err := tx.IntentByHash(g.id, hash[:])
	if err != nil || !found {
		return err // the log has it twice
	}
	if intent.Epoch+pastEpochs < p.epoch {
		// It came so late that members have lost the key: once more, then. Official
		// clients do so an epoch earlier, when members can still read it; the message
		// then has one time for the sender and another for everybody else.
		return g.requeue(tx, intent)
	}
	published, err := tx.MarkPublished(g.id, intent.Message, m.Id, int64(m.CreatedNs), g.client.expiry(p.life))
	if err := errors.Join(err, tx.DeleteIntent(intent.Row)); err != nil {
		return err
	}
	if protocol.IsLeaveRequest(published) {
		return g.noteLeave(tx, g.client.inboxID)
	}
	return nil
}

// pastEpochs is for how many epochs members keep keys.
const pastEpochs = 3

// maxAttempts is how often an intent is made again because others were faster.
const maxAttempts = 20

// errTooManyAttempts is why an intent is given up in the end.
var errTooManyAttempts = fmt.Errorf("others were faster %d times", maxAttempts)

// requeue lets an intent be made again in the epoch that has come, but not for ever.
func (g *group) requeue(tx *store.Tx, i store.Intent) error {
	if i.Attempts++; i.Attempts >= maxAttempts {
		return g.giveUp(tx, i, errTooManyAttempts)
	}
	i.State, i.Payload, i.HMAC, i.Hash, i.After, i.Epoch = stateQueued, nil, nil, nil, nil, 0
	return tx.SetIntent(i)
}

// requeueAll lets what was made for a membership that has ended be made for the new
// one. It may be in the part of the log that lies between, which is not for us; but then
// a message is the same for everybody, by its id.
func (g *group) requeueAll(tx *store.Tx) error {
	rows, err := tx.IntentRows(g.id)
	if err != nil {
		return err
	}
	for _, row := range rows {
		i, found, err := tx.Intent(row)
		if err == nil && found && i.State == stateMade {
			err = g.requeue(tx, i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// contentType returns the type of encoded content, empty if it can't be told.
func contentType(b []byte) string {
	e, err := content.Unmarshal(b)
	if err != nil {
		return ""
	}
	return e.Type.String()
}

// applyHandshake applies a commit, of ours or of somebody else. Proposals that
// stand alone are ignored, as by all clients of the network.
func (g *group) applyHandshake(ctx context.Context, m *mlsapi.GroupMessage_V1) error {
	hash := sha256.Sum256(m.Data)
	var intent store.Intent
	var own bool
	err := g.client.db.View(func(tx *store.Tx) (err error) {
		intent, own, err = tx.IntentByHash(g.id, hash[:])
		return err
	})
	if err != nil {
		return err
	}
	state, err := g.state()
	if err != nil {
		return err
	}
	pending, err := state.Process(m.Data)
	if err != nil {
		return g.passOver(m, intent, own, err)
	}
	defer pending.Discard()
	staged, ok := pending.Result().(*mls.StagedCommit)
	if !ok {
		// A proposal, or a commit of ours from an earlier epoch.
		pending.Discard()
		return g.passOver(m, intent, own, nil)
	}
	change, err := protocol.CheckCommit(ctx, state, staged, g.client.inboxes)
	if version := new(protocol.VersionError); errors.As(err, &version) {
		pending.Discard()
		return g.pause(version)
	}
	if protocol.IsVerdict(err) {
		pending.Discard()
		if own {
			if err := g.dropCommit(); err != nil {
				return err
			}
			own = false
			if err := g.refuse([]store.Intent{intent}, err); err != nil {
				return err
			}
		}
		return g.passOver(m, intent, own, err)
	}
	if err != nil {
		return err // not known yet: the commit comes again
	}
	var welcomes []byte
	if own && len(intent.After) > 0 {
		// They are wrapped once, so that they are the same however often they have to be sent.
		request, err := wrapWelcomes(intent.After, staged, m.Id)
		if err == nil {
			welcomes, err = proto.Marshal(request)
		}
		if err != nil {
			return err
		}
	}
	before := state.EpochAuthenticator()
	// It is in the log, which is read again if this is lost.
	err = g.updateLazily(func(tx *store.Tx) error {
		if err := saveState(tx, g.id, pending.Changes()); err != nil {
			return err
		}
		for _, flaw := range change.Warnings {
			f := CommitFlawed{g.String(), change.Actor.InboxID, change.Actor.Installation.String(), m.Id, flaw}
			if err := g.client.raise(tx, f, true, evidence{data: m.Data}); err != nil {
				return err
			}
		}
		return errors.Join(g.logApplied(tx, m.Id, before, staged, change), g.storeChange(tx, m, staged, change, intent, own, welcomes))
	})
	if err != nil {
		return err
	}
	pending.Done()
	g.heard.begin(state)
	g.client.news.publish()
	return nil
}

// storeChange stores what follows from a commit besides the MLS state.
func (g *group) storeChange(tx *store.Tx, m *mlsapi.GroupMessage_V1, staged *mls.StagedCommit, change *protocol.Change, intent store.Intent, own bool, welcomes []byte) error {
	row, found, err := tx.Group(g.id)
	if err != nil || !found {
		return errors.Join(err, ErrNotFound)
	}
	row.Cursor = m.Id
	if staged.SelfRemoved {
		row.Problem = problemRemoved
		if !slices.Contains(change.Removed, g.client.inboxID) && !slices.Contains(change.Readded, g.client.installation) {
			row.Problem = problemRevoked
		}
	}
	if own {
		row.Rotated = g.client.now()
	}
	if err := tx.PutGroup(row); err != nil {
		return err
	}
	if own {
		if err := g.settleCommit(tx, intent, welcomes); err != nil {
			return err
		}
	}
	left, err := g.storeMembers(tx, staged, change)
	if err != nil {
		return err
	}
	if envelope, ok := change.Transcript(left, m.CreatedNs); ok {
		if told, err := repeats(tx, row, envelope.Content); told || err != nil {
			return err
		}
		id := envelope.MessageID(g.id)
		_, err := tx.AddMessage(&store.Message{
			ID:           id[:],
			Group:        g.id,
			Number:       m.Id,
			Sent:         int64(m.CreatedNs),
			Inserted:     g.client.now(),
			Sender:       change.Actor.InboxID,
			Installation: change.Actor.Installation.Bytes(),
			Kind:         store.KindMembershipChange,
			Delivery:     store.Published,
			ContentType:  contentType(envelope.Content),
			Content:      envelope.Content,
		})
		return err
	}
	return nil
}

// storeMembers forgets who was waited for and has come, and who wanted to go and has
// gone. It returns those who had asked to leave.
func (g *group) storeMembers(tx *store.Tx, staged *mls.StagedCommit, change *protocol.Change) (left []string, err error) {
	if len(change.Removed) > 0 {
		if left, err = tx.Leaving(g.id); err != nil {
			return nil, err
		}
	}
	var errs []error
	for _, id := range change.Removed {
		errs = append(errs, tx.DeleteLeaving(g.id, id))
	}
	for _, id := range change.Added {
		errs = append(errs, tx.DeleteAwaited(g.id, id))
	}
	if staged.SelfRemoved {
		errs = append(errs, tx.ForgetMembers(g.id))
	}
	return left, errors.Join(errs...)
}

// settleCommit notes that our commit is in the log, and what welcomes are to be sent.
func (g *group) settleCommit(tx *store.Tx, intent store.Intent, welcomes []byte) error {
	if len(welcomes) == 0 {
		return tx.DeleteIntent(intent.Row)
	}
	intent.State, intent.After, intent.Hash, intent.Payload = stateCommitted, welcomes, nil, nil
	return tx.SetIntent(intent)
}

// passOver moves on without applying a handshake message. If it was ours, it
// came too late and is made again. The reason may be nil.
func (g *group) passOver(m *mlsapi.GroupMessage_V1, intent store.Intent, own bool, reason error) error {
	rolledBack := errors.Is(reason, mls.ErrStateRolledBack)
	state, err := g.state()
	if err != nil {
		return err
	}
	err = g.update(func(tx *store.Tx) error {
		if rolledBack {
			return g.markRolledBack(tx, m)
		}
		if err := g.logFailed(tx, state, m.Id, m.Data, reason); err != nil {
			return err
		}
		if own {
			if err := g.requeue(tx, intent); err != nil {
				return err
			}
		} else if reason != nil {
			if err := g.skip(tx, m, reason); err != nil {
				return err
			}
		}
		return tx.SetCursor(g.id, m.Id, 0)
	})
	if err == nil && rolledBack {
		return ErrStateRolledBack
	}
	return err
}

// skip notes why a message could not be used.
func (g *group) skip(tx *store.Tx, m *mlsapi.GroupMessage_V1, reason error) error {
	g.client.options.logger.Info("message skipped", "conversation", g, "number", m.Id, "reason", reason)
	return errors.Join(g.suspect(tx, m.Id, reason), g.judge(tx, m.Id, m.Data, reason), tx.AddSkip(g.client.skip(g.id, m.Id, reason)))
}

// skip describes an envelope that could not be used, for the database.
func (c *Client) skip(group []byte, number uint64, reason error) store.Skip {
	return store.Skip{Group: group, Number: number, Reason: string(skipReason(reason)), Detail: reason.Error(), At: c.now()}
}

// pause waits, with the commit, for a version of this package that the group accepts.
func (g *group) pause(version *protocol.VersionError) error {
	err := g.update(func(tx *store.Tx) error {
		row, _, err := tx.Group(g.id)
		if err != nil {
			return err
		}
		row.Paused = version.Required
		return tx.PutGroup(row)
	})
	return errors.Join(err, paused(version))
}

// markRolledBack ends the use of the conversation. What waits is given up: it
// would be sent once another member has let us in again, long after the caller
// was told that it can't be.
func (g *group) markRolledBack(tx *store.Tx, by *mlsapi.GroupMessage_V1) error {
	row, found, err := tx.Group(g.id)
	if err != nil || !found {
		return err
	}
	if err := g.client.raise(tx, StateRolledBack{g.String(), by.Id}, true, evidence{data: by.Data}); err != nil {
		return err
	}
	row.Problem = problemRolledBack
	if err := tx.PutGroup(row); err != nil {
		return err
	}
	for {
		intents, err := tx.Intents(g.id, maxBatchMessages)
		if err != nil || len(intents) == 0 {
			return err
		}
		for _, i := range intents {
			if err := g.giveUp(tx, i, ErrStateRolledBack); err != nil {
				return err
			}
		}
	}
}
