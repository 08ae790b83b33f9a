// Package xmtptest is an XMTP network inside one test: a node and as many clients as
// are wanted, without ports, files or waiting. A conversation of two takes some
// hundredths of a second.
//
//	func TestBot(t *testing.T) {
//		n := xmtptest.New(t)
//		bot, alice := n.Client("bot"), n.Client("alice")
//		…
//	}
//
// Everything runs in the test's process and ends with it. Tests can run in parallel;
// each has a network of its own.
//
// # Time
//
// In a bubble of [testing/synctest] the clock is the test's: an hour is over as soon
// as nobody has anything left to do. The network runs inside such a bubble as it does
// outside, all of it with that clock: disappearing messages, expiring key packages,
// keepalive and reconnecting.
//
//	synctest.Test(t, func(t *testing.T) {
//		n := xmtptest.New(t)
//		…
//		time.Sleep(24 * time.Hour)
//	})
//
// # Faults
//
// [Network.Cut] and [Network.Stall] take clients off the network, [Network.Fault]
// loses, delays, repeats or refuses single calls, and [Network.Restart] and
// [Network.Crash] do to the node what happens to nodes.
package xmtptest

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// A Network is a node and its clients. Its methods are safe for use by several
// goroutines, but those that can fail the test only by the test's own: [Network.Client],
// [Network.Restart] and [Network.Crash].
type Network struct {
	t       testing.TB
	logger  *slog.Logger
	options func(*node.Options)

	closing sync.Once
	running sync.Mutex // held while the node is started or ended
	node    *node.Node
	memory  *node.Memory

	mu      sync.Mutex
	port    *port // where the node listens; nil while there is none
	devices map[string]*device
	every   *link // as new ones are
	wallets map[string]xmtp.Signer
	clients []*xmtp.Client
	faults  []*Fault
}

// device is what belongs to a name.
type device struct {
	link   *link
	memory xmtp.Memory
}

// An Option changes how [New] makes a network.
type Option func(*Network)

// WithLogger takes what the node and the clients log; a client's lines have its name
// as attribute "client". By default warnings and errors go to the test's output.
func WithLogger(logger *slog.Logger) Option {
	return func(n *Network) { n.logger = logger }
}

// WithNodeOptions lets change the options that the node is started with, each time
// that it is.
func WithNodeOptions(change func(*node.Options)) Option {
	return func(n *Network) { n.options = change }
}

// New starts a network, which ends with the test.
func New(t testing.TB, list ...Option) *Network {
	t.Helper()
	n := &Network{
		t:       t,
		logger:  slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		options: func(*node.Options) {},
		memory:  new(node.Memory),
		devices: map[string]*device{},
		wallets: map[string]xmtp.Signer{},
	}
	n.every = newLink(n, "")
	for _, option := range list {
		option(n)
	}
	n.running.Lock()
	defer n.running.Unlock()
	n.start()
	t.Cleanup(n.Close)
	return n
}

// Close ends the network before the test does, for instance in the loop of a benchmark.
func (n *Network) Close() { n.closing.Do(n.end) }

// start starts the node with what is in its memory.
func (n *Network) start() {
	n.t.Helper()
	port := newPort()
	o := node.Options{
		Listener:          port,
		Ephemeral:         true,
		Memory:            n.memory,
		Logger:            n.logger,
		UnaryInterceptor:  n.unary,
		StreamInterceptor: n.stream,
	}
	n.options(&o)
	started, err := node.Start(context.Background(), o)
	if err != nil {
		n.t.Fatal("xmtptest: starting the node:", err)
	}
	n.node = started
	n.mu.Lock()
	defer n.mu.Unlock()
	n.port = port
}

