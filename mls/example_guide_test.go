package mls_test

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/go-xmtp/go-xmtp/mls"
)

// check ends an example that can't go on.
func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// What a program that takes part in groups does with each message that arrives.
func receive(group *mls.Group, db store, message []byte) error {
	p, err := group.Process(message)
	switch {
	case errors.Is(err, mls.ErrSecretReused):
		return nil // it came twice
	case errors.Is(err, mls.ErrWrongEpoch):
		return nil // too late, or a commit before it is missing: fetch and try again
	case errors.Is(err, mls.ErrStateRolledBack):
		return err // an old copy of the database is in use: stop sending
	case err != nil:
		log.Println("refused:", err) // the group is as it was; go on with the next one
		return nil
	}
	defer p.Discard()
	switch event := p.Result().(type) {
	case *mls.ApplicationMessage:
		fmt.Printf("%s: %s\n", event.Credential.Data, event.Data)
	case *mls.StagedCommit:
		for _, m := range event.Added {
			fmt.Printf("%s comes in\n", m.LeafNode.Credential().Data)
		}
		if event.SelfRemoved {
			fmt.Println("we are out")
		}
	case *mls.ReceivedProposal: // it waits for a commit
	case *mls.OwnMessage: // our own, which the delivery service brought back
	}
	db.write(p.Changes()) // with the application's own rows, in one transaction
	p.Done()
	return nil
}

// Some errors call for a decision; all others mean that a message is refused.
func Example_receiving() {
	alice, bob, aliceStore, bobStore := pair()
	encrypted, err := alice.Encrypt([]byte("hi"), nil)
	message := done(aliceStore, encrypted, err)
	check(receive(bob, bobStore, message))
	check(receive(bob, bobStore, message))     // again
	check(receive(alice, aliceStore, message)) // its sender gets it too
	// Output: alice: hi
}

// directory is an authentication service: it knows everybody's signature key.
type directory map[string][]byte

// Authenticate implements [mls.Authenticator].
func (d directory) Authenticate(members []mls.Candidate) []error {
	errs := make([]error, len(members))
	for i, m := range members {
		name := m.LeafNode.Credential()
		if name.Type != mls.CredentialBasic || !bytes.Equal(d[string(name.Data)], m.LeafNode.SignatureKey()) {
			errs[i] = fmt.Errorf("%q doesn't have this key", name.Data)
		}
	}
	return errs
}

// Who claims to be somebody else doesn't get into the group.
func ExampleAuthenticator() {
	alice, bob, mallory := newClient("alice"), newClient("bob"), newClient("bob")
	known := directory{"alice": alice.Signer.Public(), "bob": bob.Signer.Public()}

	created, err := mls.New([]byte("group"), alice, nil, mls.Config{Authenticator: known})
	check(err)
	group := created.Done()
	for _, c := range []mls.Client{mallory, bob} {
		keys, err := mls.NewKeyPackage(c, mls.KeyPackageOptions{})
		check(err)
		p, err := group.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.Add{KeyPackage: keys.KeyPackage()}}})
		if errors.Is(err, mls.ErrCredential) {
			fmt.Println("refused")
			continue
		}
		check(err)
		fmt.Printf("added %s\n", p.Done().Staged.Added[0].LeafNode.Credential().Data)
	}
	// Output:
	// refused
	// added bob
}

// A key package is published, and its private keys are kept until somebody uses it.
func ExampleNewKeyPackage() {
	bob := newClient("bob")
	keys, err := mls.NewKeyPackage(bob, mls.KeyPackageOptions{
		Lifetime: mls.Lifetime{
			NotBefore: uint64(time.Now().Add(-time.Hour).Unix()),
			NotAfter:  uint64(time.Now().Add(30 * 24 * time.Hour).Unix()),
		},
	})
	check(err)
	public, err := keys.KeyPackage().MarshalBinary()
	check(err)
	ref, err := keys.KeyPackage().Ref() // Welcomes name the package by it
	check(err)
	initKey, leafKey := keys.InitKey(), keys.LeafKey() // into the database, encrypted

	// Later, when a Welcome names ref:
	kp, err := mls.UnmarshalKeyPackage(public)
	check(err)
	keys, err = mls.RestoreKeyPackage(kp, initKey, leafKey)
	check(err)
	again, err := keys.KeyPackage().Ref()
	check(err)
	fmt.Println("the same:", bytes.Equal(ref, again))
	// Output: the same: true
}

