package xmtp

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// pointersFrom is how many installations that take pointers it needs for them to
// share a welcome: as many as with the official client.
const pointersFrom = 3

// Limits of requests with welcomes.
const (
	maxWelcomes     = 50 // in one
	welcomeRequests = 4  // at once
)

// wrapWelcomes wraps the welcome of a commit of ours, which the node has given a
// number, for those whom it adds. If some share one, that is the first.
func wrapWelcomes(welcome []byte, staged *mls.StagedCommit, number uint64) (*mlsapi.SendWelcomeMessagesRequest, error) {
	var invited []*identity.KeyPackageInfo
	capable := 0
	for _, p := range staged.Proposals {
		add, ok := p.Proposal.(mls.Add)
		if !ok {
			continue
		}
		info := &identity.KeyPackageInfo{Package: add.KeyPackage}
		invited = append(invited, info)
		if protocol.TakesPointers(info) {
			capable++
		}
	}
	request := &mlsapi.SendWelcomeMessagesRequest{}
	var pointer *protocol.WelcomePointer
	if capable >= pointersFrom {
		shared, p, err := protocol.ShareWelcome(welcome, number)
		if err != nil {
			return nil, err
		}
		request.Messages, pointer = append(request.Messages, shared), p
	}
	wrapped, errs := make([]*mlsapi.WelcomeMessageInput, len(invited)), make([]error, len(invited))
	inParallel(len(invited), func(i int) {
		to := identity.Installation(invited[i].Package.SignatureKey())
		wrapper, err := invited[i].WelcomeWrapper()
		switch {
		case err != nil:
			errs[i] = err
		case pointer != nil && protocol.TakesPointers(invited[i]):
			wrapped[i], errs[i] = pointer.Wrap(to, wrapper)
		default:
			wrapped[i], errs[i] = protocol.WrapWelcome(welcome, number, to, wrapper)
		}
	})
	request.Messages = append(request.Messages, wrapped...)
	return request, errors.Join(errs...)
}

// inRequests splits welcomes into requests that a node takes.
func inRequests(messages []*mlsapi.WelcomeMessageInput) [][]*mlsapi.WelcomeMessageInput {
	var requests [][]*mlsapi.WelcomeMessageInput
	size := 0
	for i, m := range messages {
		n := proto.Size(m)
		if i == 0 || len(requests[len(requests)-1]) == maxWelcomes || size+n > maxBatchBytes {
			requests, size = append(requests, nil), 0
		}
		last := &requests[len(requests)-1]
		*last, size = append(*last, m), size+n
	}
	return requests
}

// welcome sends the welcomes of commits that have been merged.
func (g *group) welcome(ctx context.Context) error {
	var intents []store.Intent
	err := g.client.db.View(func(tx *store.Tx) error {
		states, err := tx.IntentStates(g.id, maxBatchMessages)
		for _, s := range states {
			if s.State != stateCommitted {
				continue
			}
			i, _, readErr := tx.Intent(s.Row)
			intents, err = append(intents, i), errors.Join(err, readErr)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, i := range intents {
		var request mlsapi.SendWelcomeMessagesRequest
		if err := proto.Unmarshal(i.After, &request); err != nil {
			return fmt.Errorf("stored welcomes: %w", err)
		}
		if err := g.sendWelcomes(ctx, request.Messages); err != nil {
			return err
		}
		// Should this be lost, they are sent again, as they are.
		if err := g.client.db.UpdateLazily(func(tx *store.Tx) error { return tx.DeleteIntent(i.Row) }); err != nil {
			return err
		}
	}
	return nil
}

// sendWelcomes sends the first request and then the others, so that a shared
// welcome is there before what leads to it.
func (g *group) sendWelcomes(ctx context.Context, messages []*mlsapi.WelcomeMessageInput) error {
	send := func(ctx context.Context, messages []*mlsapi.WelcomeMessageInput) error {
		if _, err := g.client.node.MLS.SendWelcomeMessages(ctx, &mlsapi.SendWelcomeMessagesRequest{Messages: messages}); err != nil {
			return fmt.Errorf("sending welcomes: %w", err)
		}
		return nil
	}
	requests := inRequests(messages)
	if err := send(ctx, requests[0]); err != nil {
		return err
	}
	others, ctx := errgroup.WithContext(ctx)
	others.SetLimit(welcomeRequests)
	for _, messages := range requests[1:] {
		others.Go(func() error { return send(ctx, messages) })
	}
	return others.Wait()
}
