package mls

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/schedule"
)

// Follower is a delivery service's view of a group whose handshakes are public: it knows
// the members, the epoch and the ratchet tree, and no secret. It begins with a member's
// GroupInfo ([NewFollower]) and goes on with each proposal and commit
// ([Follower.Process]). What it can't check needs the group's secrets:
//
//   - the membership tag of a message and the confirmation tag of a commit. So a
//     member, or who joins, can make a commit that is good for a follower and that
//     the members refuse. Another member's GroupInfo shows it
//     ([Follower.CheckGroupInfo]), and a new follower can be made from that;
//   - whether what a commit encrypts decrypts, and whether pre-shared keys are known.
//
// All else is checked by the same code as for members: signatures, the rules for lists
// of proposals, leaves, capabilities, the keys of a path and their place in the tree,
// tree and parent hashes, credentials ([Config].Authenticator).
//
// As with a [Group], calls that change a Follower return a [Pending], whose records
// [LoadFollower] makes it from again; they are not secret. Who only wants to know whether
// a message is good discards the result. A Follower must be used by one goroutine at a
// time.
type Follower struct{ publicState }

// NewFollower follows the group of a GroupInfo, an encoded MLSMessage, from its epoch on
// (§12.4.3). ratchetTree is used if the GroupInfo has no tree inside, else it may be nil.
// The whole group is checked as by [Join]. Of config, these count: Authenticator,
// PathProposals, IgnoreReInit and Suites. It returns [ErrNoRatchetTree], [ErrCredential],
// or what is wrong with the GroupInfo or the group.
func NewFollower(groupInfo, ratchetTree []byte, config Config) (*Pending[*Follower], error) {
	f, err := newFollower(groupInfo, ratchetTree, config)
	if err != nil {
		return nil, fmt.Errorf("mls: new follower: %w", err)
	}
	return newPending(&f.publicState, f, f.records, nil, nil), nil
}

func newFollower(groupInfo, ratchetTree []byte, config Config) (*Follower, error) {
	info, err := readPublicInfo(groupInfo)
	if err != nil {
		return nil, err
	}
	s, err := lookupSuite(info.context.suite, config.Suites)
	if err != nil {
		return nil, err
	}
	e, err := info.check(s, ratchetTree)
	if err != nil {
		return nil, err
	}
	if err := checkTagSize(e, info.confirmationTag, ErrConfirmationTag); err != nil {
		return nil, err
	}
	if err := config.authenticate(everybody(e.tree)); err != nil {
		return nil, err
	}
	e.setTag(info.confirmationTag)
	return followerOf(e, config), nil
}

func followerOf(e *epoch, config Config) *Follower {
	// Others than public handshakes can't be followed, whatever members send.
	config.PublicHandshakes, config.OneFormat = true, true
	return &Follower{publicState{config: config, current: e}}
}

// Process takes in a proposal or a commit, an encoded MLSMessage (§6). The event is a
// [*ReceivedProposal], a [*StagedCommit] or an [*UnresolvedCommit]; Done makes it
// happen, Discard leaves the follower as it was. A refused message changes nothing.
//
// It returns [ErrEncrypted] for PrivateMessages, [ErrReInit] once the group is closed,
// and otherwise the errors of [Group.Process]. The message is not kept.
func (f *Follower) Process(message []byte) (*Pending[Event], error) {
	if f.pending {
		return nil, fmt.Errorf("mls: follow: %w", ErrPending)
	}
	p, err := f.process(message)
	if err != nil {
		return nil, fmt.Errorf("mls: follow: %w", err)
	}
	return p, nil
}

func (f *Follower) process(message []byte) (*Pending[Event], error) {
	m, err := UnmarshalMessage(message)
	if err != nil {
		return nil, err
	}
	switch {
	case m.public != nil:
		return f.processPublic(m)
	case m.private == nil:
		return nil, fmt.Errorf("%w: %d", ErrWireFormat, m.format)
	case !bytes.Equal(m.private.groupID, f.current.context.groupID):
		return nil, ErrWrongGroup
	}
	return nil, fmt.Errorf("%w: %v of epoch %d", ErrEncrypted, m.private.contentType, m.private.epoch)
}

func (f *Follower) processPublic(m *Message) (*Pending[Event], error) {
	a, err := f.verifyPublic(m.public, func(m *publicMessage) error {
		return checkTagSize(f.current, m.membershipTag, ErrMembershipTag)
	})
	if err != nil {
		return nil, err
	}
	f.tree()
	if a.content.contentType == ContentTypeProposal {
		return f.receiveProposal(a)
	}
	p, err := f.stage(a)
	if u, ok := errors.AsType[*unresolvedError](err); ok {
		return f.unresolved(u, m.raw, f.process), nil
	}
	if err != nil {
		return nil, fmt.Errorf("commit of %v: %w", a.content.sender, err)
	}
	return p, nil
}

// stage works out a commit whose signature was checked (§12.4.2).
func (f *Follower) stage(m *authenticatedContent) (*Pending[Event], error) {
	e := f.current
	if err := checkTagSize(e, m.auth.confirmationTag, ErrConfirmationTag); err != nil {
		return nil, err
	}
	o, list, err := f.workOut(m)
	if err != nil {
		return nil, err
	}
	if want := e.suite.HPKE().KEM().EncSize(); o.external && len(o.kemOutput) != want {
		return nil, invalidProposal("ExternalInit of %d bytes, want %d", len(o.kemOutput), want)
	}
	next := e.after(o, m.confirmedHash(e))
	next.setTag(m.auth.confirmationTag)
	changes := func() []Record { return f.mergeRecords(next) }
	done := func() {
		f.proposals, f.current = nil, next
		next.tree.settle()
	}
	return newPending[Event](&f.publicState, e.describe(o, m.content, list), changes, done, nil), nil
}

