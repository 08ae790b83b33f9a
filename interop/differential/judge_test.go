package differential

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-xmtp/go-xmtp/mls"
)

// verdict is what an implementation says to a message.
type verdict struct {
	ok            bool
	why           string // the name of our error, or the text of theirs
	detail        string
	kind          string
	epoch         uint64
	authenticator []byte
	text          []byte
	removed       bool
}

func (v verdict) String() string {
	switch {
	case !v.ok:
		return v.why
	case v.removed:
		return "accepts its removal"
	}
	return "accepts " + v.kind
}

// sentinels are our errors, the more special ones first.
var sentinels = []struct {
	name string
	err  error
}{
	{"ErrUnexpectedEnd", mls.ErrUnexpectedEnd}, {"ErrTrailingData", mls.ErrTrailingData},
	{"ErrUnsupportedVersion", mls.ErrUnsupportedVersion}, {"ErrUnsupportedCipherSuite", mls.ErrUnsupportedCipherSuite},
	{"ErrLeafNodeSource", mls.ErrLeafNodeSource}, {"ErrLeafNodeSignature", mls.ErrLeafNodeSignature},
	{"ErrKeyPackageSignature", mls.ErrKeyPackageSignature}, {"ErrInitKey", mls.ErrInitKey},
	{"ErrExtensionNotListed", mls.ErrExtensionNotListed}, {"ErrDuplicateExtension", mls.ErrDuplicateExtension},
	{"ErrLifetime", mls.ErrLifetime}, {"ErrCapabilities", mls.ErrCapabilities}, {"ErrDuplicateKey", mls.ErrDuplicateKey},
	{"ErrInvalidTree", mls.ErrInvalidTree}, {"ErrInvalidPath", mls.ErrInvalidPath}, {"ErrInactive", mls.ErrInactive},
	{"ErrReInit", mls.ErrReInit}, {"ErrWrongGroup", mls.ErrWrongGroup}, {"ErrWrongEpoch", mls.ErrWrongEpoch},
	{"ErrWireFormat", mls.ErrWireFormat}, {"ErrSender", mls.ErrSender}, {"ErrDecrypt", mls.ErrDecrypt},
	{"ErrSignature", mls.ErrSignature}, {"ErrMembershipTag", mls.ErrMembershipTag},
	{"ErrConfirmationTag", mls.ErrConfirmationTag}, {"ErrPadding", mls.ErrPadding},
	{"ErrTooDistantInPast", mls.ErrTooDistantInPast}, {"ErrTooDistantInFuture", mls.ErrTooDistantInFuture},
	{"ErrSecretReused", mls.ErrSecretReused}, {"ErrStateRolledBack", mls.ErrStateRolledBack},
	{"ErrUnknownProposal", mls.ErrUnknownProposal}, {"ErrUnsupportedProposal", mls.ErrUnsupportedProposal},
	{"ErrInvalidProposals", mls.ErrInvalidProposals}, {"ErrMissingPath", mls.ErrMissingPath},
	{"ErrPreSharedKey", mls.ErrPreSharedKey}, {"ErrNotForUs", mls.ErrNotForUs}, {"ErrNoExternalPub", mls.ErrNoExternalPub},
	{"ErrNoRatchetTree", mls.ErrNoRatchetTree}, {"ErrSuccessor", mls.ErrSuccessor}, {"ErrMalformed", mls.ErrMalformed},
}

func refusal(err error) verdict {
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return verdict{why: s.name, detail: err.Error()}
		}
	}
	return verdict{why: "unnamed: " + err.Error(), detail: err.Error()}
}

// ours is our verdict on a message for m, whose group stays as it is.
func ours(m *member, data []byte) (v verdict) {
	p, err := m.group.Process(data)
	if err != nil {
		return refusal(err)
	}
	defer p.Discard()
	v.ok = true
	switch event := p.Result().(type) {
	case *mls.ApplicationMessage:
		v.kind, v.text, v.epoch = "application", event.Data, m.group.Epoch()
	case *mls.ReceivedProposal:
		v.kind, v.epoch = "proposal", m.group.Epoch()
	case *mls.StagedCommit:
		v.kind, v.removed, v.authenticator, v.epoch = "commit", event.SelfRemoved, event.EpochAuthenticator(), event.Epoch
	case *mls.OwnMessage:
		v.kind = "own message"
	case *mls.UnresolvedCommit:
		v.kind = "unresolved"
	}
	return v
}

