package node_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
)

// A signer signs the text of an identity update.
type signer func(text string) *associations.Signature

func newInstallation(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newWallet(t testing.TB) *identity.WalletKey {
	t.Helper()
	return must(identity.GenerateWalletKey())(t)
}

func byInstallation(key ed25519.PrivateKey) signer {
	return func(text string) *associations.Signature { return identity.SignInstallation(key, text) }
}

func installationMember(key ed25519.PrivateKey) *associations.MemberIdentifier {
	return identity.Installation(publicKey(key)).Proto()
}

// passkey is an authenticator with one key.
type passkey struct{ key *ecdsa.PrivateKey }

func newPasskey(t testing.TB) passkey {
	t.Helper()
	return passkey{must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)}
}

func (p passkey) identifier() identity.Identifier {
	return identity.Passkey(elliptic.MarshalCompressed(elliptic.P256(), p.key.X, p.key.Y))
}

func (p passkey) sign(text string) *associations.Signature {
	client := fmt.Appendf(nil, `{"type":"webauthn.get","challenge":%q,"origin":"https://example.com"}`,
		base64.RawURLEncoding.EncodeToString([]byte(text)))
	clientHash, data := sha256.Sum256(client), make([]byte, 37)
	digest := sha256.Sum256(append(data, clientHash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, p.key, digest[:])
	if err != nil {
		panic(err) // the key is good
	}
	return identity.PasskeySignature(p.identifier().Bytes(), signature, data, client)
}

// A draft is an identity update whose signatures are made at the end, over its text.
type draft struct {
	update *associations.IdentityUpdate
	sign   []func(text string)
}

func newDraft(inbox string, at time.Time) *draft {
	return &draft{update: &associations.IdentityUpdate{InboxId: inbox, ClientTimestampNs: uint64(at.UnixNano())}}
}

func (d *draft) action(a *associations.IdentityAction, sign func(text string)) *draft {
	d.update.Actions = append(d.update.Actions, a)
	d.sign = append(d.sign, sign)
	return d
}

func (d *draft) create(owner identity.Identifier, nonce uint64, by signer) *draft {
	a := &associations.CreateInbox{
		InitialIdentifier: owner.String(), InitialIdentifierKind: owner.ProtoKind(), Nonce: nonce,
	}
	return d.action(&associations.IdentityAction{Kind: &associations.IdentityAction_CreateInbox{CreateInbox: a}},
		func(text string) { a.InitialIdentifierSignature = by(text) })
}

func (d *draft) add(member *associations.MemberIdentifier, existing, added signer) *draft {
	a := &associations.AddAssociation{NewMemberIdentifier: member}
	return d.action(&associations.IdentityAction{Kind: &associations.IdentityAction_Add{Add: a}}, func(text string) {
		a.ExistingMemberSignature, a.NewMemberSignature = existing(text), added(text)
	})
}

func (d *draft) revoke(member *associations.MemberIdentifier, by signer) *draft {
	a := &associations.RevokeAssociation{MemberToRevoke: member}
	return d.action(&associations.IdentityAction{Kind: &associations.IdentityAction_Revoke{Revoke: a}},
		func(text string) { a.RecoveryIdentifierSignature = by(text) })
}

func (d *draft) changeRecovery(to identity.Identifier, by signer) *draft {
	a := &associations.ChangeRecoveryAddress{NewRecoveryIdentifier: to.String(), NewRecoveryIdentifierKind: to.ProtoKind()}
	return d.action(&associations.IdentityAction{Kind: &associations.IdentityAction_ChangeRecoveryAddress{ChangeRecoveryAddress: a}},
		func(text string) { a.ExistingRecoveryIdentifierSignature = by(text) })
}

// signed makes the signatures and returns the update.
func (d *draft) signed(t testing.TB) *associations.IdentityUpdate {
	t.Helper()
	text := must(identity.SignatureText(d.update))(t)
	for _, sign := range d.sign {
		sign(text)
	}
	return d.update
}

// inbox is a person with a wallet and one installation.
type inbox struct {
	id           string
	owner        *identity.WalletKey
	installation ed25519.PrivateKey
	now          time.Time // of its last update
}

func newInbox(t testing.TB) *inbox {
	t.Helper()
	owner := newWallet(t)
	id := must(identity.DeriveInboxID(owner.Identifier(), identity.DefaultNonce))(t)
	return &inbox{id: id, owner: owner, installation: newInstallation(t), now: time.Now().Truncate(time.Second)}
}

// draft begins an update, a second after the one before: texts have whole
// seconds, and an equal text would have equal signatures.
func (i *inbox) draft() *draft {
	i.now = i.now.Add(time.Second)
	return newDraft(i.id, i.now)
}

// register is the first update of an inbox, as official clients make it.
func (i *inbox) register(t testing.TB) *associations.IdentityUpdate {
	t.Helper()
	return i.draft().
		create(i.owner.Identifier(), identity.DefaultNonce, i.owner.SignText).
		add(installationMember(i.installation), i.owner.SignText, byInstallation(i.installation)).
		signed(t)
}

// link is an update by which a wallet joins the inbox.
func (i *inbox) link(t testing.TB, wallet *identity.WalletKey) *associations.IdentityUpdate {
	t.Helper()
	return i.draft().add(wallet.Identifier().Proto(), byInstallation(i.installation), wallet.SignText).signed(t)
}

// unlink is an update by which a wallet leaves the inbox.
func (i *inbox) unlink(t testing.TB, wallet *identity.WalletKey) *associations.IdentityUpdate {
	t.Helper()
	return i.draft().revoke(wallet.Identifier().Proto(), i.owner.SignText).signed(t)
}

func (c *client) publish(ctx context.Context, update *associations.IdentityUpdate) (*identityapi.PublishIdentityUpdateResponse, error) {
	return c.identity.PublishIdentityUpdate(ctx, &identityapi.PublishIdentityUpdateRequest{IdentityUpdate: update})
}

// updates returns the log of an inbox above a sequence id.
func (c *client) updates(ctx context.Context, t testing.TB, inbox string, after uint64) []*identityapi.GetIdentityUpdatesResponse_IdentityUpdateLog {
	t.Helper()
	res := must(c.identity.GetIdentityUpdates(ctx, &identityapi.GetIdentityUpdatesRequest{
		Requests: []*identityapi.GetIdentityUpdatesRequest_Request{{InboxId: inbox, SequenceId: after}},
	}))(t)
	if len(res.Responses) != 1 || res.Responses[0].InboxId != inbox {
		t.Fatalf("got %v", res)
	}
	return res.Responses[0].Updates
}

// wantUpdates fails unless the log of an inbox holds exactly these updates, with
// ascending numbers.
func (c *client) wantUpdates(ctx context.Context, t testing.TB, inbox string, want ...*associations.IdentityUpdate) {
	t.Helper()
	got := c.updates(ctx, t, inbox, 0)
	if len(got) != len(want) {
		t.Errorf("%d updates, want %d", len(got), len(want))
		return
	}
	var last uint64
	for i, entry := range got {
		if entry.SequenceId <= last {
			t.Errorf("update %d has sequence id %d after %d", i, entry.SequenceId, last)
		}
		last = entry.SequenceId
		if !proto.Equal(entry.Update, want[i]) {
			t.Errorf("update %d (-want +got):\n%s", i, cmp.Diff(want[i], entry.Update, protocmp.Transform()))
		}
	}
}

// inboxOf looks an identifier up; "" if it has no inbox.
func (c *client) inboxOf(ctx context.Context, t testing.TB, id identity.Identifier) string {
	t.Helper()
	res := must(c.identity.GetInboxIds(ctx, &identityapi.GetInboxIdsRequest{
		Requests: []*identityapi.GetInboxIdsRequest_Request{{Identifier: id.String(), IdentifierKind: id.ProtoKind()}},
	}))(t)
	if len(res.Responses) != 1 || res.Responses[0].Identifier != id.String() {
		t.Fatalf("got %v", res)
	}
	return res.Responses[0].GetInboxId()
}

func (c *client) wantInboxOf(ctx context.Context, t testing.TB, id identity.Identifier, want string) {
	t.Helper()
	if got := c.inboxOf(ctx, t, id); got != want {
		t.Errorf("%v is in inbox %q, want %q", id.Kind(), got, want)
	}
}

// I1: an unknown address has one response, with the identifier and no inbox.
func TestI1(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	address := newWallet(t).Identifier().String()
	for _, kind := range []associations.IdentifierKind{0, 1} {
		res := must(c.identity.GetInboxIds(ctx, &identityapi.GetInboxIdsRequest{
			Requests: []*identityapi.GetInboxIdsRequest_Request{{Identifier: address, IdentifierKind: kind}},
		}))(t)
		if len(res.Responses) != 1 || res.Responses[0].Identifier != address || res.Responses[0].InboxId != nil {
			t.Errorf("got %v", res)
		}
	}
}

// I2: n requests, also repeated ones, have n responses in the same order.
func TestI2(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	req, want := &identityapi.GetInboxIdsRequest{}, []string{}
	for i := range 60 {
		in := newInbox(t)
		inboxID := ""
		if i%3 == 0 {
			must(c.publish(ctx, in.register(t)))(t)
			inboxID = in.id
		}
		for range 1 + i%2 {
			req.Requests = append(req.Requests, &identityapi.GetInboxIdsRequest_Request{Identifier: in.owner.Identifier().String(), IdentifierKind: 1})
			want = append(want, inboxID)
		}
	}
	req.Requests, want = append(req.Requests, req.Requests[:10]...), append(want, want[:10]...)
	res := must(c.identity.GetInboxIds(ctx, req))(t)
	if len(res.Responses) != len(want) {
		t.Fatalf("%d responses, want %d", len(res.Responses), len(want))
	}
	for i, r := range res.Responses {
		if r.Identifier != req.Requests[i].Identifier || r.GetInboxId() != want[i] || (r.InboxId != nil) != (want[i] != "") {
			t.Errorf("response %d: got %v, want inbox %q", i, r, want[i])
		}
	}
	if res := must(c.identity.GetInboxIds(ctx, &identityapi.GetInboxIdsRequest{}))(t); len(res.Responses) != 0 {
		t.Errorf("got %v for no request", res)
	}
}

// I3: a published update is in the log and its address is found, at once and on
// every connection.
func TestI3(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{}), short(t)
	writer, reader := dial(t, n), dial(t, n)
	for range 20 {
		in := newInbox(t)
		update := in.register(t)
		before := uint64(time.Now().UnixNano())
		must(writer.publish(ctx, update))(t)
		reader.wantUpdates(ctx, t, in.id, update)
		reader.wantInboxOf(ctx, t, in.owner.Identifier(), in.id)
		entry := reader.updates(ctx, t, in.id, 0)[0]
		if after := uint64(time.Now().UnixNano()); entry.ServerTimestampNs < before || entry.ServerTimestampNs > after {
			t.Errorf("server time %d, want %d to %d", entry.ServerTimestampNs, before, after)
		}
	}
}

