package mls

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/treemath"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// privateKeys are the HPKE private keys that a member has: of its leaf and of
// nodes above it (§7.4). A map that an epoch holds is not changed: the next epoch
// has its own, and what it doesn't share is wiped.
type privateKeys map[nodeIndex]suite.Secret

// prune drops the keys of nodes that are blank in t.
func (k privateKeys) prune(t *ratchetTree) {
	maps.DeleteFunc(k, func(x nodeIndex, _ suite.Secret) bool {
		return uint32(x) >= t.size.NodeWidth() || t.node(x) == nil
	})
}

// wipeExcept overwrites the keys that other doesn't share.
func (k privateKeys) wipeExcept(other privateKeys) {
	for x, key := range k {
		if o := other[x]; len(o) == 0 || &o[0] != &key[0] {
			key.Wipe()
		}
	}
}

// ownPath is an update path of our own (§7.5), with its secrets.
type ownPath struct {
	path         *updatePath
	nodes        []pathNode
	secrets      []suite.Secret // the path secret of each node
	keys         privateKeys    // of the leaf and of the nodes
	commitSecret suite.Secret
}

// createPath makes new keys for our leaf and the nodes above it and puts them into
// t (§7.5). leaf has everything but its key, source, parent hash and signature.
func (t *ratchetTree) createPath(own LeafIndex, leaf leafFields, signer Signer, groupID []byte) (*ownPath, error) {
	p := &ownPath{path: new(updatePath), nodes: t.filteredPath(own), keys: make(privateKeys)}
	leafKey, err := t.suite.GenerateKeyPair()
	if err != nil {
		return nil, err
	}
	p.keys[own.Node()] = leafKey.Private
	secret := make(suite.Secret, t.suite.HashSize())
	rand.Read(secret)
	for _, n := range p.nodes {
		pair, err := deriveNodeKey(t.suite, secret)
		if err != nil {
			return nil, err
		}
		p.secrets = append(p.secrets, secret)
		p.keys[n.node] = pair.Private
		p.path.nodes = append(p.path.nodes, updatePathNode{encryptionKey: pair.Public})
		secret = t.suite.DeriveSecret(secret, "path")
	}
	p.commitSecret = secret

	leaf.encryptionKey = leafKey.Public
	leaf.source = LeafNodeFromCommit
	leaf.parentHash = t.mergePath(own, p.nodes, p.path.nodes)
	if p.path.leaf, err = leaf.sign(signer, groupID, own); err != nil {
		return nil, err
	}
	t.set(own.Node(), p.path.leaf.raw)
	return p, nil
}

// wipeSecrets overwrites the path secrets and the commit secret.
func (p *ownPath) wipeSecrets() {
	for _, s := range p.secrets {
		s.Wipe()
	}
	p.commitSecret.Wipe()
}

// deriveNodeKey derives the key pair of a node from its path secret (§7.4).
func deriveNodeKey(s *suite.Suite, pathSecret suite.Secret) (hpke.KeyPair, error) {
	secret := s.DeriveSecret(pathSecret, "node")
	defer secret.Wipe()
	return s.DeriveKeyPair(secret)
}

// mergePath puts the new nodes above a leaf into the tree and returns the parent
// hash of the leaf (§7.5, §7.9).
func (t *ratchetTree) mergePath(leaf LeafIndex, nodes []pathNode, keys []updatePathNode) []byte {
	t.blankPath(leaf)
	parentHash := []byte{}
	for i, n := range slices.Backward(nodes) {
		f := parentFields{encryptionKey: keys[i].encryptionKey, parentHash: parentHash}
		t.set(n.node, f.append(nil))
		parentHash = t.parentHash(&f, n.copath)
	}
	return parentHash
}

// recipients is the resolution of a copath node without those that a commit just
// added, who get the path secret by Welcome (§7.5). newcomers ascends.
func (t *ratchetTree) recipients(dst []nodeIndex, copath nodeIndex, newcomers []LeafIndex) []nodeIndex {
	start := len(dst)
	dst = t.resolution(dst, copath)
	if len(newcomers) == 0 {
		return dst
	}
	kept := slices.DeleteFunc(dst[start:], func(x nodeIndex) bool {
		if !x.IsLeaf() {
			return false
		}
		_, isNew := slices.BinarySearch(newcomers, x.Leaf())
		return isNew
	})
	return dst[:start+len(kept)]
}

// encrypt seals the path secrets under the provisional group context (§7.6).
func (p *ownPath) encrypt(t *ratchetTree, newcomers []LeafIndex, context []byte) error {
	type job struct {
		to   nodeIndex
		node int
	}
	var jobs []job
	var to []nodeIndex
	for i, n := range p.nodes {
		to = t.recipients(to[:0], n.copath, newcomers)
		p.path.nodes[i].count = len(to)
		for _, x := range to {
			jobs = append(jobs, job{x, i})
		}
	}
	sealed := make([][]byte, len(jobs))
	encryptor := t.suite.Encryptor("UpdatePathNode", context)
	err := parallel(len(jobs), func(i int) error {
		j := jobs[i]
		kem, ciphertext, err := encryptor.Encrypt(nil, t.encryptionKey(j.to), p.secrets[j.node])
		if err != nil {
			return fmt.Errorf("encrypting a path secret to node %d: %w", j.to, err)
		}
		b := make([]byte, 0, wire.OpaqueSize(len(kem))+wire.OpaqueSize(len(ciphertext)))
		sealed[i] = wire.AppendOpaque(wire.AppendOpaque(b, kem), ciphertext)
		return nil
	})
	if err != nil {
		return err
	}
	for i := range p.path.nodes {
		n := &p.path.nodes[i]
		n.ciphertexts = slices.Concat(sealed[:n.count]...)
		sealed = sealed[n.count:]
	}
	return nil
}

