package mlsharness

import (
	"fmt"
	"slices"

	pb "github.com/go-xmtp/go-xmtp/interop/mlsharness/gen/mlsclient"
)

// crowd are the actors of a random walk; short ones use the first of them.
var crowd = func() []string {
	var names []string
	for i := range 48 {
		names = append(names, fmt.Sprintf("a%d", i))
	}
	return names
}()

// walk is a random course of commits that add, remove and update members, by reference
// and by value, and of members who come, or come back, from outside.
type walk struct {
	// Not all implementations can propose updates, or join from outside.
	updates, entries bool
}

func (w walk) play(s *session) {
	actors := crowd[:min(len(crowd), s.rounds)]
	s.create(actors[0], actors[1:4]...)
	for range s.rounds {
		if s.err != nil {
			return
		}
		if w.entries && s.rand.IntN(5) == 0 {
			s.randomEntry(actors)
		} else {
			w.randomCommit(s, actors)
		}
	}
}

func (s *session) randomEntry(actors []string) {
	joiner := actors[s.rand.IntN(len(actors))]
	others := without(s.members, joiner)
	if len(others) == 0 {
		return
	}
	s.externalJoin(others[s.rand.IntN(len(others))], joiner, entry{
		removePrior:  slices.Contains(s.members, joiner),
		externalTree: s.rand.IntN(2) == 0,
	})
}

func (w walk) randomCommit(s *session, actors []string) {
	members := s.shuffled(s.members)
	committer, rest := members[0], members[1:]
	leavers := rest[:s.rand.IntN(len(rest)/2+1)]
	stay := rest[len(leavers):]
	idle := slices.DeleteFunc(s.shuffled(actors), func(a string) bool { return slices.Contains(s.members, a) })
	c := commit{
		leavers:      leavers,
		joiners:      idle[:s.rand.IntN(min(len(idle), 4)+1)],
		forcePath:    w.updates && s.rand.IntN(2) == 0,
		externalTree: s.rand.IntN(4) == 0,
	}
	var list []*pb.ProposalDescription
	for _, joiner := range c.joiners {
		list = append(list, addOf(s.keyPackage(joiner)))
	}
	for _, leaver := range leavers {
		list = append(list, removeOf(leaver))
	}
	proposers := append([]string{committer}, stay...)
	for _, d := range list {
		if s.rand.IntN(2) == 0 {
			c.byValue = append(c.byValue, d)
			continue
		}
		c.byReference = append(c.byReference, s.propose(proposers[s.rand.IntN(len(proposers))], d))
	}
	if w.updates {
		for _, member := range stay[:s.rand.IntN(len(stay)+1)] {
			c.byReference = append(c.byReference, s.update(member))
		}
	}
	s.commit(committer, c)
}

func (s *session) shuffled(names []string) []string {
	names = slices.Clone(names)
	s.rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names
}
