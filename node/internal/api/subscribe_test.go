package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/node/internal/hub"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// pipe is a Subscribe stream without a network. What the server sends waits
// until the client takes it.
type pipe struct {
	grpc.ServerStream
	ctx       context.Context
	requests  chan *mlsapi.SubscribeRequest
	responses chan *mlsapi.SubscribeResponse
	ended     chan error
}

func newPipe(ctx context.Context, c Config) *pipe {
	ctx, cancel := context.WithCancel(ctx)
	p := &pipe{
		ctx:       ctx,
		requests:  make(chan *mlsapi.SubscribeRequest),
		responses: make(chan *mlsapi.SubscribeResponse),
		ended:     make(chan error, 1),
	}
	go func() {
		err := (&mlsServer{Config: c}).Subscribe(p)
		cancel() // as gRPC does
		p.ended <- err
	}()
	return p
}

func (p *pipe) Context() context.Context        { return p.ctx }
func (p *pipe) SendHeader(md metadata.MD) error { return nil }

func (p *pipe) Send(m *mlsapi.SubscribeResponse) error {
	select {
	case p.responses <- m:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

func (p *pipe) Recv() (*mlsapi.SubscribeRequest, error) {
	select {
	case m, ok := <-p.requests:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case <-p.ctx.Done():
		return nil, p.ctx.Err()
	}
}

func pong(nonce uint64) *mlsapi.SubscribeRequest {
	return &mlsapi.SubscribeRequest{Version: &mlsapi.SubscribeRequest_V1_{V1: &mlsapi.SubscribeRequest_V1{
		Request: &mlsapi.SubscribeRequest_V1_Pong{Pong: &mlsapi.Pong{Nonce: nonce}},
	}}}
}

func ping(nonce uint64) *mlsapi.SubscribeRequest {
	return &mlsapi.SubscribeRequest{Version: &mlsapi.SubscribeRequest_V1_{V1: &mlsapi.SubscribeRequest_V1{
		Request: &mlsapi.SubscribeRequest_V1_Ping{Ping: &mlsapi.Ping{Nonce: nonce}},
	}}}
}

// idle runs a test with a stream that has no topics, in a world where time
// passes when everybody waits.
func idle(t *testing.T, test func(t *testing.T, p *pipe)) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t.Context(), Config{Hub: hub.New(), Running: context.Background(), Logger: slog.New(slog.DiscardHandler)})
		if (<-p.responses).GetV1().GetStarted().GetKeepaliveIntervalMs() != 30_000 {
			t.Error("no Started")
		}
		test(t, p)
		synctest.Wait()
	})
}

func wantEnd(t *testing.T, p *pipe, code codes.Code, text string) {
	t.Helper()
	err := <-p.ended
	if s, _ := status.FromError(err); s.Code() != code || s.Message() != text {
		t.Errorf("ended with %v, want %v %q", err, code, text)
	}
}

// after is how long something took.
func after(began time.Time) time.Duration { return time.Since(began).Round(time.Second) }

