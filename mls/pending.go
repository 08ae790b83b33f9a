package mls

import (
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
)

// Record is a part of a group's state for the application to store (see [Group]).
// Kind and Key together name it among the records of its group.
type Record struct {
	Kind  RecordKind
	Key   []byte
	Value []byte // nil if the record is to be deleted
}

// Format implements [fmt.Formatter] and shows the name of the record only: most
// values hold secrets.
func (r Record) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "record %d/%x of %d bytes", r.Kind, r.Key, len(r.Value))
}

// RecordKind tells the kinds of records apart; they can be kept in one table.
type RecordKind uint8

// Pending is the outcome of a call that changes a [Group] or a [Follower], before the change. Store
// [Pending.Changes] in one transaction, together with whatever belongs to them,
// then call Done; or call Discard, which leaves the group as it was. Until then
// the group refuses other changing calls by [ErrPending].
type Pending[T any] struct {
	group   *publicState
	result  T
	changes func() []Record
	done    func()
	discard func()

	use   *secrettree.Use // the message key that the change consumes, if there is one
	epoch uint64          // of use
}

// newPending opens a pending result of g. The functions may be nil.
func newPending[T any](g *publicState, result T, changes func() []Record, done, discard func()) *Pending[T] {
	g.pending = true
	return &Pending[T]{group: g, result: result, changes: changes, done: done, discard: discard}
}

// consuming makes it part of the change that a message key is consumed, before
// all else; use may be nil.
func (p *Pending[T]) consuming(epoch uint64, use *secrettree.Use) *Pending[T] {
	p.use, p.epoch = use, epoch
	return p
}

// Changes are the records to write and to delete. They hold secrets.
func (p *Pending[T]) Changes() []Record {
	if p.group == nil {
		return nil
	}
	var records []Record
	if p.use != nil {
		for r := range p.use.Changes {
			records = append(records, keyRecord(p.epoch, r))
		}
	}
	if p.changes != nil {
		records = append(records, p.changes()...)
	}
	return records
}

// Result is what Done will return, to be judged, or to be stored in the same
// transaction as Changes. Nothing of it may leave the process before Done.
func (p *Pending[T]) Result() T { return p.result }

// Done makes the change, after its records have been stored, and returns the
// result. If what was stored is lost again (a transaction over several calls was
// rolled back), [Load] the group anew, or the follower.
func (p *Pending[T]) Done() T {
	if p.use != nil && p.group != nil {
		// At most one result is pending, so nothing can have changed the ratchet.
		if err := p.use.Commit(); err != nil {
			panic(err)
		}
	}
	p.end(p.done)
	return p.result
}

// Discard drops the change. After Done it does nothing, so that it can be
// deferred.
func (p *Pending[T]) Discard() {
	if p.use != nil && p.group != nil {
		p.use.Drop()
	}
	p.end(p.discard)
}

func (p *Pending[T]) end(f func()) {
	if p.group == nil {
		return
	}
	p.group.pending = false
	p.group = nil
	if f != nil {
		f()
	}
}
