package official

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// Agent is a process that hosts clients of one official SDK. Its methods may be called
// from several goroutines.
type Agent struct {
	SDK SDK

	process *exec.Cmd
	stdin   io.WriteCloser
	logs    *ring
	ended   chan struct{} // closed when the process has said its last word

	// Held while a request is written, and never together with mu: a reader of answers
	// that waits for a writer of requests would let both pipes fill up.
	writing sync.Mutex

	mu      sync.Mutex
	lastID  int
	waiting map[int]chan answer
	streams map[int]*Stream
	early   map[int][]Event // events that came before their stream was known here
	err     error           // why the process can't answer any more
}

// A CallError is an error that the SDK threw.
type CallError struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

func (e *CallError) Error() string { return e.Name + ": " + e.Message }

type answer struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *CallError      `json:"error"`

	// Instead of the above, for an event of a stream.
	Stream int             `json:"stream"`
	Event  string          `json:"event"`
	Value  json.RawMessage `json:"value"`
}

// Start runs an agent with clients of the given SDK and of the node at url. What a browser
// stores goes into a folder. The environment is this process's and env, as NAME=value.
// Stop it with [Agent.Close].
func (tools *Toolchain) Start(ctx context.Context, sdk SDK, url, folder string, env ...string) (*Agent, error) {
	if err := tools.Supports(sdk); err != nil {
		return nil, err
	}
	process := exec.Command(tools.Node, "agent.mjs", string(sdk), url)
	if sdk.InBrowser() {
		process = exec.Command(tools.Node, "browser.mjs", string(sdk), url, folder, tools.Chromium)
	}
	agent := &Agent{
		SDK:     sdk,
		process: process,
		logs:    newRing(64 << 10),
		ended:   make(chan struct{}),
		waiting: make(map[int]chan answer),
		streams: make(map[int]*Stream),
		early:   make(map[int][]Event),
	}
	agent.process.Dir = tools.Scripts
	agent.process.Env = append(os.Environ(), env...)
	agent.process.Stderr = agent.logs
	var err error
	if agent.stdin, err = agent.process.StdinPipe(); err != nil {
		return nil, fmt.Errorf("official: %w", err)
	}
	stdout, err := agent.process.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("official: %w", err)
	}
	if err := agent.process.Start(); err != nil {
		return nil, fmt.Errorf("official: %w", err)
	}
	go agent.read(stdout)
	if err := agent.Do(ctx, Request{Op: "hello"}, nil); err != nil {
		agent.Close()
		return nil, fmt.Errorf("%w\n%s", err, agent.Logs())
	}
	return agent, nil
}

// Close ends the process and waits until it is gone. Clients don't get a chance to say
// goodbye, as when an app is killed; a browser does, to take its own processes along.
func (agent *Agent) Close() {
	if agent.SDK.InBrowser() {
		agent.stdin.Close()
		select {
		case <-agent.ended:
		case <-time.After(20 * time.Second):
		}
	}
	agent.process.Process.Kill()
	<-agent.ended
}

// Logs returns the end of what the SDK logged.
func (agent *Agent) Logs() string { return agent.logs.String() }

// Request is one line to an agent; operations.mjs and browser.mjs have the operations.
type Request struct {
	ID           int            `json:"id"`
	Op           string         `json:"op"`
	On           string         `json:"on,omitempty"`           // name of the object
	Conversation string         `json:"conversation,omitempty"` // a conversation of that client instead
	Path         string         `json:"path,omitempty"`         // member, such as "conversations.sync"
	Args         []any          `json:"args,omitempty"`
	As           string         `json:"as,omitempty"` // name to keep the result under
	Client       string         `json:"client,omitempty"`
	Key          string         `json:"key,omitempty"`
	Contract     *Contract      `json:"contract,omitempty"`
	Address      string         `json:"address,omitempty"`
	Kind         int            `json:"kind,omitempty"` // of the identifier that Address is
	Options      map[string]any `json:"options,omitempty"`
	Texts        []string       `json:"texts,omitempty"`
	Stream       int            `json:"stream,omitempty"`
}

// Do sends a request and decodes its result into out, which may be nil. What the SDK
// throws comes back as a [*CallError].
func (agent *Agent) Do(ctx context.Context, request Request, out any) error {
	reply := make(chan answer, 1)
	agent.mu.Lock()
	agent.lastID++
	request.ID = agent.lastID
	agent.waiting[request.ID] = reply
	agent.mu.Unlock()
	defer func() {
		agent.mu.Lock()
		delete(agent.waiting, request.ID)
		agent.mu.Unlock()
	}()
	line, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("official: sending %s: %w", request.Op, err)
	}
	agent.writing.Lock()
	_, err = agent.stdin.Write(append(line, '\n'))
	agent.writing.Unlock()
	if err != nil {
		return fmt.Errorf("official: sending %s: %w", request.Op, err)
	}
	what := request.Op + " " + request.Path
	select {
	case got := <-reply:
		if got.Error != nil {
			return fmt.Errorf("official: %s %s: %w", agent.SDK, what, got.Error)
		}
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(got.Result, out); err != nil {
			return fmt.Errorf("official: result of %s: %w", what, err)
		}
		return nil
	case <-agent.ended:
		return fmt.Errorf("official: %s %s: %w", agent.SDK, what, agent.failure())
	case <-ctx.Done():
		return fmt.Errorf("official: %s %s: no answer: %w", agent.SDK, what, ctx.Err())
	}
}

