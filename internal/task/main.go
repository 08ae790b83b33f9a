// Command task runs everything that is done with this repository besides
// writing it. It needs Go; the official-client tests also need Node.
//
//	go run ./internal/task <target>
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// A target is what a caller asks for: steps that run one after the other.
type target struct {
	name  string
	help  string
	steps func(*runner) ([]step, error)
}

func targets() []target {
	return []target{
		{"build", "build bin/xmtp for this machine", func(r *runner) ([]step, error) { return []step{r.binary()}, nil }},
		{"test", "everything a change must pass, under 15 minutes on 2 cores", (*runner).testSteps},
		{"proof", "the same with the long tests: soaks, long random walks, 500 kills; hours", (*runner).proofSteps},
		{"bench", "all benchmarks", func(r *runner) ([]step, error) { return []step{r.benchmarks()}, nil }},
		{"generate", "make generated code and the public API golden files again", (*runner).generateSteps},
		{"lint", "format, vet, staticcheck, imports, public API, generated code", (*runner).lintSteps},
		{"vuln", "known vulnerabilities in dependencies (needs the vulnerability database)", func(r *runner) ([]step, error) { return []step{r.vulnerabilities()}, nil }},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout)
	stop()
	os.Exit(code)
}

// run gives the exit code: 0 when everything passed, 1 when something fell
// short, 2 when it was called wrongly.
func run(ctx context.Context, args []string, out io.Writer) int {
	if len(args) == 1 {
		for _, t := range targets() {
			if t.name == args[0] {
				return runTarget(ctx, t, out)
			}
		}
	}
	fmt.Fprintln(out, "Usage: go run ./internal/task <target>")
	fmt.Fprintln(out)
	for _, t := range targets() {
		fmt.Fprintf(out, "  %-9s %s\n", t.name, t.help)
	}
	return 2
}

func runTarget(ctx context.Context, t target, out io.Writer) int {
	root, err := moduleRoot()
	if err != nil {
		fmt.Fprintln(out, "task:", err)
		return 1
	}
	r := &runner{root: root, out: out, ci: os.Getenv("CI") == "true"}
	steps, err := t.steps(r)
	if err != nil {
		fmt.Fprintln(out, "task:", err)
		return 1
	}
	start := time.Now()
	results := r.runAll(ctx, steps)
	if !r.report(t.name, results, time.Since(start)) {
		return 1
	}
	return 0
}

// moduleRoot is the folder above the working directory that holds this command.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "internal", "task", "main.go")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("run it inside the repository: go run ./internal/task")
		}
		dir = parent
	}
}
