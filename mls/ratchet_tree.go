package mls

import (
	"fmt"
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

const (
	nodeLeaf   = 1
	nodeParent = 2
)

func newTree(s *suite.Suite) *ratchetTree {
	return &ratchetTree{suite: s, edit: 1}
}

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
			var raw []byte
			kind := r.Uint8()
			switch {
			case kind == nodeLeaf && x.IsLeaf():
				leaf, _ := readLeafNode(r)
				raw = leaf.raw
			case kind == nodeParent && !x.IsLeaf():
				raw = readParentNode(r).raw
			default:
				r.Fail(fmt.Errorf("ratchet tree node %d has type %d", x, kind))
			}
			if r.Err() == nil {
				t.put(x, raw)
			}
		}
		x++
	})
	if r.Err() == nil && !last {
		r.Fail(fmt.Errorf("ratchet tree ends with a blank node"))
		return t
	}
	return t
}

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
	if i := x / blockNodes; int(i) < len(t.blocks) && t.blocks[i] != nil {
		return t.blocks[i].nodes[x%blockNodes]
	}
	return nil
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
	}
	t.blocks[i] = b
	return b
}
