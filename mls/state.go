package mls

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/schedule"
	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// A group is stored as records, so that a message writes one or two small ones and
// a commit those of the nodes that it changes. The numbers of kinds and fields
// never change their meaning. A record of a newer version is refused, and so are
// kinds and fields that are unknown, which only a newer version can have written.
const (
	kindEpoch     RecordKind = 1 // one: the secrets of the current epoch
	kindContext   RecordKind = 2 // by epoch: GroupContext
	kindNode      RecordKind = 3 // by node index: LeafNode or ParentNode
	kindKeys      RecordKind = 4 // by epoch and the secret tree's id: message keys
	kindPast      RecordKind = 5 // by epoch: the rest of a past epoch
	kindProposal  RecordKind = 6 // by reference: a proposal that waits
	kindUpdate    RecordKind = 7 // by public key: the private key of our Update
	kindOwnCommit RecordKind = 8 // one: our commit that waits
)

const stateVersion = 1

// recordValue starts the value of a record.
func recordValue() []byte { return []byte{stateVersion} }

// A value with fields is a list of {field number, opaque<V>}; absent fields are
// empty.

func appendField(b []byte, number byte, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	return wire.AppendOpaque(append(b, number), value)
}

func appendUintField(b []byte, number byte, v uint64) []byte {
	return appendField(b, number, wire.AppendUint64(nil, v))
}

// fields are the fields of a value, as read.
type fields struct {
	values map[byte][]byte
	err    error
}

func readFields(value []byte) *fields {
	f := &fields{values: make(map[byte][]byte)}
	r, err := openRecord(value)
	if err != nil {
		f.err = err
		return f
	}
	for r.Left() > 0 {
		number := r.Uint8()
		if _, twice := f.values[number]; twice {
			r.Fail(fmt.Errorf("field %d twice", number))
		}
		f.values[number] = r.Opaque()
	}
	f.err = r.Done()
	return f
}

func openRecord(value []byte) (*wire.Reader, error) {
	r := wire.NewReader(value)
	switch v := r.Uint8(); {
	case r.Err() != nil:
	case v > stateVersion:
		r.Fail(fmt.Errorf("%w: version %d", ErrNewerState, v))
	case v < stateVersion:
		r.Fail(fmt.Errorf("version %d never was", v))
	}
	return r, r.Err()
}

// take returns a field and marks it as known.
func (f *fields) take(number byte) []byte {
	v := f.values[number]
	delete(f.values, number)
	return v
}

