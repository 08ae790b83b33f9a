package mls

import (
	"math"

	"github.com/go-xmtp/go-xmtp/mls/internal/treemath"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// parkedTree is a ratchet tree as one piece of bytes. Messages need no more of it
// than the leaf of their sender.
type parkedTree struct {
	size  treemath.LeafCount
	bytes []byte   // the ratchet_tree vector without its prefix
	leafs []uint32 // where each leaf begins, noLeafHere if it is blank
}

const noLeafHere = math.MaxUint32

// Park gives up memory for a group that will hardly be used, or only for messages:
// its tree is kept encoded until something else needs it. It does nothing while a
// commit of our own or a [Pending] waits.
func (g *Group) Park() {
	if g.ownCommit == nil {
		g.park()
	}
}

func (g *publicState) park() {
	if g.parked != nil || g.pending {
		return
	}
	p := newParkedTree(g.current.tree.size)
	for x := range g.current.tree.width() {
		p.add(x, g.current.tree.node(x))
	}
	p.bytes = append([]byte(nil), p.bytes...)
	g.parked, g.current.tree = p, nil
}

func newParkedTree(size treemath.LeafCount) *parkedTree { return &parkedTree{size: size} }

// add appends node x; nodes come in order, blank ones too.
func (p *parkedTree) add(x nodeIndex, raw []byte) {
	p.bytes = wire.AppendPresence(p.bytes, raw != nil)
	if x.IsLeaf() {
		at := uint32(noLeafHere)
		if raw != nil {
			p.bytes = append(p.bytes, nodeLeaf)
			at = uint32(len(p.bytes))
		}
		p.leafs = append(p.leafs, at)
	} else if raw != nil {
		p.bytes = append(p.bytes, nodeParent)
	}
	p.bytes = append(p.bytes, raw...)
}

func (p *parkedTree) leaf(i LeafIndex) (LeafNode, bool) {
	if int(i) >= len(p.leafs) || p.leafs[i] == noLeafHere {
		return LeafNode{}, false
	}
	leaf, _ := readLeafNode(wire.NewReader(p.bytes[p.leafs[i]:]))
	return leaf, true
}

// tree is the current ratchet tree.
func (g *publicState) tree() *ratchetTree {
	if p := g.parked; p != nil {
		r := wire.NewReader(wire.AppendOpaque(nil, p.bytes))
		g.current.tree = readRatchetTree(r, g.current.suite)
		if err := r.Done(); err != nil {
			panic(err) // it was a tree when it was parked
		}
		g.parked = nil
	}
	return g.current.tree
}

// leaf is the leaf at i in the current epoch.
func (g *publicState) leaf(i LeafIndex) (LeafNode, bool) {
	if g.parked != nil {
		return g.parked.leaf(i)
	}
	return g.current.tree.leaf(i)
}
