package mlsharness

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/go-xmtp/go-xmtp/interop/mlsharness/gen/mlsclient"
	"github.com/go-xmtp/go-xmtp/mls"
)

// Peer is an implementation to play with.
type Peer struct {
	Name   string
	Suites []mls.CipherSuite
	rpc    pb.MLSClientClient
}

// NewPeer asks the server behind a connection who it is.
func NewPeer(ctx context.Context, conn grpc.ClientConnInterface) (*Peer, error) {
	rpc := pb.NewMLSClientClient(conn)
	name, err := rpc.Name(ctx, &pb.NameRequest{})
	if err != nil {
		return nil, fmt.Errorf("mlsharness: %w", err)
	}
	supported, err := rpc.SupportedCiphersuites(ctx, &pb.SupportedCiphersuitesRequest{})
	if err != nil {
		return nil, fmt.Errorf("mlsharness: %s: %w", name.Name, err)
	}
	p := &Peer{Name: name.Name, rpc: rpc}
	for _, id := range supported.Ciphersuites {
		p.Suites = append(p.Suites, mls.CipherSuite(id))
	}
	return p, nil
}

// StepError is what went wrong in a scenario, and where.
type StepError struct {
	Step   string // such as "alice: Commit"
	Peer   string // who was asked
	Reason string
	// Unsupported tells that the peer says so itself, by UNIMPLEMENTED.
	Unsupported bool
}

func (e *StepError) Error() string {
	return fmt.Sprintf("%s (%s): %s", e.Step, e.Peer, e.Reason)
}

// session is one run of a scenario. After an error all that follows does nothing, so that
// scenarios read as the list of steps that they are.
type session struct {
	ctx      context.Context
	suite    mls.CipherSuite
	encrypts bool
	noExport bool
	seats    map[string]*seat
	common   []mls.CipherSuite // suites that all peers have
	members  []string          // of the group as it is now
	groupID  []byte
	commits  int
	rounds   int // of random scenarios
	rand     *mathrand.Rand
	err      error
}

// seat is one actor of the session.
type seat struct {
	name   string
	peer   *Peer
	joined bool
	state  uint32 // once it has joined; may be 0
	key    uint32 // the transaction of its key package
	signer uint32
	old    []uint32 // states that it has left behind
}

// enter has an actor go on with another state.
func (s *session) enter(actor string, state uint32) {
	if s.err != nil {
		return
	}
	at := s.seats[actor]
	if at.joined {
		at.old = append(at.old, at.state)
	}
	at.joined, at.state = true, state
}

func (s *session) fail(actor *seat, step, format string, args ...any) {
	if s.err == nil {
		s.err = &StepError{Step: actor.name + ": " + step, Peer: actor.peer.Name, Reason: fmt.Sprintf(format, args...)}
	}
}

// call asks an actor's peer, unless something has failed before. The response is then
// empty, not nil.
func call[Q, R any](s *session, actor string, method func(pb.MLSClientClient, context.Context, *Q, ...grpc.CallOption) (*R, error), step string, request *Q) *R {
	if s.err != nil {
		return new(R)
	}
	at := s.seats[actor]
	if at == nil {
		panic("mlsharness: a scenario has no actor " + actor)
	}
	response, err := method(at.peer.rpc, s.ctx, request, grpc.MaxCallRecvMsgSize(maxMessage))
	if err == nil {
		return response
	}
	st := status.Convert(err)
	s.fail(at, step, "%s: %s", st.Code(), st.Message())
	if step := new(StepError); errors.As(s.err, &step) {
		step.Unsupported = st.Code() == codes.Unimplemented
	}
	return new(R)
}

// same checks that an actor sees what the others see.
func (s *session) same(actor, step string, got, want []byte) {
	if s.err == nil && (len(want) == 0 || !bytes.Equal(got, want)) {
		s.fail(s.seats[actor], step, "has %x, others %x", got, want)
	}
}

