package differential

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/interop/official"
)

// agent is a process with members in ts-mls; see ts-mls-fuzz.mjs. One goroutine at a time
// may use it.
type agent struct {
	t       testing.TB
	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	logs    bytes.Buffer // what it says on standard error
	last    int
	closing sync.Once
}

// request has what the operations of ts-mls-fuzz.mjs need.
type request struct {
	ID                int      `json:"id"`
	Op                string   `json:"op"`
	Suite             uint16   `json:"suite"`
	On                string   `json:"on,omitempty"`
	As                string   `json:"as,omitempty"`
	Message           []byte   `json:"message,omitempty"`
	Messages          [][]byte `json:"messages,omitempty"`
	Tree              []byte   `json:"tree,omitempty"`
	KeyPackage        []byte   `json:"keyPackage,omitempty"`
	Init              []byte   `json:"init,omitempty"`
	Leaf              []byte   `json:"leaf,omitempty"`
	Signature         []byte   `json:"signature,omitempty"`
	Public            any      `json:"public,omitempty"` // a key, or whether handshakes are public
	Name              []byte   `json:"name,omitempty"`
	Extensions        []uint16 `json:"extensions,omitempty"`
	Proposals         []uint16 `json:"proposals,omitempty"`
	AuthenticatedData []byte   `json:"authenticatedData,omitempty"`
	TreeInside        bool     `json:"treeInside,omitempty"`
	Resync            bool     `json:"resync,omitempty"`
	PSKs              []psk    `json:"psks,omitempty"`
	Sender            *sender  `json:"sender,omitempty"`
}

type psk struct {
	ID     string `json:"id"` // in base64, as ts-mls looks for it
	Secret []byte `json:"secret"`
}

type sender struct {
	Leaf       uint32 `json:"leafIndex"`
	Generation uint32 `json:"generation"`
}

// result is what an operation answers; OK and Error are the verdict of ts-mls.
type result struct {
	OK            bool   `json:"ok"`
	Error         string `json:"error"`
	Kind          string `json:"kind"`
	Epoch         uint64 `json:"epoch,string"`
	Authenticator []byte `json:"authenticator"`
	TreeHash      []byte `json:"treeHash"`
	Context       []byte `json:"context"`
	Text          []byte `json:"text"`
	Active        bool   `json:"active"`
	Removed       bool   `json:"removed"`
	LeafIndex     uint32 `json:"leaf"`

	Message  []byte   `json:"message"`
	Messages [][]byte `json:"messages"`
	Welcome  []byte   `json:"welcome"`
	Tree     []byte   `json:"tree"`
}

// startAgent starts a process that ends with the test.
func startAgent(t testing.TB) *agent {
	t.Helper()
	tools, err := official.Install()
	if errors.Is(err, official.ErrUnavailable) && os.Getenv("CI") != "true" {
		t.Skipf("not proven: that ts-mls judges as we do: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, process: exec.Command(tools.Node, "ts-mls-fuzz.mjs")}
	a.process.Dir = tools.Scripts
	a.process.Stderr = &a.logs // no file: Node.js would make it non-blocking for us, too
	if a.in, err = a.process.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := a.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.out = bufio.NewReaderSize(out, 1<<20)
	if err := a.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	return a
}

// close ends the process and waits for it.
func (a *agent) close() {
	a.closing.Do(func() {
		a.in.Close()
		stop := time.AfterFunc(10*time.Second, func() { a.process.Process.Kill() })
		a.process.Wait()
		stop.Stop()
	})
}

// patience is how long ts-mls may take for one request; nothing takes more than seconds.
const patience = 2 * time.Minute

// do asks for something; a process that doesn't answer or breaks fails the test.
func (a *agent) do(r request, out any) {
	a.t.Helper()
	a.last++
	r.ID = a.last
	line, err := json.Marshal(r)
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { a.process.Process.Kill() })
	defer stop()
	if _, err := a.in.Write(append(line, '\n')); err != nil {
		a.t.Fatalf("ts-mls: %s: %v", r.Op, err)
	}
	line, err = a.out.ReadBytes('\n')
	if err != nil {
		a.close()
		a.t.Fatalf("ts-mls: %s: no answer: %v (%v)\n%s", r.Op, err, ctx.Err(), a.logs.String())
	}
	answer := struct {
		ID     int
		Result json.RawMessage
		Error  *official.CallError
	}{}
	if err := json.Unmarshal(line, &answer); err != nil {
		a.t.Fatal(err)
	}
	if answer.Error != nil {
		a.t.Fatalf("ts-mls: %v", answer.Error)
	}
	if answer.ID != r.ID {
		a.t.Fatalf("ts-mls: answer to %d, asked %d", answer.ID, r.ID)
	}
	if err := json.Unmarshal(answer.Result, out); err != nil {
		a.t.Fatal(fmt.Errorf("ts-mls: %s: %w", r.Op, err))
	}
}

// one asks for something that has one result.
func (a *agent) one(r request) result {
	a.t.Helper()
	var out result
	a.do(r, &out)
	return out
}

// must is one that ts-mls has to accept.
func (a *agent) must(r request) result {
	a.t.Helper()
	out := a.one(r)
	if !out.OK {
		a.t.Fatalf("ts-mls refuses to %s: %s", r.Op, out.Error)
	}
	return out
}

// many asks for something that has a result for each message.
func (a *agent) many(r request) []result {
	a.t.Helper()
	if len(r.Messages) == 0 {
		return nil
	}
	var out []result
	a.do(r, &out)
	if len(out) != len(r.Messages) {
		a.t.Fatalf("ts-mls: %d results for %d messages", len(out), len(r.Messages))
	}
	return out
}
