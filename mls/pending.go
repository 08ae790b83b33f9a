package mls

// Record is a part of a group's state for the application to store (see [Group]).
// Kind and Key together name it among the records of its group.
type Record struct {
	Kind  RecordKind
	Key   []byte
	Value []byte // nil if the record is to be deleted
}

// RecordKind tells the kinds of records apart; they can be kept in one table.
type RecordKind uint8

// Pending is the outcome of a call that changes a group, before the change. Store
// [Pending.Changes] in one transaction, together with whatever belongs to them,
// then call Done; or call Discard, which leaves the group as it was. Until then
// the group refuses other changing calls by [ErrPending].
type Pending[T any] struct {
	group   *Group
	result  T
	changes func() []Record
	done    func()
	discard func()
}

// newPending opens a pending result of g.
func newPending[T any](g *Group, result T, changes func() []Record, done, discard func()) *Pending[T] {
	g.pending = true
	return &Pending[T]{group: g, result: result, changes: changes, done: done, discard: discard}
}

// Changes are the records to write and to delete. They hold secrets.
func (p *Pending[T]) Changes() []Record {
	if p.group == nil || p.changes == nil {
		return nil
	}
	return p.changes()
}

// Result is what Done will return, to be judged, or to be stored in the same
// transaction as Changes. Nothing of it may leave the process before Done.
func (p *Pending[T]) Result() T { return p.result }

// Done makes the change, after its records have been stored, and returns the
// result. If what was stored is lost again (a transaction over several calls was
// rolled back), [Load] the group anew.
func (p *Pending[T]) Done() T {
	p.end(p.done)
	return p.result
}

// Discard drops the change. After Done it does nothing, so that it can be
// deferred.
func (p *Pending[T]) Discard() { p.end(p.discard) }

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
