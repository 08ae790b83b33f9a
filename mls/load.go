package mls

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/treemath"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Load makes a group from all of its records, in any order, as they are after any
// number of changes. signers are the keys of our leaf: of the current one, and of
// the next one if a change to it waits. Load copies what it keeps. It returns
// [ErrState], with [ErrNewerState] if a newer version of the package has stored the
// records.
func Load(records []Record, config Config, signers ...Signer) (*Group, error) {
	l, err := sortRecords(records, config)
	if err == nil {
		var g *Group
		if g, err = l.group(signers); err == nil {
			return g, nil
		}
	}
	return nil, fmt.Errorf("mls: load: %w: %w", ErrState, err)
}

// loader sorts records by kind.
type loader struct {
	config    Config
	epoch     []byte
	ownCommit []byte
	contexts  map[uint64]*groupContext
	keys      map[uint64][]secrettree.Record
	nodes     []loadedNode
	past      []Record
	proposals []Record
	updates   map[string]suite.Secret
}

type loadedNode struct {
	x   nodeIndex
	raw []byte
}

func sortRecords(records []Record, config Config) (*loader, error) {
	l := &loader{
		config:   config,
		contexts: make(map[uint64]*groupContext),
		keys:     make(map[uint64][]secrettree.Record),
		updates:  make(map[string]suite.Secret),
	}
	for _, r := range records {
		if err := l.add(r); err != nil {
			return nil, fmt.Errorf("record %d/%x: %w", r.Kind, r.Key, err)
		}
	}
	if l.epoch == nil {
		return nil, fmt.Errorf("no record of the epoch")
	}
	return l, nil
}

func (l *loader) group(signers []Signer) (*Group, error) {
	g := &Group{publicState: publicState{config: l.config}, signers: signers, updates: l.updates}
	if err := l.loadTree(&g.publicState); err != nil {
		return nil, err
	}
	if err := l.loadEpoch(g); err != nil {
		return nil, err
	}
	if err := l.loadPast(g); err != nil {
		return nil, err
	}
	if err := l.loadProposals(&g.publicState); err != nil {
		return nil, err
	}
	return g, l.loadOwnCommit(g)
}

// add takes in one record.
func (l *loader) add(r Record) error {
	var epoch uint64
	switch r.Kind {
	case kindContext, kindPast, kindKeys:
		if len(r.Key) < 8 {
			return fmt.Errorf("key of %d bytes", len(r.Key))
		}
		epoch = binary.BigEndian.Uint64(r.Key)
	}
	switch r.Kind {
	case kindEpoch:
		l.epoch = r.Value
	case kindOwnCommit:
		l.ownCommit = r.Value
	case kindContext:
		v, err := openRecord(r.Value)
		if err != nil {
			return err
		}
		c, err := loadContext(v.Bytes(v.Left()))
		if err != nil {
			return err
		}
		if c.epoch != epoch {
			return fmt.Errorf("context of epoch %d", c.epoch)
		}
		l.contexts[epoch] = c
	case kindNode:
		v, err := openRecord(r.Value)
		if err != nil {
			return err
		}
		if len(r.Key) != 4 {
			return fmt.Errorf("key of %d bytes", len(r.Key))
		}
		l.nodes = append(l.nodes, loadedNode{nodeIndex(binary.BigEndian.Uint32(r.Key)), v.Bytes(v.Left())})
	case kindKeys:
		rec := secrettree.Record{Value: r.Value}
		if len(r.Key) != 8+len(rec.ID) {
			return fmt.Errorf("key of %d bytes", len(r.Key))
		}
		copy(rec.ID[:], r.Key[8:])
		l.keys[epoch] = append(l.keys[epoch], rec)
	case kindPast:
		l.past = append(l.past, r)
	case kindProposal:
		l.proposals = append(l.proposals, r)
	case kindUpdate:
		v, err := openRecord(r.Value)
		if err != nil {
			return err
		}
		l.updates[string(r.Key)] = bytes.Clone(v.Bytes(v.Left()))
	default:
		return fmt.Errorf("%w: unknown kind", ErrNewerState)
	}
	return nil
}

func loadContext(b []byte) (*groupContext, error) {
	r := wire.NewReader(bytes.Clone(b))
	c := readGroupContext(r)
	return c, r.Done()
}

