package index

import (
	"context"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// walkCheck is how many entries are read before looking whether they are still
// wanted.
const walkCheck = 1024

// walk calls visit with each entry whose key begins with the byte, in order. The
// slices are the store's. The error is visit's, ctx's or the store's.
func (x *Index) walk(ctx context.Context, prefix byte, visit func(key, value []byte) error) error {
	if err := x.read(); err != nil {
		return err
	}
	defer x.closing.RUnlock()
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
	if err != nil {
		return fmt.Errorf("reading the store: %w", err)
	}
	count := 0
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		if count++; count%walkCheck == 0 && ctx.Err() != nil {
			err = ctx.Err()
			break
		}
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			err = visit(it.Key(), value)
		}
	}
	if closeErr := it.Close(); closeErr != nil && err == nil {
		err = fmt.Errorf("reading the store: %w", closeErr)
	}
	return err
}

// Walk calls visit with all records that are stored: by kind, topic and number,
// and newest key packages at the end. A record is only valid during the call.
func (x *Index) Walk(ctx context.Context, visit func(*order.Record) error) error {
	durable := x.Durable()
	call := func(r *order.Record, err error) error {
		if err != nil || r.Number > durable {
			return err
		}
		return visit(r)
	}
	err := x.walk(ctx, prefixRecord, func(key, value []byte) error {
		topic, number, err := parseRecordKey(key)
		if err != nil {
			return err
		}
		return call(order.ParseValue(topic, number, value))
	})
	if err != nil {
		return err
	}
	return x.walk(ctx, prefixKeyPackage, func(key, value []byte) error {
		topic, err := parseKeyPackageKey(key)
		if err != nil {
			return err
		}
		return call(parseKeyPackage(topic, value))
	})
}

// parseKeyPackageKey is the reverse of [keyPackageKey].
func parseKeyPackageKey(key []byte) (order.Topic, error) {
	if len(key) < 2 || len(key) != 2+int(key[1]) {
		return order.Topic{}, fmt.Errorf("%w: a key package's key of %d bytes", ErrDamaged, len(key))
	}
	return order.Topic{Kind: order.KeyPackage, ID: string(key[2:])}, nil
}

// Stats tell how big a store is.
type Stats struct {
	Format     int
	Newest     uint64            // number of the newest record
	Time       uint64            // when it was ordered, in nanoseconds since the Unix epoch
	Kinds      map[string]uint64 // bytes of tables, by kind of what they hold
	TableBytes uint64
	TableCount uint64
	LogBytes   uint64 // of which most are not in tables yet
}

const logSuffix = ".log"

// kindRanges are the parts of a store by what they hold.
var kindRanges = []struct {
	name  string
	first []byte
}{
	{"group messages", []byte{prefixRecord, byte(order.GroupMessage)}},
	{"welcomes", []byte{prefixRecord, byte(order.Welcome)}},
	{"identity updates", []byte{prefixRecord, byte(order.IdentityUpdate)}},
	{"commit log", []byte{prefixRecord, byte(order.CommitLog)}},
	{"key packages", []byte{prefixKeyPackage}},
	{"inboxes", []byte{prefixState}},
	{"identifiers", []byte{prefixAddress}},
	{"contract signatures", []byte{prefixContract}},
	{"what was published", []byte{prefixSeen}},
}

// Stats looks at tables and sizes, not at records. The index must have been opened
// for reading: a log that is written comes and goes.
func (x *Index) Stats() (Stats, error) {
	if err := x.read(); err != nil {
		return Stats{}, err
	}
	defer x.closing.RUnlock()
	number, at := x.Last()
	s := Stats{Format: formatVersion, Newest: number, Time: at, Kinds: map[string]uint64{}}
	for _, kind := range kindRanges {
		n, err := x.db.EstimateDiskUsage(kind.first, prefixEnd(kind.first))
		if err != nil {
			return Stats{}, fmt.Errorf("reading the store: %w", err)
		}
		s.Kinds[kind.name] = n
	}
	m := x.db.Metrics()
	s.TableBytes, s.TableCount = m.Table.Local.LiveSize, m.Table.Local.LiveCount
	// Pebble doesn't tell of logs that it only reads.
	store := x.fs.PathJoin(x.dir, storeName)
	names, err := x.fs.List(store)
	if err != nil {
		return Stats{}, fmt.Errorf("reading the store: %w", err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, logSuffix) {
			continue
		}
		info, err := x.fs.Stat(x.fs.PathJoin(store, name))
		if err != nil {
			return Stats{}, fmt.Errorf("reading the store: %w", err)
		}
		s.LogBytes += uint64(info.Size())
	}
	return s, nil
}

// Metrics are Pebble's, and nil once the index is closed.
func (x *Index) Metrics() *pebble.Metrics {
	if x.read() != nil {
		return nil
	}
	defer x.closing.RUnlock()
	return x.db.Metrics()
}

// Room returns how many bytes are free on the disk; false where that isn't known.
func (x *Index) Room() (free uint64, known bool) {
	usage, err := x.fs.GetDiskUsage(x.dir)
	return usage.AvailBytes, err == nil
}
