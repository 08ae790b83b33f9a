package network

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// When the node is asked for a sign of life: after a silence that is longer than those
// before, or if a call has had no answer. It is asked by a call, as nodes close
// connections with more pings than they like.
const (
	askMin = 500 * time.Millisecond
	askMax = 10 * time.Second
	// patience is how long the answer may take, or twice as long as the last one did,
	// before the network is looked at.
	patience = 300 * time.Millisecond
	// scoutAgain and scoutTimeout are for looking at the network.
	scoutAgain   = 600 * time.Millisecond
	scoutTimeout = 3 * time.Second
)

// link is one connection to a node, over which calls and streams of several clients go.
// While anybody waits for something, a goroutine of it sees to it that the connection
// comes back as soon as the network does:
//
//   - one that can't be made is tried again as [Backoff] says, or at once for a call;
//   - one on which nothing comes any more is given up when a second one shows that the node
//     can be reached, and not before: then it is slow, or there is no network.
type link struct {
	*grpc.ClientConn
	dialing *dialing
	scouts  func() (*grpc.ClientConn, error)
	streams int // guarded by the pool's lock

	waiting atomic.Int64  // who waits for something
	alert   atomic.Bool   // the goroutine wants to be told when a call begins
	stir    chan struct{} // holds a token when something has changed
	rtt     time.Duration // how long the last answer took; the goroutine's

	stop context.CancelFunc
	done sync.WaitGroup
}

func newLink(o Options) (*link, error) {
	l := &link{dialing: &dialing{dial: o.Dial}, stir: make(chan struct{}, 1)}
	once := o.Dial
	if o.Dial == nil {
		once = dialTCP
		l.dialing.dial = persistent(dialTCP)
	}
	l.dialing.opened = l.wake
	var err error
	if l.ClientConn, err = dial(o, l.dialing.open); err != nil {
		return nil, err
	}
	l.scouts = func() (*grpc.ClientConn, error) { return dial(o, once) }
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.done.Go(func() { l.keep(ctx) })
	return l, nil
}

func (l *link) close() error {
	l.stop()
	l.done.Wait()
	return l.ClientConn.Close()
}

// begin says that somebody waits for something, until end.
func (l *link) begin() {
	if l.waiting.Add(1) == 1 || l.alert.Load() {
		l.wake()
	}
}

func (l *link) end() { l.waiting.Add(-1) }

func (l *link) wake() {
	select {
	case l.stir <- struct{}{}:
	default: // a token is there already
	}
}

// keep is the goroutine.
func (l *link) keep(ctx context.Context) {
	var redial Backoff
	var tried time.Time
	for ctx.Err() == nil {
		l.alert.Store(true)
		if l.waiting.Load() == 0 {
			select {
			case <-l.stir:
			case <-ctx.Done():
			}
			continue
		}
		if c := l.dialing.current(); c != nil {
			l.watch(ctx, c)
			continue
		}
		switch state := l.GetState(); state {
		case connectivity.TransientFailure:
			// Who calls now needs the connection now; but not all who do need one each.
			if since := time.Since(tried); since < backoffMin {
				l.await(ctx, state, backoffMin-since)
			}
			tried = time.Now()
			l.ResetConnectBackoff()
			l.await(ctx, state, redial.Next())
		case connectivity.Shutdown:
			return
		default:
			redial.Reset()
			l.await(ctx, state, time.Hour)
		}
	}
}

// await waits, but not beyond a change of the state or the beginning of a call.
func (l *link) await(ctx context.Context, state connectivity.State, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		l.WaitForStateChange(ctx, state)
		cancel()
	})
	select {
	case <-l.stir:
	case <-ctx.Done():
	}
}

// watch sees to it that something comes over a connection, until it is closed or nobody
// waits any more. How often it asks follows how often something comes.
func (l *link) watch(ctx context.Context, c *conn) {
	interval := askMin
	heard, called := c.lastRead(), time.Time{}
	for l.waiting.Load() > 0 {
		if now := c.lastRead(); now.After(heard) {
			interval = min(interval, max(askMin, 2*now.Sub(heard)))
			heard = now
		}
		due := heard.Add(interval)
		if called.After(heard) && called.Add(askMin).Before(due) {
			due = called.Add(askMin)
		}
		l.alert.Store(interval > askMin)
		if wait := time.Until(due); wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-l.stir:
				called = time.Now()
			case <-c.closed:
			case <-ctx.Done():
			}
			timer.Stop()
			select {
			case <-c.closed:
				return
			case <-ctx.Done():
				return
			default:
				continue
			}
		}
		if !l.ask(ctx, c) {
			return
		}
		// What came with the answer is no sign that there will be more.
		heard, called = time.Now(), time.Time{}
		interval = min(2*interval, askMax)
	}
}

// ask asks the node for a sign of life. It returns false when the connection is closed,
// which it does if the node can be reached, but not over it.
func (l *link) ask(ctx context.Context, c *conn) (alive bool) {
	begun := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	answered := make(chan struct{})
	if !c.silent() { // else the beginning of the connection is what has no answer
		calls.Go(func() {
			// Whatever it says, it is there.
			if _, err := healthgrpc.NewHealthClient(l.ClientConn).Check(ctx, &healthgrpc.HealthCheckRequest{}); !unreachable(err) {
				close(answered)
			}
		})
	}
	arrived := make(chan struct{}, 1)
	tick := time.NewTimer(max(patience, 2*l.rtt))
	defer tick.Stop()
	for {
		select {
		case <-answered:
			l.rtt = time.Since(begun)
			return true
		case <-arrived:
			if !c.lastRead().After(begun) {
				c.Close()
			}
			return false
		case <-c.closed:
			return false
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		if c.lastRead().After(begun) {
			l.rtt = time.Since(begun)
			return true
		}
		calls.Go(func() { l.scout(ctx, arrived) })
		tick.Reset(scoutAgain)
	}
}

// scout tells if the node can be reached over a connection of its own.
func (l *link) scout(ctx context.Context, arrived chan<- struct{}) {
	ctx, cancel := context.WithTimeout(ctx, scoutTimeout)
	defer cancel()
	other, err := l.scouts()
	if err != nil {
		return
	}
	defer other.Close()
	_, err = healthgrpc.NewHealthClient(other).Check(ctx, &healthgrpc.HealthCheckRequest{})
	if !unreachable(err) {
		select {
		case arrived <- struct{}{}:
		default:
		}
	}
}

// unreachable tells whether a call has failed without an answer.
func unreachable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return false
}