// An inbox that a passkey has made is found by it, with the kind in the answer,
// and the passkey's log is served as it was published.
func TestI3_Passkey(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	key, in := newPasskey(t), newInbox(t)
	in.id = must(identity.DeriveInboxID(key.identifier(), 1))(t)
	update := in.draft().create(key.identifier(), 1, key.sign).
		add(installationMember(in.installation), key.sign, byInstallation(in.installation)).signed(t)
	must(c.publish(ctx, update))(t)
	c.wantUpdates(ctx, t, in.id, update)
	res := must(c.identity.GetInboxIds(ctx, &identityapi.GetInboxIdsRequest{
		Requests: []*identityapi.GetInboxIdsRequest_Request{
			{Identifier: key.identifier().String(), IdentifierKind: associations.IdentifierKind_IDENTIFIER_KIND_PASSKEY},
			{Identifier: key.identifier().String(), IdentifierKind: associations.IdentifierKind_IDENTIFIER_KIND_ETHEREUM},
		},
	}))(t)
	if r := res.Responses[0]; r.GetInboxId() != in.id || r.IdentifierKind != associations.IdentifierKind_IDENTIFIER_KIND_PASSKEY {
		t.Errorf("got %v", r)
	}
	if r := res.Responses[1]; r.InboxId != nil {
		t.Errorf("as an address: got %v", r)
	}
}

