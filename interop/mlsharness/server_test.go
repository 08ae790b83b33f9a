package mlsharness

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/go-xmtp/go-xmtp/interop/mlsharness/gen/mlsclient"
)

func TestServerRefuses(t *testing.T) {
	rpc := ours(t).rpc
	group, err := rpc.CreateGroup(t.Context(), &pb.CreateGroupRequest{GroupId: []byte("g"), CipherSuite: 1, Identity: []byte("alice")})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what string
		call func() error
		want codes.Code
	}{
		{"a state that is not there", func() error {
			_, err := rpc.StateAuth(t.Context(), &pb.StateAuthRequest{StateId: 99})
			return err
		}, codes.NotFound},
		{"a group that waits for no welcome", func() error {
			_, err := rpc.JoinGroup(t.Context(), &pb.JoinGroupRequest{TransactionId: group.StateId})
			return err
		}, codes.NotFound},
		{"an unknown suite", func() error {
			_, err := rpc.CreateKeyPackage(t.Context(), &pb.CreateKeyPackageRequest{CipherSuite: 1 << 16})
			return err
		}, codes.FailedPrecondition},
		{"no key package", func() error {
			_, err := rpc.AddProposal(t.Context(), &pb.AddProposalRequest{StateId: group.StateId, KeyPackage: []byte{0, 1}})
			return err
		}, codes.InvalidArgument},
		{"a stranger's removal", func() error {
			_, err := rpc.RemoveProposal(t.Context(), &pb.RemoveProposalRequest{StateId: group.StateId, RemovedId: []byte("bob")})
			return err
		}, codes.InvalidArgument},
		{"no commit to merge", func() error {
			_, err := rpc.HandlePendingCommit(t.Context(), &pb.HandlePendingCommitRequest{StateId: group.StateId})
			return err
		}, codes.FailedPrecondition},
	} {
		if got := status.Code(tc.call()); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.what, got, tc.want)
		}
	}
}

// TestRunnerSees checks that members who don't agree don't pass.
func TestRunnerSees(t *testing.T) {
	a, b := ours(t), ours(t)
	strays := Scenario{Name: "strays", Actors: pair, play: func(s *session) {
		s.create("alice", "bob")
		// Alice goes on alone.
		s.seats["alice"].state = call(s, "alice", pb.MLSClientClient.CreateGroup, "CreateGroup", &pb.CreateGroupRequest{
			GroupId: s.groupID, CipherSuite: uint32(s.suite), Identity: []byte("alice"),
		}).StateId
		s.agree()
	}}
	err := strays.Play(t.Context(), a, b, Setup{Suite: 3, Seating: FirstBegins})
	if step := new(StepError); !errors.As(err, &step) || !strings.Contains(step.Step, "exported secret") {
		t.Errorf("different groups: %v", err)
	}

	var table strings.Builder
	results := []Result{
		{"good", Setup{Suite: 1}, nil}, {"good", Setup{Suite: 3}, nil}, {"strays", Setup{Suite: 3}, err}, {"strays", Setup{Suite: 3}, nil},
	}
	if err := WriteTable(&table, results); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"| scenario | 1 | 3 |", "| good | ok | ok |", "| strays | | 1 of 2 |", "- strays: fails, bob: exported secret: differs (go-xmtp)"} {
		if !strings.Contains(table.String(), line+"\n") {
			t.Errorf("the table has no line %q:\n%s", line, &table)
		}
	}
}

func FuzzUnvector(f *testing.F) {
	f.Add([]byte{0})
	f.Add(vector(make([]byte, 63)))
	f.Add(vector(make([]byte, 64)))
	f.Add(vector(make([]byte, 1<<14)))
	f.Add([]byte{0x40, 1, 7})
	f.Fuzz(func(t *testing.T, data []byte) {
		elements, err := unvector(data)
		if err == nil && !bytes.Equal(vector(elements), data) {
			t.Errorf("%x is read as %x", data, elements)
		}
	})
}
