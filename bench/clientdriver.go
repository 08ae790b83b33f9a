package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// A request to a process that hosts clients: our own (clientserver.go) or official
// ones (js/client.mjs). One line of JSON each, answered in any order.
type request struct {
	Request       int           `json:"request"`
	Op            string        `json:"op"`
	Client        string        `json:"client,omitempty"` // by the name that open gave it
	Key           string        `json:"key,omitempty"`    // of the wallet, hex; also that of the database
	Database      string        `json:"database,omitempty"`
	URL           string        `json:"url,omitempty"`
	Unpadded      bool          `json:"unpadded,omitempty"` // ours
	Users         []string      `json:"users,omitempty"`    // inbox ids
	Conversations []string      `json:"conversations,omitempty"`
	Count         int           `json:"count,omitempty"`
	Workers       int           `json:"workers,omitempty"`
	Tag           string        `json:"tag,omitempty"`   // texts begin with it
	Size          int           `json:"size,omitempty"`  // of texts, at least
	Every         time.Duration `json:"every,omitempty"` // ours: the pace of sends
	Wait          time.Duration `json:"wait,omitempty"`
}

// An answer has what the operation returns.
type answer struct {
	Request int             `json:"request"`
	Error   string          `json:"error,omitempty"`
	Took    []time.Duration `json:"took,omitempty"` // of each
	All     time.Duration   `json:"all,omitempty"`  // of all together
	At      []int64         `json:"at,omitempty"`   // Unix nanoseconds
	ID      string          `json:"id,omitempty"`
	IDs     []string        `json:"ids,omitempty"`
	Inbox   string          `json:"inbox,omitempty"`
	Count   int             `json:"count,omitempty"`
}

// A driver is such a process.
type driver struct {
	what    string
	command *exec.Cmd
	input   io.WriteCloser
	ended   chan struct{}
	said    tail // on standard error

	mu      sync.Mutex
	last    int
	waiting map[int]chan answer
}

func (b *clientBench) startOurs(ctx context.Context, flags ...string) (*driver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startDriver(ctx, "our client", self, append([]string{"client", "-serve"}, flags...)...)
}

func (b *clientBench) startOfficial(ctx context.Context) (*driver, error) {
	return startDriver(ctx, "the official client", b.nodeJS, filepath.Join("bench", "js", "client.mjs"), b.modules)
}

// startParty starts a further process of a party.
func (b *clientBench) startParty(ctx context.Context, s party) (*driver, error) {
	if s == ours {
		return b.startOurs(ctx)
	}
	return b.startOfficial(ctx)
}

func startDriver(ctx context.Context, what, program string, args ...string) (*driver, error) {
	d := &driver{what: what, command: exec.CommandContext(ctx, program, args...), ended: make(chan struct{}), waiting: map[int]chan answer{}}
	d.command.Stderr = &d.said
	output, err := d.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if d.input, err = d.command.StdinPipe(); err != nil {
		return nil, err
	}
	if err := d.command.Start(); err != nil {
		return nil, err
	}
	go d.read(output)
	if _, err := d.do(ctx, request{Op: "hello"}); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

// A tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 4 << 10
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-most):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

func (d *driver) pid() int { return d.command.Process.Pid }

// read hands out the answers, and reaps the process at its end.
func (d *driver) read(output io.Reader) {
	defer close(d.ended)
	for lines := bufio.NewReader(output); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var got answer
		if json.Unmarshal(line, &got) != nil {
			continue // native code that logs
		}
		d.mu.Lock()
		if reply := d.waiting[got.Request]; reply != nil {
			reply <- got
			delete(d.waiting, got.Request)
		}
		d.mu.Unlock()
	}
	_ = d.command.Wait() // how it ended shows in its calls
}

// stop ends the process as a program ends, and waits for it.
func (d *driver) stop() {
	_ = d.input.Close()
	select {
	case <-d.ended:
	case <-time.After(30 * time.Second):
		_ = d.command.Process.Kill()
		<-d.ended
	}
}

// mostPatience is how long the slowest operation may take. The official client,
// when it has stopped itself, says nothing.
const mostPatience = 3 * time.Minute

