package retention

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is an index with an order over it, as a node has them.
type store struct {
	t     *testing.T
	index *index.Index
	order *order.Embedded
}

func newStore(t *testing.T) *store {
	t.Helper()
	x, err := index.Open(index.Options{
		FS:        vfs.NewMem(),
		Dir:       "data",
		Logger:    slog.New(slog.DiscardHandler),
		OnFailure: func(err error) { t.Errorf("the store failed: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &store{t, x, order.NewEmbedded(x, time.Now, func([]*order.Record) {})}
}

func (s *store) close() {
	s.t.Helper()
	if err := errors.Join(s.order.Close(), s.index.Close()); err != nil {
		s.t.Error(err)
	}
}

func (s *store) append(kind order.Kind, commit bool, payload string) {
	s.t.Helper()
	_, err := s.order.Append(s.t.Context(), &order.Record{
		Topic:   order.Topic{Kind: kind, ID: "topic"},
		Facts:   order.GroupFacts{Commit: commit}.Append(nil),
		Payload: []byte(payload),
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) payloads(kind order.Kind) string {
	s.t.Helper()
	records, _, err := s.index.Records(order.Topic{Kind: kind, ID: "topic"}, index.Page{Limit: math.MaxInt, MaxBytes: math.MaxInt})
	if err != nil {
		s.t.Fatal(err)
	}
	var texts []string
	for _, r := range records {
		texts = append(texts, string(r.Payload))
	}
	return strings.Join(texts, " ")
}

// What is too old goes, soon after it has become so, and nothing else does.
func TestPruner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		defer s.close()
		var log bytes.Buffer
		p := Start(Config{Index: s.index, Messages: 10 * time.Hour, Welcomes: 30 * time.Hour, Now: time.Now, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		s.append(order.GroupMessage, false, "one")
		s.append(order.GroupMessage, true, "commit")
		s.append(order.Welcome, false, "welcome")
		s.append(order.CommitLog, false, "entry")
		time.Sleep(5 * time.Hour)
		s.append(order.GroupMessage, false, "two")
		want := func(messages, welcomes string) {
			t.Helper()
			if got := s.payloads(order.GroupMessage); got != messages {
				t.Errorf("messages: %q, want %q", got, messages)
			}
			if got := s.payloads(order.Welcome); got != welcomes {
				t.Errorf("welcomes: %q, want %q", got, welcomes)
			}
			if got := s.payloads(order.CommitLog); got != "entry" {
				t.Errorf("commit log: %q", got)
			}
		}
		time.Sleep(5*time.Hour - time.Second)
		want("one commit two", "welcome")
		time.Sleep(31 * time.Minute)
		want("commit two", "welcome")
		time.Sleep(5 * time.Hour)
		want("commit", "welcome")
		time.Sleep(16 * time.Hour)
		want("commit", "")
		if got := p.Removed(); got.Messages != 2 || got.Welcomes != 1 || got.Bytes != uint64(len("one")+len("two")+len("welcome")+3) {
			t.Errorf("counted: %+v", got)
		}
		// The same again is something new.
		s.append(order.GroupMessage, true, "commit")
		s.append(order.GroupMessage, false, "one")
		want("commit one", "")
		p.Stop()
		<-p.Done()
		if n := strings.Count(log.String(), "old records removed"); n != 3 || strings.Contains(log.String(), "topic") {
			t.Errorf("logged %s", &log)
		}
	})
}

// Without ages nothing is done. A pruner can be stopped at any time.
func TestPrunerOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		defer s.close()
		s.append(order.GroupMessage, false, "one")
		p := Start(Config{Index: s.index, Messages: -1, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
		<-p.Done()
		p.Stop()
		if got := s.payloads(order.GroupMessage); got != "one" {
			t.Errorf("messages: %q", got)
		}
		p = Start(Config{Index: s.index, Messages: time.Hour, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
		synctest.Wait()
		p.Stop()
		<-p.Done()
	})
}

// Much is removed a little at a time, with rests, and its space given back.
func TestPrunerSpace(t *testing.T) {
	if os.Getenv("XMTP_PROOF") == "" {
		t.Skip("90 MiB under the race detector: part of the long tier (XMTP_PROOF=1); TestSweepSpace of the index does it with less")
	}
	s := newStore(t)
	defer s.close()
	payload := strings.Repeat("x", 1<<20)
	for i := range 90 {
		s.append(order.GroupMessage, false, fmt.Sprint(i, payload))
	}
	s.append(order.GroupMessage, true, "commit")
	before := s.index.Size()
	given := make(chan string)
	p := Start(Config{
		Index: s.index, Messages: time.Nanosecond, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(lines(given), nil)),
	})
	for line := range given {
		if strings.Contains(line, "given back") {
			break
		}
	}
	p.Stop()
	<-p.Done()
	if after := s.index.Size(); after > before/3 {
		t.Errorf("%d bytes of %d stay", after, before)
	}
	if got := s.payloads(order.GroupMessage); got != "commit" {
		t.Errorf("%d bytes of messages stay", len(got))
	}
}

// lines is a writer of what is logged.
type lines chan<- string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// A clock that is put forward removes nothing; put back, it keeps things longer.
func TestClock(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	for name, test := range map[string]struct {
		shown, passed, want time.Duration
	}{
		"right":       {time.Hour, time.Hour, time.Hour},
		"put forward": {1000 * time.Hour, time.Hour, time.Hour},
		"put back":    {-1000 * time.Hour, time.Hour, -1000 * time.Hour},
		"paused":      {50 * time.Hour, 2 * time.Hour, 2 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			if got := unjumped(start, start.Add(test.shown), test.passed).Sub(start); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	// A clock of our own tells how much passes by itself.
	now := start
	c := newClock(func() time.Time { return now })
	now = now.Add(24 * time.Hour)
	if got := c.now(); !got.Equal(now) {
		t.Errorf("got %v, want %v", got, now)
	}
}
