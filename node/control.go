package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// controlName is a Unix socket in the data directory, through which other
// processes of whoever may read the directory ask the node that has it open for
// snapshots. It is HTTP: POST /snapshot is answered with the path of one, which
// is there until the connection ends.
const controlName = "control.sock"

const snapshotPath = "/snapshot"

// maxSnapshots is how many may be there at a time: each keeps tables on the disk
// that the store has no use for any more.
const maxSnapshots = 4

// control serves the socket. A nil control serves nothing.
type control struct {
	http  *http.Server
	ended sync.WaitGroup
}

// startControl listens on the socket of a data directory on a disk. Where that
// can't be done a node runs all the same.
func (n *Node) startControl() *control {
	if n.options.fs != vfs.Default {
		return nil
	}
	path := filepath.Join(n.options.Data, controlName)
	// One that a process has left behind: the directory is locked by this one.
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	var socket net.Listener
	if err == nil {
		socket, err = net.Listen("unix", path)
	}
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		if socket != nil {
			socket.Close()
		}
		n.options.Logger.Warn("backups can't be made while the node is running", "error", err)
		return nil
	}
	mux := http.NewServeMux()
	slots := make(chan struct{}, maxSnapshots)
	mux.HandleFunc("POST "+snapshotPath, func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			n.lendSnapshot(w, r)
		default:
			http.Error(w, "there are too many snapshots; try again when other backups are done", http.StatusServiceUnavailable)
		}
	})
	c := &control{http: &http.Server{Handler: mux}}
	c.ended.Go(func() {
		if err := c.http.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
			n.options.Logger.Warn("backups can't be made while the node is running", "error", err)
		}
	})
	return c
}

// lendSnapshot makes a snapshot, tells where it is, and removes it when the other
// side is done or gone.
func (n *Node) lendSnapshot(w http.ResponseWriter, r *http.Request) {
	dir, err := n.index.Snapshot()
	if err != nil {
		n.options.Logger.Error("making a snapshot for another program", "error", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			n.options.Logger.Warn("removing a snapshot", "error", err)
		}
	}()
	n.options.Logger.Info("a snapshot of the store was made for another program", "newest", n.index.Durable())
	if _, err := io.WriteString(w, dir+"\n"); err != nil || http.NewResponseController(w).Flush() != nil {
		return // nobody is there any more
	}
	select {
	case <-r.Context().Done():
	case <-n.running.Done():
	}
}

// stop returns when all snapshots are gone. The node's context must have ended.
func (c *control) stop() {
	if c == nil {
		return
	}
	_ = c.http.Shutdown(context.Background()) // it removes the socket; there is nothing else to lose
	c.ended.Wait()
}

// askForSnapshot asks the node that uses a directory. The snapshot is there until
// release is called, which must be done also after an error.
func askForSnapshot(ctx context.Context, dir string) (snapshot string, release func(), err error) {
	var dialer net.Dialer
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", filepath.Join(dir, controlName))
	}}
	ctx, cancel := context.WithCancel(ctx)
	release = func() {
		cancel()
		transport.CloseIdleConnections()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node"+snapshotPath, nil)
	if err != nil {
		return "", release, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", release, fmt.Errorf("%w, which can't be asked for a snapshot: %w", ErrInUse, err)
	}
	// The body ends with the snapshot, so only the line is read.
	line := make([]byte, 0, 4<<10)
	for err == nil && len(line) < cap(line) && !strings.Contains(string(line), "\n") {
		var count int
		count, err = response.Body.Read(line[len(line):cap(line)])
		line = line[:len(line)+count]
	}
	text, _, whole := strings.Cut(string(line), "\n")
	switch {
	case response.StatusCode != http.StatusOK:
		return "", release, fmt.Errorf("the running node can't make a snapshot: %s", text)
	case !whole:
		return "", release, fmt.Errorf("the running node made no snapshot: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return text, release, nil
}
