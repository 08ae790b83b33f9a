package xmtp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/network"
)

// CanMessage tells, of each Ethereum address or passkey (public key in hex),
// whether it has an inbox, by its canonical form: in lower case. Whether anything
// would arrive there tells [Client.Reach].
func (c *Client) CanMessage(ctx context.Context, identifiers ...string) (map[string]bool, error) {
	return canMessage(ctx, c.inboxes, identifiers)
}

func canMessage(ctx context.Context, x *inboxes, identifiers []string) (map[string]bool, error) {
	found, err := inboxIDs(ctx, x, identifiers)
	if err != nil {
		return nil, err
	}
	can := make(map[string]bool, len(identifiers))
	for _, s := range identifiers {
		id, err := parseIdentifier(s)
		if err != nil {
			return nil, fmt.Errorf("xmtp: %w", err)
		}
		_, can[id.String()] = found[id.String()]
	}
	return can, nil
}

// CanMessage is [Client.CanMessage] without a client.
func CanMessage(ctx context.Context, identifiers []string, list ...Option) (map[string]bool, error) {
	return without(list, func(x *inboxes, _ *options) (map[string]bool, error) {
		return canMessage(ctx, x, identifiers)
	})
}

// KeyPackageStatus is what the node has of an installation for those who want to
// add it to a conversation.
type KeyPackageStatus struct {
	InstallationID string
	// NotBefore and NotAfter are the lifetime, to the second; zero if there is no
	// key package that can be read.
	NotBefore, NotAfter time.Time
	// Err is why the installation can't be added; nil if it can. It is
	// [ErrNoKeyPackage], an error of package identity, or one of package protocol.
	Err error
}

// KeyPackageStatuses returns the status of installations' key packages, in the
// order of the ids. One that is out of date has [mls.ErrLifetime] in its error.
func (c *Client) KeyPackageStatuses(ctx context.Context, installationIDs ...string) ([]KeyPackageStatus, error) {
	return keyPackageStatuses(ctx, c.node, c.options.now(), installationIDs)
}

// KeyPackageStatuses is [Client.KeyPackageStatuses] without a client.
func KeyPackageStatuses(ctx context.Context, installationIDs []string, list ...Option) ([]KeyPackageStatus, error) {
	return without(list, func(x *inboxes, o *options) ([]KeyPackageStatus, error) {
		return keyPackageStatuses(ctx, x.node, o.now(), installationIDs)
	})
}

