package xmtp

import (
	"errors"
	"fmt"
	"sync"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// ErrStreamInUse is returned by a loop over a durable stream if another loop over the
// same is under way: each would take away from the other.
var ErrStreamInUse = errors.New("a durable stream of that name is open already")

var errNoStreamName = errors.New("the name of a durable stream is empty")

// Durable lets a stream of messages or conversations go on where it was left, also
// after a restart: its place is kept in the database under the name. A name that is used
// for the first time begins with what arrives after the call, or with what is stored
// if [FromStart] is given. What arrives while nobody streams is yielded later.
//
// The place moves on when the loop's body has come to its end, also by break or
// return, and that is on disk before the next message is yielded. A program that
// crashes or panics in the body gets that one message again, and only that; so does one
// that closes the client there. What options leave out is left out for good.
//
// A name stands for one place in all messages, one in those of each conversation, and one in
// conversations; they don't disturb each other. One loop at a time can be at each of
// them, see [ErrStreamInUse].
func Durable(name string) StreamOption {
	return func(o *streamOptions) { o.durable, o.name = true, name }
}

// DurableStreams returns the names that were given to [Durable] and not forgotten.
func (c *Client) DurableStreams() ([]string, error) {
	var names []string
	err := c.db.View(func(tx *store.Tx) (err error) {
		names, err = tx.StreamNames()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("xmtp: durable streams: %w", err)
	}
	return names, nil
}

// ForgetDurable forgets all places of a name, which can then be used as if for the
// first time. It is [ErrStreamInUse] while a loop is at one of them.
func (c *Client) ForgetDurable(name string) error {
	c.durables.mu.Lock()
	defer c.durables.mu.Unlock()
	for at := range c.durables.open {
		if at.name == name {
			return fmt.Errorf("xmtp: forgetting stream %q: %w", name, ErrStreamInUse)
		}
	}
	if err := c.db.Update(func(tx *store.Tx) error { return tx.DeletePositions(name) }); err != nil {
		return fmt.Errorf("xmtp: forgetting stream %q: %w", name, err)
	}
	return nil
}

// durables are the durable streams that are open.
type durables struct {
	mu   sync.Mutex
	open map[durable]bool
}

type durable struct{ name, scope string }

// streamPlace is where a stream is: everything up to at was handled or left out.
type streamPlace struct {
	client *Client
	durable
	at   int64
	kept int64 // what is in the database, if it is durable
}

// beginning returns where a stream begins that is asked for now.
func (c *Client) beginning(scope string, last func(*store.Tx) (int64, error), o streamOptions) (streamPlace, error) {
	p := streamPlace{client: c}
	if o.durable {
		if p.durable = (durable{o.name, scope}); o.name == "" {
			return p, errNoStreamName
		}
	}
	known := false
	err := c.db.View(func(tx *store.Tx) (err error) {
		if o.durable {
			if _, known, err = tx.Position(p.name, scope); known || err != nil {
				return err
			}
		}
		if !o.fromStart {
			p.at, err = last(tx)
		}
		return err
	})
	if err == nil && o.durable && !known {
		err = c.db.Update(func(tx *store.Tx) error { return tx.SetPosition(p.name, scope, p.at) })
	}
	return p, err
}

// enter begins a loop. It must be followed by leave.
func (p streamPlace) enter() (*streamPlace, error) {
	if p.name == "" {
		return &p, nil
	}
	d := &p.client.durables
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[p.durable] {
		return nil, fmt.Errorf("%w: %q", ErrStreamInUse, p.name)
	}
	err := p.client.db.View(func(tx *store.Tx) error {
		// If it was forgotten since, it begins where it did.
		kept, found, err := tx.Position(p.name, p.scope)
		if found {
			p.at, p.kept = kept, kept
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if d.open == nil {
		d.open = map[durable]bool{}
	}
	d.open[p.durable] = true
	return &p, nil
}

// handled moves on, durably if that is wanted.
func (p *streamPlace) handled(at int64) error {
	p.at = at
	return p.keep()
}

func (p *streamPlace) keep() error {
	if p.name == "" || p.at == p.kept {
		return nil
	}
	err := p.client.db.Update(func(tx *store.Tx) error { return tx.SetPosition(p.name, p.scope, p.at) })
	if err == nil {
		p.kept = p.at
	}
	return err
}

// leave ends a loop.
func (p *streamPlace) leave() {
	if p.name == "" {
		return
	}
	// If this fails, what was left out is looked at once more.
	_ = p.keep()
	d := &p.client.durables
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, p.durable)
}
