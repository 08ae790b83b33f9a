package identity

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// ContractVerifier asks a chain whether a smart contract wallet accepts a
// signature (ERC-1271, ERC-6492). accountID is CAIP-10
// ("eip155:8453:0x1234…"). A nil block means the newest; the answer says which
// block was asked.
//
// A verdict is valid or not, with a nil error. An error means that the chain
// could not be asked now. Verdicts depend on the chain's state: positive ones
// may be kept forever under all four arguments, negative ones never.
type ContractVerifier interface {
	VerifyContractSignature(ctx context.Context, accountID string, hash [32]byte, signature []byte, block *uint64) (valid bool, asked uint64, err error)
}

var (
	caip2   = regexp.MustCompile(`^[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}$`)
	account = regexp.MustCompile(`^[-.%a-zA-Z0-9]{1,128}$`)
)

// splitAccountID reads any CAIP-10 account: an update may name it, although it
// can't sign.
func splitAccountID(s string) (chain, address string, err error) {
	if n := strings.Count(s, ":") + 1; n != 3 {
		return "", "", detailed(ErrInvalidLength, "type account_id has invalid length. expected 3 got %d", n)
	}
	i := strings.LastIndexByte(s, ':')
	chain, address = s[:i], s[i+1:]
	if !caip2.MatchString(chain) || !account.MatchString(address) {
		return "", "", detailed(ErrInvalidValue, "type eth account_id invalid. expected well-formed chain_id & address, got %s", s)
	}
	return chain, address, nil
}

// ParseAccountID reads a CAIP-10 account that can sign for an inbox, such as
// "eip155:8453:0x1234…". The errors are [ErrInvalidLength] and [ErrInvalidValue]
// for what is no CAIP-10, [ErrInvalidAddress], [ErrNotEIP155] and [ErrInvalidChainID].
func ParseAccountID(s string) (chainID uint64, address Identifier, err error) {
	chain, addr, err := splitAccountID(s)
	if err != nil {
		return 0, Identifier{}, err
	}
	if address, err = ParseAddress(addr); err != nil {
		return 0, Identifier{}, err
	}
	number, ok := strings.CutPrefix(chain, "eip155:")
	if !ok {
		return 0, Identifier{}, ErrNotEIP155
	}
	if chainID, err = strconv.ParseUint(number, 10, 64); err != nil {
		return 0, Identifier{}, ErrInvalidChainID
	}
	return chainID, address, nil
}

// AccountID returns the CAIP-10 form of a contract wallet's address.
func AccountID(chainID uint64, address Identifier) string {
	return fmt.Sprintf("eip155:%d:%s", chainID, address)
}

// ContractSignature wraps a smart contract wallet's signature of a text, to be
// judged at a block of the wallet's chain.
func ContractSignature(accountID string, block uint64, signature []byte) *associations.Signature {
	return &associations.Signature{Signature: &associations.Signature_Erc_6492{
		Erc_6492: &associations.SmartContractWalletSignature{
			AccountId:   accountID,
			BlockNumber: block,
			Signature:   signature,
		},
	}}
}

// ContractQuestion is one that a [ContractVerifier] can be asked, with all that
// the answer depends on.
type ContractQuestion struct {
	AccountID string // CAIP-10
	Hash      [32]byte
	Signature []byte
	Block     uint64
}

// Key is the same for equal questions only.
func (q ContractQuestion) Key() [32]byte {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(q.AccountID))))
	h.Write([]byte(q.AccountID))
	h.Write(q.Hash[:])
	h.Write(binary.BigEndian.AppendUint64(nil, q.Block))
	h.Write(q.Signature)
	return [32]byte(h.Sum(nil))
}

// ContractQuestions lists what [Verify] asks about an update. The error is that
// of an update that can't be decoded.
func ContractQuestions(u *associations.IdentityUpdate) ([]ContractQuestion, error) {
	actions, err := decodeActions(u)
	if err != nil {
		return nil, err
	}
	var questions []ContractQuestion
	// Most updates have no contract's signature, and need no text.
	digest := sync.OnceValue(func() [32]byte {
		return TextDigest(signatureText(u.GetInboxId(), u.GetClientTimestampNs(), actions))
	})
	for _, a := range u.GetActions() {
		for _, sig := range signaturesOf(a) {
			if s := sig.GetErc_6492(); s != nil {
				questions = append(questions, ContractQuestion{s.GetAccountId(), digest(), s.GetSignature(), s.GetBlockNumber()})
			}
		}
	}
	return questions, nil
}

// verifyContract returns the facts and the block at which they hold.
//
// What is wrong with the account id on its face is refused before the chain is
// asked, so that no fault of the chain makes it look as if it could pass later.
func verifyContract(ctx context.Context, t *signingText, accountID string, signature []byte, block *uint64, cv ContractVerifier) (verifiedSignature, uint64, error) {
	chainID, address, err := ParseAccountID(accountID)
	if err != nil {
		return verifiedSignature{}, 0, err
	}
	if cv == nil {
		return verifiedSignature{}, 0, ErrVerifierUnavailable
	}
	valid, asked, err := cv.VerifyContractSignature(ctx, accountID, t.digest(), signature, block)
	if err != nil {
		return verifiedSignature{}, 0, fmt.Errorf("%w: %w", ErrVerifierUnavailable, err)
	}
	if !valid {
		return verifiedSignature{}, 0, ErrSignatureInvalid
	}
	return verifiedSignature{
		kind:     signatureERC1271,
		signer:   address,
		raw:      string(signature),
		contract: true,
		chainID:  chainID,
	}, asked, nil
}
