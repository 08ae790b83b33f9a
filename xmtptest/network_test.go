package xmtptest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/go-xmtp/go-xmtp/xmtp"
	"github.com/go-xmtp/go-xmtp/xmtptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		check(t, err)
		return v
	}
}

// texts returns what a client reads in a conversation after a sync.
func texts(t testing.TB, c *xmtp.Client, id string) []string {
	t.Helper()
	check(t, c.Sync(t.Context()))
	var list []string
	for _, m := range must(must(c.Conversation(id))(t).Messages(xmtp.MessageOptions{}))(t) {
		if m.Kind == xmtp.KindApplication {
			list = append(list, m.Text())
		}
	}
	return list
}

// converse lets two say something, and returns the conversation's id.
func converse(t testing.TB, alice, bob *xmtp.Client) string {
	t.Helper()
	dm := must(alice.DM(t.Context(), bob.Address()))(t)
	must(dm.SendText(t.Context(), "hello"))(t)
	check(t, bob.Sync(t.Context()))
	must(must(bob.Conversation(dm.ID()))(t).SendText(t.Context(), "hello yourself"))(t)
	if got := texts(t, alice, dm.ID()); !cmp.Equal(got, []string{"hello", "hello yourself"}) {
		t.Fatalf("alice reads %q", got)
	}
	return dm.ID()
}

func TestConversation(t *testing.T) {
	n := xmtptest.New(t)
	converse(t, n.Client("alice"), n.Client("bob"))
}

// All of it lives in a bubble, where hours take as long as there is something to do.
func TestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := xmtptest.New(t)
		alice, bob := n.Client("alice"), n.Client("bob")
		id := converse(t, alice, bob)
		chat := must(alice.Conversation(id))(t)
		check(t, chat.SetDisappearing(t.Context(), xmtp.Disappearing{In: time.Hour}))
		must(chat.SendText(t.Context(), "soon gone"))(t)
		if got := texts(t, bob, id); !cmp.Equal(got, []string{"hello", "hello yourself", "soon gone"}) {
			t.Fatalf("bob reads %q", got)
		}
		time.Sleep(2 * time.Hour)
		for name, c := range map[string]*xmtp.Client{"alice": alice, "bob": bob} {
			if got := texts(t, c, id); !cmp.Equal(got, []string{"hello", "hello yourself"}) {
				t.Errorf("%s reads %q an hour later", name, got)
			}
		}
	})
}

// A client that was closed is opened again as it was; a device is another one of the
// same inbox.
func TestReopen(t *testing.T) {
	n := xmtptest.New(t)
	alice, bob := n.Client("alice"), n.Client("bob")
	id := converse(t, alice, bob)
	installation := alice.InstallationID()
	check(t, alice.Close())
	alice = n.Client("alice")
	if alice.InstallationID() != installation {
		t.Error("opened again it is another installation")
	}
	if got := texts(t, alice, id); len(got) != 2 {
		t.Errorf("opened again it reads %q", got)
	}
	phone := n.Client("alice/phone")
	if phone.InboxID() != alice.InboxID() || phone.InstallationID() == installation {
		t.Error("the phone is no other device of the same inbox")
	}
}

// Tests that run at the same time don't see each other, whatever happens in one.
func TestParallel(t *testing.T) {
	for _, name := range []string{"one", "other"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := xmtptest.New(t)
			alice, bob := n.Client("alice"), n.Client("bob")
			id := converse(t, alice, bob)
			n.Crash()
			must(must(bob.Conversation(id))(t).SendText(t.Context(), name))(t)
			if got := texts(t, alice, id); !cmp.Equal(got, []string{"hello", "hello yourself", name}) {
				t.Errorf("alice reads %q", got)
			}
			states := must(xmtp.InboxIDs(t.Context(), []string{alice.Address()}, n.Options("nobody")...))(t)
			if states[alice.Address()] != alice.InboxID() {
				t.Errorf("the node knows %v", states)
			}
			n.Cut()
		})
	}
}

// A recorder is a test whose errors are looked at.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

// Who opens a client himself and doesn't close it is told.
func TestLeftOpen(t *testing.T) {
	r := &recorder{TB: t}
	n := xmtptest.New(r)
	bot := must(xmtp.NewClient(t.Context(), n.Signer("bot"), n.Options("bot")...))(t)
	if _, err := xmtp.NewClient(t.Context(), n.Signer("bot"), n.Options("bot")...); !errors.Is(err, xmtp.ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	n.Client("alice")
	n.Close()
	if len(r.errors) != 1 || !strings.Contains(r.errors[0], "a client of bot was not closed") {
		t.Errorf("told: %q", r.errors)
	}
	check(t, bot.Close())
}

// What node and clients log goes where the test wants it, with the client's name.
func TestLogger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n := xmtptest.New(t, xmtptest.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		alice := n.Client("alice")
		go func() {
			for range alice.StreamAllMessages(context.Background()) {
			}
		}()
		synctest.Wait()
		n.Cut("alice")
		synctest.Wait()
		n.Close()
		for _, want := range []string{"node started", "node ended", "client=alice"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("nothing of %q in: %s", want, log.String())
			}
		}
	})
}

// Many clients are there soon.
func BenchmarkClients(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		n := xmtptest.New(b)
		for i := range 50 {
			n.Client(strconv.Itoa(i))
		}
		n.Close()
	}
}

func BenchmarkConversation(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		n := xmtptest.New(b)
		converse(b, n.Client("alice"), n.Client("bob"))
		n.Close()
	}
}
