package differential

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/go-xmtp/go-xmtp/mls"
)

// mutants makes damaged copies of a group message: blindly, and as a member would who
// signs and tags what it has changed.
func (s *scene) mutants(what string, m *member, data []byte, n int) (list []trial) {
	var decoded message
	if err := unmarshal(data, &decoded); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	e := s.epoch(m)
	d := s.donors(e)
	for range n {
		tr, ok := trial{}, false
		switch {
		case s.rng.IntN(3) == 0:
		case decoded.Format == formatPublic:
			tr, ok = s.resign(what, e, d, decoded, m.index)
		}
		if !ok {
			tr = s.blind(what, data, decoded)
		}
		if !bytes.Equal(tr.data, data) {
			list = append(list, tr)
		}
	}
	if decoded.Format == formatPrivate {
		list = append(list, s.reseal(what, e, d, m, data, &decoded.Private, n)...)
	}
	return list
}

func (s *scene) donors(e *epoch) donors {
	d := donors{}
	for _, n := range e.tree {
		if n != nil {
			d.collect(*n)
		}
	}
	d.collect(e.context)
	for _, ref := range s.refs {
		d["Ref"] = append(d["Ref"], []byte(ref))
	}
	for _, m := range s.gone {
		d["SignatureKey"] = append(d["SignatureKey"], m.signer.Public())
	}
	return d
}

// signerOr is the one who has a public key, else whoever signs.
func (e *epoch) signerOr(public []byte, otherwise mls.Signer) mls.Signer {
	if by, ok := e.signers[string(public)]; ok {
		return by
	}
	return otherwise
}

// resignProposal signs what is inside a proposal again, but for the signature that how
// tells was changed.
func (e *epoch) resignProposal(p *proposal, by uint32, how string) {
	any := e.anybody()
	switch p.Type {
	case typeAdd:
		if !strings.Contains(how, "Leaf.Signature ") {
			signLeaf(&p.Add.Leaf, e.signerOr(p.Add.Leaf.SignatureKey, any), e.context.GroupID, 0)
		}
		if !strings.Contains(how, "Add.Signature ") {
			signKeyPackage(&p.Add, e.signerOr(p.Add.Leaf.SignatureKey, any))
		}
	case typeUpdate:
		if !strings.Contains(how, "Update.Signature ") {
			signLeaf(&p.Update, e.signerOr(p.Update.SignatureKey, any), e.context.GroupID, by)
		}
	}
}

func (e *epoch) anybody() mls.Signer {
	for _, n := range e.tree {
		if n != nil && n.Type == 1 {
			return e.signers[string(n.Leaf.SignatureKey)]
		}
	}
	return nil
}

// resign changes a PublicMessage and signs and tags it again. The confirmation tag of a
// commit stays: what fits to a changed commit is made by forge.
func (s *scene) resign(what string, e *epoch, d donors, decoded message, judge uint32) (trial, bool) {
	m := duplicate(decoded)
	how := mutate(s.rng, &m, d, nil)
	c := &m.Public.Content
	if how == "" || m.Format != formatPublic || e.cutsOff(c.Commit.Proposals, judge) {
		return trial{}, false
	}
	// Who signs is who really did, whatever the message says now.
	var by mls.Signer
	switch old := decoded.Public.Content; old.SenderType {
	case senderMember:
		by = e.signerOf(old.SenderIndex)
	case senderJoining:
		by = e.signers[string(old.Commit.Path.Leaf.SignatureKey)]
	}
	// Half of the time as the one whom it says now.
	if x := nodeOf(int(c.SenderIndex)); c.SenderType == senderMember && s.rng.IntN(2) == 0 && x < len(e.tree) && e.tree[x] != nil {
		by = e.signerOf(c.SenderIndex)
	}
	if c.ContentType == contentProposal {
		e.resignProposal(&c.Proposal, c.SenderIndex, how)
	}
	if c.ContentType == contentCommit {
		for i := range c.Commit.Proposals {
			e.resignProposal(&c.Commit.Proposals[i].Proposal, c.SenderIndex, how)
		}
	}
	if !strings.HasPrefix(how, "Public.Signature ") {
		m.Public.Signature = sign(by, "FramedContentTBS", contentTBS(formatPublic, c, e.raw))
	}
	if !strings.HasPrefix(how, "Public.MembershipTag ") {
		e.tag(&m.Public)
	}
	return trial{what + ", signed: " + how, marshal(m)}, true
}

