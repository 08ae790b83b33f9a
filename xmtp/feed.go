package xmtp

import (
	"context"
	"errors"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// feed is what the node sends of its own accord: the messages of groups, each
// from a cursor on, without gaps and in order, and that there are welcomes. Where
// the node offers it, that is one stream to which groups can be added; else there
// are two, whose groups stay as they are.
type feed struct {
	messages chan *mlsapi.GroupMessage_V1
	welcomed chan struct{} // holds a token
	ended    chan error    // why it has ended; has room for all who may tell
	readers  sync.WaitGroup
	node     mlsapi.MlsApiClient
	release  func()        // gives back what node was got by
	requests *requestQueue // nil if groups can't be added
	mutates  uint64
}

// maxFeedAdds is how many groups are added with one request.
const maxFeedAdds = 1000

// What a topic of [mlsapi.MlsApiClient.Subscribe] begins with.
const (
	topicGroup   = 0
	topicWelcome = 1
)

// errFixed says that the node doesn't offer a stream to which groups can be added.
var errFixed = errors.New("the node has no streams that can change")

// openFeed streams groups and, from a cursor on, welcomes. It ends with ctx, which
// must be followed by wait. Groups can be added to it unless it is fixed.
func (c *Client) openFeed(ctx context.Context, groups []store.Group, welcomes uint64, fixed bool) (f *feed, err error) {
	f = &feed{
		messages: make(chan *mlsapi.GroupMessage_V1, 2*pageSize),
		welcomed: make(chan struct{}, 1),
		ended:    make(chan error, 2),
		release:  func() {},
	}
	streams := 1
	if fixed {
		streams = 2
	}
	node, release, err := c.node.Streams(streams)
	if err != nil {
		return f, err
	}
	f.node, f.release = node, release
	if fixed {
		return f, c.openFixed(ctx, f, groups, welcomes)
	}
	return f, c.openChanging(ctx, f, groups, welcomes)
}

// wait returns when nothing of the feed is left.
func (f *feed) wait() {
	f.readers.Wait()
	f.release()
}

func (f *feed) welcome() {
	select {
	case f.welcomed <- struct{}{}:
	default: // a token is there already
	}
}

func (f *feed) message(ctx context.Context, m *mlsapi.GroupMessage) {
	if v1 := m.GetV1(); v1 != nil {
		select {
		case f.messages <- v1:
		case <-ctx.Done():
		}
	}
}

func (c *Client) openFixed(ctx context.Context, f *feed, rows []store.Group, cursor uint64) error {
	request := &mlsapi.SubscribeGroupMessagesRequest{}
	for _, row := range rows {
		request.Filters = append(request.Filters, &mlsapi.SubscribeGroupMessagesRequest_Filter{GroupId: row.ID, IdCursor: row.Cursor})
	}
	groups, err := f.node.SubscribeGroupMessages(ctx, request)
	if err != nil {
		return err
	}
	welcomes, err := f.node.SubscribeWelcomeMessages(ctx, &mlsapi.SubscribeWelcomeMessagesRequest{
		Filters: []*mlsapi.SubscribeWelcomeMessagesRequest_Filter{{InstallationKey: c.installation.Bytes(), IdCursor: cursor}},
	})
	if err != nil {
		return err
	}
	readFeed(f, groups, func(m *mlsapi.GroupMessage) { f.message(ctx, m) })
	readFeed(f, welcomes, func(*mlsapi.WelcomeMessage) { f.welcome() })
	return nil
}

// readFeed hands over what a stream brings until it ends.
func readFeed[M any](f *feed, stream grpc.ServerStreamingClient[M], take func(*M)) {
	f.readers.Go(func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				f.ended <- err
				return
			}
			take(m)
		}
	})
}

// openChanging returns errFixed if the node doesn't know the call.
func (c *Client) openChanging(ctx context.Context, f *feed, rows []store.Group, cursor uint64) error {
	stream, err := f.node.Subscribe(ctx)
	if err != nil {
		return err
	}
	f.requests = newRequestQueue()
	own := &mlsapi.SubscribeRequest_V1_Mutate_Subscription{Topic: append([]byte{topicWelcome}, c.installation.Bytes()...), IdCursor: cursor}
	f.mutate([]*mlsapi.SubscribeRequest_V1_Mutate_Subscription{own})
	f.add(rows)
	// Its first answer tells whether there is such a call; requests may come before.
	f.readers.Go(func() { f.requests.send(ctx, stream) })
	first, err := stream.Recv()
	if status.Code(err) == codes.Unimplemented {
		return errFixed
	}
	if err != nil {
		return err
	}
	if first.GetV1().GetStarted() == nil {
		return ErrNodeOrder
	}
	readFeed(f, stream, func(m *mlsapi.SubscribeResponse) {
		switch v := m.GetV1().GetResponse().(type) {
		case *mlsapi.SubscribeResponse_V1_Messages_:
			for _, m := range v.Messages.GroupMessages {
				f.message(ctx, m)
			}
			if len(v.Messages.WelcomeMessages) > 0 {
				f.welcome()
			}
		case *mlsapi.SubscribeResponse_V1_Ping:
			f.requests.put(&mlsapi.SubscribeRequest_V1{Request: &mlsapi.SubscribeRequest_V1_Pong{
				Pong: &mlsapi.Pong{Nonce: v.Ping.GetNonce()},
			}})
		}
	})
	return nil
}

// add streams further groups. The feed must not be fixed.
func (f *feed) add(rows []store.Group) {
	for chunk := range slices.Chunk(rows, maxFeedAdds) {
		adds := make([]*mlsapi.SubscribeRequest_V1_Mutate_Subscription, len(chunk))
		for i, row := range chunk {
			adds[i] = &mlsapi.SubscribeRequest_V1_Mutate_Subscription{Topic: append([]byte{topicGroup}, row.ID...), IdCursor: row.Cursor}
		}
		f.mutate(adds)
	}
}

func (f *feed) mutate(adds []*mlsapi.SubscribeRequest_V1_Mutate_Subscription) {
	f.mutates++
	f.requests.put(&mlsapi.SubscribeRequest_V1{Request: &mlsapi.SubscribeRequest_V1_Mutate_{
		Mutate: &mlsapi.SubscribeRequest_V1_Mutate{Adds: adds, MutateId: f.mutates},
	}})
}

// requestQueue holds what is to be sent. Nobody waits for the node to take it: who
// did could not take what the node sends, for which it may wait.
type requestQueue struct {
	mu   sync.Mutex
	list []*mlsapi.SubscribeRequest_V1
	more chan struct{} // holds a token
}

func newRequestQueue() *requestQueue { return &requestQueue{more: make(chan struct{}, 1)} }

func (q *requestQueue) put(request *mlsapi.SubscribeRequest_V1) {
	q.mu.Lock()
	q.list = append(q.list, request)
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// send sends until the stream or ctx ends.
func (q *requestQueue) send(ctx context.Context, stream mlsapi.MlsApi_SubscribeClient) {
	for {
		q.mu.Lock()
		list := q.list
		q.list = nil
		q.mu.Unlock()
		for _, request := range list {
			if stream.Send(&mlsapi.SubscribeRequest{Version: &mlsapi.SubscribeRequest_V1_{V1: request}}) != nil {
				return // its reader knows why
			}
		}
		select {
		case <-q.more:
		case <-ctx.Done():
			return
		}
	}
}
