package api

import (
	"context"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// A request of some bytes can have an answer of 20 MiB, which is in memory until its
// caller takes it. One who asks for very many and takes none, which HTTP/2 lets him
// do over one connection, must not fill the memory.
const (
	// minAnswer is the size below which answers don't count: as many as a
	// connection can have at a time are little.
	minAnswer = 4 << 10
	// maxUntaken bounds the answers of one caller, and maxUntakenByAll those of
	// everybody, that aren't taken yet.
	maxUntaken      = 256 << 20
	maxUntakenByAll = 1 << 30
)

// untaken counts the bytes of answers that aren't taken yet.
type untaken struct {
	mu  sync.Mutex
	all int
	by  map[caller]int
}

// add counts an answer if it is within both bounds, of which a caller who is exempt
// has only the second.
func (u *untaken) add(who caller, exempt bool, bytes int) (his, all bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	his, all = exempt || u.by[who]+bytes <= maxUntaken, u.all+bytes <= maxUntakenByAll
	if his && all {
		u.all += bytes
		u.by[who] += bytes
	}
	return his, all
}

func (u *untaken) remove(who caller, bytes int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all -= bytes
	if u.by[who] -= bytes; u.by[who] == 0 {
		delete(u.by, who)
	}
}

// Hold counts an answer until release, which is called once when it is taken or
// nobody wants it any more. The error is for callers who take too little.
func (l *Limiter) Hold(ctx context.Context, bytes int) (release func(), err error) {
	if l == nil || bytes < minAnswer {
		return func() {}, nil
	}
	r := l.rules.Load()
	addr, _ := callerAddr(ctx, r.TrustedProxies)
	who := callerOf(addr)
	his, all := l.untaken.add(who, contains(r.ExemptAddresses, addr), bytes)
	switch {
	case !his:
		return nil, l.exhausted(ctx, limitAnswers, time.Second, false, "answers of %d MiB wait to be taken by %s: no more are made", maxUntaken>>20, who)
	case !all:
		return nil, l.exhausted(ctx, limitAnswers, time.Second, false, "answers of %d MiB wait to be taken: no more are made", maxUntakenByAll>>20)
	}
	return func() { l.untaken.remove(who, bytes) }, nil
}

// heldAnswer is an answer that counts until gRPC has sent it.
type heldAnswer struct {
	proto.Message
	size    int // as encoded, which takes a while to find out
	release func()
}

// HoldAnswers lets answers over gRPC count until they are sent. The codec must be
// that of [NewCodec].
func (l *Limiter) HoldAnswers(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, request)
	message, ok := answer.(proto.Message)
	if err != nil || !ok {
		return answer, err
	}
	size := proto.Size(message)
	if size < minAnswer {
		return answer, nil
	}
	release, err := l.Hold(ctx, size)
	if err != nil {
		return nil, err
	}
	return &heldAnswer{message, size, release}, nil
}

// pool returns where the answer's buffer goes when it is sent.
func (a *heldAnswer) pool(buffer *[]byte) *heldBuffer {
	h := &heldBuffer{BufferPool: answers, release: sync.OnceFunc(a.release)}
	// When a connection ends, gRPC leaves what it has not sent to the garbage collector.
	h.lost = runtime.AddCleanup(buffer, func(release func()) { release() }, h.release)
	return h
}

// heldBuffer is a [mem.BufferPool] that only one buffer goes to.
type heldBuffer struct {
	mem.BufferPool
	release func()
	lost    runtime.Cleanup
}

// Put is called when the buffer was sent.
func (h *heldBuffer) Put(buffer *[]byte) {
	h.lost.Stop()
	h.release()
	h.BufferPool.Put(buffer)
}
