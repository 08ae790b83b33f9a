package xmtp

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
)

// What a client was told is so; what it was not told is so or not, for everybody,
// and can be done again.
func whileChangingTheInbox(t *testing.T, w *world) attempt {
	ctx := t.Context()
	// state is that of Alice's inbox, as somebody else reads it.
	state := func() InboxState { return must(w.bob.InboxStates(ctx, w.alice.client.InboxID()))(t)[0] }
	recovery := w.alice.signer
	guest := newSigner(t)
	check(t, w.alice.client.AddIdentifier(ctx, guest))
	turn := 0
	return func(at cut, loss crashtest.Loss) bool {
		turn++
		another := newSigner(t)
		var do func(context.Context) error
		var done func(InboxState) bool
		switch turn % 4 {
		case 0:
			do = func(ctx context.Context) error { return w.alice.client.AddIdentifier(ctx, another) }
			done = func(s InboxState) bool { return s.Has(another.Address()) }
		case 1:
			do = func(ctx context.Context) error {
				return w.alice.client.RemoveIdentifier(ctx, recovery, guest.Address())
			}
			done = func(s InboxState) bool { return !s.Has(guest.Address()) }
		case 2:
			do = func(ctx context.Context) error {
				return w.alice.client.ChangeRecovery(ctx, recovery, another.Address())
			}
			done = func(s InboxState) bool { return s.Recovery.String() == another.Address() }
		case 3:
			do = func(ctx context.Context) error { return w.alice.client.ReassignIdentifier(ctx, guest) }
			done = func(s InboxState) bool { return s.Has(guest.Address()) }
		}
		before := state()
		armed, cancel := w.alice.armed(t, at)
		err := do(armed)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		after := state()
		if err == nil && !done(after) {
			t.Error("it was confirmed and is lost")
		}
		if n := after.Updates - before.Updates; n > 1 || n == 1 != done(after) {
			t.Errorf("%d updates have come of it, done: %v", n, done(after))
		}
		// What it has on disk is a log, up to where it had read it.
		stored := must(w.alice.client.StoredInboxStates(before.InboxID))(t)[0]
		if stored.Updates != before.Updates && stored.Updates != after.Updates || err == nil && stored.Updates != after.Updates {
			t.Errorf("stored are %d updates, of %d to %d", stored.Updates, before.Updates, after.Updates)
		}
		again := do(ctx)
		if taken, ok := errors.AsType[*AlreadyAssociatedError](again); ok && taken.InboxID == after.InboxID && done(after) {
			again = nil
		}
		if turn%4 == 2 && errors.Is(again, ErrNotRecovery) {
			t.Error("the new recovery identifier is not known to be it")
		}
		check(t, again)
		if now := state(); !done(now) {
			t.Error("not done at the second attempt")
		} else if diff := cmp.Diff(now, must(w.alice.client.InboxStates(ctx, now.InboxID))(t)[0], cmp.AllowUnexported(identity.Identifier{})); diff != "" {
			t.Error(diff)
		}
		if turn%4 == 2 {
			recovery = another
		}
		return came
	}
}

// Looking at others' inboxes stores what is found out.
func whileAskingAboutInboxes(t *testing.T, w *world) attempt {
	ctx := t.Context()
	id := w.group(t)
	return func(at cut, loss crashtest.Loss) bool {
		dave := newClient(t, w.url, WithoutWorkers())
		check(t, dave.AddIdentifier(ctx, newSigner(t)))
		check(t, w.bob.AddIdentifier(ctx, newSigner(t)))
		armed, cancel := w.alice.armed(t, at)
		alice := w.alice.client
		_, err := alice.InboxStates(armed, dave.InboxID())
		for _, ask := range []func() error{
			func() error { _, err := alice.InboxHistory(armed, w.bob.InboxID()); return err },
			func() error { _, err := alice.IsAuthorized(armed, dave.InboxID(), dave.Address()); return err },
			func() error { _, err := alice.IsRevoked(armed); return err },
			func() error { _, err := alice.Reach(armed, dave.InboxID()); return err },
			func() error { _, err := must(alice.Conversation(id))(t).Members(armed); return err },
			func() error { return alice.WaitRegistered(armed) },
		} {
			if err == nil {
				err = ask()
			}
		}
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		ids := []string{dave.InboxID(), w.bob.InboxID()}
		mine, theirs := must(w.alice.client.InboxStates(ctx, ids...))(t), must(w.carol.InboxStates(ctx, ids...))(t)
		if diff := cmp.Diff(theirs, mine, cmp.AllowUnexported(identity.Identifier{})); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(mine, must(w.alice.client.StoredInboxStates(ids...))(t), cmp.AllowUnexported(identity.Identifier{})); diff != "" {
			t.Errorf("stored: %s", diff)
		}
		return came
	}
}
