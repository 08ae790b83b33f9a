package interop

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/interop/official"
)

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func sameSet(t *testing.T, what string, got, want []string) {
	t.Helper()
	equal(t, what, slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want)))
}

func contains(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	for _, text := range want {
		if !slices.Contains(got, text) {
			t.Errorf("%s: %q is missing in %d texts: %q", what, text, len(got), got)
		}
	}
}

// eventually repeats what the SDK does in its own time, such as its background work.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
		<-tick.C
	}
}

func numbered(prefix string, n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf("%s %04d", prefix, i)
	}
	return texts
}

func members(group *official.Conversation) []string {
	var ids []string
	for id := range group.Members() {
		ids = append(ids, id)
	}
	return ids
}

func TestDM(t *testing.T) {
	scenario(t, "DM both ways", everyVersion, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), w.Client("bob")
		dm := alice.DM(bob)
		dm.Send("hello")
		bob.SyncAll()
		theirs := bob.Find(dm)
		equal(t, "peer", theirs.PeerInboxID, alice.InboxID)
		equal(t, "bob reads", theirs.Texts(), []string{"hello"})
		theirs.Send("hello back")
		dm.Sync()
		equal(t, "alice reads", dm.Texts(), []string{"hello", "hello back"})
		equal(t, "creating it again finds it", bob.DM(alice).ID, dm.ID)
		for _, message := range dm.Messages() {
			equal(t, "delivery status of "+message.Text(), message.DeliveryStatus, 1)
		}
	})
}

func TestDuplicateDMs(t *testing.T) {
	scenario(t, "duplicate DMs stitched", baseline, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), w.Client("bob")
		// Neither knows of the other's when creating.
		one, two := alice.DM(bob), bob.DM(alice)
		if one.ID == two.ID {
			t.Fatal("both made the same DM")
		}
		one.Send("from alice")
		two.Send("from bob")
		for _, client := range []*official.Client{alice, bob} {
			client.SyncAll()
			client.SyncAll()
			list := client.Conversations("listDms", nil)
			if len(list) != 1 {
				t.Fatalf("%s lists %d DMs", client.Name, len(list))
			}
			sameSet(t, client.Name+" reads", list[0].Texts(), []string{"from alice", "from bob"})
			all := client.Conversations("listDms", map[string]any{"includeDuplicateDms": true})
			equal(t, "DMs with duplicates", len(all), 2)
			var duplicates []official.Conversation
			list[0].Call(&duplicates, "duplicateDms")
			equal(t, "duplicates", len(duplicates), 1)
		}
		alice.Conversations("listDms", nil)[0].Send("where to?")
		bob.SyncAll()
		contains(t, "bob", bob.Conversations("listDms", nil)[0].Texts(), "where to?")
	})
}

func TestGroupOfThree(t *testing.T) {
	scenario(t, "group of three", everyVersion, func(t *testing.T, w *world) {
		alice, bob, carol := w.Client("alice"), w.Client("bob"), w.Client("carol")
		all := []*official.Client{alice, bob, carol}
		group := alice.Group([]*official.Client{bob, carol}, nil)
		var want []string
		for _, sender := range all {
			sender.SyncAll()
			text := "from " + sender.Name
			sender.Find(group).Send(text)
			want = append(want, text)
		}
		for _, reader := range all {
			reader.SyncAll()
			theirs := reader.Find(group)
			equal(t, reader.Name+" reads", theirs.Texts(), want)
			sameSet(t, reader.Name+" sees members", members(theirs), []string{alice.InboxID, bob.InboxID, carol.InboxID})
		}
	})
}

func TestGroupOfFifty(t *testing.T) {
	n := often(50, 20)
	scenario(t, fmt.Sprint("group of ", n), baseline, func(t *testing.T, w *world) {
		clients := make([]*official.Client, n)
		wallets := make([]official.Wallet, n)
		for i := range wallets {
			wallets[i] = w.Wallet()
		}
		official.Parallel(t, n, func(i int) (err error) {
			clients[i], err = w.TryInstallation(fmt.Sprintf("member%02d", i), wallets[i])
			return err
		})
		group := clients[0].Group(clients[1:], nil)
		group.Send("to everybody")
		official.Parallel(t, n, func(i int) error {
			return clients[i].TryCall(nil, "conversations.syncAll")
		})
		clients[n-1].Find(group).Send("from the last")
		official.Parallel(t, n, func(i int) error {
			theirs, err := clients[i].TryFind(group)
			if err != nil {
				return err
			}
			if err := theirs.TryCall(nil, "sync"); err != nil {
				return err
			}
			var count int
			if err := theirs.TryCall(&count, "countMessages", map[string]any{"contentTypes": []int{contentTypeText}}); err != nil {
				return err
			}
			if count != 2 {
				return fmt.Errorf("%s reads %d texts", clients[i].Name, count)
			}
			return nil
		})
		equal(t, "number of members", len(clients[n/2].Find(group).Members()), n)
	})
}

