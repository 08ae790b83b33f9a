// Package mlsharness is this project's part in the MLS working group's live
// interoperability tests: a gRPC server around the package mls that their test runner
// can drive, scenarios that cover theirs, and a runner that plays them between any two
// such servers.
//
// The server is for tests only: it keeps everything in memory and hands private keys out,
// as the protocol asks for.
package mlsharness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/go-xmtp/go-xmtp/interop/mlsharness/gen/mlsclient"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/mls/x448"
)

// Name is what the server calls itself.
const Name = "go-xmtp"

var (
	beyond = x448.Suites()
	suites = []mls.CipherSuite{
		mls.X25519AES128SHA256Ed25519, mls.P256AES128SHA256P256, mls.X25519ChaChaSHA256Ed25519,
		x448.AES256SHA512Ed448, mls.P521AES256SHA512P521, x448.ChaChaSHA512Ed448, mls.P384AES256SHA384P384,
	}
)

// maxMessage is how long a request may be: a commit in a big group comes with many
// proposals.
const maxMessage = 64 << 20

// server implements the protocol; calls come one at a time.
type server struct {
	pb.UnimplementedMLSClientServer

	last    uint32
	actors  map[uint32]*actor
	signers map[uint32]*externalSigner
}

// NewServer returns a gRPC server with the service. Errors are NOT_FOUND for ids that
// don't exist, INVALID_ARGUMENT for what can't be decoded, and FAILED_PRECONDITION, with
// the reason, for what the package mls refuses.
func NewServer() *grpc.Server {
	var mu sync.Mutex
	oneAtATime := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		response, err := handle(ctx, request)
		if _, ok := status.FromError(err); !ok {
			code := codes.FailedPrecondition
			if errors.Is(err, mls.ErrMalformed) {
				code = codes.InvalidArgument
			}
			err = status.Error(code, err.Error())
		}
		return response, err
	}
	g := grpc.NewServer(grpc.UnaryInterceptor(oneAtATime), grpc.MaxRecvMsgSize(maxMessage))
	pb.RegisterMLSClientServer(g, &server{actors: map[uint32]*actor{}, signers: map[uint32]*externalSigner{}})
	return g
}

func (s *server) nextID() uint32 {
	s.last++
	return s.last
}

func (s *server) actor(id uint32) (*actor, error) {
	if a := s.actors[id]; a != nil {
		return a, nil
	}
	return nil, status.Errorf(codes.NotFound, "nobody has the id %d", id)
}

// member is an actor who is in a group.
func (s *server) member(id uint32) (*actor, error) {
	a, err := s.actor(id)
	if err == nil && a.group == nil {
		err = status.Errorf(codes.NotFound, "%d has not joined a group", id)
	}
	return a, err
}

func (s *server) Name(context.Context, *pb.NameRequest) (*pb.NameResponse, error) {
	return &pb.NameResponse{Name: Name}, nil
}

func (s *server) SupportedCiphersuites(context.Context, *pb.SupportedCiphersuitesRequest) (*pb.SupportedCiphersuitesResponse, error) {
	r := &pb.SupportedCiphersuitesResponse{}
	for _, id := range suites {
		r.Ciphersuites = append(r.Ciphersuites, uint32(id))
	}
	return r, nil
}

func suiteOf(number uint32) (mls.CipherSuite, error) {
	id := mls.CipherSuite(number)
	if uint32(id) != number || !slices.Contains(suites, id) {
		return 0, fmt.Errorf("%w: %d", mls.ErrUnsupportedCipherSuite, number)
	}
	return id, nil
}

func (s *server) CreateGroup(_ context.Context, r *pb.CreateGroupRequest) (*pb.CreateGroupResponse, error) {
	a, err := newActor(r.CipherSuite, r.Identity)
	if err != nil {
		return nil, err
	}
	p, err := mls.New(r.GroupId, a.client, nil, a.config(r.EncryptHandshake))
	if err != nil {
		return nil, err
	}
	a.group = p.Done()
	return &pb.CreateGroupResponse{StateId: s.add(a)}, nil
}

func (s *server) CreateKeyPackage(_ context.Context, r *pb.CreateKeyPackageRequest) (*pb.CreateKeyPackageResponse, error) {
	a, err := newActor(r.CipherSuite, r.Identity)
	if err != nil {
		return nil, err
	}
	message, err := a.waits()
	if err != nil {
		return nil, err
	}
	return &pb.CreateKeyPackageResponse{
		TransactionId:  s.add(a),
		KeyPackage:     message,
		InitPriv:       a.keyPackage.InitKey(),
		EncryptionPriv: a.keyPackage.LeafKey(),
		SignaturePriv:  a.signatureKey,
	}, nil
}

