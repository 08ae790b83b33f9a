package xmtp

import (
	"context"
	"errors"

	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/protocol"
)

// ErrorCode returns the name that official clients have for the reason of an error,
// such as "GroupError::GroupInactive", which they put in front of their texts; empty
// if they have none. Programs written in Go rather use [errors.Is] with the variables
// of this package, which say more.
func ErrorCode(err error) string {
	for _, verdict := range verdicts(err) {
		if verdict.code != "" {
			return verdict.code
		}
	}
	return ""
}

// IsRetryable tells whether what has failed may succeed if it is tried again as it
// is. What failed with [ErrNotPublished] stays in the outbox and is tried again by
// itself: it is not to be sent once more.
func IsRetryable(err error) bool {
	for _, verdict := range verdicts(err) {
		return verdict.retryable
	}
	return false
}

// A verdict is what official clients say of an error.
type verdict struct {
	err       error
	code      string
	retryable bool
}

// reasons are looked for in order, before those errors that bring a code of their own.
var reasons = []verdict{
	{ErrPaused, "GroupError::GroupPausedUntilUpdate", false},
	{ErrRemoved, "GroupError::GroupInactive", false},
	{ErrTooManyMembers, "GroupError::UserLimitExceeded", false},
	{ErrTooLong, "GroupError::TooManyCharacters", false},
	{ErrNoInbox, "GroupError::AddressNotFound", false},
	{ErrSuperAdmin, "GroupError::LeaveCantProcessed", false},
	{ErrOnlyMember, "GroupError::LeaveCantProcessed", false},
	{errLeaveDM, "GroupError::LeaveCantProcessed", false},
	{ErrDirectMessage, "GroupError::MetadataPermissionsError", false},
	{ErrInvalidPolicy, "GroupError::MetadataPermissionsError", false},
	{errNoMessage, "NotFound::MessageById", false},
	{errNoDM, "NotFound::DmByInbox", false},
	{ErrNotFound, "NotFound::GroupById", false},

	{ErrTooManyInstallations, "IdentityError::TooManyInstallations", false},
	{ErrOtherWallet, "IdentityError::InboxIdMismatch", false},
	{ErrNotRecovery, "AssociationError::MissingExistingMember", false},
	{ErrInboxLogFull, "ApiError::Api", false},
	{ErrInvalidPasskey, "ConversionError::InvalidPublicKey", false},
	{ErrInvalidPrivateKey, "", false},
	{ErrRevoked, "", false},
	{ErrWrongInbox, "", false},

	{ErrInUse, "PlatformStorageError::DatabaseLocked", true},
	{ErrWrongKey, "PlatformStorageError::SqlCipherKeyIncorrect", false},
	{ErrForeign, "PlatformStorageError::SqlCipherKeyIncorrect", false},
	{ErrKeyFile, "NotFound::CipherSalt", false},
	{ErrNewer, "StorageError::MigrationError", false},
	{ErrDamaged, "StorageError::DbDeserialize", false},
	{ErrDiskFull, "StorageError::DieselResult", true},
	{ErrReadOnly, "StorageError::DieselResult", true},
	{ErrDiskFault, "StorageError::DieselResult", true},
	{ErrStateRolledBack, "", false},
	{ErrStreamInUse, "", false},
	{ErrClosed, "", false},

	{content.ErrNoType, "MissingContentTypeError", false},
	{content.ErrUnknownType, "CodecError::CodecNotFound", false},
	{content.ErrOtherType, "CodecError::InvalidContentType", false},
	{content.ErrMalformed, "CodecError::Decode", false},
}

// wrappers are looked for after those: they say what has come of it.
var wrappers = []verdict{
	{ErrInvalidInbox, "ClientError::Association", false},
	{ErrNoKeyPackage, "GroupError::FailedToVerifyInstallations", false},
	{ErrNoInstallation, "GroupError::FailedToVerifyInstallations", false},
	{ErrRefused, "GroupError::Sync", false},
	{ErrNotPublished, "GroupError::SyncFailedToWait", true},
	{ErrNotVisible, "", true},
	{ErrNodeOrder, "", true},
	{ErrNodeAnswer, "", true},
	{context.DeadlineExceeded, "", true},
	{context.Canceled, "", true},
}

// verdicts are all that apply, the first one first.
func verdicts(err error) []verdict {
	if err == nil {
		return nil
	}
	all := matching(nil, reasons, err)
	if _, ok := errors.AsType[*NotAddedError](err); ok {
		all = append(all, verdict{err, "GroupError::FailedToVerifyInstallations", false})
	}
	if _, ok := errors.AsType[*AlreadyAssociatedError](err); ok {
		all = append(all, verdict{err, "AccountAlreadyAssociatedError", false})
	}
	if e, ok := errors.AsType[*protocol.CommitError](err); ok {
		all = append(all, verdict{err, e.Code, false})
	}
	if _, ok := errors.AsType[*protocol.VersionError](err); ok {
		all = append(all, verdict{err, "GroupError::GroupPausedUntilUpdate", false})
	}
	if code := identity.ErrorCode(err); code != "" {
		all = append(all, verdict{err, code, errors.Is(err, identity.ErrVerifierUnavailable)})
	}
	all = matching(all, wrappers, err)
	if _, ok := errors.AsType[*RateLimitError](err); ok {
		all = append(all, verdict{err, "ApiError::Api", true})
	}
	if s, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		all = append(all, verdict{err, "ApiError::Api", !permanent(s)})
	}
	return all
}

func matching(all, table []verdict, err error) []verdict {
	for _, v := range table {
		if errors.Is(err, v.err) {
			all = append(all, v)
		}
	}
	return all
}
