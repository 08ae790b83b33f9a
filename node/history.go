package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-xmtp/go-xmtp/node/internal/history"
)

// DefaultHistoryListen is where official clients look for a local history service.
const DefaultHistoryListen = "127.0.0.1:5558"

// What History is if not told otherwise.
const (
	DefaultHistoryMaxFile = 64 << 20
	DefaultHistoryTotal   = 4 << 30
	DefaultHistoryKeep    = 7 * 24 * time.Hour

	defaultHistoryInMemory = 256 << 20
)

// History is what the history service keeps. What is zero has its default.
type History struct {
	// MaxFile bounds the size of one file in bytes.
	MaxFile int64
	// Total bounds the size of all files in bytes, of which one address (see
	// [Limits]) can have a quarter if it isn't exempt. By default it is
	// [DefaultHistoryTotal] on disk and 256 MiB in memory. Beyond that, twice
	// [Options.Reserve] is left free on the disk.
	Total int64
	// Keep is how long a file can be had.
	Keep time.Duration
}

func (h *History) complete(ephemeral bool) error {
	if h.MaxFile < 0 || h.Total < 0 || h.Keep < 0 {
		return fmt.Errorf("node: limits of the history service are negative: %+v", *h)
	}
	if h.MaxFile == 0 {
		h.MaxFile = DefaultHistoryMaxFile
	}
	if h.Total == 0 && ephemeral {
		h.Total = defaultHistoryInMemory
	}
	if h.Total == 0 {
		h.Total = DefaultHistoryTotal
	}
	if h.Keep == 0 {
		h.Keep = DefaultHistoryKeep
	}
	return nil
}

// historyTLS leaves out HTTP/2: archives are single files, and official clients ask
// for them over HTTP/1.1.
func historyTLS(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.NextProtos = slices.DeleteFunc(slices.Clone(c.NextProtos), func(protocol string) bool { return protocol == "h2" })
	return c
}

// historyServer is the history service on its port. It is nil if there is none.
type historyServer struct {
	service *history.Service
	port    net.Listener
	failed  chan error // receives why it can't go on serving
	ended   sync.WaitGroup

	halted context.Context
	halt   context.CancelFunc // ends transfers under way
}

// openHistory takes over the port if there is no error.
func (n *Node) openHistory(port net.Listener) (*historyServer, error) {
	o := n.options
	service, err := history.Open(history.Options{
		FS:       o.fs,
		Dir:      o.fs.PathJoin(o.Data, "history"),
		MaxFile:  o.History.MaxFile,
		Total:    o.History.Total,
		Keep:     o.History.Keep,
		Room:     2 * o.Reserve, // so that messages can be stored when archives can't any more
		ReadOnly: o.ReadOnly,
		Visitor:  func(r *http.Request) (netip.Prefix, error) { return n.limiter.Visitor(r) },
		Now:      o.Now,
		Logger:   o.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	h := &historyServer{service: service, port: port, failed: make(chan error, 1)}
	h.halted, h.halt = context.WithCancel(context.Background())
	return h, nil
}

func (h *historyServer) serve() {
	h.ended.Go(func() {
		if err := h.service.Serve(h.port); err != nil {
			h.failed <- err
		}
	})
}

// stop lets transfers under way finish within the grace and returns when nothing
// is served any more.
func (h *historyServer) stop(grace time.Duration) error {
	ctx, cancel := context.WithTimeout(h.halted, grace)
	defer cancel()
	err := h.service.Shutdown(ctx)
	h.ended.Wait()
	h.halt()
	return err
}
