package mlsharness

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/go-xmtp/go-xmtp/interop/mlsharness/gen/mlsclient"
	"github.com/go-xmtp/go-xmtp/mls"
)

func (s *server) propose(id uint32, description *pb.ProposalDescription) (*pb.ProposalResponse, error) {
	a, err := s.member(id)
	if err != nil {
		return nil, err
	}
	proposal, err := describe(a.group, description)
	if err != nil {
		return nil, err
	}
	p, err := a.group.Propose(proposal, nil)
	if err != nil {
		return nil, err
	}
	return &pb.ProposalResponse{Proposal: p.Done()}, nil
}

// describe makes the proposal of a description, for a group.
func describe(group view, d *pb.ProposalDescription) (mls.Proposal, error) {
	switch kind := string(d.GetProposalType()); kind {
	case "add":
		kp, err := unwrap(d.KeyPackage)
		if err != nil {
			return nil, err
		}
		return mls.Add{KeyPackage: kp}, nil
	case "remove":
		for m := range group.Members() {
			if isNamed(m, d.RemovedId) {
				return mls.Remove{Leaf: m.Index}, nil
			}
		}
		return nil, status.Errorf(codes.InvalidArgument, "%q is no member", d.RemovedId)
	case "externalPSK":
		return mls.PreSharedKey{ID: mls.PreSharedKeyID{Type: mls.PSKExternal, ID: d.PskId}}, nil
	case "resumptionPSK":
		return mls.PreSharedKey{ID: mls.PreSharedKeyID{
			Type: mls.PSKResumption, Usage: mls.ResumptionApplication, GroupID: group.ID(), Epoch: d.EpochId,
		}}, nil
	case "groupContextExtensions":
		return mls.GroupContextExtensions{Extensions: extensions(d.Extensions)}, nil
	case "reinit":
		suite, err := suiteOf(d.CipherSuite)
		if err != nil {
			return nil, err
		}
		return mls.ReInit{
			GroupID: d.GroupId, Version: mls.MLS10, CipherSuite: suite, Extensions: extensions(d.Extensions),
		}, nil
	default:
		return nil, status.Errorf(codes.InvalidArgument, "unknown type of proposal %q", kind)
	}
}

func extensions(list []*pb.Extension) []mls.Extension {
	var out []mls.Extension
	for _, e := range list {
		out = append(out, mls.Extension{Type: mls.ExtensionType(e.ExtensionType), Data: e.ExtensionData})
	}
	return out
}

func (s *server) AddProposal(_ context.Context, r *pb.AddProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(r.StateId, &pb.ProposalDescription{ProposalType: []byte("add"), KeyPackage: r.KeyPackage})
}

func (s *server) RemoveProposal(_ context.Context, r *pb.RemoveProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(r.StateId, &pb.ProposalDescription{ProposalType: []byte("remove"), RemovedId: r.RemovedId})
}

func (s *server) ExternalPSKProposal(_ context.Context, r *pb.ExternalPSKProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(r.StateId, &pb.ProposalDescription{ProposalType: []byte("externalPSK"), PskId: r.PskId})
}

func (s *server) ResumptionPSKProposal(_ context.Context, r *pb.ResumptionPSKProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(r.StateId, &pb.ProposalDescription{ProposalType: []byte("resumptionPSK"), EpochId: r.EpochId})
}

func (s *server) GroupContextExtensionsProposal(_ context.Context, r *pb.GroupContextExtensionsProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(r.StateId, &pb.ProposalDescription{ProposalType: []byte("groupContextExtensions"), Extensions: r.Extensions})
}

func (s *server) ReInitProposal(_ context.Context, r *pb.ReInitProposalRequest) (*pb.ProposalResponse, error) {
	return s.propose(r.StateId, &pb.ProposalDescription{
		ProposalType: []byte("reinit"), GroupId: r.GroupId, CipherSuite: r.CipherSuite, Extensions: r.Extensions,
	})
}

func (s *server) UpdateProposal(_ context.Context, r *pb.UpdateProposalRequest) (*pb.ProposalResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	p, err := a.group.ProposeUpdate(nil, nil)
	if err != nil {
		return nil, err
	}
	return &pb.ProposalResponse{Proposal: p.Done()}, nil
}

func (s *server) Commit(_ context.Context, r *pb.CommitRequest) (*pb.CommitResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	if err := a.takeIn(r.ByReference); err != nil {
		return nil, err
	}
	// Without a path wherever the RFC allows it, so that both forms are seen.
	opts := mls.CommitOptions{OmitPath: !r.ForcePath, ExternalTree: r.ExternalTree}
	for _, d := range r.ByValue {
		proposal, err := describe(a.group, d)
		if err != nil {
			return nil, err
		}
		opts.Proposals = append(opts.Proposals, proposal)
	}
	p, err := a.group.Commit(opts)
	if err != nil {
		return nil, err
	}
	out := p.Done()
	return &pb.CommitResponse{Commit: out.Message, Welcome: out.Welcome, RatchetTree: out.RatchetTree}, nil
}

func (s *server) HandleCommit(_ context.Context, r *pb.HandleCommitRequest) (*pb.HandleCommitResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	if err := a.handle(r); err != nil {
		return nil, err
	}
	return &pb.HandleCommitResponse{StateId: r.StateId, EpochAuthenticator: a.group.EpochAuthenticator()}, nil
}

func (a *actor) handle(r *pb.HandleCommitRequest) error {
	if err := a.takeIn(r.Proposal); err != nil {
		return err
	}
	event, err := a.process(r.Commit)
	if err != nil {
		return err
	}
	if _, ok := event.(*mls.StagedCommit); !ok {
		return status.Errorf(codes.InvalidArgument, "the commit is a %T", event)
	}
	clear(a.proposals)
	return nil
}

func (s *server) HandlePendingCommit(_ context.Context, r *pb.HandlePendingCommitRequest) (*pb.HandleCommitResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	if err := a.merge(); err != nil {
		return nil, err
	}
	return &pb.HandleCommitResponse{StateId: r.StateId, EpochAuthenticator: a.group.EpochAuthenticator()}, nil
}

func (a *actor) merge() error {
	p, err := a.group.MergeOwnCommit()
	if err != nil {
		return err
	}
	p.Done()
	clear(a.proposals)
	return nil
}
