package xmtp

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// register makes sure that the inbox exists and lists this installation. It can
// be cut short at any point: the next time it looks what has come of it.
func (c *Client) register(ctx context.Context, wallet Signer) error {
	registered, err := c.registered()
	if err != nil || registered {
		return err
	}
	owner, err := parseIdentifier(c.address)
	if err != nil {
		return fmt.Errorf("xmtp: %w", err)
	}
	inboxID, exists, err := c.findOrDerive(ctx, owner)
	if err != nil {
		return fmt.Errorf("xmtp: registering: %w", err)
	}
	if c.inboxID != "" && c.inboxID != inboxID {
		return fmt.Errorf("xmtp: registering: the wallet has come to belong to inbox %s, this database is of %s", inboxID, c.inboxID)
	}
	err = c.db.UpdateLazily(func(tx *store.Tx) error { return tx.SetMeta(metaInbox, []byte(inboxID)) })
	if err != nil {
		return fmt.Errorf("xmtp: registering: %w", err)
	}
	c.inboxID = inboxID
	err = c.join(ctx, wallet, owner, exists)
	if err == nil {
		err = c.waitVisible(ctx)
	}
	if err != nil {
		return fmt.Errorf("xmtp: registering: %w", err)
	}
	err = c.db.Update(func(tx *store.Tx) error { return tx.SetNumber(numberRegistered, 1) })
	if err != nil {
		return fmt.Errorf("xmtp: registering: %w", err)
	}
	return nil
}

func (c *Client) registered() (registered bool, err error) {
	err = c.db.View(func(tx *store.Tx) error {
		n, err := tx.Number(numberRegistered)
		registered = n == 1
		return err
	})
	if err != nil {
		return false, fmt.Errorf("xmtp: %w", err)
	}
	return registered, nil
}

// findOrDerive returns the inbox that the wallet belongs to, or the one that it
// will create, and brings in what there is of it.
func (c *Client) findOrDerive(ctx context.Context, owner identity.Identifier) (inboxID string, exists bool, err error) {
	derived, err := identity.DeriveInboxID(owner, c.options.nonce)
	if err != nil {
		return "", false, err
	}
	var found map[identity.Identifier]string
	group, both := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		found, err = c.inboxes.lookUp(both, owner)
		return err
	})
	// Mostly it is this one; else nothing but a call is lost.
	var invalid error
	group.Go(func() error {
		err := c.inboxes.refresh(both, derived)
		if errors.Is(err, ErrInvalidInbox) {
			invalid, err = err, nil
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return "", false, err
	}
	switch id := found[owner]; id {
	case "":
		return derived, false, invalid
	case derived:
		if invalid != nil {
			return id, true, invalid
		}
	default:
		if err := c.inboxes.refresh(ctx, id); err != nil {
			return id, true, err
		}
	}
	return found[owner], true, c.inboxes.confirm(ctx, found)
}

// join adds the installation to the inbox, and creates that if it doesn't exist.
func (c *Client) join(ctx context.Context, wallet Signer, owner identity.Identifier, exists bool) error {
	log, err := c.inboxes.known(c.inboxID)
	if err != nil {
		return err
	}
	state, _ := log.latest()
	if state == nil && exists {
		return fmt.Errorf("the node knows inbox %s but none of its updates", c.inboxID)
	}
	var actions []identity.Action
	if state == nil {
		actions = append(actions, identity.CreateInbox(owner, c.options.nonce))
	} else {
		if _, ok := state.Member(c.installation); ok {
			return nil // published by an earlier attempt
		}
		if actions, err = c.makeRoom(log, owner); err != nil {
			return err
		}
	}
	actions = append(actions, identity.AddMember(owner, c.installation))
	request, err := identity.NewSignatureRequest(c.inboxID, c.options.now(), actions...)
	if err != nil {
		return err
	}
	if err := request.AddSignature(ctx, identity.SignInstallation(c.key, request.Text()), c.node); err != nil {
		return err
	}
	if err := signWith(ctx, wallet, request, c.node); err != nil {
		return err
	}
	update, err := request.Update()
	if err != nil {
		return err
	}
	// Who finds the installation in the inbox must find its key package, too.
	if err := c.rotateKeyPackage(ctx); err != nil {
		return err
	}
	_, err = c.node.Identity.PublishIdentityUpdate(ctx, &identityapi.PublishIdentityUpdateRequest{IdentityUpdate: update})
	published := err
	if err := c.inboxes.fetch(ctx, (*store.DB).UpdateLazily, []string{c.inboxID}); err != nil {
		return errors.Join(published, err)
	}
	listed, err := c.listed()
	if err != nil || listed {
		return err // whatever the answer was
	}
	if published != nil {
		return fmt.Errorf("publishing the identity update: %w", published)
	}
	if c.options.visible > 0 {
		return nil // it is waited for
	}
	return fmt.Errorf("%w: the node took the identity update", ErrNotVisible)
}
