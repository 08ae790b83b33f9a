package mlsharness

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/go-xmtp/go-xmtp/interop/mlsharness/gen/mlsclient"
	"github.com/go-xmtp/go-xmtp/mls"
)

func (s *server) ReInitCommit(ctx context.Context, r *pb.CommitRequest) (*pb.CommitResponse, error) {
	return s.Commit(ctx, r)
}

func (s *server) HandlePendingReInitCommit(_ context.Context, r *pb.HandlePendingCommitRequest) (*pb.HandleReInitCommitResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	if err := a.merge(); err != nil {
		return nil, err
	}
	return s.goOn(a)
}

func (s *server) HandleReInitCommit(_ context.Context, r *pb.HandleCommitRequest) (*pb.HandleReInitCommitResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	if err := a.handle(r); err != nil {
		return nil, err
	}
	return s.goOn(a)
}

// goOn makes the actor that a member of a closed group will be in the next one.
func (s *server) goOn(a *actor) (*pb.HandleReInitCommitResponse, error) {
	reinit, ok := a.group.ReInit()
	if !ok {
		return nil, status.Error(codes.InvalidArgument, "the commit has no ReInit")
	}
	next, err := newActor(uint32(reinit.CipherSuite), a.client.Credential.Data)
	if err != nil {
		return nil, err
	}
	next.closed, next.encrypts = a.group, a.encrypts
	message, err := next.waits()
	if err != nil {
		return nil, err
	}
	return &pb.HandleReInitCommitResponse{
		ReinitId: s.add(next), KeyPackage: message, EpochAuthenticator: a.group.EpochAuthenticator(),
	}, nil
}

// continuing is an actor that goOn made.
func (s *server) continuing(id uint32) (*actor, error) {
	a, err := s.actor(id)
	if err == nil && a.closed == nil {
		err = status.Errorf(codes.NotFound, "%d continues no group", id)
	}
	return a, err
}

func (s *server) ReInitWelcome(_ context.Context, r *pb.ReInitWelcomeRequest) (*pb.CreateSubgroupResponse, error) {
	a, err := s.continuing(r.ReinitId)
	if err != nil {
		return nil, err
	}
	opts := mls.SuccessorOptions{Client: a.client, ExternalTree: r.ExternalTree}
	if opts.Members, err = unwrapAll(r.KeyPackage); err != nil {
		return nil, err
	}
	p, err := a.closed.Reinitialize(opts, a.config(a.encrypts))
	if err != nil {
		return nil, err
	}
	out := p.Done()
	a.joined(out.Group)
	return subgroup(r.ReinitId, out), nil
}

func subgroup(id uint32, out *mls.Successor) *pb.CreateSubgroupResponse {
	return &pb.CreateSubgroupResponse{
		StateId: id, Welcome: out.Welcome, RatchetTree: out.RatchetTree,
		EpochAuthenticator: out.Group.EpochAuthenticator(),
	}
}

func (s *server) HandleReInitWelcome(_ context.Context, r *pb.HandleReInitWelcomeRequest) (*pb.JoinGroupResponse, error) {
	a, err := s.continuing(r.ReinitId)
	if err != nil {
		return nil, err
	}
	if err := a.succeed(a.closed, a.encrypts, r.Welcome, r.RatchetTree); err != nil {
		return nil, err
	}
	return &pb.JoinGroupResponse{StateId: r.ReinitId, EpochAuthenticator: a.group.EpochAuthenticator()}, nil
}

func (a *actor) succeed(from *mls.Group, encrypts bool, welcome, tree []byte) error {
	p, err := from.JoinSuccessor(welcome, a.keyPackage, a.client.Signer, orNil(tree), a.config(encrypts))
	if err != nil {
		return err
	}
	a.joined(p.Done().Group)
	return nil
}

func (s *server) CreateBranch(_ context.Context, r *pb.CreateBranchRequest) (*pb.CreateSubgroupResponse, error) {
	from, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	a, err := newActor(uint32(from.group.CipherSuite()), from.client.Credential.Data)
	if err != nil {
		return nil, err
	}
	opts := mls.SuccessorOptions{
		Client: a.client, GroupID: r.GroupId, Extensions: extensions(r.Extensions),
		ExternalTree: r.ExternalTree,
	}
	if opts.Members, err = unwrapAll(r.KeyPackages); err != nil {
		return nil, err
	}
	p, err := from.group.Branch(opts, a.config(from.encrypts))
	if err != nil {
		return nil, err
	}
	out := p.Done()
	a.joined(out.Group)
	return subgroup(s.add(a), out), nil
}

func (s *server) HandleBranch(_ context.Context, r *pb.HandleBranchRequest) (*pb.HandleBranchResponse, error) {
	from, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	a, err := s.waiting(r.TransactionId)
	if err != nil {
		return nil, err
	}
	if err := a.succeed(from.group, from.encrypts, r.Welcome, r.RatchetTree); err != nil {
		return nil, err
	}
	return &pb.HandleBranchResponse{StateId: r.TransactionId, EpochAuthenticator: a.group.EpochAuthenticator()}, nil
}
