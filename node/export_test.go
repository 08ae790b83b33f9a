package node

import "github.com/cockroachdb/pebble/v2/vfs"

// On returns the options for a data directory on the file system.
func (o Options) On(fs vfs.FS) Options {
	o.fs = fs
	return o
}
