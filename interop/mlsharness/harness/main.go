// Command harness serves the MLS working group's harness, and plays scenarios between
// any two servers for it. See docs/mls-interop.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/go-xmtp/go-xmtp/interop/mlsharness"
	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/mls"
)

const usage = `usage:
  harness serve [-addr host:port]             our server
  harness ts-mls                              a server around ts-mls, on a port that it prints
  harness run [flags] first:port second:port  all scenarios between two servers`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	switch args[0] {
	case "serve":
		return serve(ctx, args[1:])
	case "ts-mls":
		return serveTSMLS(ctx)
	case "run":
		return play(ctx, args[1:])
	}
	return errors.New(usage)
}

func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:50001", "address to listen on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	g := mlsharness.NewServer()
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	return g.Serve(l)
}

func serveTSMLS(ctx context.Context) error {
	tools, err := official.Install()
	if err != nil {
		return err
	}
	ts, err := mlsharness.StartTSMLS(context.WithoutCancel(ctx), tools)
	if err != nil {
		return err
	}
	fmt.Println(ts.Address)
	<-ctx.Done()
	return ts.Close()
}

func play(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	only := flags.String("only", "", "regular expression for the names of scenarios")
	suites := flags.String("suites", "", "cipher suites, as in 1,2,3; empty for all that both have")
	rounds := flags.Int("rounds", 16, "commits in a random scenario")
	seed := flags.Uint64("seed", 1, "of random scenarios")
	noExport := flags.Bool("no-export", false, "don't compare exported secrets, for a server that has none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New(usage)
	}
	names, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	var peers []*mlsharness.Peer
	for _, address := range flags.Args() {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		peer, err := mlsharness.NewPeer(ctx, conn)
		if err != nil {
			return err
		}
		peers = append(peers, peer)
	}
	first, second := peers[0], peers[1]
	chosen, err := numbers(*suites)
	if err != nil {
		return err
	}
	var results []mlsharness.Result
	for _, suite := range first.Suites {
		if !slices.Contains(second.Suites, suite) || len(chosen) > 0 && !slices.Contains(chosen, suite) {
			continue
		}
		for _, how := range mlsharness.Setups(suite) {
			how.Rounds, how.Seed, how.NoExport = *rounds, *seed, *noExport
			for _, sc := range mlsharness.Scenarios() {
				if names.MatchString(sc.Name) && ctx.Err() == nil {
					results = append(results, mlsharness.Result{Scenario: sc.Name, Setup: how, Err: sc.Play(ctx, first, second, how)})
				}
			}
		}
	}
	fmt.Printf("%s and %s\n\n", first.Name, second.Name)
	return mlsharness.WriteTable(os.Stdout, results)
}

func numbers(list string) ([]mls.CipherSuite, error) {
	var out []mls.CipherSuite
	for text := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' }) {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, err
		}
		out = append(out, mls.CipherSuite(n))
	}
	return out, nil
}
