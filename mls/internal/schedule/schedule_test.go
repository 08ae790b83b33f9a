package schedule

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/vectortest"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

var ids = []suite.ID{1, 2, 3, 5, 7}

func mustSuite(t testing.TB, id suite.ID) *suite.Suite {
	t.Helper()
	s, ok := suite.ByID(id)
	if !ok {
		t.Fatalf("no suite %d", id)
	}
	return s
}

// eachSuite runs f on the vectors whose suite is available and demands that
// every available suite is among them.
func eachSuite[T any](t *testing.T, file string, id func(T) suite.ID, f func(t *testing.T, s *suite.Suite, v T)) {
	run := map[suite.ID]int{}
	for i, v := range vectortest.Load[T](t, file) {
		s, ok := suite.ByID(id(v))
		if !ok {
			t.Logf("case %d: suite %d is not available (X448, Ed448)", i, id(v))
			continue
		}
		run[id(v)]++
		t.Run(fmt.Sprintf("%d/suite%d", i, id(v)), func(t *testing.T) { f(t, s, v) })
	}
	for _, id := range ids {
		if run[id] == 0 {
			t.Errorf("no case for suite %d", id)
		}
	}
}

func check(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s is %x, want %x", what, got, want)
	}
}

func TestKeyScheduleVectors(t *testing.T) {
	type epoch struct {
		CommitSecret  vectortest.Hex `json:"commit_secret"`
		PSKSecret     vectortest.Hex `json:"psk_secret"`
		ConfirmedHash vectortest.Hex `json:"confirmed_transcript_hash"`
		TreeHash      vectortest.Hex `json:"tree_hash"`
		GroupContext  vectortest.Hex `json:"group_context"`
		Joiner        vectortest.Hex `json:"joiner_secret"`
		Welcome       vectortest.Hex `json:"welcome_secret"`
		Init          vectortest.Hex `json:"init_secret"`
		SenderData    vectortest.Hex `json:"sender_data_secret"`
		Encryption    vectortest.Hex `json:"encryption_secret"`
		ExporterKey   vectortest.Hex `json:"exporter_secret"`
		Authenticator vectortest.Hex `json:"epoch_authenticator"`
		External      vectortest.Hex `json:"external_secret"`
		ExternalPub   vectortest.Hex `json:"external_pub"`
		Confirmation  vectortest.Hex `json:"confirmation_key"`
		Membership    vectortest.Hex `json:"membership_key"`
		Resumption    vectortest.Hex `json:"resumption_psk"`
		Exporter      struct {
			Label   string
			Context vectortest.Hex
			Length  int
			Secret  vectortest.Hex
		}
	}
	type vector struct {
		Suite   suite.ID       `json:"cipher_suite"`
		GroupID vectortest.Hex `json:"group_id"`
		Init    vectortest.Hex `json:"initial_init_secret"`
		Epochs  []epoch
	}
	eachSuite(t, "key-schedule.json", func(v vector) suite.ID { return v.Suite }, func(t *testing.T, s *suite.Suite, v vector) {
		init := suite.Secret(v.Init)
		for i, e := range v.Epochs {
			context := wire.AppendUint16(nil, 1)
			context = wire.AppendUint16(context, uint16(v.Suite))
			context = wire.AppendOpaque(context, v.GroupID)
			context = wire.AppendUint64(context, uint64(i))
			context = wire.AppendOpaque(context, e.TreeHash)
			context = wire.AppendOpaque(context, e.ConfirmedHash)
			context = wire.AppendVarint(context, 0)
			check(t, "group context", context, e.GroupContext)

			joiner := JoinerSecret(s, init, e.CommitSecret, context)
			check(t, "joiner_secret", joiner, e.Joiner)
			member := MemberSecret(s, joiner, e.PSKSecret)
			check(t, "welcome_secret", WelcomeSecret(s, member), e.Welcome)
			epoch := Derive(s, EpochSecret(s, member, context))
			check(t, "init_secret", epoch.Init, e.Init)
			check(t, "sender_data_secret", epoch.SenderData, e.SenderData)
			check(t, "encryption_secret", epoch.Encryption, e.Encryption)
			check(t, "exporter_secret", epoch.Exporter, e.ExporterKey)
			check(t, "epoch_authenticator", epoch.Authenticator, e.Authenticator)
			check(t, "external_secret", epoch.External, e.External)
			check(t, "confirmation_key", epoch.Confirmation, e.Confirmation)
			check(t, "membership_key", epoch.Membership, e.Membership)
			check(t, "resumption_psk", epoch.Resumption, e.Resumption)
			external, err := s.DeriveKeyPair(epoch.External)
			if err != nil {
				t.Fatal(err)
			}
			check(t, "external_pub", external.Public, e.ExternalPub)
			exported, err := Export(s, epoch.Exporter, e.Exporter.Label, e.Exporter.Context, e.Exporter.Length)
			if err != nil {
				t.Fatal(err)
			}
			check(t, "exported secret", exported, e.Exporter.Secret)
			init = epoch.Init
		}
		if len(v.Epochs) == 0 {
			t.Error("no epochs")
		}
	})
}

