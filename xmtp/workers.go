package xmtp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

const (
	maintenanceRetry = 10 * time.Second
	scrubDelay       = 2 * time.Second
	letGoDelay       = 2 * time.Second
	flushPeriod      = 30 * time.Second
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

// flush publishes what an earlier run has left in the outbox, or a call could not
// publish, lets members go who want to leave, and adds those who could not be
// added.
func (c *Client) flush(ctx context.Context) {
	again := time.NewTicker(flushPeriod)
	defer again.Stop()
	for all := true; ; {
		news := c.news.wait()
		err := c.letGo(ctx)
		if all {
			err = errors.Join(err, c.publishLeft(ctx), c.retryAwaited(ctx))
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.options.logger.Info("publishing in the background", "error", err)
		}
		all = false
		select {
		case <-news:
			// Not at every message.
			if sleep(ctx, letGoDelay) != nil {
				return
			}
		case <-again.C:
			all = true
		case <-ctx.Done():
			return
		}
	}
}

// publishLeft publishes what is in outboxes.
func (c *Client) publishLeft(ctx context.Context) error {
	var ids [][]byte
	err := c.db.View(func(tx *store.Tx) (err error) {
		ids, err = tx.PendingGroups()
		return err
	})
	if err != nil {
		return fmt.Errorf("reading the outbox: %w", err)
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, c.groups.get(id).settleAll(ctx))
	}
	return errors.Join(errs...)
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
