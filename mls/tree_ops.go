package mls

import (
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// resolution appends the resolution of node x (§4.1.1).
func (t *ratchetTree) resolution(dst []nodeIndex, x nodeIndex) []nodeIndex {
	if x.FirstLeaf() > t.lastLeaf {
		return dst
	}
	if t.node(x) != nil {
		dst = append(dst, x)
		if p, ok := t.parentOrLeaf(x); ok {
			for l := range p.unmergedLeaves() {
				dst = append(dst, l.Node())
			}
		}
		return dst
	}
	if x.IsLeaf() {
		return dst
	}
	return t.resolution(t.resolution(dst, x.Left()), x.Right())
}

// parentOrLeaf is the parent at x; false if x is a leaf or blank.
func (t *ratchetTree) parentOrLeaf(x nodeIndex) (parentFields, bool) {
	if x.IsLeaf() {
		return parentFields{}, false
	}
	return t.parent(x)
}

// empty tells whether the resolution of x is empty.
func (t *ratchetTree) empty(x nodeIndex) bool {
	if x.FirstLeaf() > t.lastLeaf {
		return true
	}
	if t.node(x) != nil {
		return false
	}
	return x.IsLeaf() || t.empty(x.Left()) && t.empty(x.Right())
}

// pathNode is a node of a direct path with its child on the copath.
type pathNode struct{ node, copath nodeIndex }

// filteredPath is the filtered direct path of a leaf, from below (§4.1.2).
func (t *ratchetTree) filteredPath(leaf LeafIndex) []pathNode {
	var path []pathNode
	for x, copath := range t.size.Path(leaf.Node()) {
		if !t.empty(copath) {
			path = append(path, pathNode{x, copath})
		}
	}
	return path
}

// place makes room for a new leaf: at the leftmost blank place, else in a tree twice
// the size (§7.7).
func (t *ratchetTree) place() LeafIndex {
	i := t.nextBlank
	if !t.size.Has(i) {
		t.size *= 2
	}
	return i
}

// addLeaf puts a leaf into its place (§12.1.1).
func (t *ratchetTree) addLeaf(leaf LeafNode) LeafIndex {
	i := t.place()
	t.set(i.Node(), slices.Clone(leaf.raw))
	for x := range t.size.Path(i.Node()) {
		p, ok := t.parent(x)
		if !ok {
			continue
		}
		unmerged := make([]byte, 0, len(p.unmerged)+4)
		placed := false
		for l := range p.unmergedLeaves() {
			if !placed && l > i {
				unmerged = wire.AppendUint32(unmerged, uint32(i))
				placed = true
			}
			unmerged = wire.AppendUint32(unmerged, uint32(l))
		}
		if !placed {
			unmerged = wire.AppendUint32(unmerged, uint32(i))
		}
		p.unmerged = unmerged
		t.set(x, p.append(nil))
	}
	return i
}

// updateLeaf replaces a leaf and blanks the nodes above it (§12.1.2).
func (t *ratchetTree) updateLeaf(i LeafIndex, leaf LeafNode) {
	t.blankPath(i)
	t.set(i.Node(), slices.Clone(leaf.raw))
}

// removeLeaf blanks a leaf and the nodes above it; see [ratchetTree.truncate]
// (§12.1.3).
func (t *ratchetTree) removeLeaf(i LeafIndex) {
	t.blankPath(i)
	t.set(i.Node(), nil)
}

func (t *ratchetTree) blankPath(i LeafIndex) {
	for x := range t.size.Path(i.Node()) {
		t.set(x, nil)
	}
}

// truncate halves the tree as long as its right half has no members (§7.7).
func (t *ratchetTree) truncate() {
	old := t.size.NodeWidth()
	for t.size > 1 && uint32(t.lastLeaf) < uint32(t.size)/2 {
		t.size /= 2
	}
	width := t.size.NodeWidth()
	if width == old {
		return
	}
	t.nextBlank = min(t.nextBlank, LeafIndex(t.size))
	blocks := (int(width) + blockNodes - 1) / blockNodes
	if blocks < len(t.blocks) {
		clear(t.blocks[blocks:])
		t.blocks = t.blocks[:blocks]
	}
	// The block at the edge may hold nodes beyond it.
	if edge := int(width % blockNodes); edge != 0 && blocks <= len(t.blocks) && t.blocks[blocks-1] != nil {
		b := t.block(nodeIndex(width - 1))
		clear(b.nodes[edge:])
		b.hashed &= 1<<edge - 1
	}
}
