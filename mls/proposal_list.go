package mls

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
)

// listedProposal is a proposal in a commit.
type listedProposal struct {
	proposal Proposal
	sender   Sender
	ref      []byte // nil if by value
}

// leaf is the sender's leaf, noLeaf if it is no member.
func (p *listedProposal) leaf() LeafIndex {
	if i, ok := p.sender.Leaf(); ok {
		return i
	}
	return noLeaf
}

// outcome is what a list of proposals makes of an epoch (§12.3).
type outcome struct {
	tree       *ratchetTree
	extensions []Extension
	requires   *requirements

	before    map[LeafIndex]LeafNode // the leaves that change, as they were; blank ones too
	joined    []addition             // their leaves ascend
	ownUpdate *Update                // our Update, committed by somebody else
	removed   bool                   // we are removed
	psks      []PreSharedKeyID
	needsPath bool

	committer LeafIndex // noLeaf if there is no commit
	external  bool      // the committer joins by the commit
	replaced  LeafIndex // the earlier leaf of one who joins, noLeaf if there is none
	kemOutput []byte    // of the ExternalInit of one who joins
	reinit    *ReInit
	path      []pathNode // the nodes of the committer's path
}

type addition struct {
	leaf       LeafIndex
	keyPackage *KeyPackage
}

func (o *outcome) newcomers() []LeafIndex {
	leaves := make([]LeafIndex, len(o.joined))
	for i, a := range o.joined {
		leaves[i] = a.leaf
	}
	return leaves
}

// changing notes leaf i as it is before its first change.
func (o *outcome) changing(i LeafIndex) {
	if _, ok := o.before[i]; !ok {
		o.before[i], _ = o.tree.leaf(i)
	}
}

func invalidProposal(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalidProposals}, args...)...)
}

// apply checks a list of proposals and applies it to a copy of the tree (§12.2,
// §12.3), in the RFC's order: extensions, updates, removes, adds, PSKs, then the place
// of a committer who joins, and application data. The zero Sender is for a proposal that isn't
// committed yet.
func (e *epoch) apply(list []listedProposal, committer Sender, config *Config) (*outcome, error) {
	// Epochs are counted up one by one (§12), and are not to begin again.
	if committer.Type != 0 && e.context.epoch == math.MaxUint64 {
		return nil, fmt.Errorf("%w: none follows epoch %d", ErrWrongEpoch, e.context.epoch)
	}
	o := &outcome{
		tree: e.tree.clone(), extensions: e.context.extensions, requires: e.requires,
		before: make(map[LeafIndex]LeafNode), needsPath: len(list) == 0, committer: noLeaf, replaced: noLeaf,
		external: committer.Type == SenderNewMemberCommit,
	}
	if i, ok := committer.Leaf(); ok {
		o.committer = i
	}
	check := o.sort
	if o.external {
		check = o.sortExternal
	}
	if err := check(e, list, config); err != nil {
		return nil, err
	}
	steps := []func(*epoch, []listedProposal) error{
		o.applyExtensions, o.applyUpdates, o.applyRemoves, o.applyAdds,
	}
	for _, step := range steps {
		if err := step(e, list); err != nil {
			return nil, err
		}
	}
	if err := o.applyPSKs(e, list, config); err != nil {
		return nil, err
	}
	if o.external {
		o.committer = o.tree.place()
	}
	if err := o.applyAppData(e, list, config); err != nil {
		return nil, err
	}
	if err := o.checkLeaves(e); err != nil {
		return nil, err
	}
	return o, nil
}

// curable tells whether a proposal that err keeps from being valid by itself may be valid
// beside others (§12.2): as the Add of a client whose leaf another one removes, or a
// requirement that only a member doesn't meet who is to leave. We ourselves have to know
// its type in any case.
func (e *epoch) curable(p Proposal, err error) bool {
	switch {
	case errors.Is(err, ErrDuplicateKey), errors.Is(err, ErrCapabilities):
		return true
	case errors.Is(err, ErrUnsupportedProposal):
		own, ok := e.tree.leaf(e.own)
		if !ok {
			return true // a follower supports nothing and needs nothing
		}
		f := own.fields()
		return f.supportsProposal(p.ProposalType())
	}
	return false
}