// A change that can't be stored is dropped, and tried again.
func ExamplePending() {
	alice, bob, aliceStore, bobStore := pair()
	encrypted, err := alice.Encrypt([]byte("hi"), nil)
	message := done(aliceStore, encrypted, err)

	p, err := bob.Process(message)
	check(err)
	_, err = bob.Process(message) // one at a time
	fmt.Println(errors.Is(err, mls.ErrPending))
	p.Discard() // the disk is full, say

	p, err = bob.Process(message)
	check(err)
	bobStore.write(p.Changes())
	fmt.Printf("%s\n", p.Done().(*mls.ApplicationMessage).Data)
	// Output:
	// true
	// hi
}

// Carol has a GroupInfo, from a server, say, and joins by herself.
func ExampleJoinExternal() {
	alice, bob, aliceStore, bobStore := pair()
	info, err := alice.GroupInfo(mls.GroupInfoOptions{})
	check(err)

	carol, carolStore := newClient("carol"), store{}
	p, err := mls.JoinExternal(info, carol, mls.ExternalJoinOptions{}, mls.Config{})
	joined := done(carolStore, p, err)
	// The delivery service takes joined.Message as the commit of this epoch. If it
	// has another one already, the joined group is of no use: start again.
	check(receive(alice, aliceStore, joined.Message))
	check(receive(bob, bobStore, joined.Message))

	encrypted, err := joined.Group.Encrypt([]byte("hello"), nil)
	message := done(carolStore, encrypted, err)
	check(receive(alice, aliceStore, message))

	// Bob has lost his state. He takes his own leaf again.
	info, err = joined.Group.GroupInfo(mls.GroupInfoOptions{})
	check(err)
	q, err := mls.JoinExternal(info, newClient("bob"), mls.ExternalJoinOptions{
		Replaces: func(m mls.Member) bool { return string(m.LeafNode.Credential().Data) == "bob" },
	}, mls.Config{})
	resync := done(store{}, q, err)
	staged, err := alice.Process(resync.Message)
	event := done(aliceStore, staged, err).(*mls.StagedCommit)
	fmt.Println("leaf", event.Removed[0].Index, "is now leaf", event.Added[0].Index)
	// Output:
	// carol comes in
	// carol comes in
	// carol: hello
	// leaf 1 is now leaf 1
}

// A service that is no member proposes that somebody leave, and Carol asks to be
// let in. A member commits both.
func ExampleOutsideProposal() {
	service := newClient("service")
	alice, carol := newClient("alice"), newClient("carol")
	created, err := mls.New([]byte("group"), alice, []mls.Extension{
		mls.ExternalSenders(mls.ExternalSender{SignatureKey: service.Signer.Public(), Credential: service.Credential}),
	}, mls.Config{})
	check(err)
	group := created.Done()
	bobsKeys, err := mls.NewKeyPackage(newClient("bob"), mls.KeyPackageOptions{})
	check(err)
	commit, err := group.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.Add{KeyPackage: bobsKeys.KeyPackage()}}})
	check(err)
	commit.Done()
	merged, err := group.MergeOwnCommit()
	check(err)
	merged.Done()

	remove, err := mls.OutsideProposal{GroupID: group.ID(), Epoch: 1, Proposal: mls.Remove{Leaf: 1}}.SignExternal(0, service.Signer)
	check(err)
	keys, err := mls.NewKeyPackage(carol, mls.KeyPackageOptions{})
	check(err)
	ask, err := mls.OutsideProposal{GroupID: group.ID(), Epoch: 1, Proposal: mls.Add{KeyPackage: keys.KeyPackage()}}.SignNewMember(carol.Signer)
	check(err)

	for _, message := range [][]byte{remove, ask} {
		p, err := group.Process(message)
		check(err)
		fmt.Println(p.Done().(*mls.ReceivedProposal).Sender)
	}
	commit, err = group.Commit(mls.CommitOptions{})
	check(err)
	staged := commit.Done().Staged
	fmt.Println(len(staged.Added), "added,", len(staged.Removed), "removed")
	// Output:
	// external sender 0
	// a new member
	// 1 added, 1 removed
}