// create makes a group of its first member, and adds the others by a commit.
func (s *session) create(actor string, others ...string) {
	s.groupID = random(16)
	s.enter(actor, call(s, actor, pb.MLSClientClient.CreateGroup, "CreateGroup", &pb.CreateGroupRequest{
		GroupId: s.groupID, CipherSuite: uint32(s.suite), EncryptHandshake: s.encrypts, Identity: []byte(actor),
	}).StateId)
	s.members = []string{actor}
	if len(others) == 0 {
		return
	}
	var c commit
	for _, other := range others {
		c.byValue = append(c.byValue, addOf(s.keyPackage(other)))
	}
	c.joiners = others
	s.commit(actor, c)
}

func (s *session) keyPackage(actor string) []byte {
	r := call(s, actor, pb.MLSClientClient.CreateKeyPackage, "CreateKeyPackage", &pb.CreateKeyPackageRequest{
		CipherSuite: uint32(s.suite), Identity: []byte(actor),
	})
	s.seats[actor].key = r.TransactionId
	return r.KeyPackage
}

// psk tells some actors a key, and returns its name.
func (s *session) psk(actors ...string) *pb.PreSharedKey {
	psk := &pb.PreSharedKey{PskId: random(32), PskSecret: random(32)}
	for _, actor := range actors {
		at := s.seats[actor]
		id := at.key
		if at.joined {
			id = at.state
		}
		call(s, actor, pb.MLSClientClient.StorePSK, "StorePSK", &pb.StorePSKRequest{
			StateOrTransactionId: id, PskId: psk.PskId, PskSecret: psk.PskSecret,
		})
	}
	return psk
}

// Descriptions of proposals.

func addOf(keyPackage []byte) *pb.ProposalDescription {
	return &pb.ProposalDescription{ProposalType: []byte("add"), KeyPackage: keyPackage}
}

func removeOf(actor string) *pb.ProposalDescription {
	return &pb.ProposalDescription{ProposalType: []byte("remove"), RemovedId: []byte(actor)}
}

func externalPSKOf(psk *pb.PreSharedKey) *pb.ProposalDescription {
	return &pb.ProposalDescription{ProposalType: []byte("externalPSK"), PskId: psk.PskId}
}

func resumptionPSKOf(epoch uint64) *pb.ProposalDescription {
	return &pb.ProposalDescription{ProposalType: []byte("resumptionPSK"), EpochId: epoch}
}

func extensionsOf(list ...*pb.Extension) *pb.ProposalDescription {
	return &pb.ProposalDescription{ProposalType: []byte("groupContextExtensions"), Extensions: list}
}

// Extensions that ask nothing of anybody.
var (
	nothingRequired  = &pb.Extension{ExtensionType: uint32(mls.ExtensionRequiredCapabilities), ExtensionData: make([]byte, 3)}
	nobodyFromBeyond = &pb.Extension{ExtensionType: uint32(mls.ExtensionExternalSenders), ExtensionData: make([]byte, 1)}
)

// propose has a member make a proposal.
func (s *session) propose(actor string, d *pb.ProposalDescription) []byte {
	id := s.seats[actor].state
	switch string(d.ProposalType) {
	case "add":
		return call(s, actor, pb.MLSClientClient.AddProposal, "AddProposal",
			&pb.AddProposalRequest{StateId: id, KeyPackage: d.KeyPackage}).Proposal
	case "remove":
		return call(s, actor, pb.MLSClientClient.RemoveProposal, "RemoveProposal",
			&pb.RemoveProposalRequest{StateId: id, RemovedId: d.RemovedId}).Proposal
	case "externalPSK":
		return call(s, actor, pb.MLSClientClient.ExternalPSKProposal, "ExternalPSKProposal",
			&pb.ExternalPSKProposalRequest{StateId: id, PskId: d.PskId}).Proposal
	case "resumptionPSK":
		return call(s, actor, pb.MLSClientClient.ResumptionPSKProposal, "ResumptionPSKProposal",
			&pb.ResumptionPSKProposalRequest{StateId: id, EpochId: d.EpochId}).Proposal
	case "groupContextExtensions":
		return call(s, actor, pb.MLSClientClient.GroupContextExtensionsProposal, "GroupContextExtensionsProposal",
			&pb.GroupContextExtensionsProposalRequest{StateId: id, Extensions: d.Extensions}).Proposal
	}
	panic("mlsharness: members don't propose " + string(d.ProposalType))
}

