// Package index keeps what was ordered, by topic, in Pebble, and the state that
// is folded from it: inboxes, who belongs to them, newest key packages, and
// what was published before.
//
// Pebble shows a batch to readers before it is durable. Nothing here does: all
// reads are bounded by the number up to which the disk has everything.
package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/go-xmtp/go-xmtp/node/internal/descriptors"
)

// ErrClosed is returned for what comes too late.
var ErrClosed = errors.New("the store is closed")

// ErrDiskFull is returned while there is too little room for new records.
var ErrDiskFull = errors.New("the disk is full: no records can be stored until there is room")

// Options say where and how to open an index.
type Options struct {
	FS     vfs.FS
	Dir    string
	Logger *slog.Logger
	// Reserve is the free disk space, in bytes, below which no records are taken.
	Reserve uint64
	// Ephemeral says that FS is in memory, for a node that may be a test's.
	Ephemeral bool
	// OnFailure is called, from any goroutine, when the store can't go on.
	OnFailure func(error)
	// Now is the clock; [time.Now] if nil. It tells after which number to go on
	// when the directory is a backup.
	Now func() time.Time
}

// Index is safe for use by several goroutines, but for batches, of which one
// is built at a time.
type Index struct {
	db        *pebble.DB
	fs        vfs.FS
	ephemeral bool
	dir       string
	lock      io.Closer
	room      *room

	oldLogs       oldLogs
	snapshots     string // directory of snapshots
	snapshotCount atomic.Uint64

	logger    *slog.Logger
	onFailure func(error)
	serving   atomic.Bool // Open is over
	failing   sync.Once
	failed    chan struct{} // closed after the first failure
	failure   error         // readable when failed is closed
	breaking  sync.Once
	broken    chan struct{} // closed when a write has failed: the store may not answer

	batches   uint64        // ordinal of the newest batch
	published published     // before the batch that is built
	durable   atomic.Uint64 // readers see records up to this number

	mu       sync.Mutex
	advanced chan struct{} // closed and replaced when durable moves

	closing sync.RWMutex // held while the store is read
	closed  bool
}

// Open opens the index in a directory, or makes a new one if there is none.
// The errors tell apart what stands in the way: [ErrForeign], [ErrNewer],
// [ErrInUse], [ErrDamaged]; the directory is then as it was. Only damage inside
// a table, which is too much to look at before, can be found too late for that.
func Open(o Options) (*Index, error) {
	fresh, lock, err := prepare(o.FS, o.Dir)
	if err != nil {
		return nil, err
	}
	x := newIndex(o, lock)
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	if err := x.open(o.FS, o.Dir, fresh, now()); err != nil {
		return nil, errors.Join(err, x.release())
	}
	return x, nil
}

func newIndex(o Options, lock io.Closer) *Index {
	return &Index{
		fs:        o.FS,
		ephemeral: o.Ephemeral,
		dir:       o.Dir,
		lock:      lock,
		snapshots: o.FS.PathJoin(o.Dir, snapshotsName),
		room:      newRoom(o.FS, o.Dir, o.Reserve),
		logger:    o.Logger,
		onFailure: o.OnFailure,
		failed:    make(chan struct{}),
		broken:    make(chan struct{}),
		advanced:  make(chan struct{}),
	}
}

// pebbleOptions are those of the store, without a cache.
func (x *Index) pebbleOptions() *pebble.Options {
	options := &pebble.Options{
		FS:                 &failStop{x.fs, x},
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       16 << 20,
		// Two of them would let a burst wait for a flush.
		MemTableStopWritesThreshold: 3,
		MaxOpenFiles:                descriptors.Tables(),
		Logger:                      pebbleLogger{x},
		EventListener: &pebble.EventListener{
			FlushEnd:       func(pebble.FlushInfo) { x.published.flushed.Store(true) },
			DataCorruption: func(info pebble.DataCorruptionInfo) { x.fail(newDamagedTable(info)) },
		},
	}
	for i := range options.Levels {
		level := &options.Levels[i]
		// Nearly all bytes are ciphertext.
		level.Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		level.FilterPolicy = bloom.FilterPolicy(10)
		level.BlockSize = 16 << 10
	}
	return options
}

