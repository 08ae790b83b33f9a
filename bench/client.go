package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// clientHelp is what "bench client -help" begins with.
const clientHelp = `Usage: bench client [flags]

Measures our client beside the official Node SDK 6.0.0, both with their defaults (encrypted
database on disk, no logging), in turns, each in a process of its own, with the same xmtp
node. Prints each operation with what both took, the ratio, and the bound that is promised
for it, and exits with 1 if one doesn't hold. Needs Node.js and npm; with -ours neither, and
no bound is judged.

What is measured, by the names for -run:

`

// A clientBench is one run of "bench client".
type clientBench struct {
	dir      string
	xmtp     string
	rounds   int
	all      bool
	profiles map[string]string // of our measured processes: files by flag

	modules, nodeJS string // of the official SDK; empty if it isn't measured

	node    *process
	parties []party
	drivers [2]*driver // by party
	peers   *driver    // what both have to do with: an author, a reader, others
	author  account
	others  []string // inbox ids of people who have been, and don't answer
	rows    []*comparison
	clients int
}

// A party is our client or the official one.
type party int

const (
	ours party = iota
	official
)

func (s party) String() string { return [...]string{"ours", "official"}[s] }

// A clientMeasurement makes some rows of the table.
type clientMeasurement struct {
	name, what string
	long       bool
	run        func(*clientBench, context.Context) error
}

var clientMeasurements = []clientMeasurement{
	{"register", "register an installation", false, (*clientBench).register},
	{"reopen", "open a client that is registered, in a new process and again", false, (*clientBench).reopen},
	{"create", "create a direct message, and groups with 10, 100 and 249 others", false, (*clientBench).create},
	{"member", "in a group of 250: add, remove, send", false, (*clientBench).bigGroup},
	{"commit", "in a group of 250: sync a commit, join", false, (*clientBench).bigGroupReceived},
	{"send", "send one text, awaited", false, (*clientBench).send},
	{"publish", "1,000 texts, stored at once and then published", false, (*clientBench).publishTexts},
	{"concurrent", "64 senders at once, in one group and in 64", false, (*clientBench).concurrent},
	{"one", "sync 10,000 messages of one group", false, (*clientBench).syncOne},
	{"hundred", "sync 10,000 messages of 100 groups; list, empty sync and database with them", false, (*clientBench).syncHundred},
	{"stream", "from the node's time of a message to its delivery on a stream", false, (*clientBench).stream},
	{"cut", "the connection cut for 2 s in a stream of 500 messages; of the official client with -all, as it takes a minute", false, (*clientBench).cut},
	{"idle", "100 idle clients in one process: memory, descriptors, threads", false, (*clientBench).idle},
	{"bytes", "bytes and requests of each operation", false, (*clientBench).bytes},
	{"growth", "send, receive, add and remove by size of the group, send and receive by length of its history", false, (*clientBench).growth},
	{"history", "growth to 100,000 messages, ours", true, (*clientBench).longHistory},
}

