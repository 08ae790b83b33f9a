package node_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip" // which the program has, too
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// headerBlock is the headers of a gRPC request.
func headerBlock(path string, more ...hpack.HeaderField) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: path},
		{Name: ":authority", Value: "localhost"}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...) {
		_ = e.WriteField(f) // a buffer takes everything
	}
	return b.Bytes()
}

// floods are what a connection can do without end, by its i-th step.
var floods = map[string]func(f *http2.Framer, i uint32) error{
	"resets": func(f *http2.Framer, i uint32) error {
		return errors.Join(
			f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2*i+1, headerBlock(mlsapi.MlsApi_QueryGroupMessages_FullMethodName)),
			f.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
	},
	"resets of whole requests": func(f *http2.Framer, i uint32) error {
		return errors.Join(
			f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2*i+1, headerBlock(mlsapi.MlsApi_SubscribeGroupMessages_FullMethodName)),
			f.WriteData(2*i+1, true, frame(nil)),
			f.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
	},
	"streams that nobody ends": func(f *http2.Framer, i uint32) error {
		return f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2*i+1, headerBlock(mlsapi.MlsApi_QueryGroupMessages_FullMethodName))
	},
	"errors that the node answers by resets": func(f *http2.Framer, i uint32) error {
		return errors.Join(
			f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2*i+1, headerBlock(mlsapi.MlsApi_QueryGroupMessages_FullMethodName)),
			f.WriteWindowUpdate(2*i+1, 1<<31-1))
	},
	"pings":    func(f *http2.Framer, i uint32) error { return f.WritePing(false, [8]byte{byte(i)}) },
	"settings": func(f *http2.Framer, i uint32) error { return f.WriteSettings() },
	"windows": func(f *http2.Framer, i uint32) error {
		return errors.Join(f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: i % 2 * 1000}), f.WriteWindowUpdate(0, 1))
	},
	"priorities": func(f *http2.Framer, i uint32) error {
		return f.WritePriority(2*i+1, http2.PriorityParam{StreamDep: 2*i + 3})
	},
	"data of nothing": func(f *http2.Framer, i uint32) error {
		if i == 0 {
			return f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, headerBlock(mlsapi.MlsApi_QueryGroupMessages_FullMethodName))
		}
		return f.WriteData(1, false, nil)
	},
	"headers without end": func(f *http2.Framer, i uint32) error {
		if i == 0 {
			return f.WriteRawFrame(http2.FrameHeaders, 0, 1, headerBlock("/"))
		}
		return f.WriteContinuation(1, false, bytes.Repeat([]byte{0, 1, 'a', 1, 'b'}, 1000))
	},
	"headers that inflate": func(f *http2.Framer, i uint32) error {
		// A field of 4,000 bytes is put into the table, then named 10,000 times by a byte.
		block := headerBlock("/", hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 4000)})
		return f.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 2*i+1,
			append(block, bytes.Repeat([]byte{0x80 | 62}, 10_000)...))
	},
	"unknown frames": func(f *http2.Framer, i uint32) error { return f.WriteRawFrame(0xbe, 0, 0, make([]byte, 1000)) },
}

// flood does something as often and as fast as the node lets it, and reads nothing
// of what the node says about it, or all. The connection is closed then.
func flood(conn net.Conn, times uint32, reads bool, step func(f *http2.Framer, i uint32) error) {
	defer conn.Close()
	// A node that reads no more is as good as one that hangs up.
	_ = conn.SetDeadline(time.Now().Add(scaled(2*time.Second, time.Minute)))
	var reading sync.WaitGroup
	defer reading.Wait()
	defer conn.Close()
	if reads {
		reading.Go(func() { io.Copy(io.Discard, conn) })
	}
	out := bufio.NewWriterSize(conn, 32<<10)
	f := http2.NewFramer(out, nil)
	f.AllowIllegalWrites = true
	io.WriteString(out, http2.ClientPreface)
	f.WriteSettings()
	for i := range times {
		if step(f, i) != nil {
			return
		}
	}
	out.Flush()
}

