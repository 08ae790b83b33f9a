package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/go-xmtp/go-xmtp/proto/gen/migrationapi"
)

// cutover is when clients are to leave for the decentralised network: never. It
// is a date that is within 64 signed bits, also with some time added.
var cutover = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

type migrationServer struct {
	migrationapi.UnimplementedD14NMigrationApiServer
	Config
}

// FetchD14NCutover is asked by clients that know both networks, which can't
// publish without an answer.
func (s *migrationServer) FetchD14NCutover(ctx context.Context, _ *emptypb.Empty) (*migrationapi.FetchD14NCutoverResponse, error) {
	if err := s.readable(ctx, 1); err != nil {
		return nil, err
	}
	return &migrationapi.FetchD14NCutoverResponse{TimestampNs: uint64(cutover.UnixNano())}, nil
}
