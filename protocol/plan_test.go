package protocol

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
)

// packages are the key packages of everybody, but for some.
func (r *room) packages(without ...identity.Identifier) map[identity.Identifier]*identity.KeyPackageInfo {
	out := map[identity.Identifier]*identity.KeyPackageInfo{}
	for _, p := range []*person{r.alix, r.bo, r.caro, r.dana} {
		for i, info := range p.infos {
			if id := p.installation(i); !slices.Contains(without, id) {
				out[id] = info
			}
		}
	}
	return out
}

// plan makes the proposals for a change of membership, and judges them as a commit
// by alix.
func (r *room) plan(own identity.Identifier, add, remove []*person, packages map[identity.Identifier]*identity.KeyPackageInfo) ([]mls.Proposal, *Change, error) {
	r.t.Helper()
	ids := func(people []*person) (out []string) {
		for _, p := range people {
			out = append(out, p.inboxID)
		}
		return out
	}
	u, err := PlanMembership(r.t.Context(), r.logs, r.before.Membership, ids(add), ids(remove))
	if err != nil {
		return nil, nil, err
	}
	before, err := r.before.Extensions()
	if err != nil {
		r.t.Fatal(err)
	}
	proposals, _, err := u.Proposals(before, slices.Values(r.members), own, packages)
	if err != nil || proposals == nil {
		return nil, nil, err
	}
	c := stagedCommit{before: before, after: before, path: &r.alix.leaves[0], members: slices.Values(r.members),
		member: func(i mls.LeafIndex) (mls.Member, bool) { return r.members[i], true }}
	for _, p := range proposals {
		c.proposals = append(c.proposals, stagedProposal{alixLeaf, true, p})
		if gce, ok := p.(mls.GroupContextExtensions); ok {
			c.after = gce.Extensions
		}
	}
	change, err := c.check(r.t.Context(), r.logs)
	return proposals, change, err
}

// kinds tells what is proposed, in order.
func kinds(proposals []mls.Proposal) (out []mls.ProposalType) {
	for _, p := range proposals {
		out = append(out, p.ProposalType())
	}
	return out
}