func theirs(r result) verdict {
	if !r.OK {
		return verdict{why: r.Error, detail: r.Error}
	}
	return verdict{ok: true, kind: r.Kind, epoch: r.Epoch, authenticator: r.Authenticator, text: r.Text, removed: r.Removed}
}

// trial is a message that both judge. What names how it came about.
type trial struct {
	what string
	data []byte
}

// difference is one kind of message that the two judge differently, with who is right.
type difference struct {
	name         string // short, as in docs/mls-differential.md
	what         string // patterns of the trial, of our verdict, and of theirs
	ours, theirs string
	section      string // of RFC 9420
	right        string // "ours", "theirs", or "both" where the RFC leaves it open
}

// judge collects verdicts of scenes that may run side by side.
type judge struct {
	t        testing.TB
	known    []difference
	patterns [][3]*regexp.Regexp

	mu         sync.Mutex // what follows
	valid      int
	mutants    int
	accepted   int // mutants that both take
	seen       map[string]int
	unknown    map[string]int
	examples   map[string]string
	perVerdict map[string]int // our refusals of mutants, by name
	corpus     map[string]recorded
}

func newJudge(t testing.TB, known []difference) *judge {
	j := &judge{t: t, known: known, seen: map[string]int{}, unknown: map[string]int{}, examples: map[string]string{}, perVerdict: map[string]int{}, corpus: map[string]recorded{}}
	for _, d := range known {
		j.patterns = append(j.patterns, [3]*regexp.Regexp{
			regexp.MustCompile("^(?:" + d.what + ")$"), regexp.MustCompile("^(?:" + d.ours + ")$"), regexp.MustCompile("^(?:" + d.theirs + ")$"),
		})
	}
	return j
}

// follow counts a valid message.
func (j *judge) follow() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.valid++
}

// meet counts a known difference that was met in a valid message.
func (j *judge) meet(name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seen[name]++
}

// compare judges one trial by its two verdicts. It returns the name of the difference if it
// is a known one.
func (j *judge) compare(tr trial, a, b verdict) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mutants++
	if a.ok && b.ok {
		j.accepted++
	} else if !a.ok {
		j.perVerdict[a.why]++
	}
	x, y := a.String(), b.String()
	switch {
	case !a.ok && !b.ok:
		return ""
	case x != y:
	case a.kind == "application" && !bytes.Equal(a.text, b.text):
		x, y = "one text", "another text"
	case a.kind == "commit" && !a.removed && (a.epoch != b.epoch || !bytes.Equal(a.authenticator, b.authenticator)):
		x, y = "one epoch", "another epoch"
	default:
		return ""
	}
	for i, p := range j.patterns {
		if p[0].MatchString(tr.what) && p[1].MatchString(x) && p[2].MatchString(y) {
			j.seen[j.known[i].name]++
			return j.known[i].name
		}
	}
	key := fmt.Sprintf("%s | ours: %s | theirs: %s", tr.what, x, y)
	if j.unknown[key]++; j.unknown[key] == 1 {
		j.examples[key] = fmt.Sprintf("%s\n\t%x", strings.TrimSpace(a.detail+" / "+b.detail), tr.data)
	}
	return ""
}

// report fails the test for differences that are not known.
func (j *judge) report() {
	j.t.Helper()
	keys := make([]string, 0, len(j.unknown))
	for key := range j.unknown {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		j.t.Errorf("%d × unexplained: %s\n\t%s", j.unknown[key], key, j.examples[key])
	}
	j.t.Logf("our refusals: %v", j.perVerdict)
	j.t.Logf("%d valid messages, %d mutants (%d taken by both), known differences: %v", j.valid, j.mutants, j.accepted, j.seen)
}
