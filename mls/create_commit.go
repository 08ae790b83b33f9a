package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/schedule"
	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// CommitOptions tell what goes into a commit of our own (§12.4). The zero value
// commits all proposals that wait, with a path.
type CommitOptions struct {
	// Proposals are committed by value, in this order, before those that wait.
	Proposals []Proposal

	// ByValueOnly leaves out the proposals that wait. They end with the epoch.
	ByValueOnly bool

	// OmitPath leaves out the path if the proposals allow it (§12.4). The commit
	// then brings no fresh entropy into the group.
	OmitPath bool

	// Leaf is what our leaf says from now on, which needs a path; nil keeps what
	// it says. The Signer is used from the next epoch on.
	Leaf *Client

	// AppData are the new data of the components that the commit updates, which an
	// [AppDataError] asks for.
	AppData map[ComponentID][]byte

	// AuthenticatedData goes along unencrypted (§6.3.1).
	AuthenticatedData []byte

	// ExternalTree leaves the ratchet tree out of the Welcome; new members then
	// need [OutgoingCommit.RatchetTree] by other means.
	ExternalTree bool

	// GroupInfoExtensions are added to the GroupInfo in the Welcome (§12.4.3).
	GroupInfoExtensions []Extension
}

// OutgoingCommit is a commit of our own, to be sent (§12.4).
type OutgoingCommit struct {
	// Message is the commit, an encoded MLSMessage.
	Message []byte

	// Welcome lets in all new members, an encoded MLSMessage; nil if there are
	// none. Send it once the commit has been accepted.
	Welcome []byte

	// RatchetTree is set if the Welcome is without it.
	RatchetTree []byte

	// Staged is what the commit will do.
	Staged *StagedCommit
}

// Commit makes a commit (§12.4.1). The group stays in its epoch: after Done the
// commit is pending until Process gets it back, [Group.MergeOwnCommit] merges it,
// [Group.DropOwnCommit] drops it, or a commit of another member is merged.
func (g *Group) Commit(opts CommitOptions) (*Pending[*OutgoingCommit], error) {
	p, err := g.commit(opts)
	if err != nil {
		return nil, fmt.Errorf("mls: commit: %w", err)
	}
	return p, nil
}

// MergeOwnCommit merges our pending commit, once it is known to be the one that
// all members apply (§14). It returns [ErrNoOwnCommit].
func (g *Group) MergeOwnCommit() (*Pending[*StagedCommit], error) {
	tr, err := g.pendingCommit()
	if err != nil {
		return nil, fmt.Errorf("mls: merge own commit: %w", err)
	}
	changes, done := g.merge(tr, nil)
	return newPending(&g.publicState, tr.staged, changes, done, nil), nil
}

// DropOwnCommit drops our pending commit, which was refused (§14). It returns
// [ErrNoOwnCommit].
func (g *Group) DropOwnCommit() (*Pending[*StagedCommit], error) {
	tr, err := g.pendingCommit()
	if err != nil {
		return nil, fmt.Errorf("mls: drop own commit: %w", err)
	}
	changes := func() []Record { return []Record{{Kind: kindOwnCommit}} }
	return newPending(&g.publicState, tr.staged, changes, func() {
		tr.wipe(g.current)
		g.ownCommit = nil
	}, nil), nil
}

func (g *Group) pendingCommit() (*transition, error) {
	if err := g.begin(); err != nil {
		return nil, err
	}
	if g.ownCommit == nil {
		return nil, ErrNoOwnCommit
	}
	return g.ownCommit, nil
}

// commitBuilder is a commit in the making.
type commitBuilder struct {
	g       *Group
	opts    *CommitOptions
	list    []listedProposal
	outcome *outcome
	content *framedContent
	path    *ownPath // nil without
	signer  Signer   // of our leaf in the next epoch

	next           *epoch
	joiner, member suite.Secret
	tag            []byte
}

