package interop

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

func goSigner(t *testing.T, wallet official.Wallet) *xmtp.PrivateKeySigner {
	t.Helper()
	signer, err := xmtp.NewPrivateKeySigner(wallet.Key)
	return check(t, signer, err)
}

// goDevice opens one more installation of a wallet's inbox, with a client of ours.
func goDevice(t *testing.T, url string, signer xmtp.Signer, options ...xmtp.Option) *xmtp.Client {
	t.Helper()
	client, err := xmtp.NewClient(t.Context(), signer, append([]xmtp.Option{xmtp.WithNode(url), xmtp.InMemory()}, options...)...)
	check(t, client, err)
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("closing a Go client: %v", err)
		}
	})
	return client
}

// bytesOf is an installation id as an argument of an SDK.
func bytesOf(t *testing.T, id string) map[string]any {
	t.Helper()
	b, err := hex.DecodeString(id)
	return official.Bytes(check(t, b, err))
}

// later is a clock at which members' installations are looked at again.
func later() time.Time { return time.Now().Add(time.Hour) }

// hasRead tells whether an official client has read a text in a conversation, after
// a sync, if it is in it.
func hasRead(c *official.Client, v *official.Conversation, text string) bool {
	_ = c.TryCall(nil, "conversations.syncAll") // may be an error for one that was removed
	found, err := c.TryFind(v)
	return err == nil && slices.Contains(found.Texts(), text)
}

// Go's installation is revoked by an official one, and the reverse. Official and Go
// members remove what was revoked when they next send.
func TestGoDevicesRevoked(t *testing.T) {
	scenario(t, "Go: installations of one inbox revoke each other, members remove them", everyVersion, func(t *testing.T, w *world) {
		ctx := t.Context()
		alice, bob := w.Client("alice"), w.Client("bob")
		signer := goSigner(t, alice.Wallet)
		laptop := goDevice(t, w.url, signer)
		equal(t, "inbox of the Go installation", laptop.InboxID(), alice.InboxID)
		group := bob.Group([]*official.Client{alice}, nil)
		group.Send("to both")
		alice.SyncAll()
		contains(t, "the official installation reads", alice.Find(group).Texts(), "to both")
		l := find(t, laptop, group.ID)
		equal(t, "the Go installation reads", l.texts(), []string{"to both"})

		alice.Call(nil, "revokeInstallations", []any{bytesOf(t, laptop.InstallationID())})
		if revoked, err := laptop.IsRevoked(ctx); err != nil || !revoked {
			t.Errorf("revoked: %v, %v", revoked, err)
		}
		eventually(t, "the official member has removed the Go installation", func() bool {
			group.Send("revoked")
			l.sync()
			active, err := l.IsActive()
			return err == nil && !active
		})
		group.Send("not for the revoked")
		l.sync()
		if slices.Contains(l.texts(), "not for the revoked") {
			t.Error("the revoked Go installation reads on")
		}
		if _, err := l.SendText(ctx, "still here?"); !errors.Is(err, xmtp.ErrRemoved) || !errors.Is(err, xmtp.ErrRevoked) {
			t.Errorf("the revoked Go installation sends: %v", err)
		}
		// It can't create a conversation, as an official one can't.
		if _, err := laptop.NewGroup(ctx, xmtp.GroupOptions{}, bob.InboxID); !errors.Is(err, xmtp.ErrRevoked) {
			t.Errorf("the revoked Go installation creates a group: %v", err)
		}

		phone, carol := goDevice(t, w.url, signer), goDevice(t, w.url, goSigner(t, w.Wallet()), xmtp.WithClock(later))
		created, err := carol.NewGroup(ctx, xmtp.GroupOptions{}, alice.InboxID)
		v := ours{check(t, created, err), t}
		v.say("to both")
		theirs := &official.Conversation{ID: v.ID()}
		alice.SyncAll()
		theirs = alice.Find(theirs)
		if err := phone.RevokeInstallations(ctx, signer, alice.InstallationID); err != nil {
			t.Fatal(err)
		}
		equal(t, "installations", stateOf(bob, alice.InboxID).installations(), []string{phone.InstallationID()})
		if err := theirs.TryCall(nil, "sendText", "not noticed yet"); err != nil {
			t.Errorf("the revoked official installation sends: %v", err)
		}
		if err := alice.TryCall(nil, "conversations.createGroup", []string{bob.InboxID}); err == nil {
			t.Error("the revoked official installation creates a group")
		}
		v.sync()
		if err := v.AddMembers(ctx); err != nil { // looks at installations
			t.Fatal(err)
		}
		v.say("without the official installation")
		p := find(t, phone, v.ID())
		contains(t, "the Go installation reads", p.texts(), "to both", "not noticed yet", "without the official installation")
		if hasRead(alice, theirs, "without the official installation") {
			t.Error("the revoked official installation reads on")
		}
		if err := theirs.TryCall(nil, "sendText", "still here?"); err == nil {
			t.Error("the revoked official installation sends after it was removed")
		}
		p.say("it works")
		v.sync()
		contains(t, "carol reads", v.texts(), "it works")
	})
}

