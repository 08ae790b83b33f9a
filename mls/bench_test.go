package mls

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
)

// The benchmarks of this file print two tables:
//
//	go test ./mls -run '^$' -bench 'Speed|Growth' -benchtime 1x
//
// Speed compares operations with their floor: the public-key operations that they
// can't do without, by the fastest implementation that there is here, done in
// turns with the operation. Growth shows what grows with a group. A time is that
// of the fastest round: whatever else the machine does only ever adds to it.

const (
	benchSuite   = X25519ChaChaSHA256Ed25519
	benchMembers = 1001
	benchText    = 1024 // bytes of an application message
	benchBatch   = 200  // messages in a round
)

// benchMember is somebody who is to join a group.
type benchMember struct {
	client     Client
	keyPackage *PrivateKeyPackage
}

// benchConfig is what all groups of benchmarks are made with.
var benchConfig = Config{Suites: moreSuites}

func newBenchMembers(b testing.TB, n int) []benchMember { return newBenchMembersOf(b, benchSuite, n) }

func newBenchMembersOf(b testing.TB, id CipherSuite, n int) []benchMember {
	members := make([]benchMember, n)
	for i := range members {
		c := newClient(b, id, fmt.Sprintf("member %d", i))
		members[i] = benchMember{c, newKeyPackage(b, c)}
	}
	return members
}

// benchDone does what a caller does with a pending result.
func benchDone[T any](b testing.TB, p *Pending[T], err error) T {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	p.Changes()
	return p.Done()
}

func benchNew(b testing.TB, m benchMember) *Group {
	p, err := New([]byte("a group of benchmarks"), m.client, nil, benchConfig)
	return benchDone(b, p, err)
}

func benchCommit(b testing.TB, g *Group, opts CommitOptions) *OutgoingCommit {
	p, err := g.Commit(opts)
	return benchDone(b, p, err)
}

func benchMerge(b testing.TB, g *Group) {
	p, err := g.MergeOwnCommit()
	benchDone(b, p, err)
}

func benchJoin(b testing.TB, welcome []byte, m benchMember) *Group {
	p, err := Join(welcome, m.keyPackage, m.client.Signer, nil, benchConfig)
	return benchDone(b, p, err).Group
}

func benchProcess(b testing.TB, g *Group, message []byte) {
	p, err := g.Process(message)
	benchDone(b, p, err)
}

func benchEncrypt(b testing.TB, g *Group, text []byte) []byte {
	p, err := g.Encrypt(text, nil)
	return benchDone(b, p, err)
}

// benchAdd proposes members whose key packages nobody has verified yet.
func benchAdd(b testing.TB, members []benchMember) CommitOptions {
	var opts CommitOptions
	for _, m := range members {
		kp, err := UnmarshalKeyPackage(m.keyPackage.public.raw)
		if err != nil {
			b.Fatal(err)
		}
		opts.Proposals = append(opts.Proposals, Add{kp})
	}
	return opts
}

// benchPair is a group of n members that came in by one commit, seen by the
// one who made it and by another: nobody else has ever committed.
func benchPair(b testing.TB, members []benchMember) (creator, other *Group, welcome []byte) {
	creator = benchNew(b, members[0])
	welcome = benchCommit(b, creator, benchAdd(b, members[1:])).Welcome
	benchMerge(b, creator)
	return creator, benchJoin(b, welcome, members[len(members)/2]), welcome
}

// benchWarmPair is a group in which every member has committed, so that all
// parent nodes have keys. The commits are not made: each member's path is put
// into one tree.
func benchWarmPair(b *testing.B, members []benchMember) (creator, other *Group, welcome []byte) {
	creator = benchNew(b, members[0])
	e := creator.current
	last := members[len(members)-1]
	for _, m := range members[1 : len(members)-1] {
		e.tree.addLeaf(m.keyPackage.public.leaf)
	}
	for i, m := range members[:len(members)-1] {
		p, err := e.tree.createPath(LeafIndex(i), m.client.leaf(), m.client.Signer, e.context.groupID)
		if err != nil {
			b.Fatal(err)
		}
		if i == 0 {
			e.keys = privateKeys{0: p.keys[0]}
		}
	}
	e.tree.rootHash()
	welcome = benchCommit(b, creator, benchAdd(b, []benchMember{last})).Welcome
	benchMerge(b, creator)
	other = benchJoin(b, welcome, last)
	benchProcess(b, creator, benchCommit(b, other, CommitOptions{}).Message)
	benchMerge(b, other)
	return creator, other, welcome
}

