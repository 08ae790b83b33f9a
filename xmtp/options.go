package xmtp

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/network"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// ProtocolVersion is the version of the reference client (libxmtp) whose
// behaviour this package has. It is told to nodes, and compared with the version
// that a group may ask for.
const ProtocolVersion = "1.10.0"

// Names that [WithNode] takes instead of a URL.
const (
	Local      = "local"      // a node on this machine, see "xmtp node"
	Dev        = "dev"        // the public network for development
	Production = "production" // the public network
)

var environments = map[string]string{
	Local:      "http://localhost:5556",
	Dev:        "https://grpc.dev.xmtp.network:443",
	Production: "https://grpc.production.xmtp.network:443",
}

// An Option changes how [NewClient] makes a client.
type Option func(*options) error

type options struct {
	given      []Option                // all of this
	replaces   func(Installation) bool // may be nil
	env        string                  // the name or URL as given
	url        string
	dial       network.Dialer
	path       string
	inMemory   bool
	memory     *Memory // may be nil
	key        *[store.KeySize]byte
	plain      bool
	standby    bool
	logger     *slog.Logger
	appVersion string
	budget     *Budget // may be nil
	padding    bool
	nonce      uint64
	off        [workerCount]bool // workers that don't run
	selfUpdate SelfUpdatePolicy
	visible    time.Duration // how long to wait for the registration to be seen
	now        func() time.Time
	// welcomeRounds is how many pages of welcomes one sync takes; tests make it fewer.
	welcomeRounds int
	vfs           string
	codecs        content.Codecs
}

// WithNode chooses the node: [Local] (the default), [Dev], [Production], or a
// URL, http://host:port for cleartext or https://host for TLS.
func WithNode(nameOrURL string) Option {
	return func(o *options) error {
		target, ok := environments[nameOrURL]
		if !ok {
			target = nameOrURL
			if !strings.Contains(nameOrURL, "://") {
				return fmt.Errorf("node %q is neither %s, %s or %s nor a URL such as http://localhost:5556", nameOrURL, Local, Dev, Production)
			}
		}
		o.env, o.url = nameOrURL, target
		return nil
	}
}

// WithDialer replaces how connections to the node are opened: the address is
// host:port. It is for proxies, and for nodes within the same process. A connection
// that was opened so is the client's own, while clients of a process that use the
// same node without it share one.
func WithDialer(dial func(ctx context.Context, address string) (net.Conn, error)) Option {
	return func(o *options) error {
		o.dial = dial
		return nil
	}
}

// WithDatabase sets the file that the client keeps its state in. By default it
// is in the user's configuration folder, one for each wallet and node.
func WithDatabase(path string) Option {
	return func(o *options) error {
		if path == "" {
			return errors.New("the database's path is empty")
		}
		o.path, o.inMemory, o.memory = path, false, nil
		return nil
	}
}

// WithKey encrypts the database with a key of the caller, 32 bytes. Without it
// a key is made and kept in a file beside the database, readable to its owner
// only: that protects copies of the database, not against who can read both.
func WithKey(key []byte) Option {
	return func(o *options) error {
		if len(key) != store.KeySize {
			return fmt.Errorf("a database key of %d bytes: want %d", len(key), store.KeySize)
		}
		o.key = (*[store.KeySize]byte)(append([]byte(nil), key...))
		return nil
	}
}

// WithoutEncryption leaves the database plain.
func WithoutEncryption() Option {
	return func(o *options) error {
		o.plain = true
		return nil
	}
}

// InMemory keeps nothing: the installation is lost when the client is closed.
// It is for tests. Of this, [WithMemory] and [WithDatabase] the last one counts.
func InMemory() Option { return WithMemory(nil) }

// A Memory is a database that is nowhere but in memory. The zero value has nothing
// in it.
type Memory struct{ pages store.Memory }

// WithMemory is [InMemory], but for what the client leaves in m when it is closed: so
// tests can close a client and open it again. One client at a time can have it
// ([ErrInUse]).
func WithMemory(m *Memory) Option {
	return func(o *options) error {
		o.inMemory, o.memory = true, m
		return nil
	}
}

// WithStandby lets [NewClient] wait, as long as its context allows, while the database
// is in use, instead of failing with [ErrInUse]. So a second process stands by and goes
// on as the same installation, within half a second, when the first is closed, ends, or
// is killed: with what that had not published yet, from where its streams had come.
//
// The lock is one of the system on a file beside the database. A process that hangs or
// is stopped has it still: nobody takes over then, until it is killed.
func WithStandby() Option {
	return func(o *options) error {
		o.standby = true
		return nil
	}
}

const standingBy = "standing by: the database is in use"

// WithLogger takes what happens; by default nothing is logged. No content, key
// or address is.
func WithLogger(logger *slog.Logger) Option {
	return func(o *options) error {
		o.logger = logger
		return nil
	}
}

// WithAppVersion tells the node which application calls.
func WithAppVersion(version string) Option {
	return func(o *options) error {
		o.appVersion = version
		return nil
	}
}

// WithoutPadding sends messages in their true length, as official clients do.
// By default they are padded to classes, which no client notices.
func WithoutPadding() Option {
	return func(o *options) error {
		o.padding = false
		return nil
	}
}

