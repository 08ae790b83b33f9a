package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const goTestOutput = `
{"Action":"start","Package":"github.com/go-xmtp/go-xmtp/node"}
{"Action":"run","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT1"}
{"Action":"output","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT1","Output":"    t_test.go:7: CHECK node: start, median: 12 ms\n"}
{"Action":"pass","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT1","Elapsed":0.5}
{"Action":"run","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT2"}
{"Action":"run","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT2/with_streams"}
{"Action":"output","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT2/with_streams","Output":"    t_test.go:9: connection closed\n"}
{"Action":"fail","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT2/with_streams","Elapsed":0.1}
{"Action":"fail","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT2","Elapsed":0.1}
{"Action":"run","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT3"}
{"Action":"output","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT3","Output":"=== RUN   TestT3\n"}
{"Action":"output","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT3","Output":"    t_test.go:11: takes minutes\n"}
{"Action":"output","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT3","Output":"--- SKIP: TestT3 (0.00s)\n"}
{"Action":"skip","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT3","Elapsed":0}
{"Action":"run","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT6"}
{"Action":"run","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT6/a"}
{"Action":"output","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT6/a","Output":"    t_test.go:12: no network\n"}
{"Action":"skip","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT6/a","Elapsed":0}
{"Action":"pass","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT6","Elapsed":0}
{"Action":"run","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT4"}
{"Action":"output","Package":"github.com/go-xmtp/go-xmtp/node","Test":"TestT4","Output":"panic: out of range\n"}
{"Action":"output","Package":"github.com/go-xmtp/go-xmtp/node","Output":"FAIL streams × node-sdk 6.0.0 (bindings 1.10.0) (1.5 s)\n"}
{"Action":"fail","Package":"github.com/go-xmtp/go-xmtp/node","Elapsed":1}
{"ImportPath":"github.com/go-xmtp/go-xmtp/mls","Action":"build-output","Output":"mls/x.go:1:1: expected package\n"}
{"ImportPath":"github.com/go-xmtp/go-xmtp/mls","Action":"build-fail"}
{"Action":"fail","Package":"github.com/go-xmtp/go-xmtp/mls","Elapsed":0,"FailedBuild":"github.com/go-xmtp/go-xmtp/mls"}
`

func logOf(t *testing.T, text string) (*testLog, string) {
	t.Helper()
	var l testLog
	var out bytes.Buffer
	for line := range strings.Lines(strings.TrimSpace(text)) {
		l.add(strings.TrimSuffix(line, "\n"), &out)
	}
	return &l, out.String()
}

func TestTestLog(t *testing.T) {
	l, out := logOf(t, goTestOutput)
	got := map[string]verdict{}
	for _, test := range l.topLevel() {
		got[short(test.pkg)+" "+test.name] = test.verdict
	}
	want := map[string]verdict{"node TestT1": ok, "node TestT2": failed, "node TestT3": skipped, "node TestT4": failed, "node TestT6": skipped, "mls (package)": failed}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("verdicts %v, want %v", got, want)
	}
	if len(l.figures) != 1 || l.figures[0] != (figure{"node", "start, median", "12 ms"}) {
		t.Errorf("figures %v", l.figures)
	}
	if want := (scenario{failed, "streams × node-sdk 6.0.0 (bindings 1.10.0)", "1.5 s"}); len(l.scenarios) != 1 || l.scenarios[0] != want {
		t.Errorf("scenarios %v, want %v", l.scenarios, want)
	}
	var reasons []string
	for _, s := range l.skips() {
		reasons = append(reasons, s.name+" "+s.reason)
	}
	if got := strings.Join(reasons, "; "); got != "TestT3 takes minutes; TestT6/a no network" {
		t.Errorf("skips %s", got)
	}
	for _, part := range []string{"connection closed", "panic: out of range", "mls/x.go:1:1: expected package"} {
		if !strings.Contains(out, part) {
			t.Errorf("output lacks %q:\n%s", part, out)
		}
	}
}

func TestJudge(t *testing.T) {
	l, _ := logOf(t, goTestOutput)
	checks := func(proof bool) map[string]verdict {
		r := &runner{tests: *l, proof: proof}
		for i := range 9 {
			id := fmt.Sprintf("T%d", i+1)
			r.checked = append(r.checked, check{id: id, step: stepTests, pkg: "node/...", test: regexp.MustCompile("^Test" + id + "(_.*)?$")})
		}
		r.checked = append(r.checked, check{id: "E1", step: stepOfficial, pkg: "interop", test: regexp.MustCompile("^TestE1$")})
		got := map[string]verdict{}
		for _, row := range r.judge([]result{{step: stepOfficial, verdict: skipped, note: "no Node.js"}}) {
			got[row.id] = row.verdict
		}
		return got
	}
	got := checks(false)
	for id, want := range map[string]verdict{"T1": ok, "T2": failed, "T3": skipped, "T4": failed, "T5": missing, "T6": skipped, "E1": skipped} {
		if got[id] != want {
			t.Errorf("%s: %s, want %s", id, got[id], want)
		}
	}
	got = checks(true)
	if got["T3"] != failed || got["E1"] != failed {
		t.Errorf("in the long tier a skipped check must fail: T3 %s, E1 %s", got["T3"], got["E1"])
	}
}