func (s *session) update(actor string) []byte {
	return call(s, actor, pb.MLSClientClient.UpdateProposal, "UpdateProposal",
		&pb.UpdateProposalRequest{StateId: s.seats[actor].state}).Proposal
}

// commit is what a commit brings, and who comes and goes by it.
type commit struct {
	byReference      [][]byte
	byValue          []*pb.ProposalDescription
	joiners, leavers []string
	forcePath        bool
	externalTree     bool
}

// commit has a member commit, and all others follow; then all have to agree.
func (s *session) commit(actor string, c commit) {
	at := s.seats[actor]
	made := call(s, actor, pb.MLSClientClient.Commit, "Commit", &pb.CommitRequest{
		StateId: at.state, ByReference: c.byReference, ByValue: c.byValue, ForcePath: c.forcePath, ExternalTree: c.externalTree,
	})
	merged := call(s, actor, pb.MLSClientClient.HandlePendingCommit, "HandlePendingCommit", &pb.HandlePendingCommitRequest{StateId: at.state})
	at.state = merged.StateId
	s.members = slices.DeleteFunc(s.members, func(m string) bool { return slices.Contains(c.leavers, m) })
	for _, other := range s.members {
		if other != actor {
			s.handle(other, made.Commit, c.byReference, merged.EpochAuthenticator)
		}
	}
	for _, joiner := range c.joiners {
		request := &pb.JoinGroupRequest{
			TransactionId: s.seats[joiner].key, Welcome: made.Welcome, EncryptHandshake: s.encrypts, Identity: []byte(joiner),
		}
		if c.externalTree {
			request.RatchetTree = made.RatchetTree
		}
		r := call(s, joiner, pb.MLSClientClient.JoinGroup, "JoinGroup", request)
		s.enter(joiner, r.StateId)
		s.same(joiner, "epoch authenticator", r.EpochAuthenticator, merged.EpochAuthenticator)
		s.members = append(s.members, joiner)
	}
	s.agree()
}

func (s *session) handle(actor string, made []byte, proposals [][]byte, authenticator []byte) {
	at := s.seats[actor]
	r := call(s, actor, pb.MLSClientClient.HandleCommit, "HandleCommit", &pb.HandleCommitRequest{
		StateId: at.state, Proposal: proposals, Commit: made,
	})
	at.state = r.StateId
	s.same(actor, "epoch authenticator", r.EpochAuthenticator, authenticator)
}

// agree checks that all members are in the same epoch: they export the same secret, and
// read what one of them says.
func (s *session) agree() {
	s.commits++
	speaker := s.members[s.commits%len(s.members)]
	var secret []byte
	for i, member := range s.members {
		if s.noExport {
			break
		}
		got := call(s, member, pb.MLSClientClient.Export, "Export", &pb.ExportRequest{
			StateId: s.seats[member].state, Label: "harness", Context: s.groupID, KeyLength: 32,
		}).ExportedSecret
		if i == 0 {
			secret = got
		}
		s.same(member, "exported secret", got, secret)
	}
	s.unprotect(s.protect(speaker, "in between"), without(s.members, speaker)...)
}

func without(members []string, who string) []string {
	return slices.DeleteFunc(slices.Clone(members), func(m string) bool { return m == who })
}

// spoken is an application message on its way.
type spoken struct{ plaintext, authenticatedData, ciphertext []byte }

func (s *session) protect(actor, text string) spoken {
	m := spoken{plaintext: []byte(text), authenticatedData: []byte("about " + text)}
	m.ciphertext = call(s, actor, pb.MLSClientClient.Protect, "Protect", &pb.ProtectRequest{
		StateId: s.seats[actor].state, AuthenticatedData: m.authenticatedData, Plaintext: m.plaintext,
	}).Ciphertext
	return m
}

// unprotect has others read a message.
func (s *session) unprotect(m spoken, others ...string) {
	for _, other := range others {
		r := call(s, other, pb.MLSClientClient.Unprotect, "Unprotect", &pb.UnprotectRequest{
			StateId: s.seats[other].state, Ciphertext: m.ciphertext,
		})
		s.same(other, "plaintext", r.Plaintext, m.plaintext)
		s.same(other, "authenticated data", r.AuthenticatedData, m.authenticatedData)
	}
}

