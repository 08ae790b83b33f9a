package differential

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/binary"
	"fmt"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls"
)

// scheme is a cipher suite (§5.1) for the forger.
type scheme struct {
	id   uint16
	hpke *hpke.Suite
}

var schemes = map[uint16]scheme{
	1: {1, hpke.New(hpke.X25519(), hpke.HKDFSHA256, hpke.AES128GCM)},
	2: {2, hpke.New(hpke.P256(), hpke.HKDFSHA256, hpke.AES128GCM)},
	3: {3, hpke.New(hpke.X25519(), hpke.HKDFSHA256, hpke.ChaCha20Poly1305)},
	7: {7, hpke.New(hpke.P384(), hpke.HKDFSHA384, hpke.AES256GCM)},
}

func (s scheme) size() int                       { return s.hpke.KDF().Size() }
func (s scheme) hash(parts ...[]byte) []byte     { return s.hpke.KDF().Hash(nil, parts...) }
func (s scheme) mac(key, data []byte) []byte     { return s.hpke.KDF().MAC(nil, key, data) }
func (s scheme) extract(salt, ikm []byte) []byte { return s.hpke.KDF().Extract(nil, salt, ikm) }

// labelled is the content of the labelled operations of §5.1.2, §5.1.3 and §8.
func labelled(label string, content []byte) []byte {
	return append(marshal([]byte("MLS 1.0 "+label)), marshal(content)...)
}

func (s scheme) expand(secret []byte, label string, context []byte, n int) []byte {
	out := make([]byte, n)
	s.hpke.KDF().Expand(out, secret, binary.BigEndian.AppendUint16(nil, uint16(n)), labelled(label, context))
	return out
}

func (s scheme) derive(secret []byte, label string) []byte {
	return s.expand(secret, label, nil, s.size())
}

// reference is RefHash of §5.2.
func (s scheme) reference(label string, value []byte) []byte {
	return s.hash(marshal([]byte("MLS 1.0 "+label)), marshal(value))
}

func (s scheme) seal(public []byte, label string, context, plain []byte) (ciphertext, error) {
	enc, sealed, err := s.hpke.Seal(nil, public, s.hpke.Info(labelled(label, context)), nil, plain)
	return ciphertext{enc, sealed}, err
}

func sign(by mls.Signer, label string, content []byte) []byte {
	signature, err := by.Sign(labelled(label, content))
	if err != nil {
		panic(fmt.Errorf("differential: sign: %w", err))
	}
	return signature
}

// unsigned is a structure that ends with its signature, without it.
func unsigned(v any) []byte {
	b := marshal(v)
	return b[:len(b)-1] // the length of an empty signature
}

// signLeaf signs a leaf as the member at index of a group.
func signLeaf(leaf *leafNode, by mls.Signer, groupID []byte, index uint32) {
	leaf.Signature = nil
	content := unsigned(*leaf)
	if leaf.Source != fromKeyPackage {
		content = binary.BigEndian.AppendUint32(append(content, marshal(groupID)...), index)
	}
	leaf.Signature = sign(by, "LeafNodeTBS", content)
}

func signKeyPackage(kp *keyPackage, by mls.Signer) {
	kp.Signature = nil
	kp.Signature = sign(by, "KeyPackageTBS", unsigned(*kp))
}

func signGroupInfo(g *groupInfo, by mls.Signer) {
	g.Signature = nil
	g.Signature = sign(by, "GroupInfoTBS", unsigned(*g))
}

// contentTBS is FramedContentTBS (§6.1).
func contentTBS(format uint16, c *framedContent, context []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, 1}, format)
	b = append(b, marshal(*c)...)
	if c.SenderType == senderMember || c.SenderType == senderJoining {
		b = append(b, context...)
	}
	return b
}

// verifies tells whether the signature of a GroupInfo is that of key.
func verifies(key []byte, g *groupInfo, suite uint16) bool {
	c := duplicate(*g)
	c.Signature = nil
	content := labelled("GroupInfoTBS", unsigned(c))
	switch suite {
	case 2, 7:
		curve, hash := elliptic.P256(), crypto.SHA256
		if suite == 7 {
			curve, hash = elliptic.P384(), crypto.SHA384
		}
		public, err := ecdsa.ParseUncompressedPublicKey(curve, key)
		if err != nil {
			return false
		}
		h := hash.New()
		h.Write(content)
		return ecdsa.VerifyASN1(public, h.Sum(nil), g.Signature)
	default:
		return ed25519.Verify(key, content, g.Signature)
	}
}
