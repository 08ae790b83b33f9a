// Package index keeps what was ordered, by topic, in Pebble, and the state that
// is folded from it: inboxes, who belongs to them, newest key packages, and
// what was published before.
//
// Pebble shows a batch to readers before it is durable. Nothing here does: all
// reads are bounded by the number up to which the disk has everything.
package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrDiskFull is returned while there is too little room for new records.
var ErrDiskFull = errors.New("the disk is full: no records can be stored until there is room")

// Options say where and how to open an index.
type Options struct {
	FS     vfs.FS
	Dir    string
	Logger *slog.Logger
	// Reserve is the free disk space, in bytes, below which no records are taken.
	Reserve uint64
	// OnFailure is called, from any goroutine, when the store can't go on.
	OnFailure func(error)
}

// Index is safe for use by several goroutines, but for batches, of which one
// is built at a time.
type Index struct {
	db   *pebble.DB
	lock io.Closer
	room *room

	durable atomic.Uint64 // readers see records up to this number

	mu       sync.Mutex
	advanced chan struct{} // closed and replaced when durable moves
}

// Open opens the index in a directory, or makes a new one if there is none.
// The errors tell apart what stands in the way: [ErrForeign], [ErrNewer],
// [ErrInUse], [ErrDamaged]; the directory is then as it was.
func Open(o Options) (*Index, error) {
	lock, err := prepare(o.FS, o.Dir)
	if err != nil {
		return nil, err
	}
	x := &Index{lock: lock, room: newRoom(o.FS, o.Dir, o.Reserve), advanced: make(chan struct{})}
	cache := pebble.NewCache(64 << 20)
	defer cache.Unref()
	options := &pebble.Options{
		FS:                 o.FS,
		Cache:              cache,
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       16 << 20,
		// Two of them would let a burst wait for a flush.
		MemTableStopWritesThreshold: 4,
		Logger:                      pebbleLogger{o.Logger, o.OnFailure},
	}
	for i := range options.Levels {
		level := &options.Levels[i]
		// Nearly all bytes are ciphertext.
		level.Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		level.FilterPolicy = bloom.FilterPolicy(10)
		level.BlockSize = 16 << 10
	}
	x.db, err = pebble.Open(o.FS.PathJoin(o.Dir, storeName), options)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrDamaged, err), lock.Close())
	}
	number, _, err := x.last()
	if err != nil {
		return nil, errors.Join(err, x.Close())
	}
	x.durable.Store(number)
	return x, nil
}

// Close closes the store and lets others open it. No batch may be under way.
func (x *Index) Close() error {
	return errors.Join(x.db.Close(), x.lock.Close())
}

// Last returns the number and time of the newest record, as [order.Store] asks.
// The index has been opened, so that they can be read.
func (x *Index) Last() (number, time uint64) {
	number, time, _ = x.last()
	return number, time
}

func (x *Index) last() (number, time uint64, err error) {
	value, err := x.get(metaKey)
	if err != nil || value == nil {
		return 0, 0, err
	}
	if len(value) != 16 {
		return 0, 0, fmt.Errorf("%w: %d bytes where the newest number is kept", ErrDamaged, len(value))
	}
	return binary.BigEndian.Uint64(value), binary.BigEndian.Uint64(value[8:]), nil
}

// Durable returns the number up to which readers see everything.
func (x *Index) Durable() uint64 { return x.durable.Load() }

// Advance lets readers see everything up to number, which must be durable.
func (x *Index) Advance(number uint64) {
	if number == x.durable.Load() {
		return
	}
	x.durable.Store(number)
	x.mu.Lock()
	close(x.advanced)
	x.advanced = make(chan struct{})
	x.mu.Unlock()
}

// HasRoom returns [ErrDiskFull] while no records can be taken.
func (x *Index) HasRoom() error { return x.room.check() }

// awaitDurable returns when readers may see the record of that number.
func (x *Index) awaitDurable(ctx context.Context, number uint64) error {
	for {
		x.mu.Lock()
		advanced := x.advanced
		x.mu.Unlock()
		if number <= x.durable.Load() {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// get returns a copy of the value under key, nil if there is none.
func (x *Index) get(key []byte) ([]byte, error) {
	value, closer, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	value = append(make([]byte, 0, len(value)), value...)
	return value, closer.Close()
}

// pebbleLogger passes on what Pebble has to say.
type pebbleLogger struct {
	*slog.Logger
	onFailure func(error)
}

func (l pebbleLogger) Infof(format string, args ...any) {
	l.Debug("store: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.Error("store: " + fmt.Sprintf(format, args...))
}

// Fatalf is called when the store can't go on; Pebble expects that it does not return.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("the store failed: "+format, args...)
	l.Error(err.Error())
	l.onFailure(err)
	runtime.Goexit()
}