func (x *Index) open(fs vfs.FS, dir string, fresh bool, now time.Time) error {
	cache := pebble.NewCache(64 << 20)
	defer cache.Unref()
	options := x.pebbleOptions()
	options.Cache = cache
	store := fs.PathJoin(dir, storeName)
	if !fresh {
		if err := x.check(fs, store, options); err != nil {
			return err
		}
	}
	if x.ephemeral {
		// The default one wakes ten times a second, to see whether the number of compactions
		// that may run has changed. Where the clock is a test's, that is most of what hours cost.
		options.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	}
	db, err := x.openStore(store, options)
	if err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	x.db, x.published.db = db, db
	x.oldLogs.remove(fs)
	err = x.afterMark(fs, dir, now)
	var newest meta
	if err == nil {
		newest, err = x.meta()
	}
	if err == nil && fresh {
		err = finish(fs, dir)
	}
	if err == nil {
		err = fs.RemoveAll(x.snapshots)
	}
	x.serving.Store(true)
	if err == nil {
		err = x.hasFailed()
	}
	if err != nil {
		return errors.Join(err, x.await(x.db.Close))
	}
	x.batches = newest.batches
	x.durable.Store(newest.number)
	return nil
}

// check opens the store without changing anything, because Pebble, opening it
// for writing, begins to before it has seen all damage, and where it doesn't
// find a store makes one.
func (x *Index) check(fs vfs.FS, store string, options *pebble.Options) error {
	names, err := fs.List(store)
	if isNotExist(err) {
		return fmt.Errorf("%w: there is no %q in it", ErrDamaged, storeName)
	}
	if err != nil {
		return fmt.Errorf("reading the store: %w", err)
	}
	// There is one at all times, and without it Pebble takes what was in it for never written.
	if !slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, ".log") }) {
		return fmt.Errorf("%w: the store's log is missing", ErrDamaged)
	}
	db, err := x.openReadOnly(fs, store, options)
	if err == nil {
		err = errors.Join(checkBatches(db), x.checkMark(db), x.hasFailed(), db.Close())
	}
	switch {
	case err == nil || errors.Is(err, ErrDamaged):
		return err
	case errors.Is(err, iofs.ErrPermission), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("reading the store: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

func (x *Index) openReadOnly(fs vfs.FS, store string, options *pebble.Options) (*pebble.DB, error) {
	options = options.Clone()
	options.FS = readOnly{fs}
	options.ReadOnly = true
	return x.openStore(store, options)
}

// checkBatches tells whether a batch is missing before one that is there, which
// is how a lost log or table shows. Only the newest can be, since they are in
// files whose loss Pebble doesn't notice.
func checkBatches(db *pebble.DB) error {
	newest, err := readMeta(db)
	if err != nil {
		return err
	}
	want := uint64(0)
	if newest.batches > 1<<16 {
		want = newest.batches - 1<<16
	}
	found := 0
	prefix := []byte{prefixBatch}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		// What is above the newest or out of its slot counts as little as what is not there.
		if value := it.Value(); len(value) == 8 {
			ordinal := binary.BigEndian.Uint64(value)
			if ordinal > want && ordinal <= newest.batches && bytes.Equal(it.Key(), batchKey(ordinal)) {
				found++
			}
		}
	}
	if err := it.Close(); err != nil {
		return err
	}
	if missing := newest.batches - want - uint64(found); missing != 0 {
		return fmt.Errorf("%w: a log or table of the store is lost, and %d batches of records with it", ErrDamaged, missing)
	}
	return nil
}

// openStore opens a Pebble store.
func (x *Index) openStore(dir string, options *pebble.Options) (db *pebble.DB, err error) {
	opened := make(chan *pebble.DB, 1)
	if err := x.await(func() error {
		db, err := pebble.Open(dir, options)
		opened <- db
		return err
	}); err != nil {
		return nil, err
	}
	return <-opened, nil
}

// await calls do in a goroutine of its own, since Pebble may panic over damaged
// files, and not return when a write has failed.
func (x *Index) await(do func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("the store gave up")
		defer func() {
			if p := recover(); p != nil {
				var ok bool
				if err, ok = p.(error); !ok {
					err = fmt.Errorf("%v", p)
				}
			}
			done <- err
		}()
		err = do()
	}()
	select {
	case err := <-done:
		return err
	case <-x.broken:
		return x.failure
	}
}

