package mls

import (
	"fmt"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
)

// Suite is the implementation of a cipher suite that this package doesn't have by
// itself, for [Config].Suites and others: those of package x448, and those of
// [XWingAES128SHA256Ed25519] and its like.
type Suite = suite.Suite

// XWingAES128SHA256Ed25519 is MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519 of
// draft-ietf-mls-pq-ciphersuites, whose number is not assigned yet: the members of a
// group have to agree on one, at best of the private range from 0xf000 on. What is
// said in it stays secret from a quantum computer of the future; signatures are as
// before. HPKE public keys have 1216 bytes, private ones 32, encapsulated keys 1120.
func XWingAES128SHA256Ed25519(id CipherSuite) *Suite {
	return suite.New(suite.ID(id), hpke.New(hpke.XWing(xwingKEM), hpke.HKDFSHA256, hpke.AES128GCM), suite.Ed25519())
}

// XWingAES256SHA384Ed25519 is MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519 of the
// same draft.
func XWingAES256SHA384Ed25519(id CipherSuite) *Suite {
	return suite.New(suite.ID(id), hpke.New(hpke.XWing(xwingKEM), hpke.HKDFSHA384, hpke.AES256GCM), suite.Ed25519())
}

const xwingKEM = 0x647a // as in draft-ietf-hpke-pq

// lookupSuite is the implementation of a suite: one of more, else our own.
func lookupSuite(id CipherSuite, more []*Suite) (*suite.Suite, error) {
	for _, s := range more {
		if s.ID() == suite.ID(id) {
			return s, nil
		}
	}
	s, ok := suite.ByID(suite.ID(id))
	if !ok {
		return nil, fmt.Errorf("%w: %d", ErrUnsupportedCipherSuite, id)
	}
	return s, nil
}
