package official

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"
)

// Pool lends agents whose clients talk to one node, to one test after the other: to start
// one costs more than many a test does with it. What a test leaves behind there are clients
// that nothing is asked of any more.
type Pool struct {
	tools  *Toolchain
	url    string
	folder string

	mu   sync.Mutex
	idle map[SDK][]*Agent
}

// NewPool makes a pool of agents for the node at url. Close it.
func NewPool(tools *Toolchain, url string) (*Pool, error) {
	folder, err := os.MkdirTemp("", "xmtp-agents-")
	if err != nil {
		return nil, err
	}
	return &Pool{tools: tools, url: url, folder: folder, idle: make(map[SDK][]*Agent)}, nil
}

// Close ends the agents that are not lent. Call it when all tests have ended.
func (pool *Pool) Close() error {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	for _, agents := range pool.idle {
		for _, agent := range agents {
			agent.Close()
		}
	}
	pool.idle = nil
	return os.RemoveAll(pool.folder)
}

// Process lends the test an agent until it ends. Browsers start anew each time.
func (pool *Pool) Process(t testing.TB, sdk SDK) *Process {
	t.Helper()
	if sdk.InBrowser() {
		return StartProcess(t, pool.tools, sdk, pool.url)
	}
	folder, err := os.MkdirTemp(pool.folder, "")
	if err != nil {
		t.Fatal(err)
	}
	pool.mu.Lock()
	var agent *Agent
	if idle := pool.idle[sdk]; len(idle) > 0 {
		agent, pool.idle[sdk] = idle[len(idle)-1], idle[:len(idle)-1]
	}
	pool.mu.Unlock()
	if agent == nil {
		ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
		defer cancel()
		if agent, err = pool.tools.Start(ctx, sdk, pool.url, pool.folder); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if t.Failed() || agent.forget(ctx) != nil {
			agent.Close()
			logOf(t, agent)
			return
		}
		pool.mu.Lock()
		defer pool.mu.Unlock()
		pool.idle[sdk] = append(pool.idle[sdk], agent)
	})
	return &Process{Agent: agent, t: t, url: pool.url, folder: folder}
}

// forget ends the agent's streams and drops all that it holds by name.
func (agent *Agent) forget(ctx context.Context) error {
	if err := agent.Do(ctx, Request{Op: "forget"}, nil); err != nil {
		return err
	}
	agent.mu.Lock()
	defer agent.mu.Unlock()
	if agent.err != nil {
		return errors.New("official: the agent process has ended")
	}
	clear(agent.streams)
	clear(agent.early)
	return nil
}

func logOf(t testing.TB, agent *Agent) {
	if t.Failed() {
		t.Logf("log of %s:\n%s", agent.SDK, tail(agent.Logs(), 8000))
	}
}
