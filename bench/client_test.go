package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
)

func TestBounds(t *testing.T) {
	first := &comparison{turns: [2][]float64{{10}, nil}}
	for _, c := range []struct {
		bound          bound
		ours, official []float64
		holds, judged  bool
	}{
		{bound{atMost: 0.5}, []float64{5, 6, 7}, []float64{12, 12, 12}, true, true},
		{bound{atMost: 0.5}, []float64{5, 7, 7}, []float64{12, 12, 12}, false, true},
		{bound{atLeast: 5}, []float64{50}, []float64{10}, true, true},
		{bound{atLeast: 5}, []float64{49}, []float64{10}, false, true},
		{bound{atMost: 0.5}, []float64{5}, nil, true, false},
		{bound{}, []float64{5}, []float64{1}, true, false},
		{bound{absolute: 4}, []float64{4}, nil, true, true},
		{bound{absolute: 4}, []float64{5}, []float64{100}, false, true},
		{bound{absolute: 4}, nil, nil, false, false},
		{bound{growth: 1.5, first: first}, []float64{15}, nil, true, true},
		{bound{growth: 1.5, first: first}, []float64{16}, nil, false, true},
	} {
		row := &comparison{bound: c.bound, turns: [2][]float64{c.ours, c.official}}
		holds, judged := row.holds()
		if judged != c.judged || judged && holds != c.holds {
			t.Errorf("%+v, ours %v, official %v: holds %v, judged %v", c.bound, c.ours, c.official, holds, judged)
		}
	}
}

// TestFrames reads along in pieces of all sizes.
func TestFrames(t *testing.T) {
	var wire bytes.Buffer
	wire.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&wire, nil)
	var block bytes.Buffer
	headers := hpack.NewEncoder(&block)
	for i, path := range []string{"/a/First", "/a/Second", "/a/First"} {
		block.Reset()
		for _, f := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":path", Value: path}} {
			if err := headers.WriteField(f); err != nil {
				t.Fatal(err)
			}
		}
		stream := uint32(2*i + 1)
		half := block.Len() / 2
		for _, err := range []error{
			framer.WriteSettings(),
			framer.WriteHeaders(http2.HeadersFrameParam{
				StreamID: stream, BlockFragment: block.Bytes()[:half], PadLength: 7,
				Priority: http2.PriorityParam{Weight: 3},
			}),
			framer.WriteContinuation(stream, true, block.Bytes()[half:]),
			framer.WriteData(stream, true, make([]byte, 100+i)),
			framer.WritePing(false, [8]byte{}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for size := 1; size <= wire.Len(); size++ {
		calls := map[string]int{}
		f := &frames{preface: len(http2.ClientPreface), headers: hpack.NewDecoder(4096, func(f hpack.HeaderField) {
			if f.Name == ":path" {
				calls[f.Value]++
			}
		})}
		data := int64(0)
		for rest := wire.Bytes(); len(rest) > 0; {
			n := min(size, len(rest))
			data += f.read(rest[:n])
			rest = rest[n:]
		}
		if data != 303 || calls["/a/First"] != 2 || calls["/a/Second"] != 1 {
			t.Fatalf("in pieces of %d: %d bytes of data, calls %v", size, data, calls)
		}
	}
}

// TestProxy lets calls through, counts them, and none while it is cut.
func TestProxy(t *testing.T) {
	node := newEcho(t)
	p, err := startProxy(node)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	conns, err := dial(p.port.Addr().String(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer conns.Close()
	call := func() error {
		return conns[0].Invoke(context.Background(), echoMethod, &raw{echoRequest(500, 10)}, &raw{}, grpc.WaitForReady(false))
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	before := p.traffic()
	if err := call(); err != nil {
		t.Fatal(err)
	}
	got := p.traffic().since(before)
	// A message of gRPC has five bytes before it.
	if got.requests != 1 || got.calls[echoMethod] != 1 || got.upData != 505 || got.up < 505 || got.down == 0 {
		t.Errorf("one call passed as %+v", got)
	}
	p.cut()
	if err := call(); err == nil {
		t.Error("a call got through the cut")
	}
	p.mend()
	if err := conns[0].Invoke(context.Background(), echoMethod, &raw{echoRequest(500, 10)}, &raw{}, grpc.WaitForReady(true)); err != nil {
		t.Error(err)
	}
}

// newEcho starts the bare server in this process.
func newEcho(t *testing.T) string {
	t.Helper()
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	input, stop := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- serveEchoOn(port, input) }()
	t.Cleanup(func() {
		stop.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return port.Addr().String()
}
