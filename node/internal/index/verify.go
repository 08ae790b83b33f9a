package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// maxProblems is how many are described; the others are counted.
const maxProblems = 100

// Report is what [Index.Verify] has found.
type Report struct {
	Records map[order.Kind]uint64 // how many, by kind
	Bytes   uint64                // of all entries
	Inboxes uint64
	Newest  uint64 // number of the newest record
	// Problems describes the first of what is wrong, and Count tells how many
	// there are.
	Problems []string
	Count    int
}

func (r *Report) problem(format string, args ...any) {
	if r.Count++; r.Count <= maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// Verify reads everything, with checksums; compares what is derived from records
// (inboxes, identifiers, what was published) with what follows from them; and
// passes each record to check, which looks at its payload. The store must not
// change meanwhile: it was opened for reading. The error is ctx's; what is wrong
// with the store is in the report.
func (x *Index) Verify(ctx context.Context, check func(*order.Record) error) (Report, error) {
	v := &verifier{
		x:       x,
		check:   check,
		numbers: numberSet{},
		report:  Report{Records: map[order.Kind]uint64{}, Newest: x.Durable()},
	}
	err := x.await(func() error {
		if err := checkBatches(x.db); err != nil {
			v.report.problem("%v", err)
		}
		newest, err := x.meta()
		if err != nil {
			v.report.problem("%v", err)
		}
		v.newest = newest
		v.read(ctx, "records", prefixRecord, v.record)
		v.endInbox()
		v.read(ctx, "key packages", prefixKeyPackage, v.keyPackage)
		v.read(ctx, "inboxes", prefixState, v.inbox)
		v.read(ctx, "identifiers", prefixAddress, v.identifier)
		v.read(ctx, "contract signatures", prefixContract, v.contract)
		v.read(ctx, "what was published", prefixSeen, v.published)
		v.totals()
		return v.unknown(ctx)
	})
	if ctx.Err() != nil {
		return Report{}, ctx.Err()
	}
	if err != nil {
		v.report.problem("%v", err)
	}
	return v.report, nil
}

// verifier has what is known so far.
type verifier struct {
	x       *Index
	check   func(*order.Record) error
	newest  meta
	numbers numberSet
	report  Report
	broken  bool // something couldn't be read, so that totals mean nothing

	topic        order.Topic // of the record before
	time         uint64
	publications uint64 // how many notes of publications follow from the records
	folded       folded

	foundPublished, foundInboxes, identifiers, foundIdentifiers uint64
}

// folded is the inbox whose log is being read, which is always one after the other.
type folded struct {
	id    string
	inbox inbox
	// Identifiers that it has or had, by the number that added them.
	rows map[string]membership
}

// read walks over a part, and reports what can't be read.
func (v *verifier) read(ctx context.Context, what string, prefix byte, visit func(key, value []byte)) {
	var last []byte
	err := v.x.walk(ctx, prefix, func(key, value []byte) error {
		last = append(last[:0], key...)
		v.report.Bytes += uint64(len(key) + len(value))
		visit(key, value)
		return nil
	})
	if err != nil {
		v.broken = true
		if d, ok := errors.AsType[*damagedTable](v.x.hasFailed()); ok {
			err = fmt.Errorf("%s, with the keys %x to %x: %w", d.path, d.first, d.last, err)
		}
		v.report.problem("%s can't be read after the key %x: %v", what, last, err)
	}
}

func (v *verifier) number(what string, number uint64) {
	switch {
	case number == 0 || number > v.newest.number:
		v.report.problem("%s has the number %d, but the newest is %d", what, number, v.newest.number)
	case !v.numbers.add(number):
		v.report.problem("%s has the number %d, and so has another record", what, number)
	}
}

func (v *verifier) record(key, value []byte) {
	topic, number, err := parseRecordKey(key)
	if err != nil {
		v.report.problem("%v", err)
		return
	}
	what := describe(topic, number)
	v.number(what, number)
	r, err := order.ParseValue(topic, number, value)
	if err != nil {
		v.report.problem("%s: %v", what, err)
		return
	}
	v.report.Records[topic.Kind]++
	if topic != v.topic {
		v.endInbox()
		v.topic, v.time = topic, 0
	}
	if r.Time <= v.time || r.Time > v.newest.time {
		v.report.problem("%s is of the time %d, the one before of %d, the newest of %d", what, r.Time, v.time, v.newest.time)
	}
	v.time = r.Time
	switch topic.Kind {
	case order.GroupMessage, order.Welcome:
		v.publications++
		note := seenKey(topic, r.Payload)
		stored, err := v.x.get(note[:])
		if err != nil || len(stored) != 8 || binary.BigEndian.Uint64(stored) != number {
			v.report.problem("%s is not noted as published", what)
		}
	case order.IdentityUpdate:
		v.fold(what, r)
	case order.CommitLog:
	default:
		v.report.problem("%s is of an unknown kind", what)
		return
	}
	if err := v.check(r); err != nil {
		v.report.problem("%s: %v", what, err)
	}
}

// fold applies an update to the state of its inbox, as it was when it was stored.
func (v *verifier) fold(what string, r *order.Record) {
	f := &v.folded
	if f.id != r.ID {
		*f = folded{id: r.ID, rows: map[string]membership{}}
	}
	update, err := identity.UnmarshalVerifiedUpdate(r.Facts)
	if err != nil {
		v.report.problem("%s: facts: %v", what, err)
		return
	}
	state, err := f.inbox.state.Apply(update)
	if err != nil {
		v.report.problem("%s does not follow from those before: %v", what, err)
		return
	}
	added, removed := identity.Diff(f.inbox.state, state)
	for _, id := range added {
		if prefix := identifierPrefix(id); prefix != nil {
			f.rows[string(prefix)+string(binary.BigEndian.AppendUint64(nil, r.Number))] = membership{added: r.Number, inbox: r.ID}
		}
	}
	for _, id := range removed {
		prefix := string(identifierPrefix(id))
		if prefix == "" {
			continue
		}
		// The newest that counts.
		newest := ""
		for key, m := range f.rows {
			if len(key) == len(prefix)+8 && key[:len(prefix)] == prefix && m.revoked == 0 && key > newest {
				newest = key
			}
		}
		if m, found := f.rows[newest]; found {
			m.revoked = r.Number
			f.rows[newest] = m
		}
	}
	f.inbox = inbox{last: r.Number, count: f.inbox.count + 1, bytes: f.inbox.bytes + uint32(len(r.Payload)), state: state}
}

// endInbox compares what follows from an inbox's log with what is stored of it.
func (v *verifier) endInbox() {
	f := v.folded
	v.folded = folded{}
	if f.inbox.state == nil {
		return
	}
	v.report.Inboxes++
	want, err := f.inbox.marshal()
	if err != nil {
		v.report.problem("inbox %x: %v", f.id, err)
		return
	}
	if stored, err := v.x.get(stateKey(f.id)); err != nil || !bytes.Equal(stored, want) {
		v.report.problem("inbox %x: its state is not what follows from its updates", f.id)
	}
	for key, m := range f.rows {
		v.identifiers++
		prefix := []byte(key[:len(key)-8])
		key, want := membershipEntry(prefix, m)
		if stored, err := v.x.get(key); err != nil || !bytes.Equal(stored, want) {
			v.report.problem("inbox %x: an identifier is not found as follows from update %d", f.id, m.added)
		}
	}
}

func (v *verifier) keyPackage(key, value []byte) {
	topic, err := parseKeyPackageKey(key)
	if err != nil {
		v.report.problem("%v", err)
		return
	}
	what := fmt.Sprintf("key package of installation %x", topic.ID)
	r, err := parseKeyPackage(topic, value)
	if err == nil {
		_, err = order.ParseKeyPackageFacts(r.Facts)
	}
	if err != nil {
		v.report.problem("%s: %v", what, err)
		return
	}
	v.report.Records[order.KeyPackage]++
	v.number(what, r.Number)
	if r.Time > v.newest.time {
		v.report.problem("%s is of the time %d, the newest record of %d", what, r.Time, v.newest.time)
	}
	if err := v.check(r); err != nil {
		v.report.problem("%s: %v", what, err)
	}
}

func (v *verifier) inbox(key, value []byte) {
	v.foundInboxes++
	if _, err := parseInbox(value); err != nil {
		v.report.problem("inbox %x: %v", key[1:], err)
	}
}

func (v *verifier) identifier(_, _ []byte) { v.foundIdentifiers++ }

func (v *verifier) contract(key, value []byte) {
	if len(value) != 8 || !v.numbers.has(binary.BigEndian.Uint64(value)) {
		v.report.problem("contract signature %x: it is of no update", key[1:])
	}
}

func (v *verifier) published(key, value []byte) { v.foundPublished++ }

// totals find what is stored but follows from no record: what follows was looked up.
func (v *verifier) totals() {
	if v.broken {
		return
	}
	for _, part := range []struct {
		what        string
		found, want uint64
	}{
		{"inboxes", v.foundInboxes, v.report.Inboxes},
		{"identifiers", v.foundIdentifiers, v.identifiers},
		{"notes of publications", v.foundPublished, v.publications},
	} {
		if part.found != part.want {
			v.report.problem("there are %d %s, but %d follow from the records", part.found, part.what, part.want)
		}
	}
}

// unknown looks for entries of a kind that this version doesn't know.
func (v *verifier) unknown(ctx context.Context) error {
	known := []byte{prefixRecord, prefixKeyPackage, prefixSeen, prefixState, prefixAddress, prefixContract, prefixMeta, prefixBatch}
	for prefix := range byte(255) {
		if bytes.IndexByte(known, prefix) >= 0 {
			continue
		}
		v.read(ctx, "unknown entries", prefix, func(key, _ []byte) {
			v.report.problem("an entry of an unknown kind: %x", key)
		})
	}
	return ctx.Err()
}

var kindNames = map[order.Kind]string{
	order.GroupMessage:   "group message",
	order.Welcome:        "welcome",
	order.KeyPackage:     "key package",
	order.IdentityUpdate: "identity update",
	order.CommitLog:      "commit log entry",
}

func describe(topic order.Topic, number uint64) string {
	return fmt.Sprintf("%s %d of %x", kindNames[topic.Kind], number, topic.ID)
}

// numberSet holds numbers, of which many follow each other, in bits.
type numberSet map[uint64]*[1 << 10]uint64

func (s numberSet) add(n uint64) bool {
	part := s[n>>16]
	if part == nil {
		part = new([1 << 10]uint64)
		s[n>>16] = part
	}
	word, bit := &part[n>>6&(1<<10-1)], uint64(1)<<(n&63)
	fresh := *word&bit == 0
	*word |= bit
	return fresh
}

func (s numberSet) has(n uint64) bool {
	part := s[n>>16]
	return part != nil && part[n>>6&(1<<10-1)]&(1<<(n&63)) != 0
}
