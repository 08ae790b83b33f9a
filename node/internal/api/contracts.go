package api

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
)

// errNoChains: signatures of contract wallets can't be checked here.
var errNoChains = errors.New("this node has no access to chains")

// VerifySmartContractWalletSignatures answers entry by entry. What may be
// different in a moment fails the call instead: clients take a verdict as final.
func (s *identityServer) VerifySmartContractWalletSignatures(ctx context.Context, req *identityapi.VerifySmartContractWalletSignaturesRequest) (*identityapi.VerifySmartContractWalletSignaturesResponse, error) {
	if err := s.readable(ctx, len(req.Signatures)); err != nil {
		return nil, err
	}
	response := &identityapi.VerifySmartContractWalletSignaturesResponse{}
	for _, signature := range req.Signatures {
		answer, err := s.verifyContract(ctx, signature)
		if err != nil {
			return nil, err
		}
		response.Responses = append(response.Responses, answer)
	}
	return response, nil
}

func (s *identityServer) verifyContract(ctx context.Context, signature *identityapi.VerifySmartContractWalletSignatureRequestSignature) (*identityapi.VerifySmartContractWalletSignaturesResponse_ValidationResponse, error) {
	refusal := func(text string) *identityapi.VerifySmartContractWalletSignaturesResponse_ValidationResponse {
		return &identityapi.VerifySmartContractWalletSignaturesResponse_ValidationResponse{Error: &text}
	}
	hash := signature.GetHash()
	if _, _, err := identity.ParseAccountID(signature.GetAccountId()); err != nil {
		return refusal(err.Error()), nil
	}
	if len(hash) != 32 {
		return refusal("the hash is not 32 bytes long"), nil
	}
	valid, block, err := s.askChain(ctx, signature.AccountId, [32]byte(hash), signature.Signature, signature.BlockNumber)
	if errors.Is(err, errNoChains) {
		return refusal(errNoChains.Error()), nil
	}
	if err != nil {
		return nil, s.unasked(ctx, fmt.Errorf("%w: %w", identity.ErrVerifierUnavailable, err))
	}
	return &identityapi.VerifySmartContractWalletSignaturesResponse_ValidationResponse{IsValid: valid, BlockNumber: proto.Uint64(block)}, nil
}

// askChain is the one way to a chain. What the identity log has shown to be
// valid needs none: endpoints forget old blocks, clients read old logs. For the
// rest each caller has a share, whatever other limits there are, so that nobody
// uses the node to get at somebody's endpoint.
func (s *identityServer) askChain(ctx context.Context, accountID string, hash [32]byte, signature []byte, block *uint64) (valid bool, asked uint64, err error) {
	if block != nil {
		q := identity.ContractQuestion{AccountID: accountID, Hash: hash, Signature: signature, Block: *block}
		accepted, err := s.Index.ContractAccepted(q)
		if err != nil {
			return false, 0, s.reading(ctx, err)
		}
		if accepted {
			return true, *block, nil
		}
	}
	if s.Verifier == nil {
		return false, 0, errNoChains
	}
	done, err := s.Limiter.contract(ctx)
	if err != nil {
		return false, 0, err
	}
	defer done()
	return s.Verifier.VerifyContractSignature(ctx, accountID, hash, signature, block)
}

// unasked translates why a chain gave no verdict.
func (s *identityServer) unasked(ctx context.Context, err error) error {
	if refused, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		return refused // by a limit
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return status.Error(codes.Unavailable, err.Error())
}

// verdicts are what chains have said, by [identity.ContractQuestion.Key].
type verdicts map[[32]byte]verdict

type verdict struct {
	valid bool
	err   error
}

// askChains gets the verdicts on an update's contract signatures. They are there
// before its signatures are checked, of which few are at a time: a chain may take
// its time. After a failure no more is asked.
func (s *identityServer) askChains(ctx context.Context, update *associations.IdentityUpdate) (verdicts, error) {
	questions, err := identity.ContractQuestions(update)
	if err != nil {
		return nil, err
	}
	found := make(verdicts, len(questions))
	var failure error
	for _, q := range questions {
		if _, _, err := identity.ParseAccountID(q.AccountID); err != nil {
			continue // it is refused without a verdict
		}
		key := q.Key()
		if _, there := found[key]; there {
			continue
		}
		v := verdict{err: failure}
		if failure == nil {
			v.valid, _, v.err = s.askChain(ctx, q.AccountID, q.Hash, q.Signature, &q.Block)
			failure = v.err
		}
		found[key] = v
	}
	return found, nil
}

// VerifyContractSignature answers [identity.Verify].
func (v verdicts) VerifyContractSignature(_ context.Context, accountID string, hash [32]byte, signature []byte, block *uint64) (valid bool, asked uint64, err error) {
	q := identity.ContractQuestion{AccountID: accountID, Hash: hash, Signature: signature, Block: *block}
	known, ok := v[q.Key()]
	if !ok {
		return false, 0, errors.New("an unforeseen question")
	}
	return known.valid, *block, known.err
}