func TestPSKSecretVectors(t *testing.T) {
	type vector struct {
		Suite suite.ID `json:"cipher_suite"`
		PSKs  []struct {
			ID    vectortest.Hex `json:"psk_id"`
			PSK   vectortest.Hex `json:"psk"`
			Nonce vectortest.Hex `json:"psk_nonce"`
		}
		Secret vectortest.Hex `json:"psk_secret"`
	}
	eachSuite(t, "psk_secret.json", func(v vector) suite.ID { return v.Suite }, func(t *testing.T, s *suite.Suite, v vector) {
		var psks []PSK
		for _, p := range v.PSKs {
			id := []byte{1} // psktype external
			id = wire.AppendOpaque(id, p.ID)
			id = wire.AppendOpaque(id, p.Nonce)
			psks = append(psks, PSK{id, suite.Secret(p.PSK)})
		}
		got, err := PSKSecret(s, psks)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "psk_secret", got, v.Secret)
		for i, p := range v.PSKs {
			check(t, "input after folding", psks[i].Secret, p.PSK)
		}
	})
}

func TestTranscriptHashVectors(t *testing.T) {
	type vector struct {
		Suite           suite.ID       `json:"cipher_suite"`
		ConfirmationKey vectortest.Hex `json:"confirmation_key"`
		Content         vectortest.Hex `json:"authenticated_content"`
		InterimBefore   vectortest.Hex `json:"interim_transcript_hash_before"`
		Confirmed       vectortest.Hex `json:"confirmed_transcript_hash_after"`
		InterimAfter    vectortest.Hex `json:"interim_transcript_hash_after"`
	}
	eachSuite(t, "transcript-hashes.json", func(v vector) suite.ID { return v.Suite }, func(t *testing.T, s *suite.Suite, v vector) {
		// The AuthenticatedContent of a commit ends with its tag<V>.
		split := len(v.Content) - wire.OpaqueSize(s.HashSize())
		r := wire.NewReader(v.Content[split:])
		tag := r.Opaque()
		if err := r.Done(); err != nil {
			t.Fatal(err)
		}
		input := v.Content[:split]
		confirmed := ConfirmedTranscriptHash(s, v.InterimBefore, input[:2], input[2:])
		check(t, "confirmed transcript hash", confirmed, v.Confirmed)
		if !s.VerifyMAC(v.ConfirmationKey, tag, confirmed) {
			t.Error("confirmation tag does not verify")
		}
		check(t, "interim transcript hash", InterimTranscriptHash(s, confirmed, tag), v.InterimAfter)
	})
}

