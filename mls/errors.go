package mls

import (
	"errors"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Errors of decoding (§2.1). What fails to decode is [ErrMalformed]; the two others,
// where they apply, tell more.
var (
	ErrMalformed     = errors.New("malformed encoding")
	ErrUnexpectedEnd = wire.ErrShort
	ErrTrailingData  = wire.ErrTrailing
)

// Errors of key packages and leaf nodes (§7.3, §10.1).
var (
	ErrUnsupportedVersion     = errors.New("protocol version is not MLS 1.0")
	ErrUnsupportedCipherSuite = errors.New("cipher suite is not supported")
	ErrLeafNodeSource         = errors.New("leaf node is from another source")
	ErrLeafNodeSignature      = errors.New("leaf node signature is not valid")
	ErrKeyPackageSignature    = errors.New("key package signature is not valid")
	ErrInitKey                = errors.New("init key equals the leaf encryption key")
	ErrExtensionNotListed     = errors.New("extension is not in the leaf's capabilities")
	ErrDuplicateExtension     = errors.New("extension type occurs twice")
	ErrLifetime               = errors.New("outside of the lifetime")
)

// Errors of the ratchet tree (§7.3, §12.4.3.1).
var (
	ErrCapabilities = errors.New("leaf does not support what the group needs")
	ErrDuplicateKey = errors.New("public key occurs twice in the group")
	ErrInvalidTree  = errors.New("ratchet tree is not valid")
	ErrInvalidPath  = errors.New("update path is not valid")
)

// Errors of using a group (§6, §12). [ErrPending], [ErrInactive], [ErrSigner] and
// [ErrPendingProposals] tell that a call is not possible now; the others that a
// message is refused, which leaves the group as it was.
var (
	// ErrPending: an earlier call's Pending result is still open.
	ErrPending = errors.New("an earlier result is pending")
	// ErrInactive: we were removed from the group.
	ErrInactive = errors.New("no longer a member of the group")
	// ErrReInit: a commit has closed the group, which goes on in a new one; see
	// [Group.Reinitialize] and [Group.JoinSuccessor] (§11.2).
	ErrReInit = errors.New("the group goes on in a new one")
	// ErrSigner: no Signer has the signature key of our leaf.
	ErrSigner = errors.New("no signer for the signature key of our leaf")
	// ErrPendingProposals: proposals wait for a commit, and until then no
	// application message may be sent (§12.4).
	ErrPendingProposals = errors.New("proposals wait for a commit")
	// ErrOwnCommitPending: a commit of our own waits for its fate.
	ErrOwnCommitPending = errors.New("a commit of our own is pending")
	// ErrNoOwnCommit: there is no commit of our own to merge or to drop.
	ErrNoOwnCommit = errors.New("no commit of our own is pending")

	// ErrWrongGroup: the message is for another group.
	ErrWrongGroup = errors.New("message of another group")
	// ErrWrongEpoch: the message is of another epoch; see [EpochError].
	ErrWrongEpoch = errors.New("message of another epoch")
	// ErrWireFormat: the message's wire format is not accepted here.
	ErrWireFormat = errors.New("wire format is not accepted")
	// ErrSender: the sender is no member, or may not send this (§6).
	ErrSender = errors.New("sender is not accepted")
	// ErrDecrypt: the message can't be decrypted.
	ErrDecrypt = errors.New("message does not decrypt")
	// ErrSignature: the message's signature is not valid (§6.1).
	ErrSignature = errors.New("message signature is not valid")
	// ErrMembershipTag: the membership tag is not valid (§6.2).
	ErrMembershipTag = errors.New("membership tag is not valid")
	// ErrConfirmationTag: the confirmation tag is not valid (§6.1).
	ErrConfirmationTag = errors.New("confirmation tag is not valid")
	// ErrPadding: the padding isn't zero (§6.3.1).
	ErrPadding = errors.New("padding is not zero")
	// ErrTooDistantInPast: the message's key is older than [Windows].Backward.
	ErrTooDistantInPast = secrettree.ErrTooOld
	// ErrTooDistantInFuture: the message skips more than [Windows].Forward.
	ErrTooDistantInFuture = secrettree.ErrTooFarAhead
	// ErrSecretReused: the message's key was used; as a rule it came twice.
	ErrSecretReused = secrettree.ErrSecretReused
	// ErrStateRolledBack: the message is ours, but this state never sent it: an
	// old copy of the state is in use. Nothing may be sent with it in this epoch.
	ErrStateRolledBack = errors.New("our own message is unknown to this state")

	// ErrUnknownProposal: a commit refers to a proposal that we don't have.
	ErrUnknownProposal = errors.New("unknown proposal reference")
	// ErrUnsupportedProposal: a proposal's type isn't supported, here or by a
	// member (§12.2).
	ErrUnsupportedProposal = errors.New("proposal type is not supported")
	// ErrInvalidProposals: a list of proposals is not valid (§12.2).
	ErrInvalidProposals = errors.New("list of proposals is not valid")
	// ErrMissingPath: a commit needs a path and has none (§12.4).
	ErrMissingPath = errors.New("commit has no path")
	// ErrCredential: the [Authenticator] refuses a member.
	ErrCredential = errors.New("credential is refused")
	// ErrPreSharedKey: a pre-shared key isn't known (§8.4).
	ErrPreSharedKey = errors.New("pre-shared key is not known")

	// ErrSuccessor: a Welcome is not the one that was expected of a group's
	// successor (§11.2, §11.3).
	ErrSuccessor = errors.New("not the group's successor")

	// ErrNotForUs: a Welcome is not for the key package.
	ErrNotForUs = errors.New("welcome is for others")
	// ErrNoExternalPub: a GroupInfo has no key for external commits.
	ErrNoExternalPub = errors.New("external public key is missing")
	// ErrNoRatchetTree: the tree is neither in the Welcome or GroupInfo nor given.
	ErrNoRatchetTree = errors.New("ratchet tree is missing")

	// ErrEncrypted: a [Follower] was given a PrivateMessage. If that is a commit
	// ([ParseHeader] tells), the group goes on without the follower.
	ErrEncrypted = errors.New("a PrivateMessage can't be followed")
	// ErrFork: a GroupInfo is of the same epoch, but of another history than the one
	// that a [Follower] has followed.
	ErrFork = errors.New("another history of the group")

	// ErrState: stored records can't be read.
	ErrState = errors.New("stored state is not valid")
	// ErrNewerState: stored records are of a newer version of this package, which is
	// needed to go on with them. They are as they were; it is an ErrState as well.
	ErrNewerState = secrettree.ErrNewerRecord
)

// EpochError tells the epochs of a message and of the group; it is an
// [ErrWrongEpoch].
type EpochError struct {
	Message, Group uint64
}

func (e *EpochError) Error() string {
	return fmt.Sprintf("message of epoch %d in epoch %d", e.Message, e.Group)
}

// Is makes errors.Is(err, ErrWrongEpoch) true.
func (e *EpochError) Is(target error) bool { return target == ErrWrongEpoch }

// malformed wraps a decoding error of the structure what.
func malformed(what string, err error) error {
	return fmt.Errorf("mls: %s: %w: %w", what, ErrMalformed, err)
}