// loadTree puts the nodes together, parked.
func (l *loader) loadTree(g *publicState) error {
	slices.SortFunc(l.nodes, func(a, b loadedNode) int { return cmp.Compare(a.x, b.x) })
	size := 0
	for _, n := range l.nodes {
		size += len(n.raw) + 2
	}
	p := newParkedTree(1)
	p.bytes = make([]byte, 0, size+len(l.nodes))
	next := nodeIndex(0)
	for _, n := range l.nodes {
		if n.x < next || n.x > 2*maxTreeLeaves-2 {
			return fmt.Errorf("node %d", n.x)
		}
		for ; next < n.x; next++ {
			p.add(next, nil)
		}
		r := wire.NewReader(n.raw)
		if n.x.IsLeaf() {
			readLeafNode(r)
		} else {
			readParentNode(r)
		}
		if err := r.Done(); err != nil {
			return fmt.Errorf("node %d: %w", n.x, err)
		}
		p.add(n.x, n.raw)
		next++
	}
	if next == 0 {
		return fmt.Errorf("no nodes")
	}
	for p.size.NodeWidth() < uint32(next) {
		p.size *= 2
	}
	g.parked = p
	return nil
}

// openEpoch makes the current epoch but for the fields of its record, which follow.
func (l *loader) openEpoch() (*epoch, *fields, error) {
	f := readFields(l.epoch)
	number := f.takeUint(fieldEpoch)
	if f.err != nil {
		return nil, nil, fmt.Errorf("epoch: %w", f.err)
	}
	e := &epoch{context: l.contexts[number]}
	if e.context == nil {
		return nil, nil, fmt.Errorf("epoch %d has no context", number)
	}
	var err error
	if e.suite, err = lookupSuite(e.context.suite, l.config.Suites); err != nil {
		return nil, nil, err
	}
	if e.requires, err = newRequirements(e.context.suite, e.context.extensions); err != nil {
		return nil, nil, err
	}
	return e, f, nil
}

