package xmtp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// When key packages are replaced, and for how long the private keys of an older
// one are kept for welcomes that are on their way.
const (
	rotationPeriod = 30 * 24 * time.Hour
	rotationDelay  = 5 * time.Second // after a welcome has used it
	keepReplaced   = 24 * time.Hour

	manyKeyPackages = 20 // in the time for which they are kept; then
	rotationFlooded = 10 * time.Minute
	rotationShare   = keepReplaced / manyKeyPackages
)

// rotateKeyPackage uploads a new key package. One that was made but perhaps not
// uploaded is uploaded first, unless it has lost too much of its life meanwhile.
func (c *Client) rotateKeyPackage(ctx context.Context) error {
	var row int64
	var public []byte
	err := c.db.Update(func(tx *store.Tx) error {
		newest, found, err := tx.NewestKeyPackage()
		if err != nil {
			return err
		}
		if found && !newest.Uploaded && c.now()-newest.Created < int64(keepReplaced) {
			kp, err := protocol.UnmarshalKeyPackage(newest.Package)
			if err != nil {
				return err
			}
			row, public = newest.Row, kp.Public()
			return nil
		}
		kp, err := protocol.NewKeyPackage(c.inboxID, c.signer, c.options.now())
		if err != nil {
			return err
		}
		private, err := kp.MarshalBinary()
		if err != nil {
			return err
		}
		defer clear(private)
		public = kp.Public()
		row, err = tx.AddKeyPackage(store.KeyPackage{Package: private, Keys: kp.WelcomeKeys(), Created: c.now()})
		return err
	})
	if err != nil {
		return fmt.Errorf("making a key package: %w", err)
	}
	_, err = c.node.MLS.UploadKeyPackage(ctx, &mlsapi.UploadKeyPackageRequest{
		KeyPackage:          &mlsapi.KeyPackageUpload{KeyPackageTlsSerialized: public},
		IsInboxIdCredential: true,
	})
	if err != nil {
		return fmt.Errorf("uploading a key package: %w", err)
	}
	now := c.now()
	// If that is lost, the same is uploaded again.
	return c.db.UpdateLazily(func(tx *store.Tx) error {
		rotated, err := tx.Number(numberRotated)
		return errors.Join(
			err,
			tx.SetNumber(numberRotated, min(max(rotated, now)+int64(rotationShare), now+int64(keepReplaced))),
			tx.MarkUploaded(row, now+int64(keepReplaced)),
			tx.SetNumber(numberRotation, now+int64(rotationPeriod)),
		)
	})
}

// rotateSoon makes the next rotation due shortly, because a welcome has used the
// key package. Further welcomes don't put it off. Who is flooded with them rotates
// less often, as each key package is kept for a day.
func (c *Client) rotateSoon(tx *store.Tx) error {
	due, err := tx.Number(numberRotation)
	if err != nil {
		return err
	}
	delay := rotationDelay
	if n, err := tx.Number(numberRotated); err != nil {
		return err
	} else if n-c.now() >= int64(keepReplaced-rotationShare) {
		delay = rotationFlooded
	}
	return tx.SetNumber(numberRotation, min(due, c.now()+int64(delay)))
}

// suspectPackage notes a key package that nobody would take for the installation's own.
// One that isn't there, is out of date, or of a client that can't take part, is no
// reason to.
func (c *Client) suspectPackage(of protocol.Actor, served []byte, reason error) {
	if len(served) == 0 || errors.Is(reason, mls.ErrLifetime) || errors.Is(reason, protocol.ErrCapabilities) {
		return
	}
	c.alert(WrongKeyPackage{of.InboxID, of.Installation.String(), reason.Error()}, true, evidence{served, true})
}

// maintainKeyPackages rotates if it is time, deletes what is out of date, and
// returns how long nothing is to be done.
func (c *Client) maintainKeyPackages(ctx context.Context) (time.Duration, error) {
	var due int64
	err := c.db.Update(func(tx *store.Tx) (err error) {
		if err := tx.DeleteKeyPackages(c.now()); err != nil {
			return err
		}
		due, err = tx.Number(numberRotation)
		return err
	})
	if err != nil {
		return 0, err
	}
	if wait := due - c.now(); wait > 0 {
		return time.Duration(wait), nil
	}
	return keepReplaced, c.rotateKeyPackage(ctx)
}

// fetchKeyPackages gets the key packages of installations, as far as they can be
// used, and the reasons why the others can't.
func (c *Client) fetchKeyPackages(ctx context.Context, of []protocol.Actor) (map[identity.Identifier]*identity.KeyPackageInfo, map[identity.Identifier]error, error) {
	packages := make(map[identity.Identifier]*identity.KeyPackageInfo, len(of))
	reasons := map[identity.Identifier]error{}
	request := &mlsapi.FetchKeyPackagesRequest{}
	var asked []protocol.Actor
	for _, a := range of {
		if a.Installation != c.installation {
			request.InstallationKeys = append(request.InstallationKeys, a.Installation.Bytes())
			asked = append(asked, a)
		}
	}
	if len(asked) == 0 {
		return packages, reasons, nil
	}
	response, err := c.node.MLS.FetchKeyPackages(ctx, request)
	if err != nil {
		return nil, nil, fmt.Errorf("fetching key packages: %w", err)
	}
	if len(response.KeyPackages) != len(asked) {
		return nil, nil, c.wrongAnswer(callPackages, "%d for %d installations", len(response.KeyPackages), len(asked))
	}
	now := c.options.now()
	infos, errs := make([]*identity.KeyPackageInfo, len(asked)), make([]error, len(asked))
	inParallel(len(asked), func(i int) {
		encoded := response.KeyPackages[i].GetKeyPackageTlsSerialized()
		if len(encoded) == 0 {
			errs[i] = ErrNoKeyPackage
			return
		}
		infos[i], errs[i] = protocol.CheckKeyPackage(encoded, asked[i], now)
	})
	for i, a := range asked {
		if errs[i] != nil {
			c.suspectPackage(a, response.KeyPackages[i].GetKeyPackageTlsSerialized(), errs[i])
			reasons[a.Installation] = errs[i]
		} else {
			packages[a.Installation] = infos[i]
		}
	}
	for id, reason := range reasons {
		c.options.logger.Info("installation without a usable key package", "installation", id, "reason", reason)
	}
	return packages, reasons, nil
}
