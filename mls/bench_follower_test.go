package mls

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"text/tabwriter"
)

// BenchmarkFollower prints what a follower takes for a commit in a large group, beside the
// signatures that it has to verify, and what a member takes for the same.
func BenchmarkFollower(b *testing.B) {
	for b.Loop() {
		t := &speedTable{b, tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)}
		fmt.Printf("\nSuite 3, %d members, %d processors\n", benchMembers, runtime.GOMAXPROCS(0))
		fmt.Fprintln(t.w, "operation\tfloor counts\tours\tfloor\tratio\tat most")
		t.follower()
		t.w.Flush()
	}
}

func benchGroupInfo(b testing.TB, g *Group) []byte {
	info, err := g.GroupInfo(GroupInfoOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return info
}

func (t *speedTable) follower() {
	b, p := t.b, newPrimitives(t.b, benchSuite)
	members := newBenchMembers(b, benchMembers+40)
	late := members[benchMembers:]
	members = members[:benchMembers]
	verifyLeaf := p.verify(signedLeaf)
	rows := func(tree string, creator, other *Group) {
		creator.config.PublicHandshakes = true
		followed, err := NewFollower(benchGroupInfo(b, creator), nil, benchConfig)
		f := benchDone(b, followed, err)
		follow := func(message []byte) {
			p, err := f.Process(message)
			benchDone(b, p, err)
		}
		// commit makes one for both to process, each once.
		commit := func(opts CommitOptions) []byte {
			message := benchCommit(b, creator, opts).Message
			benchMerge(b, creator)
			return message
		}
		t.row("path commit, "+tree+", follower", "2 verifies", 2, 20, 1, func() round {
			message := commit(CommitOptions{})
			verify := p.verify(len(message))
			return round{
				ours:  func() { follow(message) },
				floor: func() { verify(); verifyLeaf() },
				after: func() { benchProcess(b, other, message) },
			}
		})
		t.row("path commit, "+tree+", member", "2 verifies, 1 open, 2 derivations", 2, 20, 1, func() round {
			message := commit(CommitOptions{})
			verify := p.verify(len(message))
			return round{
				ours:  func() { benchProcess(b, other, message) },
				floor: func() { verify(); verifyLeaf(); p.open(); repeat(2, p.derive) },
				after: func() { follow(message) },
			}
		})
		t.row("add of one, "+tree+", follower", "3 verifies", 2, 20, 1, func() round {
			opts := benchAdd(b, late[:1])
			opts.OmitPath = true
			late = late[1:]
			message := commit(opts)
			verify := p.verify(len(message))
			return round{
				ours:  func() { follow(message) },
				floor: func() { verify(); repeat(2, verifyLeaf) },
				after: func() { benchProcess(b, other, message) },
			}
		})
	}
	creator, other, _ := benchPair(b, members)
	info := benchGroupInfo(b, creator)
	t.row("new follower", "1,002 verifies", 1.5, 5, 1, func() round {
		return round{
			ours: func() {
				p, err := NewFollower(info, nil, benchConfig)
				benchDone(b, p, err)
			},
			floor: func() { onAll(benchMembers+1, verifyLeaf) },
		}
	})
	rows("sparse", creator, other)
	creator, other, _ = benchWarmPair(b, members)
	rows("warm", creator, other)
}
