// Package api serves the network's API: it decodes, validates, calls the order
// or the index, and encodes.
package api

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node/internal/hub"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/migrationapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// Limits of requests and responses, fixed by what official clients send and accept.
const (
	// MaxMessageBytes bounds a request or response.
	MaxMessageBytes = 25 << 20
	// pageLimit is the most messages in one response, and the number that
	// clients take as a sign that there are more.
	pageLimit = 100
	// pageBytes cuts a page short before it nears MaxMessageBytes.
	pageBytes = 20 << 20
	// maxRecordBytes leaves room in a response for what is sent besides a
	// stored message. One that can be stored but not read would hide all later ones.
	maxRecordBytes = MaxMessageBytes - 1<<10
	// replayBytes bounds what a stream reads from the store at a time.
	replayBytes = 1 << 20
)

// Order gives records their place. See order.Embedded.
type Order interface {
	Append(ctx context.Context, records ...*order.Record) ([]order.Outcome, error)
}

// Config is what a server works with.
type Config struct {
	Order    Order
	Index    *index.Index
	Hub      *hub.Hub
	Now      func() time.Time
	Logger   *slog.Logger
	Verifier identity.ContractVerifier // nil: no access to chains
	ReadOnly bool
	Limiter  *Limiter // nil: none
	// NoSubscribe leaves out the stream whose topics can change.
	NoSubscribe bool
	// Running ends, with a cause, when streams have to.
	Running context.Context
}

// Register adds the services to a gRPC server.
func Register(registrar grpc.ServiceRegistrar, c Config) {
	mlsapi.RegisterMlsApiServer(registrar, &mlsServer{Config: c})
	identityapi.RegisterIdentityApiServer(registrar, &identityServer{Config: c})
	migrationapi.RegisterD14NMigrationApiServer(registrar, &migrationServer{Config: c})
}

// Texts that clients know.
const (
	textPublishingOff = "publishing to XMTP V3 is no longer available. Please upgrade your client to XMTP D14N."
	textShuttingDown  = "service is shutting down"
)

var (
	errPublishingOff = status.Error(codes.Unavailable, textPublishingOff)
	// ErrShuttingDown ends streams, and writes that come too late.
	ErrShuttingDown = status.Error(codes.Unavailable, textShuttingDown)
)

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// append orders records and translates what can go wrong with all of them.
func (c *Config) append(ctx context.Context, records ...*order.Record) ([]order.Outcome, error) {
	for _, r := range records {
		if n := len(r.Payload) + len(r.Facts); n > maxRecordBytes {
			return nil, invalid("a message of %d bytes: at most %d can be stored", n, maxRecordBytes)
		}
	}
	outcomes, err := c.Order.Append(ctx, records...)
	switch {
	case err == nil:
		return outcomes, nil
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, order.ErrStopped):
		return nil, ErrShuttingDown
	case errors.Is(err, index.ErrDiskFull):
		return nil, status.Error(codes.Unavailable, err.Error())
	default:
		c.Logger.Error("storing records", "error", err)
		return nil, status.Error(codes.Unavailable, "the node can't store anything at the moment")
	}
}

// reading translates an error of the index.
func (c *Config) reading(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	c.Logger.Error("reading records", "error", err)
	return status.Error(codes.Internal, "the node can't read its store")
}

// writable refuses writes when publishing is switched off or the caller has had its share.
func (c *Config) writable(ctx context.Context, cost int) error {
	if c.ReadOnly {
		return errPublishingOff
	}
	return c.Limiter.publish(ctx, cost)
}

// readable refuses a call that looks up as many things if the caller has had his share.
func (c *Config) readable(ctx context.Context, lookups int) error {
	return c.Limiter.read(ctx, lookups)
}
