package mls

import (
	"bytes"
	"crypto/rand"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/schedule"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
)

// Group is a member's view of a group (§3.2). Every call that changes it returns a
// [Pending] with the records to store, and [Load] makes the group from all of its
// records again. A Group must be used by one goroutine at a time.
type Group struct {
	publicState
	signers   []Signer
	past      []*pastEpoch            // newest first
	updates   map[string]suite.Secret // private keys of our Updates, by public key
	ownCommit *transition             // made by us, not merged yet
}

// New creates a group of one member, c, in epoch 0 (§11). extensions are those of
// the group context. It returns [ErrUnsupportedCipherSuite], [ErrDuplicateExtension],
// [ErrExtensionNotListed] or [ErrCapabilities].
func New(groupID []byte, c Client, extensions []Extension, config Config) (*Pending[*Group], error) {
	g, err := create(groupID, c, extensions, config)
	if err != nil {
		return nil, fmt.Errorf("mls: new group: %w", err)
	}
	return newPending(&g.publicState, g, g.records, nil, nil), nil
}

func create(groupID []byte, c Client, extensions []Extension, config Config) (*Group, error) {
	s, err := lookupSuite(c.CipherSuite, config.Suites)
	if err != nil {
		return nil, err
	}
	if err := checkExtensionsUnique(extensions); err != nil {
		return nil, err
	}
	extensions = cloneExtensions(extensions)
	q, err := newRequirements(c.CipherSuite, extensions)
	if err != nil {
		return nil, err
	}
	pair, err := s.GenerateKeyPair()
	if err != nil {
		return nil, err
	}
	// The creator's leaf is as from a key package (§11), without limits in time.
	f := c.leaf()
	f.encryptionKey = pair.Public
	f.source = LeafNodeFromKeyPackage
	f.lifetime = Lifetime{0, 1<<64 - 1}
	leaf, err := f.sign(c.Signer, nil, 0)
	if err != nil {
		return nil, err
	}
	f = leaf.fields()
	if err := q.check(&f); err != nil {
		return nil, err
	}
	if err := q.checkProtocol(&f); err != nil {
		return nil, err
	}
	tree := newTree(s)
	tree.addLeaf(leaf)
	context := &groupContext{
		version: MLS10, suite: c.CipherSuite, groupID: bytes.Clone(groupID),
		treeHash: bytes.Clone(tree.rootHash()), extensions: extensions,
	}
	context.raw = context.append(nil)
	e := &epoch{
		suite: s, context: context, requires: q, tree: tree,
		keys: privateKeys{0: pair.Private},
	}
	secret := make(suite.Secret, s.HashSize())
	rand.Read(secret)
	defer secret.Wipe()
	e.derive(secret, config.ratchetWindow())
	e.confirm()
	return newGroup(e, config, c.Signer), nil
}

func newGroup(e *epoch, config Config, signers ...Signer) *Group {
	return &Group{
		publicState: publicState{config: config, current: e},
		signers:     signers, updates: make(map[string]suite.Secret),
	}
}

// Active tells whether we are a member: false after our removal (§12.3).
func (g *Group) Active() bool { return !g.inactive }

// OwnLeaf is our own place in the tree (§4).
func (g *Group) OwnLeaf() LeafIndex { return g.current.own }

// EpochAuthenticator is a secret that two members can compare to make sure that
// they are in the same epoch of the same group (§8.7).
func (g *Group) EpochAuthenticator() []byte { return bytes.Clone(g.current.secrets.Authenticator) }

// Export derives a secret of length bytes for the application from the epoch
// (§8.5). It fails after our removal, or if length is above 255 times the size of
// the suite's hash.
func (g *Group) Export(label string, context []byte, length int) ([]byte, error) {
	if g.inactive {
		return nil, fmt.Errorf("mls: export: %w", ErrInactive)
	}
	secret, err := schedule.Export(g.current.suite, g.current.secrets.Exporter, label, context, length)
	if err != nil {
		return nil, fmt.Errorf("mls: export: %w", err)
	}
	return secret, nil
}

// signer is the private key that belongs to our leaf.
func (g *Group) signer() (Signer, error) {
	leaf, _ := g.leaf(g.current.own)
	return g.signerOf(leaf)
}

func (g *Group) signerOf(leaf LeafNode) (Signer, error) {
	key := leaf.signatureKey()
	for _, s := range g.signers {
		if bytes.Equal(s.Public(), key) {
			return s, nil
		}
	}
	return nil, ErrSigner
}

// begin checks that a changing call may start.
func (g *Group) begin() error {
	switch {
	case g.pending:
		return ErrPending
	case g.inactive:
		return ErrInactive
	case g.current.reinit != nil:
		return ErrReInit
	}
	return nil
}

// Format implements [fmt.Formatter] and shows no secret.
func (g *Group) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "group %x in epoch %d", g.current.context.groupID, g.current.context.epoch)
}