// TestFloods: whatever frames a connection sends without end, the node hangs up or
// goes on, and others don't notice. So do both servers of HTTP/2.
func TestFloods(t *testing.T) {
	for name, protocols := range map[string][]string{"gRPC": {"h2"}, "web": {"h2", "http/1.1"}} {
		t.Run(name, func(t *testing.T) {
			n, a := startTLS(t, node.Options{})
			s := besiege(t, n, grpc.WithTransportCredentials(credentials.NewTLS(a.client())))
			var attacks sync.WaitGroup
			for _, step := range floods {
				for _, reads := range []bool{false, true} {
					attacks.Go(func() {
						conn, err := tls.Dial("tcp", n.Addr(), a.client(protocols...))
						if err != nil {
							t.Error(err)
							return
						}
						flood(conn, scaled[uint32](1_500, 1_000_000), reads, step)
					})
				}
			}
			attacks.Wait()
			s.over(t, fmt.Sprintf("%d floods of frames, %s", 2*len(floods), name), 16<<20)
		})
	}
}

// halfOpen is what connections say that then say nothing more.
var halfOpen = []string{
	"", "PRI * HT", http2.ClientPreface, "POST /xmtp.mls.api.v1.MlsApi/QueryGroupMessages HTTP/1.1\r\nHost: a\r\n",
}

const halfOpenConnections = 10_000

// opensHalf opens very many connections, says a little on each, and closes them
// when its standard input ends.
func opensHalf(addr string) error {
	var conns []net.Conn
	for i := range halfOpenConnections {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		// It may be closed already: only the newest may be silent.
		_, _ = io.WriteString(conn, halfOpen[i%len(halfOpen)])
		conns = append(conns, conn)
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, conn := range conns {
		conn.Close()
	}
	return nil
}

// TestTenThousandHalfOpen: so many connections that say too little are in nobody's
// way, and gone when they are. They are another process's.
func TestTenThousandHalfOpen(t *testing.T) {
	s := besiege(t, start(t, node.Options{}))
	cmd := helper(s.ctx, "half-open", s.n.Addr())
	stdin, stdout := must(cmd.StdinPipe())(t), must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "open\n" {
		t.Errorf("the helper said %q: %v", line, err)
	}
	peak := int64(heap()) - int64(s.heap)
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if peak > 512<<20 {
		t.Errorf("they took %d MiB", peak>>20)
	}
	s.over(t, fmt.Sprintf("%d half-open connections, which took %d MiB", halfOpenConnections, peak>>20), 16<<20)
}

// TestLengthsThatLie: who says that a request is long, and sends little of it,
// costs what he sends.
func TestLengthsThatLie(t *testing.T) {
	const requests = 100 // of 24 MiB, it says
	n, a := startTLS(t, node.Options{})
	s := besiege(t, n, grpc.WithTransportCredentials(credentials.NewTLS(a.client())))
	head := binary.BigEndian.AppendUint32([]byte{0}, 24<<20)
	var conns []net.Conn
	for _, protocols := range [][]string{{"h2"}, {"h2", "http/1.1"}} {
		for range requests / 100 {
			conn := must(tls.Dial("tcp", n.Addr(), a.client(protocols...)))(t)
			defer conn.Close()
			conns = append(conns, conn)
			go io.Copy(io.Discard, conn)
			f := http2.NewFramer(conn, nil)
			must(io.WriteString(conn, http2.ClientPreface))(t)
			err := f.WriteSettings()
			for id := uint32(1); id < 200; id += 2 {
				block := headerBlock(mlsapi.MlsApi_SendGroupMessages_FullMethodName, hpack.HeaderField{Name: "content-length", Value: fmt.Sprint(24 << 20)})
				err = errors.Join(err, f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true}),
					f.WriteData(id, false, append(bytes.Clone(head), make([]byte, 500)...)))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range requests {
		conn := must(tls.Dial("tcp", n.Addr(), a.client("http/1.1")))(t)
		defer conn.Close()
		conns = append(conns, conn)
		kind := []string{"application/grpc-web+proto", "application/proto"}[i%2]
		must(fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s%s",
			mlsapi.MlsApi_SendGroupMessages_FullMethodName, kind, 24<<20, head, make([]byte, 500)))(t)
	}
	// Both ends of three times as many requests are here.
	taken := int64(settledHeap()) - int64(s.heap)
	if taken > 256<<20 {
		t.Errorf("%d MiB were taken", taken>>20)
	}
	for _, conn := range conns {
		conn.Close()
	}
	s.over(t, fmt.Sprintf("%d requests that say 24 MiB and send 500 bytes, which took %d MiB", 3*requests, taken>>20), 32<<20)
}

// TestCompressionBombs: what is compressed is refused before it is inflated, in
// all protocols.
func TestCompressionBombs(t *testing.T) {
	n := start(t, node.Options{WebListen: anyPort, HistoryListen: anyPort})
	s := besiege(t, n)
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	must(w.Write(make([]byte, 24<<20)))(t)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	framed := append(binary.BigEndian.AppendUint32([]byte{1}, uint32(bomb.Len())), bomb.Bytes()...)
	var attacks sync.WaitGroup
	for range 8 {
		c, client, native := s.dial(), browser(t), h2c(t)
		attacks.Go(func() {
			defer c.conn.Close()
			for range scaled(2, 10) {
				_, err := c.mls.SendGroupMessages(s.ctx, groupRequest(application(newGroupID(), string(make([]byte, 20<<10)))), grpc.UseCompressor("gzip"))
				if err == nil || !strings.Contains(err.Error(), "compressed requests are not taken") {
					t.Error("gRPC:", err)
				}
			}
		})
		attacks.Go(func() {
			defer client.CloseIdleConnections()
			defer native.CloseIdleConnections()
			for range scaled(2, 10) {
				for kind, headers := range map[string]map[string]string{
					"application/grpc":           {"Grpc-Encoding": "gzip"},
					"application/grpc-web+proto": {"Grpc-Encoding": "gzip"},
					"application/proto":          {"Content-Encoding": "gzip"},
					"application/json":           {"Content-Encoding": "gzip"},
				} {
					url := "http://" + n.WebAddr() + mlsapi.MlsApi_SendGroupMessages_FullMethodName
					body, web := framed, client
					if !strings.HasPrefix(kind, "application/grpc") {
						body = bomb.Bytes()
					}
					if kind == "application/grpc" {
						web = native
					}
					req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, url, bytes.NewReader(body))
					if err != nil {
						t.Error(err)
						return
					}
					req.Header.Set("Content-Type", kind)
					for name, value := range headers {
						req.Header.Set(name, value)
					}
					res, err := web.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					if status := grpcStatus(res); res.StatusCode == http.StatusOK && (status == "" || status == "0") {
						t.Errorf("%s: it was taken", kind)
					}
				}
			}
		})
	}
	attacks.Wait()
	s.over(t, fmt.Sprintf("%d compressed requests of %d KiB that would be 24 MiB", 8*scaled(10, 50), bomb.Len()>>10), 32<<20)
}

