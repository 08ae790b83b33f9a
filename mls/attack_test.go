package mls

import (
	"bytes"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// memory is every byte string that can be reached from v: what one finds who reads
// the memory of a process.
func memory(v any) [][]byte {
	var found [][]byte
	seen := map[uintptr]bool{}
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() && !seen[v.Pointer()] {
				seen[v.Pointer()] = true
				walk(v.Elem())
			}
		case reflect.Interface:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i))
			}
		case reflect.Map:
			for it := v.MapRange(); it.Next(); {
				walk(it.Key())
				walk(it.Value())
			}
		case reflect.String:
			found = append(found, []byte(v.String()))
		case reflect.Slice, reflect.Array:
			if v.Type().Elem().Kind() == reflect.Uint8 {
				b := make([]byte, v.Len())
				for i := range b {
					b[i] = byte(v.Index(i).Uint())
				}
				found = append(found, b)
				return
			}
			for i := range v.Len() {
				walk(v.Index(i))
			}
		}
	}
	walk(reflect.ValueOf(v))
	return found
}

// haul is all that an attacker gets who copies a member's memory and disk.
func haul(m *member) [][]byte {
	all := memory(m.group)
	for _, r := range m.store {
		all = append(all, r.Value)
	}
	return all
}

func contains(all [][]byte, secret []byte) bool {
	return slices.ContainsFunc(all, func(b []byte) bool { return bytes.Contains(b, secret) })
}

// ratchetSecrets are the secrets of a member's message keys of the current epoch,
// from which those of leaf i derive.
func ratchetSecrets(m *member, i LeafIndex) [][]byte {
	var found [][]byte
	e := m.group.current
	n := e.suite.HashSize()
	for _, r := range e.messages.Records() {
		index := nodeIndex(wire.NewReader(r.ID[1:]).Uint32())
		switch {
		case r.ID[0] == 0 && index.Covers(i): // a node of the secret tree
			found = append(found, r.Value[1:1+n])
		case r.ID[0] == 1 && LeafIndex(index/2) == i: // a ratchet
			found = append(found, r.Value[5:5+n])
		}
	}
	return found
}

// messageKey is the key and the nonce that a message was encrypted under.
func messageKey(t *testing.T, m *member, message []byte) (key, nonce []byte) {
	t.Helper()
	decoded, err := UnmarshalMessage(message)
	if err != nil {
		t.Fatal(err)
	}
	e := m.group.current
	from, err := decoded.private.openSenderData(e.suite, e.secrets.SenderData)
	if err != nil {
		t.Fatal(err)
	}
	kind := secrettree.Application
	if decoded.private.contentType != ContentTypeApplication {
		kind = secrettree.Handshake
	}
	use, err := e.messages.Key(from.leaf, kind, from.generation)
	if err != nil {
		t.Fatal(err)
	}
	defer use.Drop()
	return bytes.Clone(use.Key().Key[:e.suite.KeySize()]), bytes.Clone(use.Key().Nonce[:])
}

