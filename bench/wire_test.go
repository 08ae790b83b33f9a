package main

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// What is sent is a message of the size that is named, and of the group.
func TestPublication(t *testing.T) {
	p := newPublication(groupID(7), 3)
	for _, call := range []uint64{1, 1 << 40} {
		var req mlsapi.SendGroupMessagesRequest
		if err := proto.Unmarshal(p.request(call), &req); err != nil {
			t.Fatal(err)
		}
		if len(req.Messages) != 3 {
			t.Fatal(len(req.Messages), "messages")
		}
		for i, m := range req.Messages {
			data := m.GetV1().GetData()
			header, _, err := mls.ParseHeader(data)
			if err != nil {
				t.Fatal(err)
			}
			if len(data) != messageSize || !bytes.Equal(header.GroupID, groupID(7)) {
				t.Errorf("a message of %d bytes for group %x", len(data), header.GroupID)
			}
			if mark := markOf(data); mark != call+uint64(i) {
				t.Errorf("message %d has the mark %d, not %d", i, mark, call+uint64(i))
			}
		}
	}
}

// The generator's own reader of answers finds what the real one finds.
func TestEachMessage(t *testing.T) {
	want := map[uint64]string{}
	var page mlsapi.QueryGroupMessagesResponse
	for i := range uint64(3) {
		data := mlsMessage(groupID(int(i)), messageSize)
		want[i+1] = string(data)
		page.Messages = append(page.Messages, &mlsapi.GroupMessage{Version: &mlsapi.GroupMessage_V1_{V1: &mlsapi.GroupMessage_V1{
			Id: i + 1, CreatedNs: 5, GroupId: groupID(1), Data: data,
		}}})
	}
	page.PagingInfo = &mlsapi.PagingInfo{Limit: 3}
	encoded, err := proto.Marshal(&page)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	if err := eachMessage(encoded, func(id uint64, data []byte) error {
		found++
		if want[id] != string(data) {
			t.Errorf("message %d is another", id)
		}
		return nil
	}); err != nil || found != len(want) {
		t.Errorf("%d messages, %v", found, err)
	}
	if eachMessage(encoded[:len(encoded)/2], func(uint64, []byte) error { return nil }) == nil {
		t.Error("half a page was taken for a whole one")
	}
}
