package treemath

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/mls/internal/vectortest"
)

func TestVectors(t *testing.T) {
	type vector struct {
		Leaves  LeafCount    `json:"n_leaves"`
		Nodes   uint32       `json:"n_nodes"`
		Root    NodeIndex    `json:"root"`
		Left    []*NodeIndex `json:"left"`
		Right   []*NodeIndex `json:"right"`
		Parent  []*NodeIndex `json:"parent"`
		Sibling []*NodeIndex `json:"sibling"`
	}
	for _, v := range vectortest.Load[vector](t, "tree-math.json") {
		t.Run(fmt.Sprint(v.Leaves), func(t *testing.T) {
			if got := v.Leaves.NodeWidth(); got != v.Nodes {
				t.Fatalf("node width %d, want %d", got, v.Nodes)
			}
			if got := v.Leaves.Root(); got != v.Root {
				t.Errorf("root %d, want %d", got, v.Root)
			}
			for x := range NodeIndex(v.Nodes) {
				check := func(what string, want *NodeIndex, has bool, f func() NodeIndex) {
					if (want != nil) != has {
						t.Errorf("%s(%d): present %v, want %v", what, x, has, want != nil)
					} else if has && f() != *want {
						t.Errorf("%s(%d) = %d, want %d", what, x, f(), *want)
					}
				}
				check("left", v.Left[x], !x.IsLeaf(), x.Left)
				check("right", v.Right[x], !x.IsLeaf(), x.Right)
				check("parent", v.Parent[x], x != v.Leaves.Root(), x.Parent)
				check("sibling", v.Sibling[x], x != v.Leaves.Root(), x.Sibling)
			}
		})
	}
}

func drawNode(t *rapid.T, n LeafCount, label string) NodeIndex {
	return NodeIndex(rapid.Uint32Range(0, n.NodeWidth()-1).Draw(t, label))
}

func TestFamily(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := LeafCount(1) << rapid.IntRange(1, 31).Draw(t, "depth")
		x := drawNode(t, n, "x")
		if !x.IsLeaf() {
			if x.Left().Parent() != x || x.Right().Parent() != x {
				t.Fatalf("children of %d have parents %d and %d", x, x.Left().Parent(), x.Right().Parent())
			}
			if x.Left().Sibling() != x.Right() || x.Right().Sibling() != x.Left() {
				t.Fatalf("children of %d are not siblings", x)
			}
			if x.Left().Level()+1 != x.Level() {
				t.Fatalf("level of %d is %d over its child's %d", x, x.Level(), x.Left().Level())
			}
		}
		if !x.Covers(x.FirstLeaf()) || x.Covers(x.FirstLeaf()+LeafIndex(x.Leaves())) {
			t.Fatalf("node %d covers other leaves than %d from %d", x, x.Leaves(), x.FirstLeaf())
		}
		if f := x.FirstLeaf(); f > 0 && x.Covers(f-1) {
			t.Fatalf("node %d covers leaf %d", x, f-1)
		}
	})
}

func ancestors(n LeafCount, x NodeIndex) []NodeIndex {
	p := []NodeIndex{x}
	for a := range n.Path(x) {
		p = append(p, a)
	}
	return p
}

func TestPath(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.IntRange(0, 31).Draw(t, "depth")
		n := LeafCount(1) << d
		x := drawNode(t, n, "x")
		child, steps := x, 0
		for a, c := range n.Path(x) {
			if a.Left() != child && a.Right() != child {
				t.Fatalf("%d is no parent of %d", a, child)
			}
			if c != child.Sibling() {
				t.Fatalf("copath child of %d is %d, want %d", a, c, child.Sibling())
			}
			child = a
			steps++
		}
		if child != n.Root() || steps != d-int(x.Level()) {
			t.Fatalf("path of %d ends at %d after %d steps", x, child, steps)
		}
		for range n.Path(x) {
			break
		}
	})
}

func TestCommonAncestor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := LeafCount(1) << rapid.IntRange(0, 31).Draw(t, "depth")
		x, y := drawNode(t, n, "x"), drawNode(t, n, "y")
		of := ancestors(n, y)
		want := ancestors(n, x)
		i := slices.IndexFunc(want, func(a NodeIndex) bool { return slices.Contains(of, a) })
		if got := CommonAncestor(x, y); got != want[i] {
			t.Fatalf("common ancestor of %d and %d is %d, want %d", x, y, got, want[i])
		}
	})
}

func TestValid(t *testing.T) {
	for n, want := range map[LeafCount]bool{0: false, 1: true, 2: true, 3: false, 6: false, 1 << 31: true, 1<<31 + 1: false} {
		if n.Valid() != want {
			t.Errorf("Valid(%d) = %v", n, !want)
		}
	}
	if MaxLeaves.NodeWidth() != 1<<32-1 || !MaxLeaves.Has(1<<31-1) || MaxLeaves.Has(1<<31) {
		t.Error("limits of the largest tree")
	}
}
