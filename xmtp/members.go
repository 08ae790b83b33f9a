package xmtp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// GroupOptions are what a new group begins with; the zero value is a group without
// a name that has [AllMembersPermissions].
type GroupOptions struct {
	Name, Description, ImageURL, AppData string

	// Disappearing without a From begins now.
	Disappearing Disappearing

	// Permissions are those that differ from AllMembersPermissions.
	Permissions Permissions
}

// state makes the state of a group that we create.
func (o GroupOptions) state(creator string, now time.Time) (*protocol.GroupState, error) {
	state := protocol.NewGroup(creator)
	for name, value := range map[string]string{
		protocol.AttributeName:        o.Name,
		protocol.AttributeDescription: o.Description,
		protocol.AttributeImageURL:    o.ImageURL,
		protocol.AttributeAppData:     o.AppData,
	} {
		if err := protocol.CheckAttribute(name, value); err != nil {
			return nil, err
		}
		state.Mutable.Attributes[name] = value
	}
	d, err := o.Disappearing.since(now)
	if err != nil {
		return nil, err
	}
	if d.On() {
		state.Mutable.SetDisappearing(d.native())
	}
	return state, o.Permissions.change(state.Permissions)
}

// NewGroup creates a group with other users, given by inbox ids or Ethereum
// addresses, and may have none. We are its super admin.
//
// Errors that leave no group behind: [ErrNoInbox] if somebody never used XMTP,
// [ErrTooManyMembers], [ErrTooLong], [ErrInvalidPolicy]. With others the group is
// returned, too: [NotAddedError] names those who are not in it yet, and
// [ErrNotPublished] says that the others will be let in later.
func (c *Client) NewGroup(ctx context.Context, o GroupOptions, users ...string) (*Conversation, error) {
	v, err := c.newGroup(ctx, o, users)
	if err != nil {
		return v, fmt.Errorf("xmtp: new group: %w", err)
	}
	return v, nil
}

func (c *Client) newGroup(ctx context.Context, o GroupOptions, users []string) (*Conversation, error) {
	state, err := o.state(c.inboxID, c.options.now())
	if err != nil {
		return nil, err
	}
	ids, err := c.resolve(ctx, users)
	if err != nil {
		return nil, err
	}
	if err := checkSize(state.Membership, ids); err != nil {
		return nil, err
	}
	ctx = since(ctx)
	if err := c.checkInboxes(ctx, ids); err != nil {
		return nil, err
	}
	return c.create(ctx, state, ids)
}

// checkSize says whether a group has room for more.
func checkSize(m *protocol.Membership, add []string) error {
	size := m.Size()
	for _, id := range slices.Compact(slices.Sorted(slices.Values(add))) {
		if _, in := m.Members[id]; !in {
			size++
		}
	}
	if len(add) > 0 && size > protocol.MaxMembers {
		return fmt.Errorf("%w: it would have %d, at most %d are allowed", ErrTooManyMembers, size, protocol.MaxMembers)
	}
	return nil
}

// checkInboxes says whether there are such inboxes. Ours, which has its part in
// every commit, is looked up with them.
func (c *Client) checkInboxes(ctx context.Context, ids []string) error {
	var at []protocol.Position
	for _, id := range append([]string{c.inboxID}, ids...) {
		at = append(at, protocol.Position{InboxID: id, SequenceID: protocol.Latest})
	}
	states, err := c.inboxes.InboxStates(ctx, at)
	if err != nil {
		return err
	}
	for i, s := range states {
		if s.SequenceID == 0 && s.Err == nil {
			return fmt.Errorf("%w: %s", ErrNoInbox, at[i].InboxID)
		}
	}
	return nil
}

// create makes a group of one and lets the others in by its first commit.
func (c *Client) create(ctx context.Context, state *protocol.GroupState, others []string) (*Conversation, error) {
	row, intent, err := c.begin(ctx, state, others)
	if err != nil {
		return nil, err
	}
	c.news.publish()
	c.live.changed()
	v := c.conversation(row)
	return v, v.group.settle(ctx, intent)
}

// begin makes a group of one and puts it into the outbox that the others are to be
// let in.
func (c *Client) begin(ctx context.Context, state *protocol.GroupState, others []string) (row store.Group, intent int64, err error) {
	extensions, err := state.Extensions()
	if err != nil {
		return row, 0, err
	}
	id := newGroupID()
	pending, err := mls.New(id, c.mlsClient(), extensions, c.mlsConfig())
	if err != nil {
		return row, 0, err
	}
	defer pending.Discard()
	g := c.groups.get(id)
	now := c.now()
	row = store.Group{
		ID: id, Kind: int(state.Metadata.Type), DM: dmID(state), Creator: c.inboxID, Adder: c.inboxID,
		Membership: membershipAllowed, Created: now, Rotated: now,
	}
	begun := func(tx *store.Tx) error {
		self := protocol.Actor{InboxID: c.inboxID, Installation: c.installation}
		return g.logBeginning(tx, commitCreation, pending.Result().Epoch(), pending.Result().EpochAuthenticator(), self)
	}
	if err := g.acquire(ctx); err != nil {
		return row, 0, err
	}
	defer g.release()
	err = c.db.UpdateLazily(func(tx *store.Tx) error {
		if err := errors.Join(tx.PutGroup(row), saveState(tx, id, pending.Changes()), begun(tx)); err != nil {
			return err
		}
		if visible(row) {
			if err := errors.Join(tx.AddArrival(id), c.allow(tx, id)); err != nil {
				return err
			}
		}
		intent, err = g.enqueue(tx, intentMembership, membershipIntent{Add: others}, nil)
		return err
	})
	if err != nil {
		return row, 0, err
	}
	// Nothing can be in its log yet.
	g.mls, g.caughtUp = pending.Done(), true
	return row, intent, nil
}