// do makes a request and waits for its answer.
func (d *driver) do(ctx context.Context, r request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, mostPatience)
	defer cancel()
	reply := make(chan answer, 1)
	d.mu.Lock()
	d.last++
	r.Request = d.last
	d.waiting[r.Request] = reply
	line, err := json.Marshal(r)
	if err == nil {
		_, err = d.input.Write(append(line, '\n'))
	}
	d.mu.Unlock()
	if err == nil {
		select {
		case got := <-reply:
			if got.Error != "" {
				err = errors.New(got.Error)
			}
			if err == nil {
				return got, nil
			}
		case <-d.ended:
			err = fmt.Errorf("the process has ended\n%s", &d.said)
		case <-ctx.Done():
			err = fmt.Errorf("no answer: %w\n%s", ctx.Err(), &d.said)
		}
	}
	return answer{}, fmt.Errorf("%s, %s: %w", d.what, r.Op, err)
}

// officialSDK is the folder that has the official SDK in its node_modules, and the
// Node.js that runs it. Package interop installs them if need be.
func officialSDK(ctx context.Context) (modules, nodeJS string, err error) {
	command := exec.CommandContext(ctx, "go", "-C", "interop", "run", "./where")
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return "", "", fmt.Errorf("the official client can't be run here (see -ours): %w", err)
	}
	var tools struct{ Scripts, Node string }
	if err := json.Unmarshal(out, &tools); err != nil {
		return "", "", fmt.Errorf("where the official client is: %w", err)
	}
	return tools.Scripts, tools.Node, nil
}

// An account is a client of one of the processes.
type account struct {
	host     *driver
	name     string
	key      string
	database string // empty: in memory
	url      string
	unpadded bool
	inbox    string
	took     time.Duration // to be opened
}

// newAccount is one that isn't open yet.
func (b *clientBench) newAccount(host *driver) account {
	b.clients++
	key := make([]byte, 32)
	rand.Read(key)
	name := fmt.Sprintf("client%d", b.clients)
	return account{host: host, name: name, key: hex.EncodeToString(key), database: filepath.Join(b.dir, name+".db3"), url: b.url()}
}

func (a *account) open(ctx context.Context) error {
	got, err := a.do(ctx, request{Op: "open", Key: a.key, Database: a.database, URL: a.url, Unpadded: a.unpadded})
	if err != nil {
		return err
	}
	a.inbox, a.took = got.Inbox, got.Took[0]
	return nil
}

func (a *account) do(ctx context.Context, r request) (answer, error) {
	r.Client = a.name
	return a.host.do(ctx, r)
}

// newClient registers a client of a party, as its defaults are.
func (b *clientBench) newClient(ctx context.Context, s party) (account, error) {
	a := b.newAccount(b.drivers[s])
	return a, a.open(ctx)
}

// newClients are one of each party.
func (b *clientBench) newClients(ctx context.Context) (all [2]account, err error) {
	for _, s := range b.parties {
		if all[s], err = b.newClient(ctx, s); err != nil {
			return all, err
		}
	}
	return all, nil
}

// acquainted are clients to whom all people are known.
func (b *clientBench) acquainted(ctx context.Context) ([2]account, error) {
	all, err := b.newClients(ctx)
	if err != nil {
		return all, err
	}
	for _, p := range b.parties {
		if _, err := all[p].do(ctx, request{Op: "group", Users: b.others}); err != nil {
			return all, err
		}
	}
	return all, nil
}

// newPeer registers somebody with whom both parties have to do. What he sends has the
// size that the official client gives it.
func (b *clientBench) newPeer(ctx context.Context) (account, error) {
	a := b.newAccount(b.peers)
	a.database, a.unpadded = "", true
	return a, a.open(ctx)
}

// texts counts the texts that a client has in conversations, in all if none is given.
func (a *account) texts(ctx context.Context, conversations ...string) (int, error) {
	got, err := a.do(ctx, request{Op: "count", Conversations: conversations})
	return got.Count, err
}

// received syncs a client and makes sure that it has so many texts in conversations.
func (a *account) received(ctx context.Context, want int, conversations ...string) error {
	if _, err := a.do(ctx, request{Op: "syncAll"}); err != nil {
		return err
	}
	found, err := a.texts(ctx, conversations...)
	if err != nil {
		return err
	}
	return expect("texts that arrived", found, want)
}
