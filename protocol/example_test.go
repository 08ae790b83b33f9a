package protocol_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
)

// device is an installation, alone in its inbox.
type device struct {
	inboxID string
	id      identity.Identifier
	signer  mls.Signer
}

// directory has one update for each inbox.
type directory map[string]protocol.InboxState

func (d directory) InboxStates(_ context.Context, at []protocol.Position) ([]protocol.InboxState, error) {
	states := make([]protocol.InboxState, len(at))
	for i, p := range at {
		if s := d[p.InboxID]; s.SequenceID <= p.SequenceID {
			states[i] = s
		}
	}
	return states, nil
}

// register makes a wallet, its inbox and a device.
func (d directory) register(sequenceID uint64) device {
	wallet := must(identity.GenerateWalletKey())
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	owner, id := wallet.Identifier(), identity.Installation(public)
	inboxID := must(identity.DeriveInboxID(owner, identity.DefaultNonce))
	request := must(identity.NewSignatureRequest(inboxID, time.Now(),
		identity.CreateInbox(owner, identity.DefaultNonce), identity.AddMember(owner, id)))
	ctx := context.Background()
	if err := request.AddSignature(ctx, identity.SignInstallation(private, request.Text()), nil); err != nil {
		panic(err)
	}
	if err := request.AddSignature(ctx, wallet.SignText(request.Text()), nil); err != nil {
		panic(err)
	}
	verified := must(identity.Verify(ctx, must(request.Update()), nil))
	var none *identity.State
	d[inboxID] = protocol.InboxState{SequenceID: sequenceID, State: must(none.Apply(verified))}
	return device{inboxID, id, must(mls.NewSigner(identity.CipherSuite, private.Seed()))}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Two people begin a DM: one creates the group and adds the other, who joins by the
// welcome and answers. What a store and a node would do in between is left out.
func Example() {
	ctx, inboxes := context.Background(), directory{}
	alix, bo := inboxes.register(1), inboxes.register(2)

	// Bo has uploaded a key package.
	bosPackage := must(protocol.NewKeyPackage(bo.inboxID, bo.signer, time.Now()))

	// Alix creates the group, alone in it.
	state := protocol.NewDM(alix.inboxID, bo.inboxID)
	group := must(mls.New([]byte("16 random bytes."), protocol.NewClient(alix.inboxID, alix.signer),
		must(state.Extensions()), protocol.GroupConfig(true))).Done()

	// One commit adds Bo, with the key packages of all of his installations.
	plan := must(protocol.PlanMembership(ctx, inboxes, state.Membership, []string{bo.inboxID}, nil))
	packages := map[identity.Identifier]*identity.KeyPackageInfo{}
	for _, invited := range plan.Invited(alix.id) {
		packages[invited.Installation] = must(protocol.CheckKeyPackage(bosPackage.Public(), invited, time.Now()))
	}
	proposals, _, err := plan.Proposals(group.Extensions(), group.Members(), alix.id, packages)
	if err != nil {
		panic(err)
	}
	commit := must(group.Commit(mls.CommitOptions{Proposals: proposals, ByValueOnly: true}))
	must(protocol.CheckCommit(ctx, group, commit.Result().Staged, inboxes))
	sent := commit.Done()

	// The node has accepted the commit under the id 7: it is merged, and the welcome
	// goes out.
	must(group.MergeOwnCommit()).Done()
	wrapper := must(packages[bo.id].WelcomeWrapper())
	wrapped := must(protocol.WrapWelcome(sent.Welcome, 7, bo.id, wrapper)).GetV1()

	// Bo joins.
	welcome, _, err := bosPackage.Unwrap(&mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_V1_{V1: &mlsapi.WelcomeMessage_V1{
		Data: wrapped.Data, HpkePublicKey: wrapped.HpkePublicKey, WrapperAlgorithm: wrapped.WrapperAlgorithm, WelcomeMetadata: wrapped.WelcomeMetadata,
	}}})
	if err != nil {
		panic(err)
	}
	joined := must(mls.Join(welcome.Message, bosPackage.Private(), bo.signer, nil, protocol.GroupConfig(true)))
	_, adder, err := protocol.CheckJoined(ctx, joined.Result(), bo.inboxID, inboxes)
	if err != nil {
		panic(err)
	}
	bosGroup := joined.Done().Group
	fmt.Println("added by Alix:", adder.InboxID == alix.inboxID, "in commit", welcome.CommitID)

	// Bo writes, Alix reads.
	envelope := protocol.NewEnvelope([]byte("hello"), time.Now())
	message := must(bosGroup.Encrypt(must(envelope.Marshal()), nil)).Done()
	event := must(group.Process(message)).Done().(*mls.ApplicationMessage)
	sender := must(protocol.SenderOf(group, event))
	received := must(protocol.ParseEnvelope(event.Data))
	fmt.Printf("from Bo: %v %q\n", sender.InboxID == bo.inboxID, received.Content)
	fmt.Println("the same id:", received.MessageID(group.ID()) == envelope.MessageID(bosGroup.ID()))
	// Output:
	// added by Alix: true in commit 7
	// from Bo: true "hello"
	// the same id: true
}
