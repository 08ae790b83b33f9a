//go:build unix

package main

import (
	"context"
	"testing"
)

// What a command has started must not outlive it.
func TestEndReachesGrandchildren(t *testing.T) {
	r := &runner{root: t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var lines []string
	c := command{args: []string{"sh", "-c", "(echo ready; sleep 3; echo survived); true"}}
	err := r.lines(ctx, c, func(line string) {
		lines = append(lines, line)
		cancel()
	})
	if err == nil || len(lines) != 1 || lines[0] != "ready" {
		t.Errorf("lines %q, error %v", lines, err)
	}
}
