// Package schedule is the key schedule of MLS (RFC 9420 §8).
//
// Functions return fresh secrets and leave their inputs alone: the caller
// wipes what is spent. GroupContext and the other structures that go into
// hashes are passed encoded.
package schedule

import (
	"fmt"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// JoinerSecret derives the joiner_secret of an epoch from the init_secret of the
// last one, the commit_secret and the GroupContext of the new one.
func JoinerSecret(s *suite.Suite, initSecret, commitSecret, groupContext []byte) suite.Secret {
	extracted := s.Extract(initSecret, commitSecret)
	defer extracted.Wipe()
	joiner := make(suite.Secret, s.HashSize())
	s.ExpandWithLabel(joiner, extracted, "joiner", groupContext)
	return joiner
}

// MemberSecret derives the secret from which both welcome_secret and
// epoch_secret come, and which the RFC leaves without a name.
func MemberSecret(s *suite.Suite, joinerSecret, pskSecret []byte) suite.Secret {
	return s.Extract(joinerSecret, pskSecret)
}

// WelcomeKey derives the key of the GroupInfo in a Welcome (§12.4.3.1).
func WelcomeKey(s *suite.Suite, memberSecret []byte) suite.Key {
	welcome := WelcomeSecret(s, memberSecret)
	defer welcome.Wipe()
	return s.ExpandKey(welcome, nil)
}

// WelcomeSecret derives the welcome_secret.
func WelcomeSecret(s *suite.Suite, memberSecret []byte) suite.Secret {
	return s.DeriveSecret(memberSecret, "welcome")
}

// EpochSecret derives the epoch_secret of the epoch of groupContext.
func EpochSecret(s *suite.Suite, memberSecret, groupContext []byte) suite.Secret {
	epoch := make(suite.Secret, s.HashSize())
	s.ExpandWithLabel(epoch, memberSecret, "epoch", groupContext)
	return epoch
}

// Epoch holds the secrets that come from an epoch_secret (§8, table 4), each of
// Nh bytes. A member drops those that it has no more use for by [suite.Secret.Wipe]
// and setting them to nil.
type Epoch struct {
	SenderData    suite.Secret
	Encryption    suite.Secret
	Exporter      suite.Secret
	External      suite.Secret
	Confirmation  suite.Secret
	Membership    suite.Secret
	Resumption    suite.Secret
	Authenticator suite.Secret
	Init          suite.Secret
}

// Derive derives the secrets of an epoch.
func Derive(s *suite.Suite, epochSecret []byte) *Epoch {
	e := new(Epoch)
	n := s.HashSize()
	all := make(suite.Secret, len(epochLabels)*n)
	for i, f := range e.fields() {
		secret := all[:n:n]
		all = all[n:]
		s.ExpandWithLabel(secret, epochSecret, epochLabels[i], nil)
		*f = secret
	}
	return e
}

var epochLabels = [...]string{
	"sender data", "encryption", "exporter", "external", "confirm",
	"membership", "resumption", "authentication", "init",
}

// fields lists the secrets in the order of epochLabels.
func (e *Epoch) fields() [len(epochLabels)]*suite.Secret {
	return [...]*suite.Secret{
		&e.SenderData, &e.Encryption, &e.Exporter, &e.External, &e.Confirmation,
		&e.Membership, &e.Resumption, &e.Authenticator, &e.Init,
	}
}

// Wipe overwrites and drops all secrets.
func (e *Epoch) Wipe() {
	for _, f := range e.fields() {
		f.Wipe()
		*f = nil
	}
}

// Append appends the encoding of e for storage: nine opaque<V>, empty for a
// dropped secret.
func (e *Epoch) Append(b []byte) []byte {
	for _, f := range e.fields() {
		b = wire.AppendOpaque(b, *f)
	}
	return b
}

// Read reads what [Epoch.Append] wrote. Failures are left in r; a secret of a
// length that s doesn't have is one.
func Read(s *suite.Suite, r *wire.Reader) *Epoch {
	e := new(Epoch)
	for _, f := range e.fields() {
		secret := r.Opaque()
		switch len(secret) {
		case 0:
		case s.HashSize():
			*f = append(suite.Secret(nil), secret...)
		default:
			r.Fail(fmt.Errorf("epoch secret of %d bytes", len(secret)))
		}
	}
	return e
}

// Export is MLS-Exporter (§8.5) over the exporter_secret. It fails for a length
// above 255 times Nh bytes.
func Export(s *suite.Suite, exporterSecret []byte, label string, context []byte, length int) (suite.Secret, error) {
	if length < 0 || length > 255*s.HashSize() {
		return nil, fmt.Errorf("cannot export %d bytes", length)
	}
	secret := s.DeriveSecret(exporterSecret, label)
	defer secret.Wipe()
	out := make(suite.Secret, length)
	s.ExpandWithLabel(out, secret, "exported", s.Hash(nil, context))
	return out, nil
}

// externalInit is the exporter context of §8.3.
const externalInit = "MLS 1.0 external init secret"

// SendExternalInit makes the init_secret of an external commit to a group whose
// external_pub is public (§8.3).
func SendExternalInit(s *suite.Suite, public []byte) (kemOutput []byte, initSecret suite.Secret, err error) {
	kemOutput, c, err := s.HPKE().NewSender(public, s.HPKE().Info())
	if err != nil {
		return nil, nil, err
	}
	defer c.Wipe()
	initSecret, err = c.Export([]byte(externalInit), s.HashSize())
	return kemOutput, initSecret, err
}

// ReceiveExternalInit recovers the init_secret with the key pair that belongs
// to the external_secret ([suite.Suite.DeriveKeyPair]).
func ReceiveExternalInit(s *suite.Suite, key hpke.KeyPair, kemOutput []byte) (suite.Secret, error) {
	c, err := s.HPKE().NewRecipient(key, kemOutput, s.HPKE().Info())
	if err != nil {
		return nil, err
	}
	defer c.Wipe()
	return c.Export([]byte(externalInit), s.HashSize())
}
