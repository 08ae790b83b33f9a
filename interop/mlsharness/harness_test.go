package mlsharness

import (
	"context"
	"fmt"
	"net"
	"os"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/go-xmtp/go-xmtp/mls"
)

// proof tells whether the proof tier runs, whose random walks are long.
var proof = os.Getenv("XMTP_PROOF") == "1"

func rounds() int {
	if proof {
		return 48
	}
	return 8
}

// ours is a server of ours in this process, and a connection to it.
func ours(t *testing.T) *Peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := NewServer()
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return dial(t, l.Addr().String())
}

func dial(t *testing.T, address string) *Peer {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p, err := NewPeer(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestMLSHarnessOurs plays all scenarios between two servers of ours.
func TestMLSHarnessOurs(t *testing.T) {
	for _, suite := range suites {
		t.Run(fmt.Sprintf("suite %d", suite), func(t *testing.T) {
			t.Parallel()
			first, second := ours(t), ours(t)
			for _, encrypts := range []bool{true, false} {
				for _, sc := range Scenarios() {
					how := Setup{Suite: suite, Encrypts: encrypts, Seating: Mixed, Rounds: rounds(), Seed: uint64(suite)}
					if err := sc.Play(context.Background(), first, second, how); err != nil {
						t.Errorf("%s: %v: %v", sc.Name, how, err)
					}
				}
			}
		})
	}
}

var _ = mls.MLS10
