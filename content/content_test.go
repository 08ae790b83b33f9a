package content_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/go-xmtp/go-xmtp/content"
)

func TestText(t *testing.T) {
	b, err := content.Text("héllo").Marshal()
	if err != nil {
		t.Fatal(err)
	}
	e, err := content.Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Text(); got != "héllo" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got := e.Type.String(); got != "xmtp.org/text:1.0" {
		t.Errorf("type %s", got)
	}
}

func TestTextThatIsNone(t *testing.T) {
	text := func(change func(*content.Encoded)) *content.Encoded {
		e := content.Text("hello")
		change(e)
		return e
	}
	for name, c := range map[string]struct {
		e    *content.Encoded
		want error
	}{
		"another authority":     {text(func(e *content.Encoded) { e.Type.Authority = "example.com" }), content.ErrOtherType},
		"another name":          {text(func(e *content.Encoded) { e.Type.Name = "markdown" }), content.ErrOtherType},
		"another major version": {text(func(e *content.Encoded) { e.Type.Major = 2 }), content.ErrOtherType},
		"another minor version": {text(func(e *content.Encoded) { e.Type.Minor = 7 }), nil},
		"no encoding":           {text(func(e *content.Encoded) { e.Parameters = nil }), nil},
		"another encoding":      {text(func(e *content.Encoded) { e.Parameters["encoding"] = "latin1" }), content.ErrMalformed},
		"not UTF-8":             {text(func(e *content.Encoded) { e.Content = []byte{0xff} }), content.ErrMalformed},
	} {
		if _, err := c.e.Text(); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	b, _ := content.Text("hello").Marshal()
	f.Add(b)
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := content.Unmarshal(bytes.Clone(b))
		if err != nil {
			return
		}
		again, err := e.Marshal()
		if err != nil {
			return // strings that aren't UTF-8
		}
		second, err := content.Unmarshal(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, second, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	})
}
