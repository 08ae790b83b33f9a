package xmtp

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// ForkStatus tells whether this client still is in the same conversation as the
// others. Who has forked, by a fault of a client, of a node or of its database, sends
// what nobody can read, and reads nothing.
type ForkStatus int

// The statuses; the numbers are stored.
const (
	// ForkUnknown: nobody has told yet what the newest commit has led to for him.
	ForkUnknown ForkStatus = iota
	// Healthy: the newest commit has led to the same for us and for those who keep
	// the conversation's commit log.
	Healthy
	// Suspected: a message came of an epoch that we don't know of, or the commit log
	// differs and has been signed by somebody who need not be a member. Either may be
	// somebody's mischief.
	Suspected
	// Forked: a commit has led to something else for us than for those who keep the
	// commit log. It stays so until another member removes and adds us again.
	Forked
)

func (s ForkStatus) String() string {
	switch s {
	case Healthy:
		return "healthy"
	case Suspected:
		return "suspected"
	case Forked:
		return "forked"
	}
	return "unknown"
}

// Fork is what is known of whether a conversation has forked.
type Fork struct {
	Status ForkStatus
	// Commit is the newest commit that was compared, by its number in the log of
	// messages; 0 if none was. The next five are of it.
	Commit uint64
	// Epoch and EpochAuthenticator are what it has led to for us, TheirEpoch and
	// TheirEpochAuthenticator for the others.
	Epoch, TheirEpoch                           uint64
	EpochAuthenticator, TheirEpochAuthenticator []byte
	// ComparedAt is when.
	ComparedAt time.Time
	// AheadMessage is the number of the message that came of AheadEpoch when we were in
	// epoch AheadOf; 0 if there was none since the last commit that proved all well.
	AheadMessage, AheadEpoch, AheadOf uint64
}

// Fork tells whether we are still in the same conversation as the others, as far as
// it has been found out: by [WorkerCommitLog], every five minutes, and by
// [Client.CheckForks]. Conversations that we have not consented to are not looked at.
func (v *Conversation) Fork() (Fork, error) {
	var f store.Fork
	err := v.client.db.View(func(tx *store.Tx) (err error) {
		f, err = tx.Fork(v.row.ID)
		return err
	})
	if err != nil {
		return Fork{}, fmt.Errorf("xmtp: fork: %w", err)
	}
	return newFork(f), nil
}

func newFork(f store.Fork) Fork {
	fork := Fork{
		Status: ForkStatus(f.Status), Commit: f.Commit, Epoch: f.Epoch, EpochAuthenticator: f.Authenticator,
		TheirEpoch: f.TheirEpoch, TheirEpochAuthenticator: f.Theirs,
		AheadMessage: f.AheadNumber, AheadEpoch: f.AheadEpoch, AheadOf: f.AheadOf,
	}
	if f.At != 0 {
		fork.ComparedAt = time.Unix(0, f.At)
	}
	if f.AheadNumber != 0 && fork.Status != Forked {
		fork.Status = Suspected
	}
	return fork
}

// LoggedCommit is what became of one commit: for us or, in what was published, for
// others. Of others there is only Number, Result, Epoch and EpochAuthenticator.
type LoggedCommit struct {
	// Number is the commit's in the log of messages; 0 for how we came into the
	// conversation.
	Number uint64
	Result protocol.CommitResult
	// Epoch and EpochAuthenticator are those after the commit, Before is the
	// authenticator before it.
	Epoch                      uint64
	EpochAuthenticator, Before []byte
	// Kind is what official clients call it, such as UpdateGroupMembership; empty if
	// the commit was not applied.
	Kind string
	// SenderInboxID and SenderInstallationID are who made it, if it was applied.
	SenderInboxID, SenderInstallationID string
	// Detail is why it was not applied, for people.
	Detail string
}

// DebugInfo is what helps to find out what is wrong with a conversation. It holds
// no keys, but epoch authenticators: show it to who may know the members' epochs.
type DebugInfo struct {
	// Epoch and EpochAuthenticator are where we are (RFC 9420 §8.7).
	Epoch              uint64
	EpochAuthenticator []byte
	// Cursor is the number up to which the log of messages was applied.
	Cursor uint64
	Fork   Fork
	// CommitLog is what this client did with each commit, SharedCommitLog what
	// others have published, as far as it counts.
	CommitLog, SharedCommitLog []LoggedCommit
}

// DebugInfo returns what helps to find out what is wrong with the conversation. A
// direct message that consists of several groups is looked at as the one that
// [Conversation.ID] names.
func (v *Conversation) DebugInfo(ctx context.Context) (*DebugInfo, error) {
	info := &DebugInfo{}
	var err error
	if info.Epoch, info.EpochAuthenticator, err = v.Epoch(ctx); err != nil {
		return nil, err
	}
	err = v.client.db.View(func(tx *store.Tx) error {
		row, _, err := tx.Group(v.row.ID)
		if err != nil {
			return err
		}
		info.Cursor = row.Cursor
		f, err := tx.Fork(v.row.ID)
		if err != nil {
			return err
		}
		info.Fork = newFork(f)
		own, err := tx.Commits(v.row.ID, 0, -1)
		for _, c := range own {
			info.CommitLog = append(info.CommitLog, LoggedCommit{
				Number: c.Number, Result: protocol.CommitResult(c.Result), Epoch: c.Epoch, EpochAuthenticator: c.Authenticator, Before: c.Before,
				Kind: c.Kind, SenderInboxID: c.Sender, SenderInstallationID: hex.EncodeToString(c.Installation), Detail: c.Detail,
			})
		}
		if err != nil {
			return err
		}
		shared, err := tx.Shared(v.row.ID)
		for _, c := range shared {
			info.SharedCommitLog = append(info.SharedCommitLog, LoggedCommit{
				Number: c.Number, Result: protocol.CommitResult(c.Result), Epoch: c.Epoch, EpochAuthenticator: c.Authenticator,
			})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("xmtp: debug info: %w", err)
	}
	return info, nil
}
