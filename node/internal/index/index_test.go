package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

func TestMain(m *testing.M) {
	if helper() {
		return
	}
	goleak.VerifyTestMain(m)
}

// testing is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

func open(t tester, fs vfs.FS) *Index {
	t.Helper()
	x, err := Open(Options{
		FS:        fs,
		Dir:       "/data",
		Logger:    slog.New(slog.DiscardHandler),
		OnFailure: func(err error) { t.Errorf("the store failed: %v", err) },
	})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return x
}

func mustClose(t tester, x *Index) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// writer numbers records as the order does.
type writer struct {
	t      tester
	x      *Index
	number uint64
	time   uint64
}

func newWriter(t tester, x *Index) *writer {
	w := &writer{t: t, x: x}
	w.number, w.time = x.Last()
	return w
}

// write commits records as one batch, and makes it durable, but doesn't let
// readers see it.
func (w *writer) write(records ...*order.Record) []order.Outcome {
	w.t.Helper()
	b := w.x.NewBatch()
	var outcomes []order.Outcome
	for _, r := range records {
		r.Number, r.Time = w.number+1, w.time+1
		outcome, stored, err := b.Apply(r)
		if err != nil {
			w.t.Fatalf("Apply: %v", err)
		}
		if stored != (outcome.Err == nil && outcome.Number == r.Number) {
			w.t.Fatalf("stored is %t, outcome %+v", stored, outcome)
		}
		if stored {
			w.number, w.time = r.Number, r.Time
		}
		outcomes = append(outcomes, outcome)
	}
	if err := b.Commit(); err != nil {
		w.t.Fatalf("Commit: %v", err)
	}
	if err := b.Wait(); err != nil {
		w.t.Fatalf("Wait: %v", err)
	}
	return outcomes
}

// publish writes and lets readers see.
func (w *writer) publish(records ...*order.Record) []order.Outcome {
	w.t.Helper()
	outcomes := w.write(records...)
	w.x.Advance(w.number)
	return outcomes
}

func message(group, payload string) *order.Record {
	return &order.Record{
		Topic:   order.Topic{Kind: order.GroupMessage, ID: group},
		Facts:   order.GroupFacts{}.Append(nil),
		Payload: []byte(payload),
	}
}

func keyPackage(installation, payload string, notBefore uint64) *order.Record {
	return &order.Record{
		Topic:   order.Topic{Kind: order.KeyPackage, ID: installation},
		Facts:   order.KeyPackageFacts{NotBefore: notBefore}.Append(nil),
		Payload: []byte(payload),
	}
}

func all() Page { return Page{Limit: math.MaxInt, MaxBytes: math.MaxInt} }

func records(t tester, x *Index, topic order.Topic, page Page) []*order.Record {
	t.Helper()
	found, _, err := x.Records(topic, page)
	if err != nil {
		t.Fatalf("Records: %v", err)
	}
	return found
}

func numbers(records []*order.Record) []uint64 {
	numbers := []uint64{}
	for _, r := range records {
		numbers = append(numbers, r.Number)
	}
	return numbers
}

