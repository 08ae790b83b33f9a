package identity

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

var testTime = time.Unix(1_700_000_000, 123_456_789)

// registration returns a finished update that creates an inbox for wallet and
// adds an installation.
func registration(tb testing.TB, wallet *WalletKey) (*associations.IdentityUpdate, string) {
	tb.Helper()
	inboxID, err := DeriveInboxID(wallet.Identifier(), DefaultNonce)
	if err != nil {
		tb.Fatal(err)
	}
	device := testInstallation(1)
	r, err := NewSignatureRequest(inboxID, testTime,
		CreateInbox(wallet.Identifier(), DefaultNonce),
		AddMember(wallet.Identifier(), installationID(device)))
	if err != nil {
		tb.Fatal(err)
	}
	for _, sig := range []*associations.Signature{SignInstallation(device, r.Text()), wallet.SignText(r.Text())} {
		if err := r.AddSignature(tb.Context(), sig, nil); err != nil {
			tb.Fatal(err)
		}
	}
	u, err := r.Update()
	if err != nil {
		tb.Fatal(err)
	}
	return u, inboxID
}

// TestRegistrationShape compares with what the official client publishes:
// which actions, which of the fields set, which signature where.
func TestRegistrationShape(t *testing.T) {
	official := parseUpdate(t, testVectors(t).Lifecycle.Steps[0].Update)
	ours, _ := registration(t, testWallet(t, 1))
	shape := func(u *associations.IdentityUpdate) *associations.IdentityUpdate {
		u = proto.Clone(u).(*associations.IdentityUpdate)
		u.InboxId, u.ClientTimestampNs = "", 0
		create, add := u.GetActions()[0].GetCreateInbox(), u.GetActions()[1].GetAdd()
		if len(u.GetActions()) != 2 || create == nil || add == nil {
			t.Fatalf("actions %v", u.GetActions())
		}
		if !proto.Equal(create.GetInitialIdentifierSignature(), add.GetExistingMemberSignature()) {
			t.Error("the wallet signed twice")
		}
		create.InitialIdentifier, create.Nonce = "", 0
		for _, sig := range []*associations.Signature{create.GetInitialIdentifierSignature(), add.GetExistingMemberSignature()} {
			sig.GetErc_191().Bytes = nil
		}
		key := add.GetNewMemberSignature().GetInstallationKey()
		if string(key.GetPublicKey()) != string(add.GetNewMemberIdentifier().GetInstallationPublicKey()) {
			t.Error("the installation did not sign")
		}
		key.Bytes, key.PublicKey = nil, nil
		add.GetNewMemberIdentifier().Kind.(*associations.MemberIdentifier_InstallationPublicKey).InstallationPublicKey = nil
		return u
	}
	if a, b := shape(official), shape(ours); !proto.Equal(a, b) {
		t.Errorf("got %v, want %v", b, a)
	}
}

