package node

import (
	"errors"
	"time"

	"github.com/go-xmtp/go-xmtp/node/internal/retention"
)

// DefaultKeepWelcomes is how long welcomes are kept if messages are not kept for ever.
const DefaultKeepWelcomes = 90 * 24 * time.Hour

// Forever keeps what [Retention] would otherwise remove.
const Forever time.Duration = -1

// Retention is how long a node keeps what members have long fetched. Commits,
// proposals, the commit log, the identity log and newest key packages are kept
// for ever. The zero value keeps everything.
type Retention struct {
	// Messages is the age to which application messages are kept; zero and
	// [Forever] are for ever.
	Messages time.Duration
	// Welcomes is the age to which welcomes are kept. Zero is
	// [DefaultKeepWelcomes] if Messages has an age, and else for ever.
	Welcomes time.Duration
}

func (r *Retention) complete() error {
	if r.Welcomes == 0 && r.Messages > 0 {
		r.Welcomes = DefaultKeepWelcomes
	}
	if r.Messages < Forever || r.Welcomes < Forever {
		return errors.New("node: records can't be kept for less than no time")
	}
	return nil
}

// Removed is what a node has removed since it was started.
type Removed struct {
	Messages, Welcomes uint64
	Bytes              uint64 // of both, without what the store adds
}

// Removed returns what [Retention] has removed up to now.
func (n *Node) Removed() Removed { return Removed(n.pruner.Removed()) }

// LimitsHit returns how often each of the [Limits] was hit, by names that don't change.
func (n *Node) LimitsHit() map[string]uint64 { return n.limiter.Refused() }

func (n *Node) startPruner() *retention.Pruner {
	return retention.Start(retention.Config{
		Index:    n.index,
		Messages: n.options.Retention.Messages,
		Welcomes: n.options.Retention.Welcomes,
		Now:      n.options.Now,
		Logger:   n.options.Logger,
	})
}
