package api

import (
	"context"
	"maps"

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
	defer subscription.Close(maps.Keys(cursors))
	topics := make([]order.Topic, 0, len(cursors))
	for topic := range cursors {
		topics = append(topics, topic)
	}
	subscription.Add(topics...)

	send := func(records []*order.Record) error {
		for _, r := range records {
			if r.Number <= cursors[r.Topic] {
				continue
			}
			message, err := encode(r)
			if err != nil {
				return c.reading(ctx, err)
			}
			if err := stream.Send(message); err != nil {
				return err
			}
			cursors[r.Topic] = r.Number
		}
		return nil
	}
	// replay sends what is stored of the topics up to a number.
	replay := func(topics []order.Topic, through uint64) error {
		from := make([]index.Cursor, len(topics))
		for i, topic := range topics {
			from[i] = index.Cursor{Topic: topic, After: cursors[topic]}
		}
		stored := c.Index.Merge(from, through)
		for ctx.Err() == nil {
			records, done, err := stored.Next(anyTopic, pageLimit, replayBytes)
			if err != nil {
				return c.reading(ctx, err)
			}
			open.replayed(records)
			if err := send(records); err != nil || done {
				return err
			}
		}
		return context.Cause(ctx)
	}
	if err := replay(topics, c.Index.Durable()); err != nil {
		return err
	}
	for {
		news, err := subscription.Next(ctx)
		if err != nil {
			return err
		}
		if err := send(news.Records); err != nil {
			return err
		}
		if err := replay(news.Lagging, news.Through); err != nil {
			return err
		}
	}
}

func anyTopic(order.Topic) bool { return true }