// I4: a request without update is an error.
func TestI4(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	c.unchanged(ctx, t, func() {
		_, err := c.publish(ctx, nil)
		wantCode(t, err, codes.Unknown, codes.InvalidArgument)
		if s, _ := status.FromError(err); s.Message() != "IdentityUpdate is required" {
			t.Errorf("got %q", s.Message())
		}
	})
}

// I5: a bad signature, a wrong inbox id and a replayed update are refused; nothing is stored.
func TestI5(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	in, other := newInbox(t), newInbox(t)
	stranger, wallet, key := newWallet(t), newWallet(t), newInstallation(t)
	registered, linked, unlinked := in.register(t), in.link(t, wallet), in.unlink(t, wallet)
	log := []*associations.IdentityUpdate{registered, linked, unlinked}
	for _, update := range log {
		must(c.publish(ctx, update))(t)
	}

	owner := in.owner.SignText
	flipped := func(sign signer) signer {
		return func(text string) *associations.Signature {
			s := sign(text)
			switch {
			case s.GetErc_191() != nil:
				s.GetErc_191().Bytes[40] ^= 1
			case s.GetInstallationKey() != nil:
				s.GetInstallationKey().Bytes[40] ^= 1
			}
			return s
		}
	}
	none := func(string) *associations.Signature { return nil }
	unset := func(string) *associations.Signature { return &associations.Signature{} }
	otherText := func(text string) *associations.Signature { return in.owner.SignText(text + " ") }
	contract := func(string) *associations.Signature {
		return identity.ContractSignature(identity.AccountID(1, in.owner.Identifier()), 1, random(65))
	}
	foreign := other.register(t)
	foreign.InboxId = in.id
	addKey := func(existing, added signer) *associations.IdentityUpdate {
		return in.draft().add(installationMember(key), existing, added).signed(t)
	}
	shortKey := identity.Installation(publicKey(key)[:31]).Proto()

	for _, tc := range []struct {
		name   string
		update *associations.IdentityUpdate
		reason error
		code   codes.Code
	}{
		{"replayed first", registered, identity.ErrMultipleCreate, codes.InvalidArgument},
		{"replayed", linked, identity.ErrReplay, codes.InvalidArgument},
		{"a second beginning", in.draft().create(in.owner.Identifier(), 1, owner).signed(t), identity.ErrMultipleCreate, codes.InvalidArgument},
		{"a stranger adds", addKey(stranger.SignText, byInstallation(key)), identity.ErrMissingExistingMember, codes.InvalidArgument},
		{"a stranger revokes", in.draft().revoke(installationMember(in.installation), stranger.SignText).signed(t), identity.ErrMissingExistingMember, codes.InvalidArgument},
		{"a stranger recovers", in.draft().changeRecovery(stranger.Identifier(), stranger.SignText).signed(t), identity.ErrMissingExistingMember, codes.InvalidArgument},
		{"an installation revokes", in.draft().revoke(in.owner.Identifier().Proto(), byInstallation(in.installation)).signed(t), identity.ErrMissingExistingMember, codes.InvalidArgument},
		{"an installation adds one", addKey(byInstallation(in.installation), byInstallation(key)), identity.ErrMemberNotAllowed, codes.InvalidArgument},
		{"the removed adds", addKey(wallet.SignText, byInstallation(key)), identity.ErrMissingExistingMember, codes.InvalidArgument},
		{"added by another key", addKey(owner, byInstallation(newInstallation(t))), identity.ErrNewMemberIDSignatureMismatch, codes.InvalidArgument},
		{"added by itself", in.draft().add(in.owner.Identifier().Proto(), owner, owner).signed(t), identity.ErrGeneric, codes.InvalidArgument},
		{"signature over another text", addKey(otherText, byInstallation(key)), identity.ErrMissingExistingMember, codes.InvalidArgument},
		{"damaged new signature", addKey(owner, flipped(byInstallation(key))), identity.ErrEd25519, codes.InvalidArgument},
		{"no existing signature", addKey(none, byInstallation(key)), nil, codes.InvalidArgument},
		{"no new signature", addKey(owner, none), nil, codes.InvalidArgument},
		{"unset signature", addKey(unset, byInstallation(key)), nil, codes.InvalidArgument},
		{"an unset action", &associations.IdentityUpdate{InboxId: in.id, Actions: []*associations.IdentityAction{{}}}, nil, codes.InvalidArgument},
		{"a key of 31 bytes", in.draft().add(shortKey, owner, byInstallation(key)).signed(t), nil, codes.InvalidArgument},
		{"no member", in.draft().add(&associations.MemberIdentifier{}, owner, byInstallation(key)).update, nil, codes.InvalidArgument},
		{"a contract, no chain", addKey(contract, byInstallation(key)), identity.ErrVerifierUnavailable, codes.Unavailable},
		{"another's log", foreign, nil, codes.InvalidArgument},
		{"recovery by no address", in.draft().changeRecovery(must(identity.ParseIdentifier(1, "nobody"))(t), owner).signed(t), nil, codes.InvalidArgument},
		{"recovery in capitals", in.draft().changeRecovery(must(identity.ParseIdentifier(1, "0x"+strings.ToUpper(stranger.Identifier().String()[2:])))(t), owner).signed(t), nil, codes.InvalidArgument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.unchanged(ctx, t, func() {
				_, err := c.publish(ctx, tc.update)
				wantCode(t, err, tc.code)
				if want, ok := tc.reason.(*identity.Error); ok && !strings.HasPrefix(status.Convert(err).Message(), want.Error()) &&
					tc.reason != identity.ErrMemberNotAllowed {
					t.Errorf("got %v, want the reason %q", err, want)
				}
			})
			c.wantUpdates(ctx, t, in.id, log...)
			c.wantInboxOf(ctx, t, stranger.Identifier(), "")
		})
	}

	t.Run("wrong inbox", func(t *testing.T) {
		for _, id := range []string{"", "00", strings.Repeat("0", 64), strings.ToUpper(other.id), other.id + "00", "not hexadecimal", strings.Repeat("g", 64)} {
			wrong := newInbox(t)
			wrong.id = id
			_, err := c.publish(ctx, wrong.register(t))
			wantCode(t, err, codes.InvalidArgument)
			c.wantInboxOf(ctx, t, wrong.owner.Identifier(), "")
		}
	})
	t.Run("no beginning", func(t *testing.T) {
		stray := newInbox(t)
		_, err := c.publish(ctx, stray.link(t, newWallet(t)))
		wantStatus(t, err, codes.InvalidArgument, identity.ErrNotCreated.Error())
		c.wantUpdates(ctx, t, stray.id)
	})
	// A client whose answer was lost sends the newest update again.
	t.Run("the newest again", func(t *testing.T) {
		c.unchanged(ctx, t, func() { must(c.publish(ctx, unlinked))(t) })
		c.wantUpdates(ctx, t, in.id, log...)
	})
}

