package mlsharness

import (
	pb "github.com/go-xmtp/go-xmtp/interop/mlsharness/gen/mlsclient"
)

// Scenario is a course of events that all implementations have to agree on. After each
// commit all members compare epoch authenticators and an exported secret, and read what
// one of them says.
type Scenario struct {
	// Name is that of the working group's config and of the script in it.
	Name string
	// Actors take part, the one who begins first.
	Actors []string

	play func(*session)
}

var (
	pair  = []string{"alice", "bob"}
	trio  = []string{"alice", "bob", "charlie"}
	five  = []string{"alice", "bob", "charlie", "diana", "eliza"}
	bound = []*pb.Extension{nothingRequired, nobodyFromBeyond}
)

// Scenarios cover all of the working group's configs.
func Scenarios() []Scenario {
	list := []Scenario{
		{Name: "welcome_join/no_path_secret", Actors: pair, play: welcome(commit{})},
		{Name: "welcome_join/with_path_secret", Actors: pair, play: welcome(commit{forcePath: true})},
		{Name: "welcome_join/with_psk", Actors: pair, play: welcomeWithPSK},
		{Name: "welcome_join/with_external_tree", Actors: pair, play: welcome(commit{externalTree: true})},

		{Name: "external_join/normal", Actors: pair, play: func(s *session) {
			s.create("alice")
			s.externalJoin("alice", "bob", entry{})
		}},
		{Name: "external_join/with_psk", Actors: pair, play: func(s *session) {
			s.create("alice")
			s.externalJoin("alice", "bob", entry{psks: []*pb.PreSharedKey{s.psk("alice")}})
		}},
		{Name: "external_join/removing_prior", Actors: pair, play: func(s *session) {
			s.create("alice")
			s.externalJoin("alice", "bob", entry{})
			s.externalJoin("alice", "bob", entry{removePrior: true})
		}},
		{Name: "external_join/with_external_tree", Actors: pair, play: func(s *session) {
			s.create("alice")
			s.externalJoin("alice", "bob", entry{externalTree: true})
		}},
		{Name: "external_join/with_more_members", Actors: five, play: func(s *session) {
			s.create("alice", "bob", "charlie", "diana")
			s.externalJoin("diana", "eliza", entry{})
		}},

		{Name: "application/in_order", Actors: pair, play: func(s *session) {
			s.create("alice", "bob")
			one, two, three := s.protect("alice", "1"), s.protect("alice", "2"), s.protect("alice", "3")
			s.unprotect(one, "bob")
			s.unprotect(two, "bob")
			s.unprotect(three, "bob")
		}},
		{Name: "application/out_of_order_within_epoch", Actors: pair, play: func(s *session) {
			s.create("alice", "bob")
			one, two, three := s.protect("alice", "1"), s.protect("alice", "2"), s.protect("alice", "3")
			s.unprotect(three, "bob")
			s.unprotect(two, "bob")
			s.unprotect(one, "bob")
		}},
		{Name: "application/out_of_order_across_epochs", Actors: pair, play: func(s *session) {
			s.create("alice", "bob")
			one, two := s.protect("alice", "1"), s.protect("alice", "2")
			s.commit("alice", commit{})
			three, four := s.protect("alice", "3"), s.protect("alice", "4")
			s.unprotect(four, "bob")
			s.unprotect(three, "bob")
			s.unprotect(two, "bob")
			s.unprotect(one, "bob")
		}},
	}
	list = append(list, commitScenarios...)
	list = append(list, outsideScenarios...)
	list = append(list, successorScenarios...)
	list = append(list, beyondScenarios...)
	return append(list,
		Scenario{Name: "deep_random/all", Actors: crowd, play: walk{updates: true, entries: true}.play},
		Scenario{Name: "deep_random/adds_and_removes", Actors: crowd, play: walk{}.play},
	)
}

func welcome(c commit) func(*session) {
	return func(s *session) {
		s.create("alice")
		c := c
		c.byReference = [][]byte{s.propose("alice", addOf(s.keyPackage("bob")))}
		c.joiners = []string{"bob"}
		s.commit("alice", c)
	}
}

func welcomeWithPSK(s *session) {
	s.create("alice")
	add := s.propose("alice", addOf(s.keyPackage("bob")))
	psk := s.propose("alice", externalPSKOf(s.psk("alice", "bob")))
	s.commit("alice", commit{byReference: [][]byte{add, psk}, joiners: []string{"bob"}})
}

