package xmtp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// Info is what members have agreed on about a conversation. A direct message has
// no name, description, image, app data and admins.
type Info struct {
	Name        string
	Description string
	ImageURL    string
	AppData     string // for applications

	Disappearing Disappearing

	// MinimumVersion is the least version of libxmtp, such as "1.10.0", that a
	// client must be like to take part; empty for any. See [ErrPaused].
	MinimumVersion string

	// Admins and SuperAdmins are inbox ids. The lists are independent of each other.
	Admins, SuperAdmins []string

	Permissions Permissions
	Preset      Preset
}

// Disappearing says for how long messages live. Each client deletes them by its own
// clock, some time In after they arrived.
type Disappearing struct {
	// From is when it was switched on.
	From time.Time
	// In is how long messages live.
	In time.Duration
}

// On tells whether messages disappear.
func (d Disappearing) On() bool { return d.native().On() }

// since completes what a caller asks for.
func (d Disappearing) since(now time.Time) (Disappearing, error) {
	if d.In < 0 {
		return d, fmt.Errorf("messages can't disappear in %v", d.In)
	}
	if d.From.IsZero() && d.In > 0 {
		d.From = now
	}
	return d, nil
}

func (d Disappearing) native() (n protocol.Disappearing) {
	if !d.From.IsZero() {
		n.From = d.From.UnixNano()
	}
	n.In = int64(d.In)
	return n
}

// Info returns what members have agreed on, as far as this client has read the log:
// see [Conversation.Sync].
func (v *Conversation) Info(ctx context.Context) (Info, error) {
	state, err := v.groupState(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("xmtp: info: %w", err)
	}
	attributes := state.Mutable.Attributes
	info := Info{
		Name:           attributes[protocol.AttributeName],
		Description:    attributes[protocol.AttributeDescription],
		ImageURL:       attributes[protocol.AttributeImageURL],
		AppData:        attributes[protocol.AttributeAppData],
		MinimumVersion: attributes[protocol.AttributeMinimumVersion],
		Admins:         state.Mutable.Admins,
		SuperAdmins:    state.Mutable.SuperAdmins,
		Permissions:    permissionsOf(state.Permissions),
		Preset:         presetOf(state.Permissions),
	}
	if d := state.Mutable.Disappearing(); d.On() {
		info.Disappearing = Disappearing{time.Unix(0, d.From), time.Duration(d.In)}
	}
	return info, nil
}

// groupState reads what a conversation is beside its keys.
func (v *Conversation) groupState(ctx context.Context) (*protocol.GroupState, error) {
	if err := v.group.acquire(ctx); err != nil {
		return nil, err
	}
	defer v.group.release()
	return v.group.parsed()
}

// parsed reads the group's extensions. The caller holds the lock.
func (g *group) parsed() (*protocol.GroupState, error) {
	state, err := g.state()
	if err != nil {
		return nil, err
	}
	return protocol.ParseGroupState(state.Extensions())
}

// SetName sets the group's name, up to 100 bytes. Who may is said by
// [PermissionName]; the error for a longer one is [ErrTooLong].
func (v *Conversation) SetName(ctx context.Context, name string) error {
	return v.setText(ctx, protocol.AttributeName, name)
}

// SetDescription sets the group's description, up to 1000 bytes. Who may is said
// by [PermissionDescription]; the error for a longer one is [ErrTooLong].
func (v *Conversation) SetDescription(ctx context.Context, description string) error {
	return v.setText(ctx, protocol.AttributeDescription, description)
}

// SetImageURL sets where the group's picture is, up to 2048 bytes. Who may is said
// by [PermissionImageURL]; the error for a longer one is [ErrTooLong].
func (v *Conversation) SetImageURL(ctx context.Context, url string) error {
	return v.setText(ctx, protocol.AttributeImageURL, url)
}

// SetAppData sets what applications keep in the group, up to 8192 bytes of text.
// Who may is said by [PermissionAppData]; the error for more is [ErrTooLong].
func (v *Conversation) SetAppData(ctx context.Context, data string) error {
	return v.setText(ctx, protocol.AttributeAppData, data)
}

