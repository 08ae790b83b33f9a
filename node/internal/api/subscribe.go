package api

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/node/internal/hub"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

const (
	// keepalive is how long a stream may be silent before the node asks whether
	// anybody is there, and how long it waits for an answer or for a blocked send.
	keepalive = 30 * time.Second
	// maxWaiting is how many frames wait for a slow reader before nothing more is
	// read from it. Messages are made ready one frame at a time.
	maxWaiting = 16
	// What one frame of messages holds at most, unless it is one that is bigger.
	frameMessages = 1024
	frameBytes    = 1 << 20
)

var (
	errStalled = status.Error(codes.Unavailable, "send stalled; client not reading")
	errNoPong  = status.Error(codes.DeadlineExceeded, "no Pong within deadline")
)

// Subscribe is one stream whose topics change while it is open (XIP-83).
func (s *mlsServer) Subscribe(stream grpc.BidiStreamingServer[mlsapi.SubscribeRequest, mlsapi.SubscribeResponse]) error {
	if s.NoSubscribe {
		return s.UnimplementedMlsApiServer.Subscribe(stream)
	}
	open, err := s.Limiter.stream(stream.Context(), 0)
	if err != nil {
		return err
	}
	defer open.close()
	// Clients wait for headers before they take the stream as open.
	if err := stream.SendHeader(metadata.Pairs("subscribed", "true")); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.Running, func() { cancel(context.Cause(s.Running)) })()

	u := &subscriber{
		Config:   &s.Config,
		open:     open,
		live:     s.Hub.Subscribe(),
		topics:   map[order.Topic]subscribed{},
		waves:    map[uint64]*wave{},
		requests: make(chan request),
		frames:   make(chan *mlsapi.SubscribeResponse),
		written:  make(chan error, 1),
	}
	defer u.live.Close(maps.Keys(u.topics))
	// Reading and writing block as long as the client likes; both end with the call.
	defer close(u.frames)
	go func() {
		for {
			message, err := stream.Recv()
			select {
			case u.requests <- request{message, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		for frame := range u.frames {
			u.written <- stream.Send(frame)
		}
	}()
	err = u.run(ctx)
	if u.writing && err != errStalled {
		// The end must not overtake what is being written.
		select {
		case <-u.written:
		case <-ctx.Done():
		case <-time.After(keepalive):
		}
	}
	return err
}

type request struct {
	message *mlsapi.SubscribeRequest
	err     error
}

// subscriber is the state of one Subscribe stream. One goroutine owns it and
// decides what is sent and when.
//
// A topic is either live, or gated: it belongs to a wave, which is the replay
// that one Mutate asked for, and nothing live of it is delivered until the wave
// is complete. What comes for it meanwhile is not kept but noted, and read from
// the index at the end of the wave. Nothing live is taken from the hub during that
// last part, so that it comes to an end and the wave ends where live begins.
type subscriber struct {
	*Config

	open *openStream
	live *hub.Subscription
	// through is the number up to which the news of the hub were taken, and
	// behind reads those that the hub has no more, if any.
	through uint64
	behind  *index.Merge

	topics   map[order.Topic]subscribed
	waves    map[uint64]*wave // in flight, by the ids of their Mutates
	turns    []*wave          // the same, in the order in which they may read
	closing  int              // how many of them are at their last part
	waveNext bool             // live and waves take turns

	requests   chan request
	halfClosed bool

	waiting []*mlsapi.SubscribeResponse
	frames  chan *mlsapi.SubscribeResponse // to the writer
	written chan error                     // from the writer, once for each frame
	writing bool
	wroteAt time.Time // when the writer got its frame, or was done with it

	pinged time.Time // zero: no answer is expected
	nonce  uint64
}

// subscribed is the state of a topic.
type subscribed struct {
	floor uint64 // what was delivered, or need not be
	wave  *wave  // nil: live
}

// run does one thing after the other until the stream has to end.
func (u *subscriber) run(ctx context.Context) error {
	u.send(&mlsapi.SubscribeResponse_V1{Response: &mlsapi.SubscribeResponse_V1_Started_{
		Started: &mlsapi.SubscribeResponse_V1_Started{KeepaliveIntervalMs: uint32(keepalive.Milliseconds())},
	}})
	u.wroteAt = time.Now()
	timer := time.NewTimer(keepalive)
	defer timer.Stop()
	for {
		finishing := u.halfClosed && len(u.waves) == 0
		if finishing && len(u.waiting) == 0 && !u.writing {
			return nil
		}
		var busy chan struct{}
		if len(u.waiting) == 0 && !finishing {
			more, err := u.produce()
			if err != nil {
				return err
			}
			if more && len(u.waiting) == 0 {
				busy = ready
			}
		}
		var next *mlsapi.SubscribeResponse
		var frames chan<- *mlsapi.SubscribeResponse
		if len(u.waiting) > 0 && !u.writing {
			next, frames = u.waiting[0], u.frames
		}
		requests := u.requests
		if len(u.waiting) >= maxWaiting || u.halfClosed {
			requests = nil
		}
		timer.Reset(time.Until(u.deadline()))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case frames <- next:
			u.waiting[0] = nil
			u.waiting = u.waiting[1:]
			u.writing, u.wroteAt = true, time.Now()
		case err := <-u.written:
			if err != nil {
				return err
			}
			u.writing, u.wroteAt = false, time.Now()
		case r := <-requests:
			if err := u.receive(ctx, r); err != nil {
				return err
			}
		case <-u.live.Wake():
		case <-busy:
		case <-timer.C:
			if err := u.expired(); err != nil {
				return err
			}
		}
	}
}

// ready is a channel that always receives.
var ready = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// deadline is when something must have happened, and expired what then is to be done.
func (u *subscriber) deadline() time.Time {
	deadline := u.wroteAt.Add(keepalive)
	if !u.pinged.IsZero() {
		if pong := u.pinged.Add(keepalive); !u.writing || pong.Before(deadline) {
			return pong
		}
	}
	return deadline
}

func (u *subscriber) expired() error {
	now := time.Now()
	if now.Before(u.deadline()) {
		return nil
	}
	switch {
	case !u.pinged.IsZero() && !now.Before(u.pinged.Add(keepalive)):
		return errNoPong
	case u.writing:
		return errStalled
	case u.halfClosed:
		u.wroteAt = now // it could not answer
		return nil
	}
	var nonce [8]byte
	rand.Read(nonce[:])
	u.nonce, u.pinged = binary.BigEndian.Uint64(nonce[:]), now
	u.send(&mlsapi.SubscribeResponse_V1{Response: &mlsapi.SubscribeResponse_V1_Ping{Ping: &mlsapi.Ping{Nonce: u.nonce}}})
	return nil
}

// receive does what the client asks for.
func (u *subscriber) receive(ctx context.Context, r request) error {
	if errors.Is(r.err, io.EOF) {
		u.halfClosed, u.pinged = true, time.Time{}
		return nil
	}
	if r.err != nil {
		return r.err
	}
	if r.message.GetV1() == nil {
		return invalid("unknown version of SubscribeRequest")
	}
	switch v := r.message.GetV1().Request.(type) {
	case *mlsapi.SubscribeRequest_V1_Mutate_:
		return u.mutate(ctx, v.Mutate)
	case *mlsapi.SubscribeRequest_V1_Ping:
		u.send(&mlsapi.SubscribeResponse_V1{Response: &mlsapi.SubscribeResponse_V1_Pong{
			Pong: &mlsapi.Pong{Nonce: v.Ping.GetNonce()},
		}})
	case *mlsapi.SubscribeRequest_V1_Pong:
		if v.Pong.GetNonce() == u.nonce {
			u.pinged = time.Time{}
		}
	}
	return nil
}

func (u *subscriber) send(v1 *mlsapi.SubscribeResponse_V1) {
	u.waiting = append(u.waiting, &mlsapi.SubscribeResponse{Version: &mlsapi.SubscribeResponse_V1_{V1: v1}})
}

// sendMessages sends records as frames that hold either group messages or
// welcomes and belong to one wave, or with 0 to none.
func (u *subscriber) sendMessages(records []*order.Record, wave uint64) error {
	var frame *mlsapi.SubscribeResponse_V1_Messages
	var kind order.Kind
	for _, r := range records {
		if r.Kind != kind {
			kind, frame = r.Kind, &mlsapi.SubscribeResponse_V1_Messages{MutateId: wave}
			u.send(&mlsapi.SubscribeResponse_V1{Response: &mlsapi.SubscribeResponse_V1_Messages_{Messages: frame}})
		}
		if kind == order.GroupMessage {
			message, err := groupMessage(r)
			if err != nil {
				return err
			}
			frame.GroupMessages = append(frame.GroupMessages, message)
			continue
		}
		message, err := welcomeMessage(r)
		if err != nil {
			return err
		}
		frame.WelcomeMessages = append(frame.WelcomeMessages, message)
	}
	return nil
}
