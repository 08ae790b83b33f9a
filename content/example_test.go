package content_test

import (
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
