package xmtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// lie changes the answer to a request.
type lie func(request, answer []byte) ([]byte, error)

// lying lets a proxy change the answers of a call.
func lying[Q, A any, PQ interface {
	*Q
	proto.Message
}, PA interface {
	*A
	proto.Message
}](p *proxy, call string, change func(request PQ, answer PA)) {
	p.setLie(call, func(request, answer []byte) ([]byte, error) {
		q, a := PQ(new(Q)), PA(new(A))
		if err := errors.Join(proto.Unmarshal(request, q), proto.Unmarshal(answer, a)); err != nil {
			return nil, err
		}
		change(q, a)
		return proto.Marshal(a)
	})
}

func (p *proxy) setLie(call string, l lie) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lies == nil {
		p.lies = map[string]lie{}
	}
	p.lies[call] = l
}

// honest ends all lies.
func (p *proxy) honest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lies = nil
}

func (p *proxy) answer(method string, request, answer []byte) ([]byte, error) {
	p.mu.Lock()
	l := p.lies[method[strings.LastIndex(method, "/")+1:]]
	p.mu.Unlock()
	if l == nil {
		return answer, nil
	}
	return l(request, answer)
}

// hostile is alice, whose node lies to her, and others whose node doesn't.
type hostile struct {
	url               string
	proxy             *proxy
	alice, bob, carol *Client
	later             atomic.Int64 // added to alice's clock
	group, other      *Conversation
	bobs              *Conversation
	missing           []string // texts that alice will never have
}

func newHostile(t *testing.T, url string, list ...Option) *hostile {
	t.Helper()
	return withHostile(t, url, newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers()), list...)
}

// withHostile makes alice and her conversations with others who are there.
func withHostile(t *testing.T, url string, bob, carol *Client, list ...Option) *hostile {
	t.Helper()
	h := &hostile{url: url, proxy: newProxy(t, url), bob: bob, carol: carol}
	clock := WithClock(func() time.Time { return time.Now().Add(time.Duration(h.later.Load())) })
	h.alice = newClient(t, h.proxy.url, append(list, WithoutWorkers(), clock)...)
	ctx := t.Context()
	h.group = must(h.alice.NewGroup(ctx, GroupOptions{}, h.bob.InboxID()))(t)
	h.other = must(h.alice.DM(ctx, h.carol.InboxID()))(t)
	h.bobs = inConversation(t, h.bob, h.group.ID())
	must(h.bobs.SendText(ctx, "hello"))(t)
	must(h.group.SendText(ctx, "hello yourself"))(t)
	check(t, h.alice.Sync(ctx))
	if alerts := must(h.alice.Alerts())(t); len(alerts) > 0 {
		t.Fatalf("before anything: %v", alerts)
	}
	return h
}

// find returns the newest alert of a type of finding.
func find[F Finding](t *testing.T, c *Client) (f F, alert Alert) {
	t.Helper()
	all := must(c.Alerts())(t)
	for _, a := range slices.Backward(all) {
		if f, ok := a.Finding.(F); ok {
			return f, a
		}
	}
	t.Errorf("no %T in %v", f, all)
	return f, alert
}

// want checks that there is an alert of exactly this finding.
func want(t *testing.T, c *Client, f Finding, certain bool) Alert {
	t.Helper()
	all := must(c.Alerts())(t)
	for _, a := range all {
		if a.Finding == f {
			if a.Certain != certain {
				t.Errorf("%v is certain: %v", f, a.Certain)
			}
			return a
		}
	}
	t.Errorf("no %T %+v in:", f, f)
	for _, a := range all {
		t.Errorf("%T %+v", a.Finding, a.Finding)
	}
	return Alert{}
}

// lifeGoesOn checks that all is well in a conversation once the node is honest.
func (h *hostile) lifeGoesOn(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	must(h.group.SendText(ctx, "from alice"))(t)
	check(t, h.bobs.Sync(ctx))
	must(h.bobs.SendText(ctx, "from bob"))(t)
	check(t, h.alice.Sync(ctx))
	sameEpoch(t, h.group, h.bobs)
	theirs := slices.DeleteFunc(texts(t, h.bobs), func(s string) bool { return slices.Contains(h.missing, s) })
	if diff := cmp.Diff(theirs, texts(t, h.group)); diff != "" {
		t.Errorf("bob has (-), alice has (+):\n%s", diff)
	}
}

func oldestFirst(v *Conversation) *mlsapi.QueryGroupMessagesRequest {
	return &mlsapi.QueryGroupMessagesRequest{GroupId: v.row.ID, PagingInfo: &mlsapi.PagingInfo{Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING}}
}

