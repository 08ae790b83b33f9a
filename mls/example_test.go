package mls_test

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/go-xmtp/go-xmtp/mls"
)

// store stands for the application's database: the records of one group.
type store map[string]mls.Record

// write is one transaction.
func (s store) write(changes []mls.Record) {
	for _, r := range changes {
		name := fmt.Sprint(r.Kind, r.Key)
		if r.Value == nil {
			delete(s, name)
		} else {
			s[name] = r
		}
	}
}

func (s store) records() (all []mls.Record) {
	for _, r := range s {
		all = append(all, r)
	}
	return all
}

// done stores what changes and completes the call.
func done[T any](s store, p *mls.Pending[T], err error) T {
	if err != nil {
		log.Fatal(err)
	}
	s.write(p.Changes())
	return p.Done()
}

// newClient makes somebody with a fresh signature key.
func newClient(name string) mls.Client {
	return newClientOf(mls.X25519ChaChaSHA256Ed25519, name)
}

func newClientOf(suite mls.CipherSuite, name string) mls.Client {
	private, err := mls.GenerateSignatureKey(suite)
	if err != nil {
		log.Fatal(err)
	}
	signer, err := mls.NewSigner(suite, private)
	if err != nil {
		log.Fatal(err)
	}
	return mls.Client{CipherSuite: suite, Signer: signer, Credential: mls.BasicCredential([]byte(name))}
}

// pair makes a group of alice and bob.
func pair() (alice, bob *mls.Group, aliceStore, bobStore store) {
	return pairOf(func(*mls.Client) {})
}

// pairOf makes a group of alice and bob, each as change has it.
func pairOf(change func(*mls.Client), extensions ...mls.Extension) (alice, bob *mls.Group, aliceStore, bobStore store) {
	aliceStore, bobStore = store{}, store{}
	a, b := newClient("alice"), newClient("bob")
	change(&a)
	change(&b)
	kp, err := mls.NewKeyPackage(b, mls.KeyPackageOptions{})
	if err != nil {
		log.Fatal(err)
	}
	created, err := mls.New([]byte("group"), a, extensions, mls.Config{})
	alice = done(aliceStore, created, err)
	commit, err := alice.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.Add{KeyPackage: kp.KeyPackage()}}})
	out := done(aliceStore, commit, err)
	merged, err := alice.MergeOwnCommit()
	done(aliceStore, merged, err)
	joined, err := mls.Join(out.Welcome, kp, b.Signer, nil, mls.Config{})
	bob = done(bobStore, joined, err).Group
	return alice, bob, aliceStore, bobStore
}

// Alice creates a group, adds Bob, and writes to him.
func Example() {
	alice, bob := newClient("alice"), newClient("bob")
	aliceStore, bobStore := store{}, store{}

	// Bob publishes a key package.
	bobsKeys, err := mls.NewKeyPackage(bob, mls.KeyPackageOptions{})
	if err != nil {
		log.Fatal(err)
	}
	published, err := bobsKeys.KeyPackage().MarshalBinary()
	if err != nil {
		log.Fatal(err)
	}

	// Alice makes a group and commits that Bob is in it.
	created, err := mls.New([]byte("group 1"), alice, nil, mls.Config{})
	group := done(aliceStore, created, err)
	kp, err := mls.UnmarshalKeyPackage(published)
	if err != nil {
		log.Fatal(err)
	}
	if err := kp.Verify(time.Now()); err != nil {
		log.Fatal(err)
	}
	commit, err := group.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.Add{KeyPackage: kp}}})
	out := done(aliceStore, commit, err)

	// The delivery service has accepted the commit: it counts, and Bob gets the Welcome.
	merged, err := group.MergeOwnCommit()
	done(aliceStore, merged, err)
	joined, err := mls.Join(out.Welcome, bobsKeys, bob.Signer, nil, mls.Config{})
	bobsGroup := done(bobStore, joined, err).Group

	// Alice writes, Bob reads.
	encrypted, err := group.Encrypt([]byte("Hello Bob"), nil)
	message := done(aliceStore, encrypted, err)
	received, err := bobsGroup.Process(message)
	if event, ok := done(bobStore, received, err).(*mls.ApplicationMessage); ok {
		fmt.Printf("%s: %s\n", event.Credential.Data, event.Data)
	}
	for m := range bobsGroup.Members() {
		fmt.Printf("leaf %d is %s\n", m.Index, m.LeafNode.Credential().Data)
	}
	// Output:
	// alice: Hello Bob
	// leaf 0 is alice
	// leaf 1 is bob
}

