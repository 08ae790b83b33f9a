package xmtp

import (
	"context"
	"time"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

const (
	maintenanceRetry = 10 * time.Second
	scrubDelay       = 2 * time.Second
)

// startWorkers runs what has to be done from time to time. The workers end with
// the client.
func (c *Client) startWorkers() {
	c.workers.Go(func() { c.maintain(c.closing) })
	c.workers.Go(func() { c.flush(c.closing) })
	c.workers.Go(func() { c.tidy(c.closing) })
}

// maintain rotates key packages.
func (c *Client) maintain(ctx context.Context) {
	for {
		news := c.news.wait() // a welcome makes a rotation due
		wait, err := c.maintainKeyPackages(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.options.logger.Warn("key package maintenance", "error", err)
			wait = maintenanceRetry
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-news:
			timer.Stop()
			// Not at every message.
			if sleep(ctx, rotationDelay/5) != nil {
				return
			}
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// flush publishes what an earlier run has left in the outbox.
func (c *Client) flush(ctx context.Context) {
	var ids [][]byte
	err := c.db.View(func(tx *store.Tx) (err error) {
		ids, err = tx.PendingGroups()
		return err
	})
	if err != nil {
		c.options.logger.Warn("reading the outbox", "error", err)
		return
	}
	for _, id := range ids {
		if err := c.groups.get(id).settleAll(ctx); err != nil && ctx.Err() == nil {
			c.options.logger.Info("publishing what was left", "error", err)
		}
	}
}

// tidy empties the database's log a while after something was written, because
// spent keys stand in it.
func (c *Client) tidy(ctx context.Context) {
	for {
		news := c.news.wait()
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
		if sleep(ctx, scrubDelay) != nil {
			return
		}
		if err := c.db.Scrub(); err != nil && ctx.Err() == nil {
			c.options.logger.Warn("tidying the database", "error", err)
		}
	}
}
