package mls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// issued is when the certificates of these tests begin; they are good for a day.
var issued = time.Date(2030, time.January, 1, 0, 0, 0, 0, time.UTC)

// authority issues certificates by an intermediate of its root.
type authority struct {
	t            testing.TB
	root, issuer *x509.Certificate
	key          crypto.Signer
}

// newAuthority makes an authority with Ed25519 or P-256 keys, as the suite has them.
func newAuthority(t testing.TB, id CipherSuite) *authority {
	t.Helper()
	generate := func() crypto.Signer {
		if id == P256AES128SHA256P256 {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			return key
		}
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	rootKey := generate()
	a := &authority{t: t, key: rootKey}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: issued, NotAfter: issued.AddDate(10, 0, 0),
	}
	a.issuer = template
	a.root = a.sign(template, rootKey.Public())
	a.issuer, a.key = a.root, rootKey
	intermediate := *template
	intermediate.Subject.CommonName = "issuer"
	issuerKey := generate()
	a.issuer = a.sign(&intermediate, issuerKey.Public())
	a.key = issuerKey
	return a
}

func (a *authority) sign(template *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	a.t.Helper()
	template.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, template, a.issuer, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// issue certifies a signature key: the chain without the root.
func (a *authority) issue(name string, signatureKey []byte) [][]byte {
	a.t.Helper()
	var key crypto.PublicKey = ed25519.PublicKey(signatureKey)
	if len(signatureKey) != ed25519.PublicKeySize {
		var err error
		if key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), signatureKey); err != nil {
			a.t.Fatal(err)
		}
	}
	cert := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: issued, NotAfter: issued.AddDate(0, 0, 1),
	}, key)
	return [][]byte{cert.Raw, a.issuer.Raw}
}

// registry is an Authenticator that takes certificates of one authority, and whatever
// basic credentials.
type registry struct {
	roots *x509.CertPool
	now   time.Time
}

func newRegistry(a *authority) *registry {
	r := &registry{roots: x509.NewCertPool(), now: issued}
	r.roots.AddCert(a.root)
	return r
}

func (r *registry) Authenticate(members []Candidate) []error {
	errs := make([]error, len(members))
	for i, m := range members {
		if m.LeafNode.Credential().Type == CredentialBasic {
			continue
		}
		name, err := r.verify(m.LeafNode)
		if err == nil && m.Replaces != nil {
			var before string
			if before, err = r.verify(*m.Replaces); err == nil && before != name {
				err = fmt.Errorf("%s takes the place of %s", name, before)
			}
		}
		errs[i] = err
	}
	return errs
}

// verify is the name in a leaf's certificate.
func (r *registry) verify(leaf LeafNode) (string, error) {
	chain, err := leaf.Credential().Certificates()
	if err != nil {
		return "", err
	}
	opts := x509.VerifyOptions{Roots: r.roots, CurrentTime: r.now, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	var first *x509.Certificate
	for i, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return "", err
		}
		if i == 0 {
			first = cert
		} else {
			opts.Intermediates.AddCert(cert)
		}
	}
	if first == nil {
		return "", errors.New("no certificate")
	}
	if _, err := first.Verify(opts); err != nil {
		return "", err
	}
	var key []byte
	switch k := first.PublicKey.(type) {
	case ed25519.PublicKey:
		key = k
	case *ecdsa.PublicKey:
		if key, err = k.Bytes(); err != nil {
			return "", err
		}
	}
	if !bytes.Equal(key, leaf.SignatureKey()) {
		return "", errors.New("the certificate is for another key")
	}
	return first.Subject.CommonName, nil
}

// newCertified is a member whom an authority has certified.
func newCertified(t testing.TB, id CipherSuite, a *authority, name string, config Config) *member {
	m := newMemberOf(t, id, name, config)
	m.client.Credential = X509Credential(a.issue(name, m.client.Signer.Public())...)
	return m
}

