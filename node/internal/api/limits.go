package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// Limits are what the owner of a node has decided. The zero value lets everybody
// do what doesn't endanger the node. See node.Limits, which is the same.
type Limits struct {
	Rates             bool
	StreamsPerAddress int
	TrustedProxies    []netip.Prefix
	ExemptAddresses   []netip.Prefix
	AllowAddresses    []netip.Prefix
	DenyAddresses     []netip.Prefix
	AllowInboxes      []string
	DenyInboxes       []string
	InboxWrites       int
	InboxBytes        int
}

// rules are limits as they are looked up.
type rules struct {
	Limits
	allowInboxes, denyInboxes map[string]struct{}
}

func newRules(l Limits) *rules {
	return &rules{l, inboxSet(l.AllowInboxes), inboxSet(l.DenyInboxes)}
}

func inboxSet(ids []string) map[string]struct{} {
	set := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		set[inboxName(id)] = struct{}{}
	}
	return set
}

// byAddress tells whether it matters where a call comes from.
func (r *rules) byAddress() bool {
	return r.Rates || len(r.AllowAddresses) > 0 || len(r.DenyAddresses) > 0
}

// class is a kind of calls with a limit of its own. Its name is part of what a
// caller is told.
type class struct {
	name  string
	limit string // by which refusals are counted
	rate
}

// The reference node's defaults.
var (
	classPublish = class{"PUB", limitWrites, rate{burst: 3000, perMinute: 600}}
	classDefault = class{"DEF", limitReads, rate{burst: 20000, perMinute: 4000}}
)

// classContract is that of questions to chains, which is limited always. A
// registration with a contract wallet needs about four.
var classContract = class{"SCW", limitContracts, rate{burst: 600, perMinute: 300}}

// What a token pays for, besides the call itself.
const (
	// bytesPerToken of a request or a response.
	bytesPerToken = 64 << 10
	// lookupsPerToken are topics, inboxes or key packages that are asked for at once.
	lookupsPerToken = 20
	// signaturesPerToken of an identity update. A registration has three.
	signaturesPerToken = 4
)

// Caps that hold for everybody.
const (
	// maxFilters is how many topics a stream has from its beginning.
	maxFilters = 50_000
	// maxActions bounds the signatures of an update. Clients send two actions, and
	// who revokes all installations of an inbox one for each.
	maxActions = 256
	// maxValidatingBytes is the size of all requests whose signatures are being
	// checked or wait for it.
	maxValidatingBytes = 64 << 20
	// maxAsking is how many questions to chains are under way. The verifier has
	// its own bound for each chain.
	maxAsking = 256
)

// What refusals are counted by.
const (
	limitWrites      = "writes"
	limitReads       = "reads"
	limitStreams     = "streams"
	limitFilters     = "filters"
	limitActions     = "actions"
	limitValidations = "validations"
	limitAddress     = "address"
	limitInbox       = "inbox"
	limitInboxQuota  = "inbox-quota"
	limitContracts   = "contracts"
	limitAnswers     = "answers"
)

var limitNames = []string{
	limitWrites, limitReads, limitStreams, limitFilters, limitActions, limitValidations,
	limitAddress, limitInbox, limitInboxQuota, limitContracts, limitAnswers,
}

// errBlocked is what the reference node tells those that it doesn't serve.
var errBlocked = status.Error(codes.PermissionDenied, "request blocked")

// Limiter decides who may do how much. What it remembers of callers is in memory
// only. A nil Limiter limits nothing.
type Limiter struct {
	now     func() time.Time
	rules   atomic.Pointer[rules]
	refused map[string]*atomic.Uint64 // by limit; the map never changes

	warnOfProxy func()

	mu      sync.Mutex
	callers buckets[callerKey]
	streams map[caller]int // that are open
	// What inboxes have used.
	inboxWrites, inboxBytes buckets[inboxKey]

	validating      chan struct{} // holds a token for each that is being checked
	validatingBytes atomic.Int64
	asking          atomic.Int64 // questions to chains that are under way

	untaken untaken
}

type callerKey struct {
	caller
	class string
}