// A received commit is looked at before it is merged.
func ExampleGroup_Process() {
	alice, bob, aliceStore, bobStore := pair()
	commit, err := alice.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.Remove{Leaf: bob.OwnLeaf()}}})
	out := done(aliceStore, commit, err)

	p, err := bob.Process(out.Message)
	if err != nil {
		log.Fatal(err)
	}
	switch event := p.Result().(type) {
	case *mls.ApplicationMessage:
		fmt.Printf("%s\n", event.Data)
	case *mls.StagedCommit:
		for _, m := range event.Removed {
			fmt.Printf("%s would leave\n", m.LeafNode.Credential().Data)
		}
	}
	p.Discard() // not yet
	fmt.Println("a member still:", bob.Active())

	p, err = bob.Process(out.Message)
	done(bobStore, p, err)
	fmt.Println("a member after that:", bob.Active())
	// Output:
	// bob would leave
	// a member still: true
	// a member after that: false
}

// A group goes on after a restart where its records left it.
func ExampleLoad() {
	client := newClient("alice")
	records := store{}
	created, err := mls.New([]byte("group"), client, nil, mls.Config{})
	done(records, created, err)

	group, err := mls.Load(records.records(), mls.Config{}, client.Signer)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s in epoch %d\n", group.ID(), group.Epoch())
	// Output: group in epoch 0
}

// Two commits are made in one epoch: one stands, the maker of the other tries again.
func ExampleGroup_Commit() {
	alice, bob, aliceStore, bobStore := pair()
	a, err := alice.Commit(mls.CommitOptions{})
	first := done(aliceStore, a, err)
	b, err := bob.Commit(mls.CommitOptions{})
	second := done(bobStore, b, err)

	// All get the commits in the same order, their makers too.
	for _, message := range [][]byte{first.Message, second.Message} {
		for _, m := range []struct {
			group *mls.Group
			store store
		}{{alice, aliceStore}, {bob, bobStore}} {
			p, err := m.group.Process(message)
			if errors.Is(err, mls.ErrWrongEpoch) {
				continue
			}
			switch event := done(m.store, p, err).(type) {
			case *mls.StagedCommit:
				fmt.Println("own:", event.Own, "epoch:", event.Epoch)
			case *mls.OwnMessage:
				fmt.Println("own commit that lost, of epoch", event.Epoch)
			}
		}
	}
	fmt.Println("agreed:", bytes.Equal(alice.EpochAuthenticator(), bob.EpochAuthenticator()))
	// Output:
	// own: true epoch: 2
	// own: false epoch: 2
	// own commit that lost, of epoch 1
	// agreed: true
}

// A proposal waits until somebody commits it.
func ExampleGroup_Propose() {
	alice, bob, aliceStore, bobStore := pair()
	proposed, err := bob.Propose(mls.GroupContextExtensions{Extensions: []mls.Extension{
		mls.RequiredCapabilities{Credentials: []mls.CredentialType{mls.CredentialBasic}}.Extension(),
	}}, nil)
	proposal := done(bobStore, proposed, err)
	received, err := alice.Process(proposal)
	done(aliceStore, received, err)
	if _, err := alice.Encrypt([]byte("hi"), nil); errors.Is(err, mls.ErrPendingProposals) {
		fmt.Println("first a commit")
	}
	commit, err := alice.Commit(mls.CommitOptions{})
	out := done(aliceStore, commit, err)
	merged, err := alice.MergeOwnCommit()
	done(aliceStore, merged, err)
	p, err := bob.Process(out.Message)
	done(bobStore, p, err)
	_, ok := bob.Extension(mls.ExtensionRequiredCapabilities)
	fmt.Println("extension:", ok)
	// Output:
	// first a commit
	// extension: true
}

// A node tells what it forwards without being able to read it.
func ExampleParseHeader() {
	alice, _, aliceStore, _ := pair()
	encrypted, err := alice.Encrypt([]byte("secret"), nil)
	message := done(aliceStore, encrypted, err)
	h, _, err := mls.ParseHeader(message)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s message for %s in epoch %d\n", h.ContentType, h.GroupID, h.Epoch)
	// Output: application message for group in epoch 1
}
