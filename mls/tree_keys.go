package mls

import (
	"bytes"
	"hash/maphash"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// keyKind tells apart the two kinds of public keys that have to be unique in a
// tree (§7.3): encryption keys of leaves and parents, signature keys of leaves.
type keyKind uint32

const (
	encryptionKeys keyKind = 0
	signatureKeys  keyKind = 1
)

// keyIndex finds the node that has a public key. base is shared with the tree
// that this one was cloned from; what was added since is in added. Entries are
// never deleted: a hit counts if the node has the key now.
type keyIndex struct {
	base  *keyTable
	added keyTable
}

// keyTable is a hash table of 2·node + kind + 1, 0 for a free slot. The keys
// themselves are in the tree.
type keyTable struct {
	slots []uint32
	used  int
}

var keySeed = maphash.MakeSeed()

// key is the public key of an entry as the tree has it now; nil if the node is
// blank.
func (t *ratchetTree) key(entry uint32) []byte {
	x, kind := nodeIndex((entry-1)>>1), keyKind((entry-1)&1)
	raw := t.node(x)
	if raw == nil {
		return nil
	}
	r := wire.NewReader(raw)
	key := r.Opaque()
	if kind == signatureKeys {
		key = r.Opaque()
	}
	return key
}

func keyHash(entry uint32, key []byte) uint64 {
	return maphash.Bytes(keySeed, key) + uint64((entry-1)&1)
}

func (k *keyTable) find(t *ratchetTree, kind keyKind, key []byte) (nodeIndex, bool) {
	if len(k.slots) == 0 {
		return 0, false
	}
	mask := uint64(len(k.slots) - 1)
	for i := keyHash(uint32(kind)+1, key); ; i++ {
		entry := k.slots[i&mask]
		if entry == 0 {
			return 0, false
		}
		if keyKind((entry-1)&1) == kind && bytes.Equal(t.key(entry), key) {
			return nodeIndex((entry - 1) >> 1), true
		}
	}
}

func (k *keyTable) add(t *ratchetTree, entry uint32) {
	if 4*(k.used+1) > 3*len(k.slots) {
		old := k.slots
		k.slots, k.used = make([]uint32, max(16, 2*len(old))), 0
		for _, e := range old {
			if e != 0 && t.key(e) != nil {
				k.insert(t, e)
			}
		}
	}
	k.insert(t, entry)
}

func (k *keyTable) insert(t *ratchetTree, entry uint32) {
	mask := uint64(len(k.slots) - 1)
	for i := keyHash(entry, t.key(entry)); ; i++ {
		switch slot := &k.slots[i&mask]; *slot {
		case entry:
			return
		case 0:
			*slot = entry
			k.used++
			return
		}
	}
}

func keyEntry(x nodeIndex, kind keyKind) uint32 { return uint32(x)<<1 | uint32(kind) + 1 }

// build makes base, if it isn't there, from the whole tree.
func (k *keyIndex) build(t *ratchetTree) {
	if k.base != nil {
		return
	}
	k.base, k.added = new(keyTable), keyTable{}
	for i, block := range t.blocks {
		if block == nil {
			continue
		}
		for j, raw := range block.nodes {
			if raw != nil {
				k.base.addNode(t, nodeIndex(i*blockNodes+j))
			}
		}
	}
}

func (k *keyTable) addNode(t *ratchetTree, x nodeIndex) {
	k.add(t, keyEntry(x, encryptionKeys))
	if x.IsLeaf() {
		k.add(t, keyEntry(x, signatureKeys))
	}
}

// add records the keys of node x, which has changed.
func (k *keyIndex) add(t *ratchetTree, x nodeIndex) {
	if k.base != nil {
		k.added.addNode(t, x)
	}
}

// settle moves what was added into base.
func (k *keyIndex) settle(t *ratchetTree) {
	for _, entry := range k.added.slots {
		if entry != 0 && t.key(entry) != nil {
			k.base.add(t, entry)
		}
	}
	k.added = keyTable{}
}

// findKey finds the node that has a public key.
func (t *ratchetTree) findKey(kind keyKind, key []byte) (nodeIndex, bool) {
	t.keys.build(t)
	if x, ok := t.keys.base.find(t, kind, key); ok {
		return x, true
	}
	return t.keys.added.find(t, kind, key)
}
