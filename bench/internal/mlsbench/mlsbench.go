// Package mlsbench compares implementations of MLS: the same operations, in turns, in
// one process. Ours is in this package; those of others are in a module of their own,
// bench/mlspeers, so that nobody who uses us gets them.
package mlsbench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"
)

// ErrUnsupported is returned by operations that a library doesn't have.
var ErrUnsupported = errors.New("not supported")

// A Library is an implementation, as it uses cipher suite 1 and basic credentials.
type Library struct {
	Name string

	// NewClient makes somebody with a signature key. It is not measured.
	NewClient func(name string) (Client, error)

	// Spent, for a library in another process, says how long its operations have taken
	// in all and what they have allocated; nil where it can be measured from outside.
	Spent func() (took time.Duration, bytes uint64)
}

// Client is somebody who can be in one group.
type Client interface {
	// KeyPackage makes a key package and returns it encoded.
	KeyPackage() ([]byte, error)

	// Create makes a group of one.
	Create() (Group, error)

	// Join joins by a Welcome for the last key package.
	Join(welcome []byte) (Group, error)
}

// Group is a member's view of a group. What it takes and returns are encoded messages.
type Group interface {
	// Add adds the owners of key packages by one commit, which is merged.
	Add(keyPackages [][]byte) (welcome []byte, err error)

	// Commit makes an empty commit with a path, and merges it.
	Commit() (commit []byte, err error)

	// ProcessCommit takes in another member's commit.
	ProcessCommit(commit []byte) error

	Encrypt(text []byte) ([]byte, error)
	Decrypt(message []byte) ([]byte, error)
}

// Options say how much is measured.
type Options struct {
	Members  []int // sizes of groups
	Rounds   int   // turns of each library, for 200 members or more; more for fewer
	Messages int   // of a kilobyte each, in a round
}

const textBytes = 1024

// sample is what one turn of one library measured.
type sample struct {
	took  time.Duration // of one operation
	bytes uint64        // allocated by one operation
	size  int           // of what it made; 0 if it makes nothing to be sent
}

// rows are the operations, in the order in which they are measured and printed.
var rows = []string{"key package", "create a group", "add the others, with Welcome", "join by it", "commit", "process it", "encrypt 1 KiB", "decrypt it"}

// Run measures and prints a table for each size of groups. The first library is the
// one that the others are compared with.
func Run(out io.Writer, libraries []Library, opts Options) error {
	for _, n := range opts.Members {
		samples := make(map[string]map[string][]sample) // by row and library
		for _, row := range rows {
			samples[row] = make(map[string][]sample)
		}
		for round := range opts.Rounds * max(1, 200/n) {
			for i := range libraries { // who begins changes
				l := libraries[(i+round)%len(libraries)]
				t := turn{library: l, members: n, messages: opts.Messages, record: func(row string, s sample) {
					samples[row][l.Name] = append(samples[row][l.Name], s)
				}}
				if err := t.run(); err != nil {
					return fmt.Errorf("%s, %d members: %w", l.Name, n, err)
				}
			}
		}
		print(out, libraries, n, samples)
	}
	return nil
}

// turn is one library's turn.
type turn struct {
	library  Library
	members  int
	messages int
	record   func(row string, s sample)
}

