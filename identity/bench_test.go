package identity

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

func BenchmarkVerifyRegistration(b *testing.B) {
	u, _ := registration(b, testWallet(b, 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify(b.Context(), u, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyMany verifies one update that adds many installations: each
// signature covers a text that grows with their number.
func BenchmarkVerifyMany(b *testing.B) {
	for _, n := range []int{16, 256} {
		b.Run(fmt.Sprintf("%d installations", n), func(b *testing.B) {
			wallet := testWallet(b, 1)
			inboxID, err := DeriveInboxID(wallet.Identifier(), DefaultNonce)
			if err != nil {
				b.Fatal(err)
			}
			actions := []Action{CreateInbox(wallet.Identifier(), DefaultNonce)}
			for i := range n {
				actions = append(actions, AddMember(wallet.Identifier(), installationID(testInstallation(byte(i)))))
			}
			r, err := NewSignatureRequest(inboxID, testTime, actions...)
			if err != nil {
				b.Fatal(err)
			}
			sigs := []*associations.Signature{wallet.SignText(r.Text())}
			for i := range n {
				sigs = append(sigs, SignInstallation(testInstallation(byte(i)), r.Text()))
			}
			for _, sig := range sigs {
				if err := r.AddSignature(b.Context(), sig, nil); err != nil {
					b.Fatal(err)
				}
			}
			u, err := r.Update()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Verify(b.Context(), u, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// factLog returns the facts of a log of 256 updates: one that creates an inbox
// with so many installations, then 255 that each add one.
func factLog(b *testing.B, installations int) []*VerifiedUpdate {
	b.Helper()
	owner := testWallet(b, 1).Identifier()
	inboxID, err := DeriveInboxID(owner, DefaultNonce)
	if err != nil {
		b.Fatal(err)
	}
	count := uint64(0)
	raw := func() string {
		count++
		return strings.Repeat("s", 56) + string(binary.BigEndian.AppendUint64(nil, count))
	}
	next := func() *VerifiedUpdate {
		return &VerifiedUpdate{inboxID: inboxID, timestampNS: count, signatures: []verifiedSignature{
			{kind: signatureERC191, signer: owner, raw: raw()},
		}}
	}
	add := func(u *VerifiedUpdate) {
		s := verifiedSignature{kind: signatureInstallation, raw: raw()}
		s.signer = Installation([]byte(s.raw[32:]))
		u.signatures = append(u.signatures, s)
		u.actions = append(u.actions, verifiedAction{action{op: opAdd, target: s.signer}, [2]int{len(u.signatures) - 1, 0}})
	}
	first := next()
	first.actions = []verifiedAction{{action: action{op: opCreate, target: owner, nonce: DefaultNonce}}}
	for range installations {
		add(first)
	}
	log := []*VerifiedUpdate{first}
	for len(log) < 256 {
		u := next()
		add(u)
		log = append(log, u)
	}
	return log
}

// BenchmarkFold256 applies the 255 later updates of a full log. The cost should
// hardly depend on the size of the inbox.
func BenchmarkFold256(b *testing.B) {
	for _, n := range []int{0, 1000, 100000} {
		b.Run(fmt.Sprintf("%d installations", n), func(b *testing.B) {
			log := factLog(b, n)
			start, err := (*State)(nil).Apply(log[0])
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				state := start
				for _, u := range log[1:] {
					if state, err = state.Apply(u); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkUnmarshalVerifiedUpdate(b *testing.B) {
	u, _ := registration(b, testWallet(b, 1))
	v, err := Verify(b.Context(), u, nil)
	if err != nil {
		b.Fatal(err)
	}
	encoded := mustMarshal(b, v)
	b.SetBytes(int64(len(encoded)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := UnmarshalVerifiedUpdate(encoded); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarshalState(b *testing.B) {
	var state *State
	for _, u := range factLog(b, 0) {
		var err error
		if state, err = state.Apply(u); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		mustMarshal(b, state)
	}
}

func BenchmarkVerifyKeyPackage(b *testing.B) {
	kp, now := officialKeyPackage(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := VerifyKeyPackage(kp, now); err != nil {
			b.Fatal(err)
		}
	}
}
