// Package history keeps files for a while for those who know their ids: the
// encrypted archives by which an installation gets messages and consent from
// before it existed. Another installation of the inbox uploads an archive and
// sends id and key through the inbox's own encrypted group, so the service
// sees nothing but ciphertext.
package history

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options are all needed but ReadOnly and Room.
type Options struct {
	FS  vfs.FS
	Dir string // made if it isn't there; nothing else may write to it
	// MaxFile bounds one file and Total all together, in bytes. A small file
	// counts as 64 KiB in Total, so that their number is bounded too.
	MaxFile, Total int64
	// Keep is how long a file can be had.
	Keep time.Duration
	// ReadOnly refuses uploads.
	ReadOnly bool
	// Room is the free disk space, in bytes, that is left to others.
	Room uint64
	// Visitor tells who sends a request, by whom there are quotas: by nobody in
	// particular if it is zero. Who gets an error is refused.
	Visitor func(*http.Request) (netip.Prefix, error)
	Now     func() time.Time
	Logger  *slog.Logger
}

const (
	// minCharge is what a file counts for at least.
	minCharge = 64 << 10
	chunk     = 64 << 10
	// bytesPerSync keeps what has to be synced at the end of a large file
	// small: other writes to the disk wait for it.
	bytesPerSync = 1 << 20

	idBytes    = 16
	tempSuffix = ".part"
)

// Why an upload can be refused.
var (
	errTooLarge = errors.New("the file is too large")
	errQuota    = errors.New("too much is stored from this address; try again when some of it has expired")
	errFull     = errors.New("there is no room; try again later")
	errRefused  = errors.New("not for this address")
	errReadOnly = errors.New("nothing new is taken")
	errBusy     = errors.New("too many transfers at a time; try again soon")
)

// A name is what a file is called on disk: the hash of its id. So neither the
// directory nor the time that a look-up takes tells an id.
type name [sha256.Size]byte

func (n name) String() string { return hex.EncodeToString(n[:]) }

// parseID returns the name of the file with an id: 32 lower-case hex digits.
func parseID(id string) (name, bool) {
	raw, ok := parseHex(id, idBytes)
	return sha256.Sum256(raw), ok
}

func parseName(text string) (name, bool) {
	raw, ok := parseHex(text, sha256.Size)
	if !ok {
		return name{}, false
	}
	return name(raw), true
}

// parseHex takes one spelling only.
func parseHex(text string, size int) ([]byte, bool) {
	if len(text) != 2*size || strings.ToLower(text) != text {
		return nil, false
	}
	raw, err := hex.DecodeString(text)
	return raw, err == nil
}

// file is a whole file.
type file struct {
	created time.Time
	charge
}

// Service is the store and the HTTP server of it.
type Service struct {
	options Options
	server  http.Server
	ledger  *ledger
	full    atomic.Bool // the disk was full at the last upload

	mu       sync.Mutex
	files    map[name]file
	closed   bool
	handlers sync.WaitGroup

	stopCleaning context.CancelFunc
	cleaned      chan struct{} // closed when the cleaner has ended
}

// Open finds the files of the last time and removes what was cut short. The
// service runs until [Service.Shutdown].
func Open(o Options) (*Service, error) {
	o.MaxFile = min(o.MaxFile, o.Total)
	s := &Service{options: o, ledger: newLedger(o), files: map[name]file{}, cleaned: make(chan struct{})}
	s.server = newServer(s)
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	cleaning, stop := context.WithCancel(context.Background())
	s.stopCleaning = stop
	go s.cleaner(cleaning)
	return s, nil
}

func (s *Service) load() error {
	fs, dir := s.options.FS, s.options.Dir
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	if err := syncDirectory(fs, fs.PathDir(dir)); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	entries, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("reading the directory: %w", err)
	}
	now := s.options.Now()
	for _, entry := range entries {
		base, temporary := strings.CutSuffix(entry, tempSuffix)
		n, ours := parseName(base)
		switch {
		case !ours:
		case temporary:
			if err := fs.Remove(fs.PathJoin(dir, entry)); err != nil {
				return fmt.Errorf("removing an upload that was cut short: %w", err)
			}
		default:
			info, err := fs.Stat(fs.PathJoin(dir, entry))
			if err != nil {
				return fmt.Errorf("reading the directory: %w", err)
			}
			// By how old it is, so that a wall clock which is set later changes nothing.
			f := file{created: now.Add(-max(0, now.Sub(info.ModTime())))}
			f.charge = s.ledger.found(info.Size())
			s.files[n] = f
		}
	}
	return nil
}

