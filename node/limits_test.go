package node_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// forwarded is a call that a proxy on this machine forwards for an address.
func forwarded(ctx context.Context, addr string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "x-forwarded-for", "203.0.113.99, "+addr)
}

// Callers behind a trusted proxy have limits of their own, alike over gRPC and
// over the web, and are told when to come back.
func TestLimits_TrustedProxy(t *testing.T) {
	t.Parallel()
	clk := newClock()
	n, ctx := start(t, node.Options{
		WebListen: "127.0.0.1:0",
		Limits:    node.Limits{Rates: true, TrustedProxies: loopback},
		Now:       clk.now,
	}), short(t)
	c, web := dial(t, n), browser(t)
	group := newGroupID()
	var batch [][]byte
	for i := range 2999 {
		batch = append(batch, application(group, fmt.Sprint("message ", i)))
	}
	one, two := forwarded(ctx, "192.0.2.1"), forwarded(ctx, "2001:db8::1")
	must(c.mls.SendGroupMessages(one, groupRequest(batch...)))(t)

	for name, base := range bases(n) {
		send := func(addr string, messages ...[]byte) (text, retryAfter string) {
			req := webPost(ctx, t, base, "/xmtp.mls.api.v1.MlsApi/SendGroupMessages", groupRequest(messages...))
			req.Header.Set("X-Forwarded-For", "203.0.113.99, "+addr)
			res := must(web.Do(req))(t)
			defer res.Body.Close()
			header := res.Header
			if header.Get("Grpc-Status") == "" {
				message, trailers := webFrame(t, res.Body)
				if message != nil {
					return "", ""
				}
				header = trailers
			}
			return header.Get("Grpc-Status") + " " + strings.ReplaceAll(header.Get("Grpc-Message"), "%20", " "), header.Get("Retry-After")
		}
		text, retryAfter := send("192.0.2.1", batch[0], batch[1])
		if text != "8 2 exceeds rate limit R192.0.2.1PUB" || retryAfter != "1" {
			t.Errorf("%s: got %q, retry after %q", name, text, retryAfter)
		}
		if text, _ := send("192.0.2.2", batch[0], batch[1]); text != "" {
			t.Errorf("%s: another caller got %q", name, text)
		}
	}
	var trailer metadata.MD
	_, err := c.mls.SendGroupMessages(one, groupRequest(batch[:101]...), grpc.Trailer(&trailer))
	wantStatus(t, err, codes.ResourceExhausted, "101 exceeds rate limit R192.0.2.1PUB")
	if got := strings.Join(trailer.Get("retry-after"), " "); got != "10" {
		t.Errorf("retry-after is %q, want 10", got)
	}
	must(c.mls.SendGroupMessages(two, groupRequest(batch...)))(t)
	_, err = c.mls.SendGroupMessages(forwarded(ctx, "2001:db8::ffff"), groupRequest(batch[0], batch[1]))
	wantStatus(t, err, codes.ResourceExhausted, "2 exceeds rate limit R2001:db8::/64PUB")
	clk.advance(10 * time.Second)
	must(c.mls.SendGroupMessages(one, groupRequest(batch[:101]...)))(t)

	// Limits can be changed while the node runs.
	if err := n.SetLimits(node.Limits{DenyAddresses: loopback}); err != nil {
		t.Fatal(err)
	}
	_, err = c.mls.SendGroupMessages(one, groupRequest(batch[0]))
	wantStatus(t, err, codes.PermissionDenied, "request blocked")
	s, err := groupLog.open(ctx, c)
	if err == nil {
		_, err = s.next()
	}
	wantStatus(t, err, codes.PermissionDenied, "request blocked")
	if err := n.SetLimits(node.Limits{DenyInboxes: []string{"somebody"}}); err == nil {
		t.Error("an inbox id that is none was taken")
	}
}

// One address has so many streams; those that ended don't count.
func TestLimits_Streams(t *testing.T) {
	t.Parallel()
	n, ctx := start(t, node.Options{Limits: node.Limits{Rates: true, StreamsPerAddress: 3}}), short(t)
	c := dial(t, n)
	first, leave := context.WithCancel(ctx)
	must(groupLog.open(first, c))(t)
	for range 2 {
		must(welcomeLog.open(ctx, c, filter{topic: newInstallationKey()}))(t)
	}
	s, err := groupLog.open(ctx, c)
	if err == nil {
		_, err = s.next()
	}
	wantStatus(t, err, codes.ResourceExhausted, "3 streams are open from 127.0.0.1: no more are served")
	leave()
	eventually(t, "another stream", func() bool {
		_, err := groupLog.open(ctx, c)
		return err == nil
	})
}

// An identity update has at most so many actions.
func TestLimits_Actions(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	in := newInbox(t)
	update := in.register(t)
	c.unchanged(ctx, t, func() {
		for len(update.Actions) <= 256 {
			update.Actions = append(update.Actions, &associations.IdentityAction{})
		}
		_, err := c.publish(ctx, update)
		wantStatus(t, err, codes.InvalidArgument, "identity update of 257 actions: at most 256 are taken")
	})
}

