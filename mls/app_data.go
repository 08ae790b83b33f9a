package mls

import (
	"fmt"
	"maps"
	"slices"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// Applications can keep data in the group context, by components that know what an
// update of theirs makes of it (draft-ietf-mls-extensions). The package carries the
// updates, the application applies them: a commit that brings some is known only once
// the new data are.

// ComponentID is the number of an application component (draft-ietf-mls-extensions).
type ComponentID uint16

// ComponentData is the data of one component.
type ComponentData struct {
	Component ComponentID
	Data      []byte
}

// AppDataDictionary makes the extension that holds the data of components, for a
// group, leaf, key package or GroupInfo (draft-ietf-mls-extensions). A component that
// is there twice has its last data.
func AppDataDictionary(list ...ComponentData) Extension {
	d := map[ComponentID][]byte{}
	for _, c := range list {
		d[c.Component] = c.Data
	}
	return Extension{ExtensionAppDataDictionary, appendDictionary(d)}
}

func appendDictionary(d map[ComponentID][]byte) []byte {
	return wire.AppendVector(nil, func(b []byte) []byte {
		for _, id := range slices.Sorted(maps.Keys(d)) {
			b = wire.AppendOpaque(wire.AppendUint16(b, uint16(id)), d[id])
		}
		return b
	})
}

// ParseAppDataDictionary reads the body of that extension. It returns [ErrMalformed],
// also for components that are not in order or there twice.
func ParseAppDataDictionary(body []byte) ([]ComponentData, error) {
	var list []ComponentData
	r := wire.NewReader(body)
	r.Vector(func(r *wire.Reader) {
		c := ComponentData{ComponentID(r.Uint16()), slices.Clone(r.Opaque())}
		if n := len(list); n > 0 && list[n-1].Component >= c.Component {
			r.Fail(fmt.Errorf("component %d after %d", c.Component, list[n-1].Component))
		}
		list = append(list, c)
	})
	if err := r.Done(); err != nil {
		return nil, malformed("application data", err)
	}
	return list, nil
}

// AppDataChange is what a commit does to the data of a component: it removes them,
// or updates them, in order.
type AppDataChange struct {
	Component ComponentID
	Remove    bool
	Updates   [][]byte
	Current   []byte // the data until now
	Present   bool   // there are data until now
}

// AppDataError tells that a commit updates application data, and that its maker has to
// say by [CommitOptions].AppData what the new data are.
type AppDataError struct{ Changes []AppDataChange }

func (e *AppDataError) Error() string {
	return fmt.Sprintf("application data of %d components have to be given", len(e.Changes))
}

// UnresolvedCommit is the [Event] of a received commit that updates application data
// (draft-ietf-mls-extensions). Its signature is verified and its proposals can be
// applied; what it makes of the group is not known yet. Done and Discard of its
// [Pending] both leave the group as it is.
type UnresolvedCommit struct {
	// Changes are those of the application's data.
	Changes []AppDataChange

	// Committer is who made the commit, Proposals all that it brings.
	Committer Sender
	Proposals []CommittedProposal

	group   *publicState
	message []byte
	process func(message []byte) (*Pending[Event], error)
}

func (*UnresolvedCommit) isEvent() {}

// unresolvedError ends the staging of a commit whose new application data are not known.
type unresolvedError struct {
	*AppDataError
	committer Sender
	proposals []listedProposal
}

// unresolved makes the event of a commit that can't be staged yet. process is what
// takes in the message.
func (g *publicState) unresolved(asked *unresolvedError, message []byte, process func([]byte) (*Pending[Event], error)) *Pending[Event] {
	u := &UnresolvedCommit{Changes: asked.Changes, Committer: asked.committer, group: g, message: slices.Clone(message), process: process}
	for _, p := range asked.proposals {
		u.Proposals = append(u.Proposals, CommittedProposal{p.proposal, p.sender, p.ref != nil})
	}
	return newPending[Event](g, u, nil, nil, nil)
}

// Resolve goes on with the commit: data has what is new of each component that is
// updated. The event is the [*StagedCommit]. If the application takes an update for
// invalid, it doesn't resolve the commit, which all members then refuse. The earlier
// [Pending] has to be ended before.
func (u *UnresolvedCommit) Resolve(data map[ComponentID][]byte) (*Pending[Event], error) {
	g := u.group
	if g.pending {
		return nil, fmt.Errorf("mls: resolve: %w", ErrPending)
	}
	g.config.appData = data
	if g.config.appData == nil {
		g.config.appData = map[ComponentID][]byte{}
	}
	defer func() { g.config.appData = nil }()
	p, err := u.process(u.message)
	if err != nil {
		return nil, fmt.Errorf("mls: resolve: %w", err)
	}
	return p, nil
}

// applyAppData applies the updates of application data, after all else. Without the
// new data it returns an [AppDataError], unless nothing but removals is there.
func (o *outcome) applyAppData(e *epoch, list []listedProposal, config *Config) error {
	changes, err := o.appDataChanges(e, list)
	if err != nil || len(changes) == 0 || o.committer == noLeaf {
		return err
	}
	missing := false
	for _, c := range changes {
		_, given := config.appData[c.Component]
		missing = missing || !c.Remove && !given
	}
	if missing && config.appData != nil {
		return invalidProposal("the new data of a component are not given")
	}
	if missing {
		return &AppDataError{changes}
	}
	old, _ := extensionData(o.extensions, ExtensionAppDataDictionary)
	d, err := readDictionary(old)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.Remove {
			delete(d, c.Component)
		} else {
			d[c.Component] = config.appData[c.Component]
		}
	}
	exts := slices.Clone(o.extensions)
	at := slices.IndexFunc(exts, func(x Extension) bool { return x.Type == ExtensionAppDataDictionary })
	if at < 0 {
		at = len(exts)
		exts = append(exts, Extension{Type: ExtensionAppDataDictionary})
	}
	exts[at].Data = appendDictionary(d)
	q, err := newRequirements(e.context.suite, exts)
	if err != nil {
		return err
	}
	o.extensions, o.requires = exts, q
	return nil
}