func (g *Group) commit(opts CommitOptions) (*Pending[*OutgoingCommit], error) {
	if err := g.begin(); err != nil {
		return nil, err
	}
	if g.ownCommit != nil {
		return nil, ErrOwnCommitPending
	}
	g.tree()
	b := &commitBuilder{g: g, opts: &opts}
	defer b.wipe()
	if err := b.collect(); err != nil {
		return nil, err
	}
	if err := b.update(); err != nil {
		return nil, err
	}
	message, use, err := b.frame()
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Pending[*OutgoingCommit], error) {
		if use != nil {
			use.Drop()
		}
		b.next.wipe(g.current.keys)
		return nil, err
	}
	out := &OutgoingCommit{Message: message}
	if len(b.outcome.joined) > 0 {
		if out.Welcome, err = b.welcome(); err != nil {
			return fail(err)
		}
		if opts.ExternalTree {
			out.RatchetTree = b.outcome.tree.append(nil)
		}
	}
	e := g.current
	out.Staged = e.describe(b.outcome, b.content, b.list)
	out.Staged.next = b.next
	tr := &transition{
		staged: out.Staged, next: b.next, before: b.outcome.before,
		hash: e.suite.Hash(nil, message), content: b.content.withoutPath(),
	}
	signer := b.signer
	changes := func() []Record { return []Record{g.ownCommitRecord(tr)} }
	done := func() {
		g.addSigner(signer)
		g.ownCommit = tr
	}
	return newPending(&g.publicState, out, changes, done, func() { tr.wipe(e) }).consuming(e.context.epoch, use), nil
}

// withoutPath encodes the content of a commit of ours for [Load], which doesn't need
// what the path has for each of the others.
func (c *framedContent) withoutPath() []byte {
	short, content := *c.commit, *c
	if short.path != nil {
		short.path = &updatePath{leaf: short.path.leaf}
	}
	content.commit = &short
	return content.append(nil)
}

// wipe overwrites what is not needed once the commit is made.
func (b *commitBuilder) wipe() {
	if b.path != nil {
		b.path.wipeSecrets()
	}
	b.joiner.Wipe()
	b.member.Wipe()
}

// collect makes the list of proposals and applies it.
func (b *commitBuilder) collect() error {
	g := b.g
	for _, p := range b.opts.Proposals {
		// What is committed must not alias what the caller may change.
		r := wire.NewReader(appendProposal(nil, g.withNonce(p)))
		own := readProposal(r)
		if err := r.Done(); err != nil {
			return malformed("proposal", err)
		}
		if add, ok := p.(Add); ok {
			own = add // immutable, and perhaps verified
		}
		b.list = append(b.list, listedProposal{proposal: own, sender: memberAt(g.current.own)})
	}
	for _, p := range b.list {
		if add, ok := p.proposal.(Add); ok {
			if err := g.checkAdd(add); err != nil {
				return err
			}
		}
	}
	config := g.config
	config.appData = b.opts.AppData
	apply := func(list []listedProposal) (err error) {
		b.outcome, err = g.current.apply(list, memberAt(g.current.own), &config)
		return err
	}
	if b.opts.ByValueOnly {
		return apply(b.list)
	}
	chosen, waiting := b.list, g.committable(b.list)
	b.list = slices.Concat(chosen, waiting)
	err := apply(b.list)
	if err == nil || len(waiting) == 0 || isAppData(err) {
		return err
	}
	b.list = fitting(chosen, waiting, func(list []listedProposal) bool {
		err := apply(list)
		return err == nil || isAppData(err)
	})
	return apply(b.list)
}

func isAppData(err error) bool {
	_, ok := errors.AsType[*AppDataError](err)
	return ok
}

// fitting adds to chosen those of the proposals that wait that are valid together, since
// one that is not would keep us from any commit (§12.2). A proposal may need another one
// that comes later, so that all are tried again until none is added.
func fitting(chosen, waiting []listedProposal, valid func([]listedProposal) bool) []listedProposal {
	keep := make([]bool, len(waiting))
	list := func() []listedProposal {
		l := slices.Clone(chosen)
		for i, p := range waiting {
			if keep[i] {
				l = append(l, p)
			}
		}
		return l
	}
	for again := true; again; {
		again = false
		for i := range waiting {
			if keep[i] {
				continue
			}
			keep[i] = true
			if keep[i] = valid(list()); keep[i] {
				again = true
			}
		}
	}
	return list()
}

