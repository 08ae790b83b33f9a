package index

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// published tells what was published before. Each message is asked for, and nearly
// none is there, so that this answer has to be cheap. Getting the key from the store
// costs several times as much: it searches what is not in tables yet, for which
// there are no filters, and uses none for the last level, where most of a store is.
//
// So what may not be in tables is kept here, too, and an iterator reads the tables
// alone. What they say is never too little, but too much if something was removed.
//
// It is used by one goroutine at a time.
type published struct {
	db      *pebble.DB
	flushed atomic.Bool      // there are new tables
	tables  *pebble.Iterator // as of the beginning of the batch that is built; nil until it is needed
	// What has been committed since the store was opened: the older generation is
	// dropped when all of it is in tables. When a store is opened, all of it is.
	older, newer generation
}

// A generation are publications that follow each other.
type generation struct {
	keys map[publication]struct{}
	last uint64 // number of the newest record when it was completed
}

// maybe tells whether something may have been published before the batch that is
// built.
func (p *published) maybe(key publication) (bool, error) {
	if p.tables == nil {
		if err := p.begin(); err != nil {
			return false, err
		}
	}
	if _, ok := p.newer.keys[key]; ok {
		return true, nil
	}
	if _, ok := p.older.keys[key]; ok {
		return true, nil
	}
	return p.inTables(key[:])
}

func (p *published) begin() (err error) {
	p.tables, err = p.db.NewIter(&pebble.IterOptions{OnlyReadGuaranteedDurable: true, UseL6Filters: true})
	if err != nil {
		return fmt.Errorf("reading the store: %w", err)
	}
	if !p.flushed.Swap(false) {
		return nil
	}
	found, err := p.inTables(metaKey)
	if err != nil || !found {
		return err
	}
	newest, err := parseMeta(p.tables.Value())
	if err == nil && newest.number >= p.older.last {
		p.older, p.newer = p.newer, generation{}
	}
	return err
}

func (p *published) inTables(key []byte) (bool, error) {
	found := p.tables.SeekPrefixGE(key)
	if err := p.tables.Error(); err != nil {
		return false, fmt.Errorf("reading the store: %w", err)
	}
	return found, nil
}

// commit adds what a batch publishes, up to a number.
func (p *published) commit(keys map[publication]uint64, last uint64) {
	if p.newer.keys == nil {
		p.newer.keys = make(map[publication]struct{}, len(p.older.keys))
	}
	for key := range keys {
		p.newer.keys[key] = struct{}{}
	}
	p.newer.last = last
}

// end is called at the end of each batch.
func (p *published) end() error {
	if p.tables == nil {
		return nil
	}
	err := p.tables.Close()
	p.tables = nil
	if err != nil {
		return fmt.Errorf("reading the store: %w", err)
	}
	return nil
}

// published returns the number under which something was published before, 0 if it
// wasn't.
func (b *batch) published(key publication) (number uint64, err error) {
	if number, ok := b.seen[key]; ok {
		return number, nil
	}
	maybe, err := b.index.published.maybe(key)
	if err != nil || !maybe {
		return 0, err
	}
	value, err := b.index.get(key[:])
	if err != nil || len(value) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), nil
}
