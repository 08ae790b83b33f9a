package protocol

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// hexBytes is a byte field of the recordings.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

// number is an integer, written as such or as a string.
type number uint64

func (n *number) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		b = []byte(s)
	}
	v, err := strconv.ParseUint(string(b), 10, 64)
	*n = number(v)
	return err
}

func load[T any](name string) func() T {
	return sync.OnceValue(func() T {
		var v T
		b, err := os.ReadFile(filepath.Join("testdata", filepath.FromSlash(name)))
		if err == nil {
			err = json.Unmarshal(b, &v)
		}
		if err != nil {
			panic(fmt.Sprintf("%s: %v", name, err))
		}
		return v
	})
}

// groupVectors is what is used of groups.json.
type groupVectors struct {
	Identities map[string]struct {
		InboxID string   `json:"inbox_id"`
		Key     hexBytes `json:"installation_public_key"`
	}
	IdentityUpdates map[string][]struct {
		Seq    number
		Update hexBytes
	} `json:"identity_updates"`
	DMID []struct {
		One string `json:"member_one"`
		Two string `json:"member_two"`
		ID  string `json:"dm_id"`
	} `json:"dm_id"`
	MessageID           []messageIDVector `json:"message_id"`
	TranscriptMessageID []messageIDVector `json:"transcript_message_id"`
	HMAC                struct {
		Root    hexBytes `json:"root_key_42_bytes"`
		GroupID hexBytes `json:"group_id"`
		Keys    []struct {
			Epoch int64
			Key   hexBytes
		}
		Samples []struct {
			Epoch int64
			Data  hexBytes
			HMAC  hexBytes `json:"sender_hmac"`
		} `json:"sender_hmac_samples"`
	}
	KeyPackages    map[string]hexBytes `json:"key_packages"`
	KeyPackage1_11 struct {
		KeyPackage hexBytes `json:"key_package"`
	} `json:"key_package_1_11"`
	PrivateB struct {
		Ref   hexBytes `json:"hash_ref"`
		Init  hexBytes `json:"init_private_key"`
		Leaf  hexBytes `json:"leaf_encryption_private_key"`
		XWing hexBytes `json:"xwing_private_seed"`
	} `json:"key_package_b_private"`
	Welcomes []struct {
		SequenceID        number   `json:"sequence_id"`
		CreatedNS         number   `json:"created_ns"`
		InstallationKey   hexBytes `json:"installation_key"`
		Algorithm         int32    `json:"wrapper_algorithm"`
		PublicKey         hexBytes `json:"hpke_public_key"`
		Data              hexBytes
		Metadata          hexBytes `json:"welcome_metadata"`
		Message           hexBytes `json:"mls_welcome_message"`
		MetadataPlaintext hexBytes `json:"welcome_metadata_plaintext"`
		Context           hexBytes `json:"joined_group_context"`
	} `json:"welcomes_for_b"`
	DM      conversationVector `json:"dm_conversation"`
	Group   conversationVector `json:"group_conversation"`
	Pointer struct {
		XWing           hexBytes `json:"xwing_private_seed"`
		PublicKey       hexBytes `json:"hpke_public_key"`
		Pointer         hexBytes `json:"welcome_pointer"`
		Plaintext       hexBytes `json:"pointer_plaintext"`
		Destination     hexBytes `json:"pointee_destination"`
		PointeeData     hexBytes `json:"pointee_data"`
		PointeeMetadata hexBytes `json:"pointee_welcome_metadata"`
		MetadataPlain   hexBytes `json:"welcome_metadata_plaintext"`
	} `json:"welcome_pointer"`
}

type messageIDVector struct {
	GroupID  hexBytes `json:"group_id"`
	Key      string   `json:"idempotency_key"`
	Content  hexBytes `json:"encoded_content"`
	Envelope hexBytes `json:"plaintext_envelope"`
	ID       hexBytes `json:"message_id"`
}

type conversationVector struct {
	GroupID   hexBytes `json:"group_id"`
	Envelopes []struct {
		ID         number
		CreatedNS  number   `json:"created_ns"`
		IsCommit   bool     `json:"is_commit"`
		SenderHMAC hexBytes `json:"sender_hmac"`
		Data       hexBytes
	}
	StoredByB []storedMessage `json:"b_stored_messages"`
	LogOfB    []commitLogRow  `json:"b_local_commit_log"`
}

// storedMessage is a message as a client stored it.
type storedMessage struct {
	ID                   hexBytes
	GroupID              hexBytes `json:"group_id"`
	Content              hexBytes `json:"content"`
	DecryptedBytes       hexBytes `json:"decrypted_message_bytes"`
	Kind                 number
	SentAtNS             number   `json:"sent_at_ns"`
	SequenceID           number   `json:"sequence_id"`
	SenderInboxID        string   `json:"sender_inbox_id"`
	SenderInstallationID hexBytes `json:"sender_installation_id"`
}

