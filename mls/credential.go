package mls

import (
	"bytes"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Credential is who a member claims to be (§5.3). Data is the body without its
// length prefix: for [CredentialBasic] the identity; for [CredentialX509] the
// encoded certificate list, see [X509Credential]. The package doesn't
// judge credentials: see [Authenticator].
type Credential struct {
	Type CredentialType
	Data []byte
}

// BasicCredential is a basic credential of the given identity (§5.3).
func BasicCredential(identity []byte) Credential {
	return Credential{CredentialBasic, bytes.Clone(identity)}
}

// X509Credential is a credential of a chain of X.509 certificates, each in DER (§5.3): first
// the one whose key is the client's signature key, then each the issuer of the one
// before. That it is so is up to the [Authenticator], as all else about them.
func X509Credential(chain ...[]byte) Credential {
	var list []byte
	for _, certificate := range chain {
		list = wire.AppendOpaque(list, certificate)
	}
	return Credential{CredentialX509, list}
}

// Certificates decodes the chain of an X.509 credential, the leaf's certificate
// first, each in DER (§5.3). It returns [ErrMalformed] for another type.
func (c Credential) Certificates() ([][]byte, error) {
	var certs [][]byte
	r := wire.NewReader(c.Data)
	for r.Left() > 0 {
		certs = append(certs, bytes.Clone(r.Opaque()))
	}
	if c.Type != CredentialX509 {
		r.Fail(ErrMalformed)
	}
	if err := r.Done(); err != nil {
		return nil, malformed("X.509 credential", err)
	}
	return certs, nil
}

func (c Credential) append(b []byte) []byte {
	return wire.AppendOpaque(wire.AppendUint16(b, uint16(c.Type)), c.Data)
}

// readCredential reads a body of any type as one vector: that holds for both
// types of the RFC, and is how unknown ones are commonly read.
func readCredential(r *wire.Reader) Credential {
	c := Credential{CredentialType(r.Uint16()), r.Opaque()}
	if c.Type != CredentialX509 {
		return c
	}
	inner := wire.NewReader(c.Data)
	for inner.Left() > 0 {
		inner.Opaque()
	}
	if inner.Err() != nil {
		r.Fail(inner.Err())
	}
	return c
}

func (c Credential) equal(o Credential) bool {
	return c.Type == o.Type && bytes.Equal(c.Data, o.Data)
}
