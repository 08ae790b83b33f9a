package node_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

func pointerInput(installation []byte) *mlsapi.WelcomeMessageInput {
	return &mlsapi.WelcomeMessageInput{Version: &mlsapi.WelcomeMessageInput_WelcomePointer_{WelcomePointer: &mlsapi.WelcomeMessageInput_WelcomePointer{
		InstallationKey:  installation,
		WelcomePointer:   []byte("an encrypted pointer"),
		HpkePublicKey:    bytes.Repeat([]byte{6}, 1216),
		WrapperAlgorithm: pointerXWing,
	}}}
}

// stored is what a reader has to get for an input, but for id and time.
func stored(input *mlsapi.WelcomeMessageInput) *mlsapi.WelcomeMessage {
	if p := input.GetWelcomePointer(); p != nil {
		return &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_WelcomePointer_{WelcomePointer: &mlsapi.WelcomeMessage_WelcomePointer{
			InstallationKey:  p.InstallationKey,
			WelcomePointer:   p.WelcomePointer,
			HpkePublicKey:    p.HpkePublicKey,
			WrapperAlgorithm: p.WrapperAlgorithm,
		}}}
	}
	v1 := input.GetV1()
	return &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_V1_{V1: &mlsapi.WelcomeMessage_V1{
		InstallationKey:  v1.InstallationKey,
		Data:             v1.Data,
		HpkePublicKey:    v1.HpkePublicKey,
		WrapperAlgorithm: v1.WrapperAlgorithm,
		WelcomeMetadata:  v1.WelcomeMetadata,
	}}}
}

var withoutPlace = protocmp.IgnoreFields(&mlsapi.WelcomeMessage_V1{}, "id", "created_ns")
var withoutPointerPlace = protocmp.IgnoreFields(&mlsapi.WelcomeMessage_WelcomePointer{}, "id", "created_ns")

// W1: welcomes and pointers come back by query and stream as they were sent, with
// their algorithm and metadata.
func TestW1(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	installation := newInstallationKey()
	var inputs []*mlsapi.WelcomeMessageInput
	for _, change := range []func(*mlsapi.WelcomeMessageInput_V1){
		func(v1 *mlsapi.WelcomeMessageInput_V1) {},
		func(v1 *mlsapi.WelcomeMessageInput_V1) {
			v1.WrapperAlgorithm, v1.HpkePublicKey = curve25519, random(32)
		},
		func(v1 *mlsapi.WelcomeMessageInput_V1) { v1.WelcomeMetadata = nil },
		func(v1 *mlsapi.WelcomeMessageInput_V1) { v1.WrapperAlgorithm, v1.HpkePublicKey = symmetricKey, nil },
		func(v1 *mlsapi.WelcomeMessageInput_V1) { v1.WrapperAlgorithm = symmetricKey },
	} {
		input := welcomeInput(installation, random(100))
		change(input.GetV1())
		inputs = append(inputs, input)
	}
	inputs = append(inputs, pointerInput(installation))
	must(c.mls.SendWelcomeMessages(ctx, welcomeRequest(inputs...)))(t)

	s := must(welcomeLog.open(ctx, c, filter{topic: installation}))(t)
	res := must(c.mls.QueryWelcomeMessages(ctx, &mlsapi.QueryWelcomeMessagesRequest{
		InstallationKey: installation, PagingInfo: &mlsapi.PagingInfo{Direction: ascending},
	}))(t)
	if len(res.Messages) != len(inputs) {
		t.Fatalf("%d welcomes, want %d", len(res.Messages), len(inputs))
	}
	for i, m := range res.Messages {
		if diff := cmp.Diff(stored(inputs[i]), m, protocmp.Transform(), withoutPlace, withoutPointerPlace); diff != "" {
			t.Errorf("welcome %d (-sent +got):\n%s", i, diff)
		}
		e := welcomeEntry(m)
		if e.id == 0 || e.created == 0 {
			t.Errorf("welcome %d has id %d, created %d", i, e.id, e.created)
		}
		streamed := &mlsapi.WelcomeMessage{}
		if err := s.RecvMsg(streamed); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, streamed, protocmp.Transform()); diff != "" {
			t.Errorf("welcome %d (-query +stream):\n%s", i, diff)
		}
	}
}

// refusedWelcomes checks that each change makes a request be refused as a whole.
func refusedWelcomes(t *testing.T, changes map[string]*mlsapi.WelcomeMessageInput) {
	c, ctx := connect(t), short(t)
	for name, bad := range changes {
		t.Run(name, func(t *testing.T) {
			c.unchanged(ctx, t, func() {
				good := welcomeInput(newInstallationKey(), random(10))
				_, err := c.mls.SendWelcomeMessages(ctx, welcomeRequest(good, bad))
				wantCode(t, err, codes.InvalidArgument)
			})
		})
	}
}

func changedWelcome(change func(*mlsapi.WelcomeMessageInput_V1)) *mlsapi.WelcomeMessageInput {
	input := welcomeInput(newInstallationKey(), random(10))
	change(input.GetV1())
	return input
}

func changedPointer(change func(*mlsapi.WelcomeMessageInput_WelcomePointer)) *mlsapi.WelcomeMessageInput {
	input := pointerInput(newInstallationKey())
	change(input.GetWelcomePointer())
	return input
}