// fail tells of the first failure that the store can't go on after.
func (x *Index) fail(err error) {
	x.failing.Do(func() {
		x.failure = err
		close(x.failed)
		if x.serving.Load() {
			x.onFailure(err)
		}
	})
}

// breakDown tells of a write that failed.
func (x *Index) breakDown(err error) {
	x.fail(err)
	x.breaking.Do(func() { close(x.broken) })
}

func (x *Index) hasFailed() error {
	select {
	case <-x.failed:
		return x.failure
	default:
		return nil
	}
}

// Close closes the store and lets others open it. No batch may be under way;
// readers get [ErrClosed] from now on. After a write that failed the store is
// left as it is, and locked, since nobody knows what its goroutines still do.
func (x *Index) Close() error {
	x.closing.Lock()
	defer x.closing.Unlock()
	if x.closed {
		return ErrClosed
	}
	x.closed = true
	select {
	case <-x.broken:
		return nil
	default:
		return errors.Join(x.published.end(), x.await(x.db.Close), x.release())
	}
}

// release gives the lock back unless the store is broken.
func (x *Index) release() error {
	select {
	case <-x.broken:
		return nil
	default:
		return x.lock.Close()
	}
}

// read keeps the store open until x.closing.RUnlock.
func (x *Index) read() error {
	x.closing.RLock()
	if x.closed {
		x.closing.RUnlock()
		return ErrClosed
	}
	return nil
}

// meta is what is stored with every batch.
type meta struct {
	number, time uint64 // of the newest record
	batches      uint64 // how many there have been
}

func (m meta) marshal() []byte {
	value := binary.BigEndian.AppendUint64(make([]byte, 0, 24), m.number)
	value = binary.BigEndian.AppendUint64(value, m.time)
	return binary.BigEndian.AppendUint64(value, m.batches)
}

func parseMeta(value []byte) (meta, error) {
	if value == nil {
		return meta{}, nil
	}
	if len(value) != 24 {
		return meta{}, fmt.Errorf("%w: %d bytes where the newest number is kept", ErrDamaged, len(value))
	}
	return meta{binary.BigEndian.Uint64(value), binary.BigEndian.Uint64(value[8:]), binary.BigEndian.Uint64(value[16:])}, nil
}

func readMeta(db *pebble.DB) (meta, error) {
	value, err := get(db, metaKey)
	if err != nil {
		return meta{}, err
	}
	return parseMeta(value)
}

func (x *Index) meta() (meta, error) {
	value, err := x.get(metaKey)
	if err != nil {
		return meta{}, err
	}
	return parseMeta(value)
}

// Last returns the number and time of the newest record, as [order.Store] asks.
// The index has been opened, so that they can be read.
func (x *Index) Last() (number, time uint64) {
	newest, _ := x.meta()
	return newest.number, newest.time
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
	if err := x.read(); err != nil {
		return nil, err
	}
	defer x.closing.RUnlock()
	return get(x.db, key)
}

func get(db *pebble.DB, key []byte) ([]byte, error) {
	value, closer, err := db.Get(key)
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
type pebbleLogger struct{ index *Index }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.index.logger.Debug("store: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.index.logger.Error("store: " + fmt.Sprintf(format, args...))
}

// Fatalf is called when the store can't go on; Pebble expects that it does not return.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.Errorf(format, args...)
	err := fmt.Errorf("the store failed: "+format, args...)
	for _, arg := range args {
		if cause, ok := arg.(error); ok {
			err = fmt.Errorf("the store failed: %w", cause)
		}
	}
	l.index.breakDown(err)
	runtime.Goexit()
}