// TestReads checks all ways of reading records against a list of them, while
// batches are committed that readers must not see yet, and across reopening.
func TestReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewMem()
		x := open(t, fs)
		w := newWriter(t, x)
		var model []*order.Record
		seen := map[string]uint64{}
		keyPackages := map[string][]*order.Record{}
		topicOf := func(t *rapid.T) order.Topic {
			kind := rapid.SampledFrom([]order.Kind{order.GroupMessage, order.Welcome, order.CommitLog}).Draw(t, "kind")
			// One is the beginning of another, and one has the highest bytes.
			id := rapid.SampledFrom([]string{"a", "ab", "", "\xff\xff", "a\x00"}).Draw(t, "topic")
			return order.Topic{Kind: kind, ID: id}
		}
		visible := func(r *order.Record) bool { return r.Number <= x.Durable() }
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				var batch []*order.Record
				for range rapid.IntRange(0, 6).Draw(t, "records") {
					payload := fmt.Sprint("payload ", rapid.IntRange(0, 30).Draw(t, "payload"))
					if rapid.IntRange(0, 3).Draw(t, "") == 0 {
						installation := rapid.SampledFrom([]string{"a", "ab"}).Draw(t, "installation")
						batch = append(batch, keyPackage(installation, payload, rapid.Uint64Range(0, 3).Draw(t, "not before")))
						continue
					}
					batch = append(batch, &order.Record{Topic: topicOf(t), Payload: []byte(payload), Facts: []byte("facts")})
				}
				outcomes := w.write(batch...)
				for i, r := range batch {
					outcome := outcomes[i]
					if r.Kind == order.KeyPackage {
						history := keyPackages[r.ID]
						var want order.Outcome
						switch newest := len(history) - 1; {
						case newest >= 0 && bytes.Equal(history[newest].Payload, r.Payload):
							want.Number = history[newest].Number
						case newest >= 0 && bytes.Compare(r.Facts, history[newest].Facts) < 0:
							want.Err = ErrOlderKeyPackage
						default:
							want.Number = r.Number
							keyPackages[r.ID] = append(history, r)
						}
						if outcome.Number != want.Number || !errors.Is(outcome.Err, want.Err) {
							t.Fatalf("key package: %+v, want %+v", outcome, want)
						}
						continue
					}
					name := fmt.Sprintf("%v %s", r.Topic, r.Payload)
					if earlier, ok := seen[name]; ok && r.Kind != order.CommitLog {
						if outcome.Number != earlier {
							t.Fatalf("%s again: %+v, want %d", name, outcome, earlier)
						}
						continue
					}
					if outcome.Number != r.Number {
						t.Fatalf("%s: %+v, want %d", name, outcome, r.Number)
					}
					seen[name] = r.Number
					model = append(model, r)
				}
			},
			"advance": func(t *rapid.T) {
				x.Advance(rapid.Uint64Range(x.Durable(), w.number).Draw(t, "number"))
			},
			"reopen": func(t *rapid.T) {
				if !rapid.SampledFrom([]bool{false, false, false, true}).Draw(t, "really") {
					return
				}
				mustClose(t, x)
				x = open(t, fs)
				w.x = x
				if number, at := x.Last(); number != w.number || at != w.time || x.Durable() != number {
					t.Fatalf("after opening again: number %d, time %d, durable %d; want %d, %d", number, at, x.Durable(), w.number, w.time)
				}
			},
			"read": func(t *rapid.T) {
				topic := topicOf(t)
				page := Page{
					Cursor:     rapid.Uint64Range(0, w.number+2).Draw(t, "cursor"),
					Descending: rapid.Bool().Draw(t, "descending"),
					Limit:      rapid.IntRange(1, 10).Draw(t, "limit"),
					MaxBytes:   rapid.IntRange(0, 200).Draw(t, "bytes"),
				}
				if rapid.IntRange(0, 9).Draw(t, "") == 0 {
					page.Cursor = math.MaxUint64
				}
				var want []*order.Record
				for _, r := range model {
					if r.Topic == topic && visible(r) && (page.Cursor == 0 ||
						page.Descending && r.Number < page.Cursor || !page.Descending && r.Number > page.Cursor) {
						want = append(want, r)
					}
				}
				if page.Descending {
					slices.Reverse(want)
				}
				wantCut := false
				size := 0
				for i, r := range want {
					if i == page.Limit {
						want = want[:i]
						break
					}
					if size += len(r.AppendValue(nil)); size > page.MaxBytes && i > 0 {
						want, wantCut = want[:i], true
						break
					}
				}
				got, cut, err := x.Records(topic, page)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || cut != wantCut {
					t.Fatalf("%+v of %q: cut %t, want %t, records (-want +got):\n%s", page, topic.ID, cut, wantCut, diff)
				}
			},
			"newest": func(t *rapid.T) {
				topic := topicOf(t)
				var want *order.Record
				for _, r := range model {
					if r.Topic == topic && visible(r) {
						want = r
					}
				}
				got, err := x.Newest(topic)
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Fatalf("newest: %v\n%s", err, diff)
				}
			},
			"key package": func(t *rapid.T) {
				installation := rapid.SampledFrom([]string{"a", "ab", "abc"}).Draw(t, "installation")
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				got, err := x.KeyPackage(ctx, installation)
				var want *order.Record
				if history := keyPackages[installation]; len(history) > 0 {
					want = history[len(history)-1]
				}
				if want != nil && !visible(want) {
					if !errors.Is(err, context.Canceled) {
						t.Fatalf("a key package that is not durable: %v, %v", got, err)
					}
					return
				}
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Fatalf("key package: %v\n%s", err, diff)
				}
			},
			"": func(*rapid.T) {},
		})
		mustClose(t, x)
	})
}