// after is the membership that a plan leads to.
func planned(t *testing.T, proposals []mls.Proposal) *Membership {
	t.Helper()
	for _, p := range proposals {
		if gce, ok := p.(mls.GroupContextExtensions); ok {
			m, err := parseMembership(gce.Extensions)
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
	}
	t.Fatal("no new membership")
	return nil
}

// TestPlans: what is planned is accepted by those who receive it.
func TestPlans(t *testing.T) {
	const add, gce, remove = mls.ProposalAdd, mls.ProposalGroupContextExtensions, mls.ProposalRemove
	type result struct {
		proposals []mls.Proposal
		change    *Change
	}
	for _, c := range []struct {
		name string
		plan func(*room) ([]mls.Proposal, *Change, error)
		want []mls.ProposalType
		ok   func(*room, result) bool
	}{
		{"nothing", func(r *room) ([]mls.Proposal, *Change, error) {
			return r.plan(r.alix.installation(0), nil, nil, r.packages())
		}, nil, nil},
		{"those who are in", func(r *room) ([]mls.Proposal, *Change, error) {
			return r.plan(r.alix.installation(0), []*person{r.bo}, []*person{r.dana}, r.packages())
		}, nil, nil},
		{"add", func(r *room) ([]mls.Proposal, *Change, error) {
			return r.plan(r.alix.installation(0), []*person{r.dana}, nil, r.packages())
		}, []mls.ProposalType{add, add, gce}, func(r *room, x result) bool {
			return slices.Equal(x.change.Added, []string{r.dana.inboxID}) && planned(t, x.proposals).Members[r.dana.inboxID] == r.dana.at
		}},
		{"add with one installation out of reach", func(r *room) ([]mls.Proposal, *Change, error) {
			return r.plan(r.alix.installation(0), []*person{r.dana}, nil, r.packages(r.dana.installation(0)))
		}, []mls.ProposalType{add, gce}, func(r *room, x result) bool {
			return slices.Equal(planned(t, x.proposals).Failed, []identity.Identifier{r.dana.installation(0)})
		}},
		{"add one who failed before", func(r *room) ([]mls.Proposal, *Change, error) {
			r.before.Membership.Failed = []identity.Identifier{r.dana.installation(0)}
			return r.plan(r.alix.installation(0), []*person{r.dana}, nil, r.packages())
		}, []mls.ProposalType{add, add, gce}, func(r *room, x result) bool { return len(planned(t, x.proposals).Failed) == 0 }},
		{"remove", func(r *room) ([]mls.Proposal, *Change, error) {
			return r.plan(r.alix.installation(0), nil, []*person{r.bo}, nil)
		}, []mls.ProposalType{gce, remove}, func(r *room, x result) bool { return slices.Equal(x.change.Removed, []string{r.bo.inboxID}) }},
		{"remove one of whom an installation failed", func(r *room) ([]mls.Proposal, *Change, error) {
			r.install(r.bo)
			r.before.Membership.Members[r.bo.inboxID] = r.bo.at
			r.before.Membership.Failed = []identity.Identifier{r.bo.installation(1)}
			return r.plan(r.alix.installation(0), nil, []*person{r.bo}, nil)
		}, []mls.ProposalType{gce, remove}, nil},
		{"remove one who is in although the list says failed", func(r *room) ([]mls.Proposal, *Change, error) {
			r.before.Membership.Failed = []identity.Identifier{r.bo.installation(0)}
			return r.plan(r.alix.installation(0), nil, []*person{r.bo}, nil)
		}, []mls.ProposalType{gce, remove}, func(r *room, x result) bool {
			return len(planned(t, x.proposals).Failed) == 0 && len(x.change.Readded) == 0
		}},
		{"add and remove", func(r *room) ([]mls.Proposal, *Change, error) {
			return r.plan(r.alix.installation(0), []*person{r.dana}, []*person{r.bo, r.caro}, r.packages())
		}, []mls.ProposalType{add, add, gce, remove, remove}, nil},
		{"new installation", func(r *room) ([]mls.Proposal, *Change, error) {
			r.install(r.bo)
			return r.plan(r.alix.installation(0), nil, nil, r.packages())
		}, []mls.ProposalType{add, gce}, nil},
		{"new installation out of reach", func(r *room) ([]mls.Proposal, *Change, error) {
			r.install(r.bo)
			return r.plan(r.alix.installation(0), nil, nil, nil)
		}, []mls.ProposalType{gce}, func(r *room, x result) bool {
			return slices.Equal(planned(t, x.proposals).Failed, []identity.Identifier{r.bo.installation(1)})
		}},
		{"revoked installation", func(r *room) ([]mls.Proposal, *Change, error) {
			r.revoke(r.alix, 1)
			return r.plan(r.alix.installation(0), nil, nil, nil)
		}, []mls.ProposalType{gce, remove}, nil},
		{"we are revoked", func(r *room) ([]mls.Proposal, *Change, error) {
			r.revoke(r.alix, 0)
			return r.plan(r.alix.installation(0), nil, nil, nil)
		}, nil, nil},
		{"update that changes no installation", func(r *room) ([]mls.Proposal, *Change, error) {
			i := r.install(r.bo)
			r.revoke(r.bo, i)
			return r.plan(r.alix.installation(0), nil, nil, nil)
		}, []mls.ProposalType{gce}, func(r *room, x result) bool { return planned(t, x.proposals).Members[r.bo.inboxID] == r.bo.at }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRoom(t)
			proposals, change, err := c.plan(r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, kinds(proposals)); diff != "" {
				t.Fatal(diff)
			}
			if c.ok != nil && !c.ok(r, result{proposals, change}) {
				t.Errorf("%+v, %+v", proposals, change)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	r := newRoom(t)
	if _, err := PlanMembership(t.Context(), r.logs, r.before.Membership, []string{alix}, nil); !errors.Is(err, ErrUnknownInbox) {
		t.Errorf("unknown inbox: %v", err)
	}
	u, err := PlanMembership(t.Context(), r.logs, r.before.Membership, []string{r.dana.inboxID}, nil)
	if err != nil {
		t.Fatal(err)
	}
	invited := u.Invited(r.dana.installation(0))
	if diff := cmp.Diff([]Actor{{r.dana.inboxID, r.dana.installation(1)}}, invited, compareIdentifiers); diff != "" {
		t.Error(diff)
	}
	bad := errors.New("bad log")
	// A member whose log is not valid any more stays where he is.
	u, err = PlanMembership(t.Context(), failing{states: []InboxState{{Err: bad}}}, &Membership{Members: map[string]uint64{alix: 5}}, nil, nil)
	if err != nil || u.after.Members[alix] != 5 {
		t.Errorf("bad log: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := PlanMembership(cancelled, r.logs, r.before.Membership, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, ok := r.before.Membership.Members[r.dana.inboxID]; ok {
		t.Error("planning changed the membership")
	}
}

// TestLeftOut: who can't be reached by any installation is not made a member, and
// those who can are.
func TestLeftOut(t *testing.T) {
	r := newRoom(t)
	eve, nobody := r.person(1), r.person(0)
	bad := errors.New("bad log")
	broken := r.person(1)
	directory := brokenLog{r.logs, broken.inboxID, bad}
	add := []string{r.dana.inboxID, eve.inboxID, nobody.inboxID, broken.inboxID, r.bo.inboxID}
	u, err := PlanMembership(t.Context(), directory, r.before.Membership, add, nil)
	if err != nil {
		t.Fatal(err)
	}
	exts, err := r.before.Extensions()
	if err != nil {
		t.Fatal(err)
	}
	proposals, leftOut, err := u.Proposals(exts, slices.Values(r.members), r.alix.installation(0), r.packages(r.dana.installation(1)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]LeftOut{}
	for _, l := range leftOut {
		got[l.InboxID] = l
	}
	if len(got) != 3 || !slices.Equal(got[eve.inboxID].Installations, []identity.Identifier{eve.installation(0)}) ||
		len(got[nobody.inboxID].Installations) != 0 || got[nobody.inboxID].Err != nil || !errors.Is(got[broken.inboxID].Err, bad) {
		t.Errorf("left out: %+v", leftOut)
	}
	m := planned(t, proposals)
	want := map[string]uint64{r.alix.inboxID: r.alix.at, r.bo.inboxID: r.bo.at, r.caro.inboxID: r.caro.at, r.dana.inboxID: r.dana.at}
	if diff := cmp.Diff(want, m.Members); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(m.Failed, []identity.Identifier{r.dana.installation(1)}) {
		t.Errorf("failed: %v", m.Failed)
	}
	// Nobody at all: nothing is to be done.
	u, err = PlanMembership(t.Context(), directory, r.before.Membership, []string{eve.inboxID}, nil)
	if err != nil {
		t.Fatal(err)
	}
	proposals, leftOut, err = u.Proposals(exts, slices.Values(r.members), r.alix.installation(0), nil)
	if err != nil || proposals != nil || len(leftOut) != 1 {
		t.Errorf("%v, %v, %v", proposals, leftOut, err)
	}
}

// brokenLog is a directory with one bad log.
type brokenLog struct {
	Directory
	inboxID string
	err     error
}

func (b brokenLog) InboxStates(ctx context.Context, at []Position) ([]InboxState, error) {
	states, err := b.Directory.InboxStates(ctx, at)
	for i, p := range at {
		if p.InboxID == b.inboxID && err == nil {
			states[i] = InboxState{Err: b.err}
		}
	}
	return states, err
}
