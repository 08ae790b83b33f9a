// Command where installs the official SDKs, unless they are there, and prints as JSON
// how to run them, for programs that are not tests of this module.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/go-xmtp/go-xmtp/interop/official"
)

func main() {
	tools, err := official.Install()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(tools)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