// I6: the 257th update of an inbox finds its log full.
func TestI6(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), long(t)
	in := newInbox(t)
	log := []*associations.IdentityUpdate{in.register(t)}
	wallet := newWallet(t)
	for i := range 255 {
		if i%2 == 0 {
			log = append(log, in.link(t, wallet))
		} else {
			log = append(log, in.unlink(t, wallet))
		}
	}
	for i, update := range log {
		if _, err := c.publish(ctx, update); err != nil {
			t.Fatalf("update %d: %v", i+1, err)
		}
	}
	c.unchanged(ctx, t, func() {
		_, err := c.publish(ctx, in.unlink(t, wallet))
		wantCode(t, err, codes.Unknown, codes.InvalidArgument)
		if !strings.Contains(status.Convert(err).Message(), "inbox log is full") {
			t.Errorf("got %v", err)
		}
	})
	c.wantUpdates(ctx, t, in.id, log...)
	c.wantInboxOf(ctx, t, wallet.Identifier(), in.id)
}

// I7: concurrent updates of one inbox come one after the other, each checked
// against those before it.
func TestI7(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{}), short(t)
	c, other := dial(t, n), dial(t, n)

	// race publishes all at once and returns how many were accepted.
	race := func(t *testing.T, updates []*associations.IdentityUpdate) (accepted int) {
		errs := make([]error, len(updates))
		var group errgroup.Group
		for i, update := range updates {
			publisher := []*client{c, other}[i%2]
			group.Go(func() error {
				_, errs[i] = publisher.publish(ctx, update)
				return nil
			})
		}
		group.Wait()
		for _, err := range errs {
			if err == nil {
				accepted++
			} else {
				wantCode(t, err, codes.InvalidArgument)
			}
		}
		return accepted
	}
	replays := func(t *testing.T, in *inbox, want int) *identity.State {
		t.Helper()
		var log []*associations.IdentityUpdate
		for _, entry := range c.updates(ctx, t, in.id, 0) {
			log = append(log, entry.Update)
		}
		if len(log) != want {
			t.Errorf("%d updates, want %d", len(log), want)
		}
		return must(identity.ReplayInbox(ctx, in.id, log, nil))(t)
	}
	for range 10 {
		in := newInbox(t)
		var creations, takeovers, links []*associations.IdentityUpdate
		for range 8 {
			creations = append(creations, in.register(t))
			takeovers = append(takeovers, in.draft().changeRecovery(newWallet(t).Identifier(), in.owner.SignText).signed(t))
			links = append(links, in.link(t, newWallet(t)))
		}
		if n := race(t, creations); n != 1 {
			t.Fatalf("an inbox was created %d times", n)
		}
		replays(t, in, 1)
		if n := race(t, takeovers); n != 1 {
			t.Fatalf("the recovery address was changed %d times by its old owner", n)
		}
		replays(t, in, 2)
		if n := race(t, links); n != len(links) {
			t.Fatalf("%d of %d wallets were linked", n, len(links))
		}
		if n := len(replays(t, in, 2+len(links)).Members()); n != 2+len(links) {
			t.Fatalf("%d members, want %d", n, 2+len(links))
		}
	}
}

