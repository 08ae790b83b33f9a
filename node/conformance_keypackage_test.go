package node_test

import (
	"bytes"
	"crypto/ed25519"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/credential"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

const suite = mls.X25519ChaChaSHA256Ed25519

// keyPackageOptions are what tests change in a key package.
type keyPackageOptions struct {
	inbox      string
	notBefore  time.Time // an hour ago if zero
	notAfter   time.Time // in 84 days if zero
	credential *mls.Credential
	padding    int // bytes in an extension that nobody reads
}

// newKeyPackage makes a key package as an installation uploads it.
func newKeyPackage(t testing.TB, installation ed25519.PrivateKey, o keyPackageOptions) []byte {
	t.Helper()
	signer := must(mls.NewSigner(suite, installation.Seed()))(t)
	if o.credential == nil {
		identity := must(proto.Marshal(&credential.MlsCredential{InboxId: o.inbox}))(t)
		basic := mls.BasicCredential(identity)
		o.credential = &basic
	}
	if o.notBefore.IsZero() {
		o.notBefore = time.Now().Add(-time.Hour)
	}
	if o.notAfter.IsZero() {
		o.notAfter = time.Now().Add(84 * 24 * time.Hour)
	}
	kp := must(mls.NewKeyPackage(
		mls.Client{
			CipherSuite:  suite,
			Signer:       signer,
			Credential:   *o.credential,
			Capabilities: mls.Capabilities{Extensions: []mls.ExtensionType{mls.ExtensionLastResort}},
		},
		mls.KeyPackageOptions{
			Lifetime:   mls.Lifetime{NotBefore: uint64(o.notBefore.Unix()), NotAfter: uint64(o.notAfter.Unix())},
			Extensions: []mls.Extension{{Type: mls.ExtensionLastResort}, {Type: mls.ExtensionApplicationID, Data: make([]byte, o.padding)}},
		},
	))(t)
	return must(kp.KeyPackage().MarshalBinary())(t)
}

func uploadRequest(keyPackage []byte) *mlsapi.UploadKeyPackageRequest {
	return &mlsapi.UploadKeyPackageRequest{
		KeyPackage:          &mlsapi.KeyPackageUpload{KeyPackageTlsSerialized: keyPackage},
		IsInboxIdCredential: true,
	}
}

func publicKey(installation ed25519.PrivateKey) []byte {
	return installation.Public().(ed25519.PublicKey)
}

// fetch returns what is served for installation keys; empty where there is nothing.
func (c *client) fetch(t testing.TB, keys ...[]byte) [][]byte {
	t.Helper()
	res := must(c.mls.FetchKeyPackages(short(t), &mlsapi.FetchKeyPackagesRequest{InstallationKeys: keys}))(t)
	var packages [][]byte
	for _, kp := range res.KeyPackages {
		packages = append(packages, kp.GetKeyPackageTlsSerialized())
	}
	return packages
}

// wantFetched compares what is served for keys, nil for nothing.
func (c *client) wantFetched(t testing.TB, keys [][]byte, want ...[]byte) {
	t.Helper()
	got := c.fetch(t, keys...)
	if len(got) != len(want) {
		t.Fatalf("%d key packages for %d keys", len(got), len(keys))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("key package %d is another one: %d bytes, want %d", i, len(got[i]), len(want[i]))
		}
	}
}

// K1: an upload without key package is refused.
func TestK1(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	_, err := c.mls.UploadKeyPackage(ctx, &mlsapi.UploadKeyPackageRequest{IsInboxIdCredential: true})
	wantStatus(t, err, codes.InvalidArgument, "no key package")
	_, err = c.mls.RegisterInstallation(ctx, &mlsapi.RegisterInstallationRequest{})
	wantStatus(t, err, codes.InvalidArgument, "no key package")
}

// K2: a key package that others could not use is refused, and what was there stays.
func TestK2(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	key := newInstallation(t)
	good := newKeyPackage(t, key, keyPackageOptions{inbox: "an inbox"})
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(good)))(t)

	flipped := func(at int) []byte {
		b := bytes.Clone(good)
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 1
		return b
	}
	x509 := mls.Credential{Type: mls.CredentialX509, Data: appendVector(nil, []byte("a certificate"))}
	garbled := mls.BasicCredential([]byte{0xff, 0xff, 0xff})
	for name, bad := range map[string][]byte{
		"nothing":                  nil,
		"garbage":                  []byte("no key package"),
		"random":                   random(1600),
		"a byte more":              append(bytes.Clone(good), 0),
		"twice":                    append(bytes.Clone(good), good...),
		"half":                     good[:len(good)/2],
		"a byte less":              good[:len(good)-1],
		"in an MLSMessage":         append([]byte{0, 1, 0, 5}, good...),
		"bad package signature":    flipped(-1),
		"bad init key":             flipped(10),
		"another version":          flipped(1),
		"another suite":            flipped(3),
		"expired":                  newKeyPackage(t, key, keyPackageOptions{notBefore: time.Now().Add(-48 * time.Hour), notAfter: time.Now().Add(-24 * time.Hour)}),
		"not yet valid":            newKeyPackage(t, key, keyPackageOptions{notBefore: time.Now().Add(24 * time.Hour)}),
		"an X.509 credential":      newKeyPackage(t, key, keyPackageOptions{credential: &x509}),
		"of 64 KiB":                newKeyPackage(t, key, keyPackageOptions{padding: 64 << 10}),
		"a credential of no inbox": newKeyPackage(t, key, keyPackageOptions{credential: &garbled}),
	} {
		t.Run(name, func(t *testing.T) {
			c.unchanged(ctx, t, func() {
				_, err := c.mls.UploadKeyPackage(ctx, uploadRequest(bad))
				wantCode(t, err, codes.InvalidArgument)
				_, err = c.mls.RegisterInstallation(ctx, &mlsapi.RegisterInstallationRequest{
					KeyPackage: &mlsapi.KeyPackageUpload{KeyPackageTlsSerialized: bad},
				})
				wantCode(t, err, codes.InvalidArgument)
			})
			c.wantFetched(t, [][]byte{publicKey(key)}, good)
		})
	}
}

