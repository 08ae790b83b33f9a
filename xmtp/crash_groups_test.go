package xmtp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

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

func whileChangingSettings(t *testing.T, w *world) attempt {
	return changeSettings(t, w, func(string, int) {})
}

// Another commit comes first, so that ours is made again, on top of it.
func whileLosingARaceForSettings(t *testing.T, w *world) attempt {
	return changeSettings(t, w, func(id string, n int) {
		check(t, must(w.bob.Conversation(id))(t).SetDescription(t.Context(), fmt.Sprint("description ", n)))
	})
}

// setting is something that is changed, and how to see that it was.
type setting struct {
	change func(context.Context) error
	done   func(Info) bool
}

func changeSettings(t *testing.T, w *world, before func(id string, n int)) attempt {
	id := w.group(t)
	n := 0
	return func(at cut, loss crashtest.Loss) bool {
		v := must(w.alice.client.Conversation(id))(t)
		bob := w.bob.InboxID()
		n++
		before(id, n)
		text, policy := fmt.Sprint("text ", n), []Policy{PolicyAdmins, PolicySuperAdmins}[n%2]
		// Who is an admin, or a super admin, is none the next time.
		info := must(v.Info(t.Context()))(t)
		admin := setting{func(ctx context.Context) error { return v.AddAdmin(ctx, bob) }, func(i Info) bool { return slices.Contains(i.Admins, bob) }}
		if slices.Contains(info.Admins, bob) {
			admin = setting{func(ctx context.Context) error { return v.RemoveAdmin(ctx, bob) }, func(i Info) bool { return !slices.Contains(i.Admins, bob) }}
		}
		super := setting{func(ctx context.Context) error { return v.AddSuperAdmin(ctx, bob) }, func(i Info) bool { return slices.Contains(i.SuperAdmins, bob) }}
		if slices.Contains(info.SuperAdmins, bob) {
			super = setting{func(ctx context.Context) error { return v.RemoveSuperAdmin(ctx, bob) }, func(i Info) bool { return !slices.Contains(i.SuperAdmins, bob) }}
		}
		all := []setting{
			{func(ctx context.Context) error { return v.SetName(ctx, text) }, func(i Info) bool { return i.Name == text }},
			{func(ctx context.Context) error { return v.SetImageURL(ctx, text) }, func(i Info) bool { return i.ImageURL == text }},
			{func(ctx context.Context) error { return v.SetAppData(ctx, text) }, func(i Info) bool { return i.AppData == text }},
			{func(ctx context.Context) error { return v.SetDescription(ctx, text) }, func(i Info) bool { return i.Description == text }},
			{
				func(ctx context.Context) error { return v.SetPermissions(ctx, Permissions{PermissionImageURL: policy}) },
				func(i Info) bool { return i.Permissions[PermissionImageURL] == policy },
			},
			admin,
			super,
			{
				func(ctx context.Context) error {
					return v.SetDisappearing(ctx, Disappearing{In: time.Duration(n) * time.Hour})
				},
				func(i Info) bool { return i.Disappearing.In == time.Duration(n)*time.Hour },
			},
			{
				func(ctx context.Context) error { return v.SetMinimumVersion(ctx, fmt.Sprintf("1.0.%d", n)) },
				func(i Info) bool { return i.MinimumVersion == fmt.Sprintf("1.0.%d", n) },
			},
			{func(ctx context.Context) error { return v.UpdateKeys(ctx) }, func(Info) bool { return true }},
		}
		s := all[n%len(all)]
		ctx, cancel := w.alice.armed(t, at)
		err := s.change(ctx)
		cancel()
		came := w.came(t, at, err)
		w.recover(t, at, loss)
		w.converge(t)
		if info := w.sameInfo(t, id, w.alice.client, w.bob, w.carol); err == nil && !s.done(info) {
			t.Errorf("change %d was confirmed and is lost: %+v", n, info)
		}
		check(t, w.say(t.Context(), w.alice.client, id))
		w.converge(t)
		w.compare(t, id, w.alice.client, w.bob, w.carol)
		return came
	}
}

func whileLeaving(t *testing.T, w *world) attempt {
	return func(at cut, loss crashtest.Loss) bool {
		w.sent = map[string]bool{}
		theirs := must(w.bob.NewGroup(t.Context(), GroupOptions{}, w.alice.client.InboxID(), w.carol.InboxID()))(t)
		check(t, w.alice.client.Sync(t.Context()))
		v := must(w.alice.client.Conversation(theirs.ID()))(t)
		ctx, cancel := w.alice.armed(t, at)
		err := v.Leave(ctx)
		cancel()
		came := w.came(t, at, err)
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
	}
}

func whileLettingGo(t *testing.T, w *world) attempt {
	dave := newClient(t, w.url, WithoutWorkers())
	id := w.group(t)
	return func(at cut, loss crashtest.Loss) bool {
		check(t, must(w.alice.client.Conversation(id))(t).AddMembers(t.Context(), dave.InboxID()))
		check(t, inConversation(t, dave, id).Leave(t.Context()))
		ctx, cancel := w.alice.armed(t, at)
		err := w.alice.client.Sync(ctx)
		cancel()
		came := w.came(t, at, err)
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
	}
}

// Somebody can't be reached, and then he can.
func whileAddingWhoIsOutOfReach(t *testing.T, w *world) attempt {
	dave := newClient(t, w.url, WithoutWorkers())
	id := w.group(t)
	return func(at cut, loss crashtest.Loss) bool {
		s := newStranger(t, w.bob)
		v := must(w.alice.client.Conversation(id))(t)
		add := func() error {
			ctx, cancel := w.alice.armed(t, at)
			defer cancel()
			return v.AddMembers(ctx, dave.InboxID(), s.inboxID)
		}
		err := add()
		failed := errors.As(err, new(*NotAddedError))
		if failed {
			err = nil
		}
		came := w.came(t, at, err)
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
		came = w.came(t, at, err) || came
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
	}
}