// unchanged checks that a call leaves all that is stored as it was.
func unchanged(t *testing.T, what string, dump func() []Record, call func()) {
	t.Helper()
	before, after := store{}, store{}
	before.apply(dump())
	call()
	after.apply(dump())
	if !maps.EqualFunc(before, after, func(a, b Record) bool { return bytes.Equal(a.Value, b.Value) }) {
		t.Errorf("%s changes the state:\n%s", what, cmp.Diff(before, after))
	}
}

// Members with certificates of a real chain: they come in by Welcome and by
// themselves, renew key and certificate, and whoever's chain isn't good stays out.
func TestX509(t *testing.T) {
	for _, id := range []CipherSuite{X25519ChaChaSHA256Ed25519, P256AES128SHA256P256} {
		t.Run(fmt.Sprint("suite ", id), func(t *testing.T) {
			ca := newAuthority(t, id)
			judge := newRegistry(ca)
			config := Config{PublicHandshakes: true, Authenticator: judge}
			team := make([]*member, 3)
			packages := make([]*PrivateKeyPackage, 3)
			var opts CommitOptions
			for i := range team {
				team[i] = newCertified(t, id, ca, fmt.Sprint("member ", i), config)
				if packages[i] = newKeyPackage(t, team[i].client); i > 0 {
					opts.Proposals = append(opts.Proposals, Add{packages[i].KeyPackage()})
				}
			}
			alice, bob := team[0], team[1]
			alice.create()
			out := alice.commit(opts)
			for i, m := range team[1:] {
				m.join(out, packages[i+1])
			}
			agree(t, team)
			s := newShadow(alice, GroupInfoOptions{})
			chain, err := s.verifyChain(judge, 2)
			if err != nil || chain != "member 2" {
				t.Errorf("%q, %v", chain, err)
			}

			// Bob gets a new key and a certificate for it, Carol joins by herself.
			renewed := bob.client
			renewed.Signer = newClient(t, id, "").Signer
			renewed.Credential = X509Credential(ca.issue("member 1", renewed.Signer.Public())...)
			out = bob.commit(CommitOptions{Leaf: &renewed})
			bob.client = renewed
			tell(team, bob, out)
			s.process(out.Message)
			carol := newCertified(t, id, ca, "carol", config)
			message := carol.joinExternal(alice.groupInfo(GroupInfoOptions{}), ExternalJoinOptions{})
			for _, m := range team {
				m.process(message)
				m.reload()
			}
			s.process(message)
			s.reload()
			team = append(team, carol)
			agree(t, team)
			chat(t, team)
			s.agrees(carol)

			// Bob takes the name of another.
			other := bob.client
			other.Credential = X509Credential(ca.issue("member 2", other.Signer.Public())...)
			bob.group.config.Authenticator = nil
			p, err := bob.group.Commit(CommitOptions{Leaf: &other})
			if err != nil {
				t.Fatal(err)
			}
			message = p.Result().Message
			p.Discard()
			bob.group.config.Authenticator = judge
			unchanged(t, "another's name", alice.group.dump, func() { alice.processFails(message, ErrCredential) })
			unchanged(t, "another's name", s.follower.dump, func() { s.refuses(message, ErrCredential, ErrCredential) })

			refuseCertificates(t, id, ca, judge, team, s)
		})
	}
}

// verifyChain judges the certificates of a member as a follower sees them.
func (s *shadow) verifyChain(r *registry, i LeafIndex) (string, error) {
	m, ok := s.follower.Member(i)
	if !ok {
		return "", errors.New("no member")
	}
	return r.verify(m.LeafNode)
}

