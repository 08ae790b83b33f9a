package identity

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

func TestIdentifierProto(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.String().Draw(t, "value")
		for _, id := range []Identifier{{KindEthereum, value}, Passkey([]byte(value)), Installation([]byte(value))} {
			got, err := IdentifierFromProto(id.Proto())
			if err != nil || got != id || string(got.Bytes()) != value {
				t.Fatalf("%v %q: got %v, %v", id.Kind(), value, got, err)
			}
			if id.Kind() == KindInstallation {
				continue
			}
			got, err = ParseIdentifier(id.ProtoKind(), id.String())
			if err != nil || got != id {
				t.Fatalf("%v %q: parsed %v, %v", id.Kind(), id, got, err)
			}
		}
	})
}

func TestIdentifierEquality(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	relying, err := IdentifierFromProto(&associations.MemberIdentifier{Kind: &associations.MemberIdentifier_Passkey{
		Passkey: &associations.Passkey{Key: key, RelyingParty: proto.String("example.org")},
	}})
	if err != nil || relying != Passkey(key) {
		t.Errorf("the relying party counts: %v, %v", relying, err)
	}
	if Passkey(key) == Installation(key) || Passkey(key).key() == Installation(key).key() {
		t.Error("the kind doesn't count")
	}
	lower, upper := Identifier{KindEthereum, "0xab"}, Identifier{KindEthereum, "0xAB"}
	if lower == upper {
		t.Error("the case of an address doesn't count")
	}
	// What is handed out and in is copied.
	id := Passkey(key)
	key[0]++
	id.Bytes()[1]++
	if !bytes.Equal(id.Bytes(), bytes.Repeat([]byte{7}, 32)) {
		t.Errorf("changed to %v", id)
	}
}

func TestIdentifierZero(t *testing.T) {
	var id Identifier
	if !id.IsZero() || id.Kind() != 0 || id.Kind().String() != "invalid" || id.String() != "" || id.ProtoKind() != 0 {
		t.Errorf("zero identifier: %v %q", id.Kind(), id)
	}
	if Passkey(nil).IsZero() {
		t.Error("an empty passkey is somebody")
	}
	if _, err := IdentifierFromProto(id.Proto()); !errors.Is(err, ErrMissingField) {
		t.Errorf("from proto: %v", err)
	}
	if _, err := IdentifierFromProto(nil); !errors.Is(err, ErrMissingField) {
		t.Errorf("from nil: %v", err)
	}
	if Installation(nil).ProtoKind() != associations.IdentifierKind_IDENTIFIER_KIND_UNSPECIFIED {
		t.Error("an installation is public")
	}
}

func TestDeriveInboxIDRefuses(t *testing.T) {
	for _, c := range []struct {
		id   Identifier
		want error
	}{
		{Installation(make([]byte, 32)), ErrNotIdentifier},
		{Identifier{}, ErrNotIdentifier},
		{Identifier{KindEthereum, "0x" + strings.Repeat("g", 40)}, ErrInvalidAccountAddress},
		{Identifier{KindEthereum, "0X" + strings.Repeat("a", 40)}, ErrInvalidAccountAddress},
		{Identifier{KindEthereum, strings.Repeat("a", 42)}, ErrInvalidAccountAddress},
		{Identifier{KindEthereum, "0x" + strings.Repeat("A", 40)}, nil},
		{Passkey(nil), nil},
	} {
		if _, err := DeriveInboxID(c.id, 0); !errors.Is(err, c.want) {
			t.Errorf("%v: got %v, want %v", c.id, err, c.want)
		}
	}
}

// TestCreateWithoutPrefix: an address without 0x can sign, as a contract, but
// owns no inbox.
func TestCreateWithoutPrefix(t *testing.T) {
	bare, err := ParseAddress(strings.Repeat("AB", 20))
	if err != nil || bare.String() != strings.Repeat("ab", 20) {
		t.Fatalf("%v, %v", bare, err)
	}
	v, err := Verify(t.Context(), &associations.IdentityUpdate{Actions: []*associations.IdentityAction{{
		Kind: &associations.IdentityAction_CreateInbox{CreateInbox: &associations.CreateInbox{
			InitialIdentifier:          bare.String(),
			InitialIdentifierSignature: ContractSignature(AccountID(1, bare), 1, nil),
		}},
	}}}, &chain{valid: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (*State)(nil).Apply(v); !errors.Is(err, ErrInvalidAccountAddress) {
		t.Errorf("got %v", err)
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"0x" + strings.Repeat("aB", 20):  "0x" + strings.Repeat("ab", 20),
		strings.Repeat("0x", 21):         "",
		"0x0x" + strings.Repeat("a", 38): "",
		"0X" + strings.Repeat("a", 40):   "",
		"x":                              "",
	} {
		got, err := ParseAddress(in)
		if (err != nil) != (want == "") || got.String() != want {
			t.Errorf("%q: got %v, %v", in, got, err)
		}
		if err != nil && !errors.Is(err, ErrInvalidAddress) {
			t.Errorf("%q: %v", in, err)
		}
	}
}
