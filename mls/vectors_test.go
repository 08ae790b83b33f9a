package mls

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/treemath"
	"github.com/go-xmtp/go-xmtp/mls/internal/vectortest"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// hexBytes is a byte string of a vector file; nil stands for null.
type hexBytes = vectortest.Hex

// TestWorkingGroupVectors runs the working group's test vectors, one subtest for
// each file. The race detector makes the NIST curves many times slower and has
// nothing to find here: internal/task runs it without.
// With -v it prints how many cases of each suite ran; none is left out.
func TestWorkingGroupVectors(t *testing.T) {
	files := map[string]func(*testing.T, *tally){
		"crypto-basics":      vectorsCryptoBasics,
		"deserialization":    vectorsDeserialization,
		"key-schedule":       vectorsKeySchedule,
		"message-protection": vectorsMessageProtection,
		"messages":           vectorsMessages,
		"psk_secret":         vectorsPSKSecret,
		"secret-tree":        vectorsSecretTree,
		"transcript-hashes":  vectorsTranscriptHashes,
		"tree-math":          vectorsTreeMath,
		"tree-operations":    vectorsTreeOperations,
		"tree-validation":    vectorsTreeValidation,
		"treekem":            vectorsTreeKEM,
		"welcome":            vectorsWelcome,

		"passive-client-welcome":         vectorsPassiveClient("passive-client-welcome.json"),
		"passive-client-handling-commit": vectorsPassiveClient("passive-client-handling-commit.json"),
		"passive-client-random":          vectorsPassiveClient("passive-client-random.json"),
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		t.Run(name, func(t *testing.T) {
			tally := tally{run: map[int]int{}, missing: map[int]int{}}
			files[name](t, &tally)
			tally.print(t)
		})
	}
}

// tally counts the cases of a file.
type tally struct {
	run     map[int]int // by suite, 0 for files without
	missing map[int]int
}

// suite finds the implementation of a case's suite and counts the case.
func (c *tally) suite(id int) (*suite.Suite, bool) {
	s, err := lookupSuite(CipherSuite(id), moreSuites)
	if err != nil {
		c.missing[id]++
		return nil, false
	}
	c.run[id]++
	return s, true
}

func (c *tally) print(t *testing.T) {
	t.Helper()
	var line []string
	for _, id := range slices.Sorted(maps.Keys(c.run)) {
		if id == 0 {
			line = append(line, fmt.Sprintf("%d cases run", c.run[id]))
		} else {
			line = append(line, fmt.Sprintf("suite %d: %d run", id, c.run[id]))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.missing)) {
		t.Errorf("suite %d is not there for %d cases", id, c.missing[id])
	}
	t.Log(strings.Join(line, "; "))
	if len(c.run) == 0 {
		t.Error("no case was run")
	}
}

func vectorsDeserialization(t *testing.T, c *tally) {
	type vector struct {
		Header hexBytes `json:"vlbytes_header"`
		Length int      `json:"length"`
	}
	for i, v := range vectortest.Load[vector](t, "deserialization.json") {
		c.run[0]++
		r := wire.NewReader(v.Header)
		if n := r.Varint(); n != v.Length || r.Done() != nil {
			t.Errorf("%d: %x is %d (%v), want %d", i, v.Header, n, r.Err(), v.Length)
		}
		if b := wire.AppendVarint(nil, v.Length); !bytes.Equal(b, v.Header) {
			t.Errorf("%d: %d is %x, want %x", i, v.Length, b, v.Header)
		}
	}
}

