package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Event is what a received message was: an [*ApplicationMessage], a
// [*ReceivedProposal], a [*StagedCommit], an [*UnresolvedCommit] or an [*OwnMessage].
type Event interface{ isEvent() }

// ApplicationMessage is application data of another member (§15), or of our own that was
// sent and forgotten (see [Config].Ahead).
type ApplicationMessage struct {
	Sender            LeafIndex
	Epoch             uint64 // of the message; may be a past one
	Generation        uint32 // counts the sender's messages in the epoch
	Data              []byte
	AuthenticatedData []byte

	// SignatureKey and Credential are those of the sender in the epoch of the
	// message.
	SignatureKey []byte
	Credential   Credential
}

// ReceivedProposal is a proposal of another member, of an external sender or of who
// asks to be added, which waits for a commit (§12.1).
type ReceivedProposal struct {
	Sender            Sender
	Proposal          Proposal
	AuthenticatedData []byte
}

// OwnMessage tells that a message is our own, as the delivery service brings it
// back: it was dealt with when it was made. Members who share the group's keys
// could have forged this much, which is harmless.
type OwnMessage struct {
	ContentType ContentType
	Epoch       uint64
}

func (*ApplicationMessage) isEvent() {}
func (*ReceivedProposal) isEvent()   {}
func (*OwnMessage) isEvent()         {}

// storedProposal is a proposal that can be committed by reference.
type storedProposal struct {
	listedProposal
	message []byte // encoded AuthenticatedContent
}

// Process takes in a message of the group, an encoded MLSMessage (§6). The event is
// known at once; Done makes it happen. A received commit is staged: the event is a
// [*StagedCommit], Done merges it, Discard leaves it for another time.
//
// A refused message changes nothing, so that it can be tried again. The errors are
// listed at [ErrWrongGroup] and below, and with those of key packages and the tree.
// The message is not kept.
func (g *Group) Process(message []byte) (*Pending[Event], error) {
	if g.pending {
		return nil, fmt.Errorf("mls: process: %w", ErrPending)
	}
	p, err := g.process(message)
	if err != nil {
		return nil, fmt.Errorf("mls: process: %w", err)
	}
	return p, nil
}

func (g *Group) process(message []byte) (*Pending[Event], error) {
	r := wire.NewReader(message)
	m := readMessage(r)
	if err := r.Done(); err != nil {
		return nil, malformed("MLSMessage", err)
	}
	if m.isCommit() {
		if p := g.ownEcho(message); p != nil {
			return p, nil
		}
	}
	var p *Pending[Event]
	var err error
	switch m.format {
	case WireFormatPrivateMessage:
		p, err = g.processPrivate(m.private)
	case WireFormatPublicMessage:
		// What is kept of a handshake must not alias the caller's bytes.
		m = readMessage(wire.NewReader(bytes.Clone(message)))
		p, err = g.processPublic(m.public)
	default:
		return nil, fmt.Errorf("%w: %d", ErrWireFormat, m.format)
	}
	if u, ok := errors.AsType[*unresolvedError](err); ok {
		return g.unresolved(u, message, g.process), nil
	}
	return p, err
}

func (m *Message) isCommit() bool {
	return m.public != nil && m.public.content.contentType == ContentTypeCommit ||
		m.private != nil && m.private.contentType == ContentTypeCommit
}

// ownEcho recognizes our own commits: the pending one, which then is merged, and
// those that ended past epochs.
func (g *Group) ownEcho(message []byte) *Pending[Event] {
	if g.ownCommit == nil && g.current.entry == nil && !slices.ContainsFunc(g.past, func(p *pastEpoch) bool { return p.ownCommit != nil }) {
		return nil
	}
	hash := g.current.suite.Hash(nil, message)
	if tr := g.ownCommit; tr != nil && bytes.Equal(hash, tr.hash) {
		changes, done := g.merge(tr, nil)
		return newPending[Event](&g.publicState, tr.staged, changes, done, nil)
	}
	if bytes.Equal(hash, g.current.entry) {
		return newPending[Event](&g.publicState, &OwnMessage{ContentTypeCommit, g.Epoch() - 1}, nil, nil, nil)
	}
	for _, p := range g.past {
		if bytes.Equal(hash, p.ownCommit) {
			return newPending[Event](&g.publicState, &OwnMessage{ContentTypeCommit, p.number}, nil, nil, nil)
		}
	}
	return nil
}

// processPublic takes in a PublicMessage (§6.2).
func (g *Group) processPublic(m *publicMessage) (*Pending[Event], error) {
	a, err := g.verifyPublic(m, g.current.verifyMembershipTag)
	if err != nil {
		return nil, err
	}
	if c := m.content; c.sender.is(g.current.own) {
		return newPending[Event](&g.publicState, &OwnMessage{c.contentType, c.epoch}, nil, nil, nil), nil
	}
	return g.handshake(a, nil)
}