// reseal changes what a PrivateMessage encrypts and who it says it is from.
func (s *scene) reseal(what string, e *epoch, d donors, m *member, data []byte, sent *privateMessage, n int) (list []trial) {
	o := s.open(m, data, sent)
	if sent.Epoch != e.context.Epoch {
		return nil
	}
	resigned := func(p *privateContent) {
		c := e.contentOf(sent, o.from.Leaf, p)
		p.Signature = sign(e.signerOf(o.from.Leaf), "FramedContentTBS", contentTBS(formatPrivate, &c, e.raw))
	}
	var names []string
	var plains [][]byte
	for range n {
		p := duplicate(o.plain)
		how := ""
		b := marshal(p)
		switch s.rng.IntN(5) {
		case 0:
			how = "padding not zero"
			b = append(b, make([]byte, s.rng.IntN(20))...)
			b = append(b, 1)
		case 1:
			how = "padding zero"
			b = append(b, make([]byte, s.rng.IntN(300))...)
		case 2:
			if b, how = spoil(s.rng, p); how == "" {
				continue
			}
		case 3:
			if how = mutate(s.rng, &p, d, nil); how == "" {
				continue
			}
			b = marshal(p)
		case 4:
			if how = mutate(s.rng, &p, d, nil); how == "" || e.cutsOff(p.Commit.Proposals, m.index) {
				continue
			}
			if p.ContentType == contentProposal {
				e.resignProposal(&p.Proposal, o.from.Leaf, how)
			}
			if !strings.HasPrefix(how, "Signature ") {
				resigned(&p)
				how = "signed: " + how
			}
			b = marshal(p)
		}
		names, plains = append(names, what+", sealed: "+how), append(plains, b)
	}
	if len(plains) == 0 {
		return nil
	}
	var sealed result
	s.agent.do(s.ask(request{Op: "seal", On: m.theirs, Message: data, Messages: plains}), &sealed)
	for i, b := range sealed.Messages {
		list = append(list, trial{names[i], b})
	}
	for _, claim := range []struct {
		name string
		from sender
	}{
		{"another's leaf", sender{s.members[s.rng.IntN(len(s.members))].index, o.from.Generation}},
		{"a leaf beyond", sender{uint32(len(e.tree)), o.from.Generation}},
		{"a leaf far beyond", sender{1 << 31, o.from.Generation}},
		{"generation + 1", sender{o.from.Leaf, o.from.Generation + 1}},
		{"generation too far", sender{o.from.Leaf, o.from.Generation + 2000}},
		{"generation far beyond", sender{o.from.Leaf, 1<<32 - 1}},
	} {
		name, from := claim.name, claim.from
		if from == o.from {
			continue
		}
		s.agent.do(s.ask(request{Op: "seal", On: m.theirs, Message: data, Messages: [][]byte{o.text}, Sender: &from}), &sealed)
		list = append(list, trial{what + ", sender data: " + name, sealed.Messages[0]})
	}
	return list
}

// private chooses how something forged is sent; where handshakes are public, it is public.
func (s *scene) private() bool { return !s.public && s.rng.IntN(4) > 0 }

// forge has a twin judge commits of a malicious member, made in by's name: each is right
// in every respect but for one change.
func (s *scene) forge(m, by *member, n int) {
	e := s.epoch(m)
	d := s.donors(e)
	s.judged = m.index
	var trials []trial
	for range n {
		if tr, ok := s.forgeCommit(e, d, by); ok {
			trials = append(trials, tr)
		}
	}
	for range n / 6 {
		if tr, ok := s.forgeProposal(e, d, by); ok {
			trials = append(trials, tr)
		}
	}
	s.try(m, trials)
}

// honest proposals for the forger to start from.
func (s *scene) honest(e *epoch, by uint32) (list []proposalOrRef) {
	for range s.rng.IntN(4) {
		p, _ := s.menu(e, by, s.rng.IntN(honestMenu))
		if p.Type == typeRemove && slices.ContainsFunc(list, func(q proposalOrRef) bool {
			return q.Proposal.Type == typeRemove && q.Proposal.Remove == p.Remove
		}) || p.Type == typeExtensions && slices.ContainsFunc(list, func(q proposalOrRef) bool { return q.Proposal.Type == typeExtensions }) {
			continue
		}
		list = append(list, byValue(p)...)
	}
	return list
}

