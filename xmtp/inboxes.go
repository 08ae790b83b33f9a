package xmtp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/network"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// maxInboxesPerCall is how many logs are asked for at once.
const maxInboxesPerCall = 50

// inboxes keeps the identity logs that a client has seen: verified, in the
// database, and folded in memory. Without a client there is no database.
type inboxes struct {
	db     *store.DB // may be nil
	node   *network.Node
	client *Client // whose they are; nil if there is none

	mu   sync.Mutex
	logs map[string]*inboxLog
	// asked is when the node last told all that it knows of an inbox.
	asked map[string]time.Time
	// One download at a time for each inbox, so that entries are stored in order.
	busy    map[string]chan struct{}
	watches map[*installationWatch]struct{}
	audited map[string]int64 // when what the node serves was compared with what is known
}

// inboxLog is the states of an inbox after each of its updates. It is
// immutable; a longer one replaces it.
type inboxLog struct {
	numbers []uint64
	times   []uint64 // ns, by the clock of the one who made the update
	states  []*identity.State
	hash    []byte // of the newest update as it was served; empty if that isn't known
}

func newInboxes(db *store.DB, node *network.Node) *inboxes {
	return &inboxes{db: db, node: node, logs: map[string]*inboxLog{}, asked: map[string]time.Time{}, busy: map[string]chan struct{}{}, watches: map[*installationWatch]struct{}{}, audited: map[string]int64{}}
}

// latest returns the newest state and its number; nil and 0 for an inbox
// without updates.
func (l *inboxLog) latest() (*identity.State, uint64) {
	if len(l.states) == 0 {
		return nil, 0
	}
	n := len(l.states) - 1
	return l.states[n], l.numbers[n]
}

func (l *inboxLog) extend(number uint64, update *identity.VerifiedUpdate, hash []byte) (*inboxLog, error) {
	last, before := l.latest()
	if number <= before || number > maxNumber {
		return nil, fmt.Errorf("update %d after update %d", number, before)
	}
	state, err := last.Apply(update)
	if err != nil {
		return nil, fmt.Errorf("update %d: %w", number, err)
	}
	return &inboxLog{
		numbers: append(slices.Clip(l.numbers), number),
		times:   append(slices.Clip(l.times), update.TimestampNS()),
		states:  append(slices.Clip(l.states), state),
		hash:    hash,
	}, nil
}