// New installations are let in by members of the other kind.
func TestGoDevicesLetIn(t *testing.T) {
	scenario(t, "Go: new installations are let in by a member's message, both ways", everyVersion, func(t *testing.T, w *world) {
		ctx := t.Context()
		alice, bob := w.Client("alice"), w.Client("bob")
		signer := goSigner(t, alice.Wallet)
		carol := goDevice(t, w.url, goSigner(t, w.Wallet()))
		created, err := carol.NewGroup(ctx, xmtp.GroupOptions{}, alice.InboxID, bob.InboxID)
		v := ours{check(t, created, err), t}
		v.say("before")
		theirs := &official.Conversation{ID: v.ID()}
		bob.SyncAll()
		atBob := bob.Find(theirs)

		alice2 := w.Installation("alice2", alice.Wallet)
		eventually(t, "a Go member lets an official installation in", func() bool {
			v.say("from Go")
			return hasRead(alice2, theirs, "from Go")
		})
		atAlice2 := alice2.Find(theirs)
		atAlice2.Send("from the new official installation")
		v.sync()
		contains(t, "carol reads", v.texts(), "from the new official installation")

		phone := goDevice(t, w.url, signer, xmtp.WithoutWorkers())
		eventually(t, "an official member lets a Go installation in", func() bool {
			atBob.Send("from an SDK")
			if err := phone.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			_, err := phone.Conversation(v.ID())
			return err == nil
		})
		atBob.Send("to all")
		p := find(t, phone, v.ID())
		contains(t, "the new Go installation reads", p.texts(), "to all")
		p.say("from the new Go installation")
		for _, c := range []*official.Client{alice, alice2, bob} {
			if !hasRead(c, theirs, "from the new Go installation") {
				t.Errorf("%s does not read the new Go installation", c.Name)
			}
		}
		atBob.Sync()
		sameEpochAs(t, v, atBob, alice.Find(theirs), alice2.Find(theirs))
	})
}

// An inbox's own other installation lets a new one in, without anybody's message, by
// the group of its installations.
func TestGoDevicesMeet(t *testing.T) {
	scenario(t, "Go: a new installation is let in by an older one of its inbox, both ways", everyVersion, func(t *testing.T, w *world) {
		ctx := t.Context()
		wallet := w.Wallet()
		signer := goSigner(t, wallet)
		bob := goDevice(t, w.url, goSigner(t, w.Wallet()), xmtp.WithoutWorkers())
		laptop := w.withSync(w.Process, "laptop", wallet)
		created, err := bob.NewGroup(ctx, xmtp.GroupOptions{}, laptop.InboxID)
		v := ours{check(t, created, err), t}
		v.say("before")
		laptop.SyncAll()

		phone := goDevice(t, w.url, signer)
		eventually(t, "the official installation lets the Go one in", func() bool {
			laptop.SyncAll()
			if err := phone.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			_, err := phone.Conversation(v.ID())
			return err == nil
		})
		// Nothing shows of the group of installations.
		if list, err := phone.Conversations(xmtp.ConversationOptions{}); err != nil || len(list) != 1 {
			t.Errorf("%d conversations, %v", len(list), err)
		}
		find(t, phone, v.ID()).say("from the phone")
		v.sync()
		contains(t, "bob reads", v.texts(), "from the phone")

		// Now the Go installation is the older one, and the only one that is there.
		if err := phone.RevokeOtherInstallations(ctx, signer); err != nil {
			t.Fatal(err)
		}
		tablet := w.withSync(w.Process, "tablet", wallet)
		theirs := &official.Conversation{ID: v.ID()}
		eventually(t, "the Go installation lets the official one in", func() bool {
			if err := phone.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			tablet.SyncAll()
			_, err := tablet.TryFind(theirs)
			return err == nil
		})
		v.sync()
		v.say("to the tablet")
		if !hasRead(tablet, theirs, "to the tablet") {
			t.Error("the tablet doesn't read")
		}
	})
}

