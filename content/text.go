package content

import (
	"fmt"
	"unicode/utf8"
)

// TypeText is that of plain text.
var TypeText = Type{"xmtp.org", "text", 1, 0}

// The only parameter of text and its only value.
const (
	parameterEncoding = "encoding"
	encodingUTF8      = "UTF-8"
)

// Text encodes plain text. Bytes that aren't UTF-8 are sent as they are and will
// not be accepted by who receives them.
func Text(text string) *Encoded {
	return &Encoded{
		Type:       TypeText,
		Parameters: map[string]string{parameterEncoding: encodingUTF8},
		Content:    []byte(text),
	}
}

// Text returns plain text. The errors are [ErrOtherType], and [ErrMalformed] for
// an encoding that isn't UTF-8. The minor version is ignored.
func (e *Encoded) Text() (string, error) {
	if e.Type.Authority != TypeText.Authority || e.Type.Name != TypeText.Name || e.Type.Major != TypeText.Major {
		return "", fmt.Errorf("%w: %s is not %s", ErrOtherType, e.Type, TypeText)
	}
	if encoding, ok := e.Parameters[parameterEncoding]; ok && encoding != encodingUTF8 {
		return "", fmt.Errorf("%w: text in encoding %q", ErrMalformed, encoding)
	}
	if !utf8.Valid(e.Content) {
		return "", fmt.Errorf("%w: text is not UTF-8", ErrMalformed)
	}
	return string(e.Content), nil
}
