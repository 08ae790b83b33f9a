package api

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// What a client may ask for at once.
const (
	maxCommitLogEntries = 10
	maxCommitLogQueries = 20
	maxCommitLogBytes   = 64 << 10 // of one entry; clients send some 200
	maxTopicLength      = 255
)

// BatchPublishCommitLog stores entries as they are; clients check them.
func (s *mlsServer) BatchPublishCommitLog(ctx context.Context, req *mlsapi.BatchPublishCommitLogRequest) (*emptypb.Empty, error) {
	if err := s.writable(ctx, max(1, len(req.Requests))); err != nil {
		return nil, err
	}
	switch n := len(req.Requests); {
	case n == 0:
		return nil, invalid("no log entries to publish")
	case n > maxCommitLogEntries:
		return nil, invalid("cannot exceed %d inserts in single batch", maxCommitLogEntries)
	}
	records := make([]*order.Record, len(req.Requests))
	for i, entry := range req.Requests {
		id := entry.GetGroupId()
		if len(id) == 0 || len(id) > maxTopicLength || len(entry.SerializedCommitLogEntry) == 0 || entry.Signature == nil {
			return nil, invalid("invalid commit log entry")
		}
		payload, err := proto.Marshal(&mlscontents.CommitLogEntry{
			SerializedCommitLogEntry: entry.SerializedCommitLogEntry,
			Signature:                entry.Signature,
		})
		if err != nil {
			return nil, invalid("invalid commit log entry: %v", err)
		}
		if len(payload) > maxCommitLogBytes {
			return nil, invalid("invalid commit log entry: more than %d bytes", maxCommitLogBytes)
		}
		records[i] = &order.Record{Topic: order.Topic{Kind: order.CommitLog, ID: string(id)}, Payload: payload}
	}
	if _, err := s.append(ctx, records...); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s *mlsServer) BatchQueryCommitLog(ctx context.Context, req *mlsapi.BatchQueryCommitLogRequest) (*mlsapi.BatchQueryCommitLogResponse, error) {
	if err := s.readable(ctx, len(req.Requests)); err != nil {
		return nil, err
	}
	switch n := len(req.Requests); {
	case n == 0:
		return nil, invalid("no requests to query")
	case n > maxCommitLogQueries:
		return nil, invalid("cannot exceed %d queries in single batch", maxCommitLogQueries)
	}
	response := &mlsapi.BatchQueryCommitLogResponse{}
	for _, ask := range req.Requests {
		if len(ask.GetGroupId()) == 0 {
			return nil, invalid("invalid request")
		}
		if ask.PagingInfo.GetDirection() == mlsapi.SortDirection_SORT_DIRECTION_DESCENDING {
			return nil, status.Error(codes.Internal, "descending direction is not supported")
		}
		paging := &mlsapi.PagingInfo{
			Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING,
			Limit:     ask.PagingInfo.GetLimit(),
			IdCursor:  ask.PagingInfo.GetIdCursor(),
		}
		topic := order.Topic{Kind: order.CommitLog, ID: string(ask.GroupId)}
		entries, answered, err := query(ctx, &s.Config, topic, paging, pageBytes/maxCommitLogQueries, commitLogEntry)
		if err != nil {
			return nil, err
		}
		response.Responses = append(response.Responses, &mlsapi.QueryCommitLogResponse{
			GroupId:          ask.GroupId,
			CommitLogEntries: entries,
			PagingInfo:       answered,
		})
	}
	return response, nil
}

func commitLogEntry(r *order.Record) (*mlscontents.CommitLogEntry, error) {
	entry := &mlscontents.CommitLogEntry{}
	if err := proto.Unmarshal(r.Payload, entry); err != nil {
		return nil, err
	}
	entry.SequenceId = r.Number
	return entry, nil
}
