package secrettree

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/treemath"
	"github.com/go-xmtp/go-xmtp/mls/internal/vectortest"
)

var window = Window{Backward: 5, Forward: 1000}

func mustSuite(t testing.TB, id suite.ID) *suite.Suite {
	t.Helper()
	s, ok := suite.ByID(id)
	if !ok {
		t.Fatalf("no suite %d", id)
	}
	return s
}

func newTestTree(t testing.TB, leaves treemath.LeafCount, w Window) *Tree {
	t.Helper()
	s := mustSuite(t, 3)
	return New(s, leaves, s.Extract(nil, []byte("encryption secret")), w)
}

// consume takes a key and commits it.
func consume(t testing.TB, tree *Tree, l treemath.LeafIndex, k Kind, generation uint32) suite.Key {
	t.Helper()
	u, err := tree.Key(l, k, generation)
	if err != nil {
		t.Fatalf("leaf %d, kind %d, generation %d: %v", l, k, generation, err)
	}
	key := *u.Key()
	if err := u.Commit(); err != nil {
		t.Fatal(err)
	}
	return key
}

func TestVectors(t *testing.T) {
	type generation struct {
		Generation       uint32
		HandshakeKey     vectortest.Hex `json:"handshake_key"`
		HandshakeNonce   vectortest.Hex `json:"handshake_nonce"`
		ApplicationKey   vectortest.Hex `json:"application_key"`
		ApplicationNonce vectortest.Hex `json:"application_nonce"`
	}
	type vector struct {
		Suite      suite.ID       `json:"cipher_suite"`
		Encryption vectortest.Hex `json:"encryption_secret"`
		SenderData struct {
			Secret     vectortest.Hex `json:"sender_data_secret"`
			Ciphertext vectortest.Hex
			Key        vectortest.Hex
			Nonce      vectortest.Hex
		} `json:"sender_data"`
		Leaves [][]generation
	}
	run := map[suite.ID]int{}
	for i, v := range vectortest.Load[vector](t, "secret-tree.json") {
		s, ok := suite.ByID(v.Suite)
		if !ok {
			t.Logf("case %d: suite %d is not available (X448, Ed448)", i, v.Suite)
			continue
		}
		run[v.Suite]++
		t.Run(fmt.Sprintf("%d/suite%d", i, v.Suite), func(t *testing.T) {
			check := func(what string, k suite.Key, key, nonce []byte) {
				t.Helper()
				if !bytes.Equal(k.Key[:s.KeySize()], key) || !bytes.Equal(k.Nonce[:], nonce) {
					t.Errorf("%s: key %x, nonce %x, want %x, %x", what, k.Key, k.Nonce, key, nonce)
				}
			}
			sample := v.SenderData.Ciphertext
			sample = sample[:min(len(sample), s.HashSize())]
			check("sender data", s.ExpandKey(v.SenderData.Secret, sample), v.SenderData.Key, v.SenderData.Nonce)
			for _, backwards := range []bool{false, true} {
				w := Window{Backward: 16, Forward: 15}
				tree := New(s, treemath.LeafCount(len(v.Leaves)), v.Encryption, w)
				for l, generations := range v.Leaves {
					leaf := treemath.LeafIndex(l)
					if backwards {
						leaf = treemath.LeafIndex(len(v.Leaves) - 1 - l)
						generations = slices.Clone(v.Leaves[leaf])
						slices.Reverse(generations)
					}
					for _, g := range generations {
						what := fmt.Sprintf("leaf %d, generation %d", leaf, g.Generation)
						check(what+", application", consume(t, tree, leaf, Application, g.Generation), g.ApplicationKey, g.ApplicationNonce)
						check(what+", handshake", consume(t, tree, leaf, Handshake, g.Generation), g.HandshakeKey, g.HandshakeNonce)
					}
				}
				if len(tree.nodes) != 0 {
					t.Errorf("%d node secrets left after all leaves were used", len(tree.nodes))
				}
			}
		})
	}
	for _, id := range []suite.ID{1, 2, 3, 5, 7} {
		if run[id] == 0 {
			t.Errorf("no case for suite %d", id)
		}
	}
}

