package xmtp

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// The benchmarks of the message path: clients with encrypted databases on the disk,
// a node in the same process that stores on the disk, too.

// benchURL starts a node.
func benchURL(b *testing.B) string {
	b.Helper()
	n, err := node.Start(b.Context(), node.Options{Listen: "127.0.0.1:0", Data: b.TempDir()})
	benchCheck(b, err)
	b.Cleanup(func() { n.Close() })
	return "http://" + n.Addr()
}

// benchClient makes a client as a program would that relies on its files.
func benchClient(b *testing.B, url string, list ...Option) *Client {
	b.Helper()
	signer, err := GeneratePrivateKeySigner()
	benchCheck(b, err)
	key := make([]byte, store.KeySize)
	rand.Read(key)
	c, err := NewClient(b.Context(), signer, append([]Option{
		WithNode(url), WithDatabase(filepath.Join(b.TempDir(), "client.db")), WithKey(key), WithLogger(slog.New(slog.DiscardHandler)),
	}, list...)...)
	benchCheck(b, err)
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	})
	return c
}

// benchPair makes two clients in some groups in which both have sent.
func benchPair(b *testing.B, groups int) (alice, bob *Client, ids []string) {
	b.Helper()
	url := benchURL(b)
	alice, bob = benchClient(b, url), benchClient(b, url)
	for range groups {
		v, err := alice.NewGroup(b.Context(), GroupOptions{}, bob.InboxID())
		benchCheck(b, err)
		ids = append(ids, v.ID())
	}
	benchCheck(b, bob.Sync(b.Context()))
	for _, id := range ids {
		_, err := benchConversation(b, bob, id).SendText(b.Context(), "hello")
		benchCheck(b, err)
		_, err = benchConversation(b, alice, id).SendText(b.Context(), "hello")
		benchCheck(b, err)
	}
	benchCheck(b, bob.Sync(b.Context()))
	return alice, bob, ids
}

func benchConversation(b *testing.B, c *Client, id string) *Conversation {
	b.Helper()
	v, err := c.Conversation(id)
	benchCheck(b, err)
	return v
}

func benchCheck(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// benchTarget is a node's address as grpc-go wants it.
func benchTarget(url string) string { return "passthrough:///" + strings.TrimPrefix(url, "http://") }

// benchInboxes makes users, by what a client publishes of them. They do nothing.
func benchInboxes(b *testing.B, url string, n int) []string {
	b.Helper()
	conn, err := grpc.NewClient(benchTarget(url), grpc.WithTransportCredentials(insecure.NewCredentials()))
	benchCheck(b, err)
	defer conn.Close()
	ids := make([]string, n)
	var workers errgroup.Group
	workers.SetLimit(8)
	for i := range ids {
		workers.Go(func() (err error) {
			ids[i], err = registerUser(b.Context(), conn)
			return err
		})
	}
	benchCheck(b, workers.Wait())
	return ids
}

func registerUser(ctx context.Context, conn *grpc.ClientConn) (inboxID string, err error) {
	wallet, err := GeneratePrivateKeySigner()
	if err != nil {
		return "", err
	}
	owner, err := identifierOf(wallet)
	if err != nil {
		return "", err
	}
	if inboxID, err = identity.DeriveInboxID(owner, 1); err != nil {
		return "", err
	}
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed)
	key := ed25519.NewKeyFromSeed(seed)
	installation := identity.Installation(key.Public().(ed25519.PublicKey))
	request, err := identity.NewSignatureRequest(inboxID, time.Now(), identity.CreateInbox(owner, 1), identity.AddMember(owner, installation))
	if err != nil {
		return "", err
	}
	if err := request.AddSignature(ctx, identity.SignInstallation(key, request.Text()), nil); err != nil {
		return "", err
	}
	if err := signWith(ctx, wallet, request, nil); err != nil {
		return "", err
	}
	update, err := request.Update()
	if err != nil {
		return "", err
	}
	signer, err := mls.NewSigner(identity.CipherSuite, seed)
	if err != nil {
		return "", err
	}
	kp, err := protocol.NewKeyPackage(inboxID, signer, time.Now())
	if err != nil {
		return "", err
	}
	_, err = mlsapi.NewMlsApiClient(conn).UploadKeyPackage(ctx, &mlsapi.UploadKeyPackageRequest{
		KeyPackage:          &mlsapi.KeyPackageUpload{KeyPackageTlsSerialized: kp.Public()},
		IsInboxIdCredential: true,
	})
	if err == nil {
		_, err = identityapi.NewIdentityApiClient(conn).PublishIdentityUpdate(ctx, &identityapi.PublishIdentityUpdateRequest{IdentityUpdate: update})
	}
	return inboxID, err
}

