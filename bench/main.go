// Command bench measures a node beside a bare gRPC server. It starts xmtp node as
// a process of its own, loads it, and prints what it found with the bound that is
// promised for it:
//
//	go run ./bench          what takes a few minutes
//	go run ./bench -all     everything, with stores of 5 million messages
//
// and a client beside the official one (client.go):
//
//	go run ./bench client
//
// The node, the bare server and this program share the machine. What is measured
// of the node and what it is compared with are measured in turns, so that whatever
// else the machine does falls on both; the ratio is the median of those of the turns.
// All answers are checked: that nothing is lost and that numbers grow.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"
)

// bench is one run.
type bench struct {
	dir    string // for stores
	xmtp   string // the program
	fill   string // the program that makes big stores
	all    bool
	rounds int
	turn   time.Duration // how long one thing is measured at a time
	files  uint64        // how many may be open
	echo   *process
	rows   []row
}

// A row is a promise, and what was found.
type row struct {
	name, figure, bound string
	ok                  bool
}

func (b *bench) report(ok bool, name, bound, format string, args ...any) {
	r := row{name, fmt.Sprintf(format, args...), bound, ok}
	fmt.Printf("%s: %s; %s: %s\n", r.name, r.figure, r.bound, r.verdict())
	b.rows = append(b.rows, r)
}

func (r row) verdict() string {
	if r.ok {
		return "ok"
	}
	return "SHORT"
}

// measurements are in the order of the table.
var measurements = []struct {
	name string
	long bool
	run  func(*bench, context.Context) error
}{
	{"publish", false, (*bench).publish},
	{"latency", false, (*bench).latency},
	{"page", false, (*bench).page},
	{"delivery", false, (*bench).delivery},
	{"streams", false, (*bench).streams},
	{"connections", true, (*bench).manyConnections},
	{"disk", true, (*bench).disk},
	{"big", true, (*bench).bigStore},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "client" {
		exit(clientMain(os.Args[2:]))
	}
	b := &bench{}
	flag.Usage = func() {
		out := flag.CommandLine.Output()
		fmt.Fprint(out, "Usage: bench [flags]          measures a node beside a bare gRPC server\n"+
			"       bench client [flags]   measures our client beside the official one; -help tells more\n\n")
		flag.PrintDefaults()
	}
	flag.BoolVar(&b.all, "all", false, "also what is big: 10,000 connections, a million messages on disk, a store of 5 million")
	only := flag.String("run", ".", "`regexp` of the measurements to make: publish, latency, page, delivery, streams; connections, disk, big")
	flag.StringVar(&b.dir, "dir", "", "`directory` for stores, on the file system to measure; the system's temporary one if empty. -all needs 8 GB there")
	flag.StringVar(&b.xmtp, "xmtp", "", "the `program` to measure; built from this repository if empty")
	flag.IntVar(&b.rounds, "rounds", 9, "how many turns each comparison has")
	flag.DurationVar(&b.turn, "turn", 2*time.Second, "how long a turn is")
	echo := flag.Bool("echo", false, "be the bare server; for this program itself")
	flag.Parse()
	if flag.NArg() > 0 {
		exit(fmt.Errorf("what is %q? See -help", flag.Arg(0)))
	}
	if *echo {
		exit(serveEcho())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	selected, err := regexp.Compile(*only)
	if err == nil {
		err = b.run(ctx, selected)
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

var errShort = errors.New("something fell short")

func (b *bench) run(ctx context.Context, selected *regexp.Regexp) (err error) {
	if b.files, err = raiseFiles(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(b.dir, "xmtp-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	packages := []string{"./node/internal/fill"}
	b.fill = filepath.Join(b.dir, "fill")
	if b.xmtp == "" {
		packages = append(packages, "./cmd/xmtp")
		b.xmtp = filepath.Join(b.dir, "xmtp")
	}
	if err := build(ctx, b.dir, packages...); err != nil {
		return err
	}
	if b.echo, err = startEcho(ctx); err != nil {
		return err
	}
	defer b.echo.stop()
	fmt.Printf("%s/%s, %d processors, %s, load before %s, %d open files\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), load(), b.files)
	for _, m := range measurements {
		if m.long && !b.all || !selected.MatchString(m.name) {
			continue
		}
		begin := time.Now()
		if err := m.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		fmt.Printf("(%s took %v, load %s)\n", m.name, time.Since(begin).Round(time.Second), load())
	}
	if !b.table() {
		return errShort
	}
	return nil
}

// table prints all rows, and tells whether all are as promised.
func (b *bench) table() bool {
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	ok := true
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.verdict(), r.name, r.figure, r.bound)
		ok = ok && r.ok
	}
	_ = w.Flush() // to standard output, as everything
	return ok
}

// folder is a new path for a data directory.
func (b *bench) folder(name string) string { return filepath.Join(b.dir, name) }