func keyPackageStatuses(ctx context.Context, node *network.Node, now time.Time, installationIDs []string) ([]KeyPackageStatus, error) {
	asked := make([]protocol.Actor, len(installationIDs))
	for i, id := range installationIDs {
		key, err := hex.DecodeString(id)
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("xmtp: key package statuses: %.70q is no installation id", id)
		}
		asked[i].Installation = identity.Installation(key)
	}
	statuses, err := keyPackagesOf(ctx, nil, node, asked, func(encoded []byte, of protocol.Actor) error {
		info, err := identity.VerifyKeyPackage(encoded, now)
		if err == nil && identity.Installation(info.InstallationKey[:]) != of.Installation {
			err = protocol.ErrForeignKeyPackage
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("xmtp: key package statuses: %w", err)
	}
	return statuses, nil
}

// keyPackagesOf fetches and judges key packages.
func keyPackagesOf(ctx context.Context, c *Client, node *network.Node, of []protocol.Actor, judge func([]byte, protocol.Actor) error) ([]KeyPackageStatus, error) {
	statuses := make([]KeyPackageStatus, len(of))
	if len(of) == 0 {
		return statuses, nil
	}
	request := &mlsapi.FetchKeyPackagesRequest{}
	for i, a := range of {
		statuses[i].InstallationID = a.Installation.String()
		request.InstallationKeys = append(request.InstallationKeys, a.Installation.Bytes())
	}
	response, err := node.MLS.FetchKeyPackages(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("fetching key packages: %w", err)
	}
	if len(response.KeyPackages) != len(of) {
		return nil, c.wrongAnswer(callPackages, "%d for %d installations", len(response.KeyPackages), len(of))
	}
	for i, a := range of {
		encoded := response.KeyPackages[i].GetKeyPackageTlsSerialized()
		if len(encoded) == 0 {
			statuses[i].Err = ErrNoKeyPackage
			continue
		}
		if kp, err := mls.UnmarshalKeyPackage(encoded); err == nil && kp.Lifetime() != (mls.Lifetime{}) {
			const far = 1 << 40 // seconds; what is beyond is no time
			statuses[i].NotBefore = time.Unix(int64(min(kp.Lifetime().NotBefore, far)), 0)
			statuses[i].NotAfter = time.Unix(int64(min(kp.Lifetime().NotAfter, far)), 0)
		}
		statuses[i].Err = judge(encoded, a)
	}
	return statuses, nil
}

// Reach tells whether what is sent to a user would arrive.
type Reach struct {
	// User is as asked for, InboxID empty if there is none.
	User, InboxID string
	// Installations are the user's devices.
	Installations []KeyPackageStatus
	// Err is nil if there is a device that can be added to a conversation. Else it is
	// [ErrNoInbox], [ErrWrongInbox], [ErrInvalidInbox], [ErrNoInstallation], or what is
	// wrong with all of the devices.
	Err error
}

// Reach tells of users, given by inbox ids, Ethereum addresses or passkeys (public
// keys in hex), in their order, whether anything would arrive: whether there is
// an inbox, and an installation with a key package by which it can be added to a
// conversation.
func (c *Client) Reach(ctx context.Context, users ...string) ([]Reach, error) {
	reaches, err := c.reach(ctx, users)
	if err != nil {
		return nil, fmt.Errorf("xmtp: reach: %w", err)
	}
	return reaches, nil
}

func (c *Client) reach(ctx context.Context, users []string) ([]Reach, error) {
	reaches := make([]Reach, len(users))
	var asked []identity.Identifier
	by := map[int]identity.Identifier{}
	for i, user := range users {
		reaches[i].User = user
		if identity.CheckInboxID(user) == nil {
			reaches[i].InboxID = user
			continue
		}
		id, err := parseIdentifier(user)
		if err != nil {
			return nil, fmt.Errorf("%.140q is neither an inbox id nor an address or passkey", user)
		}
		asked, by[i] = append(asked, id), id
	}
	found, err := c.inboxes.lookUp(ctx, asked...)
	if err != nil {
		return nil, err
	}
	var at []protocol.Position
	for i := range reaches {
		r := &reaches[i]
		if r.InboxID == "" {
			r.InboxID, asked = found[asked[0]], asked[1:]
		}
		if r.InboxID != "" {
			at = append(at, protocol.Position{InboxID: r.InboxID, SequenceID: protocol.Latest})
		}
	}
	states, err := c.inboxes.InboxStates(ctx, at)
	if err != nil {
		return nil, err
	}
	var devices []protocol.Actor
	for i := range reaches {
		r := &reaches[i]
		if r.InboxID == "" {
			r.Err = ErrNoInbox
			continue
		}
		s := states[0]
		states = states[1:]
		if id, given := by[i]; given && s.Err == nil && s.State != nil {
			if r.Err = c.inboxes.confirm(ctx, map[identity.Identifier]string{id: r.InboxID}); r.Err != nil {
				continue
			}
		}
		switch {
		case s.Err != nil:
			r.Err = s.Err
		case s.State == nil:
			r.Err = ErrNoInbox
		case len(s.State.Installations()) == 0:
			r.Err = ErrNoInstallation
		default:
			for _, id := range s.State.Installations() {
				r.Installations = append(r.Installations, KeyPackageStatus{InstallationID: id.String()})
				devices = append(devices, protocol.Actor{InboxID: r.InboxID, Installation: id})
			}
		}
	}
	now := c.options.now()
	statuses, err := keyPackagesOf(ctx, c, c.node, devices, func(encoded []byte, of protocol.Actor) error {
		_, err := protocol.CheckKeyPackage(encoded, of, now)
		if err != nil {
			c.suspectPackage(of, encoded, err)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range reaches {
		r := &reaches[i]
		n := copy(r.Installations, statuses)
		statuses = statuses[n:]
		var reasons []error
		for _, s := range r.Installations {
			if s.Err != nil {
				reasons = append(reasons, fmt.Errorf("installation %s: %w", s.InstallationID, s.Err))
			}
		}
		if r.Err == nil && len(reasons) == len(r.Installations) {
			r.Err = errors.Join(reasons...)
		}
	}
	return reaches, nil
}
