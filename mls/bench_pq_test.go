package mls

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"text/tabwriter"
	"time"
)

// pqSuites are the suites that BenchmarkPostQuantum compares, the first with the others.
var pqSuites = []struct {
	id   CipherSuite
	name string
}{
	{benchSuite, "suite 3"},
	{0xf001, "X-Wing AES-128"},
	{0xf002, "X-Wing AES-256"},
}

// BenchmarkPostQuantum prints what the post-quantum suites cost beside suite 3: the bytes
// that are sent, and times, each with its floor as in BenchmarkSpeed. The suites take
// turns, so that what else the machine does meets them all.
func BenchmarkPostQuantum(b *testing.B) {
	for b.Loop() {
		runs := make([]*pqRun, len(pqSuites))
		for i, s := range pqSuites {
			runs[i] = &pqRun{b: b, id: s.id, p: newPrimitives(b, s.id), members: newBenchMembersOf(b, s.id, 1001)}
		}
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Println("\nBytes")
		fmt.Fprintf(w, "\t%s\t%s\tratio\t%s\tratio\t\n", pqSuites[0].name, pqSuites[1].name, pqSuites[2].name)
		for i, size := range runs[0].sizes() {
			fmt.Fprintf(w, "%s\t%d\t", size.what, size.bytes)
			for _, r := range runs[1:] {
				n := r.sizes()[i].bytes
				fmt.Fprintf(w, "%d\t%.1f\t", n, float64(n)/float64(size.bytes))
			}
			fmt.Fprintln(w)
		}
		w.Flush()
		fmt.Printf("\nTimes, %d processors; × floor is the ratio to the public-key operations alone\n", runtime.GOMAXPROCS(0))
		fmt.Fprintf(w, "\t%s\t× floor\t%s\tratio\t× floor\t%s\tratio\t× floor\t\n", pqSuites[0].name, pqSuites[1].name, pqSuites[2].name)
		times := make([][]pqTime, len(runs))
		for i, r := range runs {
			times[i] = r.times()
		}
		for k := range times[0] {
			base, baseFloor := pqFastest(times[0][k])
			fmt.Fprintf(w, "%s\t%v\t%.2f\t", times[0][k].what, short(base), float64(base)/float64(baseFloor))
			for i := range runs[1:] {
				ours, floor := pqFastest(times[i+1][k])
				fmt.Fprintf(w, "%v\t%.1f\t%.2f\t", short(ours), float64(ours)/float64(base), float64(ours)/float64(floor))
			}
			fmt.Fprintln(w)
		}
		w.Flush()
	}
}

// pqRun measures one suite.
type pqRun struct {
	b       *testing.B
	id      CipherSuite
	p       *primitives
	members []benchMember
	sized   []pqSize
}

type pqSize struct {
	what  string
	bytes int
}

type pqTime struct {
	what    string
	rounds  int
	prepare func() round
}

func pqFastest(t pqTime) (ours, floor time.Duration) { return fastest(t.rounds, t.prepare) }

// drop undoes a commit that was made.
func drop(b testing.TB, g *Group) {
	p, err := g.DropOwnCommit()
	benchDone(b, p, err)
}