// TestKeyPackageWaits: a key package is shown when it is durable, not before,
// and nothing else is shown in its place.
func TestKeyPackageWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := open(t, vfs.NewMem())
		defer mustClose(t, x)
		w := newWriter(t, x)
		w.publish(keyPackage("a", "old", 1))
		w.write(keyPackage("a", "new", 2))
		answered := false
		go func() {
			r, err := x.KeyPackage(context.Background(), "a")
			if err != nil || string(r.Payload) != "new" || r.Number != 2 {
				t.Errorf("%+v, %v", r, err)
			}
			answered = true
		}()
		synctest.Wait()
		if answered {
			t.Fatal("answered before it was durable")
		}
		w.write(message("g", "m"))
		x.Advance(2)
		synctest.Wait()
		if !answered {
			t.Fatal("not answered when it was durable")
		}
	})
}

// TestRepetitionInFlight: a repetition is found in the same batch and in one
// that is not durable.
func TestRepetitionInFlight(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	w := newWriter(t, x)
	for range 3 {
		outcomes := w.write(message("g", "m"), message("g", "m"), message("h", "m"), message("g", "n"))
		if want := []order.Outcome{{Number: 1}, {Number: 1}, {Number: 2}, {Number: 3}}; !slices.Equal(outcomes, want) {
			t.Errorf("outcomes %+v, want %+v", outcomes, want)
		}
	}
	if got := records(t, x, message("g", "").Topic, all()); len(got) != 0 {
		t.Errorf("records %v are visible", numbers(got))
	}
	x.Advance(w.number)
	if got := numbers(records(t, x, message("g", "").Topic, all())); !slices.Equal(got, []uint64{1, 3}) {
		t.Errorf("records %v", got)
	}
}

// TestUncommittedIsNowhere: what was applied to a batch that is not committed.
func TestUncommittedIsNowhere(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	newWriter(t, x).publish(message("g", "m"))
	b := x.NewBatch()
	r := message("g", "n")
	r.Number, r.Time = 2, 2
	if _, _, err := b.Apply(r); err != nil {
		t.Fatal(err)
	}
	x.Advance(2)
	if got := numbers(records(t, x, r.Topic, all())); !slices.Equal(got, []uint64{1}) {
		t.Errorf("records %v", got)
	}
	if number, _ := x.Last(); number != 1 {
		t.Errorf("the newest record is %d", number)
	}
}