func vectorsMessages(t *testing.T, c *tally) {
	type vector struct {
		Welcome      hexBytes `json:"mls_welcome"`
		GroupInfo    hexBytes `json:"mls_group_info"`
		KeyPackage   hexBytes `json:"mls_key_package"`
		Tree         hexBytes `json:"ratchet_tree"`
		GroupSecrets hexBytes `json:"group_secrets"`

		Add          hexBytes `json:"add_proposal"`
		Update       hexBytes `json:"update_proposal"`
		Remove       hexBytes `json:"remove_proposal"`
		PSK          hexBytes `json:"pre_shared_key_proposal"`
		ReInit       hexBytes `json:"re_init_proposal"`
		ExternalInit hexBytes `json:"external_init_proposal"`
		Extensions   hexBytes `json:"group_context_extensions_proposal"`

		Commit      hexBytes `json:"commit"`
		Application hexBytes `json:"public_message_application"`
		Proposal    hexBytes `json:"public_message_proposal"`
		CommitMsg   hexBytes `json:"public_message_commit"`
		Private     hexBytes `json:"private_message"`
	}
	message := func(want WireFormat, content ContentType) func(*wire.Reader) []byte {
		return func(r *wire.Reader) []byte {
			m := readMessage(r)
			if r.Err() != nil {
				return nil
			}
			if m.format != want {
				r.Fail(fmt.Errorf("wire format %d, want %d", m.format, want))
				return nil
			}
			if h, _ := m.Header(); content != 0 && h.ContentType != content {
				r.Fail(fmt.Errorf("content type %d, want %d", h.ContentType, content))
				return nil
			}
			return m.append(nil)
		}
	}
	proposal := func(p ProposalType) func(*wire.Reader) []byte {
		return func(r *wire.Reader) []byte {
			v := readProposalBody(r, p)
			if r.Err() != nil {
				return nil
			}
			return v.appendBody(nil)
		}
	}
	for i, v := range vectortest.Load[vector](t, "messages.json") {
		c.run[0]++
		for _, tc := range []struct {
			name   string
			bytes  []byte
			recode func(r *wire.Reader) []byte
		}{
			{"mls_welcome", v.Welcome, message(WireFormatWelcome, 0)},
			{"mls_group_info", v.GroupInfo, message(WireFormatGroupInfo, 0)},
			{"mls_key_package", v.KeyPackage, message(WireFormatKeyPackage, 0)},
			{"ratchet_tree", v.Tree, func(r *wire.Reader) []byte { return readRatchetTree(r, nil).append(nil) }},
			{"group_secrets", v.GroupSecrets, func(r *wire.Reader) []byte { return readGroupSecrets(r).append(nil) }},
			{"add_proposal", v.Add, proposal(ProposalAdd)},
			{"update_proposal", v.Update, proposal(ProposalUpdate)},
			{"remove_proposal", v.Remove, proposal(ProposalRemove)},
			{"pre_shared_key_proposal", v.PSK, proposal(ProposalPreSharedKey)},
			{"re_init_proposal", v.ReInit, proposal(ProposalReInit)},
			{"external_init_proposal", v.ExternalInit, proposal(ProposalExternalInit)},
			{"group_context_extensions_proposal", v.Extensions, proposal(ProposalGroupContextExtensions)},
			{"commit", v.Commit, func(r *wire.Reader) []byte { return readCommit(r).append(nil) }},
			{"public_message_application", v.Application, message(WireFormatPublicMessage, ContentTypeApplication)},
			{"public_message_proposal", v.Proposal, message(WireFormatPublicMessage, ContentTypeProposal)},
			{"public_message_commit", v.CommitMsg, message(WireFormatPublicMessage, ContentTypeCommit)},
			{"private_message", v.Private, message(WireFormatPrivateMessage, 0)},
		} {
			r := wire.NewReader(tc.bytes)
			out := tc.recode(r)
			if err := r.Done(); err != nil {
				t.Errorf("%d: %s: %v", i, tc.name, err)
			} else if !bytes.Equal(out, tc.bytes) {
				t.Errorf("%d: %s:\n got %x\nwant %x", i, tc.name, out, []byte(tc.bytes))
			}
		}
		kp, err := UnmarshalKeyPackage(v.KeyPackage[4:], moreSuites...)
		if err != nil {
			t.Errorf("%d: key package: %v", i, err)
			continue
		}
		if b := wire.AppendOpaque(kp.appendUnsigned(nil), kp.signature); !bytes.Equal(b, v.KeyPackage[4:]) {
			t.Errorf("%d: key package encoded anew: %x, want %x", i, b, v.KeyPackage[4:])
		}
		f := kp.leaf.fields()
		if b := f.append(nil); !bytes.Equal(b, kp.leaf.raw) {
			t.Errorf("%d: leaf node encoded anew: %x, want %x", i, b, kp.leaf.raw)
		}
	}
}

func decodeTree(t *testing.T, b []byte, s *suite.Suite) *ratchetTree {
	t.Helper()
	r := wire.NewReader(b)
	tree := readRatchetTree(r, s)
	if err := r.Done(); err != nil {
		t.Fatal(err)
	}
	return tree
}

func equal(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s is %x, want %x", what, got, want)
	}
}

