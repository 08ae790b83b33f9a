// Package x448 has the cipher suites of RFC 9420 on Curve448, 4 and 6, for
// [mls.Config].Suites and the other places that take suites. They are apart because
// their curves come from another library than Go's own.
package x448

import (
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/mls/internal/curve448"
)

// The cipher suites of this package (RFC 9420 §17.1).
const (
	AES256SHA512Ed448 mls.CipherSuite = 4 // MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448
	ChaChaSHA512Ed448 mls.CipherSuite = 6 // MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448
)

// Suites are the implementations of the package's cipher suites. HPKE keys have 56
// bytes, signature keys, private and public, 57.
func Suites() []*mls.Suite { return curve448.Suites() }
