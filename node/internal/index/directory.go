package index

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
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

// A data directory holds a file that says what it is, a lock and the store. The
// file gets its name last, so that a directory that has it has all.
const (
	formatName = "FORMAT"
	formatTemp = "FORMAT.new"
	lockName   = "LOCK"
	storeName  = "store"

	formatHead    = "go-xmtp node store, format "
	formatVersion = 1
)

// prepare checks that the directory is ours or can become so, and locks it.
// Fresh means that nothing was stored there yet; see [finish].
func prepare(fs vfs.FS, dir string) (fresh bool, lock io.Closer, err error) {
	fresh, err = inspect(fs, dir)
	if err != nil {
		return false, nil, err
	}
	if fresh {
		if err := makeDirectory(fs, dir); err != nil {
			return false, nil, fmt.Errorf("making the data directory: %w", err)
		}
	}
	lock, err = lockDirectory(fs, dir)
	if err != nil {
		return false, nil, err
	}
	// Another process may have been here until now.
	fresh, err = inspect(fs, dir)
	if err == nil && fresh {
		err = begin(fs, dir)
	}
	if err != nil {
		return false, nil, errors.Join(err, lock.Close())
	}
	return fresh, lock, nil
}

func lockDirectory(fs vfs.FS, dir string) (io.Closer, error) {
	lock, err := pebble.LockDirectory(dir, fs)
	if err == nil {
		return lock, nil
	}
	// The lock file can't be made, or it can't be had.
	if pathError := (*iofs.PathError)(nil); errors.As(err, &pathError) {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	return nil, fmt.Errorf("%w: %w", ErrInUse, err)
}

// inspect looks without touching.
func inspect(fs vfs.FS, dir string) (fresh bool, err error) {
	names, err := fs.List(dir)
	if isNotExist(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the data directory: %w", err)
	}
	if !slices.Contains(names, formatName) {
		if slices.Contains(names, markName) {
			return false, fmt.Errorf("%w: it is a backup that was not finished", ErrForeign)
		}
		begun := slices.Contains(names, formatTemp)
		for _, name := range names {
			// What a start that was cut short leaves behind.
			if name == lockName || name == formatTemp || name == storeName && begun {
				continue
			}
			return false, fmt.Errorf("%w: it holds %q but no %s file", ErrForeign, name, formatName)
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

// makeDirectory makes the directory, so that it outlasts a power cut.
func makeDirectory(fs vfs.FS, dir string) error {
	var changed []string
	for path := dir; ; path = fs.PathDir(path) {
		if _, err := fs.Stat(path); !isNotExist(err) || path == fs.PathDir(path) {
			break
		}
		changed = append(changed, fs.PathDir(path))
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, path := range changed {
		if err := syncDirectory(fs, path); err != nil {
			return err
		}
	}
	return nil
}

// begin marks the directory as one that is going to be ours.
func begin(fs vfs.FS, dir string) error {
	err := writeFile(fs, fs.PathJoin(dir, formatTemp), fmt.Sprintf("%s%d\n", formatHead, formatVersion))
	if err == nil {
		err = syncDirectory(fs, dir)
	}
	if err != nil {
		return fmt.Errorf("marking the data directory: %w", err)
	}
	return nil
}

// finish marks the directory, which holds a store now, as ours.
func finish(fs vfs.FS, dir string) error {
	err := fs.Rename(fs.PathJoin(dir, formatTemp), fs.PathJoin(dir, formatName))
	if err == nil {
		err = syncDirectory(fs, dir)
	}
	if err != nil {
		return fmt.Errorf("marking the data directory: %w", err)
	}
	return nil
}

func syncDirectory(fs vfs.FS, dir string) error {
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

func isNotExist(err error) bool { return errors.Is(err, iofs.ErrNotExist) }