func (v *Conversation) setText(ctx context.Context, name, value string) error {
	if v.IsDM() {
		return fmt.Errorf("xmtp: setting %s: %w", name, ErrDirectMessage)
	}
	return v.setAttributes(ctx, map[string]string{name: value})
}

// setAttributes changes attributes by one commit.
func (v *Conversation) setAttributes(ctx context.Context, attributes map[string]string) error {
	names := slices.Sorted(maps.Keys(attributes))
	for _, name := range names {
		if value := attributes[name]; !utf8.ValidString(value) {
			return fmt.Errorf("xmtp: setting %s: it is not UTF-8", name)
		} else if err := protocol.CheckAttribute(name, value); err != nil {
			return fmt.Errorf("xmtp: setting %s: %w", name, err)
		}
	}
	if err := v.change(ctx, intentSettings, settingsIntent{Attributes: attributes}); err != nil {
		return fmt.Errorf("xmtp: setting %s: %w", names[0], err)
	}
	return nil
}

// SetDisappearing lets messages disappear in all members' clients some time after
// they have arrived there; the zero value switches it off. Messages from before are
// not affected. Without a From it is now. Who may is said by
// [PermissionDisappearing]; in a direct message both.
func (v *Conversation) SetDisappearing(ctx context.Context, d Disappearing) error {
	d, err := d.since(v.client.options.now())
	if err != nil {
		return fmt.Errorf("xmtp: %w", err)
	}
	m := protocol.MutableMetadata{Attributes: map[string]string{}}
	m.SetDisappearing(d.native())
	return v.setAttributes(ctx, m.Attributes)
}

// SetMinimumVersion asks clients to be at least like a version of libxmtp, such as
// "1.10.0". Those of older versions pause the group until they are updated. Super
// admins may. The error for a version newer than [ProtocolVersion], which would
// pause ourselves, is a *[protocol.VersionError].
func (v *Conversation) SetMinimumVersion(ctx context.Context, version string) error {
	if err := protocol.CheckVersion(version); err != nil {
		return fmt.Errorf("xmtp: setting the minimum version: %w", err)
	}
	return v.setText(ctx, protocol.AttributeMinimumVersion, version)
}

// PausedForVersion returns the version that the conversation waits for, empty if it
// goes on. See [ErrPaused].
func (v *Conversation) PausedForVersion() (string, error) {
	row, err := v.group.row()
	if err != nil {
		return "", fmt.Errorf("xmtp: %w", err)
	}
	if protocol.CheckVersion(row.Paused) == nil {
		return "", nil
	}
	return row.Paused, nil
}

// SetPermissions changes permissions; those not named stay. Super admins may. The
// error is [ErrInvalidPolicy] if a policy can't be set.
func (v *Conversation) SetPermissions(ctx context.Context, p Permissions) error {
	err := p.change(protocol.DefaultPermissions())
	if err == nil && v.IsDM() {
		err = ErrDirectMessage
	}
	if err == nil {
		err = v.change(ctx, intentSettings, settingsIntent{Permissions: p})
	}
	if err != nil {
		return fmt.Errorf("xmtp: setting permissions: %w", err)
	}
	return nil
}

// AddAdmin makes a user, given by inbox id or Ethereum address, an admin. Who may is
// said by [PermissionAddAdmin].
func (v *Conversation) AddAdmin(ctx context.Context, user string) error {
	return v.setAdmin(ctx, user, func(id []string) settingsIntent { return settingsIntent{AddAdmins: id} })
}

// RemoveAdmin takes it back. Who may is said by [PermissionRemoveAdmin].
func (v *Conversation) RemoveAdmin(ctx context.Context, user string) error {
	return v.setAdmin(ctx, user, func(id []string) settingsIntent { return settingsIntent{RemoveAdmins: id} })
}

// AddSuperAdmin makes a user, given by inbox id or Ethereum address, a super admin,
// who may do everything and can't be removed. Super admins may.
func (v *Conversation) AddSuperAdmin(ctx context.Context, user string) error {
	return v.setAdmin(ctx, user, func(id []string) settingsIntent { return settingsIntent{AddSuperAdmins: id} })
}

