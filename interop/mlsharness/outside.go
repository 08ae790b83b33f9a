package mlsharness

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/go-xmtp/go-xmtp/interop/mlsharness/gen/mlsclient"
	"github.com/go-xmtp/go-xmtp/mls"
)

// externalSigner is somebody who is no member but may make proposals (§12.1.8.1).
type externalSigner struct {
	suite  mls.CipherSuite
	signer mls.Signer
}

// look is what a GroupInfo says of its group, which is checked as a joiner does.
func look(groupInfo, ratchetTree []byte) (*mls.Follower, error) {
	p, err := mls.NewFollower(groupInfo, orNil(ratchetTree), mls.Config{Suites: beyond})
	if err != nil {
		return nil, err
	}
	return p.Done(), nil
}

func (s *server) NewMemberAddProposal(_ context.Context, r *pb.NewMemberAddProposalRequest) (*pb.NewMemberAddProposalResponse, error) {
	group, err := look(r.GroupInfo, nil)
	if err != nil {
		return nil, err
	}
	a, err := newActor(uint32(group.CipherSuite()), r.Identity)
	if err != nil {
		return nil, err
	}
	if _, err := a.waits(); err != nil {
		return nil, err
	}
	proposal := mls.OutsideProposal{
		GroupID: group.ID(), Epoch: group.Epoch(), Proposal: mls.Add{KeyPackage: a.keyPackage.KeyPackage()},
	}
	message, err := proposal.SignNewMember(a.client.Signer)
	if err != nil {
		return nil, err
	}
	return &pb.NewMemberAddProposalResponse{
		TransactionId:  s.add(a),
		Proposal:       message,
		InitPriv:       a.keyPackage.InitKey(),
		EncryptionPriv: a.keyPackage.LeafKey(),
		SignaturePriv:  a.signatureKey,
	}, nil
}

func (s *server) CreateExternalSigner(_ context.Context, r *pb.CreateExternalSignerRequest) (*pb.CreateExternalSignerResponse, error) {
	a, err := newActor(r.CipherSuite, r.Identity)
	if err != nil {
		return nil, err
	}
	sender, err := unvector(mls.ExternalSenders(mls.ExternalSender{
		SignatureKey: a.client.Signer.Public(), Credential: a.client.Credential,
	}).Data)
	if err != nil {
		return nil, err
	}
	id := s.nextID()
	s.signers[id] = &externalSigner{a.client.CipherSuite, a.client.Signer}
	return &pb.CreateExternalSignerResponse{SignerId: id, ExternalSender: sender}, nil
}

// AddExternalSigner proposes the group's extensions with one more external sender.
func (s *server) AddExternalSigner(_ context.Context, r *pb.AddExternalSignerRequest) (*pb.ProposalResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	list := a.group.Extensions()
	i := slices.IndexFunc(list, func(e mls.Extension) bool { return e.Type == mls.ExtensionExternalSenders })
	if i < 0 {
		i, list = len(list), append(list, mls.ExternalSenders())
	}
	senders, err := unvector(list[i].Data)
	if err != nil {
		return nil, err
	}
	list[i].Data = vector(append(slices.Clone(senders), r.ExternalSender...))
	p, err := a.group.Propose(mls.GroupContextExtensions{Extensions: list}, nil)
	if err != nil {
		return nil, err
	}
	return &pb.ProposalResponse{Proposal: p.Done()}, nil
}

func (s *server) ExternalSignerProposal(_ context.Context, r *pb.ExternalSignerProposalRequest) (*pb.ProposalResponse, error) {
	signer := s.signers[r.SignerId]
	if signer == nil {
		return nil, status.Errorf(codes.NotFound, "no external signer has the id %d", r.SignerId)
	}
	group, err := look(r.GroupInfo, r.RatchetTree)
	if err != nil {
		return nil, err
	}
	if group.CipherSuite() != signer.suite {
		return nil, status.Errorf(codes.InvalidArgument, "the signer's suite is %d, the group's %d", signer.suite, group.CipherSuite())
	}
	proposal, err := describe(group, r.Description)
	if err != nil {
		return nil, err
	}
	if psk, ok := proposal.(mls.PreSharedKey); ok {
		psk.ID.Nonce = make([]byte, len(group.TreeHash())) // as long as the suite's hash
		rand.Read(psk.ID.Nonce)
		proposal = psk
	}
	out := mls.OutsideProposal{GroupID: group.ID(), Epoch: group.Epoch(), Proposal: proposal}
	message, err := out.SignExternal(r.SignerIndex, signer.signer)
	if err != nil {
		return nil, err
	}
	return &pb.ProposalResponse{Proposal: message}, nil
}

// vector puts the length of a vector before its elements (§2.1.2).
func vector(elements []byte) []byte {
	n := len(elements)
	switch {
	case n < 1<<6:
		return append([]byte{byte(n)}, elements...)
	case n < 1<<14:
		return append(binary.BigEndian.AppendUint16(nil, 1<<14|uint16(n)), elements...)
	default:
		return append(binary.BigEndian.AppendUint32(nil, 2<<30|uint32(n)), elements...)
	}
}

// unvector returns the elements of a vector that is all of data.
func unvector(data []byte) ([]byte, error) {
	for _, size := range []int{1, 2, 4} {
		if len(data) >= size && string(vector(data[size:])) == string(data) {
			return data[size:], nil
		}
	}
	return nil, fmt.Errorf("%w: not one vector", mls.ErrMalformed)
}
