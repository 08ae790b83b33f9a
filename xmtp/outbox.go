package xmtp

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/network"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// What is to be published in a group waits in its outbox, in order. An intent
// says what is wanted in any epoch. Its payload is made for one epoch, stored
// before it is sent, and sent in the same bytes until it is seen in the log. If
// another commit came first, the payload is made again.

// Kinds of intent; the numbers are stored.
const (
	intentMessage    = 1
	intentKeyUpdate  = 2
	intentSettings   = 3
	intentMembership = 4
)

// States of an intent; the numbers are stored. One that is done is deleted.
const (
	stateQueued    = 1 // its payload is not made yet
	stateMade      = 2 // its payload may be in the log
	stateCommitted = 3 // its commit is merged, welcomes are to be sent
)

// Limits of one request.
const (
	maxBatchMessages = 100
	maxBatchBytes    = 8 << 20
)

// messageIntent is the intent of a message.
type messageIntent struct {
	Envelope []byte
	Push     bool
}

// membershipIntent is the intent of a change of members. Whoever is to be added or
// removed, it brings in what changed in the members' inboxes, and those who could
// not be added before.
type membershipIntent struct {
	Add, Remove []string `json:",omitempty"`
}

// enqueue puts an intent into the outbox for a caller who waits for it, with settle.
func (g *group) enqueue(tx *store.Tx, kind int, intent any, message []byte) (int64, error) {
	row, err := g.put(tx, kind, intent, message)
	if err == nil {
		g.outcomes.expect(row)
	}
	return row, err
}

// put puts an intent into the outbox that nobody waits for.
func (g *group) put(tx *store.Tx, kind int, intent any, message []byte) (int64, error) {
	i, err := newIntent(g.id, kind, intent, message)
	if err != nil {
		return 0, err
	}
	return tx.AddIntent(i)
}

func newIntent(group []byte, kind int, intent any, message []byte) (store.Intent, error) {
	b, err := json.Marshal(intent)
	return store.Intent{Group: group, Kind: kind, State: stateQueued, Intent: b, Message: message}, err
}

// outcomes tell what has become of intents that were not carried out, or not all of
// them, to those who wait for them.
type outcomes struct {
	mu     sync.Mutex
	byRow  map[int64]error
	awaits map[int64]int // by row; how many wait for it
}

// expect says that somebody will take the outcomes of intents.
func (o *outcomes) expect(rows ...int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.awaits == nil {
		o.awaits, o.byRow = map[int64]int{}, map[int64]error{}
	}
	for _, row := range rows {
		o.awaits[row]++
	}
}

// set notes an outcome, if anybody wants to know it.
func (o *outcomes) set(row int64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.awaits[row] > 0 {
		o.byRow[row] = err
	}
}

// take returns an outcome that was expected; nil if all is well.
func (o *outcomes) take(row int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	err := o.byRow[row]
	if o.awaits[row]--; o.awaits[row] <= 0 {
		delete(o.awaits, row)
		delete(o.byRow, row)
	}
	return err
}

// How often and how patiently to try before giving an error to a caller who waits.
const (
	settleAttempts = 5
	settleDelay    = 50 * time.Millisecond
)

// settle works until an intent, whose outcome was expected, is done with: published,
// read back, and what follows from it sent. If it can't be, the error is
// [ErrNotPublished] with the reason, and the intent stays, or [ErrRefused], and it is
// gone.
func (g *group) settle(ctx context.Context, row int64) error {
	done, err := g.work(ctx, row)
	if outcome := g.outcomes.take(row); done {
		return outcome
	}
	// What is not carried out yet may have been put into the outbox lazily.
	return errors.Join(err, g.client.db.Sync())
}

