package mls

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/schedule"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Joined is a group that a Welcome let us into (§12.4.3.1).
type Joined struct {
	Group *Group

	// Sender is the member who made the Welcome.
	Sender LeafIndex

	// Extensions are those of the GroupInfo, without the ratchet tree and the key for
	// external commits.
	Extensions []Extension
}

// NewMembers are the references ([KeyPackage.Ref]) of the key packages that a
// Welcome is for (§12.4.3.1); nil if the message is no Welcome.
func (m *Message) NewMembers() [][]byte {
	if m.welcome == nil {
		return nil
	}
	refs := make([][]byte, len(m.welcome.secrets))
	for i, s := range m.welcome.secrets {
		refs[i] = bytes.Clone(s.newMember)
	}
	return refs
}

// Join joins a group by a Welcome, an encoded MLSMessage, for a key package of our
// own (§12.4.3.1). ratchetTree is used if the Welcome has no tree inside, else it
// may be nil. The whole group is checked; what it is can be seen in the result
// before Done. The private keys of a key package that isn't a last resort are to be
// deleted when the records are stored; Join leaves them alone. So is it up to the
// caller to refuse a group that it is in already.
//
// It returns [ErrNotForUs], [ErrNoRatchetTree], [ErrPreSharedKey], or what is wrong
// with the Welcome or the group.
func Join(welcome []byte, keyPackage *PrivateKeyPackage, signer Signer, ratchetTree []byte, config Config) (*Pending[*Joined], error) {
	j, err := join(welcome, keyPackage, signer, ratchetTree, config)
	if err != nil {
		return nil, fmt.Errorf("mls: join: %w", err)
	}
	return newPending(&j.Group.publicState, j, j.Group.records, nil, nil), nil
}

func join(message []byte, kp *PrivateKeyPackage, signer Signer, ratchetTree []byte, config Config) (*Joined, error) {
	r := wire.NewReader(message)
	m := readMessage(r)
	if err := r.Done(); err != nil {
		return nil, malformed("Welcome", err)
	}
	w := m.welcome
	if w == nil {
		return nil, fmt.Errorf("%w: %d", ErrWireFormat, m.format)
	}
	if !bytes.Equal(signer.Public(), kp.public.leaf.signatureKey()) {
		return nil, ErrSigner
	}
	s, err := lookupSuite(w.suite, config.Suites)
	if err != nil {
		return nil, err
	}
	if w.suite != kp.public.suite {
		return nil, fmt.Errorf("%w: Welcome has %d, key package %d", ErrUnsupportedCipherSuite, w.suite, kp.public.suite)
	}
	secrets, err := w.open(s, kp)
	if err != nil {
		return nil, err
	}
	defer secrets.wipe()
	if err := config.checkPSKs(s, secrets.psks); err != nil {
		return nil, err
	}
	pskSecret, err := foldPSKs(s, secrets.psks, config.preSharedKey)
	if err != nil {
		return nil, err
	}
	defer pskSecret.Wipe()
	member := schedule.MemberSecret(s, secrets.joinerSecret, pskSecret)
	defer member.Wipe()
	info, err := w.groupInfo(s, member)
	if err != nil {
		return nil, err
	}
	e, err := info.check(s, ratchetTree)
	if err != nil {
		return nil, err
	}
	if err := config.predecessor.check(secrets.psks, e); err != nil {
		return nil, err
	}
	if err := e.enter(info, kp, secrets); err != nil {
		return nil, err
	}
	if err := config.authenticate(everybody(e.tree)); err != nil {
		return nil, err
	}
	epochSecret := schedule.EpochSecret(s, member, e.context.raw)
	defer epochSecret.Wipe()
	e.derive(epochSecret, config.ratchetWindow())
	if err := e.verifyTag(info.confirmationTag); err != nil {
		e.wipe(nil)
		return nil, err
	}
	return &Joined{Group: newGroup(e, config, signer), Sender: info.signer, Extensions: info.others()}, nil
}

// others are the extensions of a GroupInfo that the application may know.
func (info *groupInfo) others() []Extension {
	var list []Extension
	for _, ext := range info.extensions {
		if ext.Type != ExtensionRatchetTree && ext.Type != ExtensionExternalPub {
			list = append(list, Extension{ext.Type, bytes.Clone(ext.Data)})
		}
	}
	return list
}

func (s *groupSecrets) wipe() {
	clear(s.joinerSecret)
	clear(s.pathSecret)
}

