package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// markName is a file that says that newer records than those of the store may
	// have been seen by clients, and through which number the store goes.
	markName = "BACKUP"
	// snapshotsName is the directory of what Snapshot has made.
	snapshotsName = "snapshots"
)

// markText is what the file says. Whoever copies a directory in another way can
// make an empty file of the name.
const markText = "backup of %s through number %d"

// checkMark tells whether records are missing that the directory had as a backup.
func (x *Index) checkMark(db *pebble.DB) error {
	mark, err := readFile(x.fs, x.fs.PathJoin(x.dir, markName))
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the mark of a backup: %w", err)
	}
	newest, err := readMeta(db)
	if err != nil {
		return err
	}
	var made string
	var number uint64
	if _, err := fmt.Sscanf(string(mark), markText, &made, &number); err == nil && newest.number < number {
		return fmt.Errorf("%w: the backup had everything through number %d, but now it ends with %d", ErrDamaged, number, newest.number)
	}
	return nil
}

// jump is by how much numbers go up at least when a node is started from a
// backup. It counts only where clocks are wrong: see [afterBackup].
const jump = 1 << 32

// afterBackup returns the number after which a node goes on that was started from
// a backup. Nobody knows how many numbers were given out since the backup was
// made, nor how often a node was started from it before; but a node has less than
// a record per microsecond, so that the time in microseconds is above them all. It
// is below 2^53 for two centuries, so that JavaScript's numbers can hold it.
func afterBackup(newest uint64, now time.Time) uint64 {
	return max(newest+jump, uint64(max(now.UnixMicro(), 0)))
}

// afterMark makes the numbers jump if the directory is a backup, and turns it
// into one that is none.
func (x *Index) afterMark(fs vfs.FS, dir string, now time.Time) error {
	path := fs.PathJoin(dir, markName)
	mark, err := readFile(fs, path)
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the mark of a backup: %w", err)
	}
	newest, err := x.meta()
	if err != nil {
		return err
	}
	next := meta{afterBackup(newest.number, now), newest.time, newest.batches + 1}
	b := x.db.NewBatch()
	ordinal := binary.BigEndian.AppendUint64(nil, next.batches)
	err = errors.Join(b.Set(metaKey, next.marshal(), nil), b.Set(batchKey(next.batches), ordinal, nil))
	if err == nil {
		err = x.await(func() error { return b.Commit(pebble.Sync) })
	}
	if err == nil {
		err = fs.Remove(path)
	}
	if err == nil {
		err = syncDirectory(fs, dir)
	}
	if err != nil {
		return fmt.Errorf("starting from a backup: %w", err)
	}
	x.logger.Info("started from a backup: numbers jump ahead, so that clients that have seen newer records than the backup has miss none to come",
		"backup", firstLine(mark), "newest", newest.number, "next", next.number+1)
	return nil
}

func firstLine(text []byte) string {
	for i, b := range text {
		if b < ' ' || b > '~' {
			return string(text[:i])
		}
	}
	return string(text)
}

// Snapshot makes a copy of the store as it is now, from files that it shares with
// it where the file system can do that, and returns the directory of the copy.
// Remove it when it has served. An index that is opened removes what was left.
func (x *Index) Snapshot() (dir string, err error) {
	if err := x.read(); err != nil {
		return "", err
	}
	defer x.closing.RUnlock()
	dir = x.fs.PathJoin(x.snapshots, strconv.FormatUint(x.snapshotCount.Add(1), 10))
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("making a snapshot: %w", err), x.fs.RemoveAll(dir))
		}
	}()
	if err := x.fs.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	err = x.await(func() error {
		return x.db.Checkpoint(x.fs.PathJoin(dir, storeName), pebble.WithFlushedWAL())
	})
	if err == nil {
		err = writeFormat(x.fs, dir)
	}
	return dir, err
}

// OpenReadOnly opens the index of a directory, a backup or a snapshot for
// reading, and keeps others from opening it. There must be one.
func OpenReadOnly(o Options) (*Index, error) {
	fresh, err := inspect(o.FS, o.Dir)
	if err == nil && fresh {
		err = fmt.Errorf("%w: there is no store in it", ErrForeign)
	}
	if err != nil {
		return nil, err
	}
	lock, err := lockDirectory(o.FS, o.Dir)
	if err != nil {
		return nil, err
	}
	x := newIndex(o, lock)
	x.onFailure = func(error) {}
	store := o.FS.PathJoin(o.Dir, storeName)
	err = x.check(o.FS, store, x.pebbleOptions())
	if err == nil {
		x.db, err = x.openReadOnly(o.FS, store, x.pebbleOptions())
	}
	if err != nil {
		return nil, errors.Join(err, x.release())
	}
	newest, err := x.meta()
	if err != nil {
		return nil, errors.Join(err, x.Close())
	}
	x.batches = newest.batches
	x.durable.Store(newest.number)
	return x, nil
}

// Backup copies the store, which was opened for reading, to a directory that a
// node can be started from. It must be empty or not be there.
func (x *Index) Backup(ctx context.Context, to string, now time.Time) (err error) {
	fs := x.fs
	if names, err := fs.List(to); err == nil && len(names) > 0 {
		return fmt.Errorf("%s holds something already", to)
	}
	if err := makeDirectory(fs, to); err != nil {
		return err
	}
	// First, so that an unfinished copy is no store.
	mark := fmt.Sprintf(markText+"\n", now.UTC().Format(time.RFC3339), x.Durable())
	if err := writeFile(fs, fs.PathJoin(to, markName), mark); err != nil {
		return err
	}
	if err := syncDirectory(fs, to); err != nil {
		return err
	}
	from, into := fs.PathJoin(x.dir, storeName), fs.PathJoin(to, storeName)
	names, err := fs.List(from)
	if err != nil {
		return err
	}
	if err := fs.MkdirAll(into, 0o700); err != nil {
		return err
	}
	for _, name := range names {
		if name == lockName {
			continue
		}
		if err := copyFile(ctx, fs, fs.PathJoin(from, name), fs.PathJoin(into, name)); err != nil {
			return err
		}
	}
	if err := syncDirectory(fs, into); err != nil {
		return err
	}
	return writeFormat(fs, to)
}

// copyChunk is how much is copied before looking whether it is still wanted.
const copyChunk = 1 << 20

func copyFile(ctx context.Context, fs vfs.FS, from, to string) error {
	in, err := fs.Open(from, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	defer in.Close() // it was only read
	out, err := fs.Create(to, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	for err == nil {
		if err = ctx.Err(); err == nil {
			_, err = io.CopyN(out, in, copyChunk)
		}
	}
	if errors.Is(err, io.EOF) {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

func writeFile(fs vfs.FS, path, content string) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, content)
	return errors.Join(err, f.Sync(), f.Close())
}

// writeFormat makes a directory ours that holds a whole store.
func writeFormat(fs vfs.FS, dir string) error {
	err := writeFile(fs, fs.PathJoin(dir, formatTemp), fmt.Sprintf("%s%d\n", formatHead, formatVersion))
	if err != nil {
		return fmt.Errorf("marking the data directory: %w", err)
	}
	return finish(fs, dir)
}
