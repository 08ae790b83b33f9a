package mlsbench

import (
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls"
)

// Ours is package mls. What is to be stored is made with each operation, as an
// application would.
func Ours() Library {
	return Library{Name: "ours", NewClient: func(name string) (Client, error) {
		const suite = mls.X25519AES128SHA256Ed25519
		private, err := mls.GenerateSignatureKey(suite)
		if err != nil {
			return nil, err
		}
		signer, err := mls.NewSigner(suite, private)
		if err != nil {
			return nil, err
		}
		return &client{Client: mls.Client{CipherSuite: suite, Signer: signer, Credential: mls.BasicCredential([]byte(name))}}, nil
	}}
}

var config = mls.Config{PublicHandshakes: true}

type client struct {
	mls.Client
	keys *mls.PrivateKeyPackage
}

func (c *client) KeyPackage() ([]byte, error) {
	var err error
	if c.keys, err = mls.NewKeyPackage(c.Client, mls.KeyPackageOptions{}); err != nil {
		return nil, err
	}
	return c.keys.KeyPackage().MarshalBinary()
}

func (c *client) Create() (Group, error) {
	g, err := done(mls.New([]byte("a group of benchmarks"), c.Client, nil, config))
	return &group{g}, err
}

func (c *client) Join(welcome []byte) (Group, error) {
	joined, err := done(mls.Join(welcome, c.keys, c.Signer, nil, config))
	if err != nil {
		return nil, err
	}
	return &group{joined.Group}, nil
}

// done does what an application does with a pending result.
func done[T any](p *mls.Pending[T], err error) (result T, _ error) {
	if err != nil {
		return result, err
	}
	p.Changes()
	return p.Done(), nil
}

type group struct{ *mls.Group }

func (g *group) commit(opts mls.CommitOptions) (*mls.OutgoingCommit, error) {
	out, err := done(g.Group.Commit(opts))
	if err != nil {
		return nil, err
	}
	_, err = done(g.MergeOwnCommit())
	return out, err
}

func (g *group) Add(keyPackages [][]byte) ([]byte, error) {
	var opts mls.CommitOptions
	for _, b := range keyPackages {
		kp, err := mls.UnmarshalKeyPackage(b)
		if err != nil {
			return nil, err
		}
		opts.Proposals = append(opts.Proposals, mls.Add{KeyPackage: kp})
	}
	out, err := g.commit(opts)
	if err != nil {
		return nil, err
	}
	return out.Welcome, nil
}

func (g *group) Commit() ([]byte, error) {
	out, err := g.commit(mls.CommitOptions{})
	if err != nil {
		return nil, err
	}
	return out.Message, nil
}

func (g *group) ProcessCommit(commit []byte) error {
	event, err := done(g.Process(commit))
	if _, ok := event.(*mls.StagedCommit); err == nil && !ok {
		return fmt.Errorf("a commit is a %T", event)
	}
	return err
}

func (g *group) Encrypt(text []byte) ([]byte, error) { return done(g.Group.Encrypt(text, nil)) }

func (g *group) Decrypt(message []byte) ([]byte, error) {
	event, err := done(g.Process(message))
	if err != nil {
		return nil, err
	}
	m, ok := event.(*mls.ApplicationMessage)
	if !ok {
		return nil, fmt.Errorf("a message is a %T", event)
	}
	return m.Data, nil
}
