package archtest

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// link is a link of a page: [text](target) or [text]: target.
var link = regexp.MustCompile(`\]\(([^()\s]+)\)|(?m:^\[[^\]]+\]:\s+(\S+))`)

// TestLinks: what README.md, SECURITY.md and the guides link to in the repository
// exists, down to the heading, and README.md names every guide.
func TestLinks(t *testing.T) {
	root := filepath.Join("..", "..")
	guides, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(guides) == 0 {
		t.Fatalf("guides: %v, %v", guides, err)
	}
	readme := filepath.Join(root, "README.md")
	named := make(map[string]bool)
	for _, page := range append(guides, readme, filepath.Join(root, "SECURITY.md")) {
		for _, target := range links(strings.Join(lines(t, page), "\n")) {
			to, err := resolve(page, target)
			if err != nil {
				t.Errorf("%s: %q: %v", filepath.Base(page), target, err)
			}
			if page == readme {
				named[to] = true
			}
		}
	}
	for _, guide := range guides {
		if !named[guide] {
			t.Errorf("README.md doesn't link to %s", filepath.Base(guide))
		}
	}
}

var errNoHeading = errors.New("no such heading")

// resolve finds the file that a link on a page leads to: "" if it leads out of the
// repository.
func resolve(page, target string) (string, error) {
	u, err := url.Parse(target)
	if err != nil || u.IsAbs() {
		return "", err
	}
	to := page
	if u.Path != "" {
		to = filepath.Join(filepath.Dir(page), filepath.FromSlash(u.Path))
	}
	text, err := os.ReadFile(to)
	if info, statErr := os.Stat(to); statErr == nil && info.IsDir() {
		return to, nil
	}
	if err != nil {
		return to, err
	}
	if u.Fragment != "" && !headings(string(text))[u.Fragment] {
		return to, errNoHeading
	}
	return to, nil
}

// prose is a page without its listings.
func prose(page string) string {
	var kept []string
	listing := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			listing = !listing
		} else if !listing {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func links(page string) (targets []string) {
	for _, m := range link.FindAllStringSubmatch(prose(page), -1) {
		targets = append(targets, m[1]+m[2])
	}
	return targets
}

// headings are the fragments that lead to the headings of a page, made as GitHub
// makes them. (It numbers headings of the same text; no link of ours needs that.)
func headings(page string) map[string]bool {
	found := make(map[string]bool)
	for line := range strings.Lines(prose(page)) {
		text := strings.TrimLeft(line, "#")
		if text == line || !strings.HasPrefix(text, " ") {
			continue
		}
		found[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(text))] = true
	}
	return found
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "page.md")
	const text = "# A `page`, of two words\n\n```sh\n# no heading\n[no](link)\n```\n[a](b.md#c) and [f](g)\n\n[h]: i\n"
	if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(links(text), " "); got != "b.md#c g i" {
		t.Errorf("links: %s", got)
	}
	for target, want := range map[string]error{
		"#a-page-of-two-words":        nil,
		"page.md#a-page-of-two-words": nil,
		"page.md":                     nil,
		".":                           nil,
		"https://example.org/none":    nil,
		"#no-heading":                 errNoHeading,
		"page.md#two":                 errNoHeading,
		"none.md":                     fs.ErrNotExist,
	} {
		if _, err := resolve(page, target); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", target, err, want)
		}
	}
}
