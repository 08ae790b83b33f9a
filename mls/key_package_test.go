package mls

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/mls/internal/curve448"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// moreSuites are suites that a caller passes in.
var moreSuites = append(curve448.Suites(), XWingAES128SHA256Ed25519(0xf001), XWingAES256SHA384Ed25519(0xf002))

var allSuites = []CipherSuite{
	X25519AES128SHA256Ed25519, P256AES128SHA256P256, X25519ChaChaSHA256Ed25519, 4,
	P521AES256SHA512P521, 6, P384AES256SHA384P384, 0xf001, 0xf002,
}

// newClient is a client with a fresh signature key.
func newClient(t testing.TB, id CipherSuite, name string) Client {
	t.Helper()
	private, err := GenerateSignatureKey(id, moreSuites...)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := NewSigner(id, private, moreSuites...)
	if err != nil {
		t.Fatal(err)
	}
	return Client{CipherSuite: id, Signer: signer, Credential: BasicCredential([]byte(name))}
}

func newKeyPackage(t testing.TB, c Client) *PrivateKeyPackage {
	t.Helper()
	kp, err := NewKeyPackage(c, KeyPackageOptions{Suites: moreSuites})
	if err != nil {
		t.Fatal(err)
	}
	return kp
}

func TestKeyPackage(t *testing.T) {
	for _, id := range allSuites {
		t.Run(fmt.Sprint("suite ", id), func(t *testing.T) {
			c := newClient(t, id, "alice")
			c.Extensions = []Extension{{ExtensionApplicationID, []byte("app")}}
			c.Capabilities.Extensions = []ExtensionType{ExtensionLastResort, 0xff04}
			made, err := NewKeyPackage(c, KeyPackageOptions{
				Lifetime:   Lifetime{1000, 2000},
				Extensions: []Extension{{ExtensionLastResort, nil}, {0xff04, []byte{1, 2}}},
				Suites:     moreSuites,
			})
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := made.KeyPackage().MarshalBinary()
			kp, err := UnmarshalKeyPackage(raw, moreSuites...)
			if err != nil {
				t.Fatal(err)
			}
			for _, tc := range []struct {
				at   int64
				want error
			}{{999, ErrLifetime}, {1000, nil}, {1999, nil}, {2000, ErrLifetime}, {-1, ErrLifetime}} {
				if err := kp.Verify(time.Unix(tc.at, 0)); !errors.Is(err, tc.want) {
					t.Errorf("at %d: %v, want %v", tc.at, err, tc.want)
				}
			}
			if data, ok := kp.Extension(0xff04); !ok || !bytes.Equal(data, []byte{1, 2}) {
				t.Errorf("extension 0xff04: %x, %v", data, ok)
			}
			if _, ok := kp.Extension(0xff03); ok {
				t.Error("extension 0xff03 is there")
			}
			if !bytes.Equal(kp.SignatureKey(), c.Signer.Public()) {
				t.Error("the signature key is another one")
			}
			if got := kp.Credential(); !got.equal(c.Credential) {
				t.Errorf("credential %v, want %v", got, c.Credential)
			}
			if got := kp.LeafNode().Capabilities().Extensions; fmt.Sprint(got) != fmt.Sprint(c.Capabilities.Extensions) {
				t.Errorf("capabilities %v, want %v", got, c.Capabilities.Extensions)
			}
			if got := fmt.Sprintf("%v %+v %s %x", made, *made, made, made); strings.Contains(got, fmt.Sprintf("%x", []byte(made.initKey))) {
				t.Error("a private key is printed")
			}
		})
	}
}

