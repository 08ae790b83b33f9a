package xmtp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
)

// sameInfo checks that clients agree on a group, and returns what on.
func (w *world) sameInfo(t *testing.T, id string, clients ...*Client) Info {
	t.Helper()
	first := must(must(clients[0].Conversation(id))(t).Info(t.Context()))(t)
	for _, c := range clients[1:] {
		if diff := cmp.Diff(first, must(must(c.Conversation(id))(t).Info(t.Context()))(t)); diff != "" {
			t.Error(diff)
		}
	}
	return first
}

func TestCrashWhileChangingSettings(t *testing.T) {
	t.Parallel()
	changeSettings(t, func(*world, string, int) {})
}

// Another commit comes first, so that ours is made again, on top of it.
func TestCrashWhileLosingARaceForSettings(t *testing.T) {
	t.Parallel()
	changeSettings(t, func(w *world, id string, n int) {
		check(t, must(w.bob.Conversation(id))(t).SetDescription(t.Context(), fmt.Sprint("description ", n)))
	})
}

func changeSettings(t *testing.T, before func(w *world, id string, n int)) {
	w := newWorld(t)
	id := w.group(t)
	n := 0
	eachCut(t, 47, func(at cut, loss crashtest.Loss) bool {
		v := must(w.alice.client.Conversation(id))(t)
		n++
		before(w, id, n)
		// One after the other: a name, a permission, an admin who comes or goes.
		name, policy := fmt.Sprint("name ", n), []Policy{PolicyAdmins, PolicySuperAdmins}[n%2]
		change, made := v.AddAdmin, func(i Info) bool { return slices.Contains(i.Admins, w.bob.InboxID()) }
		if n%2 == 0 {
			change, made = v.RemoveAdmin, func(i Info) bool { return !slices.Contains(i.Admins, w.bob.InboxID()) }
		}
		do := []func(context.Context) error{
			func(ctx context.Context) error { return v.SetName(ctx, name) },
			func(ctx context.Context) error {
				return v.SetPermissions(ctx, Permissions{PermissionImageURL: policy})
			},
			func(ctx context.Context) error { return change(ctx, w.bob.InboxID()) },
		}[n%3]
		ok := []func(Info) bool{
			func(i Info) bool { return i.Name == name },
			func(i Info) bool { return i.Permissions[PermissionImageURL] == policy },
			made,
		}[n%3]
		ctx, cancel := w.alice.armed(t, at)
		err := do(ctx)
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		w.converge(t)
		if info := w.sameInfo(t, id, w.alice.client, w.bob, w.carol); err == nil && !ok(info) {
			t.Errorf("change %d was confirmed and is lost: %+v", n, info)
		}
		check(t, w.say(t.Context(), w.alice.client, id))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		return came
	})
}

func TestCrashWhileLeaving(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eachCut(t, 83, func(at cut, loss crashtest.Loss) bool {
		w.sent = map[string]bool{}
		theirs := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.InboxID(), w.carol.InboxID()))(t)
		check(t, w.alice.client.Sync(t.Context()))
		v := must(w.alice.client.Conversation(theirs.ID()))(t)
		ctx, cancel := w.alice.armed(t, at)
		err := v.Leave(ctx)
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		settle := func() bool {
			t.Helper()
			v = must(w.alice.client.Conversation(theirs.ID()))(t)
			check(t, v.group.settleAll(t.Context()))
			check(t, errors.Join(w.bob.Sync(t.Context()), w.carol.Sync(t.Context()), v.Sync(t.Context())))
			return must(v.IsActive())(t)
		}
		if settle() {
			if err == nil {
				t.Error("the request was confirmed and is lost")
			}
			check(t, v.Leave(t.Context()))
			if settle() {
				t.Error("still there")
			}
		}
		check(t, w.say(t.Context(), w.bob, theirs.ID()))
		check(t, w.carol.Sync(t.Context()))
		w.compare(t, theirs.ID(), w.bob, w.carol)
		told := changes(t, must(w.carol.Conversation(theirs.ID()))(t))
		if left := told[len(told)-1].Left; !slices.Equal(left, []string{w.alice.client.InboxID()}) {
			t.Errorf("left: %v", left)
		}
		return came
	})
}

func TestCrashWhileLettingGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dave := newClient(t, w.url, WithoutWorkers())
	id := w.group(t)
	eachCut(t, 83, func(at cut, loss crashtest.Loss) bool {
		check(t, must(w.alice.client.Conversation(id))(t).AddMembers(t.Context(), dave.InboxID()))
		check(t, inConversation(t, dave, id).Leave(t.Context()))
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.Sync(ctx)
		cancel()
		came := w.fs.WasCut()
		if err != nil && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		must(w.alice.client.letGo(t.Context()))(t) // as the worker does
		w.converge(t)
		if slices.Contains(memberIDs(t, must(w.bob.Conversation(id))(t)), dave.InboxID()) {
			t.Error("dave is still there")
		}
		check(t, w.say(t.Context(), w.alice.client, id))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		return came
	})
}

// Somebody can't be reached, and then he can.
func TestCrashWhileAddingWhoIsOutOfReach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dave := newClient(t, w.url, WithoutWorkers())
	id := w.group(t)
	eachCut(t, 83, func(at cut, loss crashtest.Loss) bool {
		s := newStranger(t, w.bob)
		v := must(w.alice.client.Conversation(id))(t)
		add := func() error {
			ctx, cancel := w.alice.armed(t, at)
			defer cancel()
			return v.AddMembers(ctx, dave.InboxID(), s.inboxID)
		}
		err := add()
		came := w.fs.WasCut()
		failed := errors.As(err, new(*NotAddedError))
		if !failed && !came {
			t.Fatal(err)
		}
		w.recover(t, at, loss)
		w.converge(t)
		v = must(w.alice.client.Conversation(id))(t)
		if failed && (!slices.Contains(memberIDs(t, v), dave.InboxID()) || !slices.Contains(must(v.Awaited())(t), s.inboxID)) {
			t.Error("what the caller was told is lost")
		}
		if err := v.AddMembers(t.Context(), dave.InboxID(), s.inboxID); !errors.As(err, new(*NotAddedError)) {
			t.Errorf("once more: %v", err)
		}

		s.reachable(t, w.bob)
		ctx, cancel := w.alice.armed(t, at)
		err = v.group.refresh(ctx)
		cancel()
		if err != nil && !w.fs.WasCut() {
			t.Fatal(err)
		}
		came = came || w.fs.WasCut()
		w.recover(t, at, loss)
		w.converge(t)
		v = must(w.alice.client.Conversation(id))(t)
		check(t, v.group.refresh(t.Context()))
		if !slices.Contains(memberIDs(t, v), s.inboxID) || len(must(v.Awaited())(t)) != 0 {
			t.Errorf("awaited: %v", must(v.Awaited())(t))
		}
		check(t, v.RemoveMembers(t.Context(), dave.InboxID(), s.inboxID))
		check(t, w.say(t.Context(), w.alice.client, id))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		return came
	})
}
