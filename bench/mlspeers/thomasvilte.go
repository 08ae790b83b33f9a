package main

import (
	"context"
	"errors"

	"github.com/thomas-vilte/mls-go/ciphersuite"
	"github.com/thomas-vilte/mls-go/credentials"
	"github.com/thomas-vilte/mls-go/framing"
	"github.com/thomas-vilte/mls-go/group"
	"github.com/thomas-vilte/mls-go/keypackages"
	"github.com/thomas-vilte/mls-go/treesync"

	"github.com/go-xmtp/go-xmtp/bench/internal/mlsbench"
)

// thomasVilte is github.com/thomas-vilte/mls-go, by its package group: what its Client
// adds, storing the whole group after each operation, is left out.
func thomasVilte() mlsbench.Library {
	return mlsbench.Library{Name: "thomas-vilte/mls-go", NewClient: func(name string) (mlsbench.Client, error) {
		credential, key, err := credentials.GenerateCredentialWithKeyForCS([]byte(name), ciphersuite.MLS128DHKEMX25519)
		return &vilteClient{credential: credential, key: key}, err
	}}
}

type vilteClient struct {
	credential *credentials.CredentialWithKey
	key        *ciphersuite.SignaturePrivateKey
	keyPackage *keypackages.KeyPackage
	private    *keypackages.KeyPackagePrivateKeys
}

func (c *vilteClient) KeyPackage() (_ []byte, err error) {
	c.keyPackage, c.private, err = keypackages.Generate(c.credential, ciphersuite.MLS128DHKEMX25519)
	if err != nil {
		return nil, err
	}
	return c.keyPackage.Marshal(), nil
}

func (c *vilteClient) Create() (mlsbench.Group, error) {
	kp, private, err := keypackages.Generate(c.credential, ciphersuite.MLS128DHKEMX25519)
	if err != nil {
		return nil, err
	}
	id, err := group.NewGroupIDRandom()
	if err != nil {
		return nil, err
	}
	g, err := group.NewGroup(id, ciphersuite.MLS128DHKEMX25519, kp, private)
	return &vilteGroup{g, c.key}, err
}

func (c *vilteClient) Join(welcome []byte) (mlsbench.Group, error) {
	m, err := framing.UnmarshalMLSMessage(welcome)
	if err != nil {
		return nil, err
	}
	w, err := group.UnmarshalWelcome(m.Welcome)
	if err != nil {
		return nil, err
	}
	g, err := group.JoinFromWelcomeWithContext(context.Background(), w, c.keyPackage, c.private, nil)
	return &vilteGroup{g, c.key}, err
}

type vilteGroup struct {
	*group.Group
	key *ciphersuite.SignaturePrivateKey
}

// commit commits what was proposed and merges that.
func (g *vilteGroup) commit() (*group.StagedCommit, []byte, *ciphersuite.Secret, error) {
	staged, err := g.Group.Commit(g.key, g.key.PublicKey(), nil)
	if err != nil {
		return nil, nil, nil, err
	}
	joiner := staged.JoinerSecret()
	if err := g.MergeCommit(staged); err != nil {
		return nil, nil, nil, err
	}
	m := framing.NewMLSMessagePublic(&framing.PublicMessage{
		Content:       staged.AuthenticatedContent().Content,
		Auth:          staged.AuthenticatedContent().Auth,
		MembershipTag: staged.MembershipTag(),
	})
	return staged, m.Marshal(), joiner, nil
}

func (g *vilteGroup) Add(keyPackages [][]byte) ([]byte, error) {
	list := make([]*keypackages.KeyPackage, len(keyPackages))
	for i, b := range keyPackages {
		kp, err := keypackages.UnmarshalKeyPackage(b)
		if err != nil {
			return nil, err
		}
		if _, err := g.AddMember(kp); err != nil {
			return nil, err
		}
		list[i] = kp
	}
	staged, _, joiner, err := g.commit()
	if err != nil {
		return nil, err
	}
	welcome, err := g.CreateWelcomeWithOpts(list, g.key, group.WithJoinerSecret(joiner),
		group.WithPSKIDs(staged.PskIDs()), group.WithPSKSecret(staged.RawPskSecret()), group.WithStagedCommit(staged))
	if err != nil {
		return nil, err
	}
	m := framing.MLSMessage{Welcome: welcome.Marshal()}
	return m.Marshal(), nil
}

func (g *vilteGroup) Commit() ([]byte, error) {
	_, message, _, err := g.commit()
	return message, err
}

func (g *vilteGroup) ProcessCommit(commit []byte) error {
	m, err := framing.UnmarshalMLSMessage(commit)
	if err != nil {
		return err
	}
	public, ok := m.AsPublic()
	if !ok {
		return errors.New("no PublicMessage")
	}
	context := g.GroupContext().Marshal()
	if err := public.VerifyMembershipTagWithContext(g.CipherSuite(), g.EpochSecrets().MembershipKey, context); err != nil {
		return err
	}
	return g.ProcessReceivedCommit(&framing.AuthenticatedContent{
		WireFormat: framing.WireFormatPublicMessage, Content: public.Content, Auth: public.Auth, GroupContext: context,
	}, treesync.LeafIndex(public.Content.Sender.LeafIndex), g.MyLeafEncryptionKey())
}

func (g *vilteGroup) Encrypt(text []byte) ([]byte, error) {
	m, err := g.SendMessage(text, g.key)
	if err != nil {
		return nil, err
	}
	return framing.NewMLSMessagePrivate(m).Marshal(), nil
}

func (g *vilteGroup) Decrypt(message []byte) ([]byte, error) {
	m, err := framing.UnmarshalMLSMessage(message)
	if err != nil {
		return nil, err
	}
	private, ok := m.AsPrivate()
	if !ok {
		return nil, errors.New("no PrivateMessage")
	}
	text, _, _, err := g.ReceiveApplicationMessage(private)
	return text, err
}