// TestBadRecords: what the node's own code must never append is an error, and
// reading unknown topics is not.
func TestBadRecords(t *testing.T) {
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	long := string(make([]byte, 256))
	for name, r := range map[string]*order.Record{
		"unknown kind":      {Topic: order.Topic{Kind: 99, ID: "a"}},
		"long topic":        message(long, "m"),
		"key package facts": {Topic: order.Topic{Kind: order.KeyPackage, ID: "a"}, Facts: []byte("x")},
		"identity facts":    {Topic: order.Topic{Kind: order.IdentityUpdate, ID: "a"}, Facts: []byte("x")},
	} {
		r.Number = 1
		if _, stored, err := x.NewBatch().Apply(r); err == nil || stored {
			t.Errorf("%s: stored %t, %v", name, stored, err)
		}
	}
	if got := records(t, x, order.Topic{Kind: order.GroupMessage, ID: long}, all()); len(got) != 0 {
		t.Error("records of a long topic")
	}
	if r, err := x.KeyPackage(t.Context(), long); r != nil || err != nil {
		t.Errorf("key package of a long topic: %v, %v", r, err)
	}
	if r, err := x.Newest(order.Topic{Kind: 99}); r != nil || err != nil {
		t.Errorf("newest of an unknown kind: %v, %v", r, err)
	}
	longest := long[:255]
	w := newWriter(t, x)
	w.publish(message(longest, "m"), keyPackage(longest, "k", 1))
	if got := records(t, x, message(longest, "").Topic, all()); len(got) != 1 {
		t.Errorf("%d records of the longest topic", len(got))
	}
	if r, err := x.KeyPackage(t.Context(), longest); r == nil || err != nil {
		t.Errorf("key package of the longest topic: %v, %v", r, err)
	}
}

// TestClosed: reading a closed index is an error, also in the middle of it.
func TestClosed(t *testing.T) {
	x := open(t, vfs.NewMem())
	w := newWriter(t, x)
	for i := range 100 {
		w.publish(message("g", fmt.Sprint(i)), keyPackage("a", fmt.Sprint(i), uint64(i)))
	}
	ended := make(chan error)
	const readers = 8
	for i := range readers {
		go func() {
			for {
				var err error
				switch i % 4 {
				case 0:
					_, _, err = x.Records(message("g", "").Topic, all())
				case 1:
					_, err = x.Newest(message("g", "").Topic)
				case 2:
					_, err = x.KeyPackage(context.Background(), "a")
				case 3:
					_, _, err = x.InboxOf(wallet(1).Identifier())
				}
				if err != nil {
					ended <- err
					return
				}
			}
		}()
	}
	mustClose(t, x)
	for range readers {
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("reading: %v", err)
		}
	}
	if err := x.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

// wallet returns a key that is always the same.
func wallet(i int) *identity.WalletKey {
	seed := sha256.Sum256(fmt.Append(nil, "wallet ", i))
	key, err := identity.ParseWalletKey(seed[:])
	if err != nil {
		panic(err)
	}
	return key
}

func inboxOf(owner *identity.WalletKey) string {
	id, err := identity.DeriveInboxID(owner.Identifier(), 0)
	if err != nil {
		panic(err)
	}
	return id
}

// update makes a record of a verified update. The payload stands for the
// serialized update, of which the index looks only for signatures of contracts.
func update(t tester, inbox string, at int64, payload string, actions []identity.Action, signers ...*identity.WalletKey) *order.Record {
	t.Helper()
	request, err := identity.NewSignatureRequest(inbox, time.Unix(at, 0), actions...)
	if err != nil {
		t.Fatal(err)
	}
	for _, signer := range signers {
		if err := request.AddSignature(context.Background(), signer.SignText(request.Text()), nil); err != nil {
			t.Fatal(err)
		}
	}
	u, err := request.Update()
	if err != nil {
		t.Fatal(err)
	}
	verified, err := identity.Verify(context.Background(), u, nil)
	if err != nil {
		t.Fatal(err)
	}
	facts, err := verified.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	id, err := hex.DecodeString(inbox)
	if err != nil {
		t.Fatal(err)
	}
	return &order.Record{
		Topic:   order.Topic{Kind: order.IdentityUpdate, ID: string(id)},
		Facts:   facts,
		Payload: protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), payload),
	}
}

func create(t tester, owner *identity.WalletKey) *order.Record {
	return update(t, inboxOf(owner), 1, "create", []identity.Action{identity.CreateInbox(owner.Identifier(), 0)}, owner)
}

func add(t tester, at int64, owner, member *identity.WalletKey) *order.Record {
	actions := []identity.Action{identity.AddMember(owner.Identifier(), member.Identifier())}
	return update(t, inboxOf(owner), at, fmt.Sprint("add ", at), actions, owner, member)
}

