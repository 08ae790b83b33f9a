package xmtptest

import (
	"context"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc/test/bufconn"
)

// bufferBytes is how much of a connection may be under way in each direction.
const bufferBytes = 64 << 10

// errNetwork is what a client sees when its network is cut, or when there is no node.
var errNetwork = errors.New("xmtptest: the network is cut")

// address is that of a client: its name.
type address string

func (address) Network() string  { return "xmtptest" }
func (a address) String() string { return string(a) }

// port is where a node listens.
type port struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newPort() *port {
	done := make(chan struct{})
	return &port{make(chan net.Conn), done, sync.OnceFunc(func() { close(done) })}
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error {
	p.close()
	return nil
}

func (p *port) Addr() net.Addr { return address("node") }

// link is what is between a client and the node.
type link struct {
	network *Network
	name    string

	mu    sync.Mutex
	cut   bool
	flows chan struct{} // closed unless the link is stalled
	conns map[*conn]struct{}
}

func newLink(n *Network, name string) *link {
	l := &link{network: n, name: name, flows: make(chan struct{}), conns: map[*conn]struct{}{}}
	close(l.flows)
	return l
}

// dial connects to the node.
func (l *link) dial(ctx context.Context, _ string) (net.Conn, error) {
	if err := l.wait(ctx.Done()); err != nil {
		return nil, context.Cause(ctx)
	}
	l.network.mu.Lock()
	port := l.network.port
	l.network.mu.Unlock()
	if port == nil {
		return nil, errNetwork
	}
	ours, theirs, err := pipe(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: ours, link: l, closed: make(chan struct{})}
	if !l.add(c) {
		return nil, errors.Join(errNetwork, ours.Close(), theirs.Close())
	}
	select {
	case port.conns <- &accepted{theirs, address(l.name)}:
		return c, nil
	case <-port.done:
		err = errNetwork
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return nil, errors.Join(err, c.Close(), theirs.Close())
}

// pipe returns the two ends of a connection.
func pipe(ctx context.Context) (ours, theirs net.Conn, err error) {
	both := bufconn.Listen(bufferBytes)
	defer both.Close()
	ends := make(chan net.Conn, 1)
	go func() {
		end, err := both.Accept()
		if err == nil {
			ends <- end
		}
		close(ends)
	}()
	if ours, err = both.DialContext(ctx); err != nil {
		return nil, nil, err
	}
	return ours, <-ends, nil
}

func (l *link) add(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

// wait returns when the link isn't stalled.
func (l *link) wait(end <-chan struct{}) error {
	for {
		l.mu.Lock()
		flows := l.flows
		l.mu.Unlock()
		select {
		case <-flows:
			return nil
		default:
		}
		select {
		case <-flows:
		case <-end:
			return net.ErrClosed
		}
	}
}

// drop ends connections.
func (l *link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.end()
	}
	clear(l.conns)
}

func (l *link) setCut() {
	l.mu.Lock()
	l.cut = true
	l.mu.Unlock()
	l.drop()
}

func (l *link) stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.flows:
		l.flows = make(chan struct{})
	default:
	}
}

func (l *link) restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
	select {
	case <-l.flows:
	default:
		close(l.flows)
	}
}

// be makes a new link as another one is.
func (l *link) be(like *link) {
	like.mu.Lock()
	defer like.mu.Unlock()
	l.cut, l.flows = like.cut, like.flows
}

// open tells whether there are connections.
func (l *link) open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns) > 0
}

// conn is a client's end of a connection.
type conn struct {
	net.Conn
	link   *link
	once   sync.Once
	closed chan struct{}
}

// Read returns nothing while the link is stalled. What was read meanwhile is not lost.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if waiting := c.link.wait(c.closed); waiting != nil {
		return 0, waiting
	}
	return n, err
}

// Write keeps what is written from arriving while the link is stalled.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.link.wait(c.closed); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *conn) end() error {
	var err error
	c.once.Do(func() {
		close(c.closed)
		err = c.Conn.Close()
	})
	return err
}

func (c *conn) Close() error {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	return c.end()
}

// accepted is the node's end, which tells who calls.
type accepted struct {
	net.Conn
	client address
}

func (a *accepted) RemoteAddr() net.Addr { return a.client }

// Cut ends the connections of clients to the node, and lets none be opened; of all
// clients if there are no names. A name without a slash stands for all devices of it.
func (n *Network) Cut(names ...string) { n.each(names, (*link).setCut) }

// Stall lets nothing pass between clients and the node, but leaves connections open,
// as where a network goes away without a word. Names are as with [Network.Cut].
func (n *Network) Stall(names ...string) { n.each(names, (*link).stall) }

// Restore undoes [Network.Cut] and [Network.Stall]. Names are as there.
func (n *Network) Restore(names ...string) { n.each(names, (*link).restore) }