// put stores what body brings and returns the id by which it can be had.
// What does not end well leaves nothing behind.
func (s *Service) put(from netip.Prefix, body io.Reader) (id string, err error) {
	var raw [idBytes]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("history: %w", err)
	}
	n := name(sha256.Sum256(raw[:]))
	bill := s.ledger.open(from)
	if err := s.write(n, body, bill); err != nil {
		bill.cancel()
		return "", err
	}
	s.mu.Lock()
	s.files[n] = file{created: s.options.Now(), charge: bill.charge}
	s.mu.Unlock()
	return hex.EncodeToString(raw[:]), nil
}

// write makes the file under a temporary name: it gets its own once it is whole
// and safe on disk.
func (s *Service) write(n name, body io.Reader, bill *bill) (err error) {
	if err := s.reserve(bill, 0); err != nil {
		return err
	}
	fs, path := s.options.FS, s.path(n)
	temp := path + tempSuffix
	f, err := fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("history: making a file: %w", err)
	}
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: bytesPerSync})
	made := temp
	defer func() {
		if err == nil {
			return
		}
		if left := fs.Remove(made); left != nil && !errors.Is(left, iofs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("history: removing it: %w", left))
		}
	}()
	err = s.copy(f, body, bill)
	if err == nil {
		err = f.Sync()
	}
	// Whatever has happened, it has to be closed before it can be removed.
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("history: storing: %w", err)
	}
	if err := fs.Rename(temp, path); err != nil {
		return fmt.Errorf("history: storing: %w", err)
	}
	made = path
	if err := syncDirectory(fs, s.options.Dir); err != nil {
		return fmt.Errorf("history: storing: %w", err)
	}
	return nil
}

func (s *Service) copy(to io.Writer, from io.Reader, bill *bill) error {
	buffer := make([]byte, chunk)
	for {
		n, broken := fill(buffer, from)
		if broken != nil && !errors.Is(broken, io.EOF) {
			return &bodyError{broken}
		}
		if err := s.reserve(bill, int64(n)); err != nil {
			return err
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return err
		}
		if broken != nil {
			return nil
		}
	}
}

// fill is [io.ReadFull], which however would tell the end of what was sent and
// its being cut short by the same error.
func fill(buffer []byte, from io.Reader) (n int, err error) {
	for n < len(buffer) && err == nil {
		var more int
		more, err = from.Read(buffer[n:])
		n += more
	}
	return n, err
}

// bodyError tells that it was the sender who failed.
type bodyError struct{ cause error }

func (e *bodyError) Error() string { return "receiving: " + e.cause.Error() }
func (e *bodyError) Unwrap() error { return e.cause }

// reserve makes sure that n more bytes may be written.
func (s *Service) reserve(bill *bill, n int64) error {
	if err := bill.add(n); err != nil {
		return err
	}
	if s.options.Room == 0 {
		return nil
	}
	// Where the question has no answer (some file systems), the disk's own error has to do.
	if usage, err := s.options.FS.GetDiskUsage(s.options.Dir); err == nil && usage.AvailBytes < s.options.Room+uint64(n) {
		return errFull
	}
	return nil
}

// get opens the file with an id; it is nil if there is none.
func (s *Service) get(id string) (vfs.File, error) {
	n, ok := parseID(id)
	if !ok {
		return nil, nil
	}
	s.mu.Lock()
	f, found := s.files[n]
	s.mu.Unlock()
	if !found || s.expired(f) {
		return nil, nil
	}
	opened, err := s.options.FS.Open(s.path(n))
	if errors.Is(err, iofs.ErrNotExist) {
		// It has expired just now, or somebody has taken it away.
		s.forget(n)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return opened, nil
}

func (s *Service) path(n name) string { return s.options.FS.PathJoin(s.options.Dir, n.String()) }

func (s *Service) expired(f file) bool {
	return !s.options.Now().Before(f.created.Add(s.options.Keep))
}

func (s *Service) forget(n name) {
	s.mu.Lock()
	f, found := s.files[n]
	delete(s.files, n)
	s.mu.Unlock()
	if found {
		s.ledger.release(f.charge)
	}
}

// cleaner removes what has expired. It can't be had from that moment on, so
// when exactly it goes matters for the space only.
func (s *Service) cleaner(ctx context.Context) {
	defer close(s.cleaned)
	ticker := time.NewTicker(min(s.options.Keep, time.Hour))
	defer ticker.Stop()
	for {
		s.clean()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *Service) clean() {
	var expired []name
	s.mu.Lock()
	for n, f := range s.files {
		if s.expired(f) {
			expired = append(expired, n)
		}
	}
	s.mu.Unlock()
	for _, n := range expired {
		if err := s.options.FS.Remove(s.path(n)); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			s.options.Logger.Warn("history: an expired file can't be removed", "error", err)
			continue
		}
		s.forget(n)
	}
}

func syncDirectory(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