// TestSignatureFloods: updates of 25 MiB full of signatures are refused for their
// size, and the biggest that aren't leave the others their turn.
func TestSignatureFloods(t *testing.T) {
	s := besiege(t, start(t, node.Options{}))
	in := newInbox(t)
	update := in.register(t)
	// As bytes: so many structures would be the test's own burden.
	action := must(proto.Marshal(update.Actions[1]))(t)
	action = append(protowire.AppendVarint([]byte{0x0a}, uint64(len(action))), action...)
	const signatures = 120_000
	full := append(must(proto.Marshal(update))(t), bytes.Repeat(action, signatures)...)
	full = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), full)
	biggest := proto.CloneOf(update)
	for len(biggest.Actions) < 255 {
		biggest.Actions = append(biggest.Actions, update.Actions[1])
	}
	var attacks sync.WaitGroup
	for range 3 {
		c := s.dial()
		attacks.Go(func() {
			defer c.conn.Close()
			for range scaled(1, 50) {
				err := c.invoke(s.ctx, identityapi.IdentityApi_PublishIdentityUpdate_FullMethodName, full)
				wantCode(t, err, codes.InvalidArgument, codes.Internal)
			}
		})
	}
	for range 8 {
		c := s.dial()
		attacks.Go(func() {
			defer c.conn.Close()
			for range scaled(1, 500) {
				_, err := c.publish(s.ctx, biggest)
				wantCode(t, err, codes.InvalidArgument, codes.ResourceExhausted)
			}
		})
	}
	attacks.Wait()
	s.c.wantInboxOf(s.ctx, t, in.owner.Identifier(), "")
	s.over(t, fmt.Sprintf("identity updates of %d MiB with %d signatures, and of 255 actions", len(full)>>20, signatures), 32<<20)
}