// somebody is the leaf of a member other than by.
func (s *scene) somebody(e *epoch, by uint32) uint32 {
	for {
		x := 2 * s.rng.IntN(len(e.tree)/2+1)
		if e.tree[x] != nil && uint32(x/2) != by {
			return uint32(x / 2)
		}
	}
}

// stranger is a key package of somebody new.
func (s *scene) stranger() (kp keyPackage) {
	if err := unmarshal(s.person(false).keyPackage, &kp); err != nil {
		s.t.Fatal(err)
	}
	return kp
}

// The proposals of menu: up to honestMenu those that are valid by themselves.
const (
	honestMenu = 4
	wholeMenu  = 23
)

// menu is a proposal that may or may not be valid, and what it is called.
func (s *scene) menu(e *epoch, by uint32, which int) (p proposal, name string) {
	gce := func(list ...extension) proposal { return proposal{Type: typeExtensions, Extensions: list} }
	needs := func(r required) proposal { return gce(extension{extensionRequired, marshal(r)}) }
	pskOf := func(id string, nonce int) proposal {
		return proposal{Type: typePSK, PSK: pskID{Type: 1, ID: []byte(id), Nonce: random(nonce)}}
	}
	resumption := func(usage uint8) proposal {
		return proposal{Type: typePSK, PSK: pskID{Type: 2, Usage: usage, GroupID: e.context.GroupID, Epoch: e.context.Epoch, Nonce: random(e.size())}}
	}
	add := func(change func(*keyPackage)) proposal {
		p := proposal{Type: typeAdd, Add: s.stranger()}
		change(&p.Add)
		e.resignProposal(&p, by, "")
		return p
	}
	switch which {
	case 0:
		return proposal{Type: typeAdd, Add: s.stranger()}, "add"
	case 1:
		return proposal{Type: typeRemove, Remove: s.somebody(e, by)}, "remove"
	case 2:
		return pskOf("first", e.size()), "psk"
	case 3:
		return gce(extension{knownExtension, random(2)}), "extensions"
	case 4:
		return proposal{Type: typeRemove, Remove: by}, "remove of the committer"
	case 5:
		return proposal{Type: typeRemove, Remove: uint32(len(e.tree))}, "remove beyond the tree"
	case 6:
		leaf := duplicate(e.tree[nodeOf(int(by))].Leaf)
		leaf.Source, leaf.EncryptionKey = fromUpdate, s.stranger().InitKey
		p := proposal{Type: typeUpdate, Update: leaf}
		e.resignProposal(&p, by, "")
		return p, "update by the committer"
	case 7:
		return proposal{Type: typeExternalInit, ExternalInit: random(32)}, "external init"
	case 8:
		return proposal{Type: typeReInit, ReInit: reInit{random(8), 1, e.id, nil}}, "reinit"
	case 9:
		return proposal{Type: typeReInit, ReInit: reInit{random(8), 0, e.id, nil}}, "reinit to version 0"
	case 10:
		return proposal{Type: knownProposal, Custom: random(3)}, "custom that all list"
	case 11:
		return proposal{Type: 0xf0f0, Custom: random(3)}, "custom that nobody lists"
	case 12:
		return pskOf("unknown", e.size()), "unknown psk"
	case 13:
		return pskOf("first", e.size()-1), "psk with a short nonce"
	case 14:
		return resumption(1), "resumption psk"
	case 15:
		return resumption(3), "resumption psk of a branch"
	case 16:
		return needs(required{Extensions: []uint16{knownExtension}, Credentials: []uint16{1}}), "requirements that all meet"
	case 17:
		return needs(required{Extensions: []uint16{0xf0f0}}), "required extension that nobody has"
	case 18:
		return needs(required{Proposals: []uint16{0xf0f0}}), "required proposal that nobody has"
	case 19:
		return gce(extension{0xf0f0, nil}), "extension that nobody lists"
	case 20:
		return gce(), "no extensions"
	case 21:
		other := e.tree[nodeOf(int(s.somebody(e, by)))].Leaf
		return add(func(kp *keyPackage) { kp.Leaf.SignatureKey = other.SignatureKey }), "add of a member"
	default:
		return add(func(kp *keyPackage) { kp.Leaf.NotAfter = 1 }), "add of an expired key package"
	}
}

// inProposals are the paths of a commit that the forger changes before it makes the rest.
var inProposals = regexp.MustCompile(`^Proposals`)

