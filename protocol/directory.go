package protocol

import (
	"context"
	"fmt"
	"math"

	"github.com/go-xmtp/go-xmtp/identity"
)

// Position is a place in the identity log of an inbox: after the update with this
// sequence id.
type Position struct {
	InboxID    string
	SequenceID uint64
}

// Latest as the sequence id of a [Position] asks for all of the log that is known.
const Latest = math.MaxInt64

// InboxState is what the log of an inbox says at a [Position].
type InboxState struct {
	// SequenceID is that of the newest update at or before the position; 0 if there
	// is none.
	SequenceID uint64

	// State is the association state then; nil without an update.
	State *identity.State

	// Err is why the log up to there is not valid, and never will be.
	Err error
}

// Directory knows the identity logs of inboxes.
type Directory interface {
	// InboxStates returns the states at the positions, in their order. For a
	// position beyond what it has, it asks the network first. An error says nothing
	// about the logs: they could not be had, and what needed them is tried again
	// later.
	InboxStates(ctx context.Context, at []Position) ([]InboxState, error)
}

// lookup gathers positions, so that the directory is asked once.
type lookup struct {
	index  map[Position]int
	at     []Position
	states []InboxState
}

// want adds a position. Sequence ids outside of the official client's range are
// before every update.
func (l *lookup) want(inboxID string, sequenceID uint64) {
	p := Position{inboxID, sequenceID}
	if _, ok := l.index[p]; ok || sequenceID == 0 || sequenceID > Latest {
		return
	}
	if l.index == nil {
		l.index = make(map[Position]int)
	}
	l.index[p] = len(l.at)
	l.at = append(l.at, p)
}

// ask fetches what is wanted.
func (l *lookup) ask(ctx context.Context, d Directory) error {
	if len(l.at) == 0 {
		return nil
	}
	states, err := d.InboxStates(ctx, l.at)
	if err != nil {
		return fmt.Errorf("protocol: looking up inboxes: %w", err)
	}
	if len(states) != len(l.at) {
		return fmt.Errorf("protocol: directory returned %d states for %d positions", len(states), len(l.at))
	}
	l.states = states
	return nil
}

// at returns what was found. It is the zero state for what wasn't wanted.
func (l *lookup) state(inboxID string, sequenceID uint64) InboxState {
	i, ok := l.index[Position{inboxID, sequenceID}]
	if !ok {
		return InboxState{}
	}
	return l.states[i]
}

// exact returns the state at a position at which there is an update, as it has to
// be for whoever refers to it. [Latest] takes any.
func (l *lookup) exact(inboxID string, sequenceID uint64) (*identity.State, error) {
	s := l.state(inboxID, sequenceID)
	switch {
	case s.Err != nil:
		return nil, ErrInboxLog.because(s.Err)
	case s.State == nil || s.SequenceID != sequenceID && sequenceID != Latest:
		return nil, ErrInboxLog.detail("inbox %s has no update %d", inboxID, sequenceID)
	}
	return s.State, nil
}

// installationDiff is what a change of membership does to the installations that
// belong to the group.
type installationDiff struct {
	added, removed installations

	// owners tells for each added installation which inboxes brought it.
	owners map[identity.Identifier][]string
}

// wantDiff asks for what diffInstallations needs.
func (l *lookup) wantDiff(before, after *Membership, d membershipDiff) {
	for _, inboxID := range d.added {
		l.want(inboxID, after.Members[inboxID])
	}
	for _, inboxID := range d.updated {
		l.want(inboxID, before.Members[inboxID])
		l.want(inboxID, after.Members[inboxID])
	}
	for _, inboxID := range d.removed {
		l.want(inboxID, before.Members[inboxID])
	}
}

// diffInstallations compares the installations of each inbox before and after.
func (l *lookup) diffInstallations(before, after *Membership, d membershipDiff) (installationDiff, error) {
	diff := installationDiff{installations{}, installations{}, map[identity.Identifier][]string{}}
	add := func(inboxID string, old, new *identity.State) {
		added, removed := identity.Diff(old, new)
		for _, id := range added {
			if id.Kind() == identity.KindInstallation {
				diff.added.add(id)
				diff.owners[id] = append(diff.owners[id], inboxID)
			}
		}
		for _, id := range removed {
			if id.Kind() == identity.KindInstallation {
				diff.removed.add(id)
			}
		}
	}
	for _, inboxID := range d.added {
		state, err := l.exact(inboxID, after.Members[inboxID])
		if err != nil {
			return diff, err
		}
		add(inboxID, nil, state)
	}
	for _, inboxID := range d.updated {
		from, to := before.Members[inboxID], after.Members[inboxID]
		if from == 0 {
			// A creator's placeholder is nothing.
			state, err := l.exact(inboxID, to)
			if err != nil {
				return diff, err
			}
			add(inboxID, nil, state)
			continue
		}
		old, err := l.exact(inboxID, from)
		if err != nil {
			return diff, err
		}
		if s := l.state(inboxID, to); s.Err == nil && s.SequenceID <= from {
			// No update lies between the two: nothing changed, though the new
			// position is none.
			continue
		}
		state, err := l.exact(inboxID, to)
		if err != nil {
			return diff, err
		}
		add(inboxID, old, state)
	}
	for _, inboxID := range d.removed {
		state, err := l.exact(inboxID, before.Members[inboxID])
		if err != nil {
			return diff, err
		}
		diff.removed.add(state.Installations()...)
	}
	return diff, nil
}