func (s *server) JoinGroup(_ context.Context, r *pb.JoinGroupRequest) (*pb.JoinGroupResponse, error) {
	a, err := s.waiting(r.TransactionId)
	if err != nil {
		return nil, err
	}
	p, err := mls.Join(r.Welcome, a.keyPackage, a.client.Signer, orNil(r.RatchetTree), a.config(r.EncryptHandshake))
	if err != nil {
		return nil, err
	}
	a.joined(p.Done().Group)
	return &pb.JoinGroupResponse{StateId: r.TransactionId, EpochAuthenticator: a.group.EpochAuthenticator()}, nil
}

func (s *server) waiting(id uint32) (*actor, error) {
	a, err := s.actor(id)
	if err == nil && a.keyPackage == nil {
		err = status.Errorf(codes.NotFound, "%d has no key package", id)
	}
	return a, err
}

func (s *server) ExternalJoin(_ context.Context, r *pb.ExternalJoinRequest) (*pb.ExternalJoinResponse, error) {
	group, err := look(r.GroupInfo, r.RatchetTree)
	if err != nil {
		return nil, err
	}
	a, err := newActor(uint32(group.CipherSuite()), r.Identity)
	if err != nil {
		return nil, err
	}
	opts := mls.ExternalJoinOptions{RatchetTree: orNil(r.RatchetTree)}
	if r.RemovePrior {
		opts.Replaces = func(m mls.Member) bool { return isNamed(m, r.Identity) }
	}
	for _, psk := range r.Psks {
		a.psks[string(psk.PskId)] = psk.PskSecret
		opts.PreSharedKeys = append(opts.PreSharedKeys, mls.PreSharedKeyID{Type: mls.PSKExternal, ID: psk.PskId})
	}
	p, err := mls.JoinExternal(r.GroupInfo, a.client, opts, a.config(r.EncryptHandshake))
	if err != nil {
		return nil, err
	}
	out := p.Done()
	a.group = out.Group
	return &pb.ExternalJoinResponse{StateId: s.add(a), Commit: out.Message, EpochAuthenticator: a.group.EpochAuthenticator()}, nil
}

func (s *server) GroupInfo(_ context.Context, r *pb.GroupInfoRequest) (*pb.GroupInfoResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	info, err := a.group.GroupInfo(mls.GroupInfoOptions{ExternalTree: r.ExternalTree})
	if err != nil {
		return nil, err
	}
	response := &pb.GroupInfoResponse{GroupInfo: info}
	if r.ExternalTree {
		response.RatchetTree = a.group.RatchetTree()
	}
	return response, nil
}

func (s *server) StateAuth(_ context.Context, r *pb.StateAuthRequest) (*pb.StateAuthResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	return &pb.StateAuthResponse{StateAuthSecret: a.group.EpochAuthenticator()}, nil
}

func (s *server) Export(_ context.Context, r *pb.ExportRequest) (*pb.ExportResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	secret, err := a.group.Export(r.Label, r.Context, int(r.KeyLength))
	if err != nil {
		return nil, err
	}
	return &pb.ExportResponse{ExportedSecret: secret}, nil
}

func (s *server) Protect(_ context.Context, r *pb.ProtectRequest) (*pb.ProtectResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	p, err := a.group.Encrypt(r.Plaintext, r.AuthenticatedData)
	if err != nil {
		return nil, err
	}
	return &pb.ProtectResponse{Ciphertext: p.Done()}, nil
}

func (s *server) Unprotect(_ context.Context, r *pb.UnprotectRequest) (*pb.UnprotectResponse, error) {
	a, err := s.member(r.StateId)
	if err != nil {
		return nil, err
	}
	event, err := a.process(r.Ciphertext)
	if err != nil {
		return nil, err
	}
	message, ok := event.(*mls.ApplicationMessage)
	if !ok {
		return nil, status.Error(codes.InvalidArgument, "not an application message of another member")
	}
	return &pb.UnprotectResponse{AuthenticatedData: message.AuthenticatedData, Plaintext: message.Data}, nil
}

func (s *server) StorePSK(_ context.Context, r *pb.StorePSKRequest) (*pb.StorePSKResponse, error) {
	a, err := s.actor(r.StateOrTransactionId)
	if err != nil {
		return nil, err
	}
	a.psks[string(r.PskId)] = r.PskSecret
	return &pb.StorePSKResponse{}, nil
}

func (s *server) Free(_ context.Context, r *pb.FreeRequest) (*pb.FreeResponse, error) {
	if _, err := s.actor(r.StateId); err != nil {
		return nil, err
	}
	delete(s.actors, r.StateId)
	return &pb.FreeResponse{}, nil
}
