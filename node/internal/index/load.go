package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// loadTableBytes is about how big the tables are that Load makes.
const loadTableBytes = 32 << 20

// Load fills a new and empty index with group messages and welcomes, much faster
// than publishing does: it makes the store's tables itself. The records must come
// in the order of their keys (kind, length of the topic, topic, number); no two of
// a topic may have the same payload. They are visible when it returns.
//
// It is for benchmarks and tests of big stores.
func (x *Index) Load(records iter.Seq[*order.Record]) error {
	if number, _ := x.Last(); number != 0 {
		return errors.New("loading: there are records already")
	}
	newest := &order.Record{}
	var seen []seenEntry
	tables := &tableWriter{index: x}
	for r := range records {
		if err := tables.set(recordKey(r.Topic, r.Number), r.AppendValue(nil)); err != nil {
			return err
		}
		seen = append(seen, seenEntry{seenKey(r.Topic, r.Payload), r.Number})
		if r.Number > newest.Number {
			newest = &order.Record{Number: r.Number, Time: r.Time}
		}
	}
	if err := tables.finish(); err != nil {
		return err
	}
	slices.SortFunc(seen, func(a, b seenEntry) int { return bytes.Compare(a.key[:], b.key[:]) })
	for _, entry := range seen {
		if err := tables.set(entry.key[:], binary.BigEndian.AppendUint64(nil, entry.number)); err != nil {
			return err
		}
	}
	if err := tables.finish(); err != nil {
		return err
	}
	if err := x.db.Ingest(context.Background(), tables.paths); err != nil {
		return fmt.Errorf("loading: %w", err)
	}
	b := &batch{index: x, b: x.db.NewBatch(), last: newest}
	if err := errors.Join(b.Commit(), b.Wait()); err != nil {
		return fmt.Errorf("loading: %w", err)
	}
	x.Advance(newest.Number)
	return nil
}

type seenEntry struct {
	key    [18]byte
	number uint64
}

// tableWriter writes sorted keys to tables of the store.
type tableWriter struct {
	index *Index
	paths []string
	w     *sstable.Writer
	size  int
}

func (t *tableWriter) set(key, value []byte) error {
	if t.w == nil {
		path := t.index.fs.PathJoin(t.index.dir, fmt.Sprintf("load-%d", len(t.paths)))
		file, err := t.index.fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return fmt.Errorf("loading: %w", err)
		}
		t.paths = append(t.paths, path)
		t.w = sstable.NewWriter(objstorageprovider.NewFileWritable(file), sstable.WriterOptions{
			TableFormat:  t.index.db.TableFormat(),
			Compression:  sstable.NoCompression,
			FilterPolicy: bloom.FilterPolicy(10),
			BlockSize:    16 << 10,
		})
	}
	if err := t.w.Set(key, value); err != nil {
		return fmt.Errorf("loading: %w", err)
	}
	if t.size += len(key) + len(value); t.size >= loadTableBytes {
		return t.finish()
	}
	return nil
}

func (t *tableWriter) finish() error {
	if t.w == nil {
		return nil
	}
	err := t.w.Close()
	t.w, t.size = nil, 0
	return err
}