func (g *group) work(ctx context.Context, row int64) (done bool, err error) {
	var last error
	for attempt := range settleAttempts {
		if attempt > 0 {
			delay := settleDelay << attempt
			if err := sleep(ctx, network.Jitter(delay)); err != nil {
				break
			}
		}
		done, err := g.settleOnce(ctx, row)
		if done || errors.Is(err, ErrRefused) || errors.Is(err, ErrStateRolledBack) || errors.Is(err, ErrPaused) {
			return done, err
		}
		last = err
		if ctx.Err() != nil || errors.Is(err, ErrDiskFull) || errors.Is(err, ErrReadOnly) {
			break // a moment doesn't help
		}
	}
	g.client.news.publish() // for the worker that takes it on
	return false, fmt.Errorf("%w: %w", ErrNotPublished, errors.Join(last, ctx.Err()))
}

func (g *group) settleOnce(ctx context.Context, row int64) (done bool, err error) {
	if err := g.acquire(ctx); err != nil {
		return false, err
	}
	defer g.release()
	ctx = since(ctx)
	// Each round publishes what stands before the intent, one commit at a time.
	for {
		found, err := g.pending(row)
		if err != nil || !found {
			return err == nil, err
		}
		before, err := g.progress()
		if err != nil {
			return false, err
		}
		if _, err := g.advance(ctx, before); err != nil {
			return false, err
		}
	}
}

// advance syncs, and says with an error if that has not brought the outbox on. It
// is done if nothing is left in it.
func (g *group) advance(ctx context.Context, before []store.IntentState) (done bool, err error) {
	if err := g.sync(ctx); err != nil {
		return false, err
	}
	after, err := g.progress()
	if err == nil && slices.Equal(before, after) {
		err = errors.Join(errors.New("the node does not show what was published"), g.noteWithheld())
	}
	return len(after) == 0, err
}

// noteWithheld notes that what stands first in the outbox was taken by the node and is
// not in its log.
func (g *group) noteWithheld() error {
	return g.client.db.Update(func(tx *store.Tx) error {
		intents, err := tx.Intents(g.id, 1)
		if err != nil || len(intents) == 0 || intents[0].State != stateMade {
			return err
		}
		return g.client.raise(tx, MessageWithheld{g.String()}, false, evidence{data: intents[0].Payload})
	})
}

// progress tells how far the outbox is, to see whether another round makes sense.
func (g *group) progress() (progress []store.IntentState, err error) {
	err = g.client.db.View(func(tx *store.Tx) error {
		progress, err = tx.IntentStates(g.id, maxBatchMessages)
		return err
	})
	return progress, err
}

func (g *group) pending(row int64) (found bool, err error) {
	err = g.client.db.View(func(tx *store.Tx) error {
		_, found, err = tx.Intent(row)
		return err
	})
	return found, err
}

// sync sends what can be sent, reads what is new, and sends what follows from
// that. The caller holds the lock.
func (g *group) sync(ctx context.Context) error {
	if !g.caughtUp {
		if err := g.receive(ctx); err != nil {
			return err
		}
	}
	if _, err := g.removeLeaving(); err != nil {
		return err
	}
	published, page, err := g.publish(ctx)
	if err != nil {
		return err
	}
	if published {
		if err := g.receivePage(ctx, page); err != nil {
			return err
		}
	}
	return g.welcome(ctx)
}

// publish sends the messages at the head of the outbox, or one commit. For the page see
// send.
func (g *group) publish(ctx context.Context) (published bool, page *logPage, err error) {
	var intents []store.Intent
	row, err := g.row()
	if err != nil {
		return false, nil, err
	}
	err = g.client.db.View(func(tx *store.Tx) error {
		all, err := tx.Intents(g.id, maxBatchMessages)
		for _, i := range all {
			if i.State != stateCommitted {
				intents = append(intents, i)
			}
		}
		return err
	})
	if err != nil || len(intents) == 0 {
		return false, nil, err
	}
	if err := usable(row); errors.Is(err, ErrRemoved) {
		return false, nil, g.refuse(intents, err)
	} else if err != nil {
		return false, nil, err
	}
	if intents[0].Kind != intentMessage {
		published, page, err := g.publishCommit(ctx, intents[0], row.Cursor)
		if errors.Is(err, errOutdated) {
			if err := g.receive(ctx); err != nil {
				return false, nil, err
			}
			return g.publish(ctx)
		}
		if published || err != nil {
			return published, page, err
		}
		return g.publish(ctx) // there was nothing to do for that one
	}
	for i := range intents {
		if intents[i].Kind != intentMessage {
			intents = intents[:i]
			break
		}
	}
	page, err = g.publishMessages(ctx, intents, row.Cursor)
	return true, page, err
}