// Each fault of a key package has its own error. What is changed is signed anew,
// so that the signature is not what gives it away.
func TestKeyPackageFaults(t *testing.T) {
	const id = X25519ChaChaSHA256Ed25519
	c := newClient(t, id, "alice")
	type parts struct {
		leaf leafFields
		kp   KeyPackage
	}
	for _, tc := range []struct {
		name  string
		fault func(*parts)
		after func(raw []byte)
		want  error
	}{
		{"none", func(p *parts) {}, nil, nil},
		{"suite", func(p *parts) { p.kp.suite = 0x0bad }, nil, ErrUnsupportedCipherSuite},
		{"another suite, not signed", func(p *parts) {}, func(raw []byte) { raw[3] = 1 }, ErrKeyPackageSignature},
		{"source update", func(p *parts) { p.leaf.source = LeafNodeFromUpdate }, nil, ErrLeafNodeSource},
		{"source commit", func(p *parts) { p.leaf.source = LeafNodeFromCommit }, nil, ErrLeafNodeSource},
		{"version", func(p *parts) { p.kp.version = 2 }, nil, ErrUnsupportedVersion},
		{"init key", func(p *parts) { p.kp.initKey = p.leaf.encryptionKey }, nil, ErrInitKey},
		{"extension not listed", func(p *parts) { p.kp.extensions = []Extension{{0xff00, nil}} }, nil, ErrExtensionNotListed},
		{"leaf extension not listed", func(p *parts) {
			p.leaf.extensions = appendExtensions(nil, []Extension{{0xff00, nil}})
		}, nil, ErrExtensionNotListed},
		{"extension twice", func(p *parts) {
			p.kp.extensions = []Extension{{ExtensionApplicationID, nil}, {ExtensionApplicationID, nil}}
		}, nil, ErrDuplicateExtension},
		{"package signature", func(p *parts) {}, func(raw []byte) { raw[len(raw)-1] ^= 1 }, ErrKeyPackageSignature},
		{"leaf signature", func(p *parts) {}, func(raw []byte) { raw[2+2+33+1] ^= 1 }, ErrLeafNodeSignature},
		{"not yet valid", func(p *parts) { p.leaf.lifetime = Lifetime{501, 1000} }, nil, ErrLifetime},
		{"expired", func(p *parts) { p.leaf.lifetime = Lifetime{1, 500} }, nil, ErrLifetime},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := parts{leaf: c.leaf(), kp: KeyPackage{version: MLS10, suite: id, initKey: make([]byte, 32)}}
			p.leaf.encryptionKey = bytes.Repeat([]byte{1}, 32)
			p.leaf.source = LeafNodeFromKeyPackage
			p.leaf.lifetime = Lifetime{0, 1000}
			tc.fault(&p)
			var err error
			if p.kp.leaf, err = p.leaf.sign(c.Signer, nil, 0); err != nil {
				t.Fatal(err)
			}
			raw := p.kp.appendUnsigned(nil)
			sig, err := suite.SignWithLabel(c.Signer, "KeyPackageTBS", raw)
			if err != nil {
				t.Fatal(err)
			}
			raw = wire.AppendOpaque(raw, sig)
			if tc.after != nil {
				tc.after(raw)
			}
			kp, err := UnmarshalKeyPackage(raw, moreSuites...)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time after what was kept of the first
				if err := kp.Verify(time.Unix(500, 0)); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
					t.Errorf("got %v, want %v", err, tc.want)
				}
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	raw, _ := newKeyPackage(t, newClient(t, X25519ChaChaSHA256Ed25519, "alice")).KeyPackage().MarshalBinary()
	if _, err := UnmarshalKeyPackage(append(raw, 0)); !errors.Is(err, ErrMalformed) || !errors.Is(err, ErrTrailingData) {
		t.Errorf("a byte more: %v", err)
	}
	for i := range raw {
		if _, err := UnmarshalKeyPackage(raw[:i]); !errors.Is(err, ErrMalformed) || !errors.Is(err, ErrUnexpectedEnd) {
			t.Errorf("%d bytes of %d: %v", i, len(raw), err)
		}
	}
	message := append(appendMessageHead(nil, WireFormatKeyPackage), raw...)
	if m, err := UnmarshalMessage(message); err != nil || m.KeyPackage() == nil {
		t.Errorf("key package in a message: %v", err)
	}
	if _, _, err := ParseHeader(message); !errors.Is(err, ErrMalformed) {
		t.Errorf("header of a key package: %v", err)
	}
	message[1] = 2
	if _, err := UnmarshalMessage(message); !errors.Is(err, ErrUnsupportedVersion) {
		t.Errorf("version 2: %v", err)
	}
}

