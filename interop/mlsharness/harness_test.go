package mlsharness

import (
	"fmt"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/mls/x448"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// proof tells whether the proof tier runs, whose random walks are long.
var proof = os.Getenv("XMTP_PROOF") == "1"

func rounds() int {
	if proof {
		return 48
	}
	return 6
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
			for i, encrypts := range []bool{true, false} {
				for j, sc := range Scenarios() {
					if !proof && (i*len(Scenarios())/2+j)%every(suite) != 0 {
						continue
					}
					how := Setup{Suite: suite, Encrypts: encrypts, Seating: Mixed, Rounds: rounds(), Seed: uint64(suite)}
					if err := sc.Play(t.Context(), first, second, how); err != nil {
						t.Errorf("%s: %v: %v", sc.Name, how, err)
					}
				}
			}
		})
	}
}

// every is 1 for a suite whose scenarios are all played outside of the proof tier, n for
// one that is so slow that every n'th has to do.
func every(suite mls.CipherSuite) int {
	switch suite {
	case x448.AES256SHA512Ed448, x448.ChaChaSHA512Ed448, mls.P384AES256SHA384P384:
		return 2
	case mls.P521AES256SHA512P521:
		return 8
	}
	return 1
}
