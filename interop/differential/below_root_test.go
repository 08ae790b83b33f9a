package differential

import "testing"

// Of the leaves 0 to 3, the member at 2 removes 0 and 1. Its filtered path is the node
// above 2 and 3 alone, whose path secret is the last one: the commit secret is derived from
// it (§12.4.1, §12.4.2), as the forger and we do it. ts-mls wants it derived once more, for
// the blank root, and takes the commit of a forger who does that.
func TestPathBelowRoot(t *testing.T) {
	j := newJudge(t, knownDifferences)
	s := newScene(t, startAgent(t), j, 1, 1, true)
	s.begin()
	m := s.twin()
	if len(s.members) != 4 || m.index != 3 {
		t.Fatalf("%d members, a twin at leaf %d", len(s.members), m.index)
	}
	e := s.epoch(m)
	p := plan{by: 2, proposals: byValue(proposal{Type: typeRemove, Remove: 0}, proposal{Type: typeRemove, Remove: 1})}
	f, err := e.commit(p)
	if err != nil || !f.belowRoot || len(f.path.Nodes) != 1 {
		t.Fatalf("the path doesn't end below the root: %v", err)
	}
	s.try(m, []trial{{"forged commit" + endsBelowRoot + ": valid", f.message}})
	if len(j.seen) != 1 {
		t.Error("ts-mls takes the path as we do")
	}
	j.report()

	p.secrets = func(b *[]byte) { *b = e.derive(*b, "path") }
	if f, err = e.commit(p); err != nil {
		t.Fatal(err)
	}
	if v := ours(m, f.message); v.why != "ErrConfirmationTag" {
		t.Errorf("ours: %v", v)
	}
	request := s.ask(request{Op: "try", On: m.theirs, Messages: [][]byte{f.message}})
	if v := theirs(s.agent.many(request)[0]); !v.ok {
		t.Errorf("theirs: %v", v)
	}
	j.write()
}
