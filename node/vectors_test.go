package node_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// readJSON reads a recording into out.
func readJSON(t testing.TB, name string, out any) {
	t.Helper()
	b := must(os.ReadFile(filepath.FromSlash(name)))(t)
	if err := json.Unmarshal(b, out); err != nil {
		t.Fatal(name, err)
	}
}

// What official clients 1.10 and 1.2 published on the reference node is taken,
// and comes back as the reference node served it.
func TestRecordedScene(t *testing.T) {
	t.Parallel()
	var scene struct {
		RecordedNS    string `json:"recorded_ns"`
		GroupMessages []struct {
			GroupID    []byte `json:"group_id"`
			IsCommit   bool   `json:"is_commit"`
			ShouldPush bool   `json:"should_push"`
			SenderHMAC []byte `json:"sender_hmac"`
			Data       []byte `json:"data"`
		} `json:"group_messages"`
		Welcomes []struct {
			InstallationKey []byte `json:"installation_key"`
			Pointer         bool   `json:"pointer"`
			Algorithm       int32  `json:"algorithm"`
			Data            []byte `json:"data"`
			HPKEPublicKey   []byte `json:"hpke_public_key"`
			WelcomeMetadata []byte `json:"welcome_metadata"`
		} `json:"welcomes"`
		KeyPackages []struct {
			InstallationKey []byte `json:"installation_key"`
			KeyPackage      []byte `json:"key_package"`
		} `json:"key_packages"`
		IdentityUpdates []struct {
			InboxID string `json:"inbox_id"`
			Update  []byte `json:"update"`
		} `json:"identity_updates"`
		CommitLog []struct {
			GroupID   []byte `json:"group_id"`
			Entry     []byte `json:"entry"`
			Signature []byte `json:"signature"`
		} `json:"commit_log"`
	}
	readJSON(t, "testdata/scene.json", &scene)
	recorded := time.Unix(0, must(strconv.ParseInt(scene.RecordedNS, 10, 64))(t))
	c, ctx := dial(t, start(t, node.Options{Now: func() time.Time { return recorded }})), short(t)

	seen := map[string]int{}
	for i, m := range scene.GroupMessages {
		input := groupInput(m.Data)
		input.GetV1().SenderHmac, input.GetV1().ShouldPush = m.SenderHMAC, m.ShouldPush
		must(c.mls.SendGroupMessages(ctx, &mlsapi.SendGroupMessagesRequest{Messages: []*mlsapi.GroupMessageInput{input}}))(t)
		res := must(c.mls.QueryGroupMessages(ctx, &mlsapi.QueryGroupMessagesRequest{GroupId: m.GroupID}))(t)
		seen[string(m.GroupID)]++
		if len(res.Messages) != seen[string(m.GroupID)] {
			t.Fatalf("row %d: %d messages of its group, want %d", i+1, len(res.Messages), seen[string(m.GroupID)])
		}
		got := res.Messages[0].GetV1()
		if !bytes.Equal(got.GroupId, m.GroupID) || got.IsCommit != m.IsCommit || got.ShouldPush != m.ShouldPush ||
			!bytes.Equal(got.SenderHmac, m.SenderHMAC) || !bytes.Equal(got.Data, m.Data) {
			t.Errorf("row %d: commit %v, push %v, HMAC %x", i+1, got.IsCommit, got.ShouldPush, got.SenderHmac)
		}
	}
	for i, w := range scene.Welcomes {
		input := &mlsapi.WelcomeMessageInput{Version: &mlsapi.WelcomeMessageInput_V1_{V1: &mlsapi.WelcomeMessageInput_V1{
			InstallationKey: w.InstallationKey, Data: w.Data, HpkePublicKey: w.HPKEPublicKey,
			WrapperAlgorithm: mlscontents.WelcomeWrapperAlgorithm(w.Algorithm), WelcomeMetadata: w.WelcomeMetadata,
		}}}
		if w.Pointer {
			input = &mlsapi.WelcomeMessageInput{Version: &mlsapi.WelcomeMessageInput_WelcomePointer_{WelcomePointer: &mlsapi.WelcomeMessageInput_WelcomePointer{
				InstallationKey: w.InstallationKey, WelcomePointer: w.Data, HpkePublicKey: w.HPKEPublicKey,
				WrapperAlgorithm: mlscontents.WelcomePointerWrapperAlgorithm(w.Algorithm),
			}}}
		}
		must(c.mls.SendWelcomeMessages(ctx, welcomeRequest(input)))(t)
		page, _, err := welcomeLog.page(ctx, c, w.InstallationKey, nil)
		if err != nil || len(page) == 0 || page[0].data != string(w.Data) {
			t.Errorf("welcome %d: %d welcomes, %v", i, len(page), err)
		}
	}
	for _, k := range scene.KeyPackages {
		must(c.mls.UploadKeyPackage(ctx, uploadRequest(k.KeyPackage)))(t)
		c.wantFetched(t, [][]byte{k.InstallationKey}, k.KeyPackage)
	}
	logs := map[string][]*associations.IdentityUpdate{}
	for _, u := range scene.IdentityUpdates {
		update := &associations.IdentityUpdate{}
		if err := proto.Unmarshal(u.Update, update); err != nil {
			t.Fatal(err)
		}
		must(c.publish(ctx, update))(t)
		logs[u.InboxID] = append(logs[u.InboxID], update)
		c.wantUpdates(ctx, t, u.InboxID, logs[u.InboxID]...)
	}
	for _, e := range scene.CommitLog {
		signature := &associations.RecoverableEd25519Signature{}
		if err := proto.Unmarshal(e.Signature, signature); err != nil {
			t.Fatal(err)
		}
		must(c.mls.BatchPublishCommitLog(ctx, logRequest(&mlsapi.PublishCommitLogRequest{
			GroupId: e.GroupID, SerializedCommitLogEntry: e.Entry, Signature: signature,
		})))(t)
	}
}

