package xmtptest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Calls say which calls of clients to the node a fault is for. The zero value is all.
type Calls struct {
	// Client is the name of a client; one without a slash stands for all its devices.
	Client string
	// Method is what is called, for instance "SendGroupMessages", as in the .proto files.
	Method string
	// Skip is how many calls go through first.
	Skip int
	// Count is how many calls there are then; 0 is all.
	Count int
}

func (c Calls) match(client, method string) bool {
	return (c.Client == "" || covers(c.Client, client)) && (c.Method == "" || c.Method == method)
}

// A Fault is something that goes wrong until it is lifted; see [Network.Fault].
type Fault struct {
	network *Network
	calls   Calls
	action  Action
	first   chan struct{} // closed by the first call
	lifted  chan struct{}
	lift    func()

	mu   sync.Mutex
	seen int
	hits int
}

// Fault lets an action befall calls. If there are several faults for a call, they
// befall it one after the other, the first one first.
//
// Clients repeat a call that is UNAVAILABLE up to four times, so that nobody may
// notice if it befalls one only.
func (n *Network) Fault(calls Calls, action Action) *Fault {
	f := &Fault{network: n, calls: calls, action: action, first: make(chan struct{}), lifted: make(chan struct{})}
	f.lift = sync.OnceFunc(func() { close(f.lifted) })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = append(n.faults, f)
	return f
}

// Hits returns how many calls it has befallen.
func (f *Fault) Hits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits
}

// Hit is closed when it befalls the first call.
func (f *Fault) Hit() <-chan struct{} { return f.first }

// Lift ends the fault. Calls that it holds go on.
func (f *Fault) Lift() {
	n := f.network
	n.mu.Lock()
	n.faults = slices.DeleteFunc(n.faults, func(other *Fault) bool { return other == f })
	n.mu.Unlock()
	f.lift()
}

// take counts a call, and tells whether the fault is for it.
func (f *Fault) take() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen++
	hit := f.seen > f.calls.Skip && (f.calls.Count == 0 || f.hits < f.calls.Count)
	if hit {
		if f.hits++; f.hits == 1 {
			close(f.first)
		}
	}
	return hit
}

// An Action is what goes wrong. Some are for calls with one answer only, some for
// streams only: the others are then not among the [Calls].
type Action struct {
	unary  func(f *Fault, ctx context.Context, next func() (any, error)) (any, error)
	stream func(f *Fault, s grpc.ServerStream, next func(grpc.ServerStream) error) error
}

// errLost is what a client sees of a connection that breaks.
var errLost = status.Error(codes.Unavailable, "xmtptest: lost")

// DropRequest loses the call on its way to the node, which doesn't learn of it. The
// client sees UNAVAILABLE.
func DropRequest() Action { return Fail(codes.Unavailable, "xmtptest: the request was lost") }

// Fail refuses the call with a status. The node doesn't learn of it.
func Fail(code codes.Code, text string) Action {
	err := status.Error(code, text)
	return before(func(*Fault, context.Context) error { return err })
}

// DropResponse loses the answer of the call: the node has done what was asked, and the
// client sees UNAVAILABLE. It is not for streams.
func DropResponse() Action {
	return Action{unary: func(_ *Fault, _ context.Context, next func() (any, error)) (any, error) {
		_, _ = next() // as lost as an answer is
		return nil, status.Error(codes.Unavailable, "xmtptest: the answer was lost")
	}}
}

// Duplicate lets the call arrive twice, one after the other. The client gets the
// second answer. It is not for streams.
func Duplicate() Action {
	return Action{unary: func(_ *Fault, _ context.Context, next func() (any, error)) (any, error) {
		_, _ = next()
		return next()
	}}
}

// Delay lets the call, or the opening of a stream, take so long before it arrives.
func Delay(d time.Duration) Action {
	return before(func(_ *Fault, ctx context.Context) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// Hold keeps the call, or the opening of a stream, from arriving until the fault is
// lifted. If the client gives up before, it never arrives.
func Hold() Action {
	return before(func(f *Fault, ctx context.Context) error { return f.hold(ctx) })
}

func (f *Fault) hold(ctx context.Context) error {
	select {
	case <-f.lifted:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// CutAfter ends a stream with UNAVAILABLE when it has brought so many messages, as the
// node sends them: that of Subscribe begins with one that says that it is open. It is
// for streams only.
func CutAfter(messages int) Action {
	return Action{stream: func(_ *Fault, s grpc.ServerStream, next func(grpc.ServerStream) error) error {
		ctx, cancel := context.WithCancel(s.Context())
		defer cancel()
		if messages == 0 {
			return errLost
		}
		cut := &counted{ServerStream: s, ctx: ctx, then: func(sent int) error {
			if sent == messages {
				cancel()
			}
			return nil
		}}
		err := next(cut)
		if s.Context().Err() == nil && ctx.Err() != nil {
			return errLost
		}
		return err
	}}
}

// StallAfter lets a stream bring so many messages, counted as with [CutAfter], and then
// nothing until the fault is lifted. It is for streams only.
func StallAfter(messages int) Action {
	return Action{stream: func(f *Fault, s grpc.ServerStream, next func(grpc.ServerStream) error) error {
		return next(&counted{ServerStream: s, ctx: s.Context(), before: func(sent int) error {
			if sent < messages {
				return nil
			}
			return f.hold(s.Context())
		}})
	}}
}

// counted is a stream whose messages are counted.
type counted struct {
	grpc.ServerStream
	ctx          context.Context
	sent         int
	before, then func(sent int) error // may be nil
}

func (c *counted) Context() context.Context { return c.ctx }

func (c *counted) SendMsg(message any) error {
	if c.before != nil {
		if err := c.before(c.sent); err != nil {
			return err
		}
	}
	err := c.ServerStream.SendMsg(message)
	c.sent++
	if err == nil && c.then != nil {
		err = c.then(c.sent)
	}
	return err
}

// before is what happens to a call or a stream before it arrives; it doesn't if there
// is an error.
func before(happens func(*Fault, context.Context) error) Action {
	return Action{
		unary: func(f *Fault, ctx context.Context, next func() (any, error)) (any, error) {
			if err := happens(f, ctx); err != nil {
				return nil, err
			}
			return next()
		},
		stream: func(f *Fault, s grpc.ServerStream, next func(grpc.ServerStream) error) error {
			if err := happens(f, s.Context()); err != nil {
				return err
			}
			return next(s)
		},
	}
}

// befalling returns the faults that befall a call, the last one first.
func (n *Network) befalling(ctx context.Context, method string, applies func(Action) bool) []*Fault {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	method = method[strings.LastIndexByte(method, '/')+1:]
	n.mu.Lock()
	defer n.mu.Unlock()
	var hit []*Fault
	for _, f := range n.faults {
		if applies(f.action) && f.calls.match(from.Addr.String(), method) && f.take() {
			hit = append(hit, f)
		}
	}
	slices.Reverse(hit)
	return hit
}

func (n *Network) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	next := func() (any, error) { return handler(ctx, request) }
	for _, f := range n.befalling(ctx, info.FullMethod, func(a Action) bool { return a.unary != nil }) {
		inner := next
		next = func() (any, error) { return f.action.unary(f, ctx, inner) }
	}
	return next()
}

func (n *Network) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	next := func(s grpc.ServerStream) error { return handler(srv, s) }
	for _, f := range n.befalling(s.Context(), info.FullMethod, func(a Action) bool { return a.stream != nil }) {
		inner := next
		next = func(s grpc.ServerStream) error { return f.action.stream(f, s, inner) }
	}
	return next(s)
}
