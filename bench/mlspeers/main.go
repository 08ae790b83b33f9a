// Command mlspeers measures package mls beside other implementations, in Go and in Rust.
// It is a module of its own; docs/mls-benchmarks.md says how to get the others.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/go-xmtp/go-xmtp/bench/internal/mlsbench"
)

func main() {
	members := flag.String("members", "10,100,1000", "sizes of groups")
	rounds := flag.Int("rounds", 5, "turns of each library, for 200 members or more; more for fewer")
	messages := flag.Int("messages", 100, "messages in a turn")
	only := flag.String("only", "", "leave out libraries without this in their names")
	program := flag.String("rust", "", "the program built in the folder rust, to measure libraries in Rust in place of those in Go")
	flag.Parse()
	opts := mlsbench.Options{Rounds: *rounds, Messages: *messages}
	for n := range strings.SplitSeq(*members, ",") {
		size, err := strconv.Atoi(n)
		if err != nil || size < 2 {
			log.Fatalf("members: %q", n)
		}
		opts.Members = append(opts.Members, size)
	}
	peers := []mlsbench.Library{thomasVilte(), trevex(), emersion()}
	if *program != "" {
		peers = nil
		for _, r := range rustLibraries {
			l, err := rust(*program, r.argument, r.name)
			if err != nil {
				log.Fatal(err)
			}
			peers = append(peers, l)
		}
	}
	libraries := []mlsbench.Library{mlsbench.Ours()}
	for _, l := range peers {
		if strings.Contains(l.Name, *only) {
			libraries = append(libraries, l)
		}
	}
	fmt.Printf("Suite 1, %s, %d processors, medians\n", runtime.Version(), runtime.GOMAXPROCS(0))
	if err := mlsbench.Run(os.Stdout, libraries, opts); err != nil {
		log.Fatal(err)
	}
}
