package protocol

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// A transcript message tells a reader of a conversation what a commit changed. Each
// client makes it for itself; nothing is sent.

// The content types that this package makes or recognises, of the authority
// xmtp.org.
const (
	authority        = "xmtp.org"
	typeGroupUpdated = "group_updated"
	typeLeaveRequest = "leave_request"
)

func contentType(name string) *mlscontents.ContentTypeId {
	return &mlscontents.ContentTypeId{AuthorityId: authority, TypeId: name, VersionMajor: 1}
}

// Transcript returns the message for a commit that was applied, or false if there is
// nothing to tell: no member, attribute or admin changed. left are the inboxes that
// had asked to leave, createdNS is the node's time of the commit.
func (c *Change) Transcript(left []string, createdNS uint64) (Envelope, bool) {
	if len(c.Added)+len(c.Removed)+len(c.Attributes)+len(c.AdminsAdded)+len(c.AdminsRemoved)+
		len(c.SuperAdminsAdded)+len(c.SuperAdminsRemoved) == 0 {
		return Envelope{}, false
	}
	u := &mlscontents.GroupUpdated{
		InitiatedByInboxId:       c.Actor.InboxID,
		AddedInboxes:             updatedInboxes(c.Added),
		AddedAdminInboxes:        updatedInboxes(c.AdminsAdded),
		RemovedAdminInboxes:      updatedInboxes(c.AdminsRemoved),
		AddedSuperAdminInboxes:   updatedInboxes(c.SuperAdminsAdded),
		RemovedSuperAdminInboxes: updatedInboxes(c.SuperAdminsRemoved),
	}
	for _, inboxID := range c.Removed {
		inbox := &mlscontents.GroupUpdated_Inbox{InboxId: inboxID}
		if slices.Contains(left, inboxID) {
			u.LeftInboxes = append(u.LeftInboxes, inbox)
		} else {
			u.RemovedInboxes = append(u.RemovedInboxes, inbox)
		}
	}
	for _, a := range c.Attributes {
		u.MetadataFieldChanges = append(u.MetadataFieldChanges, &mlscontents.GroupUpdated_MetadataFieldChange{
			FieldName: a.Name, OldValue: a.Old, NewValue: a.New,
		})
	}
	return Envelope{groupUpdated(u), strconv.FormatUint(createdNS, 10)}, true
}

// WelcomeTranscript returns the message that stands for the commit which added us,
// made of the welcome: adder and own are inbox ids, createdNS is the node's time of
// the welcome, or of the pointer to it.
func WelcomeTranscript(adder, own string, createdNS uint64) Envelope {
	return Envelope{
		groupUpdated(&mlscontents.GroupUpdated{InitiatedByInboxId: adder, AddedInboxes: updatedInboxes([]string{own})}),
		welcomeTime(createdNS) + "_welcome_added",
	}
}

func updatedInboxes(ids []string) []*mlscontents.GroupUpdated_Inbox {
	var out []*mlscontents.GroupUpdated_Inbox
	for _, id := range ids {
		out = append(out, &mlscontents.GroupUpdated_Inbox{InboxId: id})
	}
	return out
}

func groupUpdated(u *mlscontents.GroupUpdated) []byte {
	content, err := marshal(u)
	if err == nil {
		content, err = marshal(&mlscontents.EncodedContent{Type: contentType(typeGroupUpdated), Content: content})
	}
	if err != nil {
		panic("protocol: " + err.Error()) // decoded strings are UTF-8
	}
	return content
}

// welcomeTime writes a time as the official client does: a fraction of 3, 6 or 9
// digits, the fewest that are exact, or none.
func welcomeTime(ns uint64) string {
	t := time.Unix(int64(ns/1e9), int64(ns%1e9)).UTC()
	s := t.Format("2006-01-02 15:04:05")
	if fraction := fmt.Sprintf("%09d", ns%1e9); fraction != "000000000" {
		for strings.HasSuffix(fraction, "000") {
			fraction = strings.TrimSuffix(fraction, "000")
		}
		s += "." + fraction
	}
	return s + " UTC"
}

// LeaveRequest is the content by which an installation asks that its inbox be
// removed from a group (XIP-75). Super admins act on it.
func LeaveRequest() []byte {
	b, err := marshal(&mlscontents.EncodedContent{Type: contentType(typeLeaveRequest)})
	if err != nil {
		panic("protocol: " + err.Error()) // constant
	}
	return b
}

// IsLeaveRequest reports whether the content of an envelope is a request to leave.
func IsLeaveRequest(content []byte) bool {
	var m mlscontents.EncodedContent
	return unmarshal(content, &m) == nil && m.GetType().GetTypeId() == typeLeaveRequest
}
