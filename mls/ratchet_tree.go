package mls

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/treemath"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

type nodeIndex = treemath.NodeIndex

// maxTreeLeaves bounds the trees that are decoded; a claimed size costs memory.
const maxTreeLeaves = 1 << 20

// ratchetTree is the ratchet tree of a group (§4, §7). Nodes are kept as they
// are encoded, in blocks that trees share: cloning a tree costs little, and
// changing a clone copies the blocks it changes. Each node's hash is kept until a
// node below it changes.
type ratchetTree struct {
	suite  *suite.Suite
	size   treemath.LeafCount
	blocks []*treeBlock // nil for a block of blanks without hashes
	edit   uint64       // blocks made by this tree may be changed in place

	nextBlank LeafIndex // no leaf before it is blank
	lastLeaf  LeafIndex // every leaf after it is blank

	credentials []credentialCount
	keys        keyIndex
}

// credentialCount tells how many leaves have a credential of a type.
type credentialCount struct {
	kind  CredentialType
	count int
}

const blockNodes = 16

// treeBlock is blockNodes nodes that follow each other in the array.
type treeBlock struct {
	edit   uint64
	nodes  [blockNodes][]byte // the encoded LeafNode or ParentNode, nil if blank
	hashed uint16             // which of the hashes are current
	hashes []byte
}

// parentNode is a ParentNode (§7.1).
type parentNode struct{ raw []byte }

type parentFields struct {
	encryptionKey []byte
	parentHash    []byte
	unmerged      []byte // uint32 leaf indices, ascending
}

func readParentNode(r *wire.Reader) parentNode {
	start := r.Offset()
	r.Opaque()
	r.Opaque()
	next := int64(-1)
	r.Vector(func(r *wire.Reader) {
		l := int64(r.Uint32())
		if l <= next {
			r.Fail(fmt.Errorf("unmerged leaves are not ascending"))
		}
		next = l
	})
	return parentNode{r.Since(start)}
}

func (n parentNode) fields() parentFields {
	r := wire.NewReader(n.raw)
	return parentFields{r.Opaque(), r.Opaque(), r.Opaque()}
}

func (p *parentFields) append(b []byte) []byte {
	b = wire.AppendOpaque(b, p.encryptionKey)
	b = wire.AppendOpaque(b, p.parentHash)
	return wire.AppendOpaque(b, p.unmerged)
}

// unmergedLeaves yields the node's unmerged leaves, ascending (§7.1).
func (p *parentFields) unmergedLeaves() iter.Seq[LeafIndex] {
	return func(yield func(LeafIndex) bool) {
		for b := p.unmerged; len(b) > 0; b = b[4:] {
			if !yield(LeafIndex(binary.BigEndian.Uint32(b))) {
				return
			}
		}
	}
}

const (
	nodeLeaf   = 1
	nodeParent = 2
)

// newTree is a tree of one blank leaf.
func newTree(s *suite.Suite) *ratchetTree {
	return &ratchetTree{suite: s, size: 1, edit: 1}
}

// clone makes a tree that can be changed while t stays as it is. Of the clones of
// one tree at most one may be kept, see [ratchetTree.settle].
func (t *ratchetTree) clone() *ratchetTree {
	t.keys.build(t)
	t.keys.settle(t)
	c := *t
	c.edit++
	c.blocks = slices.Clone(t.blocks)
	c.credentials = slices.Clone(t.credentials)
	return &c
}

// settle ends the changes to a clone, which takes the place of the tree it was
// cloned from.
func (t *ratchetTree) settle() { t.keys.settle(t) }

// readRatchetTree decodes the ratchet_tree extension's vector (§12.4.3.3), which
// stops at the last node that isn't blank.
func readRatchetTree(r *wire.Reader, s *suite.Suite) *ratchetTree {
	t := newTree(s)
	var x nodeIndex
	last := false
	r.Vector(func(r *wire.Reader) {
		if x > 2*maxTreeLeaves-2 {
			r.Fail(fmt.Errorf("ratchet tree of more than %d leaves", maxTreeLeaves))
			return
		}
		if last = r.Optional(); last {
			kind := r.Uint8()
			switch {
			case kind == nodeLeaf && x.IsLeaf():
				if leaf, f := readLeafNode(r); r.Err() == nil {
					t.load(x, leaf.raw, f.credential.Type)
				}
			case kind == nodeParent && !x.IsLeaf():
				if parent := readParentNode(r); r.Err() == nil {
					t.load(x, parent.raw, 0)
				}
			default:
				r.Fail(fmt.Errorf("ratchet tree node %d has type %d", x, kind))
			}
		}
		x++
	})
	if !last {
		r.Fail(fmt.Errorf("ratchet tree ends with a blank node"))
	}
	t.loaded()
	return t
}

// load puts a decoded node into a tree that is being read, in any order. The
// credential type is that of a leaf.
func (t *ratchetTree) load(x nodeIndex, raw []byte, credential CredentialType) {
	for uint32(x) >= t.size.NodeWidth() {
		t.size *= 2
	}
	t.put(x, raw)
	if x.IsLeaf() {
		t.countCredential(credential, 1)
		t.lastLeaf = max(t.lastLeaf, x.Leaf())
	}
}

