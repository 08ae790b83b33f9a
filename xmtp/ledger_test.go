package xmtp

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/cryptobyte"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// ledger collects all that ever left clients towards a node, and the secrets to
// see by which key each was encrypted: sender, and generation of the sender's
// ratchet (RFC 9420 §6.3.2). It opens them by itself, independently of package
// mls, from which it only takes the secrets.
type ledger struct {
	mu      sync.Mutex
	fresh   map[string][]byte // by hash: what was not looked at yet
	seen    map[string]bool   // hashes
	secrets map[string][]byte // sender data secrets by group and epoch
	used    map[generation]bool
	count   map[mls.ContentType]int // what was looked at
}

// generation names a message key.
type generation struct {
	epoch     string // group and epoch
	leaf      uint32
	handshake bool
	number    uint32
}

func newLedger() *ledger {
	return &ledger{
		fresh: map[string][]byte{}, seen: map[string]bool{}, secrets: map[string][]byte{},
		used: map[generation]bool{}, count: map[mls.ContentType]int{},
	}
}

// add notes what leaves a client.
func (l *ledger) add(data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	hash := sha256.Sum256(data)
	if key := string(hash[:]); !l.seen[key] {
		l.seen[key], l.fresh[key] = true, bytes.Clone(data)
	}
}

func epochName(group []byte, epoch uint64) string {
	return string(binary.BigEndian.AppendUint64(bytes.Clone(group), epoch))
}

// observe takes the secrets of all groups of a client, in the epochs that it still knows.
func (l *ledger) observe(t *testing.T, c *Client) {
	t.Helper()
	var rows []store.Group
	check(t, c.db.View(func(tx *store.Tx) error {
		var err error
		rows, err = tx.Groups()
		return err
	}))
	for _, row := range rows {
		l.observeGroup(t, c.groups.get(row.ID))
	}
}