// A private node takes identity updates and key packages for its own inboxes.
func TestLimits_Inboxes(t *testing.T) {
	t.Parallel()
	ctx, mine, other := short(t), newInbox(t), newInbox(t)
	n := start(t, node.Options{Limits: node.Limits{AllowInboxes: []string{strings.ToUpper(mine.id)}}})
	c := dial(t, n)
	must(c.publish(ctx, mine.register(t)))(t)
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(newKeyPackage(t, mine.installation, keyPackageOptions{inbox: mine.id}))))(t)
	c.unchanged(ctx, t, func() {
		_, err := c.publish(ctx, other.register(t))
		wantStatus(t, err, codes.PermissionDenied, "request blocked")
		for _, id := range []string{other.id, "", "nobody"} {
			_, err = c.mls.UploadKeyPackage(ctx, uploadRequest(newKeyPackage(t, other.installation, keyPackageOptions{inbox: id})))
			wantStatus(t, err, codes.PermissionDenied, "request blocked")
		}
	})
	// Who is in is as he was, also when he isn't served any more.
	if err := n.SetLimits(node.Limits{DenyInboxes: []string{mine.id}}); err != nil {
		t.Fatal(err)
	}
	_, err := c.publish(ctx, mine.link(t, newWallet(t)))
	wantStatus(t, err, codes.PermissionDenied, "request blocked")
	must(c.publish(ctx, other.register(t)))(t)
	c.wantInboxOf(ctx, t, mine.owner.Identifier(), mine.id)
}

// What an inbox may write a day is used up by what it writes, not by what others
// claim in its name.
func TestLimits_InboxQuota(t *testing.T) {
	t.Parallel()
	clk := newClock()
	ctx, in, stranger := short(t), newInbox(t), newInstallation(t)
	n := start(t, node.Options{Limits: node.Limits{InboxWrites: 3}, Now: clk.now})
	c := dial(t, n)
	key := func(t testing.TB, i int) []byte {
		return newKeyPackage(t, in.installation, keyPackageOptions{inbox: in.id, notBefore: time.Now().Add(time.Duration(i-60) * time.Minute)})
	}
	// Before the inbox lists its installation, that is a stranger to it.
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(key(t, 0))))(t)
	must(c.publish(ctx, in.register(t)))(t)
	for range 3 {
		// Valid signatures of somebody who has nothing to say here.
		intruder := newWallet(t)
		forged := newDraft(in.id, time.Now()).add(installationMember(newInstallation(t)), intruder.SignText, byInstallation(newInstallation(t))).signed(t)
		if _, err := c.publish(ctx, forged); err == nil {
			t.Fatal("a forged update was taken")
		}
	}
	for i := range 3 {
		_, err := c.mls.UploadKeyPackage(ctx, uploadRequest(newKeyPackage(t, stranger, keyPackageOptions{inbox: in.id, notBefore: time.Now().Add(time.Duration(i-60) * time.Minute)})))
		if i == 2 {
			wantStatus(t, err, codes.ResourceExhausted, "1 writes exceed what is left of the inbox's quota of 3 a day")
		} else if err != nil {
			t.Fatal(err)
		}
	}
	must(c.mls.UploadKeyPackage(ctx, uploadRequest(key(t, 1))))(t)
	must(c.publish(ctx, in.link(t, newWallet(t))))(t)
	next := in.link(t, newWallet(t))
	var trailer metadata.MD
	_, err := c.mls.UploadKeyPackage(ctx, uploadRequest(key(t, 2)))
	wantCode(t, err, codes.ResourceExhausted)
	_, err = c.identity.PublishIdentityUpdate(ctx, publishRequest(next), grpc.Trailer(&trailer))
	wantCode(t, err, codes.ResourceExhausted)
	if got := strings.Join(trailer.Get("retry-after"), " "); got != "28800" {
		t.Errorf("retry-after is %q, want 28800", got)
	}
	clk.advance(8 * time.Hour)
	must(c.publish(ctx, next))(t)
	if got := len(c.updates(ctx, t, in.id, 0)); got != 3 {
		t.Errorf("%d updates are stored, want 3", got)
	}
}

func publishRequest(update *associations.IdentityUpdate) *identityapi.PublishIdentityUpdateRequest {
	return &identityapi.PublishIdentityUpdateRequest{IdentityUpdate: update}
}

// The topics of a stream that changes cost when they are added, and it counts as
// one of its caller's streams.
func TestLimits_Subscribe(t *testing.T) {
	t.Parallel()
	clk := newClock()
	n, ctx := start(t, node.Options{Limits: node.Limits{Rates: true, StreamsPerAddress: 1}, Now: clk.now}), short(t)
	c := dial(t, n)
	s := must(c.mls.Subscribe(ctx))(t)
	must(s.Recv())(t) // it has started
	other, err := groupLog.open(ctx, c)
	if err == nil {
		_, err = other.next()
	}
	wantStatus(t, err, codes.ResourceExhausted, "1 streams are open from 127.0.0.1: no more are served")

	// 1 for each stream, 1 and 20 topics each for a Mutate.
	mutate := &mlsapi.SubscribeRequest_V1_Mutate{}
	for range 100_000 {
		mutate.Adds = append(mutate.Adds, &mlsapi.SubscribeRequest_V1_Mutate_Subscription{Topic: append([]byte{0}, newGroupID()...)})
	}
	for id := range uint64(4) {
		mutate.MutateId = id + 1
		if err := s.Send(&mlsapi.SubscribeRequest{Version: &mlsapi.SubscribeRequest_V1_{V1: &mlsapi.SubscribeRequest_V1{
			Request: &mlsapi.SubscribeRequest_V1_Mutate_{Mutate: mutate},
		}}}); err != nil {
			t.Fatal(err)
		}
	}
	for err = nil; err == nil; {
		_, err = s.Recv()
	}
	wantStatus(t, err, codes.ResourceExhausted, "5001 exceeds rate limit R127.0.0.1DEF")
	if got := strings.Join(s.Trailer().Get("retry-after"), " "); got == "" {
		t.Error("nobody said when to come back")
	}
	if hit := n.LimitsHit(); hit["reads"] != 1 || hit["streams"] != 1 {
		t.Errorf("counted: %v", hit)
	}
}
