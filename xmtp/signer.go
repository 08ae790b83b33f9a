package xmtp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/go-xmtp/go-xmtp/identity"
)

// Signer is a wallet or passkey that owns an inbox. A client asks it once, when
// its installation is registered, and for changes of the inbox.
type Signer interface {
	// Address is the wallet's Ethereum address: "0x" and 40 hex digits; or, of a
	// [PasskeySigner], its public key in hex.
	Address() string
	// SignText signs a text that a person can read, as ERC-191 says
	// ("personal_sign"), and returns R, S and V, 65 bytes; or, for a
	// [ContractSigner], what the contract takes.
	SignText(ctx context.Context, text string) ([]byte, error)
}

// identifierOf returns who signs.
func identifierOf(signer Signer) (identity.Identifier, error) {
	id, err := parseIdentifier(signer.Address())
	if err != nil {
		return id, fmt.Errorf("the signer's address: %w", err)
	}
	return id, nil
}

// parseIdentifier reads an address or the public key of a passkey in hex, which
// differ by their lengths.
func parseIdentifier(s string) (identity.Identifier, error) {
	switch len(strings.TrimPrefix(s, "0x")) {
	case 2 * 33, 2 * 65:
		return identity.ParsePasskey(s)
	}
	return identity.ParseAddress(s)
}

// signWith lets a signer sign a request.
func signWith(ctx context.Context, signer Signer, request *identity.SignatureRequest, chain identity.ContractVerifier) error {
	id, err := identifierOf(signer)
	if err != nil {
		return err
	}
	if passkey, ok := signer.(*PasskeySigner); ok {
		signature, err := passkey.sign(ctx, request.Text())
		if err != nil {
			return fmt.Errorf("the passkey did not sign: %w", err)
		}
		if err := request.AddSignature(ctx, identity.PasskeySignature(passkey.publicKey, signature.Signature, signature.AuthenticatorData, signature.ClientDataJSON), chain); err != nil {
			return fmt.Errorf("the passkey's signature: %w", err)
		}
		return nil
	}
	signature, err := signer.SignText(ctx, request.Text())
	if err != nil {
		return fmt.Errorf("the wallet did not sign: %w", err)
	}
	if contract, ok := signer.(ContractSigner); ok {
		err = request.AddContractSignature(ctx, identity.AccountID(contract.ChainID(), id), signature, chain)
	} else {
		err = request.AddSignature(ctx, identity.EOASignature(signature), chain)
	}
	if err != nil {
		return fmt.Errorf("the wallet's signature: %w", err)
	}
	return nil
}

// WalletSigner returns a signer for a wallet that is somewhere else: in an app,
// on a device, behind an API.
func WalletSigner(address string, sign func(ctx context.Context, text string) ([]byte, error)) Signer {
	return &walletSigner{address, sign}
}

// ContractSigner is a [Signer] whose wallet is a smart contract. The client asks
// the node whether the contract accepts the signature, at the newest block of
// the contract's chain.
type ContractSigner interface {
	Signer
	// ChainID is that of the chain that the contract is on, or will be: 1 for
	// Ethereum, 8453 for Base.
	ChainID() uint64
}

// ContractWalletSigner returns a signer for a smart-contract wallet. The
// function returns what the contract accepts as a signature of the text's
// ERC-191 hash (ERC-1271); for a contract that is yet to be created, wrapped
// with how (ERC-6492).
func ContractWalletSigner(address string, chainID uint64, sign func(ctx context.Context, text string) ([]byte, error)) ContractSigner {
	return &contractSigner{walletSigner{address, sign}, chainID}
}

type contractSigner struct {
	walletSigner
	chainID uint64
}

func (s *contractSigner) ChainID() uint64 { return s.chainID }

type walletSigner struct {
	address string
	sign    func(ctx context.Context, text string) ([]byte, error)
}

func (s *walletSigner) Address() string { return s.address }

func (s *walletSigner) SignText(ctx context.Context, text string) ([]byte, error) {
	return s.sign(ctx, text)
}

// PrivateKeySigner signs with a secp256k1 private key that the program has. It
// prints as its address.
type PrivateKeySigner struct {
	key *identity.WalletKey
}

// ErrInvalidPrivateKey is returned for a private key that is none.
var ErrInvalidPrivateKey = errors.New("xmtp: a private key is 32 bytes, 64 hex digits, and neither zero nor too large")

// NewPrivateKeySigner reads a private key: 64 hex digits, with or without "0x".
// The error is [ErrInvalidPrivateKey].
func NewPrivateKeySigner(key string) (*PrivateKeySigner, error) {
	b, err := hex.DecodeString(strings.TrimPrefix(strings.TrimSpace(key), "0x"))
	defer clear(b)
	if err != nil {
		return nil, ErrInvalidPrivateKey
	}
	k, err := identity.ParseWalletKey(b)
	if err != nil {
		return nil, ErrInvalidPrivateKey
	}
	return &PrivateKeySigner{k}, nil
}

// GeneratePrivateKeySigner returns a signer with a new key. To keep it, see
// [PrivateKeySigner.PrivateKey].
func GeneratePrivateKeySigner() (*PrivateKeySigner, error) {
	key, err := identity.GenerateWalletKey()
	if err != nil {
		return nil, fmt.Errorf("xmtp: making a private key: %w", err)
	}
	return &PrivateKeySigner{key}, nil
}

// Address is the key's Ethereum address, in lower case.
func (s *PrivateKeySigner) Address() string { return s.key.Identifier().String() }

// PrivateKey returns the key as 64 hex digits. Whoever has it owns the inbox.
func (s *PrivateKeySigner) PrivateKey() string { return hex.EncodeToString(s.key.Bytes()) }

// Format prints the address, whatever is asked for, so that the key gets into no log.
func (s *PrivateKeySigner) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.Address()) }

// SignText signs as ERC-191 says.
func (s *PrivateKeySigner) SignText(_ context.Context, text string) ([]byte, error) {
	return s.key.SignText(text).GetErc_191().GetBytes(), nil
}