func (l *ledger) observeGroup(t *testing.T, g *group) {
	t.Helper()
	check(t, g.acquire(t.Context()))
	defer g.release()
	state, err := g.state()
	check(t, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	fields := reflect.ValueOf(state).Elem()
	current := fields.FieldByName("current").Elem()
	l.secrets[epochName(g.id, state.Epoch())] = bytes.Clone(current.FieldByName("secrets").Elem().FieldByName("SenderData").Bytes())
	past := fields.FieldByName("past")
	for i := range past.Len() {
		p := past.Index(i).Elem()
		l.secrets[epochName(g.id, p.FieldByName("number").Uint())] = bytes.Clone(p.FieldByName("senderData").Bytes())
	}
}

// check fails if a key was used for two ciphertexts, or if it can't tell.
func (l *ledger) check(t *testing.T) {
	t.Helper()
	for _, problem := range l.problems() {
		t.Error(problem)
	}
}

func (l *ledger) problems() (list []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for hash, data := range l.fresh {
		delete(l.fresh, hash)
		key, kind, err := l.open(data)
		if err != nil {
			list = append(list, fmt.Errorf("a message that was sent: %w", err))
			continue
		}
		if l.used[key] {
			list = append(list, fmt.Errorf("leaf %d uses key %d (handshake %v) of epoch %x twice", key.leaf, key.number, key.handshake, key.epoch))
		}
		l.used[key] = true
		l.count[kind]++
	}
	return list
}

// open reads the sender data of an MLSMessage that is a PrivateMessage.
func (l *ledger) open(data []byte) (key generation, kind mls.ContentType, err error) {
	s := cryptobyte.String(data)
	var version, format uint16
	var group, authenticated, encrypted, ciphertext []byte
	var epoch uint64
	var contentType uint8
	ok := s.ReadUint16(&version) && s.ReadUint16(&format) && version == 1 && format == 2 &&
		readOpaque(&s, &group) && s.ReadUint64(&epoch) && s.ReadUint8(&contentType) &&
		readOpaque(&s, &authenticated) && readOpaque(&s, &encrypted) && readOpaque(&s, &ciphertext) && s.Empty()
	if !ok {
		return key, 0, errors.New("not a PrivateMessage")
	}
	secret := l.secrets[epochName(group, epoch)]
	if secret == nil {
		return key, 0, fmt.Errorf("epoch %d of group %x was never seen", epoch, group)
	}
	sample := ciphertext[:min(len(ciphertext), sha256.Size)]
	aead, err := chacha20poly1305.New(expandWithLabel(secret, "key", sample, chacha20poly1305.KeySize))
	if err != nil {
		return key, 0, err
	}
	aad := append(appendOpaque(nil, group), data[4+opaqueSize(group):][:8]...) // the epoch's bytes
	plain, err := aead.Open(nil, expandWithLabel(secret, "nonce", sample, chacha20poly1305.NonceSize), encrypted, append(aad, contentType))
	if err != nil || len(plain) != 12 {
		return key, 0, fmt.Errorf("epoch %d of group %x is not the one that others know: %w", epoch, group, err)
	}
	key = generation{
		epoch:     epochName(group, epoch),
		leaf:      binary.BigEndian.Uint32(plain),
		handshake: mls.ContentType(contentType) != mls.ContentTypeApplication,
		number:    binary.BigEndian.Uint32(plain[4:]),
	}
	return key, mls.ContentType(contentType), nil
}

func expandWithLabel(secret []byte, label string, context []byte, length int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = appendOpaque(appendOpaque(info, []byte("MLS 1.0 "+label)), context)
	out, err := hkdf.Expand(sha256.New, secret, string(info), length)
	if err != nil {
		panic(err)
	}
	return out
}

// appendOpaque appends opaque<V> (RFC 9420 §2.1.2), up to 16,383 bytes.
func appendOpaque(b, value []byte) []byte {
	if len(value) < 64 {
		return append(append(b, byte(len(value))), value...)
	}
	return append(binary.BigEndian.AppendUint16(b, 0x4000|uint16(len(value))), value...)
}

func opaqueSize(value []byte) int { return len(appendOpaque(nil, value)) }

func readOpaque(s *cryptobyte.String, out *[]byte) bool {
	var first uint8
	if !s.ReadUint8(&first) {
		return false
	}
	length := int(first & 0x3f)
	for range 1<<(first>>6) - 1 {
		var b uint8
		if !s.ReadUint8(&b) {
			return false
		}
		length = length<<8 | int(b)
	}
	return s.ReadBytes(out, length)
}

// The ledger must see what it is there for.
func TestLedgerSeesAKeyUsedTwice(t *testing.T) {
	url := startNode(t)
	p := newProxy(t, url)
	ctx := t.Context()
	alice, bob := newClient(t, p.url), newClient(t, url)
	v := must(alice.DM(ctx, bob.Address()))(t)
	l := newLedger()
	p.published = l.add
	must(v.SendText(ctx, "one"))(t)
	l.observe(t, alice)
	l.check(t)
	if got := l.count[mls.ContentTypeApplication]; got != 1 {
		t.Fatalf("%d messages", got)
	}
	// The same key for something else, as if the state had been copied.
	check(t, v.group.acquire(ctx))
	defer v.group.release()
	for range 2 {
		v.group.mls = nil // it is read from the database again
		state, err := v.group.state()
		check(t, err)
		pending, err := state.Encrypt([]byte("two"), nil)
		check(t, err)
		l.add(pending.Result())
		pending.Done()
	}
	if problems := l.problems(); len(problems) != 1 {
		t.Errorf("problems: %v", problems)
	}
	// And for a commit.
	for range 2 {
		v.group.mls = nil
		state, err := v.group.state()
		check(t, err)
		pending, err := state.Commit(mls.CommitOptions{})
		check(t, err)
		l.add(pending.Result().Message)
		pending.Done()
	}
	if problems := l.problems(); len(problems) != 1 {
		t.Errorf("problems: %v", problems)
	}
}
