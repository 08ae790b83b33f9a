// Package treemath is the index arithmetic of RFC 9420 Appendix C: complete
// binary trees of 2^d leaves laid out in an array, leaf i at node 2i and the
// parents between.
//
// The tree is always full, blank leaves included; the number of members never
// enters the arithmetic.
package treemath

import (
	"iter"
	"math/bits"
)

// LeafIndex counts leaves from the left, from 0.
type LeafIndex uint32

// NodeIndex counts nodes from the left, from 0; leaves are even, parents odd.
type NodeIndex uint32

// LeafCount is the number of leaf slots of a tree: a power of two.
type LeafCount uint32

// MaxLeaves is the largest tree whose node indices fit 32 bits.
const MaxLeaves LeafCount = 1 << 31

// Valid reports whether n is a power of two up to [MaxLeaves]. All arithmetic
// on n supposes it.
func (n LeafCount) Valid() bool { return n != 0 && n&(n-1) == 0 }

// NodeWidth is the number of nodes of a tree of n leaves.
func (n LeafCount) NodeWidth() uint32 { return uint32(2*uint64(n) - 1) }

// Root is the root of a tree of n leaves.
func (n LeafCount) Root() NodeIndex { return NodeIndex(n - 1) }

// Has reports whether leaf l is a slot of a tree of n leaves.
func (n LeafCount) Has(l LeafIndex) bool { return uint32(l) < uint32(n) }

// Node is the node of leaf l, which must be below [MaxLeaves].
func (l LeafIndex) Node() NodeIndex { return NodeIndex(2 * l) }

// IsLeaf reports whether x is a leaf.
func (x NodeIndex) IsLeaf() bool { return x&1 == 0 }

// Leaf is the leaf at node x, which must be a leaf.
func (x NodeIndex) Leaf() LeafIndex { return LeafIndex(x / 2) }

// Level is the height of x over the leaves, which have level 0.
func (x NodeIndex) Level() uint { return uint(bits.TrailingZeros32(^uint32(x))) }

// Left is the left child of x, which must be a parent.
func (x NodeIndex) Left() NodeIndex { return x ^ 1<<(x.Level()-1) }

// Right is the right child of x, which must be a parent.
func (x NodeIndex) Right() NodeIndex { return x ^ 3<<(x.Level()-1) }

// Parent is the parent of x; every node but the root of the whole tree has one.
func (x NodeIndex) Parent() NodeIndex {
	k := x.Level()
	return (x | 1<<k) &^ (2 << k)
}

// Sibling is the other child of the parent of x, which must not be the root.
func (x NodeIndex) Sibling() NodeIndex { return x ^ 2<<x.Level() }

// FirstLeaf is the leftmost leaf below x, or x's own.
func (x NodeIndex) FirstLeaf() LeafIndex {
	return (x &^ (1<<x.Level() - 1)).Leaf()
}

// Leaves is the number of leaves below x; a leaf counts itself.
func (x NodeIndex) Leaves() LeafCount { return 1 << x.Level() }

// Covers reports whether leaf l is below x, or x's own.
func (x NodeIndex) Covers(l LeafIndex) bool {
	return uint32(l)>>x.Level() == uint32(x.FirstLeaf())>>x.Level()
}

// Path yields the direct path of x in a tree of n leaves, from its parent to
// the root, and with each node that child of it which is on the copath of x
// (RFC 9420 §4.1.2).
func (n LeafCount) Path(x NodeIndex) iter.Seq2[NodeIndex, NodeIndex] {
	return func(yield func(node, copath NodeIndex) bool) {
		for root := n.Root(); x != root; x = x.Parent() {
			if !yield(x.Parent(), x.Sibling()) {
				return
			}
		}
	}
}

// CommonAncestor is the lowest node that has both x and y below it; a node
// counts as below itself.
func CommonAncestor(x, y NodeIndex) NodeIndex {
	k := max(x.Level(), y.Level())
	for x>>k != y>>k {
		k++
	}
	if k == 0 {
		return x
	}
	// The nodes below a node of level k share the bits from k+1 up, and it
	// has ones below k and a zero there; x and y agree from bit k up.
	if lx := x.Level(); lx == k {
		return x
	}
	if ly := y.Level(); ly == k {
		return y
	}
	return x>>k<<k | (1<<(k-1) - 1)
}
