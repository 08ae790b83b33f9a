package protocol

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

func signed(t testing.TB, e *CommitLogEntry, seed []byte) *mlscontents.CommitLogEntry {
	t.Helper()
	request, err := e.Sign(seed)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(request.GroupId, e.GroupID) {
		t.Errorf("published for group %x", request.GroupId)
	}
	return &mlscontents.CommitLogEntry{SequenceId: 1, SerializedCommitLogEntry: request.SerializedCommitLogEntry, Signature: request.Signature}
}

func TestCommitLogEntry(t *testing.T) {
	seed := bytes.Repeat([]byte{7}, 32)
	rapid.Check(t, func(r *rapid.T) {
		blob := func(name string) []byte {
			return rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(r, name)
		}
		want := &CommitLogEntry{
			GroupID: blob("group"), Number: rapid.Uint64().Draw(r, "number"), Before: blob("before"),
			Result: CommitResult(rapid.IntRange(1, 4).Draw(r, "result")),
			Epoch:  rapid.Uint64().Draw(r, "epoch"), Authenticator: blob("authenticator"),
		}
		entry := signed(t, want, seed)
		if !bytes.Equal(CommitLogSigner(entry), CommitLogKey(seed)) {
			r.Fatal("the signature is not valid")
		}
		got, err := ParseCommitLogEntry(entry.SerializedCommitLogEntry)
		if err != nil || !cmp.Equal(got, want) {
			r.Fatalf("%v\n%s", err, cmp.Diff(want, got))
		}
		bad := proto.CloneOf(entry)
		bad.SerializedCommitLogEntry[rapid.IntRange(0, len(bad.SerializedCommitLogEntry)-1).Draw(r, "at")] ^= 1
		if CommitLogSigner(bad) != nil {
			r.Fatal("changed and still valid")
		}
	})
}

func TestCommitLogSigners(t *testing.T) {
	entry := signed(t, &CommitLogEntry{Number: 1}, bytes.Repeat([]byte{7}, 32))
	other := CommitLogKey(bytes.Repeat([]byte{8}, 32))
	for name, signature := range map[string]*associations.RecoverableEd25519Signature{
		"none":          nil,
		"empty":         {},
		"another key":   {Bytes: entry.Signature.Bytes, PublicKey: other},
		"a short key":   {Bytes: entry.Signature.Bytes, PublicKey: other[:31]},
		"no signature":  {PublicKey: entry.Signature.PublicKey},
		"a longer one":  {Bytes: append(bytes.Clone(entry.Signature.Bytes), 0), PublicKey: entry.Signature.PublicKey},
		"a shorter one": {Bytes: entry.Signature.Bytes[:63], PublicKey: entry.Signature.PublicKey},
	} {
		if CommitLogSigner(&mlscontents.CommitLogEntry{SerializedCommitLogEntry: entry.SerializedCommitLogEntry, Signature: signature}) != nil {
			t.Errorf("%s: valid", name)
		}
	}
	if _, err := (&CommitLogEntry{}).Sign(make([]byte, 31)); err == nil {
		t.Error("signed with a short seed")
	}
}

