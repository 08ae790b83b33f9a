package xmtp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

func fork(t *testing.T, v *Conversation) Fork {
	t.Helper()
	return must(v.Fork())(t)
}

// wantFork checks for forks and compares the status.
func wantFork(t *testing.T, v *Conversation, want ForkStatus) Fork {
	t.Helper()
	check(t, v.client.CheckForks(t.Context()))
	got := fork(t, v)
	if got.Status != want {
		t.Errorf("%v, want %v\n%+v\n%+v", got.Status, want, got, must(v.DebugInfo(t.Context()))(t))
	}
	return got
}

// entries returns what stands in the node's commit log of a group.
func entries(t *testing.T, c *Client, id []byte) (list []*protocol.CommitLogEntry) {
	t.Helper()
	response, err := c.node.MLS.BatchQueryCommitLog(t.Context(), &mlsapi.BatchQueryCommitLogRequest{Requests: []*mlsapi.QueryCommitLogRequest{{GroupId: id}}})
	check(t, err)
	for _, signed := range response.Responses[0].CommitLogEntries {
		if protocol.CommitLogSigner(signed) == nil {
			t.Error("an entry without a valid signature")
		}
		list = append(list, must(protocol.ParseCommitLogEntry(signed.SerializedCommitLogEntry))(t))
	}
	return list
}

func kinds(t *testing.T, v *Conversation) (list []string) {
	t.Helper()
	for _, c := range must(v.DebugInfo(t.Context()))(t).CommitLog {
		list = append(list, c.Kind)
		if c.Kind == "" {
			list[len(list)-1] = c.Result.String()
		}
	}
	return list
}