// entry is how somebody joins from outside.
type entry struct {
	externalTree bool
	removePrior  bool
	psks         []*pb.PreSharedKey
}

// externalJoin has somebody join with what a member tells about the group.
func (s *session) externalJoin(member, joiner string, how entry) {
	info := s.groupInfo(member, how.externalTree)
	r := call(s, joiner, pb.MLSClientClient.ExternalJoin, "ExternalJoin", &pb.ExternalJoinRequest{
		GroupInfo: info.GroupInfo, RatchetTree: info.RatchetTree, EncryptHandshake: s.encrypts,
		Identity: []byte(joiner), RemovePrior: how.removePrior, Psks: how.psks,
	})
	s.enter(joiner, r.StateId)
	s.members = without(s.members, joiner)
	for _, other := range s.members {
		s.handle(other, r.Commit, nil, r.EpochAuthenticator)
	}
	s.members = append(s.members, joiner)
	s.agree()
}

func (s *session) groupInfo(member string, externalTree bool) *pb.GroupInfoResponse {
	return call(s, member, pb.MLSClientClient.GroupInfo, "GroupInfo", &pb.GroupInfoRequest{
		StateId: s.seats[member].state, ExternalTree: externalTree,
	})
}

// newMemberAdd has somebody propose to be added.
func (s *session) newMemberAdd(member, joiner string) []byte {
	r := call(s, joiner, pb.MLSClientClient.NewMemberAddProposal, "NewMemberAddProposal", &pb.NewMemberAddProposalRequest{
		GroupInfo: s.groupInfo(member, false).GroupInfo, Identity: []byte(joiner),
	})
	s.seats[joiner].key = r.TransactionId
	return r.Proposal
}

// admitSigner has a member commit that somebody may make proposals from outside.
func (s *session) admitSigner(member, signer string) {
	r := call(s, signer, pb.MLSClientClient.CreateExternalSigner, "CreateExternalSigner", &pb.CreateExternalSignerRequest{
		CipherSuite: uint32(s.suite), Identity: []byte(signer),
	})
	s.seats[signer].signer = r.SignerId
	proposal := call(s, member, pb.MLSClientClient.AddExternalSigner, "AddExternalSigner", &pb.AddExternalSignerRequest{
		StateId: s.seats[member].state, ExternalSender: r.ExternalSender,
	}).Proposal
	s.commit(member, commit{byReference: [][]byte{proposal}})
}

// proposeFromOutside has an external signer, the group's index'th, make a proposal.
func (s *session) proposeFromOutside(signer string, index int, member string, d *pb.ProposalDescription) []byte {
	info := s.groupInfo(member, true)
	return call(s, signer, pb.MLSClientClient.ExternalSignerProposal, "ExternalSignerProposal", &pb.ExternalSignerProposalRequest{
		SignerId: s.seats[signer].signer, SignerIndex: uint32(index),
		GroupInfo: info.GroupInfo, RatchetTree: info.RatchetTree, Description: d,
	}).Proposal
}

// reinit is what the next group of a closed one is like, and who does what.
type reinit struct {
	proposal                      []byte // else it is the proposer's
	proposer, committer, welcomer string
	suite                         mls.CipherSuite
	groupID                       []byte
	extensions                    []*pb.Extension
	forcePath, externalTree       bool
}

