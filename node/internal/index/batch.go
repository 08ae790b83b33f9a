package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// Why a record was refused.
var (
	// ErrOlderKeyPackage: the installation's newest key package begins later.
	ErrOlderKeyPackage = errors.New("an older key package than the one that is stored")
	// ErrInboxLogFull: the inbox has had as many updates as it may.
	ErrInboxLogFull = errors.New("inbox log is full")
)

// Limits of an inbox's log, which is never read in pages: clients ask for up to
// 50 inboxes at once, and the answer has to fit into one response.
const (
	maxInboxLog      = 256
	maxInboxLogBytes = 400 << 10
)

// batch builds one Pebble batch. What it has changed and may need again is in
// seen and fresh, since Pebble's own view of an unfinished batch is slow to keep.
type batch struct {
	index *Index
	b     *pebble.Batch
	seen  map[publication]uint64 // numbers of what it publishes
	fresh map[string][]byte
	rows  map[string][]membership // by identifier, newest first
	last  *order.Record
}

// NewBatch starts a batch, as [order.Store] asks.
func (x *Index) NewBatch() order.Batch {
	return &batch{index: x, b: x.db.NewBatch(), seen: map[publication]uint64{}, fresh: map[string][]byte{}, rows: map[string][]membership{}}
}

// Apply folds one record into the state. The error is the store's.
func (b *batch) Apply(r *order.Record) (outcome order.Outcome, stored bool, err error) {
	if len(r.ID) > maxTopicLength {
		return order.Outcome{}, false, fmt.Errorf("a topic of %d bytes", len(r.ID))
	}
	switch r.Kind {
	case order.GroupMessage, order.Welcome:
		outcome, err = b.publish(r)
	case order.KeyPackage:
		outcome, err = b.keyPackage(r)
	case order.IdentityUpdate:
		outcome, err = b.identityUpdate(r)
	case order.CommitLog:
		outcome, err = order.Outcome{Number: r.Number}, b.record(r)
	default:
		err = fmt.Errorf("a record of kind %d", r.Kind)
	}
	stored = err == nil && outcome.Err == nil && outcome.Number == r.Number
	if stored {
		b.last = r
	}
	return outcome, stored, err
}

// record stores the record where readers find it.
func (b *batch) record(r *order.Record) error {
	key := recordKey(r.Topic, r.Number)
	op := b.b.SetDeferred(len(key), r.ValueSize())
	copy(op.Key, key)
	r.AppendValue(op.Value[:0])
	return op.Finish()
}

// publish stores a message unless the topic has one with the same payload.
func (b *batch) publish(r *order.Record) (order.Outcome, error) {
	key := seenKey(r.Topic, r.Payload)
	number, err := b.published(key)
	if err != nil {
		return order.Outcome{}, err
	}
	if number != 0 {
		return order.Outcome{Number: number}, nil
	}
	b.seen[key] = r.Number
	return order.Outcome{Number: r.Number}, errors.Join(b.set(key[:], binary.BigEndian.AppendUint64(nil, r.Number)), b.record(r))
}

// keyPackage replaces an installation's key package, but not by an older one,
// so that nobody can bring a used-up one back.
func (b *batch) keyPackage(r *order.Record) (order.Outcome, error) {
	facts, err := order.ParseKeyPackageFacts(r.Facts)
	if err != nil {
		return order.Outcome{}, err
	}
	key := keyPackageKey(r.ID)
	value, err := b.get(key)
	if err != nil {
		return order.Outcome{}, err
	}
	if value != nil {
		newest, err := parseKeyPackage(r.Topic, value)
		if err != nil {
			return order.Outcome{}, err
		}
		if bytes.Equal(newest.Payload, r.Payload) {
			return order.Outcome{Number: newest.Number}, nil
		}
		stored, err := order.ParseKeyPackageFacts(newest.Facts)
		if err != nil {
			return order.Outcome{}, err
		}
		if facts.NotBefore < stored.NotBefore {
			return order.Outcome{Err: ErrOlderKeyPackage}, nil
		}
	}
	value = binary.BigEndian.AppendUint64(make([]byte, 0, 8+r.ValueSize()), r.Number)
	value = r.AppendValue(value)
	b.fresh[string(key)] = value
	return order.Outcome{Number: r.Number}, b.set(key, value)
}

func parseKeyPackage(topic order.Topic, value []byte) (*order.Record, error) {
	if len(value) < 8 {
		return nil, fmt.Errorf("%w: key package of %d bytes", ErrDamaged, len(value))
	}
	return order.ParseValue(topic, binary.BigEndian.Uint64(value), value[8:])
}

