package xmtp

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// A DMOption says what a new direct message begins with.
type DMOption func(*protocol.GroupState, *Client) error

// DMDisappearing lets its messages disappear: see [Conversation.SetDisappearing].
// Without a From it begins now.
func DMDisappearing(d Disappearing) DMOption {
	return func(state *protocol.GroupState, c *Client) error {
		d, err := d.since(c.options.now())
		if err == nil && d.On() {
			state.Mutable.SetDisappearing(d.native())
		}
		return err
	}
}

// DM returns the direct message with a user, given by inbox id or Ethereum
// address, and creates it if there is none. Options are for a new one.
//
// Two devices, of both users or of one, can create it at the same time. Then there
// are two conversations, which are one for those who look: whichever of them one has,
// it holds the messages of both, in the order of their times, and what is decided about
// one counts for the other. DM, FindDM, Conversation and Conversations return the one
// with the newest message, and that is where what is sent with it goes; so all soon
// come to send in the same. [Conversation.Duplicates] returns the other.
//
// The error is [ErrNoInbox] if the address never used XMTP, and a [NotAddedError] if
// none of the user's devices can be reached.
func (c *Client) DM(ctx context.Context, user string, options ...DMOption) (*Conversation, error) {
	v, err := c.dm(ctx, user, options)
	if err != nil {
		return v, fmt.Errorf("xmtp: direct message: %w", err)
	}
	return v, nil
}

func (c *Client) dm(ctx context.Context, user string, options []DMOption) (*Conversation, error) {
	peer, existing, err := c.dmsWith(ctx, user)
	if err != nil {
		return nil, err
	}
	if row, ok := current(existing); ok && row.Problem == "" {
		v := c.conversation(row)
		// An earlier attempt may have been cut short, or the peer out of reach.
		if err := v.group.settleAll(ctx); err != nil {
			return v, err
		}
		return v, v.addAwaited(ctx)
	}
	state := protocol.NewDM(c.inboxID, peer)
	for _, option := range options {
		if err := option(state, c); err != nil {
			return nil, err
		}
	}
	return c.create(ctx, state, []string{peer})
}

// FindDM returns the direct message with a user, given by inbox id or Ethereum
// address, if this client has it. The error is [ErrNotFound] if it doesn't, and
// [ErrNoInbox] if the address never used XMTP.
func (c *Client) FindDM(ctx context.Context, user string) (*Conversation, error) {
	_, existing, err := c.dmsWith(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("xmtp: direct message: %w", err)
	}
	row, ok := current(existing)
	if !ok {
		return nil, fmt.Errorf("xmtp: direct message with %.70q: %w", user, errNoDM)
	}
	return c.conversation(row), nil
}

// dmsWith returns the inbox id of a user and the groups that are the direct message
// with him.
func (c *Client) dmsWith(ctx context.Context, user string) (peer string, rows []store.Group, err error) {
	ids, err := c.resolve(ctx, []string{user})
	if err != nil {
		return "", nil, err
	}
	if ids[0] == c.inboxID {
		return "", nil, errors.New("that is our own inbox")
	}
	rows, err = c.siblings(protocol.DMID(c.inboxID, ids[0]))
	return ids[0], rows, err
}

// siblings returns the groups that are one direct message, the one with the
// newest message first.
func (c *Client) siblings(dm string) (rows []store.Group, err error) {
	err = c.db.View(func(tx *store.Tx) error {
		rows, err = tx.DMs(dm)
		return err
	})
	return rows, err
}

// stitched returns the groups that are one conversation with a group, the one with the
// newest message first; none if it isn't there.
func stitched(tx *store.Tx, id []byte) ([]store.Group, error) {
	row, found, err := tx.Group(id)
	if err != nil || !found {
		return nil, err
	}
	if row.DM == "" {
		return []store.Group{row}, nil
	}
	return tx.DMs(row.DM)
}

// current returns the group that stands for those of one conversation: the one with
// the newest message, of those that can be used if any can. It is false if there is none.
func current(rows []store.Group) (row store.Group, ok bool) {
	if len(rows) == 0 {
		return row, false
	}
	if i := slices.IndexFunc(rows, func(row store.Group) bool { return row.Problem == "" }); i > 0 {
		return rows[i], true
	}
	return rows[0], true
}

// Duplicates returns the other conversations that were made for a direct message:
// see [Client.DM]. Push notifications come under the ids of all of them.
func (v *Conversation) Duplicates() ([]*Conversation, error) {
	rows, err := v.client.siblings(v.row.DM)
	if err != nil {
		return nil, fmt.Errorf("xmtp: duplicates: %w", err)
	}
	var others []*Conversation
	for _, row := range rows {
		if !slices.Equal(row.ID, v.row.ID) {
			others = append(others, v.client.conversation(row))
		}
	}
	return others, nil
}

// repeats tells whether somebody is added to a direct message as he was to another
// group of it before, so that it needn't be told again. The rule is the official
// client's: for everything that the change tells, the last change that told of the
// same told the same.
func repeats(tx *store.Tx, row store.Group, encoded []byte) (bool, error) {
	change := groupUpdated(encoded)
	if row.DM == "" || change == nil || len(change.Added) == 0 {
		return false, nil
	}
	rows, err := tx.DMs(row.DM)
	if err != nil {
		return false, err
	}
	var ids [][]byte
	for _, row := range rows {
		ids = append(ids, row.ID)
	}
	parts := func(u *content.GroupUpdated) []reflect.Value {
		v := reflect.ValueOf(u).Elem()
		var lists []reflect.Value
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.Slice {
				lists = append(lists, f)
			}
		}
		return lists
	}
	var last content.GroupUpdated
	err = tx.MembershipChanges(ids, func(b []byte) error {
		if told := groupUpdated(b); told != nil {
			for i, list := range parts(told) {
				if list.Len() > 0 {
					parts(&last)[i].Set(list)
				}
			}
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	for i, list := range parts(change) {
		if list.Len() > 0 && !reflect.DeepEqual(list.Interface(), parts(&last)[i].Interface()) {
			return false, nil
		}
	}
	return true, nil
}

// groupUpdated reads what changed; nil if it is something else.
func groupUpdated(encoded []byte) *content.GroupUpdated {
	e, err := content.Unmarshal(encoded)
	if err != nil {
		return nil
	}
	change, err := e.GroupUpdated()
	if err != nil {
		return nil
	}
	return change
}
