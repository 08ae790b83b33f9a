package protocol

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
)

// joining checks the group as it is before the commit of a room.
func (r *room) joining(adder mls.LeafIndex, own *person) (*GroupState, Actor, error) {
	r.t.Helper()
	exts, err := r.before.Extensions()
	if err != nil {
		r.t.Fatal(err)
	}
	if r.exts != nil {
		exts = r.exts(exts)
	}
	g := joinedGroup{extensions: exts, members: slices.Values(r.members), adder: r.members[adder].LeafNode, own: own.inboxID}
	return g.check(r.t.Context(), r.logs)
}

func TestJoinRules(t *testing.T) {
	dm := func(r *room) {
		r.before = NewDM(r.alix.inboxID, r.bo.inboxID)
		r.before.Membership.Members = map[string]uint64{r.alix.inboxID: r.alix.at, r.bo.inboxID: r.bo.at}
		r.members = r.members[:3]
	}
	for _, c := range []struct {
		name   string
		change func(*room)
		want   error
	}{
		{"group", func(*room) {}, nil},
		{"DM", dm, nil},
		{"installation missing", func(r *room) { r.members = r.members[1:] }, ErrTreeMembership},
		{"installation missing because it failed", func(r *room) {
			r.before.Membership.Failed = []identity.Identifier{r.alix.installation(0)}
			r.members = r.members[1:]
		}, nil},
		{"inbox missing", func(r *room) { delete(r.before.Membership.Members, r.caro.inboxID) }, ErrTreeMembership},
		{"inbox without leaf", func(r *room) { r.before.Membership.Members[r.dana.inboxID] = r.dana.at }, ErrTreeMembership},
		{"installation of later", func(r *room) { r.before.Membership.Members[r.alix.inboxID] -= 10 }, ErrTreeMembership},
		{"revoked installation", func(r *room) {
			r.revoke(r.alix, 1)
			r.before.Membership.Members[r.alix.inboxID] = r.alix.at
		}, ErrTreeMembership},
		{"no such place in a log", func(r *room) { r.before.Membership.Members[r.alix.inboxID]++ }, ErrInboxLog},
		{"placeholder", func(r *room) { r.before.Membership.Members[r.alix.inboxID] = 0 }, ErrInboxLog},
		{"leaf under a foreign inbox", func(r *room) {
			r.members = slices.Clone(r.members)
			r.members[caroLeaf].LeafNode = r.keyPackage(r.bo.inboxID, r.caro.keys[0]).Package.LeafNode()
		}, ErrTreeMembership},
		{"no membership", func(r *room) {
			r.exts = func(e []mls.Extension) []mls.Extension { return slices.Delete(e, 2, 3) }
		}, ErrNoMembership},
		{"no permissions", func(r *room) {
			r.exts = func(e []mls.Extension) []mls.Extension { return slices.Delete(e, 3, 4) }
		}, ErrUnreadable},
		{"sync group of another inbox", func(r *room) {
			r.before.Metadata = &Metadata{Type: Sync, CreatorInboxID: r.alix.inboxID}
		}, ErrForeignSync},
		{"DM without members", func(r *room) {
			dm(r)
			r.before.Metadata.DMMembers = nil
		}, ErrDM},
		{"DM of others", func(r *room) {
			dm(r)
			r.before.Metadata.DMMembers = &[2]string{r.alix.inboxID, r.caro.inboxID}
		}, ErrDM},
		{"DM by a third one", func(r *room) {
			dm(r)
			r.before.Metadata.DMMembers = &[2]string{r.caro.inboxID, r.bo.inboxID}
		}, ErrDM},
		{"DM with admins", func(r *room) {
			dm(r)
			r.before.Mutable.Admins = []string{r.alix.inboxID}
		}, ErrDM},
		{"DM with super admins", func(r *room) {
			dm(r)
			r.before.Mutable.SuperAdmins = []string{r.alix.inboxID}
		}, ErrDM},
		{"DM in which all may add", func(r *room) {
			dm(r)
			r.before.Permissions.AddMember = Policy{Rule: Allow}
		}, ErrDM},
		{"DM with other policies for attributes", func(r *room) {
			dm(r)
			r.before.Permissions.Metadata["mood"] = Policy{Rule: Deny}
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRoom(t)
			c.change(r)
			state, adder, err := r.joining(0, r.bo)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err != nil {
				if !IsVerdict(err) {
					t.Errorf("%v is no verdict", err)
				}
				return
			}
			if state.Metadata.CreatorInboxID != r.alix.inboxID || adder.InboxID != r.alix.inboxID {
				t.Errorf("created by %s, added by %v", state.Metadata.CreatorInboxID, adder)
			}
		})
	}

	// Our own inbox may add us to a DM in any state, but it has to be ours.
	r := newRoom(t)
	dm(r)
	r.before.Mutable.Admins = []string{r.bo.inboxID}
	if _, _, err := r.joining(boLeaf, r.bo); err != nil {
		t.Error(err)
	}
	r.before.Metadata.DMMembers = &[2]string{r.caro.inboxID, r.alix.inboxID}
	if _, _, err := r.joining(boLeaf, r.bo); !errors.Is(err, ErrDM) {
		t.Errorf("a DM of others: %v", err)
	}
	r = newRoom(t)
	r.before.Metadata = &Metadata{Type: Sync, CreatorInboxID: r.bo.inboxID}
	if _, _, err := r.joining(boLeaf, r.bo); err != nil {
		t.Errorf("our sync group: %v", err)
	}
	if _, _, err := r.joining(alixLeaf, r.bo); !errors.Is(err, ErrForeignSync) {
		t.Errorf("our sync group by another inbox: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	exts, err := r.before.Extensions()
	if err != nil {
		t.Fatal(err)
	}
	g := joinedGroup{extensions: exts, members: slices.Values(r.members), adder: r.members[0].LeafNode, own: r.bo.inboxID}
	if _, _, err := g.check(cancelled, r.logs); !errors.Is(err, context.Canceled) || IsVerdict(err) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestPaused(t *testing.T) {
	s := NewGroup(alix)
	for required, want := range map[string]bool{"": false, Version: false, "9.0.0": true, "soon": false} {
		s.Mutable.Attributes[AttributeMinimumVersion] = required
		if got := s.Paused(); (got != nil) != want {
			t.Errorf("%q: %v", required, got)
		}
	}
	delete(s.Mutable.Attributes, AttributeMinimumVersion)
	if s.Paused() != nil {
		t.Error("paused without a required version")
	}
	dm := NewDM(alix, bo)
	dm.Mutable.Attributes[AttributeMinimumVersion] = "9.0.0"
	if dm.Paused() != nil {
		t.Error("a DM is paused")
	}
}
