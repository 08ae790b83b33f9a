package mlsharness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/go-xmtp/go-xmtp/mls"
)

// Seating tells which of two peers plays an actor.
type Seating string

// The ways to seat actors, by their order in the scenario.
const (
	FirstBegins  Seating = "first begins"  // the first peer plays the first actor, the second one the others
	SecondBegins Seating = "second begins" // the other way round
	Mixed        Seating = "mixed"         // in turn
)

// peer is which one of two plays the i'th actor.
func (s Seating) peer(i int) int {
	switch s {
	case FirstBegins:
		return min(i, 1)
	case SecondBegins:
		return 1 - min(i, 1)
	}
	return i % 2
}

// Setup is in which way to play a scenario.
type Setup struct {
	Suite    mls.CipherSuite
	Encrypts bool // handshakes are PrivateMessages
	Seating  Seating
	Rounds   int    // of random scenarios, 4 at least
	Seed     uint64 // of random scenarios

	// NoExport leaves exported secrets out of what members compare, for servers that
	// don't export any.
	NoExport bool
}

func (how Setup) String() string {
	form := "public"
	if how.Encrypts {
		form = "private"
	}
	return fmt.Sprintf("suite %d, %s, %s", how.Suite, form, how.Seating)
}

// Setups are all ways to play with a suite.
func Setups(suite mls.CipherSuite) []Setup {
	var list []Setup
	for _, seating := range []Seating{FirstBegins, SecondBegins, Mixed} {
		for _, encrypts := range []bool{true, false} {
			list = append(list, Setup{Suite: suite, Encrypts: encrypts, Seating: seating})
		}
	}
	return list
}

// Play runs a scenario between two peers. The error is a *[StepError] if they don't
// play it to its end.
func (sc Scenario) Play(ctx context.Context, first, second *Peer, how Setup) error {
	peers := []*Peer{first, second}
	s := &session{
		ctx: ctx, suite: how.Suite, encrypts: how.Encrypts, seats: map[string]*seat{},
		noExport: how.NoExport, rounds: how.Rounds, rand: rand.New(rand.NewPCG(how.Seed, 0)),
		common: slices.DeleteFunc(slices.Clone(first.Suites), func(id mls.CipherSuite) bool { return !slices.Contains(second.Suites, id) }),
	}
	for i, name := range sc.Actors {
		s.seats[name] = &seat{name: name, peer: peers[how.Seating.peer(i)]}
	}
	sc.play(s)
	s.free()
	return s.err
}

// Result is how a scenario went.
type Result struct {
	Scenario string
	Setup    Setup
	Err      error // nil, or a *StepError
}

// WriteTable writes a table of scenarios and suites, with the number of runs that went
// well in each cell, and below it what went wrong otherwise, each thing once.
func WriteTable(w io.Writer, results []Result) error {
	type cell struct{ good, all int }
	type cellKey struct {
		scenario string
		suite    mls.CipherSuite
	}
	cells := map[cellKey]cell{}
	var names []string
	var columns []mls.CipherSuite
	trouble := map[string][]string{}
	for _, r := range results {
		key := cellKey{r.Scenario, r.Setup.Suite}
		c := cells[key]
		c.all++
		if r.Err == nil {
			c.good++
		} else {
			text := explain(r)
			trouble[text] = append(trouble[text], r.Setup.String())
		}
		cells[key] = c
		if !slices.Contains(names, r.Scenario) {
			names = append(names, r.Scenario)
		}
		if !slices.Contains(columns, r.Setup.Suite) {
			columns = append(columns, r.Setup.Suite)
		}
	}
	slices.Sort(columns)
	var b strings.Builder
	b.WriteString("| scenario |")
	for _, suite := range columns {
		fmt.Fprintf(&b, " %d |", suite)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(columns)) + "\n")
	for _, name := range names {
		fmt.Fprintf(&b, "| %s |", name)
		for _, suite := range columns {
			c := cells[cellKey{name, suite}]
			switch {
			case c.all == 0:
				b.WriteString(" |")
			case c.good == c.all:
				b.WriteString(" ok |")
			default:
				fmt.Fprintf(&b, " %d of %d |", c.good, c.all)
			}
		}
		b.WriteString("\n")
	}
	texts := make([]string, 0, len(trouble))
	for text := range trouble {
		texts = append(texts, text)
	}
	slices.SortFunc(texts, cmp.Compare)
	for _, text := range texts {
		runs := trouble[text]
		fmt.Fprintf(&b, "\n- %s\n  %d runs, the first: %s", text, len(runs), runs[0])
	}
	if len(texts) > 0 {
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// explain is what went wrong, without what differs from run to run.
func explain(r Result) string {
	step := new(StepError)
	if !errors.As(r.Err, &step) {
		return fmt.Sprintf("%s: %v", r.Scenario, r.Err)
	}
	reason := step.Reason
	if strings.HasPrefix(reason, "has ") {
		reason = "differs"
	}
	what := "fails"
	if step.Unsupported {
		what = "unsupported"
	}
	return fmt.Sprintf("%s: %s, %s: %s (%s)", r.Scenario, what, step.Step, reason, step.Peer)
}