func (s *session) reinit(r reinit) {
	if r.proposal == nil {
		r.proposal = call(s, r.proposer, pb.MLSClientClient.ReInitProposal, "ReInitProposal", &pb.ReInitProposalRequest{
			StateId: s.seats[r.proposer].state, CipherSuite: uint32(r.suite), GroupId: r.groupID, Extensions: r.extensions,
		}).Proposal
	}
	refs := [][]byte{r.proposal}
	made := call(s, r.committer, pb.MLSClientClient.ReInitCommit, "ReInitCommit", &pb.CommitRequest{
		StateId: s.seats[r.committer].state, ByReference: refs,
	})
	merged := call(s, r.committer, pb.MLSClientClient.HandlePendingReInitCommit, "HandlePendingReInitCommit",
		&pb.HandlePendingCommitRequest{StateId: s.seats[r.committer].state})
	next := map[string]*pb.HandleReInitCommitResponse{r.committer: merged}
	for _, member := range without(s.members, r.committer) {
		next[member] = call(s, member, pb.MLSClientClient.HandleReInitCommit, "HandleReInitCommit", &pb.HandleCommitRequest{
			StateId: s.seats[member].state, Proposal: refs, Commit: made.Commit,
		})
		s.same(member, "epoch authenticator of the closed group", next[member].EpochAuthenticator, merged.EpochAuthenticator)
	}
	welcome := &pb.ReInitWelcomeRequest{ReinitId: next[r.welcomer].ReinitId, ForcePath: r.forcePath, ExternalTree: r.externalTree}
	for _, member := range without(s.members, r.welcomer) {
		welcome.KeyPackage = append(welcome.KeyPackage, next[member].KeyPackage)
	}
	begun := call(s, r.welcomer, pb.MLSClientClient.ReInitWelcome, "ReInitWelcome", welcome)
	s.enter(r.welcomer, begun.StateId)
	for _, member := range without(s.members, r.welcomer) {
		request := &pb.HandleReInitWelcomeRequest{ReinitId: next[member].ReinitId, Welcome: begun.Welcome}
		if r.externalTree {
			request.RatchetTree = begun.RatchetTree
		}
		joined := call(s, member, pb.MLSClientClient.HandleReInitWelcome, "HandleReInitWelcome", request)
		s.enter(member, joined.StateId)
		s.same(member, "epoch authenticator of the new group", joined.EpochAuthenticator, begun.EpochAuthenticator)
	}
	s.suite = r.suite
	s.agree()
}

// branch has a member make a group with some others. The session goes on in the branch if
// stay is set, else in the first group.
func (s *session) branch(actor string, others []string, b *pb.CreateBranchRequest, stay bool) {
	b.StateId, b.GroupId = s.seats[actor].state, random(16)
	for _, other := range others {
		b.KeyPackages = append(b.KeyPackages, s.keyPackage(other))
	}
	begun := call(s, actor, pb.MLSClientClient.CreateBranch, "CreateBranch", b)
	states := map[string]uint32{actor: begun.StateId}
	for _, other := range others {
		request := &pb.HandleBranchRequest{
			StateId: s.seats[other].state, TransactionId: s.seats[other].key, Welcome: begun.Welcome,
		}
		if b.ExternalTree {
			request.RatchetTree = begun.RatchetTree
		}
		joined := call(s, other, pb.MLSClientClient.HandleBranch, "HandleBranch", request)
		states[other] = joined.StateId
		s.same(other, "epoch authenticator of the branch", joined.EpochAuthenticator, begun.EpochAuthenticator)
	}
	trunk := s.members
	for actor, state := range states {
		s.enter(actor, state)
	}
	s.members = append([]string{actor}, others...)
	s.agree()
	if stay {
		return
	}
	s.members = trunk
	if s.err != nil {
		return
	}
	for actor := range states {
		at := s.seats[actor]
		s.enter(actor, at.old[len(at.old)-1])
		at.old = slices.DeleteFunc(at.old, func(id uint32) bool { return id == at.state })
	}
	s.agree()
}

// otherSuite is one that all peers have beside the session's; 0 if there is none.
func (s *session) otherSuite() mls.CipherSuite {
	i := slices.Index(s.common, s.suite)
	if next := s.common[(i+1)%len(s.common)]; next != s.suite {
		return next
	}
	return 0
}

// free gives up what the peers hold for the session, also after an error, which stays.
func (s *session) free() {
	played := s.err
	s.err = nil
	defer func() {
		if played != nil {
			s.err = played
		}
	}()
	for _, at := range s.seats {
		states := at.old
		if at.joined {
			states = append(states, at.state)
		}
		for _, id := range states {
			call(s, at.name, pb.MLSClientClient.Free, "Free", &pb.FreeRequest{StateId: id})
		}
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