// I8: the updates above a sequence id, ascending and complete; an unknown inbox has none.
func TestI8(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), long(t)
	in, bystander := newInbox(t), newInbox(t)
	log := []*associations.IdentityUpdate{in.register(t)}
	must(c.publish(ctx, bystander.register(t)))(t)
	for range 120 { // more than a page of messages
		log = append(log, in.link(t, newWallet(t)))
	}
	for _, update := range log {
		must(c.publish(ctx, update))(t)
	}
	c.wantUpdates(ctx, t, in.id, log...)
	all := c.updates(ctx, t, in.id, 0)
	for _, i := range []int{0, 1, 50, 119, 120} {
		after := c.updates(ctx, t, in.id, all[i].SequenceId)
		if diff := cmp.Diff(all[i+1:], after, protocmp.Transform()); diff != "" && len(all[i+1:])+len(after) > 0 {
			t.Errorf("after update %d (-want +got):\n%s", i, diff)
		}
	}
	if got := c.updates(ctx, t, in.id, 1<<64-1); len(got) != 0 {
		t.Errorf("%d updates after the last number", len(got))
	}
	if got := c.updates(ctx, t, newInbox(t).id, 0); len(got) != 0 {
		t.Errorf("%d updates of an unknown inbox", len(got))
	}

	ask := []*identityapi.GetIdentityUpdatesRequest_Request{
		{InboxId: bystander.id}, {InboxId: newInbox(t).id}, {InboxId: in.id, SequenceId: all[118].SequenceId}, {InboxId: bystander.id},
		{InboxId: strings.ToUpper(bystander.id)},
	}
	res := must(c.identity.GetIdentityUpdates(ctx, &identityapi.GetIdentityUpdatesRequest{Requests: ask}))(t)
	for i, want := range []int{1, 0, 2, 1, 1} {
		if r := res.Responses[i]; r.InboxId != ask[i].InboxId || len(r.Updates) != want {
			t.Errorf("response %d: inbox %s, %d updates, want %d", i, r.InboxId, len(r.Updates), want)
		}
	}
	_, err := c.identity.GetIdentityUpdates(ctx, &identityapi.GetIdentityUpdatesRequest{
		Requests: []*identityapi.GetIdentityUpdatesRequest_Request{{InboxId: "not hexadecimal"}},
	})
	wantCode(t, err, codes.InvalidArgument, codes.Unknown)
}

