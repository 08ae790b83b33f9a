package mls

import (
	"fmt"
	"slices"
)

// validate checks a whole tree as one who joins does (§12.4.3.1): keys and their
// uniqueness, parent hashes, unmerged leaves, and every leaf (§7.3).
func (t *ratchetTree) validate(groupID []byte, q *requirements) error {
	if err := t.validateKeys(); err != nil {
		return err
	}
	if err := t.validateUnmerged(); err != nil {
		return err
	}
	t.rootHash() // fills the cache, from here on hashes are only read
	if !t.verifyParentHashes() {
		return fmt.Errorf("%w: parent hash", ErrInvalidTree)
	}
	var members []LeafIndex
	for i := range t.leaves() {
		members = append(members, i)
	}
	return parallel(len(members), func(k int) error {
		i := members[k]
		leaf, _ := t.leaf(i)
		f := leaf.fields()
		if err := q.check(&f); err != nil {
			return fmt.Errorf("leaf %d: %w", i, err)
		}
		if err := t.checkCredentials(&f); err != nil {
			return fmt.Errorf("leaf %d: %w", i, err)
		}
		if !t.suite.VerifyWithLabel(f.signatureKey, "LeafNodeTBS", f.signature, f.unsigned, f.context(groupID, i)) {
			return fmt.Errorf("leaf %d: %w", i, ErrLeafNodeSignature)
		}
		return nil
	})
}

// validateKeys checks that all public keys are keys, and occur once (§7.3).
func (t *ratchetTree) validateKeys() error {
	t.keys.build(t)
	check := func(x nodeIndex, kind keyKind, key []byte) error {
		if y, _ := t.findKey(kind, key); y != x {
			return fmt.Errorf("%w: nodes %d and %d", ErrDuplicateKey, x, y)
		}
		return nil
	}
	for x := range t.width() {
		if t.node(x) == nil {
			continue
		}
		key := t.encryptionKey(x)
		if err := t.suite.CheckPublicKey(key); err != nil {
			return fmt.Errorf("%w: node %d: %w", ErrInvalidTree, x, err)
		}
		if err := check(x, encryptionKeys, key); err != nil {
			return err
		}
		if x.IsLeaf() {
			if err := check(x, signatureKeys, LeafNode{t.node(x)}.signatureKey()); err != nil {
				return err
			}
		}
	}
	return nil
}

// validateUnmerged checks the unmerged leaves of each parent (§12.4.3.1): they are
// members below it, and unmerged in all nodes between.
func (t *ratchetTree) validateUnmerged() error {
	for x := nodeIndex(1); uint32(x) < t.size.NodeWidth(); x += 2 {
		p, ok := t.parent(x)
		if !ok {
			continue
		}
		for l := range p.unmergedLeaves() {
			if _, ok := t.leaf(l); !ok || !x.Covers(l) {
				return fmt.Errorf("%w: unmerged leaf %d of node %d", ErrInvalidTree, l, x)
			}
			for y := l.Node().Parent(); y != x; y = y.Parent() {
				if between, ok := t.parent(y); ok && !between.isUnmerged(l) {
					return fmt.Errorf("%w: leaf %d is unmerged in node %d, not in %d", ErrInvalidTree, l, x, y)
				}
			}
		}
	}
	return nil
}

// checkCredentials checks that a leaf supports all credential types in use (§7.3).
func (t *ratchetTree) checkCredentials(f *leafFields) error {
	for _, c := range t.credentials {
		if !f.supportsCredential(c.kind) {
			return fmt.Errorf("%w: credential type %d", ErrCapabilities, c.kind)
		}
	}
	return nil
}

// hasCredential tells whether a leaf has a credential of type kind.
func (t *ratchetTree) hasCredential(kind CredentialType) bool {
	return slices.ContainsFunc(t.credentials, func(c credentialCount) bool { return c.kind == kind })
}