// publishMessages encrypts what isn't yet, stores that, and sends all of it.
func (g *group) publishMessages(ctx context.Context, intents []store.Intent, cursor uint64) (page *logPage, err error) {
	state, err := g.state()
	if err != nil {
		return nil, err
	}
	var requests []*mlsapi.GroupMessageInput
	size := 0
	var changes stateChanges
	defer changes.clear()
	err = g.update(func(tx *store.Tx) error {
		for i := range intents {
			intent := &intents[i]
			var want messageIntent
			if err := json.Unmarshal(intent.Intent, &want); err != nil {
				return fmt.Errorf("stored intent: %w", err)
			}
			if intent.State == stateQueued {
				if err := g.encrypt(state, intent, want.Envelope, &changes); err != nil {
					return err
				}
				if err := tx.SetIntent(*intent); err != nil {
					return err
				}
			}
			requests = append(requests, groupInput(intent, want.Push))
			if size += len(intent.Payload); size > maxBatchBytes {
				intents = intents[:i+1]
				break
			}
		}
		return changes.save(tx, g.id)
	})
	if err != nil {
		return nil, err
	}
	if len(changes.records) > 0 {
		g.reserve(state, state.Epoch())
	}
	page, err = g.send(ctx, cursor, requests)
	if !permanent(err) {
		return page, err
	}
	// The node refuses at least one of them: which?
	for i := range intents {
		sent, err := g.send(ctx, cursor, requests[i:i+1])
		if permanent(err) {
			err = g.refuse(intents[i:i+1], err)
		} else {
			page = sent
		}
		if err != nil {
			return nil, err
		}
	}
	return page, nil
}

// encrypt makes the payload of a message's intent. It must not leave before the
// changes are stored.
func (g *group) encrypt(state *mls.Group, intent *store.Intent, envelope []byte, changes *stateChanges) error {
	pending, err := state.Encrypt(envelope, nil)
	if err != nil {
		return err
	}
	intent.Payload = pending.Result()
	hash := sha256.Sum256(intent.Payload)
	intent.State, intent.Hash, intent.Epoch = stateMade, hash[:], state.Epoch()
	key := g.client.hmac.Key(g.id, protocol.HMACEpoch(g.client.options.now()))
	intent.HMAC = key.SenderHMAC(intent.Payload)
	changes.add(pending.Changes())
	pending.Done()
	return nil
}

func groupInput(i *store.Intent, push bool) *mlsapi.GroupMessageInput {
	return &mlsapi.GroupMessageInput{Version: &mlsapi.GroupMessageInput_V1_{V1: &mlsapi.GroupMessageInput_V1{
		Data:       i.Payload,
		SenderHmac: i.HMAC,
		ShouldPush: push,
	}}}
}

// send publishes messages. Some nodes say at once what stands in the log then, after the
// cursor, which saves a question; from others there is no page.
func (g *group) send(ctx context.Context, cursor uint64, messages []*mlsapi.GroupMessageInput) (*logPage, error) {
	answer, err := g.client.node.MLS.SendGroupMessages(ctx, &mlsapi.SendGroupMessagesRequest{Messages: messages, ReadAfter: &cursor})
	if err != nil {
		return nil, fmt.Errorf("publishing: %w", err)
	}
	var log mlsapi.QueryGroupMessagesResponse
	encoded := answer.ProtoReflect().GetUnknown()
	if len(encoded) == 0 || proto.Unmarshal(encoded, &log) != nil {
		return nil, nil
	}
	page := g.page(cursor, &log)
	return &page, nil
}

