package mls

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// rootHash is the tree hash (§7.8).
func (t *ratchetTree) rootHash() []byte { return t.treeHash(t.size.Root()) }

// treeHash is the tree hash of the subtree at x (§7.8). The result is shared and
// must not be changed; it holds until the tree changes.
func (t *ratchetTree) treeHash(x nodeIndex) []byte {
	n := t.suite.HashSize()
	k := int(x % blockNodes)
	if i := int(x / blockNodes); i < len(t.blocks) {
		if b := t.blocks[i]; b != nil && b.hashed&(1<<k) != 0 {
			return b.hashes[k*n : (k+1)*n : (k+1)*n]
		}
	}
	var left, right []byte
	if !x.IsLeaf() {
		left, right = t.treeHash(x.Left()), t.treeHash(x.Right())
	}
	b := t.block(x)
	if b.hashes == nil {
		b.hashes = make([]byte, blockNodes*n)
	}
	out := b.hashes[k*n : (k+1)*n : (k+1)*n]
	t.appendHash(out[:0], x, t.node(x), left, right)
	b.hashed |= 1 << k
	return out
}

// appendHash hashes TreeHashInput (§7.8).
func (t *ratchetTree) appendHash(dst []byte, x nodeIndex, raw, left, right []byte) []byte {
	var stack [256]byte
	b := stack[:0]
	if x.IsLeaf() {
		b = wire.AppendUint32(append(b, nodeLeaf), uint32(x.Leaf()))
	} else {
		b = append(b, nodeParent)
	}
	b = append(wire.AppendPresence(b, raw != nil), raw...)
	if !x.IsLeaf() {
		b = wire.AppendOpaque(b, left)
		b = wire.AppendOpaque(b, right)
	}
	return t.suite.Hash(dst, b)
}

// invalidate drops the hash of x and of all nodes above it.
func (t *ratchetTree) invalidate(x nodeIndex) {
	for {
		if i := int(x / blockNodes); i < len(t.blocks) && t.blocks[i] != nil && t.blocks[i].hashed&(1<<(x%blockNodes)) != 0 {
			t.block(x).hashed &^= 1 << (x % blockNodes)
		}
		if x == t.size.Root() {
			return
		}
		x = x.Parent()
	}
}

// treeHashWithout is the tree hash of the subtree at x as it was before the given
// leaves were added (§7.9, original sibling tree hash). removed ascends.
func (t *ratchetTree) treeHashWithout(x nodeIndex, removed []LeafIndex) []byte {
	first, _ := slices.BinarySearch(removed, x.FirstLeaf())
	if first == len(removed) || !x.Covers(removed[first]) {
		return t.treeHash(x)
	}
	if x.IsLeaf() {
		return t.appendHash(nil, x, nil, nil, nil)
	}
	raw := t.node(x)
	if p, ok := t.parent(x); ok {
		unmerged := make([]byte, 0, len(p.unmerged))
		for l := range p.unmergedLeaves() {
			if _, gone := slices.BinarySearch(removed, l); !gone {
				unmerged = wire.AppendUint32(unmerged, uint32(l))
			}
		}
		if len(unmerged) != len(p.unmerged) {
			p.unmerged = unmerged
			raw = p.append(nil)
		}
	}
	return t.appendHash(nil, x, raw, t.treeHashWithout(x.Left(), removed), t.treeHashWithout(x.Right(), removed))
}

// parentHash hashes ParentHashInput (§7.9): of parent p for its descendants on the
// side that sibling is not on.
func (t *ratchetTree) parentHash(p *parentFields, sibling nodeIndex) []byte {
	var removed []LeafIndex
	for l := range p.unmergedLeaves() {
		removed = append(removed, l)
	}
	b := wire.AppendOpaque(nil, p.encryptionKey)
	b = wire.AppendOpaque(b, p.parentHash)
	b = wire.AppendOpaque(b, t.treeHashWithout(sibling, removed))
	return t.suite.Hash(nil, b)
}

// parentHashField is the parent_hash of node x, which must not be blank; nil for a
// leaf that has none.
func (t *ratchetTree) parentHashField(x nodeIndex) []byte {
	if x.IsLeaf() {
		f := LeafNode{t.node(x)}.fields()
		return f.parentHash
	}
	p, _ := t.parent(x)
	return p.parentHash
}

// verifyParentHashes checks that each parent node was put into the tree by a
// member below it (§7.9.2).
func (t *ratchetTree) verifyParentHashes() bool {
	for x := nodeIndex(1); uint32(x) < t.size.NodeWidth(); x += 2 {
		if p, ok := t.parent(x); ok &&
			!t.parentHashCovered(x, &p, x.Left(), x.Right()) && !t.parentHashCovered(x, &p, x.Right(), x.Left()) {
			return false
		}
	}
	return true
}

// parentHashCovered tells whether a node in the resolution of child has the hash of
// parent p at x, and the rest of the resolution is p's unmerged leaves there.
func (t *ratchetTree) parentHashCovered(x nodeIndex, p *parentFields, child, sibling nodeIndex) bool {
	var candidate nodeIndex
	found, others := false, 0
	for _, d := range t.resolution(nil, child) {
		switch {
		case d.IsLeaf() && p.isUnmerged(d.Leaf()):
			others++
		case found:
			return false
		default:
			candidate, found = d, true
		}
	}
	if !found || others != p.unmergedBelow(child) {
		return false
	}
	have := t.parentHashField(candidate)
	return len(have) > 0 && bytes.Equal(have, t.parentHash(p, sibling))
}

// unmergedBefore is the number of unmerged leaves before leaf l.
func (p *parentFields) unmergedBefore(l LeafIndex) int {
	return sort.Search(len(p.unmerged)/4, func(i int) bool {
		return LeafIndex(binary.BigEndian.Uint32(p.unmerged[4*i:])) >= l
	})
}

func (p *parentFields) isUnmerged(l LeafIndex) bool {
	return p.unmergedBefore(l) != p.unmergedBefore(l+1)
}

// unmergedBelow is the number of unmerged leaves below x.
func (p *parentFields) unmergedBelow(x nodeIndex) int {
	first := x.FirstLeaf()
	return p.unmergedBefore(first+LeafIndex(x.Leaves())) - p.unmergedBefore(first)
}