// W2: a welcome without data, installation key, HPKE key or version is refused.
func TestW2(t *testing.T) {
	t.Parallel()
	type v1 = mlsapi.WelcomeMessageInput_V1
	type pointer = mlsapi.WelcomeMessageInput_WelcomePointer
	refusedWelcomes(t, map[string]*mlsapi.WelcomeMessageInput{
		"no data":              changedWelcome(func(w *v1) { w.Data = nil }),
		"no key":               changedWelcome(func(w *v1) { w.InstallationKey = nil }),
		"no HPKE key":          changedWelcome(func(w *v1) { w.HpkePublicKey = nil }),
		"no HPKE key, curve":   changedWelcome(func(w *v1) { w.HpkePublicKey, w.WrapperAlgorithm = nil, curve25519 }),
		"no HPKE key, none":    changedWelcome(func(w *v1) { w.HpkePublicKey, w.WrapperAlgorithm = nil, 0 }),
		"symmetric, no data":   changedWelcome(func(w *v1) { w.Data, w.WrapperAlgorithm = nil, symmetricKey }),
		"pointer, no key":      changedPointer(func(p *pointer) { p.InstallationKey = nil }),
		"pointer, no pointer":  changedPointer(func(p *pointer) { p.WelcomePointer = nil }),
		"pointer, no HPKE key": changedPointer(func(p *pointer) { p.HpkePublicKey = nil }),
		"no version":           {},
		"an empty welcome":     {Version: &mlsapi.WelcomeMessageInput_V1_{}},
		"an empty pointer":     {Version: &mlsapi.WelcomeMessageInput_WelcomePointer_{}},
	})
	c, ctx := connect(t), short(t)
	_, err := c.mls.SendWelcomeMessages(ctx, welcomeRequest())
	wantStatus(t, err, codes.InvalidArgument, "no welcome messages to send")
	_, err = c.mls.SendWelcomeMessages(ctx, welcomeRequest(&mlsapi.WelcomeMessageInput{}))
	wantStatus(t, err, codes.InvalidArgument, "invalid welcome message: missing version")
}

// W3: a welcome under a symmetric key needs no HPKE key and goes to any topic of 32 bytes.
func TestW3(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	topic := random(32)
	input := welcomeInput(topic, []byte("what a pointer leads to"))
	input.GetV1().HpkePublicKey, input.GetV1().WrapperAlgorithm = nil, symmetricKey
	must(c.mls.SendWelcomeMessages(ctx, welcomeRequest(input)))(t)
	res := must(c.mls.QueryWelcomeMessages(ctx, &mlsapi.QueryWelcomeMessagesRequest{InstallationKey: topic}))(t)
	if len(res.Messages) != 1 {
		t.Fatalf("%d welcomes, want 1", len(res.Messages))
	}
	if diff := cmp.Diff(stored(input), res.Messages[0], protocmp.Transform(), withoutPlace); diff != "" {
		t.Errorf("(-sent +got):\n%s", diff)
	}
}

// W4: a pointer that is wrapped otherwise than with X-Wing is refused.
func TestW4(t *testing.T) {
	t.Parallel()
	type pointer = mlsapi.WelcomeMessageInput_WelcomePointer
	changes := map[string]*mlsapi.WelcomeMessageInput{}
	for _, a := range []mlscontents.WelcomePointerWrapperAlgorithm{0, 1, 3, 4, 99, -1, 258} {
		changes[a.String()] = changedPointer(func(p *pointer) { p.WrapperAlgorithm = a })
	}
	refusedWelcomes(t, changes)
}

// W5: an installation key of other than 32 bytes and an unknown algorithm are
// refused: they would make every later query of the installation fail in the client.
func TestW5(t *testing.T) {
	t.Parallel()
	type v1 = mlsapi.WelcomeMessageInput_V1
	type pointer = mlsapi.WelcomeMessageInput_WelcomePointer
	changes := map[string]*mlsapi.WelcomeMessageInput{}
	for _, n := range []int{1, 31, 33, 64, 255, 256, 1 << 16} {
		name := fmt.Sprint(n, " bytes")
		changes[name] = changedWelcome(func(w *v1) { w.InstallationKey = random(n) })
		changes["symmetric, "+name] = changedWelcome(func(w *v1) { w.InstallationKey, w.WrapperAlgorithm = random(n), symmetricKey })
		changes["pointer, "+name] = changedPointer(func(p *pointer) { p.InstallationKey = random(n) })
	}
	for _, a := range []mlscontents.WelcomeWrapperAlgorithm{4, 5, 99, -1, 257, 258, 1<<31 - 1} {
		changes[a.String()] = changedWelcome(func(w *v1) { w.WrapperAlgorithm = a })
	}
	refusedWelcomes(t, changes)
}

// W6: algorithm 0 is stored and returned as CURVE25519.
func TestW6(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t), short(t)
	installation := newInstallationKey()
	input := welcomeInput(installation, random(10))
	input.GetV1().WrapperAlgorithm = 0
	must(c.mls.SendWelcomeMessages(ctx, welcomeRequest(input)))(t)
	res := must(c.mls.QueryWelcomeMessages(ctx, &mlsapi.QueryWelcomeMessagesRequest{InstallationKey: installation}))(t)
	if len(res.Messages) != 1 || res.Messages[0].GetV1().GetWrapperAlgorithm() != curve25519 {
		t.Errorf("got %v", res.Messages)
	}
}

// W7: the same welcome sent twice, also at once, is stored once.
func TestW7(t *testing.T) {
	t.Parallel()
	storedOnce(t, &welcomeLog)
}

// W8: welcomes have the same pages as group messages (G7 to G13).
func TestW8(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T, *log){
		"default": pagingDefault, "up": pagingUp, "limits": pagingLimits, "small": pagingSmall,
		"full": pagingFull, "down": pagingDown, "unknown": pagingUnknown,
	} {
		t.Run(name, func(t *testing.T) { test(t, &welcomeLog) })
	}
}
