package content

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// TypeGroupUpdated is that of messages which tell what changed in a group. Each
// client makes them for itself; they are never sent.
var TypeGroupUpdated = Type{"xmtp.org", "group_updated", 1, 0}

// GroupUpdated tells what one change of a group changed. Members are inbox ids.
type GroupUpdated struct {
	// InitiatedBy made the change.
	InitiatedBy string

	// Added and Removed are members. Those in Left had asked to be removed.
	Added, Removed, Left []string

	// Fields are the attributes of the group that were changed.
	Fields []FieldChange

	AddedAdmins, RemovedAdmins           []string
	AddedSuperAdmins, RemovedSuperAdmins []string
}

// FieldChange is the change of an attribute of a group, by the name that it has in
// the protocol, such as "group_name" or "message_disappear_in_ns".
type FieldChange struct {
	Name string
	// Old and New are nil where there is no value.
	Old, New *string
}

// GroupUpdated returns what changed in a group. The errors are [ErrOtherType] and
// [ErrMalformed]. The minor version is ignored.
func (e *Encoded) GroupUpdated() (*GroupUpdated, error) {
	if e.Type.Authority != TypeGroupUpdated.Authority || e.Type.Name != TypeGroupUpdated.Name || e.Type.Major != TypeGroupUpdated.Major {
		return nil, fmt.Errorf("%w: %s is not %s", ErrOtherType, e.Type, TypeGroupUpdated)
	}
	var p mlscontents.GroupUpdated
	if err := proto.Unmarshal(e.Content, &p); err != nil {
		return nil, fmt.Errorf("%w: change of a group: %w", ErrMalformed, err)
	}
	u := &GroupUpdated{
		InitiatedBy:        p.GetInitiatedByInboxId(),
		Added:              inboxIDs(p.GetAddedInboxes()),
		Removed:            inboxIDs(p.GetRemovedInboxes()),
		Left:               inboxIDs(p.GetLeftInboxes()),
		AddedAdmins:        inboxIDs(p.GetAddedAdminInboxes()),
		RemovedAdmins:      inboxIDs(p.GetRemovedAdminInboxes()),
		AddedSuperAdmins:   inboxIDs(p.GetAddedSuperAdminInboxes()),
		RemovedSuperAdmins: inboxIDs(p.GetRemovedSuperAdminInboxes()),
	}
	for _, f := range p.GetMetadataFieldChanges() {
		u.Fields = append(u.Fields, FieldChange{f.GetFieldName(), f.OldValue, f.NewValue})
	}
	return u, nil
}

func inboxIDs(inboxes []*mlscontents.GroupUpdated_Inbox) []string {
	var ids []string
	for _, inbox := range inboxes {
		ids = append(ids, inbox.GetInboxId())
	}
	return ids
}
