package interop

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// toxics stands in for the fault-injecting proxy that the agent SDK's suite switches on
// and off: its control port with the one call that the suite makes, and the port that it
// forwards to the node.
type toxics struct {
	upstream string

	mu          sync.Mutex
	listener    net.Listener // nil while switched off
	connections map[net.Conn]struct{}
	running     sync.WaitGroup
}

const (
	toxicsControl = "127.0.0.1:8475"
	toxicsForward = "127.0.0.1:6010"
)

func startToxics(t *testing.T, upstream string) {
	t.Helper()
	p := &toxics{upstream: upstream, connections: make(map[net.Conn]struct{})}
	control, err := net.Listen("tcp", toxicsControl)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /proxies/{name}", func(w http.ResponseWriter, r *http.Request) {
		var wanted struct {
			Enabled bool `json:"enabled"`
		}
		err := json.NewDecoder(r.Body).Decode(&wanted)
		if err == nil {
			err = p.set(wanted.Enabled)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	p.running.Go(func() {
		if err := server.Serve(control); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("proxy control: %v", err)
		}
	})
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Errorf("proxy control: %v", err)
		}
		if err := p.set(false); err != nil {
			t.Errorf("proxy: %v", err)
		}
		p.running.Wait()
	})
}

// set opens the forwarded port, or closes it with all its connections.
func (p *toxics) set(enabled bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case enabled && p.listener == nil:
		listener, err := net.Listen("tcp", toxicsForward)
		if err != nil {
			return err
		}
		p.listener = listener
		p.running.Go(func() { p.accept(listener) })
	case !enabled && p.listener != nil:
		p.listener.Close()
		p.listener = nil
		for connection := range p.connections {
			connection.Close()
		}
	}
	return nil
}

func (p *toxics) accept(listener net.Listener) {
	for {
		down, err := listener.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", p.upstream)
		if err != nil {
			down.Close()
			continue
		}
		p.mu.Lock()
		if p.listener != listener { // switched off meanwhile
			p.mu.Unlock()
			down.Close()
			up.Close()
			return
		}
		p.connections[down], p.connections[up] = struct{}{}, struct{}{}
		p.mu.Unlock()
		p.running.Go(func() { p.copy(up, down) })
		p.running.Go(func() { p.copy(down, up) })
	}
}

// copy moves bytes until either side ends, and then ends both.
func (p *toxics) copy(to, from net.Conn) {
	io.Copy(to, from)
	to.Close()
	from.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.connections, to)
	delete(p.connections, from)
}