// Forward secrecy: who copies all of a member's state finds no key of a message
// that was read before, nor anything that it derives from (§9.2).
func TestForwardSecrecy(t *testing.T) {
	team := newTeam(t, testSuite, 4, Config{})
	alice, bob := team[0], team[1]
	first, second, skipped, third := alice.encrypt("1"), alice.encrypt("2"), alice.encrypt("skipped"), alice.encrypt("3")

	var spent [][]byte
	note := func(message []byte) {
		key, nonce := messageKey(t, bob, message)
		spent = append(spent, key, nonce)
	}
	for _, secret := range ratchetSecrets(bob, 0) {
		spent = append(spent, bytes.Clone(secret))
	}
	if len(spent) == 0 || !contains(haul(bob), spent[0]) {
		t.Fatal("the secrets that lead to alice's messages were not found while they were there")
	}
	note(first)
	bob.reads(first, "1")
	note(second)
	for _, secret := range ratchetSecrets(bob, 0)[:2] {
		spent = append(spent, bytes.Clone(secret)) // both ratchets of alice; that of handshakes stays
	}
	handshake := spent[len(spent)-2]
	spent = slices.DeleteFunc(spent, func(b []byte) bool { return bytes.Equal(b, handshake) })
	bob.reads(second, "2")
	note(third)
	bob.reads(third, "3")

	loot := haul(bob)
	for i, secret := range spent {
		if contains(loot, secret) {
			t.Errorf("spent secret %d is still there", i)
		}
	}
	thief := &member{t: t, client: bob.client, store: maps.Clone(bob.store)}
	thief.reload()
	for _, message := range [][]byte{first, second, third} {
		thief.processFails(message, ErrSecretReused)
	}
	// The key of a message that was skipped has to be there, until it is used.
	key, _ := messageKey(t, bob, skipped)
	if !contains(loot, key) {
		t.Error("the skipped key is not there")
	}
	bob.reads(skipped, "skipped")
	if contains(haul(bob), key) {
		t.Error("the skipped key is still there after its use")
	}

	// One's own: the keys of what was sent go at once.
	sent, err := bob.group.Encrypt([]byte("mine"), nil)
	if err != nil {
		t.Fatal(err)
	}
	key, nonce := messageKey(t, alice, sent.Result())
	message := done(bob, sent, nil)
	if loot := haul(bob); contains(loot, key) || contains(loot, nonce) {
		t.Error("the key of an own message is still there")
	}
	alice.reads(message, "mine")
}

// Forward secrecy over epochs: what made an epoch is gone with it, and the keys of
// its messages with the window (§8, §9.2).
func TestForwardSecrecyOfEpochs(t *testing.T) {
	team := newTeam(t, testSuite, 3, Config{})
	alice, bob := team[0], team[1]
	e := bob.group.current
	secrets := map[string][]byte{
		"init": e.secrets.Init, "exporter": e.secrets.Exporter, "confirmation": e.secrets.Confirmation,
		"membership": e.secrets.Membership, "external": e.secrets.External, "authenticator": e.secrets.Authenticator,
		"leaf key": e.keys[e.own.Node()],
	}
	past := map[string][]byte{"sender data": e.secrets.SenderData, "resumption": e.secrets.Resumption}
	for i, s := range ratchetSecrets(bob, 0) {
		past[string(rune('0'+i))] = s
	}
	copyAll := func(m map[string][]byte) {
		for name, s := range m {
			if m[name] = bytes.Clone(s); !contains(haul(bob), s) {
				t.Fatalf("%s secret was not found while it was there", name)
			}
		}
	}
	copyAll(secrets)
	copyAll(past)
	commit := alice.commit(CommitOptions{})
	key, _ := messageKey(t, bob, commit.Message)
	bob.process(commit.Message)
	team[2].process(commit.Message)
	loot := haul(bob)
	for name, s := range secrets {
		if name != "leaf key" && contains(loot, s) {
			t.Errorf("%s secret is still there in the next epoch", name)
		}
	}
	if contains(loot, key) {
		t.Error("the key of the commit is still there")
	}
	out := bob.commit(CommitOptions{})
	alice.process(out.Message)
	team[2].process(out.Message)
	if contains(haul(bob), secrets["leaf key"]) {
		t.Error("the old leaf key is still there after a new one")
	}
	for range DefaultWindows().PastEpochs {
		out := alice.commit(CommitOptions{})
		bob.process(out.Message)
		team[2].process(out.Message)
	}
	loot = haul(bob)
	for name, s := range past {
		if contains(loot, s) {
			t.Errorf("%s secret is still there after the window", name)
		}
	}
	chat(t, team)
}