func (agent *Agent) failure() error {
	agent.mu.Lock()
	defer agent.mu.Unlock()
	return agent.err
}

// read owns the process: it hands out what the agent writes and reaps it at its end.
func (agent *Agent) read(stdout io.Reader) {
	defer close(agent.ended)
	lines := bufio.NewReaderSize(stdout, 1<<20)
	var err error
	for {
		var line []byte
		line, err = lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var got answer
		if json.Unmarshal(line, &got) != nil {
			agent.logs.Write(line) // native code that logs to standard output
			continue
		}
		agent.deliver(got)
	}
	if waited := agent.process.Wait(); waited != nil {
		err = waited
	}
	agent.mu.Lock()
	defer agent.mu.Unlock()
	agent.err = fmt.Errorf("official: the agent process has ended: %w", err)
	for _, stream := range agent.streams {
		stream.add(Event{Kind: "gone"})
	}
}

func (agent *Agent) deliver(got answer) {
	agent.mu.Lock()
	defer agent.mu.Unlock()
	if got.Stream != 0 {
		event := Event{Kind: got.Event, Value: got.Value}
		if stream, ok := agent.streams[got.Stream]; ok {
			stream.add(event)
		} else {
			agent.early[got.Stream] = append(agent.early[got.Stream], event)
		}
		return
	}
	if reply, ok := agent.waiting[got.ID]; ok {
		reply <- got // its only answer, and there is room for it
	}
}

// Event is something that happened on a stream of the SDK: Kind is value, error, fail,
// retry, restart or end, as the SDK's callbacks are called, or gone when the process ended.
type Event struct {
	Kind  string
	Value json.RawMessage
}

// Stream is an open stream of the SDK, with all that it has delivered so far.
type Stream struct {
	agent *Agent
	id    int

	mu      sync.Mutex
	events  []Event
	changed chan struct{} // closed and replaced at each event
}

// Open starts a stream; on and path name it as in [Request].
func (agent *Agent) Open(ctx context.Context, request Request) (*Stream, error) {
	request.Op = "stream"
	var opened struct {
		Stream int `json:"stream"`
	}
	if err := agent.Do(ctx, request, &opened); err != nil {
		return nil, err
	}
	stream := &Stream{agent: agent, id: opened.Stream, changed: make(chan struct{})}
	agent.mu.Lock()
	defer agent.mu.Unlock()
	stream.events = agent.early[stream.id]
	delete(agent.early, stream.id)
	agent.streams[stream.id] = stream
	return stream, nil
}

// End closes the stream as an app does.
func (stream *Stream) End(ctx context.Context) error {
	return stream.agent.Do(ctx, Request{Op: "end", Stream: stream.id}, nil)
}

// Events returns what has happened so far.
func (stream *Stream) Events() []Event {
	stream.mu.Lock()
	defer stream.mu.Unlock()
	return append([]Event(nil), stream.events...)
}

// Count returns how many events of a kind have happened so far.
func (stream *Stream) Count(kind string) int {
	n := 0
	for _, event := range stream.Events() {
		if event.Kind == kind {
			n++
		}
	}
	return n
}

// Wait returns the events as soon as enough says that they are what the test waits for.
func (stream *Stream) Wait(ctx context.Context, enough func([]Event) bool) ([]Event, error) {
	for {
		stream.mu.Lock()
		events, changed := append([]Event(nil), stream.events...), stream.changed
		stream.mu.Unlock()
		if enough(events) {
			return events, nil
		}
		select {
		case <-changed:
		case <-stream.agent.ended:
			return events, errors.New("official: the agent process ended during a stream")
		case <-ctx.Done():
			return events, fmt.Errorf("official: stream: %w", ctx.Err())
		}
	}
}

func (stream *Stream) add(event Event) {
	stream.mu.Lock()
	defer stream.mu.Unlock()
	stream.events = append(stream.events, event)
	close(stream.changed)
	stream.changed = make(chan struct{})
}

// ring keeps the last bytes written to it.
type ring struct {
	mu   sync.Mutex
	text []byte
	most int
}

func newRing(most int) *ring { return &ring{most: most} }

func (r *ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, p...)
	if extra := len(r.text) - r.most; extra > 0 {
		r.text = append(r.text[:0], r.text[extra:]...)
	}
	return len(p), nil
}

func (r *ring) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.text)
}