const contentTypeText = 13 // in the SDKs' own numbering

func TestMembership(t *testing.T) {
	scenario(t, "add, remove, leave", baseline, func(t *testing.T, w *world) {
		alice, bob, carol := w.Client("alice"), w.Client("bob"), w.Client("carol")
		group := alice.Group([]*official.Client{bob}, nil)
		group.Send("before carol")
		group.Call(nil, "addMembers", []string{carol.InboxID})
		group.Send("with carol")
		carol.SyncAll()
		equal(t, "carol reads", carol.Find(group).Texts(), []string{"with carol"})

		group.Call(nil, "removeMembers", []string{bob.InboxID})
		group.Send("without bob")
		bob.SyncAll()
		theirs := bob.Find(group)
		equal(t, "bob's group active", theirs.IsActive, false)
		equal(t, "bob reads", theirs.Texts(), []string{"before carol", "with carol"})
		if err := theirs.TryCall(nil, "sendText", "I am still here"); err == nil {
			t.Error("a removed member sends")
		}
		group.Call(nil, "addMembersByIdentifiers", []any{bob.Wallet.Identifier()})
		group.Send("bob is back")
		bob.SyncAll()
		theirs = bob.Find(group)
		equal(t, "bob's group active again", theirs.IsActive, true)
		contains(t, "bob", theirs.Texts(), "bob is back")

		// Leaving asks; the super admin's client does it.
		carol.SyncAll()
		carol.Find(group).Call(nil, "requestRemoval")
		eventually(t, "carol has left", func() bool {
			group.Sync()
			return !slices.Contains(members(group), carol.InboxID)
		})
		group.Send("without carol")
		eventually(t, "carol's group is not active", func() bool {
			carol.SyncAll()
			return !carol.Find(group).IsActive
		})
	})
}

func TestMetadata(t *testing.T) {
	scenario(t, "name, image, description", baseline, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), w.Client("bob")
		group := alice.Group([]*official.Client{bob}, map[string]any{
			"groupName": "first name", "groupDescription": "first description", "groupImageUrlSquare": "https://example.org/1.png",
		})
		bob.SyncAll()
		theirs := bob.Find(group)
		equal(t, "as created", []string{theirs.Name, theirs.Description, theirs.ImageURL},
			[]string{"first name", "first description", "https://example.org/1.png"})
		theirs.Call(nil, "updateName", "second name")
		theirs.Call(nil, "updateDescription", "second description")
		theirs.Call(nil, "updateImageUrl", "https://example.org/2.png")
		theirs.Call(nil, "updateAppData", `{"a":1}`)
		group.Sync()
		group = alice.Find(group)
		equal(t, "as changed", []string{group.Name, group.Description, group.ImageURL},
			[]string{"second name", "second description", "https://example.org/2.png"})
		changes := 0
		for _, message := range group.Messages() {
			var update struct {
				MetadataFieldChanges []any `json:"metadataFieldChanges"`
			}
			if message.ContentType.TypeID == "group_updated" && json.Unmarshal(message.Content, &update) == nil {
				changes += len(update.MetadataFieldChanges)
			}
		}
		if changes < 4 {
			t.Errorf("alice's transcript tells of %d changes", changes)
		}
	})
}

func TestAdmins(t *testing.T) {
	scenario(t, "admins", baseline, func(t *testing.T, w *world) {
		alice, bob, carol := w.Client("alice"), w.Client("bob"), w.Client("carol")
		group := alice.Group([]*official.Client{bob, carol}, map[string]any{"permissions": 1}) // admins only
		bob.SyncAll()
		theirs := bob.Find(group)
		if err := theirs.TryCall(nil, "updateName", "by a member"); err == nil {
			t.Error("a member changes the name of an admin-only group")
		}
		group.Call(nil, "addAdmin", bob.InboxID)
		theirs.Sync()
		theirs.Call(nil, "updateName", "by an admin")
		theirs.Call(nil, "removeMembers", []string{carol.InboxID})
		group.Sync()
		equal(t, "name", alice.Find(group).Name, "by an admin")
		var admins []string
		group.Call(&admins, "listAdmins")
		equal(t, "admins", admins, []string{bob.InboxID})
		if err := theirs.TryCall(nil, "addAdmin", alice.InboxID); err == nil {
			t.Error("an admin makes admins")
		}

		group.Call(nil, "addSuperAdmin", bob.InboxID)
		theirs.Sync()
		theirs.Call(nil, "removeAdmin", bob.InboxID)
		theirs.Call(nil, "removeSuperAdmin", alice.InboxID)
		group.Sync()
		var supers []string
		group.Call(&supers, "listSuperAdmins")
		equal(t, "super admins", supers, []string{bob.InboxID})
		equal(t, "alice's level", group.Members()[alice.InboxID].PermissionLevel, 0)
	})
}