// allKeys derives the keys of a ratchet as §9 tells, without deleting anything.
func allKeys(tree *Tree, root suite.Secret, l treemath.LeafIndex, k Kind, n uint32) []suite.Key {
	s := tree.suite
	secret := slices.Clone(root)
	for x := tree.leaves.Root(); !x.IsLeaf(); {
		label := "left"
		next := x.Left()
		if x.Right().Covers(l) {
			label, next = "right", x.Right()
		}
		child := make(suite.Secret, s.HashSize())
		s.ExpandWithLabel(child, secret, "tree", []byte(label))
		secret, x = child, next
	}
	secret = s.DeriveSecret(secret, kindLabels[k])
	keys := make([]suite.Key, n)
	for g := range n {
		keys[g] = s.DeriveTreeKey(secret, g)
		next := make(suite.Secret, s.HashSize())
		s.DeriveTreeSecret(next, secret, "secret", g)
		secret = next
	}
	return keys
}

// model says what a ratchet answers to a generation: the key, or an error.
type model struct {
	window Window
	next   uint32
	used   map[uint32]bool
}

func (m *model) want(generation uint32) error {
	switch {
	case generation >= m.next && generation-m.next > m.window.Forward:
		return ErrTooFarAhead
	case generation < m.next && m.next-generation > m.window.Backward:
		return ErrTooOld
	case m.used[generation]:
		return ErrSecretReused
	}
	return nil
}

// TestRandomWalk takes keys at random, some of them with others reserved, commits or drops
// them, and stores and loads the tree in between, beside the rules of the window told
// naively.
func TestRandomWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, _ := suite.ByID(3)
		w := Window{
			Backward: rapid.Uint32Range(0, 6).Draw(t, "backward"),
			Forward:  rapid.Uint32Range(0, 12).Draw(t, "forward"),
		}
		leaves := treemath.LeafCount(1) << rapid.IntRange(0, 4).Draw(t, "depth")
		root := s.Extract(nil, []byte("root"))
		tree := New(s, leaves, root, w)
		stored := map[RecordID]suite.Secret{}
		apply := func(changes []Record) {
			for _, r := range changes {
				if r.Value == nil {
					if _, ok := stored[r.ID]; !ok {
						t.Fatalf("deletes record %x, which isn't there", r.ID)
					}
					delete(stored, r.ID)
				} else {
					stored[r.ID] = r.Value
				}
			}
		}
		apply(tree.Records())

		const most = 80
		models := map[ratchetID]*model{}
		keys := map[ratchetID][]suite.Key{}
		reserved := map[ratchetID]uint32{} // how far what is stored is ahead
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			l := treemath.LeafIndex(rapid.Uint32Range(0, uint32(leaves)-1).Draw(t, "leaf"))
			k := Kind(rapid.IntRange(0, 1).Draw(t, "kind"))
			id := idOf(l, k)
			m := models[id]
			if m == nil {
				m = &model{window: w, used: map[uint32]bool{}}
				models[id] = m
				keys[id] = allKeys(tree, root, l, k, most)
			}
			before := tree.Records()
			var u *Use
			var err error
			var generation, ahead uint32
			if rapid.Bool().Draw(t, "send") {
				generation = m.next
				u, err = tree.Next(l, k)
				if err != nil {
					t.Fatal(err)
				}
				if u.Generation() != generation {
					t.Fatalf("next generation is %d, want %d", u.Generation(), generation)
				}
				ahead = rapid.Uint32Range(0, 3).Draw(t, "ahead")
				u.Reserve(ahead)
			} else {
				low := uint32(max(0, int(m.next)-8))
				generation = rapid.Uint32Range(low, m.next+14).Draw(t, "generation")
				u, err = tree.Key(l, k, generation)
				if want := m.want(generation); !errors.Is(err, want) {
					t.Fatalf("generation %d at %d: %v, want %v", generation, m.next, err, want)
				}
				ahead = reserved[id] // and stays so
			}
			if late := err == nil && generation < m.next; err == nil && u.Late() != late {
				t.Fatalf("generation %d at %d is late: %v", generation, m.next, u.Late())
			}
			if max(generation, m.next)+ahead >= most {
				continue
			}
			if err == nil && *u.Key() != keys[id][generation] {
				t.Fatalf("wrong key for generation %d", generation)
			}
			if err != nil || rapid.Bool().Draw(t, "drop") {
				if err == nil {
					u.Drop()
				}
				if !slices.EqualFunc(before, tree.Records(), func(a, b Record) bool {
					return a.ID == b.ID && bytes.Equal(a.Value, b.Value)
				}) {
					t.Fatal("tree changed without a commit")
				}
				continue
			}
			apply(slices.Collect(u.Changes))
			if err := u.Commit(); err != nil {
				t.Fatal(err)
			}
			m.used[generation] = true
			m.next = max(m.next, generation+1)
			reserved[id] = ahead
			now := map[RecordID]suite.Secret{}
			for _, r := range tree.Records() {
				now[r.ID] = r.Value
			}
			for id, n := range reserved {
				record := recordID(ratchetRecord, uint32(id))
				if n > 0 && bytes.Equal(now[record], stored[record]) {
					t.Fatal("nothing is reserved")
				}
				if n > 0 {
					now[record] = stored[record]
				}
			}
			if !maps.EqualFunc(now, stored, func(a, b suite.Secret) bool { return bytes.Equal(a, b) }) {
				t.Fatal("changes do not lead to the records of the tree")
			}
			// Nothing stored may hold a key that was used, or lead to one.
			for g := range m.used {
				for id, v := range stored {
					if bytes.Contains(v, keys[idOf(l, k)][g].Key[:]) {
						t.Fatalf("record %x holds the spent key of generation %d", id, g)
					}
				}
			}
			if rapid.Bool().Draw(t, "reload") {
				var records []Record
				for id, v := range stored {
					records = append(records, Record{id, v})
				}
				tree, err = Load(s, leaves, w, records)
				if err != nil {
					t.Fatal(err)
				}
				for id, n := range reserved {
					models[id].next += n // as if they were skipped
				}
				clear(reserved)
			}
		}
	})
}

