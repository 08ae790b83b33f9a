package identity

import (
	"context"
	"fmt"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// Replay verifies and folds a whole log, oldest update first, and returns the
// state it leads to. The first error condemns the log; if it is
// [ErrVerifierUnavailable], replaying can be tried again. An empty log is
// [ErrMissingIdentityUpdate].
//
// The result says what the log says, whosever log it is: see [ReplayInbox].
func Replay(ctx context.Context, log []*associations.IdentityUpdate, cv ContractVerifier) (*State, error) {
	if len(log) == 0 {
		return nil, ErrMissingIdentityUpdate
	}
	var state *State
	for _, u := range log {
		v, err := Verify(ctx, u, cv)
		if err != nil {
			return nil, err
		}
		if state, err = state.Apply(v); err != nil {
			return nil, err
		}
	}
	return state, nil
}

// ReplayInbox is [Replay] for a log that somebody else served as that of
// inboxID. A log that is not gives [ErrForeignLog]; the reference does not
// look.
func ReplayInbox(ctx context.Context, inboxID string, log []*associations.IdentityUpdate, cv ContractVerifier) (*State, error) {
	state, err := Replay(ctx, log, cv)
	if err != nil {
		return nil, err
	}
	if state.inboxID != inboxID {
		return nil, fmt.Errorf("%w: asked for %s, got %s", ErrForeignLog, inboxID, state.inboxID)
	}
	return state, nil
}
