package api

import (
	"context"
	"encoding/hex"
	"errors"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"google.golang.org/grpc"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
)

const (
	// maxUpdateBytes is what the decentralised network's chain takes, too.
	maxUpdateBytes = 256 << 10
	// maxInboxLog is more updates than any inbox has.
	maxInboxLog = 1000
)

type identityServer struct {
	identityapi.UnimplementedIdentityApiServer
	Config
}

// PublishIdentityUpdate verifies signatures before the update is ordered; if it
// follows from the inbox's log is decided in its place of the order.
func (s *identityServer) PublishIdentityUpdate(ctx context.Context, req *identityapi.PublishIdentityUpdateRequest) (*identityapi.PublishIdentityUpdateResponse, error) {
	if err := s.writable(ctx, 1+signatures(req.GetIdentityUpdate())/signaturesPerToken); err != nil {
		return nil, err
	}
	update := req.IdentityUpdate
	if update == nil {
		return nil, invalid("IdentityUpdate is required")
	}
	payload, err := proto.Marshal(update)
	if err != nil {
		return nil, invalid("identity update: %v", err)
	}
	if len(payload) > maxUpdateBytes {
		return nil, invalid("identity update of %d bytes: at most %d are taken", len(payload), maxUpdateBytes)
	}
	if n := len(update.Actions); n > maxActions {
		return nil, s.Limiter.refuse(limitActions, invalid("identity update of %d actions: at most %d are taken", n, maxActions))
	}
	if err := identity.CheckPublishable(update); err != nil {
		return nil, invalid("%v", err)
	}
	inbox, err := hex.DecodeString(update.InboxId)
	if err != nil {
		return nil, invalid("%v", err)
	}
	if err := s.Limiter.inbox(ctx, update.InboxId, false, len(payload)); err != nil {
		return nil, err
	}
	verified, err := s.verify(ctx, update, len(payload))
	if err != nil {
		return nil, err
	}
	facts, err := verified.MarshalBinary()
	if err != nil {
		return nil, invalid("identity update: %v", err)
	}
	outcomes, err := s.append(ctx, &order.Record{
		Topic:   order.Topic{Kind: order.IdentityUpdate, ID: string(inbox)},
		Facts:   facts,
		Payload: payload,
	})
	if err != nil {
		return nil, err
	}
	if err := outcomes[0].Err; err != nil {
		return nil, s.refused(ctx, err)
	}
	s.Limiter.inboxWrote(update.InboxId, false, len(payload))
	return &identityapi.PublishIdentityUpdateResponse{}, nil
}

// verify checks the signatures of an update, when it is its turn.
func (s *identityServer) verify(ctx context.Context, update *associations.IdentityUpdate, size int) (*identity.VerifiedUpdate, error) {
	verdicts, err := s.askChains(ctx, update)
	if err != nil {
		return nil, s.refused(ctx, err)
	}
	done, err := s.Limiter.validate(ctx, size)
	if err != nil {
		return nil, err
	}
	defer done()
	verified, err := identity.Verify(ctx, update, verdicts)
	if err != nil {
		return nil, s.refused(ctx, err)
	}
	return verified, nil
}

// signatures counts those that an update has to have.
func signatures(update *associations.IdentityUpdate) int {
	n := len(update.GetActions())
	for _, action := range update.GetActions() {
		if action.GetAdd() != nil {
			n++ // the member who adds and the one who is added
		}
	}
	return n
}

// refused translates why an update was not taken.
func (s *identityServer) refused(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, identity.ErrVerifierUnavailable):
		return s.unasked(ctx, err)
	case errors.Is(err, index.ErrInboxLogFull):
		return invalid("%v", err)
	}
	if code := identity.ErrorCode(err); code != "" {
		// Lost only if the caller is gone.
		_ = grpc.SetTrailer(ctx, metadata.Pairs("error-code", code))
	}
	return invalid("%v", err)
}

// GetIdentityUpdates answers in full: clients don't ask for more pages.
func (s *identityServer) GetIdentityUpdates(ctx context.Context, req *identityapi.GetIdentityUpdatesRequest) (*identityapi.GetIdentityUpdatesResponse, error) {
	if err := s.readable(ctx, len(req.Requests)); err != nil {
		return nil, err
	}
	response := &identityapi.GetIdentityUpdatesResponse{}
	size := 0
	for _, ask := range req.Requests {
		raw, err := hex.DecodeString(ask.GetInboxId())
		if err != nil {
			return nil, invalid("inbox id %.70q is not hex", ask.GetInboxId())
		}
		topic := order.Topic{Kind: order.IdentityUpdate, ID: string(raw)}
		records, cut, err := s.Index.Records(topic, index.Page{
			Cursor:   ask.SequenceId,
			Limit:    maxInboxLog,
			MaxBytes: pageBytes,
		})
		if err != nil {
			return nil, s.reading(ctx, err)
		}
		answer := &identityapi.GetIdentityUpdatesResponse_Response{InboxId: ask.InboxId}
		for _, r := range records {
			update := &associations.IdentityUpdate{}
			if err := proto.Unmarshal(r.Payload, update); err != nil {
				return nil, s.reading(ctx, err)
			}
			size += len(r.Payload)
			answer.Updates = append(answer.Updates, &identityapi.GetIdentityUpdatesResponse_IdentityUpdateLog{
				SequenceId:        r.Number,
				ServerTimestampNs: r.Time,
				Update:            update,
			})
		}
		if cut || size > pageBytes {
			return nil, invalid("the updates of these inboxes are more than %d bytes: ask for fewer inboxes", pageBytes)
		}
		response.Responses = append(response.Responses, answer)
	}
	s.Limiter.answered(ctx, size)
	return response, nil
}

func (s *identityServer) GetInboxIds(ctx context.Context, req *identityapi.GetInboxIdsRequest) (*identityapi.GetInboxIdsResponse, error) {
	if err := s.readable(ctx, len(req.Requests)); err != nil {
		return nil, err
	}
	response := &identityapi.GetInboxIdsResponse{
		Responses: make([]*identityapi.GetInboxIdsResponse_Response, len(req.Requests)),
	}
	for i, ask := range req.Requests {
		answer := &identityapi.GetInboxIdsResponse_Response{
			Identifier:     ask.GetIdentifier(),
			IdentifierKind: ask.GetIdentifierKind(),
		}
		response.Responses[i] = answer
		id, err := identity.ParseIdentifier(ask.GetIdentifierKind(), ask.GetIdentifier())
		if err != nil {
			continue // nobody's
		}
		inbox, found, err := s.Index.InboxOf(id)
		if err != nil {
			return nil, s.reading(ctx, err)
		}
		if found {
			answer.InboxId = proto.String(hex.EncodeToString([]byte(inbox)))
		}
	}
	return response, nil
}
