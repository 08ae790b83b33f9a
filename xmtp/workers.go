package xmtp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/network"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// A Worker is something that a client does in the background, from when it is
// opened until it is closed. What a worker can't do because the node is out of
// reach it tries again, less and less often. See [WithoutWorkers].
type Worker int

// The workers.
const (
	// WorkerOutbox publishes what [Conversation.SendOptimistic] has left, and what a
	// call, or an earlier run, could not.
	WorkerOutbox Worker = iota
	// WorkerLeaves removes from groups those who want to leave, where we may.
	WorkerLeaves
	// WorkerAwaited adds to groups those who could not be added before.
	WorkerAwaited
	// WorkerKeyPackages replaces the key package by which others add this
	// installation: every 30 days, and seconds after a welcome has used it. The keys
	// of an older one are deleted a day later.
	WorkerKeyPackages
	// WorkerSelfUpdate renews our keys in conversations as [SelfUpdatePolicy] says.
	WorkerSelfUpdate
	// WorkerExpiry deletes messages whose time has come.
	WorkerExpiry
	// WorkerCommitLog tells other clients what commits have led to, and compares: see
	// [Conversation.Fork].
	WorkerCommitLog
	// WorkerDevices makes a new installation known to the others of its inbox, which
	// let it into the conversations that they are in.
	WorkerDevices
	// WorkerScrub empties the database's log, in which spent keys stand. After a minute
	// or two in which the database is not used it closes the files, which are opened
	// again when they are needed: so an idle client takes little memory.
	WorkerScrub

	workerCount
)

// forever is how long a worker waits that only news can give something to do.
const forever = time.Duration(-1)

// chore is what a worker does again and again.
type chore struct {
	name string
	// do does what is due. It returns how long nothing will be, as far as is known.
	do func(context.Context) (time.Duration, error)
	// calm is how long to wait after news, so as not to act on every message; 0 to
	// not care for news.
	calm time.Duration
	// soon, if not nil, brings a token when there is something to do at once.
	soon <-chan struct{}
}

// chores are those of all workers.
func (c *Client) chores() [workerCount]chore {
	return [workerCount]chore{
		WorkerOutbox:      {"publishing", c.publishLeft, 2 * time.Second, c.unsent},
		WorkerLeaves:      {"letting members go", c.letGo, 2 * time.Second, nil},
		WorkerAwaited:     {"adding members", c.retryAwaited, 2 * time.Second, nil},
		WorkerKeyPackages: {"key packages", c.maintainKeyPackages, time.Second, nil},
		WorkerSelfUpdate:  {"renewing keys", c.updateKeys, time.Minute, nil},
		WorkerExpiry:      {"deleting expired messages", c.deleteExpired, time.Second, nil},
		WorkerCommitLog:   {"comparing commit logs", c.compareCommitLogs, 0, nil},
		WorkerDevices:     {"meeting other devices", c.introduce, 0, nil},
		WorkerScrub:       {"tidying the database", c.scrub, 2 * time.Second, nil},
	}
}

// startWorkers runs the workers that are not switched off. They end with the client.
func (c *Client) startWorkers() {
	for w, chore := range c.chores() {
		if !c.options.off[w] {
			c.workers.Go(func() { c.attend(c.closing, chore) })
		}
	}
}

// How long to wait after a failure: twice as long each time. And the longest wait
// for a time that comes, since clocks are set and computers sleep.
const (
	choreRetryMin = time.Second
	choreRetryMax = time.Minute
	choreWaitMax  = time.Hour
)

// attend does a chore whenever it is due, until ctx ends.
func (c *Client) attend(ctx context.Context, work chore) {
	for delay := choreRetryMin; ; {
		news := c.news.wait()
		wait, err := work.do(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			delay = choreRetryMin
		} else {
			c.options.logger.Info("background work failed", "work", work.name, "error", err, "again in", delay)
			wait, news = network.Jitter(delay), nil
			if limit, ok := errors.AsType[*RateLimitError](err); ok {
				wait = max(wait, limit.RetryAfter)
			}
			delay = min(2*delay, choreRetryMax)
		}
		if work.calm == 0 {
			news = nil
		}
		var due <-chan time.Time
		if wait != forever {
			due = time.After(min(wait, choreWaitMax))
		}
		select {
		case <-due:
		case <-work.soon:
		case <-news:
			select {
			case <-time.After(work.calm):
			case <-work.soon:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Upkeep does at once what the workers do in the background, whether they are
// switched off or not. It is for programs that run only now and then, and for those
// that want to choose the moment. One part that fails doesn't keep the others from
// being done; the error tells of all.
func (c *Client) Upkeep(ctx context.Context) error {
	var errs []error
	for _, work := range c.chores() {
		if _, err := work.do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", work.name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("xmtp: upkeep: %w", err)
	}
	return nil
}

// publishLeft publishes what is in outboxes.
func (c *Client) publishLeft(ctx context.Context) (time.Duration, error) {
	var ids [][]byte
	err := c.db.View(func(tx *store.Tx) (err error) {
		ids, err = tx.PendingGroups()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reading the outbox: %w", err)
	}
	var errs []error
	for _, id := range ids {
		if err := c.groups.get(id).push(ctx); err != nil && !errors.Is(err, ErrPaused) && !errors.Is(err, ErrStateRolledBack) {
			errs = append(errs, err)
		}
	}
	return forever, errors.Join(errs...)
}

// push works until the group's outbox is empty, for nobody in particular: who waits
// for an intent learns himself what has become of it.
func (g *group) push(ctx context.Context) error {
	if err := g.acquire(ctx); err != nil {
		return err
	}
	defer g.release()
	for {
		before, err := g.progress()
		if err != nil || len(before) == 0 {
			return err
		}
		if done, err := g.advance(ctx, before); err != nil || done {
			return err
		}
	}
}

// restAfter is how long a database is not used before it is let rest, and how often
// that is looked at.
const restAfter = time.Minute

// scrub empties the database's log, and lets a database rest that isn't used.
func (c *Client) scrub(context.Context) (time.Duration, error) {
	return restAfter, errors.Join(c.groups.unreserve(), c.db.Scrub(), c.db.Rest())
}