// I9: an address that was removed from its inbox is not found any more.
func TestI9(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	in, wallet := newInbox(t), newWallet(t)
	must(c.publish(ctx, in.register(t)))(t)
	for range 3 {
		c.wantInboxOf(ctx, t, wallet.Identifier(), "")
		must(c.publish(ctx, in.link(t, wallet)))(t)
		c.wantInboxOf(ctx, t, wallet.Identifier(), in.id)
		must(c.publish(ctx, in.unlink(t, wallet)))(t)
	}
	c.wantInboxOf(ctx, t, wallet.Identifier(), "")
	c.wantInboxOf(ctx, t, in.owner.Identifier(), in.id)
	// A recovery address needs not be a member, and is not found then.
	must(c.publish(ctx, in.unlink(t, in.owner)))(t)
	c.wantInboxOf(ctx, t, in.owner.Identifier(), "")
	// Added and removed in one update: never seen.
	must(c.publish(ctx, in.draft().
		add(wallet.Identifier().Proto(), in.owner.SignText, wallet.SignText).
		revoke(wallet.Identifier().Proto(), in.owner.SignText).signed(t)))(t)
	c.wantInboxOf(ctx, t, wallet.Identifier(), "")
}

// I10: an address that moved is found in its new inbox; one that is in two, in
// that which it was added to last, and in the other again when it leaves that.
func TestI10(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	a, b, wallet := newInbox(t), newInbox(t), newWallet(t)
	for _, update := range []*associations.IdentityUpdate{a.register(t), b.register(t), a.link(t, wallet)} {
		must(c.publish(ctx, update))(t)
	}
	steps := []struct {
		update *associations.IdentityUpdate
		want   string
	}{
		{a.unlink(t, wallet), ""},
		{b.link(t, wallet), b.id},
		{a.link(t, wallet), a.id},
		{b.link(t, newWallet(t)), a.id},
		{b.link(t, wallet), a.id}, // it was a member already: nothing new
		{a.unlink(t, wallet), b.id},
		{b.unlink(t, wallet), ""},
	}
	for i, step := range steps {
		must(c.publish(ctx, step.update))(t)
		if got := c.inboxOf(ctx, t, wallet.Identifier()); got != step.want {
			t.Errorf("after step %d: inbox %q, want %q", i, got, step.want)
		}
	}
}

