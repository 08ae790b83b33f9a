package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// membership says that an identifier was added to an inbox. An identifier can
// be in several; the one that it was added to last, and is still in, counts.
type membership struct {
	added   uint64 // number of the update that added it
	inbox   string // 32 bytes
	revoked uint64 // number of the update that removed it, or 0
}

// addresses notes which identifiers an update has added and removed.
// Installations are not looked up by anybody.
func (b *batch) addresses(r *order.Record, added, removed []identity.Identifier) error {
	for _, id := range added {
		if prefix := identifierPrefix(id); prefix != nil {
			if err := b.addMembership(prefix, membership{added: r.Number, inbox: r.ID}); err != nil {
				return err
			}
		}
	}
	for _, id := range removed {
		if prefix := identifierPrefix(id); prefix != nil {
			if err := b.revokeMembership(prefix, r.ID, r.Number); err != nil {
				return err
			}
		}
	}
	return nil
}

// identifierPrefix is nil for identifiers that are not looked up: installations,
// and strings that are too long to be an address or a key.
func identifierPrefix(id identity.Identifier) []byte {
	if id.Kind() == identity.KindInstallation || len(id.String()) > maxTopicLength {
		return nil
	}
	return addressPrefix(byte(id.Kind()), id.String())
}

func (b *batch) addMembership(prefix []byte, m membership) error {
	rows, err := b.memberships(prefix)
	if err != nil {
		return err
	}
	b.rows[string(prefix)] = slices.Insert(rows, 0, m)
	return b.set(membershipEntry(prefix, m))
}

func (b *batch) revokeMembership(prefix []byte, inbox string, number uint64) error {
	rows, err := b.memberships(prefix)
	if err != nil {
		return err
	}
	for i := range rows {
		if rows[i].inbox == inbox && rows[i].revoked == 0 {
			rows[i].revoked = number
			return b.set(membershipEntry(prefix, rows[i]))
		}
	}
	return nil
}

// memberships lists an identifier's, newest first, as the batch sees them.
func (b *batch) memberships(prefix []byte) ([]membership, error) {
	if rows, ok := b.rows[string(prefix)]; ok {
		return rows, nil
	}
	rows := []membership{}
	err := b.index.scanMemberships(prefix, func(m membership) bool {
		rows = append(rows, m)
		return true
	})
	b.rows[string(prefix)] = rows
	return rows, err
}

func membershipEntry(prefix []byte, m membership) (key, value []byte) {
	key = binary.BigEndian.AppendUint64(slices.Clone(prefix), m.added)
	value = binary.BigEndian.AppendUint64([]byte(m.inbox), m.revoked)
	return key, value
}

// scanMemberships calls yield with an identifier's memberships, newest first,
// until it returns false.
func (x *Index) scanMemberships(prefix []byte, yield func(membership) bool) error {
	if err := x.read(); err != nil {
		return err
	}
	defer x.closing.RUnlock()
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return fmt.Errorf("reading the store: %w", err)
	}
	for ok := it.Last(); ok; ok = it.Prev() {
		value, err := it.ValueAndErr()
		if err != nil {
			break // it.Close returns it
		}
		if len(it.Key()) != len(prefix)+8 || len(value) < 8 {
			return errors.Join(fmt.Errorf("%w: membership of %d bytes", ErrDamaged, len(value)), it.Close())
		}
		n := len(value) - 8
		more := yield(membership{
			added:   binary.BigEndian.Uint64(it.Key()[len(prefix):]),
			inbox:   string(value[:n]),
			revoked: binary.BigEndian.Uint64(value[n:]),
		})
		if !more {
			break
		}
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("reading the store: %w", err)
	}
	return nil
}

// InboxOf returns the inbox (32 bytes) that the identifier was last added to
// and is still in; found is false if there is none.
func (x *Index) InboxOf(id identity.Identifier) (inbox string, found bool, err error) {
	prefix := identifierPrefix(id)
	if prefix == nil {
		return "", false, nil
	}
	durable := x.Durable()
	err = x.scanMemberships(prefix, func(m membership) bool {
		if m.added <= durable && (m.revoked == 0 || m.revoked > durable) {
			inbox, found = m.inbox, true
		}
		return !found
	})
	return inbox, found, err
}

// HasMember tells whether an inbox (32 bytes) has the member, as far as
// anything was taken, durable or not.
func (x *Index) HasMember(inbox string, id identity.Identifier) (bool, error) {
	value, err := x.get(stateKey(inbox))
	if err != nil || value == nil {
		return false, err
	}
	stored, err := parseInbox(value)
	if err != nil {
		return false, err
	}
	_, found := stored.state.Member(id)
	return found, nil
}