var commitScenarios = []Scenario{
	{Name: "commit/empty", Actors: pair, play: func(s *session) {
		s.create("alice", "bob")
		s.commit("alice", commit{})
	}},
	{Name: "commit/add", Actors: []string{"alice", "bob", "c1", "c2", "c3", "c4", "c5", "c6"}, play: func(s *session) {
		s.create("alice", "bob")
		for i, joiners := range [][]string{{"c1", "c2", "c3"}, {"c4", "c5", "c6"}} {
			one, two, three := s.keyPackage(joiners[0]), s.keyPackage(joiners[1]), s.keyPackage(joiners[2])
			s.commit("alice", commit{
				byReference: [][]byte{s.propose("alice", addOf(one)), s.propose("bob", addOf(two))},
				byValue:     []*pb.ProposalDescription{addOf(three)},
				joiners:     joiners,
				forcePath:   i == 0,
			})
		}
	}},
	{Name: "commit/remove", Actors: []string{"alice", "bob", "c1", "c2", "c3"}, play: func(s *session) {
		s.create("alice", "bob")
		var adds [][]byte
		for _, joiner := range []string{"c1", "c2", "c3"} {
			adds = append(adds, s.propose("alice", addOf(s.keyPackage(joiner))))
		}
		s.commit("alice", commit{byReference: adds, joiners: []string{"c1", "c2", "c3"}})
		s.commit("alice", commit{
			byReference: [][]byte{s.propose("alice", removeOf("c1")), s.propose("bob", removeOf("c2"))},
			byValue:     []*pb.ProposalDescription{removeOf("c3")},
			leavers:     []string{"c1", "c2", "c3"},
		})
	}},
	{Name: "commit/update", Actors: pair, play: func(s *session) {
		s.create("alice", "bob")
		s.commit("alice", commit{byReference: [][]byte{s.update("bob")}})
	}},
	{Name: "commit/group_context_extensions", Actors: pair, play: func(s *session) {
		s.create("alice", "bob")
		s.commit("alice", commit{byReference: [][]byte{s.propose("alice", extensionsOf(bound...))}})
		s.commit("alice", commit{byReference: [][]byte{s.propose("bob", extensionsOf())}})
		s.commit("alice", commit{byValue: []*pb.ProposalDescription{extensionsOf(nothingRequired)}})
	}},
	{Name: "commit/external_psk", Actors: pair, play: func(s *session) {
		s.create("alice", "bob")
		one, two, three := s.psk("alice", "bob"), s.psk("alice", "bob"), s.psk("alice", "bob")
		for _, path := range []bool{true, false} {
			s.commit("alice", commit{
				byReference: [][]byte{s.propose("alice", externalPSKOf(one)), s.propose("bob", externalPSKOf(two))},
				byValue:     []*pb.ProposalDescription{externalPSKOf(three)},
				forcePath:   path,
			})
		}
	}},
	{Name: "commit/resumption_psk", Actors: pair, play: func(s *session) {
		s.create("alice", "bob")
		s.commit("alice", commit{})
		s.commit("alice", commit{})
		for _, epoch := range []uint64{1, 2} {
			s.commit("alice", commit{
				byReference: [][]byte{s.propose("alice", resumptionPSKOf(epoch)), s.propose("bob", resumptionPSKOf(epoch+1))},
				byValue:     []*pb.ProposalDescription{resumptionPSKOf(epoch + 2)},
				forcePath:   true,
			})
		}
	}},
	{Name: "commit/all_together_alice_proposes", Actors: []string{"alice", "bob", "c1", "c2", "c3", "c4"}, play: allTogether("alice", bound...)},
	{Name: "commit/all_together_bob_proposes", Actors: []string{"alice", "bob", "c1", "c2", "c3", "c4"}, play: allTogether("bob", bound...)},
}

