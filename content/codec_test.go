package content_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/content"
)

// poll is content of a program of its own.
type poll struct {
	Question string
	Answers  []string
}

var pollCodec = content.Codec[poll]{
	Type:   content.Type{Authority: "example.com", Name: "poll", Major: 2, Minor: 1},
	Push:   true,
	Encode: encodePoll,
	Decode: func(e *content.Encoded) (p poll, err error) {
		err = json.Unmarshal(e.Content, &p)
		return p, err
	},
	Fallback: func(p poll) string { return p.Question },
}

func encodePoll(p poll) (*content.Encoded, error) {
	if len(p.Answers) == 1 {
		return nil, errors.New("no choice")
	}
	b, err := json.Marshal(p)
	return &content.Encoded{Content: b}, err
}

func TestCodec(t *testing.T) {
	want := poll{"Lunch?", []string{"yes", "no"}}
	e, err := content.Encode(pollCodec, want)
	if err != nil {
		t.Fatal(err)
	}
	if e.Type != pollCodec.Type || e.Fallback == nil || *e.Fallback != "Lunch?" {
		t.Errorf("encoded: %+v", e)
	}
	got, err := content.Decode(pollCodec, e)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if e, err := content.Encode(pollCodec, poll{}); err != nil || e.Fallback != nil {
		t.Errorf("without a fallback: %+v, %v", e, err)
	}
	if _, err := content.Encode(pollCodec, poll{Answers: []string{"yes"}}); err == nil {
		t.Error("what can't be encoded is")
	}
	other := *e
	other.Type.Minor = 9
	if _, err := content.Decode(pollCodec, &other); err != nil {
		t.Errorf("another minor version: %v", err)
	}
	other.Type.Major = 3
	if got, err := content.Decode(pollCodec, &other); !errors.Is(err, content.ErrOtherType) || got.Question != "" {
		t.Errorf("another major version: %v, %v", got, err)
	}
	other.Type, other.Content = pollCodec.Type, []byte(`{"Question":"half`)
	if got, err := content.Decode(pollCodec, &other); !errors.Is(err, content.ErrMalformed) || got.Question != "" {
		t.Errorf("garbage: %v, %v", got, err)
	}
}

func TestCodecs(t *testing.T) {
	var all content.Codecs
	e, err := content.Encode(pollCodec, poll{Question: "Lunch?"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := all.Decode(e); !errors.Is(err, content.ErrUnknownType) || all.Push(e.Type) {
		t.Errorf("of an unknown type: %v", err)
	}
	content.Add(&all, content.TextCodec)
	content.Add(&all, pollCodec)
	e.Type.Minor = 7
	if got, err := all.Decode(e); !cmp.Equal(got, any(poll{Question: "Lunch?"})) || err != nil || !all.Push(e.Type) {
		t.Errorf("got %v, %v", got, err)
	}
	e.Type.Authority = "xmtp.org"
	if _, err := all.Decode(e); !errors.Is(err, content.ErrUnknownType) {
		t.Errorf("of another authority: %v", err)
	}
	silent := pollCodec
	silent.Push = false
	content.Add(&all, silent)
	if all.Push(pollCodec.Type) {
		t.Error("the later codec doesn't count")
	}
}

// What the codec of changes writes, it reads.
func TestGroupUpdatedBothWays(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		ids := rapid.SliceOfN(rapid.StringN(1, 4, 8), 1, 3)
		text := rapid.Ptr(rapid.String(), true)
		want := &content.GroupUpdated{
			InitiatedBy: rapid.String().Draw(r, "by"), Added: ids.Draw(r, "added"), Removed: ids.Draw(r, "removed"), Left: ids.Draw(r, "left"),
			AddedAdmins: ids.Draw(r, "admins"), RemovedAdmins: ids.Draw(r, "no admins"), AddedSuperAdmins: ids.Draw(r, "super"),
			RemovedSuperAdmins: ids.Draw(r, "no super"), Fields: []content.FieldChange{{Name: "group_name", Old: text.Draw(r, "old"), New: text.Draw(r, "new")}},
		}
		e, err := content.Encode(content.GroupUpdatedCodec, want)
		if err != nil {
			r.Fatal(err)
		}
		got, err := e.GroupUpdated()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			r.Error(diff, err)
		}
	})
}

// deflate is what programs call DEFLATE and GZIP.
var deflate = map[string]struct {
	as   content.Compression
	open func(io.Writer) io.WriteCloser
}{
	"gzip":                    {content.GZIP, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }},
	"zlib":                    {content.Deflate, func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }},
	"zlib called GZIP":        {content.GZIP, func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }},
	"plain DEFLATE":           {content.Deflate, func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 9); return f }},
	"of a number yet to come": {content.Compression(8), func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }},
}

func compress(t testing.TB, way string, body []byte) *content.Encoded {
	var b bytes.Buffer
	w := deflate[way].open(&b)
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	e := content.Text("")
	e.Compression, e.Content = deflate[way].as, b.Bytes()
	return e
}

func TestCompressedContent(t *testing.T) {
	for way := range deflate {
		b, err := compress(t, way, []byte("hello")).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		e, err := content.Unmarshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := e.Text(); text != "hello" || err != nil {
			t.Errorf("%s: %q, %v", way, text, err)
		}
		if e.Compression != deflate[way].as {
			t.Errorf("%s: the content was changed: %v", way, e.Compression)
		}
		e.Content = e.Content[:len(e.Content)-1]
		if text, err := e.Text(); !errors.Is(err, content.ErrMalformed) || text != "" {
			t.Errorf("%s, cut: %q, %v", way, text, err)
		}
	}
}

func TestCompressedContentIsBounded(t *testing.T) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	for range 25 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	e := content.Text("")
	e.Compression = content.Deflate
	for more, want := range map[string]error{"": nil, "x": content.ErrMalformed} {
		var whole bytes.Buffer
		whole.Write(b.Bytes())
		last, err := flate.NewWriter(&whole, flate.NoCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := last.Write([]byte(more)); err != nil {
			t.Fatal(err)
		}
		if err := last.Close(); err != nil {
			t.Fatal(err)
		}
		e.Content = whole.Bytes()
		if text, err := e.Text(); !errors.Is(err, want) || want == nil && len(text) != 25<<20 {
			t.Errorf("25 MiB and %q: %d bytes, %v", more, len(text), err)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	for way := range deflate {
		f.Add(compress(f, way, []byte("hello")).Content)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := content.Text("")
		e.Compression, e.Content = content.Deflate, b
		if text, err := e.Text(); err != nil && (!errors.Is(err, content.ErrMalformed) || text != "") {
			t.Errorf("%q, %v", text, err)
		}
	})
}

// The same content has the same bytes, whatever the order of a map.
func TestMarshalIsDeterministic(t *testing.T) {
	e := content.Text("hello")
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		e.Parameters[name] = name
	}
	first, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if again, _ := e.Marshal(); !bytes.Equal(first, again) {
			t.Fatal("other bytes")
		}
	}
}
