package protocol

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// officialExtensions are those of the official client's group.
func officialExtensions(t testing.TB) []mls.Extension {
	return contextExtensions(t, groupsFile().Welcomes[1].Context)
}

// FuzzGroupState reads the four extensions, and writes what it has read.
func FuzzGroupState(f *testing.F) {
	for _, w := range groupsFile().Welcomes {
		exts := contextExtensions(f, w.Context)
		var bodies [4][]byte
		for i, typ := range []mls.ExtensionType{extensionMetadata, extensionMutableMetadata, extensionMembership, extensionPermissions} {
			bodies[i], _ = find(exts, typ)
		}
		f.Add(bodies[0], bodies[1], bodies[2], bodies[3])
	}
	f.Add([]byte{0}, []byte{0x12, 0, 0x1a, 0}, []byte{}, []byte{0x0a, 0})
	f.Fuzz(func(t *testing.T, metadata, mutable, membership, permissions []byte) {
		s, err := ParseGroupState([]mls.Extension{
			{Type: extensionMetadata, Data: metadata}, {Type: extensionMutableMetadata, Data: mutable},
			{Type: extensionMembership, Data: membership}, {Type: extensionPermissions, Data: permissions},
		})
		if err != nil {
			return
		}
		exts, err := s.Extensions()
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		again, err := ParseGroupState(exts)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, again, compareIdentifiers, cmp.Comparer(proto.Equal)); diff != "" {
			t.Error(diff)
		}
		_ = s.Paused()
		_ = s.Mutable.Disappearing()
		_ = s.Mutable.CommitLogSeed()
	})
}

// FuzzCommit judges commits to arbitrary extensions: there is a verdict, always the
// same, and what is accepted can be told.
func FuzzCommit(f *testing.F) {
	for _, e := range officialExtensions(f) {
		f.Add(uint16(e.Type), e.Data, uint8(0))
	}
	r := newRoom(f)
	exts, err := r.before.Extensions()
	if err != nil {
		f.Fatal(err)
	}
	for i, e := range exts {
		f.Add(uint16(e.Type), e.Data, uint8(i))
	}
	// Two requirements that nobody fulfils; the first one is the reason, always.
	f.Add(uint16(3), []byte("\f000010201121"), uint8(0))
	f.Fuzz(func(t *testing.T, typ uint16, body []byte, leaf uint8) {
		actor := r.members[int(leaf)%len(r.members)]
		after := replace(exts, mls.Extension{Type: mls.ExtensionType(typ), Data: body})
		c := stagedCommit{
			before: exts, after: after, path: &actor.LeafNode, members: slices.Values(r.members),
			member:    func(i mls.LeafIndex) (mls.Member, bool) { return r.members[i], true },
			proposals: []stagedProposal{{actor.Index, true, mls.GroupContextExtensions{Extensions: after}}},
		}
		change, err := c.check(t.Context(), r.logs)
		if _, paused := err.(*VersionError); err != nil && !paused && !IsVerdict(err) {
			t.Fatalf("no verdict: %v", err)
		}
		again, err2 := c.check(t.Context(), r.logs)
		if (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatalf("%v, then %v", err, err2)
		}
		if err == nil {
			e, _ := change.Transcript(nil, 1)
			e2, _ := again.Transcript(nil, 1)
			if !bytes.Equal(e.Content, e2.Content) {
				t.Fatal("two transcripts of one commit")
			}
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	for _, v := range groupsFile().MessageID {
		f.Add([]byte(v.Envelope))
		f.Add([]byte(v.Content))
	}
	f.Add(LeaveRequest())
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = IsLeaveRequest(data)
		e, err := ParseEnvelope(data)
		if err != nil {
			return
		}
		b, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseEnvelope(b); err != nil || !bytes.Equal(again.Content, e.Content) || again.IdempotencyKey != e.IdempotencyKey {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	v := groupsFile()
	kp := restore(f, v.KeyPackages["b"], v.PrivateB.Init, v.PrivateB.Leaf, v.PrivateB.XWing)
	for _, w := range v.Welcomes {
		f.Add([]byte(w.Data), []byte(w.Metadata), int32(w.Algorithm))
		f.Add([]byte(w.Data), []byte(nil), int32(1))
	}
	f.Fuzz(func(t *testing.T, data, metadata []byte, algorithm int32) {
		in := capturedWelcome{Data: data, Metadata: metadata, Algorithm: algorithm}
		w, p, err := kp.Unwrap(in.message())
		if (w != nil) == (err != nil) || p != nil {
			t.Fatalf("%v, %v, %v", w, p, err)
		}
		in.Type = 1
		if w, p, err = kp.Unwrap(in.message()); (p != nil) == (err != nil) || w != nil {
			t.Fatalf("pointer: %v, %v, %v", w, p, err)
		}
	})
}

func FuzzWelcomePointer(f *testing.F) {
	f.Add([]byte(groupsFile().Pointer.Plaintext), []byte(groupsFile().Pointer.PointeeData), []byte(groupsFile().Pointer.PointeeMetadata))
	f.Fuzz(func(t *testing.T, pointer, data, metadata []byte) {
		p, err := ParseWelcomePointer(pointer)
		if err != nil {
			return
		}
		again, err := ParseWelcomePointer(p.Marshal())
		if err != nil || !bytes.Equal(again.Marshal(), p.Marshal()) {
			t.Fatal(err)
		}
		_, _ = p.Open(&mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_V1_{V1: &mlsapi.WelcomeMessage_V1{Data: data, WelcomeMetadata: metadata}}})
	})
}

func FuzzStoredKeyPackage(f *testing.F) {
	kp, _ := newTestKeyPackage(f, alix)
	b, err := kp.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		kp, err := UnmarshalKeyPackage(b)
		if err != nil {
			return
		}
		if again, err := kp.MarshalBinary(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzCheckKeyPackage(f *testing.F) {
	for _, kp := range groupsFile().KeyPackages {
		f.Add([]byte(kp))
	}
	f.Add([]byte(packagesFile()[8].KeyPackage))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := CheckKeyPackage(data, Actor{InboxID: alix}, time.Unix(1_795_368_400, 0))
		if err == nil {
			_ = TakesPointers(info)
		}
	})
}

func FuzzVersion(f *testing.F) {
	for _, s := range []string{Version, "1.2.3-dev", "+1.2.3", "1.2", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := parseVersion(s); err == nil && v.compare(v) != 0 {
			t.Errorf("%q is not equal to itself", s)
		}
		_ = CheckVersion(s)
	})
}

func FuzzVector(f *testing.F) {
	for _, n := range []int{0, 63, 64, 16383, 16384} {
		f.Add(appendOpaque(nil, make([]byte, n)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		data, rest, err := readOpaque(b)
		if err != nil {
			return
		}
		if again := append(appendOpaque(nil, data), rest...); !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