// open decrypts the group secrets for a key package.
func (w *welcome) open(s *suite.Suite, kp *PrivateKeyPackage) (*groupSecrets, error) {
	ref := s.RefHash("MLS 1.0 KeyPackage Reference", kp.public.raw)
	i := slices.IndexFunc(w.secrets, func(e encryptedGroupSecrets) bool { return bytes.Equal(e.newMember, ref) })
	if i < 0 {
		return nil, ErrNotForUs
	}
	pair := hpke.KeyPair{Private: kp.initKey, Public: kp.public.initKey}
	plain, err := s.DecryptWithLabel(pair, "Welcome", w.encryptedGroupInfo, w.secrets[i].kemOutput, w.secrets[i].ciphertext)
	if err != nil {
		return nil, fmt.Errorf("%w: group secrets", ErrDecrypt)
	}
	r := wire.NewReader(plain)
	secrets := readGroupSecrets(r)
	if err := r.Done(); err != nil {
		plain.Wipe()
		return nil, malformed("GroupSecrets", err)
	}
	return secrets, nil
}

// groupInfo decrypts the GroupInfo.
func (w *welcome) groupInfo(s *suite.Suite, member suite.Secret) (*groupInfo, error) {
	key := schedule.WelcomeKey(s, member)
	defer key.Wipe()
	plain, err := s.Open(&key, nil, nil, w.encryptedGroupInfo)
	if err != nil {
		return nil, fmt.Errorf("%w: group info", ErrDecrypt)
	}
	r := wire.NewReader(plain)
	info := readGroupInfo(r)
	if err := r.Done(); err != nil {
		return nil, malformed("GroupInfo", err)
	}
	if info.context.suite != w.suite {
		return nil, fmt.Errorf("%w: GroupInfo has %d, Welcome %d", ErrUnsupportedCipherSuite, info.context.suite, w.suite)
	}
	return info, nil
}

// check verifies the group as one who joins does (§12.4.3.1), and makes its epoch
// without what only members have.
func (info *groupInfo) check(s *suite.Suite, ratchetTree []byte) (*epoch, error) {
	if info.context.version != MLS10 {
		return nil, fmt.Errorf("%w: %d", ErrUnsupportedVersion, info.context.version)
	}
	for _, exts := range [][]Extension{info.extensions, info.context.extensions} {
		if err := checkExtensionsUnique(exts); err != nil {
			return nil, err
		}
	}
	tree, err := info.tree(s, ratchetTree)
	if err != nil {
		return nil, err
	}
	signer, ok := tree.leaf(info.signer)
	if !ok {
		return nil, fmt.Errorf("%w: GroupInfo of the blank leaf %d", ErrSender, info.signer)
	}
	if !s.VerifyWithLabel(signer.signatureKey(), "GroupInfoTBS", info.signature, info.unsigned) {
		return nil, fmt.Errorf("%w: GroupInfo", ErrSignature)
	}
	if !bytes.Equal(tree.rootHash(), info.context.treeHash) {
		return nil, fmt.Errorf("%w: tree hash", ErrInvalidTree)
	}
	// What stays must not keep the whole Welcome in memory.
	context := readGroupContext(wire.NewReader(bytes.Clone(info.context.raw)))
	q, err := newRequirements(context.suite, context.extensions)
	if err != nil {
		return nil, err
	}
	if err := tree.validate(context.groupID, q); err != nil {
		return nil, err
	}
	return &epoch{suite: s, context: context, requires: q, tree: tree, own: noLeaf}, nil
}

// enter finds our leaf and the private keys that we have from a Welcome.
func (e *epoch) enter(info *groupInfo, kp *PrivateKeyPackage, secrets *groupSecrets) error {
	x, ok := e.tree.findKey(signatureKeys, kp.public.leaf.signatureKey())
	if !ok || !bytes.Equal(e.tree.node(x), kp.public.leaf.raw) {
		return fmt.Errorf("%w: our leaf is not in the tree", ErrInvalidTree)
	}
	e.own = x.Leaf()
	e.keys = privateKeys{x: slices.Clone(kp.leafKey)}
	if secrets.pathSecret == nil {
		return nil
	}
	return e.tree.joinPath(e.own, info.signer, secrets.pathSecret, e.keys)
}

// tree is the ratchet tree of a GroupInfo, else the one that is given.
func (g *groupInfo) tree(s *suite.Suite, given []byte) (*ratchetTree, error) {
	data, ok := extensionData(g.extensions, ExtensionRatchetTree)
	if !ok {
		if given == nil {
			return nil, ErrNoRatchetTree
		}
		data = bytes.Clone(given)
	}
	r := wire.NewReader(data)
	tree := readRatchetTree(r, s)
	if err := r.Done(); err != nil {
		return nil, malformed("ratchet tree", err)
	}
	return tree, nil
}

func everybody(t *ratchetTree) []Candidate {
	var list []Candidate
	for i, leaf := range t.leaves() {
		list = append(list, Candidate{Member: Member{i, leaf}})
	}
	return list
}
