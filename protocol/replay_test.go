package protocol

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// followed is an entry of follow.json.
type followed struct {
	Name    string
	Refused map[string]int `json:"refused_commits"`
	Clients map[string][]struct {
		Commit    number `json:"joined_by_commit"`
		JoinEpoch number `json:"joined_epoch"`
		LastEpoch number `json:"last_epoch"`
		Ends      string
		EndsAt    number `json:"ends_at"`
	}
}

var followFile = load[map[string]*followed]("captures/follow.json")

// The results of commits in a client's log.
const (
	commitApplied    = 1
	commitWrongEpoch = 2
	commitInvalid    = 4
)

// follower follows a group with the captured secrets of one client, and compares all
// that it sees with what the client stored.
type follower struct {
	t      *testing.T
	client *capturedClient
	id     hexBytes
	dir    Directory
	group  *mls.Group
	left   []string // who asked to leave

	tally
}

// tally counts what was compared.
type tally struct{ commits, refused, messages, own, unreadable, transcripts int }

func (t *tally) add(o tally) {
	t.commits += o.commits
	t.refused += o.refused
	t.messages += o.messages
	t.own += o.own
	t.unreadable += o.unreadable
	t.transcripts += o.transcripts
}

// TestReplay follows every conversation of the scene as every client that was in it,
// as far as the secrets of its key packages lead: the silent listeners to the end,
// the others to their own first commit.
func TestReplay(t *testing.T) {
	var total tally
	for _, id := range slices.Sorted(maps.Keys(followFile())) {
		conversation := followFile()[id]
		for name, stays := range conversation.Clients {
			for i, stay := range stays {
				t.Run(fmt.Sprintf("%s/%s/%d", conversation.Name, name, i), func(t *testing.T) {
					groupID, err := hex.DecodeString(id)
					if err != nil {
						t.Fatal(err)
					}
					f := &follower{t: t, client: clientsFile()[name], id: groupID, dir: capturedLogs(t)}
					f.join(uint64(stay.Commit))
					if epoch := f.group.Epoch(); epoch != uint64(stay.JoinEpoch) {
						t.Fatalf("joined in epoch %d, want %d", epoch, stay.JoinEpoch)
					}
					for _, row := range rowsFile() {
						if !bytes.Equal(row.GroupID, groupID) || row.ID <= stay.Commit {
							continue
						}
						if stay.Ends == "own commit" && row.ID == stay.EndsAt {
							break
						}
						if row.ID > f.lastRow() {
							break
						}
						f.row(&row, conversation.Refused)
						if stay.Ends == "removed" && row.ID == stay.EndsAt {
							if f.group.Active() {
								t.Error("not removed")
							}
							break
						}
					}
					if epoch := f.group.Epoch(); epoch != uint64(stay.LastEpoch) {
						t.Errorf("ended in epoch %d, want %d", epoch, stay.LastEpoch)
					}
					total.add(f.tally)
				})
			}
		}
	}
	if want := (tally{commits: 209, refused: 10, messages: 220, own: 4, unreadable: 4, transcripts: 191}); total != want && !t.Failed() {
		t.Errorf("compared %+v, want %+v", total, want)
	}
}

// lastRow is the last row of the group that left a trace in the client's database.
func (f *follower) lastRow() number {
	var last number
	for _, m := range f.client.Messages {
		if bytes.Equal(m.GroupID, f.id) {
			last = max(last, m.SequenceID)
		}
	}
	for _, c := range f.client.CommitLog {
		if bytes.Equal(c.GroupID, f.id) {
			last = max(last, c.CommitSequenceID)
		}
	}
	return last
}

