package identity

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// VerifiedUpdate is what [Verify] found: the facts of an identity update whose
// signatures are all good. It is immutable. Its encoding lets a log be folded
// again without verifying, by whoever trusts the one who wrote it.
type VerifiedUpdate struct {
	inboxID     string
	timestampNS uint64
	// signatures has every signature once, in the order of first use.
	signatures []verifiedSignature
	actions    []verifiedAction
}

type verifiedAction struct {
	action
	// signatures are indices. Of opAdd the first is by the new member, the
	// second by the existing one; other actions have one signature.
	signatures [2]int
}

func (a *verifiedAction) signatureCount() int {
	if a.op == opAdd {
		return 2
	}
	return 1
}

// authority returns the signature that permits a: the creator's, the existing
// member's or the recovery identifier's.
func (v *VerifiedUpdate) authority(a *verifiedAction) *verifiedSignature {
	return &v.signatures[a.signatures[a.signatureCount()-1]]
}

// newcomer returns the new member's signature of an opAdd.
func (v *VerifiedUpdate) newcomer(a *verifiedAction) *verifiedSignature {
	return &v.signatures[a.signatures[0]]
}

// InboxID returns the id of the inbox that the update says it is for.
func (v *VerifiedUpdate) InboxID() string { return v.inboxID }

// TimestampNS returns the client's clock when it made the update, in
// nanoseconds since the Unix epoch. Only the whole seconds are signed.
func (v *VerifiedUpdate) TimestampNS() uint64 { return v.timestampNS }

// verifiedVersion is the first byte of an encoded VerifiedUpdate. It changes
// with the layout.
const verifiedVersion = 1

// MarshalBinary encodes v. It never fails. Equal updates have equal encodings.
//
// The layout is: version; inbox id; timestamp (8 bytes); count of signatures
// and each as kind, signer, raw bytes, then the relying party of a passkey or
// the chain id (8 bytes) of a contract; count of actions and each as operation,
// kind and value of the target, then the relying party of a passkey that is
// created or made recovery identifier, the nonce (8 bytes) of a creation, and
// the indices of the signatures. Counts, indices and the lengths before strings
// are varints, integers are big-endian.
func (v *VerifiedUpdate) MarshalBinary() ([]byte, error) {
	b := []byte{verifiedVersion}
	b = appendString(b, v.inboxID)
	b = binary.BigEndian.AppendUint64(b, v.timestampNS)
	b = binary.AppendUvarint(b, uint64(len(v.signatures)))
	for i := range v.signatures {
		s := &v.signatures[i]
		b = append(b, byte(s.kind))
		b = appendString(b, s.signer.value)
		b = appendString(b, s.raw)
		switch s.kind {
		case signatureP256:
			b = appendString(b, s.relyingParty)
		case signatureERC1271:
			b = binary.BigEndian.AppendUint64(b, s.chainID)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(v.actions)))
	for i := range v.actions {
		a := &v.actions[i]
		b = append(b, byte(a.op), byte(a.target.kind))
		b = appendString(b, a.target.value)
		if a.hasRelyingParty() {
			b = appendString(b, a.relyingParty)
		}
		if a.op == opCreate {
			b = binary.BigEndian.AppendUint64(b, a.nonce)
		}
		for _, index := range a.signatures[:a.signatureCount()] {
			b = binary.AppendUvarint(b, uint64(index))
		}
	}
	return b, nil
}

// hasRelyingParty reports whether the relying party of a is of any use.
func (a *action) hasRelyingParty() bool {
	return a.target.kind == KindPasskey && (a.op == opCreate || a.op == opChangeRecovery)
}

// UnmarshalVerifiedUpdate reads what [VerifiedUpdate.MarshalBinary] wrote. It
// takes no other encoding of the same update. It does not, and could not,
// verify: b must come from a place that only the own process writes to. The
// error is [ErrEncoding].
func UnmarshalVerifiedUpdate(b []byte) (*VerifiedUpdate, error) {
	r := reader{rest: b}
	if version := r.byte(); r.ok() && version != verifiedVersion {
		return nil, fmt.Errorf("%w: verified update of version %d", ErrEncoding, version)
	}
	v := &VerifiedUpdate{inboxID: r.text(), timestampNS: r.uint64()}
	for range r.count() {
		s := verifiedSignature{kind: signatureKind(r.byte())}
		s.signer = r.identifier(s.kind.signer())
		s.raw = r.string()
		switch s.kind {
		case signatureP256:
			s.relyingParty = r.text()
		case signatureERC1271:
			s.contract, s.chainID = true, r.uint64()
		}
		if !r.ok() {
			break
		}
		v.signatures = append(v.signatures, s)
	}
	used := 0
	for range r.count() {
		a := verifiedAction{action: action{op: op(r.byte())}}
		a.target = r.identifier(Kind(r.byte()))
		if a.hasRelyingParty() {
			a.relyingParty = r.text()
		}
		if a.op == opCreate {
			a.nonce = r.uint64()
		}
		for i := range a.signatureCount() {
			index := r.uvarint()
			if index > uint64(used) || index >= uint64(len(v.signatures)) {
				r.fail()
				break
			}
			if index == uint64(used) {
				used++
			}
			a.signatures[i] = int(index)
		}
		if !a.valid() {
			r.fail()
		}
		if !r.ok() {
			break
		}
		v.actions = append(v.actions, a)
	}
	if !r.ok() || len(r.rest) != 0 || used != len(v.signatures) {
		return nil, fmt.Errorf("%w: verified update", ErrEncoding)
	}
	return v, nil
}

// valid reports whether a is of an operation that there is, and its target of a
// kind that it takes.
func (a *action) valid() bool {
	switch a.op {
	case opCreate, opChangeRecovery:
		return a.target.kind == KindEthereum || a.target.kind == KindPasskey
	case opAdd, opRevoke:
		return true
	}
	return false
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader reads the layout of a VerifiedUpdate. After a failure it returns zero
// values only.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) ok() bool { return !r.failed }

func (r *reader) fail() { r.failed, r.rest = true, nil }

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.fail()
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// uvarint reads a varint in its shortest form.
func (r *reader) uvarint() uint64 {
	x, n := binary.Uvarint(r.rest)
	if n <= 0 || n > 1 && r.rest[n-1] == 0 {
		r.fail()
		return 0
	}
	r.take(uint64(n))
	return x
}

func (r *reader) string() string { return string(r.take(r.uvarint())) }

// text reads a string that is UTF-8, as protobuf's strings are.
func (r *reader) text() string {
	s := r.string()
	if !utf8.ValidString(s) {
		r.fail()
	}
	return s
}

func (r *reader) identifier(k Kind) Identifier {
	switch k {
	case KindEthereum:
		return Identifier{k, r.text()}
	case KindPasskey, KindInstallation:
		return Identifier{k, r.string()}
	}
	r.fail()
	return Identifier{}
}

// count reads a count of things that take at least a byte each, so that a loop
// over it is bounded by the input.
func (r *reader) count() uint64 {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.fail()
		return 0
	}
	return n
}