func TestExpectCompiles(t *testing.T) {
	var r runner
	if err := r.expect(); err != nil {
		t.Fatal(err)
	}
	if len(r.checked) < len(conformance) {
		t.Errorf("%d checks", len(r.checked))
	}
}

func TestRunStep(t *testing.T) {
	r := &runner{out: &bytes.Buffer{}}
	answer := func(note string, err error) step {
		return step{"s", time.Minute, func(context.Context) (string, error) { return note, err }}
	}
	cases := []struct {
		name string
		step step
		want verdict
		note string
	}{
		{"passes", answer("3 files", nil), ok, "3 files"},
		{"fails", answer("", errors.New("bad\nmore")), failed, "bad"},
		{"is skipped", answer("", skip("no Node.js")), skipped, "no Node.js"},
		{"takes too long", step{"s", time.Millisecond, func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}}, failed, "not done within 1ms"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			res := r.runStep(t.Context(), c.step)
			if res.verdict != c.want || res.note != c.note {
				t.Errorf("%s %q, want %s %q", res.verdict, res.note, c.want, c.note)
			}
		})
	}
}

func TestReportFallsShort(t *testing.T) {
	for _, c := range []struct {
		v    verdict
		want bool
	}{{ok, true}, {skipped, true}, {failed, false}} {
		var out bytes.Buffer
		r := &runner{out: &out}
		if got := r.report("test", []result{{step: "s", verdict: c.v}}, 0); got != c.want {
			t.Errorf("a step %s: report says %v\n%s", c.v, got, out.String())
		}
	}
	var out bytes.Buffer
	r := &runner{out: &out, checked: []check{{id: "T1", pkg: "node", test: regexp.MustCompile("^TestT1$")}}}
	if r.report("test", nil, 0) {
		t.Error("a check without a test must fall short")
	}
	if !strings.HasSuffix(out.String(), "\n0 passed, 1 failed, 0 skipped\n") {
		t.Errorf("last line of:\n%s", out.String())
	}
}

func TestClip(t *testing.T) {
	if got := clip("a\nb\nc\n", 3); got != "a\nb\nc" {
		t.Errorf("short: %q", got)
	}
	if got := clip("a\nb\nc\nd\ne\n", 4); got != "a\nb\n(1 lines left out)\nd\ne" {
		t.Errorf("long: %q", got)
	}
}

func TestLineWriter(t *testing.T) {
	var got []string
	w := &lineWriter{each: func(line string) { got = append(got, line) }}
	for _, part := range []string{"a", "b\nc\n", "", "\nd"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.flush()
	if strings.Join(got, "|") != "ab|c||d" {
		t.Errorf("got %q", got)
	}
}

func TestEndedAtDeadline(t *testing.T) {
	for text, want := range map[string]bool{
		"--- FAIL: FuzzX (3.03s)\n    context deadline exceeded\nFAIL":                                            true,
		"--- FAIL: FuzzX (1.0s)\n    Failing input written to testdata/fuzz/FuzzX/1\ncontext deadline exceeded\n": false,
		"panic: runtime error\ncontext deadline exceeded":                                                         false,
		"FAIL": false,
	} {
		if got := endedAtDeadline(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestDiffering(t *testing.T) {
	before := map[string][]byte{"same": []byte("1"), "changed": []byte("1"), "gone": []byte("1")}
	after := map[string][]byte{"same": []byte("1"), "changed": []byte("2"), "new": []byte("1")}
	if got := strings.Join(differing(before, after), " "); got != "changed gone new" {
		t.Errorf("got %s", got)
	}
}

func TestGofmt(t *testing.T) {
	r := &runner{root: t.TempDir()}
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(r.root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a.go", "package a\n")
	write("node_modules/b.go", "package   b\n")
	if note, err := r.gofmt(t.Context()); err != nil || note != "1 files" {
		t.Errorf("%q, %v", note, err)
	}
	write("sub/c.go", "package   c\n")
	if _, err := r.gofmt(t.Context()); err == nil || !strings.Contains(err.Error(), filepath.Join("sub", "c.go")) {
		t.Errorf("got %v", err)
	}
}

func TestUsage(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), []string{"nothing"}, &out); code != 2 {
		t.Errorf("exit code %d", code)
	}
	for _, target := range targets() {
		if !strings.Contains(out.String(), target.name) {
			t.Errorf("usage lacks %s", target.name)
		}
	}
}
