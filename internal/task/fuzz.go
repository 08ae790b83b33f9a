package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A fuzzTarget is one func FuzzX of one package.
type fuzzTarget struct{ pkg, dir, name string }

// fuzz runs each fuzz target of the module for the given time, less when there
// are so many that the whole would take longer than total.
func (r *runner) fuzz(each, total time.Duration) step {
	return step{"fuzzing", total + 15*time.Minute, func(ctx context.Context) (string, error) {
		targets, err := r.fuzzTargets(ctx)
		if err != nil {
			return "", err
		}
		if len(targets) == 0 {
			return "", fmt.Errorf("no fuzz target found")
		}
		each := min(each, total/time.Duration(len(targets))).Round(100 * time.Millisecond)
		tmp, err := os.MkdirTemp("", "task-")
		if err != nil {
			return "", err
		}
		defer os.RemoveAll(tmp)
		cache, err := r.output(ctx, goCommand("env", "GOCACHE"))
		if err != nil {
			return "", err
		}
		var failures []string
		built := ""
		program := filepath.Join(tmp, "fuzz.test"+exe)
		for _, t := range targets {
			if t.pkg != built {
				if _, err := r.output(ctx, goCommand("test", "-c", "-vet=off", "-fuzz=.", "-o", program, t.pkg).with("CGO_ENABLED=0")); err != nil {
					return "", err
				}
				built = t.pkg
			}
			start := time.Now()
			text, err := r.output(ctx, command{dir: t.dir, args: []string{program,
				"-test.run=^$", "-test.fuzz=^" + t.name + "$", "-test.fuzztime=" + each.String(),
				// By default most of the time goes into making new inputs shorter.
				"-test.fuzzminimizetime=20x",
				"-test.timeout=" + (each + 2*time.Minute).String(),
				"-test.fuzzcachedir=" + filepath.Join(strings.TrimSpace(cache), "fuzz", filepath.FromSlash(t.pkg))}})
			word := ok
			if err != nil && !endedAtDeadline(text) {
				word = failed
				failures = append(failures, short(t.pkg)+" "+t.name)
			}
			fmt.Fprintf(r.out, "    %-7s %s %s  %s  %s\n", word, short(t.pkg), t.name, seconds(time.Since(start)), executions(text))
			if word == failed {
				fmt.Fprintln(r.out, indent(indent(err.Error())))
			}
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
		}
		if len(failures) > 0 {
			return "", fmt.Errorf("%d of %d targets failed: %s", len(failures), len(targets), strings.Join(failures, ", "))
		}
		return fmt.Sprintf("%d targets, %v each", len(targets), each), nil
	}}
}

// endedAtDeadline tells apart the one failure that is none: when the time is up
// while a worker is being asked, go test reports the deadline as an error
// although no input failed (go.dev/issue/75804).
func endedAtDeadline(text string) bool {
	return strings.Contains(text, "context deadline exceeded") &&
		!strings.Contains(text, "Failing input written to") &&
		!strings.Contains(text, "panic:")
}

// executions is the count of the last progress line, such as "execs: 91234".
func executions(text string) string {
	i := strings.LastIndex(text, "execs: ")
	if i < 0 {
		return ""
	}
	count, _, _ := strings.Cut(text[i+len("execs: "):], " ")
	return count + " inputs"
}

// fuzzTargets finds them in the sources: listing them by go test would link every test.
func (r *runner) fuzzTargets(ctx context.Context) ([]fuzzTarget, error) {
	const layout = `{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}}	{{$p.Dir}}	{{.}}
{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}}	{{$p.Dir}}	{{.}}
{{end}}`
	list, err := r.output(ctx, goCommand("list", "-f", layout, "./...").with("CGO_ENABLED=0"))
	if err != nil {
		return nil, err
	}
	var targets []fuzzTarget
	for line := range strings.Lines(list) {
		field := strings.Split(strings.TrimSpace(line), "\t")
		if len(field) != 3 {
			continue
		}
		names, err := fuzzFunctions(filepath.Join(field[1], field[2]))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			targets = append(targets, fuzzTarget{field[0], field[1], name})
		}
	}
	return targets, nil
}

func fuzzFunctions(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var names []string
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		if rest, found := strings.CutPrefix(scanner.Text(), "func Fuzz"); found {
			name, _, _ := strings.Cut(rest, "(")
			names = append(names, "Fuzz"+name)
		}
	}
	return names, scanner.Err()
}
