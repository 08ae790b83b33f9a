package identity

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/contents"
)

// vectors is testdata/identity.json: values made or judged by the official
// client.
type vectors struct {
	InboxIDs struct {
		Cases []struct {
			Kind, Identifier string
			Nonce            *string
			InboxID          string `json:"inbox_id"`
			Error            string
		}
	} `json:"inbox_ids"`
	PublicSignatures struct {
		Cases []struct {
			Origin, Seed, Message, Signature string
			PublicKey                        string `json:"public_key"`
			Valid                            bool
			Error                            string
		}
	} `json:"installation_public_context_signatures"`
	Lifecycle struct {
		Steps []struct {
			Name        string
			Text        string `json:"signature_text"`
			TimestampNS string `json:"client_timestamp_ns"`
			Update      string `json:"identity_update_proto_hex"`
			StateAfter  struct {
				InboxID       string `json:"inbox_id"`
				Recovery      string `json:"recovery_identifier"`
				RecoveryKind  int    `json:"recovery_kind"`
				Identifiers   []string
				Installations []installationVector
			} `json:"state_after"`
		}
	}
	StaticRevoke struct{ Text string } `json:"static_revoke_request"`
	ContractReqs struct {
		Requests []contractRequest
	} `json:"scw_verify_requests"`
	Associations struct{ Cases []associationCase } `json:"association_cases"`
	KeyPackages  struct {
		Uploaded []struct {
			KeyPackage string         `json:"key_package_hex"`
			Decoded    map[string]any `json:"decoded"`
		}
		Verdicts map[string]struct {
			ValidationError string
			Lifetime        *struct{ NotBefore, NotAfter string }
		}
	} `json:"key_packages"`
	ClientErrors map[string]string `json:"client_errors"`
	Reference    struct {
		Text struct {
			InboxID     string `json:"inbox_id"`
			TimestampNS string `json:"client_timestamp_ns"`
			Actions     []struct{ Op, Kind, Value, Nonce string }
			Text        string
		} `json:"signature_text"`
		Address struct {
			PrivateKey string `json:"private_key"`
			Address    string
		} `json:"eth_address"`
		Legacy struct {
			Proto   string `json:"proto_hex"`
			Address string `json:"account_address"`
		} `json:"legacy_signed_public_key"`
		AccountIDsValid   []string `json:"account_ids_valid"`
		AccountIDsInvalid []string `json:"account_ids_invalid"`
	} `json:"reference_test_assertions"`
}

type installationVector struct {
	ID          string
	TimestampNS string `json:"client_timestamp_ns"`
}

type identifierVector struct{ Kind, Value string }

type contractRequest struct {
	AccountID string  `json:"account_id"`
	Block     *string `json:"block_number"`
	Signature string  `json:"signature_hex"`
	Hash      string  `json:"hash_hex"`
}

type associationCase struct {
	Name    string
	InboxID string `json:"inbox_id"`
	Updates []struct {
		Text   string `json:"signature_text"`
		Update string `json:"identity_update_proto_hex"`
	}
	Expect struct {
		OK    bool
		Error string
		State struct {
			InboxID       string           `json:"inbox_id"`
			Recovery      identifierVector `json:"recovery_identifier"`
			Identifiers   []identifierVector
			Installations []installationVector
		}
	}
	ContractReqs []contractRequest `json:"scw_requests_sent_by_client"`
}

var loadVectors = sync.OnceValues(func() (*vectors, error) {
	b, err := os.ReadFile("testdata/identity.json")
	if err != nil {
		return nil, err
	}
	var v vectors
	return &v, json.Unmarshal(b, &v)
})

