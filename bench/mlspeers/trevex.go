package main

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"

	"github.com/trevex/mls-go/mls/cipher"
	"github.com/trevex/mls-go/mls/group"
	"github.com/trevex/mls-go/mls/tree"

	"github.com/go-xmtp/go-xmtp/bench/internal/mlsbench"
)

// trevex is github.com/trevex/mls-go.
func trevex() mlsbench.Library {
	return mlsbench.Library{Name: "trevex/mls-go", NewClient: func(name string) (mlsbench.Client, error) {
		suite, ok := cipher.Lookup(cipher.X25519_AES128GCM_SHA256_Ed25519)
		if !ok {
			return nil, errors.New("no suite 1")
		}
		_, signer, err := ed25519.GenerateKey(rand.Reader)
		credential := tree.Credential{CredentialType: tree.CredentialTypeBasic, Identity: []byte(name)}
		return &trevexClient{suite: suite, signer: signer, credential: credential}, err
	}}
}

type trevexClient struct {
	suite            cipher.Suite
	signer           crypto.Signer
	credential       tree.Credential
	keyPackage       []byte
	initKey, leafKey []byte
}

var trevexLifetime = tree.Lifetime{NotBefore: 0, NotAfter: ^uint64(0)}

func (c *trevexClient) KeyPackage() ([]byte, error) {
	kp, initKey, leafKey, err := group.NewKeyPackage(c.suite, c.credential, c.signer, trevexLifetime)
	if err != nil {
		return nil, err
	}
	c.initKey, c.leafKey = initKey, leafKey
	c.keyPackage, err = group.EncodeKeyPackageMessage(kp)
	return c.keyPackage, err
}

func (c *trevexClient) Create() (mlsbench.Group, error) {
	g, err := group.NewGroup(c.suite, []byte("a group of benchmarks"), c.credential, c.signer, trevexLifetime)
	return &trevexGroup{g}, err
}

func (c *trevexClient) Join(welcome []byte) (mlsbench.Group, error) {
	g, err := group.JoinFromWelcome(c.suite, welcome, group.JoinOptions{
		KeyPackage: c.keyPackage, InitPriv: c.initKey, EncryptionPriv: c.leafKey, Signer: c.signer,
	})
	return &trevexGroup{g}, err
}

type trevexGroup struct{ *group.Group }

func (g *trevexGroup) Add(keyPackages [][]byte) ([]byte, error) {
	var opts group.CommitOptions
	for _, b := range keyPackages {
		kp, err := group.DecodeKeyPackageMessage(b)
		if err != nil {
			return nil, err
		}
		opts.ByValue = append(opts.ByValue, group.ProposeAdd(kp))
	}
	_, welcome, err := g.Group.Commit(opts)
	return welcome, err
}

func (g *trevexGroup) Commit() ([]byte, error) {
	commit, _, err := g.Group.Commit(group.CommitOptions{})
	return commit, err
}

func (g *trevexGroup) ProcessCommit(commit []byte) error {
	return g.Group.ProcessCommit(nil, commit)
}

func (g *trevexGroup) Encrypt(text []byte) ([]byte, error) { return g.ProtectApplication(text, nil) }

func (g *trevexGroup) Decrypt(message []byte) ([]byte, error) {
	text, _, err := g.UnprotectApplication(message)
	return text, err
}
