// Package front tells the protocols of a port apart: each connection goes to
// the server for gRPC or to the one for HTTP.
package front

import (
	"bytes"
	"container/list"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// preface is how connections begin whose client knows that it speaks HTTP/2.
// No method of HTTP/1 begins so.
const preface = "PRI "

// maxPending is how many connections may be undecided. It is as many as a burst
// of clients may open at once; of more, the oldest is dropped.
const maxPending = 4096

// Config is what a front works with.
type Config struct {
	// Timeout bounds how long a connection may be undecided.
	Timeout time.Duration
	// TLS is for all connections; nil for cleartext.
	TLS *tls.Config
}

// A Front gives connections to its two listeners. Those that don't say what they
// are in time are closed. Encrypted ones are a [tls.Conn] after its handshake.
type Front struct {
	config    Config
	grpc, web *Listener

	done    chan struct{} // closed by Close
	mu      sync.Mutex
	ports   []net.Listener
	pending list.List // of net.Conn, the oldest first
	running sync.WaitGroup
}

// New returns a front without ports.
func New(c Config) *Front {
	c.TLS = recording(c.TLS)
	return &Front{config: c, grpc: newListener(), web: newListener(), done: make(chan struct{})}
}

// GRPC has the connections that speak nothing but HTTP/2.
func (f *Front) GRPC() *Listener { return f.grpc }

// Web has all others.
func (f *Front) Web() *Listener { return f.web }

// Serve takes connections of the port until it fails or [Front.Close] is
// called; then it returns nil.
func (f *Front) Serve(port net.Listener) error {
	f.mu.Lock()
	f.ports = append(f.ports, port)
	if f.closed() {
		port.Close()
	}
	f.mu.Unlock()
	pause := time.Duration(0)
	for {
		conn, err := port.Accept()
		if err == nil {
			pause = 0
			f.take(conn)
			continue
		}
		if f.closed() {
			return nil
		}
		// Such as too many open files: what is open goes on.
		if t, ok := err.(interface{ Temporary() bool }); !ok || !t.Temporary() {
			return err
		}
		pause = min(max(5*time.Millisecond, 2*pause), time.Second)
		select {
		case <-time.After(pause):
		case <-f.done:
		}
	}
}

func (f *Front) closed() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// take decides about a connection, beside others.
func (f *Front) take(conn net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed() {
		conn.Close()
		return
	}
	place := f.pending.PushBack(conn)
	if f.pending.Len() > maxPending {
		// Its goroutine finds it closed.
		f.pending.Remove(f.pending.Front()).(net.Conn).Close()
	}
	f.running.Go(func() {
		to, decided := f.decide(conn)
		f.mu.Lock()
		f.pending.Remove(place)
		f.mu.Unlock()
		if to == nil || !to.put(decided) {
			conn.Close()
		}
	})
}

// decide returns the listener for a connection, and what is to be read of it;
// no listener if it is to be closed.
func (f *Front) decide(conn net.Conn) (*Listener, net.Conn) {
	if err := conn.SetDeadline(time.Now().Add(f.config.Timeout)); err != nil {
		return nil, nil
	}
	to, decided := f.route(conn)
	_ = conn.SetDeadline(time.Time{}) // fails if it was closed, which its reader will see
	return to, decided
}

func (f *Front) route(conn net.Conn) (*Listener, net.Conn) {
	if f.config.TLS != nil {
		return f.handshake(conn)
	}
	return f.sniff(conn)
}

// sniff looks at the first bytes.
func (f *Front) sniff(conn net.Conn) (*Listener, net.Conn) {
	if head, ok, err := peek(conn); ok {
		if err != nil {
			return nil, nil
		}
		return f.speaks(head), conn
	}
	head := make([]byte, 0, len(preface))
	for {
		n, err := conn.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if decided(head) {
			return f.speaks(head), &replayed{conn, head}
		}
		if err != nil {
			return nil, nil
		}
	}
}

// decided tells whether the first bytes of a connection are enough.
func decided(head []byte) bool {
	return len(head) == len(preface) || !bytes.HasPrefix([]byte(preface), head)
}

// speaks returns who speaks what begins so; nobody if that is not decided.
func (f *Front) speaks(head []byte) *Listener {
	switch {
	case !decided(head):
		return nil
	case string(head) == preface:
		return f.grpc
	default:
		return f.web
	}
}

// Close stops taking connections, closes those that are undecided, and both
// listeners. What was decided stays open. It must be called once.
func (f *Front) Close() {
	f.mu.Lock()
	close(f.done)
	for _, port := range f.ports {
		port.Close()
	}
	for e := f.pending.Front(); e != nil; e = e.Next() {
		e.Value.(net.Conn).Close()
	}
	f.mu.Unlock()
	f.grpc.Close()
	f.web.Close()
	f.running.Wait()
}

// replayed is a connection of which something was read already.
type replayed struct {
	net.Conn
	head []byte
}

func (c *replayed) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite lets a server end its side first, so that the client can read the
// last answer.
func (c *replayed) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// A Listener is a [net.Listener] that is given its connections.
type Listener struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newListener() *Listener {
	done := make(chan struct{})
	return &Listener{make(chan net.Conn), done, sync.OnceFunc(func() { close(done) })}
}

// put is false if nobody takes connections any more.
func (l *Listener) put(conn net.Conn) bool {
	select {
	case l.conns <- conn:
		return true
	case <-l.done:
		return false
	}
}

// Accept waits for a connection.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends the waiting for connections.
func (l *Listener) Close() error {
	l.close()
	return nil
}

// Addr has no port: there can be several.
func (l *Listener) Addr() net.Addr { return &net.TCPAddr{} }
