package mls

import (
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// commit is the body of a Commit (§12.4).
type commit struct {
	proposals []proposalOrRef
	path      *updatePath
}

// proposalOrRef is a proposal by value, or by the hash of its message.
type proposalOrRef struct {
	proposal Proposal // nil if by reference
	ref      []byte
}

const (
	proposalByValue     = 1
	proposalByReference = 2
)

func (c *commit) append(b []byte) []byte {
	b = wire.AppendVector(b, func(b []byte) []byte {
		for _, p := range c.proposals {
			if p.proposal != nil {
				b = appendProposal(append(b, proposalByValue), p.proposal)
			} else {
				b = wire.AppendOpaque(append(b, proposalByReference), p.ref)
			}
		}
		return b
	})
	b = wire.AppendPresence(b, c.path != nil)
	if c.path != nil {
		b = c.path.append(b)
	}
	return b
}

func readCommit(r *wire.Reader) *commit {
	c := new(commit)
	r.Vector(func(r *wire.Reader) {
		var p proposalOrRef
		switch kind := r.Uint8(); kind {
		case proposalByValue:
			p.proposal = readProposal(r)
		case proposalByReference:
			p.ref = r.Opaque()
		default:
			r.Fail(fmt.Errorf("ProposalOrRefType %d", kind))
		}
		c.proposals = append(c.proposals, p)
	})
	if r.Optional() {
		c.path = readUpdatePath(r)
	}
	return c
}

// updatePath is the committer's new leaf and the nodes above it (§7.6).
type updatePath struct {
	leaf  LeafNode
	nodes []updatePathNode
}

type updatePathNode struct {
	encryptionKey []byte
	// ciphertexts holds count encoded HPKECiphertexts. A receiver needs one of
	// maybe thousands, so they are not decoded into a slice.
	ciphertexts []byte
	count       int
}

// ciphertext is the i-th HPKECiphertext of the node; i must be below count.
func (n *updatePathNode) ciphertext(i int) (kemOutput, ciphertext []byte) {
	r := wire.NewReader(n.ciphertexts)
	for range i {
		r.Opaque()
		r.Opaque()
	}
	return r.Opaque(), r.Opaque()
}

func (p *updatePath) append(b []byte) []byte {
	b = append(b, p.leaf.raw...)
	return wire.AppendVector(b, func(b []byte) []byte {
		for _, n := range p.nodes {
			b = wire.AppendOpaque(b, n.encryptionKey)
			b = wire.AppendOpaque(b, n.ciphertexts)
		}
		return b
	})
}

func readUpdatePath(r *wire.Reader) *updatePath {
	p := new(updatePath)
	p.leaf, _ = readLeafNode(r)
	r.Vector(func(r *wire.Reader) {
		n := updatePathNode{encryptionKey: r.Opaque()}
		start := 0
		r.Vector(func(r *wire.Reader) {
			if n.count == 0 {
				start = r.Offset()
			}
			r.Opaque()
			r.Opaque()
			n.count++
		})
		if n.count > 0 {
			n.ciphertexts = r.Since(start)
		}
		p.nodes = append(p.nodes, n)
	})
	return p
}
