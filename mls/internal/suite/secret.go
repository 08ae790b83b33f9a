package suite

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is key material. It prints redacted, whatever the verb, and is
// overwritten by [Secret.Wipe] when it is spent.
type Secret []byte

const redacted = "[secret]"

// String returns a fixed text.
func (s Secret) String() string { return redacted }

// Format implements [fmt.Formatter] by writing a fixed text.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer] by a fixed text.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler] by a fixed text, so that no
// encoder of structs writes a secret unasked.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Wipe overwrites s with zeros.
func (s Secret) Wipe() { clear(s) }
