// Command xmtp is an XMTP node and a client. It holds flags and printing only;
// what it does is in the packages of this module.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	err := newRoot().Execute()
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "xmtp: %v\n", err)
	if _, wrong := errors.AsType[usageError](err); wrong {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailure)
}

// A usageError is a command line, environment or config file that can't be
// understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "xmtp",
		Short: "XMTP in one program: end-to-end encrypted messaging",
		Long: `xmtp is a node, the server that XMTP apps send their encrypted messages through,
and a client. Apps made with the official XMTP SDKs use the node unchanged, and
their users chat with this client.

See how it works:  xmtp demo
Start a node:      xmtp node`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			err := fmt.Errorf("there is no command %q; xmtp --help lists them", args[0])
			if close := cmd.SuggestionsFor(args[0]); len(close) > 0 {
				err = fmt.Errorf("there is no command %q; did you mean xmtp %s?", args[0], close[0])
			}
			return usageError{err}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(newDemo(), newNode(), newID(), newSend(), newRead(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), version()) },
	})
	return root
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, but got %q; see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())}
	}
	return nil
}

// version says which code this is, such as
// "xmtp v0.1.0 (commit 138e189c5d2a, go1.26.8 linux/amd64)".
func version() string {
	number, commit := "devel", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			number = v
		}
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				commit = "commit " + setting.Value[:min(12, len(setting.Value))] + ", "
			}
		}
	}
	return fmt.Sprintf("xmtp %s (%s%s %s/%s)", number, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
