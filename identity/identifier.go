package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// Kind says what an [Identifier] is.
type Kind uint8

// The kinds of member. A smart contract wallet is an Ethereum member with a
// chain id.
const (
	KindEthereum Kind = 1 + iota
	KindPasskey
	KindInstallation
)

func (k Kind) String() string {
	switch k {
	case KindEthereum:
		return "ethereum"
	case KindPasskey:
		return "passkey"
	case KindInstallation:
		return "installation"
	}
	return "invalid"
}

// Identifier names a member of an inbox. It is comparable: two identifiers are
// the same member exactly if they are ==. The zero value names nobody.
//
// Addresses compare by their characters, passkeys and installations by the
// bytes of the key: another encoding of the same point is another passkey, and
// the relying party of a passkey takes no part.
type Identifier struct {
	kind Kind
	// value is the address as text, or the bytes of the key.
	value string
}

// ParseAddress reads an Ethereum address as people and wallets write it. The
// result is in lower case. A missing "0x" is accepted and not added; such an
// identifier owns no inbox. The error is [ErrInvalidAddress].
func ParseAddress(s string) (Identifier, error) {
	digits := strings.TrimPrefix(s, "0x")
	if len(digits) != 40 || !isHex(digits) {
		return Identifier{}, errInvalidAddress(s)
	}
	return Identifier{KindEthereum, strings.ToLower(s)}, nil
}

// ParsePasskey reads a passkey's public key in hex, in any case, with or
// without "0x". Whether the bytes are a point shows when a signature is
// verified. The error is [ErrInvalidHex].
func ParsePasskey(s string) (Identifier, error) {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		return Identifier{}, ErrInvalidHex
	}
	return Passkey(b), nil
}

// Passkey returns the identifier of a passkey's public key: a P-256 point,
// SEC1 encoded, 33 or 65 bytes.
func Passkey(key []byte) Identifier { return Identifier{KindPasskey, string(key)} }

// Installation returns the identifier of an installation's Ed25519 public key,
// 32 bytes.
func Installation(key []byte) Identifier { return Identifier{KindInstallation, string(key)} }

// ParseIdentifier reads a public identifier as identity updates and inbox
// look-ups carry it: an address verbatim, a passkey in hex. Kinds that are
// unspecified or unknown mean Ethereum. The error is [ErrInvalidPasskey].
func ParseIdentifier(kind associations.IdentifierKind, s string) (Identifier, error) {
	if kind != associations.IdentifierKind_IDENTIFIER_KIND_PASSKEY {
		return Identifier{KindEthereum, s}, nil
	}
	id, err := ParsePasskey(s)
	if err != nil {
		return Identifier{}, ErrInvalidPasskey
	}
	return id, nil
}

// IdentifierFromProto reads m as it stands; nothing is sanitised. The error is
// [ErrMissingField].
func IdentifierFromProto(m *associations.MemberIdentifier) (Identifier, error) {
	switch k := m.GetKind().(type) {
	case *associations.MemberIdentifier_EthereumAddress:
		return Identifier{KindEthereum, k.EthereumAddress}, nil
	case *associations.MemberIdentifier_InstallationPublicKey:
		return Installation(k.InstallationPublicKey), nil
	case *associations.MemberIdentifier_Passkey:
		return Passkey(k.Passkey.GetKey()), nil
	}
	if m == nil {
		return Identifier{}, errMissingField("member_identifier", "identity::associations::MemberIdentifier")
	}
	return Identifier{}, errMissingField("member_identifier", "identity::associations::member_identifier::Kind")
}

// Proto returns the identifier as it travels.
func (id Identifier) Proto() *associations.MemberIdentifier {
	return id.proto("")
}