func allTogether(proposer string, extensions ...*pb.Extension) func(*session) {
	return func(s *session) {
		s.create("alice", "bob")
		s.commit("alice", commit{
			byReference: [][]byte{
				s.propose("alice", addOf(s.keyPackage("c1"))),
				s.propose("alice", addOf(s.keyPackage("c2"))),
			},
			joiners: []string{"c1", "c2"},
		})
		one, two := s.psk("alice", "bob"), s.psk("alice", "bob")
		refs := [][]byte{
			s.propose(proposer, removeOf("c1")),
			s.propose(proposer, extensionsOf(extensions...)),
			s.propose(proposer, externalPSKOf(one)),
			s.propose(proposer, resumptionPSKOf(1)),
		}
		if proposer != "alice" { // who commits has no Update of its own
			refs = append(refs, s.update(proposer))
		}
		// The new members don't have the keys that are mixed in: they never come.
		refs = append(refs, s.propose(proposer, addOf(s.keyPackage("c3"))))
		s.commit("alice", commit{
			byReference: refs,
			byValue: []*pb.ProposalDescription{
				addOf(s.keyPackage("c4")), removeOf("c2"), externalPSKOf(two), resumptionPSKOf(2),
			},
			leavers: []string{"c1", "c2"},
		})
	}
}

var outsideScenarios = []Scenario{
	{Name: "external_proposals/joiner_signed_add", Actors: pair, play: func(s *session) {
		s.create("alice")
		add := s.newMemberAdd("alice", "bob")
		s.commit("alice", commit{byReference: [][]byte{add}, joiners: []string{"bob"}})
	}},
	{Name: "external_proposals/external_add", Actors: []string{"alice", "bob", "charlie", "ds"}, play: func(s *session) {
		s.create("alice", "bob")
		s.admitSigner("alice", "ds")
		add := s.proposeFromOutside("ds", 0, "alice", addOf(s.keyPackage("charlie")))
		s.commit("alice", commit{byReference: [][]byte{add}, joiners: []string{"charlie"}})
	}},
	{Name: "external_proposals/external_remove", Actors: []string{"alice", "bob", "charlie", "ds"}, play: func(s *session) {
		s.create("alice", "bob", "charlie")
		s.admitSigner("alice", "ds")
		remove := s.proposeFromOutside("ds", 0, "alice", removeOf("bob"))
		s.commit("alice", commit{byReference: [][]byte{remove}, leavers: []string{"bob"}})
	}},
	{Name: "external_proposals/external_psk", Actors: []string{"alice", "bob", "charlie", "ds"}, play: func(s *session) {
		s.create("alice", "bob", "charlie")
		psk := s.psk(trio...)
		s.admitSigner("alice", "ds")
		s.commit("alice", commit{byReference: [][]byte{s.proposeFromOutside("ds", 0, "alice", externalPSKOf(psk))}})
	}},
	{Name: "external_proposals/resumption_psk", Actors: []string{"alice", "bob", "charlie", "ds"}, play: func(s *session) {
		s.create("alice", "bob", "charlie")
		s.admitSigner("alice", "ds")
		s.commit("alice", commit{byReference: [][]byte{s.proposeFromOutside("ds", 0, "alice", resumptionPSKOf(2))}})
	}},
	{Name: "external_proposals/group_context_extensions", Actors: []string{"alice", "bob", "charlie", "ds"}, play: func(s *session) {
		s.create("alice", "bob", "charlie")
		s.admitSigner("alice", "ds")
		s.commit("alice", commit{byReference: [][]byte{s.proposeFromOutside("ds", 0, "alice", extensionsOf(nothingRequired))}})
	}},
	{Name: "external_proposals/multiple_external", Actors: []string{"alice", "bob", "charlie", "ds1", "ds2"}, play: func(s *session) {
		s.create("alice", "bob", "charlie")
		one, two := s.psk(trio...), s.psk(trio...)
		s.admitSigner("alice", "ds1")
		s.admitSigner("alice", "ds2")
		s.commit("alice", commit{byReference: [][]byte{
			s.proposeFromOutside("ds1", 0, "alice", externalPSKOf(one)),
			s.proposeFromOutside("ds2", 1, "alice", externalPSKOf(two)),
		}})
	}},
	{Name: "external_proposals/external_reinit", Actors: []string{"alice", "bob", "charlie", "ds"}, play: func(s *session) {
		s.create("alice", "bob", "charlie")
		s.admitSigner("alice", "ds")
		next := s.elsewhere()
		d := &pb.ProposalDescription{
			ProposalType: []byte("reinit"), GroupId: next.groupID, CipherSuite: uint32(next.suite),
			Extensions: []*pb.Extension{nothingRequired},
		}
		next.proposal = s.proposeFromOutside("ds", 0, "alice", d)
		next.committer, next.welcomer, next.forcePath = "alice", "bob", true
		s.reinit(next)
	}},
}

