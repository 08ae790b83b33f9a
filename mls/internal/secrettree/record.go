package secrettree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/treemath"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Errors of stored records: one cannot be read, or was stored by a newer version of
// this package.
var (
	ErrRecord      = errors.New("malformed record of a secret tree")
	ErrNewerRecord = errors.New("stored by a newer version of this package, which is needed to go on")
)

// RecordID names a stored record within its tree: one byte for the kind, four
// for the index.
type RecordID [5]byte

const (
	nodeRecord    = 0 // index of a node
	ratchetRecord = 1 // 2·leaf + kind
)

func recordID(kind byte, index uint32) (id RecordID) {
	id[0] = kind
	binary.BigEndian.PutUint32(id[1:], index)
	return id
}

// Record is a stored part of a tree, or the order to delete it.
type Record struct {
	ID    RecordID
	Value suite.Secret // nil to delete the record
}

// recordVersion is the first byte of every record.
const recordVersion = 1

// readVersion reads the first byte of a record.
func readVersion(r *wire.Reader) {
	if v := r.Uint8(); v > recordVersion {
		r.Fail(fmt.Errorf("%w: version %d", ErrNewerRecord, v))
	} else if v < recordVersion {
		r.Fail(ErrRecord)
	}
}

// recordError is what a record that can't be read is refused with.
func recordError(r *wire.Reader) error {
	err := r.Done()
	if err != nil && !errors.Is(err, ErrNewerRecord) {
		return ErrRecord
	}
	return err
}

func (t *Tree) nodeValue(secret suite.Secret) suite.Secret {
	return append(suite.Secret{recordVersion}, secret...)
}

func (t *Tree) readNode(b []byte) (suite.Secret, error) {
	r := wire.NewReader(b)
	readVersion(r)
	secret := r.Bytes(t.suite.HashSize())
	if err := recordError(r); err != nil {
		return nil, err
	}
	return slices.Clone(suite.Secret(secret)), nil
}

func (t *Tree) skippedSize() int { return 4 + t.suite.KeySize() + t.suite.NonceSize() }

func (t *Tree) ratchetValue(r *ratchet) suite.Secret {
	n := t.suite.HashSize()
	b := make([]byte, 0, 1+4+n+len(r.skipped)*t.skippedSize())
	b = append(b, recordVersion)
	b = wire.AppendUint32(b, r.next)
	b = append(b, r.secret[:n]...)
	for i := range r.skipped {
		s := &r.skipped[i]
		b = wire.AppendUint32(b, s.generation)
		b = append(b, s.key.Key[:t.suite.KeySize()]...)
		b = append(b, s.key.Nonce[:]...)
	}
	return b
}

func (t *Tree) readRatchet(b []byte) (*ratchet, error) {
	rd := wire.NewReader(b)
	readVersion(rd)
	r := &ratchet{next: rd.Uint32()}
	copy(r.secret[:], rd.Bytes(t.suite.HashSize()))
	if rd.Err() == nil && rd.Left() > 0 {
		r.skipped = make([]skipped, 0, rd.Left()/t.skippedSize())
	}
	for rd.Err() == nil && rd.Left() > 0 {
		s := skipped{generation: rd.Uint32()}
		copy(s.key.Key[:], rd.Bytes(t.suite.KeySize()))
		copy(s.key.Nonce[:], rd.Bytes(t.suite.NonceSize()))
		if i := len(r.skipped); s.generation >= r.next || i > 0 && s.generation <= r.skipped[i-1].generation {
			rd.Fail(ErrRecord)
		}
		r.skipped = append(r.skipped, s)
	}
	if err := recordError(rd); err != nil {
		r.wipe()
		return nil, err
	}
	return r, nil
}

// Records returns all records of the tree, in the order of their IDs.
func (t *Tree) Records() []Record {
	all := make([]Record, 0, len(t.nodes)+len(t.ratchets))
	for x, secret := range t.nodes {
		all = append(all, Record{recordID(nodeRecord, uint32(x)), t.nodeValue(secret)})
	}
	for id, r := range t.ratchets {
		all = append(all, Record{recordID(ratchetRecord, uint32(id)), t.ratchetValue(r)})
	}
	slices.SortFunc(all, func(a, b Record) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return all
}

// Changes yields the records that [Use.Commit] will change. After the first use of
// a leaf it is always one, of a size that depends on the window only.
func (u *Use) Changes(yield func(Record) bool) {
	t := u.tree
	after := u.after
	if u.ahead > 0 {
		after = t.skip(after, u.ahead)
		defer after.wipe()
	}
	if !yield(Record{recordID(ratchetRecord, uint32(u.id)), t.ratchetValue(after)}) || u.first == nil {
		return
	}
	if !yield(Record{recordID(ratchetRecord, uint32(u.id^1)), t.ratchetValue(u.first.other)}) ||
		!yield(Record{ID: recordID(nodeRecord, uint32(u.first.ancestor))}) {
		return
	}
	for _, n := range u.first.siblings {
		if !yield(Record{recordID(nodeRecord, uint32(n.index)), t.nodeValue(n.secret)}) {
			return
		}
	}
}

// Ratchet returns the record of a leaf's ratchet as it is in memory, and so it is stored
// from then on, see [Use.Reserve]; false if the leaf was never used.
func (t *Tree) Ratchet(l treemath.LeafIndex, k Kind) (Record, bool) {
	id := idOf(l, k)
	r := t.ratchets[id]
	if r == nil {
		return Record{}, false
	}
	r.ahead = 0
	return Record{recordID(ratchetRecord, uint32(id)), t.ratchetValue(r)}, true
}

// Load makes a tree from its records, which it copies. The error is [ErrRecord] or
// [ErrNewerRecord].
func Load(s *suite.Suite, leaves treemath.LeafCount, w Window, records []Record) (*Tree, error) {
	t := newTree(s, leaves, w)
	for _, r := range records {
		if err := t.load(r); err != nil {
			t.Wipe()
			return nil, fmt.Errorf("%w: record %x", err, r.ID)
		}
	}
	return t, nil
}

func (t *Tree) load(rec Record) error {
	index := binary.BigEndian.Uint32(rec.ID[1:])
	switch rec.ID[0] {
	case nodeRecord:
		x := treemath.NodeIndex(index)
		if _, ok := t.nodes[x]; ok || index >= t.leaves.NodeWidth() {
			return ErrRecord
		}
		secret, err := t.readNode(rec.Value)
		if err != nil {
			return err
		}
		t.nodes[x] = secret
	case ratchetRecord:
		id := ratchetID(index)
		if _, ok := t.ratchets[id]; ok || !t.leaves.Has(treemath.LeafIndex(id>>1)) {
			return ErrRecord
		}
		r, err := t.readRatchet(rec.Value)
		if err != nil {
			return err
		}
		t.ratchets[id] = r
	default:
		return fmt.Errorf("%w: unknown kind", ErrNewerRecord)
	}
	return nil
}
