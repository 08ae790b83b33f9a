// Package content says what messages hold. What travels is an [Encoded]: bytes
// with a type, and a text for those who don't know the type. A [Codec] makes it of
// a Go value and back. Each type has a file of its own.
package content

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// Type names a content type; "xmtp.org/text:1.0" as a string.
type Type struct {
	Authority string
	Name      string
	Major     uint32
	Minor     uint32
}

func (t Type) String() string {
	return fmt.Sprintf("%s/%s:%d.%d", t.Authority, t.Name, t.Major, t.Minor)
}

// compatible tells whether what knows one type can read the other: minor versions
// don't matter.
func (t Type) compatible(other Type) bool {
	t.Minor = other.Minor
	return t == other
}

// Compression is how the bytes of content are compressed.
type Compression int32

// Ways of compression. Nothing is compressed by this package: clients don't agree
// on what these names mean. What others compressed is read, see [Decode].
const (
	Uncompressed Compression = iota
	Deflate
	GZIP
)

// Encoded is content of any type, as it travels (XIP-5).
type Encoded struct {
	Type       Type
	Parameters map[string]string
	// Fallback is what to show if the type is not known; nil for nothing.
	Fallback    *string
	Compression Compression
	Content     []byte
}

// Errors of encoding and decoding.
var (
	// ErrMalformed is content that is no encoded content, or not what its type says.
	ErrMalformed = errors.New("content: malformed")
	// ErrOtherType is content of another type than the one asked for.
	ErrOtherType = errors.New("content: another type")
	// ErrUnknownType is content of a type that the program has no codec for. Show
	// its fallback, or nothing if there is none.
	ErrUnknownType = errors.New("content: unknown type")
	// ErrNoType is content without a type, which can't be sent.
	ErrNoType = errors.New("content: no type")
)

// Marshal encodes the content, always to the same bytes. The error is a string that
// isn't UTF-8.
func (e *Encoded) Marshal() ([]byte, error) {
	p := &mlscontents.EncodedContent{
		Type: &mlscontents.ContentTypeId{
			AuthorityId:  e.Type.Authority,
			TypeId:       e.Type.Name,
			VersionMajor: e.Type.Major,
			VersionMinor: e.Type.Minor,
		},
		Parameters: e.Parameters,
		Fallback:   e.Fallback,
		Content:    e.Content,
	}
	if e.Compression != Uncompressed {
		p.Compression = mlscontents.Compression(e.Compression - 1).Enum()
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	return b, nil
}

// Unmarshal decodes content. The error is [ErrMalformed].
func Unmarshal(b []byte) (*Encoded, error) {
	var p mlscontents.EncodedContent
	if err := proto.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	e := &Encoded{
		Type: Type{
			Authority: p.GetType().GetAuthorityId(),
			Name:      p.GetType().GetTypeId(),
			Major:     p.GetType().GetVersionMajor(),
			Minor:     p.GetType().GetVersionMinor(),
		},
		Parameters: p.GetParameters(),
		Fallback:   p.Fallback,
		Content:    p.GetContent(),
	}
	if p.Compression != nil {
		e.Compression = Compression(p.GetCompression()) + 1
	}
	return e, nil
}
