package xmtp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// errand is what a process is asked to do as a client.
type errand struct {
	Node, Database string
	Wallet         string // private key, hex
	Standby        bool
	To             string // address; empty to send nothing
	Last           int    // number of the last text
}

// progress is what such a process tells.
type progress struct {
	Waiting      bool   // for the database
	InUse        bool   // it is not waited for
	Installation string // once the client is open
	Done         bool   // all is sent
}

func init() {
	// It sends texts that are numbered, beginning with the first that the database
	// doesn't know.
	roles["sender"] = func(ctx context.Context, p *process) error {
		e, err := hear[errand](p)
		if err != nil {
			return err
		}
		signer, err := NewPrivateKeySigner(e.Wallet)
		if err != nil {
			return err
		}
		options := []Option{WithNode(e.Node), WithDatabase(e.Database), WithLogger(slog.New(waitingHandler{slog.DiscardHandler, p}))}
		if e.Standby {
			options = append(options, WithStandby())
		}
		c, err := NewClient(ctx, signer, options...)
		if errors.Is(err, ErrInUse) {
			return p.tell(progress{InUse: true})
		}
		if err != nil {
			return err
		}
		if err := p.tell(progress{Installation: c.InstallationID()}); err != nil {
			return err
		}
		if e.To != "" {
			if err := sendNumbers(ctx, c, e); err != nil {
				return err
			}
			if err := p.tell(progress{Done: true}); err != nil {
				return err
			}
		}
		if _, err := hear[bool](p); err != nil { // or it is killed
			return err
		}
		return c.Close()
	}
}

func sendNumbers(ctx context.Context, c *Client, e errand) error {
	v, err := c.DM(ctx, e.To)
	if err != nil {
		return err
	}
	number, err := v.CountMessages(MessageOptions{Kind: KindApplication})
	if err != nil {
		return err
	}
	for ; number <= e.Last; number++ {
		if _, err := v.SendText(ctx, strconv.Itoa(number)); err != nil {
			return err
		}
	}
	return nil
}

// waitingHandler tells that, as the log says, the database is waited for.
type waitingHandler struct {
	slog.Handler
	p *process
}

func (waitingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h waitingHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message == standingBy {
		return h.p.tell(progress{Waiting: true})
	}
	return nil
}

// newErrand is that of a new wallet.
func newErrand(t *testing.T, node string) errand {
	t.Helper()
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(1 + rand.UintN(255))
	}
	return errand{Node: node, Database: filepath.Join(t.TempDir(), "client.db"), Wallet: fmt.Sprintf("%x", key)}
}

// startSender starts a process with an errand, and returns what it tells first.
func startSender(t *testing.T, e errand) (*process, progress) {
	t.Helper()
	p := startProcess(t, "sender")
	check(t, p.tell(e))
	return p, must(hear[progress](p))(t)
}

// A second process is told at once that the database is in use; so is the same one.
func TestDatabaseInUse(t *testing.T) {
	t.Parallel()
	e := newErrand(t, startNode(t))
	p, first := startSender(t, e)
	if first.Installation == "" {
		t.Fatalf("the first process tells %+v", first)
	}
	if _, other := startSender(t, e); !other.InUse {
		t.Errorf("another process tells %+v", other)
	}
	signer := must(NewPrivateKeySigner(e.Wallet))(t)
	options := []Option{WithNode(e.Node), WithDatabase(e.Database)}
	if _, err := NewClient(t.Context(), signer, options...); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	check(t, p.tell(true))
	check(t, p.cmd.Wait())
	c := openClient(t, signer, options...)
	if c.InstallationID() != first.Installation {
		t.Error("it is another installation")
	}
	if _, err := NewClient(t.Context(), signer, options...); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice in one process: got %v", err)
	}
}

// One process after the other is killed while it sends, and another that has stood by
// goes on as the same installation: everything arrives, once, in order.
func TestStandby(t *testing.T) {
	t.Parallel()
	rounds := 1
	if proof {
		rounds = 100
	}
	e := newErrand(t, startNode(t))
	bob := newClient(t, e.Node)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	received := make(chan string)
	go func() {
		defer close(received)
		for m, err := range bob.StreamAllMessages(ctx) {
			if err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			if m.Kind == KindApplication {
				received <- m.Text()
			}
		}
	}()
	next := 0
	receive := func() {
		t.Helper()
		text, ok := <-received
		if !ok || text != strconv.Itoa(next) {
			t.Fatalf("%q arrives, want %d", text, next)
		}
		next++
	}
	e.Standby, e.To, e.Last = true, bob.Address(), 1<<30
	holder, first := startSender(t, e)
	var longest time.Duration
	for round := range rounds {
		if round == rounds-1 {
			e.Last = next + 50
		}
		successor, waits := startSender(t, e)
		if !waits.Waiting {
			t.Fatalf("a process beside the holder tells %+v", waits)
		}
		for range rand.N(20) {
			receive()
		}
		holder.kill()
		killed := time.Now()
		took := must(hear[progress](successor))(t)
		longest = max(longest, time.Since(killed))
		if took.Installation != first.Installation {
			t.Fatalf("%+v takes over from %+v", took, first)
		}
		holder = successor
	}
	for next <= e.Last {
		receive()
	}
	if done := must(hear[progress](holder))(t); !done.Done {
		t.Errorf("the last process tells %+v", done)
	}
	if longest > 5*time.Second {
		t.Errorf("%v until another process has taken over", longest)
	}
	t.Logf("%d texts, %d processes, each %v after the other at most", next, rounds+1, longest)
	stop()
	for text := range received {
		t.Errorf("%q arrives after the last", text)
	}
}
