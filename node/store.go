package node

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/go-xmtp/go-xmtp/node/internal/api"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// A Store is what a node has stored, opened for reading: that of a node that
// isn't running, of one that is, as it was when the Store was opened, or a backup.
type Store struct {
	index   *index.Index
	release func() // of a running node's snapshot
}

// OpenStore opens the store of a data directory or a backup. A node that is
// running there is asked for a snapshot, which takes no room of its own at first
// and little time; nobody else may be using the directory ([ErrInUse]). Nothing is
// changed. The other errors are those of [Start].
func OpenStore(ctx context.Context, dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	s := &Store{release: func() {}}
	s.index, err = openReadOnly(dir)
	if errors.Is(err, ErrInUse) {
		var snapshot string
		snapshot, s.release, err = askForSnapshot(ctx, dir)
		if err == nil {
			s.index, err = openReadOnly(snapshot)
		}
	}
	if err != nil {
		s.release()
		return nil, fmt.Errorf("node: data directory %s: %w", dir, err)
	}
	return s, nil
}

func openReadOnly(dir string) (*index.Index, error) {
	return index.OpenReadOnly(index.Options{FS: vfs.Default, Dir: dir, Logger: slog.New(slog.DiscardHandler)})
}

// Close lets others use the directory.
func (s *Store) Close() error {
	defer s.release()
	return s.index.Close()
}

// Backup copies the store to a directory, which must be empty or not be there. A
// node can be started from it, or from a copy: numbers then jump ahead, so that
// clients which have seen newer records than the backup has miss none to come.
func (s *Store) Backup(ctx context.Context, to string) error {
	to, err := filepath.Abs(to)
	if err == nil {
		err = s.index.Backup(ctx, to, time.Now())
	}
	if err != nil {
		return fmt.Errorf("node: backup: %w", err)
	}
	return nil
}

// Newest is the number of the newest record.
func (s *Store) Newest() uint64 { return s.index.Durable() }

// Report is what [Store.Verify] has found.
type Report struct {
	Records map[string]uint64 // how many, by kind; kinds are those of [Store.Export]
	Bytes   uint64            // of all that was read
	Inboxes uint64
	Newest  uint64 // number of the newest record
	// Problems describes the first hundred of what is wrong, naming topics but no
	// payloads; Count tells how many there are.
	Problems []string
	Count    int
}

// Verify reads everything: checksums, records and their order, and whether what is
// derived from them (inboxes, identifiers, what was published before) is as it
// follows from them. The error is ctx's; what is wrong is in the report.
func (s *Store) Verify(ctx context.Context) (Report, error) {
	r, err := s.index.Verify(ctx, api.CheckStored)
	if err != nil {
		return Report{}, err
	}
	report := Report{Records: map[string]uint64{}, Bytes: r.Bytes, Inboxes: r.Inboxes, Newest: r.Newest, Problems: r.Problems, Count: r.Count}
	for kind, name := range exportKinds {
		report.Records[name] = r.Records[kind]
	}
	return report, nil
}

// Stats tell how big a store is.
type Stats struct {
	Format     int               `json:"format"`      // version of how things are stored
	Newest     uint64            `json:"newest"`      // number of the newest record
	NewestTime time.Time         `json:"newest_time"` // when it was stored
	Bytes      map[string]uint64 `json:"bytes"`       // of tables, by what they hold, about
	TableBytes uint64            `json:"table_bytes"`
	Tables     uint64            `json:"tables"`
	LogBytes   uint64            `json:"log_bytes"` // of which most are not in tables yet
}

// Stats looks at sizes and reads no records.
func (s *Store) Stats() (Stats, error) {
	i, err := s.index.Stats()
	if err != nil {
		return Stats{}, fmt.Errorf("node: %w", err)
	}
	return Stats{
		Format:     i.Format,
		Newest:     i.Newest,
		NewestTime: time.Unix(0, int64(i.Time)).UTC(),
		Bytes:      i.Kinds,
		TableBytes: i.TableBytes,
		Tables:     i.TableCount,
		LogBytes:   i.LogBytes,
	}, nil
}

// exported is a line of an export. Bytes are base64 but for ids, which are hex.
type exported struct {
	Kind   string `json:"kind"`
	Number uint64 `json:"number"`
	Time   uint64 `json:"time_ns"`
	// Of a group message and the commit log.
	GroupID string `json:"group_id,omitempty"`
	// Of a welcome and a key package.
	InstallationKey string `json:"installation_key,omitempty"`
	// Of an identity update.
	InboxID string `json:"inbox_id,omitempty"`

	Commit     bool   `json:"commit,omitempty"`
	ShouldPush bool   `json:"should_push,omitempty"`
	SenderHMAC []byte `json:"sender_hmac,omitempty"`

	Pointer   bool   `json:"pointer,omitempty"`
	Algorithm byte   `json:"algorithm,omitempty"`
	HPKEKey   []byte `json:"hpke_key,omitempty"`
	Metadata  []byte `json:"metadata,omitempty"`

	NotBefore uint64 `json:"not_before,omitempty"`

	Payload []byte `json:"payload"`
}

var exportKinds = map[order.Kind]string{
	order.GroupMessage:   "group-message",
	order.Welcome:        "welcome",
	order.KeyPackage:     "key-package",
	order.IdentityUpdate: "identity-update",
	order.CommitLog:      "commit-log",
}

// Export writes all records as lines of JSON, by kind, topic and number. What each
// line holds is described in docs/node.md.
func (s *Store) Export(ctx context.Context, w io.Writer) error {
	out := bufio.NewWriterSize(w, 1<<16)
	encoder := json.NewEncoder(out)
	err := s.index.Walk(ctx, func(r *order.Record) error {
		line, err := exportLine(r)
		if err != nil {
			return err
		}
		return encoder.Encode(line)
	})
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("node: export: %w", err)
	}
	return nil
}

func exportLine(r *order.Record) (line exported, err error) {
	line = exported{Kind: exportKinds[r.Kind], Number: r.Number, Time: r.Time, Payload: r.Payload}
	id := hex.EncodeToString([]byte(r.ID))
	switch r.Kind {
	case order.GroupMessage:
		var facts order.GroupFacts
		facts, err = order.ParseGroupFacts(r.Facts)
		line.GroupID, line.Commit, line.ShouldPush, line.SenderHMAC = id, facts.Commit, facts.ShouldPush, facts.SenderHMAC
	case order.Welcome:
		var facts order.WelcomeFacts
		facts, err = order.ParseWelcomeFacts(r.Facts)
		line.InstallationKey, line.Pointer, line.Algorithm, line.HPKEKey, line.Metadata = id, facts.Pointer, facts.Algorithm, facts.HPKEKey, facts.Metadata
	case order.KeyPackage:
		var facts order.KeyPackageFacts
		facts, err = order.ParseKeyPackageFacts(r.Facts)
		line.InstallationKey, line.NotBefore = id, facts.NotBefore
	case order.IdentityUpdate:
		line.InboxID = id
	case order.CommitLog:
		line.GroupID = id
	}
	return line, err
}
