package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// installationKeyLength is the length of an Ed25519 key. The random
// destinations of welcome pointers are as long.
const installationKeyLength = 32

// SendWelcomeMessages checks all welcomes before it stores any. What gets past
// it has to be readable for the receiver: one bad welcome would hide all later ones.
func (s *mlsServer) SendWelcomeMessages(ctx context.Context, req *mlsapi.SendWelcomeMessagesRequest) (*emptypb.Empty, error) {
	if err := s.writable(ctx, messagesCost(req.Messages)); err != nil {
		return nil, err
	}
	if len(req.Messages) == 0 {
		return nil, invalid("no welcome messages to send")
	}
	records := make([]*order.Record, len(req.Messages))
	for i, message := range req.Messages {
		record, err := welcomeRecord(message)
		if err != nil {
			return nil, err
		}
		records[i] = record
	}
	if _, err := s.append(ctx, records...); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func welcomeRecord(message *mlsapi.WelcomeMessageInput) (*order.Record, error) {
	var (
		installation []byte
		payload      []byte
		facts        order.WelcomeFacts
	)
	switch version := message.GetVersion().(type) {
	case *mlsapi.WelcomeMessageInput_V1_:
		v1 := version.V1
		algorithm := v1.GetWrapperAlgorithm()
		switch algorithm {
		case mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_UNSPECIFIED:
			algorithm = mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_CURVE25519
		case mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_CURVE25519,
			mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_XWING_MLKEM_768_DRAFT_6,
			mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_SYMMETRIC_KEY:
		default:
			return nil, invalid("invalid welcome message: unknown wrapper algorithm %d", algorithm)
		}
		// With a symmetric key there is no key to name.
		symmetric := algorithm == mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_SYMMETRIC_KEY
		if len(v1.GetData()) == 0 || len(v1.InstallationKey) == 0 || (len(v1.HpkePublicKey) == 0 && !symmetric) {
			return nil, invalid("invalid welcome message")
		}
		installation, payload = v1.InstallationKey, v1.Data
		facts = order.WelcomeFacts{Algorithm: byte(algorithm), HPKEKey: v1.HpkePublicKey, Metadata: v1.WelcomeMetadata}
	case *mlsapi.WelcomeMessageInput_WelcomePointer_:
		pointer := version.WelcomePointer
		if len(pointer.GetInstallationKey()) == 0 || len(pointer.WelcomePointer) == 0 || len(pointer.HpkePublicKey) == 0 {
			return nil, invalid("invalid welcome pointer message")
		}
		if pointer.WrapperAlgorithm != mlscontents.WelcomePointerWrapperAlgorithm_WELCOME_POINTER_WRAPPER_ALGORITHM_XWING_MLKEM_768_DRAFT_6 {
			return nil, invalid("invalid welcome pointer wrapper algorithm: %d", pointer.WrapperAlgorithm)
		}
		installation, payload = pointer.InstallationKey, pointer.WelcomePointer
		facts = order.WelcomeFacts{Pointer: true, Algorithm: byte(pointer.WrapperAlgorithm), HPKEKey: pointer.HpkePublicKey}
	default:
		if message == nil {
			return nil, invalid("invalid welcome message")
		}
		return nil, invalid("invalid welcome message: missing version")
	}
	if len(installation) != installationKeyLength {
		return nil, invalid("invalid welcome message: installation key of %d bytes, not %d", len(installation), installationKeyLength)
	}
	return &order.Record{
		Topic:   order.Topic{Kind: order.Welcome, ID: string(installation)},
		Facts:   facts.Append(nil),
		Payload: payload,
	}, nil
}

func welcomeMessage(r *order.Record) (*mlsapi.WelcomeMessage, error) {
	facts, err := order.ParseWelcomeFacts(r.Facts)
	if err != nil {
		return nil, err
	}
	if facts.Pointer {
		return &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_WelcomePointer_{WelcomePointer: &mlsapi.WelcomeMessage_WelcomePointer{
			Id:               r.Number,
			CreatedNs:        r.Time,
			InstallationKey:  []byte(r.ID),
			WelcomePointer:   r.Payload,
			HpkePublicKey:    facts.HPKEKey,
			WrapperAlgorithm: mlscontents.WelcomePointerWrapperAlgorithm(facts.Algorithm),
		}}}, nil
	}
	return &mlsapi.WelcomeMessage{Version: &mlsapi.WelcomeMessage_V1_{V1: &mlsapi.WelcomeMessage_V1{
		Id:               r.Number,
		CreatedNs:        r.Time,
		InstallationKey:  []byte(r.ID),
		Data:             r.Payload,
		HpkePublicKey:    facts.HPKEKey,
		WrapperAlgorithm: mlscontents.WelcomeWrapperAlgorithm(facts.Algorithm),
		WelcomeMetadata:  facts.Metadata,
	}}}, nil
}

func (s *mlsServer) QueryWelcomeMessages(ctx context.Context, req *mlsapi.QueryWelcomeMessagesRequest) (*mlsapi.QueryWelcomeMessagesResponse, error) {
	if err := s.readable(ctx, 0); err != nil {
		return nil, err
	}
	if len(req.InstallationKey) == 0 {
		return nil, invalid("installation is required")
	}
	topic := order.Topic{Kind: order.Welcome, ID: string(req.InstallationKey)}
	messages, paging, err := query(ctx, &s.Config, topic, req.PagingInfo, pageBytes, welcomeMessage)
	if err != nil {
		return nil, err
	}
	return &mlsapi.QueryWelcomeMessagesResponse{Messages: messages, PagingInfo: paging}, nil
}

func (s *mlsServer) SubscribeWelcomeMessages(req *mlsapi.SubscribeWelcomeMessagesRequest, stream grpc.ServerStreamingServer[mlsapi.WelcomeMessage]) error {
	open, err := s.Limiter.stream(stream.Context(), len(req.Filters))
	if err != nil {
		return err
	}
	defer open.close()
	if len(req.Filters) == 0 {
		return invalid("no valid filters provided")
	}
	cursors := make(map[order.Topic]uint64, len(req.Filters))
	for _, filter := range req.Filters {
		if len(filter.GetInstallationKey()) == 0 {
			return invalid("a filter is nil or installation key is empty")
		}
		addCursor(cursors, order.Topic{Kind: order.Welcome, ID: string(filter.InstallationKey)}, filter.IdCursor)
	}
	return subscribe(&s.Config, stream, open, cursors, welcomeMessage)
}