// handshake takes in a proposal or commit of somebody else whose signature was
// checked. use is the key that it came under, nil if it was a PublicMessage.
func (g *Group) handshake(m *authenticatedContent, use *secrettree.Use) (*Pending[Event], error) {
	g.tree()
	if m.content.contentType == ContentTypeProposal {
		p, err := g.receiveProposal(m)
		if err != nil {
			return nil, err
		}
		return p.consuming(m.content.epoch, use), nil
	}
	tr, err := g.stage(m)
	if err != nil {
		return nil, fmt.Errorf("commit of %v: %w", m.content.sender, err)
	}
	changes, done := g.merge(tr, use)
	current := g.current
	return newPending[Event](&g.publicState, tr.staged, changes, done, func() { tr.wipe(current) }).consuming(m.content.epoch, use), nil
}

// processPrivate takes in a PrivateMessage (§6.3).
func (g *Group) processPrivate(m *privateMessage) (*Pending[Event], error) {
	if !bytes.Equal(m.groupID, g.current.context.groupID) {
		return nil, ErrWrongGroup
	}
	in, err := g.view(m.epoch)
	if err != nil {
		return nil, err
	}
	s := g.current.suite
	from, err := m.openSenderData(s, in.senderData)
	if err != nil {
		return nil, err
	}
	kind := secrettree.Application
	if m.contentType != ContentTypeApplication {
		if from.leaf == in.own && m.epoch != g.Epoch() {
			return newPending[Event](&g.publicState, &OwnMessage{m.contentType, m.epoch}, nil, nil, nil), nil
		}
		if err := g.acceptHandshake(WireFormatPrivateMessage, m.groupID, m.epoch); err != nil {
			return nil, err
		}
		kind = secrettree.Handshake
	}
	sender, ok := g.senderAt(in, from.leaf)
	if !ok {
		return nil, fmt.Errorf("%w: leaf %d is blank", ErrSender, from.leaf)
	}
	if from.leaf == in.own {
		return g.ownPrivate(m, in, from, kind, sender)
	}
	use, err := in.messages.Key(from.leaf, kind, from.generation)
	if err != nil {
		return nil, err
	}
	a, err := m.open(s, use, from, sender.signatureKey, in.context)
	if err != nil {
		use.Drop()
		return nil, err
	}
	if kind == secrettree.Handshake {
		p, err := g.handshake(a, use)
		if err != nil {
			use.Drop()
		}
		return p, err
	}
	return g.application(m, a, use, from, sender), nil
}

// epochView is what is needed to read messages of an epoch, current or past.
type epochView struct {
	age        int // 0 for the current epoch
	own        LeafIndex
	context    []byte
	senderData []byte
	messages   *secrettree.Tree
}

func (g *Group) view(epoch uint64) (epochView, error) {
	e := g.current
	if epoch == e.context.epoch {
		return epochView{0, e.own, e.context.raw, e.secrets.SenderData, e.messages}, nil
	}
	for i, p := range g.past {
		if p.number == epoch {
			return epochView{i + 1, p.own, p.context, p.senderData, p.messages}, nil
		}
	}
	return epochView{}, &EpochError{epoch, e.context.epoch}
}

// senderAt is the sender at leaf i in the epoch of a view: as it was before the
// first change since, else as it is now.
func (g *Group) senderAt(in epochView, i LeafIndex) (pastLeaf, bool) {
	for age := in.age; age > 0; age-- {
		if l, ok := g.past[age-1].leaves[i]; ok {
			if l == nil {
				return pastLeaf{}, false
			}
			return *l, true
		}
	}
	leaf, ok := g.leaf(i)
	if !ok {
		return pastLeaf{}, false
	}
	f := leaf.fields()
	return pastLeaf{f.signatureKey, f.credential}, true
}

// ownPrivate takes in a PrivateMessage whose sender is our leaf. The keys of what
// we have sent are gone. A key that we have skipped was reserved, see Config.Ahead: the
// message was sent and forgotten. One that is still to come was not used by this state:
// if the message is good nevertheless, another copy of the state has sent it.
func (g *Group) ownPrivate(m *privateMessage, in epochView, from senderData, kind secrettree.Kind, own pastLeaf) (*Pending[Event], error) {
	use, err := in.messages.Key(from.leaf, kind, from.generation)
	switch {
	case errors.Is(err, ErrTooDistantInPast), errors.Is(err, ErrSecretReused):
		return newPending[Event](&g.publicState, &OwnMessage{m.contentType, m.epoch}, nil, nil, nil), nil
	case err != nil:
		return nil, err
	}
	a, err := m.open(g.current.suite, use, from, own.signatureKey, in.context)
	if err == nil && use.Late() {
		return g.application(m, a, use, from, own), nil
	}
	use.Drop()
	if err != nil {
		return nil, err
	}
	return nil, ErrStateRolledBack
}

// application is the event of an application message that was opened.
func (g *Group) application(m *privateMessage, a *authenticatedContent, use *secrettree.Use, from senderData, sender pastLeaf) *Pending[Event] {
	event := &ApplicationMessage{
		Sender: from.leaf, Epoch: m.epoch, Generation: from.generation,
		Data: a.content.applicationData, AuthenticatedData: bytes.Clone(m.authenticatedData),
		SignatureKey: bytes.Clone(sender.signatureKey),
		Credential:   Credential{sender.credential.Type, bytes.Clone(sender.credential.Data)},
	}
	return newPending[Event](&g.publicState, event, nil, nil, nil).consuming(m.epoch, use)
}