type commitLogRow struct {
	GroupID                   hexBytes `json:"group_id"`
	CommitSequenceID          number   `json:"commit_sequence_id"`
	LastEpochAuthenticator    hexBytes `json:"last_epoch_authenticator"`
	CommitResult              number   `json:"commit_result"`
	AppliedEpochNumber        number   `json:"applied_epoch_number"`
	AppliedEpochAuthenticator hexBytes `json:"applied_epoch_authenticator"`
	SenderInboxID             string   `json:"sender_inbox_id"`
	CommitType                string   `json:"commit_type"`
}

type capturedClient struct {
	InboxID        string   `json:"inbox_id"`
	InstallationID hexBytes `json:"installation_id"`
	PrivateKey     hexBytes `json:"installation_private_key"`
	WalletOnly     bool     `json:"wallet_only"`
	OldClient      bool     `json:"old_client"`
	Listener       bool
	KeyPackages    []struct {
		Ref   hexBytes `json:"key_package_ref"`
		Row   number   `json:"key_package_sequence_id"`
		Init  hexBytes `json:"init_private_key"`
		Leaf  hexBytes `json:"leaf_encryption_private_key"`
		XWing hexBytes `json:"post_quantum_private_key"`
	} `json:"key_packages"`
	HMACKeys  []hexBytes      `json:"hmac_keys"`
	Messages  []storedMessage `json:"messages"`
	CommitLog []commitLogRow  `json:"local_commit_log"`
}

type capturedRow struct {
	ID         number
	CreatedNS  number   `json:"created_at_ns"`
	GroupID    hexBytes `json:"group_id"`
	IsCommit   bool     `json:"is_commit"`
	SenderHMAC hexBytes `json:"sender_hmac"`
	Data       hexBytes
}

type capturedWelcome struct {
	ID              number
	CreatedNS       number   `json:"created_at_ns"`
	InstallationKey hexBytes `json:"installation_key"`
	Type            int      `json:"message_type"`
	Algorithm       int32    `json:"stored_wrapper_algorithm"`
	Data            hexBytes
	PublicKey       hexBytes `json:"hpke_public_key"`
	Metadata        hexBytes `json:"welcome_metadata"`
}

type capturedUpdate struct {
	SequenceID number   `json:"sequence_id"`
	InboxID    string   `json:"inbox_id"`
	Update     hexBytes `json:"identity_update"`
}

type capturedKeyPackage struct {
	SequenceID     number   `json:"sequence_id"`
	InstallationID hexBytes `json:"installation_id"`
	KeyPackage     hexBytes `json:"key_package"`
	CreatedNS      number   `json:"created_at_ns"`
}

var (
	groupsFile   = load[groupVectors]("groups.json")
	clientsFile  = load[map[string]*capturedClient]("captures/clients.json")
	rowsFile     = load[[]capturedRow]("captures/group-messages.json")
	welcomesFile = load[[]capturedWelcome]("captures/welcomes.json")
	packagesFile = load[[]capturedKeyPackage]("captures/key-packages.json")
	updatesFile  = load[[]capturedUpdate]("captures/identity-updates.json")
)

// logs is a Directory that has whole identity logs.
type logs map[string][]InboxState

func (l logs) add(t testing.TB, inboxID string, sequenceID uint64, update []byte) {
	t.Helper()
	var u associations.IdentityUpdate
	if err := proto.Unmarshal(update, &u); err != nil {
		t.Fatal(err)
	}
	verified, err := identity.Verify(t.Context(), &u, nil)
	if err != nil {
		t.Fatal(err)
	}
	var last *identity.State
	if n := len(l[inboxID]); n > 0 {
		last = l[inboxID][n-1].State
	}
	state, err := last.Apply(verified)
	if err != nil {
		t.Fatal(err)
	}
	l[inboxID] = append(l[inboxID], InboxState{SequenceID: sequenceID, State: state})
}

func (l logs) InboxStates(ctx context.Context, at []Position) ([]InboxState, error) {
	out := make([]InboxState, len(at))
	for i, p := range at {
		for _, s := range l[p.InboxID] {
			if s.SequenceID <= p.SequenceID {
				out[i] = s
			}
		}
	}
	return out, ctx.Err()
}

func capturedLogs(t testing.TB) logs {
	t.Helper()
	l := logs{}
	for _, u := range updatesFile() {
		l.add(t, u.InboxID, uint64(u.SequenceID), u.Update)
	}
	return l
}
