package differential

import (
	"bytes"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls"
)

// step lets a member do something that is valid, and has all messages of it, and what the
// forger makes of them, judged by a twin before the others get them.
func (s *scene) step(mutants int) {
	s.t.Helper()
	switch n := s.rng.IntN(10); {
	case n < 2:
		s.talk(mutants)
	case n < 3 && len(s.members) < 12:
		s.comeByThemselves(mutants)
	default:
		if s.rng.IntN(2) == 0 {
			s.suggest(mutants)
		}
		s.decide(mutants)
	}
}

// check has a valid message judged by a twin, and damaged ones, and delivers it.
func (s *scene) check(what string, from *member, data []byte, mutants int) {
	s.t.Helper()
	if m := s.twin(); m != nil {
		if s.reused(m) {
			what += " that gives a removed member's leaf away"
		}
		trials := []trial{{what + ": valid", data}}
		trials = append(trials, s.mutants(what, m, data, mutants)...)
		s.try(m, trials)
	}
	s.judge.follow()
	s.deliver(from, data)
}

// try has both halves of a twin judge messages.
func (s *scene) try(m *member, trials []trial) {
	s.t.Helper()
	messages := make([][]byte, len(trials))
	for i, tr := range trials {
		messages[i] = tr.data
	}
	results := s.agent.many(s.ask(request{Op: "try", On: m.theirs, Messages: messages}))
	for i, tr := range trials {
		name := s.judge.compare(tr, ours(m, tr.data), theirs(results[i]))
		if s.judge.wants(name, tr.data) {
			s.judge.keep(name, s.record(m, tr, ours(m, tr.data), theirs(results[i])))
		}
	}
}

// talk sends application messages, one of them late.
func (s *scene) talk(mutants int) {
	from := s.some(mayAct)
	var late []byte
	for i := range 3 {
		text := random(s.rng.IntN(80))
		var data []byte
		if from.ours {
			p, err := from.group.Encrypt(text, random(s.rng.IntN(5)))
			data = done(s.t, from, p, err)
		} else {
			data = s.agent.must(s.ask(request{Op: "encrypt", On: from.theirs, Message: text, AuthenticatedData: random(s.rng.IntN(5))})).Message
		}
		if i == 1 {
			late = data
			continue
		}
		s.check("application", from, data, mutants/2)
	}
	s.check("application", from, late, 0)
}

// add proposes a newcomer.
func (s *scene) add(kind int) (*member, mls.Proposal) {
	m := s.newcomer(kind)
	return m, mls.Add{KeyPackage: s.parsed(m.person)}
}

// suggestions are proposals that a member can make at any time.
func (s *scene) suggestions(by *member) (list []mls.Proposal, newcomers []*member) {
	removed := map[*member]bool{by: true}
	extensions := false
	for range 1 + s.rng.IntN(3) {
		switch s.rng.IntN(6) {
		case 0, 1:
			if len(s.members)+len(newcomers) < 14 {
				m, p := s.add(s.rng.IntN(3))
				list, newcomers = append(list, p), append(newcomers, m)
			}
		case 2, 3:
			m := s.some(func(m *member) bool { return !removed[m] })
			if m != nil && len(s.members) > 4 && s.enoughWithout(m, removed) {
				removed[m] = true
				list = append(list, mls.Remove{Leaf: mls.LeafIndex(m.index)})
			}
		case 4:
			id := []string{"first", "second"}[s.rng.IntN(2)]
			list = append(list, mls.PreSharedKey{ID: mls.PreSharedKeyID{Type: mls.PSKExternal, ID: []byte(id), Nonce: random(schemes[s.suite].size())}})
		case 5:
			// ts-mls makes commits of extensions that nobody can follow: see known_test.go.
			if by.ours && !extensions {
				extensions = true
				list = append(list, mls.GroupContextExtensions{Extensions: []mls.Extension{{Type: knownExtension, Data: random(3)}}})
			}
		}
	}
	return list, newcomers
}

// enoughWithout tells whether the scene can go on without m: a twin, one of ours and one
// of theirs have to stay.
func (s *scene) enoughWithout(m *member, removed map[*member]bool) bool {
	for _, kind := range []func(*member) bool{(*member).twin, isOurs, isTheirs} {
		if s.some(func(o *member) bool { return o != m && !removed[o] && kind(o) }) == nil {
			return false
		}
	}
	return true
}

