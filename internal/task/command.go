package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A command is an external program; it ends, with all that it has started, when
// its context does.
type command struct {
	dir  string   // below the module root
	env  []string // added to this process's
	args []string
}

func goCommand(args ...string) command {
	return command{args: append([]string{"go"}, args...)}
}

// in is the command in another folder of the repository.
func (c command) in(dir string) command {
	c.dir = dir
	return c
}

// with is the command with more in its environment.
func (c command) with(env ...string) command {
	c.env = append(env, c.env...)
	return c
}

func (c command) String() string {
	return strings.Join(append([]string{filepath.Base(c.args[0])}, c.args[1:]...), " ")
}

func (r *runner) prepare(ctx context.Context, c command) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir = c.dir
	if !filepath.IsAbs(c.dir) {
		cmd.Dir = filepath.Join(r.root, c.dir)
	}
	cmd.Env = append(os.Environ(), c.env...)
	ownGroup(cmd)
	cmd.Cancel = func() error { return killGroup(cmd) }
	// A grandchild that left the group could hold the pipes open.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// output runs a command; the error of one that fails names it and holds what it said.
func (r *runner) output(ctx context.Context, c command) (string, error) {
	cmd := r.prepare(ctx, c)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Run(); err != nil {
		return text.String(), fmt.Errorf("%v: %w\n%s", c, err, clip(text.String(), 200))
	}
	return text.String(), nil
}

// lines runs a command and hands over each line of its standard output while it runs.
func (r *runner) lines(ctx context.Context, c command, each func(line string)) error {
	cmd := r.prepare(ctx, c)
	var errors bytes.Buffer
	lines := &lineWriter{each: each}
	cmd.Stdout, cmd.Stderr = lines, &errors
	err := cmd.Run()
	lines.flush()
	if err != nil {
		return fmt.Errorf("%v: %w\n%s", c, err, clip(errors.String(), 50))
	}
	return nil
}

// A lineWriter hands over what is written to it line by line.
type lineWriter struct {
	each func(line string)
	part []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.part = append(w.part, b...)
	for {
		line, rest, found := bytes.Cut(w.part, []byte{'\n'})
		if !found {
			return len(b), nil
		}
		w.each(string(line))
		w.part = rest
	}
}

func (w *lineWriter) flush() {
	if len(w.part) > 0 {
		w.each(string(w.part))
		w.part = nil
	}
}

// clip leaves out the middle of a long text: what failed stands at its beginning
// or at its end.
func clip(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(all) <= lines {
		return strings.Join(all, "\n")
	}
	head, end := all[:lines/2], all[len(all)-lines/2:]
	return fmt.Sprintf("%s\n(%d lines left out)\n%s", strings.Join(head, "\n"), len(all)-len(head)-len(end), strings.Join(end, "\n"))
}