func revoke(t tester, at int64, owner, member *identity.WalletKey) *order.Record {
	actions := []identity.Action{identity.RevokeMember(owner.Identifier(), member.Identifier())}
	return update(t, inboxOf(owner), at, fmt.Sprint("revoke ", at), actions, owner)
}

func checkInbox(t tester, x *Index, id *identity.WalletKey, want *identity.WalletKey) {
	t.Helper()
	got, found, err := x.InboxOf(id.Identifier())
	if err != nil {
		t.Fatal(err)
	}
	if want == nil {
		if found {
			t.Errorf("it is in inbox %x", got)
		}
		return
	}
	if hex.EncodeToString([]byte(got)) != inboxOf(want) {
		t.Errorf("it is in inbox %x, want %s", got, inboxOf(want))
	}
}

// TestIdentityFold: updates are taken if they follow from what is there, in the
// same batch too, and reads show their effects when they are durable.
func TestIdentityFold(t *testing.T) {
	fs := vfs.NewMem()
	x := open(t, fs)
	w := newWriter(t, x)
	alice, bob, carol := wallet(1), wallet(2), wallet(3)

	outcomes := w.write(add(t, 2, alice, bob), create(t, alice), create(t, alice), add(t, 2, alice, bob), create(t, alice), create(t, carol))
	for i, want := range []struct {
		number uint64
		err    error
	}{{0, identity.ErrNotCreated}, {1, nil}, {1, nil}, {2, nil}, {0, identity.ErrMultipleCreate}, {3, nil}} {
		if outcomes[i].Number != want.number || !errors.Is(outcomes[i].Err, want.err) {
			t.Errorf("update %d: %+v, want %+v", i, outcomes[i], want)
		}
	}
	checkInbox(t, x, alice, nil)
	x.Advance(1)
	checkInbox(t, x, alice, alice)
	checkInbox(t, x, bob, nil)
	x.Advance(3)
	checkInbox(t, x, bob, alice)

	// The newest update again, in another batch, has the number that it had; an
	// older one again is refused.
	outcomes = w.write(add(t, 2, alice, bob), create(t, alice))
	if outcomes[0].Number != 2 || !errors.Is(outcomes[1].Err, identity.ErrMultipleCreate) {
		t.Errorf("repetitions: %+v", outcomes)
	}
	if w.number != 3 {
		t.Errorf("repetitions took numbers up to %d", w.number)
	}

	// A revocation that is not durable doesn't show.
	w.write(revoke(t, 3, alice, bob))
	checkInbox(t, x, bob, alice)
	w.write(add(t, 2, carol, bob))
	checkInbox(t, x, bob, alice)
	x.Advance(4)
	checkInbox(t, x, bob, nil)
	x.Advance(5)
	checkInbox(t, x, bob, carol)
	// The replayed text is refused, a new one is not.
	outcomes = w.publish(add(t, 2, alice, bob), add(t, 4, alice, bob))
	if !errors.Is(outcomes[0].Err, identity.ErrReplay) || outcomes[1].Number != 6 {
		t.Errorf("adding again: %+v", outcomes)
	}
	checkInbox(t, x, bob, alice)

	for range 2 {
		if got := numbers(records(t, x, create(t, alice).Topic, all())); !slices.Equal(got, []uint64{1, 2, 4, 6}) {
			t.Errorf("the inbox's log has the numbers %v", got)
		}
		mustClose(t, x)
		x = open(t, fs)
		checkInbox(t, x, bob, alice)
		checkInbox(t, x, carol, carol)
	}
	// The state outlasted it: what follows from it is taken, what doesn't is not.
	w.x = x
	outcomes = w.publish(create(t, alice), revoke(t, 5, alice, bob))
	if !errors.Is(outcomes[0].Err, identity.ErrMultipleCreate) || outcomes[1].Number != 7 {
		t.Errorf("after opening again: %+v", outcomes)
	}
	checkInbox(t, x, bob, carol)
	mustClose(t, x)
}