func (f *fields) takeUint(number byte) uint64 {
	v := f.take(number)
	if f.err == nil && len(v) != 8 {
		f.err = fmt.Errorf("field %d is missing", number)
	}
	if f.err != nil {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

// read decodes a field by a function of a Reader.
func (f *fields) read(number byte, decode func(r *wire.Reader)) {
	r := wire.NewReader(f.take(number))
	if f.err != nil {
		return
	}
	decode(r)
	if err := r.Done(); err != nil {
		f.err = fmt.Errorf("field %d: %w", number, err)
	}
}

// done refuses fields that nobody took: they would be lost.
func (f *fields) done() error {
	for number := range f.values {
		if f.err == nil {
			f.err = fmt.Errorf("%w: field %d", ErrNewerState, number)
		}
	}
	return f.err
}

func epochKey(epoch uint64) []byte { return wire.AppendUint64(nil, epoch) }

// The fields of kindEpoch, and of kindOwnCommit for the epoch that it begins.
const (
	fieldEpoch    = 1 // number
	fieldOwn      = 2 // own leaf index
	fieldInterim  = 3 // interim transcript hash
	fieldSecrets  = 4 // schedule.Epoch
	fieldKeys     = 5 // {node index, private key<V>} repeated
	fieldInactive = 6 // 1 after our removal
	fieldReInit   = 7 // body of the ReInit that closed the group
	fieldEntry    = 8 // hash of the external commit by which we came in
	fieldExport   = 9 // schedule.ExportTree; empty after our removal, and in old records

	fieldHash     = 16 // of the message of our commit
	fieldContent  = 17 // FramedContent of our commit, without the nodes of its path
	fieldContext  = 18 // GroupContext of the next epoch
	fieldNodes    = 19 // {node index, node<V>} repeated, of those that change
	fieldTreeSize = 20 // leaves of the next tree, or of a past one
	fieldRatchets = 21 // the id and value of the only record of the next secret tree

	fieldSenderData = 32 // of a past epoch
	fieldLeaves     = 33 // {leaf, signature key<V>, credential} repeated; blank without key
	fieldResumption = 34 // resumption PSK of a past epoch
)

func (e *epoch) appendFields(b []byte) []byte {
	b = appendUintField(b, fieldEpoch, e.context.epoch)
	b = appendUintField(b, fieldOwn, uint64(e.own))
	b = appendField(b, fieldInterim, e.interim)
	b = appendField(b, fieldSecrets, e.secrets.Append(nil))
	var keys []byte
	for _, x := range slices.Sorted(maps.Keys(e.keys)) {
		keys = wire.AppendUint32(keys, uint32(x))
		keys = wire.AppendOpaque(keys, e.keys[x])
	}
	b = appendField(b, fieldKeys, keys)
	clear(keys)
	b = e.appendReInit(b)
	b = appendField(b, fieldEntry, e.entry)
	tree := e.export.Append(nil)
	defer clear(tree)
	return appendField(b, fieldExport, tree)
}

func (e *epoch) appendReInit(b []byte) []byte {
	if e.reinit == nil {
		return b
	}
	return appendField(b, fieldReInit, e.reinit.appendBody(nil))
}

// appendPublicFields are the fields of kindEpoch that a follower has.
func (e *epoch) appendPublicFields(b []byte) []byte {
	b = appendUintField(b, fieldEpoch, e.context.epoch)
	b = appendField(b, fieldInterim, e.interim)
	return e.appendReInit(b)
}

// readPublicFields reads those but for the number.
func (e *epoch) readPublicFields(f *fields) {
	e.interim = bytes.Clone(f.take(fieldInterim))
	if body := f.take(fieldReInit); body != nil && f.err == nil {
		r := wire.NewReader(bytes.Clone(body))
		if v, ok := readProposalBody(r, ProposalReInit).(ReInit); ok {
			e.reinit = &v
		}
		f.err = r.Done()
	}
}

func (e *epoch) readFields(f *fields) {
	e.own = LeafIndex(f.takeUint(fieldOwn))
	e.readPublicFields(f)
	f.read(fieldSecrets, func(r *wire.Reader) { e.secrets = schedule.Read(e.suite, r) })
	e.entry = bytes.Clone(f.take(fieldEntry))
	f.read(fieldExport, func(r *wire.Reader) { e.export = schedule.ReadExportTree(e.suite, r) })
	e.keys = make(privateKeys)
	f.read(fieldKeys, func(r *wire.Reader) {
		for r.Left() > 0 {
			x := nodeIndex(r.Uint32())
			e.keys[x] = bytes.Clone(r.Opaque())
		}
	})
}

func (g *Group) epochRecord(e *epoch, inactive bool) Record {
	b := e.appendFields(recordValue())
	if inactive {
		b = appendUintField(b, fieldInactive, 1)
	}
	return Record{kindEpoch, nil, b}
}

func contextRecord(e *epoch) Record {
	return Record{kindContext, epochKey(e.context.epoch), append(recordValue(), e.context.raw...)}
}

func nodeRecord(x nodeIndex, raw []byte) Record {
	rec := Record{Kind: kindNode, Key: wire.AppendUint32(nil, uint32(x))}
	if raw != nil {
		rec.Value = append(recordValue(), raw...)
	}
	return rec
}

// keyRecord makes a record of a part of a secret tree; its value has a version of
// its own.
func keyRecord(epoch uint64, r secrettree.Record) Record {
	key := wire.AppendUint64(make([]byte, 0, 8+len(r.ID)), epoch)
	return Record{kindKeys, append(key, r.ID[:]...), r.Value}
}

func updateRecord(public, private []byte) Record {
	return Record{kindUpdate, public, append(recordValue(), private...)}
}

// record stores a proposal; order is its place among those that wait.
func (p *storedProposal) record(order int) Record {
	b := wire.AppendUint32(recordValue(), uint32(order))
	return Record{kindProposal, p.ref, append(b, p.message...)}
}

// records is the whole state of a group that nothing has happened to yet.
func (g *Group) records() []Record {
	e := g.current
	return appendTreeRecords(append(e.publicRecords(), g.epochRecord(e, false)), e)
}

// publicRecords are the records of an epoch and its tree that a follower has, too, but
// for that of kindEpoch.
func (e *epoch) publicRecords() []Record {
	records := []Record{contextRecord(e)}
	for x := range e.tree.width() {
		if raw := e.tree.node(x); raw != nil {
			records = append(records, nodeRecord(x, raw))
		}
	}
	return records
}

func appendTreeRecords(dst []Record, e *epoch) []Record {
	for _, r := range e.messages.Records() {
		dst = append(dst, keyRecord(e.context.epoch, r))
	}
	return dst
}

// changedNodes yields the nodes in which t differs from old.
func (t *ratchetTree) changedNodes(old *ratchetTree, yield func(x nodeIndex, raw []byte)) {
	for i := range max(len(t.blocks), len(old.blocks)) {
		if i < len(t.blocks) && i < len(old.blocks) && t.blocks[i] == old.blocks[i] {
			continue
		}
		for k := range blockNodes {
			x := nodeIndex(i*blockNodes + k)
			if raw := t.node(x); !slices.Equal(raw, old.node(x)) {
				yield(x, raw)
			}
		}
	}
}

// appendChanges are the records of context and tree that differ from those of the epoch
// before.
func (e *epoch) appendChanges(records []Record, old *epoch) []Record {
	records = append(records, contextRecord(e))
	e.tree.changedNodes(old.tree, func(x nodeIndex, raw []byte) {
		records = append(records, nodeRecord(x, raw))
	})
	return records
}

// spentProposals deletes the records of the proposals that wait: a commit ends them.
func (g *publicState) spentProposals() []Record {
	var records []Record
	for _, p := range g.proposals {
		records = append(records, Record{Kind: kindProposal, Key: p.ref})
	}
	return records
}

// mergeRecords are the changes that merging a commit makes.
func (g *Group) mergeRecords(tr *transition, use *secrettree.Use) []Record {
	e := g.current
	records := g.spentProposals()
	for _, key := range slices.Sorted(maps.Keys(g.updates)) {
		records = append(records, Record{Kind: kindUpdate, Key: []byte(key)})
	}
	if g.ownCommit != nil {
		records = append(records, Record{Kind: kindOwnCommit})
	}
	if tr.next == nil {
		left := *e
		left.keys, left.export = nil, nil
		left.secrets = &schedule.Epoch{SenderData: e.secrets.SenderData, Authenticator: e.secrets.Authenticator}
		return append(records, g.epochRecord(&left, true))
	}
	records = append(records, g.epochRecord(tr.next, false))
	records = tr.next.appendChanges(records, e)
	records = appendTreeRecords(records, tr.next)

	keep := g.config.windows().PastEpochs
	if keep > 0 {
		p := g.pastEpoch(tr)
		records = append(records, p.record())
	} else {
		records = append(records, forget(e.context.epoch, e.messages, use)...)
	}
	for i, p := range g.past {
		if i+1 >= keep {
			records = append(records, forget(p.number, p.messages, nil)...)
		}
	}
	return records
}

// forget deletes all records of an epoch. The changes of use come with the same
// records, before.
func forget(epoch uint64, messages *secrettree.Tree, use *secrettree.Use) []Record {
	records := []Record{
		{Kind: kindContext, Key: epochKey(epoch)},
		{Kind: kindPast, Key: epochKey(epoch)},
	}
	all := messages.Records()
	if use != nil {
		all = slices.AppendSeq(all, use.Changes)
	}
	for _, r := range all {
		clear(r.Value)
		records = append(records, keyRecord(epoch, secrettree.Record{ID: r.ID}))
	}
	return records
}

func (p *pastEpoch) record() Record {
	b := appendUintField(recordValue(), fieldOwn, uint64(p.own))
	b = appendUintField(b, fieldTreeSize, uint64(p.size))
	b = appendField(b, fieldSenderData, p.senderData)
	b = appendField(b, fieldResumption, p.resumption)
	b = appendField(b, fieldHash, p.ownCommit)
	var leaves []byte
	for _, i := range slices.Sorted(maps.Keys(p.leaves)) {
		l := p.leaves[i]
		if l == nil {
			l = new(pastLeaf)
		}
		leaves = wire.AppendUint32(leaves, uint32(i))
		leaves = wire.AppendOpaque(leaves, l.signatureKey)
		leaves = l.credential.append(leaves)
	}
	return Record{kindPast, epochKey(p.number), appendField(b, fieldLeaves, leaves)}
}

// ownCommitRecord stores a commit of our own that waits.
func (g *Group) ownCommitRecord(tr *transition) Record {
	b := appendField(recordValue(), fieldHash, tr.hash)
	b = appendField(b, fieldContent, tr.content)
	b = tr.next.appendFields(b)
	b = appendField(b, fieldContext, tr.next.context.raw)
	b = appendUintField(b, fieldTreeSize, uint64(tr.next.tree.size))
	var nodes []byte
	tr.next.tree.changedNodes(g.current.tree, func(x nodeIndex, raw []byte) {
		nodes = wire.AppendOpaque(wire.AppendUint32(nodes, uint32(x)), raw)
	})
	b = appendField(b, fieldNodes, nodes)
	root := tr.next.messages.Records()[0]
	ratchets := append(root.ID[:], root.Value...)
	b = appendField(b, fieldRatchets, ratchets)
	clear(ratchets)
	clear(root.Value)
	return Record{kindOwnCommit, nil, b}
}
