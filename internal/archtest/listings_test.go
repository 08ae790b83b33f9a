package archtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// listings are the pages whose Go code is part of code that is compiled, and where
// that is: each listing has to be in one of these files, line by line.
var listings = map[string][]string{
	"README.md":         {"xmtp/example_test.go"},
	"docs/first-bot.md": {"internal/listings/firstbot/main.go"},
	"docs/mls.md":       {"internal/listings/twopeople/main.go", "mls/example*_test.go"},
}

// TestListings checks that what the pages show is what is compiled and tested.
func TestListings(t *testing.T) {
	root := filepath.Join("..", "..")
	for page, patterns := range listings {
		var code [][]string
		for _, pattern := range patterns {
			names, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
			if err != nil || len(names) == 0 {
				t.Fatalf("%s: %v, %v", pattern, names, err)
			}
			for _, name := range names {
				code = append(code, lines(t, name))
			}
		}
		found := goListings(lines(t, filepath.Join(root, filepath.FromSlash(page))))
		if len(found) == 0 {
			t.Errorf("%s has no listing", page)
		}
		for _, listing := range found {
			if !slices.ContainsFunc(code, func(file []string) bool { return holds(file, listing) }) {
				t.Errorf("%s: this is in none of %v:\n%s", page, patterns, strings.Join(listing, "\n"))
			}
		}
	}
}

// TestFirstListing runs the program with which docs/mls.md begins.
func TestFirstListing(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "run", "./internal/listings/twopeople")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "Hello Bob\n" {
		t.Errorf("%v: %s", err, out)
	}
}

func lines(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
}

// goListings are the blocks of Go code of a page.
func goListings(page []string) (list [][]string) {
	for i := 0; i < len(page); i++ {
		if page[i] != "```go" {
			continue
		}
		start := i + 1
		for i = start; page[i] != "```"; i++ {
		}
		list = append(list, page[start:i])
	}
	return list
}

// holds tells whether a listing is in a file, perhaps further to the right.
func holds(file, listing []string) bool {
	for i := range len(file) - len(listing) + 1 {
		indent, ok := strings.CutSuffix(file[i], listing[0])
		if !ok || strings.Trim(indent, "\t") != "" {
			continue
		}
		if slices.EqualFunc(file[i:i+len(listing)], listing, func(in, shown string) bool {
			return in == indent+shown || in == "" && shown == ""
		}) {
			return true
		}
	}
	return false
}

func TestHolds(t *testing.T) {
	file := []string{"func f() {", "\ta := 1", "", "\tif a > 0 {", "\t\tg()", "\t}", "}"}
	for listing, want := range map[string]bool{
		"a := 1\n\nif a > 0 {\n\tg()\n}": true,
		"func f() {\n\ta := 1":           true,
		"a := 1\nif a > 0 {":             false,
		"\tif a > 0 {\ng()":              false,
		"a := 2":                         false,
		"}\n}":                           false,
		"}\n\n":                          false,
	} {
		if holds(file, strings.Split(listing, "\n")) != want {
			t.Errorf("%q: %v", listing, !want)
		}
	}
}