// forgeCommit makes one commit that is wrong, or right in an unusual way.
func (s *scene) forgeCommit(e *epoch, d donors, by *member) (trial, bool) {
	p := plan{by: by.index}
	joins := s.public && s.rng.IntN(5) == 0
	what := "forged commit"
	if joins {
		what = "forged external commit"
		kp := s.stranger()
		p.joining = &kp.Leaf
		p.proposals = byValue(proposal{Type: typeExternalInit})
		if s.rng.IntN(3) == 0 {
			psk, _ := s.menu(e, by.index, 2)
			p.proposals = append(p.proposals, byValue(psk)...)
		}
	} else {
		if p.private = s.private(); p.private {
			what = "forged private commit"
		}
		p.proposals = s.honest(e, by.index)
		for _, ref := range s.refs {
			if l := s.pending[ref]; l.by != by.index && !(l.proposal.Type == typeRemove && l.proposal.Remove == by.index) {
				p.proposals = append(p.proposals, proposalOrRef{Type: 2, Ref: []byte(ref)})
			}
		}
	}
	how := ""
	switch s.rng.IntN(10) {
	case 0:
		how = "valid"
	case 1, 2, 3:
		q, name := s.menu(e, by.index, s.rng.IntN(wholeMenu))
		i := s.rng.IntN(len(p.proposals) + 1)
		how = "with " + name
		if len(p.proposals) == 0 {
			how += " alone"
		}
		p.proposals = slices.Insert(p.proposals, i, byValue(q)...)
	case 4, 5:
		c := commit{Proposals: duplicate(p.proposals)}
		if how = mutate(s.rng, &c, d, inProposals); how == "" {
			return trial{}, false
		}
		for i := range c.Proposals {
			e.resignProposal(&c.Proposals[i].Proposal, by.index, how)
		}
		p.proposals = c.Proposals
	case 6:
		p.leaf = func(leaf *leafNode) {
			if how = mutate(s.rng, leaf, d, nil); how != "" {
				how = "Path.Leaf." + how
			}
		}
	case 7:
		p.nodes = func(nodes []pathNode) {
			if len(nodes) > 0 {
				i := s.rng.IntN(len(nodes))
				if how = changeBytes(s.rng, site{"EncryptionKey", reflect.ValueOf(&nodes[i].EncryptionKey).Elem()}, d); how != "" {
					how = "path key " + how
				}
			}
		}
	case 8:
		p.path = func(path *updatePath) {
			if how = mutate(s.rng, path, d, regexp.MustCompile(`^Nodes|Signature$`)); how != "" {
				how = "Path." + how
			}
		}
	case 9:
		switch s.rng.IntN(5) {
		case 0:
			p.noPath, how = true, "without path"
		case 1:
			p.content = func(c *framedContent) {
				how = mutate(s.rng, c, d, regexp.MustCompile(`^(GroupID|Epoch|SenderType|SenderIndex|AuthenticatedData)$`))
			}
		case 2:
			p.contexts = func(c *groupContext) { how = "context " + mutate(s.rng, c, d, nil) }
		case 3:
			p.secrets = func(b *[]byte) { (*b)[0] ^= 1; how = "commit secret" }
		case 4:
			p.sent = func(m *publicMessage) {
				if how = mutate(s.rng, m, d, regexp.MustCompile(`Tag$`)); strings.HasPrefix(how, "Confirmation") {
					e.tag(m)
				}
			}
		}
	}
	if e.cutsOff(p.proposals, s.judged) {
		return trial{}, false
	}
	f, err := e.commit(p)
	if err != nil || how == "" || strings.HasSuffix(how, "context ") {
		return trial{}, false
	}
	if e.reuses(p.proposals, s.judged, joins) {
		what += " that gives a removed member's leaf away"
	}
	if f.belowRoot {
		what += endsBelowRoot
	}
	return trial{fmt.Sprintf("%s: %s", what, s.kinds(p.proposals, how)), f.message}, true
}

// cutsOff tells whether ts-mls would not end with a commit, since it looks for the way to
// the root from beyond the tree. It takes what has an ExternalInit for an external commit,
// whoever sends it, doesn't check whom such a one removes, and doesn't see that it is itself.
func (e *epoch) cutsOff(list []proposalOrRef, judge uint32) bool {
	external, off := false, false
	t := e.tree.clone()
	for _, q := range list {
		p := e.resolve(q)
		external = external || p.Type == typeExternalInit
		if p.Type != typeRemove {
			continue
		}
		if x := nodeOf(int(p.Remove)); x < len(t) {
			t = t.remove(x)
		} else {
			off = true
		}
	}
	return external && (off || nodeOf(int(judge)) >= len(t))
}