// TestInstallationsAreNotIndexed: nobody looks them up, and their bytes are
// not those of an address.
func TestInstallationsAreNotIndexed(t *testing.T) {
	if prefix := identifierPrefix(identity.Installation(make([]byte, 32))); prefix != nil {
		t.Errorf("an installation's prefix is %x", prefix)
	}
	if prefix := identifierPrefix(identity.Passkey(make([]byte, 200))); prefix != nil {
		t.Errorf("the prefix of a long passkey is %x", prefix)
	}
	x := open(t, vfs.NewMem())
	defer mustClose(t, x)
	if _, found, err := x.InboxOf(identity.Installation(make([]byte, 32))); found || err != nil {
		t.Errorf("found %t, %v", found, err)
	}
}

// TestInboxLogLimits: an inbox has 256 updates at most, and so many bytes.
func TestInboxLogLimits(t *testing.T) {
	t.Run("updates", func(t *testing.T) {
		x := open(t, vfs.NewMem())
		defer mustClose(t, x)
		w := newWriter(t, x)
		alice, bob := wallet(1), wallet(2)
		outcomes := w.publish(create(t, alice), add(t, 2, alice, bob))
		// So many updates, with their signatures, would take too long.
		value, err := x.get(stateKey(create(t, alice).ID))
		if err != nil {
			t.Fatal(err)
		}
		stored, err := parseInbox(value)
		if err != nil || stored.count != 2 {
			t.Fatalf("%d updates are stored, %v", stored.count, err)
		}
		stored.count = maxInboxLog - 3
		if value, err = stored.marshal(); err != nil {
			t.Fatal(err)
		}
		if err := x.db.Set(stateKey(create(t, alice).ID), value, nil); err != nil {
			t.Fatal(err)
		}
		outcomes = append(outcomes, w.publish(revoke(t, 3, alice, bob), add(t, 4, alice, bob))...)
		last := revoke(t, 5, alice, bob)
		outcomes = append(outcomes, w.publish(last, add(t, 6, alice, bob))...)
		for i, outcome := range outcomes {
			full := i == 5
			if errors.Is(outcome.Err, ErrInboxLogFull) != full || !full && outcome.Number != uint64(i+1) {
				t.Errorf("update %d: %+v", i, outcome)
			}
		}
		// The last one again is no new update. Others have their own logs.
		outcomes = w.publish(last, create(t, bob))
		if outcomes[0].Number != 5 || outcomes[1].Number != 6 {
			t.Errorf("outcomes %+v", outcomes)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		x := open(t, vfs.NewMem())
		defer mustClose(t, x)
		w := newWriter(t, x)
		alice, bob := wallet(1), wallet(2)
		sized := func(r *order.Record, size int) *order.Record {
			// A field that nobody knows: 2 bytes of tag, 3 of length.
			padding := make([]byte, size-len(r.Payload)-5)
			r.Payload = protowire.AppendBytes(protowire.AppendTag(r.Payload, 1000, protowire.BytesType), padding)
			return r
		}
		first, second := sized(create(t, alice), maxInboxLogBytes/2), sized(add(t, 2, alice, bob), maxInboxLogBytes/2+1)
		outcomes := w.publish(first, second, sized(add(t, 2, alice, bob), maxInboxLogBytes/2), revoke(t, 3, alice, bob))
		if outcomes[0].Number != 1 || !errors.Is(outcomes[1].Err, ErrInboxLogFull) || outcomes[2].Number != 2 ||
			!errors.Is(outcomes[3].Err, ErrInboxLogFull) {
			t.Errorf("outcomes %+v", outcomes)
		}
	})
}

// TestAddresses checks the index of addresses against a list of memberships:
// any identifiers in any inboxes, added, removed and added again, within a
// batch and across batches, at any watermark, and across reopening.
func TestAddresses(t *testing.T) {
	ids := []identity.Identifier{wallet(1).Identifier(), wallet(2).Identifier(), identity.Passkey([]byte("a passkey")), identity.Installation(make([]byte, 32))}
	inboxes := []string{string(bytes.Repeat([]byte{1}, 32)), string(bytes.Repeat([]byte{0xff}, 32)), string(bytes.Repeat([]byte{0}, 32))}
	type interval struct {
		inbox          string
		added, revoked uint64
	}
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewMem()
		x := open(t, fs)
		model := map[identity.Identifier][]interval{}
		number := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				b := x.NewBatch().(*batch)
				for range rapid.IntRange(1, 6).Draw(t, "updates") {
					number++
					r := &order.Record{
						Topic:  order.Topic{Kind: order.IdentityUpdate, ID: rapid.SampledFrom(inboxes).Draw(t, "inbox")},
						Number: number,
						Time:   number,
					}
					var added, removed []identity.Identifier
					for _, id := range ids {
						if !rapid.Bool().Draw(t, "changes") {
							continue
						}
						member := slices.IndexFunc(model[id], func(i interval) bool { return i.inbox == r.ID && i.revoked == 0 })
						if member >= 0 {
							model[id][member].revoked = number
							removed = append(removed, id)
						} else {
							model[id] = append(model[id], interval{inbox: r.ID, added: number})
							added = append(added, id)
						}
					}
					if err := b.addresses(r, added, removed); err != nil {
						t.Fatal(err)
					}
					b.last = r
				}
				if err := errors.Join(b.Commit(), b.Wait()); err != nil {
					t.Fatal(err)
				}
			},
			"advance": func(t *rapid.T) {
				x.Advance(rapid.Uint64Range(x.Durable(), number).Draw(t, "number"))
			},
			"reopen": func(t *rapid.T) {
				if !rapid.SampledFrom([]bool{false, false, false, true}).Draw(t, "really") {
					return
				}
				mustClose(t, x)
				x = open(t, fs)
			},
			"": func(t *rapid.T) {
				for _, id := range ids {
					want := ""
					for _, i := range model[id] {
						if i.added <= x.Durable() && (i.revoked == 0 || i.revoked > x.Durable()) {
							want = i.inbox
						}
					}
					if id.Kind() == identity.KindInstallation {
						want = ""
					}
					got, found, err := x.InboxOf(id)
					if err != nil || got != want || found != (want != "") {
						t.Fatalf("%v is in inbox %x (%t, %v), want %x", id, got, found, err, want)
					}
				}
			},
		})
		mustClose(t, x)
	})
}

