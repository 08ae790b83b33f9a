package content

import (
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

// GroupUpdatedCodec is for what changed in a group.
var GroupUpdatedCodec = Codec[*GroupUpdated]{Type: TypeGroupUpdated, Encode: encodeGroupUpdated, Decode: decodeGroupUpdated}

// GroupUpdated returns what changed in a group. It is [Decode] with
// [GroupUpdatedCodec].
func (e *Encoded) GroupUpdated() (*GroupUpdated, error) { return Decode(GroupUpdatedCodec, e) }

func decodeGroupUpdated(e *Encoded) (*GroupUpdated, error) {
	var p mlscontents.GroupUpdated
	if err := proto.Unmarshal(e.Content, &p); err != nil {
		return nil, err
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

func encodeGroupUpdated(u *GroupUpdated) (*Encoded, error) {
	p := &mlscontents.GroupUpdated{
		InitiatedByInboxId:       u.InitiatedBy,
		AddedInboxes:             inboxes(u.Added),
		RemovedInboxes:           inboxes(u.Removed),
		LeftInboxes:              inboxes(u.Left),
		AddedAdminInboxes:        inboxes(u.AddedAdmins),
		RemovedAdminInboxes:      inboxes(u.RemovedAdmins),
		AddedSuperAdminInboxes:   inboxes(u.AddedSuperAdmins),
		RemovedSuperAdminInboxes: inboxes(u.RemovedSuperAdmins),
	}
	for _, f := range u.Fields {
		p.MetadataFieldChanges = append(p.MetadataFieldChanges, &mlscontents.GroupUpdated_MetadataFieldChange{
			FieldName: f.Name, OldValue: f.Old, NewValue: f.New,
		})
	}
	b, err := proto.Marshal(p)
	if err != nil {
		return nil, err
	}
	return &Encoded{Content: b}, nil
}

func inboxes(ids []string) []*mlscontents.GroupUpdated_Inbox {
	var all []*mlscontents.GroupUpdated_Inbox
	for _, id := range ids {
		all = append(all, &mlscontents.GroupUpdated_Inbox{InboxId: id})
	}
	return all
}

func inboxIDs(inboxes []*mlscontents.GroupUpdated_Inbox) []string {
	var ids []string
	for _, inbox := range inboxes {
		ids = append(ids, inbox.GetInboxId())
	}
	return ids
}
