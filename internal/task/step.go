package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// A runner carries what the steps of one target share.
type runner struct {
	root  string // folder of go.mod
	out   io.Writer
	proof bool // the long tier
	ci    bool // nothing that can be had may be skipped
	tests testLog

	checked []check // what the issues ask for; each must have a test that passed
}

// A step is one thing to do within a time limit. It returns a few words for the
// table, and a [skip] when what it needs isn't there.
type step struct {
	name  string
	limit time.Duration
	run   func(ctx context.Context) (note string, err error)
}

// A skip is the reason why a step was not done.
type skip string

func (s skip) Error() string { return string(s) }

type verdict string

const (
	ok      verdict = "ok"
	failed  verdict = "FAIL"
	skipped verdict = "skipped"
	missing verdict = "MISSING"
)

type result struct {
	step    string
	verdict verdict
	took    time.Duration
	note    string
}

// runAll does all steps, also after one has failed, so that one run shows
// everything that is wrong. An interrupt ends it.
func (r *runner) runAll(ctx context.Context, steps []step) []result {
	var results []result
	for _, s := range steps {
		if ctx.Err() != nil {
			results = append(results, result{s.name, failed, 0, "interrupted"})
			continue
		}
		results = append(results, r.runStep(ctx, s))
	}
	return results
}

func (r *runner) runStep(ctx context.Context, s step) result {
	fmt.Fprintf(r.out, "> %s\n", s.name)
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	note, err := s.run(limited)
	res := result{s.name, ok, time.Since(start), note}
	var reason skip
	switch {
	case err == nil:
	case errors.As(err, &reason):
		res.verdict, res.note = skipped, string(reason)
	case ctx.Err() != nil:
		res.verdict, res.note = failed, "interrupted"
	case limited.Err() != nil:
		res.verdict, res.note = failed, fmt.Sprintf("not done within %v", s.limit)
		fmt.Fprintln(r.out, indent(err.Error()))
	default:
		res.verdict = failed
		fmt.Fprintln(r.out, indent(err.Error()))
		res.note, _, _ = strings.Cut(err.Error(), "\n")
	}
	fmt.Fprintf(r.out, "  %-7s %s  %s\n", res.verdict, seconds(res.took), res.note)
	return res
}

// report prints what was checked and what was not, and tells whether all of it
// was as it must be.
func (r *runner) report(name string, results []result, took time.Duration) bool {
	var passedCount, failedCount, skippedCount int
	count := func(v verdict) {
		switch v {
		case ok:
			passedCount++
		case skipped:
			skippedCount++
		default:
			failedCount++
		}
	}
	for _, res := range results {
		count(res.verdict)
	}
	for _, t := range r.tests.topLevel() {
		count(t.verdict)
	}

	table := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	title := func(text string) { fmt.Fprintf(table, "\n%s\n", text) }
	if len(r.checked) > 0 {
		title("What the issues ask for")
		for _, row := range r.judge(results) {
			count(row.verdict)
			fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", row.verdict, row.id, row.what, row.note)
		}
	}
	if all := r.tests.scenarios; len(all) > 0 {
		title("Official clients")
		for _, s := range all {
			fmt.Fprintf(table, "  %s\t%s\t%s\n", s.verdict, s.name, s.took)
		}
	}
	if figures := r.tests.figures; len(figures) > 0 {
		title("Figures")
		for _, f := range figures {
			fmt.Fprintf(table, "  %s\t%s\t%s\n", f.area, f.name, f.value)
		}
	}
	if all := r.tests.skips(); len(all) > 0 {
		title("Skipped tests")
		for _, t := range all {
			fmt.Fprintf(table, "  %s\t%s\t%s\n", short(t.pkg), t.name, t.reason)
		}
	}
	title("Steps")
	for _, res := range results {
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", res.verdict, res.step, seconds(res.took), res.note)
	}
	table.Flush()

	word := "is as it must be"
	if failedCount > 0 {
		word = "FALLS SHORT"
	}
	fmt.Fprintf(r.out, "\n%s %s after %v.\n", name, word, took.Round(time.Second))
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", passedCount, failedCount, skippedCount)
	return failedCount == 0
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ")
}