// secretFor is the path secret that a newcomer gets in its Welcome: that of the
// lowest node above both leaves (§12.4.3.1).
func (p *ownPath) secretFor(newcomer LeafIndex) suite.Secret {
	for i, n := range p.nodes {
		if n.copath.Covers(newcomer) {
			return p.secrets[i]
		}
	}
	return nil
}

// applyPath checks the public part of a received path and puts it into t (§7.5,
// §12.4.2). It returns the filtered direct path of the sender.
func (t *ratchetTree) applyPath(sender LeafIndex, path *updatePath, newcomers []LeafIndex) ([]pathNode, error) {
	nodes := t.filteredPath(sender)
	if len(nodes) != len(path.nodes) {
		return nil, fmt.Errorf("%w: %d nodes, want %d", ErrInvalidPath, len(path.nodes), len(nodes))
	}
	leaf := path.leaf.fields()
	if leaf.source != LeafNodeFromCommit {
		return nil, fmt.Errorf("%w: %d", ErrLeafNodeSource, leaf.source)
	}
	keys := make(map[string]bool, len(nodes)+1)
	fresh := func(key []byte) error {
		if err := t.suite.CheckPublicKey(key); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalidPath, err)
		}
		if _, used := t.findKey(encryptionKeys, key); used || keys[string(key)] {
			return fmt.Errorf("%w: encryption key in update path", ErrDuplicateKey)
		}
		keys[string(key)] = true
		return nil
	}
	if err := fresh(leaf.encryptionKey); err != nil {
		return nil, err
	}
	if x, ok := t.findKey(signatureKeys, leaf.signatureKey); ok && x != sender.Node() {
		return nil, fmt.Errorf("%w: signature key in update path", ErrDuplicateKey)
	}
	var to []nodeIndex
	for i := range path.nodes {
		if err := fresh(path.nodes[i].encryptionKey); err != nil {
			return nil, err
		}
		to = t.recipients(to[:0], nodes[i].copath, newcomers)
		if path.nodes[i].count != len(to) {
			return nil, fmt.Errorf("%w: %d ciphertexts, want %d", ErrInvalidPath, path.nodes[i].count, len(to))
		}
	}
	if !bytes.Equal(t.mergePath(sender, nodes, path.nodes), leaf.parentHash) {
		return nil, fmt.Errorf("%w: parent hash", ErrInvalidPath)
	}
	t.set(sender.Node(), slices.Clone(path.leaf.raw))
	return nodes, nil
}

// decryptPath recovers the path secrets from the lowest node above us and the
// sender up, and adds their keys (§7.6). It returns the commit secret.
func (t *ratchetTree) decryptPath(own LeafIndex, keys privateKeys, nodes []pathNode, path *updatePath, newcomers []LeafIndex, context []byte) (suite.Secret, error) {
	secret, i, err := t.openPath(own, keys, nodes, path, newcomers, context)
	if err != nil {
		return nil, err
	}
	for ; i < len(nodes); i++ {
		pair, err := deriveNodeKey(t.suite, secret)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(pair.Public, path.nodes[i].encryptionKey) {
			return nil, fmt.Errorf("%w: key of node %d", ErrInvalidPath, nodes[i].node)
		}
		keys[nodes[i].node] = pair.Private
		next := t.suite.DeriveSecret(secret, "path")
		secret.Wipe()
		secret = next
	}
	return secret, nil
}

// openPath opens the path secret that is encrypted to us, of nodes[i].
func (t *ratchetTree) openPath(own LeafIndex, keys privateKeys, nodes []pathNode, path *updatePath, newcomers []LeafIndex, context []byte) (secret suite.Secret, i int, err error) {
	i = slices.IndexFunc(nodes, func(n pathNode) bool { return n.copath.Covers(own) })
	if i < 0 {
		return nil, 0, fmt.Errorf("%w: not above our leaf", ErrInvalidPath)
	}
	to := t.recipients(nil, nodes[i].copath, newcomers)
	for k, x := range to {
		if key, ok := keys[x]; ok {
			kem, ciphertext := path.nodes[i].ciphertext(k)
			pair := hpke.KeyPair{Private: key, Public: t.encryptionKey(x)}
			secret, err := t.suite.DecryptWithLabel(pair, "UpdatePathNode", context, kem, ciphertext)
			if err != nil || len(secret) != t.suite.HashSize() {
				return nil, 0, fmt.Errorf("%w: path secret does not open", ErrInvalidPath)
			}
			return secret, i, nil
		}
	}
	return nil, 0, fmt.Errorf("%w: not encrypted to us", ErrInvalidPath)
}

// joinPath derives the keys of the nodes above both us and the committer from the
// path secret of the Welcome (§12.4.3.1).
func (t *ratchetTree) joinPath(own, committer LeafIndex, pathSecret []byte, keys privateKeys) error {
	x := treemath.CommonAncestor(own.Node(), committer.Node())
	if own == committer || t.node(x) == nil {
		return fmt.Errorf("%w: path secret for a blank node", ErrInvalidPath)
	}
	secret := suite.Secret(slices.Clone(pathSecret))
	for {
		if p, ok := t.parent(x); ok {
			pair, err := deriveNodeKey(t.suite, secret)
			if err != nil {
				return err
			}
			if !bytes.Equal(pair.Public, p.encryptionKey) {
				return fmt.Errorf("%w: key of node %d", ErrInvalidPath, x)
			}
			keys[x] = pair.Private
			next := t.suite.DeriveSecret(secret, "path")
			secret.Wipe()
			secret = next
		}
		if x == t.size.Root() {
			secret.Wipe()
			return nil
		}
		x = x.Parent()
	}
}