// log returns the messages of alice's group as they are.
func (h *hostile) log(t *testing.T) []*mlsapi.GroupMessage {
	t.Helper()
	response, err := h.bob.node.MLS.QueryGroupMessages(t.Context(), oldestFirst(h.group))
	check(t, err)
	return response.Messages
}

// reading lets the node lie about the messages of alice's group.
func (h *hostile) reading(change func(a *mlsapi.QueryGroupMessagesResponse)) {
	lying(h.proxy, "QueryGroupMessages", func(q *mlsapi.QueryGroupMessagesRequest, a *mlsapi.QueryGroupMessagesResponse) {
		if bytes.Equal(q.GroupId, h.group.row.ID) && len(a.Messages) > 0 {
			change(a)
		}
	})
	// A node that tells what is in the log when it is sent something lies there, too.
	h.proxy.setLie("SendGroupMessages", func(_, answer []byte) ([]byte, error) {
		var a mlsapi.QueryGroupMessagesResponse
		if err := proto.Unmarshal(answer, &a); err != nil {
			return nil, err
		}
		if len(a.Messages) > 0 && bytes.Equal(a.Messages[0].GetV1().GroupId, h.group.row.ID) {
			change(&a)
		}
		return proto.Marshal(&a)
	})
}

// withheld lets the node leave out one message, counted from the end of the log.
func (h *hostile) withheld(t *testing.T, fromEnd int) {
	t.Helper()
	all := h.log(t)
	id := all[len(all)-1-fromEnd].GetV1().Id
	h.reading(func(a *mlsapi.QueryGroupMessagesResponse) {
		a.Messages = slices.DeleteFunc(a.Messages, func(m *mlsapi.GroupMessage) bool { return m.GetV1().Id == id })
	})
}

// updates lets the node lie about the log of an inbox.
func (h *hostile) updates(inbox string, change func(q *identityapi.GetIdentityUpdatesRequest_Request, a *identityapi.GetIdentityUpdatesResponse_Response)) {
	lying(h.proxy, "GetIdentityUpdates", func(q *identityapi.GetIdentityUpdatesRequest, a *identityapi.GetIdentityUpdatesResponse) {
		for i, r := range q.Requests {
			if r.InboxId == inbox {
				change(r, a.Responses[i])
			}
		}
	})
}

// refused checks that a sync fails, or not, changes nothing of the group, and that
// the other conversation gets its message all the same.
func (h *hostile) refused(t *testing.T, reason error) {
	t.Helper()
	ctx := t.Context()
	text := fmt.Sprint("meanwhile ", h.proxy.calls)
	must(inConversation(t, h.carol, h.other.ID()).SendText(ctx, text))(t)
	before := must(h.group.group.row())(t)
	if err := h.alice.Sync(ctx); !errors.Is(err, reason) {
		t.Errorf("got %v, want %v", err, reason)
	}
	if diff := cmp.Diff(before, must(h.group.group.row())(t)); diff != "" {
		t.Errorf("what was refused has changed something:\n%s", diff)
	}
	if !slices.Contains(texts(t, h.other), text) {
		t.Error("another conversation had to wait")
	}
}