// join takes the welcome of a commit.
func (f *follower) join(commit uint64) {
	t := f.t
	t.Helper()
	signer, err := mls.NewSigner(identity.CipherSuite, f.client.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	packages := f.client.keyPackages(t)
	for _, w := range welcomesFile() {
		if !bytes.Equal(w.InstallationKey, f.client.InstallationID) {
			continue
		}
		m := w.message()
		kp := findKeyPackage(packages, m)
		welcome, pointer, err := kp.Unwrap(m)
		if err != nil {
			t.Fatal(err)
		}
		if pointer != nil {
			if welcome, err = pointer.Open(shared(t, pointer)); err != nil {
				t.Fatal(err)
			}
		}
		if welcome.CommitID != commit {
			continue
		}
		pending, err := mls.Join(welcome.Message, kp.Private(), signer, nil, GroupConfig(true))
		if err != nil {
			t.Fatal(err)
		}
		j := pending.Result()
		if !bytes.Equal(j.Group.ID(), f.id) {
			t.Fatalf("welcome to group %x", j.Group.ID())
		}
		state, adder, err := CheckJoined(t.Context(), j, f.client.InboxID, f.dir)
		if err != nil {
			t.Fatal(err)
		}
		if state.Paused() != nil {
			t.Error("paused")
		}
		f.group = pending.Done().Group
		f.checkLog(0, uint64(f.group.Epoch()))

		// The transcript begins with the one who added us.
		e := WelcomeTranscript(adder.InboxID, f.client.InboxID, uint64(w.CreatedNS))
		transcript := f.stored(number(commit), 2)
		if f.client.Listener && len(transcript) != 1 {
			t.Errorf("%d transcripts of the welcome", len(transcript))
		}
		for _, stored := range transcript {
			if !bytes.Equal(stored.Content, e.Content) || stored.ID.String() != idOf(e, f.id) {
				t.Errorf("transcript of the welcome: %s, want %s", idOf(e, f.id), stored.ID)
			}
			if stored.SenderInboxID != adder.InboxID || !bytes.Equal(stored.SenderInstallationID, adder.Installation.Bytes()) {
				t.Errorf("added by %v", adder)
			}
			f.transcripts++
		}
		return
	}
	t.Fatalf("no welcome of commit %d", commit)
}

func (h hexBytes) String() string { return hex.EncodeToString(h) }

func idOf(e Envelope, groupID []byte) string {
	id := e.MessageID(groupID)
	return hex.EncodeToString(id[:])
}

// stored are the messages of a kind that the client stored for a row.
func (f *follower) stored(row number, kind number) []storedMessage {
	var out []storedMessage
	for _, m := range f.client.Messages {
		if bytes.Equal(m.GroupID, f.id) && m.SequenceID == row && m.Kind == kind {
			m.Content = m.DecryptedBytes
			out = append(out, m)
		}
	}
	return out
}

// logged is what the client noted of a commit.
func (f *follower) logged(commit number, epoch uint64) *commitLogRow {
	for _, c := range f.client.CommitLog {
		if bytes.Equal(c.GroupID, f.id) && c.CommitSequenceID == commit && (commit != 0 || uint64(c.AppliedEpochNumber) == epoch) {
			return &c
		}
	}
	return nil
}

// checkLog compares epoch and authenticator with what the client noted.
func (f *follower) checkLog(commit number, epoch uint64) *commitLogRow {
	f.t.Helper()
	c := f.logged(commit, epoch)
	if c == nil {
		if !f.client.OldClient {
			f.t.Errorf("commit %d: not in the client's log", commit)
		}
		return nil
	}
	if uint64(c.AppliedEpochNumber) != epoch {
		f.t.Errorf("commit %d: epoch %d, want %d", commit, epoch, c.AppliedEpochNumber)
	}
	// Who is removed can't know the authenticator of the next epoch.
	if f.group.Active() && !bytes.Equal(f.group.EpochAuthenticator(), c.AppliedEpochAuthenticator) {
		f.t.Errorf("commit %d: authenticator %x, want %s", commit, f.group.EpochAuthenticator(), c.AppliedEpochAuthenticator)
	}
	return c
}

// row processes a row of the group.
func (f *follower) row(row *capturedRow, refused map[string]int) {
	t := f.t
	t.Helper()
	pending, err := f.group.Process(row.Data)
	if want := refused[fmt.Sprint(row.ID)]; want == commitWrongEpoch {
		if _, ok := errors.AsType[*mls.EpochError](err); !ok {
			t.Errorf("row %d: %v, want a wrong epoch", row.ID, err)
		}
		f.refusedRow(row, want)
		return
	}
	if err != nil {
		stored := f.stored(row.ID, 1)
		switch {
		case len(stored) == 0 && !row.IsCommit:
			f.unreadable++
		case errors.Is(err, mls.ErrStateRolledBack) && bytes.Equal(stored[0].SenderInstallationID, f.client.InstallationID):
			// The client sent this itself, with a state that was not captured.
			f.own++
		default:
			t.Fatalf("row %d: %v", row.ID, err)
		}
		return
	}
	switch event := pending.Result().(type) {
	case *mls.StagedCommit:
		f.commit(row, pending, event, refused)
	case *mls.ApplicationMessage:
		f.message(row, event)
		pending.Done()
	default:
		t.Fatalf("row %d is %T", row.ID, event)
	}
}

// refusedRow checks that the client refused the row for the same reason.
func (f *follower) refusedRow(row *capturedRow, result int) {
	f.t.Helper()
	f.refused++
	if c := f.checkLog(row.ID, f.group.Epoch()); c != nil && int(c.CommitResult) != result {
		f.t.Errorf("row %d: the client noted result %d, want %d", row.ID, c.CommitResult, result)
	}
}

func (f *follower) commit(row *capturedRow, pending *mls.Pending[mls.Event], staged *mls.StagedCommit, refused map[string]int) {
	t := f.t
	t.Helper()
	change, err := CheckCommit(t.Context(), f.group, staged, f.dir)
	if want := refused[fmt.Sprint(row.ID)]; want == commitInvalid {
		if !IsVerdict(err) || !errors.Is(err, ErrNotPermitted) {
			t.Errorf("row %d: %v, want a refusal", row.ID, err)
		}
		pending.Discard()
		f.refusedRow(row, want)
		return
	}
	if err != nil {
		t.Fatalf("row %d: %v", row.ID, err)
	}
	if len(change.Warnings) > 0 {
		t.Errorf("row %d: %v", row.ID, change.Warnings)
	}
	pending.Done()
	f.commits++
	c := f.checkLog(row.ID, staged.Epoch)
	if c != nil {
		if c.CommitResult != commitApplied || c.SenderInboxID != change.Actor.InboxID || c.CommitType != kindOf(change) {
			t.Errorf("row %d: %s by %s, want %s by %s", row.ID, kindOf(change), change.Actor.InboxID, c.CommitType, c.SenderInboxID)
		}
	}
	f.transcript(row, change)
	f.left = slices.DeleteFunc(f.left, func(id string) bool { return slices.Contains(change.Removed, id) })
	if f.group.Active() {
		state, err := ParseGroupState(f.group.Extensions())
		if err != nil {
			t.Fatalf("row %d: %v", row.ID, err)
		}
		f.checkMembers(row, state)
	}
}

// kindOf is how the official client sorts commits.
func kindOf(c *Change) string {
	switch {
	case len(c.Added)+len(c.Removed) > 0 || c.InstallationsChanged:
		return "UpdateGroupMembership"
	case c.PermissionsChanged:
		return "UpdatePermission"
	case len(c.AdminsAdded)+len(c.AdminsRemoved)+len(c.SuperAdminsAdded)+len(c.SuperAdminsRemoved) > 0:
		return "UpdateAdminList"
	case len(c.Attributes) > 0:
		return "MetadataUpdate"
	}
	return "KeyUpdate"
}

// transcript compares what we tell of a commit with what the client told.
func (f *follower) transcript(row *capturedRow, change *Change) {
	t := f.t
	t.Helper()
	e, ok := change.Transcript(f.left, uint64(row.CreatedNS))
	stored := f.stored(row.ID, 2)
	if !ok || len(stored) != 1 {
		// Some who took part have a gap or two; the listeners have all.
		if ok != (len(stored) == 1) && (f.client.Listener || len(stored) > 0) {
			t.Errorf("row %d: transcript %v, the client has %d", row.ID, ok, len(stored))
		}
		return
	}
	f.transcripts++
	got, want := updatedOf(t, e.Content), updatedOf(t, stored[0].Content)
	less := func(a, b proto.Message) bool { return fmt.Sprint(a) < fmt.Sprint(b) }
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.SortRepeated(func(a, b *mlscontents.GroupUpdated_Inbox) bool { return less(a, b) }),
		protocmp.SortRepeated(func(a, b *mlscontents.GroupUpdated_MetadataFieldChange) bool { return less(a, b) }), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("row %d: transcript %s", row.ID, diff)
	}
	// Lists come in any order; where there is one, bytes and id are the same.
	if bytes.Equal(e.Content, stored[0].Content) {
		if idOf(e, f.id) != stored[0].ID.String() {
			t.Errorf("row %d: transcript %s, want %s", row.ID, idOf(e, f.id), stored[0].ID)
		}
	} else if len(got.AddedInboxes)+len(got.RemovedInboxes)+len(got.MetadataFieldChanges) < 2 {
		t.Errorf("row %d: transcript %x, want %s", row.ID, e.Content, stored[0].Content)
	}
	if stored[0].SenderInboxID != change.Actor.InboxID || !bytes.Equal(stored[0].SenderInstallationID, change.Actor.Installation.Bytes()) ||
		stored[0].SentAtNS != row.CreatedNS {
		t.Errorf("row %d: transcript by %v", row.ID, change.Actor)
	}
}