// emptiesLeft tells whether the left half of the tree is blank once proposals have removed
// whom they remove, those that wait too. From then on the two implementations can't follow
// each other: see endsBelowRoot.
func (s *scene) emptiesLeft(list ...mls.Proposal) bool {
	goes := map[uint32]bool{}
	for _, l := range s.pending {
		if l.proposal.Type == typeRemove {
			goes[l.proposal.Remove] = true
		}
	}
	for _, p := range list {
		if r, ok := p.(mls.Remove); ok {
			goes[uint32(r.Leaf)] = true
		}
	}
	first, last := uint32(math.MaxUint32), uint32(0)
	for _, m := range s.members {
		if !goes[m.index] {
			first, last = min(first, m.index), max(last, m.index)
		}
	}
	return bits.Len32(first) == bits.Len32(last)
}

// encodeProposal is p as ts-mls and the forger read it.
func (s *scene) encodeProposal(p mls.Proposal) (out proposal) {
	out.Type = uint16(p.ProposalType())
	switch p := p.(type) {
	case mls.Add:
		b, _ := p.KeyPackage.MarshalBinary()
		if err := unmarshal(b, &out.Add); err != nil {
			s.t.Fatal(err)
		}
	case mls.Remove:
		out.Remove = uint32(p.Leaf)
	case mls.PreSharedKey:
		out.PSK = pskID{Type: 1, ID: p.ID.ID, Nonce: p.ID.Nonce}
	case mls.GroupContextExtensions:
		for _, e := range p.Extensions {
			out.Extensions = append(out.Extensions, extension{uint16(e.Type), e.Data})
		}
	default:
		s.t.Fatalf("no encoding of %T", p)
	}
	return out
}

// suggest sends proposals, which the next commit takes up.
func (s *scene) suggest(mutants int) {
	by := s.some(mayAct)
	if by.ours && s.rng.IntN(3) == 0 {
		p, err := by.group.ProposeUpdate(nil, nil)
		s.remember(by, done(s.t, by, p, err), mutants)
		return
	}
	list, _ := s.suggestions(by)
	for _, p := range list[:min(1, len(list))] {
		if _, ok := p.(mls.GroupContextExtensions); ok {
			continue
		}
		if _, ok := p.(mls.Add); ok { // who is to be let in then is not known to the committer
			continue
		}
		if _, ok := p.(mls.Remove); ok && s.emptiesLeft(p) {
			continue
		}
		if by.ours {
			pending, err := by.group.Propose(p, nil)
			s.remember(by, done(s.t, by, pending, err), mutants)
		} else {
			out := s.agent.must(s.ask(request{Op: "propose", On: by.theirs, Message: marshal(s.encodeProposal(p)), Public: s.public}))
			s.remember(by, out.Message, mutants)
		}
	}
}

// remember delivers a proposal and notes it with its reference.
func (s *scene) remember(by *member, data []byte, mutants int) {
	var m message
	if err := unmarshal(data, &m); err != nil {
		s.t.Fatal(err)
	}
	c, signature := m.Public.Content, m.Public.Signature
	twin := s.twin()
	e := s.epoch(twin)
	if m.Format == formatPrivate {
		o := s.open(twin, data, &m.Private)
		c, signature = e.contentOf(&m.Private, o.from.Leaf, &o.plain), o.plain.Signature
	}
	ref := string(e.proposalRef(m.Format, c, signature))
	s.check("proposal", by, data, mutants/4)
	s.pending[ref] = listed{c.Proposal, c.SenderIndex}
	s.refs = append(s.refs, ref)
}

// forget drops the proposals that waited for a commit.
func (s *scene) forget() {
	clear(s.pending)
	s.refs = nil
}

// concerned tells what the proposals that wait do to a member.
func (s *scene) concerned(m *member) bool {
	for _, p := range s.pending {
		if p.proposal.Type == typeRemove && p.proposal.Remove == m.index || p.proposal.Type == typeUpdate && p.by == m.index {
			return true
		}
	}
	return false
}