// refuseCertificates lets members with bad chains try to come in.
func refuseCertificates(t *testing.T, id CipherSuite, ca *authority, judge *registry, team []*member, s *shadow) {
	alice, bob := team[0], team[1]
	for _, tc := range []struct {
		name  string
		chain func(key []byte) [][]byte
		now   time.Time
	}{
		{"another authority", func(key []byte) [][]byte { return newAuthority(t, id).issue("dave", key) }, issued},
		{"another key", func([]byte) [][]byte { return ca.issue("dave", newClient(t, id, "").Signer.Public()) }, issued},
		{"expired", func(key []byte) [][]byte { return ca.issue("dave", key) }, issued.AddDate(0, 0, 2)},
		{"not valid yet", func(key []byte) [][]byte { return ca.issue("dave", key) }, issued.AddDate(0, 0, -1)},
		{"no intermediate", func(key []byte) [][]byte { return ca.issue("dave", key)[:1] }, issued},
		{"issuer first", func(key []byte) [][]byte {
			chain := ca.issue("dave", key)
			return [][]byte{chain[1], chain[0]}
		}, issued},
		{"no certificate", func([]byte) [][]byte { return nil }, issued},
		{"no DER", func([]byte) [][]byte { return [][]byte{[]byte("certificate")} }, issued},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dave := newMemberOf(t, id, "dave", Config{PublicHandshakes: true})
			dave.client.Credential = X509Credential(tc.chain(dave.client.Signer.Public())...)
			kp := newKeyPackage(t, dave.client)
			opts := CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}}
			judge.now = tc.now
			defer func() { judge.now = issued }()
			unchanged(t, "inviting", alice.group.dump, func() {
				if _, err := alice.group.Commit(opts); !errors.Is(err, ErrCredential) {
					t.Errorf("invited: %v", err)
				}
			})
			// A member who doesn't care invites nevertheless, or dave comes by himself.
			alice.group.config.Authenticator = nil
			p, err := alice.group.Commit(opts)
			if err != nil {
				t.Fatal(err)
			}
			out := p.Result()
			p.Discard()
			alice.group.config.Authenticator = judge
			external := dave.joinExternal(alice.groupInfo(GroupInfoOptions{}), ExternalJoinOptions{})
			for _, message := range [][]byte{out.Message, external} {
				unchanged(t, "a member's Process", bob.group.dump, func() { bob.processFails(message, ErrCredential) })
				unchanged(t, "a follower's Process", s.follower.dump, func() { s.refuses(message, ErrCredential, ErrCredential) })
			}
			if _, err := Join(out.Welcome, kp, dave.client.Signer, nil, Config{Authenticator: judge}); !errors.Is(err, ErrCredential) {
				t.Errorf("joined: %v", err)
			}
		})
	}
	agree(t, team)

	// Certificates that end leave the members where they are; who comes then, and finds
	// them, refuses.
	judge.now = issued.AddDate(0, 0, 2)
	tell(team, bob, bob.commit(CommitOptions{}))
	agree(t, team)
	late := newCertified(t, id, ca, "late", Config{Authenticator: judge})
	if _, err := JoinExternal(alice.groupInfo(GroupInfoOptions{}), late.client, ExternalJoinOptions{}, late.config); !errors.Is(err, ErrCredential) {
		t.Errorf("joined a group of yesterday: %v", err)
	}
}

