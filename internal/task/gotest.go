package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

const modulePath = "github.com/go-xmtp/go-xmtp"

// short is a package's path below the module.
func short(pkg string) string { return strings.TrimPrefix(pkg, modulePath+"/") }

// A test is one test or subtest that ran.
type test struct {
	pkg, name string
	verdict   verdict
	took      time.Duration
	reason    string // why it was skipped
	output    []string
	subtests  int
	subskips  int // subtests that were skipped
}

// top is the name of the test that t is, or is a subtest of.
func (t *test) top() string {
	name, _, _ := strings.Cut(t.name, "/")
	return name
}

// A figure is what a test measured or counted. A test writes it with
// t.Logf("CHECK area: name: value").
type figure struct{ area, name, value string }

// A scenario is one line that interop prints at its end: what official clients of
// one version did.
type scenario struct {
	verdict    verdict
	name, took string
}

// A testLog gathers what go test -json says.
type testLog struct {
	tests     []*test
	figures   []figure
	scenarios []scenario
	running   map[string]*test    // by package and name
	rest      map[string][]string // output outside of tests, by package
}

type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

var (
	figureLine   = regexp.MustCompile(`CHECK ([^:]+): ([^:]+): (.+)`)
	scenarioLine = regexp.MustCompile(`^(ok|FAIL|skip) +(.+) \(([\d.]+ s)\)$`)
	logPlace     = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)
	frameLine    = regexp.MustCompile(`^\s*(=== |--- )`)
)

// goTest runs go test -json with the arguments and says how each package did.
func (r *runner) goTest(ctx context.Context, c command) (string, error) {
	before := len(r.tests.topLevel())
	err := r.lines(ctx, c, func(line string) { r.tests.add(line, r.out) })
	r.tests.abandon("", r.out)
	ran := r.tests.topLevel()[before:]
	bad := 0
	for _, t := range ran {
		if t.verdict == failed {
			bad++
		}
	}
	switch {
	case bad > 0:
		return "", fmt.Errorf("%d of %d tests failed", bad, len(ran))
	case err != nil:
		return "", err
	case len(ran) == 0:
		return "", fmt.Errorf("%v: no test ran", c)
	}
	return fmt.Sprintf("%d tests", len(ran)), nil
}

// add takes one line of go test -json; what is worth seeing at once goes to out.
func (l *testLog) add(line string, out io.Writer) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		fmt.Fprintln(out, indent(line))
		return
	}
	if l.running == nil {
		l.running, l.rest = map[string]*test{}, map[string][]string{}
	}
	key := e.Package + " " + e.Test
	switch e.Action {
	case "run":
		l.running[key] = &test{pkg: e.Package, name: e.Test}
	case "build-output":
		l.rest[e.ImportPath] = append(l.rest[e.ImportPath], strings.TrimRight(e.Output, "\n"))
	case "output":
		text := strings.TrimRight(e.Output, "\n")
		if m := figureLine.FindStringSubmatch(text); m != nil {
			l.figures = append(l.figures, figure{m[1], m[2], m[3]})
		}
		if m := scenarioLine.FindStringSubmatch(text); m != nil {
			l.scenarios = append(l.scenarios, scenario{map[string]verdict{"ok": ok, "FAIL": failed, "skip": skipped}[m[1]], m[2], m[3]})
		}
		if t := l.running[key]; t != nil {
			t.output = append(t.output, text)
		} else if e.Test == "" {
			l.rest[e.Package] = append(l.rest[e.Package], text)
		}
	case "pass", "fail", "skip":
		took := time.Duration(e.Elapsed * float64(time.Second))
		if e.Test == "" {
			l.endPackage(e, took, out)
			return
		}
		t := l.running[key]
		if t == nil {
			return
		}
		delete(l.running, key)
		t.verdict, t.took = map[string]verdict{"pass": ok, "fail": failed, "skip": skipped}[e.Action], took
		l.end(t, out)
	}
}

// end keeps a test that has its verdict.
func (l *testLog) end(t *test, out io.Writer) {
	// To go test, a test is fine whose subtests were all skipped.
	if t.verdict == ok && t.subtests > 0 && t.subskips == t.subtests {
		t.verdict = skipped
	}
	if i := strings.LastIndexByte(t.name, '/'); i > 0 {
		if parent := l.running[t.pkg+" "+t.name[:i]]; parent != nil {
			parent.subtests++
			if t.verdict == skipped {
				parent.subskips++
			}
		}
	}
	switch {
	case t.verdict == skipped:
		t.reason = skipReason(t.output)
	case t.verdict == failed:
		fmt.Fprintf(out, "    FAIL    %s %s\n", short(t.pkg), t.name)
		t.output = slices.DeleteFunc(t.output, frameLine.MatchString)
		if len(t.output) > 0 {
			fmt.Fprintln(out, indent(clip(strings.Join(t.output, "\n"), 80)))
		}
	case t.took >= 10*time.Second && !strings.Contains(t.name, "/"):
		fmt.Fprintf(out, "    ok      %s %s  %s\n", short(t.pkg), t.name, seconds(t.took))
	}
	t.output = nil
	l.tests = append(l.tests, t)
}

func (l *testLog) endPackage(e event, took time.Duration, out io.Writer) {
	l.abandon(e.Package, out)
	count := 0
	for _, t := range l.topLevel() {
		if t.pkg == e.Package {
			count++
		}
	}
	switch e.Action {
	case "pass":
		fmt.Fprintf(out, "    ok      %s  %s  %d tests\n", short(e.Package), seconds(took), count)
	case "fail":
		said := slices.Concat(l.rest[e.FailedBuild], l.rest[e.Package])
		fmt.Fprintf(out, "    FAIL    %s  %s\n", short(e.Package), seconds(took))
		fmt.Fprintln(out, indent(indent(clip(strings.Join(said, "\n"), 80))))
		// A package can fail without a failed test: it doesn't build, its
		// TestMain fails, it exits, it finds a race after the last test.
		if !slices.ContainsFunc(l.tests, func(t *test) bool { return t.pkg == e.Package && t.verdict == failed }) {
			l.tests = append(l.tests, &test{pkg: e.Package, name: "(package)", verdict: failed})
		}
	}
	delete(l.rest, e.Package)
}

// abandon fails the tests of a package, or of all, that never ended.
func (l *testLog) abandon(pkg string, out io.Writer) {
	for key, t := range l.running {
		if pkg == "" || t.pkg == pkg {
			delete(l.running, key)
			t.verdict = failed
			t.output = append(t.output, "the test did not end")
			l.end(t, out)
		}
	}
}

func skipReason(output []string) string {
	for _, line := range slices.Backward(output) {
		if !frameLine.MatchString(line) && strings.TrimSpace(line) != "" {
			return strings.TrimSpace(logPlace.ReplaceAllString(line, ""))
		}
	}
	return "no reason given"
}

// topLevel are the tests that are no subtests.
func (l *testLog) topLevel() []*test {
	return l.filter(func(t *test) bool { return !strings.Contains(t.name, "/") })
}

// skips are the skipped tests that have no subtests, which have the reason.
func (l *testLog) skips() []*test {
	return l.filter(func(t *test) bool { return t.verdict == skipped && t.subtests == 0 })
}

func (l *testLog) filter(keep func(*test) bool) []*test {
	var kept []*test
	for _, t := range l.tests {
		if keep(t) {
			kept = append(kept, t)
		}
	}
	return kept
}
