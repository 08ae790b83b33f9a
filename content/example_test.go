package content_test

import (
	"encoding/json"
	"fmt"

	"github.com/go-xmtp/go-xmtp/content"
)

// What a program does with a message of any type.
func Example() {
	show := func(e *content.Encoded) {
		if text, err := e.Text(); err == nil {
			fmt.Println(text)
		} else if updated, err := e.GroupUpdated(); err == nil {
			fmt.Printf("%s added %v\n", updated.InitiatedBy, updated.Added)
		} else if e.Fallback != nil {
			fmt.Println(*e.Fallback)
		}
	}
	show(content.Text("hello"))
	// Output: hello
}

func ExampleEncoded_GroupUpdated() {
	// As it stands in a conversation for the commit by which alix added bo.
	e := &content.Encoded{Type: content.TypeGroupUpdated, Content: []byte("\n\x04alix\x12\x04\n\x02bo")}
	updated, err := e.GroupUpdated()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(updated.InitiatedBy, "added", updated.Added)
	// Output: alix added [bo]
}

// A program's own content type: a place, with a text for those who don't know it.
func ExampleCodec() {
	type place struct{ Name, Country string }
	codec := content.Codec[place]{
		Type: content.Type{Authority: "example.com", Name: "place", Major: 1},
		Push: true,
		Encode: func(p place) (*content.Encoded, error) {
			b, err := json.Marshal(p)
			return &content.Encoded{Content: b}, err
		},
		Decode: func(e *content.Encoded) (p place, err error) {
			err = json.Unmarshal(e.Content, &p)
			return p, err
		},
		Fallback: func(p place) string { return "I am in " + p.Name },
	}

	encoded, err := content.Encode(codec, place{"Lisbon", "Portugal"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(encoded.Type, *encoded.Fallback)
	decoded, err := content.Decode(codec, encoded)
	fmt.Println(decoded.Country, err)
	// Output:
	// example.com/place:1.0 I am in Lisbon
	// Portugal <nil>
}
