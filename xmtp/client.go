package xmtp

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/network"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// Client is one installation of an inbox: a user on one device. It is safe for
// use by several goroutines. Close it.
type Client struct {
	options  *options
	db       *store.DB
	node     *network.Node
	requests *requests
	inboxes  *inboxes

	address      string
	inboxID      string
	installation identity.Identifier
	key          ed25519.PrivateKey
	signer       mls.Signer
	hmac         *protocol.HMACRoot

	groups groupCache
	news   notifier
	live   liveStreams

	notices notices

	deletions deletions
	durables  durables

	// welcoming serialises the processing of welcomes.
	welcoming chan struct{}

	unsent chan struct{} // holds a token when something is to be published soon

	closing context.Context // ends when Close is called
	close   context.CancelFunc
	workers sync.WaitGroup
	closed  sync.Once
}

// Names of what is kept in the database about the client itself.
const (
	metaAddress      = "address"
	metaInbox        = "inbox"
	metaInstallation = "installation" // Ed25519 seed
	metaHMACRoot     = "hmac root"
	numberRegistered = "registered" // 1 once the inbox lists the installation
	numberWelcome    = "welcome cursor"
	numberRotation   = "next rotation" // ns; when to upload a new key package
	numberRotated    = "rotations"     // ns; ahead of now by a share for each rotation of late
)

// NewClient opens the client of a wallet and registers it the first time, which
// asks the wallet for one signature. After that it needs neither the wallet nor,
// until it is used, the network.
//
// The context bounds only the call. Errors that a caller may want to tell apart:
// [ErrInUse], [ErrWrongKey], [ErrForeign], [ErrNewer], [ErrDamaged] and
// [ErrKeyFile] of the database, [ErrOtherWallet], [ErrInboxLogFull], and
// [InstallationLimitError], by which installations can be revoked.
func NewClient(ctx context.Context, signer Signer, list ...Option) (*Client, error) {
	c, err := open(ctx, signer, list)
	if err != nil {
		return nil, err
	}
	if err := c.register(ctx, signer); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.noteUpdates()
	c.startWorkers()
	return c, nil
}

// open prepares everything that is there without the network.
func open(ctx context.Context, signer Signer, list []Option) (c *Client, err error) {
	o, err := newOptions(list)
	if err != nil {
		return nil, err
	}
	owner, err := identifierOf(signer)
	if err != nil {
		return nil, fmt.Errorf("xmtp: %w", err)
	}
	so, err := o.storeOptions(owner.String())
	if err != nil {
		return nil, fmt.Errorf("xmtp: %w", err)
	}
	db, err := store.Open(ctx, so)
	if err != nil {
		return nil, fmt.Errorf("xmtp: %s: %w", so.Path, err)
	}
	asking := newRequests(o)
	node, err := network.Open(network.Options{
		URL:             o.url,
		Dial:            o.dial,
		AppVersion:      o.appVersion,
		ProtocolVersion: ProtocolVersion,
		Around:          asking.around,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("xmtp: %w", err), db.Close())
	}
	c = &Client{
		options:   o,
		db:        db,
		node:      node,
		requests:  asking,
		inboxes:   newInboxes(db, node),
		address:   owner.String(),
		welcoming: make(chan struct{}, 1),
		unsent:    make(chan struct{}, 1),
	}
	c.inboxes.client = c
	c.closing, c.close = context.WithCancel(context.Background())
	c.groups.init(c)
	c.news.init()
	c.live.init(c)
	if err := c.load(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// load reads who the client is, or decides on it if it is new.
func (c *Client) load() error {
	var address, inbox, seed, root []byte
	read := func(tx *store.Tx) (err error) {
		for name, value := range map[string]*[]byte{metaAddress: &address, metaInbox: &inbox, metaInstallation: &seed, metaHMACRoot: &root} {
			if *value, err = tx.Meta(name); err != nil {
				return err
			}
		}
		return nil
	}
	err := c.db.View(read)
	if err == nil && address == nil {
		// It becomes durable with the first key package, before which nothing is published.
		err = c.db.UpdateLazily(func(tx *store.Tx) error {
			key, err := mls.GenerateSignatureKey(identity.CipherSuite)
			if err != nil {
				return err
			}
			defer clear(key)
			err = errors.Join(
				tx.SetMeta(metaAddress, []byte(c.address)),
				tx.SetMeta(metaInstallation, key),
				tx.SetMeta(metaHMACRoot, protocol.NewHMACRoot().Bytes()),
			)
			if err != nil {
				return err
			}
			return read(tx)
		})
	}
	c.inboxID = string(inbox)
	defer clear(seed)
	defer clear(root)
	if err != nil {
		return fmt.Errorf("xmtp: %w", err)
	}
	if string(address) != c.address {
		return fmt.Errorf("%w: it is that of %s, not of %s", ErrOtherWallet, address, c.address)
	}
	if len(seed) != ed25519.SeedSize {
		return fmt.Errorf("xmtp: %w: no installation key", ErrDamaged)
	}
	c.key = ed25519.NewKeyFromSeed(seed)
	c.installation = identity.Installation(c.key.Public().(ed25519.PublicKey))
	if c.signer, err = mls.NewSigner(identity.CipherSuite, seed); err != nil {
		return fmt.Errorf("xmtp: %w", err)
	}
	if c.hmac, err = protocol.ParseHMACRoot(root); err != nil {
		return fmt.Errorf("xmtp: %w: %w", ErrDamaged, err)
	}
	return nil
}

// InboxID is the user's id: 64 lower-case hex digits.
func (c *Client) InboxID() string { return c.inboxID }

// InstallationID is the id of this installation: its Ed25519 public key, 64
// lower-case hex digits.
func (c *Client) InstallationID() string { return hex.EncodeToString(c.installation.Bytes()) }

// Address is that of the wallet that the client was opened with, in lower case,
// or the public key of the passkey in hex.
func (c *Client) Address() string { return c.address }

// Close ends streams and background work and closes the database. What was
// sent but not published is published when the client is opened again.
func (c *Client) Close() error {
	var err error
	c.closed.Do(func() {
		c.close()
		close(c.requests.done)
		c.workers.Wait()
		c.groups.close()
		err = errors.Join(c.db.Close(), c.node.Close())
		clear(c.key)
	})
	if err != nil {
		return fmt.Errorf("xmtp: closing: %w", err)
	}
	return nil
}

// now is the clock's time in nanoseconds since the Unix epoch.
func (c *Client) now() int64 { return c.options.now().UnixNano() }

// mlsClient says what our leaves look like.
func (c *Client) mlsClient() mls.Client { return protocol.NewClient(c.inboxID, c.signer) }
