package content_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

func inboxes(ids ...string) (list []*mlscontents.GroupUpdated_Inbox) {
	for _, id := range ids {
		list = append(list, &mlscontents.GroupUpdated_Inbox{InboxId: id})
	}
	return list
}

func TestGroupUpdated(t *testing.T) {
	older, newer := "", "a name"
	body, err := proto.Marshal(&mlscontents.GroupUpdated{
		InitiatedByInboxId: "alix", AddedInboxes: inboxes("bo", "caro"), RemovedInboxes: inboxes("dana"), LeftInboxes: inboxes("eve"),
		AddedAdminInboxes: inboxes("f"), RemovedAdminInboxes: inboxes("g"),
		AddedSuperAdminInboxes: inboxes("h"), RemovedSuperAdminInboxes: inboxes("i"),
		MetadataFieldChanges: []*mlscontents.GroupUpdated_MetadataFieldChange{
			{FieldName: "group_name", OldValue: &older, NewValue: &newer},
			{FieldName: "message_disappear_in_ns", NewValue: &newer},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := (&content.Encoded{Type: content.TypeGroupUpdated, Content: body}).GroupUpdated()
	if err != nil {
		t.Fatal(err)
	}
	want := &content.GroupUpdated{
		InitiatedBy: "alix", Added: []string{"bo", "caro"}, Removed: []string{"dana"}, Left: []string{"eve"},
		AddedAdmins: []string{"f"}, RemovedAdmins: []string{"g"}, AddedSuperAdmins: []string{"h"}, RemovedSuperAdmins: []string{"i"},
		Fields: []content.FieldChange{{Name: "group_name", Old: &older, New: &newer}, {Name: "message_disappear_in_ns", New: &newer}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := content.Text("hello").GroupUpdated(); !errors.Is(err, content.ErrOtherType) {
		t.Errorf("of a text: %v", err)
	}
	if _, err := (&content.Encoded{Type: content.TypeGroupUpdated, Content: []byte{0xff}}).GroupUpdated(); !errors.Is(err, content.ErrMalformed) {
		t.Errorf("of garbage: %v", err)
	}
}

func FuzzGroupUpdated(f *testing.F) {
	f.Add([]byte{0x0a, 0x01, 'a', 0x12, 0x03, 0x0a, 0x01, 'b'})
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := (&content.Encoded{Type: content.TypeGroupUpdated, Content: b}).GroupUpdated()
		if (u == nil) != (err != nil) {
			t.Errorf("%v, %v", u, err)
		}
	})
}
