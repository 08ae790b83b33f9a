package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// tell brings a commit to all of a team but its maker.
func tell(team []*member, by *member, out *OutgoingCommit) {
	for _, m := range team {
		if m != nil && m != by {
			m.process(out.Message)
		}
	}
}

// An empty parent hash covers nothing: that of a former root stays under a newer
// root, which has to be covered from its other side (§7.9.2).
func TestEmptyParentHash(t *testing.T) {
	team := newTeam(t, testSuite, 2, Config{})
	tell(team, team[1], team[1].commit(CommitOptions{}))
	joining := newMemberOf(t, testSuite, "third", Config{})
	kp := newKeyPackage(t, joining.client)
	out := team[0].commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}, OmitPath: true})
	tell(team, team[0], out)
	joining.join(out, kp)
	team = append(team, joining)
	tell(team, joining, joining.commit(CommitOptions{}))
	agree(t, team)

	tree := team[0].group.tree()
	if p, ok := tree.parent(1); !ok || len(p.parentHash) != 0 {
		t.Fatalf("node 1 has parent hash %x", p.parentHash)
	}
	if p, ok := tree.parent(3); !ok || len(p.parentHash) != 0 {
		t.Fatalf("the root has parent hash %x", p.parentHash)
	}
	if !tree.verifyParentHashes() {
		t.Fatal("a good tree is refused")
	}
	team = addMembers(team, 1) // who checks the tree
	agree(t, team)

	// Without the leaf that covers it the new root is nobody's.
	broken := tree.clone()
	broken.set(LeafIndex(2).Node(), kp.public.leaf.raw)
	if broken.verifyParentHashes() {
		t.Error("a root that nothing covers passes")
	}
}

// The hash of the original sibling is computed anew also where a blank node hides
// the one whose unmerged leaves have changed (§7.9).
func TestParentHashUnderBlank(t *testing.T) {
	team := newTeam(t, testSuite, 16, Config{PublicHandshakes: true})
	remove := func(by, gone int) {
		tell(team, team[by], team[by].commit(CommitOptions{Proposals: []Proposal{Remove{LeafIndex(gone)}}}))
		team[gone] = nil
	}
	remove(0, 11)
	tell(team, team[8], team[8].commit(CommitOptions{})) // node 19 over leaves 8 to 11
	remove(9, 12)                                        // blanks node 23 over leaves 8 to 15
	tell(team, team[8], team[8].commit(CommitOptions{}))
	remove(0, 13)
	tell(team, team[0], team[0].commit(CommitOptions{})) // the root, over a blank node 23
	tree := team[0].group.tree()
	if tree.node(19) == nil || tree.node(23) != nil || tree.node(15) == nil {
		t.Fatal("the tree is not the one that this test needs")
	}
	joining := newMemberOf(t, testSuite, "new", Config{PublicHandshakes: true})
	kp := newKeyPackage(t, joining.client)
	out := team[1].commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}, OmitPath: true})
	tell(team, team[1], out)
	joining.join(out, kp)
	if joining.group.OwnLeaf() != 11 {
		t.Fatalf("joined as leaf %d", joining.group.OwnLeaf())
	}
	for _, x := range []nodeIndex{19, 15} {
		if p, ok := joining.group.tree().parent(x); !ok || !p.isUnmerged(11) {
			t.Fatalf("leaf 11 is not unmerged in node %d", x)
		}
	}
}

