package mls

import (
	"errors"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Errors of decoding. What fails to decode is [ErrMalformed]; the two others,
// where they apply, tell more.
var (
	ErrMalformed     = errors.New("malformed encoding")
	ErrUnexpectedEnd = wire.ErrShort
	ErrTrailingData  = wire.ErrTrailing
)

// Errors of key packages and leaf nodes (§7.3, §10.1).
var (
	ErrUnsupportedVersion     = errors.New("protocol version is not MLS 1.0")
	ErrUnsupportedCipherSuite = errors.New("cipher suite is not supported")
	ErrLeafNodeSource         = errors.New("leaf node is from another source")
	ErrLeafNodeSignature      = errors.New("leaf node signature is not valid")
	ErrKeyPackageSignature    = errors.New("key package signature is not valid")
	ErrInitKey                = errors.New("init key equals the leaf encryption key")
	ErrExtensionNotListed     = errors.New("extension is not in the leaf's capabilities")
	ErrDuplicateExtension     = errors.New("extension type occurs twice")
	ErrLifetime               = errors.New("outside of the lifetime")
)

// Errors of the ratchet tree (§7.3, §12.4.3.1).
var (
	ErrCapabilities = errors.New("leaf does not support what the group needs")
	ErrDuplicateKey = errors.New("public key occurs twice in the group")
	ErrInvalidTree  = errors.New("ratchet tree is not valid")
	ErrInvalidPath  = errors.New("update path is not valid")
)

// malformed wraps a decoding error of the structure what.
func malformed(what string, err error) error {
	return fmt.Errorf("mls: %s: %w: %w", what, ErrMalformed, err)
}
