package identity

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"strconv"
	"sync"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// TextDigest returns the 32-byte hash of text that Ethereum wallets sign
// (ERC-191, version 0x45, "personal message").
func TextDigest(text string) [32]byte {
	h := sha3.NewLegacyKeccak256()
	h.Write([]byte("\x19Ethereum Signed Message:\n" + strconv.Itoa(len(text))))
	h.Write([]byte(text))
	return [32]byte(h.Sum(nil))
}

// recoverECDSA returns the address whose key signed digest, and the signature
// as it is remembered against replay: R, S, V with the lower of the two S.
//
// V stays as it was sent when S changes. So the twin that is mathematically
// the same signature (n−S, other V) recovers another address, and (n−S, same
// V) is accepted. Every reader of a log has to agree on this.
func recoverECDSA(digest [32]byte, signature []byte) (Identifier, []byte, error) {
	if len(signature) != 64 && len(signature) != 65 {
		return Identifier{}, nil, ErrSignatureInvalid
	}
	var r, s secp256k1.ModNScalar
	rOverflows, sOverflows := r.SetByteSlice(signature[:32]), s.SetByteSlice(signature[32:64])
	if rOverflows || sOverflows || r.IsZero() || s.IsZero() {
		return Identifier{}, nil, ErrEd25519
	}
	if len(signature) != 65 {
		return Identifier{}, nil, detailed(ErrECDSA, "expected exactly 65 bytes")
	}
	v := signature[64]
	var parity byte
	switch {
	case v == 0 || v == 1:
		parity = v
	case v == 27 || v == 28:
		parity = v - 27
	case v >= 35: // EIP-155, any chain
		parity = (v - 35) % 2
	default:
		return Identifier{}, nil, detailed(ErrECDSA, "invalid parity: %d", v)
	}
	if s.IsOverHalfOrder() {
		s.Negate()
	}
	raw := make([]byte, 65)
	r.PutBytesUnchecked(raw[:32])
	s.PutBytesUnchecked(raw[32:64])
	raw[64] = v

	compact := make([]byte, 65)
	compact[0] = 27 + parity
	copy(compact[1:], raw[:64])
	key, _, err := ecdsa.RecoverCompact(compact, digest[:])
	if err != nil {
		return Identifier{}, nil, ErrECDSA
	}
	return ethereumIdentifier(key), raw, nil
}

// ethereumIdentifier is the address of a key: the last 20 bytes of the hash of
// its coordinates.
func ethereumIdentifier(key *secp256k1.PublicKey) Identifier {
	h := sha3.NewLegacyKeccak256()
	h.Write(key.SerializeUncompressed()[1:])
	return Identifier{KindEthereum, "0x" + hex.EncodeToString(h.Sum(nil)[12:])}
}

// EOASignature wraps the 65 bytes R, S, V with which an externally owned
// account signed a text.
func EOASignature(rsv []byte) *associations.Signature {
	return &associations.Signature{Signature: &associations.Signature_Erc_191{
		Erc_191: &associations.RecoverableEcdsaSignature{Bytes: rsv},
	}}
}

// WalletKey is the private key of an externally owned Ethereum account. It
// does not show itself when printed or logged.
type WalletKey struct {
	key        *secp256k1.PrivateKey
	identifier func() Identifier
}

func newWalletKey(key *secp256k1.PrivateKey) *WalletKey {
	return &WalletKey{key, sync.OnceValue(func() Identifier { return ethereumIdentifier(publicKey(key)) })}
}

// publicKey is key.PubKey() without the tables that make it faster, whose unpacking
// takes longer than to open a client.
func publicKey(key *secp256k1.PrivateKey) *secp256k1.PublicKey {
	params := secp256k1.Params()
	var x, y, one secp256k1.FieldVal
	x.SetByteSlice(params.Gx.Bytes())
	y.SetByteSlice(params.Gy.Bytes())
	one.SetInt(1)
	base := secp256k1.MakeJacobianPoint(&x, &y, &one)
	var p secp256k1.JacobianPoint
	secp256k1.ScalarMultNonConst(&key.Key, &base, &p)
	p.ToAffine()
	return secp256k1.NewPublicKey(&p.X, &p.Y)
}

// GenerateWalletKey makes a new key from crypto/rand.
func GenerateWalletKey() (*WalletKey, error) {
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return nil, fmt.Errorf("identity: generating wallet key: %w", err)
	}
	return newWalletKey(key), nil
}

// ParseWalletKey reads the 32 bytes of a private key. It fails for 0 and for
// what is not below the order of the group.
func ParseWalletKey(b []byte) (*WalletKey, error) {
	var k secp256k1.ModNScalar
	defer k.Zero()
	if len(b) != 32 || k.SetByteSlice(b) || k.IsZero() {
		return nil, fmt.Errorf("identity: wallet key: %w", ErrEncoding)
	}
	return newWalletKey(secp256k1.NewPrivateKey(&k)), nil
}

// Identifier returns the account's address.
func (w *WalletKey) Identifier() Identifier { return w.identifier() }

// Bytes returns the 32 bytes of the private key. The caller wipes them.
func (w *WalletKey) Bytes() []byte { return w.key.Serialize() }

// SignText signs text as a wallet does ("personal_sign"): ERC-191,
// deterministic, V is 27 or 28.
func (w *WalletKey) SignText(text string) *associations.Signature {
	digest := TextDigest(text)
	compact := ecdsa.SignCompact(w.key, digest[:], false)
	return EOASignature(append(compact[1:], compact[0]))
}

// Wipe overwrites the key, which must not be used afterwards.
func (w *WalletKey) Wipe() { w.key.Zero() }

func (w *WalletKey) String() string               { return "WalletKey(redacted)" }
func (w *WalletKey) LogValue() slog.Value         { return slog.StringValue(w.String()) }
func (w *WalletKey) Format(s fmt.State, _ rune)   { fmt.Fprint(s, w.String()) }
func (w *WalletKey) MarshalText() ([]byte, error) { return []byte(w.String()), nil }
