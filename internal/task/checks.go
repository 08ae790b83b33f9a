package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A check is something that an issue asks for and a test must prove. It holds
// when at least one of its tests ran and none failed.
type check struct {
	id, what string
	step     string         // in which its tests run
	pkg      string         // folder, "/..." for those below too
	test     *regexp.Regexp // names of the tests
}

// conformance are the rows of the node's checklist that it must meet so far. Row
// S6 is the test TestS6 or TestS6_… of the package node, E1 of interop.
var conformance = []struct{ id, what string }{
	{"T1", "gRPC over cleartext HTTP/2"},
	{"T2", "pings every few seconds never close a connection"},
	{"T3", "a stream with nothing to deliver sends its headers within 100 ms"},
	{"T4", "a request of 20 MiB"},
	{"T5", "a reply is cut below 25 MiB, its cursor is the last id"},
	{"T6", "empty or missing version headers"},
	{"T7", "an unknown method is UNIMPLEMENTED"},
	{"T8", "health check"},
	{"I1", "inbox of an unknown address: one reply, no inbox"},
	{"I2", "n look-ups give n replies in order"},
	{"I3", "a published identity update is there at once"},
	{"I4", "an empty identity update is refused"},
	{"I5", "bad signature, wrong inbox, replay: refused, nothing stored"},
	{"I6", "the 257th update: the log is full"},
	{"I7", "two updates at once: one after the other"},
	{"I8", "updates after a number, whole, in order"},
	{"I9", "a removed address finds no inbox"},
	{"I10", "an address that moved finds its new inbox"},
	{"I11", "numbers grow and are never used twice"},
	{"I12", "wallet contracts without a chain: an answer for each"},
	{"K1", "upload without a key package"},
	{"K2", "upload of a bad key package"},
	{"K3", "upload before the inbox exists"},
	{"K4", "the newest key package is fetched"},
	{"K5", "unknown installations leave their place empty"},
	{"K6", "fetching does not use up"},
	{"K7", "a key asked twice is answered twice"},
	{"K8", "the same key package twice"},
	{"G1", "nothing to send"},
	{"G2", "one bad message refuses the whole request"},
	{"G3", "message, proposal and commit are told apart"},
	{"G4", "the same bytes are stored once"},
	{"G5", "a batch keeps its order"},
	{"G6", "what was sent is in the next query, on any connection"},
	{"G7", "query without paging"},
	{"G8", "pages upwards"},
	{"G9", "limits out of range"},
	{"G10", "a small limit"},
	{"G11", "exactly one page"},
	{"G12", "pages downwards"},
	{"G13", "empty and unknown groups"},
	{"G14", "50 senders and a polling reader: nothing missed"},
	{"G15", "sender HMAC and push flag come back unchanged"},
	{"G16", "group ids are 16 bytes"},
	{"N1", "newest message of known and unknown groups"},
	{"N2", "newest message of no groups"},
	{"W1", "welcomes and pointers come back as sent"},
	{"W2", "missing parts of a welcome"},
	{"W3", "symmetric welcome to a random topic"},
	{"W4", "pointer with another algorithm"},
	{"W5", "wrong key length or algorithm"},
	{"W6", "algorithm 0 means CURVE25519"},
	{"W7", "the same welcome is stored once"},
	{"W8", "paging of welcomes"},
	{"S1", "a group stream without filters stays open"},
	{"S2", "a welcome stream without filters is refused"},
	{"S3", "replay and live meet: each message once, in order"},
	{"S4", "two topics: nothing lost, order in each"},
	{"S5", "a client that leaves frees everything"},
	{"S6", "a reader that never reads: bounded memory, nobody disturbed, its stream open"},
	{"S7", "an idle stream with pings delivers afterwards"},
	{"S8", "delivery within 50 ms"},
	{"S9", "shutdown ends streams with UNAVAILABLE"},
	{"S10", "1,000 filters"},
	{"C1", "commit log: bad publishes"},
	{"C2", "commit log: bad queries"},
	{"C3", "commit log: entries in order, unchanged"},
	{"C4", "commit log: no downward queries"},
	{"L1", "rate limit"},
	{"L2", "publishing disabled"},
	{"R1", "calls that are no longer offered"},
	{"E1", "official clients: direct messages, group, streams, sync"},
	{"E3", "official clients: 130 messages, one sync"},
	{"E4", "official clients: a stream idle for 90 s"},
	{"E5", "official clients: node stopped and started"},
}

// named are the checks beside the checklist.
var named = []struct{ what, step, pkg, test string }{}

// expect sets the checks that the tests of this run must prove.
func (r *runner) expect() error {
	for _, row := range conformance {
		c := check{id: row.id, what: row.what, step: stepTests, pkg: "node/...",
			test: regexp.MustCompile("^Test" + row.id + "(_.*)?$")}
		if strings.HasPrefix(row.id, "E") {
			c.step, c.pkg = stepOfficial, "interop"
		}
		r.checked = append(r.checked, c)
	}
	for _, n := range named {
		pattern, err := regexp.Compile("^(" + n.test + ")$")
		if err != nil {
			return fmt.Errorf("check %q: %w", n.what, err)
		}
		r.checked = append(r.checked, check{what: n.what, step: n.step, pkg: n.pkg, test: pattern})
	}
	return nil
}

type judged struct {
	check
	verdict verdict
	note    string
}

// judge gives each check its verdict. In the long tier nothing may be skipped.
func (r *runner) judge(results []result) []judged {
	var rows []judged
	for _, c := range r.checked {
		row := judged{check: c, verdict: missing, note: "no test"}
		proof := r.tests.filter(func(t *test) bool { return c.covers(t) })
		switch {
		case len(proof) == 0:
			if i := slices.IndexFunc(results, func(res result) bool { return res.step == c.step && res.verdict == skipped }); i >= 0 {
				row.verdict, row.note = skipped, results[i].note
			}
		default:
			row.verdict, row.note = summary(proof)
		}
		if row.verdict == skipped && r.proof {
			row.verdict = failed
		}
		rows = append(rows, row)
	}
	return rows
}

func (c check) covers(t *test) bool {
	pkg := short(t.pkg)
	dir, below := strings.CutSuffix(c.pkg, "/...")
	return (pkg == dir || below && strings.HasPrefix(pkg, dir+"/")) && c.test.MatchString(t.name)
}

// summary is the verdict of several tests for one check: a failed one decides,
// then one that passed.
func summary(proof []*test) (verdict, string) {
	var names []string
	v, note := skipped, ""
	for _, t := range proof {
		names = append(names, t.name)
		switch {
		case t.verdict == failed:
			v = failed
		case t.verdict == ok && v == skipped:
			v = ok
		}
		if t.verdict == skipped {
			note = "; " + t.name + " skipped: " + t.reason
		}
	}
	return v, strings.Join(names, ", ") + note
}