// committable selects from the proposals that wait those that can be committed
// together with chosen (§12.2): none that changes our own leaf, and of several
// that concern the same leaf a removal, else the latest. The latest
// GroupContextExtensions wins, too; a ReInit has to wait for all others. Who must not be
// added any more, for the end of a lifetime, is left out.
func (g *Group) committable(chosen []listedProposal) []listedProposal {
	removed := map[LeafIndex]bool{g.current.own: true}
	joining := map[string]bool{}
	extensions := false
	note := func(p listedProposal) (fits bool) {
		switch v := p.proposal.(type) {
		case Remove:
			fits = !removed[v.Leaf]
			removed[v.Leaf] = true
		case SelfRemove:
			fits = !removed[p.leaf()]
			removed[p.leaf()] = true
		case GroupContextExtensions:
			fits = !extensions
			extensions = true
		case Add:
			key := string(v.KeyPackage.leaf.signatureKey())
			fits = !joining[key] && (p.ref == nil || g.checkAdd(v) == nil)
			joining[key] = joining[key] || fits
		case Update, ReInit:
			return false // below
		default:
			return true
		}
		return fits
	}
	for _, p := range chosen {
		note(p)
	}
	keep := make([]bool, len(g.proposals))
	for i, p := range slices.Backward(g.proposals) {
		keep[i] = note(p.listedProposal)
	}
	for i, p := range slices.Backward(g.proposals) {
		if _, ok := p.proposal.(Update); ok && !removed[p.leaf()] {
			keep[i] = true
			removed[p.leaf()] = true
		}
	}
	var list []listedProposal
	for i, p := range g.proposals {
		if keep[i] {
			list = append(list, p.listedProposal)
		}
	}
	if len(list) > 0 || len(chosen) > 0 {
		return list
	}
	for _, p := range slices.Backward(g.proposals) {
		if _, ok := p.proposal.(ReInit); ok {
			return []listedProposal{p.listedProposal}
		}
	}
	return nil
}

// update makes the path, if there is to be one, and the content (§12.4.1).
func (b *commitBuilder) update() error {
	g, e, o := b.g, b.g.current, b.outcome
	c := new(commit)
	for _, p := range b.list {
		if p.ref != nil {
			c.proposals = append(c.proposals, proposalOrRef{ref: p.ref})
		} else {
			c.proposals = append(c.proposals, proposalOrRef{proposal: p.proposal})
		}
	}
	if b.opts.OmitPath && !o.needsPath && b.opts.Leaf == nil {
		signer, err := g.signer()
		if err != nil {
			return err
		}
		b.signer = signer
	} else if err := b.makePath(); err != nil {
		return err
	}
	if err := g.config.authenticate(o.candidates()); err != nil {
		return err
	}
	if b.path != nil {
		provisional := e.context.next(o.tree.rootHash(), e.context.confirmedTranscriptHash, o.extensions)
		if err := b.path.encrypt(o.tree, o.newcomers(), provisional.raw); err != nil {
			return err
		}
		c.path = b.path.path
	}
	b.content = &framedContent{
		groupID: e.context.groupID, epoch: e.context.epoch, sender: memberAt(e.own),
		authenticatedData: bytes.Clone(b.opts.AuthenticatedData), contentType: ContentTypeCommit, commit: c,
	}
	b.content.raw = b.content.append(nil)
	return nil
}

func (b *commitBuilder) makePath() error {
	g, e, o := b.g, b.g.current, b.outcome
	f, signer, err := g.newLeaf(b.opts.Leaf)
	if err != nil {
		return err
	}
	b.signer = signer
	if x, ok := o.tree.findKey(signatureKeys, f.signatureKey); ok && x != e.own.Node() {
		return fmt.Errorf("%w: our signature key is that of leaf %d", ErrDuplicateKey, x.Leaf())
	}
	o.changing(e.own)
	if b.path, err = o.tree.createPath(e.own, f, signer, e.context.groupID); err != nil {
		return err
	}
	return o.checkPathLeaf(e, b.path.path.leaf, e.own)
}

