package protocol

import (
	"errors"
	"fmt"
)

// Errors of what a group's extensions hold, and of messages.
var (
	// ErrGroupState is an extension of the group context that is missing or can't
	// be read. A group with such a state can't be followed.
	ErrGroupState = errors.New("malformed group state")

	// ErrEnvelope is application data that is no PlaintextEnvelope.
	ErrEnvelope = errors.New("malformed message envelope")

	// ErrNoContent is an envelope that clients are to ignore: it was for device
	// sync of an earlier time.
	ErrNoContent = errors.New("message envelope without content")
)

// CommitError tells why a commit, or a message, is skipped for good: every member
// who sees it comes to the same verdict, the group stays in its epoch, and the next
// message is taken. Errors that aren't a CommitError or a [VersionError] are no
// verdict: what was asked for could not be had, and the same commit is to be
// checked again later.
type CommitError struct {
	// Code is the name that the official client gives to the reason.
	Code  string
	text  string
	cause error
}

func (e *CommitError) Error() string { return e.text }

// Is reports whether target is a CommitError of the same code, so that errors with
// details match the variable of their kind.
func (e *CommitError) Is(target error) bool {
	t, ok := target.(*CommitError)
	return ok && t.Code == e.Code
}

// Unwrap returns the error that led to the verdict, if one did.
func (e *CommitError) Unwrap() error { return e.cause }

func (e *CommitError) because(cause error) error {
	return &CommitError{e.Code, fmt.Sprintf("%s: %v", e.text, cause), cause}
}

func (e *CommitError) detail(format string, args ...any) error {
	return &CommitError{e.Code, e.text + ": " + fmt.Sprintf(format, args...), nil}
}

func commitError(code, text string) *CommitError {
	return &CommitError{Code: code, text: "protocol: " + text}
}

// The verdicts on commits, in the order of the checks.
var (
	ErrInvalidSender         = commitError("GroupMessageProcessingError::InvalidSender", "sender is no member, or not the one he was")
	ErrExtensionNotRequired  = commitError("GroupContextExtensionsProposalValidationError::ExtensionNotInRequiredCapabilities", "group extension is not in the required capabilities")
	ErrExtensionNotSupported = commitError("GroupContextExtensionsProposalValidationError::RequiredExtensionNotSupportedByAllMembers", "newly required extension is not supported by all members")
	ErrMetadata              = commitError("CommitValidationError::GroupMetadata", "immutable metadata can't be read")
	ErrMutableMetadata       = commitError("CommitValidationError::GroupMutableMetadata", "mutable metadata can't be read")
	ErrNoMutableMetadata     = commitError("CommitValidationError::MissingMutableMetadata", "commit drops the mutable metadata")
	ErrPermissions           = commitError("CommitValidationError::GroupMutablePermissions", "permissions can't be read")
	ErrAttributeTooLong      = commitError("CommitValidationError::TooManyCharacters", "attribute is too long")
	ErrMultipleActors        = commitError("CommitValidationError::MultipleActors", "proposals of several members")
	ErrActorNotMember        = commitError("CommitValidationError::ActorNotMember", "proposal of a non-member")
	ErrActorUnknown          = commitError("CommitValidationError::ActorCouldNotBeFound", "commit without proposals and path")
	ErrCredential            = commitError("CommitValidationError::MlsCredential", "credential can't be read")
	ErrPSK                   = commitError("CommitValidationError::NoPSKSupport", "pre-shared key proposal")
	ErrSubjectUnknown        = commitError("CommitValidationError::SubjectDoesNotExist", "subject is no member")
	ErrNoMembership          = commitError("CommitValidationError::MissingGroupMembership", "group membership is missing")
	ErrMembershipEncoding    = commitError("CommitValidationError::ProtoDecode", "group membership can't be read")
	ErrSequenceIDDecreased   = commitError("CommitValidationError::SequenceIdDecreased", "sequence id decreased")
	ErrInboxLog              = commitError("CommitValidationError::InstallationDiff", "inbox log doesn't lead to the sequence id")
	ErrInstallationAdded     = commitError("CommitValidationError::UnexpectedInstallationAdded", "unexpected installation added")
	ErrInstallationRemoved   = commitError("CommitValidationError::UnexpectedInstallationsRemoved", "removed installations are not those expected")
	ErrInboxValidation       = commitError("CommitValidationError::InboxValidationFailed", "installation doesn't belong to its inbox")
	ErrNotPermitted          = commitError("CommitValidationError::InsufficientPermissions", "insufficient permissions")
	ErrMinimumVersion        = commitError("CommitValidationError::InvalidVersionFormat", "minimum protocol version can't be read")
)

// VersionError says that a group asks for a newer protocol version than ours
// (XIP-72). The group is paused: the commit is kept and checked again by a client
// that implements the version.
type VersionError struct{ Required string }

func (e *VersionError) Error() string {
	return fmt.Sprintf("protocol: group requires version %s, this is %s", e.Required, Version)
}

// Verdicts on groups that a welcome leads to. Such a group isn't joined, and the
// welcome is skipped for good.
var (
	// ErrTreeMembership: the leaves of the tree are not the installations of the
	// inboxes in the membership.
	ErrTreeMembership = commitError("GroupError::InvalidGroupMembership", "tree doesn't match the membership")

	// ErrUnreadable: the group's state can't be read.
	ErrUnreadable = commitError("GroupError::MetadataPermissionsError", "group state can't be read")

	// ErrDM: what was made to look like a DM is not one between us and the one who
	// added us.
	ErrDM = commitError("MetadataPermissionsError::DmValidation", "invalid DM")

	// ErrForeignSync: a group for the installations of one inbox, which is not ours.
	// The official client doesn't look.
	ErrForeignSync = commitError("GroupError::ForeignSyncGroup", "sync group of another inbox")
)

// Warning is what would have been worth refusing about a commit that is applied all
// the same, because the official client applies it.
type Warning string

// The warnings.
const (
	// WarnMetadataChanged: the immutable metadata (type of conversation, creator,
	// members of a DM) is not what it was.
	WarnMetadataChanged Warning = "commit changes the immutable metadata"

	// WarnRequirementsChanged: the capabilities that the group requires are not
	// what they were.
	WarnRequirementsChanged Warning = "commit changes the required capabilities"

	// WarnForeignInstallation: an added installation claims to be of an inbox that
	// doesn't have it.
	WarnForeignInstallation Warning = "added installation claims another inbox"
)
