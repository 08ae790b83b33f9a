// Package secrettree is the secret tree of MLS (RFC 9420 §9): from one
// encryption_secret it makes the keys of every message of an epoch, and
// deletes what is spent (§9.2).
//
// Keys are taken in two steps. [Tree.Key] and [Tree.Next] derive a key and leave
// the tree as it is; [Use.Commit] consumes it, [Use.Drop] forgets it. So a
// message that turns out forged burns no key, and the changes that a consumed
// key makes to stored records can be written before they happen in memory.
package secrettree

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/treemath"
)

var (
	// ErrTooFarAhead tells that a generation is more than [Window.Forward]
	// ahead of the next one expected.
	ErrTooFarAhead = errors.New("generation too far ahead")

	// ErrTooOld tells that a generation is more than [Window.Backward] behind
	// the next one expected: its key, if it was ever skipped, is gone.
	ErrTooOld = errors.New("generation too old")

	// ErrSecretReused tells that the key of a generation has been consumed.
	ErrSecretReused = errors.New("key of this generation was used")

	// ErrExhausted tells that a ratchet has come to its last generation.
	ErrExhausted = errors.New("ratchet exhausted")

	// ErrNoLeaf tells that the tree has no such leaf.
	ErrNoLeaf = errors.New("no such leaf in the secret tree")

	// ErrStale tells that the tree has changed since a [Use] was made.
	ErrStale = errors.New("secret tree changed meanwhile")
)

// Kind tells the two ratchets of a leaf apart.
type Kind uint8

// The ratchets of a leaf (§9.1).
const (
	Handshake Kind = iota
	Application
)

var kindLabels = [...]string{Handshake: "handshake", Application: "application"}

// Window bounds what is accepted out of order, for each ratchet.
type Window struct {
	// Backward is the number of generations below the next one expected
	// whose keys are kept when they are skipped.
	Backward uint32

	// Forward is how far ahead of the next generation expected one may be.
	Forward uint32
}

// Tree is the secret tree of one epoch. It is not safe for concurrent use.
type Tree struct {
	suite    *suite.Suite
	leaves   treemath.LeafCount
	window   Window
	nodes    map[treemath.NodeIndex]suite.Secret // no node is above another
	ratchets map[ratchetID]*ratchet
}

// ratchetID is 2·leaf + kind.
type ratchetID uint32

func idOf(l treemath.LeafIndex, k Kind) ratchetID { return ratchetID(l)<<1 | ratchetID(k) }

// ratchet is one sender ratchet. It is not changed once the tree holds it.
type ratchet struct {
	next    uint32 // the next generation
	secret  [64]byte
	skipped []skipped // ascending
	ahead   uint32    // how many generations what is stored is ahead, see [Use.Reserve]
}

type skipped struct {
	generation uint32
	key        suite.Key
}

func (r *ratchet) wipe() {
	clear(r.secret[:])
	clear(r.skipped)
}

// New makes the tree of an epoch with leaves slots. It keeps a copy of
// encryptionSecret.
func New(s *suite.Suite, leaves treemath.LeafCount, encryptionSecret []byte, w Window) *Tree {
	t := newTree(s, leaves, w)
	t.nodes[leaves.Root()] = append(suite.Secret(nil), encryptionSecret...)
	return t
}

func newTree(s *suite.Suite, leaves treemath.LeafCount, w Window) *Tree {
	return &Tree{
		suite: s, leaves: leaves, window: w,
		nodes:    make(map[treemath.NodeIndex]suite.Secret),
		ratchets: make(map[ratchetID]*ratchet),
	}
}

// Wipe overwrites and drops all secrets.
func (t *Tree) Wipe() {
	for _, n := range t.nodes {
		n.Wipe()
	}
	for _, r := range t.ratchets {
		r.wipe()
	}
	clear(t.nodes)
	clear(t.ratchets)
}

// Use is a key in use, with the changes to the tree that consuming it makes.
type Use struct {
	tree       *Tree
	id         ratchetID
	generation uint32
	key        suite.Key
	before     *ratchet // nil if the leaf is used for the first time
	after      *ratchet
	first      *firstUse
	ahead      uint32 // see Reserve
}