// Post-compromise security: a thief of bob's whole state, signature key included,
// reads on until bob makes a commit with a path (§16.6).
func TestPostCompromiseSecurity(t *testing.T) {
	for _, config := range []Config{{}, {PublicHandshakes: true}} {
		team := newTeam(t, testSuite, 4, config)
		for _, m := range team { // fill the tree
			out := m.commit(CommitOptions{})
			for _, other := range team {
				if other != m {
					other.process(out.Message)
				}
			}
		}
		alice, bob := team[0], team[1]
		thief := &member{t: t, client: bob.client, store: maps.Clone(bob.store), config: config}
		thief.reload()

		// The commits of others shut nobody out.
		out := alice.commit(CommitOptions{})
		for _, m := range append(team[1:], thief) {
			m.process(out.Message)
		}
		thief.reads(alice.encrypt("overheard"), "overheard")

		out = bob.commit(CommitOptions{})
		for _, m := range []*member{alice, team[2], team[3]} {
			m.process(out.Message)
		}
		p, err := thief.group.Process(out.Message)
		if err == nil {
			if s, ok := p.Result().(*StagedCommit); ok {
				t.Fatalf("the thief follows bob's commit: %+v", s)
			}
			p.Discard()
		} else if !errors.Is(err, ErrStateRolledBack) {
			t.Fatal(err)
		}
		secret := alice.encrypt("secret")
		thief.processFails(secret, ErrWrongEpoch)
		team[2].reads(secret, "secret")
		bob.reads(secret, "secret")

		// No stolen key opens any ciphertext of the path, while those of others do.
		opens := func(m *member) (n int) {
			e := m.group.current
			path := bobsPath(t, out.Message, thief)
			context := bob.provisionalContext(t)
			for _, key := range m.oldKeys(thief) {
				public, err := e.suite.HPKE().KEM().PublicKey(key)
				if err != nil {
					t.Fatal(err)
				}
				for _, node := range path.nodes {
					for i := range node.count {
						kem, ciphertext := node.ciphertext(i)
						if _, err := e.suite.DecryptWithLabel(hpke.KeyPair{Private: key, Public: public}, "UpdatePathNode", context, kem, ciphertext); err == nil {
							n++
						}
					}
				}
			}
			return n
		}
		if n := opens(thief); n != 0 {
			t.Errorf("stolen keys open %d path secrets", n)
		}
		if n := opens(team[2]); n == 0 {
			t.Error("the keys of a member open no path secret: the test proves nothing")
		}
	}
}

// bobsPath is the path of a commit, decrypted with the keys of one in its epoch.
func bobsPath(t *testing.T, message []byte, m *member) *updatePath {
	t.Helper()
	decoded, err := UnmarshalMessage(message)
	if err != nil {
		t.Fatal(err)
	}
	if p := decoded.public; p != nil {
		return p.content.commit.path
	}
	e := m.group.current
	from, err := decoded.private.openSenderData(e.suite, e.secrets.SenderData)
	if err != nil {
		t.Fatal(err)
	}
	use, err := e.messages.Key(from.leaf, secrettree.Handshake, from.generation)
	if err != nil {
		t.Fatal(err)
	}
	defer use.Drop()
	leaf, _ := m.group.leaf(from.leaf)
	a, err := decoded.private.open(e.suite, use, from, leaf.signatureKey(), e.context.raw)
	if err != nil {
		t.Fatal(err)
	}
	return a.content.commit.path
}

// provisionalContext is the context that the path of the last commit was encrypted
// under: that of the epoch it began, with the transcript before it (§7.6).
func (m *member) provisionalContext(t *testing.T) []byte {
	t.Helper()
	c := *m.group.current.context
	past, err := loadContext(m.group.past[0].context)
	if err != nil {
		t.Fatal(err)
	}
	c.confirmedTranscriptHash = past.confirmedTranscriptHash
	return c.append(nil)
}

// oldKeys are the keys of m that the epoch of another member knows too.
func (m *member) oldKeys(other *member) []suite.Secret {
	if m == other {
		return slices.Collect(maps.Values(m.group.current.keys))
	}
	var keys []suite.Secret
	for x, key := range m.group.current.keys {
		if old, now := other.group.tree().node(x), m.group.tree().node(x); bytes.Equal(old, now) {
			keys = append(keys, key)
		}
	}
	return keys
}