// elsewhere is a next group with another id, and another suite if there is one.
func (s *session) elsewhere() reinit {
	r := s.again()
	r.groupID = append(r.groupID, "++"...)
	r.suite = s.otherSuite()
	return r
}

// again is a next group with the same id and suite.
func (s *session) again() reinit {
	return reinit{
		proposer: "alice", committer: "bob", welcomer: "charlie",
		groupID: append([]byte(nil), s.groupID...), suite: s.suite,
	}
}

func reinitialized(change func(*session, *reinit)) func(*session) {
	return func(s *session) {
		s.create(five[0], five[1:]...)
		r := s.again()
		change(s, &r)
		s.reinit(r)
		s.commit("eliza", commit{})
	}
}

func otherID(_ *session, r *reinit) { r.groupID = append(r.groupID, "++"...) }

func branched(b *pb.CreateBranchRequest, others ...string) func(*session) {
	return func(s *session) {
		s.create(five[0], five[1:]...)
		s.branch("alice", others, &pb.CreateBranchRequest{
			Extensions: b.Extensions, ForcePath: b.ForcePath, ExternalTree: b.ExternalTree,
		}, len(others) == len(five)-1)
		s.commit("bob", commit{})
	}
}

var successorScenarios = []Scenario{
	{Name: "reinit/change_ciphersuite", Actors: five, play: reinitialized(func(s *session, r *reinit) { r.suite = s.otherSuite() })},
	{Name: "reinit/change_group_id", Actors: five, play: reinitialized(otherID)},
	{Name: "reinit/change_extensions", Actors: five, play: reinitialized(func(_ *session, r *reinit) { r.extensions = bound })},
	{Name: "reinit/all_same_actor", Actors: five, play: reinitialized(func(s *session, r *reinit) {
		otherID(s, r)
		r.proposer, r.committer, r.welcomer = "alice", "alice", "alice"
	})},
	{Name: "reinit/external_tree", Actors: five, play: reinitialized(func(s *session, r *reinit) {
		otherID(s, r)
		r.externalTree = true
	})},
	{Name: "reinit/force_path", Actors: five, play: reinitialized(func(s *session, r *reinit) {
		otherID(s, r)
		r.forcePath = true
	})},
	{Name: "branch/base", Actors: five, play: branched(&pb.CreateBranchRequest{}, five[1:]...)},
	{Name: "branch/with_extensions", Actors: five, play: branched(&pb.CreateBranchRequest{Extensions: bound}, five[1:]...)},
	{Name: "branch/external_tree", Actors: five, play: branched(&pb.CreateBranchRequest{ExternalTree: true}, five[1:]...)},
	{Name: "branch/force_path", Actors: five, play: branched(&pb.CreateBranchRequest{ForcePath: true}, five[1:]...)},
}

// beyondScenarios are not the working group's.
var beyondScenarios = []Scenario{
	// Some stay behind, and the first group goes on.
	{Name: "beyond/some_branch_off", Actors: five, play: branched(&pb.CreateBranchRequest{}, "bob", "diana")},
	// What an implementation can do that has no external senders.
	{Name: "beyond/required_capabilities", Actors: pair, play: func(s *session) {
		s.create("alice", "bob")
		s.commit("alice", commit{byReference: [][]byte{s.propose("bob", extensionsOf(nothingRequired))}})
	}},
	{Name: "beyond/no_extensions", Actors: pair, play: func(s *session) {
		s.create("alice", "bob")
		s.commit("alice", commit{byValue: []*pb.ProposalDescription{extensionsOf(nothingRequired)}})
		s.commit("alice", commit{byValue: []*pb.ProposalDescription{extensionsOf()}})
	}},
	{Name: "beyond/all_together", Actors: []string{"alice", "bob", "c1", "c2", "c3", "c4"}, play: allTogether("alice", nothingRequired)},
	// Everybody commits in turn, and who has joined last joins again from outside.
	{Name: "beyond/everybody", Actors: five, play: func(s *session) {
		s.create(five[0], five[1:4]...)
		for _, member := range five[:4] {
			s.commit(member, commit{})
		}
		s.externalJoin("bob", "eliza", entry{})
		s.externalJoin("diana", "eliza", entry{removePrior: true, externalTree: true})
		s.commit("eliza", commit{byValue: []*pb.ProposalDescription{removeOf("charlie")}, leavers: []string{"charlie"}})
	}},
}