// sort checks what can be told of the list without applying it.
func (o *outcome) sort(e *epoch, list []listedProposal, config *Config) error {
	leaving := map[LeafIndex]bool{}
	changed := map[LeafIndex]bool{}
	change := func(i LeafIndex) error {
		if _, ok := e.tree.leaf(i); !ok {
			return invalidProposal("leaf %d is blank", i)
		}
		if i == o.committer {
			return invalidProposal("committer changes its own leaf by proposal")
		}
		if changed[i] {
			return invalidProposal("leaf %d is changed twice", i)
		}
		changed[i] = true
		return nil
	}
	extensions := 0
	var special []ProposalType
	for _, p := range list {
		var err error
		switch v := p.proposal.(type) {
		case Add, PreSharedKey:
		case Update:
			o.needsPath = true
			err = change(p.leaf())
		case Remove:
			o.needsPath = true
			leaving[v.Leaf] = true
			err = change(v.Leaf)
		case SelfRemove:
			o.needsPath = true
			leaving[p.leaf()] = true
			special = append(special, ProposalSelfRemove)
			if err = change(p.leaf()); err == nil && p.ref == nil {
				err = invalidProposal("SelfRemove by value")
			}
		case GroupContextExtensions:
			o.needsPath = true
			if extensions++; extensions > 1 {
				err = invalidProposal("two GroupContextExtensions")
			}
		case ReInit:
			if config.IgnoreReInit {
				break
			}
			o.reinit = &v
			switch {
			case len(list) > 1:
				err = invalidProposal("ReInit with others")
			case v.Version < e.context.version:
				err = invalidProposal("ReInit to version %d", v.Version)
			}
		case ExternalInit:
			err = invalidProposal("ExternalInit in a member's commit")
		case AppEphemeral:
			special = append(special, ProposalAppEphemeral)
		case AppDataUpdate:
			special = append(special, ProposalAppDataUpdate)
		case CustomProposal:
			special = append(special, v.Type)
			o.needsPath = o.needsPath || slices.Contains(config.PathProposals, v.Type)
		default:
			err = fmt.Errorf("%w: %#04x", ErrUnsupportedProposal, uint16(v.ProposalType()))
		}
		if err != nil {
			return err
		}
	}
	return e.supported(special, leaving)
}

// supported checks that all members who process a commit know its proposal types;
// those who leave by it need not (§12.2).
func (e *epoch) supported(types []ProposalType, leaving map[LeafIndex]bool) error {
	slices.Sort(types)
	types = slices.Compact(types)
	if len(types) == 0 {
		return nil
	}
	for i, leaf := range e.tree.leaves() {
		f := leaf.fields()
		for _, t := range types {
			if !leaving[i] && !f.supportsProposal(t) {
				return fmt.Errorf("%w: %#04x by leaf %d", ErrUnsupportedProposal, uint16(t), i)
			}
		}
	}
	return nil
}

func (o *outcome) applyExtensions(e *epoch, list []listedProposal) error {
	for _, p := range list {
		v, ok := p.proposal.(GroupContextExtensions)
		if !ok {
			continue
		}
		if err := checkExtensionsUnique(v.Extensions); err != nil {
			return err
		}
		q, err := newRequirements(e.context.suite, v.Extensions)
		if err != nil {
			return err
		}
		o.extensions, o.requires = v.Extensions, q
		return o.checkDictionary(e)
	}
	return nil
}

func (o *outcome) applyUpdates(e *epoch, list []listedProposal) error {
	for _, p := range list {
		v, ok := p.proposal.(Update)
		if !ok {
			continue
		}
		f := v.LeafNode.fields()
		if f.source != LeafNodeFromUpdate {
			return fmt.Errorf("%w: %d in Update", ErrLeafNodeSource, f.source)
		}
		if err := o.checkKeys(&f, p.leaf()); err != nil {
			return err
		}
		if p.sender.is(e.own) {
			o.ownUpdate = &v
		}
		o.changing(p.leaf())
		o.tree.updateLeaf(p.leaf(), v.LeafNode)
	}
	return nil
}