func TestCommitLogFollows(t *testing.T) {
	a, b, c := []byte("a"), []byte("b"), []byte("c")
	last := &CommitLogEntry{Number: 10, Result: CommitApplied, Epoch: 5, Before: a, Authenticator: b}
	for name, test := range map[string]struct {
		entry CommitLogEntry
		last  *CommitLogEntry
		want  bool
	}{
		"the first one":              {CommitLogEntry{Number: 1, Result: CommitInvalid, Epoch: 9}, nil, true},
		"no commit":                  {CommitLogEntry{Result: CommitApplied}, nil, false},
		"a number that can't be":     {CommitLogEntry{Number: 1 << 63}, nil, false},
		"an epoch that can't be":     {CommitLogEntry{Number: 1, Epoch: 1 << 63}, nil, false},
		"the next epoch":             {CommitLogEntry{Number: 11, Result: CommitApplied, Epoch: 6, Before: b, Authenticator: c}, last, true},
		"the same commit":            {CommitLogEntry{Number: 10, Result: CommitApplied, Epoch: 6, Before: b, Authenticator: c}, last, false},
		"an earlier commit":          {CommitLogEntry{Number: 9, Result: CommitApplied, Epoch: 6, Before: b, Authenticator: c}, last, false},
		"after something else":       {CommitLogEntry{Number: 11, Result: CommitApplied, Epoch: 6, Before: c, Authenticator: c}, last, false},
		"after nothing known":        {CommitLogEntry{Number: 11, Result: CommitApplied, Epoch: 6, Before: c, Authenticator: c}, &CommitLogEntry{Number: 10, Epoch: 5}, true},
		"an epoch left out":          {CommitLogEntry{Number: 11, Result: CommitApplied, Epoch: 7, Before: b, Authenticator: c}, last, false},
		"not applied":                {CommitLogEntry{Number: 11, Result: CommitWrongEpoch, Epoch: 5, Before: b, Authenticator: b}, last, true},
		"not applied, another epoch": {CommitLogEntry{Number: 11, Result: CommitInvalid, Epoch: 6, Before: b, Authenticator: b}, last, false},
		"not applied, another state": {CommitLogEntry{Number: 11, Result: CommitUndecryptable, Epoch: 5, Before: b, Authenticator: c}, last, false},
	} {
		if got := test.entry.Follows(test.last); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

var commitLogFile = load[[]struct {
	ID        number
	GroupID   hexBytes `json:"group_id"`
	Entry     hexBytes
	Signature hexBytes
}]("captures/commit-log.json")

// What official clients have published is signed, is written as we write it, and
// agrees with what each of them has noted for itself.
func TestCapturedCommitLog(t *testing.T) {
	type position struct {
		group  string
		number uint64
	}
	taken := map[position]*CommitLogEntry{}
	last, signer := map[string]*CommitLogEntry{}, map[string][]byte{}
	for _, row := range commitLogFile() {
		entry := &mlscontents.CommitLogEntry{SequenceId: uint64(row.ID), SerializedCommitLogEntry: row.Entry, Signature: &associations.RecoverableEd25519Signature{}}
		if err := proto.Unmarshal(row.Signature, entry.Signature); err != nil {
			t.Fatal(err)
		}
		key := CommitLogSigner(entry)
		e, err := ParseCommitLogEntry(row.Entry)
		if key == nil || err != nil || !bytes.Equal(e.GroupID, row.GroupID) {
			t.Fatalf("entry %d: signer %x, %v, %+v", row.ID, key, err, e)
		}
		if again := signed(t, e, make([]byte, 32)).SerializedCommitLogEntry; !bytes.Equal(again, row.Entry) {
			t.Errorf("entry %d is %x, we write %x", row.ID, row.Entry, again)
		}
		group := string(row.GroupID)
		if signer[group] == nil {
			signer[group] = key
		}
		if !bytes.Equal(signer[group], key) || !e.Follows(last[group]) {
			continue
		}
		last[group] = e
		taken[position{group, e.Number}] = e
	}
	compared := 0
	for name, client := range clientsFile() {
		for _, row := range client.CommitLog {
			e := taken[position{string(row.GroupID), uint64(row.CommitSequenceID)}]
			removal := row.CommitResult == 1 && bytes.Equal(row.LastEpochAuthenticator, row.AppliedEpochAuthenticator)
			if e == nil || removal {
				continue
			}
			compared++
			if uint64(row.CommitResult) != uint64(e.Result) || uint64(row.AppliedEpochNumber) != e.Epoch || !bytes.Equal(row.AppliedEpochAuthenticator, e.Authenticator) {
				t.Errorf("%s has noted %+v, the log says %+v", name, row, e)
			}
		}
	}
	t.Logf("%d entries, %d are taken, compared %d times", len(commitLogFile()), len(taken), compared)
	if len(taken) < 20 || compared < 2*len(taken) {
		t.Error("too few for a proof")
	}
}

func FuzzCommitLogEntry(f *testing.F) {
	entry, err := (&CommitLogEntry{GroupID: make([]byte, 16), Number: 3, Before: make([]byte, 32), Result: CommitApplied, Epoch: 2, Authenticator: make([]byte, 32)}).Sign(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(entry.SerializedCommitLogEntry)
	f.Add([]byte{})
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseCommitLogEntry(b)
		if err != nil {
			return
		}
		again, err := e.Sign(make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseCommitLogEntry(again.SerializedCommitLogEntry); err != nil || !cmp.Equal(got, e) {
			t.Errorf("%v\n%s", err, cmp.Diff(e, got))
		}
	})
}