func TestParseHeader(t *testing.T) {
	private := &Message{format: WireFormatPrivateMessage, private: &privateMessage{
		groupID: []byte("group"), epoch: 1 << 40, contentType: ContentTypeCommit,
		encryptedSenderData: make([]byte, 28), ciphertext: make([]byte, 100),
	}}
	public := &Message{format: WireFormatPublicMessage, public: &publicMessage{
		content: &framedContent{
			groupID: []byte("group"), epoch: 7, sender: Sender{SenderMember, 3},
			contentType: ContentTypeProposal, proposal: Remove{5},
		},
		auth: contentAuth{signature: make([]byte, 64)}, membershipTag: make([]byte, 32),
	}}
	for _, tc := range []struct {
		m     *Message
		epoch uint64
		ct    ContentType
	}{{private, 1 << 40, ContentTypeCommit}, {public, 7, ContentTypeProposal}} {
		b := tc.m.append(nil)
		h, n, err := ParseHeader(append(b, "more"...))
		if err != nil || n != len(b) || string(h.GroupID) != "group" || h.Epoch != tc.epoch ||
			h.ContentType != tc.ct || h.WireFormat != tc.m.format {
			t.Errorf("got %+v, length %d of %d, %v", h, n, len(b), err)
		}
		for i := range b {
			if _, _, err := ParseHeader(b[:i]); err == nil {
				t.Errorf("%d bytes of %d pass", i, len(b))
			}
		}
	}
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// allocatedPerByte is how much decoding may allocate for a byte that has come. The
// smallest elements of lists are two bytes, which become forty, and a list that grows
// is copied; what stays allocated is about a quarter.
const allocatedPerByte = 150

// checkAllocation fails if decoding in took more than that.
func checkAllocation(t *testing.T, in []byte, decode func()) {
	t.Helper()
	if n, limit := allocated(decode), uint64(16<<10+allocatedPerByte*len(in)); n > limit {
		t.Errorf("%d bytes allocated for %d of input", n, len(in))
	}
}

func FuzzUnmarshalKeyPackage(f *testing.F) {
	raw, _ := newKeyPackage(f, newClient(f, X25519ChaChaSHA256Ed25519, "alice")).KeyPackage().MarshalBinary()
	f.Add(raw)
	f.Fuzz(func(t *testing.T, in []byte) {
		var kp *KeyPackage
		var err error
		checkAllocation(t, in, func() { kp, err = UnmarshalKeyPackage(in) })
		if err != nil {
			return
		}
		f := kp.leaf.fields()
		kp.leaf = LeafNode{f.append(nil)}
		if out := wire.AppendOpaque(kp.appendUnsigned(nil), kp.signature); !bytes.Equal(out, in) {
			t.Errorf("%x encoded anew is %x", in, out)
		}
		_ = kp.Verify(time.Unix(500, 0))
	})
}

func FuzzUnmarshalMessage(f *testing.F) {
	kp := newKeyPackage(f, newClient(f, X25519ChaChaSHA256Ed25519, "alice")).KeyPackage()
	content := func(c framedContent) *publicMessage {
		c.groupID, c.epoch, c.sender = []byte("group"), 3, Sender{SenderMember, 1}
		return &publicMessage{content: &c, auth: contentAuth{[]byte("sig"), []byte("tag")}, membershipTag: []byte("mac")}
	}
	path := &updatePath{leaf: kp.leaf, nodes: []updatePathNode{{encryptionKey: []byte("key"), ciphertexts: []byte{1, 1, 2, 2, 2}, count: 1}}}
	exts := []Extension{{ExtensionLastResort, nil}, {0xff00, []byte("x")}}
	psk := PreSharedKeyID{Type: PSKResumption, Usage: ResumptionBranch, GroupID: []byte("g"), Epoch: 1, Nonce: []byte("n")}
	for _, p := range []Proposal{
		Add{kp}, Update{kp.leaf}, Remove{4}, PreSharedKey{psk}, PreSharedKey{PreSharedKeyID{Type: PSKExternal}},
		ReInit{[]byte("g"), MLS10, 3, exts}, ExternalInit{[]byte("kem")}, GroupContextExtensions{exts},
		AppDataUpdate{Component: 1, Update: []byte("u")}, AppDataUpdate{Component: 1, Remove: true},
		AppEphemeral{2, []byte("d")}, SelfRemove{}, CustomProposal{0xf001, []byte("c")},
	} {
		m := Message{format: WireFormatPublicMessage, public: content(framedContent{contentType: ContentTypeProposal, proposal: p})}
		f.Add(m.append(nil))
	}
	context := &groupContext{version: MLS10, suite: 3, groupID: []byte("g"), extensions: exts}
	for _, m := range []Message{
		{format: WireFormatPublicMessage, public: content(framedContent{contentType: ContentTypeApplication})},
		{format: WireFormatPublicMessage, public: content(framedContent{contentType: ContentTypeCommit, commit: &commit{
			proposals: []proposalOrRef{{ref: []byte("ref")}, {proposal: Remove{1}}}, path: path}})},
		{format: WireFormatPrivateMessage, private: &privateMessage{contentType: ContentTypeApplication}},
		{format: WireFormatWelcome, welcome: &welcome{secrets: make([]encryptedGroupSecrets, 2)}},
		{format: WireFormatGroupInfo, groupInfo: &groupInfo{context: context, extensions: exts}},
		{format: WireFormatKeyPackage, keyPackage: kp},
	} {
		f.Add(m.append(nil))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var m *Message
		var err error
		checkAllocation(t, in, func() { m, err = UnmarshalMessage(in) })
		h, n, headErr := ParseHeader(in)
		if err != nil {
			return
		}
		if out := m.append(nil); !bytes.Equal(out, in) {
			t.Errorf("%x encoded anew is %x", in, out)
		}
		if want, ok := m.Header(); ok != (headErr == nil) ||
			ok && (n != len(in) || h.Epoch != want.Epoch || !bytes.Equal(h.GroupID, want.GroupID) || h.ContentType != want.ContentType) {
			t.Errorf("header %+v, %v; want %+v, %v", h, headErr, want, ok)
		}
	})
}