// inbox is what is stored of an inbox besides its updates.
type inbox struct {
	last  uint64 // number of its newest update
	count uint16
	bytes uint32 // of all updates
	state *identity.State
}

// identityUpdate appends an update to its inbox's log if it follows from what is there.
func (b *batch) identityUpdate(r *order.Record) (order.Outcome, error) {
	update, err := identity.UnmarshalVerifiedUpdate(r.Facts)
	if err != nil {
		return order.Outcome{}, fmt.Errorf("facts of an identity update: %w", err)
	}
	key := stateKey(r.ID)
	value, err := b.get(key)
	if err != nil {
		return order.Outcome{}, err
	}
	old, err := parseInbox(value)
	if err != nil {
		return order.Outcome{}, err
	}
	if old.last != 0 {
		// A client whose answer was lost sends the same again.
		newest, err := b.get(recordKey(r.Topic, old.last))
		if err != nil {
			return order.Outcome{}, err
		}
		record, err := order.ParseValue(r.Topic, old.last, newest)
		if err != nil {
			return order.Outcome{}, err
		}
		if bytes.Equal(record.Payload, r.Payload) {
			return order.Outcome{Number: old.last}, nil
		}
	}
	if old.count >= maxInboxLog || uint64(old.bytes)+uint64(len(r.Payload)) > maxInboxLogBytes {
		return order.Outcome{Err: ErrInboxLogFull}, nil
	}
	state, err := old.state.Apply(update)
	if err != nil {
		return order.Outcome{Err: err}, nil
	}
	next := inbox{
		last:  r.Number,
		count: old.count + 1,
		bytes: old.bytes + uint32(len(r.Payload)),
		state: state,
	}
	value, err = next.marshal()
	if err != nil {
		return order.Outcome{}, err
	}
	b.fresh[string(key)] = value
	b.fresh[string(recordKey(r.Topic, r.Number))] = r.AppendValue(nil)
	added, removed := identity.Diff(old.state, state)
	if err := errors.Join(b.set(key, value), b.record(r), b.contracts(r)); err != nil {
		return order.Outcome{}, err
	}
	return order.Outcome{Number: r.Number}, b.addresses(r, added, removed)
}

// inboxHead is the length of what comes before the state.
const inboxHead = 8 + 2 + 4

func parseInbox(value []byte) (inbox, error) {
	if value == nil {
		return inbox{}, nil
	}
	if len(value) < inboxHead {
		return inbox{}, fmt.Errorf("%w: inbox of %d bytes", ErrDamaged, len(value))
	}
	state, err := identity.UnmarshalState(value[inboxHead:])
	if err != nil {
		return inbox{}, fmt.Errorf("%w: inbox: %w", ErrDamaged, err)
	}
	return inbox{
		last:  binary.BigEndian.Uint64(value),
		count: binary.BigEndian.Uint16(value[8:]),
		bytes: binary.BigEndian.Uint32(value[10:]),
		state: state,
	}, nil
}

func (i inbox) marshal() ([]byte, error) {
	state, err := i.state.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("storing an inbox: %w", err)
	}
	value := binary.BigEndian.AppendUint64(make([]byte, 0, inboxHead+len(state)), i.last)
	value = binary.BigEndian.AppendUint16(value, i.count)
	value = binary.BigEndian.AppendUint32(value, i.bytes)
	return append(value, state...), nil
}

func (b *batch) get(key []byte) ([]byte, error) {
	if value, ok := b.fresh[string(key)]; ok {
		return value, nil
	}
	return b.index.get(key)
}

func (b *batch) set(key, value []byte) error {
	return b.b.Set(key, value, nil)
}

// Commit hands the batch to the log.
func (b *batch) Commit() error {
	if err := b.index.published.end(); err != nil {
		return err
	}
	if b.last == nil {
		return nil
	}
	b.index.batches++
	meta := meta{b.last.Number, b.last.Time, b.index.batches}
	ordinal := binary.BigEndian.AppendUint64(nil, meta.batches)
	if err := errors.Join(b.set(metaKey, meta.marshal()), b.set(batchKey(meta.batches), ordinal)); err != nil {
		return err
	}
	b.index.published.commit(b.seen, b.last.Number)
	return b.index.db.ApplyNoSyncWait(b.b, pebble.Sync)
}

// Wait returns when the log is on disk.
func (b *batch) Wait() error {
	if b.last == nil {
		return b.b.Close()
	}
	if err := b.b.SyncWait(); err != nil {
		return err
	}
	return b.b.Close()
}