func vectorsTreeOperations(t *testing.T, c *tally) {
	type vector struct {
		Suite      int       `json:"cipher_suite"`
		Proposal   hexBytes  `json:"proposal"`
		Sender     LeafIndex `json:"proposal_sender"`
		Before     hexBytes  `json:"tree_before"`
		HashBefore hexBytes  `json:"tree_hash_before"`
		After      hexBytes  `json:"tree_after"`
		HashAfter  hexBytes  `json:"tree_hash_after"`
	}
	for i, v := range vectortest.Load[vector](t, "tree-operations.json") {
		s, ok := c.suite(v.Suite)
		if !ok {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			before := decodeTree(t, v.Before, s)
			equal(t, "tree hash before", before.rootHash(), v.HashBefore)
			r := wire.NewReader(v.Proposal)
			p := readProposal(r)
			if err := r.Done(); err != nil {
				t.Fatal(err)
			}
			after := before.clone()
			switch p := p.(type) {
			case Add:
				after.addLeaf(p.KeyPackage.leaf)
			case Update:
				after.updateLeaf(v.Sender, p.LeafNode)
			case Remove:
				after.removeLeaf(p.Leaf)
				after.truncate()
			default:
				t.Fatalf("%T", p)
			}
			equal(t, "tree after", after.append(nil), v.After)
			equal(t, "tree hash after", after.rootHash(), v.HashAfter)
			equal(t, "tree that was cloned", before.append(nil), v.Before)
			equal(t, "its hash", before.rootHash(), v.HashBefore)
		})
	}
}

func vectorsTreeValidation(t *testing.T, c *tally) {
	type vector struct {
		Suite       int           `json:"cipher_suite"`
		Tree        hexBytes      `json:"tree"`
		GroupID     hexBytes      `json:"group_id"`
		Hashes      []hexBytes    `json:"tree_hashes"`
		Resolutions [][]nodeIndex `json:"resolutions"`
	}
	for i, v := range vectortest.Load[vector](t, "tree-validation.json") {
		s, ok := c.suite(v.Suite)
		if !ok {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			tree := decodeTree(t, v.Tree, s)
			if n := int(tree.size.NodeWidth()); n != len(v.Hashes) || n != len(v.Resolutions) {
				t.Fatalf("%d nodes, want %d", n, len(v.Hashes))
			}
			for x := range nodeIndex(tree.size.NodeWidth()) {
				equal(t, fmt.Sprint("tree hash of node ", x), tree.treeHash(x), v.Hashes[x])
				if got := tree.resolution(nil, x); !slices.Equal(got, v.Resolutions[x]) {
					t.Errorf("resolution of node %d is %v, want %v", x, got, v.Resolutions[x])
				}
				if tree.empty(x) != (len(v.Resolutions[x]) == 0) {
					t.Errorf("node %d: empty is %v", x, tree.empty(x))
				}
			}
			q, err := newRequirements(CipherSuite(v.Suite), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := tree.validate(v.GroupID, q); err != nil {
				t.Error(err)
			}
			equal(t, "tree", tree.append(nil), v.Tree)
		})
	}
}

