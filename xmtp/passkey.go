package xmtp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/hex"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// PasskeySigner is a [Signer] that is a passkey: a P-256 key on a device or in a
// password manager, which signs by WebAuthn. It can own an inbox as a wallet can;
// it has no Ethereum address, and so is found by its public key.
type PasskeySigner struct {
	publicKey []byte
	assert    func(ctx context.Context, challenge []byte) (*PasskeyAssertion, error)
}

// PasskeyAssertion is what an authenticator answers (W3C Web Authentication,
// AuthenticatorAssertionResponse).
type PasskeyAssertion struct {
	Signature         []byte // ECDSA over P-256 and SHA-256, ASN.1 DER
	AuthenticatorData []byte
	// ClientDataJSON has the challenge, and the origin of the page or app.
	ClientDataJSON []byte
}

// ErrInvalidPasskey is returned for a public key that is none of a passkey.
var ErrInvalidPasskey = errors.New("xmtp: a passkey's public key is a point of P-256, SEC1 encoded, 33 or 65 bytes")

// NewPasskeySigner returns the signer of a passkey. The public key is a point of
// P-256 as in SEC1, 33 bytes compressed or 65 uncompressed; it names the passkey,
// and in the other form names another one, so always give it in the same form. The
// function has the authenticator sign the challenge: what WebAuthn calls
// navigator.credentials.get, with the challenge as it is, not hashed. The error is
// [ErrInvalidPasskey].
func NewPasskeySigner(publicKey []byte, assert func(ctx context.Context, challenge []byte) (*PasskeyAssertion, error)) (*PasskeySigner, error) {
	uncompressed := publicKey
	if len(publicKey) == 33 {
		x, y := elliptic.UnmarshalCompressed(elliptic.P256(), publicKey)
		if x == nil {
			return nil, ErrInvalidPasskey
		}
		uncompressed = append([]byte{4}, append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)...)
	}
	if _, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed); err != nil {
		return nil, ErrInvalidPasskey
	}
	return &PasskeySigner{bytes.Clone(publicKey), assert}, nil
}

// Address is the passkey's public key: 66 or 130 lower-case hex digits.
func (s *PasskeySigner) Address() string { return hex.EncodeToString(s.publicKey) }

// SignText returns the assertion, with the text as its challenge, as the network
// carries it: a serialized RecoverablePasskeySignature.
func (s *PasskeySigner) SignText(ctx context.Context, text string) ([]byte, error) {
	a, err := s.sign(ctx, text)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&associations.RecoverablePasskeySignature{
		PublicKey: s.publicKey, Signature: a.Signature, AuthenticatorData: a.AuthenticatorData, ClientDataJson: a.ClientDataJSON,
	})
}

func (s *PasskeySigner) sign(ctx context.Context, text string) (*PasskeyAssertion, error) {
	a, err := s.assert(ctx, []byte(text))
	if err == nil && a == nil {
		err = fmt.Errorf("no assertion")
	}
	return a, err
}
