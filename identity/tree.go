package identity

import (
	"hash/maphash"
	"iter"
)

// tree is an ordered map from strings that never changes: put and delete
// return a new one that shares all but O(log n) nodes with the old. That makes
// every state of a log as cheap as the change that led to it.
//
// It is a treap. Priorities are a keyed hash of the key, so that nobody can
// choose keys that make it deep, and its shape never shows.
type tree[V any] struct {
	root *node[V]
}

type node[V any] struct {
	key         string
	value       V
	priority    uint64
	left, right *node[V]
}

var treeSeed = maphash.MakeSeed()

func (t tree[V]) get(key string) (V, bool) {
	for n := t.root; n != nil; {
		switch {
		case key < n.key:
			n = n.left
		case key > n.key:
			n = n.right
		default:
			return n.value, true
		}
	}
	var zero V
	return zero, false
}

func (t tree[V]) put(key string, value V) tree[V] {
	return tree[V]{t.root.put(&node[V]{key: key, value: value, priority: maphash.String(treeSeed, key)})}
}

func (t tree[V]) delete(key string) tree[V] {
	if _, ok := t.get(key); !ok {
		return t
	}
	return tree[V]{t.root.delete(key)}
}

// from iterates over all entries whose key is at least start, in order.
func (t tree[V]) from(start string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) { t.root.visit(start, yield) }
}

// put takes ownership of m.
func (n *node[V]) put(m *node[V]) *node[V] {
	switch {
	case n == nil:
		return m
	case m.key == n.key:
		m.left, m.right = n.left, n.right
		return m
	case m.priority > n.priority:
		// The priority belongs to the key, so the key is not below n.
		m.left, m.right = n.split(m.key)
		return m
	}
	c := *n
	if m.key < n.key {
		c.left = n.left.put(m)
	} else {
		c.right = n.right.put(m)
	}
	return &c
}

// delete requires that the key is there.
func (n *node[V]) delete(key string) *node[V] {
	if key == n.key {
		return n.left.join(n.right)
	}
	c := *n
	if key < n.key {
		c.left = n.left.delete(key)
	} else {
		c.right = n.right.delete(key)
	}
	return &c
}

// split cuts n into the keys below and above key, which is not in it.
func (n *node[V]) split(key string) (below, above *node[V]) {
	if n == nil {
		return nil, nil
	}
	c := *n
	if key < n.key {
		below, c.left = n.left.split(key)
		return below, &c
	}
	c.right, above = n.right.split(key)
	return &c, above
}

// join is split's inverse: all keys of n are below those of m.
func (n *node[V]) join(m *node[V]) *node[V] {
	switch {
	case n == nil:
		return m
	case m == nil:
		return n
	case n.priority > m.priority:
		c := *n
		c.right = n.right.join(m)
		return &c
	}
	c := *m
	c.left = n.join(m.left)
	return &c
}

func (n *node[V]) visit(start string, yield func(string, V) bool) bool {
	if n == nil {
		return true
	}
	if n.key < start {
		return n.right.visit(start, yield)
	}
	return n.left.visit(start, yield) && yield(n.key, n.value) && n.right.visit(start, yield)
}