// resolve is the proposal that a commit has by value or by reference.
func (e *epoch) resolve(q proposalOrRef) proposal {
	if q.Type == 1 {
		return q.Proposal
	}
	return e.pending[string(q.Ref)].proposal
}

// reuses tells whether a commit removes the member at leaf and lets others in.
func (e *epoch) reuses(list []proposalOrRef, leaf uint32, adds bool) bool {
	removes := false
	for _, q := range list {
		p := e.resolve(q)
		adds = adds || p.Type == typeAdd
		removes = removes || p.Type == typeRemove && p.Remove == leaf
	}
	return adds && removes
}

// kinds adds to how what else a commit has that decides about it.
func (s *scene) kinds(list []proposalOrRef, how string) string {
	if how != "without path" && how != "valid" {
		return how
	}
	var names []string
	for _, p := range list {
		name := fmt.Sprint(p.Proposal.Type)
		if p.Type != 1 {
			name = "ref"
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return how + " [" + strings.Join(names, " ") + "]"
}

// forgeProposal makes a proposal of a member that is wrong, or unusual.
func (s *scene) forgeProposal(e *epoch, d donors, by *member) (trial, bool) {
	p, name := s.menu(e, by.index, s.rng.IntN(wholeMenu))
	how := ""
	if s.rng.IntN(3) > 0 {
		if how = mutate(s.rng, &p, d, nil); how == "" {
			return trial{}, false
		}
		e.resignProposal(&p, by.index, how)
		how = ", " + how
	}
	what, private := "forged proposal: ", s.private()
	if private {
		what = "forged private proposal: "
	}
	return trial{what + name + how, marshal(e.propose(by.index, p, private))}, true
}

// forgeGroupInfo changes a GroupInfo, and the tree inside, and signs it again.
func (s *scene) forgeGroupInfo(e *epoch, decoded message) (changed message, name string, ok bool) {
	m := duplicate(decoded)
	info := &m.GroupInfo
	by := e.signerOf(info.Signer)
	d := s.donors(e)
	how := ""
	if s.rng.IntN(3) > 0 {
		t := e.tree.clone()
		nodes := []*treeNode(t)
		if how = mutate(s.rng, &nodes, d, nil); how == "" {
			return message{}, "", false
		}
		path := strings.TrimPrefix(how, "[]")
		if outside(nodes) {
			return message{}, "", false
		}
		for x, n := range nodes {
			if n != nil && n.Type == 1 && isLeaf(x) && !strings.Contains(how, "Leaf.Signature ") {
				signLeaf(&n.Leaf, e.signerOr(n.Leaf.SignatureKey, by), e.context.GroupID, uint32(x/2))
			}
		}
		how = "tree " + strings.TrimPrefix(path, ".")
		encoded := marshal(nodes)
		if s.rng.IntN(8) > 0 {
			encoded = tree(nodes).encode()
		}
		padded := tree(nodes)
		for len(padded) > 0 && padded[len(padded)-1] == nil {
			padded = padded[:len(padded)-1]
		}
		padded = padded.padded()
		info.Context.TreeHash = padded.hash(e.scheme, padded.root())
		for i, x := range info.Extensions {
			if x.Type == extensionRatchetTree {
				info.Extensions[i].Data = encoded
			}
		}
	} else if how = mutate(s.rng, info, d, nil); how == "" {
		return message{}, "", false
	}
	if !strings.HasPrefix(how, "Signature ") {
		signGroupInfo(info, by)
	}
	return m, "forged group info: " + how, true
}

// endless tells whether the tree inside an encoded GroupInfo is outside.
func endless(data []byte) bool {
	var m message
	if unmarshal(data, &m) != nil {
		return false
	}
	for _, x := range m.GroupInfo.Extensions {
		if x.Type == extensionRatchetTree {
			if t, err := fullTree(x.Data); err == nil && outside(t) {
				return true
			}
		}
	}
	return false
}

// outside tells whether a parent names an unmerged leaf beyond the tree: ts-mls runs until
// its memory is full then, so it is not asked.
func outside(nodes []*treeNode) bool {
	return slices.ContainsFunc(nodes, func(n *treeNode) bool {
		return n != nil && n.Type == 2 && slices.ContainsFunc(n.Parent.Unmerged, func(i uint32) bool { return nodeOf(int(i)) >= len(nodes) })
	})
}
