package api

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// jsonRequests are one of each kind that has lists.
func jsonRequests() []proto.Message {
	return []proto.Message{
		&mlsapi.SendGroupMessagesRequest{}, &mlsapi.SendWelcomeMessagesRequest{}, &mlsapi.FetchKeyPackagesRequest{},
		&mlsapi.SubscribeGroupMessagesRequest{}, &mlsapi.BatchPublishCommitLogRequest{},
		&identityapi.PublishIdentityUpdateRequest{}, &identityapi.GetInboxIdsRequest{},
	}
}

// A request in JSON costs no more than one that is as long in its binary form
// may: what is short as text and long in memory is refused before it is decoded.
func TestUnmarshalJSONBounds(t *testing.T) {
	for _, body := range []string{
		`{"messages":[` + strings.Repeat(`{},`, maxFields) + `{}]}`,
		`{"installationKeys":[` + strings.Repeat(`"",`, maxFields) + `""]}`,
		`{"x":` + strings.Repeat(`[`, maxFields) + strings.Repeat(`]`, maxFields) + `}`,
		`{"x":` + strings.Repeat(`{"x":`, maxFields),
	} {
		for _, message := range jsonRequests() {
			if err := UnmarshalJSON([]byte(body), message); err == nil || !strings.Contains(err.Error(), "elements in one request") && !strings.Contains(err.Error(), "bytes") {
				t.Errorf("%.20s… as %T: %v", body, message, err)
			}
		}
	}
	update := &identityapi.PublishIdentityUpdateRequest{}
	if err := UnmarshalJSON([]byte(`{"identityUpdate":{"inboxId":"`+strings.Repeat("0", 2*maxUpdateRequestBytes)+`"}}`), update); err == nil {
		t.Error("an identity update of 512 KiB was decoded")
	}
	if err := UnmarshalJSON([]byte(`{"identityUpdate":{"inboxId":"00","laterField":{"a":[1,2]}}}`), update); err != nil || update.IdentityUpdate.GetInboxId() != "00" {
		t.Errorf("an unknown field: %v", err)
	}
}

func FuzzUnmarshalJSON(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `null`, `{"messages":[{"v1":{"data":"AQID","senderHmac":"_-8=","shouldPush":true}}]}`, `{"installationKeys":["",null]}`,
		`{"requests":[{"identifier":"0x12","identifierKind":"IDENTIFIER_KIND_PASSKEY"},{"identifier_kind":7}]}`,
		`{"filters":[{"groupId":"AA==","idCursor":"18446744073709551615"}]}`, `{"identityUpdate":{"actions":[{"createInbox":{"nonce":"1"}}]}}`,
		`{"x":[[[{}]]],"x":1e999}`, `{"messages":[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, message := range jsonRequests() {
			if UnmarshalJSON(data, message) != nil {
				continue
			}
			text, err := protojson.Marshal(message)
			if err != nil {
				t.Fatal(err)
			}
			again := message.ProtoReflect().New().Interface()
			if err := UnmarshalJSON(text, again); err != nil || !proto.Equal(message, again) {
				t.Errorf("%q became %s, which became %v, %v", data, text, again, err)
			}
		}
	})
}
