package order

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func drawBytes(t *rapid.T, label string) []byte {
	return rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, label)
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &Record{
			Topic:   Topic{Kind: Kind(rapid.Byte().Draw(t, "kind")), ID: rapid.String().Draw(t, "id")},
			Number:  rapid.Uint64().Draw(t, "number"),
			Time:    rapid.Uint64().Draw(t, "time"),
			Facts:   drawBytes(t, "facts"),
			Payload: drawBytes(t, "payload"),
		}
		value := r.AppendValue([]byte("head"))[4:]
		if len(value) != r.ValueSize() {
			t.Fatalf("%d bytes, ValueSize is %d", len(value), r.ValueSize())
		}
		got, err := ParseValue(r.Topic, r.Number, value)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestFactsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		group := GroupFacts{
			Commit:     rapid.Bool().Draw(t, "commit"),
			ShouldPush: rapid.Bool().Draw(t, "push"),
			SenderHMAC: drawBytes(t, "hmac"),
		}
		gotGroup, err := ParseGroupFacts(group.Append(nil))
		if err != nil || !cmp.Equal(group, gotGroup, cmpopts.EquateEmpty()) {
			t.Fatalf("%+v, %v; want %+v", gotGroup, err, group)
		}
		welcome := WelcomeFacts{
			Pointer:   rapid.Bool().Draw(t, "pointer"),
			Algorithm: rapid.Byte().Draw(t, "algorithm"),
			HPKEKey:   drawBytes(t, "key"),
			Metadata:  drawBytes(t, "metadata"),
		}
		gotWelcome, err := ParseWelcomeFacts(welcome.Append(nil))
		if err != nil || !cmp.Equal(welcome, gotWelcome, cmpopts.EquateEmpty()) {
			t.Fatalf("%+v, %v; want %+v", gotWelcome, err, welcome)
		}
		keyPackage := KeyPackageFacts{NotBefore: rapid.Uint64().Draw(t, "not before")}
		gotKeyPackage, err := ParseKeyPackageFacts(keyPackage.Append(nil))
		if err != nil || gotKeyPackage != keyPackage {
			t.Fatalf("%+v, %v; want %+v", gotKeyPackage, err, keyPackage)
		}
	})
}

// TestStoredFormat: what is on disks stays readable. A change here needs a new
// version of the format.
func TestStoredFormat(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want []byte
	}{
		{"record", (&Record{Time: 0x0102030405060708, Facts: []byte("ff"), Payload: []byte("pp")}).AppendValue(nil),
			[]byte("\x01\x01\x02\x03\x04\x05\x06\x07\x08\x02ffpp")},
		{"empty record", (&Record{}).AppendValue(nil), make([]byte, 10)},
		{"group facts", GroupFacts{Commit: true, SenderHMAC: []byte("h")}.Append(nil), []byte("\x01h")},
		{"group facts with push", GroupFacts{Commit: true, ShouldPush: true}.Append(nil), []byte("\x03")},
		{"welcome facts", WelcomeFacts{Algorithm: 2, HPKEKey: []byte("key"), Metadata: []byte("m")}.Append(nil), []byte("\x00\x02\x03keym")},
		{"pointer facts", WelcomeFacts{Pointer: true, Algorithm: 1}.Append(nil), []byte("\x01\x01\x00")},
		{"key package facts", KeyPackageFacts{NotBefore: 258}.Append(nil), []byte("\x00\x00\x00\x00\x00\x00\x01\x02")},
	} {
		if c.name == "empty record" {
			c.want[0] = recordVersion
		}
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s: % x, want % x", c.name, c.got, c.want)
		}
	}
	kinds := []Kind{GroupMessage, Welcome, KeyPackage, IdentityUpdate, CommitLog}
	if want := []Kind{1, 2, 3, 4, 5}; !reflect.DeepEqual(kinds, want) {
		t.Errorf("kinds %v, want %v", kinds, want)
	}
}

func FuzzParseValue(f *testing.F) {
	f.Add((&Record{Time: 1, Facts: []byte("facts"), Payload: []byte("payload")}).AppendValue(nil))
	f.Add([]byte("\x01\x01\x02\x03\x04\x05\x06\x07\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := ParseValue(Topic{}, 7, value)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || r != nil {
				t.Fatalf("%v, %v", r, err)
			}
			return
		}
		if len(r.Facts)+len(r.Payload) > len(value) {
			t.Fatal("more than was there")
		}
		again, err := ParseValue(Topic{}, 7, r.AppendValue(nil))
		if err != nil || !cmp.Equal(r, again) {
			t.Fatalf("%+v, %v; want %+v", again, err, r)
		}
	})
}

func FuzzParseFacts(f *testing.F) {
	f.Add(GroupFacts{Commit: true, SenderHMAC: []byte("hmac")}.Append(nil))
	f.Add(WelcomeFacts{Pointer: true, HPKEKey: []byte("key"), Metadata: []byte("metadata")}.Append(nil))
	f.Add(KeyPackageFacts{NotBefore: 1}.Append(nil))
	f.Add([]byte("\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if facts, err := ParseGroupFacts(b); err == nil && !bytes.Equal(facts.Append(nil), b) {
			t.Errorf("group facts %x", b)
		} else if err != nil && !errors.Is(err, ErrMalformed) {
			t.Error(err)
		}
		if facts, err := ParseWelcomeFacts(b); err == nil {
			again, err := ParseWelcomeFacts(facts.Append(nil))
			if err != nil || !cmp.Equal(facts, again) {
				t.Errorf("welcome facts %x: %+v, %v", b, again, err)
			}
		} else if !errors.Is(err, ErrMalformed) {
			t.Error(err)
		}
		if facts, err := ParseKeyPackageFacts(b); err == nil && !bytes.Equal(facts.Append(nil), b) {
			t.Errorf("key package facts %x", b)
		} else if err != nil && !errors.Is(err, ErrMalformed) {
			t.Error(err)
		}
	})
}