// NewLimiter returns a limiter that has seen nobody yet.
func NewLimiter(now func() time.Time, logger *slog.Logger, l Limits) *Limiter {
	limiter := &Limiter{
		now:     now,
		refused: make(map[string]*atomic.Uint64, len(limitNames)),
		streams: map[caller]int{},
		untaken: untaken{by: map[caller]int{}},
		warnOfProxy: sync.OnceFunc(func() {
			logger.Warn("a proxy on this machine forwards calls but is not among the trusted proxies: all its clients share one limit")
		}),
		validating: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))),
	}
	for _, name := range limitNames {
		limiter.refused[name] = new(atomic.Uint64)
	}
	limiter.Set(l)
	return limiter
}

// Set replaces the limits, from the next call on. What was used stays used.
func (l *Limiter) Set(limits Limits) { l.rules.Store(newRules(limits)) }

// Refused returns how often each limit was hit, by names that don't change.
func (l *Limiter) Refused() map[string]uint64 {
	counts := make(map[string]uint64, len(l.refused))
	for name, count := range l.refused {
		counts[name] = count.Load()
	}
	return counts
}

// refuse counts a refusal.
func (l *Limiter) refuse(limit string, err error) error {
	if l != nil {
		l.refused[limit].Add(1)
	}
	return err
}

// exhausted is a refusal because something is used up, with the time when it is
// worth to ask again as metadata, as HTTP has it.
func (l *Limiter) exhausted(ctx context.Context, limit string, wait time.Duration, never bool, format string, args ...any) error {
	if !never {
		// Lost only if the caller is gone.
		_ = grpc.SetTrailer(ctx, metadata.Pairs("retry-after", strconv.Itoa(int(wait.Seconds()))))
	}
	return l.refuse(limit, status.Errorf(codes.ResourceExhausted, format, args...))
}

// admit returns who calls, and whether he has limits, unless he isn't served at all.
func (l *Limiter) admit(ctx context.Context, r *rules) (who caller, limited bool, err error) {
	if !r.byAddress() {
		return caller{}, false, nil
	}
	addr, unnamed := callerAddr(ctx, r.TrustedProxies)
	if err := l.pass(r, addr, unnamed); err != nil {
		return caller{}, false, err
	}
	return callerOf(addr), r.Rates && !contains(r.ExemptAddresses, addr), nil
}

// pass refuses addresses that aren't served.
func (l *Limiter) pass(r *rules, addr netip.Addr, unnamed bool) error {
	if unnamed {
		l.warnOfProxy()
	}
	if contains(r.DenyAddresses, addr) || len(r.AllowAddresses) > 0 && !contains(r.AllowAddresses, addr) {
		return l.refuse(limitAddress, errBlocked)
	}
	return nil
}

// Visitor returns who sends a request that is no call, for limits that other
// services have: an IPv4 address or the /64 of an IPv6 one. The zero prefix is
// for connections without address and for those who are exempt from limits. The
// error is for addresses that aren't served.
func (l *Limiter) Visitor(request *http.Request) (netip.Prefix, error) {
	r := l.rules.Load()
	addr, unnamed := forwardedAddr(request.RemoteAddr, request.Header.Values, r.TrustedProxies)
	if err := l.pass(r, addr, unnamed); err != nil {
		return netip.Prefix{}, err
	}
	if contains(r.ExemptAddresses, addr) {
		return netip.Prefix{}, nil
	}
	return callerOf(addr).Prefix, nil
}

// take pays for a call, which is refused whole and costs nothing if it is too much.
func (l *Limiter) take(ctx context.Context, c class, cost int) error {
	if l == nil {
		return nil
	}
	who, limited, err := l.admit(ctx, l.rules.Load())
	if err != nil || !limited {
		return err
	}
	return l.pay(ctx, who, c, cost)
}

func (l *Limiter) pay(ctx context.Context, who caller, c class, cost int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.callers.of(callerKey{who, c.name}, c.rate, l.now())
	if float64(cost) > b.tokens {
		wait, never := b.wait(float64(cost))
		return l.exhausted(ctx, c.limit, wait, never, "%d exceeds rate limit R%s%s", cost, who, c.name)
	}
	b.tokens -= float64(cost)
	return nil
}

