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
	Code  string
	text  string
	cause error
}

func newError(code, text string) *Error { return &Error{Code: code, text: text} }

func (e *Error) Error() string { return e.text }

// Unwrap returns the error of package mls behind e, if there is one.
func (e *Error) Unwrap() error { return e.cause }

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
	ErrGeneric                      = newError("AssociationError::Generic", "Error creating association")
	ErrMultipleCreate               = newError("AssociationError::MultipleCreate", "Multiple create operations detected")
	ErrNotCreated                   = newError("AssociationError::NotCreated", "XID not yet created")
	ErrMemberNotAllowed             = newError("AssociationError::MemberNotAllowed", "Member not allowed to add")
	ErrMissingExistingMember        = newError("AssociationError::MissingExistingMember", "Missing existing member")
	ErrLegacySignatureReuse         = newError("AssociationError::LegacySignatureReuse", "Legacy key is only allowed to be associated using a legacy signature with nonce 0")
	ErrNewMemberIDSignatureMismatch = newError("AssociationError::NewMemberIdSignatureMismatch", "The new member identifier does not match the signer")
	ErrWrongInboxID                 = newError("AssociationError::WrongInboxId", "Wrong inbox_id specified on association")
	ErrSignatureNotAllowed          = newError("AssociationError::SignatureNotAllowed", "Signature not allowed for role")
	ErrReplay                       = newError("AssociationError::Replay", "Replay detected")
	// ErrMissingIdentityUpdate is the verdict on a log without updates.
	ErrMissingIdentityUpdate = newError("AssociationError::MissingIdentityUpdate", "Missing identity update")
	ErrChainIDMismatch       = newError("AssociationError::ChainIdMismatch", "Wrong chain id")
	ErrInvalidAccountAddress = newError("AssociationError::InvalidAccountAddress", "Invalid account address: Must be 42 hex characters, starting with '0x'.")
	ErrNotIdentifier         = newError("AssociationError::NotIdentifier", "Installation Keys are not a public identifier")
)

// Signatures that don't verify.
var (
	ErrSignatureInvalid  = newError("SignatureError::Invalid", "Signature validation failed")
	ErrInvalidPublicKey  = newError("SignatureError::InvalidPublicKey", "Invalid public key")
	ErrInvalidClientData = newError("SignatureError::InvalidClientData", "client_data is invalid")
	ErrSignatureLength   = newError("SignatureError::TryFromSliceError", "could not convert slice to array")
	// ErrECDSA is an Ethereum signature of a form that can't be recovered.
	ErrECDSA = newError("SignatureError::Signature", "signature error")
	// ErrEd25519 covers, for historical reasons, everything that the
	// reference's curve libraries refuse, on all curves.
	ErrEd25519        = newError("SignatureError::Ed25519Error", "ed25519 Signature failed signature error")
	ErrInvalidChainID = newError("AccountIdError::InvalidChainId", "Chain ID is not a valid u64")
	ErrNotEIP155      = newError("AccountIdError::MissingEip155Prefix", "Chain ID is not prefixed with eip155:")
	// ErrVerifierUnavailable is no verdict: the chain could not be asked, and
	// the same update may verify later.
	ErrVerifierUnavailable = newError("SignatureError::VerifierError", "smart contract wallet verifier unavailable")
)

// Input that can't be read.
var (
	ErrInvalidAddress = newError("IdentifierValidationError::InvalidAddresses", "invalid addresses")
	ErrInvalidHex     = newError("IdentifierValidationError::HexDecode", "address is invalid hex address")
	// ErrMissingField is a field of an update that must be there.
	ErrMissingField = newError("ConversionError::Missing", "missing field")
	// ErrInvalidLength is an account id of other than three parts.
	ErrInvalidLength = newError("ConversionError::InvalidLength", "invalid length")
	// ErrInvalidValue is an account id with characters it must not have.
	ErrInvalidValue = newError("ConversionError::InvalidValue", "invalid value")
	// ErrInvalidPasskey is a passkey that is not written in hex.
	ErrInvalidPasskey = newError("ConversionError::InvalidPublicKey", "passkey is invalid: None")
	// ErrInvalidInstallationKey is an installation key that is no point.
	ErrInvalidInstallationKey = newError("ConversionError::EdSignature", "signature error")
)

// Key packages that can't be used.
var (
	// ErrKeyPackageEncoding is not the encoding of one key package.
	ErrKeyPackageEncoding = newError("KeyPackageVerificationError::TlsError", "TLS Codec error")
	// ErrKeyPackageInvalid wraps the error of package mls that tells the rule.
	ErrKeyPackageInvalid = newError("KeyPackageVerificationError::MlsValidation", "mls validation")
	ErrCredentialType    = newError("KeyPackageVerificationError::WrongCredentialType", "wrong credential type")
	// ErrCredentialEncoding is a credential that is no MlsCredential.
	ErrCredentialEncoding = newError("ConversionError::Decode", "decoding proto MlsCredential")
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
	// ErrWelcomeExtension is a key package extension about welcomes that can't
	// be used.
	ErrWelcomeExtension = errors.New("identity: unusable welcome extension in key package")
	// ErrEncoding is stored data that this package did not write.
	ErrEncoding = errors.New("identity: malformed encoding")
	// ErrInstallationLimit is returned by [State.CheckInstallationLimit].
	ErrInstallationLimit = errors.New("identity: installation limit reached")
)

// detailed is base with a text of its own.
func detailed(base *Error, format string, args ...any) *Error {
	return newError(base.Code, fmt.Sprintf(format, args...))
}

func errMemberNotAllowed(existing, added Kind) error {
	return detailed(ErrMemberNotAllowed, "Member of kind %v not allowed to add %v", existing, added)
}

func errSignatureNotAllowed(role Kind, kind signatureKind) error {
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