// clientMain is the program's subcommand client.
func clientMain(args []string) error {
	b := &clientBench{}
	flags := flag.NewFlagSet("bench client", flag.ExitOnError)
	flags.Usage = func() {
		out := flags.Output()
		fmt.Fprint(out, clientHelp)
		w := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
		for _, m := range clientMeasurements {
			long := map[bool]string{true: " (-all)"}[m.long]
			fmt.Fprintf(w, "  %s\t%s%s\n", m.name, m.what, long)
		}
		_ = w.Flush()
		fmt.Fprint(out, "\nFlags:\n\n")
		flags.PrintDefaults()
	}
	only := flags.String("run", ".", "`regexp` of the measurements to make")
	flags.IntVar(&b.rounds, "rounds", 3, "how many turns each comparison has")
	flags.BoolVar(&b.all, "all", false, "also what takes long")
	onlyOurs := flags.Bool("ours", false, "measure our client alone, without Node.js")
	asJSON := flags.Bool("json", false, "print the table as JSON, one row a line")
	dir := flags.String("dir", "", "`directory` for databases and stores, on the file system to measure; the system's temporary one if empty")
	flags.StringVar(&b.xmtp, "xmtp", "", "the `program` that is the node; built from this repository if empty")
	cpu := flags.String("cpuprofile", "", "`file` for a CPU profile of our measured process; if there are several measurements, their names are added to its")
	heap := flags.String("memprofile", "", "`file` for a profile of all allocations there, likewise")
	serve := flags.Bool("serve", false, "be the measured process of our client; for this program itself")
	_ = flags.Parse(args) // which exits on errors
	if flags.NArg() > 0 {
		return fmt.Errorf("what is %q? See bench client -help", flags.Arg(0))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *serve {
		return serveClients(ctx, *cpu, *heap)
	}
	b.profiles = map[string]string{"-cpuprofile": *cpu, "-memprofile": *heap}
	selected, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	err = b.measure(ctx, selected, *dir, *onlyOurs)
	// What was found until something failed is worth seeing.
	ok := b.print(*asJSON)
	if err == nil && !ok {
		err = errShort
	}
	return err
}

func (b *clientBench) measure(ctx context.Context, selected *regexp.Regexp, dir string, onlyOurs bool) (err error) {
	if _, err := raiseFiles(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(dir, "xmtp-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	progress("preparing, load before %s", load())
	if b.xmtp == "" {
		b.xmtp = filepath.Join(b.dir, "xmtp")
		if err := build(ctx, b.dir, "./cmd/xmtp"); err != nil {
			return err
		}
	}
	b.parties = []party{ours}
	if !onlyOurs {
		b.parties = []party{ours, official}
		if b.modules, b.nodeJS, err = officialSDK(ctx); err != nil {
			return err
		}
	}
	if b.node, err = startNode(ctx, b.xmtp, filepath.Join(b.dir, "node")); err != nil {
		return err
	}
	defer b.node.stop()
	if b.peers, err = b.startOurs(ctx); err != nil {
		return err
	}
	defer b.peers.stop()
	if b.author, err = b.newPeer(ctx); err != nil {
		return err
	}
	made, err := b.peers.do(ctx, request{Op: "others", URL: b.url(), Count: 249})
	if err != nil {
		return err
	}
	b.others = made.IDs
	var chosen []clientMeasurement
	for _, m := range clientMeasurements {
		if (b.all || !m.long) && selected.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("nothing to measure is called %s", selected)
	}
	for _, m := range chosen {
		begin := time.Now()
		if err := b.one(ctx, m, len(chosen) == 1); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		progress("%s took %v, load %s", m.name, time.Since(begin).Round(100*time.Millisecond), load())
	}
	return nil
}

// one makes a measurement with new processes, so that no clients of an earlier one are in
// the way.
func (b *clientBench) one(ctx context.Context, m clientMeasurement, only bool) error {
	for _, p := range b.parties {
		var err error
		if p == official {
			b.drivers[p], err = b.startOfficial(ctx)
		} else {
			var flags []string
			for name, file := range b.profiles {
				if file == "" {
					continue
				}
				if !only {
					extension := filepath.Ext(file)
					file = strings.TrimSuffix(file, extension) + "." + m.name + extension
				}
				flags = append(flags, name, file)
			}
			b.drivers[p], err = b.startOurs(ctx, flags...)
		}
		if err != nil {
			return err
		}
		defer b.drivers[p].stop()
	}
	return m.run(b, ctx)
}

func (b *clientBench) url() string { return "http://" + b.node.address }

// progress is told on standard error, so that standard output is the table alone.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// alternate lets each party do something in turns, each second time in the other
// order.
func (b *clientBench) alternate(what string, do func(round int, s party) error) error {
	for round := range b.rounds {
		order := slices.Clone(b.parties)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			begin := time.Now()
			if err := do(round, s); err != nil {
				return fmt.Errorf("%v: %w", s, err)
			}
			progress("%s, turn %d of %d, %v: %v", what, round+1, b.rounds, s, time.Since(begin).Round(time.Millisecond))
		}
	}
	return nil
}

// A comparison is a row of the table.
type comparison struct {
	operation string
	unit      unit
	bound     bound
	turns     [2][]float64 // by party, the median of each turn
	note      string
}

// A unit says how a figure is written.
type unit int

const (
	milliseconds unit = iota // figures are in nanoseconds
	rate                     // a second
	bytesUnit
	plainUnit
)

// A bound is what is promised. The zero value promises nothing.
type bound struct {
	atMost, atLeast float64 // of ours to the official client's
	absolute        float64 // of ours, in the unit of the figure; at most
	growth          float64 // of ours to our first; at most
	first           *comparison
}

func (b *clientBench) compare(operation string, u unit, promised bound) *comparison {
	row := &comparison{operation: operation, unit: u, bound: promised}
	b.rows = append(b.rows, row)
	return row
}

// add notes what one turn of a party found.
func (c *comparison) add(s party, values ...float64) {
	if len(values) > 0 {
		c.turns[s] = append(c.turns[s], median(slices.Clone(values)))
	}
}

func (c *comparison) addTimes(s party, times ...time.Duration) {
	values := make([]float64, len(times))
	for i, t := range times {
		values[i] = float64(t)
	}
	c.add(s, values...)
}

// addRate notes how many of something were done in a time.
func (c *comparison) addRate(s party, count int, took time.Duration) {
	c.add(s, float64(count)/took.Seconds())
}

// figure is the median of a party's turns; there is none if it wasn't measured.
func (c *comparison) figure(s party) (float64, bool) {
	return median(slices.Clone(c.turns[s])), len(c.turns[s]) > 0
}

// ratio is the median of those of the turns.
func (c *comparison) ratio() (float64, bool) {
	if len(c.turns[ours]) == 0 || len(c.turns[ours]) != len(c.turns[official]) {
		return 0, false
	}
	return (&pairs{c.turns[ours], c.turns[official]}).ratio(), true
}

// holds tells whether what is promised is so, if that can be told.
func (c *comparison) holds() (holds, judged bool) {
	if c.bound.absolute > 0 {
		found, ok := c.figure(ours)
		return found <= c.bound.absolute, ok
	}
	if c.bound.first != nil {
		growth, ok := c.growth(ours)
		return growth <= c.bound.growth, ok
	}
	ratio, ok := c.ratio()
	if !ok || c.bound == (bound{}) {
		return true, false
	}
	return ratio >= c.bound.atLeast && ratio <= cmp.Or(c.bound.atMost, math.Inf(1)), true
}

// growth is how many times the first row's figure this row's is.
func (c *comparison) growth(p party) (float64, bool) {
	if c.bound.first == nil {
		return 0, false
	}
	before, ok := c.bound.first.figure(p)
	after, too := c.figure(p)
	return after / before, ok && too
}

func (c *comparison) promise() string {
	switch {
	case c.bound.atMost > 0:
		return fmt.Sprintf("at most %.3g", c.bound.atMost)
	case c.bound.atLeast > 0:
		return fmt.Sprintf("at least %.3g", c.bound.atLeast)
	case c.bound.absolute > 0:
		return "at most " + c.unit.format(c.bound.absolute)
	case c.bound.first != nil:
		return fmt.Sprintf("at most %.3g x the first", c.bound.growth)
	}
	return ""
}

func (u unit) format(v float64) string {
	switch u {
	case milliseconds:
		if v >= 1e9 {
			return fmt.Sprintf("%.3g s", v/1e9)
		}
		return fmt.Sprintf("%.3g ms", v/1e6)
	case rate:
		return fmt.Sprintf("%.0f/s", v)
	case bytesUnit:
		switch {
		case v >= 1e6:
			return fmt.Sprintf("%.2f MB", v/1e6)
		case v >= 1e4:
			return fmt.Sprintf("%.1f kB", v/1e3)
		}
		return fmt.Sprintf("%.0f B", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// print prints the table, and tells whether all is as promised.
func (b *clientBench) print(asJSON bool) bool {
	all := true
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	if !asJSON {
		fmt.Printf("%s/%s, %d processors, %s, %d turns\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), b.rounds)
		fmt.Fprintln(w, "\toperation\tofficial\tours\tratio\tpromised\t")
	}
	for _, c := range b.rows {
		holds, judged := c.holds()
		all = all && holds
		verdict := map[bool]string{true: "ok", false: "SHORT"}[holds]
		if !judged {
			verdict = ""
		}
		figures := map[party]string{}
		for _, s := range []party{ours, official} {
			if v, ok := c.figure(s); ok {
				figures[s] = c.unit.format(v)
			}
		}
		ratio, compared := c.ratio()
		if asJSON {
			row := map[string]any{
				"operation": c.operation, "unit": [...]string{"ns", "1/s", "B", ""}[c.unit],
				"ours": c.turns[ours], "official": c.turns[official], "promised": c.promise(), "note": c.note,
			}
			if compared {
				row["ratio"] = ratio
			}
			if judged {
				row["holds"] = holds
			}
			if err := json.NewEncoder(os.Stdout).Encode(row); err != nil {
				return false
			}
			continue
		}
		text := ""
		if compared {
			text = fmt.Sprintf("%.3g", ratio)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", verdict, c.operation, figures[official], figures[ours], text, c.promise(), c.note)
	}
	_ = w.Flush()
	return all
}

// errWrong is for results that are not what they should be: what was measured then
// doesn't count.
var errWrong = errors.New("wrong result")

// expect fails if something was not done.
func expect(what string, found, want int) error {
	if found != want {
		return fmt.Errorf("%w: %s: %d, want %d", errWrong, what, found, want)
	}
	return nil
}
