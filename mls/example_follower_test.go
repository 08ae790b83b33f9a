package mls_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/go-xmtp/go-xmtp/mls"
)

// A delivery service follows a group from its public handshakes: it refuses what the
// members would refuse, and hands the tree to those who join by themselves.
func ExampleFollower() {
	config := mls.Config{PublicHandshakes: true}
	alice, aliceStore := newClient("alice"), store{}
	created, err := mls.New([]byte("group 1"), alice, nil, config)
	group := done(aliceStore, created, err)

	// Alice shows the group to the service: from now on it knows the members.
	info, err := group.GroupInfo(mls.GroupInfoOptions{})
	if err != nil {
		log.Fatal(err)
	}
	serviceStore := store{}
	followed, err := mls.NewFollower(info, nil, config)
	service := done(serviceStore, followed, err)

	// Alice adds Bob. What the service accepts goes to the members in that order.
	bob := newClient("bob")
	keys, err := mls.NewKeyPackage(bob, mls.KeyPackageOptions{})
	if err != nil {
		log.Fatal(err)
	}
	commit, err := group.Commit(mls.CommitOptions{Proposals: []mls.Proposal{mls.Add{KeyPackage: keys.KeyPackage()}}})
	message := done(aliceStore, commit, err).Message
	seen, err := service.Process(message)
	staged := done(serviceStore, seen, err).(*mls.StagedCommit)
	fmt.Printf("epoch %d: leaf %d adds %s\n", staged.Epoch, staged.Committer, staged.Added[0].LeafNode.Credential().Data)
	merged, err := group.Process(message)
	done(aliceStore, merged, err)

	// The same again is of an epoch that is over.
	if _, err := service.Process(message); errors.Is(err, mls.ErrWrongEpoch) {
		fmt.Println("refused:", err)
	}

	// Carol joins by herself: with a small GroupInfo of Alice's, which the service checks,
	// and the tree that the service has.
	if info, err = group.GroupInfo(mls.GroupInfoOptions{ExternalTree: true}); err != nil {
		log.Fatal(err)
	}
	if err := service.CheckGroupInfo(info); err != nil {
		log.Fatal(err)
	}
	joining, err := mls.JoinExternal(info, newClient("carol"), mls.ExternalJoinOptions{RatchetTree: service.RatchetTree()}, config)
	message = done(store{}, joining, err).Message
	seen, err = service.Process(message)
	done(serviceStore, seen, err)

	// After a restart the service goes on from its records, which hold no secret.
	if service, err = mls.LoadFollower(serviceStore.records(), config); err != nil {
		log.Fatal(err)
	}
	fmt.Println("epoch", service.Epoch())
	for m := range service.Members() {
		fmt.Printf("leaf %d: %s\n", m.Index, m.LeafNode.Credential().Data)
	}
	// Output:
	// epoch 1: leaf 0 adds bob
	// refused: mls: follow: message of epoch 0 in epoch 1
	// epoch 2
	// leaf 0: alice
	// leaf 1: bob
	// leaf 2: carol
}
