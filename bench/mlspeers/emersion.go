package main

import (
	"github.com/emersion/go-mls"

	"github.com/go-xmtp/go-xmtp/bench/internal/mlsbench"
)

// emersion is github.com/emersion/go-mls. It has no commits but for adding, and a
// key package comes with a fresh signature key.
func emersion() mlsbench.Library {
	return mlsbench.Library{Name: "emersion/go-mls", NewClient: func(name string) (mlsbench.Client, error) {
		return &emersionClient{name: name}, nil
	}}
}

type emersionClient struct {
	name string
	keys *mls.KeyPairPackage
}

func (c *emersionClient) KeyPackage() (_ []byte, err error) {
	c.keys, err = mls.GenerateKeyPairPackage(
		mls.CipherSuiteMLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519, mls.NewBasicCredential([]byte(c.name)))
	if err != nil {
		return nil, err
	}
	return c.keys.Public.Bytes(), nil
}

func (c *emersionClient) Create() (mlsbench.Group, error) {
	if _, err := c.KeyPackage(); err != nil {
		return nil, err
	}
	g, err := mls.CreateGroup(mls.GroupID("a group of benchmarks"), c.keys)
	return &emersionGroup{g}, err
}

func (c *emersionClient) Join(welcome []byte) (mlsbench.Group, error) {
	w, err := mls.UnmarshalWelcome(welcome)
	if err != nil {
		return nil, err
	}
	g, err := mls.GroupFromWelcome(w, c.keys)
	return &emersionGroup{g}, err
}

type emersionGroup struct{ *mls.Group }

func (g *emersionGroup) Add(keyPackages [][]byte) ([]byte, error) {
	list := make([]mls.KeyPackage, len(keyPackages))
	for i, b := range keyPackages {
		kp, err := mls.UnmarshalKeyPackage(b)
		if err != nil {
			return nil, err
		}
		list[i] = *kp
	}
	welcome, commit, err := g.CreateWelcome(list)
	if err != nil {
		return nil, err
	}
	_, err = g.UnmarshalAndProcessMessage(commit)
	return welcome.Bytes(), err
}

func (g *emersionGroup) Commit() ([]byte, error)      { return nil, mlsbench.ErrUnsupported }
func (g *emersionGroup) ProcessCommit(b []byte) error { return mlsbench.ErrUnsupported }
func (g *emersionGroup) Encrypt(text []byte) ([]byte, error) {
	return g.CreateApplicationMessage(text)
}
func (g *emersionGroup) Decrypt(message []byte) ([]byte, error) {
	return g.UnmarshalAndProcessMessage(message)
}