func vectorsTreeKEM(t *testing.T, c *tally) {
	type vector struct {
		Suite         int      `json:"cipher_suite"`
		ConfirmedHash hexBytes `json:"confirmed_transcript_hash"`
		Epoch         uint64   `json:"epoch"`
		GroupID       hexBytes `json:"group_id"`
		Tree          hexBytes `json:"ratchet_tree"`
		Leaves        []struct {
			Encryption  hexBytes `json:"encryption_priv"`
			Index       LeafIndex
			PathSecrets []struct {
				Node   nodeIndex
				Secret hexBytes `json:"path_secret"`
			} `json:"path_secrets"`
			Signature hexBytes `json:"signature_priv"`
		} `json:"leaves_private"`
		Paths []struct {
			CommitSecret hexBytes   `json:"commit_secret"`
			PathSecrets  []hexBytes `json:"path_secrets"`
			Sender       LeafIndex
			HashAfter    hexBytes `json:"tree_hash_after"`
			Path         hexBytes `json:"update_path"`
		} `json:"update_paths"`
	}
	for i, v := range vectortest.Load[vector](t, "treekem.json") {
		s, ok := c.suite(v.Suite)
		if !ok {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			tree := decodeTree(t, v.Tree, s)
			public := func(private []byte) []byte {
				b, err := s.HPKE().KEM().PublicKey(private)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			keys := map[LeafIndex]privateKeys{}
			signers := map[LeafIndex]Signer{}
			for _, l := range v.Leaves {
				k := privateKeys{l.Index.Node(): suite.Secret(l.Encryption)}
				equal(t, fmt.Sprint("key of leaf ", l.Index), public(l.Encryption), tree.encryptionKey(l.Index.Node()))
				for _, p := range l.PathSecrets {
					pair, err := deriveNodeKey(s, suite.Secret(p.Secret))
					if err != nil {
						t.Fatal(err)
					}
					equal(t, fmt.Sprint("key of node ", p.Node), pair.Public, tree.encryptionKey(p.Node))
					k[p.Node] = pair.Private
				}
				keys[l.Index] = k
				signer, err := s.Signature().NewSigner(l.Signature)
				if err != nil {
					t.Fatal(err)
				}
				leaf, _ := tree.leaf(l.Index)
				equal(t, fmt.Sprint("signature key of leaf ", l.Index), signer.Public(), leaf.signatureKey())
				signers[l.Index] = signer
			}
			context := func(hash []byte) []byte {
				c := groupContext{version: MLS10, suite: CipherSuite(v.Suite), groupID: v.GroupID, epoch: v.Epoch,
					treeHash: hash, confirmedTranscriptHash: v.ConfirmedHash}
				return c.append(nil)
			}
			for _, u := range v.Paths {
				r := wire.NewReader(u.Path)
				path := readUpdatePath(r)
				if err := r.Done(); err != nil {
					t.Fatal(err)
				}
				after := tree.clone()
				nodes, err := after.applyPath(u.Sender, path, nil)
				if err != nil {
					t.Fatalf("path of leaf %d: %v", u.Sender, err)
				}
				equal(t, "tree hash after", after.rootHash(), u.HashAfter)
				for own, k := range keys {
					if own == u.Sender {
						continue
					}
					k = maps.Clone(k)
					secret, at, err := after.openPath(own, k, nodes, path, nil, context(u.HashAfter))
					if err != nil {
						t.Fatalf("leaf %d, path of leaf %d: %v", own, u.Sender, err)
					}
					equal(t, "path secret", secret, u.PathSecrets[own])
					if at < 0 || nodes[at].node != treemath.CommonAncestor(own.Node(), u.Sender.Node()) {
						t.Errorf("leaf %d opens node %d of leaf %d", own, nodes[at].node, u.Sender)
					}
					secret, err = after.decryptPath(own, k, nodes, path, nil, context(u.HashAfter))
					if err != nil {
						t.Fatalf("leaf %d, path of leaf %d: %v", own, u.Sender, err)
					}
					equal(t, "commit secret", secret, u.CommitSecret)
				}

				own := tree.clone()
				leaf, _ := own.leaf(u.Sender)
				made, err := own.createPath(u.Sender, leaf.fields(), signers[u.Sender], v.GroupID)
				if err != nil {
					t.Fatal(err)
				}
				if err := made.encrypt(own, nil, context(own.rootHash())); err != nil {
					t.Fatal(err)
				}
				r = wire.NewReader(made.path.append(nil))
				path = readUpdatePath(r)
				if err := r.Done(); err != nil {
					t.Fatal(err)
				}
				theirs := tree.clone()
				nodes, err = theirs.applyPath(u.Sender, path, nil)
				if err != nil {
					t.Fatalf("own path of leaf %d: %v", u.Sender, err)
				}
				equal(t, "tree hash of own path", theirs.rootHash(), own.rootHash())
				for leaf, k := range keys {
					if leaf == u.Sender {
						continue
					}
					secret, err := theirs.decryptPath(leaf, maps.Clone(k), nodes, path, nil, context(own.rootHash()))
					if err != nil {
						t.Fatalf("leaf %d, own path of leaf %d: %v", leaf, u.Sender, err)
					}
					equal(t, "commit secret of own path", secret, made.commitSecret)
				}
				if q, err := newRequirements(CipherSuite(v.Suite), nil); err != nil {
					t.Fatal(err)
				} else if err := own.validate(v.GroupID, q); err != nil {
					t.Errorf("tree after own path of leaf %d: %v", u.Sender, err)
				}
				equal(t, "tree before", tree.append(nil), v.Tree)
			}
		})
	}
}