// primitives are the operations that floors are made of.
type primitives struct {
	b         *testing.B
	suite     *suite.Suite
	signer    Signer
	key       hpke.KeyPair
	encryptor *suite.Encryptor
	secret    []byte
	kem, ct   []byte
}

func newPrimitives(b *testing.B, id CipherSuite) *primitives {
	s, err := lookupSuite(id, moreSuites)
	if err != nil {
		b.Fatal(err)
	}
	p := &primitives{b: b, suite: s, signer: newClient(b, id, "member").Signer, secret: make([]byte, s.HashSize())}
	if p.key, err = s.GenerateKeyPair(); err != nil {
		b.Fatal(err)
	}
	p.encryptor = s.Encryptor("Welcome", p.secret)
	if p.kem, p.ct, err = p.encryptor.Encrypt(nil, p.key.Public, p.secret); err != nil {
		b.Fatal(err)
	}
	return p
}

// signed is the length of what is signed of a message of n bytes, and of a leaf
// node.
func signed(n int) int { return n + 250 }

const signedLeaf = 180

// verify returns the verification of a signature over n bytes.
func (p *primitives) verify(n int) func() {
	content := make([]byte, n)
	sig, err := suite.SignWithLabel(p.signer, "LeafNodeTBS", content)
	if err != nil {
		p.b.Fatal(err)
	}
	return func() {
		if !p.suite.VerifyWithLabel(p.signer.Public(), "LeafNodeTBS", sig, content) {
			p.b.Error("signature")
		}
	}
}

// sign returns the making of a signature over n bytes.
func (p *primitives) sign(n int) func() {
	content := make([]byte, n)
	return func() {
		if _, err := suite.SignWithLabel(p.signer, "LeafNodeTBS", content); err != nil {
			p.b.Error(err)
		}
	}
}

func (p *primitives) seal() {
	if _, _, err := p.encryptor.Encrypt(nil, p.key.Public, p.secret); err != nil {
		p.b.Error(err)
	}
}

func (p *primitives) open() {
	if _, err := p.suite.DecryptWithLabel(p.key, "Welcome", p.secret, p.kem, p.ct); err != nil {
		p.b.Error(err)
	}
}

func (p *primitives) derive() {
	if _, err := p.suite.DeriveKeyPair(p.secret); err != nil {
		p.b.Error(err)
	}
}

// symmetric returns what a message of n bytes takes besides its signature: two
// AEADs, the key and nonce of each, and a step of the ratchet.
func (p *primitives) symmetric(n int) func() {
	head, content, next := make([]byte, senderDataSize), make([]byte, n+66), make([]byte, 32)
	return func() {
		for _, plain := range [][]byte{head, content} {
			key := p.suite.DeriveTreeKey(p.secret, 1)
			if _, err := p.suite.Seal(&key, nil, p.secret, plain); err != nil {
				p.b.Error(err)
			}
		}
		p.suite.DeriveTreeSecret(next, p.secret, "secret", 1)
	}
}

// onAll does f n times on all processors.
func onAll(n int, f func()) {
	workers := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range n*(w+1)/workers - n*w/workers {
				f()
			}
		})
	}
	wg.Wait()
}

func repeat(n int, f func()) {
	for range n {
		f()
	}
}

// round is an operation, its floor, and what is to be done after both, untimed.
type round struct{ ours, floor, after func() }

// fastest times rounds of what prepare returns.
func fastest(rounds int, prepare func() round) (ours, floor time.Duration) {
	timed := func(least time.Duration, f func()) time.Duration {
		if f == nil {
			return least
		}
		runtime.GC()
		start := time.Now()
		f()
		return min(least, time.Since(start))
	}
	ours, floor = 1<<62, 1<<62
	for range rounds {
		r := prepare()
		ours, floor = timed(ours, r.ours), timed(floor, r.floor)
		if r.after != nil {
			r.after()
		}
	}
	return ours, floor
}

// speedTable prints the rows of BenchmarkSpeed.
type speedTable struct {
	b *testing.B
	w *tabwriter.Writer
}