// Each lie of a node that a client can notice: what it does about it, and that it tells.
func TestHostileNode(t *testing.T) {
	t.Parallel()
	url := startNode(t)
	bob, carol := newClient(t, url, WithoutWorkers()), newClient(t, url, WithoutWorkers())
	for _, test := range []struct {
		name string
		run  func(t *testing.T, h *hostile)
	}{
		{"an identity log that ends earlier than before", func(t *testing.T, h *hostile) {
			check(t, h.bob.AddIdentifier(t.Context(), must(GeneratePrivateKeySigner())(t)))
			known := must(h.alice.InboxStates(t.Context(), h.bob.InboxID()))(t)[0]
			h.updates(h.bob.InboxID(), func(_ *identityapi.GetIdentityUpdatesRequest_Request, a *identityapi.GetIdentityUpdatesResponse_Response) {
				a.Updates = slices.DeleteFunc(a.Updates, func(u *servedUpdate) bool { return u.SequenceId >= known.SequenceID })
			})
			h.later.Add(int64(2 * auditPeriod))
			if diff := cmp.Diff(known, must(h.alice.InboxStates(t.Context(), h.bob.InboxID()))(t)[0], cmp.AllowUnexported(reflect.ValueOf(known.Recovery).Interface())); diff != "" {
				t.Errorf("what was known has changed:\n%s", diff)
			}
			f, alert := find[IdentityRollback](t, h.alice)
			if f.InboxID != h.bob.InboxID() || f.Known != known.SequenceID || f.Served == 0 || f.Served >= f.Known || alert.Certain || len(alert.Evidence) == 0 {
				t.Errorf("%+v, %+v", f, alert)
			}
		}},
		{"an identity log that is gone", func(t *testing.T, h *hostile) {
			h.updates(h.bob.InboxID(), func(_ *identityapi.GetIdentityUpdatesRequest_Request, a *identityapi.GetIdentityUpdatesResponse_Response) {
				a.Updates = nil
			})
			h.later.Add(int64(2 * auditPeriod))
			known := must(h.alice.InboxStates(t.Context(), h.bob.InboxID()))(t)[0]
			want(t, h.alice, IdentityRollback{h.bob.InboxID(), known.SequenceID, 0}, false)
		}},
		{"the own identity log that is gone, without any wait", func(t *testing.T, h *hostile) {
			h.updates(h.alice.InboxID(), func(_ *identityapi.GetIdentityUpdatesRequest_Request, a *identityapi.GetIdentityUpdatesResponse_Response) {
				a.Updates = nil
			})
			if revoked := must(h.alice.IsRevoked(t.Context()))(t); revoked {
				t.Error("revoked")
			}
			f, _ := find[IdentityRollback](t, h.alice)
			if f.InboxID != h.alice.InboxID() {
				t.Errorf("%+v", f)
			}
		}},
		{"an identity log with another update in the place of one", func(t *testing.T, h *hostile) {
			foreign, err := h.bob.node.Identity.GetIdentityUpdates(t.Context(), &identityapi.GetIdentityUpdatesRequest{
				Requests: []*identityapi.GetIdentityUpdatesRequest_Request{{InboxId: h.carol.InboxID()}},
			})
			check(t, err)
			h.updates(h.bob.InboxID(), func(_ *identityapi.GetIdentityUpdatesRequest_Request, a *identityapi.GetIdentityUpdatesResponse_Response) {
				for _, u := range a.Updates {
					u.Update = foreign.Responses[0].Updates[0].Update
				}
			})
			h.later.Add(int64(2 * auditPeriod))
			known := must(h.alice.InboxHistory(t.Context(), h.bob.InboxID()))(t)[0]
			alert := want(t, h.alice, IdentityRewritten{h.bob.InboxID(), known.SequenceID}, true)
			if len(alert.Hash) != 32 || len(alert.Evidence) == 0 {
				t.Errorf("%+v", alert)
			}
		}},
		{"an identity log whose old numbers have changed", func(t *testing.T, h *hostile) {
			h.updates(h.bob.InboxID(), func(_ *identityapi.GetIdentityUpdatesRequest_Request, a *identityapi.GetIdentityUpdatesResponse_Response) {
				for _, u := range a.Updates {
					u.SequenceId += 1000
				}
			})
			h.later.Add(int64(2 * auditPeriod))
			log := must(h.alice.inboxes.known(h.bob.InboxID()))(t)
			// What follows is held against what is known: an inbox is created once.
			if _, err := h.alice.InboxStates(t.Context(), h.bob.InboxID()); !errors.Is(err, ErrInvalidInbox) {
				t.Error(err)
			}
			want(t, h.alice, IdentityRewritten{h.bob.InboxID(), log.numbers[0]}, true)
		}},
		{"an identity update with a wrong signature", func(t *testing.T, h *hostile) {
			dave := newClient(t, h.url, WithoutWorkers())
			h.updates(dave.InboxID(), func(_ *identityapi.GetIdentityUpdatesRequest_Request, a *identityapi.GetIdentityUpdatesResponse_Response) {
				a.Updates[0].Update.ClientTimestampNs += 3e9
			})
			if r := must(h.alice.Reach(t.Context(), dave.InboxID()))(t)[0]; !errors.Is(r.Err, ErrInvalidInbox) {
				t.Error(r.Err)
			}
			if f, a := find[IdentityInvalid](t, h.alice); f.InboxID != dave.InboxID() || !a.Certain || len(a.Evidence) == 0 {
				t.Errorf("%+v", f)
			}
		}},
		{"identity updates of too few, of other inboxes", func(t *testing.T, h *hostile) {
			for _, change := range []func(a *identityapi.GetIdentityUpdatesResponse){
				func(a *identityapi.GetIdentityUpdatesResponse) { a.Responses = nil },
				func(a *identityapi.GetIdentityUpdatesResponse) { a.Responses = append(a.Responses, a.Responses[0]) },
				func(a *identityapi.GetIdentityUpdatesResponse) { a.Responses[0].InboxId = h.carol.InboxID() },
			} {
				lying(h.proxy, "GetIdentityUpdates", func(_ *identityapi.GetIdentityUpdatesRequest, a *identityapi.GetIdentityUpdatesResponse) { change(a) })
				if _, err := h.alice.InboxStates(t.Context(), h.bob.InboxID()); !errors.Is(err, ErrNodeAnswer) {
					t.Error(err)
				}
			}
			if f, a := find[InvalidAnswer](t, h.alice); f.Call != callUpdates || a.Count != 3 || !a.Certain {
				t.Errorf("%+v, %d times", f, a.Count)
			}
		}},
		{"an update withheld to which a commit refers", func(t *testing.T, h *hostile) {
			dave := newClient(t, h.url, WithoutWorkers())
			check(t, h.group.AddAdmin(t.Context(), h.bob.InboxID()))
			check(t, h.bobs.Sync(t.Context()))
			h.updates(dave.InboxID(), func(_ *identityapi.GetIdentityUpdatesRequest_Request, a *identityapi.GetIdentityUpdatesResponse_Response) {
				a.Updates = nil
			})
			check(t, h.bobs.AddMembers(t.Context(), dave.InboxID()))
			check(t, h.alice.Sync(t.Context()))
			if f, _ := find[IdentityWithheld](t, h.alice); f.InboxID != dave.InboxID() || f.Known != 0 || f.Referenced == 0 {
				t.Errorf("%+v", f)
			}
			h.proxy.honest()
			must(h.bobs.SendText(t.Context(), "we have gone on"))(t)
			check(t, h.alice.Sync(t.Context()))
			find[CommitMissing](t, h.alice)
			if slices.Contains(texts(t, h.group), "we have gone on") {
				t.Error("read without the commit")
			}
			h.bobs = h.group // they have parted
		}},
		{"an address said to be somebody else's", func(t *testing.T, h *hostile) {
			dave := newClient(t, h.url, WithoutWorkers())
			carol := h.carol.InboxID()
			lying(h.proxy, "GetInboxIds", func(_ *identityapi.GetInboxIdsRequest, a *identityapi.GetInboxIdsResponse) {
				for _, r := range a.Responses {
					r.InboxId = &carol
				}
			})
			before := len(must(h.alice.Conversations(ConversationOptions{}))(t))
			if _, err := h.alice.DM(t.Context(), dave.Address()); !errors.Is(err, ErrWrongInbox) {
				t.Error(err)
			}
			if err := h.group.AddMembers(t.Context(), dave.Address()); !errors.Is(err, ErrWrongInbox) {
				t.Error(err)
			}
			if _, err := h.alice.NewGroup(t.Context(), GroupOptions{}, h.bob.InboxID(), dave.Address()); !errors.Is(err, ErrWrongInbox) {
				t.Error(err)
			}
			if r := must(h.alice.Reach(t.Context(), dave.Address()))(t)[0]; !errors.Is(r.Err, ErrWrongInbox) {
				t.Error(r.Err)
			}
			if n := len(must(h.alice.Conversations(ConversationOptions{}))(t)); n != before {
				t.Errorf("%d conversations, %d before", n, before)
			}
			alert := want(t, h.alice, WrongInbox{dave.Address(), carol}, true)
			if alert.Count != 4 || strings.Contains(alert.Finding.String(), dave.Address()) {
				t.Errorf("%d times: %v", alert.Count, alert.Finding)
			}
			// A wallet that signs in is not brought into another's inbox, and signs nothing.
			wallet := WalletSigner(must(GeneratePrivateKeySigner())(t).Address(), func(context.Context, string) ([]byte, error) {
				t.Error("it is asked to sign")
				return nil, errors.New("no")
			})
			if _, err := NewClient(t.Context(), wallet, WithNode(h.proxy.url), InMemory()); !errors.Is(err, ErrWrongInbox) {
				t.Error(err)
			}
		}},
		{"an address said to have no inbox", func(t *testing.T, h *hostile) {
			lying(h.proxy, "GetInboxIds", func(_ *identityapi.GetInboxIdsRequest, a *identityapi.GetInboxIdsResponse) {
				for _, r := range a.Responses {
					r.InboxId = nil
				}
			})
			if can := must(h.alice.CanMessage(t.Context(), h.bob.Address()))(t); can[h.bob.Address()] {
				t.Error("the node's answer is the answer")
			}
			want(t, h.alice, InboxDenied{h.bob.Address(), h.bob.InboxID()}, false)
		}},
		{"nonsense about addresses", func(t *testing.T, h *hostile) {
			nonsense := "0x" + strings.Repeat("z", 1000)
			for _, change := range []func(a *identityapi.GetInboxIdsResponse){
				func(a *identityapi.GetInboxIdsResponse) { a.Responses[0].InboxId = &nonsense },
				func(a *identityapi.GetInboxIdsResponse) { a.Responses = a.Responses[:0] },
			} {
				lying(h.proxy, "GetInboxIds", func(_ *identityapi.GetInboxIdsRequest, a *identityapi.GetInboxIdsResponse) { change(a) })
				if _, err := h.alice.CanMessage(t.Context(), h.carol.Address()); !errors.Is(err, ErrNodeAnswer) {
					t.Error(err)
				}
			}
		}},
		{"another installation's key package, or one that was changed", func(t *testing.T, h *hostile) {
			dave := newClient(t, h.url, WithoutWorkers())
			foreign, err := h.bob.node.MLS.FetchKeyPackages(t.Context(), &mlsapi.FetchKeyPackagesRequest{InstallationKeys: [][]byte{h.carol.installation.Bytes()}})
			check(t, err)
			for _, change := range []func(a *mlsapi.FetchKeyPackagesResponse){
				func(a *mlsapi.FetchKeyPackagesResponse) { a.KeyPackages = foreign.KeyPackages },
				func(a *mlsapi.FetchKeyPackagesResponse) { a.KeyPackages[0].KeyPackageTlsSerialized[100] ^= 1 },
				func(a *mlsapi.FetchKeyPackagesResponse) { a.KeyPackages[0].KeyPackageTlsSerialized = []byte{1, 2, 3} },
			} {
				lying(h.proxy, "FetchKeyPackages", func(_ *mlsapi.FetchKeyPackagesRequest, a *mlsapi.FetchKeyPackagesResponse) { change(a) })
				failed := new(NotAddedError)
				if err := h.group.AddMembers(t.Context(), dave.InboxID()); !errors.As(err, &failed) {
					t.Error(err)
				}
				if r := must(h.alice.Reach(t.Context(), dave.InboxID()))(t)[0]; r.Err == nil {
					t.Error("reachable")
				}
			}
			if n := len(memberIDs(t, h.group)); n != 2 {
				t.Errorf("%d members", n)
			}
			if f, a := find[WrongKeyPackage](t, h.alice); f.InboxID != dave.InboxID() || f.InstallationID != dave.InstallationID() || a.Count < 6 || !a.Certain || len(a.Evidence) == 0 {
				t.Errorf("%+v, %d times", f, a.Count)
			}
			h.proxy.honest()
			check(t, h.group.AddMembers(t.Context(), dave.InboxID()))
			check(t, h.bobs.Sync(t.Context()))
		}},
		{"too few key packages", func(t *testing.T, h *hostile) {
			lying(h.proxy, "FetchKeyPackages", func(_ *mlsapi.FetchKeyPackagesRequest, a *mlsapi.FetchKeyPackagesResponse) { a.KeyPackages = nil })
			if _, err := h.alice.KeyPackageStatuses(t.Context(), h.bob.InstallationID()); !errors.Is(err, ErrNodeAnswer) {
				t.Error(err)
			}
			if _, err := h.alice.Reach(t.Context(), h.bob.InboxID()); !errors.Is(err, ErrNodeAnswer) {
				t.Error(err)
			}
			if f, _ := find[InvalidAnswer](t, h.alice); f.Call != callPackages {
				t.Errorf("%+v", f)
			}
		}},
		{"a log that is rolled back", func(t *testing.T, h *hostile) {
			messages := h.log(t)
			earlier := messages[0]
			h.reading(func(a *mlsapi.QueryGroupMessagesResponse) { a.Messages = nil })
			lying(h.proxy, "GetNewestGroupMessage", func(q *mlsapi.GetNewestGroupMessageRequest, a *mlsapi.GetNewestGroupMessageResponse) {
				for i, id := range q.GroupIds {
					if bytes.Equal(id, h.group.row.ID) {
						a.Responses[i].GroupMessage = earlier
					}
				}
			})
			h.refused(t, nil)
			h.refused(t, nil)
			row := must(h.group.group.row())(t)
			own := must(h.group.Messages(MessageOptions{Descending: true, Limit: 1, Kind: KindApplication}))(t)[0]
			f, a := find[LogRolledBack](t, h.alice)
			if f.ConversationID != h.group.ID() || f.Known != row.Cursor || f.Served != earlier.GetV1().Id || f.Own == 0 || own.SenderInboxID != h.alice.InboxID() || a.Count != 2 {
				t.Errorf("%+v, %+v", f, a)
			}
		}},
		{"one message withheld", func(t *testing.T, h *hostile) {
			for _, text := range []string{"one", "two", "three"} {
				must(h.bobs.SendText(t.Context(), text))(t)
			}
			h.withheld(t, 1)
			check(t, h.alice.Sync(t.Context()))
			f, _ := find[MessagesMissing](t, h.alice)
			if f.SenderInboxID != h.bob.InboxID() || f.First != f.Last || f.SenderInstallationID != h.bob.InstallationID() {
				t.Errorf("%+v", f)
			}
			h.missing = []string{"two"}
		}},
		{"messages in another order than they were sent", func(t *testing.T, h *hostile) {
			for _, text := range []string{"one", "two"} {
				must(h.bobs.SendText(t.Context(), text))(t)
			}
			h.reading(func(a *mlsapi.QueryGroupMessagesResponse) {
				one, two := a.Messages[0].GetV1(), a.Messages[1].GetV1()
				one.Data, two.Data = two.Data, one.Data
			})
			check(t, h.alice.Sync(t.Context()))
			find[MessagesMissing](t, h.alice)
			if got := texts(t, h.group); !slices.Equal(got[len(got)-2:], []string{"two", "one"}) {
				t.Errorf("%q", got)
			}
			h.bobs = h.group // in another order, too
		}},
		{"a commit withheld", func(t *testing.T, h *hostile) {
			check(t, h.bobs.UpdateKeys(t.Context()))
			must(h.bobs.SendText(t.Context(), "after it"))(t)
			h.withheld(t, 1)
			check(t, h.alice.Sync(t.Context()))
			if f, a := find[CommitMissing](t, h.alice); f.Epoch != f.Own+1 || len(a.Hash) != 32 || a.Evidence != nil {
				t.Errorf("%+v, %+v", f, a)
			}
			if slices.Contains(texts(t, h.group), "after it") {
				t.Error("read without the commit")
			}
			h.bobs = h.group // they have parted
		}},
		{"messages repeated under new numbers", func(t *testing.T, h *hostile) {
			must(h.bobs.SendText(t.Context(), "once"))(t)
			old := h.log(t)
			h.reading(func(a *mlsapi.QueryGroupMessagesResponse) {
				last := a.Messages[len(a.Messages)-1].GetV1()
				for i, m := range append(old, a.Messages...) {
					again := proto.Clone(m).(*mlsapi.GroupMessage)
					again.GetV1().Id = last.Id + uint64(i) + 1
					a.Messages = append(a.Messages, again)
				}
			})
			before, _, err := h.group.Epoch(t.Context())
			check(t, err)
			check(t, h.alice.Sync(t.Context()))
			if now, _, _ := h.group.Epoch(t.Context()); now != before {
				t.Errorf("epoch %d, then %d", before, now)
			}
			if got := texts(t, h.group); slices.Index(got, "once") != len(got)-1 {
				t.Errorf("%q", got)
			}
			find[MessageReplayed](t, h.alice)
			h.bobs = h.group // alice has read on, to numbers that will come again
		}},
		{"a message changed on its way", func(t *testing.T, h *hostile) {
			must(h.bobs.SendText(t.Context(), "changed"))(t)
			h.reading(func(a *mlsapi.QueryGroupMessagesResponse) { data := a.Messages[0].GetV1().Data; data[len(data)-1] ^= 1 })
			check(t, h.alice.Sync(t.Context()))
			if f, _ := find[MessageForged](t, h.alice); f.Reason != SkippedDecryption || f.ConversationID != h.group.ID() {
				t.Errorf("%+v", f)
			}
			h.missing = []string{"changed"}
		}},
		{"a message replaced by one of another conversation", func(t *testing.T, h *hostile) {
			must(h.bobs.SendText(t.Context(), "replaced"))(t)
			m := must(inConversation(t, h.carol, h.other.ID()).SendText(t.Context(), "elsewhere"))(t)
			foreign, err := h.bob.node.MLS.QueryGroupMessages(t.Context(), oldestFirst(h.other))
			check(t, err)
			h.reading(func(a *mlsapi.QueryGroupMessagesResponse) {
				a.Messages[0].GetV1().Data = foreign.Messages[len(foreign.Messages)-1].GetV1().Data
			})
			check(t, h.alice.Sync(t.Context()))
			if f, _ := find[MessageForged](t, h.alice); f.Reason != SkippedInvalid {
				t.Errorf("%+v", f)
			}
			if got := must(h.alice.Message(m.ID))(t); got.ConversationID != h.other.ID() {
				t.Errorf("in %s", got.ConversationID)
			}
			h.missing = []string{"replaced"}
		}},
		{"messages of another conversation", func(t *testing.T, h *hostile) {
			must(h.bobs.SendText(t.Context(), "hidden"))(t)
			h.reading(func(a *mlsapi.QueryGroupMessagesResponse) { a.Messages[0].GetV1().GroupId = h.other.row.ID })
			h.refused(t, ErrNodeAnswer)
			want(t, h.alice, InvalidAnswer{callMessages, fmt.Sprintf("message %d is of another conversation", h.log(t)[len(h.log(t))-1].GetV1().Id)}, true)
		}},
		{"numbers that don't grow, or can't be", func(t *testing.T, h *hostile) {
			must(h.bobs.SendText(t.Context(), "one"))(t)
			must(h.bobs.SendText(t.Context(), "two"))(t)
			for _, change := range []func(a *mlsapi.QueryGroupMessagesResponse){
				func(a *mlsapi.QueryGroupMessagesResponse) { slices.Reverse(a.Messages) },
				func(a *mlsapi.QueryGroupMessagesResponse) { a.Messages = append(a.Messages, a.Messages...) },
				func(a *mlsapi.QueryGroupMessagesResponse) { a.Messages[1].GetV1().Id = math.MaxUint64 },
				func(a *mlsapi.QueryGroupMessagesResponse) { a.Messages[0].GetV1().Id = 0 },
			} {
				h.reading(change)
				h.refused(t, ErrNodeOrder)
			}
			if f, a := find[InvalidAnswer](t, h.alice); f.Call != callMessages || a.Count != 4 {
				t.Errorf("%+v, %d times", f, a.Count)
			}
		}},
		{"pages without end that hold nothing", func(t *testing.T, h *hostile) {
			must(h.bobs.SendText(t.Context(), "hidden"))(t)
			h.reading(func(a *mlsapi.QueryGroupMessagesResponse) {
				a.Messages = make([]*mlsapi.GroupMessage, pageSize)
				for i := range a.Messages {
					a.Messages[i] = &mlsapi.GroupMessage{}
				}
			})
			h.refused(t, ErrNodeAnswer)
		}},
		{"bytes that are no answer, and far too many", func(t *testing.T, h *hostile) {
			must(h.bobs.SendText(t.Context(), "hidden"))(t)
			for _, answer := range [][]byte{{0xff, 0xff, 0xff}, bytes.Repeat([]byte{0x0a, 0x00}, 13<<20)} {
				h.proxy.setLie("QueryGroupMessages", func([]byte, []byte) ([]byte, error) { return answer, nil })
				before := must(h.group.group.row())(t)
				if err := h.alice.Sync(t.Context()); err == nil {
					t.Error("taken")
				}
				if diff := cmp.Diff(before, must(h.group.group.row())(t)); diff != "" {
					t.Error(diff)
				}
			}
		}},
		{"a time far away", func(t *testing.T, h *hostile) {
			must(h.bobs.SendText(t.Context(), "when?"))(t)
			h.reading(func(a *mlsapi.QueryGroupMessagesResponse) { a.Messages[0].GetV1().CreatedNs = math.MaxUint64 })
			check(t, h.alice.Sync(t.Context()))
			must(h.group.Messages(MessageOptions{}))(t)
			must(h.alice.Conversations(ConversationOptions{}))(t)
			if got := texts(t, h.group); !slices.Contains(got, "when?") {
				t.Errorf("%q", got)
			}
			h.bobs = h.group // in another order
		}},
		{"what is in the log when we send something is in disorder", func(t *testing.T, h *hostile) {
			must(h.bobs.SendText(t.Context(), "before"))(t)
			h.reading(func(a *mlsapi.QueryGroupMessagesResponse) { slices.Reverse(a.Messages) })
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if _, err := h.group.SendText(ctx, "now"); !errors.Is(err, ErrNotPublished) || !errors.Is(err, ErrNodeOrder) {
				t.Error(err)
			}
			find[InvalidAnswer](t, h.alice)
			h.proxy.honest()
			check(t, h.group.PublishMessages(t.Context()))
			if got := texts(t, h.group); !slices.Contains(got, "before") || !slices.Contains(got, "now") {
				t.Errorf("%q", got)
			}
		}},
		{"what comes when we send something is no log", func(t *testing.T, h *hostile) {
			h.proxy.setLie("SendGroupMessages", func(_, _ []byte) ([]byte, error) { return []byte{0x0a, 0x01, 0xff}, nil })
			must(h.group.SendText(t.Context(), "is it there?"))(t)
		}},
		{"what we sent was taken and isn't shown", func(t *testing.T, h *hostile) {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			h.reading(func(a *mlsapi.QueryGroupMessagesResponse) { a.Messages = nil })
			if _, err := h.group.SendText(ctx, "where is it?"); !errors.Is(err, ErrNotPublished) {
				t.Error(err)
			}
			alert := want(t, h.alice, MessageWithheld{h.group.ID()}, false)
			if len(alert.Hash) != 32 || alert.Evidence != nil {
				t.Errorf("%+v", alert)
			}
			h.proxy.honest()
			check(t, h.group.PublishMessages(t.Context()))
			check(t, h.bobs.Sync(t.Context()))
			if got := texts(t, h.bobs); got[len(got)-1] != "where is it?" {
				t.Errorf("%q", got)
			}
		}},
		{"wrong news", func(t *testing.T, h *hostile) {
			for _, change := range []func(a *mlsapi.GetNewestGroupMessageResponse){
				func(a *mlsapi.GetNewestGroupMessageResponse) { a.Responses = a.Responses[:1] },
				func(a *mlsapi.GetNewestGroupMessageResponse) {
					a.Responses[0], a.Responses[1] = a.Responses[1], a.Responses[0]
				},
			} {
				lying(h.proxy, "GetNewestGroupMessage", func(_ *mlsapi.GetNewestGroupMessageRequest, a *mlsapi.GetNewestGroupMessageResponse) { change(a) })
				if err := h.alice.Sync(t.Context()); !errors.Is(err, ErrNodeAnswer) {
					t.Error(err)
				}
			}
			if f, _ := find[InvalidAnswer](t, h.alice); f.Call != callNewest {
				t.Errorf("%+v", f)
			}
		}},
		{"commit logs out of order, of others, too few", func(t *testing.T, h *hostile) {
			for _, change := range []func(a *mlsapi.BatchQueryCommitLogResponse){
				func(a *mlsapi.BatchQueryCommitLogResponse) { a.Responses = nil },
				func(a *mlsapi.BatchQueryCommitLogResponse) {
					a.Responses[0].CommitLogEntries = []*mlscontents.CommitLogEntry{{SequenceId: 7}, {SequenceId: 7}}
				},
				func(a *mlsapi.BatchQueryCommitLogResponse) {
					a.Responses[0].CommitLogEntries = []*mlscontents.CommitLogEntry{{SequenceId: math.MaxUint64}}
				},
			} {
				lying(h.proxy, "BatchQueryCommitLog", func(_ *mlsapi.BatchQueryCommitLogRequest, a *mlsapi.BatchQueryCommitLogResponse) { change(a) })
				if err := h.alice.CheckForks(t.Context()); !lies(err) {
					t.Error(err)
				}
			}
			if f, a := find[InvalidAnswer](t, h.alice); f.Call != callCommits || a.Count != 3 {
				t.Errorf("%+v, %d times", f, a.Count)
			}
			h.proxy.honest()
			check(t, h.alice.CheckForks(t.Context()))
		}},
		{"welcomes of others, out of order, of nothing", func(t *testing.T, h *hostile) {
			must(h.bob.NewGroup(t.Context(), GroupOptions{}, h.alice.InboxID()))(t)
			before := len(must(h.alice.Conversations(ConversationOptions{}))(t))
			for i, change := range []func(a *mlsapi.QueryWelcomeMessagesResponse){
				func(a *mlsapi.QueryWelcomeMessagesResponse) {
					a.Messages[0].GetV1().InstallationKey = h.carol.installation.Bytes()
				},
				func(a *mlsapi.QueryWelcomeMessagesResponse) { a.Messages[0].GetV1().Id = 0 },
				func(a *mlsapi.QueryWelcomeMessagesResponse) { a.Messages[0].GetV1().Id = math.MaxUint64 },
				func(a *mlsapi.QueryWelcomeMessagesResponse) { a.Messages[0].Version = nil },
			} {
				lying(h.proxy, "QueryWelcomeMessages", func(_ *mlsapi.QueryWelcomeMessagesRequest, a *mlsapi.QueryWelcomeMessagesResponse) {
					if len(a.Messages) > 0 {
						change(a)
					}
				})
				text := fmt.Sprint("meanwhile ", i)
				must(h.bobs.SendText(t.Context(), text))(t)
				if err := h.alice.Sync(t.Context()); !lies(err) {
					t.Errorf("%d: %v", i, err)
				}
				if got := texts(t, h.group); got[len(got)-1] != text {
					t.Error("conversations had to wait")
				}
			}
			if f, a := find[InvalidAnswer](t, h.alice); f.Call != callWelcomes || a.Count != 4 {
				t.Errorf("%+v, %d times", f, a.Count)
			}
			h.proxy.honest()
			check(t, h.alice.Sync(t.Context()))
			if n := len(must(h.alice.Conversations(ConversationOptions{}))(t)); n != before+1 {
				t.Errorf("%d conversations, %d before", n, before)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := withHostile(t, url, bob, carol)
			test.run(t, h)
			if t.Failed() {
				return
			}
			h.proxy.honest()
			if h.bobs != h.group {
				h.lifeGoesOn(t)
			}
		})
	}
}