func TestSignatureRequestTexts(t *testing.T) {
	want := testVectors(t).StaticRevoke.Text
	inboxID := testVectors(t).Lifecycle.Steps[0].StateAfter.InboxID
	at, err := time.Parse(time.RFC3339, "2026-11-22T17:25:59Z")
	if err != nil {
		t.Fatal(err)
	}
	wallet := testWallet(t, 1).Identifier()
	r, err := NewSignatureRequest(inboxID, at,
		RevokeMember(wallet, Installation(make([]byte, 32))),
		RevokeMember(wallet, Installation([]byte(strings.Repeat("\xff", 32)))))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Text(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSignatureRequestRefuses(t *testing.T) {
	wallet := testWallet(t, 1).Identifier()
	inboxID := strings.Repeat("ab", 32)
	compressed, _, _ := newPasskey(t).encodings(t)
	mixed := Identifier{KindEthereum, "0x" + strings.Repeat("aB", 20)}
	bare, err := ParseAddress(strings.Repeat("ab", 20))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		inboxID string
		action  Action
		want    error
	}{
		{"fine", inboxID, ChangeRecovery(wallet, Passkey(compressed)), nil},
		{"upper-case inbox id", strings.ToUpper(inboxID), CreateInbox(wallet, 1), ErrInvalidInboxID},
		{"short inbox id", inboxID[1:], CreateInbox(wallet, 1), ErrInvalidInboxID},
		{"mixed case", inboxID, ChangeRecovery(wallet, mixed), ErrInvalidAccountAddress},
		{"without 0x", inboxID, RevokeMember(wallet, bare), ErrInvalidAccountAddress},
		{"mixed case signer", inboxID, RevokeMember(mixed, wallet), ErrInvalidAccountAddress},
		{"no passkey", inboxID, ChangeRecovery(wallet, Passkey(nil)), ErrInvalidPublicKey},
		{"short installation", inboxID, AddMember(wallet, Installation([]byte{1})), ErrInvalidInstallationKey},
		{"installation as owner", inboxID, CreateInbox(Installation(make([]byte, 32)), 1), ErrNotIdentifier},
		{"installation as recovery", inboxID, ChangeRecovery(wallet, Installation(make([]byte, 32))), ErrNotIdentifier},
		{"nobody", inboxID, RevokeMember(wallet, Identifier{}), ErrMissingField},
		{"no action", inboxID, Action{}, ErrNotIdentifier},
	} {
		if _, err := NewSignatureRequest(c.inboxID, testTime, c.action); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestSignatureRequestSigners(t *testing.T) {
	wallet, other, device := testWallet(t, 1), testWallet(t, 2), testInstallation(1)
	inboxID, err := DeriveInboxID(wallet.Identifier(), 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewSignatureRequest(inboxID, testTime,
		CreateInbox(wallet.Identifier(), 0),
		AddMember(wallet.Identifier(), installationID(device)),
		AddMember(installationID(device), other.Identifier()))
	if err != nil {
		t.Fatal(err)
	}
	outstanding := func(want ...Identifier) {
		t.Helper()
		if d := cmp.Diff(want, r.Outstanding(), cmp.AllowUnexported(Identifier{})); d != "" {
			t.Errorf("outstanding (-want +got):\n%s", d)
		}
	}
	outstanding(wallet.Identifier(), installationID(device), other.Identifier())
	for name, sig := range map[string]*associations.Signature{
		"stranger":   testWallet(t, 3).SignText(r.Text()),
		"other text": wallet.SignText(r.Text() + " "),
	} {
		if err := r.AddSignature(t.Context(), sig, nil); !errors.Is(err, ErrUnknownSigner) || err.Error() != "Unknown signer" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.AddSignature(t.Context(), SignInstallation(device, "x"), nil); !errors.Is(err, ErrEd25519) {
		t.Errorf("wrong signature: %v", err)
	}
	if err := r.AddSignature(t.Context(), nil, nil); !errors.Is(err, ErrMissingField) {
		t.Errorf("no signature: %v", err)
	}
	if err := r.AddSignature(t.Context(), SignInstallation(device, r.Text()), nil); err != nil {
		t.Error(err)
	}
	outstanding(wallet.Identifier(), other.Identifier())
	if err := r.AddSignature(t.Context(), SignInstallation(device, r.Text()), nil); !errors.Is(err, ErrUnknownSigner) {
		t.Errorf("a second time: %v", err)
	}
	if _, err := r.Update(); !errors.Is(err, ErrSignaturesOutstanding) {
		t.Errorf("too early: %v", err)
	}
	for _, key := range []*WalletKey{other, wallet} {
		if err := r.AddSignature(t.Context(), key.SignText(r.Text()), nil); err != nil {
			t.Error(err)
		}
	}
	outstanding()
	u, err := r.Update()
	if err != nil {
		t.Fatal(err)
	}
	state, err := ReplayInbox(t.Context(), inboxID, []*associations.IdentityUpdate{u}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(state.Members()); n != 3 {
		t.Errorf("%d members", n)
	}
	// It verifies the same after a change of nanoseconds, but not of seconds.
	u.ClientTimestampNs++
	if _, err := Verify(t.Context(), u, nil); err != nil {
		t.Error(err)
	}
}

func TestContractWallet(t *testing.T) {
	address, err := ParseAddress("0x" + strings.Repeat("cd", 20))
	if err != nil {
		t.Fatal(err)
	}
	inboxID, err := DeriveInboxID(address, DefaultNonce)
	if err != nil {
		t.Fatal(err)
	}
	request := func() *SignatureRequest {
		r, err := NewSignatureRequest(inboxID, testTime, CreateInbox(address, DefaultNonce))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	account := AccountID(8453, address)
	cv := &chain{valid: true, block: 777}
	r := request()
	if err := r.AddContractSignature(t.Context(), account, []byte("sig"), cv); err != nil {
		t.Fatal(err)
	}
	if len(cv.asked) != 1 || cv.asked[0].Block != nil || cv.asked[0].AccountID != account {
		t.Errorf("asked %v", cv.asked)
	}
	u, err := r.Update()
	if err != nil {
		t.Fatal(err)
	}
	got := u.GetActions()[0].GetCreateInbox().GetInitialIdentifierSignature()
	if want := ContractSignature(account, 777, []byte("sig")); !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	v, err := Verify(t.Context(), u, cv)
	if err != nil || *cv.asked[1].Block != "777" {
		t.Fatalf("asked %v, %v", cv.asked, err)
	}
	state, err := (*State)(nil).Apply(v)
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := state.Member(address); !ok || !m.Contract || m.ChainID != 8453 {
		t.Errorf("member %+v, %v", m, ok)
	}

	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		cv   ContractVerifier
		want []error
		code string
	}{
		{"invalid", &chain{}, []error{ErrSignatureInvalid}, "SignatureError::Invalid"},
		{"no access", nil, []error{ErrVerifierUnavailable}, "SignatureError::VerifierError"},
		{"broken", &chain{valid: true, err: broken}, []error{ErrVerifierUnavailable, broken}, "SignatureError::VerifierError"},
	} {
		_, err := Verify(t.Context(), u, c.cv)
		addErr := request().AddContractSignature(t.Context(), account, []byte("sig"), c.cv)
		for _, want := range c.want {
			if !errors.Is(err, want) || !errors.Is(addErr, want) {
				t.Errorf("%s: got %v and %v, want %v", c.name, err, addErr, want)
			}
		}
		if ErrorCode(err) != c.code {
			t.Errorf("%s: code %s, want %s", c.name, ErrorCode(err), c.code)
		}
	}
	if err := request().AddContractSignature(t.Context(), "eip155:1", nil, cv); !errors.Is(err, ErrInvalidLength) {
		t.Errorf("bad account: %v", err)
	}
	if err := request().AddContractSignature(t.Context(), AccountID(1, testWallet(t, 1).Identifier()), nil, cv); !errors.Is(err, ErrUnknownSigner) {
		t.Errorf("other account: %v", err)
	}
}

// TestSignedLogs drives an inbox with real signatures through random changes by
// those who may make them, and replays the log.
func TestSignedLogs(t *testing.T) {
	keys := make(map[Identifier]func(string) *associations.Signature)
	var wallets, devices []Identifier
	for i := range 3 {
		wallet, device := testWallet(t, byte(i+1)), testInstallation(byte(i+1))
		wallets, devices = append(wallets, wallet.Identifier()), append(devices, installationID(device))
		keys[wallet.Identifier()] = wallet.SignText
		keys[installationID(device)] = func(text string) *associations.Signature { return SignInstallation(device, text) }
	}
	p := newPasskey(t)
	public, _, _ := p.encodings(t)
	keys[Passkey(public)] = func(text string) *associations.Signature { return p.sign(t, public, clientDataFor(text)) }
	everybody := append(append([]Identifier{Passkey(public)}, wallets...), devices...)

	rapid.Check(t, func(rt *rapid.T) {
		owner := rapid.SampledFrom(append([]Identifier{Passkey(public)}, wallets...)).Draw(rt, "owner")
		nonce := rapid.Uint64().Draw(rt, "nonce")
		inboxID, err := DeriveInboxID(owner, nonce)
		if err != nil {
			rt.Fatal(err)
		}
		var log []*associations.IdentityUpdate
		var state *State
		for i := range rapid.IntRange(1, 8).Draw(rt, "updates") {
			var a Action
			switch op := rapid.IntRange(0, 4).Draw(rt, "op"); {
			case state == nil:
				a = CreateInbox(owner, nonce)
			case op == 0:
				a = RevokeMember(state.Recovery(), rapid.SampledFrom(everybody).Draw(rt, "revoked"))
			case op == 1:
				a = ChangeRecovery(state.Recovery(), rapid.SampledFrom(wallets).Draw(rt, "recovery"))
			default:
				insiders := []Identifier{state.Recovery()}
				for _, m := range state.Members() {
					insiders = append(insiders, m.Identifier)
				}
				a = AddMember(rapid.SampledFrom(insiders).Draw(rt, "by"), rapid.SampledFrom(everybody).Draw(rt, "added"))
			}
			r, err := NewSignatureRequest(inboxID, testTime.Add(time.Duration(i)*time.Second), a)
			if err != nil {
				rt.Fatal(err)
			}
			for len(r.Outstanding()) > 0 {
				if err := r.AddSignature(t.Context(), keys[r.Outstanding()[0]](r.Text()), nil); err != nil {
					rt.Fatal(err)
				}
			}
			u, err := r.Update()
			if err != nil {
				rt.Fatal(err)
			}
			if err := CheckPublishable(u); err != nil {
				rt.Fatal(err)
			}
			v, err := Verify(t.Context(), u, nil)
			if err != nil {
				rt.Fatal(err)
			}
			next, err := state.Apply(v)
			if err != nil {
				// The only changes of those above that the rules forbid.
				self := a.op == opAdd && a.authority == a.target
				devices := a.op == opAdd && a.authority.Kind() == KindInstallation && a.target.Kind() == KindInstallation
				if !(self && errors.Is(err, ErrGeneric)) && !(devices && errors.Is(err, ErrMemberNotAllowed)) {
					rt.Fatalf("%+v: %v", a, err)
				}
				continue
			}
			if _, err := next.Apply(v); !errors.Is(err, ErrReplay) && !errors.Is(err, ErrMultipleCreate) {
				rt.Fatalf("applied twice: %v", err)
			}
			state, log = next, append(log, u)
		}
		replayed, err := ReplayInbox(t.Context(), inboxID, log, nil)
		if err != nil || string(mustMarshal(rt, replayed)) != string(mustMarshal(rt, state)) {
			rt.Fatalf("replayed %v, %v, want %v", replayed.Proto(), err, state.Proto())
		}
	})
}
