package schedule

import (
	"fmt"
	"maps"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// ExportTree is the exporter tree of an epoch (draft-ietf-mls-extensions, Exported
// Secrets): one secret for each of 65,536 components, each to be had once. What is
// gone can't be derived again from what is left.
type ExportTree struct {
	suite *suite.Suite
	// nodes are the secrets that are left, by their place: the root is 1, the children
	// of i are 2i and 2i+1, the leaves begin at exportLeaves.
	nodes map[uint32]suite.Secret
}

const exportLeaves = 1 << 16

// NewExportTree begins the tree of an epoch.
func NewExportTree(s *suite.Suite, epochSecret []byte) *ExportTree {
	root := s.DeriveSecret(epochSecret, "application_export")
	return &ExportTree{s, map[uint32]suite.Secret{1: root}}
}

// Take returns the secret of a component and the tree without it; nil if it is gone.
// t stays as it is, and shares secrets with the new tree: see [ExportTree.Spent].
func (t *ExportTree) Take(component uint16) (secret suite.Secret, rest *ExportTree) {
	leaf := exportLeaves + uint32(component)
	at := leaf
	for t.nodes[at] == nil {
		if at >>= 1; at == 0 {
			return nil, nil
		}
	}
	rest = &ExportTree{t.suite, maps.Clone(t.nodes)}
	delete(rest.nodes, at)
	secret = slices.Clone(t.nodes[at])
	for shift := depth(leaf) - depth(at); shift > 0; shift-- {
		left, right := make(suite.Secret, t.suite.HashSize()), make(suite.Secret, t.suite.HashSize())
		t.suite.ExpandWithLabel(left, secret, "tree", []byte("left"))
		t.suite.ExpandWithLabel(right, secret, "tree", []byte("right"))
		secret.Wipe()
		next := leaf >> (shift - 1)
		if next&1 == 0 {
			secret, rest.nodes[next^1] = left, right
		} else {
			secret, rest.nodes[next^1] = right, left
		}
	}
	return secret, rest
}

func depth(x uint32) (d int) {
	for ; x > 1; x >>= 1 {
		d++
	}
	return d
}

// Spent overwrites the secrets of t that rest, made by [ExportTree.Take], doesn't have.
func (t *ExportTree) Spent(rest *ExportTree) {
	for x, secret := range t.nodes {
		if rest == nil || rest.nodes[x] == nil {
			secret.Wipe()
		}
	}
}

// Wipe overwrites and drops all secrets; t may be nil.
func (t *ExportTree) Wipe() {
	if t != nil {
		t.Spent(nil)
		t.nodes = nil
	}
}

// Format implements [fmt.Formatter] and shows no secret.
func (t *ExportTree) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "[exporter tree]") }

// Append appends the encoding of t for storage; t may be nil.
func (t *ExportTree) Append(b []byte) []byte {
	if t == nil {
		return b
	}
	for _, x := range slices.Sorted(maps.Keys(t.nodes)) {
		b = wire.AppendOpaque(wire.AppendUint32(b, x), t.nodes[x])
	}
	return b
}

// ReadExportTree reads all of r, what [ExportTree.Append] wrote. Failures are left in r.
func ReadExportTree(s *suite.Suite, r *wire.Reader) *ExportTree {
	t := &ExportTree{s, map[uint32]suite.Secret{}}
	for r.Left() > 0 {
		x, secret := r.Uint32(), r.Opaque()
		if r.Err() == nil && (x == 0 || x >= 2*exportLeaves || len(secret) != s.HashSize() || t.nodes[x] != nil) {
			r.Fail(fmt.Errorf("exporter tree: node %d of %d bytes", x, len(secret)))
			return nil
		}
		t.nodes[x] = slices.Clone(secret)
	}
	return t
}
