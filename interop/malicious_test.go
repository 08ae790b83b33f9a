package interop

import (
	"crypto/ed25519"
	"encoding/hex"
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

// mallory is a member who keeps to no rule but those of MLS.
type mallory struct {
	t       *testing.T
	mls     mlsapi.MlsApiClient
	node    identityapi.IdentityApiClient
	inboxID string
	key     ed25519.PrivateKey
	signer  mls.Signer
	keys    *protocol.KeyPackage
	group   *mls.Group
	cursor  uint64
	// byReference: the next commit has the proposals that wait, too.
	byReference bool
}

// newMallory registers an inbox with an installation.
func newMallory(t *testing.T, url string) *mallory {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &mallory{t: t, mls: mlsapi.NewMlsApiClient(conn), node: identityapi.NewIdentityApiClient(conn)}
	m.inboxID, m.key = m.register()
	m.signer, err = mls.NewSigner(identity.CipherSuite, m.key.Seed())
	if err != nil {
		t.Fatal(err)
	}
	m.keys, err = protocol.NewKeyPackage(m.inboxID, m.signer, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.mls.UploadKeyPackage(t.Context(), &mlsapi.UploadKeyPackageRequest{
		KeyPackage: &mlsapi.KeyPackageUpload{KeyPackageTlsSerialized: m.keys.Public()}, IsInboxIdCredential: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// register makes an inbox with one installation.
func (m *mallory) register() (inboxID string, key ed25519.PrivateKey) {
	m.t.Helper()
	must := func(err error) {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
	}
	wallet, err := identity.GenerateWalletKey()
	must(err)
	public, key, err := ed25519.GenerateKey(nil)
	must(err)
	inboxID, err = identity.DeriveInboxID(wallet.Identifier(), identity.DefaultNonce)
	must(err)
	request, err := identity.NewSignatureRequest(inboxID, time.Now(),
		identity.CreateInbox(wallet.Identifier(), identity.DefaultNonce),
		identity.AddMember(wallet.Identifier(), identity.Installation(public)))
	must(err)
	must(request.AddSignature(m.t.Context(), wallet.SignText(request.Text()), nil))
	must(request.AddSignature(m.t.Context(), identity.SignInstallation(key, request.Text()), nil))
	update, err := request.Update()
	must(err)
	_, err = m.node.PublishIdentityUpdate(m.t.Context(), &identityapi.PublishIdentityUpdateRequest{IdentityUpdate: update})
	must(err)
	return inboxID, key
}

// join joins the group of the only welcome.
func (m *mallory) join() {
	m.t.Helper()
	response, err := m.mls.QueryWelcomeMessages(m.t.Context(), &mlsapi.QueryWelcomeMessagesRequest{InstallationKey: m.key.Public().(ed25519.PublicKey)})
	if err != nil || len(response.Messages) != 1 {
		m.t.Fatalf("%d welcomes, %v", len(response.GetMessages()), err)
	}
	welcome, pointer, err := m.keys.Unwrap(response.Messages[0])
	if err != nil || pointer != nil {
		m.t.Fatal(pointer, err)
	}
	config := protocol.GroupConfig(true)
	config.PreSharedKey = func(mls.PreSharedKeyID) ([]byte, error) { return make([]byte, 32), nil }
	pending, err := mls.Join(welcome.Message, m.keys.Private(), m.signer, nil, config)
	if err != nil {
		m.t.Fatal(err)
	}
	m.group, m.cursor = pending.Done().Group, welcome.CommitID
	m.follow()
}

// follow applies the commits of others.
func (m *mallory) follow() {
	m.t.Helper()
	m.read(true)
}

// read reads what is new, and applies it or not: he does not tell himself what others
// will refuse.
func (m *mallory) read(apply bool) {
	m.t.Helper()
	response, err := m.mls.QueryGroupMessages(m.t.Context(), &mlsapi.QueryGroupMessagesRequest{
		GroupId: m.group.ID(), PagingInfo: &mlsapi.PagingInfo{Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING, IdCursor: m.cursor, Limit: 100},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	for _, message := range response.Messages {
		v1 := message.GetV1()
		m.cursor = v1.Id
		if !apply {
			continue
		}
		if pending, err := m.group.Process(v1.Data); err == nil {
			pending.Done()
		}
	}
}

// leaves finds a member's leaves.
func (m *mallory) leaves(inboxID string) (leaves []mls.LeafIndex) {
	m.t.Helper()
	for member := range m.group.Members() {
		if id, err := identity.ParseCredential(member.LeafNode.Credential()); err == nil && id == inboxID {
			leaves = append(leaves, member.Index)
		}
	}
	if len(leaves) == 0 {
		m.t.Fatalf("no leaf of %s", inboxID)
	}
	return leaves
}

// leaf finds the leaf of a member with one.
func (m *mallory) leaf(inboxID string) mls.LeafIndex { return m.leaves(inboxID)[0] }

// commit publishes a commit, and stays in the epoch, as those who are refused do.
func (m *mallory) commit(proposals []mls.Proposal) {
	m.t.Helper()
	m.publish(proposals)
	m.settle(false)
}

// publish publishes a commit, of which settle has to be told what became.
func (m *mallory) publish(proposals []mls.Proposal) {
	m.t.Helper()
	pending, err := m.group.Commit(mls.CommitOptions{Proposals: proposals, ByValueOnly: !m.byReference})
	m.byReference = false
	if err != nil {
		m.t.Fatal(err)
	}
	m.send(pending.Done().Message)
}

// send publishes a message to the group.
func (m *mallory) send(message []byte) {
	m.t.Helper()
	_, err := m.mls.SendGroupMessages(m.t.Context(), &mlsapi.SendGroupMessagesRequest{Messages: []*mlsapi.GroupMessageInput{{
		Version: &mlsapi.GroupMessageInput_V1_{V1: &mlsapi.GroupMessageInput_V1{Data: message, SenderHmac: make([]byte, 32)}},
	}}})
	if err != nil {
		m.t.Fatal(err)
	}
}

// settle takes up the own commit, or drops it.
func (m *mallory) settle(applied bool) {
	m.t.Helper()
	settle := m.group.DropOwnCommit
	if applied {
		settle = m.group.MergeOwnCommit
	}
	pending, err := settle()
	check(m.t, pending, err).Done()
}

// attack is a commit that nobody may apply: a change of the group's state, and what
// else is in the commit.
type attack struct {
	name   string
	change func(m *mallory, s *protocol.GroupState)
	more   func(m *mallory) []mls.Proposal
	// reason is ours; nil where it is MLS itself that is broken.
	reason *protocol.CommitError
}

// proposals are those of the attack. Only what differs is replaced.
func (a attack) proposals(m *mallory) []mls.Proposal {
	m.t.Helper()
	exts := m.group.Extensions()
	if a.change != nil {
		state, err := protocol.ParseGroupState(exts)
		if err != nil {
			m.t.Fatal(err)
		}
		before, _ := state.Extensions()
		a.change(m, state)
		after, err := state.Extensions()
		if err != nil {
			m.t.Fatal(err)
		}
		for i, e := range after {
			if string(e.Data) != string(before[i].Data) {
				exts = slices.DeleteFunc(slices.Clone(exts), func(old mls.Extension) bool { return old.Type == e.Type })
				exts = append(exts, e)
			}
		}
	}
	var proposals []mls.Proposal
	if a.more != nil {
		proposals = a.more(m)
	}
	if a.change != nil {
		proposals = append(proposals, mls.GroupContextExtensions{Extensions: exts})
	}
	return proposals
}

// What breaks the rules is refused by both sides alike, and stops nobody.
func TestGoMaliciousCommits(t *testing.T) {
	scenario(t, "Go: commits that break the rules are refused by Go and by them", everyVersion, func(t *testing.T, w *world) {
		bob, alice, m := goClient(t, w.url), w.Client("alice"), newMallory(t, w.url)
		our, their := &goMember{client: bob, t: t}, &officialMember{client: alice, t: t}
		their.view = alice.Group([]*official.Client{{InboxID: bob.InboxID()}, {InboxID: m.inboxID}}, map[string]any{"permissions": 1})
		our.join(their.view.ID)
		m.join()
		outsider, _ := m.register()
		accomplice, second := newMallory(t, w.url), newMallory(t, w.url)
		their.view.Call(nil, "addMembers", []string{second.inboxID})
		our.sync()
		m.follow()
		second.join()
		attribute := func(name, value string) func(*mallory, *protocol.GroupState) {
			return func(_ *mallory, s *protocol.GroupState) { s.Mutable.Attributes[name] = value }
		}
		removeBob := func(m *mallory) []mls.Proposal { return []mls.Proposal{mls.Remove{Leaf: m.leaf(bob.InboxID())}} }
		without := func(t mls.ExtensionType) func(m *mallory) []mls.Proposal {
			return func(m *mallory) []mls.Proposal {
				exts := slices.DeleteFunc(slices.Clone(m.group.Extensions()), func(e mls.Extension) bool { return e.Type == t })
				return []mls.Proposal{mls.GroupContextExtensions{Extensions: exts}}
			}
		}
		always := []attack{
			{"a leaf is removed and its member stays", nil, removeBob, protocol.ErrInstallationRemoved},
			{"a member is removed and his leaf stays", func(_ *mallory, s *protocol.GroupState) {
				delete(s.Membership.Members, bob.InboxID())
			}, nil, protocol.ErrInstallationRemoved},
			{"back in a member's log", func(_ *mallory, s *protocol.GroupState) { s.Membership.Members[bob.InboxID()]-- }, nil, protocol.ErrSequenceIDDecreased},
			{"no mutable metadata", nil, without(0xff00), protocol.ErrNoMutableMetadata},
			{"no membership", nil, without(0xff01), protocol.ErrNoMembership},
			{"no permissions", nil, without(0xff02), protocol.ErrPermissions},
			{"a long name", attribute(protocol.AttributeName, strings.Repeat("x", 101)), nil, protocol.ErrAttributeTooLong},
			{"a long description", attribute(protocol.AttributeDescription, strings.Repeat("x", 1001)), nil, protocol.ErrAttributeTooLong},
			{"a long image", attribute(protocol.AttributeImageURL, strings.Repeat("x", 2049)), nil, protocol.ErrAttributeTooLong},
			{"long app data", attribute(protocol.AttributeAppData, strings.Repeat("x", 8193)), nil, protocol.ErrAttributeTooLong},
			{"a leaf more, of an inbox that is no member", nil, func(m *mallory) []mls.Proposal { return []mls.Proposal{accomplice.add()} }, protocol.ErrInstallationAdded},
			{"himself out of the membership, his leaf excused", func(m *mallory, s *protocol.GroupState) {
				delete(s.Membership.Members, m.inboxID)
				s.Membership.Failed = append(s.Membership.Failed, identity.Installation(m.key.Public().(ed25519.PublicKey)))
			}, nil, protocol.ErrSubjectUnknown},
			{"a key known from elsewhere", nil, func(m *mallory) []mls.Proposal {
				return []mls.Proposal{mls.PreSharedKey{ID: mls.PreSharedKeyID{Type: mls.PSKExternal, ID: []byte("known"), Nonce: make([]byte, 32)}}}
			}, nil},
			{"another member's proposal", nil, func(m *mallory) []mls.Proposal {
				proposal, err := second.group.Propose(mls.Remove{Leaf: second.leaf(bob.InboxID())}, nil)
				second.send(check(t, proposal, err).Done())
				m.follow()
				m.byReference = true
				return nil
			}, nil},
		}
		asMember := append(slices.Clone(always),
			attack{"a leaf out and in again", nil, func(m *mallory) []mls.Proposal {
				return []mls.Proposal{mls.Remove{Leaf: m.leaf(second.inboxID)}, second.add()}
			}, protocol.ErrInstallationRemoved},
			attack{"a name", attribute(protocol.AttributeName, "mine"), nil, protocol.ErrNotPermitted},
			attack{"an unknown attribute", attribute("mood", "bad"), nil, protocol.ErrNotPermitted},
			attack{"a version", attribute(protocol.AttributeMinimumVersion, "1.0.0"), nil, protocol.ErrNotPermitted},
			attack{"himself admin", func(m *mallory, s *protocol.GroupState) { s.Mutable.Admins = []string{m.inboxID} }, nil, protocol.ErrNotPermitted},
			attack{"himself super admin", func(m *mallory, s *protocol.GroupState) {
				s.Mutable.SuperAdmins = append(s.Mutable.SuperAdmins, m.inboxID)
			}, nil, protocol.ErrNotPermitted},
			attack{"permissions", func(_ *mallory, s *protocol.GroupState) { s.Permissions = protocol.DefaultPermissions() }, nil, protocol.ErrNotPermitted},
			attack{"a member less", func(_ *mallory, s *protocol.GroupState) { delete(s.Membership.Members, bob.InboxID()) }, removeBob, protocol.ErrNotPermitted},
			attack{"a member more, without a device", func(m *mallory, s *protocol.GroupState) {
				s.Membership.Members[outsider] = m.latest(outsider)
			}, nil, protocol.ErrNotPermitted},
		)
		asSuperAdmin := append(slices.Clone(always),
			attack{"no super admin any more", func(_ *mallory, s *protocol.GroupState) { s.Mutable.SuperAdmins = nil }, nil, protocol.ErrNotPermitted},
			attack{"a super admin less", func(_ *mallory, s *protocol.GroupState) { delete(s.Membership.Members, alice.InboxID) },
				func(m *mallory) []mls.Proposal { return []mls.Proposal{mls.Remove{Leaf: m.leaf(alice.InboxID)}} }, protocol.ErrNotPermitted},
			attack{"a version that is none", attribute(protocol.AttributeMinimumVersion, "soon"), nil, protocol.ErrMinimumVersion},
		)
		for role, attacks := range [][]attack{asMember, asSuperAdmin} {
			if role == 1 {
				second.read(false)
				their.view.Call(nil, "addSuperAdmin", m.inboxID)
				m.follow()
				second.follow()
			}
			before := agree(t, our, their)
			epoch := our.epoch()
			for _, a := range attacks {
				m.commit(a.proposals(m))
				after := agree(t, our, their)
				if our.epoch() != epoch {
					t.Fatalf("%s was applied: %+v, then %+v", a.name, before, after)
				}
				skipped, err := bob.Skipped()
				last := check(t, skipped, err)[len(skipped)-1]
				if last.ConversationID != hex.EncodeToString(m.group.ID()) || a.reason != nil && last.Reason != xmtp.SkipReason(a.reason.Code) {
					t.Errorf("%s: %s, %s", a.name, last.Reason, last.Detail)
				}
			}
		}
		// Life goes on.
		their.view.Send("hello")
		our.view.say("hello yourself")
		sameState(t, our.view, their.view)
	})
}

// latest is where an inbox's log ends.
func (m *mallory) latest(inboxID string) uint64 {
	m.t.Helper()
	response, err := m.node.GetIdentityUpdates(m.t.Context(), &identityapi.GetIdentityUpdatesRequest{
		Requests: []*identityapi.GetIdentityUpdatesRequest_Request{{InboxId: inboxID}},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	updates := response.Responses[0].Updates
	return updates[len(updates)-1].SequenceId
}
