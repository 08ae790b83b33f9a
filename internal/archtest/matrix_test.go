package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sections are the functional areas of an official client.
var sections = []string{
	"1. Client", "2. Identity and inboxes", "3. Conversations", "4. Groups", "5. DMs", "6. Consent and preferences",
	"7. Sending", "8. Reading", "9. Delete, edit, disappear", "10. Streams", "11. Content types", "12. Device sync and archives",
	"13. Push", "14. Diagnostics", "15. Agent layer", "16. Local database", "17. Limits and intervals", "18. Errors", "19. Traps",
}

// TestMatrix checks that the table in docs/interop.md is whole: that it has all areas
// and names each call of the client; and that the tests that pages name exist.
func TestMatrix(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "interop.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(text), "\r\n", "\n")
	at := 0
	for _, section := range sections {
		i := strings.Index(page, "\n## "+section+"\n")
		if i < at {
			t.Errorf("docs/interop.md: section %q is missing or out of order", section)
		}
		at = i
	}
	tests := testNames(t)
	for _, name := range []string{"interop.md", "threats.md", "mls.md", "mls-threats.md", "mls-benchmarks.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`").FindAllStringSubmatch(string(text), -1) {
			if !tests[test[1]] {
				t.Errorf("docs/%s names %s, which is no test", name, test[1])
			}
		}
	}
	for _, call := range calls(t) {
		if !strings.Contains(page, "`"+call.name+"`") {
			t.Errorf("docs/interop.md has no row with `%s`", call.name)
		}
	}
}

// TestExamples checks that each operation of the client is shown in an example.
func TestExamples(t *testing.T) {
	shown := map[string]bool{}
	for _, file := range parseFiles(t, filepath.Join("..", "..", "xmtp"), func(name string) bool {
		return strings.HasPrefix(name, "example") && strings.HasSuffix(name, "_test.go")
	}) {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Example") {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					shown[s.Sel.Name] = true
				}
				return true
			})
		}
	}
	for _, call := range calls(t) {
		name := call.name[strings.LastIndex(call.name, ".")+1:]
		if reason, ok := unshown[call.name]; ok {
			if shown[name] && !strings.Contains(call.name, ".") {
				t.Errorf("%s is shown in an example, although: %s", call.name, reason)
			}
		} else if !call.property && !shown[name] {
			t.Errorf("%s is in no example of xmtp", call.name)
		}
	}
}

// unshown are calls that examples don't need, and why.
var unshown = map[string]string{
	"WithClock":                 "for tests",
	"PrivateKeySigner.SignText": "called by the client",
	"PasskeySigner.SignText":    "called by the client",
}

// A call is an exported function of package xmtp, or method of an exported type.
type call struct {
	name string // Type.Method or Function
	// property: it takes nothing and can't fail, so that its type says how it is used.
	property bool
}

// notCalls are methods that other interfaces than ours ask for.
var notCalls = []string{"Error", "Unwrap", "Is", "As", "String", "Format", "LogValue"}

func calls(t *testing.T) (list []call) {
	t.Helper()
	for _, file := range parseFiles(t, filepath.Join("..", "..", "xmtp"), func(name string) bool {
		return strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
	}) {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !f.Name.IsExported() {
				continue
			}
			c := call{name: f.Name.Name}
			if f.Recv != nil {
				receiver := f.Recv.List[0].Type
				if star, ok := receiver.(*ast.StarExpr); ok {
					receiver = star.X
				}
				if index, ok := receiver.(*ast.IndexExpr); ok {
					receiver = index.X
				}
				of, ok := receiver.(*ast.Ident)
				if !ok || !of.IsExported() || slices.Contains(notCalls, f.Name.Name) {
					continue
				}
				c.name = of.Name + "." + f.Name.Name
				c.property = f.Type.Params.NumFields() == 0 && f.Type.Results.NumFields() == 1 && !isError(f.Type.Results.List[0].Type)
			}
			list = append(list, c)
		}
	}
	if len(list) < 50 {
		t.Fatalf("only %d calls were found in xmtp", len(list))
	}
	return list
}

func isError(e ast.Expr) bool {
	of, ok := e.(*ast.Ident)
	return ok && of.Name == "error"
}

func parseFiles(t *testing.T, folder string, want func(name string) bool) (files []*ast.File) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !want(entry.Name()) {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(folder, entry.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// testNames finds all tests of the repository, those of the interop module among them.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	test := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "node_modules" || strings.HasPrefix(entry.Name(), ".") && len(entry.Name()) > 2) {
			return filepath.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, name := range test.FindAllSubmatch(text, -1) {
			names[string(name[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