func readDictionary(body []byte) (map[ComponentID][]byte, error) {
	d := map[ComponentID][]byte{}
	if body == nil {
		return d, nil
	}
	list, err := ParseAppDataDictionary(body)
	for _, c := range list {
		d[c.Component] = c.Data
	}
	return d, err
}

// appDataChanges groups the updates of a list by component, in the order in which the
// components come first, and checks them.
func (o *outcome) appDataChanges(e *epoch, list []listedProposal) ([]AppDataChange, error) {
	var changes []AppDataChange
	old, _ := extensionData(o.extensions, ExtensionAppDataDictionary)
	var d map[ComponentID][]byte
	for _, p := range list {
		v, ok := p.proposal.(AppDataUpdate)
		if !ok {
			if _, ok := p.proposal.(GroupContextExtensions); ok && len(changes) > 0 {
				return nil, invalidProposal("GroupContextExtensions after AppDataUpdate")
			}
			continue
		}
		if d == nil {
			var err error
			if d, err = readDictionary(old); err != nil {
				return nil, err
			}
		}
		id := v.Component
		current, present := d[id]
		i := slices.IndexFunc(changes, func(c AppDataChange) bool { return c.Component == id })
		switch {
		case i >= 0 && (v.Remove || changes[i].Remove):
			return nil, invalidProposal("component %d is removed and changed", id)
		case v.Remove && !present:
			return nil, invalidProposal("component %d has no data to remove", id)
		case i < 0:
			i = len(changes)
			changes = append(changes, AppDataChange{Component: id, Remove: v.Remove, Current: slices.Clone(current), Present: present})
		}
		if !v.Remove {
			changes[i].Updates = append(changes[i].Updates, slices.Clone(v.Update))
		}
	}
	return changes, nil
}

// checkDictionary refuses extensions that change application data while there are
// updates for that.
func (o *outcome) checkDictionary(e *epoch) error {
	if !e.requires.proposals.Contains(uint16(ProposalAppDataUpdate)) {
		return nil
	}
	was, before := extensionData(e.context.extensions, ExtensionAppDataDictionary)
	is, after := extensionData(o.extensions, ExtensionAppDataDictionary)
	if before != after || !slices.Equal(was, is) {
		return invalidProposal("GroupContextExtensions changes application data")
	}
	return nil
}

// SafeExport takes the secret of a component from the epoch
// (draft-ietf-mls-extensions, Exported Secrets): it has the length of the suite's hash,
// all members get the same, each once, and it stays secret if the group's state is
// stolen later. It returns [ErrSecretReused] if it was taken, [ErrInactive], or
// [ErrPending].
func (g *Group) SafeExport(component ComponentID) (*Pending[[]byte], error) {
	if err := g.begin(); err != nil {
		return nil, fmt.Errorf("mls: safe export: %w", err)
	}
	e := g.current
	var secret []byte
	rest := e.export
	if rest != nil {
		secret, rest = rest.Take(uint16(component))
	}
	if secret == nil {
		return nil, fmt.Errorf("mls: safe export: %w", ErrSecretReused)
	}
	changes := func() []Record {
		next := *e
		next.export = rest
		return []Record{g.epochRecord(&next, false)}
	}
	done := func() {
		e.export.Spent(rest)
		e.export = rest
	}
	return newPending(&g.publicState, secret, changes, done, func() { rest.Spent(e.export); clear(secret) }), nil
}