// A key that the members have from elsewhere goes into the next epoch: who has
// stolen all else can't follow.
func ExamplePreSharedKey() {
	vault := func(id mls.PreSharedKeyID) ([]byte, error) {
		if id.Type == mls.PSKExternal && string(id.ID) == "meeting of 3 May" {
			return []byte("32 bytes or more, by another way"), nil
		}
		return nil, fmt.Errorf("no key %q", id.ID)
	}
	config := mls.Config{PreSharedKey: vault}
	created, err := mls.New([]byte("group"), newClient("alice"), nil, config)
	check(err)
	group := created.Done()
	id := mls.PreSharedKeyID{Type: mls.PSKExternal, ID: []byte("meeting of 3 May")}
	commit, err := group.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.PreSharedKey{ID: id}}})
	check(err)
	fmt.Println("keys mixed in:", len(commit.Done().Staged.Proposals))
	merged, err := group.MergeOwnCommit()
	check(err)
	merged.Done()

	id.ID = []byte("another")
	_, err = group.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.PreSharedKey{ID: id}}})
	fmt.Println("not known:", errors.Is(err, mls.ErrPreSharedKey))
	// Output:
	// keys mixed in: 1
	// not known: true
}

// A group can't change its cipher suite. It is closed, and goes on in another one.
func ExampleGroup_Reinitialize() {
	alice, bob, aliceStore, bobStore := pair()
	commit, err := alice.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.ReInit{
		GroupID: []byte("next group"), Version: mls.MLS10, CipherSuite: mls.P256AES128SHA256P256,
	}}})
	out := done(aliceStore, commit, err)
	merged, err := alice.MergeOwnCommit()
	done(aliceStore, merged, err)
	check(receive(bob, bobStore, out.Message))
	_, err = bob.Encrypt([]byte("hi"), nil)
	fmt.Println("closed:", errors.Is(err, mls.ErrReInit))

	// Each makes a key package for the new suite; one makes the group.
	newBob := newClientOf(mls.P256AES128SHA256P256, "bob")
	keys, err := mls.NewKeyPackage(newBob, mls.KeyPackageOptions{})
	check(err)
	made, err := alice.Reinitialize(mls.SuccessorOptions{
		Client:  newClientOf(mls.P256AES128SHA256P256, "alice"),
		Members: []*mls.KeyPackage{keys.KeyPackage()},
	}, mls.Config{})
	next := done(store{}, made, err) // records of another group: a store of their own
	joined, err := bob.JoinSuccessor(next.Welcome, keys, newBob.Signer, nil, mls.Config{})
	bobs := done(store{}, joined, err).Group
	fmt.Printf("%s with suite %d\n", bobs.ID(), bobs.CipherSuite())
	// Output:
	// closed: true
	// next group with suite 2
}

// Some members make a group of their own, and know of each other that they come
// from the same one.
func ExampleGroup_Branch() {
	alice, bob, _, _ := pair()
	newAlice, newBob := newClient("alice"), newClient("bob")
	keys, err := mls.NewKeyPackage(newBob, mls.KeyPackageOptions{})
	check(err)
	made, err := alice.Branch(mls.SuccessorOptions{
		Client:  newAlice,
		GroupID: []byte("side talk"),
		Members: []*mls.KeyPackage{keys.KeyPackage()},
	}, mls.Config{})
	branch := done(store{}, made, err)
	joined, err := bob.JoinSuccessor(branch.Welcome, keys, newBob.Signer, nil, mls.Config{})
	group := done(store{}, joined, err).Group
	fmt.Printf("%s in epoch %d; the old group is open: %v\n", group.ID(), group.Epoch(), alice.Active())
	// Output: side talk in epoch 1; the old group is open: true
}