// K3: a key package is taken before its inbox has any identity update: clients
// upload first.
func TestK3(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	inbox := newInbox(t)
	kp := newKeyPackage(t, inbox.installation, keyPackageOptions{inbox: inbox.id})
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(kp)))(t)
	must(c.publish(ctx, inbox.register(t)))(t)
	c.wantFetched(t, [][]byte{publicKey(inbox.installation)}, kp)

	other := newInstallation(t)
	kp = newKeyPackage(t, other, keyPackageOptions{inbox: "nobody's"})
	res := must(c.mls.RegisterInstallation(ctx, &mlsapi.RegisterInstallationRequest{
		KeyPackage: &mlsapi.KeyPackageUpload{KeyPackageTlsSerialized: kp},
	}))(t)
	if !bytes.Equal(res.InstallationKey, publicKey(other)) {
		t.Errorf("registered %x, want %x", res.InstallationKey, publicKey(other))
	}
	c.wantFetched(t, [][]byte{publicKey(other)}, kp)
}

// K4: after two uploads the newer one is served, on every connection.
func TestK4(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{}), short(t)
	writer, reader := dial(t, n), dial(t, n)
	key := newInstallation(t)
	for range 20 {
		kp := newKeyPackage(t, key, keyPackageOptions{})
		must(writer.mls.UploadKeyPackage(ctx, uploadRequest(kp)))(t)
		reader.wantFetched(t, [][]byte{publicKey(key)}, kp)
	}
}

// A key package that begins earlier than the stored one is refused: nobody can
// bring a used-up one back.
func TestK4_Older(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	key := newInstallation(t)
	older := newKeyPackage(t, key, keyPackageOptions{notBefore: time.Now().Add(-time.Hour)})
	newer := newKeyPackage(t, key, keyPackageOptions{notBefore: time.Now().Add(-time.Minute)})
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(older)))(t)
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(newer)))(t)
	c.unchanged(ctx, t, func() {
		_, err := c.mls.UploadKeyPackage(ctx, uploadRequest(older))
		wantCode(t, err, codes.InvalidArgument)
	})
	c.wantFetched(t, [][]byte{publicKey(key)}, newer)
}

// K5: each position of the request has its answer, empty for an unknown key.
func TestK5(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	first, second := newInstallation(t), newInstallation(t)
	kp1, kp2 := newKeyPackage(t, first, keyPackageOptions{}), newKeyPackage(t, second, keyPackageOptions{})
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(kp1)))(t)
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(kp2)))(t)
	c.wantFetched(t, [][]byte{publicKey(first), random(32), publicKey(second)}, kp1, nil, kp2)
	c.wantFetched(t, [][]byte{random(32)}, nil)
	c.wantFetched(t, [][]byte{{}, publicKey(second), random(31), random(300)}, nil, kp2, nil, nil)
	c.wantFetched(t, nil)
}

// K6: fetching does not use a key package up.
func TestK6(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	key := newInstallation(t)
	kp := newKeyPackage(t, key, keyPackageOptions{})
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(kp)))(t)
	for range 3 {
		c.wantFetched(t, [][]byte{publicKey(key)}, kp)
	}
}

// K7: a key that is asked for twice is answered twice.
func TestK7(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	key := newInstallation(t)
	kp := newKeyPackage(t, key, keyPackageOptions{})
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(kp)))(t)
	c.wantFetched(t, [][]byte{publicKey(key), publicKey(key), random(32), publicKey(key)}, kp, kp, nil, kp)
}

// K8: the same key package can be uploaded again.
func TestK8(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	key := newInstallation(t)
	kp := newKeyPackage(t, key, keyPackageOptions{})
	for range 3 {
		must(c.mls.UploadKeyPackage(ctx, uploadRequest(kp)))(t)
	}
	c.wantFetched(t, [][]byte{publicKey(key)}, kp)
}