// decide makes a commit. Its committer is somebody whom no waiting proposal concerns.
func (s *scene) decide(mutants int) {
	by := s.some(func(m *member) bool { return mayAct(m) && !s.concerned(m) })
	if by == nil {
		return
	}
	list, newcomers := s.suggestions(by)
	list = slices.DeleteFunc(list, func(p mls.Proposal) bool {
		r, ok := p.(mls.Remove)
		return ok && slices.ContainsFunc(s.members, func(m *member) bool { return m.leafIndex() == r.Leaf && s.concerned(m) })
	})
	if s.emptiesLeft(list...) {
		list = slices.DeleteFunc(list, func(p mls.Proposal) bool { return p.ProposalType() == typeRemove })
	}
	s.commit(by, list, newcomers, mutants)
}

func (s *scene) commit(by *member, list []mls.Proposal, newcomers []*member, mutants int) {
	s.t.Helper()
	inside := s.rng.IntN(2) == 0
	var data, welcome, tree []byte
	what := "commit of theirs"
	if by.ours {
		what = "commit of ours"
		p, err := by.group.Commit(mls.CommitOptions{Proposals: list, ExternalTree: !inside, AuthenticatedData: random(s.rng.IntN(4))})
		out := done(s.t, by, p, err)
		data, welcome, tree = out.Message, out.Welcome, out.RatchetTree
	} else {
		r := s.ask(request{Op: "commit", On: by.theirs, Public: s.public, TreeInside: inside})
		for _, p := range list {
			r.Messages = append(r.Messages, marshal(s.encodeProposal(p)))
		}
		out := s.agent.must(r)
		data, welcome = out.Message, out.Welcome
		if !inside {
			tree = out.Tree
		}
	}
	if m := s.twin(); m != nil {
		s.forge(m, by, mutants)
	}
	s.leaving, s.joining = map[uint32]bool{}, len(newcomers)
	for _, p := range list {
		if r, ok := p.(mls.Remove); ok {
			s.leaving[uint32(r.Leaf)] = true
		}
	}
	for _, l := range s.pending {
		if l.proposal.Type == typeRemove {
			s.leaving[l.proposal.Remove] = true
		}
	}
	s.check(what, by, data, mutants/3)
	s.leaving = nil
	if by.ours {
		p, err := by.group.MergeOwnCommit()
		done(s.t, by, p, err)
	}
	s.forget()
	if len(newcomers) > 0 {
		s.tryWelcome(newcomers[0], welcome, tree, mutants/8)
		s.admit(welcome, tree, newcomers)
	}
}

// comeByThemselves has somebody join by an external commit.
func (s *scene) comeByThemselves(mutants int) {
	by := s.some(mayAct)
	var info []byte
	if by.ours {
		var err error
		if info, err = by.group.GroupInfo(mls.GroupInfoOptions{}); err != nil {
			s.t.Fatal(err)
		}
	} else {
		var out result
		s.agent.do(s.ask(request{Op: "groupInfo", On: by.theirs}), &out)
		info = out.Message
	}
	m := s.newcomer(s.rng.IntN(2))
	s.tryGroupInfo(m, info, mutants/4)
	var decoded message
	if err := unmarshal(info, &decoded); err != nil {
		s.t.Fatal(err)
	}
	e := s.epoch(s.twin())
	var data []byte
	if !m.ours {
		r := s.joinRequest("external", m.person)
		r.As, r.Message = m.name, marshal(s.translate(e, decoded, false))
		switch out := s.agent.one(r); {
		case out.OK:
			data, m.index = out.Message, out.LeafIndex
		case unmergedDiffers.MatchString(out.Error):
			s.judge.meet(unmergedLeaves)
			m.ours, m.theirs = true, ""
		default:
			s.t.Fatalf("%s can't join in ts-mls: %s", m.name, out.Error)
		}
	}
	if m.ours {
		p, err := mls.JoinExternal(marshal(s.translate(e, decoded, true)), m.client, mls.ExternalJoinOptions{}, s.config)
		out := done(s.t, m, p, err)
		data, m.group = out.Message, out.Group
		m.index = uint32(m.group.OwnLeaf())
	}
	s.check("external commit", m, data, mutants/2)
	s.forget()
	s.members = append(s.members, m)
}

