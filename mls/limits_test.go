package mls

import (
	"bytes"
	"errors"
	"testing"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// What decoding takes of memory is bounded by the bytes that have come, whatever they
// claim: here are the inputs whose elements are the smallest.
func TestDecodingTakesWhatHasCome(t *testing.T) {
	const size = 1 << 18
	vector := func(element []byte) []byte {
		return wire.AppendOpaque(nil, bytes.Repeat(element, size/len(element)))
	}
	// public is a PublicMessage of a commit with a list of proposals.
	public := func(list []byte) []byte {
		c := &framedContent{groupID: []byte("g"), sender: memberAt(0), contentType: ContentTypeCommit, commit: &commit{}}
		b := c.append(appendMessageHead(nil, WireFormatPublicMessage))
		b = append(b[:len(b)-2], list...) // in place of no proposals and no path
		b = wire.AppendPresence(b, false)
		for range 3 { // signature, confirmation tag, membership tag
			b = wire.AppendOpaque(b, []byte{})
		}
		return b
	}
	welcome := wire.AppendUint16(appendMessageHead(nil, WireFormatWelcome), 3)
	welcome = wire.AppendOpaque(append(welcome, vector([]byte{0, 0, 0})...), []byte{})
	s, err := lookupSuite(testSuite, nil)
	if err != nil {
		t.Fatal(err)
	}
	team := newTeam(t, testSuite, 1, Config{})
	leaf := team[0].group.RatchetTree()[1:] // the vector's only node, without its prefix of one or two bytes
	if leaf[0] != 1 {
		leaf = leaf[1:]
	}
	blanks := append(make([]byte, size), leaf...)
	message := func(b []byte) func() error {
		return func() error { _, err := UnmarshalMessage(b); return err }
	}
	for _, tc := range []struct {
		name   string
		input  []byte
		decode func([]byte) func() error
	}{
		{"proposals by reference", public(vector([]byte{proposalByReference, 0})), message},
		{"proposals of three bytes", public(vector([]byte{proposalByValue, 0xf0, 1, 0})), message},
		{"new members of a Welcome", welcome, message},
		{"blank nodes", wire.AppendOpaque(nil, blanks), func(b []byte) func() error {
			return func() error {
				r := wire.NewReader(b)
				readRatchetTree(r, s)
				return r.Done()
			}
		}},
		{"extensions", vector([]byte{0xff, 0, 0}), func(b []byte) func() error {
			return func() error {
				r := wire.NewReader(b)
				readExtensions(r)
				return r.Done()
			}
		}},
		{"a vector of 2^30-1 bytes that end", append(appendMessageHead(nil, WireFormatWelcome), 0, 3, 0xbf, 0xff, 0xff, 0xff), message},
	} {
		var failed error
		n := allocated(func() { failed = tc.decode(tc.input)() })
		t.Logf("%s: %.1f times %d bytes, %v", tc.name, float64(n)/float64(len(tc.input)), len(tc.input), failed)
		if n > uint64(16<<10+allocatedPerByte*len(tc.input)) {
			t.Errorf("%s: %d bytes allocated for %d", tc.name, n, len(tc.input))
		}
		if short := len(tc.input) < 100; short == (failed == nil) {
			t.Errorf("%s: %v", tc.name, failed)
		}
	}
}

// A list of keys that is as long as a message can be takes time in proportion.
func TestManyPreSharedKeys(t *testing.T) {
	s, err := lookupSuite(testSuite, nil)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]PreSharedKeyID, 20_000)
	for i := range ids {
		ids[i] = PreSharedKeyID{Type: PSKExternal, ID: wire.AppendUint32(nil, uint32(i)), Nonce: make([]byte, s.HashSize())}
	}
	config := new(Config)
	if n := allocated(func() { err = config.checkPSKs(s, ids) }); err != nil || n > 1000*uint64(len(ids)) {
		t.Errorf("%d bytes allocated, %v", n, err)
	}
	ids[len(ids)-1] = ids[0]
	if err := config.checkPSKs(s, ids); !errors.Is(err, ErrInvalidProposals) {
		t.Errorf("the same twice: %v", err)
	}
}