// row measures an operation that is done n times in a round.
func (t *speedTable) row(name, counts string, atMost float64, rounds, n int, prepare func() round) {
	ours, floor := fastest(rounds, prepare)
	ratio := float64(ours) / float64(floor)
	fmt.Fprintf(t.w, "%s\t%s\t%v\t%v\t%.2f\t%.2f\n", name, counts,
		short(ours/time.Duration(n)), short(floor/time.Duration(n)), ratio, atMost)
}

func short(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 10_000 {
		unit *= 10
	}
	return d.Round(unit)
}

// BenchmarkSpeed prints our times beside their floors, and the size of a group.
func BenchmarkSpeed(b *testing.B) {
	for b.Loop() {
		t := &speedTable{b, tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)}
		fmt.Printf("\nSuite 3, %d members, %d processors\n", benchMembers, runtime.GOMAXPROCS(0))
		fmt.Fprintln(t.w, "operation\tfloor counts\tours\tfloor\tratio\tat most")
		t.measure()
		t.w.Flush()
	}
}

func (t *speedTable) measure() {
	b, p := t.b, newPrimitives(t.b, benchSuite)
	members := newBenchMembers(b, benchMembers)
	others := benchMembers - 1
	verifyLeaf, signCommit := p.verify(signedLeaf), p.sign(signed(2000))

	t.row("add 1,000 with Welcome", "2,000 verifies, 1,000 seals", 1.5, 10, 1, func() round {
		g := benchNew(b, members[0])
		return round{
			ours:  func() { benchCommit(b, g, benchAdd(b, members[1:])) },
			floor: func() { onAll(2*others, verifyLeaf); onAll(others, p.seal) },
		}
	})
	creator, other, welcome := benchPair(b, members)
	t.row("join from that Welcome", "1,001 verifies, 1 open", 1.5, 10, 1, func() round {
		return round{
			ours:  func() { benchJoin(b, welcome, members[7]) },
			floor: func() { onAll(benchMembers, verifyLeaf); p.open() },
		}
	})
	create := func(rounds int, name, counts string, atMost float64, floor func()) {
		t.row(name, counts, atMost, rounds, 1, func() round {
			return round{
				ours:  func() { benchCommit(b, creator, CommitOptions{}) },
				floor: floor,
				after: func() {
					p, err := creator.DropOwnCommit()
					benchDone(b, p, err)
				},
			}
		})
	}
	// The commit is verified over its whole length, which in a sparse tree is that
	// of a thousand ciphertexts.
	process := func(name string) {
		t.row(name, "1 verify, 1 open, 10 derivations", 2, 20, 1, func() round {
			message := benchCommit(b, creator, CommitOptions{}).Message
			benchMerge(b, creator)
			verify := p.verify(len(message))
			return round{
				ours:  func() { benchProcess(b, other, message) },
				floor: func() { verify(); p.open(); repeat(10, p.derive) },
			}
		})
	}
	create(10, "path commit, sparse, create", "1,000 seals, 1 sign", 1.5, func() { onAll(others, p.seal); signCommit() })
	process("path commit, sparse, process")
	creator, other, _ = benchWarmPair(b, members)
	create(40, "path commit, warm, create", "10 seals, 1 sign", 2, func() { repeat(10, p.seal); signCommit() })
	process("path commit, warm, process")
	t.messages(creator, other, p)
	t.w.Flush()
	t.heap(members)
}

func (t *speedTable) messages(a, other *Group, p *primitives) {
	b, text := t.b, make([]byte, benchText)
	sign, verify, symmetric := p.sign(signed(benchText)), p.verify(signed(benchText)), p.symmetric(benchText)
	t.row("encrypt 1 KiB", "1 sign, AEAD, HKDF", 1.2, 20, benchBatch, func() round {
		return round{
			ours:  func() { repeat(benchBatch, func() { benchEncrypt(b, other, text) }) },
			floor: func() { repeat(benchBatch, func() { sign(); symmetric() }) },
		}
	})
	t.row("decrypt 1 KiB", "1 verify, AEAD, HKDF", 1.07, 20, benchBatch, func() round {
		messages := benchMessages(b, a)
		return round{
			ours:  func() { benchReceive(b, other, messages) },
			floor: func() { repeat(benchBatch, func() { verify(); symmetric() }) },
		}
	})
	allocs := testing.AllocsPerRun(100, func() { benchEncrypt(b, other, text) })
	fmt.Fprintf(t.w, "encrypt, allocations\t\t%v\t\t\t12\n", allocs)
}

