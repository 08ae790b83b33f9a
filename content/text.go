package content

import (
	"errors"
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

// TextCodec is for plain text.
var TextCodec = Codec[string]{Type: TypeText, Push: true, Encode: encodeText, Decode: decodeText}

func encodeText(text string) (*Encoded, error) { return Text(text), nil }

func decodeText(e *Encoded) (string, error) {
	if encoding, ok := e.Parameters[parameterEncoding]; ok && encoding != encodingUTF8 {
		return "", fmt.Errorf("text in encoding %q", encoding)
	}
	if !utf8.Valid(e.Content) {
		return "", errors.New("text is not UTF-8")
	}
	return string(e.Content), nil
}

// Text encodes plain text. Bytes that aren't UTF-8 are sent as they are and will
// not be accepted by who receives them.
func Text(text string) *Encoded {
	return &Encoded{
		Type:       TypeText,
		Parameters: map[string]string{parameterEncoding: encodingUTF8},
		Content:    []byte(text),
	}
}

// Text returns plain text. It is [Decode] with [TextCodec].
func (e *Encoded) Text() (string, error) { return Decode(TextCodec, e) }