// frame begins the next epoch and protects the commit with the keys of the
// current one. use is nil for a PublicMessage.
func (b *commitBuilder) frame() (message []byte, use *secrettree.Use, err error) {
	g, e, o := b.g, b.g.current, b.outcome
	signer, err := g.signer()
	if err != nil {
		return nil, nil, err
	}
	m := &authenticatedContent{format: g.config.handshakeFormat(), content: b.content}
	if m.auth.signature, err = signContent(signer, m.format, b.content.raw, nil, e.context.raw); err != nil {
		return nil, nil, err
	}
	pskSecret, err := g.pskSecret(o.psks)
	if err != nil {
		return nil, nil, err
	}
	defer pskSecret.Wipe()
	var keys privateKeys
	commitSecret := make(suite.Secret, e.suite.HashSize())
	if b.path != nil {
		keys, commitSecret = b.path.keys, b.path.commitSecret
	} else if keys, err = g.keysAfter(o); err != nil {
		return nil, nil, err
	}
	b.next, b.joiner, b.member = e.begin(o, m.confirmedHash(e), keys, e.secrets.Init, commitSecret, pskSecret, g.config.ratchetWindow())
	m.auth.confirmationTag = b.next.confirm()
	b.tag = m.auth.confirmationTag

	if m.format == WireFormatPublicMessage {
		return e.protectPublic(b.content, m.auth), nil, nil
	}
	if use, err = e.messages.Next(e.own, secrettree.Handshake); err == nil {
		header := len(b.content.appendHeader(nil))
		body := b.content.raw[header:]
		message, err = e.protectPrivate(use, ContentTypeCommit, b.content.authenticatedData, body, m.auth, g.padding(ContentTypeCommit, len(body)))
		if err != nil {
			use.Drop()
		}
	}
	if err != nil {
		b.next.wipe(e.keys)
		return nil, nil, err
	}
	return message, use, nil
}

// welcome makes one Welcome for all new members (§12.4.3.1).
func (b *commitBuilder) welcome() ([]byte, error) {
	s, o := b.next.suite, b.outcome
	info := &groupInfo{context: b.next.context, confirmationTag: b.tag, signer: b.next.own}
	if !b.opts.ExternalTree {
		info.extensions = append(info.extensions, Extension{ExtensionRatchetTree, o.tree.append(nil)})
	}
	info.extensions = append(info.extensions, b.opts.GroupInfoExtensions...)
	info.grease(&b.g.config)
	err := info.sign(b.signer)
	if err != nil {
		return nil, err
	}
	w := &welcome{suite: CipherSuite(s.ID()), secrets: make([]encryptedGroupSecrets, len(o.joined))}
	key := schedule.WelcomeKey(s, b.member)
	defer key.Wipe()
	w.encryptedGroupInfo, err = s.Seal(&key, nil, nil, wire.AppendOpaque(info.unsigned, info.signature))
	if err != nil {
		return nil, err
	}
	encryptor := s.Encryptor("Welcome", w.encryptedGroupInfo)
	err = parallel(len(o.joined), func(i int) error {
		a := o.joined[i]
		secrets := groupSecrets{joinerSecret: b.joiner, psks: o.psks}
		if b.path != nil {
			secrets.pathSecret = b.path.secretFor(a.leaf)
		}
		plain := secrets.append(make([]byte, 0, 128))
		defer clear(plain)
		kem, ciphertext, err := encryptor.Encrypt(nil, a.keyPackage.initKey, plain)
		if err != nil {
			return fmt.Errorf("encrypting to the new leaf %d: %w", a.leaf, err)
		}
		ref := s.RefHash("MLS 1.0 KeyPackage Reference", a.keyPackage.raw)
		w.secrets[i] = encryptedGroupSecrets{ref, kem, ciphertext}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return w.append(appendMessageHead(nil, WireFormatWelcome)), nil
}