// counter is a component whose data is a number of lines: updates are appended.
func counter(changes []mls.AppDataChange) map[mls.ComponentID][]byte {
	data := make(map[mls.ComponentID][]byte)
	for _, c := range changes {
		if !c.Remove {
			data[c.Component] = append(bytes.Clone(c.Current), bytes.Join(c.Updates, nil)...)
		}
	}
	return data
}

// Data of the application are part of what the group agrees on. What an update
// makes of them only the application knows, so that it is asked.
func ExampleUnresolvedCommit() {
	alice, bob, aliceStore, bobStore := pairOf(func(c *mls.Client) {
		c.Capabilities.Extensions = []mls.ExtensionType{mls.ExtensionAppDataDictionary}
		c.Capabilities.Proposals = []mls.ProposalType{mls.ProposalAppDataUpdate, mls.ProposalAppEphemeral}
	}, mls.AppDataDictionary(mls.ComponentData{Component: 0x8001, Data: []byte("one ")}))

	opts := mls.CommitOptions{Proposals: []mls.Proposal{
		mls.AppDataUpdate{Component: 0x8001, Update: []byte("two")},
		mls.AppEphemeral{Component: 0x8001, Data: []byte("said once, not kept")},
	}}
	_, err := alice.Commit(opts)
	asked, ok := errors.AsType[*mls.AppDataError](err)
	if !ok {
		log.Fatal(err)
	}
	opts.AppData = counter(asked.Changes)
	commit, err := alice.Commit(opts)
	out := done(aliceStore, commit, err)
	merged, err := alice.MergeOwnCommit()
	done(aliceStore, merged, err)

	p, err := bob.Process(out.Message)
	unresolved := done(bobStore, p, err).(*mls.UnresolvedCommit)
	p, err = unresolved.Resolve(counter(unresolved.Changes))
	done(bobStore, p, err)
	body, _ := bob.Extension(mls.ExtensionAppDataDictionary)
	list, err := mls.ParseAppDataDictionary(body)
	check(err)
	fmt.Printf("%#x: %s\n", list[0].Component, list[0].Data)
	// Output: 0x8001: one two
}

// Secrets for other uses, a call's media keys, say: the same for all members in
// an epoch.
func ExampleGroup_Export() {
	alice, bob, _, _ := pair()
	hers, err := alice.Export("example.org call keys", []byte("call 17"), 32)
	check(err)
	his, err := bob.Export("example.org call keys", []byte("call 17"), 32)
	check(err)
	fmt.Println("the same:", bytes.Equal(hers, his))
	// Output: the same: true
}

// The secret of a component can be taken once in an epoch: who steals the group's
// state afterwards doesn't find it.
func ExampleGroup_SafeExport() {
	alice, bob, aliceStore, bobStore := pair()
	p, err := alice.SafeExport(0x8001)
	hers := done(aliceStore, p, err)
	p, err = bob.SafeExport(0x8001)
	his := done(bobStore, p, err)
	fmt.Println("the same:", bytes.Equal(hers, his))

	_, err = alice.SafeExport(0x8001)
	fmt.Println("gone:", errors.Is(err, mls.ErrSecretReused))
	// Output:
	// the same: true
	// gone: true
}