// I11: sequence ids ascend per inbox, are above 0 and never used twice, whatever
// is published and refused in between, and also when the node is started again.
func TestI11(t *testing.T) {
	t.Parallel()
	ctx := long(t)
	options := node.Options{Data: "data"}.On(vfs.NewMem())
	used := map[uint64]bool{}
	var highest uint64
	rapid.Check(t, func(r *rapid.T) {
		n, err := launch(options)
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, n)
		inboxes := make([]*inbox, rapid.IntRange(1, 3).Draw(r, "inboxes"))
		want := make([][]*associations.IdentityUpdate, len(inboxes))
		for i := range inboxes {
			inboxes[i] = newInbox(t)
		}
		for range rapid.IntRange(1, 12).Draw(r, "updates") {
			i := rapid.IntRange(0, len(inboxes)-1).Draw(r, "inbox")
			in := inboxes[i]
			var update *associations.IdentityUpdate
			good := len(want[i]) > 0
			switch kind := rapid.SampledFrom([]string{"register", "link", "forge", "replay"}).Draw(r, "kind"); {
			case kind == "register":
				update, good = in.register(t), len(want[i]) == 0
			case kind == "link":
				update = in.link(t, newWallet(t))
			case kind == "replay" && len(want[i]) > 1:
				update, good = want[i][0], false
			default:
				update, good = in.draft().changeRecovery(newWallet(t).Identifier(), newWallet(t).SignText).signed(t), false
			}
			_, err := c.publish(ctx, update)
			if (err == nil) != good {
				t.Fatalf("publishing: %v, want accepted %v", err, good)
			}
			if good {
				want[i] = append(want[i], update)
			}
		}
		lowest := uint64(1<<64 - 1)
		top := highest
		for i, in := range inboxes {
			c.wantUpdates(ctx, t, in.id, want[i]...)
			for _, entry := range c.updates(ctx, t, in.id, 0) {
				if entry.SequenceId == 0 || used[entry.SequenceId] {
					t.Fatalf("sequence id %d is used twice", entry.SequenceId)
				}
				used[entry.SequenceId] = true
				lowest, top = min(lowest, entry.SequenceId), max(top, entry.SequenceId)
			}
		}
		if lowest <= highest {
			t.Fatalf("sequence id %d after %d", lowest, highest)
		}
		highest = top
		c.conn.Close()
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// I12: without access to chains, each contract signature has its answer: not
// valid, with the reason.
func TestI12(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	type signature = identityapi.VerifySmartContractWalletSignatureRequestSignature
	address := newWallet(t).Identifier().String()
	asks := []*signature{
		{AccountId: "eip155:1:" + address, Signature: random(65), Hash: random(32)},
		{AccountId: "eip155:8453:" + address, Signature: random(65), Hash: random(32), BlockNumber: proto.Uint64(0)},
		{AccountId: address, Signature: random(65), Hash: random(32)},
		{AccountId: "eip155:1:" + address, Signature: random(65), Hash: random(31)},
		{},
	}
	res := must(c.identity.VerifySmartContractWalletSignatures(ctx, &identityapi.VerifySmartContractWalletSignaturesRequest{Signatures: asks}))(t)
	if len(res.Responses) != len(asks) {
		t.Fatalf("%d responses, want %d", len(res.Responses), len(asks))
	}
	for i, r := range res.Responses {
		if r.IsValid || r.GetError() == "" {
			t.Errorf("response %d: %v", i, r)
		}
	}
}