func testVectors(tb testing.TB) *vectors {
	tb.Helper()
	v, err := loadVectors()
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func fromHex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func parseUpdate(tb testing.TB, s string) *associations.IdentityUpdate {
	tb.Helper()
	var u associations.IdentityUpdate
	if err := proto.Unmarshal(fromHex(tb, s), &u); err != nil {
		tb.Fatal(err)
	}
	return &u
}

func parseUint(tb testing.TB, s string) uint64 {
	tb.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// chain is a ContractVerifier that answers always the same and keeps the
// questions.
type chain struct {
	valid  bool
	block  uint64
	err    error
	asked  []contractRequest
	onCall func()
}

func (c *chain) VerifyContractSignature(_ context.Context, accountID string, hash [32]byte, signature []byte, block *uint64) (bool, uint64, error) {
	if c.onCall != nil {
		c.onCall()
	}
	q := contractRequest{AccountID: accountID, Signature: hex.EncodeToString(signature), Hash: hex.EncodeToString(hash[:])}
	answer := c.block
	if block != nil {
		s := strconv.FormatUint(*block, 10)
		q.Block, answer = &s, *block
	}
	c.asked = append(c.asked, q)
	return c.valid, answer, c.err
}

// stripCode removes the "[Enum::Variant] " before texts of the official
// bindings.
func stripCode(s string) (code, text string) {
	code, text, _ = strings.Cut(strings.TrimPrefix(s, "["), "] ")
	return code, text
}

func TestInboxIDVectors(t *testing.T) {
	cases := testVectors(t).InboxIDs.Cases
	if len(cases) != 65 {
		t.Fatalf("%d cases, want 65", len(cases))
	}
	for _, c := range cases {
		nonce := uint64(DefaultNonce)
		if c.Nonce != nil {
			nonce = parseUint(t, *c.Nonce)
		}
		t.Run(fmt.Sprintf("%s %q %d", c.Kind, c.Identifier, nonce), func(t *testing.T) {
			parse := ParseAddress
			if c.Kind == "passkey" {
				parse = ParsePasskey
			}
			id, err := parse(c.Identifier)
			var got string
			if err == nil {
				got, err = DeriveInboxID(id, nonce)
			}
			if c.Error != "" {
				code, text := stripCode(c.Error)
				if err == nil || err.Error() != text || ErrorCode(err) != code {
					t.Fatalf("got %q, %v (%s), want error %q (%s)", got, err, ErrorCode(err), text, code)
				}
				return
			}
			if err != nil || got != c.InboxID {
				t.Fatalf("got %q, %v, want %q", got, err, c.InboxID)
			}
			if err := CheckInboxID(got); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPublicSignatureVectors(t *testing.T) {
	cases := testVectors(t).PublicSignatures.Cases
	if len(cases) != 14 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Origin+"/"+c.Message, func(t *testing.T) {
			sig := fromHex(t, c.Signature)
			err := VerifyPublic(fromHex(t, c.PublicKey), c.Message, sig)
			if c.Valid {
				if err != nil {
					t.Fatal(err)
				}
			} else if code, text := stripCode(c.Error); err == nil || err.Error() != text || ErrorCode(err) != code {
				t.Fatalf("got %v (%s), want %q (%s)", err, ErrorCode(err), text, code)
			}
			if c.Seed != "" {
				key := ed25519.NewKeyFromSeed(fromHex(t, c.Seed))
				if got := SignPublic(key, c.Message); !slices.Equal(got, sig) {
					t.Errorf("signed %x, want %x", got, sig)
				}
			}
		})
	}
}

func TestLifecycleVectors(t *testing.T) {
	steps := testVectors(t).Lifecycle.Steps
	if len(steps) != 10 {
		t.Fatalf("%d steps, want 10", len(steps))
	}
	cv := &chain{valid: true}
	var state *State
	for _, step := range steps {
		u := parseUpdate(t, step.Update)
		if u.GetClientTimestampNs() != parseUint(t, step.TimestampNS) {
			t.Errorf("%s: timestamp %d", step.Name, u.GetClientTimestampNs())
		}
		if text, err := SignatureText(u); err != nil || text != step.Text {
			t.Errorf("%s: text %q, %v, want %q", step.Name, text, err, step.Text)
		}
		if err := CheckPublishable(u); err != nil {
			t.Errorf("%s: %v", step.Name, err)
		}
		v, err := Verify(t.Context(), u, cv)
		if err != nil {
			t.Fatalf("%s: %v", step.Name, err)
		}
		if state, err = state.Apply(v); err != nil {
			t.Fatalf("%s: %v", step.Name, err)
		}
		want := step.StateAfter
		if state.InboxID() != want.InboxID {
			t.Errorf("%s: inbox id %s, want %s", step.Name, state.InboxID(), want.InboxID)
		}
		wantKind := []Kind{KindEthereum, KindPasskey}[want.RecoveryKind]
		if r := state.Recovery(); r.String() != want.Recovery || r.Kind() != wantKind {
			t.Errorf("%s: recovery %v %v, want %v %v", step.Name, r.Kind(), r, wantKind, want.Recovery)
		}
		var identifiers []string
		for _, id := range identifiersOf(state) {
			identifiers = append(identifiers, id.Value)
		}
		slices.Sort(identifiers)
		slices.Sort(want.Identifiers)
		if d := cmp.Diff(want.Identifiers, identifiers); d != "" {
			t.Errorf("%s: identifiers (-want +got):\n%s", step.Name, d)
		}
		slices.SortFunc(want.Installations, compareInstallations)
		if d := cmp.Diff(want.Installations, installationsOf(state)); d != "" {
			t.Errorf("%s: installations (-want +got):\n%s", step.Name, d)
		}
	}
	// The last step links a contract wallet. The official client asked without
	// a block, then twice with the one of the answer.
	requests := testVectors(t).ContractReqs.Requests
	if d := cmp.Diff(requests[1:2], cv.asked); d != "" {
		t.Errorf("asked the chain (-want +got):\n%s", d)
	}
}

func identifiersOf(s *State) []identifierVector {
	var ids []identifierVector
	for _, m := range s.Members() {
		if m.Identifier.Kind() != KindInstallation {
			ids = append(ids, identifierVector{m.Identifier.Kind().String(), m.Identifier.String()})
		}
	}
	slices.SortFunc(ids, compareIdentifiers)
	return ids
}

func installationsOf(s *State) []installationVector {
	var ids []installationVector
	for _, m := range s.Members() {
		if m.Identifier.Kind() == KindInstallation {
			ids = append(ids, installationVector{m.Identifier.String(), strconv.FormatUint(m.TimestampNS, 10)})
		}
	}
	slices.SortFunc(ids, compareInstallations)
	return ids
}

func compareIdentifiers(a, b identifierVector) int     { return strings.Compare(a.Value, b.Value) }
func compareInstallations(a, b installationVector) int { return strings.Compare(a.ID, b.ID) }

// clientPrefixes are what the official client puts before the texts of errors.
var clientPrefixes = []string{
	"[ClientError::Association] Association error: ",
	"[ClientError::SignatureValidation] signature validation error: ",
	"[ClientError::Api] API error: api client error ",
}

func TestAssociationVectors(t *testing.T) {
	cases := testVectors(t).Associations.Cases
	accepted := 0
	for _, c := range cases {
		if c.Expect.OK {
			accepted++
		}
		t.Run(c.Name, func(t *testing.T) { testAssociationCase(t, c) })
	}
	if len(cases) != 151 || accepted != 73 {
		t.Errorf("%d cases, %d accepted, want 151 and 73", len(cases), accepted)
	}
}

func testAssociationCase(t *testing.T, c associationCase) {
	cv := &chain{valid: c.Name != "scw_node_says_invalid"}
	var log []*associations.IdentityUpdate
	for i, update := range c.Updates {
		u := parseUpdate(t, update.Update)
		log = append(log, u)
		// These sign a text of another time on purpose.
		if strings.HasPrefix(c.Name, "timestamp_changed") {
			continue
		}
		if text, err := SignatureText(u); err == nil && text != update.Text {
			t.Errorf("update %d: text %q, want %q", i, text, update.Text)
		}
	}
	state, err := Replay(t.Context(), log, cv)

	// The same log, verified, stored and folded.
	stored, storedErr := foldStored(t, log, &chain{valid: cv.valid})
	if fmt.Sprint(err) != fmt.Sprint(storedErr) {
		t.Errorf("replayed %v, folded from storage %v", err, storedErr)
	}

	checkContractRequests(t, c, cv.asked)
	if !c.Expect.OK {
		if err == nil {
			t.Fatalf("accepted, want %s", c.Expect.Error)
		}
		want := c.Expect.Error
		for _, prefix := range clientPrefixes {
			want = strings.TrimPrefix(want, prefix)
		}
		if err.Error() != want {
			t.Errorf("got error %q, want %q", err, want)
		}
		if _, variant, ok := strings.Cut(ErrorCode(err), "::"); !ok || variant == "" {
			t.Errorf("code %q of %v", ErrorCode(err), err)
		}
		if errors.Is(err, ErrVerifierUnavailable) {
			t.Errorf("%v is no verdict", err)
		}
		return
	}
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	want := c.Expect.State
	if state.InboxID() != want.InboxID {
		t.Errorf("inbox id %s, want %s", state.InboxID(), want.InboxID)
	}
	if r := state.Recovery(); r.Kind().String() != want.Recovery.Kind || r.String() != want.Recovery.Value {
		t.Errorf("recovery %v %v, want %v", r.Kind(), r, want.Recovery)
	}
	slices.SortFunc(want.Identifiers, compareIdentifiers)
	slices.SortFunc(want.Installations, compareInstallations)
	if d := cmp.Diff(append([]identifierVector(nil), want.Identifiers...), identifiersOf(state)); d != "" {
		t.Errorf("identifiers (-want +got):\n%s", d)
	}
	if d := cmp.Diff(append([]installationVector(nil), want.Installations...), installationsOf(state)); d != "" {
		t.Errorf("installations (-want +got):\n%s", d)
	}
	if !proto.Equal(state.Proto(), stored.Proto()) {
		t.Errorf("replayed %v, folded from storage %v", state.Proto(), stored.Proto())
	}
	_, err = ReplayInbox(t.Context(), c.InboxID, log, cv)
	if foreign := c.Name == "log_of_other_inbox_served"; errors.Is(err, ErrForeignLog) != foreign {
		t.Errorf("as log of %s: %v", c.InboxID, err)
	}
}

// foldStored folds a log, sending every update and every state through its
// encoding.
func foldStored(t *testing.T, log []*associations.IdentityUpdate, cv ContractVerifier) (*State, error) {
	t.Helper()
	var state *State
	for _, u := range log {
		v, err := Verify(t.Context(), u, cv)
		if err != nil {
			return nil, err
		}
		b, err := v.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		v, err = UnmarshalVerifiedUpdate(b)
		if err != nil {
			t.Fatal(err)
		}
		if state, err = state.Apply(v); err != nil {
			return nil, err
		}
		if b, err = state.MarshalBinary(); err != nil {
			t.Fatal(err)
		}
		if state, err = UnmarshalState(b); err != nil {
			t.Fatal(err)
		}
	}
	return state, nil
}

// checkContractRequests compares the questions to the chain with those of the
// official client. It asks for equal signatures again and again; and it asks
// about accounts that are none of Ethereum, which here are refused before.
func checkContractRequests(t *testing.T, c associationCase, asked []contractRequest) {
	t.Helper()
	if c.Name == "scw_non_evm_chain" || c.Name == "scw_chain_id_not_u64" {
		c.ContractReqs = nil
	}
	key := func(r contractRequest) string {
		return strings.Join([]string{r.AccountID, *r.Block, r.Signature, r.Hash}, " ")
	}
	set := func(requests []contractRequest) []string {
		var keys []string
		for _, r := range requests {
			keys = append(keys, key(r))
		}
		slices.Sort(keys)
		return slices.Compact(keys)
	}
	if d := cmp.Diff(set(c.ContractReqs), set(asked)); d != "" {
		t.Errorf("asked the chain (-want +got):\n%s", d)
	}
}

func TestReferenceAssertions(t *testing.T) {
	ref := testVectors(t).Reference
	t.Run("signature text", func(t *testing.T) {
		var actions []action
		for _, a := range ref.Text.Actions {
			id := Identifier{KindEthereum, a.Value}
			if a.Kind == "installation" {
				id = Installation(fromHex(t, a.Value))
			}
			op := map[string]op{"create": opCreate, "add": opAdd, "revoke": opRevoke, "change_recovery": opChangeRecovery}[a.Op]
			actions = append(actions, action{op: op, target: id})
		}
		got := signatureText(ref.Text.InboxID, parseUint(t, ref.Text.TimestampNS), actions)
		if got != ref.Text.Text {
			t.Errorf("got %q, want %q", got, ref.Text.Text)
		}
	})
	t.Run("address", func(t *testing.T) {
		key, err := ParseWalletKey(fromHex(t, ref.Address.PrivateKey))
		if err != nil || key.Identifier().String() != ref.Address.Address {
			t.Errorf("got %v, %v, want %s", key.Identifier(), err, ref.Address.Address)
		}
	})
	t.Run("legacy key", func(t *testing.T) {
		var key contents.SignedPublicKey
		if err := proto.Unmarshal(fromHex(t, ref.Legacy.Proto), &key); err != nil {
			t.Fatal(err)
		}
		compact := key.GetSignature().GetWalletEcdsaCompact()
		if compact == nil {
			t.Fatalf("signature %v", key.GetSignature())
		}
		id, _, err := recoverECDSA(TextDigest(legacyText(key.GetKeyBytes())), compactSignature(compact.GetBytes(), compact.GetRecovery()))
		if err != nil || id.String() != ref.Legacy.Address {
			t.Errorf("got %v, %v, want %s", id, err, ref.Legacy.Address)
		}
	})
	t.Run("account ids", func(t *testing.T) {
		for _, s := range ref.AccountIDsValid {
			if _, _, err := splitAccountID(s); err != nil {
				t.Errorf("%s: %v", s, err)
			}
		}
		for _, s := range ref.AccountIDsInvalid {
			if _, _, err := splitAccountID(s); !errors.Is(err, ErrInvalidValue) && !errors.Is(err, ErrInvalidLength) {
				t.Errorf("%s: %v", s, err)
			}
		}
	})
}