// checkKeys checks that the keys of a new leaf are not in the tree; the leaf that
// it replaces may have the same signature key (§7.3).
func (o *outcome) checkKeys(f *leafFields, at LeafIndex) error {
	if err := o.tree.suite.CheckPublicKey(f.encryptionKey); err != nil {
		return invalidProposal("leaf encryption key: %w", err)
	}
	if x, ok := o.tree.findKey(encryptionKeys, f.encryptionKey); ok {
		return fmt.Errorf("%w: encryption key of a new leaf is that of node %d", ErrDuplicateKey, x)
	}
	if x, ok := o.tree.findKey(signatureKeys, f.signatureKey); ok && x != at.Node() {
		return fmt.Errorf("%w: signature key of a new leaf is that of leaf %d", ErrDuplicateKey, x.Leaf())
	}
	return nil
}

func (o *outcome) applyRemoves(e *epoch, list []listedProposal) error {
	for _, p := range list {
		leaf := p.leaf()
		switch v := p.proposal.(type) {
		case Remove:
			leaf = v.Leaf
		case SelfRemove:
		default:
			continue
		}
		if leaf == e.own {
			o.removed = true
		}
		o.changing(leaf)
		o.tree.removeLeaf(leaf)
	}
	o.tree.truncate()
	return nil
}

// noLeaf is a place that no leaf has.
const noLeaf LeafIndex = 1<<31 - 1

func (o *outcome) applyAdds(e *epoch, list []listedProposal) error {
	for _, p := range list {
		v, ok := p.proposal.(Add)
		if !ok {
			continue
		}
		kp := v.KeyPackage
		if kp.version != MLS10 {
			return fmt.Errorf("%w: key package has %d", ErrUnsupportedVersion, kp.version)
		}
		if kp.suite != e.context.suite {
			return fmt.Errorf("%w: key package has %d", ErrUnsupportedCipherSuite, kp.suite)
		}
		f := kp.leaf.fields()
		if err := o.checkKeys(&f, noLeaf); err != nil {
			return err
		}
		o.changing(o.tree.nextBlank)
		o.joined = append(o.joined, addition{o.tree.addLeaf(kp.leaf), kp})
	}
	return nil
}

func (o *outcome) applyPSKs(e *epoch, list []listedProposal, config *Config) error {
	for _, p := range list {
		if v, ok := p.proposal.(PreSharedKey); ok {
			o.psks = append(o.psks, v.ID)
		}
	}
	return config.checkPSKs(e.suite, o.psks)
}

// checkPSKs checks the ids of the pre-shared keys that are used together (§8.4,
// §12.1.4). Usages other than the application's are for the one commit that makes the
// successor of a group.
func (c *Config) checkPSKs(s *suite.Suite, ids []PreSharedKeyID) error {
	seen := make(map[string]bool) // a list can be as long as a message
	for _, id := range ids {
		if len(id.Nonce) != s.HashSize() {
			return invalidProposal("PSK nonce of %d bytes", len(id.Nonce))
		}
		if id.Type == PSKResumption && id.Usage != ResumptionApplication && c.predecessor.secret(id) == nil {
			return invalidProposal("PSK of usage %d", id.Usage)
		}
		encoded := string(id.append(nil))
		if seen[encoded] {
			return invalidProposal("PSK occurs twice")
		}
		seen[encoded] = true
	}
	return nil
}

// checkLeaves checks the leaves that are new against the group, and the others as
// far as the group asks for more than before (§7.3).
func (o *outcome) checkLeaves(e *epoch) error {
	var updated []LeafIndex
	for i := range o.before {
		leaf, ok := o.tree.leaf(i)
		if !ok {
			continue
		}
		f := leaf.fields()
		if err := o.checkLeaf(&f, i); err != nil {
			return err
		}
		if f.source == LeafNodeFromUpdate {
			updated = append(updated, i)
		}
	}
	if err := o.checkOthers(e); err != nil {
		return err
	}
	added := len(o.joined)
	return parallel(added+len(updated), func(k int) error {
		if k < added {
			a := o.joined[k]
			if err := a.keyPackage.verify(e.suite); err != nil {
				return fmt.Errorf("key package for leaf %d: %w", a.leaf, err)
			}
			return nil
		}
		i := updated[k-added]
		leaf, _ := o.tree.leaf(i)
		f := leaf.fields()
		return o.verifyLeaf(e, &f, i)
	})
}

