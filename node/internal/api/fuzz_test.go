package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// stored is a record as a reader of the store gets it.
func stored(t *testing.T, r *order.Record) *order.Record {
	t.Helper()
	r.Number, r.Time = 7, 1_700_000_000_000_000_000
	if len(r.ID) == 0 || len(r.ID) > maxTopicLength {
		t.Fatalf("a topic of %d bytes", len(r.ID))
	}
	value := r.AppendValue(nil)
	if len(value) != r.ValueSize() {
		t.Fatalf("a value of %d bytes, %d were promised", len(value), r.ValueSize())
	}
	read, err := order.ParseValue(r.Topic, r.Number, value)
	if err != nil {
		t.Fatal(err)
	}
	return read
}

func wantInvalid(t *testing.T, err error) {
	t.Helper()
	if status.Code(err) != codes.InvalidArgument {
		t.Fatalf("refused with %v", err)
	}
}

// vector is bytes with their length, for lengths below 64.
func vector(b []byte, v string) []byte { return append(append(b, byte(len(v))), v...) }

func privateMessage(group string) []byte {
	b := vector([]byte{0, 1, 0, 2}, group)
	b = binary.BigEndian.AppendUint64(b, 3)
	b = append(b, byte(mls.ContentTypeApplication))
	return vector(vector(vector(b, ""), "sender data"), "ciphertext")
}

func publicProposal(group string) []byte {
	b := vector([]byte{0, 1, 0, 1}, group)
	b = binary.BigEndian.AppendUint64(b, 3)
	b = vector(append(b, 1, 0, 0, 0, 2), "")
	b = append(b, byte(mls.ContentTypeProposal), 0, 3, 0, 0, 0, 1)
	return vector(vector(b, "signature"), "tag")
}

// What is taken for a group message can be decoded by clients, is of a group
// with a good id, and comes back from the store as it came.
func FuzzGroupMessage(f *testing.F) {
	const group = "a group's 16 B !"
	for _, seed := range [][]byte{privateMessage(group), publicProposal(group), privateMessage("short"), privateMessage(""), {0, 1, 0, 3}, nil} {
		f.Add(seed, []byte("hmac"), true)
	}
	f.Fuzz(func(t *testing.T, data, hmac []byte, push bool) {
		input := &mlsapi.GroupMessageInput_V1{Data: data, SenderHmac: hmac, ShouldPush: push}
		record, err := groupRecord(input)
		if err != nil {
			wantInvalid(t, err)
			return
		}
		message, err := groupMessage(stored(t, record))
		if err != nil {
			t.Fatal(err)
		}
		header, n, err := mls.ParseHeader(data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mls.UnmarshalMessage(data[:n]); err != nil {
			t.Fatal("clients can't decode it:", err)
		}
		want := &mlsapi.GroupMessage_V1{
			Id: 7, CreatedNs: 1_700_000_000_000_000_000, GroupId: header.GroupID,
			Data: data, SenderHmac: hmac, ShouldPush: push, IsCommit: header.ContentType != mls.ContentTypeApplication,
		}
		if diff := cmp.Diff(want, message.GetV1(), protocmp.Transform()); diff != "" || len(header.GroupID) != 16 {
			t.Errorf("group id of %d bytes (-sent +read):\n%s", len(header.GroupID), diff)
		}
	})
}

// What is taken for a welcome has what clients need to read it, and comes back
// from the store as it came.
func FuzzWelcome(f *testing.F) {
	key := bytes.Repeat([]byte{1}, 32)
	for _, seed := range []*mlsapi.WelcomeMessageInput{
		{Version: &mlsapi.WelcomeMessageInput_V1_{V1: &mlsapi.WelcomeMessageInput_V1{
			InstallationKey: key, Data: []byte("data"), HpkePublicKey: []byte("key"), WrapperAlgorithm: 2, WelcomeMetadata: []byte("metadata")}}},
		{Version: &mlsapi.WelcomeMessageInput_V1_{V1: &mlsapi.WelcomeMessageInput_V1{InstallationKey: key, Data: []byte("data"), WrapperAlgorithm: 3}}},
		{Version: &mlsapi.WelcomeMessageInput_V1_{V1: &mlsapi.WelcomeMessageInput_V1{InstallationKey: key, Data: []byte("data"), HpkePublicKey: []byte("key")}}},
		{Version: &mlsapi.WelcomeMessageInput_V1_{V1: &mlsapi.WelcomeMessageInput_V1{InstallationKey: key, Data: []byte("data"), HpkePublicKey: []byte("key"), WrapperAlgorithm: 258}}},
		{Version: &mlsapi.WelcomeMessageInput_WelcomePointer_{WelcomePointer: &mlsapi.WelcomeMessageInput_WelcomePointer{
			InstallationKey: key, WelcomePointer: []byte("pointer"), HpkePublicKey: []byte("key"), WrapperAlgorithm: 2}}},
		{},
	} {
		b, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		input := &mlsapi.WelcomeMessageInput{}
		if proto.Unmarshal(request, input) != nil {
			return
		}
		record, err := welcomeRecord(input)
		if err != nil {
			wantInvalid(t, err)
			return
		}
		message, err := welcomeMessage(stored(t, record))
		if err != nil {
			t.Fatal(err)
		}
		want := &mlsapi.WelcomeMessage{}
		if p := input.GetWelcomePointer(); p != nil {
			want.Version = &mlsapi.WelcomeMessage_WelcomePointer_{WelcomePointer: &mlsapi.WelcomeMessage_WelcomePointer{
				Id: 7, CreatedNs: 1_700_000_000_000_000_000, InstallationKey: p.InstallationKey,
				WelcomePointer: p.WelcomePointer, HpkePublicKey: p.HpkePublicKey, WrapperAlgorithm: 2,
			}}
			if len(p.InstallationKey) != 32 || len(p.WelcomePointer) == 0 || len(p.HpkePublicKey) == 0 {
				t.Errorf("taken: %v", p)
			}
		} else {
			v1 := input.GetV1()
			algorithm := v1.WrapperAlgorithm
			if algorithm == 0 {
				algorithm = mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_CURVE25519
			}
			want.Version = &mlsapi.WelcomeMessage_V1_{V1: &mlsapi.WelcomeMessage_V1{
				Id: 7, CreatedNs: 1_700_000_000_000_000_000, InstallationKey: v1.InstallationKey,
				Data: v1.Data, HpkePublicKey: v1.HpkePublicKey, WrapperAlgorithm: algorithm, WelcomeMetadata: v1.WelcomeMetadata,
			}}
			if len(v1.InstallationKey) != 32 || len(v1.Data) == 0 || algorithm < 1 || algorithm > 3 || algorithm != 3 && len(v1.HpkePublicKey) == 0 {
				t.Errorf("taken: %v", v1)
			}
		}
		if diff := cmp.Diff(want, message, protocmp.Transform()); diff != "" {
			t.Errorf("(-sent +read):\n%s", diff)
		}
	})
}

