package mlsharness

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"iter"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/mls"
)

// actor is one client in one group, from its key package on: the transactions and states
// of the protocol, which share their numbers.
type actor struct {
	client       mls.Client
	signatureKey []byte
	psks         map[string][]byte

	keyPackage *mls.PrivateKeyPackage // until it is used
	closed     *mls.Group             // the group that the key package continues (§11.2)
	group      *mls.Group
	encrypts   bool // handshakes

	// proposals were taken in for a commit; a PrivateMessage can be read once only.
	proposals map[[sha256.Size]byte]bool
}

func newActor(suite uint32, identity []byte) (*actor, error) {
	id, err := suiteOf(suite)
	if err != nil {
		return nil, err
	}
	key, err := mls.GenerateSignatureKey(id, beyond...)
	if err != nil {
		return nil, err
	}
	signer, err := mls.NewSigner(id, key, beyond...)
	if err != nil {
		return nil, err
	}
	return &actor{
		client: mls.Client{
			CipherSuite:  id,
			Signer:       signer,
			Credential:   mls.BasicCredential(identity),
			Capabilities: capabilities(),
		},
		signatureKey: key,
		psks:         map[string][]byte{},
		proposals:    map[[sha256.Size]byte]bool{},
	}, nil
}

// capabilities are those of all actors.
func capabilities() mls.Capabilities {
	return mls.Capabilities{
		Versions:     []mls.ProtocolVersion{mls.MLS10},
		CipherSuites: suites,
		Credentials:  []mls.CredentialType{mls.CredentialBasic},
	}
}

func (s *server) add(a *actor) uint32 {
	id := s.nextID()
	s.actors[id] = a
	return id
}

// config is how the actor takes part; it remembers for successors whether handshakes
// are encrypted.
func (a *actor) config(encrypts bool) mls.Config {
	a.encrypts = encrypts
	return mls.Config{
		PublicHandshakes: !encrypts,
		Suites:           beyond,
		PreSharedKey: func(id mls.PreSharedKeyID) ([]byte, error) {
			if secret, ok := a.psks[string(id.ID)]; ok && id.Type == mls.PSKExternal {
				return secret, nil
			}
			return nil, mls.ErrPreSharedKey
		},
	}
}

// waits makes the key package by which the actor will join, and returns it encoded.
func (a *actor) waits() ([]byte, error) {
	kp, err := mls.NewKeyPackage(a.client, mls.KeyPackageOptions{Suites: beyond})
	if err != nil {
		return nil, err
	}
	a.keyPackage = kp
	return wrap(kp.KeyPackage())
}

func (a *actor) joined(group *mls.Group) {
	a.group, a.keyPackage, a.closed = group, nil, nil
}

// process takes in a message at once: nothing is stored here.
func (a *actor) process(message []byte) (mls.Event, error) {
	p, err := a.group.Process(message)
	if err != nil {
		return nil, err
	}
	return p.Done(), nil
}

// takeIn processes the proposals that a commit refers to, unless it has seen them.
func (a *actor) takeIn(proposals [][]byte) error {
	for i, message := range proposals {
		hash := sha256.Sum256(message)
		if a.proposals[hash] {
			continue
		}
		event, err := a.process(message)
		if err != nil {
			return fmt.Errorf("proposal %d: %w", i, err)
		}
		switch event := event.(type) {
		case *mls.ReceivedProposal:
		case *mls.OwnMessage:
			if event.ContentType != mls.ContentTypeProposal {
				return status.Errorf(codes.InvalidArgument, "proposal %d is %v", i, event.ContentType)
			}
		default:
			return status.Errorf(codes.InvalidArgument, "proposal %d is a %T", i, event)
		}
		a.proposals[hash] = true
	}
	return nil
}

// wrap encodes a key package as an MLSMessage.
func wrap(kp *mls.KeyPackage) ([]byte, error) {
	body, err := kp.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return append([]byte{0, byte(mls.MLS10), 0, byte(mls.WireFormatKeyPackage)}, body...), nil
}

func unwrap(message []byte) (*mls.KeyPackage, error) {
	m, err := mls.UnmarshalMessage(message, beyond...)
	if err != nil {
		return nil, err
	}
	if m.KeyPackage() == nil {
		return nil, status.Errorf(codes.InvalidArgument, "wire format %d is no key package", m.WireFormat())
	}
	return m.KeyPackage(), nil
}

func unwrapAll(messages [][]byte) ([]*mls.KeyPackage, error) {
	var list []*mls.KeyPackage
	for _, message := range messages {
		kp, err := unwrap(message)
		if err != nil {
			return nil, err
		}
		list = append(list, kp)
	}
	return list, nil
}

// view is what proposals are made from: a group as its members see it, or others.
type view interface {
	ID() []byte
	Epoch() uint64
	CipherSuite() mls.CipherSuite
	Members() iter.Seq[mls.Member]
}

func isNamed(m mls.Member, identity []byte) bool {
	return bytes.Equal(m.LeafNode.Credential().Data, identity)
}

// orNil is nil for a field that was not set: protobuf doesn't tell it from an empty one.
func orNil(data []byte) []byte {
	if len(data) == 0 {
		return nil
	}
	return data
}