// loaded ends the reading of a tree.
func (t *ratchetTree) loaded() { t.nextBlank = t.findBlank(0) }

// append encodes the ratchet_tree extension's vector.
func (t *ratchetTree) append(b []byte) []byte {
	return wire.AppendVector(b, func(b []byte) []byte {
		for x := range t.width() {
			raw := t.node(x)
			b = wire.AppendPresence(b, raw != nil)
			if raw != nil {
				if x.IsLeaf() {
					b = append(b, nodeLeaf)
				} else {
					b = append(b, nodeParent)
				}
				b = append(b, raw...)
			}
		}
		return b
	})
}

// width is the number of nodes up to the last one that isn't blank.
func (t *ratchetTree) width() nodeIndex {
	for i, block := range slices.Backward(t.blocks) {
		if block == nil {
			continue
		}
		for k, raw := range slices.Backward(block.nodes[:]) {
			if raw != nil {
				return nodeIndex(i*blockNodes + k + 1)
			}
		}
	}
	return 0
}

// node is the encoding of node x, nil if it is blank.
func (t *ratchetTree) node(x nodeIndex) []byte {
	if i := int(x / blockNodes); i < len(t.blocks) && t.blocks[i] != nil {
		return t.blocks[i].nodes[x%blockNodes]
	}
	return nil
}

// leaf is the leaf at position i; false if it is blank or beyond the tree.
func (t *ratchetTree) leaf(i LeafIndex) (LeafNode, bool) {
	if i > t.lastLeaf {
		return LeafNode{}, false
	}
	raw := t.node(i.Node())
	return LeafNode{raw}, raw != nil
}

// leaves yields the leaves that aren't blank, from the left.
func (t *ratchetTree) leaves() iter.Seq2[LeafIndex, LeafNode] {
	return func(yield func(LeafIndex, LeafNode) bool) {
		for i := range t.lastLeaf + 1 {
			if raw := t.node(i.Node()); raw != nil && !yield(i, LeafNode{raw}) {
				return
			}
		}
	}
}

// put sets node x and leaves hashes alone.
func (t *ratchetTree) put(x nodeIndex, raw []byte) {
	t.block(x).nodes[x%blockNodes] = raw
}

// block is the block of node x, made or copied so that it may be changed.
func (t *ratchetTree) block(x nodeIndex) *treeBlock {
	i := int(x / blockNodes)
	for i >= len(t.blocks) {
		t.blocks = append(t.blocks, nil)
	}
	b := t.blocks[i]
	switch {
	case b == nil:
		b = &treeBlock{edit: t.edit}
	case b.edit != t.edit:
		c := *b
		c.edit = t.edit
		c.hashes = slices.Clone(b.hashes)
		b = &c
	default:
		return b
	}
	t.blocks[i] = b
	return b
}

// set replaces node x, with the indices and hashes that depend on it.
func (t *ratchetTree) set(x nodeIndex, raw []byte) {
	old := t.node(x)
	if old == nil && raw == nil {
		return
	}
	t.put(x, raw)
	t.invalidate(x)
	if x.IsLeaf() {
		t.setLeaf(x.Leaf(), old, raw)
	}
	if raw != nil {
		t.keys.add(t, x)
	}
}

func (t *ratchetTree) setLeaf(i LeafIndex, old, raw []byte) {
	if old != nil {
		f := LeafNode{old}.fields()
		t.countCredential(f.credential.Type, -1)
	}
	if raw != nil {
		f := LeafNode{raw}.fields()
		t.countCredential(f.credential.Type, 1)
		t.lastLeaf = max(t.lastLeaf, i)
		if i == t.nextBlank {
			t.nextBlank = t.findBlank(i + 1)
		}
		return
	}
	t.nextBlank = min(t.nextBlank, i)
	for t.lastLeaf > 0 && t.node(t.lastLeaf.Node()) == nil {
		t.lastLeaf--
	}
}

func (t *ratchetTree) findBlank(from LeafIndex) LeafIndex {
	for t.size.Has(from) && t.node(from.Node()) != nil {
		from++
	}
	return from
}

func (t *ratchetTree) countCredential(kind CredentialType, n int) {
	for i := range t.credentials {
		if c := &t.credentials[i]; c.kind == kind {
			if c.count += n; c.count == 0 {
				t.credentials = slices.Delete(t.credentials, i, i+1)
			}
			return
		}
	}
	t.credentials = append(t.credentials, credentialCount{kind, n})
}

// parent is the parent node x, which must not be a leaf; false if it is blank.
func (t *ratchetTree) parent(x nodeIndex) (parentFields, bool) {
	raw := t.node(x)
	if raw == nil {
		return parentFields{}, false
	}
	return parentNode{raw}.fields(), true
}

// encryptionKey is the public key of node x, which must not be blank.
func (t *ratchetTree) encryptionKey(x nodeIndex) []byte {
	return wire.NewReader(t.node(x)).Opaque() // the first field of leaves and parents
}