// firstUse is what the first use of a leaf does to the nodes above it.
type firstUse struct {
	ancestor treemath.NodeIndex // to delete
	siblings []node             // to store
	other    *ratchet           // the leaf's second ratchet
}

type node struct {
	index  treemath.NodeIndex
	secret suite.Secret
}

// Key derives the key of a generation of a leaf's ratchet, for decrypting. It
// fails with [ErrTooFarAhead], [ErrTooOld], [ErrSecretReused], [ErrExhausted] or
// [ErrNoLeaf].
func (t *Tree) Key(l treemath.LeafIndex, k Kind, generation uint32) (*Use, error) {
	u, r, err := t.use(l, k)
	if err != nil {
		return nil, err
	}
	u.generation = generation
	if err := u.take(r); err != nil {
		u.Drop()
		return nil, err
	}
	return u, nil
}

// Next derives the key of the next generation of a leaf's ratchet, for
// encrypting. It fails with [ErrExhausted] or [ErrNoLeaf].
func (t *Tree) Next(l treemath.LeafIndex, k Kind) (*Use, error) {
	u, r, err := t.use(l, k)
	if err != nil {
		return nil, err
	}
	u.generation = r.next
	if err := u.take(r); err != nil {
		u.Drop()
		return nil, err
	}
	return u, nil
}

// use finds the ratchet, or derives it if the leaf was never used.
func (t *Tree) use(l treemath.LeafIndex, k Kind) (*Use, *ratchet, error) {
	if !t.leaves.Has(l) {
		return nil, nil, ErrNoLeaf
	}
	u := &Use{tree: t, id: idOf(l, k)}
	if r := t.ratchets[u.id]; r != nil {
		u.before, u.ahead = r, r.ahead
		return u, r, nil
	}
	var err error
	u.after, u.first, err = t.open(l, k)
	return u, u.after, err
}

// open derives the two ratchets of a leaf from the nearest node above it whose
// secret is left.
func (t *Tree) open(l treemath.LeafIndex, k Kind) (*ratchet, *firstUse, error) {
	leaf := l.Node()
	top, ok := leaf, false
	for {
		if _, ok = t.nodes[top]; ok || top == t.leaves.Root() {
			break
		}
		top = top.Parent()
	}
	if !ok {
		return nil, nil, ErrNoLeaf
	}
	n := t.suite.HashSize()
	f := &firstUse{ancestor: top}
	var stack [64]byte
	secret := stack[:n]
	copy(secret, t.nodes[top])
	if depth := int(top.Level()); depth > 0 {
		f.siblings = make([]node, 0, depth)
		secrets := make(suite.Secret, depth*n)
		for x := top; x != leaf; {
			on, off := x.Left(), x.Right()
			onLabel, offLabel := "left", "right"
			if off.Covers(l) {
				on, off = off, on
				onLabel, offLabel = offLabel, onLabel
			}
			sibling := secrets[:n:n]
			secrets = secrets[n:]
			t.suite.ExpandWithLabel(sibling, secret, "tree", []byte(offLabel))
			t.suite.ExpandWithLabel(secret, secret, "tree", []byte(onLabel))
			f.siblings = append(f.siblings, node{off, sibling})
			x = on
		}
	}
	wanted := new(ratchet)
	f.other = new(ratchet)
	t.suite.ExpandWithLabel(wanted.secret[:n], secret, kindLabels[k], nil)
	t.suite.ExpandWithLabel(f.other.secret[:n], secret, kindLabels[1-k], nil)
	clear(secret)
	return wanted, f, nil
}

// take makes u.key and u.after from the ratchet as it stands.
func (u *Use) take(r *ratchet) error {
	w := u.tree.window
	switch {
	case u.generation >= r.next:
		if u.generation-r.next > w.Forward {
			return ErrTooFarAhead
		}
		if u.generation == math.MaxUint32 {
			return ErrExhausted
		}
		u.forward(r)
		return nil
	case r.next-u.generation > w.Backward:
		return ErrTooOld
	}
	for i, s := range r.skipped {
		if s.generation == u.generation {
			u.key = s.key
			u.after = &ratchet{next: r.next, secret: r.secret}
			if len(r.skipped) > 1 {
				u.after.skipped = slices.Concat(r.skipped[:i], r.skipped[i+1:])
			}
			return nil
		}
	}
	return ErrSecretReused
}

