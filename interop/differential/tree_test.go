package differential

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// tree is a ratchet tree of full width with blanks as nil (§4, App. C).
type tree []*treeNode

// fullTree decodes a tree and adds the blanks on its right.
func fullTree(data []byte) (tree, error) {
	var nodes []*treeNode
	if err := unmarshal(data, &nodes); err != nil {
		return nil, err
	}
	return tree(nodes).padded(), nil
}

func (t tree) padded() tree {
	width := 1
	for width < len(t) {
		width = 2*width + 1
	}
	return append(slices.Clone(t), make(tree, width-len(t))...)
}

// encode is the tree as it is sent, without the blanks on its right.
func (t tree) encode() []byte {
	n := len(t)
	for n > 0 && t[n-1] == nil {
		n--
	}
	return marshal([]*treeNode(t[:n]))
}

func (t tree) clone() tree {
	c := make(tree, len(t))
	for i, n := range t {
		if n != nil {
			c[i] = new(duplicate(*n))
		}
	}
	return c
}

func (t tree) root() int  { return len(t) / 2 }
func level(x int) int     { return bits.TrailingZeros(^uint(x)) }
func leftOf(x int) int    { return x ^ 1<<(level(x)-1) }
func rightOf(x int) int   { return x ^ 3<<(level(x)-1) }
func isLeaf(x int) bool   { return x%2 == 0 }
func nodeOf(leaf int) int { return 2 * leaf }

// directPath are the nodes above x, the lowest first.
func (t tree) directPath(x int) []int {
	var path []int
	for at := t.root(); at != x; {
		path = append(path, at)
		if x < at {
			at = leftOf(at)
		} else {
			at = rightOf(at)
		}
	}
	slices.Reverse(path)
	return path
}

// away is the child of ancestor x that is not above node l.
func away(x, l int) int {
	if l < x {
		return rightOf(x)
	}
	return leftOf(x)
}

func (t tree) resolution(x int) []int {
	if n := t[x]; n != nil {
		list := []int{x}
		for _, leaf := range n.Parent.Unmerged {
			list = append(list, nodeOf(int(leaf)))
		}
		return list
	}
	if isLeaf(x) {
		return nil
	}
	return append(t.resolution(leftOf(x)), t.resolution(rightOf(x))...)
}

// filteredPath is the direct path without nodes whose copath child resolves to nothing.
func (t tree) filteredPath(x int) []int {
	return slices.DeleteFunc(t.directPath(x), func(p int) bool { return len(t.resolution(away(p, x))) == 0 })
}

// belowRoot tells whether the filtered path of x ends below the root, which is so if the
// left half of the tree is blank.
func (t tree) belowRoot(x int) bool {
	return !slices.Contains(t.filteredPath(x), t.root())
}

func (t tree) key(x int) []byte {
	if t[x].Type == 1 {
		return t[x].Leaf.EncryptionKey
	}
	return t[x].Parent.EncryptionKey
}

// hash is the tree hash of the subtree of x (§7.8).
func (t tree) hash(s scheme, x int) []byte {
	var b []byte
	if isLeaf(x) {
		b = binary.BigEndian.AppendUint32([]byte{1}, uint32(x/2))
		var leaf *leafNode
		if t[x] != nil {
			leaf = &t[x].Leaf
		}
		return s.hash(append(b, marshal(leaf)...))
	}
	var parent *parentNode
	if t[x] != nil {
		parent = &t[x].Parent
	}
	b = append([]byte{2}, marshal(parent)...)
	b = append(b, marshal(t.hash(s, leftOf(x)))...)
	return s.hash(append(b, marshal(t.hash(s, rightOf(x)))...))
}

func (t tree) blankAbove(x int) {
	for _, p := range t.directPath(x) {
		t[p] = nil
	}
}

// place is the leftmost blank leaf; the tree grows if there is none.
func (t tree) place() (tree, int) {
	for x := 0; x < len(t); x += 2 {
		if t[x] == nil {
			return t, x
		}
	}
	return append(t, make(tree, len(t)+1)...), len(t) + 1
}

func (t tree) add(leaf leafNode) (tree, int) {
	t, x := t.place()
	t[x] = &treeNode{Type: 1, Leaf: leaf}
	for _, p := range t.directPath(x) {
		if t[p] != nil {
			t[p].Parent.Unmerged = append(t[p].Parent.Unmerged, uint32(x/2))
			slices.Sort(t[p].Parent.Unmerged)
		}
	}
	return t, x
}

func (t tree) remove(x int) tree {
	t[x] = nil
	t.blankAbove(x)
	for len(t) > 1 {
		right := t[t.root()+1:]
		for l := 0; l < len(right); l += 2 {
			if right[l] != nil {
				return t
			}
		}
		t = t[:t.root()]
	}
	return t
}

// listed is a proposal with who made it.
type listed struct {
	proposal proposal
	by       uint32
}

// apply changes the tree as proposals say, however little sense they make (§12.3).
func (t tree) apply(list []listed) (after tree, added []int, extensions []extension, replaced bool) {
	t = t.clone()
	for _, p := range list {
		if p.proposal.Type == typeExtensions {
			extensions, replaced = p.proposal.Extensions, true
		}
	}
	for _, p := range list {
		if x := nodeOf(int(p.by)); p.proposal.Type == typeUpdate && x < len(t) {
			t[x] = &treeNode{Type: 1, Leaf: p.proposal.Update}
			t.blankAbove(x)
		}
	}
	for _, p := range list {
		if x := nodeOf(int(p.proposal.Remove)); p.proposal.Type == typeRemove && x < len(t) {
			t = t.remove(x)
		}
	}
	for _, p := range list {
		if p.proposal.Type == typeAdd {
			var x int
			t, x = t.add(p.proposal.Add.Leaf)
			added = append(added, x)
		}
	}
	return t, added, extensions, replaced
}