func TestPermissions(t *testing.T) {
	const allow, deny, admin, superAdmin = 0, 1, 2, 3
	scenario(t, "custom permissions", baseline, func(t *testing.T, w *world) {
		alice, bob, carol := w.Client("alice"), w.Client("bob"), w.Client("carol")
		policies := map[string]any{
			"addMemberPolicy": superAdmin, "removeMemberPolicy": deny, "addAdminPolicy": superAdmin, "removeAdminPolicy": admin,
			"updateGroupNamePolicy": allow, "updateGroupDescriptionPolicy": admin, "updateGroupImageUrlSquarePolicy": deny,
			"updateMessageDisappearingPolicy": admin, "updateAppDataPolicy": allow,
		}
		group := alice.Group([]*official.Client{bob}, map[string]any{"permissions": 2, "customPermissionPolicySet": policies})
		bob.SyncAll()
		theirs := bob.Find(group)
		var permissions struct {
			PolicyType int            `json:"policyType"`
			PolicySet  map[string]any `json:"policySet"`
		}
		theirs.Call(&permissions, "permissions")
		equal(t, "policy type", permissions.PolicyType, 2)
		for name, value := range policies {
			equal(t, name, permissions.PolicySet[name], any(float64(value.(int))))
		}
		theirs.Call(nil, "updateName", "anybody may")
		for _, refused := range []func() error{
			func() error { return theirs.TryCall(nil, "updateDescription", "no") },
			func() error { return theirs.TryCall(nil, "addMembers", []string{carol.InboxID}) },
			func() error { return group.TryCall(nil, "updateImageUrl", "https://example.org") },
			func() error { return group.TryCall(nil, "removeMembers", []string{bob.InboxID}) },
		} {
			if refused() == nil {
				t.Error("a denied change was made")
			}
		}
		group.Sync()
		const updateMetadata, descriptionField = 4, 1
		group.Call(nil, "updatePermission", updateMetadata, allow, descriptionField)
		theirs.Sync()
		theirs.Call(nil, "updateDescription", "now I may")
		group.Sync()
		equal(t, "description", alice.Find(group).Description, "now I may")
	})
}

func TestConsent(t *testing.T) {
	const groupEntity, inboxEntity = 0, 1
	scenario(t, "consent", baseline, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), w.Client("bob")
		group := alice.Group([]*official.Client{bob}, nil)
		dm := alice.DM(bob)
		bob.SyncAll()
		state := func(conversation *official.Conversation) (state int) {
			conversation.Call(&state, "consentState")
			return state
		}
		equal(t, "of the creator", state(group), official.ConsentAllowed)
		theirs := bob.Find(group)
		equal(t, "of the invited", state(theirs), official.ConsentUnknown)
		theirs.Call(nil, "updateConsentState", official.ConsentDenied)
		equal(t, "denied", state(theirs), official.ConsentDenied)
		equal(t, "listed", len(bob.Conversations("list", nil)), 1)
		equal(t, "listed as denied", len(bob.Conversations("list", map[string]any{"consentStates": []int{official.ConsentDenied}})), 1)

		// Answering allows.
		bob.Find(dm).Send("fine")
		equal(t, "after sending", state(bob.Find(dm)), official.ConsentAllowed)

		bob.Call(nil, "preferences.setConsentStates", []any{
			map[string]any{"entityType": inboxEntity, "entity": alice.InboxID, "state": official.ConsentDenied},
			map[string]any{"entityType": groupEntity, "entity": group.ID, "state": official.ConsentAllowed},
		})
		var consent int
		bob.Call(&consent, "preferences.getConsentState", inboxEntity, alice.InboxID)
		equal(t, "of an inbox", consent, official.ConsentDenied)
		equal(t, "of the group", state(theirs), official.ConsentAllowed)
	})
}

