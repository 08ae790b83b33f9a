//go:build unix

package descriptors

import (
	"net"
	"syscall"
)

// limit is how many descriptors the process may have. Go has raised it as far as
// it may already.
func limit() (uint64, bool) {
	var l syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	return uint64(l.Cur), err == nil
}

// descriptor is 0 for what has none.
func descriptor(conn net.Conn) (number uint64) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { number = uint64(fd) }) // fails if it is closed: then it has none
	}
	return number
}
