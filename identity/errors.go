package identity

import (
	"errors"
	"fmt"
	"strconv"
)

// Error is a verdict: what it is about was understood and refused. Its text
// is word for word what the reference implementation prints.
type Error struct {
	// Code is the reference's name of the error, "AssociationError::Replay".
	Code string
	text string
}

func (e *Error) Error() string { return e.text }

// Is reports whether target is an [Error] of the same code, so that errors
// whose text has details match the sentinel of their kind.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// ErrorCode returns the reference's name of the first [Error] in err's tree,
// or "".
func ErrorCode(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// Rules of the association state that an update can break.
var (
	// ErrGeneric has its reason in the text; the only one is adding oneself.
	ErrGeneric                      = &Error{"AssociationError::Generic", "Error creating association"}
	ErrMultipleCreate               = &Error{"AssociationError::MultipleCreate", "Multiple create operations detected"}
	ErrNotCreated                   = &Error{"AssociationError::NotCreated", "XID not yet created"}
	ErrMemberNotAllowed             = &Error{"AssociationError::MemberNotAllowed", "Member not allowed to add"}
	ErrMissingExistingMember        = &Error{"AssociationError::MissingExistingMember", "Missing existing member"}
	ErrLegacySignatureReuse         = &Error{"AssociationError::LegacySignatureReuse", "Legacy key is only allowed to be associated using a legacy signature with nonce 0"}
	ErrNewMemberIDSignatureMismatch = &Error{"AssociationError::NewMemberIdSignatureMismatch", "The new member identifier does not match the signer"}
	ErrWrongInboxID                 = &Error{"AssociationError::WrongInboxId", "Wrong inbox_id specified on association"}
	ErrSignatureNotAllowed          = &Error{"AssociationError::SignatureNotAllowed", "Signature not allowed for role"}
	ErrReplay                       = &Error{"AssociationError::Replay", "Replay detected"}
	// ErrMissingIdentityUpdate is the verdict on a log without updates.
	ErrMissingIdentityUpdate = &Error{"AssociationError::MissingIdentityUpdate", "Missing identity update"}
	ErrChainIDMismatch       = &Error{"AssociationError::ChainIdMismatch", "Wrong chain id"}
	ErrInvalidAccountAddress = &Error{"AssociationError::InvalidAccountAddress", "Invalid account address: Must be 42 hex characters, starting with '0x'."}
	ErrNotIdentifier         = &Error{"AssociationError::NotIdentifier", "Installation Keys are not a public identifier"}
)

// Signatures that don't verify.
var (
	ErrSignatureInvalid  = &Error{"SignatureError::Invalid", "Signature validation failed"}
	ErrInvalidPublicKey  = &Error{"SignatureError::InvalidPublicKey", "Invalid public key"}
	ErrInvalidClientData = &Error{"SignatureError::InvalidClientData", "client_data is invalid"}
	ErrSignatureLength   = &Error{"SignatureError::TryFromSliceError", "could not convert slice to array"}
	// ErrECDSA is an Ethereum signature of a form that can't be recovered.
	ErrECDSA = &Error{"SignatureError::Signature", "signature error"}
	// ErrEd25519 covers, for historical reasons, everything that the
	// reference's curve libraries refuse, on all curves.
	ErrEd25519        = &Error{"SignatureError::Ed25519Error", "ed25519 Signature failed signature error"}
	ErrInvalidChainID = &Error{"AccountIdError::InvalidChainId", "Chain ID is not a valid u64"}
	ErrNotEIP155      = &Error{"AccountIdError::MissingEip155Prefix", "Chain ID is not prefixed with eip155:"}
	// ErrVerifierUnavailable is no verdict: the chain could not be asked, and
	// the same update may verify later.
	ErrVerifierUnavailable = &Error{"SignatureError::VerifierError", "smart contract wallet verifier unavailable"}
)

// Input that can't be read.
var (
	ErrInvalidAddress = &Error{"IdentifierValidationError::InvalidAddresses", "invalid addresses"}
	ErrInvalidHex     = &Error{"IdentifierValidationError::HexDecode", "address is invalid hex address"}
	// ErrMissingField is a field of an update that must be there.
	ErrMissingField = &Error{"ConversionError::Missing", "missing field"}
	// ErrInvalidLength is an account id of other than three parts.
	ErrInvalidLength = &Error{"ConversionError::InvalidLength", "invalid length"}
	// ErrInvalidValue is an account id with characters it must not have.
	ErrInvalidValue = &Error{"ConversionError::InvalidValue", "invalid value"}
	// ErrInvalidPasskey is a passkey that is not written in hex.
	ErrInvalidPasskey = &Error{"ConversionError::InvalidPublicKey", "passkey is invalid: None"}
	// ErrInvalidInstallationKey is an installation key that is no point.
	ErrInvalidInstallationKey = &Error{"ConversionError::EdSignature", "signature error"}
)

// Errors without a counterpart in the reference's validation.
var (
	// ErrUnknownSigner is returned for a signature that a
	// [SignatureRequest] does not wait for.
	ErrUnknownSigner = errors.New("Unknown signer") //lint:ignore ST1005 the reference's text
	// ErrSignaturesOutstanding is returned by [SignatureRequest.Update] while
	// signatures are missing.
	ErrSignaturesOutstanding = errors.New("identity: signatures outstanding")
	// ErrInvalidInboxID is a string that is not 64 lower-case hex digits.
	ErrInvalidInboxID = errors.New("identity: inbox id is not 64 lower-case hex digits")
	// ErrForeignLog is a log that is valid, but of another inbox than the one
	// asked for.
	ErrForeignLog = errors.New("identity: log belongs to another inbox")
	// ErrEncoding is stored data that this package did not write.
	ErrEncoding = errors.New("identity: malformed encoding")
	// ErrInstallationLimit is returned by [State.CheckInstallationLimit].
	ErrInstallationLimit = errors.New("identity: installation limit reached")
)

// detailed is base with a text of its own.
func detailed(base *Error, format string, args ...any) *Error {
	return &Error{base.Code, fmt.Sprintf(format, args...)}
}

func errMemberNotAllowed(existing, added Kind) error {
	return detailed(ErrMemberNotAllowed, "Member of kind %v not allowed to add %v", existing, added)
}

func errSignatureNotAllowed(role Kind, kind SignatureKind) error {
	return detailed(ErrSignatureNotAllowed, "Signature not allowed for role %q %q", role, kind)
}

func errChainIDMismatch(added, signing uint64) error {
	return detailed(ErrChainIDMismatch, "Wrong chain id. Initially added with %d but now signing from %d", added, signing)
}

func errMissingField(item, protoType string) error {
	const ns = "xmtp_proto::generated::xmtp::"
	return detailed(ErrMissingField, "missing field %s of type %s%s during conversion from protobuf", item, ns, protoType)
}

func errInvalidAddress(s string) error {
	return detailed(ErrInvalidAddress, "invalid addresses: [%s]", strconv.Quote(s))
}