// checkTagSize is what can be told of a tag without its key.
func checkTagSize(e *epoch, tag []byte, refused error) error {
	if len(tag) != e.suite.HashSize() {
		return fmt.Errorf("%w: %d bytes", refused, len(tag))
	}
	return nil
}

// CheckGroupInfo checks that a GroupInfo, an encoded MLSMessage, is one by which others
// can join the group as it is now by [JoinExternal], with the tree inside or with
// [Follower.RatchetTree]: that a member has signed it, and that it is of the same
// epoch with the same history. It returns [ErrWrongGroup], [ErrWrongEpoch], [ErrFork],
// [ErrReInit], [ErrSender], [ErrSignature], [ErrNoExternalPub] or [ErrMalformed]. It
// changes nothing.
func (f *Follower) CheckGroupInfo(groupInfo []byte) error {
	if err := f.checkGroupInfo(groupInfo); err != nil {
		return fmt.Errorf("mls: check group info: %w", err)
	}
	return nil
}

func (f *Follower) checkGroupInfo(message []byte) error {
	info, err := readPublicInfo(message)
	if err != nil {
		return err
	}
	e, c := f.current, info.context
	switch {
	case !bytes.Equal(c.groupID, e.context.groupID):
		return ErrWrongGroup
	case c.epoch != e.context.epoch:
		return &EpochError{c.epoch, e.context.epoch}
	case e.reinit != nil:
		return ErrReInit
	}
	// Who has signed is known by this tree, whatever the GroupInfo says of its own.
	signer, ok := f.leaf(info.signer)
	if !ok {
		return fmt.Errorf("%w: GroupInfo of the blank leaf %d", ErrSender, info.signer)
	}
	if !e.suite.VerifyWithLabel(signer.signatureKey(), "GroupInfoTBS", info.signature, info.unsigned) {
		return fmt.Errorf("%w: GroupInfo", ErrSignature)
	}
	if !bytes.Equal(c.raw, e.context.raw) {
		return fmt.Errorf("%w: group context", ErrFork)
	}
	// The interim hash has the confirmation tag inside (§8.2).
	if !bytes.Equal(schedule.InterimTranscriptHash(e.suite, c.confirmedTranscriptHash, info.confirmationTag), e.interim) {
		return fmt.Errorf("%w: confirmation tag", ErrFork)
	}
	if err := checkExtensionsUnique(info.extensions); err != nil {
		return err
	}
	if tree, ok := extensionData(info.extensions, ExtensionRatchetTree); ok && !bytes.Equal(tree, f.RatchetTree()) {
		return fmt.Errorf("%w: ratchet tree", ErrFork)
	}
	public, err := info.externalPub()
	if err != nil {
		return err
	}
	if err := e.suite.CheckPublicKey(public); err != nil {
		return malformed("external public key", err)
	}
	return nil
}

// Park gives up memory for a group in which little happens: its tree is kept encoded
// until something needs it. It does nothing while a [Pending] waits.
func (f *Follower) Park() { f.park() }

// Format implements [fmt.Formatter].
func (f *Follower) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "follower of group %x in epoch %d", f.current.context.groupID, f.current.context.epoch)
}

// followerRecord is the record of kindEpoch of a follower.
func followerRecord(e *epoch) Record {
	return Record{kindEpoch, nil, e.appendPublicFields(recordValue())}
}

// records is the whole state of a follower that nothing has happened to yet.
func (f *Follower) records() []Record {
	return append(f.current.publicRecords(), followerRecord(f.current))
}

// mergeRecords are the changes that a commit makes.
func (f *Follower) mergeRecords(next *epoch) []Record {
	records := append(f.spentProposals(), followerRecord(next), Record{Kind: kindContext, Key: epochKey(f.Epoch())})
	return next.appendChanges(records, f.current)
}

// LoadFollower makes a follower from all of its records, in any order, as they are after
// any number of changes; they are of the same kinds as those of a group, and a
// group's own are refused. It copies what it keeps. It returns [ErrState].
func LoadFollower(records []Record, config Config) (*Follower, error) {
	l, err := sortRecords(records, config)
	if err == nil {
		var f *Follower
		if f, err = l.follower(); err == nil {
			return f, nil
		}
	}
	return nil, fmt.Errorf("mls: load follower: %w: %w", ErrState, err)
}

func (l *loader) follower() (*Follower, error) {
	if len(l.keys)+len(l.past)+len(l.updates) > 0 || l.ownCommit != nil || len(l.contexts) > 1 {
		return nil, fmt.Errorf("records that only a member has")
	}
	e, fields, err := l.openEpoch()
	if err != nil {
		return nil, err
	}
	if fields.take(fieldOwn) != nil {
		return nil, fmt.Errorf("the epoch of a member")
	}
	e.own = noLeaf
	e.readPublicFields(fields)
	if err := fields.done(); err != nil {
		return nil, fmt.Errorf("epoch: %w", err)
	}
	if len(e.interim) != e.suite.HashSize() {
		return nil, fmt.Errorf("interim transcript hash of %d bytes", len(e.interim))
	}
	f := followerOf(e, l.config)
	if err := l.loadTree(&f.publicState); err != nil {
		return nil, err
	}
	return f, l.loadProposals(&f.publicState)
}
