package xmtp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// SkipReason says why a welcome or a message could not be used. For a commit that
// breaks the rules of its conversation it is the name that the official client has
// for the reason, such as "CommitValidationError::InsufficientPermissions".
type SkipReason string

// Reasons besides those of commits.
const (
	SkippedMalformed  SkipReason = "malformed"     // it can't be decoded
	SkippedEpoch      SkipReason = "wrong epoch"   // of an epoch whose keys we don't have, or a commit that came too late
	SkippedKey        SkipReason = "key is gone"   // too old, too far ahead, or already used
	SkippedDecryption SkipReason = "undecryptable" // it doesn't decrypt, or its signature is wrong
	SkippedInvalid    SkipReason = "invalid"       // the group or commit breaks the rules of MLS
	SkippedMember     SkipReason = "member already"
	SkippedOther      SkipReason = "other"
)

// Skipped is a welcome or a message that could not be used. The ones that follow
// are not affected. Most often it was not meant for this device any more.
type Skipped struct {
	// ConversationID is empty for a welcome.
	ConversationID string
	// Number is its number in the node's log.
	Number uint64
	Reason SkipReason
	// Detail is for people.
	Detail string
	At     time.Time
}

// Skipped returns what could not be used, oldest first: the last 1,000, or some more.
// What of it tells of somebody who cheats is in [Client.Alerts].
func (c *Client) Skipped() ([]Skipped, error) {
	var list []Skipped
	err := c.db.View(func(tx *store.Tx) error {
		return tx.Skips(func(s store.Skip) {
			list = append(list, Skipped{
				ConversationID: hex.EncodeToString(s.Group),
				Number:         s.Number,
				Reason:         SkipReason(s.Reason),
				Detail:         s.Detail,
				At:             time.Unix(0, s.At),
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("xmtp: %w", err)
	}
	return list, nil
}

var errMemberAlready = errors.New("a member of the group already")

// skipReasons are looked through in order.
var skipReasons = []struct {
	err    error
	reason SkipReason
}{
	{errMemberAlready, SkippedMember},
	{mls.ErrMalformed, SkippedMalformed},
	{protocol.ErrWelcome, SkippedMalformed},
	{protocol.ErrEnvelope, SkippedMalformed},
	{protocol.ErrNoContent, SkippedMalformed},
	{mls.ErrWrongEpoch, SkippedEpoch},
	{mls.ErrTooDistantInPast, SkippedKey},
	{mls.ErrTooDistantInFuture, SkippedKey},
	{mls.ErrSecretReused, SkippedKey},
	{protocol.ErrWelcomeKey, SkippedKey},
	{mls.ErrNotForUs, SkippedKey},
	{mls.ErrDecrypt, SkippedDecryption},
	{mls.ErrSignature, SkippedDecryption},
	{mls.ErrSender, SkippedInvalid},
	{mls.ErrWireFormat, SkippedInvalid},
	{mls.ErrWrongGroup, SkippedInvalid},
	{mls.ErrUnknownProposal, SkippedInvalid},
	{mls.ErrUnsupportedProposal, SkippedInvalid},
	{mls.ErrInvalidProposals, SkippedInvalid},
	{mls.ErrMissingPath, SkippedInvalid},
	{mls.ErrInvalidPath, SkippedInvalid},
	{mls.ErrInvalidTree, SkippedInvalid},
	{mls.ErrCapabilities, SkippedInvalid},
	{mls.ErrConfirmationTag, SkippedInvalid},
}

// skipReason finds the reason that an error amounts to.
func skipReason(err error) SkipReason {
	if verdict := new(protocol.CommitError); errors.As(err, &verdict) {
		return SkipReason(verdict.Code)
	}
	for _, r := range skipReasons {
		if errors.Is(err, r.err) {
			return r.reason
		}
	}
	return SkippedOther
}
