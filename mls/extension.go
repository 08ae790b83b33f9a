package mls

import (
	"bytes"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Extension is one entry of an extension list (§13.4). Data is the body without
// its length prefix; the package keeps it byte for byte.
type Extension struct {
	Type ExtensionType
	Data []byte
}

func appendExtensions(b []byte, exts []Extension) []byte {
	return wire.AppendVector(b, func(b []byte) []byte {
		for _, e := range exts {
			b = wire.AppendUint16(b, uint16(e.Type))
			b = wire.AppendOpaque(b, e.Data)
		}
		return b
	})
}

func readExtensions(r *wire.Reader) []Extension {
	var exts []Extension
	r.Vector(func(r *wire.Reader) { exts = append(exts, readExtension(r)) })
	return exts
}

func readExtension(r *wire.Reader) Extension {
	return Extension{ExtensionType(r.Uint16()), r.Opaque()}
}

// extensionData finds the extension of type t.
func extensionData(exts []Extension, t ExtensionType) ([]byte, bool) {
	for _, e := range exts {
		if e.Type == t {
			return e.Data, true
		}
	}
	return nil, false
}

// checkExtensionsUnique refuses a list that has a type twice (§13.4).
func checkExtensionsUnique(exts []Extension) error {
	seen := make(map[ExtensionType]bool, len(exts))
	for _, e := range exts {
		if seen[e.Type] {
			return fmt.Errorf("%w: %#04x", ErrDuplicateExtension, uint16(e.Type))
		}
		seen[e.Type] = true
	}
	return nil
}

// cloneExtensions copies exts, so that what the caller keeps can't change ours.
func cloneExtensions(exts []Extension) []Extension {
	out := make([]Extension, len(exts))
	for i, e := range exts {
		out[i] = Extension{e.Type, bytes.Clone(e.Data)}
	}
	return out
}