// X12: who doesn't answer a Ping within an interval is dropped. Only the Pong
// with its nonce answers it, and only what is sent puts the next Ping off.
func TestX12(t *testing.T) {
	t.Run("no answer", func(t *testing.T) {
		idle(t, func(t *testing.T, p *pipe) {
			began := time.Now()
			if v := (<-p.responses).GetV1(); v.GetPing() == nil || after(began) != 30*time.Second {
				t.Fatalf("after %v: %v", after(began), v)
			}
			wantEnd(t, p, codes.DeadlineExceeded, "no Pong within deadline")
			if after(began) != 60*time.Second {
				t.Errorf("it took %v", after(began))
			}
		})
	})
	t.Run("wrong answers", func(t *testing.T) {
		idle(t, func(t *testing.T, p *pipe) {
			began := time.Now()
			nonce := (<-p.responses).GetV1().GetPing().GetNonce()
			for _, wrong := range []uint64{nonce + 1, nonce - 1, 0} {
				time.Sleep(5 * time.Second)
				p.requests <- pong(wrong)
			}
			// That it speaks and is spoken to doesn't count either.
			time.Sleep(10 * time.Second)
			p.requests <- ping(1)
			if (<-p.responses).GetV1().GetPong().GetNonce() != 1 {
				t.Error("no Pong")
			}
			wantEnd(t, p, codes.DeadlineExceeded, "no Pong within deadline")
			if after(began) != 60*time.Second {
				t.Errorf("it took %v", after(began))
			}
		})
	})
	t.Run("answers", func(t *testing.T) {
		idle(t, func(t *testing.T, p *pipe) {
			seen := map[uint64]bool{}
			last := time.Now()
			for range 100 {
				nonce := (<-p.responses).GetV1().GetPing().GetNonce()
				if after(last) != 30*time.Second || seen[nonce] {
					t.Fatalf("a Ping after %v, its nonce known: %t", after(last), seen[nonce])
				}
				seen[nonce], last = true, time.Now()
				time.Sleep(29 * time.Second)
				p.requests <- pong(nonce)
				// An old one, and what the client says, put nothing off.
				p.requests <- pong(nonce)
			}
			close(p.requests)
			wantEnd(t, p, codes.OK, "")
		})
	})
	t.Run("what is sent puts the Ping off", func(t *testing.T) {
		idle(t, func(t *testing.T, p *pipe) {
			for range 10 {
				time.Sleep(29 * time.Second)
				p.requests <- ping(7)
				if (<-p.responses).GetV1().GetPong() == nil {
					t.Fatal("no Pong")
				}
			}
			began := time.Now()
			if (<-p.responses).GetV1().GetPing() == nil || after(began) != 30*time.Second {
				t.Errorf("a Ping after %v", after(began))
			}
			close(p.requests)
			wantEnd(t, p, codes.OK, "")
		})
	})
	t.Run("not reading", func(t *testing.T) {
		idle(t, func(t *testing.T, p *pipe) {
			began := time.Now()
			for i := range uint64(maxWaiting + 1) { // one is being written
				p.requests <- ping(i)
			}
			wantEnd(t, p, codes.Unavailable, "send stalled; client not reading")
			if after(began) != 30*time.Second {
				t.Errorf("it took %v", after(began))
			}
		})
	})
	t.Run("reading again", func(t *testing.T) {
		idle(t, func(t *testing.T, p *pipe) {
			for i := range uint64(4) {
				p.requests <- ping(i)
			}
			for i := range uint64(4) {
				time.Sleep(29 * time.Second)
				if (<-p.responses).GetV1().GetPong().GetNonce() != i {
					t.Fatal("another Pong")
				}
			}
			close(p.requests)
			wantEnd(t, p, codes.OK, "")
		})
	})
	t.Run("a client that left", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			p := newPipe(ctx, Config{Hub: hub.New(), Running: context.Background()})
			cancel()
			if err := <-p.ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	})
}

