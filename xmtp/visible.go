package xmtp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/network"
)

// ErrNotVisible is returned if the node took a registration but does not show it.
var ErrNotVisible = errors.New("the registration is not visible")

// WithRegistrationWait lets [NewClient] wait, when it has registered the client, until
// the node shows the registration: see [Client.WaitRegistered]. If it doesn't within
// that time, NewClient fails with [ErrNotVisible]; the next one goes on from there.
// Official clients, if they wait, wait 30 s.
func WithRegistrationWait(atMost time.Duration) Option {
	return func(o *options) error {
		if atMost <= 0 {
			return fmt.Errorf("a wait of %v for the registration", atMost)
		}
		o.visible = atMost
		return nil
	}
}

// How often to look whether a registration is visible: less and less.
const (
	visibleRetryMin = 50 * time.Millisecond
	visibleRetryMax = 2 * time.Second
)

// WaitRegistered returns when the node shows everybody that the inbox has this
// installation, and its key package, so that others can reach it. With a node of
// several processes that may take a moment. The error is [ErrNotVisible], with ctx's
// and the last reason, if ctx ends before.
func (c *Client) WaitRegistered(ctx context.Context) error {
	delay := visibleRetryMin
	for {
		err := c.seeRegistration(ctx)
		if err == nil {
			return nil
		}
		if sleep(ctx, network.Jitter(delay)) != nil {
			return fmt.Errorf("xmtp: %w: %w", ErrNotVisible, errors.Join(err, ctx.Err()))
		}
		delay = min(2*delay, visibleRetryMax)
	}
}

// seeRegistration looks at ourselves as others do.
func (c *Client) seeRegistration(ctx context.Context) error {
	if err := c.inboxes.refresh(ctx, c.inboxID); err != nil {
		return err
	}
	if listed, err := c.listed(); err != nil || !listed {
		return errors.Join(err, errors.New("the inbox doesn't list the installation"))
	}
	response, err := c.node.MLS.FetchKeyPackages(ctx, &mlsapi.FetchKeyPackagesRequest{InstallationKeys: [][]byte{c.installation.Bytes()}})
	if err != nil {
		return fmt.Errorf("fetching our key package: %w", err)
	}
	if len(response.KeyPackages) != 1 || len(response.KeyPackages[0].GetKeyPackageTlsSerialized()) == 0 {
		return ErrNoKeyPackage
	}
	own := protocol.Actor{InboxID: c.inboxID, Installation: c.installation}
	_, err = protocol.CheckKeyPackage(response.KeyPackages[0].KeyPackageTlsSerialized, own, c.options.now())
	return err
}

// listed tells whether the inbox, as far as it is known, has this installation.
func (c *Client) listed() (bool, error) {
	log, err := c.inboxes.known(c.inboxID)
	if err != nil {
		return false, err
	}
	state, _ := log.latest()
	if state == nil {
		return false, nil
	}
	_, ok := state.Member(c.installation)
	return ok, nil
}

// waitVisible waits for the registration if that is wanted.
func (c *Client) waitVisible(ctx context.Context) error {
	if c.options.visible == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.visible)
	defer cancel()
	return c.WaitRegistered(ctx)
}
