package protocol

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// Membership is which inboxes a group has, and how far it has applied the log of
// each: its members are the installations that the inboxes had then, but for the
// failed ones.
type Membership struct {
	// Members maps inbox ids to sequence ids of the node's identity log. 0 stands
	// for a creator whom no commit has touched yet.
	Members map[string]uint64

	// Failed are installations of these inboxes that could not be added, for want
	// of a usable key package.
	Failed []identity.Identifier
}

// Clone returns a copy that shares nothing with m.
func (m *Membership) Clone() *Membership {
	return &Membership{maps.Clone(m.Members), slices.Clone(m.Failed)}
}

// Size is the number of inboxes by which [MaxMembers] counts. A creator whom no
// commit has touched yet doesn't count, as with the official client.
func (m *Membership) Size() int {
	n := 0
	for _, sequenceID := range m.Members {
		if sequenceID != 0 {
			n++
		}
	}
	return n
}

func (m *Membership) extension() (mls.Extension, error) {
	p := &mlscontents.GroupMembership{Members: m.Members}
	for _, id := range m.Failed {
		p.FailedInstallations = append(p.FailedInstallations, id.Bytes())
	}
	data, err := marshal(p)
	return mls.Extension{Type: extensionMembership, Data: data}, err
}

func parseMembership(exts []mls.Extension) (*Membership, error) {
	data, ok := find(exts, extensionMembership)
	if !ok {
		return nil, ErrNoMembership
	}
	var p mlscontents.GroupMembership
	if err := unmarshal(data, &p); err != nil {
		return nil, ErrMembershipEncoding.because(err)
	}
	m := &Membership{Members: p.GetMembers()}
	if m.Members == nil {
		m.Members = map[string]uint64{}
	}
	for _, id := range p.GetFailedInstallations() {
		m.Failed = append(m.Failed, identity.Installation(id))
	}
	return m, nil
}

// membershipDiff is what a commit does to the inboxes of a group; each list is
// sorted.
type membershipDiff struct{ added, removed, updated []string }

func diffMembership(before, after *Membership) membershipDiff {
	var d membershipDiff
	if before == after {
		return d
	}
	for inboxID, sequenceID := range after.Members {
		old, ok := before.Members[inboxID]
		switch {
		case !ok:
			d.added = append(d.added, inboxID)
		case sequenceID != old:
			d.updated = append(d.updated, inboxID)
		}
	}
	for inboxID := range before.Members {
		if _, ok := after.Members[inboxID]; !ok {
			d.removed = append(d.removed, inboxID)
		}
	}
	slices.Sort(d.added)
	slices.Sort(d.removed)
	slices.Sort(d.updated)
	return d
}

// installations is a set of installations.
type installations map[identity.Identifier]struct{}

func (s installations) add(ids ...identity.Identifier) {
	for _, id := range ids {
		s[id] = struct{}{}
	}
}

func (s installations) has(id identity.Identifier) bool {
	_, ok := s[id]
	return ok
}

// sorted returns the set in the order of the keys.
func (s installations) sorted() []identity.Identifier {
	return slices.SortedFunc(maps.Keys(s), func(a, b identity.Identifier) int {
		return bytes.Compare(a.Bytes(), b.Bytes())
	})
}

func (s installations) String() string { return fmt.Sprint(s.sorted()) }