// An orderKeeper takes records and keeps them.
type orderKeeper struct{ records []*order.Record }

func (o *orderKeeper) Append(_ context.Context, records ...*order.Record) ([]order.Outcome, error) {
	o.records = append(o.records, records...)
	return make([]order.Outcome, len(records)), nil
}

// What is taken for the commit log comes back from the store as it came; a batch
// is taken whole or not at all.
func FuzzCommitLog(f *testing.F) {
	entry := &mlsapi.PublishCommitLogRequest{
		GroupId: []byte("a group's 16 B !"), SerializedCommitLogEntry: []byte("entry"),
		Signature: &associations.RecoverableEd25519Signature{Bytes: []byte("signature"), PublicKey: []byte("key")},
	}
	for _, seed := range []*mlsapi.BatchPublishCommitLogRequest{
		{Requests: []*mlsapi.PublishCommitLogRequest{entry}},
		{Requests: []*mlsapi.PublishCommitLogRequest{entry, entry, {}}},
		{},
	} {
		b, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		req := &mlsapi.BatchPublishCommitLogRequest{}
		if proto.Unmarshal(request, req) != nil {
			return
		}
		keeper := &orderKeeper{}
		server := &mlsServer{Config: Config{Order: keeper}}
		if _, err := server.BatchPublishCommitLog(t.Context(), req); err != nil {
			wantInvalid(t, err)
			if len(keeper.records) != 0 {
				t.Errorf("%d records of a request that was refused", len(keeper.records))
			}
			return
		}
		if len(keeper.records) != len(req.Requests) || len(keeper.records) > maxCommitLogEntries {
			t.Fatalf("%d records of %d requests", len(keeper.records), len(req.Requests))
		}
		for i, record := range keeper.records {
			got, err := commitLogEntry(stored(t, record))
			if err != nil {
				t.Fatal(err)
			}
			want := &mlscontents.CommitLogEntry{
				SequenceId: 7, SerializedCommitLogEntry: req.Requests[i].SerializedCommitLogEntry, Signature: req.Requests[i].Signature,
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || record.ID != string(req.Requests[i].GroupId) {
				t.Errorf("entry %d (-sent +read):\n%s", i, diff)
			}
		}
	})
}

// What the store holds, even if it is not what this program wrote, is read or
// refused, without panic.
func FuzzStored(f *testing.F) {
	f.Add([]byte{1, 0, 1, 2}, []byte("payload"))
	f.Add([]byte{3, 1}, []byte{0x12, 2, 8, 1})
	f.Add([]byte{0, 2, 200, 200}, []byte{})
	f.Fuzz(func(t *testing.T, facts, payload []byte) {
		r := &order.Record{Topic: order.Topic{Kind: order.GroupMessage, ID: "topic"}, Number: 1, Time: 1, Facts: facts, Payload: payload}
		if m, err := groupMessage(r); err == nil && !bytes.Equal(m.GetV1().Data, payload) {
			t.Errorf("group message with %x", m.GetV1().Data)
		}
		if m, err := welcomeMessage(r); err == nil && m.GetVersion() == nil {
			t.Error("a welcome without version")
		}
		if m, err := commitLogEntry(r); err == nil && m.SequenceId != 1 {
			t.Errorf("an entry with number %d", m.SequenceId)
		}
	})
}
