package differential

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-xmtp/go-xmtp/mls"
)

// recorded is a message that the two judged differently, with a twin in the state in which
// it did: the shortest message of its kind that was met.
type recorded struct {
	Difference   string
	What         string
	Suite        uint16
	Signature    []byte // private key
	Records      []mls.Record
	State        []byte // of ts-mls
	Message      []byte
	Ours, Theirs string
}

// recordTo is the folder that new cases are written to; empty if none are.
var recordTo = os.Getenv("XMTP_CORPUS")

// wants tells whether a case would be the shortest of its kind.
func (j *judge) wants(name string, data []byte) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	have, ok := j.corpus[name]
	return recordTo != "" && name != "" && (!ok || len(data) < len(have.Message))
}

func (j *judge) keep(name string, c recorded) {
	c.Difference = name
	j.mu.Lock()
	defer j.mu.Unlock()
	j.corpus[name] = c
}

// write stores what was kept, a file for each kind.
func (j *judge) write() {
	for name, c := range j.corpus {
		data, err := json.MarshalIndent(c, "", "\t")
		if err != nil {
			j.t.Fatal(err)
		}
		path := filepath.Join(recordTo, strings.NewReplacer(" ", "-", "'", "").Replace(name)+".json")
		if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
			j.t.Fatal(err)
		}
	}
}

func (s *scene) record(m *member, tr trial, a, b verdict) recorded {
	saved := s.agent.one(request{Op: "save", Suite: s.suite, On: m.theirs})
	c := recorded{
		What: tr.what, Suite: s.suite, Signature: m.private, State: saved.Message,
		Message: tr.data, Ours: a.String(), Theirs: b.String(),
	}
	for _, r := range m.store {
		c.Records = append(c.Records, r)
	}
	slices.SortFunc(c.Records, func(a, b mls.Record) int {
		return strings.Compare(fmt.Sprintf("%03d%x", a.Kind, a.Key), fmt.Sprintf("%03d%x", b.Kind, b.Key))
	})
	return c
}

// Each difference once more, byte for byte as it was found.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "corpus", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	a := startAgent(t)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var c recorded
		if err := json.Unmarshal(data, &c); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if !slices.ContainsFunc(knownDifferences, func(d difference) bool { return d.name == c.Difference }) {
			t.Errorf("%s: difference %q is not in the table", file, c.Difference)
		}
		signer, err := mls.NewSigner(mls.CipherSuite(c.Suite), c.Signature)
		if err != nil {
			t.Fatal(err)
		}
		s := &scene{t: t, agent: a, suite: c.Suite, psks: preSharedKeys}
		group, err := mls.Load(c.Records, mls.Config{PreSharedKey: s.preSharedKey}, signer)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if got := ours(&member{group: group}, c.Message).String(); got != c.Ours {
			t.Errorf("%s: %s: ours: %s, want %s", file, c.What, got, c.Ours)
		}
		a.one(request{Op: "load", Suite: c.Suite, As: file, Message: c.State})
		results := a.many(s.ask(request{Op: "try", On: file, Messages: [][]byte{c.Message}}))
		if got := theirs(results[0]).String(); got != c.Theirs {
			t.Errorf("%s: %s: theirs: %s, want %s", file, c.What, got, c.Theirs)
		}
	}
}