func TestCommitLogOfAGroup(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	alice, bob, carol := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	b := inConversation(t, bob, a.ID())
	if got := fork(t, a); got.Status != ForkUnknown || got.Commit != 0 || !got.ComparedAt.IsZero() {
		t.Errorf("before anything was compared: %+v", got)
	}
	check(t, a.SetName(ctx, "name"))
	check(t, a.AddAdmin(ctx, bob.InboxID()))
	check(t, a.SetPermissions(ctx, Permissions{PermissionAppData: PolicyAdmins}))
	check(t, a.UpdateKeys(ctx))
	check(t, a.AddMembers(ctx, carol.Address()))
	check(t, b.Sync(ctx))

	// Only super admins publish, and who has not consented asks for nothing.
	wantFork(t, b, ForkUnknown)
	if got := entries(t, alice, a.row.ID); got != nil {
		t.Errorf("a member publishes %d entries", len(got))
	}
	wantFork(t, a, Healthy)
	published := entries(t, alice, a.row.ID)
	wantFork(t, b, ForkUnknown)
	must(b.SendText(ctx, "consent"))(t) // with it goes a commit that alice does not know
	wantFork(t, b, ForkUnknown)
	check(t, a.Sync(ctx))
	wantFork(t, a, Healthy)
	got := wantFork(t, b, Healthy)
	if got.Epoch != got.TheirEpoch || !bytes.Equal(got.EpochAuthenticator, got.TheirEpochAuthenticator) || got.ComparedAt.IsZero() {
		t.Errorf("%+v", got)
	}
	epoch, authenticator, err := b.Epoch(ctx)
	check(t, err)
	if got.Epoch != epoch || !bytes.Equal(got.EpochAuthenticator, authenticator) {
		t.Errorf("compared epoch %d, now it is %d", got.Epoch, epoch)
	}

	own := []string{commitMembership, commitMetadata, commitAdmins, commitPermissions, commitKeyUpdate, commitMembership, commitKeyUpdate}
	if diff := cmp.Diff(append([]string{commitCreation}, own...), kinds(t, a)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(append([]string{commitWelcome}, own[1:]...), kinds(t, b)); diff != "" {
		t.Error(diff)
	}
	if len(published) != 6 || published[0].Epoch != 1 || published[0].Result != protocol.CommitApplied {
		t.Errorf("published: %+v", published)
	}
	info := must(b.DebugInfo(ctx))(t)
	if len(info.SharedCommitLog) != 7 || info.Cursor == 0 || info.Epoch != epoch {
		t.Errorf("%+v", info)
	}
	// Nothing is published twice, and nothing asked for that is not to be compared.
	check(t, alice.CheckForks(ctx))
	if n := len(entries(t, alice, a.row.ID)); n != 7 {
		t.Errorf("%d entries", n)
	}
	for _, c := range []*Client{alice, bob} {
		if list := must(c.uncompared())(t); len(list) > 0 {
			t.Errorf("%d groups are compared again", len(list))
		}
	}

	// Bob becomes a publisher, and continues where alice has stopped.
	check(t, a.AddSuperAdmin(ctx, bob.InboxID()))
	check(t, b.Sync(ctx))
	wantFork(t, b, Healthy)
	if n := len(entries(t, alice, a.row.ID)); n != 8 {
		t.Errorf("%d entries", n)
	}
	check(t, a.RemoveMembers(ctx, carol.InboxID()))
	wantFork(t, a, Healthy)
	if n := len(entries(t, alice, a.row.ID)); n != 9 {
		t.Errorf("%d entries", n)
	}
	// Carol never reads again: her own removal proves nothing.
	c := inConversation(t, carol, a.ID())
	if got := kinds(t, c); got[len(got)-1] != commitRemoved {
		t.Errorf("carol's log: %q", got)
	}
	wantFork(t, c, ForkUnknown)
}

func TestCommitLogOfADirectMessage(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	a := must(alice.DM(ctx, bob.Address()))(t)
	b := inConversation(t, bob, a.ID())
	must(b.SendText(ctx, "hello"))(t)
	check(t, a.Sync(ctx))
	wantFork(t, b, Healthy)
	wantFork(t, a, Healthy)
	// Bob began with the epoch that he was let into. Alice has the entry of the commit
	// before, which nobody takes after it.
	if got := entries(t, alice, a.row.ID); len(got) != 1 || got[0].Epoch != 2 {
		t.Errorf("%+v", got)
	}
}

// forked lets bob apply another commit than the others have, at the same place.
func forked(t *testing.T, a, b *Conversation) {
	t.Helper()
	ctx := t.Context()
	pending := must(must(a.group.state())(t).Commit(mls.CommitOptions{ByValueOnly: true}))(t)
	message := bytes.Clone(pending.Result().Message)
	pending.Discard()
	check(t, a.SetName(ctx, "not for bob"))
	var last store.Commit
	check(t, a.client.db.View(func(tx *store.Tx) (err error) {
		last, _, err = tx.LastCommit(a.row.ID)
		return err
	}))
	check(t, b.group.acquire(ctx))
	_, err := b.group.apply(ctx, must(b.group.row())(t), []*mlsapi.GroupMessage_V1{{Id: last.Number, CreatedNs: 1, GroupId: b.row.ID, Data: message}})
	check(t, err)
	b.group.release()
}

func TestForkIsNoticed(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	b := inConversation(t, bob, a.ID())
	must(b.SendText(ctx, "consent"))(t)
	check(t, a.Sync(ctx))
	wantFork(t, a, Healthy)
	wantFork(t, b, Healthy)
	forked(t, a, b)
	wantFork(t, a, Healthy)
	got := wantFork(t, b, Forked)
	if got.Commit == 0 || got.Epoch != got.TheirEpoch || bytes.Equal(got.EpochAuthenticator, got.TheirEpochAuthenticator) {
		t.Errorf("%+v", got)
	}
	// It stays so, and bob tells others nothing.
	n := len(entries(t, alice, a.row.ID))
	check(t, a.SetName(ctx, "another name"))
	check(t, b.Sync(ctx))
	wantFork(t, a, Healthy)
	if again := wantFork(t, b, Forked); again.Commit != got.Commit {
		t.Errorf("%+v", again)
	}
	if got := len(entries(t, alice, a.row.ID)); got != n+1 {
		t.Errorf("%d entries", got)
	}
	// Removed and let in again, all is well.
	check(t, a.RemoveMembers(ctx, bob.InboxID()))
	check(t, a.AddMembers(ctx, bob.InboxID()))
	b = inConversation(t, bob, a.ID())
	if got := fork(t, b); got.Status != ForkUnknown || got.Commit != 0 {
		t.Errorf("let in again: %+v", got)
	}
	must(b.SendText(ctx, "I am back"))(t)
	check(t, a.Sync(ctx))
	wantFork(t, a, Healthy)
	wantFork(t, b, Healthy)
}

// Whoever knows a group's id can be the first who publishes a commit log.
func TestCommitLogOfAStranger(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice, bob, eve := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	var last store.Commit
	check(t, alice.db.View(func(tx *store.Tx) (err error) {
		last, _, err = tx.LastCommit(a.row.ID)
		return err
	}))
	seed := make([]byte, 32)
	rand.Read(seed)
	e := &protocol.CommitLogEntry{GroupID: a.row.ID, Number: last.Number, Result: protocol.CommitApplied, Epoch: 1, Authenticator: make([]byte, 32)}
	_, err := eve.node.MLS.BatchPublishCommitLog(ctx, &mlsapi.BatchPublishCommitLogRequest{Requests: []*mlsapi.PublishCommitLogRequest{must(e.Sign(seed))(t)}})
	check(t, err)
	got := wantFork(t, a, Suspected)
	if got.Commit != last.Number || !bytes.Equal(got.TheirEpochAuthenticator, make([]byte, 32)) {
		t.Errorf("%+v", got)
	}
	if n := len(entries(t, alice, a.row.ID)); n != 1 {
		t.Errorf("alice signs with a key that she doesn't have: %d entries", n)
	}
}

// What is wrong with an entry keeps it, and nothing else, from being taken.
func TestCommitLogWithBadEntries(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	a := must(alice.DM(ctx, bob.Address()))(t)
	own := must(a.group.commitLogSeed(ctx))(t)
	other := make([]byte, 32)
	rand.Read(other)
	var requests []*mlsapi.PublishCommitLogRequest
	put := func(seed []byte, change func(*protocol.CommitLogEntry, *mlsapi.PublishCommitLogRequest)) {
		e := &protocol.CommitLogEntry{GroupID: a.row.ID, Number: 1000, Result: protocol.CommitApplied, Epoch: 50, Authenticator: []byte{1}}
		change(e, nil)
		request := must(e.Sign(seed))(t)
		request.GroupId = a.row.ID
		change(e, request)
		requests = append(requests, request)
	}
	put(own, func(_ *protocol.CommitLogEntry, r *mlsapi.PublishCommitLogRequest) {
		if r != nil {
			r.Signature.Bytes[5] ^= 1
		}
	})
	check(t, alice.CheckForks(ctx)) // decides whose key it is
	put(other, func(*protocol.CommitLogEntry, *mlsapi.PublishCommitLogRequest) {})
	put(own, func(e *protocol.CommitLogEntry, _ *mlsapi.PublishCommitLogRequest) { e.GroupID = make([]byte, 16) })
	put(own, func(e *protocol.CommitLogEntry, _ *mlsapi.PublishCommitLogRequest) { e.Number = 0 })
	put(own, func(e *protocol.CommitLogEntry, _ *mlsapi.PublishCommitLogRequest) { e.Number = 1 << 63 })
	put(own, func(e *protocol.CommitLogEntry, r *mlsapi.PublishCommitLogRequest) {
		if r != nil {
			r.SerializedCommitLogEntry = []byte{0xff}
		}
	})
	_, err := bob.node.MLS.BatchPublishCommitLog(ctx, &mlsapi.BatchPublishCommitLogRequest{Requests: requests})
	check(t, err)
	b := inConversation(t, bob, a.ID())
	must(b.SendText(ctx, "hello"))(t)
	wantFork(t, b, Healthy)
	check(t, a.Sync(ctx))
	wantFork(t, a, Healthy)
	if n := len(must(a.DebugInfo(ctx))(t).SharedCommitLog); n != 2 {
		t.Errorf("%d entries are taken", n)
	}
}

// A log of more pages than one is read whole, and published in requests that nodes take.
func TestLongCommitLog(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	b := inConversation(t, bob, a.ID())
	for i := range 2 * pageSize {
		check(t, a.SetName(ctx, fmt.Sprint(i)))
	}
	wantFork(t, a, Healthy)
	must(b.SendText(ctx, "consent"))(t)
	check(t, a.Sync(ctx))
	check(t, alice.CheckForks(ctx))
	wantFork(t, b, Healthy)
	if n := len(must(b.DebugInfo(ctx))(t).SharedCommitLog); n != 2*pageSize+2 {
		t.Errorf("%d entries", n)
	}
}

func TestMessageFromAheadIsSuspicious(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	b := inConversation(t, bob, a.ID())
	must(b.SendText(ctx, "consent"))(t)
	check(t, a.Sync(ctx))
	wantFork(t, a, Healthy)
	wantFork(t, b, Healthy)
	// A message in form, of an epoch that is yet to come.
	message := append([]byte{0, 1, 0, 2, 16}, a.row.ID...)
	message = append(message, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 32)
	message = append(append(message, make([]byte, 32)...), 50)
	message = append(message, make([]byte, 50)...)
	post(t, a.group, message)
	check(t, b.Sync(ctx))
	if got := fork(t, b); got.Status != Suspected || got.AheadEpoch != 9 || got.AheadOf != 2 || got.AheadMessage == 0 {
		t.Errorf("%+v", got)
	}
	// The next commit on which all agree says that it was nothing.
	check(t, a.SetName(ctx, "name"))
	check(t, b.Sync(ctx))
	wantFork(t, a, Healthy)
	if got := wantFork(t, b, Healthy); got.AheadMessage != 0 {
		t.Errorf("%+v", got)
	}
}

func TestCommitsThatAreNotApplied(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	a := must(alice.NewGroup(ctx, GroupOptions{Permissions: Permissions{PermissionName: PolicySuperAdmins}}, bob.Address()))(t)
	b := inConversation(t, bob, a.ID())
	must(b.SendText(ctx, "consent"))(t)
	// Bob may not.
	state := must(b.group.state())(t)
	intent := settingsIntent{Attributes: map[string]string{protocol.AttributeName: "bob's"}}
	pending := must(state.Commit(mls.CommitOptions{ByValueOnly: true, Proposals: must(intent.proposals(state.Extensions()))(t)}))(t)
	forbidden := bytes.Clone(pending.Result().Message)
	pending.Discard()
	// This one comes too late.
	pending = must(state.Commit(mls.CommitOptions{ByValueOnly: true}))(t)
	late := bytes.Clone(pending.Result().Message)
	pending.Discard()
	damaged := bytes.Clone(late)
	damaged[len(damaged)-1] ^= 1
	send := func(data []byte) {
		post(t, a.group, data)
	}
	send(forbidden)
	send(damaged)
	check(t, a.Sync(ctx))
	check(t, a.SetName(ctx, "alice's"))
	send(late)
	check(t, a.Sync(ctx))
	want := []string{commitCreation, commitMembership, commitKeyUpdate, "COMMIT_RESULT_INVALID", "COMMIT_RESULT_UNDECRYPTABLE", commitMetadata, "COMMIT_RESULT_WRONG_EPOCH"}
	if diff := cmp.Diff(want, kinds(t, a)); diff != "" {
		t.Error(diff)
	}
	wantFork(t, a, Healthy)
	if n := len(entries(t, alice, a.row.ID)); n != 6 {
		t.Errorf("%d entries", n)
	}
	for _, c := range must(a.DebugInfo(ctx))(t).CommitLog {
		if (c.Result == protocol.CommitApplied) != (c.Detail == "") {
			t.Errorf("%+v", c)
		}
	}
}

// A group from before there were commit logs gets a key, which the other super
// admins learn once it counts.
func TestCommitLogKeyIsShared(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	b := inConversation(t, bob, a.ID())
	check(t, a.AddSuperAdmin(ctx, bob.InboxID()))
	check(t, a.setAttributes(ctx, map[string]string{protocol.AttributeCommitLogSigner: ""}))
	check(t, alice.CheckForks(ctx)) // publishes
	check(t, a.SetName(ctx, "name"))
	check(t, alice.CheckForks(ctx)) // shares the key
	state := must(a.groupState(ctx))(t)
	seed := state.Mutable.CommitLogSeed()
	var f store.Fork
	check(t, alice.db.View(func(tx *store.Tx) (err error) {
		f, err = tx.Fork(a.row.ID)
		return err
	}))
	if !bytes.Equal(seed, f.Seed) || !bytes.Equal(protocol.CommitLogKey(seed), f.Signer) {
		t.Fatalf("seed %x in the group, ours is %x, it is signed by %x", seed, f.Seed, f.Signer)
	}
	must(b.SendText(ctx, "consent"))(t)
	wantFork(t, b, Healthy) // and publishes what is new
	check(t, a.Sync(ctx))
	wantFork(t, a, Healthy)
}

// A oneshot group carries one message, of members who want to be let in again. It is
// no conversation, and nothing of it is kept.
func TestOneshotGroupIsNotKept(t *testing.T) {
	url := startNode(t)
	ctx := t.Context()
	alice, bob := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	state := protocol.NewGroup(alice.InboxID())
	state.Metadata.Type = protocol.Oneshot
	state.Metadata.OneshotMessage = &mlscontents.OneshotMessage{MessageType: &mlscontents.OneshotMessage_ReaddRequest{
		ReaddRequest: &mlscontents.ReaddRequest{GroupId: make([]byte, protocol.GroupIDSize), LatestCommitSequenceId: 1},
	}}
	v := must(alice.create(ctx, state, []string{bob.InboxID()}))(t)
	check(t, bob.Sync(ctx))
	if _, err := bob.Conversation(v.ID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	check(t, bob.db.View(func(tx *store.Tx) error {
		return tx.State(v.row.ID, func(key, _ []byte) error {
			t.Errorf("record %x is left", key)
			return nil
		})
	}))
	if list := must(bob.Skipped())(t); len(list) > 0 {
		t.Errorf("skipped: %+v", list)
	}
	// What comes after it is not held up.
	must(must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t).SendText(ctx, "hello"))(t)
	check(t, bob.Sync(ctx))
	if n := len(must(bob.Conversations(ConversationOptions{}))(t)); n != 1 {
		t.Errorf("%d conversations", n)
	}
}

// The worker survives a node that is away.
func TestCommitLogWithoutANode(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	p := newProxy(t, url)
	alice, bob := newClient(t, p.url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	a := must(alice.NewGroup(ctx, GroupOptions{}, bob.Address()))(t)
	// It does not reach the node; it reads, but can't publish; it is not told that it has.
	// Nobody waits until it has tried often enough.
	for i, at := range []cut{{beforeCall, 1}, {beforeCall, 2}, {beforeReply, 2}} {
		patience, end := context.WithCancel(ctx)
		p.arm(at.n, at.kind == beforeReply, end)
		if err := alice.CheckForks(patience); err == nil {
			t.Errorf("%d: no error without a node", i)
		}
		p.revive()
	}
	wantFork(t, a, Healthy)
	// What the node has is not published again.
	if n := len(entries(t, bob, a.row.ID)); n != 1 {
		t.Errorf("%d entries", n)
	}
}