// AddMembers lets users in, given by inbox ids or Ethereum addresses. Who is in
// already is passed over. Who may is said by [PermissionAddMember].
//
// Users none of whose devices can be reached are not added and named by a
// [NotAddedError]; all the others are added. It is tried again by itself, in the
// background and before messages are sent, until the users are in or
// RemoveMembers is called for them. Other errors: [ErrNoInbox] and
// [ErrTooManyMembers], with which nobody is added.
func (v *Conversation) AddMembers(ctx context.Context, users ...string) error {
	ids, err := v.client.resolve(ctx, users)
	if err == nil {
		err = v.change(ctx, intentMembership, membershipIntent{Add: ids})
	}
	if err != nil {
		return fmt.Errorf("xmtp: adding members: %w", err)
	}
	return nil
}

// RemoveMembers removes users, given by inbox ids or Ethereum addresses. Who is
// not in is passed over. Who may is said by [PermissionRemoveMember]; super admins
// can't be removed. To remove ourselves there is Leave.
func (v *Conversation) RemoveMembers(ctx context.Context, users ...string) error {
	ids, err := v.client.resolve(ctx, users)
	if err == nil && slices.Contains(ids, v.client.inboxID) {
		err = errors.New("that is our own inbox, which leaves by Leave")
	}
	if err == nil {
		err = v.change(ctx, intentMembership, membershipIntent{Remove: ids})
	}
	if err != nil {
		return fmt.Errorf("xmtp: removing members: %w", err)
	}
	return nil
}

// Member is a user in a conversation.
type Member struct {
	InboxID string
	// Identifiers are the wallets and passkeys of the inbox.
	Identifiers []identity.Identifier
	// InstallationIDs are its devices, 64 hex digits each, that the conversation
	// knows of.
	InstallationIDs []string
	// Unreachable are those of them that are not in the conversation, and can't read
	// it, because they had no usable key package when they were to be added. They stay
	// out until the inbox is removed and added again: the network's rules know no other
	// way.
	Unreachable []string
	Level       PermissionLevel
	// Consent is what our user decided about the inbox.
	Consent ConsentState
}

// PermissionLevel is the role of a member.
type PermissionLevel int

// The roles.
const (
	LevelMember PermissionLevel = iota
	LevelAdmin
	LevelSuperAdmin
)

func (l PermissionLevel) String() string {
	switch l {
	case LevelMember:
		return "member"
	case LevelAdmin:
		return "admin"
	case LevelSuperAdmin:
		return "super admin"
	}
	return fmt.Sprintf("level %d", int(l))
}

// Members returns the members by inbox id.
func (v *Conversation) Members(ctx context.Context) ([]Member, error) {
	members, err := v.members(ctx)
	if err != nil {
		return nil, fmt.Errorf("xmtp: members: %w", err)
	}
	return members, nil
}

func (v *Conversation) members(ctx context.Context) ([]Member, error) {
	state, failed, err := v.membership(ctx)
	if err != nil {
		return nil, err
	}
	var at []protocol.Position
	for _, id := range slices.Sorted(maps.Keys(state.Membership.Members)) {
		n := state.Membership.Members[id]
		if n == 0 { // the creator, whom no commit has touched yet
			n = protocol.Latest
		}
		at = append(at, protocol.Position{InboxID: id, SequenceID: n})
	}
	inboxes, err := v.client.inboxes.InboxStates(ctx, at)
	if err != nil {
		return nil, err
	}
	members := make([]Member, len(at))
	for i, p := range at {
		m := Member{InboxID: p.InboxID}
		switch {
		case state.Mutable.IsSuperAdmin(p.InboxID):
			m.Level = LevelSuperAdmin
		case state.Mutable.IsAdmin(p.InboxID):
			m.Level = LevelAdmin
		}
		if inbox := inboxes[i].State; inbox != nil {
			for _, owned := range inbox.Members() {
				if id := owned.Identifier; id.Kind() == identity.KindInstallation {
					m.InstallationIDs = append(m.InstallationIDs, id.String())
					if failed[id] {
						m.Unreachable = append(m.Unreachable, id.String())
					}
				} else {
					m.Identifiers = append(m.Identifiers, id)
				}
			}
		}
		members[i] = m
	}
	return members, v.client.db.View(func(tx *store.Tx) error {
		for i := range members {
			decided, _, err := tx.Consent(store.ConsentInbox, members[i].InboxID)
			if err != nil {
				return err
			}
			members[i].Consent = ConsentState(decided.State)
		}
		return nil
	})
}

// membership returns the state of the group and the installations that failed and
// are not in it.
func (v *Conversation) membership(ctx context.Context) (*protocol.GroupState, map[identity.Identifier]bool, error) {
	if err := v.group.acquire(ctx); err != nil {
		return nil, nil, err
	}
	defer v.group.release()
	state, err := v.group.parsed()
	if err != nil {
		return nil, nil, err
	}
	failed := map[identity.Identifier]bool{}
	for _, id := range state.Membership.Failed {
		failed[id] = true
	}
	for m := range v.group.mls.Members() {
		delete(failed, identity.Installation(m.LeafNode.SignatureKey()))
	}
	return state, failed, nil
}