// benchMessages makes a batch of messages.
func benchMessages(b testing.TB, g *Group) [][]byte {
	text := make([]byte, benchText)
	messages := make([][]byte, benchBatch)
	for i := range messages {
		messages[i] = benchEncrypt(b, g, text)
	}
	return messages
}

func benchReceive(b testing.TB, g *Group, messages [][]byte) {
	for _, m := range messages {
		benchProcess(b, g, m)
	}
}

// heap prints what a group takes in memory: joined, with a message sent and one
// received, and another member's commit merged.
func (t *speedTable) heap(members []benchMember) {
	b := t.b
	const groups = 16
	creator, _, welcome := benchPair(b, members)
	text := benchEncrypt(b, creator, make([]byte, benchText))
	message := benchCommit(b, creator, CommitOptions{}).Message
	held := make([]*Group, 0, groups)
	empty := heapInUse()
	for range groups {
		g := benchJoin(b, welcome, members[7])
		benchProcess(b, g, text)
		benchEncrypt(b, g, text)
		benchProcess(b, g, message)
		held = append(held, g)
	}
	inUse := (heapInUse() - empty) / groups
	for _, g := range held {
		g.Park()
	}
	parked := (heapInUse() - empty) / groups
	tree := len(creator.RatchetTree())
	fmt.Printf("\nheap per group: in use %d kB, at most 450 kB; parked %d kB, %.2f × the %d kB of its tree, at most 1.3 ×\n",
		inUse/1000, parked/1000, float64(parked)/float64(tree), tree/1000)
	runtime.KeepAlive(held)
	runtime.KeepAlive([]any{members, creator, welcome, text, message})
}

func heapInUse() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// BenchmarkGrowth prints what grows with the number of members, in groups in which
// all have committed.
func BenchmarkGrowth(b *testing.B) {
	for b.Loop() {
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Printf("\nSuite 3, every member has committed\n")
		fmt.Fprintln(w, "members\tencrypt\tdecrypt\tstored\tcommit\tits size\tstored\tprocess\tstored\tjoin\tWelcome\t")
		members := newBenchMembers(b, 10_000)
		for n := 10; n <= len(members); n *= 10 {
			benchGrowth(b, w, members[:n])
		}
		w.Flush()
	}
}

func benchGrowth(b *testing.B, w *tabwriter.Writer, members []benchMember) {
	a, other, welcome := benchWarmPair(b, members)
	var messages [][]byte
	encrypt, decrypt := fastest(20, func() round {
		return round{
			ours:  func() { messages = benchMessages(b, a) },
			floor: func() { benchReceive(b, other, messages) },
		}
	})
	sent, err := a.Encrypt(nil, nil)
	storedMessage := storedBytes(b, sent, err)
	var message []byte
	commit, process := fastest(20, func() round {
		return round{
			ours:  func() { message = benchCommit(b, a, CommitOptions{}).Message },
			floor: func() { benchProcess(b, other, message) },
			after: func() { benchMerge(b, a) },
		}
	})
	made, err := a.Commit(CommitOptions{})
	storedCommit := storedBytes(b, made, err)
	message = made.Result().Message
	merged, err := other.Process(message)
	storedMerge := storedBytes(b, merged, err)
	join, _ := fastest(3, func() round {
		return round{ours: func() { benchJoin(b, welcome, members[len(members)-1]) }}
	})
	fmt.Fprintf(w, "%d\t%v\t%v\t%d B\t%v\t%d B\t%d B\t%v\t%d B\t%v\t%d B\t\n", len(members),
		short(encrypt/benchBatch), short(decrypt/benchBatch), storedMessage, short(commit), len(message), storedCommit,
		short(process), storedMerge, short(join), len(welcome))
}

// What the table of speed says of allocations, records to store included.
func TestEncryptAllocations(t *testing.T) {
	g, _, _ := benchPair(t, newBenchMembers(t, 3))
	text := make([]byte, benchText)
	benchEncrypt(t, g, text) // the first message opens the ratchet
	if n := testing.AllocsPerRun(100, func() { benchEncrypt(t, g, text) }); n > 12 {
		t.Errorf("Encrypt allocates %v times", n)
	}
}

// storedBytes is the size of the records that a pending result writes or deletes.
func storedBytes[T any](b *testing.B, p *Pending[T], err error) (n int) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range p.Changes() {
		n += 1 + len(r.Key) + len(r.Value)
	}
	p.Done()
	return n
}
