package main

import (
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A proxy stands between clients and the node. It counts what passes, by reading along,
// and can cut all connections.
type proxy struct {
	port   net.Listener
	target string
	work   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	down  bool
	seen  traffic
}

// traffic is what has passed: bytes of TCP, and of gRPC's messages alone (the DATA
// frames of HTTP/2), up to the node and down from it.
type traffic struct {
	up, down         int64
	upData, downData int64
	requests         int
	calls            map[string]int // requests by method
}

func startProxy(target string) (*proxy, error) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{port: port, target: target, conns: map[net.Conn]bool{}}
	p.seen.calls = map[string]int{}
	p.work.Go(p.accept)
	return p, nil
}

func (p *proxy) url() string { return "http://" + p.port.Addr().String() }

func (p *proxy) stop() {
	_ = p.port.Close()
	p.cut()
	p.work.Wait()
}

// cut ends all connections; new ones are ended at once, until mend.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// traffic is what has passed so far.
func (p *proxy) traffic() traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	seen.calls = maps.Clone(seen.calls)
	return seen
}

// since is what has passed between two looks.
func (t traffic) since(before traffic) traffic {
	t.up -= before.up
	t.down -= before.down
	t.upData -= before.upData
	t.downData -= before.downData
	t.requests -= before.requests
	calls := map[string]int{}
	for method, n := range t.calls {
		if n -= before.calls[method]; n > 0 {
			calls[method] = n
		}
	}
	t.calls = calls
	return t
}

func (p *proxy) accept() {
	for {
		conn, err := p.port.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.serve(conn) })
	}
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.keep(client) {
		return
	}
	defer p.forget(client)
	node, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer node.Close()
	if !p.keep(node) {
		return
	}
	defer p.forget(node)
	up := &frames{preface: len(http2.ClientPreface), headers: hpack.NewDecoder(4096, nil)}
	up.headers.SetEmitFunc(func(f hpack.HeaderField) {
		if f.Name == ":path" {
			p.seen.calls[f.Value]++ // under the lock: see copy
			p.seen.requests++
		}
	})
	var both sync.WaitGroup
	both.Go(func() { p.copy(node, client, up, &p.seen.up, &p.seen.upData) })
	both.Go(func() { p.copy(client, node, &frames{}, &p.seen.down, &p.seen.downData) })
	both.Wait()
}

func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.down {
		p.conns[c] = true
	}
	return !p.down
}

func (p *proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// copy copies one direction until it ends, and then ends the other.
func (p *proxy) copy(to, from net.Conn, reading *frames, bytes, data *int64) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		*bytes += int64(n)
		*data += reading.read(buffer[:n])
		p.mu.Unlock()
		if _, wrong := to.Write(buffer[:n]); errors.Join(err, wrong) != nil {
			return
		}
	}
}

// frames reads along in one direction of an HTTP/2 connection (RFC 9113 §4.1).
type frames struct {
	preface int            // what is left of the client's preface
	headers *hpack.Decoder // nil if they don't matter
	head    []byte
	kind    http2.FrameType
	flags   http2.Flags
	left    int    // of the frame's payload
	payload []byte // of HEADERS and CONTINUATION
}

// read returns how many bytes of messages were among them.
func (f *frames) read(b []byte) (data int64) {
	for len(b) > 0 {
		if f.preface > 0 {
			n := min(f.preface, len(b))
			f.preface, b = f.preface-n, b[n:]
			continue
		}
		if f.left == 0 {
			n := min(9-len(f.head), len(b))
			f.head, b = append(f.head, b[:n]...), b[n:]
			if len(f.head) < 9 {
				return data
			}
			f.left = int(binary.BigEndian.Uint32(f.head) >> 8)
			f.kind, f.flags = http2.FrameType(f.head[3]), http2.Flags(f.head[4])
			f.head = f.head[:0]
			if f.left == 0 {
				f.end()
			}
			continue
		}
		n := min(f.left, len(b))
		switch f.kind {
		case http2.FrameData:
			data += int64(n)
		case http2.FrameHeaders, http2.FrameContinuation:
			f.payload = append(f.payload, b[:n]...)
		}
		f.left, b = f.left-n, b[n:]
		if f.left == 0 {
			f.end()
		}
	}
	return data
}

// end is called after each frame.
func (f *frames) end() {
	if f.kind != http2.FrameHeaders && f.kind != http2.FrameContinuation {
		return
	}
	block := f.payload
	if f.kind == http2.FrameHeaders {
		padding := 0
		if f.flags.Has(http2.FlagHeadersPadded) && len(block) > 0 {
			padding, block = int(block[0]), block[1:]
		}
		if f.flags.Has(http2.FlagHeadersPriority) && len(block) >= 5 {
			block = block[5:]
		}
		block = block[:max(0, len(block)-padding)]
	}
	f.payload = f.payload[:0]
	if f.headers != nil {
		// What can't be decoded isn't counted; the node will refuse it.
		_, _ = f.headers.Write(block)
	}
}