// permanent tells whether the node will never take what it was sent.
func permanent(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented:
		return true
	}
	return false
}

// refuse gives intents up. Who waits for them gets the reason.
func (g *group) refuse(intents []store.Intent, reason error) error {
	err := g.update(func(tx *store.Tx) error {
		for _, i := range intents {
			if err := g.giveUp(tx, i, reason); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	g.client.news.publish()
	return nil
}

// giveUp takes an intent out of the outbox for good. Whether the transaction
// succeeds or not, who waits learns what the database says: the reason counts
// only if the intent is gone.
func (g *group) giveUp(tx *store.Tx, i store.Intent, reason error) error {
	g.outcomes.set(i.Row, fmt.Errorf("%w: %w", ErrRefused, reason))
	if len(i.Message) > 0 {
		if err := tx.MarkFailed(g.id, i.Message); err != nil {
			return err
		}
	}
	return tx.DeleteIntent(i.Row)
}

// publishCommit makes the commit of an intent unless it is made, and sends it.
func (g *group) publishCommit(ctx context.Context, intent store.Intent, cursor uint64) (published bool, page *logPage, err error) {
	if intent.State == stateQueued {
		made, err := g.makeCommit(ctx, &intent)
		if err != nil || !made {
			return false, nil, err
		}
	}
	page, err = g.send(ctx, cursor, []*mlsapi.GroupMessageInput{groupInput(&intent, false)})
	if permanent(err) {
		return false, nil, errors.Join(g.dropCommit(), g.refuse([]store.Intent{intent}, err))
	}
	return err == nil, page, err
}

// errOutdated asks for the group's news before an intent is given up or taken for done:
// others may have changed what decides that.
var errOutdated = errors.New("the group's state may be out of date")

// makeCommit stores a commit that carries out the intent. It is false if there
// is nothing to do (any more), or if the intent had to be given up.
func (g *group) makeCommit(ctx context.Context, intent *store.Intent) (made bool, err error) {
	giveUp := func(reason error) (bool, error) {
		if !g.current {
			return false, errOutdated
		}
		return false, g.refuse([]store.Intent{*intent}, reason)
	}
	if err := g.dropCommit(); err != nil {
		return false, err
	}
	options := mls.CommitOptions{ByValueOnly: true}
	members := &membershipChange{}
	switch intent.Kind {
	case intentMembership:
		if members, err = g.membershipChange(ctx, intent); err == nil {
			options.Proposals = members.proposals
		}
	case intentSettings:
		options.Proposals, err = g.settingsProposals(intent)
	}
	if hopeless(err) {
		return giveUp(err)
	}
	if err != nil {
		return false, err
	}
	if len(options.Proposals) == 0 && intent.Kind != intentKeyUpdate {
		if !g.current && !members.check {
			return false, errOutdated
		}
		err := g.update(func(tx *store.Tx) error {
			return errors.Join(members.note(tx, g), tx.DeleteIntent(intent.Row))
		})
		if len(members.notAdded) > 0 {
			g.client.news.publish() // for the worker that tries again
		}
		return false, err
	}
	state, err := g.state()
	if err != nil {
		return false, err
	}
	pending, err := state.Commit(options)
	if err != nil {
		return giveUp(err)
	}
	defer pending.Discard()
	commit := pending.Result()
	// What others would refuse is better not sent.
	if _, err := protocol.CheckCommit(ctx, state, commit.Staged, g.client.inboxes); protocol.IsVerdict(err) {
		pending.Discard()
		if g.client.revoked() {
			err = fmt.Errorf("%w: %w", ErrRevoked, err)
		}
		return giveUp(err)
	} else if err != nil {
		return false, err
	}
	intent.After = commit.Welcome
	hash := sha256.Sum256(commit.Message)
	key := g.client.hmac.Key(g.id, protocol.HMACEpoch(g.client.options.now()))
	intent.State, intent.Payload, intent.Hash, intent.Epoch = stateMade, commit.Message, hash[:], state.Epoch()
	intent.HMAC = key.SenderHMAC(commit.Message)
	err = g.update(func(tx *store.Tx) error {
		return errors.Join(saveState(tx, g.id, pending.Changes()), members.note(tx, g), tx.SetIntent(*intent))
	})
	if err != nil {
		return false, err
	}
	pending.Done()
	return true, nil
}

// hopeless tells whether an intent can't be carried out, now or later.
func hopeless(err error) bool {
	for _, reason := range []error{ErrNoInbox, ErrTooManyMembers, ErrInvalidPolicy, protocol.ErrGroupState} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return protocol.IsVerdict(err)
}

// dropCommit forgets a commit of our own that will not be merged.
func (g *group) dropCommit() error {
	state, err := g.state()
	if err != nil {
		return err
	}
	pending, err := state.DropOwnCommit()
	if errors.Is(err, mls.ErrNoOwnCommit) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := g.update(func(tx *store.Tx) error { return saveState(tx, g.id, pending.Changes()) }); err != nil {
		pending.Discard()
		return err
	}
	pending.Done()
	return nil
}

// membershipChange works out a change of members, with the inboxes and key
// packages as they are now.
func (g *group) membershipChange(ctx context.Context, intent *store.Intent) (*membershipChange, error) {
	var want membershipIntent
	if err := json.Unmarshal(intent.Intent, &want); err != nil {
		return nil, fmt.Errorf("stored intent: %w", err)
	}
	state, err := g.state()
	if err != nil {
		return nil, err
	}
	extensions := state.Extensions()
	groupState, err := protocol.ParseGroupState(extensions)
	if err != nil {
		return nil, err
	}
	if err := checkSize(groupState.Membership, want.Add); err != nil {
		return nil, err
	}
	awaited, err := g.awaitedBy(groupState, want)
	if err != nil {
		return nil, err
	}
	plan, err := protocol.PlanMembership(ctx, g.client.inboxes, groupState.Membership, slices.Concat(want.Add, awaited), want.Remove)
	if errors.Is(err, protocol.ErrUnknownInbox) {
		err = fmt.Errorf("%w: %w", ErrNoInbox, err)
	}
	if err != nil {
		return nil, err
	}
	packages, reasons, err := g.client.fetchKeyPackages(ctx, plan.Invited(g.client.installation))
	if err != nil {
		return nil, err
	}
	proposals, leftOut, err := plan.Proposals(extensions, state.Members(), g.client.installation, packages)
	if err != nil {
		return nil, err
	}
	change := &membershipChange{proposals: proposals, check: len(want.Add)+len(want.Remove) == 0, cancelled: want.Remove}
	for _, l := range leftOut {
		// The others' commit will be judged; what is not in it has to be now.
		if err := groupState.CheckAdd(g.client.inboxID, []string{l.InboxID}); err != nil {
			return nil, err
		}
		change.notAdded = append(change.notAdded, notAdded(l, reasons))
	}
	g.outcomes.set(intent.Row, change.outcome(want))
	return change, nil
}

// putCheck puts into the outbox that members' installations are looked at, and
// notes when that was. A change of members looks at them as well, but doesn't put
// the next look off, as with the official client.
func (g *group) putCheck(tx *store.Tx, row store.Group) (intent int64, err error) {
	row.Checked = g.client.now()
	if err := tx.PutGroup(row); err != nil {
		return 0, err
	}
	return g.put(tx, intentMembership, membershipIntent{}, nil)
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error { return pauseFor(ctx, nil, d) }