// wallets answers for contract wallets as the recorded cases suppose.
type wallets struct{ valid bool }

func (w wallets) VerifyContractSignature(context.Context, string, [32]byte, []byte, *uint64) (bool, uint64, error) {
	return w.valid, 1, nil
}

// otherwise are the recorded logs on which the node differs from official
// clients, with whether it takes them: it takes no recovery address that could
// never sign, and a client that sends its newest update again hears that it is there.
var otherwise = map[string]bool{
	"recovery_mixed_case_accepted":     false,
	"recovery_garbage_string_accepted": false,
	"replay_same_update":               true,
}

// Every recorded identity log is accepted or refused by the node as by the
// official client, and what the node has then is a good log.
func TestRecordedIdentityLogs(t *testing.T) {
	t.Parallel()
	var file struct {
		Logs struct {
			Cases []struct {
				Name    string `json:"name"`
				InboxID string `json:"inbox_id"`
				Updates []struct {
					Hex string `json:"identity_update_proto_hex"`
				} `json:"updates"`
				Expect struct {
					OK bool `json:"ok"`
				} `json:"expect"`
			} `json:"cases"`
		} `json:"association_cases"`
	}
	readJSON(t, "../identity/testdata/identity.json", &file)
	if len(file.Logs.Cases) != 151 {
		t.Fatalf("%d logs, want 151", len(file.Logs.Cases))
	}
	for _, tc := range file.Logs.Cases {
		t.Run(tc.Name, func(t *testing.T) {
			verifier := wallets{valid: tc.Name != "scw_node_says_invalid"}
			c, ctx := dial(t, start(t, node.Options{ContractVerifier: verifier})), short(t)
			accepted := true
			for _, u := range tc.Updates {
				update := &associations.IdentityUpdate{}
				if err := proto.Unmarshal(must(hex.DecodeString(u.Hex))(t), update); err != nil {
					// A reader refuses the log; the node can't be asked at all.
					accepted = false
					break
				}
				if _, err := c.publish(ctx, update); err != nil {
					wantCode(t, err, codes.InvalidArgument)
					accepted = false
					break
				}
			}
			want := tc.Expect.OK
			if ours, ok := otherwise[tc.Name]; ok {
				want = ours
			}
			if accepted != want {
				t.Errorf("accepted: %v, want %v", accepted, want)
			}
			log := []*associations.IdentityUpdate{}
			for _, entry := range c.updates(ctx, t, tc.InboxID, 0) {
				log = append(log, entry.Update)
			}
			if len(log) == 0 {
				return
			}
			if _, err := identity.ReplayInbox(ctx, tc.InboxID, log, verifier); err != nil {
				t.Errorf("the node's log of %d updates: %v", len(log), err)
			}
		})
	}
}

// The ten updates of an official client's inbox are taken in their order, and in
// no other.
func TestRecordedLifecycle(t *testing.T) {
	t.Parallel()
	var file struct {
		Lifecycle struct {
			Steps []struct {
				Name string `json:"name"`
				Hex  string `json:"identity_update_proto_hex"`
			} `json:"steps"`
		} `json:"lifecycle"`
	}
	readJSON(t, "../identity/testdata/identity.json", &file)
	var log []*associations.IdentityUpdate
	for _, step := range file.Lifecycle.Steps {
		update := &associations.IdentityUpdate{}
		if err := proto.Unmarshal(must(hex.DecodeString(step.Hex))(t), update); err != nil {
			t.Fatal(err)
		}
		log = append(log, update)
	}
	// The log has a contract wallet's signatures.
	options := node.Options{ContractVerifier: wallets{valid: true}}
	c, ctx := dial(t, start(t, options)), short(t)
	inbox := log[0].InboxId
	for i, update := range log {
		must(c.publish(ctx, update))(t)
		c.wantUpdates(ctx, t, inbox, log[:i+1]...)
	}

	// Whatever the order in which they come, and come again: the node's log is
	// what a fold of the accepted ones gives.
	for seed := range scaled(5, 500) {
		c := dial(t, start(t, options))
		var want []*associations.IdentityUpdate
		state := (*identity.State)(nil)
		for round := range 2 {
			for _, i := range permutation(len(log), seed, round) {
				verified := must(identity.Verify(ctx, log[i], options.ContractVerifier))(t)
				next, applyErr := state.Apply(verified)
				again := len(want) > 0 && want[len(want)-1] == log[i]
				_, err := c.publish(ctx, log[i])
				if (err == nil) != (applyErr == nil || again) {
					t.Fatalf("update %d after %d others: %v, want %v", i, len(want), err, applyErr)
				}
				if applyErr == nil && !again {
					state, want = next, append(want, log[i])
				}
			}
		}
		c.wantUpdates(ctx, t, inbox, want...)
	}
}

// permutation is an order of n things that depends on the seeds only.
func permutation(n int, seeds ...int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	for i := range order {
		sum := sha256.Sum256(fmt.Append(nil, seeds, i))
		j := i + int(sum[0])%(n-i)
		order[i], order[j] = order[j], order[i]
	}
	return order
}