func TestContent(t *testing.T) {
	scenario(t, "reactions, replies, attachments", baseline, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), w.Client("bob")
		dm := alice.DM(bob)
		first := dm.Send("what do you think?")
		bob.SyncAll()
		theirs := bob.Find(dm)
		reaction := map[string]any{"reference": first, "referenceInboxId": alice.InboxID, "action": 1, "content": "👍", "schema": 1}
		theirs.Call(nil, "sendReaction", reaction)
		w.Must(official.Request{Op: "call", Path: "encodeText", Args: []any{"I like it"}, As: "answer"}, nil)
		theirs.Call(nil, "sendReply", map[string]any{"reference": first, "referenceInboxId": alice.InboxID, "content": official.Ref("answer")})
		picture := []byte("not really a picture")
		theirs.Call(nil, "sendAttachment", map[string]any{"filename": "p.png", "mimeType": "image/png", "content": official.Bytes(picture)})
		theirs.Call(nil, "sendRemoteAttachment", map[string]any{
			"url": "https://example.org/file", "contentDigest": "00", "scheme": "https", "contentLength": 20, "filename": "p.png",
			"secret": official.Bytes(make([]byte, 32)), "salt": official.Bytes(make([]byte, 32)), "nonce": official.Bytes(make([]byte, 12)),
		})
		theirs.Call(nil, "sendMarkdown", "*well*")
		theirs.Call(nil, "sendReadReceipt")

		dm.Sync()
		byType := make(map[string]official.Message)
		for _, message := range dm.Messages() {
			byType[message.ContentType.TypeID] = message
		}
		asked := byType["text"]
		if len(asked.Reactions) != 1 || asked.NumReplies != "1" {
			t.Fatalf("the question has %d reactions and %s replies", len(asked.Reactions), asked.NumReplies)
		}
		var got struct{ Content string }
		decode(t, asked.Reactions[0].Content, &got)
		equal(t, "reaction", got.Content, "👍")
		var reply struct{ ReferenceID, Content string }
		decode(t, byType["reply"].Content, &reply)
		equal(t, "reply", reply.Content, "I like it")
		equal(t, "reply to", reply.ReferenceID, first)
		var attachment struct {
			Filename, MimeType string
			Content            []byte
		}
		decode(t, byType["attachment"].Content, &attachment)
		equal(t, "attachment", attachment.Content, picture)
		equal(t, "its name", attachment.Filename, "p.png")
		var remote struct{ URL string }
		decode(t, byType["remoteStaticAttachment"].Content, &remote)
		equal(t, "remote attachment", remote.URL, "https://example.org/file")
		var markdown string
		decode(t, byType["markdown"].Content, &markdown)
		equal(t, "markdown", markdown, "*well*")
		var read map[string]any
		dm.Call(&read, "lastReadTimes")
		if _, ok := read[bob.InboxID]; !ok {
			t.Errorf("alice has no read receipt of bob: %v", read)
		}
	})
}

func decode(t *testing.T, text json.RawMessage, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("content %.200s: %v", text, err)
	}
}

func TestBigMessage(t *testing.T) {
	scenario(t, "900 kB message", baseline, func(t *testing.T, w *world) {
		alice, bob := w.Client("alice"), w.Client("bob")
		dm := alice.DM(bob)
		bob.SyncAll()
		live := bob.Stream("conversations.streamAllMessages", nil)
		content := make([]byte, 900_000)
		rand.Read(content)
		dm.Call(nil, "sendAttachment", map[string]any{"filename": "big", "mimeType": "application/octet-stream", "content": official.Bytes(content)})
		dm.Send("sent")
		live.WaitTexts("sent")
		found := false
		for _, message := range bob.Find(dm).Messages() {
			if message.ContentType.TypeID == "attachment" {
				var attachment struct{ Content []byte }
				decode(t, message.Content, &attachment)
				equal(t, "content", attachment.Content, content)
				found = true
			}
		}
		if !found {
			t.Error("bob did not get the attachment")
		}
	})
}

func TestVersionsTogether(t *testing.T) {
	scenario(t, "all versions in one group", baseline, func(t *testing.T, w *world) {
		clients := []*official.Client{
			w.start(official.Oldest).Client("oldest"),
			w.Client("baseline"),
			w.start(official.Newest).Client("newest"),
		}
		for _, creator := range clients {
			var others []*official.Client
			for _, client := range clients {
				if client != creator {
					others = append(others, client)
				}
			}
			group := creator.Group(others, map[string]any{"groupName": "by " + creator.Name})
			var want []string
			for _, sender := range clients {
				sender.SyncAll()
				sender.Find(group).Send("from " + sender.Name)
				want = append(want, "from "+sender.Name)
			}
			for _, reader := range clients {
				reader.SyncAll()
				theirs := reader.Find(group)
				equal(t, reader.Name+" reads", theirs.Texts(), want)
				equal(t, reader.Name+" sees the name", theirs.Name, "by "+creator.Name)
			}
		}
	})
}
