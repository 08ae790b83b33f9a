package protocol

import (
	"bytes"
	"crypto/ed25519"
	"fmt"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// The commit log of a group is kept by its super admins, or by both sides of a DM,
// beside the messages: what each commit has led to in their clients. A member whose
// own client came to something else has left the group without knowing.

// CommitResult is what a client did with a commit.
type CommitResult = mlscontents.CommitResult

// What can be done with a commit.
const (
	// CommitApplied began an epoch.
	CommitApplied = mlscontents.CommitResult_COMMIT_RESULT_APPLIED
	// CommitWrongEpoch was of another epoch: mostly, another one came first.
	CommitWrongEpoch = mlscontents.CommitResult_COMMIT_RESULT_WRONG_EPOCH
	// CommitUndecryptable could not be decrypted or broke the rules of MLS.
	CommitUndecryptable = mlscontents.CommitResult_COMMIT_RESULT_UNDECRYPTABLE
	// CommitInvalid broke the rules of the group, see [CommitError].
	CommitInvalid = mlscontents.CommitResult_COMMIT_RESULT_INVALID
)

// CommitLogEntry is what became of one commit.
type CommitLogEntry struct {
	GroupID []byte
	// Number is the commit's in the group's message log.
	Number uint64
	// Before is the epoch authenticator (RFC 9420 §8.7) before the commit.
	Before []byte
	Result CommitResult
	// Epoch and Authenticator are those after the commit; if it was not applied,
	// those before it.
	Epoch         uint64
	Authenticator []byte
}

// Sign returns the entry as it is published, signed with the Ed25519 key of a seed,
// 32 bytes: see [MutableMetadata.CommitLogSeed].
func (e *CommitLogEntry) Sign(seed []byte) (*mlsapi.PublishCommitLogRequest, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("protocol: a commit log seed of %d bytes", len(seed))
	}
	entry, err := marshal(&mlscontents.PlaintextCommitLogEntry{
		GroupId:                   e.GroupID,
		CommitSequenceId:          e.Number,
		LastEpochAuthenticator:    e.Before,
		CommitResult:              e.Result,
		AppliedEpochNumber:        e.Epoch,
		AppliedEpochAuthenticator: e.Authenticator,
	})
	if err != nil {
		return nil, fmt.Errorf("protocol: commit log entry: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	defer clear(key)
	return &mlsapi.PublishCommitLogRequest{
		GroupId:                  e.GroupID,
		SerializedCommitLogEntry: entry,
		Signature: &associations.RecoverableEd25519Signature{
			Bytes:     ed25519.Sign(key, entry),
			PublicKey: CommitLogKey(seed),
		},
	}, nil
}

// CommitLogKey returns the public key of a seed of 32 bytes.
func CommitLogKey(seed []byte) ed25519.PublicKey {
	key := ed25519.NewKeyFromSeed(seed)
	defer clear(key)
	return bytes.Clone(key.Public().(ed25519.PublicKey))
}

// CommitLogSigner returns the key that has signed an entry; nil if the signature is
// not valid.
func CommitLogSigner(signed *mlscontents.CommitLogEntry) ed25519.PublicKey {
	key, signature := signed.GetSignature().GetPublicKey(), signed.GetSignature().GetBytes()
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, signed.GetSerializedCommitLogEntry(), signature) {
		return nil
	}
	return key
}

// ParseCommitLogEntry decodes the bytes that are signed.
func ParseCommitLogEntry(b []byte) (*CommitLogEntry, error) {
	var p mlscontents.PlaintextCommitLogEntry
	if err := unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("protocol: commit log entry: %w", err)
	}
	return &CommitLogEntry{
		GroupID:       p.GetGroupId(),
		Number:        p.GetCommitSequenceId(),
		Before:        p.GetLastEpochAuthenticator(),
		Result:        p.GetCommitResult(),
		Epoch:         p.GetAppliedEpochNumber(),
		Authenticator: p.GetAppliedEpochAuthenticator(),
	}, nil
}

// Follows reports whether readers take the entry, once its group and signature are
// checked, after the last one that they have taken, nil for none. Only the entries
// that continue what was there count; others are passed over, as by the official
// client.
func (e *CommitLogEntry) Follows(last *CommitLogEntry) bool {
	const most = 1<<63 - 1 // databases have signed numbers
	if e.Number == 0 || e.Number > most || e.Epoch > most {
		return false
	}
	if last == nil {
		return true
	}
	if e.Number <= last.Number {
		return false
	}
	if e.Result != CommitApplied {
		return e.Epoch == last.Epoch && bytes.Equal(e.Authenticator, last.Authenticator)
	}
	return e.Epoch == last.Epoch+1 && (len(last.Authenticator) == 0 || bytes.Equal(e.Before, last.Authenticator))
}
