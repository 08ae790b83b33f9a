package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A transfer may stand still for transferGrace, and has to be at minRate bytes a
// second beyond that: those who download import meanwhile, which takes its time.
const (
	transferGrace = time.Minute
	minRate       = 2 << 10
)

const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 16 << 10
)

func newServer(s *Service) http.Server {
	return http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// What it says names the peer.
		ErrorLog: slog.NewLogLogger(s.options.Logger.Handler(), slog.LevelDebug),
	}
}

// Serve answers on a listener until [Service.Shutdown], which it returns nil
// after.
func (s *Service) Serve(listener net.Listener) error {
	if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// Shutdown lets transfers finish until ctx ends, cuts off the others and ends the
// service. When it returns nothing of it is running.
func (s *Service) Shutdown(ctx context.Context) error {
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = s.server.Close()
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.handlers.Wait()
	s.stopCleaning()
	<-s.cleaned
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// enter makes Shutdown wait for a handler; it is too late for that if false.
func (s *Service) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.handlers.Add(1)
	}
	return !s.closed
}

// ServeHTTP answers POST /upload with the id of what was sent, as text without
// an end of line, GET and HEAD /files/ID with it, and / for those who ask whether
// somebody is there.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	defer s.handlers.Done()
	if r.ContentLength != 0 {
		// The server reads what a handler leaves of a body.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(transferGrace))
	}
	header := w.Header()
	// Without credentials there is nothing that another page could abuse.
	header.Set("Access-Control-Allow-Origin", "*")
	header.Set("Access-Control-Expose-Headers", "Accept-Ranges, Content-Length, Content-Range, ETag, Retry-After")
	header.Set("X-Content-Type-Options", "nosniff")

	// Clients append to an address that may end with a slash.
	path := strings.TrimLeft(r.URL.Path, "/")
	id, isFile := strings.CutPrefix(path, "files/")
	allowed := "GET, HEAD, OPTIONS"
	switch {
	case path == "upload":
		allowed = "POST, OPTIONS"
	case path != "" && !isFile:
		http.Error(w, "there is /upload and /files/ID", http.StatusNotFound)
		return
	}
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case r.Method == http.MethodOptions:
		header.Set("Allow", allowed)
		header.Set("Access-Control-Allow-Methods", allowed)
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			header.Set("Access-Control-Allow-Headers", asked)
		}
		header.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
	case path == "upload" && r.Method == http.MethodPost:
		s.transfer(w, r, s.upload)
	case isFile && read:
		s.transfer(w, r, func(w http.ResponseWriter, r *http.Request, _ netip.Prefix) error { return s.download(w, r, id) })
	case path == "" && read:
	default:
		header.Set("Allow", allowed)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	}
}

// transfer runs an upload or a download in its place and answers if it failed.
func (s *Service) transfer(w http.ResponseWriter, r *http.Request, run func(http.ResponseWriter, *http.Request, netip.Prefix) error) {
	from, err := s.options.Visitor(r)
	if err != nil {
		s.refuse(w, errRefused)
		return
	}
	err = s.ledger.begin(from)
	if err == nil {
		defer s.ledger.end(from)
		err = run(w, r, from)
	}
	if err != nil {
		s.refuse(w, err)
	}
}

func (s *Service) upload(w http.ResponseWriter, r *http.Request, from netip.Prefix) error {
	switch {
	case s.options.ReadOnly:
		return errReadOnly
	case r.ContentLength > s.options.MaxFile:
		return errTooLarge
	}
	control := http.NewResponseController(w)
	body := &pacedReader{r.Body, pace{set: control.SetReadDeadline, start: time.Now()}}
	id, err := s.put(from, body)
	if err != nil {
		return err
	}
	s.full.Store(false)
	// What comes next on the connection has its own time.
	_ = control.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	// It is stored if the client has gone: it will expire.
	_, _ = io.WriteString(w, id)
	return nil
}

func (s *Service) download(w http.ResponseWriter, r *http.Request, id string) error {
	f, err := s.get(id)
	if err != nil {
		return err
	}
	if f == nil {
		http.Error(w, "no such file, or no more", http.StatusNotFound)
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	header := w.Header()
	header.Set("Content-Type", "application/octet-stream")
	// Nobody on the way has to keep a copy that outlives it.
	header.Set("Cache-Control", "no-store")
	header.Set("ETag", `"`+id+`"`)
	out := &pacedWriter{w, pace{set: http.NewResponseController(w).SetWriteDeadline, start: time.Now()}}
	http.ServeContent(out, r, "", time.Time{}, io.NewSectionReader(f, 0, info.Size()))
	return nil
}

// refuse answers a transfer that failed before anything of the answer was sent.
func (s *Service) refuse(w http.ResponseWriter, err error) {
	// Whatever is still coming is not read.
	w.Header().Set("Connection", "close")
	body := (*bodyError)(nil)
	switch {
	case errors.Is(err, errTooLarge):
		http.Error(w, fmt.Sprintf("%v: at most %d bytes", errTooLarge, s.options.MaxFile), http.StatusRequestEntityTooLarge)
	case errors.Is(err, errQuota):
		http.Error(w, errQuota.Error(), http.StatusTooManyRequests)
	case errors.Is(err, errRefused):
		http.Error(w, errRefused.Error(), http.StatusForbidden)
	case errors.Is(err, errReadOnly):
		http.Error(w, errReadOnly.Error(), http.StatusServiceUnavailable)
	case errors.Is(err, errBusy):
		w.Header().Set("Retry-After", "5")
		http.Error(w, errBusy.Error(), http.StatusServiceUnavailable)
	case errors.Is(err, errFull), vfs.IsNoSpaceError(err):
		if !s.full.Swap(true) {
			s.options.Logger.Warn("history: uploads are refused for lack of room")
		}
		http.Error(w, errFull.Error(), http.StatusInsufficientStorage)
	case errors.As(err, &body) && errors.Is(err, os.ErrDeadlineExceeded):
		http.Error(w, "too slow", http.StatusRequestTimeout)
	case errors.As(err, &body):
		http.Error(w, "cut short", http.StatusBadRequest)
	default:
		s.options.Logger.Error("history: a transfer failed", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}

// A pace is the deadline of a transfer, which moves as the transfer does.
type pace struct {
	set   func(time.Time) error
	start time.Time
	bytes int64
}

// allow gives time for n more bytes. What can't have a deadline is no
// connection, and can't be a slow one.
func (p *pace) allow(n int) {
	p.bytes += int64(n)
	_ = p.set(p.start.Add(transferGrace + time.Duration(p.bytes/minRate)*time.Second))
}

type pacedReader struct {
	io.Reader
	pace pace
}

func (r *pacedReader) Read(b []byte) (int, error) {
	r.pace.allow(0)
	n, err := r.Reader.Read(b)
	r.pace.bytes += int64(n)
	return n, err
}

// pacedWriter hides the shortcuts of its [http.ResponseWriter], which would pass
// the pace by.
type pacedWriter struct {
	http.ResponseWriter
	pace pace
}

func (w *pacedWriter) Write(b []byte) (int, error) {
	w.pace.allow(len(b))
	return w.ResponseWriter.Write(b)
}
