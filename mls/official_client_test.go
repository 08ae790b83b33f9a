package mls

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

func readTestdata[T any](t *testing.T, name string) (v T) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// listener only listens: its signer can't sign.
type listener []byte

func (l listener) Public() []byte              { return l }
func (l listener) Sign([]byte) ([]byte, error) { return nil, errors.New("a listener does not sign") }

// unwrapWelcome opens what XMTP wraps around an MLS Welcome by X-Wing. metadata may
// be empty.
func unwrapWelcome(t *testing.T, seed, data, metadata []byte) (welcome, meta []byte) {
	t.Helper()
	r := wire.NewReader(data)
	kem, ciphertext := r.Opaque(), r.Opaque()
	if err := r.Done(); err != nil {
		t.Fatal(err)
	}
	s := hpke.New(hpke.XWing(0x004d), hpke.HKDFSHA256, hpke.ChaCha20Poly1305)
	info := wire.AppendOpaque(wire.AppendOpaque(nil, "MLS 1.0 MLS_WELCOME"), "")
	c, err := s.NewRecipient(hpke.KeyPair{Private: seed}, kem, s.Info(info))
	if err != nil {
		t.Fatal(err)
	}
	if welcome, err = c.Open(nil, nil, ciphertext); err != nil {
		t.Fatal(err)
	}
	if len(metadata) > 0 {
		if meta, err = c.Open(nil, nil, metadata); err != nil {
			t.Fatal(err)
		}
	}
	return welcome, meta
}

