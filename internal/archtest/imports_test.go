package archtest

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A rule says what the packages of one folder, and those below it, may import.
type rule struct {
	ours   []string // folders of ours; nil for none, {"*"} for all
	tests  []string // further folders of ours, for tests only
	pure   bool     // neither network nor disk nor processes
	others []string // modules, when only these are allowed; nil for any
}

// rules is the table "who may import whom". The longest folder that a package
// lies in decides. A new folder gets a row here first.
var rules = map[string]rule{
	"mls":                   {ours: []string{"internal/hpke"}, tests: []string{"mls/internal/curve448"}, pure: true, others: []string{"golang.org/x/crypto", "filippo.io/edwards25519"}},
	"mls/internal/curve448": {ours: []string{"internal/hpke", "mls"}, pure: true, others: []string{"github.com/cloudflare/circl"}},
	"mls/x448":              {ours: []string{"mls", "mls/internal/curve448"}, pure: true, others: []string{}},
	"internal/hpke":         {pure: true, others: []string{"golang.org/x/crypto", "filippo.io/edwards25519"}},
	"identity":              {ours: []string{"mls", "proto"}, pure: true, others: []string{"golang.org/x/crypto", "filippo.io/edwards25519", "github.com/decred/dcrd", "google.golang.org/protobuf"}},
	"identity/scw":          {ours: []string{"identity", "mls", "proto", "internal/evm"}},
	"internal/evm":          {pure: true, others: []string{}},
	"protocol":              {ours: []string{"identity", "mls", "internal/hpke", "proto"}, pure: true},
	"content":               {ours: []string{"proto"}, pure: true},
	"xmtp":                  {ours: []string{"content", "protocol", "identity", "mls", "proto"}},
	"node":                  {ours: []string{"identity", "mls", "proto"}},
	"xmtptest":              {ours: []string{"xmtp", "node"}},
	"proto":                 {others: []string{"google.golang.org/protobuf", "google.golang.org/grpc"}},
	"proto/internal":        {},
	"cmd":                   {ours: []string{"*"}},
	"bench":                 {ours: []string{"*"}},
	"internal/task":         {others: []string{}},
	"internal/archtest":     {others: []string{}},
	"internal/listings":     {ours: []string{"mls", "xmtp"}, others: []string{}},
}

// ruleOf finds the row of a package: the longest folder that holds it.
func ruleOf(path string) (folder string, r rule, found bool) {
	for name, candidate := range rules {
		if within(path, name) && len(name) >= len(folder) {
			folder, r, found = name, candidate, true
		}
	}
	return folder, r, found
}

func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// violation says what is wrong with an import of a package, or "".
func violation(importer, imported string, test bool) string {
	folder, r, found := ruleOf(importer)
	if !found {
		return "the package has no row in the table of imports"
	}
	path, ours := strings.CutPrefix(imported, module+"/")
	switch {
	case ours && helper(path):
		if !test && !helper(importer) {
			return "only tests may import a package made for tests"
		}
	case ours:
		target, _, _ := ruleOf(path)
		if target != folder && !slices.Contains(r.ours, target) && !slices.Contains(r.ours, "*") && !(test && slices.Contains(r.tests, target)) {
			return fmt.Sprintf("%s may import of ours only %v", folder, r.ours)
		}
	case test || helper(importer):
	case imported == "math/rand" || imported == "math/rand/v2":
		return "randomness comes from crypto/rand"
	case r.pure && impure(imported):
		return fmt.Sprintf("%s has neither network nor disk", folder)
	case r.others != nil && strings.Contains(strings.Split(imported, "/")[0], ".") &&
		!slices.ContainsFunc(r.others, func(m string) bool { return within(imported, m) }):
		return fmt.Sprintf("%s may import of others only %v", folder, r.others)
	}
	return ""
}

func impure(imported string) bool {
	return slices.ContainsFunc([]string{"net", "os", "io/ioutil", "syscall", "database/sql", "plugin",
		"golang.org/x/net", "golang.org/x/sys", "google.golang.org/grpc"},
		func(bad string) bool { return within(imported, bad) })
}

// Tests of the packages that stand alone keep to the table too, so that these can
// be taken out whole; tests of what stands on top may use everything.
func testsMayImportAll(path string) bool {
	folder, _, _ := ruleOf(path)
	return slices.Contains([]string{"node", "xmtp", "xmtptest", "cmd"}, folder)
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			if wrong := violation(p.path(), imported, false); wrong != "" {
				t.Errorf("%s imports %s: %s", p.path(), imported, wrong)
			}
		}
		if testsMayImportAll(p.path()) {
			continue
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if wrong := violation(p.path(), imported, true); wrong != "" {
				t.Errorf("tests of %s import %s: %s", p.path(), imported, wrong)
			}
		}
	}
}

func TestRules(t *testing.T) {
	allowed := [][2]string{
		{"node", module + "/identity"},
		{"node/internal/api", module + "/node/internal/hub"},
		{"node", module + "/proto/gen/mlsapi"},
		{"node", "net"},
		{"mls", module + "/internal/hpke"},
		{"mls", module + "/mls/internal/wire"},
		{"mls", "golang.org/x/crypto/cryptobyte"},
		{"mls/internal/vectortest", "os"},
		{"identity/scw", "net/http"},
		{"cmd/xmtp", module + "/node"},
	}
	for _, c := range allowed {
		if wrong := violation(c[0], c[1], false); wrong != "" {
			t.Errorf("%s → %s: %s", c[0], c[1], wrong)
		}
	}
	refused := [][2]string{
		{"node", module + "/protocol"},
		{"node/internal/api", module + "/xmtp"},
		{"node", module + "/content"},
		{"mls", module + "/identity"},
		{"mls", module + "/mls/internal/vectortest"},
		{"mls", module + "/mls/internal/curve448"},
		{"mls", "os"},
		{"mls", "github.com/decred/dcrd/dcrec/secp256k1/v4"},
		{"identity", "net/http"},
		{"identity", "google.golang.org/grpc"},
		{"identity", module + "/identity/scw"},
		{"node", "math/rand/v2"},
		{"newcomer", "fmt"},
	}
	for _, c := range refused {
		if violation(c[0], c[1], false) == "" {
			t.Errorf("%s → %s was not refused", c[0], c[1])
		}
	}
}

// TestMLSAlone checks that who imports mls gets three small modules, and nothing of
// XMTP's.
func TestMLSAlone(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{end}}{{.ImportPath}}", "./mls")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		of, path, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue // Go's own
		}
		seen[of] = true
		ours := strings.TrimPrefix(path, module+"/")
		if of == module && !within(ours, "mls") && ours != "internal/hpke" {
			t.Errorf("mls needs %s", path)
		}
	}
	got := slices.Sorted(maps.Keys(seen))
	if want := []string{"filippo.io/edwards25519", module, "golang.org/x/crypto", "golang.org/x/sys"}; !slices.Equal(got, want) {
		t.Errorf("mls needs the modules %v, want %v", got, want)
	}
}
