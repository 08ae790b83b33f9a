package xmtp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// What the node says of inboxes is compared with what it said before: the newest known
// update of a log is asked for once more, now and then, with what comes after it.

// auditPeriod is how often that is done for other inboxes than our own.
const auditPeriod = time.Hour

type servedUpdate = identityapi.GetIdentityUpdatesResponse_IdentityUpdateLog

// after is the number after which to ask for an inbox's updates: that of the newest
// known one, or of the one before it if it is time for an audit.
func (x *inboxes) after(inbox string, log *inboxLog) uint64 {
	n := len(log.numbers)
	switch {
	case n == 0:
		return 0
	case !x.auditDue(inbox):
		return log.numbers[n-1]
	case n == 1:
		return 0
	}
	return log.numbers[n-2]
}

func (x *inboxes) auditDue(inbox string) bool {
	if x.client == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	at, done := x.audited[inbox]
	return inbox == x.client.inboxID || !done || x.client.now()-at >= int64(auditPeriod)
}

// updateHash is by which an update is recognised.
func updateHash(u *associations.IdentityUpdate) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(u)
	if err != nil {
		return nil
	}
	hash := sha256.Sum256(b)
	return hash[:]
}

// audit looks whether what was served after a number begins with the newest known
// update, if that was asked for, and returns what is new.
func (x *inboxes) audit(ctx context.Context, inbox string, log *inboxLog, after uint64, served []*servedUpdate) ([]*servedUpdate, error) {
	_, last := log.latest()
	if x.client != nil && (last == 0 || last > after) {
		x.mu.Lock()
		x.audited[inbox] = x.client.now()
		x.mu.Unlock()
	}
	if last == after {
		return served, nil
	}
	if len(served) > 0 && served[0].SequenceId == last && log.hash != nil && bytes.Equal(updateHash(served[0].Update), log.hash) {
		return served[1:], nil
	}
	if err := x.compare(ctx, inbox, last); err != nil {
		return nil, err
	}
	for len(served) > 0 && served[0].SequenceId <= last {
		served = served[1:]
	}
	return served, nil
}

// compare reads the whole log of an inbox again, and notes where it is not what is
// known up to a number.
func (x *inboxes) compare(ctx context.Context, inbox string, last uint64) error {
	response, err := x.node.Identity.GetIdentityUpdates(ctx, &identityapi.GetIdentityUpdatesRequest{
		Requests: []*identityapi.GetIdentityUpdatesRequest_Request{{InboxId: inbox}},
	})
	if err != nil {
		return fmt.Errorf("getting identity updates: %w", err)
	}
	if len(response.Responses) != 1 || response.Responses[0].InboxId != inbox {
		return x.client.wrongAnswer(callUpdates, "not about inbox %s", inbox)
	}
	served := response.Responses[0].Updates
	var same uint64 // up to here
	var numbers []uint64
	var verified [][]byte
	err = x.db.View(func(tx *store.Tx) error {
		return tx.Query("SELECT number, verified FROM identity_updates WHERE inbox = ? AND number <= ? ORDER BY number", []any{inbox, last}, func(r store.Row) error {
			numbers, verified = append(numbers, r.Uint(0)), append(verified, r.Bytes(1))
			return nil
		})
	})
	if err != nil {
		return err
	}
	for i := 0; i < len(numbers) && len(served) > 0; i++ {
		equal, err := x.isUpdate(ctx, inbox, served[0], numbers[i], verified[i])
		if err != nil {
			return err
		}
		if !equal {
			x.client.alert(IdentityRewritten{inbox, numbers[i]}, true, shown(served[0]))
			return nil
		}
		same, served = numbers[i], served[1:]
	}
	if same < last {
		x.client.alert(IdentityRollback{inbox, last, same}, false, shown(response.Responses[0]))
	}
	return nil
}

// isUpdate tells whether what is served is the update of a number that was verified
// before.
func (x *inboxes) isUpdate(ctx context.Context, inbox string, served *servedUpdate, number uint64, known []byte) (bool, error) {
	if served.SequenceId != number {
		return false, nil
	}
	update, err := verifyUpdate(ctx, inbox, served.Update, x.node)
	if errors.Is(err, identity.ErrVerifierUnavailable) || ctx.Err() != nil {
		return false, fmt.Errorf("inbox %s: %w", inbox, err)
	}
	if err != nil {
		return false, nil
	}
	verified, err := update.MarshalBinary()
	return err == nil && bytes.Equal(verified, known), nil
}

// doubt looks at identifiers that the node knows no inbox of, though they are in one
// that is known. It may be that they were taken out of it.
func (x *inboxes) doubt(ctx context.Context, ids []identity.Identifier, found map[identity.Identifier]string) error {
	if x.client == nil || len(found) == len(ids) {
		return nil
	}
	doubtful := map[identity.Identifier]string{}
	x.mu.Lock()
	for inbox, log := range x.logs {
		state, _ := log.latest()
		for _, id := range ids {
			if _, in := state.Member(id); in && found[id] == "" {
				doubtful[id] = inbox
			}
		}
	}
	x.mu.Unlock()
	for id, inbox := range doubtful {
		has, err := x.has(ctx, inbox, id)
		if err != nil {
			return err
		}
		if has {
			x.client.alert(InboxDenied{id.String(), inbox}, false, evidence{})
		}
	}
	return nil
}

// has tells whether an identifier is in an inbox now.
func (x *inboxes) has(ctx context.Context, inbox string, id identity.Identifier) (bool, error) {
	if err := x.refresh(ctx, inbox); err != nil {
		return false, err
	}
	return x.had(inbox, id)
}

// had tells whether an identifier is in an inbox by what is known of its log.
func (x *inboxes) had(inbox string, id identity.Identifier) (bool, error) {
	log, err := x.known(inbox)
	if err != nil {
		return false, err
	}
	state, _ := log.latest()
	if state == nil {
		return false, nil
	}
	_, in := state.Member(id)
	return in, nil
}

// ErrWrongInbox is returned if the node says that an address or passkey belongs to an
// inbox, by whose log it doesn't. Nothing was sent there. A [WrongInbox] tells of it.
var ErrWrongInbox = errors.New("the address doesn't belong to the inbox that the node names")

// confirm makes sure that identifiers belong to the inboxes that the node names.
func (x *inboxes) confirm(ctx context.Context, found map[identity.Identifier]string) error {
	var unsure []string
	for id, inbox := range found {
		if ok, err := x.had(inbox, id); err != nil {
			return err
		} else if !ok {
			unsure = append(unsure, inbox)
		}
	}
	if len(unsure) == 0 {
		return nil
	}
	// An inbox whose log is not valid is refused by who wants to use it.
	if err := x.refresh(ctx, unsure...); err != nil && !errors.Is(err, ErrInvalidInbox) {
		return err
	}
	for id, inbox := range found {
		log, err := x.known(inbox)
		if err != nil {
			return err
		}
		if ok, err := x.had(inbox, id); err != nil || ok || len(log.states) == 0 {
			if err != nil {
				return err
			}
			continue
		}
		never := true
		for _, state := range log.states {
			_, had := state.Member(id)
			never = never && !had
		}
		x.client.alert(WrongInbox{id.String(), inbox}, never, evidence{})
		return fmt.Errorf("%w: %s", ErrWrongInbox, inbox)
	}
	return nil
}