// checkLeaf checks a leaf that is new in the tree.
func (o *outcome) checkLeaf(f *leafFields, i LeafIndex) error {
	err := o.requires.check(f)
	if err == nil {
		err = o.tree.checkCredentials(f)
	}
	if err != nil {
		return fmt.Errorf("leaf %d: %w", i, err)
	}
	return nil
}

func (o *outcome) verifyLeaf(e *epoch, f *leafFields, i LeafIndex) error {
	if !e.suite.VerifyWithLabel(f.signatureKey, "LeafNodeTBS", f.signature, f.unsigned, f.context(e.context.groupID, i)) {
		return fmt.Errorf("leaf %d: %w", i, ErrLeafNodeSignature)
	}
	return nil
}

// checkOthers checks the leaves that were there before if the group now asks for
// more, or if a credential type has come into use.
func (o *outcome) checkOthers(e *epoch) error {
	more := !e.requires.covers(o.requires)
	var kinds []CredentialType
	for _, c := range o.tree.credentials {
		if !e.tree.hasCredential(c.kind) {
			kinds = append(kinds, c.kind)
		}
	}
	if !more && len(kinds) == 0 {
		return nil
	}
	for i, leaf := range o.tree.leaves() {
		f := leaf.fields()
		if more {
			if err := o.requires.check(&f); err != nil {
				return fmt.Errorf("leaf %d: %w", i, err)
			}
		}
		for _, kind := range kinds {
			if !f.supportsCredential(kind) {
				return fmt.Errorf("leaf %d: %w: credential type %d", i, ErrCapabilities, kind)
			}
		}
	}
	return nil
}

// checkPathLeaf checks the leaf of a committer's path, which applyPath has put
// into the tree already.
func (o *outcome) checkPathLeaf(e *epoch, leaf LeafNode, i LeafIndex) error {
	f := leaf.fields()
	if err := o.checkLeaf(&f, i); err != nil {
		return err
	}
	if err := o.checkPathCredential(f.credential.Type, i); err != nil {
		return err
	}
	return o.verifyLeaf(e, &f, i)
}

// checkPathCredential checks that all members support the credential type of the leaf of
// a path, if that has brought it into use (§7.3).
func (o *outcome) checkPathCredential(kind CredentialType, i LeafIndex) error {
	if before := o.before[i]; before.raw != nil {
		if f := before.fields(); f.credential.Type == kind {
			return nil
		}
	}
	if slices.ContainsFunc(o.tree.credentials, func(c credentialCount) bool { return c.kind == kind && c.count > 1 }) {
		return nil
	}
	for other, leaf := range o.tree.leaves() {
		if f := leaf.fields(); !f.supportsCredential(kind) {
			return fmt.Errorf("leaf %d: %w: credential type %d", other, ErrCapabilities, kind)
		}
	}
	return nil
}

// candidates lists the leaves whose credentials are to be judged: the new ones,
// and those whose credential or signature key has changed. Who joins by an external
// commit replaces the leaf that the commit removes (§12.2).
func (o *outcome) candidates() []Candidate {
	var list []Candidate
	for i, before := range o.before {
		leaf, ok := o.tree.leaf(i)
		if !ok {
			continue
		}
		c := Candidate{Member: Member{i, leaf}}
		if o.external && i == o.committer {
			if was, ok := o.before[o.replaced]; ok {
				c.Replaces = &was
			}
		} else if before.raw != nil && leaf.Source() != LeafNodeFromKeyPackage {
			if f, b := leaf.fields(), before.fields(); f.credential.equal(b.credential) && bytes.Equal(f.signatureKey, b.signatureKey) {
				continue
			}
			c.Replaces = &before
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Candidate) int { return int(a.Index) - int(b.Index) })
	return list
}

// authenticate asks the application about credentials (§5.3.1).
func (c *Config) authenticate(members []Candidate) error {
	if c.Authenticator == nil || len(members) == 0 {
		return nil
	}
	var refused []error
	for i, err := range c.Authenticator.Authenticate(members) {
		if err != nil {
			refused = append(refused, fmt.Errorf("leaf %d: %w", members[i].Index, err))
		}
	}
	if len(refused) > 0 {
		return fmt.Errorf("%w: %w", ErrCredential, errors.Join(refused...))
	}
	return nil
}