// charge takes tokens for what was done already, even if there are too few.
func (l *Limiter) charge(who caller, c class, cost int) {
	if cost == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.callers.of(callerKey{who, c.name}, c.rate, l.now()).owe(float64(cost))
}

// publish pays for a write of as much work.
func (l *Limiter) publish(ctx context.Context, cost int) error {
	return l.take(ctx, classPublish, cost)
}

// read pays for a call that looks up as many things.
func (l *Limiter) read(ctx context.Context, lookups int) error {
	return l.take(ctx, classDefault, 1+lookups/lookupsPerToken)
}

// answered pays for the bytes of a response, whose number nobody knew before.
func (l *Limiter) answered(ctx context.Context, bytes int) {
	if l == nil {
		return
	}
	if who, limited, err := l.admit(ctx, l.rules.Load()); err == nil && limited {
		l.charge(who, classDefault, bytes/bytesPerToken)
	}
}

// An openStream is one that its caller pays for. A nil one costs nothing.
type openStream struct {
	limiter *Limiter
	who     caller
}

// stream pays for opening a stream with as many topics. It must be closed.
func (l *Limiter) stream(ctx context.Context, topics int) (*openStream, error) {
	if topics > maxFilters {
		return nil, l.refuse(limitFilters, status.Errorf(codes.ResourceExhausted, "%d filters: a stream may have %d", topics, maxFilters))
	}
	if err := l.read(ctx, topics); err != nil || l == nil {
		return nil, err
	}
	r := l.rules.Load()
	who, limited, err := l.admit(ctx, r)
	if err != nil || !limited {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if open := l.streams[who]; r.StreamsPerAddress > 0 && open >= r.StreamsPerAddress {
		return nil, l.refuse(limitStreams, status.Errorf(codes.ResourceExhausted, "%d streams are open from %s: no more are served", open, who))
	}
	l.streams[who]++
	return &openStream{l, who}, nil
}

// replayed pays for what was read from the store. What is live costs nothing.
func (s *openStream) replayed(records []*order.Record) {
	if s == nil {
		return
	}
	bytes := 0
	for _, r := range records {
		bytes += len(r.Payload)
	}
	s.limiter.charge(s.who, classDefault, bytes/bytesPerToken)
}

func (s *openStream) close() {
	if s == nil {
		return
	}
	l := s.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams[s.who]--; l.streams[s.who] == 0 {
		delete(l.streams, s.who)
	}
}

// validate waits until the signatures of a request may be checked, which done
// ends. So those who only read are served however many signatures wait, and what
// waits has a bounded size.
func (l *Limiter) validate(ctx context.Context, size int) (done func(), err error) {
	if l == nil {
		return func() {}, nil
	}
	if l.validatingBytes.Add(int64(size)) > maxValidatingBytes {
		l.validatingBytes.Add(-int64(size))
		return nil, l.exhausted(ctx, limitValidations, time.Second, false, "too many signatures wait to be checked")
	}
	select {
	case l.validating <- struct{}{}:
	case <-ctx.Done():
		l.validatingBytes.Add(-int64(size))
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return func() {
		<-l.validating
		l.validatingBytes.Add(-int64(size))
	}, nil
}

// contract pays for a question to a chain, which done ends. It is limited also
// where calls are not: the endpoint that is asked is somebody's, and often paid for.
func (l *Limiter) contract(ctx context.Context) (done func(), err error) {
	if l == nil {
		return func() {}, nil
	}
	r := l.rules.Load()
	addr, _ := callerAddr(ctx, r.TrustedProxies)
	if !contains(r.ExemptAddresses, addr) {
		if err := l.pay(ctx, callerOf(addr), classContract, 1); err != nil {
			return nil, err
		}
	}
	done = func() { l.asking.Add(-1) }
	if l.asking.Add(1) > maxAsking {
		done()
		return nil, l.exhausted(ctx, limitContracts, time.Second, false, "too many signatures of contract wallets are being checked")
	}
	return done, nil
}
