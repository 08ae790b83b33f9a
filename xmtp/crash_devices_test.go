package xmtp

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
)

// lose closes the client and loses its database.
func (w *world) lose() {
	if w.alice.client != nil {
		_ = w.alice.client.Close()
		w.alice.client = nil
	}
	w.fs.Load(nil)
}

// A bot loses its database, and is killed while it registers anew. When that has
// succeeded, one installation is left.
func whileReplacing(t *testing.T, w *world) attempt {
	w.alice.options = []Option{WithReplacing(func(Installation) bool { return true })}
	id := w.group(t)
	n := 0
	return func(at cut, loss crashtest.Loss) bool {
		if n++; n%40 == 0 { // an inbox takes 256 updates
			w.alice = newDevice(t, w.fs, w.proxy)
			w.alice.options = []Option{WithReplacing(func(Installation) bool { return true })}
			w.lose()
			check(t, w.alice.open(t.Context(), t))
			id = w.group(t)
		}
		w.lose()
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.open(ctx, t)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		alice := w.alice.client
		if got := installationsOf(t, w.url, alice.InboxID()); !slices.Equal(got, []string{alice.InstallationID()}) {
			t.Errorf("installations %v, not %s", got, alice.InstallationID())
		}
		if must(alice.IsRevoked(t.Context()))(t) {
			t.Error("revoked")
		}
		// It is let in, and what was lost is out.
		w.sent = map[string]bool{}
		check(t, must(w.bob.Conversation(id))(t).group.refresh(t.Context()))
		check(t, w.say(t.Context(), w.bob, id))
		check(t, alice.Sync(t.Context()))
		check(t, w.say(t.Context(), alice, id))
		w.converge(t)
		w.told(t, alice, id)
		w.told(t, w.carol, id)
		sameEpoch(t, must(alice.Conversation(id))(t), must(w.bob.Conversation(id))(t), must(w.carol.Conversation(id))(t))
		return came
	}
}

// A device is killed while it revokes others.
func whileRevoking(t *testing.T, w *world) attempt {
	n := 0
	return func(at cut, loss crashtest.Loss) bool {
		if n++; n%60 == 0 {
			w.lose()
			w.alice = newDevice(t, w.fs, w.proxy)
			check(t, w.alice.open(t.Context(), t))
		}
		lost := openClient(t, w.alice.signer, WithNode(w.url), InMemory(), WithoutWorkers())
		id := lost.InstallationID()
		check(t, lost.Close())
		revoke := func(ctx context.Context) error {
			if n%2 == 0 {
				return w.alice.client.RevokeOtherInstallations(ctx, w.alice.signer)
			}
			return w.alice.client.RevokeInstallations(ctx, w.alice.signer, id)
		}
		ctx, cancel := w.alice.armed(t, at)
		err := revoke(ctx)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		alice := w.alice.client
		left := installationsOf(t, w.url, alice.InboxID())
		if err == nil && slices.Contains(left, id) {
			t.Error("the revocation was confirmed and is lost")
		}
		check(t, revoke(t.Context()))
		if left = installationsOf(t, w.url, alice.InboxID()); !slices.Equal(left, []string{alice.InstallationID()}) {
			t.Errorf("left: %v", left)
		}
		return came
	}
}

// A device is killed while it makes itself known, and while it lets another one in.
func whileDevicesMeet(t *testing.T, w *world) attempt {
	id := w.group(t)
	n := 0
	return func(at cut, loss crashtest.Loss) bool {
		if n++; n%60 == 0 {
			w.lose()
			w.alice = newDevice(t, w.fs, w.proxy)
			check(t, w.alice.open(t.Context(), t))
			id = w.group(t)
		}
		// Alice's client lets a new one in.
		laptop := openClient(t, w.alice.signer, WithNode(w.url), InMemory(), WithoutWorkers())
		must(laptop.introduce(t.Context()))(t)
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.Sync(ctx)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		check(t, w.alice.client.Sync(t.Context()))
		w.sent = map[string]bool{}
		w.converge(t)
		there := inConversation(t, laptop, id)
		sameEpoch(t, must(w.alice.client.Conversation(id))(t), must(w.bob.Conversation(id))(t), there)
		must(there.SendText(t.Context(), w.text()))(t)
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		check(t, w.alice.client.RevokeOtherInstallations(t.Context(), w.alice.signer))
		check(t, w.alice.client.groups.get(must(w.bob.Conversation(id))(t).row.ID).refresh(t.Context()))
		w.converge(t)
		return came
	}
}

// And now it is the new one.
func whileMeetingDevices(t *testing.T, w *world) attempt {
	return func(at cut, loss crashtest.Loss) bool {
		w.lose()
		w.alice = newDevice(t, w.fs, w.proxy)
		laptop := openClient(t, w.alice.signer, WithNode(w.url), InMemory(), WithoutWorkers())
		v := must(laptop.NewGroup(t.Context(), GroupOptions{}, w.bob.InboxID()))(t)
		check(t, w.alice.open(t.Context(), t))
		ctx, cancel := w.alice.armed(t, at)
		_, err := w.alice.client.introduce(ctx)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		if _, err := w.alice.client.introduce(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err = w.alice.client.publishLeft(t.Context()) // as the worker does
		check(t, err)
		if n := len(hidden(t, w.alice.client)); n != 1 {
			t.Errorf("%d groups of installations", n)
		}
		check(t, laptop.Sync(t.Context()))
		inConversation(t, w.alice.client, v.ID())
		return came
	}
}

// At the limit of ten installations a new one makes room by the very error, or by a call
// without a client.
func whileMakingRoom(t *testing.T, w *world) attempt {
	var others []string
	fill := func() {
		w.lose()
		w.alice = newDevice(t, w.fs, w.proxy)
		others = nil
		for range 10 {
			c := openClient(t, w.alice.signer, WithNode(w.url), InMemory(), WithoutWorkers())
			others = append(others, c.InstallationID())
			check(t, c.Close())
		}
	}
	fill()
	n := 0
	return func(at cut, loss crashtest.Loss) bool {
		if n++; n%80 == 0 { // an inbox takes 256 updates
			fill()
		}
		w.lose()
		var full *InstallationLimitError
		if err := w.alice.open(t.Context(), t); !errors.As(err, &full) {
			t.Fatalf("at the limit: %v", err)
		}
		ctx, cancel := w.alice.armed(t, at)
		var err error
		if n%2 == 0 {
			err = full.Revoke(ctx, w.alice.signer, others[0])
		} else {
			err = RevokeInstallations(ctx, w.alice.signer, full.InboxID, others[:1], WithNode(w.proxy.url))
		}
		revoked := err == nil
		if err == nil {
			err = w.alice.open(ctx, t)
		}
		cancel()
		came := w.came(t, at, err)
		if at.fault() == 0 {
			w.alice.crash(loss)
		}
		w.fs.Repair()
		if w.alice.client == nil {
			again := w.alice.open(t.Context(), t)
			if errors.As(again, &full) {
				if revoked {
					t.Error("the revocation was confirmed and is lost")
				}
				check(t, full.Revoke(t.Context(), w.alice.signer, others[0]))
				again = w.alice.open(t.Context(), t)
			}
			check(t, again)
		}
		alice := w.alice.client
		left := installationsOf(t, w.url, alice.InboxID())
		if len(left) != 10 || slices.Contains(left, others[0]) || !slices.Contains(left, alice.InstallationID()) {
			t.Errorf("%d are left, %v", len(left), left)
		}
		others = append(others[1:], alice.InstallationID())
		return came
	}
}
