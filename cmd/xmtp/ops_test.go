package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// What is in ops names only settings that there are, with values that are taken.
func TestOpsFiles(t *testing.T) {
	ops := filepath.Join("..", "..", "ops")
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(ops, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	check := func(name, config string, env map[string]string) {
		t.Helper()
		s := newNodeSettings()
		flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
		s.flags(flags)
		err := complete(flags, config, func(name string) (string, bool) {
			value, found := env[name]
			delete(env, name)
			return value, found
		})
		if err == nil {
			_, err = s.options(flags.Changed)
		}
		if err != nil || len(env) > 0 {
			t.Errorf("%s: %v; settings that don't exist: %v", name, err, env)
		}
	}
	check("node.toml", filepath.Join(ops, "node.toml"), nil)
	// What is commented out can be put in, too.
	uncommented := filepath.Join(t.TempDir(), "node.toml")
	text := regexp.MustCompile(`(?m)^acme-domain.*\n|^# ([a-z-]+ = )`).ReplaceAllString(read("node.toml"), "$1")
	if err := os.WriteFile(uncommented, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	check("node.toml, uncommented", uncommented, nil)
	env := map[string]string{}
	for _, m := range regexp.MustCompile(`(XMTP_NODE_\w+)=(\S+)`).FindAllStringSubmatch(read("Containerfile"), -1) {
		env[m[1]] = m[2]
	}
	if len(env) == 0 {
		t.Error("the container has no settings")
	}
	check("Containerfile", "", env)

	// Commands and their flags.
	for _, unit := range []string{"xmtp-node.service", "xmtp-backup.service"} {
		commands := regexp.MustCompile(`/usr/local/bin/xmtp ([^;\n]*)`).FindAllStringSubmatch(read(unit), -1)
		if len(commands) == 0 {
			t.Errorf("%s starts nothing", unit)
		}
		for _, m := range commands {
			args := strings.Fields(strings.TrimSuffix(m[1], `\`))
			cmd, rest, err := newRoot().Find(args)
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: %q: %v", unit, m[1], err)
			}
		}
	}
}
