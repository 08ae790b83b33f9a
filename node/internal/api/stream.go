package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// addCursor notes where a topic's delivery starts; of several cursors the lowest.
func addCursor(cursors map[order.Topic]uint64, topic order.Topic, cursor uint64) {
	if earlier, ok := cursors[topic]; !ok || cursor < earlier {
		cursors[topic] = cursor
	}
}

// subscribe delivers each record of the topics above its cursor once, in the
// order of each topic: first what is stored, then what comes. The cursors move
// along. It ends with the caller or the node.
func subscribe[M any](c *Config, stream grpc.ServerStreamingServer[M], open *openStream, cursors map[order.Topic]uint64, encode func(*order.Record) (*M, error)) error {
	// Clients wait for headers before they take the stream as open.
	if err := stream.SendHeader(metadata.Pairs("subscribed", "true")); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(c.Running, func() { cancel(context.Cause(c.Running)) })()

	subscription := c.Hub.Subscribe()
	defer subscription.Close()
	topics := make([]order.Topic, 0, len(cursors))
	for topic := range cursors {
		topics = append(topics, topic)
	}
	subscription.Add(topics...)

	send := func(r *order.Record) error {
		if r.Number <= cursors[r.Topic] {
			return nil
		}
		message, err := encode(r)
		if err != nil {
			return c.reading(ctx, err)
		}
		if err := stream.Send(message); err != nil {
			return err
		}
		cursors[r.Topic] = r.Number
		return nil
	}
	for {
		news, err := subscription.Next(ctx)
		if err != nil {
			return err
		}
		for _, topic := range news.Lagging {
			if err := replay(ctx, c, open, topic, cursors, send); err != nil {
				return err
			}
		}
		for _, r := range news.Records {
			if err := send(r); err != nil {
				return err
			}
		}
	}
}

// replay sends what is stored of a topic above its cursor.
func replay(ctx context.Context, c *Config, open *openStream, topic order.Topic, cursors map[order.Topic]uint64, send func(*order.Record) error) error {
	for ctx.Err() == nil {
		records, cut, err := c.Index.Records(topic, index.Page{
			Cursor:   cursors[topic],
			Limit:    pageLimit,
			MaxBytes: replayBytes,
		})
		if err != nil {
			return c.reading(ctx, err)
		}
		open.replayed(records)
		for _, r := range records {
			if err := send(r); err != nil {
				return err
			}
		}
		if !cut && len(records) < pageLimit {
			return nil
		}
	}
	return context.Cause(ctx)
}