// Groups of members with certificates and such without: each has to list the
// credential types of all (§7.3, §12.2).
func TestMixedCredentials(t *testing.T) {
	ca := newAuthority(t, testSuite)
	config := Config{PublicHandshakes: true, Authenticator: newRegistry(ca)}
	both := []CredentialType{CredentialBasic, CredentialX509}
	basic := func(name string, types ...CredentialType) *member {
		m := newMemberOf(t, testSuite, name, config)
		m.client.Capabilities.Credentials = types
		return m
	}
	certified := func(name string, types ...CredentialType) *member {
		m := newCertified(t, testSuite, ca, name, config)
		m.client.Capabilities.Credentials = types
		return m
	}
	alice := basic("alice", both...)
	alice.create()
	team := []*member{alice}
	s := newShadow(alice, GroupInfoOptions{})
	add := func(m *member) {
		t.Helper()
		kp := newKeyPackage(t, m.client)
		out := alice.commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}})
		tell(team, alice, out)
		s.process(out.Message)
		m.join(out, kp)
		team = append(team, m)
		agree(t, team)
		s.agrees(alice)
	}
	add(basic("bob", both...))
	refused := func(m *member) {
		t.Helper()
		proposal := Add{newKeyPackage(t, m.client).KeyPackage()}
		unchanged(t, "inviting", alice.group.dump, func() {
			if _, err := alice.group.Commit(CommitOptions{Proposals: []Proposal{proposal}}); !errors.Is(err, ErrCapabilities) {
				t.Errorf("invited: %v", err)
			}
		})
		forged := alice.forgeCommit(byValue(proposal))
		unchanged(t, "a member's Process", team[1].group.dump, func() { team[1].processFails(forged, ErrCapabilities) })
		unchanged(t, "a follower's Process", s.follower.dump, func() { s.refuses(forged, ErrCapabilities, ErrCapabilities) })
		if _, err := JoinExternal(alice.groupInfo(GroupInfoOptions{}), m.client, ExternalJoinOptions{}, config); !errors.Is(err, ErrCapabilities) {
			t.Errorf("joined by itself: %v", err)
		}
	}
	refused(certified("doesn't list basic", CredentialX509))
	refused(certified("doesn't list its own", CredentialBasic))
	add(certified("carol", both...))
	refused(basic("doesn't list X.509", CredentialBasic))
	chat(t, team)

	// Without certificates in the group, one need not know of them; then nobody with one
	// can come.
	out := alice.commit(CommitOptions{Proposals: []Proposal{Remove{2}}})
	tell(team, alice, out)
	s.process(out.Message)
	team = team[:2]
	add(basic("dora", CredentialBasic))
	emil := certified("emil", both...)
	refused(emil)

	// Nor can a member bring such a credential in by a path of its own, or one who doesn't
	// keep to the rules and joins.
	change := alice.client
	change.Credential = X509Credential(ca.issue("alice", change.Signer.Public())...)
	unchanged(t, "a new credential type", alice.group.dump, func() {
		if _, err := alice.group.Commit(CommitOptions{Leaf: &change}); !errors.Is(err, ErrCapabilities) {
			t.Errorf("committed: %v", err)
		}
	})
	rejected := func(message []byte) {
		t.Helper()
		unchanged(t, "a member's Process", team[2].group.dump, func() { team[2].processFails(message, ErrCapabilities) })
		unchanged(t, "a follower's Process", s.follower.dump, func() { s.refuses(message, ErrCapabilities, ErrCapabilities) })
	}
	p, err := alice.group.Commit(CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rejected(withCredential(t, alice, p.Result().Message, change.Credential, alice.forge))
	p.Discard()
	emil.client.Credential = BasicCredential([]byte("emil"))
	message := emil.joinExternal(alice.groupInfo(GroupInfoOptions{}), ExternalJoinOptions{})
	rejected(withCredential(t, emil, message, X509Credential(ca.issue("emil", emil.client.Signer.Public())...), func(c *framedContent, _ []byte) []byte {
		return emil.signOutside(c, alice.group.Context())
	}))
}

// withCredential changes the credential in the path of a commit, and signs the leaf and
// the commit again.
func withCredential(t *testing.T, m *member, message []byte, credential Credential, forge func(*framedContent, []byte) []byte) []byte {
	t.Helper()
	decoded, err := UnmarshalMessage(message)
	if err != nil {
		t.Fatal(err)
	}
	c := decoded.public.content
	f := c.commit.path.leaf.fields()
	f.credential = credential
	if c.commit.path.leaf, err = f.sign(m.client.Signer, m.group.ID(), m.group.OwnLeaf()); err != nil {
		t.Fatal(err)
	}
	return forge(c, nil)
}