// Ten installations, of either side, are the limit for either side; from the error
// each goes on.
func TestGoInstallationLimit(t *testing.T) {
	scenario(t, "Go: ten installations, some official, some Go", everyVersion, func(t *testing.T, w *world) {
		ctx := t.Context()
		wallet := w.Wallet()
		signer := goSigner(t, wallet)
		var ids []string
		for i := range 3 {
			ids = append(ids, w.Installation(fmt.Sprint("device", i), wallet).InstallationID)
		}
		for range 7 {
			ids = append(ids, goDevice(t, w.url, signer, xmtp.WithoutWorkers()).InstallationID())
		}
		_, err := w.TryInstallation("eleventh", wallet)
		if err == nil || !strings.Contains(err.Error(), "has already registered 10/10 installations") {
			t.Errorf("an official eleventh: %v", err)
		}
		_, err = xmtp.NewClient(ctx, signer, xmtp.WithNode(w.url), xmtp.InMemory())
		limit := new(xmtp.InstallationLimitError)
		if !errors.As(err, &limit) {
			t.Fatalf("a Go eleventh: %v", err)
		}
		var named []string
		for _, i := range limit.Installations {
			named = append(named, i.ID)
			if age := time.Since(i.AddedAt); age < 0 || age > 10*time.Minute {
				t.Errorf("age %v", age)
			}
		}
		equal(t, "installations in their order", named, ids)
		if err := limit.Revoke(ctx, signer, ids[0], ids[3]); err != nil {
			t.Fatal(err)
		}
		w.Installation("eleventh", wallet)
		last := goDevice(t, w.url, signer, xmtp.WithoutWorkers())
		if _, err := xmtp.NewClient(ctx, signer, xmtp.WithNode(w.url), xmtp.InMemory()); !errors.As(err, &limit) {
			t.Errorf("one more: %v", err)
		}
		if w.sdk != official.Oldest { // which has no static calls
			w.Must(official.Request{Op: "call", Path: "createBackend", As: "backend-" + last.InboxID(), Args: []any{map[string]any{"env": "local", "apiUrl": w.url}}}, nil)
			w.Must(official.Request{Op: "call", Path: "Client.revokeInstallations", Args: []any{
				wallet.Signer(), last.InboxID(), []any{bytesOf(t, last.InstallationID())}, official.Ref("backend-" + last.InboxID()),
			}}, nil)
			if revoked, err := last.IsRevoked(ctx); err != nil || !revoked {
				t.Errorf("revoked: %v, %v", revoked, err)
			}
		}
	})
}

// A Go bot that lost its database revokes what was lost in the update that adds the
// new installation; official members do both in one commit.
func TestGoReplacing(t *testing.T) {
	scenario(t, "Go: a lost installation is replaced in one identity update", everyVersion, func(t *testing.T, w *world) {
		ctx := t.Context()
		bob, signer := w.Client("bob"), goSigner(t, w.Wallet())
		lost := goDevice(t, w.url, signer, xmtp.WithoutWorkers())
		theirs := bob.DM(&official.Client{InboxID: lost.InboxID()})
		theirs.Send("to the lost one")
		equal(t, "the lost one reads", find(t, lost, theirs.ID).texts(), []string{"to the lost one"})
		bot := goDevice(t, w.url, signer, xmtp.WithReplacing(func(xmtp.Installation) bool { return true }))
		equal(t, "installations", stateOf(bob, bot.InboxID()).installations(), []string{bot.InstallationID()})
		state, err := bot.InboxStates(ctx, bot.InboxID())
		equal(t, "updates", check(t, state, err)[0].Updates, 2)
		eventually(t, "bob's messages reach the new one", func() bool {
			theirs.Send("to the new one")
			if err := bot.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			_, err := bot.Conversation(theirs.ID)
			return err == nil
		})
		theirs.Send("and again")
		v := find(t, bot, theirs.ID)
		contains(t, "the bot reads", v.texts(), "and again")
		v.say("back again")
		theirs.Sync()
		contains(t, "bob reads", theirs.Texts(), "back again")
		sameEpochAs(t, v, theirs)
		at := find(t, lost, theirs.ID)
		if slices.Contains(at.texts(), "and again") {
			t.Error("the lost one reads on")
		}
	})
}

