package xmtp

import (
	"errors"
	"fmt"

	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// Errors of opening a client's database; the file is untouched.
var (
	// ErrInUse: another process has the database open.
	ErrInUse = store.ErrInUse
	// ErrWrongKey: the key doesn't fit, or the file is no database of a client.
	ErrWrongKey = store.ErrWrongKey
	// ErrForeign: the file is a database of something else.
	ErrForeign = store.ErrForeign
	// ErrNewer: a newer version of this package wrote it.
	ErrNewer = store.ErrNewer
	// ErrDamaged: the database can't be read.
	ErrDamaged = store.ErrDamaged
	// ErrOtherWallet: the database is that of another wallet.
	ErrOtherWallet = errors.New("the database belongs to another wallet")
)

// Errors of the disk. Nothing is lost: what a method returned before is there, and what
// failed was not done, or stays in the outbox if [ErrNotPublished] is beside it. Only if
// it was the last step that has failed, waiting for the disk, it may have been done:
// what the client lists tells. A client needn't be opened again: what failed can be tried
// again when the disk is in order, and what others have sent meanwhile then comes.
var (
	// ErrDiskFull: there is no room, or no more is granted.
	ErrDiskFull = store.ErrDiskFull
	// ErrReadOnly: the database's file, its folder or the disk can't be written.
	ErrReadOnly = store.ErrReadOnly
	// ErrDiskFault: opening, reading, writing or syncing failed for another reason.
	ErrDiskFault = store.ErrDiskFault
)

var (
	// ErrTooManyInstallations: the inbox has 10 installations, which is the
	// most; one has to be revoked first.
	ErrTooManyInstallations = errors.New("the inbox has too many installations")
	// ErrNoInbox: an address has no inbox, its owner never used XMTP.
	ErrNoInbox = errors.New("no inbox")
	// ErrNotFound: there is no such conversation, message or inbox on this device.
	ErrNotFound = errors.New("not found")
	// ErrRemoved: we are not a member of the conversation any more.
	ErrRemoved = errors.New("removed from the conversation")
	// ErrRevoked: the installation was revoked: it is none of its inbox any more. What
	// it has read can still be read. It comes beside ErrRemoved where a conversation has
	// gone on without it, and beside ErrRefused where nobody would accept what it does.
	// To go on, open a client with a new database.
	ErrRevoked = errors.New("the installation was revoked")
	// ErrPaused: the conversation asks for a newer version of this package. A
	// *[protocol.VersionError] beside it tells which. What comes in the meantime is
	// read once the program has been updated.
	ErrPaused = errors.New("the conversation asks for a newer version")
	// ErrStateRolledBack: the database is an old copy: the conversation has
	// messages that this installation sent and doesn't know. Sending with it
	// could use a key twice, so nothing is sent in the conversation any more.
	// Another member has to remove and add the installation again.
	ErrStateRolledBack = errors.New("the database was rolled back or copied")
	// ErrNotPublished: what was to be sent has not reached the log yet. It stays
	// in the outbox and is tried again with the next call, or in the background.
	ErrNotPublished = errors.New("not published yet")
	// ErrRefused: what was to be sent will not be published. A message's
	// delivery is then Failed.
	ErrRefused = errors.New("not published")
	// ErrClosed: the client has been closed.
	ErrClosed = store.ErrClosed
)

// What official clients tell apart and we don't.
var (
	errNoMessage = fmt.Errorf("%w: no such message", ErrNotFound)
	errNoDM      = fmt.Errorf("%w: no such direct message", ErrNotFound)
	errLeaveDM   = fmt.Errorf("%w: leaving", ErrDirectMessage)
)

// Errors of changes of groups. Nothing was sent.
var (
	// ErrNotPermitted: the group's permissions don't allow us to do that.
	ErrNotPermitted error = protocol.ErrNotPermitted
	// ErrTooLong: a text has too many bytes.
	ErrTooLong error = protocol.ErrAttributeTooLong
	// ErrTooManyMembers: the group would have more than 250 members.
	ErrTooManyMembers = errors.New("the group would have too many members")
	// ErrDirectMessage: that is not possible in a direct message.
	ErrDirectMessage = errors.New("not possible in a direct message")
	// ErrSuperAdmin: a super admin can't leave. Another one has to demote him first.
	ErrSuperAdmin = errors.New("a super admin can't leave")
	// ErrOnlyMember: there is nobody else in the group.
	ErrOnlyMember = errors.New("the only member can't leave")
)