// sizes are the bytes of what is sent, without the MLSMessage's head for key packages.
func (r *pqRun) sizes() []pqSize {
	if r.sized != nil {
		return r.sized
	}
	note := func(what string, b []byte) { r.sized = append(r.sized, pqSize{what, len(b)}) }
	note("KeyPackage", r.members[0].keyPackage.public.raw)
	for _, n := range []int{1, 10, 100} {
		g := benchNew(r.b, r.members[0])
		opts := benchAdd(r.b, r.members[1:1+n])
		opts.ExternalTree, opts.OmitPath = true, true
		note(fmt.Sprintf("Welcome for %d, tree apart", n), benchCommit(r.b, g, opts).Welcome)
	}
	for _, n := range []int{10, 100, 1000} {
		members := r.members[:n]
		g, _, _ := benchPair(r.b, members)
		add := benchAdd(r.b, r.members[n:n+1])
		add.OmitPath = true
		note(fmt.Sprintf("add of one without path, %d members", n), benchCommit(r.b, g, add).Message)
		drop(r.b, g)
		note(fmt.Sprintf("path commit, %d members, sparse", n), benchCommit(r.b, g, CommitOptions{}).Message)
		drop(r.b, g)
		g, _, _ = benchWarmPair(r.b, members)
		note(fmt.Sprintf("path commit, %d members, warm", n), benchCommit(r.b, g, CommitOptions{}).Message)
		note(fmt.Sprintf("GroupInfo, tree inside, %d members, warm", n), benchGroupInfo(r.b, g))
	}
	g := benchNew(r.b, r.members[0])
	info, err := g.GroupInfo(GroupInfoOptions{ExternalTree: true})
	if err != nil {
		r.b.Fatal(err)
	}
	note("GroupInfo, tree apart", info)
	return r.sized
}

// times are the operations to be measured.
func (r *pqRun) times() []pqTime {
	b, p := r.b, r.p
	const many = 1000
	verifyLeaf, signLeaf := p.verify(signedLeaf), p.sign(signedLeaf)
	var fresh *benchMember
	list := []pqTime{
		{"new key package", 40, func() round {
			c := newClient(b, r.id, "new")
			return round{
				ours:  func() { fresh = &benchMember{c, newKeyPackage(b, c)} },
				floor: func() { repeat(2, p.generate); repeat(2, signLeaf) },
			}
		}},
		{"new group", 40, func() round {
			return round{
				ours:  func() { benchNew(b, *fresh) },
				floor: func() { p.generate(); signLeaf() },
			}
		}},
	}
	for _, n := range []int{1, 100} {
		var welcome []byte
		list = append(list, pqTime{fmt.Sprintf("add %d with Welcome", n), 10, func() round {
			g := benchNew(b, r.members[0])
			opts := benchAdd(b, r.members[1:1+n])
			opts.OmitPath = true
			return round{
				ours:  func() { welcome = benchCommit(b, g, opts).Welcome },
				floor: func() { onAll(2*n, verifyLeaf); onAll(n, p.seal); repeat(2, signLeaf) },
			}
		}}, pqTime{fmt.Sprintf("join a group of %d", n+1), 10, func() round {
			return round{
				ours:  func() { benchJoin(b, welcome, r.members[1]) },
				floor: func() { onAll(n+2, verifyLeaf); p.open() },
			}
		}})
	}
	for _, tree := range []string{"sparse", "warm"} {
		var creator, other *Group
		var message []byte
		open := func() {
			if creator != nil {
				return
			}
			pair := benchWarmPair
			if tree == "sparse" {
				pair = func(b *testing.B, members []benchMember) (*Group, *Group, []byte) { return benchPair(b, members) }
			}
			creator, other, _ = pair(b, r.members[:many])
		}
		seals := many - 1
		if tree == "warm" {
			seals = 10
		}
		list = append(list, pqTime{fmt.Sprintf("path commit, %d members, %s: create", many, tree), 5, func() round {
			open()
			return round{
				ours:  func() { message = benchCommit(b, creator, CommitOptions{}).Message },
				floor: func() { onAll(seals, p.seal); repeat(10, p.derive); repeat(2, signLeaf) },
				after: func() { drop(b, creator) },
			}
		}}, pqTime{fmt.Sprintf("path commit, %d members, %s: process", many, tree), 5, func() round {
			open()
			message = benchCommit(b, creator, CommitOptions{}).Message
			benchMerge(b, creator)
			verify := p.verify(len(message))
			return round{
				ours:  func() { benchProcess(b, other, message) },
				floor: func() { verify(); verifyLeaf(); p.open(); repeat(2, p.derive) },
			}
		}})
	}
	return list
}

func (p *primitives) generate() {
	if _, err := p.suite.GenerateKeyPair(); err != nil {
		p.b.Error(err)
	}
}