// What one who joins holds against a tree (§7.3, §7.9.2, §12.4.3.1).
func TestTreeRules(t *testing.T) {
	team := newTeam(t, testSuite, 5, Config{})
	for _, m := range team {
		tell(team, m, m.commit(CommitOptions{}))
	}
	team = addMembers(team, 1)
	out := team[0].commit(CommitOptions{Proposals: []Proposal{Remove{5}}})
	tell(team[:5], team[0], out)
	team = team[:5]
	joining := newMemberOf(t, testSuite, "unmerged", Config{})
	kp := newKeyPackage(t, joining.client)
	tell(team, team[0], team[0].commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}, OmitPath: true}))
	tree := team[0].group.tree()
	groupID, q := team[0].group.ID(), team[0].group.current.requires
	if p, ok := tree.parent(7); !ok || !p.isUnmerged(5) {
		t.Fatal("leaf 5 is not unmerged in the root")
	}
	parent := func(tree *ratchetTree, x nodeIndex, change func(p *parentFields)) {
		p, ok := tree.parent(x)
		if !ok {
			t.Fatalf("node %d is blank", x)
		}
		change(&p)
		tree.set(x, p.append(nil))
	}
	leaf := func(tree *ratchetTree, i LeafIndex, change func(f *leafFields)) {
		n, _ := tree.leaf(i)
		f := n.fields()
		change(&f)
		tree.set(i.Node(), f.append(nil))
	}
	for _, tc := range []struct {
		name   string
		change func(tree *ratchetTree)
		want   error
	}{
		{"nothing", func(*ratchetTree) {}, nil},
		{"signature", func(tree *ratchetTree) { leaf(tree, 5, func(f *leafFields) { f.signature = make([]byte, 64) }) }, ErrLeafNodeSignature},
		{"another group", func(tree *ratchetTree) { groupID = []byte("other") }, ErrLeafNodeSignature},
		{"signature key twice", func(tree *ratchetTree) {
			other, _ := tree.leaf(1)
			leaf(tree, 2, func(f *leafFields) { f.signatureKey = other.signatureKey() })
		}, ErrDuplicateKey},
		{"encryption key twice", func(tree *ratchetTree) {
			leaf(tree, 2, func(f *leafFields) { f.encryptionKey = tree.encryptionKey(1) })
		}, ErrDuplicateKey},
		{"encryption key of 31 bytes", func(tree *ratchetTree) {
			leaf(tree, 2, func(f *leafFields) { f.encryptionKey = make([]byte, 31) })
		}, ErrInvalidTree},
		{"parent key", func(tree *ratchetTree) {
			parent(tree, 3, func(p *parentFields) { p.encryptionKey = bytes.Repeat([]byte{3}, 32) })
		}, ErrInvalidTree},
		{"parent hash", func(tree *ratchetTree) {
			parent(tree, 3, func(p *parentFields) { p.parentHash = make([]byte, 32) })
		}, ErrInvalidTree},
		{"no parent hash", func(tree *ratchetTree) {
			parent(tree, 3, func(p *parentFields) { p.parentHash = nil })
		}, ErrInvalidTree},
		{"unmerged leaf that is blank", func(tree *ratchetTree) {
			parent(tree, 7, func(p *parentFields) { p.unmerged = wire.AppendUint32(bytes.Clone(p.unmerged), 6) })
		}, ErrInvalidTree},
		{"unmerged leaf that is elsewhere", func(tree *ratchetTree) {
			parent(tree, 3, func(p *parentFields) { p.unmerged = wire.AppendUint32(nil, 5) })
		}, ErrInvalidTree},
		{"unmerged leaf that a node between doesn't have", func(tree *ratchetTree) {
			parent(tree, 7, func(p *parentFields) { p.unmerged = wire.AppendUint32(nil, 1) })
		}, ErrInvalidTree},
		{"unmerged leaf left out", func(tree *ratchetTree) {
			parent(tree, 7, func(p *parentFields) { p.unmerged = nil })
		}, ErrInvalidTree},
		{"capabilities", func(tree *ratchetTree) { leaf(tree, 5, func(f *leafFields) { f.credentials = nil }) }, ErrCapabilities},
		{"credential type of another leaf", func(tree *ratchetTree) {
			leaf(tree, 5, func(f *leafFields) {
				f.credential, f.credentials = Credential{Type: CredentialX509}, wire.Uint16s{0, 1, 0, 2}
			})
		}, ErrCapabilities},
		{"extension not listed", func(tree *ratchetTree) {
			leaf(tree, 5, func(f *leafFields) { f.extensions = appendExtensions(nil, []Extension{{0xff05, nil}}) })
		}, ErrExtensionNotListed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer func(id []byte) { groupID = id }(groupID)
			changed := decodeTree(t, tree.append(nil), tree.suite)
			tc.change(changed)
			changed = decodeTree(t, changed.append(nil), tree.suite)
			if err := changed.validate(groupID, q); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// The encoding of a tree has its own rules (§12.4.3.3).
func TestTreeEncodingRules(t *testing.T) {
	leaf := newKeyPackage(t, newClient(t, testSuite, "a")).public.leaf.raw
	optional := func(kind byte, raw []byte) []byte { return append([]byte{1, kind}, raw...) }
	node := func(unmerged ...uint32) []byte {
		p := parentFields{encryptionKey: make([]byte, 32)}
		for _, l := range unmerged {
			p.unmerged = wire.AppendUint32(p.unmerged, l)
		}
		return p.append(nil)
	}
	for _, tc := range []struct {
		name  string
		nodes [][]byte
		good  bool
	}{
		{"one leaf", [][]byte{optional(nodeLeaf, leaf)}, true},
		{"two leaves", [][]byte{optional(nodeLeaf, leaf), {0}, optional(nodeLeaf, leaf)}, true},
		{"parent", [][]byte{optional(nodeLeaf, leaf), optional(nodeParent, node(0, 1)), optional(nodeLeaf, leaf)}, true},
		{"nothing", nil, false},
		{"blank at the end", [][]byte{optional(nodeLeaf, leaf), {0}}, false},
		{"parent in a leaf's place", [][]byte{optional(nodeParent, node())}, false},
		{"leaf in a parent's place", [][]byte{optional(nodeLeaf, leaf), optional(nodeLeaf, leaf), optional(nodeLeaf, leaf)}, false},
		{"node of another type", [][]byte{optional(3, leaf)}, false},
		{"presence", [][]byte{append([]byte{2, nodeLeaf}, leaf...)}, false},
		{"unmerged leaf twice", [][]byte{optional(nodeLeaf, leaf), optional(nodeParent, node(1, 1)), optional(nodeLeaf, leaf)}, false},
		{"unmerged leaves descend", [][]byte{optional(nodeLeaf, leaf), optional(nodeParent, node(1, 0)), optional(nodeLeaf, leaf)}, false},
	} {
		b := wire.AppendOpaque(nil, slices.Concat(tc.nodes...))
		r := wire.NewReader(b)
		tree := readRatchetTree(r, nil)
		if err := r.Done(); (err == nil) != tc.good {
			t.Errorf("%s: %v", tc.name, err)
		}
		if tc.good && !bytes.Equal(tree.append(nil), b) {
			t.Errorf("%s: encoded anew as %x", tc.name, tree.append(nil))
		}
	}
}

// A tree that has gone through many changes is the same as one that is decoded
// from its bytes: hashes, places of leaves, keys and credentials. What it was cloned
// from stays as it was.
func TestTreeCaches(t *testing.T) {
	s, err := lookupSuite(testSuite, nil)
	if err != nil {
		t.Fatal(err)
	}
	serial := byte(0)
	rapid.Check(t, func(rt *rapid.T) {
		newLeaf := func() LeafNode {
			serial++
			f := leafFields{
				encryptionKey: bytes.Repeat([]byte{serial}, 32), signatureKey: append(bytes.Repeat([]byte{serial}, 31), 1),
				credential: Credential{CredentialType(1 + 2*(serial%2)), []byte{serial}}, source: LeafNodeFromUpdate,
				extensions: []byte{0}, signature: []byte("sig"),
			}
			return LeafNode{f.append(nil)}
		}
		tree := newTree(s)
		tree.addLeaf(newLeaf())
		for range rapid.IntRange(1, 30).Draw(rt, "changes") {
			old := tree
			encoded, hash := old.append(nil), bytes.Clone(old.rootHash())
			tree = old.clone()
			for range rapid.IntRange(1, 4).Draw(rt, "at once") {
				var members []LeafIndex
				for i := range tree.leaves() {
					members = append(members, i)
				}
				at := rapid.SampledFrom(members).Draw(rt, "leaf")
				switch rapid.IntRange(0, 4).Draw(rt, "change") {
				case 0, 1:
					tree.addLeaf(newLeaf())
				case 2:
					if len(members) > 1 {
						tree.removeLeaf(at)
						tree.truncate()
					}
				case 3:
					tree.updateLeaf(at, newLeaf())
				case 4:
					nodes := tree.filteredPath(at)
					keys := make([]updatePathNode, len(nodes))
					for i := range keys {
						serial++
						keys[i].encryptionKey = append(bytes.Repeat([]byte{serial}, 31), 2)
					}
					tree.mergePath(at, nodes, keys)
				}
			}
			if !bytes.Equal(old.append(nil), encoded) || !bytes.Equal(old.rootHash(), hash) {
				rt.Fatal("the tree that was cloned has changed")
			}
			fresh := decodeTree(t, tree.append(nil), s)
			if fresh.size != tree.size || fresh.lastLeaf != tree.lastLeaf || fresh.nextBlank != tree.nextBlank {
				rt.Fatalf("size %d, last leaf %d, next blank %d; decoded: %d, %d, %d", tree.size, tree.lastLeaf, tree.nextBlank,
					fresh.size, fresh.lastLeaf, fresh.nextBlank)
			}
			for x := range nodeIndex(tree.size.NodeWidth()) {
				if !bytes.Equal(tree.treeHash(x), fresh.treeHash(x)) {
					rt.Fatalf("hash of node %d", x)
				}
				if tree.node(x) == nil {
					continue
				}
				if y, ok := tree.findKey(encryptionKeys, fresh.encryptionKey(x)); !ok || !bytes.Equal(tree.encryptionKey(y), fresh.encryptionKey(x)) {
					rt.Fatalf("key of node %d is found at %d, %v", x, y, ok)
				}
			}
			for _, raw := range [][]byte{bytes.Repeat([]byte{0}, 32), []byte("short")} {
				if x, ok := tree.findKey(signatureKeys, raw); ok {
					rt.Fatalf("a key that nobody has is found at %d", x)
				}
			}
			counts := func(t *ratchetTree) string {
				list := slices.Clone(t.credentials)
				slices.SortFunc(list, func(a, b credentialCount) int { return int(a.kind) - int(b.kind) })
				return fmt.Sprint(list)
			}
			if counts(tree) != counts(fresh) {
				rt.Fatalf("credentials %s, decoded %s", counts(tree), counts(fresh))
			}
			if rapid.Bool().Draw(rt, "keep") {
				tree.settle()
			} else {
				tree = old
			}
		}
	})
}

// FuzzRatchetTree: what decodes is encoded the same, and checking it doesn't panic.
func FuzzRatchetTree(f *testing.F) {
	team := newTeam(f, testSuite, 3, Config{})
	f.Add(team[0].group.RatchetTree())
	tell(team, team[2], team[2].commit(CommitOptions{}))
	f.Add(team[0].group.RatchetTree())
	s, q := team[0].group.current.suite, team[0].group.current.requires
	f.Fuzz(func(t *testing.T, in []byte) {
		r := wire.NewReader(in)
		var tree *ratchetTree
		checkAllocation(t, in, func() { tree = readRatchetTree(r, s) })
		if r.Done() != nil {
			return
		}
		if out := tree.append(nil); !bytes.Equal(out, in) {
			t.Errorf("%x encoded anew is %x", in, out)
		}
		if tree.size > 1<<12 {
			return
		}
		_ = tree.validate([]byte("group"), q)
		tree.verifyParentHashes()
	})
}