func TestWindowLimits(t *testing.T) {
	tree := newTestTree(t, 4, window)
	for _, g := range []uint32{1001, 1002, math.MaxUint32} {
		if _, err := tree.Key(1, Application, g); !errors.Is(err, ErrTooFarAhead) {
			t.Errorf("generation %d at 0: %v", g, err)
		}
	}
	consume(t, tree, 1, Application, 1000) // next is 1001
	if _, err := tree.Key(1, Application, 995); !errors.Is(err, ErrTooOld) {
		t.Errorf("generation 995 at 1001: %v", err)
	}
	// The slot of the generation just used counts: five slots, four keys.
	for _, g := range []uint32{996, 999, 997, 998} {
		consume(t, tree, 1, Application, g)
	}
	for _, g := range []uint32{996, 997, 998, 999, 1000} {
		if _, err := tree.Key(1, Application, g); !errors.Is(err, ErrSecretReused) {
			t.Errorf("generation %d again: %v", g, err)
		}
	}
	if _, err := tree.Key(1, Application, 2002); !errors.Is(err, ErrTooFarAhead) {
		t.Errorf("generation 2002 at 1001: %v", err)
	}
	consume(t, tree, 1, Application, 2001)
	if _, err := tree.Key(4, Application, 0); !errors.Is(err, ErrNoLeaf) {
		t.Errorf("leaf outside: %v", err)
	}
	if _, err := tree.Key(math.MaxUint32, Application, 0); !errors.Is(err, ErrNoLeaf) {
		t.Errorf("leaf far outside: %v", err)
	}
}

func TestExhausted(t *testing.T) {
	tree := newTestTree(t, 2, Window{Backward: 5, Forward: math.MaxUint32})
	consume(t, tree, 0, Application, 0)
	r := *tree.ratchets[idOf(0, Application)]
	r.next = math.MaxUint32 - 1
	tree.ratchets[idOf(0, Application)] = &r
	u, err := tree.Next(0, Application)
	if err != nil {
		t.Fatal(err)
	}
	u.Reserve(3)
	stored := slices.Collect(u.Changes)
	if err := u.Commit(); err != nil {
		t.Fatal(err)
	}
	exact, ok := tree.Ratchet(0, Application)
	if !ok || len(stored) != 1 || !bytes.Equal(stored[0].Value, exact.Value) {
		t.Error("what there isn't is reserved")
	}
	if _, err := tree.Next(0, Application); !errors.Is(err, ErrExhausted) {
		t.Errorf("next: %v", err)
	}
	if _, err := tree.Key(0, Application, math.MaxUint32); !errors.Is(err, ErrExhausted) {
		t.Errorf("last generation: %v", err)
	}
}