func updatedOf(t *testing.T, content []byte) *mlscontents.GroupUpdated {
	t.Helper()
	var m mlscontents.EncodedContent
	if err := proto.Unmarshal(content, &m); err != nil {
		t.Fatal(err)
	}
	var u mlscontents.GroupUpdated
	if err := proto.Unmarshal(m.Content, &u); err != nil {
		t.Fatal(err)
	}
	return &u
}

// message compares an application message with what the client stored.
func (f *follower) message(row *capturedRow, m *mls.ApplicationMessage) {
	t := f.t
	t.Helper()
	sender, err := SenderOf(f.group, m)
	if err != nil {
		t.Fatalf("row %d: %v", row.ID, err)
	}
	e, err := ParseEnvelope(m.Data)
	if err != nil {
		t.Fatalf("row %d: %v", row.ID, err)
	}
	if IsLeaveRequest(e.Content) {
		f.left = append(f.left, sender.InboxID)
	}
	stored := f.stored(row.ID, 1)
	if len(stored) != 1 {
		// Sent twice, it is one message.
		if !slices.ContainsFunc(f.client.Messages, func(s storedMessage) bool { return s.ID.String() == idOf(e, f.id) && s.SequenceID < row.ID }) {
			t.Errorf("row %d: the client has no such message", row.ID)
		}
		return
	}
	f.messages++
	s := stored[0]
	if !bytes.Equal(s.Content, e.Content) || s.ID.String() != idOf(e, f.id) {
		t.Errorf("row %d: %x, want %s", row.ID, e.Content, s.Content)
	}
	if s.SenderInboxID != sender.InboxID || !bytes.Equal(s.SenderInstallationID, sender.Installation.Bytes()) {
		t.Errorf("row %d: sent by %v", row.ID, sender)
	}
}

