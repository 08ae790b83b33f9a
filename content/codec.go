package content

import "fmt"

// Codec is how values of a Go type are sent as a content type, and read.
type Codec[T any] struct {
	// Type names what it writes. What it reads may have another minor version.
	Type Type
	// Push says whether such messages wake the devices of their recipients.
	Push bool
	// Encode writes a value. The type is filled in.
	Encode func(T) (*Encoded, error)
	// Decode reads what Encode wrote, or another program. Its content is
	// decompressed.
	Decode func(*Encoded) (T, error)
	// Fallback, which may be nil, returns what those see who don't know the type.
	// An empty text is none.
	Fallback func(T) string
}

// Encode encodes a value as its codec says.
func Encode[T any](c Codec[T], value T) (*Encoded, error) {
	e, err := c.Encode(value)
	if err != nil {
		return nil, fmt.Errorf("content: encoding %s: %w", c.Type, err)
	}
	encoded := *e
	encoded.Type = c.Type
	if c.Fallback != nil {
		if text := c.Fallback(value); text != "" {
			encoded.Fallback = &text
		}
	}
	return &encoded, nil
}

// Decode decodes content of the codec's type, whatever its minor version, and
// decompresses it. The errors are [ErrOtherType] and [ErrMalformed].
func Decode[T any](c Codec[T], e *Encoded) (value T, err error) {
	if !e.Type.compatible(c.Type) {
		return value, fmt.Errorf("%w: %s is not %s", ErrOtherType, e.Type, c.Type)
	}
	if e, err = e.decompressed(); err != nil {
		return value, err
	}
	value, err = c.Decode(e)
	if err != nil {
		var none T
		return none, fmt.Errorf("%w: %s: %w", ErrMalformed, c.Type, err)
	}
	return value, nil
}

// Codecs are the content types that a program knows. The zero value knows none. It
// is safe for use by several goroutines once all are added.
type Codecs struct {
	known map[Type]known // by type without the minor version
}

type known struct {
	push   bool
	decode func(*Encoded) (any, error)
}

// Add adds a codec, in the place of one for the same type and major version.
func Add[T any](all *Codecs, c Codec[T]) {
	if all.known == nil {
		all.known = map[Type]known{}
	}
	t := c.Type
	t.Minor = 0
	all.known[t] = known{c.Push, func(e *Encoded) (any, error) { return Decode(c, e) }}
}

func (all *Codecs) find(t Type) (known, bool) {
	t.Minor = 0
	k, ok := all.known[t]
	return k, ok
}

// Decode decodes content to the Go type of its codec. The errors are
// [ErrUnknownType] and [ErrMalformed].
func (all *Codecs) Decode(e *Encoded) (any, error) {
	k, ok := all.find(e.Type)
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrUnknownType, e.Type)
	}
	return k.decode(e)
}

// Push tells whether messages of a type wake the devices of their recipients. Those
// of unknown types don't.
func (all *Codecs) Push(t Type) bool {
	k, _ := all.find(t)
	return k.push
}