// known returns what is known of an inbox without asking the node.
func (x *inboxes) known(inbox string) (*inboxLog, error) {
	x.mu.Lock()
	log := x.logs[inbox]
	x.mu.Unlock()
	if log != nil {
		return log, nil
	}
	log = &inboxLog{}
	if x.db == nil {
		return log, nil
	}
	err := x.db.View(func(tx *store.Tx) error {
		return tx.Query("SELECT number, verified, hash FROM identity_updates WHERE inbox = ? ORDER BY number", []any{inbox}, func(r store.Row) error {
			update, err := identity.UnmarshalVerifiedUpdate(r.Bytes(1))
			if err != nil {
				return err
			}
			log, err = log.extend(r.Uint(0), update, r.Bytes(2))
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("stored log of inbox %s: %w", inbox, err)
	}
	if len(log.numbers) == 0 {
		return log, nil // there is no end to the ids of inboxes that don't exist
	}
	return x.keep(inbox, log), nil
}

// keep remembers a log unless a longer one is known.
func (x *inboxes) keep(inbox string, log *inboxLog) *inboxLog {
	x.mu.Lock()
	defer x.mu.Unlock()
	if known := x.logs[inbox]; known != nil && len(known.numbers) >= len(log.numbers) {
		return known
	}
	x.logs[inbox] = log
	return log
}

// transaction is one of a database, durable at once or lazily.
type transaction func(*store.DB, func(*store.Tx) error) error

// refresh downloads what is new of the inboxes and makes it durable.
func (x *inboxes) refresh(ctx context.Context, ids ...string) error {
	return x.fetch(ctx, (*store.DB).Update, ids)
}

func (x *inboxes) fetch(ctx context.Context, in transaction, ids []string) error {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for chunk := range slices.Chunk(ids, maxInboxesPerCall) {
		group.Go(func() error { return x.download(ctx, in, chunk) })
	}
	return group.Wait()
}

// reserve waits until nobody else downloads any of the inboxes, which are sorted.
func (x *inboxes) reserve(ctx context.Context, ids []string) (release func(), err error) {
	for i, id := range ids {
		for {
			x.mu.Lock()
			wait := x.busy[id]
			if wait == nil {
				x.busy[id] = make(chan struct{})
				x.mu.Unlock()
				break
			}
			x.mu.Unlock()
			select {
			case <-wait:
			case <-ctx.Done():
				x.release(ids[:i])
				return nil, ctx.Err()
			}
		}
	}
	return func() { x.release(ids) }, nil
}

func (x *inboxes) release(ids []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range ids {
		close(x.busy[id])
		delete(x.busy, id)
	}
}

// download asks for the news of up to maxInboxesPerCall inboxes and stores it.
func (x *inboxes) download(ctx context.Context, in transaction, ids []string) error {
	release, err := x.reserve(ctx, ids)
	if err != nil {
		return err
	}
	defer release()
	request := &identityapi.GetIdentityUpdatesRequest{}
	logs := make(map[string]*inboxLog, len(ids))
	for _, id := range ids {
		log, err := x.known(id)
		if err != nil {
			return err
		}
		logs[id] = log
		request.Requests = append(request.Requests, &identityapi.GetIdentityUpdatesRequest_Request{InboxId: id, SequenceId: x.after(id, log)})
	}
	asked := time.Now()
	response, err := x.node.Identity.GetIdentityUpdates(ctx, request)
	if err != nil {
		return fmt.Errorf("getting identity updates: %w", err)
	}
	if len(response.Responses) != len(ids) {
		return x.client.wrongAnswer(callUpdates, "%d answers about %d inboxes", len(response.Responses), len(ids))
	}
	// One that can't be followed doesn't keep the others from it.
	learned, news := make([]learnedLog, len(ids)), make([][]*servedUpdate, len(ids))
	for i, answer := range response.Responses {
		learned[i] = learnedLog{inbox: ids[i], before: logs[ids[i]], log: logs[ids[i]]}
		if answer.InboxId != ids[i] {
			learned[i].err = x.client.wrongAnswer(callUpdates, "about inbox %.64q instead of %s", answer.InboxId, ids[i])
		} else {
			news[i], learned[i].err = x.audit(ctx, ids[i], logs[ids[i]], request.Requests[i].SequenceId, answer.Updates)
		}
	}
	inParallel(len(ids), func(i int) { learned[i].judge(ctx, news[i], x.node) })
	return x.add(in, learned, asked)
}

// ErrInvalidInbox is the verdict on an inbox whose log, as the node tells it,
// breaks the rules.
var ErrInvalidInbox = errors.New("xmtp: the inbox's log is not valid")

// learnedLog is what an answer of the node adds to a log.
type learnedLog struct {
	inbox       string
	before, log *inboxLog
	// Of the updates that log has and before has not.
	verified, hashes [][]byte
	err              error         // why the rest is not in log
	bad              *servedUpdate // that can't be in any; nil if there is none
}

// judge verifies updates and extends the log by them, up to the first by which it
// can't be: groups may refer to what is before a bad one.
func (l *learnedLog) judge(ctx context.Context, updates []*identityapi.GetIdentityUpdatesResponse_IdentityUpdateLog, verifier identity.ContractVerifier) {
	for _, u := range updates {
		longer, hash := l.log, updateHash(u.Update)
		update, err := verifyUpdate(ctx, l.inbox, u.Update, verifier)
		if err == nil {
			longer, err = l.log.extend(u.SequenceId, update, hash)
		}
		if errors.Is(err, identity.ErrVerifierUnavailable) || ctx.Err() != nil {
			l.err = fmt.Errorf("inbox %s: %w", l.inbox, err)
			return
		}
		if err != nil {
			l.err, l.bad = fmt.Errorf("%w: %s: %w", ErrInvalidInbox, l.inbox, err), u
			return
		}
		verified, err := update.MarshalBinary()
		if err != nil {
			l.err = fmt.Errorf("inbox %s: %w", l.inbox, err)
			return
		}
		l.verified, l.hashes = append(l.verified, verified), append(l.hashes, hash)
		l.log = longer
	}
}

// add stores what was learned from an answer to what was asked then. The error is
// the database's, or that of a log.
func (x *inboxes) add(in transaction, learned []learnedLog, asked time.Time) error {
	store := func(tx *store.Tx) error {
		for _, l := range learned {
			for i, verified := range l.verified {
				number := l.log.numbers[len(l.before.numbers)+i]
				// It may be there: a disk that has failed at last may have taken what it refused.
				if err := tx.Exec("INSERT OR IGNORE INTO identity_updates (inbox, number, verified, hash) VALUES (?, ?, ?, ?)", l.inbox, number, verified, l.hashes[i]); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if x.db != nil && slices.ContainsFunc(learned, func(l learnedLog) bool { return len(l.verified) > 0 }) {
		if err := in(x.db, store); err != nil {
			return err
		}
	}
	var unavailable, invalid error
	for _, l := range learned {
		if len(l.verified) > 0 {
			before, _ := l.before.latest()
			x.keep(l.inbox, l.log)
			x.changed(l.inbox, before, l.log)
		}
		switch {
		case l.err == nil:
			if len(l.log.numbers) > 0 { // there is no end to those that don't exist
				x.note(l.inbox, asked)
			}
		case errors.Is(l.err, ErrInvalidInbox):
			x.client.alert(IdentityInvalid{l.inbox, l.bad.SequenceId, l.err.Error()}, true, shown(l.bad))
			invalid = cmp.Or(invalid, l.err)
		default:
			unavailable = cmp.Or(unavailable, l.err)
		}
	}
	return cmp.Or(unavailable, invalid)
}

// note remembers when all was known of an inbox that the node tells.
func (x *inboxes) note(inbox string, asked time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked[inbox] = asked
}

// sinceKey is the key of a context's value, see since.
type sinceKey struct{}

// since lets a call look up inboxes several times without asking the node again:
// what it told after now, or after the call within which this one is, is news enough.
func since(ctx context.Context) context.Context {
	if ctx.Value(sinceKey{}) != nil {
		return ctx
	}
	return context.WithValue(ctx, sinceKey{}, time.Now())
}

// fresh tells whether the news of an inbox are known, as far as the context asks
// for them.
func (x *inboxes) fresh(ctx context.Context, inbox string) bool {
	begun, ok := ctx.Value(sinceKey{}).(time.Time)
	x.mu.Lock()
	defer x.mu.Unlock()
	return ok && !x.asked[inbox].Before(begun)
}

// verifyUpdate checks signatures, and that the update is one of the inbox that was asked for.
func verifyUpdate(ctx context.Context, inbox string, update *associations.IdentityUpdate, verifier identity.ContractVerifier) (*identity.VerifiedUpdate, error) {
	if update == nil {
		return nil, identity.ErrMissingIdentityUpdate
	}
	verified, err := identity.Verify(ctx, update, verifier)
	if err != nil {
		return nil, err
	}
	if verified.InboxID() != inbox {
		return nil, fmt.Errorf("%w: %s", identity.ErrForeignLog, verified.InboxID())
	}
	return verified, nil
}

// InboxStates answers as [protocol.Directory] asks.
func (x *inboxes) InboxStates(ctx context.Context, at []protocol.Position) ([]protocol.InboxState, error) {
	var stale []string
	for _, p := range at {
		log, err := x.known(p.InboxID)
		if err != nil {
			return nil, err
		}
		_, last := log.latest()
		if last < p.SequenceID && !(p.SequenceID == protocol.Latest && x.fresh(ctx, p.InboxID)) {
			stale = append(stale, p.InboxID)
		}
	}
	invalid := map[string]error{}
	if err := x.fetch(ctx, (*store.DB).UpdateLazily, stale); errors.Is(err, ErrInvalidInbox) {
		// Which one it was: ask for each alone, so that the others are known.
		for _, id := range stale {
			if err := x.refresh(ctx, id); errors.Is(err, ErrInvalidInbox) {
				invalid[id] = err
			} else if err != nil {
				return nil, err
			}
		}
	} else if err != nil {
		return nil, err
	}
	states := make([]protocol.InboxState, len(at))
	for i, p := range at {
		log, err := x.known(p.InboxID)
		if err != nil {
			return nil, err
		}
		n, found := slices.BinarySearch(log.numbers, p.SequenceID)
		if found {
			n++
		}
		if n > 0 {
			states[i] = protocol.InboxState{SequenceID: log.numbers[n-1], State: log.states[n-1]}
		}
		if _, last := log.latest(); last < p.SequenceID {
			states[i].Err = invalid[p.InboxID]
			if p.SequenceID != protocol.Latest && states[i].Err == nil {
				x.client.alert(IdentityWithheld{p.InboxID, last, p.SequenceID}, false, evidence{})
			}
		}
	}
	return states, nil
}

// maxLookUps is how many identifiers are asked about at once.
const maxLookUps = 500

// lookUp asks which inboxes identifiers belong to; those of nobody are left out.
func (x *inboxes) lookUp(ctx context.Context, ids ...identity.Identifier) (map[identity.Identifier]string, error) {
	found := make(map[identity.Identifier]string, len(ids))
	for chunk := range slices.Chunk(ids, maxLookUps) {
		request := &identityapi.GetInboxIdsRequest{}
		for _, id := range chunk {
			request.Requests = append(request.Requests, &identityapi.GetInboxIdsRequest_Request{Identifier: id.String(), IdentifierKind: id.ProtoKind()})
		}
		response, err := x.node.Identity.GetInboxIds(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("looking up inboxes: %w", err)
		}
		if len(response.Responses) != len(chunk) {
			return nil, x.client.wrongAnswer(callInboxes, "%d answers about %d identifiers", len(response.Responses), len(chunk))
		}
		for i, answer := range response.Responses {
			if answer.InboxId == nil {
				continue
			}
			if err := identity.CheckInboxID(answer.GetInboxId()); err != nil {
				return nil, fmt.Errorf("%w: %w", x.client.wrongAnswer(callInboxes, "no inbox id"), err)
			}
			found[chunk[i]] = answer.GetInboxId()
		}
	}
	return found, x.doubt(ctx, ids, found)
}