func (l *loader) loadEpoch(g *Group) error {
	e, f, err := l.openEpoch()
	if err != nil {
		return err
	}
	e.readFields(f)
	g.inactive = f.take(fieldInactive) != nil
	if err := f.done(); err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	if e.messages, err = secrettree.Load(e.suite, g.parked.size, l.config.ratchetWindow(), l.keys[e.context.epoch]); err != nil {
		return err
	}
	g.current = e
	if _, ok := g.leaf(e.own); !ok {
		return fmt.Errorf("own leaf %d is blank", e.own)
	}
	if !g.inactive {
		if _, err := g.signer(); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) loadPast(g *Group) error {
	for _, r := range l.past {
		f := readFields(r.Value)
		p := &pastEpoch{number: binary.BigEndian.Uint64(r.Key), leaves: make(map[LeafIndex]*pastLeaf)}
		c := l.contexts[p.number]
		if c == nil || p.number >= g.current.context.epoch {
			return fmt.Errorf("past epoch %d has no context", p.number)
		}
		p.context = c.raw
		p.own = LeafIndex(f.takeUint(fieldOwn))
		p.size = treemath.LeafCount(f.takeUint(fieldTreeSize))
		p.senderData = bytes.Clone(f.take(fieldSenderData))
		p.resumption = bytes.Clone(f.take(fieldResumption))
		p.ownCommit = bytes.Clone(f.take(fieldHash))
		f.read(fieldLeaves, func(r *wire.Reader) {
			for r.Left() > 0 {
				i := LeafIndex(r.Uint32())
				key := bytes.Clone(r.Opaque())
				c := readCredential(r)
				p.leaves[i] = nil
				if len(key) > 0 {
					p.leaves[i] = &pastLeaf{key, Credential{c.Type, bytes.Clone(c.Data)}}
				}
			}
		})
		if err := f.done(); err != nil {
			return fmt.Errorf("past epoch %d: %w", p.number, err)
		}
		if !p.size.Valid() || p.size > maxTreeLeaves || len(p.senderData) != g.current.suite.HashSize() {
			return fmt.Errorf("past epoch %d", p.number)
		}
		var err error
		if p.messages, err = secrettree.Load(g.current.suite, p.size, l.config.ratchetWindow(), l.keys[p.number]); err != nil {
			return err
		}
		g.past = append(g.past, p)
	}
	slices.SortFunc(g.past, func(a, b *pastEpoch) int { return cmp.Compare(b.number, a.number) })
	return nil
}

func (l *loader) loadProposals(g *publicState) error {
	orders := make(map[*storedProposal]uint32)
	for _, r := range l.proposals {
		v, err := openRecord(r.Value)
		if err != nil {
			return fmt.Errorf("proposal %x: %w", r.Key, err)
		}
		order := v.Uint32()
		p, err := readStoredProposal(g.current.suite, bytes.Clone(v.Bytes(v.Left())))
		if err != nil || v.Err() != nil || !bytes.Equal(p.ref, r.Key) {
			return fmt.Errorf("proposal %x", r.Key)
		}
		orders[p] = order
		g.proposals = append(g.proposals, p)
	}
	slices.SortFunc(g.proposals, func(a, b *storedProposal) int { return cmp.Compare(orders[a], orders[b]) })
	return nil
}

// readStoredProposal decodes the AuthenticatedContent of a proposal, which it keeps.
func readStoredProposal(s *suite.Suite, message []byte) (*storedProposal, error) {
	r := wire.NewReader(message)
	m := readAuthenticatedContent(r)
	if err := r.Done(); err != nil {
		return nil, malformed("proposal", err)
	}
	if m.content.contentType != ContentTypeProposal {
		return nil, malformed("proposal", fmt.Errorf("content type %d", m.content.contentType))
	}
	return &storedProposal{
		listedProposal: listedProposal{
			proposal: m.content.proposal,
			sender:   m.content.sender,
			ref:      s.RefHash("MLS 1.0 Proposal Reference", message),
		},
		message: message,
	}, nil
}

// loadOwnCommit works out our commit that waits from what was stored of it.
func (l *loader) loadOwnCommit(g *Group) error {
	if l.ownCommit == nil {
		return nil
	}
	if err := g.loadOwnCommit(readFields(l.ownCommit)); err != nil {
		return fmt.Errorf("own commit: %w", err)
	}
	return nil
}

func (g *Group) loadOwnCommit(f *fields) error {
	e := g.current
	next := &epoch{suite: e.suite}
	f.takeUint(fieldEpoch)
	next.readFields(f)
	context := f.take(fieldContext)
	size := treemath.LeafCount(f.takeUint(fieldTreeSize))
	tree := g.tree().clone()
	o := &outcome{tree: tree, before: make(map[LeafIndex]LeafNode), committer: e.own}
	f.read(fieldNodes, func(r *wire.Reader) { readChangedNodes(r, o, size) })
	var root secrettree.Record
	root.Value = f.take(fieldRatchets)
	if n := copy(root.ID[:], root.Value); f.err == nil && n < len(root.ID) {
		return fmt.Errorf("secret tree")
	}
	tr := &transition{next: next, before: o.before, hash: bytes.Clone(f.take(fieldHash)), content: bytes.Clone(f.take(fieldContent))}
	if err := f.done(); err != nil {
		return err
	}
	var err error
	if next.context, err = loadContext(context); err != nil {
		return err
	}
	if tree.size != size || !bytes.Equal(tree.rootHash(), next.context.treeHash) {
		return fmt.Errorf("tree")
	}
	r := wire.NewReader(tr.content)
	content := readFramedContent(r)
	if err := r.Done(); err != nil {
		return err
	}
	if content.commit == nil {
		return fmt.Errorf("content type %d", content.contentType)
	}
	if next.requires, err = newRequirements(next.context.suite, next.context.extensions); err != nil {
		return err
	}
	next.tree = tree
	root.Value = root.Value[len(root.ID):]
	if next.messages, err = secrettree.Load(e.suite, size, g.config.ratchetWindow(), []secrettree.Record{root}); err != nil {
		return err
	}
	list, err := g.resolve(content.commit, memberAt(e.own))
	if err != nil {
		return err
	}
	o.extensions, o.reinit = next.context.extensions, next.reinit
	tr.staged = e.describe(o, content, list)
	tr.staged.next = next
	g.ownCommit = tr
	return nil
}

// readChangedNodes changes a tree as a commit did.
func readChangedNodes(r *wire.Reader, o *outcome, size treemath.LeafCount) {
	if !size.Valid() || size > maxTreeLeaves {
		r.Fail(fmt.Errorf("tree of %d leaves", size))
		return
	}
	o.tree.size = max(o.tree.size, size)
	for r.Left() > 0 {
		x := nodeIndex(r.Uint32())
		raw := r.Opaque()
		if uint32(x) >= o.tree.size.NodeWidth() {
			r.Fail(fmt.Errorf("node %d", x))
		}
		if r.Err() != nil {
			return
		}
		if len(raw) == 0 {
			raw = nil
		} else {
			node := wire.NewReader(raw)
			if x.IsLeaf() {
				readLeafNode(node)
			} else {
				readParentNode(node)
			}
			if err := node.Done(); err != nil {
				r.Fail(err)
				return
			}
		}
		if x.IsLeaf() {
			o.changing(x.Leaf())
		}
		o.tree.set(x, bytes.Clone(raw))
	}
	o.tree.truncate()
}
