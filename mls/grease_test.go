package mls

import "testing"

func isGrease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>12 == v>>4&15 && v != 0xfafa }

// Values that mean nothing are everywhere where the RFC allows them, and nobody minds
// (§13.5).
func TestGREASE(t *testing.T) {
	seen := map[uint16]bool{}
	for range 1000 {
		v := greaseValue()
		if !isGrease(v) {
			t.Fatalf("%#04x", v)
		}
		seen[v] = true
	}
	if len(seen) != 15 {
		t.Errorf("%d values", len(seen))
	}

	newOne := func(name string) *member {
		m := newMemberOf(t, testSuite, name, Config{GREASE: true})
		m.client.GREASE = true
		return m
	}
	team := []*member{newOne("alice")}
	team[0].create()
	bob, carol := newOne("bob"), newOne("carol")
	kp := newKeyPackage(t, bob.client)
	exts := kp.KeyPackage().Extensions()
	if len(exts) != 1 || !isGrease(uint16(exts[0].Type)) || len(exts[0].Data) == 0 {
		t.Errorf("key package's extensions %v", exts)
	}
	out := team[0].commit(CommitOptions{Proposals: []Proposal{Add{kp.KeyPackage()}}})
	p, err := Join(out.Welcome, kp, bob.client.Signer, nil, bob.config)
	joined := done(bob, p, err)
	bob.group = joined.Group
	if len(joined.Extensions) != 1 || !isGrease(uint16(joined.Extensions[0].Type)) {
		t.Errorf("GroupInfo's extensions %v", joined.Extensions)
	}
	team = append(team, bob)
	message := carol.joinExternal(bob.groupInfo(GroupInfoOptions{}), ExternalJoinOptions{})
	for _, m := range team {
		m.process(message)
	}
	team = append(team, carol)
	agree(t, team)
	update, err := bob.group.ProposeUpdate(&bob.client, nil)
	proposal := done(bob, update, err)
	for _, m := range []*member{team[0], carol} {
		m.process(proposal)
	}
	tell(team, carol, carol.commit(CommitOptions{}))
	agree(t, team)
	chat(t, team)
	for m := range team[0].group.Members() {
		c, exts := m.LeafNode.Capabilities(), m.LeafNode.Extensions()
		for what, last := range map[string]uint16{
			"suite": uint16(c.CipherSuites[len(c.CipherSuites)-1]), "proposal": uint16(c.Proposals[len(c.Proposals)-1]),
			"credential": uint16(c.Credentials[len(c.Credentials)-1]), "extension": uint16(c.Extensions[len(c.Extensions)-1]),
			"leaf extension": uint16(exts[len(exts)-1].Type),
		} {
			if !isGrease(last) {
				t.Errorf("leaf %d: %s %#04x", m.Index, what, last)
			}
		}
	}
}