func (id Identifier) proto(relyingParty string) *associations.MemberIdentifier {
	switch id.kind {
	case KindEthereum:
		return &associations.MemberIdentifier{Kind: &associations.MemberIdentifier_EthereumAddress{EthereumAddress: id.value}}
	case KindInstallation:
		return &associations.MemberIdentifier{Kind: &associations.MemberIdentifier_InstallationPublicKey{InstallationPublicKey: []byte(id.value)}}
	case KindPasskey:
		return &associations.MemberIdentifier{Kind: &associations.MemberIdentifier_Passkey{Passkey: &associations.Passkey{
			Key: []byte(id.value), RelyingParty: optional(relyingParty),
		}}}
	}
	return &associations.MemberIdentifier{}
}

// ProtoKind returns the kind under which identity updates and inbox look-ups
// carry id. An installation is no public identifier: unspecified.
func (id Identifier) ProtoKind() associations.IdentifierKind {
	switch id.kind {
	case KindEthereum:
		return associations.IdentifierKind_IDENTIFIER_KIND_ETHEREUM
	case KindPasskey:
		return associations.IdentifierKind_IDENTIFIER_KIND_PASSKEY
	}
	return associations.IdentifierKind_IDENTIFIER_KIND_UNSPECIFIED
}

// Kind returns what id is; 0 for the zero value.
func (id Identifier) Kind() Kind { return id.kind }

// IsZero reports whether id names nobody.
func (id Identifier) IsZero() bool { return id.kind == 0 }

// Bytes returns a copy of the key's bytes, or of the characters of the
// address.
func (id Identifier) Bytes() []byte { return []byte(id.value) }

// String returns the canonical form: the address, or the key in lower-case hex
// without prefix.
func (id Identifier) String() string {
	if id.kind == KindEthereum {
		return id.value
	}
	return hex.EncodeToString([]byte(id.value))
}

// validate reports whether id is in the form in which new updates should carry
// it. What other people's logs hold is judged by less.
func (id Identifier) validate() error {
	switch id.kind {
	case KindEthereum:
		if !isAccountAddress(id.value) || strings.ToLower(id.value) != id.value {
			return ErrInvalidAccountAddress
		}
	case KindPasskey:
		if _, err := parsePasskeyPoint([]byte(id.value)); err != nil {
			return err
		}
	case KindInstallation:
		// Whether it is a point shows when it signs; it need not be one to be
		// revoked.
		if len(id.value) != ed25519.PublicKeySize {
			return checkInstallationKey([]byte(id.value))
		}
	default:
		return errMissingField("member_identifier", "identity::associations::MemberIdentifier")
	}
	return nil
}

// key is a string that sorts and is unique over all kinds.
func (id Identifier) key() string { return string([]byte{byte(id.kind)}) + id.value }

// DefaultNonce is the nonce with which the official SDKs create a wallet's
// first inbox.
const DefaultNonce = 1

// DeriveInboxID returns the id of the inbox that id creates with nonce: 64
// lower-case hex digits. The errors are [ErrInvalidAccountAddress] and, for an
// installation, [ErrNotIdentifier].
func DeriveInboxID(id Identifier, nonce uint64) (string, error) {
	switch {
	case id.kind == KindEthereum && !isAccountAddress(id.value):
		return "", ErrInvalidAccountAddress
	case id.kind != KindEthereum && id.kind != KindPasskey:
		return "", ErrNotIdentifier
	}
	sum := sha256.Sum256(strconv.AppendUint([]byte(id.String()), nonce, 10))
	return hex.EncodeToString(sum[:]), nil
}

// CheckInboxID returns [ErrInvalidInboxID] unless s is 64 lower-case hex
// digits.
func CheckInboxID(s string) error {
	if len(s) != 64 || !isHex(s) || strings.ToLower(s) != s {
		return ErrInvalidInboxID
	}
	return nil
}

// isAccountAddress is the check before an inbox id is derived. It doesn't
// mind the case.
func isAccountAddress(s string) bool {
	return len(s) == 42 && strings.HasPrefix(s, "0x") && isHex(s[2:])
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// optional is s as a field with presence; the empty string is absent.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