// Client opens the client of a name, for instance "alice". The first time that makes a
// wallet and registers it. A client that was closed is opened again, with what it has
// stored. What follows a slash is a device: "alice/phone" is another installation of
// alice's inbox. Clients that are open when the test ends are closed.
//
// Failing to open fails the test; see [Network.Options] for clients that may fail.
func (n *Network) Client(name string, list ...xmtp.Option) *xmtp.Client {
	n.t.Helper()
	client, err := xmtp.NewClient(n.t.Context(), n.Signer(name), append(n.Options(name), list...)...)
	if err != nil {
		n.t.Fatalf("xmtptest: opening the client of %s: %v", name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clients = append(n.clients, client)
	return client
}

// Options are those of a name's client: the network, a database in memory that is
// there as long as the test, and a logger. They are for programs under test that open
// their client themselves, with [Network.Signer], and for functions that need none,
// such as [xmtp.InboxStates]. Who opens a client so has to close it before the test
// ends.
func (n *Network) Options(name string) []xmtp.Option {
	d := n.device(name)
	return []xmtp.Option{
		xmtp.WithNode("http://node.test"),
		xmtp.WithDialer(d.link.dial),
		xmtp.WithMemory(&d.memory),
		xmtp.WithLogger(n.logger.With("client", name)),
	}
}

func (n *Network) device(name string) *device {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.devices[name]
	if d == nil {
		d = &device{link: newLink(n, name)}
		like := n.every
		if owner := n.devices[walletOf(name)]; owner != nil {
			like = owner.link
		}
		d.link.be(like)
		n.devices[name] = d
	}
	return d
}

// each does something to links: those of names and their devices, or, without names,
// all that there are and will be.
func (n *Network) each(names []string, do func(*link)) {
	for _, name := range names {
		n.device(name) // so that it is there for devices to come
	}
	n.mu.Lock()
	var links []*link
	if len(names) == 0 {
		links = append(links, n.every)
	}
	for name, d := range n.devices {
		if len(names) == 0 || slices.ContainsFunc(names, func(of string) bool { return covers(of, name) }) {
			links = append(links, d.link)
		}
	}
	n.mu.Unlock()
	for _, l := range links {
		do(l)
	}
}

// walletOf returns the part of a name that tells the wallet.
func walletOf(name string) string {
	wallet, _, _ := strings.Cut(name, "/")
	return wallet
}

// covers tells whether a name is another one or, being a wallet's, that of its device.
func covers(name, of string) bool { return name == of || name == walletOf(of) }

// Signer returns the wallet of a name: another for each, the same for all devices.
func (n *Network) Signer(name string) xmtp.Signer {
	name = walletOf(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	signer := n.wallets[name]
	if signer == nil {
		var err error
		if signer, err = xmtp.GeneratePrivateKeySigner(); err != nil {
			panic(err) // the system has no randomness
		}
		n.wallets[name] = signer
	}
	return signer
}

// Restart ends the node in order, and starts it again with what it has stored. Calls
// under way end, and streams break.
func (n *Network) Restart() {
	n.t.Helper()
	n.running.Lock()
	defer n.running.Unlock()
	n.stop()
	n.start()
}

// Crash cuts the node's power, and starts it again with what is then on its disk: all
// that it has acknowledged, and perhaps more.
func (n *Network) Crash() {
	n.t.Helper()
	n.running.Lock()
	defer n.running.Unlock()
	// Nothing may be acknowledged after that.
	n.disconnect()
	n.memory = n.memory.PowerCut()
	n.stop()
	n.start()
}

// disconnect takes the node off the network.
func (n *Network) disconnect() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.port = nil
	for _, d := range n.devices {
		d.link.drop()
	}
}

// stop ends the node.
func (n *Network) stop() {
	n.t.Helper()
	n.disconnect()
	if err := n.node.Close(); err != nil {
		n.t.Error("xmtptest: the node:", err)
	}
}

func (n *Network) end() {
	n.mu.Lock()
	clients := n.clients
	n.clients = nil
	n.mu.Unlock()
	var closing sync.WaitGroup
	for _, client := range clients {
		closing.Go(func() {
			if err := client.Close(); err != nil {
				n.t.Error("xmtptest: a client:", err)
			}
		})
	}
	closing.Wait()
	n.mu.Lock()
	for name, d := range n.devices {
		if d.link.open() {
			n.t.Errorf("xmtptest: a client of %s was not closed: who opens one with Options has to", name)
		}
	}
	n.mu.Unlock()
	n.running.Lock()
	defer n.running.Unlock()
	n.stop()
}
