package content

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
)

// maxDecompressed bounds what compressed content may become.
const maxDecompressed = 25 << 20

// decompressed returns the content as it was before it was compressed. Programs
// don't agree on what they call DEFLATE and GZIP, and so the bytes tell: those of
// gzip (RFC 1952) and zlib (RFC 1950) begin in a way of their own, else it is plain
// DEFLATE (RFC 1951).
func (e *Encoded) decompressed() (*Encoded, error) {
	if e.Compression == Uncompressed {
		return e, nil
	}
	reader, err := decompressor(e.Content)
	var content []byte
	if err == nil {
		content, err = io.ReadAll(io.LimitReader(reader, maxDecompressed+1))
	}
	if err == nil && len(content) > maxDecompressed {
		err = fmt.Errorf("more than %d bytes", maxDecompressed)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: decompressing: %w", ErrMalformed, err)
	}
	plain := *e
	plain.Compression, plain.Content = Uncompressed, content
	return &plain, nil
}

func decompressor(b []byte) (io.Reader, error) {
	switch {
	case len(b) >= 2 && b[0] == 0x1f && b[1] == 0x8b:
		return gzip.NewReader(bytes.NewReader(b))
	case len(b) >= 2 && b[0]&0x0f == 8 && (int(b[0])<<8|int(b[1]))%31 == 0:
		return zlib.NewReader(bytes.NewReader(b))
	}
	return flate.NewReader(bytes.NewReader(b)), nil
}
