package differential

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/go-xmtp/go-xmtp/mls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run is one scene: everything that is decided at random follows from the seed, but for
// keys, which are always fresh.
type run struct {
	suite          uint16
	public         bool
	seed           uint64
	steps, mutants int
}

// runs are short and with fixed seeds; in the proof tier long, with seeds of their own,
// and as many as XMTP_DIFFERENTIAL says. A failed one is repeated by XMTP_SEED.
func runs(t *testing.T) (list []run) {
	if os.Getenv("XMTP_PROOF") != "1" {
		for i, public := range []bool{true, false} {
			list = append(list,
				run{1, public, uint64(10 + i), 12, 12}, run{3, public, uint64(20 + i), 12, 12},
				run{2, public, uint64(30 + i), 4, 8}, run{7, public, uint64(40 + i), 3, 6})
		}
		return list
	}
	number := func(name string, otherwise uint64) uint64 {
		value, ok := os.LookupEnv(name)
		if !ok {
			return otherwise
		}
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	seed := number("XMTP_SEED", rand.Uint64N(1<<32))
	for i := range number("XMTP_DIFFERENTIAL", 60) {
		suite := []uint16{1, 3, 1, 3, 2, 7}[(seed+i)%6]
		list = append(list, run{suite, (seed+i)/6%2 == 0, seed + i, 12, 60})
	}
	return list
}

// Random groups of our members and those of ts-mls: all follow all that is valid, and of
// thousands of damaged and forged messages both think the same, but for what is listed in
// knownDifferences.
func TestDifferential(t *testing.T) {
	j := newJudge(t, knownDifferences)
	t.Cleanup(func() {
		j.report()
		j.write()
	})
	agents := make(chan *agent, 2)
	for range cap(agents) {
		agents <- startAgent(t)
	}
	for _, r := range runs(t) {
		t.Run(fmt.Sprintf("suite %d public %v seed %d", r.suite, r.public, r.seed), func(t *testing.T) {
			t.Parallel()
			a := <-agents
			a.t = t
			defer func() { agents <- a }()
			s := newScene(t, a, j, r.suite, r.seed, r.public)
			s.begin()
			for range r.steps {
				s.step(r.mutants)
			}
		})
	}
}

// begin makes a group of one of ours, one of theirs and a twin.
func (s *scene) begin() {
	s.t.Helper()
	var newcomers []*member
	var list []mls.Proposal
	for kind := range 3 {
		m, p := s.add(kind)
		list, newcomers = append(list, p), append(newcomers, m)
	}
	s.commit(s.members[0], list, newcomers, 0)
}
