package xmtp

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// hidden returns the groups of a client that are for its inbox's installations.
func hidden(t *testing.T, c *Client) (groups []*group) {
	t.Helper()
	check(t, c.db.View(func(tx *store.Tx) error {
		rows, err := tx.Groups()
		for _, row := range rows {
			if row.Kind == int(protocol.Sync) {
				groups = append(groups, c.groups.get(row.ID))
			}
		}
		return err
	}))
	return groups
}

// introduced opens another installation of a wallet's inbox, which makes itself known.
func introduced(t *testing.T, signer Signer, url string, options ...Option) *Client {
	t.Helper()
	c := openClient(t, signer, append([]Option{WithNode(url), InMemory(), WithoutWorkers()}, options...)...)
	must(c.introduce(t.Context()))(t)
	return c
}

// A new installation is let into the conversations of another one, without anybody
// else doing anything.
func TestNewInstallationIsBroughtIn(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	bob := newClient(t, url, WithoutWorkers())
	first := introduced(t, signer, url)
	if n := len(hidden(t, first)); n != 0 {
		t.Errorf("%d groups for one installation", n)
	}
	old := must(first.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t)
	check(t, first.db.Update(func(tx *store.Tx) error {
		row, _, err := tx.Group(old.row.ID)
		row.Created -= int64(bringInActive + time.Hour)
		row.LastMessage = row.Created
		return errors.Join(err, tx.PutGroup(row))
	}))
	dm := must(first.DM(ctx, bob.InboxID()))(t)
	denied := must(first.NewGroup(ctx, GroupOptions{}))(t)
	check(t, denied.SetConsent(ConsentDenied))
	left := must(bob.NewGroup(ctx, GroupOptions{}, first.InboxID()))(t)
	check(t, first.Sync(ctx))
	check(t, left.RemoveMembers(ctx, first.InboxID()))

	second := introduced(t, signer, url)
	third := introduced(t, signer, url)
	if n := len(hidden(t, third)); n != 1 {
		t.Fatalf("%d groups of the new installation", n)
	}
	must(third.introduce(ctx))(t)
	if n := len(hidden(t, third)); n != 1 {
		t.Errorf("%d groups after a second introduction", n)
	}
	check(t, first.Sync(ctx))
	for _, c := range []*Client{second, third} {
		check(t, c.Sync(ctx))
		var ids []string
		for _, v := range must(c.Conversations(ConversationOptions{}))(t) {
			ids = append(ids, v.ID())
		}
		if !cmp.Equal(ids, []string{dm.ID()}) {
			t.Errorf("it is in %v, and not in %v alone; %v is old, %v denied", ids, dm.ID(), old.ID(), denied.ID())
		}
	}
	if n := len(hidden(t, first)); n != 2 {
		t.Errorf("the first knows %d groups", n)
	}
	members := must(must(second.Conversation(dm.ID()))(t).Members(ctx))(t)
	if i := slices.IndexFunc(members, func(m Member) bool { return m.InboxID == first.InboxID() }); len(members[i].InstallationIDs) != 3 {
		t.Errorf("members: %+v", members)
	}
	must(inConversation(t, third, dm.ID()).SendText(ctx, "from the third"))(t)
	for _, c := range []*Client{first, second, bob} {
		if got := texts(t, inConversation(t, c, dm.ID())); !cmp.Equal(got, []string{"from the third"}) {
			t.Errorf("read: %q", got)
		}
	}
	// The hidden groups hold together, and nothing shows of them.
	sizes := make([]int, 2)
	for i, g := range hidden(t, first) {
		check(t, g.syncNow(ctx))
		n := 0
		for range must(g.state())(t).Members() {
			n++
		}
		sizes[i] = n
	}
	if slices.Sort(sizes); !slices.Equal(sizes, []int{2, 3}) {
		t.Errorf("hidden groups of %v", sizes)
	}
}

// The worker does it, too.
func TestWorkerBringsIn(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	ctx := t.Context()
	signer := must(GeneratePrivateKeySigner())(t)
	first := openClient(t, signer, WithNode(url), InMemory())
	bob := newClient(t, url)
	dm := must(first.DM(ctx, bob.InboxID()))(t)
	messages := first.StreamAllMessages(ctx) // which follows welcomes
	done := make(chan error, 1)
	go func() {
		for m, err := range messages {
			if err != nil || m.Text() == "done" {
				done <- err
				return
			}
			if m.Text() != "" && m.ConversationID != dm.ID() {
				done <- errors.New("a message of a hidden group")
				return
			}
		}
	}()
	second := openClient(t, signer, WithNode(url), InMemory())
	for {
		if _, err := second.Conversation(dm.ID()); err == nil {
			break
		}
		check(t, second.Sync(ctx))
	}
	for _, g := range hidden(t, second) {
		v := &Conversation{client: second, group: g, row: must(g.row())(t)}
		must(v.SendText(ctx, "between devices"))(t)
	}
	must(inConversation(t, bob, dm.ID()).SendText(ctx, "done"))(t)
	check(t, <-done)
}