// One text, awaited, in groups of several sizes.
func BenchmarkSend(b *testing.B) {
	for _, members := range []int{2, 50, 250} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			url := benchURL(b)
			alice := benchClient(b, url)
			v, err := alice.NewGroup(b.Context(), GroupOptions{}, benchInboxes(b, url, members-1)...)
			benchCheck(b, err)
			_, err = v.SendText(b.Context(), "hello")
			benchCheck(b, err)
			b.ReportAllocs()
			for b.Loop() {
				_, err := v.SendText(b.Context(), "the text of a message")
				benchCheck(b, err)
			}
		})
	}
}

// 64 goroutines that wait for each of their texts, in one group or each in its own.
func BenchmarkSendConcurrent(b *testing.B) {
	for _, groups := range []int{1, 64} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) {
			alice, _, ids := benchPair(b, groups)
			var conversations []*Conversation
			for _, id := range ids {
				conversations = append(conversations, benchConversation(b, alice, id))
			}
			b.ReportAllocs()
			b.ResetTimer()
			benchSendAll(b, conversations, 64, b.N)
		})
	}
}

func benchSendAll(b *testing.B, conversations []*Conversation, senders, n int) {
	b.Helper()
	var group sync.WaitGroup
	for s := range senders {
		group.Go(func() {
			for i := s; i < n; i += senders {
				if _, err := conversations[s%len(conversations)].SendText(b.Context(), "the text of a message"); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// 1,000 texts that are stored one by one, and published together.
func BenchmarkSendOptimistic(b *testing.B) {
	alice, _, ids := benchPair(b, 1)
	v := benchConversation(b, alice, ids[0])
	b.ReportAllocs()
	for b.Loop() {
		for range 1000 {
			_, err := v.SendOptimistic(content.Text("the text of a message"))
			benchCheck(b, err)
		}
		benchCheck(b, v.PublishMessages(b.Context()))
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "messages/s")
}

// Messages that came while a client was away.
func BenchmarkReceive(b *testing.B) {
	for _, groups := range []int{1, 100} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) {
			alice, bob, ids := benchPair(b, groups)
			const messages = 2000
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for i := range messages {
					_, err := benchConversation(b, alice, ids[i%groups]).SendOptimistic(content.Text("the text of a message"))
					benchCheck(b, err)
				}
				for _, id := range ids {
					benchCheck(b, benchConversation(b, alice, id).PublishMessages(b.Context()))
				}
				b.StartTimer()
				benchCheck(b, bob.Sync(b.Context()))
			}
			b.ReportMetric(float64(b.N)*messages/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// From sending to the loop of who streams.
func BenchmarkDeliver(b *testing.B) {
	alice, bob, ids := benchPair(b, 1)
	v := benchConversation(b, alice, ids[0])
	ctx, stop := context.WithCancel(b.Context())
	arrived := make(chan struct{}, 1)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer stop()
	messages := bob.StreamAllMessages(ctx)
	reader.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.SenderInboxID != alice.InboxID() || m.Kind != KindApplication {
				continue
			}
			select {
			case arrived <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	})
	_, err := v.SendText(b.Context(), "the text of a message")
	benchCheck(b, err)
	<-arrived
	b.ReportAllocs()
	for b.Loop() {
		_, err := v.SendText(b.Context(), "the text of a message")
		benchCheck(b, err)
		<-arrived
	}
}

// A client with 100 groups and a history: what it costs to find that there is
// nothing new, and to list.
func BenchmarkIdle(b *testing.B) {
	for _, messages := range []int{100, 10_000} {
		alice, bob, ids := benchPair(b, 100)
		for i := range messages {
			_, err := benchConversation(b, alice, ids[i%len(ids)]).SendOptimistic(content.Text("the text of a message"))
			benchCheck(b, err)
		}
		for _, id := range ids {
			benchCheck(b, benchConversation(b, alice, id).PublishMessages(b.Context()))
		}
		benchCheck(b, bob.Sync(b.Context()))
		b.Run(fmt.Sprintf("sync/messages=%d", messages), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				benchCheck(b, bob.Sync(b.Context()))
			}
		})
		b.Run(fmt.Sprintf("list/messages=%d", messages), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if list, err := bob.Conversations(ConversationOptions{}); err != nil || len(list) != 100 {
					b.Fatal(len(list), err)
				}
			}
		})
	}
}