// An installation without a key package when its inbox is added stays out, whoever
// looks at installations later, until the inbox is removed and added again.
func TestGoInstallationOutOfReach(t *testing.T) {
	scenario(t, "Go: an installation that failed stays out, with official committers and with Go's", everyVersion, func(t *testing.T, w *world) {
		ctx := t.Context()
		alice, bob := w.Client("alice"), w.Client("bob")
		carol := goDevice(t, w.url, goSigner(t, w.Wallet()), xmtp.WithoutWorkers())
		out := newBareDevice(t, w.url, alice)
		group := bob.Group([]*official.Client{alice}, nil)
		group.Call(nil, "addMembers", []string{carol.InboxID()})
		group.Send("with all but one")
		v := find(t, carol, group.ID)
		unreachable := func() []string {
			t.Helper()
			v.sync()
			members, err := v.Members(ctx)
			for _, m := range check(t, members, err) {
				if m.InboxID == alice.InboxID {
					return m.Unreachable
				}
			}
			t.Fatal("alice is not in the group")
			return nil
		}
		equal(t, "out of reach", unreachable(), []string{out.id})
		out.reachable(t)
		// Each side lets another installation in, and not that one.
		phone := goDevice(t, w.url, goSigner(t, alice.Wallet), xmtp.WithoutWorkers())
		eventually(t, "the official member lets another installation in", func() bool {
			group.Send("look")
			if err := phone.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			_, err := phone.Conversation(group.ID)
			return err == nil
		})
		equal(t, "out of reach for the official member", unreachable(), []string{out.id})
		tablet := goDevice(t, w.url, goSigner(t, alice.Wallet), xmtp.WithoutWorkers())
		if err := v.AddMembers(ctx); err != nil {
			t.Fatal(err)
		}
		find(t, tablet, group.ID)
		equal(t, "out of reach for the Go member", unreachable(), []string{out.id})

		group.Sync()
		group.Call(nil, "removeMembers", []string{alice.InboxID})
		group.Call(nil, "addMembers", []string{alice.InboxID})
		equal(t, "out of reach after all", len(unreachable()), 0)
		// Official clients leave it on the list of those that failed. It can be removed nevertheless.
		alice.Call(nil, "revokeInstallations", []any{bytesOf(t, out.id)})
		if err := v.AddMembers(ctx); err != nil {
			t.Fatal(err)
		}
		v.say("without it")
		if !hasRead(bob, group, "without it") || !hasRead(alice, group, "without it") {
			t.Error("official members don't follow")
		}
		group.Sync()
		sameEpochAs(t, v, group, alice.Find(group))
	})
}

// bareDevice is an installation of an official client's inbox that is nothing but a key.
type bareDevice struct {
	id, inboxID string
	key         ed25519.PrivateKey
	mls         mlsapi.MlsApiClient
}

func newBareDevice(t *testing.T, url string, of *official.Client) *bareDevice {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(t, conn, err)
	t.Cleanup(func() { conn.Close() })
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, public, err)
	wallet, err := identity.ParseAddress(of.Wallet.Address)
	check(t, wallet, err)
	request, err := identity.NewSignatureRequest(of.InboxID, time.Now(), identity.AddMember(wallet, identity.Installation(public)))
	check(t, request, err)
	signature, err := goSigner(t, of.Wallet).SignText(t.Context(), request.Text())
	check(t, signature, err)
	err = errors.Join(
		request.AddSignature(t.Context(), identity.EOASignature(signature), nil),
		request.AddSignature(t.Context(), identity.SignInstallation(private, request.Text()), nil),
	)
	check(t, request, err)
	update, err := request.Update()
	check(t, update, err)
	_, err = identityapi.NewIdentityApiClient(conn).PublishIdentityUpdate(t.Context(), &identityapi.PublishIdentityUpdateRequest{IdentityUpdate: update})
	check(t, update, err)
	return &bareDevice{hex.EncodeToString(public), of.InboxID, private, mlsapi.NewMlsApiClient(conn)}
}

// reachable uploads a key package.
func (d *bareDevice) reachable(t *testing.T) {
	t.Helper()
	signer, err := mls.NewSigner(identity.CipherSuite, d.key.Seed())
	check(t, signer, err)
	kp, err := protocol.NewKeyPackage(d.inboxID, signer, time.Now())
	check(t, kp, err)
	_, err = d.mls.UploadKeyPackage(t.Context(), &mlsapi.UploadKeyPackageRequest{
		KeyPackage: &mlsapi.KeyPackageUpload{KeyPackageTlsSerialized: kp.Public()}, IsInboxIdCredential: true,
	})
	check(t, kp, err)
}