// forward steps the ratchet past u.generation.
func (u *Use) forward(r *ratchet) {
	after, key := u.tree.past(r, u.generation)
	u.key = key
	key.Wipe()
	if u.after != nil {
		u.after.wipe() // that of a first use, for which r stands
	}
	u.after = after
}

// past is a ratchet as it is after a generation, whose key it returns, with the keys of
// those generations in between that stay in the window.
func (t *Tree) past(r *ratchet, generation uint32) (after *ratchet, key suite.Key) {
	s, backward := t.suite, t.window.Backward
	after = &ratchet{next: r.next, secret: r.secret}
	inWindow := func(other uint32) bool { return generation-other < backward }
	old := r.skipped
	for len(old) > 0 && !inWindow(old[0].generation) {
		old = old[1:]
	}
	// Room for all at once: growing would leave copies of keys behind.
	if n := len(old) + int(min(generation-r.next, backward)); n > 0 {
		after.skipped = append(make([]skipped, 0, n+1), old...)
	}
	secret := after.secret[:s.HashSize()]
	for ; after.next <= generation; after.next++ {
		if after.next == generation {
			key = s.DeriveTreeKey(secret, after.next)
		} else if inWindow(after.next) {
			after.skipped = append(after.skipped, skipped{after.next, s.DeriveTreeKey(secret, after.next)})
		}
		s.DeriveTreeSecret(secret, secret, "secret", after.next)
	}
	return after, key
}

// skip is a ratchet with its next n generations skipped, n > 0, or as many as are left.
func (t *Tree) skip(r *ratchet, n uint32) *ratchet {
	left := math.MaxUint32 - r.next
	if left == 0 {
		return &ratchet{next: r.next, secret: r.secret, skipped: slices.Clone(r.skipped)}
	}
	generation := r.next + min(n, left) - 1
	after, key := t.past(r, generation)
	if t.window.Backward > 0 {
		after.skipped = append(after.skipped, skipped{generation, key})
	}
	key.Wipe()
	return after
}

// Generation is the generation of the key.
func (u *Use) Generation() uint32 { return u.generation }

// Reserve lets [Use.Changes] store the ratchet n generations ahead of what [Use.Commit]
// leaves in memory, with the keys of these as if they were skipped, as far as the window
// goes. So it is with all later uses of the ratchet, until [Tree.Ratchet] is called.
func (u *Use) Reserve(n uint32) { u.ahead = n }

// Late tells whether the generation was skipped before.
func (u *Use) Late() bool { return u.before != nil && u.generation < u.before.next }

// Key is the key, until [Use.Commit] or [Use.Drop].
func (u *Use) Key() *suite.Key { return &u.key }

// Commit consumes the key. It fails with [ErrStale], changing nothing, if
// another use of the same ratchet, or the first one of a leaf nearby, was
// committed since u was made.
func (u *Use) Commit() error {
	t := u.tree
	if t == nil || t.ratchets[u.id] != u.before {
		return ErrStale
	}
	if f := u.first; f != nil {
		secret, ok := t.nodes[f.ancestor]
		if !ok {
			return ErrStale
		}
		secret.Wipe()
		delete(t.nodes, f.ancestor)
		for _, n := range f.siblings {
			t.nodes[n.index] = n.secret
		}
		t.ratchets[u.id^1] = f.other
	} else {
		u.before.wipe()
	}
	u.after.ahead = u.ahead
	t.ratchets[u.id] = u.after
	u.key.Wipe()
	*u = Use{}
	return nil
}

// Drop forgets the key and leaves the tree as it is. It does nothing after
// [Use.Commit].
func (u *Use) Drop() {
	u.key.Wipe()
	if u.after != nil {
		u.after.wipe()
	}
	if f := u.first; f != nil {
		f.other.wipe()
		for _, n := range f.siblings {
			n.secret.Wipe()
		}
	}
	*u = Use{}
}

// Format implements [fmt.Formatter] without showing secrets.
func (t *Tree) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "secret tree of %d leaves", t.leaves)
}

// Format implements [fmt.Formatter] without showing secrets.
func (u *Use) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "use of generation %d", u.generation)
}