func restored(t *testing.T, kp, initKey, leafKey []byte) *PrivateKeyPackage {
	t.Helper()
	public, err := UnmarshalKeyPackage(kp)
	if err != nil {
		t.Fatal(err)
	}
	p, err := RestoreKeyPackage(public, initKey, leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The group of the official client that groups.json recorded, from the Welcome to
// the last commit.
func TestOfficialGroupConversation(t *testing.T) {
	type vector struct {
		KeyPackage hexBytes `json:"key_package"`
		InitKey    hexBytes `json:"init_private_key"`
		LeafKey    hexBytes `json:"leaf_private_key"`
		Seed       hexBytes `json:"xwing_seed"`
		Welcome    struct {
			Data, Info hexBytes
			MLS        hexBytes `json:"mls_welcome"`
			Context    hexBytes
		}
		Envelopes []struct {
			Row  int
			Data hexBytes
		}
		Messages  map[string]hexBytes
		CommitLog []struct {
			Row           int
			Epoch         uint64
			Authenticator hexBytes
		} `json:"commit_log"`
	}
	v := readTestdata[vector](t, "group_conversation.json")
	kp := restored(t, v.KeyPackage, v.InitKey, v.LeafKey)
	welcome, _ := unwrapWelcome(t, v.Seed, v.Welcome.Data, nil)
	equal(t, "unwrapped Welcome", welcome, v.Welcome.MLS)

	m := &member{t: t, client: Client{Signer: listener(kp.public.SignatureKey())}, store: store{}, config: Config{OneFormat: true}}
	p, err := Join(welcome, kp, m.client.Signer, nil, m.config)
	joined := done(m, p, err)
	m.group = joined.Group
	equal(t, "joined context", m.group.Context(), v.Welcome.Context)
	sender, _ := m.group.Member(joined.Sender)
	if joined.Sender != 0 || m.group.OwnLeaf() == 0 || sender.LeafNode.raw == nil {
		t.Errorf("joined as leaf %d by leaf %d", m.group.OwnLeaf(), joined.Sender)
	}

	authenticators := map[uint64]hexBytes{}
	for _, e := range v.CommitLog {
		authenticators[e.Epoch] = e.Authenticator
	}
	equal(t, "epoch authenticator after joining", m.group.EpochAuthenticator(), authenticators[1])
	commits, read := 0, 0
	for _, e := range v.Envelopes {
		h, _, err := ParseHeader(e.Data)
		if err != nil {
			t.Fatal(err)
		}
		if h.Epoch == 0 {
			m.processFails(e.Data, ErrWrongEpoch)
			continue
		}
		m.reload()
		switch event := m.process(e.Data).(type) {
		case *StagedCommit:
			commits++
			equal(t, fmt.Sprint("epoch authenticator after row ", e.Row), m.group.EpochAuthenticator(), authenticators[event.Epoch])
		case *ApplicationMessage:
			read++
			if want := v.Messages[strconv.Itoa(e.Row)]; len(want) == 0 || !bytes.Contains(event.Data, want) {
				t.Errorf("row %d: %x, want %x inside", e.Row, event.Data, want)
			}
		default:
			t.Errorf("row %d: %T", e.Row, event)
		}
	}
	if commits != 3 || read != 1 {
		t.Errorf("followed %d commits and %d messages", commits, read)
	}
}

type captures struct {
	Clients map[string]struct {
		Installation hexBytes `json:"installation_id"`
		SignatureKey hexBytes `json:"signature_private_key"`
		KeyPackages  []struct {
			KeyPackage hexBytes `json:"key_package"`
			InitKey    hexBytes `json:"init_private_key"`
			LeafKey    hexBytes `json:"leaf_private_key"`
			Seed       hexBytes `json:"xwing_seed"`
		} `json:"key_packages"`
		CommitLog []struct {
			Group         string `json:"group_id"`
			Row           int
			Result        int
			Epoch         uint64
			Authenticator hexBytes
		} `json:"commit_log"`
		Messages map[string]hexBytes
	}
	Welcomes []struct {
		ID           int
		Installation hexBytes `json:"installation_key"`
		Pointer      bool
		Algorithm    int
		Data         hexBytes
		Key          hexBytes `json:"hpke_public_key"`
		Metadata     hexBytes
	}
	Messages map[string][]struct {
		Row  int
		Data hexBytes
	}
}

// Commit results in the official client's log.
const (
	commitApplied    = 1
	commitWrongEpoch = 2
	commitInvalid    = 4
)

// TestOfficialCaptures follows every silent listener of the captures from each of
// its Welcomes to its end: each commit to the recorded epoch authenticator, each
// message to the recorded bytes.
func TestOfficialCaptures(t *testing.T) {
	c := readTestdata[captures](t, "captures.json")
	for _, name := range slices.Sorted(maps.Keys(c.Clients)) {
		t.Run(name, func(t *testing.T) { c.follow(t, name) })
	}
}

func (c *captures) follow(t *testing.T, name string) {
	client := c.Clients[name]
	signer, err := NewSigner(X25519ChaChaSHA256Ed25519, client.SignatureKey)
	if err != nil {
		t.Fatal(err)
	}
	joined, commits, read := 0, 0, 0
	for _, w := range c.Welcomes {
		if !bytes.Equal(w.Installation, client.Installation) {
			continue
		}
		var kp *PrivateKeyPackage
		var seed []byte
		for _, k := range client.KeyPackages {
			public, err := hpke.XWing(0x004d).PublicKey(k.Seed)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.HasPrefix(public, w.Key) {
				kp, seed = restored(t, k.KeyPackage, k.InitKey, k.LeafKey), k.Seed
			}
		}
		if kp == nil {
			t.Fatalf("welcome %d: no key package", w.ID)
		}
		welcome, meta := unwrapWelcome(t, seed, w.Data, w.Metadata)
		if w.Pointer {
			welcome, meta = c.pointee(t, welcome)
		}
		// The Welcome names the key package, which need not be that of the wrapper.
		message, err := UnmarshalMessage(welcome)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range client.KeyPackages {
			p := restored(t, k.KeyPackage, k.InitKey, k.LeafKey)
			ref, err := p.public.Ref()
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(message.NewMembers(), func(r []byte) bool { return bytes.Equal(r, ref) }) {
				kp = p
			}
		}
		m := &member{t: t, client: Client{Signer: signer, Credential: kp.public.Credential()}, store: store{}, config: Config{OneFormat: true}}
		p, err := Join(welcome, kp, signer, nil, m.config)
		m.group = done(m, p, err).Group
		id := fmt.Sprintf("%x", m.group.ID())
		start := len(client.CommitLog)
		for i, e := range client.CommitLog {
			if e.Group == id && e.Row == 0 && bytes.Equal(e.Authenticator, m.group.EpochAuthenticator()) {
				start = i
			}
		}
		if start == len(client.CommitLog) {
			t.Fatalf("welcome %d: joined epoch %d of %s with authenticator %x, which is not in the log", w.ID, m.group.Epoch(), id, m.group.EpochAuthenticator())
		}
		joined++
		results := map[int]int{}
		authenticators := map[int]hexBytes{}
		for _, e := range client.CommitLog[start+1:] {
			if e.Group == id && e.Row == 0 {
				break // joined again
			}
			if e.Group == id {
				results[e.Row], authenticators[e.Row] = e.Result, e.Authenticator
			}
		}
		cursor, _ := binary.Uvarint(meta[1:])
		for _, row := range c.Messages[id] {
			if row.Row <= int(cursor) || !m.group.Active() {
				continue
			}
			h, _, err := ParseHeader(row.Data)
			if err != nil {
				t.Fatal(err)
			}
			if h.ContentType == ContentTypeCommit {
				c.followCommit(m, row.Row, row.Data, results[row.Row], authenticators[row.Row])
				commits++
			} else if want := client.Messages[strconv.Itoa(row.Row)]; want != nil {
				event, ok := m.process(row.Data).(*ApplicationMessage)
				if !ok || !bytes.Contains(event.Data, want) {
					t.Errorf("row %d: %+v, want %x inside", row.Row, event, want)
				}
				read++
			} else if p, err := m.group.Process(row.Data); err == nil {
				p.Discard() // a resent message whose first copy is stored
			} else if !errors.Is(err, ErrWrongEpoch) {
				t.Errorf("row %d: %v", row.Row, err)
			}
			if row.Row%3 == 0 && m.group.Active() {
				m.reload()
			}
		}
	}
	if joined == 0 || commits == 0 {
		t.Errorf("%d groups, %d commits", joined, commits)
	}
	t.Logf("%d groups joined, %d commits followed, %d messages read", joined, commits, read)
}

func (c *captures) followCommit(m *member, row int, data []byte, result int, authenticator []byte) {
	m.t.Helper()
	switch result {
	case commitApplied:
		event, ok := m.process(data).(*StagedCommit)
		if !ok {
			m.t.Fatalf("row %d: %T", row, event)
		}
		equal(m.t, fmt.Sprint("epoch authenticator after row ", row), m.group.EpochAuthenticator(), authenticator)
	case commitWrongEpoch:
		m.processFails(data, ErrWrongEpoch)
	case commitInvalid:
		// Sound MLS that the application refuses.
		p, err := m.group.Process(data)
		if err != nil {
			m.t.Fatalf("row %d: %v", row, err)
		}
		p.Discard()
		equal(m.t, fmt.Sprint("epoch authenticator after row ", row), m.group.EpochAuthenticator(), authenticator)
	default:
		m.t.Fatalf("row %d: result %d", row, result)
	}
}

// pointee follows a welcome pointer (protobuf WelcomePointer) to the Welcome that
// several new members share.
func (c *captures) pointee(t *testing.T, pointer []byte) (welcome, meta []byte) {
	t.Helper()
	fields := protoFields(t, protoFields(t, pointer)[1])
	destination, key := fields[1], fields[3]
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range c.Welcomes {
		if bytes.Equal(w.Installation, destination) {
			if welcome, err = aead.Open(nil, fields[4], w.Data, nil); err != nil {
				t.Fatal(err)
			}
			if meta, err = aead.Open(nil, fields[5], w.Metadata, nil); err != nil {
				t.Fatal(err)
			}
			return welcome, meta
		}
	}
	t.Fatalf("no welcome for %x", destination)
	return nil, nil
}

// protoFields reads the length-delimited fields of a protobuf message.
func protoFields(t *testing.T, b []byte) map[uint64][]byte {
	t.Helper()
	fields := map[uint64][]byte{}
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		b = b[n:]
		size, n := binary.Uvarint(b)
		b = b[n:]
		if tag&7 == 2 {
			fields[tag>>3] = b[:size]
			b = b[size:]
		}
	}
	return fields
}
