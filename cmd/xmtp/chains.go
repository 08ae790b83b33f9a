package main

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/pflag"

	"github.com/go-xmtp/go-xmtp/identity/scw"
)

// chainFlag is a list of CHAIN=URL. It takes any text: what is wrong with it is
// told when it is used, for the errors of flags repeat the text, and such URLs
// are secrets.
type chainFlag []string

func (c *chainFlag) add(flags *pflag.FlagSet) {
	flags.Var(c, "chain-rpc", "`chain=url` of a JSON-RPC endpoint that signatures of contract wallets are checked with, such as eip155:1=https://…; a list of them, or several flags")
}

func (c *chainFlag) String() string { return "" }
func (c *chainFlag) Type() string   { return listType }

func (c *chainFlag) Set(text string) error {
	*c = append(*c, strings.Split(text, ",")...)
	return nil
}

// verifier is nil if there are no endpoints.
func (c chainFlag) verifier(logger *slog.Logger) (*scw.Verifier, error) {
	if len(c) == 0 {
		return nil, nil
	}
	endpoints := make(map[string]string, len(c))
	for i, entry := range c {
		chain, url, ok := strings.Cut(strings.TrimSpace(entry), "=")
		if !ok {
			return nil, fmt.Errorf("--chain-rpc, entry %d: want CHAIN=URL, such as eip155:1=https://…", i+1)
		}
		if _, twice := endpoints[chain]; twice {
			return nil, fmt.Errorf("--chain-rpc, entry %d: there is another URL for that chain", i+1)
		}
		endpoints[chain] = url
	}
	v, err := scw.New(scw.Options{Endpoints: endpoints, Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("--chain-rpc: %w", err)
	}
	return v, nil
}
