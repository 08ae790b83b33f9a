package xmtp_test

import (
	"context"
	"fmt"
	"log"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

// Somebody who is no member changes a message and sends it again.
func ExampleClient_Alerts() {
	ctx := context.Background()
	n, err := node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	open := func() *xmtp.Client {
		signer, err := xmtp.GeneratePrivateKeySigner()
		if err != nil {
			log.Fatal(err)
		}
		client, err := xmtp.NewClient(ctx, signer, xmtp.WithNode("http://"+n.Addr()), xmtp.InMemory())
		if err != nil {
			log.Fatal(err)
		}
		return client
	}
	alice, bob := open(), open()
	defer alice.Close()
	defer bob.Close()
	alices, bobs := group(ctx, alice, bob)
	if _, err := alices.SendText(ctx, "Hello"); err != nil {
		log.Fatal(err)
	}
	forge(ctx, n.Addr(), bobs.ID())

	if err := bob.Sync(ctx); err != nil {
		log.Fatal(err)
	}
	alerts, err := bob.Alerts()
	if err != nil {
		log.Fatal(err)
	}
	for _, a := range alerts {
		switch f := a.Finding.(type) {
		case xmtp.MessageForged:
			fmt.Println(f.Reason, f.ConversationID == bobs.ID(), a.Certain)
		default:
			fmt.Println(f)
		}
	}
	// Output: undecryptable true false
}

func ExampleClient_StreamAlerts() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	signer, err := xmtp.GeneratePrivateKeySigner()
	if err != nil {
		log.Fatal(err)
	}
	n, err := node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	client, err := xmtp.NewClient(ctx, signer, xmtp.WithNode("http://"+n.Addr()), xmtp.InMemory())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for alert, err := range client.StreamAlerts(ctx) {
			if err != nil {
				return
			}
			if alert.Certain {
				log.Print("somebody cheats: ", alert.Finding)
			}
		}
	}()
	stop()
	<-done
	// Output:
}

// forge changes the newest message of a conversation and sends it, as anybody can who
// reaches the node.
func forge(ctx context.Context, address, conversation string) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	api := mlsapi.NewMlsApiClient(conn)
	var id []byte
	if _, err := fmt.Sscanf(conversation, "%x", &id); err != nil {
		log.Fatal(err)
	}
	newest, err := api.QueryGroupMessages(ctx, &mlsapi.QueryGroupMessagesRequest{GroupId: id})
	if err != nil {
		log.Fatal(err)
	}
	data := newest.Messages[0].GetV1().Data
	data[40] ^= 1 // in what tells the members who has sent it
	_, err = api.SendGroupMessages(ctx, &mlsapi.SendGroupMessagesRequest{Messages: []*mlsapi.GroupMessageInput{{
		Version: &mlsapi.GroupMessageInput_V1_{V1: &mlsapi.GroupMessageInput_V1{Data: data, SenderHmac: make([]byte, 32)}},
	}}})
	if err != nil {
		log.Fatal(err)
	}
}