// testIndex is a store that the test owns.
func testIndex(t testing.TB) *index.Index {
	t.Helper()
	x, err := index.Open(index.Options{
		FS:        vfs.NewMem(),
		Dir:       "data",
		Logger:    slog.New(slog.DiscardHandler),
		OnFailure: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func mutate(m *mlsapi.SubscribeRequest_V1_Mutate) *mlsapi.SubscribeRequest {
	return &mlsapi.SubscribeRequest{Version: &mlsapi.SubscribeRequest_V1_{V1: &mlsapi.SubscribeRequest_V1{
		Request: &mlsapi.SubscribeRequest_V1_Mutate_{Mutate: m},
	}}}
}

// add is a Mutate that adds group topics.
func add(id, cursor uint64, groups ...string) *mlsapi.SubscribeRequest_V1_Mutate {
	m := &mlsapi.SubscribeRequest_V1_Mutate{MutateId: id}
	for _, group := range groups {
		m.Adds = append(m.Adds, &mlsapi.SubscribeRequest_V1_Mutate_Subscription{Topic: []byte("\x00" + group), IdCursor: cursor})
	}
	return m
}

func once(m *mlsapi.SubscribeRequest_V1_Mutate) *mlsapi.SubscribeRequest_V1_Mutate {
	m.HistoryOnly = true
	return m
}

func remove(id uint64, group string) *mlsapi.SubscribeRequest_V1_Mutate {
	return &mlsapi.SubscribeRequest_V1_Mutate{MutateId: id, Removes: [][]byte{[]byte("\x00" + group)}}
}

// What is asked while a wave is in flight, which a client that doesn't read keeps
// so. What follows is, for each wave: whether it brought all messages, and how many
// topics are live.
func TestX6_InFlight(t *testing.T) {
	const stored = 6 * frameMessages
	x, h := testIndex(t), hub.New()
	log := order.NewEmbedded(x, time.Now, h.Publish)
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	var records []*order.Record
	for i := range stored {
		records = append(records, &order.Record{
			Topic:   order.Topic{Kind: order.GroupMessage, ID: "g"},
			Facts:   order.GroupFacts{}.Append(nil),
			Payload: []byte(fmt.Sprint(i)),
		})
	}
	if _, err := log.Append(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	both := remove(2, "g")
	both.Adds = add(2, 0, "g").Adds
	for name, tc := range map[string]struct {
		first, second *mlsapi.SubscribeRequest_V1_Mutate
		code          codes.Code
		want          string
	}{
		"the same id":                    {add(1, 0, "g"), add(1, 0, "other"), codes.InvalidArgument, ""},
		"the same id to remove":          {add(1, 0, "g"), remove(1, "other"), codes.InvalidArgument, ""},
		"to be read once, too":           {add(1, 0, "g"), once(add(2, 0, "g")), codes.InvalidArgument, ""},
		"read once, to be subscribed":    {once(add(1, 0, "g")), add(2, 0, "g"), codes.InvalidArgument, ""},
		"read once, to be read once":     {once(add(1, 0, "g")), once(add(2, 0, "g")), codes.InvalidArgument, ""},
		"from later on":                  {add(1, 0, "g"), add(2, stored, "g"), codes.OK, "2: all, 0; 1: all, 1; "},
		"from earlier on":                {add(1, 10, "g"), add(2, 5, "g"), codes.OK, "1: part, 0; 2: all, 1; "},
		"from earlier on, with another":  {add(1, 10, "g", "other"), add(2, 5, "g"), codes.OK, "1: part, 1; 2: all, 1; "},
		"removed":                        {add(1, 0, "g"), remove(2, "g"), codes.OK, "1: part, 0; 2: part, 0; "},
		"removed while there is another": {add(1, 0, "g", "other"), remove(2, "g"), codes.OK, "2: part, 0; 1: part, 1; "},
		"removed and added":              {add(1, 0, "g"), both, codes.OK, "1: part, 0; 2: all, 1; "},
		"read once, removed":             {once(add(1, 0, "g")), remove(2, "g"), codes.OK, "1: part, 0; 2: part, 0; "},
		"beside another":                 {add(1, 0, "g"), add(2, 0, "other"), codes.OK, "2: part, 1; 1: all, 1; "},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPipe(t.Context(), Config{Index: x, Hub: h, Running: context.Background(), Logger: slog.New(slog.DiscardHandler)})
			p.requests <- mutate(tc.first)
			p.requests <- mutate(tc.second)
			if tc.code == codes.OK {
				p.requests <- ping(1) // it is taken when they are
			}
			close(p.requests)
			got, messages, live, cursor := "", map[uint64]int{}, 0, map[uint64]uint64{}
			for _, m := range []*mlsapi.SubscribeRequest_V1_Mutate{tc.first, tc.second} {
				for _, a := range m.Adds {
					cursor[m.MutateId] = a.IdCursor
				}
			}
			for {
				select {
				case m := <-p.responses:
					switch v := m.GetV1().Response.(type) {
					case *mlsapi.SubscribeResponse_V1_Messages_:
						messages[v.Messages.MutateId] += len(v.Messages.GroupMessages)
					case *mlsapi.SubscribeResponse_V1_TopicsLive_:
						live = len(v.TopicsLive.Topics)
					case *mlsapi.SubscribeResponse_V1_CatchupComplete_:
						id := v.CatchupComplete.MutateId
						brought := "part"
						if messages[id] == stored-int(cursor[id]) {
							brought = "all"
						}
						got += fmt.Sprintf("%d: %s, %d; ", id, brought, live)
						live = 0
					}
					continue
				case err := <-p.ended:
					if status.Code(err) != tc.code || tc.code == codes.OK && got != tc.want {
						t.Errorf("%q, ended with %v; want %q, %v", got, err, tc.want, tc.code)
					}
				}
				return
			}
		})
	}
}

// Whatever frames a client sends, the stream ends with a status that blames it,
// or in good order with each Mutate and each Ping answered once.
func FuzzSubscribe(f *testing.F) {
	frame := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return protowire.AppendBytes(nil, b)
	}
	mutates := func(list ...*mlsapi.SubscribeRequest_V1_Mutate) (b []byte) {
		for _, m := range list {
			b = append(b, frame(mutate(m))...)
		}
		return b
	}
	welcome := &mlsapi.SubscribeRequest_V1_Mutate{MutateId: 4, Adds: []*mlsapi.SubscribeRequest_V1_Mutate_Subscription{{Topic: []byte("\x01w")}, {Topic: []byte("\x07g")}}}
	f.Add(mutates(add(1, 0, "g", "other")))
	f.Add(mutates(add(1, 5, "g"), add(2, 0, "g", "g")))
	f.Add(mutates(once(add(3, 0, "g")), remove(9, "g")))
	f.Add(append(mutates(remove(9, "g")), frame(ping(1))...))
	f.Add(append(frame(pong(1)), frame(&mlsapi.SubscribeRequest{})...))
	f.Add(mutates(add(0, 0, "g")))
	f.Add(mutates(welcome))
	f.Add([]byte{1, 0})

	x := testIndex(f)
	f.Fuzz(func(t *testing.T, frames []byte) {
		p := newPipe(t.Context(), Config{Index: x, Hub: hub.New(), Running: context.Background(), Logger: slog.New(slog.DiscardHandler)})
		sent := make(chan [2]int, 1) // Mutates and Pings
		go func() {
			var count [2]int
			defer func() { sent <- count }()
			defer close(p.requests)
			for len(frames) > 0 {
				b, n := protowire.ConsumeBytes(frames)
				if n < 0 {
					return
				}
				frames = frames[n:]
				m := &mlsapi.SubscribeRequest{}
				if Unmarshal(b, m) != nil {
					return
				}
				select {
				case p.requests <- m:
				case <-p.ctx.Done():
					return
				}
				switch m.GetV1().GetRequest().(type) {
				case *mlsapi.SubscribeRequest_V1_Mutate_:
					count[0]++
				case *mlsapi.SubscribeRequest_V1_Ping:
					count[1]++
				}
			}
		}()
		var answered [2]int
		for {
			select {
			case m := <-p.responses:
				switch m.GetV1().GetResponse().(type) {
				case *mlsapi.SubscribeResponse_V1_CatchupComplete_:
					answered[0]++
				case *mlsapi.SubscribeResponse_V1_Pong:
					answered[1]++
				}
				continue
			case err := <-p.ended:
				count := <-sent
				switch code := status.Code(err); {
				case code == codes.InvalidArgument || code == codes.ResourceExhausted:
				case err != nil:
					t.Fatal(err)
				case count != answered:
					t.Fatalf("%v Mutates and Pings, %v answers", count, answered)
				}
			}
			return
		}
	})
}

// A request has a bounded number of elements, at whatever depth they are.
func TestSubscribeFields(t *testing.T) {
	many := func(n int) []byte {
		m := &mlsapi.SubscribeRequest_V1_Mutate{}
		for range n / 2 {
			m.Adds = append(m.Adds, &mlsapi.SubscribeRequest_V1_Mutate_Subscription{})
			m.Removes = append(m.Removes, nil)
		}
		b, err := proto.Marshal(&mlsapi.SubscribeRequest{Version: &mlsapi.SubscribeRequest_V1_{V1: &mlsapi.SubscribeRequest_V1{
			Request: &mlsapi.SubscribeRequest_V1_Mutate_{Mutate: m},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tc := range []struct {
		request []byte
		ok      bool
	}{
		{many(maxSubscribeFields - 2), true},
		{many(maxSubscribeFields + 2), false},
		{append(many(maxSubscribeFields/2+2), many(maxSubscribeFields/2+2)...), false},
		{[]byte{0x0a, 2, 0x0a, 5}, false},
	} {
		if err := Unmarshal(tc.request, &mlsapi.SubscribeRequest{}); (err == nil) != tc.ok {
			t.Errorf("%d bytes: %v", len(tc.request), err)
		}
	}
}
