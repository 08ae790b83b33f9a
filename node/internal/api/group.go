package api

import (
	"context"
	"encoding/binary"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

const (
	// groupIDLength is the length of a group id: a protocol invariant of XMTP,
	// on which clients fail if it is broken.
	groupIDLength = 16
	// maxPublicBytes bounds a PublicMessage, whose lists take many times their
	// length to decode. Clients send none; a commit that adds 250 members would
	// have half of it.
	maxPublicBytes = 1 << 20
)

type mlsServer struct {
	mlsapi.UnimplementedMlsApiServer
	Config
}

// SendGroupMessages checks all messages before it stores any.
func (s *mlsServer) SendGroupMessages(ctx context.Context, req *mlsapi.SendGroupMessagesRequest) (*emptypb.Empty, error) {
	if err := s.writable(ctx, messagesCost(req.Messages)); err != nil {
		return nil, err
	}
	if len(req.Messages) == 0 {
		return nil, invalid("no group messages to send")
	}
	records := make([]*order.Record, len(req.Messages))
	for i, message := range req.Messages {
		record, err := groupRecord(message.GetV1())
		if err != nil {
			return nil, err
		}
		records[i] = record
	}
	if _, err := s.append(ctx, records...); err != nil {
		return nil, err
	}
	answer := &emptypb.Empty{}
	if req.ReadAfter != nil {
		answer.ProtoReflect().SetUnknown(s.readAfter(ctx, records[0].Topic, req.GetReadAfter()))
	}
	return answer, nil
}

// readAfter returns an encoded page of a topic for one who would ask for it next. What
// speaks against it he learns then.
func (s *mlsServer) readAfter(ctx context.Context, topic order.Topic, cursor uint64) []byte {
	if s.readable(ctx, 0) != nil {
		return nil
	}
	ask := &mlsapi.PagingInfo{Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING, IdCursor: cursor}
	messages, paging, err := query(ctx, &s.Config, topic, ask, pageBytes, groupMessage)
	if err != nil {
		return nil
	}
	page, err := proto.Marshal(&mlsapi.QueryGroupMessagesResponse{Messages: messages, PagingInfo: paging})
	if err != nil {
		return nil
	}
	return page
}

// messagesCost is one for each message and for what is big in it.
func messagesCost[M proto.Message](messages []M) int {
	cost := len(messages)
	for _, message := range messages {
		cost += proto.Size(message) / bytesPerToken
	}
	return cost
}

// groupRecord checks what can be checked without being a member: that clients
// can decode the message and that it is one of a group.
func groupRecord(input *mlsapi.GroupMessageInput_V1) (*order.Record, error) {
	if input == nil {
		return nil, invalid("invalid group message")
	}
	if len(input.Data) == 0 {
		return nil, invalid("message is empty")
	}
	if len(input.Data) > maxPublicBytes && isPublic(input.Data) {
		return nil, invalid("invalid group message: a public message of %d bytes: at most %d are taken", len(input.Data), maxPublicBytes)
	}
	header, _, err := mls.ParseHeader(input.Data)
	if err != nil {
		return nil, invalid("invalid group message: %v", err)
	}
	if len(header.GroupID) == 0 {
		return nil, invalid("group id is empty")
	}
	if len(header.GroupID) != groupIDLength {
		return nil, invalid("invalid group message: group id of %d bytes, not %d", len(header.GroupID), groupIDLength)
	}
	facts := order.GroupFacts{
		Commit:     header.ContentType != mls.ContentTypeApplication,
		ShouldPush: input.ShouldPush,
		SenderHMAC: input.SenderHmac,
	}
	return &order.Record{
		Topic:   order.Topic{Kind: order.GroupMessage, ID: string(header.GroupID)},
		Facts:   facts.Append(make([]byte, 0, 1+len(input.SenderHmac))),
		Payload: input.Data,
	}, nil
}

// isPublic looks at no more than the wire format.
func isPublic(data []byte) bool {
	return len(data) >= 4 && binary.BigEndian.Uint16(data[2:]) == uint16(mls.WireFormatPublicMessage)
}

func groupMessage(r *order.Record) (*mlsapi.GroupMessage, error) {
	facts, err := order.ParseGroupFacts(r.Facts)
	if err != nil {
		return nil, err
	}
	// One allocation instead of three, for a page has a hundred of them.
	var m struct {
		message mlsapi.GroupMessage
		version mlsapi.GroupMessage_V1_
		v1      mlsapi.GroupMessage_V1
	}
	m.message.Version = &m.version
	m.version.V1 = &m.v1
	m.v1.Id = r.Number
	m.v1.CreatedNs = r.Time
	m.v1.GroupId = []byte(r.ID)
	m.v1.Data = r.Payload
	m.v1.SenderHmac = facts.SenderHMAC
	m.v1.ShouldPush = facts.ShouldPush
	m.v1.IsCommit = facts.Commit
	return &m.message, nil
}

func (s *mlsServer) QueryGroupMessages(ctx context.Context, req *mlsapi.QueryGroupMessagesRequest) (*mlsapi.QueryGroupMessagesResponse, error) {
	if err := s.readable(ctx, 0); err != nil {
		return nil, err
	}
	if len(req.GroupId) == 0 {
		return nil, invalid("group is required")
	}
	topic := order.Topic{Kind: order.GroupMessage, ID: string(req.GroupId)}
	messages, paging, err := query(ctx, &s.Config, topic, req.PagingInfo, pageBytes, groupMessage)
	if err != nil {
		return nil, err
	}
	return &mlsapi.QueryGroupMessagesResponse{Messages: messages, PagingInfo: paging}, nil
}

// query reads one page of a topic, of at most maxBytes unless one record is bigger.
func query[M any](ctx context.Context, c *Config, topic order.Topic, ask *mlsapi.PagingInfo, maxBytes int, encode func(*order.Record) (M, error)) ([]M, *mlsapi.PagingInfo, error) {
	paging := &mlsapi.PagingInfo{Limit: pageLimit, Direction: mlsapi.SortDirection_SORT_DIRECTION_DESCENDING}
	if ask.GetDirection() == mlsapi.SortDirection_SORT_DIRECTION_ASCENDING {
		paging.Direction = mlsapi.SortDirection_SORT_DIRECTION_ASCENDING
	}
	if limit := ask.GetLimit(); limit >= 1 && limit <= pageLimit {
		paging.Limit = limit
	}
	records, cut, err := c.Index.Records(topic, index.Page{
		Cursor:     ask.GetIdCursor(),
		Descending: paging.Direction == mlsapi.SortDirection_SORT_DIRECTION_DESCENDING,
		Limit:      int(paging.Limit),
		MaxBytes:   maxBytes,
	})
	if err != nil {
		return nil, nil, c.reading(ctx, err)
	}
	messages := make([]M, len(records))
	size := 0
	for i, r := range records {
		size += len(r.Payload)
		if messages[i], err = encode(r); err != nil {
			return nil, nil, c.reading(ctx, err)
		}
	}
	c.Limiter.answered(ctx, size)
	if cut || len(records) == int(paging.Limit) {
		paging.IdCursor = records[len(records)-1].Number
	}
	return messages, paging, nil
}

func (s *mlsServer) GetNewestGroupMessage(ctx context.Context, req *mlsapi.GetNewestGroupMessageRequest) (*mlsapi.GetNewestGroupMessageResponse, error) {
	if err := s.readable(ctx, len(req.GroupIds)); err != nil {
		return nil, err
	}
	if len(req.GroupIds) == 0 {
		return nil, invalid("no group ids provided")
	}
	response := &mlsapi.GetNewestGroupMessageResponse{
		Responses: make([]*mlsapi.GetNewestGroupMessageResponse_Response, len(req.GroupIds)),
	}
	size := 0
	for i, id := range req.GroupIds {
		response.Responses[i] = &mlsapi.GetNewestGroupMessageResponse_Response{}
		record, err := s.Index.Newest(order.Topic{Kind: order.GroupMessage, ID: string(id)})
		if err != nil {
			return nil, s.reading(ctx, err)
		}
		if record == nil {
			continue
		}
		message, err := groupMessage(record)
		if err != nil {
			return nil, s.reading(ctx, err)
		}
		if !req.IncludeContent {
			v1 := message.GetV1()
			v1.Data, v1.SenderHmac, v1.ShouldPush = nil, nil, false
		} else if size += len(record.Payload); size > pageBytes {
			return nil, invalid("the newest messages of these groups are more than %d bytes: ask for fewer groups", pageBytes)
		}
		response.Responses[i].GroupMessage = message
	}
	s.Limiter.answered(ctx, size)
	return response, nil
}

// SubscribeGroupMessages may have no filters: clients without groups ask so.
func (s *mlsServer) SubscribeGroupMessages(req *mlsapi.SubscribeGroupMessagesRequest, stream grpc.ServerStreamingServer[mlsapi.GroupMessage]) error {
	open, err := s.Limiter.stream(stream.Context(), len(req.Filters))
	if err != nil {
		return err
	}
	defer open.close()
	cursors := make(map[order.Topic]uint64, len(req.Filters))
	for _, filter := range req.Filters {
		if len(filter.GetGroupId()) == 0 {
			return invalid("a filter is nil or group id is empty")
		}
		addCursor(cursors, order.Topic{Kind: order.GroupMessage, ID: string(filter.GroupId)}, filter.IdCursor)
	}
	return subscribe(&s.Config, stream, open, cursors, groupMessage)
}