// checkMembers compares the leaves with the membership, as a joiner would.
func (f *follower) checkMembers(row *capturedRow, state *GroupState) {
	f.t.Helper()
	g := joinedGroup{extensions: f.group.Extensions(), members: f.group.Members()}
	if err := g.checkTree(f.t.Context(), f.dir, state.Membership); err != nil {
		f.t.Errorf("row %d: %v", row.ID, err)
	}
}

// TestReplayVectors follows the two conversations of groups.json as b.
func TestReplayVectors(t *testing.T) {
	v := groupsFile()
	dir := logs{}
	for inboxID, updates := range v.IdentityUpdates {
		for _, u := range updates {
			dir.add(t, inboxID, uint64(u.Seq), u.Update)
		}
	}
	kp := restore(t, v.KeyPackages["b"], v.PrivateB.Init, v.PrivateB.Leaf, v.PrivateB.XWing)
	// b never signs; the key need not be his for following.
	signer := publicOnly(v.Identities["b"].Key)
	for i, c := range []conversationVector{v.DM, v.Group} {
		w := v.Welcomes[i]
		pending, err := mls.Join(w.Message, kp.Private(), signer, nil, GroupConfig(false))
		if err != nil {
			t.Fatal(err)
		}
		j := pending.Result()
		if !bytes.Equal(j.Group.ID(), c.GroupID) || !bytes.Equal(j.Group.Context(), w.Context) {
			t.Errorf("context %x", j.Group.Context())
		}
		if _, adder, err := CheckJoined(t.Context(), j, v.Identities["b"].InboxID, dir); err != nil || adder.InboxID != v.Identities["a"].InboxID {
			t.Fatalf("%v, %v", adder, err)
		}
		g := pending.Done().Group
		var commit mlsapi.WelcomeMetadata
		if err := proto.Unmarshal(w.MetadataPlaintext, &commit); err != nil {
			t.Fatal(err)
		}
		authenticators := map[number]hexBytes{}
		for _, row := range c.LogOfB {
			authenticators[row.CommitSequenceID] = row.AppliedEpochAuthenticator
		}
		if !bytes.Equal(g.EpochAuthenticator(), authenticators[0]) {
			t.Errorf("authenticator %x, want %s", g.EpochAuthenticator(), authenticators[0])
		}
		contents := map[number]storedMessage{}
		for _, m := range c.StoredByB {
			contents[m.SequenceID] = m
		}
		for _, row := range c.Envelopes {
			if uint64(row.ID) <= commit.GetMessageCursor() {
				continue
			}
			pending, err := g.Process(row.Data)
			if err != nil {
				t.Fatalf("envelope %d: %v", row.ID, err)
			}
			switch event := pending.Result().(type) {
			case *mls.ApplicationMessage:
				e, err := ParseEnvelope(event.Data)
				if err != nil {
					t.Fatal(err)
				}
				want := contents[row.ID]
				if want.ID != nil && (!bytes.Equal(want.Content, e.Content) || want.ID.String() != idOf(e, c.GroupID)) {
					t.Errorf("envelope %d: %x, want %s", row.ID, e.Content, want.Content)
				}
				if i == 0 && !bytes.Equal(event.Data, v.MessageID[0].Envelope) {
					t.Errorf("envelope %x", event.Data)
				}
				pending.Done()
			case *mls.StagedCommit:
				change, err := CheckCommit(t.Context(), g, event, dir)
				if err != nil {
					t.Fatalf("envelope %d: %v", row.ID, err)
				}
				pending.Done()
				if want := authenticators[row.ID]; !bytes.Equal(g.EpochAuthenticator(), want) {
					t.Errorf("envelope %d: authenticator %x, want %s", row.ID, g.EpochAuthenticator(), want)
				}
				e, _ := change.Transcript(nil, uint64(row.CreatedNS))
				if want := contents[row.ID]; want.ID.String() != idOf(e, c.GroupID) {
					t.Errorf("envelope %d: transcript %x, want %s", row.ID, e.Content, want.Content)
				}
			case *mls.OwnMessage:
				if i != 0 || event.Epoch != 1 {
					t.Errorf("envelope %d is %+v", row.ID, event)
				}
			default:
				t.Fatalf("envelope %d is %T", row.ID, event)
			}
			pending.Discard()
			if i == 0 && row.ID == 5 {
				break // b's own commit follows, whose secrets are not there
			}
		}
	}
}

// publicOnly is a signer that can't sign.
type publicOnly []byte

func (p publicOnly) Public() []byte              { return p }
func (p publicOnly) Sign([]byte) ([]byte, error) { return nil, errors.New("no private key") }
