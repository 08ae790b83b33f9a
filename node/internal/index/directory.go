package index

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What can stand in the way of opening a directory.
var (
	ErrForeign = errors.New("not a node's data directory")
	ErrNewer   = errors.New("written by a newer version")
	ErrInUse   = errors.New("in use by another process")
	ErrDamaged = errors.New("damaged")
)

// A data directory holds a file that says what it is, a lock and the store.
const (
	formatName = "FORMAT"
	formatTemp = "FORMAT.new"
	lockName   = "LOCK"
	storeName  = "store"

	formatHead    = "go-xmtp node store, format "
	formatVersion = 1
)

// prepare checks that the directory is ours or can become so, and locks it.
func prepare(fs vfs.FS, dir string) (lock io.Closer, err error) {
	fresh, err := inspect(fs, dir)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := fs.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("making the data directory: %w", err)
		}
	}
	lock, err = pebble.LockDirectory(dir, fs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInUse, err)
	}
	if fresh {
		if err := writeFormat(fs, dir); err != nil {
			return nil, errors.Join(fmt.Errorf("making the data directory: %w", err), lock.Close())
		}
	}
	return lock, nil
}

// inspect looks without touching. Fresh means that nothing was stored there yet.
func inspect(fs vfs.FS, dir string) (fresh bool, err error) {
	names, err := fs.List(dir)
	if isNotExist(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the data directory: %w", err)
	}
	if !slices.Contains(names, formatName) {
		for _, name := range names {
			// What a start that was cut short leaves behind.
			if name != lockName && name != formatTemp {
				return false, fmt.Errorf("%w: it holds %q but no %s file", ErrForeign, name, formatName)
			}
		}
		return true, nil
	}
	content, err := readFile(fs, fs.PathJoin(dir, formatName))
	if err != nil {
		return false, fmt.Errorf("reading the data directory: %w", err)
	}
	digits, ok := strings.CutPrefix(strings.TrimSuffix(string(content), "\n"), formatHead)
	if !ok {
		return false, fmt.Errorf("%w: its %s file is none of ours", ErrForeign, formatName)
	}
	version, err := strconv.ParseUint(digits, 10, 32)
	switch {
	case err != nil || version == 0:
		return false, fmt.Errorf("%w: the %s file does not tell the format", ErrDamaged, formatName)
	case version > formatVersion:
		return false, fmt.Errorf("%w: its format is %d, this version knows formats up to %d", ErrNewer, version, formatVersion)
	}
	return false, nil
}

// writeFormat marks the directory as ours, so that it is durable and whole or not there.
func writeFormat(fs vfs.FS, dir string) error {
	temp := fs.PathJoin(dir, formatTemp)
	f, err := fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s%d\n", formatHead, formatVersion)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := fs.Rename(temp, fs.PathJoin(dir, formatName)); err != nil {
		return err
	}
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, 1<<10))
	return content, errors.Join(err, f.Close())
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
