package identity

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// addUpdates seeds f with all updates of the vectors.
func addUpdates(f *testing.F, add func([]byte)) {
	f.Helper()
	v := testVectors(f)
	for _, step := range v.Lifecycle.Steps {
		add(fromHex(f, step.Update))
	}
	for _, c := range v.Associations.Cases {
		for _, u := range c.Updates {
			add(fromHex(f, u.Update))
		}
	}
}

// FuzzVerify: whatever is published, Verify and Apply give a verdict, and what
// they accept can be stored.
func FuzzVerify(f *testing.F) {
	addUpdates(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		var u associations.IdentityUpdate
		if proto.Unmarshal(b, &u) != nil {
			return
		}
		_ = CheckPublishable(&u)
		v, err := Verify(t.Context(), &u, &chain{valid: true})
		if err != nil {
			return
		}
		if _, err := SignatureText(&u); err != nil {
			t.Fatal(err)
		}
		encoded := mustMarshal(t, v)
		stored, err := UnmarshalVerifiedUpdate(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(mustMarshal(t, stored), encoded) {
			t.Fatal("encoding changed")
		}
		state, err := (*State)(nil).Apply(v)
		again, storedErr := (*State)(nil).Apply(stored)
		if (err == nil) != (storedErr == nil) {
			t.Fatalf("%v, but %v from storage", err, storedErr)
		}
		if err == nil && !bytes.Equal(mustMarshal(t, state), mustMarshal(t, again)) {
			t.Fatal("another state from storage")
		}
	})
}

// FuzzUnmarshalVerifiedUpdate: every update has one encoding.
func FuzzUnmarshalVerifiedUpdate(f *testing.F) {
	addUpdates(f, func(b []byte) {
		var u associations.IdentityUpdate
		if proto.Unmarshal(b, &u) != nil {
			return
		}
		if v, err := Verify(f.Context(), &u, &chain{valid: true}); err == nil {
			f.Add(mustMarshal(f, v))
		}
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := UnmarshalVerifiedUpdate(b)
		if err != nil {
			return
		}
		if got := mustMarshal(t, v); !bytes.Equal(got, b) {
			t.Fatalf("got %x, want %x", got, b)
		}
		state, err := (*State)(nil).Apply(v)
		if err != nil {
			return
		}
		mustMarshal(t, state)
		if again, err := state.Apply(v); err == nil {
			mustMarshal(t, again)
		}
	})
}

// FuzzUnmarshalState: reading a state settles its encoding.
func FuzzUnmarshalState(f *testing.F) {
	for _, c := range testVectors(f).Associations.Cases {
		var log []*associations.IdentityUpdate
		for _, u := range c.Updates {
			log = append(log, parseUpdate(f, u.Update))
		}
		if s, err := Replay(f.Context(), log, &chain{valid: true}); err == nil {
			f.Add(mustMarshal(f, s))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := UnmarshalState(b)
		if err != nil {
			return
		}
		encoded := mustMarshal(t, s)
		again, err := UnmarshalState(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(mustMarshal(t, again), encoded) {
			t.Fatal("encoding changed")
		}
		if len(s.Members()) != len(again.Members()) || len(s.Installations()) != len(again.Installations()) {
			t.Fatal("members changed")
		}
	})
}

// FuzzParseClientData compares with encoding/json where that is strict enough.
func FuzzParseClientData(f *testing.F) {
	for _, s := range []string{
		`{"origin":"o","challenge":"c"}`,
		`{"x":[{"origin":1},"]}",-1.5e3,null],"origin":"\u006f","challenge":"\ud83d\ude00"}`,
		`["o","c"]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := parseClientData(b)
		if !ok {
			return
		}
		var object map[string]any
		if json.Unmarshal(b, &object) == nil {
			if object["origin"] != got.origin || object["challenge"] != got.challenge {
				t.Fatalf("%q: got %+v, want %v", b, got, object)
			}
			return
		}
		var array []string
		if err := json.Unmarshal(b, &array); err != nil || len(array) != 2 || array[0] != got.origin || array[1] != got.challenge {
			t.Fatalf("%q: got %+v, want %v", b, got, array)
		}
	})
}

func FuzzVerifyKeyPackage(f *testing.F) {
	kp, now := officialKeyPackage(f)
	f.Add(kp)
	f.Add(kp[:len(kp)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := VerifyKeyPackage(b, now)
		if err != nil {
			if ErrorCode(err) == "" {
				t.Fatalf("no code: %v", err)
			}
			return
		}
		if !info.Lifetime.Contains(now) || len(info.Package.SignatureKey()) != len(info.InstallationKey) {
			t.Fatalf("accepted %+v", info)
		}
		_, _ = info.WelcomeWrapper()
		_, _ = info.PointeeAEADs()
	})
}

// FuzzParseAccountID: what passes can be put together again.
func FuzzParseAccountID(f *testing.F) {
	for _, s := range testVectors(f).Reference.AccountIDsValid {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		chainID, id, err := ParseAccountID(s)
		if err != nil {
			return
		}
		again, sameID, err := ParseAccountID(AccountID(chainID, id))
		if err != nil || again != chainID || sameID != id {
			t.Fatalf("%q: %d %v, then %d %v, %v", s, chainID, id, again, sameID, err)
		}
	})
}

// TestVerifiedUpdateCut: no part of an encoding is one.
func TestVerifiedUpdateCut(t *testing.T) {
	u, _ := registration(t, testWallet(t, 1))
	v, err := Verify(t.Context(), u, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := mustMarshal(t, v)
	for i := range b {
		if _, err := UnmarshalVerifiedUpdate(b[:i]); err == nil {
			t.Errorf("the first %d of %d bytes are accepted", i, len(b))
		}
	}
	if _, err := UnmarshalVerifiedUpdate(append(b[:len(b):len(b)], 0)); err == nil {
		t.Error("a trailing byte is accepted")
	}
	b[0]++
	if _, err := UnmarshalVerifiedUpdate(b); err == nil || err.Error() != "identity: malformed encoding: verified update of version 2" {
		t.Errorf("other version: %v", err)
	}
}