// A post-quantum suite is given to whatever has to know it. Its number is not
// assigned yet, so that the members agree on one.
func ExampleXWingAES128SHA256Ed25519() {
	const id = 0xf001
	suite := mls.XWingAES128SHA256Ed25519(id)
	private, err := mls.GenerateSignatureKey(id, suite)
	check(err)
	signer, err := mls.NewSigner(id, private, suite)
	check(err)
	alice := mls.Client{CipherSuite: id, Signer: signer, Credential: mls.BasicCredential([]byte("alice"))}
	config := mls.Config{Suites: []*mls.Suite{suite}}

	created, err := mls.New([]byte("group"), alice, nil, config)
	check(err)
	keys, err := mls.NewKeyPackage(alice, mls.KeyPackageOptions{Suites: config.Suites})
	check(err)
	fmt.Println("suite", created.Done().CipherSuite(), "with HPKE keys of", len(keys.KeyPackage().InitKey()), "bytes")
	// Output: suite 61441 with HPKE keys of 1216 bytes
}

// A client that greases says that it knows what nobody knows: peers that choke on
// the unknown are found early.
func ExampleClient_grease() {
	alice := newClient("alice")
	alice.GREASE = true
	keys, err := mls.NewKeyPackage(alice, mls.KeyPackageOptions{})
	check(err)
	listed := keys.KeyPackage().LeafNode().Capabilities().CipherSuites
	fmt.Println("suites listed:", len(listed))
	fmt.Println("still valid:", keys.KeyPackage().Verify(time.Now()) == nil)
	// Output:
	// suites listed: 2
	// still valid: true
}

// Lengths are hidden in classes, handshakes are encrypted and nothing else is
// taken, late messages are read for one epoch more only.
func ExampleConfig() {
	config := mls.Config{
		OneFormat: true,
		Padding:   func(_ mls.ContentType, n int) int { return (n+255)/256*256 - n },
		Windows:   &mls.Windows{Backward: 5, Forward: 1000, PastEpochs: 1},
	}
	created, err := mls.New([]byte("group"), newClient("alice"), nil, config)
	check(err)
	group := created.Done()
	lengths := map[int]bool{}
	for n := range 100 {
		p, err := group.Encrypt(make([]byte, n), nil)
		check(err)
		lengths[len(p.Done())] = true
	}
	fmt.Println(len(lengths), "length")
	// Output: 1 length
}

// A member can't remove itself by its own commit: it asks, and another one commits.
func ExampleSelfRemove() {
	alice, bob, aliceStore, bobStore := pairOf(func(c *mls.Client) {
		c.Capabilities.Proposals = []mls.ProposalType{mls.ProposalSelfRemove}
	})
	proposed, err := bob.Propose(mls.SelfRemove{}, nil)
	check(receive(alice, aliceStore, done(bobStore, proposed, err)))
	commit, err := alice.Commit(mls.CommitOptions{})
	out := done(aliceStore, commit, err)
	merged, err := alice.MergeOwnCommit()
	done(aliceStore, merged, err)
	check(receive(bob, bobStore, out.Message))
	fmt.Println("a member:", bob.Active())
	// Output:
	// we are out
	// a member: false
}

// Members rotate their keys by a commit without proposals. It can bring a new
// signature key too.
func ExampleCommitOptions() {
	alice, bob, aliceStore, bobStore := pair()
	old := alice.EpochAuthenticator()
	renewed := newClient("alice") // the same name, a new signature key
	commit, err := alice.Commit(mls.CommitOptions{Leaf: &renewed})
	out := done(aliceStore, commit, err)
	merged, err := alice.MergeOwnCommit()
	done(aliceStore, merged, err)
	check(receive(bob, bobStore, out.Message))

	leaf, _ := bob.Member(0)
	fmt.Println("new key:", bytes.Equal(leaf.LeafNode.SignatureKey(), renewed.Signer.Public()))
	fmt.Println("new epoch:", !bytes.Equal(old, bob.EpochAuthenticator()))
	// Output:
	// new key: true
	// new epoch: true
}

// A program in many groups keeps those that are quiet small.
func ExampleGroup_Park() {
	alice, bob, aliceStore, bobStore := pair()
	bob.Park()
	encrypted, err := alice.Encrypt([]byte("hi"), nil)
	check(receive(bob, bobStore, done(aliceStore, encrypted, err))) // works as ever
	// Output: alice: hi
}