func TestStale(t *testing.T) {
	tree := newTestTree(t, 8, window)
	take := func(l treemath.LeafIndex, g uint32) *Use {
		t.Helper()
		u, err := tree.Key(l, Application, g)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	a, b, c := take(0, 0), take(0, 1), take(7, 0)
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, u := range []*Use{a, b, c} {
		if err := u.Commit(); !errors.Is(err, ErrStale) {
			t.Errorf("commit of a stale use: %v", err)
		}
		u.Drop()
		u.Drop()
	}
	// Uses of different ratchets don't hinder each other once derived.
	consume(t, tree, 7, Application, 0)
	d, e := take(0, 1), take(7, 1)
	for _, u := range []*Use{e, d} {
		if err := u.Commit(); err != nil {
			t.Error(err)
		}
	}
	consume(t, tree, 0, Handshake, 0)
}

// A message changes one record, of the same size whatever the group's.
func TestChangesAreSmall(t *testing.T) {
	var sizes []int
	for _, leaves := range []treemath.LeafCount{2, 1 << 10, 1 << 20} {
		tree := newTestTree(t, leaves, window)
		consume(t, tree, 1, Application, 0)
		u, err := tree.Next(1, Application)
		if err != nil {
			t.Fatal(err)
		}
		changes := slices.Collect(u.Changes)
		if len(changes) != 1 {
			t.Errorf("%d leaves: %d records change", leaves, len(changes))
		}
		sizes = append(sizes, len(changes[0].Value))
		u.Drop()
		u, err = tree.Key(1, Application, 900)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(slices.Collect(u.Changes)[0].Value); n > 400 {
			t.Errorf("%d leaves: record of %d bytes after a jump", leaves, n)
		}
		u.Drop()
	}
	if slices.Max(sizes) != slices.Min(sizes) || sizes[0] > 50 {
		t.Errorf("records of %d bytes", sizes)
	}
}

func TestSpentSecretsAreOverwritten(t *testing.T) {
	tree := newTestTree(t, 4, window)
	root := tree.nodes[tree.leaves.Root()]
	consume(t, tree, 0, Application, 3)
	zero := make([]byte, len(root))
	if !bytes.Equal(root, zero) {
		t.Error("root secret left")
	}
	r := tree.ratchets[idOf(0, Application)]
	if len(r.skipped) != 3 {
		t.Fatalf("%d keys skipped", len(r.skipped))
	}
	consume(t, tree, 0, Application, 1)
	if r.secret != [64]byte{} || slices.ContainsFunc(r.skipped, func(s skipped) bool { return s.key != suite.Key{} }) {
		t.Error("former ratchet left")
	}
	u, err := tree.Next(1, Application)
	if err != nil {
		t.Fatal(err)
	}
	after, other := u.after, u.first.other
	u.Drop()
	if after.secret != [64]byte{} || other.secret != [64]byte{} {
		t.Error("dropped ratchets left")
	}
	n, r := tree.nodes[treemath.LeafIndex(1).Node()], tree.ratchets[idOf(0, Application)]
	tree.Wipe()
	if !bytes.Equal(n, zero) || r.secret != [64]byte{} || len(tree.Records()) != 0 {
		t.Error("secrets left after Wipe")
	}
	if _, err := tree.Next(0, Application); !errors.Is(err, ErrNoLeaf) {
		t.Errorf("key from a wiped tree: %v", err)
	}
}

func TestNothingSecretPrinted(t *testing.T) {
	tree := newTestTree(t, 2, window)
	u, err := tree.Key(0, Application, 2)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%v %+v %#v %x %v %+v %#v %x %v", tree, tree, tree, tree, u, u, u, u, slices.Collect(u.Changes))
	for _, b := range [][]byte{u.Key().Key[:4], u.after.secret[:4], tree.nodes[tree.leaves.Root()][:4]} {
		if strings.Contains(text, fmt.Sprintf("%x", b)) || strings.Contains(text, strings.Trim(fmt.Sprint(b), "[]")) {
			t.Errorf("%q shows a secret", text)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	s := mustSuite(t, 3)
	tree := newTestTree(t, 4, window)
	consume(t, tree, 0, Application, 3)
	records := tree.Records()
	node, last := records[0], records[len(records)-1]
	edit := func(r Record, f func(r *Record)) []Record {
		r.Value = slices.Clone(r.Value)
		f(&r)
		return []Record{r}
	}
	for name, bad := range map[string][]Record{
		"twice the same node":       {node, node},
		"twice the same ratchet":    {last, last},
		"node outside":              {{recordID(nodeRecord, 7), node.Value}},
		"ratchet outside":           {{recordID(ratchetRecord, 8), last.Value}},
		"node without value":        {{node.ID, nil}},
		"ratchet without value":     {{last.ID, nil}},
		"node of no version":        edit(node, func(r *Record) { r.Value[0]-- }),
		"ratchet of no version":     edit(last, func(r *Record) { r.Value[0]-- }),
		"long node":                 edit(node, func(r *Record) { r.Value = append(r.Value, 0) }),
		"long ratchet":              edit(last, func(r *Record) { r.Value = append(r.Value, 0) }),
		"skipped one after the end": edit(last, func(r *Record) { r.Value[1+4+32+3] = 200 }),
		"skipped ones out of order": edit(last, func(r *Record) { r.Value[1+4+32+3] = 2 }),
	} {
		if _, err := Load(s, 4, window, bad); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, newer := range map[string][]Record{
		"unknown kind":             {{recordID(9, 0), node.Value}},
		"node of newer version":    edit(node, func(r *Record) { r.Value[0]++ }),
		"ratchet of newer version": edit(last, func(r *Record) { r.Value[0]++ }),
	} {
		if _, err := Load(s, 4, window, newer); !errors.Is(err, ErrNewerRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Load(s, 4, window, records); err != nil {
		t.Error(err)
	}
}

func FuzzLoad(f *testing.F) {
	s := mustSuite(f, 3)
	tree := newTestTree(f, 4, window)
	consume(f, tree, 0, Application, 3)
	for _, r := range tree.Records() {
		f.Add(r.ID[0], r.ID[4], []byte(r.Value))
	}
	f.Fuzz(func(t *testing.T, kind, index byte, value []byte) {
		in := Record{recordID(kind, uint32(index)), value}
		tree, err := Load(s, 4, window, []Record{in})
		if err != nil {
			return
		}
		if out := tree.Records(); len(out) != 1 || out[0].ID != in.ID || !bytes.Equal(out[0].Value, in.Value) {
			t.Errorf("record %x %x is stored as %v", in.ID, value, out)
		}
		for _, g := range []uint32{0, 3, 1000, math.MaxUint32} {
			if u, err := tree.Key(0, Application, g); err == nil {
				if err := u.Commit(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func TestAllocations(t *testing.T) {
	tree := newTestTree(t, 1024, window)
	consume(t, tree, 5, Application, 0)
	if n := testing.AllocsPerRun(100, func() {
		u, err := tree.Next(5, Application)
		if err != nil {
			t.Fatal(err)
		}
		for range u.Changes {
		}
		if err := u.Commit(); err != nil {
			t.Fatal(err)
		}
	}); n > 4 {
		t.Errorf("a message allocates %v times", n)
	}
}

func BenchmarkMessage(b *testing.B) {
	tree := newTestTree(b, 1024, window)
	b.ReportAllocs()
	for b.Loop() {
		u, err := tree.Next(5, Application)
		if err != nil {
			b.Fatal(err)
		}
		for range u.Changes {
		}
		if err := u.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFirstUse(b *testing.B) {
	tree := newTestTree(b, 1024, window)
	b.ReportAllocs()
	for b.Loop() {
		u, err := tree.Key(5, Application, 0)
		if err != nil {
			b.Fatal(err)
		}
		u.Drop()
	}
}

func BenchmarkJump(b *testing.B) {
	tree := newTestTree(b, 1024, window)
	b.ReportAllocs()
	for b.Loop() {
		u, err := tree.Key(5, Application, 1000)
		if err != nil {
			b.Fatal(err)
		}
		u.Drop()
	}
}