// TestKeys: no key is the beginning of keys of another kind, and records of a
// topic lie next to each other in the order of their numbers.
func TestKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := func(label string) string {
			return string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xff}), 0, 4).Draw(t, label))
		}
		a := order.Topic{Kind: order.Kind(rapid.IntRange(1, 5).Draw(t, "kind")), ID: id("a")}
		b := order.Topic{Kind: order.Kind(rapid.IntRange(1, 5).Draw(t, "kind")), ID: id("b")}
		m, n := rapid.Uint64().Draw(t, "m"), rapid.Uint64().Draw(t, "n")
		prefix, key := recordPrefix(a), recordKey(b, n)
		inside := bytes.Compare(key, prefix) >= 0 && bytes.Compare(key, prefixEnd(prefix)) < 0
		if inside != (a == b) {
			t.Fatalf("%x is within %x", key, prefix)
		}
		if got := bytes.Compare(recordKey(a, m), recordKey(a, n)); (got < 0) != (m < n) || (got == 0) != (m == n) {
			t.Fatalf("%d and %d compare as %d", m, n, got)
		}
		if x, y := seenKey(a, []byte("p")), seenKey(b, []byte("p")); (x == y) != (a == b) {
			t.Fatalf("%v and %v have the names %x and %x", a, b, x, y)
		}
	})
	// What belongs to the topic can't be taken for payload.
	if seenKey(order.Topic{Kind: 1, ID: "ab"}, []byte("c")) == seenKey(order.Topic{Kind: 1, ID: "a"}, []byte("bc")) {
		t.Error("topic and payload run together")
	}
	if got := prefixEnd([]byte("a\xff\xff")); string(got) != "b" {
		t.Errorf("the end of the prefix is %q", got)
	}
}
