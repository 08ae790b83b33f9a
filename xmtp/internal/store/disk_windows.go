package store

import "syscall"

// The numbers of ERROR_DISK_FULL, ERROR_HANDLE_DISK_FULL, ERROR_DISK_QUOTA_EXCEEDED and
// ERROR_WRITE_PROTECT.
var (
	fullErrors     = []error{syscall.Errno(112), syscall.Errno(39), syscall.Errno(1295)}
	readOnlyErrors = []error{syscall.Errno(19)}
)
