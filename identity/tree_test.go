package identity

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestTree compares every version of a tree with a map, after all later ones
// have been made.
func TestTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var versions []tree[int]
		var models []map[string]int
		current, model := tree[int]{}, map[string]int{}
		for range rapid.IntRange(1, 60).Draw(t, "operations") {
			key := rapid.StringOfN(rapid.RuneFrom([]rune("abc")), 0, 3, -1).Draw(t, "key")
			model = maps.Clone(model)
			if rapid.Bool().Draw(t, "put") {
				value := rapid.Int().Draw(t, "value")
				current, model[key] = current.put(key, value), value
			} else {
				current = current.delete(key)
				delete(model, key)
			}
			versions, models = append(versions, current), append(models, model)
		}
		start := rapid.StringOfN(rapid.RuneFrom([]rune("abc")), 0, 3, -1).Draw(t, "start")
		for i, tree := range versions {
			var want []string
			for key, value := range models[i] {
				if got, ok := tree.get(key); !ok || got != value {
					t.Fatalf("version %d: get %q: %d, %v, want %d", i, key, got, ok, value)
				}
				if key >= start {
					want = append(want, key)
				}
			}
			slices.Sort(want)
			var got []string
			for key, value := range tree.from(start) {
				if value != models[i][key] {
					t.Fatalf("version %d: iterated %q: %d", i, key, value)
				}
				got = append(got, key)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("version %d: from %q: %q, want %q", i, start, got, want)
			}
		}
	})
}

// TestTreeDepth puts sorted keys, which would make a plain tree a list.
func TestTreeDepth(t *testing.T) {
	var tr tree[struct{}]
	const n = 1 << 14
	for i := range n {
		tr = tr.put(string([]byte{byte(i >> 8), byte(i)}), struct{}{})
	}
	var depth func(*node[struct{}]) int
	depth = func(n *node[struct{}]) int {
		if n == nil {
			return 0
		}
		return 1 + max(depth(n.left), depth(n.right))
	}
	// The expected depth is about 2·ln n = 20, with a steep tail.
	if d := depth(tr.root); d > 80 {
		t.Errorf("depth %d for %d keys", d, n)
	}
	for range tr.from("") {
		break // an iteration can be left
	}
}