// WithNonce chooses among the inboxes that a wallet can create; 1 by default, as
// with official clients. It has no meaning if the wallet has an inbox.
func WithNonce(nonce uint64) Option {
	return func(o *options) error {
		o.nonce = nonce
		return nil
	}
}

// WithoutWorkers switches workers off; with none named, all of them, so that nothing
// runs in the background. What they do is then done by [Client.Upkeep] alone.
func WithoutWorkers(which ...Worker) Option {
	return func(o *options) error {
		for w := range workerCount {
			o.off[w] = o.off[w] || len(which) == 0 || slices.Contains(which, w)
		}
		for _, w := range which {
			if w < 0 || w >= workerCount {
				return fmt.Errorf("there is no worker %d", w)
			}
		}
		return nil
	}
}

// WithCodec lets the client know a content type, so that [Client.Decode] returns its
// values, and sending knows whether it wakes devices. It replaces one for the same
// type and major version.
func WithCodec[T any](codec content.Codec[T]) Option {
	return func(o *options) error {
		if codec.Type == (content.Type{}) || codec.Encode == nil || codec.Decode == nil {
			return fmt.Errorf("the codec for %q lacks a type, Encode or Decode", codec.Type)
		}
		content.Add(&o.codecs, codec)
		return nil
	}
}

// WithClock replaces [time.Now].
func WithClock(now func() time.Time) Option {
	return func(o *options) error {
		o.now = now
		return nil
	}
}

func newOptions(list []Option) (*options, error) {
	o := &options{given: list, codecs: ownCodecs(), padding: true, nonce: 1, welcomeRounds: maxWelcomeRounds, now: time.Now, logger: slog.New(slog.DiscardHandler)}
	for _, option := range append([]Option{WithNode(Local)}, list...) {
		if err := option(o); err != nil {
			return nil, fmt.Errorf("xmtp: %w", err)
		}
	}
	if o.plain && o.key != nil {
		return nil, errors.New("xmtp: a key was given and encryption switched off: choose one")
	}
	return o, nil
}

// storeOptions says which database a wallet's client uses, and makes its key if there is none.
func (o *options) storeOptions(address string) (store.Options, error) {
	if o.inMemory {
		if o.standby {
			return store.Options{}, errors.New("a database in memory has nobody to stand by for")
		}
		if o.memory == nil {
			return store.Options{}, nil
		}
		return store.Options{Memory: &o.memory.pages}, nil
	}
	path := o.path
	if path == "" {
		var err error
		if path, err = defaultPath(o.env, address); err != nil {
			return store.Options{}, err
		}
	}
	so := store.Options{Path: path, Key: o.key, VFS: o.vfs}
	if o.standby {
		so.Standby = func() { o.logger.Info(standingBy) }
	}
	if o.key == nil && !o.plain {
		key, err := keyFile(path)
		if err != nil {
			return store.Options{}, err
		}
		so.Key = key
	}
	return so, nil
}

// defaultPath is in the user's configuration folder and tells node and wallet.
func defaultPath(env, address string) (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the database (see WithDatabase): %w", err)
	}
	if u, err := url.Parse(env); err == nil && u.Host != "" {
		env = strings.ReplaceAll(u.Host, ":", "-")
	}
	return filepath.Join(dir, "xmtp", fmt.Sprintf("%s-%s.db", env, address)), nil
}

// ErrKeyFile is returned if a database is there but the file with its key is
// not, or is no key.
var ErrKeyFile = errors.New("the database's key file is missing or damaged")

// keyFile reads the key of a database, or makes one for a database that is not
// there yet.
func keyFile(path string) (*[store.KeySize]byte, error) {
	name := path + ".key"
	content, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			return nil, fmt.Errorf("%w: %s is not there, without it nobody can read %s", ErrKeyFile, name, path)
		}
		return makeKeyFile(name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the database's key: %w", store.Explain(err))
	}
	defer clear(content)
	var key [store.KeySize]byte
	if n, err := hex.Decode(key[:], []byte(strings.TrimSpace(string(content)))); err != nil || n != len(key) {
		return nil, fmt.Errorf("%w: %s does not hold %d hex digits", ErrKeyFile, name, 2*store.KeySize)
	}
	return &key, nil
}

// makeKeyFile writes a new key so that it is on disk, whole, before anything is
// encrypted with it.
func makeKeyFile(name string) (*[store.KeySize]byte, error) {
	var key [store.KeySize]byte
	rand.Read(key[:])
	write := func() error {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		temp, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
		if err != nil {
			return err
		}
		defer os.Remove(temp.Name()) // gone once it is renamed
		_, err = temp.WriteString(hex.EncodeToString(key[:]) + "\n")
		if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
			return err
		}
		// Another process may have been first.
		if err := os.Link(temp.Name(), name); err != nil {
			return err
		}
		return store.SyncDir(filepath.Dir(name))
	}
	err := write()
	if errors.Is(err, fs.ErrExist) {
		return keyFile(strings.TrimSuffix(name, ".key"))
	}
	if err != nil {
		return nil, fmt.Errorf("making the database's key: %w", store.Explain(err))
	}
	return &key, nil
}