// tryWelcome has both judge damaged Welcomes.
func (s *scene) tryWelcome(m *member, welcome, tree []byte, mutants int) {
	var decoded message
	if err := unmarshal(welcome, &decoded); err != nil {
		s.t.Fatal(err)
	}
	trials := []trial{{"welcome: valid", welcome}}
	for range mutants {
		trials = append(trials, s.blind("welcome", welcome, decoded))
	}
	r := s.joinRequest("tryJoin", m.person)
	r.Tree = tree
	for _, tr := range trials {
		r.Messages = append(r.Messages, tr.data)
	}
	results := s.agent.many(r)
	for i, tr := range trials {
		var v verdict
		if p, err := s.joinOurs(m.person, tr.data, tree); err != nil {
			v = refusal(err)
		} else {
			g := p.Result().Group
			v = verdict{ok: true, kind: "commit", epoch: g.Epoch(), authenticator: g.EpochAuthenticator()}
			p.Discard()
		}
		other := theirs(results[i])
		if other.ok {
			other.kind = "commit"
		}
		s.judge.compare(tr, v, other)
	}
}

// tryGroupInfo has both judge damaged and forged GroupInfos, each in its own encoding of
// the external_pub extension: see [scene.translate].
func (s *scene) tryGroupInfo(m *member, info []byte, mutants int) {
	var decoded message
	if err := unmarshal(info, &decoded); err != nil {
		s.t.Fatal(err)
	}
	e := s.epoch(s.twin())
	trials := []trial{{"group info: valid", nil}}
	list := []message{decoded}
	for range mutants {
		if changed, how, ok := s.forgeGroupInfo(e, decoded); ok {
			trials, list = append(trials, trial{how, nil}), append(list, changed)
		}
	}
	r := s.joinRequest("tryExternal", m.person)
	for i, g := range list {
		trials[i].data = marshal(s.translate(e, g, true))
		r.Messages = append(r.Messages, marshal(s.translate(e, g, false)))
	}
	for range mutants / 2 {
		seed := s.rng.Uint64()
		var pair [2]trial
		same := false
		for j, way := range []bool{true, false} {
			s.rng = rand.New(rand.NewPCG(seed, 0))
			g := s.translate(e, decoded, way)
			data := marshal(g)
			pair[j] = s.blind("group info", data, g)
			same = same || bytes.Equal(pair[j].data, data)
		}
		if !same && !endless(pair[1].data) {
			trials, r.Messages = append(trials, pair[0]), append(r.Messages, pair[1].data)
		}
	}
	results := s.agent.many(r)
	for i, tr := range trials {
		var v verdict
		if p, err := mls.JoinExternal(tr.data, m.client, mls.ExternalJoinOptions{}, s.config); err != nil {
			v = refusal(err)
		} else {
			v = verdict{ok: true, kind: "joined", epoch: p.Result().Group.Epoch()}
			p.Discard()
		}
		other := theirs(results[i])
		if other.ok {
			other.kind = "joined"
		}
		s.judge.compare(tr, v, other)
	}
}

// translate encodes the external_pub extension of a GroupInfo as §12.4.3.2 says, an
// HPKEPublicKey with its length, or as ts-mls does, the bare key, and signs it for the
// member who signed it before, if that one's signature was good.
func (s *scene) translate(e *epoch, m message, asInRFC bool) message {
	m = duplicate(m)
	info := &m.GroupInfo
	by, good := e.signerAt(info.Signer)
	good = good && verifies(e.tree[nodeOf(int(info.Signer))].Leaf.SignatureKey, info, s.suite)
	for i, x := range info.Extensions {
		if x.Type != extensionExternalPub {
			continue
		}
		var key []byte
		wrapped := unmarshal(x.Data, &key) == nil && len(key) > 0
		switch {
		case asInRFC && !wrapped:
			info.Extensions[i].Data = marshal(x.Data)
		case !asInRFC && wrapped:
			info.Extensions[i].Data = key
		}
	}
	if good {
		signGroupInfo(info, by)
	}
	return m
}

// blind damages an encoded message without regard to what signs it.
func (s *scene) blind(what string, data []byte, decoded message) trial {
	switch s.rng.IntN(4) {
	case 0:
		out, how := damage(s.rng, data)
		return trial{what + ": " + how, out}
	case 1:
		if out, how := spoil(s.rng, decoded); how != "" {
			return trial{what + ": " + how, out}
		}
	}
	for {
		m := duplicate(decoded)
		if how := mutate(s.rng, &m, nil, nil); how != "" {
			return trial{what + ": " + how, marshal(m)}
		}
	}
}