// measure records what f takes, which does an operation n times and returns the size
// of what the last one made.
func (t *turn) measure(row string, n int, f func() (size int, err error)) error {
	var spent time.Duration
	var spentBytes uint64
	if t.library.Spent != nil {
		spent, spentBytes = t.library.Spent()
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	size, err := f()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	if t.library.Spent != nil {
		took, allocated = t.library.Spent()
		took, allocated = took-spent, allocated-spentBytes
	}
	if errors.Is(err, ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", row, err)
	}
	t.record(row, sample{took / time.Duration(n), allocated / uint64(n), size})
	return nil
}

func (t *turn) run() error {
	creator, err := t.library.NewClient("creator")
	if err != nil {
		return err
	}
	joining := make([]Client, t.members-1)
	for i := range joining {
		if joining[i], err = t.library.NewClient(fmt.Sprint("member ", i)); err != nil {
			return err
		}
	}
	var packages [][]byte
	err = t.measure(rows[0], len(joining), func() (size int, err error) {
		for _, c := range joining {
			kp, err := c.KeyPackage()
			if err != nil {
				return 0, err
			}
			packages, size = append(packages, kp), len(kp)
		}
		return size, nil
	})
	if err != nil {
		return err
	}
	const groups = 10
	var group, other Group
	err = t.measure(rows[1], groups, func() (int, error) {
		for range groups {
			if group, err = creator.Create(); err != nil {
				return 0, err
			}
		}
		return 0, nil
	})
	if err != nil {
		return err
	}
	var welcome []byte
	err = t.measure(rows[2], 1, func() (int, error) {
		welcome, err = group.Add(packages)
		return len(welcome), err
	})
	if err != nil {
		return err
	}
	err = t.measure(rows[3], 1, func() (int, error) {
		other, err = joining[len(joining)/2].Join(welcome)
		return 0, err
	})
	if err != nil {
		return err
	}
	if err := t.commits(group, other); err != nil {
		return err
	}
	return t.texts(group, other)
}

// commits measures commits of the creator; nobody else has ever made one.
func (t *turn) commits(group, other Group) error {
	const commits = 3
	for range commits {
		var commit []byte
		err := t.measure(rows[4], 1, func() (size int, err error) {
			commit, err = group.Commit()
			return len(commit), err
		})
		if err != nil || commit == nil {
			return err
		}
		err = t.measure(rows[5], 1, func() (int, error) { return 0, other.ProcessCommit(commit) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *turn) texts(group, other Group) error {
	text := bytes.Repeat([]byte{'x'}, textBytes)
	var messages [][]byte
	err := t.measure(rows[6], t.messages, func() (size int, err error) {
		for range t.messages {
			m, err := group.Encrypt(text)
			if err != nil {
				return 0, err
			}
			messages, size = append(messages, m), len(m)
		}
		return size, nil
	})
	if err != nil {
		return err
	}
	return t.measure(rows[7], t.messages, func() (int, error) {
		for _, m := range messages {
			read, err := other.Decrypt(m)
			if err != nil {
				return 0, err
			}
			if !bytes.Equal(read, text) {
				return 0, errors.New("another text")
			}
		}
		return 0, nil
	})
}

// print writes the table of one size: medians, and how many times ours the others take.
func print(out io.Writer, libraries []Library, n int, samples map[string]map[string][]sample) {
	fmt.Fprintf(out, "\n%d members:\n\n| operation |", n)
	for i, l := range libraries {
		if i > 0 {
			fmt.Fprintf(out, " %s | ratio |", l.Name)
		} else {
			fmt.Fprintf(out, " %s |", l.Name)
		}
	}
	fmt.Fprintf(out, "\n|%s\n", strings.Repeat(" --- |", 2*len(libraries)))
	line := func(name string, of func(s sample) float64, show func(v float64) string) {
		row, _, _ := strings.Cut(name, ":")
		fmt.Fprintf(out, "| %s |", name)
		ours := median(samples[row][libraries[0].Name], of)
		for i, l := range libraries {
			theirs := samples[row][l.Name]
			switch {
			case len(theirs) == 0 && i > 0:
				fmt.Fprint(out, " – | |")
			case i == 0:
				fmt.Fprintf(out, " %s |", show(ours))
			default:
				v := median(theirs, of)
				fmt.Fprintf(out, " %s | %.3g × |", show(v), v/ours)
			}
		}
		fmt.Fprintln(out)
	}
	for _, row := range rows {
		line(row, func(s sample) float64 { return float64(s.took) }, func(v float64) string { return duration(time.Duration(v)) })
	}
	for _, row := range rows {
		line(row+": memory allocated", func(s sample) float64 { return float64(s.bytes) }, size)
	}
	for _, row := range []string{rows[0], rows[2], rows[4], rows[6]} {
		line(row+": sent", func(s sample) float64 { return float64(s.size) }, size)
	}
}

func median(samples []sample, of func(s sample) float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func duration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", float64(d)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/1e6)
	default:
		return fmt.Sprintf("%.3g s", d.Seconds())
	}
}

func size(v float64) string {
	switch {
	case v < 1e4:
		return fmt.Sprintf("%.0f B", v)
	case v < 1e6:
		return fmt.Sprintf("%.3g kB", v/1e3)
	default:
		return fmt.Sprintf("%.3g MB", v/1e6)
	}
}
