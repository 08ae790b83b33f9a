// Package wiretest stands between a client and a node, for tests, and does to their
// connections what networks do.
package wiretest

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// State is how a wire is.
type State int

const (
	// Up lets everything through.
	Up State = iota
	// Cut closes connections, and refuses new ones.
	Cut
	// Stalled holds everything back. With Up it goes on as if nothing had been.
	Stalled
	// Hole loses what is sent, and so those connections that are there, for good: nobody
	// is told. New ones are lost too while it lasts.
	Hole
)

// Wire passes on connections. It is safe for use by several goroutines.
type Wire struct {
	dial func(ctx context.Context) (net.Conn, error)
	port net.Listener // nil without

	mu      sync.Mutex
	state   State
	changed chan struct{} // closed when the state changes
	delay   time.Duration
	pairs   map[*pair]bool
	opened  int
	running sync.WaitGroup
}

// pair is a connection, in its two halves.
type pair struct {
	client, node net.Conn
	lost         bool // guarded by the wire's lock
}

// New returns a wire to what dial opens. It must be closed.
func New(dial func(ctx context.Context) (net.Conn, error)) *Wire {
	return &Wire{dial: dial, changed: make(chan struct{}), pairs: map[*pair]bool{}}
}

// Listen returns a wire from a port of its own to an address. It must be closed.
func Listen(to string) (*Wire, error) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := New(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", to)
	})
	w.port = port
	w.running.Go(func() {
		for {
			conn, err := port.Accept()
			if err != nil {
				return
			}
			w.running.Go(func() {
				if w.join(context.Background(), conn) != nil {
					conn.Close()
				}
			})
		}
	})
	return w, nil
}

// Addr is where it listens.
func (w *Wire) Addr() string { return w.port.Addr().String() }

// Close closes all connections.
func (w *Wire) Close() {
	if w.port != nil {
		w.port.Close()
	}
	w.Set(Cut)
	w.running.Wait()
}

// Set changes how the wire is.
func (w *Wire) Set(state State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
	close(w.changed)
	w.changed = make(chan struct{})
	for p := range w.pairs {
		switch state {
		case Cut:
			p.close()
		case Hole:
			p.lost = true
		}
	}
}

// SetDelay lets everything take longer, in each direction.
func (w *Wire) SetDelay(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay = d
}

// Opened is how many connections have been passed on.
func (w *Wire) Opened() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened
}

var errCut = errors.New("the wire is cut")

// Dial opens a connection that goes over the wire. One that is begun in a hole gets no
// answer. Its address doesn't matter.
func (w *Wire) Dial(ctx context.Context, _ string) (net.Conn, error) {
	w.mu.Lock()
	state := w.state
	w.mu.Unlock()
	if state == Hole {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	client, far := net.Pipe()
	if err := w.join(ctx, far); err != nil {
		return nil, err
	}
	return client, nil
}

// join passes on what comes from a connection, and to it.
func (w *Wire) join(ctx context.Context, client net.Conn) error {
	w.mu.Lock()
	state := w.state
	w.mu.Unlock()
	if state == Cut {
		return errCut
	}
	p := &pair{client: client}
	if state != Hole {
		node, err := w.dial(ctx)
		if err != nil {
			return err
		}
		p.node = node
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.lost = w.state == Hole || p.node == nil; w.state == Cut {
		p.close()
		return errCut
	}
	w.pairs[p] = true
	w.opened++
	w.running.Go(func() { w.copy(p, p.client, p.node) })
	if p.node != nil {
		w.running.Go(func() { w.copy(p, p.node, p.client) })
	}
	return nil
}

func (p *pair) close() {
	p.client.Close()
	if p.node != nil {
		p.node.Close()
	}
}

// copy passes on what comes from one half to the other.
func (w *Wire) copy(p *pair, from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && w.passes(p) {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !p.lost {
		p.close()
		delete(w.pairs, p)
	}
}

// passes waits as long as something takes to come through, and tells whether it does.
func (w *Wire) passes(p *pair) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := w.delay; d > 0 {
		w.unlocked(func() { time.Sleep(d) })
	}
	for w.state == Stalled && !p.lost {
		changed := w.changed
		w.unlocked(func() { <-changed })
	}
	return !p.lost
}

func (w *Wire) unlocked(f func()) {
	w.mu.Unlock()
	defer w.mu.Lock()
	f()
}
