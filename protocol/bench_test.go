package protocol

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
)

// crowd is a commit in a group of n inboxes: dana is added, or nothing changes. All
// inboxes but those of the room share one log.
func crowd(b *testing.B, n int, add bool) (*stagedCommit, Directory) {
	r := newRoom(b)
	for i := range n - len(r.members) {
		r.before.Membership.Members[fmt.Sprintf("%064x", i)] = r.alix.at
	}
	before, err := r.before.Extensions()
	if err != nil {
		b.Fatal(err)
	}
	c := &stagedCommit{before: before, after: before, path: r.path, members: slices.Values(r.members),
		member: func(i mls.LeafIndex) (mls.Member, bool) { return r.members[i], true }}
	if add {
		m := r.before.Membership.Clone()
		m.Members[r.dana.inboxID] = r.dana.at
		if c.after, err = WithMembership(before, m); err != nil {
			b.Fatal(err)
		}
		c.proposals = []stagedProposal{
			{r.actor, true, mls.Add{KeyPackage: r.dana.infos[0].Package}},
			{r.actor, true, mls.GroupContextExtensions{Extensions: c.after}},
		}
	}
	return c, r.logs
}

func BenchmarkCheckCommit(b *testing.B) {
	for _, n := range []int{10, 250} {
		for name, add := range map[string]bool{"key update": false, "add": true} {
			b.Run(fmt.Sprintf("%s in %d", name, n), func(b *testing.B) {
				c, d := crowd(b, n, add)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.check(b.Context(), d); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkWelcome(b *testing.B) {
	kp, info := newTestKeyPackage(b, alix)
	id := identity.Installation(info.InstallationKey[:])
	message := make([]byte, 20<<10)
	for name, to := range map[string]identity.WelcomeWrapper{
		"X-Wing":     {Algorithm: xwing, PublicKey: kp.WelcomeKeys()[1]},
		"Curve25519": {Algorithm: curve25519, PublicKey: kp.WelcomeKeys()[0]},
	} {
		b.Run("wrap by "+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := WrapWelcome(message, 1, id, to); err != nil {
					b.Fatal(err)
				}
			}
		})
		in, err := WrapWelcome(message, 1, id, to)
		if err != nil {
			b.Fatal(err)
		}
		m := received(b, in)
		b.Run("unwrap by "+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := kp.Unwrap(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSenderHMAC(b *testing.B) {
	root := NewHMACRoot()
	group, data := make([]byte, GroupIDSize), make([]byte, 1<<10)
	b.Run("key", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			root.Key(group, 692)
		}
	})
	b.Run("1 KiB", func(b *testing.B) {
		key := root.Key(group, 692)
		b.ReportAllocs()
		for b.Loop() {
			key.SenderHMAC(data)
		}
	})
}

func BenchmarkEnvelope(b *testing.B) {
	e := Envelope{bytes.Repeat([]byte("x"), 1<<10), "1795368298672712083"}
	data, err := e.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	group := make([]byte, GroupIDSize)
	b.ReportAllocs()
	for b.Loop() {
		e, err := ParseEnvelope(data)
		if err != nil {
			b.Fatal(err)
		}
		e.MessageID(group)
	}
}