// RemoveSuperAdmin takes it back. Super admins may, but the last one stays.
func (v *Conversation) RemoveSuperAdmin(ctx context.Context, user string) error {
	return v.setAdmin(ctx, user, func(id []string) settingsIntent { return settingsIntent{RemoveSuperAdmins: id} })
}

func (v *Conversation) setAdmin(ctx context.Context, user string, intent func([]string) settingsIntent) error {
	var ids []string
	var err error
	if v.IsDM() {
		err = ErrDirectMessage
	} else {
		ids, err = v.client.resolve(ctx, []string{user})
	}
	if err == nil {
		err = v.change(ctx, intentSettings, intent(ids))
	}
	if err != nil {
		return fmt.Errorf("xmtp: changing admins: %w", err)
	}
	return nil
}

// settingsIntent is the intent of a change of attributes, admins or permissions.
type settingsIntent struct {
	Attributes                        map[string]string `json:",omitempty"`
	AddAdmins, RemoveAdmins           []string          `json:",omitempty"`
	AddSuperAdmins, RemoveSuperAdmins []string          `json:",omitempty"`
	Permissions                       Permissions       `json:",omitempty"`
}

// proposals works out what is left to be done; nothing if nothing is.
func (i *settingsIntent) proposals(extensions []mls.Extension) ([]mls.Proposal, error) {
	state, err := protocol.ParseGroupState(extensions)
	if err != nil {
		return nil, err
	}
	before, after := state.Mutable, state.Mutable.Clone()
	maps.Copy(after.Attributes, i.Attributes)
	after.Admins = edit(after.Admins, i.AddAdmins, i.RemoveAdmins)
	after.SuperAdmins = edit(after.SuperAdmins, i.AddSuperAdmins, i.RemoveSuperAdmins)
	changed := false
	if !maps.Equal(before.Attributes, after.Attributes) || !slices.Equal(before.Admins, after.Admins) || !slices.Equal(before.SuperAdmins, after.SuperAdmins) {
		changed = true
		if extensions, err = protocol.WithMutableMetadata(extensions, after); err != nil {
			return nil, err
		}
	}
	policies := *state.Permissions
	policies.Metadata = maps.Clone(policies.Metadata)
	if err := i.Permissions.change(&policies); err != nil {
		return nil, err
	}
	if !policies.Equal(state.Permissions) {
		changed = true
		if extensions, err = protocol.WithPermissions(extensions, &policies); err != nil {
			return nil, err
		}
	}
	if !changed {
		return nil, nil
	}
	return []mls.Proposal{mls.GroupContextExtensions{Extensions: extensions}}, nil
}

// edit returns a list with some added and others removed.
func edit(list, add, remove []string) []string {
	for _, id := range add {
		if !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	return slices.DeleteFunc(list, func(id string) bool { return slices.Contains(remove, id) })
}

// change puts the intent of a commit into the outbox and works until it is done.
func (v *Conversation) change(ctx context.Context, kind int, intent any) error {
	var row int64
	// It becomes durable with its commit, or with the error that it has none yet.
	err := v.client.db.UpdateLazily(func(tx *store.Tx) error {
		stored, found, err := tx.Group(v.row.ID)
		if err != nil || !found {
			return errors.Join(err, ErrNotFound)
		}
		if err := usable(stored); err != nil {
			return err
		}
		row, err = v.group.enqueue(tx, kind, intent, nil)
		return err
	})
	if err != nil {
		return err
	}
	return v.group.settle(ctx, row)
}

// settingsProposals works out a change of settings.
func (g *group) settingsProposals(intent *store.Intent) ([]mls.Proposal, error) {
	var want settingsIntent
	if err := json.Unmarshal(intent.Intent, &want); err != nil {
		return nil, fmt.Errorf("stored intent: %w", err)
	}
	state, err := g.state()
	if err != nil {
		return nil, err
	}
	return want.proposals(state.Extensions())
}