func TestEpochStorage(t *testing.T) {
	for _, id := range ids {
		s := mustSuite(t, id)
		e := Derive(s, s.Extract(nil, []byte("epoch")))
		e.Encryption.Wipe()
		if !bytes.Equal(e.Encryption, make([]byte, s.HashSize())) || bytes.Equal(e.Exporter, make([]byte, s.HashSize())) {
			t.Error("wiping one secret wiped another, or none")
		}
		e.Encryption = nil
		stored := e.Append([]byte("head"))
		r := wire.NewReader(stored[4:])
		got := Read(s, r)
		if err := r.Done(); err != nil {
			t.Fatal(err)
		}
		for i, f := range got.fields() {
			if !slices.Equal(*f, *e.fields()[i]) {
				t.Errorf("%s is %x after storage", epochLabels[i], []byte(*f))
			}
		}
		again := got.Append(nil)
		if !bytes.Equal(again, stored[4:]) {
			t.Errorf("stored again as %x", again)
		}
		if text := fmt.Sprintf("%v %+v %x", got, *got, got); strings.Contains(text, fmt.Sprintf("%x", []byte(got.Init[:4]))) {
			t.Errorf("%q shows a secret", text)
		}
		got.Wipe()
		for i, f := range got.fields() {
			if *f != nil {
				t.Errorf("%s left after Wipe", epochLabels[i])
			}
		}
		r = wire.NewReader(wire.AppendOpaque(nil, make([]byte, s.HashSize()-1)))
		if Read(s, r); r.Err() == nil {
			t.Error("secret of wrong length was read")
		}
	}
}

func FuzzRead(f *testing.F) {
	s := mustSuite(f, 3)
	f.Add(Derive(s, make([]byte, 32)).Append(nil))
	f.Add(new(Epoch).Append(nil))
	f.Add([]byte{31})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wire.NewReader(b)
		e := Read(s, r)
		if r.Done() == nil && !bytes.Equal(e.Append(nil), b) {
			t.Errorf("%x is stored as %x", b, e.Append(nil))
		}
	})
}

func TestExternalInit(t *testing.T) {
	for _, id := range ids {
		s := mustSuite(t, id)
		key, err := s.DeriveKeyPair(s.Extract(nil, []byte("external")))
		if err != nil {
			t.Fatal(err)
		}
		kemOutput, sent, err := SendExternalInit(s, key.Public)
		if err != nil {
			t.Fatal(err)
		}
		received, err := ReceiveExternalInit(s, key, kemOutput)
		if err != nil {
			t.Fatal(err)
		}
		if len(sent) != s.HashSize() {
			t.Errorf("init secret of %d bytes", len(sent))
		}
		check(t, "received init secret", received, sent)
		if _, _, err := SendExternalInit(s, key.Public[1:]); err == nil {
			t.Error("sent to a malformed key")
		}
		if _, err := ReceiveExternalInit(s, key, kemOutput[1:]); err == nil {
			t.Error("received a malformed encapsulation")
		}
	}
}

func TestWelcomeKey(t *testing.T) {
	s := mustSuite(t, 3)
	member := s.Extract(nil, []byte("member"))
	want := s.ExpandKey(WelcomeSecret(s, member), nil)
	if WelcomeKey(s, member) != want {
		t.Error("welcome key is not that of the welcome secret")
	}
}

func TestLimits(t *testing.T) {
	s := mustSuite(t, 3)
	secret := s.Extract(nil, nil)
	if _, err := Export(s, secret, "l", nil, 255*32); err != nil {
		t.Error(err)
	}
	for _, n := range []int{-1, 255*32 + 1} {
		if _, err := Export(s, secret, "l", nil, n); err == nil {
			t.Errorf("exported %d bytes", n)
		}
	}
	if _, err := PSKSecret(s, make([]PSK, 1<<16)); err == nil {
		t.Error("65,536 pre-shared keys")
	}
}

func BenchmarkEpoch(b *testing.B) {
	s := mustSuite(b, 3)
	secret := s.Extract(nil, nil)
	context := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		joiner := JoinerSecret(s, secret, secret, context)
		member := MemberSecret(s, joiner, secret)
		Derive(s, EpochSecret(s, member, context))
	}
}
